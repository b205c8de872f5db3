//! Waking a thread that waits for its sockets.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// An event that a thread waits for among its sockets. However often others call, the thread is woken once until it has heard; and
/// what was left for it before the call is there to be seen after the hearing.
#[derive(Debug)]
pub struct Waker {
    event: EventFd,
    /// Somebody has called and was not heard yet.
    called: AtomicBool,
}

impl Waker {
    /// An event nobody has called by.
    ///
    /// # Errors
    ///
    /// The system has no event left.
    pub fn new() -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Arc::new(Self {
            event: EventFd::from_value_and_flags(0, flags)?,
            called: AtomicBool::new(false),
        }))
    }

    /// What can be read from once somebody has called.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Wakes the thread.
    pub fn call(&self) {
        // The counter can't overflow: it is written once between two readings.
        if !self.called.swap(true, Ordering::AcqRel)
            && let Err(error) = self.event.write(1)
        {
            tracing::error!(%error, "Thread of the data path not woken");
        }
    }

    /// Makes the event quiet, for the thread that was woken.
    pub fn hear(&self) {
        self.event.read().ok(); // Empty after an early hearing.
        // What was left before the call is seen after this.
        self.called.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Waker {
    fn wake(self: Arc<Self>) {
        self.call();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.call();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_calls_are_one_event_until_they_are_heard() {
        let waker = Waker::new().unwrap();
        for _ in 0..2 {
            waker.call();
            waker.call();
            assert_eq!(waker.event().read(), Ok(1));
            assert!(waker.event().read().is_err(), "quiet");
            waker.call();
            assert!(waker.event().read().is_err(), "not heard yet");
            waker.hear();
        }
    }
}
