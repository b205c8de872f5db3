//! What an operator decides about the relay.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use relay_core::{
    Alternates, Credentials, Discovery, Limits, Network, PeerPolicy, REALM_LEN_MAX, Rates,
    RelayAddresses, Secret, ThirdParty, server_name_len_max,
};
use relay_stun::{TokenAlgorithm, TokenKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most keys of a third party that count at once.
const THIRD_PARTY_KEYS_MAX: usize = 16;

/// The longest name of such a key, in bytes.
const KID_LEN_MAX: usize = 64;
use crate::xdp::{Xdp, XdpSettings};

/// The most threads that relay for UDP clients.
const THREADS_MAX: usize = 1024;

/// A device that can't ask signaling for credentials, with a name and a password of its own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticUser {
    /// `account:user`; it must not begin with a number, as the names that signaling gives out do.
    pub name: String,
    /// The password, never printed.
    #[serde(skip_serializing)]
    pub password: String,
}

impl fmt::Debug for StaticUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticUser({:?})", self.name)
    }
}

/// The `[relay.third_party]` table: another server grants access by tokens of its own (RFC 7635),
/// sealed for this relay with a key that both hold. Off while it has no key.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ThirdPartyConfig {
    /// The name tokens are sealed for, which clients are told. It and `realm` stand in every answer to
    /// a stranger, which must stay small: together they may have about 32 bytes.
    #[schemars(extend("examples" = ["turn.example.com"]))]
    pub server_name: Option<String>,
    /// The keys shared with whoever grants access, such as `{ kid = "2026-11", account = "acme",
    /// algorithm = "A256GCM", key = "…" }`. To change a key, name both for as long as tokens of the
    /// old one live.
    pub keys: Vec<ThirdPartyKey>,
}

/// A key that tokens of a third party are sealed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThirdPartyKey {
    /// Its name, which clients give as their user name.
    pub kid: String,
    /// The Account that all its tokens act for. A token names no User, so the Account's limits alone
    /// bound what they allocate.
    pub account: String,
    /// How tokens are sealed.
    pub algorithm: ThirdPartyAlgorithm,
    /// The key in base64, 16 bytes for A128GCM, 32 for A256GCM; never printed.
    #[serde(skip_serializing)]
    pub key: String,
}

/// How tokens of a third party are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ThirdPartyAlgorithm {
    /// AES-128-GCM.
    #[serde(rename = "A128GCM")]
    A128Gcm,
    /// AES-256-GCM.
    #[serde(rename = "A256GCM")]
    A256Gcm,
}

impl fmt::Debug for ThirdPartyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThirdPartyKey({:?})", self.kid)
    }
}

impl ThirdPartyKey {
    fn token_key(&self) -> anyhow::Result<TokenKey> {
        let algorithm = match self.algorithm {
            ThirdPartyAlgorithm::A128Gcm => TokenAlgorithm::A128Gcm,
            ThirdPartyAlgorithm::A256Gcm => TokenAlgorithm::A256Gcm,
        };
        let bytes = STANDARD.decode(&self.key).ok();
        let key = bytes.and_then(|bytes| TokenKey::new(algorithm, &bytes));
        key.with_context(|| {
            let (kid, len) = (&self.kid, algorithm.key_len());
            format!("`third_party.keys` has {kid:?} with a key that is not {len} bytes in base64")
        })
    }
}

