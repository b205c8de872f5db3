//! Requests of others: a Leg's, or a new call of a Trunk.

use std::time::{Duration, Instant};

use gateway_core::call::{CALLER, Call};
use gateway_core::endpoint::Place;
use gateway_core::leg::{Credential, Event, Leg, Quirks, Reliable, Settings};
use gateway_core::outbound::{self, Caller, Denied};
use gateway_core::routing::{Facts, NoWay, Way};
use gateway_core::transaction::{Flow, ServerId};
use gateway_sip::negotiate::Capabilities;
use gateway_sip::sanity::IncomingRequest;
use gateway_sip::{HeaderName, Headers, NameAddr, Request, Response, StatusCode, Uri};
use model::phone::rows::{E164, LegDirection, Line, Peering, Quirk, Telephony, Trunk};
use model::phone::{CALLER_NAME_LEN_MAX, PhoneTarget};
use model::time::Timestamp;
use model::{AccountId, CallId, UserId};

use super::legs::{SipLeg, Sticky};
use super::people::Invitation;
use super::records::{Parties, kept};
use super::strangers::Shown;
use super::trunks::TrunkId;
use super::ways::{Lead, Leading};
use super::words::{capabilities_of, session_policy};
use super::{AGENT, Exchange, PhoneCall, Side};
use crate::sound::LegId;

/// Why a call that came in goes nowhere: a word for figures and what the caller's side hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    word: &'static str,
    code: StatusCode,
}

impl Refusal {
    /// It dials nothing that is a Number of the Account.
    pub(super) const UNKNOWN_NUMBER: Self = Self::new("unknown_number", StatusCode::NOT_FOUND);
    /// What it dials leads nowhere.
    pub(super) const NO_ROUTE: Self = Self::new("no_route", StatusCode::TEMPORARILY_UNAVAILABLE);
    /// It is one too many for the Account or a User.
    pub(super) const OVER_LIMIT: Self = Self::new("over_limit", StatusCode::SERVICE_UNAVAILABLE);

    pub(super) const fn new(word: &'static str, code: StatusCode) -> Self {
        Self { word, code }
    }

    /// The rows say that it ends.
    pub(super) fn no_way(no_way: NoWay) -> Self {
        Self::new(no_way.as_str(), no_way.code())
    }

    /// It would go out, and may not.
    pub(super) fn denied(denied: &Denied) -> Self {
        Self::new(denied.as_str(), outbound::code_of(denied))
    }

    /// A word for figures.
    pub(super) fn word(self) -> &'static str {
        self.word
    }

    /// What the caller's side hears.
    pub(super) fn code(self) -> StatusCode {
        self.code
    }
}

/// What the Leg of a call that came in is like.
pub(super) struct Begin {
    pub(super) credential: Option<Credential>,
    pub(super) capabilities: Capabilities,
    pub(super) quirks: Quirks,
}

impl Exchange {
    pub(super) fn on_request(
        &mut self,
        now: Instant,
        wall: Timestamp,
        id: ServerId,
        flow: Flow,
        incoming: Box<IncomingRequest>,
    ) {
        let tag = self.word();
        match self.endpoint.place(&incoming, &tag) {
            Place::Leg(leg) => {
                if let Some(leg) = self.legs.get_mut(&leg)
                    && leg.desk.is_none()
                    && leg
                        .way
                        .as_ref()
                        .is_none_or(|way| way.flow.transport == flow.transport)
                {
                    let name = leg.way.take().and_then(|way| way.name);
                    leg.way = Some(Sticky { flow, name });
                }
                self.tell_leg(leg, Event::Request { id, incoming });
            }
            Place::Call(None) => self.on_invite(now, wall, id, flow, &incoming),
            Place::Call(Some(replaces)) => self.on_replaces(now, id, flow, &incoming, &replaces),
            Place::Registrar => self.on_register(now, id, flow, &incoming),
            Place::Answer(response) => self.transactions.respond(now, id, &response),
        }
    }

