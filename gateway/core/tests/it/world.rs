//! Two ends that speak SIP over a network whose time, losses and delays are made up.

use std::time::{Duration, Instant};

use gateway_core::transaction::{ClientId, Flow, Output, ServerId, Transactions, Transport};
use gateway_sip::sanity::{Framing, Incoming, check};
use gateway_sip::{HeaderName, Host, Message, Method, Request, Response, StatusCode, Uri};
use sim::{Clock, Event, Ladder, Link, Network, NodeId, Rng};

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
const NAMES: [&str; 2] = ["a", "b"];

/// Two ends and the network between them. What their transactions tell is kept for the test to look at.
pub(crate) struct World {
    network: Network<Vec<u8>>,
    nodes: [NodeId; 2],
    pub(crate) ends: [Transactions; 2],
    /// What each end was told beside what it sends, oldest first.
    pub(crate) told: [Vec<Output>; 2],
    pub(crate) ladder: Ladder,
    base: Instant,
    transport: Transport,
    tokens: u64,
    /// How many of a thousand datagrams come twice.
    pub(crate) doubled_per_mille: u64,
    doubling: Rng,
    /// For when each end's timer is set.
    armed: [Option<Duration>; 2],
}

impl World {
    pub(crate) fn new(transport: Transport) -> Self {
        Self::with_link(
            transport,
            1,
            Link {
                latency: Duration::from_millis(10),
                ..Link::default()
            },
        )
    }

    pub(crate) fn with_link(transport: Transport, seed: u64, link: Link) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant can't be made from a number; only differences to it are seen"
        )]
        let base = Instant::now();
        let mut network = Network::new(seed).with_clock(Clock::from_instant(base));
        let nodes = NAMES.map(|name| network.add_node(name));
        network.set_link_default(link);
        Self {
            network,
            nodes,
            ends: [Transactions::default(), Transactions::default()],
            told: [Vec::new(), Vec::new()],
            ladder: Ladder::new(),
            base,
            transport,
            tokens: 0,
            doubled_per_mille: 0,
            doubling: Rng::new(seed ^ 0xd0_b1e),
            armed: [None, None],
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.base + self.network.now()
    }

    /// A way from this end to the other.
    pub(crate) fn flow(&self, from: usize) -> Flow {
        let remote = format!("192.0.2.{}:5060", 2 - from)
            .parse()
            .expect("an address");
        Flow {
            transport: self.transport,
            remote,
            socket: 0,
        }
    }

    /// Begins a transaction at `end`.
    pub(crate) fn request(&mut self, end: usize, request: Request) -> ClientId {
        let (now, flow, host) = (
            self.now(),
            self.flow(end),
            Host::Ip([192, 0, 2, u8::try_from(end + 1).expect("two")].into()),
        );
        let mut rng = Rng::new(self.tokens + 1_000_000 * u64::try_from(end).expect("two"));
        self.tokens += 1;
        let id = self.ends[end].request(now, flow, (&host, 5060), request, &mut || rng.bits());
        let id = id.expect("there is room");
        self.drain();
        id
    }

    pub(crate) fn respond(&mut self, end: usize, id: ServerId, response: &Response) {
        let now = self.now();
        self.ends[end].respond(now, id, response);
        self.drain();
    }

    /// What an end does that is no message.
    pub(crate) fn act(&mut self, end: usize, act: impl FnOnce(&mut Transactions, Instant)) {
        let now = self.now();
        act(&mut self.ends[end], now);
        self.drain();
    }

    /// Lets nothing through between the ends from now on, for `time`.
    pub(crate) fn cut(&mut self, time: Duration) {
        let [a, b] = self.nodes;
        let until = self.network.now() + time;
        self.network.partition(a, b, until);
    }

    /// Lets everything happen that happens within `time`.
    pub(crate) fn advance(&mut self, time: Duration) {
        self.advance_with(time, |_, _, _| {});
    }

    /// The same, with `react` being told what each end is, once it is.
    pub(crate) fn advance_with(
        &mut self,
        time: Duration,
        mut react: impl FnMut(&mut Self, usize, Output),
    ) {
        let until = self.network.now() + time;
        let mut seen = [self.told[A].len(), self.told[B].len()];
        loop {
            self.arm();
            let Some(event) = self.network.next_event_until(until) else {
                return;
            };
            let now = self.now();
            match event {
                Event::Datagram { to, message, .. } => {
                    let end = self.end(to);
                    let flow = self.flow(end);
                    self.ends[end].handle_incoming(now, flow, read(&message));
                }
                Event::Timer { node, .. } => {
                    let end = self.end(node);
                    self.armed[end] = None;
                    self.ends[end].handle_timeout(now);
                }
                other => panic!("nothing here uses streams: {other:?}"),
            }
            self.drain();
            for end in [A, B] {
                while let Some(output) = self.told[end].get(seen[end]).cloned() {
                    seen[end] += 1;
                    react(self, end, output);
                }
            }
        }
    }

    fn end(&self, node: NodeId) -> usize {
        if node == self.nodes[A] { A } else { B }
    }

    fn arm(&mut self) {
        for end in [A, B] {
            let Some(at) = self.ends[end].poll_timeout() else {
                continue;
            };
            let at = at
                .saturating_duration_since(self.base)
                .max(self.network.now());
            if self.armed[end].is_none_or(|armed| at < armed) {
                self.network.set_timer(self.nodes[end], at, 0);
                self.armed[end] = Some(at);
            }
        }
    }

    fn drain(&mut self) {
        for end in [A, B] {
            while let Some(output) = self.ends[end].poll_output() {
                let Output::Send { bytes, .. } = output else {
                    self.told[end].push(output);
                    continue;
                };
                let text = line(&bytes);
                self.ladder
                    .arrow(self.network.now(), NAMES[end], NAMES[1 - end], text);
                let [from, to] = [self.nodes[end], self.nodes[1 - end]];
                if self.doubling.bits() % 1_000 < self.doubled_per_mille {
                    self.network.send_datagram(from, to, bytes.clone());
                }
                self.network.send_datagram(from, to, bytes);
            }
        }
    }
}

