//! Two Legs that do anything at any time over a network that loses, doubles and reorders: in the end both agree.

use std::time::Duration;

use gateway_core::leg::{Order, Reliable, SessionPolicy, Told, Why};
use gateway_sip::sdp::Direction;
use gateway_sip::{StatusCode, Uri};
use sim::{Link, Rng};

use crate::phones::Phones;
use crate::world::{A, B};

/// How many calls are tried; each takes about a millisecond.
const CALLS: u64 = 1_500;
const QUIET: Duration = Duration::from_secs(180);

struct Chaos {
    t: Phones,
    rng: Rng,
    seed: u64,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xca11);
        let link = Link {
            latency: Duration::from_millis(1 + rng.bits() % 80),
            jitter: Duration::from_millis(rng.bits() % 400),
            loss_per_mille: rng.bits() % 200,
        };
        let mut t = Phones::with_link(link, seed);
        t.world.doubled_per_mille = rng.bits() % 200;
        for settings in &mut t.settings {
            settings.reliable = if rng.bits().is_multiple_of(2) {
                Reliable::Accept
            } else {
                Reliable::Prefer
            };
            settings.session = SessionPolicy {
                interval: 90 + u32::try_from(rng.bits() % 300).expect("small"),
                min: 90,
            };
        }
        Self { t, rng, seed }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.rng.bits() % end
    }

    /// One thing that somebody may do. Those that end the call are rare, and come only with `may_end`.
    fn order(&mut self, may_end: bool) -> Order {
        let code = |code| StatusCode::new(code).expect("a code");
        match self.below(if may_end { 13 } else { 12 }) {
            0 | 1 => Order::Ring,
            2 | 3 => Order::Progress,
            4..=6 => Order::Answer,
            7 => Order::Hold(true),
            8 => Order::Hold(false),
            9 => Order::Refer(Uri::parse("tel:+4930123456").expect("a URI")),
            10 => Order::ReferProgress(code(
                [100, 180, 200, 486][usize::try_from(self.below(4)).expect("small")],
            )),
            11 => Order::Key('5'),
            _ => Order::End {
                code: code(486),
                cause: Some(17),
            },
        }
    }

    /// Some seconds in which anything may be done.
    fn act(&mut self, may_end: bool) {
        for _ in 0..self.below(20) {
            let end = if self.below(2) == 0 { A } else { B };
            let order = self.order(may_end);
            if self.t.has_leg(end) {
                self.t.order(end, order);
            }
            let pause = self.below(4);
            let pause = if pause == 0 { 0 } else { self.below(4_000) };
            self.t.advance(Duration::from_millis(pause));
        }
    }

    /// Both hold and resume in quick succession: what each wished last is what holds in the end.
    fn hold_and_resume(&mut self) {
        let mut held = [false, false];
        for step in 0..2 + self.below(6) {
            let end = usize::try_from(if step < 2 { step } else { self.below(2) }).expect("two");
            held[end] = self.below(2) == 0;
            self.t.order(end, Order::Hold(held[end]));
            let pause = self.below(300);
            self.t.advance(Duration::from_millis(pause));
        }
        self.t.advance(QUIET);
        let expected = match held {
            [false, false] => Direction::SendRecv,
            [true, false] => Direction::SendOnly,
            [false, true] => Direction::RecvOnly,
            [true, true] => Direction::Inactive,
        };
        let is_over = [A, B].iter().any(|end| self.t.leg(*end).is_over());
        let agreed = self.t.leg(A).agreed().map(|agreed| agreed.direction);
        if !is_over && agreed != Some(expected) {
            self.fail(&format!("{held:?} were wished, and {agreed:?} holds"));
        }
    }

    /// An INVITE of which every answer was lost is given up, and can't be taken back (RFC 3261 §9.1): the other side rings until its
    /// call has had enough of it.
    fn ring_out(&mut self) {
        let gave_up =
            |told: &Told| matches!(told, Told::Ended(ended) if ended.why == Why::Vanished);
        let lost = self.t.told[A].iter().any(gave_up) && !self.t.told[A].contains(&Told::Answered);
        if lost && self.t.has_leg(B) && !self.t.leg(B).is_over() {
            self.t.hang_up(B);
            self.t.advance(QUIET);
        }
    }

    fn fail(&self, why: &str) -> ! {
        panic!(
            "seed {}: {why}\n{:?}\n{}",
            self.seed, self.t.told, self.t.world.ladder
        );
    }

    /// What each was told ends once, and nothing follows.
    fn check_ends(&self) {
        for told in &self.t.told {
            let end = told
                .iter()
                .position(|told| matches!(told, Told::Ended(_) | Told::Redirected(_)));
            if end.is_some_and(|at| at + 1 != told.len()) {
                self.fail("something follows the end");
            }
        }
    }

    /// Both are over and nothing is kept, or both are up and mean the same media.
    fn check_agreement(&self) {
        let over = [A, B].map(|end| !self.t.has_leg(end) || self.t.leg(end).is_over());
        if over[A] != over[B] {
            self.fail("one Leg is left half open");
        }
        if over[A] {
            if self.t.world.ends.iter().any(|end| !end.is_empty()) {
                self.fail("transactions are left over");
            }
            return;
        }
        let answered = self.t.told[A].contains(&Told::Answered);
        let media = [A, B].map(|end| self.t.leg(end).agreed());
        let [Some(a), Some(b)] = media else {
            // It may still ring, with or without media.
            if answered {
                self.fail("a call without media");
            }
            return;
        };
        let mirrored = match a.direction {
            Direction::SendOnly => Direction::RecvOnly,
            Direction::RecvOnly => Direction::SendOnly,
            other => other,
        };
        if (mirrored, a.codec) != (b.direction, b.codec) {
            self.fail("they mean different media");
        }
    }
}

