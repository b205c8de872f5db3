//! Rate control by delay: additive or multiplicative increase, multiplicative decrease
//! (draft-ietf-rmcat-gcc-02 §5.5), near an estimate of the link's capacity.

use std::time::{Duration, Instant};

use super::delay::Usage;
use crate::bitrate::Bitrate;

/// What remains after overuse, of what was acknowledged (§5.5, beta).
const DECREASE: f64 = 0.85;

/// What remains of the estimate, at least, while there was less to send than it allows.
const DECREASE_LIMITED: f64 = 0.85;

/// How much a rate grows per second while the capacity is unknown (§5.5, eta).
const INCREASE_PER_SECOND: f64 = 1.08;

/// Beyond this multiple of what is acknowledged nothing is known, so the rate does not grow there.
const ACKNOWLEDGED_FACTOR: f64 = 1.5;
const ACKNOWLEDGED_OFFSET: Bitrate = Bitrate::kbps(10);

/// So much of what arrives without a queue fits.
const ARRIVES: f64 = 0.95;

/// Near the capacity a rate grows by one packet of this size per response time, if that is less; and always by so much per
/// second at least.
const PACKET_BITS: f64 = 1200.0 * 8.0;
const ADDITIVE_MIN: f64 = 4_000.0;

/// What a queue adds to the round trip before the detector sees it.
const RESPONSE: Duration = Duration::from_millis(100);

/// After a decrease so much of the queue must have drained before the next: a round trip, within these bounds.
const DECREASE_INTERVAL_MIN: Duration = Duration::from_millis(10);
const DECREASE_INTERVAL_MAX: Duration = Duration::from_millis(200);

/// So soon after a decrease a queue that has become shorter shows that it was enough.
const DRAINING: Duration = Duration::from_secs(1);

/// Rate control of one downlink.
#[derive(Debug)]
pub(super) struct RateControl {
    rate: Bitrate,
    state: State,
    capacity: Capacity,
    changed_at: Option<Instant>,
    decreased_at: Option<Instant>,
    /// How long the queue was then, in milliseconds.
    decreased_queue_ms: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Increase,
    Hold,
}

/// What the rate control is told with each feedback.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub(super) usage: Usage,
    /// What arrives at the receiver, once known.
    pub(super) acknowledged: Option<Bitrate>,
    /// The same, as far up as the latest packets show.
    pub(super) acknowledged_latest: Option<Bitrate>,
    /// What arrives without having waited, where that is known.
    pub(super) acknowledged_steady: Option<Bitrate>,
    /// Whether there is less to send than would fit: then nothing shows that more would fit.
    pub(super) is_limited: bool,
    pub(super) round_trip: Duration,
    /// How long the queue is, in milliseconds.
    pub(super) queue_ms: f64,
}

impl RateControl {
    pub(super) fn new(start: Bitrate) -> Self {
        Self {
            rate: start,
            state: State::Hold,
            capacity: Capacity::default(),
            changed_at: None,
            decreased_at: None,
            decreased_queue_ms: 0.0,
        }
    }

    pub(super) fn rate(&self) -> Bitrate {
        self.rate
    }

    /// When the rate last had to be lowered.
    pub(super) fn decreased_at(&self) -> Option<Instant> {
        self.decreased_at
    }

    /// A probe has measured that this much gets through, or something else says where to go on from.
    pub(super) fn set(&mut self, now: Instant, rate: Bitrate) {
        self.rate = rate;
        self.changed_at = Some(now);
    }

    /// What is known of the capacity does not hold any more, as after an outage.
    pub(super) fn forget_capacity(&mut self) {
        self.capacity = Capacity::default();
    }

    /// Returns the rate after a feedback.
    pub(super) fn update(&mut self, now: Instant, input: Input) -> Bitrate {
        match input.usage {
            Usage::Over => self.decrease(now, input),
            Usage::Under => self.state = State::Hold, // The queue drains: wait until it has.
            Usage::Normal if self.state == State::Hold => {
                self.state = State::Increase;
                self.changed_at = Some(now);
            }
            Usage::Normal => self.increase(now, input),
        }
        self.rate
    }

