//! What the tests of this crate share.

use std::time::Instant;

/// A moment to count from: only differences to it are ever seen.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can't be made from a number"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}
