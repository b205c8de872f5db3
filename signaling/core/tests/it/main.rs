//! Stories of the signaling core: inputs, time, outputs.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the tests may unwrap as the tests do"
)]

mod harness;

mod answering;
mod cluster;
mod glare;
mod ladders;
mod limits;
mod mailboxes;
mod media;
mod phones;
mod phones_handed;
mod phones_pins;
mod phones_property;
mod presence;
mod property;
mod recovery;
mod rooms;
mod rooms_moderated;
mod rooms_property;
mod sessions;
mod transfers;
mod unattended;
mod upgrade;
