//! What the estimate may be spent on: down at once, up only after it held.

use std::time::{Duration, Instant};

use crate::bitrate::Bitrate;

/// How long an estimate must hold before more is spent.
pub const HOLD_MIN: Duration = Duration::from_millis(1500);

/// How long it must hold, at most, when rises failed again and again.
pub const HOLD_MAX: Duration = Duration::from_secs(48);

/// How long it must hold before anything has ever failed: so that a picture is good soon after joining.
const HOLD_FIRST: Duration = Duration::from_millis(300);

/// An estimate that is lower than what is forwarded by this share at most, and for so long at most, changes nothing: so deep
/// goes the wave of rate control around a capacity.
const DIP: f64 = 0.88;
const DIP_TIME: Duration = Duration::from_millis(1000);

/// A fall that comes so soon after a rise shows that the rise was wrong.
const TRIAL: Duration = Duration::from_secs(8);

/// So long nothing must fail for the hold to be halved again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Whoever failed need not wait for what is so many times as much as what failed: that is another network.
const OTHER_NETWORK: f64 = 1.5;

/// An estimate that is so many times as much as the least one before begins to hold at once.
const LEAP: f64 = 1.75;

/// Of what held, so much is spent: a Layer chosen for it survives the estimate's small waves.
const SPENT: f64 = 0.92;

/// Turns a downlink's estimate into a budget that Layers may be chosen for.
///
/// While what is forwarded fits the estimate, nothing gets smaller; when it no longer does, the budget is
/// the estimate at once, or after a second where so little is missing that it may be a wave. It grows to the least estimate of the last hold, which doubles when a rise
/// fails and is halved after a quiet time: so no network makes Layers swing.
#[derive(Debug, Clone)]
pub struct Budget {
    spent: Bitrate,
    /// The least estimate since `since`.
    least: Bitrate,
    since: Option<Instant>,
    /// Since when the estimate is a little too low.
    dip_since: Option<Instant>,
    hold: Duration,
    /// When more was last spent, and what was forwarded before.
    raised: Option<(Instant, Bitrate)>,
    /// The least cost that did not fit, since the hold was last at its least.
    failed: Bitrate,
    /// When the hold last changed.
    judged_at: Option<Instant>,
}

impl Budget {
    /// A budget of nothing, which takes the first estimate as it is.
    pub fn new() -> Self {
        Self {
            spent: Bitrate::ZERO,
            least: Bitrate::MAX,
            since: None,
            dip_since: None,
            hold: HOLD_FIRST,
            raised: None,
            failed: Bitrate::MAX,
            judged_at: None,
        }
    }

    /// Takes the current `estimate` and what is forwarded now costs (`cost`, with audio); returns
    /// the budget for [`allocate`](super::allocate). To be called at least every 100 ms or so.
    pub fn update(&mut self, now: Instant, estimate: Bitrate, cost: Bitrate) -> Bitrate {
        self.since.get_or_insert(now);

        if estimate < cost {
            let dip_since = *self.dip_since.get_or_insert(now);
            let is_dip =
                estimate >= cost.scaled(DIP) && now.saturating_duration_since(dip_since) < DIP_TIME;
            if is_dip {
                self.least = self.least.min(estimate);
                return cost;
            }
            self.fall(now, estimate, cost);
            return estimate;
        }
        self.dip_since = None;
        if self.spent == Bitrate::ZERO {
            self.spent = estimate;
        }

        if self.least < Bitrate::MAX && estimate > self.least.scaled(LEAP) {
            // A probe has found another network: from now on this has to hold.
            self.least = estimate;
            self.since = Some(now);
        }
        self.least = self.least.min(estimate);
        let hold = if self.least > self.failed.scaled(OTHER_NETWORK) {
            self.hold.min(HOLD_MIN)
        } else {
            self.hold
        };
        let passed = now.saturating_duration_since(self.since.unwrap_or(now));
        if passed >= hold {
            let held = self.least.scaled(SPENT);
            if held > self.spent {
                self.raised = Some((now, cost));
            }
            self.spent = self.spent.max(held).min(self.least).max(cost);
            self.least = estimate;
            self.since = Some(now);
        }
        self.forgive(now);
        // Also where what is forwarded takes more than before, as pictures do that move more.
        self.spent.min(estimate).max(cost)
    }

    fn fall(&mut self, now: Instant, estimate: Bitrate, cost: Bitrate) {
        let failed = self.raised.is_some_and(|(raised_at, before)| {
            now.saturating_duration_since(raised_at) < TRIAL && cost > before
        });
        if failed {
            self.hold = self.hold.saturating_mul(2).clamp(HOLD_MIN, HOLD_MAX);
            self.failed = self.failed.min(cost);
        } else {
            self.hold = self.hold.max(HOLD_MIN);
        }
        self.judged_at = Some(now);
        self.dip_since = None;
        self.raised = None;
        self.spent = estimate;
        self.least = Bitrate::MAX;
        self.since = Some(now);
    }

