//! Who comes to a Room with an offer, and what is agreed on with each offer after it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use model::id::{AccountId, ParticipantId, RoomId};
use model::media::{MediaEventKind, MediaOffer, MediaRefusal, SdpFault, TrackOffer};
use model::room::Permissions;
use rand::RngExt;
use sfu_core::{Bitrate, ParticipantConfig};

use super::{Rooms, cname};
use crate::participant::{Bitrates, Newcomer, Participant};
use crate::peer::{Broken, Peer};
use crate::sdp::{self, Offer};
use crate::shared::Shared;

/// Who joins.
#[derive(Clone, Copy)]
pub(super) struct Who {
    pub(super) id: ParticipantId,
    pub(super) permissions: Permissions,
    pub(super) encrypted: bool,
}

impl Rooms {
    pub(super) fn join(
        &mut self,
        now: Instant,
        account: AccountId,
        room: RoomId,
        who: Who,
        offered: &MediaOffer,
    ) -> Result<(usize, String), MediaRefusal> {
        let Who { id, encrypted, .. } = who;
        let offer = Offer::read(&offered.sdp)?;
        if let Some(index) = self.participant_by_id.get(&id).copied() {
            self.remove(index); // They begin anew.
        }
        if let Some(index) = self.plain_by_id.get(&id).copied() {
            self.remove_plain(index);
        }
        let at = self.room_by_id.get(&room).copied();
        let there = at.map_or(0, |at| self.rooms[at].participants);
        let is_new_and_draining = at.is_none() && self.shared.is_draining.load(Ordering::Relaxed);
        if there >= self.config.participants_per_room_max || is_new_and_draining {
            return Err(MediaRefusal::Full);
        }
        let addresses = self.addresses();
        let fault = |broken: Broken| {
            tracing::warn!(?broken, "Offer not carried out");
            MediaRefusal::BadSdp(SdpFault::Unreadable)
        };
        let peer = Peer::new(now, &self.identity, &addresses, &offer, encrypted);
        let mut peer = peer.map_err(|broken| self.count(broken)).map_err(fault)?;
        let agreed = peer.accept(&offer, |section| is_refused(section, &offered.tracks));
        let agreed = agreed.map_err(|error| match error {
            Ok(refusal) => refusal,
            Err(broken) => fault(self.count(broken)),
        })?;

        if !Shared::take(&self.shared.participants, self.config.participants_max) {
            return Err(MediaRefusal::Full);
        }
        let Some(at) = at.or_else(|| self.open(now, account, room)) else {
            self.shared.participants.fetch_sub(1, Ordering::Relaxed);
            return Err(MediaRefusal::Full);
        };
        let (ssrc, cname) = (self.rng.random(), cname(&mut self.rng));
        let key = self.rooms[at].core.join(
            now,
            ParticipantConfig {
                extensions: agreed.extensions,
                reduced_size_rtcp: agreed.reduces_rtcp,
                cname: cname.clone(),
                ssrc,
            },
        );
        let Ok(key) = key else {
            self.shared.participants.fetch_sub(1, Ordering::Relaxed);
            self.close_if_empty(at);
            return Err(MediaRefusal::Full);
        };
        self.rooms[at].core.set_reachable(now, key, false);
        let newcomer = Newcomer {
            id,
            room: at,
            key,
            peer,
            permissions: who.permissions,
            encrypted,
            generation: offered.generation,
            ssrc,
            cname: cname.into(),
            bitrates: Bitrates {
                up: Bitrate::kbps(self.config.bitrate_in_max_kbps.into()),
                down: Bitrate::kbps(self.config.bitrate_out_max_kbps.into()),
            },
        };
        let index = self
            .participants
            .insert(Participant::new(now, newcomer, &agreed));
        self.participant_by_id.insert(id, index);
        self.shared.enter(&agreed.ufrag, self.number);
        self.participant_by_ufrag
            .insert(agreed.ufrag.clone(), index);
        let room = &mut self.rooms[at];
        room.participants += 1;
        if room.places.len() <= key.index() {
            room.places.resize(key.index() + 1, None);
        }
        room.places[key.index()] = Some(index);
        self.apply(now, index, &agreed, &offered.tracks);
        self.wait(index);
        Ok((index, agreed.answer))
    }

    pub(super) fn renegotiate(
        &mut self,
        now: Instant,
        room: RoomId,
        id: ParticipantId,
        offered: &MediaOffer,
    ) -> Result<(usize, String), MediaRefusal> {
        let index = self
            .find(room, id)
            .ok_or(MediaRefusal::UnknownParticipant)?;
        let participant = &mut self.participants[index];
        if offered.generation <= participant.generation {
            return Err(MediaRefusal::StaleGeneration);
        }
        let offer = Offer::read(&offered.sdp)?;
        let agreed = participant
            .peer
            .accept(&offer, |section| is_refused(section, &offered.tracks));
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(Ok(refusal)) => return Err(refusal),
            Err(Err(broken)) => {
                self.break_off(index, broken);
                return Err(MediaRefusal::BadSdp(SdpFault::Unreadable));
            }
        };
        participant.generation = offered.generation;
        // It may have something to do now: channels to open, or another way to find.
        participant.peer_due = Some(now);
        if participant.ufrag != agreed.ufrag {
            self.participant_by_ufrag.remove(&participant.ufrag);
            self.shared.leave(&participant.ufrag);
            self.participant_by_ufrag
                .insert(agreed.ufrag.clone(), index);
            self.shared.enter(&agreed.ufrag, self.number);
        }
        participant.follow(now, &agreed);
        let (at, key) = (participant.room, participant.key);
        self.rooms[at]
            .core
            .set_leg(key, agreed.extensions, agreed.reduces_rtcp);
        self.apply(now, index, &agreed, &offered.tracks);
        self.wait(index);
        Ok((index, agreed.answer))
    }

    pub(super) fn answer(
        &mut self,
        now: Instant,
        account: AccountId,
        room: RoomId,
        participant: ParticipantId,
        generation: u32,
        agreed: Result<(usize, String), MediaRefusal>,
    ) {
        let kind = match agreed {
            Ok((index, sdp)) => {
                // What others send is in the slots before they are told.
                let at = self.participants[index].room;
                self.at_work = Some(at);
                self.fill_slots(now, at);
                let participant = &mut self.participants[index];
                for section in &mut participant.sections {
                    section.is_news = false;
                }
                MediaEventKind::Answered {
                    participant: participant.id,
                    generation,
                    sdp,
                    slots: participant.slots(),
                }
            }
            Err(refusal) => {
                self.figures.refuse(refusal);
                tracing::debug!(%participant, %refusal, "Offer refused");
                MediaEventKind::Refused {
                    participant,
                    generation,
                    refusal,
                }
            }
        };
        self.outbox.push(account, room, kind);
    }

    fn count(&mut self, broken: Broken) -> Broken {
        self.figures.panics += u64::from(broken == Broken::Panicked);
        broken
    }
}

/// A section that sends something nobody has given a name.
fn is_refused(section: &sdp::Section<'_>, tracks: &[TrackOffer]) -> bool {
    section.kind != sdp::Kind::Application
        && section.direction.sends
        && !tracks.iter().any(|track| track.mid == section.mid)
}
