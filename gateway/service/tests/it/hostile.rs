//! What is sent to do harm, at a gateway in which a call goes on that must not notice.

use std::fmt::Write;
use std::path::Path;

use gateway_core::transaction::Transport;
use gateway_sip::{HeaderName, Method, Request, Response, StatusCode};
use model::CallId;
use model::phone::{PhoneCommandKind, PhoneEventKind, PhoneReason};

use crate::peer::{Peer, SDP};
use crate::routes::{DESK, desk, provider, rings, with_desk, with_phone};
use crate::world::{NUMBER, PLENTY, World, telephony, trunk, user};

const SETTINGS: &str = "domains = ['sip.example.com']\nstranger_messages_per_second = 100000";

/// A call of Alice's that goes on.
struct Ongoing {
    call: CallId,
    invite: Request,
    number: u32,
}

impl Ongoing {
    async fn begin(t: &mut World, peer: &mut Peer) -> Self {
        let call = t.dial("tel:+49891234567").await;
        let invite = peer.request(&Method::Invite).await;
        peer.pick_up(&invite).await;
        while t.event().await != (call, PhoneEventKind::Answered) {}
        Self {
            call,
            invite,
            number: 0,
        }
    }

    /// Whether it is as it was: the other side may still ask for something, and is still heard.
    async fn goes_on(&mut self, t: &World, peer: &mut Peer) {
        self.number += 1;
        let ask = peer.inside_of(&Method::Options, self.number, &self.invite);
        peer.send(&ask.to_bytes()).await;
        peer.code(&Method::Options, StatusCode::OK).await;
        assert!(t.handle.figures().await.calls >= 1);
    }

    /// It ends as calls end.
    async fn end(mut self, t: &mut World, peer: &mut Peer) {
        self.goes_on(t, peer).await;
        t.tell(self.call, PhoneCommandKind::HangUp { cause: 16 })
            .await;
        let bye = peer.request(&Method::Bye).await;
        peer.answer(&bye, StatusCode::OK, |_| {}).await;
        loop {
            if let (of, PhoneEventKind::Ended(end)) = t.event().await
                && of == self.call
            {
                return assert_eq!(end.reason, PhoneReason::Hangup);
            }
        }
    }
}

async fn world() -> (World, Peer, Ongoing) {
    let (peer, rows) = provider().await;
    let mut rows = with_phone(with_desk(rows), "bob-desk", "user = 'bob'");
    for trunk in rows.trunks.values_mut() {
        trunk.networks = vec!["127.0.1.0/24".parse().unwrap()];
    }
    let mut t = World::new(SETTINGS, rows).await;
    let mut peer = peer.toward(t.address(Transport::Udp));
    let ongoing = Ongoing::begin(&mut t, &mut peer).await;
    (t, peer, ongoing)
}

/// What a Trunk is answered that sends the messages of RFC 4475 and RFC 5118, but for provisional answers; nothing where it is not listed:
/// responses, what no answer finds its way by, and what proves nothing.
const ANSWERS: &[(&str, u16)] = &[
    ("rfc4475_badaspec", 400),
    ("rfc4475_badbranch", 200),
    ("rfc4475_baddate", 404),
    ("rfc4475_baddn", 400),
    ("rfc4475_badinv01_contact", 400),
    ("rfc4475_badvers_via", 505),
    ("rfc4475_bext01", 420),
    ("rfc4475_clerr", 400),
    ("rfc4475_esc01", 404),
    ("rfc4475_esc02", 501),
    ("rfc4475_escruri", 400),
    ("rfc4475_intmeth", 501),
    ("rfc4475_inv2543", 404),
    ("rfc4475_invut", 404),
    ("rfc4475_longreq", 404),
    ("rfc4475_ltgturi", 400),
    ("rfc4475_lwsdisp", 200),
    ("rfc4475_lwsruri", 400),
    ("rfc4475_lwsstart", 400),
    ("rfc4475_mcl01", 400),
    ("rfc4475_mismatch01", 400),
    ("rfc4475_mismatch02", 400),
    ("rfc4475_mpart01", 405),
    ("rfc4475_multi01", 400),
    ("rfc4475_ncl", 400),
    ("rfc4475_novelsc", 416),
    ("rfc4475_quotbal", 400),
    ("rfc4475_regbadct", 400),
    ("rfc4475_scalar02", 400),
    ("rfc4475_scalar02_expires", 400),
    ("rfc4475_sdp01", 404),
    ("rfc4475_semiuri", 200),
    ("rfc4475_transports", 200),
    ("rfc4475_trws", 400),
    ("rfc4475_unkscm", 416),
    ("rfc4475_wsinv", 481),
    ("rfc4475_zeromf", 200),
    ("rfc5118_ipv4_mapped", 404),
    ("rfc5118_ipv6_bad", 400),
    ("rfc5118_ipv6_sdp", 404),
    ("rfc5118_mult_ip_header", 481),
    ("rfc5118_three_colons", 400),
    ("rfc5118_via_received_delim", 481),
    ("rfc5118_via_received_plain", 200),
];

