//! How much is called: calls at once, calls a second and minutes a day, of a Trunk, an Account and a User.
//!
//! A call counts for all of them or for none. Minutes are those of answered calls to outside; they are counted while people talk, so that
//! many calls together can't talk past the end of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::phone::rows::CallLimits;
use model::time::Timestamp;

/// The most meters. Those that count nothing are forgotten first; a call beyond it is refused.
pub const METERS_MAX: usize = 200_000;
const DAY_MILLIS: u64 = 86_400_000;

/// Which limit a call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// [`CallLimits::calls`].
    Calls,
    /// [`CallLimits::calls_per_second`].
    CallsPerSecond,
    /// [`CallLimits::minutes_per_day`].
    Minutes,
    /// [`METERS_MAX`].
    Meters,
}

impl Limit {
    /// A word for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::CallsPerSecond => "calls_per_second",
            Self::Minutes => "minutes",
            Self::Meters => "meters",
        }
    }
}

/// A call is over a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("over the limit of {}", limit.as_str())]
pub struct Over<K> {
    /// Whose.
    pub whose: K,
    /// Which.
    pub limit: Limit,
}

/// When it is: by the clock that measures, and by that on the wall, which says what a day is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// By the clock that measures.
    pub now: Instant,
    /// By that on the wall.
    pub wall: Timestamp,
}

/// Counts calls. `K` names what they count for: a Trunk, an Account, a User.
#[derive(Debug, Default)]
pub struct Meters<K> {
    meters: BTreeMap<K, Meter>,
}

#[derive(Debug)]
struct Meter {
    calls: u32,
    /// Calls begun in the second that began then.
    second: (Instant, u32),
    /// Which day, since the epoch.
    day: u64,
    /// Talked on that day, up to `counted`.
    talked: Duration,
    /// Calls to outside that talk.
    talking: u32,
    counted: Instant,
}

impl<K: Ord + Clone> Meters<K> {
    /// Meters that have counted nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            meters: BTreeMap::new(),
        }
    }

    /// A call begins, for all of `whose` within their limits. `outgoing` calls take minutes.
    ///
    /// # Errors
    ///
    /// [`Over`]: whose limit it is over; nothing has been counted.
    pub fn begin(
        &mut self,
        time: Time,
        whose: &[(K, CallLimits)],
        outgoing: bool,
    ) -> Result<(), Over<K>> {
        if self.meters.len() + whose.len() > METERS_MAX {
            self.meters
                .retain(|_, meter| meter.calls > 0 || meter.day == day(time.wall));
        }
        for (name, limits) in whose {
            let over = |limit| {
                Err(Over {
                    whose: name.clone(),
                    limit,
                })
            };
            if self.meters.len() >= METERS_MAX && !self.meters.contains_key(name) {
                return over(Limit::Meters);
            }
            let meter = self
                .meters
                .entry(name.clone())
                .or_insert_with(|| Meter::new(time));
            meter.count(time);
            if meter.calls >= limits.calls {
                return over(Limit::Calls);
            }
            if meter.second.1 >= limits.calls_per_second {
                return over(Limit::CallsPerSecond);
            }
            if outgoing && meter.talked >= minutes(limits) {
                return over(Limit::Minutes);
            }
        }
        for (name, _) in whose {
            if let Some(meter) = self.meters.get_mut(name) {
                meter.calls += 1;
                meter.second.1 += 1;
            }
        }
        Ok(())
    }

    /// A call to outside was answered: its minutes count from now on.
    pub fn answered<'a>(&mut self, time: Time, whose: impl IntoIterator<Item = &'a K>)
    where
        K: 'a,
    {
        for name in whose {
            if let Some(meter) = self.meters.get_mut(name) {
                meter.count(time);
                meter.talking += 1;
            }
        }
    }

    /// A call is over; `talked` says that [`Meters::answered`] was told of it.
    pub fn ended<'a>(&mut self, time: Time, whose: impl IntoIterator<Item = &'a K>, talked: bool)
    where
        K: 'a,
    {
        for name in whose {
            if let Some(meter) = self.meters.get_mut(name) {
                meter.count(time);
                meter.calls = meter.calls.saturating_sub(1);
                meter.talking = meter.talking.saturating_sub(u32::from(talked));
            }
        }
    }

    /// When the minutes of one of them are used up, if all who talk go on; the calls that talk then are ended. Ask again when a call begins or
    /// ends, and at that time: a day may have begun.
    pub fn used_up_at(&mut self, time: Time, whose: &[(K, CallLimits)]) -> Option<Instant> {
        let ends = whose.iter().filter_map(|(name, limits)| {
            let meter = self.meters.get_mut(name)?;
            meter.count(time);
            let left = minutes(limits).saturating_sub(meter.talked);
            (meter.talking > 0).then(|| time.now + left / meter.talking)
        });
        ends.min()
    }

    /// How many calls there are, and how long was talked to outside today.
    pub fn used(&mut self, time: Time, name: &K) -> (u32, Duration) {
        self.meters
            .get_mut(name)
            .map_or_else(Default::default, |meter| {
                meter.count(time);
                (meter.calls, meter.talked)
            })
    }
}

