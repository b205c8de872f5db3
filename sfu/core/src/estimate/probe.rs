//! Probing: short clusters of packets at a rate above the estimate, to see whether they get through.
//!
//! An SFU often has nothing to send between one Layer and the next larger one, so an estimate can't grow by itself to where
//! the larger one fits. A cluster is a few packets (media, retransmissions or padding) in a short time; what arrives of it, and
//! how far apart, tells what the way carries. Clusters double while they get through, and come more seldom while they don't.

use std::time::{Duration, Instant};

use super::history::Acknowledged;
use crate::bitrate::Bitrate;

/// A cluster is at least so long and has at least so many packets.
const CLUSTER: Duration = Duration::from_millis(40);
const CLUSTER_PACKETS: u64 = 5;

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

/// What of a cluster must have arrived for it to be judged, in percent.
const RECEIVED_PERCENT: u64 = 60;

/// Clusters are sent or arrive within this, or they say nothing.
const SPAN_MAX: Duration = Duration::from_secs(1);

/// Packets that arrive so much faster than they were sent have waited somewhere: no measurement.
const COMPRESSED_MAX: f64 = 2.0;

/// A cluster that arrived slower than this share of its rate has filled the way: so much of what arrived is used.
const SATURATED: f64 = 0.9;
const SATURATED_USE: f64 = 0.95;

/// The next attempt comes after this, and after a failure half as long again, up to the other.
pub(super) const INTERVAL_MIN: Duration = Duration::from_millis(1500);
const INTERVAL_MAX: Duration = Duration::from_secs(3);

/// A cluster whose feedback has not come after two round trips and this is judged by what there is.
const PATIENCE: Duration = Duration::from_millis(300);
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(250);
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

/// An attempt that measured nothing, for too little of it arrived, says nothing: the next one comes soon.
const INTERVAL_UNKNOWN: Duration = Duration::from_millis(400);

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

/// What is known of a cluster on its way.
#[derive(Debug, Clone, Copy, Default)]
struct Cluster {
    id: u16,
    bytes: u64,
    packets: u64,
    received_bytes: u64,
    received_packets: u64,
    /// First and last times, by each clock.
    sent_us: (u64, u64),
    arrived_us: (i64, i64),
    /// The lengths of the last sent and of the first arrived packet: the intervals don't cover them.
    len_last: u16,
    len_first: u16,
}

