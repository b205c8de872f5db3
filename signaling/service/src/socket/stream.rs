//! A WebSocket as frames of text, with every way to break the rules named.
//!
//! The library decides what bytes mean; we move them. It is handed what one read brought and keeps no more than a frame that
//! is not whole yet, so an idle socket has no buffer, and what was sent together is received and answered together.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use signaling_wire::{CloseCode, ErrorCode, FRAME_LEN_MAX, HELLO_LEN_MAX};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{
    CloseCode as WireCloseCode, Data, OpCode,
};
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, Role, WebSocketConfig, WebSocketContext,
};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::outbox::{Batch, End, Outbox, TOO_SLOW};

/// How much is read at once, into a buffer that all sockets of a thread share. So much of the shortest frames has fewer answers
/// than an outbox holds: a client that asks and does not listen is no longer read before it overflows.
const READ_LEN: usize = 4 * 1024;
/// How much is gathered before it is written.
const WRITE_LEN: usize = 16 * 1024;
/// What the library sets aside for the frame to come, and by how much its buffer grows at least.
const AHEAD_LEN: usize = 128;
/// How long a client may take to take leave.
const TIMEOUT_CLOSE: Duration = Duration::from_secs(5);
/// What is read and thrown away meanwhile.
const DISCARDED_LEN_MAX: usize = 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_LEN].into());
}

/// A WebSocket after its handshake.
pub(super) struct TextSocket {
    io: TokioIo<Upgraded>,
    protocol: WebSocketContext,
    /// What the socket has not taken yet; no buffer when that is nothing.
    unwritten: Vec<u8>,
    /// How much the socket has taken.
    written: u64,
    /// Whether the stream may hold back something of what it has taken.
    is_unflushed: bool,
    /// Why nothing more will be received.
    over: Option<Over>,
}

/// Why nothing more is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// A rule was broken; the client is told and the socket closed.
    Violation(Violation),
    /// The client has left.
    Gone,
}

/// A broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) code: ErrorCode,
    pub(super) end: End,
}

impl TextSocket {
    pub(super) fn new(upgraded: Upgraded) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(AHEAD_LEN)
            .write_buffer_size(0)
            .max_message_size(Some(HELLO_LEN_MAX))
            .max_frame_size(Some(HELLO_LEN_MAX));

