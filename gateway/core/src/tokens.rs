//! What must be unguessable: tags, branches, Call-IDs.

/// Random numbers that the caller lends: a generator that nobody can foresee, in tests a seeded one.
pub trait Tokens {
    /// The next number.
    fn next(&mut self) -> u64;

    /// A word of 16 characters for a tag or a branch.
    fn word(&mut self) -> String {
        format!("{:016x}", self.next())
    }
}

impl<F: FnMut() -> u64> Tokens for F {
    fn next(&mut self) -> u64 {
        self()
    }
}
