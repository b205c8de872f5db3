//! The way to one subscriber: what it carries, and what leaves when.
//!
//! ```text
//!  push ──▶ Pacer ── poll_send ──▶ driver ──▶ subscriber
//!             ▲ pace, probes                      │ feedback
//!          Estimator ◀── handle_twcc, _remb, _report
//!             └──▶ estimate ──▶ layers::Budget
//! ```

use std::time::{Duration, Instant};

use crate::bitrate::Bitrate;
use crate::estimate::{Acks, Estimator};
use crate::pacer::{Class, Item, Pacer};

/// What every packet weighs on the wire besides itself: IPv4 and UDP headers and an SRTP tag.
const WIRE_OVERHEAD: u16 = 20 + 8 + 16;

/// How often estimation and pace are brought up to date without feedback.
const TICK: Duration = Duration::from_millis(50);

/// All that is wanted has to fit for so long before bursts become larger: an estimate may be wrong for a while.
const AMPLE_HOLD: Duration = Duration::from_secs(5);

/// How often memory that was needed once is given back.
const SHRINK_INTERVAL: Duration = Duration::from_secs(5);

/// A packet, or padding, that leaves now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure<P> {
    /// Its transport-wide sequence number, for the header extension where that is negotiated.
    pub sequence: u16,
    /// What leaves.
    pub what: What<P>,
}

/// What leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<P> {
    /// A packet that was pushed.
    Packet(P),
    /// Padding of about so many bytes, before SRTP: a packet sent before, again (RTX), or one of padding alone. If it comes out
    /// with another length, [`Downlink::amend`] has to be told.
    Padding(u16),
}

/// The way to one subscriber. `P` names a packet: an index, never the bytes.
#[derive(Debug)]
pub struct Downlink<P> {
    estimator: Estimator,
    pacer: Pacer<P>,
    timeout: Option<Instant>,
    refused: u64,
    /// Since when all that is wanted fits.
    ample_since: Option<Instant>,
    shrink_at: Instant,
}

impl<P: Copy> Downlink<P> {
    /// A way of which nothing is known yet; `acks` is what was negotiated.
    pub fn new(now: Instant, acks: Acks) -> Self {
        let estimator = Estimator::new(now, acks);
        let pacer = Pacer::new(now, estimator.estimate());
        Self {
            estimator,
            pacer,
            timeout: None,
            refused: 0,
            ample_since: None,
            shrink_at: now + SHRINK_INTERVAL,
        }
    }

    /// Sets the most that is ever sent, whatever is measured.
    pub fn set_max(&mut self, max: Bitrate) {
        self.estimator.set_max(max);
    }

    /// Sets what would be sent if it all fitted, audio included ([`crate::layers::cost_wished`]). More than that is never
    /// probed for.
    pub fn set_wanted(&mut self, now: Instant, wanted: Bitrate) {
        self.estimator.set_wanted(now, wanted);
        self.timeout.get_or_insert(now);
    }

    /// Queues a packet of `len` bytes (RTP, before SRTP). When too much waits it is given back: it is lost, and a smaller Layer
    /// should be chosen.
    pub fn push(&mut self, now: Instant, class: Class, len: u16, packet: P) -> Result<(), P> {
        self.timeout.get_or_insert(now + TICK);
        let pushed = self
            .pacer
            .push(now, class, len.saturating_add(WIRE_OVERHEAD), packet);
        self.refused += u64::from(pushed.is_err());
        pushed
    }

    /// Forgets the waiting packets for which `is_left` holds: their Track was unsubscribed, their Layer left.
    pub fn discard(&mut self, is_left: impl FnMut(&P) -> bool) {
        self.pacer.discard(is_left);
    }

    /// What leaves now; to be called until `None`, so that all of a tick can be sent at once.
    pub fn poll_send(&mut self, now: Instant) -> Option<Departure<P>> {
        if !self.pacer.is_probing()
            && let Some(plan) = self.estimator.poll_plan(now)
        {
            self.pacer.begin_probe(now, plan);
        }
        let (item, len, cluster) = self.pacer.pop(now)?;
        let sequence = self.estimator.handle_sent(now, len, cluster);
        let what = match item {
            Item::Packet(packet) => What::Packet(packet),
            Item::Padding => What::Padding(len.saturating_sub(WIRE_OVERHEAD)),
        };
        Some(Departure { sequence, what })
    }

