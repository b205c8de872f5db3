//! Files of prompts and music: what is in them, and their way into the object store.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use backing::objects::{Objects, prompt_key};
use gateway_media::files;
use model::AccountId;
use model::phone::rows::{
    Label, PROMPT_BYTES_MAX, PROMPT_MILLIS_MAX, Prompt, Sha256Hex, SoundFormat,
};

/// A file of a prompt that was read and can be played.
pub struct PromptFile {
    path: PathBuf,
    sha256: Sha256Hex,
    format: SoundFormat,
    millis: u32,
}

impl PromptFile {
    /// Reads the file at `path`. Fails when it is neither WAV in a form that can be played nor Opus in Ogg, is empty or too long.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let metadata = fs::metadata(path).with_context(|| format!("can't read {shown}"))?;
        ensure!(
            metadata.len() <= PROMPT_BYTES_MAX,
            "{shown} is larger than {PROMPT_BYTES_MAX} bytes"
        );
        let bytes = fs::read(path).with_context(|| format!("can't read {shown}"))?;
        let (format, millis) = examine(&bytes).with_context(|| shown.to_string())?;
        let millis = u32::try_from(millis)
            .ok()
            .filter(|millis| (1..=PROMPT_MILLIS_MAX).contains(millis))
            .with_context(|| format!("{shown}: {millis} ms is not 1 to {PROMPT_MILLIS_MAX}"))?;
        Ok(Self {
            path: path.to_owned(),
            sha256: hash(&bytes)?,
            format,
            millis,
        })
    }

    /// The row that means it.
    pub fn row(&self, label: Option<Label>) -> Prompt {
        Prompt {
            label,
            sha256: self.sha256.clone(),
            format: self.format,
            millis: self.millis,
        }
    }

    /// Puts the file into the object store, unless it is there. Fails also when the file has changed since it was read.
    pub async fn store(&self, account: AccountId, objects: &Objects) -> anyhow::Result<()> {
        let key = prompt_key(account, &self.sha256, self.format);
        if objects.has(&key).await? {
            return Ok(());
        }
        let bytes =
            fs::read(&self.path).with_context(|| format!("can't read {}", self.path.display()))?;
        ensure!(
            hash(&bytes)? == self.sha256,
            "{} has changed while it was applied: apply it again",
            self.path.display()
        );
        objects.put(&key, bytes).await
    }
}

fn hash(bytes: &[u8]) -> anyhow::Result<Sha256Hex> {
    let hex: String = digest(&SHA256, bytes)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(hex.parse()?)
}

/// How a file is coded, and how long it is in milliseconds: all of it is read as the gateway does, so that what is taken can be played.
fn examine(bytes: &[u8]) -> anyhow::Result<(SoundFormat, u64)> {
    let (format, clip) = files::read(bytes, PROMPT_MILLIS_MAX / 1_000)?;
    let format = match format {
        files::Format::Wav => SoundFormat::Wav,
        files::Format::OggOpus => SoundFormat::OggOpus,
    };
    Ok((format, clip.millis()))
}

/// A WAV file of so many milliseconds, for tests.
#[cfg(test)]
pub(crate) fn silence(millis: u32) -> Vec<u8> {
    let samples = vec![0; usize::try_from(8 * millis).unwrap()];
    files::write_wav(8_000, 1, &samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8]) -> String {
        match examine(bytes) {
            Ok((format, millis)) => format!("{format:?} {millis}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn the_length_of_a_file_is_that_of_its_sound() {
        assert_eq!(check(&silence(1_500)), "Wav 1500");
        let mut odd = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0".to_vec();
        odd.extend(&silence(20)[12..]);
        assert_eq!(check(&odd), "Wav 20");
    }

    #[test]
    fn what_cannot_be_played_is_told() {
        assert_eq!(check(b"ID3"), "neither WAV nor Opus in Ogg");
        assert_eq!(check(b""), "neither WAV nor Opus in Ogg");
        let mut wide = silence(20);
        wide[34] = 24;
        assert!(check(&wide).starts_with("its samples are neither"));
        let mut fast = silence(20);
        fast[24..28].copy_from_slice(&96_000_u32.to_le_bytes());
        assert!(check(&fast).starts_with("96000 samples a second"));
        assert_eq!(check(&silence(20)[..36]), "there are no samples in it");
    }
}
