//! A Leg that we begin: INVITE, its answers and its forks.

use std::time::Instant;

use gateway_sip::digest;
use gateway_sip::negotiate::{self, Agreed};
use gateway_sip::sanity::IncomingResponse;
use gateway_sip::{
    Envelope, HeaderName, Headers, Method, NameAddr, RAck, Request, Response, StatusCode, Uri,
};

use super::{
    Action, Body, Leg, LegName, Order, Reliable, RequestId, Settings, State, Told, Why, cause,
    describe,
};
use crate::Tokens;
use crate::dialog::{Dialog, DialogId};

/// The most phones that one INVITE may ring and be heard of.
pub const FORKS_MAX: usize = 12;
/// How often an INVITE is sent anew for a challenge or a longer session.
const TRIES_MAX: u8 = 4;

/// Whom a Leg calls, and as whom.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// From, without a tag.
    pub from: NameAddr,
    /// To, without a tag.
    pub to: NameAddr,
    /// The Request-URI.
    pub target: Uri,
    /// By which proxies.
    pub routes: Vec<NameAddr>,
    /// Identity, privacy, diversion and the like.
    pub headers: Headers,
    /// One less than that of the request which this one comes of, so that a loop has an end.
    pub max_forwards: u8,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    invite: Option<Invite>,
    forks: Vec<Fork>,
    /// The call wants an end: the CANCEL is under way.
    ending: bool,
    /// The ACKs of 2xx, for those that come again: that of the dialog, and those of phones that were too late.
    acks: Vec<(DialogId, Request, Uri)>,
}

#[derive(Debug)]
struct Invite {
    id: RequestId,
    request: Request,
    hop: Uri,
    number: u32,
    tries: u8,
}

#[derive(Debug)]
struct Fork {
    dialog: Dialog,
    /// The last RSeq that was acknowledged.
    rseq: Option<u32>,
    /// What was agreed on with this phone.
    agreed: Option<Agreed>,
    /// Its answer came in a response that has its PRACK: offers after it are new ones (RFC 3311 §5.1).
    settled: bool,
    /// It has made an offer of its own since, so that its 2xx has nothing to say of media.
    renewed: bool,
}

impl Leg {
    /// Begins a Leg with an INVITE.
    #[must_use]
    pub fn call(
        settings: Settings,
        outgoing: &Outgoing,
        tokens: &mut dyn Tokens,
    ) -> (Self, Vec<Action>) {
        let name = LegName {
            call_id: tokens.word(),
            local_tag: tokens.word(),
        };
        let mut leg = Self::new(settings, State::Calling, name);
        let mut request = Request::new(Method::Invite, &outgoing.target);
        let headers = &mut request.headers;
        headers.push(HeaderName::MaxForwards, outgoing.max_forwards);
        for route in &outgoing.routes {
            headers.push(HeaderName::Route, route);
        }
        headers.push(
            HeaderName::From,
            outgoing.from.clone().with_tag(&leg.name.local_tag),
        );
        headers.push(HeaderName::To, &outgoing.to);
        headers.push(HeaderName::CallId, &leg.name.call_id);
        headers.push(HeaderName::CSeq, "1 INVITE");
        headers.push(HeaderName::Contact, &leg.settings.contact);
        headers.push(HeaderName::Allow, leg.settings.quirks.allow());
        headers.push(HeaderName::Supported, leg.settings.quirks.supported());
        if leg.settings.reliable == Reliable::Require {
            headers.push(HeaderName::Require, "100rel");
        }
        if !leg.settings.quirks.no_session_timers {
            leg.settings.session.ask(headers, 0, None);
        }
        for (name, value) in outgoing.headers.iter() {
            headers.push(name.clone(), value);
        }
        let offer = leg.offer();
        describe(&mut request.headers, &mut request.body, &offer);
        let hop = outgoing
            .routes
            .first()
            .map_or(&outgoing.target, |route| &route.uri)
            .clone();
        let id = leg.send(request.clone(), hop.clone(), tokens);
        leg.outgoing.invite = Some(Invite {
            id,
            request,
            hop,
            number: 1,
            tries: 1,
        });
        let actions = std::mem::take(&mut leg.actions);
        (leg, actions)
    }

    pub(super) fn order_outgoing(&mut self, order: &Order) {
        if let Order::End { .. } = order
            && !std::mem::replace(&mut self.outgoing.ending, true)
            && let Some(invite) = &self.outgoing.invite
        {
            self.actions.push(Action::Cancel(invite.id));
        }
    }

    /// A response to the INVITE, in any state; `false` when it is to another request.
    pub(super) fn on_invite_response(
        &mut self,
        now: Instant,
        of: RequestId,
        incoming: &IncomingResponse,
        tokens: &mut dyn Tokens,
    ) -> bool {
        if self
            .outgoing
            .invite
            .as_ref()
            .is_none_or(|invite| invite.id != of)
        {
            return false;
        }
        let IncomingResponse { response, envelope } = incoming;
        match response.code {
            code if code.is_success() => self.on_invite_success(now, envelope, response, tokens),
            // What comes late says nothing new.
            _ if self.state != State::Calling => {}
            code if code.is_provisional() => self.on_invite_progress(envelope, response, tokens),
            _ => self.on_invite_failure(response, tokens),
        }
        true
    }

