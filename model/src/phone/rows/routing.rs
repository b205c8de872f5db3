//! Whom a phone call reaches: Numbers, Queues, Menus, Rooms with a PIN, and who may not call at all.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Found;
use super::text::{E164, Extension, Label, Prefix, RowName, Secret, Unfit, shown};
use crate::id::UserId;
use crate::room::{Role, RoomName};

/// How often a call may be led on from one row to the next before it is ended: rows may point at one another.
pub const HOPS_MAX: usize = 16;

/// The most members of a Queue.
pub const MEMBERS_MAX: usize = 200;

/// The most rules about callers, of an Account or of a Number.
pub const CALLER_RULES_MAX: usize = 1_000;

/// How many digits a PIN has.
const PIN_DIGITS: std::ops::RangeInclusive<usize> = 4..=12;

/// How long somebody is rung, in seconds.
pub(super) const RING_SECONDS: std::ops::RangeInclusive<u16> = 5..=300;

/// Where a call comes in: a telephone number of the Account, or an extension in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Line {
    /// A number of the world.
    Number(E164),
    /// An extension, dialled by the Account's own people or in a Menu.
    Extension(Extension),
}

/// What a call is led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// All Devices and desk phones of a User, by the User's own settings.
    User(UserId),
    /// A Queue.
    Queue(RowName),
    /// A Menu.
    Menu(RowName),
    /// A Room, after its PIN; the name is that of a row of `pins`.
    Room(RowName),
    /// Whichever Room has the PIN that is asked for.
    Conference,
    /// A mailbox.
    Voicemail(Mailbox),
    /// A number outside, within the limits of the Account.
    Forward(E164),
    /// An extension.
    Extension(Extension),
    /// An announcement, and the end.
    Announcement(RowName),
    /// The end: the caller hears that the line is busy.
    Busy,
    /// The end.
    HangUp,
}

/// Whose messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mailbox {
    /// A User's own.
    User(UserId),
    /// A Queue's, for all its members.
    Queue(RowName),
}

/// A Number, or an extension, and where calls to it go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// For people.
    #[serde(default)]
    pub label: Option<Label>,
    /// Where calls go.
    pub to: Destination,
    /// By which Trunk calls come in and this number may be shown; by any of the Account where not told.
    #[serde(default)]
    pub trunk: Option<RowName>,
    /// Where calls of some callers go, the first rule that fits; before the hours are asked.
    #[serde(default)]
    pub callers: Vec<CallerRoute>,
    /// When it is open; always where not told.
    #[serde(default)]
    pub hours: Option<RowName>,
    /// Where calls go when it is closed.
    #[serde(default)]
    pub closed: Option<Destination>,
    /// Whether its calls are kept, after an announcement to both sides.
    #[serde(default)]
    pub record: bool,
}

/// Where calls of some callers go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerRoute {
    /// Who calls.
    pub from: CallerPattern,
    /// Where that goes.
    pub to: Destination,
}

/// Who calls: `+4930123456` alone, `+4930*` for all that begin so, `anonymous` for those who withhold their number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CallerPattern {
    /// One number.
    Number(E164),
    /// All numbers that begin so.
    Beginning(Prefix),
    /// Whoever withholds their number.
    Anonymous,
}

impl CallerPattern {
    /// Whether it is about this caller; `None` is one without a number.
    pub fn covers(&self, caller: Option<&E164>) -> bool {
        match (self, caller) {
            (Self::Number(number), Some(caller)) => number == caller,
            (Self::Beginning(prefix), Some(caller)) => prefix.covers(caller),
            (Self::Anonymous, None) => true,
            _ => false,
        }
    }
}

/// Who may not call, whichever Number they dial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallerRules {
    /// They hear that the line is busy, or what `blocked_hear` says.
    pub blocked: Vec<CallerPattern>,
    /// These may, though a rule of `blocked` is about them.
    pub allowed: Vec<CallerPattern>,
    /// The announcement they hear instead.
    pub blocked_hear: Option<RowName>,
}

