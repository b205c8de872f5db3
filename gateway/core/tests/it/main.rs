//! Stories of the gateway's core in simulated time.

mod legs;
mod phones;
mod transactions;
mod world;
