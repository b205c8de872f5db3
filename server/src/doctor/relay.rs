//! The relay: real Allocations on every transport, a packet through two of them, and an address that clients can reach.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rcgen::{CertificateParams, KeyPair};
use relay_service::Certificate;
use relay_service::client::Client;
use signaling_service::IceConfig;
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::timeout;

use super::Patient;
use super::network::reachable;
use super::report::{Finding, Report};
use super::site::{Stream, open_tls};
use crate::addresses::{self, Reach};
use crate::config::{Config, PublicUrl};
use crate::signaling;

/// How long the credentials made here are good for.
const CREDENTIALS_LIFETIME: Duration = Duration::from_secs(60);

/// How long a packet may take through the relay.
const PACKET_MAX: Duration = Duration::from_secs(5);

/// What is sent through the relay.
const PROBE: &[u8] = b"offhook doctor";

/// A user name and a password for TURN.
struct Credentials {
    username: String,
    password: String,
}

pub(super) async fn check(report: &mut Report, patient: &Patient) {
    let Some(secrets) = &patient.secrets else {
        report.add(Finding::note(
            "relay",
            "not checked: without the secrets there are no credentials",
        ));
        return;
    };
    let secret = relay_service::Credentials::new([relay_service::Secret::new(&secrets.turn)]);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let Some((username, password)) = secret.issue(now + CREDENTIALS_LIFETIME, "offhook", "doctor")
    else {
        return;
    };
    let credentials = Credentials { username, password };

    let relay = &patient.config.relay;
    let has_ipv6 = addresses::of_this_machine().is_ok_and(|all| all.iter().any(IpAddr::is_ipv6));
    let here = |address: &&SocketAddr| has_ipv6 || address.is_ipv4();
    let mut relayed = None;
    for address in relay.listen_udp.iter().filter(here) {
        let outcome = over_udp(reachable(*address), &credentials).await;
        relayed = relayed.or(outcome.as_ref().ok().copied());
        report.add(describe("TURN UDP", *address, outcome));
    }
    for address in relay
        .listen_tcp
        .iter()
        .chain(&patient.config.listen)
        .filter(here)
    {
        let outcome = over_tcp(reachable(*address), &credentials).await;
        report.add(describe("TURN TCP", *address, outcome));
    }
    for address in relay.listen_tls.iter().filter(here) {
        let Some(name) = host_told(patient) else {
            report.add(Finding::note(
                "TURN TLS",
                format!("{address}: not checked, for nobody said for which name; set `public_url` or `public_host`"),
            ));
            continue;
        };
        let outcome = over_tls(reachable(*address), name, patient, &credentials).await;
        report.add(describe("TURN TLS", *address, outcome));
    }
    for address in relay.listen_dtls.iter().filter(here) {
        let outcome = over_dtls(reachable(*address), &credentials).await;
        report.add(describe("TURN DTLS", *address, outcome));
    }
    as_told(report, patient, &credentials).await;
    if let Some(address) = relay.listen_udp.iter().find(|address| here(address)) {
        report.add(
            match timeout(PACKET_MAX, through(reachable(*address), &credentials)).await {
                Ok(Ok(())) => Finding::good("relay", "a packet went through two Allocations"),
                Ok(Err(error)) => Finding::bad(
                    "relay",
                    format!("no packet goes through: {error:#}"),
                    "read the server's log at `relay_service=debug`",
                ),
                Err(_) => Finding::bad(
                    "relay",
                    "a packet was lost between two Allocations",
                    "read the server's log at `relay_service=debug`",
                ),
            },
        );
    }
    if let Some(relayed) = relayed {
        report.add(plausibility(relayed, patient));
    }
}

/// Whom the certificate of TURN over TLS has to name.
pub(super) fn host_told(patient: &Patient) -> Option<&str> {
    let relay = patient.config.relay.public_host.as_deref();
    relay
        .map(|host| host.trim_start_matches('[').trim_end_matches(']'))
        .or_else(|| patient.url.as_ref().map(PublicUrl::host))
}

/// Goes the ways that clients are told, by name and through whatever stands in front.
async fn as_told(report: &mut Report, patient: &Patient, credentials: &Credentials) {
    let Some(host) = host_told(patient) else {
        return;
    };
    let ice = told(patient);
    if let Some(port) = ice.udp_port {
        let outcome = over_udp_by_name(host, port, credentials).await;
        report.add(describe_told("TURN UDP", host, port, outcome));
    }
    if let Some(port) = ice.tcp_port {
        let outcome = over_tcp((host, port), credentials).await;
        report.add(describe_told("TURN TCP", host, port, outcome));
    }
    if let Some(port) = ice.tls_port {
        let outcome = over_tls((host, port), host, patient, credentials).await;
        report.add(describe_told("TURN TLS", host, port, outcome));
    } else if patient.url.as_ref().is_some_and(PublicUrl::is_secure) {
        report.add(Finding::note(
            "TURN TLS",
            "clients are offered none, so who can reach nothing but TLS on TCP 443 can't be relayed: an HTTP proxy can't pass TURN on. \
             Give offhook port 443 itself, or an address of its own in `listen_tls` and `public_host`",
        ));
    }
}

/// What the server tells its clients.
pub(super) fn told(patient: &Patient) -> IceConfig {
    let config = Config {
        public_url: patient.url.clone(),
        ..patient.config.clone()
    };
    signaling::told(&config, patient.speaks_tls())
}

