//! Thousands of DTLS clients that begin their handshake and never finish. Alone in its process, whose
//! memory is measured.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "figures are shown")]

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::common::Localhost;
use crate::common::dtls::{DtlsClient, ask_over_dtls, start};

mod common;

/// What the handshakes of all newcomers may take at once, in bytes.
const HALF_OPEN_BYTES_MAX: usize = 64 << 20;

#[test]
fn ten_thousand_half_open_handshakes_harm_nobody() {
    let relay = start(Some(Localhost::new().certificates())).unwrap();
    let server = relay.dtls_addresses()[0];
    let mut settled = DtlsClient::new(server);
    settled.shake_hands();
    let hello = DtlsClient::new(server).hello();
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
            settled.ask();
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

/// The memory this process holds, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let value = line.unwrap().split_whitespace().nth(1).unwrap();
    value.parse::<usize>().unwrap() << 10
}
