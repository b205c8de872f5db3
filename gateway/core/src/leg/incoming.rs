//! A Leg that comes in: an INVITE that waits for its answer.

use std::time::Instant;

use gateway_sip::negotiate::{self, Disagreement};
use gateway_sip::sanity::IncomingRequest;
use gateway_sip::sdp::{Direction, Session};
use gateway_sip::{
    CSeq, HeaderName, Method, RAck, Refresher, Request, Response, SessionExpires, StatusCode,
};

use super::session_timer::{Declined, SessionTimer};
use super::{
    Action, Body, Leg, LegName, Order, Reliable, SUPPORTED, Settings, State, Why, describe,
    give_cause,
};
use crate::Tokens;
use crate::dialog::Dialog;
use crate::transaction::ServerId;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    invite: Option<Invite>,
    /// The last RSeq of ours, and whether its PRACK is missing.
    rseq: u32,
    unproven: bool,
    /// The call answered while a PRACK was missing: the 200 has to wait for it (RFC 3262 §3).
    answer_when_proven: bool,
}

#[derive(Debug)]
struct Invite {
    id: ServerId,
    request: Request,
    /// What it offers; `None` when it leaves the offer to us.
    offer: Option<Session>,
    /// Our answer, once it was given: it stays the same in all responses.
    answer: Option<Session>,
    /// It was given in a response that has its PRACK: offers after it are new ones (RFC 3311 §5.1).
    settled: bool,
    /// Media was agreed on anew since, so that the 2xx has nothing to say of it.
    renewed: bool,
    /// The session timer, and whether they know timers; `None` without one.
    session: Option<(SessionExpires, bool)>,
}

