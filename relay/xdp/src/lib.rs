//! TURN Channels relayed in the network driver (XDP), before the kernel makes a packet of them.
//!
//! ```text
//!             ChannelBind                     ┌──────────── userspace ────────────┐
//!   client ───────────────────────────────────► core ──► Offload::install         │
//!                                             └─────────────┬─────────────────────┘
//!                                                     flows │ ▲ packets, bytes
//!   client ── ChannelData ──► interface ──► program ────────▼─┴──► interface ──► peer
//!   client ◄─ ChannelData ─── interface ◄── program ◄───────────── interface ◄── peer
//! ```
//!
//! Userspace decides: only Channels it has verified are installed, each for as long as Channel,
//! Permission and Allocation live. The program looks at what arrives, relays what belongs to an
//! installed Channel, and passes everything else to the kernel untouched: control messages,
//! fragments, options, packets that would no longer fit, unknown neighbours. So userspace stays
//! complete, and a Channel works the same with and without its flows here.
//!
//! [`asm`] writes the program's instructions; the build needs no other compiler. Nothing outlives
//! the process: links, maps and program go with its descriptors.
//!
//! What is relayed here passes by the host's firewall, its connection tracking and its packet
//! captures. Senders on this very machine whose checksums are left to a device (virtual
//! interfaces of containers) need that offload off, for a checksum that was never made can't be
//! carried over.

#![cfg_attr(
    not(all(target_os = "linux", target_endian = "little")),
    allow(dead_code, reason = "what writes the program has no kernel to run it")
)]

pub mod asm;
mod binding;
mod checksum;
mod layout;
mod program;

#[cfg(all(target_os = "linux", target_endian = "little"))]
mod interface;
#[cfg(all(target_os = "linux", target_endian = "little"))]
mod offload;
#[cfg(not(all(target_os = "linux", target_endian = "little")))]
#[path = "elsewhere.rs"]
mod offload;
#[cfg(all(target_os = "linux", target_endian = "little"))]
mod sys;
#[cfg(any(test, feature = "testbed"))]
#[cfg(all(target_os = "linux", target_endian = "little"))]
pub mod testbed;

pub use binding::{
    Binding, InstallError, Installed, Lifetimes, Mode, QuotaId, Settings, StartError, Traffic,
    Usage,
};
pub use layout::{Cause, Dscp, Quota};
pub use offload::Offload;

#[cfg(test)]
#[cfg(all(target_os = "linux", target_endian = "little"))]
mod tests;
