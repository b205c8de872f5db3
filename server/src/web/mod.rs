//! The page: static files, from the binary or from a folder.
//!
//! In: a path. Out: the file with its type, an ETag and the headers that keep a page safe. `/` is `app/index.html`, the rest is
//! `/app/…` and `/client/…`. `/version.json` tells the hash of all files and their names, for the page's service worker: it keeps
//! each version as a whole.

mod embedded;
mod folder;

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;

/// What a page of ours may do. Scripts and styles come from here alone; media are streams and blobs; a WebSocket may go to another
/// host, because signaling can be served elsewhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; \
     media-src 'self' blob: mediastream:; worker-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'self'";

/// The powers a page of ours asks for.
const PERMISSIONS_POLICY: &str = "camera=(self), microphone=(self), display-capture=(self), speaker-selection=(self), fullscreen=(self), \
     picture-in-picture=(self), geolocation=(), payment=(), usb=()";

/// One file, ready to be sent.
#[derive(Debug, Clone)]
struct File {
    plain: Bytes,
    gzip: Option<Bytes>,
    /// Quoted, as it stands in the header.
    etag: String,
}

/// `/version.json`.
#[derive(Debug, Serialize)]
struct Version {
    /// Changes whenever a file does.
    version: String,
    /// The URL path of every file.
    files: Vec<String>,
}

/// Where files come from.
#[derive(Debug)]
enum Source {
    Embedded(embedded::Files),
    Folder(folder::Folder),
}

/// Serves the page from the binary, or from `folder` (which holds `app` and `client`) where one is given.
pub fn router(folder: Option<PathBuf>) -> Router {
    let source = match folder {
        Some(folder) => Source::Folder(folder::Folder::new(folder)),
        None => Source::Embedded(embedded::Files::load()),
    };
    Router::new()
        .route("/version.json", get(version))
        .fallback(file)
        .with_state(Arc::new(source))
}

async fn version(State(source): State<Arc<Source>>) -> Response {
    let version = match &*source {
        Source::Embedded(files) => files.version(),
        Source::Folder(folder) => folder.version().await,
    };
    (
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))],
        Json(version),
    )
        .into_response()
}

async fn file(State(source): State<Arc<Source>>, request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return (
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "GET, HEAD")],
        )
            .into_response();
    }
    let path = match request.uri().path().trim_start_matches('/') {
        "" => "app/index.html",
        path => path,
    };
    let found = match &*source {
        Source::Embedded(files) => files.get(path),
        Source::Folder(folder) => folder.get(path).await,
    };
    match found {
        Some(file) => answer(
            path,
            &file,
            request.headers(),
            request.method() == Method::HEAD,
        ),
        None => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}

fn answer(path: &str, file: &File, headers: &HeaderMap, head_only: bool) -> Response {
    let wanted = |name, matches: fn(&str, &str) -> bool, value| {
        headers
            .get(name)
            .and_then(|have| have.to_str().ok())
            .is_some_and(|have| matches(have, value))
    };
    let unchanged = wanted(
        header::IF_NONE_MATCH,
        |have, etag| have == "*" || have.contains(etag),
        &file.etag,
    );
    let gzip = file
        .gzip
        .as_ref()
        .filter(|_| wanted(header::ACCEPT_ENCODING, accepts, "gzip"));

    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, content_type(path)),
        // Names carry no version: a browser may keep a file, but has to ask whether it is still right.
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept-encoding"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::HeaderName::from_static("permissions-policy"),
            PERMISSIONS_POLICY,
        ),
        (
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        out.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(etag) = HeaderValue::from_str(&file.etag) {
        out.insert(header::ETAG, etag);
    }
    if path.ends_with("sw.js") {
        // The worker looks after the whole site, though it lies in a folder.
        out.insert("service-worker-allowed", HeaderValue::from_static("/"));
    }
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }

    let body = gzip.unwrap_or(&file.plain).clone();
    if gzip.is_some() {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if !head_only {
        *response.body_mut() = Body::from(body);
    }
    response
}

/// Whether `Accept-Encoding` lists `coding` without refusing it by `q=0` (RFC 9110 §12.5.3).
fn accepts(header: &str, coding: &str) -> bool {
    header.split(',').any(|entry| {
        let (name, rest) = entry.split_once(';').unwrap_or((entry, ""));
        let refused = rest
            .trim()
            .strip_prefix("q=")
            .is_some_and(|q| q.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case(coding) && !refused
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "webp" => "image/webp",
        "ico" => "image/vnd.microsoft.icon",
        "woff2" => "font/woff2",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// The first 96 bits of a SHA-256, in base64url: short enough for a header, long enough never to collide by chance.
fn short_hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    BASE64_URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let rows = [
            ("gzip", true),
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("br", false),
            ("", false),
            ("notgzip", false),
        ];
        for (header, expected) in rows {
            assert_eq!(accepts(header, "gzip"), expected, "{header}");
        }
    }
}
