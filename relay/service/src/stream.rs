//! One TCP or TLS client: cuts its bytes into messages, and ends it when it idles or drips.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use relay_core::{FiveTuple, Transport};
use relay_stun::{STREAM_FRAME_LEN_MAX, next_frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::shard::{HEADROOM, Shard, TAILROOM};
use crate::tcp::Bound;

/// The longest message of a client that has no Allocation yet, in bytes with padding.
const STRANGER_FRAME_LEN_MAX: usize = 2048;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much is read at once, in bytes.
const READ_LEN: usize = 4096;

/// How often a client with an Allocation is looked at, should it send nothing.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// How long to wait when the system has no descriptor left for another connection.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Any byte stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream given to the relay, with what was read from it to find out that it is TURN.
pub(crate) struct Accepted {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) already_read: bytes::Bytes,
    pub(crate) five_tuple: FiveTuple,
}

/// Accepts TCP clients, and with an acceptor TLS ones, for as long as the shard lives.
pub(crate) async fn accept_all(shard: Rc<Shard>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let server = stream.local_addr().or_else(|_| listener.local_addr());
                if let Ok(server) = server {
                    let serve = serve_accepted(shard.clone(), stream, client, server, tls.clone());
                    tokio::task::spawn_local(serve);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "TCP client not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_accepted(
    shard: Rc<Shard>,
    stream: TcpStream,
    client: SocketAddr,
    server: SocketAddr,
    tls: Option<TlsAcceptor>,
) {
    stream.set_nodelay(true).ok(); // Only costs delay.
    let transport = if tls.is_some() {
        Transport::Tls
    } else {
        Transport::Tcp
    };
    let five_tuple = FiveTuple {
        client,
        server,
        transport,
    };
    match tls {
        None => serve(shard, five_tuple, stream, &[]).await,
        Some(tls) => {
            // The place is taken before the handshake, which is the expensive part.
            let Some(place) = Place::take(shard, five_tuple) else {
                return;
            };
            match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => place.serve(stream, &[]).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake too slow"),
            }
        }
    }
}

/// Serves one client until it leaves or is sent away.
pub(crate) async fn serve(
    shard: Rc<Shard>,
    five_tuple: FiveTuple,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    already_read: &[u8],
) {
    if let Some(place) = Place::take(shard, five_tuple) {
        place.serve(stream, already_read).await;
    }
}

/// A stream's place among those the relay serves; given back when dropped.
pub(crate) struct Place {
    shard: Rc<Shard>,
    five_tuple: FiveTuple,
    sender: Rc<crate::sender::Sender>,
}

impl Place {
    pub(crate) fn take(shard: Rc<Shard>, five_tuple: FiveTuple) -> Option<Place> {
        let sender = shard.open_stream(five_tuple)?;
        Some(Place {
            shard,
            five_tuple,
            sender,
        })
    }

    pub(crate) async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        already_read: &[u8],
    ) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let bound = {
            let writing = self
                .sender
                .write_all(&mut writer, self.five_tuple.transport);
            tokio::pin!(writing);
            let read = tokio::select! {
                read = self.read_all(&mut reader, already_read) => read,
                _ = &mut writing => Err(io::Error::other("it reads too slowly")),
            };
            match read {
                // The response to ConnectionBind goes out in front of the first byte of the peer.
                Ok(Some(bound)) => {
                    self.sender.finish();
                    writing.await.then_some(bound)
                }
                Ok(None) => None,
                Err(error) => {
                    tracing::debug!(%error, "TURN stream ended");
                    None
                }
            }
        };
        if let Some(bound) = bound {
            bound.splice(reader, writer).await;
        }
    }

    /// Reads messages, until the client leaves or has bound its stream to a peer's; an error says
    /// why it is sent away.
    async fn read_all(
        &self,
        mut reader: impl AsyncRead + Unpin,
        already_read: &[u8],
    ) -> io::Result<Option<Bound>> {
        let mut buffered = Buffered::new(already_read);
        let mut message_deadline = None;
        let mut stranger_deadline = Some(Instant::now() + self.shard.settings().stream_idle);

        loop {
            let known = self.shard.has_allocation(&self.five_tuple);
            let frame_len_max = if known {
                STREAM_FRAME_LEN_MAX
            } else {
                STRANGER_FRAME_LEN_MAX
            };
            let frame = next_frame(buffered.as_bytes(), frame_len_max).map_err(io::Error::other)?;
            if let Some(frame) = frame {
                let start = buffered.start;
                self.shard
                    .on_client_packet(self.five_tuple, &mut buffered.bytes, start, frame.len);
                buffered.start += frame.consumed;
                message_deadline = None;
                if let Some(bound) = self.shard.take_bound(self.five_tuple, buffered.as_bytes()) {
                    return Ok(Some(bound));
                }
                continue;
            }

            // A byte now and then keeps nothing open: a message has its time from its first byte
            // to its last, and a client without an Allocation has its time in all.
            let now = Instant::now();
            let settings = self.shard.settings();
            if known {
                stranger_deadline = None;
            } else if stranger_deadline.is_none() {
                stranger_deadline = Some(now + settings.stream_idle);
            }
            if buffered.is_empty() {
                message_deadline = None;
            } else if message_deadline.is_none() {
                message_deadline = Some(now + settings.stream_message);
            }
            let deadline = [
                message_deadline,
                stranger_deadline,
                Some(now + CHECK_INTERVAL),
            ];
            let deadline = deadline.into_iter().flatten().min().unwrap_or(now);

            match timeout_at(deadline, buffered.read_from(&mut reader, frame_len_max)).await {
                Ok(read) => {
                    if read? == 0 {
                        return Ok(None);
                    }
                }
                Err(_) if Some(deadline) == message_deadline => {
                    return Err(io::Error::other("a message took too long"));
                }
                Err(_) if Some(deadline) == stranger_deadline => {
                    if !self.shard.has_allocation(&self.five_tuple) {
                        return Err(io::Error::other("no Allocation in time"));
                    }
                }
                Err(_) => {}
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shard.close_stream(self.five_tuple);
    }
}

/// Bytes read and not yet handed on, with room around them to send from.
struct Buffered {
    bytes: Vec<u8>,
    /// Where they start; never before [`HEADROOM`].
    start: usize,
    end: usize,
}

impl Buffered {
    fn new(already_read: &[u8]) -> Buffered {
        let mut bytes = vec![0; HEADROOM + already_read.len().max(READ_LEN) + TAILROOM];
        let end = HEADROOM + already_read.len();
        bytes[HEADROOM..end].copy_from_slice(already_read);
        Buffered {
            bytes,
            start: HEADROOM,
            end,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads some more; 0 means that the client has ended its side. Grows no further than one
    /// frame of `frame_len_max` needs.
    async fn read_from(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        frame_len_max: usize,
    ) -> io::Result<usize> {
        if self.is_empty() {
            self.start = HEADROOM;
            self.end = HEADROOM;
        } else if self.start > HEADROOM {
            self.bytes.copy_within(self.start..self.end, HEADROOM);
            self.end -= self.start - HEADROOM;
            self.start = HEADROOM;
        }
        let mut room_end = self.bytes.len() - TAILROOM;
        if self.end == room_end {
            // Only a frame not yet whole fills the buffer, and it is at most this long.
            room_end = (HEADROOM + frame_len_max.max(READ_LEN)).min(room_end * 2);
            self.bytes.resize(room_end + TAILROOM, 0);
        }
        let read = reader.read(&mut self.bytes[self.end..room_end]).await?;
        self.end += read;
        Ok(read)
    }
}
