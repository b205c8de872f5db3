//! What waits to be written to a WebSocket: filled by the shard, emptied by the socket's task.
//!
//! A channel would cost a block of slots per connection; an idle outbox has no buffer at all.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use signaling_wire::CloseCode;

/// How many frames may wait. A resume can bring 256 at once, with `welcome` before them.
const FRAMES_MAX: usize = 512;
/// How many bytes may wait; the same with 512 KiB.
const BYTES_MAX: usize = 768 * 1024;
/// How long a frame may wait that nobody waits for.
pub(crate) const SOON: Duration = Duration::from_millis(5);

/// Frames on their way to a socket, and how it is to end.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    task: AtomicWaker,
}

#[derive(Default)]
struct State {
    frames: Vec<Bytes>,
    bytes: usize,
    end: Option<End>,
    /// Whether the socket's task was told of the frames.
    is_told: bool,
    /// Whether the shard has it on its list of those to tell soon.
    is_listed: bool,
}

/// When the socket's task must be told of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// It knows, or will.
    Nothing,
    /// By [`wake_if_filled`](Outbox::wake_if_filled), within [`SOON`].
    Soon,
    /// By [`wake`](Outbox::wake), once the frames that are made together are there.
    Now,
}

/// How a socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) code: CloseCode,
    /// For people, at most 123 bytes.
    pub(crate) reason: &'static str,
}

/// What the socket's task takes at once.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) frames: Vec<Bytes>,
    /// What comes after the frames.
    pub(crate) end: Option<End>,
}

impl Outbox {
    /// Adds a frame, unless the end is near. When too much waits already, that is the end: the client is too slow.
    ///
    /// A frame that `may_wait` leaves with the next one that may not, or soon. Returns when the socket's task must be told:
    /// not with every frame, so that frames which are made together leave together.
    #[must_use]
    pub(crate) fn push(&self, frame: Bytes, may_wait: bool) -> Tell {
        let mut state = self.lock();
        if state.end.is_some() {
            return Tell::Nothing;
        }

        if state.frames.len() == FRAMES_MAX || state.bytes + frame.len() > BYTES_MAX {
            state.end = Some(TOO_SLOW);
            return Tell::Now;
        }
        state.bytes += frame.len();
        state.frames.push(frame);

        if state.is_told || (may_wait && state.is_listed) {
            Tell::Nothing
        } else if may_wait {
            state.is_listed = true;
            Tell::Soon
        } else {
            state.is_told = true;
            Tell::Now
        }
    }

    /// Tells the socket's task that there is something.
    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// The same, after [`Tell::Soon`], if nobody has taken it meanwhile.
    pub(crate) fn wake_if_filled(&self) {
        let mut state = self.lock();
        state.is_listed = false;
        if state.frames.is_empty() || state.is_told {
            return;
        }
        state.is_told = true;
        drop(state);
        self.wake();
    }

    /// Ends the socket after what was added before. The first end counts.
    pub(crate) fn close(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.wake();
    }

    /// Takes everything, once there is something.
    pub(crate) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Batch> {
        // Registered first: what is added after the look wakes us.
        self.task.register(context.waker());
        let mut state = self.lock();

        if state.frames.is_empty() && state.end.is_none() {
            return Poll::Pending;
        }
        state.bytes = 0;
        state.is_told = false;
        Poll::Ready(Batch {
            frames: std::mem::take(&mut state.frames),
            end: state.end,
        })
    }

    /// Waits until the client is known to be too slow, while something is being written.
    pub(crate) fn poll_too_slow(&self, context: &mut Context<'_>) -> Poll<()> {
        self.task.register(context.waker());

        match self.lock().end {
            Some(TOO_SLOW) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client does not read what it is sent.
pub(crate) const TOO_SLOW: End = End {
    code: CloseCode::TooSlow,
    reason: "too slow",
};

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn frames_come_out_in_order_and_the_end_after_them() {
        let outbox = Outbox::default();
        assert!(take(&outbox).is_none());

        assert_eq!(outbox.push("a".into(), false), Tell::Now);
        assert_eq!(
            outbox.push("b".into(), false),
            Tell::Nothing,
            "one call wakes for both"
        );
        outbox.close(BYE);
        assert_eq!(outbox.push("late".into(), false), Tell::Nothing);
        outbox.close(TOO_SLOW);

        let batch = take(&outbox).unwrap();
        assert_eq!(batch.frames, ["a", "b"]);
        assert_eq!(batch.end, Some(BYE));
    }

    #[test]
    fn what_may_wait_leaves_with_what_may_not() {
        let outbox = Outbox::default();

        assert_eq!(outbox.push("ok".into(), true), Tell::Soon);
        assert_eq!(outbox.push("ok".into(), true), Tell::Nothing);
        assert_eq!(outbox.push("news".into(), false), Tell::Now);
        assert_eq!(outbox.push("ok".into(), true), Tell::Nothing);
        assert_eq!(take(&outbox).unwrap().frames.len(), 4);

        // Still on the shard's list.
        assert_eq!(outbox.push("ok".into(), true), Tell::Nothing);
        outbox.wake_if_filled();
        assert_eq!(take(&outbox).unwrap().frames, ["ok"]);
        assert_eq!(outbox.push("ok".into(), true), Tell::Soon);
    }

    #[test]
    fn a_client_that_reads_nothing_is_too_slow_at_a_limit() {
        let outbox = Outbox::default();

        for _ in 0..FRAMES_MAX {
            let _ = outbox.push("x".into(), false);
        }
        assert!(take_end(&outbox).is_none());

        for _ in 0..=FRAMES_MAX {
            let _ = outbox.push("x".into(), false);
        }
        assert_eq!(take_end(&outbox), Some(TOO_SLOW));
    }

    #[test]
    fn large_frames_count_by_their_bytes() {
        let outbox = Outbox::default();
        let frame = Bytes::from(vec![b'x'; 64 * 1024]);

        for _ in 0..=BYTES_MAX / frame.len() {
            let _ = outbox.push(frame.clone(), false);
        }
        assert_eq!(take_end(&outbox), Some(TOO_SLOW));
    }

    const BYE: End = End {
        code: CloseCode::Bye,
        reason: "bye",
    };

    fn take(outbox: &Outbox) -> Option<Batch> {
        match outbox.poll_take(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(batch) => Some(batch),
            Poll::Pending => None,
        }
    }

    fn take_end(outbox: &Outbox) -> Option<End> {
        take(outbox).and_then(|batch| batch.end)
    }
}
