//! What a viewer with one picture sees: a pure choice among what people in the Room send.
//!
//! In: who is there, with their Tracks, and who speaks. Out: wishes for `room.want`, whenever they are others than before.
//!
//! The rule: the newest screen; else the camera of the loudest who has one, and it stays as long as they speak; else what was shown
//! last; else the newest camera. A viewer that names somebody sees and hears them alone, their screen before their camera.

use std::collections::BTreeMap;

use model::room::ParticipantState;
use model::{ParticipantId, Source, TrackId};
use signaling_wire::room::{TrackWish, WISHES_MAX};

/// What a viewer wants to see and hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Whether what is not named is received, too.
    pub(crate) automatic: bool,
    pub(crate) wishes: Vec<TrackWish>,
}

/// The Room as a viewer needs to know it.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    /// The User or the Participant to be seen alone.
    whom: Option<String>,
    people: BTreeMap<ParticipantId, ParticipantState>,
    /// The loudest first.
    speakers: Vec<ParticipantId>,
    shown: Option<TrackId>,
    told: Option<Wanted>,
}

impl Scene {
    /// A viewer of `whom`, a User or a Participant by their id, or else of whoever matters most.
    pub(crate) fn new(whom: Option<String>) -> Self {
        Self {
            whom,
            ..Self::default()
        }
    }

    /// Somebody is there, or sends something else than before.
    pub(crate) fn change(&mut self, state: ParticipantState) {
        self.people.insert(state.participant, state);
    }

    pub(crate) fn leave(&mut self, participant: ParticipantId) {
        self.people.remove(&participant);
        self.speakers.retain(|speaker| *speaker != participant);
    }

    pub(crate) fn speak(&mut self, speakers: Vec<ParticipantId>) {
        self.speakers = speakers;
    }

    /// What is wanted now; `None` when that was told already.
    pub(crate) fn poll_wanted(&mut self) -> Option<Wanted> {
        self.shown = self.choose();
        let wish = |track| TrackWish {
            track,
            wanted: true,
            height: None,
            pinned: Some(track) == self.shown,
            priority: 0,
        };
        let wishes: Vec<TrackWish> = match &self.whom {
            Some(_) => {
                let tracks = self.meant().flat_map(|state| &state.tracks);
                let heard = tracks.filter(|track| track.source.is_audio());
                let heard = heard.map(|track| track.track);
                heard.chain(self.shown).take(WISHES_MAX).map(wish).collect()
            }
            None => self.shown.into_iter().map(wish).collect(),
        };
        let wanted = Wanted {
            automatic: self.whom.is_none(),
            wishes,
        };
        if self.told.as_ref() == Some(&wanted) {
            return None;
        }
        self.told = Some(wanted.clone());
        Some(wanted)
    }

    fn choose(&self) -> Option<TrackId> {
        // Ids grow with time.
        let newest = |source: Source| {
            let tracks = self.meant().flat_map(|state| sent(state, source));
            tracks.max()
        };
        if let Some(screen) = newest(Source::Screen) {
            return Some(screen);
        }

        let speaking = self.speakers.iter().filter_map(|id| self.people.get(id));
        let cameras: Vec<TrackId> = speaking
            .filter(|state| self.is_meant(state))
            .flat_map(|state| sent(state, Source::Camera))
            .collect();
        let is_there = |track: &TrackId| {
            let mut all = self.meant().flat_map(|state| sent(state, Source::Camera));
            all.any(|other| other == *track)
        };
        let stays = self.shown.filter(|track| cameras.contains(track));
        stays
            .or_else(|| cameras.first().copied())
            .or_else(|| self.shown.filter(is_there))
            .or_else(|| newest(Source::Camera))
    }

    fn meant(&self) -> impl Iterator<Item = &ParticipantState> {
        let people = self.people.values();
        people.filter(|state| self.is_meant(state))
    }

    fn is_meant(&self, state: &ParticipantState) -> bool {
        self.whom.as_ref().is_none_or(|whom| {
            state.user.as_str() == whom || state.participant.to_string() == *whom
        })
    }
}

/// Their Tracks of a source that are not muted.
fn sent(state: &ParticipantState, source: Source) -> impl Iterator<Item = TrackId> {
    let live = state
        .tracks
        .iter()
        .filter(move |track| track.source == source && !track.muted);
    live.map(|track| track.track)
}

