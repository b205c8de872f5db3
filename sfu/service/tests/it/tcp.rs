//! Clients that can't send UDP.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use model::media::{MediaCommandKind, MediaEventKind};
use model::room::Source;
use sfu_service::Handle;

use crate::hostile::{binding, value};
use crate::stage::Stage;

/// Both ends of a stream, of which the SFU serves one.
fn stream_to(handle: &Handle) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, client) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let handle = handle.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let accepted = tokio::net::TcpStream::from_std(accepted).unwrap();
            handle.serve_stream(accepted, Bytes::new(), client).await;
        });
    });
    stream
}

#[test]
fn who_comes_over_tcp_hears_and_is_heard() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 1, 0);
    let stream = stream_to(&stage.handle);
    let bob = stage.join_as(&[Source::Microphone], 1, 0, |client| client.over(stream));
    for (from, to) in [(alice, bob), (bob, alice)] {
        for _ in 0..20 {
            stage.clients[from].send(0, b"over TCP", false, 960);
            stage.rest(Duration::from_millis(5));
        }
        stage.run("heard", |stage| stage.clients[to].received.len() >= 20);
    }

    // The stream ends, and some seconds later it is told that nobody is there.
    stage.clients[bob].rtc.disconnect();
    stage.clients[bob].hang_up();
    let id = stage.clients[bob].id;
    stage.next(
        |event| matches!(event, MediaEventKind::Disconnected { participant } if *participant == id),
    );

    // What can't be sent to him isn't made for him.
    let before = stage.figures();
    for _ in 0..20 {
        stage.clients[alice].send(0, b"still there?", false, 960);
        stage.rest(Duration::from_millis(1));
    }
    stage.run("received", |stage| {
        stage.figures().rooms_counted.received >= before.rooms_counted.received + 20
    });
    let forwarded = stage.figures().rooms_counted.forwarded;
    assert_eq!(forwarded, before.rooms_counted.forwarded);
}

/// Whether the server has ended a stream.
fn has_ended(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

fn frame(datagram: &[u8]) -> Vec<u8> {
    let len = u16::try_from(datagram.len()).unwrap();
    [&len.to_be_bytes()[..], datagram].concat()
}

#[test]
fn streams_end_with_whose_they_are() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 1, 0);
    let bob = stage.join(&[Source::Microphone], 1, 0);
    let client = &mut stage.clients[bob];
    let own = client.rtc.direct_api().local_ice_credentials();
    let user = format!("{}:{}", value(&client.answer, "a=ice-ufrag:"), own.ufrag);
    let signed = binding(&user, value(&client.answer, "a=ice-pwd:"));
    let open = |stage: &mut Stage, first: &[u8]| {
        let mut stream = stream_to(&stage.handle);
        stream.write_all(&frame(first)).unwrap();
        stream
    };

    // One that proves nothing is nobody's.
    let mut stream = open(&mut stage, &binding(&user, "guessed"));
    stage.run("the unproven one ends", |_| has_ended(&mut stream));

    // More than are known of one Participant at once: the oldest end.
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = open(&mut stage, &signed);
        stage.run("answered", |_| {
            stream.set_nonblocking(true).unwrap();
            matches!(stream.read(&mut [0; 4096]), Ok(1..))
        });
        streams.push(stream);
    }
    stage.run("the first end", |_| streams[..2].iter_mut().all(has_ended));
    assert!(!has_ended(&mut streams[9]));

    // Frames too short to be anything are nothing to the shard.
    let before = stage.figures().packets_in;
    streams[9].set_nonblocking(false).unwrap();
    streams[9].write_all(&[0; 20_000]).unwrap();
    streams[9].write_all(&frame(&signed)).unwrap();
    stage.run("the next is heard", |stage| {
        stage.figures().packets_in > before
    });
    assert!(stage.figures().packets_in < before + 1000);

    stage.command(MediaCommandKind::Leave {
        participant: stage.clients[bob].id,
    });
    stage.run("all end", |_| streams.iter_mut().all(has_ended));
    stage.clients[alice].send(0, b"all gone", false, 960);
    assert_eq!(stage.figures().panics, 0);
}

#[test]
fn a_stream_for_nobody_here_ends_at_once() {
    let stage = Stage::new();
    let check = |bytes: &[u8]| {
        let mut stream = stream_to(&stage.handle);
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(bytes).unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0, "{bytes:?}");
    };
    check(&[0xFF, 0xFF, 0, 1]);
    check(&[0, 4, 1, 2, 3, 4]);
    let mut request = vec![0, 20, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    request.resize(22, 7);
    check(&request);
}
