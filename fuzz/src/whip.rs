//! What encoders and viewers say over HTTP.

use signaling_wire::whip::{
    Fragment, OFFER_LEN_MAX, Offer, Precondition, Purpose, answer_with_exclusive_mux, bearer,
    restart_fragment,
};

/// The body of a POST or a PATCH, or a header. What is taken is taken again, and an ICE restart changes the credentials alone.
pub(crate) fn whip_bodies(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };

    if let Some(token) = bearer(text) {
        assert!(text.contains(token) && !token.is_empty());
    }
    if let Ok(condition @ Precondition::Tags(_)) = Precondition::read(text) {
        let tag = text.trim();
        assert!(tag.contains(',') || tag.starts_with('W') || condition.holds_for(tag));
    }
    let fragment = Fragment::read(text);
    for purpose in [Purpose::Publish, Purpose::View] {
        if let Ok(offer) = Offer::read(text, purpose) {
            check_offer(&offer, purpose);
            if let Ok(Fragment {
                credentials: Some(credentials),
                ..
            }) = &fragment
            {
                let restarted = offer.restarted(credentials.clone());
                assert_eq!(restarted.sections(), offer.sections());
                check_offer(&restarted, purpose);
            }
        }
    }
    if let Some(restarted) = restart_fragment(text) {
        // Its credentials are ours where the answer is.
        drop(Fragment::read(&restarted));
    }
    let marked = answer_with_exclusive_mux(text, "a=rtcp-mux-only");
    assert_eq!(
        answer_with_exclusive_mux(&marked, "a=rtcp-mux-only"),
        marked
    );
}

fn check_offer(offer: &Offer, purpose: Purpose) {
    assert!((1..=2).contains(&offer.sections().len()));
    // Line ends may have become longer.
    if offer.text().len() <= OFFER_LEN_MAX {
        assert_eq!(Offer::read(offer.text(), purpose).as_ref(), Ok(offer));
    }
}