#[cfg(test)]
mod tests {
    use model::room::TrackState;
    use model::{Role, Timestamp};

    use super::*;

    fn id(number: u128) -> ParticipantId {
        ParticipantId::from_u128(number)
    }

    /// A Participant `number`, the User `u<number>`, with Tracks of these ids.
    fn person(number: u128, tracks: &[(u128, Source)]) -> ParticipantState {
        let track = |(track, source): &(u128, Source)| TrackState {
            track: TrackId::from_u128(*track),
            source: *source,
            muted: false,
        };
        ParticipantState {
            participant: id(number),
            user: format!("u{number}").parse().unwrap(),
            name: None,
            role: Role::Speaker,
            permissions: Role::Speaker.permissions(),
            hand_at: None,
            joined_at: Timestamp::default(),
            phone: None,
            tracks: tracks.iter().map(track).collect(),
            metadata: None,
            e2ee: None,
        }
    }

    /// Which Track is pinned in what is wanted now; 0 for none. Panics when nothing has changed.
    fn pinned(scene: &mut Scene) -> u128 {
        let wanted = scene.poll_wanted().expect("something else");
        let mut pinned = wanted.wishes.iter().filter(|wish| wish.pinned);
        pinned.next().map_or(0, |wish| wish.track.as_u128())
    }

    #[test]
    fn the_loudest_camera_is_shown_until_its_owner_is_silent_and_a_screen_before_all() {
        let mut scene = Scene::new(None);
        assert_eq!(pinned(&mut scene), 0);
        scene.change(person(1, &[(11, Source::Camera), (12, Source::Microphone)]));
        scene.change(person(2, &[(21, Source::Camera)]));
        scene.change(person(3, &[(31, Source::Microphone)]));
        assert_eq!(pinned(&mut scene), 21, "the newest");

        scene.speak(vec![id(3), id(1)]);
        assert_eq!(pinned(&mut scene), 11, "the loudest with a camera");
        scene.speak(vec![id(2), id(1)]);
        assert_eq!(scene.poll_wanted(), None, "still speaks");
        scene.speak(vec![id(2)]);
        assert_eq!(pinned(&mut scene), 21);
        scene.speak(Vec::new());
        assert_eq!(scene.poll_wanted(), None, "the last who spoke");

        scene.change(person(1, &[(13, Source::Screen), (11, Source::Camera)]));
        assert_eq!(pinned(&mut scene), 13);
        scene.change(person(3, &[(33, Source::Screen)]));
        assert_eq!(pinned(&mut scene), 33, "the newest screen");
        scene.leave(id(3));
        assert_eq!(pinned(&mut scene), 13);
        scene.leave(id(1));
        assert_eq!(pinned(&mut scene), 21);
        scene.leave(id(2));
        assert_eq!(pinned(&mut scene), 0);
    }

    #[test]
    fn a_muted_camera_is_not_shown() {
        let mut scene = Scene::new(None);
        scene.change(person(1, &[(11, Source::Camera)]));
        assert_eq!(pinned(&mut scene), 11);
        let mut muted = person(1, &[(11, Source::Camera)]);
        muted.tracks[0].muted = true;
        scene.change(muted);
        assert_eq!(pinned(&mut scene), 0);
    }

    #[test]
    fn who_is_named_is_seen_and_heard_alone() {
        for whom in ["u2".to_owned(), id(2).to_string()] {
            let mut scene = Scene::new(Some(whom));
            scene.change(person(1, &[(11, Source::Screen), (12, Source::Microphone)]));
            let nobody = scene.poll_wanted().unwrap();
            assert!(!nobody.automatic && nobody.wishes.is_empty());

            scene.change(person(2, &[(21, Source::Camera), (22, Source::Microphone)]));
            scene.speak(vec![id(1)]);
            let wanted = scene.poll_wanted().unwrap();
            let tracks = wanted.wishes.iter().map(|wish| wish.track.as_u128());
            assert_eq!(tracks.collect::<Vec<_>>(), [22, 21]);
            assert!(!wanted.automatic && wanted.wishes[1].pinned);
        }
    }
}
