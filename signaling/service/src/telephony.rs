//! What a User has of their Account's telephony: mailboxes, and how they want to be called.
//!
//! Rows are read from the directory, which follows the records, and changed in the records alone: what a User changes comes back the
//! way that comes by which an operator's file does.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use backing::objects::{Objects, voicemail_key};
use backing::records::{Records, SecretKeys, TelephonyError};
use model::phone::rows::{
    Destination, E164, Extension, Forwarding, KeptCursor, Line, Mailbox, Telephony, UserSettings,
    Voicemail,
};
use model::record::VoicemailEntry;
use model::{AccountId, RecordChange, Timestamp, UserId, VoicemailId};
use signaling_core::Answer;
use signaling_wire::{ErrorCode, PhoneForward, PhoneForwards, PhoneSettings};
use tokio::sync::watch;

/// How often a change is tried again that somebody else's was faster than.
const TRIES: usize = 3;

/// The most messages that are sent over HTTP at once, each of up to 6 MB in memory for as long as its reader takes.
pub(crate) const VOICEMAILS_AT_ONCE_MAX: usize = 64;

/// What all Accounts have of telephony.
pub type Directory = Arc<BTreeMap<AccountId, Arc<Telephony>>>;

/// Where Users find their mailboxes and their settings.
#[derive(Clone)]
pub struct Telephones {
    /// What all Accounts have at the moment.
    pub directory: watch::Receiver<Directory>,
    /// For the secrets of rows that lie beside those that are changed.
    pub keys: SecretKeys,
    /// Where messages lie.
    pub objects: Objects,
}

/// Whose question it is.
type Whose<'a> = (AccountId, &'a UserId);

impl Telephones {
    fn of(&self, account: AccountId) -> Option<Arc<Telephony>> {
        self.directory.borrow().get(&account).cloned()
    }
}

/// The rows of an Account; nothing, where it has none or nobody knows.
fn rows(telephones: Option<&Telephones>, account: AccountId) -> Arc<Telephony> {
    telephones
        .and_then(|telephones| telephones.of(account))
        .unwrap_or_default()
}

/// A page of the messages in all mailboxes of a User.
pub(crate) async fn page(
    records: &Records,
    telephones: Option<&Telephones>,
    (account, user): Whose<'_>,
    before: Option<String>,
    limit: u16,
) -> anyhow::Result<Answer> {
    let before: Option<KeptCursor> = match before.map(|text| text.parse()).transpose() {
        Ok(before) => before,
        // Nothing comes after a place that does not exist.
        Err(_) => {
            return Ok(Answer::Voicemails {
                entries: Vec::new(),
                next: None,
                unheard: unheard(records, telephones, account, user).await?,
            });
        }
    };

    let (mut messages, mut is_last) = (Vec::new(), true);
    for mailbox in rows(telephones, account).mailboxes_of(user) {
        let page = records
            .voicemails(account, &mailbox, before, limit.into())
            .await?;
        is_last &= page.next.is_none();
        messages.extend(page.entries);
    }
    let place = |message: &Voicemail| (message.left_at, message.id);
    messages.sort_unstable_by_key(|message| std::cmp::Reverse(place(message)));
    is_last &= messages.len() <= usize::from(limit);
    messages.truncate(limit.into());
    let next = messages.last().filter(|_| !is_last).map(|last| KeptCursor {
        at: last.left_at,
        id: last.id.as_u128(),
    });
    Ok(Answer::Voicemails {
        entries: messages.iter().map(VoicemailEntry::from).collect(),
        next: next.map(|next| next.to_string()),
        unheard: unheard(records, telephones, account, user).await?,
    })
}

/// How many messages in the mailboxes of a User nobody has heard.
pub(crate) async fn unheard(
    records: &Records,
    telephones: Option<&Telephones>,
    account: AccountId,
    user: &UserId,
) -> anyhow::Result<u32> {
    let mut unheard = 0;
    for mailbox in rows(telephones, account).mailboxes_of(user) {
        unheard += records.voicemails_new(account, &mailbox).await?;
    }
    Ok(unheard)
}

/// A message in a mailbox of the User, and whose else it is.
pub(crate) async fn find(
    records: &Records,
    telephones: Option<&Telephones>,
    (account, user): Whose<'_>,
    id: VoicemailId,
) -> anyhow::Result<Option<(Voicemail, Vec<UserId>)>> {
    let Some(message) = records.voicemail(account, id).await? else {
        return Ok(None);
    };
    let rows = rows(telephones, account);
    let users = rows.users_of_mailbox(&message.mailbox);
    Ok(users.contains(user).then_some((message, users)))
}

