//! The `offhook` binary.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use offhook::cli::{Cli, Command, ConfigOptions, DoctorQuestion, ServeOptions};
use offhook::config::load::{Loaded, load};
use offhook::config::reload::Changes;
use offhook::config::secrecy;
use offhook::plan::Plan;
use offhook::run::Server;
use offhook::telephony::apply::{Applied, apply};
use offhook::{banner, commands, config, doctor, telemetry, usage};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Tens of thousands of quiet WebSockets cost less memory with it than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a shell expects of a process that a second SIGINT or SIGTERM ended.
const EXIT_INTERRUPTED: u8 = 130;

/// What `offhook apply` ends with where it would change something and was not to.
const EXIT_SHOWN: u8 = 2;

/// A verdict that nobody can tell, for a mistake in what was asked or in the settings.
const EXIT_UNTOLD: u8 = 2;

fn main() -> ExitCode {
    // Huge pages of an allocator's half-empty ones are memory nobody asked for, and the kernel makes them when it has time: twice as
    // much is resident, in steps that look like a leak. Where the system does not have them there is nothing to switch off.
    nix::sys::prctl::set_thp_disable(true).ok();
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "offhook: {error:#}"); // There is nowhere else to tell it.
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("can't start the runtime")?;
    match &cli.command {
        None => runtime.block_on(serve(cli, &cli.serve)),
        Some(Command::Serve(options)) => {
            let options = ServeOptions {
                lan: options.lan || cli.serve.lan,
                roles: options.roles.clone().or_else(|| cli.serve.roles.clone()),
                web: options.web.clone().or_else(|| cli.serve.web.clone()),
            };
            runtime.block_on(serve(cli, &options))
        }
        Some(Command::Config(ConfigOptions { example: true, .. })) => {
            say(&config::example::text()?)
        }
        Some(Command::Config(_)) => {
            settings(cli)?;
            say("The settings are good.\n")
        }
        Some(Command::Token(options)) => {
            say(&runtime.block_on(commands::token(&settings(cli)?.config, options))?)
        }
        Some(Command::Account(command)) => {
            say(&runtime.block_on(commands::account(&settings(cli)?.config, command))?)
        }
        Some(Command::Apply(options)) => {
            let config = settings(cli)?.config;
            let applied =
                runtime.block_on(apply(&config, options, &mut |text| say(text).map(drop)))?;
            Ok(match applied {
                Applied::Same | Applied::Changed => ExitCode::SUCCESS,
                Applied::Shown => ExitCode::from(EXIT_SHOWN),
            })
        }
        // A mistake in them is told here rather than in the server's log alone.
        Some(Command::Reload) => say(&commands::reload(&settings(cli)?.config)?),
        Some(Command::Usage(options)) => {
            say(&runtime.block_on(usage::report::usage(&settings(cli)?.config, options))?)
        }
        Some(Command::Doctor(options)) => {
            if let Some(DoctorQuestion::Relay { client, peer }) = &options.question {
                return runtime.block_on(explain(cli, client, peer, options.json));
            }
            let file = cli.config.as_deref();
            let report = runtime.block_on(doctor::examine(settings(cli), file, options));
            say(&if options.json {
                report.json()
            } else {
                report.text()
            })?;
            Ok(if report.is_healthy() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

/// Tells what the relay decides about a pair; what can't be told is neither a yes nor a no.
async fn explain(cli: &Cli, client: &str, peer: &str, json: bool) -> anyhow::Result<ExitCode> {
    let explained = async { doctor::pair::explain(settings(cli)?, client, peer).await };
    let report = match explained.await {
        Ok(report) => report,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "offhook: {error:#}"); // There is nowhere else to tell it.
            return Ok(ExitCode::from(EXIT_UNTOLD));
        }
    };
    say(&if json { report.json() } else { report.text() })?;
    Ok(match report.is_healthy() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn settings(cli: &Cli) -> anyhow::Result<Loaded> {
    let mut loaded = load(cli.config.as_deref())?;
    if let Some(data) = &cli.data {
        loaded.config.data_dir.clone_from(data);
    }
    Ok(loaded)
}

async fn serve(cli: &Cli, options: &ServeOptions) -> anyhow::Result<ExitCode> {
    // Before the settings are read and anything is open, so that a signal in the middle of starting isn't lost.
    let mut signals = Signals::new()?;
    let plan = Plan::new(settings(cli)?, options)?;
    telemetry::start_log(&plan.config.log)?;
    telemetry::raise_open_files(plan.open_files());
    if let Some(file) = cli
        .config
        .as_deref()
        .filter(|file| secrecy::is_exposed(file))
    {
        tracing::warn!(
            file = %file.display(),
            "The settings hold secrets, and everybody on this machine can read them: change its group to that of the server, then chmod 640"
        );
    }
    let server = tokio::select! {
        server = Server::start(&plan) => server?,
        () = signals.end() => return Ok(ExitCode::SUCCESS),
    };
    say(&banner::text(&plan, &server))?;

    let code = loop {
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Reload => reload(&server, cli, options).await,
                Wish::End => break ExitCode::SUCCESS,
            },
            part = server.broken() => {
                tracing::error!(part, "A part has ended by itself");
                break ExitCode::FAILURE;
            }
        }
    };
    tracing::info!("Ending; a second signal ends at once");
    tokio::select! {
        () = server.stop() => Ok(code),
        () = signals.end() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
    }
}

/// Has the server read everything again; the log tells what came of it.
async fn reload(server: &Server, cli: &Cli, options: &ServeOptions) {
    let read = settings(cli).and_then(|loaded| Plan::new(loaded, options));
    match server.reload(read).await {
        Ok(Changes { live, restart }) => {
            tracing::info!(changed = live.join(", "), "Read the settings again");
            if !restart.is_empty() {
                tracing::warn!(settings = restart.join(", "), "Needs a restart");
            }
        }
        Err(error) => tracing::error!(error = format!("{error:#}"), "Keeping the settings in use"),
    }
}

/// What a signal asks for.
enum Wish {
    End,
    /// Read settings and certificate again.
    Reload,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("can't listen to signals");
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hangup: of(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::End,
            _ = self.terminate.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits until somebody wants the process to end. A hangup meanwhile is kept for [`next`](Self::next): what was read before it
    /// may be out of date.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Prints to standard output; a reader that went away is no error.
fn say(text: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("can't print")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
