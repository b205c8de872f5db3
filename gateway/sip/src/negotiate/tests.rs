use super::*;

fn capabilities(codecs: &[Codec], security: Security) -> Capabilities {
    Capabilities {
        codecs: codecs.to_vec(),
        dtmf: true,
        comfort_noise: true,
        security,
    }
}

fn local(last: u8, fingerprint: bool) -> Local {
    let fingerprint =
        fingerprint.then(|| format!("sha-256 {}", vec![format!("{last:02X}"); 32].join(":")));
    Local {
        address: IpAddr::from([192, 0, 2, last]),
        port: 4_000 + u16::from(last),
        session: 7,
        version: 1,
        key_bytes: MasterKeyBytes(zeroize::Zeroizing::new([last; KEY_BYTES_LEN])),
        fingerprint,
        active: None,
    }
}

/// Offers as the first to answer as the second, over text, and says what each of them takes from it.
fn agree(a: &Capabilities, b: &Capabilities, dtls: bool) -> Result<(Agreed, Agreed), Disagreement> {
    let (here, there) = (local(1, dtls), local(2, dtls));
    let offered = offer(a, &here, Direction::SendRecv);
    let read = Session::parse(offered.to_string().as_bytes()).expect("what we write, we read");
    let (answered, theirs) = answer(&read, b, &there, Direction::SendRecv)?;
    let answered = Session::parse(answered.to_string().as_bytes()).expect("what we write, we read");
    Ok((accept(&offered, &answered, a)?, theirs))
}

fn described(lines: &str) -> Session {
    let text = format!("v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\n{lines}\n");
    Session::parse(text.as_bytes()).expect("the test has a description")
}

const NARROW: [Codec; 2] = [Codec::Pcmu, Codec::Pcma];
const WIDE: [Codec; 4] = [Codec::Opus, Codec::G722, Codec::Pcma, Codec::Pcmu];

#[test]
fn both_sides_take_the_same_from_an_exchange() {
    for (a, b, codec) in [
        (&NARROW[..], &WIDE[..], Codec::Pcma),
        (&WIDE, &NARROW, Codec::Pcmu),
        (&WIDE, &WIDE, Codec::Opus),
        (&WIDE, &[Codec::G722], Codec::G722),
    ] {
        let plain = Security::Accept;
        let (here, there) =
            agree(&capabilities(a, plain), &capabilities(b, plain), false).expect("they agree");
        assert_eq!((here.codec, there.codec), (codec, codec));
        assert_eq!(here.payload_type, there.payload_type);
        assert_eq!(here.remote, "192.0.2.2:4002".parse().expect("an address"));
        assert_eq!(
            there.remote_rtcp,
            "192.0.2.1:4001".parse().expect("an address")
        );
        let event = if codec == Codec::Opus { 110 } else { 101 };
        assert_eq!(
            (here.dtmf, there.dtmf),
            (Some((event, event)), Some((event, event)))
        );
        assert_eq!(here.comfort_noise, codec != Codec::Opus);
        assert_eq!((here.direction, here.packet_ms), (Direction::SendRecv, 20));
    }
}

#[test]
fn keys_are_exchanged_by_sdes_and_by_dtls() {
    let secure = capabilities(&NARROW, Security::Require);
    let (here, there) = agree(&secure, &secure, false).expect("they agree");
    let (
        Keys::Sdes {
            suite,
            local,
            remote,
        },
        Keys::Sdes {
            local: theirs,
            remote: ours,
            ..
        },
    ) = (here.keys, there.keys)
    else {
        panic!("no SDES keys");
    };
    assert_eq!(suite, Suite::Aes128CmSha1_80);
    assert_eq!((&local, &remote), (&ours, &theirs));
    assert_ne!(local, remote);

    let dtls = capabilities(&NARROW, Security::Dtls);
    let (here, there) = agree(&dtls, &secure, true).expect("they agree");
    assert!(
        matches!(here.keys, Keys::Dtls { active: false, fingerprint } if fingerprint.contains("02:02"))
    );
    assert!(
        matches!(there.keys, Keys::Dtls { active: true, fingerprint } if fingerprint.contains("01:01"))
    );
}

#[test]
fn a_session_of_dtls_keeps_its_roles() {
    let dtls = capabilities(&NARROW, Security::Dtls);
    for active in [true, false] {
        let here = Local {
            active: Some(active),
            ..local(1, true)
        };
        let offered = offer(&dtls, &local(2, true), Direction::SendOnly);
        let (_, agreed) = answer(&offered, &dtls, &here, Direction::SendRecv).expect("they agree");
        assert!(matches!(agreed.keys, Keys::Dtls { active: is, .. } if is == active));
    }
}

