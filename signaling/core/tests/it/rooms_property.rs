//! Any order of what people, the SFU and time do to Rooms keeps the invariants.

use std::collections::{BTreeMap, BTreeSet};

use model::media::{MediaCommandKind, MediaEvent, MediaEventKind, MediaRefusal, TrackOffer};
use model::{ParticipantId, Permissions, RoomGrants, RoomId, Source, TrackId};
use proptest::prelude::*;
use serde_json::{Value, json};
use signaling_core::Limits;

use crate::harness::{TestSignaling, answer_of, sdp};

const NAMES: [&str; 6] = ["alice", "alice2", "bob", "carol", "gina", "hugo"];
const ROOMS: [&str; 2] = ["weekly", "other"];

/// One thing that happens: to whom, what, and two choices.
type Step = (usize, u8, usize, usize);

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_order_of_events_keeps_the_invariants_of_rooms(steps in prop::collection::vec(step(), 1..120)) {
        let mut t = TestSignaling::with_limits(Limits { participants_per_room_max: 4, ..Limits::default() });
        for name in NAMES {
            let is_guest = matches!(name, "gina" | "hugo");
            t.device(name).room_grants = RoomGrants { guest: is_guest, ..RoomGrants::default() };
            t.connect(name);
        }
        t.media_answers = false;
        let mut world = World::default();

        for step in steps {
            world.play(&mut t, step);
            world.look(&mut t);
        }
        world.all_leave(&mut t);
    }
}

fn step() -> impl Strategy<Value = Step> {
    (0..NAMES.len(), 0_u8..34, 0_usize..6, 0_usize..6)
}

/// What the SFU would hold, told by nothing but commands; and what each Device believes.
#[derive(Default)]
struct World {
    /// What the SFU has heard and not answered.
    offers: Vec<MediaEvent>,
    inside: BTreeMap<ParticipantId, Inside>,
    views: BTreeMap<&'static str, View>,
    generation: u32,
}

struct Inside {
    room: RoomId,
    permissions: Permissions,
    tracks: BTreeMap<TrackId, (Source, bool)>,
    /// Whether the SFU has taken an offer of theirs.
    is_taken: bool,
}

/// A Device's own picture, by Room: who it is there, and whom it sees.
#[derive(Default)]
struct View {
    own: BTreeMap<String, String>,
    seen: BTreeMap<String, BTreeMap<String, Value>>,
    waiting: BTreeSet<String>,
    lobby: BTreeMap<String, Vec<Value>>,
}

