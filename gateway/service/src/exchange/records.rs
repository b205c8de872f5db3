//! Call records: what is kept of each Leg, told whole at its beginning, at its end, and once more when it is known how it sounded.

use std::time::Instant;

use gateway_core::call::CALLER;
use gateway_core::leg::{Ended, Why};
use gateway_sip::negotiate::{Agreed, Codec, Keys};
use model::phone::PhoneTarget;
use model::phone::rows::{
    E164, LegBy, LegDirection, LegRecord, LegSide, LegSound, RowName, remote_text,
};
use model::{CallId, UserId};

use super::legs::SipLeg;
use super::words::phone_end;
use super::{Exchange, Output, Side};
use crate::sound::{LegId, MediaFigures};

/// Who calls whom, in a Leg that begins.
#[derive(Debug, Default)]
pub(super) struct Parties {
    /// The User of ours who calls.
    pub(super) user: Option<UserId>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) name: Option<String>,
    /// The Number of ours that is dialled or shown.
    pub(super) number: Option<E164>,
}

impl Exchange {
    /// A Leg has begun.
    pub(super) fn begin_record(
        &mut self,
        now: Instant,
        id: LegId,
        direction: LegDirection,
        parties: Parties,
    ) {
        let created_at = self.wall(now);
        let leg_id = model::LegId::from_parts(created_at, self.random().into());
        let Some(leg) = self.legs.get_mut(&id) else {
            return;
        };
        let by = match (&leg.desk, &leg.trunk) {
            (Some(name), _) => LegBy::Phone(name.clone()),
            (None, Some((_, name))) => LegBy::Trunk(name.clone()),
            (None, None) => return,
        };
        let Some(call) = self.calls.get(&leg.call) else {
            return;
        };
        let text = |text: Option<String>| remote_text(&text?);
        let record = LegRecord {
            account: call.account,
            leg: leg_id,
            call: leg.call,
            direction,
            by,
            user: parties.user,
            from: text(parties.from),
            to: text(parties.to),
            name: text(parties.name),
            number: parties.number,
            queue: None,
            created_at,
            ringing_at: None,
            answered_at: None,
            ended_at: None,
            end: None,
            ended_by: None,
            sound: None,
            recording: None,
        };
        self.outputs
            .push_back(Output::Record(Box::new(record.clone())));
        leg.record = Some(Box::new(record));
    }

    /// It rings at the other end of a Leg.
    pub(super) fn record_ringing(&mut self, now: Instant, id: LegId) {
        let at = self.wall(now);
        if let Some(record) = self.record_of(id) {
            record.ringing_at.get_or_insert(at);
        }
    }

    /// A Leg was answered.
    pub(super) fn record_answer(&mut self, now: Instant, id: LegId) {
        let at = self.wall(now);
        if let Some(record) = self.record_of(id) {
            record.answered_at.get_or_insert(at);
        }
    }

    /// A Leg has ended, by `ended` where it said how.
    pub(super) fn record_end(&mut self, now: Instant, id: LegId, ended: Option<Ended>) {
        let at = self.wall(now);
        let Some(record) = self.record_of(id) else {
            return;
        };
        if record.ended_at.is_some() {
            return;
        }
        record.ended_at = Some(at);
        let (answered, rung) = (record.answered_at.is_some(), record.ringing_at.is_some());
        record.end = ended.map(|ended| phone_end(ended, answered, rung));
        record.ended_by = match ended.map(|ended| ended.why) {
            Some(Why::Remote) => Some(LegSide::Theirs),
            Some(Why::Local) => Some(LegSide::Ours),
            _ => None,
        };
        let record = record.clone();
        self.outputs.push_back(Output::Record(Box::new(record)));
    }

    /// How a Leg sounded, once it is over.
    pub(super) fn record_sound(&mut self, id: LegId, figures: &MediaFigures) {
        let Some(leg) = self.legs.get_mut(&id) else {
            return;
        };
        let (Some(record), Some(agreed)) = (&mut leg.record, leg.leg.agreed()) else {
            return; // Nothing was ever agreed on, and nothing was heard.
        };
        record.sound = Some(sound(agreed, figures));
        let record = record.clone();
        self.outputs.push_back(Output::Record(record));
    }

    /// A User has the call that came in, from this Queue if from any.
    pub(super) fn record_user(&mut self, id: CallId, user: &UserId, queue: Option<RowName>) {
        let caller = self.calls.get(&id).and_then(|call| call.sides.get(&CALLER));
        let Some(Side::Sip(leg)) = caller else {
            return;
        };
        let leg = *leg;
        if let Some(record) = self.record_of(leg)
            && record.direction == LegDirection::In
            && matches!(record.by, LegBy::Trunk(_))
        {
            record.user = Some(user.clone());
            record.queue = queue.or(record.queue.take());
        }
    }

    fn record_of(&mut self, id: LegId) -> Option<&mut LegRecord> {
        let leg: &mut SipLeg = self.legs.get_mut(&id)?;
        leg.record.as_deref_mut()
    }
}

/// What is kept of an address: a number as it is, all else as it is written.
pub(super) fn kept(target: Option<&PhoneTarget>) -> Option<String> {
    let target = target?;
    Some(target.number().unwrap_or(target.as_str()).to_owned())
}

fn sound(agreed: &Agreed, figures: &MediaFigures) -> LegSound {
    let codec = match agreed.codec {
        Codec::Pcma => "pcma",
        Codec::Pcmu => "pcmu",
        Codec::G722 => "g722",
        Codec::Opus => "opus",
    };
    LegSound {
        codec: codec.to_owned(),
        encrypted: !matches!(agreed.keys, Keys::None),
        packets_received: figures.packets_received,
        packets_lost: figures.packets_lost,
        packets_sent: figures.packets_sent,
        jitter_micros: figures.jitter_micros,
        round_trip_micros: figures.round_trip_micros,
        mos_hundredths: figures.mos_hundredths,
    }
}
