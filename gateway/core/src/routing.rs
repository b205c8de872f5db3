//! Whom a call that came in reaches: Numbers, hours, callers, Users and what they wish, as the rows of the Account say.
//!
//! ```text
//!                   Way::begin                             after_user: busy, no answer, offline
//! Line, caller ────────────────▶ Step: ring a User ──────────────────────────────┐
//!                                      a Queue, a Menu ── lead: its destination ─▶ Step …
//!                                      a PIN, a mailbox, a number outside, words, the end
//! ```
//!
//! Pure functions over rows and a few facts; at most [`HOPS_MAX`] rows are followed for one call, since rows may point at one another.

use gateway_sip::StatusCode;
use model::UserId;
use model::phone::rows::{
    Destination, E164, HOPS_MAX, Line, Mailbox, Number, RowName, Telephony, UserSettings,
};
use model::time::Timestamp;

/// What is so while a call is led on.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The time on the clocks of the world, for business hours.
    pub at: Timestamp,
    /// Whether a User is in a call.
    pub is_talking: &'a dyn Fn(&UserId) -> bool,
}

/// What happens to a call next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// All Devices and desk phones of a User ring; what comes of it goes to [`Way::after_user`].
    Ring {
        /// Whose.
        user: UserId,
        /// For how long.
        seconds: u16,
    },
    /// It waits in this Queue; when nobody takes it, its `nobody_answers` goes to [`Way::lead`].
    Queue(RowName),
    /// It hears this Menu; what is chosen goes to [`Way::lead`].
    Menu(RowName),
    /// It is asked for a PIN: that of this row, or any of the Account.
    Pin(Option<RowName>),
    /// It may leave a message.
    Voicemail {
        /// For whom.
        mailbox: Mailbox,
        /// What is heard before; built-in words where there is none.
        greeting: Option<RowName>,
    },
    /// It goes out again, within the limits of the Account ([`crate::outbound::plan`]).
    Forward(E164),
    /// It hears this, and ends.
    Announce(RowName),
    /// It ends.
    End(NoWay),
}

/// Why a call ends without having reached anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoWay {
    /// 404: nothing of the Account has this Number, or calls of this Trunk don't reach it.
    UnknownNumber,
    /// 486: the caller is blocked.
    Blocked,
    /// 486: the User is busy, declined, or does not want to be disturbed; or the row says so.
    Busy,
    /// 480: nobody answered.
    NoAnswer,
    /// 480: no Device or phone is there.
    Offline,
    /// 480: the row says that it ends here.
    HangUp,
    /// 480: a row leads to one that is not there.
    Broken,
    /// 482: rows lead in a circle, or too far.
    Circle,
}

impl NoWay {
    /// What the caller's side hears.
    #[must_use]
    pub fn code(self) -> StatusCode {
        match self {
            Self::UnknownNumber => StatusCode::NOT_FOUND,
            Self::Blocked | Self::Busy => StatusCode::BUSY_HERE,
            Self::NoAnswer | Self::Offline | Self::HangUp | Self::Broken => {
                StatusCode::TEMPORARILY_UNAVAILABLE
            }
            Self::Circle => StatusCode::LOOP_DETECTED,
        }
    }

    /// A word for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownNumber => "unknown_number",
            Self::Blocked => "blocked",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Offline => "offline",
            Self::HangUp => "hang_up",
            Self::Broken => "broken",
            Self::Circle => "circle",
        }
    }
}

/// What came of ringing a User.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unanswered {
    /// Declined, or busy and without call waiting.
    Busy,
    /// Nobody answered in time.
    NoAnswer,
    /// Nothing is there that could ring.
    Offline,
}

/// Why a call was diverted (RFC 5806 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Diverted {
    /// Always.
    Unconditional,
    /// The User was busy, or did not want to be disturbed.
    Busy,
    /// Nobody answered.
    NoAnswer,
    /// Nothing was there.
    Unavailable,
}

