//! Time for the core: moments since 1970 that never jump by accident.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use model::Timestamp;

/// From how far off on the system's clock was set rather than drifted, in milliseconds.
const STEP_MS: u64 = 2_000;

/// Counts from the system's clock, but by the monotonic one: timers don't fire early because somebody set the time.
pub(crate) struct Clock {
    started_at: Instant,
    /// Milliseconds since 1970 when it started, as far as is known now.
    epoch_ms: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            started_at: Instant::now(),
            epoch_ms: AtomicU64::new(system_ms()),
        }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.epoch_ms.load(Ordering::Relaxed) + self.elapsed_ms())
    }

    /// Follows the system's clock when it was set, such as after a boot without the right time.
    pub(crate) fn follow(&self) {
        let (ours, theirs) = (self.now().as_millis(), system_ms());

        if ours.abs_diff(theirs) >= STEP_MS {
            tracing::warn!(ours, theirs, "The system's clock was set");
            self.epoch_ms
                .store(theirs.saturating_sub(self.elapsed_ms()), Ordering::Relaxed);
        }
    }

    /// Until `moment`, from now; zero when it has passed.
    pub(crate) fn until(&self, moment: Timestamp) -> std::time::Duration {
        std::time::Duration::from_millis((moment - self.now()).get())
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn system_ms() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();

    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
