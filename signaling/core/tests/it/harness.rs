//! Devices that speak JSON with one or more cores, under a clock that moves by hand.

use std::collections::{BTreeMap, VecDeque};

use model::bus::{Body, Message, Target};
use model::media::{MediaCommand, MediaCommandKind, MediaEvent, MediaEventKind};
use model::phone::{PhoneCommand, PhoneEvent, PhoneEventKind};
use model::record::{Named, OpenCallsCursor};
use model::{
    AccountId, ApiKeyId, CallId, CallRecord, Grants, Millis, NodeId, RecordChange, RoomGrants,
    Timestamp,
};
use serde_json::{Value, json};
use signaling_core::{
    Answer, ConnectionId, Limits, Output, QueryId, Question, SealSecret, Signaling, VerifiedHello,
};
use signaling_wire::{DeviceInfo, IceServer, Resume};

/// A fingerprint that passes.
pub(crate) const STRONG: &str = "a=fingerprint:sha-256 01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F:20";

pub(crate) struct TestSignaling {
    pub(crate) cores: Vec<Signaling>,
    pub(crate) now: Timestamp,
    pub(crate) limits: Limits,
    pub(crate) devices: BTreeMap<String, TestDevice>,
    pub(crate) records: Vec<RecordChange>,
    pub(crate) ladder: Vec<String>,
    /// Whether queries are answered at once.
    pub(crate) records_answer: bool,
    /// What the SFU was told.
    pub(crate) media: Vec<MediaCommand>,
    /// Whether it answers offers at once.
    pub(crate) media_answers: bool,
    /// What the phone gateway was told.
    pub(crate) phone: Vec<PhoneCommand>,
    media_news: VecDeque<(usize, MediaEvent)>,
    unanswered: Vec<(usize, QueryId)>,
    started: Timestamp,
    bus: VecDeque<(usize, Target, Message)>,
    ids: u128,
    connections: u64,
    boots: u64,
}

/// One client. Its name is its User's, with a digit for every Device but the first.
pub(crate) struct TestDevice {
    pub(crate) account: AccountId,
    pub(crate) user: String,
    pub(crate) core: usize,
    pub(crate) id: String,
    pub(crate) grants: Grants,
    pub(crate) room_grants: RoomGrants,
    pub(crate) attended: bool,
    pub(crate) api_key: ApiKeyId,
    pub(crate) address: Option<u64>,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) closed: Option<u16>,
    pub(crate) session: Option<(String, String)>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Whether it says what it has received.
    pub(crate) acknowledges: bool,
    pub(crate) frames: VecDeque<Value>,
    /// The newest sealed state by Call.
    pub(crate) sealed: BTreeMap<String, (Value, String)>,
    /// What it held when it lost its Session: that is what it syncs.
    pub(crate) held: BTreeMap<String, String>,
    pub(crate) key: String,
}

