//! One incoming RTP stream: its numbers unwrapped, what of it arrived, and the figures of its receiver reports
//! (RFC 3550 A.1, A.3, A.8).
//!
//! A packet is new once: what comes twice (a resend that crossed with the original, a replay inside the window) is told apart
//! here, so nothing behind ever sees one number twice.

use std::time::{Duration, Instant};

use sfu_rtp::rtcp::{NtpTime, ReportBlock};

use crate::quality::Uplink;

/// How many sequence numbers back a late packet is still taken, and how far a number may fall back before it counts as a jump.
pub const LATE_MAX: u64 = 1024;

/// How far ahead a sequence number may be before it counts as a jump (RFC 3550 A.1: MAX_DROPOUT).
pub const DROPOUT_MAX: u64 = 3000;

const WINDOW_WORDS: usize = 16;

/// One bit for each number that is taken.
const _: () = assert!(LATE_MAX == 64 * WINDOW_WORDS as u64);

/// What a packet's sequence number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The newest so far; `missing` numbers lie between it and the newest before. `restarted`: the sender began anew, so
    /// nothing before belongs together with it.
    Newest {
        sequence: u64,
        missing: u64,
        restarted: bool,
    },
    /// One that was missing.
    Late { sequence: u64 },
    /// Came before.
    Duplicate,
    /// Too old to tell.
    TooOld,
    /// A number far from all others; the next packet tells whether the sender began anew.
    Jump,
}

/// The state of one incoming stream.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    highest: Option<u64>,
    /// Which of the `LATE_MAX` numbers up to `highest` came, one bit each at `number % LATE_MAX`.
    window: [u64; WINDOW_WORDS],
    /// The number that would make a jump a new beginning.
    jump_next: Option<u16>,
    /// Whatever comes next is one.
    begins_anew: bool,

    /// The first number of the present beginning.
    base: u64,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    /// Packets expected and lost between the last two reports.
    interval: (u64, u64),
    /// `(arrival, timestamp)` in timestamp units of the packet before.
    transit: Option<u32>,
    /// In timestamp units, times 16 (RFC 3550 A.8).
    jitter: u32,
    /// The middle of the last sender report's NTP time and when it came.
    sender_report: Option<(u32, Instant)>,
}

impl Receiver {
    /// The newest number, unwrapped.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Takes the number of a packet that came over its own SSRC.
    pub(crate) fn receive(&mut self, sequence: u16) -> Arrival {
        let Some(highest) = self.highest else {
            // One cycle ahead, so that a packet from before the first has a number, too.
            return self.begin(u64::from(sequence) + (1 << 16), false);
        };

        if self.begins_anew {
            return self.begin_anew(sequence, highest);
        }

        let distance = i64::from(sequence.wrapping_sub(low(highest)).cast_signed());
        let is_jump = if distance > 0 {
            distance.unsigned_abs() > DROPOUT_MAX
        } else {
            distance.unsigned_abs() >= LATE_MAX
        };
        if is_jump {
            return self.on_jump(sequence, highest);
        }

        let arrival = self.place(highest.wrapping_add_signed(distance));
        if matches!(arrival, Arrival::Newest { .. } | Arrival::Late { .. }) {
            self.jump_next = None;
            self.received += 1;
        }
        arrival
    }

    /// Takes the number of a packet that was resent (RFC 4588): it counts as lost in reports all the same.
    pub(crate) fn recover(&mut self, sequence: u16) -> Arrival {
        let Some(highest) = self.highest.filter(|_| !self.begins_anew) else {
            return Arrival::TooOld;
        };
        let distance = i64::from(sequence.wrapping_sub(low(highest)).cast_signed());

        // Nobody resends what he has not sent, but a resend may come before the packets behind it.
        if distance.unsigned_abs() >= LATE_MAX {
            return Arrival::TooOld;
        }
        self.place(highest.wrapping_add_signed(distance))
    }

    /// Another SSRC takes over: its first packet is a new beginning.
    pub(crate) fn expect_new_beginning(&mut self) {
        self.begins_anew = self.highest.is_some();
        self.sender_report = None;
    }

    /// Counts when a packet of `timestamp` arrived (RFC 3550 A.8). Resends say nothing about the network's jitter.
    pub(crate) fn measure_jitter(&mut self, timestamp: u32, arrival: u32) {
        let transit = arrival.wrapping_sub(timestamp);

        if let Some(before) = self.transit.replace(transit) {
            let difference = transit.wrapping_sub(before).cast_signed().unsigned_abs();
            // A jump of timestamps is not jitter, and a sum must not overflow.
            if difference < 1 << 24 {
                self.jitter = self.jitter + difference - ((self.jitter + 8) >> 4);
            }
        }
    }