/// Notes that a message was heard.
pub(crate) async fn hear(
    records: &Records,
    telephones: Option<&Telephones>,
    whose: Whose<'_>,
    id: VoicemailId,
    at: Timestamp,
) -> anyhow::Result<Answer> {
    let Some((message, users)) = find(records, telephones, whose, id).await? else {
        return Ok(unknown());
    };
    let account = whose.0;
    let change = RecordChange::VoicemailHeard { account, id, at };
    records.record(change).await?;
    let heard_at = message.heard_at.or(Some(at));
    let message = Voicemail {
        heard_at,
        ..message
    };
    Ok(Answer::Mailbox {
        users,
        entry: Box::new(VoicemailEntry::from(&message)),
    })
}

/// Deletes a message and what was said.
pub(crate) async fn delete(
    records: &Records,
    telephones: Option<&Telephones>,
    whose: Whose<'_>,
    id: VoicemailId,
) -> anyhow::Result<Answer> {
    let Some((message, users)) = find(records, telephones, whose, id).await? else {
        return Ok(unknown());
    };
    let account = whose.0;
    // What was said goes first: a row without it can be deleted again, an object without its row is never found.
    if let Some(telephones) = telephones {
        let key = voicemail_key(account, id, message.format);
        telephones.objects.delete(&key).await?;
    }
    records.delete_voicemail(account, id).await?;
    Ok(Answer::Mailbox {
        users,
        entry: Box::new(VoicemailEntry::from(&message)),
    })
}

fn unknown() -> Answer {
    Answer::Refused {
        code: ErrorCode::UnknownVoicemail,
        message: "no such message in a mailbox of the user".to_owned(),
    }
}

/// How a User wants to be called.
pub(crate) fn settings(
    telephones: Option<&Telephones>,
    account: AccountId,
    user: &UserId,
) -> Answer {
    let rows = rows(telephones, account);
    let settings = rows.users.get(user).cloned().unwrap_or_default();
    Answer::PhoneSettings(Box::new(told(&settings, user)))
}

