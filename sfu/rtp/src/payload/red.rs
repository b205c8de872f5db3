//! Redundant audio: older blocks in front of the newest one (RFC 2198).

use crate::DecodeError;
use crate::bytes::{low_u16, u32_at};

/// The length of the header of an older block, in bytes; the newest one's has one (RFC 2198 §3).
const HEADER_LEN: usize = 4;

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// The payload type of its content.
    pub payload_type: u8,
    /// By how much its timestamp is smaller than the packet's, 14 bits; zero for the newest.
    pub timestamp_offset: u16,
    /// Its content.
    pub payload: &'a [u8],
}

/// The blocks of a packet: the older ones in their order, then the newest.
#[derive(Debug, Clone)]
pub struct Blocks<'a> {
    headers: &'a [[u8; HEADER_LEN]],
    /// The content of the blocks that were not given yet.
    content: &'a [u8],
    newest: Option<u8>,
}

impl<'a> Blocks<'a> {
    /// Reads `payload` whole.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] where a header or the content of an older block is missing. Source: RFC 2198 §3.
    pub fn parse(payload: &'a [u8]) -> Result<Blocks<'a>, DecodeError> {
        let got = payload.len();
        let truncated = |needed| DecodeError::Truncated { needed, got };
        let mut headers_end = 0;
        let mut content_len = 0;
        let newest = loop {
            let first = *payload
                .get(headers_end)
                .ok_or_else(|| truncated(headers_end + 1))?;
            if first & 0x80 == 0 {
                break first;
            }
            let header =
                u32_at(payload, headers_end).ok_or_else(|| truncated(headers_end + HEADER_LEN))?;
            content_len += usize::from(low_u16(u64::from(header & 0x3FF)));
            headers_end += HEADER_LEN;
        };

        let content = &payload[headers_end + 1..];
        if content.len() < content_len {
            return Err(truncated(headers_end + 1 + content_len));
        }
        let (headers, _) = payload[..headers_end].as_chunks();
        Ok(Blocks {
            headers,
            content,
            newest: Some(newest),
        })
    }

    /// The newest block, which is what the packet would be without redundancy.
    #[must_use]
    pub fn newest(self) -> Option<Block<'a>> {
        self.last()
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        let Some(header) = self.headers.split_off_first() else {
            return self.newest.take().map(|payload_type| Block {
                payload_type,
                timestamp_offset: 0,
                payload: self.content,
            });
        };
        let [first, ..] = *header;
        let bits = u64::from(u32::from_be_bytes(*header));
        let len = usize::from(low_u16(bits & 0x3FF));
        Some(Block {
            payload_type: first & 0x7F,
            timestamp_offset: low_u16(bits >> 10 & 0x3FFF),
            payload: self.content.split_off(..len)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;

    #[test]
    fn blocks_come_oldest_first() {
        let check = |payload: &str, expected: &[(u8, u16, &[u8])]| {
            let payload = hex(payload);
            let blocks = Blocks::parse(&payload).unwrap();
            let read: Vec<_> = blocks
                .clone()
                .map(|block| (block.payload_type, block.timestamp_offset, block.payload))
                .collect();
            assert_eq!(read, expected);
            let newest = blocks
                .newest()
                .map(|block| (block.payload_type, 0, block.payload));
            assert_eq!(newest.as_ref(), expected.last());
        };

        check("6f aabb", &[(111, 0, &[0xaa, 0xbb])]);
        check("6f", &[(111, 0, &[])]);
        // 960 samples ago, two bytes; then three of the newest.
        check(
            "ef0f0002 6f 0102 030405",
            &[(111, 960, &[1, 2]), (111, 0, &[3, 4, 5])],
        );
        check(
            "ef1e0001 ef0f0000 6f 01 02",
            &[(111, 1920, &[1]), (111, 960, &[]), (111, 0, &[2])],
        );
    }

    #[test]
    fn what_is_announced_must_be_there() {
        let check = |payload: &str, needed, got| {
            let payload = hex(payload);
            assert_eq!(
                Blocks::parse(&payload).err(),
                Some(DecodeError::Truncated { needed, got })
            );
        };

        check("", 1, 0);
        check("ef", 4, 1);
        check("ef0f0002", 5, 4);
        check("ef0f0002 6f 01", 7, 6);
        check("ef0fffff 6f", 5 + 1023, 5);
    }
}