impl Diverted {
    /// The word of a Diversion header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unconditional => "unconditional",
            Self::Busy => "user-busy",
            Self::NoAnswer => "no-answer",
            Self::Unavailable => "unavailable",
        }
    }

    /// The status that a History-Info tells as its reason (RFC 7044 §9.3).
    #[must_use]
    pub fn code(self) -> StatusCode {
        match self {
            Self::Unconditional => StatusCode::MOVED_TEMPORARILY,
            Self::Busy => StatusCode::BUSY_HERE,
            Self::NoAnswer => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable => StatusCode::TEMPORARILY_UNAVAILABLE,
        }
    }
}

/// One call on its way through the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    caller: Option<E164>,
    hops: usize,
    /// The Number that was dialled, where it is one of the world.
    dialled: Option<E164>,
    /// Whether a row on the way wants the call to be kept.
    pub record: bool,
    /// The User who sent it on last, and why.
    pub diverted: Option<(UserId, Diverted)>,
}

impl Way {
    /// Begins with the line a call came in on, by a Trunk or from inside. `caller` is `None` where they withhold their number. What the
    /// Account says of callers comes first, then what the Number says of them, then its hours.
    #[must_use]
    pub fn begin(
        rows: &Telephony,
        facts: Facts<'_>,
        line: &Line,
        trunk: Option<&RowName>,
        caller: Option<&E164>,
    ) -> (Self, Step) {
        let mut way = Self {
            caller: caller.cloned(),
            hops: 0,
            dialled: match line {
                Line::Number(number) => Some(number.clone()),
                Line::Extension(_) => None,
            },
            record: false,
            diverted: None,
        };
        let number = rows.numbers.get(line).filter(|number| {
            let wanted = number.trunk.as_ref().zip(trunk);
            wanted.is_none_or(|(wanted, trunk)| wanted == trunk)
        });
        let Some(number) = number else {
            return (way, Step::End(NoWay::UnknownNumber));
        };
        // Those inside are no callers whom an Account blocks.
        if trunk.is_some() && rows.callers.is_blocked(caller) {
            let step = match &rows.callers.blocked_hear {
                Some(prompt) => Step::Announce(prompt.clone()),
                None => Step::End(NoWay::Blocked),
            };
            return (way, step);
        }
        let to = way.through(rows, facts, number);
        let step = match to {
            Some(to) => way.lead(rows, facts, to),
            None => Step::End(NoWay::Broken),
        };
        (way, step)
    }

    /// Follows `to` until somebody has to do something.
    #[must_use]
    pub fn lead(&mut self, rows: &Telephony, facts: Facts<'_>, to: &Destination) -> Step {
        let mut to = to;
        loop {
            self.hops += 1;
            if self.hops > HOPS_MAX {
                return Step::End(NoWay::Circle);
            }
            let next = match to {
                Destination::User(user) => match self.reach(rows, facts, user) {
                    Ok(step) => return step,
                    Err(next) => Some(next),
                },
                Destination::Extension(extension) => rows
                    .numbers
                    .get(&Line::Extension(extension.clone()))
                    .and_then(|number| self.through(rows, facts, number)),
                Destination::Queue(name) => {
                    return match rows.queues.get(name) {
                        Some(queue) => {
                            self.record |= queue.record;
                            Step::Queue(name.clone())
                        }
                        None => Step::End(NoWay::Broken),
                    };
                }
                Destination::Menu(name) => {
                    return there(rows.menus.contains_key(name), Step::Menu(name.clone()));
                }
                Destination::Room(name) => {
                    return there(rows.pins.contains_key(name), Step::Pin(Some(name.clone())));
                }
                Destination::Conference => return Step::Pin(None),
                Destination::Voicemail(mailbox) => return voicemail(rows, mailbox.clone()),
                Destination::Forward(number) => return Step::Forward(number.clone()),
                Destination::Announcement(prompt) => return Step::Announce(prompt.clone()),
                Destination::Busy => return Step::End(NoWay::Busy),
                Destination::HangUp => return Step::End(NoWay::HangUp),
            };
            match next {
                Some(next) => to = next,
                None => return Step::End(NoWay::Broken),
            }
        }
    }

