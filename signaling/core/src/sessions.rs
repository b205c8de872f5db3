//! Sessions come, go and come back: `hello`, resume, takeover, silence and the end.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{
    AccountId, ApiKeyId, DeviceId, MessageId, Millis, RecordChange, RoomGrants, SessionId, UserId,
};
use signaling_wire::{CloseCode, Empty, ErrorCode, ErrorData, Head, ServerFrame, Welcome, encode};
use slab::Slab;

use crate::bucket::Bucket;
use crate::io::{ConnectionId, Output, VerifiedHello};
use crate::session::{Due, Follows, Inbox, Outbox, Session};
use crate::signaling::Signaling;
use crate::timers::Armed;

/// How long a Call waits for the `call.sync` of a Device that begins a new Session instead of resuming its old one.
const REPLACED_GRACE: Millis = Millis::from_secs(5);
/// The longest name, in bytes.
const NAME_LEN_MAX: usize = 128;
/// What `welcome` says about us.
const SERVER: &str = concat!("offhook/", env!("CARGO_PKG_VERSION"));

/// Where a Session lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionKey(u32);

/// All Sessions of this core.
#[derive(Default)]
pub(crate) struct Sessions {
    slab: Slab<Session>,
    by_id: BTreeMap<SessionId, SessionKey>,
    by_connection: BTreeMap<ConnectionId, SessionKey>,
    /// Sessions with too much unacknowledged, to be ended once the current input is handled.
    overflowed: Vec<SessionKey>,
}

