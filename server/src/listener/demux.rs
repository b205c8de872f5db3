//! Tells from the first bytes of a TCP stream which protocol it speaks.
//!
//! In: up to [`SNIFF_LEN`] bytes, as they arrived. Out: a [`Verdict`]. Every protocol on this port opens with at least that many
//! bytes from the client, so nothing has to be guessed from fewer; the caller sets a deadline.
//!
//! ```text
//! offset      0  1  2  3  4  5  6  7  8  9
//! TLS        16 03 vv ll ll 01                    a handshake record that holds a ClientHello (RFC 8446 §5.1)
//! HTTP/1      G  E  T sp ..                       a method and a space (RFC 9112 §3)
//! STUN       tt tt ll ll 21 12 A4 42              the cookie at offset 4: TURN over TCP (RFC 8489 §5)
//! framed     nn nn tt tt ll ll 21 12 A4 42        a 16-bit length first: ICE-TCP (RFC 4571 §2)
//! PROXY v2   0D 0A 0D 0A 00 0D 0A 51 55 49 (54 0A)
//! ```
//!
//! No two rows fit the same bytes, so their order does not matter.

/// How many bytes settle what a stream is.
pub const SNIFF_LEN: usize = 10;

/// What STUN puts where RFC 3489 had the first bytes of the transaction id (RFC 8489 §5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// The methods of HTTP/1 with the space that follows; the preface of HTTP/2 is not among them.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"PATCH ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
];

/// What a TCP stream turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Fewer than [`SNIFF_LEN`] bytes so far.
    NeedMore,
    /// A TLS ClientHello; what is inside has to be classified again.
    Tls,
    /// An HTTP/1 request.
    Http,
    /// A STUN message: TURN over TCP.
    Stun,
    /// A STUN message behind an RFC 4571 length: ICE-TCP.
    Framed,
    /// A PROXY protocol v2 header; what follows it has to be classified again.
    ProxyV2,
    /// None of these.
    Unknown,
}

/// Classifies a stream by its first bytes.
///
/// `bytes` is everything that arrived so far, of any length; only the first [`SNIFF_LEN`] are looked at. Never fails and never
/// panics: what fits no row of the table above is [`Verdict::Unknown`].
pub fn classify(bytes: &[u8]) -> Verdict {
    let Some(head) = bytes.first_chunk::<SNIFF_LEN>() else {
        return Verdict::NeedMore;
    };

    // The two most significant bits of a STUN message are zero (RFC 8489 §5).
    if head[0] < 0x40 && head[4..8] == COOKIE {
        return Verdict::Stun;
    }
    if head[2] < 0x40 && head[6..10] == COOKIE {
        return Verdict::Framed;
    }

    match head {
        [0x16, 0x03, 0x00..=0x04, _, _, 0x01, ..] => Verdict::Tls,
        _ if super::proxy_v2::SIGNATURE.starts_with(head) => Verdict::ProxyV2,
        _ if METHODS.iter().any(|method| head.starts_with(method)) => Verdict::Http,
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ten_bytes_decide() {
        let rows: &[(&[u8], Verdict)] = &[
            (b"", Verdict::NeedMore),
            (b"G", Verdict::NeedMore),
            (b"GET / HTT", Verdict::NeedMore),
            (b"GET / HTTP", Verdict::Http),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Verdict::Http),
            (b"HEAD / HTT", Verdict::Http),
            (b"POST /v1/t", Verdict::Http),
            (b"PUT / HTTP", Verdict::Http),
            (b"PATCH / HT", Verdict::Http),
            (b"DELETE / H", Verdict::Http),
            (b"OPTIONS * ", Verdict::Http),
            (b"CONNECT a:", Verdict::Http),
            (b"TRACE / HT", Verdict::Http),
            (b"get / http", Verdict::Unknown),
            (b"GETAWAY / ", Verdict::Unknown),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Verdict::Unknown),
            (b"SSH-2.0-Op", Verdict::Unknown),
            (b"\r\n\r\nGET / ", Verdict::Unknown),
            // TLS 1.2 and 1.3 hellos carry 3.1 or 3.3; 3.0 and 3.4 are let through to be refused by the handshake.
            (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3], Verdict::Tls),
            (&[0x16, 3, 3, 2, 0, 1, 0, 1, 0xFC, 3], Verdict::Tls),
            (&[0x16, 3, 0, 2, 0, 1, 0, 1, 0xFC, 3], Verdict::Tls),
            (&[0x16, 3, 9, 2, 0, 1, 0, 1, 0xFC, 3], Verdict::Unknown),
            (&[0x16, 3, 1, 2, 0, 2, 0, 1, 0xFC, 3], Verdict::Unknown), // A ServerHello.
            (&[0x17, 3, 3, 2, 0, 1, 0, 1, 0xFC, 3], Verdict::Unknown), // Application data.
            // An Allocate request, and the same behind a length.
            (&[0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42, 9, 9], Verdict::Stun),
            (
                &[0, 28, 0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42],
                Verdict::Framed,
            ),
            (
                &[0x40, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42, 9, 9],
                Verdict::Unknown,
            ), // ChannelData can't come first.
            (
                &[0, 28, 0x40, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42],
                Verdict::Unknown,
            ),
            (
                &[0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x43, 9, 9],
                Verdict::Unknown,
            ),
            // A framed message whose length looks like the head of a TLS record.
            (
                &[0x16, 3, 0, 1, 0, 1, 0x21, 0x12, 0xA4, 0x42],
                Verdict::Framed,
            ),
            (b"\r\n\r\n\0\r\nQUIT\n", Verdict::ProxyV2),
            (b"\r\n\r\n\0\r\nQUI", Verdict::ProxyV2),
            (b"\r\n\r\n\0\r\nQUX", Verdict::Unknown),
            (b"PROXY TCP4 192.0.2.1", Verdict::Unknown), // Version 1 is not spoken here.
            (&[0; 10], Verdict::Unknown),
            (&[0xFF; 10], Verdict::Unknown),
        ];
        for (bytes, expected) in rows {
            assert_eq!(classify(bytes), *expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_follows_the_tenth_byte_changes_nothing() {
        let mut bytes = b"GET / HTTP".to_vec();
        for extra in 0..=u8::MAX {
            bytes.push(extra);
            assert_eq!(classify(&bytes), Verdict::Http);
        }
    }
}
