//! The load generator: how much memory a connection takes, how many messages and Calls a core carries.
//!
//! ```text
//! loadtest idle     --connections 10000 [--tls]   memory of Sessions that do nothing
//! loadtest messages [--pairs 100]                 relayed messages per second and core, beside a bare relay
//! loadtest calls    [--pairs 100]                 Calls from invite to hang-up
//! loadtest relay    [--against coturn]            processor time of a relayed packet, beside another server and a floor
//! loadtest sfu      [--against janus]             processor time of a forwarded packet and more, beside another server and a floor
//! loadtest phone    [--calls 100]                 phone calls: processor time, delay and sound, beside coders and a floor
//! loadtest sfu-bots --url URL --room NAME         people for a Room of a running server
//! loadtest sfu-soak --minutes 60                  whether a Room people come to and leave holds on to anything
//! ```
//!
//! Without `--url` each starts an `offhook` of its own on loopback with raised limits, measures its process from outside
//! (`/proc`), and ends it. Figures per core are per second of processor time of the server, so a generator on the same
//! machine does not distort them, though caches and the scheduler still make single runs differ by some percent.

mod calls;
mod client;
mod frame;
mod idle;
mod messages;
mod phone;
mod pinned;
mod process;
mod relay;
mod report;
mod server;
mod sfu;
mod sign_in;
mod socket;
mod table;
mod tls;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};

use crate::report::Report;
use crate::server::Server;

#[derive(Parser)]
#[command(version, about = "Measures a running or a fresh offhook")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Opens Sessions that do nothing and tells the memory each takes.
    Idle(IdleArguments),
    /// Relays messages between the two Devices of active Calls.
    Messages(MessagesArguments),
    /// Rings, answers and hangs up, again and again.
    Calls(PairsArguments),
    /// Measures the relay beside another TURN server and beside a bare forwarder.
    Relay(relay::RelayArguments),
    /// Measures the SFU beside another one and beside bare forwarders.
    Sfu(sfu::SfuArguments),
    /// Measures phone calls beside their coders alone and a bare forwarder.
    Phone(phone::PhoneArguments),
    /// Fills a Room of a running server with people.
    SfuBots(sfu::bots::BotsArguments),
    /// Lets people come to a Room and leave for an hour, and tells what has grown in the server.
    SfuSoak(sfu::soak::SoakArguments),
    /// The bare forwarder of media.
    #[command(hide = true)]
    SfuFloor(sfu::floor::FloorArguments),
    /// The bare forwarder.
    #[command(hide = true)]
    RelayFloor(relay::floor::FloorArguments),
    /// Runs a program on one core.
    #[command(hide = true)]
    Pinned(pinned::PinnedArguments),
    /// A relay of WebSocket frames without signaling.
    #[command(hide = true)]
    MessagesFloor(messages::floor::FloorArguments),
}

#[derive(Args)]
struct IdleArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// How many Sessions.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// How long they do nothing before the memory is read, in seconds.
    #[arg(long, default_value_t = 10)]
    settle: u64,
}

#[derive(Args)]
struct PairsArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// How many pairs of Users call each other.
    #[arg(long, default_value_t = 100)]
    pairs: usize,
    /// How long each round is measured, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[derive(Args)]
struct MessagesArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// How many pairs of Users call each other.
    #[arg(long, default_value_t = 100)]
    pairs: usize,
    /// How long each round is measured, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many rounds of each kind take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many messages each Device has in flight in the batched rounds.
    #[arg(long, default_value_t = 16)]
    window: usize,
}

/// Which server, and where the figures go.
#[derive(Args)]
pub(crate) struct TargetArguments {
    /// `http://host:port` or `https://host:port` of a running server in demo mode. Without it one is started.
    #[arg(long)]
    url: Option<String>,
    /// The process id of the server at `--url`, to measure it; needs to be on this machine.
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// The certificate authority of the server at `--url`, in PEM.
    #[arg(long, requires = "url")]
    ca: Option<PathBuf>,
    /// The program to start. Without it, `offhook` beside this program.
    #[arg(long)]
    server: Option<PathBuf>,
    /// Uses TLS, with a certificate authority made for the run.
    #[arg(long)]
    tls: bool,
    /// Writes the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the figures beside their targets.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// The server's, so that the bare relay has the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let target = match &arguments.what {
        What::Idle(IdleArguments { target, .. })
        | What::Messages(MessagesArguments { target, .. })
        | What::Calls(PairsArguments { target, .. }) => target,
        What::SfuSoak(arguments) => &arguments.target,
        What::MessagesFloor(arguments) => return messages::floor::run(arguments).await,
        What::Relay(arguments) => return relay::run(arguments),
        What::Sfu(arguments) => return sfu::run(arguments),
        What::Phone(arguments) => return phone::run(arguments),
        What::SfuBots(arguments) => return sfu::bots::run(arguments).await,
        What::SfuFloor(arguments) => return sfu::floor::run(arguments),
        What::RelayFloor(arguments) => return relay::floor::run(arguments),
        What::Pinned(arguments) => return pinned::run_pinned(arguments),
    };
    let mut server = Server::reach(target).await?;

    let outcome = match &arguments.what {
        What::Idle(arguments) => idle::run(&server, arguments).await,
        What::Messages(arguments) => messages::run(&server, arguments).await,
        What::Calls(arguments) => calls::run(&server, arguments).await,
        What::SfuSoak(arguments) => sfu::soak::run(&server, arguments).await,
        What::MessagesFloor(_)
        | What::Relay(_)
        | What::Sfu(_)
        | What::Phone(_)
        | What::SfuBots(_)
        | What::SfuFloor(_)
        | What::RelayFloor(_)
        | What::Pinned(_) => unreachable!(),
    };
    let ended = server.end().await;
    let report = outcome.with_context(|| server.last_words())?;
    ended?;
    publish(&report, target)?;
    let missed = report.missed();
    // Figures of speed are for people to judge; something that is held on to is a fault.
    let is_test = matches!(arguments.what, What::SfuSoak(_));
    ensure!(!is_test || missed.is_empty(), "grown: {missed}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn publish(report: &Report, target: &TargetArguments) -> anyhow::Result<()> {
    println!("{report}");
    for (path, text) in [
        (&target.json, report.to_json()?),
        (&target.svg, report.to_svg()),
    ] {
        if let Some(path) = path {
            std::fs::write(path, text)
                .with_context(|| format!("can't write {}", path.display()))?;
        }
    }
    Ok(())
}
