//! Any order of commands, disconnects, crashes and time keeps the invariants.

use std::collections::{BTreeMap, BTreeSet};

use model::RecordChange;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::{TestSignaling, offer};

const NAMES: [&str; 6] = ["alice", "alice2", "bob", "bob2", "carol", "dave"];
const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// One thing that happens: to which Device, what, and about which of its Calls.
type Step = (usize, u8, usize, usize);

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_order_of_events_keeps_the_invariants(steps in prop::collection::vec(step(), 1..80)) {
        let mut t = TestSignaling::people(&NAMES);
        let mut calls = Vec::new();
        let mut watch = Watch::default();

        for step in steps {
            play(&mut t, &mut calls, step);
            watch.look(&t, &calls);
        }

        t.advance_alive(200_000);
        watch.look(&t, &calls);
        watch.records(&t);
    }
}

fn step() -> impl Strategy<Value = Step> {
    (0..NAMES.len(), 0_u8..22, 0_usize..8, 0..USERS.len())
}

fn play(t: &mut TestSignaling, calls: &mut Vec<String>, (who, what, which, whom): Step) {
    let name = NAMES[who];
    let known: Vec<String> = t.device(name).sealed.keys().cloned().collect();
    for call in &known {
        if !calls.contains(call) {
            calls.push(call.clone());
        }
    }
    let call = known.iter().rev().nth(which % known.len().max(1)).cloned();
    let rev = call.as_ref().map_or(1, |call| t.rev(name, call));
    let other = known.first().cloned();

    let command = |kind: &str, data: Value| Some((kind.to_owned(), data));
    let about = |kind: &str, mut more: Value| {
        let call = call.clone()?;
        more["call"] = call.into();
        Some((kind.to_owned(), more))
    };
    let said = match what {
        0..4 => {
            let call = t.new_call();
            let media = json!({ "audio": true, "video": false });
            command(
                "call.invite",
                json!({ "call": call, "to": USERS[whom], "media": media }),
            )
        }
        4 => about("call.ringing", json!({})),
        5..9 => about("call.accept", json!({ "rev": rev })),
        9 => about("call.decline", json!({ "rev": rev })),
        10 => about("call.cancel", json!({ "rev": rev })),
        11 => about("call.hangup", json!({})),
        12 => about("call.hold", json!({ "on": which.is_multiple_of(2) })),
        13 => about("call.transfer", json!({ "to": USERS[whom] })),
        14 => other.and_then(|other| about("call.transfer", json!({ "with": other }))),
        15 => call
            .as_ref()
            .and_then(|call| command("sdp.offer", offer(call, rev))),
        16 => command(
            "presence.set",
            json!({ "call_waiting": which.is_multiple_of(2) }),
        ),
        _ => None,
    };
    if let Some((kind, data)) = said {
        t.send(name, &kind, data);
        return;
    }

    match what {
        17 => t.disconnect(name),
        18 => t.forget(name),
        19 => t.advance(which as u64 * 3_000),
        20 => return crash(t, who),
        _ => {}
    }
    if what != 17 {
        come_back(t, name);
    }
}

/// The server loses its memory; who was connected comes back, in some order.
fn crash(t: &mut TestSignaling, first: usize) {
    let connected = |name: &&str| t.devices[*name].connection.is_some();
    let mut names: Vec<&str> = NAMES.into_iter().filter(connected).collect();
    let first = first % names.len().max(1);
    names.rotate_left(first);

    t.crash();
    for name in names {
        come_back(t, name);
    }
}

fn come_back(t: &mut TestSignaling, name: &str) {
    if t.device(name).connection.is_none() && t.connect(name)["resumed"] == false {
        for call in t.device(name).held.clone().into_keys() {
            let _ = t.sync(name, &call);
        }
    }
}

/// What was seen so far.
#[derive(Default)]
struct Watch {
    phases: BTreeMap<(String, String), u8>,
    winners: BTreeMap<(String, u64), String>,
}

impl Watch {
    fn look(&mut self, t: &TestSignaling, calls: &[String]) {
        for (name, device) in &t.devices {
            for call in calls {
                let Some((state, _)) = device.sealed.get(call) else {
                    continue;
                };

                let phase = match state["phase"].as_str() {
                    Some("ringing") => 0,
                    Some("active") => 1,
                    _ => 2,
                };
                let before = self.phases.insert((name.clone(), call.clone()), phase);
                assert!(
                    before.is_none_or(|before| before <= phase),
                    "{call} goes back at {name}"
                );
                assert_eq!(phase == 2, !state["end"].is_null());
                assert_eq!(phase == 2, !state["ended_at"].is_null());
                assert!(state["caller"]["user"] != state["callee"]["user"]);
                assert!(
                    phase != 1 || !state["callee"]["device"].is_null(),
                    "nobody has answered {call}"
                );

                if let Some(winner) = state["callee"]["device"].as_str() {
                    let epoch = state["epoch"].as_u64().unwrap();
                    let winner_before = self
                        .winners
                        .entry((call.clone(), epoch))
                        .or_insert_with(|| winner.to_owned());
                    assert_eq!(winner_before, winner, "two winners of {call}");
                }
            }
        }
    }

    /// Each Call that began has ended by now, with one row whose end does not change unless a crash came between.
    fn records(&self, t: &TestSignaling) {
        let begun: BTreeSet<_> = t
            .records
            .iter()
            .filter_map(|change| match change {
                RecordChange::CallBegun(row) => Some(row.call),
                _ => None,
            })
            .collect();
        for change in &t.records {
            if let RecordChange::CallEnded(row) = change {
                assert!(
                    begun.contains(&row.call),
                    "{} ended without a beginning",
                    row.call
                );
                assert!(row.ended_at.is_some() && row.reason.is_some());
            }
        }
    }
}
