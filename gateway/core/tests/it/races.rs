//! What crosses, comes twice or too late, and phones that answer together (RFC 3261 §13.2, §14, §15; RFC 3262, 3311, 5407).

use std::time::Duration;

use gateway_core::leg::{Order, Quirks, Reliable};
use gateway_sip::{HeaderName, Method, StatusCode};

use crate::solo::{Sdp, Solo};

const SECOND: Duration = Duration::from_secs(1);
const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256\n";
const HANG_UP: Order = Order::End {
    code: StatusCode::DECLINE,
    cause: None,
};

fn reliable(rseq: u32) -> String {
    format!("Require: 100rel\nRSeq: {rseq}\n")
}

fn talking() -> Solo {
    let mut t = Solo::calling();
    t.hear(&Method::Invite, 200, "x", "Allow: UPDATE\n", Sdp::Answer);
    assert_eq!(t.done(), "INVITE 1, ACK 1 x, media SendRecv, Answered");
    t
}

#[test]
fn of_two_phones_that_answer_the_second_is_acknowledged_and_ended() {
    let mut t = Solo::calling();
    t.hear(&Method::Invite, 180, "x", "", Sdp::None);
    t.hear(&Method::Invite, 183, "y", "", Sdp::Answer);
    t.hear(&Method::Invite, 200, "y", "", Sdp::Answer);
    assert_eq!(
        t.done(),
        "INVITE 1, Progress(StatusCode(180)), media SendRecv, Progress(StatusCode(183)), ACK 1 y, Answered"
    );
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    assert_eq!(t.done(), "ACK 1 x, BYE 2 x");
    // Each 2xx that comes again wants its ACK again, and nothing else.
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    t.hear(&Method::Invite, 200, "y", "", Sdp::Answer);
    assert_eq!(t.done(), "ACK 1 x, ACK 1 y");
    t.order(HANG_UP);
    assert_eq!(t.done(), "BYE 2 y, ended 200 Local");
    t.hear(&Method::Invite, 200, "z", "", Sdp::Answer);
    assert_eq!(t.done(), "ACK 1 z, BYE 2 z");
}

#[test]
fn what_comes_after_the_answer_says_nothing_new() {
    let mut t = talking();
    t.hear(&Method::Invite, 180, "x", "", Sdp::None);
    t.hear(&Method::Invite, 183, "y", "", Sdp::Answer);
    t.hear(&Method::Invite, 183, "x", &reliable(1), Sdp::Answer);
    t.hear(&Method::Invite, 486, "y", "", Sdp::None);
    assert_eq!(t.done(), "");
}

#[test]
fn an_answer_that_crosses_the_cancel_is_ended() {
    let mut t = Solo::calling();
    t.hear(&Method::Invite, 180, "x", "", Sdp::None);
    t.order(HANG_UP);
    t.order(HANG_UP);
    t.hear(&Method::Invite, 183, "x", "", Sdp::Answer);
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    assert_eq!(
        t.done(),
        "INVITE 1, Progress(StatusCode(180)), CANCEL, ACK 1 x, BYE 2 x, ended 487 Local"
    );
}

#[test]
fn an_answer_in_a_provisional_response_is_one_for_its_own_phone() {
    let mut t = Solo::calling();
    t.hear(&Method::Invite, 183, "x", &reliable(7), Sdp::Answer);
    // Again, and before its turn: neither is proven (RFC 3262 §4).
    t.hear(&Method::Invite, 183, "x", &reliable(7), Sdp::Answer);
    t.hear(&Method::Invite, 180, "x", &reliable(9), Sdp::None);
    t.hear(&Method::Invite, 200, "x", "", Sdp::None);
    assert_eq!(
        t.done(),
        "INVITE 1, PRACK 2 x, media SendRecv, Progress(StatusCode(183)), ACK 1 x, Answered"
    );

    let mut t = Solo::calling();
    t.hear(&Method::Invite, 183, "x", &reliable(7), Sdp::Answer);
    t.done();
    t.hear(&Method::Invite, 200, "y", "", Sdp::None);
    assert_eq!(t.done(), "ACK 1 y, BYE 2 y, ended 488 Media");
}

