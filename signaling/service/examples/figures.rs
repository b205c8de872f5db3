//! What a connection and a relayed message cost: `cargo run --release -p signaling-service --example figures`.
//!
//! Starts the service in a process of its own, so that its memory and its processor time can be told from the clients'.
//! Prints user-space memory per idle Session, and processor time per `ice.candidates` relayed between the two Devices of
//! a Call: one frame in, one `ok` and one frame out.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program to measure with, not to serve"
)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::serve::ListenerExt;
use backing::bus::InProcessBus;
use backing::records::Records;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use model::{Grants, MessageId, RoomGrants};
use signaling_service::tokens::{self, Claims};
use signaling_service::{ClientInfo, Config, IceConfig, Secrets, Service};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many Sessions are opened to see what one costs.
const IDLE: usize = 8_000;
/// How many Calls relay at the same time, and for how long.
const PAIRS: usize = 100;
const RELAYING: Duration = Duration::from_secs(5);
/// Processor time is counted in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();

    if std::env::args().nth(1).as_deref() == Some("serve") {
        runtime.block_on(serve());
    } else {
        runtime.block_on(measure());
    }
}

async fn serve() {
    let directory = tempfile::TempDir::new().unwrap();
    let records = Records::open(&directory.path().join("records.db"))
        .await
        .unwrap();
    let account = records.create_account("Measured").await.unwrap();
    let key = records.create_api_key(account.account).await.unwrap();

    let mut config = Config {
        shards: 1,
        connections_per_address_max: u32::MAX,
        ..Config::default()
    };
    config.limits.commands_per_second = u32::MAX;
    config.limits.commands_burst = u32::MAX;
    config.limits.commands_per_account_per_second = u32::MAX;
    config.limits.commands_per_account_burst = u32::MAX;
    config.limits.hellos_per_address_per_second = u32::MAX;
    config.limits.hellos_per_address_burst = u32::MAX;

    let secrets = Secrets {
        seal: [7; 32],
        turn: "north".into(),
    };
    let ice = IceConfig {
        udp_port: Some(3478),
        ..IceConfig::default()
    };
    let bus = Arc::new(InProcessBus::new());
    let service = Service::start(config, false, Vec::new(), records, bus, secrets, ice)
        .await
        .unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    println!("{address} {} {}", key.id, key.secret);

    let info = ClientInfo {
        ip: address.ip(),
        host: address.to_string(),
        secure: false,
    };
    let router = service.router().layer(Extension(info));
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    axum::serve(listener, router).await.unwrap();
}

