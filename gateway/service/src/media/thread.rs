//! A thread of the media: some Legs, their sockets and a clock.
//!
//! It wakes up every 5 ms, at times that are the same for all its Legs: takes in what came, and lets those go on whose 20 ms are over, a
//! quarter of them at a time. Waking up for each packet would cost more than what is done with it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::Context;
use foldhash::fast::RandomState;
use gateway_media::clock::Clock;
use gateway_media::dtmf::Key;
use gateway_media::leg::{self, Drop, Drops, Leg, Port};
use gateway_media::recorder::Tape;
use gateway_sip::negotiate::Agreed;
use metrics::{counter, gauge};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use sfu_rtp::{DatagramKind, classify};
use slab::Slab;
use tokio::sync::mpsc;

use super::dtls::{Handshake, Identity, Next};
use crate::sound::{Event, EventKind, LegId, MediaFigures};

/// How often the thread wakes up while it has Legs.
const TURN: Duration = Duration::from_millis(5);

/// Into how many parts Legs are spread over 20 ms.
const PARTS: u32 = 4;

/// How many sockets one call tells about.
const READY_MAX: usize = 256;

/// The longest datagram that is looked at; none of sound is longer.
const DATAGRAM_LEN_MAX: usize = 1_500;

/// How many datagrams are taken in in a turn: more than 2,000 Legs send.
const DATAGRAMS_PER_TURN_MAX: usize = 4_096;

/// How often figures are published.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);

/// What a thread is told.
pub(super) enum Order {
    Open {
        leg: LegId,
        rtp: UdpSocket,
        rtcp: UdpSocket,
        start: Box<leg::Start>,
    },
    Agree(LegId, Box<Agreed>),
    Connect(LegId, leg::To),
    /// What the first is in its Room goes to the second, which the thread behind the channel has.
    HandOver(LegId, LegId, SyncSender<Order>),
    Key(LegId, Key),
    Record(LegId, Box<Tape>),
    StopRecording(LegId),
    Close(LegId),
}

/// What the thread owns.
pub(super) struct Thread {
    orders: Receiver<Order>,
    events: mpsc::Sender<Event>,
    identity: Arc<Identity>,
    /// Events that wait for room.
    outbox: VecDeque<Event>,
    epoll: Epoll,
    seats: Slab<Seat>,
    seat_by_leg: HashMap<LegId, usize, RandomState>,
    /// When each is due next.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    next: Instant,
    opened: u32,
    counted: Counted,
    published_at: Instant,
}

/// A Leg and its sockets.
struct Seat {
    id: LegId,
    leg: Leg,
    keys: Handshake,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    clock: Clock,
}

/// What is counted between two publications.
#[derive(Default)]
struct Counted {
    packets_in: u64,
    packets_out: u64,
    unsent: u64,
    frames_late: u64,
    drops: Drops,
}

