//! DTLS clients: a session for each, which the rest of the relay serves as a stream.
//!
//! ```text
//! listener ──▶ by client's address ──▶ newcomer ──▶ session ──▶ messages, as from TLS
//! ```
//!
//! Each record holds whole messages, so a lost datagram loses what was in it and no more. Messages
//! are padded as in streams, which a datagram may be as well (RFC 8656 §12.5).
//!
//! A ClientHello proves nothing about who sent it, so newcomers have a budget of their own until
//! they have echoed the server's cookie (RFC 6347 §4.2.1) and finished their handshake: when it is
//! full the oldest makes room, and none keeps its place for longer than [`HANDSHAKE_TIMEOUT`]. They
//! take nothing from the limits of those who are served, and what they do is no harm to a session
//! of the same address: only who finishes a handshake takes its place (RFC 6347 §4.2.8).

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dimpl::{Dtls, DtlsCertificate, Output};
use relay_core::{FiveTuple, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep_until, timeout};

use crate::shard::Shard;
use crate::stream::Place;
use crate::udp;

/// How many newcomers may be in their handshake at once, on each address.
const HANDSHAKES_MAX: usize = 1024;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many datagrams may wait for a session; the network loses more.
const WAITING_MAX: usize = 64;

/// The longest message that fits one record, in bytes (RFC 6347 §4.1).
const RECORD_LEN_MAX: usize = 16_384;

/// The longest datagram.
const DATAGRAM_LEN_MAX: usize = 65_535;

/// What the handshake may send at once, in bytes: a path that carries less carries no video either.
const HANDSHAKE_MTU: usize = 1200;

/// DTLS 1.2 as it is written in a ClientHello (RFC 6347 §4.2.1).
const DTLS_1_2: [u8; 2] = [254, 253];

/// Type, version, epoch, number and length (RFC 6347 §4.1).
const RECORD_HEADER_LEN: usize = 13;

/// Type, length, number and place of the fragment (RFC 6347 §4.2.2).
const HANDSHAKE_HEADER_LEN: usize = 12;

/// Where the certificate for DTLS comes from, asked at each handshake.
pub type Certificates = Arc<dyn Fn() -> Option<Certificate> + Send + Sync>;

/// A certificate that DTLS clients are shown, with its key: ECDSA with P-256 or P-384.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate itself, in DER.
    pub certificate: Vec<u8>,
    /// Its private key, in DER (PKCS #8 or SEC 1). Never printed.
    pub private_key: Vec<u8>,
}

impl Certificate {
    /// Finds out whether DTLS can be spoken with it.
    ///
    /// # Errors
    ///
    /// Its key is none that DTLS is spoken with here.
    pub fn check(&self) -> anyhow::Result<()> {
        let new = || session(&Arc::new(dimpl::Config::default()), self.clone());
        // The library takes a key it can't read for a mistake of the program.
        catch_unwind(AssertUnwindSafe(new))
            .ok()
            .context("the certificate's key is no ECDSA key of P-256 or P-384, as DTLS needs it")?;
        Ok(())
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate of {} bytes", self.certificate.len())
    }
}

/// Finds out whether there is a certificate that DTLS can be spoken with.
///
/// # Errors
///
/// Says what is wrong with it.
pub(crate) fn check(certificates: Option<&Certificates>) -> anyhow::Result<()> {
    let certificate = certificates.and_then(|certificates| certificates());
    let certificate = certificate.context("there is no certificate with a key")?;
    certificate.check()
}

fn session(config: &Arc<dimpl::Config>, certificate: Certificate) -> Dtls {
    let certificate = DtlsCertificate {
        certificate: certificate.certificate,
        private_key: certificate.private_key,
    };
    Dtls::new_12(config.clone(), certificate, Instant::now())
}

/// The sessions of one listener.
#[derive(Default)]
struct Sessions {
    by_client: HashMap<SocketAddr, Session>,
    newcomers_by_client: HashMap<SocketAddr, Session>,
    /// In their handshake, oldest first.
    newcomers: VecDeque<(u64, SocketAddr)>,
    sessions: u64,
}

