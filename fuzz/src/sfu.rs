//! What somebody who joins a Room can say before any media flows.

use std::cell::RefCell;
use std::time::Instant;

use sfu_service::intake::{Intake, Negotiation};
use sfu_service::{OFFER_LEN_MAX, SECTIONS_MAX};

/// Between the offers of one client.
const BETWEEN: &str = "\n====\n";

/// The most offers of an input: enough for one that begins, one that changes it and one that ends it.
const OFFERS_MAX: usize = 4;

thread_local! {
    /// One for all inputs: its certificate takes longer than an offer.
    static NEGOTIATION: RefCell<Option<Negotiation>> = const { RefCell::new(None) };
}

/// The offers of a client, one after the other. Each is refused or answered in its own shape: as many sections, with the same names, and
/// nothing in the answer that only the other side could know.
pub(crate) fn sdp_offer(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    NEGOTIATION.with_borrow_mut(|kept| {
        let negotiation =
            kept.get_or_insert_with(|| Negotiation::new().expect("a certificate can be made"));
        negotiation.begin_anew();
        let now = Instant::now();
        for offer in text.split(BETWEEN).take(OFFERS_MAX) {
            match negotiation.offer(now, offer) {
                Intake::Answered(answer) => {
                    answers(offer, &answer);
                    // Nothing changes by what was said already.
                    let again = negotiation.offer(now, offer);
                    assert!(matches!(again, Intake::Answered(_)), "{again:?}");
                }
                Intake::Refused(refusal) => assert!(!refusal.to_string().is_empty()),
                Intake::Panicked => panic!("the library has panicked"),
            }
        }
    });
}

fn answers(offer: &str, answer: &str) {
    assert!(offer.len() <= OFFER_LEN_MAX);
    let (asked, answered) = (sections(offer), sections(answer));
    assert!(asked.len() <= SECTIONS_MAX);
    assert_eq!(asked.len(), answered.len(), "{answer}");
    for (asked, answered) in asked.iter().zip(&answered) {
        let kind = |section: &[&str]| section[0].split(' ').next().map(str::to_owned);
        assert_eq!(kind(asked), kind(answered), "{answer}");
        if let Some(mid) = mid(answered) {
            assert_eq!(self::mid(asked), Some(mid), "{answer}");
        }
    }
    assert!(answer.contains("a=ice-lite\r\n"));
    assert!(!answer.contains("a=setup:actpass"), "{answer}");
    let candidates = answer
        .lines()
        .filter(|line| line.starts_with("a=candidate:"));
    assert!(candidates.clone().count() <= 1);
    assert!(
        candidates
            .clone()
            .all(|line| line.contains("127.0.0.1 10000 typ host"))
    );
    assert!(
        !answer
            .bytes()
            .any(|byte| byte.is_ascii_control() && byte != b'\r' && byte != b'\n')
    );
}

/// The lines of each section.
fn sections(sdp: &str) -> Vec<Vec<&str>> {
    let mut sections: Vec<Vec<&str>> = Vec::new();
    for line in sdp.lines() {
        if line.starts_with("m=") {
            sections.push(Vec::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections
}

fn mid<'s>(section: &[&'s str]) -> Option<&'s str> {
    section.iter().find_map(|line| line.strip_prefix("a=mid:"))
}
