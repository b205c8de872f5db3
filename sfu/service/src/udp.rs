//! Binding the sockets of shards.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// What a socket may hold before the kernel drops, in bytes, as far as the system lets us: all Participants of a shard share it.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Binds a socket that never blocks. An IPv6 one takes no IPv4, so that everybody has one written form.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The system's own limit is as good as we get.
    socket.set_recv_buffer_size(BUFFER_BYTES).ok();
    socket.set_send_buffer_size(BUFFER_BYTES).ok();
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