    pub(super) fn refuse(
        &mut self,
        now: Instant,
        id: ServerId,
        request: &Request,
        code: StatusCode,
    ) {
        let mut response = Response::to(request, code, &self.word());
        response.headers.push(HeaderName::Server, AGENT);
        if code == StatusCode::SERVICE_UNAVAILABLE {
            response.headers.push(HeaderName::RetryAfter, 10);
        }
        self.transactions.respond(now, id, &response);
    }

    /// A Trunk or a desk phone calls.
    fn on_invite(
        &mut self,
        now: Instant,
        wall: Timestamp,
        id: ServerId,
        flow: Flow,
        incoming: &IncomingRequest,
    ) {
        match self.receive(now, wall, id, flow, incoming) {
            Ok(()) => self.figures.legs_in += 1,
            Err(refusal) => {
                self.figures.refused_in(refusal.word);
                let code = refusal.code().get();
                tracing::info!(why = refusal.word, code, "Call refused");
                tracing::debug!(from = %flow.remote, to = %incoming.uri, "Call refused");
                self.refuse(now, id, &incoming.request, refusal.code());
            }
        }
    }

    fn receive(
        &mut self,
        now: Instant,
        wall: Timestamp,
        server: ServerId,
        flow: Flow,
        incoming: &IncomingRequest,
    ) -> Result<(), Refusal> {
        if self.calls.len() >= self.config.calls_max {
            return Err(Refusal::new("full", StatusCode::SERVICE_UNAVAILABLE));
        }
        let shown = self.strangers.shown(flow, &incoming.envelope.via);
        let shown = match shown {
            Some(Shown::Phone(account, name)) => {
                let (came, desk) = ((flow, incoming), (account, name));
                return self.receive_of_desk(now, wall, server, came, desk);
            }
            Some(Shown::Trunk(trunk)) => Some(trunk),
            None => None,
        };
        let found = self
            .trunk_of(flow, incoming, shown)
            .ok_or(Refusal::UNKNOWN_NUMBER)?;
        let Found {
            trunk: trunk_id,
            dialled,
        } = found;
        let account = trunk_id.0;
        let rows = self.rows.get(&account).cloned().ok_or(Refusal::NO_ROUTE)?;
        let trunk = rows.trunks.get(&trunk_id.1).ok_or(Refusal::NO_ROUTE)?;
        let invitation = invitation(&rows, trunk, incoming, &dialled);
        let caller: Option<E164> = invitation
            .from
            .as_ref()
            .and_then(|from| from.global_number()?.parse().ok());
        let (way, step) = {
            let talks = |user: &UserId| self.is_talking(account, user);
            let facts = Facts {
                at: wall,
                is_talking: &talks,
            };
            Way::begin(&rows, facts, &dialled, Some(&trunk_id.1), caller.as_ref())
        };
        let caller = Caller {
            withheld: invitation.from.is_none(),
            number: caller,
            name: invitation.name.clone(),
            diverted: None,
        };
        let max_forwards = incoming.envelope.max_forwards.saturating_sub(1);
        let mut leading = Leading::new(way, caller, max_forwards);
        let lead = self.lead(wall, account, &rows, &mut leading, step)?;
        let limits = self.limits_inside(account, None);
        self.begin_meters(now, &limits, false)?;
        if let Err(code) = self.trunks.on_call(now, &trunk_id) {
            self.end_meters(now, &limits, false);
            return Err(Refusal::new("trunk_limit", code));
        }
        let begin = Begin {
            credential: super::outgoing::credential(trunk),
            capabilities: capabilities_of(trunk),
            quirks: outbound::quirks(trunk),
        };
        let begun = self.begin_incoming(now, server, flow, incoming, begin);
        let Some((leg_id, leg)) = begun else {
            self.trunks.on_call_over(&trunk_id);
            self.end_meters(now, &limits, false);
            return Ok(()); // It has its answer.
        };
        let call_id = CallId::from_parts(wall, self.random().into());
        let mut sip = SipLeg::new(call_id, CALLER, leg);
        sip.trunk = Some(trunk_id);
        sip.way = Some(Sticky { flow, name: None });
        let parties = Parties {
            user: None,
            from: kept(invitation.from.as_ref()),
            to: kept(invitation.to.as_ref()),
            name: invitation.name.clone(),
            number: match dialled {
                Line::Number(number) => Some(number),
                Line::Extension(_) => None,
            },
        };
        let begun = (server, leg_id, sip, parties);
        self.begin_call(now, account, begun, invitation, (Some(leading), lead));
        if let Some(call) = self.calls.get_mut(&call_id) {
            call.limits = limits;
            call.hops = max_forwards;
        }
        Ok(())
    }

