//! What pages of other origins may do: who they are is decided as for WebSockets (`allowed_origins`).

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

/// For how long a browser may remember it, in seconds.
const REMEMBERED: HeaderValue = HeaderValue::from_static("86400");

/// The headers a page may send.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, if-match, if-range, range");

/// The headers a page may read.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "location, etag, link, accept-post, accept-patch, content-range, retry-after",
);

/// Lets the page that asks read the answer.
pub(crate) fn allow(headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from(header::ORIGIN));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    }
}

/// Tells what may be asked, in the answer to OPTIONS; `accepts` names the header for the type of a body, where there is one.
pub(crate) fn describe(
    response: &mut Response,
    methods: &'static str,
    accepts: Option<(HeaderName, &'static str)>,
) {
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    if let Some((name, media_type)) = accepts {
        headers.insert(name, HeaderValue::from_static(media_type));
    }
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(methods),
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
}
