//! `offhook doctor relay CLIENT PEER`: what the relay decides about a pair of addresses, by which rule, and what to change.
//!
//! The verdict is the relay's own: its settings are read as it reads them and its one address check is asked. Where a server runs,
//! it is asked as well, with an Allocation made from this machine.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use relay_service::client::{AddressFamily, Client, ClientError};
use relay_service::{Config, PeerPolicy, Refusal, Rule, canonical};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::network::reachable;
use super::report::{Finding, Report};
use crate::cli::ServeOptions;
use crate::config::load::Loaded;
use crate::plan::Plan;
use crate::state::DataDir;
use crate::tls::development;

/// How long the name service may take.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// How long the credentials made here are good for.
const CREDENTIALS_LIFETIME: Duration = Duration::from_secs(60);

/// The Channel that is tried.
const CHANNEL: u16 = 0x4000;

/// An address, and the port if one was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Endpoint {
    ip: IpAddr,
    port: Option<u16>,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// Explains the verdict on each address of `client` and of `peer`: addresses in any form, with a port or without, or names.
///
/// Fails when one of them is neither, or the settings are wrong. The report is healthy where every peer may be reached.
pub async fn explain(loaded: Loaded, client: &str, peer: &str) -> anyhow::Result<Report> {
    let clients = endpoints(client).await?;
    let peers = endpoints(peer).await?;
    // Without a file the server allows more, by the mode it runs in.
    let development = development::files(&loaded.config.data_dir).certificate;
    let options = ServeOptions {
        lan: !loaded.from_file && development.exists(),
        ..ServeOptions::default()
    };
    let mut config = Plan::new(loaded, &options)?.config;

    let mut report = Report::default();
    super::find_public_ips(&mut report, &mut config.relay).await;
    for client in clients {
        report.add(describe_client(&config, client));
    }
    for peer in peers {
        let verdict = judge(&mut report, &config.relay, peer)?;
        try_it(&mut report, &config, peer, verdict).await;
    }
    report.add(limits(&config.relay));
    Ok(report)
}

/// Reads what was written: an address, with a port or without, or the name of some.
async fn endpoints(text: &str) -> anyhow::Result<Vec<Endpoint>> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        let (ip, port) = (address.ip(), Some(address.port()));
        return Ok(vec![Endpoint { ip, port }]);
    }
    let bare = text.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(text).parse() {
        return Ok(vec![Endpoint { ip, port: None }]);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => {
            let port = port.parse().ok();
            (
                host,
                Some(port.with_context(|| format!("`{text}` has a wrong port"))?),
            )
        }
        None => (text, None),
    };
    let found = timeout(LOOKUP_MAX, lookup_host((host, port.unwrap_or(0))))
        .await
        .with_context(|| format!("nobody says in time where `{host}` is"))?
        .with_context(|| format!("`{text}` is no address, and no name that leads to one"))?;
    let mut ips: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    ips.sort_unstable();
    ips.dedup();
    if ips.is_empty() {
        bail!("`{host}` has no address");
    }
    Ok(ips.into_iter().map(|ip| Endpoint { ip, port }).collect())
}

fn family_name(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Whether the client can reach the relay at all.
fn describe_client(config: &crate::config::Config, client: Endpoint) -> Finding {
    let relay = &config.relay;
    let family = family_name(client.ip);
    let serves = |addresses: &[SocketAddr]| {
        let of_family = |address: &SocketAddr| address.is_ipv4() == client.ip.is_ipv4();
        addresses.iter().any(of_family)
    };
    let ways = [
        ("UDP", serves(&relay.listen_udp)),
        ("TCP", serves(&relay.listen_tcp) || serves(&config.listen)),
        ("TLS", serves(&relay.listen_tls)),
        ("DTLS", serves(&relay.listen_dtls)),
    ];
    let ways: Vec<_> = ways.iter().filter(|way| way.1).map(|way| way.0).collect();
    if ways.is_empty() {
        return Finding::bad(
            "client",
            format!("{client} is {family}, and the relay listens on no {family} address"),
            "name one in `listen_udp` in [relay]",
        );
    }
    Finding::good(
        "client",
        format!(
            "{client} may ask over {family}: {}. What it may reach does not depend on its own address",
            ways.join(", ")
        ),
    )
}

/// What follows for a client: the error it sees, if it sees one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    refusal: Option<Refusal>,
    /// It holds where a live Allocation is behind the peer, which only the running server knows.
    depends: bool,
}

