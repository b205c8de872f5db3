//! From settings and command line to what this process will do.
//!
//! Three ways to run: on this machine only, for whoever types one command; on the local network, for a phone beside it; and as
//! configured, for a company. Only the first two have the open demo sign-in, and each gets the addresses that make it work.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::Context;

use crate::addresses::{self, Reach};
use crate::cli::ServeOptions;
use crate::config::load::Loaded;
use crate::config::{CertificateSource, Config, Role};

/// The port of HTTPS and TURN over TLS on the local network.
pub const LAN_PORT: u16 = 8443;

/// The port that sends people to [`LAN_PORT`].
const LAN_PORT_PLAIN: u16 = 8080;

/// The standard port of STUN and TURN (RFC 8656 §18).
const TURN_PORT: u16 = 3478;

/// How many phones most calls have at most: who calls, and where it goes on to.
const LEGS_OF_CALL: usize = 2;

/// RTP and RTCP.
const SOCKETS_OF_LEG: usize = 2;

/// Which of the three ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Nobody wrote settings: loopback, demo sign-in.
    Local,
    /// `--lan`: every address of this machine, development certificate, demo sign-in.
    Lan {
        /// The addresses, loopback first.
        addresses: Vec<IpAddr>,
    },
    /// As written; Sessions need tokens.
    Configured,
}

/// What this process will do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The settings that hold, with what the mode adds.
    pub config: Config,
    /// Which way.
    pub mode: Mode,
}

impl Plan {
    /// Decides how to run. Fails when this machine's addresses can't be listed or none can be reached by others.
    pub fn new(loaded: Loaded, options: &ServeOptions) -> anyhow::Result<Self> {
        let Loaded {
            mut config,
            from_file,
        } = loaded;
        if let Some(roles) = &options.roles {
            config.roles.clone_from(roles);
        }
        if let Some(web) = &options.web {
            config.web_dir = Some(web.clone());
        }
        let mode = if options.lan {
            let addresses = addresses::of_this_machine()?;
            open_to_lan(&mut config, &addresses)?;
            Mode::Lan { addresses }
        } else if !from_file && is_local(&config) {
            allow_peers(&mut config, &["127.0.0.0/8".to_owned(), "::1".to_owned()]);
            if config.sfu.port == sfu_service::Config::default().port {
                config.sfu.port = 0; // no firewall has to know it
            }
            Mode::Local
        } else {
            Mode::Configured
        };
        Ok(Self { config, mode })
    }

    /// Whether anybody may sign in by any name.
    pub fn is_demo(&self) -> bool {
        self.mode != Mode::Configured
    }

    /// Whether this process speaks TLS itself.
    pub fn speaks_tls(&self) -> bool {
        self.config.tls.source() != CertificateSource::None || matches!(self.mode, Mode::Lan { .. })
    }

    /// How many files are open when every limit is reached; none to speak of without settings, where it is one person who tries.
    pub fn open_files(&self) -> u64 {
        if self.is_demo() {
            return 0;
        }
        let connections = self.config.limits.connections_max;
        let ports = match self.has(Role::Relay) {
            true => self.config.relay.allocations_max,
            false => 0,
        };
        let phones = &self.config.gateway;
        let of_phones = match phones.is_enabled() {
            true => LEGS_OF_CALL * SOCKETS_OF_LEG * phones.calls_max + phones.connections_max,
            false => 0,
        };
        connections.saturating_add(ports).saturating_add(of_phones) as u64
    }

    /// Whether this process does `role`.
    pub fn has(&self, role: Role) -> bool {
        self.config.roles.contains(&role)
    }
}

/// Whether these settings can be reached from this machine alone, so that an open sign-in does no harm.
fn is_local(config: &Config) -> bool {
    config
        .listen
        .iter()
        .all(|address| address.ip().is_loopback())
        && config.public_url.is_none()
        && config.trusted_proxies.is_empty()
}

