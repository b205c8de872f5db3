//! Retransmissions: the original's sequence number in front of its payload (RFC 4588 §4).

use crate::bytes::u16_at;

/// The length of the original sequence number, in bytes.
pub const ORIGINAL_LEN: usize = 2;

/// The sequence number and the payload of the packet that is sent again in `payload`; `None` for one that is padding only,
/// as probes are.
#[must_use]
pub fn original(payload: &[u8]) -> Option<(u16, &[u8])> {
    Some((u16_at(payload, 0)?, &payload[ORIGINAL_LEN..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_is_found() {
        assert_eq!(original(&[0x12, 0x34, 5]), Some((0x1234, &[5][..])));
        assert_eq!(original(&[0x12, 0x34]), Some((0x1234, &[][..])));
        assert_eq!(original(&[0x12]), None);
        assert_eq!(original(&[]), None);
    }
}
