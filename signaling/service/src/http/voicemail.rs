//! What was said in a message: `GET /v1/voicemail/<id>`, with the access token of somebody whose mailbox it is in, whole or by ranges
//! (RFC 9110 §14).

use std::ops::Range;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use backing::objects::voicemail_key;
use bytes::Bytes;
use model::VoicemailId;
use model::phone::rows::SoundFormat;
use signaling_wire::ErrorCode;
use tokio::sync::OwnedSemaphorePermit;

use crate::config::ClientInfo;
use crate::service::Inner;
use crate::telephony;
use crate::whip::problem::Problem;
use crate::whip::{cors, ensure_few_wrong_tokens, verify};

const METHODS: &str = "GET, HEAD, OPTIONS";

/// The bytes of a message, and its place among those that are sent.
struct Sent {
    bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(super) fn router() -> Router<Arc<Inner>> {
    Router::new().route("/v1/voicemail/{id}", any(answer))
}

async fn answer(
    State(inner): State<Arc<Inner>>,
    Extension(client): Extension<ClientInfo>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let headers = request.headers();
    if let Err(declined) = inner.check_origin(headers, &client.host) {
        return declined.into_response();
    }
    let answered = match *request.method() {
        Method::GET | Method::HEAD => sound(&inner, &client, &id, headers).await,
        Method::OPTIONS => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            cors::describe(&mut response, METHODS, None);
            Ok(response)
        }
        _ => Ok((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, METHODS)]).into_response()),
    };
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    cors::allow(response.headers_mut(), headers.get(header::ORIGIN));
    response
}

async fn sound(
    inner: &Inner,
    client: &ClientInfo,
    id: &str,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    ensure_few_wrong_tokens(inner, client)?;
    let verified = verify(inner, client, headers).await?;
    if verified.expired {
        let why = "the access token has expired".to_owned();
        return Err(Problem::invalid_token(ErrorCode::TokenExpired, why));
    }

    let id: VoicemailId = id.parse().map_err(|_| unknown())?;
    let telephones = inner.telephones.get().ok_or_else(unknown)?;
    let whose = (verified.account, &verified.claims.sub);
    let found = telephony::find(&inner.records, Some(telephones), whose, id).await;
    let (message, _) = found.map_err(|error| broken(&error))?.ok_or_else(unknown)?;
    let place = Arc::clone(&inner.voicemails).try_acquire_owned();
    let place = place.map_err(|_| Problem::too_many("too many messages are being listened to"))?;
    let key = voicemail_key(verified.account, id, message.format);
    let bytes = telephones
        .objects
        .get(&key)
        .await
        .map_err(|error| broken(&error))?;
    let bytes = Bytes::from_owner(Sent {
        bytes: bytes.ok_or_else(unknown)?,
        _place: place,
    });

    let mut response = part(headers, id, bytes, message.format);
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Who deletes it wants it to be gone.
    let uncached = HeaderValue::from_static("private, no-store");
    headers.insert(header::CACHE_CONTROL, uncached);
    let as_told = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, as_told);
    Ok(response)
}

fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        ErrorCode::UnknownVoicemail.as_str(),
        "no such message in a mailbox of the user",
    )
}

fn broken(error: &anyhow::Error) -> Problem {
    tracing::error!(error = format!("{error:#}"), "A message can't be read");
    Problem::internal("the message can't be read")
}

/// The whole of a message, or what `Range` asks for.
fn part(asked: &HeaderMap, id: VoicemailId, bytes: Bytes, format: SoundFormat) -> Response {
    let tag = format!("\"{id}\"");
    let text = |name| asked.get(name).and_then(|value| value.to_str().ok());
    // What was said never changes, so a range of another version is of another message (RFC 9110 §13.1.5).
    let is_current = text(header::IF_RANGE).is_none_or(|version| version == tag);
    let range = text(header::RANGE).filter(|_| is_current);
    let media_type = match format {
        SoundFormat::Wav => "audio/wav",
        SoundFormat::OggOpus => "audio/ogg",
    };
    let described = [
        (header::CONTENT_TYPE, media_type),
        (header::ETAG, tag.as_str()),
    ];
    let len = bytes.len();
    match range.map_or(Asked::Whole, |range| Asked::read(range, len)) {
        Asked::Whole => (described, bytes).into_response(),
        Asked::Part(range) => {
            let told = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            let told = [(header::CONTENT_RANGE, told)];
            let part = bytes.slice(range);
            (StatusCode::PARTIAL_CONTENT, told, described, part).into_response()
        }
        Asked::Beyond => {
            let told = [(header::CONTENT_RANGE, format!("bytes */{len}"))];
            (StatusCode::RANGE_NOT_SATISFIABLE, told).into_response()
        }
    }
}

/// What a `Range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    /// Not empty, and within what there is.
    Part(Range<usize>),
    /// All of it lies behind the end.
    Beyond,
}

impl Asked {
    /// Reads a `Range` about `len` bytes. One of several parts, or that can't be read, is answered with the whole, as the server may
    /// (RFC 9110 §14.2).
    fn read(range: &str, len: usize) -> Self {
        let bounds = range
            .trim()
            .strip_prefix("bytes=")
            .and_then(|bounds| bounds.split_once('-'));
        let Some((first, last)) = bounds else {
            return Self::Whole;
        };
        let (first, last) = (first.trim(), last.trim());
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // More digits than a number has are as good as the largest one.
            is_number.then(|| text.parse().unwrap_or(usize::MAX))
        };
        let (start, end) = match (number(first), number(last)) {
            (Some(first), Some(last)) if first > last => return Self::Whole,
            (Some(first), Some(last)) => (first, last.saturating_add(1).min(len)),
            (Some(first), None) if last.is_empty() => (first, len),
            // The last so many.
            (None, Some(0)) if first.is_empty() => return Self::Beyond,
            (None, Some(count)) if first.is_empty() => (len.saturating_sub(count), len),
            _ => return Self::Whole,
        };
        if start < end {
            Self::Part(start..end)
        } else {
            Self::Beyond
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_part_of_what_there_is() {
        let check = |range: &str, expected: Asked| {
            assert_eq!(Asked::read(range, 10), expected, "{range}");
        };
        check("bytes=0-3", Asked::Part(0..4));
        check("bytes=9-9", Asked::Part(9..10));
        check("bytes=4-", Asked::Part(4..10));
        check("bytes=-3", Asked::Part(7..10));
        check("bytes=-30", Asked::Part(0..10));
        check("bytes=2-99999999999999999999999", Asked::Part(2..10));
        check("bytes=10-", Asked::Beyond);
        check("bytes=-0", Asked::Beyond);
        check("bytes=99999999999999999999999-", Asked::Beyond);
        for whole in [
            "bytes=3-2",
            "bytes=0-1,4-5",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "items=0-1",
            "",
        ] {
            check(whole, Asked::Whole);
        }
        assert_eq!(Asked::read("bytes=0-", 0), Asked::Beyond);
    }
}
