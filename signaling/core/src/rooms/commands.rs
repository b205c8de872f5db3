//! A client's command about a Room: who sends it, whether it was done before, and where it is done.

use model::media::{MediaCommandKind, Wish};
use model::{MessageId, ParticipantId, RoomId};
use signaling_wire::room::{RoomList, RoomWant};
use signaling_wire::{ClientFrame, Empty, ErrorCode, OkData, ServerFrame};

use super::RoomKey;
use crate::calls::Refusal;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// What a frame of news costs beside its words, in bytes: names, ids, state.
const EVENT_LEN: usize = 256;

impl Signaling {
    /// Does a command of somebody in a Room, or on their way into it.
    pub(crate) fn on_room_command(
        &mut self,
        session: SessionKey,
        command: MessageId,
        content: ClientFrame,
    ) -> Result<(), Refusal> {
        let done = match content {
            ClientFrame::RoomJoin(join) => return self.on_room_join(session, command, join),
            ClientFrame::RoomOffer(offer) => return self.on_room_offer(session, command, offer),
            ClientFrame::RoomLeave(on) => {
                let left = self.on_room_leave(session, on.room);
                self.answer_room(session, command, left);
                return Ok(());
            }
            content => content,
        };

        let room = room_of(&done).ok_or_else(not_about_a_room)?;
        let (key, id) = self.present(session, room)?;
        let known = self
            .participant_mut(key, id)
            .and_then(|one| one.answer_to(command))
            .map(str::to_owned);
        if let Some(data) = known {
            self.send(session, "ok", Some(command), &data);
            return Ok(());
        }

        let ok = ServerFrame::Ok(self.do_in_room(key, id, done)?);
        let data = ok.data();
        if let Some(one) = self.participant_mut(key, id) {
            one.remember(command, &data);
        }
        self.send(session, ok.kind(), Some(command), &data);
        Ok(())
    }

    fn do_in_room(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
        content: ClientFrame,
    ) -> Result<OkData, Refusal> {
        const DONE: OkData = OkData::Empty(Empty {});

        match content {
            ClientFrame::RoomList(list) => return self.on_room_list(key, list),
            ClientFrame::RoomSet(set) => return self.on_room_set(key, id, set.change),
            ClientFrame::RoomChat(chat) => return self.on_room_chat(key, id, chat),
            ClientFrame::RoomMute(mute) => self.on_room_mute(key, id, mute)?,
            ClientFrame::RoomAsk(ask) => self.on_room_ask(key, id, ask.track)?,
            ClientFrame::RoomInvite(invite) => self.on_room_invite(key, id, &invite.user)?,
            ClientFrame::RoomWant(want) => self.on_room_want(key, id, want),
            ClientFrame::RoomAdmit(admit) => self.on_room_admit(key, id, &admit)?,
            ClientFrame::RoomRole(role) => self.on_room_role(key, id, role)?,
            ClientFrame::RoomRemove(remove) => {
                self.on_room_remove(key, id, remove.participant)?;
            }
            ClientFrame::RoomEnd(_) => self.on_room_end(key, id)?,
            ClientFrame::RoomHand(hand) => self.on_room_hand(key, id, hand)?,
            ClientFrame::RoomReact(react) => self.on_room_react(key, id, react.reaction)?,
            ClientFrame::RoomMetadata(said) => self.on_room_metadata(key, id, said.metadata)?,
            ClientFrame::RoomAnnounce(announce) => {
                self.on_room_announce(key, id, announce.e2ee)?;
            }
            ClientFrame::RoomKeys(keys) => self.on_room_keys(key, id, keys)?,
            _ => return Err(not_about_a_room()),
        }
        Ok(DONE)
    }

    /// Where a Session is in a Room.
    pub(super) fn present(
        &self,
        session: SessionKey,
        room: RoomId,
    ) -> Result<(RoomKey, ParticipantId), Refusal> {
        let key = (self.sessions.get(session).account, room);
        let id = self
            .rooms
            .get(key)
            .and_then(|room| room.of_session(session));
        id.map(|id| (key, id)).ok_or_else(Refusal::not_in_room)
    }

    fn on_room_list(&self, key: RoomKey, list: RoomList) -> Result<OkData, Refusal> {
        let room = self.rooms.get(key).ok_or_else(Refusal::not_in_room)?;
        let (participants, next) = room.page(Some(list.after));
        Ok(OkData::RoomParticipants { participants, next })
    }

    /// Passes wishes on to the SFU, but for those about Tracks that are gone, and one's own.
    fn on_room_want(&mut self, key: RoomKey, id: ParticipantId, want: RoomWant) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };

        let wishes = want.wishes.into_iter().filter_map(|wish| {
            let owner = room.owners.get(&wish.track)?;
            (*owner != id).then_some(Wish {
                track: wish.track,
                wanted: wish.wanted,
                height: wish.height,
                pinned: wish.pinned,
                priority: wish.priority,
            })
        });
        let kind = MediaCommandKind::Want {
            participant: id,
            automatic: want.automatic,
            wishes: wishes.collect(),
        };
        self.command_media(key, kind);
    }

    /// Takes one of what a Participant may tell all others, and its bytes of what all together may: `len` of them are their own words.
    pub(super) fn take_event(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
        len: usize,
    ) -> Result<(), Refusal> {
        self.take_own_event(key, id)?;
        let (now, limits) = (self.now, &self.limits);
        let (per_second, burst) = (limits.room_bytes_per_second, limits.room_bytes_burst);

        let room = self.rooms.get_mut(key).ok_or_else(Refusal::not_in_room)?;
        let is_granted = room.told.take_many(now, EVENT_LEN + len, per_second, burst);
        is_granted.then_some(()).ok_or_else(too_much)
    }

    /// The same for what only some of the others are told.
    pub(super) fn take_own_event(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
    ) -> Result<(), Refusal> {
        let (now, limits) = (self.now, &self.limits);
        let (per_second, burst) = (limits.room_events_per_second, limits.room_events_burst);

        let room = self.rooms.get_mut(key).ok_or_else(Refusal::not_in_room)?;
        let one = room.participants.get_mut(&id);
        let one = one.ok_or_else(Refusal::not_in_room)?;
        let is_granted = one.events.take(now, per_second, burst);
        is_granted.then_some(()).ok_or_else(too_much)
    }
}

fn too_much() -> Refusal {
    Refusal::new(ErrorCode::RateLimited, "too much for everybody in the room")
}

fn room_of(content: &ClientFrame) -> Option<RoomId> {
    Some(match content {
        ClientFrame::RoomList(list) => list.room,
        ClientFrame::RoomMute(mute) => mute.room,
        ClientFrame::RoomAsk(ask) => ask.room,
        ClientFrame::RoomInvite(invite) => invite.room,
        ClientFrame::RoomWant(want) => want.room,
        ClientFrame::RoomSet(set) => set.room,
        ClientFrame::RoomAdmit(admit) => admit.room,
        ClientFrame::RoomRole(role) => role.room,
        ClientFrame::RoomRemove(remove) => remove.room,
        ClientFrame::RoomEnd(on) => on.room,
        ClientFrame::RoomHand(hand) => hand.room,
        ClientFrame::RoomReact(react) => react.room,
        ClientFrame::RoomChat(chat) => chat.room,
        ClientFrame::RoomMetadata(said) => said.room,
        ClientFrame::RoomAnnounce(announce) => announce.room,
        ClientFrame::RoomKeys(keys) => keys.room,
        _ => return None,
    })
}

fn not_about_a_room() -> Refusal {
    Refusal::new(ErrorCode::UnknownType, "not a command about a room")
}
