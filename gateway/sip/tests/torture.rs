//! The torture messages of RFC 4475 and RFC 5118, written anew after their texts, and what becomes of each.
//!
//! The messages are the seeds of the fuzz target `sip_message`; a name is that of its section, with a suffix where we ask one
//! more thing. What only a user agent can tell (unknown methods, `Require`, media types) is a matter of `gateway-core`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gateway_sip::sanity::{Cause, Framing, Incoming, Unfit, check};
use gateway_sip::{HeaderName, Host, Via};

/// What becomes of a message.
#[derive(Debug, PartialEq)]
enum Verdict {
    Taken,
    /// Answered with this code.
    Refused(Cause, u16),
    /// Nobody hears anything.
    Dropped(Cause),
}

use Cause::{
    ContentLength, HeaderMalformed, HeaderMissing, MethodMismatch, RequestUri, Unreadable,
    UriScheme, Version,
};
use Verdict::{Dropped, Refused, Taken};

const EXPECTED: &[(&str, Verdict)] = &[
    // RFC 4475 §3.1.1: valid, and strange.
    ("rfc4475_wsinv", Taken),      // blanks and folds wherever they may be
    ("rfc4475_intmeth", Taken),    // every character each element may have
    ("rfc4475_esc01", Taken),      // escapes in URIs
    ("rfc4475_escnull", Taken),    // escaped zero bytes
    ("rfc4475_esc02", Taken),      // what looks like an escape and is none, also in the method
    ("rfc4475_lwsdisp", Taken),    // no blank between name and bracket
    ("rfc4475_longreq", Taken),    // long everything
    ("rfc4475_dblreq", Taken),     // another request behind the first in a datagram: no part of it
    ("rfc4475_semiuri", Taken),    // a semicolon in the user part
    ("rfc4475_transports", Taken), // transports nobody knows in Via
    ("rfc4475_mpart01", Taken),    // binary parts
    ("rfc4475_unreason", Taken),   // a reason beyond ASCII
    ("rfc4475_noreason", Taken),   // no reason
    // RFC 4475 §3.1.2: invalid.
    ("rfc4475_badinv01", Dropped(HeaderMalformed)), // a Via that no answer finds its way by
    ("rfc4475_badinv01_contact", Refused(HeaderMalformed, 400)), // empty parameters
    ("rfc4475_clerr", Refused(ContentLength, 400)), // Content-Length beyond the datagram
    ("rfc4475_ncl", Refused(ContentLength, 400)),   // a negative one
    ("rfc4475_scalar02", Refused(HeaderMalformed, 400)), // numbers beyond all bounds
    ("rfc4475_scalar02_expires", Refused(HeaderMalformed, 400)),
    ("rfc4475_scalarlg", Dropped(HeaderMalformed)), // the same in a response
    ("rfc4475_quotbal", Refused(HeaderMalformed, 400)), // an open quote
    ("rfc4475_ltgturi", Refused(RequestUri, 400)),  // a Request-URI in brackets
    ("rfc4475_lwsruri", Refused(RequestUri, 400)),  // a blank in the Request-URI
    ("rfc4475_lwsstart", Refused(RequestUri, 400)), // two blanks around it
    ("rfc4475_trws", Refused(Version, 400)),        // blanks at the end of the start line
    ("rfc4475_escruri", Refused(RequestUri, 400)),  // headers in the Request-URI
    ("rfc4475_baddate", Taken),                     // a Date that is not GMT: we don't ask for it
    ("rfc4475_regbadct", Refused(HeaderMalformed, 400)), // a question mark without brackets
    ("rfc4475_badaspec", Refused(HeaderMalformed, 400)), // blanks inside of the brackets
    ("rfc4475_baddn", Refused(HeaderMalformed, 400)), // a comma in a name without quotes
    ("rfc4475_badvers", Dropped(Version)), // version 7.0, in Via too: no answer finds its way by that
    ("rfc4475_badvers_via", Refused(Version, 505)),
    ("rfc4475_mismatch01", Refused(MethodMismatch, 400)), // CSeq of another method
    ("rfc4475_mismatch02", Refused(MethodMismatch, 400)), // of an unknown one
    ("rfc4475_bigcode", Dropped(Unreadable)),             // a status code that wraps to 5
    // RFC 4475 §3.2 to §3.4: valid as messages; the rest is up to the user agent.
    ("rfc4475_badbranch", Taken), // the cookie alone: matched as before RFC 3261
    ("rfc4475_insuf", Dropped(HeaderMissing)), // no From, To and Call-ID to answer with
    ("rfc4475_insuf_cseq", Dropped(HeaderMissing)),
    ("rfc4475_unkscm", Refused(UriScheme, 416)), // an unknown scheme
    ("rfc4475_novelsc", Refused(UriScheme, 416)), // a known one that is not SIP's
    ("rfc4475_unksm2", Taken),                   // unknown schemes in From, To and Contact
    ("rfc4475_bext01", Taken),                   // Require of what nobody supports
    ("rfc4475_invut", Taken),                    // an unknown type of body
    ("rfc4475_regaut01", Taken),                 // an unknown scheme of credentials
    ("rfc4475_multi01", Refused(HeaderMalformed, 400)), // headers twice that may come once
    ("rfc4475_mcl01", Refused(ContentLength, 400)), // two values of Content-Length
    ("rfc4475_bcast", Taken),                    // a response with a Via that is not ours
    ("rfc4475_zeromf", Taken),                   // Max-Forwards 0: for us it need not go further
    ("rfc4475_cparam01", Taken),
    ("rfc4475_cparam02", Taken),
    ("rfc4475_regescrt", Taken), // headers in a Contact in brackets
    ("rfc4475_sdp01", Taken),    // SDP is not acceptable to the caller
    ("rfc4475_inv2543", Taken),  // as before RFC 3261: no branch, no Max-Forwards, no tag
    // RFC 5118.
    ("rfc5118_ipv6_good", Taken),
    ("rfc5118_ipv6_bad", Refused(RequestUri, 400)), // no brackets
    ("rfc5118_port_ambiguous", Taken),              // a port inside of the brackets is none
    ("rfc5118_port_unambiguous", Taken),
    ("rfc5118_via_received_delim", Taken),
    ("rfc5118_via_received_plain", Taken),
    ("rfc5118_ipv6_sdp", Taken),
    ("rfc5118_mult_ip_header", Taken),
    ("rfc5118_mult_ip_sdp", Taken),
    ("rfc5118_ipv4_mapped", Taken),
    ("rfc5118_three_colons", Refused(RequestUri, 400)), // what the grammar of RFC 3261 allowed by mistake
];