impl Thread {
    pub(super) fn new(
        orders: Receiver<Order>,
        events: mpsc::Sender<Event>,
        identity: Arc<Identity>,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            orders,
            events,
            identity,
            outbox: VecDeque::new(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("no epoll")?,
            seats: Slab::new(),
            seat_by_leg: HashMap::default(),
            due: BinaryHeap::new(),
            next: now,
            opened: 0,
            counted: Counted::default(),
            published_at: now,
        })
    }

    pub(super) fn spawn(self, number: usize) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(format!("media-{number}"));
        thread.spawn(move || self.run())?;
        Ok(())
    }

    fn run(mut self) {
        while self.obey() {
            let now = Instant::now();
            if let Some(wait) = self.next.checked_duration_since(now) {
                std::thread::sleep(wait);
            }
            // One time for all that happens in a turn.
            let now = Instant::now();
            self.receive(now);
            self.pass_on(now);
            self.let_go_on(now);
            self.flush();
            if now.saturating_duration_since(self.published_at) >= FIGURES_INTERVAL {
                self.published_at = now;
                self.publish();
            }
            // Turns that were missed are not made up for: each Leg knows its own time.
            let late = now.saturating_duration_since(self.next).as_nanos() / TURN.as_nanos();
            self.next += TURN * (u32::try_from(late).unwrap_or(u32::MAX - 1) + 1);
        }
    }

    /// Does what is asked for; waits for that while there is nothing else. `false` when nobody can ask any more.
    fn obey(&mut self) -> bool {
        if self.seats.is_empty() && self.outbox.is_empty() {
            self.publish();
            match self.orders.recv() {
                Ok(order) => self.carry_out(order),
                Err(_) => return false,
            }
            self.next = Instant::now();
        }
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.carry_out(order),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Open {
                leg,
                rtp,
                rtcp,
                start,
            } => {
                if let Err(error) = self.open(now, leg, rtp, rtcp, *start) {
                    tracing::error!(%error, "Sockets of a Leg are not watched");
                    self.outbox.push_back(closed(leg, MediaFigures::default()));
                }
            }
            Order::Agree(leg, agreed) => {
                if let Some(at) = self.seat_by_leg.get(&leg).copied() {
                    let identity = self.identity.clone();
                    self.with_keys(now, at, |keys, send| {
                        keys.agree(now, &identity, agreed, send)
                    });
                }
            }
            Order::Connect(leg, to) => {
                self.with(leg, |seat| seat.leg.connect(to));
            }
            Order::HandOver(from, to, heir) => {
                let place = self.with(from, |seat| seat.leg.give_up_place());
                let order = place.flatten().map(leg::To::Place);
                let order = order.map(|to_place| Order::Connect(to, to_place));
                // A thread that waits for another could be waited for by it.
                if order.is_some_and(|order| heir.try_send(order).is_err()) {
                    tracing::error!("Media thread takes no orders, a transferred call is silent");
                }
            }
            Order::Key(leg, key) => {
                if self.with(leg, |seat| seat.leg.press(key)) == Some(false) {
                    tracing::debug!("Key not sent: the other side takes none, or too many wait");
                }
            }
            Order::Record(leg, tape) => {
                // The one before comes back; so does this one where there is no such Leg.
                let tape = match self.seat_by_leg.contains_key(&leg) {
                    true => self.with(leg, |seat| seat.leg.record(tape)).flatten(),
                    false => Some(tape),
                };
                self.outbox.extend(tape.map(|tape| recorded(leg, tape)));
            }
            Order::StopRecording(leg) => {
                let tape = self.with(leg, |seat| seat.leg.take_tape()).flatten();
                self.outbox.extend(tape.map(|tape| recorded(leg, tape)));
            }
            Order::Close(leg) => {
                if let Some(at) = self.seat_by_leg.get(&leg).copied() {
                    self.close(at);
                }
            }
        }
    }

    fn with<T>(&mut self, leg: LegId, what: impl FnOnce(&mut Seat) -> T) -> Option<T> {
        let at = *self.seat_by_leg.get(&leg)?;
        self.seats.get_mut(at).map(what)
    }

    /// Lets the keys of a Leg do something, and the Leg go by what comes of it. A fault in there ends that Leg alone.
    fn with_keys(
        &mut self,
        now: Instant,
        at: usize,
        work: impl FnOnce(&mut Handshake, &mut dyn FnMut(SocketAddr, &[u8])) -> Next,
    ) {
        let Some(seat) = self.seats.get_mut(at) else {
            return;
        };
        let (sockets, keys, counted) = ((&seat.rtp, &seat.rtcp), &mut seat.keys, &mut self.counted);
        let next = catch_unwind(AssertUnwindSafe(|| {
            work(keys, &mut |to, bytes| {
                send(sockets, Port::Rtp, to, bytes, counted);
            })
        }));
        match next {
            Ok(Next::Wait) => {}
            Ok(Next::Agree(agreed)) => {
                if let Err(why) = seat.leg.agree(now, &agreed) {
                    tracing::warn!(%why, "A Leg has no sound");
                }
            }
            Ok(Next::Fail) => self.outbox.push_back(Event {
                leg: seat.id,
                kind: EventKind::NoKeys,
            }),
            Err(_) => self.fail(at),
        }
    }

    fn open(
        &mut self,
        now: Instant,
        leg: LegId,
        rtp: UdpSocket,
        rtcp: UdpSocket,
        start: leg::Start,
    ) -> nix::Result<()> {
        if self.seats.is_empty() {
            self.next = now;
        }
        let first = self.next + TURN * (1 + self.opened % PARTS);
        let entry = self.seats.vacant_entry();
        let at = entry.key();
        for (socket, port) in [(&rtp, Port::Rtp), (&rtcp, Port::Rtcp)] {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token(at, port));
            self.epoll.add(socket, event)?;
        }
        entry.insert(Seat {
            id: leg,
            leg: Leg::new(now, start),
            keys: Handshake::default(),
            rtp,
            rtcp,
            clock: Clock::new(first),
        });
        self.opened = self.opened.wrapping_add(1);
        self.seat_by_leg.insert(leg, at);
        self.due.push(Reverse((first, at)));
        Ok(())
    }

    fn close(&mut self, at: usize) {
        let Some(mut seat) = self.seats.try_remove(at) else {
            return;
        };
        self.seat_by_leg.remove(&seat.id);
        let (rtp, rtcp, counted) = (&seat.rtp, &seat.rtcp, &mut self.counted);
        seat.leg
            .close(|port, to, bytes| send((rtp, rtcp), port, to, bytes, counted));
        for (sum, count) in counted.drops.iter_mut().zip(seat.leg.drops()) {
            *sum += count;
        }
        let tape = seat.leg.take_tape();
        self.outbox.extend(tape.map(|tape| recorded(seat.id, tape)));
        let figures = figures(&seat.leg.figures());
        self.outbox.push_back(closed(seat.id, figures));
    }

    /// Ends a Leg in which a fault of ours was met; all others go on.
    fn fail(&mut self, at: usize) {
        if let Some(mut seat) = self.seats.try_remove(at) {
            tracing::error!("A Leg lost its sound by a fault of the gateway");
            counter!("gateway_media_faults_total").increment(1);
            self.seat_by_leg.remove(&seat.id);
            let tape = seat.leg.take_tape();
            self.outbox.extend(tape.map(|tape| recorded(seat.id, tape)));
            self.outbox
                .push_back(closed(seat.id, MediaFigures::default()));
        }
    }

    /// Takes in what waits at the sockets.
    fn receive(&mut self, now: Instant) {
        let mut ready = [EpollEvent::empty(); READY_MAX];
        let mut datagram = [0; DATAGRAM_LEN_MAX];
        let mut taken = 0;
        while taken < DATAGRAMS_PER_TURN_MAX {
            let count = match self.epoll.wait(&mut ready, EpollTimeout::ZERO) {
                Ok(0) => return,
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "Media thread can't look after its sockets");
                    return;
                }
            };
            for event in &ready[..count] {
                taken += 1;
                let (at, port) = place(event.data());
                let Some(seat) = self.seats.get_mut(at) else {
                    continue;
                };
                let socket = match port {
                    Port::Rtp => &seat.rtp,
                    Port::Rtcp => &seat.rtcp,
                };
                // What else waits there is told of again.
                let Ok((len, from)) = socket.recv_from(&mut datagram) else {
                    continue;
                };
                self.counted.packets_in += 1;
                let bytes = &mut datagram[..len];
                if port == Port::Rtp && classify(bytes) == Some(DatagramKind::Dtls) {
                    self.with_keys(now, at, |keys, send| keys.handle(now, from, bytes, send));
                    continue;
                }
                let taken_in = catch_unwind(AssertUnwindSafe(|| match port {
                    Port::Rtp => seat.leg.handle_rtp(now, from, bytes),
                    Port::Rtcp => seat.leg.handle_rtcp(now, from, bytes),
                }));
                if taken_in.is_err() {
                    self.fail(at);
                }
            }
        }
    }

    /// Sends on what goes on as it came.
    fn pass_on(&mut self, now: Instant) {
        let mut failed = None;
        for (at, seat) in &mut self.seats {
            let (sockets, counted) = ((&seat.rtp, &seat.rtcp), &mut self.counted);
            let leg = &mut seat.leg;
            let passed_on = catch_unwind(AssertUnwindSafe(|| {
                leg.pass_on(now, |port, to, bytes| {
                    send(sockets, port, to, bytes, counted);
                });
            }));
            if passed_on.is_err() {
                failed = Some(at);
                break;
            }
        }
        // The rest have their turn with their ticks.
        if let Some(at) = failed {
            self.fail(at);
        }
    }

    /// Lets all go on whose time it is.
    fn let_go_on(&mut self, now: Instant) {
        while let Some(Reverse((at, place))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            // A Leg that has ended leaves its time behind.
            let Some(seat) = self.seats.get_mut(place) else {
                continue;
            };
            if seat.clock.next() != at {
                continue;
            }
            if seat.keys.is_due(now) {
                self.with_keys(now, place, |keys, send| keys.handle_timeout(now, send));
            }
            let Some(seat) = self.seats.get_mut(place) else {
                continue;
            };
            let counted = &mut self.counted;
            if catch_unwind(AssertUnwindSafe(|| seat.go_on(now, counted))).is_err() {
                self.fail(place);
                continue;
            }
            self.due.push(Reverse((seat.clock.next(), place)));
            while let Some(event) = seat.leg.poll_event() {
                let kind = match event {
                    leg::Event::Key(key) => EventKind::Key(key),
                    leg::Event::Silent => EventKind::Silent,
                    leg::Event::Left => EventKind::RoomLost,
                    leg::Event::Played(number) => EventKind::Played(number),
                    leg::Event::Stopped(_) => match seat.leg.take_tape() {
                        Some(tape) => EventKind::Recorded(tape),
                        None => continue,
                    },
                };
                self.outbox.push_back(Event { leg: seat.id, kind });
            }
        }
    }

    /// Tells what there is room for.
    fn flush(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                // Whom nobody hears any more is let go.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return;
                }
            }
        }
    }

    fn publish(&mut self) {
        gauge!("gateway_media_legs", "thread" => thread_name()).set(self.seats.len() as f64);
        let counted = std::mem::take(&mut self.counted);
        for (direction, packets) in [("in", counted.packets_in), ("out", counted.packets_out)] {
            counter!("gateway_media_packets_total", "direction" => direction).increment(packets);
        }
        counter!("gateway_media_unsent_total").increment(counted.unsent);
        counter!("gateway_media_frames_late_total").increment(counted.frames_late);
        for (cause, count) in Drop::ALL.into_iter().zip(counted.drops) {
            counter!("gateway_media_dropped_total", "cause" => cause.label()).increment(count);
        }
    }
}

