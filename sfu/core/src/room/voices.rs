//! Who is heard in automatic slots: the loudest voices, each in the first slot that is free or falls silent.
//!
//! Which voices are heard is one decision for the whole Room ([`Speakers`]); a slot keeps its Track until another one needs it, so
//! in a small Room nothing ever changes.

use std::time::{Duration, Instant};

use sfu_rtp::extension::AudioLevel;

use super::{Output, Room};
use crate::forward::Forward;
use crate::keys::{ParticipantKey, SlotKey, TrackKey};
use crate::picture::Detail;
use crate::slot::Offered;
use crate::speakers::Event;

/// How many voices are heard at once. Who offers as many automatic slots hears all of them.
pub const VOICES_MAX: usize = 4;

/// How much of what was said before a voice got its slot is sent after it: the beginning of a word is softer than what follows.
pub const FIRST_WORD: Duration = Duration::from_millis(80);

impl Room {
    /// Who speaks, the dominant speaker first.
    pub fn speaking(&self) -> &[TrackKey] {
        self.speakers.speaking()
    }

    /// Says which voices a Participant does not want to hear in automatic slots, in place of what was said before: one that is in such
    /// a slot leaves it, and others get the room.
    pub fn hush(&mut self, subscriber: ParticipantKey, voices: Vec<TrackKey>) {
        match self.participants.get_mut(subscriber) {
            Some(to) if to.hushed != voices => to.hushed = voices,
            _ => return,
        }
        let automatic: Vec<SlotKey> = self
            .slots_of(subscriber)
            .filter(|slot| slot.automatic)
            .map(|slot| slot.key)
            .collect();

        for slot in automatic {
            let voice = self.slots.get(slot).and_then(|slot| slot.track);
            if voice.is_some_and(|voice| self.is_hushed(subscriber, voice)) {
                self.unsubscribe(slot);
                self.outputs.push_back(Output::SlotChanged {
                    participant: subscriber,
                    slot,
                    track: None,
                });
            }
            if self
                .slots
                .get(slot)
                .is_some_and(|slot| slot.track.is_none())
            {
                self.fill(slot);
            }
        }
    }

    fn is_hushed(&self, subscriber: ParticipantKey, voice: TrackKey) -> bool {
        let to = self.participants.get(subscriber);
        to.is_some_and(|to| to.hushed.contains(&voice))
    }

