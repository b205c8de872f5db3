//! What Participants tell each other over data channels: its form, its limits, and what a Participant may say.
//!
//! Two channels are there from the beginning, agreed on without a word in band (RFC 8831 §6.4): [`Lane`]s 0 and 1. A message names whom
//! it is for toward us, and whom it is from toward its receivers:
//!
//! ```text
//! client ─▶ 1, count (0: everybody else), count × ParticipantId, payload     3: go on
//! client ◀─ 1, 1 if it was named, ParticipantId, payload                     2, reason: closed
//! ```
//!
//! A lossy message that can't go on is dropped. On the reliable lane nothing is dropped without a word: it closes, for the one who
//! said too much or heard too slowly, and stays closed until they say that they know.

use std::time::Instant;

use model::id::ParticipantId;

use crate::bucket::Bucket;
use crate::figures::DataDrop;

/// The longest payload of a message, in bytes.
pub(crate) const PAYLOAD_LEN_MAX: usize = 16 * 1024;

/// The most Participants a message may name.
pub(crate) const NAMED_MAX: usize = 64;

/// The longest message with its header, in bytes.
pub(crate) const MESSAGE_LEN_MAX: usize = PAYLOAD_LEN_MAX + 2 + NAMED_MAX * ID_LEN;

/// How much may wait for a Participant on both lanes, in bytes, and our own words behind it.
pub(crate) const WAITING_BYTES_MAX: usize =
    Lane::Reliable.waiting_bytes_max() + Lane::Lossy.waiting_bytes_max() + 1024;

/// How many messages a Participant may send per second, and at once.
const MESSAGES_PER_SECOND: f64 = 50.0;
const MESSAGES_BURST: f64 = 100.0;

/// How many bytes.
const BYTES_PER_SECOND: f64 = 128.0 * 1024.0;
const BYTES_BURST: f64 = 256.0 * 1024.0;

/// How much a Room may pass on per second, over all its receivers and in units of [`cost`]; as much at once.
const DELIVERIES_PER_SECOND: f64 = 10_000.0;

/// How much of it one Participant may use: an eighth over time, and half at once, so that nobody's words close the lanes of others.
const SHARE_PER_SECOND: f64 = DELIVERIES_PER_SECOND / 8.0;
const SHARE_BURST: f64 = DELIVERIES_PER_SECOND / 2.0;

const ID_LEN: usize = 16;

const MESSAGE: u8 = 1;
const CLOSED: u8 = 2;
const GO_ON: u8 = 3;

/// One of the two channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// All of it arrives, in order.
    Reliable,
    /// What is lost is not sent again, and nothing waits for it.
    Lossy,
}

impl Lane {
    pub(crate) const ALL: [Lane; 2] = [Lane::Reliable, Lane::Lossy];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Lane::Reliable => "reliable",
            Lane::Lossy => "lossy",
        }
    }

    /// The SCTP stream.
    pub(crate) const fn stream(self) -> u16 {
        self as u16
    }

    /// How much may wait for a Participant, in bytes.
    pub(crate) const fn waiting_bytes_max(self) -> usize {
        match self {
            Lane::Reliable => 192 * 1024,
            Lane::Lossy => 64 * 1024,
        }
    }
}

/// Why the reliable lane of a Participant is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Closed {
    /// More was said to them than they took in.
    TooSlow = 1,
    /// They, or all in the Room, said more than is allowed.
    RateLimited = 2,
    /// They may not say anything.
    NotPermitted = 3,
    /// They said what can't be read.
    Malformed = 4,
}

impl Closed {
    /// What tells them.
    pub(crate) const fn message(self) -> [u8; 2] {
        [CLOSED, self as u8]
    }
}

impl From<DataDrop> for Closed {
    fn from(cause: DataDrop) -> Self {
        match cause {
            DataDrop::NotPermitted => Closed::NotPermitted,
            DataDrop::RateLimited | DataDrop::RoomFull => Closed::RateLimited,
            DataDrop::Slow => Closed::TooSlow,
            _ => Closed::Malformed,
        }
    }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// A message.
    Message(Message<'a>),
    /// They know that the reliable lane was closed.
    GoOn,
}

/// A message to others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Nobody named means everybody else.
    to: &'a [[u8; ID_LEN]],
    payload: &'a [u8],
}

