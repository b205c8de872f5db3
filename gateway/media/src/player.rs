//! What a Leg hears that nobody says: prompts one after the other, and music.
//!
//! ```text
//! Playlist: clip, pause, clip, music … ─▶ fill ─▶ frames at the rate of the Leg ─▶ the end is told once
//! ```
//!
//! Clips lie in memory that many Legs share; a player has its place in them and nothing else, and allocates nothing while it plays.

use std::time::Duration;

use crate::files::Clip;
use crate::resample;
use crate::sounds::Sound;

/// How long sound that begins or ends anywhere takes to come and to go, in 1/s: 5 ms.
const FADES_PER_SECOND: u32 = 200;

/// The most that is played one after the other.
pub const ITEMS_MAX: usize = 64;

/// Something to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Sound.
    Clip(Clip),
    /// Silence.
    Pause(Duration),
    /// Music of our own making, which has no end.
    Music,
}

/// What is played.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Playlist {
    /// In this order; those beyond [`ITEMS_MAX`] are not heard.
    pub items: Vec<Item>,
    /// Where it goes on after the last one; it ends there where not told.
    pub repeat_from: Option<usize>,
}

/// Plays a [`Playlist`].
#[derive(Debug)]
pub struct Player {
    items: Vec<Item>,
    repeat_from: Option<usize>,
    item: usize,
    /// Where in the item, in samples of this rate.
    at: usize,
    rate: u32,
    music: Sound,
}

impl Player {
    /// A player at the beginning of a list.
    #[must_use]
    pub fn new(list: Playlist) -> Self {
        resample::prepare();
        let Playlist {
            mut items,
            repeat_from,
        } = list;
        items.truncate(ITEMS_MAX);
        // What is over at once is played once, and not for ever.
        let repeat_from = repeat_from.filter(|from| {
            let repeated = items.get(*from..).unwrap_or_default();
            repeated.iter().any(|item| len(item, 8_000) > 0)
        });
        Self {
            items,
            repeat_from,
            item: 0,
            at: 0,
            rate: 8_000,
            music: Sound::music(),
        }
    }

    /// Writes the next samples, at `rate` a second; `false` when nothing is left, after the last of it.
    pub fn fill(&mut self, rate: u32, out: &mut [i16]) -> bool {
        if rate != self.rate {
            let at = self.at as u64 * u64::from(rate) / u64::from(self.rate);
            self.at = usize::try_from(at).unwrap_or(usize::MAX);
            self.rate = rate;
        }
        let mut done = 0;
        while done < out.len() {
            let Some(item) = self.items.get(self.item) else {
                match self.repeat_from {
                    Some(from) => {
                        self.item = from;
                        continue;
                    }
                    None => break,
                }
            };
            let len = len(item, rate);
            let room = (out.len() - done).min(len.saturating_sub(self.at));
            if room == 0 {
                self.item += 1;
                self.at = 0;
                continue;
            }
            let out = &mut out[done..done + room];
            match item {
                Item::Clip(clip) => read(clip, rate, self.at, len, out),
                Item::Pause(_) => out.fill(0),
                Item::Music => self.music.fill(rate, out),
            }
            self.at = match item {
                Item::Music => 0,
                Item::Clip(_) | Item::Pause(_) => self.at + room,
            };
            done += room;
        }
        out[done..].fill(0);
        done > 0
    }
}

/// How many samples of `rate` an item has.
fn len(item: &Item, rate: u32) -> usize {
    match item {
        Item::Clip(clip) => match resample::between(clip.rate(), rate) {
            Some(filter) => filter.len_of(clip.samples().len()),
            None => clip.samples().len(),
        },
        Item::Pause(time) => {
            let len = time.as_micros() * u128::from(rate) / 1_000_000;
            usize::try_from(len).unwrap_or(usize::MAX)
        }
        Item::Music => usize::MAX,
    }
}

/// Writes what a clip has from `at` on, of `len` samples.
fn read(clip: &Clip, rate: u32, at: usize, len: usize, out: &mut [i16]) {
    match resample::between(clip.rate(), rate) {
        Some(filter) => filter.fill(clip.samples(), at, out),
        None => out.copy_from_slice(&clip.samples()[at..at + out.len()]),
    }
    let fade = usize::try_from(rate / FADES_PER_SECOND).unwrap_or(1);
    for (sample, at) in out.iter_mut().zip(at..) {
        let from_ends = at.min(len - 1 - at);
        if from_ends < fade {
            *sample = part(*sample, from_ends, fade);
        }
    }
}

/// `at` of `of` parts of a sample.
fn part(sample: i16, at: usize, of: usize) -> i16 {
    let (at, of) = (
        i64::try_from(at).unwrap_or(0),
        i64::try_from(of).unwrap_or(1),
    );
    i16::try_from(i64::from(sample) * at / of.max(1)).unwrap_or(0)
}