#[test]
fn a_phone_that_rings_may_offer_anew_once_it_has_answered_for_good() {
    let mut t = Solo::calling();
    t.hear(&Method::Invite, 183, "x", "", Sdp::Answer);
    t.ask(&Method::Update, "x", "", Sdp::Offer);
    assert_eq!(
        t.done(),
        "INVITE 1, media SendRecv, Progress(StatusCode(183)), 491"
    );
    t.hear(&Method::Invite, 183, "x", &reliable(1), Sdp::Answer);
    t.ask(&Method::Update, "x", "", Sdp::Offer);
    let done = t.done();
    assert!(
        done.starts_with("PRACK 2 x, Progress(StatusCode(183))") && done.ends_with("200"),
        "{done}"
    );
    // Its answer to the INVITE was given long ago; another phone's is still to come.
    t.hear(&Method::Invite, 200, "x", "", Sdp::None);
    assert_eq!(t.done(), "ACK 1 x, Answered");

    t = Solo::calling();
    t.hear(&Method::Invite, 183, "x", &reliable(1), Sdp::Answer);
    t.ask(&Method::Update, "x", "", Sdp::Offer);
    t.done();
    t.hear(&Method::Invite, 200, "y", "", Sdp::Answer);
    let done = t.done();
    assert!(
        done.starts_with("ACK 1 y") && done.ends_with("Answered"),
        "{done}"
    );
}

#[test]
fn requests_of_nobody_we_know_are_refused_in_every_state() {
    let mut t = Solo::calling();
    t.ask(&Method::Update, "x", "", Sdp::Offer);
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    t.done();
    t.ask(&Method::Bye, "stranger", "", Sdp::None);
    t.ask(&Method::Info, "stranger", "", Sdp::None);
    assert_eq!(t.done(), "481, 481");
    assert!(!t.leg.is_over());
    t.ask(&Method::Message, "x", "", Sdp::None);
    t.ask(&Method::Options, "x", "Require: teleport\n", Sdp::None);
    t.ask(&Method::Notify, "x", "Event: presence\n", Sdp::None);
    t.ask(
        &Method::Info,
        "x",
        "Content-Type: text/plain\nContent-Length: 1\n\nx",
        Sdp::None,
    );
    assert_eq!(t.done(), "405, 420, 489, 415");
}

#[test]
fn a_challenge_is_answered_once_and_the_ack_carries_the_same() {
    let mut t = Solo::calling();
    t.hear(&Method::Invite, 401, "p", CHALLENGE, Sdp::None);
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    assert_eq!(
        t.done(),
        "INVITE 1, INVITE 2, ACK 2 x, media SendRecv, Answered"
    );
    let credentials = |at: usize| t.sent[at].1.headers.get(&HeaderName::Authorization);
    assert!(credentials(0).is_none() && credentials(1).is_some());
    assert_eq!(credentials(1), credentials(2));
    // A re-INVITE is challenged anew when its nonce is used up.
    t.order(Order::Hold(true));
    let stale = CHALLENGE.replace("\"n\"", "\"m\", stale=true");
    t.hear(&Method::Invite, 401, "x", &stale, Sdp::None);
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    assert_eq!(t.done(), "INVITE 3 x, INVITE 4 x, ACK 4 x, media SendOnly");

    let mut t = Solo::calling();
    for _ in 0..2 {
        t.hear(&Method::Invite, 401, "p", CHALLENGE, Sdp::None);
    }
    assert_eq!(
        t.done(),
        "INVITE 1, INVITE 2, ended 401 Remote",
        "a wrong password does not become right"
    );
    let mut t = Solo::calling_with(|settings| settings.credential = None);
    t.hear(&Method::Invite, 407, "p", CHALLENGE, Sdp::None);
    assert_eq!(t.done(), "INVITE 1, ended 407 Remote");
}

#[test]
fn elsewhere_is_told_unless_the_call_is_not_wanted_any_more() {
    let mut t = Solo::calling();
    t.hear(&Method::Invite, 302, "p", "", Sdp::None);
    assert!(t.done().contains("Redirected"));
    let mut t = Solo::calling();
    t.order(HANG_UP);
    t.hear(&Method::Invite, 302, "p", "", Sdp::None);
    assert_eq!(t.done(), "INVITE 1, CANCEL, ended 302 Local");
}

