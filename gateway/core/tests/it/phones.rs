//! Two Legs that call one another over the made-up network, each above its own transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_core::leg::{
    Action, Credential, Event, Leg, Order, Outgoing, Quirks, Reliable, RequestId, SessionPolicy,
    Settings, Told,
};
use gateway_core::transaction::{ClientId, Output, ServerId, Transport};
use gateway_sip::negotiate::{Capabilities, Codec, KEY_BYTES_LEN, Local, MasterKeyBytes, Security};
use gateway_sip::{Headers, Method, NameAddr, Response, StatusCode, Uri};
use sim::{Link, Rng};

use crate::world::{A, B, World};

/// Two phones; A calls.
pub(crate) struct Phones {
    pub(crate) world: World,
    legs: [Option<Leg>; 2],
    clients: [BTreeMap<ClientId, RequestId>; 2],
    invites: [BTreeMap<RequestId, ClientId>; 2],
    rng: Rng,
    /// What each Leg told its call.
    pub(crate) told: [Vec<Told>; 2],
    pub(crate) settings: [Settings; 2],
    /// What B does with an INVITE as soon as it comes.
    pub(crate) on_invite: Vec<Order>,
}

impl Phones {
    pub(crate) fn new() -> Self {
        let link = Link {
            latency: Duration::from_millis(10),
            ..Link::default()
        };
        Self::with_link(link, 1)
    }

    pub(crate) fn with_link(link: Link, seed: u64) -> Self {
        Self {
            world: World::with_link(Transport::Udp, seed, link),
            legs: [None, None],
            clients: [BTreeMap::new(), BTreeMap::new()],
            invites: [BTreeMap::new(), BTreeMap::new()],
            rng: Rng::new(seed),
            told: [Vec::new(), Vec::new()],
            settings: [settings(1), settings(2)],
            on_invite: Vec::new(),
        }
    }

    /// Two phones of which B has answered A.
    pub(crate) fn talking() -> Self {
        let mut t = Self::new();
        t.on_invite = vec![Order::Answer];
        t.call();
        t.advance(Duration::from_millis(500));
        assert!(t.told[A].contains(&Told::Answered), "{:?}", t.told);
        t
    }

    pub(crate) fn has_leg(&self, end: usize) -> bool {
        self.legs[end].is_some()
    }

    pub(crate) fn leg(&self, end: usize) -> &Leg {
        self.legs[end].as_ref().expect("it has begun")
    }

    pub(crate) fn call(&mut self) {
        let outgoing = Outgoing {
            from: address("sip:a@192.0.2.1"),
            to: address("sip:b@192.0.2.2"),
            target: Uri::parse("sip:b@192.0.2.2").expect("a URI"),
            routes: Vec::new(),
            headers: Headers::new(),
            max_forwards: 70,
        };
        let (leg, actions) =
            Leg::call(self.settings[A].clone(), &outgoing, &mut || self.rng.bits());
        self.legs[A] = Some(leg);
        self.act(A, actions);
    }

    pub(crate) fn order(&mut self, end: usize, order: Order) {
        self.step(end, Event::Order(order));
    }

    pub(crate) fn hang_up(&mut self, end: usize) {
        self.order(
            end,
            Order::End {
                code: StatusCode::DECLINE,
                cause: None,
            },
        );
    }

    /// Lets everything happen that happens within `time`.
    pub(crate) fn advance(&mut self, time: Duration) {
        let until = self.world.now() + time;
        loop {
            let next = [A, B]
                .into_iter()
                .filter_map(|end| self.legs[end].as_ref()?.poll_timeout())
                .min();
            let to = next.unwrap_or(until).min(until).max(self.world.now());
            // In small steps, so that what the transactions tell is heard in time.
            let step = (to - self.world.now())
                .min(Duration::from_millis(5))
                .max(Duration::from_millis(1));
            let busy = self.world.ends.iter().any(|end| !end.is_empty());
            self.world.advance(if busy || to == self.world.now() {
                step
            } else {
                to - self.world.now()
            });
            self.hear();
            for end in [A, B] {
                let due = self.legs[end].as_ref().and_then(Leg::poll_timeout);
                if due.is_some_and(|due| due <= self.world.now()) {
                    self.step(end, Event::Timeout);
                }
            }
            if self.world.now() >= until {
                return;
            }
        }
    }

