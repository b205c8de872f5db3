//! Who is listened to at all, before a byte of a message is read.
//!
//! ```text
//! deny, allow ─▶ known (a Trunk's address, a registered phone's) ─▶ read
//!                stranger ─▶ banned? ─▶ bucket ─▶ read, and answered only who names a domain of ours
//! ```
//!
//! Whatever is kept of strangers has a fixed size: buckets in a table that never grows, where two sources may share one, and the
//! failures of the last few.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use model::Network;

use crate::config::Config;

/// How many sources are told apart. Two that fall together share a bucket.
const BUCKETS: usize = 4_096;

/// How many sources with failures are remembered; beyond it the one that has been quiet the longest is forgotten.
const FAILURES_MAX: usize = 4_096;

/// Why nothing is heard of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Silence {
    /// By `deny`, or not by `allow`.
    Listed,
    /// Too many wrong passwords.
    Banned,
    /// More messages than a stranger may send.
    Flood,
    /// A stranger who names no domain of ours, or wants what strangers can't have.
    Stranger,
}

impl Silence {
    /// All of them, for figures.
    pub const ALL: [Self; 4] = [Self::Listed, Self::Banned, Self::Flood, Self::Stranger];

    /// A word for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Banned => "banned",
            Self::Flood => "flood",
            Self::Stranger => "stranger",
        }
    }
}

/// Decides about sources.
pub(crate) struct Admission {
    allow: Vec<Network>,
    deny: Vec<Network>,
    per_second: f64,
    failures_max: u32,
    ban: Duration,
    hasher: RandomState,
    buckets: Vec<Bucket>,
    failures: Vec<Failures>,
}

#[derive(Clone, Copy)]
struct Bucket {
    filled: f64,
    at: Instant,
}

/// The wrong passwords of one source.
#[derive(Clone, Copy)]
struct Failures {
    source: u128,
    count: u32,
    last: Instant,
}

impl Admission {
    pub(crate) fn new(now: Instant, config: &Config) -> Self {
        let per_second = f64::from(config.stranger_messages_per_second);
        Self {
            allow: config.allow.clone(),
            deny: config.deny.clone(),
            per_second,
            failures_max: config.failures_max,
            ban: Duration::from_secs(config.ban_seconds),
            hasher: RandomState::default(),
            buckets: vec![
                Bucket {
                    filled: burst(per_second),
                    at: now,
                };
                BUCKETS
            ],
            failures: Vec::new(),
        }
    }

    /// Whether a message or connection of this source is looked at. Known sources have no rate.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        source: IpAddr,
        known: bool,
    ) -> Result<(), Silence> {
        let source = source.to_canonical();
        let has = |list: &[Network]| list.iter().any(|network| network.contains(source));
        if has(&self.deny) || !self.allow.is_empty() && !has(&self.allow) {
            return Err(Silence::Listed);
        }
        if known {
            return Ok(());
        }
        if self.is_banned(now, source) {
            return Err(Silence::Banned);
        }
        let per_second = self.per_second;
        let at = self.hasher.hash_one(prefix(source));
        let at = usize::try_from(at % BUCKETS as u64).unwrap_or(0);
        let bucket = &mut self.buckets[at];
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.filled = (bucket.filled + passed * per_second).min(burst(per_second));
        bucket.at = now;
        if bucket.filled < 1.0 {
            return Err(Silence::Flood);
        }
        bucket.filled -= 1.0;
        Ok(())
    }

    /// A wrong password came from there. Whether that was the last one for a while.
    pub(crate) fn on_failure(&mut self, now: Instant, source: IpAddr) -> bool {
        let (source, ban) = (prefix(source.to_canonical()), self.ban);
        self.failures
            .retain(|failures| now.saturating_duration_since(failures.last) < ban);
        if let Some(known) = self
            .failures
            .iter_mut()
            .find(|known| known.source == source)
        {
            known.count = known.count.saturating_add(1);
            known.last = now;
            return known.count == self.failures_max;
        }
        if self.failures.len() >= FAILURES_MAX {
            let quietest = self
                .failures
                .iter()
                .enumerate()
                .min_by_key(|(_, one)| one.last);
            if let Some((at, _)) = quietest {
                self.failures.swap_remove(at);
            }
        }
        self.failures.push(Failures {
            source,
            count: 1,
            last: now,
        });
        self.failures_max == 1
    }

    /// The right password came from there: what was wrong before is forgotten.
    pub(crate) fn on_success(&mut self, source: IpAddr) {
        let source = prefix(source.to_canonical());
        self.failures.retain(|failures| failures.source != source);
    }

    /// How many sources are banned.
    pub(crate) fn banned(&self, now: Instant) -> usize {
        self.failures
            .iter()
            .filter(|one| self.bans(now, one))
            .count()
    }

    fn is_banned(&self, now: Instant, source: IpAddr) -> bool {
        let source = prefix(source);
        self.failures
            .iter()
            .any(|one| one.source == source && self.bans(now, one))
    }

    fn bans(&self, now: Instant, one: &Failures) -> bool {
        one.count >= self.failures_max && now.saturating_duration_since(one.last) < self.ban
    }
}

