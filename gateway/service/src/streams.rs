//! Connections of SIP over TCP and TLS: one task for each, which cuts messages out of the stream and writes those that are handed to it
//! (RFC 3261 §18.3, RFC 5626 §4.4.1).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use gateway_core::transaction::{Flow, Transport};
use gateway_sip::stream::{Frame, Framer};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

/// How many messages may wait to be written to one connection; one that takes no more is closed.
const QUEUE_LEN: usize = 256;

/// How much is read at once.
const READ_LEN: usize = 16_384;

/// How long a connection, a TLS handshake, or the rest of a message may take, and a connection that has shown nothing of worth may last.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the other side may refuse to take what we write.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// The answer to a ping (RFC 5626 §4.4.1).
const PONG: &[u8] = b"\r\n";

/// How TLS is spoken.
#[derive(Clone)]
pub struct Tls {
    /// With those who come to us; `None` where there is no certificate.
    pub server: Option<Arc<ServerConfig>>,
    /// With those we go to; their certificate has to name the host.
    pub client: Arc<ClientConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls(server: {})", self.server.is_some())
    }
}

/// What comes of connections.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// One message.
    Message {
        /// The way it came.
        flow: Flow,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The connection is over, or could not be made. Nothing follows.
    Closed {
        /// The way that is no more.
        flow: Flow,
    },
}

/// The service's end of a connection; it closes when this is dropped.
pub(crate) struct Stream {
    queue: mpsc::Sender<Vec<u8>>,
    trusted: Arc<AtomicBool>,
    _closing: tokio_util::sync::DropGuard,
}

impl Stream {
    /// Has bytes written; `false` when the connection takes no more, and is to be given up.
    pub(crate) fn send(&self, bytes: Vec<u8>) -> bool {
        self.queue.try_send(bytes).is_ok()
    }

    /// Something of worth came from there: it may be silent for longer.
    pub(crate) fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
    }
}

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) events: mpsc::Sender<StreamEvent>,
    pub(crate) tls: Tls,
    pub(crate) idle: Duration,
}

impl Streams {
    /// Serves a connection that somebody made to us.
    pub(crate) fn accept(&self, flow: Flow, tcp: TcpStream) -> Stream {
        let acceptor = self.tls.server.clone().map(TlsAcceptor::from);
        self.spawn(flow, false, move |worker| async move {
            tcp.set_nodelay(true)?;
            if flow.transport == Transport::Tcp {
                return worker.serve(tcp).await;
            }
            let acceptor = acceptor.context("no certificate for TLS")?;
            let stream = timeout(PATIENCE, acceptor.accept(tcp)).await??;
            worker.serve(stream).await
        })
    }

    /// Makes a connection, from `local`'s address; over TLS to somebody who is `name`.
    pub(crate) fn connect(&self, flow: Flow, local: SocketAddr, name: Option<&str>) -> Stream {
        let connector = TlsConnector::from(self.tls.client.clone());
        let name = name.map(str::to_owned);
        self.spawn(flow, true, move |worker| async move {
            let making = async {
                let socket = match flow.remote {
                    SocketAddr::V4(_) => TcpSocket::new_v4()?,
                    SocketAddr::V6(_) => TcpSocket::new_v6()?,
                };
                socket.bind(SocketAddr::new(local.ip(), 0))?;
                let tcp = socket.connect(flow.remote).await?;
                tcp.set_nodelay(true)?;
                if flow.transport == Transport::Tcp {
                    return Ok(Made::Tcp(tcp));
                }
                let name = name.unwrap_or_else(|| flow.remote.ip().to_string());
                let name = ServerName::try_from(name).context("no name for TLS")?;
                let tls = connector.connect(name, tcp).await.context("TLS")?;
                Ok::<_, anyhow::Error>(Made::Tls(Box::new(tls)))
            };
            match timeout(PATIENCE, making)
                .await
                .map_err(Into::into)
                .flatten()
            {
                Ok(Made::Tcp(stream)) => worker.serve(stream).await,
                Ok(Made::Tls(stream)) => worker.serve(stream).await,
                Err(error) => {
                    // Who it was for says that nobody answers; this says why.
                    tracing::warn!(error = format!("{error:#}"), "SIP connection not made");
                    Err(error)
                }
            }
        })
    }

