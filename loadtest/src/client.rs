//! A Session as thinly as possible: one WebSocket at a time, numbers and acknowledgements. What was sent is not kept, so a Session
//! is moved to another socket only while it has no command open.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use ulid::Ulid;

use crate::frame::{self, Head};

/// How many connections come from one loopback address. The server limits connections per address; people don't share one.
pub(crate) const PER_ADDRESS: usize = 50;

/// A frame is acknowledged at the latest when this many came (calls.v1.md).
const ACK_EVERY: u32 = 16;

/// How long a server may take to answer while a Session is set up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A public key in form: the base point of P-256. Nobody checks signatures in a load test.
pub(crate) const DEVICE_KEY: &str =
    "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";

/// A stream of bytes, plain or through TLS.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// Where Sessions connect to.
#[derive(Clone)]
pub(crate) struct Target {
    /// The address.
    pub(crate) address: SocketAddr,
    /// The host as it stands in the address people type, with its port.
    pub(crate) authority: String,
    /// How to speak TLS; `None` for plain TCP.
    pub(crate) tls: Option<TlsConnector>,
}

/// One Session.
pub(crate) struct Session {
    socket: WebSocketStream<Box<dyn Bytes>>,
    sent: u64,
    received: u64,
    unacknowledged: u32,
    /// What a client keeps.
    device: String,
    /// What resumes it.
    welcome: Welcome,
}

#[derive(Deserialize)]
struct Frame<T> {
    data: T,
}

#[derive(Deserialize)]
struct Welcome {
    session: String,
    key: String,
    resumed: bool,
}

impl Target {
    /// What we started ourselves, on this machine.
    pub(crate) fn on_localhost(address: SocketAddr, tls: Option<TlsConnector>) -> Self {
        Self {
            address,
            authority: format!("localhost:{}", address.port()),
            tls,
        }
    }

    /// Opens connection number `index`, and a Session with `token` on it.
    pub(crate) async fn open(&self, token: &str, index: usize) -> anyhow::Result<Session> {
        let mut session = Session {
            socket: self.socket(index).await?,
            sent: 0,
            received: 0,
            unacknowledged: 0,
            device: Ulid::generate().to_string(),
            welcome: Welcome {
                session: String::new(),
                key: String::new(),
                resumed: false,
            },
        };
        session.greet(token).await?;
        Ok(session)
    }

    /// Moves a Session that has no command open to connection number `index`, as after a lost network.
    pub(crate) async fn resume(
        &self,
        session: &mut Session,
        token: &str,
        index: usize,
    ) -> anyhow::Result<()> {
        session.socket = self.socket(index).await?;
        session.unacknowledged = 0;
        session.greet(token).await?;
        ensure!(session.welcome.resumed, "the Session was not resumed");
        Ok(())
    }

    async fn socket(&self, index: usize) -> anyhow::Result<WebSocketStream<Box<dyn Bytes>>> {
        let stream = tokio::time::timeout(PATIENCE, self.stream(index))
            .await
            .context("no connection in time")??;
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        let uri = format!("{scheme}://{}/v1/calls", self.authority)
            .parse()
            .context("not an address")?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol("calls.v1");
        // Ten thousand clients with the library's default buffers would need more memory than the server they measure.
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(4096)
            .max_write_buffer_size(1 << 20);
        let upgrade = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _) = tokio::time::timeout(PATIENCE, upgrade)
            .await
            .context("no upgrade in time")??;
        Ok(socket)
    }

    /// Connection number `index`, TLS included.
    pub(crate) async fn stream(&self, index: usize) -> anyhow::Result<Box<dyn Bytes>> {
        let tcp = self.tcp(index).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let host = self
            .authority
            .rsplit_once(':')
            .map_or(self.authority.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.to_owned()).context("no host for TLS")?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }

    /// A TCP connection; on loopback from one of many source addresses.
    async fn tcp(&self, index: usize) -> anyhow::Result<tokio::net::TcpStream> {
        let socket = if self.address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if self.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            let number = u32::try_from(index / PER_ADDRESS).context("too many connections")?;
            let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number);
            socket.bind((source, 0).into())?;
        }
        socket
            .connect(self.address)
            .await
            .with_context(|| format!("can't connect to {}", self.address))
    }
}

