//! A bottleneck: a rate that changes, a bucket of bytes that pass at once after a pause, a queue that is full some time, loss, delay
//! and jitter.

use std::collections::VecDeque;
use std::time::Duration;

use sfu_core::Bitrate;
use sim::Rng;

/// What a way does to packets.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// From each moment on, the rate; the first from the start.
    pub(crate) rates: Vec<(Duration, Bitrate)>,
    /// What was not sent may be sent later at once, up to so many bytes, as shapers have it (token bucket); 0: every packet takes its
    /// time.
    pub(crate) bucket: u64,
    /// What the queue holds, in bytes.
    pub(crate) queue_max: u64,
    /// Packets lost without regard to the queue, in percent; of feedback as well.
    pub(crate) loss_percent: u64,
    /// How long packets are under way at least, in each direction.
    pub(crate) delay: Duration,
    /// How much longer, drawn evenly; nothing overtakes.
    pub(crate) jitter: Duration,
}

impl Way {
    pub(crate) fn rate(&self, now: Duration) -> Bitrate {
        let set = self.rates.iter().take_while(|(at, _)| *at <= now).last();
        set.map_or(Bitrate::ZERO, |(_, rate)| *rate)
    }
}

/// The sending end of the bottleneck.
#[derive(Debug)]
pub(crate) struct Link<T> {
    pub(crate) way: Way,
    queue: VecDeque<(T, u64)>,
    queued: u64,
    /// What the bucket holds, and since when.
    tokens: (u64, Duration),
    /// Until when the packet in front is on the wire.
    busy_until: Option<Duration>,
    /// Nothing passes until then.
    is_cut: bool,
    arrival_last: Duration,
    /// Packets the queue had no room for.
    pub(crate) dropped: u64,
}

impl<T> Link<T> {
    pub(crate) fn new(way: Way) -> Self {
        Self {
            tokens: (way.bucket, Duration::ZERO),
            way,
            queue: VecDeque::new(),
            queued: 0,
            busy_until: None,
            is_cut: false,
            arrival_last: Duration::ZERO,
            dropped: 0,
        }
    }

    /// A packet comes to the bottleneck. Returns when [`Link::serve`] is due, if nothing was under way.
    pub(crate) fn send(&mut self, now: Duration, packet: T, len: u64) -> Option<Duration> {
        if self.queued + len > self.way.queue_max && !self.queue.is_empty() {
            self.dropped += 1;
            return None;
        }
        self.queued += len;
        self.queue.push_back((packet, len));
        self.busy_until.is_none().then(|| self.begin(now)).flatten()
    }

    /// The packet in front has left: when and what arrives, unless it is lost, and when the next one has left.
    pub(crate) fn serve(
        &mut self,
        now: Duration,
        rng: &mut Rng,
    ) -> (Option<(Duration, T)>, Option<Duration>) {
        self.busy_until = None;
        if std::mem::take(&mut self.is_cut) {
            return (None, self.begin(now));
        }
        let Some((packet, len)) = self.queue.pop_front() else {
            return (None, None);
        };
        self.queued -= len;
        self.fill(now);
        self.tokens.0 = self.tokens.0.saturating_sub(len);
        let next = self.begin(now);
        let at = self.arrives_at(now, rng).max(self.arrival_last);
        if rng.percent(self.way.loss_percent) {
            return (None, next);
        }
        self.arrival_last = at;
        (Some((at, packet)), next)
    }

    /// When something that has no bottleneck arrives in the other direction; `None`: lost.
    pub(crate) fn back(&self, now: Duration, rng: &mut Rng) -> Option<Duration> {
        let at = self.arrives_at(now, rng);
        (!rng.percent(self.way.loss_percent)).then_some(at)
    }

    /// What waits, in bytes.
    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }

    fn arrives_at(&self, now: Duration, rng: &mut Rng) -> Duration {
        let jitter = u64::try_from(self.way.jitter.as_micros()).expect("a short time");
        now + self.way.delay + Duration::from_micros(rng.within(0..=jitter))
    }

    fn begin(&mut self, now: Duration) -> Option<Duration> {
        self.fill(now);
        let (_, len) = self.queue.front()?;
        let rate = self.way.rate(now);
        self.is_cut = rate == Bitrate::ZERO;
        self.busy_until = if self.is_cut {
            self.way
                .rates
                .iter()
                .map(|(at, _)| *at)
                .find(|at| *at > now)
        } else {
            let missing = len.saturating_sub(self.tokens.0);
            Some(now + rate.time_for(missing))
        };
        self.busy_until
    }

    /// What the rate allowed since the bucket was last looked at goes into it.
    fn fill(&mut self, now: Duration) {
        let (held, since) = self.tokens;
        let earned = self.way.rate(since).bytes_in(now - since);
        self.tokens = ((held + earned).min(self.way.bucket), now);
    }
}
