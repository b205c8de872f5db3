//! Rooms as a client of docs/calls.v1.md has them, what people do in them, and what must hold for all who are in one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::media::{MediaCommand, MediaCommandKind, MediaEvent, MediaEventKind, MediaRefusal};
use serde_json::{Value, json};

use crate::behaviour;
use crate::device::{Command, Device, Io, Plan};

/// The Rooms there are to meet in.
const NAMES: [&str; 2] = ["weekly", "board"];
/// Of so many offers the SFU refuses one, and of so many it loses one Participant later.
const REFUSED_ONE_OF: u64 = 13;
const LOST_ONE_OF: u64 = 17;

/// The Rooms of one Device, by name.
#[derive(Default)]
pub struct Rooms {
    pub inside: BTreeMap<String, Inside>,
    /// In whose lobbies it waits: names by the Room's id.
    waiting: BTreeMap<String, String>,
    generations: u32,
}

/// A Room one is in.
#[derive(Debug, Clone)]
pub struct Inside {
    pub room: String,
    pub own: String,
    pub settings: Value,
    /// Everybody's state, by Participant.
    pub people: BTreeMap<String, Value>,
    /// What was written to all, the oldest first.
    pub chat: Vec<String>,
    lobby: Vec<String>,
}

impl Rooms {
    fn named(&mut self, room: &Value) -> Option<(&String, &mut Inside)> {
        self.inside
            .iter_mut()
            .find(|(_, inside)| *room == inside.room.as_str())
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The server knows nothing of this Session: where it was it joins again, unless a join of it is under way.
    pub fn lose(&mut self, unanswered: &[Command]) -> Vec<String> {
        let lost: BTreeSet<String> = std::mem::take(&mut self.inside)
            .into_keys()
            .chain(std::mem::take(&mut self.waiting).into_values())
            .collect();
        let is_under_way = |name: &String| {
            let joins = unanswered.iter().filter(|one| one.kind == "room.join");
            joins
                .into_iter()
                .any(|one| one.data["room"] == name.as_str())
        };
        lost.into_iter()
            .filter(|name| !is_under_way(name))
            .collect()
    }
}

// What people do.

/// Lets the person at `device` do something in a Room, or on the way into one.
pub fn act(device: &mut Device, io: &mut Io<'_>) {
    let name = (*io.rng.pick(&NAMES).expect("there are names")).to_owned();
    if is_joining(device, &name) {
        return;
    }
    let Some(inside) = device.rooms.inside.get(&name).cloned() else {
        if io.rng.percent(60) {
            join(device, &name, io);
        }
        return;
    };

    let room = &inside.room;
    let people: Vec<&String> = inside.people.keys().collect();
    let other = io.rng.pick(&people).copied().unwrap_or(&inside.own);
    let tracks = inside.people.get(&inside.own).map(|one| &one["tracks"]);
    let track = tracks.and_then(|tracks| tracks[0]["track"].as_str());
    let moderates = inside.people[&inside.own]["permissions"]["moderate"] == true;
    let flag = io.rng.percent(50);
    let (kind, data) = match io.rng.within(0..=99) {
        0..=14 => ("room.leave", json!({ "room": room })),
        15..=34 => {
            device.markers += 1;
            let text = format!("{} {}", device.name, device.markers);
            ("room.chat", json!({ "room": room, "text": text }))
        }
        35..=44 => ("room.hand", json!({ "room": room, "up": flag })),
        45..=56 => match track {
            Some(track) => (
                "room.mute",
                json!({ "room": room, "track": track, "muted": flag }),
            ),
            None => return,
        },
        57..=64 => return offer(device, room, io),
        65..=69 => (
            "room.metadata",
            json!({ "room": room, "metadata": device.name }),
        ),
        70..=72 => return join(device, &name, io),
        _ if !moderates => return,
        73..=78 => ("room.set", json!({ "room": room, "lobby": flag })),
        79..=81 => ("room.set", json!({ "room": room, "locked": flag })),
        82..=90 => {
            let role = *io
                .rng
                .pick(&["listener", "speaker", "moderator"])
                .expect("there are roles");
            (
                "room.role",
                json!({ "room": room, "participant": other, "role": role }),
            )
        }
        91..=94 if *other != inside.own => {
            ("room.remove", json!({ "room": room, "participant": other }))
        }
        95..=98 => (
            "room.admit",
            json!({ "room": room, "waiting": inside.lobby, "admit": flag }),
        ),
        _ => return,
    };
    device.command(kind, data, io);
}

/// Joins after the server, or bad luck, came in between.
pub fn join_again(device: &mut Device, name: &str, io: &mut Io<'_>) {
    if !device.rooms.inside.contains_key(name) && !is_joining(device, name) {
        join(device, name, io);
    }
}

fn is_joining(device: &Device, name: &str) -> bool {
    let mut waiting = device.waiting.iter();
    waiting.any(|one| one.kind == "room.join" && one.data["room"] == name)
}

fn plan_again(device: &mut Device, name: &str, io: &mut Io<'_>) {
    let plan = Plan {
        kind: "join",
        call: name.to_owned(),
    };
    let at = io.now() + io.rng.millis(100..=2_000);
    device.plans.push((at, plan));
}

fn join(device: &mut Device, name: &str, io: &mut Io<'_>) {
    device.rooms.generations += 1;
    let data = json!({
        "room": name, "generation": device.rooms.generations, "sdp": behaviour::sdp(),
        "tracks": [{ "mid": "0", "source": "microphone", "muted": io.rng.percent(30) }],
    });
    device.command("room.join", data, io);
}

fn offer(device: &mut Device, room: &str, io: &mut Io<'_>) {
    device.rooms.generations += 1;
    let mut tracks = vec![json!({ "mid": "0", "source": "microphone" })];
    if io.rng.percent(50) {
        tracks.push(json!({ "mid": "1", "source": "screen" }));
    }
    let data = json!({
        "room": room, "generation": device.rooms.generations, "sdp": behaviour::sdp(), "tracks": tracks,
    });
    device.command("room.offer", data, io);
}

/// Leaves every Room, and every lobby.
pub fn leave_all(device: &mut Device, io: &mut Io<'_>) {
    let rooms = &device.rooms;
    let inside = rooms.inside.values().map(|inside| inside.room.clone());
    let all: Vec<String> = inside.chain(rooms.waiting.keys().cloned()).collect();
    device.plans.retain(|(_, plan)| plan.kind != "join");
    for room in all {
        device.command("room.leave", json!({ "room": room }), io);
    }
}

// What a client makes of what it hears.

pub fn on_answer(
    device: &mut Device,
    command: &Command,
    kind: &str,
    data: &Value,
    io: &mut Io<'_>,
) {
    let name = command.data["room"].as_str().unwrap_or_default();
    if kind == "error" {
        let may_pass = matches!(
            data["code"].as_str(),
            Some("media_refused" | "unknown_room")
        );
        if command.kind == "room.join" {
            device.rooms.inside.remove(name);
            // Bad luck: a person would press the button again.
            if may_pass {
                plan_again(device, name, io);
            }
        }
        return;
    }
    match command.kind.as_str() {
        "room.join" if data["waiting"] == true => {
            device.rooms.inside.remove(name);
            let room = data["room"].as_str().unwrap_or_default();
            device
                .rooms
                .waiting
                .insert(room.to_owned(), name.to_owned());
        }
        "room.join" => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let state = &data["state"];
            let people = state["participants"].as_array().into_iter().flatten();
            let chat = data["chat"].as_array().into_iter().flatten();
            let inside = Inside {
                room: text(&state["room"]),
                own: text(&data["participant"]),
                settings: state["settings"].clone(),
                people: people
                    .map(|one| (text(&one["participant"]), one.clone()))
                    .collect(),
                chat: chat.map(|message| text(&message["id"])).collect(),
                lobby: Vec::new(),
            };
            if !inside.people.contains_key(&inside.own) {
                io.oracle
                    .fail(format!("{}: joined and not there: {data}", device.name));
            }
            device.rooms.waiting.remove(&inside.room);
            device.rooms.inside.insert(name.to_owned(), inside);
        }
        "room.leave" => {
            device.rooms.waiting.remove(name);
            device.rooms.inside.retain(|_, inside| inside.room != name);
        }
        "room.set" => {
            if let Some((_, inside)) = device.rooms.named(&command.data["room"]) {
                inside.settings = data["settings"].clone();
            }
        }
        "room.chat" => {
            if let Some((_, inside)) = device.rooms.named(&command.data["room"]) {
                inside
                    .chat
                    .push(data["id"].as_str().unwrap_or_default().to_owned());
            }
        }
        _ => {}
    }
}

