//! Reads a PROXY protocol v2 header: what a load balancer puts before a TCP stream to tell where it really came from.
//!
//! In: the bytes so far. Out: how many more are needed, or the header's length and the addresses in it. The format is that of
//! HAProxy's `proxy-protocol.txt`, §2.2; its TLVs are skipped.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The twelve bytes every header begins with.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and protocol, and the length of the rest.
const FIXED_LEN: usize = 16;

/// The longest header accepted, in bytes: addresses and the TLVs that common balancers add fit several times over.
pub const HEADER_LEN_MAX: usize = 2048;

/// What the bytes so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// The header is incomplete; it can't be decided before this many bytes in total.
    NeedMore(usize),
    /// A whole header of `len` bytes; the stream proper starts behind it.
    Header {
        /// How long the header is, in bytes.
        len: usize,
        /// The ends of the original connection; `None` when the proxy speaks for itself (a health check) or over a Unix socket.
        ends: Option<Ends>,
    },
}

/// The two ends of the connection a proxy passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Who connected.
    pub source: SocketAddr,
    /// The address that was connected to.
    pub destination: SocketAddr,
}

/// Bytes that are no header of version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The first twelve bytes differ from [`SIGNATURE`].
    WrongSignature,
    /// The version nibble isn't 2.
    WrongVersion(u8),
    /// The command nibble is neither LOCAL (0) nor PROXY (1).
    WrongCommand(u8),
    /// The family and protocol byte names nothing that can be behind a TCP listener.
    WrongFamily(u8),
    /// The header says it is longer than [`HEADER_LEN_MAX`].
    TooLong(usize),
    /// The header is too short for the addresses of its family.
    AddressesTruncated(usize),
}

/// Parses a header at the start of `bytes`.
///
/// `bytes` may hold any number of bytes, also more than the header. Never panics.
pub fn parse(bytes: &[u8]) -> Result<Parsed, DecodeError> {
    let signature_len = bytes.len().min(SIGNATURE.len());
    if bytes[..signature_len] != SIGNATURE[..signature_len] {
        return Err(DecodeError::WrongSignature);
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_LEN>() else {
        return Ok(Parsed::NeedMore(FIXED_LEN));
    };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 0x0F, fixed[13]);
    if version != 2 {
        return Err(DecodeError::WrongVersion(version));
    }
    if command > 1 {
        return Err(DecodeError::WrongCommand(command));
    }

    let len = FIXED_LEN + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > HEADER_LEN_MAX {
        return Err(DecodeError::TooLong(len));
    }
    let Some(rest) = bytes.get(FIXED_LEN..len) else {
        return Ok(Parsed::NeedMore(len));
    };
    // LOCAL: whatever addresses follow must be ignored.
    let ends = if command == 0 {
        None
    } else {
        ends(family, rest)?
    };
    Ok(Parsed::Header { len, ends })
}

fn ends(family: u8, rest: &[u8]) -> Result<Option<Ends>, DecodeError> {
    let truncated = DecodeError::AddressesTruncated(rest.len());
    match family {
        0x00 | 0x31 => Ok(None), // Unspecified, or a Unix stream socket.
        0x11 => {
            let a = rest.first_chunk::<12>().ok_or(truncated)?;
            let ip = |at: usize| Ipv4Addr::new(a[at], a[at + 1], a[at + 2], a[at + 3]);
            let port = |at: usize| u16::from_be_bytes([a[at], a[at + 1]]);
            Ok(Some(Ends {
                source: (ip(0), port(8)).into(),
                destination: (ip(4), port(10)).into(),
            }))
        }
        0x21 => {
            let a = rest.first_chunk::<36>().ok_or(truncated)?;
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&a[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            let port = |at: usize| u16::from_be_bytes([a[at], a[at + 1]]);
            Ok(Some(Ends {
                source: (ip(0), port(32)).into(),
                destination: (ip(16), port(34)).into(),
            }))
        }
        other => Err(DecodeError::WrongFamily(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xD4, 0x31, 0x01, 0xBB];

    #[test]
    fn headers_are_read_as_the_specification_says() {
        let v4 = Ends {
            source: "192.0.2.7:54321".parse().unwrap(),
            destination: "198.51.100.1:443".parse().unwrap(),
        };
        let mut v6_bytes = [0; 36];
        v6_bytes[..2].copy_from_slice(&[0x20, 0x01]);
        v6_bytes[15] = 7;
        v6_bytes[16..18].copy_from_slice(&[0x20, 0x01]);
        v6_bytes[31] = 1;
        v6_bytes[32..].copy_from_slice(&[0xD4, 0x31, 0x01, 0xBB]);
        let v6 = Ends {
            source: "[2001::7]:54321".parse().unwrap(),
            destination: "[2001::1]:443".parse().unwrap(),
        };
        let v4_with_tlv = [&V4[..], &[0x04, 0, 1, 0]].concat();
        let too_long = [SIGNATURE as &[u8], &[0x21, 0x11, 0xFF, 0xFF]].concat();

        let rows: &[(Vec<u8>, Result<Parsed, DecodeError>)] = &[
            (vec![], Ok(Parsed::NeedMore(16))),
            (SIGNATURE.to_vec(), Ok(Parsed::NeedMore(16))),
            (b"\r\n\r\nX".to_vec(), Err(DecodeError::WrongSignature)),
            (
                header(0x21, 0x11, &V4),
                Ok(Parsed::Header {
                    len: 28,
                    ends: Some(v4),
                }),
            ),
            (
                header(0x21, 0x11, &v4_with_tlv),
                Ok(Parsed::Header {
                    len: 32,
                    ends: Some(v4),
                }),
            ),
            (
                header(0x21, 0x21, &v6_bytes),
                Ok(Parsed::Header {
                    len: 52,
                    ends: Some(v6),
                }),
            ),
            (
                header(0x21, 0x11, &V4)[..20].to_vec(),
                Ok(Parsed::NeedMore(28)),
            ),
            (
                header(0x20, 0x00, &[]),
                Ok(Parsed::Header {
                    len: 16,
                    ends: None,
                }),
            ),
            (
                header(0x20, 0x11, &V4),
                Ok(Parsed::Header {
                    len: 28,
                    ends: None,
                }),
            ),
            (
                header(0x21, 0x31, &[0; 216]),
                Ok(Parsed::Header {
                    len: 232,
                    ends: None,
                }),
            ),
            (
                header(0x21, 0x00, &[1, 2, 3]),
                Ok(Parsed::Header {
                    len: 19,
                    ends: None,
                }),
            ),
            (header(0x11, 0x11, &V4), Err(DecodeError::WrongVersion(1))),
            (header(0x22, 0x11, &V4), Err(DecodeError::WrongCommand(2))),
            (header(0x21, 0x12, &V4), Err(DecodeError::WrongFamily(0x12))), // A datagram can't be behind a TCP listener.
            (
                header(0x21, 0x11, &V4[..8]),
                Err(DecodeError::AddressesTruncated(8)),
            ),
            (
                header(0x21, 0x21, &v6_bytes[..35]),
                Err(DecodeError::AddressesTruncated(35)),
            ),
            (too_long, Err(DecodeError::TooLong(16 + 0xFFFF))),
        ];
        for (bytes, expected) in rows {
            assert_eq!(&parse(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_follows_the_header_changes_nothing() {
        let mut bytes = header(0x21, 0x11, &V4);
        let whole = parse(&bytes);
        bytes.extend(b"GET / HTTP/1.1");
        assert_eq!(parse(&bytes), whole);
    }
}
