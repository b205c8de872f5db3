//! Starts the signaling role: which ports clients are told for STUN and TURN follows from what listens, and from what stands in
//! front.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use backing::bus::InProcessBus;
use backing::records::Records;
use signaling_service::{IceConfig, Service};

use crate::config::{Config, PublicUrl};
use crate::plan::Plan;
use crate::state::Secrets;

/// Starts the role. `addresses` are those of the shared TCP port, in use; `relay` is this process's, where it has one.
///
/// Fails when an allowed origin can't be read, or the demo's Account can't be made.
pub async fn start(
    plan: &Plan,
    records: &Records,
    secrets: &Secrets,
    relay: Option<&relay_service::Handle>,
    addresses: &[SocketAddr],
) -> anyhow::Result<Service> {
    let config = &plan.config;
    Service::start(
        config.signaling.clone(),
        plan.is_demo(),
        config.allowed_origins.clone(),
        records.clone(),
        Arc::new(InProcessBus::new()),
        signaling_service::Secrets {
            seal: secrets.seal,
            turn: secrets.turn.clone(),
        },
        ice_now(config, relay, addresses, plan.speaks_tls()),
    )
    .await
}

/// What clients are told of STUN and TURN: `relay` is this process's, where it has one, `addresses` are those of the shared TCP
/// port, in use, and `tls` is whether it speaks TLS itself.
pub fn ice_now(
    config: &Config,
    relay: Option<&relay_service::Handle>,
    addresses: &[SocketAddr],
    tls: bool,
) -> IceConfig {
    let relay = match relay {
        Some(relay) => Relay {
            udp: relay.udp_addresses(),
            tcp: relay.tcp_addresses(),
            tls: relay.tls_addresses(),
            dtls: relay.dtls_addresses(),
        },
        None => Relay::elsewhere(config),
    };
    ice(config, &relay, addresses, tls)
}

/// What a server with these settings tells its clients of STUN and TURN; `tls` is whether it speaks TLS itself.
pub fn told(config: &Config, tls: bool) -> IceConfig {
    ice(config, &Relay::elsewhere(config), &config.listen, tls)
}

/// Where the relay listens by itself, besides the shared port.
struct Relay<'a> {
    udp: &'a [SocketAddr],
    tcp: &'a [SocketAddr],
    tls: &'a [SocketAddr],
    dtls: &'a [SocketAddr],
}

impl<'a> Relay<'a> {
    /// One in another process, with the same settings.
    fn elsewhere(config: &'a Config) -> Self {
        Self {
            udp: &config.relay.listen_udp,
            tcp: &config.relay.listen_tcp,
            tls: &config.relay.listen_tls,
            dtls: &config.relay.listen_dtls,
        }
    }
}

/// What clients are told. `shared` is the port of HTTP, which takes TURN too unless an HTTP proxy stands in front: there is one
/// when people type `https` and `tls` is spoken elsewhere. A relay with a host of its own is rather reached at the ports it has
/// there for itself.
fn ice(config: &Config, relay: &Relay<'_>, shared: &[SocketAddr], tls: bool) -> IceConfig {
    let port = |addresses: &[SocketAddr]| addresses.first().map(SocketAddr::port);
    let site = config.public_url.as_ref();
    let behind_proxy = site.is_some_and(|url| url.is_secure() && !tls);
    let shared = if behind_proxy {
        None
    } else {
        site.map(PublicUrl::port).or_else(|| port(shared))
    };
    let shared_tls = shared.filter(|_| tls);
    let host = config.relay.public_host.as_deref().map(in_url);
    let outside = |addresses: &[SocketAddr]| {
        let outside = addresses.iter().find(|address| !address.ip().is_loopback());
        outside.map(SocketAddr::port).filter(|_| host.is_some())
    };
    IceConfig {
        udp_port: port(relay.udp),
        tcp_port: outside(relay.tcp).or(shared).or_else(|| port(relay.tcp)),
        tls_port: outside(relay.tls)
            .or(shared_tls)
            .or_else(|| port(relay.tls)),
        dtls_port: port(relay.dtls),
        host: host.or_else(|| site.map(|url| url.host_in_url().to_owned())),
        ..IceConfig::default()
    }
}

/// A host as it stands in a URL: an IPv6 address has brackets.
fn in_url(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `host udp tcp tls`, with `-` for what is not offered.
    fn check(url: Option<&str>, tls: bool) -> String {
        check_with(url, None, tls)
    }

    fn check_with(url: Option<&str>, public_host: Option<&str>, tls: bool) -> String {
        let address = |port: u16| vec![SocketAddr::from(([0, 0, 0, 0], port))];
        let mut config = Config {
            public_url: url.map(|url| PublicUrl::new(url).unwrap()),
            ..Config::default()
        };
        config.relay.public_host = public_host.map(str::to_owned);
        let relay = Relay {
            udp: &address(3478),
            tcp: &address(3479),
            tls: &[],
            dtls: &[],
        };
        let ice = ice(&config, &relay, &address(8443), tls);
        let port = |port: Option<u16>| port.map_or("-".to_owned(), |port| port.to_string());
        let host = ice.host.unwrap_or("-".to_owned());
        format!(
            "{host} {} {} {}",
            port(ice.udp_port),
            port(ice.tcp_port),
            port(ice.tls_port)
        )
    }

    #[test]
    fn clients_are_told_the_ports_they_can_reach() {
        assert_eq!(check(None, false), "- 3478 8443 -");
        assert_eq!(check(None, true), "- 3478 8443 8443");
        // The public port may be passed on to another one here.
        assert_eq!(
            check(Some("https://a.example"), true),
            "a.example 3478 443 443"
        );
        assert_eq!(
            check(Some("http://a.example:8080"), false),
            "a.example 3478 8080 -"
        );
        // A proxy speaks TLS for us: TURN can't come that way.
        assert_eq!(
            check(Some("https://a.example"), false),
            "a.example 3478 3479 -"
        );
        assert_eq!(
            check(Some("https://[2001:db8::1]"), true),
            "[2001:db8::1] 3478 443 443"
        );
    }
    #[test]
    fn the_relay_may_have_a_host_of_its_own() {
        let turn = Some("turn.example.com");
        assert_eq!(
            check_with(Some("https://a.example"), turn, false),
            "turn.example.com 3478 3479 -"
        );
        assert_eq!(
            check_with(Some("https://a.example"), turn, true),
            "turn.example.com 3478 3479 443"
        );
        assert_eq!(
            check_with(None, Some("2001:db8::7"), false),
            "[2001:db8::7] 3478 3479 -"
        );
    }
}