impl TestSignaling {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::cluster(1, limits)
    }

    pub(crate) fn cluster(nodes: usize, limits: Limits) -> Self {
        let started = Timestamp::from_millis(1_790_000_000_000);
        let cores = (0..nodes).map(|node| core(&limits, node, 1)).collect();
        Self {
            cores,
            now: started,
            limits,
            devices: BTreeMap::new(),
            records: Vec::new(),
            ladder: Vec::new(),
            records_answer: true,
            media: Vec::new(),
            media_answers: true,
            phone: Vec::new(),
            media_news: VecDeque::new(),
            unanswered: Vec::new(),
            started,
            bus: VecDeque::new(),
            ids: 0,
            connections: 0,
            boots: 1,
        }
    }

    /// A server with these Devices connected and nothing said yet.
    pub(crate) fn people(names: &[&str]) -> Self {
        let mut t = Self::new();
        for name in names {
            t.connect(name);
        }
        t
    }

    /// The server loses its memory; every socket dies.
    pub(crate) fn crash(&mut self) {
        self.boots += 1;
        for node in 0..self.cores.len() {
            self.cores[node] = core(&self.limits, node, self.boots);
        }
        if let [alone] = &mut self.cores[..] {
            alone.handle_start(self.now);
        }
        self.bus.clear();
        self.media_news.clear();
        for device in self.devices.values_mut() {
            device.connection = None;
        }
    }

    // Devices come and go.

    pub(crate) fn device(&mut self, name: &str) -> &mut TestDevice {
        let account = AccountId::from_u128(1);
        self.ids += 1;
        let id = ulid(self.ids);
        self.devices
            .entry(name.to_owned())
            .or_insert_with(|| TestDevice {
                account,
                user: name
                    .trim_end_matches(|c: char| c.is_ascii_digit())
                    .to_owned(),
                core: 0,
                id,
                grants: Grants::default(),
                room_grants: RoomGrants::default(),
                attended: true,
                api_key: ApiKeyId::from_u128(1),
                address: None,
                connection: None,
                closed: None,
                session: None,
                sent: 0,
                received: 0,
                acknowledges: true,
                frames: VecDeque::new(),
                sealed: BTreeMap::new(),
                held: BTreeMap::new(),
                key: device_key(),
            })
    }

    /// Opens a socket and says hello; resumes when the Device has a Session. Returns `welcome`, or `null` when refused.
    pub(crate) fn connect(&mut self, name: &str) -> Value {
        self.hello(name, false)
    }

    pub(crate) fn hello(&mut self, name: &str, expired: bool) -> Value {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let device = self.device(name);
        device.connection = Some(connection);
        device.closed = None;

        let resume = device.session.as_ref().map(|(session, key)| Resume {
            session: session.parse().unwrap(),
            key: key.clone(),
            ack: device.received,
        });
        let hello = VerifiedHello {
            id: None,
            api_key: device.api_key,
            account: device.account,
            user: device.user.parse().unwrap(),
            name: Some(device.user.to_uppercase()),
            grants: device.grants,
            room_grants: device.room_grants.clone(),
            expired,
            attended: device.attended,
            device: DeviceInfo {
                id: device.id.parse().unwrap(),
                name: None,
                key: device.key.clone(),
            },
            resume,
            address: device.address,
            ice_servers: Vec::new(),
        };
        let core = device.core;
        let now = self.now;
        self.cores[core].handle_hello(now, connection, hello);
        self.pump();
        self.take(name, "welcome")
            .map_or(Value::Null, |frame| frame["data"].clone())
    }

    /// The socket dies without a word.
    pub(crate) fn disconnect(&mut self, name: &str) {
        let now = self.now;
        let device = self.device(name);
        let (core, connection) = (device.core, device.connection.take());
        if let Some(connection) = connection {
            self.cores[core].handle_disconnect(now, connection);
        }
        self.pump();
    }

    /// The API key signs nothing any more.
    pub(crate) fn revoke(&mut self, account: AccountId, api_key: ApiKeyId) {
        let now = self.now;
        for core in &mut self.cores {
            core.handle_key_revoked(now, account, api_key);
        }
        self.pump();
    }

    /// Forgets the Session, as a reloaded page does.
    pub(crate) fn forget(&mut self, name: &str) {
        self.disconnect(name);
        self.device(name).session = None;
    }

    // What Devices say.

    /// Sends a command and returns its id.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "stories write the value in place"
    )]
    pub(crate) fn send(&mut self, name: &str, kind: &str, data: Value) -> String {
        self.ids += 1;
        let id = ulid(self.ids);
        self.send_as(name, &id, kind, &data);
        id
    }

    pub(crate) fn send_as(&mut self, name: &str, id: &str, kind: &str, data: &Value) {
        let device = self.device(name);
        device.sent += 1;
        let frame = json!({
            "type": kind, "id": id, "seq": device.sent, "ack": device.received, "data": data,
        });
        self.note(name, "→", &frame);
        self.send_text(name, &frame.to_string());
    }

    pub(crate) fn send_text(&mut self, name: &str, text: &str) {
        let now = self.now;
        let device = self.device(name);
        let (core, connection) = (device.core, device.connection);
        if let Some(connection) = connection {
            self.cores[core].handle_frame(now, connection, text);
        }
        self.pump();
    }

    /// The answer to a command: `ok`'s data, or `error`'s.
    pub(crate) fn answer_to(&mut self, name: &str, id: &str) -> Result<Value, Value> {
        let device = self.device(name);
        let at = device
            .frames
            .iter()
            .position(|frame| frame["reply_to"] == id);
        let frame = at
            .and_then(|at| device.frames.remove(at))
            .expect("an answer");
        if frame["type"] == "ok" {
            Ok(frame["data"].clone())
        } else {
            Err(frame["data"].clone())
        }
    }

    pub(crate) fn ok(&mut self, name: &str, kind: &str, data: Value) -> Value {
        let id = self.send(name, kind, data);
        self.answer_to(name, &id)
            .unwrap_or_else(|error| panic!("{name}: {kind}: {error}"))
    }

    /// The code of the error a command is answered with.
    pub(crate) fn refused(&mut self, name: &str, kind: &str, data: Value) -> String {
        let id = self.send(name, kind, data);
        let error = self.answer_to(name, &id).expect_err("a refusal");
        error["code"].as_str().unwrap().to_owned()
    }

    // Calls in short.

    pub(crate) fn new_call(&mut self) -> String {
        self.ids += 1;
        ulid(self.ids)
    }

    pub(crate) fn invite(&mut self, name: &str, to: &str) -> String {
        let call = self.new_call();
        self.invite_as(name, to, &call);
        call
    }

    pub(crate) fn invite_as(&mut self, name: &str, to: &str, call: &str) -> Value {
        let media = json!({ "audio": true, "video": true });
        self.ok(
            name,
            "call.invite",
            json!({ "call": call, "to": to, "media": media }),
        )["state"]
            .clone()
    }

    pub(crate) fn accept(&mut self, name: &str, call: &str) -> Value {
        let rev = self.rev(name, call);
        self.ok(name, "call.accept", json!({ "call": call, "rev": rev }))["state"].clone()
    }

    pub(crate) fn hangup(&mut self, name: &str, call: &str) -> Value {
        self.ok(name, "call.hangup", json!({ "call": call }))["state"].clone()
    }

    /// An answered Call.
    pub(crate) fn talk(&mut self, caller: &str, callee: &str) -> String {
        let callee_user = self.device(callee).user.clone();
        let call = self.invite(caller, &callee_user);
        self.accept(callee, &call);
        call
    }

    pub(crate) fn rev(&mut self, name: &str, call: &str) -> u64 {
        self.seen(name, call)["rev"].as_u64().unwrap()
    }

    /// The newest state a Device has seen of a Call.
    pub(crate) fn seen(&mut self, name: &str, call: &str) -> Value {
        self.device(name)
            .sealed
            .get(call)
            .map_or(Value::Null, |(state, _)| state.clone())
    }

    /// How a Device sees that a Call ended, as `reason by`.
    pub(crate) fn end(&mut self, name: &str, call: &str) -> String {
        let end = self.seen(name, call)["end"].clone();
        format!(
            "{} {}",
            end["reason"].as_str().unwrap_or("-"),
            end["by"].as_str().unwrap_or("-")
        )
    }

    pub(crate) fn sync(&mut self, name: &str, call: &str) -> Result<Value, Value> {
        let device = self.device(name);
        let sealed = device
            .held
            .remove(call)
            .unwrap_or_else(|| device.sealed[call].1.clone());
        let id = self.send(name, "call.sync", json!({ "call": call, "sealed": sealed }));
        self.answer_to(name, &id)
    }

    // What Devices hear.

    /// Drains what a Device has heard beside answers, in short: `call.update ended`, `presence bob available`.
    pub(crate) fn heard(&mut self, name: &str) -> Vec<String> {
        let frames: Vec<Value> = self.device(name).frames.drain(..).collect();
        frames
            .iter()
            .filter(|frame| frame["reply_to"].is_null())
            .map(in_short)
            .collect()
    }

    /// Drains and forgets what everybody has heard.
    pub(crate) fn hush(&mut self) {
        self.devices
            .values_mut()
            .for_each(|device| device.frames.clear());
        self.ladder.clear();
    }

    /// Takes the first unread frame of a type.
    pub(crate) fn take(&mut self, name: &str, kind: &str) -> Option<Value> {
        let frames = &mut self.device(name).frames;
        let at = frames.iter().position(|frame| frame["type"] == kind)?;
        frames.remove(at)
    }

    // Time.

    pub(crate) fn advance(&mut self, millis: u64) {
        let until = self.now + Millis::new(millis);
        loop {
            let next = self.cores.iter().filter_map(Signaling::poll_timeout).min();
            match next {
                Some(at) if at <= until => {
                    self.now = self.now.max(at);
                    let now = self.now;
                    self.cores
                        .iter_mut()
                        .for_each(|core| core.handle_timeout(now));
                    self.pump();
                }
                _ => break,
            }
        }
        self.now = until;
    }

    /// Advances while every Device answers pings, as clients do.
    pub(crate) fn advance_alive(&mut self, millis: u64) {
        for _ in 0..millis / 1_000 {
            self.advance(1_000);
            let names: Vec<String> = self.devices.keys().cloned().collect();
            for name in names {
                let ack = self.device(&name).received;
                self.send_text(&name, &json!({ "type": "pong", "ack": ack }).to_string());
            }
        }
    }

    pub(crate) fn ended_records(&self) -> Vec<String> {
        let ended = self.records.iter().filter_map(|change| match change {
            RecordChange::CallEnded(row) | RecordChange::CallLost(row) => Some(row),
            _ => None,
        });
        ended
            .map(|row| {
                let missed = if row.missed { " missed" } else { "" };
                format!(
                    "{}→{} {:?}{missed}",
                    row.caller.user,
                    row.callee.user,
                    row.reason.unwrap()
                )
            })
            .collect()
    }

    /// The queries that were not answered fail.
    pub(crate) fn fail_queries(&mut self) {
        for (core, query) in std::mem::take(&mut self.unanswered) {
            self.cores[core].handle_answer(self.now, query, Answer::Failed);
        }
        self.pump();
    }

    /// The rows of the records that have no end, oldest first.
    fn open_rows(&self) -> Vec<CallRecord> {
        let mut open = BTreeMap::new();
        for change in &self.records {
            match change {
                RecordChange::CallBegun(row) | RecordChange::CallAnswered(row) => {
                    open.insert(place(row), (**row).clone());
                }
                RecordChange::CallEnded(row) | RecordChange::CallLost(row) => {
                    open.remove(&place(row));
                }
                _ => {}
            }
        }
        open.into_values().collect()
    }

    /// Does what the cores ask for until they are quiet.
    pub(crate) fn pump(&mut self) {
        loop {
            for core in 0..self.cores.len() {
                while let Some(output) = self.cores[core].poll_output() {
                    self.on_output(core, output);
                }
            }
            if let Some((core, event)) = self.media_news.pop_front() {
                self.cores[core].handle_media(self.now, event);
                continue;
            }
            let Some((from, to, message)) = self.bus.pop_front() else {
                return;
            };
            let now = self.now;
            for (index, core) in self.cores.iter_mut().enumerate() {
                let is_meant = match to {
                    Target::Node(id) => id == node(index),
                    Target::Account => index != from,
                };
                if is_meant {
                    core.handle_bus(now, message.clone());
                }
            }
        }
    }

    /// One node says that another is gone.
    pub(crate) fn node_gone(&mut self, gone: usize) {
        let account = AccountId::from_u128(1);
        let message = Message {
            account,
            from: node(gone),
            body: Body::NodeGone,
        };
        self.bus.push_back((gone, Target::Account, message));
        self.pump();
    }

    fn on_output(&mut self, core: usize, output: Output) {
        match output {
            Output::Send {
                connection, text, ..
            } => self.on_text(connection, &text),
            Output::Close {
                connection, code, ..
            } => {
                let device = self
                    .devices
                    .values_mut()
                    .find(|device| device.connection == Some(connection));
                if let Some(device) = device {
                    device.closed = Some(code.as_u16());
                    device.connection = None;
                }
            }
            Output::Record(change) => self.records.push(change),
            Output::Publish { to, message } => self.bus.push_back((core, to, message)),
            Output::Media(command) => {
                if self.media_answers
                    && let Some(event) = answer_of(&command)
                {
                    self.media_news.push_back((core, event));
                }
                self.media.push(command);
            }
            Output::Phone(command) => self.phone.push(command),
            Output::Query { query, question } if self.records_answer => {
                let answer = match question {
                    Question::History { .. } => Answer::History {
                        entries: Vec::new(),
                        next: None,
                        missed: 3,
                    },
                    Question::Missed { .. } => Answer::Missed(3),
                    Question::Directory { users, .. } => {
                        let zoe = Named {
                            user: "zoe".parse().unwrap(),
                            name: Some("Zoe".into()),
                        };
                        Answer::Directory(if users.is_none() {
                            vec![zoe]
                        } else {
                            Vec::new()
                        })
                    }
                    Question::OpenCalls {
                        before,
                        after,
                        limit,
                    } => {
                        let mut rows = self.open_rows();
                        rows.retain(|row| {
                            row.created_at < before
                                && after.is_none_or(|after| place(row) > place_of(after))
                        });
                        rows.truncate(limit.into());
                        let is_full = rows.len() == usize::from(limit);
                        let next = rows.last().filter(|_| is_full).map(|row| OpenCallsCursor {
                            created_at: row.created_at,
                            account: row.account,
                            call: row.call,
                        });
                        Answer::OpenCalls { rows, next }
                    }
                    Question::IceServers { .. } => Answer::IceServers(vec![IceServer {
                        urls: vec!["stun:localhost".into()],
                        username: None,
                        credential: None,
                    }]),
                    question => crate::mailboxes::answer(question),
                };
                let now = self.now;
                self.cores[core].handle_answer(now, query, answer);
            }
            Output::Query { query, .. } => self.unanswered.push((core, query)),
        }
    }

    /// The SFU says something.
    pub(crate) fn media_says(&mut self, event: MediaEvent) {
        self.media_news.push_back((0, event));
        self.pump();
    }

    /// The phone gateway says something about a phone call.
    pub(crate) fn phone_says(&mut self, call: &str, kind: PhoneEventKind) {
        let event = PhoneEvent {
            account: AccountId::from_u128(1),
            call: call.parse().unwrap(),
            kind,
        };
        self.cores[0].handle_phone(self.now, event);
        self.pump();
    }

    /// There is no phone gateway any more, or one again.
    pub(crate) fn phone_available(&mut self, is_available: bool) {
        for core in &mut self.cores {
            core.handle_phone_available(self.now, is_available);
        }
        self.pump();
    }

    fn on_text(&mut self, connection: ConnectionId, text: &[u8]) {
        let frame: Value = serde_json::from_slice(text).unwrap();
        let name = self
            .devices
            .iter()
            .find(|(_, device)| device.connection == Some(connection));
        let Some(name) = name.map(|(name, _)| name.clone()) else {
            return;
        };

        self.note(&name, "←", &frame);
        let device = self.device(&name);
        let data = &frame["data"];
        if frame["type"] == "welcome" {
            if data["resumed"] == false {
                let sealed = device
                    .sealed
                    .iter()
                    .map(|(call, (_, sealed))| (call.clone(), sealed.clone()));
                device.held = sealed.collect();
                (device.sent, device.received) = (0, 0);
            }
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            device.session = Some((text(&data["session"]), text(&data["key"])));
        }
        if let Some(seq) = frame["seq"].as_u64() {
            if seq <= device.received {
                return;
            }
            assert_eq!(seq, device.received + 1, "{name} misses a frame");
            device.received = seq;
        }
        if let (Some(call), Some(sealed)) =
            (data["state"]["call"].as_str(), data["sealed"].as_str())
        {
            let version = |state: &Value| (state["epoch"].as_u64(), state["rev"].as_u64());
            let is_over = |state: &Value| state["phase"] == "ended"; // an end always wins
            let is_news = device.sealed.get(call).is_none_or(|(held, _)| {
                !is_over(held)
                    && (is_over(&data["state"]) || version(&data["state"]) >= version(held))
            });
            if is_news {
                device
                    .sealed
                    .insert(call.to_owned(), (data["state"].clone(), sealed.to_owned()));
            }
        }
        device.frames.push_back(frame);

        if device.acknowledges && device.received.is_multiple_of(16) && device.received > 0 {
            let ack = json!({ "type": "ack", "ack": device.received }).to_string();
            let (core, now) = (device.core, self.now);
            self.cores[core].handle_frame(now, connection, &ack);
        }
    }

    fn note(&mut self, name: &str, arrow: &str, frame: &Value) {
        if frame["seq"].is_null() || frame["type"] == "history" || frame["type"] == "presence" {
            return;
        }
        let at = (self.now - self.started).get();
        let what = in_short(frame);
        self.ladder
            .push(format!("{at:>6}ms  {name:<6}{arrow} {what}"));
    }
}

