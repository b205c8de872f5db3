//! Offers on their way to the SFU and back: the first of a Participant makes them one.

use std::collections::VecDeque;

use model::media::{MediaCommandKind, MediaOffer, MediaRefusal, Slot, TrackOffer};
use model::room::TrackState;
use model::{MessageId, Millis, ParticipantId, Permissions, Timestamp, TrackId};
use signaling_wire::room::{
    RefusedMedia, RoomJoined, RoomOffer, RoomOffered, TrackSent, TrackTaken,
};
use signaling_wire::{ErrorCode, Fingerprints, OkData, SdpError};

use super::leaving::Leaving;
use super::{Answered, Joining, Participant, PendingOffer, Room, RoomKey};
use crate::bucket::Bucket;
use crate::calls::Refusal;
use crate::rng::Rng;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// How long the SFU may take to answer an offer.
pub(super) const ANSWER_WITHIN: Millis = Millis::from_secs(10);

/// The Tracks of an offer as the SFU is told of them: those that may be sent, each with the id it has if its section goes on.
pub(super) fn track_offers(
    rng: &mut Rng,
    now: Timestamp,
    sent: Vec<TrackSent>,
    permissions: Permissions,
    before: Option<&Participant>,
) -> Vec<TrackOffer> {
    let permitted = sent
        .into_iter()
        .filter(|track| permissions.may_send(track.source));

    let offers = permitted.map(|TrackSent { mid, source, muted }| {
        let known = before.and_then(|before| before.track_of(&mid));
        match known.filter(|known| known.source == source) {
            Some(known) => TrackOffer {
                track: known.track,
                mid,
                source,
                muted: known.muted, // `room.mute` changes it
            },
            None => TrackOffer {
                track: TrackId::from_parts(now, rng.wide()),
                mid,
                source,
                muted,
            },
        }
    });
    offers.collect()
}

/// An offer that is not even tried.
pub(super) fn stale() -> Refusal {
    Refusal::media(
        RefusedMedia::StaleGeneration,
        "a later offer was made already",
    )
}

impl Participant {
    fn track_of(&self, mid: &str) -> Option<&TrackState> {
        let (_, track) = self.sections.iter().find(|(section, _)| section == mid)?;
        let tracks = &self.person.state.tracks;
        tracks.iter().find(|state| state.track == *track)
    }

    fn tracks_taken(&self) -> Vec<TrackTaken> {
        let taken = self.sections.iter().map(|(mid, track)| TrackTaken {
            mid: mid.clone(),
            track: *track,
        });
        taken.collect()
    }

    fn offered(&self) -> OkData {
        OkData::RoomOffered(RoomOffered {
            generation: self.answered.generation,
            sdp: self.answered.sdp.clone(),
            tracks: self.tracks_taken(),
            slots: self.slots.clone(),
        })
    }

    /// Takes the Tracks of an offer the SFU took; tells whether others see a change, and which Tracks have lost their
    /// permission while it was on its way.
    fn take_tracks(&mut self, offers: Vec<TrackOffer>) -> (bool, Vec<TrackId>) {
        let permissions = self.permissions();
        let mut silenced = Vec::new();
        let mut states = Vec::with_capacity(offers.len());
        let mut sections = Vec::with_capacity(offers.len());

        for offer in offers {
            let known = self.track_mut(offer.track);
            let mut muted = known.map_or(offer.muted, |known| known.muted);
            if !muted && !permissions.may_send(offer.source) {
                muted = true;
                silenced.push(offer.track);
            }
            states.push(TrackState {
                track: offer.track,
                source: offer.source,
                muted,
            });
            sections.push((offer.mid, offer.track));
        }

        self.sections = sections;
        let is_news = self.person.state.tracks != states;
        self.person.state.tracks = states;
        (is_news, silenced)
    }
}

impl Room {
    /// Knows whose Tracks these are, instead of those they had `before`.
    fn own(&mut self, owner: ParticipantId, before: &[TrackState]) {
        for state in before {
            self.owners.remove(&state.track);
        }
        if let Some(participant) = self.participants.get(&owner) {
            let tracks = participant.person.state.tracks.iter();
            self.owners.extend(tracks.map(|state| (state.track, owner)));
        }
    }
}

