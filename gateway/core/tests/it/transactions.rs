//! What is sent again, when, and until when.

use std::time::Duration;

use gateway_core::transaction::{Output, Transactions, Transport};
use gateway_sip::sanity::{Cause, Framing, Incoming, check};
use gateway_sip::{HeaderName, Method, StatusCode};
use sim::{Link, Rng};

use crate::world::{A, B, World, answer, codes, line, read, request, requests};

const MINUTE: Duration = Duration::from_secs(60);
const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn an_invite_that_nobody_answers_is_sent_seven_times_and_given_up_after_32_s() {
    let mut t = World::new(Transport::Udp);
    t.cut(MINUTE);
    let id = t.request(A, request(&Method::Invite, 1));
    t.advance(MS(31_999));
    assert_eq!(times(&t), [0, 500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert!(t.told[A].is_empty());
    t.advance(MS(1));
    assert_eq!(t.told[A], [Output::TimedOut(id)]);
    assert!(t.ends[A].is_empty());
}

#[test]
fn another_request_is_sent_every_4_s_in_the_end() {
    let mut t = World::new(Transport::Udp);
    t.cut(MINUTE);
    let id = t.request(A, request(&Method::Options, 1));
    t.advance(MINUTE);
    let expected = [
        0, 500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
    ];
    assert_eq!(times(&t), expected);
    assert_eq!(t.told[A], [Output::TimedOut(id)]);
}

#[test]
fn over_a_stream_nothing_is_sent_twice_but_a_2xx() {
    let mut t = World::new(Transport::Tcp);
    t.request(A, request(&Method::Invite, 1));
    t.request(A, request(&Method::Options, 2));
    t.advance(MS(100));
    for (id, request) in requests(&t.told[B]) {
        t.respond(B, id, &answer(&request, StatusCode::BUSY_HERE));
    }
    t.advance(MINUTE);
    assert_eq!(
        t.ladder.to_string(),
        "  0ms  a → b  INVITE 1\n  0ms  a → b  OPTIONS 2\n100ms  b → a  486 INVITE 1\n100ms  b → a  486 OPTIONS 2\n110ms  a → b  ACK 1\n"
    );
    assert!(t.ends[A].is_empty() && t.ends[B].is_empty());
}

#[test]
fn a_failure_is_sent_until_its_ack_and_the_ack_as_often_as_the_failure() {
    let mut t = World::new(Transport::Udp);
    t.request(A, request(&Method::Invite, 1));
    t.advance(MS(50));
    let (id, invite) = requests(&t.told[B]).remove(0);
    t.cut(MS(800));
    t.respond(B, id, &answer(&invite, StatusCode::BUSY_HERE));
    t.advance(MS(5_000));
    assert_eq!(
        t.ladder.to_string(),
        "   0ms  a → b  INVITE 1\n  50ms  b → a  486 INVITE 1\n 500ms  a → b  INVITE 1\n 550ms  b → a  486 INVITE 1\n\
         1500ms  a → b  INVITE 1\n1510ms  b → a  486 INVITE 1\n1520ms  a → b  ACK 1\n"
    );
    assert_eq!(codes(&t.told[A]), [486]);
    t.advance(MINUTE);
    assert!(t.ends[A].is_empty() && t.ends[B].is_empty());
}

#[test]
fn an_invite_is_answered_with_100_unless_its_user_was_quicker() {
    let mut t = World::new(Transport::Udp);
    t.request(A, request(&Method::Invite, 1));
    t.advance(MS(209));
    assert_eq!(codes(&t.told[A]), [] as [u16; 0]);
    t.advance(MS(20));
    assert_eq!(codes(&t.told[A]), [100]);
    let (id, invite) = requests(&t.told[B]).remove(0);
    t.respond(B, id, &answer(&invite, StatusCode::RINGING));
    t.advance(MINUTE * 10);
    assert_eq!(codes(&t.told[A]), [100, 180], "ringing has no end here");
}

#[test]
fn a_2xx_is_sent_eleven_times_in_32_s_and_then_known_as_unacknowledged() {
    let mut t = World::new(Transport::Udp);
    t.request(A, request(&Method::Invite, 1));
    t.advance(MS(50));
    let (id, invite) = requests(&t.told[B]).remove(0);
    t.respond(B, id, &answer(&invite, StatusCode::OK));
    t.advance(MS(31_999));
    assert_eq!(
        codes(&t.told[A]).len(),
        11,
        "and each of them is told, for each wants its ACK"
    );
    assert!(!t.told[B].contains(&Output::Unacknowledged(id)));
    t.advance(MS(1));
    assert!(t.told[B].contains(&Output::Unacknowledged(id)));
    t.advance(MINUTE);
    assert!(t.ends[A].is_empty() && t.ends[B].is_empty());
}

#[test]
fn the_ack_of_a_2xx_ends_it() {
    let mut t = World::new(Transport::Udp);
    t.request(A, request(&Method::Invite, 1));
    t.advance(MS(50));
    let (id, invite) = requests(&t.told[B]).remove(0);
    t.respond(B, id, &answer(&invite, StatusCode::OK));
    t.advance(MS(50));
    t.request(A, request(&Method::Ack, 1));
    t.advance(MS(50));
    assert!(
        t.told[B]
            .iter()
            .any(|output| matches!(output, Output::Ack { .. }))
    );
    t.act(B, |end, _| end.acknowledged(id));
    t.advance(MINUTE);
    assert_eq!(codes(&t.told[A]), [200]);
    assert!(!t.told[B].contains(&Output::Unacknowledged(id)));
    assert!(t.ends[A].is_empty() && t.ends[B].is_empty());
}

#[test]
fn a_cancel_waits_until_it_can_t_overtake_its_invite() {
    let mut t = World::new(Transport::Udp);
    let id = t.request(A, request(&Method::Invite, 1));
    t.act(A, |end, now| end.cancel(now, id));
    t.act(A, |end, now| end.cancel(now, id));
    t.advance_with(MS(1_000), |t, end, output| {
        if let (B, Output::Cancelled { id, cancel }) = (end, output) {
            let mut invite = cancel.request;
            invite.headers.set(HeaderName::CSeq, "1 INVITE");
            t.respond(B, id, &answer(&invite, StatusCode::REQUEST_TERMINATED));
        }
    });
    assert_eq!(
        t.ladder.to_string(),
        "  0ms  a → b  INVITE 1\n210ms  b → a  100 INVITE 1\n220ms  a → b  CANCEL 1\n230ms  b → a  200 CANCEL 1\n\
         230ms  b → a  487 INVITE 1\n240ms  a → b  ACK 1\n"
    );
    assert_eq!(codes(&t.told[A]), [100, 487]);
}

#[test]
fn a_cancel_that_comes_too_late_or_for_nothing_changes_nothing() {
    let mut t = World::new(Transport::Udp);
    let id = t.request(A, request(&Method::Invite, 1));
    t.advance(MS(300));
    let (server, invite) = requests(&t.told[B]).remove(0);
    t.act(A, |end, now| end.cancel(now, id));
    t.respond(B, server, &answer(&invite, StatusCode::OK));
    t.advance(MS(100));
    assert!(
        !t.told[B]
            .iter()
            .any(|output| matches!(output, Output::Cancelled { .. }))
    );
    assert_eq!(codes(&t.told[A]), [100, 200]);
    t.request(A, request(&Method::Cancel, 9));
    t.advance(MS(100));
    assert!(
        t.ladder.to_string().ends_with("b → a  481 CANCEL 9\n"),
        "{}",
        t.ladder
    );
}

#[test]
fn an_invite_that_was_cancelled_and_gets_no_answer_is_given_up() {
    let mut t = World::new(Transport::Udp);
    let id = t.request(A, request(&Method::Invite, 1));
    t.advance(MS(300));
    t.act(A, |end, now| end.cancel(now, id));
    t.advance(MINUTE);
    assert!(t.told[A].contains(&Output::TimedOut(id)));
    assert!(t.ends[A].is_empty());
}

#[test]
fn a_reliable_provisional_response_is_sent_until_its_prack() {
    let mut t = World::new(Transport::Udp);
    t.request(A, request(&Method::Invite, 1));
    t.advance(MS(50));
    let (id, invite) = requests(&t.told[B]).remove(0);
    let progress = answer(&invite, StatusCode::SESSION_PROGRESS);
    t.act(B, |end, now| end.respond_reliably(now, id, &progress));
    t.advance(MS(4_000));
    assert_eq!(codes(&t.told[A]), [183; 4]);
    t.act(B, |end, _| end.proven(id));
    t.advance(MINUTE);
    assert_eq!(codes(&t.told[A]), [183; 4]);

    t.act(B, |end, now| end.respond_reliably(now, id, &progress));
    t.advance(MINUTE);
    assert!(t.told[B].contains(&Output::NoPrack(id)));
}

#[test]
fn a_request_that_comes_by_two_ways_is_taken_once() {
    let mut t = World::new(Transport::Udp);
    t.request(A, request(&Method::Invite, 1));
    t.request(A, request(&Method::Invite, 1));
    t.advance(MS(100));
    assert_eq!(requests(&t.told[B]).len(), 1);
    assert_eq!(codes(&t.told[A]), [482]);
    assert_eq!(t.ends[B].counters().merged, 1);
}

#[test]
fn more_requests_than_there_is_room_for_are_refused_and_keep_nothing() {
    let mut t = World::new(Transport::Udp);
    t.ends[B] = Transactions::with_limits(1, 1);
    t.request(A, request(&Method::Options, 1));
    t.request(A, request(&Method::Options, 2));
    t.advance(MS(100));
    assert_eq!(requests(&t.told[B]).len(), 1);
    assert_eq!(codes(&t.told[A]), [503]);
    assert_eq!(
        (t.ends[B].len(), t.ends[B].counters().overload),
        ((0, 1), 1)
    );
}

#[test]
fn a_request_of_before_rfc_3261_finds_its_transaction() {
    let mut end = Transactions::default();
    let t = World::new(Transport::Udp);
    let (now, flow) = (t.now(), t.flow(B));
    let text = |method: &str, tag: &str| {
        format!(
            "{method} sip:b@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@192.0.2.1>;tag=a1\r\n\
             To: <sip:b@192.0.2.2>{tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    end.handle_incoming(now, flow, read(text("INVITE", "").as_bytes()));
    end.handle_incoming(now, flow, read(text("INVITE", "").as_bytes()));
    let Some(Output::Request { id, incoming, .. }) = end.poll_output() else {
        panic!("the INVITE was told once");
    };
    assert_eq!(end.poll_output(), None);
    end.respond(now, id, &answer(&incoming.request, StatusCode::DECLINE));
    end.handle_incoming(now, flow, read(text("ACK", ";tag=b1").as_bytes()));
    end.handle_timeout(now + MS(5_000));
    assert!(end.is_empty(), "the ACK was taken: nothing is sent again");
}

#[test]
fn what_is_unfit_is_counted_and_answered_by_its_way() {
    let mut end = Transactions::default();
    let t = World::new(Transport::Udp);
    let text = "OPTIONS sip:b@192.0.2.2 SIP/9.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx;rport\r\nFrom: <sip:a@h>;tag=a\r\n\
                To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n";
    let unfit = check(text.as_bytes(), Framing::Datagram, "t").expect_err("of version 9");
    let mut flow = t.flow(B);
    flow.remote.set_port(40_000);
    end.handle_unfit(flow, unfit);
    let Some(Output::Send { flow: to, bytes }) = end.poll_output() else {
        panic!("it is answered");
    };
    assert_eq!((to, line(&bytes)), (flow, "505 OPTIONS 1".into()));
    let answered = String::from_utf8(bytes).expect("text");
    assert!(
        answered.contains("branch=z9hG4bKx;rport=40000;received=192.0.2.1\r\n"),
        "{answered}"
    );
    assert_eq!(end.counters().unfit(Cause::Version), 1);
    assert!(end.is_empty());

    // A stranger is challenged in the same way.
    let text = text.replace("SIP/9.0", "SIP/2.0");
    let Incoming::Request(stranger) = read(text.as_bytes()) else {
        panic!("a request");
    };
    end.respond_statelessly(flow, answer(&stranger.request, StatusCode::UNAUTHORIZED));
    let Some(Output::Send { flow: to, bytes }) = end.poll_output() else {
        panic!("it is answered");
    };
    assert_eq!((to, line(&bytes)), (flow, "401 OPTIONS 1".into()));
    assert!(end.is_empty());
}

#[test]
fn what_waits_on_a_broken_connection_fails_at_once() {
    let mut t = World::new(Transport::Tcp);
    let id = t.request(A, request(&Method::Options, 1));
    let flow = t.flow(A);
    t.act(A, |end, _| end.handle_broken(flow));
    assert_eq!(t.told[A], [Output::Failed(id)]);
    assert!(t.ends[A].is_empty() && t.ends[A].poll_timeout().is_none());
}

/// Calls over a network that loses a tenth, doubles the order about and takes its time.
#[test]
fn nothing_that_is_lost_on_the_way_fails_a_call() {
    for seed in 0..20 {
        let link = Link {
            latency: MS(5),
            jitter: MS(120),
            loss_per_mille: 100,
        };
        let mut t = World::with_link(Transport::Udp, seed, link);
        let mut random = Rng::new(seed);
        let (mut answered, mut acknowledged) = (0, 0);
        let calls = 25;
        for call in 1..=calls {
            t.request(A, request(&Method::Invite, call));
            t.advance(MS(u64::from(call) * 7));
        }
        let mut seen = 0;
        for _ in 0..400 {
            let fresh: Vec<_> = requests(&t.told[B]).into_iter().skip(seen).collect();
            seen += fresh.len();
            for (id, invite) in fresh {
                let busy = random.percent(50);
                t.respond(
                    B,
                    id,
                    &answer(
                        &invite,
                        if busy {
                            StatusCode::BUSY_HERE
                        } else {
                            StatusCode::OK
                        },
                    ),
                );
            }
            for output in std::mem::take(&mut t.told[A]) {
                if let Output::Response { incoming, .. } = output
                    && incoming.response.code.is_success()
                {
                    answered += 1;
                    t.request(A, request(&Method::Ack, incoming.envelope.cseq.number));
                }
            }
            let acks: Vec<_> = t.told[B]
                .extract_if(.., |output| matches!(output, Output::Ack { .. }))
                .collect();
            for ack in acks {
                let Output::Ack { incoming, .. } = ack else {
                    continue;
                };
                acknowledged += 1;
                let number = incoming.envelope.cseq.number;
                let of = |(_, request): &&(_, gateway_sip::Request)| {
                    request.headers.get(&HeaderName::CallId)
                        == Some(format!("call{number}").as_str())
                };
                let all = requests(&t.told[B]);
                let (id, _) = *all.iter().find(of).expect("it was answered");
                t.act(B, |end, _| end.acknowledged(id));
            }
            t.advance(MS(250));
        }
        assert_eq!(seen, 25, "seed {seed}: each INVITE is told once");
        assert!(answered >= acknowledged && acknowledged > 0, "seed {seed}");
        let lost =
            |output: &Output| matches!(output, Output::Unacknowledged(_) | Output::TimedOut(_));
        assert!(
            !t.told[A].iter().chain(&t.told[B]).any(lost),
            "seed {seed}\n{}",
            t.ladder
        );
        assert!(t.ends[A].is_empty() && t.ends[B].is_empty(), "seed {seed}");
    }
}

/// When requests left, in milliseconds.
fn times(t: &World) -> Vec<u64> {
    let ladder = t.ladder.to_string();
    let time = |line: &str| {
        line.trim_start()
            .split_once("ms")
            .and_then(|(time, _)| time.parse().ok())
    };
    ladder.lines().filter_map(time).collect()
}
