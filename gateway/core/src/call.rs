//! A call: one Leg that wants to talk, and those it is connected with, one after the other or many at once.
//!
//! ```text
//!  Hunting ── a group rings, the first to answer is it ──▶ Talking ── Refer ──▶ Talking, and hunting beside it
//!     └ nobody: the next group, or the end                    └ one hangs up: the end
//! ```
//!
//! [`Call::step`] is a pure function of what the call is and an [`Event`]. Each Leg agrees on its media by itself, so what a call does is few
//! things: whom to ring, whom to bridge with whom, and what one Leg hears of the other.

mod joining;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gateway_sip::{StatusCode, Uri};

use crate::dialog::DialogId;
use crate::leg::{Ended, Order, Told, Why};

/// The most Legs that ring at once.
pub const RINGING_MAX: usize = 16;

/// A Leg, by a number within its call. The one that began the call is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegKey(pub u32);

/// The Leg that began the call.
pub const CALLER: LegKey = LegKey(0);

/// Who rings, in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Places, by numbers of the caller's own: phones, Trunks, Devices. Those beyond [`RINGING_MAX`] don't ring.
    pub targets: Vec<u32>,
    /// For how long.
    pub ring: Duration,
}

/// What a call is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// A Leg told something.
    Told {
        /// Which.
        leg: LegKey,
        /// What.
        told: Told,
    },
    /// An [`Action::Transfer`] is allowed, and goes there.
    Transfer(Vec<Group>),
    /// It is not.
    RefuseTransfer(StatusCode),
    /// Where a call that is led, or a transfer, goes on after [`Action::Lead`], at once or later; behind those who still ring. Without any
    /// group the call ends, or the transfer does.
    Lead(Vec<Group>),
    /// A call that is led, or a transfer, ends with this.
    Refuse(StatusCode),
    /// The caller is answered before anybody is there to talk to: it waits in a Queue, or hears a Menu. A transfer that leads there has come
    /// about.
    TakeUp,
    /// End it all.
    HangUp,
    /// [`Call::poll_timeout`] has come.
    Timeout,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Action {
    /// Tell a Leg this.
    Order {
        /// Which.
        leg: LegKey,
        /// What.
        order: Order,
    },
    /// Begin a Leg.
    Call {
        /// Its number from now on.
        leg: LegKey,
        /// The place, of the [`Group`].
        target: u32,
    },
    /// Let both hear one another, and nobody else.
    Bridge(LegKey, LegKey),
    /// Let this Leg hear ringback, until it is bridged.
    Ringback(LegKey),
    /// A Leg was put on hold by its bridged one: it hears music, or no longer does.
    Music {
        /// Which.
        leg: LegKey,
        /// Whether it does.
        on: bool,
    },
    /// A Leg wants its other one to be connected elsewhere: answered by [`Event::Transfer`] or [`Event::RefuseTransfer`], when policy has
    /// decided. With `replaces` the place is another call's Leg.
    Transfer {
        /// Who asks.
        by: LegKey,
        /// Where to.
        target: Uri,
        /// Which dialog there is replaced.
        replaces: Option<DialogId>,
    },
    /// Nobody of all groups has answered a call that is led, or a transfer; this is the best of what they said. It waits for [`Event::Lead`] or
    /// [`Event::Refuse`].
    Lead(Ended),
    /// A key for the other Leg.
    Key {
        /// For whom.
        leg: LegKey,
        /// Which.
        key: char,
    },
    /// The call is over; all Legs have their orders.
    Over(Ended),
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// Who waits for an answer, or is talked to.
    holder: LegKey,
    /// Whether the holder is up; a caller is not until somebody answers.
    holder_up: bool,
    peer: Option<LegKey>,
    hunt: Option<Hunt>,
    transfer: Option<Transfer>,
    last_leg: u32,
    /// Somebody else knows where it goes on.
    led: bool,
    over: bool,
    actions: Vec<Action>,
}

/// Looking for somebody who answers.
#[derive(Debug)]
struct Hunt {
    /// Somebody else knows where it goes on when nobody answers.
    led: bool,
    ringing: Vec<LegKey>,
    rest: VecDeque<Group>,
    until: Option<Instant>,
    /// The best of the answers so far.
    answer: Option<Ended>,
    rung: bool,
    /// Whose early media the holder hears.
    early: Option<LegKey>,
}

