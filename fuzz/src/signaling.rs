//! What a Device can say to the server.

use model::DeviceId;
use serde_json::Value;
use signaling_wire::{
    Candidates, ClientFrame, Decoded, FRAME_LEN_MAX, Fingerprints, Head, PlainCandidates,
};

/// The longest refusal repeated to a sender: a little more than the wire crate's limit, for the ellipsis.
const MESSAGE_LEN_MAX: usize = 256;

/// A WebSocket text frame. One that is understood means the same after it was written again, with nothing but the known
/// fields' own words; one that is not gets a short refusal.
pub(crate) fn client_frame(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(Decoded::Plain(head, plain)) = signaling_wire::decode_to_pass_on(text) {
        passed_on(text, head, &plain);
    }
    match signaling_wire::decode(text) {
        Ok(frame) => {
            assert!(text.len() <= FRAME_LEN_MAX);
            // serde_json's own values are stricter where we skip: numbers out of range, lone surrogates.
            let Ok(value) = serde_json::from_str::<Value>(text) else {
                return;
            };
            let data = value.get("data").map_or("{}".into(), Value::to_string);
            let again = signaling_wire::encode(frame.content.kind(), &frame.head, &data);
            if again.len() <= FRAME_LEN_MAX {
                assert_eq!(signaling_wire::decode(&again), Ok(frame));
            }
        }
        Err(error) => assert!(error.message.len() <= MESSAGE_LEN_MAX, "{error}"),
    }
}

/// What is passed on as it came says what the whole frame says, and who its sender is.
fn passed_on(text: &str, head: Head, plain: &PlainCandidates<'_>) {
    let sender = DeviceId::from_u128(7);
    let Ok(frame) = signaling_wire::decode(text) else {
        panic!("passed on and not understood: {text}");
    };
    let ClientFrame::IceCandidates(whole) = frame.content else {
        panic!("passed on as another type: {text}");
    };

    let heard = serde_json::from_str::<Candidates>(&plain.with_sender(sender));
    let from = Some(sender);
    assert_eq!(heard.ok(), Some(Candidates { from, ..whole }));
    assert_eq!(frame.head, head);
}

/// A session description. What is let through has strong fingerprints only, in the one form that is signed.
pub(crate) fn sdp_fingerprints(data: &[u8]) {
    let Ok(sdp) = str::from_utf8(data) else {
        return;
    };
    let Ok(fingerprints) = Fingerprints::of(sdp) else {
        return;
    };

    let texts: Vec<_> = fingerprints.iter().map(|one| one.as_str()).collect();
    assert!(!texts.is_empty());
    assert!(texts.is_sorted_by(|a, b| a < b), "{texts:?}");
    assert!(texts.iter().all(|text| is_strong(text)), "{texts:?}");
    assert_eq!(fingerprints.joined(), texts.join(","));

    // A weak one beside them is never overlooked.
    assert!(Fingerprints::of(&format!("{sdp}\r\na=fingerprint:sha-1 00:11")).is_err());
}

fn is_strong(text: &str) -> bool {
    let bytes = match text.split(' ').next() {
        Some("sha-256") => 32,
        Some("sha-384") => 48,
        Some("sha-512") => 64,
        _ => return false,
    };
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lower && text.len() == "sha-256 ".len() + bytes * 3 - 1
}
