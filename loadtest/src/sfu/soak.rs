//! `loadtest sfu-soak`: an hour of a Room in which people come and go, look at this and that, and lose their networks; does the
//! server hold on to anything?
//!
//! Every minute is the same (see [`MINUTE`]), and at its end the same people are there, so that what is left behind shows as growth
//! from one minute to another. Read from outside: memory, threads and descriptors of the process; from `/metrics`: its tasks, and who
//! is in the Rooms. Few people and small pictures: it fits beside other work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::bots::wait_until_connected;
use super::fleet::Fleet;
use super::seat::{Meeting, Order, Seat};
use super::tracks::{Kind, Role};
use crate::TargetArguments;
use crate::client::Target as Place;
use crate::process::Process;
use crate::report::{Report, Target};
use crate::server::Server;
use crate::sign_in::{User, sign_in};
use crate::table::median;

/// The Room that goes on, and one that begins and ends every minute.
const ROOM: &str = "soak";
const SHORT_ROOM: &str = "soak-short";

/// Who stays.
const REGULARS: usize = 4;

/// Who comes and goes.
const VISITORS: usize = 5;

/// Receiving sections of each.
const AUDIO_SLOTS: usize = 2;
const VIDEO_SLOTS: usize = 3;

/// How long the regulars may take to connect.
const CONNECT: Duration = Duration::from_secs(20);

/// When a minute is read: everybody who is to be there is, everybody else has left.
const READ_AT: u64 = 58;

/// The minute others are compared with: what a server sets up once is there by then.
const REFERENCE: u64 = 10;

/// How much more there may be in the last minute, of 1.
const GROWTH_MAX: f64 = 1.05;

/// Connections come from so many numbers in turn: the server limits what comes from one address.
const CONNECTIONS: usize = 1000;

/// A chat message: with five of them a minute the history is full before the minute others are compared with.
const MESSAGE_LEN: usize = 700;

/// Who does something at a second of the minute, by number, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// A visitor comes into the long Room, or the short one.
    Come(usize, &'static str),
    /// A visitor leaves.
    Leave(usize),
    /// A visitor is gone without a word, and lost some seconds later.
    Vanish(usize),
    /// A regular shows all pictures at another height.
    Show(usize, u16),
    /// A regular writes.
    Say(usize),
    /// A regular loses the socket, and resumes.
    Reconnect(usize),
}

/// What happens in a minute, by the second.
const MINUTE: [(u64, Act); 23] = [
    (0, Act::Come(0, ROOM)),
    (2, Act::Say(0)),
    (4, Act::Show(0, 90)),
    (6, Act::Come(1, ROOM)),
    (10, Act::Show(1, 360)),
    (12, Act::Say(1)),
    (16, Act::Come(3, SHORT_ROOM)),
    (18, Act::Come(4, SHORT_ROOM)),
    (20, Act::Show(2, 720)),
    (22, Act::Say(2)),
    (24, Act::Reconnect(3)),
    (28, Act::Leave(0)),
    (30, Act::Come(2, ROOM)),
    (32, Act::Say(3)),
    (34, Act::Show(0, 0)),
    (36, Act::Leave(3)),
    (38, Act::Leave(4)),
    (40, Act::Vanish(1)),
    (44, Act::Show(2, 180)),
    (46, Act::Reconnect(1)),
    (48, Act::Leave(2)),
    (50, Act::Say(0)),
    (52, Act::Show(0, 180)),
];

#[derive(Args)]
pub(crate) struct SoakArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// How long.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
}

/// What was read at the end of a minute.
#[derive(Debug, Clone, Copy)]
struct Reading {
    resident: u64,
    anonymous: u64,
    threads: usize,
    descriptors: usize,
    /// Futures the server runs; none where its figures don't tell.
    tasks: Option<f64>,
    participants: f64,
    rooms: f64,
    /// Of one core, in this minute: the server, and this program.
    busy: f64,
    busy_here: f64,
    /// Media packets the regulars received in this minute, and those they should have.
    received: u64,
    expected: u64,
}

