//! Key frames of one encoding: who needs one is merged, and the publisher is asked rarely (RFC 4585 §6.3.1).

use std::time::{Duration, Instant};

/// The shortest time between two requests for a key frame of one encoding; encoders obey no quicker.
pub const KEY_FRAME_SPACING: Duration = Duration::from_millis(300);

/// The longest time between two requests: while none comes, and while one decoder after the other has lost its picture. Each key frame
/// makes the picture of everybody coarser for a while.
const SPACING_MAX: Duration = Duration::from_secs(2);

/// From so many key frames for the sake of decoders on the longest time holds.
const REPAIRS_MAX: u32 = 3;

/// The requests for one encoding.
#[derive(Debug, Default)]
pub(crate) struct KeyFrames {
    wanted: bool,
    /// By decoders alone that have lost their picture, and by nobody who has none yet.
    is_repair: bool,
    /// Such key frames of late, one less for each [`SPACING_MAX`] without; and when the last one was asked for.
    repairs: u32,
    repaired_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// Requests since the last key frame.
    tries: u32,
}

impl KeyFrames {
    /// Somebody can't begin without a key frame.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
        self.is_repair = false;
    }

    /// Somebody's decoder has lost its picture.
    pub(crate) fn want_repair(&mut self) {
        if !self.wanted {
            self.wanted = true;
            self.is_repair = true;
        }
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

        let doublings = match self.is_repair {
            true => self.repairs(now).max(self.tries.saturating_sub(1)),
            false => self.tries.saturating_sub(1),
        };
        let spacing = KEY_FRAME_SPACING
            .saturating_mul(1 << doublings.min(8))
            .min(SPACING_MAX);
        Some(self.asked_at.map_or(now, |at| at + spacing))
    }

    /// Whether to ask now; a true answer is to be acted upon.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let is_due = self.due_at(now).is_some_and(|at| at <= now);

        if is_due && self.is_repair && self.tries == 0 {
            self.repairs = (self.repairs(now) + 1).min(REPAIRS_MAX);
            self.repaired_at = Some(now);
        }
        if is_due {
            self.asked_at = Some(now);
            self.tries += 1;
        }
        is_due
    }

    fn repairs(&self, now: Instant) -> u32 {
        let quiet = self
            .repaired_at
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let steps = quiet.as_millis() / SPACING_MAX.as_millis();

        self.repairs
            .saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX))
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

    #[test]
    fn who_loses_the_picture_again_and_again_waits_and_who_begins_does_not() {
        let mut key_frames = KeyFrames::default();
        let start = crate::test::start();
        let mut asked = Vec::new();

        // Whatever is asked for comes at once.
        for millis in (0..10_000).step_by(20) {
            key_frames.want_repair();
            if key_frames.poll(start + Duration::from_millis(millis)) {
                asked.push(millis);
                key_frames.satisfy();
            }
        }
        assert_eq!(asked, [0, 600, 1800, 3800, 5800, 7800, 9800]);

        key_frames.want_repair();
        assert!(!key_frames.poll(start + Duration::from_millis(10_200)));
        key_frames.want();
        assert!(key_frames.poll(start + Duration::from_millis(10_200)));
        key_frames.satisfy();

        // After a while without it is as at first.
        key_frames.want_repair();
        assert!(key_frames.poll(start + Duration::from_millis(20_000)));
        key_frames.satisfy();
        key_frames.want_repair();
        assert!(!key_frames.poll(start + Duration::from_millis(20_580)));
        assert!(key_frames.poll(start + Duration::from_millis(20_600)));
    }
}
