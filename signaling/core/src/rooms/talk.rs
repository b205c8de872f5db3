//! What Participants tell one another: written words, hands, reactions, metadata; and whom they invite.

use std::collections::BTreeSet;

use model::phone::PhoneTarget;
use model::{ParticipantId, UserId};
use signaling_wire::room::{
    ChatAuthor, ChatMessage, RoomChat, RoomChatNews, RoomHand, RoomInvited, RoomReaction,
};
use signaling_wire::{ErrorCode, OkData, ServerFrame};

use super::admission::METADATA_BYTES_MAX;
use super::{Participant, Room, RoomKey};
use crate::bus::Parcel;
use crate::calls::Refusal;
use crate::phones::target_of;
use crate::signaling::Signaling;

/// How many messages are kept for who joins later.
const CHAT_MESSAGES_MAX: usize = 200;
/// How long their texts may be together, in bytes.
const CHAT_BYTES_MAX: usize = 24 * 1024;

impl Room {
    /// Keeps a message for who joins later, and drops the oldest when they get too many.
    fn keep_chat(&mut self, message: ChatMessage) {
        self.chat_bytes += message.text.len();
        self.chat.push_back(message);

        while (self.chat.len() > CHAT_MESSAGES_MAX || self.chat_bytes > CHAT_BYTES_MAX)
            && let Some(oldest) = self.chat.pop_front()
        {
            self.chat_bytes -= oldest.text.len();
        }
    }
}

impl Signaling {
    pub(super) fn on_room_chat(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        chat: RoomChat,
    ) -> Result<OkData, Refusal> {
        let room = self.rooms.get(key).ok_or_else(Refusal::not_in_room)?;
        let to: Option<BTreeSet<ParticipantId>> = chat.to.map(|to| to.into_iter().collect());
        let mut private = to.iter().flatten();
        if private.any(|one| !room.participants.contains_key(one)) {
            return Err(Refusal::new(
                ErrorCode::NotInRoom,
                "whom it is for is not in the room",
            ));
        }
        self.take_event(key, by, chat.text.len())?;

        let id = self.new_message_id();
        let at = self.now;
        let Some(room) = self.rooms.get_mut(key) else {
            return Err(Refusal::not_in_room());
        };
        let author = room
            .participants
            .get(&by)
            .map(|one| &one.person.state)
            .ok_or_else(Refusal::not_in_room)?;
        let message = ChatMessage {
            id,
            from: ChatAuthor {
                participant: by,
                user: author.user.clone(),
                name: author.name.clone(),
            },
            text: chat.text,
            at,
            to: to.as_ref().map(|to| to.iter().copied().collect()),
        };
        let news = ServerFrame::RoomChat(Box::new(RoomChatNews {
            room: key.1,
            message: message.clone(),
        }));

        match to {
            None => {
                room.keep_chat(message);
                self.tell_room(key, &news, Some(by));
            }
            Some(to) => {
                for one in to.into_iter().filter(|one| *one != by) {
                    self.tell_one(key, one, &news);
                }
            }
        }
        Ok(OkData::RoomChat { id, at })
    }

    pub(super) fn on_room_react(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        reaction: String,
    ) -> Result<(), Refusal> {
        self.take_event(key, by, reaction.len())?;
        let news = RoomReaction {
            room: key.1,
            participant: by,
            reaction,
        };
        self.tell_room(key, &ServerFrame::RoomReaction(news), Some(by));
        Ok(())
    }

    pub(super) fn on_room_hand(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        RoomHand {
            up, participant, ..
        }: RoomHand,
    ) -> Result<(), Refusal> {
        let whose = participant.unwrap_or(by);
        if whose != by {
            self.ensure_moderates(key, by)?;
            if up {
                return Err(Refusal::new(
                    ErrorCode::Forbidden,
                    "nobody raises the hand of somebody else",
                ));
            }
        }
        self.take_event(key, by, 0)?;
        let now = self.now;
        let one = self
            .participant_mut(key, whose)
            .ok_or_else(Refusal::not_in_room)?;

        let hand_at = &mut one.person.state.hand_at;
        if hand_at.is_some() != up {
            *hand_at = up.then_some(now);
            self.tell_participant(key, whose, None);
        }
        Ok(())
    }