/// Asks the relay's address check about `peer`, and tells what it says.
fn judge(report: &mut Report, config: &Config, peer: Endpoint) -> anyhow::Result<Verdict> {
    let policy = config.peer_policy()?;
    report.add(describe_form(peer));

    let relayed = config.relayed_address(peer.ip.is_ipv6())?;
    let Some(relayed) = relayed else {
        let family = family_name(peer.ip);
        report.add(Finding::bad(
            "family",
            format!(
                "the relay has no {family} address: an Allocation of that family is refused with 440 (cause \
                 `address_family_not_supported`), and a Permission for this peer on another one with 443 (cause \
                 `peer_address_family_mismatch`)"
            ),
            format!("name an {family} address of this machine in `relay_ips` in [relay]"),
        ));
        return Ok(Verdict {
            refusal: Some(Refusal::AddressFamilyNotSupported),
            depends: false,
        });
    };
    report.add(Finding::good(
        "family",
        format!(
            "an Allocation with an {} address reaches it, from {relayed}; with another one alone the peer is refused with 443",
            family_name(peer.ip)
        ),
    ));

    let by_ip = policy.explain_ip(peer.ip);
    report.add(describe(&policy, "permission", by_ip, peer));
    let Some(port) = peer.port else {
        return Ok(verdict_of(by_ip, by_ip == Rule::LiveRelayed));
    };
    // Whether an Allocation lives behind an own address only the running server knows.
    let by_port = policy.explain(SocketAddr::new(peer.ip, port), |_| false);
    let depends = by_ip == Rule::LiveRelayed && config.port_range().contains(&port);
    report.add(match (by_port, depends) {
        (Rule::Own, true) => Finding::note(
            "channel",
            "an own relayed address: what is sent there is handed over in memory while an Allocation lives behind that port, and \
             refused with 403 (cause `forbidden_own_address`) otherwise",
        ),
        (rule, _) => describe(&policy, "channel", rule, peer),
    });
    Ok(verdict_of(by_port, depends))
}

fn verdict_of(rule: Rule<'_>, depends: bool) -> Verdict {
    Verdict {
        refusal: rule.route().err().map(Refusal::Forbidden),
        depends,
    }
}

/// The one form the check looks at.
fn describe_form(peer: Endpoint) -> Finding {
    let ip = canonical(peer.ip);
    if ip == peer.ip {
        return Finding::good("peer", format!("{peer} is {}", family_name(ip)));
    }
    Finding::good(
        "peer",
        format!("{peer} is another way to write {ip}, which is what the check looks at"),
    )
}

/// What a rule means for the requests it decides on: CreatePermission knows no port, ChannelBind and what is sent do.
fn describe(policy: &PeerPolicy, check: &'static str, rule: Rule<'_>, peer: Endpoint) -> Finding {
    let ip = canonical(peer.ip);
    let requests = match check {
        "permission" => "CreatePermission",
        _ => "ChannelBind, and what is sent or arrives,",
    };
    let why = match rule {
        Rule::LiveRelayed => {
            "an own relayed address, which is reached in memory while an Allocation lives behind it"
                .to_owned()
        }
        Rule::Media(_) => "a media port of the SFU in this process".to_owned(),
        Rule::Denied(entry) => format!("`peers_deny` holds {entry}"),
        Rule::Allowed(entry) => format!("`peers_allow` holds {entry}"),
        Rule::Own => "an address of this server with no live Allocation behind it".to_owned(),
        Rule::Block(denial) => format!("{denial}, denied by default"),
        Rule::LowPort => "ports below 1024 are denied by default".to_owned(),
        Rule::Public => "a public address that no list holds".to_owned(),
    };
    let Err(denial) = rule.route() else {
        return Finding::good(check, format!("{requests} is allowed: {why}"));
    };
    let refusal = Refusal::Forbidden(denial);
    let code = refusal.code().map_or(0, |code| code.0);
    let exact = match peer.port {
        Some(port) => SocketAddr::new(ip, port).to_string(),
        None => ip.to_string(),
    };
    let fix = match rule {
        Rule::Denied(entry) => {
            format!("take {entry} out of `peers_deny` in [relay], if this peer is to be reached")
        }
        Rule::LowPort => format!(
            "if that service is to be reached, add \"{exact}\" to `peers_allow` in [relay]: only an entry with the port opens it"
        ),
        _ if policy.deny.is_empty() && policy.allow.is_empty() => {
            format!("if this peer is to be reached, set `peers_allow = [\"{exact}\"]` in [relay]")
        }
        _ => format!("if this peer is to be reached, add \"{exact}\" to `peers_allow` in [relay]"),
    };
    Finding::bad(
        check,
        format!(
            "{requests} is refused with {code} (cause `{}`): {why}",
            refusal.cause()
        ),
        fix,
    )
}

