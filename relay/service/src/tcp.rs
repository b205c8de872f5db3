//! Peers of TCP Allocations (RFC 6062): listening for them, connecting to them, and passing bytes
//! on between each and the data connection of a client.
//!
//! Nothing is read from a peer before its client is there, and no more than one buffer in each
//! direction after: the rest waits in the sockets, whose windows close.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use relay_core::{ConnectionId, Direction, FiveTuple, Pace, RelayPort};
use socket2::SockRef;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, duplex, split,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::shard::Shard;
use crate::stream::{ACCEPT_PAUSE, Stream};

/// How many connections of peers may wait to be accepted at one relayed port.
const BACKLOG: u32 = 16;

/// How much is held of each direction of a connection, in bytes.
const BUFFER_LEN: usize = 8 * 1024;

/// What the shard holds for TCP Allocations.
#[derive(Default)]
pub(crate) struct Tcp {
    /// The tasks that listen, by [`RelayPort::index`].
    listeners: RefCell<HashMap<usize, JoinHandle<()>>>,
    connections: RefCell<HashMap<ConnectionId, Connection>>,
    /// What a ConnectionBind made of a client's stream, until its task looks.
    bound: RefCell<HashMap<FiveTuple, Pending>>,
}

enum Connection {
    /// The task that connects.
    Connecting(JoinHandle<()>),
    /// The peer is there, its client is not.
    Waiting(Box<dyn Stream>),
    /// Bytes are passed on until this says otherwise.
    Spliced(CancellationToken),
}

struct Pending {
    id: ConnectionId,
    peer: Box<dyn Stream>,
    closing: CancellationToken,
}

impl Tcp {
    /// Makes two connections each other's peer.
    pub(crate) fn pair(&self, one: ConnectionId, other: ConnectionId) {
        let (its, others) = duplex(BUFFER_LEN);
        let mut connections = self.connections.borrow_mut();
        connections.insert(one, Connection::Waiting(Box::new(its)));
        connections.insert(other, Connection::Waiting(Box::new(others)));
    }

    /// Gives the peer of a connection to the stream of `client`.
    pub(crate) fn splice(&self, id: ConnectionId, client: FiveTuple) {
        let mut connections = self.connections.borrow_mut();
        let closing = CancellationToken::new();
        let spliced = Connection::Spliced(closing.clone());
        if let Some(Connection::Waiting(peer)) = connections.insert(id, spliced) {
            let pending = Pending { id, peer, closing };
            self.bound.borrow_mut().insert(client, pending);
        }
    }

    /// Closes a connection, whatever it has come to.
    pub(crate) fn close(&self, id: ConnectionId) {
        match self.connections.borrow_mut().remove(&id) {
            Some(Connection::Connecting(task)) => task.abort(),
            Some(Connection::Spliced(closing)) => closing.cancel(),
            Some(Connection::Waiting(_)) | None => {}
        }
    }

    pub(crate) fn stop_listening(&self, port: RelayPort) {
        if let Some(task) = self.listeners.borrow_mut().remove(&port.index) {
            task.abort();
        }
    }
}

impl Shard {
    /// Listens at a relayed port.
    pub(crate) fn listen(self: &Rc<Self>, port: RelayPort) -> io::Result<()> {
        let address = self.bound_address(port)?;
        let socket = socket_for(address)?;
        // What the last Allocation left in TIME_WAIT is not in the way.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        // Only now, so that no other relay listens beside us: connections leave from here, too.
        socket.set_reuseport(true)?;
        let listener = socket.listen(BACKLOG)?;
        let task = tokio::task::spawn_local(accept_peers(self.clone(), port, listener));
        self.tcp.listeners.borrow_mut().insert(port.index, task);
        Ok(())
    }

    /// Connects to a peer from a relayed port.
    pub(crate) fn connect(self: &Rc<Self>, id: ConnectionId, port: RelayPort, peer: SocketAddr) {
        let shard = self.clone();
        let task = tokio::task::spawn_local(async move {
            let connected = match shard.bound_address(port) {
                Ok(local) => connect(local, peer).await,
                Err(error) => Err(error),
            };
            shard.on_connect(id, connected);
        });
        let connecting = Connection::Connecting(task);
        self.tcp.connections.borrow_mut().insert(id, connecting);
    }