pub fn on_event(device: &mut Device, kind: &str, data: &Value, io: &mut Io<'_>) {
    let room = data["room"].as_str().unwrap_or_default();
    match kind {
        "room.admitted" => {
            if let Some(name) = device.rooms.waiting.remove(room) {
                join(device, &name, io);
            }
            return;
        }
        "room.denied" => {
            device.rooms.waiting.remove(room);
            return;
        }
        _ => {}
    }
    let Some((name, inside)) = device.rooms.named(&data["room"]) else {
        return; // left meanwhile
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match kind {
        "room.participant" => {
            let state = &data["participant"];
            inside
                .people
                .insert(text(&state["participant"]), state.clone());
        }
        "room.left" => {
            inside
                .people
                .remove(data["participant"].as_str().unwrap_or_default());
        }
        "room.settings" => inside.settings = data["settings"].clone(),
        "room.chat" => inside.chat.push(text(&data["message"]["id"])),
        "room.lobby" => {
            let waiting = data["waiting"].as_array().into_iter().flatten();
            inside.lobby = waiting.map(|one| text(&one["waiting"])).collect();
        }
        "room.muted" | "room.slots" | "room.layers" | "room.paused" | "room.connection"
        | "room.reaction" => {}
        "room.ended" => {
            let name = name.clone();
            device.rooms.inside.remove(&name);
            if matches!(data["reason"].as_str(), Some("failed" | "moved")) {
                plan_again(device, &name, io);
            }
        }
        _ => io
            .oracle
            .fail(format!("{}: unknown event {kind} {data}", device.name)),
    }
}

// What must hold once all is quiet.

/// All who are in a Room agree on who is in it and on what they are, on its settings, and on what was written.
pub fn check_quiet(devices: &[Device]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut by_room: BTreeMap<&str, Vec<(&Device, &Inside)>> = BTreeMap::new();
    for device in devices {
        for inside in device.rooms.inside.values() {
            by_room
                .entry(&inside.room)
                .or_default()
                .push((device, inside));
        }
    }

    for (room, views) in &by_room {
        let there: BTreeSet<&String> = views.iter().map(|(_, inside)| &inside.own).collect();
        let (first, of_first) = views[0];
        for (device, inside) in views {
            let known: BTreeSet<&String> = inside.people.keys().collect();
            if known != there {
                let name = &device.name;
                problems.push(format!(
                    "{name}: in {room} are {there:?}, and it knows {known:?}"
                ));
            }
            if inside.people != of_first.people || inside.settings != of_first.settings {
                let (one, other) = (&device.name, &first.name);
                problems.push(format!(
                    "{one} and {other} disagree about {room}:\n    {inside:?}\n    {of_first:?}"
                ));
            }
            // Who came later knows the end of what the others know.
            let (short, long) = if inside.chat.len() < of_first.chat.len() {
                (&inside.chat, &of_first.chat)
            } else {
                (&of_first.chat, &inside.chat)
            };
            if !long.ends_with(short) {
                problems.push(format!(
                    "{}: another chat in {room}: {:?} {:?}",
                    device.name, inside.chat, of_first.chat
                ));
            }
        }
        let moderated = of_first
            .people
            .values()
            .any(|one| one["permissions"]["moderate"] == true);
        if !moderated {
            problems.push(format!("nobody moderates {room}"));
        }
    }
    let names = NAMES.iter().map(|name| {
        let rooms: BTreeSet<&String> = devices
            .iter()
            .filter_map(|device| device.rooms.inside.get(*name))
            .map(|inside| &inside.room)
            .collect();
        (name, rooms)
    });
    for (name, rooms) in names.filter(|(_, rooms)| rooms.len() > 1) {
        problems.push(format!("{name} is {rooms:?}"));
    }
    problems
}

/// Stands for the SFU: it answers, refuses and loses people by their number.
#[derive(Default)]
pub struct Media {
    offers: u64,
    pub news: VecDeque<MediaEvent>,
}

impl Media {
    /// Takes a command; what comes of it is in `news`, to be told a moment later.
    pub fn handle(&mut self, command: &MediaCommand) -> usize {
        let (participant, offer) = match &command.kind {
            MediaCommandKind::Join {
                participant, offer, ..
            }
            | MediaCommandKind::Offer { participant, offer } => (*participant, offer),
            _ => return 0,
        };
        let mut tell = |kind| {
            let (account, room) = (command.account, command.room);
            self.news.push_back(MediaEvent {
                account,
                room,
                kind,
            });
        };
        self.offers += 1;
        let generation = offer.generation;
        if self.offers.is_multiple_of(REFUSED_ONE_OF) {
            let refusal = MediaRefusal::Full;
            tell(MediaEventKind::Refused {
                participant,
                generation,
                refusal,
            });
            return 1;
        }
        tell(MediaEventKind::Answered {
            participant,
            generation,
            sdp: format!("answer {generation}"),
            slots: Vec::new(),
        });
        if self.offers.is_multiple_of(LOST_ONE_OF) {
            let reason = model::media::GoneReason::Unreachable;
            tell(MediaEventKind::Gone {
                participant,
                reason,
            });
            return 2;
        }
        1
    }
}
