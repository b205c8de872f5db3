//! Whom a phone call is for, or from: a number or an address of SIP, in one spelling.
//!
//! ```text
//! tel:+4930123456          a number of the world (E.164): + and 2 to 15 digits
//! tel:42   tel:*21#        a number of the Account: 1 to 24 of 0-9, *, #
//! sip:alice@example.com    an address; with a port, and with ;transport=udp|tcp|tls, if told
//! sips:alice@example.com   the same over TLS alone
//! ```

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{USER_ID_LEN_MAX, UserId};

/// The longest target, in bytes: it stands where the id of a User does.
pub const PHONE_TARGET_LEN_MAX: usize = USER_ID_LEN_MAX;
/// The most digits of a number of the world, with its country's (E.164 §6).
const GLOBAL_DIGITS_MAX: usize = 15;
/// The most digits of a number of an Account.
const LOCAL_DIGITS_MAX: usize = 24;
/// What separates digits for people (RFC 3966 §3, and the space, which everybody writes).
const SEPARATORS: [char; 5] = ['-', '.', '(', ')', ' '];
/// Who keeps their number to themselves (RFC 3323 §4.1.1.3).
const ANONYMOUS: &str = "sip:anonymous@anonymous.invalid";

/// Whom a phone call is for, or from. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhoneTarget(Arc<str>);

/// Why a text is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PhoneTargetError {
    /// Neither `tel:` nor `sip:` nor `sips:`.
    #[error("does not begin with tel:, sip: or sips:")]
    Scheme,
    /// Longer than [`PHONE_TARGET_LEN_MAX`] bytes.
    #[error("longer than {PHONE_TARGET_LEN_MAX} bytes")]
    TooLong,
    /// Not a number as it can be dialled.
    #[error(
        "not + and 2 to {GLOBAL_DIGITS_MAX} digits, nor 1 to {LOCAL_DIGITS_MAX} of 0-9, * and #"
    )]
    Number,
    /// Something after the number that would change who is called.
    #[error("a number with parameters: send an extension as keys, once it is answered")]
    Parameter,
    /// Not a user, a host, and perhaps a port and a transport.
    #[error(
        "not an address of the form sip:user@host, with a port and ;transport=udp, tcp or tls if need be"
    )]
    Address,
}

impl PhoneTarget {
    /// The target in its one spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number without the scheme, as it is dialled: `+4930123456`, `42`. `None` for an address.
    pub fn number(&self) -> Option<&str> {
        self.0.strip_prefix("tel:")
    }

    /// The number, if it is one of the world: with `+` and the country's digits.
    pub fn global_number(&self) -> Option<&str> {
        self.number().filter(|number| number.starts_with('+'))
    }

    /// The caller who keeps their number to themselves.
    pub fn anonymous() -> Self {
        Self(ANONYMOUS.into())
    }

    /// Whether it is [`PhoneTarget::anonymous`]: nobody can be called back there.
    pub fn is_anonymous(&self) -> bool {
        &*self.0 == ANONYMOUS
    }

    /// The target as a side of a Call, where it stands in the place of a User. No User has such an id.
    pub fn user_id(&self) -> UserId {
        UserId::of_phone(self)
    }

    /// The phone that stands in the place of a User, if it is one.
    pub fn of_user(user: &UserId) -> Option<Self> {
        is_of_phone(user.as_str())
            .then(|| user.as_str().parse().ok())
            .flatten()
    }
}

/// Whether an id would name a phone, well spelt or not. No User of an access token may have it.
pub(crate) fn is_of_phone(text: &str) -> bool {
    scheme_of(text).is_some()
}

/// The scheme of a text in lower case, and what follows it.
fn scheme_of(text: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    ["tel", "sip", "sips"]
        .into_iter()
        .find(|known| scheme.eq_ignore_ascii_case(known))
        .map(|known| (known, rest))
}

impl FromStr for PhoneTarget {
    type Err = PhoneTargetError;

