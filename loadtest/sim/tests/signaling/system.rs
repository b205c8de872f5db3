//! The system under test: the real core, and a driver that moves its outputs into the simulated network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::record::Named;
use model::{AccountId, ApiKeyId, Grants, NodeId as ServerId, RoomGrants, Timestamp};
use serde_json::Value;
use signaling_core::{
    Answer, ConnectionId, Counts, Limits, Output, QueryId, Question, SealSecret, Signaling,
    VerifiedHello,
};
use sim::{Event, Network, NodeId, StreamId};

use crate::device::Wire;
use crate::oracle::Oracle;
use crate::reference::Reference;
use crate::rooms::Media;
use crate::store::Store;

/// A timer of the server that answers query number `token - ANSWERS`; below that it is the core's own.
const ANSWERS: u64 = 1 << 32;

/// The timer at which the SFU says what it has to say.
const MEDIA: u64 = 1 << 40;

/// How long the SFU takes to answer.
const MEDIA_LATENCY: Duration = Duration::from_millis(20);

/// How long the store takes to answer.
const STORE_LATENCY: Duration = Duration::from_millis(3);

pub struct System {
    pub store: Store,
    /// How many frames the core was handed.
    pub frames: u64,
    /// `None` while it is down.
    core: Option<Signaling>,
    node: NodeId,
    seed: u64,
    /// Who is behind a stream, once the `hello` came.
    greeted: BTreeMap<StreamId, Option<(String, String)>>,
    /// When a Device's last socket was gone.
    left_at: BTreeMap<String, Duration>,
    /// How many Devices there are.
    devices: usize,
    reference: Reference,
    questions: BTreeMap<u64, Question>,
    media: Media,
    armed: Option<Duration>,
    outputs_until_crash: Option<u64>,
}

impl System {
    pub fn new(seed: u64, node: NodeId, devices: usize, lenient: bool) -> Self {
        Self {
            store: Store::default(),
            frames: 0,
            core: None,
            node,
            seed,
            greeted: BTreeMap::new(),
            left_at: BTreeMap::new(),
            devices,
            reference: Reference::new(lenient),
            questions: BTreeMap::new(),
            media: Media::default(),
            armed: None,
            outputs_until_crash: None,
        }
    }

    /// Starts the server with its secret and nothing else.
    pub fn start(&mut self, net: &mut Network<Wire>, oracle: &mut Oracle) {
        self.seed = self.seed.wrapping_add(1 << 40);
        let limits = Limits {
            // The people of a race ring as fast as they can.
            invites_per_user_per_second: 100,
            invites_per_user_burst: 1000,
            hellos_per_address_burst: 10_000,
            ..Limits::default()
        };
        let secret = SealSecret::new([7; 32]);
        let mut core = Signaling::new(limits, ServerId::from_u128(1), &secret, self.seed);
        core.handle_start(Self::timestamp(net));
        core.handle_media_available(Self::timestamp(net), true);
        self.core = Some(core);
        self.carry_out(net, oracle);
    }

    /// Loses everything that is not in the store.
    pub fn forget(&mut self) {
        self.core = None;
        self.greeted.clear();
        self.left_at.clear();
        self.reference.forget();
        self.questions.clear();
        self.media.news.clear();
        self.armed = None;
        self.outputs_until_crash = None;
    }

    /// Lets the server crash once so many of its next outputs have taken effect.
    pub fn crash_after(&mut self, outputs: u64) {
        self.outputs_until_crash = Some(outputs);
    }

    pub fn never_crash(&mut self) {
        self.outputs_until_crash = None;
    }

    /// Tells every client that the server is about to stop.
    pub fn drain(&mut self, in_ms: u64, net: &mut Network<Wire>, oracle: &mut Oracle) {
        let now = Self::timestamp(net);
        if let Some(core) = &mut self.core {
            core.handle_drain(now, in_ms, "restart");
            self.outputs_until_crash = None;
            self.carry_out(net, oracle);
        }
    }

