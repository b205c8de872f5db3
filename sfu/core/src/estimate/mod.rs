//! Send-side bandwidth estimation: how much gets through to one subscriber.
//!
//! ```text
//!                          ┌─▶ delay (groups, trendline, threshold) ─▶ rate (increase, decrease) ─┐
//!  feedback ─▶ history ────┼─▶ acknowledged bitrate ──────────────────────▲                       ├─▶ estimate
//!  (TWCC)      (ring)      ├─▶ probe clusters ────────────────────────────┘                       │
//!                          └─▶ loss (likeliest bandwidth and inherent loss) ──────────────────────┘
//! ```
//!
//! After draft-ietf-rmcat-gcc-02 and what libwebrtc made of it. Where transport-wide feedback is not negotiated, what the
//! receiver estimates (REMB) and what its reports say of losses take its place. Whoever acknowledges nothing gets
//! [`SILENT_RATE`]. All are total functions of feedback and time: nothing a subscriber says can do more than change its own
//! estimate within [`RATE_MIN`] and the ceiling it was given.

mod acknowledged;
mod cluster;
mod delay;
mod history;
mod limited;
mod loss;
mod probe;
mod rate;

use std::time::{Duration, Instant};

use self::acknowledged::AcknowledgedRate;
use self::delay::{DelayDetector, Usage};
use self::history::History;
use self::limited::LimitedDetector;
use self::loss::{Delivery, LossControl, ReportControl};
pub(crate) use self::probe::Plan;
use self::probe::Prober;
use self::rate::{Input, RateControl};
use crate::bitrate::Bitrate;

/// What a downlink begins with, before anything is known.
pub const RATE_START: Bitrate = Bitrate::kbps(300);

/// No estimate is lower.
pub const RATE_MIN: Bitrate = Bitrate::kbps(30);

/// What a subscriber gets that acknowledges nothing: two voices.
pub const SILENT_RATE: Bitrate = Bitrate::kbps(80);

/// What a subscriber gets at most that has neither transport-wide feedback nor REMB.
pub const UNGUIDED_RATE_MAX: Bitrate = Bitrate::kbps(2000);

/// Transport-wide feedback comes every 250 ms at the latest: after this time of silence the way is thought broken ...
const SILENCE_TWCC: Duration = Duration::from_millis(1200);

/// ... and where only reports come, which may be 5 s apart (RFC 3550 §6.2), after this.
const SILENCE_REPORTS: Duration = Duration::from_secs(7);

/// A broken way's rate is halved this often.
const HALVED_EVERY: Duration = Duration::from_millis(500);

/// After a silence, for so long and a round trip, losses are those of the silence.
const FORGIVEN: Duration = Duration::from_millis(500);

/// A REMB that was not repeated for so long has no force any more.
const REMB_LIFETIME: Duration = Duration::from_secs(10);

/// A REMB of at least this share of what is sent to the sources it names says no more than that it arrives.
const ARRIVES: f64 = 0.8;

/// Nothing is probed so soon after the rate had to be lowered.
const CALM_AFTER: Duration = Duration::from_secs(1);

/// Nothing is probed while more than this share is lost.
const CALM_LOSS: f64 = 0.3;

/// A way that loses this share is not sent bursts.
const AMPLE_LOSS: f64 = 0.05;

/// The estimate has to exceed what is wanted by so much for it to be sent in peace.
const WANTED_MARGIN: f64 = 1.2;

/// A way that takes so much longer to deliver than we took to send, and has so long a queue, has broken down: no need to look
/// at it for long.
const BLOCKED_STRETCH: f64 = 1.5;
const BLOCKED_QUEUE_MS: f64 = 150.0;

/// With a queue shorter than this what arrives is not held up.
const STEADY_QUEUE_MS: f64 = 20.0;

/// A way that takes so much longer to deliver is sent more than it carries.
const LAGGING_STRETCH: f64 = 1.25;

/// While a queue is longer than this, less is sent, so that it drains: for so long after the rate had to be lowered.
const DRAINED_QUEUE_MS: f64 = 250.0;
const DRAINED_FOR: Duration = Duration::from_secs(15);
const DRAINED_SHARE: f64 = 0.6;

/// How much a round trip's sample weighs.
const ROUND_TRIP_WEIGHT: u32 = 8;

/// What a round trip is thought to be before one was measured.
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(200);

/// A round trip that takes so much longer than the shortest had to wait in a queue.
const ROUND_TRIP_QUEUED: Duration = Duration::from_millis(100);

/// How a subscriber tells what it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Transport-wide feedback is negotiated.
    Twcc,
    /// The receiver estimates (REMB).
    Remb,
    /// Receiver reports alone.
    Reports,
}

