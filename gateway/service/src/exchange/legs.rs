//! Legs and calls, driven: what a Leg's actions mean for sockets and media, and a call's for its Legs.

use std::collections::HashMap;
use std::time::Instant;

use foldhash::fast::RandomState;
use gateway_core::call::{self, LegKey};
use gateway_core::leg::{self, Ended, Leg, Order, RequestId, Told, Why};
use gateway_core::transaction::{ClientId, Flow, TIMEOUT, Transport};
use gateway_sip::negotiate::Agreed;
use gateway_sip::sanity::IncomingResponse;
use gateway_sip::sdp::Direction;
use gateway_sip::{Method, Request, StatusCode, Uri};
use model::phone::rows::{LegRecord, SipUser};
use model::phone::{Key, PhoneEvent, PhoneEventKind, PhonePlace};
use model::plain::{End, NoSeat};
use model::{CallId, TrackId};

use super::outgoing::Attempt;
use super::trunks::TrunkId;
use super::{Exchange, Output, Owner, Route, Side, Timer, is_inner};
use crate::resolve::{Found, Hop};
use crate::sound::{self, EventKind, LegId, To};

/// The most requests of one Leg that wait for the name of their host.
const UNSENT_MAX: usize = 16;

/// A Leg that speaks SIP.
pub(super) struct SipLeg {
    pub(super) call: CallId,
    pub(super) key: LegKey,
    pub(super) leg: Leg,
    pub(super) trunk: Option<TrunkId>,
    /// The desk phone that it is; its messages go by the way it came on and no other.
    pub(super) desk: Option<SipUser>,
    /// How the other side's messages come.
    pub(super) way: Option<Sticky>,
    /// What is kept of it.
    pub(super) record: Option<Box<LegRecord>>,
    /// A Leg of ours that nobody has answered yet.
    pub(super) attempt: Option<Attempt>,
    /// The transactions of its requests.
    clients: HashMap<RequestId, ClientId, RandomState>,
    /// Requests whose host is being looked up.
    unsent: Vec<(Hop, RequestId, Request)>,
    /// Whether its ports are open.
    pub(super) has_sound: bool,
    /// Where it is heard.
    pub(super) seat: Option<PhonePlace>,
    /// Who is heard there in its stead.
    pub(super) heir: Option<LegId>,
    /// Another Leg was dialled in its place: what it has to say is of interest to nobody.
    pub(super) detached: bool,
    /// The other side holds us.
    held: bool,
    answered: bool,
}

/// The way the other side's messages come, and who that is for TLS.
#[derive(Debug, Clone)]
pub(super) struct Sticky {
    pub(super) flow: Flow,
    pub(super) name: Option<std::sync::Arc<str>>,
}

impl SipLeg {
    pub(super) fn new(call: CallId, key: LegKey, leg: Leg) -> Self {
        Self {
            call,
            key,
            leg,
            trunk: None,
            desk: None,
            way: None,
            record: None,
            attempt: None,
            clients: HashMap::default(),
            unsent: Vec::new(),
            has_sound: true,
            seat: None,
            heir: None,
            detached: false,
            held: false,
            answered: false,
        }
    }

    /// Whether both sides talk, or did.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    pub(super) fn sent(&mut self, request: RequestId, client: ClientId) {
        self.clients.insert(request, client);
    }

    fn client_of(&self, request: RequestId) -> Option<ClientId> {
        self.clients.get(&request).copied()
    }
}

/// Where a request of a dialog goes.
enum Where {
    Route(Route),
    Flow(Flow),
    LookUp(Hop),
    Nowhere,
}

impl Exchange {
    pub(super) fn step_leg(&mut self, now: Instant, id: LegId, event: leg::Event) {
        let rng = &mut self.rng;
        let Some(leg) = self.legs.get_mut(&id) else {
            return;
        };
        // Of an INVITE more than one 2xx may come.
        if let leg::Event::Response { of, incoming } = &event
            && incoming.response.code.is_final()
            && !(incoming.envelope.cseq.method == Method::Invite
                && incoming.response.code.is_success())
        {
            leg.clients.remove(of);
        }
        let actions = leg.leg.step(now, event, &mut || rand::Rng::next_u64(rng));
        self.act_for_leg(now, id, actions);
    }

