//! One TCP port for everything: finds out what each connection speaks and hands it to HTTP or to the relay.
//!
//! ```text
//! accept → limits → first ten bytes ─┬─ PROXY v2, from a trusted proxy ─┐
//!                        ▲           ├─ TLS: handshake ─────────────────┤
//!                        └───────────┼──────────────────────────────────┘
//!                                    ├─ HTTP → http::serve
//!                                    ├─ STUN → relay
//!                                    └─ anything else: closed without a word
//! ```
//!
//! Everything up to the last arrow has one deadline.

pub mod demux;
pub mod limits;
pub mod proxy_v2;
mod replay;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::demux::{Verdict, classify};
use self::limits::{Counter, Newcomer};
use self::proxy_v2::Parsed;
use self::replay::{Guarded, Replay};
use crate::config::{Limits, Network};
use crate::http::Http;
use crate::tls::acme;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How much is read at once while a stream is classified: a PROXY header and the start of what follows.
const READ_LEN: usize = 256;

/// How long accepting rests when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What every connection needs to be served.
pub struct Front {
    /// Where HTTP goes.
    pub http: Http,
    /// Where STUN goes; `None` without the role.
    pub relay: Option<relay_service::Handle>,
    /// Where ICE-TCP goes; `None` without an SFU.
    pub sfu: Option<sfu_service::Handle>,
    /// How to speak TLS; `None` without a certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whose PROXY headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Who holds a place.
    pub counter: Arc<Counter>,
    /// How patient to be.
    pub limits: Limits,
    /// Ends the listeners and, politely, the HTTP connections.
    pub closing: CancellationToken,
    /// Every connection's task.
    pub tasks: TaskTracker,
}

/// What connections are served with, which may change while they are; each keeps what it began with.
pub struct Fronts {
    current: RwLock<Arc<Front>>,
}

impl Fronts {
    /// Serves with `front`.
    pub fn new(front: Front) -> Arc<Self> {
        Arc::new(Self {
            current: RwLock::new(Arc::new(front)),
        })
    }

    /// Serves whoever comes from now on with `front`.
    pub fn set(&self, front: Front) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(front);
    }

    fn get(&self) -> Arc<Front> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

/// The two ends of a connection, as far as they are known.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The other end of the TCP connection.
    pub peer: SocketAddr,
    /// The client: `peer`, or whom a PROXY header names.
    pub client: SocketAddr,
    /// The address that was connected to, by the client's account where a PROXY header gives one.
    pub server: SocketAddr,
    /// Whether TLS was spoken to this server.
    pub tls: bool,
    /// Whether a PROXY header came first.
    pub proxied: bool,
}

/// Opens a listening socket; a socket for `[::]` takes IPv6 only, so that `0.0.0.0` can stand beside it.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    try_bind(address).map_err(|error| {
        let advice = advice(&error);
        anyhow::Error::new(error).context(format!("can't listen on TCP {address}{advice}"))
    })
}

/// What to do about an address that can't be listened on, in brackets; empty where nobody knows.
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program has this port: stop it, or choose another address; `offhook config --example` tells how)"
        }
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need CAP_NET_BIND_SERVICE, which deploy/offhook.service gives)"
        }
        io::ErrorKind::AddrNotAvailable => " (this machine does not have this address)",
        _ => "",
    }
}

