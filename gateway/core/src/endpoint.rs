//! Whose a request is, and what is answered to one that is nobody's (RFC 3261 §8.2, §11, §12.2.2, RFC 3891 §3, RFC 5057).
//!
//! ```text
//! sanity::check ─▶ Endpoint::admit ─▶ Transactions ─▶ Endpoint::place ─▶ a Leg, the registrar, a new call
//!                        │ strangers: silence, or a challenge                 └─▶ an answer of our own
//! ```
//!
//! [`Endpoint::admit`] stands before anything is kept for a request; [`Endpoint::place`] after the transactions, so that it sees each
//! request once. Both count what they refuse by [`Refusal`].

use std::collections::BTreeMap;

use gateway_sip::sanity::IncomingRequest;
use gateway_sip::{Content, HeaderName, Method, Request, Response, StatusCode};

use crate::dialog::DialogId;
use crate::leg::{ALLOW, LegName, SUPPORTED, unsupported};

/// The most Legs of one endpoint.
pub const LEGS_MAX: usize = 50_000;
/// What a client is asked to wait for while the server goes away, in seconds.
const RETRY_AFTER: u32 = 30;

/// How an endpoint behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What we are, for Server.
    pub agent: String,
    /// Phones may register here.
    pub registrar: bool,
    /// What becomes of INVITE from strangers.
    pub strangers: Strangers,
}

/// What becomes of an INVITE of somebody we don't know. All other requests of theirs get no answer, but for REGISTER where there is a
/// registrar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strangers {
    /// Nothing: scanners learn nothing, not even that somebody is here.
    #[default]
    Silence,
    /// A challenge: phones whose address changes, and providers that log in.
    Challenge,
}

/// Who a request comes from, as far as its way tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An address of a Trunk.
    Known,
    /// The flow of a registered phone: what begins a call still has to be proven, since datagrams may lie about where they are from.
    Phone,
    /// Anybody else.
    Stranger,
}

/// What to do with a request that just came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Give it to the transactions.
    Take,
    /// Ask for credentials, or look at those it has, before anything is kept: REGISTER, and INVITE where strangers are challenged.
    Authenticate,
    /// Drop it.
    Silence,
}

/// Whose a request is. `K` is the driver's name for a Leg.
#[derive(Debug, Clone, PartialEq)]
pub enum Place<K> {
    /// A Leg's: [`crate::leg::Event::Request`].
    Leg(K),
    /// A new call, for [`crate::leg::Leg::receive`].
    Call(Option<Replaces<K>>),
    /// The registrar's.
    Registrar,
    /// Nobody's; this is the answer.
    Answer(Box<Response>),
}

/// What a new call takes the place of (RFC 3891). [`crate::leg::Leg::may_be_replaced`] says whether it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaces<K> {
    /// The Leg.
    pub leg: K,
    /// Which dialog of it.
    pub dialog: DialogId,
    /// Only if it is not up yet.
    pub early_only: bool,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Nobody we know, dropped.
    Stranger,
    /// 501: no method we ever heard of.
    MethodUnknown,
    /// 405: a method that we don't take there.
    MethodNotAllowed,
    /// 481: within a dialog that is not there.
    NoSuchCall,
    /// 420: an extension that we don't have.
    Extension,
    /// 415: a body that we can't read.
    Body,
    /// 489: an event that we know nothing of.
    Event,
    /// 403: a REFER out of any call, which anybody could make us call others by.
    Refer,
    /// 400: a Replaces that is malformed, or comes twice.
    Replaces,
    /// 503: we go away.
    Draining,
    /// 503: there are [`LEGS_MAX`] already.
    Full,
}

impl Refusal {
    /// All of them, for counters.
    pub const ALL: [Self; 11] = [
        Self::Stranger,
        Self::MethodUnknown,
        Self::MethodNotAllowed,
        Self::NoSuchCall,
        Self::Extension,
        Self::Body,
        Self::Event,
        Self::Refer,
        Self::Replaces,
        Self::Draining,
        Self::Full,
    ];

