//! The UDP sockets of SIP. They are read by the one task that decides, so that a flood costs what it costs to look at a source.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use anyhow::Context;
use gateway_sip::MESSAGE_LEN_MAX;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// How much the kernel keeps of what has come in a burst.
const RECEIVE_BUFFER_LEN: usize = 4 << 20;

/// All of them.
pub(crate) struct UdpSockets {
    sockets: Vec<UdpSocket>,
    buffer: Box<[u8]>,
    /// Whose turn it is.
    next: usize,
}

/// A datagram, whose payload is in the buffer of the sockets.
pub(crate) struct Datagram {
    pub(crate) socket: u64,
    pub(crate) from: SocketAddr,
    len: usize,
}

impl UdpSockets {
    /// Binds each address.
    pub(crate) fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let bind = |address: &SocketAddr| {
            bind(*address).with_context(|| format!("can't listen on UDP {address}"))
        };
        Ok(Self {
            sockets: addresses.iter().map(bind).collect::<Result<_, _>>()?,
            buffer: vec![0; MESSAGE_LEN_MAX].into(),
            next: 0,
        })
    }

    /// The addresses in use, in the order they were given.
    pub(crate) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(UdpSocket::local_addr).collect()
    }

    /// Waits for a datagram on any of them; never ends when there are none.
    pub(crate) async fn receive(&mut self) -> Datagram {
        let Self {
            sockets,
            buffer,
            next,
        } = self;
        poll_fn(|cx| {
            for step in 0..sockets.len() {
                let at = (*next + step) % sockets.len();
                loop {
                    let mut into = ReadBuf::new(buffer);
                    match sockets[at].poll_recv_from(cx, &mut into) {
                        Poll::Ready(Ok(from)) => {
                            *next = at + 1;
                            return Poll::Ready(Datagram {
                                socket: at as u64,
                                from: SocketAddr::new(from.ip().to_canonical(), from.port()),
                                len: into.filled().len(),
                            });
                        }
                        // What the network says of a datagram that was sent, not of this one.
                        Poll::Ready(Err(error)) if is_of_network(&error) => {}
                        Poll::Ready(Err(error)) => {
                            tracing::warn!(%error, "UDP socket of SIP can't be read");
                            break;
                        }
                        Poll::Pending => break,
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// What came in a datagram; good until the next one is received.
    pub(crate) fn payload(&self, datagram: &Datagram) -> &[u8] {
        &self.buffer[..datagram.len]
    }

    /// Sends at once, or not at all: what gets lost is sent again by its transaction.
    pub(crate) fn send(&self, socket: u64, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let socket = usize::try_from(socket)
            .ok()
            .and_then(|at| self.sockets.get(at));
        let socket = socket.ok_or(io::ErrorKind::NotFound)?;
        // Not by way of the runtime, which would have to hear first that there is room.
        SockRef::from(socket).send_to(bytes, &to.into()).map(drop)
    }
}

fn is_of_network(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Interrupted
    )
}

fn bind(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER_LEN)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into())?)
}
