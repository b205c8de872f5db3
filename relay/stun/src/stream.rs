//! Cuts a TCP or TLS byte stream into messages (RFC 8489 §6.2.2, RFC 8656 §12.5).

use crate::attribute::{u16_at, u32_at};
use crate::message::{HEADER_LEN, MAGIC_COOKIE};
use crate::{CHANNEL_DATA_HEADER_LEN, PacketKind, classify};

/// The longest frame a stream can carry, in bytes with padding.
pub const STREAM_FRAME_LEN_MAX: usize = (65_535 + CHANNEL_DATA_HEADER_LEN).next_multiple_of(4);

/// One message at the front of the buffered bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Which parser reads it.
    pub kind: PacketKind,
    /// The length of the message, in bytes without padding.
    pub len: usize,
    /// How many bytes to drop from the front of the buffer once it is read.
    pub consumed: usize,
}

/// A stream that carries neither STUN nor ChannelData. There is no way back into step: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte begins neither kind of message.
    #[error("a frame begins with {got:#04x}")]
    WrongFirstByte {
        /// The first byte.
        got: u8,
    },
    /// A STUN message without the magic cookie.
    #[error("wrong magic cookie {got:#010x}")]
    WrongCookie {
        /// What stands at offset 4.
        got: u32,
    },
    /// The frame is longer than the caller accepts.
    #[error("a frame of {got} bytes")]
    TooLong {
        /// The length of the frame with padding.
        got: usize,
    },
}

/// Looks for one whole message at the front of `buffered`, which begins at a frame's first byte.
///
/// `Ok(None)` asks for more bytes; it is never returned once `frame_len_max` bytes are buffered.
/// ChannelData is padded to four bytes on a stream (RFC 8656 §12.5). A wrong cookie is noticed as
/// soon as its bytes are there, so that a stranger can't keep a stream open with half a header.
///
/// # Errors
///
/// [`FrameError`] where the bytes are no frame or a longer one than `frame_len_max`.
pub fn next_frame(buffered: &[u8], frame_len_max: usize) -> Result<Option<Frame>, FrameError> {
    let Some(&first) = buffered.first() else {
        return Ok(None);
    };
    let kind = classify(buffered).ok_or(FrameError::WrongFirstByte { got: first })?;
    let Some(len) = u16_at(buffered, 2) else {
        return Ok(None);
    };
    let len = usize::from(len)
        + match kind {
            PacketKind::Stun => HEADER_LEN,
            PacketKind::ChannelData => CHANNEL_DATA_HEADER_LEN,
        };
    if kind == PacketKind::Stun
        && let Some(got) = u32_at(buffered, 4)
        && got != MAGIC_COOKIE
    {
        return Err(FrameError::WrongCookie { got });
    }
    let consumed = match kind {
        PacketKind::Stun => len, // A wrong length is the parser's to refuse.
        PacketKind::ChannelData => len.next_multiple_of(4),
    };
    if consumed > frame_len_max {
        return Err(FrameError::TooLong { got: consumed });
    }
    Ok((buffered.len() >= consumed).then_some(Frame {
        kind,
        len,
        consumed,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_whatever_the_segments_were() {
        let mut stream = Vec::new();
        stream.extend([
            0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        ]);
        stream.extend([0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]);
        stream.extend([0x40, 1, 0, 0]);

        for segment in 1..=stream.len() {
            let mut buffered = Vec::new();
            let mut lens = Vec::new();
            for part in stream.chunks(segment) {
                buffered.extend_from_slice(part);
                while let Some(frame) = next_frame(&buffered, STREAM_FRAME_LEN_MAX).unwrap() {
                    lens.push(frame.len);
                    buffered.drain(..frame.consumed);
                }
            }
            assert_eq!(lens, [20, 9, 4], "in segments of {segment}");
            assert!(buffered.is_empty());
        }
    }

    #[test]
    fn garbage_is_noticed_early() {
        let check = |bytes: &[u8], expected: &str| {
            let got = match next_frame(bytes, 100) {
                Ok(Some(frame)) => format!("{}", frame.len),
                Ok(None) => "more".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expected);
        };

        check(b"", "more");
        check(b"GET / HTTP/1.1", "a frame of 21540 bytes"); // "G" is 71, a ChannelData byte.
        check(b"\x16\x03\x01", "a frame begins with 0x16");
        check(b"\x80", "a frame begins with 0x80");
        check(b"\x00\x01\x00\x00HTTP", "wrong magic cookie 0x48545450");
        check(b"\x00\x01\xff\xfc", "a frame of 65552 bytes");
        check(b"\x40\x00\x00\x60", "more");
        check(b"\x40\x00\x00\x61", "a frame of 104 bytes");
    }
}