    fn increase(&mut self, now: Instant, input: Input) {
        let passed = now.saturating_duration_since(self.changed_at.unwrap_or(now));
        let passed = passed.as_secs_f64().min(1.0);
        self.changed_at = Some(now);
        // What arrives while no queue grows fits, whatever was thought of the way before.
        if let Some(steady) = input.acknowledged_steady {
            self.rate = self.rate.max(steady.scaled(ARRIVES));
        }
        if input.is_limited {
            return;
        }

        if let Some(acknowledged) = input.acknowledged
            && self
                .capacity
                .upper()
                .is_some_and(|upper| acknowledged > upper)
        {
            self.capacity = Capacity::default();
        }
        let grown = self
            .rate
            .scaled(INCREASE_PER_SECOND.powf(passed))
            .max(self.rate + Bitrate::from_f64(ADDITIVE_MIN * passed));
        let increased = if self.capacity.is_known() {
            let response = (input.round_trip + RESPONSE).as_secs_f64();
            let per_second = (PACKET_BITS / response).max(ADDITIVE_MIN);
            (self.rate + Bitrate::from_f64(per_second * passed)).min(grown)
        } else {
            grown
        };
        let ceiling = input.acknowledged.map_or(self.rate, |acknowledged| {
            acknowledged.scaled(ACKNOWLEDGED_FACTOR) + ACKNOWLEDGED_OFFSET
        });
        self.rate = increased.min(ceiling).max(self.rate);
    }

    fn decrease(&mut self, now: Instant, input: Input) {
        let interval = input
            .round_trip
            .clamp(DECREASE_INTERVAL_MIN, DECREASE_INTERVAL_MAX);
        let acknowledged = input.acknowledged_latest.unwrap_or(self.rate);
        let is_soon = self
            .decreased_at
            .is_some_and(|at| now.saturating_duration_since(at) < interval);
        // One queue is seen by many feedbacks: lower once, unless far too much is still sent.
        if is_soon && acknowledged.scaled(2.0) > self.rate {
            return;
        }

        let is_draining = self
            .decreased_at
            .is_some_and(|at| now.saturating_duration_since(at) < DRAINING)
            && input.queue_ms < self.decreased_queue_ms;
        if is_draining {
            self.state = State::Hold;
            return;
        }

        let mut decreased = acknowledged.scaled(DECREASE);
        if input.is_limited {
            // What arrives is what was sent: it says that the estimate is too high, not by how much.
            decreased = decreased.max(self.rate.scaled(DECREASE_LIMITED));
        }
        if decreased > self.rate
            && let Some(capacity) = self.capacity.estimate()
        {
            decreased = capacity.scaled(DECREASE);
        }
        if self
            .capacity
            .lower()
            .is_some_and(|lower| acknowledged < lower)
        {
            self.capacity = Capacity::default();
        }
        // While there is less to send than fits, what was acknowledged says little about the capacity.
        if !input.is_limited {
            self.capacity.handle_overuse(acknowledged);
        }
        self.rate = decreased.min(self.rate);
        self.state = State::Hold;
        self.changed_at = Some(now);
        self.decreased_at = Some(now);
        self.decreased_queue_ms = input.queue_ms;
    }
}

/// What was acknowledged when queues grew: a mean and its spread, both smoothed.
#[derive(Debug, Default)]
struct Capacity {
    mean_kbps: Option<f64>,
    /// The variance divided by the mean, kbit/s.
    deviation: f64,
}

/// How much a new sample weighs.
const SAMPLE_WEIGHT: f64 = 0.05;

/// The spread is kept within these bounds, at first [`DEVIATION_MIN`].
const DEVIATION_MIN: f64 = 0.4;
const DEVIATION_MAX: f64 = 2.5;

impl Capacity {
    fn handle_overuse(&mut self, acknowledged: Bitrate) {
        let sample = acknowledged.as_f64() / 1000.0;
        let mean = self
            .mean_kbps
            .map_or(sample, |mean| mean + SAMPLE_WEIGHT * (sample - mean));
        let error = mean - sample;
        let deviation =
            (1.0 - SAMPLE_WEIGHT) * self.deviation + SAMPLE_WEIGHT * error * error / mean.max(1.0);
        self.mean_kbps = Some(mean);
        self.deviation = deviation.clamp(DEVIATION_MIN, DEVIATION_MAX);
    }