    fn on_connect(self: &Rc<Self>, id: ConnectionId, connected: io::Result<TcpStream>) {
        let now = Instant::now();
        match connected {
            Ok(stream) => {
                let waiting = Connection::Waiting(Box::new(stream));
                self.tcp.connections.borrow_mut().insert(id, waiting);
                self.relay.borrow_mut().handle_connected(now, id);
            }
            Err(error) => {
                tracing::debug!(%error, "Peer not connected");
                self.relay.borrow_mut().handle_connect_failed(now, id);
            }
        }
        self.apply_outputs();
    }

    fn on_peer(self: &Rc<Self>, port: RelayPort, stream: TcpStream, from: SocketAddr) {
        let now = Instant::now();
        let taken = self
            .relay
            .borrow_mut()
            .handle_peer_connection(now, port, from);
        if let Some(id) = taken {
            let waiting = Connection::Waiting(Box::new(stream));
            self.tcp.connections.borrow_mut().insert(id, waiting);
        }
        self.apply_outputs();
    }

    /// What a ConnectionBind just handled made of a client's stream; `early` is what was read from
    /// it behind the request.
    pub(crate) fn take_bound(self: &Rc<Self>, client: FiveTuple, early: &[u8]) -> Option<Bound> {
        let Pending { id, peer, closing } = self.tcp.bound.borrow_mut().remove(&client)?;
        Some(Bound {
            shard: self.clone(),
            id,
            peer: Some(peer),
            closing,
            early: early.to_vec(),
        })
    }
}

/// Accepts peers at one relayed port until it is closed, which ends the task.
async fn accept_peers(shard: Rc<Shard>, port: RelayPort, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                stream.set_nodelay(true).ok(); // Only costs delay.
                shard.on_peer(port, stream, from);
            }
            Err(error) => {
                tracing::debug!(%error, "Peer not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect(local: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    // TCP would connect an address with itself.
    if local == peer {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let socket = socket_for(local)?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(local)?;
    let stream = socket.connect(peer).await?;
    stream.set_nodelay(true).ok(); // Only costs delay.
    Ok(stream)
}

fn socket_for(local: SocketAddr) -> io::Result<TcpSocket> {
    if local.is_ipv4() {
        return TcpSocket::new_v4();
    }
    let socket = TcpSocket::new_v6()?;
    // Every peer has one written form.
    SockRef::from(&socket).set_only_v6(true)?;
    Ok(socket)
}

/// A client's data connection and its peer. Once it is dropped, the core knows that it is closed.
pub(crate) struct Bound {
    shard: Rc<Shard>,
    id: ConnectionId,
    peer: Option<Box<dyn Stream>>,
    closing: CancellationToken,
    /// What the client sent behind its request.
    early: Vec<u8>,
}

impl Bound {
    /// Passes bytes on in both directions until both have ended, one has failed, or the core closes
    /// the connection.
    pub(crate) async fn splice<S>(mut self, reader: ReadHalf<S>, writer: WriteHalf<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(peer) = self.peer.take() else {
            return;
        };
        let early = std::mem::take(&mut self.early);
        let (peer_reader, peer_writer) = split(peer);
        let both = async {
            tokio::try_join!(
                self.pass_on(Direction::ToPeer, &early, reader, peer_writer),
                self.pass_on(Direction::ToClient, &[], peer_reader, writer),
            )
        };
        tokio::select! {
            passed = both => if let Err(error) = passed {
                tracing::debug!(%error, "TCP connection of an Allocation ended");
            },
            () = self.closing.cancelled() => {}
        }
    }

    /// Passes on `early`, then what is read, then the end of it: the other direction lives on.
    async fn pass_on(
        &self,
        direction: Direction,
        early: &[u8],
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        for chunk in early.chunks(BUFFER_LEN) {
            self.write(direction, chunk, &mut to).await?;
        }
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            let len = from.read(&mut buffer).await?;
            if len == 0 {
                return to.shutdown().await;
            }
            self.write(direction, &buffer[..len], &mut to).await?;
        }
    }

    /// Writes a chunk once the core says so.
    async fn write(
        &self,
        direction: Direction,
        chunk: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        loop {
            let now = Instant::now();
            let pace = self.shard.relay.borrow_mut().handle_connection_data(
                now,
                self.id,
                direction,
                chunk.len(),
            );
            self.shard.apply_outputs();
            match pace {
                Pace::Now => break,
                Pace::After(wait) => tokio::time::sleep(wait).await,
                Pace::Never => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        to.write_all(chunk).await?;
        to.flush().await
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut relay = self.shard.relay.borrow_mut();
        relay.handle_connection_closed(now, self.id);
        drop(relay);
        self.shard.apply_outputs();
    }
}
