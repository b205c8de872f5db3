//! Calls to a Trunk: which address of it is tried, who calls, and when the next address is tried.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gateway_core::call::LegKey;
use gateway_core::leg::{Credential, Ended, Leg, Order, Outgoing, Settings, Told, Why};
use gateway_core::outbound::{self, Caller, Dialled, Outside};
use gateway_core::{call, leg};
use gateway_sip::{Host, NameAddr, SipUri, StatusCode, Uri};
use model::phone::rows::{self, LegDirection, Peering, Trunk};
use model::{AccountId, CallId, UserId};

use super::legs::SipLeg;
use super::records::Parties;
use super::trunks::{TrunkId, TrunkState};
use super::words::{capabilities_of, host_of, session_policy};
use super::{AGENT, Exchange, Route, Side, Target, Timer};
use crate::sound::LegId;

/// How long an address may be silent before the next one is tried, where there is one.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// How long an address that did not answer is tried after all others (RFC 3263 §4.3), where it is not heard of before.
const SHUNNED_SILENT: Duration = Duration::from_secs(60);

/// The same for one that can't take calls now (503).
const SHUNNED_BUSY: Duration = Duration::from_secs(10);

/// Whom to dial by which Trunk, for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dialling {
    pub(super) trunk: TrunkId,
    pub(super) number: Dialled,
    pub(super) caller: Caller,
    /// The Trunks that are tried after it.
    pub(super) others: VecDeque<TrunkId>,
    /// One less than that of the request this call comes of.
    pub(super) max_forwards: u8,
}

/// An INVITE of ours that nobody has answered yet.
pub(super) struct Attempt {
    pub(super) route: Route,
    rest: VecDeque<Route>,
    dialling: Dialling,
    /// Anything at all came back.
    pub(super) heard: bool,
    /// It rings somewhere, or is being looked for.
    pub(super) progressed: bool,
}

impl Exchange {
    /// Begins a Leg of a call. A User's comes back, to be rung with all others of the same moment.
    pub(super) fn begin_leg(
        &mut self,
        now: Instant,
        id: CallId,
        key: LegKey,
        target: u32,
    ) -> Option<(LegKey, UserId)> {
        let call = self.calls.get_mut(&id)?;
        let target = usize::try_from(target)
            .ok()
            .and_then(|at| call.targets.get(at));
        match target.cloned() {
            Some(Target::User(user)) => {
                call.sides.insert(key, Side::User(user.clone()));
                call.users.insert(key, user.clone());
                Some((key, user))
            }
            Some(Target::Trunk(dialling)) => {
                let routes = self.routes(now, &dialling.trunk);
                self.dial(now, id, key, *dialling, routes);
                None
            }
            Some(Target::Desk(desk)) => {
                self.ring_desk(now, id, key, &desk);
                None
            }
            None => {
                self.refuse_leg(id, key, StatusCode::TEMPORARILY_UNAVAILABLE);
                None
            }
        }
    }

    /// A Leg that could not even begin.
    pub(super) fn refuse_leg(&mut self, id: CallId, key: LegKey, code: StatusCode) {
        let told = Told::Ended(Ended {
            code,
            cause: None,
            why: Why::Vanished,
        });
        self.tell_call(id, call::Event::Told { leg: key, told });
    }

