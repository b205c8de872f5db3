use super::*;

const OFFER: &str = include_str!("../../tests/chromium.sdp");

fn peer(now: Instant, offer: &Offer<'_>) -> Peer {
    peer_of(now, offer, false)
}

fn peer_of(now: Instant, offer: &Offer<'_>, encrypted: bool) -> Peer {
    let address = "192.0.2.1:10000".parse().unwrap();
    Peer::new(
        now,
        &Identity::new().unwrap(),
        &[(Protocol::Udp, address)],
        offer,
        encrypted,
    )
    .unwrap()
}

#[test]
fn a_panic_of_the_library_breaks_one_peer() {
    let now = Instant::now();
    let offer = Offer::read(OFFER).unwrap();
    let mut broken = peer(now, &offer);
    let mut other = peer(now, &offer);
    let panicked = broken.call(|_| -> () { panic!("on purpose") });
    assert_eq!(panicked, Err(Broken::Panicked));
    assert_eq!(
        broken.handle_timeout(now),
        Err(Broken::Panicked),
        "never used again"
    );
    assert_eq!(other.handle_timeout(now), Ok(()));
}

#[test]
fn a_browser_is_answered_with_all_it_needs() {
    let offer = Offer::read(OFFER).unwrap();
    let agreed = peer(Instant::now(), &offer)
        .accept(&offer, |_| false)
        .unwrap();
    let sections: Vec<&str> = agreed.answer.split("\r\nm=").collect();
    assert!(sections[0].contains("a=ice-lite"), "{}", sections[0]);
    assert!(agreed.answer.contains("192.0.2.1 10000 typ host"));
    let camera = sections
        .iter()
        .find(|section| section.contains("a=mid:1\r\n"))
        .unwrap();
    for line in [
        "a=recvonly",
        "a=simulcast:recv q;h;f",
        "a=rid:q recv",
        "a=rid:f recv",
        "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
        "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
        "transport-wide-cc-extensions-01",
        "dependency-descriptor",
        "nack pli",
    ] {
        assert!(camera.contains(line), "{line} is missing in {camera}");
    }
    assert_eq!(
        (agreed.up, agreed.down),
        (Feedback::Transport, Feedback::Transport)
    );
    let camera = &agreed.sections[1];
    assert!(camera.sends && camera.ssrc.is_none() && camera.nack);
    let rids: Vec<Option<&str>> = camera
        .encodings
        .iter()
        .map(|encoding| encoding.rid.as_deref())
        .collect();
    assert_eq!(rids, [Some("q"), Some("h"), Some("f")]);
    let codecs: Vec<Codec> = camera.formats.iter().map(|format| format.codec).collect();
    assert_eq!(codecs[0], Codec::Vp8, "in the order of the offer");
    assert!(camera.formats.iter().all(|format| format.rtx.is_some()));
    let slots: Vec<&AgreedSection> = agreed
        .sections
        .iter()
        .filter(|section| section.ssrc.is_some())
        .collect();
    assert_eq!(slots.len(), 2);
    assert!(slots.iter().all(|slot| !slot.sends));
}

#[test]
fn who_came_with_sound_or_pictures_alone_may_add_the_other() {
    let parts: Vec<&str> = OFFER.split("m=").collect();
    let (session, sections) = parts.split_first().unwrap();
    let of = |kind: &str| {
        let chosen = sections.iter().filter(|section| section.starts_with(kind));
        chosen.copied().collect::<Vec<_>>()
    };
    let text = |sections: &[&str]| {
        let mids: Vec<&str> = sections
            .iter()
            .filter_map(|section| section.split("a=mid:").nth(1)?.lines().next())
            .collect();
        let session = session.replace("BUNDLE 0 1 2 3", &format!("BUNDLE {}", mids.join(" ")));
        format!("{session}m={}", sections.join("m="))
    };
    let (sound, pictures) = (of("audio"), of("video"));
    for (first, later) in [(&sound, &pictures), (&pictures, &sound)] {
        let whole = [first.as_slice(), later].concat();
        let (first, whole) = (text(first), text(&whole));
        let first = Offer::read(&first).unwrap();
        let mut peer = peer(Instant::now(), &first);
        peer.accept(&first, |_| false).unwrap();
        let agreed = peer
            .accept(&Offer::read(&whole).unwrap(), |_| false)
            .unwrap();
        assert_eq!(agreed.sections.len(), 4);
        for section in &agreed.sections {
            let payload_types = section.formats.iter().map(|format| format.payload_type);
            let offered: &[u8] = match section.is_audio {
                true => &[111],
                false => &[96, 98, 102, 108, 116, 41, 45],
            };
            assert!(
                payload_types.clone().all(|one| offered.contains(&one)),
                "{:?}",
                section.formats
            );
            let red = section.formats[0].red;
            assert_eq!(red, section.is_audio.then_some(63));
        }
        let camera = agreed.sections.iter().find(|section| section.mid == "1");
        assert_eq!(camera.unwrap().formats[0].codec, Codec::Vp8);
    }
}

#[test]
fn where_media_is_encrypted_only_vp8_and_opus_are_agreed_on() {
    let offer = Offer::read(OFFER).unwrap();
    let agreed = peer_of(Instant::now(), &offer, true)
        .accept(&offer, |_| false)
        .unwrap();
    assert!(OFFER.contains("red/48000/2") && OFFER.contains("VP9/90000"));
    let name = |line: &'_ str| line.split(' ').nth(1).map(str::to_owned);
    let codecs: std::collections::BTreeSet<String> = agreed
        .answer
        .lines()
        .filter(|line| line.starts_with("a=rtpmap:"))
        .filter_map(name)
        .collect();
    assert_eq!(
        codecs.iter().map(String::as_str).collect::<Vec<_>>(),
        ["VP8/90000", "opus/48000/2", "rtx/90000"]
    );
    let formats = agreed.sections.iter().flat_map(|section| &section.formats);
    for format in formats {
        assert!(format.red.is_none(), "{format:?}");
        assert!(
            matches!(format.codec, Codec::Opus | Codec::Vp8),
            "{format:?}"
        );
    }

    // Nothing else is taken, not even where it comes alone.
    let vp9 = OFFER.replace("VP8/90000", "VP7/90000");
    let offer = Offer::read(&vp9).unwrap();
    let refused = peer_of(Instant::now(), &offer, true).accept(&offer, |_| false);
    assert_eq!(refused.err(), Some(Ok(MediaRefusal::NoCodec)));
}
