//! Streams that remember: [`Replay`] gives bytes back that were already read, [`Guarded`] holds a place among the connections
//! and gives up a peer that stops reading.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::limits::Place;

/// A stream whose first bytes were read ahead; reading gives those first, then what follows.
#[derive(Debug)]
pub(super) struct Replay<Io> {
    ahead: Vec<u8>,
    io: Io,
}

impl<Io> Replay<Io> {
    /// Puts `ahead` back in front of `io`.
    pub(super) fn new(ahead: Vec<u8>, io: Io) -> Self {
        Self { ahead, io }
    }

    /// Takes the two apart again: the bytes not yet given back, and the stream.
    pub(super) fn into_parts(self) -> (Vec<u8>, Io) {
        (self.ahead, self.io)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Replay<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let len = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..len]);
        self.ahead.drain(..len);
        if self.ahead.is_empty() {
            self.ahead = Vec::new(); // An idle WebSocket need not keep the capacity.
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Replay<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A TCP stream with its [`Place`] among the connections, given back when the stream is dropped, wherever that happens.
///
/// A write that makes no progress for `stall_max` fails with [`io::ErrorKind::TimedOut`], so that a peer which never reads can't
/// hold its place for ever.
#[derive(Debug)]
pub(super) struct Guarded {
    io: TcpStream,
    stall_max: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    place: Place,
}

impl Guarded {
    /// Wraps `io`, which holds `place` from now on.
    pub(super) fn new(io: TcpStream, place: Place, stall_max: Duration) -> Self {
        Self {
            io,
            stall_max,
            stalled: None,
            place,
        }
    }

    /// The place it holds.
    pub(super) fn place(&mut self) -> &mut Place {
        &mut self.place
    }

    /// Passes a write's outcome on; while it is pending, the clock runs.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let deadline = Instant::now() + self.stall_max;
        let sleep = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx) // Never pending, so it tells nothing about progress.
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn bytes_read_ahead_come_first() {
        let mut replay = Replay::new(b"GET / ".to_vec(), &b"HTTP/1.1"[..]);
        let mut two = [0; 2];
        replay.read_exact(&mut two).await.unwrap();
        assert_eq!(&two, b"GE");

        let mut rest = String::new();
        replay.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "T / HTTP/1.1");
    }

    #[tokio::test]
    async fn a_peer_that_never_reads_is_given_up() {
        use crate::listener::limits::{Counter, Limits};
        use tokio::io::AsyncWriteExt;

        let limits = Limits {
            connections_max: 1,
            per_address_max: 1,
            newcomers_max: 1,
            newcomers_per_address_max: 1,
        };
        let counter = Counter::new(limits);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let (place, _) = counter.admit(peer.ip(), false).unwrap();
        let mut guarded = Guarded::new(accepted, place, Duration::from_millis(100));

        let error = loop {
            if let Err(error) = guarded.write_all(&[0; 65_536]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(guarded);
        assert_eq!(counter.total(), 0);
    }
}
