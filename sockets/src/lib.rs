//! What the threads of a media path are made of, for the relay and the SFU alike: datagrams that cross into the kernel in bursts
//! ([`burst`]) or from role to role in memory ([`handover`], by a [`ring`] for each pair of threads), how a thread is woken ([`wake`]),
//! naps that gather what comes ([`pace`]), and a core for each thread ([`thread`]).

pub mod burst;
pub mod handover;
pub mod pace;
pub mod ring;
pub mod thread;
pub mod wake;
