//! RTCP packets: read in place, one after the other, and written into a caller's buffer (RFC 3550 §6, RFC 4585, RFC 5104,
//! RFC 3611, draft-holmer-rmcat-transport-wide-cc-extensions-01, draft-alvestrand-rmcat-remb-03).

mod builder;
mod feedback;
mod report;
mod transport_feedback;

pub use builder::Builder;
pub use feedback::{FullIntraRequest, Nack, PictureLossIndication, Remb};
pub use report::{
    Dlrr, ExtendedReport, ExtendedReportBlock, Goodbye, NtpTime, ReceiverReport, ReportBlock,
    ReportBlocks, SenderInfo, SenderReport, SourceDescription,
};
pub use transport_feedback::{PacketStatus, TransportFeedback};

use crate::DecodeError;
use crate::bytes::u32_at;

/// The length of what every RTCP packet begins with, in bytes (RFC 3550 §6.4.1).
pub const HEADER_LEN: usize = 4;

/// How many blocks, SSRCs or chunks the five bits of a header count (RFC 3550 §6.4.1).
pub const COUNT_MAX: usize = 31;

/// The sender report (RFC 3550 §12.1); the other types follow.
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// Feedback about the transport (RFC 4585 §6.1).
const TRANSPORT_FEEDBACK: u8 = 205;
/// Feedback about a payload (RFC 4585 §6.1).
const PAYLOAD_FEEDBACK: u8 = 206;
/// The extended report (RFC 3611 §2).
const EXTENDED_REPORT: u8 = 207;

/// Generic NACK (RFC 4585 §6.2.1).
const FORMAT_NACK: u8 = 1;
/// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
const FORMAT_TRANSPORT_WIDE: u8 = 15;
/// PLI (RFC 4585 §6.3.1).
const FORMAT_PLI: u8 = 1;
/// FIR (RFC 5104 §4.3.1).
const FORMAT_FIR: u8 = 4;
/// Application layer feedback, REMB among it (RFC 4585 §6.4).
const FORMAT_APPLICATION: u8 = 15;