    fn hear(&mut self) {
        for end in [A, B] {
            for output in std::mem::take(&mut self.world.told[end]) {
                self.on_output(end, output);
            }
        }
    }

    fn on_output(&mut self, end: usize, output: Output) {
        let of = |this: &Self, id| this.clients[end].get(&id).copied();
        let event = match output {
            Output::Response { id, incoming, .. } => {
                of(self, id).map(|of| Event::Response { of, incoming })
            }
            Output::TimedOut(id) => of(self, id).map(|of| Event::NoResponse {
                of,
                code: StatusCode::REQUEST_TIMEOUT,
            }),
            Output::Failed(id) => of(self, id).map(|of| Event::NoResponse {
                of,
                code: StatusCode::SERVICE_UNAVAILABLE,
            }),
            Output::Ack { incoming, .. } => Some(Event::Ack(incoming)),
            Output::Cancelled { .. } => Some(Event::Cancelled),
            Output::Unacknowledged(id) => Some(Event::Unacknowledged(id)),
            Output::NoPrack(_) => Some(Event::NoPrack),
            Output::Request { id, incoming, .. }
                if self.legs[end].is_none() && incoming.request.method == Method::Invite =>
            {
                let settings = self.settings[end].clone();
                match Leg::receive(settings, id, &incoming, &mut || self.rng.bits()) {
                    Ok(leg) => {
                        self.legs[end] = Some(leg);
                        for order in self.on_invite.clone() {
                            self.order(end, order);
                        }
                    }
                    Err(response) => self.world.respond(end, id, &response),
                }
                None
            }
            Output::Request { id, incoming, .. } => Some(Event::Request { id, incoming }),
            Output::Send { .. } => None,
        };
        if let Some(event) = event {
            self.step(end, event);
        }
    }

    fn step(&mut self, end: usize, event: Event) {
        let now = self.world.now();
        let Some(leg) = &mut self.legs[end] else {
            return;
        };
        let actions = leg.step(now, event, &mut || self.rng.bits());
        self.act(end, actions);
    }

    fn act(&mut self, end: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Request { id, request, .. } => {
                    let client = self.world.request(end, request);
                    self.clients[end].insert(client, id);
                    self.invites[end].insert(id, client);
                }
                Action::Cancel(id) => {
                    let client = self.invites[end][&id];
                    self.world
                        .act(end, |transactions, now| transactions.cancel(now, client));
                }
                Action::Respond {
                    id,
                    response,
                    reliable,
                } => self.respond(end, id, &response, reliable),
                Action::Acknowledged(id) => self
                    .world
                    .act(end, |transactions, _| transactions.acknowledged(id)),
                Action::Proven(id) => self
                    .world
                    .act(end, |transactions, _| transactions.proven(id)),
                Action::Tell(told) => self.told[end].push(told),
            }
        }
    }

    fn respond(&mut self, end: usize, id: ServerId, response: &Response, reliable: bool) {
        if reliable {
            self.world.act(end, |transactions, now| {
                transactions.respond_reliably(now, id, response);
            });
        } else {
            self.world.respond(end, id, response);
        }
    }
}

pub(crate) fn address(uri: &str) -> NameAddr {
    NameAddr::new(Uri::parse(uri).expect("a URI"))
}

pub(crate) fn settings(end: u8) -> Settings {
    Settings {
        contact: address(&format!("sip:us@192.0.2.{end}:5060")),
        agent: "offhook".to_owned(),
        credential: Some(Credential {
            username: "us".to_owned(),
            password: "secret".to_owned().into(),
        }),
        reliable: Reliable::Accept,
        session: SessionPolicy::default(),
        capabilities: Capabilities {
            codecs: vec![Codec::Pcma, Codec::Pcmu],
            dtmf: true,
            comfort_noise: false,
            security: Security::Accept,
        },
        local: Local {
            address: [192, 0, 2, end].into(),
            port: 20_000,
            session: 1,
            version: 1,
            key_bytes: MasterKeyBytes([end; KEY_BYTES_LEN].into()),
            fingerprint: None,
            active: None,
        },
        quirks: Quirks::default(),
    }
}
