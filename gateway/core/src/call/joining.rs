//! Legs that come to a call from outside, and go to another: attended transfers, and INVITEs that take the place of a Leg (RFC 3891).

use gateway_sip::StatusCode;

use super::{Action, Call, LegKey, cancel, hang_up};
use crate::leg::{Ended, Order, Why};

impl Call {
    /// The Leg that waits for an answer, or is kept while its other one changes.
    #[must_use]
    pub fn holder(&self) -> LegKey {
        self.holder
    }

    /// The Leg that `leg` talks with; `None` for one that doesn't talk, or while somebody is looked for.
    #[must_use]
    pub fn partner(&self, leg: LegKey) -> Option<LegKey> {
        let talks = leg == self.holder || Some(leg) == self.peer;
        self.other(leg)
            .filter(|_| talks && !self.over && self.hunt.is_none())
    }

    /// Whether `leg` has asked for a transfer that goes on.
    #[must_use]
    pub fn has_asked(&self, leg: LegKey) -> bool {
        self.transfer.is_some_and(|transfer| transfer.by == leg)
    }

    /// Whether another Leg may take the place of `leg`, by [`Call::replace`].
    #[must_use]
    pub fn is_replaceable(&self, leg: LegKey) -> bool {
        let rings = |hunt: &super::Hunt| !self.over && hunt.ringing.contains(&leg);
        self.hunt.as_ref().is_some_and(rings) || self.partner(leg).is_some()
    }

    /// A Leg of somebody else takes the place of `old`, which is let go: one that talks, or one that rings and is answered so. The number
    /// of the new one comes back, and what is to be done once it is that Leg's; `None` when `old` does neither.
    pub fn replace(&mut self, old: LegKey) -> Option<(LegKey, Vec<Action>)> {
        let new = LegKey(self.last_leg + 1);
        if let Some(hunt) = self.hunt.as_mut().filter(|_| !self.over) {
            let at = hunt.ringing.iter().position(|leg| *leg == old)?;
            self.last_leg = new.0;
            hunt.ringing[at] = new;
            hunt.early = hunt.early.filter(|early| *early != old);
            self.order(old, cancel());
            self.on_answered(new);
        } else {
            let other = self.partner(old)?;
            self.last_leg = new.0;
            if old == self.holder {
                self.holder = new;
            } else {
                self.peer = Some(new);
            }
            self.actions.push(Action::Bridge(other, new));
            self.let_go(old);
        }
        Some((new, std::mem::take(&mut self.actions)))
    }

    /// `leg` goes to another call, and this one ends with all others; `None` when it talks with nobody here.
    pub fn release(&mut self, leg: LegKey) -> Option<Vec<Action>> {
        let other = self.partner(leg)?;
        self.let_go(other);
        self.over = true;
        self.actions.push(Action::Over(Ended {
            code: StatusCode::OK,
            cause: None,
            why: Why::Local,
        }));
        Some(std::mem::take(&mut self.actions))
    }

    /// Ends a Leg that others talk without from now on; one that asked for it hears that it was done.
    fn let_go(&mut self, leg: LegKey) {
        let asked = self.transfer.take_if(|transfer| transfer.by == leg);
        if asked.is_some_and(|transfer| transfer.present) {
            self.order(leg, Order::ReferProgress(StatusCode::OK));
        }
        self.order(leg, hang_up(None));
    }
}
