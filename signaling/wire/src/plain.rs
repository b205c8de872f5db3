//! The frames that pass most often, `ice.candidates`, checked in place and passed on without being written anew.

use std::fmt::Write;

use model::{CallId, DeviceId};
use serde::Deserialize;

use crate::client::{CANDIDATE_LEN_MAX, CANDIDATE_TOKEN_LEN_MAX};

/// How much longer the `data` is with its sender in it.
const SENDER_LEN: usize = r#""from":"01ARZ3NDEKTSV4RRFFQ69G5FAV","#.len();

/// The `data` of an `ice.candidates` that fits its type, names no sender, and has neither unknown fields nor escaped
/// characters: what a client hears of it is what it would hear of [`Candidates`](crate::Candidates) read and written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainCandidates<'a> {
    /// The Call.
    pub call: CallId,
    /// The generation they belong to.
    pub generation: u64,
    /// How many candidates there are.
    pub count: usize,
    /// A JSON object with at least one field.
    data: &'a str,
}

impl<'a> PlainCandidates<'a> {
    /// `None` for other types, and for what is not as plain.
    pub(crate) fn of(kind: &str, data: &'a str) -> Option<Self> {
        if kind != "ice.candidates" {
            return None;
        }

        let fields: Fields<'_> = serde_json::from_str(data).ok()?;
        let is_short = fields.candidates.iter().all(Candidate::is_short);
        is_short.then_some(Self {
            call: fields.call,
            generation: fields.generation,
            count: fields.candidates.len(),
            data,
        })
    }

    /// The `data` for the other Device, with its sender in it.
    pub fn with_sender(&self, device: DeviceId) -> String {
        let mut data = String::with_capacity(self.data.len() + SENDER_LEN);
        // Writing to a String cannot fail.
        let _ = write!(data, r#"{{"from":"{device}","#);
        data.push_str(&self.data[1..]); // after the brace
        data
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    call: CallId,
    generation: u64,
    #[serde(borrow)]
    candidates: Vec<Candidate<'a>>,
    #[serde(default, rename = "done")]
    _done: Option<bool>,
}

/// A text with an escape can't be borrowed, so it is none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Candidate<'a> {
    candidate: &'a str,
    #[serde(default)]
    sdp_mid: Option<&'a str>,
    #[serde(default, rename = "sdp_m_line_index")]
    _sdp_m_line_index: Option<u16>,
    #[serde(default)]
    username_fragment: Option<&'a str>,
}

impl Candidate<'_> {
    fn is_short(&self) -> bool {
        let mut tokens = [self.sdp_mid, self.username_fragment].into_iter().flatten();

        self.candidate.len() <= CANDIDATE_LEN_MAX
            && tokens.all(|token| token.len() <= CANDIDATE_TOKEN_LEN_MAX)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Candidates, ClientFrame, Decoded, Frame, decode, decode_to_pass_on};

    #[test]
    fn what_is_passed_on_says_what_the_whole_frame_says() {
        let check = |data: &str, plain: bool| {
            let text = format!(r#"{{"type":"ice.candidates","seq":1,"data":{data}}}"#);
            let sender = DeviceId::from_u128(7);
            let Frame {
                content: ClientFrame::IceCandidates(whole),
                ..
            } = decode(&text).unwrap()
            else {
                panic!("{text}");
            };

            let Decoded::Plain(head, passed) = decode_to_pass_on(&text).unwrap() else {
                return assert!(!plain, "{text}");
            };
            assert!(plain, "{text}");
            assert_eq!((head.seq, passed.call), (Some(1), whole.call));
            assert_eq!(
                (passed.generation, passed.count),
                (whole.generation, whole.candidates.len())
            );
            let heard: Candidates = serde_json::from_str(&passed.with_sender(sender)).unwrap();
            let from = Some(sender);
            assert_eq!(heard, Candidates { from, ..whole });
        };

        check(&data(&[]), true);
        check(
            &data(&[("done", json!(true)), ("candidates", json!([]))]),
            true,
        );
        check(&format!(" {} ", data(&[]).replace(':', " : ")), true);
        check(&data(&[("from", json!(CALL))]), false);
        check(&data(&[("later", json!(1))]), false);
        let escaped = json!([{ "candidate": "a\"b" }]);
        check(&data(&[("candidates", escaped)]), false);
        let later = json!([{ "candidate": "a", "later": 1 }]);
        check(&data(&[("candidates", later)]), false);
    }

    #[test]
    fn what_does_not_fit_is_refused_as_ever() {
        let check = |data: &str| {
            let text = format!(r#"{{"type":"ice.candidates","seq":1,"data":{data}}}"#);
            let error = decode_to_pass_on(&text).unwrap_err();
            assert_eq!(error, decode(&text).unwrap_err(), "{text}");
        };

        check("{}");
        check("[]");
        check(&data(&[("generation", json!(-1))]));
        check(&data(&[("call", json!("x"))]));
        let long = json!([{ "candidate": "x".repeat(CANDIDATE_LEN_MAX + 1) }]);
        check(&data(&[("candidates", long)]));
        let long =
            json!([{ "candidate": "x", "sdp_mid": "x".repeat(CANDIDATE_TOKEN_LEN_MAX + 1) }]);
        check(&data(&[("candidates", long)]));
        check(&data(&[]).replacen('{', r#"{"generation":2,"#, 1)); // twice
    }

    const CALL: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn data(changes: &[(&str, Value)]) -> String {
        let candidate = json!({ "candidate": "candidate:1 1 udp 1 192.0.2.7 9 typ host", "sdp_mid": "0", "sdp_m_line_index": 0 });
        let mut data = json!({ "call": CALL, "generation": 1, "candidates": [candidate] });
        for (field, value) in changes {
            data[*field] = value.clone();
        }
        data.to_string()
    }
}
