//! Devices that say anything in any order, to the core that decides about Calls.

use std::collections::{BTreeMap, BTreeSet};

use ::signaling_core::{
    Answer, ConnectionId, Counts, Limits, Output, QueryId, SealSecret, Signaling, VerifiedHello,
};
use model::media::{
    GoneReason, MediaCommand, MediaCommandKind, MediaEvent, MediaEventKind, MediaRefusal,
};
use model::{
    AccountId, ApiKeyId, DeviceId, Grants, MessageId, NodeId, ParticipantId, RoomGrants, Timestamp,
};
use serde_json::{Value, json};
use signaling_wire::{DeviceInfo, Resume};

/// Two of them belong to one User, who can race against themselves.
const USERS: [&str; 4] = ["alice", "bob", "bob", "carol"];

/// How many things happen in one run: enough for every story, and little enough to stay fast.
const STEPS_MAX: usize = 200;

/// How often a core that serves nobody any more may ask for time before it must have forgotten everything.
const TIMEOUTS_MAX: usize = 10_000;

/// Reads `data` as a script: who does what when, mostly in well-formed frames.
///
/// Frames reach live WebSockets only, their `seq` has no gap, a Call has one winner, and once everybody has gone for good nothing
/// is kept.
pub(crate) fn core_frames(data: &[u8]) {
    let mut world = World::new();
    let mut script = Script(data);
    for _ in 0..STEPS_MAX {
        let Some(step) = script.byte() else { break };
        world.step(step, &mut script);
        world.carry_out();
    }
    world.everybody_leaves();
}

/// The rest of the input; missing bytes are zero, except for the first of a step.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn choice(&mut self, among: u8) -> u8 {
        self.byte().unwrap_or(0) % among
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

struct World {
    core: Signaling,
    now: u64,
    starts: u64,
    connections: u64,
    commands: u128,
    devices: [Device; USERS.len()],
    queries: Vec<QueryId>,
    /// What the SFU would answer to the offers it has heard.
    offers: Vec<MediaEvent>,
    /// Whom it has in its Rooms.
    inside: BTreeSet<ParticipantId>,
    /// Ids of Rooms, Participants and Tracks the Devices have heard of.
    ids: Vec<Value>,
    /// Who answered which Call. An id may be used again after the core has forgotten it, hence the time it was made at.
    winners: BTreeMap<(String, u64), String>,
}

