//! Sets up what the load runs through: Allocations with a Channel each, or routes of the floor.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, bail, ensure};
use relay_stun::client::{Answer, Client, Event, Request};

use super::generator::End;
use super::rival::Running;
use crate::socket::{Socket, fresh_ip};

/// How often a request is sent before the server counts as dead.
const TRIES: u32 = 6;

/// The first Channel number (RFC 8656 §12).
const CHANNEL_FIRST: u16 = 0x4000;

/// A client with its Allocation.
struct Caller {
    socket: Socket,
    conversation: Client,
    relayed: SocketAddr,
}

/// Flows from a client to a peer of its own.
pub(super) fn toward_peers(
    server: &Running,
    count: usize,
    bursts: bool,
) -> anyhow::Result<Vec<[End; 2]>> {
    let flow = |channel| {
        let peer = Socket::bind((fresh_ip(), 0).into(), bursts)?;
        let to = peer.address()?;
        let (socket, relayed) = match server.kind.is_floor() {
            true => {
                let socket = connect(server, bursts)?;
                let relayed = introduce(&socket, &format!("peer {channel} {to}"))?;
                (socket, relayed)
            }
            false => {
                let mut caller = Caller::allocate(server, bursts)?;
                caller.bind_channel(channel, to)?;
                (caller.socket, caller.relayed)
            }
        };
        socket.set_blocking(false)?;
        peer.connect(relayed)?;
        Ok([end(socket, Some(channel)), end(peer, None)])
    };
    channels(count).map(flow).collect()
}

/// Flows from a client to another of the same server.
pub(super) fn between_clients(
    server: &Running,
    count: usize,
    bursts: bool,
) -> anyhow::Result<Vec<[End; 2]>> {
    let flow = |channel: u16| {
        let one = CHANNEL_FIRST + (channel - CHANNEL_FIRST) * 2;
        let other = one + 1;
        let (near, far) = match server.kind.is_floor() {
            true => {
                let (near, far) = (connect(server, bursts)?, connect(server, bursts)?);
                introduce(&near, &format!("pair {one} {other}"))?;
                introduce(&far, &format!("pair {other} {one}"))?;
                (near, far)
            }
            false => {
                let mut near = Caller::allocate(server, bursts)?;
                let mut far = Caller::allocate(server, bursts)?;
                near.bind_channel(one, far.relayed)?;
                far.bind_channel(other, near.relayed)?;
                (near.socket, far.socket)
            }
        };
        near.set_blocking(false)?;
        far.set_blocking(false)?;
        Ok([end(near, Some(one)), end(far, Some(other))])
    };
    channels(count).map(flow).collect()
}

/// Allocations that stay behind with a Permission and a Channel while their clients fall silent.
pub(super) fn leave_idle(server: &Running, count: usize) -> anyhow::Result<()> {
    for channel in channels(count) {
        let peer = SocketAddr::from((fresh_ip(), 40_000));
        if server.kind.is_floor() {
            introduce(&connect(server, false)?, &format!("peer {channel} {peer}"))?;
        } else {
            Caller::allocate(server, false)?.bind_channel(channel, peer)?;
        }
    }
    Ok(())
}

fn channels(count: usize) -> impl Iterator<Item = u16> {
    (CHANNEL_FIRST..).take(count)
}

fn end(socket: Socket, channel: Option<u16>) -> End {
    End {
        socket,
        channel,
        to: None,
    }
}

fn connect(server: &Running, bursts: bool) -> anyhow::Result<Socket> {
    let socket = Socket::bind((fresh_ip(), 0).into(), bursts)?;
    socket.connect(server.address)?;
    socket.set_blocking(true)?;
    Ok(socket)
}

/// Makes a route of the floor; returns where its peer finds it.
fn introduce(socket: &Socket, text: &str) -> anyhow::Result<SocketAddr> {
    let mut buffer = [0; 128];
    for _ in 0..TRIES {
        socket.plain().send(format!("\0{text}").as_bytes())?;
        if let Ok(len) = socket.plain().recv(&mut buffer) {
            return Ok(std::str::from_utf8(&buffer[..len])?.parse()?);
        }
    }
    bail!("the floor does not answer to `{text}`")
}

impl Caller {
    fn allocate(server: &Running, bursts: bool) -> anyhow::Result<Caller> {
        let socket = connect(server, bursts)?;
        let (username, password) = &server.credentials;
        let IpSeed(seed) = socket.address()?.into();
        let mut caller = Caller {
            socket,
            conversation: Client::new(username, password, seed),
            relayed: (Ipv4Addr::UNSPECIFIED, 0).into(),
        };
        let request = Request::Allocate {
            family: None,
            lifetime: None,
        };
        let answer = caller.ask(request).with_context(|| server.last_words())?;
        caller.relayed = answer.relayed.context("an Allocation without address")?;
        Ok(caller)
    }

    fn bind_channel(&mut self, channel: u16, peer: SocketAddr) -> anyhow::Result<()> {
        self.ask(Request::CreatePermission { peers: vec![peer] })?;
        self.ask(Request::ChannelBind { channel, peer }).map(drop)
    }

    fn ask(&mut self, request: Request) -> anyhow::Result<Answer> {
        let name = format!("{request:?}");
        let mut bytes = self.conversation.request(request);
        let mut buffer = [0; 2048];
        let mut silences = 0;
        self.socket.plain().send(&bytes)?;
        loop {
            let Ok(len) = self.socket.plain().recv(&mut buffer) else {
                silences += 1;
                ensure!(silences < TRIES, "no answer to {name}");
                self.socket.plain().send(&bytes)?;
                continue;
            };
            match self.conversation.handle(&buffer[..len]) {
                Event::Retry(again) => {
                    bytes = again;
                    self.socket.plain().send(&bytes)?;
                }
                Event::Success(answer) => return Ok(answer),
                Event::Refused(code) => bail!("{name} refused with {} {}", code.0, code.reason()),
                _ => {}
            }
        }
    }
}

/// What makes the transaction ids of a client differ from another's: its address and port.
struct IpSeed(u32);

impl From<SocketAddr> for IpSeed {
    fn from(address: SocketAddr) -> Self {
        let ip = match address {
            SocketAddr::V4(v4) => u32::from(*v4.ip()),
            SocketAddr::V6(_) => 0,
        };
        IpSeed(ip.rotate_left(16) ^ u32::from(address.port()))
    }
}
