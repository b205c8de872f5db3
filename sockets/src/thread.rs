//! A thread for each core.

/// How exact naps are, in nanoseconds.
const TIMER_SLACK: u64 = 1_000;

/// Makes the thread that calls one of the data path: bound to `core`, where one is named, and woken when it is time.
pub fn settle(core: Option<usize>) {
    if let Some(core) = core
        && let Err(error) = pin(core)
    {
        tracing::debug!(%error, core, "Thread not pinned");
    }
    nix::sys::prctl::set_timerslack(TIMER_SLACK).ok(); // Naps are longer.
}

/// The cores this process may use.
#[must_use]
pub fn cores() -> Vec<usize> {
    let cores = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
    let usable = |cores: nix::sched::CpuSet| {
        (0..nix::sched::CpuSet::count()).filter(move |core| cores.is_set(*core).unwrap_or(false))
    };
    cores.into_iter().flat_map(usable).collect()
}

fn pin(core: usize) -> nix::Result<()> {
    let mut cores = nix::sched::CpuSet::new();
    cores.set(core)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cores)
}
