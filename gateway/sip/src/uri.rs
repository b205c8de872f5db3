//! Whom a request is for (RFC 3261 §19.1, RFC 3966).

use std::borrow::Cow;
use std::fmt;

use crate::text;
use crate::{DecodeError, Host, Params};

/// The longest URI that is read, in bytes.
const URI_LEN_MAX: usize = 2_048;

/// `user-unreserved` and `password`, beside `unreserved`.
const USER_MORE: &[u8] = b"&=+$,;?/";
const PASSWORD_MORE: &[u8] = b"&=+$,";
/// `hnv-unreserved`.
const HEADER_MORE: &[u8] = b"[]/?:+$";

/// A URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Uri {
    /// `sip:` and `sips:`.
    Sip(SipUri),
    /// `tel:`.
    Tel(TelUri),
    /// Any other scheme, kept as it was written.
    Other(String),
}

/// A `sip:` or `sips:` URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SipUri {
    /// `sips:`.
    pub secure: bool,
    /// The user part as it is written, escapes and all.
    pub user: Option<String>,
    /// The password. It is written by nobody who means well; it is kept so that the URI reads the same again.
    pub password: Option<String>,
    /// The host.
    pub host: Host,
    /// The port, when one is written.
    pub port: Option<u16>,
    /// The parameters.
    pub params: Params,
    /// What follows the question mark: headers for a request made from this URI, as written.
    pub headers: Option<String>,
}

/// A `tel:` URI (RFC 3966).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TelUri {
    /// The number as it is written: digits and visual separators, with a `+` in front when it is global.
    pub number: String,
    /// The parameters, among them `phone-context` of a local number.
    pub params: Params,
}

impl Uri {
    /// Reads a URI. A `sip:` or `tel:` URI must keep to its grammar; of any other, only the scheme is looked at.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for what is no URI or is longer than 2,048 bytes.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::malformed("URI");
        if text.len() > URI_LEN_MAX {
            return Err(DecodeError::TooLong {
                what: "URI",
                max: URI_LEN_MAX,
            });
        }
        let (scheme, rest) = text.split_once(':').ok_or(MALFORMED)?;
        match scheme.to_ascii_lowercase().as_str() {
            "sip" => SipUri::parse(false, rest).map(Self::Sip),
            "sips" => SipUri::parse(true, rest).map(Self::Sip),
            "tel" => TelUri::parse(rest).map(Self::Tel),
            _ => {
                let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
                let is_text = !rest.is_empty()
                    && rest
                        .bytes()
                        .all(|b| b.is_ascii_graphic() && !b"<>\"".contains(&b));
                if is_scheme && is_text {
                    Ok(Self::Other(text.to_owned()))
                } else {
                    Err(MALFORMED)
                }
            }
        }
    }

    /// The `sip:` or `sips:` URI.
    #[must_use]
    pub fn sip(&self) -> Option<&SipUri> {
        match self {
            Self::Sip(uri) => Some(uri),
            _ => None,
        }
    }

    /// The telephone number or user name that is meant: of a `tel:` URI without visual separators, of a `sip:`
    /// URI with its escapes undone. `None` where there is none, or it is no text.
    #[must_use]
    pub fn user(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Sip(uri) => {
                let user = uri.user.as_deref()?;
                if !user.contains('%') {
                    return Some(Cow::Borrowed(user));
                }
                String::from_utf8(text::unescape(user)).ok().map(Cow::Owned)
            }
            Self::Tel(uri) => Some(Cow::Owned(uri.digits())),
            Self::Other(_) => None,
        }
    }

    /// Whether both name the same (RFC 3261 §19.1.4, RFC 3966 §4). URIs of other schemes are compared as text.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sip(a), Self::Sip(b)) => a.is_same(b),
            (Self::Tel(a), Self::Tel(b)) => {
                let context =
                    |uri: &TelUri| uri.params.get("phone-context").map(str::to_ascii_lowercase);
                a.digits().eq_ignore_ascii_case(&b.digits()) && context(a) == context(b)
            }
            (Self::Other(a), Self::Other(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sip(uri) => uri.fmt(f),
            Self::Tel(uri) => write!(f, "tel:{}{}", uri.number, uri.params),
            Self::Other(uri) => f.write_str(uri),
        }
    }
}

impl From<SipUri> for Uri {
    fn from(uri: SipUri) -> Self {
        Self::Sip(uri)
    }
}

impl SipUri {
    /// `sip:user@host:port`, without parameters. `user` is any text; what must be escaped is.
    #[must_use]
    pub fn new(user: Option<&str>, host: Host, port: Option<u16>) -> Self {
        Self {
            secure: false,
            user: user
                .filter(|user| !user.is_empty())
                .map(|user| text::escape(user, b"+&=$,;?/")),
            password: None,
            host,
            port,
            params: Params::new(),
            headers: None,
        }
    }

