//! What stands in the extensions a forwarder reads or writes itself; all others pass as bytes.
//!
//! Readers take a value as it came and look at its first bytes: a value may be longer than its document says (a later
//! version of it), never shorter.

use crate::bytes::{low_u24, low_u32, u16_at, u24_at, u64_at};

/// How loud a packet of audio is (RFC 6464 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevel {
    /// Whether the sender believes that somebody speaks.
    pub voice: bool,
    /// The level in -dBov: 0 is the loudest, 127 digital silence.
    pub level: u8,
}

impl AudioLevel {
    /// Reads the value.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Option<AudioLevel> {
        let first = *value.first()?;
        Some(AudioLevel {
            voice: first & 0x80 != 0,
            level: first & 0x7F,
        })
    }

    /// The value. A level above 127 is written as 127.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 1] {
        [u8::from(self.voice) << 7 | self.level.min(127)]
    }
}

/// Reads a transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01 §2). It is written as
/// `to_be_bytes`.
#[must_use]
pub fn read_transport_sequence_number(value: &[u8]) -> Option<u16> {
    u16_at(value, 0)
}

/// When a packet was sent: seconds as 6.18 fixed point, which wraps after 64 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsSendTime(u32);

impl AbsSendTime {
    /// The time `micros` microseconds after any moment of the sender's choice.
    #[must_use]
    pub fn from_micros(micros: u64) -> AbsSendTime {
        AbsSendTime(low_u32(((micros % 64_000_000) << 18) / 1_000_000))
    }

    /// How many microseconds lie between `earlier` and this, by the shorter way around: from -32 s to 32 s.
    #[must_use]
    pub fn micros_since(self, earlier: AbsSendTime) -> i64 {
        let ticks = (self.0.wrapping_sub(earlier.0) << 8).cast_signed() >> 8;
        (i64::from(ticks) * 1_000_000) >> 18
    }

    /// Reads the value.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Option<AbsSendTime> {
        Some(AbsSendTime(u24_at(value, 0)?))
    }

    /// The value.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        low_u24(self.0)
    }
}

/// Reads what names an m-section or a Layer: a mid, rid or repaired rid. `None` for what can't be one: an empty value, or
/// one with other characters than an SDP token has (RFC 8843 §15.1, RFC 8852 §3).
#[must_use]
pub fn read_identifier(value: &[u8]) -> Option<&str> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(byte);
    if value.is_empty() || !value.iter().all(is_token) {
        return None;
    }
    str::from_utf8(value).ok()
}

/// How long a receiver should wait before it plays, in units of 10 ms, up to 4,095.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// At least this long.
    pub min: u16,
    /// At most this long.
    pub max: u16,
}

impl PlayoutDelay {
    /// Reads the value.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Option<PlayoutDelay> {
        let [a, b, c] = *value.first_chunk()?;
        Some(PlayoutDelay {
            min: u16::from_be_bytes([a, b]) >> 4,
            max: u16::from_be_bytes([b & 0x0F, c]),
        })
    }

    /// The value. What is above 4,095 is written as 4,095.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        low_u24(u32::from(self.min.min(4095)) << 12 | u32::from(self.max.min(4095)))
    }
}

/// When a frame was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// The time by the clock of the source, as NTP time: 32.32 fixed point.
    pub ntp: u64,
    /// How far the clock of the source is ahead of the clock of the sender, as 32.32 fixed point, where it is known.
    pub clock_offset: Option<i64>,
}

impl AbsCaptureTime {
    /// Reads the value.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Option<AbsCaptureTime> {
        Some(AbsCaptureTime {
            ntp: u64_at(value, 0)?,
            clock_offset: u64_at(value, 8).map(u64::cast_signed),
        })
    }

    /// The value with a clock offset; unknown ones are zero.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut value = [0; 16];
        value[..8].copy_from_slice(&self.ntp.to_be_bytes());
        value[8..].copy_from_slice(&self.clock_offset.unwrap_or_default().to_be_bytes());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_levels() {
        let check = |value: &[u8], level| assert_eq!(AudioLevel::from_bytes(value), level);

        check(&[], None);
        check(
            &[0x00],
            Some(AudioLevel {
                voice: false,
                level: 0,
            }),
        );
        check(
            &[0xff],
            Some(AudioLevel {
                voice: true,
                level: 127,
            }),
        );
        check(
            &[0x9e, 0],
            Some(AudioLevel {
                voice: true,
                level: 30,
            }),
        );
        assert_eq!(
            AudioLevel {
                voice: true,
                level: 30
            }
            .to_bytes(),
            [0x9e]
        );
        assert_eq!(
            AudioLevel {
                voice: false,
                level: 200
            }
            .to_bytes(),
            [0x7f]
        );
    }

    #[test]
    fn send_times_wrap_after_64_seconds() {
        let at = AbsSendTime::from_micros;
        assert_eq!(at(0).to_bytes(), [0, 0, 0]);
        assert_eq!(at(1_000_000).to_bytes(), [0x04, 0, 0]);
        assert_eq!(at(63_999_999).to_bytes(), [0xff, 0xff, 0xff]);
        assert_eq!(at(64_500_000), at(500_000));
        assert_eq!(at(u64::MAX).to_bytes().len(), 3);

        assert_eq!(at(2_000_000).micros_since(at(1_000_000)), 1_000_000);
        assert_eq!(at(1_000_000).micros_since(at(2_000_000)), -1_000_000);
        assert_eq!(at(64_000_000).micros_since(at(63_000_000)), 1_000_000);
        assert_eq!(at(63_000_000).micros_since(at(64_000_000)), -1_000_000);
        assert_eq!(
            AbsSendTime::from_bytes(&[0x04, 0, 0, 9]),
            Some(at(1_000_000))
        );
        assert_eq!(AbsSendTime::from_bytes(&[0x04, 0]), None);
    }

    #[test]
    fn identifiers_are_tokens() {
        let check = |value: &[u8], name| assert_eq!(read_identifier(value), name);

        check(b"0", Some("0"));
        check(b"hi-res_1", Some("hi-res_1"));
        check(b"", None);
        check(b"a b", None);
        check(b"a\0", None);
        check("é".as_bytes(), None);
        check(&[0xff], None);
    }

    #[test]
    fn other_values() {
        assert_eq!(read_transport_sequence_number(&[0x12, 0x34]), Some(0x1234));
        assert_eq!(
            read_transport_sequence_number(&[0x12, 0x34, 0, 0]),
            Some(0x1234)
        );
        assert_eq!(read_transport_sequence_number(&[0x12]), None);

        let delay = PlayoutDelay {
            min: 0x123,
            max: 0x456,
        };
        assert_eq!(delay.to_bytes(), [0x12, 0x34, 0x56]);
        assert_eq!(PlayoutDelay::from_bytes(&delay.to_bytes()), Some(delay));
        assert_eq!(
            PlayoutDelay {
                min: 0xffff,
                max: 1
            }
            .to_bytes(),
            [0xff, 0xf0, 0x01]
        );
        assert_eq!(PlayoutDelay::from_bytes(&[0, 0]), None);

        let time = AbsCaptureTime {
            ntp: 1 << 40,
            clock_offset: Some(-7),
        };
        assert_eq!(AbsCaptureTime::from_bytes(&time.to_bytes()), Some(time));
        let short = AbsCaptureTime {
            ntp: 1 << 40,
            clock_offset: None,
        };
        assert_eq!(
            AbsCaptureTime::from_bytes(&time.to_bytes()[..8]),
            Some(short)
        );
        assert_eq!(AbsCaptureTime::from_bytes(&[0; 7]), None);
    }
}
