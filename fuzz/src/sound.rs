//! Files of sound that an Account gives: WAV, and Opus in Ogg.

use gateway_media::files;

/// Bounds what is made of one input.
const SECONDS_MAX: u32 = 4;

/// What can be read is no longer than it may be and has a rate that is played; all else is refused, and nothing panics.
pub(crate) fn sound_file(data: &[u8]) {
    if let Ok((_, clip)) = files::read(data, SECONDS_MAX) {
        assert!(matches!(clip.rate(), 8_000 | 16_000));
        assert!(!clip.samples().is_empty());
        assert!(clip.millis() <= u64::from(SECONDS_MAX) * 1_000 + 120);
    }
}