impl World {
    fn play(&mut self, t: &mut TestSignaling, (who, what, one, other): Step) {
        let name = NAMES[who];
        let (room, someone, track) = self.choose(name, one, other);
        let flag = other.is_multiple_of(2);
        self.generation += 1;
        let tracks = json!([{ "mid": "0", "source": "microphone", "muted": flag },
            { "mid": "1", "source": if one < 3 { "camera" } else { "screen" } }]);

        let said = match what {
            0..8 => {
                let settings =
                    json!({ "lobby": flag, "role": if one < 2 { "listener" } else { "speaker" } });
                Some((
                    "room.join",
                    json!({ "room": ROOMS[one % 2], "generation": self.generation,
                    "sdp": sdp(2), "tracks": tracks, "settings": settings }),
                ))
            }
            8 | 9 => Some((
                "room.offer",
                json!({ "generation": self.generation, "sdp": sdp(2), "tracks": tracks }),
            )),
            10 => Some(("room.leave", json!({}))),
            11 | 12 => Some(("room.mute", json!({ "track": track, "muted": flag }))),
            13 => Some((
                "room.want",
                json!({ "automatic": flag, "wishes": [{ "track": track, "wanted": flag }] }),
            )),
            14 => Some(("room.set", json!({ "locked": one == 0, "lobby": flag }))),
            15 | 16 => {
                let waiting = self
                    .views
                    .entry(name)
                    .or_default()
                    .lobby
                    .get(&room)
                    .cloned();
                Some((
                    "room.admit",
                    json!({ "waiting": waiting.unwrap_or_default(), "admit": one < 4 }),
                ))
            }
            17 | 18 => {
                let role = ["listener", "speaker", "moderator"][one % 3];
                Some(("room.role", json!({ "participant": someone, "role": role })))
            }
            19 => Some(("room.remove", json!({ "participant": someone }))),
            20 => Some(("room.hand", json!({ "up": flag }))),
            21 => Some((
                "room.chat",
                json!({ "text": "hello", "to": if flag { json!([someone]) } else { Value::Null } }),
            )),
            22 => Some(("room.metadata", json!({ "metadata": "x".repeat(one) }))),
            23 if one == 0 => Some(("room.end", json!({}))),
            _ => None,
        };
        if let Some((kind, mut data)) = said {
            if data["room"].is_null() {
                data["room"] = room.into();
            }
            t.send(name, kind, data);
            return;
        }

        match what {
            24..28 => self.answer(t, one),
            28 => self.refuse(t, one),
            29 => t.disconnect(name),
            30 => {
                t.forget(name);
                self.views.remove(name);
            }
            31 => t.advance([1, 1_000, 11_000, 61_000][one % 4]),
            32 if one == 0 => self.news(t, other, |participant| MediaEventKind::Gone {
                participant,
                reason: model::media::GoneReason::Unreachable,
            }),
            32 => self.news(t, other, |participant| MediaEventKind::Speakers {
                speakers: vec![participant],
            }),
            33 if one == 0 => self.news(t, other, |_| MediaEventKind::Failed),
            _ => {}
        }
        if t.device(name).connection.is_none() && what != 29 && t.connect(name)["resumed"] == false
        {
            self.views.remove(name);
        }
    }

    /// A Room, a Participant and a Track the Device knows, if it knows any.
    fn choose(&mut self, name: &'static str, one: usize, other: usize) -> (String, String, String) {
        let nothing = || ParticipantId::from_u128(1).to_string();
        let view = self.views.entry(name).or_default();
        let rooms: Vec<_> = view.own.keys().chain(&view.waiting).collect();
        let Some(room) = rooms.get(one % rooms.len().max(1)) else {
            return (nothing(), nothing(), nothing());
        };
        let seen: Vec<_> = view.seen.get(*room).into_iter().flatten().collect();
        let someone = seen.get(other % seen.len().max(1));
        let track = someone.and_then(|(_, state)| state["tracks"].get(one % 2));
        let track = track.map(|track| track["track"].as_str().unwrap().to_owned());
        let someone = someone.map(|(id, _)| (*id).clone());
        (
            (*room).clone(),
            someone.unwrap_or_else(nothing),
            track.unwrap_or_else(nothing),
        )
    }

    fn answer(&mut self, t: &mut TestSignaling, which: usize) {
        if !self.offers.is_empty() {
            let event = self.offers.remove(which % self.offers.len());
            if let MediaEventKind::Answered { participant, .. } = &event.kind
                && let Some(inside) = self.inside.get_mut(participant)
            {
                inside.is_taken = true;
            }
            t.media_says(event);
        }
    }

    fn refuse(&mut self, t: &mut TestSignaling, which: usize) {
        if self.offers.is_empty() {
            return;
        }
        let event = self.offers.remove(which % self.offers.len());
        let MediaEventKind::Answered {
            participant,
            generation,
            ..
        } = event.kind
        else {
            return;
        };
        if self
            .inside
            .get(&participant)
            .is_some_and(|inside| !inside.is_taken)
        {
            self.inside.remove(&participant);
        }
        let refusal = MediaRefusal::Full;
        let kind = MediaEventKind::Refused {
            participant,
            generation,
            refusal,
        };
        t.media_says(MediaEvent { kind, ..event });
    }