#[test]
fn protection_is_never_lost_on_the_way() {
    let [off, accept, require, dtls] = [
        Security::Off,
        Security::Accept,
        Security::Require,
        Security::Dtls,
    ]
    .map(|security| capabilities(&NARROW, security));
    for (a, b, agrees) in [
        (&off, &off, true),
        (&off, &accept, true),
        (&accept, &require, false),
        (&off, &require, false),
        (&require, &off, false),
        (&require, &accept, true),
        (&require, &dtls, false),
        (&accept, &dtls, false),
        (&off, &dtls, false),
        // Without a certificate there is no fingerprint to give.
        (&dtls, &accept, false),
        (&dtls, &off, false),
    ] {
        let result = agree(a, b, false).map(drop);
        assert_eq!(
            result,
            if agrees {
                Ok(())
            } else {
                Err(Disagreement::Security)
            },
            "{a:?} {b:?}"
        );
    }
    // An answer that turns SRTP into RTP is none.
    let here = local(1, false);
    let offered = offer(&require, &here, Direction::SendRecv);
    let downgraded = described("m=audio 5000 RTP/AVP 0");
    assert_eq!(
        super::accept(&offered, &downgraded, &require),
        Err(Disagreement::Security)
    );
}

#[test]
fn other_sections_are_refused_in_their_places() {
    let offer = described(
        "m=video 3000 RTP/AVP 31\nm=audio 0 RTP/AVP 0\nm=audio 5000 RTP/AVP 97 8\na=rtpmap:97 iLBC/8000\na=ptime:30\nm=image 1 udptl t38",
    );
    let (answer, agreed) = answer(
        &offer,
        &capabilities(&NARROW, Security::Off),
        &local(1, false),
        Direction::SendRecv,
    )
    .expect("they agree");
    let lines: Vec<_> = answer
        .media
        .iter()
        .map(|media| format!("{} {}", media.kind, media.port))
        .collect();
    assert_eq!(lines, ["video 0", "audio 0", "audio 4001", "image 0"]);
    assert_eq!(
        (
            agreed.codec,
            agreed.payload_type,
            agreed.packet_ms,
            agreed.dtmf
        ),
        (Codec::Pcma, 8, 30, None)
    );
    assert_eq!(agreed.remote_rtcp.port(), 5001);
}

#[test]
fn payload_types_are_those_of_the_offer() {
    let offer = described(
        "m=audio 5000 RTP/AVP 99 96 8\na=rtpmap:99 opus/48000/2\na=rtpmap:96 telephone-event/8000\na=rtpmap:8 PCMA/8000/1\na=rtcp:5009",
    );
    let (answer, agreed) = answer(
        &offer,
        &capabilities(&[Codec::Pcma, Codec::Opus], Security::Off),
        &local(1, false),
        Direction::SendRecv,
    )
    .expect("they agree");
    assert_eq!(answer.media[0].formats, ["8", "96"]);
    assert_eq!(
        (agreed.payload_type, agreed.dtmf, agreed.remote_rtcp.port()),
        (8, Some((96, 96)), 5009)
    );
    let (answer, agreed) = super::answer(
        &offer,
        &capabilities(&WIDE, Security::Off),
        &local(1, false),
        Direction::SendRecv,
    )
    .expect("they agree");
    assert_eq!(answer.media[0].formats, ["99"]);
    assert_eq!(
        (agreed.codec, agreed.payload_type, agreed.dtmf),
        (Codec::Opus, 99, None)
    );
}

#[test]
fn hold_goes_both_ways() {
    let check = |offered: &str, wanted: Direction, expected: Direction| {
        let offer = described(&format!("m=audio 5000 RTP/AVP 0\n{offered}"));
        let (answer, agreed) = answer(
            &offer,
            &capabilities(&NARROW, Security::Off),
            &local(1, false),
            wanted,
        )
        .expect("they agree");
        assert_eq!(agreed.direction, expected);
        assert_eq!(answer.direction_of(&answer.media[0]), expected);
    };
    check("a=sendrecv", Direction::SendRecv, Direction::SendRecv);
    check("a=sendonly", Direction::SendRecv, Direction::RecvOnly);
    check("a=inactive", Direction::SendRecv, Direction::Inactive);
    check("a=sendrecv", Direction::SendOnly, Direction::SendOnly);
    check("c=IN IP4 0.0.0.0", Direction::SendRecv, Direction::RecvOnly);
}

#[test]
fn what_can_t_be_agreed_says_why() {
    let check = |lines: &str, expected: Disagreement| {
        let result = answer(
            &described(lines),
            &capabilities(&NARROW, Security::Accept),
            &local(1, false),
            Direction::SendRecv,
        );
        assert_eq!(result.map(drop), Err(expected), "{lines}");
    };
    check("", Disagreement::NoAudio);
    check("m=video 5000 RTP/AVP 31", Disagreement::NoAudio);
    check("m=audio 5000 TCP/MRCPv2 1", Disagreement::NoCodec);
    check("m=audio 5000 TCP/MRCPv2 0", Disagreement::NoAudio);
    check("m=audio 5000 RTP/AVP 18 9 128 x", Disagreement::NoCodec);
    check(
        "m=audio 5000 RTP/AVP 0\nc=IN IP4 phone.example.com",
        Disagreement::Address,
    );
    check(
        "m=audio 5000 RTP/AVP 0\nc=IN IP4 224.2.1.1",
        Disagreement::Address,
    );
    check("m=audio 5000 RTP/SAVP 0", Disagreement::Security);
    check(
        "m=audio 5000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:WVNf",
        Disagreement::Security,
    );
    check(
        "m=audio 5000 UDP/TLS/RTP/SAVP 0\na=setup:actpass\na=fingerprint:sha-1 AB",
        Disagreement::Security,
    );
}
