//! The sound that callers hear: files of Accounts, loaded when they are first wanted, and tones in place of those that aren't there.
//!
//! ```text
//! Part: a prompt, or else a sign ─▶ Library: there? ─▶ Playlist ─▶ Sound
//!                                     └ no: Output::Load ─▶ file read and decoded elsewhere ─▶ handle_loaded
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gateway_media::files::Clip;
use gateway_media::player::{Item, Playlist};
use gateway_media::signs::Sign;
use model::AccountId;
use model::phone::rows::{RowName, Sha256Hex, SoundFormat, Telephony};

use super::{Exchange, Output};
use crate::sound::{LegId, To};

/// How much sound is kept in memory, in bytes, beside what is being played.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// How long a file that could not be read is not tried again.
const BROKEN_FOR: Duration = Duration::from_secs(60);

/// Which file: what it is, of which Account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SoundKey {
    pub(crate) account: AccountId,
    pub(crate) sha256: Sha256Hex,
    pub(crate) format: SoundFormat,
}

/// A part of what somebody hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A file, and the sign that stands for it where it can't be had; none stands for music.
    File(SoundKey, Option<Sign>),
    Sign(Sign),
    Pause(Duration),
    /// Music of our own making, without an end.
    Music,
}

/// What somebody is to hear.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hearing {
    pub(super) parts: Vec<Part>,
    /// Where it goes on after the last part; it ends there where not told.
    pub(super) repeat_from: Option<usize>,
}

/// Sound that was loaded, and those who wait for some.
#[derive(Debug, Default)]
pub(super) struct Library {
    files: BTreeMap<SoundKey, File>,
    /// Counts what is heard, so that it is known what was heard last.
    heard: u64,
    waiting: BTreeMap<LegId, (Hearing, u32)>,
}

#[derive(Debug)]
enum File {
    Loading,
    There { clip: Clip, heard: u64 },
    Broken { until: Instant },
}

impl Exchange {
    /// Has a Leg hear something, as soon as it is loaded; its end is told by the number.
    pub(super) fn hear(&mut self, now: Instant, leg: LegId, hearing: Hearing, number: u32) {
        let mut waits = false;
        for part in &hearing.parts {
            if let Part::File(key, _) = part {
                waits |= self.want(now, key);
            }
        }
        if waits {
            self.library.waiting.insert(leg, (hearing, number));
        } else {
            self.play(leg, &hearing, number);
        }
    }

    /// A Leg hears somebody, or what needs no file, in place of all it was to hear.
    pub(super) fn let_hear(&mut self, leg: LegId, to: To) {
        self.library.waiting.remove(&leg);
        self.sound.connect(leg, to);
    }

    /// What a Leg waits for is wanted no more.
    pub(super) fn forget_hearing(&mut self, leg: LegId) {
        self.library.waiting.remove(&leg);
    }

    /// A file was loaded, or can't be.
    pub(super) fn on_loaded(&mut self, now: Instant, key: SoundKey, clip: Option<Clip>) {
        self.library.heard += 1;
        let heard = self.library.heard;
        let file = match clip {
            Some(clip) => File::There { clip, heard },
            None => {
                self.figures.sounds_broken += 1;
                File::Broken {
                    until: now + BROKEN_FOR,
                }
            }
        };
        self.library.files.insert(key, file);
        let ready: Vec<LegId> = self
            .library
            .waiting
            .iter()
            .filter(|(_, (hearing, _))| !self.library.is_waited_for(hearing))
            .map(|(leg, _)| *leg)
            .collect();
        for leg in ready {
            if let Some((hearing, number)) = self.library.waiting.remove(&leg) {
                self.play(leg, &hearing, number);
            }
        }
        self.library.shrink();
    }

    /// Whether this file is still to come; asks for it the first time.
    fn want(&mut self, now: Instant, key: &SoundKey) -> bool {
        match self.library.files.get(key) {
            Some(File::There { .. }) => false,
            Some(File::Loading) => true,
            Some(File::Broken { until }) if *until > now => false,
            Some(File::Broken { .. }) | None => {
                self.library.files.insert(key.clone(), File::Loading);
                self.outputs.push_back(Output::Load(key.clone()));
                true
            }
        }
    }

    fn play(&mut self, leg: LegId, hearing: &Hearing, number: u32) {
        let parts = hearing.parts.iter();
        let items = parts.map(|part| self.library.item(part)).collect();
        let list = Playlist {
            items,
            repeat_from: hearing.repeat_from,
        };
        self.sound.connect(leg, To::Play(list, number));
    }
}

impl Library {
    fn is_waited_for(&self, hearing: &Hearing) -> bool {
        hearing.parts.iter().any(|part| match part {
            Part::File(key, _) => matches!(self.files.get(key), Some(File::Loading)),
            Part::Sign(_) | Part::Pause(_) | Part::Music => false,
        })
    }

    fn item(&mut self, part: &Part) -> Item {
        match part {
            Part::File(key, or) => match self.files.get_mut(key) {
                Some(File::There { clip, heard }) => {
                    self.heard += 1;
                    *heard = self.heard;
                    Item::Clip(clip.clone())
                }
                _ => or.map_or(Item::Music, |sign| Item::Clip(sign.clip())),
            },
            Part::Sign(sign) => Item::Clip(sign.clip()),
            Part::Pause(time) => Item::Pause(*time),
            Part::Music => Item::Music,
        }
    }

    /// Lets go what was not heard for the longest time, until the rest has room.
    fn shrink(&mut self) {
        let len = |file: &File| match file {
            File::There { clip, .. } => size_of_val(clip.samples()),
            File::Loading | File::Broken { .. } => 0,
        };
        let mut bytes: usize = self.files.values().map(len).sum();
        while bytes > BYTES_MAX {
            let there = self.files.iter().filter_map(|(key, file)| match file {
                File::There { heard, .. } => Some((*heard, key)),
                File::Loading | File::Broken { .. } => None,
            });
            let Some((_, oldest)) = there.min() else {
                return;
            };
            let oldest = oldest.clone();
            bytes -= self.files.remove(&oldest).as_ref().map_or(0, len);
        }
    }
}

/// The file of a prompt by its name, and the sign that stands for it.
pub(super) fn prompt(account: AccountId, rows: &Telephony, name: &RowName, or: Sign) -> Part {
    found(account, rows, name.as_str(), Some(or)).unwrap_or(Part::Sign(or))
}

/// A prompt that rows name nowhere: words of the program's own that an Account gives by a prompt of this name.
pub(super) fn words(account: AccountId, rows: &Telephony, name: &str, or: Sign) -> Part {
    found(account, rows, name, Some(or)).unwrap_or(Part::Sign(or))
}

/// The file of that name, if the Account has one.
pub(super) fn found(
    account: AccountId,
    rows: &Telephony,
    name: &str,
    or: Option<Sign>,
) -> Option<Part> {
    let name: RowName = name.parse().ok()?;
    let row = rows.prompts.get(&name)?;
    let key = SoundKey {
        account,
        sha256: row.sha256.clone(),
        format: row.format,
    };
    Some(Part::File(key, or))
}
