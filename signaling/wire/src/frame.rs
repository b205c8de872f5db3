//! The envelope around every frame.

use std::borrow::Cow;
use std::fmt::{Display, Write};

use model::MessageId;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::ClientFrame;
use crate::error::{DecodeError, ErrorCode};
use crate::plain::PlainCandidates;

/// The longest frame of a client, in bytes of UTF-8: an offer with a section for each of 49 pictures fits.
pub const FRAME_LEN_MAX: usize = 256 * 1024;
/// The longest `hello`, in bytes of UTF-8.
pub const HELLO_LEN_MAX: usize = 64 * 1024;

/// How much of a serde message is repeated to the sender; it can quote the frame.
const MESSAGE_LEN_MAX: usize = 200;

/// The envelope of a frame, without `type` and `data`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Made by the sender.
    pub id: Option<MessageId>,
    /// The place among the sender's reliable frames.
    pub seq: Option<u64>,
    /// The highest `seq` the sender has received in order.
    pub ack: Option<u64>,
    /// The frame this answers.
    pub reply_to: Option<MessageId>,
}

/// A frame of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The envelope.
    pub head: Head,
    /// `type` and `data`.
    pub content: ClientFrame,
}

/// A frame of a client, read as far as its way needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// All of it.
    Whole(Frame),
    /// Candidates that can be passed on as they came.
    Plain(Head, PlainCandidates<'a>),
}

/// Reads a client's frame. Never panics; unknown fields are ignored.
///
/// Fails with `too_large` beyond [`FRAME_LEN_MAX`], `bad_frame` when the envelope cannot be read, `unknown_type`, or
/// `bad_data` when `data` does not fit `type`. The error holds as much of the envelope as could be read.
pub fn decode(text: &str) -> Result<Frame, DecodeError> {
    let (kind, head, data) = open(text)?;
    read_content(&kind, head, data)
}

/// Reads a client's frame like [`decode`], but no further than is needed to pass it on.
pub fn decode_to_pass_on(text: &str) -> Result<Decoded<'_>, DecodeError> {
    let (kind, head, data) = open(text)?;

    match PlainCandidates::of(&kind, data) {
        Some(candidates) => Ok(Decoded::Plain(head, candidates)),
        None => read_content(&kind, head, data).map(Decoded::Whole),
    }
}

/// Reads the envelope of a frame of either side: its `type`, the rest of it, and `data` unread.
///
/// Fails as [`decode`] does, but for what is wrong with `type` and `data`.
pub fn open(text: &str) -> Result<(Cow<'_, str>, Head, &str), DecodeError> {
    if text.len() > FRAME_LEN_MAX {
        let message = format!("{} bytes, more than {FRAME_LEN_MAX}", text.len());
        return Err(failed(ErrorCode::TooLarge, &message, Head::default()));
    }

    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
        let head = Head {
            id: readable_id(text),
            ..Head::default()
        };
        failed(ErrorCode::BadFrame, &error, head)
    })?;
    let Envelope {
        kind,
        id,
        seq,
        ack,
        reply_to,
        data,
    } = envelope;
    let head = Head {
        id,
        seq,
        ack,
        reply_to,
    };
    Ok((kind, head, data.map_or("{}", RawValue::get)))
}

fn read_content(kind: &str, head: Head, data: &str) -> Result<Frame, DecodeError> {
    match ClientFrame::decode(kind, data) {
        Ok(Some(content)) => Ok(Frame { head, content }),
        Ok(None) => Err(failed(
            ErrorCode::UnknownType,
            &format_args!("unknown type {kind:?}"),
            head,
        )),
        Err(error) => Err(failed(ErrorCode::BadData, &error, head)),
    }
}

fn failed(code: ErrorCode, message: &dyn Display, head: Head) -> DecodeError {
    DecodeError {
        code,
        message: shorten(message).into(),
        head: Box::new(head),
    }
}