    fn on_invite_progress(
        &mut self,
        envelope: &Envelope,
        response: &Response,
        tokens: &mut dyn Tokens,
    ) {
        if response.code == StatusCode::TRYING || self.outgoing.ending {
            return;
        }
        let id = DialogId::of_response(envelope).filter(|id| !id.remote_tag.is_empty());
        let known = self
            .outgoing
            .forks
            .iter()
            .position(|fork| Some(&fork.dialog.id) == id.as_ref());
        let fork = known.or_else(|| {
            let room = self.outgoing.forks.len() < FORKS_MAX && id.is_some();
            let dialog = Dialog::ours(envelope, response).ok().filter(|_| room)?;
            self.outgoing.forks.push(Fork {
                dialog,
                rseq: None,
                agreed: None,
                settled: false,
                renewed: false,
            });
            Some(self.outgoing.forks.len() - 1)
        });
        let reliable = response.headers.has_token(&HeaderName::Require, "100rel");
        if reliable {
            let Some(fork) = fork else { return };
            if !self.acknowledge_progress(fork, envelope, response, tokens) {
                return;
            }
        }
        if let (Body::Description(answer), Some(offer)) = (
            Body::read(&response.headers, &response.body),
            self.media.offered.clone(),
        ) && let Ok(agreed) = negotiate::accept(&offer, &answer, &self.settings.capabilities)
        {
            // The offer stays open: the 200 may come from another phone, or say something else.
            if let Some(fork) = fork.and_then(|at| self.outgoing.forks.get_mut(at)) {
                fork.agreed = Some(agreed.clone());
                fork.settled |= reliable;
            }
            self.agree(agreed);
        }
        self.tell(Told::Progress(response.code));
    }

    /// Sends the PRACK; `false` for a response that came before, or before its turn (RFC 3262 §4).
    fn acknowledge_progress(
        &mut self,
        fork: usize,
        envelope: &Envelope,
        response: &Response,
        tokens: &mut dyn Tokens,
    ) -> bool {
        let fork = &mut self.outgoing.forks[fork];
        let Some(rseq) = response.headers.number(&HeaderName::RSeq) else {
            return false;
        };
        if fork
            .rseq
            .is_some_and(|last| last.checked_add(1) != Some(rseq))
        {
            return false;
        }
        fork.rseq = Some(rseq);
        let mut prack = fork.dialog.request(&Method::Prack, &self.settings.contact);
        let hop = fork.dialog.next_hop().clone();
        prack.headers.push(
            HeaderName::RAck,
            RAck {
                response: rseq,
                cseq: envelope.cseq.clone(),
            },
        );
        self.send(prack, hop, tokens);
        true
    }

    fn on_invite_success(
        &mut self,
        now: Instant,
        envelope: &Envelope,
        response: &Response,
        tokens: &mut dyn Tokens,
    ) {
        let id = DialogId::of_response(envelope);
        let acknowledged = self
            .outgoing
            .acks
            .iter()
            .find(|(known, ..)| Some(known) == id.as_ref());
        if let Some((_, ack, hop)) = acknowledged.cloned() {
            self.send(ack, hop, tokens);
            return;
        }
        let fork = self
            .outgoing
            .forks
            .iter()
            .position(|fork| Some(&fork.dialog.id) == id.as_ref());
        let fork = fork.map(|at| self.outgoing.forks.swap_remove(at));
        let (fork, early, renewed) = match fork {
            Some(fork) => (Some(fork.dialog), fork.agreed, fork.renewed),
            None => (None, None, false),
        };
        // The routes are those of the 2xx (RFC 3261 §13.2.2.4); the numbers are those of the early dialog.
        let fresh = Dialog::ours(envelope, response).ok();
        let dialog = match (fresh, fork) {
            (Some(fresh), Some(fork)) => Some(fresh.numbered_as(&fork)),
            (fresh, fork) => fresh.or(fork),
        };
        let Some(mut dialog) = dialog else {
            self.end(StatusCode::BAD_GATEWAY, None, Why::Protocol);
            return;
        };
        let ack = dialog.ack(envelope.cseq.number, &self.settings.contact);
        let hop = dialog.next_hop().clone();
        self.send(ack.clone(), hop.clone(), tokens);
        if self.outgoing.acks.len() <= FORKS_MAX {
            self.outgoing
                .acks
                .push((dialog.id.clone(), ack, hop.clone()));
        }
        if self.state != State::Calling || self.outgoing.ending {
            // Somebody was quicker, or the call is not wanted any more.
            let bye = dialog.request(&Method::Bye, &self.settings.contact);
            self.send(bye, hop, tokens);
            if self.state == State::Calling {
                self.end(StatusCode::REQUEST_TERMINATED, None, Why::Local);
            }
            return;
        }
        self.outgoing.forks.clear();
        self.dialog = Some(dialog);
        self.state = State::Up;
        self.timer = self.session_timer(now, &response.headers);
        self.session.note_peer(&response.headers);
        let answered = match Body::read(&response.headers, &response.body) {
            Body::Description(answer) if !renewed => self.take_answer(&answer).is_ok(),
            // The answer was in a provisional response of the same phone.
            Body::None | Body::Description(_) => {
                self.media.offered = None;
                early.is_some_and(|agreed| {
                    self.agree(agreed);
                    true
                })
            }
            Body::Other => false,
        };
        if answered {
            self.tell(Told::Answered);
        } else {
            self.hang_up(None, tokens);
            self.end(StatusCode::NOT_ACCEPTABLE_HERE, None, Why::Media);
        }
    }