impl Signaling {
    /// An SDP within its limits that binds its media to a certificate.
    pub(super) fn ensure_room_sdp(&self, sdp: &str) -> Result<(), Refusal> {
        if sdp.len() > self.limits.room_sdp_bytes_max as usize {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                "more than room_sdp_bytes_max",
            ));
        }

        let Err(error) = Fingerprints::of(sdp) else {
            return Ok(());
        };
        Err(match error {
            SdpError::NotSdp | SdpError::NoMedia => {
                Refusal::media(RefusedMedia::BadSdp, "the SDP can't be read")
            }
            SdpError::TooMany => Refusal::media(
                RefusedMedia::TooManySections,
                "the SDP has too many media descriptions",
            ),
            SdpError::Missing { .. } | SdpError::Weak => Refusal::media(
                RefusedMedia::WeakFingerprint,
                "each m-section needs a fingerprint of sha-256 or stronger, and no weaker one",
            ),
        })
    }

    /// Takes one of the offers a Session may make.
    pub(super) fn take_offer(&mut self, session: SessionKey) -> Result<(), Refusal> {
        let (now, limits) = (self.now, &self.limits);
        let (per_second, burst) = (limits.room_offers_per_second, limits.room_offers_burst);

        let offers = &mut self.sessions.get_mut(session).room_offers;
        if offers.take(now, per_second, burst) {
            Ok(())
        } else {
            Err(Refusal::new(ErrorCode::RateLimited, "too many offers"))
        }
    }

    pub(super) fn on_room_offer(
        &mut self,
        session: SessionKey,
        command: MessageId,
        offer: RoomOffer,
    ) -> Result<(), Refusal> {
        let (key, id) = self.present(session, offer.room)?;
        if self.answer_offer_again(session, command, key, id) {
            return Ok(());
        }
        self.take_offer(session)?;
        self.ensure_room_sdp(&offer.sdp)?;

        let (rooms, rng, now) = (&mut self.rooms, &mut self.rng, self.now);
        let participant = rooms
            .get_mut(key)
            .and_then(|room| room.participants.get_mut(&id))
            .ok_or_else(Refusal::not_in_room)?;
        let pending = participant.pending.as_ref();
        let newest = pending.map_or(participant.answered.generation, |pending| {
            pending.generation
        });
        if offer.generation <= newest {
            return Err(stale());
        }

        let permissions = participant.permissions();
        let tracks = track_offers(rng, now, offer.tracks, permissions, Some(participant));
        let media = MediaOffer {
            generation: offer.generation,
            sdp: offer.sdp,
            tracks: tracks.clone(),
        };
        let overtaken = participant.pending.replace(PendingOffer {
            command,
            generation: offer.generation,
            tracks,
            until: now + ANSWER_WITHIN,
        });
        if let Some(overtaken) = overtaken {
            self.refuse_room(session, overtaken.command, &stale());
        }
        self.rooms.arm(key);
        self.command_media(
            key,
            MediaCommandKind::Offer {
                participant: id,
                offer: media,
            },
        );
        Ok(())
    }

    /// Answers a command that is known already; false when it is new.
    fn answer_offer_again(
        &mut self,
        session: SessionKey,
        command: MessageId,
        key: RoomKey,
        id: ParticipantId,
    ) -> bool {
        let Some(participant) = self.participant_mut(key, id) else {
            return false;
        };

        if participant.answered.command == command {
            let again = participant.offered();
            self.answer_room(session, command, again);
            return true;
        }
        let pending = participant.pending.as_ref();
        // Answered when the SFU has.
        pending.is_some_and(|pending| pending.command == command)
    }

    /// The SFU has taken an offer.
    pub(super) fn on_answered(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
        generation: u32,
        sdp: String,
        slots: Vec<Slot>,
    ) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };

        let is_first = room
            .joining
            .get(&id)
            .is_some_and(|joining| joining.offer.generation == generation);
        if is_first && let Some(joining) = room.joining.remove(&id) {
            return self.on_joined(key, joining, sdp, slots);
        }

        let Some(participant) = room.participants.get_mut(&id) else {
            return;
        };
        let Some(offer) = participant
            .pending
            .take_if(|pending| pending.generation == generation)
        else {
            return; // overtaken, or given up
        };
        participant.answered = Answered {
            command: offer.command,
            generation,
            sdp,
        };
        participant.slots = slots;
        let before = participant.person.state.tracks.clone();
        let (is_news, silenced) = participant.take_tracks(offer.tracks);
        let (session, answer) = (participant.person.session, participant.offered());
        room.own(id, &before);

        self.answer_room(session, offer.command, answer);
        self.silence(key, silenced);
        if is_news {
            self.tell_participant(key, id, None);
            self.consider_call(key);
        }
    }

    /// Who joined is here.
    fn on_joined(&mut self, key: RoomKey, joining: Joining, sdp: String, slots: Vec<Slot>) {
        let Joining { person, offer } = joining;
        let (id, command) = (person.state.participant, person.command);
        let (user, standing) = (person.state.user.clone(), person.standing());
        let mut participant = Participant {
            person,
            sections: Vec::new(),
            answered: Answered {
                command: offer.command,
                generation: offer.generation,
                sdp,
            },
            pending: None,
            slots,
            slots_wanted: (0, 0),
            quality: None,
            done: VecDeque::new(),
            events: Bucket::full(self.now, self.limits.room_events_burst),
        };
        let (_, silenced) = participant.take_tracks(offer.tracks);
        let moderates = participant.permissions().moderate;

        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        if let Some(session) = participant.person.session {
            room.by_session.insert(session, id);
        }
        room.participants.insert(id, participant);
        room.remember(&user, standing);
        room.own(id, &[]);

        self.answer_joined(key, id, command);
        self.silence(key, silenced);
        self.tell_participant(key, id, Some(id));
        if moderates {
            self.tell_lobby_to(key, id);
        }
        self.ensure_moderated(key);
        self.consider_call(key);
    }

    /// The `ok` to `room.join`.
    pub(super) fn answer_joined(&mut self, key: RoomKey, id: ParticipantId, command: MessageId) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };
        let Some(participant) = room.participants.get(&id) else {
            return;
        };

        let (state, next) = room.state(key.1);
        let joined = RoomJoined {
            participant: id,
            role: participant.person.state.role,
            permissions: participant.permissions(),
            state,
            next,
            tracks: participant.tracks_taken(),
            generation: participant.answered.generation,
            sdp: participant.answered.sdp.clone(),
            slots: participant.slots.clone(),
            audio_wanted: participant.slots_wanted.0,
            video_wanted: participant.slots_wanted.1,
            speakers: room.speakers.clone(),
            chat: room.chat.iter().cloned().collect(),
        };
        let session = participant.person.session;
        self.answer_room(session, command, OkData::RoomJoined(Box::new(joined)));
    }

    /// The SFU has refused an offer.
    pub(super) fn on_media_refused(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
        generation: u32,
        refusal: MediaRefusal,
    ) {
        let told = Refusal::media(refusal.into(), reason_of(refusal));
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };

        let is_first = room
            .joining
            .get(&id)
            .is_some_and(|joining| joining.offer.generation == generation);
        if is_first {
            return self.give_up_joining(key, id, &told, false);
        }

        let Some(participant) = room.participants.get_mut(&id) else {
            return;
        };
        let offer = participant
            .pending
            .take_if(|pending| pending.generation == generation);
        let session = participant.person.session;
        let is_phone = participant.person.phone.is_some();
        if let Some(offer) = offer {
            self.refuse_room(session, offer.command, &told);
        }
        if is_phone || refusal == MediaRefusal::UnknownParticipant {
            self.remove_participant(key, id, Leaving::Lost);
        }
    }

    /// Gives up the offers the SFU has not answered in time.
    pub(super) fn expire_offers(&mut self, key: RoomKey) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };

        let late = |(_, joining): &(&ParticipantId, &Joining)| joining.offer.until <= now;
        let joining: Vec<_> = room
            .joining
            .iter()
            .filter(late)
            .map(|(id, _)| *id)
            .collect();
        let mut overdue = Vec::new();
        for participant in room.participants.values_mut() {
            let offer = participant.pending.take_if(|offer| offer.until <= now);
            overdue.extend(offer.map(|offer| (participant.person.session, offer.command)));
        }

        let told = Refusal::media(RefusedMedia::Timeout, "the media does not answer");
        for id in joining {
            self.give_up_joining(key, id, &told, true);
        }
        for (session, command) in overdue {
            self.refuse_room(session, command, &told);
        }
    }

    /// Who joins does not come in; tells the SFU if it may think otherwise.
    pub(super) fn give_up_joining(
        &mut self,
        key: RoomKey,
        id: ParticipantId,
        told: &Refusal,
        tells_media: bool,
    ) {
        let Some(joining) = self.drop_joining(key, id) else {
            return;
        };

        if tells_media {
            self.command_media(key, MediaCommandKind::Leave { participant: id });
        }
        let session = joining.person.session;
        self.refuse_room(session, joining.person.command, told);
        self.forget_room(session, key);
        self.note_emptiness(key);
        self.consider_call(key);
    }

    pub(super) fn drop_joining(&mut self, key: RoomKey, id: ParticipantId) -> Option<Joining> {
        let room = self.rooms.get_mut(key)?;
        let joining = room.joining.remove(&id)?;
        room.forget_metadata(&joining.person.state);
        Some(joining)
    }
}

/// For people.
const fn reason_of(refusal: MediaRefusal) -> &'static str {
    match refusal {
        MediaRefusal::BadSdp(fault) => fault.text(),
        MediaRefusal::TooManySections => "the SDP has too many media descriptions",
        MediaRefusal::WeakFingerprint => {
            "the SDP has a fingerprint weaker than sha-256, or none of sha-256"
        }
        MediaRefusal::NoCodec => "no codec in common",
        MediaRefusal::StaleGeneration => "a later offer was made already",
        MediaRefusal::Full => "the server is full",
        MediaRefusal::UnknownParticipant => "the media knows nothing of the participant",
        MediaRefusal::Encrypted => "the room is encrypted from end to end",
    }
}
