//! The server as a library, for its tests: settings, the shared TCP port, the page, and the life of the process.

pub mod addresses;
pub mod banner;
pub mod cli;
pub mod commands;
pub mod config;
pub mod doctor;
mod drain;
mod fronts;
mod gateway;
pub mod history;
pub mod http;
pub mod listener;
pub mod plan;
mod reload;
pub mod run;
pub mod sfu;
pub mod signaling;
pub mod state;
pub mod telemetry;
pub mod telephony;
pub mod tls;
pub mod usage;
pub mod web;
