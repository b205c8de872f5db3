//! Session timers: a call whose other side has vanished ends by itself (RFC 4028).

use std::time::{Duration, Instant};

use gateway_sip::{DecodeError, HeaderName, Headers, Refresher, SessionExpires};

/// The least that anybody may ask for, in seconds (RFC 4028 §4).
pub const INTERVAL_MIN: u32 = 90;

/// What we ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionPolicy {
    /// Seconds between two renewals at most.
    pub interval: u32,
    /// The least we take, in seconds; not below [`INTERVAL_MIN`].
    pub min: u32,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self {
            interval: 1_800,
            min: INTERVAL_MIN,
        }
    }
}

/// Why a request's interval is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declined {
    /// 422, with this Min-SE.
    TooSmall(u32),
    /// 400.
    Malformed,
}

impl From<DecodeError> for Declined {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

impl SessionPolicy {
    fn min(&self) -> u32 {
        self.min.max(INTERVAL_MIN)
    }

    /// What a request of ours says. `min` is what a 422 asked for, if one did; `refresher` is who renews by now.
    pub(super) fn ask(&self, headers: &mut Headers, min: u32, refresher: Option<Refresher>) {
        let min = min.max(self.min());
        headers.set(
            HeaderName::SessionExpires,
            SessionExpires {
                seconds: self.interval.max(min),
                refresher,
            },
        );
        headers.set(HeaderName::MinSe, min);
    }

    /// What we answer to a request of theirs, and what holds then; `None` for a session without end.
    pub(super) fn answer(&self, headers: &Headers) -> Result<(SessionExpires, bool), Declined> {
        let knows = headers.has_token(&HeaderName::Supported, "timer");
        let min = headers
            .number(&HeaderName::MinSe)
            .unwrap_or(0)
            .max(self.min());
        let asked = match headers.single(&HeaderName::SessionExpires)? {
            Some(value) => Some(SessionExpires::parse(value)?),
            None => None,
        };
        let seconds = match asked {
            Some(asked) if asked.seconds < self.min() && knows => {
                return Err(Declined::TooSmall(self.min()));
            }
            Some(asked) => asked.seconds.clamp(min, self.interval.max(min)),
            None => self.interval.max(min),
        };
        // Whoever does not know timers can't renew; else the caller does, unless it wants us to (RFC 4028 §9).
        let refresher = match asked.and_then(|asked| asked.refresher) {
            _ if !knows => Refresher::Uas,
            Some(refresher) => refresher,
            None => Refresher::Uac,
        };
        Ok((
            SessionExpires {
                seconds,
                refresher: Some(refresher),
            },
            knows,
        ))
    }
}

/// A session that ends unless it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionTimer {
    interval: Duration,
    /// Whether we renew it.
    pub(super) ours: bool,
    renewed: Instant,
    /// A renewal failed: the next one is not before.
    not_before: Option<Instant>,
}

impl SessionTimer {
    pub(super) fn new(now: Instant, seconds: u32, ours: bool) -> Self {
        let seconds = seconds.max(INTERVAL_MIN);
        Self {
            interval: Duration::from_secs(seconds.into()),
            ours,
            renewed: now,
            not_before: None,
        }
    }

    /// From the answer to a request of ours; `None` when the other side wants no timer (RFC 4028 §7.2).
    pub(super) fn from_response(now: Instant, headers: &Headers) -> Option<Self> {
        let value = SessionExpires::parse(headers.get(&HeaderName::SessionExpires)?).ok()?;
        Some(Self::new(
            now,
            value.seconds,
            value.refresher != Some(Refresher::Uas),
        ))
    }

    /// When to renew, if that is ours: after half of the time (RFC 4028 §7.2).
    pub(super) fn renew_at(&self) -> Option<Instant> {
        let due = self.renewed + self.interval / 2;
        self.ours
            .then(|| self.not_before.map_or(due, |at| at.max(due)))
    }

    /// A renewal was refused: the next one is tried in the middle of the time that is left, and so on, but not in a hurry.
    pub(super) fn put_off(&mut self, now: Instant) {
        let left = self.ends_at().saturating_duration_since(now);
        self.not_before = Some(now + (left / 2).max(Duration::from_secs(5)));
    }

    /// When the session is given up: early enough for the BYE to come before the other side's (RFC 4028 §10).
    pub(super) fn ends_at(&self) -> Instant {
        self.renewed + self.interval - (self.interval / 3).min(Duration::from_secs(32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(asked: &str, supported: &str, min: &str) -> Result<String, Declined> {
        let mut headers = Headers::new();
        for (name, value) in [
            (HeaderName::SessionExpires, asked),
            (HeaderName::Supported, supported),
            (HeaderName::MinSe, min),
        ] {
            if !value.is_empty() {
                headers.push(name, value);
            }
        }
        SessionPolicy::default()
            .answer(&headers)
            .map(|(value, _)| value.to_string())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can't be made from a number; only differences to it are seen"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn who_renews_and_how_often() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(answer("1800", "timer", ""), ok("1800;refresher=uac"));
        assert_eq!(
            answer("1800;refresher=uas", "timer", ""),
            ok("1800;refresher=uas")
        );
        assert_eq!(
            answer("7200", "timer", ""),
            ok("1800;refresher=uac"),
            "shorter is allowed"
        );
        assert_eq!(
            answer("7200", "timer", "3600"),
            ok("3600;refresher=uac"),
            "but not below theirs"
        );
        assert_eq!(answer("", "timer", ""), ok("1800;refresher=uac"));
        assert_eq!(
            answer("", "", ""),
            ok("1800;refresher=uas"),
            "whoever knows no timers is renewed by us"
        );
        assert_eq!(
            answer("60", "", ""),
            ok("90;refresher=uas"),
            "and can't be asked for more"
        );
        assert_eq!(answer("60", "timer", ""), Err(Declined::TooSmall(90)));
        assert_eq!(answer("x", "timer", ""), Err(Declined::Malformed));
    }

    #[test]
    fn a_session_is_renewed_at_half_time_and_given_up_before_its_end() {
        let now = start();
        let seconds = Duration::from_secs;
        let ours = SessionTimer::new(now, 1_800, true);
        assert_eq!(
            (ours.renew_at(), ours.ends_at()),
            (Some(now + seconds(900)), now + seconds(1_768))
        );
        let theirs = SessionTimer::new(now, 90, false);
        assert_eq!(
            (theirs.renew_at(), theirs.ends_at()),
            (None, now + seconds(60))
        );
    }
}
