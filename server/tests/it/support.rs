//! A server in this process, on ports of its own and with an empty data directory, and clients for it.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use offhook::cli::ServeOptions;
use offhook::config::Config;
use offhook::config::load::Loaded;
use offhook::config::reload::Changes;
use offhook::plan::Plan;
use offhook::run::Server;
use offhook::state::DataDir;
use offhook::tls::{self, development};
use relay_service::client::Client;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long anything may take; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server and its data directory.
pub(crate) struct TestServer {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) config: Config,
    /// `None` where somebody else keeps it.
    pub(crate) dir: Option<TempDir>,
}

impl TestServer {
    /// As somebody without settings has it: loopback, plain HTTP, open sign-in.
    pub(crate) async fn local() -> Self {
        Self::start(false, |_| {}).await
    }

    /// The same after `change`.
    pub(crate) async fn local_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(false, change).await
    }

    /// As a company has it, without TLS, after `change`.
    pub(crate) async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(true, change).await
    }

    /// As a company has it, with a certificate for `localhost` and 127.0.0.1.
    pub(crate) async fn with_tls(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(true, |config| {
            let data = DataDir::open(&config.data_dir).unwrap();
            let files = development::ensure(&data, &[Ipv4Addr::LOCALHOST.into()]).unwrap();
            config.tls.certificate_file = Some(files.certificate);
            config.tls.key_file = Some(files.key);
            change(config);
        })
        .await
    }

    async fn start(from_file: bool, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            listen: vec![loopback(free_port())],
            data_dir: dir.path().join("data"),
            drain_seconds: 1,
            ..Config::default()
        };
        config.relay.listen_udp = vec![loopback(free_port())];
        config.relay.listen_tcp = vec![];
        config.sfu.port = 0;
        change(&mut config);
        let plan = Plan::new(Loaded { config, from_file }, &ServeOptions::default()).unwrap();
        let server = Server::start(&plan).await.unwrap();
        let address = server.addresses()[0];
        Self {
            server,
            address,
            config: plan.config,
            dir: Some(dir),
        }
    }

    /// One that runs already with `config`.
    pub(crate) fn around(server: Server, config: Config) -> Self {
        Self {
            address: server.addresses()[0],
            server,
            config,
            dir: None,
        }
    }

    /// Has the server read other settings, and waits until they hold.
    pub(crate) async fn reload(&self, change: impl FnOnce(&mut Config)) -> anyhow::Result<Changes> {
        let mut config = self.config.clone();
        change(&mut config);
        let loaded = Loaded {
            config,
            from_file: true,
        };
        let read = Plan::new(loaded, &ServeOptions::default());
        self.server.reload(read).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(crate) async fn connect_tls(&self) -> TlsStream<TcpStream> {
        let tcp = self.connect().await;
        self.handshake(tcp).await
    }

    /// TLS over `stream`, trusting the development authority of this server alone.
    pub(crate) async fn handshake<Io: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: Io,
    ) -> TlsStream<Io> {
        let mut roots = RootCertStore::empty();
        let authority = development::files(&self.config.data_dir).authority;
        roots.add_parsable_certificates(tls::read_chain(&authority).unwrap());
        let shaken = Self::handshake_trusting(roots, "localhost", stream).await;
        shaken.unwrap()
    }

    /// TLS over `stream` with a server called `name`, for whom one of `roots` vouches.
    pub(crate) async fn handshake_trusting<Io: AsyncRead + AsyncWrite + Unpin>(
        roots: RootCertStore,
        name: &'static str,
        stream: Io,
    ) -> std::io::Result<TlsStream<Io>> {
        let config = tls::client_config(roots).unwrap();
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// Asks over plain HTTP; `request` is the head without its last line break. Returns the whole answer.
    pub(crate) async fn ask(&self, request: &str) -> String {
        exchange(self.connect().await, request).await
    }

    /// A user name and a password for the relay.
    pub(crate) fn turn_credentials(&self) -> (String, String) {
        let secrets = DataDir::read_secrets(&self.config.data_dir).unwrap();
        let credentials =
            relay_service::Credentials::new([relay_service::Secret::new(&secrets.turn)]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        credentials
            .issue(now + Duration::from_secs(60), "account", "alice")
            .unwrap()
    }

    /// A TURN client over UDP.
    pub(crate) async fn turn_udp(&self) -> Client {
        let (username, password) = self.turn_credentials();
        let server = self.server.relay_addresses()[0];
        Client::udp(server, &username, &password).await.unwrap()
    }

    /// A TURN client over `stream`.
    pub(crate) fn turn(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Client {
        let (username, password) = self.turn_credentials();
        Client::stream(stream, &username, &password)
    }
}

/// A peer that sends back what it gets.
pub(crate) async fn echo_peer() -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind(loopback(0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(&buffer[..len], from).await.unwrap();
        }
    });
    address
}

/// Sends `payload` to the peer of Channel 0x4000, which sends it back.
pub(crate) async fn echo(client: &mut Client, payload: &[u8]) {
    client.send_channel(0x4000, payload).await.unwrap();
    let received = tokio::time::timeout(PATIENCE, client.receive())
        .await
        .expect("nothing is lost")
        .unwrap();
    assert_eq!(received.payload, payload);
}

/// Sends `request` and an empty line, and reads until the server hangs up.
pub(crate) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
        .write_all(b"Connection: close\r\n\r\n")
        .await
        .unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("an answer in time")
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Waits until the server hangs up; returns what it said before.
pub(crate) async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut said = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .expect("closed in time");
    drop(closed); // A reset is as good as an end.
    said
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port that neither TCP nor UDP uses at the moment.
///
/// From below the range that the system takes ports of outgoing connections from: between our look and our use nobody but another
/// test could take it, and those begin to look elsewhere.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    loop {
        let step = u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = START.wrapping_add(step) % u64::from(COUNT);
        let port = FIRST + u16::try_from(offset).unwrap();
        let address = loopback(port);
        if UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok() {
            return port;
        }
    }
}

/// The answer to the STUN `request`, a Binding that is seen to come from `seen` (RFC 8489 §14.2).
pub(crate) fn binding_answer(request: &[u8], seen: (Ipv4Addr, u16)) -> Vec<u8> {
    const COOKIE: u32 = 0x2112_a442;
    let mut answer = vec![0x01, 0x01, 0, 12];
    answer.extend_from_slice(&request[4..20]);
    answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1]);
    answer.extend_from_slice(&(seen.1 ^ 0x2112).to_be_bytes());
    answer.extend_from_slice(&(u32::from(seen.0) ^ COOKIE).to_be_bytes());
    answer
}
