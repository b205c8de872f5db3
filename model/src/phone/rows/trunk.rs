//! Trunks: providers and PBXs, and how to speak with them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Found;
use super::limits::{CallLimits, Destinations};
use super::text::{E164, Host, Label, Secret, SipUser, Unfit, shown};
use crate::network::Network;

/// The most targets of a Trunk.
pub const TARGETS_MAX: usize = 16;

/// The most networks in one list.
pub const NETWORKS_MAX: usize = 256;

/// How long a registration may last, in seconds.
const EXPIRES_SECONDS: std::ops::RangeInclusive<u32> = 60..=86_400;

/// How often a Trunk may be asked whether it is there, in seconds.
const HEALTH_SECONDS: std::ops::RangeInclusive<u16> = 10..=3_600;

/// A SIP provider or PBX of an Account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trunk {
    /// Whether it is in use.
    pub enabled: bool,
    /// How the two sides know one another.
    pub peering: Peering,
    /// Where requests go, the first that answers: others are tried on 408, 500, 503 and silence. Empty only where the other side
    /// registers with us or merely calls.
    pub targets: Vec<Target>,
    /// Where requests come from, besides the addresses of the targets.
    pub networks: Vec<Network>,
    /// Whether media is encrypted, and by which keys (RFC 4568, 5763).
    pub srtp: Srtp,
    /// What is offered and taken, most wanted first.
    pub codecs: Vec<Codec>,
    /// How keys are sent.
    pub dtmf: Dtmf,
    /// What others learn of who calls.
    pub caller: CallerIdentity,
    /// How numbers are written to the other side.
    pub number_format: NumberFormat,
    /// How much it bears.
    pub limits: CallLimits,
    /// What may be called by it.
    pub destinations: Destinations,
    /// How often it is asked by OPTIONS whether it is there, in seconds; never, where not told.
    pub health_seconds: Option<u16>,
    /// Whether the other side may have calls transferred (RFC 3515): to what the Account has, and by its Trunks to what they may call.
    pub transfers: bool,
    /// What it does otherwise than the RFCs say.
    pub quirks: BTreeSet<Quirk>,
    /// Answers the other side's challenges, or for [`Peering::Inbound`] checks its answers to ours. Kept apart from the row.
    #[serde(skip)]
    pub password: Option<Secret>,
}

impl Default for Trunk {
    fn default() -> Self {
        Self {
            enabled: true,
            peering: Peering::Address,
            targets: Vec::new(),
            networks: Vec::new(),
            srtp: Srtp::Optional,
            codecs: Codec::USUAL.to_vec(),
            dtmf: Dtmf::Auto,
            caller: CallerIdentity::default(),
            number_format: NumberFormat::Plus,
            limits: CallLimits::default(),
            destinations: Destinations::default(),
            health_seconds: Some(30),
            transfers: false,
            quirks: BTreeSet::new(),
            password: None,
        }
    }
}

/// How a Trunk and we know one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peering {
    /// By the addresses of both: `targets` and `networks`. A password answers those who ask for one all the same.
    Address,
    /// We register with the other side, and it calls the Contact we gave.
    Registration(Registration),
    /// The other side shows a password with each call, and may register with us as a desk phone does.
    Inbound(Inbound),
}

/// A registration with a provider (RFC 3261 §10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The user part of the address that is registered.
    pub user: SipUser,
    /// The user of digest authentication, where it is another one.
    #[serde(default)]
    pub auth_user: Option<SipUser>,
    /// The host of the address that is registered; that of the first target where not told.
    #[serde(default)]
    pub domain: Option<Host>,
    /// How long it is asked to last, in seconds. The other side may want longer (423) or grant less.
    #[serde(default = "Registration::expires_usual")]
    pub expires_seconds: u32,
}

impl Registration {
    fn expires_usual() -> u32 {
        600
    }
}

/// What a PBX shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// Its user of digest authentication; of all Accounts one alone has it.
    pub user: SipUser,
}