impl Session {
    /// Sends a command, to be written with the next [`Session::flush`]. `data` is JSON.
    pub(crate) async fn command(&mut self, kind: &str, data: &str) -> anyhow::Result<()> {
        self.sent += 1;
        let (id, seq, ack) = (Ulid::generate(), self.sent, self.received);
        let text =
            format!(r#"{{"type":"{kind}","id":"{id}","seq":{seq},"ack":{ack},"data":{data}}}"#);
        self.unacknowledged = 0;
        self.feed(text).await
    }

    /// Writes what was sent.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.socket.flush().await?)
    }

    /// The next frame that matters, as text; pings are answered and acknowledgements sent on the way.
    ///
    /// Fails when the server closes the socket or a number is missing. Loses nothing when it is given up.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Utf8Bytes> {
        loop {
            if self.unacknowledged >= ACK_EVERY {
                self.control("ack").await?;
            }
            let text = match self.socket.next().await.context("the server went away")?? {
                Message::Text(text) => text,
                Message::Close(frame) => bail!("closed by the server: {frame:?}"),
                _ => continue,
            };
            let Head { kind, seq } = frame::head(&text)?;
            if let Some(seq) = seq {
                if seq != self.received + 1 {
                    bail!("frame {seq} after {}", self.received);
                }
                self.received = seq;
                self.unacknowledged += 1;
                return Ok(text);
            }
            match kind {
                "ping" => self.control("pong").await?,
                "pong" | "ack" => {}
                "error" => bail!("{text}"),
                _ => return Ok(text),
            }
        }
    }

    /// Waits for a frame of this kind and drops the others, answers with `error` excepted: they fail.
    pub(crate) async fn wait_for(&mut self, kind: &str) -> anyhow::Result<Utf8Bytes> {
        loop {
            let text = tokio::time::timeout(PATIENCE, self.next())
                .await
                .with_context(|| format!("no {kind} in time"))??;
            match frame::head(&text)?.kind {
                found if found == kind => return Ok(text),
                "error" => bail!("{text}"),
                _ => {}
            }
        }
    }

    /// Whether frames came that are not acknowledged.
    pub(crate) fn owes_ack(&self) -> bool {
        self.unacknowledged > 0
    }

    /// Sends and writes a frame without number and content: `ping`, `pong`, `ack`, `bye`.
    pub(crate) async fn control(&mut self, kind: &str) -> anyhow::Result<()> {
        self.unacknowledged = 0;
        let text = format!(
            r#"{{"type":"{kind}","id":"{}","ack":{}}}"#,
            Ulid::generate(),
            self.received
        );
        self.feed(text).await?;
        self.flush().await
    }

    /// Ends the Session.
    pub(crate) async fn bye(mut self) -> anyhow::Result<()> {
        self.control("bye").await
    }

    async fn greet(&mut self, token: &str) -> anyhow::Result<()> {
        let device = json!({ "id": self.device, "name": "loadtest", "key": DEVICE_KEY });
        let mut data = json!({ "token": token, "device": device });
        if !self.welcome.session.is_empty() {
            let Welcome { session, key, .. } = &self.welcome;
            data["resume"] = json!({ "session": session, "key": key, "ack": self.received });
        }
        let hello: Value =
            json!({ "type": "hello", "id": Ulid::generate().to_string(), "data": data });
        self.feed(hello.to_string()).await?;
        self.flush().await?;
        let text = self.wait_for("welcome").await?;
        let Frame { data } = serde_json::from_str(&text)?;
        self.welcome = data;
        Ok(())
    }

    async fn feed(&mut self, text: String) -> anyhow::Result<()> {
        Ok(self.socket.feed(Message::Text(text.into())).await?)
    }
}
