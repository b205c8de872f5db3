//! signaling-wire.
