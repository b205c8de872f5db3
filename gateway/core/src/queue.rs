//! Queues: callers who wait, and members who are rung for them.
//!
//! ```text
//!            Join, Leave                        Ring, Stop
//! callers ────────────────▶ ┌───────┐ ─────────────────────▶ members
//!            Answered,      │ Queue │ ─▶ Position, GiveUp    ─▶ callers
//! members ────────────────▶ └───────┘
//!            Unanswered, Talks, Free
//! ```
//!
//! The caller who has waited longest is served first, and a member is rung for one caller at a time. Pure: rows, time and what happened go in.
//! `C` is the driver's name for a caller.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use model::UserId;
use model::phone::rows::{self, Strategy, Telephony};

/// How long a member for whom nothing is there is not rung again.
const ABSENT: Duration = Duration::from_secs(30);
/// How long a caller hears music when all members were rung in vain, before it begins anew.
const PAUSE: Duration = Duration::from_secs(5);
/// The most members that ring at once.
pub const RINGING_MAX: usize = 16;

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<C> {
    /// Somebody comes to wait.
    Join(C),
    /// Somebody hangs up, or is led elsewhere.
    Leave(C),
    /// A member takes the caller they are rung for.
    Answered(UserId),
    /// A member does not take it.
    Unanswered(UserId, Unanswered),
    /// A member is in a call that is none of this Queue's.
    Talks(UserId),
    /// A member's call is over, of this Queue or not.
    Free(UserId),
    /// A member is away, or back.
    Away(UserId, bool),
    /// The time of [`Queue::poll_timeout`] has come.
    Timeout,
}

/// Why a member does not take a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unanswered {
    /// Declined, or did not answer in time.
    Declined,
    /// Nothing is there that could ring.
    Offline,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<C> {
    /// Ring these members for this caller.
    Ring(C, Vec<UserId>),
    /// These ring no longer for this caller.
    Stop(C, Vec<UserId>),
    /// Tell the caller at which place they are, from 1.
    Position(C, usize),
    /// Nobody takes the caller: lead them to `nobody_answers`. They wait no longer.
    GiveUp(C),
}

/// One Queue.
#[derive(Debug)]
pub struct Queue<C> {
    callers: VecDeque<Caller<C>>,
    members: BTreeMap<UserId, Member>,
    /// Counts calls, so that who has waited longest for one is known.
    calls: u64,
}

