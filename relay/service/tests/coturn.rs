//! coturn's own client, `turnutils_uclient`, in front of the relay.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use relay_service::{Config, Credentials, Handle, Relay, Secret};

use crate::common::Localhost;

mod common;

const SECRET: &str = "a-secret-of-the-test";

/// How long the client may take, in seconds.
const CLIENT_SECONDS_MAX: &str = "120";

#[test]
fn uclient_loses_nothing_over_udp() {
    check(&["-c", "-X"]);
}

#[test]
fn uclient_loses_nothing_over_tcp() {
    check(&["-c", "-X", "-t"]);
}

#[test]
fn uclient_loses_nothing_over_tls() {
    check(&["-c", "-X", "-t", "-S"]);
}

#[test]
fn uclient_loses_nothing_over_dtls() {
    check(&["-c", "-X", "-S"]);
    check(&["-c", "-X", "-S", "-s"]);
    check(&["-c", "-X", "-S", "-y"]);
}

#[test]
fn uclient_loses_nothing_with_send_indications() {
    check(&["-c", "-X", "-s"]);
    check(&["-c", "-X", "-s", "-t"]);
}

#[test]
fn uclient_loses_nothing_from_client_to_client() {
    check(&["-c", "-X", "-y"]);
    check(&["-c", "-X", "-y", "-s"]);
    check(&["-c", "-X", "-y", "-t"]);
}

#[test]
fn uclient_loses_nothing_with_extra_requests() {
    check(&["-c", "-X", "-G"]);
}

#[test]
fn uclient_loses_nothing_while_it_moves() {
    check(&["-c", "-X", "-M"]);
    check(&["-c", "-X", "-M", "-s"]);
    check(&["-c", "-X", "-M", "-t"]);
}

/// Runs the client with `flags` against a relay and a peer of their own.
fn check(flags: &[&str]) {
    for tool in ["turnutils_uclient", "turnutils_peer"] {
        if Command::new(tool).arg("-h").output().is_err() {
            eprintln!("SKIPPED: {tool} is not installed (Debian package coturn)");
            return;
        }
    }
    let relay = start();
    let server = match (flags.contains(&"-S"), flags.contains(&"-t")) {
        (true, true) => relay.tls_addresses()[0],
        (true, false) => relay.dtls_addresses()[0],
        (_, true) => relay.tcp_addresses()[0],
        _ => relay.udp_addresses()[0],
    };
    let (_peer, peer_port) = Peer::start();

    let mut printed = run_client(flags, server.port(), peer_port);
    // It picks the numbers of an Allocation's two Channels at random, and one time in 16,384 the same twice.
    if printed.contains("channel bind: error 400") {
        printed = run_client(flags, server.port(), peer_port);
    }

    // Its exit code says nothing.
    assert!(
        printed.contains("Total lost packets 0 "),
        "{flags:?}:\n{printed}"
    );
    assert!(
        printed.contains("tot_recv_msgs=80\n"),
        "{flags:?}:\n{printed}"
    );
}

fn run_client(flags: &[&str], server_port: u16, peer_port: u16) -> String {
    // Over DTLS it waits for ever for an answer that got lost.
    let output = Command::new("timeout")
        .args([CLIENT_SECONDS_MAX, "turnutils_uclient"])
        .args(flags)
        .args(["-n", "20", "-m", "4", "-l", "170", "-z", "5"])
        .args(["-u", "acme:alice", "-W", SECRET])
        .args(["-p", &server_port.to_string()])
        .args(["-e", "127.0.0.1", "-r", &peer_port.to_string(), "127.0.0.1"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn start() -> Handle {
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        listen_udp: vec![loopback],
        listen_tcp: vec![loopback],
        listen_tls: vec![loopback],
        listen_dtls: vec![loopback],
        peers_allow: vec!["127.0.0.0/8".to_owned()],
        ..Config::default()
    };
    let localhost = Localhost::new();
    let certificates = localhost.certificates();
    let credentials = Credentials::new([Secret::new(SECRET)]);
    Relay::start(
        &config,
        credentials,
        Some(localhost.server),
        Some(certificates),
    )
    .unwrap()
}

/// coturn's echo peer; it ends with the test.
struct Peer(Child);

impl Peer {
    fn start() -> (Peer, u16) {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let peer = Command::new("turnutils_peer")
            .args(["-L", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let peer = Peer(peer);
        let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
        probe
            .set_read_timeout(Some(std::time::Duration::from_millis(50)))
            .unwrap();
        for _ in 0..100 {
            // A refused port fails at once, so the pause is the peer's to start in.
            if probe.send_to(b"x", ("127.0.0.1", port)).is_ok()
                && probe.recv_from(&mut [0; 8]).is_ok()
            {
                return (peer, port);
            }
        }
        panic!("turnutils_peer does not answer");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
