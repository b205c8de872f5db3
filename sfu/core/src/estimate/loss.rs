//! What losses say about the way: which bandwidth, together with how much loss that has nothing to do with us, explains best what
//! was lost at which rate (maximum likelihood, as libwebrtc's second loss-based estimator does); and the simpler rule of
//! draft-ietf-rmcat-gcc-02 §6 where only receiver reports tell of losses.

use std::time::{Duration, Instant};

use crate::bitrate::Bitrate;

/// An observation covers at least so much time and so many packets.
const OBSERVATION: Duration = Duration::from_millis(250);
const OBSERVATION_PACKETS: u32 = 10;

/// So many observations are remembered; each older one counts less by this factor.
const OBSERVATIONS: usize = 20;
const AGED: f64 = 0.9;

/// Before there are so many, nothing is concluded.
const OBSERVATIONS_MIN: usize = 3;

/// Loss that may have nothing to do with us: always up to this share, and more on slow ways, where it is this rate divided by
/// the bandwidth. So a way with much loss is used, but not to its last bit.
const INHERENT_OFFSET: f64 = 0.05;
const INHERENT_BALANCE_KBPS: f64 = 100.0;

/// While more than [`INHERENT_OFFSET`] is lost, the rate stays below this divided by what exceeds it.
const CEILING_BALANCE_KBPS: f64 = 150.0;

/// More bandwidth is preferred where the losses explain both equally: by rate and by its logarithm, for each packet.
const PREFERENCE_PER_KBPS: f64 = 0.0002;
const PREFERENCE_LOG: f64 = 0.02;

/// The preference fades as the mean loss comes near this, over this range.
const PREFERENCE_LOSS: f64 = 0.2;
const PREFERENCE_RANGE: f64 = 0.5;

/// Candidates besides what delay allows, relative to what is assumed now.
const CANDIDATES: [f64; 3] = [1.02, 1.0, 0.95];

/// With less than this lost, what delay allows is a candidate, too; else an increase goes step by step.
const FREE_LOSS: f64 = 0.02;

/// How far beyond what arrives an increase may go.
const RAMP: f64 = 1.5;

/// No loss is certain, nor impossible.
const PROBABILITY_MIN: f64 = 1e-6;

/// Packets of a stretch of time.
#[derive(Debug, Clone, Copy, Default)]
struct Observation {
    lost: f64,
    received: f64,
    sent_kbps: f64,
}

/// What a feedback adds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delivery {
    pub(super) lost: u32,
    /// Packets told as lost before and found since.
    pub(super) found: u32,
    pub(super) received: u32,
    /// Bytes of both.
    pub(super) bytes: u64,
}

/// Loss-based control of one downlink.
#[derive(Debug)]
pub(super) struct LossControl {
    observations: [Observation; OBSERVATIONS],
    /// How many of them are filled, and where the next one goes.
    count: usize,
    next: usize,
    partial: Delivery,
    partial_since: Option<Instant>,
    inherent: f64,
    limit_kbps: Option<f64>,
}

impl LossControl {
    pub(super) fn new() -> Self {
        Self {
            observations: [Observation::default(); OBSERVATIONS],
            count: 0,
            next: 0,
            partial: Delivery::default(),
            partial_since: None,
            inherent: 0.01,
            limit_kbps: None,
        }
    }

    /// Takes what a feedback said, beside what delay allows and what arrives. Returns the limit that losses set; `None` while
    /// they set none.
    pub(super) fn update(
        &mut self,
        now: Instant,
        delivery: Delivery,
        by_delay: Bitrate,
        acknowledged: Option<Bitrate>,
    ) -> Option<Bitrate> {
        self.partial.lost = (self.partial.lost + delivery.lost).saturating_sub(delivery.found);
        self.partial.received += delivery.received;
        self.partial.bytes += delivery.bytes;

        let since = *self.partial_since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        let packets = self.partial.lost + self.partial.received;
        if passed >= OBSERVATION && packets >= OBSERVATION_PACKETS {
            self.observe(passed);
            self.partial_since = Some(now);
            self.conclude(
                by_delay.as_f64() / 1000.0,
                acknowledged.map(|rate| rate.as_f64() / 1000.0),
            );
        }
        self.limit_kbps.map(|kbps| Bitrate::from_f64(kbps * 1000.0))
    }

    /// The share of packets lost lately, 0 to 1; recent ones count more.
    pub(super) fn loss(&self) -> f64 {
        let (mut lost, mut all) = (0.0, 0.0);
        for (weight, observation) in self.weighed() {
            lost += weight * observation.lost;
            all += weight * (observation.lost + observation.received);
        }
        if all > 0.0 { lost / all } else { 0.0 }
    }

    /// The share of packets lost in the youngest observations.
    pub(super) fn loss_latest(&self) -> f64 {
        let (lost, all) = self
            .weighed()
            .take(2)
            .fold((0.0, 0.0), |(lost, all), (_, o)| {
                (lost + o.lost, all + o.lost + o.received)
            });
        if all > 0.0 { lost / all } else { 0.0 }
    }

