//! STUN and TURN addresses with time-limited credentials, as in draft-uberti-behave-turn-rest-00 §2.2.

use std::net::Ipv6Addr;
use std::sync::{PoisonError, RwLock};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use model::{AccountId, Timestamp, UserId};
use signaling_wire::IceServer;

use crate::config::IceConfig;

/// Makes what a client gives its `RTCPeerConnection`.
pub(crate) struct IceServers {
    told: RwLock<Told>,
}

/// What clients are told at the moment.
struct Told {
    config: IceConfig,
    key: hmac::Key,
}

impl IceServers {
    pub(crate) fn new(config: IceConfig, turn_secret: &str) -> Self {
        Self {
            told: RwLock::new(Told::new(config, turn_secret)),
        }
    }

    /// Tells something else from now on.
    pub(crate) fn set(&self, config: IceConfig, turn_secret: &str) {
        *self.told.write().unwrap_or_else(PoisonError::into_inner) = Told::new(config, turn_secret);
    }

    /// The servers for `user`, at the configured host or else at `reached`, the `Host` the client knows us by.
    ///
    /// Empty when there is no relay, or no host that could stand in an address.
    pub(crate) fn for_user(
        &self,
        now: Timestamp,
        account: AccountId,
        user: &UserId,
        reached: &str,
    ) -> Vec<IceServer> {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        let configured = told.config.host.as_deref();
        let Some(host) = host_of(configured.unwrap_or(reached)) else {
            return Vec::new();
        };

        let IceConfig {
            udp_port,
            tcp_port,
            tls_port,
            dtls_port,
            ..
        } = told.config;
        let turn = [
            udp_port.map(|port| format!("turn:{host}:{port}?transport=udp")),
            tcp_port.map(|port| format!("turn:{host}:{port}?transport=tcp")),
            tls_port.map(|port| format!("turns:{host}:{port}?transport=tcp")),
            dtls_port.map(|port| format!("turns:{host}:{port}?transport=udp")),
        ];
        let turn: Vec<String> = turn.into_iter().flatten().collect();

        let mut servers = Vec::new();
        if let Some(port) = udp_port {
            servers.push(IceServer {
                urls: vec![format!("stun:{host}:{port}")],
                username: None,
                credential: None,
            });
        }
        if !turn.is_empty() {
            let (username, credential) = told.credential(now, account, user);
            servers.push(IceServer {
                urls: turn,
                username: Some(username),
                credential: Some(credential),
            });
        }
        servers
    }
}

impl Told {
    fn new(config: IceConfig, turn_secret: &str) -> Self {
        // The algorithm is the draft's and coturn's; HMAC does not need SHA-1 to resist collisions.
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, turn_secret.as_bytes());
        Self { config, key }
    }

    fn credential(&self, now: Timestamp, account: AccountId, user: &UserId) -> (String, String) {
        let expiry = now.as_millis() / 1_000 + self.config.ttl.as_secs();
        let username = format!("{expiry}:{account}:{user}");
        let tag = hmac::sign(&self.key, username.as_bytes());

        (username, BASE64_STANDARD.encode(tag))
    }
}

/// The host of `host`, `host:port` or `[v6]:port`; `None` when it is neither a name nor an address.
fn host_of(authority: &str) -> Option<&str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let end = rest.find(']')?;
        rest[..end].parse::<Ipv6Addr>().ok()?;
        return Some(&authority[..end + 2]);
    }

    let host = authority.split(':').next()?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_name)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_without_its_port() {
        let check = |authority, host| assert_eq!(host_of(authority), host, "{authority}");

        check("calls.example.com", Some("calls.example.com"));
        check("localhost:8080", Some("localhost"));
        check("192.0.2.7:443", Some("192.0.2.7"));
        check("[2001:db8::1]:443", Some("[2001:db8::1]"));
        check("[2001:db8::1]", Some("[2001:db8::1]"));
        check("[nonsense]", None);
        check("[2001:db8::1", None);
        check("a/b", None);
        check("a?transport=udp", None);
        check("", None);
        check(":443", None);
    }

    #[test]
    fn a_credential_is_the_one_coturn_would_make() {
        let servers = servers(Some(3478), Some(443), Some(5349));

        assert_eq!(servers[0].urls, ["stun:calls.example.com:3478"]);
        assert_eq!(
            servers[1].urls,
            [
                "turn:calls.example.com:3478?transport=udp",
                "turn:calls.example.com:443?transport=tcp",
                "turns:calls.example.com:5349?transport=tcp",
                "turns:calls.example.com:5350?transport=udp",
            ]
        );
        assert_eq!(
            servers[1].username.as_deref(),
            Some("1790003600:00000000000000000000000001:alice")
        );
        // printf %s 1790003600:00000000000000000000000001:alice | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(
            servers[1].credential.as_deref(),
            Some("0E9Vxn53sxprpsWtnkYeyBZlCCc=")
        );
    }

    #[test]
    fn only_what_is_there_is_offered() {
        assert!(servers(None, None, None).is_empty());
        assert_eq!(servers(None, Some(443), None).len(), 1);
    }

    fn servers(udp: Option<u16>, tcp: Option<u16>, tls: Option<u16>) -> Vec<IceServer> {
        let config = IceConfig {
            udp_port: udp,
            tcp_port: tcp,
            tls_port: tls,
            dtls_port: tls.map(|port| port + 1),
            ..IceConfig::default()
        };
        let (now, account) = (
            Timestamp::from_millis(1_790_000_000_000),
            AccountId::from_u128(1),
        );
        let user = "alice".parse().unwrap();

        IceServers::new(config, "north").for_user(now, account, &user, "calls.example.com:8443")
    }
}
