//! How much Users and Accounts may hold.
//!
//! What is held (Allocations, ports kept for one, connections) is counted here. What is relayed is
//! metered by a [`Budget`], which all Allocations of a User share. Whoever holds nothing any more is
//! remembered until what was relayed is paid for: an Allocation that ends and comes again brings no
//! new second's worth.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::meter::Meter;
use crate::{Budget, Limits, Rates, Refusal};

/// How long whoever is metered and holds nothing any more is remembered at least: what other threads
/// and the network driver relayed last is charged after the Allocation's end.
const LATE_CHARGES: Duration = Duration::from_secs(1);

/// How many Users, and how many Accounts, are remembered that hold nothing any more. Beyond it
/// whoever would be forgotten next is.
const DEBTORS_MAX: usize = 8_192;

/// Who holds how much.
#[derive(Debug)]
pub(crate) struct Quotas {
    epoch: Instant,
    now: Instant,
    users: Holders,
    accounts: Holders,
}

/// Users by `account:user`, or Accounts.
#[derive(Debug, Default)]
struct Holders {
    by_name: HashMap<Arc<str>, Holder>,
    /// Those that hold nothing any more and are metered, by when they are looked at again.
    debtors: BTreeSet<(Instant, Arc<str>)>,
}

#[derive(Debug)]
struct Holder {
    held: usize,
    /// Connections of TCP Allocations.
    connections: usize,
    meter: Arc<Meter>,
    /// Its place among the debtors.
    looked_at: Option<Instant>,
}

impl Holders {
    fn held(&self, name: &str) -> usize {
        self.by_name.get(name).map_or(0, |holder| holder.held)
    }

    fn connections(&self, name: &str) -> usize {
        let holder = self.by_name.get(name);
        holder.map_or(0, |holder| holder.connections)
    }

    fn hold(&mut self, epoch: Instant, name: &str, rates: Rates) {
        let name: Arc<str> = name.into();
        let holder = self.by_name.entry(name.clone());
        let holder = holder.or_insert_with(|| Holder {
            held: 0,
            connections: 0,
            meter: Arc::new(Meter::new(epoch, rates)),
            looked_at: None,
        });
        holder.held += 1;
        if let Some(looked_at) = holder.looked_at.take() {
            self.debtors.remove(&(looked_at, name));
        }
    }

    fn release(&mut self, now: Instant, name: &str) {
        let Some(holder) = self.by_name.get_mut(name) else {
            return;
        };
        holder.held -= 1;
        if holder.held > 0 {
            return;
        }
        if holder.meter.rates().is_unbounded() {
            self.by_name.remove(name);
            return;
        }
        let looked_at = holder.meter.paid_at().max(now + LATE_CHARGES);
        holder.looked_at = Some(looked_at);
        self.debtors.insert((looked_at, name.into()));
        if self.debtors.len() > DEBTORS_MAX
            && let Some((_, next)) = self.debtors.pop_first()
        {
            self.by_name.remove(&next);
        }
    }

    /// Forgets who has nothing left to pay for.
    fn forget(&mut self, now: Instant) {
        while let Some((looked_at, _)) = self.debtors.first()
            && *looked_at <= now
            && let Some((_, name)) = self.debtors.pop_first()
        {
            let Some(holder) = self.by_name.get_mut(&name) else {
                continue;
            };
            let paid_at = holder.meter.paid_at();
            if paid_at > now {
                holder.looked_at = Some(paid_at);
                self.debtors.insert((paid_at, name));
            } else {
                self.by_name.remove(&name);
            }
        }
    }

    /// Forgets all that hold nothing, whatever is left to pay for.
    fn forget_debtors(&mut self) {
        while let Some((_, name)) = self.debtors.pop_first() {
            self.by_name.remove(&name);
        }
    }

    fn hold_connection(&mut self, name: &str) {
        if let Some(holder) = self.by_name.get_mut(name) {
            holder.connections += 1;
        }
    }