    fn is_known(&self) -> bool {
        self.mean_kbps.is_some()
    }

    fn estimate(&self) -> Option<Bitrate> {
        self.mean_kbps.map(|mean| Bitrate::from_f64(mean * 1000.0))
    }

    fn upper(&self) -> Option<Bitrate> {
        let mean = self.mean_kbps?;
        Some(Bitrate::from_f64((mean + 3.0 * self.spread(mean)) * 1000.0))
    }

    fn lower(&self) -> Option<Bitrate> {
        let mean = self.mean_kbps?;
        Some(Bitrate::from_f64((mean - 3.0 * self.spread(mean)) * 1000.0))
    }

    fn spread(&self, mean: f64) -> f64 {
        (self.deviation * mean).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::start;

    const FEEDBACK: Duration = Duration::from_millis(100);

    #[test]
    fn a_rate_grows_by_eight_percent_a_second_until_a_queue_grows() {
        let mut t = Story::new(1000);
        t.run(11, Usage::Normal, 1000, false);
        near(t.control.rate(), 1080);
        t.run(1, Usage::Over, 1000, false);
        near(t.control.rate(), 850);
        t.run(1, Usage::Under, 1000, false);
        near(t.control.rate(), 850);
    }

    #[test]
    fn near_the_capacity_it_grows_by_a_packet_per_response_time() {
        let mut t = Story::new(1000);
        t.run(1, Usage::Over, 1000, false);
        t.run(11, Usage::Normal, 900, false);
        near(t.control.rate(), 850 + 48);
        // Far above what was known as the capacity, the search begins anew.
        t.run(10, Usage::Normal, 1500, false);
        assert!(t.control.rate() > Bitrate::kbps(950));
    }

    #[test]
    fn nothing_grows_while_there_is_little_to_send_nor_far_beyond_what_arrives() {
        let mut t = Story::new(1000);
        t.run(50, Usage::Normal, 200, true);
        near(t.control.rate(), 1000);
        t.run(50, Usage::Normal, 200, false);
        near(t.control.rate(), 1000);
        t.run(100, Usage::Normal, 700, false);
        near(t.control.rate(), 1060);
    }

    #[test]
    fn one_queue_lowers_the_rate_once() {
        let mut t = Story::new(1000);
        t.run(1, Usage::Over, 900, false);
        t.now -= Duration::from_millis(95);
        t.run(1, Usage::Over, 800, false);
        near(t.control.rate(), 765);
    }

    #[test]
    fn what_arrives_without_a_queue_fits_whatever_was_thought_before() {
        let mut t = Story::new(30);
        t.steady = Some(Bitrate::kbps(400));
        t.run(1, Usage::Under, 400, false);
        near(t.control.rate(), 30);
        t.run(2, Usage::Normal, 400, true);
        near(t.control.rate(), 380);
    }

    struct Story {
        control: RateControl,
        now: Instant,
        steady: Option<Bitrate>,
    }

    impl Story {
        fn new(kbps: u64) -> Self {
            Self {
                control: RateControl::new(Bitrate::kbps(kbps)),
                now: start() + Duration::from_secs(10),
                steady: None,
            }
        }

        fn run(&mut self, feedbacks: u32, usage: Usage, acknowledged: u64, is_limited: bool) {
            for _ in 0..feedbacks {
                self.now += FEEDBACK;
                let input = Input {
                    usage,
                    acknowledged: Some(Bitrate::kbps(acknowledged)),
                    acknowledged_latest: Some(Bitrate::kbps(acknowledged)),
                    acknowledged_steady: self.steady,
                    is_limited,
                    round_trip: Duration::from_millis(100),
                    queue_ms: 50.0,
                };
                self.control.update(self.now, input);
            }
        }
    }

    #[track_caller]
    fn near(rate: Bitrate, kbps: u64) {
        assert!(rate.as_bps().abs_diff(kbps * 1000) < 2000, "{rate}");
    }
}