    /// The departure that [`Downlink::poll_send`] returned last came out with `len` bytes; 0: not at all, for the packet is no
    /// longer in the cache or there is nothing to pad with. Its sequence number is used again then.
    pub fn amend(&mut self, now: Instant, departure: &Departure<P>, len: u16) {
        let on_wire = if len == 0 {
            0
        } else {
            len.saturating_add(WIRE_OVERHEAD)
        };
        if let Some((cluster, asked)) = self.estimator.amend(departure.sequence, on_wire) {
            self.pacer.amend_probe(cluster, asked, on_wire);
        }
        if len == 0 && matches!(departure.what, What::Padding(_)) {
            self.pacer.abort_probe(now);
            self.estimator.abort_probe(now);
        }
    }

    /// When [`Downlink::poll_send`] or [`Downlink::handle_timeout`] should be called next; `None` while nothing was ever pushed.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let plan_at = self
            .estimator
            .plan_at(now)
            .filter(|_| !self.pacer.is_probing())
            .map(|at| at.max(now));
        [self.pacer.next_at(now), self.timeout, plan_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Brings estimate and pace up to date, when it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timeout.is_some_and(|at| at <= now) {
            self.timeout = Some(now + TICK);
            self.estimator.handle_timeout(now);
            self.pace(now);
            if self.shrink_at <= now {
                self.shrink_at = now + SHRINK_INTERVAL;
                self.pacer.shrink();
            }
        }
    }

    /// Takes transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01): each packet's number with the
    /// microseconds of its arrival by the subscriber's clock, `None` where it did not arrive.
    pub fn handle_twcc(
        &mut self,
        now: Instant,
        statuses: impl Iterator<Item = (u16, Option<i64>)>,
    ) {
        self.estimator.handle_twcc(now, statuses);
        if self.estimator.take_cut() {
            self.pacer.abort_probe(now);
        }
        self.pace(now);
    }

    /// Takes the receiver's own estimate (draft-alvestrand-rmcat-remb-03) for the sources it names, which are sent `named` now, while
    /// all others are sent `beside` ([`crate::Room::forwarded`]). Ignored unless negotiated.
    pub fn handle_remb(&mut self, now: Instant, remb: Bitrate, named: Bitrate, beside: Bitrate) {
        self.estimator.handle_remb(now, remb, named, beside);
        self.pace(now);
    }

    /// Takes a receiver report (RFC 3550 §6.4.1): the fraction lost in 256ths and the round trip, once known.
    pub fn handle_report(&mut self, now: Instant, lost: u8, round_trip: Option<Duration>) {
        self.estimator.handle_report(now, lost, round_trip);
        self.pace(now);
    }

    fn pace(&mut self, now: Instant) {
        self.ample_since = self
            .estimator
            .is_ample()
            .then(|| self.ample_since.unwrap_or(now));
        let is_ample = self
            .ample_since
            .is_some_and(|since| now.saturating_duration_since(since) >= AMPLE_HOLD);
        self.pacer.set_estimate(self.estimator.estimate(), is_ample);
    }

    /// What gets through to the subscriber, as far as is known.
    pub fn estimate(&self) -> Bitrate {
        self.estimator.estimate()
    }