/// The `[relay]` table of `offhook.toml`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The UDP addresses for STUN and TURN. On a machine with several addresses name each of them:
    /// an answer must leave from the address it was asked at.
    pub listen_udp: Vec<SocketAddr>,
    /// How many threads relay for UDP clients; 0 means one for each core this process may use, bound
    /// to it.
    pub threads: usize,
    /// TCP addresses for TURN alone, besides those the server shares with HTTP.
    pub listen_tcp: Vec<SocketAddr>,
    /// TLS addresses for TURN alone, besides those the server shares with HTTPS.
    pub listen_tls: Vec<SocketAddr>,
    /// UDP addresses for TURN over DTLS (often port 5349). The certificate is that of `[tls]`, and its
    /// key must be an ECDSA one. DTLS is served by one thread, as TCP and TLS are.
    pub listen_dtls: Vec<SocketAddr>,
    /// The host clients reach the relay at, a name or an address, where it is not that of
    /// `public_url`: TURN can't pass an HTTP proxy or a CDN that stands in front of the site. A
    /// certificate that is used for TURN over TLS has to name it, too.
    #[schemars(extend("examples" = ["turn.example.com"]))]
    pub public_host: Option<String>,
    /// The own addresses that relayed ports are opened on: one for IPv4, one for IPv6, or both.
    pub relay_ips: Vec<IpAddr>,
    /// The same addresses as the internet sees them, where a NAT stands in front (one for each
    /// family). Without it they are those of `relay_ips`.
    #[schemars(extend("examples" = [["203.0.113.7"]]))]
    pub public_ips: Vec<IpAddr>,
    /// STUN servers, each a host and a port, that are asked for the same addresses when the relay starts, and every five minutes
    /// afterwards, where the address of a cloud's NAT is not known beforehand; the first that answers counts. It then needs no
    /// `public_ips`. Without it nobody is asked.
    #[schemars(extend("examples" = [["stun.example.com:3478"]]))]
    pub find_public_ips_by: Vec<String>,
    /// The lowest relayed port.
    pub port_min: u16,
    /// The highest relayed port.
    pub port_max: u16,
    /// Whether Channels of clients over UDP are relayed in the network driver, by an XDP program, at
    /// a fraction of the processor time: `off`; `auto`, where this machine can, with a warning in
    /// the log where it can't; or `on`, which does not start where it can't. It is off by default
    /// until it has been in production for longer, and since what is relayed there passes by the
    /// host's firewall, its connection tracking and its packet captures. Permissions, `peers_deny`
    /// and rates hold as ever, and whatever the program does not know this process relays.
    ///
    /// It takes Linux 5.12, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (see `deploy/offhook.service`), a driver with
    /// native XDP, `sysctl net.ipv4.conf.lo.forwarding=1` (`net.ipv6…` for IPv6), and addresses
    /// instead of wildcards in `listen_udp` and `relay_ips`. The program is loaded under "Dual
    /// MIT/GPL", for the kernel lends the search for routes to such programs alone. One relay can
    /// hold an interface. `offhook doctor` tells what is missing.
    pub xdp: Xdp,
    /// The interfaces that clients and peers are reached through; of a VLAN the one below it.
    #[schemars(extend("examples" = [["eth0"]]))]
    pub xdp_interfaces: Vec<String>,
    /// How many Channels may be in the driver at once, each 288 bytes that the kernel keeps; what
    /// is beyond this process relays.
    pub xdp_channels_max: u32,
    /// The realm clients show to people who must type a password, at most 36 bytes: it stands in
    /// every answer to a stranger, which must stay small.
    pub realm: String,
    /// Devices with a name and a password of their own, such as
    /// `{ name = "acme:door", password = "…" }`.
    pub users: Vec<StaticUser>,
    /// The servers that take this relay's clients while it drains, at most one of which each
    /// client is told; without one of its family a client hears that there is no room.
    #[schemars(extend("examples" = [["203.0.113.8:3478"]]))]
    pub alternate_servers: Vec<SocketAddr>,
    /// The domain in the certificate of those servers.
    #[schemars(extend("examples" = ["turn.example.com"]))]
    pub alternate_domain: Option<String>,
    /// Whether an Allocation may follow its client to another address, over any transport
    /// (RFC 8016).
    pub mobility: bool,
    /// Whether clients over TCP and TLS may reach peers over TCP, too (RFC 6062). Calls need it only
    /// where a peer takes nothing but TCP. It lets clients open TCP connections from this server to
    /// any peer they are allowed to reach, so leave it off unless something asks for it.
    pub tcp_allocations: bool,
    /// How many TCP connections to peers there may be at once.
    pub tcp_connections_max: usize,
    /// How many of them one Allocation may hold.
    pub tcp_connections_per_allocation_max: usize,
    /// How many of those may wait, for the peer to answer or for the client to take them.
    pub tcp_connections_unbound_per_allocation_max: usize,
    /// How many of them one User may hold.
    pub tcp_connections_per_user_max: usize,
    /// How many of them the Users of one Account may hold together.
    pub tcp_connections_per_account_max: usize,
    /// After how long without a byte such a connection is closed, in seconds.
    pub tcp_connection_idle_seconds: u64,
    /// Whether clients may find out how their NAT behaves (RFC 5780). `listen_udp` must name two
    /// addresses of one family with two ports each, all four as the internet sees them.
    pub nat_discovery: bool,
    /// Peers that may be reached although they are denied by default, as networks such as
    /// `10.0.0.0/8`, addresses, or addresses with a port, which alone open ports below 1024.
    #[schemars(extend("examples" = [["10.1.0.0/16", "192.0.2.7:53"]]))]
    pub peers_allow: Vec<String>,
    /// Peers that may not be reached, written in the same way; stronger than `peers_allow`.
    pub peers_deny: Vec<String>,
    /// How many Allocations may live at once.
    pub allocations_max: usize,
    /// How many of them one User may hold; a browser takes several for each Call.
    pub allocations_per_user_max: usize,
    /// How many of them the Users of one Account may hold together.
    pub allocations_per_account_max: usize,
    /// How many bits of payload the Allocations of one User may relay in each second, both
    /// directions together; what is beyond is dropped. Zero: no bound.
    pub bits_per_second_per_user_max: u64,
    /// How many packets they may relay in each second. Zero: no bound.
    pub packets_per_second_per_user_max: u64,
    /// How many bits of payload the Allocations of one Account may relay in each second. Zero: no
    /// bound.
    pub bits_per_second_per_account_max: u64,
    /// How many packets they may relay in each second. Zero: no bound.
    pub packets_per_second_per_account_max: u64,
    /// How many Permissions one Allocation may hold.
    pub permissions_per_allocation_max: usize,
    /// How many Channels one Allocation may hold.
    pub channels_per_allocation_max: usize,
    /// How many answers over UDP the clients of one network, an IPv4 /24 or an IPv6 /48, get in
    /// each second before they have authenticated; four seconds' worth may go out at once. It
    /// keeps forged packets from turning the relay against others. Zero: no bound.
    pub stranger_answers_per_second_max: u32,
    /// The longest life an Allocation is granted before it must be refreshed, in seconds.
    pub lifetime_seconds_max: u64,
    /// How many TCP, TLS and DTLS clients may be connected at once.
    pub streams_max: usize,
    /// How many of them one address may hold (one /64 for IPv6).
    pub streams_per_address_max: usize,
    /// How long a TCP, TLS or DTLS client may stay without an Allocation, in seconds.
    pub stream_idle_seconds: u64,
    /// How long a TCP, TLS or DTLS client may take over one message once it has begun, in seconds.
    pub stream_message_seconds: u64,
    /// How much may wait for a TCP, TLS or DTLS client that reads slowly, in bytes; media beyond is
    /// dropped, as a network would.
    pub stream_queue_bytes_max: usize,
    /// Another server grants access by tokens of its own (RFC 7635), sealed for this relay with a key
    /// that both hold. Off while it has no key.
    pub third_party: ThirdPartyConfig,
}

