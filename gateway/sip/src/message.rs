//! Messages as text: a start line, headers, a body (RFC 3261 §7).

use std::fmt;

use crate::header::{HEADERS_MAX, VALUE_LEN_MAX};
use crate::text;
use crate::{DecodeError, HeaderName, Headers, Method, StatusCode, Uri};

/// The longest message that is read, in bytes: what fits a UDP datagram, over TCP too.
pub const MESSAGE_LEN_MAX: usize = 65_535;

/// A request or a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks for something.
    Request(Request),
    /// Answers a request.
    Response(Response),
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// The Request-URI as text; [`crate::sanity::check`] has looked at it.
    pub target: String,
    /// The headers.
    pub headers: Headers,
    /// The body; in a message that was only parsed, all that follows the headers.
    pub body: Vec<u8>,
    /// `SIP/2.0`, or what stands in its place.
    pub(crate) version: String,
}

/// A response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub code: StatusCode,
    /// The words behind it.
    pub reason: String,
    /// The headers.
    pub headers: Headers,
    /// The body; in a message that was only parsed, all that follows the headers.
    pub body: Vec<u8>,
}

const VERSION: &str = "SIP/2.0";

impl Message {
    /// Reads the start line and the headers of one message; the body is what follows, whatever Content-Length says.
    /// Nothing is asked of the headers but their form: [`crate::sanity::check`] does the rest.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that no answer could be made to: no start line of either kind, a header line without a
    /// name, text that is not UTF-8, a line end that is not CRLF, or a limit passed ([`MESSAGE_LEN_MAX`],
    /// [`HEADERS_MAX`], [`VALUE_LEN_MAX`]).
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(DecodeError::TooLong {
                what: "message",
                max: MESSAGE_LEN_MAX,
            });
        }
        // Empty lines in front are no part of it (RFC 3261 §7.5).
        let mut bytes = bytes;
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.ok_or(DecodeError::Truncated { what: "header" })?;
        let (head, body) = (&bytes[..end], bytes[end + 4..].to_vec());
        let head = str::from_utf8(head).map_err(|_| DecodeError::malformed("header"))?;
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default();
        if start.contains(|c: char| c.is_ascii_control()) {
            return Err(DecodeError::malformed("start line"));
        }
        let headers = parse_headers(lines)?;
        match start.get(..4) {
            Some(sip) if sip.eq_ignore_ascii_case("SIP/") => {
                let (code, reason) =
                    parse_status(start).ok_or(DecodeError::malformed("start line"))?;
                Ok(Self::Response(Response {
                    code,
                    reason,
                    headers,
                    body,
                }))
            }
            _ => {
                let (method, rest) = start
                    .split_once(' ')
                    .ok_or(DecodeError::malformed("start line"))?;
                let (target, version) = rest
                    .rsplit_once(' ')
                    .ok_or(DecodeError::malformed("start line"))?;
                let method = Method::parse(method).ok_or(DecodeError::malformed("start line"))?;
                let (target, version) = (target.to_owned(), version.to_owned());
                Ok(Self::Request(Request {
                    method,
                    target,
                    headers,
                    body,
                    version,
                }))
            }
        }
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    pub(crate) fn body_mut(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Request(request) => &mut request.body,
            Self::Response(response) => &mut response.body,
        }
    }

    /// The message as it is sent, with the Content-Length its body has.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }
}

impl Request {
    /// A request without headers.
    #[must_use]
    pub fn new(method: Method, target: &Uri) -> Self {
        Self {
            method,
            target: target.to_string(),
            headers: Headers::new(),
            body: Vec::new(),
            version: VERSION.into(),
        }
    }

    /// The request as it is sent, with the Content-Length its body has.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let start = format!("{} {} {}", self.method, self.target, self.version);
        write(&start, &self.headers, &self.body)
    }
}

