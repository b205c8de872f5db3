//! The bus of one process: channels.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use model::bus::{Message, Target};
use model::{AccountId, NodeId};
use tokio::sync::mpsc;

use super::{Bus, Subscription};

/// How long a publisher waits for a subscriber whose channel is full. It must end: two nodes may wait for each other.
const PATIENCE: Duration = Duration::from_millis(500);

/// The bus of one process. Clones are the same bus.
#[derive(Clone, Default)]
pub struct InProcessBus {
    subscribers: Arc<Subscribers>,
}

#[derive(Default)]
struct Subscribers {
    by_account: Mutex<HashMap<AccountId, Vec<Subscriber>>>,
}

#[derive(Clone)]
struct Subscriber {
    id: u64,
    node: NodeId,
    into: mpsc::Sender<Message>,
}

impl InProcessBus {
    /// A bus nobody has subscribed to.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Bus for InProcessBus {
    fn subscribe(
        &self,
        node: NodeId,
        account: AccountId,
        into: mpsc::Sender<Message>,
    ) -> BoxFuture<'_, anyhow::Result<Subscription>> {
        let id = rand::random();
        let subscriber = Subscriber { id, node, into };

        self.subscribers
            .lock()
            .entry(account)
            .or_default()
            .push(subscriber);

        let guard = Guard {
            subscribers: Arc::clone(&self.subscribers),
            account,
            id,
        };
        std::future::ready(Ok(Subscription::new(guard))).boxed()
    }

    fn publish(&self, target: Target, message: Message) -> BoxFuture<'_, anyhow::Result<()>> {
        let wanted = |subscriber: &&Subscriber| {
            subscriber.node != message.from
                && match target {
                    Target::Node(node) => subscriber.node == node,
                    Target::Account => true,
                }
        };
        let to: Vec<Subscriber> = self
            .subscribers
            .lock()
            .get(&message.account)
            .map(|all| all.iter().filter(wanted).cloned().collect())
            .unwrap_or_default();

        async move {
            for subscriber in to {
                let sent = subscriber.into.send_timeout(message.clone(), PATIENCE).await;

                if let Err(mpsc::error::SendTimeoutError::Timeout(_)) = sent {
                    tracing::warn!(node = %subscriber.node, account = %message.account, "Message lost, the subscriber is too slow");
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn is_alone(&self, node: NodeId) -> bool {
        let by_account = self.subscribers.lock();

        by_account
            .values()
            .flatten()
            .all(|subscriber| subscriber.node == node)
    }
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, HashMap<AccountId, Vec<Subscriber>>> {
        // Each change of the map is whole before anything can panic.
        self.by_account
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

struct Guard {
    subscribers: Arc<Subscribers>,
    account: AccountId,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut by_account = self.subscribers.lock();

        if let Some(subscribers) = by_account.get_mut(&self.account) {
            subscribers.retain(|subscriber| subscriber.id != self.id);
            if subscribers.is_empty() {
                by_account.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::bus::Body;

    use super::*;

    const ACCOUNT: AccountId = AccountId::from_u128(1);
    const HERE: NodeId = NodeId::from_u128(10);
    const THERE: NodeId = NodeId::from_u128(11);
    const ELSEWHERE: NodeId = NodeId::from_u128(12);

    #[tokio::test]
    async fn the_other_nodes_of_an_account_hear_a_message_once() {
        let t = Nodes::new().await;

        t.publish(Target::Account).await;
        assert_eq!(t.heard(), [0, 1, 1]);
        assert!(!t.bus.is_alone(HERE));
    }

    #[tokio::test]
    async fn a_message_for_one_node_reaches_that_one() {
        let t = Nodes::new().await;

        t.publish(Target::Node(ELSEWHERE)).await;
        assert_eq!(t.heard(), [0, 0, 1]);
    }

    #[tokio::test]
    async fn a_dropped_subscription_hears_nothing_and_leaves_nothing() {
        let mut t = Nodes::new().await;

        t.subscriptions.clear();
        t.publish(Target::Account).await;

        assert_eq!(t.heard(), [0, 0, 0]);
        assert!(t.bus.subscribers.lock().is_empty());
        assert!(t.bus.is_alone(HERE));
    }

    #[tokio::test]
    async fn a_subscriber_that_reads_nothing_holds_nobody_up_for_long() {
        let t = Nodes::new().await;

        for _ in 0..3 {
            t.publish(Target::Account).await; // The channels hold two.
        }
        assert_eq!(t.heard(), [0, 2, 2]);
    }

    struct Nodes {
        bus: InProcessBus,
        subscriptions: Vec<Subscription>,
        channels: Vec<mpsc::Receiver<Message>>,
    }

    impl Nodes {
        async fn new() -> Self {
            let bus = InProcessBus::new();
            let (mut subscriptions, mut channels) = (Vec::new(), Vec::new());

            for node in [HERE, THERE, ELSEWHERE] {
                let (into, channel) = mpsc::channel(2);
                subscriptions.push(bus.subscribe(node, ACCOUNT, into).await.unwrap());
                channels.push(channel);
            }

            Self {
                bus,
                subscriptions,
                channels,
            }
        }

        async fn publish(&self, target: Target) {
            let message = Message {
                account: ACCOUNT,
                from: HERE,
                body: Body::Hello,
            };
            self.bus.publish(target, message).await.unwrap();
        }

        fn heard(&self) -> Vec<usize> {
            self.channels.iter().map(mpsc::Receiver::len).collect()
        }
    }
}