/// Who asked for a transfer, and whether that Leg is still there.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    by: LegKey,
    present: bool,
}

const NOBODY: Ended = Ended {
    code: StatusCode::TEMPORARILY_UNAVAILABLE,
    cause: None,
    why: Why::Remote,
};

impl Call {
    /// A call of a Leg that waits for its answer, to the first of `groups` that has one.
    #[must_use]
    pub fn new(now: Instant, groups: Vec<Group>) -> (Self, Vec<Action>) {
        Self::begin(now, groups, false)
    }

    /// The same for a call that is led: when nobody of `groups` answers, it asks where it goes on ([`Action::Lead`]).
    #[must_use]
    pub fn led(now: Instant, groups: Vec<Group>) -> (Self, Vec<Action>) {
        Self::begin(now, groups, true)
    }

    fn begin(now: Instant, groups: Vec<Group>, led: bool) -> (Self, Vec<Action>) {
        let mut call = Self {
            holder: CALLER,
            holder_up: false,
            peer: None,
            hunt: None,
            transfer: None,
            last_leg: CALLER.0,
            led,
            over: false,
            actions: Vec::new(),
        };
        call.begin_hunt(now, groups);
        let actions = std::mem::take(&mut call.actions);
        (call, actions)
    }

    /// Something happens. Actions are to be done in their order.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        if !self.over {
            match event {
                Event::Told { leg, told } => self.on_told(now, leg, told),
                Event::Transfer(groups) if self.transfer.is_some() && self.hunt.is_none() => {
                    self.begin_hunt(now, groups);
                }
                Event::RefuseTransfer(code) => self.end_transfer(code),
                Event::Transfer(_) => {}
                Event::Lead(groups) => self.on_lead(now, groups),
                Event::Refuse(code) if self.hunt.is_some() => {
                    self.end_hunt(Ended {
                        code,
                        cause: None,
                        why: Why::Local,
                    });
                }
                Event::Refuse(_) => {}
                Event::TakeUp => {
                    if !std::mem::replace(&mut self.holder_up, true) {
                        self.order(self.holder, Order::Answer);
                    }
                    // Who is transferred to where nobody has to answer is there.
                    if self.hunt.is_some() {
                        self.finish_transfer();
                    }
                }
                Event::HangUp => self.finish(
                    None,
                    Ended {
                        code: StatusCode::OK,
                        cause: None,
                        why: Why::Local,
                    },
                ),
                Event::Timeout => self.on_timeout(now),
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.hunt.as_ref().and_then(|hunt| hunt.until)
    }

    fn order(&mut self, leg: LegKey, order: Order) {
        self.actions.push(Action::Order { leg, order });
    }

    fn begin_hunt(&mut self, now: Instant, groups: Vec<Group>) {
        self.hunt = Some(Hunt {
            led: self.led || self.transfer.is_some(),
            ringing: Vec::new(),
            rest: groups.into(),
            until: None,
            answer: None,
            rung: false,
            early: None,
        });
        self.ring_next(now);
    }

    /// Rings the next group that has anybody; ends the hunt when there is none.
    fn ring_next(&mut self, now: Instant) {
        let Some(hunt) = &mut self.hunt else { return };
        while let Some(group) = hunt.rest.pop_front() {
            for target in group.targets.into_iter().take(RINGING_MAX) {
                self.last_leg += 1;
                let leg = LegKey(self.last_leg);
                hunt.ringing.push(leg);
                self.actions.push(Action::Call { leg, target });
            }
            if !hunt.ringing.is_empty() {
                hunt.until = Some(now + group.ring);
                return;
            }
        }
        let answer = hunt.answer.unwrap_or(NOBODY);
        if hunt.led {
            hunt.until = None;
            self.actions.push(Action::Lead(answer));
        } else {
            self.end_hunt(answer);
        }
    }

    /// Nobody is looked for any more.
    fn end_hunt(&mut self, answer: Ended) {
        if self.transfer.is_some() {
            let ringing = self.hunt.take().map(|hunt| hunt.ringing);
            for leg in ringing.into_iter().flatten() {
                self.order(leg, cancel());
            }
            self.end_transfer(answer.code);
        } else {
            self.finish(None, answer);
        }
    }

