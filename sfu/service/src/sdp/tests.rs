use model::media::{MediaRefusal, SdpFault};

use super::*;

const DIGEST: &str = "64:C7:3A:3C:26:50:87:BD:1A:BE:F0:71:40:28:2E:3C:E1:F7:F2:FC:C0:2D:54:C9:71:BB:D1:82:23:60:8C:16";

const VIDEO: &str = "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n";

/// The lines of a session whose sections have these names.
fn head(mids: &[&str]) -> String {
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=fingerprint:sha-256 {DIGEST}\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n",
        mids.join(" ")
    )
}

fn section(mid: &str, rest: &str) -> String {
    format!("m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:{mid}\r\na=sendonly\r\n{VIDEO}{rest}")
}

/// One section with further lines.
fn one(rest: &str) -> String {
    head(&["0"]) + &section("0", rest)
}

fn many(mids: &[&str]) -> String {
    let sections = mids.iter().map(|mid| section(mid, ""));
    head(mids) + &sections.collect::<String>()
}

fn repeated(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(|at| line(at) + "\r\n").collect()
}

fn refusal(sdp: &str) -> Option<MediaRefusal> {
    Offer::read(sdp).err()
}

/// Checks what an offer is refused for.
#[track_caller]
fn check(sdp: &str, expected: Option<SdpFault>) {
    assert_eq!(
        refusal(sdp),
        expected.map(MediaRefusal::BadSdp),
        "{}",
        &sdp[..sdp.len().min(600)]
    );
}

