//! All transactions of a gateway.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use gateway_sip::sanity::{Cause, Incoming, IncomingRequest, IncomingResponse, Unfit};
use gateway_sip::{BRANCH_COOKIE, HeaderName, Host, Method, Request, Response, StatusCode, Via};

use super::client::{self, Client};
use super::key::{ClientKey, MergeKey, ServerKey};
use super::server::{self, Server};
use super::{ClientId, Flow, Output, ServerId, Transport};
use crate::Tokens;

/// The most transactions of ours at once.
pub const CLIENTS_MAX: usize = 100_000;
/// The most transactions of others at once. A request beyond it is answered with 503, and nothing is kept.
pub const SERVERS_MAX: usize = 100_000;

/// There are as many transactions as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{CLIENTS_MAX} transactions already")]
pub struct Full;

/// What was not taken, since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    unfit: [u64; Cause::ALL.len()],
    /// Requests beyond [`SERVERS_MAX`].
    pub overload: u64,
    /// Requests that came by two ways, answered with 482.
    pub merged: u64,
    /// Responses to no transaction of ours.
    pub stray: u64,
    /// Requests and responses that came again, and were answered again or dropped.
    pub again: u64,
}

impl Counters {
    /// How many messages were unfit for this cause.
    #[must_use]
    pub fn unfit(&self, cause: Cause) -> u64 {
        Cause::ALL
            .iter()
            .zip(self.unfit)
            .find(|(known, _)| **known == cause)
            .map_or(0, |(_, count)| count)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    Client(ClientId),
    Server(ServerId),
}

/// All transactions; see the [module](super).
pub struct Transactions {
    clients: BTreeMap<ClientId, (ClientKey, Client)>,
    client_ids: BTreeMap<ClientKey, ClientId>,
    servers: BTreeMap<ServerId, (ServerKey, Server)>,
    server_ids: BTreeMap<ServerKey, ServerId>,
    merges: BTreeMap<MergeKey, ServerId>,
    timeouts: BTreeSet<(Instant, Id)>,
    outputs: VecDeque<Output>,
    counters: Counters,
    last_id: u64,
    clients_max: usize,
    servers_max: usize,
}

impl Default for Transactions {
    fn default() -> Self {
        Self::with_limits(CLIENTS_MAX, SERVERS_MAX)
    }
}

impl Transactions {
    /// With other limits than [`CLIENTS_MAX`] and [`SERVERS_MAX`].
    #[must_use]
    pub fn with_limits(clients_max: usize, servers_max: usize) -> Self {
        Self {
            clients: BTreeMap::new(),
            client_ids: BTreeMap::new(),
            servers: BTreeMap::new(),
            server_ids: BTreeMap::new(),
            merges: BTreeMap::new(),
            timeouts: BTreeSet::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            last_id: 0,
            clients_max,
            servers_max,
        }
    }