    fn release_connection(&mut self, name: &str) {
        if let Some(holder) = self.by_name.get_mut(name) {
            holder.connections -= 1;
        }
    }
}

impl Quotas {
    pub(crate) fn new(epoch: Instant) -> Quotas {
        Quotas {
            epoch,
            now: epoch,
            users: Holders::default(),
            accounts: Holders::default(),
        }
    }

    /// Lets time pass: whoever holds nothing and has nothing left to pay for is forgotten.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.now = now;
        self.users.forget(now);
        self.accounts.forget(now);
    }

    /// Whether `user` may hold `more` Allocations or kept ports (RFC 8656 §7.2).
    pub(crate) fn ensure_fits(
        &self,
        user: &str,
        more: usize,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        if !is_nobody(user) && self.users.held(user) + more > limits.allocations_per_user_max {
            return Err(Refusal::AllocationQuotaReached);
        }
        if self.accounts.held(account_of(user)) + more > limits.allocations_per_account_max {
            return Err(Refusal::AccountQuotaReached);
        }
        Ok(())
    }

    /// Counts one more for `user`.
    pub(crate) fn hold(&mut self, user: &str, limits: &Limits) -> Budget {
        let (epoch, account) = (self.epoch, account_of(user));
        self.users.hold(epoch, user, user_rates(user, limits));
        self.accounts.hold(epoch, account, limits.account_rates);
        self.budget(user, limits)
    }

    /// What one more Allocation of `user`, who holds something, may relay.
    pub(crate) fn budget(&self, user: &str, limits: &Limits) -> Budget {
        let is_bounded = [user_rates(user, limits), limits.account_rates]
            .iter()
            .any(|rates| !rates.is_unbounded());
        let account = self.accounts.by_name.get(account_of(user));
        let user = self.users.by_name.get(user).zip(account);
        let meters = user.map(|(user, account)| [user.meter.clone(), account.meter.clone()]);
        Budget::of(meters.filter(|_| is_bounded))
    }

    /// Meters everybody by other rates from now on, as if nothing had been relayed; each
    /// [`budget`](Self::budget) is to be asked for anew.
    pub(crate) fn set_rates(&mut self, limits: &Limits) {
        let epoch = self.epoch;
        self.users.forget_debtors();
        self.accounts.forget_debtors();
        for (user, holder) in &mut self.users.by_name {
            holder.meter = Arc::new(Meter::new(epoch, user_rates(user, limits)));
        }
        for holder in self.accounts.by_name.values_mut() {
            holder.meter = Arc::new(Meter::new(epoch, limits.account_rates));
        }
    }

    /// Counts one less for `user`.
    pub(crate) fn release(&mut self, user: &str) {
        self.users.release(self.now, user);
        self.accounts.release(self.now, account_of(user));
    }

    /// Whether `user`, who holds an Allocation, may hold one more connection.
    pub(crate) fn ensure_connection_fits(
        &self,
        user: &str,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        if !is_nobody(user) && self.users.connections(user) >= limits.connections_per_user_max {
            return Err(Refusal::ConnectionQuotaReached);
        }
        let of_account = self.accounts.connections(account_of(user));
        if of_account >= limits.connections_per_account_max {
            return Err(Refusal::AccountConnectionQuotaReached);
        }
        Ok(())
    }

    /// Counts one more connection for `user`.
    pub(crate) fn hold_connection(&mut self, user: &str) {
        self.users.hold_connection(user);
        self.accounts.hold_connection(account_of(user));
    }

    /// Counts one connection less for `user`.
    pub(crate) fn release_connection(&mut self, user: &str) {
        self.users.release_connection(user);
        self.accounts.release_connection(account_of(user));
    }
}

/// Whether `account:user` names no User, as behind a third party's token: what bounds it are the
/// Account's limits alone. A User may end in a colon: the first one is what parts the two.
pub(crate) fn is_nobody(user: &str) -> bool {
    user.split_once(':')
        .is_some_and(|(_, name)| name.is_empty())
}

