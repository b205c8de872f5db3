//! Clusters and trains of them on their way: what was sent, what arrived of it and what that measures.

use std::time::Duration;

use super::history::Acknowledged;
use crate::bitrate::Bitrate;

/// A cluster has at least so many packets.
pub(super) const CLUSTER_PACKETS: u64 = 5;

/// What of a cluster must have arrived for it to be judged, in percent.
const RECEIVED_PERCENT: u64 = 60;

/// The same for a tail: it is longer, so that less of it tells as much, and what is missing makes it measure less.
const RECEIVED_PERCENT_TAIL: u64 = 40;

/// Clusters are sent or arrive within this, or they say nothing.
const SPAN_MAX: Duration = Duration::from_secs(1);

/// Packets that arrive so much faster than they were sent have waited somewhere: no measurement.
const COMPRESSED_MAX: f64 = 2.0;

/// A cluster that arrived slower than this share of its rate has filled the way: so much of what arrived is used.
pub(super) const SATURATED: f64 = 0.9;
const SATURATED_USE: f64 = 0.95;

/// One that arrives at this share of the rate at which that was sent keeps pace, for all the way's jitter.
const PACE_KEPT: f64 = 0.85;

/// So many packets of a train in a row that took so much longer than the fastest have met a queue; where a queue is seen elsewhere, so
/// much is enough.
const LATE_PACKETS: u32 = 4;
const LATE_US: i64 = 80_000;
const LATE_QUEUED_US: i64 = 60_000;

/// What the buckets of usual shapers hold, in bytes, and how much a train's lead takes at most to empty one.
const BUCKET: u64 = 32_000;
const LEAD_MAX: u64 = 96_000;
const LEAD_TIME_MAX: Duration = Duration::from_millis(1500);

/// A bucket is filled at the shaper's rate meanwhile, which may be so much more than what is known to fit.
const FILLED: f64 = 1.2;

/// What comes behind the lead and is measured: so long that jitter is little beside it.
pub(super) const TAIL: Duration = Duration::from_millis(200);

/// What a cluster is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// To see how much may fit.
    #[default]
    Short,
    /// To empty a bucket.
    Lead,
    /// To see how much fits.
    Tail,
}

/// What is known of a cluster on its way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cluster {
    pub(super) id: u16,
    pub(super) kind: Kind,
    /// What is to be sent of it.
    planned: u64,
    bytes: u64,
    packets: u64,
    sent_last_us: u64,
    received_bytes: u64,
    received_packets: u64,
    /// First and last times, by each clock.
    sent_us: (u64, u64),
    arrived_us: (i64, i64),
    /// The lengths of the last sent and of the first arrived packet: the intervals don't cover them.
    len_last: u16,
    len_first: u16,
}

/// A lead and its tail on their way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Train {
    lead: u16,
    pub(super) tail: u16,
    /// From one clock to the other, the fastest packet took so long.
    least_us: Option<i64>,
    /// How much longer the last one took, and how many in a row took far longer.
    lag_us: i64,
    late: u32,
}

impl Cluster {
    pub(super) fn new(id: u16, kind: Kind, planned: u64) -> Self {
        Self {
            id,
            kind,
            planned,
            ..Self::default()
        }
    }

    /// A packet of it leaves.
    pub(super) fn handle_sent(&mut self, sent_us: u64, len: u16) {
        if self.packets == 0 {
            self.sent_us.0 = sent_us;
        }
        self.packets += 1;
        self.bytes += u64::from(len);
        self.sent_last_us = sent_us;
    }

    /// The packet that left last came out with another length than was `asked` for, or with 0 not at all.
    pub(super) fn amend(&mut self, asked: u16, len: u16) {
        self.bytes = (self.bytes + u64::from(len)).saturating_sub(u64::from(asked));
        if len == 0 {
            self.packets = self.packets.saturating_sub(1);
        }
    }

    /// A packet of it has arrived.
    pub(super) fn handle_acknowledged(&mut self, packet: &Acknowledged) {
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

    /// Whether all of it was sent and, as a packet that left at `sent_us` has arrived, no more of it is waited for.
    pub(super) fn is_told(&self, sent_us: u64) -> bool {
        let is_sent = self.bytes >= self.planned && self.packets >= CLUSTER_PACKETS;
        is_sent && sent_us >= self.sent_last_us
    }

    /// What the cluster measured, `None` while too little of it arrived or it was pressed together on its way.
    pub(super) fn measure(&self) -> Option<Bitrate> {
        let (sent, arrived) = self.rates()?;
        if arrived > sent.scaled(COMPRESSED_MAX) {
            return None;
        }
        Some(if arrived < sent.scaled(SATURATED) {
            arrived.scaled(SATURATED_USE)
        } else {
            arrived.min(sent)
        })
    }

    /// Whether what arrived of it arrived about as fast as it was sent.
    pub(super) fn keeps_pace(&self) -> bool {
        self.rates()
            .is_some_and(|(sent, arrived)| arrived >= sent.scaled(PACE_KEPT))
    }

    /// How fast what arrived was sent, and how fast it arrived; `None` while that is too little.
    fn rates(&self) -> Option<(Bitrate, Bitrate)> {
        let percent = match self.kind {
            Kind::Short | Kind::Lead => RECEIVED_PERCENT,
            Kind::Tail => RECEIVED_PERCENT_TAIL,
        };
        let enough = |received: u64, sent: u64| received * 100 >= sent * percent;
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
        let sent_bytes = self.received_bytes.checked_sub(u64::from(self.len_last))?;
        let arrived_bytes = self.received_bytes.checked_sub(u64::from(self.len_first))?;
        Some((
            Bitrate::of(sent_bytes, sent),
            Bitrate::of(arrived_bytes, arrived),
        ))
    }
}

impl Train {
    pub(super) fn new(lead: u16, tail: u16) -> Self {
        Self {
            lead,
            tail,
            least_us: None,
            lag_us: 0,
            late: 0,
        }
    }

