//! The side of a call that signaling knows: Users, who ring, answer and hang up on their Devices, and are heard in a Room.

use std::time::{Duration, Instant};

use gateway_core::call::{self, CALLER, Call, Group, LegKey};
use gateway_core::leg::{self, Ended, Order, Told, Why};
use gateway_sip::StatusCode;
use model::phone::rows::{Line, ShortNumber, Telephony};
use model::phone::{
    Dial, PhoneCommand, PhoneCommandKind, PhoneEnd, PhoneEvent, PhoneEventKind, PhoneReason,
    PhoneTarget, Progress, Ring, USERS_RUNG_MAX, Unanswered,
};
use model::time::Millis;
use model::{AccountId, CallId, UserId};

use super::outgoing::Dialling;
use super::words::{code_of_cause, phone_end};
use super::{Exchange, Output, PhoneCall, Side, Target};
use crate::sound::LegId;

/// The longest time that a phone may ring.
const RING_MAX: Duration = Duration::from_secs(300);

/// What Users who ring are told.
#[derive(Debug, Clone)]
pub(super) struct Invitation {
    pub(super) from: Option<PhoneTarget>,
    pub(super) name: Option<String>,
    pub(super) to: Option<PhoneTarget>,
    pub(super) ring: Duration,
}

impl Exchange {
    pub(super) fn on_command(&mut self, now: Instant, command: PhoneCommand) {
        let PhoneCommand {
            account,
            call: id,
            kind,
        } = command;
        if let PhoneCommandKind::Dial(dial) = kind {
            return self.on_dial(now, account, id, &dial);
        }
        let known = self
            .calls
            .get_mut(&id)
            .filter(|call| call.account == account);
        let Some(call) = known else {
            return self.tell_end(account, id, PhoneEnd::of(PhoneReason::Lost));
        };
        match kind {
            PhoneCommandKind::Dial(_) => {}
            PhoneCommandKind::Ringing => {
                let rings = call.sides.iter().find_map(|(key, side)| match side {
                    Side::User(_) if *key != CALLER => Some(*key),
                    _ => None,
                });
                if let Some(leg) = rings {
                    let told = Told::Progress(StatusCode::RINGING);
                    self.tell_call(id, call::Event::Told { leg, told });
                }
            }
            PhoneCommandKind::Answer { user, place } => {
                call.place = Some(place);
                if let Some(leg) = call.key_of(&user) {
                    let told = Told::Answered;
                    self.tell_call(id, call::Event::Told { leg, told });
                }
            }
            PhoneCommandKind::Unanswered { user, why } => {
                if let Some(leg) = call.key_of(&user) {
                    let told = Told::Ended(Ended {
                        code: code_of(why),
                        cause: None,
                        why: Why::Remote,
                    });
                    self.tell_call(id, call::Event::Told { leg, told });
                }
            }
            PhoneCommandKind::Move { place } => {
                call.place = Some(place);
                for leg in self.phones_of(id) {
                    self.attach(id, leg);
                }
            }
            PhoneCommandKind::Keys(keys) => {
                for leg in self.phones_of(id) {
                    for key in keys.iter() {
                        self.press(leg, key.as_char());
                    }
                }
            }
            PhoneCommandKind::Hold { on } => {
                for leg in self.phones_of(id) {
                    self.tell_leg(leg, leg::Event::Order(Order::Hold(on)));
                }
            }
            PhoneCommandKind::HangUp { cause } => self.hang_up(id, cause),
        }
    }

