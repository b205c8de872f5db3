//! Callers who wait in Queues, and the members who are rung for them.

use std::time::{Duration, Instant};

use gateway_core::call;
use gateway_core::leg::{self, Ended, Order, Told, Why};
use gateway_core::queue::{Action, Event, Unanswered};
use gateway_sip::StatusCode;
use model::phone::rows::RowName;
use model::{AccountId, CallId, UserId};

use super::{Exchange, Rows, Side, Target, Timer};
use crate::sound::To;

/// Which Queue: that of an Account, by its name.
pub(super) type QueueId = (AccountId, RowName);

impl Exchange {
    /// A caller waits from now on: they are answered, and hear music.
    pub(super) fn join_queue(&mut self, now: Instant, id: CallId, name: RowName) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let account = call.account;
        // Who was transferred here need not be the one who called.
        let waits = call.call.holder();
        if !std::mem::replace(&mut call.taken_up, true) {
            self.tell_call(id, call::Event::TakeUp);
        }
        self.connect(id, waits, To::Music);
        self.figures.queued += 1;
        self.step_queue(now, &(account, name), Event::Join(id));
    }

    /// Something happens to a Queue.
    pub(super) fn step_queue(&mut self, now: Instant, queue: &QueueId, event: Event<CallId>) {
        let (account, name) = queue;
        let Some(rows) = self.rows.get(account).cloned() else {
            return;
        };
        let Some(row) = rows.queues.get(name) else {
            return;
        };
        let machine = self.queues.entry(queue.clone()).or_default();
        let actions = machine.step(now, &rows, row, event);
        let timeout = machine.poll_timeout();
        self.timers.set(&Timer::Queue(queue.clone()), timeout);
        for action in actions {
            match action {
                Action::Ring(id, users) => {
                    let mut targets = Vec::new();
                    for user in users {
                        targets.extend(self.desks_of(*account, &user));
                        targets.push(Target::User(user));
                    }
                    let ring = Duration::from_secs(row.ring_seconds.into());
                    let group = self.group(id, targets, ring);
                    self.tell_call(id, call::Event::Lead(vec![group]));
                }
                Action::Stop(id, users) => self.stop_ringing(id, &users),
                // It would have to be spoken.
                Action::Position(..) => {}
                Action::GiveUp(id) => {
                    let to = row.nobody_answers.clone();
                    let wall = self.wall(now);
                    self.go_on(now, wall, id, |rows, facts, way| way.lead(rows, facts, &to));
                }
            }
        }
    }

    /// These Users ring no longer for this call; the Devices of a browser end by themselves at the same time.
    fn stop_ringing(&mut self, id: CallId, users: &[UserId]) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let theirs: Vec<_> = call
            .users
            .iter()
            .filter(|(_, user)| users.contains(user))
            .filter_map(|(key, _)| Some((*key, call.sides.get(key)?.clone())))
            .collect();
        for (key, side) in theirs {
            match side {
                Side::User(_) => {
                    let told = Told::Ended(Ended {
                        code: StatusCode::TEMPORARILY_UNAVAILABLE,
                        cause: None,
                        why: Why::Local,
                    });
                    self.tell_call(id, call::Event::Told { leg: key, told });
                }
                Side::Sip(leg) => {
                    let talks = self.legs.get(&leg).is_some_and(|leg| leg.is_answered());
                    if !talks {
                        let code = StatusCode::REQUEST_TERMINATED;
                        let order = Order::End { code, cause: None };
                        self.tell_leg(leg, leg::Event::Order(order));
                    }
                }
            }
        }
    }

    /// A User makes a call.
    pub(super) fn on_caller_talks(&mut self, now: Instant, id: CallId, user: &UserId) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.talks.push(user.clone());
        let account = call.account;
        for queue in self.queues_of(account, user) {
            self.step_queue(now, &queue, Event::Talks(user.clone()));
        }
    }

    /// A User took a call that waited for them, or any other.
    pub(super) fn on_member_talks(&mut self, now: Instant, id: CallId, user: &UserId) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.talks.push(user.clone());
        let account = call.account;
        let waited = call
            .leading
            .as_mut()
            .and_then(|leading| leading.queue.take());
        self.record_user(id, user, waited.clone());
        for queue in self.queues_of(account, user) {
            let event = if waited.as_ref() == Some(&queue.1) {
                Event::Answered(user.clone())
            } else {
                Event::Talks(user.clone())
            };
            self.step_queue(now, &queue, event);
        }
    }

    /// A member does not take a call.
    pub(super) fn on_member_unanswered(
        &mut self,
        now: Instant,
        id: CallId,
        user: &UserId,
        offline: bool,
    ) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        // A desk phone of theirs may ring on.
        let rings = call.users.iter().any(|(key, of)| {
            let side = call.sides.get(key);
            let leg = match side {
                Some(Side::Sip(leg)) => self.legs.get(leg),
                _ => None,
            };
            of == user && leg.is_some_and(|leg| !leg.leg.is_over())
        });
        let queue = call
            .leading
            .as_ref()
            .and_then(|leading| leading.queue.clone());
        if let Some(name) = queue.filter(|_| !rings) {
            let why = match offline {
                true => Unanswered::Offline,
                false => Unanswered::Declined,
            };
            let queue = (call.account, name);
            self.step_queue(now, &queue, Event::Unanswered(user.clone(), why));
        }
    }

    /// A call is over: it waits no longer, and who talked in it is free.
    pub(super) fn leave_queues(
        &mut self,
        now: Instant,
        id: CallId,
        account: AccountId,
        waits: Option<RowName>,
        talked: Vec<UserId>,
    ) {
        if let Some(name) = waits {
            self.step_queue(now, &(account, name), Event::Leave(id));
        }
        for user in talked {
            for queue in self.queues_of(account, &user) {
                self.step_queue(now, &queue, Event::Free(user.clone()));
            }
        }
    }

    /// Queues without a row are no more: who waits there goes on as if nobody had answered at all.
    pub(super) fn close_queues(&mut self, rows: &Rows) {
        let is_there = |(account, name): &QueueId| {
            rows.get(account)
                .is_some_and(|rows| rows.queues.contains_key(name))
        };
        let gone: Vec<_> = self
            .queues
            .keys()
            .filter(|queue| !is_there(queue))
            .cloned()
            .collect();
        for queue in gone {
            self.queues.remove(&queue);
            self.timers.set(&Timer::Queue(queue.clone()), None);
            let waits = self.calls.iter_mut().filter_map(|(id, call)| {
                let leading = call.leading.as_mut()?;
                let here = call.account == queue.0 && leading.queue.as_ref() == Some(&queue.1);
                here.then(|| {
                    leading.queue = None;
                    *id
                })
            });
            let waits: Vec<CallId> = waits.collect();
            for id in waits {
                self.tell_call(id, call::Event::Lead(Vec::new()));
            }
        }
    }

    fn queues_of(&self, account: AccountId, user: &UserId) -> Vec<QueueId> {
        let rows = self.rows.get(&account);
        let queues = rows.into_iter().flat_map(|rows| &rows.queues);
        queues
            .filter(|(_, row)| row.members.contains(user))
            .map(|(name, _)| (account, name.clone()))
            .collect()
    }
}
