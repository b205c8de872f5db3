//! The gateway on real sockets of this machine, against scripted peers that speak SIP by [`gateway_sip`] and nothing of ours besides.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod calls;
mod hostile;
mod peer;
mod phone;
mod routes;
mod safety;
mod services;
mod transfers;
mod trunks;
mod voices;
mod world;