/// What else can stand in the way of any pair.
fn limits(config: &Config) -> Finding {
    Finding::note(
        "limits",
        format!(
            "whatever the peer, an Allocation is refused with 486 beyond {} of a User and {} of an Account, and with 508 beyond {} in all \
             or when no port of {} to {} is free",
            config.allocations_per_user_max,
            config.allocations_per_account_max,
            config.allocations_max,
            config.port_min,
            config.port_max
        ),
    )
}

/// Asks the running server, where there is one.
async fn try_it(
    report: &mut Report,
    config: &crate::config::Config,
    peer: Endpoint,
    verdict: Verdict,
) {
    let seen = match ask(config, peer).await {
        Ok(seen) => seen,
        Err(error) => {
            report.add(Finding::note(
                "server",
                format!("not asked: {error:#}. The verdict is that of the settings"),
            ));
            return;
        }
    };
    let expected = verdict.refusal.and_then(Refusal::code);
    report.add(match seen {
        None if expected.is_none() || verdict.depends => {
            Finding::good("server", "the running server allows it")
        }
        Some(code) if expected == Some(code) || verdict.depends => Finding::bad(
            "server",
            format!("the running server refuses it with {} {}", code.0, code.reason()),
            "see above",
        ),
        None => Finding::bad(
            "server",
            "the running server allows it: it has other settings",
            "reload it, or run doctor with its configuration",
        ),
        Some(code) => Finding::bad(
            "server",
            format!(
                "the running server refuses it with {} {}: it has other settings, or no room",
                code.0,
                code.reason()
            ),
            "reload it, or run doctor with its configuration; /metrics counts each cause in `relay_refusals_total`",
        ),
    });
}

