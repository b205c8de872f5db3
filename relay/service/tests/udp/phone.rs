//! A relay on loopback and a client that shows every message as it comes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_service::{Config, Credentials, Handle, Relay, Secret, Stats};
use relay_stun::client::{AllocateOptions, Answer, Client, Event, Request};
use relay_stun::{ErrorCode, Icmp, STREAM_FRAME_LEN_MAX, next_frame};

const SECRET: &[u8] = b"a secret of the test";

/// How long something is waited for that is sure to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing is waited for.
const SILENCE: Duration = Duration::from_millis(100);

pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Handle {
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = Config {
        listen_udp: vec![loopback],
        listen_tcp: vec![loopback],
        peers_allow: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
        ..Config::default()
    };
    change(&mut config);
    Relay::start(&config, Credentials::new([Secret::new(SECRET)]), None, None).unwrap()
}

/// Waits for something that is sure to come.
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn stats(relay: &Handle) -> Stats {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(relay.stats())
}

pub(crate) enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

pub(crate) struct Phone {
    wire: Wire,
    pub(crate) conversation: Client,
}

/// What a client hears unasked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Data(SocketAddr, Vec<u8>),
    Channel(u16, Vec<u8>),
    Icmp(SocketAddr, Icmp),
}

impl Wire {
    pub(crate) fn udp(relay: &Handle) -> Wire {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(relay.udp_addresses()[0]).unwrap();
        Wire::Udp(socket)
    }

    pub(crate) fn tcp(relay: &Handle) -> Wire {
        let stream = TcpStream::connect(relay.tcp_addresses()[0]).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire::Tcp(stream, Vec::new())
    }
}

impl Phone {
    /// A client `name` of the Account `acme`.
    pub(crate) fn new(wire: Wire, name: &str) -> Phone {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (username, password) = Credentials::new([Secret::new(SECRET)])
            .issue(now + Duration::from_secs(60), "acme", name)
            .unwrap();
        Phone {
            wire,
            conversation: Client::new(&username, &password, rand::random()),
        }
    }

    pub(crate) fn ask(&mut self, request: Request) -> Result<Answer, ErrorCode> {
        let mut bytes = self.conversation.request(request);
        loop {
            self.write(&bytes);
            loop {
                let packet = self.read(PATIENCE).expect("an answer");
                match self.conversation.handle(&packet) {
                    Event::Success(answer) => return Ok(answer),
                    Event::Refused(code) => return Err(code),
                    Event::Retry(retry) => {
                        bytes = retry;
                        break;
                    }
                    _ => {} // Media, while we wait.
                }
            }
        }
    }

    pub(crate) fn allocate(&mut self, options: AllocateOptions) -> Answer {
        self.ask(Request::AllocateWith(options)).unwrap()
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) {
        let peers = vec![peer];
        self.ask(Request::CreatePermission { peers }).unwrap();
    }

    pub(crate) fn bind(&mut self, channel: u16, peer: SocketAddr) {
        self.ask(Request::ChannelBind { channel, peer }).unwrap();
    }

    pub(crate) fn send(&mut self, peer: SocketAddr, payload: &[u8]) {
        let bytes = self.conversation.send_indication(peer, payload).unwrap();
        self.write(&bytes);
    }

    pub(crate) fn send_whole(&mut self, peer: SocketAddr, payload: &[u8]) {
        let bytes = self.conversation.send_indication_whole(peer, payload);
        self.write(&bytes.unwrap());
    }

    pub(crate) fn send_channel(&mut self, channel: u16, payload: &[u8]) {
        self.write(&Client::channel_data(channel, payload).unwrap());
    }

    /// The next thing heard, which is waited for.
    pub(crate) fn hear(&mut self) -> Heard {
        self.hear_within(PATIENCE).expect("something to hear")
    }

    /// The next thing heard, if it is there.
    pub(crate) fn hears_now(&mut self) -> Option<Heard> {
        self.hear_within(Duration::from_millis(1))
    }

    /// The next thing heard, if it comes soon.
    pub(crate) fn hears_soon(&mut self) -> Option<Heard> {
        self.hear_within(SILENCE)
    }

    pub(crate) fn hears_nothing(&mut self) {
        assert_eq!(self.hear_within(SILENCE), None);
    }

    fn hear_within(&mut self, patience: Duration) -> Option<Heard> {
        loop {
            let packet = self.read(patience)?;
            return Some(match self.conversation.handle(&packet) {
                Event::Data { peer, payload } => Heard::Data(peer, payload.to_vec()),
                Event::Channel { channel, payload } => Heard::Channel(channel, payload.to_vec()),
                Event::Icmp { peer, icmp } => Heard::Icmp(peer, icmp),
                _ => continue,
            });
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        match &mut self.wire {
            Wire::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Wire::Tcp(stream, _) => {
                stream.write_all(bytes).unwrap();
                let padding = bytes.len().next_multiple_of(4) - bytes.len();
                stream.write_all(&[0; 3][..padding]).unwrap();
            }
        }
    }

    fn read(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_535];
        match &mut self.wire {
            Wire::Udp(socket) => {
                socket.set_read_timeout(Some(patience)).unwrap();
                let len = socket.recv(&mut buffer).ok()?;
                buffer.truncate(len);
                Some(buffer)
            }
            Wire::Tcp(stream, read) => {
                stream.set_read_timeout(Some(patience)).unwrap();
                loop {
                    if let Some(frame) = next_frame(read, STREAM_FRAME_LEN_MAX).unwrap() {
                        let packet = read[..frame.len].to_vec();
                        read.drain(..frame.consumed);
                        return Some(packet);
                    }
                    let len = stream.read(&mut buffer).ok().filter(|len| *len > 0)?;
                    read.extend_from_slice(&buffer[..len]);
                }
            }
        }
    }
}