    /// Takes the time of a packet, if it belongs to the train.
    pub(super) fn handle_acknowledged(&mut self, packet: &Acknowledged) {
        if packet.cluster != self.lead && packet.cluster != self.tail {
            return;
        }
        let sent_us = i64::try_from(packet.sent_us).unwrap_or(i64::MAX);
        let took_us = packet.arrived_us.saturating_sub(sent_us);
        let least_us = self.least_us.map_or(took_us, |least| least.min(took_us));
        self.least_us = Some(least_us);
        self.lag_us = took_us.saturating_sub(least_us);
        self.late = if self.lag_us >= LATE_US {
            self.late + 1
        } else {
            0
        };
    }

    /// Whether it waits in a queue.
    pub(super) fn is_late(&self) -> bool {
        self.late >= LATE_PACKETS
    }

    /// Whether a queue that was seen may be its own.
    pub(super) fn has_lag(&self) -> bool {
        self.lag_us >= LATE_QUEUED_US
    }
}

/// How long the lead of a train has to be that goes at `rate`, while `known` is thought to fit: a bucket loses what exceeds the shaper's
/// rate.
pub(super) fn lead_time(rate: Bitrate, known: Bitrate) -> Duration {
    let emptied = (rate - known.scaled(FILLED)).time_for(BUCKET);
    emptied.min(rate.time_for(LEAD_MAX)).min(LEAD_TIME_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster of 20 packets of 1000 bytes at 800 kbit/s, of which some arrive, all so much later.
    fn cluster(kind: Kind, stretch: f64, arrives: impl Fn(u64) -> bool) -> Cluster {
        let mut cluster = Cluster::new(1, kind, 20_000);
        for n in 0..20 {
            cluster.handle_sent(n * 10_000, 1000);
        }
        for n in (0..20).filter(|n| arrives(*n)) {
            let took = Duration::from_micros(n * 10_000).mul_f64(stretch);
            cluster.handle_acknowledged(&Acknowledged {
                sent_us: n * 10_000,
                arrived_us: i64::try_from(took.as_micros()).unwrap(),
                len: 1000,
                cluster: 1,
            });
        }
        cluster
    }

    #[test]
    fn half_of_a_tail_is_enough_and_measures_what_arrived() {
        let lossy = |kind| cluster(kind, 1.0, |n| n % 2 == 0);
        assert_eq!(lossy(Kind::Short).measure(), None);
        let measured = lossy(Kind::Tail).measure().unwrap();
        assert_eq!(measured, Bitrate::kbps(400));
        assert!(lossy(Kind::Tail).keeps_pace(), "nothing had to wait");
    }

    #[test]
    fn what_takes_longer_to_arrive_than_to_be_sent_does_not_keep_pace() {
        assert!(cluster(Kind::Tail, 1.1, |_| true).keeps_pace());
        assert!(!cluster(Kind::Tail, 1.3, |_| true).keeps_pace());
        assert!(!cluster(Kind::Tail, 1.0, |n| n < 3).keeps_pace(), "unknown");
    }

    #[test]
    fn a_packet_that_comes_out_shorter_leaves_more_to_send() {
        let mut cluster = cluster(Kind::Short, 1.0, |_| true);
        assert!(cluster.is_told(190_000));
        cluster.amend(1000, 400);
        assert!(!cluster.is_told(190_000));
        cluster.handle_sent(195_000, 600);
        assert!(!cluster.is_told(190_000) && cluster.is_told(195_000));
    }

    #[test]
    fn a_lead_empties_a_bucket_but_does_not_take_the_way_for_itself_for_long() {
        let kbps = Bitrate::kbps;
        let time = lead_time(kbps(900), kbps(300));
        assert_eq!((kbps(900) - kbps(360)).bytes_in(time), BUCKET - 1);
        assert_eq!(lead_time(kbps(140), kbps(70)), LEAD_TIME_MAX);
        let time = lead_time(kbps(3000), kbps(2600));
        assert_eq!(kbps(3000).bytes_in(time), LEAD_MAX);
    }
}
