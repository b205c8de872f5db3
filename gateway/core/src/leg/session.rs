//! A Leg that is up: holding, renewing, transferring, ending; and what the other side does of these.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gateway_sip::sanity::{IncomingRequest, IncomingResponse};
use gateway_sip::sdp::Direction;
use gateway_sip::{
    CSeq, HeaderName, Headers, Method, NameAddr, Refresher, Request, Response, StatusCode, Uri,
};

use super::incoming::{decline, give_session, unsupported};
use super::session_timer::SessionTimer;
use super::{Action, Body, Leg, Order, RequestId, State, Told, Why, cause, describe, give_cause};
use crate::Tokens;
use crate::dialog::{Dialog, DialogId};
use crate::transaction::ServerId;

/// The most requests of a dialog that wait for their answers.
const PENDING_MAX: usize = 16;
/// The longest body of INFO and NOTIFY that is looked at, in bytes.
const BODY_LEN_MAX: usize = 1_024;
/// How often a request is sent that others overtake.
const OVERTAKEN_MAX: u8 = 4;
/// The most keys that wait.
const KEYS_MAX: usize = 64;
/// How often an offer that was refused for now is made again.
const RETRIES_MAX: u8 = 8;
/// The longest time that the other side may have us wait for that, in seconds.
const RETRY_AFTER_MAX: u32 = 60;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pending: Vec<Pending>,
    /// Keys that wait for the last one's answer.
    keys: VecDeque<char>,
    /// Our 2xx to this INVITE of theirs waits for its ACK.
    ack: Option<(ServerId, u32)>,
    /// The BYE has to wait for that ACK (RFC 3261 §15).
    bye: Option<Option<u8>>,
    /// The ACK of our last re-INVITE's 2xx, for those that come again.
    last_ack: Option<(RequestId, Request, Uri)>,
    /// When our re-INVITE is tried again that met one of theirs.
    retry: Option<Instant>,
    retries: u8,
    /// The wish has changed while an offer was under way.
    offer_again: bool,
    peer_has_update: bool,
    /// The least time between two renewals that they take, in seconds, where they said so (422).
    min: u32,
    /// The other side asked us to call somebody else, and hears of it.
    referred: bool,
}

#[derive(Debug)]
struct Pending {
    id: RequestId,
    request: Request,
    hop: Uri,
    tries: u8,
}

impl Waiting {
    /// What the other side says that it can.
    pub(super) fn note_peer(&mut self, headers: &Headers) {
        self.peer_has_update = headers.has_token(&HeaderName::Allow, "UPDATE");
    }

    pub(super) fn wait_for_ack(&mut self, id: ServerId, invite: &Request) {
        let number = invite
            .headers
            .get(&HeaderName::CSeq)
            .and_then(|value| CSeq::parse(value).ok());
        self.ack = number.map(|cseq| (id, cseq.number));
    }

    pub(super) fn is_renewing(&self) -> bool {
        let renews =
            |pending: &Pending| matches!(pending.request.method, Method::Invite | Method::Update);
        self.ack.is_some() || self.pending.iter().any(renews)
    }

    fn is_inviting(&self) -> bool {
        self.pending
            .iter()
            .any(|pending| pending.request.method == Method::Invite)
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry
    }
}

impl Leg {
    pub(super) fn order_up(&mut self, order: Order, tokens: &mut dyn Tokens) {
        match order {
            Order::End { cause, .. } => {
                self.hang_up(cause, tokens);
                self.end(StatusCode::OK, cause, Why::Local);
            }
            Order::Hold(hold) => {
                let wish = if hold {
                    Direction::SendOnly
                } else {
                    Direction::SendRecv
                };
                if self.media.wish != wish {
                    self.media.wish = wish;
                    self.offer_anew(tokens);
                }
            }
            Order::Refer(_) if self.settings.quirks.no_refer => {
                self.tell(Told::Referred(StatusCode::METHOD_NOT_ALLOWED));
            }
            Order::Refer(target) => {
                if let Some(mut request) = self.request(&Method::Refer) {
                    request
                        .headers
                        .push(HeaderName::ReferTo, NameAddr::new(target));
                    request.headers.push(
                        HeaderName::ReferredBy,
                        NameAddr::new(self.settings.contact.uri.clone()),
                    );
                    self.send_pending(request, tokens);
                }
            }
            Order::ReferProgress(code) => self.notify(code, tokens),
            Order::Key(key) => {
                if self.session.keys.len() < KEYS_MAX {
                    self.session.keys.push_back(key);
                }
                self.send_key(tokens);
            }
            Order::Ring | Order::Progress | Order::Answer => {}
        }
    }

