//! The phone gateway's sockets and tasks, in front of [`gateway_core`]: Trunks, phones, and the calls between them and Rooms.
//!
//! ```text
//! signaling ─ PhoneCommand ─▶ ┌──────────────────────────────────────────────┐ ◀─▶ UDP
//!           ◀─ PhoneEvent ─── │ control: one task                            │ ◀─▶ a task for each TCP or TLS connection
//! records ─ rows ───────────▶ │  Exchange: admission, transactions,          │ ──▶ DNS
//!                             │  Legs, calls, Trunks (no socket, no clock)   │ ──▶ Sound: RTP, Rooms
//!                             └──────────────────────────────────────────────┘
//! ```
//!
//! One task owns all that decides; what it decides about is in [`gateway_core`]. [`Gateway::start`] begins it, the [`Handle`] talks to it.

mod admission;
mod config;
mod dns;
mod doors;
mod exchange;
mod figures;
mod handle;
pub mod media;
mod resolve;
mod sound;
mod streams;
mod timers;
mod udp;

pub use admission::Silence;
pub use config::Config;
pub use exchange::{Rows, TrunkId};
pub use figures::Figures;
pub use handle::{Gateway, Handle, Start};
pub use sound::{Event, EventKind, LegId, MediaFigures, NoPort, Sound, To};
pub use streams::Tls;