impl SessionKey {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Sessions {
    pub(crate) fn get(&self, key: SessionKey) -> &Session {
        &self.slab[key.index()]
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> &mut Session {
        &mut self.slab[key.index()]
    }

    pub(crate) fn of_connection(&self, connection: ConnectionId) -> Option<SessionKey> {
        self.by_connection.get(&connection).copied()
    }

    pub(crate) fn of_id(&self, id: SessionId) -> Option<SessionKey> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn keys(&self) -> Vec<SessionKey> {
        self.by_id.values().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn connected(&self) -> usize {
        self.by_connection.len()
    }

    fn insert(&mut self, session: Session) -> SessionKey {
        let id = session.id;
        let index = self.slab.insert(session);
        let key = SessionKey(
            u32::try_from(index).expect("memory ends long before four billion Sessions"),
        );
        self.by_id.insert(id, key);
        key
    }
}

impl Signaling {
    pub(crate) fn on_hello(&mut self, connection: ConnectionId, hello: VerifiedHello) {
        if self.sessions.of_connection(connection).is_some() {
            return;
        }

        let (per_second, burst) = (
            self.limits.hellos_per_address_per_second,
            self.limits.hellos_per_address_burst,
        );
        if hello.user.is_of_phone() {
            // It would stand for a number wherever Calls name their sides.
            let close = CloseCode::Unauthorized;
            self.refuse_hello(connection, &hello, ErrorCode::Unauthorized, close);
        } else if let Some(address) = hello.address
            && !self.addresses.take(self.now, address, per_second, burst)
        {
            self.refuse_hello(
                connection,
                &hello,
                ErrorCode::RateLimited,
                CloseCode::RateLimited,
            );
        } else if let Some(key) = self.resumable(&hello) {
            self.resume(key, connection, hello);
        } else if hello.expired {
            self.refuse_hello(
                connection,
                &hello,
                ErrorCode::TokenExpired,
                CloseCode::Unauthorized,
            );
        } else if self.is_full_for(&hello) {
            let code = CloseCode::TooManyConnections;
            self.refuse_hello(connection, &hello, ErrorCode::TooManySessions, code);
        } else {
            self.begin(connection, hello);
        }
    }

    fn refuse_hello(
        &mut self,
        connection: ConnectionId,
        hello: &VerifiedHello,
        code: ErrorCode,
        close: CloseCode,
    ) {
        let frame = ServerFrame::Error(ErrorData::new(code, code.as_str()));
        let head = Head {
            reply_to: hello.id,
            ..Head::default()
        };
        let text = encode(frame.kind(), &head, &frame.data()).into();

        self.output(Output::send(connection, text));
        self.output(Output::Close {
            connection,
            code: close,
            reason: code.as_str(),
        });
    }

    /// The Session that `hello` resumes, if it shows the right key and nothing between was lost.
    fn resumable(&self, hello: &VerifiedHello) -> Option<SessionKey> {
        let resume = hello.resume.as_ref()?;
        let key = self.sessions.of_id(resume.session)?;
        let session = self.sessions.get(key);
        let generation = self.sealer.resume_generation(session.id, &resume.key)?;

        let is_theirs = session.account == hello.account
            && session.user == hello.user
            && session.device == hello.device.id;
        let resumes =
            session.accepts_key(generation) && session.outbox.can_resume_after(resume.ack);
        (is_theirs && resumes).then_some(key)
    }

    fn resume(&mut self, key: SessionKey, connection: ConnectionId, hello: VerifiedHello) {
        if self.sessions.get(key).connection.is_some() {
            self.close(key, CloseCode::Replaced, "replaced by a newer socket");
        }

        let ack = hello.resume.as_ref().map_or(0, |resume| resume.ack);
        let shown = hello
            .resume
            .as_ref()
            .and_then(|resume| self.sealer.resume_generation(resume.session, &resume.key));
        let session = self.sessions.get_mut(key);
        if let Some(shown) = shown {
            session.key_confirmed = shown;
        }
        session.outbox.acknowledge(ack);
        session.api_key = hello.api_key;
        if !hello.expired {
            session.grants = hello.grants;
            session.room_grants = unless_default(&hello.room_grants);
        }

        self.attach(key, connection);
        self.welcome(key, hello, true);

        let texts: Vec<Bytes> = self.sessions.get(key).outbox.unacked().cloned().collect();
        for text in texts {
            self.output(Output::send(connection, text));
        }
        self.tell_fleeting_again(key);
    }

    fn is_full_for(&self, hello: &VerifiedHello) -> bool {
        let Some(account) = self.accounts.get(&hello.account) else {
            return false;
        };
        if self
            .session_of_device(hello.account, &hello.user, hello.device.id)
            .is_some()
        {
            return false; // it takes the old one's place
        }

        let is_crowd = if hello.attended {
            let of_user = account.users.get(&hello.user);
            let of_user = of_user.map_or(0, |user| user.sessions.len());
            of_user >= self.limits.sessions_per_user_max as usize
        } else {
            // A token may be that of many viewers.
            account.unattended.len() >= self.limits.unattended_per_account_max as usize
        };
        is_crowd || account.sessions >= self.limits.sessions_per_account_max
    }

    fn begin(&mut self, connection: ConnectionId, mut hello: VerifiedHello) {
        // A Device has one Session: frames for the Device must have one place to go.
        if let Some(old) = self.session_of_device(hello.account, &hello.user, hello.device.id) {
            if self.sessions.get(old).connection.is_some() {
                self.close(old, CloseCode::Replaced, "replaced by a newer socket");
            }
            self.end_session(old, REPLACED_GRACE);
        }

        if let Some(name) = &mut hello.name {
            name.truncate(name.floor_char_boundary(NAME_LEN_MAX));
        }

        let now = self.now;
        let session = Session {
            id: SessionId::from_parts(now, self.rng.wide()),
            account: hello.account,
            user: hello.user.clone(),
            name: hello.name.as_deref().map(Into::into),
            device: hello.device.id,
            device_key: hello.device.key.as_str().into(),
            grants: hello.grants,
            room_grants: unless_default(&hello.room_grants),
            rooms: Vec::new(),
            is_attended: hello.attended,
            api_key: hello.api_key,
            connection: None,
            detached_at: now,
            key_latest: 0,
            key_confirmed: 0,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            commands: Bucket::full(now, self.limits.commands_burst),
            room_offers: Bucket::full(now, self.limits.room_offers_burst),
            refused_in_a_row: 0,
            heard_at: now,
            pings_unanswered: 0,
            follows: Follows::Nobody,
            armed: Armed::default(),
        };
        let key = self.sessions.insert(session);

        // Guests come and go: the directory is of those who belong here.
        if !hello.room_grants.guest && hello.attended {
            self.output(Output::Record(RecordChange::UserSeen {
                account: hello.account,
                user: hello.user.clone(),
                name: hello.name.clone(),
                at: now,
            }));
            self.output(Output::Record(RecordChange::DeviceSeen {
                account: hello.account,
                user: hello.user.clone(),
                device: hello.device.id,
                name: hello.device.name.take(),
                key: std::mem::take(&mut hello.device.key),
                at: now,
            }));
        }

        self.attach(key, connection);
        self.welcome(key, hello, false);
        self.person_arrives(key);
    }

    fn attach(&mut self, key: SessionKey, connection: ConnectionId) {
        self.sessions.by_connection.insert(connection, key);
        let now = self.now;
        let session = self.sessions.get_mut(key);
        session.connection = Some(connection);
        session.heard_at = now;
        session.pings_unanswered = 0;
        session.key_latest += 1;
        self.arm_session(key);
    }

    fn welcome(&mut self, key: SessionKey, hello: VerifiedHello, resumed: bool) {
        let id = self.new_message_id();
        let has_phone = self.phones.is_available();
        let session = self.sessions.get_mut(key);
        let ack = session.inbox.tell();
        let welcome = Welcome {
            session: session.id,
            key: self.sealer.resume_key(session.id, session.key_latest),
            ack,
            resumed,
            account: session.account,
            user: session.user.clone(),
            name: session.name.as_deref().map(str::to_owned),
            ice_servers: hello.ice_servers,
            limits: self.limits.for_welcome(self.rooms.is_media_available()),
            resume_ms: self.limits.resume_ms,
            ping_ms: self.limits.ping_ms,
            phone: has_phone && session.grants.dial && session.grants.phone,
            server: SERVER.to_owned(),
        };
        let Some(connection) = session.connection else {
            return;
        };

        let frame = ServerFrame::Welcome(Box::new(welcome));
        let head = Head {
            id: Some(id),
            seq: None,
            ack: Some(ack),
            reply_to: hello.id,
        };
        let text = encode(frame.kind(), &head, &frame.data()).into();
        self.output(Output::send(connection, text));
    }

    /// Closes the sockets whose tokens `api_key` signed. Whoever comes back in time with a token of another key loses
    /// nothing: that is how keys are changed.
    pub(crate) fn on_key_revoked(&mut self, account: AccountId, api_key: ApiKeyId) {
        let Some(account) = self.accounts.get(&account) else {
            return;
        };
        let of_people = account.users.values();
        let of_key: Vec<SessionKey> = of_people
            .flat_map(|user| user.sessions.iter().copied())
            .chain(account.unattended.iter().copied())
            .filter(|key| self.sessions.get(*key).api_key == api_key)
            .collect();

        for key in of_key {
            self.close(key, CloseCode::Unauthorized, "the API key was revoked");
        }
    }

    /// Closes the socket; the Session waits for the client to come back.
    pub(crate) fn close(&mut self, key: SessionKey, code: CloseCode, reason: &'static str) {
        if let Some(connection) = self.sessions.get(key).connection {
            self.output(Output::Close {
                connection,
                code,
                reason,
            });
            self.detach(key);
        }
    }

    /// The socket is gone.
    pub(crate) fn detach(&mut self, key: SessionKey) {
        let now = self.now;
        let session = self.sessions.get_mut(key);
        session.detached_at = now;
        if let Some(connection) = session.connection.take() {
            self.sessions.by_connection.remove(&connection);
        }
        self.arm_session(key);
    }

    /// Ends a Session; its Device leaves its Calls, after `grace` if it does not show up in a new Session.
    pub(crate) fn end_session(&mut self, key: SessionKey, grace: Millis) {
        self.leave_rooms(key);
        let mut session = self.sessions.slab.remove(key.index());
        self.sessions.by_id.remove(&session.id);
        if let Some(connection) = session.connection {
            self.sessions.by_connection.remove(&connection);
        }
        self.sessions.overflowed.retain(|other| *other != key);
        self.session_timers.disarm(key, &mut session.armed);

        self.person_leaves(key, &session, grace);
    }

    /// Ends the Sessions whose clients do not keep up.
    pub(crate) fn end_overflowed(&mut self) {
        while let Some(key) = self.sessions.overflowed.pop() {
            self.send_error_unnumbered(
                key,
                ErrorCode::SessionOverflow,
                "too much was left unacknowledged",
            );
            self.close(key, CloseCode::TooSlow, "session_overflow");
            self.end_session(key, Millis::default());
        }
    }

    pub(crate) fn on_session_timer(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key);
        session.armed.fired();

        match session.due(self.now, &self.limits) {
            None => {}
            Some(Due::Ack) => self.send_unnumbered(key, &ServerFrame::Ack(Empty {})),
            Some(Due::Ping) => {
                session.pings_unanswered += 1;
                self.send_unnumbered(key, &ServerFrame::Ping(Empty {}));
            }
            Some(Due::GiveUp) => self.close(key, CloseCode::TooSlow, "silent"),
            Some(Due::End) => return self.end_session(key, Millis::default()),
        }
        self.arm_session(key);
    }

    pub(crate) fn arm_session(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key);
        let at = session.deadline(&self.limits);
        self.session_timers.arm(key, &mut session.armed, at);
    }

