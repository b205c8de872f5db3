//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): encoders, cameras and viewers that speak HTTP instead of calls.v1.
//!
//! ```text
//! POST  ─▶ routes: token, offer ─▶ a task with an Agent ─ hello, room.join ─▶ shard: a Session nobody attends
//! 201   ◀───────── answer ────────────────────┘    ▲
//! PATCH, DELETE ─▶ Agents, by the session's URL ───┘
//! ```
//!
//! An [`agent::Agent`] is a client of calls.v1 within this process: to the core its Session is one among others, so that roles,
//! limits, events and moderation are those of everybody. What is special about it is that no person attends it
//! ([`signaling_core::VerifiedHello::attended`]).

mod agent;
mod agents;
pub(crate) mod cors;
pub(crate) mod problem;
mod routes;
mod scene;

pub(crate) use agents::Agents;
pub(crate) use routes::{ensure_few_wrong_tokens, router, verify};
