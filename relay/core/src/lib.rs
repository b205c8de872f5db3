//! relay-core.
