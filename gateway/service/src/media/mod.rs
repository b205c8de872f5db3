//! The sound of all Legs: threads with a clock and the sockets, around [`gateway_media::leg::Leg`].
//!
//! ```text
//! exchange ── Order ──▶ ┌─────────────────────────────────────┐
//!          ◀─ Event ─── │ thread: some Legs, every 5 ms a turn │ ◀─▶ RTP, RTCP ◀─▶ phones
//!                       └─────────────────────────────────────┘ ◀─▶ rings ◀─▶ Rooms
//! ```
//!
//! A Leg lives on one thread. What happens to its packets takes no lock and allocates nothing; orders and events are few.

mod dtls;
mod ports;
mod thread;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use foldhash::fast::RandomState;
use gateway_media::dtmf::Key;
use gateway_media::leg;
use gateway_media::player::Player;
use gateway_media::recorder::Tape;
use gateway_sip::negotiate::Agreed;
use model::TrackId;
use model::plain::{self, End};
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};
use sfu_rtp::rtcp::NtpTime;
use tokio::sync::mpsc;

use crate::sound::{Event, LegId, NoPort, Sound, To};
use dtls::Identity;
use thread::{Order, Thread};

/// How many orders may wait for a thread, which looks after them every 5 ms.
const ORDERS_MAX: usize = 4_096;

/// How the media is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The first port of RTP; RTCP has the next one.
    pub port_min: u16,
    /// The last port.
    pub port_max: u16,
    /// How many threads there are; 0: one for each core.
    pub threads: usize,
    /// How long nothing comes from a Leg that should send before that is told.
    pub silent_after: Duration,
}

/// The media of all Legs. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    fingerprint: String,
    threads: Vec<SyncSender<Order>>,
    /// Which thread a Leg is on, and how many each has.
    thread_by_leg: HashMap<LegId, usize, RandomState>,
    legs: Vec<usize>,
    /// Ends for Legs that are to hear others who hear them already: by who is to have it, and who has the other one.
    ends: HashMap<(LegId, LegId), End, RandomState>,
    rng: StdRng,
}

impl Engine {
    /// Starts the threads; `events` is where news go, which wait for room there.
    ///
    /// # Errors
    ///
    /// A range without a pair of ports, or a system that gives no thread, no epoll or no entropy.
    pub fn start(settings: Settings, events: &mpsc::Sender<Event>) -> anyhow::Result<Self> {
        ensure!(
            ports::pairs(&settings) > 0,
            "no pair of ports from {} to {}",
            settings.port_min,
            settings.port_max
        );
        let count = match settings.threads {
            0 => sockets::thread::cores().len().max(1),
            count => count,
        };
        let identity = Arc::new(Identity::new()?);
        let mut threads = Vec::new();
        for number in 0..count {
            let (orders, taken) = sync_channel(ORDERS_MAX);
            Thread::new(taken, events.clone(), identity.clone())?.spawn(number)?;
            threads.push(orders);
        }
        Ok(Self {
            settings,
            fingerprint: identity.fingerprint(),
            legs: vec![0; threads.len()],
            threads,
            thread_by_leg: HashMap::default(),
            ends: HashMap::default(),
            rng: StdRng::try_from_rng(&mut SysRng).context("no entropy from the system")?,
        })
    }

    fn order(&self, leg: LegId, order: Order) {
        if let Some(thread) = self.thread_by_leg.get(&leg)
            && self.threads[*thread].send(order).is_err()
        {
            tracing::error!("Media thread has ended");
        }
    }

    fn start_of_leg(&mut self) -> leg::Start {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        leg::Start {
            wall: NtpTime::from_unix(since_epoch.unwrap_or_default()),
            ssrc: self.rng.random(),
            sequence: self.rng.random(),
            timestamp: self.rng.random(),
            cname: format!("{:016x}", self.rng.random::<u64>()),
            silent_after: self.settings.silent_after,
        }
    }

    /// The end of a Leg that is to hear `other`: what that was given the other end of, or the first of a new pair.
    fn end_to(&mut self, leg: LegId, other: LegId) -> End {
        if let Some(end) = self.ends.remove(&(leg, other))
            && !end.is_closed()
        {
            return end;
        }
        // Both look at their clocks.
        let (own, others) = plain::pair(std::task::Waker::noop().clone());
        self.ends.insert((other, leg), others);
        own
    }
}

impl Sound for Engine {
    fn fingerprint(&self) -> Option<String> {
        Some(self.fingerprint.clone())
    }

    fn open(&mut self, leg: LegId, local: IpAddr) -> Result<u16, NoPort> {
        let (port, rtp, rtcp) = ports::bind(&self.settings, local, &mut self.rng).ok_or(NoPort)?;
        let counts = self.legs.iter().enumerate();
        let thread = counts.min_by_key(|(_, count)| **count).map(|(at, _)| at);
        let thread = thread.unwrap_or(0);
        self.legs[thread] += 1;
        self.thread_by_leg.insert(leg, thread);
        let start = Box::new(self.start_of_leg());
        self.order(
            leg,
            Order::Open {
                leg,
                rtp,
                rtcp,
                start,
            },
        );
        Ok(port)
    }

    fn agree(&mut self, leg: LegId, agreed: &Agreed) {
        self.order(leg, Order::Agree(leg, Box::new(agreed.clone())));
    }

    fn connect(&mut self, leg: LegId, to: To) {
        self.ends
            .retain(|(own, _), _| *own != leg || matches!(to, To::Leg(_)));
        let to = match to {
            To::Nobody => leg::To::Nothing,
            To::Room(end, track) => leg::To::Room(*end, track),
            To::Leg(other) => {
                let track = TrackId::from_u128(leg.0.into());
                leg::To::Leg(self.end_to(leg, other), track)
            }
            To::Ringback => leg::To::Ringback,
            To::Music => leg::To::Music,
            To::Play(list, number) => leg::To::Player(Box::new(Player::new(list)), number),
        };
        self.order(leg, Order::Connect(leg, to));
    }

    fn hand_over(&mut self, from: LegId, to: LegId) {
        if let Some(thread) = self.thread_by_leg.get(&to) {
            let heir = self.threads[*thread].clone();
            self.order(from, Order::HandOver(from, to, heir));
        }
    }

    fn key(&mut self, leg: LegId, key: char) {
        match Key::from_char(key) {
            Some(key) => self.order(leg, Order::Key(leg, key)),
            None => tracing::debug!("No key of a phone"),
        }
    }

    fn record(&mut self, leg: LegId, tape: Box<Tape>) {
        self.order(leg, Order::Record(leg, tape));
    }

    fn stop_recording(&mut self, leg: LegId) {
        self.order(leg, Order::StopRecording(leg));
    }

    fn close(&mut self, leg: LegId) {
        self.ends
            .retain(|(own, other), _| *own != leg && *other != leg);
        self.order(leg, Order::Close(leg));
        if let Some(thread) = self.thread_by_leg.remove(&leg) {
            self.legs[thread] -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