struct Session {
    /// Tells it from one the same client had before.
    id: u64,
    packets: mpsc::Sender<Vec<u8>>,
    /// Ends when the session has given back all it held.
    gone: oneshot::Receiver<Infallible>,
}

impl Sessions {
    /// Takes in a newcomer; the oldest of them makes room when there are too many.
    fn add(
        &mut self,
        shard: &Shard,
        client: SocketAddr,
        packets: mpsc::Sender<Vec<u8>>,
        gone: oneshot::Receiver<Infallible>,
    ) -> u64 {
        if self.newcomers.len() >= HANDSHAKES_MAX
            && let Some((_, oldest)) = self.newcomers.pop_front()
        {
            self.newcomers_by_client.remove(&oldest);
            shard.dropped.newcomers.update(|count| count + 1);
        } else {
            shard.dtls_newcomers.update(|count| count + 1);
        }
        self.sessions += 1;
        let id = self.sessions;
        self.newcomers.push_back((id, client));
        let session = Session { id, packets, gone };
        self.newcomers_by_client.insert(client, session);
        id
    }

    /// Takes a newcomer out, its handshake being over; `None` where it has lost its place.
    fn leave(&mut self, shard: &Shard, id: u64, client: SocketAddr) -> Option<Session> {
        // They are in the order of their numbers.
        let at = self
            .newcomers
            .binary_search_by_key(&id, |held| held.0)
            .ok()?;
        self.newcomers.remove(at);
        shard.dtls_newcomers.update(|count| count - 1);
        self.newcomers_by_client.remove(&client)
    }

    /// Forgets a session that has ended.
    fn remove(&mut self, id: u64, client: SocketAddr) {
        if self
            .by_client
            .get(&client)
            .is_some_and(|held| held.id == id)
        {
            self.by_client.remove(&client);
        }
    }

    /// Hands a datagram to whom it may be for; `false` where it begins something new.
    ///
    /// Who has a session and begins another speaks in the clear with the newcomer, and protected
    /// with either: only the keys tell with which.
    fn hand_on(&self, client: SocketAddr, packet: &[u8]) -> bool {
        let session = self.by_client.get(&client);
        let newcomer = self.newcomers_by_client.get(&client);
        let receivers = match (session, newcomer, is_protected(packet)) {
            (None, None, _) => return false,
            (Some(_), None, false) if client_hello_version(packet).is_some() => return false,
            (_, Some(newcomer), false) => [Some(newcomer), None],
            (session, newcomer, _) => [session, newcomer],
        };
        for session in receivers.into_iter().flatten() {
            session.packets.try_send(packet.to_vec()).ok(); // Lost, as in the network.
        }
        true
    }
}