    /// Dials the first of `routes`.
    fn dial(
        &mut self,
        now: Instant,
        id: CallId,
        key: LegKey,
        mut dialling: Dialling,
        mut routes: VecDeque<Route>,
    ) {
        let route = loop {
            let full = match routes.pop_front() {
                Some(route) => match self.trunks.on_call(now, &dialling.trunk) {
                    Ok(()) => break route,
                    Err(code) => {
                        self.figures.trunk_limit += 1;
                        code
                    }
                },
                None => {
                    self.figures.no_address += 1;
                    StatusCode::SERVICE_UNAVAILABLE
                }
            };
            let Some(next) = dialling.others.pop_front() else {
                return self.refuse_leg(id, key, full);
            };
            routes = self.routes(now, &next);
            dialling.trunk = next;
        };
        let begun = self.begin_outgoing(id, &dialling, &route);
        let Some((leg_id, leg, actions)) = begun else {
            self.trunks.on_call_over(&dialling.trunk);
            return self.refuse_leg(id, key, StatusCode::SERVICE_UNAVAILABLE);
        };
        let Some(phone_call) = self.calls.get_mut(&id) else {
            return;
        };
        phone_call.sides.insert(key, Side::Sip(leg_id));
        let caller = &dialling.caller;
        let shown = caller.number.clone().filter(|_| !caller.withheld);
        let parties = Parties {
            user: phone_call.talks.first().cloned(),
            from: shown.as_ref().map(ToString::to_string),
            to: Some(match &dialling.number {
                Dialled::World(number) => number.to_string(),
                Dialled::AsIs(text) => text.clone(),
            }),
            name: caller.name.clone(),
            number: shown,
        };
        let mut sip = SipLeg::new(id, key, leg);
        sip.trunk = Some(dialling.trunk.clone());
        let has_next = !routes.is_empty() || !dialling.others.is_empty();
        sip.attempt = Some(Attempt {
            route,
            rest: routes,
            dialling,
            heard: false,
            progressed: false,
        });
        self.endpoint.insert(sip.leg.name().clone(), leg_id);
        self.legs.insert(leg_id, sip);
        self.begin_record(now, leg_id, LegDirection::Out, parties);
        let until = has_next.then(|| now + ATTEMPT_MAX);
        self.timers.set(&Timer::Attempt(leg_id), until);
        self.figures.legs_out += 1;
        self.act_for_leg(now, leg_id, actions);
    }

    fn begin_outgoing(
        &mut self,
        id: CallId,
        dialling: &Dialling,
        route: &Route,
    ) -> Option<(LegId, Leg, Vec<leg::Action>)> {
        let account = self.calls.get(&id)?.account;
        let door = *self.doors.reached_by(route.transport, route.address.ip())?;
        let ways = self
            .rows
            .get(&account)
            .and_then(|rows| rows.dialling.clone());
        let state = self.trunks.get(&dialling.trunk)?;
        let trunk = state.row.clone();
        let user = state.user();
        let (leg_id, port) = self.open_leg(door.local.ip())?;
        let target = request_uri(&trunk, dialling, route, ways.as_ref());
        let own = Host::Ip(door.public.ip());
        let who = outbound::identity(&trunk, &dialling.caller, &own);
        let Ok((from, headers)) = who else {
            self.figures.withheld_refused += 1;
            self.sound.close(leg_id);
            return None;
        };
        let outgoing = Outgoing {
            from,
            to: NameAddr::new(target.clone()),
            target,
            routes: self.trunks.service_routes(&dialling.trunk),
            headers,
            max_forwards: dialling.max_forwards,
        };
        let settings = Settings {
            contact: door.contact(user.as_deref()),
            agent: AGENT.to_owned(),
            credential: credential(&trunk),
            reliable: leg::Reliable::Accept,
            session: session_policy(&self.config),
            capabilities: capabilities_of(&trunk),
            local: self.local(door.public.ip(), port),
            quirks: outbound::quirks(&trunk),
        };
        let rng = &mut self.rng;
        let (leg, actions) = Leg::call(settings, &outgoing, &mut || rand::Rng::next_u64(rng));
        Some((leg_id, leg, actions))
    }

    /// A number for a Leg, and its port for media; `None` when there is none.
    pub(super) fn open_leg(&mut self, local: std::net::IpAddr) -> Option<(LegId, u16)> {
        self.last_leg += 1;
        let id = LegId(self.last_leg);
        match self.sound.open(id, local) {
            Ok(port) => Some((id, port)),
            Err(error) => {
                self.figures.no_port += 1;
                tracing::warn!(%error, "No port for the media of a call");
                None
            }
        }
    }

    /// An address that says nothing for some seconds is left for the next.
    pub(super) fn on_attempt_timeout(&mut self, now: Instant, id: LegId) {
        let attempt = self.legs.get(&id).and_then(|leg| leg.attempt.as_ref());
        let Some(attempt) = attempt else {
            return;
        };
        if attempt.heard || !attempt.has_next() {
            return;
        }
        let (trunk, address) = (attempt.dialling.trunk.clone(), attempt.route.address);
        self.shun(now, &trunk, address, SHUNNED_SILENT);
        self.leave(now, id);
    }