#[test]
fn a_bye_ends_what_is_under_way_and_two_byes_are_both_answered() {
    let mut t = talking();
    t.order(Order::Hold(true));
    t.ask(&Method::Bye, "x", "Reason: Q.850;cause=16\n", Sdp::None);
    t.hear(&Method::Invite, 487, "x", "", Sdp::None);
    assert_eq!(t.done(), "INVITE 2 x, 200, ended 200 Remote");

    let mut t = talking();
    t.order(HANG_UP);
    t.ask(&Method::Bye, "x", "", Sdp::None);
    t.ask(&Method::Info, "x", "", Sdp::None);
    assert_eq!(t.done(), "BYE 2 x, ended 200 Local, 200, 481");
}

#[test]
fn an_offer_that_is_refused_for_now_is_made_again_and_not_for_ever() {
    let mut t = talking();
    t.order(Order::Hold(true));
    t.hear(&Method::Invite, 500, "x", "Retry-After: 2\n", Sdp::None);
    assert_eq!(t.done(), "INVITE 2 x");
    t.wait(SECOND);
    assert_eq!(t.done(), "");
    t.wait(SECOND);
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    assert_eq!(t.done(), "INVITE 3 x, ACK 3 x, media SendOnly");
    t.order(Order::Hold(false));
    let mut tries = 0;
    while t.done().contains("INVITE") {
        tries += 1;
        t.hear(&Method::Invite, 491, "x", "", Sdp::None);
        t.wait(SECOND * 5);
    }
    assert_eq!(tries, 9);
    assert!(!t.leg.is_over(), "what was agreed on holds");
    // What is wished meanwhile is offered when the one before is refused.
    let mut t = talking();
    t.order(Order::Hold(true));
    t.order(Order::Hold(false));
    t.order(Order::Hold(true));
    t.hear(&Method::Invite, 488, "x", "", Sdp::None);
    assert_eq!(t.done(), "INVITE 2 x, INVITE 3 x");
    t.hear(&Method::Invite, 481, "x", "", Sdp::None);
    assert_eq!(t.done(), "BYE 4 x, ended 481 Vanished");
}

#[test]
fn a_renewal_that_is_refused_is_tried_again_without_haste_and_its_longer_time_taken() {
    let mut t = Solo::calling();
    t.hear(
        &Method::Invite,
        200,
        "x",
        "Allow: UPDATE\nSession-Expires: 90;refresher=uac\n",
        Sdp::Answer,
    );
    t.done();
    t.wait(SECOND * 45);
    t.hear(&Method::Update, 501, "x", "", Sdp::None);
    t.wait(SECOND * 7);
    assert_eq!(t.done(), "UPDATE 2 x");
    t.wait(SECOND);
    t.hear(&Method::Update, 422, "x", "Min-SE: 3600\n", Sdp::None);
    t.wait(SECOND);
    assert_eq!(t.done(), "UPDATE 3 x, INVITE 4 x");
    let asked = t.last_sent().headers.get(&HeaderName::SessionExpires);
    assert_eq!(asked, Some("3600;refresher=uac"));
    t.hear(
        &Method::Invite,
        200,
        "x",
        "Session-Expires: 3600;refresher=uac\n",
        Sdp::Answer,
    );
    t.wait(SECOND * 1_799);
    assert_eq!(t.done(), "ACK 4 x");
    t.wait(SECOND);
    assert_eq!(t.done(), "UPDATE 5 x");
}

#[test]
fn an_invite_without_an_offer_gets_ours_and_answers_in_its_ack() {
    let called = |extra: &str, reliable: Reliable| {
        Solo::called(extra, Sdp::None, |settings| settings.reliable = reliable)
            .expect("it is taken")
    };
    let mut t = called("Supported: 100rel\n", Reliable::Prefer);
    t.order(Order::Ring);
    t.order(Order::Answer);
    assert_eq!(t.done(), "180, 200", "an offer goes best with the 200");
    t.ack(1, "theirs", Sdp::Answer);
    assert_eq!(t.done(), "acknowledged, media SendRecv");

    let mut t = called("", Reliable::Accept);
    t.order(Order::Answer);
    t.ack(1, "theirs", Sdp::None);
    assert_eq!(t.done(), "200, acknowledged, BYE 1 theirs, ended 488 Media");

    // Where it has to be reliable, the offer goes with the first response, and the answer comes with its PRACK.
    let mut t = called("Require: 100rel\n", Reliable::Accept);
    t.order(Order::Ring);
    t.order(Order::Answer);
    assert!(!t.answered[0].body.is_empty());
    let rseq = t.answered[0]
        .headers
        .number(&HeaderName::RSeq)
        .expect("it is reliable");
    t.ask(
        &Method::Prack,
        "theirs",
        &format!("RAck: {rseq} 1 INVITE\n"),
        Sdp::Answer,
    );
    assert_eq!(t.done(), "180 reliably, media SendRecv, proven, 200, 200");
    assert!(
        t.answered
            .last()
            .is_some_and(|answer| answer.body.is_empty())
    );
    t.ack(1, "theirs", Sdp::None);
    assert_eq!(t.done(), "acknowledged");
}

