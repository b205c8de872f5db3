//! HTTP/1: finds out who asks, keeps requests within their limits, and routes them.

pub mod forwarded;
pub mod health;
pub mod metrics;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use self::forwarded::Asker;
use self::metrics::Reached;
use crate::config::{ForwardedHeader, Limits, Network};
use crate::listener::Ends;
use crate::tls::acme;

/// What stays reachable over plain HTTP where everything else is redirected to HTTPS: probes and scrapers rarely speak TLS. Who
/// gives out the certificate asks before there is one, at [`acme::CHALLENGE_PATH`].
const PLAIN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Who may be believed, and what is served.
#[derive(Clone)]
pub struct Http {
    /// All routes.
    pub router: Router,
    /// Whose headers about the client are believed.
    pub trusted_proxies: Arc<[Network]>,
    /// Which headers those are.
    pub forwarded_header: ForwardedHeader,
    /// Where plain HTTP is sent; `None` where it is served.
    pub redirect: Option<Redirect>,
    /// Refuses every host but names of this machine. A web site could otherwise let its own name lead here and, in the eyes of a
    /// browser on this machine, be us; and a tunnel would open the sign-in without tokens to everybody.
    pub only_this_machine: bool,
}

/// Where plain HTTP is sent.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// The host and port of HTTPS; `None` for the host the client asked for.
    pub authority: Option<String>,
    /// The port of HTTPS where the client's own host is kept.
    pub port: u16,
}

impl Http {
    /// Serves one connection until it ends, is upgraded, or `closing`.
    pub async fn serve<Io>(
        &self,
        stream: Io,
        ends: Ends,
        limits: &Limits,
        closing: &CancellationToken,
    ) where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| async {
            let deadline = Duration::from_secs(limits.request_seconds);
            let answer = tokio::time::timeout(
                deadline,
                self.answer(request, ends, limits.request_body_bytes_max),
            )
            .await;
            Ok::<_, Infallible>(
                answer.unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response()),
            )
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(limits.request_head_seconds))
            .max_buf_size(limits.request_head_bytes_max.max(8192)) // hyper's own minimum.
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(client = %ends.client, %error, "HTTP connection ended");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        ends: Ends,
        body_max: usize,
    ) -> Response<Body> {
        let asker = forwarded::asker(
            ends.client.ip(),
            ends.tls,
            request.headers(),
            &self.trusted_proxies,
            self.forwarded_header,
        );
        if let Some(location) = self.redirection(&asker, ends, request.uri()) {
            return (
                StatusCode::PERMANENT_REDIRECT,
                [(header::LOCATION, location)],
            )
                .into_response();
        }

        if self.only_this_machine && !is_this_machine(&asker.host) {
            let words =
                "this server is for localhost only; set `public_url` and use tokens to open it\n";
            return (StatusCode::MISDIRECTED_REQUEST, words).into_response();
        }

        let reached = Reached {
            locally: ends.peer.ip().is_loopback(),
            through_proxy: ends.proxied || forwarded::passed_a_proxy(request.headers()),
        };
        let secure = asker.secure;
        let mut request = request.map(|body| Body::new(Limited::new(body, body_max)));
        request.extensions_mut().insert(reached);
        request
            .extensions_mut()
            .insert(signaling_service::ClientInfo {
                ip: asker.ip,
                host: asker.host,
                secure,
            });

        // A router is always ready and never fails.
        let mut response = match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let headers = response.headers_mut();
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        // Only for a host of one's own: on localhost it would lock other programs' pages out.
        if secure
            && self
                .redirect
                .as_ref()
                .is_some_and(|redirect| redirect.authority.is_some())
        {
            headers.insert(
                header::STRICT_TRANSPORT_SECURITY,
                HeaderValue::from_static("max-age=31536000"),
            );
        }
        response
    }

    /// Where an unencrypted request has to go instead; a trusted proxy's own requests are served as they come, for it may speak
    /// TLS for us. A balancer that names the client by a PROXY header passes on what the client sent, and has spoken no TLS.
    fn redirection(&self, asker: &Asker, ends: Ends, uri: &Uri) -> Option<HeaderValue> {
        let redirect = self.redirect.as_ref()?;
        let from_proxy = self
            .trusted_proxies
            .iter()
            .any(|network| network.contains(ends.client.ip()));
        let is_plain =
            PLAIN_PATHS.contains(&uri.path()) || uri.path().starts_with(acme::CHALLENGE_PATH);
        if asker.secure || from_proxy || is_plain {
            return None;
        }
        let authority = match &redirect.authority {
            Some(authority) => authority.clone(),
            None => format!("{}:{}", without_port(&asker.host)?, redirect.port),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        HeaderValue::try_from(format!("https://{authority}{path}")).ok()
    }
}

/// Whether `authority`, a host with or without a port, can only mean this machine.
fn is_this_machine(authority: &str) -> bool {
    let Some(host) = without_port(authority) else {
        return false;
    };
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost") // RFC 6761 §6.3.
        || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The host of `host:port` or `[v6]:port`; `None` when it holds anything but a host.
fn without_port(authority: &str) -> Option<&str> {
    let host = match authority.rfind(']') {
        Some(end) => authority.get(..=end)?,
        None => authority.split(':').next()?,
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    (!host.is_empty() && host.chars().all(legal)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port() {
        let rows = [
            ("localhost:8080", Some("localhost")),
            ("192.168.1.5", Some("192.168.1.5")),
            ("[::1]:8080", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("", None),
            (":80", None),
            ("evil/path", None),
            ("a@b", None),
        ];
        for (authority, expected) in rows {
            assert_eq!(without_port(authority), expected, "{authority}");
        }
    }

    #[test]
    fn only_names_of_this_machine_mean_this_machine() {
        let rows = [
            ("localhost", true),
            ("localhost:8080", true),
            ("LocalHost:8080", true),
            ("localhost.", true),
            ("alice.localhost:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("calls.example.com", false),
            ("localhost.example.com", false),
            ("192.0.2.1:80", false),
            ("", false),
        ];
        for (host, expected) in rows {
            assert_eq!(is_this_machine(host), expected, "{host}");
        }
    }
}