fn describe_told(
    check: &'static str,
    host: &str,
    port: u16,
    outcome: anyhow::Result<SocketAddr>,
) -> Finding {
    match outcome {
        Ok(_) => Finding::good(
            check,
            format!("{host} port {port}, as clients are told: an Allocation"),
        ),
        Err(error) => Finding::bad(
            check,
            format!("{host} port {port}, as clients are told: {error:#}"),
            "open the port in the firewall and pass it on to the relay; where an HTTP proxy or a CDN has that name, set `public_host` in [relay] \
             to a name that leads here. A NAT that doesn't pass its own inside back in is no fault: ask from outside then",
        ),
    }
}

fn describe(
    check: &'static str,
    address: SocketAddr,
    outcome: anyhow::Result<SocketAddr>,
) -> Finding {
    match outcome {
        Ok(_) => Finding::good(check, format!("{address}: an Allocation")),
        Err(error) => Finding::bad(
            check,
            format!("{address}: {error:#}"),
            "is the server running, with the role `relay`, this data directory and these settings? Does a firewall on this machine drop it?",
        ),
    }
}

async fn over_udp(server: SocketAddr, credentials: &Credentials) -> anyhow::Result<SocketAddr> {
    allocate(Client::udp(server, &credentials.username, &credentials.password).await?).await
}

/// Tries each address of a name, as ICE does.
async fn over_udp_by_name(
    host: &str,
    port: u16,
    credentials: &Credentials,
) -> anyhow::Result<SocketAddr> {
    let mut outcome = Err(anyhow::anyhow!("the name has no address"));
    for address in timeout(PACKET_MAX, lookup_host((host, port)))
        .await
        .context("nobody says where it is")??
    {
        outcome = over_udp(address, credentials).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

async fn over_tcp(
    server: impl ToSocketAddrs,
    credentials: &Credentials,
) -> anyhow::Result<SocketAddr> {
    let stream = timeout(PACKET_MAX, TcpStream::connect(server))
        .await
        .context("no connection in time")??;
    over(stream, credentials).await
}

/// `name` is the one the certificate has to have.
async fn over_tls(
    server: impl ToSocketAddrs,
    name: &str,
    patient: &Patient,
    credentials: &Credentials,
) -> anyhow::Result<SocketAddr> {
    let stream = timeout(PACKET_MAX, open_tls(patient, server, name))
        .await
        .context("no connection in time")??;
    over(stream, credentials).await
}

/// Whose certificate is shown counts for nothing here: it is the one of TLS.
async fn over_dtls(server: SocketAddr, credentials: &Credentials) -> anyhow::Result<SocketAddr> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::default().self_signed(&key)?;
    let own = Certificate {
        certificate: certificate.der().to_vec(),
        private_key: key.serialize_der(),
    };
    let (username, password) = (&credentials.username, &credentials.password);
    allocate(Client::dtls(server, own, username, password).await?).await
}

async fn over(
    stream: impl Stream + 'static,
    credentials: &Credentials,
) -> anyhow::Result<SocketAddr> {
    let (username, password) = (&credentials.username, &credentials.password);
    allocate(Client::stream(stream, username, password)).await
}

/// Makes an Allocation and ends it again; returns its relayed address.
async fn allocate(mut client: Client) -> anyhow::Result<SocketAddr> {
    let relayed = client
        .allocate(None)
        .await?
        .relayed
        .context("an answer without a relayed address")?;
    client.refresh(0).await?;
    Ok(relayed)
}

/// Sends a packet from one Allocation to another.
async fn through(server: SocketAddr, credentials: &Credentials) -> anyhow::Result<()> {
    let mut sender = Client::udp(server, &credentials.username, &credentials.password).await?;
    let mut receiver = Client::udp(server, &credentials.username, &credentials.password).await?;
    let from = sender
        .allocate(None)
        .await?
        .relayed
        .context("no relayed address")?;
    let to = receiver
        .allocate(None)
        .await?
        .relayed
        .context("no relayed address")?;
    receiver.create_permission(from).await?;
    sender.create_permission(to).await?;
    sender.send_to(to, PROBE).await?;
    if receiver.receive().await?.payload != PROBE {
        bail!("something else arrived");
    }
    sender.refresh(0).await?;
    receiver.refresh(0).await?;
    Ok(())
}

/// Whether those who can reach the site can reach the relayed addresses, too.
fn plausibility(relayed: SocketAddr, patient: &Patient) -> Finding {
    let ip = relayed.ip();
    let is_public = patient.is_public();
    match addresses::reach(ip) {
        Reach::Internet => Finding::good(
            "address",
            format!("relayed addresses are on {ip}, which the internet can reach"),
        ),
        _ if !is_public => Finding::note(
            "address",
            format!("relayed addresses are on {ip}: good for those who can reach that address"),
        ),
        Reach::Machine => Finding::bad(
            "address",
            format!("relayed addresses are on {ip}: nobody outside this machine can use them"),
            "set `relay_ips` in [relay] to this machine's address, `public_ips` to the one the internet sees, and `listen_udp` to match",
        ),
        Reach::Local | Reach::Nowhere => Finding::bad(
            "address",
            format!("relayed addresses are on {ip}, which the internet can't reach"),
            "set `public_ips` in [relay] to the address the internet sees, and pass the relay's UDP ports on to this machine",
        ),
    }
}
