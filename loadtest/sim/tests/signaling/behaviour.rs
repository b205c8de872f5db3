//! What the people do: one random but sensible command at a time.

use serde_json::{Value, json};

use crate::device::{Device, Io, Plan};
use crate::rooms;
use crate::view::{Phase, View};

/// Lets the person at `device` do something that fits what the Device knows.
pub fn act(device: &mut Device, users: &[String], io: &mut Io<'_>) {
    let mine: Vec<View> = device
        .calls
        .values()
        .map(|held| held.view.clone())
        .collect();
    let active: Vec<_> = mine
        .iter()
        .filter(|view| view.is_active_at(&device.id))
        .collect();
    let ringing_out: Vec<_> = mine
        .iter()
        .filter(|v| v.phase == Phase::Ringing && v.caller_device == device.id)
        .collect();
    let roll = io.rng.within(0..=99);

    if let Some(view) = io.rng.pick(&ringing_out)
        && roll < 30
    {
        return give_up(device, view, io);
    }
    if let Some(view) = io.rng.pick(&active).copied() {
        return act_in_call(device, view, &active, users, roll, io);
    }
    match roll {
        0..=64 if mine.iter().all(|view| view.phase == Phase::Ended) || roll < 8 => {
            invite(device, users, io);
        }
        65..=74 => drop(device.command("history.list", json!({ "limit": 5 }), io)),
        75..=79 => drop(device.command("history.seen", json!({}), io)),
        80..=84 => drop(device.command("turn.refresh", json!({}), io)),
        85..=89 => drop(device.command("presence.subscribe", json!({}), io)),
        90..=92 => set_presence(device, io),
        _ => {}
    }
}

/// Does what the Device has planned for an incoming Call.
pub fn carry_out(device: &mut Device, plan: &Plan, io: &mut Io<'_>) {
    if plan.kind == "join" {
        return rooms::join_again(device, &plan.call, io);
    }
    let Some(view) = device.calls.get(&plan.call).map(|held| held.view.clone()) else {
        return;
    };
    if view.phase != Phase::Ringing {
        return;
    }
    match plan.kind {
        "ringing" => device.command("call.ringing", json!({ "call": view.call }), io),
        "accept" => device.command(
            "call.accept",
            json!({ "call": view.call, "rev": view.rev }),
            io,
        ),
        "cancel" => device.command(
            "call.cancel",
            json!({ "call": view.call, "rev": view.rev }),
            io,
        ),
        _ => {
            let reason = if io.rng.percent(50) {
                "declined"
            } else {
                "busy"
            };
            device.command(
                "call.decline",
                json!({ "call": view.call, "rev": view.rev, "reason": reason }),
                io,
            )
        }
    };
}

/// Ends every active Call of the Device.
pub fn hang_up_all(device: &mut Device, io: &mut Io<'_>) {
    let active: Vec<_> = device
        .calls
        .values()
        .filter(|held| held.view.is_active_at(&device.id))
        .collect();
    let calls: Vec<_> = active
        .into_iter()
        .map(|held| held.view.call.clone())
        .collect();
    for call in calls {
        device.command("call.hangup", json!({ "call": call }), io);
    }
}

/// Asks the server for every Call the Device takes part in.
pub fn ask_state(device: &mut Device, io: &mut Io<'_>) {
    let held: Vec<_> = device
        .calls
        .values()
        .filter(|held| held.view.phase != Phase::Ended)
        .collect();
    let calls: Vec<_> = held
        .into_iter()
        .map(|held| held.view.call.clone())
        .collect();
    for call in calls {
        device.command("call.state", json!({ "call": call }), io);
    }
}

/// Rings `to`.
pub fn invite_user(device: &mut Device, to: &str, io: &mut Io<'_>) {
    let call = io.ulid();
    let data = json!({
        "call": call,
        "to": to,
        "media": { "audio": true, "video": io.rng.percent(50) },
        "commitment": "A".repeat(43),
        "ttl_ms": io.rng.within(5_000..=20_000),
    });
    device.command("call.invite", data, io);
}