    /// A word for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::MethodUnknown => "method_unknown",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NoSuchCall => "no_such_call",
            Self::Extension => "extension",
            Self::Body => "body",
            Self::Event => "event",
            Self::Refer => "refer",
            Self::Replaces => "replaces",
            Self::Draining => "draining",
            Self::Full => "full",
        }
    }

    /// What it is answered with; nothing to a stranger.
    #[must_use]
    pub fn code(self) -> Option<StatusCode> {
        Some(match self {
            Self::Stranger => return None,
            Self::MethodUnknown => StatusCode::NOT_IMPLEMENTED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoSuchCall => StatusCode::NO_SUCH_CALL,
            Self::Extension => StatusCode::BAD_EXTENSION,
            Self::Body => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Event => StatusCode::BAD_EVENT,
            Self::Refer => StatusCode::FORBIDDEN,
            Self::Replaces => StatusCode::BAD_REQUEST,
            Self::Draining | Self::Full => StatusCode::SERVICE_UNAVAILABLE,
        })
    }
}

/// All Legs of one SIP task by their names, and what is no Leg's.
#[derive(Debug)]
pub struct Endpoint<K> {
    settings: Settings,
    legs: BTreeMap<LegName, K>,
    legs_max: usize,
    draining: bool,
    refused: [u64; Refusal::ALL.len()],
}

