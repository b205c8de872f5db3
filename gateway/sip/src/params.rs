//! Parameters behind a semicolon.

use std::fmt::{self, Write};

use crate::text;
use crate::{DecodeError, Host};

/// The most parameters of one URI or one header value that are read.
pub const PARAMS_MAX: usize = 64;

/// Parameters in their order, `;name=value` or `;name`. Names are equal in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Params(Vec<(String, Option<String>)>);

impl Params {
    /// No parameters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the parameters of a header (`generic-param`, RFC 3261 §25.1): `text` is what follows the first
    /// semicolon. Values are kept as written, quotes and all.
    pub(crate) fn parse_header(text: &str, what: &'static str) -> Result<Self, DecodeError> {
        let parts = text::split(text, b';', PARAMS_MAX, what)?;
        Self::collect(&parts, what, |name, value| {
            text::is_token(name) && value.is_none_or(is_header_value)
        })
    }

    /// Reads the parameters of a URI, in which no blank may stand (`uri-parameter`).
    pub(crate) fn parse_uri(text: &str, what: &'static str) -> Result<Self, DecodeError> {
        let is_word = |word: &str| !word.is_empty() && text::is_escaped_text(word, b"[]/:&+$");
        let parts: Vec<_> = text.split(';').take(PARAMS_MAX + 1).collect();
        if parts.len() > PARAMS_MAX {
            return Err(DecodeError::TooMany {
                what: "parameters",
                max: PARAMS_MAX,
            });
        }
        if text.contains([' ', '\t']) {
            return Err(DecodeError::malformed(what));
        }
        Self::collect(&parts, what, |name, value| {
            is_word(name) && value.is_none_or(is_word)
        })
    }

    /// A name that comes twice is refused: readers differ about which one counts.
    fn collect(
        parts: &[&str],
        what: &'static str,
        is_good: impl Fn(&str, Option<&str>) -> bool,
    ) -> Result<Self, DecodeError> {
        let mut params = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (text::trim(name), Some(text::trim(value))),
                None => (*part, None),
            };
            if !is_good(name, value) || params.has(name) {
                return Err(DecodeError::malformed(what));
            }
            params.0.push((name.to_owned(), value.map(str::to_owned)));
        }
        Ok(params)
    }

    /// The parameters in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// The value of a parameter that has one, as it was written.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| value.as_deref())
    }

    /// The value of a parameter, without the quotes it may stand in.
    #[must_use]
    pub fn get_unquoted(&self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        Some(text::unquote(value).unwrap_or_else(|| value.to_owned()))
    }

    /// Sets a parameter, in the place where it was or at the end. `value` must be a token, a host or quoted.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        match self
            .0
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Takes a parameter away.
    pub fn remove(&mut self, name: &str) {
        self.0
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            f.write_char(';')?;
            f.write_str(name)?;
            if let Some(value) = value {
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}

/// `gen-value`: a token, a host or a quoted string. IPv6 addresses stand without their brackets in many a Via
/// (RFC 5118 §4.5), and a `host:port` in some.
fn is_header_value(value: &str) -> bool {
    text::is_token(value)
        || text::unquote(value).is_some()
        || Host::parse_with_port(value).is_some()
        || value.parse::<std::net::Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Option<String> {
        Params::parse_header(text, "test")
            .ok()
            .map(|params| params.to_string())
    }

    #[test]
    fn blanks_may_stand_around_parameters_of_headers() {
        assert_eq!(
            header("tag    = 191 ; lr;  q=\"a;b\"").as_deref(),
            Some(";tag=191;lr;q=\"a;b\"")
        );
        assert_eq!(
            header("received=2001:db8::9").as_deref(),
            Some(";received=2001:db8::9")
        );
        for wrong in ["", ";", "a;;b", "a=", "=a", "a b", "a=\"", "a=b=c", "a;A"] {
            assert_eq!(header(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_flood_of_parameters_is_refused() {
        let many = vec!["a"; PARAMS_MAX + 1].join(";");
        assert!(Params::parse_uri(&many, "test").is_err());
        assert!(Params::parse_header(&many, "test").is_err());
    }

    #[test]
    fn parameters_are_found_in_any_case_and_changed_in_place() {
        let mut params = Params::parse_uri("lr;Transport=TCP;x=%41", "test").expect("it is right");
        assert_eq!(params.get("transport"), Some("TCP"));
        assert_eq!(params.get("lr"), None);
        assert!(params.has("LR"));
        params.set("transport", Some("udp"));
        params.set("new", None);
        params.remove("x");
        assert_eq!(params.to_string(), ";lr;Transport=udp;new");
    }
}