impl CallerRules {
    /// Whether this caller may not call; `None` is one without a number.
    pub fn is_blocked(&self, caller: Option<&E164>) -> bool {
        let covers = |list: &[CallerPattern]| list.iter().any(|pattern| pattern.covers(caller));
        covers(&self.blocked) && !covers(&self.allowed)
    }

    pub(super) fn check(&self, found: &mut Found<'_>) {
        for (field, len) in [
            ("blocked", self.blocked.len()),
            ("allowed", self.allowed.len()),
        ] {
            if len > CALLER_RULES_MAX {
                found.wrong(
                    field,
                    format!("{len} rules are more than {CALLER_RULES_MAX}"),
                );
            }
        }
        found.refers_to_prompt("blocked_hear", self.blocked_hear.as_ref());
    }
}

impl Number {
    pub(super) fn check(&self, found: &mut Found<'_>) {
        found.leads_to("to", Some(&self.to));
        found.leads_to("closed", self.closed.as_ref());
        found.refers_to_trunk("trunk", self.trunk.as_ref());
        found.refers_to_hours("hours", self.hours.as_ref());
        if self.hours.is_some() != self.closed.is_some() {
            let (there, missing) = match self.hours {
                Some(_) => ("hours", "closed"),
                None => ("closed", "hours"),
            };
            found.wrong(there, format!("needs `{missing}` beside it"));
        }
        if self.callers.len() > CALLER_RULES_MAX {
            found.wrong(
                "callers",
                format!(
                    "{} rules are more than {CALLER_RULES_MAX}",
                    self.callers.len()
                ),
            );
        }
        for rule in &self.callers {
            found.leads_to("callers", Some(&rule.to));
        }
    }
}

/// People who take calls together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// For people.
    #[serde(default)]
    pub label: Option<Label>,
    /// Who takes calls, in their order.
    pub members: Vec<UserId>,
    /// Whom the next call rings.
    #[serde(default)]
    pub strategy: Strategy,
    /// How long one of them is rung before the next, in seconds; all together for [`Strategy::Everybody`].
    #[serde(default = "Queue::ring_seconds_usual")]
    pub ring_seconds: u16,
    /// How long a caller waits before `nobody_answers`, in seconds.
    #[serde(default = "Queue::wait_seconds_usual")]
    pub wait_seconds: u16,
    /// How many callers wait at once before the next is led to `nobody_answers` at once.
    #[serde(default = "Queue::waiting_max_usual")]
    pub waiting_max: u16,
    /// How long a member is left alone after a call, in seconds.
    #[serde(default)]
    pub rest_seconds: u16,
    /// Whether members who are away are rung, too; those who want not to be disturbed or have no Device never are.
    #[serde(default)]
    pub ring_away: bool,
    /// What callers hear first.
    #[serde(default)]
    pub greeting: Option<RowName>,
    /// What callers hear while they wait; a built-in tone where not told.
    #[serde(default)]
    pub music: Option<RowName>,
    /// How often callers hear at which place they are, in seconds; never where not told.
    #[serde(default)]
    pub position_seconds: Option<u16>,
    /// When nobody answers in time, or nobody is there.
    pub nobody_answers: Destination,
    /// Whether its calls are kept, after an announcement to both sides.
    #[serde(default)]
    pub record: bool,
}

/// Whom the next call of a Queue rings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Whoever has waited longest for a call, then the next.
    #[default]
    Evenly,
    /// The first member who is free, always from the top of the list.
    InOrder,
    /// All who are free at once.
    Everybody,
}

impl Queue {
    fn ring_seconds_usual() -> u16 {
        20
    }

    fn wait_seconds_usual() -> u16 {
        120
    }

    fn waiting_max_usual() -> u16 {
        20
    }