    /// Reads what follows the scheme.
    fn parse(secure: bool, rest: &str) -> Result<Self, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::malformed("URI");
        let is = |condition: bool| if condition { Ok(()) } else { Err(MALFORMED) };

        // Nothing but the end of the user part can be an `@`: it is escaped everywhere else.
        let (userinfo, rest) = match rest.split_once('@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, rest),
        };
        let (user, password) = match userinfo.map(|info| (info, info.split_once(':'))) {
            None => (None, None),
            Some((_, Some((user, password)))) => (Some(user), Some(password)),
            Some((user, None)) => (Some(user), None),
        };
        is(user.is_none_or(|user| !user.is_empty() && text::is_escaped_text(user, USER_MORE)))?;
        is(password.is_none_or(|password| text::is_escaped_text(password, PASSWORD_MORE)))?;

        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers)),
            None => (rest, None),
        };
        is(headers.is_none_or(are_headers))?;
        let (host, params) = match rest.split_once(';') {
            Some((host, params)) => (host, Params::parse_uri(params, "URI")?),
            None => (rest, Params::new()),
        };
        is(!host.contains([' ', '\t']))?;
        let (host, port) = Host::parse_with_port(host).ok_or(MALFORMED)?;
        Ok(Self {
            secure,
            user: user.map(str::to_owned),
            password: password.map(str::to_owned),
            host,
            port,
            params,
            headers: headers.map(str::to_owned),
        })
    }

    /// The value of a header that a request made from this URI would have, without escapes. `None` where there is none, or it
    /// is no text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let all = self
            .headers
            .as_deref()?
            .split('&')
            .filter_map(|header| header.split_once('='));
        let mut found = all.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found
            .next()
            .and_then(|(_, value)| String::from_utf8(text::unescape(value)).ok())
    }

    /// Makes this the only header that a request made from this URI would have.
    pub fn set_header(&mut self, name: &str, value: &str) {
        self.headers = Some(format!(
            "{}={}",
            text::escape(name, HEADER_MORE),
            text::escape(value, HEADER_MORE)
        ));
    }

    /// The transport that the URI asks for, in lower case.
    #[must_use]
    pub fn transport(&self) -> Option<String> {
        self.params.get("transport").map(str::to_ascii_lowercase)
    }

    /// RFC 3261 §19.1.4.
    fn is_same(&self, other: &Self) -> bool {
        let decoded = |text: &Option<String>| text.as_deref().map(text::unescape);
        let text = |text: &str| text::unescape(text).to_ascii_lowercase();
        // These differ by being there at all; any other parameter only when both have it.
        let decides = |name: &str| {
            ["user", "ttl", "method", "maddr", "transport"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
        };
        let agree = |a: &Self, b: &Self| {
            a.params
                .iter()
                .all(|(name, value)| match b.params.has(name) {
                    true => value.map(text) == b.params.get(name).map(text),
                    false => !decides(name),
                })
        };
        let headers = |uri: &Self| {
            let mut headers: Vec<_> = uri
                .headers
                .iter()
                .flat_map(|all| all.split('&'))
                .map(text)
                .collect();
            headers.sort();
            headers
        };
        self.secure == other.secure
            && decoded(&self.user) == decoded(&other.user)
            && decoded(&self.password) == decoded(&other.password)
            && self.host.is_same(&other.host)
            && self.port == other.port
            && agree(self, other)
            && agree(other, self)
            && headers(self) == headers(other)
    }
}

impl fmt::Display for SipUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "sips:" } else { "sip:" })?;
        if let Some(user) = &self.user {
            f.write_str(user)?;
            if let Some(password) = &self.password {
                write!(f, ":{password}")?;
            }
            f.write_str("@")?;
        }
        self.host.fmt(f)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        self.params.fmt(f)?;
        self.headers
            .iter()
            .try_for_each(|headers| write!(f, "?{headers}"))
    }
}

impl TelUri {
    fn parse(rest: &str) -> Result<Self, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::malformed("URI");
        let (number, params) = match rest.split_once(';') {
            Some((number, params)) => (number, Params::parse_uri(params, "URI")?),
            None => (rest, Params::new()),
        };
        let is_separator = |byte: u8| b"-.()".contains(&byte);
        let is_number = match number.strip_prefix('+') {
            Some(digits) => {
                digits
                    .bytes()
                    .all(|b| b.is_ascii_digit() || is_separator(b))
                    && digits.bytes().any(|b| b.is_ascii_digit())
            }
            None => {
                number
                    .bytes()
                    .all(|b| b.is_ascii_hexdigit() || b"*#".contains(&b) || is_separator(b))
                    && number.bytes().any(|b| !is_separator(b))
            }
        };
        is_number
            .then(|| Self {
                number: number.to_owned(),
                params,
            })
            .ok_or(MALFORMED)
    }

    /// The number without visual separators.
    #[must_use]
    pub fn digits(&self) -> String {
        self.number
            .chars()
            .filter(|c| !"-.()".contains(*c))
            .collect()
    }
}

