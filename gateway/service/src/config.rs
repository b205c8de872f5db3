//! What an operator decides about the gateway: sockets and limits. Trunks, Numbers and phones are rows of an Account.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use gateway_core::transaction::Transport;
use gateway_sip::digest::Algorithm;
use model::Network;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most calls of one process.
const CALLS_MAX: usize = 20_000;

/// The `[gateway]` table of `offhook.toml`: phone calls by SIP. It is on when it listens somewhere.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The UDP addresses of SIP, each a real one instead of a wildcard: answers leave from the address they were asked at, and
    /// providers are told it.
    #[schemars(extend("examples" = [["192.0.2.1:5060"]]))]
    pub listen_udp: Vec<SocketAddr>,
    /// The TCP addresses of SIP.
    #[schemars(extend("examples" = [["192.0.2.1:5060"]]))]
    pub listen_tcp: Vec<SocketAddr>,
    /// The TLS addresses of SIP; they show the certificate of `[tls]`.
    #[schemars(extend("examples" = [["192.0.2.1:5061"]]))]
    pub listen_tls: Vec<SocketAddr>,
    /// The same addresses as providers see them, where a NAT stands in front (one for each family). They are written into SIP and SDP.
    #[schemars(extend("examples" = [["203.0.113.7"]]))]
    pub public_ips: Vec<IpAddr>,
    /// The names phones and PBXs know this server by, such as `sip.example.com`. Only who names one of them is asked for a password;
    /// all other strangers hear nothing.
    #[schemars(extend("examples" = [["sip.example.com"]]))]
    pub domains: Vec<String>,
    /// Whether phones and PBXs are asked for their password by SHA-256 (RFC 8760), too, and not by MD5 alone. Some old phones give up where
    /// they read of it.
    pub sha256: bool,
    /// The name servers that are asked for the services (SRV) of Trunks; those of the system where none is written.
    #[schemars(extend("examples" = [["192.0.2.53:53"]]))]
    pub dns_servers: Vec<SocketAddr>,
    /// The first UDP port of media; a Leg takes two.
    pub rtp_port_min: u16,
    /// The last UDP port of media.
    pub rtp_port_max: u16,
    /// How many phone calls there may be at once.
    pub calls_max: usize,
    /// Whom SIP is spoken with at all: addresses or networks. With none written, with everybody who is known or knows a password.
    pub allow: Vec<Network>,
    /// Whom nothing is heard of, whatever they know.
    pub deny: Vec<Network>,
    /// How many messages a second are looked at of one address that is no Trunk's and no registered phone's (of one /64 for IPv6).
    pub stranger_messages_per_second: u32,
    /// After how many wrong passwords from one address within `ban_seconds` nothing more is heard of it.
    pub failures_max: u32,
    /// For how long, in seconds.
    pub ban_seconds: u64,
    /// How many TCP and TLS connections others may have open.
    pub connections_max: usize,
    /// How many one address may have open.
    pub connections_per_address_max: usize,
    /// How long a connection may be silent, in seconds. One that has shown nothing of worth yet has ten.
    pub connection_idle_seconds: u64,
    /// How often Trunks are asked whether they are there (OPTIONS), in seconds; 0 asks none.
    pub health_seconds: u64,
    /// After how long a call that nobody renews is ended, in seconds (RFC 4028), at least 90.
    pub session_seconds: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen_udp: Vec::new(),
            listen_tcp: Vec::new(),
            listen_tls: Vec::new(),
            public_ips: Vec::new(),
            domains: Vec::new(),
            sha256: true,
            dns_servers: Vec::new(),
            rtp_port_min: 20_000,
            rtp_port_max: 29_999,
            calls_max: 2_000,
            allow: Vec::new(),
            deny: Vec::new(),
            stranger_messages_per_second: 20,
            failures_max: 10,
            ban_seconds: 600,
            connections_max: 10_000,
            connections_per_address_max: 100,
            connection_idle_seconds: 600,
            health_seconds: 30,
            session_seconds: 1_800,
        }
    }
}

