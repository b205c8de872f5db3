//! What the core costs: memory of an idle Session, time of a relayed message.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the tests may unwrap as the tests do"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use model::{AccountId, ApiKeyId, DeviceId, Grants, NodeId, RoomGrants, Timestamp};
use serde_json::json;
use signaling_core::{ConnectionId, Limits, Output, SealSecret, Signaling, VerifiedHello};
use signaling_wire::DeviceInfo;

/// The most an idle Session with its User may hold, in bytes.
const SESSION_BYTES_MAX: usize = 2_000;

#[test]
fn an_idle_session_is_small() {
    const SESSIONS: u64 = 10_000;

    let mut core = core();
    let before = HELD.get();
    for n in 0..SESSIONS {
        core.handle_hello(
            NOW,
            ConnectionId(n),
            hello(n / 100, &format!("user-{n}@example.com"), n),
        );
        while core.poll_output().is_some() {}
    }
    let each = (HELD.get() - before) / usize::try_from(SESSIONS).unwrap();

    println!("{each} bytes per idle Session");
    assert!(each < SESSION_BYTES_MAX, "{each} bytes");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "this measures, it does not decide"
)]
fn each_message_is_relayed_with_one_ok() {
    const MESSAGES: u64 = 20_000;

    let (mut core, call) = active_call();
    let candidate =
        "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 0.0.0.0 rport 0";
    let data = json!({ "call": call, "generation": 1, "candidates": [
        { "candidate": candidate, "sdp_mid": "0", "sdp_m_line_index": 0, "username_fragment": "4ZcD" }
    ]});
    let frames: Vec<String> = (0..MESSAGES)
        .map(|n| {
            let id = DeviceId::from_u128(u128::from(n) + 100);
            json!({ "type": "ice.candidates", "id": id, "seq": n + 2, "data": data }).to_string()
        })
        .collect();

    let started = Instant::now();
    for (n, frame) in frames.iter().enumerate() {
        core.handle_frame(NOW, ConnectionId(1), frame);
        let sent = std::iter::from_fn(|| core.poll_output()).count();
        assert_eq!(sent, 2, "a relayed frame and an ok");
        if n % 16 == 0 {
            for connection in [1, 2] {
                // The callee has an `ok` more, the caller has as many as its commands.
                let ack = format!(r#"{{"type":"ack","ack":{n}}}"#);
                core.handle_frame(NOW, ConnectionId(connection), &ack);
            }
        }
    }
    let each = started.elapsed() / u32::try_from(MESSAGES).unwrap();
    println!("{each:?} per relayed message with its ok and acks");
}

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn core() -> Signaling {
    let unlimited = u32::MAX / 2_000;
    let limits = Limits {
        commands_burst: unlimited,
        commands_per_account_burst: unlimited,
        ..Limits::default()
    };
    Signaling::new(limits, NodeId::from_u128(1), &SealSecret::new([1; 32]), 1)
}

fn active_call() -> (Signaling, String) {
    let mut core = core();
    let call = DeviceId::from_u128(7).to_string();
    core.handle_hello(NOW, ConnectionId(1), hello(1, "alice", 1));
    core.handle_hello(NOW, ConnectionId(2), hello(1, "bob", 2));

    let media = json!({ "audio": true, "video": true });
    let invite = json!({ "type": "call.invite", "id": call, "seq": 1,
        "data": { "call": call, "to": "bob", "media": media } });
    core.handle_frame(NOW, ConnectionId(1), &invite.to_string());
    let id = DeviceId::from_u128(8);
    let accept =
        json!({ "type": "call.accept", "id": id, "seq": 1, "data": { "call": call, "rev": 1 } });
    core.handle_frame(NOW, ConnectionId(2), &accept.to_string());

    let texts = std::iter::from_fn(|| core.poll_output()).filter_map(|output| match output {
        Output::Send { text, .. } => Some(String::from_utf8_lossy(&text).into_owned()),
        _ => None,
    });
    assert!(texts.last().unwrap().contains(r#""phase":"active""#));
    (core, call)
}

fn hello(account: u64, user: &str, device: u64) -> VerifiedHello {
    VerifiedHello {
        id: None,
        api_key: ApiKeyId::from_u128(1),
        account: AccountId::from_u128(u128::from(account)),
        user: user.parse().unwrap(),
        name: Some("Somebody Important".into()),
        grants: Grants::default(),
        room_grants: RoomGrants::default(),
        expired: false,
        attended: true,
        device: DeviceInfo {
            id: DeviceId::from_u128(u128::from(device)),
            name: None,
            key: format!("BA{}", "A".repeat(85)),
        },
        resume: None,
        address: None,
        ice_servers: Vec::new(),
    }
}

/// Counts what each thread holds: a test's own thread, that is, whatever runs beside it.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; counting touches no memory it manages.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
