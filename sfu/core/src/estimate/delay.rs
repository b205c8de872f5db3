//! Whether a queue grows: groups of packets, the gradient of their delay, an adaptive threshold
//! (draft-ietf-rmcat-gcc-02 §5.1 to §5.4, with the trendline filter in place of the Kalman filter).

use std::collections::VecDeque;

/// Packets sent within so many microseconds form a group (§5.2).
const BURST_US: u64 = 5_000;

/// A group that arrives this much faster than it was sent has waited somewhere and left in a burst: it belongs to the one before.
const BURST_ARRIVAL_US: i64 = 5_000;
const BURST_LEN_US: i64 = 100_000;

/// The receiver's clock, or the way, was changed when a step is larger than this.
const STEP_MAX_US: i64 = 3_000_000;

/// So many groups that arrive before the group sent before them: the order itself has changed.
const REORDERED_MAX: u32 = 3;

/// The line is fitted through so many groups.
const WINDOW: usize = 20;

/// How much of the smoothed delay stays with each group.
const SMOOTHING: f64 = 0.9;

/// The slope is weighed by how many groups there have been, up to this many, and by a gain.
const GROUPS_WEIGHED_MAX: f64 = 60.0;
const GAIN: f64 = 4.0;

/// The threshold in milliseconds: at first, at least and at most (§5.4).
const THRESHOLD_FIRST: f64 = 12.5;
const THRESHOLD_MIN: f64 = 6.0;
const THRESHOLD_MAX: f64 = 600.0;

/// How fast the threshold follows, per millisecond: slowly up and faster down, K_u and K_d, so that flows which fill queues
/// don't starve us (§5.4).
const FOLLOW_UP: f64 = 0.0087;
const FOLLOW_DOWN: f64 = 0.039;

/// A spike further than this above the threshold does not move it.
const SPIKE_MS: f64 = 15.0;

/// The queue must grow for so many milliseconds before it is believed (§5.4).
const OVERUSE_MS: f64 = 10.0;

/// A queue shorter than this (milliseconds above the least delay seen) is left alone, however it came about: a burst or a
/// key frame makes one, and it is gone by itself.
const QUEUE_MIN_MS: f64 = 20.0;

/// The least delay rises by so much, relative to time, so that clocks may drift apart and ways become longer.
const LEAST_RISE: f64 = 0.002;

/// What the delay says about the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// Queues stay as they are.
    Normal,
    /// A queue grows: more is sent than fits.
    Over,
    /// A queue drains.
    Under,
}

/// Packets that were sent together. What its first packet waited tells of the queue it found; the rest waits for the group
/// itself, the longer the more is sent at once.
#[derive(Debug, Clone, Copy)]
struct Group {
    sent_first_us: u64,
    sent_us: u64,
    arrived_first_us: i64,
    arrived_us: i64,
}

/// The detector of one downlink.
#[derive(Debug)]
pub(super) struct DelayDetector {
    group: Option<Group>,
    before: Option<Group>,
    reordered: u32,
    // The trendline.
    groups: f64,
    delay_ms: f64,
    smoothed_ms: f64,
    least_ms: f64,
    /// Arrival of a group in milliseconds since the first one, and the smoothed delay then.
    line: VecDeque<(f64, f64)>,
    line_start_us: i64,
    // The detector.
    slope_last: f64,
    threshold: f64,
    threshold_at_us: Option<i64>,
    over_ms: Option<f64>,
    over_count: u32,
    usage: Usage,
}

impl DelayDetector {
    pub(super) fn new() -> Self {
        Self {
            group: None,
            before: None,
            reordered: 0,
            groups: 0.0,
            delay_ms: 0.0,
            smoothed_ms: 0.0,
            least_ms: 0.0,
            line: VecDeque::with_capacity(WINDOW + 1),
            line_start_us: 0,
            slope_last: 0.0,
            threshold: THRESHOLD_FIRST,
            threshold_at_us: None,
            over_ms: None,
            over_count: 0,
            usage: Usage::Normal,
        }
    }

