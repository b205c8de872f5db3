//! What an Account has of telephony in the records: Trunks, Numbers, Queues, Menus and what else a call may meet.
//!
//! ```text
//! a file, or the API ─▶ Telephony ─▶ check() ─▶ records ─▶ gateway
//! ```
//!
//! A [`Telephony`] is all rows of one Account, by their names. Its values are right by themselves; [`Telephony::check`] says what is
//! wrong among them, so that a file, the API and the records take the same. Secrets stand in no row's own text: they are in fields that
//! are not serialized, and [`Telephony::secrets`] hands them to whoever encrypts them.

mod hours;
mod kept;
mod limits;
mod people;
mod routing;
mod text;
mod trunk;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::id::UserId;

pub use hours::{Holiday, Hours, Span, Weekday};
pub use kept::{
    KeptCursor, LegBy, LegDirection, LegRecord, LegSide, LegSound, PROMPT_BYTES_MAX,
    PROMPT_MILLIS_MAX, Prompt, REMOTE_LEN_MAX, SoundFormat, Voicemail, remote_text,
};
pub use limits::{CallLimits, Destinations, PREFIXES_MAX};
pub use people::{Dialling, Emergency, EmergencyRoute, Forwarding, Ha1s, Phone, UserSettings};
pub use routing::{
    CALLER_RULES_MAX, CallerPattern, CallerRoute, CallerRules, Destination, HOPS_MAX, Line,
    MEMBERS_MAX, Mailbox, Menu, MenuKey, Number, Pin, Queue, Strategy,
};
pub use text::{
    CountryCode, E164, EMERGENCY_NUMBERS, EXTENSION_LEN_MAX, Extension, HOST_LEN_MAX, Host,
    LABEL_LEN_MAX, Label, Prefix, ROW_NAME_LEN_MAX, RowName, SECRET_LEN_MAX, SIP_USER_LEN_MAX,
    Secret, Sha256Hex, ShortNumber, SipUser, Unfit, Zone,
};
pub use trunk::{
    CallerIdentity, Codec, Diversion, Dtmf, Inbound, NETWORKS_MAX, NumberFormat, Peering, Privacy,
    Quirk, Registration, Srtp, TARGETS_MAX, Target, Transport, Trunk,
};

/// The realm in which desk phones and Trunks of [`Peering::Inbound`] show their passwords to us: part of every HA1 that is kept.
pub const DIGEST_REALM: &str = "offhook";

/// All rows of one Account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telephony {
    /// Providers and PBXs.
    pub trunks: BTreeMap<RowName, Trunk>,
    /// Where calls come in.
    pub numbers: BTreeMap<Line, Number>,
    /// People who take calls together.
    pub queues: BTreeMap<RowName, Queue>,
    /// Choices by keys.
    pub menus: BTreeMap<RowName, Menu>,
    /// Rooms that phones join.
    pub pins: BTreeMap<RowName, Pin>,
    /// When something is open.
    pub hours: BTreeMap<RowName, Hours>,
    /// What Users want; those who aren't here have [`UserSettings::default`].
    pub users: BTreeMap<UserId, UserSettings>,
    /// Desk phones.
    pub phones: BTreeMap<SipUser, Phone>,
    /// Words and music.
    pub prompts: BTreeMap<RowName, Prompt>,
    /// Who may not call.
    pub callers: CallerRules,
    /// Where calls for help go.
    pub emergency: Emergency,
    /// How much all Trunks bear together.
    pub limits: AccountLimits,
    /// How numbers without a country code are meant; without it they mean nothing.
    pub dialling: Option<Dialling>,
}

/// The limits of an Account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AccountLimits(pub CallLimits);

impl Default for AccountLimits {
    fn default() -> Self {
        Self(CallLimits::OF_ACCOUNT)
    }
}

impl<'de> Deserialize<'de> for AccountLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CallLimits::told(deserializer, CallLimits::OF_ACCOUNT).map(Self)
    }
}

