//! Desk phones: where they are registered, how they are called, and the calls they make.

use std::time::{Duration, Instant};

use gateway_core::call::LegKey;
use gateway_core::leg::{self, Leg, Outgoing, Reliable, Settings};
use gateway_core::outbound::{self, Denied, Plan};
use gateway_core::registrar::{Binding, Change, Phones};
use gateway_core::routing::{Facts, Way};
use gateway_core::transaction::{Flow, ServerId, Transport};
use gateway_sip::sanity::IncomingRequest;
use gateway_sip::{Headers, Host, MAX_FORWARDS_DEFAULT, NameAddr, SipUri, StatusCode, Uri};
use model::phone::rows::{self, LegDirection, SipUser};
use model::time::Timestamp;
use model::{AccountId, CallId, UserId};

use super::incoming::{Begin, Refusal};
use super::legs::{SipLeg, Sticky};
use super::people::Invitation;
use super::records::{Parties, kept};
use super::strangers::{Shown, Users};
use super::ways::{Lead, Leading};
use super::words::{capabilities, session_policy};
use super::{AGENT, Exchange, Output, Rows, Side, Target, Timer};
use crate::sound::LegId;

/// How often a way through a NAT is used, so that it is not forgotten (RFC 5626 §4.4.2).
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// What is sent for that.
const PING: &[u8] = b"\r\n\r\n";

/// A desk phone where it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Desk {
    account: AccountId,
    name: SipUser,
    pub(super) user: UserId,
    contact: Uri,
    path: Vec<NameAddr>,
    flow: Flow,
}

impl Exchange {
    /// A REGISTER of somebody who showed a password.
    pub(super) fn on_register(
        &mut self,
        now: Instant,
        id: ServerId,
        flow: Flow,
        incoming: &IncomingRequest,
    ) {
        let shown = self.strangers.shown(flow, &incoming.envelope.via);
        let users = Users {
            rows: &self.rows,
            by_name: &self.strangers.users,
        };
        let known = match &shown {
            Some(Shown::Phone(_, name)) => users
                .phone(name.as_str(), flow.remote.ip())
                .map(|entry| (name.as_str(), entry)),
            _ => None,
        };
        let Some((name, entry)) = known else {
            return self.refuse(now, id, &incoming.request, StatusCode::FORBIDDEN);
        };
        let rng = &mut self.rng;
        let mut tokens = || rand::Rng::next_u64(rng);
        let registered = self
            .registrar
            .register(now, flow, incoming, (name, &entry), &mut tokens);
        self.transactions.respond(now, id, &registered.response);
        self.figures.phone_registrations += 1;
        if let Some(change) = registered.change {
            self.on_phone(&change);
        }
        self.keep_alive_later(now);
    }

    pub(super) fn on_phone(&self, change: &Change) {
        // Whose phone it is, the names of rows say.
        match change {
            Change::Came { user } => tracing::info!(phone = user, "Desk phone registered"),
            Change::Went { user } => tracing::info!(phone = user, "Desk phone is gone"),
        }
    }

    /// Those whose rows are gone, or have another password, begin anew.
    pub(super) fn forget_phones(&mut self, rows: &Rows) {
        for (account, telephony) in self.rows.clone().iter() {
            for (name, phone) in &telephony.phones {
                let now = rows.get(account).and_then(|now| now.phones.get(name));
                let is_same = now.is_some_and(|now| {
                    now.ha1 == phone.ha1 && now.networks == phone.networks && now.user == phone.user
                });
                if !is_same && let Some(change) = self.registrar.forget(name.as_str()) {
                    self.on_phone(&change);
                }
            }
        }
    }

    /// Uses the ways to phones behind NATs.
    pub(super) fn keep_alive(&mut self, now: Instant) {
        for name in self.strangers.users.keys() {
            let bindings = self.registrar.bindings(name);
            let behind = bindings.filter(|it| it.behind_nat && it.flow.transport == Transport::Udp);
            for binding in behind {
                self.outputs.push_back(Output::Send {
                    flow: binding.flow,
                    bytes: PING.to_vec(),
                });
            }
        }
        self.timers.set(&Timer::KeepAlive, None);
        self.keep_alive_later(now);
    }

    fn keep_alive_later(&mut self, now: Instant) {
        if !self.registrar.is_empty() && !self.timers.has(&Timer::KeepAlive) {
            self.timers.set(&Timer::KeepAlive, Some(now + KEEP_ALIVE));
        }
    }

