//! Encrypted Rooms: keys pass from Participant to Participant, sealed for one another; the server can read none.

use model::ParticipantId;
use model::room::Announcement;
use signaling_wire::room::{AnnouncedKey, RoomKeys, RoomKeysNews};
use signaling_wire::{ErrorCode, ServerFrame};

use super::RoomKey;
use crate::calls::Refusal;
use crate::signaling::Signaling;

impl Signaling {
    pub(super) fn on_room_announce(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        announced: AnnouncedKey,
    ) -> Result<(), Refusal> {
        self.ensure_room_encrypted(key)?;
        self.take_event(key, by, 0)?;
        let one = self
            .participant_mut(key, by)
            .ok_or_else(Refusal::not_in_room)?;
        let session = one.person.session.ok_or_else(Refusal::not_in_room)?;
        let session = self.sessions.get(session);
        let announcement = Announcement {
            device: session.device,
            device_key: session.device_key.as_ref().to_owned(),
            key: announced.key,
            signature: announced.signature,
        };

        if let Some(one) = self.participant_mut(key, by) {
            one.person.state.e2ee = Some(announcement);
        }
        self.tell_participant(key, by, None);
        Ok(())
    }

    /// Hands each named Participant what is for them; who has left needs nothing.
    pub(super) fn on_room_keys(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        keys: RoomKeys,
    ) -> Result<(), Refusal> {
        self.ensure_room_encrypted(key)?;
        let room = self.rooms.get(key).ok_or_else(Refusal::not_in_room)?;
        let one = room
            .participants
            .get(&by)
            .ok_or_else(Refusal::not_in_room)?;
        if !one.permissions().may_send_media() {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "who may send nothing has no key to give",
            ));
        }
        self.take_own_event(key, by)?;
        for wrapped in keys.keys {
            let news = RoomKeysNews {
                room: key.1,
                from: by,
                epoch: keys.epoch,
                ciphertext: wrapped.ciphertext,
            };
            if wrapped.participant != by {
                self.tell_one(key, wrapped.participant, &ServerFrame::RoomKeys(news));
            }
        }
        Ok(())
    }

    fn ensure_room_encrypted(&self, key: RoomKey) -> Result<(), Refusal> {
        let room = self.rooms.get(key).ok_or_else(Refusal::not_in_room)?;
        if room.settings.encrypted {
            Ok(())
        } else {
            Err(Refusal::new(
                ErrorCode::Forbidden,
                "the room is not encrypted from end to end",
            ))
        }
    }
}
