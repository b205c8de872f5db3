//! Telling people in a Room, and the SFU.

use model::media::{MediaCommand, MediaCommandKind};
use model::{MessageId, ParticipantId};
use signaling_wire::room::{RoomLobby, RoomParticipant, RoomQuality, RoomSpeakers, Waiting};
use signaling_wire::{OkData, ServerFrame};

use super::{Room, RoomKey};
use crate::calls::Refusal;
use crate::io::Output;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// In how large a Room everybody hears how well everybody is connected; in a larger one each hears it of themselves.
pub(super) const QUALITY_TOLD_TO_ALL_MAX: usize = 100;

impl Room {
    fn sessions_except(&self, except: Option<ParticipantId>) -> Vec<SessionKey> {
        let meant = self
            .participants
            .iter()
            .filter(|(id, _)| Some(**id) != except);
        meant
            .filter_map(|(_, participant)| participant.person.session)
            .collect()
    }

    pub(super) fn lobby(&self, key: RoomKey) -> ServerFrame {
        let waiting = self.waiting.iter().map(|knock| Waiting {
            waiting: knock.id,
            user: knock.user.clone(),
            name: knock.name.clone(),
            at: knock.at,
        });
        ServerFrame::RoomLobby(RoomLobby {
            room: key.1,
            waiting: waiting.collect(),
        })
    }
}

impl Signaling {
    pub(super) fn command_media(&mut self, key: RoomKey, kind: MediaCommandKind) {
        let (account, room) = key;
        self.output(Output::Media(MediaCommand {
            account,
            room,
            kind,
        }));
    }

    pub(super) fn answer_room(
        &mut self,
        session: impl Into<Option<SessionKey>>,
        command: MessageId,
        ok: OkData,
    ) {
        let Some(session) = session.into() else {
            return; // no command came from a phone
        };
        let frame = ServerFrame::Ok(ok);
        self.send(session, frame.kind(), Some(command), &frame.data());
    }

    pub(super) fn refuse_room(
        &mut self,
        session: impl Into<Option<SessionKey>>,
        command: MessageId,
        refusal: &Refusal,
    ) {
        let Some(session) = session.into() else {
            return;
        };
        self.send(session, "error", Some(command), &refusal.data());
    }

    pub(super) fn tell_session(
        &mut self,
        session: impl Into<Option<SessionKey>>,
        frame: &ServerFrame,
    ) {
        let Some(session) = session.into() else {
            return;
        };
        self.send(session, frame.kind(), None, &frame.data());
    }

    /// Tells one Participant.
    pub(super) fn tell_one(&mut self, key: RoomKey, id: ParticipantId, frame: &ServerFrame) {
        let participant = self
            .rooms
            .get(key)
            .and_then(|room| room.participants.get(&id));
        if let Some(participant) = participant {
            self.tell_session(participant.person.session, frame);
        }
    }

    /// Tells everybody in a Room, but for one perhaps.
    pub(super) fn tell_room(
        &mut self,
        key: RoomKey,
        frame: &ServerFrame,
        except: Option<ParticipantId>,
    ) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };

        let data = frame.data();
        for session in room.sessions_except(except) {
            self.send(session, frame.kind(), None, &data);
        }
    }

    /// The same, for what may get lost with a socket.
    pub(super) fn tell_room_fleeting(&mut self, key: RoomKey, frame: &ServerFrame) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };

        let data = frame.data();
        for session in room.sessions_except(None) {
            self.send_unnumbered_data(session, frame.kind(), &data);
        }
    }

    /// Tells what a Participant is now.
    pub(super) fn tell_participant(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
        except: Option<ParticipantId>,
    ) {
        let participant = self
            .rooms
            .get(key)
            .and_then(|room| room.participants.get(&id));
        if let Some(state) = participant.map(|participant| participant.person.state.clone()) {
            let news = RoomParticipant {
                room: key.1,
                participant: state,
            };
            self.tell_room(key, &ServerFrame::RoomParticipant(Box::new(news)), except);
        }
    }

    /// Tells all who moderate who waits.
    pub(super) fn tell_lobby(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };

        let lobby = room.lobby(key);
        let moderators: Vec<_> = room.moderators().map(|(_, session)| session).collect();
        let data = lobby.data();
        for session in moderators {
            self.send(session, lobby.kind(), None, &data);
        }
    }

    /// Tells a new moderator, if anybody waits.
    pub(super) fn tell_lobby_to(&mut self, key: RoomKey, id: ParticipantId) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };
        if !room.waiting.is_empty() {
            let lobby = room.lobby(key);
            self.tell_one(key, id, &lobby);
        }
    }

    /// Tells a Session that is back what may have got lost with its socket.
    pub(crate) fn tell_fleeting_again(&mut self, session: SessionKey) {
        for key in self.rooms_of(session) {
            self.consider_call(key);
            let Some(room) = self.rooms.get(key) else {
                continue;
            };
            let Some(own) = room.of_session(session) else {
                continue;
            };

            let hears_all = room.participants.len() <= QUALITY_TOLD_TO_ALL_MAX;
            let heard = room
                .participants
                .iter()
                .filter(|(id, _)| hears_all || **id == own);
            let qualities = heard.filter_map(|(id, participant)| {
                Some(ServerFrame::RoomQuality(RoomQuality {
                    room: key.1,
                    participant: *id,
                    quality: participant.quality?,
                }))
            });
            let speakers = ServerFrame::RoomSpeakers(RoomSpeakers {
                room: key.1,
                speakers: room.speakers.clone(),
            });
            let frames: Vec<_> = qualities.chain([speakers]).collect();
            for frame in frames {
                self.send_unnumbered(session, &frame);
            }
        }
    }
}
