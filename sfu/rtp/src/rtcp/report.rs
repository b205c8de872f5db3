//! Reports, names and ends: SR, RR, SDES, BYE (RFC 3550 §6.4 to §6.6) and XR (RFC 3611).

use std::time::Duration;

use crate::DecodeError;
use crate::bytes::{low_u32, u16_at, u32_at, u64_at};
use crate::rtcp::word;

/// The length of a report block, in bytes (RFC 3550 §6.4.1).
pub(super) const REPORT_BLOCK_LEN: usize = 24;

/// The SDES item that holds a CNAME (RFC 3550 §6.5.1).
pub(super) const ITEM_CNAME: u8 = 1;

/// The XR block that holds a receiver's reference time (RFC 3611 §4.4).
pub(super) const BLOCK_RRTR: u8 = 4;

/// The XR block that holds delays since those (RFC 3611 §4.5).
pub(super) const BLOCK_DLRR: u8 = 5;

/// From 1900, where NTP begins, to 1970, in seconds.
const NTP_OF_UNIX_EPOCH: u64 = 2_208_988_800;

/// A time as NTP has it: seconds since 1900 as 32.32 fixed point (RFC 3550 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// The time `since_epoch` after the beginning of 1970; wraps in 2036 as NTP does.
    #[must_use]
    pub fn from_unix(since_epoch: Duration) -> NtpTime {
        let seconds = since_epoch.as_secs().wrapping_add(NTP_OF_UNIX_EPOCH);
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 32) / 1_000_000_000;
        NtpTime(seconds << 32 | fraction)
    }

    /// The middle 32 bits, as reports refer to it: seconds as 16.16 fixed point.
    #[must_use]
    pub fn compact(self) -> u32 {
        low_u32(self.0 >> 16)
    }
}

/// What a sender says of itself (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// The time of the report.
    pub ntp: NtpTime,
    /// The same time in the clock of the RTP timestamps.
    pub rtp_timestamp: u32,
    /// How many packets it has sent.
    pub packets: u32,
    /// How many bytes of payload it has sent.
    pub octets: u32,
}

/// How one source is received (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// The share of packets lost since the report before, in units of 1/256.
    pub fraction_lost: u8,
    /// How many packets were lost in all, 24 bits with a sign: duplicates count as found. A writer keeps to the bounds.
    pub cumulative_lost: i32,
    /// The highest sequence number received, below the count of its cycles.
    pub highest_sequence: u32,
    /// The jitter, in units of the timestamp.
    pub jitter: u32,
    /// [`NtpTime::compact`] of the last sender report, zero if none came.
    pub last_sr: u32,
    /// How long ago that came, in units of 1/65,536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn read(block: &[u8; REPORT_BLOCK_LEN]) -> ReportBlock {
        let at = |at| u32_at(block, at).unwrap_or_default(); // All are inside of the array.
        ReportBlock {
            ssrc: at(0),
            fraction_lost: block[4],
            cumulative_lost: (at(4) << 8).cast_signed() >> 8,
            highest_sequence: at(8),
            jitter: at(12),
            last_sr: at(16),
            delay_since_last_sr: at(20),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; REPORT_BLOCK_LEN] {
        let lost = self.cumulative_lost.clamp(-0x0080_0000, 0x007F_FFFF) & 0x00FF_FFFF;
        let words = [
            self.ssrc,
            u32::from(self.fraction_lost) << 24 | lost.cast_unsigned(),
            self.highest_sequence,
            self.jitter,
            self.last_sr,
            self.delay_since_last_sr,
        ];
        let mut block = [0; REPORT_BLOCK_LEN];
        for (bytes, word) in block.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        block
    }
}

/// The blocks of a report; `iter` gives them in their order.
#[derive(Debug, Clone, Copy)]
pub struct ReportBlocks<'a>(&'a [[u8; REPORT_BLOCK_LEN]]);

impl<'a> ReportBlocks<'a> {
    /// Reads `count` blocks at `at` of `body`.
    fn parse(count: u8, body: &'a [u8], at: usize) -> Result<ReportBlocks<'a>, DecodeError> {
        let end = at + usize::from(count) * REPORT_BLOCK_LEN;
        let (blocks, _) = body
            .get(at..end)
            .ok_or(DecodeError::Truncated {
                needed: end,
                got: body.len(),
            })?
            .as_chunks();
        Ok(ReportBlocks(blocks))
    }

    /// The blocks.
    pub fn iter(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        self.0.iter().map(ReportBlock::read)
    }
}

/// What a sender has sent, and how it receives (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy)]
pub struct SenderReport<'a> {
    /// The sender.
    pub ssrc: u32,
    /// What it says of itself.
    pub info: SenderInfo,
    /// What it receives.
    pub blocks: ReportBlocks<'a>,
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<SenderReport<'a>, DecodeError> {
        Ok(SenderReport {
            ssrc: word(body, 0)?,
            info: SenderInfo {
                ntp: NtpTime(u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?)),
                rtp_timestamp: word(body, 12)?,
                packets: word(body, 16)?,
                octets: word(body, 20)?,
            },
            blocks: ReportBlocks::parse(count, body, 24)?,
        })
    }
}

