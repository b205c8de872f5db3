//! The side of a call that signaling knows: Users, who ring, answer and hang up on their Devices, and are heard in a Room.

use std::time::{Duration, Instant};

use gateway_core::call::{self, CALLER, Call, Group, LegKey};
use gateway_core::leg::{self, Ended, Order, Told, Why};
use gateway_core::outbound::{self, Caller, Denied, Outside, Plan};
use gateway_sip::{MAX_FORWARDS_DEFAULT, StatusCode};
use model::phone::rows::{Destination, Telephony};
use model::phone::{
    Dial, PhoneCommand, PhoneCommandKind, PhoneEnd, PhoneEvent, PhoneEventKind, PhoneReason,
    PhoneTarget, Progress, Ring, USERS_RUNG_MAX, Unanswered,
};
use model::time::Millis;
use model::{AccountId, CallId, UserId};

use super::attending::Attended;
use super::limits::{Limits, Outlay};
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
                if let Some(leading) = &mut call.leading {
                    leading.is_there();
                }
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
                call.answered = true;
                call.rings_people = false;
                if let Some(leg) = call.key_of(&user) {
                    let told = Told::Answered;
                    self.tell_call(id, call::Event::Told { leg, told });
                    self.on_member_talks(now, id, &user);
                    self.on_talk(now, id);
                }
            }
            PhoneCommandKind::Unanswered { user, why } => {
                let offline = why == Unanswered::Unavailable;
                if let Some(leading) = call.leading.as_mut().filter(|_| !offline) {
                    leading.is_there();
                }
                if let Some(leg) = call.key_of(&user) {
                    let told = Told::Ended(Ended {
                        code: code_of(why),
                        cause: None,
                        why: Why::Remote,
                    });
                    self.tell_call(id, call::Event::Told { leg, told });
                    self.on_member_unanswered(now, id, &user, offline);
                }
            }
            PhoneCommandKind::Move { place } => {
                call.place = Some(place);
                // Whoever has shown a PIN is in its Room now.
                self.leave_alone(id);
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
            PhoneCommandKind::HangUp { cause } => match call.attended {
                // The Room of a PIN can't be joined.
                Some(Attended::Enters { .. }) => {
                    self.end_with_words(now, id, code_of_cause(cause));
                }
                _ => self.hang_up(id, cause),
            },
        }
    }

    /// A User hangs up. Who called hears it as the answer to their INVITE, if it has none yet.
    fn hang_up(&mut self, id: CallId, cause: u8) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        match call.sides.get(&CALLER) {
            Some(Side::Sip(leg)) => {
                // Who called may have left the call to somebody else.
                let leg = self.phones_of(id).first().copied().unwrap_or(*leg);
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
        if self.calls.contains_key(&id) {
            return; // It came twice.
        }
        let (targets, limits) = match self.way_of_dial(now, account, dial) {
            Ok(way) => way,
            Err(reason) => {
                self.figures.refused_out(reason.label());
                return self.tell_end(account, id, PhoneEnd::of(reason));
            }
        };
        let ring = Duration::from_millis(dial.ring.get()).min(RING_MAX);
        let groups = vec![Group {
            targets: (0..).take(targets.len()).collect(),
            ring,
        }];
        let (call, actions) = Call::new(now, groups);
        let mut phone_call = PhoneCall {
            targets,
            place: Some(dial.place),
            told: true,
            dialled: true,
            outside: vec![Outlay::new(limits)],
            ring: Some(Invitation {
                from: self.number_of(account, &dial.user),
                name: dial.name.clone(),
                to: Some(dial.to.clone()),
                ring,
            }),
            ..PhoneCall::new(account, call)
        };
        phone_call
            .sides
            .insert(CALLER, Side::User(dial.user.clone()));
        self.calls.insert(id, phone_call);
        self.on_caller_talks(now, id, &dial.user);
        self.tell_people(id, PhoneEventKind::Progress(Progress::Trying));
        self.act_for_call(now, id, actions);
    }

    /// Whom a User reaches by dialling: Trunks, or the desk phones of somebody of the Account. Browsers among themselves need no phone call.
    fn way_of_dial(
        &mut self,
        now: Instant,
        account: AccountId,
        dial: &Dial,
    ) -> Result<(Vec<Target>, Limits), PhoneReason> {
        if self.draining || self.calls.len() >= self.config.calls_max {
            return Err(PhoneReason::Full);
        }
        let rows = self.rows.get(&account).ok_or(PhoneReason::NoRoute)?.clone();
        // An address of SIP is called by no Trunk.
        let dialled = dial.to.number().ok_or(PhoneReason::Forbidden)?;
        let outside = match outbound::plan(&rows, Some(&dial.user), dialled) {
            Ok(Plan::Outside(outside)) => outside,
            Ok(Plan::Inside(line)) => {
                let number = rows.numbers.get(&line).ok_or(PhoneReason::NoRoute)?;
                let Destination::User(user) = &number.to else {
                    return Err(PhoneReason::NoRoute);
                };
                let desks = self.desks_of(account, user);
                return match desks.is_empty() {
                    true => Err(PhoneReason::NoRoute),
                    false => Ok((desks, Vec::new())),
                };
            }
            Err(Denied::NoTrunk) => return Err(PhoneReason::NoRoute),
            Err(Denied::Help(_)) => return Err(PhoneReason::Emergency),
            Err(Denied::NoNumber) => return Err(PhoneReason::NoSuchNumber),
            Err(Denied::User | Denied::Destination) => return Err(PhoneReason::Forbidden),
        };
        let limits = self.limits_of(account, Some(&dial.user), &outside);
        let caller = caller_of(&rows, dial, &outside);
        let dialling = Dialling::out(account, outside, caller, MAX_FORWARDS_DEFAULT);
        let dialling = dialling.ok_or(PhoneReason::NoRoute)?;
        let begun = self.begin_meters(now, &limits, true);
        begun.map_err(|_| PhoneReason::LimitReached)?;
        Ok((vec![Target::Trunk(Box::new(dialling))], limits))
    }

    /// A User's own number.
    fn number_of(&self, account: AccountId, user: &UserId) -> Option<PhoneTarget> {
        let settings = self.rows.get(&account)?.users.get(user)?;
        format!("tel:{}", settings.number.as_ref()?).parse().ok()
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
        call.rings_people = true;
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
        if let Some(from) = self.heard_in(id, place, leg) {
            return self.hand_over(from, leg);
        }
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
    /// The Leg of a User who is rung, the last of them.
    fn key_of(&self, user: &UserId) -> Option<LegKey> {
        let is = |(key, side): (&LegKey, &Side)| {
            (*key != CALLER && *side == Side::User(user.clone())).then_some(*key)
        };
        self.sides.iter().rev().find_map(is)
    }
}

/// Who dials, as the other side is to know them.
fn caller_of(rows: &Telephony, dial: &Dial, outside: &Outside) -> Caller {
    let settings = rows.users.get(&dial.user);
    let own = settings.and_then(|settings| settings.number.clone());
    Caller {
        number: outside.shown.clone().or(own),
        name: dial.name.clone(),
        withheld: !outside.help && settings.is_some_and(|settings| settings.withhold_number),
        diverted: None,
    }
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
