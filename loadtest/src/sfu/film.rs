//! Media that an encoder made, from files in the container IVF: a header of 32 bytes, then frames, each behind its length and time.
//! Browsers decode it; what no file is given for comes from [`super::media`].

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::media::FRAME_INTERVAL;

/// The header of a file, and of a frame.
const HEADER_LEN: usize = 32;
const FRAME_HEADER_LEN: usize = 12;

/// More than this is no clip.
const FRAMES_MAX: usize = 10_000;

/// 20 ms in which nothing is heard, as Opus has it.
const SILENCE: [u8; 3] = [0xF8, 0xFF, 0xFE];

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Pictures; the first is a key frame.
    Vp8,
    /// Packets of 20 ms.
    Opus,
}

/// A clip that is shown over and over.
#[derive(Debug)]
pub(crate) struct Film {
    content: Content,
    /// How many times [`FRAME_INTERVAL`] a picture is shown.
    beats: usize,
    frames: Vec<Vec<u8>>,
}

impl Film {
    /// Reads pictures: VP8 with at most one frame each [`FRAME_INTERVAL`].
    ///
    /// # Errors
    ///
    /// When the file can't be read, or is something else.
    pub(crate) fn pictures(path: &Path) -> anyhow::Result<Self> {
        Self::read(path, Content::Vp8)
    }

    /// Reads sound: Opus, 20 ms a frame.
    ///
    /// # Errors
    ///
    /// As for [`Film::pictures`].
    pub(crate) fn sound(path: &Path) -> anyhow::Result<Self> {
        Self::read(path, Content::Opus)
    }

    fn read(path: &Path, content: Content) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let film = Self::parse(&bytes).with_context(|| path.display().to_string())?;
        ensure!(
            film.content == content,
            "{} holds {:?} instead of {content:?}",
            path.display(),
            film.content
        );
        Ok(film)
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let (header, mut rest) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .context("shorter than a header")?;
        ensure!(header.starts_with(b"DKIF"), "not IVF");
        let content = match &header[8..12] {
            b"VP80" => Content::Vp8,
            b"OPUS" => Content::Opus,
            other => bail!("a codec called {:?}", String::from_utf8_lossy(other)),
        };
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
        // Frames a second, as a fraction.
        let (rate, scale) = (number(16), number(20));
        ensure!(rate > 0 && scale > 0, "{rate}/{scale} frames a second");
        let interval = Duration::from_secs(scale.into()) / rate;
        let beats = interval.as_micros().div_ceil(FRAME_INTERVAL.as_micros());

        let mut frames = Vec::new();
        while let Some((frame_header, behind)) = rest.split_first_chunk::<FRAME_HEADER_LEN>() {
            let [a, b, c, d, ..] = *frame_header;
            let len = u32::from_le_bytes([a, b, c, d]) as usize;
            let (frame, behind) = behind
                .split_at_checked(len)
                .context("the last frame is cut")?;
            frames.push(frame.to_vec());
            ensure!(frames.len() <= FRAMES_MAX, "more than {FRAMES_MAX} frames");
            rest = behind;
        }
        ensure!(!frames.is_empty(), "no frames");
        // Bit 0 of a frame's first byte is 0 in key frames (RFC 6386 §9.1).
        let begins =
            content == Content::Opus || frames[0].first().is_some_and(|byte| byte & 1 == 0);
        ensure!(begins, "no key frame at the start");
        Ok(Self {
            content,
            beats: usize::try_from(beats)?.max(1),
            frames,
        })
    }

    /// Pictures from memory.
    #[cfg(test)]
    pub(crate) fn of_pictures(beats: usize, frames: &[Vec<u8>]) -> Self {
        Self {
            content: Content::Vp8,
            beats,
            frames: frames.to_vec(),
        }
    }

    /// For how many times [`FRAME_INTERVAL`] a picture is shown.
    pub(crate) fn beats(&self) -> usize {
        self.beats
    }

    /// How many frames it has.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// A frame; behind the last comes the first.
    pub(crate) fn frame(&self, number: usize) -> &[u8] {
        &self.frames[number % self.frames.len()]
    }

    /// A payload of sound, silent unless somebody `speaks`.
    pub(crate) fn payload(&self, number: usize, speaks: bool) -> Vec<u8> {
        match speaks {
            true => self.frame(number).to_vec(),
            false => SILENCE.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ivf(codec: &[u8; 4], rate: u32, frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = b"DKIF\0\0\x20\0".to_vec();
        bytes.extend(codec);
        bytes.extend([160, 0, 90, 0]);
        bytes.extend(rate.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend([0; 8]);
        for frame in frames {
            bytes.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
            bytes.extend([0; 8]);
            bytes.extend(*frame);
        }
        bytes
    }

    #[test]
    fn a_clip_is_read_and_goes_round() {
        let film = Film::parse(&ivf(b"VP80", 10, &[&[0x10, 1], &[0x11, 2, 3]])).unwrap();
        assert_eq!(
            (film.content, film.beats(), film.len()),
            (Content::Vp8, 3, 2)
        );
        assert_eq!(film.frame(1), [0x11, 2, 3]);
        assert_eq!(film.frame(2), [0x10, 1]);

        let sound = Film::parse(&ivf(b"OPUS", 50, &[&[0x78, 9]])).unwrap();
        assert_eq!(sound.payload(7, true), [0x78, 9]);
        assert_eq!(sound.payload(7, false), SILENCE);
    }

    #[test]
    fn what_is_no_clip_is_refused() {
        let check = |bytes: &[u8], why: &str| {
            let error = Film::parse(bytes).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        let whole = ivf(b"VP80", 10, &[&[0x10, 1]]);
        check(&whole[..20], "header");
        check(&whole[..whole.len() - 1], "cut");
        check(&whole[..HEADER_LEN], "no frames");
        check(&ivf(b"AV01", 10, &[&[0x10]]), "AV01");
        check(&ivf(b"VP80", 0, &[&[0x10]]), "frames a second");
        check(&ivf(b"VP80", 10, &[&[0x11]]), "no key frame");
        check(&[0; 64], "not IVF");
    }
}
