//! A message's way from one Participant over data channels to others.

use std::time::Instant;

use str0m::channel::ChannelId;

use crate::data::{Closed, Lane, Message};
use crate::figures::DataDrop;
use crate::peer::Written;
use crate::rooms::Rooms;

impl Rooms {
    /// Passes on what came over a data channel of a Participant.
    pub(crate) fn on_message(
        &mut self,
        now: Instant,
        index: usize,
        channel: ChannelId,
        is_binary: bool,
        bytes: &[u8],
    ) {
        let Some(participant) = self.participants.get_mut(index) else {
            return;
        };
        self.at_work = Some(participant.room);
        let Some(lane) = participant.peer.lane(channel) else {
            return self.refuse_channel(index, channel);
        };
        self.figures.messages_in += 1;
        let may_talk = participant.permissions.data;
        let heard = match is_binary {
            true => participant.talk.hear(now, lane, bytes, may_talk),
            false => Err(DataDrop::Malformed),
        };
        match heard {
            Ok(Some(message)) => self.pass_on(now, index, lane, &message),
            Ok(None) => {}
            Err(cause) => self.drop_message(index, lane, cause),
        }
    }

    /// Lets no other channels in.
    pub(crate) fn on_open(&mut self, index: usize, channel: ChannelId) {
        let participant = self.participants.get(index);
        if participant.is_some_and(|known| known.peer.lane(channel).is_none()) {
            self.refuse_channel(index, channel);
        }
    }

    /// Closes a channel nobody has use for.
    fn refuse_channel(&mut self, index: usize, channel: ChannelId) {
        self.figures.drop_message(DataDrop::Channel);
        let Some(participant) = self.participants.get_mut(index) else {
            return;
        };
        match participant.peer.close_channel(channel) {
            Ok(()) => self.talk(index),
            Err(broken) => self.break_off(index, broken),
        }
    }

    fn pass_on(&mut self, now: Instant, index: usize, lane: Lane, message: &Message<'_>) {
        let Some(participant) = self.participants.get(index) else {
            return;
        };
        let (at, id) = (participant.room, participant.id);
        let mut to: Vec<usize> = match message.named().len() {
            0 => self.rooms[at].places.iter().copied().flatten().collect(),
            _ => message
                .named()
                .filter_map(|id| self.find_in(at, id))
                .collect(),
        };
        to.sort_unstable();
        to.dedup();
        to.retain(|receiver| *receiver != index);
        if to.len() < message.named().len() {
            self.figures.drop_message(DataDrop::Nobody);
        }
        let cost = message.cost() * to.len() as f64;
        let Some(participant) = self.participants.get_mut(index) else {
            return;
        };
        let room = &mut self.rooms[at].deliveries;
        if let Err(cause) = participant.talk.pass_on(now, cost, room) {
            return self.drop_message(index, lane, cause);
        }
        let mut written = std::mem::take(&mut self.message);
        message.write(id, &mut written);
        for receiver in to {
            self.deliver(receiver, lane, &written);
        }
        self.message = written;
    }

    fn deliver(&mut self, index: usize, lane: Lane, bytes: &[u8]) {
        let Some(participant) = self.participants.get_mut(index) else {
            return;
        };
        if lane == Lane::Reliable && participant.talk.is_closed() {
            return self.figures.drop_message(DataDrop::Closed);
        }
        match participant.peer.write(lane, bytes) {
            Ok(Written::Taken) => {
                self.figures.messages_out += 1;
                self.talk(index);
            }
            Ok(Written::Full) => self.drop_message(index, lane, DataDrop::Slow),
            Ok(Written::Absent) => self.figures.drop_message(DataDrop::Nobody),
            Err(broken) => self.break_off(index, broken),
        }
    }

    /// Counts a message that goes no further; on the reliable lane that is not passed over: it closes for whose fault it was.
    fn drop_message(&mut self, index: usize, lane: Lane, cause: DataDrop) {
        self.figures.drop_message(cause);
        if lane == Lane::Reliable
            && let Some(participant) = self.participants.get_mut(index)
        {
            participant.talk.close(Closed::from(cause));
            self.tell_closed(index);
        }
    }

    /// Tells a Participant that their reliable lane is closed, behind all they were told before.
    pub(crate) fn tell_closed(&mut self, index: usize) {
        let Some(participant) = self.participants.get_mut(index) else {
            return;
        };
        let Some(closed) = participant.talk.untold else {
            return;
        };
        match participant.peer.write_last(&closed.message()) {
            Ok(Written::Taken) => {
                participant.talk.untold = None;
                self.talk(index);
            }
            Ok(Written::Full | Written::Absent) => {} // Again when they have taken something in.
            Err(broken) => self.break_off(index, broken),
        }
    }

    /// Has what waits for a Participant on data channels sent at the end of the turn.
    fn talk(&mut self, index: usize) {
        if let Some(participant) = self.participants.get_mut(index)
            && !participant.is_told
        {
            participant.is_told = true;
            self.told.push(index);
        }
    }

    /// Sends what waits on data channels.
    pub(crate) fn send_messages(&mut self, now: Instant) {
        while let Some(index) = self.told.pop() {
            let Some(participant) = self.participants.get_mut(index) else {
                continue;
            };
            participant.is_told = false;
            self.at_work = Some(participant.room);
            // The library's time goes on first: it measures round trips by it.
            match participant.peer.handle_timeout(now) {
                Ok(()) => self.poll_peer(now, index, None),
                Err(broken) => self.break_off(index, broken),
            }
        }
    }
}
