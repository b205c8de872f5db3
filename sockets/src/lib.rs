//! What the threads of a media path are made of, for the relay and the SFU alike: datagrams that cross into the kernel in bursts.

pub mod burst;