    fn on_invite_failure(&mut self, response: &Response, tokens: &mut dyn Tokens) {
        let code = response.code;
        if !self.outgoing.ending && self.try_invite_again(response, tokens) {
            return;
        }
        if code.get() < 400 && !self.outgoing.ending {
            let contacts = response
                .headers
                .addresses(&HeaderName::Contact)
                .unwrap_or_default();
            self.tell(Told::Redirected(
                contacts.into_iter().map(|contact| contact.uri).collect(),
            ));
            self.state = State::Over;
            return;
        }
        let why = if self.outgoing.ending {
            Why::Local
        } else {
            Why::Remote
        };
        self.end(code, cause(&response.headers), why);
    }

    /// Sends the INVITE anew with what the response asks for; `false` when it asks for nothing that we have.
    fn try_invite_again(&mut self, response: &Response, tokens: &mut dyn Tokens) -> bool {
        let Some(mut invite) = self.outgoing.invite.take() else {
            return false;
        };
        let again = invite.tries < TRIES_MAX
            && match response.code {
                StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    self.take_challenge(response)
                }
                StatusCode::SESSION_INTERVAL_TOO_SMALL => {
                    let min = response.headers.number(&HeaderName::MinSe);
                    if let Some(min) = min {
                        self.settings
                            .session
                            .ask(&mut invite.request.headers, min, None);
                    }
                    min.is_some()
                }
                _ => false,
            };
        if again {
            invite.tries += 1;
            invite.number += 1;
            invite
                .request
                .headers
                .set(HeaderName::CSeq, format_args!("{} INVITE", invite.number));
            // Each try is an attempt of its own, with early dialogs of its own.
            self.outgoing.forks.clear();
            invite.id = self.send(invite.request.clone(), invite.hop.clone(), tokens);
        }
        self.outgoing.invite = Some(invite);
        again
    }

    /// Answers a challenge from now on; `false` when that can't be done, or was done with the same nonce in vain.
    pub(super) fn take_challenge(&mut self, response: &Response) -> bool {
        let Some((credential, challenge)) = self
            .settings
            .credential
            .as_ref()
            .zip(digest::choose(response).ok())
        else {
            return false;
        };
        let before = self.answering.as_ref().map(digest::Answering::challenge);
        let refused = before.is_some_and(|before| {
            before.realm == challenge.realm && before.proxy == challenge.proxy
        });
        if refused && !challenge.stale {
            return false;
        }
        self.answering = Some(digest::Answering::new(
            challenge,
            &credential.username,
            &credential.password,
        ));
        true
    }

    /// Whether this is an early dialog of ours.
    pub(super) fn has_fork(&self, id: &DialogId) -> bool {
        self.outgoing.forks.iter().any(|fork| fork.dialog.id == *id)
    }

    /// The early dialog that a request of theirs is in.
    pub(super) fn fork_of(&mut self, envelope: &Envelope) -> Option<&mut Dialog> {
        let id = DialogId::of_request(envelope)?;
        let mut forks = self.outgoing.forks.iter_mut();
        forks
            .find(|fork| fork.dialog.id == id)
            .map(|fork| &mut fork.dialog)
    }

    /// Whether the phone of this request has answered our offer for good, so that it may make one of its own (RFC 3311 §5.1).
    pub(super) fn may_fork_offer(&self, envelope: &Envelope) -> bool {
        let id = DialogId::of_request(envelope);
        let mut forks = self.outgoing.forks.iter();
        forks.any(|fork| Some(&fork.dialog.id) == id.as_ref() && fork.settled)
    }

    /// An offer of a phone that rings was answered.
    pub(super) fn note_fork_offer(&mut self, envelope: &Envelope) {
        let (id, agreed) = (DialogId::of_request(envelope), self.media.agreed.clone());
        let mut forks = self.outgoing.forks.iter_mut();
        if let Some(fork) = forks.find(|fork| Some(&fork.dialog.id) == id.as_ref()) {
            fork.agreed = agreed;
            fork.renewed = true;
        }
    }

    /// Nobody answers the INVITE; `false` when it was another request.
    pub(super) fn on_no_invite_response(&mut self, of: RequestId, code: StatusCode) -> bool {
        let is_invite = self
            .outgoing
            .invite
            .as_ref()
            .is_some_and(|invite| invite.id == of);
        if is_invite && self.state == State::Calling {
            self.end(code, None, Why::Vanished);
        }
        is_invite
    }
}