#[derive(Default)]
struct Device {
    connection: Option<ConnectionId>,
    /// The last `seq` sent and received.
    sent: u64,
    received: u64,
    session: Option<(Value, Value)>,
    /// Commands as they were sent, to send them again.
    commands: Vec<Value>,
    /// The sealed states heard of, to hand them back.
    sealed: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        Self {
            core: start(0),
            now: 1_790_000_000_000,
            starts: 0,
            connections: 0,
            commands: 0,
            devices: Default::default(),
            queries: Vec::new(),
            offers: Vec::new(),
            inside: BTreeSet::new(),
            ids: Vec::new(),
            winners: BTreeMap::new(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        let who = usize::from(step) % USERS.len();
        match step / 4 {
            0 => self.disconnect(who),
            1 => self.hello(who, false),
            2 => self.hello(who, true),
            3 => self.pass(1 << script.choice(18)),
            4 => {
                let len = usize::from(script.choice(u8::MAX));
                if let Ok(text) = str::from_utf8(script.bytes(len)) {
                    self.say(who, text);
                }
            }
            5 => self.repeat(who, script),
            6 => self.answer(script),
            7 => self.crash(),
            8 => self.sync(who, script),
            62 => self.room_command(who, script),
            63 => self.media(script),
            kind => self.command(who, kind, script),
        }
    }

    fn disconnect(&mut self, who: usize) {
        if let Some(connection) = self.devices[who].connection.take() {
            self.core.handle_disconnect(self.now(), connection);
        }
    }

    fn hello(&mut self, who: usize, resume: bool) {
        self.disconnect(who);
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let device = &mut self.devices[who];
        device.connection = Some(connection);

        let resume = device
            .session
            .clone()
            .filter(|_| resume)
            .and_then(|(session, key)| {
                serde_json::from_value::<Resume>(
                    json!({"session": session, "key": key, "ack": device.received}),
                )
                .ok()
            });
        let hello = VerifiedHello {
            id: None,
            api_key: ApiKeyId::from_u128(1),
            account: AccountId::from_u128(1),
            user: USERS[who].parse().expect("a name is an id"),
            name: None,
            grants: Grants::default(),
            room_grants: RoomGrants::default(),
            expired: false,
            attended: true,
            device: device_info(who),
            resume,
            address: None,
            ice_servers: Vec::new(),
        };
        self.core.handle_hello(self.now(), connection, hello);
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.core.handle_timeout(self.now());
    }

    /// A frame with the next `seq`, as a client would number it.
    fn command(&mut self, who: usize, kind: u8, script: &mut Script<'_>) {
        let call = call_id(script.choice(4));
        let (rev, flag) = (script.choice(6), script.choice(2) == 1);
        let other = USERS[usize::from(script.choice(4))];
        let (kind, data) = match kind {
            9..=14 => (
                "call.invite",
                json!({"call": call, "to": other, "media": {"audio": true, "video": flag}}),
            ),
            15..=19 => ("call.accept", json!({"call": call, "rev": rev})),
            20..=22 => ("call.ringing", json!({"call": call})),
            23 | 24 => (
                "call.decline",
                json!({"call": call, "rev": rev, "reason": if flag { "busy" } else { "declined" }}),
            ),
            25 | 26 => ("call.cancel", json!({"call": call, "rev": rev})),
            27..=30 => ("call.hangup", json!({"call": call})),
            31..=33 => ("call.hold", json!({"call": call, "on": flag})),
            34..=37 => ("call.transfer", json!({"call": call, "to": other})),
            38..=40 => (
                "call.transfer",
                json!({"call": call, "with": call_id(rev % 4)}),
            ),
            41 | 42 => (
                "call.verify",
                json!({"call": call, "commitment": "A".repeat(43)}),
            ),
            43 => ("call.state", json!({"call": call})),
            44..=46 => ("sdp.offer", description(&call, rev)),
            47..=49 => ("sdp.answer", description(&call, rev)),
            50 | 51 => (
                "ice.candidates",
                json!({"call": call, "generation": rev, "candidates": []}),
            ),
            52 if flag => ("ice.restart", json!({"call": call})),
            52 => ("call.media", json!({"call": call, "audio": true})),
            53 => (
                "presence.subscribe",
                if flag {
                    json!({})
                } else {
                    json!({"users": [other]})
                },
            ),
            54 | 55 => (
                "presence.set",
                json!({"status": if flag { "available" } else { "do_not_disturb" }, "call_waiting": rev % 2 == 0}),
            ),
            56 => ("history.list", json!({"limit": 1 + rev})),
            57 => ("history.seen", json!({})),
            58 => ("turn.refresh", json!({})),
            59 => return self.unnumbered(who, "bye"),
            60 => return self.unnumbered(who, "ping"),
            61 if flag => return self.unnumbered(who, "pong"),
            _ => return self.unnumbered(who, "ack"),
        };
        self.numbered(who, kind, &data);
    }

    fn room_command(&mut self, who: usize, script: &mut Script<'_>) {
        let (kind, one, other) = (script.choice(20), script.byte(), script.byte());
        let (flag, number) = (script.choice(2) == 1, script.choice(5));
        let id = |byte: Option<u8>| {
            let known = self.ids.get(usize::from(byte.unwrap_or(0)));
            known.cloned().unwrap_or_else(|| call_id(number).into())
        };
        let (room, named) = (id(one), id(other));
        let sdp = description("", number)["sdp"].clone();
        let tracks = json!([{"mid": "0", "source": "microphone", "muted": flag}, {"mid": number.to_string(), "source": "screen"}]);
        let role = ["listener", "speaker", "moderator"][usize::from(number) % 3];
        let (kind, data) = match kind {
            0..=4 => (
                "room.join",
                json!({"room": if flag { "a" } else { "b" }, "generation": number, "sdp": sdp, "tracks": tracks,
                    "settings": {"lobby": flag, "role": role}}),
            ),
            5 => (
                "room.offer",
                json!({"room": room, "generation": number, "sdp": sdp, "tracks": tracks}),
            ),
            6 => ("room.leave", json!({"room": room})),
            7 => ("room.list", json!({"room": room, "after": named})),
            8 => (
                "room.mute",
                json!({"room": room, "track": named, "muted": flag}),
            ),
            9 => (
                "room.want",
                json!({"room": room, "automatic": flag, "wishes": [{"track": named, "wanted": flag}]}),
            ),
            10 => (
                "room.set",
                json!({"room": room, "locked": flag, "role": role}),
            ),
            11 => (
                "room.admit",
                json!({"room": room, "waiting": [named], "admit": flag}),
            ),
            12 | 13 => (
                "room.role",
                json!({"room": room, "participant": named, "role": role}),
            ),
            14 => ("room.remove", json!({"room": room, "participant": named})),
            15 => ("room.end", json!({"room": room})),
            16 => ("room.hand", json!({"room": room, "up": flag})),
            17 => ("room.react", json!({"room": room, "reaction": "!"})),
            18 => (
                "room.chat",
                json!({"room": room, "text": "hello", "to": if flag { json!([named]) } else { Value::Null }}),
            ),
            _ => ("room.metadata", json!({"room": room, "metadata": role})),
        };
        self.numbered(who, kind, &data);
    }

    /// The SFU answers an offer, refuses it, or gives somebody up.
    fn media(&mut self, script: &mut Script<'_>) {
        let (what, which) = (script.choice(6), usize::from(script.choice(8)));
        if self.offers.is_empty() {
            return;
        }
        let MediaEvent {
            account,
            room,
            kind,
        } = self.offers.remove(which % self.offers.len());
        let MediaEventKind::Answered {
            participant,
            generation,
            ..
        } = kind
        else {
            return;
        };
        let kind = match what {
            0 => MediaEventKind::Failed,
            1 => {
                self.inside.remove(&participant);
                let reason = GoneReason::Unreachable;
                MediaEventKind::Gone {
                    participant,
                    reason,
                }
            }
            2 => {
                self.inside.remove(&participant);
                let refusal = MediaRefusal::UnknownParticipant;
                MediaEventKind::Refused {
                    participant,
                    generation,
                    refusal,
                }
            }
            _ => kind,
        };
        if kind == MediaEventKind::Failed {
            let of_room = |event: &MediaEvent| event.room == room;
            self.offers.retain(|event| !of_room(event));
        }
        self.core.handle_media(
            self.now(),
            MediaEvent {
                account,
                room,
                kind,
            },
        );
    }

    /// Hands a sealed state back, or something that was never sealed.
    fn sync(&mut self, who: usize, script: &mut Script<'_>) {
        let call = call_id(script.choice(4));
        let device = &self.devices[usize::from(script.choice(4))];
        let which = usize::from(script.choice(8));
        let sealed = device
            .sealed
            .iter()
            .nth(which)
            .cloned()
            .unwrap_or("AAAA".into());
        self.numbered(who, "call.sync", &json!({"call": call, "sealed": sealed}));
    }

    fn numbered(&mut self, who: usize, kind: &str, data: &Value) {
        self.commands += 1;
        let id = MessageId::from_u128(self.commands);
        self.send(who, json!({"type": kind, "id": id, "data": data}));
    }

    /// Sends a command with the next `seq`.
    fn send(&mut self, who: usize, mut command: Value) {
        let device = &mut self.devices[who];
        device.commands.push(command.clone());
        device.sent += 1;
        command["seq"] = device.sent.into();
        command["ack"] = device.received.into();
        self.say(who, &command.to_string());
    }

    fn unnumbered(&mut self, who: usize, kind: &str) {
        let frame = json!({"type": kind, "ack": self.devices[who].received});
        self.say(who, &frame.to_string());
    }

    /// Sends a command again, as a client does that has no answer yet: with its `id` and a new `seq`, or just as it was.
    fn repeat(&mut self, who: usize, script: &mut Script<'_>) {
        let which = usize::from(script.choice(16));
        let Some(mut command) = self.devices[who].commands.iter().rev().nth(which).cloned() else {
            return;
        };
        if script.choice(2) == 0 {
            self.send(who, command);
        } else {
            command["seq"] = self.devices[who].sent.saturating_sub(which as u64).into();
            self.say(who, &command.to_string());
        }
    }

    fn say(&mut self, who: usize, text: &str) {
        if let Some(connection) = self.devices[who].connection {
            self.core.handle_frame(self.now(), connection, text);
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        if self.queries.is_empty() {
            return;
        }
        let which = usize::from(script.choice(8)) % self.queries.len();
        let answer = match script.choice(5) {
            0 => Answer::Failed,
            1 => Answer::Missed(3),
            2 => Answer::Directory(Vec::new()),
            3 => Answer::IceServers(Vec::new()),
            _ => Answer::History {
                entries: Vec::new(),
                next: None,
                missed: 0,
            },
        };
        let query = self.queries.swap_remove(which);
        self.core.handle_answer(self.now(), query, answer);
    }

    /// The server loses everything but its secret.
    fn crash(&mut self) {
        self.starts += 1;
        self.core = start(self.starts);
        self.queries.clear();
        self.offers.clear();
        self.inside.clear();
        self.winners.clear();
        for device in &mut self.devices {
            device.connection = None;
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send {
                    connection, text, ..
                } => {
                    let text = str::from_utf8(&text).expect("frames are text");
                    let frame = serde_json::from_str(text).expect("frames are JSON");
                    self.hear(connection, &frame);
                }
                Output::Close { connection, .. } => {
                    let device = self.device_at(connection);
                    self.devices[device].connection = None;
                }
                Output::Query { query, .. } => self.queries.push(query),
                Output::Media(command) => self.command_media(&command),
                Output::Record(_) | Output::Publish { .. } => {}
                Output::Phone(command) => panic!("there is no gateway: {command:?}"),
            }
        }
    }

    /// Checks what the SFU is told: nobody joins twice, and who is not there neither offers nor leaves.
    fn command_media(&mut self, command: &MediaCommand) {
        self.offers.extend(answer_of(command));
        match &command.kind {
            MediaCommandKind::Join { participant, .. }
            | MediaCommandKind::JoinPlain { participant, .. } => {
                assert!(
                    self.inside.insert(*participant),
                    "{participant} joins twice"
                );
            }
            MediaCommandKind::Leave { participant } => {
                assert!(
                    self.inside.remove(participant),
                    "{participant} was not there"
                );
            }
            MediaCommandKind::Offer { participant, .. }
            | MediaCommandKind::Permit { participant, .. }
            | MediaCommandKind::Want { participant, .. } => {
                assert!(
                    self.inside.contains(participant),
                    "{participant} is not there"
                );
            }
            MediaCommandKind::Mute { .. } | MediaCommandKind::End => {}
        }
    }

    fn hear(&mut self, connection: ConnectionId, frame: &Value) {
        self.note_ids(frame);
        let who = self.device_at(connection);
        let device = &mut self.devices[who];
        let data = &frame["data"];
        if frame["type"] == "welcome" {
            if data["resumed"] != true {
                (device.sent, device.received) = (0, 0);
            }
            device.session = Some((data["session"].clone(), data["key"].clone()));
        }
        if let Some(seq) = frame["seq"].as_u64() {
            assert_eq!(seq, device.received + 1, "a gap before {frame}");
            device.received = seq;
        }
        if let Some(sealed) = data["sealed"].as_str() {
            device.sealed.insert(sealed.to_owned());
        }
        self.check_winner(&data["state"]);
    }

    /// Remembers what can be named in commands about Rooms, as much as a byte of the script can choose from.
    fn note_ids(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let names_one =
                        matches!(name.as_str(), "room" | "participant" | "track" | "waiting");
                    let is_new = names_one && value.is_string() && !self.ids.contains(value);
                    if is_new && self.ids.len() < 256 {
                        self.ids.push(value.clone());
                    }
                    self.note_ids(value);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.note_ids(value)),
            _ => {}
        }
    }

    fn check_winner(&mut self, state: &Value) {
        let (Some(call), Some(device)) =
            (state["call"].as_str(), state["callee"]["device"].as_str())
        else {
            return;
        };
        let made_at = state["created_at"].as_u64().expect("a Call has a time");
        let winner = self
            .winners
            .entry((call.to_owned(), made_at))
            .or_insert(device.to_owned());
        assert_eq!(winner, device, "two winners of {call}");
    }

    fn device_at(&self, connection: ConnectionId) -> usize {
        let live = |device: &Device| device.connection == Some(connection);
        self.devices
            .iter()
            .position(live)
            .expect("only live WebSockets are spoken to")
    }

    fn everybody_leaves(&mut self) {
        for who in 0..USERS.len() {
            self.disconnect(who);
        }
        for query in std::mem::take(&mut self.queries) {
            self.core.handle_answer(self.now(), query, Answer::Failed);
        }
        self.carry_out();

        for _ in 0..TIMEOUTS_MAX {
            let Some(at) = self.core.poll_timeout() else {
                assert_eq!(self.core.counts(), Counts::default());
                return;
            };
            self.now = self.now.max(at.as_millis());
            self.core.handle_timeout(self.now());
            self.carry_out();
        }
        panic!(
            "the core waits for something that never comes: {:?}",
            self.core.counts()
        );
    }
}