/// The kinds of rows, in the order of a file: what others refer to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Telephony::dialling`].
    Dialling,
    /// [`Telephony::limits`].
    Limits,
    /// [`Telephony::emergency`].
    Emergency,
    /// [`Telephony::callers`].
    Callers,
    /// [`Telephony::prompts`].
    Prompts,
    /// [`Telephony::hours`].
    Hours,
    /// [`Telephony::trunks`].
    Trunks,
    /// [`Telephony::queues`].
    Queues,
    /// [`Telephony::menus`].
    Menus,
    /// [`Telephony::pins`].
    Pins,
    /// [`Telephony::users`].
    Users,
    /// [`Telephony::phones`].
    Phones,
    /// [`Telephony::numbers`].
    Numbers,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Dialling,
        Self::Limits,
        Self::Emergency,
        Self::Callers,
        Self::Prompts,
        Self::Hours,
        Self::Trunks,
        Self::Queues,
        Self::Menus,
        Self::Pins,
        Self::Users,
        Self::Phones,
        Self::Numbers,
    ];

    /// The name of the section in a file, in JSON and in the records.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Dialling => "dialling",
            Self::Limits => "limits",
            Self::Emergency => "emergency",
            Self::Callers => "callers",
            Self::Prompts => "prompts",
            Self::Hours => "hours",
            Self::Trunks => "trunks",
            Self::Queues => "queues",
            Self::Menus => "menus",
            Self::Pins => "pins",
            Self::Users => "users",
            Self::Phones => "phones",
            Self::Numbers => "numbers",
        }
    }

    /// The kind with this section.
    pub fn of_section(section: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.section() == section)
    }

    /// Whether an Account has one of it, without a name.
    pub const fn is_single(self) -> bool {
        matches!(
            self,
            Self::Dialling | Self::Limits | Self::Emergency | Self::Callers
        )
    }

    /// How many rows of it an Account may have.
    pub const fn rows_max(self) -> usize {
        match self {
            Self::Dialling | Self::Limits | Self::Emergency | Self::Callers => 1,
            Self::Trunks | Self::Hours => 100,
            Self::Prompts | Self::Queues | Self::Menus => 500,
            Self::Pins | Self::Users | Self::Phones | Self::Numbers => 10_000,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section())
    }
}

/// Whose secret it is: a row, and one of its fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretOf {
    /// The kind of the row.
    pub kind: Kind,
    /// The name of the row.
    pub name: String,
    /// The field.
    pub field: SecretField,
}

/// A field that holds a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretField {
    /// [`Trunk::password`].
    Password,
    /// [`Pin::pin`].
    Pin,
    /// [`Ha1s::md5`].
    Ha1Md5,
    /// [`Ha1s::sha256`].
    Ha1Sha256,
}

impl SecretField {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Password, Self::Pin, Self::Ha1Md5, Self::Ha1Sha256];

    /// The name, in the records and in what a difference shows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Pin => "pin",
            Self::Ha1Md5 => "ha1_md5",
            Self::Ha1Sha256 => "ha1_sha256",
        }
    }
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The section, the name of the row, and the fields down to the one that is wrong.
    pub at: Vec<String>,
    /// Why, and what it should be.
    pub why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at.join("."), self.why)
    }
}

impl Telephony {
    /// Everything that is wrong with the rows as a whole: what no single value can tell. Nothing, where they may be used.
    pub fn check(&self) -> Vec<Wrong> {
        let mut found = Found {
            telephony: self,
            at: Vec::new(),
            wrong: Vec::new(),
        };
        found.section(Kind::Trunks, &self.trunks, |_, row, found| row.check(found));
        found.section(Kind::Numbers, &self.numbers, |_, row, found| {
            row.check(found);
        });
        found.section(Kind::Queues, &self.queues, |name, row, found| {
            row.check(name.as_str(), found);
        });
        found.section(Kind::Menus, &self.menus, |name, row, found| {
            row.check(name.as_str(), found);
        });
        found.section(Kind::Pins, &self.pins, |_, row, found| row.check(found));
        found.section(Kind::Hours, &self.hours, |_, row, found| row.check(found));
        found.section(Kind::Users, &self.users, |user, row, found| {
            row.check(user, found);
        });
        found.section(Kind::Phones, &self.phones, |_, row, found| row.check(found));
        found.section(Kind::Prompts, &self.prompts, |_, row, found| {
            row.check(found);
        });
        found.within(Kind::Callers.section(), |found| {
            self.callers.check(found);
        });
        found.within(Kind::Emergency.section(), |found| {
            self.emergency.check(found);
        });
        if let Some((field, why)) = self.limits.0.wrong() {
            found.within(Kind::Limits.section(), |found| found.wrong(field, why));
        }
        if let Some(dialling) = &self.dialling {
            found.within(Kind::Dialling.section(), |found| {
                dialling.check(found);
            });
        }
        self.check_lines(&mut found);
        self.check_sip_users(&mut found);
        self.check_pins(&mut found);
        found.wrong
    }

    /// No extension hides a number for help, also where only this Account's table knows it as one.
    fn check_lines(&self, found: &mut Found<'_>) {
        for line in self.numbers.keys() {
            if let Line::Extension(extension) = line
                && let Ok(short) = extension.as_str().parse::<ShortNumber>()
                && self.emergency.covers(&short)
            {
                found.within(Kind::Numbers.section(), |found| {
                    found.wrong(
                        extension.as_str(),
                        "is an emergency number of `emergency`: no extension may hide it",
                    );
                });
            }
        }
    }