    /// Every desk phone of a User that is registered somewhere.
    pub(super) fn desks_of(&self, account: AccountId, user: &UserId) -> Vec<Target> {
        let Some(rows) = self.rows.get(&account) else {
            return Vec::new();
        };
        let theirs = rows.phones.iter().filter(|(_, phone)| phone.user == *user);
        let desk = |name: &SipUser, binding: &Binding| {
            Target::Desk(Box::new(Desk {
                account,
                name: name.clone(),
                user: user.clone(),
                contact: binding.contact.clone(),
                path: binding.path.clone(),
                flow: binding.flow,
            }))
        };
        theirs
            .flat_map(|(name, _)| {
                let bindings = self.registrar.bindings(name.as_str());
                bindings.map(move |binding| desk(name, binding))
            })
            .collect()
    }

    /// Rings a desk phone by the way it registered on, and no other.
    pub(super) fn ring_desk(&mut self, now: Instant, id: CallId, key: LegKey, desk: &Desk) {
        let Some((leg_id, leg, actions)) = self.begin_desk(id, desk) else {
            return self.refuse_leg(id, key, StatusCode::TEMPORARILY_UNAVAILABLE);
        };
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.sides.insert(key, Side::Sip(leg_id));
        call.users.insert(key, desk.user.clone());
        let mut sip = SipLeg::new(id, key, leg);
        sip.desk = Some(desk.name.clone());
        sip.way = Some(Sticky {
            flow: desk.flow,
            name: None,
        });
        self.endpoint.insert(sip.leg.name().clone(), leg_id);
        self.legs.insert(leg_id, sip);
        self.figures.legs_out += 1;
        let shown = self.calls.get(&id).and_then(|call| call.ring.clone());
        let parties = Parties {
            user: Some(desk.user.clone()),
            from: kept(shown.as_ref().and_then(|shown| shown.from.as_ref())),
            to: Some(desk.name.as_str().to_owned()),
            name: shown.and_then(|shown| shown.name),
            number: None,
        };
        self.begin_record(now, leg_id, LegDirection::Out, parties);
        self.act_for_leg(now, leg_id, actions);
    }

    fn begin_desk(&mut self, id: CallId, desk: &Desk) -> Option<(LegId, Leg, Vec<leg::Action>)> {
        let flow = desk.flow;
        let door = *self.doors.reached_by(flow.transport, flow.remote.ip())?;
        let phone = self.rows.get(&desk.account)?.phones.get(&desk.name)?;
        let capabilities = capabilities(&phone.codecs, true, phone.srtp);
        let shown = self.calls.get(&id)?.ring.clone();
        let host = self.strangers.domain().cloned();
        let host = host.unwrap_or(Host::Ip(door.public.ip()));
        let (leg_id, port) = self.open_leg(door.local.ip())?;
        let outgoing = Outgoing {
            from: shown_to_desk(shown.as_ref(), host),
            to: NameAddr::new(desk.contact.clone()),
            target: desk.contact.clone(),
            routes: desk.path.clone(),
            headers: Headers::new(),
            max_forwards: MAX_FORWARDS_DEFAULT,
        };
        let settings = Settings {
            contact: door.contact(None),
            agent: AGENT.to_owned(),
            credential: None,
            reliable: Reliable::Accept,
            session: session_policy(&self.config),
            capabilities,
            local: self.local(door.public.ip(), port),
            quirks: leg::Quirks::default(),
        };
        let rng = &mut self.rng;
        let (leg, actions) = Leg::call(settings, &outgoing, &mut || rand::Rng::next_u64(rng));
        Some((leg_id, leg, actions))
    }

