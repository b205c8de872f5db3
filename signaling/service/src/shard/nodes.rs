//! The way to other nodes: subscriptions and messages, off the core's task and in order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use backing::bus::{Bus, Subscription};
use model::bus::{Message, Target};
use model::{AccountId, NodeId};
use tokio::sync::mpsc;

use super::SIDE_LEN_MAX;

/// What a shard wants from the bus.
pub(super) struct ToNodes {
    wishes: mpsc::Sender<Wish>,
    subscribed: HashSet<AccountId>,
}

enum Wish {
    Subscribe(AccountId),
    Unsubscribe(AccountId),
    Publish(Target, Message),
}

impl ToNodes {
    /// Starts a task that carries out the wishes until nobody can have any; `heard` gets what others publish.
    pub(super) fn start(node: NodeId, bus: Arc<dyn Bus>, heard: mpsc::Sender<Message>) -> Self {
        let (wishes, wished) = mpsc::channel(SIDE_LEN_MAX);
        tokio::spawn(carry_out(node, bus, heard, wished));

        Self {
            wishes,
            subscribed: HashSet::new(),
        }
    }

    pub(super) async fn subscribe(&mut self, account: AccountId) {
        if self.subscribed.insert(account) {
            self.wish(Wish::Subscribe(account)).await;
        }
    }

    /// Waits while too much is on its way.
    pub(super) async fn publish(&self, target: Target, message: Message) {
        self.wish(Wish::Publish(target, message)).await;
    }

    /// Ends the subscriptions of Accounts that are not served any more.
    pub(super) async fn keep(&mut self, is_served: impl Fn(AccountId) -> bool) {
        let left: Vec<AccountId> = self
            .subscribed
            .extract_if(|account| !is_served(*account))
            .collect();

        for account in left {
            self.wish(Wish::Unsubscribe(account)).await;
        }
    }

    async fn wish(&self, wish: Wish) {
        // The task ends after us, unless the runtime does.
        let _ = self.wishes.send(wish).await;
    }
}

async fn carry_out(
    node: NodeId,
    bus: Arc<dyn Bus>,
    heard: mpsc::Sender<Message>,
    mut wished: mpsc::Receiver<Wish>,
) {
    let mut subscriptions: HashMap<AccountId, Subscription> = HashMap::new();

    while let Some(wish) = wished.recv().await {
        let done = match wish {
            Wish::Subscribe(account) => {
                bus.subscribe(node, account, heard.clone())
                    .await
                    .map(|subscription| {
                        subscriptions.insert(account, subscription);
                    })
            }
            Wish::Unsubscribe(account) => {
                subscriptions.remove(&account);
                Ok(())
            }
            Wish::Publish(target, message) => bus.publish(target, message).await,
        };

        if let Err(error) = done {
            tracing::warn!(%error, "The bus does not work");
        }
    }
}