fn place(row: &CallRecord) -> (Timestamp, AccountId, CallId) {
    (row.created_at, row.account, row.call)
}

fn place_of(cursor: OpenCallsCursor) -> (Timestamp, AccountId, CallId) {
    (cursor.created_at, cursor.account, cursor.call)
}

/// A session description with this many m-sections, all covered.
pub(crate) fn sdp(sections: usize) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{STRONG}\r\n{}",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".repeat(sections)
    )
}

pub(crate) fn offer(call: &str, generation: u64) -> Value {
    json!({ "call": call, "generation": generation, "sdp": sdp(1), "signature": "A".repeat(86) })
}

/// What an SFU answers to an offer: nothing is in the slots yet.
pub(crate) fn answer_of(command: &MediaCommand) -> Option<MediaEvent> {
    let (participant, offer) = match &command.kind {
        MediaCommandKind::Join {
            participant, offer, ..
        }
        | MediaCommandKind::Offer { participant, offer } => (*participant, offer),
        _ => return None,
    };

    let kind = MediaEventKind::Answered {
        participant,
        generation: offer.generation,
        sdp: format!("answer {}", offer.generation),
        slots: Vec::new(),
    };
    Some(MediaEvent {
        account: command.account,
        room: command.room,
        kind,
    })
}

