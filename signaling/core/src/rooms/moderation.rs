//! What moderators do, and muting.

use model::media::MediaCommandKind;
use model::{ParticipantId, Permissions, Role, TrackId};
use signaling_wire::room::OnRoom;
use signaling_wire::room::{
    DenyReason, RoomAdmit, RoomAsked, RoomDenied, RoomEndReason, RoomMute, RoomMuted, RoomRole,
    RoomSettingsNews, SettingsChange,
};
use signaling_wire::{ErrorCode, OkData, ServerFrame};

use super::admission::{DENIED_FOR, Standing};
use super::leaving::Leaving;
use super::{Knock, RoomKey};
use crate::calls::Refusal;
use crate::signaling::Signaling;

impl Signaling {
    pub(super) fn on_room_mute(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        mute: RoomMute,
    ) -> Result<(), Refusal> {
        let RoomMute { track, muted, .. } = mute;
        let owner = self
            .rooms
            .get(key)
            .and_then(|room| room.owners.get(&track).copied())
            .ok_or_else(|| Refusal::new(ErrorCode::NotInRoom, "no such track in the room"))?;
        if owner == by {
            self.take_event(key, by, 0)?;
        } else {
            self.ensure_moderates(key, by)?;
            // A phone has no way to say that it wants to be heard again: who may mute it takes that back.
            let is_phone = self
                .participant_mut(key, owner)
                .is_some_and(|one| one.person.phone.is_some());
            if !muted && !is_phone {
                return Err(Refusal::new(
                    ErrorCode::Forbidden,
                    "only its owner unmutes a track",
                ));
            }
        }

        let one = self
            .participant_mut(key, owner)
            .ok_or_else(Refusal::not_in_room)?;
        let permissions = one.permissions();
        let Some(state) = one.track_mut(track) else {
            return Ok(());
        };
        if !muted && !permissions.may_send(state.source) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the role does not allow to send this",
            ));
        }
        if state.muted == muted {
            return Ok(());
        }

        state.muted = muted;
        self.command_media(key, MediaCommandKind::Mute { track, muted });
        if owner != by {
            let news = RoomMuted {
                room: key.1,
                track,
                by,
            };
            self.tell_one(key, owner, &ServerFrame::RoomMuted(news));
        }
        self.tell_participant(key, owner, None);
        Ok(())
    }

    /// Asks somebody to unmute a Track: nobody but its owner does.
    pub(super) fn on_room_ask(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        track: TrackId,
    ) -> Result<(), Refusal> {
        self.ensure_moderates(key, by)?;
        let owner = self
            .rooms
            .get(key)
            .and_then(|room| room.owners.get(&track).copied())
            .filter(|owner| *owner != by)
            .ok_or_else(|| Refusal::new(ErrorCode::NotInRoom, "no such track of somebody else"))?;
        self.take_own_event(key, by)?;

        let is_muted = self
            .participant_mut(key, owner)
            .and_then(|one| one.track_mut(track))
            .is_some_and(|state| state.muted);
        if is_muted {
            let news = RoomAsked {
                room: key.1,
                track,
                by,
            };
            self.tell_one(key, owner, &ServerFrame::RoomAsked(news));
        }
        Ok(())
    }

    pub(super) fn on_room_set(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        change: SettingsChange,
    ) -> Result<OkData, Refusal> {
        self.ensure_moderates(key, by)?;
        let room = self.rooms.get_mut(key).ok_or_else(Refusal::not_in_room)?;
        let before = room.settings.clone();
        if change.encrypted == Some(true) && !before.encrypted {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "a room is encrypted from its beginning or not at all",
            ));
        }
        change.apply(&mut room.settings);
        let settings = room.settings.clone();

        if settings != before {
            let news = RoomSettingsNews {
                room: key.1,
                settings: settings.clone(),
            };
            self.tell_room(key, &ServerFrame::RoomSettings(news), None);
        }
        if before.lobby && !settings.lobby {
            self.let_in(key, |knock| !knock.is_outcast);
        }
        self.consider_call(key);
        Ok(OkData::RoomSettings { settings })
    }

    pub(super) fn on_room_admit(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        admit: &RoomAdmit,
    ) -> Result<(), Refusal> {
        self.ensure_moderates(key, by)?;
        let is_meant = |knock: &Knock| admit.waiting.contains(&knock.id);

        if admit.admit {
            self.let_in(key, is_meant);
        } else {
            self.turn_away(key, is_meant);
        }
        Ok(())
    }

    fn let_in(&mut self, key: RoomKey, is_meant: impl Fn(&Knock) -> bool) {
        let admitted = ServerFrame::RoomAdmitted(OnRoom { room: key.1 });
        self.open_or_not(key, is_meant, Standing::Admitted, &admitted);
    }

    fn turn_away(&mut self, key: RoomKey, is_meant: impl Fn(&Knock) -> bool) {
        let denied = ServerFrame::RoomDenied(RoomDenied {
            room: key.1,
            reason: DenyReason::Denied,
        });
        let standing = Standing::Denied(self.now + DENIED_FOR);
        self.open_or_not(key, is_meant, standing, &denied);
    }

    /// Takes people out of the lobby and tells them and the moderators.
    fn open_or_not(
        &mut self,
        key: RoomKey,
        is_meant: impl Fn(&Knock) -> bool,
        standing: Standing,
        told: &ServerFrame,
    ) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };

        let meant: Vec<Knock> = room
            .waiting
            .extract_if(.., |knock| is_meant(knock))
            .collect();
        for knock in &meant {
            room.set_standing(&knock.user, standing);
        }
        for knock in &meant {
            self.forget_room(knock.session, key);
            self.tell_session(knock.session, told);
        }
        if !meant.is_empty() {
            self.tell_lobby(key);
            self.consider_call(key);
        }
    }

    pub(super) fn on_room_role(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        change: RoomRole,
    ) -> Result<(), Refusal> {
        self.ensure_moderates(key, by)?;
        let room = self.rooms.get(key).ok_or_else(Refusal::not_in_room)?;
        let one = room
            .participants
            .get(&change.participant)
            .ok_or_else(Refusal::not_in_room)?;

        let role = change.role.unwrap_or(one.person.state.role);
        let permissions = change.permissions.unwrap_or_else(|| role.permissions());
        let is_last = room.moderators().all(|(id, _)| id == change.participant);
        if !permissions.moderate && is_last {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "somebody has to moderate the room",
            ));
        }
        self.give_role(key, change.participant, role, permissions);
        Ok(())
    }

    /// Gives a Participant a role, in all that follows from it.
    pub(super) fn give_role(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
        role: Role,
        permissions: Permissions,
    ) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let Some(one) = room.participants.get_mut(&id) else {
            return;
        };
        let before = (one.person.state.role, one.permissions());
        if before == (role, permissions) {
            return;
        }

        let silenced = one.become_role(role, permissions);
        let (user, standing) = (one.person.state.user.clone(), one.person.standing());
        room.remember(&user, standing);
        self.command_media(
            key,
            MediaCommandKind::Permit {
                participant: id,
                permissions,
            },
        );
        self.silence(key, silenced);
        self.tell_participant(key, id, None);
        if permissions.moderate && !before.1.moderate {
            self.tell_lobby_to(key, id);
        }
    }

    /// Tells the SFU of Tracks that may not be sent any more.
    pub(super) fn silence(&mut self, key: RoomKey, tracks: Vec<TrackId>) {
        for track in tracks {
            self.command_media(key, MediaCommandKind::Mute { track, muted: true });
        }
    }

    pub(super) fn on_room_remove(
        &mut self,
        key: RoomKey,
        by: ParticipantId,
        whom: ParticipantId,
    ) -> Result<(), Refusal> {
        self.ensure_moderates(key, by)?;
        if by == whom {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "nobody removes themselves; leave instead",
            ));
        }
        if self.participant_mut(key, whom).is_none() {
            return Err(Refusal::not_in_room());
        }

        self.remove_participant(key, whom, Leaving::Removed);
        Ok(())
    }

    pub(super) fn on_room_end(&mut self, key: RoomKey, by: ParticipantId) -> Result<(), Refusal> {
        self.ensure_moderates(key, by)?;
        self.end_room(key, RoomEndReason::Ended, true);
        Ok(())
    }

    pub(super) fn ensure_moderates(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
    ) -> Result<(), Refusal> {
        let one = self
            .participant_mut(key, id)
            .ok_or_else(Refusal::not_in_room)?;
        if one.permissions().moderate {
            Ok(())
        } else {
            Err(Refusal::new(
                ErrorCode::Forbidden,
                "only a moderator may do this",
            ))
        }
    }
}
