//! Calls between two Legs, printed as arrows.

use std::time::Duration;

use gateway_core::leg::{Ended, Order, Reliable, SessionPolicy, Told, Why};
use gateway_sip::sdp::Direction;
use gateway_sip::{StatusCode, Uri};
use sim::Link;

use crate::phones::Phones;
use crate::world::{A, B};

const MS: fn(u64) -> Duration = Duration::from_millis;
const MINUTE: Duration = Duration::from_secs(60);

/// The arrows since the last look, without their times: those are the transactions' matter.
fn arrows(t: &mut Phones) -> Vec<String> {
    let ladder = std::mem::take(&mut t.world.ladder).to_string();
    let arrow = |line: &str| {
        line.split_once("ms  ")
            .map(|(_, arrow)| arrow.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    ladder.lines().filter_map(arrow).collect()
}

fn ended(t: &Phones, end: usize) -> Option<(u16, Why)> {
    let mut ends = t.told[end].iter().filter_map(|told| match told {
        Told::Ended(Ended { code, why, .. }) => Some((code.get(), *why)),
        _ => None,
    });
    let last = ends.next();
    assert_eq!(ends.next(), None, "a Leg ends once");
    last
}

fn direction(t: &Phones, end: usize) -> Option<Direction> {
    t.leg(end).agreed().map(|agreed| agreed.direction)
}

#[test]
fn a_call_rings_is_answered_and_ends() {
    let mut t = Phones::new();
    t.on_invite = vec![Order::Ring];
    t.call();
    t.advance(MS(1_000));
    assert_eq!(t.told[A], [Told::Progress(StatusCode::RINGING)]);
    t.order(B, Order::Answer);
    t.advance(MS(100));
    t.hang_up(A);
    t.advance(MINUTE);
    assert_eq!(
        arrows(&mut t),
        [
            "a → b INVITE 1",
            "b → a 180 INVITE 1",
            "b → a 200 INVITE 1",
            "a → b ACK 1",
            "a → b BYE 2",
            "b → a 200 BYE 2"
        ]
    );
    let [here, there] = [A, B].map(|end| t.leg(end).agreed().expect("media was agreed on").clone());
    assert_eq!(
        (here.codec, here.payload_type),
        (there.codec, there.payload_type)
    );
    assert_eq!(here.remote.to_string(), "192.0.2.2:20000");
    assert_eq!(
        (ended(&t, A), ended(&t, B)),
        (Some((200, Why::Local)), Some((200, Why::Remote)))
    );
    assert!(t.world.ends.iter().all(|end| end.is_empty()));
}

#[test]
fn early_media_is_agreed_on_once_and_stays() {
    for reliable in [Reliable::Accept, Reliable::Prefer] {
        let mut t = Phones::new();
        t.settings[B].reliable = reliable;
        t.on_invite = vec![Order::Progress];
        t.call();
        t.advance(MS(1_000));
        assert!(
            matches!(
                t.told[A][..],
                [Told::Media(_), Told::Progress(StatusCode::SESSION_PROGRESS)]
            ),
            "{:?}",
            t.told
        );
        t.order(B, Order::Answer);
        t.advance(MS(100));
        assert_eq!(t.told[A][2..], [Told::Answered]);
        let arrows = arrows(&mut t);
        let prack = ["a → b PRACK 2", "b → a 200 PRACK 2"].map(str::to_owned);
        let expected: Vec<String> = ["a → b INVITE 1", "b → a 183 INVITE 1"]
            .map(str::to_owned)
            .into_iter()
            .chain(prack.into_iter().filter(|_| reliable == Reliable::Prefer))
            .chain(["b → a 200 INVITE 1", "a → b ACK 1"].map(str::to_owned))
            .collect();
        assert_eq!(arrows, expected);
    }
}

#[test]
fn an_answer_waits_for_the_prack() {
    let mut t = Phones::new();
    t.settings[B].reliable = Reliable::Prefer;
    t.on_invite = vec![Order::Progress, Order::Answer];
    t.call();
    t.advance(MS(500));
    assert_eq!(
        arrows(&mut t),
        [
            "a → b INVITE 1",
            "b → a 183 INVITE 1",
            "a → b PRACK 2",
            "b → a 200 PRACK 2",
            "b → a 200 INVITE 1",
            "a → b ACK 1"
        ]
    );
}

#[test]
fn a_call_that_is_refused_or_taken_back_ends_with_its_reason() {
    let mut t = Phones::new();
    t.on_invite = vec![Order::End {
        code: StatusCode::BUSY_HERE,
        cause: Some(17),
    }];
    t.call();
    t.advance(MINUTE);
    let busy = Ended {
        code: StatusCode::BUSY_HERE,
        cause: Some(17),
        why: Why::Remote,
    };
    assert_eq!(t.told[A], [Told::Ended(busy)]);

    let mut t = Phones::new();
    t.on_invite = vec![Order::Ring];
    t.call();
    t.advance(MS(100));
    t.hang_up(A);
    t.advance(MINUTE);
    assert_eq!(
        (ended(&t, A), ended(&t, B)),
        (Some((487, Why::Local)), Some((487, Why::Remote)))
    );
    assert!(t.world.ends.iter().all(|end| end.is_empty()));
}

#[test]
fn a_cancel_that_crosses_the_answer_ends_the_call_by_a_bye() {
    let mut t = Phones::new();
    t.on_invite = vec![Order::Ring];
    t.call();
    t.advance(MS(100));
    t.order(B, Order::Answer);
    t.hang_up(A);
    t.advance(MINUTE);
    let arrows = arrows(&mut t);
    assert!(
        arrows.ends_with(&["a → b BYE 2".to_owned(), "b → a 200 BYE 2".to_owned()]),
        "{arrows:?}"
    );
    assert_eq!(
        (ended(&t, A), ended(&t, B)),
        (Some((487, Why::Local)), Some((200, Why::Remote)))
    );
    assert!(t.world.ends.iter().all(|end| end.is_empty()));
}

#[test]
fn nobody_there_ends_after_32_s() {
    let mut t = Phones::new();
    t.world.cut(MINUTE * 2);
    t.call();
    t.advance(MINUTE);
    assert_eq!(ended(&t, A), Some((408, Why::Vanished)));
}

#[test]
fn an_answer_without_an_ack_ends_after_32_s() {
    let mut t = Phones::new();
    t.on_invite = vec![Order::Ring];
    t.call();
    t.advance(MS(100));
    t.order(B, Order::Answer);
    t.world.cut(MINUTE * 2);
    t.advance(MS(33_000));
    assert_eq!(ended(&t, B), Some((408, Why::Vanished)));
}

#[test]
fn hold_and_resume_change_who_sends_on_both_sides() {
    let mut t = Phones::talking();
    arrows(&mut t);
    t.order(B, Order::Hold(true));
    t.advance(MS(200));
    assert_eq!(
        (direction(&t, A), direction(&t, B)),
        (Some(Direction::RecvOnly), Some(Direction::SendOnly))
    );
    t.advance(MINUTE);
    t.order(B, Order::Hold(false));
    t.advance(MS(200));
    assert_eq!(
        (direction(&t, A), direction(&t, B)),
        (Some(Direction::SendRecv), Some(Direction::SendRecv))
    );
    let once = |number| {
        [
            format!("b → a INVITE {number}"),
            format!("a → b 200 INVITE {number}"),
            format!("b → a ACK {number}"),
        ]
    };
    assert_eq!(arrows(&mut t), [once(1), once(2)].concat());
}

#[test]
fn two_offers_that_cross_are_both_made_in_the_end() {
    let mut t = Phones::talking();
    t.order(A, Order::Hold(true));
    t.order(B, Order::Hold(true));
    t.advance(MINUTE);
    let arrows = arrows(&mut t).join("\n");
    assert!(arrows.contains("491 INVITE"), "{arrows}");
    assert_eq!(
        (direction(&t, A), direction(&t, B)),
        (Some(Direction::Inactive), Some(Direction::Inactive))
    );
    assert!(t.world.ends.iter().all(|end| end.is_empty()), "{arrows}");
}

#[test]
fn a_call_of_forty_minutes_is_renewed_and_one_whose_other_side_vanished_ends() {
    let mut t = Phones::talking();
    arrows(&mut t);
    t.advance(MINUTE * 40);
    assert_eq!((ended(&t, A), ended(&t, B)), (None, None));
    let updates = arrows(&mut t)
        .iter()
        .filter(|arrow| arrow.contains("→ b UPDATE"))
        .count();
    assert_eq!(updates, 2, "every 15 minutes, by the one who called");

    t.world.cut(MINUTE * 120);
    t.advance(MINUTE * 31);
    assert_eq!(
        ended(&t, A).map(|(_, why)| why),
        Some(Why::Vanished),
        "it renews, and hears nothing"
    );
    assert_eq!(
        ended(&t, B),
        Some((408, Why::Expired)),
        "it waits for a renewal that never comes"
    );
}

#[test]
fn a_session_too_short_for_the_other_side_is_made_longer() {
    let mut t = Phones::new();
    t.settings[A].session = SessionPolicy {
        interval: 90,
        min: 90,
    };
    t.settings[B].session = SessionPolicy {
        interval: 1_800,
        min: 600,
    };
    t.on_invite = vec![Order::Answer];
    t.call();
    t.advance(MS(500));
    assert_eq!(
        arrows(&mut t),
        [
            "a → b INVITE 1",
            "b → a 422 INVITE 1",
            "a → b ACK 1",
            "a → b INVITE 2",
            "b → a 200 INVITE 2",
            "a → b ACK 2"
        ]
    );
}

#[test]
fn a_transfer_is_asked_for_and_its_outcome_told() {
    let mut t = Phones::talking();
    arrows(&mut t);
    let target = Uri::parse("tel:+15551230001").expect("a URI");
    t.order(A, Order::Refer(target.clone()));
    t.advance(MS(200));
    assert_eq!(
        t.told[B].last(),
        Some(&Told::Refer {
            target: Box::new(target),
            replaces: None
        })
    );
    t.order(B, Order::ReferProgress(StatusCode::RINGING));
    t.order(B, Order::ReferProgress(StatusCode::OK));
    t.order(B, Order::ReferProgress(StatusCode::OK));
    t.advance(MS(200));
    let told = [StatusCode::TRYING, StatusCode::RINGING, StatusCode::OK].map(Told::Referred);
    assert!(t.told[A].ends_with(&told), "{:?}", t.told[A]);
    let notifies = arrows(&mut t)
        .iter()
        .filter(|arrow| arrow.contains("b → a NOTIFY"))
        .count();
    assert_eq!(notifies, 3);

    let target = Uri::parse("sip:c@h?Replaces=x%40h%3Bto-tag%3Dt%3Bfrom-tag%3Df").expect("a URI");
    t.order(A, Order::Refer(target));
    t.advance(MS(200));
    assert!(
        matches!(t.told[B].last(), Some(Told::Refer { replaces: Some(id), .. }) if id.call_id == "x@h")
    );
}

#[test]
fn a_call_at_the_end_of_its_hops_or_without_a_common_codec_is_refused() {
    use gateway_sip::negotiate::Codec;
    let mut t = Phones::new();
    t.settings[A].capabilities.codecs = vec![Codec::G722];
    t.call();
    t.advance(MS(500));
    assert_eq!(ended(&t, A), Some((488, Why::Remote)));
}

#[test]
fn calls_over_a_bad_network_are_made_held_and_ended() {
    for seed in 0..30 {
        let mut t = Phones::with_link(
            Link {
                latency: MS(5),
                jitter: MS(60),
                loss_per_mille: 100,
            },
            seed,
        );
        t.settings[B].reliable = if seed % 2 == 0 {
            Reliable::Prefer
        } else {
            Reliable::Accept
        };
        t.on_invite = vec![Order::Progress];
        t.call();
        t.advance(MINUTE / 2);
        t.order(B, Order::Answer);
        t.advance(MINUTE / 2);
        assert!(
            t.told[A].contains(&Told::Answered),
            "seed {seed}\n{}",
            t.world.ladder
        );
        t.order(A, Order::Hold(true));
        t.advance(MINUTE / 2);
        assert_eq!(direction(&t, B), Some(Direction::RecvOnly), "seed {seed}");
        t.hang_up(B);
        t.advance(MINUTE * 2);
        assert_eq!(
            ended(&t, A),
            Some((200, Why::Remote)),
            "seed {seed}\n{}",
            t.world.ladder
        );
        assert!(t.world.ends.iter().all(|end| end.is_empty()), "seed {seed}");
    }
}
