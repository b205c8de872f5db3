//! A Session: what goes both ways in order, nothing lost and nothing doubled, over any number of WebSockets.

use std::collections::VecDeque;

use bytes::Bytes;
use model::{
    AccountId, ApiKeyId, DeviceId, Grants, Millis, RoomGrants, RoomId, SessionId, Timestamp, UserId,
};

use crate::bucket::Bucket;
use crate::io::ConnectionId;
use crate::limits::Limits;
use crate::timers::Armed;

/// How many frames may wait for the client's `ack`.
const UNACKED_FRAMES_MAX: usize = 1_024;
/// How many bytes may wait for the client's `ack`; all that is told to who joins a large Room fits.
const UNACKED_BYTES_MAX: usize = 512 * 1024;
/// After how many reliable frames an `ack` is owed at once.
const ACK_FRAMES: u64 = 16;
/// After how long an `ack` is owed.
const ACK_WITHIN: Millis = Millis::from_secs(2);
/// How many pings go unanswered before the socket is given up.
const PINGS_UNANSWERED_MAX: u8 = 2;

/// A Device's presence on this node.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) account: AccountId,
    pub(crate) user: UserId,
    pub(crate) name: Option<Box<str>>,
    pub(crate) device: DeviceId,
    pub(crate) device_key: Box<str>,
    pub(crate) grants: Grants,
    /// `None` when they are what everybody has.
    pub(crate) room_grants: Option<Box<RoomGrants>>,
    /// The Rooms it is in, joins, or waits to be let in.
    pub(crate) rooms: Vec<RoomId>,
    /// Whether a person is there; see [`VerifiedHello::attended`](crate::VerifiedHello::attended).
    pub(crate) is_attended: bool,
    /// The API key behind its newest token.
    pub(crate) api_key: ApiKeyId,
    /// The WebSocket; `None` while the client is away.
    pub(crate) connection: Option<ConnectionId>,
    /// Since when the client is away.
    pub(crate) detached_at: Timestamp,
    /// The newest resume key handed out.
    pub(crate) key_latest: u32,
    /// The newest resume key the client has shown to have: a `welcome` can be lost on its way.
    pub(crate) key_confirmed: u32,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) commands: Bucket,
    /// Offers to Rooms.
    pub(crate) room_offers: Bucket,
    /// How many commands in a row were refused for their rate.
    pub(crate) refused_in_a_row: u32,
    pub(crate) heard_at: Timestamp,
    pub(crate) pings_unanswered: u8,
    /// Whose presence it follows.
    pub(crate) follows: Follows,
    pub(crate) armed: Armed,
}

/// Whose presence a Session follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Follows {
    Nobody,
    Users(Box<[UserId]>),
    Account,
}

/// What is due on a Session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Ack,
    Ping,
    GiveUp,
    End,
}

impl Session {
    /// When [`Session::due`] next has something to say.
    pub(crate) fn deadline(&self, limits: &Limits) -> Timestamp {
        if self.connection.is_none() {
            return self.detached_at + Millis::new(limits.resume_ms);
        }

        let silent_until =
            self.heard_at + Millis::new(limits.ping_ms) * (u64::from(self.pings_unanswered) + 1);
        self.inbox
            .ack_due
            .map_or(silent_until, |ack_due| ack_due.min(silent_until))
    }

    /// What must happen now.
    pub(crate) fn due(&self, now: Timestamp, limits: &Limits) -> Option<Due> {
        if now < self.deadline(limits) {
            None
        } else if self.connection.is_none() {
            Some(Due::End)
        } else if self.inbox.ack_due.is_some_and(|ack_due| ack_due <= now) {
            Some(Due::Ack)
        } else if self.pings_unanswered < PINGS_UNANSWERED_MAX {
            Some(Due::Ping)
        } else {
            Some(Due::GiveUp)
        }
    }

    /// Whether a key of this generation resumes the Session.
    pub(crate) fn accepts_key(&self, generation: u32) -> bool {
        (self.key_confirmed..=self.key_latest).contains(&generation)
    }
}

/// What arrives, counted.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The highest `seq` received in order.
    received: u64,
    /// The highest one the client was told.
    told: u64,
    ack_due: Option<Timestamp>,
}

