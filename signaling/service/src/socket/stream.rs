//! A WebSocket as frames of text, with every way to break the rules named.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use signaling_wire::{CloseCode, ErrorCode, FRAME_LEN_MAX};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WireCloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::outbox::{Batch, End, Outbox, TOO_SLOW};

/// The buffers of a connection, and by far the most of its memory. With the library's own sizes it would be 136 kB.
const BUFFER_LEN: usize = 4 * 1024;
/// The most that waits inside the library for the socket to take it.
const UNWRITTEN_LEN_MAX: usize = BUFFER_LEN + 2 * FRAME_LEN_MAX;
/// How long a client may take to take leave.
const TIMEOUT_CLOSE: Duration = Duration::from_secs(5);
/// What is read and thrown away meanwhile.
const DISCARDED_LEN_MAX: usize = 1024 * 1024;

/// A WebSocket after its handshake.
pub(super) struct TextSocket {
    inner: WebSocketStream<TokioIo<Upgraded>>,
}

/// What a client sent.
pub(super) enum Received {
    /// A frame.
    Text(Utf8Bytes),
    /// Something else; it is told and the socket closed.
    Violation(Violation),
    /// Nothing more will come.
    Gone,
}

/// A broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) code: ErrorCode,
    pub(super) end: End,
}

impl TextSocket {
    pub(super) async fn new(upgraded: Upgraded) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_LEN)
            .write_buffer_size(BUFFER_LEN)
            .max_write_buffer_size(UNWRITTEN_LEN_MAX)
            .max_message_size(Some(FRAME_LEN_MAX))
            .max_frame_size(Some(FRAME_LEN_MAX));
        let io = TokioIo::new(upgraded);

        Self {
            inner: WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await,
        }
    }

    /// The next frame. Can be given up and asked again.
    pub(super) async fn receive(&mut self) -> Received {
        loop {
            match self.inner.next().await {
                Some(Ok(Message::Text(text))) => return Received::Text(text),
                Some(Ok(Message::Binary(_))) => return Received::Violation(BINARY),
                // The library answers pings, and a close at the next turn.
                Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_),
                )) => {}
                Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                    return Received::Violation(TOO_LARGE);
                }
                Some(Err(Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt)) => {
                    return Received::Violation(NOT_WEBSOCKET);
                }
                Some(Err(_)) | None => return Received::Gone,
            }
        }
    }

    /// Writes all frames and flushes once. Fails when the client takes nothing for `stall`, falls too far behind
    /// in `outbox`, or is gone.
    pub(super) async fn send(
        &mut self,
        frames: Vec<Bytes>,
        outbox: &Outbox,
        stall: Duration,
    ) -> Result<(), Option<End>> {
        let written = AtomicUsize::new(0);
        let mut writing = pin!(self.write(frames, &written));
        let mut alarm: Option<Pin<Box<Sleep>>> = None;
        let mut seen = 0;

        poll_fn(|context| {
            if let Poll::Ready(done) = writing.as_mut().poll(context) {
                return Poll::Ready(done.map_err(|_| None));
            }
            if outbox.poll_too_slow(context).is_ready() {
                return Poll::Ready(Err(Some(TOO_SLOW)));
            }

            // Made only for a client that makes us wait, and set anew whenever it has taken something.
            let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
            let taken = written.load(Ordering::Relaxed);
            if seen != taken {
                seen = taken;
                alarm.as_mut().reset(Instant::now() + stall);
            }
            alarm.as_mut().poll(context).map(|()| Err(Some(TOO_SLOW)))
        })
        .await
    }

    /// Says why and closes: waits for the client's own close, or for a moment.
    pub(super) async fn close(mut self, end: End) {
        let frame = CloseFrame {
            code: WireCloseCode::from(end.code.as_u16()),
            reason: Utf8Bytes::from_static(end.reason),
        };

        let leave = async {
            self.inner.close(Some(frame)).await.ok()?;
            let socket = self.inner.get_mut();
            socket.shutdown().await.ok()?;
            discard(socket).await;
            Some(())
        };
        // A client that doesn't take leave in time is left without.
        let _ = tokio::time::timeout(TIMEOUT_CLOSE, leave).await;
    }

    /// Counts in `written` what the socket has made room for.
    async fn write(&mut self, frames: Vec<Bytes>, written: &AtomicUsize) -> Result<(), Error> {
        for frame in frames {
            // What the core writes is UTF-8; a client is spared anything else.
            if let Ok(text) = Utf8Bytes::try_from(frame) {
                self.inner.feed(Message::Text(text)).await?;
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.inner.flush().await
    }
}

/// Reads until the other side is done: closing with unread data would reset the connection and destroy the close frame
/// on its way.
async fn discard(socket: &mut (impl AsyncRead + Unpin)) {
    let mut discarded = 0;

    while discarded < DISCARDED_LEN_MAX {
        let read = poll_fn(|context| {
            let mut scratch = [0; 1024];
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut *socket).poll_read(context, &mut buffer);
            read.map_ok(|()| buffer.filled().len())
        });

        match read.await {
            Ok(len) if len > 0 => discarded += len,
            _ => return,
        }
    }
}

const BINARY: Violation = Violation {
    code: ErrorCode::BadFrame,
    end: End {
        code: CloseCode::BadFrame,
        reason: "binary frame",
    },
};
const NOT_WEBSOCKET: Violation = Violation {
    code: ErrorCode::BadFrame,
    end: End {
        code: CloseCode::BadFrame,
        reason: "not a WebSocket frame of UTF-8",
    },
};
const TOO_LARGE: Violation = Violation {
    code: ErrorCode::TooLarge,
    end: End {
        code: CloseCode::FrameTooLarge,
        reason: "frame too large",
    },
};

/// Something to write, or something received.
pub(super) enum Event {
    Write(Batch),
    Received(Received),
}

/// Whichever comes first. Frames to write have precedence: they free memory.
pub(super) async fn next_event(socket: &mut TextSocket, outbox: &Outbox) -> Event {
    let mut receiving = pin!(socket.receive());

    poll_fn(|context| {
        if let Poll::Ready(batch) = outbox.poll_take(context) {
            return Poll::Ready(Event::Write(batch));
        }
        receiving.as_mut().poll(context).map(Event::Received)
    })
    .await
}