    /// A User hangs up. Who called hears it as the answer to their INVITE, if it has none yet.
    fn hang_up(&mut self, id: CallId, cause: u8) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        match call.sides.get(&CALLER) {
            Some(Side::Sip(leg)) => {
                let leg = *leg;
                let order = Order::End {
                    code: code_of_cause(cause),
                    cause: Some(cause),
                };
                self.tell_leg(leg, leg::Event::Order(order));
            }
            _ => {
                let told = Told::Ended(Ended {
                    code: StatusCode::REQUEST_TERMINATED,
                    cause: Some(cause),
                    why: Why::Local,
                });
                self.tell_call(id, call::Event::Told { leg: CALLER, told });
            }
        }
    }

    fn on_dial(&mut self, now: Instant, account: AccountId, id: CallId, dial: &Dial) {
        let refuse = |reason| PhoneEnd::of(reason);
        let end = if self.calls.contains_key(&id) {
            return; // It came twice.
        } else if self.draining || self.calls.len() >= self.config.calls_max {
            Err(PhoneReason::Full)
        } else {
            match self.rows.get(&account).cloned() {
                Some(rows) => way_out(&rows, dial),
                None => Err(PhoneReason::NoRoute),
            }
        };
        let way = match end {
            Ok(way) => way,
            Err(reason) => {
                self.figures.refused_out(reason.label());
                return self.tell_end(account, id, refuse(reason));
            }
        };
        let ring = Duration::from_millis(dial.ring.get()).min(RING_MAX);
        let (targets, group) = match way {
            Way::Trunks(trunks, number) => {
                let mut trunks = trunks.into_iter().map(|name| (account, name));
                let Some(first) = trunks.next() else {
                    return self.tell_end(account, id, refuse(PhoneReason::NoRoute));
                };
                let dialling = Dialling {
                    others: trunks.collect(),
                    ..Dialling::new(first, number, dial.user.clone(), dial.name.clone())
                };
                (vec![Target::Trunk(Box::new(dialling))], vec![0])
            }
        };
        let groups = vec![Group {
            targets: group,
            ring,
        }];
        let (call, actions) = Call::new(now, groups);
        let mut phone_call = PhoneCall {
            targets,
            place: Some(dial.place),
            told: true,
            dialled: true,
            ..PhoneCall::new(account, call)
        };
        phone_call
            .sides
            .insert(CALLER, Side::User(dial.user.clone()));
        self.calls.insert(id, phone_call);
        self.tell_people(id, PhoneEventKind::Progress(Progress::Trying));
        self.act_for_call(now, id, actions);
    }

    /// Rings Users, all those of one moment together.
    pub(super) fn ring_people(&mut self, id: CallId, rung: Vec<(LegKey, UserId)>) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let Some(invitation) = call.ring.clone() else {
            return;
        };
        call.told = true;
        let users = rung.into_iter().map(|(_, user)| user);
        let ring = Ring {
            users: users.take(USERS_RUNG_MAX).collect(),
            from: invitation.from,
            name: invitation.name,
            to: invitation.to,
            ring: Millis::new(u64::try_from(invitation.ring.as_millis()).unwrap_or(u64::MAX)),
        };
        self.tell_people(id, PhoneEventKind::Ring(Box::new(ring)));
    }

    /// An order for a Leg that is a User.
    pub(super) fn order_people(&mut self, id: CallId, key: LegKey, order: &Order) {
        if key != CALLER {
            return; // Those who ring hear of the end, or of who answered.
        }
        let progress = match order {
            Order::Ring => Progress::Ringing,
            Order::Progress => Progress::EarlyMedia,
            Order::Answer => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.answered = true;
                }
                return self.tell_people(id, PhoneEventKind::Answered);
            }
            Order::End { .. }
            | Order::Hold(_)
            | Order::Refer(_)
            | Order::ReferProgress(_)
            | Order::Key(_) => return,
        };
        if let Some(call) = self.calls.get_mut(&id) {
            call.rung |= progress == Progress::Ringing;
        }
        self.tell_people(id, PhoneEventKind::Progress(progress));
    }

    /// Has a phone heard in the Room of its call.
    pub(super) fn attach(&mut self, id: CallId, leg: LegId) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let Some(place) = call.place else {
            return;
        };
        if let Some(sip) = self.legs.get_mut(&leg)
            && sip.seat.replace(place) != Some(place)
        {
            self.outputs.push_back(Output::Attach {
                account: call.account,
                leg,
                place,
            });
        }
    }

    /// The phones of a call that are not over.
    fn phones_of(&self, id: CallId) -> Vec<LegId> {
        let call = self.calls.get(&id);
        let sides = call.into_iter().flat_map(|call| call.sides.values());
        let phones = sides.filter_map(|side| match side {
            Side::Sip(leg) => Some(*leg),
            Side::User(_) => None,
        });
        phones
            .filter(|leg| self.legs.get(leg).is_some_and(|leg| !leg.leg.is_over()))
            .collect()
    }

    /// The call is over; signaling hears of it once.
    pub(super) fn end_for_people(&mut self, id: CallId, ended: Ended) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        if !call.told || std::mem::replace(&mut call.ended, true) {
            return;
        }
        let end = phone_end(ended, call.answered, call.rung);
        let account = call.account;
        self.tell_end(account, id, end);
    }

    fn tell_end(&mut self, account: AccountId, call: CallId, end: PhoneEnd) {
        self.figures.ended(end.reason.label());
        self.outputs.push_back(Output::Tell(PhoneEvent {
            account,
            call,
            kind: PhoneEventKind::Ended(end),
        }));
    }
}

