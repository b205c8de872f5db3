//! Trunks as they are at the moment: where they are, whether they answer, whether we are registered with them, and how much they bear.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_core::registration::{self, Registration};
use gateway_core::transaction::Transport;
use gateway_sip::sanity::IncomingResponse;
use gateway_sip::{
    HeaderName, MAX_FORWARDS_DEFAULT, Method, NameAddr, Request, SipUri, StatusCode, Uri,
};
use model::phone::rows::{self, Peering, RowName, Trunk};
use model::{AccountId, Network};

use super::outgoing::credential;
use super::words::host_of;
use super::{AGENT, Exchange, Owner, Route, Rows, Timer};
use crate::resolve::{Found, Hop, Name, Place};

/// Which Trunk: that of an Account, by its name.
pub type TrunkId = (AccountId, RowName);

/// When the names of targets are looked up again that led nowhere.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(60);

/// How long what health says is put off at first, so that all Trunks are not asked in one moment.
const HEALTH_SPREAD: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Trunks {
    all: BTreeMap<TrunkId, TrunkState>,
    /// Whose addresses those of targets are.
    sources: BTreeMap<IpAddr, Vec<TrunkId>>,
    /// And whose networks.
    networks: Vec<(Network, TrunkId)>,
}

/// One Trunk.
pub(crate) struct TrunkState {
    pub(super) row: Arc<Trunk>,
    /// Every address of its targets, in the order they are tried.
    addresses: Vec<Address>,
    /// What each target led to, and until when that holds.
    found: BTreeMap<Hop, (Vec<Place>, Instant)>,
    registering: Option<Registering>,
    calls: u32,
    /// How many calls may begin now.
    tokens: f64,
    filled_at: Instant,
}

struct Address {
    route: Route,
    /// The number of its target, and its priority there.
    tier: (usize, u16),
    weight: u16,
    up: bool,
    /// It is down for a call that it did not take, and may be tried again then.
    again_at: Option<Instant>,
}

struct Registering {
    machine: Registration,
    /// Which of the addresses is asked.
    at: usize,
    begun: bool,
    registered: bool,
    /// The proxies calls go by (RFC 3608).
    routes: Vec<NameAddr>,
}

impl Trunks {
    /// Whether a Trunk sends from there.
    pub(super) fn knows(&self, source: IpAddr) -> bool {
        self.sources.contains_key(&source.to_canonical())
            || self
                .networks
                .iter()
                .any(|(network, _)| network.contains(source))
    }

    /// The Trunks that send from there.
    pub(super) fn of_source(&self, source: IpAddr) -> Vec<TrunkId> {
        let of_targets = self.sources.get(&source.to_canonical());
        let mut found = of_targets.cloned().unwrap_or_default();
        for (network, id) in &self.networks {
            if network.contains(source) && !found.contains(id) {
                found.push(id.clone());
            }
        }
        found
    }

    pub(super) fn get(&self, id: &TrunkId) -> Option<&TrunkState> {
        self.all.get(id)
    }

    /// Where calls to it go: those addresses that answer first, and the others all the same, for it is better to try. One that we
    /// are registered with is called where that holds.
    fn routes(&self, now: Instant, id: &TrunkId, rng: &mut dyn rand::Rng) -> VecDeque<Route> {
        let Some(trunk) = self.all.get(id) else {
            return VecDeque::new();
        };
        let registered_at = trunk.registering.as_ref().and_then(|registering| {
            let address = trunk.addresses.get(registering.at)?;
            registering.registered.then(|| address.route.clone())
        });
        let is_up = |address: &&Address| {
            address.up || address.again_at.is_some_and(|again_at| again_at <= now)
        };
        let (up, down): (Vec<_>, Vec<_>) = trunk.addresses.iter().partition(is_up);
        let mut routes: VecDeque<Route> = registered_at.into_iter().collect();
        for address in [in_order(up, rng), in_order(down, rng)].concat() {
            if !routes.contains(&address.route) {
                routes.push_back(address.route.clone());
            }
        }
        routes
    }

