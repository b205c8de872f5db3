//! The words rows are made of: names, numbers, hosts. Each is a type that holds nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name of a row, in bytes.
pub const ROW_NAME_LEN_MAX: usize = 64;

/// The longest text for people, in characters.
pub const LABEL_LEN_MAX: usize = 64;

/// The longest secret, in bytes.
pub const SECRET_LEN_MAX: usize = 256;

/// The longest name of a host, in bytes (RFC 1035 §2.3.4).
pub const HOST_LEN_MAX: usize = 253;

/// The longest user part of a SIP address, in bytes.
pub const SIP_USER_LEN_MAX: usize = 64;

/// How many digits a number has with its country code: at most what E.164 §6.1 allows, at least what the smallest countries have.
const E164_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// How many digits an extension has at most.
pub const EXTENSION_LEN_MAX: usize = 4;

/// How many digits a short number of a country has, such as 112 or 116117.
const SHORT_NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 2..=6;

/// Numbers that mean help in much of the world. No extension is one of them, and none is dialled but by the emergency table. What
/// else means help where an Account is, its table says.
pub const EMERGENCY_NUMBERS: [&str; 7] = ["000", "110", "112", "118", "119", "911", "999"];

/// Why a value is not taken: shows it, and says what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

impl Unfit {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// A text type: `$read` checks a text and brings it into its one spelling.
macro_rules! text {
    ($($(#[doc = $doc:literal])* $name:ident by $read:path,)*) => {$(
        $(#[doc = $doc])*
        ///
        /// Cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Unfit;

            fn from_str(text: &str) -> Result<Self, Unfit> {
                $read(text).map(|text| Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Unfit;

            fn try_from(text: String) -> Result<Self, Unfit> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

text! {
    /// What an Account calls a row among those of its kind: 1 to [`ROW_NAME_LEN_MAX`] of `a-z`, `0-9`, `-` and `_`.
    RowName by read_row_name,
    /// A few words for people, at most [`LABEL_LEN_MAX`] characters without control characters.
    Label by read_label,
    /// A telephone number with its country code, such as `+4930123456`. Spaces, dots, slashes, hyphens and brackets in what is read are
    /// left out.
    E164 by read_e164,
    /// The beginning of telephone numbers, such as `+49` or `+1900`; `+` alone begins all.
    Prefix by read_prefix,
    /// What a phone in the Account is called by others in it: 1 to [`EXTENSION_LEN_MAX`] digits, and no emergency number.
    Extension by read_extension,
    /// A number that has no country code, such as `112` or `116117`.
    ShortNumber by read_short_number,
    /// The digits of a country code, such as `49`.
    CountryCode by read_country_code,
    /// A host: a name in lower case, or an address (an IPv6 one without brackets).
    Host by read_host,
    /// The user part of a SIP address, which is a user of digest authentication, too: 1 to [`SIP_USER_LEN_MAX`] of `a-z`, `A-Z`, `0-9`
    /// and `-_.+`.
    SipUser by read_sip_user,
    /// The time zone of a place, such as `Europe/Berlin`, in the spelling of IANA's database.
    Zone by read_zone,
    /// A SHA-256 in 64 hexadecimal digits: what an object is, and where it lies.
    Sha256Hex by read_sha256,
}

impl E164 {
    /// The digits without the `+`.
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }
}

impl Prefix {
    /// Whether `number` begins with it.
    pub fn covers(&self, number: &E164) -> bool {
        number.0.starts_with(&*self.0)
    }
}

impl ShortNumber {
    /// Whether it means help in much of the world.
    pub fn is_emergency(&self) -> bool {
        EMERGENCY_NUMBERS.contains(&self.as_str())
    }
}

impl Host {
    /// The host as it stands in a URI: an IPv6 address has brackets.
    pub fn in_uri(&self) -> String {
        match self.0.parse::<Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => self.0.as_ref().to_owned(),
        }
    }

    /// The address, where it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

impl Zone {
    /// The time zone.
    pub fn time_zone(&self) -> jiff::tz::TimeZone {
        // Every `Zone` was found there when it was read.
        jiff::tz::TimeZoneDatabase::bundled()
            .get(&self.0)
            .unwrap_or(jiff::tz::TimeZone::UTC)
    }
}

/// What others must not learn: a password, a PIN, a hash that stands for one. 1 to [`SECRET_LEN_MAX`] bytes without control
/// characters.
///
/// It shows in no log, is not serialized, and rows leave it out of theirs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps `text`. Fails, without showing it, when it is empty, too long or holds control characters.
    pub fn new(text: &str) -> Result<Self, Unfit> {
        if (1..=SECRET_LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
            Ok(Self(text.into()))
        } else {
            Err(Unfit::new(format!(
                "a secret has 1 to {SECRET_LEN_MAX} bytes and no control characters"
            )))
        }
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn read_row_name(text: &str) -> Result<String, Unfit> {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if (1..=ROW_NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err(Unfit::new(format!(
            "{} is no name: write 1 to {ROW_NAME_LEN_MAX} of a-z, 0-9, - and _",
            shown(text)
        )))
    }
}

fn read_label(text: &str) -> Result<String, Unfit> {
    let text = text.trim();
    if (1..=LABEL_LEN_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(Unfit::new(format!(
            "{} is no text of 1 to {LABEL_LEN_MAX} characters without control characters",
            shown(text)
        )))
    }
}

fn read_e164(text: &str) -> Result<String, Unfit> {
    let bare: String = text.chars().filter(|c| !" ./-()".contains(*c)).collect();
    let is_number = bare.strip_prefix('+').is_some_and(|digits| {
        E164_DIGITS.contains(&digits.len()) && !digits.starts_with('0') && is_digits(digits)
    });
    if is_number {
        Ok(bare)
    } else {
        Err(Unfit::new(format!(
            "{} is no number with its country code, such as +4930123456",
            shown(text)
        )))
    }
}

fn read_prefix(text: &str) -> Result<String, Unfit> {
    let is_prefix = text.strip_prefix('+').is_some_and(|digits| {
        digits.len() <= *E164_DIGITS.end() && !digits.starts_with('0') && is_digits(digits)
    });
    if is_prefix {
        Ok(text.to_owned())
    } else {
        Err(Unfit::new(format!(
            "{} is no beginning of numbers: write + and digits of the country code and what follows, such as +49",
            shown(text)
        )))
    }
}

fn read_extension(text: &str) -> Result<String, Unfit> {
    if !(1..=EXTENSION_LEN_MAX).contains(&text.len()) || !is_digits(text) {
        return Err(Unfit::new(format!(
            "{} is no extension of 1 to {EXTENSION_LEN_MAX} digits",
            shown(text)
        )));
    }
    if EMERGENCY_NUMBERS.contains(&text) {
        return Err(Unfit::new(format!(
            "`{text}` is an emergency number somewhere: no extension may hide it"
        )));
    }
    Ok(text.to_owned())
}

fn read_short_number(text: &str) -> Result<String, Unfit> {
    if SHORT_NUMBER_DIGITS.contains(&text.len()) && is_digits(text) {
        Ok(text.to_owned())
    } else {
        Err(Unfit::new(format!(
            "{} is no short number of {} to {} digits, such as 112",
            shown(text),
            SHORT_NUMBER_DIGITS.start(),
            SHORT_NUMBER_DIGITS.end()
        )))
    }
}

fn read_country_code(text: &str) -> Result<String, Unfit> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if (1..=3).contains(&digits.len()) && is_digits(digits) && !digits.starts_with('0') {
        Ok(digits.to_owned())
    } else {
        Err(Unfit::new(format!(
            "{} is no country code, such as 49",
            shown(text)
        )))
    }
}

fn read_host(text: &str) -> Result<String, Unfit> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let host = text.to_ascii_lowercase();
    let is_label = |label: &str| {
        let ends = !label.starts_with('-') && !label.ends_with('-');
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && ends && label.bytes().all(is_allowed)
    };
    // A name whose last part is a number would be read as an address by some.
    let ends_in_letters = !host.rsplit('.').next().is_some_and(is_digits);
    if host.len() <= HOST_LEN_MAX && host.split('.').all(is_label) && ends_in_letters {
        Ok(host)
    } else {
        Err(Unfit::new(format!(
            "{} is neither the name nor the address of a host",
            shown(text)
        )))
    }
}

fn read_sip_user(text: &str) -> Result<String, Unfit> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if (1..=SIP_USER_LEN_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err(Unfit::new(format!(
            "{} is no SIP user: write 1 to {SIP_USER_LEN_MAX} of a-z, A-Z, 0-9 and -_.+",
            shown(text)
        )))
    }
}

fn read_zone(text: &str) -> Result<String, Unfit> {
    let zones = jiff::tz::TimeZoneDatabase::bundled();
    let found = zones.get(text).ok();
    found
        .and_then(|zone| zone.iana_name().map(str::to_owned))
        .ok_or_else(|| {
            Unfit::new(format!(
                "{} is no time zone that is known, such as Europe/Berlin",
                shown(text)
            ))
        })
}

fn read_sha256(text: &str) -> Result<String, Unfit> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == 64 && text.bytes().all(is_hex) {
        Ok(text.to_owned())
    } else {
        Err(Unfit::new(format!(
            "{} is no SHA-256 of 64 hexadecimal digits in lower case",
            shown(text)
        )))
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A value in an error: its beginning, where it is long.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 80;

    if text.chars().count() <= SHOWN_MAX {
        format!("`{}`", text.escape_debug())
    } else {
        let beginning: String = text.chars().take(SHOWN_MAX).collect();
        format!("`{}…`", beginning.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = Unfit> + fmt::Display>(rows: &[(&str, Option<&str>)]) {
        for (text, expected) in rows {
            let read = text.parse::<T>().map(|value| value.to_string());
            assert_eq!(read.as_deref().ok(), *expected, "{text:?}: {read:?}");
        }
    }

    #[test]
    fn numbers_have_one_spelling() {
        check::<E164>(&[
            ("+4930123456", Some("+4930123456")),
            ("+49 (30) 123-456", Some("+4930123456")),
            ("+1 212.555.0100", Some("+12125550100")),
            ("030123456", None),
            ("+030123456", None),
            ("+49301", None),
            ("+1234567890123456", None),
            ("+49x30123456", None),
            ("", None),
            ("+", None),
        ]);
        check::<Prefix>(&[
            ("+", Some("+")),
            ("+49", Some("+49")),
            ("+0", None),
            ("49", None),
            ("+4a", None),
        ]);
        check::<CountryCode>(&[
            ("49", Some("49")),
            ("+1", Some("1")),
            ("0049", None),
            ("", None),
        ]);
    }

    #[test]
    fn an_extension_never_hides_a_number_for_help() {
        check::<Extension>(&[
            ("1", Some("1")),
            ("4711", Some("4711")),
            ("47110", None),
            ("", None),
            ("1a", None),
            ("112", None),
            ("911", None),
            ("110", None),
        ]);
        assert!("112".parse::<ShortNumber>().unwrap().is_emergency());
        assert!(!"116117".parse::<ShortNumber>().unwrap().is_emergency());
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        check::<Host>(&[
            ("SIP.Carrier.Example", Some("sip.carrier.example")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("2001:DB8::0:1", Some("2001:db8::1")),
            ("_sip._udp.example", Some("_sip._udp.example")),
            ("192.0.2", None),
            ("192.0.2.256", None),
            ("a..b", None),
            ("-a.example", None),
            ("a b", None),
            ("sip:a", None),
            ("", None),
        ]);
        assert_eq!(
            "2001:db8::1".parse::<Host>().unwrap().in_uri(),
            "[2001:db8::1]"
        );
    }

    #[test]
    fn a_zone_is_one_of_those_the_world_has() {
        check::<Zone>(&[
            ("Europe/Berlin", Some("Europe/Berlin")),
            ("europe/berlin", Some("Europe/Berlin")),
            ("UTC", Some("UTC")),
            ("Mars/Olympus", None),
            ("../../etc/passwd", None),
            ("", None),
        ]);
    }

    #[test]
    fn names_are_short_and_plain() {
        check::<RowName>(&[
            ("sales-2_b", Some("sales-2_b")),
            ("Sales", None),
            ("a.b", None),
            ("", None),
            (&"a".repeat(65), None),
        ]);
        check::<SipUser>(&[
            ("alice.desk", Some("alice.desk")),
            ("+4930123456", Some("+4930123456")),
            ("a@b", None),
            ("a\r\nb", None),
            ("", None),
        ]);
        check::<Label>(&[
            (" Front desk ", Some("Front desk")),
            ("a\nb", None),
            ("  ", None),
        ]);
    }

    #[test]
    fn a_secret_shows_nowhere() {
        let secret = Secret::new("hush").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
        for text in ["", "a\nb", &"x".repeat(SECRET_LEN_MAX + 1)] {
            let why = Secret::new(text).unwrap_err().to_string();
            assert!(
                text.is_empty() || !why.contains(text),
                "an error shows the secret: {why}"
            );
        }
    }
}