impl Response {
    /// An answer to `request` with what every answer takes from it: Via, From, To, Call-ID and CSeq, and in an answer to
    /// INVITE, SUBSCRIBE or REFER that makes a dialog, Record-Route (RFC 3261 §8.2.6.2, §12.1.1).
    ///
    /// `tag` goes into To where there is none yet; 100 carries none.
    #[must_use]
    pub fn to(request: &Request, code: StatusCode, tag: &str) -> Self {
        let makes_dialog = matches!(
            request.method,
            Method::Invite | Method::Subscribe | Method::Refer
        ) && code != StatusCode::TRYING
            && code < StatusCode::MULTIPLE_CHOICES;
        let mut headers = Headers::new();
        for (name, value) in request.headers.iter() {
            match name {
                HeaderName::To if code != StatusCode::TRYING => {
                    headers.push(HeaderName::To, with_tag(value, tag));
                }
                HeaderName::Via
                | HeaderName::From
                | HeaderName::To
                | HeaderName::CallId
                | HeaderName::CSeq => {
                    headers.push(name.clone(), value);
                }
                HeaderName::RecordRoute if makes_dialog => headers.push(name.clone(), value),
                _ => {}
            }
        }
        Self {
            code,
            reason: code.reason().to_owned(),
            headers,
            body: Vec::new(),
        }
    }

    /// The response as it is sent, with the Content-Length its body has.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let start = format!("{VERSION} {} {}", self.code, self.reason);
        write(&start, &self.headers, &self.body)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} and {} bytes",
            self.method,
            self.headers,
            self.body.len()
        )
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} and {} bytes",
            self.code,
            self.headers,
            self.body.len()
        )
    }
}

fn parse_status(line: &str) -> Option<(StatusCode, String)> {
    let rest = line
        .get(..VERSION.len())
        .filter(|version| version.eq_ignore_ascii_case(VERSION));
    let rest = rest.and_then(|version| line[version.len()..].strip_prefix(' '))?;
    // Many leave the blank out where there are no words.
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let code = (code.len() == 3)
        .then(|| text::decimal(code, 699))
        .flatten()?;
    Some((
        StatusCode::new(u16::try_from(code).ok()?)?,
        reason.to_owned(),
    ))
}

/// Header lines; one that begins with a blank continues the one before it (RFC 3261 §7.3.1).
fn parse_headers<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Headers, DecodeError> {
    let mut parsed = Headers::new();
    let mut current: Option<(HeaderName, String)> = None;
    let too_long = DecodeError::TooLong {
        what: "header",
        max: VALUE_LEN_MAX,
    };
    for line in lines {
        if has_wrong_control(line) {
            return Err(DecodeError::malformed("header"));
        }
        if line.starts_with([' ', '\t']) {
            let (_, value) = current.as_mut().ok_or(DecodeError::malformed("header"))?;
            let more = text::trim(line);
            if !value.is_empty() && !more.is_empty() {
                value.push(' ');
            }
            value.push_str(more);
            if value.len() > VALUE_LEN_MAX {
                return Err(too_long);
            }
            continue;
        }
        if let Some((name, value)) = current.take() {
            parsed.push(name, value);
        }
        if parsed.len() == HEADERS_MAX {
            return Err(DecodeError::TooMany {
                what: "headers",
                max: HEADERS_MAX,
            });
        }
        let (name, value) = line
            .split_once(':')
            .ok_or(DecodeError::malformed("header"))?;
        let name =
            HeaderName::parse(text::trim(name)).ok_or(DecodeError::malformed("header name"))?;
        if value.len() > VALUE_LEN_MAX {
            return Err(too_long);
        }
        current = Some((name, text::trim(value).to_owned()));
    }
    if let Some((name, value)) = current {
        parsed.push(name, value);
    }
    Ok(parsed)
}

/// A control character where no quoted pair may hold it: everywhere but behind a backslash. Line ends are no part of a
/// quoted pair either (RFC 3261 §25.1).
fn has_wrong_control(line: &str) -> bool {
    let mut escaped = false;
    line.bytes().any(|byte| {
        let wrong = byte == b'\r'
            || byte == b'\n'
            || (byte.is_ascii_control() && byte != b'\t' && !escaped);
        escaped = byte == b'\\' && !escaped;
        wrong
    })
}

/// A To with a tag: `value` as it stands when it has one.
fn with_tag(value: &str, tag: &str) -> String {
    match crate::NameAddr::parse(value, "To") {
        Ok(to) if to.tag().is_none() => to.with_tag(tag).to_string(),
        _ => value.to_owned(),
    }
}