    fn on_lead(&mut self, now: Instant, groups: Vec<Group>) {
        let Some(hunt) = &mut self.hunt else { return };
        if groups.is_empty() {
            let answer = hunt.answer.unwrap_or(NOBODY);
            return self.end_hunt(answer);
        }
        hunt.rest.extend(groups);
        if hunt.ringing.is_empty() {
            self.ring_next(now);
        }
    }

    fn on_timeout(&mut self, now: Instant) {
        let Some(hunt) = self
            .hunt
            .as_mut()
            .filter(|hunt| hunt.until.is_some_and(|until| until <= now))
        else {
            return;
        };
        hunt.until = None;
        for leg in std::mem::take(&mut hunt.ringing) {
            self.order(leg, cancel());
        }
        self.ring_next(now);
    }

    fn on_told(&mut self, now: Instant, leg: LegKey, told: Told) {
        let rings = self
            .hunt
            .as_ref()
            .is_some_and(|hunt| hunt.ringing.contains(&leg));
        let talks = leg == self.holder || Some(leg) == self.peer;
        let asked = self.transfer.is_some_and(|transfer| transfer.by == leg);
        match told {
            Told::Progress(_) if rings => self.on_ringing(),
            Told::Media(agreed) if rings && agreed.direction.receives() => self.on_early_media(leg),
            Told::Media(agreed) if talks => self.on_media(leg, agreed.direction.receives()),
            Told::Answered if rings => self.on_answered(leg),
            Told::Redirected(_) if rings => self.on_no_answer(now, leg, NOBODY),
            Told::Ended(ended) if rings => self.on_no_answer(now, leg, ended),
            Told::Ended(_) if asked => self.on_transferor_gone(leg),
            Told::Ended(ended) if talks => self.finish(Some(leg), ended),
            Told::Refer { target, replaces } if talks => self.on_refer(leg, *target, replaces),
            Told::Key(key) if talks => {
                let other = self.other(leg);
                self.actions
                    .extend(other.map(|leg| Action::Key { leg, key }));
            }
            _ => {}
        }
    }

    /// The holder hears that it rings: by its own phone, or, when that is up, by ringback of ours.
    fn on_ringing(&mut self) {
        let Some(hunt) = &mut self.hunt else { return };
        if std::mem::replace(&mut hunt.rung, true) || hunt.early.is_some() {
            return;
        }
        if self.holder_up {
            let waits = self.transfer.is_none_or(|transfer| !transfer.present);
            // Whoever asked for the transfer may still talk; it is told how that goes.
            if let Some(transfer) = self.transfer.filter(|transfer| transfer.present) {
                self.order(transfer.by, Order::ReferProgress(StatusCode::RINGING));
            }
            if waits {
                self.actions.push(Action::Ringback(self.holder));
            }
        } else {
            self.order(self.holder, Order::Ring);
        }
    }

    /// The network speaks before anybody answers. With several phones ringing it would be one of many voices: ringback it is then.
    fn on_early_media(&mut self, leg: LegKey) {
        let alone = self
            .hunt
            .as_ref()
            .is_some_and(|hunt| hunt.ringing == [leg] && hunt.early.is_none());
        if alone && !self.holder_up {
            if let Some(hunt) = &mut self.hunt {
                hunt.early = Some(leg);
            }
            self.order(self.holder, Order::Progress);
            self.actions.push(Action::Bridge(self.holder, leg));
        }
    }

    fn on_answered(&mut self, leg: LegKey) {
        let Some(hunt) = self.hunt.take() else { return };
        for other in hunt.ringing.into_iter().filter(|other| *other != leg) {
            self.order(other, cancel());
        }
        if !self.holder_up {
            self.holder_up = true;
            self.order(self.holder, Order::Answer);
        }
        self.peer = Some(leg);
        if hunt.early != Some(leg) {
            self.actions.push(Action::Bridge(self.holder, leg));
        }
        self.finish_transfer();
    }

    /// The transfer has come about: whoever asked for it hears so, and is let go.
    fn finish_transfer(&mut self) {
        let Some(transfer) = self.transfer.take() else {
            return;
        };
        if transfer.present {
            self.order(transfer.by, Order::ReferProgress(StatusCode::OK));
            self.order(transfer.by, hang_up(None));
        }
        if self.peer == Some(transfer.by) {
            self.peer = None;
        }
    }