/// What bounds a User beside the Account's rates.
fn user_rates(user: &str, limits: &Limits) -> Rates {
    match is_nobody(user) {
        true => Rates::default(),
        false => limits.user_rates,
    }
}

/// The Account in `account:user`; a name without one is an Account of its own.
pub(crate) fn account_of(user: &str) -> &str {
    user.split_once(':').map_or(user, |(account, _)| account)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the one real instant simulated time is counted from"
)]
mod tests {
    use super::*;
    use crate::Traffic;

    #[test]
    fn debts_outlast_what_was_held_and_are_forgotten_once_paid() {
        let epoch = Instant::now();
        let at = |millis| epoch + Duration::from_millis(millis);
        let limits = Limits {
            user_rates: Rates {
                bits_per_second_max: 8_000,
                packets_per_second_max: 0,
            },
            ..Limits::default()
        };
        let mut quotas = Quotas::new(epoch);
        let before = quotas.hold("acme:alice", &limits);
        assert_eq!(before.admit(epoch, 1_000), Ok(()));
        quotas.release("acme:alice");
        assert_eq!(quotas.accounts.by_name.len(), 0, "nothing bounds it");
        // What the network driver relayed to the end: two seconds' worth.
        let relayed = Traffic {
            packets: 1,
            bytes: 2_000,
        };
        before.meters().unwrap()[0].charge(epoch, relayed);

        quotas.expire(at(2_999));
        let budget = quotas.hold("acme:alice", &limits);
        assert_eq!(budget, before);
        assert_eq!(budget.admit(at(1_999), 1), Err(Refusal::UserRate));
        assert!(quotas.users.debtors.is_empty());
        quotas.release("acme:alice");
        quotas.expire(at(3_998));
        assert_eq!(quotas.users.by_name.len(), 1, "charges may be late");
        quotas.expire(at(3_999));
        assert_eq!(quotas.users.by_name.len(), 0);
        assert!(quotas.users.debtors.is_empty());
    }

    #[test]
    fn debtors_have_a_limit_and_the_one_forgotten_next_makes_room() {
        let epoch = Instant::now();
        let rates = Rates {
            bits_per_second_max: 8_000,
            packets_per_second_max: 0,
        };
        let limits = Limits {
            user_rates: rates,
            account_rates: rates,
            ..Limits::default()
        };
        let mut quotas = Quotas::new(epoch);
        for n in 0..2 * DEBTORS_MAX {
            quotas.expire(epoch + Duration::from_micros(n as u64));
            let user = format!("{n}:user");
            quotas.hold(&user, &limits);
            quotas.release(&user);
        }
        for holders in [&quotas.users, &quotas.accounts] {
            let counts = (holders.by_name.len(), holders.debtors.len());
            assert_eq!(counts, (DEBTORS_MAX, DEBTORS_MAX));
        }
        let first = format!("{DEBTORS_MAX}:user");
        assert!(quotas.users.by_name.contains_key(&*first), "the last half");
        // Who comes back makes room, too.
        quotas.hold(&first, &limits);
        quotas.hold("new:user", &limits);
        quotas.release("new:user");
        assert_eq!(quotas.users.debtors.len(), DEBTORS_MAX);
        assert_eq!(quotas.users.by_name.len(), DEBTORS_MAX + 1);
    }

    #[test]
    fn whoever_ends_in_a_colon_is_somebody() {
        let epoch = Instant::now();
        let limits = Limits {
            allocations_per_user_max: 1,
            ..Limits::default()
        };
        let mut quotas = Quotas::new(epoch);
        for (user, second) in [
            ("acme:bob:", Err(Refusal::AllocationQuotaReached)),
            ("acme::", Err(Refusal::AllocationQuotaReached)),
            ("bob", Err(Refusal::AllocationQuotaReached)),
            ("acme:", Ok(())),
        ] {
            quotas.hold(user, &limits);
            assert_eq!(quotas.ensure_fits(user, 1, &limits), second, "{user}");
        }
    }
}