impl Default for Config {
    fn default() -> Config {
        let limits = Limits::default();
        let loopback = vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, 3478)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 3478)),
        ];
        Config {
            listen_udp: loopback.clone(),
            threads: 0,
            listen_tcp: loopback,
            listen_tls: Vec::new(),
            listen_dtls: Vec::new(),
            public_host: None,
            relay_ips: vec![Ipv4Addr::LOCALHOST.into()],
            public_ips: Vec::new(),
            find_public_ips_by: Vec::new(),
            port_min: 49_152,
            port_max: 65_535,
            xdp: Xdp::Off,
            xdp_interfaces: Vec::new(),
            xdp_channels_max: 16_384,
            realm: "offhook".to_owned(),
            users: Vec::new(),
            alternate_servers: Vec::new(),
            alternate_domain: None,
            mobility: true,
            tcp_allocations: false,
            tcp_connections_max: limits.connections_max,
            tcp_connections_per_allocation_max: limits.connections_per_allocation_max,
            tcp_connections_unbound_per_allocation_max: limits
                .connections_unbound_per_allocation_max,
            tcp_connections_per_user_max: limits.connections_per_user_max,
            tcp_connections_per_account_max: limits.connections_per_account_max,
            tcp_connection_idle_seconds: 3600,
            nat_discovery: false,
            peers_allow: Vec::new(),
            peers_deny: Vec::new(),
            allocations_max: limits.allocations_max,
            allocations_per_user_max: limits.allocations_per_user_max,
            allocations_per_account_max: limits.allocations_per_account_max,
            bits_per_second_per_user_max: limits.user_rates.bits_per_second_max,
            packets_per_second_per_user_max: limits.user_rates.packets_per_second_max,
            bits_per_second_per_account_max: limits.account_rates.bits_per_second_max,
            packets_per_second_per_account_max: limits.account_rates.packets_per_second_max,
            permissions_per_allocation_max: limits.permissions_per_allocation_max,
            channels_per_allocation_max: limits.channels_per_allocation_max,
            stranger_answers_per_second_max: limits.stranger_answers_per_second_max,
            lifetime_seconds_max: 3600,
            streams_max: 10_000,
            streams_per_address_max: 256,
            stream_idle_seconds: 15,
            stream_message_seconds: 10,
            stream_queue_bytes_max: 64 * 1024,
            third_party: ThirdPartyConfig::default(),
        }
    }
}