#[test]
fn what_is_too_large_is_refused() {
    let names: Vec<String> = (0..1000).map(|at| at.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    check(&many(&names[..SECTIONS_MAX]), None);
    let too_many = Some(MediaRefusal::TooManySections);
    assert_eq!(refusal(&many(&names)), too_many);
    // Sections that are over count, too: the answer has one for each.
    let rejected = "m=video 0 UDP/TLS/RTP/SAVPF 0\r\n".repeat(SECTIONS_MAX);
    assert_eq!(refusal(&(one("") + &rejected)), too_many);
    let long = format!("{}{}", one(""), "a=x\r\n".repeat(OFFER_LEN_MAX / 5));
    check(&long, Some(SdpFault::TooLong));
    let long = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(OFFER_LEN_MAX / 10);
    assert_eq!(refusal(&(one("") + &long)), too_many);
    check(
        &one(&format!("a={}\r\n", "x".repeat(LINE_LEN_MAX))),
        Some(SdpFault::LineTooLong),
    );

    let rids = |count| repeated(count, |at| format!("a=rid:r{at} send"));
    check(&one(&rids(3)), None);
    check(&one(&rids(4)), Some(SdpFault::TooManyEncodings));
    let ssrcs = |count| repeated(count, |at| format!("a=ssrc:{at} cname:a"));
    check(&one(&ssrcs(16)), None);
    check(&one(&ssrcs(17)), Some(SdpFault::TooManySsrcs));
    let formats: String = (0..65).map(|at| format!(" {at}")).collect();
    let media = format!("{}m=audio 9 UDP/TLS/RTP/SAVPF{formats}\r\n", head(&["0"]));
    check(&media, Some(SdpFault::TooManyFormats));
    let maps = repeated(64, |at| format!("a=rtpmap:{} x/90000", (at + 30) % 90));
    check(&one(&maps), Some(SdpFault::TooManyFormats));
}

#[test]
fn what_is_no_offer_of_ours_is_refused_by_cause() {
    let none = Some(SdpFault::NoSections);
    check("", none);
    check("v=0\r\n", none);
    check(&head(&["0"]), none);
    check(&one("")[5..], none);
    check(&"v=0\r\n".repeat(1000), none);
    let media = |line: &str| format!("{}{line}\r\na=mid:0\r\n", head(&["0"]));
    check(&media("m=text 9 RTP/AVP 98"), Some(SdpFault::Media));
    check(&media("m=audio 9 RTP/AVP 0"), Some(SdpFault::Protocol));
    check(&media("m=video"), Some(SdpFault::Unreadable));
    let unreadable = Some(SdpFault::Unreadable);
    check(&media("m=video 99999 UDP/TLS/RTP/SAVPF 96"), unreadable);
    check(&media("m=video 9 UDP/TLS/RTP/SAVPF 128"), unreadable);
    check(&media("m=video 9 UDP/TLS/RTP/SAVPF -1"), unreadable);
    check(&one("a=rtpmap:4294967296 VP8/90000\r\n"), unreadable);
    check(
        &one("a=msid:x\rm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"),
        unreadable,
    );
    check(&one("a=msid:\0\r\n"), unreadable);

    let channel = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:";
    check(&format!("{}{channel}1\r\n", head(&["1"])), None);
    let two = format!("{}{channel}1\r\n{channel}2\r\n", head(&["1", "2"]));
    check(&two, Some(SdpFault::Media));
}

#[test]
fn a_mid_is_there_once_and_fits_a_header_extension() {
    for mid in [
        "0",
        "audio_1",
        "a-b",
        "{x}",
        "1234567890123456",
        "!#$%&'*+-.^_`|~",
    ] {
        check(&many(&[mid]), None);
    }
    let bad = Some(SdpFault::Mid);
    for mid in ["", "a b", "12345678901234567", "a/b", "é", "a:b"] {
        check(&many(&[mid]), bad);
    }
    check(&one("a=mid:1\r\n"), bad);
    check(&many(&["0", "0"]), Some(SdpFault::RepeatedMid));
    check(&many(&["a-b", "a-b"]), Some(SdpFault::RepeatedMid));
    check(&many(&["a-b", "a_b", "a.b"]), None);
}

#[test]
fn all_sections_are_in_one_bundle() {
    let not_bundled = Some(SdpFault::NotBundled);
    check(&many(&["0", "1"]).replace("BUNDLE 0 1", "BUNDLE 1 0"), None);
    check(
        &many(&["0", "1"]).replace("BUNDLE 0 1", "BUNDLE 0 1 2"),
        None,
    );
    check(
        &many(&["0", "1"]).replace("BUNDLE 0 1", "BUNDLE 0"),
        not_bundled,
    );
    check(&many(&["0", "1"]).replace("BUNDLE", "LS"), not_bundled);
    let two = many(&["0", "1"]).replace("BUNDLE 0 1", "BUNDLE 0\r\na=group:BUNDLE 1");
    check(&two, not_bundled);
}

#[test]
fn what_stands_for_two_things_is_refused() {
    check(
        &one("a=rid:q send\r\na=rid:q send\r\n"),
        Some(SdpFault::Rid),
    );
    check(&one("a=rid:q;h send\r\n"), Some(SdpFault::Rid));
    check(&one("a=rid: send\r\n"), Some(SdpFault::Rid));
    check(
        &one(&format!("a=rid:{} send\r\n", "r".repeat(17))),
        Some(SdpFault::Rid),
    );
    check(&one("a=rid:q-1 recv\r\n"), None);

    let repeated = Some(SdpFault::RepeatedFormat);
    check(&one("a=rtpmap:96 VP9/90000\r\n"), repeated);
    check(
        &many(&["0"]).replace("SAVPF 96 97", "SAVPF 96 97 96"),
        repeated,
    );
    let other = section("1", "").replace("VP8", "H264");
    check(&(head(&["0", "1"]) + &section("0", "") + &other), repeated);
    check(&many(&["0", "1"]), None);
    let h264 = |mid: &str, parameters: &str| {
        let section = section(mid, &format!("a=fmtp:96 {parameters}\r\n"));
        section.replace("VP8", "H264")
    };
    let both = |one: &str, other: &str| head(&["0", "1"]) + &h264("0", one) + &h264("1", other);
    let parameters = "packetization-mode=1;profile-level-id=42e01f";
    check(
        &both(parameters, "profile-level-id=42E034; packetization-mode=1"),
        None,
    );
    check(&both(parameters, "profile-level-id=42e01f"), repeated);
    check(
        &both(parameters, "packetization-mode=1;profile-level-id=64001f"),
        repeated,
    );
    let unreadable = "packetization-mode=1;profile-level-id=42e01f0level";
    check(&both(parameters, unreadable), repeated);
    let twice = "packetization-mode=1;profile-level-id=42e01f;profile-level-id=64001f";
    check(&both(parameters, twice), repeated);
    check(
        &both(
            parameters,
            "packetization-mode = 1; profile-level-id = 42e01f",
        ),
        None,
    );
    check(
        &both("packetization-mode=0", "level-asymmetry-allowed=1"),
        None,
    );
    // What can't be read spoils nothing of what can.
    check(
        &both(parameters, &format!("level-asymmetry-allowed;{parameters}")),
        None,
    );
    check(
        &both(parameters, &format!("{parameters}; level-id=93;=;a b=1")),
        None,
    );
    let other = section("1", "").replace("apt=96", "apt=97");
    check(&(head(&["0", "1"]) + &section("0", "") + &other), repeated);

    let lies = Some(SdpFault::RepeatedSsrc);
    check(
        &one("a=ssrc-group:FID 5 6\r\na=ssrc:5 cname:a\r\na=ssrc:6 cname:a\r\n"),
        None,
    );
    check(
        &one("a=ssrc-group:FID 5 6\r\na=ssrc-group:FID 5 6\r\n"),
        None,
    );
    check(&one("a=ssrc-group:FID 5 5\r\n"), lies);
    check(
        &one("a=ssrc-group:FID 5 6\r\na=ssrc-group:FID 6 5\r\n"),
        lies,
    );
    check(
        &one("a=ssrc-group:FID 5 6\r\na=ssrc-group:FID 7 6\r\n"),
        lies,
    );
    check(
        &one("a=ssrc-group:FID x y\r\na=ssrc-group:SIM 1 2 3\r\na=ssrc:x cname:a\r\n"),
        None,
    );
    let ssrc = "a=ssrc:5 cname:a\r\n";
    let both = |rest: &str| head(&["0", "1"]) + &section("0", ssrc) + &section("1", rest);
    check(&both(ssrc), lies);
    check(&both("a=ssrc-group:FID 7 5\r\n"), lies);
    // What only receives names what its reports come from.
    check(&(both("") + ssrc).replace("sendonly", "recvonly"), None);
}

#[test]
fn a_weak_fingerprint_or_none_is_refused() {
    let weak = Some(MediaRefusal::WeakFingerprint);
    let fingerprint = format!("a=fingerprint:sha-256 {DIGEST}\r\n");
    let sdp = one("");
    assert_eq!(refusal(&sdp.replace(&fingerprint, "")), weak);
    assert_eq!(refusal(&sdp.replace("sha-256", "sha-1")), weak);
    assert_eq!(refusal(&one("a=fingerprint:sha-1 AB\r\n")), weak);
    assert_eq!(refusal(&one("a=fingerprint:md5 AB\r\n")), weak);
    // Some offer three of one certificate.
    let several = one("a=fingerprint:sha-384 AB\r\na=fingerprint:SHA-512 CD\r\n");
    assert_eq!(refusal(&several), None);
    let text = Offer::read(&several).unwrap().text(|_| false);
    assert!(!text.contains("sha-384") && !text.contains("SHA-512") && text.contains("sha-256"));
    assert_eq!(
        refusal(&several.replace(&fingerprint, "")),
        weak,
        "nobody could check it"
    );

    let forged = Some(SdpFault::Fingerprints);
    check(
        &one(&fingerprint.to_lowercase().replace("16\r\n", "17\r\n")),
        forged,
    );
    check(&one(&fingerprint.to_lowercase()), None);
    check(&sdp.replace(":8C:16", ":8C"), forged);
    check(&sdp.replace(":8C:16", ":8C:1"), forged);
    check(&sdp.replace(":8C:16", ":8C:1G"), forged);
    check(&sdp.replace(DIGEST, ""), forged);
}

#[test]
fn credentials_of_ice_are_as_long_as_they_have_to_be() {
    let bad = Some(SdpFault::Ice);
    let sdp = one("");
    check(&sdp.replace("a=ice-ufrag:abcd\r\n", ""), bad);
    check(&sdp.replace("a=ice-pwd", "a=ice-nothing"), bad);
    check(&sdp.replace("ice-ufrag:abcd", "ice-ufrag:abc"), bad);
    check(&sdp.replace("ice-ufrag:abcd", "ice-ufrag:ab cd"), bad);
    check(&one(&format!("a=ice-ufrag:{}\r\n", "u".repeat(257))), bad);
    check(&one(&format!("a=ice-pwd:{}\r\n", "u".repeat(257))), bad);
    check(&one("a=ice-pwd:short\r\n"), bad);
}

#[test]
fn a_section_that_is_over_asks_for_nothing() {
    // As Firefox and Chromium write them.
    let over = "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=inactive\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:9\r\na=sendrecv\r\n";
    let sdp = one("") + over;
    let offer = Offer::read(&sdp).unwrap();
    let over: Vec<bool> = offer
        .sections
        .iter()
        .map(|known| known.is_rejected)
        .collect();
    assert_eq!(over, [false, true, true]);
    assert!(!offer.sections[2].direction.sends);
    let text = offer.text(|_| false);
    assert!(text.contains("a=group:BUNDLE 0\r\n"), "{text}");
    assert!(text.contains("m=audio 0 UDP/TLS/RTP/SAVPF 0\r\n"), "{text}");
    // Port 0 inside of the bundle says only that there is one transport (RFC 9143 §6).
    let bundled = many(&["0", "1"]).replace("m=video 9", "m=video 0");
    let offer = Offer::read(&bundled).unwrap();
    assert!(offer.sections.iter().all(|known| !known.is_rejected));
}

#[test]
fn the_library_sees_what_it_needs_and_no_more() {
    let rest = "a=ssrc:5 cname:a\r\na=ssrc:6 cname:a\r\na=ssrc-group:FID 5 6\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
                a=rid:q send max-width=99\r\na=rid:f send\r\na=simulcast:send q;~f;zzz recv x\r\na=rtcp-fb:96 nack pli\r\n\
                a=rtpmap:98 ulpfec/90000\r\na=rtcp-fb:98 nack\r\na=extmap:4/sendonly urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
                a=extmap:5 urn:nobody:knows\r\na=extmap:x urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sctp-init:AAAA\r\na=nonsense\r\n";
    let sdp = (head(&["0"]) + &section("0", rest)).replace("SAVPF 96 97", "SAVPF 98 97 96");
    let offer = Offer::read(&sdp).unwrap();
    let read = &offer.sections[0];
    assert_eq!(read.ssrcs, [(5, Some(6))]);
    assert_eq!(read.rids, ["q", "f"]);
    assert_eq!(read.codecs, ["ulpfec/90000", "rtx/90000", "vp8/90000"]);

    let text = offer.text(|_| false);
    for gone in [
        "ssrc",
        "candidate",
        "zzz",
        "98",
        "nobody",
        "sctp-init",
        "nonsense",
        "max-width",
        "extmap:x",
    ] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    for there in [
        "m=video 9 UDP/TLS/RTP/SAVPF 97 96\r\n",
        "a=rid:q send\r\na=rid:f send\r\na=simulcast:send q;f\r\n",
        "a=sendonly\r\n",
        "a=fmtp:97 apt=96\r\n",
        "a=rtcp-fb:96 nack pli\r\n",
        "a=extmap:4/sendonly urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
    ] {
        assert!(text.contains(there), "{there} is not in {text}");
    }
    let refused = offer.text(|_| true);
    assert!(refused.contains("a=inactive\r\n") && !refused.contains("a=sendonly"));
}

#[test]
fn a_mid_that_the_library_would_change_has_another_name_there() {
    let sdp = many(&["0", "a-b"]) + "m=video 0 UDP/TLS/RTP/SAVPF 0\r\n";
    let offer = Offer::read(&sdp).unwrap();
    let alias = offer.sections[1].alias.clone();
    assert_eq!(alias.len(), 16);
    let text = offer.text(|_| false);
    assert!(
        !text.contains("a-b") && text.contains(&format!("BUNDLE 0 {alias}\r\n")),
        "{text}"
    );
    let rejected = &offer.sections[2].alias;
    let answer = format!(
        "a=group:BUNDLE 0 {alias}\r\na=mid:0\r\na=mid:{alias}\r\na=mid:{rejected}\r\na=msid:{alias}\r\n"
    );
    assert_eq!(
        offer.restore(answer),
        format!("a=group:BUNDLE 0 a-b\r\na=mid:0\r\na=mid:a-b\r\na=msid:{alias}\r\n")
    );
    let plain = many(&["0"]);
    let plain = Offer::read(&plain).unwrap();
    assert_eq!(
        plain.restore("a=mid:0\n".to_owned()),
        "a=mid:0\n",
        "left alone"
    );
}

#[test]
fn feedback_goes_without_reports_where_every_section_offers_it() {
    let answer = || "m=video 9 x\r\na=mid:0\r\na=rtcp-mux\r\n".to_owned();
    let plain = many(&["0", "1"]);
    let plain = Offer::read(&plain).unwrap();
    assert!(!plain.reduces_rtcp());
    assert_eq!(plain.restore(answer()), answer());

    let one = many(&["0"]) + "a=rtcp-rsize\r\n";
    let one = Offer::read(&one).unwrap();
    assert!(one.reduces_rtcp());
    assert_eq!(
        one.restore(answer()),
        "m=video 9 x\r\na=mid:0\r\na=rtcp-mux\r\na=rtcp-rsize\r\n"
    );

    let last_alone = many(&["0", "1"]) + "a=rtcp-rsize\r\n";
    assert!(!Offer::read(&last_alone).unwrap().reduces_rtcp());
}
