//! signaling-core.
