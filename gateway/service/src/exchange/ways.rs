//! Where a call goes that is led by the rows of its Account: whom it rings, and where it goes on when nobody answers.

use std::time::{Duration, Instant};

use gateway_core::call::{self, Group};
use gateway_core::leg::Ended;
use gateway_core::outbound::{self, Caller, Outside, Plan};
use gateway_core::routing::{Facts, Step, Unanswered, Way};
use gateway_sip::StatusCode;
use model::phone::rows::{Mailbox, RowName, Telephony};
use model::time::Timestamp;
use model::{AccountId, CallId, UserId};

use super::incoming::Refusal;
use super::limits::{Limits, Outlay};
use super::outgoing::Dialling;
use super::{Exchange, Target};

/// How much longer the exchange waits than the Users ring, whose end signaling tells.
pub(super) const RING_MARGIN: Duration = Duration::from_secs(5);

/// How long a number outside rings that a call is forwarded to.
const FORWARD_RING: Duration = Duration::from_secs(120);

/// A call on its way through the rows.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) way: Way,
    /// Who calls, for a Trunk that the call is forwarded by.
    caller: Caller,
    max_forwards: u8,
    /// The User who is rung.
    rung: Option<UserId>,
    /// Nothing of theirs is there, as far as anybody has said.
    offline: bool,
    /// The Queue it waits in.
    pub(super) queue: Option<RowName>,
}

impl Leading {
    pub(super) fn new(way: Way, caller: Caller, max_forwards: u8) -> Self {
        Self {
            way,
            caller,
            max_forwards,
            rung: None,
            offline: true,
            queue: None,
        }
    }

    /// Something of the User who is rung is there.
    pub(super) fn is_there(&mut self) {
        self.offline = false;
    }
}

/// What is done next for a call.
#[derive(Debug)]
pub(super) enum Lead {
    /// All of these ring.
    Ring(Vec<Target>, Duration),
    /// It goes out, within these limits.
    Out(Target, Limits),
    /// It waits.
    Queue(RowName),
    /// The caller hears a Menu.
    Menu(RowName),
    /// They are asked for a PIN.
    Pin(Option<RowName>),
    /// They may leave a message.
    Voicemail(Mailbox, Option<RowName>),
    /// They hear a prompt, and that was it.
    Announce(RowName),
    /// It was for help, and goes nowhere.
    NoHelp(StatusCode),
}

impl Exchange {
    /// Whether a User is in a call with a phone.
    pub(super) fn is_talking(&self, account: AccountId, user: &UserId) -> bool {
        self.calls
            .values()
            .any(|call| call.account == account && call.talks.contains(user))
    }

    /// By the Trunks of `outside`, one after the other; `user` is who calls, or has calls forwarded there.
    ///
    /// # Errors
    ///
    /// There is no Trunk.
    pub(super) fn lead_out(
        &self,
        account: AccountId,
        user: Option<&UserId>,
        outside: Outside,
        caller: Caller,
        max_forwards: u8,
    ) -> Result<Lead, Refusal> {
        let limits = self.limits_of(account, user, &outside);
        let dialling = Dialling::out(account, outside, caller, max_forwards);
        let target = Target::Trunk(Box::new(dialling.ok_or(Refusal::NO_ROUTE)?));
        Ok(Lead::Out(target, limits))
    }

    /// What a step of the way comes to here.
    ///
    /// # Errors
    ///
    /// Where it ends, and what the caller is told.
    pub(super) fn lead(
        &self,
        wall: Timestamp,
        account: AccountId,
        rows: &Telephony,
        leading: &mut Leading,
        mut step: Step,
    ) -> Result<Lead, Refusal> {
        leading.rung = None;
        leading.queue = None;
        loop {
            match step {
                Step::Ring { user, seconds } => {
                    let desks = self.desks_of(account, &user);
                    leading.offline = desks.is_empty();
                    leading.rung = Some(user.clone());
                    let mut targets = vec![Target::User(user)];
                    targets.extend(desks);
                    return Ok(Lead::Ring(targets, Duration::from_secs(seconds.into())));
                }
                Step::Queue(name) => {
                    leading.queue = Some(name.clone());
                    return Ok(Lead::Queue(name));
                }
                Step::Forward(number) => {
                    let by = leading.way.diverted.as_ref().map(|(user, _)| user);
                    let plan = outbound::plan(rows, by, number.as_str());
                    let line = match plan.map_err(|denied| Refusal::denied(&denied))? {
                        Plan::Outside(outside) => {
                            let caller = Caller {
                                diverted: leading.way.diverted_by(rows),
                                ..leading.caller.clone()
                            };
                            let max_forwards = leading.max_forwards;
                            return self.lead_out(account, by, outside, caller, max_forwards);
                        }
                        Plan::Inside(line) => line,
                    };
                    let number = rows.numbers.get(&line).ok_or(Refusal::UNKNOWN_NUMBER)?;
                    let talks = |user: &UserId| self.is_talking(account, user);
                    let facts = Facts {
                        at: wall,
                        is_talking: &talks,
                    };
                    step = leading.way.lead(rows, facts, &number.to);
                }
                Step::End(no_way) => return Err(Refusal::no_way(no_way)),
                Step::Menu(name) => return Ok(Lead::Menu(name)),
                Step::Pin(of) => return Ok(Lead::Pin(of)),
                Step::Voicemail { mailbox, greeting } => {
                    return Ok(Lead::Voicemail(mailbox, greeting));
                }
                Step::Announce(name) => return Ok(Lead::Announce(name)),
            }
        }
    }

