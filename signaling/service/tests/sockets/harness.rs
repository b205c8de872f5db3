//! A service on loopback, and clients that speak calls.v1.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::serve::ListenerExt;
use backing::bus::InProcessBus;
use backing::records::{ApiKey, Records};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use model::{AccountId, DeviceId, Grants, MessageId, RecordChange, RoomGrants};
use serde_json::{Value, json};
use signaling_service::tokens::{self, Claims};
use signaling_service::{ClientInfo, Config, IceConfig, Secrets, Service};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The buffers of sockets, in bytes. Small, so that who stops reading or is not read notices soon, however slow the machine is.
const BUFFER_LEN: u32 = 64 * 1024;

/// A service with one Account.
pub(crate) struct TestService {
    pub(crate) service: Service,
    pub(crate) records: Records,
    pub(crate) address: SocketAddr,
    pub(crate) key: ApiKey,
    bus: InProcessBus,
    directory: Arc<TempDir>,
}

impl TestService {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        Self::start_after(config, |_| Vec::new()).await
    }

    /// Starts a service that finds in its records what an earlier one has left there.
    pub(crate) async fn start_after(
        config: Config,
        left: impl FnOnce(AccountId) -> Vec<RecordChange>,
    ) -> Self {
        let directory = TempDir::new().unwrap();
        let records = Records::open(&directory.path().join("records.db"))
            .await
            .unwrap();
        let account = records.create_account("Test").await.unwrap();
        let key = records.create_api_key(account.account).await.unwrap();
        for change in left(account.account) {
            records.record(change).await.unwrap();
        }

        Self::start_node(
            config,
            records,
            key,
            InProcessBus::new(),
            Arc::new(directory),
        )
        .await
    }

    /// Another node of the same installation.
    pub(crate) async fn start_beside(&self) -> Self {
        let (records, key, bus) = (self.records.clone(), self.key.clone(), self.bus.clone());
        Self::start_node(
            Config::default(),
            records,
            key,
            bus,
            Arc::clone(&self.directory),
        )
        .await
    }

    async fn start_node(
        config: Config,
        records: Records,
        key: ApiKey,
        bus: InProcessBus,
        directory: Arc<TempDir>,
    ) -> Self {
        let secrets = Secrets {
            seal: [7; 32],
            turn: "north".into(),
        };
        let ice = IceConfig {
            udp_port: Some(3478),
            ..IceConfig::default()
        };
        let allowed = vec!["https://app.example.com".to_owned()];
        let carrier = Arc::new(bus.clone());
        let service = Service::start(
            config,
            true,
            allowed,
            records.clone(),
            carrier,
            secrets,
            ice,
        )
        .await
        .unwrap();

        // Accepted sockets have the buffers of the listening one.
        let listener = small_socket();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1_024).unwrap();
        let address = listener.local_addr().unwrap();
        let info = ClientInfo {
            ip: address.ip(),
            host: address.to_string(),
            secure: false,
        };
        let router = service.router().layer(Extension(info));
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        tokio::spawn(async { axum::serve(listener, router).await });

        Self {
            service,
            records,
            bus,
            address,
            key,
            directory,
        }
    }

    /// A token for `user` that is valid for an hour.
    pub(crate) fn token(&self, user: &str) -> String {
        self.token_until(user, now_secs() + 3_600)
    }

    pub(crate) fn token_until(&self, user: &str, exp: u64) -> String {
        token(&self.key, user, exp)
    }

    /// A token that allows calls to phones.
    pub(crate) fn token_for_phones(&self, user: &str) -> String {
        let grants = Grants {
            phone: true,
            ..Grants::default()
        };
        token_with(&self.key, user, now_secs() + 3_600, grants)
    }

    /// A client that was welcomed.
    pub(crate) async fn join(&self, user: &str) -> Client {
        let mut client = self.connect().await;
        client.hello(&self.token(user), None).await;
        let welcome = client.next("welcome").await;
        assert_eq!(welcome["data"]["user"], user);
        client
    }

    /// A client that has not said anything.
    pub(crate) async fn connect(&self) -> Client {
        self.try_connect(|_| {}).await.unwrap()
    }

    /// Tries to connect with a changed request.
    pub(crate) async fn try_connect(
        &self,
        change: impl FnOnce(&mut tokio_tungstenite::tungstenite::http::HeaderMap),
    ) -> Result<Client, Box<Error>> {
        let mut request = format!("ws://{}/v1/calls", self.address)
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert(
            "sec-websocket-protocol",
            HeaderValue::from_static("calls.v1"),
        );
        change(headers);

        let stream = small_socket().connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = client_async(request, stream).await.map_err(Box::new)?;
        Ok(Client {
            socket,
            device: DeviceId::from_u128(number().into()),
            seq: 0,
            ack: 0,
            session: None,
        })
    }

    /// The answer to a plain request: its status and body.
    pub(crate) async fn request(&self, request: &str, body: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let text = format!(
            "{request} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(text.as_bytes()).await.unwrap();

        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

/// A Device with one socket.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) device: DeviceId,
    seq: u64,
    ack: u64,
    /// Id and key of the latest `welcome`.
    session: Option<(String, String)>,
}

/// What the server ended a socket with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed(pub(crate) u16, pub(crate) String);

impl Client {
    pub(crate) async fn hello(&mut self, token: &str, resume: Option<Value>) {
        let device = json!({"id": self.device, "name": "test", "key": device_key()});
        let mut data = json!({"token": token, "device": device});
        if let Some(resume) = resume {
            data["resume"] = resume;
        }
        self.text(&json!({"type": "hello", "id": new_id(), "data": data}).to_string())
            .await;
    }

    /// What resumes this Session elsewhere.
    pub(crate) fn resume(&self) -> Value {
        let (session, key) = self.session.clone().unwrap();
        json!({"session": session, "key": key, "ack": self.ack})
    }

    /// Goes on with the Session and the counts of `before`.
    pub(crate) fn take_over(&mut self, before: &Self) {
        self.device = before.device;
        self.seq = before.seq;
        self.ack = before.ack;
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends a numbered command and returns its id.
    pub(crate) async fn send(&mut self, kind: &str, data: Value) -> MessageId {
        let id = new_id();
        let frame = self.frame(kind, id, &data);
        self.text(&frame).await;
        id
    }

    /// A numbered command as text.
    pub(crate) fn frame(&mut self, kind: &str, id: MessageId, data: &Value) -> String {
        self.seq += 1;
        json!({"type": kind, "id": id, "seq": self.seq, "ack": self.ack, "data": data}).to_string()
    }

    /// Sends a command and returns the data of its `ok`; panics on an `error`.
    pub(crate) async fn ask(&mut self, kind: &str, data: Value) -> Value {
        let id = self.send(kind, data).await.to_string();
        loop {
            let frame = self.receive().await.unwrap();
            if frame["reply_to"] == id.as_str() {
                assert_eq!(frame["type"], "ok", "{frame}");
                return frame["data"].clone();
            }
        }
    }

    /// The code with which a command is refused.
    pub(crate) async fn refusal(&mut self, kind: &str, data: Value) -> String {
        let id = self.send(kind, data).await.to_string();
        loop {
            let frame = self.receive().await.unwrap();
            if frame["reply_to"] == id.as_str() {
                assert_eq!(frame["type"], "error", "{frame}");
                return frame["data"]["code"].as_str().unwrap().to_owned();
            }
        }
    }

    /// The next frame of this type; others are passed over.
    pub(crate) async fn next(&mut self, kind: &str) -> Value {
        loop {
            let frame = self
                .receive()
                .await
                .unwrap_or_else(|closed| panic!("{closed:?} before {kind}"));
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// The next `call.update` with this event.
    pub(crate) async fn update(&mut self, event: &str) -> Value {
        loop {
            let frame = self.next("call.update").await;
            if frame["data"]["event"] == event {
                return frame["data"]["state"].clone();
            }
        }
    }

    /// The next frame, or how the socket ended.
    pub(crate) async fn receive(&mut self) -> Result<Value, Closed> {
        let message = tokio::time::timeout(PATIENCE, self.socket.next())
            .await
            .expect("nothing came");

        match message {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if let Some(seq) = frame["seq"].as_u64() {
                    assert_eq!(seq, self.ack + 1, "{frame}");
                    self.ack = seq;
                }
                if frame["type"] == "welcome" {
                    let text = |name: &str| frame["data"][name].as_str().unwrap().to_owned();
                    self.session = Some((text("session"), text("key")));
                    if frame["data"]["resumed"] == false {
                        (self.seq, self.ack) = (0, 0);
                    }
                }
                Ok(frame)
            }
            Some(Ok(Message::Close(Some(frame)))) => {
                Err(Closed(frame.code.into(), frame.reason.to_string()))
            }
            Some(Ok(other)) => panic!("{other:?}"),
            ended => Err(Closed(1006, format!("{ended:?}"))),
        }
    }

    /// How the socket ends, whatever comes before.
    pub(crate) async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.receive().await {
                return closed;
            }
        }
    }

    /// The `error` the server tells, and the close code after it.
    pub(crate) async fn refused(&mut self) -> (String, u16) {
        let error = self.next("error").await;
        let code = error["data"]["code"].as_str().unwrap().to_owned();
        (code, self.closed().await.0)
    }
}

fn small_socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(BUFFER_LEN).unwrap();
    socket.set_recv_buffer_size(BUFFER_LEN).unwrap();
    socket
}

pub(crate) fn token(key: &ApiKey, user: &str, exp: u64) -> String {
    token_with(key, user, exp, Grants::default())
}

fn token_with(key: &ApiKey, user: &str, exp: u64, call: Grants) -> String {
    let claims = Claims {
        sub: user.parse().unwrap(),
        nbf: None,
        exp,
        name: Some(user.to_uppercase()),
        call,
        room: RoomGrants::default(),
    };
    tokens::mint(key.id, &key.secret, &claims).unwrap()
}

pub(crate) fn now_secs() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A new id of a frame, or of a Call.
pub(crate) fn new_id() -> MessageId {
    MessageId::from_u128(u128::from(number()) << 8)
}

pub(crate) fn device_key() -> String {
    BASE64_URL_SAFE_NO_PAD.encode([4; 65])
}

fn number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}
