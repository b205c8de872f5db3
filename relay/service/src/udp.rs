//! UDP sockets: binding them, sending from them, and receiving from those that belong to streams.
//!
//! Datagrams leave with DF clear, whatever their size, so that routers may take them apart, and what
//! ICMP says of a path's MTU changes nothing here (RFC 8656 §15). A client that wants to find the
//! MTU itself says so with each datagram ([`send_whole`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::socket::{setsockopt, sockopt};
use relay_core::RelayPort;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::shard::Shard;

/// What is of interest at a relayed port.
const WATCHED: Interest = Interest::READABLE.add(Interest::ERROR);

/// What a listening socket may hold before the kernel drops, in bytes, as far as the system lets
/// us: all clients share it.
pub(crate) const LISTENER_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Binds `count` sockets to one address, among which the kernel shares out the senders.
///
/// # Errors
///
/// The address is in use, also by another process that would share it.
pub(crate) fn bind_group(
    address: SocketAddr,
    count: usize,
) -> io::Result<Vec<std::net::UdpSocket>> {
    let buffer = Some(LISTENER_BUFFER_BYTES);
    let alone = bind(address, buffer, false)?;
    if count == 1 {
        return Ok(vec![alone]);
    }
    let address = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| bind(address, buffer, true)).collect()
}

/// Binds a socket that never blocks. An IPv6 one takes no IPv4, so that every client and peer has
/// one written form. Those that are `shared` may be several on one address: the kernel chooses one
/// for each sender.
pub(crate) fn bind(
    address: SocketAddr,
    buffer_bytes: Option<usize>,
    shared: bool,
) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(bytes) = buffer_bytes {
        // The system's own limit is as good as we get.
        socket.set_recv_buffer_size(bytes).ok();
        socket.set_send_buffer_size(bytes).ok();
    }
    // IPv6 has no DF: the sender alone takes datagrams apart, and is told to by default.
    if address.is_ipv4()
        && let Err(error) = set_mtu_discovery(&socket, libc::IP_PMTUDISC_OMIT)
    {
        tracing::debug!(%error, "Datagrams leave with DF set");
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Binds a relayed port, which is told of ICMP about what it sent ([`crate::icmp`]).
pub(crate) fn bind_relayed(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = bind(address, None, false)?;
    let told = match address.ip() {
        IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
        IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
    };
    if let Err(error) = told {
        tracing::debug!(%error, "Clients are not told of ICMP");
    }
    Ok(socket)
}

/// Says what an IPv4 socket does about DF (ip(7), IP_MTU_DISCOVER).
fn set_mtu_discovery(socket: &impl AsFd, value: libc::c_int) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an int is shorter than 4 GB"
    )]
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is an int that outlives the call.
    let set = unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            len,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends one datagram at once or not at all. It asks the socket itself: what the runtime knows
/// about a new socket's readiness is that there is none.
pub(crate) fn send(socket: &impl AsFd, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let (socket, to) = (SockRef::from(socket), to.into());
    send_again(|| socket.send_to(bytes, &to).map(|_| ()))
}

/// Sends one datagram with DF set, in one piece or not at all; IPv6 alike. What another
/// thread sends from the socket meanwhile may be sent alike.
///
/// # Errors
///
/// [`is_too_long`] tells whether the interface takes no such datagram.
pub(crate) fn send_whole(socket: &impl AsFd, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    if to.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6DontFrag, &true)?;
        let sent = send(socket, to, bytes);
        setsockopt(socket, sockopt::Ipv6DontFrag, &false)?;
        return sent;
    }
    // What was learned of the path before counts for nothing, for it may be forged: a router that
    // can't pass this one on says so.
    set_mtu_discovery(socket, libc::IP_PMTUDISC_PROBE)?;
    let sent = send(socket, to, bytes);
    set_mtu_discovery(socket, libc::IP_PMTUDISC_OMIT)?;
    sent
}

/// Sends what `send` sends, and once more where it failed: a socket that is told of ICMP says so in
/// place of the sending, and the datagram is not to blame for what became of an earlier one.
pub(crate) fn send_again(send: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match send() {
        Err(error) if !is_full(&error) => send(),
        sent => sent,
    }
}

/// Whether a socket has no room for what was to be sent.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory
    )
}

/// Whether an interface takes no datagram of this length in one piece.
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Has the runtime watch the socket of a relayed port.
pub(crate) fn watch(
    socket: Arc<std::net::UdpSocket>,
) -> io::Result<AsyncFd<Arc<std::net::UdpSocket>>> {
    // SAFETY: the Arc keeps the socket open and the same for as long as the AsyncFd has it.
    let watched = unsafe { AsyncFd::register_with_interest(socket, WATCHED) };
    watched.map_err(Into::into)
}

/// Receives from peers, and what ICMP says of them, until the port is closed or moves, which ends
/// the task.
pub(crate) async fn receive_from_peers(
    shard: Rc<Shard>,
    port: RelayPort,
    socket: AsyncFd<Arc<std::net::UdpSocket>>,
) {
    loop {
        let Ok(mut waiting) = socket.ready(WATCHED).await else {
            return; // The runtime is ending.
        };
        let ready = waiting.ready();
        if ready.is_error() && shard.receive_errors(port, socket.get_ref(), None) {
            waiting.clear_ready_matching(Ready::ERROR);
        }
        if ready.is_readable() {
            match shard.receive_from_peers(port, socket.get_ref()) {
                true => waiting.clear_ready_matching(Ready::READABLE),
                false => tokio::task::yield_now().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_once_more_unless_there_is_no_room() {
        let check = |errors: &[io::ErrorKind], expected: (bool, usize)| {
            let calls = std::cell::Cell::new(0);
            let sent = send_again(|| {
                let call = calls.replace(calls.get() + 1);
                errors.get(call).map_or(Ok(()), |kind| Err((*kind).into()))
            });
            assert_eq!((sent.is_ok(), calls.get()), expected, "{errors:?}");
        };
        let refused = io::ErrorKind::ConnectionRefused;
        check(&[], (true, 1));
        check(&[refused], (true, 2));
        check(&[refused, refused], (false, 2));
        check(&[io::ErrorKind::WouldBlock], (false, 1));
    }
}
