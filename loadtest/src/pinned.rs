//! Children that are measured: our own program and others, each on a core of its own.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Files a process may open: a descriptor for each Allocation or client, and some.
const FILES_MAX: u64 = 100_000;

/// The arguments of the hidden command that runs a program on one core.
#[derive(Args)]
pub(crate) struct PinnedArguments {
    #[arg(long)]
    core: Option<usize>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Becomes the program asked for, bound to a core, in a scheduling group of its own and with many files allowed.
pub(crate) fn run_pinned(arguments: &PinnedArguments) -> anyhow::Result<()> {
    if let Some(core) = arguments.core {
        pin(core)?;
    }
    nix::unistd::setsid().ok(); // Already its leader.
    raise_share();
    raise_files()?;
    let (program, rest) = arguments.command.split_first().context("nothing to run")?;
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("can't run {program}"))
}

/// Binds this thread, and what it starts, to one core.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
}

/// Asks for the largest share of a busy machine; only the administrator gets it, and others measure without.
pub(crate) fn raise_share() {
    std::fs::write("/proc/self/autogroup", "-19").ok();
}

/// Lets this process, and what it starts, have many files open: each connection is one.
pub(crate) fn raise_files() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(
        Resource::RLIMIT_NOFILE,
        FILES_MAX.min(hard),
        hard,
    )?)
}

/// A port nobody listens on at the moment.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    // At all addresses: hundreds of clients have ports of their own at some.
    Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?
        .local_addr()?
        .port())
}

/// Our program: beside this one. Started by Cargo, it is built first, so that nothing old is measured.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let itself = std::env::current_exe()?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let status = Command::new(cargo)
            .args(["build", "--release", "--locked", "-p", "offhook"])
            .status()
            .context("can't run cargo")?;
        ensure!(status.success(), "offhook can't be built");
    }
    Ok(itself.with_file_name("offhook"))
}
