//! A transaction that we began (RFC 3261 §17.1, RFC 6026 §7.2).

use std::time::{Duration, Instant};

use gateway_sip::{HeaderName, Method, Request, Response};

use super::{Flow, T1, T2, T4, TIMEOUT, TIMER_D};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `Calling` of INVITE, `Trying` of others.
    Trying,
    Proceeding,
    Completed,
    /// A 2xx came for the INVITE: more of them may (RFC 6026).
    Accepted,
    Terminated,
}

pub(super) struct Client {
    state: State,
    is_invite: bool,
    pub(super) flow: Flow,
    request: Request,
    bytes: Vec<u8>,
    /// Sent again with each failed response that comes again.
    ack: Option<Vec<u8>>,
    cancel: Cancel,
    /// Timers A and E.
    resend: Option<(Instant, Duration)>,
    /// Timers B, F, D, K and M.
    ends: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    /// Wanted, but nothing was heard yet, so that a CANCEL might overtake its INVITE (RFC 3261 §9.1).
    Wanted,
    Sent,
}

/// What a step does beside changing the state.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Send(Vec<u8>),
    /// The response goes to the user.
    Deliver,
    TimedOut,
    /// A CANCEL is to be begun.
    Cancel(Box<Request>),
}

impl Client {
    pub(super) fn new(now: Instant, flow: Flow, request: Request) -> Self {
        let is_invite = request.method == Method::Invite;
        Self {
            state: State::Trying,
            is_invite,
            flow,
            bytes: request.to_bytes(),
            request,
            ack: None,
            cancel: Cancel::No,
            resend: (!flow.transport.is_reliable()).then_some((now + T1, T1)),
            ends: Some(now + TIMEOUT),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn method(&self) -> &Method {
        &self.request.method
    }

    pub(super) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        [self.resend.map(|(at, _)| at), self.ends]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn on_timeout(&mut self, now: Instant) -> Vec<Effect> {
        if self.ends.is_some_and(|at| at <= now) {
            // A CANCEL that brought no final response is as good as one (RFC 3261 §9.1), and so is silence.
            let silent = matches!(self.state, State::Trying | State::Proceeding);
            self.terminate();
            return if silent {
                vec![Effect::TimedOut]
            } else {
                Vec::new()
            };
        }
        let Some((at, pause)) = self.resend.filter(|(at, _)| *at <= now) else {
            return Vec::new();
        };
        let pause = match (self.is_invite, self.state) {
            (true, _) => pause * 2,
            (false, State::Trying) => (pause * 2).min(T2),
            (false, _) => T2,
        };
        // From the time it was due: a late clock does not shift the following ones.
        self.resend = Some((at.max(now.checked_sub(pause).unwrap_or(at)) + pause, pause));
        vec![Effect::Send(self.bytes.clone())]
    }

    pub(super) fn on_response(&mut self, now: Instant, response: &Response) -> Vec<Effect> {
        let code = response.code;
        match self.state {
            State::Trying | State::Proceeding if code.is_provisional() => {
                if self.state == State::Trying && !self.is_invite {
                    // Sent again more seldom from now on (§17.1.2.2).
                    self.resend = self.resend.map(|(at, _)| (at, T2));
                }
                self.state = State::Proceeding;
                let mut effects = vec![Effect::Deliver];
                if self.is_invite {
                    self.resend = None;
                    if self.cancel == Cancel::No {
                        self.ends = None; // Timer B has done its work; ringing has no end here.
                    }
                    effects.extend(self.cancel_if_wanted(now));
                }
                effects
            }
            State::Trying | State::Proceeding => self.on_final(now, response),
            State::Completed if self.is_invite && !code.is_provisional() && !code.is_success() => {
                self.ack.clone().map(Effect::Send).into_iter().collect()
            }
            State::Accepted if code.is_success() => vec![Effect::Deliver],
            State::Completed | State::Accepted | State::Terminated => Vec::new(),
        }
    }

    fn on_final(&mut self, now: Instant, response: &Response) -> Vec<Effect> {
        self.resend = None;
        let reliable = self.flow.transport.is_reliable();
        if !self.is_invite {
            self.state = State::Completed;
            self.ends = Some(if reliable { now } else { now + T4 });
            return vec![Effect::Deliver];
        }
        if response.code.is_success() {
            self.state = State::Accepted;
            self.ends = Some(now + TIMEOUT);
            return vec![Effect::Deliver];
        }
        self.state = State::Completed;
        self.ends = Some(if reliable { now } else { now + TIMER_D });
        let ack = self
            .follow_up(Method::Ack, response.headers.get(&HeaderName::To))
            .to_bytes();
        self.ack = Some(ack.clone());
        vec![Effect::Send(ack), Effect::Deliver]
    }

    /// Asks for an end. The final response comes as always: 487, or another that was quicker.
    pub(super) fn cancel(&mut self, now: Instant) -> Option<Effect> {
        if !self.is_invite || self.cancel != Cancel::No {
            return None;
        }
        self.cancel = Cancel::Wanted;
        self.cancel_if_wanted(now)
    }

    fn cancel_if_wanted(&mut self, now: Instant) -> Option<Effect> {
        if self.cancel != Cancel::Wanted || self.state != State::Proceeding {
            return None;
        }
        self.cancel = Cancel::Sent;
        self.ends = Some(now + TIMEOUT);
        Some(Effect::Cancel(Box::new(
            self.follow_up(Method::Cancel, None),
        )))
    }

    fn terminate(&mut self) {
        self.state = State::Terminated;
        self.resend = None;
        self.ends = None;
    }

    /// The ACK of a failed response (§17.1.1.3) or the CANCEL (§9.1): the topmost Via and what names the request.
    fn follow_up(&self, method: Method, to: Option<&str>) -> Request {
        let mut request = self.request.clone();
        request.body.clear();
        let headers = std::mem::take(&mut request.headers);
        let mut via = false;
        for (name, value) in headers.iter() {
            match name {
                HeaderName::Via if via => {}
                HeaderName::Via => {
                    via = true;
                    request.headers.push(name.clone(), value);
                }
                HeaderName::To => request.headers.push(HeaderName::To, to.unwrap_or(value)),
                HeaderName::CSeq => {
                    let number = value.split([' ', '\t']).next().unwrap_or_default();
                    request
                        .headers
                        .push(HeaderName::CSeq, format_args!("{number} {method}"));
                }
                HeaderName::From
                | HeaderName::CallId
                | HeaderName::Route
                | HeaderName::MaxForwards => {
                    request.headers.push(name.clone(), value);
                }
                _ => {}
            }
        }
        request.method = method;
        request
    }
}