        Self {
            io: TokioIo::new(upgraded),
            protocol: WebSocketContext::new(Role::Server, Some(config)),
            unwritten: Vec::new(),
            written: 0,
            is_unflushed: false,
            over: None,
        }
    }

    /// Takes frames as long as a Session may send them; whoever has not said who they are gets less of our memory.
    pub(super) fn allow_long_frames(&mut self) {
        self.protocol.set_config(|config| {
            config.max_message_size = Some(FRAME_LEN_MAX);
            config.max_frame_size = Some(FRAME_LEN_MAX);
        });
    }

    /// The next frames, at least one and no more than one read brings. Can be given up and asked again.
    pub(super) async fn receive(&mut self) -> Result<Vec<Utf8Bytes>, Over> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    /// Writes all frames and flushes. Fails when the client takes nothing for `stall`, falls too far behind in `outbox`, or
    /// is gone.
    pub(super) async fn send(
        &mut self,
        frames: Vec<Bytes>,
        outbox: &Outbox,
        stall: Duration,
    ) -> Result<(), Option<End>> {
        let mut frames = frames.into_iter();
        let mut alarm: Option<Pin<Box<Sleep>>> = None;
        let mut seen = self.written;

        poll_fn(|context| {
            loop {
                while self.unwritten.len() < WRITE_LEN
                    && let Some(frame) = frames.next()
                {
                    self.put(&frame);
                }
                match self.poll_flush(context) {
                    Poll::Ready(Ok(())) if frames.len() == 0 => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(None)),
                    Poll::Pending => break,
                }
            }
            if outbox.poll_too_slow(context).is_ready() {
                return Poll::Ready(Err(Some(TOO_SLOW)));
            }

            // Made only for a client that makes us wait, and set anew whenever it has taken something.
            let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
            if seen != self.written {
                seen = self.written;
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
        let mut pipe = Pipe {
            input: &[],
            output: &mut self.unwritten,
        };
        // It fails when the client has closed already; then the answer to that is what is left to write.
        let _ = self.protocol.close(&mut pipe, Some(frame));

        let leave = async {
            poll_fn(|context| self.poll_flush(context)).await.ok()?;
            self.io.shutdown().await.ok()?;
            discard(&mut self.io).await;
            Some(())
        };
        // A client that doesn't take leave in time is left without.
        let _ = tokio::time::timeout(TIMEOUT_CLOSE, leave).await;
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<Utf8Bytes>, Over>> {
        loop {
            // Pongs, and the answer to a close, go out before more is read that could ask for more of them.
            let flushed = self.poll_flush(context);
            if let Some(over) = self.over {
                return Poll::Ready(Err(over));
            }
            if ready!(flushed).is_err() {
                self.over = Some(Over::Gone);
                continue;
            }

            let texts = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                let read = Pin::new(&mut self.io).poll_read(context, &mut buffer);
                read.map(|read| match read {
                    Ok(()) if !buffer.filled().is_empty() => self.take_in(buffer.filled()),
                    Ok(()) | Err(_) => {
                        self.over = Some(Over::Gone);
                        Vec::new()
                    }
                })
            });
            let texts = ready!(texts);
            if !texts.is_empty() {
                return Poll::Ready(Ok(texts));
            }
        }
    }

    /// The frames that are whole with `bytes`.
    fn take_in(&mut self, bytes: &[u8]) -> Vec<Utf8Bytes> {
        let mut texts = Vec::new();
        let mut pipe = Pipe {
            input: bytes,
            output: &mut self.unwritten,
        };

        self.over = loop {
            match self.protocol.read(&mut pipe) {
                Ok(Message::Text(text)) => texts.push(text),
                Ok(Message::Binary(_)) => break Some(Over::Violation(BINARY)),
                // The library answers pings, and a close at the next turn.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break None,
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                    break Some(Over::Violation(TOO_LARGE));
                }
                Err(Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt) => {
                    break Some(Over::Violation(NOT_WEBSOCKET));
                }
                Err(_) => break Some(Over::Gone),
            }
        };
        texts
    }

    /// Adds a frame of text to what is to be written. What the core writes is UTF-8.
    fn put(&mut self, text: &[u8]) {
        let header = FrameHeader {
            opcode: OpCode::Data(Data::Text),
            ..FrameHeader::default()
        };
        let len = text.len() as u64;

        self.unwritten.reserve(header.len(len) + text.len());
        // Writing to a vector cannot fail.
        let _ = header.format(len, &mut self.unwritten);
        self.unwritten.extend_from_slice(text);
    }

    /// Writes what is unwritten.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let taken = ready!(Pin::new(&mut self.io).poll_write(context, &self.unwritten))?;
            if taken == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.is_unflushed = true;
            self.written += taken as u64;
            if taken == self.unwritten.len() {
                self.unwritten = Vec::new(); // An idle socket holds no buffer.
            } else {
                self.unwritten.drain(..taken);
            }
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(context))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// The library's idea of a socket: what was read, and what is to be written.
struct Pipe<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads until the other side is done: closing with unread data would reset the connection and destroy the close frame
/// on its way.
async fn discard(socket: &mut (impl AsyncRead + Unpin)) {
    let mut discarded = 0;

    while discarded < DISCARDED_LEN_MAX {
        let read = poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                let read = Pin::new(&mut *socket).poll_read(context, &mut buffer);
                read.map_ok(|()| buffer.filled().len())
            })
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
    Received(Result<Vec<Utf8Bytes>, Over>),
}

/// Whichever comes first. Frames to write have precedence: they free memory.
pub(super) async fn next_event(socket: &mut TextSocket, outbox: &Outbox) -> Event {
    poll_fn(|context| {
        if let Poll::Ready(batch) = outbox.poll_take(context) {
            return Poll::Ready(Event::Write(batch));
        }
        socket.poll_receive(context).map(Event::Received)
    })
    .await
}