/// Runs the minutes, prints a line for each, and tells what has grown.
#[expect(
    clippy::print_stdout,
    reason = "an hour is long: each minute is told when it is over"
)]
pub(crate) async fn run(server: &Server, arguments: &SoakArguments) -> anyhow::Result<Report> {
    ensure!(arguments.minutes >= 2, "a soak takes two minutes at least");
    let mut soak = Soak::begin(server).await?;
    println!(
        "minute  resident kB  anonymous kB  threads  descriptors  tasks  participants  rooms  server %  here %  packets  lost %"
    );
    let mut readings = Vec::new();
    let began = Instant::now();
    for minute in 1..=arguments.minutes {
        let reading = soak.minute(began, minute).await?;
        let lost = 1.0 - reading.received as f64 / reading.expected.max(1) as f64;
        println!(
            "{minute:6}  {:11}  {:12}  {:7}  {:11}  {:>5}  {:12}  {:5}  {:8.1}  {:6.1}  {:7}  {:6.2}",
            reading.resident / 1024,
            reading.anonymous / 1024,
            reading.threads,
            reading.descriptors,
            reading
                .tasks
                .map_or("-".to_owned(), |tasks| tasks.to_string()),
            reading.participants,
            reading.rooms,
            reading.busy * 100.0,
            reading.busy_here * 100.0,
            reading.received,
            lost * 100.0
        );
        readings.push(reading);
    }
    soak.end().await?;
    report(&readings)
}

/// Compares the last minute with the tenth, or the middle one of a shorter run.
fn report(readings: &[Reading]) -> anyhow::Result<Report> {
    let minutes = readings.len() as u64;
    let reference = REFERENCE.min(minutes / 2).max(1);
    let at = usize::try_from(reference - 1)?;
    let (Some(first), Some(last)) = (readings.get(at), readings.last()) else {
        anyhow::bail!("nothing was read");
    };
    let mut report = Report::new(format!(
        "A Room for {minutes} minutes: the last beside minute {reference}"
    ));
    report.condition(
        "every minute",
        &"5 visits, one of them lost without a word; 5 changes of Layers; 2 resumed Sessions; 5 messages; a Room begins and ends",
    );
    let mut compare = |name: &str, value: &dyn Fn(&Reading) -> f64| {
        let (before, after) = (value(first), value(last));
        let most = readings[at..].iter().map(value).fold(0.0, f64::max);
        let name = format!("{name}: {before} → {after}, at most {most}");
        report.figure(name, after / before, "x", Some(Target::AtMost(GROWTH_MAX)));
    };
    compare("resident kB", &|reading| (reading.resident / 1024) as f64);
    compare("anonymous kB", &|reading| (reading.anonymous / 1024) as f64);
    compare("threads", &|reading| reading.threads as f64);
    compare("descriptors", &|reading| reading.descriptors as f64);
    if first.tasks.is_some() {
        compare("tasks", &|reading| reading.tasks.unwrap_or(f64::NAN));
    }
    compare("Participants", &|reading| reading.participants);
    compare("Rooms", &|reading| reading.rooms);
    let middle =
        |value: fn(&Reading) -> f64| median(&readings.iter().map(value).collect::<Vec<_>>());
    report.figure(
        "the server, of a core",
        middle(|reading| reading.busy) * 100.0,
        "%",
        None,
    );
    report.figure(
        "this program, of a core",
        middle(|reading| reading.busy_here) * 100.0,
        "%",
        None,
    );
    Ok(report)
}

/// The people of a run.
struct Soak {
    process: Process,
    target: Place,
    fleet: Arc<Fleet>,
    meeting: Meeting,
    users: Vec<User>,
    regulars: Vec<Seat>,
    visitors: BTreeMap<usize, Seat>,
    connections: usize,
    /// Says to the Sessions that it is over.
    leave: watch::Sender<bool>,
    /// At the end of the minute before.
    time: (Duration, Duration, Instant),
    counts: (u64, u64),
}

impl Soak {
    /// Lets the regulars join.
    async fn begin(server: &Server) -> anyhow::Result<Self> {
        let fleet = Arc::new(Fleet::start(1)?);
        let (leave, leaving) = watch::channel(false);
        let meeting = Meeting {
            target: server.target.clone(),
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            fleet: fleet.clone(),
            height: Some(180),
            leaving,
        };
        let process = server.process()?;
        let mut soak = Self {
            process,
            target: server.target.clone(),
            fleet: fleet.clone(),
            meeting,
            users: sign_in(&server.target, REGULARS + VISITORS).await?,
            regulars: Vec::new(),
            visitors: BTreeMap::new(),
            connections: 0,
            leave,
            time: (process.processor_time()?, own_time()?, Instant::now()),
            counts: (0, 0),
        };
        for number in 0..REGULARS {
            // One with Layers to choose from.
            let camera = match number {
                0 => Kind::Simulcast,
                _ => Kind::Thumbnail,
            };
            let seat = soak.join(ROOM, number, camera).await?;
            soak.regulars.push(seat);
        }
        fleet.publish(true)?;
        wait_until_connected(&fleet, CONNECT).await?;
        Ok(soak)
    }

