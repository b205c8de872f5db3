//! The closed loop: flows that send a burst, wait until all of it came back, and send the next.
//!
//! ```text
//! near end ──▶ server ──▶ far end      a pass: one message in, one message out
//! near end ◀── server ◀── far end
//! ```
//!
//! A far end is a plain peer, or another client of the same server. It answers a burst once it has all of it, so that
//! every server gets the same input in both directions, whether or not it hands bursts on as such.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::floor::{HEADER_LEN, header, len_of};
use crate::socket::{RECEIVED_LEN_MAX, Socket};

/// How long a burst may take before what is missing counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(250);

/// How often lost bursts are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The bytes at the start of a payload that tell whose it is: flow and burst.
const STAMP_LEN: usize = 8;

/// What is sent, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Bytes of a payload.
    pub(super) size: usize,
    /// Messages sent in one call.
    pub(super) burst: usize,
    /// Messages under way at once, in all flows.
    pub(super) window: usize,
    /// Bursts begun per second; without it, as many as come back.
    pub(super) rate: Option<f64>,
}

/// One side of a flow.
pub(super) struct End {
    /// Its socket.
    pub(super) socket: Socket,
    /// The channel its messages carry in front; a plain peer has none.
    pub(super) channel: Option<u16>,
    /// Where to send to, where the socket is not connected.
    pub(super) to: Option<SocketAddr>,
}

struct Flow {
    ends: [End; 2],
    /// The burst under way.
    burst: u32,
    /// What each end has of it.
    received: [usize; 2],
    began: Option<Instant>,
    /// When the far end had all of it and answered.
    answered: Instant,
}

/// What a time of load came to.
#[derive(Debug, Default, Clone)]
pub(super) struct Outcome {
    /// Messages that went through the server.
    pub(super) passes: u64,
    /// Messages that did not arrive.
    pub(super) lost: u64,
    /// Messages that were due and not sent: every flow waited for the server, which had stopped for a moment.
    pub(super) held_back: u64,
    /// From the beginning of bursts until all of them was back, sorted.
    pub(super) round_trips: Vec<Duration>,
    /// The same from the near end to the far one, and from there back.
    pub(super) ways: [Vec<Duration>; 2],
}

/// Drives the flows through one server.
pub(super) struct Generator {
    flows: Vec<Flow>,
    epoll: Epoll,
    /// The flow whose turn is next.
    next: usize,
    active: usize,
    buffer: Vec<u8>,
    payload: Vec<u8>,
}

impl Generator {
    pub(super) fn new(ends: Vec<[End; 2]>) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        for (at, ends) in ends.iter().enumerate() {
            for (side, end) in ends.iter().enumerate() {
                let token = (at * 2 + side) as u64;
                epoll.add(&end.socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            }
        }
        let flow = |ends| Flow {
            ends,
            burst: 0,
            received: [0; 2],
            began: None,
            answered: Instant::now(),
        };
        Ok(Self {
            flows: ends.into_iter().map(flow).collect(),
            epoll,
            next: 0,
            active: 0,
            buffer: vec![0; RECEIVED_LEN_MAX],
            payload: Vec::new(),
        })
    }