    /// A probe has measured more than the limit: losses will have to show anew what they allow.
    pub(super) fn lift(&mut self, measured: Bitrate) {
        let measured = measured.as_f64() / 1000.0;
        if let Some(limit) = &mut self.limit_kbps {
            *limit = limit.max(measured);
        }
    }

    fn observe(&mut self, passed: Duration) {
        self.observations[self.next] = Observation {
            lost: f64::from(self.partial.lost),
            received: f64::from(self.partial.received),
            sent_kbps: Bitrate::of(self.partial.bytes, passed).as_f64() / 1000.0,
        };
        self.next = (self.next + 1) % OBSERVATIONS;
        self.count = (self.count + 1).min(OBSERVATIONS);
        self.partial = Delivery::default();
    }

    /// Chooses the likeliest of a few bandwidths around the one assumed now.
    fn conclude(&mut self, by_delay: f64, acknowledged: Option<f64>) {
        if self.count < OBSERVATIONS_MIN {
            return;
        }
        let loss = self.loss();
        let current = self
            .limit_kbps
            .map_or(by_delay, |limit| limit.min(by_delay));
        let ramp = acknowledged.map_or(current, |rate| (rate * RAMP).max(current));
        let candidates = CANDIDATES
            .iter()
            .map(|factor| current * factor)
            .chain((loss < FREE_LOSS).then_some(by_delay))
            .chain(acknowledged.map(|rate| rate.min(current)))
            .map(|candidate| candidate.min(by_delay).min(ramp));

        let mut best = (f64::NEG_INFINITY, current, self.inherent);
        for candidate in candidates {
            let inherent = self.fit_inherent(candidate);
            let likelihood = self.likelihood(candidate, inherent, loss);
            if likelihood > best.0 {
                best = (likelihood, candidate, inherent);
            }
        }
        self.inherent = best.2;

        let ceiling = if loss > INHERENT_OFFSET {
            CEILING_BALANCE_KBPS / (loss - INHERENT_OFFSET)
        } else {
            f64::INFINITY
        };
        let limit = best.1.min(ceiling);
        self.limit_kbps = (limit < by_delay).then_some(limit);
    }

    /// The inherent loss that explains the observations best at `bandwidth`: a step of Newton's method from the last one.
    fn fit_inherent(&self, bandwidth: f64) -> f64 {
        let ceiling = (INHERENT_OFFSET + INHERENT_BALANCE_KBPS / bandwidth.max(1.0)).min(1.0);
        let start = self.inherent.clamp(PROBABILITY_MIN, ceiling);
        let (mut first, mut second) = (0.0, 0.0);
        for (weight, observation) in self.weighed() {
            let share = 1.0 - excess(observation.sent_kbps, bandwidth);
            let p = probability(start, observation.sent_kbps, bandwidth);
            let (lost, received) = (observation.lost / p, observation.received / (1.0 - p));
            first += weight * share * (lost - received);
            second -= weight * share * share * (lost / p + received / (1.0 - p));
        }
        let step = if second < 0.0 { first / second } else { 0.0 };
        (start - step).clamp(PROBABILITY_MIN, ceiling)
    }

    fn likelihood(&self, bandwidth: f64, inherent: f64, loss: f64) -> f64 {
        let distance = PREFERENCE_LOSS - loss;
        let fade = distance / (PREFERENCE_RANGE + distance.abs())
            * (PREFERENCE_LOSS + PREFERENCE_RANGE)
            / PREFERENCE_LOSS;
        let preference =
            (PREFERENCE_PER_KBPS * bandwidth + PREFERENCE_LOG * bandwidth.ln_1p()) * fade.max(0.0);

        self.weighed()
            .map(|(weight, observation)| {
                let p = probability(inherent, observation.sent_kbps, bandwidth);
                let packets = observation.lost + observation.received;
                weight
                    * (observation.lost * p.ln()
                        + observation.received * (1.0 - p).ln()
                        + preference * packets)
            })
            .sum()
    }

    /// The observations, the youngest first, with what each counts.
    fn weighed(&self) -> impl Iterator<Item = (f64, &Observation)> {
        let mut weight = 1.0;
        (1..=self.count).map(move |back| {
            let observation = &self.observations[(self.next + OBSERVATIONS - back) % OBSERVATIONS];
            let pair = (weight, observation);
            weight *= AGED;
            pair
        })
    }
}

/// The share of what is sent that doesn't fit.
fn excess(sent: f64, bandwidth: f64) -> f64 {
    if sent > bandwidth {
        (sent - bandwidth) / sent
    } else {
        0.0
    }
}

/// How likely a packet is lost, sent at `sent` over `bandwidth`.
fn probability(inherent: f64, sent: f64, bandwidth: f64) -> f64 {
    let p = inherent + (1.0 - inherent) * excess(sent, bandwidth);
    p.clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN)
}

