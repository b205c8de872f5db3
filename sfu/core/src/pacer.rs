//! Pacing: what waits for one subscriber and when it may leave.
//!
//! A leaky bucket as one moment in time: `drained_at` moves on by each packet's time at the pace, and packets may leave while it
//! is no further ahead than [`BURST`]. So a frame or so leaves at once and in one call (GSO), and a key frame is spread. Audio
//! never waits. Then come retransmissions, then video; probes fill up with padding. Nothing here allocates per packet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::bitrate::Bitrate;
use crate::estimate::Plan;

/// Packets leave by so much faster than the estimate: a queue of ours is no better than one in the network.
const PACE: f64 = 1.25;

/// And by so much where all that is wanted fits: then a picture leaves whole, in one call.
const PACE_AMPLE: f64 = 1.6;

/// The bucket: what leaves at once after a pause, at the pace.
pub const BURST: Duration = Duration::from_millis(20);

/// A probe that was called late catches up with so much at most.
const PROBE_BURST: Duration = Duration::from_millis(4);

/// Packets that wait, at most, of each kind.
pub const QUEUE_MAX: usize = 1024;

/// Packets that a queue has room for without asking for memory again: a picture or two.
const QUEUE_KEPT: usize = 16;

/// What waits should leave within this: if need be a little faster.
const QUEUE_TIME: Duration = Duration::from_millis(400);
const PACE_MAX: f64 = 2.5;

/// What was lost is sent again only if it can leave within this, or is so little; later it would be of no use.
const RESEND_TIME_MAX: Duration = Duration::from_millis(300);
const RESEND_LEN_MIN: u64 = 4 * 1024;

/// Everything that waits, as a time at the estimate and in bytes, whichever is more: a key frame of a screen must fit, for half
/// of one is none and another would be asked for, again and again. A Layer that is left is not waited for
/// ([`Pacer::discard`]).
const QUEUE_TIME_MAX: Duration = Duration::from_millis(2000);
const QUEUE_LEN_MIN: u64 = 512 * 1024;

/// What a packet is, in the order in which packets leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Sound: never waits.
    Audio,
    /// Sent before and lost: somebody waits for it.
    Retransmission,
    /// All other pictures.
    Video,
}

const CLASSES: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Waiting<P> {
    packet: P,
    len: u16,
    since: Instant,
}

/// What leaves next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item<P> {
    Packet(P),
    Padding,
}

/// A cluster that is being sent.
#[derive(Debug, Clone, Copy)]
struct Probe {
    plan: Plan,
    next_at: Instant,
    bytes: u64,
    packets: u64,
}

impl Probe {
    fn is_complete(&self) -> bool {
        self.bytes >= self.plan.bytes && self.packets >= self.plan.packets
    }
}

/// The queues and the bucket of one subscriber; `P` names a packet.
#[derive(Debug)]
pub(crate) struct Pacer<P> {
    queues: [VecDeque<Waiting<P>>; CLASSES],
    bytes: u64,
    /// Of these, retransmissions.
    bytes_resent: u64,
    /// What may wait of both.
    bytes_max: u64,
    bytes_resent_max: u64,
    /// Time per byte at the pace, in 1024ths of a nanosecond.
    per_byte: u64,
    drained_at: Instant,
    /// The last cluster: also one that is complete, unless its last packet comes out shorter.
    probe: Option<Probe>,
}

impl<P: Copy> Pacer<P> {
    pub(crate) fn new(now: Instant, estimate: Bitrate) -> Self {
        let mut pacer = Self {
            queues: std::array::from_fn(|_| VecDeque::new()),
            bytes: 0,
            bytes_resent: 0,
            bytes_max: 0,
            bytes_resent_max: 0,
            per_byte: 0,
            drained_at: now,
            probe: None,
        };
        pacer.set_estimate(estimate, false);
        pacer
    }

