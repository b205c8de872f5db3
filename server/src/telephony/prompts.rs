//! Files of prompts and music: what is in them, and their way into the object store.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use backing::objects::{Objects, prompt_key};
use model::AccountId;
use model::phone::rows::{
    Label, PROMPT_BYTES_MAX, PROMPT_MILLIS_MAX, Prompt, Sha256Hex, SoundFormat,
};

/// The rates of samples that can be played.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// How many granules of Opus in Ogg are a second (RFC 7845 §4).
const OPUS_GRANULES: u64 = 48_000;

/// The head of a page in Ogg, up to the table of its segments (RFC 3533 §6).
const PAGE_HEAD_LEN: usize = 27;

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

/// How a file is coded, and how long it is in milliseconds.
fn examine(bytes: &[u8]) -> anyhow::Result<(SoundFormat, u64)> {
    match bytes {
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'A',
            b'V',
            b'E',
            chunks @ ..,
        ] => Ok((SoundFormat::Wav, wav_millis(chunks)?)),
        [b'O', b'g', b'g', b'S', ..] => Ok((SoundFormat::OggOpus, ogg_millis(bytes)?)),
        _ => bail!("neither WAV nor Opus in Ogg"),
    }
}

/// The length of a WAV file of which these are the chunks.
fn wav_millis(mut chunks: &[u8]) -> anyhow::Result<u64> {
    const PCM: u16 = 1;
    const A_LAW: u16 = 6;
    const MU_LAW: u16 = 7;

    let mut bytes_per_second = None;
    while let Some((head, rest)) = chunks.split_first_chunk::<8>() {
        let [k0, k1, k2, k3, l0, l1, l2, l3] = *head;
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3]))?;
        match &[k0, k1, k2, k3] {
            b"fmt " => {
                let body = rest.first_chunk::<16>().context("its format is cut off")?;
                let u16_at = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
                let (tag, channels, bits) = (u16_at(0), u16_at(2), u16_at(14));
                let rate = u32::from_le_bytes([body[4], body[5], body[6], body[7]]);
                ensure!(
                    matches!((tag, bits), (PCM, 16) | (A_LAW | MU_LAW, 8)),
                    "its samples are neither linear with 16 bits nor G.711 (format {tag}, {bits} bits)"
                );
                ensure!(
                    (1..=2).contains(&channels),
                    "{channels} channels are not 1 or 2"
                );
                ensure!(
                    RATES.contains(&rate),
                    "{rate} samples a second are not {} to {}",
                    RATES.start(),
                    RATES.end()
                );
                bytes_per_second =
                    Some(u64::from(rate) * u64::from(channels) * u64::from(bits / 8));
            }
            b"data" => {
                let per_second =
                    bytes_per_second.context("its samples come before their format")?;
                // Programs that could not go back leave a length of their own; what is there counts.
                let len = u64::try_from(len.min(rest.len()))?;
                return Ok(len * 1_000 / per_second);
            }
            _ => {}
        }
        // Chunks begin at even places.
        let next = len.saturating_add(len % 2).min(rest.len());
        chunks = &rest[next..];
    }
    bail!("there are no samples in it")
}

/// The length of an Ogg file whose one stream is Opus.
fn ogg_millis(mut pages: &[u8]) -> anyhow::Result<u64> {
    let mut skipped = None;
    let mut end = 0;
    while !pages.is_empty() {
        let head = pages
            .first_chunk::<PAGE_HEAD_LEN>()
            .filter(|head| head.starts_with(b"OggS"))
            .context("a page of it is cut off or damaged")?;
        let segments = usize::from(head[PAGE_HEAD_LEN - 1]);
        let body_at = PAGE_HEAD_LEN + segments;
        let table = pages
            .get(PAGE_HEAD_LEN..body_at)
            .context("a page of it is cut off")?;
        let len: usize = table.iter().map(|len| usize::from(*len)).sum();
        let body = pages
            .get(body_at..body_at + len)
            .context("a page of it is cut off")?;
        match skipped {
            None => {
                // Version, channels, then the pre-skip (RFC 7845 §5.1).
                ensure!(
                    body.starts_with(b"OpusHead") && body.len() >= 19,
                    "what is in the Ogg is not Opus"
                );
                ensure!(
                    (1..=2).contains(&body[9]),
                    "{} channels are not 1 or 2",
                    body[9]
                );
                skipped = Some(u64::from(u16::from_le_bytes([body[10], body[11]])));
            }
            Some(_) => {
                let [_, _, _, _, _, _, g0, g1, g2, g3, g4, g5, g6, g7, ..] = *head;
                let granule = u64::from_le_bytes([g0, g1, g2, g3, g4, g5, g6, g7]);
                // All ones: no packet ends on this page.
                if granule != u64::MAX {
                    end = granule;
                }
            }
        }
        pages = &pages[body_at + len..];
    }
    let skipped = skipped.context("there is no page in it")?;
    Ok(end.saturating_sub(skipped).saturating_mul(1_000) / OPUS_GRANULES)
}

/// A WAV file of so many milliseconds, for tests.
#[cfg(test)]
pub(crate) fn silence(millis: u32) -> Vec<u8> {
    let len = 16 * millis;
    let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(len.to_le_bytes());
    wav.resize(wav.len() + usize::try_from(len).unwrap(), 0);
    wav
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

    fn page(granule: u64, body: &[u8]) -> Vec<u8> {
        let mut page = b"OggS\0\0".to_vec();
        page.extend(granule.to_le_bytes());
        page.extend([0; 12]);
        page.push(1);
        page.push(u8::try_from(body.len()).unwrap());
        page.extend(body);
        page
    }

    fn ogg(granule: u64) -> Vec<u8> {
        let head = [&b"OpusHead\x01\x01"[..], &312_u16.to_le_bytes(), &[0; 7]].concat();
        [
            page(0, &head),
            page(0, b"OpusTags"),
            page(granule, &[0; 10]),
            page(u64::MAX, &[0; 10]),
        ]
        .concat()
    }

    #[test]
    fn the_length_of_a_file_is_that_of_its_sound() {
        assert_eq!(check(&silence(1_500)), "Wav 1500");
        assert_eq!(check(&ogg(312 + 96_000)), "OggOpus 2000");
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
        assert_eq!(
            check(&page(0, b"\x01vorbis")),
            "what is in the Ogg is not Opus"
        );
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_read_or_refused() {
        for file in [silence(20), ogg(48_000)] {
            for end in 0..file.len() {
                let _ = check(&file[..end]);
            }
        }
    }
}