    /// Stops in good order: everything that was to be done is done.
    pub fn stop(&mut self, net: &mut Network<Wire>, oracle: &mut Oracle) {
        let now = Self::timestamp(net);
        if let Some(core) = &mut self.core {
            core.handle_stop(now);
            self.outputs_until_crash = None;
            self.carry_out(net, oracle);
        }
    }

    fn timestamp(net: &Network<Wire>) -> Timestamp {
        Timestamp::from_millis(net.clock().unix().as_millis() as u64)
    }

    pub fn counts(&self) -> Counts {
        self.core
            .as_ref()
            .map(Signaling::counts)
            .unwrap_or_default()
    }

    /// Hands an event of the network to the core. Returns whether the server has crashed over it.
    pub fn on_event(
        &mut self,
        event: Event<Wire>,
        net: &mut Network<Wire>,
        oracle: &mut Oracle,
    ) -> bool {
        let now = Self::timestamp(net);
        let Some(core) = &mut self.core else {
            return false;
        };
        match event {
            Event::Accepted { stream, .. } => {
                self.greeted.insert(stream, None);
            }
            Event::Message {
                stream,
                message: Wire::Text(text),
                ..
            } => {
                let connected: BTreeSet<_> = self
                    .greeted
                    .values()
                    .flatten()
                    .map(|(_, device)| device)
                    .collect();
                let alone = connected.len() != self.devices;
                match self.greeted.get_mut(&stream) {
                    Some(Some((user, device))) => {
                        self.frames += 1;
                        self.reference.on_command(&text, user, device, alone);
                        core.handle_frame(now, ConnectionId(stream.0), &text);
                    }
                    Some(greeted) => {
                        let hello = hello(&text);
                        let device = hello.device.id.to_string();
                        let left_at = self.left_at.remove(&device);
                        let away = left_at.map_or(Duration::ZERO, |at| net.now() - at);
                        oracle.on_hello(&device, away);
                        *greeted = Some((hello.user.to_string(), device));
                        core.handle_hello(now, ConnectionId(stream.0), hello);
                    }
                    None => {}
                }
            }
            Event::Closed { stream, .. } => {
                if let Some((_, device)) = self.greeted.remove(&stream).flatten() {
                    self.left_at.insert(device, net.now());
                    core.handle_disconnect(now, ConnectionId(stream.0));
                }
            }
            Event::Timer { token: MEDIA, .. } => {
                if let Some(news) = self.media.news.pop_front() {
                    core.handle_media(now, news);
                }
            }
            Event::Timer { token, .. } if token >= ANSWERS => {
                let query = token - ANSWERS;
                if let Some(question) = self.questions.remove(&query) {
                    let answer = answer(&self.store, &question);
                    core.handle_answer(now, QueryId(query), answer);
                }
            }
            Event::Timer { .. } => {
                self.armed = None;
                if core.poll_timeout().is_some_and(|at| at <= now) {
                    core.handle_timeout(now);
                }
            }
            Event::Message { .. } | Event::Connected { .. } | Event::Datagram { .. } => {}
        }
        self.carry_out(net, oracle)
    }