    pub(super) fn act_for_leg(&mut self, now: Instant, id: LegId, actions: Vec<leg::Action>) {
        // What is agreed on by the answer itself is not early media.
        let answers = actions.contains(&leg::Action::Tell(Told::Answered));
        for action in actions {
            match action {
                leg::Action::Request {
                    id: of,
                    hop,
                    request,
                } => self.send_of_leg(now, id, of, &hop, request),
                leg::Action::Cancel(of) => {
                    let client = self.legs.get(&id).and_then(|leg| leg.client_of(of));
                    if let Some(client) = client {
                        self.transactions.cancel(now, client);
                    }
                }
                leg::Action::Respond {
                    id,
                    response,
                    reliable: true,
                } => self.transactions.respond_reliably(now, id, &response),
                leg::Action::Respond { id, response, .. } => {
                    self.transactions.respond(now, id, &response);
                }
                leg::Action::Acknowledged(id) => self.transactions.acknowledged(id),
                leg::Action::Proven(id) => self.transactions.proven(id),
                leg::Action::Tell(Told::Media(agreed)) if answers => self.on_agreed(id, &agreed),
                leg::Action::Tell(told) => self.on_told(now, id, told),
            }
        }
        if let Some(leg) = self.legs.get(&id) {
            self.timers.set(&Timer::Leg(id), leg.leg.poll_timeout());
        }
    }

    fn send_of_leg(&mut self, now: Instant, id: LegId, of: RequestId, hop: &Uri, request: Request) {
        let Some(leg) = self.legs.get(&id) else {
            return;
        };
        let owner = Owner::Leg(id, of);
        match self.way_of(leg, hop, &request.method) {
            Where::Route(route) => self.send(now, owner, &route, request),
            Where::Flow(flow) => self.send_on(now, owner, flow, request, None),
            Where::LookUp(hop) => {
                self.outputs.push_back(Output::Resolve(hop.clone()));
                if let Some(leg) = self.legs.get_mut(&id)
                    && leg.unsent.len() < UNSENT_MAX
                {
                    leg.unsent.push((hop, of, request));
                }
            }
            Where::Nowhere => {
                self.tell_no_response(now, owner, StatusCode::SERVICE_UNAVAILABLE);
            }
        }
    }

    /// Where a request of this Leg goes. An INVITE that begins one goes where its attempt goes; whatever follows goes where the dialog
    /// says, unless that is an address nobody but the other side can reach: then the way the other side's messages come.
    fn way_of(&self, leg: &SipLeg, hop: &Uri, method: &Method) -> Where {
        if let Some(attempt) = &leg.attempt
            && *method == Method::Invite
        {
            return Where::Route(attempt.route.clone());
        }
        if leg.desk.is_some() {
            let is_open =
                |flow: &Flow| !flow.transport.is_reliable() || self.open.contains_key(&flow.socket);
            let way = leg.way.as_ref().map(|way| way.flow);
            return way.filter(is_open).map_or(Where::Nowhere, Where::Flow);
        }
        let Some(hop) = hop.sip().and_then(Hop::of) else {
            return Where::Nowhere;
        };
        let Some(address) = hop.address() else {
            return Where::LookUp(hop);
        };
        if let Some(way) = &leg.way {
            let behind_nat = is_inner(address.ip()) && !is_inner(way.flow.remote.ip());
            let connected = way.flow.transport.is_reliable()
                && self.open.contains_key(&way.flow.socket)
                && hop.transport == way.flow.transport
                && way.flow.remote.ip() == address.ip();
            if behind_nat
                && (way.flow.transport == Transport::Udp
                    || self.open.contains_key(&way.flow.socket))
                || connected
            {
                return Where::Flow(way.flow);
            }
        }
        if self.doors.is_own(address) {
            return Where::Nowhere;
        }
        Where::Route(Route {
            transport: hop.transport,
            address,
            name: leg.way.as_ref().and_then(|way| way.name.clone()),
        })
    }