/// How a receiver receives (RFC 3550 §6.4.2).
#[derive(Debug, Clone, Copy)]
pub struct ReceiverReport<'a> {
    /// The receiver.
    pub ssrc: u32,
    /// What it receives.
    pub blocks: ReportBlocks<'a>,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<ReceiverReport<'a>, DecodeError> {
        Ok(ReceiverReport {
            ssrc: word(body, 0)?,
            blocks: ReportBlocks::parse(count, body, 4)?,
        })
    }
}

/// What sources are called (RFC 3550 §6.5).
#[derive(Debug, Clone, Copy)]
pub struct SourceDescription<'a> {
    body: &'a [u8],
    count: u8,
}

impl<'a> SourceDescription<'a> {
    /// Walks the chunks, so that [`Self::cnames`] meets well-formed ones only.
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<SourceDescription<'a>, DecodeError> {
        let mut at = 0;
        for _ in 0..count {
            word(body, at)?;
            at = chunk_end(body, at).ok_or(DecodeError::Truncated {
                needed: body.len() + 1,
                got: body.len(),
            })?;
        }
        Ok(SourceDescription { body, count })
    }

    /// The CNAME of each source that has one.
    pub fn cnames(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        let body = self.body;
        let mut at = 0;
        (0..self.count).filter_map(move |_| {
            let start = at;
            let ssrc = u32_at(body, start)?;
            at = chunk_end(body, start)?;
            let mut items = body.get(start + 4..at)?;
            while let [kind @ 1..=u8::MAX, len, rest @ ..] = items {
                let (value, rest) = rest.split_at_checked(usize::from(*len))?;
                if *kind == ITEM_CNAME {
                    return Some((ssrc, value));
                }
                items = rest;
            }
            None
        })
    }
}

/// Where the chunk at `start` ends: behind its items, a zero, and zeros up to the next word.
fn chunk_end(body: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 4;
    while *body.get(at)? != 0 {
        at += 2 + usize::from(*body.get(at + 1)?);
    }
    let end = start + (at + 1 - start).next_multiple_of(4);
    (end <= body.len()).then_some(end)
}

/// Sources that end (RFC 3550 §6.6). The reason is not read.
#[derive(Debug, Clone, Copy)]
pub struct Goodbye<'a> {
    ssrcs: &'a [[u8; 4]],
}

impl<'a> Goodbye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Goodbye<'a>, DecodeError> {
        let end = 4 * usize::from(count);
        let (ssrcs, _) = body
            .get(..end)
            .ok_or(DecodeError::Truncated {
                needed: end,
                got: body.len(),
            })?
            .as_chunks();
        Ok(Goodbye { ssrcs })
    }

    /// The sources.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.ssrcs.iter().map(|ssrc| u32::from_be_bytes(*ssrc))
    }
}

/// Times for the round trips of who only receives (RFC 3611 §2). Other blocks are not read.
#[derive(Debug, Clone, Copy)]
pub struct ExtendedReport<'a> {
    /// Who reports.
    pub ssrc: u32,
    blocks: &'a [u8],
}

/// One block of an [`ExtendedReport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendedReportBlock {
    /// The receiver's time (RFC 3611 §4.4).
    ReceiverReferenceTime(NtpTime),
    /// How long ago such a time came (RFC 3611 §4.5); one for each entry of a block.
    Dlrr(Dlrr),
}

/// How long ago a receiver's reference time came (RFC 3611 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dlrr {
    /// The receiver.
    pub ssrc: u32,
    /// [`NtpTime::compact`] of its time.
    pub last_rr: u32,
    /// How long ago it came, in units of 1/65,536 s.
    pub delay_since_last_rr: u32,
}

impl<'a> ExtendedReport<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<ExtendedReport<'a>, DecodeError> {
        let ssrc = word(body, 0)?;
        let mut at = 4;
        while at < body.len() {
            word(body, at)?;
            let end = at + block_len(body, at);
            body.get(at..end).ok_or(DecodeError::Truncated {
                needed: end,
                got: body.len(),
            })?;
            at = end;
        }
        Ok(ExtendedReport {
            ssrc,
            blocks: &body[4..],
        })
    }

    /// The blocks that are read, in their order.
    pub fn blocks(&self) -> impl Iterator<Item = ExtendedReportBlock> + use<'a> {
        let blocks = self.blocks;
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = at;
            let kind = *blocks.get(start)?;
            at += block_len(blocks, start);
            Some((kind, blocks.get(start + 4..at)?))
        })
        .flat_map(|(kind, content)| {
            let time = (kind == BLOCK_RRTR).then(|| u64_at(content, 0)).flatten();
            let time = time.map(|time| ExtendedReportBlock::ReceiverReferenceTime(NtpTime(time)));
            let (delays, _) = if kind == BLOCK_DLRR {
                content.as_chunks::<12>()
            } else {
                Default::default()
            };
            let delays = delays.iter().map(|delay| {
                let at = |at| u32_at(delay, at).unwrap_or_default();
                ExtendedReportBlock::Dlrr(Dlrr {
                    ssrc: at(0),
                    last_rr: at(4),
                    delay_since_last_rr: at(8),
                })
            });
            time.into_iter().chain(delays)
        })
    }
}

