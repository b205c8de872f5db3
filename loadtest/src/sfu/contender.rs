//! A server with its clients, and what a round of load comes to.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;

use super::bots::wait_until_connected;
use super::clients::{CONNECT, OfJanus, Ours};
use super::fleet::Fleet;
use super::floor::{Beat, Crowd};
use super::rival::{Kind, Running};
use super::tracks::Kind as Media;
use super::{DELAY_MAX, LOSS_MAX};
use crate::process::Process;

/// What comes before each measurement, so that caches are warm.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long bandwidth estimation may take until everything is forwarded.
const RAMP: Duration = Duration::from_secs(20);

/// What is shown to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Show {
    media: Media,
    beat: Beat,
    senders: usize,
    receivers: usize,
}

impl Show {
    /// One camera to so many.
    pub(super) fn video(receivers: usize) -> Self {
        Self {
            media: Media::Camera,
            beat: Beat::CAMERA,
            senders: 1,
            receivers,
        }
    }

    /// One microphone to so many.
    pub(super) fn audio(receivers: usize) -> Self {
        Self {
            media: Media::Microphone,
            beat: Beat::MICROPHONE,
            senders: 1,
            receivers,
        }
    }

    /// So many small cameras to each other.
    pub(super) fn thumbnails(count: usize) -> Self {
        Self {
            media: Media::Thumbnail,
            beat: Beat::THUMBNAIL,
            senders: count,
            receivers: 0,
        }
    }

    /// The packets of a frame of everybody who sends.
    fn frame(&self) -> f64 {
        (self.senders * self.beat.packets) as f64
    }

    /// To how many each packet goes.
    fn copies(&self) -> usize {
        self.senders + self.receivers - 1
    }
}

/// What a round came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// Packets.
    pub(super) received: f64,
    pub(super) expected: f64,
    /// Processor time of the server.
    pub(super) spent: Duration,
    /// Processor time of its clients: where they have no more than a core, that is the end of what can be measured.
    pub(super) spent_by_clients: Duration,
    pub(super) time: Duration,
    /// In ms; not a number where packets don't tell.
    pub(super) delay_p50: f64,
    pub(super) delay_p99: f64,
}

impl Round {
    /// Processor time of a packet, in microseconds: seconds of a million.
    pub(super) fn cost(&self) -> f64 {
        self.spent.as_secs_f64() * 1e6 / self.received.max(1.0)
    }

    pub(super) fn loss(&self) -> f64 {
        (self.expected - self.received).max(0.0) / self.expected.max(1.0)
    }

    /// Packets a second.
    pub(super) fn rate(&self) -> f64 {
        self.received / self.time.as_secs_f64()
    }

    /// The part of a core that the server took.
    pub(super) fn busy(&self) -> f64 {
        self.spent.as_secs_f64() / self.time.as_secs_f64()
    }

    /// The part of a core that the clients took.
    pub(super) fn busy_clients(&self) -> f64 {
        self.spent_by_clients.as_secs_f64() / self.time.as_secs_f64()
    }

    /// Whether the round counts.
    pub(super) fn passes(&self) -> bool {
        // Sealed packets of a floor don't tell how long they took.
        let is_late = self.delay_p99 > DELAY_MAX;
        self.received > 0.0 && self.loss() < LOSS_MAX && !is_late
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (loss, p99) = (self.loss() * 100.0, self.delay_p99);
        write!(
            f,
            "{loss:.3} % lost, 99 of 100 within {p99:.2} ms, {:.2} of a core, its clients {:.2} of theirs",
            self.busy(),
            self.busy_clients()
        )
    }
}

/// What many joins at once came to.
pub(super) struct Joined {
    pub(super) per_second: f64,
    /// From each one's offer until media arrived, sorted.
    pub(super) first_media: Vec<Duration>,
    /// Processor time of the server.
    pub(super) spent: Duration,
}

/// A server, and its clients.
pub(super) struct Contender<'r> {
    server: Running,
    show: Show,
    ip: IpAddr,
    runtime: &'r Runtime,
    clients: Clients,
}

enum Clients {
    Ours(Ours),
    Janus(OfJanus),
    Floor(Option<Crowd>),
}

impl<'r> Contender<'r> {
    pub(super) fn new(
        server: Running,
        show: Show,
        ip: IpAddr,
        runtime: &'r Runtime,
    ) -> anyhow::Result<Self> {
        let clients = match server.kind {
            Kind::Ours => Clients::Ours(Ours::new(server.address, ip)?),
            Kind::Janus => Clients::Janus(OfJanus::new()?),
            Kind::Floor | Kind::FloorBursts => Clients::Floor(None),
        };
        Ok(Self {
            server,
            show,
            ip,
            runtime,
            clients,
        })
    }

    pub(super) fn process(&self) -> Process {
        self.server.process
    }

    pub(super) fn last_words(&self) -> String {
        self.server.last_words()
    }

    /// Brings everybody together.
    pub(super) fn fill(&mut self) -> anyhow::Result<()> {
        let Show {
            senders, receivers, ..
        } = self.show;
        match &mut self.clients {
            Clients::Floor(crowd) => {
                let gathered = Crowd::gather(
                    self.server.address,
                    self.ip,
                    senders,
                    receivers,
                    self.show.beat,
                )?;
                *crowd = Some(gathered);
                Ok(())
            }
            Clients::Ours(ours) if senders > 1 => {
                self.runtime
                    .block_on(ours.open_room(self.show.media, senders))?;
                self.connected()
            }
            Clients::Janus(janus) if senders > 1 => {
                self.runtime.block_on(janus.mesh(
                    self.server.address,
                    self.ip,
                    self.show.media,
                    senders,
                ))?;
                self.connected()
            }
            Clients::Ours(_) | Clients::Janus(_) => self.grow_to(receivers, usize::MAX),
        }
    }

