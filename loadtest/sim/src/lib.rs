//! A virtual clock and a simulated network: whole systems run in one thread, as fast as the
//! processor allows, and the same way again for the same seed.
//!
//! ```text
//!   test ── send, connect, cut, crash ──▶ Network ── next_event() ──▶ Event ──▶ test
//!                                           │
//!                              Queue (by time, then by sequence)
//!                                           │
//!                                         Clock
//! ```
//!
//! The cores of this workspace take `now` as a parameter and hand back what to send, so a test
//! needs no socket: it feeds [`Event`]s to the cores and their output to the [`Network`]. Nothing
//! here reads the clock of the machine, and all chance comes from one [`Rng`].
//!
//! - [`Rng`]: a seeded generator whose numbers never change with a library's version.
//! - [`Clock`]: the time of the simulated world, as the types the cores want.
//! - [`Queue`]: what will happen, ordered by time and, at the same time, by when it was queued.
//! - [`Network`]: nodes, datagrams with loss, and in-order streams that can be cut at any moment.
//! - [`Ladder`]: who told whom what and when, printed as arrows.

mod clock;
mod ladder;
mod network;
mod queue;
mod rng;
mod stream;

pub use clock::Clock;
pub use ladder::Ladder;
pub use network::{Cut, Event, Link, Network, NodeId, StreamId};
pub use queue::Queue;
pub use rng::Rng;
