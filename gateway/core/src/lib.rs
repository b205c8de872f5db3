//! The gateway without sockets, tasks or clock: SIP transactions, dialogs and calls.
//!
//! ```text
//! gateway_sip::sanity ─▶ transaction::Transactions ─▶ leg::Leg ─▶ call::Call
//!                              ▲        │               │ ▲           │
//!                              └────────┼── requests ───┘ └─ orders ──┘
//!                                       └─▶ Output::Send: bytes for a Flow
//! ```
//!
//! - [`transaction`]: what is sent again and until when; duplicates end here (RFC 3261 §17, RFC 6026, RFC 3262).
//! - [`dialog`]: who the two sides are and where their requests go (RFC 3261 §12).
//!
//! Time is a parameter everywhere, and so is chance: what must be unguessable comes from the caller's [`Tokens`].

pub mod dialog;
mod tokens;
pub mod transaction;

pub use tokens::Tokens;