fn are_headers(text: &str) -> bool {
    text.split('&').all(|header| {
        header.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty()
                && text::is_escaped_text(name, HEADER_MORE)
                && text::is_escaped_text(value, HEADER_MORE)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_written_as_they_were_read() {
        for text in [
            "sip:example.com",
            "sips:alice:secret@example.com:5061;transport=tcp;lr?Subject=a%20b&Priority=urgent",
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
            "sip:user;par=u%40example.net@example.com",
            "sip:null-%00-null@example.com",
            "sip:[2001:db8::10]:5070;maddr=[2001:db8::1]",
            "tel:+1-201-555-0123;ext=1",
            "tel:863-1234;phone-context=+1-914-555",
            "soap.beep://192.0.2.103:3002",
        ] {
            assert_eq!(
                Uri::parse(text).map(|uri| uri.to_string()).as_deref(),
                Ok(text)
            );
        }
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for text in [
            "",
            "sip",
            "sip:",
            "sip:@host",
            "sip:a@",
            "sip:a@b@c",
            "sip:a b@c",
            "sip:a@c; lr",
            "sip:a@c;",
            "sip:a@c;a;a",
            "sip:a@c:99999",
            "sip:a%4@c",
            "<sip:a@c>",
            "sip:a@c?",
            "sip:a@c?x",
            "sip:a@[::1",
            "sip:a\u{e9}@c",
            "tel:",
            "tel:+",
            "tel:+12x",
            "tel:12 34",
            "1x:y",
            "x:",
            "x:a b",
            "sip:a@b\r\nVia:x",
        ] {
            assert!(Uri::parse(text).is_err(), "{text}");
        }
        let long = format!("sip:{}@c", "a".repeat(URI_LEN_MAX));
        assert!(matches!(
            Uri::parse(&long),
            Err(DecodeError::TooLong { .. })
        ));
    }

    #[test]
    fn uris_are_compared_by_what_they_mean() {
        let same = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|text| Uri::parse(text).expect("the table has URIs"));
            assert_eq!(a.is_same(&b), b.is_same(&a), "{a} {b}");
            a.is_same(&b)
        };
        // The examples of RFC 3261 §19.1.4.
        assert!(same(
            "sip:%61lice@atlanta.com;transport=TCP",
            "sip:alice@AtLanTa.CoM;Transport=tcp"
        ));
        assert!(same(
            "sip:carol@chicago.com",
            "sip:carol@chicago.com;newparam=5"
        ));
        assert!(same(
            "sip:carol@chicago.com;security=on",
            "sip:carol@chicago.com;newparam=5"
        ));
        assert!(same(
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com"
        ));
        assert!(same(
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x"
        ));
        assert!(!same(
            "SIP:ALICE@AtLanTa.CoM;Transport=udp",
            "sip:alice@AtLanTa.CoM;Transport=UDP"
        ));
        assert!(!same("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"));
        assert!(!same(
            "sip:bob@biloxi.com",
            "sip:bob@biloxi.com;transport=udp"
        ));
        assert!(!same("sip:bob@biloxi.com", "sips:bob@biloxi.com"));
        assert!(!same(
            "sip:carol@chicago.com;security=on",
            "sip:carol@chicago.com;security=off"
        ));
        assert!(!same(
            "sip:carol@chicago.com",
            "sip:carol@chicago.com?Subject=next%20meeting"
        ));
        // RFC 3966 §5.
        assert!(same("tel:+1-201-555-0123", "tel:+12015550123"));
        assert!(!same(
            "tel:863-1234;phone-context=+1",
            "tel:863-1234;phone-context=+2"
        ));
    }

    #[test]
    fn users_are_text_without_escapes() {
        let user = |text| {
            Uri::parse(text)
                .ok()
                .and_then(|uri| uri.user().map(Cow::into_owned))
        };
        assert_eq!(
            user("sip:%2B15551230001@h").as_deref(),
            Some("+15551230001")
        );
        assert_eq!(user("tel:+1(555)123-0001").as_deref(), Some("+15551230001"));
        assert_eq!(user("sip:%ff@h"), None);
        let asked = Uri::parse("sip:a@h?Subject=x&Replaces=c%40h%3Bto-tag%3D1").expect("a URI");
        assert_eq!(
            asked
                .sip()
                .and_then(|uri| uri.header("replaces"))
                .as_deref(),
            Some("c@h;to-tag=1")
        );
        let made = SipUri::new(Some("+1 5#"), Host::Name("h".into()), Some(5060));
        assert_eq!(made.to_string(), "sip:+1%205%23@h:5060");
    }
}