    /// Asks a User of the Account to come in; whom a moderator invites need not wait, and finds a locked door open.
    pub(super) fn on_room_invite(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        user: &UserId,
    ) -> Result<(), Refusal> {
        let room = self.rooms.get(key).ok_or_else(Refusal::not_in_room)?;
        let one = room
            .participants
            .get(&by)
            .ok_or_else(Refusal::not_in_room)?;
        if one.person.is_guest {
            return Err(Refusal::new(ErrorCode::Forbidden, "a guest invites nobody"));
        }
        if let Some(phone) = target_of(user) {
            return self.on_room_invite_phone(key, by, phone?);
        }
        let (moderates, author) = (one.permissions().moderate, &one.person.state);
        let news = ServerFrame::RoomInvited(RoomInvited {
            room: room.name.clone(),
            by: author.user.clone(),
            name: author.name.clone(),
            participants: u32::try_from(room.participants.len()).unwrap_or(u32::MAX),
        });
        let is_here = |one: &Participant| one.person.state.user == *user;
        if room.participants.values().any(is_here) {
            return Err(Refusal::new(
                ErrorCode::SelfCall,
                "the user is in the room already",
            ));
        }
        self.take_own_event(key, by)?;

        let is_disturbed = self.reach(key.0, user).do_not_disturb;
        let data = news.data();
        let parcel = Parcel {
            user,
            device: None,
            except: None,
            kind: news.kind(),
            data: &data,
            call: None,
        };
        if is_disturbed || !self.deliver(key.0, &parcel) {
            return Err(Refusal::new(
                ErrorCode::PeerGone,
                "no device of the user can be reached",
            ));
        }
        if moderates && let Some(room) = self.rooms.get_mut(key) {
            room.admit(user);
        }
        Ok(())
    }

    /// Dials a phone into the Room.
    fn on_room_invite_phone(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        phone: PhoneTarget,
    ) -> Result<(), Refusal> {
        self.ensure_moderates(key, by)?;
        let room = self.rooms.get(key).ok_or_else(Refusal::not_in_room)?;
        if room.settings.encrypted {
            return Err(Refusal::new(
                ErrorCode::RoomEncrypted,
                "a phone can't be heard in a room that is encrypted from end to end",
            ));
        }
        if room.people() >= self.limits.participants_per_room_max as usize {
            return Err(Refusal::new(ErrorCode::RoomFull, "the room is full"));
        }
        let user = phone.user_id();
        let is_here = |one: &Participant| one.person.state.user == user;
        if room.participants.values().any(is_here) {
            return Err(Refusal::new(
                ErrorCode::SelfCall,
                "the phone is in the room already",
            ));
        }
        self.take_own_event(key, by)?;

        let one = self
            .participant_mut(key, by)
            .ok_or_else(Refusal::not_in_room)?;
        let session = one.person.session.ok_or_else(Refusal::not_in_room)?;
        let session = self.sessions.get(session);
        let (user, grants) = (session.user.clone(), session.grants);
        let name = session.name.as_deref().map(str::to_owned);
        self.invite_phone(key, phone, (&user, name, grants))
    }

    pub(super) fn on_room_metadata(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        metadata: Option<String>,
    ) -> Result<(), Refusal> {
        self.take_event(key, by, metadata.as_ref().map_or(0, String::len))?;
        let room = self.rooms.get_mut(key).ok_or_else(Refusal::not_in_room)?;
        let one = room
            .participants
            .get_mut(&by)
            .ok_or_else(Refusal::not_in_room)?;

        let held = &mut one.person.state.metadata;
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let bytes = room.metadata_bytes - len(held) + len(&metadata);
        if bytes > METADATA_BYTES_MAX {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                "the room has too much metadata",
            ));
        }
        room.metadata_bytes = bytes;
        if *held != metadata {
            *held = metadata;
            self.tell_participant(key, by, None);
        }
        Ok(())
    }
}