/// As much as a stranger may send at once.
fn burst(per_second: f64) -> f64 {
    per_second * 2.0
}

/// What counts as one source: an IPv4 address, or a /64 of IPv6, of which everybody has one.
fn prefix(source: IpAddr) -> u128 {
    match source {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => u128::from(ip) >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admission(toml: &str) -> (Admission, Instant) {
        let now = Instant::now();
        (Admission::new(now, &toml::from_str(toml).unwrap()), now)
    }

    #[test]
    fn lists_come_before_everything() {
        let (mut t, now) = admission("allow = ['10.0.0.0/8']\ndeny = ['10.6.0.0/16']");
        assert_eq!(t.admit(now, ip("10.1.1.1"), false), Ok(()));
        assert_eq!(t.admit(now, ip("::ffff:10.1.1.1"), false), Ok(()));
        assert_eq!(t.admit(now, ip("10.6.1.1"), true), Err(Silence::Listed));
        assert_eq!(t.admit(now, ip("192.0.2.1"), true), Err(Silence::Listed));
    }

    #[test]
    fn a_stranger_has_a_rate_and_who_is_known_has_none() {
        let (mut t, now) = admission("stranger_messages_per_second = 5");
        let mut taken = |now, source: &str, known| {
            (0..100)
                .filter(|_| t.admit(now, ip(source), known).is_ok())
                .count()
        };
        assert_eq!(taken(now, "192.0.2.1", false), 10);
        assert_eq!(taken(now, "192.0.2.1", true), 100);
        assert_eq!(taken(now + Duration::from_secs(1), "192.0.2.1", false), 5);
        assert_eq!(taken(now, "2001:db8::1", false), 10);
        assert_eq!(
            taken(now, "2001:db8::ffff:1", false),
            0,
            "the same network of one customer"
        );
    }

    #[test]
    fn wrong_passwords_silence_for_a_while() {
        let (mut t, now) = admission("failures_max = 3\nban_seconds = 60");
        let source = ip("192.0.2.1");
        assert_eq!(
            [(); 3].map(|()| t.on_failure(now, source)),
            [false, false, true]
        );
        assert_eq!(t.admit(now, source, false), Err(Silence::Banned));
        assert_eq!(
            t.admit(now, source, true),
            Ok(()),
            "a Trunk is not locked out"
        );
        assert_eq!(t.admit(now, ip("192.0.2.2"), false), Ok(()));
        assert_eq!(t.banned(now), 1);
        let later = now + Duration::from_secs(60);
        assert_eq!(t.admit(later, source, false), Ok(()));
        t.on_failure(later, source);
        t.on_success(source);
        assert!(t.failures.is_empty());
    }

    #[test]
    fn what_is_kept_of_failures_has_a_size() {
        let (mut t, now) = admission("");
        for number in 0..10_000_u32 {
            t.on_failure(
                now + Duration::from_millis(number.into()),
                IpAddr::V4(number.into()),
            );
        }
        assert_eq!(t.failures.len(), FAILURES_MAX);
    }
}