    fn on_no_answer(&mut self, now: Instant, leg: LegKey, ended: Ended) {
        let Some(hunt) = &mut self.hunt else { return };
        hunt.ringing.retain(|known| *known != leg);
        if hunt.early == Some(leg) {
            hunt.early = None;
        }
        hunt.answer = Some(hunt.answer.map_or(ended, |answer| better(answer, ended)));
        // Whoever says that nobody is to be rung speaks for all (RFC 3261 §16.7).
        if ended.code.get() >= 600 {
            for other in std::mem::take(&mut hunt.ringing) {
                self.actions.push(Action::Order {
                    leg: other,
                    order: cancel(),
                });
            }
            hunt.rest.clear();
        }
        if hunt.ringing.is_empty() {
            self.ring_next(now);
        }
    }

    fn on_media(&mut self, leg: LegKey, listens: bool) {
        let other = self.other(leg);
        self.actions
            .extend(other.map(|leg| Action::Music { leg, on: !listens }));
    }

    fn on_refer(&mut self, by: LegKey, target: Uri, replaces: Option<DialogId>) {
        let Some(stays) = self
            .other(by)
            .filter(|_| self.transfer.is_none() && self.hunt.is_none())
        else {
            self.order(by, Order::ReferProgress(StatusCode::REQUEST_PENDING));
            return;
        };
        self.holder = stays;
        self.peer = Some(by);
        self.transfer = Some(Transfer { by, present: true });
        self.actions.push(Action::Transfer {
            by,
            target,
            replaces,
        });
    }

    /// Who asked for the transfer does not wait for its outcome: a blind one.
    fn on_transferor_gone(&mut self, leg: LegKey) {
        if let Some(transfer) = &mut self.transfer {
            transfer.present = false;
        }
        if self.peer == Some(leg) {
            self.peer = None;
            self.actions.push(Action::Ringback(self.holder));
        }
    }

    /// The transfer came to nothing: those who talked go on.
    fn end_transfer(&mut self, code: StatusCode) {
        match self.transfer.take() {
            Some(transfer) if transfer.present => {
                self.order(transfer.by, Order::ReferProgress(code));
            }
            Some(_) => self.finish(
                None,
                Ended {
                    code,
                    cause: None,
                    why: Why::Remote,
                },
            ),
            None => {}
        }
    }

    fn other(&self, leg: LegKey) -> Option<LegKey> {
        if leg == self.holder {
            self.peer
        } else {
            Some(self.holder)
        }
    }

    /// Ends all Legs but one that is gone.
    fn finish(&mut self, gone: Option<LegKey>, ended: Ended) {
        let ringing = self
            .hunt
            .take()
            .map(|hunt| hunt.ringing)
            .unwrap_or_default();
        for leg in ringing {
            self.order(leg, cancel());
        }
        for leg in [Some(self.holder), self.peer.take()].into_iter().flatten() {
            if gone != Some(leg) {
                let code = if ended.code.is_success() {
                    StatusCode::TEMPORARILY_UNAVAILABLE
                } else {
                    ended.code
                };
                self.order(
                    leg,
                    Order::End {
                        code,
                        cause: ended.cause,
                    },
                );
            }
        }
        self.over = true;
        self.actions.push(Action::Over(ended));
    }
}

fn cancel() -> Order {
    Order::End {
        code: StatusCode::REQUEST_TERMINATED,
        cause: None,
    }
}

fn hang_up(cause: Option<u8>) -> Order {
    Order::End {
        code: StatusCode::OK,
        cause,
    }
}

/// The answer that is given when none was a good one (RFC 3261 §16.7, step 6): what concerns all before what concerns one, then the
/// lowest class, and busy before any other of its class: somebody is there.
fn better(a: Ended, b: Ended) -> Ended {
    let rank = |ended: &Ended| match ended.code.get() {
        600.. => 0,
        486 => 1,
        480 => 3,
        400..500 => 2,
        _ => 4,
    };
    if rank(&b) < rank(&a) { b } else { a }
}

#[cfg(test)]
mod tests;