    pub(super) fn service_routes(&self, id: &TrunkId) -> Vec<NameAddr> {
        let registering = self
            .all
            .get(id)
            .and_then(|trunk| trunk.registering.as_ref());
        registering.map_or_else(Vec::new, |registering| registering.routes.clone())
    }

    /// A call begins, in either direction.
    ///
    /// # Errors
    ///
    /// What a caller is told of a Trunk that bears no more.
    pub(super) fn on_call(&mut self, now: Instant, id: &TrunkId) -> Result<(), StatusCode> {
        let trunk = self
            .all
            .get_mut(id)
            .ok_or(StatusCode::TEMPORARILY_UNAVAILABLE)?;
        let limits = trunk.row.limits;
        let per_second = f64::from(limits.calls_per_second);
        let passed = now.saturating_duration_since(trunk.filled_at).as_secs_f64();
        trunk.tokens = (trunk.tokens + passed * per_second).min(per_second * 2.0);
        trunk.filled_at = now;
        if trunk.calls >= limits.calls || trunk.tokens < 1.0 {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        trunk.tokens -= 1.0;
        trunk.calls += 1;
        Ok(())
    }

    pub(super) fn on_call_over(&mut self, id: &TrunkId) {
        if let Some(trunk) = self.all.get_mut(id) {
            trunk.calls = trunk.calls.saturating_sub(1);
        }
    }

    /// How many Trunks there are, and how many of them can be called: an address answers, and we are registered where that is wanted.
    pub(super) fn count(&self) -> (usize, usize) {
        let up = self.all.values().filter(|trunk| trunk.is_up());
        (self.all.len(), up.count())
    }

    /// Every Trunk and whether it can be called.
    pub(super) fn states(&self) -> impl Iterator<Item = (&TrunkId, bool)> {
        self.all.iter().map(|(id, trunk)| (id, trunk.is_up()))
    }

    /// Who is known by where they send from: all but those who have to show a password.
    fn find_sources(&mut self) {
        self.sources.clear();
        self.networks.clear();
        for (id, trunk) in &self.all {
            if matches!(trunk.row.peering, Peering::Inbound(_)) {
                continue;
            }
            for address in &trunk.addresses {
                let source = address.route.address.ip().to_canonical();
                let ids = self.sources.entry(source).or_default();
                if !ids.contains(id) {
                    ids.push(id.clone());
                }
            }
            let networks = trunk.row.networks.iter();
            self.networks
                .extend(networks.map(|network| (*network, id.clone())));
        }
    }
}

impl TrunkState {
    fn new(now: Instant, row: Arc<Trunk>) -> Self {
        Self {
            tokens: f64::from(row.limits.calls_per_second) * 2.0,
            filled_at: now,
            row,
            addresses: Vec::new(),
            found: BTreeMap::new(),
            registering: None,
            calls: 0,
        }
    }

    fn is_up(&self) -> bool {
        let registered = self
            .registering
            .as_ref()
            .is_none_or(|registering| registering.registered);
        let answers = self.addresses.iter().any(|address| address.up);
        registered && (answers || self.row.targets.is_empty())
    }

