//! The SFU through its sockets on loopback, with clients of their own: what people in a Room see and hear, and what a stranger can't
//! do to them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

mod client;
mod data;
mod floods;
mod hostile;
#[path = "../../src/keys.rs"]
mod keys;
mod plain;
mod relayed;
mod restart;
mod stage;
mod story;
mod tcp;
