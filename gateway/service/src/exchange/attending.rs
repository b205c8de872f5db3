//! A caller whom the gateway itself attends to: they hear words, a Menu, or are asked for a PIN, and press keys.
//!
//! ```text
//! ways: Menu, Pin, Announce, Voicemail ─▶ Attended ◀─ keys, the end of what is played, time
//!                                           └▶ goes on where a row leads, into a Room, or to its end
//! ```

use std::time::{Duration, Instant};

use gateway_core::call;
use gateway_core::leg::{self, Order};
use gateway_core::menu::{Action, Event, Menu, PinAction, PinEntry};
use gateway_media::signs::Sign;
use gateway_sip::StatusCode;
use model::CallId;
use model::phone::rows::{PROMPT_MILLIS_MAX, Pin, RowName};
use model::phone::{Enter, PhoneEvent, PhoneEventKind};

use super::library::{Hearing, Part, prompt, words};
use super::voicemail::Message;
use super::{Exchange, Output, Side, Timer};
use crate::sound::{LegId, To};

/// Before the first word after an answer: the way of the sound is there only now.
const LEAD_IN: Duration = Duration::from_millis(400);

/// How long the last words of a call may take; those that a row names, as long as a prompt may be and this on top.
const LAST_WORDS_MAX: Duration = Duration::from_secs(60);

/// How long a Room that is joined by a PIN has to take the phone.
const ENTER_MAX: Duration = Duration::from_secs(15);

/// Prompts that no row names; a prompt of an Account by this name is heard in place of a sign.
const PIN: &str = "say-pin";
const PIN_WRONG: &str = "say-pin-wrong";
const ENTERED: &str = "say-entered";
const GOODBYE: &str = "say-goodbye";
const UNAVAILABLE: &str = "say-unavailable";
const EMERGENCY: &str = "say-emergency";

/// What a caller is doing whom nobody else attends to.
#[derive(Debug)]
pub(super) enum Attended {
    /// They hear a Menu.
    Menu(RowName, Box<Menu>),
    /// They are asked for a PIN.
    Pin(Box<PinEntry>),
    /// They have entered a PIN, and signaling looks for the Room.
    Enters { until: Instant },
    /// They leave a message.
    Message(Box<Message>),
    /// They hear something, and then their call ends so; at that time at the latest, since to somebody who holds the call nothing is played.
    Ends { code: StatusCode, until: Instant },
}

impl Attended {
    /// They hear their last words.
    pub(super) fn ends(now: Instant, code: StatusCode) -> Self {
        let until = now + LAST_WORDS_MAX;
        Self::Ends { code, until }
    }
}

/// What happens to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happens {
    Key(char),
    Played,
    Timeout,
}

impl From<Happens> for Event {
    fn from(happens: Happens) -> Self {
        match happens {
            Happens::Key(key) => Self::Key(key),
            Happens::Played => Self::Played,
            Happens::Timeout => Self::Timeout,
        }
    }
}

impl Exchange {
    /// The caller hears a Menu.
    pub(super) fn begin_menu(&mut self, now: Instant, id: CallId, name: RowName) {
        let Some(rows) = self.rows_of(id) else {
            return;
        };
        let Some(row) = rows.menus.get(&name) else {
            return self.end_with_words(now, id, StatusCode::TEMPORARILY_UNAVAILABLE);
        };
        self.take_up(id);
        let (menu, actions) = Menu::new(row);
        self.attend(id, Attended::Menu(name, Box::new(menu)));
        self.act_for_menu(now, id, actions);
    }

    /// The caller is asked for the PIN of this row, or for any.
    pub(super) fn begin_pin(&mut self, now: Instant, id: CallId, of: Option<RowName>) {
        self.take_up(id);
        let (entry, actions) = PinEntry::new(of);
        self.attend(id, Attended::Pin(Box::new(entry)));
        self.act_for_pin(now, id, actions);
    }

    /// The caller hears a prompt, and that was it.
    pub(super) fn announce(&mut self, now: Instant, id: CallId, name: &RowName) {
        let Some(rows) = self.rows_of(id) else {
            return;
        };
        let Some(account) = self.calls.get(&id).map(|call| call.account) else {
            return;
        };
        let part = prompt(account, &rows, name, Sign::Unavailable);
        self.take_up(id);
        let code = StatusCode::TEMPORARILY_UNAVAILABLE;
        let until = now + Duration::from_millis(PROMPT_MILLIS_MAX.into()) + LAST_WORDS_MAX;
        self.attend(id, Attended::Ends { code, until });
        self.say(now, id, vec![part]);
    }

