//! What a message must be before anything is kept or decided for it.
//!
//! [`check`] looks at version, mandatory headers, CSeq, Content-Length, Max-Forwards and Request-URI, in the order of
//! RFC 3261 §16.3 and §18.3. What fails gets a [`Cause`] to count, and an answer where the grammar leaves enough to make one.

use crate::text;
use crate::{
    DecodeError, Envelope, HeaderName, Message, Method, Request, Response, StatusCode, Uri,
};

/// A message that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A request, its Request-URI and its envelope.
    Request(Box<IncomingRequest>),
    /// A response and its envelope.
    Response(Box<IncomingResponse>),
}

/// A request that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingRequest {
    /// The request; its body is as long as Content-Length says.
    pub request: Request,
    /// The Request-URI.
    pub uri: Uri,
    /// The headers every message has.
    pub envelope: Envelope,
}

/// A response that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingResponse {
    /// The response; its body is as long as Content-Length says.
    pub response: Response,
    /// The headers every message has.
    pub envelope: Envelope,
}

/// How messages are told apart where this one came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One in a datagram: Content-Length may be missing, and what follows the body is no part of it (RFC 3261 §18.3).
    Datagram,
    /// Cut out of a stream by its Content-Length.
    Stream,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Not even its lines could be read.
    Unreadable,
    /// A version that is not 2.0.
    Version,
    /// A mandatory header is missing.
    HeaderMissing,
    /// A mandatory header is malformed or comes twice.
    HeaderMalformed,
    /// CSeq counts another method.
    MethodMismatch,
    /// Content-Length is malformed, comes twice, is missing on a stream, or is more than there is.
    ContentLength,
    /// The Request-URI is malformed.
    RequestUri,
    /// The Request-URI has a scheme we don't speak.
    UriScheme,
}

impl Cause {
    /// All causes, for counters.
    pub const ALL: [Self; 8] = [
        Self::Unreadable,
        Self::Version,
        Self::HeaderMissing,
        Self::HeaderMalformed,
        Self::MethodMismatch,
        Self::ContentLength,
        Self::RequestUri,
        Self::UriScheme,
    ];

    /// A word for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Version => "version",
            Self::HeaderMissing => "header_missing",
            Self::HeaderMalformed => "header_malformed",
            Self::MethodMismatch => "method_mismatch",
            Self::ContentLength => "content_length",
            Self::RequestUri => "request_uri",
            Self::UriScheme => "uri_scheme",
        }
    }
}

/// A message that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Why.
    pub cause: Cause,
    /// What to answer: nothing to a response, to an ACK, and where an answer would not find its way.
    pub answer: Option<Box<Response>>,
}

/// Reads and checks one message. `tag` is for the To of an answer; it needs no secret.
///
/// # Errors
///
/// [`Unfit`], with the cause and what to answer.
pub fn check(bytes: &[u8], framing: Framing, tag: &str) -> Result<Incoming, Unfit> {
    let silent = |cause| Unfit {
        cause,
        answer: None,
    };
    let mut message = Message::parse(bytes).map_err(|_| silent(Cause::Unreadable))?;

    let envelope = Envelope::parse(message.headers());
    let content = content_length(&message, framing);
    if let Some(len) = content {
        message.body_mut().truncate(len);
    }
    let request = match message {
        Message::Response(response) => {
            let envelope = envelope.map_err(|error| silent(header_cause(error)))?;
            content.ok_or(silent(Cause::ContentLength))?;
            return Ok(Incoming::Response(Box::new(IncomingResponse {
                response,
                envelope,
            })));
        }
        Message::Request(request) => request,
    };

    let refuse = |cause, code| Unfit {
        cause,
        answer: answer(&request, code, tag),
    };
    let bad = |cause| refuse(cause, StatusCode::BAD_REQUEST);
    if !request.version.eq_ignore_ascii_case("SIP/2.0") {
        let code = if is_version(&request.version) {
            StatusCode::VERSION_NOT_SUPPORTED
        } else {
            StatusCode::BAD_REQUEST
        };
        return Err(refuse(Cause::Version, code));
    }
    let envelope = envelope.map_err(|error| bad(header_cause(error)))?;
    if envelope.cseq.method != request.method {
        return Err(bad(Cause::MethodMismatch));
    }
    content.ok_or_else(|| bad(Cause::ContentLength))?;
    // A number that is none, or that no clock could take, is refused where it would be relied on.
    let expires = request.headers.get(&HeaderName::Expires).is_some();
    if expires && request.headers.number(&HeaderName::Expires).is_none() {
        return Err(bad(Cause::HeaderMalformed));
    }
    for name in [
        HeaderName::Contact,
        HeaderName::Route,
        HeaderName::RecordRoute,
    ] {
        // `Contact: *` takes all registrations back.
        let all = name == HeaderName::Contact && request.method == Method::Register;
        if all && request.headers.get(&name) == Some("*") {
            continue;
        }
        request
            .headers
            .addresses(&name)
            .map_err(|_| bad(Cause::HeaderMalformed))?;
    }
    let uri = match Uri::parse(&request.target) {
        Ok(Uri::Other(_)) => {
            return Err(refuse(Cause::UriScheme, StatusCode::UNSUPPORTED_URI_SCHEME));
        }
        // Headers in a Request-URI have no meaning and no place there (RFC 3261 §19.1.1).
        Ok(Uri::Sip(uri)) if uri.headers.is_some() => return Err(bad(Cause::RequestUri)),
        Ok(uri) => uri,
        Err(_) => return Err(bad(Cause::RequestUri)),
    };
    Ok(Incoming::Request(Box::new(IncomingRequest {
        request,
        uri,
        envelope,
    })))
}

/// The length of the body; `None` when it can't be told, or the bytes are fewer.
fn content_length(message: &Message, framing: Framing) -> Option<usize> {
    let (headers, body) = match message {
        Message::Request(request) => (&request.headers, &request.body),
        Message::Response(response) => (&response.headers, &response.body),
    };
    match headers.single(&HeaderName::ContentLength).ok()? {
        Some(value) => {
            let len = usize::try_from(text::decimal(value, u64::from(u32::MAX))?).ok()?;
            (len <= body.len()).then_some(len)
        }
        None => (framing == Framing::Datagram).then_some(body.len()),
    }
}

fn header_cause(error: DecodeError) -> Cause {
    match error {
        DecodeError::Truncated { .. } => Cause::HeaderMissing,
        _ => Cause::HeaderMalformed,
    }
}

fn is_version(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let version = text
        .get(..4)
        .filter(|sip| sip.eq_ignore_ascii_case("SIP/"))
        .map(|sip| &text[sip.len()..]);
    version
        .and_then(|version| version.split_once('.'))
        .is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// An answer, when the request says where it is to go and which request it answers. Nothing answers an ACK.
fn answer(request: &Request, code: StatusCode, tag: &str) -> Option<Box<Response>> {
    let headers = &request.headers;
    let via = headers.list(&HeaderName::Via).ok()?;
    let answerable = request.method != Method::Ack
        && via
            .first()
            .is_some_and(|via| crate::Via::parse(via).is_ok())
        && [
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
        ]
        .iter()
        .all(|name| headers.get(name).is_some());
    answerable.then(|| Box::new(Response::to(request, code, tag)))
}
