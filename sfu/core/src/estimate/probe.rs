//! Probing: short clusters of packets at a rate above the estimate, to see whether they get through.
//!
//! An SFU often has nothing to send between one Layer and the next larger one, so an estimate can't grow by itself to where
//! the larger one fits. A cluster is a few packets (media, retransmissions or padding) in a short time; what arrives of it, and
//! how far apart, tells what the way carries. Clusters double while they get through, and come more seldom while they don't.
//!
//! Shapers let some ten kilobytes pass at once (a token bucket), and a cluster is shorter than that. So a cluster that measures far more
//! than ever arrived is not believed: a train follows, at no more than it measured, whose lead empties a usual bucket and whose tail
//! measures again. A train is cut short as soon as it arrives late; from then on they go up in small steps, and come more seldom.

use std::time::{Duration, Instant};

use super::cluster::{CLUSTER_PACKETS, Cluster, Kind, SATURATED, TAIL, Train, lead_time};
use super::history::Acknowledged;
use crate::bitrate::Bitrate;

/// A cluster is at least so long.
const CLUSTER: Duration = Duration::from_millis(40);

/// Where only the receiver estimates (REMB), a cluster must be long enough for it to notice.
const CLUSTER_REMB: Duration = Duration::from_millis(400);

/// Padding of a cluster comes in packets of so much time at its rate, within these bounds in bytes.
const PADDING: Duration = Duration::from_millis(5);
const PADDING_LEN_MIN: u64 = 200;
const PADDING_LEN_MAX: u64 = 1200;

/// The first clusters, relative to the estimate a downlink begins with: two at once.
const FIRST: [f64; 2] = [3.0, 6.0];

/// Later ones, relative to the estimate.
const LATER: f64 = 2.0;

/// Nothing is gained by knowing that more fits than is wanted; a cluster is so much larger, for it measures a little less.
const WANTED_MARGIN: f64 = 1.1;

/// A cluster of which this share came through at its rate is followed by a larger one.
const THROUGH: f64 = 0.7;

/// An estimate that has grown by so much was worth a probe.
const WORTH: f64 = 1.05;

/// The next attempt comes after this, and after a failure half as long again, up to the other.
pub(super) const INTERVAL_MIN: Duration = Duration::from_millis(1500);
const INTERVAL_MAX: Duration = Duration::from_secs(3);

/// A cluster whose feedback has not come after two round trips and this is judged by what there is.
const PATIENCE: Duration = Duration::from_millis(300);
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(250);
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

/// An attempt that measured nothing, for too little of it arrived, or nothing it could confirm then, says nothing: the next one comes
/// soon.
const INTERVAL_UNKNOWN: Duration = Duration::from_millis(400);

/// So many times what arrives is believed of a cluster at once: so far an estimate may go beyond it anyway.
const BELIEVED: f64 = 1.5;

/// A train is at most so much faster than the cluster before it, where that got through.
const STEP: f64 = 1.25;

/// Where the cluster before it has filled the way, a train is so much slower than what that measured: it was short, and a train that
/// makes a queue says nothing.
const BELOW: f64 = 0.9;

/// Where a train has failed the next attempts come more seldom, up to this.
const INTERVAL_SHAPED_MAX: Duration = Duration::from_secs(6);

/// The queue behind a train that failed is gone after this.
const QUEUE_OF_TRAIN: Duration = Duration::from_millis(1500);

/// So many clusters are known at once.
const CLUSTERS: usize = 4;

/// A cluster to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Its number, never 0.
    pub(crate) id: u16,
    pub(crate) rate: Bitrate,
    /// What must be sent of it, at least.
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    /// How large a packet of padding should be.
    pub(crate) padding_len: u16,
}

/// Clusters one after the other, to answer one question.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// Until when they are waited for.
    until: Instant,
    /// The estimate before.
    before: Bitrate,
    /// So much is believed of a short cluster.
    believed: Bitrate,
    /// How fast a train has to be that confirms the last short cluster, if it needs one.
    candidate: Option<Bitrate>,
}