impl Leg {
    /// Takes in an INVITE that belongs to no dialog. Media is agreed on with the first answer that has any.
    ///
    /// # Errors
    ///
    /// The response to refuse it with: 483 at the end of its hops, 420 for an extension we don't have, 421 for one it lacks, 415 and 406
    /// for a body that is not SDP, 400, 422 and 488.
    pub fn receive(
        settings: Settings,
        id: ServerId,
        incoming: &IncomingRequest,
        tokens: &mut dyn Tokens,
    ) -> Result<Self, Box<Response>> {
        let IncomingRequest {
            request, envelope, ..
        } = incoming;
        let tag = tokens.word();
        let refuse = |code| Box::new(Response::to(request, code, &tag));
        // We pass it on as a request of its own, and still as one hop more: else two of us could send it round for ever.
        if envelope.max_forwards == 0 {
            return Err(refuse(StatusCode::TOO_MANY_HOPS));
        }
        let unknown = unsupported(request);
        if !unknown.is_empty() {
            let mut response = refuse(StatusCode::BAD_EXTENSION);
            response
                .headers
                .push(HeaderName::Unsupported, unknown.join(", "));
            return Err(response);
        }
        if settings.reliable == Reliable::Require && !can_be_reliable(request) {
            let mut response = refuse(StatusCode::EXTENSION_REQUIRED);
            response.headers.push(HeaderName::Require, "100rel");
            return Err(response);
        }
        let accepts = |line: &str| {
            line.contains("application/sdp")
                || line.contains("*/*")
                || line.contains("application/*")
        };
        let mut accept = request.headers.lines(&HeaderName::Accept).peekable();
        if accept.peek().is_some() && !accept.any(accepts) {
            return Err(refuse(StatusCode::NOT_ACCEPTABLE));
        }
        let offer = match Body::read(&request.headers, &request.body) {
            Body::None => None,
            Body::Description(offer) => Some(offer),
            Body::Other => {
                let mut response = refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE);
                response.headers.push(HeaderName::Accept, "application/sdp");
                return Err(response);
            }
        };
        let session = (!settings.quirks.no_session_timers)
            .then(|| settings.session.answer(&request.headers))
            .transpose()
            .map_err(|declined| decline(request, declined, &tag))?;
        let dialog =
            Dialog::theirs(envelope, request, &tag).map_err(|_| refuse(StatusCode::BAD_REQUEST))?;
        if let Some(offer) = &offer {
            let tried = negotiate::answer(
                offer,
                &settings.capabilities,
                &settings.local,
                Direction::SendRecv,
            );
            tried.map_err(|_: Disagreement| refuse(StatusCode::NOT_ACCEPTABLE_HERE))?;
        }
        let name = LegName {
            call_id: envelope.call_id.clone(),
            local_tag: tag,
        };
        let mut leg = Self::new(settings, State::Ringing, name);
        leg.session.note_peer(&request.headers);
        leg.dialog = Some(dialog);
        leg.incoming.rseq = u32::try_from(tokens.next() & 0xffff).unwrap_or(0);
        leg.incoming.invite = Some(Invite {
            id,
            request: request.clone(),
            offer,
            answer: None,
            settled: false,
            renewed: false,
            session,
        });
        Ok(leg)
    }

    pub(super) fn order_incoming(&mut self, now: Instant, order: &Order) {
        match *order {
            Order::Ring => self.progress(StatusCode::RINGING, false),
            Order::Progress => self.progress(StatusCode::SESSION_PROGRESS, true),
            Order::Answer if self.incoming.unproven => self.incoming.answer_when_proven = true,
            Order::Answer => self.accept_invite(now),
            Order::End { code, cause } => self.refuse_invite(code, cause, Why::Local),
            Order::Hold(_) | Order::Refer(_) | Order::ReferProgress(_) | Order::Key(_) => {}
        }
    }

    fn progress(&mut self, code: StatusCode, media: bool) {
        // One at a time: the next reliable response has to wait for the PRACK of the last (RFC 3262 §3), and what it would say is
        // overtaken by then.
        if self.incoming.unproven || self.incoming.answer_when_proven {
            return;
        }
        let Some(invite) = self.incoming.invite.take() else {
            return;
        };
        let mut response = self.answer(&invite.request, code);
        let required = invite
            .request
            .headers
            .has_token(&HeaderName::Require, "100rel");
        let wanted =
            self.settings.reliable != Reliable::Accept && !self.settings.quirks.no_reliable;
        // The first reliable response has to have an offer where the INVITE has none (RFC 3261 §13.2.1): not before the 200 if we may.
        let delayed = invite.offer.is_none();
        let reliable = required || wanted && !delayed && can_be_reliable(&invite.request);
        self.incoming.invite = Some(invite);
        if media && let Some(answer) = self.answer_invite() {
            describe(&mut response.headers, &mut response.body, &answer);
        }
        if reliable && delayed && self.media.offered.is_none() && self.media.agreed.is_none() {
            let offer = self.offer();
            describe(&mut response.headers, &mut response.body, &offer);
        }
        if reliable {
            self.incoming.rseq += 1;
            self.incoming.unproven = true;
            response.headers.push(HeaderName::Require, "100rel");
            response.headers.push(HeaderName::RSeq, self.incoming.rseq);
        }
        if let Some(id) = self.invite_id() {
            self.actions.push(Action::Respond {
                id,
                response,
                reliable,
            });
        }
    }

    /// Our answer to the offer of the INVITE; `None` when it has none.
    fn answer_invite(&mut self) -> Option<Session> {
        let invite = self.incoming.invite.as_ref()?;
        if let Some(answer) = &invite.answer {
            return Some(answer.clone());
        }
        let offer = invite.offer.clone()?;
        // That it can be answered was tried when it came.
        let answer = self.answer_offer(&offer).ok()?;
        if let Some(invite) = &mut self.incoming.invite {
            invite.answer = Some(answer.clone());
        }
        Some(answer)
    }

    fn accept_invite(&mut self, now: Instant) {
        let renewed = self
            .incoming
            .invite
            .as_ref()
            .is_some_and(|invite| invite.renewed);
        let answer = if renewed { None } else { self.answer_invite() };
        let Some(Invite {
            id,
            request,
            session,
            ..
        }) = self.incoming.invite.take()
        else {
            return;
        };
        let mut response = self.answer(&request, StatusCode::OK);
        if !renewed {
            // Without an offer of theirs, the 200 has ours, and the ACK its answer.
            let description = answer.unwrap_or_else(|| self.offer());
            describe(&mut response.headers, &mut response.body, &description);
        }
        self.timer =
            session.map(|(expires, knows)| give_session(&mut response, now, expires, knows));
        self.state = State::Up;
        self.session.wait_for_ack(id, &request);
        self.respond(id, response);
    }

    pub(super) fn refuse_invite(&mut self, code: StatusCode, cause: Option<u8>, why: Why) {
        if let Some(Invite { id, request, .. }) = self.incoming.invite.take() {
            let mut response = self.answer(&request, code);
            give_cause(&mut response.headers, cause);
            self.respond(id, response);
        }
        self.end(code, cause, why);
    }

    pub(super) fn on_cancelled(&mut self) {
        if self.state == State::Ringing {
            self.refuse_invite(StatusCode::REQUEST_TERMINATED, None, Why::Remote);
        }
    }

    pub(super) fn on_no_prack(&mut self) {
        if self.state == State::Ringing {
            self.refuse_invite(StatusCode::SERVER_TIMEOUT, None, Why::Vanished);
        }
    }

    /// A PRACK, answered with 481 when it belongs to nothing.
    pub(super) fn on_prack(&mut self, now: Instant, id: ServerId, request: &Request) {
        let rack = request
            .headers
            .get(&HeaderName::RAck)
            .and_then(|value| RAck::parse(value).ok());
        let invite = self.incoming.invite.as_ref();
        let number = invite.and_then(|invite| invite.request.headers.get(&HeaderName::CSeq));
        let belongs = self.incoming.unproven
            && rack.is_some_and(|rack| {
                rack.response == self.incoming.rseq
                    && number.is_some_and(|cseq| is_same_cseq(cseq, &rack.cseq.to_string()))
            });
        let invite = self.invite_id().filter(|_| belongs);
        let Some(invite) = invite else {
            let response = self.answer(request, StatusCode::NO_SUCH_CALL);
            self.respond(id, response);
            return;
        };
        let body = Body::read(&request.headers, &request.body);
        let answers = self.media.offered.is_some();
        if answers {
            // The offer was ours, and the answer has to come with this (RFC 3262 §5).
            let answered = match &body {
                Body::Description(answer) => self.take_answer(answer).is_ok(),
                Body::None | Body::Other => false,
            };
            let code = StatusCode::NOT_ACCEPTABLE_HERE;
            if !answered {
                self.reply(id, request, code);
                return self.refuse_invite(code, None, Why::Media);
            }
            self.note_early_offer();
            if let Some(invite) = &mut self.incoming.invite {
                invite.settled = true;
            }
        }
        self.incoming.unproven = false;
        self.actions.push(Action::Proven(invite));
        if let Some(invite) = &mut self.incoming.invite {
            invite.settled |= invite.answer.is_some();
        }
        let mut response = self.answer(request, StatusCode::OK);
        if let (Body::Description(offer), false) = (body, answers) {
            // An offer of theirs may come with it, once ours of before was answered (RFC 3262 §5).
            match self
                .may_be_offered_early()
                .then(|| self.answer_offer(&offer))
            {
                Some(Ok(answer)) => {
                    describe(&mut response.headers, &mut response.body, &answer);
                    self.note_early_offer();
                }
                _ => response = self.answer(request, StatusCode::NOT_ACCEPTABLE_HERE),
            }
        }
        self.respond(id, response);
        if std::mem::take(&mut self.incoming.answer_when_proven) {
            self.accept_invite(now);
        }
    }

    /// Whether an INVITE that still waits has all of its own answer, so that another offer may be made (RFC 3311 §5.1).
    pub(super) fn may_be_offered_early(&self) -> bool {
        self.incoming
            .invite
            .as_ref()
            .is_none_or(|invite| invite.settled)
    }

    /// Another offer than the INVITE's was answered.
    pub(super) fn note_early_offer(&mut self) {
        if let Some(invite) = &mut self.incoming.invite {
            invite.renewed = true;
        }
    }

    fn invite_id(&self) -> Option<ServerId> {
        self.incoming.invite.as_ref().map(|invite| invite.id)
    }
}

