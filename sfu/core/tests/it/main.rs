//! What a Room does with media, seen from outside: packets, reports and time in, packets and reports out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod hostile;
mod joining;
mod layers;
mod property;
mod repair;
mod stage;
mod thumbnails;
mod video;
mod voices;