    async fn join(&mut self, room: &str, user: usize, camera: Kind) -> anyhow::Result<Seat> {
        let role = Role {
            sends: vec![Kind::Microphone, camera],
            audio_slots: AUDIO_SLOTS,
            video_slots: VIDEO_SLOTS,
            ..Role::default()
        };
        let index = self.connection();
        let joined = self.meeting.join(room, &self.users[user], index, &role);
        joined
            .await
            .with_context(|| format!("user {user} can't join {room}"))
    }

    fn connection(&mut self) -> usize {
        self.connections = (self.connections + 1) % CONNECTIONS;
        self.connections
    }

    /// Plays a minute and reads its end.
    async fn minute(&mut self, began: Instant, minute: u64) -> anyhow::Result<Reading> {
        let start = began + Duration::from_secs((minute - 1) * 60);
        let at = |seconds| tokio::time::Instant::from_std(start + Duration::from_secs(seconds));
        for (second, act) in MINUTE {
            tokio::time::sleep_until(at(second)).await;
            self.act(act)
                .await
                .with_context(|| format!("minute {minute}, second {second}: {act:?}"))?;
        }
        tokio::time::sleep_until(at(READ_AT)).await;
        let reading = self.read().await;
        reading.with_context(|| format!("at the end of minute {minute}"))
    }

    async fn act(&mut self, act: Act) -> anyhow::Result<()> {
        match act {
            Act::Come(visitor, room) => {
                let seat = self.join(room, REGULARS + visitor, Kind::Thumbnail).await?;
                self.visitors.insert(visitor, seat);
                Ok(())
            }
            Act::Leave(visitor) => self.part(visitor, Order::Leave).await,
            Act::Vanish(visitor) => self.part(visitor, Order::Vanish).await,
            Act::Show(regular, height) => self.tell(regular, Order::Show(height)).await,
            Act::Say(regular) => {
                let text = "0123456789".repeat(MESSAGE_LEN / 10);
                self.tell(regular, Order::Say(text)).await
            }
            Act::Reconnect(regular) => {
                let index = self.connection();
                self.tell(regular, Order::Reconnect(index)).await
            }
        }
    }

    async fn tell(&mut self, regular: usize, order: Order) -> anyhow::Result<()> {
        let seat = &mut self.regulars[regular];
        if seat.orders.send(order).await.is_err() {
            (&mut seat.session).await??;
        }
        Ok(())
    }

    /// Lets a visitor go, and their media with them.
    async fn part(&mut self, visitor: usize, order: Order) -> anyhow::Result<()> {
        let seat = self.visitors.remove(&visitor).context("nobody is there")?;
        let is_polite = order == Order::Leave;
        // Whose Session has ended says why below.
        seat.orders.send(order).await.ok();
        seat.session.await??;
        if is_polite {
            self.fleet.remove(seat.bot)?;
        }
        Ok(())
    }