impl Seat {
    fn go_on(&mut self, now: Instant, counted: &mut Counted) {
        let due = self.clock.tick(now);
        if due.passed > 0 {
            self.leg.pass(due.passed);
        }
        counted.frames_late += u64::from(due.passed) + u64::from(due.now.saturating_sub(1));
        let sockets = (&self.rtp, &self.rtcp);
        for _ in 0..due.now {
            self.leg.tick(now, |port, to, bytes| {
                send(sockets, port, to, bytes, counted);
            });
        }
    }
}

fn send(
    (rtp, rtcp): (&UdpSocket, &UdpSocket),
    port: Port,
    to: SocketAddr,
    bytes: &[u8],
    counted: &mut Counted,
) {
    // Who holds may say so by an address of zeros (RFC 3264 §8.4).
    if to.port() == 0 || to.ip().is_unspecified() {
        return;
    }
    let socket = match port {
        Port::Rtp => rtp,
        Port::Rtcp => rtcp,
    };
    match socket.send_to(bytes, to) {
        Ok(_) => counted.packets_out += 1,
        Err(_) => counted.unsent += 1,
    }
}

fn thread_name() -> String {
    std::thread::current().name().unwrap_or("media").to_owned()
}

fn token(at: usize, port: Port) -> u64 {
    at as u64 * 2 + u64::from(port == Port::Rtcp)
}

fn place(token: u64) -> (usize, Port) {
    let port = if token.is_multiple_of(2) {
        Port::Rtp
    } else {
        Port::Rtcp
    };
    (usize::try_from(token / 2).unwrap_or(usize::MAX), port)
}

fn recorded(leg: LegId, tape: Box<Tape>) -> Event {
    let kind = EventKind::Recorded(tape);
    Event { leg, kind }
}

fn closed(leg: LegId, figures: MediaFigures) -> Event {
    Event {
        leg,
        kind: EventKind::Closed(Box::new(figures)),
    }
}

fn figures(figures: &leg::Figures) -> MediaFigures {
    let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 500"
    )]
    let mos_hundredths = (figures.mos * 100.0).round().clamp(0.0, 500.0) as u16;
    MediaFigures {
        packets_received: figures.received,
        packets_lost: figures.lost,
        packets_sent: figures.sent,
        jitter_micros: micros(figures.jitter),
        round_trip_micros: figures.round_trip.map(micros),
        mos_hundredths,
    }
}
