//! `loadtest sfu-bots`: people for a Room of a running server, for tests that need a full house.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Serialize;
use tokio::sync::watch;

use super::film::Film;
use super::fleet::{BotTally, Fleet, Tally};
use super::peer::State;
use super::seat::{Meeting, Slots};
use super::tracks::{Kind, Role};
use crate::pinned;
use crate::server::Server;
use crate::sign_in::sign_in;

/// How long the clients may take to connect, once all have joined.
const CONNECT: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct BotsArguments {
    /// `http://host:port` or `https://host:port` of a running server in demo mode.
    #[arg(long)]
    url: String,
    /// The certificate authority of the server, in PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The name of the Room.
    #[arg(long)]
    room: String,
    /// How many send sound and pictures, and receive.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// How many of them have a microphone; without it, all.
    #[arg(long)]
    voices: Option<usize>,
    /// How many only receive.
    #[arg(long, default_value_t = 0)]
    subscribers: usize,
    /// How long they stay once all are connected.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What those who send have for a camera.
    #[arg(long, value_enum, default_value = "simulcast")]
    camera: CameraKind,
    /// Pictures that an encoder made, which browsers decode: VP8 in IVF. They take the place of the camera.
    #[arg(long)]
    film: Option<PathBuf>,
    /// Sound that an encoder made: Opus by 20 ms, in the frames of IVF (codec `OPUS`).
    #[arg(long)]
    sound: Option<PathBuf>,
    /// Slots for sound of each.
    #[arg(long, default_value_t = 4)]
    audio_slots: usize,
    /// Slots for pictures of each.
    #[arg(long, default_value_t = 8)]
    video_slots: usize,
    /// The height in pixels at which each picture is wanted; without it, what comes.
    #[arg(long)]
    height: Option<u16>,
    /// The address of their media.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST.into())]
    ip: IpAddr,
    /// Threads that do the media.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CameraKind {
    /// Three Layers: 240, 480 and 1200 kbit/s.
    Simulcast,
    /// One of 1.2 Mbit/s.
    Single,
    /// One of 150 kbit/s.
    Thumbnail,
}

/// What each received.
#[derive(Serialize)]
struct Outcome {
    bots: Vec<BotOutcome>,
    /// One-way delays of all packets, in ms.
    delay_p50: Option<f64>,
    delay_p99: Option<f64>,
}

#[derive(Serialize)]
struct BotOutcome {
    participant: String,
    publishes: bool,
    connected: bool,
    /// From making the offer, in ms.
    connected_after: Option<f64>,
    first_media_after: Option<f64>,
    packets_sent: u64,
    /// The Track in each slot, by `mid`.
    slots: Slots,
    streams: Vec<StreamOutcome>,
}

#[derive(Serialize)]
struct StreamOutcome {
    kind: &'static str,
    packets: u64,
    /// By their numbers.
    lost: u64,
    /// Packets that came again: resends that were not needed, and probes.
    copies: u64,
    bytes: u64,
    key_frames: u64,
}

/// Joins, stays, leaves and prints JSON of what each received; fails where one could not connect.
#[expect(
    clippy::print_stdout,
    reason = "the outcome is what the program is for"
)]
pub(crate) async fn run(arguments: &BotsArguments) -> anyhow::Result<()> {
    pinned::raise_files()?;
    let target = Server::target_of(&arguments.url, arguments.ca.as_deref())?;
    let fleet = Arc::new(Fleet::start(arguments.threads.max(1))?);
    let (leave, leaving) = watch::channel(false);
    let meeting = Meeting {
        target: target.clone(),
        ip: arguments.ip,
        fleet: fleet.clone(),
        height: arguments.height,
        leaving,
    };
    let film = arguments.film.as_deref().map(Film::pictures).transpose()?;
    let sound = arguments.sound.as_deref().map(Film::sound).transpose()?;
    let (film, sound) = (film.map(Arc::new), sound.map(Arc::new));
    let camera = match arguments.camera {
        _ if film.is_some() => Kind::Film,
        CameraKind::Simulcast => Kind::Simulcast,
        CameraKind::Single => Kind::Camera,
        CameraKind::Thumbnail => Kind::Thumbnail,
    };
    fleet.publish(true)?;
    let count = arguments.publishers + arguments.subscribers;
    let mut seats = Vec::new();
    for (index, user) in sign_in(&target, count).await?.iter().enumerate() {
        let publishes = index < arguments.publishers;
        let has_voice = arguments.voices.is_none_or(|voices| index < voices);
        let sends = match (publishes, has_voice) {
            (true, true) => vec![Kind::Microphone, camera],
            (true, false) => vec![camera],
            (false, _) => Vec::new(),
        };
        let role = Role {
            sends,
            audio_slots: arguments.audio_slots,
            video_slots: arguments.video_slots,
            film: film.clone(),
            sound: sound.clone(),
        };
        let seat = meeting.join(&arguments.room, user, index, &role).await;
        seats.push(seat.with_context(|| format!("client {index} can't join"))?);
    }
    wait_until_connected(&fleet, CONNECT).await?;
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;

    let mut tally = fleet.tally()?;
    ensure!(
        tally.bots.len() == seats.len(),
        "{} of {} clients are left",
        tally.bots.len(),
        seats.len()
    );
    leave.send(true)?;
    let mut outcome = Outcome {
        bots: Vec::new(),
        delay_p50: millis(&tally, 50.0),
        delay_p99: millis(&tally, 99.0),
    };
    // In the order in which they joined.
    tally.bots.sort_by_key(|bot| bot.id.order());
    seats.sort_by_key(|seat| seat.bot.order());
    for (seat, bot) in seats.into_iter().zip(tally.bots) {
        let slots = seat
            .session
            .await?
            .with_context(|| format!("the Session of {}", seat.participant))?;
        outcome
            .bots
            .push(BotOutcome::of(seat.participant, slots, &bot));
    }
    println!("{}", serde_json::to_string_pretty(&outcome)?);
    drop(meeting);
    let fleet = Arc::into_inner(fleet).context("a client is left")?;
    fleet.end()
}

/// Waits until all clients are connected.
pub(super) async fn wait_until_connected(fleet: &Fleet, patience: Duration) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    loop {
        let bots = fleet.states()?;
        let missing = bots.iter().filter(|(state, _)| *state != State::Connected);
        let count = missing.count();
        if count == 0 {
            return Ok(());
        }
        if let Some(fault) = bots.iter().find_map(|(_, fault)| fault.as_ref()) {
            bail!("a client gives up: {fault}");
        }
        let of = bots.len();
        ensure!(
            began.elapsed() < patience,
            "{count} of {of} clients are not connected"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn millis(tally: &Tally, percent: f64) -> Option<f64> {
    Some(tally.delays.percentile(percent)).filter(|delay| delay.is_finite())
}

impl BotOutcome {
    fn of(participant: String, slots: Slots, bot: &BotTally) -> Self {
        let millis = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
        let streams = bot.streams.iter().map(|stream| StreamOutcome {
            kind: if stream.is_audio { "audio" } else { "video" },
            packets: stream.counts.packets,
            lost: stream.counts.lost(),
            copies: stream.counts.copies,
            bytes: stream.counts.bytes,
            key_frames: stream.key_frames,
        });
        Self {
            participant,
            publishes: bot.sent > 0,
            connected: bot.state == State::Connected,
            connected_after: millis(bot.connected),
            first_media_after: millis(bot.first_media),
            packets_sent: bot.sent,
            slots,
            streams: streams.collect(),
        }
    }
}