impl PhoneCall {
    /// The Leg of a User who is rung.
    fn key_of(&self, user: &UserId) -> Option<LegKey> {
        let is = |(key, side): (&LegKey, &Side)| {
            (*key != CALLER && *side == Side::User(user.clone())).then_some(*key)
        };
        self.sides.iter().find_map(is)
    }
}

/// By what a call goes out.
enum Way {
    /// By the first of these Trunks that takes it.
    Trunks(Vec<model::phone::rows::RowName>, PhoneTarget),
}

/// The way of a call to outside: by every Trunk that may call there; nowhere unless the Account says so.
fn way_out(rows: &Telephony, dial: &Dial) -> Result<Way, PhoneReason> {
    let Some(dialled) = dial.to.number() else {
        return Err(PhoneReason::Forbidden); // An address of SIP is called by no Trunk.
    };
    if let Ok(short) = dialled.parse::<ShortNumber>() {
        if rows.emergency.covers(&short) {
            return way_to_help(rows, &short);
        }
        let may = |(_, trunk): &(_, &model::phone::rows::Trunk)| {
            trunk.enabled && trunk.destinations.allows_short(&short)
        };
        let trunks: Vec<_> = rows
            .trunks
            .iter()
            .filter(may)
            .map(|(name, _)| name.clone())
            .collect();
        if !trunks.is_empty() {
            return Ok(Way::Trunks(trunks, dial.to.clone()));
        }
    }
    if let Ok(extension) = dialled.parse()
        && rows.numbers.contains_key(&Line::Extension(extension))
    {
        return Err(PhoneReason::NoRoute);
    }
    let number = match &rows.dialling {
        Some(dialling) => dialling.number(dialled),
        None => dialled.parse().ok(),
    };
    let number = number.ok_or(PhoneReason::NoSuchNumber)?;
    let of_user = rows.users.get(&dial.user);
    let allowed = of_user.and_then(|user| user.destinations.as_ref());
    if allowed.is_some_and(|destinations| !destinations.allows(&number)) {
        return Err(PhoneReason::Forbidden);
    }
    if rows.trunks.values().all(|trunk| !trunk.enabled) {
        return Err(PhoneReason::NoRoute);
    }
    let may = |(_, trunk): &(_, &model::phone::rows::Trunk)| {
        trunk.enabled && !trunk.targets.is_empty() && trunk.destinations.allows(&number)
    };
    let trunks: Vec<_> = rows
        .trunks
        .iter()
        .filter(may)
        .map(|(name, _)| name.clone())
        .collect();
    if trunks.is_empty() {
        return Err(PhoneReason::Forbidden);
    }
    let target = format!("tel:{number}").parse();
    Ok(Way::Trunks(
        trunks,
        target.map_err(|_| PhoneReason::NoSuchNumber)?,
    ))
}

/// Calls for help go by a table of their own, past all limits, or not at all.
fn way_to_help(rows: &Telephony, short: &ShortNumber) -> Result<Way, PhoneReason> {
    let route = rows
        .emergency
        .routes
        .get(short)
        .ok_or(PhoneReason::Emergency)?;
    let dialled = route.dial.as_deref().unwrap_or(short.as_str());
    let target = format!("tel:{dialled}").parse();
    Ok(Way::Trunks(
        route.trunks.clone(),
        target.map_err(|_| PhoneReason::Emergency)?,
    ))
}

/// What a caller's provider is told of a User who does not answer.
fn code_of(why: Unanswered) -> StatusCode {
    match why {
        Unanswered::Missed | Unanswered::Unavailable => StatusCode::TEMPORARILY_UNAVAILABLE,
        // 603 would speak for all others who may be rung, too.
        Unanswered::Declined | Unanswered::Busy => StatusCode::BUSY_HERE,
        Unanswered::Failed => StatusCode::SERVER_INTERNAL_ERROR,
    }
}