    /// Nobody has answered a call that is led: it goes on where the rows say, or ends.
    pub(super) fn on_lead(&mut self, now: Instant, id: CallId, ended: Ended) {
        let wall = self.wall(now);
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let account = call.account;
        let Some(leading) = &mut call.leading else {
            return self.tell_call(id, call::Event::Lead(Vec::new()));
        };
        if leading.queue.is_some() {
            return; // Its Queue knows when it goes on.
        }
        let Some(user) = leading.rung.take() else {
            return match call.taken_up {
                true => self.end_with_words(now, id, ended.code),
                false => self.tell_call(id, call::Event::Lead(Vec::new())),
            };
        };
        let outcome = if ended.code == StatusCode::BUSY_HERE {
            Unanswered::Busy
        } else if leading.offline {
            Unanswered::Offline
        } else {
            Unanswered::NoAnswer
        };
        self.go_on(now, wall, id, |rows, facts, way| {
            way.after_user(rows, facts, &user, outcome)
        });
        tracing::debug!(call = %id, %account, ?outcome, "A User was rung in vain");
    }

    /// Takes a call to its next step.
    pub(super) fn go_on(
        &mut self,
        now: Instant,
        wall: Timestamp,
        id: CallId,
        step: impl FnOnce(&Telephony, Facts<'_>, &mut Way) -> Step,
    ) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let account = call.account;
        let (Some(mut leading), Some(rows)) = (call.leading.take(), self.rows.get(&account)) else {
            return self.tell_call(id, call::Event::Lead(Vec::new()));
        };
        let rows = rows.clone();
        let lead = {
            let talks = |user: &UserId| self.is_talking(account, user);
            let facts = Facts {
                at: wall,
                is_talking: &talks,
            };
            let step = step(&rows, facts, &mut leading.way);
            self.lead(wall, account, &rows, &mut leading, step)
        };
        if let Some(call) = self.calls.get_mut(&id) {
            call.leading = Some(leading);
        }
        match lead {
            Ok(lead) => self.follow(now, id, lead),
            Err(refusal) => self.end_with_words(now, id, refusal.code()),
        }
    }

    /// Does what is to be done next for a call.
    pub(super) fn follow(&mut self, now: Instant, id: CallId, lead: Lead) {
        let (targets, ring) = match lead {
            Lead::Ring(targets, ring) => (targets, ring),
            Lead::Out(target, limits) => {
                if let Err(refusal) = self.begin_meters(now, &limits, true) {
                    self.figures.refused_in(refusal.word());
                    return self.end_with_words(now, id, refusal.code());
                }
                if let Some(call) = self.calls.get_mut(&id) {
                    call.outside.push(Outlay::new(limits));
                }
                (vec![target], FORWARD_RING)
            }
            Lead::Queue(name) => return self.join_queue(now, id, name),
            Lead::Menu(name) => return self.begin_menu(now, id, name),
            Lead::Pin(of) => return self.begin_pin(now, id, of),
            Lead::Voicemail(mailbox, greeting) => {
                return self.begin_message(now, id, mailbox, greeting.as_ref());
            }
            Lead::Announce(name) => return self.announce(now, id, &name),
            Lead::NoHelp(code) => return self.refuse_help(now, id, code),
        };
        let group = self.group(id, targets, ring);
        self.tell_call(id, call::Event::Lead(vec![group]));
    }

    /// A group of these targets for a call. Users are told how long they ring; signaling says when nobody of them answers.
    pub(super) fn group(&mut self, id: CallId, targets: Vec<Target>, ring: Duration) -> Group {
        let mut group = Group {
            targets: Vec::new(),
            ring,
        };
        let Some(call) = self.calls.get_mut(&id) else {
            return group;
        };
        if targets
            .iter()
            .any(|target| matches!(target, Target::User(_)))
        {
            group.ring += RING_MARGIN;
        }
        if let Some(invitation) = &mut call.ring {
            invitation.ring = ring;
        }
        for target in targets {
            group
                .targets
                .push(u32::try_from(call.targets.len()).unwrap_or(u32::MAX));
            call.targets.push(target);
        }
        group
    }
}