/// Decides when to probe, and how large, and reads the results.
#[derive(Debug)]
pub(super) struct Prober {
    is_remb: bool,
    id_last: u16,
    clusters: [Cluster; CLUSTERS],
    /// What is sent next, and after that.
    waiting: Option<Plan>,
    following: Option<Plan>,
    /// Set while clusters are out.
    attempt: Option<Attempt>,
    train: Option<Train>,
    /// Whether the last train failed, a short cluster says little here, and when one did.
    is_shaped: bool,
    failed_at: Option<Instant>,
    /// Whether what is being sent has to end.
    is_cut: bool,
    /// Whether a cluster of the attempt measured anything.
    has_result: bool,
    round_trip: Duration,
    has_begun: bool,
    next_at: Option<Instant>,
    interval: Duration,
    /// The rate of the last plan.
    rate_last: Bitrate,
}

impl Prober {
    pub(super) fn new(is_remb: bool) -> Self {
        Self {
            is_remb,
            id_last: 0,
            clusters: [Cluster::default(); CLUSTERS],
            waiting: None,
            following: None,
            attempt: None,
            train: None,
            is_shaped: false,
            failed_at: None,
            is_cut: false,
            has_result: false,
            round_trip: ROUND_TRIP_FIRST,
            has_begun: false,
            next_at: None,
            interval: INTERVAL_MIN,
            rate_last: Bitrate::ZERO,
        }
    }

    /// The next cluster to send now, if any. `is_calm` while no queue grows and what is sent is acknowledged; `acknowledged` is what
    /// arrives.
    pub(super) fn poll_plan(
        &mut self,
        now: Instant,
        estimate: Bitrate,
        acknowledged: Bitrate,
        wanted: Bitrate,
        is_calm: bool,
    ) -> Option<Plan> {
        if let Some(attempt) = self.attempt
            && self.waiting.is_none()
            && now >= attempt.until
        {
            self.judge(now, attempt, estimate, is_calm);
        }
        if self.attempt.is_some() {
            let plan = self.waiting.take();
            self.waiting = self.following.take();
            return plan;
        }
        let is_due = self.next_at.is_none_or(|at| now >= at);
        if !is_calm || !is_due || wanted <= estimate {
            return None;
        }

        let ceiling = wanted.scaled(WANTED_MARGIN);
        self.attempt = Some(Attempt {
            until: now + self.patience(),
            before: estimate,
            believed: acknowledged.scaled(BELIEVED),
            candidate: None,
        });
        self.has_result = false;
        if self.has_begun || self.is_remb {
            return Some(self.plan(estimate.scaled(LATER).min(ceiling)));
        }
        self.has_begun = true;
        let first = self.plan(estimate.scaled(FIRST[0]).min(ceiling));
        let second = estimate.scaled(FIRST[1]).min(ceiling);
        if second > first.rate {
            self.waiting = Some(self.plan(second));
        }
        Some(first)
    }

