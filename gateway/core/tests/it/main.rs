//! Stories of the gateway's core in simulated time.

mod chaos;
mod legs;
mod phones;
mod races;
mod solo;
mod transactions;
mod world;
