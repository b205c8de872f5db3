//! What the sockets themselves say and do: ICMP, datagrams that are taken apart or not, and ports
//! that go from thread to thread; and what the SFU is handed past them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

mod icmp;
mod memory;
mod mobility;
mod phone;
mod whole;
