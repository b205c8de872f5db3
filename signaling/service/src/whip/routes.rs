//! The two kinds of addresses: endpoints, where sessions begin, and the sessions (RFC 9725 §4.2, §4.3).
//!
//! ```text
//! /v1/whip/<room>            POST an offer: publish      /v1/whep/<room>            POST an offer: view
//! /v1/whip/<room>/<session>  PATCH, DELETE               /v1/whep/<room>/<session>  PATCH, DELETE
//! ```
//!
//! `/v1/whip` and `/v1/whep` alone mean the one Room the access token names.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use model::RoomName;
use serde::Deserialize;
use signaling_wire::whip::{
    FRAGMENT_LEN_MAX, Fragment, OFFER_LEN_MAX, Offer, Precondition, Purpose, bearer, ice_links,
};
use tokio::sync::oneshot;

use super::agent::{Agent, Errand, Patched};
use super::agents::{self, AgentId, Opener, Request as ToAgent};
use super::cors;
use super::problem::Problem;
use super::scene::Scene;
use crate::config::ClientInfo;
use crate::service::Inner;
use crate::tokens::Verified;

const SDP: &str = "application/sdp";
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ENDPOINT_METHODS: &str = "POST, GET, HEAD, OPTIONS";
const SESSION_METHODS: &str = "PATCH, DELETE, GET, HEAD, OPTIONS";

/// The routes of WHIP and WHEP.
pub(crate) fn router() -> Router<Arc<Inner>> {
    Router::new()
        .merge(of_purpose("/v1/whip", Purpose::Publish))
        .merge(of_purpose("/v1/whep", Purpose::View))
}

fn of_purpose(path: &str, purpose: Purpose) -> Router<Arc<Inner>> {
    let unnamed = async move |State(inner), Extension(client), request: Request| {
        at_endpoint(
            inner,
            &client,
            Place {
                purpose,
                room: None,
            },
            request,
        )
        .await
    };
    let named = async move |State(inner), Extension(client), Path(room), request: Request| {
        let room = Some(room);
        at_endpoint(inner, &client, Place { purpose, room }, request).await
    };
    let session = async move |State(inner), Extension(client), Path(path), request: Request| {
        at_session(inner, &client, purpose, path, request).await
    };
    Router::new()
        .route(path, any(unnamed))
        .route(&format!("{path}/{{room}}"), any(named))
        .route(&format!("{path}/{{room}}/{{session}}"), any(session))
}

/// What an endpoint's address says.
struct Place {
    purpose: Purpose,
    room: Option<String>,
}