    /// A call begins with the Leg that came in.
    pub(super) fn begin_call(
        &mut self,
        now: Instant,
        account: AccountId,
        (server, leg_id, sip, parties): (ServerId, LegId, SipLeg, Parties),
        invitation: Invitation,
        (leading, lead): (Option<Leading>, Lead),
    ) {
        let call_id = sip.call;
        self.endpoint.insert(sip.leg.name().clone(), leg_id);
        self.legs.insert(leg_id, sip);
        self.invites.insert(server, leg_id);
        // Who rings is known below, and told in place of the answer to its first question.
        let (call, _) = Call::led(now, Vec::new());
        let mut phone_call = PhoneCall {
            ring: Some(invitation),
            leading,
            ..PhoneCall::new(account, call)
        };
        phone_call.sides.insert(CALLER, Side::Sip(leg_id));
        self.calls.insert(call_id, phone_call);
        self.begin_record(now, leg_id, LegDirection::In, parties);
        self.follow(now, call_id, lead);
    }

    /// Makes the Leg; `None` when the INVITE was refused.
    pub(super) fn begin_incoming(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        incoming: &IncomingRequest,
        begin: Begin,
    ) -> Option<(LegId, Leg)> {
        let door = self
            .doors
            .reached_by(flow.transport, flow.remote.ip())
            .copied();
        let opened = door.and_then(|door| Some((door, self.open_leg(door.local.ip())?)));
        let Some((door, (leg_id, port))) = opened else {
            self.refuse(
                now,
                server,
                &incoming.request,
                StatusCode::SERVICE_UNAVAILABLE,
            );
            return None;
        };
        let user = incoming.uri.user().map(std::borrow::Cow::into_owned);
        let settings = Settings {
            contact: door.contact(user.as_deref()),
            agent: AGENT.to_owned(),
            credential: begin.credential,
            reliable: Reliable::Accept,
            session: session_policy(&self.config),
            capabilities: begin.capabilities,
            local: self.local(door.public.ip(), port),
            quirks: begin.quirks,
        };
        let rng = &mut self.rng;
        let received = Leg::receive(settings, server, incoming, &mut || rand::Rng::next_u64(rng));
        match received {
            Ok(leg) => Some((leg_id, leg)),
            Err(response) => {
                self.sound.close(leg_id);
                self.transactions.respond(now, server, &response);
                None
            }
        }
    }

    /// Whose call this is: of the Trunks that send from there, the one that is meant by the Contact of its registration, or whose
    /// Account has the Number that is dialled.
    fn trunk_of(
        &self,
        flow: Flow,
        incoming: &IncomingRequest,
        shown: Option<TrunkId>,
    ) -> Option<Found> {
        let candidates = match shown {
            Some(trunk) => vec![trunk],
            None => self.trunks.of_source(flow.remote.ip()),
        };
        let dialled = |id: &TrunkId| {
            let rows = self.rows.get(&id.0)?;
            let trunk = rows.trunks.get(&id.1)?;
            let texts = dialled_texts(trunk, incoming);
            let mut lines = texts.iter().flat_map(|text| lines_of(rows, text));
            lines.find(|line| {
                let number = rows.numbers.get(line);
                number.is_some_and(|number| number.trunk.as_ref().is_none_or(|of| *of == id.1))
            })
        };
        candidates.into_iter().find_map(|id| {
            let dialled = dialled(&id)?;
            Some(Found { trunk: id, dialled })
        })
    }
}