    fn from_str(text: &str) -> Result<Self, PhoneTargetError> {
        let (scheme, rest) = scheme_of(text).ok_or(PhoneTargetError::Scheme)?;
        if text.len() > PHONE_TARGET_LEN_MAX {
            return Err(PhoneTargetError::TooLong);
        }

        let spelt = match scheme {
            "tel" => number(rest)?,
            _ => address(rest).ok_or(PhoneTargetError::Address)?,
        };
        Ok(Self(format!("{scheme}:{spelt}").into()))
    }
}

/// A number without what is there for the eye alone.
fn number(text: &str) -> Result<String, PhoneTargetError> {
    if text.contains(';') {
        return Err(PhoneTargetError::Parameter);
    }

    // A URI can't have `#` in it otherwise.
    let text = text.replace("%23", "#");
    let dialled: String = text
        .chars()
        .filter(|one| !SEPARATORS.contains(one))
        .collect();
    let fits = match dialled.strip_prefix('+') {
        Some(digits) => {
            (2..=GLOBAL_DIGITS_MAX).contains(&digits.len())
                && !digits.starts_with('0')
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        None => {
            let may_be = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'*' | b'#');
            (1..=LOCAL_DIGITS_MAX).contains(&dialled.len()) && dialled.bytes().all(may_be)
        }
    };
    fits.then_some(dialled).ok_or(PhoneTargetError::Number)
}

/// An address with its host in lower case (RFC 3261 §19.1.1). Passwords, headers and parameters other than `transport` are
/// refused: they would be left out, or would tell our gateway more than a caller should.
fn address(text: &str) -> Option<String> {
    let (address, parameters) = match text.split_once(';') {
        Some((address, parameters)) => (address, Some(parameters)),
        None => (text, None),
    };
    let (user, place) = address.split_once('@')?;
    if user.is_empty() || !is_user(user) {
        return None;
    }
    let place = place.to_ascii_lowercase();
    if !is_place(&place) {
        return None;
    }

    let transport = match parameters {
        None => String::new(),
        Some(parameters) => {
            let (name, value) = parameters.split_once('=')?;
            let known = ["udp", "tcp", "tls"];
            let value = known
                .into_iter()
                .find(|one| value.eq_ignore_ascii_case(one))?;
            if !name.eq_ignore_ascii_case("transport") {
                return None;
            }
            format!(";transport={value}")
        }
    };
    Some(format!("{user}@{place}{transport}"))
}

/// `user` of RFC 3261 §25.1, without `;`, `?`, `/` and what is escaped: nothing in it means anything to anybody but its host.
fn is_user(text: &str) -> bool {
    let is_mark = |byte: u8| b"-_.!~*'()&=+$,".contains(&byte);
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// `host [":" port]`, in lower case.
fn is_place(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((host, after)) = rest.split_once(']') else {
                return false;
            };
            if host.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if after.is_empty() => (None, None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };

    let is_port = |port: &str| {
        !port.starts_with('0')
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok()
    };
    host.is_none_or(is_host) && port.is_none_or(is_port)
}

/// A name of labels, or an IPv4 address.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // What ends in digits is an address or nothing (RFC 3696 §2).
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    text.split('.').all(is_label)
}

impl fmt::Display for PhoneTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Numbers stay out of the logs; whoever means to show one says so with `Display`.
impl fmt::Debug for PhoneTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, _) = scheme_of(&self.0).unwrap_or(("tel", ""));
        write!(f, "PhoneTarget({scheme}:…)")
    }
}