    /// Puts the addresses that were found in the order of the targets; what was known of each is kept.
    fn order_addresses(&mut self) {
        let mut addresses = Vec::new();
        for (number, target) in self.row.targets.iter().enumerate() {
            let hop = hop_of(target);
            let found = self.found.get(&hop).map(|(places, _)| places);
            for place in found.into_iter().flatten() {
                let route = Route {
                    transport: hop.transport,
                    address: place.address,
                    name: (hop.transport == Transport::Tls).then(|| target.host.as_str().into()),
                };
                let known = self.addresses.iter().find(|known| known.route == route);
                addresses.push(Address {
                    route,
                    tier: (number, place.priority),
                    weight: place.weight,
                    up: known.is_none_or(|known| known.up),
                    again_at: known.and_then(|known| known.again_at),
                });
            }
        }
        self.addresses = addresses;
    }
}

impl Exchange {
    /// Takes in all rows anew: what did not change goes on as it was, calls go on in any case.
    pub(crate) fn set_rows(&mut self, now: Instant, rows: Arc<Rows>) {
        let mut wanted: BTreeMap<TrunkId, Arc<Trunk>> = BTreeMap::new();
        for (account, telephony) in rows.iter() {
            for (name, trunk) in &telephony.trunks {
                if trunk.enabled {
                    wanted.insert((*account, name.clone()), Arc::new(trunk.clone()));
                }
            }
        }
        let known: Vec<TrunkId> = self.trunks.all.keys().cloned().collect();
        for id in known {
            let same = wanted
                .get(&id)
                .is_some_and(|row| self.trunks.get(&id).is_some_and(|trunk| trunk.row == *row));
            if same {
                wanted.remove(&id);
            } else {
                self.stop_registration(now, &id);
                let calls = self.trunks.all.remove(&id).map_or(0, |trunk| trunk.calls);
                for timer in [
                    Timer::Registration(id.clone()),
                    Timer::Health(id.clone()),
                    Timer::Lookup(id.clone()),
                ] {
                    self.timers.set(&timer, None);
                }
                if let Some(row) = wanted.remove(&id) {
                    self.begin_trunk(now, id.clone(), row);
                    if let Some(trunk) = self.trunks.all.get_mut(&id) {
                        trunk.calls = calls;
                    }
                }
            }
        }
        self.forget_phones(&rows);
        self.close_queues(&rows);
        self.strangers.set_rows(&rows);
        self.rows = rows;
        for (id, row) in wanted {
            self.begin_trunk(now, id, row);
        }
        self.trunks.find_sources();
        self.settle(now);
    }

    /// Every Trunk and whether it can be called.
    pub(crate) fn trunk_states(&self) -> Vec<(TrunkId, bool)> {
        let states = self.trunks.states();
        states.map(|(id, up)| (id.clone(), up)).collect()
    }

    fn begin_trunk(&mut self, now: Instant, id: TrunkId, row: Arc<Trunk>) {
        let health = row.health_seconds.is_some() && !row.targets.is_empty();
        self.trunks
            .all
            .insert(id.clone(), TrunkState::new(now, row));
        self.look_up(now, &id);
        if health && self.config.health_seconds > 0 {
            let spread = HEALTH_SPREAD.mul_f64((self.random() % 1_000) as f64 / 1_000.0);
            self.timers.set(&Timer::Health(id), Some(now + spread));
        }
    }

    /// Finds out where the targets of a Trunk are.
    pub(super) fn look_up(&mut self, now: Instant, id: &TrunkId) {
        let Some(trunk) = self.trunks.all.get(id) else {
            return;
        };
        let hops: Vec<Hop> = trunk.row.targets.iter().map(hop_of).collect();
        let mut has_names = false;
        for hop in hops {
            match hop.address() {
                Some(address) => self.on_trunk_resolved(now, &hop, &Found::at(address)),
                None => {
                    has_names = true;
                    self.outputs.push_back(super::Output::Resolve(hop));
                }
            }
        }
        let again = has_names.then(|| now + LOOKUP_INTERVAL);
        self.timers.set(&Timer::Lookup(id.clone()), again);
    }

    /// A name was looked up. One that leads nowhere now keeps the addresses it had: the names may be back before the Trunk is missed.
    pub(super) fn on_trunk_resolved(&mut self, now: Instant, hop: &Hop, found: &Found) {
        // An address of a family that no door of ours has is of no use.
        let mut places = found.places.clone();
        places.retain(|place| {
            let door = self.doors.reached_by(hop.transport, place.address.ip());
            door.is_some()
        });
        if places.is_empty() {
            return;
        }
        let mut moved = Vec::new();
        for (id, trunk) in &mut self.trunks.all {
            let concerns = trunk
                .row
                .targets
                .iter()
                .any(|target| hop_of(target) == *hop);
            let own = places.iter().all(|place| self.doors.is_own(place.address));
            if own && concerns {
                tracing::warn!(trunk = %id.1, account = %id.0, "Trunk leads back to this gateway, left out");
            } else if concerns {
                let new = (places.clone(), now + found.ttl);
                let old = trunk.found.insert(hop.clone(), new);
                if hop.address().is_none() {
                    let names = trunk
                        .found
                        .iter()
                        .filter(|(hop, _)| hop.address().is_none());
                    let first = names.map(|(_, (_, until))| *until).min();
                    self.timers.set(&Timer::Lookup(id.clone()), first);
                }
                if old.is_none_or(|(old, _)| old != places) {
                    trunk.order_addresses();
                    moved.push(id.clone());
                }
            }
        }
        if !moved.is_empty() {
            self.trunks.find_sources();
        }
        for id in moved {
            self.begin_registration(now, &id);
        }
    }

