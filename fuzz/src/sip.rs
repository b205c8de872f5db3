//! What phones and providers can send to the gateway: SIP, SDP and digests.

use gateway_sip::digest::{Challenge, Credentials};
use gateway_sip::negotiate::{
    Capabilities, Codec, KEY_BYTES_LEN, Local, MasterKeyBytes, Security, accept, answer, offer,
};
use gateway_sip::sanity::{Framing, Incoming, check};
use gateway_sip::sdp::{Direction, Session};
use gateway_sip::stream::{Frame, Framer};
use gateway_sip::{HeaderName, Message, NameAddr, Response, StatusCode, Uri};

/// One message. What is taken is written so that it reads the same, an answer to it is taken itself, and no value makes a
/// header of its own.
pub(crate) fn sip_message(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        let again = Message::parse(&message.to_bytes()).expect("what we write, we read");
        assert_eq!(without_length(&again), without_length(&message));
    }
    match check(data, Framing::Datagram, "tag") {
        Ok(Incoming::Request(incoming)) => {
            let written = incoming.request.to_bytes();
            let Ok(Incoming::Request(again)) = check(&written, Framing::Stream, "tag") else {
                panic!("a request that was taken is taken again");
            };
            assert_eq!(again.envelope, incoming.envelope);
            assert_eq!(again.uri, incoming.uri);
            let response = Response::to(&incoming.request, StatusCode::OK, "tag");
            assert!(check(&response.to_bytes(), Framing::Stream, "tag").is_ok());
            assert!(incoming.uri.is_same(&incoming.uri));
        }
        Ok(Incoming::Response(incoming)) => {
            assert!(check(&incoming.response.to_bytes(), Framing::Stream, "tag").is_ok());
        }
        Err(unfit) => {
            if let Some(answer) = unfit.answer {
                assert!(Message::parse(&answer.to_bytes()).is_ok());
            }
        }
    }
}

fn without_length(message: &Message) -> Vec<(HeaderName, String)> {
    let lines = message
        .headers()
        .iter()
        .filter(|(name, _)| **name != HeaderName::ContentLength);
    lines
        .map(|(name, value)| (name.clone(), value.to_owned()))
        .collect()
}

/// Values of headers, one a line: each that is read is written so that it reads the same.
pub(crate) fn sip_values(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    for line in text.lines() {
        if let Ok(value) = NameAddr::parse(line, "To") {
            assert_eq!(
                NameAddr::parse(&value.to_string(), "To").as_ref(),
                Ok(&value)
            );
        }
        if let Ok(uri) = Uri::parse(line) {
            assert_eq!(Uri::parse(&uri.to_string()).as_ref(), Ok(&uri));
            assert!(uri.is_same(&uri));
        }
        if let Ok(Some(credentials)) = Credentials::parse(line) {
            assert_eq!(
                Credentials::parse(&credentials.to_value()),
                Ok(Some(credentials))
            );
        }
        let _ = std::hint::black_box(Challenge::parse(line, false));
    }
}

/// A TCP stream: the first byte says how it is cut. However it is, the same messages come out, each as long as
/// its Content-Length says, and no more is kept than one of them needs.
pub(crate) fn sip_stream(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let whole = frames(stream, stream.len().max(1));
    let parts = frames(stream, usize::from(cut).max(1));
    assert_eq!(whole, parts);
}

fn frames(stream: &[u8], step: usize) -> Vec<Vec<u8>> {
    let mut framer = Framer::new();
    let mut messages = Vec::new();
    for part in stream.chunks(step) {
        framer.push(part);
        loop {
            match framer.poll() {
                Ok(Some(Frame::Message(message))) => messages.push(message),
                Ok(Some(Frame::Ping | Frame::Pong)) => {}
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
    }
    messages
}

/// A description as an offer and as an answer. What we answer fits the offer; both sides agree on it.
pub(crate) fn sip_sdp(data: &[u8]) {
    let Ok(session) = Session::parse(data) else {
        return;
    };
    let again = Session::parse(session.to_string().as_bytes());
    assert_eq!(
        again.map(|again| again.media.len()),
        Ok(session.media.len())
    );
    for security in [Security::Accept, Security::Require] {
        let capabilities = Capabilities {
            codecs: vec![Codec::Opus, Codec::G722, Codec::Pcma, Codec::Pcmu],
            dtmf: true,
            comfort_noise: true,
            security,
        };
        let local = Local {
            address: [192, 0, 2, 1].into(),
            port: 4_000,
            session: 1,
            version: 1,
            key_bytes: MasterKeyBytes([7; KEY_BYTES_LEN].into()),
            fingerprint: Some(format!("sha-256 {}", ["AB"; 32].join(":"))),
            active: None,
        };
        let ours = offer(&capabilities, &local, Direction::SendRecv);
        let _ = std::hint::black_box(accept(&ours, &session, &capabilities));
        if let Ok((answer, agreed)) = answer(&session, &capabilities, &local, Direction::SendRecv) {
            assert_eq!(answer.media.len(), session.media.len());
            assert_eq!(
                answer.media.iter().filter(|media| media.port != 0).count(),
                1
            );
            assert!(
                agreed
                    .receiving
                    .iter()
                    .any(|(_, codec)| *codec == agreed.codec)
            );
            assert!(Session::parse(answer.to_string().as_bytes()).is_ok());
        }
    }
}
