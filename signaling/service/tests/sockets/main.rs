//! Real sockets against a real service: what clients see, and what they can't do.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

mod abuse;
mod calls;
mod frames;
mod harness;
mod hello;
mod http;
mod phones;
mod rooms;
mod telephony;
mod whip;