#[test]
fn an_update_before_the_answer_waits_until_the_first_offer_has_one() {
    let mut t = Solo::called("Require: 100rel\n", Sdp::Offer, |_| {}).expect("it is taken");
    t.ask(&Method::Update, "theirs", "", Sdp::Offer);
    t.order(Order::Progress);
    t.ask(&Method::Update, "theirs", "", Sdp::Offer);
    assert_eq!(t.done(), "500, media SendRecv, 183 reliably, 500");
    let rseq = t.answered[1]
        .headers
        .number(&HeaderName::RSeq)
        .expect("it is reliable");
    let rack = |rseq: u32| format!("RAck: {rseq} 1 INVITE\n");
    t.ask(&Method::Prack, "theirs", &rack(rseq + 1), Sdp::None);
    t.ask(&Method::Prack, "theirs", &rack(rseq), Sdp::None);
    t.ask(&Method::Prack, "theirs", &rack(rseq), Sdp::None);
    t.ask(&Method::Update, "theirs", "", Sdp::Offer);
    assert_eq!(t.done(), "481, proven, 200, 481, 200");
    t.order(Order::Answer);
    assert_eq!(t.done(), "200");
    assert!(
        t.answered
            .last()
            .is_some_and(|answer| answer.body.is_empty())
    );
}

#[test]
fn an_invite_that_lacks_something_is_refused_with_what_it_lacks() {
    let refused = |extra: &str, change: fn(&mut gateway_core::leg::Settings)| {
        let response = Solo::called(extra, Sdp::None, change).err()?;
        let headers = [
            HeaderName::Require,
            HeaderName::Unsupported,
            HeaderName::MinSe,
            HeaderName::Accept,
        ];
        let value = headers.iter().find_map(|name| response.headers.get(name));
        Some(format!("{} {}", response.code, value.unwrap_or_default()))
    };
    let require =
        |settings: &mut gateway_core::leg::Settings| settings.reliable = Reliable::Require;
    for (extra, expected) in [
        ("Max-Forwards: 0\n", Some("483 ")),
        ("Require: teleport\n", Some("420 teleport")),
        ("Accept: text/plain\n", Some("406 ")),
        (
            "Content-Type: text/plain\nContent-Length: 1\n\nx",
            Some("415 application/sdp"),
        ),
        ("Supported: timer\nSession-Expires: 30\n", Some("422 90")),
        ("Session-Expires: soon\n", Some("400 ")),
        ("", None),
    ] {
        assert_eq!(refused(extra, |_| {}).as_deref(), expected, "{extra}");
    }
    assert_eq!(refused("", require).as_deref(), Some("421 100rel"));
    assert_eq!(refused("Supported: 100rel\n", require), None);
}

