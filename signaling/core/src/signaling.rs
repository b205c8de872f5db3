//! The core's two faces: `handle_*` takes what happened, `poll_*` says what to do.

use std::collections::{BTreeMap, VecDeque};

use model::bus::Message;
use model::media::MediaEvent;
use model::phone::PhoneEvent;
use model::{AccountId, ApiKeyId, NodeId, Phase, Timestamp};
use signaling_wire::{CloseCode, Goaway, ServerFrame};

use crate::bucket::AddressBuckets;
use crate::calls::{Call, CallKey};
use crate::history::Pending;
use crate::io::{Answer, ConnectionId, Counts, Output, QueryId, VerifiedHello};
use crate::limits::Limits;
use crate::lost::LostCalls;
use crate::people::Account;
use crate::phones::Phones;
use crate::rng::Rng;
use crate::rooms::Rooms;
use crate::seal::{SealSecret, Sealer};
use crate::sessions::{SessionKey, Sessions};
use crate::timers::Timers;

/// The signaling of a shard of Accounts on one node; one task owns it.
///
/// The driver hands in what happens, then takes every [`Output`] and wakes it at [`Signaling::poll_timeout`]. All of
/// an Account's Sessions on a node belong to one `Signaling`.
pub struct Signaling {
    pub(crate) limits: Limits,
    pub(crate) node: NodeId,
    pub(crate) sealer: Sealer,
    pub(crate) rng: Rng,
    /// The moment of the input that is handled.
    pub(crate) now: Timestamp,
    pub(crate) sessions: Sessions,
    pub(crate) accounts: BTreeMap<AccountId, Account>,
    pub(crate) calls: BTreeMap<CallKey, Call>,
    pub(crate) rooms: Rooms,
    pub(crate) phones: Phones,
    pub(crate) session_timers: Timers<SessionKey>,
    pub(crate) call_timers: Timers<CallKey>,
    pub(crate) addresses: AddressBuckets,
    pub(crate) pending: BTreeMap<QueryId, Pending>,
    pub(crate) queries: u64,
    pub(crate) lost_calls: Option<LostCalls>,
    outputs: VecDeque<Output>,
}

