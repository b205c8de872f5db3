//! The aggregation header in front of AV1 (the AV1 RTP specification §4.4). Layers and key frames are told by the dependency
//! descriptor: see [`crate::dependency_descriptor`].

/// What the first byte of a payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AggregationHeader {
    /// The first element goes on from the packet before (Z).
    pub continues: bool,
    /// The last element goes on in the next packet (Y).
    pub continued: bool,
    /// How many elements there are, 1 to 3; `None` where each tells its length (W).
    pub elements: Option<u8>,
    /// The packet is the first of a coded video sequence: a key frame begins (N).
    pub new_sequence: bool,
}

impl AggregationHeader {
    /// Reads the first byte of `payload`; `None` where there is none.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<AggregationHeader> {
        let first = *payload.first()?;
        let elements = first >> 4 & 0x03;
        Some(AggregationHeader {
            continues: first & 0x80 != 0,
            continued: first & 0x40 != 0,
            elements: (elements != 0).then_some(elements),
            new_sequence: first & 0x08 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        let check = |first, continues, continued, elements, new_sequence| {
            let header = AggregationHeader {
                continues,
                continued,
                elements,
                new_sequence,
            };
            assert_eq!(AggregationHeader::parse(&[first, 0xff]), Some(header));
        };

        check(0x00, false, false, None, false);
        check(0x18, false, false, Some(1), true);
        check(0xb0, true, false, Some(3), false);
        check(0x60, false, true, Some(2), false);
        assert_eq!(AggregationHeader::parse(&[]), None);
    }
}
