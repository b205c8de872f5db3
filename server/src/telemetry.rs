//! The log, and what else a process sets up once.

use std::io;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts the log on standard error; every later call in the process changes nothing.
///
/// Fails when the filter can't be read.
pub fn start_log(config: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.filter)
        .with_context(|| format!("[log] filter `{}`", config.filter))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let started = match config.format {
        LogFormat::Text => log
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    if started.is_err() {
        tracing::debug!("The log was started before");
    }
    Ok(())
}

/// Lets this process open as many files as the system allows it at most; every connection is one, and so is every relayed port.
///
/// Warns when that is fewer than `needed`: connections would be refused before any limit of ours says so.
pub fn raise_open_files(needed: u64) {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "Can't read the limit of open files");
            return;
        }
    };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "Can't raise the limit of open files");
    }
    if hard < needed {
        tracing::warn!(
            hard,
            needed,
            "Fewer files may be open than `connections_max` and `allocations_max` need: raise the limit of the system (LimitNOFILE) or lower them"
        );
    }
}
