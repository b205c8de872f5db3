//! ChannelData messages (RFC 8656 §12.4).

use crate::attribute::u16_at;
use crate::message::DecodeError;

/// The length of the header of ChannelData, in bytes.
pub const CHANNEL_DATA_HEADER_LEN: usize = 4;

/// The lowest channel number (RFC 8656 §12).
pub const CHANNEL_MIN: u16 = 0x4000;

/// The highest channel number. RFC 8656 §12 ends at 0x4FFF, but clients of RFC 5766 §11, coturn's
/// own among them, draw from this longer range, and nothing else claims its first bytes.
pub const CHANNEL_MAX: u16 = 0x7FFF;

/// A ChannelData message seen in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// The channel number, [`CHANNEL_MIN`] to [`CHANNEL_MAX`].
    pub channel: u16,
    /// The application data, without padding.
    pub payload: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Reads one message. Bytes behind the announced length are padding and ignored, since a
    /// sender over UDP may pad too (RFC 8656 §12.5).
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] or [`DecodeError::WrongChannel`]. Source: RFC 8656 §12.6.
    pub fn parse(bytes: &'a [u8]) -> Result<ChannelData<'a>, DecodeError> {
        let (Some(channel), Some(len)) = (u16_at(bytes, 0), u16_at(bytes, 2)) else {
            return Err(DecodeError::Truncated {
                needed: CHANNEL_DATA_HEADER_LEN,
                got: bytes.len(),
            });
        };
        if !(CHANNEL_MIN..=CHANNEL_MAX).contains(&channel) {
            return Err(DecodeError::WrongChannel { got: channel });
        }
        let end = CHANNEL_DATA_HEADER_LEN + usize::from(len);
        let payload = bytes
            .get(CHANNEL_DATA_HEADER_LEN..end)
            .ok_or(DecodeError::Truncated {
                needed: end,
                got: bytes.len(),
            })?;
        Ok(ChannelData { channel, payload })
    }

    /// The header of a message with `payload_len` bytes of data.
    #[must_use]
    pub fn header(channel: u16, payload_len: u16) -> [u8; CHANNEL_DATA_HEADER_LEN] {
        let [c0, c1] = channel.to_be_bytes();
        let [l0, l1] = payload_len.to_be_bytes();
        [c0, c1, l0, l1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_data_is_read_or_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let got = match ChannelData::parse(bytes) {
                Ok(data) => format!("{:#06x} {:?}", data.channel, data.payload),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expected);
        };

        check(&[0x40, 0, 0, 0], "0x4000 []");
        check(&[0x7F, 0xFF, 0, 2, 7, 8], "0x7fff [7, 8]");
        check(&[0x40, 1, 0, 1, 9, 0, 0, 0], "0x4001 [9]");
        check(&[0x40, 1, 0], "truncated: 4 bytes needed, 3 there");
        check(&[0x40, 1, 0, 2, 9], "truncated: 6 bytes needed, 5 there");
        check(&[0x80, 0, 0, 0], "channel number 0x8000 out of range");
        check(&[0x3F, 0xFF, 0, 0], "channel number 0x3fff out of range");
    }

    #[test]
    fn a_header_reads_back() {
        let mut bytes = ChannelData::header(0x4ABC, 3).to_vec();
        bytes.extend([1, 2, 3]);
        let data = ChannelData::parse(&bytes).unwrap();
        assert_eq!((data.channel, data.payload), (0x4ABC, &[1, 2, 3][..]));
    }
}
