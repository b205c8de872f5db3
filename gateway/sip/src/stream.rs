//! Messages out of a stream of bytes (RFC 3261 §18.3, RFC 5626 §4.4.1).

use crate::header::HeaderName;
use crate::message::MESSAGE_LEN_MAX;
use crate::text;
use crate::{DecodeError, Headers};

/// The longest start line and headers of a message on a stream, in bytes.
pub const HEAD_LEN_MAX: usize = 16_384;

/// What came on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One message.
    Message(Vec<u8>),
    /// A double CRLF between messages: somebody keeps the connection alive, and wants one CRLF (RFC 5626 §4.4.1).
    Ping,
    /// A single CRLF between messages: the answer to such.
    Pong,
}

/// Puts the bytes of one stream together to messages. Holds at most one message and what one read brought.
#[derive(Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Up to where the buffer has been searched for the end of the headers.
    searched: usize,
    /// The length of the message at the front, once its headers are there.
    message_len: Option<usize>,
}

impl Framer {
    /// A framer of a new stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what was read. Call [`Framer::poll`] until it has nothing more before the next read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes wait for the rest of their message: a caller times out those that wait too long.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// The next frame; `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: where the next message begins can't be told any more, or it is too long. The stream is to be
    /// closed.
    pub fn poll(&mut self) -> Result<Option<Frame>, DecodeError> {
        if self.message_len.is_none() {
            if self.buffer.starts_with(b"\r\n\r\n") {
                self.consume(4);
                return Ok(Some(Frame::Ping));
            }
            // A lone CR, or CRLF with a CR behind it, may still become a ping.
            if matches!(self.buffer.as_slice(), b"\r" | b"\r\n\r") {
                return Ok(None);
            }
            if self.buffer.starts_with(b"\r\n") {
                self.consume(2);
                return Ok(Some(Frame::Pong));
            }
            self.message_len = self.find_message_len()?;
        }
        match self.message_len {
            Some(len) if self.buffer.len() >= len => {
                let message = self.buffer[..len].to_vec();
                self.consume(len);
                Ok(Some(Frame::Message(message)))
            }
            _ => Ok(None),
        }
    }

    fn find_message_len(&mut self) -> Result<Option<usize>, DecodeError> {
        let from = self.searched.saturating_sub(3);
        let end = self.buffer[from..]
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let Some(end) = end.map(|end| from + end) else {
            self.searched = self.buffer.len();
            // An end that may still come would begin beyond the limit.
            if self.buffer.len() >= HEAD_LEN_MAX + 4 {
                return Err(DecodeError::TooLong {
                    what: "header",
                    max: HEAD_LEN_MAX,
                });
            }
            return Ok(None);
        };
        if end > HEAD_LEN_MAX {
            return Err(DecodeError::TooLong {
                what: "header",
                max: HEAD_LEN_MAX,
            });
        }
        let body = content_length(&self.buffer[..end])?;
        let len = end + 4 + body;
        if len > MESSAGE_LEN_MAX {
            return Err(DecodeError::TooLong {
                what: "message",
                max: MESSAGE_LEN_MAX,
            });
        }
        Ok(Some(len))
    }

    fn consume(&mut self, len: usize) {
        self.buffer.drain(..len);
        if self.buffer.is_empty() && self.buffer.capacity() > HEAD_LEN_MAX {
            self.buffer = Vec::new();
        }
        self.searched = 0;
        self.message_len = None;
    }
}

/// Reads Content-Length by the same rules as [`crate::Message::parse`] does: two readers that differ about where a message
/// ends are how one message is smuggled in another.
fn content_length(head: &[u8]) -> Result<usize, DecodeError> {
    const MALFORMED: DecodeError = DecodeError::malformed("Content-Length");
    let head = str::from_utf8(head).map_err(|_| DecodeError::malformed("header"))?;
    let mut lines = head.split("\r\n").skip(1).peekable();
    let mut found = Headers::new();
    while let Some(line) = lines.next() {
        let mut value = line
            .split_once(':')
            .map(|(name, value)| (HeaderName::parse(text::trim(name)), value.to_owned()));
        while let Some(more) = lines.next_if(|line| line.starts_with([' ', '\t'])) {
            if let Some((_, value)) = &mut value {
                value.push(' ');
                value.push_str(text::trim(more));
            }
        }
        if let Some((Some(HeaderName::ContentLength), value)) = value {
            found.push(HeaderName::ContentLength, text::trim(&value));
        }
    }
    let value = found
        .single(&HeaderName::ContentLength)?
        .ok_or(DecodeError::Truncated {
            what: "Content-Length",
        })?;
    let len = text::decimal(value, u64::from(u32::MAX)).ok_or(MALFORMED)?;
    usize::try_from(len).map_err(|_| MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "OPTIONS sip:a SIP/2.0\r\nl :\r\n 4\r\nVia: x\r\n\r\nbody";
    const SECOND: &str = "SIP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n";

    fn frames(framer: &mut Framer) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = framer.poll().expect("the stream is right") {
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn however_a_stream_is_cut_the_same_messages_come_out() {
        let stream = format!("{FIRST}\r\n\r\n{SECOND}\r\n\r\n{FIRST}");
        let message = |text: &str| Frame::Message(text.as_bytes().to_vec());
        let expected = [
            message(FIRST),
            Frame::Ping,
            message(SECOND),
            Frame::Ping,
            message(FIRST),
        ];
        for step in 1..stream.len() {
            let mut framer = Framer::new();
            let mut got = Vec::new();
            for part in stream.as_bytes().chunks(step) {
                framer.push(part);
                got.extend(frames(&mut framer));
            }
            // A ping that is cut in its middle reads as two pongs.
            let pings = got
                .iter()
                .filter(|frame| !matches!(frame, Frame::Message(_)));
            assert!(pings.count() >= 2, "step {step}");
            let messages = |all: &[Frame]| -> Vec<Frame> {
                all.iter()
                    .filter(|frame| matches!(frame, Frame::Message(_)))
                    .cloned()
                    .collect()
            };
            assert_eq!(messages(&got), messages(&expected), "step {step}");
            assert_eq!(framer.pending(), 0);
        }
        let mut framer = Framer::new();
        framer.push(stream.as_bytes());
        assert_eq!(frames(&mut framer), expected);
    }

    #[test]
    fn a_stream_whose_next_message_can_t_be_found_is_given_up() {
        let endless = format!(
            "OPTIONS sip:a SIP/2.0\r\nx: {}",
            "y".repeat(HEAD_LEN_MAX + 4)
        );
        for wrong in [
            "OPTIONS sip:a SIP/2.0\r\n\r\n",
            "OPTIONS sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\n",
            "OPTIONS sip:a SIP/2.0\r\nContent-Length: 1\r\nl: 2\r\n\r\n",
            "OPTIONS sip:a SIP/2.0\r\nContent-Length: 1\r\n 2\r\n\r\n",
            "OPTIONS sip:a SIP/2.0\r\nContent-Length: 65535\r\n\r\n",
            "OPTIONS sip:a SIP/2.0\r\nContent-Length: 99999999999\r\n\r\n",
            &endless,
        ] {
            let mut framer = Framer::new();
            framer.push(wrong.as_bytes());
            assert!(framer.poll().is_err(), "{}", &wrong[..wrong.len().min(70)]);
        }
    }
}