async fn measure() {
    let server = Server::start();

    let before = server.memory();
    let cpu_before = server.cpu();
    let mut idle = Vec::new();
    for n in 0..IDLE {
        idle.push(Device::join(&server, &format!("idle{n}")).await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await; // The records are behind.
    let per_session = (server.memory() - before) as f64 / IDLE as f64;
    let cpu = (server.cpu() - cpu_before) * 1e6 / IDLE as f64;
    println!("{IDLE} idle Sessions: {per_session:.1} kB each, {cpu:.0} µs to take one");
    drop(idle);
    tokio::time::sleep(Duration::from_secs(1)).await;

    let mut pairs = Vec::new();
    for n in 0..PAIRS {
        pairs.push(Pair::call(&server, n).await);
    }
    for window in [1, 16] {
        let (cpu_before, started_at) = (server.cpu(), Instant::now());
        let relaying: Vec<_> = pairs
            .into_iter()
            .map(|pair| tokio::spawn(pair.relay(window, started_at + RELAYING)))
            .collect();
        let mut messages = 0;
        pairs = Vec::new();
        for pair in relaying {
            let (pair, relayed) = pair.await.unwrap();
            messages += relayed;
            pairs.push(pair);
        }

        let seconds = started_at.elapsed().as_secs_f64();
        let cpu = (server.cpu() - cpu_before) * 1e6 / messages as f64;
        println!(
            "{window} in flight: {cpu:.2} µs a message, so {:.0} messages/s per core ({:.0}/s on the clock)",
            1e6 / cpu,
            messages as f64 / seconds
        );
    }
}

struct Server {
    process: Child,
    address: SocketAddr,
    key: model::ApiKeyId,
    secret: String,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .env("TOKIO_WORKER_THREADS", "1") // one core
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let words: Vec<_> = line.split_whitespace().collect();

        Self {
            process,
            address: words[0].parse().unwrap(),
            key: words[1].parse().unwrap(),
            secret: words[2].to_owned(),
        }
    }

    fn token(&self, user: &str) -> String {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let claims = Claims {
            sub: user.parse().unwrap(),
            nbf: None,
            exp: now.as_secs() + 3_600,
            name: None,
            call: Grants::default(),
            room: RoomGrants::default(),
        };
        tokens::mint(self.key, &self.secret, &claims).unwrap()
    }

    /// Resident memory, in kB.
    fn memory(&self) -> i64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Processor time, in seconds.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Device {
    socket: WebSocketStream<TcpStream>,
    seq: u64,
    ack: u64,
    acked: u64,
}

impl Device {
    async fn join(server: &Server, user: &str) -> Self {
        let mut request = format!("ws://{}/v1/calls", server.address)
            .into_client_request()
            .unwrap();
        request.headers_mut().insert(
            "sec-websocket-protocol",
            HeaderValue::from_static("calls.v1"),
        );
        let stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(16 * 1024);
        let (socket, _) = client_async_with_config(request, stream, Some(config))
            .await
            .unwrap();
        let mut device = Self {
            socket,
            seq: 0,
            ack: 0,
            acked: 0,
        };

        let (id, key) = (new_id(), BASE64_URL_SAFE_NO_PAD.encode([4; 65]));
        let token = server.token(user);
        let hello = format!(
            r#"{{"type":"hello","data":{{"token":"{token}","device":{{"id":"{id}","key":"{key}"}}}}}}"#
        );
        device.socket.send(Message::text(hello)).await.unwrap();
        device.next(r#"{"type":"welcome""#).await;
        device
    }

    async fn command(&mut self, kind: &str, data: &str) {
        let frame = self.frame(kind, data);
        self.socket.send(Message::text(frame)).await.unwrap();
        self.next(r#"{"type":"ok""#).await;
    }

    fn frame(&mut self, kind: &str, data: &str) -> String {
        self.seq += 1;
        self.acked = self.ack;
        let (id, seq, ack) = (new_id(), self.seq, self.ack);
        format!(r#"{{"type":"{kind}","id":"{id}","seq":{seq},"ack":{ack},"data":{data}}}"#)
    }

    /// The next frame that begins so.
    async fn next(&mut self, beginning: &str) -> Utf8Bytes {
        loop {
            let Some(Ok(Message::Text(text))) = self.socket.next().await else {
                panic!("the socket ended before {beginning}");
            };
            if text.contains(r#","seq":"#) {
                self.ack += 1;
            }
            if text.starts_with(beginning) {
                return text;
            }
            assert!(!text.starts_with(r#"{"type":"error""#), "{text}");
        }
    }
}

/// A Call that was answered.
struct Pair {
    caller: Device,
    callee: Device,
    data: String,
}

impl Pair {
    async fn call(server: &Server, n: usize) -> Self {
        let mut caller = Device::join(server, &format!("caller{n}")).await;
        let mut callee = Device::join(server, &format!("callee{n}")).await;
        let call = new_id();
        let invite = format!(
            r#"{{"call":"{call}","to":"callee{n}","media":{{"audio":true,"video":true}}}}"#
        );
        caller.command("call.invite", &invite).await;
        callee.next(r#"{"type":"call.incoming""#).await;
        callee
            .command("call.accept", &format!(r#"{{"call":"{call}","rev":1}}"#))
            .await;
        caller.next(r#"{"type":"call.update""#).await;

        let candidate = "candidate:842163049 1 udp 1677729535 203.0.113.7 51234 typ srflx raddr 192.168.1.20 rport 51234 generation 0 network-cost 999";
        let data = format!(
            r#"{{"call":"{call}","generation":0,"candidates":[{{"candidate":"{candidate}","sdp_mid":"0","sdp_m_line_index":0,"username_fragment":"abcd"}}]}}"#
        );
        Self {
            caller,
            callee,
            data,
        }
    }

    /// Sends `window` messages at once and waits for their answers and their arrival, until `end`.
    async fn relay(mut self, window: usize, end: Instant) -> (Self, usize) {
        let mut relayed = 0;

        while Instant::now() < end {
            for _ in 0..window {
                let frame = self.caller.frame("ice.candidates", &self.data);
                self.caller.socket.feed(Message::text(frame)).await.unwrap();
            }
            self.caller.socket.flush().await.unwrap();

            for _ in 0..window {
                self.callee.next(r#"{"type":"ice.candidates""#).await;
                self.caller.next(r#"{"type":"ok""#).await;
            }
            if self.callee.ack - self.callee.acked >= 16 {
                self.callee.acked = self.callee.ack;
                let ack = format!(r#"{{"type":"ack","ack":{}}}"#, self.callee.ack);
                self.callee.socket.send(Message::text(ack)).await.unwrap();
            }
            relayed += window;
        }
        (self, relayed)
    }
}

fn new_id() -> MessageId {
    MessageId::from_u128(rand::random::<u128>() >> 3)
}