    /// Sends a reliable frame, now or when the client is back.
    pub(crate) fn send(
        &mut self,
        key: SessionKey,
        kind: &str,
        reply_to: Option<MessageId>,
        data: &str,
    ) {
        self.send_reliable(key, kind, reply_to, data, false);
    }

    /// The same, for the `ok` of a command whose answer brings no news.
    pub(crate) fn send_plain_ok(&mut self, key: SessionKey, reply_to: MessageId) {
        self.send_reliable(key, "ok", Some(reply_to), "{}", true);
    }

    fn send_reliable(
        &mut self,
        key: SessionKey,
        kind: &str,
        reply_to: Option<MessageId>,
        data: &str,
        may_wait: bool,
    ) {
        let id = self.new_message_id();
        let session = self.sessions.get_mut(key);
        let head = Head {
            id: Some(id),
            seq: Some(session.outbox.next_seq()),
            ack: Some(session.inbox.tell()),
            reply_to,
        };
        let text = Bytes::from(encode(kind, &head, data));

        let fits = session.outbox.push(text.clone());
        let connection = session.connection;
        if !fits && !self.sessions.overflowed.contains(&key) {
            self.sessions.overflowed.push(key);
        }
        if let Some(connection) = connection {
            self.output(Output::Send {
                connection,
                text,
                may_wait,
            });
        }
    }