    /// A desk phone calls: as its User may, inside or out.
    pub(super) fn receive_of_desk(
        &mut self,
        now: Instant,
        wall: Timestamp,
        server: ServerId,
        (flow, incoming): (Flow, &IncomingRequest),
        (account, name): (AccountId, SipUser),
    ) -> Result<(), Refusal> {
        let rows = self.rows.get(&account).cloned().ok_or(Refusal::NO_ROUTE)?;
        let phone = rows.phones.get(&name).ok_or(Refusal::NO_ROUTE)?.clone();
        let dialled = incoming.uri.user().ok_or(Refusal::UNKNOWN_NUMBER)?;
        let caller = outbound::Caller {
            number: rows
                .users
                .get(&phone.user)
                .and_then(|user| user.number.clone()),
            name: phone.label.as_ref().map(|label| label.as_str().to_owned()),
            withheld: rows
                .users
                .get(&phone.user)
                .is_some_and(|user| user.withhold_number),
            diverted: None,
        };
        let plan = outbound::plan(&rows, Some(&phone.user), &dialled);
        let max_forwards = incoming.envelope.max_forwards.saturating_sub(1);
        let plan = match plan {
            Ok(plan) => Ok(plan),
            // Whoever needs help hears why none comes.
            Err(denied @ Denied::Help(_)) => {
                self.figures.refused_in(denied.as_str());
                tracing::warn!(%account, why = denied.as_str(), "Call for help refused");
                Err(Lead::NoHelp(outbound::code_of(&denied)))
            }
            Err(denied) => return Err(Refusal::denied(&denied)),
        };
        let (leading, lead) = match plan {
            Err(lead) => (None, lead),
            Ok(Plan::Outside(outside)) => {
                let caller = outbound::Caller {
                    number: outside.shown.clone().or(caller.number),
                    withheld: caller.withheld && !outside.help,
                    ..caller
                };
                let user = Some(&phone.user);
                (
                    None,
                    self.lead_out(account, user, outside, caller, max_forwards)?,
                )
            }
            Ok(Plan::Inside(line)) => {
                let talks = |user: &UserId| self.is_talking(account, user);
                let facts = Facts {
                    at: wall,
                    is_talking: &talks,
                };
                let (way, step) = Way::begin(&rows, facts, &line, None, caller.number.as_ref());
                let mut leading = Leading::new(way, caller, max_forwards);
                let lead = self.lead(wall, account, &rows, &mut leading, step)?;
                (Some(leading), lead)
            }
        };
        let invitation = Invitation {
            from: self.address_of(&rows, &phone, &name),
            name: phone.label.as_ref().map(|label| label.as_str().to_owned()),
            to: format!("tel:{dialled}").parse().ok(),
            ring: Duration::ZERO,
        };
        let begin = Begin {
            credential: None,
            capabilities: capabilities(&phone.codecs, true, phone.srtp),
            quirks: leg::Quirks::default(),
        };
        let begun = self.begin_incoming(now, server, flow, incoming, begin);
        let Some((leg_id, leg)) = begun else {
            return Ok(()); // It has its answer.
        };
        let call_id = CallId::from_parts(wall, self.random().into());
        let mut sip = SipLeg::new(call_id, gateway_core::call::CALLER, leg);
        sip.desk = Some(name);
        sip.way = Some(Sticky { flow, name: None });
        let parties = Parties {
            user: Some(phone.user.clone()),
            from: kept(invitation.from.as_ref()),
            to: Some(dialled.into_owned()),
            name: invitation.name.clone(),
            number: None,
        };
        let begun = (server, leg_id, sip, parties);
        self.begin_call(now, account, begun, invitation, (leading, lead));
        if let Some(call) = self.calls.get_mut(&call_id) {
            call.hops = max_forwards;
        }
        self.on_caller_talks(now, call_id, &phone.user);
        Ok(())
    }

    /// How a desk phone is known to those it calls: by its User's number, else by its address.
    fn address_of(
        &self,
        rows: &rows::Telephony,
        phone: &rows::Phone,
        name: &SipUser,
    ) -> Option<model::phone::PhoneTarget> {
        let own = rows.users.get(&phone.user);
        match (
            own.and_then(|user| user.number.as_ref()),
            self.strangers.domain(),
        ) {
            (Some(number), _) => format!("tel:{number}").parse().ok(),
            (None, Some(domain)) => format!("sip:{}@{domain}", name.as_str()).parse().ok(),
            (None, None) => None,
        }
    }
}

/// From, as a desk phone shows it.
fn shown_to_desk(invitation: Option<&Invitation>, host: Host) -> NameAddr {
    let who = invitation.and_then(|invitation| invitation.from.as_ref());
    let number = who.and_then(|who| who.number());
    let mut from = NameAddr::new(SipUri::new(Some(number.unwrap_or("anonymous")), host, None));
    from.display = invitation.and_then(|invitation| invitation.name.clone());
    from
}
