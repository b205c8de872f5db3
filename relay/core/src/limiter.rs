//! How often strangers are answered: a table of fixed size, so that a flood costs no memory, and an
//! address somebody forged is hit by a trickle at most.

use std::net::IpAddr;
use std::time::Duration;

/// How many prefixes are told apart. Two that fall together share one bound.
const SLOTS: usize = 8192;

/// How many seconds' worth of answers may go out at once: a whole office joins a call together.
const BURST_SECONDS: u64 = 4;

/// Bounds what goes out to each network that has not authenticated, an IPv4 /24 or an IPv6 /48.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// When each slot is next idle, in microseconds of the relay's own time: the virtual
    /// scheduling of GCRA, which needs one number where a bucket needs two.
    idle_at: Box<[u64]>,
    keys: [u64; 2],
    /// Between two answers, in microseconds; zero where there is no bound.
    interval: u64,
}

impl Limiter {
    /// A table under secret `keys`, so that nobody chooses whom to share a slot with.
    pub(crate) fn new(keys: [u64; 2], answers_per_second_max: u32) -> Limiter {
        let mut limiter = Limiter {
            idle_at: vec![0; SLOTS].into(),
            keys,
            interval: 0,
        };
        limiter.set_rate(answers_per_second_max);
        limiter
    }

    /// Bounds what goes out from now on; what has gone counts.
    pub(crate) fn set_rate(&mut self, answers_per_second_max: u32) {
        self.interval = 1_000_000_u64
            .checked_div(answers_per_second_max.into())
            .unwrap_or(0);
    }

    /// Whether one more answer to `ip` may go out at `now`, the relay's own time; if so it counts.
    pub(crate) fn admit(&mut self, now: Duration, ip: IpAddr) -> bool {
        // No packet from the network comes from loopback, so none is reflected there.
        if self.interval == 0 || ip.is_loopback() {
            return true;
        }
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let slot = self.slot(ip);
        let idle_at = self.idle_at[slot].max(now);
        if idle_at - now > BURST_SECONDS * 1_000_000 - self.interval {
            return false;
        }
        self.idle_at[slot] = idle_at.saturating_add(self.interval);
        true
    }

    fn slot(&self, ip: IpAddr) -> usize {
        let prefix = match ip {
            IpAddr::V4(ip) => u64::from(u32::from(ip) >> 8),
            // The first bit tells the families apart.
            IpAddr::V6(ip) => 1 << 63 | (u128::from(ip) >> 80) as u64,
        };
        // Two rounds of a folded multiplication, each under its own key.
        let mixed = self.keys.into_iter().fold(prefix, |mixed, key| {
            let (low, high) = (mixed ^ key).carrying_mul(key | 1, 0);
            low ^ high
        });
        usize::try_from(mixed % SLOTS as u64).expect("SLOTS fits a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03];

    fn admitted(limiter: &mut Limiter, seconds: u64, ip: &str, tries: u32) -> u32 {
        let ip = ip.parse().unwrap();
        (0..tries)
            .map(|_| u32::from(limiter.admit(Duration::from_secs(seconds), ip)))
            .sum()
    }

    #[test]
    fn a_network_gets_a_burst_and_then_its_rate() {
        let mut limiter = Limiter::new(KEYS, 10);
        assert_eq!(admitted(&mut limiter, 100, "192.0.2.1", 1000), 40);
        assert_eq!(
            admitted(&mut limiter, 100, "192.0.2.200", 1000),
            0,
            "the same /24"
        );
        assert_eq!(
            admitted(&mut limiter, 100, "192.0.3.1", 1000),
            40,
            "another /24"
        );
        assert_eq!(admitted(&mut limiter, 101, "192.0.2.1", 1000), 10);
        assert_eq!(admitted(&mut limiter, 200, "192.0.2.1", 1000), 40);

        assert_eq!(admitted(&mut limiter, 100, "2001:db8:1:2::3", 1000), 40);
        assert_eq!(
            admitted(&mut limiter, 100, "2001:db8:1:ffff::3", 1000),
            0,
            "the same /48"
        );
        assert_eq!(
            admitted(&mut limiter, 100, "2001:db8:2::3", 1000),
            40,
            "another /48"
        );
    }

    #[test]
    fn without_a_bound_and_on_loopback_everything_is_answered() {
        let mut limiter = Limiter::new(KEYS, 0);
        assert_eq!(admitted(&mut limiter, 0, "192.0.2.1", 1000), 1000);
        let mut limiter = Limiter::new(KEYS, 1);
        assert_eq!(admitted(&mut limiter, 0, "127.0.0.1", 1000), 1000);
        assert_eq!(admitted(&mut limiter, 0, "::1", 1000), 1000);
    }

    #[test]
    fn many_networks_are_told_apart() {
        let mut limiter = Limiter::new(KEYS, 1);
        let admitted: u32 = (0..1000_u32)
            .map(|n| {
                let ip = IpAddr::from((n << 8).to_be_bytes());
                u32::from((0..4).all(|_| limiter.admit(Duration::ZERO, ip)))
            })
            .sum();
        assert!(admitted > 850, "{admitted} of 1000 had a slot of their own");
    }
}