/// Lets `before` go while `now` comes, over the length of both.
pub(crate) fn cross(before: &[i16], now: &mut [i16]) {
    let len = now.len();
    for (at, (before, now)) in before.iter().zip(now).enumerate() {
        *now = part(*before, len - at, len).saturating_add(part(*now, at, len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{amplitude, tone};

    fn clip(rate: u32, hertz: f64, millis: u32) -> Item {
        let len = usize::try_from(rate * millis / 1_000).unwrap();
        Item::Clip(Clip::new(rate, &tone(rate, hertz, 10_000.0, len)))
    }

    fn pause(millis: u64) -> Item {
        Item::Pause(Duration::from_millis(millis))
    }

    /// What is heard until nothing is left, at most so many frames of 20 ms.
    fn play(items: Vec<Item>, repeat_from: Option<usize>, rate: u32, frames: usize) -> Vec<i16> {
        let mut player = Player::new(Playlist { items, repeat_from });
        let mut all = Vec::new();
        for _ in 0..frames {
            let mut frame = vec![1; usize::try_from(rate / 50).unwrap()];
            if !player.fill(rate, &mut frame) {
                assert!(frame.iter().all(|sample| *sample == 0));
                break;
            }
            all.extend(frame);
        }
        all
    }

    #[test]
    fn clips_are_heard_one_after_the_other_at_the_rate_of_the_leg() {
        for of in [8_000, 16_000] {
            for rate in [8_000, 16_000, 48_000] {
                let items = vec![clip(of, 500.0, 200), pause(100), clip(of, 1_500.0, 305)];
                let heard = play(items, None, rate, 1_000);
                let place = |millis: u32| usize::try_from(rate * millis / 1_000).unwrap();
                // The last frame is not whole.
                assert_eq!(heard.len(), place(620), "{of} at {rate}");
                let of = |from, to| &heard[place(from)..place(to)];
                assert!(amplitude(of(10, 190), rate, 500.0) > 9_500.0);
                assert!(of(201, 299).iter().all(|sample| *sample == 0));
                assert!(amplitude(of(310, 590), rate, 1_500.0) > 9_500.0);
                assert!(of(606, 620).iter().all(|sample| *sample == 0));
            }
        }
    }

    #[test]
    fn a_list_goes_on_from_where_it_is_told_to() {
        let items = vec![
            clip(8_000, 500.0, 100),
            clip(8_000, 1_500.0, 100),
            pause(10),
        ];
        let heard = play(items, Some(1), 8_000, 500);
        assert_eq!(heard.len(), 80_000);
        for start in [800, 800 + 880, 800 + 880 * 50] {
            let around = &heard[start + 80..start + 720];
            assert!(amplitude(around, 8_000, 1_500.0) > 9_500.0, "{start}");
        }
        assert_eq!(play(vec![Item::Music], None, 8_000, 500).len(), 80_000);
    }

    #[test]
    fn what_has_nothing_to_repeat_ends() {
        let empty = Item::Clip(Clip::new(8_000, &[]));
        for items in [vec![], vec![empty.clone()], vec![pause(0), empty]] {
            for repeat_from in [None, Some(0), Some(7)] {
                assert!(play(items.clone(), repeat_from, 8_000, 10).is_empty());
            }
        }
    }

    #[test]
    fn sound_that_is_cut_off_anywhere_does_not_click() {
        // A cosine begins and ends at its peak.
        let loud: Vec<i16> = tone(8_000, 250.0, 20_000.0, 8_000 + 8)[8..].to_vec();
        let items = vec![Item::Clip(Clip::new(8_000, &loud)), pause(50)];
        let heard = play(items, Some(0), 8_000, 200);
        let step = heard.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max();
        // The tone itself goes 3,900 in a sample.
        assert!(step < Some(4_400), "{step:?}");
        assert_eq!(heard[0], 0);
    }

    #[test]
    fn another_rate_in_the_middle_goes_on_at_the_same_place() {
        let mut player = Player::new(Playlist {
            items: vec![clip(16_000, 500.0, 1_000)],
            repeat_from: None,
        });
        let mut millis = 0;
        for rate in [8_000, 48_000, 16_000].into_iter().cycle() {
            let mut frame = vec![0; usize::try_from(rate / 50).unwrap()];
            if !player.fill(rate, &mut frame) {
                break;
            }
            millis += 20;
        }
        assert_eq!(millis, 1_000);
    }

    #[test]
    fn one_sound_gives_way_to_another_without_a_step() {
        let before = [10_000; 160];
        let mut now = [-10_000; 160];
        cross(&before, &mut now);
        assert_eq!(now[0], 10_000);
        assert!(now.windows(2).all(|pair| pair[0].abs_diff(pair[1]) <= 126));
        assert!(now[159] < -9_800);
    }
}
