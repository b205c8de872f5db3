//! How the packets of one source arrive, as receiver reports tell it (RFC 3550 §6.4.1, A.3, A.8).

use std::time::{Duration, Instant};

use sfu_rtp::rtcp::{NtpTime, ReportBlock};
use sfu_rtp::sequence::SequenceUnwrapper;

/// How far a sequence number may be from the newest; what is farther is another stream (A.1: MAX_DROPOUT).
const DROPOUT_MAX: u64 = 3_000;

/// The figures of one source.
#[derive(Debug)]
pub(crate) struct Reception {
    numbers: SequenceUnwrapper,
    base: Option<u64>,
    received: u64,
    /// Expected and received when the last report was made.
    before: (u64, u64),
    transit: Option<i64>,
    /// In ticks, times 16.
    jitter: u64,
    sender_report: Option<(u32, Instant)>,
    clock_rate: u32,
}

impl Reception {
    pub(crate) fn new(clock_rate: u32) -> Self {
        Self {
            numbers: SequenceUnwrapper::new(),
            base: None,
            received: 0,
            before: (0, 0),
            transit: None,
            jitter: 0,
            sender_report: None,
            clock_rate: clock_rate.max(1),
        }
    }

    /// A packet came, `since` the Leg began.
    pub(crate) fn note(&mut self, since: Duration, sequence: u16, timestamp: u32) {
        if let Some(highest) = self.numbers.highest()
            && self.numbers.peek(sequence).abs_diff(highest) > DROPOUT_MAX
        {
            *self = Self {
                sender_report: self.sender_report,
                ..Self::new(self.clock_rate)
            };
        }
        let number = self.numbers.unwrap(sequence);
        let base = self.base.get_or_insert(number);
        *base = number.min(*base);
        self.received += 1;

        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let arrival = micros.saturating_mul(i64::from(self.clock_rate)) / 1_000_000;
        let transit = arrival.wrapping_sub(i64::from(timestamp));
        if let Some(before) = self.transit.replace(transit) {
            let difference = transit.abs_diff(before);
            // Timestamps that wrap or jump tell nothing of the network.
            if difference < u64::from(self.clock_rate) * 10 {
                self.jitter = self.jitter + difference - ((self.jitter + 8) >> 4);
            }
        }
    }

    pub(crate) fn handle_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.sender_report = Some((ntp.compact(), now));
    }

    /// How many came, how many did not, and how evenly.
    pub(crate) fn sums(&self) -> (u64, u64, Duration) {
        let lost = self.expected().saturating_sub(self.received);
        let micros = (self.jitter >> 4) * 1_000_000 / u64::from(self.clock_rate);
        (self.received, lost, Duration::from_micros(micros))
    }

    /// The block about `ssrc` since the last one; `None` before anything came.
    pub(crate) fn report(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        let highest = self.numbers.highest()?;
        let expected = self.expected();
        let (expected_before, received_before) = self.before;
        self.before = (expected, self.received);
        let expected_now = expected.saturating_sub(expected_before);
        let received_now = self.received.saturating_sub(received_before);
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (lost_now << 8).checked_div(expected_now).unwrap_or(0);
        let lost = expected.saturating_sub(self.received).min((1 << 23) - 1);
        let (last_sr, delay_since_last_sr) = self.sender_report.map_or((0, 0), |(ntp, at)| {
            let delay = now.saturating_duration_since(at).as_micros();
            let delay = u32::try_from((delay << 16) / 1_000_000);
            (ntp, delay.unwrap_or(u32::MAX))
        });
        Some(ReportBlock {
            ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: i32::try_from(lost).unwrap_or(i32::MAX),
            highest_sequence: low(highest),
            jitter: u32::try_from(self.jitter >> 4).unwrap_or(u32::MAX),
            last_sr,
            delay_since_last_sr,
        })
    }

    fn expected(&self) -> u64 {
        let highest = self.numbers.highest().zip(self.base);
        highest.map_or(0, |(highest, base)| highest.saturating_sub(base) + 1)
    }
}

fn low(number: u64) -> u32 {
    let [.., a, b, c, d] = number.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any time will do to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_report_says_what_was_lost_since_the_last_one() {
        let now = start();
        let mut reception = Reception::new(8_000);
        assert!(reception.report(now, 7).is_none());
        for number in [65_534_u16, 65_535, 0, 1, 3, 4, 5, 7] {
            let at = number.wrapping_sub(65_534);
            let since = Duration::from_millis(20 * u64::from(at));
            reception.note(since, number, u32::from(at) * 160);
        }
        reception.handle_sender_report(now, NtpTime(0x0123_4567_89ab_cdef));
        let report = reception
            .report(now + Duration::from_millis(1_500), 7)
            .unwrap();
        assert_eq!((report.ssrc, report.cumulative_lost), (7, 2));
        assert_eq!(report.fraction_lost, 51, "2 of 10");
        assert_eq!(report.highest_sequence & 0xffff, 7);
        assert_eq!(
            (report.last_sr, report.delay_since_last_sr),
            (0x4567_89ab, 3 << 15)
        );
        assert_eq!(report.jitter, 0, "all came evenly");
        reception.note(Duration::from_millis(240), 8, 10 * 160);
        let report = reception.report(now, 7).unwrap();
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, 2));
        assert_eq!(report.jitter, 20, "320 ticks late, a sixteenth of it");
        assert_eq!(reception.sums(), (9, 2, Duration::from_micros(2_500)));
    }

    #[test]
    fn a_number_far_away_is_another_stream() {
        let mut reception = Reception::new(8_000);
        for number in [10, 11, 40_000, 40_001] {
            reception.note(Duration::ZERO, number, 0);
        }
        let (received, lost, _) = reception.sums();
        assert_eq!((received, lost), (2, 0));
    }
}
