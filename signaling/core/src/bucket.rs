//! Token buckets: so many at once, so many per second in the long run.

use model::Timestamp;

/// How many addresses are told apart; more share buckets. A fixed table cannot be filled by an attacker.
const ADDRESS_BUCKETS: usize = 4_096;

/// A bucket of a rate known to its user; 16 bytes, for there is one per Session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// Thousandths of a token.
    milli: u64,
    filled_at: Timestamp,
}

impl Bucket {
    pub(crate) fn full(now: Timestamp, burst: u32) -> Self {
        Self {
            milli: u64::from(burst) * 1_000,
            filled_at: now,
        }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Timestamp, per_second: u32, burst: u32) -> bool {
        self.take_many(now, 1, per_second, burst)
    }

    /// Takes so many tokens if they are there, and none otherwise.
    pub(crate) fn take_many(
        &mut self,
        now: Timestamp,
        tokens: usize,
        per_second: u32,
        burst: u32,
    ) -> bool {
        // A token per second is a thousandth of a token per millisecond.
        let gained = (now - self.filled_at)
            .get()
            .saturating_mul(u64::from(per_second));
        self.milli = self
            .milli
            .saturating_add(gained)
            .min(u64::from(burst) * 1_000);
        self.filled_at = now;

        let wanted = (tokens as u64).saturating_mul(1_000);
        let granted = self.milli >= wanted;
        if granted {
            self.milli -= wanted;
        }
        granted
    }
}

/// Buckets by address, in a table of fixed size.
pub(crate) struct AddressBuckets(Box<[Option<Bucket>]>);

impl AddressBuckets {
    pub(crate) fn new() -> Self {
        Self(vec![None; ADDRESS_BUCKETS].into())
    }

    /// Takes a token of `address`, a hash.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        address: u64,
        per_second: u32,
        burst: u32,
    ) -> bool {
        let index = usize::try_from(address % ADDRESS_BUCKETS as u64).unwrap_or(0);
        let bucket = self.0[index].get_or_insert_with(|| Bucket::full(now, burst));

        bucket.take(now, per_second, burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_grants_its_burst_and_then_its_rate() {
        let at = Timestamp::from_millis;
        let mut bucket = Bucket::full(at(0), 3);
        let mut take = |millis: u64| bucket.take(at(millis), 2, 3);

        assert_eq!(
            [take(0), take(0), take(0), take(0)],
            [true, true, true, false]
        );
        assert_eq!([take(499), take(500), take(501)], [false, true, false]);
        assert_eq!(
            [take(60_000), take(60_000), take(60_000), take(60_000)],
            [true, true, true, false]
        );
        assert!(!take(0), "a clock that goes back grants nothing");
    }
}