    /// A call for help that goes nowhere: the caller hears so before anything is answered, and their phone may look for another way
    /// (RFC 3261 §13.2.2).
    pub(super) fn refuse_help(&mut self, now: Instant, id: CallId, code: StatusCode) {
        let Some(rows) = self.rows_of(id) else {
            return;
        };
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let part = match &rows.emergency.refusal {
            Some(name) => prompt(call.account, &rows, name, Sign::Unavailable),
            None => words(call.account, &rows, EMERGENCY, Sign::Unavailable),
        };
        if let Some(leg) = self.caller_leg(id) {
            self.tell_leg(leg, leg::Event::Order(Order::Progress));
        }
        self.attend(id, Attended::ends(now, code));
        self.say(now, id, vec![part]);
    }

    /// Ends a call; whoever was answered before anybody was there hears that nothing comes of it.
    pub(super) fn end_with_words(&mut self, now: Instant, id: CallId, code: StatusCode) {
        let taken_up = self.calls.get(&id).is_some_and(|call| call.taken_up);
        if !taken_up {
            return self.tell_call(id, call::Event::Refuse(code));
        }
        self.attend(id, Attended::ends(now, code));
        self.say_words(now, id, &[(UNAVAILABLE, Sign::Unavailable)]);
    }

    /// The caller is answered, if they aren't.
    pub(super) fn take_up(&mut self, id: CallId) {
        if let Some(call) = self.calls.get_mut(&id)
            && !std::mem::replace(&mut call.taken_up, true)
        {
            call.lead_in = true;
            self.tell_call(id, call::Event::TakeUp);
        }
    }