/// The error code a client gets, or none.
async fn ask(
    config: &crate::config::Config,
    peer: Endpoint,
) -> anyhow::Result<Option<relay_service::client::ErrorCode>> {
    let listener = config.relay.listen_udp.first();
    let server = reachable(*listener.context("the relay has no UDP address")?);
    let secrets = DataDir::read_secrets(&config.data_dir)?;
    let secret = relay_service::Credentials::new([relay_service::Secret::new(&secrets.turn)]);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (username, password) = secret
        .issue(now + CREDENTIALS_LIFETIME, "offhook", "doctor")
        .context("there is no secret")?;

    let mut client = Client::udp(server, &username, &password).await?;
    let family = match peer.ip {
        IpAddr::V4(_) => AddressFamily::V4,
        IpAddr::V6(_) => AddressFamily::V6,
    };
    let outcome = async {
        client.allocate(Some(family)).await?;
        let address = SocketAddr::new(peer.ip, peer.port.unwrap_or(0));
        client.create_permission(address).await?;
        if peer.port.is_some() {
            client.channel_bind(CHANNEL, address).await?;
        }
        Ok(())
    };
    let outcome: Result<(), ClientError> = outcome.await;
    // One that was not made can't be ended, and the other ends by itself.
    client.refresh(0).await.ok();
    match outcome {
        Ok(()) => Ok(None),
        Err(ClientError::Refused(code)) => Ok(Some(code)),
        Err(error) => Err(error).context(format!("no server at {server}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told about `peer`, a line for each finding that is not plainly good.
    fn verdict(config: &str, peer: &str) -> String {
        let mut config: Config = toml::from_str(config).unwrap();
        // By default it listens on loopback, which makes that an own address.
        config.listen_udp.clear();
        config.listen_tcp.clear();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut said = Vec::new();
        for peer in runtime.block_on(endpoints(peer)).unwrap() {
            let mut report = Report::default();
            let verdict = judge(&mut report, &config, peer).unwrap();
            let code = verdict.refusal.and_then(Refusal::code);
            let code = code.map_or("allowed".to_owned(), |code| code.0.to_string());
            let cause = verdict.refusal.map_or("", Refusal::cause);
            let live = if verdict.depends { " unless live" } else { "" };
            said.push(format!("{code} {cause}{live}").trim().to_owned());
        }
        said.join(", ")
    }

    #[test]
    fn every_pair_has_a_verdict() {
        const V4: &str = "relay_ips = ['203.0.113.5']\nport_min = 50000\nport_max = 50010";
        const BOTH: &str = "relay_ips = ['203.0.113.5', '2a00:1450::5']\n\
            peers_allow = ['10.1.0.0/16', '10.1.0.9:53']\npeers_deny = ['10.1.2.0/24', '9.9.9.9:5000']";
        let rows = [
            (V4, "8.8.8.8", "allowed"),
            (V4, "8.8.8.8:5000", "allowed"),
            (V4, "8.8.8.8:53", "403 forbidden_low_port"),
            (V4, "127.0.0.1:5000", "403 forbidden_loopback"),
            (V4, "0x7f.1", "403 forbidden_loopback"),
            (V4, "10.0.0.1", "403 forbidden_private"),
            (V4, "169.254.169.254", "403 forbidden_link_local"),
            (V4, "224.0.0.1:5000", "403 forbidden_multicast"),
            (
                V4,
                "203.0.113.5:50003",
                "403 forbidden_own_address unless live",
            ),
            (V4, "203.0.113.5:49999", "403 forbidden_own_address"),
            (V4, "2606:4700::1111", "440 address_family_not_supported"),
            (V4, "::ffff:8.8.8.8", "440 address_family_not_supported"),
            (BOTH, "[2606:4700::1111]:5000", "allowed"),
            (BOTH, "[2606:4700::1111]", "allowed"),
            (BOTH, "::ffff:8.8.8.8", "allowed"),
            (BOTH, "::ffff:127.0.0.1", "403 forbidden_loopback"),
            (BOTH, "64:ff9b::a00:1", "403 forbidden_private"),
            (BOTH, "2002:7f00:1::", "403 forbidden_loopback"),
            (BOTH, "[::ffff:10.1.0.1]:5000", "allowed"),
            (BOTH, "10.1.0.1:5000", "allowed"),
            (BOTH, "10.1.2.3", "403 forbidden_deny_list"),
            (BOTH, "9.9.9.9", "allowed"),
            (BOTH, "9.9.9.9:5000", "403 forbidden_deny_list"),
            (BOTH, "10.1.0.9:53", "allowed"),
            (BOTH, "10.1.0.8:53", "403 forbidden_low_port"),
        ];
        for (config, peer, expected) in rows {
            assert_eq!(verdict(config, peer), expected, "{peer}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_change() {
        let config: Config = toml::from_str("relay_ips = ['203.0.113.5']").unwrap();
        let mut report = Report::default();
        let peer = Endpoint {
            ip: "::ffff:10.0.0.1".parse().unwrap(),
            port: Some(5000),
        };
        let policy = config.peer_policy().unwrap();
        let rule = policy.explain(SocketAddr::new(peer.ip, 5000), |_| false);
        report.add(describe_form(peer));
        report.add(describe(&policy, "channel", rule, peer));
        let text = report.text();
        for seen in [
            "another way to write 10.0.0.1",
            "refused with 403 (cause `forbidden_private`): private address, denied by default",
            "set `peers_allow = [\"10.0.0.1:5000\"]`",
        ] {
            assert!(text.contains(seen), "no {seen:?} in\n{text}");
        }
    }

    #[tokio::test]
    async fn what_is_neither_address_nor_name_is_refused() {
        for text in ["", "8.8.8.8:99999", "no such name", "8.8.8.8:x", "[::1"] {
            assert!(endpoints(text).await.is_err(), "{text}");
        }
        let one = endpoints("localhost:5000").await.unwrap();
        assert!(
            one.iter()
                .all(|found| found.ip.is_loopback() && found.port == Some(5000))
        );
    }
}
