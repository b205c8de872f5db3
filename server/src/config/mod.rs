//! What `offhook.toml` can say: one struct per table, whose doc comments are the manual (`offhook config --example` prints them).

pub mod example;
pub mod load;

pub mod reload;
pub mod secrecy;
mod validate;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::bail;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use model::Network;

/// The whole of `offhook.toml`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The TCP addresses that serve HTTP, WebSocket and TURN together, told apart by their first bytes. Behind a firewall that
    /// lets nothing else out, clients need port 443: `["0.0.0.0:443", "[::]:443"]`.
    pub listen: Vec<SocketAddr>,
    /// What people type to get here, such as `https://calls.example.com`. Clients get the TURN addresses of this host, plain HTTP is
    /// redirected to it, and `offhook doctor` checks it.
    #[schemars(extend("examples" = ["https://calls.example.com"]))]
    pub public_url: Option<PublicUrl>,
    /// The web origins that may open a WebSocket, such as `https://app.example.com`, besides this server's own. `"*"` allows all:
    /// safe only because every Session needs a token.
    pub allowed_origins: Vec<String>,
    /// The proxies and load balancers whose word about the client's address is taken: their PROXY protocol v2 header, and the
    /// header of `forwarded_header`. Addresses or networks, such as `["10.0.0.0/8"]`.
    pub trusted_proxies: Vec<Network>,
    /// The HTTP header in which trusted proxies name the client: `x-forwarded` (X-Forwarded-For, -Proto and -Host) or `forwarded`
    /// (RFC 7239). The other one is never read, since a proxy that doesn't know it passes on whatever the client wrote.
    pub forwarded_header: ForwardedHeader,
    /// What this process does: `signaling` (calls.v1), `relay` (STUN and TURN) and `web` (the page).
    pub roles: Vec<Role>,
    /// Where state is kept: the database, the secrets, the development certificate. Made when missing, readable by its owner only.
    pub data_dir: PathBuf,
    /// Serves the page from this folder instead of the files in the binary, for work on the page: the folder that holds `app` and
    /// `client`.
    #[schemars(extend("examples" = ["web-demo"]))]
    pub web_dir: Option<PathBuf>,
    /// How long Allocations of the relay may live on, and Sessions may take to move elsewhere, when the server is asked to end, in
    /// seconds. New ones are sent away meanwhile; a second signal ends at once.
    pub drain_seconds: u64,
    /// The certificate for HTTPS, WSS and TURN over TLS.
    pub tls: Tls,
    /// What the log shows, and how.
    pub log: Log,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    /// What is kept of Calls, and for how long.
    pub records: Records,
    /// How many connections may be open and how patient the server is with them.
    pub limits: Limits,
    /// Calls, presence, tokens.
    pub signaling: signaling_service::Config,
    /// STUN and TURN.
    pub relay: relay_service::Config,
    /// The media of Rooms. Its addresses are the relay's unless they are written here.
    pub sfu: sfu_service::Config,
    /// Phone calls by SIP, where `signaling` and the SFU run: docs/gateway.md. Trunks, Numbers and phones are written by
    /// `offhook apply`.
    pub gateway: gateway_service::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![
                (Ipv4Addr::LOCALHOST, 8080).into(),
                (Ipv6Addr::LOCALHOST, 8080).into(),
            ],
            public_url: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            roles: vec![Role::Signaling, Role::Relay, Role::Web],
            data_dir: "./offhook-data".into(),
            web_dir: None,
            drain_seconds: 20,
            tls: Tls::default(),
            log: Log::default(),
            metrics: Metrics::default(),
            records: Records::default(),
            limits: Limits::default(),
            signaling: signaling_service::Config::default(),
            relay: relay_service::Config::default(),
            sfu: sfu_service::Config::default(),
            gateway: gateway_service::Config::default(),
        }
    }
}

/// One thing a process can do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Calls, presence and tokens over calls.v1.
    Signaling,
    /// STUN and TURN.
    Relay,
    /// The page.
    Web,
}

/// Which header trusted proxies name the client in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host.
    #[default]
    XForwarded,
    /// Forwarded (RFC 7239).
    Forwarded,
}

/// The `[tls]` table.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate and the intermediate ones that lead to a root, in PEM (`fullchain.pem`). Without it the server speaks plain
    /// HTTP only, and a proxy in front has to speak TLS. A renewed one is taken within a minute, without an end to anything.
    #[schemars(extend("examples" = ["/etc/letsencrypt/live/calls.example.com/fullchain.pem"]))]
    pub certificate_file: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[schemars(extend("examples" = ["/etc/letsencrypt/live/calls.example.com/privkey.pem"]))]
    pub key_file: Option<PathBuf>,
    /// Certificates by ACME, as Let's Encrypt gives them out, instead of files: ordered, kept in the data directory and renewed by
    /// itself. TCP port 443 or 80 of every name has to reach this server.
    pub acme: Acme,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateSource {
    /// There is none.
    None,
    /// Somebody writes files.
    Files,
    /// This server orders it.
    Acme,
}

impl Tls {
    /// Where the certificate comes from; files are stronger, though both together are refused.
    pub fn source(&self) -> CertificateSource {
        match (&self.certificate_file, self.acme.domains.is_empty()) {
            (Some(_), _) => CertificateSource::Files,
            (None, false) => CertificateSource::Acme,
            (None, true) => CertificateSource::None,
        }
    }
}

