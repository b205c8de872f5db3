//! A client that follows docs/calls.v1.md to the letter: one Device and its Session.
//!
//! It reads and writes JSON without the server's own types, so that a mistake in those shows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use sim::{Network, NodeId, Rng, StreamId};

use crate::behaviour;
use crate::oracle::Oracle;
use crate::rooms::{self, Rooms};
use crate::text::{Trace, ulid};
use crate::view::{Held, Phase, View};

/// What travels on a simulated WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    Text(String),
    Close(u16),
}

/// What a Device may touch while it handles something.
pub struct Io<'a> {
    pub net: &'a mut Network<Wire>,
    pub rng: &'a mut Rng,
    pub trace: &'a mut Trace,
    pub oracle: &'a mut Oracle,
    pub server: NodeId,
}

impl Io<'_> {
    pub fn now(&self) -> Duration {
        self.net.now()
    }

    pub fn ulid(&mut self) -> String {
        ulid(self.net.clock().unix(), self.rng)
    }
}

/// A command that waits for its answer.
#[derive(Debug, Clone)]
pub struct Command {
    pub id: String,
    pub kind: String,
    pub data: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    None,
    Connecting(StreamId),
    /// `hello` is sent.
    Greeting(StreamId),
    Live(StreamId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Reconnect,
    Greeting,
    Ack,
    Ping,
}

/// What a Device means to do by itself later, such as accepting.
#[derive(Debug, Clone)]
pub struct Plan {
    pub kind: &'static str,
    pub call: String,
}

pub struct Device {
    pub name: String,
    pub user: String,
    pub id: String,
    pub key: String,
    pub node: NodeId,
    pub calls: BTreeMap<String, Held>,
    pub rooms: Rooms,
    pub waiting: Vec<Command>,
    pub plans: Vec<(Duration, Plan)>,
    /// Whether the Device tries to be connected at all.
    pub wants_online: bool,
    /// The newest generation of SDP this Device sent or saw, by Call.
    pub generations: BTreeMap<String, u64>,
    /// How many marked candidates it has sent.
    pub markers: u64,
    /// How often this Device has begun a Session that was not a resumed one.
    pub sessions_begun: u32,
    socket: Socket,
    session: Option<(String, String)>,
    received: u64,
    sent: u64,
    unacknowledged: VecDeque<(u64, Value)>,
    /// The last frames received, to compare with what a resume brings again.
    seen: VecDeque<(u64, Value)>,
    since_ack: u32,
    pings_unanswered: u32,
    timers: BTreeMap<Timer, Duration>,
}

const PING_IDLE: Duration = Duration::from_secs(25);
const PING_IN_CALL: Duration = Duration::from_secs(5);
/// An unanswered ping is repeated sooner: a half-open socket must be noticed well within the 60 s that a Session waits.
const PING_AGAIN: Duration = Duration::from_secs(5);
const ACK_WITHIN: Duration = Duration::from_secs(2);
const ENDED_KEPT: Duration = Duration::from_secs(60);

impl Device {
    pub fn new(name: &str, user: &str, node: NodeId, id: String, key: String) -> Self {
        Self {
            name: name.into(),
            user: user.into(),
            id,
            key,
            node,
            calls: BTreeMap::new(),
            rooms: Rooms::default(),
            waiting: Vec::new(),
            plans: Vec::new(),
            wants_online: false,
            generations: BTreeMap::new(),
            markers: 0,
            sessions_begun: 0,
            socket: Socket::None,
            session: None,
            received: 0,
            sent: 0,
            unacknowledged: VecDeque::new(),
            seen: VecDeque::new(),
            since_ack: 0,
            pings_unanswered: 0,
            timers: BTreeMap::new(),
        }
    }

    // What the person and the world do.

    pub fn go_online(&mut self, io: &mut Io<'_>) {
        self.wants_online = true;
        if self.socket == Socket::None {
            self.connect(io);
        }
    }