/// What may stand behind its `?`.
#[derive(Debug, Default, Deserialize)]
struct Choice {
    /// For who publishes: `camera` (the default), or `screen`.
    source: Option<Shown>,
    /// For who views: a User or Participant to be seen and heard alone.
    participant: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shown {
    Camera,
    Screen,
}

async fn at_endpoint(
    inner: Arc<Inner>,
    client: &ClientInfo,
    place: Place,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let answered = match inner.check_origin(&headers, &client.host) {
        Err(declined) => return foreign(&inner, declined),
        Ok(()) if request.method() == Method::POST => begin(&inner, client, place, request).await,
        Ok(()) if request.method() == Method::OPTIONS => {
            let links = offered_servers(&inner, client, &headers).await;
            let mut response = StatusCode::OK.into_response();
            cors::describe(&mut response, ENDPOINT_METHODS, Some((ACCEPT_POST, SDP)));
            link(response.headers_mut(), &links);
            Ok(response)
        }
        // Tells players that this is an endpoint (draft-ietf-wish-whep, "WHEP Endpoint URL Discoverability").
        Ok(()) if is_look(request.method()) => {
            let headers = [(header::CONTENT_TYPE, SDP)];
            Ok((headers, Body::empty()).into_response())
        }
        Ok(()) => Ok(not_allowed(ENDPOINT_METHODS)),
    };
    finish(&inner, &headers, answered)
}

async fn at_session(
    inner: Arc<Inner>,
    client: &ClientInfo,
    purpose: Purpose,
    (room, session): (String, String),
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let place = (purpose, room.as_str(), session.as_str());
    let answered = match inner.check_origin(&headers, &client.host) {
        Err(declined) => return foreign(&inner, declined),
        Ok(()) if request.method() == Method::PATCH => patch(&inner, client, place, request).await,
        Ok(()) if request.method() == Method::DELETE => end(&inner, client, place, &headers).await,
        Ok(()) if request.method() == Method::OPTIONS => {
            let mut response = StatusCode::OK.into_response();
            cors::describe(
                &mut response,
                SESSION_METHODS,
                Some((ACCEPT_PATCH, SDP_FRAGMENT)),
            );
            Ok(response)
        }
        Ok(()) if is_look(request.method()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(()) => Ok(not_allowed(SESSION_METHODS)),
    };
    finish(&inner, &headers, answered)
}

/// Answers an offer; checks what costs least first.
async fn begin(
    inner: &Arc<Inner>,
    client: &ClientInfo,
    place: Place,
    request: Request,
) -> Result<Response, Problem> {
    if !inner.is_ready() {
        return Err(Problem::draining());
    }
    let Some(slot) = inner.addresses.open(client.ip) else {
        tracing::debug!(address = %client.ip, "Too many sockets or wrong tokens of an address");
        return Err(too_many_of_address());
    };
    ensure_type(request.headers(), SDP)?;
    let verified = verify(inner, client, request.headers()).await?;
    let room = room_of(place.room.as_deref(), &verified)?;
    let errand = errand_of(place.purpose, request.uri())?;
    let body = read_body(request.into_body(), OFFER_LEN_MAX).await?;
    let offer = Offer::read(&body, place.purpose)?;

    let path = match place.purpose {
        Purpose::Publish => "whip",
        Purpose::View => "whep",
    };
    let now = inner.clock.now();
    let (account, user) = (verified.account, &verified.claims.sub);
    let servers = inner.ice_servers.for_user(now, account, user, &client.host);
    let agent = Agent::new(room.clone(), errand, offer);
    let opener = Opener {
        verified,
        client,
        slot,
    };
    let opened = agents::open(inner, opener, place.purpose, room.clone(), agent).await?;
    inner.figures.http_session_began(path);

    let session = BASE64_URL_SAFE_NO_PAD.encode(opened.id.0.to_be_bytes());
    let location = format!("/v1/{path}/{room}/{session}");
    let headers = [
        (header::CONTENT_TYPE, SDP),
        (header::LOCATION, location.as_str()),
        (header::ETAG, opened.tag.as_str()),
        (ACCEPT_PATCH, SDP_FRAGMENT),
    ];
    let mut response = (StatusCode::CREATED, headers, opened.answer).into_response();
    let links: Vec<String> = servers.iter().flat_map(ice_links).collect();
    link(response.headers_mut(), &links);
    Ok(response)
}

/// Carries out a trickle of candidates or an ICE restart.
async fn patch(
    inner: &Arc<Inner>,
    client: &ClientInfo,
    place: (Purpose, &str, &str),
    request: Request,
) -> Result<Response, Problem> {
    ensure_few_wrong_tokens(inner, client)?;
    let verified = verify(inner, client, request.headers()).await?;
    let session = find(inner, place, &verified)?;
    ensure_type(request.headers(), SDP_FRAGMENT)?;
    let condition = match request.headers().get(header::IF_MATCH) {
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            let read = Precondition::read(text);
            Some(read.map_err(|error| Problem::bad_request(error.to_string()))?)
        }
        None => None,
    };
    let body = read_body(request.into_body(), FRAGMENT_LEN_MAX).await?;
    let fragment = Fragment::read(&body)?;

    let (answer, patched) = oneshot::channel();
    let request = ToAgent::Patch {
        condition,
        fragment,
        answer,
    };
    session.try_send(request).map_err(|error| match error {
        tokio::sync::mpsc::error::TrySendError::Full(_) => {
            Problem::too_many("too many requests at once to this session")
        }
        tokio::sync::mpsc::error::TrySendError::Closed(_) => Problem::unknown_session(),
    })?;
    match patched.await.map_err(|_| Problem::unknown_session())?? {
        Patched::Noted => Ok(StatusCode::NO_CONTENT.into_response()),
        Patched::Restarted { fragment, tag } => {
            let tag = tag.as_str();
            let headers = [(header::CONTENT_TYPE, SDP_FRAGMENT), (header::ETAG, tag)];
            Ok((headers, fragment).into_response())
        }
    }
}

/// Ends a session; what `If-Match` says is ignored (RFC 9725 §4.3.1).
async fn end(
    inner: &Arc<Inner>,
    client: &ClientInfo,
    place: (Purpose, &str, &str),
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    ensure_few_wrong_tokens(inner, client)?;
    let verified = verify(inner, client, headers).await?;
    let session = find(inner, place, &verified)?;

    let (done, ended) = oneshot::channel();
    let sent = session.send(ToAgent::Leave { done }).await;
    sent.map_err(|_| Problem::unknown_session())?;
    // One that ends by itself just now is as good.
    let _ = ended.await;
    Ok(StatusCode::OK.into_response())
}

/// Whose token a request shows. One that has expired is right for a session that has begun, as for a resume: the core knows.
pub(crate) async fn verify(
    inner: &Inner,
    client: &ClientInfo,
    headers: &HeaderMap,
) -> Result<Verified, Problem> {
    let shown = headers.get(header::AUTHORIZATION);
    let token = shown
        .and_then(|value| bearer(value.to_str().ok()?))
        .ok_or_else(Problem::unauthenticated)?;
    let verified = inner.tokens.verify(token, inner.clock.now()).await;
    verified.map_err(|refusal| {
        if refusal != crate::tokens::TokenRefusal::Unavailable {
            inner.addresses.note_refusal(client.ip);
        }
        refusal.into()
    })
}

/// Who has shown too many wrong tokens is not asked for another.
pub(crate) fn ensure_few_wrong_tokens(inner: &Inner, client: &ClientInfo) -> Result<(), Problem> {
    let slot = inner.addresses.open(client.ip);
    slot.map(drop).ok_or_else(too_many_of_address)
}

fn too_many_of_address() -> Problem {
    Problem::too_many("too many connections or refused tokens from this address")
}

fn find(
    inner: &Inner,
    (purpose, room, session): (Purpose, &str, &str),
    verified: &Verified,
) -> Result<tokio::sync::mpsc::Sender<ToAgent>, Problem> {
    let id = BASE64_URL_SAFE_NO_PAD.decode(session).ok();
    let id = id.and_then(|bytes| Some(AgentId(u128::from_be_bytes(bytes.try_into().ok()?))));
    id.and_then(|id| inner.agents.find(id, purpose, room, verified))
        .ok_or_else(Problem::unknown_session)
}

/// The Room of the address, or the one the token names.
fn room_of(named: Option<&str>, verified: &Verified) -> Result<RoomName, Problem> {
    if let Some(named) = named {
        let read = named.parse::<RoomName>();
        return read.map_err(|error| Problem::bad_request(error.to_string()));
    }
    match verified.claims.room.names.as_deref() {
        Some([room]) => Ok(room.clone()),
        _ => Err(Problem::bad_request(
            "neither the address nor the access token names one room",
        )),
    }
}

fn errand_of(purpose: Purpose, uri: &Uri) -> Result<Errand, Problem> {
    let choice = match uri.query() {
        Some(_) => Query::<Choice>::try_from_uri(uri)
            .map(|Query(choice)| choice)
            .map_err(|error| Problem::bad_request(error.body_text()))?,
        None => Choice::default(),
    };
    Ok(match purpose {
        Purpose::Publish => Errand::Publish {
            is_screen: choice.source == Some(Shown::Screen),
        },
        Purpose::View => Errand::View(Scene::new(choice.participant)),
    })
}

/// Fails unless the body is of this type, whatever its parameters.
fn ensure_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Problem> {
    let said = headers.get(header::CONTENT_TYPE);
    let said = said
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = said.split(';').next().unwrap_or_default().trim();
    match media_type.eq_ignore_ascii_case(wanted) {
        true => Ok(()),
        false => Err(Problem::wrong_type(wanted)),
    }
}

async fn read_body(body: Body, len_max: usize) -> Result<String, Problem> {
    let bytes = to_bytes(body, len_max).await;
    let bytes = bytes.map_err(|_| Problem::too_large(len_max))?;
    String::from_utf8(bytes.into()).map_err(|_| Problem::bad_request("the body is not UTF-8"))
}

/// The ICE servers for clients that must know them before they make an offer: told to who shows a token, and never to a preflight
/// (RFC 9725 §4.6).
async fn offered_servers(inner: &Inner, client: &ClientInfo, headers: &HeaderMap) -> Vec<String> {
    let is_preflight = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if is_preflight || ensure_few_wrong_tokens(inner, client).is_err() {
        return Vec::new();
    }
    let Ok(verified) = verify(inner, client, headers).await else {
        return Vec::new();
    };
    let now = inner.clock.now();
    let user = &verified.claims.sub;
    let servers = match verified.expired {
        true => Vec::new(),
        false => inner
            .ice_servers
            .for_user(now, verified.account, user, &client.host),
    };
    servers.iter().flat_map(ice_links).collect()
}

fn link(headers: &mut HeaderMap, links: &[String]) {
    for link in links {
        // A User's name may have any characters; one that fits no header does without a relay.
        if let Ok(value) = HeaderValue::from_bytes(link.as_bytes()) {
            headers.append(header::LINK, value);
        }
    }
}

fn is_look(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn not_allowed(methods: &'static str) -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, methods)]).into_response()
}

/// A page of a foreign origin: it may not even read why.
fn foreign(inner: &Inner, declined: crate::http::Declined) -> Response {
    inner.figures.http_session_refused(declined.code.as_str());
    Problem::new(declined.status, declined.code.as_str(), declined.message).into_response()
}

fn finish(inner: &Inner, asked: &HeaderMap, answered: Result<Response, Problem>) -> Response {
    let mut response = answered.unwrap_or_else(|problem| {
        inner.figures.http_session_refused(problem.code);
        tracing::debug!(code = problem.code, "HTTP session refused");
        problem.into_response()
    });
    cors::allow(response.headers_mut(), asked.get(header::ORIGIN));
    response
}