    /// Sends for `time`, and then waits for what is under way.
    pub(super) fn run(&mut self, load: Load, time: Duration) -> io::Result<Outcome> {
        let began = Instant::now();
        let end = began + time;
        let pause = load.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let mut due = began;
        let mut look = began + LOOK_EVERY;
        let mut outcome = Outcome::default();
        let mut events = vec![EpollEvent::empty(); 256];
        self.payload = vec![0; load.size * load.burst];

        loop {
            let now = Instant::now();
            match pause {
                None if now < end => {
                    let flows_max = (load.window / load.burst).clamp(1, self.flows.len());
                    while self.active < flows_max && self.begin(load, now)? {}
                }
                Some(pause) => {
                    while due <= now && due < end {
                        // What was missed is not made up for: that would come as a burst.
                        due = (due + pause).max(now);
                        if !self.begin(load, now)? {
                            outcome.held_back += load.burst as u64;
                        }
                    }
                }
                None => {}
            }
            if now >= look {
                look = now + LOOK_EVERY;
                self.give_up(load, now, &mut outcome);
            }
            if self.active == 0 && now >= end {
                break;
            }
            // A paced run watches the clock itself: no timer of the system is that exact.
            let timeout = match pause {
                Some(_) => EpollTimeout::ZERO,
                None => EpollTimeout::from(1u8),
            };
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..ready] {
                if let Ok(token) = usize::try_from(event.data()) {
                    self.receive(token / 2, token % 2, load, &mut outcome)?;
                }
            }
        }
        outcome.round_trips.sort_unstable();
        outcome.ways.iter_mut().for_each(|way| way.sort_unstable());
        Ok(outcome)
    }

    /// Begins a burst on the next idle flow; `false` where none is idle.
    fn begin(&mut self, load: Load, now: Instant) -> io::Result<bool> {
        for _ in 0..self.flows.len() {
            let at = self.next;
            self.next = (at + 1) % self.flows.len();
            let flow = &mut self.flows[at];
            if flow.began.is_none() {
                flow.burst = flow.burst.wrapping_add(1);
                flow.received = [0; 2];
                flow.began = Some(now);
                self.active += 1;
                self.send(at, 0, load)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn send(&mut self, at: usize, side: usize, load: Load) -> io::Result<()> {
        let flow = &self.flows[at];
        let stamp = stamp(at, flow.burst);
        for message in self.payload.chunks_mut(load.size) {
            message[..STAMP_LEN].copy_from_slice(&stamp);
        }
        let end = &flow.ends[side];
        let header = end.channel.map(|channel| header(channel, load.size));
        let head = header.as_ref().map_or(&[][..], |header| &header[..]);
        let parts: Vec<_> = self
            .payload
            .chunks(load.size)
            .flat_map(|message| [IoSlice::new(head), IoSlice::new(message)])
            .collect();
        // What a full socket refuses is found missing later.
        end.socket
            .send(&parts, len_of(head.len() + load.size), end.to)
            .map(drop)
    }

    fn receive(
        &mut self,
        at: usize,
        side: usize,
        load: Load,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        loop {
            let flow = &mut self.flows[at];
            let end = &flow.ends[side];
            let Some(received) = end.socket.receive(&mut self.buffer)? else {
                return Ok(());
            };
            let stamp = stamp(at, flow.burst);
            let head_len = end.channel.map_or(0, |_| HEADER_LEN);
            for message in self.buffer[..received.len].chunks(received.segment) {
                let is_ours = message.len() >= head_len + load.size
                    && message[head_len..head_len + STAMP_LEN] == stamp
                    && flow.began.is_some();
                if is_ours {
                    flow.received[side] += 1;
                    outcome.passes += 1;
                }
            }
            if flow.received[side] < load.burst {
                continue;
            }
            let now = Instant::now();
            if side == 1 {
                flow.received[side] = 0; // Nothing more of this burst comes here.
                flow.answered = now;
                outcome.ways[0].extend(flow.began.map(|began| now - began));
                self.send(at, 1, load)?;
            } else if let Some(began) = flow.began.take() {
                outcome.ways[1].push(now - flow.answered);
                outcome.round_trips.push(now - began);
                self.active -= 1;
            }
        }
    }

    fn give_up(&mut self, load: Load, now: Instant, outcome: &mut Outcome) {
        for flow in &mut self.flows {
            if flow.began.is_some_and(|began| now > began + LOST_AFTER) {
                flow.began = None;
                self.active -= 1;
                outcome.lost += (load.burst - flow.received[0]) as u64;
            }
        }
    }
}

fn stamp(flow: usize, burst: u32) -> [u8; STAMP_LEN] {
    (((flow as u64) << 32) | u64::from(burst)).to_be_bytes()
}
