//! The server over real sockets: one port for everything, proxies in front, hostile clients, its life and its doctor.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod acme;
mod apply;
mod authority;
mod doctor;
mod drain;
mod hostile;
mod operations;
mod port;
mod process;
mod proxies;
mod reload;
mod rooms;
mod support;
mod usage;
mod voicemail;
