//! Floods: what they take stays bounded, and who relays meanwhile loses nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "figures are shown")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relay_service::client::{Client, Source};
use relay_service::{Config, Credentials, Handle, Relay, Secret, StaticUser};
use relay_stun::{Class, MessageWriter, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

const STREAMS: u32 = 3000;

const STREAMS_PER_ADDRESS_MAX: usize = 10;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most a flood may leave behind: sockets' and allocator's, not the relay's.
const LEFT_BEHIND_MAX: usize = 24 << 20;

#[tokio::test]
async fn thousands_of_half_open_streams_harm_nobody() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let relay = start(|config| {
        config.streams_max = 2500;
        config.streams_per_address_max = STREAMS_PER_ADDRESS_MAX;
        config.stream_idle_seconds = 3;
        config.stream_message_seconds = 3;
    });
    let server = relay.tcp_addresses()[0];
    let traffic = Traffic::start(&relay).await;

    // Some say nothing, some begin a message, some a TLS handshake; from 200 addresses, each of which
    // wants more than it may have.
    let openings: [&[u8]; 3] = [b"", &[0, 1, 0, 8, 0x21], &[0x16, 3, 1, 2, 0, 1, 0]];
    let mut streams = Vec::new();
    for index in 0..STREAMS {
        let socket = TcpSocket::new_v4().unwrap();
        let ip = Ipv4Addr::from(0x7F20_0000 + 1 + index % 200);
        socket.bind((ip, 0).into()).unwrap();
        let mut stream = socket.connect(server).await.unwrap();
        // Who is over a limit is hung up on, which may be before it has written.
        stream.write_all(openings[index as usize % 3]).await.ok();
        streams.push(stream);
    }
    // A stranger from elsewhere is served meanwhile.
    let (username, password) = ("acme:door", "knock");
    let stream = TcpStream::connect(server).await.unwrap();
    let mut newcomer = Client::stream(stream, username, password);
    newcomer.allocate(None).await.unwrap();

    let began = Instant::now();
    for mut stream in streams {
        let mut said = Vec::new();
        // A reset ends it as well.
        timeout(PATIENCE, stream.read_to_end(&mut said))
            .await
            .unwrap()
            .ok();
        assert_eq!(said, b"");
    }
    assert!(began.elapsed() < PATIENCE);
    let sent = traffic.ends_without_loss().await;
    println!("{STREAMS} half-open streams, {sent} messages relayed meanwhile, 0 lost");
    relay.shutdown().await;
}

