//! The floor: a server that only sends on what it gets, to everybody but who sent it. No connections, no rewriting, no resends.
//!
//! Plain, it makes a call of the system for each packet and receiver. With bursts, it seals each packet (AES-128-GCM) and makes one
//! call for all that came at once, for each receiver. It runs as a child process, so that it is measured as the servers are; its
//! clients are as plain as it is.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use sfu_rtp::packet::{FixedHeader, HeaderWriter};
use sfu_rtp::srtp::{DtlsRole, OVERHEAD_MAX, Outbound, Profile, sessions};

use super::media::{
    self, AUDIO_INTERVAL, Camera, FRAME_INTERVAL, FRAME_PACKETS, VIDEO_PACKET_LEN, next_beat,
};
use super::tally::Delays;
use crate::socket::Socket;

/// Packets taken in before any leave.
const TURN: usize = 64;

/// The longest packet.
const PACKET_LEN_MAX: usize = 2048;

/// The bytes of an RTP header.
const HEADER_LEN: usize = 12;

/// Where in it the sequence number is.
const SEQUENCE: std::ops::Range<usize> = 2..4;

/// What a client says so that it is sent what others send; anything else of text is only answered.
const JOIN: &[u8] = b"\0join";
const HELLO: &[u8] = b"\0hello";

/// How often a client says so before the floor counts as dead.
const TRIES: usize = 20;

#[derive(Args)]
pub(crate) struct FloorArguments {
    /// The address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Seals, and sends what comes at once in one call for each receiver.
    #[arg(long)]
    bursts: bool,
}