/// Like [`bind`], for those who want to know why not.
pub fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the server closes.
pub async fn run(listener: TcpListener, fronts: Arc<Fronts>) {
    let closing = fronts.get().closing.clone();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let front = fronts.get();
                front.tasks.spawn(serve(stream, peer, front.clone()));
            }
            // One connection's trouble (RFC 1122: it may be gone already) is not the listener's.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "Can't accept connections, trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn serve(stream: TcpStream, peer: SocketAddr, front: Arc<Front>) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let proxy = front.trusts(peer.ip());
    let (place, mut newcomer) = match front.counter.admit(peer.ip(), proxy) {
        Ok(admitted) => admitted,
        Err(limit) => {
            metrics::counter!("server_tcp_refused_total", "limit" => limit).increment(1);
            return;
        }
    };
    let _ = stream.set_nodelay(true); // Fails only when the connection is gone already.
    let Ok(server) = stream.local_addr() else {
        return;
    };
    let ends = Ends {
        peer,
        client: peer,
        server,
        tls: false,
        proxied: false,
    };
    let stream = Guarded::new(
        stream,
        place,
        Duration::from_secs(front.limits.write_stall_seconds),
    );

    let deadline = Duration::from_secs(front.limits.handshake_seconds);
    let opening = open(stream, ends, proxy, &front, &mut newcomer);
    let opened = tokio::time::timeout(deadline, opening).await;
    drop(newcomer);
    let (protocol, opened) = match opened {
        Ok(Ok(opened)) => (opened.name(), opened),
        Ok(Err(refused)) => {
            metrics::counter!("server_tcp_connections_total", "protocol" => refused.0).increment(1);
            return;
        }
        Err(_) => {
            metrics::counter!("server_tcp_connections_total", "protocol" => "too_slow")
                .increment(1);
            return;
        }
    };
    metrics::counter!("server_tcp_connections_total", "protocol" => protocol).increment(1);
    match opened {
        Opened::Plain {
            verdict,
            stream,
            ends,
        } => front.pass_on(verdict, stream, ends).await,
        Opened::Tls {
            verdict,
            stream,
            ends,
        } => front.pass_on(verdict, *stream, ends).await,
    }
}

/// A connection that is ready to be passed on; `verdict` is HTTP, STUN or, without TLS, STUN behind a length.
enum Opened {
    Plain {
        verdict: Verdict,
        stream: Replay<Guarded>,
        ends: Ends,
    },
    Tls {
        verdict: Verdict,
        stream: Box<Replay<TlsStream<Replay<Guarded>>>>,
        ends: Ends,
    },
}

impl Opened {
    fn name(&self) -> &'static str {
        match self {
            Self::Plain {
                verdict: Verdict::Http,
                ..
            } => "http",
            Self::Plain {
                verdict: Verdict::Framed,
                ..
            } => "ice",
            Self::Plain { .. } => "turn",
            Self::Tls {
                verdict: Verdict::Http,
                ..
            } => "https",
            Self::Tls { .. } => "turns",
        }
    }
}