    /// Registers, if that is wanted and not under way.
    fn begin_registration(&mut self, now: Instant, id: &TrunkId) {
        let Some(trunk) = self.trunks.all.get(id) else {
            return;
        };
        let row = trunk.row.clone();
        let Peering::Registration(wanted) = &row.peering else {
            return;
        };
        if trunk.registering.is_some() {
            return;
        }
        let Some(route) = trunk.addresses.first().map(|address| address.route.clone()) else {
            return;
        };
        let door = self.doors.reached_by(route.transport, route.address.ip());
        let host = wanted
            .domain
            .as_ref()
            .or(row.targets.first().map(|target| &target.host));
        let (Some(door), Some(host)) = (door, host) else {
            tracing::warn!(trunk = %id.1, account = %id.0, "No address of [gateway] reaches this Trunk");
            return;
        };
        let user = wanted.user.as_str();
        let registrar = SipUri::new(None, host_of(host), None);
        let settings = registration::Settings {
            registrar: Uri::from(registrar),
            address: NameAddr::new(SipUri::new(Some(user), host_of(host), None)),
            contact: door.contact(Some(user)),
            credential: credential(&row),
            expires: wanted.expires_seconds,
            agent: AGENT.to_owned(),
        };
        let rng = &mut self.rng;
        let machine = Registration::new(settings, &mut || rand::Rng::next_u64(rng));
        if let Some(trunk) = self.trunks.all.get_mut(id) {
            trunk.registering = Some(Registering {
                machine,
                at: 0,
                begun: true,
                registered: false,
                routes: Vec::new(),
            });
        }
        self.step_registration(now, id, registration::Event::Start);
    }

    fn step_registration(&mut self, now: Instant, id: &TrunkId, event: registration::Event) {
        let rng = &mut self.rng;
        let registering = self
            .trunks
            .all
            .get_mut(id)
            .and_then(|trunk| trunk.registering.as_mut());
        let Some(registering) = registering else {
            return;
        };
        let actions = registering
            .machine
            .step(now, event, &mut || rand::Rng::next_u64(rng));
        let timeout = registering.machine.poll_timeout();
        self.timers.set(&Timer::Registration(id.clone()), timeout);
        for action in actions {
            match action {
                registration::Action::Request(request) => self.send_registration(now, id, *request),
                registration::Action::Tell(told) => self.on_registration_told(id, told),
            }
        }
    }

    fn send_registration(&mut self, now: Instant, id: &TrunkId, request: Request) {
        let trunk = self.trunks.all.get(id);
        let route = trunk.and_then(|trunk| {
            let at = trunk.registering.as_ref()?.at;
            let address = trunk.addresses.get(at % trunk.addresses.len().max(1))?;
            Some(address.route.clone())
        });
        if let Some(route) = route {
            self.send(now, Owner::Registration(id.clone()), &route, request);
        }
    }

    fn on_registration_told(&mut self, id: &TrunkId, told: registration::Told) {
        let trunk = self.trunks.all.get_mut(id);
        let Some(registering) = trunk.and_then(|trunk| trunk.registering.as_mut()) else {
            return;
        };
        let (account, name) = id;
        match told {
            registration::Told::Registered { expires, routes } => {
                registering.routes = routes;
                self.figures.registrations += 1;
                if !std::mem::replace(&mut registering.registered, true) {
                    let seconds = expires.as_secs();
                    tracing::info!(trunk = %name, %account, seconds, "Trunk registered");
                }
            }
            registration::Told::Failed { code, retry } => {
                registering.registered = false;
                registering.at = registering.at.wrapping_add(1);
                self.figures.registrations_failed += 1;
                let retry_seconds = retry.as_secs();
                tracing::warn!(
                    trunk = %name, %account, code = code.get(), retry_seconds, advice = advice(code),
                    "Trunk not registered"
                );
            }
            registration::Told::Stopped => registering.registered = false,
        }
    }