fn invite(device: &mut Device, users: &[String], io: &mut Io<'_>) {
    let to = match io.rng.within(0..=99) {
        0..=1 => device.user.clone(),
        2..=3 => "nobody".into(),
        _ => {
            let others: Vec<_> = users.iter().filter(|user| **user != device.user).collect();
            let Some(to) = io.rng.pick(&others) else {
                return;
            };
            (*to).clone()
        }
    };
    invite_user(device, &to, io);
}

fn give_up(device: &mut Device, view: &View, io: &mut Io<'_>) {
    if io.rng.percent(70) {
        device.command(
            "call.cancel",
            json!({ "call": view.call, "rev": view.rev }),
            io,
        );
    } else {
        device.command("call.hangup", json!({ "call": view.call }), io);
    }
}

fn act_in_call(
    device: &mut Device,
    view: &View,
    active: &[&View],
    users: &[String],
    roll: u64,
    io: &mut Io<'_>,
) {
    let call = &view.call;
    match roll {
        0..=14 => drop(device.command(
            "call.hold",
            json!({ "call": call, "on": io.rng.percent(50) }),
            io,
        )),
        15..=39 => candidates(device, call, io),
        40..=49 => offer(device, call, io),
        50..=52 => drop(device.command("ice.restart", json!({ "call": call }), io)),
        53..=56 => {
            let answer =
                json!({ "key": device.key, "fingerprint": FINGERPRINT, "nonce": "A".repeat(43) });
            device.command("call.verify", json!({ "call": call, "answer": answer }), io);
        }
        57..=64 => transfer_to(device, view, users, io),
        65..=76 => match active.iter().find(|other| other.call != *call) {
            Some(other) => drop(device.command(
                "call.transfer",
                json!({ "call": call, "with": other.call }),
                io,
            )),
            None => invite(device, users, io),
        },
        77..=84 => drop(device.command("call.state", json!({ "call": call }), io)),
        85..=94 => drop(device.command("call.hangup", json!({ "call": call, "cause": 16 }), io)),
        _ => {}
    }
}

fn transfer_to(device: &mut Device, view: &View, users: &[String], io: &mut Io<'_>) {
    let others: Vec<_> = users
        .iter()
        .filter(|user| **user != view.caller && **user != view.callee)
        .collect();
    if let Some(to) = io.rng.pick(&others) {
        device.command("call.transfer", json!({ "call": view.call, "to": to }), io);
    }
}

/// Candidates that the oracle knows again: sender and number.
fn candidates(device: &mut Device, call: &str, io: &mut Io<'_>) {
    for _ in 0..io.rng.within(1..=3) {
        device.markers += 1;
        let candidate = format!(
            "candidate:{}#{} 1 udp 2122260223 192.0.2.1 54400 typ host",
            device.name, device.markers
        );
        let list = json!([{ "candidate": candidate, "sdp_mid": "0", "sdp_m_line_index": 0, "username_fragment": "abcd" }]);
        let generation = device.generations.get(call).copied().unwrap_or(1);
        let data = json!({ "call": call, "generation": generation, "candidates": list });
        device.command("ice.candidates", data, io);
    }
}

fn offer(device: &mut Device, call: &str, io: &mut Io<'_>) {
    let generation = device.generations.entry(call.into()).or_default();
    *generation += 1;
    let data =
        json!({ "call": call, "generation": *generation, "sdp": sdp(), "signature": signature() });
    device.command("sdp.offer", data, io);
}

/// The answer to an offer that came.
pub fn answer(device: &mut Device, call: &str, generation: u64, io: &mut Io<'_>) {
    let data =
        json!({ "call": call, "generation": generation, "sdp": sdp(), "signature": signature() });
    device.command("sdp.answer", data, io);
}

fn set_presence(device: &mut Device, io: &mut Io<'_>) {
    let status = io
        .rng
        .pick(&["available", "available", "away", "do_not_disturb"])
        .copied();
    let data = json!({ "status": status, "call_waiting": io.rng.percent(80) });
    device.command("presence.set", data, io);
}

const FINGERPRINT: &str = "sha-256 00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff";

pub fn sdp() -> Value {
    let head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
    let media = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
    Value::String(format!(
        "{head}{media}a=fingerprint:{}\r\na=setup:actpass\r\n",
        FINGERPRINT.to_uppercase().replacen("SHA", "sha", 1)
    ))
}

fn signature() -> String {
    "A".repeat(86)
}