/// The `[tls.acme]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// The names the certificate is for, such as `["calls.example.com", "turn.example.com"]`; with none there is no ACME.
    pub domains: Vec<String>,
    /// Mail addresses the authority may write to, about a certificate that is about to end for example.
    pub contact: Vec<String>,
    /// Whether you agree to the authority's terms of service; nothing is ordered without it.
    pub terms_agreed: bool,
    /// The authority's directory. To try things out, take Let's Encrypt's
    /// `https://acme-staging-v02.api.letsencrypt.org/directory`, which browsers don't trust.
    pub directory: String,
    /// The certificate of an authority of your own, in PEM, that this machine does not trust yet: to speak to its directory.
    #[schemars(extend("examples" = ["/etc/offhook/authority.pem"]))]
    pub authority_file: Option<PathBuf>,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            contact: Vec::new(),
            terms_agreed: false,
            directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            authority_file: None,
        }
    }
}

/// The `[log]` table.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged: `warn`, `info`, `debug`, or by part, such as `info,relay_service=debug`. Addresses appear at `debug` only.
    pub filter: String,
    /// `text` for people, `json` for machines.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::default(),
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// The `[metrics]` table.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// A TCP address that serves `/metrics`, `/healthz` and `/readyz` to anybody who reaches it. Without it, `/metrics` answers
    /// clients on this machine only.
    #[schemars(extend("examples" = ["10.0.0.5:9090"]))]
    pub listen: Option<SocketAddr>,
}

/// The `[records]` table.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Records {
    /// For how many days the history of Calls is kept, and the call records of phones: who rang whom, when, and how it ended. 0 keeps
    /// them for ever.
    pub keep_history_days: u32,
    /// For how many days it is kept what the relay carried for each Account, for `offhook usage`. 0 keeps it for ever.
    pub keep_usage_days: u32,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            keep_history_days: 365,
            keep_usage_days: 800,
        }
    }
}

/// The `[limits]` table.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// TCP connections in total.
    pub connections_max: usize,
    /// TCP connections of one address (one /64 for IPv6); trusted proxies are exempt.
    pub connections_per_address_max: usize,
    /// TCP connections in total that have not yet shown what they are or are in their TLS handshake.
    pub newcomers_max: usize,
    /// The same for one address.
    pub newcomers_per_address_max: usize,
    /// How long a connection may take to show what it is and to finish its TLS handshake, in seconds.
    pub handshake_seconds: u64,
    /// How long the head of an HTTP request may take, and a connection may idle between two, in seconds.
    pub request_head_seconds: u64,
    /// How long an HTTP request may take from its head to the head of its answer, in seconds.
    pub request_seconds: u64,
    /// The largest head of an HTTP request, in bytes (at least 8192).
    pub request_head_bytes_max: usize,
    /// The largest body of an HTTP request, in bytes.
    pub request_body_bytes_max: usize,
    /// How long a connection may refuse to take what the server has to say, in seconds.
    pub write_stall_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            connections_per_address_max: 2_000,
            newcomers_max: 4_096,
            newcomers_per_address_max: 256,
            handshake_seconds: 10,
            request_head_seconds: 30,
            request_seconds: 30,
            request_head_bytes_max: 16 * 1024,
            request_body_bytes_max: 256 * 1024,
            write_stall_seconds: 60,
        }
    }
}

/// `https://host` or `http://host`, with a port or without, and nothing behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Checks `text` and keeps it without a trailing slash; fails with what it should look like.
    pub fn new(text: &str) -> anyhow::Result<Self> {
        let url = Self(text.trim_end_matches('/').to_owned());
        url.check()?;
        Ok(url)
    }

    /// Whether this is `https`.
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// The host and, where given, the port.
    pub fn authority(&self) -> &str {
        self.0
            .split_once("://")
            .map_or("", |(_, rest)| rest.trim_end_matches('/'))
    }

    /// The host as it stands in a URL: an IPv6 address has its brackets.
    pub fn host_in_url(&self) -> &str {
        let authority = self.authority();
        match authority.rfind(']') {
            Some(end) => &authority[..=end],
            None => authority.split(':').next().unwrap_or_default(),
        }
    }

    /// The host alone, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host_in_url()
            .trim_start_matches('[')
            .trim_end_matches(']')
    }

    /// The port, 443 or 80 where none is given.
    pub fn port(&self) -> u16 {
        let behind_host = self
            .authority()
            .rsplit_once(']')
            .map_or(self.authority(), |(_, rest)| rest);
        let standard = if self.is_secure() { 443 } else { 80 };
        behind_host
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or(standard)
    }

    /// The text, without a slash at the end.
    pub fn as_str(&self) -> &str {
        self.0.trim_end_matches('/')
    }

    fn check(&self) -> anyhow::Result<()> {
        let schemed = self.0.starts_with("https://") || self.0.starts_with("http://");
        if !schemed || validate::check_authority(self.authority()).is_err() {
            bail!(
                "`public_url` is `{}`; write `https://host` or `https://host:port`",
                self.0
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_has_a_host_and_a_port() {
        let rows = [
            ("https://calls.example.com", "calls.example.com", 443, true),
            ("https://calls.example.com/", "calls.example.com", 443, true),
            ("http://localhost:8080", "localhost", 8080, false),
            ("https://[2001:db8::1]", "2001:db8::1", 443, true),
            ("https://[2001:db8::1]:8443/", "2001:db8::1", 8443, true),
        ];
        for (text, host, port, secure) in rows {
            let url = PublicUrl::new(text).unwrap();
            assert_eq!(
                (url.host(), url.port(), url.is_secure()),
                (host, port, secure),
                "{text}"
            );
        }
        for text in [
            "",
            "calls.example.com",
            "https://",
            "ftp://a",
            "https://a/b",
            "https://a b",
            "https://u@a",
            "https://a:99999",
            "https://a:b",
            "https://a]b",
        ] {
            assert!(PublicUrl::new(text).is_err(), "{text}");
        }
    }
}