/// The length of the XR block at `at`, in bytes (RFC 3611 §3).
fn block_len(blocks: &[u8], at: usize) -> usize {
    4 + 4 * usize::from(u16_at(blocks, at + 2).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;
    use crate::rtcp::{Compound, Packet};

    fn only(bytes: &[u8]) -> Packet<'_> {
        let mut packets = Compound::parse(bytes);
        let packet = packets.next().unwrap().unwrap();
        assert!(packets.next().is_none());
        packet
    }

    #[test]
    fn times_are_those_of_ntp() {
        let time = NtpTime::from_unix(Duration::from_millis(1_500));
        assert_eq!(time, NtpTime((2_208_988_801 << 32) | 0x8000_0000));
        assert_eq!(time.compact(), 0x7E81_8000);
        // 2036-02-07 06:28:16 UTC: NTP begins anew.
        assert_eq!(
            NtpTime::from_unix(Duration::from_secs(2_085_978_496)),
            NtpTime(0)
        );
    }

    #[test]
    fn sender_reports_are_read() {
        let bytes = hex(
            "81c8000c 00000001 0000000200000003 00000004 00000005 00000006
             0000000a 40ffffff 0000000b 0000000c 0000000d 0000000e",
        );
        let Packet::SenderReport(report) = only(&bytes) else {
            panic!("an SR");
        };
        assert_eq!(report.ssrc, 1);
        let info = SenderInfo {
            ntp: NtpTime(0x2_0000_0003),
            rtp_timestamp: 4,
            packets: 5,
            octets: 6,
        };
        assert_eq!(report.info, info);
        let block = ReportBlock {
            ssrc: 10,
            fraction_lost: 0x40,
            cumulative_lost: -1,
            highest_sequence: 11,
            jitter: 12,
            last_sr: 13,
            delay_since_last_sr: 14,
        };
        assert_eq!(report.blocks.iter().collect::<Vec<_>>(), [block]);
        assert_eq!(block.to_bytes()[..], bytes[28..]);

        let most = ReportBlock {
            cumulative_lost: i32::MAX,
            ..block
        };
        assert_eq!(
            ReportBlock::read(&most.to_bytes()).cumulative_lost,
            0x007f_ffff
        );
        let least = ReportBlock {
            cumulative_lost: i32::MIN,
            ..block
        };
        assert_eq!(
            ReportBlock::read(&least.to_bytes()).cumulative_lost,
            -0x0080_0000
        );
    }

    #[test]
    fn blocks_that_are_announced_must_be_there() {
        let check = |bytes: &str, needed, got| {
            let error = Compound::parse(&hex(bytes)).next().unwrap().err();
            assert_eq!(
                error,
                Some(DecodeError::Truncated { needed, got }),
                "{bytes}"
            );
        };

        check(
            "80c80005 00000001 0000000200000003 00000004 00000005",
            24,
            20,
        );
        check(
            "81c80006 00000001 0000000200000003 00000004 00000005 00000006",
            48,
            24,
        );
        check(
            "82c90007 00000001 0000000a 40ffffff 0000000b 0000000c 0000000d 0000000e",
            52,
            28,
        );
        check("82cb0001 00000001", 8, 4);
        check("80cf0000", 4, 0);
        check("80cf0002 00000001 04000001", 12, 8);
        check("81ca0000", 4, 0);
        check("81ca0001 00000001", 5, 4);
        check("81ca0002 00000001 01026162", 9, 8);
        check("82ca0003 00000001 01026162 00000000", 16, 12);
    }

    #[test]
    fn names_are_read() {
        let bytes = hex(
            "83ca0009 00000001 01036162 63000000  00000002 00000000  00000003 02017a01 02646500 00000000",
        );
        let Packet::SourceDescription(description) = only(&bytes) else {
            panic!("an SDES");
        };
        let names: Vec<_> = description.cnames().collect();
        assert_eq!(names, [(1, &b"abc"[..]), (3, &b"de"[..])]);
    }

    #[test]
    fn extended_reports_are_read() {
        let bytes = hex("80cf000c 00000009  04000002 0000000100000002  07000000
             05000006 00000001 00000002 00000003 00000004 00000005 00000006");
        let Packet::ExtendedReport(report) = only(&bytes) else {
            panic!("an XR");
        };
        let dlrr = |ssrc, last_rr, delay_since_last_rr| {
            ExtendedReportBlock::Dlrr(Dlrr {
                ssrc,
                last_rr,
                delay_since_last_rr,
            })
        };
        assert_eq!(report.ssrc, 9);
        let time = ExtendedReportBlock::ReceiverReferenceTime(NtpTime(0x1_0000_0002));
        assert_eq!(
            report.blocks().collect::<Vec<_>>(),
            [time, dlrr(1, 2, 3), dlrr(4, 5, 6)]
        );
    }
}