    /// The smoothed round trip, once measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.estimator.round_trip()
    }

    /// The share of packets lost lately, 0 to 1.
    pub fn loss(&self) -> f64 {
        self.estimator.loss()
    }

    /// How long the packet that waits the longest has waited here.
    pub fn queue_delay(&self, now: Instant) -> Duration {
        self.pacer.delay(now)
    }

    /// What waits here, in bytes on the wire.
    pub fn queued(&self) -> u64 {
        self.pacer.waiting()
    }

    /// What was sent and is neither acknowledged nor known as lost, in bytes on the wire.
    pub fn in_flight(&self) -> u64 {
        self.estimator.in_flight()
    }

    /// Packets given back because too many waited.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Acknowledged packets that were never sent: feedback of a liar.
    pub fn unknown(&self) -> u64 {
        self.estimator.unknown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::RATE_START;
    use crate::test::start;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nobody_is_called_again_at_once_for_nothing() {
        for acks in [Acks::Twcc, Acks::Remb, Acks::Reports] {
            let mut now = start();
            let mut downlink = Downlink::new(now, acks);
            downlink.set_wanted(now, Bitrate::kbps(5000));
            // Nothing is acknowledged: first all is well, then the way is thought broken.
            for _ in 0..10_000 {
                assert!(downlink.push(now, Class::Audio, 100, ()).is_ok());
                downlink.handle_timeout(now);
                while downlink.poll_send(now).is_some() {}
                let at = downlink.poll_timeout(now);
                assert!(at.is_some_and(|at| at > now), "{acks:?}");
                now += MS;
            }
        }
    }

    #[test]
    fn padding_that_can_not_be_made_ends_the_probe_and_uses_no_number() {
        let mut now = start();
        let mut downlink: Downlink<()> = Downlink::new(now, Acks::Twcc);
        downlink.set_wanted(now, Bitrate::kbps(5000));
        let departure = downlink.poll_send(now).unwrap();
        assert!(matches!(departure.what, What::Padding(_)));
        downlink.amend(now, &departure, 0);
        assert_eq!(downlink.poll_send(now), None);
        assert_eq!(downlink.in_flight(), 0);

        now += 2000 * MS;
        assert_eq!(
            downlink.poll_send(now).unwrap().sequence,
            departure.sequence
        );
    }

    #[test]
    fn a_receiver_that_estimates_is_believed_unless_much_is_lost() {
        let now = start();
        let mut downlink: Downlink<()> = Downlink::new(now, Acks::Remb);
        let (kbps, none) = (Bitrate::kbps, Bitrate::ZERO);
        downlink.handle_remb(now, kbps(2000), none, none);
        assert_eq!(downlink.estimate(), Bitrate::kbps(2000));
        downlink.handle_report(now + 1000 * MS, 128, Some(50 * MS));
        assert_eq!(downlink.estimate(), Bitrate::kbps(1500));
        downlink.handle_remb(now + 1100 * MS, kbps(700), kbps(600), none);
        assert_eq!(downlink.estimate(), Bitrate::kbps(700));
        downlink.set_max(Bitrate::kbps(500));
        assert_eq!(downlink.estimate(), Bitrate::kbps(500));
    }

    #[test]
    fn a_receiver_that_is_sent_little_and_says_so_is_not_sent_less() {
        let mut now = start();
        let mut downlink = Downlink::new(now, Acks::Remb);
        let mut run = |downlink: &mut Downlink<()>, lost: u8, round_trip: Duration| {
            for _ in 0..20 {
                now += 100 * MS;
                assert!(downlink.push(now, Class::Audio, 100, ()).is_ok());
                downlink.handle_timeout(now);
                while downlink.poll_send(now).is_some() {}
            }
            downlink.handle_report(now, lost, Some(round_trip));
            downlink.handle_remb(now, Bitrate::kbps(30), Bitrate::kbps(11), Bitrate::ZERO);
            downlink.estimate()
        };
        let before = downlink.estimate();
        assert!(run(&mut downlink, 0, 50 * MS) >= before);
        assert_eq!(
            run(&mut downlink, 40, 50 * MS),
            Bitrate::kbps(30),
            "much is lost"
        );

        let mut downlink = Downlink::new(start(), Acks::Remb);
        assert!(run(&mut downlink, 0, 50 * MS) >= before);
        assert_eq!(
            run(&mut downlink, 0, 5000 * MS),
            Bitrate::kbps(30),
            "it has to wait"
        );
    }

    /// Cameras of 150 and 130 kbit/s with sound of 60; each receiver estimates its own Track, from what arrives.
    #[test]
    fn who_estimates_each_track_by_itself_is_sent_them_all() {
        let mut now = start();
        let mut downlink = Downlink::new(now, Acks::Remb);
        let kbps = Bitrate::kbps;
        let tracks = [kbps(150), kbps(130), kbps(60)];
        let sent: Bitrate = tracks.into_iter().sum();
        downlink.set_wanted(now, sent);
        let mut run = |downlink: &mut Downlink<()>, share: f64| {
            for round in 0..100 {
                now += 20 * MS;
                let len = u16::try_from(sent.bytes_in(20 * MS)).unwrap();
                let pushed = downlink.push(now, Class::Video, len - WIRE_OVERHEAD, ());
                assert!(pushed.is_ok(), "{round}");
                downlink.handle_timeout(now);
                while downlink.poll_send(now).is_some() {}
            }
            downlink.handle_report(now, 0, Some(50 * MS));
            for named in &tracks[..2] {
                downlink.handle_remb(now, named.scaled(share), *named, sent - *named);
            }
            downlink.estimate()
        };
        for share in [0.95, 0.85, 0.9] {
            assert!(run(&mut downlink, share) >= RATE_START, "{share}");
        }
        let estimate = run(&mut downlink, 0.5);
        assert_eq!(
            estimate,
            sent - kbps(150).scaled(0.5),
            "half of the pictures arrives"
        );
        assert!(run(&mut downlink, 1.0) > estimate);
        for _ in 0..10 {
            run(&mut downlink, 1.0);
        }
        assert!(
            run(&mut downlink, 1.0) > sent,
            "what arrives whole is sent more again"
        );
    }
}