    /// How long feedback takes.
    pub(super) fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip.min(ROUND_TRIP_MAX);
    }

    /// A plan could not be sent: nothing to pad with.
    pub(super) fn abort(&mut self, now: Instant) {
        self.drop_plans();
        self.attempt = None;
        self.next_at = Some(now + INTERVAL_MIN);
    }

    /// When something has changed for the better, or broke down and recovers, the next attempt need not wait.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.interval = INTERVAL_MIN;
        if self.attempt.is_none() {
            self.next_at = Some(self.next_at.map_or(now, |at| at.min(now)));
        }
    }

    /// A queue grows: whatever is planned waits until it has drained.
    pub(super) fn back_off(&mut self, now: Instant) {
        if let Some(train) = self.train {
            self.is_cut = true;
            if train.has_lag() {
                self.fail(now);
            }
        }
        self.drop_plans();
        let at = now + INTERVAL_MIN;
        self.next_at = Some(self.next_at.map_or(at, |next_at| next_at.max(at)));
    }

    /// Whether the cluster that is being sent has to end now; says so once.
    pub(super) fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.is_cut)
    }

    /// Whether a queue may still be that of a train: it drains by itself.
    pub(super) fn has_filled_queue(&self, now: Instant) -> bool {
        self.failed_at
            .is_some_and(|at| now.saturating_duration_since(at) < QUEUE_OF_TRAIN)
    }

    /// When [`Prober::poll_plan`] may have something, while `wanted` exceeds the estimate.
    pub(super) fn next_at(&self) -> Option<Instant> {
        match self.attempt {
            Some(attempt) => Some(attempt.until),
            None => self.next_at,
        }
    }

    /// A packet of a cluster leaves.
    pub(super) fn handle_sent(&mut self, id: u16, sent_us: u64, len: u16) {
        let Some(cluster) = self.clusters.iter_mut().find(|cluster| cluster.id == id) else {
            return;
        };
        cluster.handle_sent(sent_us, len);
    }

    /// The packet of a cluster that left last came out with another length than was `asked` for.
    pub(super) fn amend(&mut self, id: u16, asked: u16, len: u16) {
        if let Some(cluster) = self.clusters.iter_mut().find(|cluster| cluster.id == id) {
            cluster.amend(asked, len);
        }
    }

    /// A packet has arrived. Returns what its cluster has measured, once enough of that is known; more packets of it make it more exact.
    /// The tail of a train measures once, when all of it is known.
    pub(super) fn handle_acknowledged(&mut self, packet: &Acknowledged) -> Option<(u16, Bitrate)> {
        let mut measured = None;
        let cluster = self
            .clusters
            .iter_mut()
            .find(|cluster| cluster.id == packet.cluster && packet.cluster != 0);
        if let Some(cluster) = cluster {
            cluster.handle_acknowledged(packet);
            if cluster.kind == Kind::Short {
                measured = cluster.measure().map(|rate| (cluster.id, rate));
            }
        }
        if let Some(train) = &mut self.train {
            train.handle_acknowledged(packet);
            let tail = self.clusters.iter().find(|tail| tail.id == train.tail);
            if let Some(tail) = tail.filter(|tail| tail.is_told(packet.sent_us)) {
                measured = tail.measure().map(|rate| (tail.id, rate)).or(measured);
            }
        }
        measured
    }

    /// All packets of a feedback were taken: a train that is late ends here.
    pub(super) fn handle_feedback(&mut self, now: Instant) {
        if self.train.is_some_and(|train| train.is_late()) {
            self.is_cut = true;
            self.fail(now);
        }
    }

    /// A cluster has measured `rate` while `known` is thought to fit: if it got through, a larger one follows at once, or a train where
    /// it measured too much to be believed. Returns what is believed.
    pub(super) fn handle_result(
        &mut self,
        now: Instant,
        id: u16,
        rate: Bitrate,
        known: Bitrate,
        wanted: Bitrate,
    ) -> Option<Bitrate> {
        self.has_result = true;
        if self.train.take_if(|train| train.tail == id).is_some() {
            return self.end_train(now, id, rate, wanted);
        }
        let believed = self.attempt.map_or(Bitrate::ZERO, |a| a.believed);
        let is_believed = rate <= known.scaled(WORTH).max(believed);
        if let Some(attempt) = &mut self.attempt {
            let goal = if rate >= self.rate_last.scaled(SATURATED) {
                // The train takes the last small step, too.
                let step = wanted.scaled(WANTED_MARGIN).min(rate.scaled(STEP));
                step.max(rate)
            } else {
                rate.scaled(BELOW)
            };
            attempt.candidate = (!is_believed).then_some(goal);
            let is_last = id == self.id_last && self.waiting.is_none();
            if is_last && !self.climb(now, rate, wanted, is_believed) && !is_believed {
                self.begin_train(now, goal, known);
            }
        }
        is_believed.then_some(rate)
    }

    /// Plans the next larger cluster if the last one got through with `rate` and that is worth it. Returns whether it did.
    fn climb(&mut self, now: Instant, rate: Bitrate, wanted: Bitrate, is_believed: bool) -> bool {
        let next = rate.scaled(LATER).min(wanted.scaled(WANTED_MARGIN));
        let worth = if is_believed { WORTH } else { STEP };
        let is_through = rate >= self.rate_last.scaled(THROUGH) && wanted > rate;
        let is_worth = next > self.rate_last.scaled(worth) && (is_believed || !self.is_shaped);
        if is_through && is_worth {
            self.wait_until(now + self.patience());
            self.waiting = Some(self.plan(next));
        }
        is_through && is_worth
    }

    /// Plans the clusters that confirm `rate`, while `known` is thought to fit.
    fn begin_train(&mut self, now: Instant, rate: Bitrate, known: Bitrate) {
        // Where a bucket is known the queue behind it must not become long.
        let rate = if self.is_shaped {
            rate.min(known.scaled(LATER))
        } else {
            rate
        };
        let lead = self.plan_of(Kind::Lead, rate, lead_time(rate, known));
        let tail = self.plan_of(Kind::Tail, rate, TAIL);
        let time = rate.time_for(lead.bytes + tail.bytes);
        self.wait_until(now + time + self.patience());
        self.train = Some(Train::new(lead.id, tail.id));
        if let Some(attempt) = &mut self.attempt {
            attempt.candidate = None;
        }
        self.waiting = Some(lead);
        self.following = Some(tail);
    }

    /// A train's tail has measured `rate`.
    fn end_train(
        &mut self,
        now: Instant,
        tail: u16,
        rate: Bitrate,
        wanted: Bitrate,
    ) -> Option<Bitrate> {
        let tail = self.clusters.iter().find(|cluster| cluster.id == tail);
        if !tail.is_some_and(Cluster::keeps_pace) {
            self.fail(now);
            return None;
        }
        self.is_shaped = false;
        self.interval = INTERVAL_MIN;
        if let Some(attempt) = &mut self.attempt {
            attempt.believed = rate.scaled(BELIEVED);
            self.climb(now, rate, wanted, true);
        }
        Some(rate)
    }

    /// A train did not get through.
    fn fail(&mut self, now: Instant) {
        self.drop_plans();
        self.attempt = None;
        self.is_shaped = true;
        self.failed_at = Some(now);
        self.next_at = Some(now + self.interval);
        self.interval = (self.interval * 2).min(INTERVAL_SHAPED_MAX);
    }

    fn drop_plans(&mut self) {
        self.waiting = None;
        self.following = None;
        self.train = None;
    }

    fn wait_until(&mut self, until: Instant) {
        if let Some(attempt) = &mut self.attempt {
            attempt.until = until;
        }
    }

    fn plan(&mut self, rate: Bitrate) -> Plan {
        let time = if self.is_remb { CLUSTER_REMB } else { CLUSTER };
        self.plan_of(Kind::Short, rate, time)
    }

    fn plan_of(&mut self, kind: Kind, rate: Bitrate, time: Duration) -> Plan {
        self.id_last = self.id_last.checked_add(1).unwrap_or(1);
        self.rate_last = rate;
        let bytes = rate.bytes_in(time);
        let slot = usize::from(self.id_last) % CLUSTERS;
        self.clusters[slot] = Cluster::new(self.id_last, kind, bytes);
        let padding_len = rate
            .bytes_in(PADDING)
            .clamp(PADDING_LEN_MIN, PADDING_LEN_MAX);
        Plan {
            id: self.id_last,
            rate,
            bytes,
            packets: CLUSTER_PACKETS,
            padding_len: u16::try_from(padding_len).unwrap_or(u16::MAX),
        }
    }

    fn patience(&self) -> Duration {
        let patience = PATIENCE + self.round_trip * 2;
        if self.is_remb {
            patience + CLUSTER_REMB * 2
        } else {
            patience
        }
    }

    /// Ends an attempt, unless something is to be confirmed: the next one comes soon if this one was worth it.
    fn judge(&mut self, now: Instant, attempt: Attempt, estimate: Bitrate, is_calm: bool) {
        if self.train.is_some() {
            return self.fail(now); // Too little of its tail arrived.
        }
        if let Some(candidate) = attempt.candidate.filter(|_| is_calm) {
            return self.begin_train(now, candidate, estimate);
        }
        self.attempt = None;
        if estimate >= attempt.before.scaled(WORTH) {
            self.interval = INTERVAL_MIN;
            self.next_at = Some(now);
        } else if (!self.has_result || attempt.candidate.is_some()) && !self.is_remb {
            self.next_at = Some(now + INTERVAL_UNKNOWN);
        } else {
            self.next_at = Some(now + self.interval);
            self.interval = (self.interval * 3 / 2).min(INTERVAL_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::start;

    const WANTED: Bitrate = Bitrate::kbps(3000);

    /// What is thought to fit.
    const KNOWN: Bitrate = Bitrate::kbps(300);

    #[test]
    fn the_first_two_clusters_are_three_and_six_times_what_it_begins_with() {
        let mut t = Story::new();
        let plans = t.plans(Bitrate::kbps(300), WANTED);
        let rates: Vec<u64> = plans.iter().map(|plan| plan.rate.as_bps() / 1000).collect();
        assert_eq!(rates, [900, 1800]);
        assert!(plans.iter().all(|plan| plan.packets >= 5 && plan.id != 0));
    }

    #[test]
    fn nothing_is_probed_that_nobody_wants() {
        let mut t = Story::new();
        assert_eq!(t.plans(Bitrate::kbps(300), Bitrate::kbps(300)), []);
        let plans = t.plans(Bitrate::kbps(300), Bitrate::kbps(400));
        assert_eq!(plans.len(), 1);
        assert_eq!(plans[0].rate, Bitrate::kbps(440));
    }

    #[test]
    fn a_cluster_that_gets_through_is_followed_by_a_larger_one() {
        let mut t = Story::new();
        let plans = t.plans(Bitrate::kbps(300), Bitrate::kbps(9000));
        let rate = t.send(plans[1], 1.0).unwrap();
        assert!((1700..1900).contains(&(rate.as_bps() / 1000)), "{rate}");
        let believed = t.result(plans[1], rate, Bitrate::kbps(9000));
        assert_eq!(believed, None, "it was short");
        let next = t.plans(rate, Bitrate::kbps(9000));
        assert_eq!(next.len(), 1);
        assert!(next[0].rate > Bitrate::kbps(3400));
    }

    #[test]
    fn a_cluster_that_fills_the_way_measures_it() {
        let mut t = Story::new();
        let plans = t.plans(Bitrate::kbps(300), WANTED);
        let rate = t.send(plans[1], 2.0).unwrap();
        assert!((800..900).contains(&(rate.as_bps() / 1000)), "{rate}");
        t.acknowledged = rate;
        assert_eq!(t.result(plans[1], rate, WANTED), None);
        let train = t.plans(KNOWN, WANTED);
        let below = |plan: &Plan| plan.rate == rate.scaled(BELOW);
        assert!(train.iter().all(below), "{train:?}");
    }

    #[test]
    fn what_was_measured_is_believed_once_a_train_has_got_through() {
        let mut t = Story::new();
        let train = t.train();
        assert_eq!(train.len(), 2);
        let lead = train[0].rate.bytes_in(lead_time(train[0].rate, KNOWN));
        assert_eq!(train[0].bytes, lead);

        assert_eq!(t.send(train[0], 1.0), None);
        let rate = t.send(train[1], 1.0).unwrap();
        assert_eq!(t.result(train[1], rate, WANTED), Some(rate));
        assert!(rate >= train[0].rate.scaled(0.9), "{rate}");
    }

    #[test]
    fn a_train_that_takes_longer_in_the_end_confirms_nothing() {
        let mut t = Story::new();
        let train = t.train();
        t.send(train[0], 1.0);
        let rate = t.send(train[1], 3.0).unwrap();
        assert_eq!(t.result(train[1], rate, WANTED), None);
        assert!(!t.prober.take_cut());
        assert_eq!(t.plans(KNOWN, WANTED), []);
        // And the next one is no faster than twice what is known.
        t.now += INTERVAL_SHAPED_MAX;
        let short = t.plans(KNOWN, WANTED);
        let rate = t.send(short[0], 1.0).unwrap();
        assert_eq!(t.result(short[0], rate, WANTED), None);
        let train = t.plans(KNOWN, WANTED);
        assert_eq!(train.len(), 2);
        assert!(train[0].rate <= KNOWN.scaled(2.0), "{train:?}");
    }

    #[test]
    fn a_train_that_is_late_is_cut_short_and_the_next_ones_come_more_seldom() {
        let mut t = Story::new();
        let train = t.train();
        t.send(train[0], 2.0);
        t.prober.handle_feedback(t.now);
        assert!(t.prober.take_cut());
        assert!(!t.prober.take_cut(), "once");
        assert!(t.prober.has_filled_queue(t.now));
        assert_eq!(t.plans(KNOWN, WANTED), [], "no tail");
        t.now += INTERVAL_MIN;
        assert!(!t.prober.has_filled_queue(t.now));
        assert_eq!(t.plans(KNOWN, WANTED).len(), 1);
    }

    #[test]
    fn what_is_not_far_beyond_what_arrives_is_believed_at_once() {
        let mut t = Story::new();
        t.acknowledged = Bitrate::kbps(600);
        let plan = t.plans(KNOWN, Bitrate::kbps(450))[0];
        let rate = t.send(plan, 1.0).unwrap();
        assert!(rate > KNOWN.scaled(1.4), "{rate}");
        assert_eq!(t.result(plan, rate, Bitrate::kbps(450)), Some(rate));
    }

    #[test]
    fn attempts_that_fail_come_more_seldom_but_within_seconds() {
        let mut t = Story::new();
        let estimate = Bitrate::kbps(300);
        let mut at = Vec::new();
        for tick in 0..6000 {
            t.now += Duration::from_millis(10);
            let plans = t.plans(estimate, WANTED);
            if !plans.is_empty() {
                at.push(tick / 100);
            }
            for plan in plans {
                let rate = t.send(plan, 8.0).unwrap();
                t.result(plan, rate, WANTED);
            }
        }
        let gaps: Vec<i32> = at
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .filter(|&gap| gap > 0)
            .collect();
        assert!(
            gaps.first() < gaps.last() && gaps.last() <= Some(&4),
            "{gaps:?}"
        );
    }

    #[test]
    fn a_cluster_of_which_too_little_arrives_or_that_was_pressed_together_says_nothing() {
        let mut t = Story::new();
        let plans = t.plans(Bitrate::kbps(300), WANTED);
        assert_eq!(t.send(plans[0], 0.1), None);
        let packet = Acknowledged {
            sent_us: 0,
            arrived_us: 0,
            len: 1000,
            cluster: plans[1].id,
        };
        for _ in 0..10 {
            t.prober.handle_sent(plans[1].id, 0, 1000);
        }
        assert_eq!(t.prober.handle_acknowledged(&packet), None);
        assert_eq!(
            t.prober.handle_acknowledged(&Acknowledged {
                cluster: 999,
                ..packet
            }),
            None
        );
    }

    struct Story {
        prober: Prober,
        now: Instant,
        acknowledged: Bitrate,
        /// When the last packet left.
        sent_us: u64,
    }

    impl Story {
        fn new() -> Self {
            Self {
                prober: Prober::new(false),
                now: start(),
                acknowledged: Bitrate::ZERO,
                sent_us: 0,
            }
        }

        fn plans(&mut self, estimate: Bitrate, wanted: Bitrate) -> Vec<Plan> {
            let poll = || {
                self.prober
                    .poll_plan(self.now, estimate, self.acknowledged, wanted, true)
            };
            std::iter::from_fn(poll).collect()
        }

        fn result(&mut self, plan: Plan, rate: Bitrate, wanted: Bitrate) -> Option<Bitrate> {
            self.prober
                .handle_result(self.now, plan.id, rate, KNOWN, wanted)
        }

        /// The clusters that follow short ones of 900 and 1800 kbit/s, of which the last took half as long again.
        fn train(&mut self) -> Vec<Plan> {
            let plans = self.plans(KNOWN, WANTED);
            let rate = self.send(plans[1], 1.5).unwrap();
            assert_eq!(self.result(plans[1], rate, WANTED), None);
            self.plans(KNOWN, WANTED)
        }

        /// Sends a cluster; it takes `stretch` times as long to arrive. Returns what it measured.
        fn send(&mut self, plan: Plan, stretch: f64) -> Option<Bitrate> {
            let apart = plan.rate.time_for(1000);
            let count = (plan.bytes / 1000 + 1).max(plan.packets);
            let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap();
            let begun_us = self.sent_us + us(apart);
            let mut result = None;
            let times: Vec<Duration> = (0..count)
                .map(|n| apart * u32::try_from(n).unwrap())
                .collect();
            for &after in &times {
                self.sent_us = begun_us + us(after);
                self.prober.handle_sent(plan.id, self.sent_us, 1000);
            }
            for &after in &times {
                let arrived = begun_us + us(after.mul_f64(stretch));
                result = self.prober.handle_acknowledged(&Acknowledged {
                    sent_us: begun_us + us(after),
                    arrived_us: i64::try_from(arrived).unwrap(),
                    len: 1000,
                    cluster: plan.id,
                });
            }
            result.map(|result| result.1)
        }
    }
}
