//! Big-endian numbers that may not be there, and the low bits of wider ones.

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u24_at(bytes: &[u8], at: usize) -> Option<u32> {
    let [a, b, c] = *bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes([0, a, b, c]))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The low 8 bits.
pub(crate) fn low_u8(value: u64) -> u8 {
    let [.., low] = value.to_be_bytes();
    low
}

/// The low 16 bits.
pub(crate) fn low_u16(value: u64) -> u16 {
    let [.., a, b] = value.to_be_bytes();
    u16::from_be_bytes([a, b])
}

/// The low 24 bits, big-endian.
pub(crate) fn low_u24(value: u32) -> [u8; 3] {
    let [_, low @ ..] = value.to_be_bytes();
    low
}

/// The low 32 bits.
pub(crate) fn low_u32(value: u64) -> u32 {
    let [.., a, b, c, d] = value.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Reads hexadecimal digits; whatever is none is skipped.
    pub(crate) fn hex(digits: &str) -> Vec<u8> {
        let digits: Vec<u8> = digits
            .chars()
            .filter_map(|digit| Some(u8::try_from(digit.to_digit(16)?).unwrap()))
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    #[test]
    fn numbers_that_are_not_there_are_none() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];

        assert_eq!(u16_at(&bytes, 6), Some(0x0708));
        assert_eq!(u16_at(&bytes, 7), None);
        assert_eq!(u16_at(&bytes, usize::MAX), None);
        assert_eq!(u24_at(&bytes, 5), Some(0x06_07_08));
        assert_eq!(u24_at(&bytes, 6), None);
        assert_eq!(u32_at(&bytes, 4), Some(0x0506_0708));
        assert_eq!(u32_at(&bytes, 5), None);
        assert_eq!(u64_at(&bytes, 0), Some(0x0102_0304_0506_0708));
        assert_eq!(u64_at(&bytes, 1), None);
    }

    #[test]
    fn low_bits_are_kept() {
        assert_eq!(low_u8(0x1234), 0x34);
        assert_eq!(low_u16(0x12_3456), 0x3456);
        assert_eq!(low_u24(0x1234_5678), [0x34, 0x56, 0x78]);
        assert_eq!(low_u32(0x1_0000_0002), 2);
    }
}