impl Meter {
    fn new(time: Time) -> Self {
        Self {
            calls: 0,
            second: (time.now, 0),
            day: day(time.wall),
            talked: Duration::ZERO,
            talking: 0,
            counted: time.now,
        }
    }

    /// Counts up to now. What was talked since the last count is of today.
    fn count(&mut self, time: Time) {
        if day(time.wall) != self.day {
            self.day = day(time.wall);
            self.talked = Duration::ZERO;
        }
        let since = time.now.saturating_duration_since(self.counted);
        self.talked = self
            .talked
            .saturating_add(since.saturating_mul(self.talking));
        self.counted = time.now;
        if time.now.saturating_duration_since(self.second.0) >= Duration::from_secs(1) {
            self.second = (time.now, 0);
        }
    }
}

fn day(wall: Timestamp) -> u64 {
    wall.as_millis() / DAY_MILLIS
}

fn minutes(limits: &CallLimits) -> Duration {
    Duration::from_secs(60 * u64::from(limits.minutes_per_day))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = DAY_MILLIS * 20_000 + DAY_MILLIS / 2;

    struct Story {
        meters: Meters<&'static str>,
        begin: Instant,
        seconds: u64,
    }

    impl Story {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant can't be made from a number; only differences to it are seen"
        )]
        fn new() -> Self {
            Self {
                meters: Meters::new(),
                begin: Instant::now(),
                seconds: 0,
            }
        }

        fn time(&self) -> Time {
            Time {
                now: self.begin + Duration::from_secs(self.seconds),
                wall: Timestamp::from_millis(NOON + self.seconds * 1_000),
            }
        }

        /// `""`, or whose limit it is over, and which.
        fn call(&mut self, outgoing: bool) -> String {
            let (time, whose) = (self.time(), whose());
            match self.meters.begin(time, &whose, outgoing) {
                Ok(()) => String::new(),
                Err(over) => format!("{} {}", over.whose, over.limit.as_str()),
            }
        }

        fn end(&mut self, talked: bool) {
            let time = self.time();
            self.meters.ended(time, &["trunk", "user"], talked);
        }
    }

    fn whose() -> [(&'static str, CallLimits); 2] {
        let limits = |calls, calls_per_second, minutes_per_day| CallLimits {
            calls,
            calls_per_second,
            minutes_per_day,
        };
        [("trunk", limits(3, 2, 1_000)), ("user", limits(2, 9, 10))]
    }

    #[test]
    fn a_call_counts_for_all_or_for_none() {
        let mut t = Story::new();
        assert_eq!(t.call(true), "");
        assert_eq!(t.call(true), "");
        assert_eq!(t.call(true), "trunk calls_per_second");
        t.seconds = 1;
        assert_eq!(t.call(true), "user calls");
        let time = t.time();
        assert_eq!(t.meters.used(time, &"trunk").0, 2);
        t.end(false);
        assert_eq!(t.call(false), "");
        let alone = [whose()[0]];
        assert_eq!(t.meters.begin(time, &alone, true), Ok(()));
        let over = t.meters.begin(time, &alone, true).expect_err("it is full");
        assert_eq!((over.whose, over.limit), ("trunk", Limit::Calls));
    }

    #[test]
    fn minutes_are_used_by_all_who_talk_and_come_back_with_the_day() {
        let mut t = Story::new();
        let names = ["trunk", "user"];
        for _ in 0..2 {
            assert_eq!(t.call(true), "");
            let time = t.time();
            t.meters.answered(time, &names);
        }
        let (time, whose) = (t.time(), whose());
        let at = t.meters.used_up_at(time, &whose).expect("they talk");
        assert_eq!(
            at - time.now,
            Duration::from_secs(300),
            "ten minutes for two"
        );
        t.seconds = 240;
        t.end(true);
        let time = t.time();
        let at = t.meters.used_up_at(time, &whose).expect("one talks");
        assert_eq!(at - time.now, Duration::from_secs(120));
        t.seconds = 360;
        t.end(true);
        let time = t.time();
        assert_eq!(t.meters.used_up_at(time, &whose), None);
        assert_eq!(t.meters.used(time, &"user"), (0, Duration::from_secs(600)));
        assert_eq!(t.call(true), "user minutes");
        assert_eq!(t.call(false), "", "calls that come in take none");
        t.end(false);
        t.seconds = DAY_MILLIS / 1_000;
        assert_eq!(t.call(true), "");
    }
}