    pub(super) fn on_registration_timeout(&mut self, now: Instant, id: &TrunkId) {
        self.step_registration(now, id, registration::Event::Timeout);
    }

    pub(super) fn on_registration_response(
        &mut self,
        now: Instant,
        id: &TrunkId,
        incoming: Box<IncomingResponse>,
    ) {
        self.step_registration(now, id, registration::Event::Response(incoming));
    }

    pub(super) fn on_no_registration_response(
        &mut self,
        now: Instant,
        id: &TrunkId,
        code: StatusCode,
    ) {
        self.step_registration(now, id, registration::Event::NoResponse(code));
    }

    fn stop_registration(&mut self, now: Instant, id: &TrunkId) {
        let begun = self
            .trunks
            .all
            .get(id)
            .and_then(|trunk| trunk.registering.as_ref())
            .is_some_and(|registering| registering.begun);
        if begun {
            self.step_registration(now, id, registration::Event::Stop);
        }
    }

    /// Takes all registrations back.
    pub(super) fn stop_registrations(&mut self, now: Instant) {
        let ids: Vec<TrunkId> = self.trunks.all.keys().cloned().collect();
        for id in ids {
            self.timers.set(&Timer::Health(id.clone()), None);
            self.timers.set(&Timer::Lookup(id.clone()), None);
            self.stop_registration(now, &id);
        }
    }

    /// Asks every address of a Trunk whether it is there (RFC 3261 §11).
    pub(super) fn on_health_timeout(&mut self, now: Instant, id: &TrunkId) {
        let Some(trunk) = self.trunks.all.get(id) else {
            return;
        };
        let every = trunk.row.health_seconds.unwrap_or_default();
        let every = Duration::from_secs(u64::from(every).max(self.config.health_seconds));
        let routes: Vec<Route> = trunk
            .addresses
            .iter()
            .map(|address| address.route.clone())
            .collect();
        self.timers
            .set(&Timer::Health(id.clone()), Some(now + every));
        for route in routes {
            let owner = Owner::Health(id.clone(), route.address);
            let asked = self.asked.values().any(|asked| asked.owner == owner);
            let door = self
                .doors
                .reached_by(route.transport, route.address.ip())
                .copied();
            if let (false, Some(door)) = (asked, door) {
                let request = self.options(&route, &door);
                self.send(now, owner, &route, request);
            }
        }
    }

    fn options(&mut self, route: &Route, door: &crate::doors::Door) -> Request {
        let own = gateway_sip::Host::Ip(door.public.ip());
        let there = match &route.name {
            Some(name) => gateway_sip::Host::Name(name.to_string()),
            None => gateway_sip::Host::Ip(route.address.ip()),
        };
        let target = Uri::from(SipUri::new(None, there, Some(route.address.port())));
        let (tag, call_id) = (self.word(), self.word());
        let mut request = Request::new(Method::Options, &target);
        let headers = &mut request.headers;
        let from = NameAddr::new(SipUri::new(Some("ping"), own, None)).with_tag(&tag);
        headers.push(HeaderName::MaxForwards, MAX_FORWARDS_DEFAULT);
        headers.push(HeaderName::From, from);
        headers.push(HeaderName::To, NameAddr::new(target));
        headers.push(HeaderName::CallId, call_id);
        headers.push(HeaderName::CSeq, "1 OPTIONS");
        headers.push(HeaderName::Contact, door.contact(None));
        headers.push(HeaderName::Accept, "application/sdp");
        headers.push(HeaderName::UserAgent, AGENT);
        request
    }

    /// Where calls to a Trunk go now.
    pub(super) fn routes(&mut self, now: Instant, id: &TrunkId) -> VecDeque<Route> {
        self.trunks.routes(now, id, &mut self.rng)
    }