#[tokio::test]
async fn every_torture_message_is_answered_as_is_due() {
    let (mut t, mut peer, mut ongoing) = world().await;
    let here = t.address(Transport::Udp);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/sip_message");
    let mut wrong = String::new();
    let files = std::fs::read_dir(folder).expect("the corpus is committed");
    let mut number = 0;
    for file in files {
        let file = file.unwrap();
        number += 1;
        let name = file.file_name().into_string().unwrap();
        if !name.starts_with("rfc") {
            continue;
        }
        // One socket each, so that nothing that comes late is taken for another's.
        // It is answered at the port that its Via names, and there alone.
        let port = match name.as_str() {
            "rfc5118_ipv4_mapped" => 19_823,
            "rfc5118_mult_ip_header" => 6_050,
            _ => 5_060,
        };
        let mut sender = Peer::at(([127, 0, 1, number], port).into()).await;
        sender = sender.toward(here);
        // And many have one branch in common, which would make them one request that comes again.
        let message = std::fs::read(file.path()).unwrap();
        let message = with_branch(&message, number);
        sender.send(&message).await;
        let last = sender.outside(&Method::Options, "sip:127.0.0.1");
        let codes = sender.codes_before(&last).await;
        let code = codes.into_iter().find(|code| *code >= 200);
        let due = ANSWERS.iter().find(|(known, _)| *known == name);
        if code != due.map(|(_, code)| *code) {
            writeln!(wrong, "{name} {code:?} instead of {due:?}").unwrap();
        }
        ongoing.goes_on(&t, &mut peer).await;
    }
    assert!(wrong.is_empty(), "{wrong}");
    ongoing.end(&mut t, &mut peer).await;
}

/// The message, with a branch of its own where it has the one that most have.
fn with_branch(message: &[u8], number: u8) -> Vec<u8> {
    const COMMON: &[u8] = b";branch=z9hG4bKcx";
    let found = message.windows(COMMON.len()).position(|at| at == COMMON);
    let (head, rest) = message.split_at(found.map_or(0, |at| at + COMMON.len()));
    match found {
        Some(_) => [head, number.to_string().as_bytes(), rest].concat(),
        None => message.to_vec(),
    }
}

#[tokio::test]
async fn a_password_that_was_heard_opens_nothing() {
    let (mut t, mut peer, ongoing) = world().await;
    let here = t.address(Transport::Udp);
    let mut desk = desk(&t).await;
    let mut register = desk.outside(&Method::Register, "sip:sip.example.com");
    let own = format!("<sip:{DESK}@sip.example.com>");
    register.headers.set(HeaderName::To, &own);
    register
        .headers
        .set(HeaderName::From, format_args!("{own};tag=again"));
    desk.prove(&mut register, DESK, "hush").await;
    desk.code(&Method::Register, StatusCode::OK).await;
    // Who has heard it all says it again, from elsewhere, to be reached there.
    let mut thief = Peer::udp("127.0.0.77").await.toward(here);
    let mut again = register.clone();
    again.headers.set(HeaderName::Contact, thief.contact());
    let via = again.headers.get(&HeaderName::Via).unwrap();
    let via = via.replace(";branch=z9hG4bK", ";branch=z9hG4bKstolen");
    again.headers.set(HeaderName::Via, via);
    again.headers.set(HeaderName::CSeq, "3 REGISTER");
    thief.send(&again.to_bytes()).await;
    thief
        .code(&Method::Register, StatusCode::UNAUTHORIZED)
        .await;
    assert_eq!(t.handle.figures().await.phones, 1);
    // Alice is still called where she is, and nowhere else.
    let invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    peer.send(&invite.to_bytes()).await;
    rings(&mut t, "alice").await;
    desk.request(&Method::Invite).await;
    assert!(thief.hears_nothing());
    ongoing.end(&mut t, &mut peer).await;
}