    /// Names of hosts in dialogs were looked up.
    pub(super) fn on_hop_resolved(&mut self, now: Instant, hop: &Hop, found: &Found) {
        let mut ready = Vec::new();
        for (id, leg) in &mut self.legs {
            let name = match &hop.host {
                crate::resolve::Name::Name(name) => Some(name.as_str().into()),
                crate::resolve::Name::Ip(_) => None,
            };
            for (_, of, request) in leg.unsent.extract_if(.., |(known, ..)| known == hop) {
                ready.push((*id, of, request, name.clone()));
            }
        }
        for (id, of, request, name) in ready {
            let owner = Owner::Leg(id, of);
            match found.places.first() {
                Some(place) if !self.doors.is_own(place.address) => {
                    let route = Route {
                        transport: hop.transport,
                        address: place.address,
                        name,
                    };
                    self.send(now, owner, &route, request);
                }
                _ => self.tell_no_response(now, owner, StatusCode::SERVICE_UNAVAILABLE),
            }
        }
    }

    /// A response to a request of a Leg.
    pub(super) fn on_leg_response(
        &mut self,
        id: LegId,
        of: RequestId,
        flow: Flow,
        incoming: Box<IncomingResponse>,
    ) {
        let Some(leg) = self.legs.get_mut(&id) else {
            return;
        };
        if let Some(attempt) = &mut leg.attempt {
            let is_first = !std::mem::replace(&mut attempt.heard, true);
            leg.way = Some(Sticky {
                flow,
                name: attempt.route.name.clone(),
            });
            let trunk = leg.trunk.clone().filter(|_| is_first);
            let address = attempt.route.address;
            if let Some(trunk) = trunk {
                self.on_health(&trunk, address, true);
            }
        }
        self.tell_leg(id, leg::Event::Response { of, incoming });
    }

    /// A Leg has news for its call.
    fn on_told(&mut self, now: Instant, id: LegId, told: Told) {
        let Some(leg) = self.legs.get_mut(&id) else {
            return;
        };
        let (call, key) = (leg.call, leg.key);
        if leg.detached {
            match told {
                Told::Ended(ended) => self.on_leg_over(now, id, Some(ended)),
                Told::Redirected(_) => self.on_leg_over(now, id, None),
                _ => {}
            }
            return;
        }
        match &told {
            Told::Media(agreed) => self.on_agreed(id, agreed),
            Told::Progress(_) => {
                if let Some(attempt) = &mut leg.attempt {
                    attempt.progressed = true;
                }
                self.record_ringing(now, id);
            }
            Told::Answered => {
                leg.answered = true;
                leg.attempt = None;
                self.timers.set(&Timer::Attempt(id), None);
                self.record_answer(now, id);
                self.on_phone_answered(now, call, key);
            }
            Told::Ended(ended) => {
                if self.try_next_address(now, id, *ended) {
                    return;
                }
                self.on_leg_over(now, id, Some(*ended));
            }
            Told::Redirected(_) => self.on_leg_over(now, id, None),
            Told::Refer { .. } | Told::Referred(_) | Told::Key(_) => {}
        }
        if let Told::Key(pressed) = told
            && self.on_key(now, call, key, pressed)
        {
            return;
        }
        self.tell_call(call, call::Event::Told { leg: key, told });
    }