    /// Sets the pace from the estimate, whether all that is wanted fits into that (`is_ample`), and from what waits; to be called every
    /// 100 ms or so.
    pub(crate) fn set_estimate(&mut self, estimate: Bitrate, is_ample: bool) {
        let factor = if is_ample { PACE_AMPLE } else { PACE };
        let needed = Bitrate::of(self.bytes, QUEUE_TIME).min(estimate.scaled(PACE_MAX));
        let pace = estimate.scaled(factor).max(needed).max(Bitrate::kbps(1));
        self.per_byte = 8 * 1_000_000_000 * 1024 / pace.as_bps();
        self.bytes_max = estimate.bytes_in(QUEUE_TIME_MAX).max(QUEUE_LEN_MIN);
        self.bytes_resent_max = estimate.bytes_in(RESEND_TIME_MAX).max(RESEND_LEN_MIN);
    }

    /// Gives back the memory of queues that were long once; to be called rarely, for it may be needed again.
    pub(crate) fn shrink(&mut self) {
        for queue in &mut self.queues {
            queue.shrink_to(QUEUE_KEPT);
        }
    }

    /// Queues a packet; gives it back when too much waits.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        class: Class,
        len: u16,
        packet: P,
    ) -> Result<(), P> {
        let queue = &mut self.queues[class as usize];
        let is_full = match class {
            Class::Audio => false,
            Class::Retransmission => self.bytes_resent >= self.bytes_resent_max,
            Class::Video => self.bytes >= self.bytes_max,
        };
        if is_full || queue.len() >= QUEUE_MAX {
            return Err(packet);
        }
        queue.push_back(Waiting {
            packet,
            len,
            since: now,
        });
        self.bytes += u64::from(len);
        if class == Class::Retransmission {
            self.bytes_resent += u64::from(len);
        }
        Ok(())
    }

    /// Forgets the packets for which `is_left` holds.
    pub(crate) fn discard(&mut self, mut is_left: impl FnMut(&P) -> bool) {
        for queue in &mut self.queues {
            queue.retain(|waiting| !is_left(&waiting.packet));
        }
        let bytes =
            |queue: &VecDeque<Waiting<P>>| queue.iter().map(|w| u64::from(w.len)).sum::<u64>();
        self.bytes = self.queues.iter().map(bytes).sum();
        self.bytes_resent = bytes(&self.queues[Class::Retransmission as usize]);
    }

    /// Begins a cluster; none may be under way.
    pub(crate) fn begin_probe(&mut self, now: Instant, plan: Plan) {
        self.probe = Some(Probe {
            plan,
            next_at: now,
            bytes: 0,
            packets: 0,
        });
    }

    pub(crate) fn is_probing(&self) -> bool {
        self.probing().is_some()
    }

    /// Ends a cluster that can't be sent, or must not.
    pub(crate) fn abort_probe(&mut self, now: Instant) {
        if self.probe.take().is_some() {
            self.forget_probe(now);
        }
    }

    /// The packet of a cluster that left last came out with another length than was `asked` for, or with 0 not at all: what is missing
    /// follows, in time.
    pub(crate) fn amend_probe(&mut self, id: u16, asked: u16, len: u16) {
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.plan.id == id) else {
            return;
        };
        let (asked, len) = (u64::from(asked), u64::from(len));
        probe.bytes = (probe.bytes + len).saturating_sub(asked);
        if len == 0 {
            probe.packets = probe.packets.saturating_sub(1);
        }
        let later = probe.plan.rate.time_for(len.saturating_sub(asked));
        let sooner = probe.plan.rate.time_for(asked.saturating_sub(len));
        let next_at = probe.next_at + later;
        probe.next_at = next_at.checked_sub(sooner).unwrap_or(next_at);
    }

    /// What may leave now, with its length and the cluster it belongs to (or 0); `None`: nothing.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Item<P>, u16, u16)> {
        if let Some(waiting) = self.queues[Class::Audio as usize].pop_front() {
            // Part of a cluster, too: it takes its share of what the cluster measures.
            let cluster = self.probing().map_or(0, |probe| probe.plan.id);
            let item = self.leave(now, waiting, cluster);
            self.advance_probe(now, item.1);
            return Some(item);
        }
        let has_room = self.drained_at <= now + BURST;
        if let Some(&Probe { plan, next_at, .. }) = self.probing() {
            // What may leave anyway does not wait for the cluster; padding behind it does, so that the whole has the cluster's rate.
            let is_due = next_at <= now;
            let item = match self.take_if(is_due || has_room) {
                Some(waiting) => self.leave(now, waiting, plan.id),
                None if !is_due => return None,
                None => {
                    self.fill(now, plan.padding_len);
                    (Item::Padding, plan.padding_len, plan.id)
                }
            };
            self.advance_probe(now, item.1);
            return Some(item);
        }
        let waiting = self.take_if(has_room)?;
        Some(self.leave(now, waiting, 0))
    }

    /// When something may leave; `None` while nothing waits.
    pub(crate) fn next_at(&self, now: Instant) -> Option<Instant> {
        if !self.queues[Class::Audio as usize].is_empty() {
            return Some(now);
        }
        let probe_at = self.probing().map(|probe| probe.next_at.max(now));
        if self.queues.iter().all(VecDeque::is_empty) {
            return probe_at;
        }
        // Once the bucket is full it drains whole, so that what leaves next is a burst again.
        let is_full = self.drained_at > now + BURST;
        let at = if is_full { self.drained_at } else { now };
        Some(probe_at.map_or(at, |probe_at| probe_at.min(at)))
    }

    /// How long the packet that waits the longest has waited.
    pub(crate) fn delay(&self, now: Instant) -> Duration {
        let first = self.queues.iter().filter_map(VecDeque::front);
        first
            .map(|waiting| now.saturating_duration_since(waiting.since))
            .max()
            .unwrap_or_default()
    }

    /// What waits, in bytes.
    pub(crate) fn waiting(&self) -> u64 {
        self.bytes
    }

    /// The next packet that is no audio, if it `may` leave.
    fn take_if(&mut self, may: bool) -> Option<Waiting<P>> {
        if !may {
            return None;
        }
        if let Some(waiting) = self.queues[Class::Retransmission as usize].pop_front() {
            self.bytes_resent -= u64::from(waiting.len);
            return Some(waiting);
        }
        self.queues[Class::Video as usize].pop_front()
    }

    fn leave(&mut self, now: Instant, waiting: Waiting<P>, cluster: u16) -> (Item<P>, u16, u16) {
        self.bytes -= u64::from(waiting.len);
        self.fill(now, waiting.len);
        (Item::Packet(waiting.packet), waiting.len, cluster)
    }

    /// Fills the bucket by a packet.
    fn fill(&mut self, now: Instant, len: u16) {
        let time = Duration::from_nanos((u64::from(len) * self.per_byte) >> 10);
        self.drained_at = self.drained_at.max(now) + time;
    }

    fn advance_probe(&mut self, now: Instant, len: u16) {
        let Some(probe) = self.probe.as_mut().filter(|probe| !probe.is_complete()) else {
            return;
        };
        probe.bytes += u64::from(len);
        probe.packets += 1;
        let begun = now.checked_sub(PROBE_BURST).unwrap_or(now);
        probe.next_at = probe.next_at.max(begun) + probe.plan.rate.time_for(u64::from(len));
        if probe.is_complete() {
            self.forget_probe(now);
        }
    }

    /// The cluster of which there is more to send.
    fn probing(&self) -> Option<&Probe> {
        self.probe.as_ref().filter(|probe| !probe.is_complete())
    }

    /// A cluster counts for itself: media behind it need not wait for it to drain.
    fn forget_probe(&mut self, now: Instant) {
        self.drained_at = self.drained_at.min(now + BURST);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test::start;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn audio_leaves_first_then_what_was_lost_then_video() {
        let now = start();
        let mut pacer = Pacer::new(now, Bitrate::kbps(10_000));
        for (class, packet) in [
            (Class::Video, 'v'),
            (Class::Retransmission, 'r'),
            (Class::Audio, 'a'),
            (Class::Video, 'w'),
        ] {
            pacer.push(now, class, 100, packet).unwrap();
        }
        assert_eq!(packets(&mut pacer, now), ['a', 'r', 'v', 'w']);
        assert_eq!((pacer.waiting(), pacer.next_at(now)), (0, None));
    }

    #[test]
    fn a_burst_leaves_at_once_and_the_rest_at_the_pace_in_bursts_again() {
        let mut now = start();
        // Paced at 1.5 Mbit/s: 20 ms are 3750 bytes.
        let mut pacer = Pacer::new(now, Bitrate::kbps(1200));
        for n in 0..20 {
            pacer.push(now, Class::Video, 1250, n).unwrap();
        }
        assert_eq!(packets(&mut pacer, now), [0, 1, 2, 3]);
        let mut left = 4;
        while let Some(at) = pacer.next_at(now) {
            assert!(at - now >= 20 * MS, "{:?}", at - now);
            now = at;
            let burst = packets(&mut pacer, now).len();
            assert!(burst == 4, "{burst}");
            left += burst;
        }
        assert_eq!(left, 20);
    }

    #[test]
    fn audio_never_waits() {
        let now = start();
        let mut pacer = Pacer::new(now, Bitrate::kbps(30));
        for _ in 0..50 {
            pacer.push(now, Class::Audio, 200, ()).unwrap();
        }
        assert_eq!(packets(&mut pacer, now).len(), 50);
    }

    #[test]
    fn too_much_is_given_back_and_what_was_left_is_forgotten() {
        let now = start();
        let mut pacer = Pacer::new(now, Bitrate::kbps(1000));
        let mut fill = |class| (0..).find(|&n| pacer.push(now, class, 1000, n).is_err());
        assert_eq!(fill(Class::Retransmission), Some(38), "300 ms");
        assert_eq!(fill(Class::Video), Some(525 - 38), "512 kB of all");
        assert_eq!(fill(Class::Audio), Some(1024));
        pacer.discard(|n| n % 2 == 0);
        assert_eq!(pacer.waiting(), (19 + 243 + 512) * 1000);
        assert_eq!(pacer.bytes_resent, 19 * 1000);
        assert_eq!(pacer.delay(now + MS), MS);
    }

    #[test]
    fn a_long_queue_leaves_faster_but_within_the_limit() {
        let mut now = start();
        let mut pacer = Pacer::new(now, Bitrate::kbps(400));
        while pacer.push(now, Class::Video, 1200, ()).is_ok() {}
        let mut sent = 0;
        for _ in 0..20 {
            pacer.set_estimate(Bitrate::kbps(400), false);
            now += 25 * MS;
            sent += packets(&mut pacer, now).len() * 1200;
        }
        // Half a second at 1.25 to 2.5 times the estimate.
        assert!((32_000..66_500).contains(&sent), "{sent}");
    }

    #[test]
    fn a_picture_leaves_whole_where_all_that_is_wanted_fits() {
        let now = start();
        // 1.2 Mbit/s in 25 pictures a second.
        let mut pacer = Pacer::new(now, Bitrate::kbps(1300));
        pacer.set_estimate(Bitrate::kbps(1300), true);
        for n in 0..5 {
            pacer.push(now, Class::Video, 1260, n).unwrap();
        }
        assert_eq!(packets(&mut pacer, now), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_probe_is_sent_at_its_rate_with_media_first_and_padding_then() {
        let mut now = start();
        let mut pacer = Pacer::new(now, Bitrate::kbps(300));
        let plan = Plan {
            id: 3,
            rate: Bitrate::kbps(1600),
            bytes: 5000,
            packets: 5,
            padding_len: 1000,
        };
        pacer.push(now, Class::Video, 1000, 'v').unwrap();
        pacer.begin_probe(now, plan);
        let mut sent = Vec::new();
        let begun = now;
        while let Some(at) = pacer.next_at(now) {
            now = at;
            sent.extend(std::iter::from_fn(|| pacer.pop(now)));
        }
        assert_eq!(sent.len(), 5);
        assert_eq!(sent[0], (Item::Packet('v'), 1000, 3));
        assert!(
            sent[1..]
                .iter()
                .all(|item| *item == (Item::Padding, 1000, 3))
        );
        assert_eq!(now - begun, 20 * MS);
        assert!(!pacer.is_probing());
    }

    #[test]
    fn a_probe_whose_packets_come_out_shorter_has_more_of_them_at_its_rate() {
        let mut now = start();
        let mut pacer: Pacer<()> = Pacer::new(now, Bitrate::kbps(300));
        let plan = Plan {
            id: 3,
            rate: Bitrate::kbps(1600),
            bytes: 5000,
            packets: 5,
            padding_len: 1000,
        };
        pacer.begin_probe(now, plan);
        let (begun, mut count) = (now, 0);
        while let Some(at) = pacer.next_at(now) {
            now = at;
            while let Some((_, asked, id)) = pacer.pop(now) {
                pacer.amend_probe(id, asked, 500);
                count += 1;
            }
        }
        assert_eq!(count, 10);
        assert_eq!(now - begun, 25 * MS - 5 * MS / 2);
        assert!(!pacer.is_probing());
    }

    #[test]
    fn a_picture_that_may_leave_does_not_wait_for_a_probe() {
        let mut now = start();
        let mut pacer = Pacer::new(now, Bitrate::kbps(1600));
        let plan = Plan {
            id: 3,
            rate: Bitrate::kbps(1700),
            bytes: 8500,
            packets: 5,
            padding_len: 1000,
        };
        pacer.begin_probe(now, plan);
        for n in 0..5 {
            pacer.push(now, Class::Video, 1200, n).unwrap();
        }
        assert_eq!(packets(&mut pacer, now), [0, 1, 2, 3, 4]);
        // The rest of the cluster is as long as it would have been.
        let begun = now;
        while let Some(at) = pacer.next_at(now) {
            now = at;
            while pacer.pop(now).is_some() {}
        }
        let long = Bitrate::kbps(1700).time_for(8000);
        assert!(now - begun >= long - MS, "{:?}", now - begun);
        assert!(!pacer.is_probing());
    }

    proptest! {
        #[test]
        fn no_more_leaves_than_the_pace_and_a_burst_and_all_leaves_in_the_end(
            pushes in prop::collection::vec((0_u64..60, 100_u16..1400), 1..200),
            kbps in 100_u64..5000,
        ) {
            let begun = start();
            let mut now = begun;
            let estimate = Bitrate::kbps(kbps);
            let mut pacer = Pacer::new(now, estimate);
            let (mut sent, mut count, mut pushed) = (0, 0, 0);
            for &(millis, len) in &pushes {
                now += MS * u32::try_from(millis).unwrap();
                pushed += u32::from(pacer.push(now, Class::Video, len, ()).is_ok());
                while let Some((_, len, _)) = pacer.pop(now) {
                    sent += u64::from(len);
                    count += 1;
                }
                let allowed = estimate.scaled(PACE).bytes_in(now - begun + BURST) + 1400 + 64;
                prop_assert!(sent <= allowed, "{} of {}", sent, allowed);
            }
            while let Some(at) = pacer.next_at(now) {
                now = at;
                while pacer.pop(now).is_some() {
                    count += 1;
                }
            }
            prop_assert_eq!(count, pushed);
            prop_assert_eq!(pacer.waiting(), 0);
        }
    }

    fn packets<P: Copy>(pacer: &mut Pacer<P>, now: Instant) -> Vec<P> {
        std::iter::from_fn(|| pacer.pop(now))
            .filter_map(|(item, ..)| match item {
                Item::Packet(packet) => Some(packet),
                Item::Padding => None,
            })
            .collect()
    }
}