/// Serves DTLS clients for as long as the shard lives.
pub(crate) async fn serve_all(shard: Rc<Shard>, socket: UdpSocket, certificates: Certificates) {
    let config = dimpl::Config::builder()
        .require_client_certificate(false)
        .use_server_cookie(true)
        .mtu(HANDSHAKE_MTU)
        .handshake_timeout(HANDSHAKE_TIMEOUT)
        .build();
    let (config, server) = match (config, socket.local_addr()) {
        (Ok(config), Ok(server)) => (Arc::new(config), server),
        (config, server) => {
            tracing::error!(?config, ?server, "No DTLS here");
            return;
        }
    };
    let socket = Rc::new(socket);
    let sessions = Rc::new(RefCell::new(Sessions::default()));
    let mut buffer = vec![0; DATAGRAM_LEN_MAX];
    loop {
        let (len, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::trace!(%error, "Datagram not received");
                continue;
            }
        };
        let packet = &buffer[..len];
        if sessions.borrow().hand_on(client, packet) {
            continue;
        }
        match client_hello_version(packet) {
            None => continue,
            Some(DTLS_1_2) => {}
            Some(_) => {
                // Tells those with old versions at once (RFC 8996), which may have a newer one left.
                udp::send(&*socket, client, &version_alert(packet)).ok();
                continue;
            }
        }
        // A session costs much before its client has proved where it is.
        if !shard.admit_newcomer(client.ip()) {
            continue;
        }
        let Some(certificate) = certificates() else {
            continue;
        };
        // A renewed certificate may have another kind of key.
        let Ok(dtls) = catch_unwind(AssertUnwindSafe(|| session(&config, certificate))) else {
            tracing::error!("The certificate's key is no ECDSA key, as DTLS needs it");
            continue;
        };
        let (packets, incoming) = mpsc::channel(WAITING_MAX);
        packets.try_send(packet.to_vec()).ok(); // There is room for the first.
        let (here, gone) = oneshot::channel();
        let newcomer = Newcomer {
            id: sessions.borrow_mut().add(&shard, client, packets, gone),
            five_tuple: FiveTuple {
                client,
                server,
                transport: Transport::Dtls,
            },
            stream: DtlsStream::new(dtls, socket.clone(), client, incoming),
            here,
        };
        tokio::task::spawn_local(newcomer.serve(shard.clone(), sessions.clone()));
    }
}

/// Who has sent a ClientHello.
struct Newcomer {
    id: u64,
    five_tuple: FiveTuple,
    stream: DtlsStream,
    /// Dropped at the very end.
    here: oneshot::Sender<Infallible>,
}

impl Newcomer {
    async fn serve(mut self, shard: Rc<Shard>, sessions: Rc<RefCell<Sessions>>) {
        let client = self.five_tuple.client;
        let shaken = timeout(HANDSHAKE_TIMEOUT, self.stream.handshake()).await;
        let session = sessions.borrow_mut().leave(&shard, self.id, client);
        match (shaken, session) {
            (Ok(Ok(())), Some(session)) => {
                let before = sessions.borrow_mut().by_client.insert(client, session);
                if let Some(Session { packets, gone, .. }) = before {
                    drop(packets); // It ends, with its Allocation.
                    gone.await.ok();
                }
                if let Some(place) = Place::take(shard, self.five_tuple) {
                    place.serve(self.stream, &[]).await;
                }
            }
            (Ok(Ok(())), None) => tracing::debug!("DTLS client gave way to newer ones"),
            (Ok(Err(error)), _) => tracing::debug!(%error, "DTLS handshake failed"),
            (Err(_), _) => tracing::debug!("DTLS handshake too slow"),
        }
        sessions.borrow_mut().remove(self.id, client);
        drop(self.here);
    }
}

/// Whether a datagram begins with a record that is not in the clear (RFC 6347 §4.1).
fn is_protected(packet: &[u8]) -> bool {
    packet.get(3..5).is_some_and(|epoch| epoch != [0, 0])
}

/// The version in the ClientHello that `packet` begins with (RFC 6347 §4.1, §4.2.2); `None` where
/// it begins with none. Later versions than 1.2 are offered in an extension.
fn client_hello_version(packet: &[u8]) -> Option<[u8; 2]> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let is_hello =
        packet.first() == Some(&HANDSHAKE) && packet.get(RECORD_HEADER_LEN) == Some(&CLIENT_HELLO);
    let version = packet.get(RECORD_HEADER_LEN + HANDSHAKE_HEADER_LEN..)?;
    let version = version.first_chunk::<2>().copied()?;
    is_hello.then_some(version)
}

/// The alert that ends a handshake begun with `hello`, a ClientHello of a version we don't speak.
fn version_alert(hello: &[u8]) -> [u8; RECORD_HEADER_LEN + 2] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    const PROTOCOL_VERSION: u8 = 70;
    let mut alert = [0; RECORD_HEADER_LEN + 2];
    // The version, the epoch and the number are those of the client's record.
    for (to, from) in alert.iter_mut().zip(&hello[..RECORD_HEADER_LEN]) {
        *to = *from;
    }
    alert[0] = ALERT;
    alert[RECORD_HEADER_LEN - 2..].copy_from_slice(&[0, 2, FATAL, PROTOCOL_VERSION]);
    alert
}

