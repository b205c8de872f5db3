//! The acknowledged bitrate: what arrives, by the receiver's clock.

use super::history::Acknowledged;
use crate::bitrate::Bitrate;

/// The first window is long, for a few packets say little; later ones are short (milliseconds).
const WINDOW_FIRST_MS: f64 = 500.0;
const WINDOW_MS: f64 = 150.0;

/// A window that has lasted so long (microseconds) says something already.
const LATEST_MIN_US: i64 = 60_000;

/// A window that arrived in this share of the time in which it was sent, or more, was not pressed together, nor drawn out.
const STRETCH_STEADY: f64 = 0.9;

/// How uncertain a sample is that differs from the estimate: the estimate follows the better the closer they are.
const UNCERTAINTY: f64 = 10.0;

/// The same for a sample below the estimate while the sender has little to send: that says nothing about the way.
const UNCERTAINTY_LIMITED: f64 = 20.0;

/// A sample counts so much at least: when more arrives, or when less does while there is enough to send.
const WEIGHT_MIN: f64 = 0.5;

/// How much the estimate's variance grows with each sample, (kbit/s)².
const DRIFT: f64 = 5.0;

/// The variance of the first estimate, (kbit/s)².
const VARIANCE_FIRST: f64 = 50.0;

/// A sliding mean of samples over short windows, weighed by how far they can be trusted (Bayes).
#[derive(Debug)]
pub(super) struct AcknowledgedRate {
    window_start_us: Option<i64>,
    /// When the window's first packet was sent.
    window_sent_us: u64,
    /// Whether the window holds packets of a probe, and whether the last one did.
    is_probed: bool,
    was_probed: bool,
    /// How much longer the last window took to arrive than to be sent.
    stretch: f64,
    last_us: i64,
    bytes: f64,
    estimate_kbps: Option<f64>,
    /// What the last window said.
    sample_kbps: f64,
    variance: f64,
}

impl AcknowledgedRate {
    pub(super) fn new() -> Self {
        Self {
            window_start_us: None,
            window_sent_us: 0,
            is_probed: false,
            was_probed: false,
            stretch: 1.0,
            last_us: 0,
            bytes: 0.0,
            estimate_kbps: None,
            sample_kbps: 0.0,
            variance: VARIANCE_FIRST,
        }
    }

    /// A packet arrived, in the order of arrival; `is_limited` while the sender has less to send than fits.
    pub(super) fn handle_packet(&mut self, packet: &Acknowledged, is_limited: bool) {
        let Acknowledged {
            arrived_us, len, ..
        } = *packet;
        if self.window_start_us.is_none() {
            self.window_sent_us = packet.sent_us;
        }
        let start_us = *self.window_start_us.get_or_insert(arrived_us);
        let window_ms = self.estimate_kbps.map_or(WINDOW_FIRST_MS, |_| WINDOW_MS);
        let passed_ms = arrived_us.saturating_sub(start_us) as f64 / 1000.0;

        if passed_ms < 0.0 || arrived_us.saturating_sub(self.last_us) < 0 && self.bytes > 0.0 {
            // Late within the window: it counts, its time does not.
            self.bytes += f64::from(len);
            self.is_probed |= packet.cluster != 0;
            return;
        }
        if passed_ms >= window_ms {
            // A window that was longer than planned is judged by its real length: a silence counts.
            let sample_kbps = self.bytes * 8.0 / passed_ms;
            // But a first estimate is not made of a silence: there would be nothing to weigh it against.
            if self.estimate_kbps.is_some() || passed_ms < 2.0 * window_ms {
                self.handle_sample(sample_kbps, is_limited);
            }
            let sent_ms = packet.sent_us.saturating_sub(self.window_sent_us) as f64 / 1000.0;
            self.stretch = passed_ms / sent_ms.max(1.0);
            self.was_probed = std::mem::take(&mut self.is_probed);
            self.bytes = 0.0;
            self.window_start_us = Some(arrived_us);
            self.window_sent_us = packet.sent_us;
        }
        self.is_probed |= packet.cluster != 0;
        self.bytes += f64::from(len);
        self.last_us = arrived_us;
    }

    /// The rate, once there was a first window.
    pub(super) fn rate(&self) -> Option<Bitrate> {
        self.estimate_kbps
            .map(|kbps| Bitrate::from_f64(kbps * 1000.0))
    }

    /// The rate, or what the last window or the one that is not over yet says, if that is more: the rate follows a rise with a
    /// delay.
    pub(super) fn rate_latest(&self) -> Option<Bitrate> {
        self.estimate_kbps
            .map(|kbps| Bitrate::from_f64(kbps.max(self.last_kbps()) * 1000.0))
    }