#[derive(Debug)]
struct Caller<C> {
    name: C,
    gives_up: Instant,
    ringing: Vec<UserId>,
    ring_until: Option<Instant>,
    /// Who was rung for this caller since the last pause.
    tried: Vec<UserId>,
    pause_until: Option<Instant>,
    position_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Member {
    /// How many calls they are in.
    talking: usize,
    rings: bool,
    away: bool,
    /// Left alone until then: after a call.
    rests_until: Option<Instant>,
    /// Nothing of theirs is there until then.
    absent_until: Option<Instant>,
    /// Which call they took last; 0 for none.
    last_call: u64,
}

impl<C: Clone + Eq> Default for Queue<C> {
    fn default() -> Self {
        Self {
            callers: VecDeque::new(),
            members: BTreeMap::new(),
            calls: 0,
        }
    }
}

impl<C: Clone + Eq> Queue<C> {
    /// How many callers wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.callers.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// When [`Event::Timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.callers.is_empty() {
            return None;
        }
        let of_callers = self.callers.iter().flat_map(|caller| {
            [
                Some(caller.gives_up),
                caller.ring_until,
                caller.pause_until,
                caller.position_at,
            ]
        });
        let of_members = self
            .members
            .values()
            .flat_map(|member| [member.rests_until, member.absent_until]);
        of_callers.chain(of_members).flatten().min()
    }

    /// Something happens to the Queue of this row. `all` is what it is part of: those of its members who don't want to be disturbed aren't
    /// rung.
    pub fn step(
        &mut self,
        now: Instant,
        all: &Telephony,
        row: &rows::Queue,
        event: Event<C>,
    ) -> Vec<Action<C>> {
        let mut actions = Vec::new();
        self.follow(row);
        match event {
            Event::Join(name) => self.on_join(now, row, name, &mut actions),
            Event::Leave(name) => self.remove(&name, &mut actions),
            Event::Answered(user) => self.on_answered(&user, &mut actions),
            Event::Unanswered(user, why) => self.on_unanswered(now, &user, why),
            Event::Talks(user) => {
                if let Some(member) = self.members.get_mut(&user) {
                    member.talking += 1;
                }
            }
            Event::Free(user) => {
                if let Some(member) = self.members.get_mut(&user) {
                    member.talking = member.talking.saturating_sub(1);
                    let rest = Duration::from_secs(row.rest_seconds.into());
                    let rests = member.talking == 0 && !rest.is_zero();
                    member.rests_until = rests.then(|| now + rest);
                }
            }
            Event::Away(user, away) => {
                if let Some(member) = self.members.get_mut(&user) {
                    member.away = away;
                }
            }
            Event::Timeout => {}
        }
        self.on_time(now, row, &mut actions);
        self.serve(now, all, row, &mut actions);
        actions
    }

    /// Members come and go as the row says.
    fn follow(&mut self, row: &rows::Queue) {
        self.members
            .retain(|user, member| member.rings || row.members.contains(user));
        for user in &row.members {
            if !self.members.contains_key(user) {
                self.members.insert(user.clone(), Member::default());
            }
        }
    }

    fn on_join(&mut self, now: Instant, row: &rows::Queue, name: C, actions: &mut Vec<Action<C>>) {
        if self.callers.iter().any(|caller| caller.name == name) {
            return;
        }
        if self.callers.len() >= usize::from(row.waiting_max) {
            actions.push(Action::GiveUp(name));
            return;
        }
        let position = row
            .position_seconds
            .map(|seconds| now + Duration::from_secs(seconds.into()));
        self.callers.push_back(Caller {
            name,
            gives_up: now + Duration::from_secs(row.wait_seconds.into()),
            ringing: Vec::new(),
            ring_until: None,
            tried: Vec::new(),
            pause_until: None,
            position_at: position,
        });
    }

    fn remove(&mut self, name: &C, actions: &mut Vec<Action<C>>) {
        if let Some(at) = self.callers.iter().position(|caller| caller.name == *name)
            && let Some(mut caller) = self.callers.remove(at)
        {
            self.silence(&mut caller, actions);
        }
    }

    /// Nobody rings for this caller any more.
    fn silence(&mut self, caller: &mut Caller<C>, actions: &mut Vec<Action<C>>) {
        caller.ring_until = None;
        let ringing = std::mem::take(&mut caller.ringing);
        for user in &ringing {
            if let Some(member) = self.members.get_mut(user) {
                member.rings = false;
            }
        }
        if !ringing.is_empty() {
            actions.push(Action::Stop(caller.name.clone(), ringing));
        }
    }

    fn on_answered(&mut self, user: &UserId, actions: &mut Vec<Action<C>>) {
        let rung = |caller: &Caller<C>| caller.ringing.contains(user);
        let Some(at) = self.callers.iter().position(rung) else {
            return;
        };
        self.calls += 1;
        if let Some(member) = self.members.get_mut(user) {
            member.rings = false;
            member.talking += 1;
            member.last_call = self.calls;
        }
        if let Some(mut caller) = self.callers.remove(at) {
            caller.ringing.retain(|rung| rung != user);
            self.silence(&mut caller, actions);
        }
    }

    fn on_unanswered(&mut self, now: Instant, user: &UserId, why: Unanswered) {
        if let Some(member) = self.members.get_mut(user) {
            member.rings = false;
            if why == Unanswered::Offline {
                member.absent_until = Some(now + ABSENT);
            }
        }
        for caller in &mut self.callers {
            caller.ringing.retain(|rung| rung != user);
            if caller.ringing.is_empty() {
                caller.ring_until = None;
            }
        }
    }

    /// What is due: those who have waited too long, who have rung too long, and who hear their place.
    fn on_time(&mut self, now: Instant, row: &rows::Queue, actions: &mut Vec<Action<C>>) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        for member in self.members.values_mut() {
            member.rests_until = member.rests_until.filter(|at| *at > now);
            member.absent_until = member.absent_until.filter(|at| *at > now);
        }
        let mut at = 0;
        while let Some(mut caller) = self.callers.remove(at) {
            if is_due(caller.ring_until) || caller.gives_up <= now {
                self.silence(&mut caller, actions);
            }
            if caller.gives_up <= now {
                actions.push(Action::GiveUp(caller.name));
                continue;
            }
            if is_due(caller.pause_until) {
                caller.pause_until = None;
                caller.tried.clear();
            }
            if is_due(caller.position_at) {
                actions.push(Action::Position(caller.name.clone(), at + 1));
                let every = Duration::from_secs(row.position_seconds.unwrap_or(u16::MAX).into());
                caller.position_at = Some(now + every);
            }
            self.callers.insert(at, caller);
            at += 1;
        }
    }

    /// Rings members for callers, those first who have waited longest.
    fn serve(
        &mut self,
        now: Instant,
        all: &Telephony,
        row: &rows::Queue,
        actions: &mut Vec<Action<C>>,
    ) {
        let ring = Duration::from_secs(row.ring_seconds.into());
        let mut at = 0;
        while let Some(mut caller) = self.callers.remove(at) {
            if !self.is_anybody_there(all, row) {
                self.silence(&mut caller, actions);
                actions.push(Action::GiveUp(caller.name));
                continue;
            }
            if caller.ringing.is_empty() && caller.pause_until.is_none() {
                let free = self.free(all, row);
                let mut next: Vec<_> = free
                    .iter()
                    .filter(|user| !caller.tried.contains(user))
                    .cloned()
                    .collect();
                next.truncate(match row.strategy {
                    Strategy::Evenly | Strategy::InOrder => 1,
                    Strategy::Everybody => RINGING_MAX,
                });
                if !next.is_empty() {
                    for user in &next {
                        if let Some(member) = self.members.get_mut(user) {
                            member.rings = true;
                        }
                    }
                    caller.tried.extend(next.iter().cloned());
                    caller.ring_until = Some(now + ring);
                    caller.ringing.clone_from(&next);
                    actions.push(Action::Ring(caller.name.clone(), next));
                } else if !free.is_empty() {
                    // All who are free were rung in vain.
                    caller.pause_until = Some(now + PAUSE);
                }
            }
            self.callers.insert(at, caller);
            at += 1;
        }
    }

    /// Whether anybody could take a call, now or when their own is over.
    fn is_anybody_there(&self, all: &Telephony, row: &rows::Queue) -> bool {
        row.members
            .iter()
            .any(|user| self.is_present(all, row, user))
    }

    fn is_present(&self, all: &Telephony, row: &rows::Queue, user: &UserId) -> bool {
        let disturbed = all
            .users
            .get(user)
            .is_some_and(|settings| settings.do_not_disturb);
        let there = self
            .members
            .get(user)
            .is_some_and(|member| member.absent_until.is_none() && (row.ring_away || !member.away));
        there && !disturbed
    }

    /// Who may be rung, in the order of the strategy.
    fn free(&self, all: &Telephony, row: &rows::Queue) -> Vec<UserId> {
        let is_free = |user: &&UserId| {
            self.is_present(all, row, user)
                && self.members.get(*user).is_some_and(|member| {
                    member.talking == 0 && !member.rings && member.rests_until.is_none()
                })
        };
        let mut free: Vec<_> = row.members.iter().filter(is_free).cloned().collect();
        if row.strategy == Strategy::Evenly {
            free.sort_by_key(|user| self.members.get(user).map(|member| member.last_call));
        }
        free
    }
}

#[cfg(test)]
mod tests;