/// One packet of a compound.
#[derive(Debug, Clone, Copy)]
pub enum Packet<'a> {
    /// What a sender has sent, and how it receives.
    SenderReport(SenderReport<'a>),
    /// How a receiver receives.
    ReceiverReport(ReceiverReport<'a>),
    /// What sources are called.
    SourceDescription(SourceDescription<'a>),
    /// Sources that end.
    Goodbye(Goodbye<'a>),
    /// Packets that are missed.
    Nack(Nack<'a>),
    /// When packets of a transport arrived.
    TransportFeedback(TransportFeedback<'a>),
    /// A decoder that needs a key frame since it lost something.
    PictureLossIndication(PictureLossIndication),
    /// Decoders that need a key frame.
    FullIntraRequest(FullIntraRequest<'a>),
    /// How much a receiver believes it can receive.
    Remb(Remb<'a>),
    /// Times for round trips of who only receives.
    ExtendedReport(ExtendedReport<'a>),
    /// Well-formed, and of a kind that is not read: APP, other feedback.
    Other {
        /// The type, 192 to 223 by RFC 5761, not checked.
        payload_type: u8,
        /// The five bits of the header: a format or a count.
        format: u8,
    },
}

/// The packets of a datagram in their order. After the first that is malformed there are no more.
///
/// It need not begin with a report (RFC 5506 §4.1). A datagram of `n` bytes has at most `n / 4` packets.
#[derive(Debug, Clone)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Compound<'a> {
    /// The packets of `bytes`, already decrypted.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Compound<'a> {
        Compound { rest: bytes }
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = split(self.rest).and_then(|(raw, rest)| {
            self.rest = rest;
            read(&raw)
        });
        if packet.is_err() {
            self.rest = &[];
        }
        Some(packet)
    }
}

/// One packet by its header, its content not looked at.
struct Raw<'a> {
    payload_type: u8,
    format: u8,
    /// What follows the header, without padding.
    body: &'a [u8],
}

/// Splits the first packet off `bytes` (RFC 3550 §6.4.1).
fn split(bytes: &[u8]) -> Result<(Raw<'_>, &[u8]), DecodeError> {
    let truncated = |needed| DecodeError::Truncated {
        needed,
        got: bytes.len(),
    };
    let [first, payload_type, a, b] = *bytes
        .first_chunk::<HEADER_LEN>()
        .ok_or_else(|| truncated(HEADER_LEN))?;
    if first >> 6 != 2 {
        return Err(DecodeError::WrongVersion { got: first >> 6 });
    }
    let len = HEADER_LEN + 4 * usize::from(u16::from_be_bytes([a, b]));
    let (packet, rest) = bytes.split_at_checked(len).ok_or_else(|| truncated(len))?;

    let mut body = &packet[HEADER_LEN..];
    if first & 0x20 != 0 {
        let got = *body.last().unwrap_or(&0);
        let space = body.len();
        let end = space.checked_sub(usize::from(got));
        match end {
            Some(end) if got != 0 => body = &body[..end],
            _ => return Err(DecodeError::WrongPadding { got, space }),
        }
    }
    let raw = Raw {
        payload_type,
        format: first & 0x1F,
        body,
    };
    Ok((raw, rest))
}

fn read<'a>(raw: &Raw<'a>) -> Result<Packet<'a>, DecodeError> {
    let body = raw.body;
    Ok(match (raw.payload_type, raw.format) {
        (SENDER_REPORT, count) => Packet::SenderReport(SenderReport::parse(count, body)?),
        (RECEIVER_REPORT, count) => Packet::ReceiverReport(ReceiverReport::parse(count, body)?),
        (SOURCE_DESCRIPTION, count) => {
            Packet::SourceDescription(SourceDescription::parse(count, body)?)
        }
        (GOODBYE, count) => Packet::Goodbye(Goodbye::parse(count, body)?),
        (TRANSPORT_FEEDBACK, FORMAT_NACK) => Packet::Nack(Nack::parse(body)?),
        (TRANSPORT_FEEDBACK, FORMAT_TRANSPORT_WIDE) => {
            Packet::TransportFeedback(TransportFeedback::parse(body)?)
        }
        (PAYLOAD_FEEDBACK, FORMAT_PLI) => {
            Packet::PictureLossIndication(PictureLossIndication::parse(body)?)
        }
        (PAYLOAD_FEEDBACK, FORMAT_FIR) => Packet::FullIntraRequest(FullIntraRequest::parse(body)?),
        (PAYLOAD_FEEDBACK, FORMAT_APPLICATION) if Remb::is_remb(body) => {
            Packet::Remb(Remb::parse(body)?)
        }
        (EXTENDED_REPORT, _) => Packet::ExtendedReport(ExtendedReport::parse(body)?),
        (payload_type, format) => Packet::Other {
            payload_type,
            format,
        },
    })
}

/// The number at `at` of a packet's body, or that the body is truncated.
fn word(body: &[u8], at: usize) -> Result<u32, DecodeError> {
    u32_at(body, at).ok_or(DecodeError::Truncated {
        needed: at + 4,
        got: body.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;

    #[test]
    fn compounds_are_walked() {
        let bytes = hex(
            "80c90001 00000001  81cb0001 00000002  81ce0002 00000003 00000004  8acc0002 00000001 41424344",
        );
        let names: Vec<_> = Compound::parse(&bytes)
            .map(|packet| match packet.unwrap() {
                Packet::ReceiverReport(report) => format!("RR {}", report.ssrc),
                Packet::Goodbye(goodbye) => {
                    format!("BYE {:?}", goodbye.ssrcs().collect::<Vec<_>>())
                }
                Packet::PictureLossIndication(pli) => {
                    format!("PLI {} {}", pli.sender_ssrc, pli.media_ssrc)
                }
                other => format!("{other:?}"),
            })
            .collect();
        let other = "Other { payload_type: 204, format: 10 }";
        assert_eq!(names, ["RR 1", "BYE [2]", "PLI 3 4", other]);
    }

    #[test]
    fn nothing_is_read_behind_what_is_malformed() {
        let check = |bytes: &str, expected: &[Option<DecodeError>]| {
            let bytes = hex(bytes);
            let read: Vec<_> = Compound::parse(&bytes).map(Result::err).collect();
            assert_eq!(read, expected, "{bytes:02x?}");
        };
        let truncated = |needed, got| Some(DecodeError::Truncated { needed, got });
        let padding = |got, space| Some(DecodeError::WrongPadding { got, space });

        check("", &[]);
        check("80", &[truncated(4, 1)]);
        check("80c90001 00000001 80c9", &[None, truncated(4, 2)]);
        check(
            "80c90001 00000001 40c90001 00000001",
            &[None, Some(DecodeError::WrongVersion { got: 1 })],
        );
        check("80c90002 00000001", &[truncated(12, 8)]);
        check("80c90000 80c90001 00000001", &[truncated(4, 0)]);
        check("a0c90002 00000001 00000004", &[None]);
        check("a0c90002 00000001 00000000", &[padding(0, 8)]);
        check("a0c90002 00000001 00000009", &[padding(9, 8)]);
        check("a0c90002 00000001 00000005", &[truncated(4, 3)]);
        check("a0c90000", &[padding(0, 0)]);
    }
}
