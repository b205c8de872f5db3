//! Ports for RTP and RTCP: two in a row, at random, so that nobody knows where the next call will be.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use rand::RngExt;
use rand::rngs::StdRng;
use socket2::SockRef;

use super::Settings;

/// How many pairs are tried.
const TRIES_MAX: u32 = 256;

/// Voice goes before all else where the network makes a difference (RFC 4594 §4.1: expedited forwarding).
const TRAFFIC_CLASS: u32 = 0xb8;

/// How many pairs of an even port and the next there are.
pub(super) fn pairs(settings: &Settings) -> u32 {
    let first = u32::from(settings.port_min).next_multiple_of(2);
    (u32::from(settings.port_max) + 1).saturating_sub(first) / 2
}

/// Binds a pair that is free at `local`; gives the port of RTP, and both sockets. `None` if none was found.
pub(super) fn bind(
    settings: &Settings,
    local: IpAddr,
    rng: &mut StdRng,
) -> Option<(u16, UdpSocket, UdpSocket)> {
    let pairs = pairs(settings);
    let first = u32::from(settings.port_min).next_multiple_of(2);
    let start = rng.random_range(0..pairs);
    // The first tries are at random; a range that is nearly full is looked through from there.
    let nearby = (0..TRIES_MAX / 2).map(|step| (start + step) % pairs);
    let random: Vec<u32> = (0..TRIES_MAX / 2)
        .map(|_| rng.random_range(0..pairs))
        .collect();
    random.into_iter().chain(nearby).find_map(|pair| {
        let port = u16::try_from(first + 2 * pair).ok()?;
        let rtp = open(SocketAddr::new(local, port))?;
        let rtcp = open(SocketAddr::new(local, port.checked_add(1)?))?;
        Some((port, rtp, rtcp))
    })
}

fn open(address: SocketAddr) -> Option<UdpSocket> {
    let socket = UdpSocket::bind(address).ok()?;
    socket.set_nonblocking(true).ok()?;
    let options = SockRef::from(&socket);
    let marked = match address {
        SocketAddr::V4(_) => options.set_tos_v4(TRAFFIC_CLASS),
        SocketAddr::V6(_) => options.set_tclass_v6(TRAFFIC_CLASS),
    };
    if let Err(error) = marked {
        tracing::debug!(%error, "Packets of sound are not marked");
    }
    Some(socket)
}
