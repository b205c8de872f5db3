//! relay-stun.