/// Why a connection was closed, as a metric's label.
struct Refused(&'static str);

async fn open(
    mut stream: Guarded,
    mut ends: Ends,
    proxy: bool,
    front: &Front,
    newcomer: &mut Newcomer,
) -> Result<Opened, Refused> {
    let mut ahead = Vec::with_capacity(READ_LEN);
    let mut verdict = sniff(&mut stream, &mut ahead).await?;
    if verdict == Verdict::ProxyV2 && proxy {
        read_proxy_header(&mut stream, &mut ahead, &mut ends).await?;
        let client = ends.client.ip();
        // The client may be a proxy again, of HTTP.
        if !front.trusts(client) {
            let named = front.counter.name(stream.place(), newcomer, client);
            named.map_err(|limit| {
                metrics::counter!("server_tcp_refused_total", "limit" => limit).increment(1);
                Refused("over_limit")
            })?;
        }
        verdict = sniff(&mut stream, &mut ahead).await?;
    }
    let stream = Replay::new(ahead, stream);
    match (verdict, &front.tls) {
        (Verdict::Framed, _) if front.sfu.is_none() => Err(Refused("framed")),
        (Verdict::Http | Verdict::Stun | Verdict::Framed, _) => Ok(Opened::Plain {
            verdict,
            stream,
            ends,
        }),
        (Verdict::Tls, Some(config)) => open_tls(stream, ends, config.clone()).await,
        (Verdict::Tls, None) => Err(Refused("tls_without_certificate")),
        (Verdict::ProxyV2, _) => Err(Refused("proxy_untrusted")),
        (Verdict::Unknown | Verdict::NeedMore, _) => Err(Refused("unknown")),
    }
}

async fn open_tls(
    stream: Replay<Guarded>,
    ends: Ends,
    config: Arc<ServerConfig>,
) -> Result<Opened, Refused> {
    let mut stream = TlsAcceptor::from(config)
        .accept(stream)
        .await
        .map_err(|error| {
            tracing::debug!(client = %ends.client, %error, "TLS handshake failed");
            Refused("tls_failed")
        })?;
    // An authority has seen that the domain is ours, which is all it wanted (RFC 8737 §3).
    if stream.get_ref().1.alpn_protocol() == Some(acme::ACME_TLS_ALPN) {
        return Err(Refused("acme"));
    }
    let ends = Ends { tls: true, ..ends };
    let mut ahead = Vec::with_capacity(READ_LEN);
    let verdict = sniff(&mut stream, &mut ahead).await?;
    if verdict != Verdict::Http && verdict != Verdict::Stun {
        return Err(Refused("unknown_in_tls"));
    }
    Ok(Opened::Tls {
        verdict,
        stream: Box::new(Replay::new(ahead, stream)),
        ends,
    })
}

/// Reads until the bytes tell what the stream is.
async fn sniff(
    stream: &mut (impl AsyncRead + Unpin),
    ahead: &mut Vec<u8>,
) -> Result<Verdict, Refused> {
    loop {
        let verdict = classify(ahead);
        if verdict != Verdict::NeedMore {
            return Ok(verdict);
        }
        read_more(stream, ahead).await?;
    }
}

/// Takes the PROXY header off the front of `ahead`, reading what is missing of it.
async fn read_proxy_header(
    stream: &mut Guarded,
    ahead: &mut Vec<u8>,
    ends: &mut Ends,
) -> Result<(), Refused> {
    loop {
        match proxy_v2::parse(ahead) {
            Ok(Parsed::NeedMore(_)) => read_more(stream, ahead).await?,
            Ok(Parsed::Header {
                len,
                ends: original,
            }) => {
                ahead.drain(..len);
                ends.proxied = true;
                if let Some(original) = original {
                    ends.client = SocketAddr::new(
                        original.source.ip().to_canonical(),
                        original.source.port(),
                    );
                    ends.server = original.destination;
                }
                return Ok(());
            }
            Err(error) => {
                tracing::debug!(peer = %ends.peer, ?error, "PROXY header refused");
                return Err(Refused("proxy_malformed"));
            }
        }
    }
}

async fn read_more(
    stream: &mut (impl AsyncRead + Unpin),
    ahead: &mut Vec<u8>,
) -> Result<(), Refused> {
    ahead.reserve(READ_LEN);
    match (&mut *stream).take(READ_LEN as u64).read_buf(ahead).await {
        Ok(0) | Err(_) => Err(Refused("closed_early")),
        Ok(_) => Ok(()),
    }
}

impl Front {
    fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(ip))
    }

    async fn pass_on<Io>(self: Arc<Self>, verdict: Verdict, stream: Replay<Io>, ends: Ends)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match verdict {
            Verdict::Http => {
                self.http
                    .serve(stream, ends, &self.limits, &self.closing)
                    .await;
            }
            Verdict::Stun => {
                let Some(relay) = &self.relay else { return };
                let (ahead, stream) = stream.into_parts();
                let transport = if ends.tls {
                    relay_service::StreamTransport::Tls
                } else {
                    relay_service::StreamTransport::Tcp
                };
                relay.accept_stream(stream, ahead.into(), ends.client, ends.server, transport);
            }
            Verdict::Framed => {
                let Some(sfu) = &self.sfu else { return };
                let (ahead, stream) = stream.into_parts();
                sfu.serve_stream(stream, ahead.into(), ends.client).await;
            }
            _ => {}
        }
    }
}
