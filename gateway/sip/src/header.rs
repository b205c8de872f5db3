//! Header names and the list of headers of a message.

use std::fmt;

use crate::text;
use crate::{DecodeError, NameAddr};

/// The most header lines of one message.
pub const HEADERS_MAX: usize = 100;

/// The longest value of one header line, in bytes, without its folds.
pub const VALUE_LEN_MAX: usize = 8_192;

/// The most values that are read of one header, over all of its lines.
pub const VALUES_MAX: usize = 64;

macro_rules! names {
    ($($variant:ident $text:literal $($compact:literal)?;)*) => {
        /// The name of a header: those this crate or its users ask for, or any other token.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is the header of its name")]
        pub enum HeaderName {
            $($variant,)*
            /// An extension's, in lower case.
            Other(Box<str>),
        }

        const KNOWN: &[(HeaderName, &str, &str)] = &[$((HeaderName::$variant, $text, concat!($($compact)?)),)*];

        impl HeaderName {
            /// The name in full, as it is written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(name) => name,
                }
            }

            /// The name in full, or a word for an extension's: fit for a [`DecodeError`].
            fn label(&self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(_) => "extension header",
                }
            }
        }
    };
}

names! {
    Via "Via" "v";
    From "From" "f";
    To "To" "t";
    CallId "Call-ID" "i";
    CSeq "CSeq";
    Contact "Contact" "m";
    MaxForwards "Max-Forwards";
    Route "Route";
    RecordRoute "Record-Route";
    ContentLength "Content-Length" "l";
    ContentType "Content-Type" "c";
    ContentEncoding "Content-Encoding" "e";
    ContentDisposition "Content-Disposition";
    Expires "Expires";
    MinExpires "Min-Expires";
    Accept "Accept";
    Allow "Allow";
    AllowEvents "Allow-Events" "u";
    Authorization "Authorization";
    WwwAuthenticate "WWW-Authenticate";
    ProxyAuthorization "Proxy-Authorization";
    ProxyAuthenticate "Proxy-Authenticate";
    AuthenticationInfo "Authentication-Info";
    Date "Date";
    Diversion "Diversion";
    Event "Event" "o";
    HistoryInfo "History-Info";
    MinSe "Min-SE";
    PAssertedIdentity "P-Asserted-Identity";
    PPreferredIdentity "P-Preferred-Identity";
    Path "Path";
    Privacy "Privacy";
    RAck "RAck";
    RSeq "RSeq";
    Reason "Reason";
    ReferTo "Refer-To" "r";
    ReferredBy "Referred-By" "b";
    RemotePartyId "Remote-Party-ID";
    Replaces "Replaces";
    Require "Require";
    ProxyRequire "Proxy-Require";
    RetryAfter "Retry-After";
    Server "Server";
    ServiceRoute "Service-Route";
    SessionExpires "Session-Expires" "x";
    Subject "Subject" "s";
    SubscriptionState "Subscription-State";
    Supported "Supported" "k";
    Unsupported "Unsupported";
    UserAgent "User-Agent";
    Warning "Warning";
}