    /// Sends a BYE, or sees to it that one is sent once that may be.
    pub(super) fn hang_up(&mut self, cause: Option<u8>, tokens: &mut dyn Tokens) {
        if self.session.ack.is_some() {
            self.session.bye = Some(cause);
            return;
        }
        if let Some(mut bye) = self.request(&Method::Bye) {
            give_cause(&mut bye.headers, cause);
            self.send_pending(bye, tokens);
        }
    }

    /// A request of the dialog.
    fn request(&mut self, method: &Method) -> Option<Request> {
        let contact = &self.settings.contact;
        self.dialog
            .as_mut()
            .map(|dialog| dialog.request(method, contact))
    }

    fn send_pending(&mut self, request: Request, tokens: &mut dyn Tokens) {
        let Some(hop) = self.dialog.as_ref().map(|dialog| dialog.next_hop().clone()) else {
            return;
        };
        if self.session.pending.len() == PENDING_MAX {
            self.session.pending.remove(0);
        }
        let id = self.send(request.clone(), hop.clone(), tokens);
        self.session.pending.push(Pending {
            id,
            request,
            hop,
            tries: 1,
        });
    }

    /// Sends the next key: one at a time, since requests overtake one another.
    fn send_key(&mut self, tokens: &mut dyn Tokens) {
        let is_info = |pending: &Pending| pending.request.method == Method::Info;
        if self.session.pending.iter().any(is_info) {
            return;
        }
        if let Some(key) = self.session.keys.pop_front()
            && let Some(mut request) = self.request(&Method::Info)
        {
            request
                .headers
                .push(HeaderName::ContentType, "application/dtmf-relay");
            request.body = format!("Signal={key}\r\nDuration=160\r\n").into_bytes();
            self.send_pending(request, tokens);
        }
    }

    /// The session timer that a 2xx to a request of ours sets.
    pub(super) fn session_timer(&self, now: Instant, headers: &Headers) -> Option<SessionTimer> {
        let known = !self.settings.quirks.no_session_timers;
        known
            .then(|| SessionTimer::from_response(now, headers))
            .flatten()
    }

    /// Offers what we wish now, unless another offer is under way, whose end is waited for (RFC 3261 §14.1).
    fn offer_anew(&mut self, tokens: &mut dyn Tokens) {
        if self.session.is_renewing() || self.session.ack.is_some() || self.media.offered.is_some()
        {
            self.session.offer_again = true;
            return;
        }
        self.session.offer_again = false;
        if let Some(mut request) = self.request(&Method::Invite) {
            let allow = self.settings.quirks.allow();
            request.headers.push(HeaderName::Allow, allow);
            self.ask_session(&mut request);
            let offer = self.offer();
            describe(&mut request.headers, &mut request.body, &offer);
            self.send_pending(request, tokens);
        }
    }

    /// Renews the session: by an UPDATE that changes nothing, or a re-INVITE where the other side knows none.
    fn renew(&mut self, tokens: &mut dyn Tokens) {
        if self.session.is_renewing() {
            return;
        }
        if !self.session.peer_has_update || self.settings.quirks.no_update {
            self.offer_anew(tokens);
        } else if let Some(mut request) = self.request(&Method::Update) {
            self.ask_session(&mut request);
            self.send_pending(request, tokens);
        }
    }