fn write(start: &str, headers: &Headers, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(start.len() + body.len() + headers.len() * 64);
    out.extend_from_slice(start.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers
        .iter()
        .filter(|(name, _)| **name != HeaderName::ContentLength)
    {
        for part in [name.as_str(), ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        match Message::parse(text.replace('\n', "\r\n").as_bytes()) {
            Ok(Message::Request(request)) => request,
            other => panic!("no request: {other:?}"),
        }
    }

    #[test]
    fn a_message_is_written_as_it_was_read() {
        let text = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nx-other: ;;,\r\nContent-Length: 4\r\n\r\nbody";
        let message = Message::parse(text.as_bytes()).expect("it is right");
        assert_eq!(String::from_utf8(message.to_bytes()).as_deref(), Ok(text));
        let text = "SIP/2.0 200 = 2**3 \u{416}\r\nVia: SIP/2.0/UDP h\r\nContent-Length: 0\r\n\r\n";
        let message = Message::parse(text.as_bytes()).expect("it is right");
        assert_eq!(String::from_utf8(message.to_bytes()).as_deref(), Ok(text));
    }

    #[test]
    fn folds_become_blanks_and_names_have_compact_forms() {
        let request =
            request("\n\nOPTIONS sip:a SIP/2.0\nv  : SIP/2.0/UDP\n    h\n\t;branch=1\ns :\n\n");
        assert_eq!(
            request.headers.get(&HeaderName::Via),
            Some("SIP/2.0/UDP h ;branch=1")
        );
        assert_eq!(request.headers.get(&HeaderName::Subject), Some(""));
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let many = format!("A b SIP/2.0\r\n{}\r\n", "x: y\r\n".repeat(HEADERS_MAX + 1));
        let long = format!(
            "A b SIP/2.0\r\nx: {}\r\n\r\n",
            "y".repeat(VALUE_LEN_MAX + 1)
        );
        let folded = format!(
            "A b SIP/2.0\r\nx: y\r\n{}\r\n",
            format!(" {}\r\n", "y".repeat(1_000)).repeat(9)
        );
        let whole = "x".repeat(MESSAGE_LEN_MAX + 1);
        for wrong in [
            "",
            "\r\n\r\n",
            "A b SIP/2.0\r\n",
            "A b SIP/2.0\n\n",
            "A\r\n\r\n",
            "A B\r\n\r\n",
            " b SIP/2.0\r\n\r\n",
            "A b SIP/2.0\r\nno colon\r\n\r\n",
            "A b SIP/2.0\r\n fold\r\n\r\n",
            "A b SIP/2.0\r\nx: a\rb\r\n\r\n",
            "A b SIP/2.0\r\nx: a\nVia: b\r\n\r\n",
            "A b SIP/2.0\r\nx: a\0b\r\n\r\n",
            "A b SIP/2.0\r\nx y: a\r\n\r\n",
            "SIP/2.0 4294967301 Big\r\n\r\n",
            "SIP/2.0 99 x\r\n\r\n",
            "SIP/2.0 700 x\r\n\r\n",
            "SIP/3.0 200 OK\r\n\r\n",
            &many,
            &long,
            &folded,
            &whole,
        ] {
            assert!(
                Message::parse(wrong.as_bytes()).is_err(),
                "{}",
                &wrong[..wrong.len().min(60)]
            );
        }
        assert!(Message::parse(b"A b SIP/2.0\r\nx: \xff\r\n\r\n").is_err());
        assert!(Message::parse(b"A b SIP/2.0\r\nx: \"\\\x07\\\x00\"\r\n\r\n").is_ok());
    }

    #[test]
    fn an_answer_takes_what_it_must_from_its_request() {
        let invite = request(
            "INVITE sip:a@b SIP/2.0\nVia: SIP/2.0/UDP p;branch=1\nVia: SIP/2.0/UDP h\nRecord-Route: <sip:p;lr>\nFrom: <sip:x>;tag=1\n\
             To: sip:a@b\nCall-ID: c\nCSeq: 7 INVITE\nContact: <sip:x>\nMax-Forwards: 70\n\n",
        );
        let names = |code, tag| -> Vec<String> {
            let response = Response::to(&invite, code, tag);
            response
                .headers
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        let common = ["Via=SIP/2.0/UDP p;branch=1", "Via=SIP/2.0/UDP h"];
        let rest = [
            "From=<sip:x>;tag=1",
            "To=<sip:a@b>;tag=t",
            "Call-ID=c",
            "CSeq=7 INVITE",
        ];
        assert_eq!(
            names(StatusCode::BUSY_HERE, "t"),
            [&common[..], &rest].concat()
        );
        let record = ["Record-Route=<sip:p;lr>"];
        assert_eq!(
            names(StatusCode::OK, "t"),
            [&common[..], &record, &rest].concat()
        );
        assert_eq!(names(StatusCode::TRYING, "t")[3], "To=sip:a@b");
    }
}