    fn news(
        &mut self,
        t: &mut TestSignaling,
        which: usize,
        kind: impl Fn(ParticipantId) -> MediaEventKind,
    ) {
        let inside: Vec<_> = self
            .inside
            .iter()
            .map(|(id, inside)| (*id, inside.room))
            .collect();
        let Some((id, room)) = inside.get(which % inside.len().max(1)) else {
            return;
        };
        let kind = kind(*id);
        match kind {
            MediaEventKind::Gone { .. } => {
                self.inside.remove(id);
            }
            MediaEventKind::Failed => self.inside.retain(|_, inside| inside.room != *room),
            _ => {}
        }
        t.news(&room.to_string(), kind);
    }

    fn look(&mut self, t: &mut TestSignaling) {
        self.hear_media(t);
        for name in NAMES {
            let frames: Vec<Value> = t.device(name).frames.drain(..).collect();
            for frame in frames {
                self.hear(name, &frame);
            }
        }
        self.agree(t);
    }

    /// What the SFU is told never exceeds what was permitted.
    fn hear_media(&mut self, t: &mut TestSignaling) {
        for command in std::mem::take(&mut t.media) {
            self.offers.extend(answer_of(&command));
            match command.kind {
                MediaCommandKind::Join {
                    participant,
                    permissions,
                    offer,
                    ..
                } => {
                    let inside = Inside {
                        room: command.room,
                        permissions,
                        tracks: tracks(&offer.tracks, permissions),
                        is_taken: false,
                    };
                    let before = self.inside.insert(participant, inside);
                    assert!(before.is_none(), "{participant} joins twice");
                }
                MediaCommandKind::JoinPlain { participant, .. } => {
                    panic!("{participant} is a phone, and there are none here");
                }
                MediaCommandKind::Offer { participant, offer } => {
                    let inside = self
                        .inside
                        .get_mut(&participant)
                        .expect("an offer of somebody inside");
                    inside
                        .tracks
                        .extend(tracks(&offer.tracks, inside.permissions));
                }
                MediaCommandKind::Leave { participant } => {
                    let before = self.inside.remove(&participant);
                    assert!(before.is_some(), "{participant} leaves and was not there");
                }
                MediaCommandKind::Permit {
                    participant,
                    permissions,
                } => {
                    let inside = self.inside.get_mut(&participant).expect("somebody inside");
                    inside.permissions = permissions;
                }
                MediaCommandKind::Mute { track, muted } => {
                    let mut all = self.inside.values_mut();
                    let of = all
                        .find(|inside| inside.tracks.contains_key(&track))
                        .expect("a known Track");
                    let held = of.tracks.get_mut(&track).unwrap();
                    held.1 = muted;
                    assert!(
                        muted || of.permissions.may_send(held.0),
                        "unmuted without permission"
                    );
                }
                MediaCommandKind::Want {
                    participant,
                    wishes,
                    ..
                } => {
                    let inside = &self.inside[&participant];
                    for wish in wishes {
                        let owner = self
                            .inside
                            .values()
                            .find(|one| one.tracks.contains_key(&wish.track));
                        assert_eq!(owner.expect("a known Track").room, inside.room);
                        assert!(!inside.tracks.contains_key(&wish.track), "wants their own");
                    }
                }
                MediaCommandKind::End => {
                    self.inside.retain(|_, inside| inside.room != command.room);
                }
            }
        }
    }