#[tokio::test]
async fn nobody_is_registered_as_somebody_else() {
    let (mut t, mut peer, ongoing) = world().await;
    let mut desk = Peer::udp("127.0.0.5")
        .await
        .toward(t.address(Transport::Udp));
    for other in ["bob-desk", "nobody"] {
        let mut register = desk.outside(&Method::Register, "sip:sip.example.com");
        let address = format!("<sip:{other}@sip.example.com>");
        register.headers.set(HeaderName::To, &address);
        desk.prove(&mut register, DESK, "hush").await;
        desk.code(&Method::Register, StatusCode::FORBIDDEN).await;
    }
    // A Trunk's address proves nothing here: where a phone is, its password says.
    let mut register = peer.outside(&Method::Register, "sip:sip.example.com");
    let address = "<sip:bob-desk@sip.example.com>";
    register.headers.set(HeaderName::To, address);
    peer.send(&register.to_bytes()).await;
    peer.code(&Method::Register, StatusCode::UNAUTHORIZED).await;
    assert_eq!(t.handle.figures().await.phones, 0);
    ongoing.end(&mut t, &mut peer).await;
}

#[tokio::test]
async fn a_stream_whose_lengths_are_wrong_ends_alone() {
    let (mut t, mut peer, ongoing) = world().await;
    let here = t.address(Transport::Tcp);
    let mut other = Peer::connect(here).await;
    let options = other.outside(&Method::Options, "sip:127.0.0.1");
    other.send(&options.to_bytes()).await;
    other.code(&Method::Options, StatusCode::OK).await;
    for length in ["-1", "x", "4294967297", "99999999", ""] {
        let mut sender = Peer::connect(here).await;
        let request = sender.invite(&format!("sip:{NUMBER}@127.0.0.1"));
        let text = String::from_utf8(request.to_bytes()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let lines = head.lines().map(|line| match line.split_once(':') {
            Some(("Content-Length", _)) => format!("Content-Length: {length}\r\n"),
            _ => format!("{line}\r\n"),
        });
        let wrong = format!("{}\r\n{body}", lines.collect::<String>());
        sender.send(wrong.as_bytes()).await;
        sender.ended().await;
    }
    // One that is too short makes what is left of the body the beginning of the next message.
    let mut sender = Peer::connect(here).await;
    let options = sender.outside(&Method::Options, "sip:127.0.0.1");
    let whole = [&options.to_bytes(), SDP.as_bytes()].concat();
    sender.send(&whole).await;
    sender.ended().await;
    let options = other.outside(&Method::Options, "sip:127.0.0.1");
    other.send(&options.to_bytes()).await;
    other.code(&Method::Options, StatusCode::OK).await;
    ongoing.end(&mut t, &mut peer).await;
}

#[tokio::test]
async fn descriptions_that_never_end_are_refused() {
    let (mut t, mut peer, ongoing) = world().await;
    let sections = "m=audio 9 RTP/AVP 8\r\n".repeat(500);
    let attributes = "a=x\r\n".repeat(3_000);
    let formats = format!("m=audio 9 RTP/AVP{}\r\n", " 8".repeat(5_000));
    let zeros = format!("m=audio {}9 RTP/AVP 8\r\n", "0".repeat(5_000));
    let nested: String = (0..400)
        .map(|at| {
            format!(
                "--{at}\r\nContent-Type: multipart/mixed;boundary={}\r\n\r\n",
                at + 1
            )
        })
        .collect();
    let head = SDP.split("m=").next().unwrap();
    for (body, kind) in [
        (format!("{head}{sections}"), "application/sdp"),
        (format!("{head}{attributes}"), "application/sdp"),
        (format!("{head}{formats}"), "application/sdp"),
        (format!("{head}{zeros}"), "application/sdp"),
        (nested, "multipart/mixed;boundary=0"),
        ("v".repeat(20_000), "application/sdp"),
    ] {
        let mut invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
        invite.headers.set(HeaderName::ContentType, kind);
        invite.body = body.into_bytes();
        peer.send(&invite.to_bytes()).await;
        let answer: Response = loop {
            let answer = peer.response(&Method::Invite).await;
            if answer.code.is_final() {
                break answer;
            }
        };
        assert!(
            [400, 415, 488].contains(&answer.code.get()),
            "{} to {}",
            answer.code,
            String::from_utf8_lossy(&invite.body[..80])
        );
    }
    ongoing.end(&mut t, &mut peer).await;
}

#[tokio::test]
async fn a_flood_of_strangers_drowns_nobody() {
    let (peer, rows) = provider().await;
    let settings = "domains = ['sip.example.com']\nstranger_messages_per_second = 20";
    let mut t = World::new(settings, rows).await;
    let here = t.address(Transport::Udp);
    let mut peer = peer.toward(here);
    let mut ongoing = Ongoing::begin(&mut t, &mut peer).await;
    let mut flood = Peer::udp("127.0.0.99").await.toward(here);
    for round in 0..20 {
        for number in 0..100 {
            let invite = flood.invite(&format!("sip:{number}@sip.example.com"));
            flood.send(&invite.to_bytes()).await;
        }
        if round % 5 == 0 {
            ongoing.goes_on(&t, &mut peer).await;
        }
    }
    t.until(|figures| {
        figures
            .silences
            .get("flood")
            .is_some_and(|count| *count > 1_000)
    })
    .await;
    let figures = t.handle.figures().await;
    assert!(
        figures.transactions < 10 && figures.legs == 1,
        "{figures:?}"
    );
    ongoing.end(&mut t, &mut peer).await;
}

#[tokio::test]
async fn what_goes_round_comes_to_an_end() {
    let (peer, mut rows) = provider().await;
    let settings = format!(
        "forward.always = {{ forward = '{NUMBER_ELSEWHERE}' }}\n\
         limits = {{ calls = 100, calls_per_second = 100, minutes_per_day = 100 }}"
    );
    rows.users
        .insert(user(), toml::from_str(&settings).unwrap());
    rows.limits.0 = PLENTY;
    for trunk in rows.trunks.values_mut() {
        trunk.limits = PLENTY;
    }
    let t = World::new("", rows).await;
    let mut peer = peer.toward(t.address(Transport::Udp));
    // The other side sends back whatever we send on.
    let mut invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    invite.headers.set(HeaderName::MaxForwards, 3);
    let mut rounds = 0;
    loop {
        peer.send(&invite.to_bytes()).await;
        let code = peer.first(&Method::Invite).await;
        match code {
            Ok(onward) => {
                let hops = onward.headers.number(&HeaderName::MaxForwards).unwrap();
                assert_eq!(hops, 2 - rounds);
                rounds += 1;
                invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
                invite.headers.set(HeaderName::MaxForwards, hops);
            }
            Err(code) => {
                assert_eq!(code, StatusCode::TOO_MANY_HOPS);
                break;
            }
        }
    }
    assert_eq!(rounds, 3);
}

const NUMBER_ELSEWHERE: &str = "+49170123456";

#[tokio::test]
async fn a_trunk_that_leads_here_is_not_called() {
    let t = World::new(
        "",
        telephony([("provider", trunk(&["sip:192.0.2.1".to_owned()]))]),
    )
    .await;
    let here = t.address(Transport::Udp);
    let rows = telephony([("self", trunk(&[format!("sip:{here}")]))]);
    let rows = [(crate::world::account(), std::sync::Arc::new(rows))].into();
    t.handle.set_rows(std::sync::Arc::new(rows)).await;
    assert_eq!(t.handle.figures().await.trunks_up, 0);
    let mut t = t;
    t.dial("tel:+49891234567").await;
    loop {
        if let (_, PhoneEventKind::Ended(end)) = t.event().await {
            return assert_eq!(end.reason, PhoneReason::Unreachable);
        }
    }
}