impl<'a> Said<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        match *bytes {
            [GO_ON] => Some(Self::GoOn),
            [MESSAGE, count, ref rest @ ..] if usize::from(count) <= NAMED_MAX => {
                let (to, payload) = rest.split_at_checked(usize::from(count) * ID_LEN)?;
                let (to, _) = to.as_chunks();
                let fits = payload.len() <= PAYLOAD_LEN_MAX;
                fits.then_some(Self::Message(Message { to, payload }))
            }
            _ => None,
        }
    }
}

impl Message<'_> {
    /// Those who are named, in any order and perhaps more than once; empty where it is for everybody else.
    pub(crate) fn named(&self) -> impl ExactSizeIterator<Item = ParticipantId> {
        let id = |bytes: &[u8; ID_LEN]| ParticipantId::from_u128(u128::from_be_bytes(*bytes));
        self.to.iter().map(id)
    }

    /// Writes it as its receivers get it.
    pub(crate) fn write(&self, from: ParticipantId, into: &mut Vec<u8>) {
        into.clear();
        into.extend([MESSAGE, u8::from(!self.to.is_empty())]);
        into.extend(from.as_u128().to_be_bytes());
        into.extend(self.payload);
    }

    /// What passing it on to one receiver costs: a datagram takes as much as a kilobyte.
    pub(crate) fn cost(&self) -> f64 {
        1.0 + self.payload.len() as f64 / 1024.0
    }
}

/// What a Participant may say, and whether their reliable lane is open.
#[derive(Debug)]
pub(crate) struct Talk {
    messages: Bucket,
    bytes: Bucket,
    /// Their share of what the Room may pass on.
    share: Bucket,
    /// Why the reliable lane is closed, while it is.
    closed: Option<Closed>,
    /// They have not been told yet.
    pub(crate) untold: Option<Closed>,
}

impl Talk {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            messages: Bucket::new(now, MESSAGES_PER_SECOND, MESSAGES_BURST),
            bytes: Bucket::new(now, BYTES_PER_SECOND, BYTES_BURST),
            share: Bucket::new(now, SHARE_PER_SECOND, SHARE_BURST),
            closed: None,
            untold: None,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Closes the reliable lane, unless it is closed.
    pub(crate) fn close(&mut self, reason: Closed) {
        if self.closed.is_none() {
            self.closed = Some(reason);
            self.untold = Some(reason);
        }
    }

    /// Takes what passing a message on costs, for all its receivers, from their share and from what the Room may pass on.
    ///
    /// # Errors
    ///
    /// Who has said too much: they, or all in the Room together.
    pub(crate) fn pass_on(
        &mut self,
        now: Instant,
        cost: f64,
        room: &mut Bucket,
    ) -> Result<(), DataDrop> {
        if !self.share.takes(now, cost) {
            return Err(DataDrop::RateLimited);
        }
        match room.takes(now, cost) {
            true => Ok(()),
            false => Err(DataDrop::RoomFull),
        }
    }

    /// Reads what was said; `None` where that was that they go on.
    ///
    /// # Errors
    ///
    /// Why it goes no further.
    pub(crate) fn hear<'a>(
        &mut self,
        now: Instant,
        lane: Lane,
        bytes: &'a [u8],
        may_talk: bool,
    ) -> Result<Option<Message<'a>>, DataDrop> {
        let has_room = self.messages.takes(now, 1.0) && self.bytes.takes(now, bytes.len() as f64);
        if !has_room {
            return Err(DataDrop::RateLimited);
        }
        match Said::read(bytes).ok_or(DataDrop::Malformed)? {
            Said::GoOn => {
                // Only who was told can know.
                if self.untold.is_none() {
                    self.closed = None;
                }
                Ok(None)
            }
            Said::Message(_) if lane == Lane::Reliable && self.is_closed() => Err(DataDrop::Closed),
            Said::Message(_) if !may_talk => Err(DataDrop::NotPermitted),
            Said::Message(message) => Ok(Some(message)),
        }
    }
}