    /// Sends a command, now or once connected, and returns its id.
    pub fn command(&mut self, kind: &str, data: Value, io: &mut Io<'_>) -> String {
        let id = io.ulid();
        let command = Command {
            id: id.clone(),
            kind: kind.into(),
            data,
        };
        io.oracle.on_command(&self.name, &command);
        // Without a Session the command goes out once there is one.
        if self.session.is_some() {
            self.send_reliable(&command, io);
        }
        self.waiting.push(command);
        id
    }

    /// The page is loaded again: everything but the Device's own id and key is forgotten.
    pub fn reload(&mut self, io: &mut Io<'_>) {
        io.trace
            .mark(io.net.now(), &self.name, || "page reloaded".into());
        self.drop_socket(io);
        self.forget(io);
        self.timers
            .insert(Timer::Reconnect, io.now() + io.rng.millis(50..=500));
    }

    /// Says `bye`, which ends the Session, and stays away.
    pub fn bye(&mut self, io: &mut Io<'_>) {
        self.transmit(json!({ "type": "bye", "id": io.ulid() }), io);
        self.drop_socket(io);
        self.forget(io);
        self.wants_online = false;
    }

    /// Loses its network without a word until [`Device::go_online`].
    pub fn vanish(&mut self, io: &mut Io<'_>) {
        io.trace
            .mark(io.net.now(), &self.name, || "vanishes".into());
        if let Some(stream) = self.stream() {
            io.net.cut(stream, sim::Cut::Silent);
        }
        self.socket = Socket::None;
        self.timers.clear();
        self.wants_online = false;
    }

    pub fn stream(&self) -> Option<StreamId> {
        match self.socket {
            Socket::None => None,
            Socket::Connecting(stream) | Socket::Greeting(stream) | Socket::Live(stream) => {
                Some(stream)
            }
        }
    }

    pub fn is_live(&self) -> bool {
        matches!(self.socket, Socket::Live(_))
    }

    // What the network and the clock do.

    pub fn on_connected(&mut self, stream: StreamId, io: &mut Io<'_>) {
        if self.socket != Socket::Connecting(stream) {
            return;
        }
        self.socket = Socket::Greeting(stream);
        let mut data = json!({
            "token": self.user,
            "device": { "id": self.id, "name": self.name, "key": self.key },
        });
        if let Some((session, key)) = &self.session {
            data["resume"] = json!({ "session": session, "key": key, "ack": self.received });
        }
        let frame = json!({ "type": "hello", "id": io.ulid(), "data": data });
        self.write(stream, &frame, io);
    }

    pub fn on_closed(&mut self, stream: StreamId, io: &mut Io<'_>) {
        if self.stream() == Some(stream) {
            self.reconnect_soon(io);
        }
    }

    pub fn on_wire(&mut self, stream: StreamId, wire: Wire, io: &mut Io<'_>) {
        if self.stream() != Some(stream) {
            return;
        }
        match wire {
            Wire::Close(code) => {
                io.trace
                    .mark(io.net.now(), &self.name, || format!("closed with {code}"));
                io.oracle.on_close_code(&self.name, code);
                self.reconnect_soon(io);
            }
            Wire::Text(text) => match serde_json::from_str(&text) {
                Ok(frame) => self.on_frame(frame, io),
                Err(error) => io.oracle.fail(format!(
                    "{}: a frame that is no JSON: {error}: {text}",
                    self.name
                )),
            },
        }
    }