#[tokio::test]
async fn a_message_that_drips_is_not_waited_for() {
    let relay = start(|config| config.stream_message_seconds = 1);
    let stream = TcpStream::connect(relay.tcp_addresses()[0]).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let began = Instant::now();
    let drip = tokio::spawn(async move {
        for byte in request() {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut said = Vec::new();
    timeout(PATIENCE, read.read_to_end(&mut said))
        .await
        .unwrap()
        .ok();
    assert_eq!(said, b"");
    assert!(began.elapsed() < Duration::from_millis(3500)); // The whole message takes 4 s.
    drip.abort();
    relay.shutdown().await;
}

#[tokio::test]
async fn a_flood_of_strangers_leaves_nothing_behind_and_is_no_weapon() {
    const STRANGERS: u32 = 2000;
    const REQUESTS: usize = 25;

    let relay = start(|_| {});
    let server = relay.udp_addresses()[0];
    let traffic = Traffic::start(&relay).await;
    let request = request();

    let flood = async |networks: u32| {
        let mut answered = 0;
        let mut buffer = [0; 2048];
        for index in 0..STRANGERS {
            let ip = Ipv4Addr::from(0x7F40_0001 + (index % networks) * 256 + index / networks);
            let socket = UdpSocket::bind((ip, 0)).await.unwrap();
            for _ in 0..REQUESTS {
                socket.send_to(&request, server).await.unwrap();
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
            while let Ok(len) = socket.try_recv(&mut buffer) {
                answered += len + 28;
            }
        }
        answered
    };
    // The first one has the allocator and the threads take what they take once.
    flood(100).await;
    let before = resident();
    let answered = flood(100).await;
    let left = resident().saturating_sub(before);

    let asked = (request.len() + 28) * STRANGERS as usize * REQUESTS;
    println!("{asked} bytes asked, {answered} answered, {left} bytes left behind");
    assert!(
        answered > 0 && answered <= 3 * asked,
        "{answered} of {asked}"
    );
    assert!(left < LEFT_BEHIND_MAX, "{left}");
    assert_eq!(relay.stats().await.allocations, 2, "those of the traffic");
    traffic.ends_without_loss().await;
    relay.shutdown().await;
}

#[tokio::test]
async fn what_is_malformed_is_not_answered_and_leaves_nothing() {
    let relay = start(|_| {});
    let server = relay.udp_addresses()[0];
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let good = request();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let with_attribute = |kind: u16, len: u16, value: &[u8]| {
        let value = value.to_vec();
        changed(&move |bytes| {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(len.to_be_bytes());
            bytes.extend(&value);
            let len = u16::try_from(bytes.len() - 20).unwrap();
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
        })
    };
    let mut shorter = with_attribute(0x8022, 4, &[0; 4]);
    shorter[3] = 4;
    let mut silent = vec![
        changed(&|bytes| bytes[4] = 0),     // Cookie.
        changed(&|bytes| bytes[0] |= 0x80), // Leading bits.
        changed(&|bytes| bytes[2] = 0xFF),  // Longer than it is.
        shorter,
        changed(&|bytes| bytes[3] |= 3), // No multiple of four.
        changed(&|bytes| bytes.push(0)), // Something behind.
        with_attribute(0x8022, 0xFFFF, &[0; 4]), // Longer than the message.
        with_attribute(0x8022, 0xFFFC, &[0; 4]), // A length that would wrap.
        with_attribute(0x8022, 5, &[0; 4]), // Its padding is missing.
        with_attribute(0x8028, 4, &[0; 4]), // FINGERPRINT.
        changed(&|bytes| bytes[1] |= 0x10), // An indication nobody sends.
        changed(&|bytes| bytes[0] |= 0x01), // An answer to nothing.
        vec![0x40, 0, 0, 4, 1, 2, 3, 4], // A Channel of nobody.
        vec![0x40, 0, 0xFF, 0xFF, 1],    // And longer than it is.
        vec![0; 65_000],
        vec![0xFF; 65_000],
    ];
    silent.extend((0..good.len()).map(|len| good[..len].to_vec()));
    for bytes in &silent {
        socket.send_to(bytes, server).await.unwrap();
    }
    // The one that is right is the only one that is answered.
    socket.send_to(&good, server).await.unwrap();
    let mut buffer = [0; 2048];
    let (len, _) = timeout(PATIENCE, socket.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    let answer = relay_stun::Message::parse(&buffer[..len]).unwrap();
    assert_eq!(answer.class(), Class::Error);
    let more = timeout(Duration::from_millis(200), socket.recv_from(&mut buffer)).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(relay.stats().await.allocations, 0);
    relay.shutdown().await;
}

/// Two clients, over UDP and TCP, that send each other numbered messages until they are told to stop.
struct Traffic {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<u32>,
}

impl Traffic {
    async fn start(relay: &Handle) -> Traffic {
        let (username, password) = ("acme:door", "knock");
        let udp = relay.udp_addresses()[0];
        let mut alice = Client::udp(udp, username, password).await.unwrap();
        let stream = TcpStream::connect(relay.tcp_addresses()[0]).await.unwrap();
        let mut bob = Client::stream(stream, username, password);
        let at_alice = alice.allocate(None).await.unwrap().relayed.unwrap();
        let at_bob: SocketAddr = bob.allocate(None).await.unwrap().relayed.unwrap();
        alice.channel_bind(0x4000, at_bob).await.unwrap();
        bob.channel_bind(0x4000, at_alice).await.unwrap();
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut sent = 0_u32;
            while stopped.try_recv().is_err() {
                sent += 1;
                let message = sent.to_be_bytes();
                for (from, to) in [(0, 1), (1, 0)] {
                    let pair = [&mut alice, &mut bob];
                    pair[from].send_channel(0x4000, &message).await.unwrap();
                    let receiver = match to {
                        0 => &mut alice,
                        _ => &mut bob,
                    };
                    let received = timeout(PATIENCE, receiver.receive())
                        .await
                        .unwrap()
                        .unwrap();
                    assert_eq!(received.from, Source::Channel(0x4000));
                    assert_eq!(received.payload, message);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            sent * 2
        });
        Traffic { stop, task }
    }

    /// How many messages arrived, each before the next was sent.
    async fn ends_without_loss(self) -> u32 {
        self.stop.send(()).unwrap();
        let sent = self.task.await.unwrap();
        assert!(sent > 50, "{sent}");
        sent
    }
}

fn start(change: impl FnOnce(&mut Config)) -> Handle {
    let mut config = Config {
        listen_udp: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        listen_tcp: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        users: vec![StaticUser {
            name: "acme:door".to_owned(),
            password: "knock".to_owned(),
        }],
        ..Config::default()
    };
    change(&mut config);
    let credentials = Credentials::new([Secret::new("a secret of the test")]);
    Relay::start(&config, credentials, None, None).unwrap()
}

/// An Allocate request without anything.
fn request() -> Vec<u8> {
    let mut buffer = [0; 20];
    let writer = MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, [7; 12]);
    writer.finish().unwrap().to_vec()
}

/// The memory this process holds, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: usize = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}
