//! Active speakers: who is heard in a big Room, and who leads, from audio levels alone (RFC 6464).
//!
//! ```text
//!  every audio packet ── handle_level ──▶ forward it now?   (a slot of N, taken by the first loud packet)
//!  every 100 ms ─────── handle_timeout ─▶ Event::Speaking   (who speaks, the dominant speaker first)
//! ```
//!
//! Levels are judged against each publisher's own floor, which falls at once and rises slowly: steady noise, a hum or a level
//! that is always 0 dBov soon counts as silence. Loudness above the floor is smoothed over an immediate, a medium and a long
//! window (after Volfin and Cohen, "Dominant speaker identification for multipoint videoconferencing", 2012): a slot needs the
//! first alone, so that no first word is lost; to lead needs all three, so that a cough changes nothing.

mod voice;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use voice::Voice;

/// Who spoke this long ago at most keeps their slot while others are silent for longer.
pub const HOLD: Duration = Duration::from_secs(2);

/// Who pauses for this long may lose their slot to somebody who begins to speak, when nobody else is silent for longer.
const YIELD_AFTER: Duration = Duration::from_millis(500);

/// Where everybody speaks at once, only who is louder by so many decibels replaces a speaker.
const LOUDER_DB: f32 = 10.0;

/// How often who is heard may change, per second, whatever the levels say; a burst of [`SWITCHES_BURST`] is free.
const SWITCHES_PER_SECOND: f32 = 8.0;

/// Changes that may come at once, as when several people begin to laugh.
const SWITCHES_BURST: f32 = 12.0;

/// How often speakers are judged.
const TICK: Duration = Duration::from_millis(100);

/// Smoothed over the medium window, so many decibels above the floor is speaking: some 300 ms of a voice.
const SPEAKING_DB: f32 = 12.0;

/// Below this, who spoke has stopped.
const SILENT_DB: f32 = 4.0;

/// How long a speaker leads at least, while they speak.
const LEAD_MIN: Duration = Duration::from_secs(1);

/// The most speakers named at once.
pub const SPEAKING_MAX: usize = 8;

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<K> {
    /// `who` is forwarded from now on, or no longer.
    Forwarded {
        /// Whose audio.
        who: K,
        /// Whether it is forwarded.
        forwarded: bool,
    },
    /// [`Speakers::speaking`] has changed.
    Speaking,
}

/// The voices of a Room; `K` names one (an audio Track).
#[derive(Debug)]
pub struct Speakers<K> {
    slots: usize,
    voices: BTreeMap<K, Voice>,
    /// Who is forwarded; at most `slots`.
    holders: Vec<K>,
    switches: f32,
    switches_at: Option<Instant>,
    speaking: Vec<K>,
    leads_since: Option<Instant>,
    timeout: Option<Instant>,
    events: VecDeque<Event<K>>,
}