/// The estimator of one subscriber.
#[derive(Debug)]
pub(crate) struct Estimator {
    acks: Acks,
    history: History,
    delay: DelayDetector,
    acknowledged: AcknowledgedRate,
    rate: RateControl,
    limited: LimitedDetector,
    loss: LossControl,
    loss_limit: Option<Bitrate>,
    /// Whether a long queue has to drain.
    drains: bool,
    reports: ReportControl,
    remb: Option<(Instant, Bitrate)>,
    prober: Prober,
    round_trip: Option<Duration>,
    round_trip_min: Option<Duration>,
    max: Bitrate,
    /// What there should be room for.
    wanted: Bitrate,
    /// Since when what was sent is not answered.
    unanswered_since: Option<Instant>,
    /// While a way is thought broken: the rate left, and when it was last halved.
    silence: Option<(Bitrate, Instant)>,
    /// After a silence: until when losses are not counted.
    forgiven_until: Option<Instant>,
    estimate: Bitrate,
    unknown: u64,
}

impl Estimator {
    pub(crate) fn new(now: Instant, acks: Acks) -> Self {
        Self {
            acks,
            history: History::new(now),
            delay: DelayDetector::new(),
            acknowledged: AcknowledgedRate::new(),
            rate: RateControl::new(RATE_START),
            limited: LimitedDetector::new(),
            loss: LossControl::new(),
            loss_limit: None,
            drains: false,
            reports: ReportControl::new(RATE_START),
            remb: None,
            prober: Prober::new(acks == Acks::Remb),
            round_trip: None,
            round_trip_min: None,
            max: Bitrate::MAX,
            wanted: Bitrate::ZERO,
            unanswered_since: None,
            silence: None,
            forgiven_until: None,
            estimate: RATE_START,
            unknown: 0,
        }
    }

    pub(crate) fn estimate(&self) -> Bitrate {
        self.estimate
    }

    /// Whether all that is wanted fits in peace, as far as is known, and little is lost.
    pub(crate) fn is_ample(&self) -> bool {
        let fits = self.wanted > Bitrate::ZERO && self.wanted <= self.estimate;
        fits && self.loss() < AMPLE_LOSS
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.history.in_flight()
    }

    /// The share of packets lost lately, 0 to 1.
    pub(crate) fn loss(&self) -> f64 {
        match self.acks {
            Acks::Twcc => self.loss.loss(),
            Acks::Remb | Acks::Reports => self.reports.loss(),
        }
    }

