//! Clients that can't send UDP: the same datagrams, framed on a TCP stream (ICE-TCP, RFC 6544; framing of RFC 4571 §2).
//!
//! The server's shared port hands the stream over ([`Handle::serve_stream`](crate::Handle::serve_stream)). Its first frame is a
//! STUN request whose user name leads it to its shard; who comes with any other is let go. From then on a task moves frames, and
//! the shard treats them as datagrams from one more socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use relay_stun::{AttributeType, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::outgoing::DATAGRAM_LEN_MAX;
use crate::shard::StreamEvent;
use crate::waker::Remote;

/// How many datagrams may wait for a stream: a second of video.
const QUEUE_MAX: usize = 256;

/// How many of its datagrams may wait for the shard: what comes faster stays where TCP holds the sender back.
const UNHEARD_MAX: usize = 16;

/// The shortest datagram there is a use for: a header of RTCP and an SSRC.
const FRAME_LEN_MIN: usize = 8;

/// How long nothing may come: as long as a Participant may be disconnected.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How soon a shard is told again that had no room.
const CLOSE_INTERVAL: Duration = Duration::from_millis(20);

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
    let (outgoing, mut leaving) = mpsc::channel(QUEUE_MAX);
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
    let pipe = Pipe {
        shard,
        number,
        client,
        unheard: Arc::new(Semaphore::new(UNHEARD_MAX)),
    };
    pipe.tell(&first).await;
    pipe.move_frames(&mut stream, &mut frames, &mut leaving)
        .await;
    // A shard that has no room must hear of it all the same, or the place would never be free again.
    while !leaving.is_closed() && pipe.close().is_err() {
        tokio::time::sleep(CLOSE_INTERVAL).await;
    }
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

/// A stream that a shard knows.
struct Pipe {
    shard: Remote<StreamEvent>,
    number: usize,
    client: SocketAddr,
    /// One for each datagram that waits for the shard.
    unheard: Arc<Semaphore>,
}

impl Pipe {
    /// Gives a datagram to the shard, as soon as it has heard enough of those before.
    async fn tell(&self, frame: &[u8]) {
        if frame.len() < FRAME_LEN_MIN {
            return;
        }
        let Ok(permit) = self.unheard.clone().acquire_owned().await else {
            return; // It is never closed.
        };
        let datagram = StreamEvent::Datagram {
            number: self.number,
            client: self.client,
            bytes: frame.to_vec(),
            _permit: permit,
        };
        // What the shard has no room for, because of very many others, is lost as a datagram would be.
        self.shard.try_send(datagram).ok();
    }

    /// Tells the shard that the stream has ended; fails where it has no room.
    fn close(&self) -> Result<(), StreamEvent> {
        self.shard.try_send(StreamEvent::Close {
            number: self.number,
            client: self.client,
        })
    }

    /// Moves frames until the stream ends, is silent for too long, or the shard lets it go.
    async fn move_frames(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        frames: &mut Frames,
        leaving: &mut mpsc::Receiver<Vec<u8>>,
    ) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let incoming = async {
            loop {
                while let Ok(Some(frame)) = frames.next() {
                    self.tell(frame).await;
                }
                if frames.next().is_err() {
                    return;
                }
                frames.compact();
                let read = reader.read_buf(&mut frames.bytes);
                let read = tokio::time::timeout(SILENCE_MAX, read).await;
                if !matches!(read, Ok(Ok(1..))) {
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
