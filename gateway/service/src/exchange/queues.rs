//! Callers who wait in Queues, what they hear meanwhile, and the members who are rung for them.

use std::time::{Duration, Instant};

use gateway_core::call;
use gateway_core::leg::{self, Ended, Order, Told, Why};
use gateway_core::queue::{Action, Event, Unanswered};
use gateway_sip::StatusCode;
use model::phone::rows::{Queue, RowName, Telephony};
use model::{AccountId, CallId, UserId};

use gateway_media::signs::{PLACES_MAX, Sign};

use super::library::{Hearing, Part, found, prompt};
use super::{Exchange, Rows, Side, Target, Timer};

/// Which Queue: that of an Account, by its name.
pub(super) type QueueId = (AccountId, RowName);

impl Exchange {
    /// A caller waits from now on: they are answered, and hear music.
    pub(super) fn join_queue(&mut self, now: Instant, id: CallId, name: RowName) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let account = call.account;
        self.take_up(id);
        let rows = self.rows.get(&account).cloned();
        let row = rows.as_ref().and_then(|rows| rows.queues.get(&name));
        if let Some((rows, row)) = rows.as_ref().zip(row) {
            let greeting = row.greeting.iter();
            let greeting = greeting.map(|it| prompt(account, rows, it, Sign::Prompt));
            self.wait_with_music(now, id, (account, rows, row), greeting.collect());
        }
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
                Action::Position(id, place) => {
                    let parts = position(*account, &rows, place);
                    self.wait_with_music(now, id, (*account, &rows, row), parts);
                }
                Action::GiveUp(id) => {
                    let to = row.nobody_answers.clone();
                    let wall = self.wall(now);
                    self.go_on(now, wall, id, |rows, facts, way| way.lead(rows, facts, &to));
                }
            }
        }
    }

    /// A caller who waits hears this, and then music.
    fn wait_with_music(
        &mut self,
        now: Instant,
        id: CallId,
        (account, rows, row): (AccountId, &Telephony, &Queue),
        mut parts: Vec<Part>,
    ) {
        let repeat_from = Some(parts.len());
        let own = row.music.as_ref();
        let own = own.and_then(|name| found(account, rows, name.as_str(), None));
        parts.push(own.unwrap_or(Part::Music));
        let hearing = Hearing { parts, repeat_from };
        self.say_all(now, id, hearing);
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

/// How a caller is told at which place they are: by the Account's own words where it has them for that number, else by notes that are counted.
fn position(account: AccountId, rows: &Telephony, place: usize) -> Vec<Part> {
    let number = found(account, rows, &format!("say-{place}"), Some(Sign::Prompt));
    match number {
        Some(number) => found(account, rows, "say-position", Some(Sign::Prompt))
            .into_iter()
            .chain([number])
            .collect(),
        None => {
            let place = u8::try_from(place).unwrap_or(PLACES_MAX);
            vec![Part::Sign(Sign::Place(place))]
        }
    }
}