    /// Statuses of packets that were never sent.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown
    }

    pub(crate) fn set_max(&mut self, max: Bitrate) {
        self.max = max.max(RATE_MIN);
        self.conclude();
    }

    /// Sets what would be sent if it fitted. When that grows, the next probe need not wait.
    pub(crate) fn set_wanted(&mut self, now: Instant, wanted: Bitrate) {
        let is_new = self.wanted <= self.estimate && wanted.scaled(WANTED_MARGIN) > self.estimate;
        self.wanted = wanted.scaled(WANTED_MARGIN);
        if is_new {
            self.prober.hurry(now);
        }
    }

    /// A packet of `len` bytes leaves, perhaps as part of a probe (`cluster`, else 0). Returns its transport-wide number.
    pub(crate) fn handle_sent(&mut self, now: Instant, len: u16, cluster: u16) -> u16 {
        self.unanswered_since.get_or_insert(now);
        self.limited.update(now, u64::from(len), self.estimate);
        if cluster != 0 {
            let sent_us = self.history.micros(now);
            self.prober.handle_sent(cluster, sent_us, len);
        }
        self.history.send(now, len, cluster)
    }

    /// The packet sent last came out with another length, or with 0 not at all. Returns the cluster it belongs to, if any, and the
    /// length it was to have.
    pub(crate) fn amend(&mut self, sequence: u16, len: u16) -> Option<(u16, u16)> {
        let amended = self.history.amend(sequence, len);
        let (cluster, asked) = amended.filter(|(cluster, _)| *cluster != 0)?;
        self.prober.amend(cluster, asked, len);
        Some((cluster, asked))
    }

    /// A probe can't be sent.
    pub(crate) fn abort_probe(&mut self, now: Instant) {
        self.prober.abort(now);
    }

    /// Takes transport-wide feedback: packets by number with their arrival in microseconds of the receiver's clock.
    pub(crate) fn handle_twcc(
        &mut self,
        now: Instant,
        statuses: impl Iterator<Item = (u16, Option<i64>)>,
    ) {
        if self.acks != Acks::Twcc {
            return;
        }
        let is_limited = self.limited.is_limited();
        let mut measured = None;
        let mut delivery = Delivery::default();

        let (summary, packets) = self.history.handle_feedback(now, statuses);
        for packet in packets {
            self.delay.handle_packet(packet.sent_us, packet.arrived_us);
            self.acknowledged.handle_packet(packet, is_limited);
            measured = self.prober.handle_acknowledged(packet).or(measured);
            delivery.received += 1;
            delivery.bytes += u64::from(packet.len);
        }
        self.unknown += u64::from(summary.unknown);
        delivery.lost = summary.lost;
        delivery.found = summary.found;
        delivery.bytes += summary.lost_bytes;
        if delivery.received + delivery.lost == 0 {
            return;
        }
        if let Some(round_trip) = summary.round_trip {
            self.measure_round_trip(round_trip);
            self.handle_answer(now);
        }
        if self.forgiven_until.is_some_and(|until| now < until) {
            // What was lost while nothing passed says nothing about how much passes now.
            delivery.lost = 0;
        }
        self.steer(now, is_limited, delivery, measured);
    }

    /// Takes what the receiver estimates for the sources it names, which are sent `named`; all others are sent `beside`.
    ///
    /// It speaks of the sources it names alone (draft-alvestrand-rmcat-remb-03 §2.2): some receivers estimate each Track by itself.
    /// And it knows nothing but what arrived, and says little more than that (draft-ietf-rmcat-gcc-02 §5.5): while nothing is lost or
    /// has to wait, and there is less to send than would fit, or what is sent arrives, that is no reason to send less.
    pub(crate) fn handle_remb(
        &mut self,
        now: Instant,
        remb: Bitrate,
        named: Bitrate,
        beside: Bitrate,
    ) {
        if self.acks != Acks::Remb {
            return;
        }
        let total = remb + beside;
        let is_easy = self.reports.is_clean() && !self.has_long_trips();
        let arrives = self.limited.is_limited() || remb >= named.scaled(ARRIVES);
        let ceiling = if is_easy && arrives {
            self.reports.rate = self.reports.rate.max(total);
            Bitrate::MAX
        } else {
            self.reports.rate = self.reports.rate.min(total);
            total
        };
        self.remb = Some((now, ceiling));
        self.handle_answer(now);
        self.conclude();
    }

    /// Takes a receiver report: the fraction lost in 256ths and, if known, the round trip.
    pub(crate) fn handle_report(&mut self, now: Instant, lost: u8, round_trip: Option<Duration>) {
        if self.acks == Acks::Twcc {
            return; // Its feedback says the same, sooner.
        }
        if let Some(round_trip) = round_trip {
            self.measure_round_trip(round_trip);
        }
        self.reports.update(now, lost);
        // Growth needs use: what was not tried is not known to fit. Beyond what everybody begins with, that is, or whoever is sent
        // no picture any more would never be sent one again.
        if self.limited.is_limited() {
            self.reports.rate = self.reports.rate.min(self.estimate.max(RATE_START));
        }
        self.handle_answer(now);
        self.conclude();
    }

    /// Lets time pass; to be called every 100 ms or so.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.limited.update(now, 0, self.estimate);
        if self
            .remb
            .is_some_and(|(at, _)| now.saturating_duration_since(at) > REMB_LIFETIME)
        {
            self.remb = None;
        }
        let patience = match self.acks {
            Acks::Twcc => SILENCE_TWCC,
            Acks::Remb | Acks::Reports => SILENCE_REPORTS,
        };
        let is_silent = self
            .unanswered_since
            .is_some_and(|since| now.saturating_duration_since(since) > patience);
        if is_silent {
            let (rate, halved_at) = self.silence.get_or_insert((self.estimate, now));
            if now.saturating_duration_since(*halved_at) >= HALVED_EVERY {
                *halved_at = now;
                *rate = rate.scaled(0.5).max(SILENT_RATE);
            }
        }
        self.conclude();
    }

    /// The next cluster to send, if it is time for one.
    pub(crate) fn poll_plan(&mut self, now: Instant) -> Option<Plan> {
        if self.acks == Acks::Reports {
            return None;
        }
        let wanted = self.wanted.min(self.max);
        let is_calm = self.is_calm(now);
        let acknowledged = self.acknowledged.rate().unwrap_or_default();
        self.prober
            .poll_plan(now, self.estimate, acknowledged, wanted, is_calm)
    }

    /// Whether the cluster that is being sent has to end now, for it fills a queue; says so once.
    pub(crate) fn take_cut(&mut self) -> bool {
        self.prober.take_cut()
    }

    /// When [`Estimator::poll_plan`] may have something; `None` while the way is not calm, which only feedback or time can change.
    pub(crate) fn plan_at(&self, now: Instant) -> Option<Instant> {
        let is_wanted = self.acks != Acks::Reports && self.wanted.min(self.max) > self.estimate;
        let at = self.prober.next_at().filter(|_| is_wanted)?;
        (at > now || self.is_calm(now)).then_some(at)
    }

    fn is_calm(&self, now: Instant) -> bool {
        let is_steady = self
            .rate
            .decreased_at()
            .is_none_or(|at| now.saturating_duration_since(at) >= CALM_AFTER);
        is_steady
            && !self.drains
            && self.delay.usage() == Usage::Normal
            && self.silence.is_none()
            && self.loss.loss_latest() <= CALM_LOSS
    }

    /// Draws the conclusions from a feedback.
    fn steer(
        &mut self,
        now: Instant,
        is_limited: bool,
        delivery: Delivery,
        measured: Option<(u16, Bitrate)>,
    ) {
        let stretch = self.acknowledged.stretch();
        let is_blocked = stretch >= BLOCKED_STRETCH && self.delay.queue_ms() >= BLOCKED_QUEUE_MS;
        let usage = if is_blocked {
            Usage::Over
        } else {
            self.delay.usage()
        };
        if is_blocked {
            self.acknowledged.believe_last();
        }
        let acknowledged = self.acknowledged.rate();
        let input = Input {
            usage,
            acknowledged,
            acknowledged_latest: if is_blocked {
                acknowledged
            } else {
                self.acknowledged.rate_latest()
            },
            acknowledged_steady: self
                .acknowledged
                .rate_steady()
                .filter(|_| self.delay.queue_ms() < STEADY_QUEUE_MS),
            // Where what arrives lags behind what was sent, it does tell what the way carries.
            is_limited: is_limited && stretch < LAGGING_STRETCH,
            round_trip: self.round_trip.unwrap_or(ROUND_TRIP_FIRST),
            queue_ms: self.delay.queue_ms(),
        };
        self.rate.update(now, input);

        if usage == Usage::Over {
            self.prober.back_off(now);
        } else if let Some((cluster, measured)) = measured {
            let known = self.rate.rate();
            let wanted = self.wanted.min(self.max);
            let believed = self
                .prober
                .handle_result(now, cluster, measured, known, wanted);
            if let Some(believed) = believed {
                if believed > known {
                    self.rate.set(now, believed);
                }
                self.loss.lift(believed);
            }
        }
        self.prober.handle_feedback(now);
        let is_lowered = self
            .rate
            .decreased_at()
            .is_some_and(|at| now.saturating_duration_since(at) < DRAINED_FOR);
        self.drains = is_lowered
            && self.delay.queue_ms() >= DRAINED_QUEUE_MS
            && !self.prober.has_filled_queue(now);
        self.loss_limit = self
            .loss
            .update(now, delivery, self.rate.rate(), acknowledged);
        self.conclude();
    }

    /// Something that was sent is acknowledged: the way carries.
    fn handle_answer(&mut self, now: Instant) {
        self.unanswered_since = None;
        if let Some((rate, _)) = self.silence.take() {
            // What the way carries now has to be found anew; the queues of before are gone.
            self.rate.set(now, rate);
            self.rate.forget_capacity();
            self.acknowledged.reset();
            self.loss = LossControl::new();
            self.loss_limit = None;
            self.forgiven_until = Some(now + FORGIVEN + self.round_trip.unwrap_or_default());
            self.reports.rate = rate;
            self.prober.hurry(now);
        }
    }

    fn has_long_trips(&self) -> bool {
        let trips = self.round_trip.zip(self.round_trip_min);
        trips.is_some_and(|(now, shortest)| now > shortest + ROUND_TRIP_QUEUED)
    }

    fn measure_round_trip(&mut self, sample: Duration) {
        self.round_trip_min = Some(self.round_trip_min.map_or(sample, |min| min.min(sample)));
        let round_trip = self.round_trip.map_or(sample, |mean| {
            (mean * (ROUND_TRIP_WEIGHT - 1) + sample) / ROUND_TRIP_WEIGHT
        });
        self.round_trip = Some(round_trip);
        self.prober.set_round_trip(round_trip);
    }

    fn conclude(&mut self) {
        let rate = match self.acks {
            Acks::Twcc => self
                .loss_limit
                .map_or(self.rate.rate(), |limit| limit.min(self.rate.rate())),
            Acks::Remb | Acks::Reports => self
                .reports
                .rate
                .min(self.remb.map_or(UNGUIDED_RATE_MAX, |(_, remb)| remb)),
        };
        let rate = if self.drains {
            rate.scaled(DRAINED_SHARE)
        } else {
            rate
        };
        let silent = self.silence.map_or(Bitrate::MAX, |(rate, _)| rate);
        self.estimate = rate.min(silent).max(RATE_MIN).min(self.max);
    }
}