    /// Does what the core wants, one output after the other, until there is none or the server crashes.
    fn carry_out(&mut self, net: &mut Network<Wire>, oracle: &mut Oracle) -> bool {
        while let Some(output) = self.core.as_mut().and_then(Signaling::poll_output) {
            if let Some(left) = &mut self.outputs_until_crash {
                if *left == 0 {
                    return true;
                }
                *left -= 1;
            }
            match output {
                Output::Send {
                    connection, text, ..
                } => {
                    let text = String::from_utf8(text.to_vec()).unwrap();
                    let frame = serde_json::from_str(&text).unwrap();
                    if let Some(wrong) = self.reference.on_sent(&frame) {
                        oracle.fail(wrong);
                    }
                    net.send(StreamId(connection.0), self.node, Wire::Text(text));
                }
                Output::Close {
                    connection, code, ..
                } => {
                    let stream = StreamId(connection.0);
                    if let Some((_, device)) = self.greeted.remove(&stream).flatten() {
                        self.left_at.insert(device, net.now());
                    }
                    net.send(stream, self.node, Wire::Close(code.as_u16()));
                    net.close(stream, self.node);
                }
                Output::Record(change) => self.store.apply(&change),
                Output::Query { query, question } => {
                    self.questions.insert(query.0, question);
                    net.set_timer(self.node, net.now() + STORE_LATENCY, ANSWERS + query.0);
                }
                Output::Publish { .. } => {} // there is no other node
                Output::Phone(command) => oracle.fail(format!("there is no gateway: {command:?}")),
                Output::Media(command) => {
                    for _ in 0..self.media.handle(&command) {
                        net.set_timer(self.node, net.now() + MEDIA_LATENCY, MEDIA);
                    }
                }
            }
        }

        self.reference.on_quiet();
        let start = net.clock().unix() - net.now();
        if let Some(at) = self.core.as_ref().and_then(Signaling::poll_timeout) {
            let at = Duration::from_millis(at.as_millis()).saturating_sub(start);
            if self.armed.is_none_or(|armed| at < armed) {
                self.armed = Some(at);
                net.set_timer(self.node, at, 0);
            }
            if at + Duration::from_secs(600) < net.now() {
                oracle.fail(format!("the core waits for a moment long gone: {at:?}"));
            }
        }
        false
    }
}

/// What the service makes of a `hello`: the token of the simulation is the User's id.
fn hello(text: &str) -> VerifiedHello {
    let frame: Value = serde_json::from_str(text).unwrap();
    let data = &frame["data"];
    let read = |value: &Value| (!value.is_null()).then(|| value.clone());
    VerifiedHello {
        id: frame["id"].as_str().unwrap().parse().ok(),
        api_key: ApiKeyId::from_u128(1),
        account: AccountId::from_u128(1),
        user: data["token"].as_str().unwrap().parse().unwrap(),
        name: Some(data["token"].as_str().unwrap().to_uppercase()),
        grants: Grants::default(),
        room_grants: RoomGrants::default(),
        expired: false,
        attended: true,
        device: serde_json::from_value(data["device"].clone()).unwrap(),
        resume: read(&data["resume"]).map(|resume| serde_json::from_value(resume).unwrap()),
        address: None,
        ice_servers: Vec::new(),
    }
}

fn answer(store: &Store, question: &Question) -> Answer {
    match question {
        Question::History {
            user,
            before,
            limit,
            ..
        } => {
            let before = before.as_deref().and_then(|id| id.parse().ok());
            let rows = store
                .of(user)
                .filter(|row| before.is_none_or(|before| row.call < before));
            let entries: Vec<_> = rows
                .take(usize::from(*limit))
                .map(|row| row.entry_for(user))
                .collect();
            let next = entries.last().map(|entry| entry.call.to_string());
            Answer::History {
                entries,
                next,
                missed: store.missed(user) as u32,
            }
        }
        Question::Missed { user, .. } => Answer::Missed(store.missed(user) as u32),
        Question::Directory { users, .. } => {
            let known = ["alice", "bob", "carol", "dave"].map(|name| name.parse().unwrap());
            let wanted = known
                .into_iter()
                .filter(|user| users.as_ref().is_none_or(|users| users.contains(user)));
            Answer::Directory(wanted.map(|user| Named { user, name: None }).collect())
        }
        Question::OpenCalls { before, .. } => Answer::OpenCalls {
            rows: store.open(*before).cloned().collect(),
            next: None,
        },
        Question::IceServers { .. } => Answer::IceServers(Vec::new()),
        // There is no telephone in this world.
        Question::Voicemails { .. } => Answer::Voicemails {
            entries: Vec::new(),
            next: None,
            unheard: 0,
        },
        Question::Unheard { .. } => Answer::Unheard(0),
        Question::HearVoicemail { .. }
        | Question::DeleteVoicemail { .. }
        | Question::PhoneSettings { .. }
        | Question::SetPhone { .. } => Answer::Failed,
    }
}