    async fn read(&mut self) -> anyhow::Result<Reading> {
        for (number, seat) in self.regulars.iter_mut().enumerate() {
            if seat.session.is_finished() {
                let ended = (&mut seat.session).await?;
                ended.with_context(|| format!("regular {number} is gone"))?;
            }
        }
        let tally = self.fleet.tally()?;
        let regulars: Vec<_> = tally
            .bots
            .iter()
            .filter(|bot| self.regulars.iter().any(|seat| seat.bot == bot.id))
            .collect();
        ensure!(regulars.len() == REGULARS, "a regular is gone");
        let counts = regulars.iter().flat_map(|bot| &bot.streams);
        let counts = counts.fold((0, 0), |(received, expected), stream| {
            (
                received + stream.counts.packets,
                expected + stream.counts.expected,
            )
        });
        let (received, expected) = (counts.0 - self.counts.0, counts.1 - self.counts.1);
        ensure!(received > 0, "no media arrives any more");
        let states = self.fleet.states()?;
        let fault = states.into_iter().find_map(|(_, fault)| fault);
        ensure!(fault.is_none(), "a client gave up: {fault:?}");

        let memory = self.process.memory()?;
        let time = (self.process.processor_time()?, own_time()?, Instant::now());
        let passed = time.2.duration_since(self.time.2).as_secs_f64();
        let busy =
            |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / passed;
        let reading = Reading {
            resident: memory.resident,
            anonymous: memory.anonymous,
            threads: self.process.threads()?,
            descriptors: self.process.descriptors()?,
            busy: busy(time.0, self.time.0),
            busy_here: busy(time.1, self.time.1),
            received,
            expected,
            tasks: None,
            participants: 0.0,
            rooms: 0.0,
        };
        (self.time, self.counts) = (time, counts);
        // Behind the descriptors: the question takes one.
        let index = self.connection();
        let figures = figures(&self.target, index).await?;
        let figure = |name: &str| {
            let found = figure(&figures, name);
            found.with_context(|| format!("no figure {name}"))
        };
        Ok(Reading {
            tasks: figure("runtime_tasks").ok(),
            participants: figure("sfu_participants")?,
            rooms: figure("sfu_rooms")?,
            ..reading
        })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.leave.send(true)?;
        for seat in self.regulars {
            seat.session.await??;
        }
        drop(self.meeting);
        let fleet = Arc::into_inner(self.fleet).context("a client is left")?;
        fleet.end()
    }
}

fn own_time() -> anyhow::Result<Duration> {
    Process(std::process::id()).processor_time()
}

/// What the server counts, as it tells Prometheus.
async fn figures(target: &Place, index: usize) -> anyhow::Result<String> {
    let mut stream = target.stream(index).await?;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        target.authority
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The value of a figure without labels.
fn figure(figures: &str, name: &str) -> Option<f64> {
    let value = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    };
    figures.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_in_a_minute_has_left_at_its_end() {
        let mut there = Vec::new();
        let mut before = 0;
        for (second, act) in MINUTE {
            assert!(second >= before && second < READ_AT, "{act:?}");
            before = second;
            match act {
                Act::Come(visitor, _) => {
                    assert!(visitor < VISITORS && !there.contains(&visitor), "{act:?}");
                    there.push(visitor);
                }
                Act::Leave(visitor) | Act::Vanish(visitor) => {
                    assert!(there.contains(&visitor), "{act:?}");
                    there.retain(|other| *other != visitor);
                }
                Act::Show(regular, _) | Act::Say(regular) | Act::Reconnect(regular) => {
                    assert!(regular < REGULARS, "{act:?}");
                }
            }
        }
        assert!(there.is_empty(), "{there:?}");
    }

    #[test]
    fn figures_are_found_by_their_whole_name() {
        let text = "# TYPE sfu_rooms gauge\nsfu_rooms_max 7\nsfu_rooms 2\nsfu_dropped_total{cause=\"srtp\"} 3\n";
        assert_eq!(figure(text, "sfu_rooms"), Some(2.0));
        assert_eq!(figure(text, "sfu"), None);
        assert_eq!(figure(text, "sfu_dropped_total"), None);
    }

    #[test]
    fn growth_is_told_beside_the_tenth_minute() {
        let reading = |kilobytes: u64| Reading {
            resident: kilobytes * 1024,
            anonymous: kilobytes * 1024,
            threads: 10,
            descriptors: 40,
            tasks: Some(30.0),
            participants: 5.0,
            rooms: 1.0,
            busy: 0.1,
            busy_here: 0.1,
            received: 1,
            expected: 1,
        };
        let readings: Vec<_> = (1..=20).map(|minute| reading(1000 * minute)).collect();
        let report = report(&readings).unwrap();
        let grown = |name: &str| {
            let figure = report
                .figures
                .iter()
                .find(|figure| figure.name.starts_with(name));
            figure.unwrap().value
        };
        assert!((grown("resident") - 2.0).abs() < 1e-9);
        assert!((grown("tasks") - 1.0).abs() < 1e-9);
        assert!(report.missed().contains("resident"), "{}", report.missed());
    }
}
