//! STUN and TURN wire format (RFC 8489, RFC 8656): views of received bytes, and a writer into a
//! caller's buffer.
//!
//! Bytes are looked at in place. Every parser here is total (any input gives a value or a
//! [`DecodeError`]), allocates nothing and reads each byte at most a few times.
//!
//! ```text
//! datagram ──▶ classify ──▶ Message / ChannelData ──▶ attributes
//! TCP bytes ─▶ next_frame ─▶ the same
//! ```

mod access_token;
mod attribute;
mod channel_data;
pub mod client;
mod integrity;
mod message;
mod nonce;
mod stream;
mod writer;

pub use access_token::{ACCESS_TOKEN_LEN_MAX, AccessToken, TokenAlgorithm, TokenError, TokenKey};
pub use attribute::{AddressFamily, AttributeType, Attributes, decode_address, decode_xor_address};
pub use channel_data::{CHANNEL_DATA_HEADER_LEN, CHANNEL_MAX, CHANNEL_MIN, ChannelData};
pub use integrity::{
    FINGERPRINT_LEN, IntegrityKey, IntegrityKind, PasswordAlgorithm, crc32, rest_password, userhash,
};
pub use message::{
    ATTRIBUTES_MAX, Class, DecodeError, ErrorCode, HEADER_LEN, Icmp, MAGIC_COOKIE, Message, Method,
    TransactionId,
};
pub use nonce::{NONCE_COOKIE, NONCE_PREFIX_LEN, SecurityFeatures};
pub use stream::{Frame, FrameError, STREAM_FRAME_LEN_MAX, next_frame};
pub use writer::{
    BufferTooSmall, DATA_INDICATION_PREFIX_MAX, MessageWriter, padding_len, write_data_indication,
};

/// What the first byte of a packet says it is (RFC 7983 §7, RFC 8656 §12.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketKind {
    /// A STUN message: the two leading bits are zero.
    Stun,
    /// A ChannelData message: the leading byte is 64 to 127 (see [`CHANNEL_MAX`]).
    ChannelData,
}

/// Tells a STUN message from ChannelData by the first byte; `None` for anything else, also for an
/// empty packet. Never fails. Source: RFC 7983 §7.
#[must_use]
pub fn classify(packet: &[u8]) -> Option<PacketKind> {
    match packet.first()? {
        0..=3 => Some(PacketKind::Stun),
        64..=127 => Some(PacketKind::ChannelData),
        _ => None,
    }
}
