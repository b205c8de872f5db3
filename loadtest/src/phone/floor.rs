//! The least that could carry calls between phones: a thread that sends on what comes, and looks at nothing.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::engine::HERE;

/// What its thread is called.
pub(super) const NAME: &str = "floor";

/// It wakes up as often as the gateway's threads do: for each packet it would cost more, and be no floor.
const TURN: Duration = Duration::from_millis(5);

const READY_MAX: usize = 256;

/// A forwarder, which ends when it is dropped.
pub(super) struct Floor {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Floor {
    /// Forwards between each two ports of those that come back, to phones at `remote`.
    pub(super) fn start(calls: u16, remote: SocketAddr) -> anyhow::Result<(Self, Vec<u16>)> {
        let mut sockets = Vec::new();
        let mut ports = Vec::new();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for at in 0..u64::from(calls) * 2 {
            let socket = UdpSocket::bind((HERE, 0))?;
            socket.set_nonblocking(true)?;
            ports.push(socket.local_addr()?.port());
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, at))?;
            sockets.push(socket);
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || run(&epoll, &sockets, remote, &over))
            .context("no thread")?;
        let floor = Self {
            is_over,
            thread: Some(thread),
        };
        Ok((floor, ports))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Whether it did well is seen by what arrived.
        self.thread.take().map(JoinHandle::join);
    }
}

fn run(
    epoll: &Epoll,
    sockets: &[UdpSocket],
    remote: SocketAddr,
    is_over: &AtomicBool,
) -> anyhow::Result<()> {
    let mut ready = [EpollEvent::empty(); READY_MAX];
    let mut datagram = [0; 1_500];
    let mut next = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        loop {
            let count = epoll.wait(&mut ready, EpollTimeout::ZERO)?;
            if count == 0 {
                break;
            }
            for event in &ready[..count] {
                let at = usize::try_from(event.data())?;
                if let Ok((len, _)) = sockets[at].recv_from(&mut datagram) {
                    sockets[at ^ 1].send_to(&datagram[..len], remote).ok();
                }
            }
        }
        next += TURN;
        if let Some(wait) = next.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
        }
    }
    Ok(())
}