/// Where requests to a Trunk go: `sip:host`, `sip:host:port;transport=tcp`, `sips:host`. Without a port, it is found by NAPTR and SRV
/// (RFC 3263).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: Option<u16>,
    /// How to get there.
    pub transport: Transport,
}

/// How SIP is carried.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// In datagrams, in clear.
    #[default]
    Udp,
    /// Over TCP, in clear.
    Tcp,
    /// Over TLS; the other side's certificate has to name the host.
    Tls,
}

impl Transport {
    /// The word, as it stands in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The port where none is told (RFC 3261 §19.1.2).
    pub fn port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }
}

/// Whether media is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Srtp {
    /// Never.
    Off,
    /// Where the other side takes it; keys are offered over TLS alone, for in clear they are no secret.
    #[default]
    Optional,
    /// Always: a call without it is refused with 488. It needs TLS.
    Required,
    /// Always, with keys that the two sides make by DTLS (RFC 5763) and nobody else learns, over whatever they signal.
    Dtls,
}

/// A codec, by its name in SDP in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// G.711 A-law.
    Pcma,
    /// G.711 µ-law.
    Pcmu,
    /// G.722 at 16 kHz.
    G722,
    /// Opus.
    Opus,
}

impl Codec {
    /// What is offered where nothing is told: the best first.
    pub const USUAL: [Self; 4] = [Self::Opus, Self::G722, Self::Pcma, Self::Pcmu];
}

/// How keys are sent; they are understood in every way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtmf {
    /// As RTP events where agreed on, else by INFO.
    #[default]
    Auto,
    /// As RTP events (RFC 4733) or not at all.
    Rfc4733,
    /// By INFO with `application/dtmf-relay`.
    Info,
}

/// What the other side learns of who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallerIdentity {
    /// The number of those who have none of their own.
    pub number: Option<E164>,
    /// The name of all who call; that of the User where not told.
    pub name: Option<Label>,
    /// The host in From; our own where not told.
    pub from_domain: Option<Host>,
    /// Whether the number stands in P-Asserted-Identity, too (RFC 3325).
    pub asserted: bool,
    /// Whether what the other side says in P-Asserted-Identity is believed before From.
    pub believe_asserted: bool,
    /// How a number is withheld where a User wants that.
    pub privacy: Privacy,
    /// How a forwarded call says by whom.
    pub diversion: Diversion,
}

impl Default for CallerIdentity {
    fn default() -> Self {
        Self {
            number: None,
            name: None,
            from_domain: None,
            asserted: true,
            believe_asserted: true,
            privacy: Privacy::Header,
            diversion: Diversion::Diversion,
        }
    }
}

/// How a number is withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privacy {
    /// `Privacy: id` and an anonymous From (RFC 3323, 3325): the other side knows and doesn't pass on.
    Header,
    /// An anonymous From alone.
    Anonymous,
    /// Not at all: such calls are refused.
    Refused,
}

/// How a forwarded call says by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Diversion {
    /// By Diversion (RFC 5806).
    Diversion,
    /// By History-Info (RFC 7044).
    HistoryInfo,
    /// Not at all.
    Off,
}

/// How a number is written to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberFormat {
    /// `+4930123456`.
    Plus,
    /// `4930123456`.
    Digits,
    /// `004930123456`, with the Account's international prefix.
    International,
    /// `030123456` within the Account's country, and [`Self::International`] elsewhere.
    National,
}

/// What a Trunk does otherwise than the RFCs say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quirk {
    /// The called number stands in To, and the Request-URI holds the Contact of the registration.
    NumberInTo,
    /// The called number stands in P-Called-Party-ID.
    NumberInCalledParty,
    /// The caller stands in Remote-Party-ID, read and written.
    RemotePartyId,
    /// Session timers are left out: neither offered nor asked for (RFC 4028).
    NoSessionTimers,
    /// 100rel is left out (RFC 3262).
    NoReliable,
    /// UPDATE is left out: re-INVITE refreshes the session.
    NoUpdate,
    /// Hold is an address of zeros in `c=`, as RFC 2543 had it.
    HoldByZeroAddress,
    /// REFER is left out: a transferred call stays with us.
    NoRefer,
    /// Opened with comfort noise from us where it sends no media before it has heard any.
    MediaFirst,
}