impl<K: Copy + Ord> Speakers<K> {
    /// Nobody yet; at most `slots` voices are forwarded at once.
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            voices: BTreeMap::new(),
            holders: Vec::with_capacity(slots),
            switches: SWITCHES_BURST,
            switches_at: None,
            speaking: Vec::with_capacity(SPEAKING_MAX),
            leads_since: None,
            timeout: None,
            events: VecDeque::new(),
        }
    }

    /// Adds a voice. While there are free slots it has one from its first packet on.
    pub fn join(&mut self, who: K) {
        self.voices.entry(who).or_default();
    }

    /// Removes a voice.
    pub fn leave(&mut self, who: K) {
        self.voices.remove(&who);
        self.give_up(who);
    }

    /// Mutes a voice or lets it speak again. Nothing of a muted voice is forwarded, whatever it sends.
    pub fn set_muted(&mut self, who: K, muted: bool) {
        let Some(voice) = self.voices.get_mut(&who) else {
            return;
        };
        voice.is_muted = muted;
        if muted {
            voice.silence();
            self.give_up(who);
        }
    }

    /// An audio packet came with this audio level: `level` in -dBov, 0 (loudest) to 127, and `has_voice` as the publisher set
    /// the V bit. Returns whether to forward the packet. Costs a look-up, and a look at the slots when somebody begins to speak.
    pub fn handle_level(&mut self, now: Instant, who: K, level: u8, has_voice: bool) -> bool {
        self.timeout.get_or_insert(now + TICK);
        let Some(voice) = self.voices.get_mut(&who) else {
            return false;
        };
        if voice.is_muted {
            return false;
        }
        let is_loud = voice.hear(now, level, has_voice);
        voice.holds_slot || self.take_free_slot(who) || (is_loud && self.replace_somebody(now, who))
    }

    /// An audio packet came without an audio level, so nobody knows how loud it is: it is forwarded while a slot is free.
    pub fn handle_unlevelled(&mut self, who: K) -> bool {
        match self.voices.get(&who) {
            Some(voice) if !voice.is_muted => voice.holds_slot || self.take_free_slot(who),
            _ => false,
        }
    }

    /// Judges who speaks and who leads.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timeout.is_none_or(|at| at > now) {
            return;
        }
        self.timeout = Some(now + TICK);

        let mut loudness = Vec::with_capacity(SPEAKING_MAX);
        for (&who, voice) in &mut self.voices {
            voice.settle(now);
            let needed = if voice.is_speaking {
                SILENT_DB
            } else {
                SPEAKING_DB
            };
            voice.is_speaking = voice.medium() >= needed;
            if voice.is_speaking {
                loudness.push((who, voice.medium()));
            }
        }
        loudness.sort_by(|a, b| b.1.total_cmp(&a.1));

        let leader = self.lead(now, loudness.first().map(|loudest| loudest.0));
        loudness.sort_by_key(|&(who, _)| Some(who) != leader);
        loudness.truncate(SPEAKING_MAX);
        self.tell(now, &loudness);
    }

    /// When [`Speakers::handle_timeout`] is due; `None` until somebody was heard.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// The next change.
    pub fn poll_event(&mut self) -> Option<Event<K>> {
        self.events.pop_front()
    }

    /// Who speaks, the dominant speaker first; at most [`SPEAKING_MAX`], empty when nobody does.
    pub fn speaking(&self) -> &[K] {
        &self.speaking
    }

    /// Who is forwarded, in no order; at most as many as there are slots.
    pub fn forwarded(&self) -> &[K] {
        &self.holders
    }

    fn take_free_slot(&mut self, who: K) -> bool {
        let is_free = self.holders.len() < self.slots;
        if is_free {
            self.take_slot(who);
        }
        is_free
    }

    /// Gives `who`, who has begun to speak, the slot of somebody who is silent or much softer.
    fn replace_somebody(&mut self, now: Instant, who: K) -> bool {
        let loudness = self.voices.get(&who).map_or(0.0, Voice::immediate);
        let silence = |k: &K| {
            self.voices
                .get(k)
                .map_or(Duration::MAX, |v| v.silent_for(now))
        };
        let softness = |k: &K| {
            self.voices
                .get(k)
                .map_or(0.0, |v| v.immediate().max(v.medium()))
        };

        let Some(quietest) = self.holders.iter().copied().max_by_key(silence) else {
            return false;
        };
        let softest = self
            .holders
            .iter()
            .copied()
            .min_by(|a, b| softness(a).total_cmp(&softness(b)))
            .filter(|k| loudness >= softness(k) + LOUDER_DB);

        let victim = if silence(&quietest) >= YIELD_AFTER {
            Some(quietest)
        } else {
            softest
        };
        let Some(victim) = victim.filter(|_| self.may_switch(now)) else {
            return false;
        };
        self.give_up(victim);
        self.take_slot(who);
        true
    }

    fn may_switch(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.switches_at.unwrap_or(now));
        self.switches_at = Some(now);
        self.switches =
            (self.switches + passed.as_secs_f32() * SWITCHES_PER_SECOND).min(SWITCHES_BURST);
        let may = self.switches >= 1.0;
        if may {
            self.switches -= 1.0;
        }
        may
    }

    fn take_slot(&mut self, who: K) {
        if let Some(voice) = self.voices.get_mut(&who) {
            voice.holds_slot = true;
            self.holders.push(who);
            self.report(who, true);
        }
    }

    fn give_up(&mut self, who: K) {
        if let Some(voice) = self.voices.get_mut(&who) {
            voice.holds_slot = false;
        }
        if let Some(at) = self.holders.iter().position(|&holder| holder == who) {
            self.holders.swap_remove(at);
            self.report(who, false);
        }
    }

    /// Queues a change; of one voice only the last waits, so the queue is as long as the Room is large.
    fn report(&mut self, who: K, forwarded: bool) {
        self.events
            .retain(|event| !matches!(event, Event::Forwarded { who: other, .. } if *other == who));
        self.events.push_back(Event::Forwarded { who, forwarded });
    }

    /// Who leads: who did, unless they are silent or `loudest` beats them over all three windows.
    fn lead(&self, now: Instant, loudest: Option<K>) -> Option<K> {
        let leader = self.speaking.first().copied();
        let (Some(leads), Some(challenges)) = (leader, loudest) else {
            return loudest;
        };
        let (Some(old), Some(new)) = (self.voices.get(&leads), self.voices.get(&challenges)) else {
            return loudest;
        };
        let is_settled = self
            .leads_since
            .is_some_and(|since| now.saturating_duration_since(since) >= LEAD_MIN);
        let is_beaten = is_settled && new.beats(old);
        Some(if old.is_speaking && !is_beaten {
            leads
        } else {
            challenges
        })
    }

    /// Takes over who speaks; others than before, or another leader, are news; another order of the rest is not.
    fn tell(&mut self, now: Instant, loudness: &[(K, f32)]) {
        let leader = loudness.first().map(|first| first.0);
        let is_other_leader = leader != self.speaking.first().copied();
        let is_news = is_other_leader
            || loudness.len() != self.speaking.len()
            || loudness.iter().any(|(who, _)| !self.speaking.contains(who));

        if is_other_leader {
            self.leads_since = Some(now);
        }
        if is_news {
            self.speaking.clear();
            self.speaking.extend(loudness.iter().map(|&(who, _)| who));
            self.events.retain(|event| *event != Event::Speaking);
            self.events.push_back(Event::Speaking);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_loud_packet_of_a_new_speaker_is_forwarded() {
        let mut t = Story::new(3, 50);
        t.talk(&[0, 1, 2], 3000);
        t.silence(600);
        assert!(t.packet(20, LOUD));
        assert_eq!(t.room.forwarded().len(), 3);
    }

    #[test]
    fn everybody_is_forwarded_while_there_are_slots_for_everybody() {
        let mut t = Story::new(4, 4);
        assert!((0..4).all(|who| t.packet(who, SILENT)));
        t.talk(&[0], 5000);
        assert!((0..4).all(|who| t.packet(who, SILENT)));
    }

    #[test]
    fn who_paused_for_a_moment_is_kept_and_who_is_silent_the_longest_goes() {
        let mut t = Story::new(2, 3);
        t.talk(&[0], 1000);
        t.talk(&[1], 1000);
        assert!(t.packet(2, LOUD), "takes the slot of 0");
        let mut heard = t.room.forwarded().to_vec();
        heard.sort_unstable();
        assert_eq!(heard, [1, 2]);
        t.talk(&[1, 2], 400);
        // Both have just spoken and 0 is no louder than they are.
        assert!(!t.packet(0, LOUD));
    }

    #[test]
    fn a_cough_does_not_lead_and_a_new_speaker_does_within_a_second() {
        let mut t = Story::new(3, 5);
        t.talk(&[0], 5000);
        assert_eq!(t.room.speaking(), [0]);
        t.talk(&[0, 1], 150);
        t.talk(&[0], 1500);
        assert_eq!(t.room.speaking().first(), Some(&0));
        t.talk(&[2], 1000);
        assert_eq!(t.room.speaking().first(), Some(&2));
    }

    #[test]
    fn speaking_ends_when_nobody_speaks() {
        let mut t = Story::new(3, 3);
        t.talk(&[1], 2000);
        assert_eq!(t.room.speaking(), [1]);
        t.silence(4000);
        assert!(t.room.speaking().is_empty());
        assert!(t.events().contains(&Event::Speaking));
    }

    #[test]
    fn a_muted_voice_is_neither_forwarded_nor_named() {
        let mut t = Story::new(2, 2);
        t.talk(&[0], 2000);
        t.room.set_muted(0, true);
        assert!(!t.packet(0, LOUD));
        t.talk(&[0], 1000);
        assert!(!t.room.speaking().contains(&0));
        t.room.set_muted(0, false);
        assert!(t.packet(0, LOUD));
    }

    #[test]
    fn a_level_that_never_changes_soon_counts_as_silence() {
        let mut t = Story::new(1, 3);
        for _ in 0..50 * 60 {
            t.step(&[(0, 0)]);
        }
        assert!(t.room.speaking().is_empty());
        assert!(
            t.packet(1, LOUD),
            "the liar's slot is free for the first who speaks"
        );
    }

    #[test]
    fn whatever_the_levels_say_who_is_heard_changes_seldom() {
        for lie in [[0, 0], [0, 127], [20, 90]] {
            let mut t = Story::new(3, 40);
            let mut changes = 0;
            for tick in 0..50 * 20_usize {
                let levels: Vec<(u32, u8)> = (0..40)
                    .map(|who: u32| (who, lie[(tick / 3 + who as usize) % 2]))
                    .collect();
                t.step(&levels);
                let events = t.events();
                changes += events
                    .iter()
                    .filter(|event| {
                        matches!(
                            event,
                            Event::Forwarded {
                                forwarded: true,
                                ..
                            }
                        )
                    })
                    .count();
                assert!(t.room.forwarded().len() <= 3);
            }
            assert!(changes < 20 * 8 + 12 + 3, "{lie:?}: {changes}");
        }
    }

    #[test]
    fn who_sends_no_levels_is_forwarded_while_a_slot_is_free() {
        let mut t = Story::new(1, 2);
        assert!(t.room.handle_unlevelled(0));
        assert!(!t.room.handle_unlevelled(1));
        assert!(t.packet(1, LOUD));
        assert!(!t.room.handle_unlevelled(0));
        assert!(!t.room.handle_unlevelled(99));
    }

    #[test]
    fn who_leaves_frees_the_slot() {
        let mut t = Story::new(1, 2);
        assert!(t.packet(0, LOUD));
        t.room.leave(0);
        assert_eq!(
            t.events(),
            [Event::Forwarded {
                who: 0,
                forwarded: false
            }]
        );
        assert!(t.packet(1, SILENT));
        assert!(!t.packet(0, LOUD));
    }

    const LOUD: u8 = 25;
    const SILENT: u8 = 100;

    struct Story {
        room: Speakers<u32>,
        people: u32,
        now: Instant,
        tick: u32,
    }

    impl Story {
        fn new(slots: usize, people: u32) -> Self {
            let mut room = Speakers::new(slots);
            (0..people).for_each(|who| room.join(who));
            Self {
                room,
                people,
                now: crate::test::start(),
                tick: 0,
            }
        }

        fn packet(&mut self, who: u32, level: u8) -> bool {
            self.room.handle_level(self.now, who, level, level < 50)
        }

        /// 20 ms with a packet of each of `levels`.
        fn step(&mut self, levels: &[(u32, u8)]) {
            self.now += Duration::from_millis(20);
            self.tick += 1;
            for &(who, level) in levels {
                self.packet(who, level);
            }
            self.room.handle_timeout(self.now);
        }

        /// `speakers` talk as people do, syllable by syllable; the others are silent.
        fn talk(&mut self, speakers: &[u32], millis: u32) {
            for _ in 0..millis / 20 {
                let syllable = self.tick % 12 < 9;
                let levels: Vec<(u32, u8)> = (0..self.people)
                    .map(|who| match speakers.contains(&who) {
                        true if syllable => (who, LOUD + u8::try_from(self.tick % 5).unwrap()),
                        true => (who, 60),
                        false => (who, SILENT),
                    })
                    .collect();
                self.step(&levels);
            }
        }

        fn silence(&mut self, millis: u32) {
            self.talk(&[], millis);
        }

        fn events(&mut self) -> Vec<Event<u32>> {
            std::iter::from_fn(|| self.room.poll_event()).collect()
        }
    }
}
