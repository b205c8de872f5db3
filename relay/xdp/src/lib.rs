//! TURN Channels relayed in the network driver (XDP).

pub mod asm;