    pub(super) fn attend(&mut self, id: CallId, attended: Attended) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.attended = Some(attended);
        }
        self.set_attended_timer(id);
    }

    /// Somebody else attends to the caller from now on.
    pub(super) fn leave_alone(&mut self, id: CallId) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.attended = None;
            // What was played before has no end that anybody waits for.
            call.plays = call.plays.wrapping_add(1);
        }
        if let Some(leg) = self.caller_leg(id) {
            self.forget_hearing(leg);
        }
        self.timers.set(&Timer::Attended(id), None);
    }

    /// Has the caller hear something; [`Happens::Played`] follows.
    pub(super) fn say(&mut self, now: Instant, id: CallId, parts: Vec<Part>) {
        self.say_all(
            now,
            id,
            Hearing {
                parts,
                repeat_from: None,
            },
        );
    }

    /// The same for something that may have no end.
    pub(super) fn say_all(&mut self, now: Instant, id: CallId, mut hearing: Hearing) {
        let Some(leg) = self.caller_leg(id) else {
            return;
        };
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.plays = call.plays.wrapping_add(1);
        let number = call.plays;
        if std::mem::take(&mut call.lead_in) {
            hearing.parts.insert(0, Part::Pause(LEAD_IN));
            hearing.repeat_from = hearing.repeat_from.map(|from| from + 1);
        }
        self.hear(now, leg, hearing, number);
    }

    /// Words that no row names.
    pub(super) fn say_words(&mut self, now: Instant, id: CallId, all: &[(&str, Sign)]) {
        let Some(rows) = self.rows_of(id) else {
            return;
        };
        let Some(account) = self.calls.get(&id).map(|call| call.account) else {
            return;
        };
        let parts = all.iter();
        let parts = parts.map(|(name, or)| words(account, &rows, name, *or));
        self.say(now, id, parts.collect());
    }

    /// A key of the caller; whether it was for us, and is told nobody.
    pub(super) fn on_attended_key(&mut self, now: Instant, id: CallId, key: char) -> bool {
        let is_attended = self
            .calls
            .get(&id)
            .is_some_and(|call| call.attended.is_some());
        if is_attended {
            self.on_attended(now, id, Happens::Key(key));
        }
        is_attended
    }

    /// What was played to the caller has come to its end.
    pub(super) fn on_played(&mut self, now: Instant, id: CallId, number: u32) {
        if self.calls.get(&id).is_some_and(|call| call.plays == number) {
            self.on_attended(now, id, Happens::Played);
        }
    }

    pub(super) fn on_attended(&mut self, now: Instant, id: CallId, happens: Happens) {
        let Some(rows) = self.rows_of(id) else {
            return;
        };
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        match &mut call.attended {
            Some(Attended::Menu(name, menu)) => {
                let Some(row) = rows.menus.get(name) else {
                    // Its row is gone.
                    return self.end_with_words(now, id, StatusCode::TEMPORARILY_UNAVAILABLE);
                };
                let actions = menu.step(now, &rows, row, happens.into());
                self.act_for_menu(now, id, actions);
            }
            Some(Attended::Pin(entry)) => {
                let actions = entry.step(now, &rows, happens.into());
                self.act_for_pin(now, id, actions);
            }
            Some(Attended::Enters { until }) if happens == Happens::Timeout && *until <= now => {
                self.end_with_words(now, id, StatusCode::TEMPORARILY_UNAVAILABLE);
            }
            Some(Attended::Message(_)) => self.on_message(now, id, happens),
            Some(Attended::Ends { code, until })
                if happens == Happens::Played || (happens == Happens::Timeout && *until <= now) =>
            {
                let code = *code;
                self.leave_alone(id);
                self.tell_call(id, call::Event::Refuse(code));
            }
            Some(Attended::Enters { .. } | Attended::Ends { .. }) | None => {}
        }
        self.set_attended_timer(id);
    }

    fn set_attended_timer(&mut self, id: CallId) {
        let attended = self.calls.get(&id).and_then(|call| call.attended.as_ref());
        let at = match attended {
            Some(Attended::Menu(_, menu)) => menu.poll_timeout(),
            Some(Attended::Pin(entry)) => entry.poll_timeout(),
            Some(Attended::Enters { until } | Attended::Ends { until, .. }) => Some(*until),
            Some(Attended::Message(_)) | None => None,
        };
        self.timers.set(&Timer::Attended(id), at);
    }

    fn act_for_menu(&mut self, now: Instant, id: CallId, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Play(names) => {
                    let Some((rows, call)) = self.rows_of(id).zip(self.calls.get(&id)) else {
                        return;
                    };
                    let account = call.account;
                    let last = names.len().saturating_sub(1);
                    let parts = names.iter().enumerate().map(|(at, name)| {
                        // What comes before the prompt tells that a key was wrong.
                        let or = if at == last {
                            Sign::Prompt
                        } else {
                            Sign::Wrong
                        };
                        prompt(account, &rows, name, or)
                    });
                    self.say(now, id, parts.collect());
                }
                Action::Hush => self.hush_caller(id),
                Action::Go(to) => {
                    self.leave_alone(id);
                    let wall = self.wall(now);
                    self.go_on(now, wall, id, |rows, facts, way| way.lead(rows, facts, &to));
                }
            }
        }
        self.set_attended_timer(id);
    }

    fn act_for_pin(&mut self, now: Instant, id: CallId, actions: Vec<PinAction>) {
        for action in actions {
            match action {
                PinAction::Ask => self.say_words(now, id, &[(PIN, Sign::Pin)]),
                PinAction::Again => {
                    self.note_wrong_pin(now, id);
                    self.say_words(now, id, &[(PIN_WRONG, Sign::Wrong), (PIN, Sign::Pin)]);
                }
                PinAction::Hush => self.hush_caller(id),
                PinAction::Enter(name) if self.may_enter(now, id) => self.enter(now, id, &name),
                // Whether it was right is told nobody while too many were wrong.
                PinAction::Enter(_) | PinAction::GiveUp => {
                    self.note_wrong_pin(now, id);
                    self.attend(id, Attended::ends(now, StatusCode::FORBIDDEN));
                    self.say_words(now, id, &[(GOODBYE, Sign::Done)]);
                }
            }
        }
        self.set_attended_timer(id);
    }

    fn may_enter(&self, now: Instant, id: CallId) -> bool {
        let call = self.calls.get(&id);
        call.is_some_and(|call| self.guesses.may_enter(now, call.account))
    }

    fn note_wrong_pin(&mut self, now: Instant, id: CallId) {
        self.figures.pins_wrong += 1;
        if let Some(call) = self.calls.get(&id) {
            self.guesses.wrong(now, call.account);
        }
    }

    /// The caller has shown the PIN of a Room: signaling takes them in.
    fn enter(&mut self, now: Instant, id: CallId, name: &RowName) {
        let Some(rows) = self.rows_of(id) else {
            return;
        };
        let Some(Pin {
            room,
            role,
            lobby,
            may_begin,
            ..
        }) = rows.pins.get(name).cloned()
        else {
            return self.end_with_words(now, id, StatusCode::TEMPORARILY_UNAVAILABLE);
        };
        let until = now + ENTER_MAX;
        self.attend(id, Attended::Enters { until });
        self.say_words(now, id, &[(ENTERED, Sign::Prompt)]);
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.told = true;
        let who = call.ring.as_ref();
        let enter = Enter {
            room,
            role,
            lobby,
            may_begin,
            from: who.and_then(|who| who.from.clone()),
            name: who.and_then(|who| who.name.clone()),
            to: who.and_then(|who| who.to.clone()),
        };
        let account = call.account;
        self.figures.entered += 1;
        self.outputs.push_back(Output::Tell(PhoneEvent {
            account,
            call: id,
            kind: PhoneEventKind::Enter(Box::new(enter)),
        }));
    }

    fn hush_caller(&mut self, id: CallId) {
        if let Some(leg) = self.caller_leg(id) {
            self.let_hear(leg, To::Nobody);
        }
    }

    /// The phone that waits: the one that called, or was transferred here.
    pub(super) fn caller_leg(&self, id: CallId) -> Option<LegId> {
        let call = self.calls.get(&id)?;
        match call.sides.get(&call.call.holder())? {
            Side::Sip(leg) => Some(*leg),
            Side::User(_) => None,
        }
    }

    /// The telephony of the Account of a call.
    pub(super) fn rows_of(
        &self,
        id: CallId,
    ) -> Option<std::sync::Arc<model::phone::rows::Telephony>> {
        self.rows.get(&self.calls.get(&id)?.account).cloned()
    }
}