/// A session as a stream of messages: each write becomes a record and a datagram.
struct DtlsStream {
    dtls: Dtls,
    socket: Rc<UdpSocket>,
    client: SocketAddr,
    incoming: mpsc::Receiver<Vec<u8>>,
    /// When the session wants to send again what was not answered.
    wake: Pin<Box<Sleep>>,
    /// Messages not yet read, each padded to a multiple of 4 bytes.
    messages: VecDeque<u8>,
    is_connected: bool,
    is_closed: bool,
    records: Vec<u8>,
}

impl DtlsStream {
    fn new(
        dtls: Dtls,
        socket: Rc<UdpSocket>,
        client: SocketAddr,
        incoming: mpsc::Receiver<Vec<u8>>,
    ) -> DtlsStream {
        DtlsStream {
            dtls,
            socket,
            client,
            incoming,
            wake: Box::pin(sleep_until((Instant::now() + HANDSHAKE_TIMEOUT).into())),
            messages: VecDeque::new(),
            is_connected: false,
            is_closed: false,
            records: vec![0; RECORD_LEN_MAX],
        }
    }

    async fn handshake(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            while !self.is_connected {
                ready!(self.poll_progress(cx))?;
                if self.is_closed {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Takes in one datagram, or lets the time that has come do its work.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(packet) = self.incoming.poll_recv(cx) {
            let Some(packet) = packet else {
                self.is_closed = true; // A newer client took the place.
                return Poll::Ready(Ok(()));
            };
            return Poll::Ready(self.step(|dtls| {
                dtls.handle_timeout(Instant::now())?; // Its clock comes first.
                dtls.handle_packet(&packet)
            }));
        }
        ready!(self.wake.as_mut().poll(cx));
        Poll::Ready(self.step(|dtls| dtls.handle_timeout(Instant::now())))
    }

    /// Lets the session do something, and then what it wants done. What the library did not expect
    /// ends the session alone.
    fn step(&mut self, work: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>) -> io::Result<()> {
        catch_unwind(AssertUnwindSafe(|| {
            work(&mut self.dtls).map_err(io::Error::other)?;
            self.follow()
        }))
        .unwrap_or_else(|_| Err(io::Error::other("the DTLS session is broken")))
    }

    /// Does what the session wants done.
    fn follow(&mut self) -> io::Result<()> {
        loop {
            match self.dtls.poll_output(&mut self.records) {
                Output::Packet(packet) => {
                    if let Err(error) = udp::send(&*self.socket, self.client, packet) {
                        tracing::trace!(%error, "Datagram not sent");
                    }
                }
                Output::ApplicationData(message) => {
                    self.messages.extend(message);
                    let padded = self.messages.len().next_multiple_of(4);
                    self.messages.resize(padded, 0);
                }
                Output::BufferTooSmall { needed } => self.records.resize(needed, 0),
                Output::Connected => self.is_connected = true,
                Output::CloseNotify => self.is_closed = true,
                Output::Timeout(at) => {
                    self.wake.as_mut().reset(at.into());
                    return Ok(());
                }
                // Clients need no certificate, and there is no SRTP here.
                _ => {}
            }
        }
    }
}

impl AsyncRead for DtlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.messages.is_empty() && !self.is_closed {
            ready!(self.poll_progress(cx))?;
        }
        let (first, _) = self.messages.as_slices();
        let len = first.len().min(into.remaining());
        into.put_slice(&first[..len]);
        self.messages.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DtlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        message: &[u8],
    ) -> Poll<io::Result<usize>> {
        // What fits no record is lost, as what fits no datagram is.
        if message.len() <= RECORD_LEN_MAX {
            self.step(|dtls| dtls.send_application_data(message).map(|_| ()))?;
        }
        Poll::Ready(Ok(message.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.step(Dtls::close))
    }
}