    /// Whoever shows a password is one phone or one Trunk.
    fn check_sip_users(&self, found: &mut Found<'_>) {
        let mut trunks: BTreeMap<&SipUser, &RowName> = BTreeMap::new();
        for (name, trunk) in &self.trunks {
            let Peering::Inbound(Inbound { user }) = &trunk.peering else {
                continue;
            };
            let taken = match trunks.insert(user, name) {
                Some(other) => Some(format!("`{user}` is the user of `{other}`, too")),
                None => self
                    .phones
                    .contains_key(user)
                    .then(|| format!("`{user}` is a phone in `phones`, too")),
            };
            if let Some(why) = taken {
                let at = [
                    Kind::Trunks.section(),
                    name.as_str(),
                    "peering",
                    "inbound",
                    "user",
                ];
                found.wrong.push(Wrong {
                    at: at.map(str::to_owned).to_vec(),
                    why,
                });
            }
        }
    }

    /// A PIN leads to one Room.
    fn check_pins(&self, found: &mut Found<'_>) {
        let mut rows: Vec<_> = self
            .pins
            .iter()
            .filter_map(|(name, row)| Some((row.pin.as_ref()?.reveal(), name)))
            .collect();
        rows.sort_unstable();
        for pair in rows.windows(2) {
            if pair[0].0 == pair[1].0 {
                found.within(Kind::Pins.section(), |found| {
                    found.within(pair[1].1.as_str(), |found| {
                        found.wrong("pin", format!("`{}` has the same one", pair[0].1));
                    });
                });
            }
        }
    }

    /// The mailboxes a User hears and empties: their own, and those of the Queues they are a member of.
    pub fn mailboxes_of(&self, user: &UserId) -> Vec<Mailbox> {
        let queues = self.queues.iter();
        let queues = queues.filter(|(_, queue)| queue.members.contains(user));
        std::iter::once(Mailbox::User(user.clone()))
            .chain(queues.map(|(name, _)| Mailbox::Queue(name.clone())))
            .collect()
    }

    /// Whose mailbox it is: the other way round of [`Telephony::mailboxes_of`].
    pub fn users_of_mailbox(&self, mailbox: &Mailbox) -> Vec<UserId> {
        match mailbox {
            Mailbox::User(user) => vec![user.clone()],
            Mailbox::Queue(name) => {
                let queue = self.queues.get(name);
                queue.map_or_else(Vec::new, |queue| queue.members.clone())
            }
        }
    }

    /// Whether calls for help are left to chance: there is a Trunk, and nobody has said what becomes of them.
    pub fn lacks_emergency(&self) -> bool {
        !self.emergency.is_set() && self.trunks.values().any(|trunk| trunk.enabled)
    }

    /// All secrets.
    pub fn secrets(&self) -> BTreeMap<SecretOf, Secret> {
        let mut secrets = BTreeMap::new();
        let mut keep = |kind, name: &str, field, secret: Option<&Secret>| {
            if let Some(secret) = secret {
                let of = SecretOf {
                    kind,
                    name: name.to_owned(),
                    field,
                };
                secrets.insert(of, secret.clone());
            }
        };
        for (name, trunk) in &self.trunks {
            keep(
                Kind::Trunks,
                name.as_str(),
                SecretField::Password,
                trunk.password.as_ref(),
            );
        }
        for (name, pin) in &self.pins {
            keep(
                Kind::Pins,
                name.as_str(),
                SecretField::Pin,
                pin.pin.as_ref(),
            );
        }
        for (name, phone) in &self.phones {
            let ha1 = phone.ha1.as_ref();
            keep(
                Kind::Phones,
                name.as_str(),
                SecretField::Ha1Md5,
                ha1.map(|ha1| &ha1.md5),
            );
            keep(
                Kind::Phones,
                name.as_str(),
                SecretField::Ha1Sha256,
                ha1.and_then(|ha1| ha1.sha256.as_ref()),
            );
        }
        secrets
    }

    /// Puts secrets into the rows they are of; those of rows that aren't there, and hashes by SHA-256 without one by MD5, are left out.
    pub fn set_secrets(&mut self, mut secrets: BTreeMap<SecretOf, Secret>) {
        let mut take = |kind, name: &str, field| {
            secrets.remove(&SecretOf {
                kind,
                name: name.to_owned(),
                field,
            })
        };
        for (name, trunk) in &mut self.trunks {
            trunk.password = take(Kind::Trunks, name.as_str(), SecretField::Password);
        }
        for (name, pin) in &mut self.pins {
            pin.pin = take(Kind::Pins, name.as_str(), SecretField::Pin);
        }
        for (name, phone) in &mut self.phones {
            let sha256 = take(Kind::Phones, name.as_str(), SecretField::Ha1Sha256);
            phone.ha1 = take(Kind::Phones, name.as_str(), SecretField::Ha1Md5)
                .map(|md5| Ha1s { md5, sha256 });
        }
    }
}

