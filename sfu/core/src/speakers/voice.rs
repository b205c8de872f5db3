//! One voice: its loudness above its own floor, smoothed over three windows.

use std::time::{Duration, Instant};

/// The windows' time constants in seconds: a few packets, a word, a sentence.
const WINDOWS_S: [f32; 3] = [0.06, 0.8, 6.0];

/// The lowest floor, in decibels above the smallest level, and where it begins: the hiss of a silent room (-82 dBov) is no
/// voice, even after a muted microphone.
const FLOOR_MIN_DB: f32 = 45.0;

/// How fast the floor rises below a voice, in decibels per second. Speech pauses every second or two, and its floor falls back.
const FLOOR_RISE_DB_PER_S: f32 = 3.0;

/// A packet is loud when it is so far above the floor ...
const LOUD_DB: f32 = 12.0;

/// ... or so far, when the publisher says that it is a voice ...
const LOUD_VOICE_DB: f32 = 6.0;

/// ... and no softer than -65 dBov.
const LOUDNESS_MIN_DB: f32 = 62.0;

/// What one audio packet stands for, when others before it are missing (DTX).
const PACKET_S: f32 = 0.02;

/// To lead, a challenger needs so many decibels more over the immediate and the medium window ...
const BEATS_DB: f32 = 3.0;

/// ... and over the medium one more, the longer the other has spoken: a fifth of the lead over the long window, up to this.
const BEATS_LONG_DB_MAX: f32 = 6.0;

#[derive(Debug)]
pub(super) struct Voice {
    pub(super) is_muted: bool,
    pub(super) is_speaking: bool,
    pub(super) holds_slot: bool,
    floor: f32,
    windows: [f32; 3],
    heard_at: Option<Instant>,
    loud_at: Option<Instant>,
}

impl Default for Voice {
    fn default() -> Self {
        Self {
            is_muted: false,
            is_speaking: false,
            holds_slot: false,
            floor: FLOOR_MIN_DB,
            windows: [0.0; 3],
            heard_at: None,
            loud_at: None,
        }
    }
}

impl Voice {
    /// Takes a packet's level in -dBov; returns whether it is loud.
    pub(super) fn hear(&mut self, now: Instant, level: u8, has_voice: bool) -> bool {
        let passed = self.passed(now);
        self.smooth(0.0, passed - PACKET_S);

        let loudness = 127.0 - f32::from(level.min(127));
        let risen = self.floor + FLOOR_RISE_DB_PER_S * passed.min(PACKET_S);
        self.floor = risen.min(loudness).max(FLOOR_MIN_DB);
        let excess = (loudness - self.floor).max(0.0);
        self.smooth(excess, PACKET_S);
        self.heard_at = Some(now);

        let needed = if has_voice { LOUD_VOICE_DB } else { LOUD_DB };
        let is_loud = excess >= needed && loudness >= LOUDNESS_MIN_DB;
        if is_loud {
            self.loud_at = Some(now);
        }
        is_loud
    }

    /// Lets time pass without a packet.
    pub(super) fn settle(&mut self, now: Instant) {
        let passed = self.passed(now);
        if passed > 2.0 * PACKET_S {
            self.smooth(0.0, passed);
            self.heard_at = Some(now);
        }
    }

    /// Forgets what was said.
    pub(super) fn silence(&mut self) {
        self.windows = [0.0; 3];
        self.loud_at = None;
        self.is_speaking = false;
    }

    pub(super) fn immediate(&self) -> f32 {
        self.windows[0]
    }

    pub(super) fn medium(&self) -> f32 {
        self.windows[1]
    }

    /// How long ago the last loud packet came.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        self.loud_at
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at))
    }

    /// Whether this voice leads rather than `other`.
    pub(super) fn beats(&self, other: &Self) -> bool {
        let [immediate, medium, long] =
            std::array::from_fn(|window| self.windows[window] - other.windows[window]);
        let respect = (-long / 5.0).clamp(0.0, BEATS_LONG_DB_MAX);
        immediate >= BEATS_DB && medium >= BEATS_DB + respect
    }

    fn passed(&self, now: Instant) -> f32 {
        self.heard_at.map_or(PACKET_S, |at| {
            now.saturating_duration_since(at).as_secs_f32()
        })
    }

    fn smooth(&mut self, excess: f32, seconds: f32) {
        if seconds <= 0.0 {
            return;
        }
        for (value, window) in self.windows.iter_mut().zip(WINDOWS_S) {
            *value += (excess - *value) * (1.0 - (-seconds / window).exp());
        }
    }
}