    /// Sends a frame that may get lost with its socket.
    pub(crate) fn send_unnumbered(&mut self, key: SessionKey, frame: &ServerFrame) {
        self.send_unnumbered_reply(key, None, frame);
    }

    /// The same, as an answer.
    pub(crate) fn send_unnumbered_reply(
        &mut self,
        key: SessionKey,
        reply_to: Option<MessageId>,
        frame: &ServerFrame,
    ) {
        let session = self.sessions.get_mut(key);
        let Some(connection) = session.connection else {
            return;
        };

        let head = Head {
            ack: Some(session.inbox.tell()),
            reply_to,
            ..Head::default()
        };
        let text = encode(frame.kind(), &head, &frame.data()).into();
        self.output(Output::send(connection, text));
    }

    /// The same, for a frame that many get.
    pub(crate) fn send_unnumbered_data(&mut self, key: SessionKey, kind: &str, data: &str) {
        let session = self.sessions.get_mut(key);
        let Some(connection) = session.connection else {
            return;
        };

        let head = Head {
            ack: Some(session.inbox.tell()),
            ..Head::default()
        };
        let text = encode(kind, &head, data).into();
        self.output(Output::send(connection, text));
    }

    /// Sends an error that answers no reliable frame.
    pub(crate) fn send_error_unnumbered(
        &mut self,
        key: SessionKey,
        code: ErrorCode,
        message: &str,
    ) {
        self.send_unnumbered(key, &ServerFrame::Error(ErrorData::new(code, message)));
    }

    pub(crate) fn session_of_device(
        &self,
        account: AccountId,
        user: &UserId,
        device: DeviceId,
    ) -> Option<SessionKey> {
        let user = self.accounts.get(&account)?.users.get(user)?;
        user.sessions
            .iter()
            .copied()
            .find(|key| self.sessions.get(*key).device == device)
    }

    pub(crate) fn new_message_id(&mut self) -> MessageId {
        MessageId::from_parts(self.now, self.rng.wide())
    }
}

/// Grants as a Session keeps them: hardly any are others than the usual ones.
fn unless_default(grants: &RoomGrants) -> Option<Box<RoomGrants>> {
    (*grants != RoomGrants::default()).then(|| Box::new(grants.clone()))
}
