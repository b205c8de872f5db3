//! People and what stands on their desks; where help is called, and how numbers are dialled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Found;
use super::limits::{CallLimits, Destinations};
use super::routing::{Destination, RING_SECONDS};
use super::text::{CountryCode, E164, Label, RowName, Secret, ShortNumber, Unfit};
use super::trunk::{Codec, Srtp, check_codecs, check_networks};
use crate::id::UserId;
use crate::network::Network;

/// The most addresses a desk phone registers from at once.
const CONTACTS_MAX: u16 = 16;

/// How a User wants to be called, and may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserSettings {
    /// Nothing rings: calls go where `forward.busy` says.
    pub do_not_disturb: bool,
    /// Whether a second call rings while there is one; else it goes where `forward.busy` says.
    pub call_waiting: bool,
    /// How long Devices ring, in seconds.
    pub ring_seconds: u16,
    /// Where calls go that don't reach the User.
    pub forward: Forwarding,
    /// Whether calls that reach nobody may leave a message, where `forward` says nothing else.
    pub voicemail: bool,
    /// What callers hear before they leave a message; built-in words where not told.
    pub greeting: Option<RowName>,
    /// The number others see, one of the Account's; that of the Trunk where not told.
    pub number: Option<E164>,
    /// Whether the number is withheld from those who are called.
    pub withhold_number: bool,
    /// How much the User may call.
    #[serde(deserialize_with = "CallLimits::of_user")]
    pub limits: CallLimits,
    /// Where the User may call, within what the Trunks allow; all of that where not told.
    pub destinations: Option<Destinations>,
}

/// What holds for those nobody has said anything about.
impl Default for UserSettings {
    fn default() -> Self {
        Self {
            do_not_disturb: false,
            call_waiting: true,
            ring_seconds: 30,
            forward: Forwarding::default(),
            voicemail: true,
            greeting: None,
            number: None,
            withhold_number: false,
            limits: CallLimits::OF_USER,
            destinations: None,
        }
    }
}

/// Where calls go that don't reach a User.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forwarding {
    /// All calls, without ringing.
    pub always: Option<Destination>,
    /// Those that come while the User is in one, or wants not to be disturbed.
    pub busy: Option<Destination>,
    /// Those nobody answers in `ring_seconds`.
    pub no_answer: Option<Destination>,
    /// Those that come while no Device and no desk phone is there.
    pub offline: Option<Destination>,
}

impl UserSettings {
    pub(super) fn check(&self, user: &UserId, found: &mut Found<'_>) {
        if user.is_of_phone() {
            found.wrong_here(format!("`{user}` is no User but the address of a phone"));
        }
        found.in_range("ring_seconds", self.ring_seconds, RING_SECONDS);
        let forward = &self.forward;
        for (field, destination) in [
            ("always", &forward.always),
            ("busy", &forward.busy),
            ("no_answer", &forward.no_answer),
            ("offline", &forward.offline),
        ] {
            found.within("forward", |found| {
                found.leads_to(field, destination.as_ref());
                if matches!(destination, Some(Destination::User(other)) if other == user) {
                    found.wrong(field, "leads back to this User");
                }
            });
        }
        found.refers_to_prompt("greeting", self.greeting.as_ref());
        found.refers_to_number("number", self.number.as_ref());
        if let Some((field, why)) = self.limits.wrong() {
            found.within("limits", |found| found.wrong(field, why));
        }
        if let Some((field, why)) = self.destinations.as_ref().and_then(Destinations::wrong) {
            found.within("destinations", |found| found.wrong(field, why));
        }
    }
}

/// A desk phone: a SIP user agent that registers with us and is a Device of its User. Of all Accounts one alone has its SIP user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phone {
    /// Whose it is.
    pub user: UserId,
    /// For people.
    #[serde(default)]
    pub label: Option<Label>,
    /// Where it may register from; from everywhere where there is none.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// From how many addresses it may be registered at once; another one takes the place of the oldest.
    #[serde(default = "Phone::contacts_usual")]
    pub contacts_max: u16,
    /// Whether its media is encrypted.
    #[serde(default)]
    pub srtp: Srtp,
    /// What is offered and taken, most wanted first.
    #[serde(default = "Phone::codecs_usual")]
    pub codecs: Vec<Codec>,
    /// What proves that it is this phone. Kept apart from the row.
    #[serde(skip)]
    pub ha1: Option<Ha1s>,
}

