//! DTLS clients of the relay: one that shakes hands, and many that never finish.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "figures are shown")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Dtls, DtlsCertificate, Output};
use relay_service::{Certificate, Certificates, Config, Credentials, Handle, Relay, Secret};
use relay_stun::client::{Client, Event, Request};

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the handshakes of all newcomers may take at once, in bytes.
const HALF_OPEN_BYTES_MAX: usize = 64 << 20;

/// A client that speaks DTLS.
struct Phone {
    socket: UdpSocket,
    dtls: Dtls,
    connected: bool,
    received: Option<Vec<u8>>,
}

impl Phone {
    fn new(server: SocketAddr) -> Phone {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server).unwrap();
        Phone::at(socket)
    }

    fn at(socket: UdpSocket) -> Phone {
        let pause = Duration::from_millis(50);
        socket.set_read_timeout(Some(pause)).unwrap();
        let mut dtls = Dtls::new_12(
            Arc::new(dimpl::Config::default()),
            own_certificate(),
            Instant::now(),
        );
        dtls.set_active(true);
        dtls.handle_timeout(Instant::now()).unwrap();
        Phone {
            socket,
            dtls,
            connected: false,
            received: None,
        }
    }

    /// Sends what is to be sent, then waits a moment for an answer.
    fn step(&mut self) {
        let mut buffer = vec![0; 4096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => drop(self.socket.send(packet).unwrap()),
                Output::Connected => self.connected = true,
                Output::ApplicationData(data) => self.received = Some(data.to_vec()),
                Output::Timeout(_) => break,
                _ => {}
            }
        }
        let received = self.socket.recv(&mut buffer);
        self.dtls.handle_timeout(Instant::now()).unwrap();
        if let Ok(len) = received {
            self.dtls.handle_packet(&buffer[..len]).unwrap();
        }
    }

    fn step_until(&mut self, done: impl Fn(&Phone) -> bool) {
        let started = Instant::now();
        while !done(self) {
            assert!(started.elapsed() < PATIENCE, "{:?}", self.dtls);
            self.step();
        }
    }

    /// What the client sends first.
    fn hello(mut self) -> Vec<u8> {
        let mut buffer = vec![0; 4096];
        match self.dtls.poll_output(&mut buffer) {
            Output::Packet(packet) => packet.to_vec(),
            output => panic!("{output:?}"),
        }
    }
}

fn own_certificate() -> DtlsCertificate {
    let Certificate {
        certificate,
        private_key,
    } = certificate();
    DtlsCertificate {
        certificate,
        private_key,
    }
}

fn certificate() -> Certificate {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Certificate {
        certificate: cert.der().to_vec(),
        private_key: signing_key.serialize_der(),
    }
}

fn start(certificates: Option<Certificates>) -> anyhow::Result<Handle> {
    let config = Config {
        listen_udp: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        listen_tcp: Vec::new(),
        listen_dtls: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        ..Config::default()
    };
    let credentials = Credentials::new([Secret::new("a secret of the test")]);
    Relay::start(&config, credentials, None, certificates)
}

fn start_with_certificate() -> Handle {
    let certificate = certificate();
    start(Some(Arc::new(move || Some(certificate.clone())))).unwrap()
}

/// Shakes hands and asks for the own address.
fn ask_over_dtls(relay: &Handle) {
    let mut phone = Phone::new(relay.dtls_addresses()[0]);
    phone.step_until(|phone| phone.connected);
    ask(&mut phone);
}

/// Asks for the own address.
fn ask(phone: &mut Phone) {
    let mut conversation = Client::new("", "", 1);
    let request = conversation.request(Request::Binding);
    phone.dtls.send_application_data(&request).unwrap();
    phone.step_until(|phone| phone.received.is_some());

    let received = phone.received.take().unwrap();
    let Event::Success(answer) = conversation.handle(&received) else {
        panic!("{received:?}");
    };
    assert_eq!(answer.mapped, Some(phone.socket.local_addr().unwrap()));
}

#[test]
fn a_client_shakes_hands_and_is_answered() {
    ask_over_dtls(&start_with_certificate());
}

