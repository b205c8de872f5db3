//! The characters and words of SIP's grammar (RFC 3261 §25.1).

use std::fmt::Write;

use crate::DecodeError;

/// `token`: at least one of its characters.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_char)
}

fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// `unreserved` (RFC 3261 §25.1).
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte)
}

/// Whether `text` has only `unreserved` characters, those of `more`, and `%` with two hexadecimal digits.
pub(crate) fn is_escaped_text(text: &str, more: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let digits = bytes.get(at + 1..at + 3);
            if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                return false;
            }
            at += 3;
        } else if is_unreserved(byte) || more.contains(&byte) {
            at += 1;
        } else {
            return false;
        }
    }
    true
}

/// The bytes that `text` with `%` escapes stands for; what is no escape stays as it is.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let value = digits.and_then(|digits| {
            let high = char::from(digits[0]).to_digit(16)?;
            let low = char::from(digits[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        });
        out.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    out
}

/// Writes `text` so that it may stand where `unreserved` characters and those of `more` may.
pub(crate) fn escape(text: &str, more: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) || more.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Blanks off both ends (LWS; folds are gone when a message has been read).
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// A decimal number of at least one digit and no sign, at most `max`.
pub(crate) fn decimal(text: &str, max: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than a `u64` has are leading zeros, or too many.
    let value = digits.then(|| text.trim_start_matches('0'))?;
    let value = if value.is_empty() {
        0
    } else {
        value.parse::<u64>().ok()?
    };
    (value <= max).then_some(value)
}

/// Cuts `text` at each `separator` that stands outside of quoted strings and of angle brackets.
///
/// Blanks around the parts are taken off. At most `max` parts; quotes and brackets must be closed.
pub(crate) fn split<'a>(
    text: &'a str,
    separator: u8,
    max: usize,
    what: &'static str,
) -> Result<Vec<&'a str>, DecodeError> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut scanner = Scanner::default();
    for (at, byte) in text.bytes().enumerate() {
        if scanner.is_outside() && byte == separator {
            parts.push(trim(&text[start..at]));
            start = at + 1;
            if parts.len() >= max {
                return Err(DecodeError::TooMany { what, max });
            }
        } else {
            scanner.push(byte);
        }
    }
    if !scanner.is_outside() {
        return Err(DecodeError::malformed(what));
    }
    parts.push(trim(&text[start..]));
    Ok(parts)
}

/// Where `byte` stands first outside of quoted strings; `None` also when a quote is left open before it.
pub(crate) fn find_outside_quotes(text: &str, byte: u8) -> Option<usize> {
    let mut scanner = Scanner::default();
    text.bytes().position(|next| {
        if next == byte && !scanner.quoted {
            return true;
        }
        scanner.push(next);
        false
    })
}

/// Follows quoted strings, quoted pairs and angle brackets.
#[derive(Default)]
struct Scanner {
    quoted: bool,
    escaped: bool,
    bracketed: bool,
}

impl Scanner {
    fn is_outside(&self) -> bool {
        !self.quoted && !self.bracketed
    }

    fn push(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.quoted => self.escaped = true,
            b'"' if !self.bracketed => self.quoted = !self.quoted,
            b'<' if !self.quoted => self.bracketed = true,
            b'>' if !self.quoted => self.bracketed = false,
            _ => {}
        }
    }
}

/// What a `quoted-string` says, quotes and all being `text`; `None` when it is none.
pub(crate) fn unquote(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(next) = chars.next() {
        match next {
            '"' | '\r' | '\n' => return None,
            '\\' => out.push(
                chars
                    .next()
                    .filter(|c| c.is_ascii() && !matches!(c, '\r' | '\n'))?,
            ),
            _ => out.push(next),
        }
    }
    // A quote that was escaped closes nothing: `"\"` is open.
    (text.len() >= 2).then_some(out)
}

/// `text` as a `quoted-string`. Line ends, which no quoted string can hold, become blanks.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for next in text.chars() {
        match next {
            '"' | '\\' => out.extend(['\\', next]),
            '\r' | '\n' => out.push(' '),
            _ if next.is_ascii_control() => out.extend(['\\', next]),
            _ => out.push(next),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_counts_outside_of_quotes_and_brackets_only() {
        let parts = |text| split(text, b',', 8, "list").ok();
        assert_eq!(parts("a, b"), Some(vec!["a", "b"]));
        assert_eq!(
            parts(r#""a\", b" <sip:x,y@z>, c"#),
            Some(vec![r#""a\", b" <sip:x,y@z>"#, "c"])
        );
        assert_eq!(parts(r#""open, b"#), None);
        assert_eq!(parts("<open, b"), None);
        assert_eq!(
            split("1,2,3", b',', 2, "list"),
            Err(DecodeError::TooMany {
                what: "list",
                max: 2
            })
        );
    }

    #[test]
    fn numbers_have_digits_and_a_bound() {
        assert_eq!(decimal("0068", 255), Some(68));
        assert_eq!(decimal("000", 255), Some(0));
        assert_eq!(decimal("00000000000000000000000000000001", 255), Some(1));
        for wrong in ["", "-1", "+1", " 1", "256", "36893488147419103232"] {
            assert_eq!(decimal(wrong, 255), None, "{wrong}");
        }
    }

    #[test]
    fn quoted_strings_read_back() {
        for text in ["", "plain", "with \"quotes\" and \\", "\u{7}\0 Ж"] {
            assert_eq!(unquote(&quote(text)).as_deref(), Some(text));
        }
        for wrong in ["", "\"", "a", "\"a", r#""a\""#, r#""a"b""#] {
            assert_eq!(unquote(wrong), None, "{wrong}");
        }
        assert_eq!(quote("a\r\nVia: b"), "\"a  Via: b\"");
    }

    #[test]
    fn escapes_read_back() {
        assert_eq!(escape("a b%\u{416}", b""), "a%20b%25%D0%96");
        assert_eq!(unescape("a%20b%25%D0%96"), "a b%\u{416}".as_bytes());
        assert_eq!(unescape("null-%00-null%"), b"null-\0-null%");
        assert!(is_escaped_text("a%41;", b";"));
        assert!(!is_escaped_text("a%4", b""));
        assert!(!is_escaped_text("a%zz", b""));
    }
}