/// Whose call it is, and which Number is dialled.
struct Found {
    trunk: TrunkId,
    dialled: Line,
}

/// Where the called number may stand, the most likely place first.
fn dialled_texts(trunk: &Trunk, incoming: &IncomingRequest) -> Vec<String> {
    let user = |uri: &Uri| uri.user().map(std::borrow::Cow::into_owned);
    let of_uri = user(&incoming.uri);
    let of_to = user(&incoming.envelope.to.uri);
    let of_party = || {
        let name = HeaderName::parse("P-Called-Party-ID")?;
        let value = incoming.request.headers.get(&name)?;
        user(&NameAddr::parse(value, "P-Called-Party-ID").ok()?.uri)
    };
    let own = match &trunk.peering {
        Peering::Registration(registration) => Some(registration.user.as_str()),
        Peering::Address | Peering::Inbound(_) => None,
    };
    let uri_is_contact = own.is_some() && of_uri.as_deref() == own;
    let all = if trunk.quirks.contains(&Quirk::NumberInCalledParty) {
        vec![of_party(), of_uri, of_to]
    } else if trunk.quirks.contains(&Quirk::NumberInTo) || uri_is_contact {
        vec![of_to, of_uri]
    } else {
        vec![of_uri]
    };
    all.into_iter().flatten().collect()
}

/// What a dialled text may mean to an Account.
fn lines_of(rows: &Telephony, text: &str) -> Vec<Line> {
    let number = match &rows.dialling {
        Some(dialling) => dialling.number(text),
        None => text.parse().ok(),
    };
    // Some leave the + out.
    let bare = format!("+{text}").parse().ok();
    let extension = text.parse().ok().map(Line::Extension);
    [number, bare]
        .into_iter()
        .flatten()
        .map(Line::Number)
        .chain(extension)
        .collect()
}

/// What Users who ring are told.
fn invitation(
    rows: &Telephony,
    trunk: &Trunk,
    incoming: &IncomingRequest,
    dialled: &Line,
) -> Invitation {
    let (from, name) = caller(rows, trunk, incoming);
    let to = match dialled {
        Line::Number(number) => format!("tel:{number}"),
        Line::Extension(extension) => format!("tel:{extension}"),
    };
    Invitation {
        from,
        name,
        to: to.parse().ok(),
        ring: Duration::ZERO,
    }
}

/// Who calls, as far as it may be known.
fn caller(
    rows: &Telephony,
    trunk: &Trunk,
    incoming: &IncomingRequest,
) -> (Option<PhoneTarget>, Option<String>) {
    let headers = &incoming.request.headers;
    let first = |name: &HeaderName| headers.addresses(name).ok()?.into_iter().next();
    let asserted = trunk
        .caller
        .believe_asserted
        .then(|| first(&HeaderName::PAssertedIdentity))
        .flatten();
    let remote_party = trunk
        .quirks
        .contains(&Quirk::RemotePartyId)
        .then(|| first(&HeaderName::RemotePartyId))
        .flatten();
    if is_withheld(headers, &incoming.envelope.from) {
        return (None, None);
    }
    let who = asserted
        .or(remote_party)
        .unwrap_or_else(|| incoming.envelope.from.clone());
    let name = who.display.as_deref().map(shown_name);
    (
        target_of(rows, &who.uri),
        name.filter(|name| !name.is_empty()),
    )
}

/// Whether the caller keeps their number to themselves (RFC 3323 §4.1.1.3, RFC 3325 §9.3).
fn is_withheld(headers: &Headers, from: &NameAddr) -> bool {
    let private = ["id", "user", "header"]
        .iter()
        .any(|token| privacy_has(headers, token));
    let host = from.uri.sip().map(|uri| uri.host.to_string());
    private
        || host.is_some_and(|host| host.eq_ignore_ascii_case("anonymous.invalid"))
        || from
            .uri
            .user()
            .is_some_and(|user| user.eq_ignore_ascii_case("anonymous"))
}