impl HeaderName {
    /// Reads a name, in full or compact, in any case; `None` for what is no token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is = |name: &str| name.eq_ignore_ascii_case(text);
        let known = KNOWN
            .iter()
            .find(|(_, name, compact)| is(name) || (!compact.is_empty() && is(compact)));
        match known {
            Some((known, ..)) => Some(known.clone()),
            None => text::is_token(text).then(|| Self::Other(text.to_ascii_lowercase().into())),
        }
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Header lines in their order. Values have neither folds nor line ends.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(HeaderName, String)>);

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The lines in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &str)> {
        self.0.iter().map(|(name, value)| (name, value.as_str()))
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a line at the end. A line end in `value` becomes a blank: nobody can write a header of their own through it.
    pub fn push(&mut self, name: HeaderName, value: impl fmt::Display) {
        self.0.push((name, one_line(value)));
    }

    /// Adds a line in front, as a Via is added.
    pub fn push_front(&mut self, name: HeaderName, value: impl fmt::Display) {
        self.0.insert(0, (name, one_line(value)));
    }

    /// Sets a header that comes once: its first line is changed, others go; without one it is added.
    pub fn set(&mut self, name: HeaderName, value: impl fmt::Display) {
        let first = self.0.iter().position(|(known, _)| *known == name);
        self.remove(&name);
        let at = first.unwrap_or(self.0.len());
        self.0.insert(at, (name, one_line(value)));
    }

    /// Takes all lines of this name away.
    pub fn remove(&mut self, name: &HeaderName) {
        self.0.retain(|(known, _)| known != name);
    }

    /// The values of all lines of this name, as they stand.
    pub fn lines(&self, name: &HeaderName) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of the first line of this name.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<&str> {
        self.lines(name).next()
    }

    /// The value of a header that may come once.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooMany`] when it comes again.
    pub fn single(&self, name: &HeaderName) -> Result<Option<&str>, DecodeError> {
        let mut lines = self.lines(name);
        let first = lines.next();
        match lines.next() {
            None => Ok(first),
            Some(_) => Err(DecodeError::TooMany {
                what: name.label(),
                max: 1,
            }),
        }
    }

    /// The values of a header whose lines hold lists, over all lines, cut at their commas.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for an empty value, an open quote or more than [`VALUES_MAX`].
    pub fn list(&self, name: &HeaderName) -> Result<Vec<&str>, DecodeError> {
        let what = name.label();
        let mut values = Vec::new();
        for line in self.lines(name) {
            let parts = text::split(line, b',', VALUES_MAX, what)?;
            // An empty list is right where there is a list of tokens: `Supported:` alone.
            if parts == [""] && is_list_of_tokens(name) {
                continue;
            }
            if parts.contains(&"") {
                return Err(DecodeError::malformed(what));
            }
            values.extend(parts);
        }
        if values.len() > VALUES_MAX {
            return Err(DecodeError::TooMany {
                what,
                max: VALUES_MAX,
            });
        }
        Ok(values)
    }

    /// The values of a header of names and addresses: Contact, Route, Record-Route, P-Asserted-Identity and others.
    ///
    /// # Errors
    ///
    /// As [`Headers::list`], and for a value that is none.
    pub fn addresses(&self, name: &HeaderName) -> Result<Vec<NameAddr>, DecodeError> {
        let values = self.list(name)?;
        values
            .into_iter()
            .map(|value| NameAddr::parse(value, name.label()))
            .collect()
    }

    /// Whether a header that lists tokens has this one, in any case: `Supported` and `100rel`.
    #[must_use]
    pub fn has_token(&self, name: &HeaderName, token: &str) -> bool {
        self.lines(name)
            .flat_map(|line| line.split(','))
            .any(|part| text::trim(part).eq_ignore_ascii_case(token))
    }

    /// The number a header holds (a parameter or comment may follow it): Expires, Min-SE, RSeq, Retry-After. `None`
    /// where there is none or it is larger than 32 bits.
    #[must_use]
    pub fn number(&self, name: &HeaderName) -> Option<u32> {
        let value = self.get(name)?;
        let end = value.find([';', '(', ' ', '\t']).unwrap_or(value.len());
        text::decimal(&value[..end], u64::from(u32::MAX))
            .and_then(|value| u32::try_from(value).ok())
    }
}

/// Values stay out of logs: they name people, and some are secrets.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name.as_str()))
            .finish()
    }
}

fn one_line(value: impl fmt::Display) -> String {
    let value = value.to_string();
    if value.contains(['\r', '\n']) {
        value.replace(['\r', '\n'], " ")
    } else {
        value
    }
}

fn is_list_of_tokens(name: &HeaderName) -> bool {
    use HeaderName::{Accept, Allow, AllowEvents, ProxyRequire, Require, Supported, Unsupported};
    matches!(
        name,
        Accept | Allow | AllowEvents | ProxyRequire | Require | Supported | Unsupported
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_full_and_compact_in_any_case() {
        for (name, text, compact) in KNOWN {
            assert_eq!(HeaderName::parse(&text.to_uppercase()).as_ref(), Some(name));
            assert!(compact.is_empty() || HeaderName::parse(compact).as_ref() == Some(name));
        }
        assert_eq!(
            HeaderName::parse("X-Odd.!%*_+`'~"),
            Some(HeaderName::Other("x-odd.!%*_+`'~".into()))
        );
        assert_eq!(HeaderName::parse("a b"), None);
        assert_eq!(HeaderName::parse(""), None);
    }

    #[test]
    fn lists_go_over_lines_and_commas() {
        let mut headers = Headers::new();
        headers.push(HeaderName::Route, "<sip:a;lr>, \"x, y\" <sip:b>");
        headers.push(HeaderName::Route, "<sip:c,d@e>");
        headers.push(HeaderName::Supported, "");
        headers.push(HeaderName::Supported, "timer, 100rel");
        assert_eq!(
            headers.addresses(&HeaderName::Route).map(|all| all.len()),
            Ok(3)
        );
        assert_eq!(
            headers.list(&HeaderName::Supported),
            Ok(vec!["timer", "100rel"])
        );
        assert!(headers.has_token(&HeaderName::Supported, "100REL"));
        headers.push(HeaderName::Route, "");
        assert!(headers.list(&HeaderName::Route).is_err());
        headers.set(HeaderName::Route, vec!["<sip:a>"; VALUES_MAX + 1].join(","));
        assert!(headers.list(&HeaderName::Route).is_err());
    }

    #[test]
    fn nobody_writes_a_header_through_a_value() {
        let mut headers = Headers::new();
        headers.push(HeaderName::Subject, "a\r\nVia: b");
        assert_eq!(headers.get(&HeaderName::Subject), Some("a  Via: b"));
    }

    #[test]
    fn debug_shows_names_only() {
        let mut headers = Headers::new();
        headers.push(HeaderName::Authorization, "Digest secret");
        assert_eq!(format!("{headers:?}"), "[\"Authorization\"]");
    }
}