    pub(super) fn check(&self, name: &str, found: &mut Found<'_>) {
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort();
        members.dedup();
        if members.len() < self.members.len() {
            found.wrong("members", "somebody stands there twice");
        }
        if !(1..=MEMBERS_MAX).contains(&self.members.len()) {
            found.wrong(
                "members",
                format!("{} are not 1 to {MEMBERS_MAX}", self.members.len()),
            );
        }
        for member in &self.members {
            found.is_person("members", member);
        }
        found.in_range("ring_seconds", self.ring_seconds, RING_SECONDS);
        found.in_range("wait_seconds", self.wait_seconds, 5..=7_200);
        found.in_range("waiting_max", self.waiting_max, 1..=1_000);
        found.in_range("rest_seconds", self.rest_seconds, 0..=3_600);
        if let Some(seconds) = self.position_seconds {
            found.in_range("position_seconds", seconds, 10..=600);
        }
        found.refers_to_prompt("greeting", self.greeting.as_ref());
        found.refers_to_prompt("music", self.music.as_ref());
        found.leads_to("nobody_answers", Some(&self.nobody_answers));
        if matches!(&self.nobody_answers, Destination::Queue(other) if other.as_str() == name) {
            found.wrong(
                "nobody_answers",
                "leads back to this Queue: callers would wait for ever; let them wait longer by `wait_seconds`",
            );
        }
    }
}

/// A key a caller presses in a Menu: `0` to `9`, `*`, `#`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MenuKey(char);

impl MenuKey {
    /// The key.
    pub fn as_char(self) -> char {
        self.0
    }
}

/// A choice that callers make by keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Menu {
    /// For people.
    #[serde(default)]
    pub label: Option<Label>,
    /// What callers hear: which key means what. A key ends it.
    pub prompt: RowName,
    /// Where each key leads.
    #[serde(default)]
    pub choices: BTreeMap<MenuKey, Destination>,
    /// Whether callers may dial an extension. A key that begins one and is a choice, too, is the choice when no other follows
    /// within `key_seconds`.
    #[serde(default)]
    pub extensions: bool,
    /// How long a caller has for the first key after the prompt, in seconds.
    #[serde(default = "Menu::wait_seconds_usual")]
    pub wait_seconds: u16,
    /// How long a caller has for each key after the first, in seconds.
    #[serde(default = "Menu::key_seconds_usual")]
    pub key_seconds: u16,
    /// How often the prompt is heard before `otherwise`.
    #[serde(default = "Menu::times_usual")]
    pub times: u16,
    /// What callers hear who pressed a key that leads nowhere; the prompt alone where not told.
    #[serde(default)]
    pub wrong_key: Option<RowName>,
    /// Where callers go who pressed nothing that leads anywhere.
    pub otherwise: Destination,
}

impl Menu {
    fn wait_seconds_usual() -> u16 {
        5
    }

    fn key_seconds_usual() -> u16 {
        3
    }

    fn times_usual() -> u16 {
        3
    }

    pub(super) fn check(&self, name: &str, found: &mut Found<'_>) {
        found.refers_to_prompt("prompt", Some(&self.prompt));
        found.refers_to_prompt("wrong_key", self.wrong_key.as_ref());
        found.in_range("wait_seconds", self.wait_seconds, 1..=60);
        found.in_range("key_seconds", self.key_seconds, 1..=20);
        found.in_range("times", self.times, 1..=10);
        if self.choices.is_empty() && !self.extensions {
            found.wrong(
                "choices",
                "there is none, and no extension may be dialled: nobody could choose anything",
            );
        }
        for (key, destination) in &self.choices {
            found.within("choices", |found| {
                found.leads_to(&String::from(*key), Some(destination));
            });
        }
        found.leads_to("otherwise", Some(&self.otherwise));
        if matches!(&self.otherwise, Destination::Menu(other) if other.as_str() == name) {
            found.wrong(
                "otherwise",
                "leads back to this Menu: a caller without keys would hear it for ever; let them hear it more often by `times`",
            );
        }
    }
}

