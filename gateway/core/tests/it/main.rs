//! Stories of the gateway's core in simulated time.

mod transactions;
mod world;
