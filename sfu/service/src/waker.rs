//! How other threads reach a shard: what they send waits in a bounded channel, and an event wakes the shard.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::task;

use nix::sys::eventfd::EventFd;
use sockets::wake::Waker;

/// Reaches a shard from other threads.
pub(crate) struct Remote<T> {
    channel: SyncSender<T>,
    waker: Arc<Waker>,
}

impl<T> fmt::Debug for Remote<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

impl<T> Clone for Remote<T> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            waker: self.waker.clone(),
        }
    }
}

/// The shard's end of a [`Remote`].
pub(crate) struct Inlet<T> {
    channel: Receiver<T>,
    waker: Arc<Waker>,
}

impl<T> Remote<T> {
    /// One more channel to the same thread, for messages of another kind; `waiting_max` may wait.
    pub(crate) fn beside<U>(&self, waiting_max: usize) -> (Remote<U>, Receiver<U>) {
        let (channel, receiver) = sync_channel(waiting_max);
        let waker = self.waker.clone();
        (Remote { channel, waker }, receiver)
    }
}

/// Makes the two ends; `waiting_max` messages may wait.
///
/// # Errors
///
/// The system has no event left.
pub(crate) fn connect<T>(waiting_max: usize) -> io::Result<(Remote<T>, Inlet<T>)> {
    let waker = Waker::new()?;
    let (sender, receiver) = sync_channel(waiting_max);
    let remote = Remote {
        channel: sender,
        waker: waker.clone(),
    };
    let inlet = Inlet {
        channel: receiver,
        waker,
    };
    Ok((remote, inlet))
}

impl<T> Remote<T> {
    /// Tells the shard, and waits for room where there is none. Fails once the shard has ended.
    pub(crate) fn send(&self, message: T) -> Result<(), T> {
        let sent = self.channel.send(message).map_err(|error| error.0);
        self.wake();
        sent
    }

    /// Tells the shard, unless too much waits already or the shard has ended.
    pub(crate) fn try_send(&self, message: T) -> Result<(), T> {
        let sent = self.channel.try_send(message).map_err(|error| match error {
            TrySendError::Full(message) | TrySendError::Disconnected(message) => message,
        });
        self.wake();
        sent
    }

    fn wake(&self) {
        self.waker.call();
    }

    /// Wakes the shard, for those who leave what they have for it elsewhere.
    pub(crate) fn waker(&self) -> task::Waker {
        self.waker.clone().into()
    }
}

impl<T> Inlet<T> {
    /// Wakes the shard, for those who leave what they have for it elsewhere.
    pub(crate) fn waker(&self) -> task::Waker {
        self.waker.clone().into()
    }

    /// What tells that something waits.
    pub(crate) fn event(&self) -> &EventFd {
        self.waker.event()
    }

    /// Makes the event quiet; what was sent before is received after this.
    pub(crate) fn hear(&self) {
        self.waker.hear();
    }

    /// Has the event ring again, for what was not received yet.
    pub(crate) fn ring(&self) {
        self.waker.call();
    }

    /// The next message, if one waits.
    pub(crate) fn receive(&self) -> Option<T> {
        self.channel.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_rings_once_and_waits() {
        let (remote, inlet) = connect(2).unwrap();
        assert_eq!(remote.try_send(1), Ok(()));
        assert_eq!(remote.try_send(2), Ok(()));
        assert_eq!(remote.try_send(3), Err(3), "no room");
        assert_eq!(inlet.event().read(), Ok(1), "it rang once");

        inlet.hear();
        assert_eq!(
            (inlet.receive(), inlet.receive(), inlet.receive()),
            (Some(1), Some(2), None)
        );
        drop(inlet);
        assert_eq!(remote.send(4), Err(4), "nobody there");
    }
}
