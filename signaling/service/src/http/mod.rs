//! What the service answers over HTTP: the WebSocket's handshake, the schema, messages of mailboxes, the sign-in of the
//! demo.

mod handshake;
pub(crate) mod origin;
mod voicemail;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use signaling_wire::ErrorCode;

use crate::demo;
use crate::service::Inner;
use crate::whip;

/// How long a schema may be kept, in seconds: a server that is updated may have a newer one.
const SCHEMA_CACHED: &str = "public, max-age=3600";

pub(crate) fn router(inner: Arc<Inner>) -> Router {
    let demo = inner.demo.is_some();
    let schema = json(&signaling_wire::schema());
    let asyncapi = json(&signaling_wire::asyncapi());

    let mut router = Router::new()
        .route("/v1/calls", get(handshake::upgrade))
        .route(
            "/v1/schema/calls.v1.json",
            get(async move || schema.answer()),
        )
        .route(
            "/v1/schema/calls.v1.asyncapi.json",
            get(async move || asyncapi.answer()),
        );
    router = router.merge(whip::router()).merge(voicemail::router());
    if demo {
        router = router.merge(demo::router());
    }

    router.with_state(inner)
}

/// A document that is the same for everybody.
#[derive(Clone)]
struct Document(Arc<str>);

fn json(document: &serde_json::Value) -> Document {
    Document(document.to_string().into())
}

impl Document {
    fn answer(&self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, SCHEMA_CACHED),
        ];

        (headers, self.0.to_string()).into_response()
    }
}

/// A request we decline; the body says why, as an `error` frame does.
pub(crate) struct Declined {
    pub(crate) status: StatusCode,
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl Declined {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }
}

impl IntoResponse for Declined {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            code: ErrorCode,
            message: String,
        }

        let body = Body {
            code: self.code,
            message: self.message,
        };
        (self.status, axum::Json(body)).into_response()
    }
}
