//! What waits to be written to a TCP, TLS or DTLS client, within a bound.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use relay_core::Transport;
use relay_stun::{STREAM_FRAME_LEN_MAX, next_frame};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long one write may take before the client counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A buffer that grew beyond this is given back once it is empty, in bytes.
const BUFFER_KEPT_MAX: usize = 4096;

/// A bounded queue of bytes toward one client.
pub(crate) struct Sender {
    waiting: RefCell<Vec<u8>>,
    bytes_max: usize,
    more: Notify,
    /// A response found no room: the client reads nothing, and is not worth waiting for.
    overrun: Cell<bool>,
    /// Nothing will follow what waits.
    finished: Cell<bool>,
}

impl Sender {
    pub(crate) fn new(bytes_max: usize) -> Sender {
        Sender {
            waiting: RefCell::default(),
            bytes_max,
            more: Notify::new(),
            overrun: Cell::new(false),
            finished: Cell::new(false),
        }
    }

    /// How many bytes wait.
    pub(crate) fn queued(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Has [`write_all`](Self::write_all) end once it has written what waits.
    pub(crate) fn finish(&self) {
        self.finished.set(true);
        self.more.notify_one();
    }

    /// Queues one message; `false` where it was dropped since the queue is full. Media may fill
    /// half of the queue only, so that responses still find room behind it.
    pub(crate) fn push(&self, bytes: &[u8], is_media: bool) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let bytes_max = if is_media {
            self.bytes_max / 2
        } else {
            self.bytes_max
        };
        if waiting.len() + bytes.len() > bytes_max.max(bytes.len()) {
            if !is_media {
                self.overrun.set(true);
                self.more.notify_one();
            }
            return false;
        }
        waiting.extend_from_slice(bytes);
        self.more.notify_one();
        true
    }

    /// Writes what is queued until all of it is written and no more will come, which is `true`, or
    /// the client is gone or reads too slowly. Over TLS each message
    /// becomes a record of its own: coturn's clients take one record for one message. Over DTLS it has
    /// to, for a record is a datagram.
    pub(crate) async fn write_all(
        &self,
        mut stream: impl AsyncWrite + Unpin,
        transport: Transport,
    ) -> bool {
        let mut writing = Vec::new();
        loop {
            self.more.notified().await;
            if self.overrun.get() {
                return false;
            }
            std::mem::swap(&mut writing, &mut *self.waiting.borrow_mut());
            let written = timeout(WRITE_TIMEOUT, async {
                let mut rest = &writing[..];
                while !rest.is_empty() {
                    let message;
                    (message, rest) = rest.split_at(match transport {
                        Transport::Tls | Transport::Dtls => message_len(rest),
                        _ => rest.len(),
                    });
                    stream.write_all(message).await?;
                }
                stream.flush().await
            });
            if !matches!(written.await, Ok(Ok(()))) {
                return false;
            }
            if self.finished.get() && self.waiting.borrow().is_empty() {
                return true;
            }
            writing.clear();
            writing.shrink_to(BUFFER_KEPT_MAX);
        }
    }
}

/// The length of the message `bytes` begin with, padding included.
fn message_len(bytes: &[u8]) -> usize {
    match next_frame(bytes, STREAM_FRAME_LEN_MAX) {
        Ok(Some(frame)) => frame.consumed,
        _ => bytes.len(), // Never so: only whole messages are queued.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_leaves_room_for_responses() {
        let sender = Sender::new(100);
        assert!(sender.push(&[0; 40], true));
        assert!(!sender.push(&[0; 40], true));
        assert!(sender.push(&[0; 40], false));
        assert!(!sender.overrun.get());
        assert!(!sender.push(&[0; 40], false));
        assert!(sender.overrun.get());
    }
}