    fn forgive(&mut self, now: Instant) {
        let quiet = |at| now.saturating_duration_since(at) >= FORGIVEN_AFTER;
        if self.hold > HOLD_MIN && self.judged_at.is_some_and(quiet) {
            self.hold = (self.hold / 2).max(HOLD_MIN);
            self.judged_at = Some(now);
            if self.hold == HOLD_MIN {
                self.failed = Bitrate::MAX;
            }
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_estimate_is_spent_and_what_no_longer_fits_falls_at_once() {
        let mut t = Story::new();
        assert_eq!(t.update(300, 0), 300);
        assert_eq!(t.update(250, 200), 250);
        assert_eq!(t.update(170, 200), 170);
    }

    #[test]
    fn a_dip_changes_nothing_unless_it_lasts() {
        let mut t = Story::new();
        t.update(1000, 0);
        for _ in 0..10 {
            assert_eq!(t.update(900, 1000), 1000);
        }
        assert_eq!(t.update(1000, 1000), 1000);
        for _ in 0..10 {
            assert_eq!(t.update(900, 1000), 1000);
        }
        assert_eq!(t.update(900, 1000), 900);
    }

    #[test]
    fn what_takes_more_than_before_and_still_fits_is_kept() {
        let mut t = Story::new();
        t.update(1000, 900);
        t.update(500, 900);
        assert_eq!(t.update(1000, 450), 500);
        assert_eq!(t.update(1000, 520), 520);
        assert_eq!(t.update(1000, 450), 500);
    }

    #[test]
    fn more_is_spent_only_after_it_held() {
        let mut t = Story::new();
        t.update(1000, 900);
        t.update(500, 900);
        for _ in 0..14 {
            assert_eq!(t.update(1000, 450), 500);
        }
        // Of what held, 92 % is spent, and one moment of less begins the wait anew.
        t.update(1000, 450);
        t.update(1000, 450);
        assert_eq!(t.update(1000, 450), 920);
    }

    #[test]
    fn a_moment_of_less_counts_for_the_whole_hold() {
        let mut t = Story::new();
        t.update(1000, 900);
        t.update(500, 900);
        t.update(1000, 450);
        t.update(600, 450);
        let mut last = 0;
        for _ in 0..15 {
            last = t.update(1000, 450);
        }
        assert_eq!(last, 552, "92 % of the least");
    }

    #[test]
    fn waves_that_what_is_forwarded_fits_into_change_nothing() {
        let mut t = Story::new();
        t.update(1000, 0);
        for wave in 0..400 {
            let estimate = if wave % 20 < 10 { 1000 } else { 850 };
            assert!(t.update(estimate, 800) >= 800);
        }
    }

    #[test]
    fn rises_that_fail_come_ever_more_seldom() {
        // The estimate says 1000 until 900 is sent, then it breaks down to 500: a liar's network.
        let mut t = Story::new();
        let mut cost = 450;
        let mut rises = Vec::new();
        for tick in 0..1800_u32 {
            let budget = t.update(if cost > 500 { 480 } else { 1000 }, cost);
            let fits = if budget >= 900 { 900 } else { 450 };
            if fits > cost {
                rises.push(tick);
            }
            cost = fits;
        }
        assert!((4..=14).contains(&rises.len()), "{rises:?}");
        let gaps: Vec<u32> = rises.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.first() < gaps.last(), "{gaps:?}");
        assert!(gaps.last() >= Some(&110), "{gaps:?}");
    }

    #[test]
    fn a_far_better_network_is_used_soon_whatever_failed_before() {
        let mut t = Story::new();
        t.update(300, 0);
        t.update(100, 250);
        for _ in 0..4 {
            while t.update(200, 50) < 150 {}
            t.update(100, 180);
        }
        let ticks = (0..).find(|_| t.update(2000, 50) > 1500).unwrap();
        assert!(ticks <= 16, "{ticks}");
    }

    struct Story {
        budget: Budget,
        now: Instant,
    }

    impl Story {
        fn new() -> Self {
            Self {
                budget: Budget::new(),
                now: crate::test::start(),
            }
        }

        /// 100 ms later; all in kbit/s.
        fn update(&mut self, estimate: u64, cost: u64) -> u64 {
            self.now += Duration::from_millis(100);
            let (estimate, cost) = (Bitrate::kbps(estimate), Bitrate::kbps(cost));
            self.budget.update(self.now, estimate, cost).as_bps() / 1000
        }
    }
}
