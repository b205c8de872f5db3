//! What the server reads before it knows whom it talks to.

use offhook::listener::demux::{SNIFF_LEN, Verdict, classify};
use offhook::listener::proxy_v2::{HEADER_LEN_MAX, Parsed, parse};

/// The first bytes of a TCP stream: only those of [`SNIFF_LEN`] count, and fewer never decide.
pub(crate) fn demux(data: &[u8]) {
    let verdict = classify(data);
    match data.first_chunk::<SNIFF_LEN>() {
        Some(head) => {
            assert_ne!(verdict, Verdict::NeedMore);
            assert_eq!(verdict, classify(head));
        }
        None => assert_eq!(verdict, Verdict::NeedMore),
    }
}

/// A PROXY header: read as it arrives, byte by byte, it means the same as read at once.
pub(crate) fn proxy_v2(data: &[u8]) {
    let whole = parse(data);
    let mut known = 0;
    for len in 0..=data.len() {
        match parse(&data[..len]) {
            Ok(Parsed::NeedMore(needed)) => {
                assert!(needed > len, "{needed} bytes are there");
                assert!(needed >= known && needed <= HEADER_LEN_MAX);
                known = needed;
            }
            decided => {
                if let Ok(Parsed::Header { len: header, .. }) = decided {
                    assert_eq!(header, len, "decided before or after its last byte");
                }
                assert_eq!(decided, whole);
                return;
            }
        }
    }
    assert!(matches!(whole, Ok(Parsed::NeedMore(_))));
}
