//! Ids as clients make them, and the short lines of the ladder.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sim::{Ladder, Rng};

/// Makes ULIDs: 48 bits of time and 80 of chance in Crockford's base 32.
pub fn ulid(unix: Duration, rng: &mut Rng) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let random = u128::from(rng.bits()) << 16 | u128::from(rng.bits() & 0xffff);
    let value = unix.as_millis() << 80 | random;
    (0..26)
        .rev()
        .map(|place| char::from(ALPHABET[(value >> (place * 5)) as usize & 31]))
        .collect()
}

/// A Device key in form: 65 bytes that begin with 4, as base64url. No core looks at the point.
pub fn device_key(rng: &mut Rng) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut key = String::from("BA");
    while key.len() < 86 {
        key.push(char::from(ALPHABET[rng.within(0..=63) as usize]));
    }
    key.push('A'); // the last character holds four bits and two zeros
    key
}

/// Notes the run as arrows when asked to; a run of thousands of seeds does without.
#[derive(Default)]
pub struct Trace {
    pub ladder: Option<Ladder>,
    names: BTreeMap<String, String>,
}

impl Trace {
    pub fn new(wanted: bool) -> Self {
        Self {
            ladder: wanted.then(Ladder::new),
            ..Self::default()
        }
    }

    /// Gives an id of 26 characters a name one can read, the same for the whole run.
    pub fn name_device(&mut self, id: &str, name: &str) {
        self.names.insert(id.into(), name.into());
    }

    pub fn arrow(&mut self, at: Duration, from: &str, to: &str, frame: &Value) {
        if self.ladder.is_some() {
            let text = self.describe(frame);
            self.note(|ladder| ladder.arrow(at, from, to, text));
        }
    }

    pub fn mark(&mut self, at: Duration, node: &str, text: impl FnOnce() -> String) {
        self.note(|ladder| ladder.mark(at, node, text()));
    }

    /// Puts the names of the run in place of the ids in `text`.
    pub fn named(&self, text: &str) -> String {
        self.names
            .iter()
            .fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
    }

    fn note(&mut self, note: impl FnOnce(&mut Ladder)) {
        if let Some(ladder) = &mut self.ladder {
            note(ladder);
        }
    }

    fn describe(&mut self, frame: &Value) -> String {
        let mut parts = Vec::new();
        if let Some(seq) = frame["seq"].as_u64() {
            parts.push(format!("#{seq}"));
        }
        parts.push(frame["type"].as_str().unwrap_or("?").to_owned());
        for (field, prefix) in [("id", "m"), ("reply_to", "re:m")] {
            let is_command = field == "reply_to" || frame["data"]["state"].is_null();
            if let Some(id) = frame[field].as_str().filter(|_| is_command) {
                parts.push(self.short(id, prefix));
            }
        }

        let data = &frame["data"];
        for (field, value) in data.as_object().into_iter().flatten() {
            match (field.as_str(), value) {
                (
                    "sealed" | "device" | "ice_servers" | "limits" | "message" | "token" | "media",
                    _,
                ) => {}
                ("state", state) => parts.push(self.state(state)),
                ("call" | "with", Value::String(id)) => {
                    parts.push(format!("{field}={}", self.short(id, "c")));
                }
                ("resume", resume) => parts.push(format!("resume ack={}", resume["ack"])),
                ("session" | "key", Value::String(id)) => {
                    parts.push(format!("{field}={}", self.short(id, "s")));
                }
                (_, value) => {
                    let text: String = self.named(&value.to_string()).chars().take(120).collect();
                    parts.push(format!("{field}={text}"));
                }
            }
        }
        if let Some(ack) = frame["ack"].as_u64() {
            parts.push(format!("(ack {ack})"));
        }
        parts.join(" ")
    }

    fn state(&mut self, state: &Value) -> String {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let (call, caller, callee) = (&state["call"], &state["caller"], &state["callee"]);
        let mut line = format!(
            "[{} {}.{} {} {}→{}",
            self.short(&text(call), "c"),
            state["epoch"],
            state["rev"],
            text(&state["phase"]),
            self.short(&text(&caller["device"]), "d"),
            callee["device"]
                .as_str()
                .map_or_else(|| text(&callee["user"]), |id| self.short(id, "d")),
        );
        for field in ["ringing", "held_by", "transfer", "replaces", "end"] {
            let value = &state[field];
            if !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()) {
                line.push_str(&format!(" {field}={}", self.named(&value.to_string())));
            }
        }
        line + "]"
    }

    /// A name for `id`: the one it has, or the next with this prefix.
    fn short(&mut self, id: &str, prefix: &str) -> String {
        if id == "-" {
            return "-".into();
        }
        let next = self.names.len() + 1;
        let prefix = prefix.trim_start_matches("re:");
        self.names
            .entry(id.into())
            .or_insert_with(|| format!("{prefix}{next}"))
            .clone()
    }
}