    /// A phone answered a call that rings Users, too.
    pub(super) fn on_phone_answered(&mut self, now: Instant, id: CallId, key: LegKey) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let user = call.users.get(&key).cloned();
        call.answered |= !call.dialled;
        if std::mem::take(&mut call.rings_people) {
            self.tell_people(id, PhoneEventKind::AnsweredElsewhere);
        }
        if let Some(user) = user {
            self.on_member_talks(now, id, &user);
        }
        self.on_talk(now, id);
    }

    /// Media was agreed on, for the first time or anew. Whether the other side holds us is what the direction says, once the call is up.
    fn on_agreed(&mut self, id: LegId, agreed: &Agreed) {
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.has_sound) else {
            return;
        };
        self.sound.agree(id, agreed);
        let held = matches!(agreed.direction, Direction::RecvOnly | Direction::Inactive);
        if leg.answered && std::mem::replace(&mut leg.held, held) != held {
            let call = leg.call;
            self.tell_people(call, PhoneEventKind::Held { on: held });
        }
    }

    /// The Leg has ended: its media is over at once, and it is kept for what comes late.
    pub(super) fn on_leg_over(&mut self, now: Instant, id: LegId, ended: Option<Ended>) {
        self.record_end(now, id, ended);
        let Some(leg) = self.legs.get_mut(&id) else {
            return;
        };
        leg.attempt = None;
        let trunk = leg.trunk.take();
        if !self.legs.get(&id).is_some_and(|leg| self.keeps_place(leg)) {
            self.close_sound(id);
        }
        self.on_desk_left(now, id);
        if let Some(trunk) = trunk {
            self.trunks.on_call_over(&trunk);
        }
        self.forget_hearing(id);
        self.timers.set(&Timer::Attempt(id), None);
        self.timers.set(&Timer::Forget(id), Some(now + TIMEOUT));
    }

    pub(super) fn forget_leg(&mut self, now: Instant, id: LegId) {
        if self.legs.get(&id).is_some_and(|leg| leg.has_sound) {
            return self.timers.set(&Timer::Forget(id), Some(now + TIMEOUT));
        }
        if let Some(leg) = self.legs.remove(&id) {
            self.endpoint.remove(leg.leg.name());
            self.timers.set(&Timer::Leg(id), None);
            for client in leg.clients.values() {
                self.asked.remove(client);
            }
            self.invites.retain(|_, known| *known != id);
        }
    }

    pub(super) fn step_call(&mut self, now: Instant, id: CallId, event: call::Event) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let actions = call.call.step(now, event);
        self.act_for_call(now, id, actions);
    }

    pub(super) fn act_for_call(&mut self, now: Instant, id: CallId, actions: Vec<call::Action>) {
        let mut rung = Vec::new();
        for action in actions {
            match action {
                call::Action::Order { leg, order } => self.order(now, id, leg, order),
                call::Action::Call { leg, target } => {
                    rung.extend(self.begin_leg(now, id, leg, target));
                }
                call::Action::Bridge(one, other) => self.bridge(id, one, other),
                call::Action::Ringback(leg) if !self.waits(id) => {
                    self.connect(id, leg, To::Ringback);
                }
                call::Action::Ringback(_) => {} // It hears music.
                call::Action::Lead(ended) => self.on_lead(now, id, ended),
                call::Action::Music { leg, on } => self.music(id, leg, on),
                call::Action::Key { leg, key } => {
                    let side = self.calls.get(&id).and_then(|call| call.sides.get(&leg));
                    if let Some(Side::Sip(leg)) = side {
                        let leg = *leg;
                        self.press(leg, key);
                    }
                }
                call::Action::Transfer {
                    by,
                    target,
                    replaces,
                } => self.on_transfer(now, id, by, &target, replaces.as_ref()),
                call::Action::Over(ended) => self.on_call_over(now, id, ended),
            }
        }
        if !rung.is_empty() {
            self.ring_people(id, rung);
        }
        if let Some(call) = self.calls.get(&id) {
            self.timers.set(&Timer::Call(id), call.call.poll_timeout());
        }
    }

    pub(super) fn order(&mut self, now: Instant, id: CallId, key: LegKey, order: Order) {
        if matches!(order, Order::ReferProgress(code) if code.is_final() && !code.is_success()) {
            self.give_back(now, id);
        }
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        match call.sides.get(&key) {
            Some(Side::Sip(leg)) => {
                let leg = *leg;
                // Who waits in a Queue is answered before anybody is there.
                call.answered |= matches!(order, Order::Answer) && !call.taken_up;
                if matches!(order, Order::Answer)
                    && let Some(leg) = self.legs.get_mut(&leg)
                {
                    leg.answered = true;
                }
                match order {
                    Order::Ring => self.record_ringing(now, leg),
                    Order::Answer => self.record_answer(now, leg),
                    _ => {}
                }
                self.tell_leg(leg, leg::Event::Order(order));
            }
            Some(Side::User(_)) => self.order_people(id, key, &order),
            None => {}
        }
    }

    /// Two sides hear one another: phones each other, a phone the Room of a User.
    fn bridge(&mut self, id: CallId, one: LegKey, other: LegKey) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let side = |key| call.sides.get(&key).cloned();
        match (side(one), side(other)) {
            (Some(Side::Sip(one)), Some(Side::Sip(other))) => {
                self.let_hear(one, To::Leg(other));
                self.let_hear(other, To::Leg(one));
            }
            (Some(Side::Sip(leg)), Some(Side::User(_)))
            | (Some(Side::User(_)), Some(Side::Sip(leg))) => self.attach(id, leg),
            _ => {}
        }
    }

    /// Whether a call waits in a Queue.
    fn waits(&self, id: CallId) -> bool {
        let leading = self.calls.get(&id).and_then(|call| call.leading.as_ref());
        leading.is_some_and(|leading| leading.queue.is_some())
    }

    pub(super) fn connect(&mut self, id: CallId, key: LegKey, to: To) {
        let side = self.calls.get(&id).and_then(|call| call.sides.get(&key));
        if let Some(Side::Sip(leg)) = side {
            let leg = *leg;
            self.let_hear(leg, to);
        }
    }

    /// A Leg whose other one does not listen hears music; in a Room, that is for those who are there to say.
    fn music(&mut self, id: CallId, key: LegKey, on: bool) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let Some(Side::Sip(leg)) = call.sides.get(&key) else {
            return;
        };
        let leg = *leg;
        if on {
            self.let_hear(leg, To::Music);
        } else {
            // Legs that are over are among the sides, too.
            if let Some(other) = call.call.partner(key) {
                self.bridge(id, key, other);
            }
        }
    }

    /// Presses a key on a phone: in its media where events are agreed on (RFC 4733), else by INFO.
    pub(super) fn press(&mut self, id: LegId, pressed: char) {
        let agreed = self.legs.get(&id).and_then(|leg| leg.leg.agreed());
        if agreed.is_some_and(|agreed| agreed.dtmf.is_some()) {
            self.sound.key(id, pressed);
        } else {
            self.tell_leg(id, leg::Event::Order(Order::Key(pressed)));
        }
    }

    /// Whether a Leg is the one that waits in its call, or is attended to.
    fn waits_itself(&self, call: CallId, key: LegKey) -> bool {
        let call = self.calls.get(&call);
        call.is_some_and(|call| call.call.holder() == key)
    }

    /// A phone has pressed a key; whether it was for the gateway itself. If not, the Users of its call hear of it.
    fn on_key(&mut self, now: Instant, call: CallId, key: LegKey, pressed: char) -> bool {
        if self.waits_itself(call, key) && self.on_attended_key(now, call, pressed) {
            return true;
        }
        self.tell_key(call, pressed);
        false
    }

    /// A User hears which key a phone has pressed.
    fn tell_key(&mut self, call: CallId, pressed: char) {
        if let Ok(key) = Key::from_char(pressed) {
            self.tell_people(call, PhoneEventKind::Key(key));
        }
    }

    pub(super) fn tell_people(&mut self, id: CallId, kind: PhoneEventKind) {
        if let Some(call) = self.calls.get(&id)
            && call.told
            && !call.ended
        {
            self.outputs.push_back(Output::Tell(PhoneEvent {
                account: call.account,
                call: id,
                kind,
            }));
        }
    }

    pub(super) fn on_sound(&mut self, now: Instant, event: sound::Event) {
        let sound::Event { leg: id, kind } = event;
        if let EventKind::Closed(figures) = kind {
            self.record_sound(id, &figures);
            return self.figures.media(&figures);
        }
        // It comes back from a Leg that is over, too.
        if let EventKind::Recorded(tape) = kind {
            return self.on_recorded(now, id, tape);
        }
        // One that is over may keep its place for another.
        let Some(leg) = self.legs.get(&id).filter(|leg| !leg.leg.is_over()) else {
            return;
        };
        let (call, key) = (leg.call, leg.key);
        match kind {
            EventKind::Key(pressed) => {
                if !self.on_key(now, call, key, pressed) {
                    let told = Told::Key(pressed);
                    self.tell_call(call, call::Event::Told { leg: key, told });
                }
            }
            EventKind::Played(number) if self.waits_itself(call, key) => {
                self.on_played(now, call, number);
            }
            EventKind::Silent => {
                self.figures.silent_ended += 1;
                tracing::info!(%call, "Nothing was heard of a phone for too long, call ended");
                self.give_up(id, StatusCode::REQUEST_TIMEOUT, Why::Expired);
            }
            EventKind::NoKeys => {
                self.figures.no_keys += 1;
                self.give_up(id, StatusCode::NOT_ACCEPTABLE_HERE, Why::Media);
            }
            EventKind::RoomLost => {
                self.give_up(id, StatusCode::SERVER_INTERNAL_ERROR, Why::Protocol);
            }
            EventKind::Played(_) | EventKind::Recorded(_) | EventKind::Closed(_) => {}
        }
    }

    /// A place in a Room was found, or there is none: then nobody would hear the phone.
    pub(super) fn on_seat(&mut self, id: LegId, track: TrackId, end: Result<End, NoSeat>) {
        let id = self.legs.get(&id).and_then(|leg| leg.heir).unwrap_or(id);
        let Some(leg) = self.legs.get(&id).filter(|leg| leg.has_sound) else {
            return; // The call is over by now.
        };
        let call = leg.call;
        match end {
            Ok(end) => self.let_hear(id, To::Room(Box::new(end), track)),
            Err(error) => {
                self.figures.no_seat += 1;
                tracing::warn!(%call, %error, "Phone has no place in its Room, call ended");
                self.give_up(id, StatusCode::SERVER_INTERNAL_ERROR, Why::Protocol);
            }
        }
    }

    /// Ends a call for what became of the media of one Leg: the call is told as if the Leg had said so, and the Leg is ended.
    fn give_up(&mut self, id: LegId, code: StatusCode, why: Why) {
        let Some(leg) = self.legs.get_mut(&id) else {
            return;
        };
        let (call, leg_key) = (leg.call, leg.key);
        let ended = Ended {
            code,
            cause: None,
            why,
        };
        let told = Told::Ended(ended);
        self.tell_call(call, call::Event::Told { leg: leg_key, told });
        self.tell_leg(id, leg::Event::Order(Order::End { code, cause: None }));
    }

    fn on_call_over(&mut self, now: Instant, id: CallId, ended: Ended) {
        self.end_for_people(id, ended);
        self.timers.set(&Timer::Call(id), None);
        self.timers.set(&Timer::Minutes(id), None);
        self.timers.set(&Timer::Attended(id), None);
        self.figures.calls_ended += 1;
        if let Some(call) = self.calls.remove(&id) {
            self.end_meters(now, &call.limits, false);
            self.end_outlays(now, &call.outside);
            self.close_kept(call.sides.into_values());
            let waits = call.leading.and_then(|leading| leading.queue);
            self.leave_queues(now, id, call.account, waits, call.talks);
        }
    }
}
