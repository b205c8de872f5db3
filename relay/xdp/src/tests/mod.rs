//! The program in the kernel: against a reference on single frames, and on real interfaces.
//!
//! All of it takes root, for network namespaces and for BPF; without, each test says so and does
//! nothing.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths on the wire are short, and tests know theirs"
)]

mod cost;
mod reference;
mod single_frames;
mod veth;