impl Trunk {
    /// Whether requests from `ip` may be of this Trunk, as far as its `networks` and targets that are addresses tell. Addresses that
    /// names of targets lead to are for who resolves them.
    pub fn may_come_from(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let of_target = |target: &Target| target.host.ip().map(|ip| ip.to_canonical()) == Some(ip);
        self.networks.iter().any(|network| network.contains(ip))
            || self.targets.iter().any(of_target)
    }

    /// Whether every way to the other side is encrypted.
    pub fn is_secure(&self) -> bool {
        let mut targets = self.targets.iter();
        targets.all(|target| target.transport == Transport::Tls)
    }

    pub(super) fn check(&self, found: &mut Found<'_>) {
        if self.targets.len() > TARGETS_MAX {
            found.wrong(
                "targets",
                format!("{} are more than {TARGETS_MAX}", self.targets.len()),
            );
        }
        check_networks(&self.networks, found);
        check_codecs(&self.codecs, found);
        if self.srtp == Srtp::Required && !self.is_secure() {
            found.wrong(
                "srtp",
                "`required` needs `;transport=tls` in every target: keys sent in clear are no secret",
            );
        }
        if let Some(seconds) = self.health_seconds
            && !HEALTH_SECONDS.contains(&seconds)
        {
            found.wrong(
                "health_seconds",
                format!(
                    "{seconds} is not {} to {}",
                    HEALTH_SECONDS.start(),
                    HEALTH_SECONDS.end()
                ),
            );
        }
        if let Some((field, why)) = self.limits.wrong() {
            found.within("limits", |found| found.wrong(field, why));
        }
        if let Some((field, why)) = self.destinations.wrong() {
            found.within("destinations", |found| found.wrong(field, why));
        }
        self.check_peering(found);
    }

    fn check_peering(&self, found: &mut Found<'_>) {
        match &self.peering {
            Peering::Address => {
                if self.targets.is_empty() && self.networks.is_empty() {
                    found.wrong(
                        "targets",
                        "a Trunk known by its address needs `targets`, to call, or `networks`, to be called from",
                    );
                }
            }
            Peering::Registration(registration) => {
                if self.targets.is_empty() {
                    found.wrong("targets", "a Trunk we register with needs one at least");
                }
                if !EXPIRES_SECONDS.contains(&registration.expires_seconds) {
                    let why = format!(
                        "{} is not {} to {}",
                        registration.expires_seconds,
                        EXPIRES_SECONDS.start(),
                        EXPIRES_SECONDS.end()
                    );
                    found.within("peering", |found| {
                        found.within("registration", |found| found.wrong("expires_seconds", why));
                    });
                }
                if self.password.is_none() {
                    found.wrong("password", "a Trunk we register with needs one: name its file by `password_file`, or the variable that holds it by `password_env`");
                }
            }
            Peering::Inbound(_) => {
                if self.password.is_none() {
                    found.wrong("password", "a Trunk that shows a password needs one: name its file by `password_file`, or the variable that holds it by `password_env`");
                }
            }
        }
        // The whole internet would be this Trunk.
        let is_open = self.networks.iter().any(Network::is_everybody);
        if is_open && !matches!(self.peering, Peering::Inbound(_)) {
            found.wrong(
                "networks",
                "everybody's addresses are in it: whoever calls from anywhere would be this Trunk; use `peering.inbound` with a password",
            );
        }
    }
}

pub(super) fn check_networks(networks: &[Network], found: &mut Found<'_>) {
    if networks.len() > NETWORKS_MAX {
        found.wrong(
            "networks",
            format!("{} are more than {NETWORKS_MAX}", networks.len()),
        );
    }
}