impl Serialize for PhoneTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PhoneTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PhoneTarget {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PhoneTarget".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 5, "maxLength": PHONE_TARGET_LEN_MAX, "pattern": "^(tel|sips?):",
            "description": "A phone: a number (tel:) or an address of SIP (sip:, sips:).",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_spelling() {
        let check = |text: &str, spelt: &str| {
            let target: PhoneTarget = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(target.as_str(), spelt);
            assert_eq!(spelt.parse().as_ref(), Ok(&target));
            assert_eq!(PhoneTarget::of_user(&target.user_id()), Some(target));
        };

        check("tel:+4930123456", "tel:+4930123456");
        check("TEL:+49 (30) 123-456", "tel:+4930123456");
        check("tel:+1.201.555.0123", "tel:+12015550123");
        check("tel:42", "tel:42");
        check("tel:030 123456", "tel:030123456");
        check("tel:*21*7%23", "tel:*21*7#");
        check("tel:112", "tel:112");
        check("sip:Alice@Example.COM", "sip:Alice@example.com");
        check("SIPS:a.b+c@pbx.example:5061", "sips:a.b+c@pbx.example:5061");
        check(
            "sip:42@192.0.2.1;transport=TCP",
            "sip:42@192.0.2.1;transport=tcp",
        );
        check("sip:42@[2001:DB8::1]:5060", "sip:42@[2001:db8::1]:5060");
        check(ANONYMOUS, ANONYMOUS);
    }

    #[test]
    fn what_is_no_target_says_why() {
        use PhoneTargetError::{Address, Number, Parameter, Scheme, TooLong};
        let check = |text: &str, why: PhoneTargetError| {
            assert_eq!(text.parse::<PhoneTarget>(), Err(why), "{text}");
        };

        check("", Scheme);
        check("alice", Scheme);
        check("+4930123456", Scheme);
        check("mailto:alice@example.com", Scheme);
        check(&format!("sip:{}@example.com", "a".repeat(128)), TooLong);
        check("tel:", Number);
        check("tel:+", Number);
        check("tel:+1", Number);
        check("tel:+0301234", Number);
        check("tel:+1234567890123456", Number);
        check("tel:+49*30", Number);
        check("tel:++4930", Number);
        check("tel:4930+", Number);
        check("tel:abc", Number);
        check("tel:12\r\n", Number);
        check("tel:١٢٣", Number);
        check(&format!("tel:{}", "1".repeat(25)), Number);
        check("tel:+4930123456;ext=12", Parameter);
        check("tel:863-1234;phone-context=+1-914-555", Parameter);
        check("sip:example.com", Address);
        check("sip:@example.com", Address);
        check("sip:alice@", Address);
        check("sip:alice:secret@example.com", Address);
        check("sip:alice@example.com?Subject=x", Address);
        check("sip:alice@example.com;lr", Address);
        check("sip:alice@example.com;maddr=192.0.2.1", Address);
        check("sip:alice@example.com;transport=ws", Address);
        check("sip:alice@example.com;transport=tcp;lr", Address);
        check("sip:alice@example.com:0", Address);
        check("sip:alice@example.com:65536", Address);
        check("sip:alice@example.com:", Address);
        check("sip:alice@256.0.0.1", Address);
        check("sip:alice@1.2.3", Address);
        check("sip:alice@-example.com", Address);
        check("sip:alice@exa mple.com", Address);
        check("sip:a\r\nVia: b@example.com", Address);
        check("sip:a%40b@example.com", Address);
        check("sip:alice@bob@example.com", Address);
        check("sip:alice@[::1", Address);
        check("sip:alice@[fe80::1%25eth0]", Address);
        check("sip:alice@[::1]5060", Address);
    }

    #[test]
    fn a_number_of_the_world_is_told_from_one_of_the_account() {
        let target = |text: &str| text.parse::<PhoneTarget>().unwrap();

        assert_eq!(target("tel:+49 30").global_number(), Some("+4930"));
        assert_eq!(target("tel:42").number(), Some("42"));
        assert_eq!(target("tel:42").global_number(), None);
        assert_eq!(target("sip:42@example.com").number(), None);
        assert!(PhoneTarget::anonymous().is_anonymous() && !target("tel:42").is_anonymous());
    }

    #[test]
    fn a_number_is_not_in_a_log() {
        let target: PhoneTarget = "tel:+4930123456".parse().unwrap();
        assert_eq!(format!("{target:?}"), "PhoneTarget(tel:…)");
    }
}