    /// Takes a sender report, whose time the next report gives back.
    pub(crate) fn handle_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.sender_report = Some((ntp_middle(ntp), now));
    }

    /// The report block about this stream since the last one (RFC 3550 A.3), once anything has come.
    pub(crate) fn report(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        let highest = self.highest?;
        let expected = highest - self.base + 1;
        let lost = i64::try_from(expected).ok()? - i64::try_from(self.received).ok()?;

        let expected_now = expected - self.expected_prior;
        let received_now = self.received - self.received_prior;
        self.expected_prior = expected;
        self.received_prior = self.received;

        let lost_now = expected_now.saturating_sub(received_now);
        self.interval = (expected_now, lost_now);
        let fraction_lost = (lost_now << 8)
            .checked_div(expected_now)
            .map_or(0, |fraction| u8::try_from(fraction).unwrap_or(u8::MAX));
        let (last_sr, delay_since_last_sr) = self.sender_report.map_or((0, 0), |(ntp, at)| {
            (ntp, ntp_short(now.saturating_duration_since(at)))
        });

        Some(ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost: i32::try_from(lost.clamp(-(1 << 23), (1 << 23) - 1)).unwrap_or(0),
            highest_sequence: (highest & 0xffff_ffff) as u32,
            jitter: self.jitter >> 4,
            last_sr,
            delay_since_last_sr,
        })
    }

    /// What the last report was about; the jitter counts where `clock_rate` is that of sound.
    pub(crate) fn uplink(&self, clock_rate: Option<u32>) -> Uplink {
        let (expected, lost) = self.interval;
        let jitter = clock_rate.filter(|rate| *rate > 0).map(|rate| {
            Duration::from_micros(u64::from(self.jitter >> 4) * 1_000_000 / u64::from(rate))
        });
        Uplink {
            expected,
            lost,
            jitter: jitter.unwrap_or_default(),
        }
    }

    /// Unwrapped numbers only ever grow.
    fn begin_anew(&mut self, sequence: u16, highest: u64) -> Arrival {
        self.begin((((highest >> 16) + 2) << 16) | u64::from(sequence), true)
    }

    fn begin(&mut self, sequence: u64, restarted: bool) -> Arrival {
        self.begins_anew = false;
        self.highest = Some(sequence);
        self.window = [0; WINDOW_WORDS];
        self.set(sequence);
        self.jump_next = None;
        self.base = sequence;
        self.received = 1;
        (self.expected_prior, self.received_prior) = (0, 0);
        self.transit = None;

        Arrival::Newest {
            sequence,
            missing: 0,
            restarted,
        }
    }

    fn on_jump(&mut self, sequence: u16, highest: u64) -> Arrival {
        // Two in a row: the sender began anew (RFC 3550 A.1).
        if self.jump_next == Some(sequence) {
            return self.begin_anew(sequence, highest);
        }

        self.jump_next = Some(sequence.wrapping_add(1));
        Arrival::Jump
    }

    fn place(&mut self, sequence: u64) -> Arrival {
        let highest = self.highest.unwrap_or(sequence);

        if sequence > highest {
            let missing = sequence - highest - 1;
            if sequence - highest >= LATE_MAX {
                self.window = [0; WINDOW_WORDS];
            } else {
                (highest + 1..sequence).for_each(|number| self.clear(number));
            }
            self.set(sequence);
            self.highest = Some(sequence);
            return Arrival::Newest {
                sequence,
                missing,
                restarted: false,
            };
        }

        if highest - sequence >= LATE_MAX {
            Arrival::TooOld
        } else if self.is_set(sequence) {
            Arrival::Duplicate
        } else {
            // A packet from before the first one is expected from now on, too.
            self.base = self.base.min(sequence);
            self.set(sequence);
            Arrival::Late { sequence }
        }
    }

    fn is_set(&self, sequence: u64) -> bool {
        let (word, bit) = place_of(sequence);
        self.window[word] & bit != 0
    }

    fn set(&mut self, sequence: u64) {
        let (word, bit) = place_of(sequence);
        self.window[word] |= bit;
    }

    fn clear(&mut self, sequence: u64) {
        let (word, bit) = place_of(sequence);
        self.window[word] &= !bit;
    }
}

