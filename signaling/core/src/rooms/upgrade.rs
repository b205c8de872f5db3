//! A Call that goes on in a Room: both sides are told its name, join it, and the Call ends once they are there.

use model::{CallId, EndReason, Party, Phase, RoomName};
use signaling_wire::room::RefusedMedia;
use signaling_wire::{ErrorCode, ServerFrame, Upgraded};

use super::{Room, RoomKey};
use crate::calls::{CallKey, Outcome, Refusal, end};
use crate::sessions::SessionKey;
use crate::signaling::Signaling;
use crate::tell::Address;

/// How the name of a Call's Room begins; the Call's id follows.
const PREFIX: &str = "call-";

/// The Room of a Call. Nobody else guesses it: 80 bits of the id are random.
fn room_of(call: CallId) -> Option<RoomName> {
    let name = format!("{PREFIX}{call}").to_ascii_lowercase();
    name.parse().ok()
}

/// The other way round.
fn call_of(room: &RoomName) -> Option<CallId> {
    let id = room.as_str().strip_prefix(PREFIX)?;
    id.to_ascii_uppercase().parse().ok()
}

impl Signaling {
    /// Whether the Session could begin and join the Room of a Call.
    pub(crate) fn ensure_may_upgrade(
        &self,
        session: SessionKey,
        call: CallId,
    ) -> Result<(), Refusal> {
        if !self.rooms.is_media_available() {
            return Err(Refusal::media(
                RefusedMedia::Unavailable,
                "this server forwards no media",
            ));
        }
        let grants = self.room_grants(session);
        if room_of(call).is_some_and(|name| grants.may_create(&name)) {
            Ok(())
        } else {
            Err(Refusal::new(
                ErrorCode::Forbidden,
                "the access token does not allow to begin a room",
            ))
        }
    }

    pub(crate) fn on_upgrade(
        &mut self,
        key: CallKey,
        origin: &model::bus::Origin,
    ) -> Result<Outcome, Refusal> {
        self.ensure_active(key, origin)?;
        let room = room_of(key.1).ok_or_else(Refusal::unknown_call)?;
        let other = self.state(key)?.other_party(&origin.user);
        let (user, device) = (other.user.clone(), other.device);

        let news = ServerFrame::CallUpgraded(Upgraded {
            call: key.1,
            room: room.clone(),
            by: origin.user.clone(),
        });
        let to = Address {
            user: &user,
            device,
            except: None,
        };
        if self.tell_call(key, &to, news.kind(), &news.data()) {
            Ok(Outcome::Room(room))
        } else {
            Err(Refusal::new(
                ErrorCode::PeerGone,
                "the other device has no session",
            ))
        }
    }

    /// Ends the Call whose Room this is, once both sides are in.
    pub(super) fn end_upgraded_call(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };
        let Some(call) = call_of(&room.name) else {
            return;
        };
        let call_key = (key.0, call);
        let Some(state) = self.calls.get(&call_key).map(|call| &call.state) else {
            return;
        };

        let are_there = self.is_inside(room, &state.caller) && self.is_inside(room, &state.callee);
        if state.phase == Phase::Active && are_there {
            let mut how = end(EndReason::Upgraded, None);
            how.room = Some(room.name.clone());
            self.end_call(call_key, None, how, None);
        }
    }

    fn is_inside(&self, room: &Room, party: &Party) -> bool {
        room.participants.values().any(|one| {
            let session = self.sessions.get(one.person.session);
            session.user == party.user && Some(session.device) == party.device
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_a_call_names_it() {
        let call: CallId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let room = room_of(call).unwrap();

        assert_eq!(room.as_str(), "call-01arz3ndektsv4rrffq69g5fav");
        assert_eq!(call_of(&room), Some(call));
        assert_eq!(call_of(&"weekly".parse().unwrap()), None);
        assert_eq!(call_of(&"call-me".parse().unwrap()), None);
    }
}
