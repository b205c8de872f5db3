//! The relay: real Allocations on every transport, a packet through two of them, and an address that clients can reach.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use relay_service::client::Client;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Patient;
use super::network::reachable;
use super::report::{Finding, Report};
use super::site::connect;
use crate::addresses::{self, Reach};

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
    if let Some(url) = patient.url.as_ref().filter(|url| url.is_secure()) {
        let outcome = match connect(patient, url).await {
            Ok(stream) => {
                allocate(Client::stream(
                    stream,
                    &credentials.username,
                    &credentials.password,
                ))
                .await
            }
            Err(error) => Err(error),
        };
        report.add(match outcome {
            Ok(_) => Finding::good("TURN TLS", format!("{}: an Allocation", url.authority())),
            Err(error) => Finding::bad(
                "TURN TLS",
                format!("{}: {error:#}", url.authority()),
                "an HTTP proxy can't pass TURN on: give offhook this port itself, or let the proxy forward bare TCP",
            ),
        });
    }
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

async fn over_tcp(server: SocketAddr, credentials: &Credentials) -> anyhow::Result<SocketAddr> {
    let stream = timeout(PACKET_MAX, TcpStream::connect(server))
        .await
        .context("no connection in time")??;
    allocate(Client::stream(
        stream,
        &credentials.username,
        &credentials.password,
    ))
    .await
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
    let is_public = patient
        .url
        .as_ref()
        .is_some_and(|url| match url.host().parse() {
            Ok(ip) => addresses::reach(ip) == Reach::Internet,
            Err(_) => url.host() != "localhost",
        });
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