    /// Lets more join until there are so many receivers, and as many Rooms with a sender as they need.
    pub(super) fn grow_to(&mut self, receivers: usize, per_room: usize) -> anyhow::Result<()> {
        self.show.receivers = receivers;
        match &mut self.clients {
            Clients::Ours(ours) => {
                self.runtime
                    .block_on(ours.grow_to(self.show.media, receivers, per_room))?;
            }
            Clients::Janus(janus) => {
                let grown = janus.grow_to(self.server.address, self.ip, self.show.media, receivers);
                self.runtime.block_on(grown)?;
            }
            Clients::Floor(_) => {}
        }
        self.connected()
    }

    fn connected(&self) -> anyhow::Result<()> {
        match self.fleet() {
            Some(fleet) => self.runtime.block_on(wait_until_connected(fleet, CONNECT)),
            None => Ok(()),
        }
    }

    fn fleet(&self) -> Option<&Fleet> {
        match &self.clients {
            Clients::Ours(ours) => Some(&ours.fleet),
            Clients::Janus(janus) => Some(&janus.fleet),
            Clients::Floor(_) => None,
        }
    }

    /// A time of load.
    pub(super) fn round(&mut self, time: Duration) -> anyhow::Result<Round> {
        let (process, clients) = (self.server.process, Process(std::process::id()));
        if let Clients::Floor(crowd) = &mut self.clients {
            let crowd = crowd.as_mut().context("no clients")?;
            crowd.run(WARM_UP)?;
            let (before, clients_before) = (process.run_time()?, clients.run_time()?);
            let passed = crowd.run(time)?;
            return Ok(Round {
                received: passed.received as f64,
                expected: passed.expected as f64,
                spent: process.run_time()? - before,
                spent_by_clients: clients.run_time()? - clients_before,
                time,
                delay_p50: passed.delays.percentile(50.0),
                delay_p99: passed.delays.percentile(99.0),
            });
        }
        let (rooms, copies) = match &self.clients {
            Clients::Ours(ours) if self.show.senders == 1 => {
                let rooms = ours.rooms.max(1) as f64;
                (rooms, ours.receivers as f64 / rooms)
            }
            _ => (1.0, self.show.copies() as f64),
        };
        let fleet = self.fleet().context("no clients")?;
        fleet.publish(true)?;
        ramp_up(fleet, copies)?;
        let earlier = fleet.tally()?;
        let (began, before) = (Instant::now(), process.run_time()?);
        let clients_before = clients.run_time()?;
        std::thread::sleep(time);
        let later = fleet.tally()?;
        let (spent, time) = (process.run_time()? - before, began.elapsed());
        let spent_by_clients = clients.run_time()? - clients_before;
        fleet.publish(false)?;

        let got = later.counts().since(earlier.counts());
        // By the numbers of what was sent on; what was not sent on at all counts, too, but for a frame that is under way at an edge.
        let sent = (later.sent - earlier.sent) as f64 * copies;
        let edge = self.show.frame() * rooms * copies;
        let is_whole = got.expected as f64 + edge >= sent * (1.0 - LOSS_MAX);
        Ok(Round {
            received: got.packets as f64,
            expected: if is_whole { got.expected as f64 } else { sent },
            spent,
            spent_by_clients,
            time,
            delay_p50: later.delays.percentile(50.0),
            delay_p99: later.delays.percentile(99.0),
        })
    }

    /// So many more join as fast as they can, while media flows.
    pub(super) fn join_at_once(&mut self, count: usize) -> anyhow::Result<Joined> {
        let process = self.server.process;
        if let Clients::Ours(ours) = &mut self.clients {
            // To sign in is the application's affair.
            self.runtime.block_on(ours.sign_in(count))?;
        }
        let fleet = self.fleet().context("a floor has no joins")?;
        fleet.publish(true)?;
        let there = fleet.tally()?.bots.len();
        let before = process.run_time()?;
        let began = Instant::now();
        self.grow_to(self.show.receivers + count, usize::MAX)?;
        let fleet = self.fleet().context("a floor has no joins")?;
        loop {
            let mut bots = fleet.tally()?.bots;
            bots.sort_by_key(|bot| bot.id.order());
            let arrived: Option<Vec<_>> =
                bots.iter().skip(there).map(|bot| bot.first_media).collect();
            let Some(mut first_media) = arrived else {
                ensure!(began.elapsed() < CONNECT, "media does not reach everybody");
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            let took = began.elapsed();
            first_media.sort_unstable();
            return Ok(Joined {
                per_second: count as f64 / took.as_secs_f64(),
                first_media,
                spent: process.run_time()? - before,
            });
        }
    }
}

/// Waits until all that is sent arrives everywhere, and in time: estimates of bandwidth begin low, and what waits for them has to leave.
fn ramp_up(fleet: &Fleet, copies: f64) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(500);

    let began = Instant::now();
    let mut earlier = fleet.tally()?;
    while began.elapsed() < RAMP {
        std::thread::sleep(LOOK);
        let later = fleet.tally()?;
        let sent = (later.sent - earlier.sent) as f64 * copies;
        let got = later.counts().since(earlier.counts()).packets as f64;
        let is_late = later.delays.percentile(99.0) > DELAY_MAX;
        if sent > 0.0 && got > sent * 0.98 && !is_late {
            return Ok(());
        }
        earlier = later;
    }
    // The round says how much arrives.
    Ok(())
}
