//! The few fields of a frame that a load generator reads; the rest is skipped unread.

use serde::Deserialize;

/// The head of a frame.
#[derive(Debug, Deserialize)]
pub(crate) struct Head<'a> {
    /// What it is.
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    /// Its number, on reliable frames.
    pub(crate) seq: Option<u64>,
}

/// The state that Calls' frames carry.
#[derive(Debug, Deserialize)]
pub(crate) struct OnCall {
    /// The content.
    pub(crate) data: CallData,
}

/// The content of a frame about a Call.
#[derive(Debug, Deserialize)]
pub(crate) struct CallData {
    /// The Call after its transition.
    pub(crate) state: State,
    /// What happened, in a `call.update`.
    pub(crate) event: Option<String>,
}

/// What of a Call's state is needed to go on.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    /// The Call.
    pub(crate) call: String,
    /// Its revision.
    pub(crate) rev: u32,
    /// Where it is in its life.
    pub(crate) phase: String,
}

/// Reads the head of `text`.
pub(crate) fn head(text: &str) -> anyhow::Result<Head<'_>> {
    Ok(serde_json::from_str(text)?)
}

/// Reads the Call a frame is about.
pub(crate) fn on_call(text: &str) -> anyhow::Result<CallData> {
    Ok(serde_json::from_str::<OnCall>(text)?.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_is_skipped() {
        let text = r#"{"type":"call.update","id":"x","seq":7,"ack":1,"data":{"state":{"call":"c","rev":2,"epoch":1,"phase":"active","media":{}},"sealed":"…","event":"answered"}}"#;
        let Head { kind, seq } = head(text).unwrap();
        assert_eq!((kind, seq), ("call.update", Some(7)));
        let CallData { state, event } = on_call(text).unwrap();
        assert_eq!(
            (state.call.as_str(), state.rev, state.phase.as_str()),
            ("c", 2, "active")
        );
        assert_eq!(event.as_deref(), Some("answered"));
    }
}
