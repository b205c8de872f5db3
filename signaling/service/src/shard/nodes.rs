//! The way to other nodes: subscriptions and messages, off the core's task and in order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backing::bus::{Bus, Subscription};
use model::bus::{Message, Target};
use model::{AccountId, NodeId};
use tokio::sync::mpsc;

use super::SIDE_LEN_MAX;

/// How long a subscription outlives the last socket of its Account: longer than Sessions and ringing Calls do.
const LINGER: Duration = Duration::from_secs(600);

/// What a shard wants from the bus.
pub(super) struct ToNodes {
    wishes: mpsc::Sender<Wish>,
    /// Since when nobody of the Account was seen with a socket.
    subscribed: HashMap<AccountId, Instant>,
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
            subscribed: HashMap::new(),
        }
    }

    pub(super) async fn subscribe(&mut self, account: AccountId) {
        if self.subscribed.insert(account, Instant::now()).is_none() {
            self.wish(Wish::Subscribe(account)).await;
        }
    }

    /// Waits while too much is on its way.
    pub(super) async fn publish(&self, target: Target, message: Message) {
        self.wish(Wish::Publish(target, message)).await;
    }

    /// Ends the subscriptions of Accounts that are not among the `connected` ones for long.
    pub(super) async fn keep(&mut self, connected: &HashSet<AccountId>) {
        for (account, seen_at) in &mut self.subscribed {
            if connected.contains(account) {
                *seen_at = Instant::now();
            }
        }

        let left: Vec<AccountId> = self
            .subscribed
            .extract_if(|_, seen_at| seen_at.elapsed() > LINGER)
            .map(|(account, _)| account)
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
