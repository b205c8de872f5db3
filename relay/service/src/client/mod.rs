//! A TURN client with a socket: for `offhook doctor`, which makes a real Allocation on every
//! transport, and for tests.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use relay_stun::client::{AllocateOptions, Answer, Client as Conversation, Event, Request};
use relay_stun::{STREAM_FRAME_LEN_MAX, next_frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

pub use relay_stun::{AddressFamily, ErrorCode};

use self::dtls::DtlsSocket;
use crate::Certificate;
use crate::stream::Stream;

mod dtls;

/// How long a request is waited for in all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// After how long a request over UDP is sent again at first; the pause doubles (RFC 8489 §6.2.1).
const RETRANSMIT_AFTER: Duration = Duration::from_millis(500);

/// How many datagrams and connections of peers may wait while a request is under way.
const RECEIVED_MAX: usize = 1024;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said no.
    #[error("refused with {} {}", .0.0, .0.reason())]
    Refused(ErrorCode),
    /// The server said nothing.
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
    /// The payload fits no message.
    #[error("payload too long")]
    TooLong,
    /// The socket failed, or the server ended the stream.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The way it came.
    pub from: Source,
    /// The payload.
    pub payload: Vec<u8>,
}

/// How a peer's datagram reached the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In a Data indication, which names the peer.
    Peer(SocketAddr),
    /// In a ChannelData message with this number.
    Channel(u16),
}

/// A TURN client on one UDP socket, in the clear or with DTLS, or on one TCP or TLS stream.
pub struct Client {
    conversation: Conversation,
    wire: Wire,
    received: VecDeque<Received>,
    /// Peers that connected.
    attempts: VecDeque<(u32, SocketAddr)>,
}

enum Wire {
    Udp(UdpSocket),
    Dtls(Box<DtlsSocket>),
    Stream {
        stream: Box<dyn Stream>,
        buffered: Vec<u8>,
    },
}

impl Client {
    /// A client on a UDP socket of its own.
    ///
    /// # Errors
    ///
    /// The socket can't be had.
    pub async fn udp(server: SocketAddr, username: &str, password: &str) -> io::Result<Client> {
        let wire = Wire::Udp(socket_toward(server).await?);
        Ok(Client::new(wire, username, password))
    }

    /// A client over DTLS on a socket of its own, through its handshake. `own` is a certificate for the case that the server asks
    /// for one. Whose certificate the server shows is not looked at.
    ///
    /// # Errors
    ///
    /// The socket can't be had, or the handshake fails or takes more than 5 s.
    pub async fn dtls(
        server: SocketAddr,
        own: Certificate,
        username: &str,
        password: &str,
    ) -> io::Result<Client> {
        let socket = socket_toward(server).await?;
        let session = DtlsSocket::connect(socket, own).await?;
        Ok(Client::new(
            Wire::Dtls(Box::new(session)),
            username,
            password,
        ))
    }

    /// A client on a stream that is connected, and through its TLS handshake where it has one.
    pub fn stream(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        username: &str,
        password: &str,
    ) -> Client {
        let wire = Wire::Stream {
            stream: Box::new(stream),
            buffered: Vec::new(),
        };
        Client::new(wire, username, password)
    }

    fn new(wire: Wire, username: &str, password: &str) -> Client {
        let conversation = Conversation::new(username, password, rand::random());
        Client {
            conversation,
            wire,
            received: VecDeque::new(),
            attempts: VecDeque::new(),
        }
    }