/// HA1 of `user:realm:password` for [`DIGEST_REALM`](super::DIGEST_REALM), in hexadecimal (RFC 7616 §3.4.2, RFC 8760).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ha1s {
    /// By MD5: 32 digits.
    pub md5: Secret,
    /// By SHA-256, 64 digits; a phone for which only an MD5 was brought along has none.
    pub sha256: Option<Secret>,
}

impl Ha1s {
    /// Keeps both. Fails, without showing them, where one is no hash in hexadecimal.
    pub fn new(md5: &str, sha256: Option<&str>) -> Result<Self, Unfit> {
        Ok(Self {
            md5: hash(md5, 32)?,
            sha256: sha256.map(|text| hash(text, 64)).transpose()?,
        })
    }
}

fn hash(text: &str, digits: usize) -> Result<Secret, Unfit> {
    let lower = text.trim().to_ascii_lowercase();
    if lower.len() == digits && lower.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Secret::new(&lower)
    } else {
        Err(Unfit::new(format!(
            "this is no hash of {digits} hexadecimal digits"
        )))
    }
}

impl Phone {
    fn contacts_usual() -> u16 {
        4
    }

    fn codecs_usual() -> Vec<Codec> {
        Codec::USUAL.to_vec()
    }

    pub(super) fn check(&self, found: &mut Found<'_>) {
        found.is_person("user", &self.user);
        found.in_range("contacts_max", self.contacts_max, 1..=CONTACTS_MAX);
        check_networks(&self.networks, found);
        check_codecs(&self.codecs, found);
        if self.ha1.is_none() {
            found.wrong("password", "a phone needs one: name its file by `password_file`, or the variable that holds it by `password_env`, or bring its hash as `ha1_file`");
        }
    }
}

/// Where calls for help go. Where an Account has none of this, every one of them is refused with spoken words, and the server warns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Emergency {
    /// By the number that is dialled.
    pub routes: BTreeMap<ShortNumber, EmergencyRoute>,
    /// Numbers that are refused with spoken words, and knowingly so.
    pub refused: Vec<ShortNumber>,
    /// Those words; built-in ones where not told.
    pub refusal: Option<RowName>,
}

/// How a call for help goes out. Neither limits nor destinations hold for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmergencyRoute {
    /// The Trunks to try, in their order.
    pub trunks: Vec<RowName>,
    /// What is dialled there, where it is another number.
    #[serde(default)]
    pub dial: Option<String>,
    /// The number that is shown, which tells where help is needed; the Trunk's where not told.
    #[serde(default)]
    pub number: Option<E164>,
}

impl Emergency {
    /// Whether anybody has decided what becomes of calls for help.
    pub fn is_set(&self) -> bool {
        !self.routes.is_empty() || !self.refused.is_empty()
    }

    /// Whether `number` means help: in much of the world, or by this table.
    pub fn covers(&self, number: &ShortNumber) -> bool {
        number.is_emergency() || self.routes.contains_key(number) || self.refused.contains(number)
    }

    pub(super) fn check(&self, found: &mut Found<'_>) {
        for (number, route) in &self.routes {
            found.within("routes", |found| {
                found.within(number.as_str(), |found| {
                    if route.trunks.is_empty() {
                        found.wrong("trunks", "one at least is needed");
                    }
                    for trunk in &route.trunks {
                        found.refers_to_trunk("trunks", Some(trunk));
                    }
                    let is_dialled = |text: &String| {
                        (1..=32).contains(&text.len())
                            && text
                                .trim_start_matches('+')
                                .bytes()
                                .all(|byte| byte.is_ascii_digit())
                    };
                    if let Some(dial) = route.dial.as_ref().filter(|dial| !is_dialled(dial)) {
                        found.wrong(
                            "dial",
                            format!("`{}` is not 1 to 32 digits", dial.escape_debug()),
                        );
                    }
                });
            });
            if self.refused.contains(number) {
                found.wrong("refused", format!("`{number}` has a route, too"));
            }
        }
        found.refers_to_prompt("refusal", self.refusal.as_ref());
    }
}

/// How people dial, where the number has no country code; and how Trunks write numbers to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialling {
    /// The country that numbers without a code are in.
    pub country: CountryCode,
    /// What comes before a number within the country, such as `0`; nothing in some.
    #[serde(default = "Dialling::national_usual")]
    pub national_prefix: String,
    /// What comes before a country code, such as `00` or `011`.
    #[serde(default = "Dialling::international_usual")]
    pub international_prefix: String,
}

