//! What kind of trouble a seed brings, and which promises hold under it.

use std::ops::RangeInclusive;

/// The trouble of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub name: &'static str,
    /// Of 1000 frames, so many take their socket down.
    pub cut_per_mille: u64,
    /// Whether the server crashes and starts again with nothing but its secret.
    pub crashes: bool,
    /// Whether Devices are absent for minutes, say `bye` or are loaded anew.
    pub leaves: bool,
    /// Whether several Devices of one User answer at the same moment.
    pub race: bool,
    /// Whether people meet in Rooms.
    pub rooms: bool,
    /// Whether every `hello` that asks to resume must be granted.
    pub always_resumes: bool,
    /// Whether a Device must see updates in order; over a crash an adopted state may be older for a moment.
    pub ordered_updates: bool,
    /// Whether somebody may be away for longer than the server waits after a crash. Then an answered
    /// command may be undone, because nobody who knew of it was there, and only agreement is left.
    pub long_absences_over_crashes: bool,
}

const CALM: Mode = Mode {
    name: "",
    cut_per_mille: 0,
    crashes: false,
    leaves: false,
    race: false,
    rooms: false,
    always_resumes: true,
    ordered_updates: true,
    long_absences_over_crashes: false,
};

/// Sockets die at every step, and every Session is resumed in time.
pub const RECONNECT: Mode = Mode {
    name: "reconnect",
    cut_per_mille: 30,
    ..CALM
};

/// Several Devices race to accept while sockets die.
pub const RACE: Mode = Mode {
    name: "race",
    cut_per_mille: 30,
    race: true,
    ..CALM
};

/// The server crashes at any step; everybody is back within the five seconds it waits.
pub const CRASH: Mode = Mode {
    name: "crash",
    crashes: true,
    always_resumes: false,
    ordered_updates: false,
    ..CALM
};

/// Several Devices race to accept while the server crashes.
pub const RACE_CRASH: Mode = Mode {
    name: "race and crash",
    race: true,
    ..CRASH
};

/// Sessions end: absences of minutes, `bye`, pages loaded anew, sockets dying.
pub const LEAVE: Mode = Mode {
    name: "leave",
    cut_per_mille: 15,
    leaves: true,
    always_resumes: false,
    ..CALM
};

/// Everything at once.
pub const STORM: Mode = Mode {
    name: "storm",
    cut_per_mille: 20,
    crashes: true,
    leaves: true,
    always_resumes: false,
    ordered_updates: false,
    long_absences_over_crashes: true,
    ..CALM
};

/// People meet in Rooms while Sessions end and sockets die.
pub const ROOMS: Mode = Mode {
    name: "rooms",
    rooms: true,
    ..LEAVE
};

/// The same while the server crashes, too.
pub const ROOMS_CRASH: Mode = Mode {
    name: "rooms and crash",
    rooms: true,
    ..STORM
};

impl Mode {
    /// How long a person takes to decide about an incoming Call.
    pub fn decision_ms(&self) -> RangeInclusive<u64> {
        if self.race { 400..=405 } else { 100..=9_000 }
    }
}