    /// Dials the next address in place of this Leg, which ends by itself when anything is heard of it at last: an INVITE can't be taken
    /// back before (RFC 3261 §9.1).
    fn leave(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else {
            return;
        };
        let Some(attempt) = leg.attempt.take() else {
            return;
        };
        leg.detached = true;
        let (call, key) = (leg.call, leg.key);
        if std::mem::take(&mut leg.has_sound) {
            self.sound.close(id);
        }
        if let Some(trunk) = leg.trunk.take() {
            self.trunks.on_call_over(&trunk);
        }
        let end = Order::End {
            code: StatusCode::REQUEST_TERMINATED,
            cause: None,
        };
        self.tell_leg(id, leg::Event::Order(end));
        self.figures.failovers += 1;
        self.dial(now, call, key, attempt.dialling, attempt.rest);
    }

    /// A Leg of ours ended. Whether the next address of its Trunk is dialled in its place: after silence, and after what says that
    /// this one can't, before anybody's phone rang (RFC 3263 §4.3).
    pub(super) fn try_next_address(&mut self, now: Instant, id: LegId, ended: Ended) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else {
            return false;
        };
        let Some(attempt) = leg.attempt.take() else {
            return false;
        };
        let goes_on = outbound::goes_on(&ended, attempt.progressed);
        let (call, key) = (leg.call, leg.key);
        let still_wanted = self
            .calls
            .get(&call)
            .is_some_and(|call| call.sides.get(&key) == Some(&Side::Sip(id)));
        let shunned = match (ended.why, ended.code) {
            (Why::Vanished, _) => Some(SHUNNED_SILENT),
            (Why::Remote, StatusCode::SERVICE_UNAVAILABLE) => Some(SHUNNED_BUSY),
            _ => None,
        };
        if let Some(shunned) = shunned {
            let (trunk, address) = (attempt.dialling.trunk.clone(), attempt.route.address);
            self.shun(now, &trunk, address, shunned);
        }
        if !goes_on || !attempt.has_next() || !still_wanted {
            return false;
        }
        self.figures.failovers += 1;
        self.on_leg_over(now, id, Some(ended));
        self.dial(now, call, key, attempt.dialling, attempt.rest);
        true
    }
}

/// The Request-URI: the number as the Trunk wants it, at the Trunk.
fn request_uri(
    trunk: &Trunk,
    dialling: &Dialling,
    route: &Route,
    ways: Option<&rows::Dialling>,
) -> Uri {
    let number = outbound::written(&dialling.number, trunk, ways);
    let registered = match &trunk.peering {
        Peering::Registration(registration) => registration.domain.as_ref(),
        Peering::Address | Peering::Inbound(_) => None,
    };
    let host = registered.or(trunk.targets.first().map(|target| &target.host));
    let host = host.map_or(Host::Ip(route.address.ip()), host_of);
    let mut uri = SipUri::new(Some(&number), host, None);
    uri.params.set("user", Some("phone"));
    uri.into()
}

/// What a Trunk's challenges are answered with.
pub(super) fn credential(trunk: &Trunk) -> Option<Credential> {
    let password = trunk.password.as_ref()?;
    let username = match &trunk.peering {
        Peering::Registration(registration) => registration
            .auth_user
            .as_ref()
            .unwrap_or(&registration.user)
            .as_str(),
        Peering::Inbound(inbound) => inbound.user.as_str(),
        Peering::Address => return None,
    };
    Some(Credential {
        username: username.to_owned(),
        password: password.reveal().to_owned().into(),
    })
}

impl TrunkState {
    /// The user part of our address there.
    pub(super) fn user(&self) -> Option<String> {
        match &self.row.peering {
            Peering::Registration(registration) => Some(registration.user.as_str().to_owned()),
            Peering::Address | Peering::Inbound(_) => None,
        }
    }
}

impl Attempt {
    fn has_next(&self) -> bool {
        !self.rest.is_empty() || !self.dialling.others.is_empty()
    }
}

impl Dialling {
    /// By the Trunks of `outside`; `None` where there is none.
    pub(super) fn out(
        account: AccountId,
        outside: Outside,
        caller: Caller,
        max_forwards: u8,
    ) -> Option<Self> {
        let mut trunks = outside.trunks.into_iter().map(|name| (account, name));
        Some(Self {
            trunk: trunks.next()?,
            number: outside.number,
            caller,
            others: trunks.collect(),
            max_forwards,
        })
    }
}