    /// What was not taken.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many transactions there are: ours, others'.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.clients.len(), self.servers.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Transactions::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeouts.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timeouts.first().copied() {
            if at > now {
                break;
            }
            match id {
                Id::Client(id) => self.with_client(now, id, |client| client.on_timeout(now)),
                Id::Server(id) => self.with_server(id, |server| server.on_timeout(now)),
            }
        }
    }

    /// A message that [`gateway_sip::sanity::check`] took.
    pub fn handle_incoming(&mut self, now: Instant, flow: Flow, incoming: Incoming) {
        match incoming {
            Incoming::Request(request) => self.on_request(now, flow, request),
            Incoming::Response(response) => self.on_response(now, flow, response),
        }
    }

    /// A message that it did not take: counted, and answered without keeping anything.
    pub fn handle_unfit(&mut self, flow: Flow, unfit: Unfit) {
        if let Some(at) = Cause::ALL.iter().position(|cause| *cause == unfit.cause) {
            self.counters.unfit[at] += 1;
        }
        if let Some(answer) = unfit.answer {
            self.respond_statelessly(flow, *answer);
        }
    }

    /// Answers a request that was not handed in, and keeps nothing of it (RFC 3261 §8.2.7): that is how strangers are challenged or
    /// refused. Whoever sends it again is answered again.
    pub fn respond_statelessly(&mut self, flow: Flow, mut response: Response) {
        let via = response.headers.list(&HeaderName::Via);
        let via = via.ok().and_then(|vias| Via::parse(vias.first()?).ok());
        if let Some(mut via) = via {
            via.note_source(flow.remote);
            set_top_via(&mut response.headers, &via);
            self.send(response_flow(flow, &via), response.to_bytes());
        }
    }

    /// What was sent on this flow can't be delivered: its connection broke, or the network says so.
    pub fn handle_broken(&mut self, flow: Flow) {
        let broken = |(id, (_, client)): (&ClientId, &(ClientKey, Client))| {
            (client.flow == flow).then_some(*id)
        };
        let broken: Vec<_> = self.clients.iter().filter_map(broken).collect();
        for id in broken {
            self.remove_client(id);
            self.outputs.push_back(Output::Failed(id));
        }
    }

    /// Sends a request and sees to its answer. The Via, with a branch of its own, is put in front; `sent_by` is what it names.
    /// An ACK is sent and forgotten: its [`ClientId`] says nothing more.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn request(
        &mut self,
        now: Instant,
        flow: Flow,
        sent_by: (&Host, u16),
        mut request: Request,
        tokens: &mut dyn Tokens,
    ) -> Result<ClientId, Full> {
        if self.clients.len() >= self.clients_max {
            return Err(Full);
        }
        let branch = format!("{BRANCH_COOKIE}{}", tokens.word());
        let (host, port) = sent_by;
        let via = format!(
            "SIP/2.0/{} {host}:{port};branch={branch};rport",
            flow.transport.as_str()
        );
        request.headers.push_front(HeaderName::Via, via);
        let id = ClientId(self.next_id());
        if request.method == Method::Ack {
            self.send(flow, request.to_bytes());
        } else {
            self.begin(
                now,
                id,
                ClientKey::new(&branch, &request.method),
                flow,
                request,
            );
        }
        Ok(id)
    }

    /// Takes an INVITE back, as soon as that may be done (RFC 3261 §9.1). A final response comes in any case, or
    /// [`Output::TimedOut`]; it may be a 2xx that was quicker, and is then to be acknowledged and ended by a BYE.
    pub fn cancel(&mut self, now: Instant, id: ClientId) {
        self.with_client(now, id, |client| client.cancel(now).into_iter().collect());
    }

    /// Answers a request. A second final answer is dropped, and so is any to a transaction that is over.
    pub fn respond(&mut self, now: Instant, id: ServerId, response: &Response) {
        self.with_server(id, |server| server.respond(now, response, false));
    }

    /// Answers an INVITE provisionally and sends that until [`Transactions::proven`] (RFC 3262 §3). `response` has the
    /// headers Require and RSeq.
    pub fn respond_reliably(&mut self, now: Instant, id: ServerId, response: &Response) {
        self.with_server(id, |server| server.respond(now, response, true));
    }

    /// The PRACK came that belongs to the last reliable provisional response.
    pub fn proven(&mut self, id: ServerId) {
        self.with_server(id, |server| {
            server.on_prack();
            None
        });
    }

    /// The ACK came that belongs to the 2xx.
    pub fn acknowledged(&mut self, id: ServerId) {
        self.with_server(id, |server| {
            server.on_acknowledged();
            None
        });
    }

    fn begin(&mut self, now: Instant, id: ClientId, key: ClientKey, flow: Flow, request: Request) {
        let client = Client::new(now, flow, request);
        self.send(flow, client.bytes().to_vec());
        self.schedule(None, client.next_timeout(), Id::Client(id));
        self.client_ids.insert(key.clone(), id);
        self.clients.insert(id, (key, client));
    }

    fn on_response(&mut self, now: Instant, flow: Flow, incoming: Box<IncomingResponse>) {
        let id =
            ClientKey::of(&incoming.envelope).and_then(|key| self.client_ids.get(&key).copied());
        let Some(id) = id else {
            self.counters.stray += 1;
            return;
        };
        let Some((_, client)) = self.clients.get_mut(&id) else {
            return;
        };
        let before = client.next_timeout();
        let effects = client.on_response(now, &incoming.response);
        if effects.is_empty() {
            self.counters.again += 1;
        }
        // The answer to a CANCEL is of interest to nobody but its transaction.
        let deliver =
            effects.contains(&client::Effect::Deliver) && *client.method() != Method::Cancel;
        let rest = effects
            .into_iter()
            .filter(|effect| *effect != client::Effect::Deliver)
            .collect();
        self.after_client(now, id, before, rest);
        if deliver {
            self.outputs
                .push_back(Output::Response { id, flow, incoming });
        }
    }

    fn on_request(&mut self, now: Instant, flow: Flow, mut incoming: Box<IncomingRequest>) {
        incoming.envelope.via.note_source(flow.remote);
        let via = incoming.envelope.via.clone();
        set_top_via(&mut incoming.request.headers, &via);
        let method = incoming.request.method.clone();
        match method {
            Method::Ack => self.on_ack(now, flow, incoming),
            Method::Cancel => self.on_cancel(now, flow, incoming),
            _ => {
                let key = ServerKey::of(&incoming, &method);
                if let Some(id) = self.server_ids.get(&key).copied() {
                    self.counters.again += 1;
                    self.with_server(id, |server| server.on_request_again());
                    return;
                }
                let merge = MergeKey::of(&incoming.envelope);
                if merge
                    .as_ref()
                    .is_some_and(|key| self.merges.contains_key(key))
                {
                    self.counters.merged += 1;
                    self.refuse(flow, &incoming, StatusCode::LOOP_DETECTED);
                    return;
                }
                if let Some(id) = self.begin_server(now, flow, key, incoming.clone()) {
                    if let Some(merge) = merge {
                        self.merges.insert(merge, id);
                    }
                    self.outputs
                        .push_back(Output::Request { id, flow, incoming });
                }
            }
        }
    }

    /// `None` when there are too many.
    fn begin_server(
        &mut self,
        now: Instant,
        flow: Flow,
        key: ServerKey,
        incoming: Box<IncomingRequest>,
    ) -> Option<ServerId> {
        if self.servers.len() >= self.servers_max {
            self.counters.overload += 1;
            self.refuse(flow, &incoming, StatusCode::SERVICE_UNAVAILABLE);
            return None;
        }
        let id = ServerId(self.next_id());
        let server = Server::new(now, response_flow(flow, &incoming.envelope.via), incoming);
        self.schedule(None, server.next_timeout(), Id::Server(id));
        self.server_ids.insert(key.clone(), id);
        self.servers.insert(id, (key, server));
        Some(id)
    }

    /// Answers without keeping anything.
    fn refuse(&mut self, flow: Flow, incoming: &IncomingRequest, code: StatusCode) {
        let tag = format!("{:x}", self.counters.overload + self.counters.merged);
        let mut response = Response::to(&incoming.request, code, &tag);
        if code == StatusCode::SERVICE_UNAVAILABLE {
            response.headers.push(HeaderName::RetryAfter, 5);
        }
        self.respond_statelessly(flow, response);
    }

    fn on_ack(&mut self, now: Instant, flow: Flow, incoming: Box<IncomingRequest>) {
        let id = self
            .server_ids
            .get(&ServerKey::of(&incoming, &Method::Invite))
            .copied();
        let failed = |id: &ServerId| {
            self.servers
                .get(id)
                .is_some_and(|(_, server)| !server.is_accepted())
        };
        match id.filter(failed) {
            Some(id) => self.with_server(id, |server| {
                server.on_ack(now);
                None
            }),
            // A 2xx's: before RFC 3261 its branch was that of the INVITE, since then it is another.
            None => self.outputs.push_back(Output::Ack { flow, incoming }),
        }
    }

    fn on_cancel(&mut self, now: Instant, flow: Flow, incoming: Box<IncomingRequest>) {
        let key = ServerKey::of(&incoming, &Method::Cancel);
        if let Some(id) = self.server_ids.get(&key).copied() {
            self.counters.again += 1;
            self.with_server(id, |server| server.on_request_again());
            return;
        }
        let invite = self
            .server_ids
            .get(&ServerKey::of(&incoming, &Method::Invite))
            .copied();
        let Some(id) = self.begin_server(now, flow, key, incoming.clone()) else {
            return;
        };
        let code = if invite.is_some() {
            StatusCode::OK
        } else {
            StatusCode::NO_SUCH_CALL
        };
        let response = Response::to(&incoming.request, code, &format!("c{}", id.0));
        self.with_server(id, |server| server.respond(now, &response, false));
        if let Some(invite) = invite
            && self
                .servers
                .get(&invite)
                .is_some_and(|(_, server)| !server.is_answered())
        {
            self.outputs.push_back(Output::Cancelled {
                id: invite,
                cancel: incoming,
            });
        }
    }

    fn with_client(
        &mut self,
        now: Instant,
        id: ClientId,
        step: impl FnOnce(&mut Client) -> Vec<client::Effect>,
    ) {
        let Some((_, client)) = self.clients.get_mut(&id) else {
            return;
        };
        let before = client.next_timeout();
        let effects = step(client);
        self.after_client(now, id, before, effects);
    }

    fn after_client(
        &mut self,
        now: Instant,
        id: ClientId,
        before: Option<Instant>,
        effects: Vec<client::Effect>,
    ) {
        let Some((key, client)) = self.clients.get(&id) else {
            return;
        };
        let (flow, branch, after) = (client.flow, key.clone(), client.next_timeout());
        let (cancels, over) = (*client.method() == Method::Cancel, client.is_terminated());
        self.schedule(before, after, Id::Client(id));
        if over {
            self.remove_client(id);
        }
        for effect in effects {
            match effect {
                client::Effect::Send(bytes) => self.send(flow, bytes),
                client::Effect::TimedOut if cancels => {}
                client::Effect::TimedOut => self.outputs.push_back(Output::TimedOut(id)),
                client::Effect::Cancel(request) => {
                    let cancel = ClientId(self.next_id());
                    self.begin(now, cancel, branch.for_cancel(), flow, *request);
                }
                client::Effect::Deliver => {}
            }
        }
    }

    fn remove_client(&mut self, id: ClientId) {
        if let Some((key, client)) = self.clients.remove(&id) {
            self.client_ids.remove(&key);
            self.schedule(client.next_timeout(), None, Id::Client(id));
        }
    }

    fn with_server(
        &mut self,
        id: ServerId,
        step: impl FnOnce(&mut Server) -> Option<server::Effect>,
    ) {
        let Some((_, server)) = self.servers.get_mut(&id) else {
            return;
        };
        let before = server.next_timeout();
        let effect = step(server);
        let (flow, after, over) = (server.flow, server.next_timeout(), server.is_terminated());
        self.schedule(before, after, Id::Server(id));
        if over && let Some((key, server)) = self.servers.remove(&id) {
            self.schedule(server.next_timeout(), None, Id::Server(id));
            self.server_ids.remove(&key);
            if let Some(merge) = MergeKey::of(&server.incoming.envelope) {
                self.merges.remove(&merge);
            }
        }
        match effect {
            Some(server::Effect::Send(bytes)) => self.send(flow, bytes),
            Some(server::Effect::Unacknowledged) => {
                self.outputs.push_back(Output::Unacknowledged(id));
            }
            Some(server::Effect::NoPrack) => self.outputs.push_back(Output::NoPrack(id)),
            None => {}
        }
    }

    fn schedule(&mut self, before: Option<Instant>, after: Option<Instant>, id: Id) {
        if before != after {
            if let Some(at) = before {
                self.timeouts.remove(&(at, id));
            }
            self.timeouts.extend(after.map(|at| (at, id)));
        }
    }

    fn send(&mut self, flow: Flow, bytes: Vec<u8>) {
        self.outputs.push_back(Output::Send { flow, bytes });
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// Where answers to a request go that came by `flow`: back on its connection; over UDP to its source, at the port that was asked
/// for (RFC 3261 §18.2.2, RFC 3581 §4). `maddr` is not followed: it would let anybody send our answers to anywhere.
fn response_flow(flow: Flow, via: &Via) -> Flow {
    match flow.transport {
        Transport::Udp => Flow {
            remote: SocketAddr::new(flow.remote.ip(), via.response_port()),
            ..flow
        },
        Transport::Tcp | Transport::Tls => flow,
    }
}

/// Writes the topmost Via anew, in its line.
fn set_top_via(headers: &mut gateway_sip::Headers, via: &Via) {
    let rest: Vec<String> = match headers.list(&HeaderName::Via) {
        Ok(vias) => vias.into_iter().skip(1).map(str::to_owned).collect(),
        Err(_) => return,
    };
    headers.remove(&HeaderName::Via);
    for via in rest.iter().rev() {
        headers.push_front(HeaderName::Via, via);
    }
    headers.push_front(HeaderName::Via, via);
}
