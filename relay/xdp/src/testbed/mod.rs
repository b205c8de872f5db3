//! What tests and measurements stand on: network namespaces, frames on the wire, and the kernel's own
//! way to run a program over frames. All of it takes root.

pub mod cost;
pub mod frame;
pub mod namespace;

pub use frame::{Frame, channel_data};
pub use namespace::{Cables, Namespace, alone, ethtool, ip, missing};