    pub fn on_timer(&mut self, io: &mut Io<'_>) {
        let now = io.now();
        let due: Vec<_> = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(timer, _)| *timer)
            .collect();
        for timer in due {
            self.timers.remove(&timer);
            match timer {
                Timer::Reconnect => self.connect(io),
                Timer::Greeting => self.reconnect_soon(io),
                Timer::Ack => self.transmit(json!({ "type": "ack", "id": io.ulid() }), io),
                Timer::Ping => self.on_ping_due(io),
            }
        }
        self.calls
            .retain(|_, held| held.ended_at.is_none_or(|at| at + ENDED_KEPT > now));
    }

    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers
            .values()
            .chain(self.plans.iter().map(|(at, _)| at))
            .min()
            .copied()
    }

    /// Takes the plans that are due.
    pub fn due_plans(&mut self, now: Duration) -> Vec<Plan> {
        let (due, later) = std::mem::take(&mut self.plans)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.plans = later;
        due.into_iter()
            .map(|(_, plan): (Duration, Plan)| plan)
            .collect()
    }

    fn on_ping_due(&mut self, io: &mut Io<'_>) {
        if self.pings_unanswered >= 2 {
            io.trace
                .mark(io.net.now(), &self.name, || "gives the socket up".into());
            self.reconnect_soon(io);
            return;
        }
        self.pings_unanswered += 1;
        self.transmit(json!({ "type": "ping", "id": io.ulid() }), io);
        self.timers.insert(Timer::Ping, io.now() + PING_AGAIN);
    }

    fn set_ping(&mut self, now: Duration) {
        let in_call = self
            .calls
            .values()
            .any(|held| held.view.phase != Phase::Ended);
        self.timers.insert(
            Timer::Ping,
            now + if in_call { PING_IN_CALL } else { PING_IDLE },
        );
    }

    fn connect(&mut self, io: &mut Io<'_>) {
        if !self.wants_online {
            return;
        }
        let stream = io.net.connect(self.node, io.server);
        self.socket = Socket::Connecting(stream);
        self.timers.clear();
        self.timers
            .insert(Timer::Greeting, io.now() + Duration::from_secs(10));
    }

    fn reconnect_soon(&mut self, io: &mut Io<'_>) {
        self.drop_socket(io);
        self.timers
            .insert(Timer::Reconnect, io.now() + io.rng.millis(20..=800));
    }

    fn drop_socket(&mut self, io: &mut Io<'_>) {
        if let Some(stream) = self.stream() {
            io.net.close(stream, self.node);
        }
        self.socket = Socket::None;
        self.timers.clear();
        self.pings_unanswered = 0;
    }

    fn forget(&mut self, io: &mut Io<'_>) {
        io.oracle.on_forgotten(&self.name);
        self.session = None;
        self.received = 0;
        self.sent = 0;
        self.unacknowledged.clear();
        self.seen.clear();
        self.waiting.clear();
        self.calls.clear();
        self.rooms.clear();
        self.plans.clear();
    }

    // Frames out.

    fn send_reliable(&mut self, command: &Command, io: &mut Io<'_>) {
        self.sent += 1;
        let Command { id, kind, data } = command;
        let frame = json!({ "type": kind, "id": id, "seq": self.sent, "data": data });
        self.unacknowledged.push_back((self.sent, frame.clone()));
        self.transmit(frame, io);
    }

    /// Writes `frame` with the newest `ack`, when there is a socket that has been welcomed.
    fn transmit(&mut self, mut frame: Value, io: &mut Io<'_>) {
        if let Socket::Live(stream) = self.socket {
            frame["ack"] = json!(self.received);
            self.since_ack = 0;
            self.timers.remove(&Timer::Ack);
            self.write(stream, &frame, io);
        }
    }

    fn write(&self, stream: StreamId, frame: &Value, io: &mut Io<'_>) {
        io.trace.arrow(io.net.now(), &self.name, "server", frame);
        io.net
            .send(stream, self.node, Wire::Text(frame.to_string()));
    }

    // Frames in.

    fn on_frame(&mut self, frame: Value, io: &mut Io<'_>) {
        io.trace.arrow(io.net.now(), "server", &self.name, &frame);
        self.pings_unanswered = 0;
        if self.is_live() {
            self.set_ping(io.now());
        }
        let kind = frame["type"].as_str().unwrap_or_default().to_owned();
        if kind == "welcome" {
            return self.on_welcome(&frame["data"], io);
        }
        if let Some(ack) = frame["ack"].as_u64() {
            self.on_ack(ack, io);
        }
        match (kind.as_str(), frame["seq"].as_u64()) {
            ("ping", None) => self.transmit(json!({ "type": "pong", "id": io.ulid() }), io),
            ("pong" | "ack" | "room.speakers" | "room.quality", None) => {}
            ("goaway", None) => self.reconnect_soon(io),
            ("error", None) => io.oracle.on_loose_error(&self.name, &frame),
            ("hello" | "welcome" | "ping" | "pong" | "ack" | "bye", Some(_)) => {
                io.oracle.fail(format!("{}: {kind} with a seq", self.name));
            }
            (_, None) => io
                .oracle
                .fail(format!("{}: {kind} without a seq: {frame}", self.name)),
            (_, Some(seq)) => self.on_reliable(seq, &kind, frame, io),
        }
    }

    fn on_welcome(&mut self, data: &Value, io: &mut Io<'_>) {
        let Socket::Greeting(stream) = self.socket else {
            return io
                .oracle
                .fail(format!("{}: a welcome nobody waits for", self.name));
        };
        self.socket = Socket::Live(stream);
        self.timers.remove(&Timer::Greeting);
        self.set_ping(io.now());
        let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
        let session = (text("session"), text("key"));
        let resumed = data["resumed"].as_bool().unwrap_or_default();
        let previous = self.session.replace(session);
        io.oracle
            .on_welcome(&self.name, previous.is_some(), resumed);

        if resumed {
            self.on_ack(data["ack"].as_u64().unwrap_or_default(), io);
            let again: Vec<_> = self
                .unacknowledged
                .iter()
                .map(|(_, frame)| frame.clone())
                .collect();
            for frame in again {
                self.transmit(frame, io);
            }
            return;
        }

        self.sessions_begun += 1;
        self.received = 0;
        self.sent = 0;
        self.unacknowledged.clear();
        self.seen.clear();
        // A sync of before would hand back a state that may be older than the one held now.
        let unanswered: Vec<_> = std::mem::take(&mut self.waiting)
            .into_iter()
            .filter(|c| c.kind != "call.sync")
            .collect();
        let held: Vec<_> = self
            .calls
            .values()
            .map(|held| (held.view.call.clone(), held.sealed.clone()))
            .collect();
        let lost = self.rooms.lose(&unanswered);
        io.oracle.on_handed_back(&self.name, &self.calls);
        for (call, sealed) in held {
            self.command("call.sync", json!({ "call": call, "sealed": sealed }), io);
        }
        for command in unanswered {
            self.waiting.push(command.clone());
            self.send_reliable(&command, io);
        }
        for room in lost {
            rooms::join_again(self, &room, io);
        }
    }

    fn on_ack(&mut self, ack: u64, io: &mut Io<'_>) {
        if ack > self.sent {
            io.oracle.fail(format!(
                "{}: ack {ack} of {} frames sent",
                self.name, self.sent
            ));
        }
        while self
            .unacknowledged
            .front()
            .is_some_and(|(seq, _)| *seq <= ack)
        {
            self.unacknowledged.pop_front();
        }
    }

    fn on_reliable(&mut self, seq: u64, kind: &str, mut frame: Value, io: &mut Io<'_>) {
        if let Some(object) = frame.as_object_mut() {
            object.remove("ack"); // the one field that differs when a frame is sent again
        }
        if seq <= self.received {
            let first = self.seen.iter().find(|(number, _)| *number == seq);
            if first.is_some_and(|(_, first)| *first != frame) {
                io.oracle.fail(format!(
                    "{}: frame {seq} came again as another: {frame}",
                    self.name
                ));
            }
            return;
        }
        if seq > self.received + 1 {
            return io.oracle.fail(format!(
                "{}: frame {seq} after {}",
                self.name, self.received
            ));
        }

        self.received = seq;
        self.since_ack += 1;
        self.timers
            .entry(Timer::Ack)
            .or_insert(io.now() + ACK_WITHIN);
        if self.seen.len() == 300 {
            self.seen.pop_front();
        }
        self.on_message(kind, &frame, io);
        self.seen.push_back((seq, frame));
        if self.since_ack >= 16 {
            self.transmit(json!({ "type": "ack", "id": io.ulid() }), io);
        }
    }

    fn on_message(&mut self, kind: &str, frame: &Value, io: &mut Io<'_>) {
        let data = &frame["data"];
        if kind == "ok" || kind == "error" {
            let Some(at) = self
                .waiting
                .iter()
                .position(|command| frame["reply_to"] == command.id.as_str())
            else {
                return io
                    .oracle
                    .fail(format!("{}: an answer to nothing: {frame}", self.name));
            };
            let command = self.waiting.remove(at);
            io.oracle.on_answer(&self.name, &command, kind, data);
            if command.kind.starts_with("room.") {
                return rooms::on_answer(self, &command, kind, data, io);
            }
            self.on_state(&command.kind, data, io);
            if data["code"] == "conflict" {
                self.plan_again(&command, io);
            }
            if kind == "error" && command.kind == "call.sync" {
                self.calls
                    .remove(command.data["call"].as_str().unwrap_or_default());
            }
            return;
        }

        match kind {
            "call.incoming" | "call.update" => self.on_state(kind, data, io),
            kind if kind.starts_with("room.") => rooms::on_event(self, kind, data, io),
            "history" => io.oracle.on_history(&self.name, data),
            "presence" => {}
            "sdp.offer" | "sdp.answer" | "ice.candidates" | "ice.restart" | "call.verify" => {
                io.oracle.on_relayed(&self.name, kind, data);
                self.on_relayed(kind, data, io);
            }
            _ => io
                .oracle
                .fail(format!("{}: unknown message {frame}", self.name)),
        }
    }

    /// Answers an offer as the polite side would, and learns its generation.
    fn on_relayed(&mut self, kind: &str, data: &Value, io: &mut Io<'_>) {
        let (Some(call), Some(generation)) = (data["call"].as_str(), data["generation"].as_u64())
        else {
            return;
        };
        let newest = self.generations.entry(call.into()).or_default();
        if kind == "sdp.offer" && generation > *newest {
            *newest = generation;
            behaviour::answer(self, call, generation, io);
        }
    }

    /// Takes in the state that `data` may carry.
    fn on_state(&mut self, via: &str, data: &Value, io: &mut Io<'_>) {
        if data["state"].is_null() {
            return;
        }
        let Some(view) = View::read(&data["state"]) else {
            return io.oracle.fail(format!(
                "{}: a state one cannot read: {}",
                self.name, data["state"]
            ));
        };
        let sealed = data["sealed"].as_str().unwrap_or_default().to_owned();
        if sealed.is_empty() {
            io.oracle
                .fail(format!("{}: a state without its seal in {via}", self.name));
        }
        io.oracle
            .on_state(&self.name, &self.user, via, data["event"].as_str(), &view);

        let call = view.call.clone();
        let held = self.calls.get(&call);
        if held.is_some_and(|held| {
            held.view.phase == Phase::Ended && view.phase != Phase::Ended && via == "call.sync"
        }) {
            io.oracle
                .fail(format!("{}: the ended {call} came back to life", self.name));
        }
        // The answer to a sync is "the state that holds now", whatever this Device held.
        if via != "call.sync" && held.is_some_and(|held| !view.replaces(&held.view)) {
            return;
        }
        if !view.involves(&self.user, &self.id) {
            self.calls.remove(&call); // answered elsewhere
            return;
        }
        if via == "call.incoming" && held.is_none() {
            self.plan_incoming(&call, io);
        }
        let ended_at = (view.phase == Phase::Ended).then(|| io.now());
        self.calls.insert(
            call,
            Held {
                view,
                sealed,
                ended_at,
            },
        );
    }

    /// The Call moved on under a command; the person still means it, so it is said again if it makes sense.
    fn plan_again(&mut self, command: &Command, io: &mut Io<'_>) {
        let kind = match command.kind.as_str() {
            "call.accept" => "accept",
            "call.decline" => "decline",
            "call.cancel" => "cancel",
            _ => return,
        };
        let call = command.data["call"].as_str().unwrap_or_default().into();
        self.plans.push((io.now(), Plan { kind, call }));
    }

    /// Rings, and decides what the person will do about it.
    fn plan_incoming(&mut self, call: &str, io: &mut Io<'_>) {
        let now = io.now();
        let mut plan = |kind, at| {
            let call = call.into();
            self.plans.push((at, Plan { kind, call }));
        };
        if io.rng.percent(80) {
            plan("ringing", now);
        }
        let at = now + io.rng.millis(io.oracle.mode.decision_ms());
        match io.rng.within(0..=99) {
            0..=64 => plan("accept", at),
            65..=79 => plan("decline", at),
            _ => {}
        }
    }
}