    /// Takes the level of an audio packet. Whether the voice is heard in automatic slots now; if only from now on, what it said
    /// just before is pushed to `forwards`.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        voice: TrackKey,
        level: Option<AudioLevel>,
        forwards: &mut Vec<Forward>,
    ) -> bool {
        let is_heard = match level {
            Some(level) => self
                .speakers
                .handle_level(now, voice, level.level, level.voice),
            None => self.speakers.handle_unlevelled(voice),
        };

        while let Some(event) = self.speakers.poll_event() {
            match event {
                Event::Forwarded {
                    who,
                    forwarded: true,
                } => self.place(now, who, forwards),
                // Its slots are kept until somebody needs them.
                Event::Forwarded { .. } => {}
                Event::Speaking => self.outputs.push_back(Output::Speaking),
            }
        }
        is_heard
    }

    /// Judges who speaks.
    pub(super) fn judge_speakers(&mut self, now: Instant) {
        self.speakers.handle_timeout(now);

        while let Some(event) = self.speakers.poll_event() {
            if matches!(event, Event::Speaking) {
                self.outputs.push_back(Output::Speaking);
            }
        }
    }

    /// Fills an automatic slot with a voice that is heard and that its Participant has in no other one.
    pub(super) fn fill(&mut self, slot: SlotKey) {
        let Some(to) = self.slots.get(slot).filter(|slot| slot.automatic) else {
            return;
        };
        let subscriber = to.participant;
        let voice = self
            .speakers
            .forwarded()
            .iter()
            .copied()
            .find(|voice| self.lacks(subscriber, *voice));

        if let Some(voice) = voice {
            self.put(slot, voice);
        }
    }

    /// Gives a voice that is heard from now on an automatic slot of everybody else.
    fn place(&mut self, now: Instant, voice: TrackKey, forwards: &mut Vec<Forward>) {
        let subscribers: Vec<ParticipantKey> =
            self.participants.iter().map(|(key, _)| key).collect();

        for subscriber in subscribers {
            if !self.lacks(subscriber, voice) {
                continue;
            }
            if let Some(slot) = self.free_slot(subscriber)
                && self.put(slot, voice)
            {
                self.send_first_word(now, slot, voice, forwards);
            }
        }
    }

    /// Whether a voice is to be put into an automatic slot of a Participant: it is not their own, wanted, and in none of their slots.
    fn lacks(&self, subscriber: ParticipantKey, voice: TrackKey) -> bool {
        let is_own = self
            .tracks
            .get(voice)
            .is_none_or(|track| track.participant == subscriber);
        let mut slots = self.slots_of(subscriber);

        !is_own && !self.is_hushed(subscriber, voice) && slots.all(|slot| slot.track != Some(voice))
    }

    /// An automatic slot that is empty, or else one whose voice isn't heard now.
    fn free_slot(&self, subscriber: ParticipantKey) -> Option<SlotKey> {
        let heard = self.speakers.forwarded();
        let free = |is_free: &dyn Fn(Option<TrackKey>) -> bool| {
            self.slots_of(subscriber)
                .find(|slot| slot.automatic && is_free(slot.track))
                .map(|slot| slot.key)
        };

        free(&|track| track.is_none())
            .or_else(|| free(&|track| track.is_some_and(|track| !heard.contains(&track))))
    }

    fn slots_of(&self, subscriber: ParticipantKey) -> impl Iterator<Item = &crate::slot::Slot> {
        let slots = self
            .participants
            .get(subscriber)
            .map_or(&[][..], |subscriber| &subscriber.slots);

        slots.iter().filter_map(|slot| self.slots.get(*slot))
    }

    /// Puts a voice into an automatic slot, if its subscriber can decode it.
    fn put(&mut self, slot: SlotKey, voice: TrackKey) -> bool {
        let is_put = self.carry(slot, voice).is_ok();

        if is_put && let Some(to) = self.slots.get(slot) {
            self.outputs.push_back(Output::SlotChanged {
                participant: to.participant,
                slot,
                track: Some(voice),
            });
        }
        is_put
    }

    /// Sends what a voice said in the moments before it got its slot.
    fn send_first_word(
        &mut self,
        now: Instant,
        slot: SlotKey,
        voice: TrackKey,
        forwards: &mut Vec<Forward>,
    ) {
        let (Some(to), Some(track)) = (self.slots.get_mut(slot), self.tracks.get(voice)) else {
            return;
        };
        let (Some(encoding), Some(clock_rate)) = (
            track.encodings.first(),
            track.formats.first().map(|format| format.clock_rate),
        ) else {
            return;
        };
        let mut newest = None;

        for (position, cached) in encoding.cache.since(now, FIRST_WORD) {
            // In the order of the stream; what came late is not worth a gap.
            let sequence = cached.record.incoming.sequence;
            if newest
                .replace(sequence)
                .is_some_and(|newest| newest >= sequence)
            {
                return;
            }
            let offered = Offered {
                record: *cached.record,
                encoding: 0,
                position: Some(position),
                encrypted: track.encrypted,
                restarted: false,
                is_newest: true,
                starts_picture: true,
                is_heard: true,
                top: Detail::BASE,
                len: u16::try_from(cached.extensions.len() + cached.payload.len())
                    .unwrap_or(u16::MAX),
                clock_rate,
                offset_to: &|_| None,
            };
            forwards.extend(to.handle(now, &offered));
        }
    }
}