    /// What both the rate and the last window say, where that window's packets took as long to arrive as to be sent: so much gets
    /// through without a queue. Not while there was a probe: a short one may get through where nothing else at its rate does.
    pub(super) fn rate_steady(&self) -> Option<Bitrate> {
        let is_steady =
            !self.was_probed && (STRETCH_STEADY..=1.0 / STRETCH_STEADY).contains(&self.stretch);
        let kbps = self.estimate_kbps.filter(|_| is_steady)?;
        Some(Bitrate::from_f64(kbps.min(self.sample_kbps) * 1000.0))
    }

    /// How much longer the last window's packets took to arrive than to be sent: 1 on a way that keeps pace.
    pub(super) fn stretch(&self) -> f64 {
        self.stretch
    }

    /// The way is another one now: where the last windows say less than the estimate, they are right.
    pub(super) fn believe_last(&mut self) {
        let last_kbps = self.last_kbps();
        if let Some(estimate) = &mut self.estimate_kbps {
            *estimate = estimate.min(last_kbps);
        }
    }

    /// Forgets everything, as after a silence.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// The more of what the last window says and the one that is not over yet, unless that is too short.
    fn last_kbps(&self) -> f64 {
        let start_us = self.window_start_us.unwrap_or(self.last_us);
        let passed_us = self.last_us.saturating_sub(start_us);
        if passed_us >= LATEST_MIN_US {
            self.sample_kbps.max(self.bytes * 8000.0 / passed_us as f64)
        } else {
            self.sample_kbps
        }
    }

    fn handle_sample(&mut self, sample_kbps: f64, is_limited: bool) {
        self.sample_kbps = sample_kbps;
        let Some(estimate) = self.estimate_kbps else {
            self.estimate_kbps = Some(sample_kbps);
            return;
        };
        let (scale, weight_min) = match (sample_kbps < estimate, is_limited) {
            (true, true) => (UNCERTAINTY_LIMITED, 0.0),
            (true, false) | (false, _) => (UNCERTAINTY, WEIGHT_MIN),
        };
        let uncertainty = scale * (estimate - sample_kbps).abs() / estimate.max(1.0);
        let sample_variance = uncertainty * uncertainty;
        let variance = self.variance + DRIFT;
        let weight = (variance / (variance + sample_variance)).max(weight_min);
        self.estimate_kbps = Some(estimate + weight * (sample_kbps - estimate));
        self.variance = variance * (1.0 - weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_rate_and_follows_a_fall_soon() {
        let mut rate = AcknowledgedRate::new();
        let mut at = 0;
        let mut run = |rate: &mut AcknowledgedRate, millis: i64, apart_us: i64| {
            let end = at + millis * 1000;
            while at < end {
                at += apart_us;
                rate.handle_packet(&packet(at, 1250), false);
            }
        };
        assert_eq!(rate.rate(), None);
        run(&mut rate, 1000, 5_000); // 2 Mbit/s
        near(&rate, 2000.0, 0.05);
        run(&mut rate, 500, 20_000); // 500 kbit/s
        assert!(rate.rate() < Some(Bitrate::kbps(900)));
        run(&mut rate, 1000, 20_000);
        near(&rate, 500.0, 0.05);
    }

    #[test]
    fn times_that_go_back_are_survived() {
        let mut rate = AcknowledgedRate::new();
        for at in [0, i64::MAX, 0, i64::MIN, 7] {
            rate.handle_packet(&packet(at, u16::MAX), true);
        }
        assert!(rate.rate().is_none_or(|rate| rate < Bitrate::MAX));
    }

    #[test]
    fn a_silence_is_no_first_estimate() {
        let mut rate = AcknowledgedRate::new();
        rate.handle_packet(&packet(0, 1250), false);
        for n in 0..200 {
            rate.handle_packet(&packet(2_000_000 + n * 5_000, 1250), false);
            assert!(rate.rate().is_none_or(|rate| rate > Bitrate::kbps(1800)));
        }
        near(&rate, 2000.0, 0.05);
    }

    #[test]
    fn packets_that_arrive_slower_than_they_were_sent_are_noticed() {
        let mut rate = AcknowledgedRate::new();
        for n in 0..200 {
            let packet = Acknowledged {
                sent_us: n * 5_000,
                ..packet(i64::try_from(n * 10_000).unwrap(), 1250)
            };
            rate.handle_packet(&packet, false);
        }
        assert_eq!(rate.rate_steady(), None);
        assert!((1.9..2.1).contains(&rate.stretch()), "{}", rate.stretch());
    }

    fn packet(arrived_us: i64, len: u16) -> Acknowledged {
        Acknowledged {
            sent_us: 0,
            arrived_us,
            len,
            cluster: 0,
        }
    }

    #[track_caller]
    fn near(rate: &AcknowledgedRate, kbps: f64, tolerance: f64) {
        let got = rate.rate().unwrap().as_f64() / 1000.0;
        assert!((got / kbps - 1.0).abs() < tolerance, "{got}");
    }
}