    fn ask_session(&mut self, request: &mut Request) {
        let supported = self.settings.quirks.supported();
        request.headers.push(HeaderName::Supported, supported);
        if self.settings.quirks.no_session_timers {
            return;
        }
        let refresher = self.timer.map(|timer| {
            if timer.ours {
                Refresher::Uac
            } else {
                Refresher::Uas
            }
        });
        self.settings
            .session
            .ask(&mut request.headers, self.session.min, refresher);
    }

    fn notify(&mut self, code: StatusCode, tokens: &mut dyn Tokens) {
        if !self.session.referred {
            return;
        }
        if let Some(mut request) = self.request(&Method::Notify) {
            let over = code.is_final();
            self.session.referred = !over;
            request.headers.push(HeaderName::Event, "refer");
            let state = if over {
                "terminated;reason=noresource"
            } else {
                "active;expires=60"
            };
            request.headers.push(HeaderName::SubscriptionState, state);
            request
                .headers
                .push(HeaderName::ContentType, "message/sipfrag;version=2.0");
            request.body = format!("SIP/2.0 {code} {}\r\n", code.reason()).into_bytes();
            self.send_pending(request, tokens);
        }
    }

    pub(super) fn on_timeout(&mut self, now: Instant, tokens: &mut dyn Tokens) {
        if self.state != State::Up {
            return;
        }
        if self.timer.is_some_and(|timer| timer.ends_at() <= now) {
            self.hang_up(None, tokens);
            self.end(StatusCode::REQUEST_TIMEOUT, None, Why::Expired);
            return;
        }
        if self.session.retry.is_some_and(|at| at <= now) {
            self.session.retry = None;
            self.offer_anew(tokens);
        }
        if self
            .timer
            .and_then(|timer| timer.renew_at())
            .is_some_and(|at| at <= now)
        {
            self.renew(tokens);
        }
    }

    pub(super) fn on_response(
        &mut self,
        now: Instant,
        of: RequestId,
        incoming: &IncomingResponse,
        tokens: &mut dyn Tokens,
    ) {
        if self.on_invite_response(now, of, incoming, tokens) {
            return;
        }
        let response = &incoming.response;
        if let Some((id, ack, hop)) = self.session.last_ack.clone()
            && id == of
            && response.code.is_success()
        {
            self.send(ack, hop, tokens);
            return;
        }
        let at = self
            .session
            .pending
            .iter()
            .position(|pending| pending.id == of);
        let Some(at) = at.filter(|_| response.code.is_final()) else {
            return;
        };
        let pending = self.session.pending.remove(at);
        if self.try_again(&pending, response, tokens) {
            return;
        }
        match pending.request.method {
            Method::Invite | Method::Update => self.on_renewed(now, &pending, incoming, tokens),
            Method::Refer if !response.code.is_success() => {
                self.tell(Told::Referred(response.code));
            }
            Method::Info if self.state == State::Up => self.send_key(tokens),
            _ => {}
        }
    }