    /// An address of a Trunk took no call, and is tried after all others for so long.
    pub(super) fn shun(&mut self, now: Instant, id: &TrunkId, address: SocketAddr, time: Duration) {
        self.on_health(id, address, false);
        let trunk = self.trunks.all.get_mut(id);
        for known in trunk.into_iter().flat_map(|trunk| &mut trunk.addresses) {
            if known.route.address == address {
                known.again_at = Some(now + time);
            }
        }
    }

    /// An address of a Trunk answers, or does not.
    pub(super) fn on_health(&mut self, id: &TrunkId, address: SocketAddr, up: bool) {
        let Some(trunk) = self.trunks.all.get_mut(id) else {
            return;
        };
        let mut changed = false;
        for known in &mut trunk.addresses {
            if known.route.address == address {
                known.again_at = None;
                changed |= std::mem::replace(&mut known.up, up) != up;
            }
        }
        if changed && up {
            tracing::info!(trunk = %id.1, account = %id.0, %address, "Trunk answers again");
        } else if changed {
            tracing::warn!(trunk = %id.1, account = %id.0, %address, "Trunk does not answer");
        }
    }
}

/// By targets and priorities; among equals each comes first as often as its weight says (RFC 2782).
fn in_order<'a>(mut rest: Vec<&'a Address>, rng: &mut dyn rand::Rng) -> Vec<&'a Address> {
    // Those without a weight stand first, and have the least chance so.
    rest.sort_by_key(|address| (address.tier, address.weight));
    let mut ordered = Vec::with_capacity(rest.len());
    while let Some(first) = rest.first() {
        let tier = first.tier;
        let equals = rest.iter().take_while(|address| address.tier == tier);
        let sum: u64 = equals
            .clone()
            .map(|address| u64::from(address.weight))
            .sum();
        // All of them fit 32 bits by far: the remainder favours nobody that could be noticed.
        let drawn = rng.next_u64() % (sum + 1);
        let mut passed = 0;
        let taken = equals.clone().position(|address| {
            passed += u64::from(address.weight);
            passed >= drawn
        });
        ordered.push(rest.remove(taken.unwrap_or(0)));
    }
    ordered
}

fn hop_of(target: &rows::Target) -> Hop {
    Hop {
        transport: match target.transport {
            rows::Transport::Udp => Transport::Udp,
            rows::Transport::Tcp => Transport::Tcp,
            rows::Transport::Tls => Transport::Tls,
        },
        host: match target.host.ip() {
            Some(ip) => Name::Ip(ip),
            None => Name::Name(target.host.as_str().to_owned()),
        },
        port: target.port,
    }
}

/// What an operator may do about a registration that failed.
fn advice(code: StatusCode) -> &'static str {
    match code.get() {
        401 | 403 | 407 => "see the trunk's user and password",
        404 => "see the trunk's user and domain: the provider knows no such address",
        408 | 503 => "see the trunk's targets: nobody answers there",
        423 => "let the trunk register for longer: `expires_seconds`",
        _ => "ask the provider about this code",
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn equals_share_by_their_weight_and_priorities_come_first() {
        let address = |port, tier, weight| Address {
            route: Route {
                transport: Transport::Udp,
                address: ([192, 0, 2, 1], port).into(),
                name: None,
            },
            tier,
            weight,
            up: true,
            again_at: None,
        };
        let all = [
            address(1, (0, 20), 0),
            address(2, (0, 10), 30),
            address(3, (0, 10), 10),
            address(4, (0, 10), 0),
            address(5, (1, 0), 0),
        ];
        let mut rng = StdRng::seed_from_u64(1);
        let mut first = [0; 6];
        for _ in 0..4_000 {
            let ordered = in_order(all.iter().rev().collect(), &mut rng);
            let ports: Vec<u16> = ordered.iter().map(|it| it.route.address.port()).collect();
            assert_eq!(ports[3..], [1, 5]);
            first[usize::from(ports[0])] += 1;
        }
        assert!((2_700..3_100).contains(&first[2]), "{first:?}");
        assert!((800..1_100).contains(&first[3]), "{first:?}");
        assert!((1..200).contains(&first[4]), "{first:?}");
    }
}