/// A [`Config`] checked and brought into the types that work with it.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) core: relay_core::Config,
    /// Names and passwords of static users.
    pub(crate) users: Vec<(String, Secret)>,
    /// Whose tokens count.
    pub(crate) third_party: Option<ThirdParty>,
    /// None where XDP is off.
    pub(crate) xdp: Option<XdpSettings>,
    /// Where IPv4 ports are bound.
    pub(crate) bind_v4: Option<Ipv4Addr>,
    /// Where IPv6 ports are bound.
    pub(crate) bind_v6: Option<Ipv6Addr>,
    pub(crate) streams_max: usize,
    pub(crate) streams_per_address_max: usize,
    pub(crate) stream_idle: Duration,
    pub(crate) stream_message: Duration,
    pub(crate) stream_queue_bytes_max: usize,
}

impl Settings {
    /// Adds those who may allocate by the configuration's word.
    pub(crate) fn complete(&self, credentials: Credentials) -> Credentials {
        let credentials = credentials.with_users(self.users.clone());
        match &self.third_party {
            Some(third_party) => credentials.with_third_party(third_party.clone()),
            None => credentials,
        }
    }
}

impl Config {
    /// The address check of a relay with these settings.
    ///
    /// # Errors
    ///
    /// A setting that is wrong.
    pub fn peer_policy(&self) -> anyhow::Result<PeerPolicy> {
        Ok(self.settings()?.core.peer_policy())
    }

    /// The address that relays toward peers of one family, as they see it, if there is one.
    ///
    /// # Errors
    ///
    /// A setting that is wrong.
    pub fn relayed_address(&self, of_ipv6: bool) -> anyhow::Result<Option<IpAddr>> {
        let addresses = self.settings()?.core.addresses;
        Ok(match of_ipv6 {
            true => addresses.v6.map(IpAddr::V6),
            false => addresses.v4.map(IpAddr::V4),
        })
    }

    /// The relayed ports.
    #[must_use]
    pub fn port_range(&self) -> RangeInclusive<u16> {
        self.port_min..=self.port_max
    }

    /// Whether there is anything in it that must not be read by everybody.
    #[must_use]
    pub fn holds_secrets(&self) -> bool {
        !self.users.is_empty() || !self.third_party.keys.is_empty()
    }

    /// Checks what types alone can't.
    ///
    /// # Errors
    ///
    /// Names the setting that is wrong and what it should be.
    pub fn check(&self) -> anyhow::Result<()> {
        self.settings().map(|_| ())
    }

