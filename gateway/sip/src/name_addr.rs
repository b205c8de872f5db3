//! A URI with a name and parameters: From, To, Contact, Route and their like.

use std::fmt;

use crate::text;
use crate::{DecodeError, Params, Uri};

/// `name-addr` or `addr-spec` with the parameters of the header (RFC 3261 §20.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// The name to show, without quotes.
    pub display: Option<String>,
    /// The URI.
    pub uri: Uri,
    /// Parameters of the header, `tag` among them.
    pub params: Params,
}

impl NameAddr {
    /// Just a URI.
    #[must_use]
    pub fn new(uri: impl Into<Uri>) -> Self {
        Self {
            display: None,
            uri: uri.into(),
            params: Params::new(),
        }
    }

    /// Reads one value. `what` is the header's name, for the error.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for what is against the grammar; that includes a URI without angle brackets that has a comma, a
    /// question mark or a semicolon of its own (RFC 3261 §20).
    pub fn parse(value: &str, what: &'static str) -> Result<Self, DecodeError> {
        let malformed = DecodeError::malformed(what);
        let value = text::trim(value);
        if let Some(open) = text::find_outside_quotes(value, b'<') {
            let close = open + value[open..].find('>').ok_or(malformed)?;
            let display = parse_display(text::trim(&value[..open])).ok_or(malformed)?;
            let uri = Uri::parse(&value[open + 1..close]).map_err(|_| malformed)?;
            let params = match text::trim(&value[close + 1..]) {
                "" => Params::new(),
                rest => Params::parse_header(rest.strip_prefix(';').ok_or(malformed)?, what)?,
            };
            return Ok(Self {
                display,
                uri,
                params,
            });
        }
        let (uri, params) = match value.split_once(';') {
            Some((uri, params)) => (text::trim(uri), Params::parse_header(params, what)?),
            None => (value, Params::new()),
        };
        if uri.contains([',', '?']) {
            return Err(malformed);
        }
        let uri = Uri::parse(uri).map_err(|_| malformed)?;
        Ok(Self {
            display: None,
            uri,
            params,
        })
    }

    /// The `tag` parameter: which side's, in a dialog.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag")
    }

    /// The same with another tag.
    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> Self {
        self.params.set("tag", Some(tag));
        self
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            write!(f, "{} ", text::quote(display))?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

/// The name before the bracket: nothing, tokens with blanks between them, or a quoted string. Text beyond ASCII is
/// taken without quotes, too: it is against the grammar, does no harm, and phones send it.
fn parse_display(text: &str) -> Option<Option<String>> {
    if text.is_empty() {
        return Some(None);
    }
    if text.starts_with('"') {
        return text::unquote(text).map(Some);
    }
    let is_word = |word: &str| {
        word.chars()
            .all(|c| !c.is_ascii() || text::is_token(c.encode_utf8(&mut [0; 4])))
    };
    text.split([' ', '\t'])
        .all(is_word)
        .then(|| Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<String> {
        NameAddr::parse(value, "To")
            .ok()
            .map(|value| value.to_string())
    }

    #[test]
    fn names_and_addresses() {
        let check = |value: &str, expected: &str| {
            assert_eq!(read(value).as_deref(), Some(expected), "{value}");
        };
        check("sip:a@b", "<sip:a@b>");
        check(
            " sip:a@b ;   tag    = 1918181833n",
            "<sip:a@b>;tag=1918181833n",
        );
        check("caller<sip:a@b>;tag=323", "\"caller\" <sip:a@b>;tag=323");
        check("Alice B. <sip:a@b;x>", "\"Alice B.\" <sip:a@b;x>");
        check(
            r#""Quoted \"\" <x>" <sip:a@b> ; q = 0.33"#,
            r#""Quoted \"\" <x>" <sip:a@b>;q=0.33"#,
        );
        check("Ж <sip:a@b>", "\"Ж\" <sip:a@b>");
        check("<sip:a@b?Route=%3Csip:x%3E>", "<sip:a@b?Route=%3Csip:x%3E>");
        check(r#""" <sip:a@b>"#, "\"\" <sip:a@b>");
    }

    #[test]
    fn what_is_none_is_refused() {
        for wrong in [
            "",
            "<>",
            "<sip:a@b",
            "sip:a@b>",
            "< sip:a@b >",
            "\"open <sip:a@b>",
            "Bell, Alexander <sip:a@b>",
            "sip:a@b?Route=%3Csip:x%3E",
            "<sip:a@b> x",
            "<sip:a@b>;;",
            "<sip:a@b>;tag=",
            "a;b <sip:a@b>",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