/// The values of Privacy are separated by semicolons (RFC 3323 §4.2).
fn privacy_has(headers: &Headers, token: &str) -> bool {
    let lines = headers.lines(&HeaderName::Privacy);
    lines
        .flat_map(|line| line.split([';', ',']))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// The address of somebody as people use it: a number of the world where it is one.
fn target_of(rows: &Telephony, uri: &Uri) -> Option<PhoneTarget> {
    let user = uri.user()?;
    let number = match &rows.dialling {
        Some(dialling) => dialling.number(&user),
        None => user.parse().ok(),
    };
    if let Some(number) = number {
        return format!("tel:{number}").parse().ok();
    }
    if !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("tel:{user}").parse().ok();
    }
    let host = uri.sip().map(|uri| uri.host.to_string())?;
    format!("sip:{user}@{host}").parse().ok()
}

/// A name that is fit to be shown.
fn shown_name(name: &str) -> String {
    let mut shown = String::new();
    for letter in name.trim().chars().filter(|letter| !letter.is_control()) {
        if shown.len() + letter.len_utf8() > CALLER_NAME_LEN_MAX {
            break;
        }
        shown.push(letter);
    }
    shown
}

impl PhoneCall {
    pub(super) fn new(account: AccountId, call: Call) -> Self {
        Self {
            account,
            call,
            sides: std::collections::BTreeMap::new(),
            targets: Vec::new(),
            users: std::collections::BTreeMap::new(),
            ring: None,
            leading: None,
            talks: Vec::new(),
            taken_up: false,
            attended: None,
            plays: 0,
            lead_in: false,
            limits: Vec::new(),
            outside: Vec::new(),
            hops: gateway_sip::MAX_FORWARDS_DEFAULT,
            place: None,
            told: false,
            rings_people: false,
            ended: false,
            dialled: false,
            answered: false,
            rung: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_between_letters_and_has_nothing_that_controls() {
        assert_eq!(shown_name(" Ali\u{7}ce\r\n"), "Alice");
        let long = "ü".repeat(CALLER_NAME_LEN_MAX);
        assert_eq!(shown_name(&long).len(), CALLER_NAME_LEN_MAX);
    }

    #[test]
    fn who_withholds_their_number_has_none() {
        let from = |text: &str| NameAddr::parse(text, "From").unwrap();
        let check = |privacy: &str, text: &str, expected: bool| {
            let mut headers = Headers::new();
            if !privacy.is_empty() {
                headers.push(HeaderName::Privacy, privacy);
            }
            assert_eq!(
                is_withheld(&headers, &from(text)),
                expected,
                "{privacy} {text}"
            );
        };
        check("", "<sip:+4930@p.example>", false);
        check("none", "<sip:+4930@p.example>", false);
        check("id;critical", "<sip:+4930@p.example>", true);
        check("", "\"Anonymous\" <sip:anonymous@anonymous.invalid>", true);
        check("", "<sip:anonymous@p.example>", true);
    }

    #[test]
    fn what_is_dialled_is_a_number_or_an_extension() {
        let rows = Telephony {
            dialling: toml::from_str("country = \"49\"").unwrap(),
            ..Telephony::default()
        };
        let check = |text: &str, expected: &[&str]| {
            let lines = lines_of(&rows, text);
            let lines: Vec<_> = lines
                .iter()
                .map(|line| match line {
                    Line::Number(number) => number.to_string(),
                    Line::Extension(extension) => extension.to_string(),
                })
                .collect();
            assert_eq!(lines, expected, "{text}");
        };
        check("+4930123456", &["+4930123456"]);
        check("4930123456", &["+4930123456"]);
        check("030123456", &["+4930123456"]);
        check("42", &["42"]);
        check("alice", &[]);
    }
}
