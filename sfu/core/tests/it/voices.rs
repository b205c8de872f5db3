//! Who is heard in automatic slots.

use std::collections::BTreeSet;
use std::time::Duration;

use sfu_core::{Output, ParticipantKey, Refusal, SlotKey, TrackKey, VOICES_MAX};
use sfu_rtp::extension::{AudioLevel, ExtensionKind};

use crate::stage::{Out, Stage, opus};

/// A Room of people with microphones, and a listener with as many slots as voices are heard.
struct Hall {
    stage: Stage,
    people: Vec<(ParticipantKey, TrackKey)>,
    slots: Vec<SlotKey>,
    packet: u16,
}

impl Hall {
    fn new(people: usize) -> Self {
        let mut stage = Stage::new();
        let listener = stage.join();
        let slots = (0..VOICES_MAX)
            .map(|_| stage.automatic_slot(listener))
            .collect();
        let people = (0..people)
            .map(|_| {
                let one = stage.join();
                (one, stage.publish_microphone(one))
            })
            .collect();

        Self {
            stage,
            people,
            slots,
            packet: 0,
        }
    }

    /// 20 ms: everybody sends a packet, `loud` people a loud one. Gives what the listener hears of whom.
    fn speak(&mut self, loud: &[usize]) -> Vec<(usize, Out)> {
        let mut heard = Vec::new();
        self.packet += 1;

        for index in 0..self.people.len() {
            let is_loud = loud.contains(&index);
            let level = AudioLevel {
                voice: is_loud,
                level: if is_loud { 20 } else { 127 },
            };
            let packet = opus(self.packet).with(ExtensionKind::AudioLevel, &level.to_bytes());
            let out = self.stage.send(self.people[index].0, &packet);
            heard.extend(out.into_iter().map(|out| (index, out)));
        }
        self.stage.advance(Duration::from_millis(20));
        heard
    }

    fn changes(&mut self) -> Vec<(SlotKey, Option<TrackKey>)> {
        std::iter::from_fn(|| self.stage.room.poll_output())
            .filter_map(|output| match output {
                Output::SlotChanged { slot, track, .. } => Some((slot, track)),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn in_a_small_room_everybody_is_heard_and_nothing_changes() {
    let mut hall = Hall::new(VOICES_MAX);

    for n in 0..500 {
        let heard: BTreeSet<usize> = hall
            .speak(&[n / 60 % VOICES_MAX])
            .iter()
            .map(|(who, _)| *who)
            .collect();
        assert_eq!(heard.len(), VOICES_MAX);
    }
    assert_eq!(
        hall.changes().len(),
        VOICES_MAX,
        "each slot was filled once"
    );
    assert_eq!(
        hall.stage.subscribe(hall.slots[0], hall.people[1].1),
        Err(Refusal::Mismatch)
    );
}

#[test]
fn who_begins_to_speak_takes_the_slot_of_who_is_silent_and_their_first_word_is_heard() {
    let mut hall = Hall::new(VOICES_MAX + 2);
    let newcomer = VOICES_MAX + 1;
    for _ in 0..200 {
        assert!(hall.speak(&[0]).iter().all(|(who, _)| *who < VOICES_MAX));
    }
    hall.changes();

    let heard: Vec<Out> = hall
        .speak(&[0, newcomer])
        .into_iter()
        .filter_map(|(who, out)| (who == newcomer).then_some(out))
        .collect();
    assert_eq!(heard.len(), 5, "80 ms before the first loud packet");
    assert!(heard[0].fixed.marker && !heard[1].fixed.marker);
    for pair in heard.windows(2) {
        assert_eq!(pair[1].index, pair[0].index + 1);
        assert_eq!(pair[1].fixed.timestamp, pair[0].fixed.timestamp + 960);
    }

    let changes = hall.changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].1, Some(hall.people[newcomer].1));
    assert_ne!(hall.stage.room.carried(changes[0].0), None);
    for _ in 0..10 {
        let heard: BTreeSet<usize> = hall
            .speak(&[0, newcomer])
            .iter()
            .map(|(who, _)| *who)
            .collect();
        assert!(heard.contains(&0) && heard.contains(&newcomer) && heard.len() <= VOICES_MAX);
    }
}

#[test]
fn a_slot_whose_voices_change_is_one_stream() {
    let mut hall = Hall::new(20);
    let mut streams: std::collections::BTreeMap<SlotKey, Vec<Out>> =
        std::collections::BTreeMap::new();

    for n in 0..2000 {
        for (_, out) in hall.speak(&[n / 70 % 20, n / 45 % 20]) {
            streams.entry(out.slot).or_default().push(out);
        }
    }
    assert_eq!(streams.len(), VOICES_MAX);
    for outs in streams.values() {
        for pair in outs.windows(2) {
            assert_eq!(pair[1].index, pair[0].index + 1);
            let step = pair[1]
                .fixed
                .timestamp
                .wrapping_sub(pair[0].fixed.timestamp);
            assert!((1..48_000 * 60).contains(&step), "{step}");
        }
    }
}

#[test]
fn who_joins_late_hears_who_is_heard() {
    let mut hall = Hall::new(2);
    hall.speak(&[0]);
    let late = hall.stage.join();
    let slots = [
        hall.stage.automatic_slot(late),
        hall.stage.automatic_slot(late),
    ];

    let carried: Vec<_> = slots
        .iter()
        .map(|slot| hall.stage.room.carried(*slot).unwrap().0)
        .collect();
    assert_eq!(carried, [hall.people[0].1, hall.people[1].1]);
    assert_eq!(hall.speak(&[]).len(), 4);

    hall.stage.room.set_muted(hall.people[0].1, true);
    assert_eq!(hall.speak(&[0]).len(), 2);
    hall.stage.room.leave(hall.people[1].0);
    assert!(hall.changes().contains(&(slots[1], None)));
}
