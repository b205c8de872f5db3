//! The bus: what nodes tell each other about an Account.
//!
//! ```text
//! a shard ── publish(target, message) ──▶ Bus ──▶ the channels of every other node that subscribed to the Account
//! ```
//!
//! Delivery is at most once and in order per sender, as on the core of NATS: what has to arrive is asked for again by
//! whoever needs it. A node never hears itself.

mod in_process;

use futures_util::future::BoxFuture;
use model::bus::{Message, Target};
use model::{AccountId, NodeId};
use tokio::sync::mpsc;

pub use in_process::InProcessBus;

/// Carries messages between nodes.
pub trait Bus: Send + Sync + 'static {
    /// Begins to send to `into` what other nodes publish about `account`, until the subscription is dropped.
    ///
    /// Many subscriptions may share a channel. A subscriber that doesn't empty it loses messages.
    fn subscribe(
        &self,
        node: NodeId,
        account: AccountId,
        into: mpsc::Sender<Message>,
    ) -> BoxFuture<'_, anyhow::Result<Subscription>>;

    /// Sends `message` to the subscribers of its Account that `target` names, except to the node it is from.
    ///
    /// Nobody listening is no error. Waits a moment for a slow subscriber.
    fn publish(&self, target: Target, message: Message) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Whether no node but `node` is known to be there.
    fn is_alone(&self, node: NodeId) -> bool;
}

/// A wish to hear about an Account; dropping it ends it.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription(#[expect(dead_code, reason = "held for its Drop")] Box<dyn Send + Sync>);

impl Subscription {
    /// A subscription that ends when `guard` is dropped.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Box::new(guard))
    }
}