#[test]
fn whatever_is_done_over_whatever_network_both_legs_agree_in_the_end() {
    let mut answered = 0;
    let mut ended = 0;
    for seed in 0..CALLS {
        let mut chaos = Chaos::new(seed);
        chaos.t.call();
        chaos.act(seed % 2 == 0);
        chaos.t.advance(QUIET);
        chaos.ring_out();
        chaos.check_ends();
        chaos.check_agreement();
        answered += u64::from(chaos.t.told[A].contains(&Told::Answered));
        let is_up = chaos.t.told[A].contains(&Told::Answered) && !chaos.t.leg(A).is_over();
        if is_up {
            chaos.hold_and_resume();
            chaos.check_agreement();
        }
        // Whoever hangs up, both are over.
        let end = if chaos.below(2) == 0 { A } else { B };
        if chaos.t.has_leg(end) {
            chaos.t.hang_up(end);
        } else {
            chaos.t.hang_up(A);
        }
        chaos.t.advance(QUIET);
        chaos.ring_out();
        chaos.check_ends();
        chaos.check_agreement();
        ended += u64::from(chaos.t.leg(A).is_over());
    }
    assert_eq!(ended, CALLS, "every call ends");
    assert!(
        answered > CALLS / 3 && answered < CALLS,
        "{answered} of {CALLS} were answered: both kinds have to be tried"
    );
}

#[test]
fn a_network_that_dies_at_any_moment_leaves_nothing_behind() {
    for seed in 0..CALLS / 3 {
        let mut chaos = Chaos::new(seed ^ 0xdead);
        chaos.t.call();
        chaos.act(false);
        chaos.t.world.cut(QUIET * 100);
        // What still waits for its answer has no end of its own: ringing is the call's matter.
        for end in [A, B] {
            if chaos.t.has_leg(end) && !chaos.t.told[A].contains(&Told::Answered) {
                chaos.t.hang_up(end);
            }
        }
        chaos.t.advance(QUIET * 5);
        chaos.check_ends();
        for end in [A, B] {
            if chaos.t.has_leg(end) && !chaos.t.leg(end).is_over() {
                chaos.fail("a Leg lives on in a dead network");
            }
        }
        if chaos.t.world.ends.iter().any(|end| !end.is_empty()) {
            chaos.fail("transactions are left over");
        }
    }
}
