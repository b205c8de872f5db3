//! The gateway without sockets, tasks or clock: SIP transactions, dialogs and calls.
//!
//! ```text
//! gateway_sip::sanity ─▶ endpoint::Endpoint ─▶ transaction::Transactions ─▶ leg::Leg ─▶ call::Call
//!                                                   ▲        │               │ ▲           │
//!                                                   └────────┼── requests ───┘ └─ orders ──┘
//!                                                            └─▶ Output::Send: bytes for a Flow
//! ```
//!
//! - [`transaction`]: what is sent again and until when; duplicates end here (RFC 3261 §17, RFC 6026, RFC 3262).
//! - [`dialog`]: who the two sides are and where their requests go (RFC 3261 §12).
//! - [`endpoint`]: whose a request is, and what nobody's is answered with.
//! - [`leg`]: one side of a call, from INVITE to BYE.
//! - [`call`]: who rings, who is bridged with whom, transfers.
//! - [`routing`], [`queue`], [`menu`]: whom a call reaches, as the rows of an Account say.
//! - [`outbound`], [`limits`]: whether a call may go out, by which Trunk, and as whom.
//! - [`registrar`]: where desk phones are.
//! - [`registration`]: being registered at a provider.
//!
//! Time is a parameter everywhere, and so is chance: what must be unguessable comes from the caller's [`Tokens`].

pub mod call;
pub mod dialog;
pub mod endpoint;
pub mod leg;
pub mod limits;
pub mod menu;
pub mod outbound;
pub mod queue;
pub mod registrar;
pub mod registration;
pub mod routing;
mod tokens;
pub mod transaction;

pub use tokens::Tokens;