/// Decides when to probe, and how large, and reads the results.
#[derive(Debug)]
pub(super) struct Prober {
    is_remb: bool,
    id_last: u16,
    clusters: [Cluster; CLUSTERS],
    waiting: Option<Plan>,
    /// Set while clusters are out: since when, and the estimate before.
    attempt: Option<(Instant, Bitrate)>,
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
            attempt: None,
            has_result: false,
            round_trip: ROUND_TRIP_FIRST,
            has_begun: false,
            next_at: None,
            interval: INTERVAL_MIN,
            rate_last: Bitrate::ZERO,
        }
    }

    /// The next cluster to send now, if any. `is_calm` while no queue grows and what is sent is acknowledged.
    pub(super) fn poll_plan(
        &mut self,
        now: Instant,
        estimate: Bitrate,
        wanted: Bitrate,
        is_calm: bool,
    ) -> Option<Plan> {
        if let Some((since, before)) = self.attempt {
            if self.waiting.is_none() && now.saturating_duration_since(since) >= self.patience() {
                self.judge(now, before, estimate);
            } else {
                return self.waiting.take();
            }
        }
        let is_due = self.next_at.is_none_or(|at| now >= at);
        if !is_calm || !is_due || wanted <= estimate {
            return None;
        }

        let ceiling = wanted.scaled(WANTED_MARGIN);
        self.attempt = Some((now, estimate));
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
        self.waiting = None;
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
        self.waiting = None;
        let at = now + INTERVAL_MIN;
        self.next_at = Some(self.next_at.map_or(at, |next_at| next_at.max(at)));
    }

    /// When [`Prober::poll_plan`] may have something, while `wanted` exceeds the estimate.
    pub(super) fn next_at(&self) -> Option<Instant> {
        match self.attempt {
            Some((since, _)) => Some(since + self.patience()),
            None => self.next_at,
        }
    }

    /// A packet of a cluster leaves.
    pub(super) fn handle_sent(&mut self, id: u16, sent_us: u64, len: u16) {
        let Some(cluster) = self.clusters.iter_mut().find(|cluster| cluster.id == id) else {
            return;
        };
        if cluster.packets == 0 {
            cluster.sent_us.0 = sent_us;
        }
        cluster.packets += 1;
        cluster.bytes += u64::from(len);
    }

    /// A packet of a cluster has arrived. Returns what the cluster has measured, once enough of it is known; more packets of it
    /// make it more exact.
    pub(super) fn handle_acknowledged(&mut self, packet: &Acknowledged) -> Option<(u16, Bitrate)> {
        let cluster = self
            .clusters
            .iter_mut()
            .find(|cluster| cluster.id == packet.cluster && packet.cluster != 0)?;
        cluster.handle_acknowledged(packet);
        cluster.measure().map(|rate| (cluster.id, rate))
    }

    /// A cluster has measured `rate`: if it got through, a larger one follows at once.
    pub(super) fn handle_result(&mut self, now: Instant, id: u16, rate: Bitrate, wanted: Bitrate) {
        self.has_result = true;
        let is_last = id == self.id_last && self.waiting.is_none();
        if !is_last || self.attempt.is_none() || rate < self.rate_last.scaled(THROUGH) {
            return;
        }
        let next = rate.scaled(LATER).min(wanted.scaled(WANTED_MARGIN));
        if next > self.rate_last.scaled(WORTH) && wanted > rate {
            let before = self.attempt.map_or(rate, |(_, before)| before);
            self.attempt = Some((now, before));
            self.waiting = Some(self.plan(next));
        }
    }

    fn plan(&mut self, rate: Bitrate) -> Plan {
        self.id_last = self.id_last.checked_add(1).unwrap_or(1);
        self.rate_last = rate;
        let slot = usize::from(self.id_last) % CLUSTERS;
        self.clusters[slot] = Cluster {
            id: self.id_last,
            ..Cluster::default()
        };
        let time = if self.is_remb { CLUSTER_REMB } else { CLUSTER };
        let padding_len = rate
            .bytes_in(PADDING)
            .clamp(PADDING_LEN_MIN, PADDING_LEN_MAX);
        Plan {
            id: self.id_last,
            rate,
            bytes: rate.bytes_in(time),
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

    /// Ends an attempt: the next one comes soon if this one was worth it.
    fn judge(&mut self, now: Instant, before: Bitrate, estimate: Bitrate) {
        self.attempt = None;
        if estimate >= before.scaled(WORTH) {
            self.interval = INTERVAL_MIN;
            self.next_at = Some(now);
        } else if !self.has_result && !self.is_remb {
            self.next_at = Some(now + INTERVAL_UNKNOWN);
        } else {
            self.next_at = Some(now + self.interval);
            self.interval = (self.interval * 3 / 2).min(INTERVAL_MAX);
        }
    }
}

impl Cluster {
    fn handle_acknowledged(&mut self, packet: &Acknowledged) {
        if self.received_packets == 0 {
            self.arrived_us = (packet.arrived_us, packet.arrived_us);
            self.len_first = packet.len;
            self.sent_us.1 = packet.sent_us;
            self.len_last = packet.len;
        }
        if packet.sent_us >= self.sent_us.1 {
            self.sent_us.1 = packet.sent_us;
            self.len_last = packet.len;
        }
        if packet.arrived_us < self.arrived_us.0 {
            self.arrived_us.0 = packet.arrived_us;
            self.len_first = packet.len;
        }
        self.arrived_us.1 = self.arrived_us.1.max(packet.arrived_us);
        self.received_packets += 1;
        self.received_bytes += u64::from(packet.len);
    }

    /// What the cluster measured, `None` while too little of it arrived or it was pressed together on its way.
    fn measure(&self) -> Option<Bitrate> {
        let enough = |received: u64, sent: u64| received * 100 >= sent * RECEIVED_PERCENT;
        if self.packets < CLUSTER_PACKETS
            || !enough(self.received_packets, self.packets.max(CLUSTER_PACKETS))
            || !enough(self.received_bytes, self.bytes)
        {
            return None;
        }
        let sent = Duration::from_micros(self.sent_us.1.checked_sub(self.sent_us.0)?);
        let arrived = u64::try_from(self.arrived_us.1.checked_sub(self.arrived_us.0)?).ok()?;
        let arrived = Duration::from_micros(arrived);
        if sent.is_zero() || arrived.is_zero() || sent > SPAN_MAX || arrived > SPAN_MAX {
            return None;
        }

        let sent_rate = Bitrate::of(
            self.received_bytes.checked_sub(u64::from(self.len_last))?,
            sent,
        );
        let arrived_rate = Bitrate::of(
            self.received_bytes.checked_sub(u64::from(self.len_first))?,
            arrived,
        );
        if arrived_rate > sent_rate.scaled(COMPRESSED_MAX) {
            return None;
        }
        Some(if arrived_rate < sent_rate.scaled(SATURATED) {
            arrived_rate.scaled(SATURATED_USE)
        } else {
            arrived_rate.min(sent_rate)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::start;

    const WANTED: Bitrate = Bitrate::kbps(3000);

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
        t.prober
            .handle_result(t.now, plans[1].id, rate, Bitrate::kbps(9000));
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
        t.prober.handle_result(t.now, plans[1].id, rate, WANTED);
        assert_eq!(t.plans(rate, WANTED), []);
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
                t.prober.handle_result(t.now, plan.id, rate, WANTED);
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
    }

    impl Story {
        fn new() -> Self {
            Self {
                prober: Prober::new(false),
                now: start(),
            }
        }

        fn plans(&mut self, estimate: Bitrate, wanted: Bitrate) -> Vec<Plan> {
            std::iter::from_fn(|| self.prober.poll_plan(self.now, estimate, wanted, true)).collect()
        }

        /// Sends a cluster; it takes `stretch` times as long to arrive. Returns what it measured.
        fn send(&mut self, plan: Plan, stretch: f64) -> Option<Bitrate> {
            let apart = plan.rate.time_for(1000);
            let count = (plan.bytes / 1000 + 1).max(plan.packets);
            let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap();
            for n in 0..count {
                let sent = apart * u32::try_from(n).unwrap();
                self.prober.handle_sent(plan.id, us(sent), 1000);
            }
            let mut result = None;
            for n in 0..count {
                let sent = apart * u32::try_from(n).unwrap();
                result = self.prober.handle_acknowledged(&Acknowledged {
                    sent_us: us(sent),
                    arrived_us: i64::try_from(us(sent.mul_f64(stretch))).unwrap(),
                    len: 1000,
                    cluster: plan.id,
                });
            }
            result.map(|result| result.1)
        }
    }
}
