//! The Internet checksum (RFC 1071), of which only sums and differences are needed here.

/// A ones' complement sum of 16-bit words, each in the machine's order: RFC 1071 §2 (B) shows that
/// the order makes no difference as long as it is one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds `bytes`, whose number is even.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(2) {
            self.0 += u64::from(u16::from_ne_bytes([pair[0], pair[1]]));
        }
    }

    /// The sum in 16 bits.
    pub(crate) fn folded(self) -> u16 {
        let mut sum = self.0;
        loop {
            match u16::try_from(sum) {
                Ok(folded) => return folded,
                Err(_) => sum = (sum & 0xffff) + (sum >> 16),
            }
        }
    }
}
