//! What every message must have, as values.

use std::fmt;

use crate::text;
use crate::{DecodeError, HeaderName, Headers, Method, NameAddr, Via};

/// What Max-Forwards begins with, and what is taken for it where it is missing (RFC 3261 §8.1.1.6).
pub const MAX_FORWARDS_DEFAULT: u8 = 70;

/// The headers that every request and response has (RFC 3261 §8.1.1), read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The topmost Via.
    pub via: Via,
    /// From.
    pub from: NameAddr,
    /// To.
    pub to: NameAddr,
    /// Call-ID.
    pub call_id: String,
    /// CSeq.
    pub cseq: CSeq,
    /// Max-Forwards.
    pub max_forwards: u8,
}

impl Envelope {
    /// Reads the envelope; all Via values are looked at.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] naming the header that is missing ([`DecodeError::Truncated`]), comes twice or is malformed.
    pub fn parse(headers: &Headers) -> Result<Self, DecodeError> {
        let required =
            |name: &HeaderName, what| headers.single(name)?.ok_or(DecodeError::Truncated { what });
        let mut vias = headers.list(&HeaderName::Via)?.into_iter();
        let via = vias.next().ok_or(DecodeError::Truncated { what: "Via" })?;
        let via = Via::parse(via)?;
        vias.try_for_each(|via| Via::parse(via).map(drop))?;
        let call_id = required(&HeaderName::CallId, "Call-ID")?;
        if !is_call_id(call_id) {
            return Err(DecodeError::malformed("Call-ID"));
        }
        let max_forwards = match headers.single(&HeaderName::MaxForwards)? {
            None => MAX_FORWARDS_DEFAULT,
            Some(value) => text::decimal(value, 255)
                .and_then(|value| u8::try_from(value).ok())
                .ok_or(DecodeError::malformed("Max-Forwards"))?,
        };
        Ok(Self {
            via,
            from: NameAddr::parse(required(&HeaderName::From, "From")?, "From")?,
            to: NameAddr::parse(required(&HeaderName::To, "To")?, "To")?,
            call_id: call_id.to_owned(),
            cseq: CSeq::parse(required(&HeaderName::CSeq, "CSeq")?)?,
            max_forwards,
        })
    }
}

/// A number and the method it counts (RFC 3261 §20.16).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CSeq {
    /// Below 2^31.
    pub number: u32,
    /// The method.
    pub method: Method,
}

impl CSeq {
    /// Reads the value.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Malformed`].
    pub fn parse(value: &str) -> Result<Self, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::malformed("CSeq");
        let (number, method) = value.split_once([' ', '\t']).ok_or(MALFORMED)?;
        let number = sequence(number).ok_or(MALFORMED)?;
        let method = Method::parse(text::trim(method)).ok_or(MALFORMED)?;
        Ok(Self { number, method })
    }
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

/// Which reliable provisional response a PRACK acknowledges (RFC 3262 §7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RAck {
    /// The RSeq of the response.
    pub response: u32,
    /// The CSeq of the response.
    pub cseq: CSeq,
}

impl RAck {
    /// Reads the value.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Malformed`].
    pub fn parse(value: &str) -> Result<Self, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::malformed("RAck");
        let (response, cseq) = value.split_once([' ', '\t']).ok_or(MALFORMED)?;
        let response =
            text::decimal(response, u64::from(u32::MAX)).and_then(|n| u32::try_from(n).ok());
        let cseq = CSeq::parse(text::trim(cseq)).map_err(|_| MALFORMED)?;
        Ok(Self {
            response: response.ok_or(MALFORMED)?,
            cseq,
        })
    }
}

impl fmt::Display for RAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.response, self.cseq)
    }
}

/// Which side renews a session (RFC 4028 §4): the one that sent the request, or the one that answered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresher {
    /// The sender of the request.
    Uac,
    /// The sender of the response.
    Uas,
}

/// For how long a session lives without being renewed, and who renews it (RFC 4028 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionExpires {
    /// Seconds.
    pub seconds: u32,
    /// Who renews; unsaid in some requests.
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// Reads the value.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Malformed`].
    pub fn parse(value: &str) -> Result<Self, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::malformed("Session-Expires");
        let (seconds, params) = match value.split_once(';') {
            Some((seconds, params)) => (
                seconds,
                crate::Params::parse_header(params, "Session-Expires")?,
            ),
            None => (value, crate::Params::new()),
        };
        let seconds = text::decimal(text::trim(seconds), u64::from(u32::MAX))
            .and_then(|n| u32::try_from(n).ok());
        let refresher = match params
            .get("refresher")
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            None => None,
            Some("uac") => Some(Refresher::Uac),
            Some("uas") => Some(Refresher::Uas),
            Some(_) => return Err(MALFORMED),
        };
        Ok(Self {
            seconds: seconds.ok_or(MALFORMED)?,
            refresher,
        })
    }
}

impl fmt::Display for SessionExpires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seconds.fmt(f)?;
        match self.refresher {
            None => Ok(()),
            Some(Refresher::Uac) => f.write_str(";refresher=uac"),
            Some(Refresher::Uas) => f.write_str(";refresher=uas"),
        }
    }
}

/// A sequence number: below 2^31 (RFC 3261 §8.1.1.5).
fn sequence(text: &str) -> Option<u32> {
    text::decimal(text, (1 << 31) - 1).and_then(|number| u32::try_from(number).ok())
}

/// `word ["@" word]`.
fn is_call_id(text: &str) -> bool {
    let is_word = |word: &str| {
        let is_char =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~()<>:\\\"/[]?{}".contains(&byte);
        !word.is_empty() && word.bytes().all(is_char)
    };
    match text.split_once('@') {
        Some((left, right)) => is_word(left) && is_word(right),
        None => is_word(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_have_31_bits() {
        let cseq = |value| CSeq::parse(value).ok().map(|cseq| cseq.to_string());
        assert_eq!(cseq("0009  INVITE").as_deref(), Some("9 INVITE"));
        assert_eq!(cseq("2147483647 ACK").as_deref(), Some("2147483647 ACK"));
        for wrong in [
            "",
            "1",
            "INVITE",
            "2147483648 ACK",
            "-1 ACK",
            "1 A B",
            "36893488147419103232 REGISTER",
        ] {
            assert_eq!(cseq(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn values_are_written_as_they_were_read() {
        assert_eq!(
            RAck::parse("4294967295 7 INVITE")
                .map(|v| v.to_string())
                .as_deref(),
            Ok("4294967295 7 INVITE")
        );
        assert!(RAck::parse("1 INVITE").is_err());
        for value in ["1800", "90;refresher=uac", "90;refresher=uas"] {
            assert_eq!(
                SessionExpires::parse(value)
                    .map(|v| v.to_string())
                    .as_deref(),
                Ok(value)
            );
        }
        assert!(SessionExpires::parse("90;refresher=me").is_err());
        assert!(SessionExpires::parse("-1").is_err());
    }
}