/// Sends on until the process is ended.
pub(crate) fn run(arguments: &FloorArguments) -> anyhow::Result<()> {
    let mut floor = Floor {
        socket: Socket::bind(arguments.listen, false).context("can't listen")?,
        receivers: Vec::new(),
        sealed: Vec::new(),
    };
    let mut packets: Vec<([u8; PACKET_LEN_MAX], usize)> = vec![([0; PACKET_LEN_MAX], 0); TURN];
    loop {
        let mut events = [PollFd::new(
            std::os::fd::AsFd::as_fd(&floor.socket),
            PollFlags::POLLIN,
        )];
        poll(&mut events, PollTimeout::NONE)?;
        let mut count = 0;
        let mut sender = None;
        while count < TURN {
            let (buffer, len) = &mut packets[count];
            let from = match floor.socket.plain().recv_from(buffer) {
                Ok((got, from)) => {
                    *len = got;
                    from
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            if buffer[0] == 0 {
                let text = buffer[..*len].to_vec();
                floor.introduce(&text, from)?;
                continue;
            }
            if !arguments.bursts {
                floor.send_on(&buffer[..*len], from);
                continue;
            }
            if sender.is_some_and(|sender| sender != from) {
                // Another's begin with this one.
                floor.send_on_sealed(&packets[..count], sender)?;
                packets.swap(0, count);
                count = 0;
            }
            sender = Some(from);
            count += 1;
        }
        floor.send_on_sealed(&packets[..count], sender)?;
    }
}

struct Floor {
    socket: Socket,
    receivers: Vec<Receiver>,
    /// A burst for one receiver.
    sealed: Vec<u8>,
}

struct Receiver {
    address: SocketAddr,
    outbound: Outbound,
    index: u64,
}

impl Floor {
    fn introduce(&mut self, text: &[u8], from: SocketAddr) -> anyhow::Result<()> {
        if text == JOIN
            && self
                .receivers
                .iter()
                .all(|receiver| receiver.address != from)
        {
            let profile = Profile::AeadAes128Gcm;
            let seed = u8::try_from(self.receivers.len() % 256)?;
            let keys: Vec<u8> = (0..profile.keying_material_len()).map(|_| seed).collect();
            let (_, outbound) = sessions(profile, DtlsRole::Server, &keys)?;
            self.receivers.push(Receiver {
                address: from,
                outbound,
                index: 0,
            });
        }
        // Who hears nothing asks again.
        self.socket.plain().send_to(b"\0yes", from).ok();
        Ok(())
    }

    fn send_on(&self, packet: &[u8], from: SocketAddr) {
        for receiver in &self.receivers {
            if receiver.address != from {
                // A full socket loses the packet, as in any network.
                self.socket.plain().send_to(packet, receiver.address).ok();
            }
        }
    }

    fn send_on_sealed(
        &mut self,
        packets: &[([u8; PACKET_LEN_MAX], usize)],
        from: Option<SocketAddr>,
    ) -> anyhow::Result<()> {
        let Some((_, first_len)) = packets.first() else {
            return Ok(());
        };
        for receiver in &mut self.receivers {
            if Some(receiver.address) == from {
                continue;
            }
            let mut end = 0;
            let mut segment = 0;
            for (packet, len) in packets {
                ensure!(len == first_len, "packets of different lengths");
                self.sealed
                    .resize(self.sealed.len().max(end + len + OVERHEAD_MAX), 0);
                let space = &mut self.sealed[end..];
                space[..*len].copy_from_slice(&packet[..*len]);
                receiver.index += 1;
                space[SEQUENCE].copy_from_slice(&low(receiver.index).to_be_bytes());
                segment = receiver
                    .outbound
                    .seal_rtp(space, HEADER_LEN, *len, receiver.index)?;
                end += segment;
            }
            let parts = [IoSlice::new(&self.sealed[..end])];
            self.socket
                .send(&parts, u16::try_from(segment)?, Some(receiver.address))?;
        }
        Ok(())
    }
}

/// The sequence number of an index (RFC 3711 §3.3.1).
fn low(index: u64) -> u16 {
    (index & 0xFFFF) as u16
}

/// Whether a floor is there.
pub(super) fn answers(address: SocketAddr) -> anyhow::Result<bool> {
    let socket = UdpSocket::bind((address.ip(), 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.connect(address)?;
    // A port that is not yet open refuses.
    Ok(socket.send(HELLO).is_ok() && socket.recv(&mut [0; 16]).is_ok())
}

/// What the clients of a floor send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beat {
    pub(super) interval: Duration,
    /// Packets at once.
    pub(super) packets: usize,
    /// Bytes of each.
    pub(super) len: usize,
}

impl Beat {
    pub(super) const CAMERA: Beat = Beat {
        interval: FRAME_INTERVAL,
        packets: FRAME_PACKETS,
        len: VIDEO_PACKET_LEN,
    };
    pub(super) const THUMBNAIL: Beat = Beat {
        interval: FRAME_INTERVAL,
        packets: 1,
        len: 750,
    };
    pub(super) const MICROPHONE: Beat = Beat {
        interval: AUDIO_INTERVAL,
        packets: 1,
        len: 100,
    };
}

/// The clients of a floor: the first of them send, and all receive.
pub(super) struct Crowd {
    clients: Vec<Socket>,
    senders: usize,
    beat: Beat,
    epoll: Epoll,
    buffer: Vec<u8>,
    sequence: u16,
}

/// What a time of load came to.
pub(super) struct Passed {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) expected: u64,
    pub(super) delays: Delays,
}

impl Crowd {
    /// Clients at `ip`: so many that send, and behind them so many that only receive.
    pub(super) fn gather(
        floor: SocketAddr,
        ip: IpAddr,
        senders: usize,
        receivers: usize,
        beat: Beat,
    ) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        let mut clients = Vec::new();
        for number in 0..senders + receivers {
            let socket = Socket::bind((ip, 0).into(), false)?;
            socket.connect(floor)?;
            // With more than one sender everybody receives.
            if number >= senders || senders > 1 {
                join(&socket)?;
            }
            socket.set_blocking(false)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
            clients.push(socket);
        }
        Ok(Self {
            clients,
            senders,
            beat,
            epoll,
            buffer: vec![0; PACKET_LEN_MAX],
            sequence: 0,
        })
    }

    /// Sends for `time`, and then waits for what is under way.
    pub(super) fn run(&mut self, time: Duration) -> anyhow::Result<Passed> {
        /// How long a packet may be under way.
        const LINGER: Duration = Duration::from_millis(100);

        let began = Instant::now();
        let mut passed = Passed {
            sent: 0,
            received: 0,
            expected: 0,
            delays: Delays::new(),
        };
        let stagger =
            |number: usize| self.beat.interval * u32::try_from(number % 40).unwrap_or(0) / 40;
        let mut due: Vec<_> = (0..self.senders)
            .map(|number| began + stagger(number))
            .collect();
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            let now = Instant::now();
            if now > began + time + LINGER {
                break;
            }
            for (number, due) in due.iter_mut().enumerate() {
                if *due <= now && now < began + time {
                    *due = next_beat(*due, self.beat.interval, now);
                    self.send(number, &mut passed)?;
                }
            }
            let ready = match self.epoll.wait(&mut events, EpollTimeout::from(1u8)) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..ready] {
                if let Ok(at) = usize::try_from(event.data()) {
                    self.receive(at, &mut passed);
                }
            }
        }
        // Nobody gets one's own.
        passed.expected = passed.sent * (self.clients.len() - 1) as u64;
        Ok(passed)
    }

    fn send(&mut self, number: usize, passed: &mut Passed) -> anyhow::Result<()> {
        let mut camera = Camera::small((0, 0), self.beat.packets, self.beat.len - HEADER_LEN);
        camera.next_frame(Instant::now());
        for at in 0..self.beat.packets {
            self.sequence = self.sequence.wrapping_add(1);
            let mut packet = vec![0; HEADER_LEN];
            let fixed = FixedHeader {
                payload_type: 96,
                sequence_number: self.sequence,
                ssrc: u32::try_from(number)?,
                ..FixedHeader::default()
            };
            HeaderWriter::new(&mut packet, &fixed, &[])?.finish()?;
            packet.extend(camera.payload(at));
            // A full socket loses it.
            self.clients[number].plain().send(&packet).ok();
            passed.sent += 1;
        }
        Ok(())
    }

    fn receive(&mut self, at: usize, passed: &mut Passed) {
        while let Ok(len) = self.clients[at].plain().recv(&mut self.buffer) {
            passed.received += 1;
            // What is sealed tells nothing.
            if let Some(age) = media::age(&self.buffer[..len], media::clock()) {
                passed.delays.add(age);
            }
        }
    }
}