    /// In each family the four UDP addresses that two addresses and two ports make.
    fn discovery(&self) -> anyhow::Result<Vec<Discovery>> {
        let listened = &self.listen_udp;
        let complete = |discovery: &Discovery| {
            let addresses = discovery.addresses();
            addresses.iter().all(|address| listened.contains(address))
        };
        let pairs = listened.iter().flat_map(|primary| {
            let differs = move |alternate: &&SocketAddr| {
                primary.is_ipv4() == alternate.is_ipv4()
                    && primary.ip() != alternate.ip()
                    && primary.port() != alternate.port()
            };
            let alternates = listened.iter().filter(differs);
            alternates.map(|alternate| Discovery {
                primary: *primary,
                alternate: *alternate,
            })
        });
        let mut found: Vec<Discovery> = Vec::new();
        for discovery in pairs.filter(complete) {
            let family = |held: &Discovery| held.primary.is_ipv4() == discovery.primary.is_ipv4();
            if !found.iter().any(family) {
                found.push(discovery);
            }
        }
        ensure!(
            !found.is_empty(),
            "`nat_discovery` needs two addresses with two ports each in `listen_udp`, all four"
        );
        Ok(found)
    }

    fn static_users(&self) -> Vec<(String, Secret)> {
        let user = |user: &StaticUser| (user.name.clone(), Secret::new(&user.password));
        self.users.iter().map(user).collect()
    }

    /// Whose tokens count, if anybody's do.
    fn third_party(&self) -> anyhow::Result<Option<ThirdParty>> {
        let ThirdPartyConfig { server_name, keys } = &self.third_party;
        let Some(name) = server_name else {
            ensure!(
                keys.is_empty(),
                "`third_party` has keys and no `server_name`"
            );
            return Ok(None);
        };
        let len_max = server_name_len_max(&self.realm);
        ensure!(
            !name.is_empty() && name.len() <= len_max,
            "`third_party.server_name` has {} bytes; beside this `realm` it must have 1 to {len_max}",
            name.len()
        );
        ensure!(
            keys.len() <= THIRD_PARTY_KEYS_MAX,
            "`third_party.keys` has {} keys; it can have {THIRD_PARTY_KEYS_MAX} at most",
            keys.len()
        );
        let mut third_party = ThirdParty::new(name);
        for (at, key) in keys.iter().enumerate() {
            let ThirdPartyKey { kid, account, .. } = key;
            ensure!(
                !kid.is_empty() && kid.len() <= KID_LEN_MAX,
                "`third_party.keys` has {kid:?}; a name has 1 to {KID_LEN_MAX} bytes"
            );
            ensure!(
                keys[..at].iter().all(|other| other.kid != *kid),
                "`third_party.keys` has {kid:?} twice"
            );
            ensure!(
                !account.is_empty() && !account.contains(':'),
                "`third_party.keys` has {kid:?} for the Account {account:?}, which is none"
            );
            third_party = third_party.with_key(kid, account, key.token_key()?);
        }
        Ok(Some(third_party).filter(|_| !keys.is_empty()))
    }

    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let (bind_v4, bind_v6) = by_family(&self.relay_ips, "relay_ips")?;
        let (public_v4, public_v6) = by_family(&self.public_ips, "public_ips")?;
        ensure!(
            bind_v4.is_some() || bind_v6.is_some(),
            "`relay_ips` is empty; name an address of this machine"
        );
        ensure!(
            public_v4.is_none() || bind_v4.is_some(),
            "`public_ips` has an IPv4 address and `relay_ips` has none"
        );
        ensure!(
            public_v6.is_none() || bind_v6.is_some(),
            "`public_ips` has an IPv6 address and `relay_ips` has none"
        );
        ensure!(
            self.public_ips.is_empty() || self.find_public_ips_by.is_empty(),
            "`public_ips` is known, so `find_public_ips_by` has nothing to find; keep one of them"
        );
        for server in &self.find_public_ips_by {
            let port = server.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            ensure!(
                matches!(port, Some(Ok(1..))),
                "`find_public_ips_by` has {server:?}; write a host and a port, such as \"stun.example.com:3478\""
            );
        }
        let v4 = public_v4.or(bind_v4);
        let v6 = public_v6.or(bind_v6);
        let is_unknown = self.find_public_ips_by.is_empty()
            && (v4.is_some_and(|ip| ip.is_unspecified())
                || v6.is_some_and(|ip| ip.is_unspecified()));
        if is_unknown {
            bail!(
                "`relay_ips` has a wildcard address; name the address peers see in `public_ips`, or who finds it in `find_public_ips_by`"
            );
        }
        if let Some(host) = &self.public_host {
            ensure!(
                is_host(host),
                "`public_host` is `{host}`; it must be a name or an address, without a port"
            );
        }
        ensure!(
            self.threads <= THREADS_MAX,
            "`threads` is {}; it must be at most {THREADS_MAX}",
            self.threads
        );
        ensure!(
            self.port_min <= self.port_max,
            "`port_min` is {} and above `port_max`, {}",
            self.port_min,
            self.port_max
        );
        ensure!(
            self.port_min >= 1024,
            "`port_min` is {}; it must be at least 1024",
            self.port_min
        );
        ensure!(
            !self.realm.is_empty() && self.realm.len() <= REALM_LEN_MAX,
            "`realm` has {} bytes; it must have 1 to {REALM_LEN_MAX}",
            self.realm.len()
        );
        ensure!(
            self.lifetime_seconds_max >= 600,
            "`lifetime_seconds_max` is {}; RFC 8656 wants at least 600",
            self.lifetime_seconds_max
        );

