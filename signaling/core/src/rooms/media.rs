//! News of the SFU.

use model::ParticipantId;
use model::media::{ConnectionQuality, MediaEvent, MediaEventKind, Slot};
use signaling_wire::ServerFrame;
use signaling_wire::room::{
    RefusedMedia, RoomConnection, RoomEndReason, RoomLayers, RoomPaused, RoomQuality, RoomSlots,
    RoomSpeakers,
};

use super::leaving::Leaving;
use super::tell::QUALITY_TOLD_TO_ALL_MAX;
use super::{Participant, RoomKey};
use crate::calls::Refusal;
use crate::signaling::Signaling;

impl Participant {
    /// Takes what other slots carry now.
    fn take_slots(&mut self, changed: &[Slot]) {
        for slot in changed {
            let known = self.slots.iter_mut().find(|known| known.mid == slot.mid);
            match known {
                Some(known) => known.track = slot.track,
                // There are as many as sections in the offer.
                None => self.slots.push(slot.clone()),
            }
        }
    }
}

impl Signaling {
    pub(crate) fn on_media_available(&mut self, is_available: bool) {
        self.rooms.is_media_available = is_available;
        if is_available {
            return;
        }

        let keys: Vec<RoomKey> = self.rooms.by_key.keys().copied().collect();
        for key in keys {
            // Nobody hears it where there is no SFU any more; one that was only overrun forgets the Room.
            self.end_room(key, RoomEndReason::Failed, true);
        }
    }

    pub(crate) fn on_media(&mut self, event: MediaEvent) {
        let MediaEvent {
            account,
            room,
            kind,
        } = event;
        let key = (account, room);

        match kind {
            MediaEventKind::Answered {
                participant,
                generation,
                sdp,
                slots,
            } => self.on_answered(key, participant, generation, sdp, slots),
            MediaEventKind::Refused {
                participant,
                generation,
                refusal,
            } => self.on_media_refused(key, participant, generation, refusal),
            MediaEventKind::Connected { participant } => {
                self.on_connection(key, participant, true);
            }
            MediaEventKind::Disconnected { participant } => {
                self.on_connection(key, participant, false);
            }
            MediaEventKind::Slots {
                participant,
                slots,
                audio_wanted,
                video_wanted,
            } => {
                let Some(one) = self.participant_mut(key, participant) else {
                    return;
                };
                one.take_slots(&slots);
                one.slots_wanted = (audio_wanted, video_wanted);
                let news = RoomSlots {
                    room,
                    slots,
                    audio_wanted,
                    video_wanted,
                };
                self.tell_one(key, participant, &ServerFrame::RoomSlots(news));
            }
            MediaEventKind::Paused {
                participant,
                track,
                paused,
            } => {
                let news = RoomPaused {
                    room,
                    track,
                    paused,
                };
                self.tell_one(key, participant, &ServerFrame::RoomPaused(news));
            }
            MediaEventKind::Layers {
                participant,
                track,
                wanted,
            } => {
                let news = RoomLayers {
                    room,
                    track,
                    wanted,
                };
                self.tell_one(key, participant, &ServerFrame::RoomLayers(news));
            }
            MediaEventKind::Speakers { speakers } => self.on_speakers(key, speakers),
            MediaEventKind::Quality {
                participant,
                quality,
            } => self.on_quality(key, participant, quality),
            MediaEventKind::Gone { participant, .. } => {
                let told = Refusal::media(
                    RefusedMedia::UnknownParticipant,
                    "the media has given the participant up",
                );
                self.give_up_joining(key, participant, &told, false);
                self.remove_participant(key, participant, Leaving::Lost);
            }
            MediaEventKind::Failed => self.end_room(key, RoomEndReason::Failed, false),
        }
    }

    fn on_connection(&mut self, key: RoomKey, id: ParticipantId, connected: bool) {
        let news = RoomConnection {
            room: key.1,
            connected,
        };
        self.tell_one(key, id, &ServerFrame::RoomConnection(news));
    }

    fn on_speakers(&mut self, key: RoomKey, mut speakers: Vec<ParticipantId>) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };

        speakers.retain(|speaker| room.participants.contains_key(speaker));
        if room.speakers != speakers {
            room.speakers.clone_from(&speakers);
            let news = RoomSpeakers {
                room: key.1,
                speakers,
            };
            self.tell_room_fleeting(key, &ServerFrame::RoomSpeakers(news));
        }
    }

    fn on_quality(&mut self, key: RoomKey, id: ParticipantId, quality: ConnectionQuality) {
        let Some(one) = self.participant_mut(key, id) else {
            return;
        };
        one.quality = Some(quality);
        let session = one.person.session;

        let news = ServerFrame::RoomQuality(RoomQuality {
            room: key.1,
            participant: id,
            quality,
        });
        let people = self
            .rooms
            .get(key)
            .map_or(0, |room| room.participants.len());
        if people <= QUALITY_TOLD_TO_ALL_MAX {
            self.tell_room_fleeting(key, &news);
        } else {
            if let Some(session) = session {
                self.send_unnumbered(session, &news);
            }
        }
    }

    pub(super) fn participant_mut(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
    ) -> Option<&mut Participant> {
        self.rooms.get_mut(key)?.participants.get_mut(&id)
    }
}