    /// Takes a packet's times, in the order of arrival: when it left and arrived, each by its own clock.
    pub(super) fn handle_packet(&mut self, sent_us: u64, arrived_us: i64) {
        let Some(group) = &mut self.group else {
            self.group = Some(Group::new(sent_us, arrived_us));
            return;
        };
        if sent_us < group.sent_first_us {
            return; // Overtaken by a whole group: it says nothing about the queue.
        }
        if group.takes(sent_us, arrived_us) {
            group.sent_us = group.sent_us.max(sent_us);
            group.arrived_us = group.arrived_us.max(arrived_us);
            return;
        }

        let complete = *group;
        if let Some(before) = self.before {
            let sent = signed(complete.sent_first_us) - signed(before.sent_first_us);
            let arrived = complete
                .arrived_first_us
                .saturating_sub(before.arrived_first_us);
            if arrived.saturating_sub(sent).saturating_abs() > STEP_MAX_US {
                return self.begin_anew(sent_us, arrived_us);
            }
            if arrived < 0 {
                self.reordered += 1;
                if self.reordered >= REORDERED_MAX {
                    return self.begin_anew(sent_us, arrived_us);
                }
            } else {
                self.reordered = 0;
                self.handle_group(millis(sent), millis(arrived), complete.arrived_first_us);
            }
        }
        self.before = Some(complete);
        self.group = Some(Group::new(sent_us, arrived_us));
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// How long the queue is now, in milliseconds: the delay above the least one seen.
    pub(super) fn queue_ms(&self) -> f64 {
        self.delay_ms - self.least_ms
    }

    /// Forgets the queue it saw, after a pause or a change of the way.
    fn begin_anew(&mut self, sent_us: u64, arrived_us: i64) {
        self.before = None;
        self.group = Some(Group::new(sent_us, arrived_us));
        self.reordered = 0;
        self.groups = 0.0;
        self.delay_ms = 0.0;
        self.smoothed_ms = 0.0;
        self.least_ms = 0.0;
        self.line.clear();
        self.over_ms = None;
        self.over_count = 0;
        self.usage = Usage::Normal;
    }

    /// A group left `sent_ms` after the one before and arrived `arrived_ms` after it.
    fn handle_group(&mut self, sent_ms: f64, arrived_ms: f64, arrived_us: i64) {
        if self.line.is_empty() {
            self.line_start_us = arrived_us;
        }
        self.groups = (self.groups + 1.0).min(GROUPS_WEIGHED_MAX);
        self.delay_ms += arrived_ms - sent_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.delay_ms;

        self.least_ms = (self.least_ms + LEAST_RISE * arrived_ms).min(self.smoothed_ms);

        self.line
            .push_back((millis(arrived_us - self.line_start_us), self.smoothed_ms));
        if self.line.len() > WINDOW {
            self.line.pop_front();
        }
        let slope = if self.line.len() == WINDOW {
            self.fit().unwrap_or(self.slope_last)
        } else {
            0.0
        };
        self.detect(slope, sent_ms, arrived_us);
    }

    /// The slope of the line through the points, by least squares; `None` when all arrived at once.
    fn fit(&self) -> Option<f64> {
        let count = self.line.len() as f64;
        let (x_sum, y_sum) = self
            .line
            .iter()
            .fold((0.0, 0.0), |(xs, ys), (x, y)| (xs + x, ys + y));
        let (x_mean, y_mean) = (x_sum / count, y_sum / count);
        let (numerator, denominator) = self.line.iter().fold((0.0, 0.0), |(n, d), (x, y)| {
            let x = x - x_mean;
            (n + x * (y - y_mean), d + x * x)
        });
        (denominator > 0.0).then(|| numerator / denominator)
    }

    fn detect(&mut self, slope: f64, sent_ms: f64, arrived_us: i64) {
        if self.groups < 2.0 {
            return;
        }
        let trend = slope * self.groups * GAIN;

        let has_queue = self.smoothed_ms - self.least_ms >= QUEUE_MIN_MS;
        if trend > self.threshold && has_queue {
            // Half of the first interval, for it began somewhere within.
            let over_ms = self.over_ms.map_or(sent_ms / 2.0, |over| over + sent_ms);
            self.over_ms = Some(over_ms);
            self.over_count += 1;
            if over_ms > OVERUSE_MS && self.over_count > 1 && slope >= self.slope_last {
                self.over_ms = Some(0.0);
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_ms = None;
            self.over_count = 0;
            self.usage = if trend < -self.threshold {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.slope_last = slope;
        self.follow(trend, arrived_us);
    }

    /// Moves the threshold toward the trend.
    fn follow(&mut self, trend: f64, arrived_us: i64) {
        let passed = millis(arrived_us - self.threshold_at_us.unwrap_or(arrived_us));
        self.threshold_at_us = Some(arrived_us);
        let distance = trend.abs() - self.threshold;
        if distance > SPIKE_MS {
            return;
        }
        let speed = if distance < 0.0 {
            FOLLOW_DOWN
        } else {
            FOLLOW_UP
        };
        self.threshold = (self.threshold + speed * distance * passed.clamp(0.0, 100.0))
            .clamp(THRESHOLD_MIN, THRESHOLD_MAX);
    }
}

impl Group {
    fn new(sent_us: u64, arrived_us: i64) -> Self {
        Self {
            sent_first_us: sent_us,
            sent_us,
            arrived_first_us: arrived_us,
            arrived_us,
        }
    }

    /// Whether a packet belongs to this group.
    fn takes(&self, sent_us: u64, arrived_us: i64) -> bool {
        let sent = signed(sent_us) - signed(self.sent_us);
        let arrived = arrived_us.saturating_sub(self.arrived_us);
        let is_burst = arrived < sent
            && arrived <= BURST_ARRIVAL_US
            && arrived_us.saturating_sub(self.arrived_first_us) < BURST_LEN_US;
        sent <= 0 || is_burst || sent_us - self.sent_first_us <= BURST_US
    }
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

fn millis(us: i64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_delay_is_normal() {
        assert_eq!(run(200, |_| 0).usage(), Usage::Normal);
    }

    #[test]
    fn a_growing_queue_is_overuse_within_a_second() {
        let mut detector = run(100, |_| 0);
        let at = (100..200).find(|&n| {
            step(&mut detector, n, i64::from(n - 100) * 2_000);
            detector.usage() == Usage::Over
        });
        assert!(at.is_some_and(|n| n < 130), "{at:?}");
    }

    #[test]
    fn a_draining_queue_is_underuse() {
        let detector = run(200, |n| {
            if n < 100 {
                400_000
            } else {
                400_000 - i64::from(n - 100) * 3_000
            }
        });
        assert_eq!(detector.usage(), Usage::Under);
    }

    #[test]
    fn jitter_alone_is_no_overuse() {
        let mut rng = sim::Rng::new(5);
        let mut detector = DelayDetector::new();
        let mut overuses = 0;
        for n in 0..3000 {
            let jitter = i64::try_from(rng.within(0..=10_000)).unwrap();
            step(&mut detector, n, jitter);
            overuses += u32::from(detector.usage() == Usage::Over);
        }
        assert!(overuses < 30, "{overuses}");
    }

    #[test]
    fn clocks_that_jump_and_orders_that_turn_are_survived() {
        let mut detector = run(100, |_| 0);
        detector.handle_packet(3_000_000, i64::MAX / 2);
        detector.handle_packet(3_020_000, i64::MIN / 2);
        detector.handle_packet(3_040_000, 0);
        for n in 400..500 {
            step(&mut detector, n, -i64::from(n) * 50_000);
        }
        for n in 500..700 {
            step(&mut detector, n, 0);
        }
        assert_eq!(detector.usage(), Usage::Normal);
    }

    /// Packets 20 ms apart, each `late` microseconds later than the first.
    fn run(count: u32, late: impl Fn(u32) -> i64) -> DelayDetector {
        let mut detector = DelayDetector::new();
        for n in 0..count {
            step(&mut detector, n, late(n));
        }
        detector
    }

    fn step(detector: &mut DelayDetector, n: u32, late: i64) {
        let sent = u64::from(n) * 20_000;
        detector.handle_packet(sent, signed(sent) + 40_000 + late);
    }
}