        ensure!(
            self.tcp_connection_idle_seconds >= 60,
            "`tcp_connection_idle_seconds` is {}; it must be at least 60",
            self.tcp_connection_idle_seconds
        );

        for StaticUser { name, password } in &self.users {
            ensure!(
                !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit()),
                "`users` has {name:?}; a name is not empty and begins with no digit"
            );
            ensure!(
                name.split_once(':')
                    .is_none_or(|(_, user)| !user.is_empty()),
                "`users` has {name:?}, an Account without a User; write `account:user`"
            );
            ensure!(
                !password.is_empty(),
                "`users` has {name:?} without a password"
            );
        }
        if let Some(domain) = &self.alternate_domain {
            ensure!(
                !domain.is_empty() && domain.len() <= 255,
                "`alternate_domain` has {} bytes; it must have 1 to 255",
                domain.len()
            );
        }

        let discovery = match self.nat_discovery {
            true => self.discovery()?,
            false => Vec::new(),
        };

        let listened = [
            &self.listen_udp,
            &self.listen_tcp,
            &self.listen_tls,
            &self.listen_dtls,
        ];
        let own = listened
            .into_iter()
            .flatten()
            .map(SocketAddr::ip)
            .chain(self.relay_ips.iter().copied())
            .filter(|ip| !ip.is_unspecified())
            .collect();
        Ok(Settings {
            core: relay_core::Config {
                realm: self.realm.clone(),
                addresses: RelayAddresses {
                    v4,
                    v6,
                    ports: self.port_min..=self.port_max,
                },
                limits: Limits {
                    allocations_max: self.allocations_max,
                    allocations_per_user_max: self.allocations_per_user_max,
                    allocations_per_account_max: self.allocations_per_account_max,
                    user_rates: Rates {
                        bits_per_second_max: self.bits_per_second_per_user_max,
                        packets_per_second_max: self.packets_per_second_per_user_max,
                    },
                    account_rates: Rates {
                        bits_per_second_max: self.bits_per_second_per_account_max,
                        packets_per_second_max: self.packets_per_second_per_account_max,
                    },
                    permissions_per_allocation_max: self.permissions_per_allocation_max,
                    channels_per_allocation_max: self.channels_per_allocation_max,
                    connections_max: self.tcp_connections_max,
                    connections_per_allocation_max: self.tcp_connections_per_allocation_max,
                    connections_unbound_per_allocation_max: self
                        .tcp_connections_unbound_per_allocation_max,
                    connections_per_user_max: self.tcp_connections_per_user_max,
                    connections_per_account_max: self.tcp_connections_per_account_max,
                    stranger_answers_per_second_max: self.stranger_answers_per_second_max,
                },
                lifetime_default: Duration::from_secs(600),
                lifetime_max: Duration::from_secs(self.lifetime_seconds_max),
                mobility: self.mobility,
                tcp_allocations: self.tcp_allocations,
                connection_idle: Duration::from_secs(self.tcp_connection_idle_seconds),
                discovery,
                peers: PeerPolicy {
                    allow: networks(&self.peers_allow, "peers_allow")?,
                    deny: networks(&self.peers_deny, "peers_deny")?,
                    own,
                    media: BTreeMap::new(), // Told once there is an SFU.
                },
                alternates: Alternates {
                    servers: self.alternate_servers.clone(),
                    domain: self.alternate_domain.clone(),
                },
            },
            xdp: self.xdp_settings()?,
            users: self.static_users(),
            third_party: self.third_party()?,
            bind_v4,
            bind_v6,
            streams_max: self.streams_max,
            streams_per_address_max: self.streams_per_address_max,
            stream_idle: Duration::from_secs(self.stream_idle_seconds),
            stream_message: Duration::from_secs(self.stream_message_seconds),
            stream_queue_bytes_max: self.stream_queue_bytes_max,
        })
    }
}