fn start(starts: u64) -> Signaling {
    let mut core = Signaling::new(
        Limits::default(),
        NodeId::from_u128(1),
        &SealSecret::new([7; 32]),
        starts,
    );
    core.handle_media_available(Timestamp::default(), true);
    core
}

/// What an SFU answers to an offer it takes.
fn answer_of(command: &MediaCommand) -> Option<MediaEvent> {
    let (participant, generation) = match &command.kind {
        MediaCommandKind::Join {
            participant, offer, ..
        }
        | MediaCommandKind::Offer { participant, offer } => (*participant, offer.generation),
        _ => return None,
    };
    let kind = MediaEventKind::Answered {
        participant,
        generation,
        sdp: "v=0".to_owned(),
        slots: Vec::new(),
    };
    Some(MediaEvent {
        account: command.account,
        room: command.room,
        kind,
    })
}

fn call_id(number: u8) -> String {
    format!("01JD{number:022}")
}

fn device_info(who: usize) -> DeviceInfo {
    let key = format!("B{}", "A".repeat(86));
    let device =
        json!({"id": DeviceId::from_u128(1 + who as u128), "name": USERS[who], "key": key});
    serde_json::from_value(device).expect("a Device is written right")
}

fn description(call: &str, generation: u8) -> Value {
    let fingerprint = ["00"; 32].join(":");
    json!({
        "call": call,
        "generation": generation,
        "sdp": format!("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=fingerprint:sha-256 {fingerprint}\r\n"),
        "signature": "A".repeat(86),
    })
}