/// The low 16 bits: the number on the wire.
#[inline]
pub(crate) const fn low(sequence: u64) -> u16 {
    (sequence & 0xffff) as u16
}

/// The middle 32 bits of an NTP time, as reports give them back (RFC 3550 §6.4.1: LSR).
pub(crate) const fn ntp_middle(ntp: NtpTime) -> u32 {
    ((ntp.0 >> 16) & 0xffff_ffff) as u32
}

/// A duration in 1/65536 s (RFC 3550 §6.4.1: DLSR).
pub(crate) fn ntp_short(duration: Duration) -> u32 {
    u32::try_from((duration.as_micros() << 16) / 1_000_000).unwrap_or(u32::MAX)
}

const fn place_of(sequence: u64) -> (usize, u64) {
    let bit = (sequence % LATE_MAX) as usize;

    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(arrival: Arrival) -> u64 {
        match arrival {
            Arrival::Newest { sequence, .. } => sequence,
            other => panic!("not the newest: {other:?}"),
        }
    }

    #[test]
    fn numbers_go_on_over_the_wrap_and_every_packet_is_new_once() {
        let mut receiver = Receiver::default();
        let first = newest(receiver.receive(65534));

        assert_eq!(newest(receiver.receive(65535)), first + 1);
        assert_eq!(
            receiver.receive(2),
            Arrival::Newest {
                sequence: first + 4,
                missing: 2,
                restarted: false
            }
        );
        assert_eq!(
            receiver.receive(0),
            Arrival::Late {
                sequence: first + 2
            }
        );
        assert_eq!(receiver.receive(0), Arrival::Duplicate);
        assert_eq!(
            receiver.recover(1),
            Arrival::Late {
                sequence: first + 3
            }
        );
        assert_eq!(receiver.receive(1), Arrival::Duplicate);
        assert_eq!(
            receiver.receive(65533),
            Arrival::Late {
                sequence: first - 1
            }
        );
    }

    #[test]
    fn one_wild_number_is_ignored_and_two_in_a_row_are_a_new_beginning() {
        let mut receiver = Receiver::default();
        let first = newest(receiver.receive(100));

        assert_eq!(receiver.receive(30_000), Arrival::Jump);
        assert_eq!(newest(receiver.receive(101)), first + 1);
        assert_eq!(receiver.receive(30_001), Arrival::Jump);
        let Arrival::Newest {
            sequence,
            missing: 0,
            restarted: true,
        } = receiver.receive(30_002)
        else {
            panic!("a new beginning");
        };
        assert!(sequence > first + 1 && low(sequence) == 30_002);
    }

    #[test]
    fn a_report_says_what_was_lost_since_the_last_one() {
        let mut receiver = Receiver::default();
        let now = crate::test::start();
        assert!(receiver.report(now, 7).is_none(), "nothing came yet");

        for sequence in [0, 1, 2, 3, 5, 6, 7, 9] {
            receiver.receive(sequence);
        }
        receiver.recover(8);
        receiver.handle_sender_report(now, NtpTime(0x0123_4567_89ab_cdef));

        let report = receiver
            .report(now + Duration::from_millis(1500), 7)
            .unwrap();
        assert_eq!(
            (report.ssrc, report.cumulative_lost),
            (7, 2),
            "a resend was lost once"
        );
        assert_eq!(report.fraction_lost, 51, "2 of 10");
        assert_eq!(report.highest_sequence & 0xffff, 9);
        assert_eq!(
            (report.last_sr, report.delay_since_last_sr),
            (0x4567_89ab, 3 << 15)
        );

        receiver.receive(10);
        let report = receiver.report(now, 7).unwrap();
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, 2));
    }

    #[test]
    fn jitter_is_that_of_the_standard() {
        let mut receiver = Receiver::default();
        // Evenly sent, every second packet 160 units late: |D| is 160 every time.
        for n in 0..200_u16 {
            let timestamp = u32::from(n) * 960;
            receiver.receive(n);
            receiver.measure_jitter(timestamp, timestamp + u32::from(n % 2) * 160);
        }

        let jitter = receiver.report(crate::test::start(), 1).unwrap().jitter;
        assert!((158..=161).contains(&jitter), "{jitter}");
        let uplink = receiver.uplink(Some(48_000));
        assert_eq!((uplink.expected, uplink.lost), (200, 0));
        assert_eq!(uplink.jitter.as_millis(), 3);
        assert_eq!(receiver.uplink(None).jitter, Duration::ZERO);
    }
}