/// Where a frame stands among those that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    Next,
    Again,
    Gap,
}

impl Inbox {
    pub(crate) fn receive(&mut self, now: Timestamp, seq: u64) -> Arrival {
        if seq > self.received + 1 {
            return Arrival::Gap;
        }

        self.ack_due.get_or_insert(now + ACK_WITHIN);
        if seq <= self.received {
            return Arrival::Again;
        }

        self.received = seq;
        Arrival::Next
    }

    /// The `ack` of a frame that is sent now.
    pub(crate) fn tell(&mut self) -> u64 {
        self.told = self.received;
        self.ack_due = None;
        self.received
    }

    pub(crate) fn is_ack_owed_now(&self) -> bool {
        self.received - self.told >= ACK_FRAMES
    }
}

/// What was sent and not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The `seq` of the last frame.
    sent: u64,
    unacked: VecDeque<Bytes>,
    unacked_bytes: usize,
}

impl Outbox {
    pub(crate) fn next_seq(&self) -> u64 {
        self.sent + 1
    }

    /// Keeps the frame of [`Outbox::next_seq`]; false when too much is kept already.
    pub(crate) fn push(&mut self, text: Bytes) -> bool {
        self.sent += 1;
        self.unacked_bytes += text.len();
        self.unacked.push_back(text);

        self.unacked.len() <= UNACKED_FRAMES_MAX && self.unacked_bytes <= UNACKED_BYTES_MAX
    }

    /// Drops what the client has received; false when it claims what was never sent.
    pub(crate) fn acknowledge(&mut self, ack: u64) -> bool {
        if ack > self.sent {
            return false;
        }

        while self.first_unacked() <= ack
            && let Some(text) = self.unacked.pop_front()
        {
            self.unacked_bytes -= text.len();
        }
        if self.unacked.is_empty() {
            self.unacked = VecDeque::new(); // an idle Session holds no buffer
        }
        true
    }

    /// Whether everything after `ack` is still here.
    pub(crate) fn can_resume_after(&self, ack: u64) -> bool {
        ack <= self.sent && ack + 1 >= self.first_unacked()
    }

    pub(crate) fn unacked(&self) -> impl Iterator<Item = &Bytes> {
        self.unacked.iter()
    }

    fn first_unacked(&self) -> u64 {
        self.sent + 1 - self.unacked.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_taken_once_and_in_order() {
        let mut inbox = Inbox::default();
        let mut receive = |seq| inbox.receive(Timestamp::from_millis(0), seq);

        assert_eq!(receive(1), Arrival::Next);
        assert_eq!(receive(2), Arrival::Next);
        assert_eq!(receive(1), Arrival::Again);
        assert_eq!(receive(4), Arrival::Gap);
        assert_eq!(receive(3), Arrival::Next);
        assert_eq!(inbox.tell(), 3);
    }

    #[test]
    fn what_is_sent_is_kept_until_it_is_acknowledged() {
        let mut outbox = Outbox::default();
        for text in ["one", "two", "three"] {
            assert!(outbox.push(Bytes::from_static(text.as_bytes())));
        }

        assert!(outbox.acknowledge(1));
        assert!(outbox.acknowledge(1));
        assert_eq!(outbox.unacked().count(), 2);
        assert!(outbox.can_resume_after(1) && outbox.can_resume_after(3));
        assert!(!outbox.can_resume_after(0) && !outbox.can_resume_after(4));
        assert!(!outbox.acknowledge(4));
        assert!(outbox.acknowledge(3));
        assert_eq!((outbox.unacked().count(), outbox.unacked_bytes), (0, 0));
    }

    #[test]
    fn too_many_frames_or_bytes_overflow() {
        let mut outbox = Outbox::default();
        let small = Bytes::from_static(b"x");
        assert!((0..UNACKED_FRAMES_MAX).all(|_| outbox.push(small.clone())));
        assert!(!outbox.push(small));

        let mut outbox = Outbox::default();
        let large = Bytes::from(vec![b'x'; UNACKED_BYTES_MAX / 2]);
        assert!(outbox.push(large.clone()) && outbox.push(large.clone()));
        assert!(!outbox.push(large));
    }
}
