//! What ICMP says about datagrams that a relayed port has sent: the error queue of its socket
//! (ip(7), IP_RECVERR). The kernel matches each message to the socket by the datagram it quotes.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use relay_stun::Icmp;

/// How many messages are taken in one turn; whoever makes routers speak waits like all others.
pub(crate) const TURN_MAX: usize = 16;

/// Room for one control message: a header, the error (16 bytes) and who said it (up to 28).
#[repr(align(8))]
struct Control([u8; 128]);

/// One message of a queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// ICMP said this about a datagram to that peer.
    Icmp(SocketAddr, Icmp),
    /// This machine said that a datagram with its headers is longer than so many bytes.
    TooLong(u32),
    /// Something that is of no use.
    Nothing,
}

/// Takes one message from the queue of a socket; `None` once nothing is there. Allocates nothing.
pub(crate) fn receive(socket: &impl AsFd) -> Option<Said> {
    // Whom the datagram was for is told by the address; the datagram itself is not needed.
    let mut quoted = [IoSliceMut::new(&mut [])];
    let mut control = Control([0; 128]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut quoted, Some(&mut control.0), flags).ok()?;
    let peer = message.address.as_ref().and_then(address);
    let error = message.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error),
            _ => None,
        })
    });
    let Some(error) = error else {
        return Some(Said::Nothing);
    };
    Some(match (error.ee_origin, peer) {
        (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, Some(peer)) => {
            let icmp = Icmp {
                kind: error.ee_type,
                code: error.ee_code,
                data: error.ee_info,
            };
            Said::Icmp(peer, icmp)
        }
        (libc::SO_EE_ORIGIN_LOCAL, _) if error.ee_errno == libc::EMSGSIZE.cast_unsigned() => {
            Said::TooLong(error.ee_info)
        }
        _ => Said::Nothing,
    })
}

/// What a router would say of a datagram to `peer` that is longer than `mtu` bytes.
pub(crate) fn too_long(peer: SocketAddr, mtu: u32) -> Icmp {
    // RFC 792 with RFC 1191, RFC 4443 §3.2.
    let (kind, code) = if peer.is_ipv4() { (3, 4) } else { (2, 0) };
    Icmp {
        kind,
        code,
        data: mtu,
    }
}

fn address(name: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = name.as_sockaddr_in();
    let v6 = name.as_sockaddr_in6();
    v4.map(|v4| SocketAddr::V4((*v4).into()))
        .or_else(|| v6.map(|v6| SocketAddr::V6((*v6).into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp;

    #[test]
    fn a_closed_port_is_told_with_its_own_number_and_harms_no_other_datagram() {
        for ip in ["127.0.0.1", "::1"] {
            let any: SocketAddr = format!("{}:0", if ip == "::1" { "[::1]" } else { ip })
                .parse()
                .unwrap();
            let Ok(peer) = std::net::UdpSocket::bind(any) else {
                continue; // No IPv6 here.
            };
            let socket = udp::bind_relayed(any).unwrap();
            assert_eq!(receive(&socket), None);
            let closed = std::net::UdpSocket::bind(any)
                .unwrap()
                .local_addr()
                .unwrap();
            udp::send(&socket, closed, b"anybody?").unwrap();
            // The loopback answers before the call is over.
            let to = peer.local_addr().unwrap();
            udp::send(&socket, to, b"you!").unwrap();
            let (kind, code) = if any.is_ipv4() { (3, 3) } else { (1, 4) };
            let icmp = Icmp {
                kind,
                code,
                data: 0,
            };
            assert_eq!(receive(&socket), Some(Said::Icmp(closed, icmp)));
            assert_eq!(receive(&socket), None);
            let mut got = [0; 16];
            let (len, from) = peer.recv_from(&mut got).unwrap();
            assert_eq!(
                (&got[..len], from),
                (&b"you!"[..], socket.local_addr().unwrap())
            );
        }
    }

    #[test]
    fn what_no_interface_takes_whole_is_refused_and_named() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let any: SocketAddr = any.parse().unwrap();
            let Ok(peer) = std::net::UdpSocket::bind(any) else {
                continue; // No IPv6 here.
            };
            let to = peer.local_addr().unwrap();
            let socket = udp::bind_relayed(any).unwrap();
            // The loopback takes 65,536 bytes with all headers.
            let long = vec![7; 65_507];
            let error = udp::send_whole(&socket, to, &long[..65_495]);
            if any.is_ipv6() {
                assert!(udp::is_too_long(&error.unwrap_err()));
                assert_eq!(receive(&socket), Some(Said::TooLong(65_536)));
            } else {
                error.unwrap();
            }
            // Taken apart, or not: as before.
            udp::send(&socket, to, &long).unwrap();
            udp::send_whole(&socket, to, b"short").unwrap();
        }
    }
}
