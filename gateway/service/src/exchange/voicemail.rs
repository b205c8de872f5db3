//! Messages in mailboxes: a greeting, a tone, and what the caller says until they press `#`, fall silent or hang up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gateway_core::call;
use gateway_media::recorder::Tape;
use gateway_media::signs::Sign;
use model::phone::LeftVoicemail;
use model::phone::rows::{Mailbox, RowName, SoundFormat, Voicemail};
use model::{AccountId, CallId, VoicemailId};

use super::attending::{Attended, Happens};
use super::library::{Part, prompt, words};
use super::{Exchange, Output};
use crate::sound::LegId;

/// The longest message, in seconds.
pub(crate) const MESSAGE_SECONDS_MAX: u32 = 180;

/// After how much silence a message is over.
const SILENCE: Duration = Duration::from_secs(6);

/// How many messages a mailbox takes in a day: it is nobody's to fill the disk.
const MESSAGES_PER_DAY_MAX: u32 = 200;

/// The prompt of an Account for mailboxes without a greeting of their own.
const LEAVE_A_MESSAGE: &str = "say-voicemail";
/// What is said where a mailbox takes no more.
const FULL: &str = "say-voicemail-full";
/// What is said when a message is kept.
const KEPT: &str = "say-voicemail-kept";

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1_000;

/// A message that is being left.
#[derive(Debug)]
pub(super) struct Message {
    mailbox: Mailbox,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    /// The tone alone: the greeting was passed over.
    Tone,
    Speaks,
    Thanks,
}

/// Messages whose tapes have not come back, and how many mailboxes have taken.
#[derive(Debug, Default)]
pub(super) struct Messages {
    tapes: BTreeMap<LegId, Taped>,
    day: u64,
    of_day: BTreeMap<(AccountId, Mailbox), u32>,
}

/// What is known of a message while it is spoken.
#[derive(Debug)]
struct Taped {
    call: CallId,
    message: Voicemail,
    users: Vec<model::UserId>,
}

/// A message to be put into the object store and told of.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) left: LeftVoicemail,
    pub(crate) tape: Box<Tape>,
}

impl Messages {
    /// Whether a tape is to come back yet.
    pub(super) fn are_spoken(&self) -> bool {
        !self.tapes.is_empty()
    }
}

impl Exchange {
    /// The caller may leave a message.
    pub(super) fn begin_message(
        &mut self,
        now: Instant,
        id: CallId,
        mailbox: Mailbox,
        greeting: Option<&RowName>,
    ) {
        let Some((rows, account)) = self.rows_of(id).zip(self.account_of(id)) else {
            return;
        };
        self.take_up(id);
        if !self.takes_more(now, account, &mailbox) {
            self.figures.mailboxes_full += 1;
            let code = gateway_sip::StatusCode::TEMPORARILY_UNAVAILABLE;
            self.attend(id, Attended::ends(now, code));
            return self.say_words(now, id, &[(FULL, Sign::Unavailable)]);
        }
        let first = match greeting {
            Some(name) => prompt(account, &rows, name, Sign::Prompt),
            None => words(account, &rows, LEAVE_A_MESSAGE, Sign::Prompt),
        };
        let message = Message {
            mailbox,
            stage: Stage::Greeting,
        };
        self.attend(id, Attended::Message(Box::new(message)));
        self.say(now, id, vec![first, Part::Sign(Sign::Record)]);
    }

    pub(super) fn on_message(&mut self, now: Instant, id: CallId, happens: Happens) {
        let Some(leg) = self.caller_leg(id) else {
            return;
        };
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let Some(Attended::Message(message)) = &mut call.attended else {
            return;
        };
        match (message.stage, happens) {
            // Who knows the greeting passes it over.
            (Stage::Greeting, Happens::Key('#')) => {
                message.stage = Stage::Tone;
                self.say(now, id, vec![Part::Sign(Sign::Record)]);
            }
            (Stage::Greeting | Stage::Tone, Happens::Played) => {
                message.stage = Stage::Speaks;
                let mailbox = message.mailbox.clone();
                self.begin_tape(now, id, leg, mailbox);
            }
            (Stage::Speaks, Happens::Key('#')) => self.sound.stop_recording(leg),
            (Stage::Thanks, Happens::Played) => {
                self.leave_alone(id);
                self.tell_call(id, call::Event::HangUp);
            }
            _ => {}
        }
    }

    fn begin_tape(&mut self, now: Instant, call: CallId, leg: LegId, mailbox: Mailbox) {
        let Some((rows, account)) = self.rows_of(call).zip(self.account_of(call)) else {
            return;
        };
        let left_at = self.wall(now);
        let id = VoicemailId::from_parts(left_at, self.random().into());
        let who = self.calls.get(&call).and_then(|call| call.ring.as_ref());
        let from = who.and_then(|who| who.from.as_ref());
        let message = Voicemail {
            account,
            id,
            from: from.map(|from| from.user_id().to_string()),
            name: who.and_then(|who| who.name.clone()),
            mailbox,
            call: Some(call),
            left_at,
            millis: 0,
            format: SoundFormat::Wav,
            heard_at: None,
        };
        let users = rows.users_of_mailbox(&message.mailbox);
        let taped = Taped {
            call,
            message,
            users,
        };
        self.messages.tapes.insert(leg, taped);
        let tape = Tape::new(MESSAGE_SECONDS_MAX, SILENCE);
        self.sound.record(leg, Box::new(tape));
    }

    /// A tape came back: what is on it is kept, and the caller hears so if they are still there.
    pub(super) fn on_recorded(&mut self, now: Instant, leg: LegId, tape: Box<Tape>) {
        let Some(taped) = self.messages.tapes.remove(&leg) else {
            return;
        };
        let id = taped.call;
        let is_message = tape.message().is_some();
        if is_message {
            let samples = tape.message().map_or(0, <[i16]>::len) as u64;
            let millis = samples * 1_000 / u64::from(tape.rate());
            let mut message = taped.message;
            message.millis = u32::try_from(millis).unwrap_or(u32::MAX);
            let mailbox = (message.account, message.mailbox.clone());
            *self.messages.of_day.entry(mailbox).or_default() += 1;
            self.figures.messages += 1;
            let left = LeftVoicemail {
                message,
                users: taped.users,
            };
            self.outputs
                .push_back(Output::Keep(Box::new(Kept { left, tape })));
        }
        if let Some(call) = self.calls.get_mut(&id)
            && let Some(Attended::Message(message)) = &mut call.attended
        {
            message.stage = Stage::Thanks;
            match is_message {
                true => self.say_words(now, id, &[(KEPT, Sign::Done)]),
                false => self.say(now, id, vec![Part::Sign(Sign::Done)]),
            }
        }
    }

    fn takes_more(&mut self, now: Instant, account: AccountId, mailbox: &Mailbox) -> bool {
        let day = self.wall(now).as_millis() / DAY_MILLIS;
        if std::mem::replace(&mut self.messages.day, day) != day {
            self.messages.of_day.clear();
        }
        let taken = self.messages.of_day.get(&(account, mailbox.clone()));
        taken.copied().unwrap_or(0) < MESSAGES_PER_DAY_MAX
    }

    fn account_of(&self, id: CallId) -> Option<AccountId> {
        self.calls.get(&id).map(|call| call.account)
    }
}
