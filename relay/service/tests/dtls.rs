//! DTLS clients of the relay: those that shake hands, and those that can't.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use relay_service::Handle;

use crate::common::dtls::{DtlsClient, ask_over_dtls, start};
use crate::common::{Localhost, self_signed};

mod common;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_client_shakes_hands_and_is_answered() {
    ask_over_dtls(&start_with_certificate());
}

#[test]
fn a_client_that_forgot_its_session_begins_another_from_the_same_address() {
    let relay = start_with_certificate();
    let mut phone = DtlsClient::new(relay.dtls_addresses()[0]);
    for _ in 0..3 {
        phone.shake_hands();
        phone.ask();
        // The program ends without a word, and its successor gets the same port.
        phone = DtlsClient::at(phone.socket);
    }
}

#[test]
fn a_forged_hello_is_no_harm_to_the_session_of_its_address() {
    let relay = start_with_certificate();
    let server = relay.dtls_addresses()[0];
    let mut phone = DtlsClient::new(server);
    phone.shake_hands();
    for _ in 0..3 {
        // From the same address: the server can't tell it from a forged one.
        phone.socket.send(&DtlsClient::new(server).hello()).unwrap();
        phone.ask();
    }
}

#[test]
fn an_old_version_is_refused_at_once() {
    let relay = start_with_certificate();
    let mut hello = DtlsClient::new(relay.dtls_addresses()[0]).hello();
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
    let mut hello = DtlsClient::new(relay.dtls_addresses()[0]).hello();
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

    let mut wrong = self_signed();
    wrong.private_key.truncate(10);
    let message = refused(Some(Arc::new(move || Some(wrong.clone()))));
    assert!(message.contains("no ECDSA key"), "{message}");
}

fn start_with_certificate() -> Handle {
    start(Some(Localhost::new().certificates())).unwrap()
}
