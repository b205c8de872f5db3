//! What sockets alone cost: a bare relay of WebSocket frames, in a process of its own, to measure a server beside.
//!
//! It reads no JSON and knows no Sessions: two connections with the same token are a pair, each frame of one is passed to
//! the other as it came and answered with a fixed frame as long as the server's `ok`. The library, its buffers, the
//! allocator and the number of threads are the server's, and what is there to write leaves in one write.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use clap::Args;
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::client::{Bytes, Target};
use crate::process::Process;
use crate::tls;

/// The buffers of a connection, as the server has them.
const BUFFER_LEN: usize = 4 * 1024;
/// As long as the server's `ok`, which has numbers and ids; the client looks at the `type` alone.
const ANSWER: &str = r#"{"type":"ok","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","reply_to":"01ARZ3NDEKTSV4RRFFQ69G5FAV","data":{"as":"long"}}"#;

/// How the bare relay is started; it is no command for people.
#[derive(Args)]
pub(crate) struct FloorArguments {
    /// A folder with `certificate.pem` and `key.pem`. Without it the relay speaks no TLS.
    #[arg(long)]
    tls: Option<PathBuf>,
}

/// A running bare relay; it ends when this is dropped.
pub(crate) struct Floor {
    /// Where to connect.
    pub(crate) target: Target,
    /// To measure it.
    pub(crate) process: Process,
    _child: Child,
    folder: PathBuf,
}

impl Floor {
    /// Starts one, with TLS or without.
    pub(crate) async fn start(with_tls: bool) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("offhook-floor-{}", std::process::id()));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("messages-floor");
        std::fs::create_dir_all(&folder)?;
        let tls = if with_tls {
            let authority = tls::write_certificate(&folder)?;
            command.arg("--tls").arg(&folder);
            Some(tls::connector(&authority)?)
        } else {
            None
        };

        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("can't start the bare relay")?;
        let process = Process(child.id().context("the bare relay has no process id")?);
        let stdout = child.stdout.take().context("no output to read")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).await?;
        let address: SocketAddr = address
            .trim()
            .parse()
            .context("the bare relay tells no address")?;

        let target = Target::on_localhost(address, tls);
        Ok(Self {
            target,
            process,
            _child: child,
            folder,
        })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // In the folder for temporary files; what can't be removed is removed with the others there.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Connections that wait for the other of their pair: where its frames go, and where its own come from.
type Waiting = Mutex<HashMap<String, (Frames, mpsc::UnboundedReceiver<Utf8Bytes>)>>;
type Frames = mpsc::UnboundedSender<Utf8Bytes>;

/// Relays until the process is ended; prints its address first.
#[expect(clippy::print_stdout, reason = "how its parent learns the address")]
pub(crate) async fn run(arguments: &FloorArguments) -> anyhow::Result<()> {
    let acceptor = match &arguments.tls {
        Some(folder) => Some(acceptor(folder)?),
        None => None,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);

    let waiting = Arc::new(Waiting::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, waiting) = (acceptor.clone(), waiting.clone());
        tokio::spawn(async move {
            // A connection that ends takes nothing with it; the clients tell what is missing.
            let _ = connection(stream, acceptor, &waiting).await;
        });
    }
}

fn acceptor(folder: &Path) -> anyhow::Result<TlsAcceptor> {
    let config = tls::server_config(folder)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    waiting: &Waiting,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    match acceptor {
        Some(acceptor) => greet(acceptor.accept(stream).await?, waiting).await,
        None => greet(stream, waiting).await,
    }
}

async fn greet(stream: impl Bytes, waiting: &Waiting) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Hello {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        token: String,
    }

    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_LEN)
        .write_buffer_size(BUFFER_LEN);
    let mut socket = accept_hdr_async_with_config(stream, with_subprotocol, Some(config)).await?;
    let Some(Message::Text(text)) = socket.next().await.transpose()? else {
        anyhow::bail!("no hello");
    };
    let token = serde_json::from_str::<Hello>(&text)?.data.token;
    socket.send(Message::text(r#"{"type":"welcome"}"#)).await?;

    let pair = {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&token).unwrap_or_else(|| {
            let (to_first, of_first) = mpsc::unbounded_channel();
            let (to_second, of_second) = mpsc::unbounded_channel();
            waiting.insert(token, (to_first, of_second));
            (to_second, of_first)
        })
    };
    relay(socket, pair.0, pair.1).await
}

/// Accepts the subprotocol that the clients offer.
#[expect(
    clippy::result_large_err,
    clippy::unnecessary_wraps,
    reason = "the library wants this type"
)]
fn with_subprotocol(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let name = "sec-websocket-protocol";
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static("calls.v1"));
    Ok(response)
}

async fn relay(
    mut socket: WebSocketStream<impl Bytes>,
    to: Frames,
    mut from: mpsc::UnboundedReceiver<Utf8Bytes>,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            Some(frame) = from.recv() => {
                let mut next = Some(frame);
                while let Some(frame) = next {
                    socket.feed(Message::Text(frame)).await?;
                    next = from.try_recv().ok();
                }
            }
            message = socket.next() => {
                let mut next = message;
                while let Some(message) = next {
                    if let Message::Text(text) = message?
                        && !text.starts_with(r#"{"type":"ack""#)
                    {
                        let _ = to.send(text); // At the end of a round the other may have left.
                        socket.feed(Message::text(ANSWER)).await?;
                    }
                    next = socket.next().now_or_never().flatten();
                }
            }
        }
        socket.flush().await?;
    }
}
