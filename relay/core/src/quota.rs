//! How much Users and Accounts may hold and relay.
//!
//! What is held (Allocations, and ports kept for one) is counted here. What is relayed is metered
//! by a [`Budget`], which Allocations share and any thread may charge: it takes no lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{Limits, Refusal, Traffic};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What a User's or an Account's Allocations may relay together, in each second; both directions
/// count, and a second's worth may go at once. Zero: no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bits of payload.
    pub bits_per_second_max: u64,
    /// Packets.
    pub packets_per_second_max: u64,
}

impl Rates {
    fn is_unbounded(self) -> bool {
        self == Rates::default()
    }
}

/// What one Allocation may still relay: its User's share, and within its Account's. By default
/// nothing is bounded.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    /// None where nothing is bounded: the usual case costs a look at one pointer.
    meters: Option<Arc<[Arc<Meter>; 2]>>,
}

impl PartialEq for Budget {
    /// Whether both are the same User's.
    fn eq(&self, other: &Budget) -> bool {
        match (&self.meters, &other.meters) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one[0], &other[0]),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Budget {}

impl Budget {
    /// Charges one packet of `len` bytes of payload at `now`.
    ///
    /// # Errors
    ///
    /// [`Refusal::UserRate`] or [`Refusal::AccountRate`]; then the packet is to be dropped.
    pub fn admit(&self, now: Instant, len: usize) -> Result<(), Refusal> {
        let Some(meters) = &self.meters else {
            return Ok(());
        };
        let [user, account] = &**meters;
        if !user.admit(now, len) {
            return Err(Refusal::UserRate);
        }
        if !account.admit(now, len) {
            return Err(Refusal::AccountRate);
        }
        Ok(())
    }