impl<K: Clone> Endpoint<K> {
    /// An endpoint without Legs.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::with_limit(settings, LEGS_MAX)
    }

    /// With another limit than [`LEGS_MAX`].
    #[must_use]
    pub fn with_limit(settings: Settings, legs_max: usize) -> Self {
        Self {
            settings,
            legs: BTreeMap::new(),
            legs_max,
            draining: false,
            refused: [0; Refusal::ALL.len()],
        }
    }

    /// A Leg began.
    pub fn insert(&mut self, name: LegName, leg: K) {
        self.legs.insert(name, leg);
    }

    /// A Leg is over for as long as its answers may come again ([`crate::transaction::TIMEOUT`]).
    pub fn remove(&mut self, name: &LegName) {
        self.legs.remove(name);
    }

    /// How many Legs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.legs.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.legs.is_empty()
    }

    /// From now on new calls are refused, so that other nodes get them; those there are go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// How many requests were refused for this.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        Refusal::ALL
            .iter()
            .zip(self.refused)
            .find(|(known, _)| **known == refusal)
            .map_or(0, |(_, count)| count)
    }

    /// The Leg of a dialog: that of a transfer's Replaces, too.
    #[must_use]
    pub fn find(&self, dialog: &DialogId) -> Option<&K> {
        self.legs.get(&LegName {
            call_id: dialog.call_id.clone(),
            local_tag: dialog.local_tag.clone(),
        })
    }

    /// The Leg of a request within a dialog, an ACK's too: an ACK that is no Leg's is dropped.
    #[must_use]
    pub fn leg_of(&self, incoming: &IncomingRequest) -> Option<&K> {
        self.find(&DialogId::of_request(&incoming.envelope)?)
    }

    /// Decides about a request before anything is kept for it. Who names one of our Legs knows its tag, which we told nobody else: providers
    /// send requests of a call from other addresses than its INVITE.
    pub fn admit(&mut self, source: Source, incoming: &IncomingRequest) -> Admission {
        match (&incoming.request.method, source) {
            // Registrations always have to be proven.
            (Method::Register, _) if self.settings.registrar && !is_inside(incoming) => {
                Admission::Authenticate
            }
            (Method::Invite | Method::Refer, Source::Phone) if !is_inside(incoming) => {
                Admission::Authenticate
            }
            (_, Source::Known | Source::Phone) => Admission::Take,
            _ if self.leg_of(incoming).is_some() => Admission::Take,
            // They have no tag of ours, or need none: their branch is that of a request that was taken.
            (Method::Ack | Method::Cancel, _)
                if self.settings.strangers == Strangers::Challenge =>
            {
                Admission::Take
            }
            (Method::Invite, _)
                if self.settings.strangers == Strangers::Challenge && !is_inside(incoming) =>
            {
                Admission::Authenticate
            }
            _ => {
                self.count(Refusal::Stranger);
                Admission::Silence
            }
        }
    }

    /// Says whose a request is that the transactions handed out. `tag` is for the To of an answer of our own; it needs no secret.
    /// What belongs to no dialog is looked at in the order of RFC 3261 §8.2: method, Request-URI (done), Require, body.
    pub fn place(&mut self, incoming: &IncomingRequest, tag: &str) -> Place<K> {
        let request = &incoming.request;
        if is_inside(incoming) {
            return match self.leg_of(incoming).cloned() {
                Some(leg) => Place::Leg(leg),
                None => self.refuse(Refusal::NoSuchCall, request, tag),
            };
        }
        let refusal = match &request.method {
            Method::Register if self.settings.registrar => None,
            Method::Invite | Method::Options | Method::Notify => None,
            Method::Bye
            | Method::Prack
            | Method::Update
            | Method::Info
            | Method::Ack
            | Method::Cancel => Some(Refusal::NoSuchCall),
            Method::Refer => Some(Refusal::Refer),
            Method::Other(_) => Some(Refusal::MethodUnknown),
            Method::Register | Method::Subscribe | Method::Message | Method::Publish => {
                Some(Refusal::MethodNotAllowed)
            }
        };
        if let Some(refusal) = refusal {
            return self.refuse(refusal, request, tag);
        }
        if !unsupported(request).is_empty() {
            return self.refuse(Refusal::Extension, request, tag);
        }
        match request.method {
            Method::Register => Place::Registrar,
            Method::Invite => self.place_call(incoming, tag),
            Method::Notify => self.answer_notify(request, tag),
            _ => self.answer_options(request, tag),
        }
    }

    fn place_call(&mut self, incoming: &IncomingRequest, tag: &str) -> Place<K> {
        let request = &incoming.request;
        if self.draining {
            return self.refuse(Refusal::Draining, request, tag);
        }
        if self.legs.len() >= self.legs_max {
            return self.refuse(Refusal::Full, request, tag);
        }
        let value = match request.headers.single(&HeaderName::Replaces) {
            Ok(None) => return Place::Call(None),
            Ok(Some(value)) => value,
            Err(_) => return self.refuse(Refusal::Replaces, request, tag),
        };
        let Some(dialog) = DialogId::parse_replaces(value) else {
            return self.refuse(Refusal::Replaces, request, tag);
        };
        let early_only = value
            .split(';')
            .skip(1)
            .any(|param| param.trim().eq_ignore_ascii_case("early-only"));
        match self.find(&dialog).cloned() {
            Some(leg) => Place::Call(Some(Replaces {
                leg,
                dialog,
                early_only,
            })),
            None => self.refuse(Refusal::NoSuchCall, request, tag),
        }
    }

    /// Whether we are here, and what we can: what an INVITE would be answered with, without its description (RFC 3261 §11.2).
    fn answer_options(&mut self, request: &Request, tag: &str) -> Place<K> {
        if self.draining {
            return self.refuse(Refusal::Draining, request, tag);
        }
        let mut response = self.answer(request, StatusCode::OK, tag);
        for (name, value) in [
            (HeaderName::Allow, ALLOW),
            (HeaderName::Accept, "application/sdp"),
            (HeaderName::Other("accept-encoding".into()), "identity"),
            (HeaderName::Supported, SUPPORTED),
        ] {
            response.headers.push(name, value);
        }
        Place::Answer(Box::new(response))
    }

    /// Phones send these to keep a way open; whoever notifies us of anything else was not asked to.
    fn answer_notify(&mut self, request: &Request, tag: &str) -> Place<K> {
        let event = request.headers.get(&HeaderName::Event).unwrap_or_default();
        let event = event.split(';').next().unwrap_or_default().trim();
        if !event.eq_ignore_ascii_case("keep-alive") {
            return self.refuse(Refusal::Event, request, tag);
        }
        if Content::of(&request.headers, &request.body) != Content::None {
            return self.refuse(Refusal::Body, request, tag);
        }
        Place::Answer(Box::new(self.answer(request, StatusCode::OK, tag)))
    }

    fn refuse(&mut self, refusal: Refusal, request: &Request, tag: &str) -> Place<K> {
        self.count(refusal);
        let code = refusal.code().unwrap_or(StatusCode::FORBIDDEN);
        let mut response = self.answer(request, code, tag);
        let headers = &mut response.headers;
        match refusal {
            Refusal::MethodUnknown | Refusal::MethodNotAllowed => {
                headers.push(HeaderName::Allow, self.allow());
            }
            Refusal::Extension => {
                headers.push(HeaderName::Unsupported, unsupported(request).join(", "));
            }
            Refusal::Body => headers.push(HeaderName::Accept, "application/sdp"),
            Refusal::Event => headers.push(HeaderName::AllowEvents, "refer"),
            Refusal::Draining | Refusal::Full => headers.push(HeaderName::RetryAfter, RETRY_AFTER),
            _ => {}
        }
        Place::Answer(Box::new(response))
    }

    fn answer(&self, request: &Request, code: StatusCode, tag: &str) -> Response {
        let mut response = Response::to(request, code, tag);
        response
            .headers
            .push(HeaderName::Server, &self.settings.agent);
        response
    }

    fn allow(&self) -> String {
        let register = if self.settings.registrar {
            ", REGISTER"
        } else {
            ""
        };
        format!("{ALLOW}{register}")
    }

    fn count(&mut self, refusal: Refusal) {
        if let Some(at) = Refusal::ALL.iter().position(|known| *known == refusal) {
            self.refused[at] += 1;
        }
    }
}