/// Below this fraction lost (of 256) a rate grows, above the other it falls (§6: 2 % and 10 %).
const REPORT_LOW: f64 = 0.02;
const REPORT_HIGH: f64 = 0.10;

/// How much the rate grows with a report, at most once per [`REPORT_INTERVAL`].
const REPORT_INCREASE: f64 = 1.08;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A falling rate waits so long for the next report to show what came of it.
const REPORT_DECREASE_INTERVAL: Duration = Duration::from_millis(500);

/// Loss-based control by receiver reports alone.
#[derive(Debug)]
pub(super) struct ReportControl {
    pub(super) rate: Bitrate,
    changed_at: Option<Instant>,
    loss: f64,
}

impl ReportControl {
    pub(super) fn new(start: Bitrate) -> Self {
        Self {
            rate: start,
            changed_at: None,
            loss: 0.0,
        }
    }

    /// Takes the fraction lost of a receiver report, in 256ths (RFC 3550 §6.4.1).
    pub(super) fn update(&mut self, now: Instant, lost: u8) -> Bitrate {
        let loss = f64::from(lost) / 256.0;
        self.loss = loss;
        let passed = self
            .changed_at
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        if loss < REPORT_LOW && passed >= REPORT_INTERVAL {
            self.rate = self.rate.scaled(REPORT_INCREASE) + Bitrate::kbps(1);
            self.changed_at = Some(now);
        } else if loss > REPORT_HIGH && passed >= REPORT_DECREASE_INTERVAL {
            self.rate = self.rate.scaled(1.0 - loss / 2.0);
            self.changed_at = Some(now);
        }
        self.rate
    }

    pub(super) fn loss(&self) -> f64 {
        self.loss
    }

    /// Whether hardly anything is lost.
    pub(super) fn is_clean(&self) -> bool {
        self.loss < REPORT_LOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::start;

    #[test]
    fn without_loss_there_is_no_limit() {
        assert_eq!(run(2000.0, |_| 0.0), None);
        assert_eq!(run(2000.0, |_| 0.01), None);
    }

    #[test]
    fn what_does_not_fit_limits_to_what_does() {
        // A short queue at 1000 kbit/s: whatever exceeds it is lost, and the delay shows nothing.
        let limit = run(2000.0, |sent| excess(sent, 1000.0)).unwrap();
        assert!((700.0..1100.0).contains(&limit), "{limit}");
    }

    #[test]
    fn loss_that_has_nothing_to_do_with_us_leaves_a_usable_rate() {
        assert!(run(3000.0, |_| 0.05).is_none_or(|limit| limit > 1500.0));
        let limit = run(3000.0, |_| 0.20).unwrap();
        assert!((250.0..1000.0).contains(&limit), "{limit}");
        assert!(run(3000.0, |_| 0.10).is_none_or(|limit| limit > 1000.0));
    }

    #[test]
    fn a_limit_is_lifted_when_nothing_is_lost_any_more() {
        let mut calls = 0;
        let limit = run(2000.0, |_| {
            calls += 1;
            if calls < 40 { 0.3 } else { 0.0 }
        });
        assert_eq!(limit, None);
    }

    #[test]
    fn receiver_reports_lower_and_raise_the_rate() {
        let mut now = start();
        let mut control = ReportControl::new(Bitrate::kbps(1000));
        let mut report = |lost| {
            now += Duration::from_secs(1);
            control.update(now, lost).as_bps() / 1000
        };
        assert_eq!(report(0), 1081);
        assert_eq!(report(13), 1081, "5 %");
        assert_eq!(report(128), 810, "50 %");
        assert!(!control.is_clean());
        control.update(now, 0);
        assert!(control.is_clean());
    }

    /// Sends what the control allows for 40 s; `lost` tells which share of a rate in kbit/s is lost.
    fn run(by_delay: f64, mut lost: impl FnMut(f64) -> f64) -> Option<f64> {
        let mut control = LossControl::new();
        let mut now = start();
        let mut rate = by_delay;
        let mut limit = None;
        for _ in 0..160 {
            now += Duration::from_millis(250);
            let packets = (rate / 8.0 * 250.0 / 1000.0).max(10.0);
            let share = lost(rate);
            let delivery = Delivery {
                lost: count(packets * share),
                found: 0,
                received: count(packets * (1.0 - share)),
                bytes: u64::from(count(packets)) * 1000,
            };
            let acknowledged = Bitrate::from_f64(rate * (1.0 - share) * 1000.0);
            limit = control.update(
                now,
                delivery,
                Bitrate::from_f64(by_delay * 1000.0),
                Some(acknowledged),
            );
            rate = limit.map_or(by_delay, |limit| limit.as_f64() / 1000.0);
        }
        limit.map(|limit| limit.as_f64() / 1000.0)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a small count")]
    fn count(packets: f64) -> u32 {
        packets.round() as u32
    }
}