#[test]
fn a_leg_is_replaced_by_whoever_names_its_dialog() {
    use gateway_core::dialog::DialogId;
    let mut t = Solo::calling();
    let name = t.leg.name().clone();
    let id = |tag: &str| DialogId::new(&name.call_id, &name.local_tag, tag);
    assert_eq!(
        t.leg.may_be_replaced(&id("x"), false),
        Err(StatusCode::NO_SUCH_CALL)
    );
    t.hear(&Method::Invite, 180, "x", "", Sdp::None);
    assert_eq!(t.leg.may_be_replaced(&id("x"), true), Ok(()));
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    for (tag, early_only, expected) in [
        ("x", false, Ok(())),
        ("x", true, Err(StatusCode::BUSY_HERE)),
        ("y", false, Err(StatusCode::NO_SUCH_CALL)),
    ] {
        assert_eq!(t.leg.may_be_replaced(&id(tag), early_only), expected);
    }
    t.order(HANG_UP);
    assert_eq!(
        t.leg.may_be_replaced(&id("x"), false),
        Err(StatusCode::DECLINE)
    );
    let t = Solo::called("", Sdp::Offer, |_| {}).expect("it is taken");
    let id = t.leg.dialog().expect("it has one").clone();
    assert_eq!(
        t.leg.may_be_replaced(&id, false),
        Err(StatusCode::NO_SUCH_CALL),
        "somebody else has to answer it first"
    );
}

#[test]
fn what_a_later_request_overtook_is_sent_again() {
    let mut t = talking();
    t.order(Order::Hold(true));
    t.order(Order::Key('1'));
    t.hear(&Method::Invite, 500, "x", "", Sdp::None);
    assert_eq!(t.done(), "INVITE 2 x, INFO 3 x, INVITE 4 x");
    // Nothing overtook this one: it is refused.
    t.hear(&Method::Invite, 500, "x", "", Sdp::None);
    t.hear(&Method::Info, 500, "x", "", Sdp::None);
    assert_eq!(t.done(), "INFO 5 x");
    t.hear(&Method::Info, 500, "x", "", Sdp::None);
    assert_eq!(t.done(), "");
}

#[test]
fn keys_go_out_one_after_the_other() {
    let mut t = talking();
    for key in ['1', '#'] {
        t.order(Order::Key(key));
    }
    assert_eq!(t.done(), "INFO 2 x");
    assert_eq!(t.last_sent().body, b"Signal=1\r\nDuration=160\r\n");
    t.hear(&Method::Info, 200, "x", "", Sdp::None);
    assert_eq!(t.last_sent().body, b"Signal=#\r\nDuration=160\r\n");
    t.hear(&Method::Info, 415, "x", "", Sdp::None);
    assert_eq!(t.done(), "INFO 3 x");
}

#[test]
fn what_the_other_side_does_not_bear_is_left_out() {
    let quirks = Quirks {
        no_session_timers: true,
        no_reliable: true,
        no_update: true,
        no_refer: true,
        hold_by_zero_address: true,
    };
    let mut t = Solo::calling_with(|settings| settings.quirks = quirks);
    let header = |t: &Solo, name| t.last_sent().headers.get(&name).map(str::to_owned);
    assert_eq!(
        header(&t, HeaderName::Supported).as_deref(),
        Some("replaces")
    );
    assert_eq!(header(&t, HeaderName::SessionExpires), None);
    let allow = header(&t, HeaderName::Allow).expect("it is there");
    assert_eq!(allow, "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY");
    t.hear(
        &Method::Invite,
        200,
        "x",
        "Allow: UPDATE\nSession-Expires: 90;refresher=uac\n",
        Sdp::Answer,
    );
    t.done();
    t.wait(SECOND * 3_600);
    assert_eq!(t.done(), "");
    t.order(Order::Hold(true));
    let body = String::from_utf8(t.last_sent().body.clone()).expect("text");
    assert!(body.contains("c=IN IP4 0.0.0.0\r\n"), "{body}");
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    t.order(Order::Hold(false));
    let body = String::from_utf8(t.last_sent().body.clone()).expect("text");
    assert!(body.contains("c=IN IP4 192.0.2.1\r\n"), "{body}");
    t.hear(&Method::Invite, 200, "x", "", Sdp::Answer);
    t.done();
    let target = gateway_sip::Uri::parse("tel:+4930123456").expect("a URI");
    t.order(Order::Refer(target));
    t.ask(
        &Method::Refer,
        "x",
        "Refer-To: <tel:+4930123456>\n",
        Sdp::None,
    );
    t.ask(
        &Method::Invite,
        "x",
        "Supported: timer\nSession-Expires: 90\n",
        Sdp::Offer,
    );
    assert_eq!(
        t.done(),
        "Referred(StatusCode(405)), 405, media SendRecv, 200"
    );
    let answer = t.answered.last().expect("it was answered");
    assert_eq!(answer.headers.get(&HeaderName::SessionExpires), None);
}
