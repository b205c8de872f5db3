//! What one address may do before it has shown a token. The table has a fixed size: it can't be filled.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How many groups of addresses are told apart. Which addresses share one is secret, so that nobody can aim at another.
const GROUPS: usize = 16_384;

/// Refused access tokens: so many at once, then one per so many milliseconds.
const REFUSALS: Rate = Rate {
    burst: 50,
    every_ms: 1_000,
};
/// Sign-ins of the demo.
const SIGN_INS: Rate = Rate {
    burst: 60,
    every_ms: 500,
};

/// Counts by address.
pub(crate) struct Addresses {
    seed: RandomState,
    started_at: Instant,
    open_max: u32,
    groups: Mutex<Box<[Group]>>,
}

#[derive(Clone, Copy, Default)]
struct Group {
    open: u32,
    refusals: Bucket,
    sign_ins: Bucket,
}

/// An open WebSocket of an address; counts until it is dropped.
pub(crate) struct OpenSlot {
    addresses: Arc<Addresses>,
    ip: IpAddr,
}

impl Addresses {
    pub(crate) fn new(open_max: u32) -> Self {
        Self {
            seed: RandomState::new(),
            started_at: Instant::now(),
            open_max,
            groups: Mutex::new(vec![Group::default(); GROUPS].into()),
        }
    }

    /// A number that stands for the address in limits elsewhere.
    pub(crate) fn hash(&self, ip: IpAddr) -> u64 {
        self.seed.hash_one(subscriber_of(ip))
    }

    /// Counts one more WebSocket; `None` when the address has enough of them, or showed too many wrong tokens.
    pub(crate) fn open(self: &Arc<Self>, ip: IpAddr) -> Option<OpenSlot> {
        let now_ms = self.now_ms();
        let granted = self.with_group(ip, |group| {
            let granted = group.open < self.open_max && group.refusals.has_room(REFUSALS, now_ms);
            group.open += u32::from(granted);
            granted
        });

        granted.then(|| OpenSlot {
            addresses: Arc::clone(self),
            ip,
        })
    }

    /// Notes that a token was refused.
    pub(crate) fn note_refusal(&self, ip: IpAddr) {
        let now_ms = self.now_ms();
        self.with_group(ip, |group| group.refusals.take(REFUSALS, now_ms));
    }

    /// Whether one more sign-in of the demo is granted.
    pub(crate) fn may_sign_in(&self, ip: IpAddr) -> bool {
        let now_ms = self.now_ms();
        self.with_group(ip, |group| group.sign_ins.take(SIGN_INS, now_ms))
    }

    fn with_group<T>(&self, ip: IpAddr, change: impl FnOnce(&mut Group) -> T) -> T {
        let index = usize::try_from(self.hash(ip) % GROUPS as u64).unwrap_or(0);
        // A change never panics half-way.
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);

        change(&mut groups[index])
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        self.addresses
            .with_group(self.ip, |group| group.open = group.open.saturating_sub(1));
    }
}

/// Whom an address stands for: a network of IPv6 has 2^64 addresses, and one subscriber.
fn subscriber_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[derive(Clone, Copy)]
struct Rate {
    burst: u64,
    every_ms: u64,
}

/// A leaky bucket in one number: when it will have run dry.
#[derive(Clone, Copy, Default)]
struct Bucket {
    dry_at_ms: u64,
}

impl Bucket {
    fn has_room(self, rate: Rate, now_ms: u64) -> bool {
        self.dry_at_ms.max(now_ms) + rate.every_ms <= now_ms + rate.burst * rate.every_ms
    }

    fn take(&mut self, rate: Rate, now_ms: u64) -> bool {
        let granted = self.has_room(rate, now_ms);
        if granted {
            self.dry_at_ms = self.dry_at_ms.max(now_ms) + rate.every_ms;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_sockets_until_one_closes() {
        let addresses = Arc::new(Addresses::new(2));
        let ip = "192.0.2.1".parse().unwrap();

        let first = addresses.open(ip).unwrap();
        let _second = addresses.open(ip).unwrap();
        assert!(addresses.open(ip).is_none());

        drop(first);
        assert!(addresses.open(ip).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_subscriber() {
        let check = |left: &str, right: &str, same: bool| {
            let (left, right) = (left.parse().unwrap(), right.parse().unwrap());
            assert_eq!(
                subscriber_of(left) == subscriber_of(right),
                same,
                "{left} {right}"
            );
        };

        check("2001:db8::1", "2001:db8::ffff:1", true);
        check("2001:db8::1", "2001:db8:0:1::1", false);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
    }

    #[test]
    fn who_shows_wrong_tokens_has_to_wait() {
        let addresses = Arc::new(Addresses::new(1_000));
        let ip = "192.0.2.1".parse().unwrap();

        for _ in 0..REFUSALS.burst {
            assert!(addresses.open(ip).is_some());
            addresses.note_refusal(ip);
        }
        assert!(addresses.open(ip).is_none());
    }

    #[test]
    fn a_bucket_grants_its_burst_and_then_its_rate() {
        let rate = Rate {
            burst: 2,
            every_ms: 100,
        };
        let mut bucket = Bucket::default();
        let mut take = |now_ms| bucket.take(rate, now_ms);

        assert_eq!([take(0), take(0), take(0)], [true, true, false]);
        assert_eq!([take(99), take(100), take(101)], [false, true, false]);
    }
}
