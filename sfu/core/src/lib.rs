//! The SFU without sockets, tasks or clock: what of a Room's media reaches whom, and how much of it fits.
//!
//! ```text
//!  feedback ──▶ Downlink (estimate, pacer) ── estimate ──▶ layers::Budget ──▶ layers::allocate ──▶ a Layer per Track
//!  packets ───▶    │ poll_send
//!                  ▼
//!               driver
//! ```
//!
//! - [`downlink`]: the way to one subscriber: bandwidth estimation, probing, pacing.
//! - [`layers`]: which Layer of each Track is forwarded within a budget.
//! - [`feedback`]: what publishers are told of their packets' arrival.
//! - [`speakers`]: who is heard and who leads, from audio levels.
//! - [`quality`]: how well a Participant is connected.

mod bitrate;
pub mod downlink;
mod estimate;
pub mod feedback;
pub mod layers;
mod pacer;
pub mod quality;
pub mod speakers;
#[cfg(test)]
mod test;

pub use bitrate::Bitrate;
pub use estimate::{Acks, RATE_MIN, RATE_START, SILENT_RATE, UNGUIDED_RATE_MAX};
pub use pacer::{BURST, Class, QUEUE_MAX};