/// What a Room may pass on, in units of [`Message::cost`].
pub(crate) fn deliveries(now: Instant) -> Bucket {
    Bucket::new(now, DELIVERIES_PER_SECOND, DELIVERIES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(to: &[u128], payload: &[u8]) -> Vec<u8> {
        let count = u8::try_from(to.len()).unwrap();
        let ids: Vec<u8> = to.iter().flat_map(|id| id.to_be_bytes()).collect();
        [&[MESSAGE, count][..], &ids, payload].concat()
    }

    #[test]
    fn a_message_names_whom_it_is_for_and_then_whom_it_is_from() {
        let from = ParticipantId::from_u128(7);
        let check = |to: &[u128], payload: &[u8]| {
            let bytes = message(to, payload);
            let Some(Said::Message(read)) = Said::read(&bytes) else {
                panic!("{to:?} not read");
            };
            assert_eq!(read.named().map(|id| id.as_u128()).collect::<Vec<_>>(), to);
            let mut written = Vec::new();
            read.write(from, &mut written);
            let is_named = u8::from(!to.is_empty());
            let expected = [&[MESSAGE, is_named][..], &7_u128.to_be_bytes(), payload].concat();
            assert_eq!(written, expected);
        };
        check(&[], b"all");
        check(&[], b"");
        check(&[1, u128::MAX], b"two");
        check(&[9; NAMED_MAX], &[0; PAYLOAD_LEN_MAX]);
        assert_eq!(Said::read(&[GO_ON]), Some(Said::GoOn));
    }

    #[test]
    fn nothing_else_is_read() {
        let check = |bytes: &[u8]| assert_eq!(Said::read(bytes), None, "{bytes:?}");
        check(&[]);
        check(&[0]);
        check(&[MESSAGE]);
        check(&[CLOSED, 1]);
        check(&[GO_ON, 0]);
        check(&message(&[1], b"")[..17]);
        check(&message(&[1; NAMED_MAX + 1], b""));
        check(&message(&[], &[0; PAYLOAD_LEN_MAX + 1]));
    }

    #[test]
    fn a_closed_lane_opens_when_who_it_is_of_knows() {
        let now = Instant::now();
        let mut talk = Talk::new(now);
        let hello = message(&[], b"hello");
        let said = |talk: &mut Talk, lane| {
            talk.hear(now, lane, &hello, true)
                .map(|said| said.is_some())
        };
        assert_eq!(said(&mut talk, Lane::Reliable), Ok(true));

        talk.close(Closed::TooSlow);
        assert_eq!(talk.hear(now, Lane::Reliable, &[GO_ON], true), Ok(None));
        assert_eq!(
            said(&mut talk, Lane::Reliable),
            Err(DataDrop::Closed),
            "not told"
        );
        assert_eq!(said(&mut talk, Lane::Lossy), Ok(true));
        assert_eq!(talk.untold.take(), Some(Closed::TooSlow));
        assert_eq!(said(&mut talk, Lane::Reliable), Err(DataDrop::Closed));
        assert_eq!(talk.hear(now, Lane::Reliable, &[GO_ON], true), Ok(None));
        assert_eq!(said(&mut talk, Lane::Reliable), Ok(true));
    }

    #[test]
    fn who_floods_a_room_uses_up_their_own_share() {
        let start = Instant::now();
        let mut room = deliveries(start);
        let [mut mallory, mut bob] = [Talk::new(start), Talk::new(start)];
        let hello = message(&[], b"x");
        let Some(Said::Message(hello)) = Said::read(&hello) else {
            panic!("not read");
        };
        // In a Room of 201, one to everybody each 20 ms, and one each 500 ms.
        let cost = hello.cost() * 200.0;
        let mut refused = 0;
        for number in 0..1000 {
            let now = start + Duration::from_millis(20) * number;
            match mallory.pass_on(now, cost, &mut room) {
                Ok(()) => {}
                Err(DataDrop::RateLimited) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
            if number % 25 == 0 {
                assert_eq!(bob.pass_on(now, cost, &mut room), Ok(()), "{number}");
            }
        }
        assert!(refused > 800, "{refused}");
    }

    #[test]
    fn what_is_said_is_bounded_in_messages_and_in_bytes() {
        let start = Instant::now();
        let check = |payload: usize, at_once: usize, a_second: usize| {
            let mut talk = Talk::new(start);
            let bytes = message(&[], &vec![0; payload]);
            let mut taken = |now| {
                let said = |_: &usize| talk.hear(now, Lane::Lossy, &bytes, true).is_ok();
                (0..1000).filter(said).count()
            };
            assert_eq!(taken(start), at_once);
            assert_eq!(taken(start + Duration::from_secs(1)), a_second);
        };
        check(0, 100, 50);
        check(8 * 1024 - 2, 32, 16);
        let mut silent = Talk::new(start);
        let hello = message(&[], b"");
        let refused = silent.hear(start, Lane::Lossy, &hello, false);
        assert_eq!(refused, Err(DataDrop::NotPermitted));
    }
}
