//! Whatever people, phones and the network do in any order: signaling and the gateway agree on which phone calls there are, each of
//! them is heard in one place, and nothing is left over.

use std::collections::BTreeMap;

use model::media::MediaCommandKind;
use model::phone::{Key, PhoneCommandKind, PhoneEnd, PhoneEventKind, PhoneReason, Progress};
use model::{CallId, ParticipantId, RoomId};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::TestSignaling;
use crate::rooms::join;

const NAMES: [&str; 4] = ["alice", "alice2", "bob", "carol"];
const TARGETS: [&str; 5] = [
    "alice",
    "bob",
    "carol",
    "tel:+4930123456",
    "sip:desk@pbx.example",
];

/// Who does what, about which Call or phone, and to whom.
type Step = (usize, u8, usize, usize);

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_sides_agree_on_phone_calls_and_nothing_is_left(steps in prop::collection::vec(step(), 1..60)) {
        let mut t = TestSignaling::callers(&NAMES);
        let mut gateway = Gateway::default();
        for step in steps {
            play(&mut t, &mut gateway, step);
            gateway.look(&mut t);
        }

        for name in NAMES {
            t.forget(name);
        }
        t.advance(61_000);
        gateway.look(&mut t);
        let left: Vec<String> = gateway.calls.keys().map(ToString::to_string).collect();
        for call in left {
            gateway.end(&mut t, &call, PhoneReason::Hangup);
        }
        gateway.look(&mut t);
        t.advance(200_000);
        let counts = t.cores[0].counts();
        prop_assert_eq!((counts.phone_calls, counts.rooms, counts.participants), (0, 0, 0));
    }
}

fn step() -> impl Strategy<Value = Step> {
    (0..NAMES.len(), 0_u8..32, 0_usize..8, 0..TARGETS.len())
}

/// What a gateway and an SFU would hold.
#[derive(Default)]
struct Gateway {
    /// The phone calls, with where they are heard.
    calls: BTreeMap<CallId, Option<ParticipantId>>,
    /// The phones in Rooms.
    inside: BTreeMap<ParticipantId, RoomId>,
}

impl Gateway {
    /// Takes what was said to both, answers as the contract has it, and compares.
    fn look(&mut self, t: &mut TestSignaling) {
        loop {
            for command in std::mem::take(&mut t.media) {
                match command.kind {
                    MediaCommandKind::JoinPlain { participant, .. } => {
                        let before = self.inside.insert(participant, command.room);
                        assert!(before.is_none(), "{participant} joins twice");
                    }
                    MediaCommandKind::Leave { participant } => {
                        self.inside.remove(&participant);
                    }
                    MediaCommandKind::End => self.inside.retain(|_, room| *room != command.room),
                    _ => {}
                }
            }
            let commands = std::mem::take(&mut t.phone);
            if commands.is_empty() {
                break;
            }
            for command in commands {
                self.take(t, command.call, &command.kind);
            }
        }

        let counts = t.cores[0].counts();
        assert_eq!(counts.phone_calls, self.calls.len(), "{:?}", self.calls);
        for (call, place) in &self.calls {
            assert!(
                place.is_none_or(|place| self.inside.contains_key(&place)),
                "{call} is heard nowhere"
            );
        }
        let heard = self.calls.values().flatten().count();
        assert_eq!(
            heard,
            self.inside.len(),
            "a phone without a call is in a Room"
        );
    }

    fn take(&mut self, t: &mut TestSignaling, call: CallId, kind: &PhoneCommandKind) {
        if let PhoneCommandKind::Dial(dial) = kind {
            let before = self.calls.insert(call, Some(dial.place.participant));
            assert!(before.is_none(), "{call} is dialled twice");
            return;
        }
        let Some(place) = self.calls.get_mut(&call) else {
            self.end(t, &call.to_string(), PhoneReason::Lost);
            return;
        };
        match kind {
            PhoneCommandKind::Answer { place: at, .. } => {
                assert!(place.is_none(), "{call} is answered twice");
                *place = Some(at.participant);
            }
            PhoneCommandKind::Move { place: at } => *place = Some(at.participant),
            PhoneCommandKind::HangUp { .. } => {
                self.calls.remove(&call);
            }
            _ => {}
        }
    }

    fn end(&mut self, t: &mut TestSignaling, call: &str, reason: PhoneReason) {
        self.calls.remove(&call.parse().unwrap());
        t.phone_says(call, PhoneEventKind::Ended(PhoneEnd::of(reason)));
    }
}

