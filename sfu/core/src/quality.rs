//! How well a Participant is connected, as a word: what people see beside a name.

use std::time::{Duration, Instant};

use model::media::ConnectionQuality;

use crate::bitrate::Bitrate;

/// What is known of a Participant's connection, up and down; what isn't known yet is as good as can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The share of packets lost, 0 to 1: the worse direction.
    pub loss: f64,
    /// The round trip.
    pub round_trip: Duration,
    /// The interarrival jitter (RFC 3550 §6.4.1), as a time.
    pub jitter: Duration,
    /// What gets through to them.
    pub estimate: Bitrate,
    /// What they want to receive, audio included.
    pub wished: Bitrate,
    /// How long nothing was heard of them.
    pub silence: Duration,
}

/// How what a Participant sends arrives, by the last reports on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uplink {
    /// Packets that should have come.
    pub expected: u64,
    /// Of these, such as did not; one that was sent again was lost.
    pub lost: u64,
    /// The largest interarrival jitter of their sound. That of pictures tells how the sender spreads them, not how the network does.
    pub jitter: Duration,
}

impl Uplink {
    /// The share of packets lost, 0 to 1.
    pub fn loss(&self) -> f64 {
        match self.expected {
            0 => 0.0,
            expected => self.lost as f64 / expected as f64,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.expected += other.expected;
        self.lost += other.lost;
        self.jitter = self.jitter.max(other.jitter);
    }
}

/// After this time without a sign of life a Participant is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(5);

/// The least that each quality needs: loss, round trip and jitter (milliseconds) at most, and of what is wished so much at
/// least, in percent.
const EXCELLENT: (f64, u64, u64, u64) = (0.02, 250, 40, 80);
const GOOD: (f64, u64, u64, u64) = (0.08, 500, 100, 30);

/// Judges a sample: the worst of its figures decides.
pub fn quality(sample: &Sample) -> ConnectionQuality {
    let fulfils = |(loss, round_trip, jitter, percent): (f64, u64, u64, u64)| {
        let wished = u128::from(sample.wished.as_bps()) * u128::from(percent);
        sample.loss <= loss
            && sample.round_trip <= Duration::from_millis(round_trip)
            && sample.jitter <= Duration::from_millis(jitter)
            && u128::from(sample.estimate.as_bps()) * 100 >= wished
    };
    if sample.silence >= LOST_AFTER {
        ConnectionQuality::Lost
    } else if fulfils(EXCELLENT) {
        ConnectionQuality::Excellent
    } else if fulfils(GOOD) {
        ConnectionQuality::Good
    } else {
        ConnectionQuality::Poor
    }
}

/// A worse quality is told after it held so long, a better one only after the other; a loss and its end at once.
const HOLD_WORSE: Duration = Duration::from_secs(2);
const HOLD_BETTER: Duration = Duration::from_secs(6);

/// Tells a change of quality only once it has held, so that no word flickers.
#[derive(Debug, Clone)]
pub struct Steady {
    told: Option<ConnectionQuality>,
    /// What differs from it, all the while since then.
    other: Option<(ConnectionQuality, Instant)>,
}

impl Steady {
    /// Nothing was told yet.
    pub fn new() -> Self {
        Self {
            told: None,
            other: None,
        }
    }

    /// Takes the quality of now, once a second or so. Returns what to tell, if that has changed.
    pub fn update(
        &mut self,
        now: Instant,
        quality: ConnectionQuality,
    ) -> Option<ConnectionQuality> {
        let Some(told) = self.told else {
            return self.tell(quality);
        };
        if quality == told {
            self.other = None;
            return None;
        }
        if quality == ConnectionQuality::Lost || told == ConnectionQuality::Lost {
            return self.tell(quality);
        }

        let is_worse = quality < told;
        // Both worse or both better: it goes on, and ends at the least of the change.
        let (other, since) = match self.other {
            Some((other, since)) if (other < told) == is_worse => {
                let least = if is_worse {
                    other.max(quality)
                } else {
                    other.min(quality)
                };
                (least, since)
            }
            _ => (quality, now),
        };
        self.other = Some((other, since));
        let hold = if is_worse { HOLD_WORSE } else { HOLD_BETTER };
        if now.saturating_duration_since(since) < hold {
            return None;
        }
        self.tell(other)
    }

    fn tell(&mut self, quality: ConnectionQuality) -> Option<ConnectionQuality> {
        self.told = Some(quality);
        self.other = None;
        self.told
    }
}

impl Default for Steady {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use ConnectionQuality::{Excellent, Good, Lost, Poor};

    use super::*;
    use crate::test::start;

    #[test]
    fn the_worst_figure_decides() {
        let check = |change: fn(&mut Sample), expected| {
            let mut sample = FINE;
            change(&mut sample);
            assert_eq!(quality(&sample), expected, "{sample:?}");
        };
        check(|_| {}, Excellent);
        check(|s| s.loss = 0.05, Good);
        check(|s| s.loss = 0.2, Poor);
        check(|s| s.loss = f64::NAN, Poor);
        check(|s| s.round_trip = Duration::from_millis(300), Good);
        check(|s| s.round_trip = Duration::from_secs(1), Poor);
        check(|s| s.jitter = Duration::from_millis(60), Good);
        check(|s| s.estimate = Bitrate::kbps(700), Good);
        check(|s| s.estimate = Bitrate::kbps(200), Poor);
        check(|s| s.wished = Bitrate::ZERO, Excellent);
        check(|s| s.silence = Duration::from_secs(5), Lost);
    }

    #[test]
    fn a_word_changes_once_the_change_has_held() {
        let mut t = Story::new();
        assert_eq!(t.run(Excellent, 1), [Excellent]);
        assert_eq!(t.run(Poor, 1), []);
        assert_eq!(t.run(Excellent, 5), []);
        assert_eq!(t.run(Poor, 3), [Poor]);
        assert_eq!(t.run(Excellent, 5), []);
        assert_eq!(
            t.run(Good, 5),
            [Good],
            "the least of what was better all the time"
        );
        assert_eq!(t.run(Lost, 1), [Lost]);
        assert_eq!(t.run(Excellent, 1), [Excellent]);
    }

    #[test]
    fn what_flickers_is_told_at_most_once() {
        let mut t = Story::new();
        t.run(Excellent, 1);
        let mut told = 0;
        for n in 0..100 {
            told += t.run(if n % 2 == 0 { Good } else { Excellent }, 1).len();
        }
        assert_eq!(told, 0);
    }

    const FINE: Sample = Sample {
        loss: 0.0,
        round_trip: Duration::from_millis(40),
        jitter: Duration::from_millis(5),
        estimate: Bitrate::kbps(2000),
        wished: Bitrate::kbps(2000),
        silence: Duration::ZERO,
    };

    struct Story {
        steady: Steady,
        now: Instant,
    }

    impl Story {
        fn new() -> Self {
            Self {
                steady: Steady::new(),
                now: start(),
            }
        }

        fn run(&mut self, quality: ConnectionQuality, seconds: u32) -> Vec<ConnectionQuality> {
            (0..seconds)
                .filter_map(|_| {
                    self.now += Duration::from_secs(1);
                    self.steady.update(self.now, quality)
                })
                .collect()
        }
    }
}
