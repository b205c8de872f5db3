//! What a packet of Opus is without decoding it (RFC 6716 §3).

use std::time::Duration;

/// The first byte of a packet (RFC 6716 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toc {
    /// The mode, bandwidth and frame length, 0 to 31.
    pub config: u8,
    /// Whether there are two channels.
    pub stereo: bool,
    /// How many frames the packet has, at most 48.
    pub frames: u8,
}

impl Toc {
    /// Reads the front of `payload`; `None` where there is no packet.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Toc> {
        let first = *payload.first()?;
        let frames = match first & 0x03 {
            0 => 1,
            1 | 2 => 2,
            _ => *payload.get(1)? & 0x3F,
        };
        Some(Toc {
            config: first >> 3,
            stereo: first & 0x04 != 0,
            frames,
        })
        .filter(|toc| (1..=48).contains(&toc.frames))
    }

    /// How long the packet sounds (RFC 6716 §3.1, table 2).
    #[must_use]
    pub fn duration(self) -> Duration {
        let step = self.config & 0x03;
        let frame = match self.config {
            0..=11 => [10_000, 20_000, 40_000, 60_000][usize::from(step)],
            12..=15 => [10_000, 20_000][usize::from(step & 1)],
            _ => [2_500, 5_000, 10_000, 20_000][usize::from(step)],
        };
        Duration::from_micros(frame * u64::from(self.frames))
    }
}

/// Whether `payload` says only that there is nothing to hear: a packet of at most two bytes is how an encoder with DTX keeps
/// a silent stream alive (RFC 6716 §2.1.9). Empty ones are not Opus.
#[must_use]
pub fn is_dtx(payload: &[u8]) -> bool {
    matches!(payload.len(), 1 | 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_tell_how_long_they_sound() {
        let check = |payload: &[u8], frames, micros| {
            let toc = Toc::parse(payload).map(|toc| (toc.frames, toc.duration().as_micros()));
            assert_eq!(toc, Some((frames, micros)), "{payload:?}");
        };

        check(&[0x00], 1, 10_000);
        check(&[0x18], 1, 60_000);
        check(&[0x78, 1, 2], 1, 20_000);
        check(&[0x60], 1, 10_000);
        check(&[0x80], 1, 2_500);
        check(&[0xf9], 2, 40_000);
        check(&[0xfa], 2, 40_000);
        check(&[0xe3, 0xc6], 6, 15_000);
        assert_eq!(
            Toc::parse(&[0x7c]).map(|toc| (toc.config, toc.stereo)),
            Some((15, true))
        );
    }

    #[test]
    fn what_has_no_frames_is_no_packet() {
        for payload in [&[][..], &[0x03], &[0x03, 0x80], &[0x03, 49]] {
            assert_eq!(Toc::parse(payload), None, "{payload:?}");
        }
    }

    #[test]
    fn silence_is_short() {
        assert!(!is_dtx(&[]));
        assert!(is_dtx(&[0x78]));
        assert!(is_dtx(&[0x78, 0]));
        assert!(!is_dtx(&[0x78, 0, 0]));
    }
}