    /// Sends a request again: with credentials, or with a number of its own when a later one overtook it, which the other side answers with
    /// 500 (RFC 3261 §12.2.2). `false` when that is not what is asked for.
    fn try_again(
        &mut self,
        pending: &Pending,
        response: &Response,
        tokens: &mut dyn Tokens,
    ) -> bool {
        let wanted = self.state == State::Up || pending.request.method == Method::Bye;
        let again = match response.code {
            StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                pending.tries < 2 && self.take_challenge(response)
            }
            StatusCode::SERVER_INTERNAL_ERROR => {
                let said = response.headers.get(&HeaderName::RetryAfter).is_some();
                wanted && !said && pending.tries < OVERTAKEN_MAX && self.was_overtaken(pending)
            }
            _ => false,
        };
        if !again {
            return false;
        }
        let method = pending.request.method.clone();
        let Some(next) = self.request(&method) else {
            return false;
        };
        let mut request = pending.request.clone();
        if let Some(cseq) = next.headers.get(&HeaderName::CSeq) {
            request.headers.set(HeaderName::CSeq, cseq);
        }
        let id = self.send(request.clone(), pending.hop.clone(), tokens);
        self.session.pending.push(Pending {
            id,
            request,
            hop: pending.hop.clone(),
            tries: pending.tries + 1,
        });
        true
    }

    fn was_overtaken(&self, pending: &Pending) -> bool {
        let number = pending.request.headers.get(&HeaderName::CSeq);
        let number = number.and_then(|value| CSeq::parse(value).ok());
        let last = self.dialog.as_ref().map(Dialog::last_number);
        number
            .zip(last)
            .is_some_and(|(cseq, last)| cseq.number < last)
    }

    /// Our re-INVITE or UPDATE was answered.
    fn on_renewed(
        &mut self,
        now: Instant,
        pending: &Pending,
        incoming: &IncomingResponse,
        tokens: &mut dyn Tokens,
    ) {
        let IncomingResponse { response, envelope } = incoming;
        let is_invite = pending.request.method == Method::Invite;
        if response.code.is_success() {
            self.session.retries = 0;
            if let Some(dialog) = &mut self.dialog {
                dialog.refresh(&response.headers);
            }
            self.timer = self.session_timer(now, &response.headers);
            if is_invite && let Some(dialog) = &self.dialog {
                let ack = dialog.ack(envelope.cseq.number, &self.settings.contact);
                let hop = dialog.next_hop().clone();
                self.session.last_ack = Some((pending.id, ack.clone(), hop.clone()));
                self.send(ack, hop, tokens);
            }
            if self.state != State::Up {
                return; // It was answered on the way out.
            }
            if let Body::Description(answer) = Body::read(&response.headers, &response.body)
                && self.take_answer(&answer).is_err()
            {
                self.hang_up(None, tokens);
                self.end(StatusCode::NOT_ACCEPTABLE_HERE, None, Why::Media);
                return;
            }
            self.media.offered = None;
            if self.session.offer_again {
                self.offer_anew(tokens);
            }
            return;
        }
        if self.state != State::Up {
            return;
        }
        self.media.offered = None;
        if let Some(timer) = &mut self.timer {
            timer.put_off(now);
        }
        let after = response.headers.number(&HeaderName::RetryAfter);
        match (response.code, after) {
            (StatusCode::REQUEST_PENDING, _) => {
                // Who made the Call-ID waits longer (RFC 3261 §14.1), in steps of 10 ms.
                let (least, steps) = if self.began { (2_100, 190) } else { (0, 200) };
                let wait = Duration::from_millis(least + tokens.next() % steps * 10);
                self.retry(now + wait);
            }
            (StatusCode::SESSION_INTERVAL_TOO_SMALL, _) => {
                let min = response.headers.number(&HeaderName::MinSe).unwrap_or(0);
                if min > self.session.min {
                    self.session.min = min;
                    self.retry(now);
                }
            }
            // They are busy with a request of their own (RFC 3261 §14.2), or of all.
            (StatusCode::SERVER_INTERNAL_ERROR | StatusCode::SERVICE_UNAVAILABLE, Some(after)) => {
                self.retry(now + Duration::from_secs(after.clamp(1, RETRY_AFTER_MAX).into()));
            }
            (StatusCode::REQUEST_TIMEOUT | StatusCode::NO_SUCH_CALL, _) => {
                self.hang_up(None, tokens);
                self.end(response.code, None, Why::Vanished);
            }
            // Whatever else they have against it: what was agreed on holds (RFC 3261 §14.1), and what is wished since may still be had.
            _ if self.session.offer_again => self.offer_anew(tokens),
            _ => {}
        }
    }

    /// Offers anew then, unless that was in vain too often.
    fn retry(&mut self, at: Instant) {
        if self.session.retries < RETRIES_MAX {
            self.session.retries += 1;
            self.session.retry = Some(at);
        }
    }

    pub(super) fn on_no_response(
        &mut self,
        of: RequestId,
        code: StatusCode,
        tokens: &mut dyn Tokens,
    ) {
        if self.on_no_invite_response(of, code) {
            return;
        }
        let Some(at) = self
            .session
            .pending
            .iter()
            .position(|pending| pending.id == of)
        else {
            return;
        };
        let pending = self.session.pending.remove(at);
        match pending.request.method {
            Method::Invite | Method::Update if self.state == State::Up => {
                self.hang_up(None, tokens);
                self.end(code, None, Why::Vanished);
            }
            Method::Refer if self.state == State::Up => self.tell(Told::Referred(code)),
            Method::Info if self.state == State::Up => self.send_key(tokens),
            _ => {}
        }
    }

    pub(super) fn on_ack(&mut self, incoming: &IncomingRequest, tokens: &mut dyn Tokens) {
        let number = incoming.envelope.cseq.number;
        let Some((id, _)) = self.session.ack.filter(|(_, waiting)| *waiting == number) else {
            return;
        };
        self.session.ack = None;
        self.actions.push(Action::Acknowledged(id));
        if let Some(cause) = self.session.bye.take() {
            self.hang_up(cause, tokens);
            return;
        }
        if self.media.offered.is_some() {
            // The offer was ours, in the 2xx.
            let request = &incoming.request;
            let answered = match Body::read(&request.headers, &request.body) {
                Body::Description(answer) => self.take_answer(&answer).is_ok(),
                Body::None | Body::Other => false,
            };
            if !answered {
                self.hang_up(None, tokens);
                self.end(StatusCode::NOT_ACCEPTABLE_HERE, None, Why::Media);
                return;
            }
        }
        if self.session.offer_again {
            self.offer_anew(tokens);
        }
    }

    pub(super) fn on_unacknowledged(&mut self, id: ServerId, tokens: &mut dyn Tokens) {
        if self.session.ack.is_some_and(|(waiting, _)| waiting == id) {
            self.session.ack = None;
            let cause = self.session.bye.take().flatten();
            self.hang_up(cause, tokens);
            self.end(StatusCode::REQUEST_TIMEOUT, None, Why::Vanished);
        }
    }

    pub(super) fn on_request(
        &mut self,
        now: Instant,
        id: ServerId,
        incoming: &IncomingRequest,
        tokens: &mut dyn Tokens,
    ) {
        let request = &incoming.request;
        let is = DialogId::of_request(&incoming.envelope);
        let dialog = match self.dialog.as_mut() {
            Some(dialog) => Some(dialog).filter(|dialog| Some(&dialog.id) == is.as_ref()),
            None => self.fork_of(&incoming.envelope),
        };
        let in_order = dialog.map(|dialog| dialog.accept(&incoming.envelope).is_ok());
        match (in_order, self.state) {
            // Both hang up at the same time.
            (Some(true), State::Over) if request.method == Method::Bye => {
                return self.reply(id, request, StatusCode::OK);
            }
            (None, _) | (_, State::Over) => {
                return self.reply(id, request, StatusCode::NO_SUCH_CALL);
            }
            (Some(false), _) => {
                return self.reply(id, request, StatusCode::SERVER_INTERNAL_ERROR);
            }
            (Some(true), _) => {}
        }
        let unknown = unsupported(request);
        if !unknown.is_empty() {
            let mut response = self.answer(request, StatusCode::BAD_EXTENSION);
            response
                .headers
                .push(HeaderName::Unsupported, unknown.join(", "));
            return self.respond(id, response);
        }
        match (&request.method, self.state) {
            (Method::Bye, State::Up | State::Ringing) => self.on_bye(id, request),
            (Method::Prack, State::Ringing) => self.on_prack(now, id, request),
            (Method::Invite, State::Up) | (Method::Update, _) => {
                self.on_offer(now, id, incoming, tokens);
            }
            (Method::Info, _) => self.on_info(id, request),
            (Method::Refer, State::Up) if !self.settings.quirks.no_refer => {
                self.on_refer(id, request, tokens);
            }
            (Method::Notify, State::Up) => self.on_notify(id, request),
            (Method::Options, _) => self.reply(id, request, StatusCode::OK),
            (Method::Bye | Method::Prack | Method::Notify, _)
            | (Method::Refer, State::Calling | State::Ringing) => {
                self.reply(id, request, StatusCode::NO_SUCH_CALL);
            }
            // One INVITE at a time (RFC 3261 §14.2).
            (Method::Invite, _) => self.refuse_for_now(id, request, tokens),
            _ => {
                let mut response = self.answer(request, StatusCode::METHOD_NOT_ALLOWED);
                let allow = self.settings.quirks.allow();
                response.headers.push(HeaderName::Allow, allow);
                self.respond(id, response);
            }
        }
    }

    /// Answers with nothing but a code.
    pub(super) fn reply(&mut self, id: ServerId, request: &Request, code: StatusCode) {
        let response = self.answer(request, code);
        self.respond(id, response);
    }

    fn refuse_for_now(&mut self, id: ServerId, request: &Request, tokens: &mut dyn Tokens) {
        let mut response = self.answer(request, StatusCode::SERVER_INTERNAL_ERROR);
        response
            .headers
            .push(HeaderName::RetryAfter, tokens.next() % 11);
        self.respond(id, response);
    }

    fn on_bye(&mut self, id: ServerId, request: &Request) {
        self.reply(id, request, StatusCode::OK);
        let cause = cause(&request.headers);
        if self.state == State::Ringing {
            self.refuse_invite(StatusCode::REQUEST_TERMINATED, cause, Why::Remote);
        } else {
            self.end(StatusCode::OK, cause, Why::Remote);
        }
    }

    /// A re-INVITE or an UPDATE: renews the session, and may offer other media (RFC 3261 §14.2, RFC 3311 §5.2).
    fn on_offer(
        &mut self,
        now: Instant,
        id: ServerId,
        incoming: &IncomingRequest,
        tokens: &mut dyn Tokens,
    ) {
        let IncomingRequest {
            request, envelope, ..
        } = incoming;
        let is_invite = request.method == Method::Invite;
        if self.session.ack.is_some() && is_invite {
            return self.refuse_for_now(id, request, tokens);
        }
        let body = Body::read(&request.headers, &request.body);
        let offers = is_invite || body != Body::None;
        let early = match self.state {
            // Ours is answered for good once its answer came reliably.
            State::Calling if offers => {
                if !self.may_fork_offer(envelope) {
                    return self.reply(id, request, StatusCode::REQUEST_PENDING);
                }
                true
            }
            // Theirs still waits for its answer (RFC 3311 §5.2).
            State::Ringing if offers => {
                if !self.may_be_offered_early() {
                    return self.refuse_for_now(id, request, tokens);
                }
                true
            }
            _ => false,
        };
        if !early
            && offers
            && (self.media.offered.is_some() || is_invite && self.session.is_inviting())
        {
            return self.reply(id, request, StatusCode::REQUEST_PENDING);
        }
        let session = (!self.settings.quirks.no_session_timers)
            .then(|| self.settings.session.answer(&request.headers))
            .transpose();
        let session = match session {
            Ok(session) => session,
            Err(declined) => return self.respond(id, *decline(request, declined, "")),
        };
        let description = match body {
            Body::Other => {
                let mut response = self.answer(request, StatusCode::UNSUPPORTED_MEDIA_TYPE);
                response.headers.push(HeaderName::Accept, "application/sdp");
                return self.respond(id, response);
            }
            // An offer that we can't take changes nothing.
            Body::Description(offer) => {
                // Ours stays open for other phones that ring.
                let open = self.media.offered.clone().filter(|_| early);
                let answer = self.answer_offer(&offer);
                self.media.offered = open.or(self.media.offered.take());
                match answer {
                    Ok(answer) => Some(answer),
                    Err(_) => return self.reply(id, request, StatusCode::NOT_ACCEPTABLE_HERE),
                }
            }
            Body::None => is_invite.then(|| self.offer()),
        };
        if early {
            self.note_early_offer();
            self.note_fork_offer(envelope);
        }
        match self.dialog.as_mut() {
            Some(dialog) => dialog.refresh(&request.headers),
            None => {
                if let Some(fork) = self.fork_of(envelope) {
                    fork.refresh(&request.headers);
                }
            }
        }
        let mut response = self.answer(request, StatusCode::OK);
        if let Some(description) = &description {
            describe(&mut response.headers, &mut response.body, description);
        }
        if self.state == State::Up {
            self.timer =
                session.map(|(expires, knows)| give_session(&mut response, now, expires, knows));
        }
        if is_invite {
            self.session.wait_for_ack(id, request);
        }
        self.respond(id, response);
    }

    fn on_info(&mut self, id: ServerId, request: &Request) {
        match read_key(request) {
            Key::Pressed(key) => {
                self.reply(id, request, StatusCode::OK);
                self.tell(Told::Key(key));
            }
            Key::None => self.reply(id, request, StatusCode::OK),
            Key::Unknown => self.reply(id, request, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        }
    }

    fn on_refer(&mut self, id: ServerId, request: &Request, tokens: &mut dyn Tokens) {
        let target = match request.headers.single(&HeaderName::ReferTo) {
            Ok(Some(value)) => NameAddr::parse(value, "Refer-To")
                .ok()
                .map(|target| target.uri),
            _ => None,
        };
        let replaces = target
            .as_ref()
            .and_then(Uri::sip)
            .and_then(|uri| uri.header("Replaces"));
        let replaces = replaces.map(|value| DialogId::parse_replaces(&value));
        let code = match (&target, &replaces) {
            (None, _) | (_, Some(None)) => StatusCode::BAD_REQUEST,
            (Some(Uri::Other(_)), _) => StatusCode::UNSUPPORTED_URI_SCHEME,
            _ if self.session.referred => StatusCode::REQUEST_PENDING,
            _ => StatusCode::ACCEPTED,
        };
        self.reply(id, request, code);
        if code == StatusCode::ACCEPTED
            && let Some(target) = target
        {
            self.session.referred = true;
            self.notify(StatusCode::TRYING, tokens);
            self.tell(Told::Refer {
                target: Box::new(target),
                replaces: replaces.flatten(),
            });
        }
    }

    fn on_notify(&mut self, id: ServerId, request: &Request) {
        let event = request.headers.get(&HeaderName::Event).unwrap_or_default();
        let event = event.split(';').next().unwrap_or_default().trim();
        if !event.eq_ignore_ascii_case("refer") {
            return self.reply(id, request, StatusCode::BAD_EVENT);
        }
        self.reply(id, request, StatusCode::OK);
        // "SIP/2.0 200 OK": a fragment of the response that the other side got (RFC 3515 §2.4.5).
        let body = request
            .body
            .get(..request.body.len().min(BODY_LEN_MAX))
            .and_then(|body| str::from_utf8(body).ok());
        let code = body
            .and_then(|body| body.strip_prefix("SIP/2.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok());
        if let Some(code) = code.and_then(StatusCode::new) {
            self.tell(Told::Referred(code));
        }
    }
}

enum Key {
    Pressed(char),
    /// Nothing that is a key, or nothing at all.
    None,
    /// In a form that we don't know.
    Unknown,
}

/// A key as INFO has it: `Signal=5` in `application/dtmf-relay`, or just the key in `application/dtmf`.
fn read_key(request: &Request) -> Key {
    if request.body.is_empty() {
        return Key::None;
    }
    let kind = request
        .headers
        .get(&HeaderName::ContentType)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let body = request
        .body
        .get(..request.body.len().min(BODY_LEN_MAX))
        .unwrap_or_default();
    let body = str::from_utf8(body).unwrap_or_default();
    let signal = match kind.split(';').next().unwrap_or_default().trim() {
        "application/dtmf-relay" => body.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("signal")
                .then(|| value.trim())
        }),
        "application/dtmf" => Some(body.trim()),
        _ => return Key::Unknown,
    };
    let mut chars = signal.unwrap_or_default().chars();
    match (chars.next(), chars.next()) {
        (Some(key @ ('0'..='9' | '*' | '#' | 'A'..='D' | 'a'..='d')), None) => {
            Key::Pressed(key.to_ascii_uppercase())
        }
        _ => Key::None,
    }
}
