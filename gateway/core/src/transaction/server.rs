//! A transaction that somebody else began (RFC 3261 §17.2, RFC 6026 §7.1).

use std::time::{Duration, Instant};

use gateway_sip::sanity::IncomingRequest;
use gateway_sip::{Method, Response, StatusCode};

use super::{Flow, T1, T2, T4, TIMEOUT, TRYING_DELAY};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was answered; of an INVITE, 100 at most.
    Trying,
    Proceeding,
    /// Answered finally; an INVITE, with a failure.
    Completed,
    /// The ACK of a failure came.
    Confirmed,
    /// A 2xx was sent to an INVITE (RFC 6026).
    Accepted,
    Terminated,
}

pub(super) struct Server {
    state: State,
    /// Where answers go.
    pub(super) flow: Flow,
    pub(super) incoming: Box<IncomingRequest>,
    /// The last answer, for requests that come again.
    last: Option<Vec<u8>>,
    /// The 100 of our own, due unless an answer comes first.
    trying: Option<Instant>,
    /// Timer G, the 2xx until its ACK, or a reliable provisional response until its PRACK.
    resend: Option<(Instant, Duration)>,
    /// Timers H, I, J and L, and the end of waiting for a PRACK.
    ends: Option<Instant>,
    /// A reliable provisional response waits for its PRACK.
    unproven: bool,
    /// The ACK of the 2xx came.
    acknowledged: bool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Send(Vec<u8>),
    Unacknowledged,
    NoPrack,
}

impl Server {
    pub(super) fn new(now: Instant, flow: Flow, incoming: Box<IncomingRequest>) -> Self {
        let is_invite = incoming.request.method == Method::Invite;
        Self {
            state: State::Trying,
            flow,
            incoming,
            last: None,
            trying: is_invite.then(|| now + TRYING_DELAY),
            resend: None,
            ends: None,
            unproven: false,
            acknowledged: false,
        }
    }

    pub(super) fn is_invite(&self) -> bool {
        self.incoming.request.method == Method::Invite
    }

    pub(super) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    /// Whether a final answer was given.
    pub(super) fn is_answered(&self) -> bool {
        !matches!(self.state, State::Trying | State::Proceeding)
    }

    /// Whether a 2xx was given to an INVITE.
    pub(super) fn is_accepted(&self) -> bool {
        self.state == State::Accepted
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        [self.trying, self.resend.map(|(at, _)| at), self.ends]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn on_timeout(&mut self, now: Instant) -> Option<Effect> {
        if self.trying.is_some_and(|at| at <= now) {
            self.trying = None;
            let trying = Response::to(&self.incoming.request, StatusCode::TRYING, "").to_bytes();
            self.last = Some(trying.clone());
            return Some(Effect::Send(trying));
        }
        if self.ends.is_some_and(|at| at <= now) {
            self.ends = None;
            self.resend = None;
            if self.state == State::Proceeding {
                self.unproven = false;
                return Some(Effect::NoPrack);
            }
            let missing = self.state == State::Accepted && !self.acknowledged;
            self.state = State::Terminated;
            return missing.then_some(Effect::Unacknowledged);
        }
        let (at, pause) = self.resend.filter(|(at, _)| *at <= now)?;
        // RFC 3262 has no longest pause; the others do.
        let pause = if self.state == State::Proceeding {
            pause * 2
        } else {
            (pause * 2).min(T2)
        };
        self.resend = Some((at.max(now.checked_sub(pause).unwrap_or(at)) + pause, pause));
        self.last.clone().map(Effect::Send)
    }

    /// The request came again.
    pub(super) fn on_request_again(&self) -> Option<Effect> {
        match self.state {
            State::Trying | State::Proceeding | State::Completed => {
                self.last.clone().map(Effect::Send)
            }
            State::Confirmed | State::Accepted | State::Terminated => None,
        }
    }

    /// The ACK of a failure, which has the branch of its INVITE.
    pub(super) fn on_ack(&mut self, now: Instant) {
        if self.state == State::Completed && self.is_invite() {
            self.state = State::Confirmed;
            self.resend = None;
            self.ends = Some(if self.flow.transport.is_reliable() {
                now
            } else {
                now + T4
            });
        }
    }

    /// Answers. What comes after a final answer is dropped.
    pub(super) fn respond(
        &mut self,
        now: Instant,
        response: &Response,
        reliable: bool,
    ) -> Option<Effect> {
        if self.is_answered() {
            return None;
        }
        self.trying = None;
        let bytes = response.to_bytes();
        self.last = Some(bytes.clone());
        let datagrams = !self.flow.transport.is_reliable();
        if response.code.is_provisional() {
            self.state = State::Proceeding;
            if reliable {
                self.unproven = true;
                self.resend = Some((now + T1, T1));
                self.ends = Some(now + TIMEOUT);
            }
            return Some(Effect::Send(bytes));
        }
        self.unproven = false;
        self.resend = None;
        if !self.is_invite() {
            self.state = State::Completed;
            self.ends = Some(if datagrams { now + TIMEOUT } else { now });
        } else if response.code.is_success() {
            self.state = State::Accepted;
            // Over streams too: a proxy may have lost it behind them (§13.3.1.4).
            self.resend = Some((now + T1, T1));
            self.ends = Some(now + TIMEOUT);
        } else {
            self.state = State::Completed;
            self.resend = datagrams.then_some((now + T1, T1));
            self.ends = Some(now + TIMEOUT);
        }
        Some(Effect::Send(bytes))
    }

    /// The PRACK of the reliable provisional response came.
    pub(super) fn on_prack(&mut self) {
        if std::mem::take(&mut self.unproven) {
            self.resend = None;
            self.ends = None;
        }
    }

    /// The ACK of the 2xx came.
    pub(super) fn on_acknowledged(&mut self) {
        if self.state == State::Accepted {
            self.acknowledged = true;
            self.resend = None;
        }
    }
}
