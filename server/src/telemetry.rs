//! The log, and what else a process sets up once.

use std::io;
use std::sync::OnceLock;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Puts another filter in place of the log's.
type SetFilter = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

/// The log's, once it was started: there is one for each process.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Starts the log on standard error; every later call in the process changes nothing.
///
/// Fails when the filter can't be read.
pub fn start_log(config: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.filter)
        .with_context(|| format!("[log] filter `{}`", config.filter))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let (started, set_filter): (_, SetFilter) = match config.format {
        LogFormat::Text => {
            let log = log
                .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
                .with_filter_reloading();
            let filter = log.reload_handle();
            (
                log.try_init(),
                Box::new(move |new| filter.reload(new).context("the log has ended")),
            )
        }
        LogFormat::Json => {
            let log = log.json().with_filter_reloading();
            let filter = log.reload_handle();
            (
                log.try_init(),
                Box::new(move |new| filter.reload(new).context("the log has ended")),
            )
        }
    };
    if started.is_err() || SET_FILTER.set(set_filter).is_err() {
        tracing::debug!("The log was started before");
    }
    Ok(())
}

/// Shows something else in the log from now on; nothing changes in a process that has started none.
///
/// Fails, and changes nothing, when the filter can't be read.
pub fn set_filter(filter: &str) -> anyhow::Result<()> {
    let new = EnvFilter::try_new(filter).with_context(|| format!("[log] filter `{filter}`"))?;
    SET_FILTER.get().map_or(Ok(()), |set| set(new))
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
