//! UDP sockets: binding them, and receiving from those that belong to streams.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;

use relay_core::RelayPort;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::shard::{HEADROOM, Shard, TAILROOM};

/// How many datagrams one socket may bring before others have their turn.
const BURST_MAX: usize = 64;

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
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Receives one datagram behind [`HEADROOM`]; `None` once nothing is there.
pub(crate) fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, SocketAddr)>> {
    let room = HEADROOM..buffer.len() - TAILROOM;
    match socket.try_recv_from(&mut buffer[room]) {
        Ok(received) => Ok(Some(received)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends one datagram at once or not at all. It asks the socket itself: what the runtime knows
/// about a new socket's readiness is that there is none.
pub(crate) fn send(socket: &impl AsFd, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    SockRef::from(socket).send_to(bytes, &to.into()).map(|_| ())
}

/// Receives from peers until the port is closed, which ends the task.
pub(crate) async fn receive_from_peers(shard: Rc<Shard>, port: RelayPort, socket: Rc<UdpSocket>) {
    receive_all(&socket, || shard.receive_from_peer(port, &socket)).await;
}

async fn receive_all(socket: &UdpSocket, mut receive_one: impl FnMut() -> io::Result<bool>) {
    loop {
        if socket.readable().await.is_err() {
            return; // The runtime is ending.
        }
        let mut emptied = false;
        for _ in 0..BURST_MAX {
            match receive_one() {
                Ok(true) => {}
                Ok(false) => {
                    emptied = true;
                    break;
                }
                // An ICMP error about a datagram sent before; the socket itself is fine.
                Err(error) => tracing::trace!(%error, "Datagram not received"),
            }
        }
        if !emptied {
            tokio::task::yield_now().await;
        }
    }
}
