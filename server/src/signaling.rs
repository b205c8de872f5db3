//! Starts the signaling role: which ports clients are told for STUN and TURN follows from what listens, and from what stands in
//! front.

use std::net::SocketAddr;
use std::sync::Arc;

use backing::bus::InProcessBus;
use backing::records::Records;
use signaling_service::{IceConfig, Service};

use crate::config::Config;
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
    let relay = match relay {
        Some(relay) => Relay {
            udp: relay.udp_addresses(),
            tcp: relay.tcp_addresses(),
            tls: relay.tls_addresses(),
        },
        // It runs elsewhere, with the same settings.
        None => Relay {
            udp: &config.relay.listen_udp,
            tcp: &config.relay.listen_tcp,
            tls: &config.relay.listen_tls,
        },
    };
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
        ice(config, &relay, addresses, plan.speaks_tls()),
    )
    .await
}

/// Where the relay listens by itself, besides the shared port.
struct Relay<'a> {
    udp: &'a [SocketAddr],
    tcp: &'a [SocketAddr],
    tls: &'a [SocketAddr],
}

/// What clients are told. `shared` is the port of HTTP, which takes TURN too unless an HTTP proxy stands in front: there is one
/// when people type `https` and `tls` is spoken elsewhere.
fn ice(config: &Config, relay: &Relay<'_>, shared: &[SocketAddr], tls: bool) -> IceConfig {
    let port = |addresses: &[SocketAddr]| addresses.first().map(SocketAddr::port);
    let behind_proxy = config
        .public_url
        .as_ref()
        .is_some_and(|url| url.is_secure() && !tls);
    let shared = if behind_proxy {
        None
    } else {
        config
            .public_url
            .as_ref()
            .map(|url| url.port())
            .or_else(|| port(shared))
    };
    IceConfig {
        host: config
            .public_url
            .as_ref()
            .map(|url| url.host_in_url().to_owned()),
        udp_port: port(relay.udp),
        tcp_port: shared.or_else(|| port(relay.tcp)),
        tls_port: shared.filter(|_| tls).or_else(|| port(relay.tls)),
        ..IceConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PublicUrl;

    /// `host udp tcp tls`, with `-` for what is not offered.
    fn check(url: Option<&str>, tls: bool) -> String {
        let address = |port: u16| vec![SocketAddr::from(([0, 0, 0, 0], port))];
        let config = Config {
            public_url: url.map(|url| PublicUrl::new(url).unwrap()),
            ..Config::default()
        };
        let relay = Relay {
            udp: &address(3478),
            tcp: &address(3479),
            tls: &[],
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
}
