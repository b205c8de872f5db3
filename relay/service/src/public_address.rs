//! The relay's address as the internet sees it, where a NAT of the cloud stands in front: asked for at
//! a STUN server the operator names (RFC 8489 §2), from the address that relays, when the relay starts
//! and every so often afterwards.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use relay_stun::client::{Client as Conversation, Event, Request};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Config;
use crate::handle::Handle;

/// How long one server may take, name service included.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// After how long a request is sent again at first; the pause doubles (RFC 8489 §6.2.1).
const RETRANSMIT_AFTER: Duration = Duration::from_millis(500);

/// The longest answer that is read, in bytes: one datagram that no path takes apart.
const ANSWER_LEN_MAX: usize = 1500;

/// Finds the public address of each of `relay_ips`, by the servers of `find_public_ips_by`, in the order
/// of both. Where no server is named nobody is asked, and `public_ips` is what it is.
///
/// # Errors
///
/// No server answers for one of the addresses, or names one that no peer could reach.
pub async fn find(config: &Config) -> anyhow::Result<Vec<IpAddr>> {
    if config.find_public_ips_by.is_empty() {
        return Ok(config.public_ips.clone());
    }
    let mut found = Vec::new();
    for relay_ip in &config.relay_ips {
        found.push(find_one(*relay_ip, &config.find_public_ips_by).await?);
    }
    Ok(found)
}

/// Asks again in pauses of `every`, for as long as `relay` lives, and has it relay on what is found where that is another address than
/// was `found` before. Without an answer everything stays as it is.
pub async fn follow(relay: &Handle, config: &Config, mut found: Vec<IpAddr>, every: Duration) {
    let mut is_answered = true;
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = relay.stopped() => return,
        }
        let now = match find(config).await {
            Ok(now) => now,
            Err(error) => {
                // Once is enough: calls go on.
                if std::mem::replace(&mut is_answered, false) {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "No word of the relay's public address, keeping it");
                }
                continue;
            }
        };
        is_answered = true;
        if now == found {
            continue;
        }
        match relay.set_public_ips(now.clone()).await {
            Ok(()) => tracing::warn!(
                before = ?found,
                public_ips = ?now,
                "The relay's public address is another one; Allocations of before keep the old one"
            ),
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                public_ips = ?now,
                "The relay's public address is another one and was not taken; start the server again"
            ),
        }
        found = now;
    }
}

/// Asks one server after the other, until one answers.
async fn find_one(relay_ip: IpAddr, servers: &[String]) -> anyhow::Result<IpAddr> {
    let mut failed = Vec::new();
    for server in servers {
        match ask(relay_ip, server).await {
            Ok(ip) => return Ok(ip),
            Err(error) => failed.push(format!("{server}: {error:#}")),
        }
    }
    anyhow::bail!(
        "the public address of {relay_ip} was not found by `find_public_ips_by` ({}); set `public_ips` instead, or \
         name a STUN server that this machine reaches over UDP",
        failed.join("; ")
    )
}

async fn ask(relay_ip: IpAddr, server: &str) -> anyhow::Result<IpAddr> {
    let addresses = timeout(ANSWER_MAX, lookup_host(server)).await;
    let mut addresses = addresses.context("nobody says in time where it is")??;
    let address = addresses
        .find(|address| address.is_ipv4() == relay_ip.is_ipv4())
        .context("it has no address of that family")?;
    let mapped = timeout(ANSWER_MAX, mapped_address(relay_ip, address))
        .await
        .context("no answer")??;
    ensure!(
        mapped.is_ipv4() == relay_ip.is_ipv4() && !mapped.is_unspecified(),
        "it sees {mapped}, which is no address to relay on"
    );
    Ok(mapped)
}

/// The address `server` sees a request from `relay_ip` come from. Asks again and again, for ever.
async fn mapped_address(relay_ip: IpAddr, server: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(relay_ip, 0)).await?;
    // Nobody else's answer comes in, unless they guess the port and the transaction id.
    socket.connect(server).await?;
    let mut conversation = Conversation::new("", "", rand::random());
    let request = conversation.request(Request::Binding);
    let mut pause = RETRANSMIT_AFTER;
    let mut answer = [0; ANSWER_LEN_MAX];
    loop {
        socket.send(&request).await?;
        let again = Instant::now() + pause;
        while let Ok(received) = timeout_at(again, socket.recv(&mut answer)).await {
            if let Event::Success(answer) = conversation.handle(&answer[..received?])
                && let Some(mapped) = answer.mapped
            {
                return Ok(mapped.ip());
            }
        }
        pause *= 2;
    }
}
