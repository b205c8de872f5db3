//! What a publisher's bandwidth estimation is told: arrival times (transport-wide congestion control,
//! draft-holmer-rmcat-transport-wide-cc-extensions-01), or a ceiling where that is not negotiated (REMB,
//! draft-alvestrand-rmcat-remb-03).

use std::time::{Duration, Instant};

use crate::bitrate::Bitrate;

/// The most arrivals that wait for a report; beyond, a report is due at once and what comes meanwhile is counted, not kept.
pub const ARRIVALS_MAX: usize = 1024;

/// A packet that comes later than so many after it is not reported any more.
pub const LATE_MAX: u64 = 1000;

/// Reports are sent this often at most ...
pub const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// ... and this seldom: feedback that is too rare blinds the sender.
pub const INTERVAL_MAX: Duration = Duration::from_millis(100);

/// Reports take at most this share of what is received.
const SHARE: f64 = 0.05;

/// What a report weighs, with headers of all layers, and each arrival in it.
const REPORT_LEN: u64 = 90;
const ARRIVAL_LEN: u64 = 2;

/// So many arrivals make a report due before its time, so that no sender waits for a long one.
const ARRIVALS_DUE: usize = 256;

/// The arrivals at one transport that wait to be reported.
#[derive(Debug)]
pub struct Arrivals {
    /// What arrivals are counted from.
    start: Instant,
    /// Unwrapped sequence number and microseconds since `start`, ascending.
    waiting: Vec<(u64, i64)>,
    highest: Option<u64>,
    /// The number after the last one reported.
    next: Option<u64>,
    count: u8,
    /// When a report was last begun, and how many bytes came since.
    reported_at: Instant,
    bytes: u64,
    interval: Duration,
    dropped: u64,
}

/// What goes into one report.
#[derive(Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// The feedback packet count, which wraps.
    pub count: u8,
    /// The first number that has a status, unwrapped: the one after the last report, so that losses between the two are told.
    /// At most the first arrival's, and at most [`LATE_MAX`] before it.
    pub base: u64,
    /// Unwrapped sequence numbers, ascending, with the microseconds of their arrival.
    pub arrivals: &'a [(u64, i64)],
}

impl Arrivals {
    /// Nothing has arrived yet; times are counted from `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            waiting: Vec::new(),
            highest: None,
            next: None,
            count: 0,
            reported_at: now,
            bytes: 0,
            interval: INTERVAL_MIN,
            dropped: 0,
        }
    }

    /// An authenticated packet of `len` bytes came with this transport-wide sequence number.
    pub fn handle_packet(&mut self, now: Instant, sequence: u16, len: u16) {
        let sequence = self.unwrap(sequence);
        let highest = self
            .highest
            .map_or(sequence, |highest| highest.max(sequence));
        self.highest = Some(highest);
        if self.waiting.is_empty() && self.bytes == 0 {
            // After silence the first report is as quick as any.
            self.reported_at = now;
        }
        self.bytes += u64::from(len);

        if sequence + LATE_MAX < highest || self.waiting.len() >= ARRIVALS_MAX {
            self.dropped += 1;
            return;
        }
        let passed = now.saturating_duration_since(self.start).as_micros();
        let arrival = (sequence, i64::try_from(passed).unwrap_or(i64::MAX));
        // Nearly always at the end.
        let at = self
            .waiting
            .iter()
            .rposition(|&(other, _)| other < sequence);
        let at = at.map_or(0, |at| at + 1);
        if self
            .waiting
            .get(at)
            .is_none_or(|&(other, _)| other != sequence)
        {
            self.waiting.insert(at, arrival);
        }
    }

    /// The next report, when one is due. The caller writes as much of it as fits, says how much by
    /// [`Arrivals::reported`], and asks again.
    pub fn poll_report(&mut self, now: Instant) -> Option<Report<'_>> {
        let (first, _) = *self.waiting.first()?;
        if self.poll_timeout()? > now {
            return None;
        }
        let base = self.next.map_or(first, |next| next.min(first));
        Some(Report {
            count: self.count,
            base: base.max(first.saturating_sub(LATE_MAX)),
            arrivals: &self.waiting,
        })
    }

    /// The first `taken` arrivals of the last [`Report`] are on their way.
    pub fn reported(&mut self, now: Instant, taken: usize) {
        let taken = taken.min(self.waiting.len());
        if let Some((last, _)) = self.waiting.drain(..taken).next_back() {
            self.next = self.next.max(Some(last + 1));
        }
        self.count = self.count.wrapping_add(1);
        if self.waiting.is_empty() {
            self.adapt(now);
        }
    }

    /// When a report is due; `None` while there is nothing to report.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.waiting.len() {
            0 => None,
            1..ARRIVALS_DUE => Some(self.reported_at + self.interval),
            _ => Some(self.reported_at),
        }
    }

    /// How many arrivals were not reported: too late, or too many at once.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Chooses the time to the next report so that reports stay within their share.
    fn adapt(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.reported_at);
        let rate = Bitrate::of(self.bytes, passed.max(INTERVAL_MIN)).scaled(SHARE);
        let packets = self.bytes / 1000;
        self.interval = rate
            .time_for(REPORT_LEN + packets * ARRIVAL_LEN)
            .clamp(INTERVAL_MIN, INTERVAL_MAX);
        self.reported_at = now;
        self.bytes = 0;
    }

    /// The number nearest to the highest one that ends in these 16 bits.
    fn unwrap(&self, sequence: u16) -> u64 {
        // Begins a cycle up, so that what came before the first packet has a number, too.
        let highest = self.highest.unwrap_or(u64::from(sequence) + (1 << 16));
        let [.., high, low] = highest.to_be_bytes();
        let ahead = sequence.wrapping_sub(u16::from_be_bytes([high, low]));
        if ahead < 1 << 15 {
            highest + u64::from(ahead)
        } else {
            highest.saturating_sub(u64::from(ahead.wrapping_neg()))
        }
    }
}

