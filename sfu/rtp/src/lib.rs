//! RTP, RTCP and SRTP: views of received bytes, and writers into a caller's buffer (RFC 3550, 3711, 4585, 7714, 8285).
//!
//! Bytes are looked at in place. Every parser here is total (any input gives a value or a [`DecodeError`]), reads each
//! byte a bounded number of times and allocates nothing, except [`dependency_descriptor`], which keeps the structure that
//! comes with a key frame. No clock, no socket, no randomness.
//!
//! ```text
//! datagram ─▶ classify ─▶ srtp::Inbound ─▶ packet::Packet ─▶ extension, payload, dependency_descriptor
//!                                     └──▶ rtcp::Compound
//! packet::HeaderWriter ─▶ payload ─▶ srtp::Outbound ─▶ datagram
//! rtcp::Builder ────────────────────────────┘
//! ```

mod bytes;
pub mod dependency_descriptor;
pub mod extension;
pub mod packet;
pub mod payload;
pub mod rtcp;
pub mod sequence;
pub mod srtp;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before what they announce.
    #[error("truncated: {needed} bytes needed, {got} there")]
    Truncated {
        /// How many bytes would be needed at least.
        needed: usize,
        /// How many there are.
        got: usize,
    },
    /// The version of RTP is not 2 (RFC 3550 §5.1).
    #[error("version {got}, not 2")]
    WrongVersion {
        /// The two leading bits.
        got: u8,
    },
    /// The last byte announces no padding or more than there is (RFC 3550 §5.1).
    #[error("padding of {got} bytes, {space} there")]
    WrongPadding {
        /// The last byte.
        got: u8,
        /// How many bytes follow the header.
        space: usize,
    },
    /// A field has a value it can't have.
    #[error("{field} can't be {got}")]
    WrongValue {
        /// The field, as its document names it.
        field: &'static str,
        /// Its value.
        got: u32,
    },
    /// More of something than we read.
    #[error("more than {max} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many we read.
        max: usize,
    },
    /// A dependency descriptor that refers to a structure that has not come yet.
    #[error("no dependency structure yet")]
    NoStructure,
}

/// A caller's buffer, or what a format can say, ends before what was to be written. Nothing of it counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("buffer too small: {needed} bytes needed, {got} there")]
pub struct BufferTooSmall {
    /// How many bytes would be needed.
    pub needed: usize,
    /// How many there are.
    pub got: usize,
}

/// What the first bytes of a datagram say it is (RFC 7983 §7, RFC 5761 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatagramKind {
    /// STUN: the first byte is 0 to 3.
    Stun,
    /// DTLS: the first byte is 20 to 63.
    Dtls,
    /// A TURN Channel: the first byte is 64 to 79.
    TurnChannel,
    /// RTP or SRTP: the first byte is 128 to 191.
    Rtp,
    /// RTCP or SRTCP: the same, and the second byte is 192 to 223.
    Rtcp,
}

/// Tells by the first two bytes what `datagram` is; `None` for anything else (also ZRTP) and for an empty datagram. Never
/// fails. Source: RFC 7983 §7, RFC 5761 §4.
#[must_use]
pub fn classify(datagram: &[u8]) -> Option<DatagramKind> {
    match (datagram.first()?, datagram.get(1)) {
        (0..=3, _) => Some(DatagramKind::Stun),
        (20..=63, _) => Some(DatagramKind::Dtls),
        (64..=79, _) => Some(DatagramKind::TurnChannel),
        (128..=191, Some(192..=223)) => Some(DatagramKind::Rtcp),
        (128..=191, _) => Some(DatagramKind::Rtp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_a_datagram_is() {
        let check = |datagram: &[u8], kind| assert_eq!(classify(datagram), kind, "{datagram:?}");

        check(&[], None);
        check(&[0, 1], Some(DatagramKind::Stun));
        check(&[3], Some(DatagramKind::Stun));
        check(&[4, 0], None);
        check(&[16, 0], None);
        check(&[19, 0], None);
        check(&[20, 254], Some(DatagramKind::Dtls));
        check(&[63, 254], Some(DatagramKind::Dtls));
        check(&[64, 0], Some(DatagramKind::TurnChannel));
        check(&[79, 0], Some(DatagramKind::TurnChannel));
        check(&[80, 0], None);
        check(&[127, 0], None);
        check(&[128, 111], Some(DatagramKind::Rtp));
        check(&[128], Some(DatagramKind::Rtp));
        check(&[144, 0x80 | 96], Some(DatagramKind::Rtp));
        check(&[191, 191], Some(DatagramKind::Rtp));
        check(&[128, 192], Some(DatagramKind::Rtcp));
        check(&[129, 200], Some(DatagramKind::Rtcp));
        check(&[143, 223], Some(DatagramKind::Rtcp));
        check(&[128, 224], Some(DatagramKind::Rtp));
        check(&[192, 0], None);
        check(&[255, 200], None);
    }
}