impl Config {
    /// Whether there is a gateway at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.listen().next().is_some()
    }

    /// Every address it listens on, and by what.
    pub fn listen(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        let all = [
            (Transport::Udp, &self.listen_udp),
            (Transport::Tcp, &self.listen_tcp),
            (Transport::Tls, &self.listen_tls),
        ];
        all.into_iter()
            .flat_map(|(transport, list)| list.iter().map(move |address| (transport, *address)))
    }

    /// How passwords are asked for, the best way first.
    pub(crate) fn digests(&self) -> &'static [Algorithm] {
        match self.sha256 {
            true => &[Algorithm::Sha256, Algorithm::Md5],
            false => &[Algorithm::Md5],
        }
    }

    /// Whether all settings fit together.
    ///
    /// # Errors
    ///
    /// The first that doesn't, by name.
    pub fn validate(&self) -> anyhow::Result<()> {
        for (transport, address) in self.listen() {
            let ip = address.ip();
            ensure!(
                !ip.is_unspecified() && !ip.is_multicast(),
                "`gateway.listen_{}` has {ip}, which is no address of a host",
                transport.as_str().to_ascii_lowercase()
            );
        }
        for public in &self.public_ips {
            ensure!(
                !public.is_unspecified() && !public.is_multicast(),
                "`gateway.public_ips` has {public}, which is no address of a host"
            );
            let is_family = |ip: &&IpAddr| ip.is_ipv4() == public.is_ipv4();
            ensure!(
                self.public_ips.iter().filter(is_family).count() == 1,
                "`gateway.public_ips` has more than one address of the family of {public}"
            );
        }
        for domain in &self.domains {
            let host = gateway_sip::Host::parse(domain);
            ensure!(
                host.is_some(),
                "`gateway.domains` has `{domain}`, which is no name of a host"
            );
        }
        ensure!(
            self.rtp_port_min >= 1_024,
            "`gateway.rtp_port_min` is {}, less than 1024",
            self.rtp_port_min
        );
        ensure!(
            self.rtp_port_max > self.rtp_port_min,
            "`gateway.rtp_port_max` is {}, which leaves no two ports above {}",
            self.rtp_port_max,
            self.rtp_port_min
        );
        ensure!(
            (1..=CALLS_MAX).contains(&self.calls_max),
            "`gateway.calls_max` is {}, not 1 to {CALLS_MAX}",
            self.calls_max
        );
        for (name, value) in [
            (
                "stranger_messages_per_second",
                self.stranger_messages_per_second,
            ),
            ("failures_max", self.failures_max),
        ] {
            ensure!(value > 0, "`gateway.{name}` is 0");
        }
        ensure!(
            self.connections_max > 0 && self.connections_per_address_max > 0,
            "`gateway.connections_max` or `gateway.connections_per_address_max` is 0"
        );
        ensure!(
            self.connection_idle_seconds >= 60,
            "`gateway.connection_idle_seconds` is {}, less than 60",
            self.connection_idle_seconds
        );
        ensure!(
            self.session_seconds >= gateway_core::leg::INTERVAL_MIN,
            "`gateway.session_seconds` is {}, less than {}",
            self.session_seconds,
            gateway_core::leg::INTERVAL_MIN
        );
        Ok(())
    }

    /// The address others are told for a local one.
    pub(crate) fn public(&self, local: IpAddr) -> IpAddr {
        let is_family = |ip: &&IpAddr| ip.is_ipv4() == local.is_ipv4();
        let outside = self.public_ips.iter().find(is_family);
        outside
            .copied()
            .filter(|_| !local.is_loopback())
            .unwrap_or(local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str, expected: Result<(), &str>) {
        let config: Config = toml::from_str(toml).unwrap();
        match (config.validate(), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error} has no {part}");
            }
            (got, expected) => panic!("{toml}: {got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        check("", Ok(()));
        check("listen_udp = ['192.0.2.1:5060']", Ok(()));
        check("listen_udp = ['0.0.0.0:5060']", Err("gateway.listen_udp"));
        check("listen_tls = ['[::]:5061']", Err("gateway.listen_tls"));
        check(
            "public_ips = ['203.0.113.7', '203.0.113.8']",
            Err("more than one"),
        );
        check("domains = ['a b']", Err("domains"));
        check("rtp_port_min = 80", Err("rtp_port_min"));
        check("rtp_port_max = 20000", Err("rtp_port_max"));
        check("calls_max = 0", Err("calls_max"));
        check("failures_max = 0", Err("failures_max"));
        check(
            "connection_idle_seconds = 1",
            Err("connection_idle_seconds"),
        );
        check("session_seconds = 89", Err("session_seconds"));
    }

    #[test]
    fn a_gateway_that_listens_nowhere_is_off() {
        assert!(!Config::default().is_enabled());
        let on: Config = toml::from_str("listen_tls = ['192.0.2.1:5061']").unwrap();
        assert!(on.is_enabled());
    }

    #[test]
    fn others_are_told_the_public_address_of_the_same_family() {
        let config = Config {
            public_ips: vec!["203.0.113.7".parse().unwrap()],
            ..Config::default()
        };
        let check = |local: &str, public: &str| {
            let (local, public): (IpAddr, IpAddr) =
                (local.parse().unwrap(), public.parse().unwrap());
            assert_eq!(config.public(local), public);
        };
        check("10.0.0.1", "203.0.113.7");
        check("127.0.0.1", "127.0.0.1");
        check("2001:db8::1", "2001:db8::1");
    }
}
