//! A client that speaks DTLS, one step at a time.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Dtls, DtlsCertificate, Output};
use relay_service::{Certificate, Certificates, Config, Credentials, Handle, Relay, Secret};
use relay_stun::client::{Client, Event, Request};

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(20);

/// After how long a question is asked again.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(500);

/// How long one step waits for the server.
const STEP: Duration = Duration::from_millis(50);

/// The longest record that is received, in bytes.
const RECORD_LEN_MAX: usize = 4096;

/// A relay that serves DTLS clients.
pub(crate) fn start(certificates: Option<Certificates>) -> anyhow::Result<Handle> {
    let config = Config {
        listen_udp: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        listen_tcp: Vec::new(),
        listen_dtls: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        ..Config::default()
    };
    let credentials = Credentials::new([Secret::new("a secret of the test")]);
    Relay::start(&config, credentials, None, certificates)
}

/// Shakes hands and asks for the own address.
pub(crate) fn ask_over_dtls(relay: &Handle) {
    let mut client = DtlsClient::new(relay.dtls_addresses()[0]);
    client.shake_hands();
    client.ask();
}

pub(crate) struct DtlsClient {
    pub(crate) socket: UdpSocket,
    dtls: Dtls,
    pub(crate) connected: bool,
    received: VecDeque<Vec<u8>>,
}

impl DtlsClient {
    pub(crate) fn new(server: SocketAddr) -> DtlsClient {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server).unwrap();
        DtlsClient::at(socket)
    }

    /// A new session on a socket that is connected to the server.
    pub(crate) fn at(socket: UdpSocket) -> DtlsClient {
        let Certificate {
            certificate,
            private_key,
        } = super::self_signed();
        let own = DtlsCertificate {
            certificate,
            private_key,
        };
        let config = Arc::new(dimpl::Config::default());
        let mut dtls = Dtls::new_12(config, own, Instant::now());
        dtls.set_active(true);
        dtls.handle_timeout(Instant::now()).unwrap();
        DtlsClient {
            socket,
            dtls,
            connected: false,
            received: VecDeque::new(),
        }
    }

    /// What the client sends first.
    pub(crate) fn hello(mut self) -> Vec<u8> {
        let mut buffer = vec![0; RECORD_LEN_MAX];
        match self.dtls.poll_output(&mut buffer) {
            Output::Packet(packet) => packet.to_vec(),
            output => panic!("{output:?}"),
        }
    }

    pub(crate) fn shake_hands(&mut self) {
        let started = Instant::now();
        self.flush();
        while !self.connected {
            assert!(started.elapsed() < PATIENCE, "{:?}", self.dtls);
            self.step(STEP);
        }
    }

    /// Asks for the own address, again and again until there is an answer, which is right.
    pub(crate) fn ask(&mut self) {
        let started = Instant::now();
        let mut conversation = Client::new("", "", rand::random());
        let request = conversation.request(Request::Binding);
        let answer = loop {
            assert!(started.elapsed() < PATIENCE, "no answer");
            self.send(&request);
            let received = self.receive(RETRANSMIT_AFTER);
            if let Some(Event::Success(answer)) = received
                .as_deref()
                .map(|packet| conversation.handle(packet))
            {
                break answer;
            }
        };
        assert_eq!(answer.mapped, Some(self.socket.local_addr().unwrap()));
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.dtls.send_application_data(bytes).unwrap();
        self.flush();
    }

    /// The next thing received; `None` where there is nothing for so long.
    pub(crate) fn receive(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + patience;
        loop {
            if let Some(received) = self.received.pop_front() {
                return Some(received);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.step(left.min(STEP));
        }
    }

    /// Waits a moment for the server, and sends what is to be sent then.
    fn step(&mut self, patience: Duration) {
        let mut buffer = vec![0; RECORD_LEN_MAX];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let received = self.socket.recv(&mut buffer);
        self.dtls.handle_timeout(Instant::now()).unwrap();
        if let Ok(len) = received {
            self.dtls.handle_packet(&buffer[..len]).unwrap();
        }
        self.flush();
    }

    fn flush(&mut self) {
        let mut buffer = vec![0; RECORD_LEN_MAX];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => drop(self.socket.send(packet).unwrap()),
                Output::Connected => self.connected = true,
                Output::ApplicationData(data) => self.received.push_back(data.to_vec()),
                Output::Timeout(_) => break,
                _ => {}
            }
        }
    }
}