/// Changes what still has its default, so that a file given beside `--lan` wins.
fn open_to_lan(config: &mut Config, addresses: &[IpAddr]) -> anyhow::Result<()> {
    let defaults = Config::default();
    if config.listen == defaults.listen {
        let everywhere = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        config.listen = [LAN_PORT, LAN_PORT_PLAIN]
            .iter()
            .flat_map(|port| everywhere.map(|ip| SocketAddr::new(ip, *port)))
            .filter(|address| address.is_ipv4() || addresses.iter().any(IpAddr::is_ipv6))
            .collect();
    }
    if config.relay.listen_udp == defaults.relay.listen_udp {
        // Each address by name: an answer over UDP has to leave from the address it was asked at.
        config.relay.listen_udp = addresses
            .iter()
            .map(|ip| SocketAddr::new(*ip, TURN_PORT))
            .collect();
    }
    if config.relay.listen_tcp == defaults.relay.listen_tcp {
        config.relay.listen_tcp = config.relay.listen_udp.clone();
    }
    if config.relay.relay_ips == defaults.relay.relay_ips {
        config.relay.relay_ips = relay_ips(addresses)?;
    }
    let nearby: Vec<_> = addresses::networks_of_this_machine()?
        .iter()
        .map(ToString::to_string)
        .collect();
    allow_peers(config, &nearby);
    Ok(())
}

/// The relay denies private peers; here they are all there is.
fn allow_peers(config: &mut Config, networks: &[String]) {
    if config.relay.peers_allow.is_empty() && config.relay.peers_deny.is_empty() {
        config.relay.peers_allow = networks.to_vec();
    }
}

/// One address of each family to relay on: the one that leads out of this machine, or else the first that others can reach.
pub(crate) fn relay_ips(addresses: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    let mut chosen = Vec::new();
    // Connecting a UDP socket sends nothing: it only asks the routing table.
    for (any, outside) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let routed = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(outside)?;
            socket.local_addr()
        });
        let family = |ip: &&IpAddr| {
            ip.is_ipv4() == any.starts_with('0') && addresses::reach(**ip) != Reach::Machine
        };
        let routed = routed
            .ok()
            .map(|address| address.ip())
            .filter(|ip| addresses.contains(ip) && !ip.is_loopback());
        chosen.extend(routed.or_else(|| addresses.iter().find(family).copied()));
    }
    if chosen.is_empty() {
        chosen.push(
            *addresses
                .first()
                .context("this machine has no network address")?,
        );
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(config: Config, from_file: bool, lan: bool) -> Plan {
        Plan::new(
            Loaded { config, from_file },
            &ServeOptions {
                lan,
                ..ServeOptions::default()
            },
        )
        .unwrap()
    }

    #[test]
    fn the_open_sign_in_is_for_this_machine_and_the_lan_only() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config
        };
        assert!(plan(Config::default(), false, false).is_demo());
        assert!(plan(Config::default(), false, true).is_demo());
        assert!(
            plan(
                with(|c| c.listen = vec!["127.0.0.1:1".parse().unwrap()]),
                false,
                false
            )
            .is_demo()
        );

        assert!(!plan(Config::default(), true, false).is_demo());
        assert!(
            !plan(
                with(|c| c.listen = vec!["0.0.0.0:80".parse().unwrap()]),
                false,
                false
            )
            .is_demo()
        );
        assert!(
            !plan(
                with(|c| c.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]),
                false,
                false
            )
            .is_demo()
        );
    }

    #[test]
    fn the_lan_gets_every_port_and_no_loopback_peers() {
        let plan = plan(Config::default(), false, true);
        let ports: Vec<_> = plan.config.listen.iter().map(SocketAddr::port).collect();
        assert!(ports.contains(&LAN_PORT) && ports.contains(&LAN_PORT_PLAIN));
        assert!(
            plan.config
                .relay
                .peers_allow
                .iter()
                .all(|network| !network.starts_with("127.") && !network.starts_with("::1"))
        );
        plan.config.relay.check().unwrap();
    }

    #[test]
    fn what_is_written_holds_on_the_lan_too() {
        let mut config = Config {
            listen: vec!["0.0.0.0:4443".parse().unwrap()],
            ..Config::default()
        };
        config.relay.peers_deny = vec!["10.0.0.0/8".into()];
        let plan = plan(config, true, true);
        assert_eq!(plan.config.listen, ["0.0.0.0:4443".parse().unwrap()]);
        assert!(plan.config.relay.peers_allow.is_empty());
    }
}