#[test]
fn every_torture_message_gets_what_it_is_due() {
    let messages = messages();
    for (name, expected) in EXPECTED {
        let got = match check(&messages[*name], Framing::Datagram, "t") {
            Ok(_) => Taken,
            Err(Unfit {
                cause,
                answer: Some(answer),
            }) => Refused(cause, answer.code.get()),
            Err(Unfit {
                cause,
                answer: None,
            }) => Dropped(cause),
        };
        assert_eq!(got, *expected, "{name}");
    }
}

#[test]
fn every_torture_message_of_the_corpus_is_expected() {
    let expected: Vec<_> = EXPECTED.iter().map(|(name, _)| *name).collect();
    for name in messages().keys().filter(|name| name.starts_with("rfc")) {
        assert!(expected.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn what_is_taken_is_read_right() {
    let messages = messages();
    let request = |name: &str| match check(&messages[name], Framing::Datagram, "t") {
        Ok(Incoming::Request(request)) => request,
        other => panic!("{name}: {other:?}"),
    };

    let wsinv = request("rfc4475_wsinv");
    assert_eq!(wsinv.envelope.max_forwards, 68);
    assert_eq!(wsinv.envelope.to.tag(), Some("20938zz"));
    assert_eq!(
        wsinv.envelope.from.display.as_deref(),
        Some("C. \"Caro\\l\"")
    );
    assert_eq!(wsinv.envelope.cseq.number, 9);
    assert_eq!(
        wsinv
            .request
            .headers
            .list(&HeaderName::Via)
            .map(|vias| vias.len()),
        Ok(3)
    );
    let contact = wsinv
        .request
        .headers
        .addresses(&HeaderName::Contact)
        .expect("it was checked");
    assert_eq!(contact[0].params.get("q"), Some("0.33"));

    let intmeth = request("rfc4475_intmeth");
    assert_eq!(
        intmeth.envelope.to.display.as_deref(),
        Some("BEL:\u{7} NUL:\0 DEL:\u{7f}")
    );
    assert_eq!(
        request("rfc4475_escnull").envelope.to.uri.user().as_deref(),
        Some("null-\0-null")
    );
    assert!(request("rfc4475_dblreq").request.body.is_empty());
    assert_eq!(
        request("rfc4475_semiuri").uri.user().as_deref(),
        Some("desk;par=u@caller.test")
    );
    assert!(
        !request("rfc4475_badbranch")
            .envelope
            .via
            .has_unique_branch()
    );
    assert_eq!(request("rfc4475_inv2543").envelope.max_forwards, 70);

    let port = |name: &str| request(name).uri.sip().and_then(|uri| uri.port);
    assert_eq!(port("rfc5118_port_ambiguous"), None);
    assert_eq!(port("rfc5118_port_unambiguous"), Some(5070));
    let received = "2001:db8::9:255".parse().ok();
    assert_eq!(
        request("rfc5118_via_received_delim")
            .envelope
            .via
            .received(),
        received
    );
    assert_eq!(
        request("rfc5118_via_received_plain")
            .envelope
            .via
            .received(),
        received
    );
    let several = request("rfc5118_mult_ip_header");
    let vias = several
        .request
        .headers
        .list(&HeaderName::Via)
        .expect("it was checked");
    let hosts: Vec<_> = vias
        .iter()
        .map(|via| Via::parse(via).expect("it was checked").host)
        .collect();
    let host = |text: &str| Host::Ip(text.parse().expect("an address"));
    assert_eq!(
        hosts,
        [
            host("2001:db8::9:1"),
            host("192.0.2.1"),
            host("2001:db8::9:255")
        ]
    );
}

#[test]
fn a_stream_needs_a_content_length() {
    let bytes = &messages()["rfc4475_inv2543"];
    let unfit = check(bytes, Framing::Stream, "t").expect_err("it has none");
    assert_eq!(unfit.cause, ContentLength);
}

#[test]
fn nothing_answers_an_ack_or_a_response() {
    let messages = messages();
    let ack = String::from_utf8_lossy(&messages["rfc4475_ltgturi"]).replace("INVITE", "ACK");
    let unfit = check(ack.as_bytes(), Framing::Datagram, "t").expect_err("its Request-URI is none");
    assert_eq!(
        unfit,
        Unfit {
            cause: RequestUri,
            answer: None
        }
    );
}

fn messages() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/sip_message");
    let files = fs::read_dir(folder).expect("the corpus is committed");
    let read = |file: fs::DirEntry| {
        let name = file.file_name().into_string().expect("plain names");
        (name, fs::read(file.path()).expect("a readable file"))
    };
    files
        .map(|file| read(file.expect("a readable entry")))
        .collect()
}