fn join(socket: &Socket) -> anyhow::Result<()> {
    socket.set_blocking(true)?;
    for _ in 0..TRIES {
        socket.plain().send(JOIN)?;
        if socket.plain().recv(&mut [0; 16]).is_ok() {
            return Ok(());
        }
    }
    anyhow::bail!("the floor does not answer")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// A floor that runs until the tests are over.
    fn start(bursts: bool) -> (SocketAddr, IpAddr) {
        let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        let listen = SocketAddr::new(ip, crate::pinned::free_port().unwrap());
        std::thread::spawn(move || run(&FloorArguments { listen, bursts }));
        let began = Instant::now();
        while !answers(listen).unwrap() {
            assert!(began.elapsed() < Duration::from_secs(20), "no floor");
            std::thread::sleep(Duration::from_millis(10));
        }
        (listen, ip)
    }

    #[test]
    fn a_floor_sends_on_to_everybody_but_the_sender() {
        for bursts in [false, true] {
            let (listen, ip) = start(bursts);
            let second = Duration::from_secs(1);
            let mut crowd = Crowd::gather(listen, ip, 1, 3, Beat::CAMERA).unwrap();
            let passed = crowd.run(second).unwrap();
            assert!(passed.sent >= 100, "{}", passed.sent);
            assert_eq!(passed.expected, 3 * passed.sent);
            assert_eq!(passed.received, passed.expected);
            // What is sealed does not tell how long it took.
            assert_eq!(passed.delays.percentile(50.0).is_nan(), bursts);
        }
    }

    #[test]
    fn who_sends_to_a_floor_gets_what_the_others_send() {
        for bursts in [false, true] {
            let (listen, ip) = start(bursts);
            let mut crowd = Crowd::gather(listen, ip, 4, 0, Beat::THUMBNAIL).unwrap();
            let passed = crowd.run(Duration::from_secs(1)).unwrap();
            assert_eq!(passed.expected, 3 * passed.sent);
            assert_eq!(passed.received, passed.expected);
        }
    }
}