impl Signaling {
    /// A core that serves nobody yet.
    ///
    /// `secret` is the installation's, the same on every node and after every restart. `seed` makes the server's ids;
    /// it should differ from run to run, though nothing secret depends on it.
    pub fn new(limits: Limits, node: NodeId, secret: &SealSecret, seed: u64) -> Self {
        Self {
            limits,
            node,
            sealer: Sealer::new(secret),
            rng: Rng::new(seed),
            now: Timestamp::default(),
            sessions: Sessions::default(),
            accounts: BTreeMap::new(),
            calls: BTreeMap::new(),
            rooms: Rooms::default(),
            phones: Phones::default(),
            session_timers: Timers::new(),
            call_timers: Timers::new(),
            addresses: AddressBuckets::new(),
            pending: BTreeMap::new(),
            queries: 0,
            lost_calls: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes the start of the process, before anything else, so that history gets an end for Calls of before that nobody
    /// brings back. A node whose Accounts another one serves, too, does without: the Call may be there.
    pub fn handle_start(&mut self, now: Timestamp) {
        self.now = now;
        self.begin_lost_calls();
    }

    /// Takes the first frame of a WebSocket, once the driver has verified its token. Answers with `welcome`, or with
    /// an `error` and a close.
    pub fn handle_hello(&mut self, now: Timestamp, connection: ConnectionId, hello: VerifiedHello) {
        self.now = now;
        self.on_hello(connection, hello);
        self.end_overflowed();
    }

    /// Takes a text frame that follows `hello`. Frames of a connection the core has closed are ignored.
    pub fn handle_frame(&mut self, now: Timestamp, connection: ConnectionId, text: &str) {
        self.now = now;
        self.on_frame(connection, text);
        self.end_overflowed();
    }

    /// Takes the end of a WebSocket; its Session waits for the client to come back.
    pub fn handle_disconnect(&mut self, now: Timestamp, connection: ConnectionId) {
        self.now = now;
        if let Some(key) = self.sessions.of_connection(connection) {
            self.detach(key);
        }
    }

    /// Takes the revocation of an API key: closes the WebSockets whose tokens it signed. Told again, it changes nothing.
    pub fn handle_key_revoked(&mut self, now: Timestamp, account: AccountId, api_key: ApiKeyId) {
        self.now = now;
        self.on_key_revoked(account, api_key);
    }

    /// Takes a message of another node.
    pub fn handle_bus(&mut self, now: Timestamp, message: Message) {
        self.now = now;
        self.on_bus(message);
        self.end_overflowed();
    }

    /// Takes what the driver found out for an [`Output::Query`].
    pub fn handle_answer(&mut self, now: Timestamp, query: QueryId, answer: Answer) {
        self.now = now;
        self.on_answer(query, answer);
        self.end_overflowed();
    }

    /// Takes whether there is an SFU for Rooms; at first there is none. When it goes, every Room ends: its media is lost.
    pub fn handle_media_available(&mut self, now: Timestamp, is_available: bool) {
        self.now = now;
        self.on_media_available(is_available);
        self.end_overflowed();
    }

    /// Takes news of the SFU. What it says about Rooms and Participants that are not here any more changes nothing.
    pub fn handle_media(&mut self, now: Timestamp, event: MediaEvent) {
        self.now = now;
        self.on_media(event);
        self.end_overflowed();
    }

    /// Takes whether there is a phone gateway; at first there is none. When it goes, every phone call has ended.
    pub fn handle_phone_available(&mut self, now: Timestamp, is_available: bool) {
        self.now = now;
        self.on_phone_available(is_available);
        self.end_overflowed();
    }

    /// Takes news of the phone gateway. What it says about calls that are not known any more changes nothing.
    pub fn handle_phone(&mut self, now: Timestamp, event: PhoneEvent) {
        self.now = now;
        self.on_phone(event);
        self.end_overflowed();
    }

    /// Asks every client to connect again within `in_ms`, because this node is about to stop.
    pub fn handle_drain(&mut self, now: Timestamp, in_ms: u64, reason: &str) {
        self.now = now;
        let frame = ServerFrame::Goaway(Goaway {
            in_ms,
            reason: reason.to_owned(),
        });
        for key in self.sessions.keys() {
            self.send_unnumbered(key, &frame);
        }
    }

    /// Closes every WebSocket with `goaway`'s code; the Sessions are not told to anybody as ended.
    pub fn handle_stop(&mut self, now: Timestamp) {
        self.now = now;
        for key in self.sessions.keys() {
            self.close(key, CloseCode::Goaway, "goaway");
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        while let Some(key) = self.session_timers.pop(now) {
            self.on_session_timer(key);
        }
        while let Some(key) = self.call_timers.pop(now) {
            self.on_call_timer(key);
        }
        while let Some(key) = self.rooms.timers.pop(now) {
            self.on_room_timer(key);
        }
        self.on_lost_calls_due();
        self.end_overflowed();
    }

    /// When to call [`Signaling::handle_timeout`] next; `None` when nothing is going on.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let lost_calls = self.lost_calls.and_then(|lost| lost.ask_at);
        let next = [
            self.session_timers.next(),
            self.call_timers.next(),
            self.rooms.timers.next(),
            lost_calls,
        ];
        next.into_iter().flatten().min()
    }

    /// What to do next; `None` when all is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether there is anything of this Account here; the driver leaves its subject on the bus when there is not.
    pub fn serves(&self, account: AccountId) -> bool {
        self.accounts.contains_key(&account)
    }

    /// How much there is, for the metrics. Walks over all Sessions and Calls.
    pub fn counts(&self) -> Counts {
        let connected = self.sessions.connected();
        let of_phase = |phase| {
            self.calls
                .values()
                .filter(|call| call.state.phase == phase)
                .count()
        };

        Counts {
            accounts: self.accounts.len(),
            sessions_connected: connected,
            sessions_detached: self.sessions.len() - connected,
            calls_ringing: of_phase(Phase::Ringing),
            calls_active: of_phase(Phase::Active),
            calls_ended: of_phase(Phase::Ended),
            phone_calls: self.phones.len(),
            rooms: self.rooms.len(),
            participants: self.rooms.iter().map(|room| room.participants.len()).sum(),
            waiting: self.rooms.iter().map(|room| room.waiting.len()).sum(),
        }
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }
}