fn is_host(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let bare = text.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
    bare.unwrap_or(text).parse::<Ipv6Addr>().is_ok()
        || (!text.is_empty() && text.bytes().all(legal))
}

fn networks(texts: &[String], setting: &str) -> anyhow::Result<Vec<Network>> {
    let network = |text: &String| {
        text.parse()
            .with_context(|| format!("`{setting}` is wrong"))
    };
    texts.iter().map(network).collect()
}

/// At most one address of each family.
fn by_family(
    ips: &[IpAddr],
    setting: &str,
) -> anyhow::Result<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    let mut v4 = None;
    let mut v6 = None;
    for ip in ips {
        let before = match ip {
            IpAddr::V4(ip) => v4.replace(*ip).map(IpAddr::V4),
            IpAddr::V6(ip) => v6.replace(*ip).map(IpAddr::V6),
        };
        if let Some(before) = before {
            bail!("`{setting}` has both {before} and {ip}; name one address of each family");
        }
    }
    Ok((v4, v6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named() {
        let check = |text: &str, expected: &str| {
            let got = match toml::from_str::<Config>(text) {
                Ok(config) => match config.check() {
                    Ok(()) => "ok".to_owned(),
                    Err(error) => format!("{error:#}"),
                },
                Err(error) => error.message().to_owned(),
            };
            assert!(got.starts_with(expected), "{text}: {got}");
        };

        check("", "ok");
        check(
            "relay_ips = ['0.0.0.0']\npublic_ips = ['203.0.113.7']",
            "ok",
        );
        check("relay_ips = ['10.0.0.5', '2001:db8::5']", "ok");
        check("port_mim = 1", "unknown field `port_mim`");
        check("relay_ips = []", "`relay_ips` is empty");
        check(
            "relay_ips = ['0.0.0.0']",
            "`relay_ips` has a wildcard address",
        );
        check(
            "relay_ips = ['10.0.0.5', '10.0.0.6']",
            "`relay_ips` has both 10.0.0.5 and 10.0.0.6",
        );
        check(
            "public_ips = ['2001:db8::5']",
            "`public_ips` has an IPv6 address",
        );
        check(
            "port_min = 2000\nport_max = 1999",
            "`port_min` is 2000 and above `port_max`, 1999",
        );
        for host in [
            "turn.example.com",
            "203.0.113.7",
            "2001:db8::7",
            "[2001:db8::7]",
        ] {
            check(&format!("public_host = '{host}'"), "ok");
        }
        for host in ["", "turn.example.com:3478", "turn:a", "[a]", "a b"] {
            check(
                &format!("public_host = '{host}'"),
                &format!("`public_host` is `{host}`; it must be"),
            );
        }
        check(
            "relay_ips = ['0.0.0.0']\nfind_public_ips_by = ['stun.example.com:3478']",
            "ok",
        );
        check(
            "public_ips = ['203.0.113.7']\nfind_public_ips_by = ['stun.example.com:3478']",
            "`public_ips` is known",
        );
        for server in [
            "stun.example.com",
            "stun.example.com:0",
            "stun.example.com:x",
            "",
        ] {
            check(
                &format!("find_public_ips_by = ['{server}']"),
                "`find_public_ips_by` has",
            );
        }
        check("port_min = 80", "`port_min` is 80");
        check("nat_discovery = true", "`nat_discovery` needs two");
        check(
            "nat_discovery = true\nlisten_udp = ['192.0.2.1:1', '192.0.2.2:2', '192.0.2.1:2']",
            "`nat_discovery` needs two",
        );
        check(
            "nat_discovery = true\n\
             listen_udp = ['192.0.2.1:1', '192.0.2.1:2', '192.0.2.2:1', '192.0.2.2:2']",
            "ok",
        );
        check("realm = ''", "`realm` has 0 bytes");
        let third_party = |realm: usize, name: usize, keys: &str| {
            let (realm, name) = ("r".repeat(realm), "n".repeat(name));
            format!("realm = '{realm}'\n[third_party]\nserver_name = '{name}'\nkeys = [{keys}]")
        };
        let key = |kid: &str, algorithm: &str, key: &str| {
            format!("{{ kid = '{kid}', account = 'a', algorithm = '{algorithm}', key = '{key}' }}")
        };
        let good = key("k", "A128GCM", "MTIzNDU2Nzg5MDEyMzQ1Ng==");
        check(&third_party(7, 24, &good), "ok");
        check(&third_party(32, 0, ""), "`third_party.server_name` has 0");
        check(
            &third_party(8, 25, &good),
            "`third_party.server_name` has 25 bytes; beside this `realm` it must have 1 to 24",
        );
        check(
            &third_party(36, 1, &good),
            "`third_party.server_name` has 1",
        );
        check(
            &format!("[third_party]\nkeys = [{good}]"),
            "`third_party` has keys and no `server_name`",
        );
        check(
            &third_party(7, 9, &format!("{good}, {good}")),
            "`third_party.keys` has \"k\" twice",
        );
        for (algorithm, wrong) in [
            ("A256GCM", "MTIzNDU2Nzg5MDEyMzQ1Ng=="),
            ("A128GCM", "MTIzNDU2"),
            ("A128GCM", "?"),
        ] {
            check(
                &third_party(7, 9, &key("k", algorithm, wrong)),
                "`third_party.keys` has \"k\" with a key that is not",
            );
        }
        check(
            &third_party(7, 9, &key("k", "A512", "x")),
            "unknown variant `A512`",
        );
        check(
            &third_party(7, 9, &key("", "A128GCM", "x")),
            "`third_party.keys` has \"\"; a name",
        );
        check("users = [{ name = 'acme:door', password = 'x' }]", "ok");
        check(
            "users = [{ name = '1:door', password = 'x' }]",
            "`users` has \"1:door\"; a name",
        );
        check(
            "users = [{ name = 'acme:', password = 'x' }]",
            "`users` has \"acme:\", an Account without a User",
        );
        check("users = [{ name = 'acme:door:', password = 'x' }]", "ok");
        check(
            "users = [{ name = 'door', password = '' }]",
            "`users` has \"door\" without",
        );
        check("alternate_domain = ''", "`alternate_domain` has 0 bytes");
        check("xdp = 'maybe'", "unknown variant `maybe`");
        let xdp = "xdp = 'auto'\nxdp_interfaces = ['eth0']\n";
        check("xdp = 'auto'", "`xdp_interfaces` is empty");
        check(
            &format!("{xdp}listen_udp = ['10.0.0.5:3478']\nrelay_ips = ['10.0.0.5']"),
            "ok",
        );
        check(
            &format!("{xdp}listen_udp = ['0.0.0.0:3478']"),
            "`listen_udp` has 0.0.0.0:3478; XDP",
        );
        check(
            &format!("{xdp}listen_udp = ['10.0.0.5:50000']"),
            "`listen_udp` has 10.0.0.5:50000, a port from",
        );
        check(
            &format!("{xdp}relay_ips = ['0.0.0.0']\npublic_ips = ['203.0.113.7']"),
            "`relay_ips` has 0.0.0.0; XDP",
        );
        check(
            &format!("{xdp}xdp_channels_max = 0"),
            "`xdp_channels_max` is 0; it must be 1 to",
        );
        check("lifetime_seconds_max = 5", "`lifetime_seconds_max` is 5");
        check(
            "tcp_connection_idle_seconds = 5",
            "`tcp_connection_idle_seconds` is 5",
        );
        check(
            "peers_allow = ['10.0.0.0/40']",
            "`peers_allow` is wrong: \"10.0.0.0/40\" is no",
        );
    }
}
