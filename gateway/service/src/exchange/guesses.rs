//! How often callers of an Account may be wrong about its PINs.
//!
//! A call gives three tries, and there may be many calls: without a limit over all of them a PIN of four digits falls in minutes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::AccountId;

/// How many wrong PINs in a row an Account bears.
const WRONG_MAX: u32 = 60;

/// How long it takes until one more is borne.
const WRONG_INTERVAL: Duration = Duration::from_secs(10);

/// The wrong PINs of each Account; of those alone who had some lately.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    /// When the last of them will be forgotten.
    until: BTreeMap<AccountId, Instant>,
}

impl Guesses {
    /// A wrong PIN.
    pub(super) fn wrong(&mut self, now: Instant, account: AccountId) {
        self.until.retain(|_, until| *until > now);
        let until = self.until.entry(account).or_insert(now);
        *until = (*until + WRONG_INTERVAL).min(now + WRONG_INTERVAL * WRONG_MAX);
    }

    /// Whether a PIN is believed; where there were too many wrong ones, even a right one is not.
    pub(super) fn may_enter(&self, now: Instant, account: AccountId) -> bool {
        let until = self.until.get(&account);
        until.is_none_or(|until| *until <= now + WRONG_INTERVAL * (WRONG_MAX - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_on_and_on_gets_nowhere_and_nobody_else_suffers() {
        let (one, other) = (AccountId::from_u128(1), AccountId::from_u128(2));
        let mut now = Instant::now();
        let mut guesses = Guesses::default();
        for _ in 0..WRONG_MAX {
            assert!(guesses.may_enter(now, one));
            guesses.wrong(now, one);
        }
        assert!(!guesses.may_enter(now, one));
        assert!(guesses.may_enter(now, other));

        // Tries that go on use up what comes back.
        for _ in 0..1_000 {
            now += Duration::from_secs(1);
            guesses.wrong(now, one);
        }
        assert!(!guesses.may_enter(now, one));
        assert!(guesses.may_enter(now + 2 * WRONG_INTERVAL, one));

        guesses.wrong(now + 2 * WRONG_MAX * WRONG_INTERVAL, other);
        assert_eq!(guesses.until.len(), 1, "what is over is forgotten");
    }
}
