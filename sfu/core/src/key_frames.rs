//! Key frames of one encoding: who needs one is merged, and the publisher is asked rarely (RFC 4585 §6.3.1).

use std::time::{Duration, Instant};

/// The shortest time between two requests for a key frame of one encoding; encoders obey no quicker.
pub const KEY_FRAME_SPACING: Duration = Duration::from_millis(300);

/// The longest time between two requests while none comes.
const SPACING_MAX: Duration = Duration::from_secs(2);

/// The requests for one encoding.
#[derive(Debug, Default)]
pub(crate) struct KeyFrames {
    wanted: bool,
    asked_at: Option<Instant>,
    /// Requests since the last key frame.
    tries: u32,
}

impl KeyFrames {
    /// Somebody can't go on without a key frame.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// A key frame begins, or nobody needs one any more.
    pub(crate) fn satisfy(&mut self) {
        self.wanted = false;
        self.tries = 0;
    }

    /// When the publisher is to be asked.
    pub(crate) fn due_at(&self, now: Instant) -> Option<Instant> {
        if !self.wanted {
            return None;
        }

        let spacing = KEY_FRAME_SPACING
            .saturating_mul(1 << self.tries.saturating_sub(1).min(8))
            .min(SPACING_MAX);
        Some(self.asked_at.map_or(now, |at| at + spacing))
    }

    /// Whether to ask now; a true answer is to be acted upon.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let is_due = self.due_at(now).is_some_and(|at| at <= now);

        if is_due {
            self.asked_at = Some(now);
            self.tries += 1;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_merged_and_get_rarer_until_a_key_frame_comes() {
        let mut key_frames = KeyFrames::default();
        let start = crate::test::start();
        let mut asked = Vec::new();

        for millis in (0..6000).step_by(20) {
            key_frames.want();
            if key_frames.poll(start + Duration::from_millis(millis)) {
                asked.push(millis);
            }
        }
        assert_eq!(asked, [0, 300, 900, 2100, 4100]);

        key_frames.satisfy();
        assert!(!key_frames.poll(start + Duration::from_millis(6000)));
        key_frames.want();
        assert!(key_frames.poll(start + Duration::from_millis(6200)));
        key_frames.satisfy();
        key_frames.want();
        assert!(
            !key_frames.poll(start + Duration::from_millis(6300)),
            "one was asked for just now"
        );
        assert!(key_frames.poll(start + Duration::from_millis(6500)));
    }
}
