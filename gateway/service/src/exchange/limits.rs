//! How much an Account and its Users call, and how long they talk to outside.

use std::time::Instant;

use gateway_core::call;
use gateway_core::limits::Time;
use gateway_core::outbound::Outside;
use model::phone::rows::CallLimits;
use model::{AccountId, CallId, UserId};

use super::incoming::Refusal;
use super::trunks::TrunkId;
use super::{Exchange, Timer};

/// Whose calls are counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    Account(AccountId),
    User(AccountId, UserId),
    /// Its minutes alone: its calls are counted where it is dialled, one Trunk after the other.
    Trunk(TrunkId),
}

/// What holds for one call.
pub(super) type Limits = Vec<(Whose, CallLimits)>;

/// What a call to outside counts for.
pub(super) struct Outlay {
    limits: Limits,
    /// Its minutes count.
    metered: bool,
}

impl Outlay {
    /// A call that [`Exchange::begin_meters`] was told of and nobody has answered.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            metered: false,
        }
    }
}

impl Whose {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::User(..) => "user",
            Self::Trunk(_) => "trunk",
        }
    }
}

impl Exchange {
    /// What holds for a call to outside; nothing for one for help.
    pub(super) fn limits_of(
        &self,
        account: AccountId,
        user: Option<&UserId>,
        outside: &Outside,
    ) -> Limits {
        if outside.help {
            return Vec::new();
        }
        let mut limits = self.limits_inside(account, user);
        let rows = self.rows.get(&account);
        let first = outside.trunks.first();
        if let Some((rows, name)) = rows.zip(first)
            && let Some(trunk) = rows.trunks.get(name)
        {
            let minutes = CallLimits {
                calls: u32::MAX,
                calls_per_second: u32::MAX,
                ..trunk.limits
            };
            limits.push((Whose::Trunk((account, name.clone())), minutes));
        }
        limits
    }

    /// What holds for any call of an Account, and of a User who makes it.
    pub(super) fn limits_inside(&self, account: AccountId, user: Option<&UserId>) -> Limits {
        let Some(rows) = self.rows.get(&account) else {
            return Vec::new();
        };
        let mut limits = vec![(Whose::Account(account), rows.limits.0)];
        if let Some(user) = user {
            let of_user = rows.users.get(user).cloned().unwrap_or_default().limits;
            limits.push((Whose::User(account, user.clone()), of_user));
        }
        limits
    }

    /// A call begins.
    ///
    /// # Errors
    ///
    /// It is one too many for somebody.
    pub(super) fn begin_meters(
        &mut self,
        now: Instant,
        limits: &[(Whose, CallLimits)],
        goes_out: bool,
    ) -> Result<(), Refusal> {
        let time = self.time(now);
        self.meters.begin(time, limits, goes_out).map_err(|over| {
            let (limit, whose) = (over.limit.as_str(), over.whose.as_str());
            tracing::info!(limit, whose, "Call over a limit refused");
            Refusal::OVER_LIMIT
        })
    }

    pub(super) fn end_meters(
        &mut self,
        now: Instant,
        limits: &[(Whose, CallLimits)],
        talked: bool,
    ) {
        let time = self.time(now);
        self.meters
            .ended(time, limits.iter().map(|(whose, _)| whose), talked);
    }

    /// A call to outside was answered: its minutes count, and it ends when they are used up.
    pub(super) fn on_talk(&mut self, now: Instant, id: CallId) {
        let time = self.time(now);
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        for outlay in call.outside.iter_mut().filter(|outlay| !outlay.metered) {
            outlay.metered = true;
            let whose = outlay.limits.iter().map(|(whose, _)| whose);
            self.meters.answered(time, whose);
        }
        self.look_at_minutes(now, id);
    }

    /// Nobody has answered outside: that is over, and the call goes on without.
    pub(super) fn give_back(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let unanswered = call.outside.extract_if(.., |outlay| !outlay.metered);
        let unanswered: Vec<Outlay> = unanswered.collect();
        self.end_outlays(now, &unanswered);
    }

    pub(super) fn end_outlays(&mut self, now: Instant, outlays: &[Outlay]) {
        for outlay in outlays {
            self.end_meters(now, &outlay.limits, outlay.metered);
        }
    }

    /// Ends a call whose minutes are used up, or looks again when they will be.
    pub(super) fn look_at_minutes(&mut self, now: Instant, id: CallId) {
        let time = self.time(now);
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let metered = call.outside.iter().filter(|outlay| outlay.metered);
        let limits: Vec<_> = metered.flat_map(|outlay| outlay.limits.clone()).collect();
        match self.meters.used_up_at(time, &limits) {
            Some(at) if at <= now => {
                tracing::info!(call = %id, "The minutes of a day are used up, call ended");
                self.figures.minutes_ended += 1;
                self.tell_call(id, call::Event::HangUp);
            }
            at => self.timers.set(&Timer::Minutes(id), at),
        }
    }

    fn time(&self, now: Instant) -> Time {
        Time {
            now,
            wall: self.wall(now),
        }
    }
}