fn play(t: &mut TestSignaling, gateway: &mut Gateway, (who, what, which, whom): Step) {
    let name = NAMES[who];
    let known: Vec<String> = t.device(name).sealed.keys().cloned().collect();
    let call = known.iter().rev().nth(which % known.len().max(1)).cloned();
    let rev = call.as_ref().map_or(1, |call| t.rev(name, call));
    let other = known.first().cloned();
    let room = call.as_ref().map(|call| t.seen(name, call)["room"].clone());
    let about = |kind: &'static str, mut more: Value| {
        more["call"] = call.clone()?.into();
        Some((kind, more))
    };

    let said = match what {
        0..4 => {
            let media = json!({ "audio": true, "video": false });
            let call = t.new_call();
            Some((
                "call.invite",
                json!({ "call": call, "to": TARGETS[whom], "media": media }),
            ))
        }
        4..8 => about("call.accept", json!({ "rev": rev })),
        8 => about("call.ringing", json!({})),
        9 => about("call.decline", json!({ "rev": rev })),
        10 => about("call.hangup", json!({})),
        11 => about("call.hold", json!({ "on": which.is_multiple_of(2) })),
        12 => about("call.dtmf", json!({ "keys": "1" })),
        13 | 14 => about("call.transfer", json!({ "to": TARGETS[whom] })),
        15 => other.and_then(|other| about("call.transfer", json!({ "with": other }))),
        16 => about("call.upgrade", json!({})),
        17..20 => room
            .filter(|room| !room.is_null())
            .map(|room| ("room.join", join(room.as_str().unwrap()))),
        20 => {
            let inside = t.take(name, "room.participant");
            let room = inside.map(|news| news["data"]["room"].clone());
            room.map(|room| ("room.leave", json!({ "room": room })))
        }
        21 => {
            let inside = t.take(name, "room.participant");
            let room = inside.map(|news| news["data"]["room"].clone());
            room.map(|room| {
                (
                    "room.invite",
                    json!({ "room": room, "user": TARGETS[whom] }),
                )
            })
        }
        _ => None,
    };
    if let Some((kind, data)) = said {
        t.send(name, kind, data);
        return;
    }

    let phone = gateway.calls.keys().nth(which % gateway.calls.len().max(1));
    let phone = phone.map(ToString::to_string);
    let says = |kind: PhoneEventKind| phone.clone().map(|phone| (phone, kind));
    let news = match what {
        22 | 23 => {
            let id = phone.filter(|_| which > 5).unwrap_or_else(|| t.new_call());
            gateway.calls.entry(id.parse().unwrap()).or_default();
            t.phone_rings(&id, &["alice", "bob", "carol"][..=whom.min(2)]);
            None
        }
        24 | 25 => says(PhoneEventKind::Answered),
        26 => says(PhoneEventKind::Progress(Progress::EarlyMedia)),
        27 if which < 4 => says(PhoneEventKind::Held { on: which < 2 }),
        27 if which == 4 => says(PhoneEventKind::AnsweredElsewhere),
        27 => says(PhoneEventKind::Key(Key::from_char('7').unwrap())),
        28 => {
            if let Some(phone) = phone {
                gateway.end(t, &phone, PhoneReason::ALL[which]);
            }
            None
        }
        29 => {
            t.advance(which as u64 * 3_000);
            None
        }
        30 => {
            t.disconnect(name);
            return;
        }
        _ => {
            crash(t, gateway);
            return;
        }
    };
    if let Some((phone, kind)) = news {
        t.phone_says(&phone, kind);
    }
    come_back(t, name);
}

/// The process ends: signaling, SFU and gateway. Who was connected comes back and hands back what they hold.
fn crash(t: &mut TestSignaling, gateway: &mut Gateway) {
    let connected: Vec<&str> = NAMES
        .into_iter()
        .filter(|name| t.devices[*name].connection.is_some())
        .collect();
    t.crash();
    t.media.clear();
    t.phone.clear();
    *gateway = Gateway::default();
    for name in connected {
        come_back(t, name);
    }
}

fn come_back(t: &mut TestSignaling, name: &str) {
    if t.device(name).connection.is_some() {
        return;
    }
    if t.connect(name)["resumed"] == false {
        let held: Vec<String> = t.device(name).held.keys().cloned().collect();
        for call in held {
            let _ = t.sync(name, &call); // it may be forgotten, or known to be forged
        }
    }
}
