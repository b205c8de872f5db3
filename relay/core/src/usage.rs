//! What each Account has relayed: added up by whoever relays, taken by whoever keeps the books.
//!
//! ```text
//! threads ── Tally::count_* ──▶ one Tally for each Allocation ── Relay::take_usage ──▶ sums by Account
//! ```
//!
//! A thread that relays adds to the [`Tally`] of the Allocation and asks nobody. An Allocation that
//! has ended is waited for until the last thread has let go of its Tally, so nothing is lost on the
//! way.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Traffic;
use crate::allocation::Allocation;
use crate::quota::account_of;
use crate::relay::Relay;

/// How many Accounts are told apart between two takings; what others relay is [`OTHERS`]'.
const ACCOUNTS_MAX: usize = 65_536;

/// How many Allocations that have ended may wait for the threads that served them.
const ENDED_MAX: usize = 4_096;

/// Stands for the Accounts beyond the limit. No Account has this name: ids are longer, and
/// operators name theirs.
pub const OTHERS: &str = "*";

/// What one Allocation has relayed. Cheap to clone; any thread may add to it, without a lock.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    to_peers: Counter,
    to_clients: Counter,
}

#[derive(Debug, Default)]
struct Counter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self) -> Traffic {
        Traffic {
            packets: self.packets.swap(0, Ordering::Relaxed),
            bytes: self.bytes.swap(0, Ordering::Relaxed),
        }
    }
}

impl PartialEq for Tally {
    /// Whether both are the same Allocation's.
    fn eq(&self, other: &Tally) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tally {}

impl Tally {
    /// Adds what went toward peers: `bytes` of payload, without headers, in `packets` packets (0
    /// where a byte stream has none).
    pub fn count_to_peers(&self, packets: u64, bytes: u64) {
        self.0.to_peers.add(packets, bytes);
    }

    /// Adds what went to the client, in the same units.
    pub fn count_to_clients(&self, packets: u64, bytes: u64) {
        self.0.to_clients.add(packets, bytes);
    }

    /// Whether nobody else can add any more.
    fn is_settled(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn take(&self) -> AccountUsage {
        AccountUsage {
            allocations: 0,
            to_peers: self.0.to_peers.take(),
            to_clients: self.0.to_clients.take(),
        }
    }
}

/// What the Allocations of one Account have relayed, in some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountUsage {
    /// Allocations granted.
    pub allocations: u64,
    /// From its clients toward peers.
    pub to_peers: Traffic,
    /// From peers to its clients.
    pub to_clients: Traffic,
}

impl AddAssign for AccountUsage {
    fn add_assign(&mut self, other: AccountUsage) {
        self.allocations += other.allocations;
        self.to_peers += other.to_peers;
        self.to_clients += other.to_clients;
    }
}

/// Sums by Account, as user names carry it.
pub type UsageByAccount = BTreeMap<Box<str>, AccountUsage>;

/// What was relayed and not yet taken, but for what live Allocations hold.
#[derive(Debug, Default)]
pub(crate) struct Usages {
    sums: UsageByAccount,
    /// Allocations that have ended, whose threads may still add.
    ended: Vec<(Box<str>, Tally)>,
}

impl Usages {
    /// Counts an Allocation of `user` that was granted.
    pub(crate) fn grant(&mut self, user: &str) {
        let granted = AccountUsage {
            allocations: 1,
            ..AccountUsage::default()
        };
        self.add(account_of(user), granted);
    }

    /// Keeps the tally of an Allocation that has ended until nobody adds to it any more.
    pub(crate) fn end(&mut self, user: &str, tally: Tally) {
        self.ended.push((account_of(user).into(), tally));
        if self.ended.len() > ENDED_MAX {
            self.settle();
            // A thread that is so far behind has stopped.
            let beyond = self.ended.len().saturating_sub(ENDED_MAX);
            self.ended.drain(..beyond);
        }
    }

    /// Sums up what ended Allocations hold, and forgets those that are settled.
    fn settle(&mut self) {
        for (account, tally) in std::mem::take(&mut self.ended) {
            // In this order: what is added after the look is found at the next one.
            let is_settled = tally.is_settled();
            self.add(&account, tally.take());
            if !is_settled {
                self.ended.push((account, tally));
            }
        }
    }

    fn add(&mut self, account: &str, usage: AccountUsage) {
        if usage == AccountUsage::default() {
            return;
        }
        if let Some(sum) = self.sums.get_mut(account) {
            *sum += usage;
            return;
        }
        let account = match self.sums.len() < ACCOUNTS_MAX {
            true => account,
            false => OTHERS,
        };
        *self.sums.entry(account.into()).or_default() += usage;
    }
}

impl Relay {
    /// Takes what each Account has relayed since the last call, live Allocations included. Whoever
    /// takes it keeps it, or [gives it back](Self::give_back_usage).
    pub fn take_usage(&mut self) -> UsageByAccount {
        for (
            _,
            Allocation {
                identity, tally, ..
            },
        ) in &self.allocations
        {
            self.usages.add(account_of(identity.user()), tally.take());
        }
        self.usages.settle();
        std::mem::take(&mut self.usages.sums)
    }

    /// Takes back what was taken and could not be kept.
    pub fn give_back_usage(&mut self, usage: UsageByAccount) {
        for (account, usage) in usage {
            self.usages.add(&account, usage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_adds_after_the_end_is_still_found() {
        let mut usages = Usages::default();
        let tally = Tally::default();
        let of_thread = tally.clone();
        usages.grant("acme:alice");
        of_thread.count_to_peers(2, 300);
        usages.end("acme:alice", tally);
        usages.settle();
        of_thread.count_to_clients(1, 50);
        assert_eq!(usages.ended.len(), 1, "the thread may add more");
        drop(of_thread);
        usages.settle();
        assert_eq!(usages.ended.len(), 0);
        let sum = usages.sums["acme"];
        assert_eq!(sum.allocations, 1);
        assert_eq!((sum.to_peers.packets, sum.to_peers.bytes), (2, 300));
        assert_eq!((sum.to_clients.packets, sum.to_clients.bytes), (1, 50));
    }

    #[test]
    fn accounts_beyond_the_limit_are_summed_up_together() {
        let mut usages = Usages::default();
        for account in 0..ACCOUNTS_MAX + 10 {
            usages.grant(&format!("{account}:user"));
        }
        assert_eq!(usages.sums.len(), ACCOUNTS_MAX + 1);
        assert_eq!(usages.sums[OTHERS].allocations, 10);
    }

    #[test]
    fn those_that_ended_are_kept_within_a_limit() {
        let mut usages = Usages::default();
        let held: Vec<Tally> = (0..ENDED_MAX + 10).map(|_| Tally::default()).collect();
        for tally in &held {
            tally.count_to_peers(1, 1);
            usages.end("acme:alice", tally.clone());
        }
        assert_eq!(usages.ended.len(), ENDED_MAX);
        usages.settle();
        let sum = usages.sums["acme"].to_peers.packets;
        assert_eq!(sum, held.len() as u64, "what was counted before is there");
    }
}