    /// Goes on after a User was rung in vain: where they wish, else to their mailbox.
    #[must_use]
    pub fn after_user(
        &mut self,
        rows: &Telephony,
        facts: Facts<'_>,
        user: &UserId,
        outcome: Unanswered,
    ) -> Step {
        match self.divert(rows, user, outcome) {
            Ok(to) => self.lead(rows, facts, to),
            Err(step) => step,
        }
    }

    /// The number that stands for whoever diverted the call last, to be told to the side it goes to: that of the User, else the one that
    /// was dialled.
    #[must_use]
    pub fn diverted_by(&self, rows: &Telephony) -> Option<(E164, Diverted)> {
        let (user, why) = self.diverted.as_ref()?;
        let own = rows.users.get(user).and_then(|user| user.number.clone());
        Some((own.or(self.dialled.clone())?, *why))
    }

    /// Where a Number leads this caller now; `None` when its hours are not there.
    fn through<'a>(
        &mut self,
        rows: &'a Telephony,
        facts: Facts<'_>,
        number: &'a Number,
    ) -> Option<&'a Destination> {
        self.record |= number.record;
        let caller = self.caller.as_ref();
        let rule = number.callers.iter().find(|rule| rule.from.covers(caller));
        if let Some(rule) = rule {
            return Some(&rule.to);
        }
        let Some(hours) = &number.hours else {
            return Some(&number.to);
        };
        match rows.hours.get(hours)?.is_open(facts.at) {
            true => Some(&number.to),
            false => number.closed.as_ref(),
        }
    }

    /// A User is rung, or the call goes on where they wish.
    fn reach<'a>(
        &mut self,
        rows: &'a Telephony,
        facts: Facts<'_>,
        user: &UserId,
    ) -> Result<Step, &'a Destination> {
        let usual = UserSettings::default();
        let settings = rows.users.get(user);
        if let Some(to) = settings.and_then(|settings| settings.forward.always.as_ref()) {
            self.diverted = Some((user.clone(), Diverted::Unconditional));
            return Err(to);
        }
        let wishes = settings.unwrap_or(&usual);
        let is_busy = wishes.do_not_disturb || !wishes.call_waiting && (facts.is_talking)(user);
        if is_busy {
            return match self.divert(rows, user, Unanswered::Busy) {
                Ok(to) => Err(to),
                Err(step) => Ok(step),
            };
        }
        Ok(Step::Ring {
            user: user.clone(),
            seconds: wishes.ring_seconds,
        })
    }

    /// Where a User's calls go that don't reach them.
    fn divert<'a>(
        &mut self,
        rows: &'a Telephony,
        user: &UserId,
        outcome: Unanswered,
    ) -> Result<&'a Destination, Step> {
        let settings = rows.users.get(user);
        let forward = settings.map(|settings| &settings.forward);
        let (to, why, end) = match outcome {
            Unanswered::Busy => (
                forward.and_then(|forward| forward.busy.as_ref()),
                Diverted::Busy,
                NoWay::Busy,
            ),
            Unanswered::NoAnswer => (
                forward.and_then(|forward| forward.no_answer.as_ref()),
                Diverted::NoAnswer,
                NoWay::NoAnswer,
            ),
            Unanswered::Offline => (
                forward.and_then(|forward| forward.offline.as_ref()),
                Diverted::Unavailable,
                NoWay::Offline,
            ),
        };
        if let Some(to) = to {
            self.diverted = Some((user.clone(), why));
            return Ok(to);
        }
        let keeps = settings.map_or(UserSettings::default().voicemail, |user| user.voicemail);
        Err(if keeps {
            voicemail(rows, Mailbox::User(user.clone()))
        } else {
            Step::End(end)
        })
    }
}

fn voicemail(rows: &Telephony, mailbox: Mailbox) -> Step {
    let greeting = match &mailbox {
        Mailbox::User(user) => rows.users.get(user).and_then(|user| user.greeting.clone()),
        Mailbox::Queue(_) => None,
    };
    Step::Voicemail { mailbox, greeting }
}

fn there(is_there: bool, step: Step) -> Step {
    if is_there {
        step
    } else {
        Step::End(NoWay::Broken)
    }
}

#[cfg(test)]
mod tests;