#[test]
fn a_client_that_forgot_its_session_begins_another_from_the_same_address() {
    let relay = start_with_certificate();
    let mut phone = Phone::new(relay.dtls_addresses()[0]);
    for _ in 0..3 {
        phone.step_until(|phone| phone.connected);
        ask(&mut phone);
        // The program ends without a word, and its successor gets the same port.
        phone = Phone::at(phone.socket);
    }
}

#[test]
fn a_forged_hello_is_no_harm_to_the_session_of_its_address() {
    let relay = start_with_certificate();
    let server = relay.dtls_addresses()[0];
    let mut phone = Phone::new(server);
    phone.step_until(|phone| phone.connected);
    for _ in 0..3 {
        // From the same address: the server can't tell it from a forged one.
        phone.socket.send(&Phone::new(server).hello()).unwrap();
        ask(&mut phone);
    }
}

#[test]
fn ten_thousand_half_open_handshakes_harm_nobody() {
    let relay = start_with_certificate();
    let server = relay.dtls_addresses()[0];
    let mut settled = Phone::new(server);
    settled.step_until(|phone| phone.connected);
    let hello = Phone::new(server).hello();
    let (mut answers, mut asked) = (0, 0);
    let before = resident();
    for index in 0..10_000_u32 {
        let ip = Ipv4Addr::from(0x7F10_0000 + index);
        let stranger = UdpSocket::bind((ip, 0)).unwrap();
        stranger.send_to(&hello, server).unwrap();
        if index % 100 == 0 {
            let pause = Duration::from_millis(200);
            stranger.set_read_timeout(Some(pause)).unwrap();
            let mut buffer = [0; 2048];
            if let Ok(len) = stranger.recv(&mut buffer) {
                answers += 1;
                assert!(len < hello.len(), "a stranger is sent less than it sent");
            }
            ask(&mut settled);
            asked += 1;
        }
    }
    let taken = resident().saturating_sub(before);
    println!(
        "10000 half-open handshakes took {taken} bytes, {asked} of {asked} questions answered"
    );
    assert!(answers > 0, "a newcomer is asked for its cookie");
    assert!(taken < HALF_OPEN_BYTES_MAX, "{taken}");

    ask_over_dtls(&relay);
}

#[test]
fn an_old_version_is_refused_at_once() {
    let relay = start_with_certificate();
    let mut hello = Phone::new(relay.dtls_addresses()[0]).hello();
    hello[25..27].copy_from_slice(&[254, 255]);
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    stranger.send_to(&hello, relay.dtls_addresses()[0]).unwrap();

    let mut alert = [0; 100];
    let len = stranger.recv(&mut alert).unwrap();
    // A fatal alert, protocol_version (RFC 5246 §7.2).
    assert_eq!((alert[0], &alert[11..len]), (21, &[0, 2, 2, 70][..]));
}

#[test]
fn garbage_makes_no_session() {
    let relay = start_with_certificate();
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut hello = Phone::new(relay.dtls_addresses()[0]).hello();
    for len in [0, 1, 12, 13, 14, 25, hello.len() - 1] {
        stranger
            .send_to(&hello[..len], relay.dtls_addresses()[0])
            .unwrap();
    }
    for at in 0..hello.len() {
        hello[at] ^= 0xFF;
        stranger.send_to(&hello, relay.dtls_addresses()[0]).unwrap();
        hello[at] ^= 0xFF;
    }
    ask_over_dtls(&relay);
}

#[test]
fn an_address_needs_a_certificate_that_fits() {
    let refused = |certificates| format!("{:#}", start(certificates).unwrap_err());
    assert!(refused(None).contains("no certificate"));

    let mut wrong = certificate();
    wrong.private_key.truncate(10);
    let message = refused(Some(Arc::new(move || Some(wrong.clone()))));
    assert!(message.contains("no ECDSA key"), "{message}");
}

/// The memory this process holds, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let value = line.unwrap().split_whitespace().nth(1).unwrap();
    value.parse::<usize>().unwrap() << 10
}