/// Whether it belongs to a dialog, ours or none.
fn is_inside(incoming: &IncomingRequest) -> bool {
    incoming.envelope.to.tag().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_sip::sanity::{Framing, Incoming, check};

    fn endpoint(strangers: Strangers) -> Endpoint<u32> {
        let mut endpoint = Endpoint::new(Settings {
            agent: "offhook".into(),
            registrar: true,
            strangers,
        });
        let name = LegName {
            call_id: "call".into(),
            local_tag: "ours".into(),
        };
        endpoint.insert(name, 7);
        endpoint
    }

    /// A request with these headers beside those every request has; without a To among them it is out of any dialog.
    fn request(method: &str, extra: &str) -> IncomingRequest {
        let to = if extra.starts_with("To:") {
            ""
        } else {
            "To: <sip:b@h>\n"
        };
        let text = format!(
            "{method} sip:b@h SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:a@h>;tag=theirs\nCall-ID: call\n\
             CSeq: 1 {method}\nContact: <sip:a@h>\n{to}{extra}\n"
        );
        let text = text.replace('\n', "\r\n");
        match check(text.as_bytes(), Framing::Datagram, "t") {
            Ok(Incoming::Request(incoming)) => *incoming,
            other => panic!("{other:?}"),
        }
    }

    const INSIDE: &str = "To: <sip:b@h>;tag=ours\n";
    const ELSEWHERE: &str = "To: <sip:b@h>;tag=guessed\n";

    /// `leg 7`, `call`, `registrar`, or the code and the header that belongs to it.
    fn place(endpoint: &mut Endpoint<u32>, method: &str, extra: &str) -> String {
        match endpoint.place(&request(method, extra), "t") {
            Place::Leg(leg) => format!("leg {leg}"),
            Place::Call(None) => "call".into(),
            Place::Call(Some(replaces)) => {
                format!("call for {} {}", replaces.leg, replaces.early_only)
            }
            Place::Registrar => "registrar".into(),
            Place::Answer(response) => {
                assert_eq!(
                    response.headers.get(&HeaderName::Server),
                    Some("offhook"),
                    "{method}"
                );
                let header = match response.code.get() {
                    200 | 405 | 501 => HeaderName::Allow,
                    415 => HeaderName::Accept,
                    420 => HeaderName::Unsupported,
                    489 => HeaderName::AllowEvents,
                    503 => HeaderName::RetryAfter,
                    _ => HeaderName::Warning,
                };
                let value = response.headers.get(&header).unwrap_or_default();
                format!("{} {value}", response.code).trim().to_owned()
            }
        }
    }

    #[test]
    fn every_request_has_its_place() {
        let mut t = endpoint(Strangers::Silence);
        let all = format!("{ALLOW}, REGISTER");
        let replaces = |value: &str| format!("Replaces: {value}\n");
        let this = "call;to-tag=ours;from-tag=theirs";
        for (method, extra, expected) in [
            ("INVITE", String::new(), "call".to_owned()),
            ("INVITE", INSIDE.into(), "leg 7".into()),
            ("BYE", INSIDE.into(), "leg 7".into()),
            ("REGISTER", INSIDE.into(), "leg 7".into()),
            ("BYE", ELSEWHERE.into(), "481".into()),
            ("INVITE", ELSEWHERE.into(), "481".into()),
            ("OPTIONS", ELSEWHERE.into(), "481".into()),
            ("REGISTER", String::new(), "registrar".into()),
            ("OPTIONS", String::new(), format!("200 {ALLOW}")),
            ("BYE", String::new(), "481".into()),
            ("PRACK", String::new(), "481".into()),
            ("UPDATE", String::new(), "481".into()),
            ("INFO", String::new(), "481".into()),
            ("REFER", "Refer-To: <sip:c@h>\n".into(), "403".into()),
            ("SUBSCRIBE", "Event: dialog\n".into(), format!("405 {all}")),
            ("MESSAGE", String::new(), format!("405 {all}")),
            ("PUBLISH", String::new(), format!("405 {all}")),
            ("FLY", String::new(), format!("501 {all}")),
            ("NOTIFY", "Event: keep-alive\n".into(), "200".into()),
            (
                "NOTIFY",
                "Event: message-summary\n".into(),
                "489 refer".into(),
            ),
            (
                "NOTIFY",
                "Event: keep-alive\nContent-Length: 1\n\nx".into(),
                "415 application/sdp".into(),
            ),
            (
                "INVITE",
                "Require: 100rel, teleport\nRequire: fly\n".into(),
                "420 teleport, fly".into(),
            ),
            (
                "OPTIONS",
                "Require: teleport\n".into(),
                "420 teleport".into(),
            ),
            ("INVITE", replaces(this), "call for 7 false".into()),
            (
                "INVITE",
                replaces(&format!("{this};early-only")),
                "call for 7 true".into(),
            ),
            (
                "INVITE",
                replaces("call;to-tag=other;from-tag=theirs"),
                "481".into(),
            ),
            ("INVITE", replaces("call"), "400".into()),
            ("INVITE", replaces(this).repeat(2), "400".into()),
        ] {
            assert_eq!(place(&mut t, method, &extra), expected, "{method} {extra}");
        }
        assert_eq!(t.refused(Refusal::NoSuchCall), 8);
        assert_eq!(t.refused(Refusal::Extension), 2);
    }

    #[test]
    fn who_goes_away_or_is_full_takes_no_new_calls_and_keeps_those_there_are() {
        let mut t = endpoint(Strangers::Silence);
        t.drain();
        assert_eq!(place(&mut t, "INVITE", ""), "503 30");
        assert_eq!(place(&mut t, "OPTIONS", ""), "503 30");
        assert_eq!(place(&mut t, "INVITE", INSIDE), "leg 7");
        let mut t = Endpoint::<u32>::with_limit(t.settings, 0);
        assert_eq!(place(&mut t, "INVITE", ""), "503 30");
        assert_eq!(t.refused(Refusal::Full), 1);
    }

    #[test]
    fn strangers_hear_nothing_but_what_they_have_to() {
        use Admission::{Authenticate, Silence, Take};
        for (method, extra, silent, challenging) in [
            ("OPTIONS", "", Silence, Silence),
            ("INVITE", "", Silence, Authenticate),
            ("REGISTER", "", Authenticate, Authenticate),
            ("BYE", ELSEWHERE, Silence, Silence),
            ("INVITE", ELSEWHERE, Silence, Silence),
            ("BYE", INSIDE, Take, Take),
            ("CANCEL", "", Silence, Take),
            ("ACK", ELSEWHERE, Silence, Take),
        ] {
            for (strangers, expected) in [
                (Strangers::Silence, silent),
                (Strangers::Challenge, challenging),
            ] {
                let mut t = endpoint(strangers);
                let incoming = request(method, extra);
                assert_eq!(
                    t.admit(Source::Stranger, &incoming),
                    expected,
                    "{method} {extra}"
                );
                assert_eq!(t.refused(Refusal::Stranger), u64::from(expected == Silence));
                let known = if method == "REGISTER" {
                    Authenticate
                } else {
                    Take
                };
                assert_eq!(t.admit(Source::Known, &incoming), known, "{method}");
                let begins = known == Authenticate || (method, extra) == ("INVITE", "");
                let phone = if begins { Authenticate } else { Take };
                assert_eq!(t.admit(Source::Phone, &incoming), phone, "{method} {extra}");
            }
        }
        let mut t = endpoint(Strangers::Silence);
        t.settings.registrar = false;
        assert_eq!(t.admit(Source::Stranger, &request("REGISTER", "")), Silence);
        assert_eq!(place(&mut t, "REGISTER", ""), format!("405 {ALLOW}"));
    }

    #[test]
    fn a_leg_that_is_gone_is_no_place() {
        let mut t = endpoint(Strangers::Silence);
        let name = LegName {
            call_id: "call".into(),
            local_tag: "ours".into(),
        };
        assert_eq!(t.len(), 1);
        t.remove(&name);
        assert!(t.is_empty());
        assert_eq!(place(&mut t, "BYE", INSIDE), "481");
    }
}
