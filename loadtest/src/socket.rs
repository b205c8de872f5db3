//! UDP sockets that carry a burst of equal messages in one call, by segmentation offload (GSO out, GRO in).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket as Raw, Type};

/// What a socket may hold before the kernel drops, in bytes, as far as the system lets us.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The longest thing received at once, in bytes: a whole burst.
pub(crate) const RECEIVED_LEN_MAX: usize = 65_535;

/// A UDP socket that never blocks.
pub(crate) struct Socket(std::net::UdpSocket);

/// What arrived in one call: messages of `segment` bytes one behind the other, the last may be shorter.
pub(crate) struct Received {
    /// Bytes in all.
    pub(crate) len: usize,
    /// Bytes of each message.
    pub(crate) segment: usize,
    /// The sender, where the socket is not connected.
    pub(crate) from: Option<SocketAddr>,
}

impl Socket {
    /// Binds `address`; with `bursts` the kernel may hand over several messages at once.
    pub(crate) fn bind(address: SocketAddr, bursts: bool) -> io::Result<Self> {
        let socket = Raw::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.set_nonblocking(true)?;
        // The system's own limit is as good as we get.
        socket.set_recv_buffer_size(BUFFER_BYTES).ok();
        socket.set_send_buffer_size(BUFFER_BYTES).ok();
        socket.bind(&address.into())?;
        if bursts {
            setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        }
        Ok(Self(socket.into()))
    }

    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<()> {
        self.0.connect(to)
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// For requests before the load: waits for answers.
    pub(crate) fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        let socket = SockRef::from(&self.0);
        socket.set_nonblocking(!blocking)?;
        socket.set_read_timeout(blocking.then_some(std::time::Duration::from_millis(500)))
    }

    /// The plain socket, for one message at a time.
    pub(crate) fn plain(&self) -> &std::net::UdpSocket {
        &self.0
    }

    /// Sends `parts` as messages of `segment` bytes each, in one call; `false` when the socket is full.
    pub(crate) fn send(
        &self,
        parts: &[IoSlice<'_>],
        segment: u16,
        to: Option<SocketAddr>,
    ) -> io::Result<bool> {
        let segments = [ControlMessage::UdpGsoSegments(&segment)];
        let several = parts.iter().map(|part| part.len()).sum::<usize>() > usize::from(segment);
        let control = if several { &segments[..] } else { &[] };
        let to = to.map(SockaddrStorage::from);
        match sendmsg(
            self.0.as_raw_fd(),
            parts,
            control,
            MsgFlags::empty(),
            to.as_ref(),
        ) {
            Ok(_) => Ok(true),
            // A peer that is gone for a moment is a lost packet, not the end of the run.
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ECONNREFUSED) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives what is there; `None` once nothing is.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut control = nix::cmsg_space!(i32);
        let mut parts = [IoSliceMut::new(buffer)];
        loop {
            let got = recvmsg::<SockaddrStorage>(
                self.0.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::empty(),
            );
            match got {
                Ok(message) => {
                    let segment = message.cmsgs()?.find_map(|control| match control {
                        ControlMessageOwned::UdpGroSegments(len) => usize::try_from(len).ok(),
                        _ => None,
                    });
                    let from = message.address.as_ref().and_then(socket_address);
                    let len = message.bytes;
                    return Ok(Some(Received {
                        len,
                        segment: segment.unwrap_or(len).max(1),
                        from,
                    }));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::ECONNREFUSED | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some((v4.ip(), v4.port()).into()),
        (_, Some(v6)) => Some((v6.ip(), v6.port()).into()),
        _ => None,
    }
}

/// An address of 127.64.0.0/10 nobody had before in this run: a server that remembers a client's port for
/// a while never meets it again.
pub(crate) fn fresh_ip() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset =
        std::process::id().wrapping_mul(2_654_435_761) ^ NEXT.fetch_add(1, Ordering::Relaxed);
    let host = (offset & 0x003F_FFFF).clamp(1, 0x003F_FFFE);
    Ipv4Addr::from(0x7F40_0000 | host)
}
