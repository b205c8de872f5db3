//! What the relay does, seen from outside: packets and time in, packets out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "a failing seed is said")]

mod allocations;
mod credentials;
mod data;
mod discovery;
mod extras;
mod mobility;
mod model;
mod model_tcp;
mod peers;
mod ports;
mod property;
mod tcp;
mod third_party;
mod usage;
mod world;