/// Writes a frame: the envelope around `data`, which must be JSON already.
pub fn encode(kind: &str, head: &Head, data: &str) -> String {
    let mut text = String::with_capacity(160 + kind.len() + data.len());

    text.push_str(r#"{"type":""#);
    text.push_str(kind);
    text.push('"');

    // Writing to a String cannot fail.
    if let Some(id) = head.id {
        let _ = write!(text, r#","id":"{id}""#);
    }
    if let Some(seq) = head.seq {
        let _ = write!(text, r#","seq":{seq}"#);
    }
    if let Some(ack) = head.ack {
        let _ = write!(text, r#","ack":{ack}"#);
    }
    if let Some(reply_to) = head.reply_to {
        let _ = write!(text, r#","reply_to":"{reply_to}""#);
    }

    text.push_str(r#","data":"#);
    text.push_str(data);
    text.push('}');
    text
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    id: Option<MessageId>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    ack: Option<u64>,
    #[serde(default)]
    reply_to: Option<MessageId>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

/// The `id` of a frame whose envelope is otherwise wrong.
fn readable_id(text: &str) -> Option<MessageId> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: MessageId,
    }

    serde_json::from_str::<OnlyId>(text)
        .ok()
        .map(|only| only.id)
}

fn shorten(message: &dyn Display) -> String {
    let mut message = message.to_string();
    let end = message.floor_char_boundary(MESSAGE_LEN_MAX);
    message.truncate(end);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    #[test]
    fn every_text_is_a_frame_or_an_error_with_a_code() {
        let check = |text: &str, code: ErrorCode, id_readable: bool| {
            let error = decode(text).unwrap_err();
            assert_eq!(
                (error.code, error.head.id.is_some()),
                (code, id_readable),
                "{text}"
            );
        };

        check("", ErrorCode::BadFrame, false);
        check("[]", ErrorCode::BadFrame, false);
        check("null", ErrorCode::BadFrame, false);
        check(
            r#"{"id":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}"#,
            ErrorCode::BadFrame,
            true,
        );
        check(
            r#"{"type":7,"id":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}"#,
            ErrorCode::BadFrame,
            true,
        );
        check(r#"{"type":"ping","seq":-1}"#, ErrorCode::BadFrame, false);
        check(
            r#"{"type":"ping","seq":18446744073709551616}"#,
            ErrorCode::BadFrame,
            false,
        );
        check(
            r#"{"type":"ping","type":"ping"}"#,
            ErrorCode::BadFrame,
            false,
        );
        check(r#"{"type":"ping","id":"x"}"#, ErrorCode::BadFrame, false);
        check(
            &format!(r#"{{"type":"nonsense","id":"{ID}"}}"#),
            ErrorCode::UnknownType,
            true,
        );
        check(
            &format!(r#"{{"type":"welcome","id":"{ID}"}}"#),
            ErrorCode::UnknownType,
            true,
        );
        check(
            &format!(r#"{{"type":"call.state","id":"{ID}"}}"#),
            ErrorCode::BadData,
            true,
        );
        check(
            &format!(r#"{{"type":"call.state","id":"{ID}","data":[]}}"#),
            ErrorCode::BadData,
            true,
        );
        check(&"[".repeat(10_000), ErrorCode::BadFrame, false);
        check(&" ".repeat(FRAME_LEN_MAX + 1), ErrorCode::TooLarge, false);
    }

    #[test]
    fn a_deep_tree_in_data_is_refused_and_not_recursed_into() {
        let deep = format!(
            r#"{{"type":"call.state","data":{}{}}}"#,
            r#"{"a":"#.repeat(9_000),
            "}".repeat(9_000)
        );

        assert!(decode(&deep).is_err());
    }

    #[test]
    fn unknown_fields_are_ignored_and_data_may_be_absent() {
        let frame =
            decode(r#"{"type":"ping","ack":3,"later":{"x":1},"data":{"new":true}}"#).unwrap();
        assert_eq!(frame.head.ack, Some(3));
        assert!(matches!(frame.content, ClientFrame::Ping(_)));
        assert!(matches!(
            decode(r#"{"type":"pong"}"#).unwrap().content,
            ClientFrame::Pong(_)
        ));
    }

    #[test]
    fn a_frame_is_written_with_what_its_head_holds() {
        let id = ID.parse().unwrap();
        let head = Head {
            id: Some(id),
            seq: Some(7),
            ack: Some(2),
            reply_to: Some(id),
        };

        assert_eq!(
            encode("ok", &head, "{}"),
            format!(r#"{{"type":"ok","id":"{ID}","seq":7,"ack":2,"reply_to":"{ID}","data":{{}}}}"#)
        );
        assert_eq!(
            encode("pong", &Head::default(), "{}"),
            r#"{"type":"pong","data":{}}"#
        );
    }
}