    /// Asks for the own address as the server sees it.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn binding(&mut self) -> Result<Answer, ClientError> {
        self.request(Request::Binding).await
    }

    /// Makes an Allocation, of IPv4 where no family is given.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn allocate(&mut self, family: Option<AddressFamily>) -> Result<Answer, ClientError> {
        self.request(Request::Allocate {
            family,
            lifetime: None,
        })
        .await
    }

    /// Makes an Allocation whose peers are reached over TCP (RFC 6062); for clients on a stream.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn allocate_tcp(&mut self) -> Result<Answer, ClientError> {
        let options = AllocateOptions {
            tcp: true,
            ..AllocateOptions::default()
        };
        self.request(Request::AllocateWith(options)).await
    }

    /// Has the relay connect to `peer`; the answer's `connection_id` is for
    /// [`bind_connection`](Self::bind_connection).
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn connect(&mut self, peer: SocketAddr) -> Result<Answer, ClientError> {
        self.request(Request::Connect { peer }).await
    }

    /// The next peer that connects, with the id of its connection, waited for without end. What
    /// else arrives meanwhile is kept for [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// The socket failed, or the server ended the stream.
    pub async fn connection_attempt(&mut self) -> io::Result<(u32, SocketAddr)> {
        loop {
            if let Some(attempt) = self.attempts.pop_front() {
                return Ok(attempt);
            }
            let packet = self.wire.read().await?;
            let event = self.conversation.handle(&packet);
            keep(&mut self.received, &mut self.attempts, &event);
        }
    }

    /// Makes this stream, which has no Allocation, the data connection to a peer; gives back the
    /// stream, and what the peer has sent so far.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn bind_connection(
        mut self,
        connection_id: u32,
    ) -> Result<(impl AsyncRead + AsyncWrite + Send + Unpin, Vec<u8>), ClientError> {
        self.request(Request::ConnectionBind { connection_id })
            .await?;
        match self.wire {
            Wire::Stream { stream, buffered } => Ok((stream, buffered)),
            Wire::Udp(_) | Wire::Dtls(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        }
    }

    /// Refreshes the Allocation; zero seconds end it.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn refresh(&mut self, lifetime_seconds: u32) -> Result<Answer, ClientError> {
        self.request(Request::Refresh {
            lifetime: lifetime_seconds,
        })
        .await
    }

    /// Permits `peer`, whatever its port.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn create_permission(&mut self, peer: SocketAddr) -> Result<(), ClientError> {
        self.request(Request::CreatePermission { peers: vec![peer] })
            .await
            .map(|_| ())
    }

    /// Binds `channel` to `peer`.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn channel_bind(
        &mut self,
        channel: u16,
        peer: SocketAddr,
    ) -> Result<(), ClientError> {
        self.request(Request::ChannelBind { channel, peer })
            .await
            .map(|_| ())
    }

    /// Sends `payload` to `peer` in a Send indication.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn send_to(&mut self, peer: SocketAddr, payload: &[u8]) -> Result<(), ClientError> {
        let bytes = self
            .conversation
            .send_indication(peer, payload)
            .ok_or(ClientError::TooLong)?;
        Ok(self.wire.write(&bytes).await?)
    }

    /// Sends `payload` through `channel`.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn send_channel(&mut self, channel: u16, payload: &[u8]) -> Result<(), ClientError> {
        let bytes = Conversation::channel_data(channel, payload).ok_or(ClientError::TooLong)?;
        Ok(self.wire.write(&bytes).await?)
    }

    /// The next datagram of a peer, waited for without end.
    ///
    /// # Errors
    ///
    /// The socket failed, or the server ended the stream.
    pub async fn receive(&mut self) -> io::Result<Received> {
        loop {
            if let Some(received) = self.received.pop_front() {
                return Ok(received);
            }
            let packet = self.wire.read().await?;
            let event = self.conversation.handle(&packet);
            keep(&mut self.received, &mut self.attempts, &event);
        }
    }

    async fn request(&mut self, request: Request) -> Result<Answer, ClientError> {
        let mut bytes = self.conversation.request(request);
        self.wire.write(&bytes).await?;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut pause = RETRANSMIT_AFTER;
        let mut again = Instant::now() + pause;

        loop {
            let packet = match timeout_at(again.min(deadline), self.wire.read()).await {
                Ok(packet) => packet?,
                Err(_) if Instant::now() >= deadline => return Err(ClientError::TimedOut),
                Err(_) => {
                    if matches!(self.wire, Wire::Udp(_) | Wire::Dtls(_)) {
                        self.wire.write(&bytes).await?;
                    }
                    pause *= 2;
                    again = Instant::now() + pause;
                    continue;
                }
            };
            match self.conversation.handle(&packet) {
                Event::Retry(retry) => {
                    bytes = retry;
                    self.wire.write(&bytes).await?;
                }
                Event::Success(answer) => return Ok(answer),
                Event::Refused(code) => return Err(ClientError::Refused(code)),
                event => keep(&mut self.received, &mut self.attempts, &event),
            }
        }
    }
}

async fn socket_toward(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    Ok(socket)
}

fn keep(
    received: &mut VecDeque<Received>,
    attempts: &mut VecDeque<(u32, SocketAddr)>,
    event: &Event<'_>,
) {
    if let Event::ConnectionAttempt {
        connection_id,
        peer,
    } = event
        && attempts.len() < RECEIVED_MAX
    {
        attempts.push_back((*connection_id, *peer));
    }
    let (from, payload) = match event {
        Event::Data { peer, payload } => (Source::Peer(*peer), payload),
        Event::Channel { channel, payload } => (Source::Channel(*channel), payload),
        _ => return,
    };
    if received.len() < RECEIVED_MAX {
        received.push_back(Received {
            from,
            payload: payload.to_vec(),
        });
    }
}

impl Wire {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Wire::Udp(socket) => socket.send(bytes).await.map(|_| ()),
            Wire::Dtls(session) => session.write(bytes).await,
            Wire::Stream { stream, .. } => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// One whole message; may be given up at any time without losing a byte.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Wire::Udp(socket) => {
                let mut packet = vec![0; 65_535];
                let len = socket.recv(&mut packet).await?;
                packet.truncate(len);
                Ok(packet)
            }
            Wire::Dtls(session) => session.read().await,
            Wire::Stream { stream, buffered } => loop {
                let frame = next_frame(buffered, STREAM_FRAME_LEN_MAX).map_err(io::Error::other)?;
                if let Some(frame) = frame {
                    let packet = buffered[..frame.len].to_vec();
                    buffered.drain(..frame.consumed);
                    return Ok(packet);
                }
                if stream.read_buf(buffered).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            },
        }
    }
}
