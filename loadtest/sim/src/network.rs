//! Nodes, datagrams and streams.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::stream::{Item, Stream};
use crate::{Clock, Queue, Rng};

/// A machine or a process in the simulated network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// A stream between two nodes, like a TCP connection with framed messages. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What the way between two nodes does to what travels on it.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// The least time a message takes.
    pub latency: Duration,
    /// How much longer it may take, drawn evenly. Datagrams overtake each other, streams do not.
    pub jitter: Duration,
    /// Of 1000 datagrams so many are lost. Streams lose nothing until they are cut.
    pub loss_per_mille: u64,
}

impl Default for Link {
    /// Half a millisecond each way and no loss.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(500),
            jitter: Duration::ZERO,
            loss_per_mille: 0,
        }
    }
}

/// How a stream ends when nobody closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both sides notice (a reset).
    Noticed,
    /// Only this side notices; the other goes on writing into the void (half-open).
    NoticedBy(NodeId),
    /// Nobody notices, as when a NAT forgets or a cable is pulled.
    Silent,
}

/// What happens at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<M> {
    /// A datagram arrived.
    Datagram {
        /// Its sender.
        from: NodeId,
        /// Where it arrived.
        to: NodeId,
        /// What it says.
        message: M,
    },
    /// `from` opened a stream to `to`; this is how `to` learns of it.
    Accepted {
        /// The new stream.
        stream: StreamId,
        /// Who opened it.
        from: NodeId,
        /// Who hears of it.
        to: NodeId,
    },
    /// The stream that `to` opened stands.
    Connected {
        /// The stream of [`Network::connect`].
        stream: StreamId,
        /// Its opener.
        to: NodeId,
    },
    /// A message arrived on a stream, after all that were sent before it.
    Message {
        /// The stream.
        stream: StreamId,
        /// Where it arrived.
        to: NodeId,
        /// What it says.
        message: M,
    },
    /// A stream ended: closed by the other side, refused or cut. Nothing follows on it.
    Closed {
        /// The stream.
        stream: StreamId,
        /// Who hears of it.
        to: NodeId,
    },
    /// A timer of [`Network::set_timer`] went off.
    Timer {
        /// Whose timer.
        node: NodeId,
        /// The number it was set with.
        token: u64,
    },
}

impl<M> Event<M> {
    /// The node at which it happens.
    pub fn node(&self) -> NodeId {
        match *self {
            Self::Datagram { to, .. }
            | Self::Accepted { to, .. }
            | Self::Connected { to, .. }
            | Self::Message { to, .. }
            | Self::Closed { to, .. }
            | Self::Timer { node: to, .. } => to,
        }
    }
}

/// The simulated network with its clock.
///
/// Commands (`send_datagram`, `connect`, `send`, `close`, `set_timer`) act for a node; faults
/// (`cut`, `partition`, `crash`) come from outside; [`Network::next_event`] moves the clock to the next
/// event and returns it. Messages are values of any type: bytes, text, or a test's own enum.
#[derive(Debug)]
pub struct Network<M> {
    clock: Clock,
    rng: Rng,
    queue: Queue<Due<M>>,
    nodes: Vec<Node>,
    link_default: Link,
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// Until when two nodes cannot reach each other.
    partitions: BTreeMap<(NodeId, NodeId), Duration>,
    streams: BTreeMap<StreamId, Stream<M>>,
    stream_last: u64,
}

#[derive(Debug)]
struct Node {
    name: String,
    up: bool,
    /// Counts crashes: the timers of an earlier life are dropped.
    life: u32,
}

/// What comes out of the queue. A stream's messages wait in the stream itself and the queue only
/// says that the next of them is due, so nothing can put them out of order.
#[derive(Debug)]
enum Due<M> {
    Datagram {
        from: NodeId,
        to: NodeId,
        message: M,
    },
    Stream {
        stream: StreamId,
        end: usize,
    },
    Timer {
        node: NodeId,
        life: u32,
        token: u64,
    },
}

