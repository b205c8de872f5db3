//! Which web pages may open a WebSocket. Browsers let any page try, and tell us which one it is (RFC 6455 §10.2).

use anyhow::Context;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use signaling_wire::ErrorCode;

use super::Declined;

/// The pages that may connect, besides this server's own.
pub(crate) struct Origins {
    any: bool,
    allowed: Vec<Origin>,
}

/// A web origin (RFC 6454 §4), with the port of its scheme where it names none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origins {
    /// Reads `allowed_origins`: origins, or `*` for all.
    pub(crate) fn new(allowed: &[String]) -> anyhow::Result<Self> {
        let parse = |text: &String| {
            Origin::parse(text)
                .with_context(|| format!("not an origin such as https://app.example.com: {text:?}"))
        };

        Ok(Self {
            any: allowed.iter().any(|text| text == "*"),
            allowed: allowed
                .iter()
                .filter(|text| *text != "*")
                .map(parse)
                .collect::<anyhow::Result<_>>()?,
        })
    }

    /// Fails when a page of a foreign origin asks. `host` is the one the client reached us by. What is no browser names
    /// no origin, and could name any.
    pub(crate) fn check(&self, headers: &HeaderMap, host: &str) -> Result<(), Declined> {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Ok(());
        };
        let text = origin.to_str().unwrap_or_default();

        if self.any || self.allows(text, host) {
            return Ok(());
        }
        Err(Declined::new(
            StatusCode::FORBIDDEN,
            ErrorCode::OriginRefused,
            format!("pages of {text:?} may not connect; add it to allowed_origins"),
        ))
    }

    fn allows(&self, origin: &str, host: &str) -> bool {
        let Some(origin) = Origin::parse(origin) else {
            return false;
        };

        self.allowed.contains(&origin) || origin.is_at(host)
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let port = default_port(scheme)?;
        let (host, port) = split_authority(authority, port)?;

        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            host,
            port,
        })
    }

    /// Whether it is the page of this very server. The scheme may differ: TLS can end in a proxy we know nothing of.
    fn is_at(&self, authority: &str) -> bool {
        default_port(&self.scheme)
            .and_then(|port| split_authority(authority, port))
            .is_some_and(|(host, port)| host == self.host && port == self.port)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Host, in lower case, and port; `None` when there is more, such as a path or a user.
fn split_authority(authority: &str, default_port: u16) -> Option<(String, u16)> {
    let read: Authority = authority.parse().ok()?;
    let host = read.host().to_ascii_lowercase();

    let is_plain = !authority.contains('@') && !host.is_empty();
    is_plain.then(|| (host, read.port_u16().unwrap_or(default_port)))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_page_connects_to_its_own_server_and_where_it_is_allowed() {
        let allowed = ["https://app.example.com", "http://localhost:3000"].map(str::to_owned);
        let origins = Origins::new(&allowed).unwrap();
        let check = |origin: &str, host: &str, allowed: bool| {
            let headers =
                HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_str(origin).unwrap())]);
            assert_eq!(
                origins.check(&headers, host).is_ok(),
                allowed,
                "{origin} {host}"
            );
        };

        check("http://localhost:8080", "localhost:8080", true);
        check("https://calls.example.com", "calls.example.com", true);
        check("https://calls.example.com", "calls.example.com:443", true);
        check("https://CALLS.example.com", "Calls.Example.com", true);
        check(
            "https://calls.example.com:8443",
            "calls.example.com:8443",
            true,
        );
        check("http://[::1]:8080", "[::1]:8080", true);

        check("https://app.example.com", "calls.example.com", true);
        check("http://localhost:3000", "localhost:8080", true);

        check("http://app.example.com", "calls.example.com", false);
        check("https://app.example.com:444", "calls.example.com", false);
        check("https://evil.example", "calls.example.com", false);
        check(
            "https://calls.example.com.evil.example",
            "calls.example.com",
            false,
        );
        check(
            "https://calls.example.com@evil.example",
            "calls.example.com",
            false,
        );
        check("http://localhost:8081", "localhost:8080", false);
        check("null", "calls.example.com", false);
        check("", "calls.example.com", false);
        check("https://", "", false);
    }

    #[test]
    fn what_is_no_browser_names_no_origin() {
        let origins = Origins::new(&[]).unwrap();
        assert!(origins.check(&HeaderMap::new(), "localhost").is_ok());
    }

    #[test]
    fn a_star_allows_all_and_a_mistake_is_told() {
        let headers =
            HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://a.b"))]);

        let all = Origins::new(&["*".into()]).unwrap();
        assert!(all.check(&headers, "localhost").is_ok());

        for wrong in [
            "app.example.com",
            "https://a.b/path",
            "ftp://a.b",
            "https://*.a.b/",
        ] {
            assert!(Origins::new(&[wrong.into()]).is_err(), "{wrong}");
        }
    }
}
