//! How much Users and Accounts may relay.
//!
//! A [`Budget`] is shared by Allocations, and any thread may charge it: it takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{Refusal, Traffic};

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
    pub(crate) fn is_unbounded(self) -> bool {
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
    /// Within what a User's and an Account's meter leave; `None` where nothing is bounded.
    pub(crate) fn of(meters: Option<[Arc<Meter>; 2]>) -> Budget {
        Budget {
            meters: meters.map(Arc::new),
        }
    }

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
    pub(crate) fn new(epoch: Instant, rates: Rates) -> Meter {
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

    /// When all that was relayed will be paid for.
    pub(crate) fn paid_at(&self) -> Instant {
        let paid_at = [&self.packets_paid_at, &self.bits_paid_at]
            .map(|paid_at| paid_at.load(Ordering::Relaxed));
        let paid_at = paid_at.into_iter().max().unwrap_or(0);
        self.epoch + Duration::from_nanos(paid_at)
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

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the one real instant simulated time is counted from"
)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::quota::Quotas;

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
