//! What the sockets themselves say and do: ICMP, and datagrams that are taken apart or not.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

mod icmp;
mod phone;
mod whole;