    fn spawn<F, W>(&self, flow: Flow, trusted: bool, serve: F) -> Stream
    where
        F: FnOnce(Worker) -> W + Send + 'static,
        W: Future<Output = anyhow::Result<()>> + Send,
    {
        let (queue, queued) = mpsc::channel(QUEUE_LEN);
        let trusted = Arc::new(AtomicBool::new(trusted));
        let closing = CancellationToken::new();
        let worker = Worker {
            flow,
            events: self.events.clone(),
            queued,
            trusted: trusted.clone(),
            idle: self.idle,
        };
        let (events, closed) = (self.events.clone(), closing.clone());
        tokio::spawn(async move {
            tokio::select! {
                served = serve(worker) => if let Err(error) = served {
                    tracing::debug!(remote = %flow.remote, error = format!("{error:#}"), "SIP connection ended");
                },
                () = closed.cancelled() => {}
            }
            // The service may have ended, too.
            events.send(StreamEvent::Closed { flow }).await.ok();
        });
        Stream {
            queue,
            trusted,
            _closing: closing.drop_guard(),
        }
    }
}

/// A connection of ours.
enum Made {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// The task of one connection.
struct Worker {
    flow: Flow,
    events: mpsc::Sender<StreamEvent>,
    queued: mpsc::Receiver<Vec<u8>>,
    trusted: Arc<AtomicBool>,
    idle: Duration,
}

impl Worker {
    /// Until the connection ends, or is silent for too long.
    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite) -> anyhow::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut framer = Framer::new();
        let mut buffer = vec![0; READ_LEN];
        let began = Instant::now();
        let mut heard = began;
        // Since when a message is incomplete; what trickles in byte by byte does not move it.
        let mut partial_since = None;
        loop {
            let deadline = match partial_since {
                Some(since) => since + PATIENCE,
                None if self.trusted.load(Ordering::Relaxed) => heard + self.idle,
                None => began + PATIENCE,
            };
            tokio::select! {
                read = reader.read(&mut buffer) => {
                    let len = read?;
                    if len == 0 {
                        return Ok(());
                    }
                    heard = Instant::now();
                    framer.push(&buffer[..len]);
                    while let Some(frame) = framer.poll()? {
                        partial_since = None;
                        match frame {
                            Frame::Message(bytes) => {
                                let message = StreamEvent::Message { flow: self.flow, bytes };
                                if self.events.send(message).await.is_err() {
                                    return Ok(());
                                }
                            }
                            Frame::Ping => write(&mut writer, PONG).await?,
                            Frame::Pong => {}
                        }
                    }
                    if framer.pending() == 0 {
                        partial_since = None;
                    } else {
                        partial_since.get_or_insert(heard);
                    }
                }
                bytes = self.queued.recv() => match bytes {
                    Some(bytes) => write(&mut writer, &bytes).await?,
                    None => return Ok(()),
                },
                () = sleep_until(deadline) => {
                    let now_trusted = partial_since.is_none() && self.trusted.load(Ordering::Relaxed);
                    if !now_trusted || Instant::now() >= heard + self.idle {
                        anyhow::bail!("silent for too long");
                    }
                }
            }
        }
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> anyhow::Result<()> {
    let all = async {
        writer.write_all(bytes).await?;
        writer.flush().await
    };
    timeout(WRITE_MAX, all).await??;
    Ok(())
}

/// Binds a TCP address.
pub(crate) fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    let bound = socket.bind(address).and_then(|()| socket.listen(1_024));
    bound.with_context(|| format!("can't listen on TCP {address}"))
}

/// A connection that somebody made, before anything is known of it.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) transport: Transport,
    pub(crate) tcp: TcpStream,
    pub(crate) from: SocketAddr,
}

/// Takes connections until the service ends.
pub(crate) async fn accept_all(
    listener: TcpListener,
    transport: Transport,
    accepted: mpsc::Sender<Accepted>,
) {
    /// After an error such as too many open files, so that it is not met a million times a second.
    const PAUSE: Duration = Duration::from_millis(100);

    loop {
        match listener.accept().await {
            Ok((tcp, from)) => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                let one = Accepted {
                    transport,
                    tcp,
                    from,
                };
                if accepted.send(one).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "SIP connections can't be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