impl<M> Network<M> {
    /// An empty network at time zero; all chance comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            clock: Clock::new(),
            rng: Rng::new(seed),
            queue: Queue::new(),
            nodes: Vec::new(),
            link_default: Link::default(),
            links: BTreeMap::new(),
            partitions: BTreeMap::new(),
            streams: BTreeMap::new(),
            stream_last: 0,
        }
    }

    /// Lets `clock` tell the time, for a test that lends an `Instant`.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Adds a node that is up.
    pub fn add_node(&mut self, name: &str) -> NodeId {
        self.nodes.push(Node {
            name: name.into(),
            up: true,
            life: 0,
        });
        NodeId(self.nodes.len() - 1)
    }

    /// The name a node was added with.
    pub fn name(&self, node: NodeId) -> &str {
        &self.nodes[node.0].name
    }

    /// Whether a node runs.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes[node.0].up
    }

    /// How every pair without a link of its own is connected.
    pub fn set_link_default(&mut self, link: Link) {
        self.link_default = link;
    }

    /// How `a` and `b` are connected, in both directions.
    pub fn set_link(&mut self, a: NodeId, b: NodeId, link: Link) {
        self.links.insert(pair(a, b), link);
    }

    /// Sends a datagram; whether it arrives is up to the link, and to the partition at that time.
    pub fn send_datagram(&mut self, from: NodeId, to: NodeId, message: M) {
        if self.rng.within(0..=999) < self.link(from, to).loss_per_mille {
            return;
        }
        let at = self.now() + self.travel(from, to);
        self.queue.push(at, Due::Datagram { from, to, message });
    }

    /// Opens a stream. `to` gets [`Event::Accepted`], then `from` [`Event::Connected`]; when `to`
    /// is down, `from` gets [`Event::Closed`]. What is sent before that arrives after it.
    pub fn connect(&mut self, from: NodeId, to: NodeId) -> StreamId {
        self.stream_last += 1;
        let stream = StreamId(self.stream_last);
        self.streams.insert(stream, Stream::new(from, to));
        self.enqueue(stream, 1, Item::Open);
        stream
    }

    /// Sends `message` on `stream` from `from`. On an ended stream it is lost without a word.
    pub fn send(&mut self, stream: StreamId, from: NodeId, message: M) {
        if let Some(end) = self.open_end(stream, from) {
            self.enqueue(stream, 1 - end, Item::Message(message));
        }
    }

    /// Closes `stream` from the side of `from`; the other hears of it after what was sent before.
    pub fn close(&mut self, stream: StreamId, from: NodeId) {
        if let Some(end) = self.open_end(stream, from) {
            self.enqueue(stream, 1 - end, Item::End);
            if let Some(stream) = self.streams.get_mut(&stream) {
                stream.leave(end);
            }
        }
    }

    /// Sets a timer of `node`. It is forgotten when the node crashes.
    pub fn set_timer(&mut self, node: NodeId, at: Duration, token: u64) {
        let life = self.nodes[node.0].life;
        self.queue
            .push(at.max(self.now()), Due::Timer { node, life, token });
    }

    /// Cuts a stream. Of what is under way in each direction a part drawn by chance arrives, the
    /// rest is lost; a side that notices does so after that part.
    pub fn cut(&mut self, stream: StreamId, cut: Cut) {
        let Some(state) = self.streams.get_mut(&stream) else {
            return;
        };
        if !state.carries {
            return;
        }
        state.carries = false;
        for end in [0, 1] {
            let keep = self.rng.within(0..=state.under_way(end) as u64);
            state.lose_after(end, keep);
        }

        let ends = state.ends;
        for end in [0, 1] {
            let noticed = match cut {
                Cut::Noticed => true,
                Cut::NoticedBy(node) => ends[end] == node,
                Cut::Silent => false,
            };
            if noticed {
                self.enqueue(stream, end, Item::End);
            }
        }
    }

    /// Keeps `a` and `b` apart until the moment `until`: datagrams are lost, streams wait.
    pub fn partition(&mut self, a: NodeId, b: NodeId, until: Duration) {
        self.partitions.insert(pair(a, b), until);
    }

    /// Ends a node at once: its timers and what was on its way to it are lost, and its streams are
    /// cut. The other sides notice when `noticed` (the process died), otherwise not (the machine).
    pub fn crash(&mut self, node: NodeId, noticed: bool) {
        let state = &mut self.nodes[node.0];
        state.up = false;
        state.life += 1;

        let touched: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, s)| s.ends.contains(&node))
            .map(|(id, _)| *id)
            .collect();
        for id in touched {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let own = usize::from(stream.ends[1] == node);
            let other = stream.ends[1 - own];
            stream.leave(own);
            self.cut(
                id,
                if noticed {
                    Cut::NoticedBy(other)
                } else {
                    Cut::Silent
                },
            );
        }
    }

    /// Starts a crashed node again, without streams and timers.
    pub fn restart(&mut self, node: NodeId) {
        self.nodes[node.0].up = true;
    }

    /// Moves the clock to the next event and returns it; `None` when nothing will happen any more.
    pub fn next_event(&mut self) -> Option<Event<M>> {
        self.next_event_until(Duration::MAX)
    }

    /// Like [`Network::next_event`], but not beyond `until`, where the clock then stands.
    pub fn next_event_until(&mut self, until: Duration) -> Option<Event<M>> {
        while self.queue.next_at().is_some_and(|at| at <= until) {
            let (at, due) = self.queue.pop()?;
            self.clock.advance_to(at);
            if let Some(event) = self.deliver(due) {
                return Some(event);
            }
        }
        if until < Duration::MAX {
            self.clock.advance_to(until);
        }
        None
    }

    fn deliver(&mut self, due: Due<M>) -> Option<Event<M>> {
        match due {
            Due::Timer { node, life, token } => {
                (self.nodes[node.0].life == life).then_some(Event::Timer { node, token })
            }
            Due::Datagram { from, to, message } => {
                let arrives = self.is_up(to) && self.apart_until(from, to).is_none();
                arrives.then_some(Event::Datagram { from, to, message })
            }
            Due::Stream { stream, end } => self.deliver_stream(stream, end),
        }
    }

    fn deliver_stream(&mut self, id: StreamId, end: usize) -> Option<Event<M>> {
        let ends = self.streams.get(&id)?.ends;
        let to = ends[end];
        if let Some(until) = self.apart_until(ends[0], ends[1]) {
            self.queue.push(until, Due::Stream { stream: id, end });
            return None;
        }

        let up = self.is_up(to);
        let stream = self.streams.get_mut(&id)?;
        let item = stream.take(end)?;
        match item {
            Item::Open if end == 1 && !up => {
                stream.leave(1);
                self.enqueue(id, 0, Item::End);
                None
            }
            Item::Open if end == 1 => {
                self.enqueue(id, 0, Item::Open);
                Some(Event::Accepted {
                    stream: id,
                    from: ends[0],
                    to,
                })
            }
            Item::Open => Some(Event::Connected { stream: id, to }),
            Item::Message(message) => Some(Event::Message {
                stream: id,
                to,
                message,
            }),
            Item::End => {
                stream.leave(end);
                if stream.is_over() {
                    self.streams.remove(&id);
                }
                Some(Event::Closed { stream: id, to })
            }
        }
    }

    /// Puts `item` on its way to the end `end` of `stream`.
    fn enqueue(&mut self, id: StreamId, end: usize, item: Item<M>) {
        let Some(ends) = self.streams.get(&id).map(|stream| stream.ends) else {
            return;
        };
        let at = self.now() + self.travel(ends[1 - end], ends[end]);
        if let Some(stream) = self.streams.get_mut(&id)
            && let Some(at) = stream.put(end, item, at)
        {
            self.queue.push(at, Due::Stream { stream: id, end });
        }
    }

    /// Which end of `stream` `node` is, while that end takes part.
    fn open_end(&self, stream: StreamId, node: NodeId) -> Option<usize> {
        let stream = self.streams.get(&stream)?;
        let end = stream.ends.iter().position(|end| *end == node)?;
        stream.open[end].then_some(end)
    }

    fn link(&self, a: NodeId, b: NodeId) -> Link {
        self.links
            .get(&pair(a, b))
            .copied()
            .unwrap_or(self.link_default)
    }

    fn travel(&mut self, from: NodeId, to: NodeId) -> Duration {
        let Link {
            latency, jitter, ..
        } = self.link(from, to);
        let jitter_us = u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX);
        latency + Duration::from_micros(self.rng.within(0..=jitter_us))
    }

    fn apart_until(&self, a: NodeId, b: NodeId) -> Option<Duration> {
        self.partitions
            .get(&pair(a, b))
            .copied()
            .filter(|until| *until > self.now())
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}