/// What was found to be wrong so far, and where the search is.
struct Found<'a> {
    telephony: &'a Telephony,
    at: Vec<String>,
    wrong: Vec<Wrong>,
}

impl Found<'_> {
    /// Looks at all rows of a section.
    fn section<K: fmt::Display, V>(
        &mut self,
        kind: Kind,
        rows: &BTreeMap<K, V>,
        mut check: impl FnMut(&K, &V, &mut Self),
    ) {
        self.within(kind.section(), |found| {
            if rows.len() > kind.rows_max() {
                found.wrong_here(format!("{} are more than {}", rows.len(), kind.rows_max()));
            }
            for (name, row) in rows {
                found.within(&name.to_string(), |found| check(name, row, found));
            }
        });
    }

    fn within(&mut self, part: &str, look: impl FnOnce(&mut Self)) {
        self.at.push(part.to_owned());
        look(self);
        self.at.pop();
    }

    fn wrong(&mut self, field: &str, why: impl Into<String>) {
        let why = why.into();
        self.within(field, |found| found.wrong_here(why));
    }

    fn wrong_here(&mut self, why: String) {
        self.wrong.push(Wrong {
            at: self.at.clone(),
            why,
        });
    }

    fn in_range(&mut self, field: &str, value: u16, range: std::ops::RangeInclusive<u16>) {
        if !range.contains(&value) {
            self.wrong(
                field,
                format!("{value} is not {} to {}", range.start(), range.end()),
            );
        }
    }

    fn refers_to_trunk(&mut self, field: &str, name: Option<&RowName>) {
        let is_there = |name: &RowName| self.telephony.trunks.contains_key(name);
        self.refers_to(field, Kind::Trunks, name.filter(|name| !is_there(name)));
    }

    fn refers_to_hours(&mut self, field: &str, name: Option<&RowName>) {
        let is_there = |name: &RowName| self.telephony.hours.contains_key(name);
        self.refers_to(field, Kind::Hours, name.filter(|name| !is_there(name)));
    }

    fn refers_to_prompt(&mut self, field: &str, name: Option<&RowName>) {
        let is_there = |name: &RowName| self.telephony.prompts.contains_key(name);
        self.refers_to(field, Kind::Prompts, name.filter(|name| !is_there(name)));
    }

    fn refers_to_number(&mut self, field: &str, number: Option<&E164>) {
        let is_there = |number: &E164| {
            let line = Line::Number(number.clone());
            self.telephony.numbers.contains_key(&line)
        };
        if let Some(number) = number.filter(|number| !is_there(number)) {
            self.wrong(
                field,
                format!("`{number}` is no number of the Account: name it in `numbers`"),
            );
        }
    }

    /// A User is a person: what begins like the address of a phone is none.
    fn is_person(&mut self, field: &str, user: &UserId) {
        if user.is_of_phone() {
            self.wrong(
                field,
                format!(
                    "`{user}` is no User but the address of a phone: use `forward` with a number"
                ),
            );
        }
    }

    /// A destination that leads to a row which isn't there.
    fn leads_to(&mut self, field: &str, destination: Option<&Destination>) {
        if let Some(Destination::User(user) | Destination::Voicemail(Mailbox::User(user))) =
            destination
        {
            self.is_person(field, user);
        }
        let rows = self.telephony;
        let missing: Option<(Kind, &str)> = destination.and_then(|destination| match destination {
            Destination::Queue(name) | Destination::Voicemail(Mailbox::Queue(name)) => {
                (!rows.queues.contains_key(name)).then_some((Kind::Queues, name.as_str()))
            }
            Destination::Menu(name) => {
                (!rows.menus.contains_key(name)).then_some((Kind::Menus, name.as_str()))
            }
            Destination::Room(name) => {
                (!rows.pins.contains_key(name)).then_some((Kind::Pins, name.as_str()))
            }
            Destination::Announcement(name) => {
                (!rows.prompts.contains_key(name)).then_some((Kind::Prompts, name.as_str()))
            }
            Destination::Extension(extension) => {
                let line = Line::Extension(extension.clone());
                (!rows.numbers.contains_key(&line)).then_some((Kind::Numbers, extension.as_str()))
            }
            Destination::User(_)
            | Destination::Voicemail(Mailbox::User(_))
            | Destination::Conference
            | Destination::Forward(_)
            | Destination::Busy
            | Destination::HangUp => None,
        });
        if let Some((kind, name)) = missing {
            self.wrong(field, format!("there is no `{name}` in `{kind}`"));
        }
    }

    fn refers_to(&mut self, field: &str, kind: Kind, missing: Option<&RowName>) {
        if let Some(name) = missing {
            self.wrong(field, format!("there is no `{name}` in `{kind}`"));
        }
    }
}

#[cfg(test)]
mod tests;