impl Dialling {
    fn national_usual() -> String {
        "0".to_owned()
    }

    fn international_usual() -> String {
        "00".to_owned()
    }

    /// The number of the world that `dialled` means; `None` where it means none. Separators are left out.
    ///
    /// `+4930123456` stays as it is; with country 49 and the usual prefixes `004930123456` and `030123456` mean the same.
    pub fn number(&self, dialled: &str) -> Option<E164> {
        let bare: String = dialled.chars().filter(|c| !" ./-()".contains(*c)).collect();
        let country = &self.country;
        if bare.starts_with('+') {
            return bare.parse().ok();
        }
        // The longer prefix first: `00` begins with `0`.
        if let Some(rest) = strip(&bare, &self.international_prefix) {
            return format!("+{rest}").parse().ok();
        }
        if self.national_prefix.is_empty() {
            return format!("+{country}{bare}").parse().ok();
        }
        let rest = strip(&bare, &self.national_prefix)?;
        format!("+{country}{rest}").parse().ok()
    }

    /// How `number` is dialled within the country; `None` for a number elsewhere.
    pub fn national(&self, number: &E164) -> Option<String> {
        let rest = number.digits().strip_prefix(self.country.as_str())?;
        Some(format!("{}{rest}", self.national_prefix))
    }

    pub(super) fn check(&self, found: &mut Found<'_>) {
        let is_prefix = |text: &str| text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
        for (field, prefix) in [
            ("national_prefix", &self.national_prefix),
            ("international_prefix", &self.international_prefix),
        ] {
            if !is_prefix(prefix) {
                found.wrong(
                    field,
                    format!("`{}` is not at most 5 digits", prefix.escape_debug()),
                );
            }
        }
        if self.international_prefix == self.national_prefix {
            found.wrong("international_prefix", "is the national one, too");
        }
    }
}

/// What follows a prefix that is one.
fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.strip_prefix(prefix).filter(|_| !prefix.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dialled_means_a_number_of_the_world() {
        let of = |country: &str, national: &str, international: &str| Dialling {
            country: country.parse().unwrap(),
            national_prefix: national.to_owned(),
            international_prefix: international.to_owned(),
        };
        let check = |dialling: &Dialling, dialled: &str, expected: Option<&str>| {
            let number = dialling.number(dialled).map(|number| number.to_string());
            assert_eq!(number.as_deref(), expected, "{dialled}");
        };
        let germany = of("49", "0", "00");
        check(&germany, "+49 30 123456", Some("+4930123456"));
        check(&germany, "0049 30 123456", Some("+4930123456"));
        check(&germany, "030 123456", Some("+4930123456"));
        check(&germany, "(030) 123-456", Some("+4930123456"));
        check(&germany, "0012125550100", Some("+12125550100"));
        check(&germany, "123456", None);
        check(&germany, "112", None);
        check(&germany, "", None);
        let denmark = of("45", "", "00");
        check(&denmark, "32123456", Some("+4532123456"));
        check(&denmark, "004930123456", Some("+4930123456"));
        let usa = of("1", "1", "011");
        check(&usa, "12125550100", Some("+12125550100"));
        check(&usa, "0114930123456", Some("+4930123456"));
        let number = "+4930123456".parse().unwrap();
        assert_eq!(germany.national(&number).as_deref(), Some("030123456"));
        assert_eq!(usa.national(&number), None);
    }

    #[test]
    fn help_is_known_by_the_table_and_by_the_world() {
        let emergency = Emergency {
            refused: vec!["117".parse().unwrap()],
            ..Emergency::default()
        };
        assert!(emergency.is_set() && !Emergency::default().is_set());
        for (number, expected) in [("112", true), ("117", true), ("118118", false)] {
            assert_eq!(
                emergency.covers(&number.parse().unwrap()),
                expected,
                "{number}"
            );
        }
    }

    #[test]
    fn a_hash_is_taken_by_its_length_and_never_shown() {
        assert!(Ha1s::new(&"a".repeat(32), Some(&"0".repeat(64))).is_ok());
        assert!(Ha1s::new(&"A".repeat(32), None).is_ok());
        for (md5, sha256) in [
            ("hush", None),
            (&*"g".repeat(32), None),
            (&*"a".repeat(32), Some("hush")),
        ] {
            let why = Ha1s::new(md5, sha256).unwrap_err().to_string();
            assert!(!why.contains("hush") && !why.contains("ggg"), "{why}");
        }
    }
}