fn core(limits: &Limits, index: usize, boot: u64) -> Signaling {
    let secret = SealSecret::new([7; 32]);
    let seed = boot * 1_000 + index as u64;
    let mut core = Signaling::new(limits.clone(), node(index), &secret, seed);
    core.handle_media_available(Timestamp::default(), true);
    core.handle_phone_available(Timestamp::default(), true);
    core
}

fn node(index: usize) -> NodeId {
    NodeId::from_u128(index as u128 + 1)
}

fn ulid(value: u128) -> String {
    CallId::from_u128(value).to_string()
}

fn device_key() -> String {
    format!("BA{}", "A".repeat(85))
}

/// The type of a frame and what distinguishes it.
fn in_short(frame: &Value) -> String {
    let data = &frame["data"];
    let detail = match frame["type"].as_str().unwrap() {
        "call.update" => data["event"].as_str(),
        "presence" => {
            let (user, status) = (
                data["user"].as_str().unwrap(),
                data["status"].as_str().unwrap(),
            );
            return format!("presence {user} {status}");
        }
        "error" => data["code"].as_str(),
        "ok" => data["state"]["phase"].as_str().or(data["role"].as_str()),
        "room.join" => data["room"].as_str(),
        "room.participant" => {
            let participant = &data["participant"];
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            let (user, role) = (word(&participant["user"]), word(&participant["role"]));
            let mut detail = format!("room.participant {user} {role}");
            for track in participant["tracks"].as_array().unwrap() {
                let muted = if track["muted"] == true {
                    " (muted)"
                } else {
                    ""
                };
                detail = format!("{detail} {}{muted}", word(&track["source"]));
            }
            if !participant["hand_at"].is_null() {
                detail.push_str(" hand");
            }
            return detail;
        }
        "call.progress" => data["progress"].as_str(),
        "call.dtmf" => data["keys"].as_str(),
        "room.left" | "room.ended" | "room.denied" => data["reason"].as_str(),
        "room.chat" if !data["message"].is_null() => data["message"]["text"].as_str(),
        "room.reaction" => data["reaction"].as_str(),
        "room.lobby" => {
            let waiting = data["waiting"].as_array().unwrap().iter();
            let users: Vec<_> = waiting.map(|one| one["user"].as_str().unwrap()).collect();
            return format!("room.lobby {}", users.join(" "))
                .trim_end()
                .to_owned();
        }
        "call.invite" => data["to"].as_str(),
        _ => None,
    };
    format!(
        "{} {}",
        frame["type"].as_str().unwrap(),
        detail.unwrap_or_default()
    )
    .trim_end()
    .to_owned()
}