    /// Charges a chunk of `len` bytes of a TCP connection at `now`, as one packet.
    ///
    /// # Errors
    ///
    /// How long to wait before asking again; nothing is charged then.
    pub(crate) fn pace(&self, now: Instant, len: usize) -> Result<(), Duration> {
        let Some(meters) = &self.meters else {
            return Ok(());
        };
        let wait = meters.iter().map(|meter| meter.wait(now, len)).max();
        match wait.unwrap_or_default() {
            Duration::ZERO => {
                for meter in meters.iter() {
                    // Another thread may have been faster: then the next chunk waits for both.
                    meter.admit(now, len);
                }
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// The User's and the Account's meter, for what relays without asking [`admit`](Self::admit);
    /// `None` where nothing is bounded.
    #[must_use]
    pub fn meters(&self) -> Option<&[Arc<Meter>; 2]> {
        self.meters.as_deref()
    }
}

/// One User's or Account's rates, as the virtual scheduling of GCRA: for each bound the time at
/// which what was relayed would be paid for.
#[derive(Debug)]
pub struct Meter {
    epoch: Instant,
    rates: Rates,
    bits_paid_at: AtomicU64,
    packets_paid_at: AtomicU64,
}

impl Meter {
    fn new(epoch: Instant, rates: Rates) -> Meter {
        Meter {
            epoch,
            rates,
            bits_paid_at: AtomicU64::new(0),
            packets_paid_at: AtomicU64::new(0),
        }
    }

    /// What it bounds.
    #[must_use]
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// Charges what was relayed elsewhere since `since`, whether it fits or not: what is too much is
    /// paid for before anything else passes.
    pub fn charge(&self, since: Instant, traffic: Traffic) {
        let since = self.nanos(since);
        let bits = traffic.bytes.saturating_mul(8);
        for (paid_at, amount, per_second) in [
            (
                &self.packets_paid_at,
                traffic.packets,
                self.rates.packets_per_second_max,
            ),
            (&self.bits_paid_at, bits, self.rates.bits_per_second_max),
        ] {
            let cost = cost(amount, per_second).unwrap_or(0);
            paid_at
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid_at| {
                    Some(paid_at.max(since).saturating_add(cost))
                })
                .ok(); // Never refused.
        }
    }

    /// How long after `now` all that was relayed will be paid for: packets, bits.
    #[must_use]
    pub fn ahead(&self, now: Instant) -> [Duration; 2] {
        let now = self.nanos(now);
        [&self.packets_paid_at, &self.bits_paid_at].map(|paid_at| {
            Duration::from_nanos(paid_at.load(Ordering::Relaxed).saturating_sub(now))
        })
    }

    fn nanos(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    fn admit(&self, now: Instant, len: usize) -> bool {
        if self.rates.is_unbounded() {
            return true;
        }
        let now = self.nanos(now);
        let Rates {
            bits_per_second_max,
            packets_per_second_max,
        } = self.rates;
        charge(&self.packets_paid_at, now, 1, packets_per_second_max)
            && charge(&self.bits_paid_at, now, bits_of(len), bits_per_second_max)
    }

    /// How long until [`admit`](Self::admit) admits; zero where it does now.
    fn wait(&self, now: Instant, len: usize) -> Duration {
        let now = self.nanos(now);
        let wait = |paid_at: &AtomicU64, amount, per_second| {
            let Some(cost) = cost_of_packet(amount, per_second) else {
                return 0;
            };
            let next = paid_at
                .load(Ordering::Relaxed)
                .max(now)
                .saturating_add(cost);
            next.saturating_sub(now.saturating_add(NANOS_PER_SECOND))
        };
        let packets = wait(&self.packets_paid_at, 1, self.rates.packets_per_second_max);
        let bits = wait(
            &self.bits_paid_at,
            bits_of(len),
            self.rates.bits_per_second_max,
        );
        Duration::from_nanos(packets.max(bits))
    }
}

fn bits_of(len: usize) -> u64 {
    (len as u64).saturating_mul(8)
}

/// What `amount` of something costs that `per_second` may go of, in nanoseconds; `None` where
/// nothing bounds it.
fn cost(amount: u64, per_second: u64) -> Option<u64> {
    let cost =
        (u128::from(amount) * u128::from(NANOS_PER_SECOND)).checked_div(per_second.into())?;
    Some(u64::try_from(cost).unwrap_or(u64::MAX))
}

/// As [`cost`], of one packet: one larger than a second's worth passes where nothing else did.
fn cost_of_packet(amount: u64, per_second: u64) -> Option<u64> {
    Some(cost(amount, per_second)?.min(NANOS_PER_SECOND))
}

/// Charges `amount` of something that `per_second` may go of, if it fits.
fn charge(paid_at: &AtomicU64, now: u64, amount: u64, per_second: u64) -> bool {
    let Some(cost) = cost_of_packet(amount, per_second) else {
        return true;
    };
    paid_at
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid_at| {
            let next = paid_at.max(now).saturating_add(cost);
            (next <= now.saturating_add(NANOS_PER_SECOND)).then_some(next)
        })
        .is_ok()
}

/// Who holds how much.
#[derive(Debug)]
pub(crate) struct Quotas {
    epoch: Instant,
    users: HashMap<Box<str>, Holder>,
    accounts: HashMap<Box<str>, Holder>,
}

#[derive(Debug)]
struct Holder {
    held: usize,
    /// Connections of TCP Allocations.
    connections: usize,
    meter: Arc<Meter>,
}

impl Quotas {
    pub(crate) fn new(epoch: Instant) -> Quotas {
        Quotas {
            epoch,
            users: HashMap::new(),
            accounts: HashMap::new(),
        }
    }

    /// Whether `user` may hold `more` Allocations or kept ports (RFC 8656 §7.2).
    pub(crate) fn ensure_fits(
        &self,
        user: &str,
        more: usize,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let held = |holders: &HashMap<Box<str>, Holder>, name: &str| {
            holders.get(name).map_or(0, |holder| holder.held)
        };
        if !is_nobody(user) && held(&self.users, user) + more > limits.allocations_per_user_max {
            return Err(Refusal::AllocationQuotaReached);
        }
        if held(&self.accounts, account_of(user)) + more > limits.allocations_per_account_max {
            return Err(Refusal::AccountQuotaReached);
        }
        Ok(())
    }

    /// Counts one more for `user`.
    pub(crate) fn hold(&mut self, user: &str, limits: &Limits) -> Budget {
        let epoch = self.epoch;
        let hold = |holders: &mut HashMap<Box<str>, Holder>, name: &str, rates| {
            let holder = holders.entry(name.into()).or_insert_with(|| Holder {
                held: 0,
                connections: 0,
                meter: Arc::new(Meter::new(epoch, rates)),
            });
            holder.held += 1;
        };
        hold(&mut self.users, user, user_rates(user, limits));
        hold(&mut self.accounts, account_of(user), limits.account_rates);
        self.budget(user, limits)
    }

    /// What one more Allocation of `user`, who holds something, may relay.
    pub(crate) fn budget(&self, user: &str, limits: &Limits) -> Budget {
        let is_bounded = [user_rates(user, limits), limits.account_rates]
            .iter()
            .any(|rates| !rates.is_unbounded());
        let user = self
            .users
            .get(user)
            .zip(self.accounts.get(account_of(user)));
        let meters = user.filter(|_| is_bounded).map(|(user, account)| {
            let meters = [user.meter.clone(), account.meter.clone()];
            Arc::new(meters)
        });
        Budget { meters }
    }

    /// Meters everybody by other rates from now on, as if nothing had been relayed; each
    /// [`budget`](Self::budget) is to be asked for anew.
    pub(crate) fn set_rates(&mut self, limits: &Limits) {
        let epoch = self.epoch;
        for (user, holder) in &mut self.users {
            holder.meter = Arc::new(Meter::new(epoch, user_rates(user, limits)));
        }
        for holder in self.accounts.values_mut() {
            holder.meter = Arc::new(Meter::new(epoch, limits.account_rates));
        }
    }

    /// Counts one less for `user`.
    pub(crate) fn release(&mut self, user: &str) {
        let release = |holders: &mut HashMap<Box<str>, Holder>, name: &str| {
            if let Some(holder) = holders.get_mut(name) {
                holder.held -= 1;
                if holder.held == 0 {
                    holders.remove(name);
                }
            }
        };
        release(&mut self.users, user);
        release(&mut self.accounts, account_of(user));
    }
}

impl Quotas {
    /// Whether `user`, who holds an Allocation, may hold one more connection.
    pub(crate) fn ensure_connection_fits(
        &self,
        user: &str,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let held = self.users.get(user).map_or(0, |holder| holder.connections);
        match !is_nobody(user) && held >= limits.connections_per_user_max {
            true => Err(Refusal::ConnectionQuotaReached),
            false => Ok(()),
        }
    }

    /// Counts one more connection for `user`.
    pub(crate) fn hold_connection(&mut self, user: &str) {
        if let Some(holder) = self.users.get_mut(user) {
            holder.connections += 1;
        }
    }

    /// Counts one connection less for `user`.
    pub(crate) fn release_connection(&mut self, user: &str) {
        if let Some(holder) = self.users.get_mut(user) {
            holder.connections -= 1;
        }
    }
}

/// Whether `account:user` names no User, as behind a third party's token: what bounds it are the
/// Account's limits alone.
fn is_nobody(user: &str) -> bool {
    user.ends_with(':')
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

    #[test]
    fn a_second_s_worth_goes_at_once_and_then_the_rate() {
        let epoch = Instant::now();
        let limits = Limits {
            user_rates: Rates {
                bits_per_second_max: 8_000,
                packets_per_second_max: 0,
            },
            account_rates: Rates {
                bits_per_second_max: 0,
                packets_per_second_max: 15,
            },
            ..Limits::default()
        };
        let mut quotas = Quotas::new(epoch);
        let alice = quotas.hold("acme:alice", &limits);
        let bob = quotas.hold("acme:bob", &limits);
        let passed = |budget: &Budget, millis: u64| {
            let now = epoch + Duration::from_millis(millis);
            let passed = |_: &i32| budget.admit(now, 100).is_ok();
            (0..100).filter(passed).count()
        };

        assert_eq!(passed(&alice, 0), 10, "her bits");
        assert_eq!(alice.admit(epoch, 100), Err(Refusal::UserRate));
        assert_eq!(passed(&bob, 0), 5, "what is left of their packets");
        let last = epoch + Duration::from_millis(500);
        assert_eq!(passed(&alice, 500), 5);
        assert_eq!(bob.admit(last, 1), Ok(()));
        assert_eq!(passed(&bob, 60_000), 10);
        assert_eq!(passed(&alice, 60_000), 5);
        let carol = quotas.hold("acme:carol", &limits);
        assert_eq!(
            carol.admit(epoch + Duration::from_secs(60), 1),
            Err(Refusal::AccountRate)
        );
    }

    #[test]
    fn a_connection_is_told_how_long_to_wait() {
        let epoch = Instant::now();
        let limits = Limits {
            user_rates: Rates {
                bits_per_second_max: 8_000,
                packets_per_second_max: 0,
            },
            ..Limits::default()
        };
        let mut quotas = Quotas::new(epoch);
        let alice = quotas.hold("acme:alice", &limits);
        assert_eq!(alice.pace(epoch, 600), Ok(()));
        assert_eq!(alice.pace(epoch, 600), Err(Duration::from_millis(200)));
        let then = epoch + Duration::from_millis(199);
        assert_eq!(alice.pace(then, 600), Err(Duration::from_millis(1)));
        let then = epoch + Duration::from_millis(200);
        assert_eq!(alice.pace(then, 600), Ok(()));
        assert_eq!(alice.pace(then, 1), Err(Duration::from_millis(1)));
        assert_eq!(quotas.hold("acme:", &limits).pace(then, 60_000), Ok(()));
    }

    #[test]
    fn a_packet_longer_than_a_second_s_worth_passes_alone() {
        let epoch = Instant::now();
        let limits = Limits {
            user_rates: Rates {
                bits_per_second_max: 100,
                packets_per_second_max: 0,
            },
            ..Limits::default()
        };
        let budget = Quotas::new(epoch).hold("alice", &limits);
        assert_eq!(budget.admit(epoch, 65_535), Ok(()));
        assert_eq!(budget.admit(epoch, 1), Err(Refusal::UserRate));
        let later = epoch + Duration::from_secs(1);
        assert_eq!(budget.admit(later, 65_535), Ok(()));
    }

    #[test]
    fn what_was_relayed_elsewhere_is_paid_for_before_anything_passes() {
        let epoch = Instant::now();
        let at = |millis| epoch + Duration::from_millis(millis);
        let limits = Limits {
            user_rates: Rates {
                bits_per_second_max: 8_000,
                packets_per_second_max: 0,
            },
            ..Limits::default()
        };
        let budget = Quotas::new(epoch).hold("acme:alice", &limits);
        let [user, account] = budget.meters().unwrap();
        let relayed = |bytes| Traffic { packets: 1, bytes };

        // A second's worth within the second that is over leaves the next one whole.
        user.charge(epoch, relayed(1_000));
        account.charge(epoch, relayed(1_000));
        assert_eq!(user.ahead(at(1_000)), [Duration::ZERO; 2]);
        assert_eq!(account.ahead(epoch), [Duration::ZERO; 2]);
        assert_eq!(budget.admit(at(1_000), 1_000), Ok(()));

        // Two seconds' worth more, and nothing passes until the last of them.
        user.charge(at(1_000), relayed(2_000));
        assert_eq!(
            user.ahead(at(2_000)),
            [Duration::ZERO, Duration::from_secs(2)]
        );
        assert_eq!(budget.admit(at(2_999), 1), Err(Refusal::UserRate));
        assert_eq!(budget.admit(at(3_100), 100), Ok(()));
    }
}