    /// A Device hears of no Room it is not in.
    fn hear(&mut self, name: &'static str, frame: &Value) {
        let view = self.views.entry(name).or_default();
        let (kind, data) = (frame["type"].as_str().unwrap(), &frame["data"]);
        if kind == "ok" && data["waiting"] == true {
            view.waiting.insert(text(&data["room"]));
        }
        if kind == "ok" && data["state"]["participants"].is_array() {
            let room = text(&data["state"]["room"]);
            let people = data["state"]["participants"].as_array().unwrap().iter();
            let people: BTreeMap<_, _> = people
                .map(|one| (text(&one["participant"]), one.clone()))
                .collect();
            view.waiting.remove(&room);
            view.own.insert(room.clone(), text(&data["participant"]));
            view.seen.insert(room, people);
        }
        if !kind.starts_with("room.") {
            return;
        }

        let room = text(&data["room"]);
        let is_inside = view.own.contains_key(&room);
        match kind {
            "room.admitted" | "room.denied" => {
                assert!(
                    view.waiting.remove(&room) || is_inside,
                    "{name} hears {kind} of a strange room"
                );
            }
            _ => assert!(is_inside, "{name} hears {kind} of a room it is not in"),
        }
        match kind {
            "room.participant" => {
                let state = &data["participant"];
                let people = view.seen.get_mut(&room).unwrap();
                people.insert(text(&state["participant"]), state.clone());
            }
            "room.left" => {
                let people = view.seen.get_mut(&room).unwrap();
                assert!(
                    people.remove(&text(&data["participant"])).is_some(),
                    "a stranger leaves"
                );
            }
            "room.lobby" => {
                let waiting = data["waiting"].as_array().unwrap().iter();
                view.lobby
                    .insert(room, waiting.map(|one| one["waiting"].clone()).collect());
            }
            "room.ended" => {
                view.own.remove(&room);
                view.seen.remove(&room);
            }
            _ => {}
        }
    }

    /// What connected Devices believe is what the SFU was told: the same people, each once, with the same permissions.
    fn agree(&mut self, t: &mut TestSignaling) {
        let mut counted = 0;
        for name in NAMES {
            if t.device(name).connection.is_none() {
                return; // somebody has not heard all yet
            }
        }
        let mut rooms: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
        for view in self.views.values() {
            for (room, own) in &view.own {
                let seen = &view.seen[room];
                // Who left by `room.leave` still believes to be in: its `ok` says nothing of it.
                if !self.inside.contains_key(&own.parse().unwrap()) {
                    continue;
                }
                counted += 1;
                let people: BTreeSet<&String> = seen.keys().collect();
                assert_eq!(rooms.entry(room).or_insert_with(|| people.clone()), &people);
                assert!(people.contains(own));

                let mut moderators = 0;
                for (id, state) in seen {
                    let inside = self
                        .inside
                        .get(&id.parse().unwrap())
                        .expect("the SFU knows them");
                    let told: Permissions =
                        serde_json::from_value(state["permissions"].clone()).unwrap();
                    assert_eq!(told, inside.permissions);
                    moderators += usize::from(told.moderate);
                    for track in state["tracks"].as_array().unwrap() {
                        let source: Source =
                            serde_json::from_value(track["source"].clone()).unwrap();
                        assert!(track["muted"] == true || told.may_send(source));
                        let held = &inside.tracks[&text(&track["track"]).parse().unwrap()];
                        assert_eq!(track["muted"], held.1);
                    }
                }
                let users = seen
                    .values()
                    .any(|state| !matches!(state["user"].as_str(), Some("gina" | "hugo")));
                assert!(moderators > 0 || !users, "nobody moderates {room}");
                assert!(seen.len() <= 4);
            }
        }
        assert_eq!(
            counted,
            t.cores[0].counts().participants,
            "each is in one list"
        );
    }

    /// When all Sessions have ended nothing is left, here and at the SFU.
    fn all_leave(&mut self, t: &mut TestSignaling) {
        for name in NAMES {
            t.disconnect(name);
        }
        t.advance(60_000);
        self.hear_media(t);
        assert!(self.inside.is_empty(), "the SFU still holds somebody");
        t.advance(60_000);
        let counts = t.cores[0].counts();
        assert_eq!(
            (counts.rooms, counts.participants, counts.waiting),
            (0, 0, 0)
        );
    }
}

fn tracks(offers: &[TrackOffer], permissions: Permissions) -> BTreeMap<TrackId, (Source, bool)> {
    let tracks = offers.iter().map(|offer| {
        assert!(
            permissions.may_send(offer.source),
            "offered without permission"
        );
        (offer.track, (offer.source, offer.muted))
    });
    tracks.collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
