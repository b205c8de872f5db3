//! Why a request is refused, as a problem detail (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use signaling_wire::room::RefusedMedia;
use signaling_wire::whip::{FragmentError, OfferError, Purpose};
use signaling_wire::{ErrorCode, ErrorData};

use crate::tokens::TokenRefusal;

/// After how many seconds a client that came too early may ask again.
const RETRY_SOON: u32 = 5;
/// The same where a limit is reached, or the server restarts.
const RETRY_LATER: u32 = 15;

/// A refusal: its status, a stable code, and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    /// In seconds.
    retry_after: Option<u32>,
    /// What `WWW-Authenticate` says.
    challenge: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after: None,
            challenge: None,
        }
    }

    const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The server is about to restart.
    pub(crate) fn draining() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "the server is about to restart",
        )
        .retry_after(RETRY_LATER)
    }

    pub(crate) fn too_many(detail: &'static str) -> Self {
        let code = ErrorCode::RateLimited.as_str();
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail).retry_after(RETRY_LATER)
    }

    pub(crate) fn unknown_session() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_session",
            "no such session, or it has ended",
        )
    }

    /// No token.
    pub(crate) fn unauthenticated() -> Self {
        let code = ErrorCode::Unauthorized.as_str();
        let detail = "an access token is needed: Authorization: Bearer …";
        let problem = Self::new(StatusCode::UNAUTHORIZED, code, detail);
        Self {
            challenge: Some("Bearer"),
            ..problem
        }
    }

    /// A wrong token (RFC 6750 §3.1).
    pub(crate) fn invalid_token(code: ErrorCode, detail: String) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, code.as_str(), detail);
        Self {
            challenge: Some("Bearer error=\"invalid_token\""),
            ..problem
        }
    }

    pub(crate) fn wrong_type(wanted: &'static str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "wrong_type",
            format!("the body has to be {wanted}"),
        )
    }

    pub(crate) fn too_large(len_max: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::TooLarge.as_str(),
            format!("the body is longer than {len_max} bytes"),
        )
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// An `If-Match` is missing (RFC 6585 §3).
    pub(crate) fn precondition_required() -> Self {
        Self::new(
            StatusCode::PRECONDITION_REQUIRED,
            "if_match_required",
            "If-Match has to name the ICE session by its ETag, or be * for an ICE restart",
        )
    }

    /// An `If-Match` names another ICE session.
    pub(crate) fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "if_match_failed",
            "If-Match names another ICE session than the newest one",
        )
    }

    /// A section may not be sent; none is taken then (RFC 9725 §4.4.3).
    pub(crate) fn not_permitted() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            ErrorCode::Forbidden.as_str(),
            "the role in the room does not allow to send all that is offered",
        )
    }

    /// An answer that can't be carried out; our fault.
    pub(crate) fn internal(detail: &'static str) -> Self {
        let code = ErrorCode::Internal.as_str();
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, detail)
    }

    /// What calls.v1 says `error` to.
    pub(crate) fn of_error(error: &ErrorData, purpose: Purpose) -> Self {
        let detail = error.message.clone();
        if let Some(reason) = error.reason {
            return Self::of_media(reason, detail);
        }
        let code = error.code;
        let with = |status| Self::new(status, code.as_str(), detail.clone());
        match code {
            ErrorCode::TokenExpired | ErrorCode::Unauthorized => Self::invalid_token(code, detail),
            ErrorCode::Forbidden
            | ErrorCode::RoomLocked
            | ErrorCode::RoomEncrypted
            | ErrorCode::LobbyDenied => with(StatusCode::FORBIDDEN),
            // A viewer may come before the Room begins (draft-ietf-wish-whep, "Session Management").
            ErrorCode::UnknownRoom if purpose == Purpose::View => {
                with(StatusCode::CONFLICT).retry_after(RETRY_SOON)
            }
            ErrorCode::UnknownRoom | ErrorCode::NotInRoom => with(StatusCode::NOT_FOUND),
            ErrorCode::RoomFull | ErrorCode::TooManySessions => {
                with(StatusCode::SERVICE_UNAVAILABLE).retry_after(RETRY_LATER)
            }
            ErrorCode::RateLimited => with(StatusCode::TOO_MANY_REQUESTS).retry_after(RETRY_SOON),
            ErrorCode::TooLarge => with(StatusCode::PAYLOAD_TOO_LARGE),
            ErrorCode::BadFrame | ErrorCode::BadData | ErrorCode::WeakFingerprint => {
                with(StatusCode::BAD_REQUEST)
            }
            _ => with(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn of_media(reason: RefusedMedia, detail: String) -> Self {
        let (status, code) = match reason {
            RefusedMedia::BadSdp => (StatusCode::BAD_REQUEST, "bad_sdp"),
            RefusedMedia::TooManySections => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too_many_sections")
            }
            RefusedMedia::WeakFingerprint => (StatusCode::UNPROCESSABLE_ENTITY, "weak_fingerprint"),
            RefusedMedia::NoCodec => (StatusCode::UNPROCESSABLE_ENTITY, "no_codec"),
            RefusedMedia::StaleGeneration => (StatusCode::CONFLICT, "stale_generation"),
            RefusedMedia::Full => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            RefusedMedia::UnknownParticipant => (StatusCode::NOT_FOUND, "unknown_participant"),
            RefusedMedia::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
            RefusedMedia::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let problem = Self::new(status, code, detail);
        match status {
            StatusCode::SERVICE_UNAVAILABLE => problem.retry_after(RETRY_LATER),
            _ => problem,
        }
    }
}

impl From<TokenRefusal> for Problem {
    fn from(refusal: TokenRefusal) -> Self {
        if refusal == TokenRefusal::Unavailable {
            let code = ErrorCode::Internal.as_str();
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, code, refusal.to_string())
                .retry_after(RETRY_LATER);
        }
        Self::invalid_token(ErrorCode::Unauthorized, refusal.to_string())
    }
}

impl From<OfferError> for Problem {
    fn from(error: OfferError) -> Self {
        let status = match error {
            OfferError::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            error if error.is_unsupported() => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, "bad_offer", error.to_string())
    }
}

impl From<FragmentError> for Problem {
    fn from(error: FragmentError) -> Self {
        let status = match error {
            FragmentError::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            FragmentError::TooManyCandidates => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, "bad_fragment", error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
            /// Ours: clients may decide by it.
            code: &'static str,
        }

        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
        };
        // Plain fields, which cannot fail.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_calls_v1_is_one_of_http() {
        let check = |code: ErrorCode, purpose: Purpose, status: u16, retries: bool| {
            let problem = Problem::of_error(&ErrorData::new(code, "why"), purpose);
            assert_eq!(problem.status.as_u16(), status, "{code:?}");
            assert_eq!(problem.retry_after.is_some(), retries, "{code:?}");
            assert_eq!(
                (problem.code, problem.detail.as_str()),
                (code.as_str(), "why")
            );
        };
        let (publish, view) = (Purpose::Publish, Purpose::View);

        check(ErrorCode::TokenExpired, publish, 401, false);
        check(ErrorCode::Forbidden, publish, 403, false);
        check(ErrorCode::RoomLocked, view, 403, false);
        check(ErrorCode::RoomEncrypted, view, 403, false);
        check(ErrorCode::LobbyDenied, publish, 403, false);
        check(ErrorCode::UnknownRoom, publish, 404, false);
        check(ErrorCode::UnknownRoom, view, 409, true);
        check(ErrorCode::RoomFull, view, 503, true);
        check(ErrorCode::TooManySessions, view, 503, true);
        check(ErrorCode::RateLimited, publish, 429, true);
        check(ErrorCode::TooLarge, publish, 413, false);
        check(ErrorCode::Internal, publish, 500, false);
        for code in ErrorCode::ALL {
            let problem = Problem::of_error(&ErrorData::new(*code, ""), publish);
            assert!(problem.status.is_client_error() || problem.status.is_server_error());
        }
    }

    #[test]
    fn what_the_sfu_refuses_has_a_reason() {
        let check = |reason: RefusedMedia, status: u16, code: &str, retries: bool| {
            let problem = Problem::of_media(reason, String::new());
            assert_eq!((problem.status.as_u16(), problem.code), (status, code));
            assert_eq!(problem.retry_after.is_some(), retries, "{code}");
        };

        check(RefusedMedia::BadSdp, 400, "bad_sdp", false);
        check(RefusedMedia::NoCodec, 422, "no_codec", false);
        check(
            RefusedMedia::WeakFingerprint,
            422,
            "weak_fingerprint",
            false,
        );
        check(
            RefusedMedia::TooManySections,
            422,
            "too_many_sections",
            false,
        );
        check(RefusedMedia::Full, 503, "full", true);
        check(RefusedMedia::Timeout, 503, "timeout", true);
        check(RefusedMedia::Unavailable, 503, "unavailable", true);
        check(
            RefusedMedia::UnknownParticipant,
            404,
            "unknown_participant",
            false,
        );
    }
}