/// How often a ceiling is repeated: feedback is not acknowledged.
const REMB_INTERVAL: Duration = Duration::from_millis(1000);

/// A change by less than so many percent waits for the next repetition.
const REMB_CHANGE_PERCENT: u64 = 3;

/// The ceiling that a publisher without transport-wide feedback is told. It finds its own way below it by the loss that
/// receiver reports tell.
#[derive(Debug, Clone)]
pub struct Remb {
    ceiling: Bitrate,
    told: Option<(Instant, Bitrate)>,
}

impl Remb {
    /// Says `ceiling` until told otherwise.
    pub fn new(ceiling: Bitrate) -> Self {
        Self {
            ceiling,
            told: None,
        }
    }

    /// Sets what may be sent at most.
    pub fn set(&mut self, ceiling: Bitrate) {
        self.ceiling = ceiling;
    }

    /// The bitrate to write into a REMB packet now, if one is due.
    pub fn poll(&mut self, now: Instant) -> Option<Bitrate> {
        if self.poll_timeout(now) > now {
            return None;
        }
        self.told = Some((now, self.ceiling));
        Some(self.ceiling)
    }

    /// When [`Remb::poll`] has something; `now`: at once.
    pub fn poll_timeout(&self, now: Instant) -> Instant {
        let Some((at, told)) = self.told else {
            return now;
        };
        let change = u128::from(self.ceiling.as_bps().abs_diff(told.as_bps()));
        if change * 100 > u128::from(told.as_bps()) * u128::from(REMB_CHANGE_PERCENT) {
            now
        } else {
            at + REMB_INTERVAL
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test::start;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn arrivals_are_reported_in_order_once_the_interval_is_over() {
        let now = start();
        let mut arrivals = Arrivals::new(now);
        assert_eq!(arrivals.poll_timeout(), None);
        arrivals.handle_packet(now + MS, 65_534, 1200);
        arrivals.handle_packet(now + 2 * MS, 0, 1200);
        arrivals.handle_packet(now + 3 * MS, 65_535, 1200);
        arrivals.handle_packet(now + 4 * MS, 65_535, 1200);
        assert_eq!(arrivals.poll_report(now + 50 * MS), None);

        let report = arrivals.poll_report(now + 51 * MS).unwrap();
        assert_eq!(report.count, 0);
        let base = report.arrivals[0].0;
        let told: Vec<_> = report
            .arrivals
            .iter()
            .map(|&(s, at)| (s - base, at))
            .collect();
        assert_eq!(told, [(0, 1000), (1, 3000), (2, 2000)]);
        assert_eq!(base % (1 << 16), 65_534);

        arrivals.reported(now + 51 * MS, 2);
        let rest = arrivals.poll_report(now + 51 * MS).unwrap();
        assert_eq!((rest.count, rest.arrivals.len()), (1, 1));
        assert_eq!(rest.base, rest.arrivals[0].0);
        arrivals.reported(now + 51 * MS, 1);
        assert_eq!(arrivals.poll_timeout(), None);
    }

    #[test]
    fn a_report_begins_where_the_last_one_ended_so_that_no_loss_is_untold() {
        let now = start();
        let mut arrivals = Arrivals::new(now);
        let mut bases = Vec::new();
        // 11 to 13 are lost, 12 comes late, and then the numbers jump.
        for (n, sequence) in [10, 14, 12, 5000].into_iter().enumerate() {
            let at = now + MS * 200 * u32::try_from(n).unwrap();
            arrivals.handle_packet(at, sequence, 1000);
            let report = arrivals.poll_report(at + 150 * MS).unwrap();
            bases.push(report.base - (1 << 16));
            arrivals.reported(at + 150 * MS, 1);
        }
        assert_eq!(bases, [10, 11, 12, 4000]);
    }

    #[test]
    fn reports_are_seldom_for_a_voice_and_quick_for_a_picture() {
        assert_eq!(interval_at(20 * MS, 100), INTERVAL_MAX);
        assert_eq!(interval_at(2 * MS, 1200), INTERVAL_MIN);
    }

    #[test]
    fn a_flood_is_reported_early_and_held_within_limits() {
        let now = start();
        let mut arrivals = Arrivals::new(now);
        for sequence in 0..3000 {
            arrivals.handle_packet(now, sequence, 1200);
        }
        let report = arrivals.poll_report(now).unwrap();
        assert_eq!(report.arrivals.len(), ARRIVALS_MAX);
        assert_eq!(arrivals.dropped(), 3000 - ARRIVALS_MAX as u64);
    }

    #[test]
    fn a_ceiling_is_repeated_and_a_change_is_told_at_once() {
        let now = start();
        let mut remb = Remb::new(Bitrate::kbps(1000));
        assert_eq!(remb.poll(now), Some(Bitrate::kbps(1000)));
        assert_eq!(remb.poll(now + 999 * MS), None);
        remb.set(Bitrate::kbps(1010));
        assert_eq!(remb.poll(now + 999 * MS), None);
        assert_eq!(remb.poll(now + 1000 * MS), Some(Bitrate::kbps(1010)));
        remb.set(Bitrate::kbps(500));
        assert_eq!(remb.poll(now + 1001 * MS), Some(Bitrate::kbps(500)));
    }

    proptest! {
        #[test]
        fn every_report_is_ascending_and_every_arrival_is_reported_once_or_counted(
            sequences in prop::collection::vec((any::<u16>(), 0_u64..30), 1..600),
        ) {
            let mut now = start();
            let mut arrivals = Arrivals::new(now);
            let mut told = 0;
            for &(sequence, millis) in &sequences {
                now += MS * u32::try_from(millis).unwrap();
                arrivals.handle_packet(now, sequence, 1000);
                while let Some(report) = arrivals.poll_report(now) {
                    prop_assert!(report.arrivals.windows(2).all(|pair| pair[0].0 < pair[1].0));
                    prop_assert!(report.arrivals.iter().all(|&(_, at)| at >= 0));
                    let gap = report.arrivals[0].0.checked_sub(report.base);
                    prop_assert!(gap.is_some_and(|gap| gap <= LATE_MAX));
                    let taken = report.arrivals.len();
                    told += taken;
                    arrivals.reported(now, taken);
                }
            }
            prop_assert!(told <= sequences.len());
        }
    }

    fn interval_at(apart: Duration, len: u16) -> Duration {
        let mut now = start();
        let mut arrivals = Arrivals::new(now);
        for sequence in 0..1000 {
            now += apart;
            arrivals.handle_packet(now, sequence, len);
            if let Some(taken) = arrivals
                .poll_report(now)
                .map(|report| report.arrivals.len())
            {
                arrivals.reported(now, taken);
            }
        }
        arrivals.interval
    }
}
