//! The handshake of the WebSocket (RFC 6455 §4.2).

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use signaling_wire::{ErrorCode, SUBPROTOCOL};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Declined;
use crate::config::ClientInfo;
use crate::service::Inner;
use crate::socket::{self, Client};

/// How long the key of a handshake is: 16 bytes in base64.
const KEY_LEN: usize = 24;

/// Answers `GET /v1/calls`: checks everything that needs no token, cheapest first, then hands the socket to its task.
pub(super) async fn upgrade(
    State(inner): State<Arc<Inner>>,
    Extension(client): Extension<ClientInfo>,
    request: Request,
) -> Result<Response, Declined> {
    let upgraded = try_upgrade(&inner, client, request);
    if let Err(declined) = &upgraded {
        inner.figures.upgrade_refused(declined.code);
    }
    upgraded
}

fn try_upgrade(
    inner: &Arc<Inner>,
    client: ClientInfo,
    mut request: Request,
) -> Result<Response, Declined> {
    if !inner.is_ready() {
        return Err(Declined::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Internal,
            "the server is about to restart",
        ));
    }

    inner.check_origin(request.headers(), &client.host)?;
    let key = read_handshake(request.headers())?;

    let Some(slot) = inner.addresses.open(client.ip) else {
        tracing::debug!(address = %client.ip, "Too many sockets or wrong tokens of an address");
        return Err(Declined::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::RateLimited,
            "too many connections or refused tokens from this address",
        ));
    };

    let upgrade = hyper::upgrade::on(&mut request);
    let client = Client {
        ip: client.ip,
        host: client.host.into(),
        slot,
    };
    inner
        .sockets
        .spawn(socket::run(Arc::clone(inner), upgrade, client));

    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, key),
        (
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        ),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Checks the client's part (RFC 6455 §4.2.1) and returns what answers its key.
fn read_handshake(headers: &HeaderMap) -> Result<HeaderValue, Declined> {
    let not_websocket = |status, message: &str| Declined::new(status, ErrorCode::BadFrame, message);

    if !has_token(headers, header::UPGRADE, "websocket")
        || !has_token(headers, header::CONNECTION, "upgrade")
    {
        return Err(not_websocket(
            StatusCode::UPGRADE_REQUIRED,
            "this address speaks WebSocket",
        ));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&HeaderValue::from_static("13")) {
        return Err(not_websocket(
            StatusCode::UPGRADE_REQUIRED,
            "Sec-WebSocket-Version is not 13",
        ));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == KEY_LEN)
        .ok_or_else(|| {
            not_websocket(
                StatusCode::BAD_REQUEST,
                "Sec-WebSocket-Key is not 16 bytes in base64",
            )
        })?;
    if !has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(not_websocket(
            StatusCode::BAD_REQUEST,
            "Sec-WebSocket-Protocol does not offer calls.v1",
        ));
    }

    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| {
        not_websocket(
            StatusCode::BAD_REQUEST,
            "Sec-WebSocket-Key can't be answered",
        )
    })
}

/// Whether a header's comma-separated list has `token`, in whichever case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}