/// `INVITE 1` or `200 INVITE 1`.
pub(crate) fn line(bytes: &[u8]) -> String {
    match Message::parse(bytes).expect("ends speak SIP") {
        Message::Request(request) => {
            let number = request.headers.get(&HeaderName::CSeq).unwrap_or_default();
            format!(
                "{} {}",
                request.method,
                number.split(' ').next().unwrap_or_default()
            )
        }
        Message::Response(response) => {
            let cseq = response.headers.get(&HeaderName::CSeq).unwrap_or_default();
            let (number, method) = cseq.split_once(' ').expect("checked");
            format!("{} {method} {number}", response.code)
        }
    }
}

/// A request out of any dialog, with what every request has but Via.
pub(crate) fn request(method: &Method, number: u32) -> Request {
    let uri = Uri::parse("sip:b@192.0.2.2").expect("a URI");
    let mut request = Request::new(method.clone(), &uri);
    request.headers.push(HeaderName::MaxForwards, 70);
    request
        .headers
        .push(HeaderName::From, "<sip:a@192.0.2.1>;tag=a1");
    request.headers.push(HeaderName::To, "<sip:b@192.0.2.2>");
    request
        .headers
        .push(HeaderName::CallId, format_args!("call{number}"));
    request
        .headers
        .push(HeaderName::CSeq, format_args!("{number} {method}"));
    request
}

/// The requests an end was told of.
pub(crate) fn requests(told: &[Output]) -> Vec<(ServerId, Request)> {
    let request = |output: &Output| match output {
        Output::Request { id, incoming, .. } => Some((*id, incoming.request.clone())),
        _ => None,
    };
    told.iter().filter_map(request).collect()
}

/// The codes of the responses an end was told of.
pub(crate) fn codes(told: &[Output]) -> Vec<u16> {
    let code = |output: &Output| match output {
        Output::Response { incoming, .. } => Some(incoming.response.code.get()),
        _ => None,
    };
    told.iter().filter_map(code).collect()
}

pub(crate) fn answer(request: &Request, code: StatusCode) -> Response {
    Response::to(request, code, "b1")
}

/// Whether a message is whole.
pub(crate) fn read(bytes: &[u8]) -> Incoming {
    check(bytes, Framing::Datagram, "sane").expect("it is whole")
}
