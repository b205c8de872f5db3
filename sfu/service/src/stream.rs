//! Clients that can't send UDP: the same datagrams, framed on a TCP stream (ICE-TCP, RFC 6544; framing of RFC 4571 §2).
//!
//! The server's shared port hands the stream over ([`Handle::serve_stream`](crate::Handle::serve_stream)). Its first frame is a
//! STUN request whose user name leads it to its shard; who comes with any other is let go. From then on a task moves frames, and
//! the shard treats them as datagrams from one more socket.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use relay_stun::{AttributeType, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::outgoing::DATAGRAM_LEN_MAX;
use crate::shard::StreamEvent;
use crate::waker::Remote;

/// How many datagrams may wait for a stream: a second of video.
const QUEUE_MAX: usize = 256;

/// How soon the first frame has to be there.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// The length before each frame.
const PREFIX_LEN: usize = 2;

/// The frames of a stream, cut out of its bytes.
struct Frames {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
}

/// A frame that no datagram could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameTooLong;

impl Frames {
    fn new(already_read: &[u8]) -> Self {
        Self {
            bytes: already_read.to_vec(),
            start: 0,
        }
    }

    /// The next frame, if all of it is there.
    fn next(&mut self) -> Result<Option<&[u8]>, FrameTooLong> {
        let rest = &self.bytes[self.start..];
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes(*prefix));
        if len > DATAGRAM_LEN_MAX {
            return Err(FrameTooLong);
        }
        if rest.len() < len {
            return Ok(None);
        }
        let begin = self.start + PREFIX_LEN;
        self.start = begin + len;
        Ok(Some(&self.bytes[begin..begin + len]))
    }

    /// Forgets the frames that were taken.
    fn compact(&mut self) {
        self.bytes.drain(..self.start);
        self.start = 0;
    }
}

/// What the first frame says the stream is for: the part of the user name that was ours to give (RFC 8445 §7.2.2).
pub(crate) fn ufrag(frame: &[u8]) -> Option<String> {
    let message = Message::parse(frame).ok()?;
    let user = message.text(AttributeType::USERNAME)?;
    user.split(':').next().map(str::to_owned)
}

/// Moves frames between a stream and the shard that `shard_of` finds for its first one, until either ends.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    already_read: Bytes,
    client: SocketAddr,
    shard_of: impl Fn(&str) -> Option<Remote<StreamEvent>>,
) {
    let mut frames = Frames::new(&already_read);
    let first = tokio::time::timeout(FIRST_FRAME_TIMEOUT, first_frame(&mut stream, &mut frames));
    let Ok(Some(first)) = first.await else {
        return;
    };
    let Some(shard) = ufrag(&first).and_then(|ufrag| shard_of(&ufrag)) else {
        tracing::debug!("Stream for nobody here");
        return;
    };
    let (outgoing, leaving) = mpsc::channel(QUEUE_MAX);
    let (reply, number) = oneshot::channel();
    let open = StreamEvent::Open {
        client,
        outgoing,
        number: reply,
    };
    if shard.try_send(open).is_err() {
        return;
    }
    let Ok(number) = number.await else {
        return;
    };
    shard.try_send(StreamEvent::Datagram(number, first)).ok(); // It is asked again.
    move_frames(&mut stream, &mut frames, &shard, number, leaving).await;
    shard.try_send(StreamEvent::Close(number)).ok(); // Or the shard finds nobody there.
}

async fn first_frame(
    stream: &mut (impl AsyncRead + Unpin),
    frames: &mut Frames,
) -> Option<Vec<u8>> {
    loop {
        if let Some(frame) = frames.next().ok()? {
            return Some(frame.to_vec());
        }
        if stream.read_buf(&mut frames.bytes).await.ok()? == 0 {
            return None;
        }
    }
}

async fn move_frames(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    frames: &mut Frames,
    shard: &Remote<StreamEvent>,
    number: usize,
    mut leaving: mpsc::Receiver<Vec<u8>>,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let incoming = async {
        loop {
            while let Ok(Some(frame)) = frames.next() {
                // What the shard has no room for is lost, as a datagram would be.
                shard
                    .try_send(StreamEvent::Datagram(number, frame.to_vec()))
                    .ok();
            }
            if frames.next().is_err() {
                return;
            }
            frames.compact();
            if !matches!(reader.read_buf(&mut frames.bytes).await, Ok(1..)) {
                return;
            }
        }
    };
    let outgoing = async {
        while let Some(datagram) = leaving.recv().await {
            let Ok(len) = u16::try_from(datagram.len()) else {
                continue;
            };
            let mut frame = Vec::with_capacity(PREFIX_LEN + datagram.len());
            frame.extend_from_slice(&len.to_be_bytes());
            frame.extend_from_slice(&datagram);
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = incoming => {}
        () = outgoing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_the_bytes_were() {
        let wire = [0, 3, 1, 2, 3, 0, 0, 0, 1, 9];
        for cut in 0..wire.len() {
            let mut frames = Frames::new(&wire[..cut]);
            let mut got: Vec<Vec<u8>> = Vec::new();
            while let Some(frame) = frames.next().unwrap() {
                got.push(frame.to_vec());
            }
            frames.compact();
            frames.bytes.extend_from_slice(&wire[cut..]);
            while let Some(frame) = frames.next().unwrap() {
                got.push(frame.to_vec());
            }
            assert_eq!(got, [vec![1, 2, 3], vec![], vec![9]], "cut at {cut}");
        }
        assert_eq!(Frames::new(&[0xFF, 0xFF, 0]).next(), Err(FrameTooLong));
    }
}