fn can_be_reliable(request: &Request) -> bool {
    [HeaderName::Require, HeaderName::Supported]
        .iter()
        .any(|name| request.headers.has_token(name, "100rel"))
}

/// What of Require we don't have.
pub(crate) fn unsupported(request: &Request) -> Vec<&str> {
    let ours = |token: &str| {
        SUPPORTED
            .split(", ")
            .any(|known| known.eq_ignore_ascii_case(token))
    };
    let required = request
        .headers
        .list(&HeaderName::Require)
        .unwrap_or_default();
    required.into_iter().filter(|token| !ours(token)).collect()
}

/// The response to an interval that can't be.
pub(super) fn decline(request: &Request, declined: Declined, tag: &str) -> Box<Response> {
    match declined {
        Declined::Malformed => Box::new(Response::to(request, StatusCode::BAD_REQUEST, tag)),
        Declined::TooSmall(min) => {
            let mut response = Response::to(request, StatusCode::SESSION_INTERVAL_TOO_SMALL, tag);
            response.headers.push(HeaderName::MinSe, min);
            Box::new(response)
        }
    }
}

/// Writes the session timer into a 2xx, and starts it.
pub(super) fn give_session(
    response: &mut Response,
    now: Instant,
    expires: SessionExpires,
    knows: bool,
) -> SessionTimer {
    response.headers.push(HeaderName::SessionExpires, expires);
    if knows {
        response.headers.push(HeaderName::Require, "timer");
    }
    let ours = expires.refresher == Some(Refresher::Uas);
    SessionTimer::new(now, expires.seconds, ours)
}

fn is_same_cseq(value: &str, other: &str) -> bool {
    CSeq::parse(value).is_ok_and(|cseq| cseq.to_string() == other && cseq.method == Method::Invite)
}