pub(super) fn check_codecs(codecs: &[Codec], found: &mut Found<'_>) {
    let different: BTreeSet<_> = codecs.iter().collect();
    if codecs.is_empty() {
        found.wrong("codecs", "one at least is needed");
    } else if different.len() < codecs.len() {
        found.wrong("codecs", "one of them stands there twice");
    }
}

impl FromStr for Target {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        let unfit = |what: &str| {
            Unfit::new(format!(
                "{} {what}; write sip:host, sip:host:port;transport=tcp or sips:host",
                shown(text)
            ))
        };
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| unfit("is no SIP target"))?;
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "sip" => false,
            "sips" => true,
            _ => return Err(unfit("is no SIP target")),
        };
        let (place, parameter) = match rest.split_once(';') {
            Some((place, parameter)) => (place, Some(parameter)),
            None => (rest, None),
        };
        let transport = match parameter.map(str::to_ascii_lowercase).as_deref() {
            None if is_secure => Transport::Tls,
            None => Transport::Udp,
            Some("transport=udp") if !is_secure => Transport::Udp,
            Some("transport=tcp") if !is_secure => Transport::Tcp,
            Some("transport=tls") => Transport::Tls,
            Some(_) => return Err(unfit("has a parameter that is not understood")),
        };
        let (host, port) = split_port(place).ok_or_else(|| unfit("has no host"))?;
        let port = match port {
            None => None,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => Some(port),
                _ => return Err(unfit("has a port that is not 1 to 65535")),
            },
        };
        Ok(Self {
            host: host.parse()?,
            port,
            transport,
        })
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(place: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        return match behind.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => behind.is_empty().then_some((host, None)),
        };
    }
    match place.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((place, None)),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sip:{}", self.host.in_uri())?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.transport {
            Transport::Udp => Ok(()),
            other => write!(f, ";transport={}", other.as_str()),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = Unfit;

    fn try_from(text: String) -> Result<Self, Unfit> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_spelling() {
        let rows = [
            ("sip:sip.carrier.example", Some("sip:sip.carrier.example")),
            ("sip:Carrier.Example:5070", Some("sip:carrier.example:5070")),
            (
                "sip:carrier.example;transport=TLS",
                Some("sip:carrier.example;transport=tls"),
            ),
            (
                "sips:carrier.example:5061",
                Some("sip:carrier.example:5061;transport=tls"),
            ),
            ("sip:192.0.2.1;transport=udp", Some("sip:192.0.2.1")),
            ("sip:[2001:db8::1]:5060", Some("sip:[2001:db8::1]:5060")),
            ("sip:[2001:db8::1]", Some("sip:[2001:db8::1]")),
            ("carrier.example", None),
            ("tel:+4930123456", None),
            ("sip:", None),
            ("sip:a:0", None),
            ("sip:a:65536", None),
            ("sip:a:", None),
            ("sip:[2001:db8::1", None),
            ("sip:[2001:db8::1]x", None),
            ("sip:user@carrier.example", None),
            ("sips:a;transport=udp", None),
            ("sip:a;transport=sctp", None),
            ("sip:a;lr", None),
        ];
        for (text, expected) in rows {
            let read = text.parse::<Target>().map(|target| target.to_string());
            assert_eq!(read.as_deref().ok(), expected, "{text}: {read:?}");
            if let Ok(target) = read {
                assert_eq!(target.parse::<Target>().unwrap().to_string(), target);
            }
        }
    }

    #[test]
    fn a_trunk_knows_where_it_comes_from() {
        let trunk = Trunk {
            targets: vec![
                "sip:192.0.2.1".parse().unwrap(),
                "sip:carrier.example".parse().unwrap(),
            ],
            networks: vec!["198.51.100.0/24".parse().unwrap()],
            ..Trunk::default()
        };
        let check = |ip: &str, expected: bool| {
            assert_eq!(trunk.may_come_from(ip.parse().unwrap()), expected, "{ip}");
        };
        check("192.0.2.1", true);
        check("::ffff:192.0.2.1", true);
        check("192.0.2.2", false);
        check("198.51.100.77", true);
        check("2001:db8::1", false);
    }
}