/// Keeps how a User wants to be called.
pub(crate) async fn set(
    records: &Records,
    telephones: Option<&Telephones>,
    (account, user): Whose<'_>,
    wanted: PhoneSettings,
) -> anyhow::Result<Answer> {
    let keys = &telephones.context("no telephony is connected")?.keys;
    for _ in 0..TRIES {
        let stored = records.telephony(account, keys).await?;
        if let Some((of, why)) = stored.unreadable.first() {
            // To write the rows without them would be to lose them.
            bail!(
                "secrets of telephony can't be read, such as that of {} `{}`: {why}",
                of.kind,
                of.name
            );
        }
        let mut telephony = stored.telephony;
        let before = telephony.users.get(user).cloned().unwrap_or_default();
        let after = match changed(&before, &wanted, user, &telephony) {
            Ok(after) => after,
            Err(message) => return Ok(bad(message)),
        };
        let settings = told(&after, user);
        if after != before {
            telephony.users.insert(user.clone(), after);
        }
        if let Some(wrong) = telephony.check().first() {
            return Ok(bad(wrong.to_string()));
        }
        let replaced = records
            .replace_telephony(account, stored.version, &telephony, keys)
            .await;
        match replaced {
            Ok(_) => return Ok(Answer::PhoneSettings(Box::new(settings))),
            Err(TelephonyError::Changed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the rows of telephony change all the time")
}

fn bad(message: String) -> Answer {
    Answer::Refused {
        code: ErrorCode::BadData,
        message,
    }
}

/// The settings as their User is told them.
fn told(settings: &UserSettings, user: &UserId) -> PhoneSettings {
    let to = |destination: &Option<Destination>| {
        destination
            .as_ref()
            .map(|destination| forward(destination, user))
    };
    let forward = &settings.forward;
    PhoneSettings {
        do_not_disturb: settings.do_not_disturb,
        call_waiting: settings.call_waiting,
        ring_seconds: settings.ring_seconds,
        voicemail: settings.voicemail,
        forward: PhoneForwards {
            always: to(&forward.always),
            busy: to(&forward.busy),
            no_answer: to(&forward.no_answer),
            offline: to(&forward.offline),
        },
    }
}

/// The settings with what their User wants; what is not the User's to say stays. Fails with what is wrong, for people.
fn changed(
    before: &UserSettings,
    wanted: &PhoneSettings,
    user: &UserId,
    rows: &Telephony,
) -> Result<UserSettings, String> {
    let to = |wanted: &Option<PhoneForward>, before: &Option<Destination>| {
        wanted
            .as_ref()
            .map(|wanted| destination(wanted, before.as_ref(), user, rows))
            .transpose()
    };
    let (now, then) = (&wanted.forward, &before.forward);
    Ok(UserSettings {
        do_not_disturb: wanted.do_not_disturb,
        call_waiting: wanted.call_waiting,
        ring_seconds: wanted.ring_seconds,
        voicemail: wanted.voicemail,
        forward: Forwarding {
            always: to(&now.always, &then.always)?,
            busy: to(&now.busy, &then.busy)?,
            no_answer: to(&now.no_answer, &then.no_answer)?,
            offline: to(&now.offline, &then.offline)?,
        },
        ..before.clone()
    })
}

/// A destination as the User is told it whose forward it is.
fn forward(destination: &Destination, user: &UserId) -> PhoneForward {
    let other = match destination {
        Destination::Voicemail(Mailbox::User(whose)) if whose == user => {
            return PhoneForward::Voicemail;
        }
        Destination::User(other) => return PhoneForward::User(other.clone()),
        Destination::Forward(number) => return PhoneForward::Number(number.to_string()),
        Destination::Extension(extension) => return PhoneForward::Number(extension.to_string()),
        Destination::Voicemail(Mailbox::User(whose)) => format!("voicemail of {whose}"),
        Destination::Voicemail(Mailbox::Queue(name)) => format!("voicemail of the queue {name}"),
        Destination::Queue(name) => format!("the queue {name}"),
        Destination::Menu(name) => format!("the menu {name}"),
        Destination::Room(name) => format!("the room {name}"),
        Destination::Conference => "a room by its PIN".to_owned(),
        Destination::Announcement(name) => format!("the announcement {name}"),
        Destination::Busy => "a busy line".to_owned(),
        Destination::HangUp => "the end".to_owned(),
    };
    PhoneForward::Other(other)
}

/// What a User means by a forward. Fails with what is wrong, for people.
fn destination(
    wanted: &PhoneForward,
    before: Option<&Destination>,
    user: &UserId,
    rows: &Telephony,
) -> Result<Destination, String> {
    match wanted {
        PhoneForward::Voicemail => Ok(Destination::Voicemail(Mailbox::User(user.clone()))),
        PhoneForward::User(other) => Ok(Destination::User(other.clone())),
        PhoneForward::Number(number) => number_of(number, rows)
            .ok_or_else(|| format!("`{}` is no number", number.escape_debug())),
        PhoneForward::Other(_) => before
            .filter(|before| forward(before, user) == *wanted)
            .cloned()
            .ok_or_else(|| "only an administrator forwards calls there".to_owned()),
    }
}

/// Whom a number leads to: an extension that there is, or a number of the world, by the Account's way of dialling.
fn number_of(text: &str, rows: &Telephony) -> Option<Destination> {
    let dialled = text.strip_prefix("tel:").unwrap_or(text).trim();
    if let Ok(extension) = dialled.parse::<Extension>()
        && rows
            .numbers
            .contains_key(&Line::Extension(extension.clone()))
    {
        return Some(Destination::Extension(extension));
    }
    let number = match &rows.dialling {
        Some(dialling) => dialling.number(dialled),
        None => {
            let bare = dialled.chars().filter(|c| !" ./-()".contains(*c));
            bare.collect::<String>().parse::<E164>().ok()
        }
    };
    number.map(Destination::Forward)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Telephony {
        serde_json::from_value(serde_json::json!({
            "dialling": { "country": "49" },
            "queues": { "sales": { "members": ["alice", "bob"], "nobody_answers": "busy" } },
            "numbers": { "10": { "to": { "user": "bob" } } },
            "users": { "alice": { "ring_seconds": 25, "limits": { "calls": 3 }, "forward": { "no_answer": { "queue": "sales" } } } },
        }))
        .unwrap()
    }

    #[test]
    fn numbers_are_meant_as_they_are_dialled() {
        let check = |typed: &str, expected: Option<&str>| {
            let found = number_of(typed, &rows());
            let found = found.map(|found| serde_json::to_string(&found).unwrap());
            assert_eq!(found.as_deref(), expected, "{typed}");
        };
        check("10", Some(r#"{"extension":"10"}"#));
        check("030 12 34-56", Some(r#"{"forward":"+4930123456"}"#));
        check("tel:+43 1 5550000", Some(r#"{"forward":"+4315550000"}"#));
        check("11", None);
        check("", None);
        check("sip:alice@example.com", None);
    }

    #[test]
    fn what_is_not_the_users_to_say_stays() {
        let rows = rows();
        let alice: UserId = "alice".parse().unwrap();
        let before = &rows.users[&alice];
        let mut wanted = told(before, &alice);
        let queue = PhoneForward::Other("the queue sales".to_owned());
        assert_eq!(wanted.forward.no_answer, Some(queue.clone()));

        wanted.do_not_disturb = true;
        wanted.forward.busy = Some(PhoneForward::Voicemail);
        let after = changed(before, &wanted, &alice, &rows).unwrap();
        assert_eq!(told(&after, &alice), wanted);
        assert_eq!((after.limits, after.ring_seconds), (before.limits, 25));
        assert_eq!(after.forward.no_answer, before.forward.no_answer);

        wanted.forward.offline = Some(queue);
        assert!(changed(before, &wanted, &alice, &rows).is_err());
        wanted.forward.offline = Some(PhoneForward::Number("11".to_owned()));
        assert!(changed(before, &wanted, &alice, &rows).is_err());
    }
}
