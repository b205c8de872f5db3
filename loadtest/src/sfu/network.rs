//! A network namespace for a run: some servers' ICE leaves the loopback device out, so all meet on a pair of virtual devices.
//!
//! The namespace has no name and goes away with the last process in it; nothing outside notices.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, unshare};

/// Where media comes in and leaves from, of servers and clients alike.
const MEDIA_IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The beginning of [`MEDIA_IP`], for servers that choose among addresses.
pub(super) const MEDIA_PREFIX: &str = "10.77.0";

/// Moves this thread, and what it starts from now on, to a namespace of its own; returns its address for media.
///
/// Fails where that isn't allowed: it takes the administrator.
pub(super) fn enter() -> anyhow::Result<IpAddr> {
    unshare(CloneFlags::CLONE_NEWNET).context("no network namespace")?;
    let address = format!("{MEDIA_IP}/24");
    for command in [
        &["link", "set", "lo", "up"][..],
        &[
            "link", "add", "sfu0", "type", "veth", "peer", "name", "sfu1",
        ],
        &["addr", "add", &address, "dev", "sfu0"],
        &["link", "set", "sfu0", "up"],
        &["link", "set", "sfu1", "up"],
    ] {
        let status = Command::new("ip")
            .args(command)
            .status()
            .context("no `ip`")?;
        ensure!(status.success(), "`ip {}` failed", command.join(" "));
    }
    Ok(MEDIA_IP.into())
}
