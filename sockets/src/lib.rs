//! What the threads of a media path are made of, for the relay and the SFU alike: datagrams that cross into the kernel in bursts
//! ([`burst`]), naps that gather them ([`pace`]), and a core for each thread ([`thread`]).

pub mod burst;
pub mod pace;
pub mod thread;