/// A Room that phones join by a PIN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The Room.
    pub room: RoomName,
    /// What those who come by phone may do there.
    #[serde(default = "Pin::role_usual")]
    pub role: Role,
    /// Whether they wait until somebody in the Room admits them, where the Room has a lobby.
    #[serde(default)]
    pub lobby: bool,
    /// Whether the first phone may begin the Room.
    #[serde(default)]
    pub may_begin: bool,
    /// The digits. Kept apart from the row.
    #[serde(skip)]
    pub pin: Option<Secret>,
}

impl Pin {
    fn role_usual() -> Role {
        Role::Speaker
    }

    pub(super) fn check(&self, found: &mut Found<'_>) {
        let is_pin = |pin: &Secret| {
            let pin = pin.reveal();
            PIN_DIGITS.contains(&pin.len()) && pin.bytes().all(|byte| byte.is_ascii_digit())
        };
        match &self.pin {
            None => found.wrong("pin", "it has none"),
            Some(pin) if !is_pin(pin) => found.wrong(
                "pin",
                format!(
                    "it is not {} to {} digits",
                    PIN_DIGITS.start(),
                    PIN_DIGITS.end()
                ),
            ),
            Some(_) => {}
        }
    }
}

/// The spelling of a type that is read from text and written as text.
macro_rules! spelt {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = Unfit;

            fn try_from(text: String) -> Result<Self, Unfit> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}

spelt!(Line, CallerPattern, MenuKey);

impl FromStr for Line {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        match text.trim_start().starts_with('+') {
            true => text.parse().map(Self::Number),
            false => text.parse().map(Self::Extension),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Extension(extension) => extension.fmt(f),
        }
    }
}

impl FromStr for CallerPattern {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        if text == "anonymous" {
            return Ok(Self::Anonymous);
        }
        let read = match text.strip_suffix('*') {
            Some(beginning) => beginning.parse().map(Self::Beginning),
            None => text.parse().map(Self::Number),
        };
        read.map_err(|_| {
            Unfit::new(format!(
                "{} is no caller: write a number such as +4930123456, a beginning such as +4930*, or anonymous",
                shown(text)
            ))
        })
    }
}

impl fmt::Display for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Beginning(prefix) => write!(f, "{prefix}*"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

impl FromStr for MenuKey {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        let mut keys = text.chars();
        match (keys.next(), keys.next()) {
            (Some(key @ ('0'..='9' | '*' | '#')), None) => Ok(Self(key)),
            _ => Err(Unfit::new(format!(
                "{} is no key of a Menu: write one of 0 to 9, * and #",
                shown(text)
            ))),
        }
    }
}

impl fmt::Display for MenuKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_callers_are_known_by_number_beginning_or_silence() {
        let rules = CallerRules {
            blocked: ["+49900*", "+12125550100", "anonymous"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            allowed: vec!["+49900123456".parse().unwrap()],
            blocked_hear: None,
        };
        let check = |caller: Option<&str>, expected: bool| {
            let number = caller.map(|caller| caller.parse().unwrap());
            assert_eq!(rules.is_blocked(number.as_ref()), expected, "{caller:?}");
        };
        check(Some("+49900555555"), true);
        check(Some("+49900123456"), false);
        check(Some("+12125550100"), true);
        check(Some("+12125550101"), false);
        check(None, true);
    }

    #[test]
    fn lines_callers_and_keys_have_one_spelling() {
        let rows = [
            ("+49 30 123456", Some("+4930123456")),
            ("101", Some("101")),
            ("10111", None),
            ("112", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let read = text.parse::<Line>().map(|line| line.to_string());
            assert_eq!(read.ok().as_deref(), expected, "{text}");
        }
        for text in ["+4930*", "+4930123456", "anonymous"] {
            assert_eq!(text.parse::<CallerPattern>().unwrap().to_string(), text);
        }
        for text in ["*", "49*", "nobody", ""] {
            assert!(text.parse::<CallerPattern>().is_err(), "{text}");
        }
        for (text, good) in [
            ("1", true),
            ("#", true),
            ("12", false),
            ("", false),
            ("A", false),
        ] {
            assert_eq!(text.parse::<MenuKey>().is_ok(), good, "{text}");
        }
    }
}
