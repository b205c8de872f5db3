//! One publisher, an SFU's downlinks and their subscribers, behind simulated bottlenecks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu_core::downlink::{Downlink, What};
use sfu_core::layers::{self, Budget, Wish};
use sfu_core::{Acks, Bitrate, Class};
use sim::{Queue, Rng};

use crate::camera::{self, Camera, LAYERS, PACKET_LEN, Picture};
use crate::link::{Link, Way};
use crate::receiver::{Asked, Media, Receiver};

const AUDIO: Bitrate = Bitrate::kbps(50);
const AUDIO_LEN: u16 = 75;
const WIRE_OVERHEAD: u64 = 44;
const TICK: Duration = Duration::from_millis(10);
pub(crate) const SAMPLE: Duration = Duration::from_millis(100);

/// A subscriber's network and manners.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub(crate) way: Way,
    pub(crate) tells: Tells,
}

/// What a subscriber tells of what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tells {
    /// When each packet arrived.
    Arrivals,
    /// How much it thinks fits (REMB): what arrived at most, and less when the queue is long.
    Estimate,
    /// Nothing at all.
    Nothing,
}

/// How often a subscriber that estimates says so.
const ESTIMATE_INTERVAL: Duration = Duration::from_millis(200);

/// A moment of one subscriber, every [`SAMPLE`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) capacity: Bitrate,
    pub(crate) estimate: Bitrate,
    /// What entered the bottleneck since the last sample.
    pub(crate) sent: Bitrate,
    /// How long the bottleneck's queue takes.
    pub(crate) queue: Duration,
    /// The Layer chosen; `None` while paused.
    pub(crate) layer: Option<usize>,
}

/// What became of one subscriber.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) samples: Vec<Sample>,
    pub(crate) pictures: u32,
    pub(crate) freezes: u32,
    pub(crate) frozen: Duration,
    pub(crate) frozen_longest: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Packet {
    Audio,
    Video(Media, u64),
}

#[derive(Debug, Clone, Copy)]
struct OnWire {
    transport: u16,
    len: u64,
    media: Option<Media>,
}

#[derive(Debug)]
enum Event {
    Frame,
    Audio,
    Tick,
    Sample,
    Served(usize),
    Arrived(usize, OnWire),
    Told(usize, Asked),
    Wake,
}

struct Leg {
    link: Link<OnWire>,
    downlink: Downlink<Packet>,
    budget: Budget,
    chosen: Option<usize>,
    current: Option<usize>,
    frame: u32,
    sequence: u32,
    log: VecDeque<(Duration, Media, u64)>,
    receiver: Receiver,
    tells: Tells,
    /// What arrived since the subscriber's last estimate, when that was, and what it is.
    arrived: u64,
    estimated_at: Duration,
    remb: Bitrate,
    sent: u64,
    woken_at: Option<Duration>,
    samples: Vec<Sample>,
}

pub(crate) struct World {
    start: Instant,
    rng: Rng,
    queue: Queue<Event>,
    camera: Camera,
    legs: Vec<Leg>,
}

/// Lets `subscribers` watch one camera for so long; all chance comes from `seed`.
pub(crate) fn run(seed: u64, subscribers: &[Subscriber], duration: Duration) -> Vec<Outcome> {
    let mut world = World::new(seed, subscribers);
    while let Some((now, event)) = world.queue.pop() {
        if now > duration {
            break;
        }
        world.handle(now, event);
        for leg in 0..world.legs.len() {
            world.send(now, leg);
        }
    }
    let outcome = |leg: Leg| Outcome {
        samples: leg.samples,
        pictures: leg.receiver.pictures,
        freezes: leg.receiver.freezes,
        frozen: leg.receiver.frozen,
        frozen_longest: leg.receiver.frozen_longest,
    };
    world.legs.into_iter().map(outcome).collect()
}

impl Leg {
    /// The subscriber's own estimate, as far as a Downlink can tell it from a real one.
    fn estimate(&mut self, start: Instant, now: Duration) {
        let arrived = Bitrate::of(std::mem::take(&mut self.arrived), ESTIMATE_INTERVAL);
        let queue = self.link.way.rate(now).time_for(self.link.queued());
        self.estimated_at = now;
        self.remb = if queue > Duration::from_millis(60) {
            arrived.scaled(0.85)
        } else {
            self.remb.max(arrived)
        };
        let sent = self
            .current
            .map_or(Bitrate::ZERO, |layer| LAYERS[layer].bitrate);
        self.downlink
            .handle_remb(start + now, self.remb, sent + AUDIO, Bitrate::ZERO);
        self.downlink
            .handle_report(start + now, 0, Some(self.link.way.delay * 2 + queue));
    }
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can't be made from a number; only differences to it are seen"
    )]
    fn new(seed: u64, subscribers: &[Subscriber]) -> Self {
        let start = Instant::now();
        let leg = |subscriber: &Subscriber| {
            let acks = match subscriber.tells {
                Tells::Estimate => Acks::Remb,
                Tells::Arrivals | Tells::Nothing => Acks::Twcc,
            };
            let mut downlink = Downlink::new(start, acks);
            downlink.set_wanted(start, LAYERS[2].bitrate + AUDIO);
            Leg {
                link: Link::new(subscriber.way.clone()),
                downlink,
                budget: Budget::new(),
                chosen: None,
                current: None,
                frame: 0,
                sequence: 0,
                log: VecDeque::new(),
                receiver: Receiver::new(start),
                tells: subscriber.tells,
                arrived: 0,
                estimated_at: Duration::ZERO,
                remb: Bitrate::ZERO,
                sent: 0,
                woken_at: None,
                samples: Vec::new(),
            }
        };
        let mut queue = Queue::new();
        for event in [Event::Frame, Event::Audio, Event::Tick, Event::Sample] {
            queue.push(Duration::ZERO, event);
        }
        Self {
            start,
            rng: Rng::new(seed),
            queue,
            camera: Camera::new(),
            legs: subscribers.iter().map(leg).collect(),
        }
    }

    fn handle(&mut self, now: Duration, event: Event) {
        match event {
            Event::Frame => {
                let picture = self.camera.picture(now, &mut self.rng);
                for leg in 0..self.legs.len() {
                    self.forward(now, leg, picture);
                }
                self.queue
                    .push(now + Duration::from_secs(1) / camera::FRAMES, Event::Frame);
            }
            Event::Audio => {
                for leg in &mut self.legs {
                    let pushed =
                        leg.downlink
                            .push(self.start + now, Class::Audio, AUDIO_LEN, Packet::Audio);
                    assert!(pushed.is_ok(), "audio never waits");
                }
                self.queue
                    .push(now + Duration::from_millis(20), Event::Audio);
            }
            Event::Tick => {
                for leg in 0..self.legs.len() {
                    self.tick(now, leg);
                }
                self.queue.push(now + TICK, Event::Tick);
            }
            Event::Sample => {
                for leg in 0..self.legs.len() {
                    self.sample(now, leg);
                }
                self.queue.push(now + SAMPLE, Event::Sample);
            }
            Event::Served(leg) => {
                let (arrival, next) = self.legs[leg].link.serve(now, &mut self.rng);
                if let Some((at, packet)) = arrival {
                    self.queue.push(at, Event::Arrived(leg, packet));
                }
                if let Some(at) = next {
                    self.queue.push(at, Event::Served(leg));
                }
            }
            Event::Arrived(leg, packet) => {
                self.legs[leg].arrived += packet.len;
                let receiver = &mut self.legs[leg].receiver;
                receiver.handle_packet(self.start, now, packet.transport, packet.len, packet.media);
            }
            Event::Told(leg, asked) => self.handle_asked(now, leg, asked),
            Event::Wake => {} // What may leave leaves after every event.
        }
    }

    /// Sends a picture on, in the Layer that flows; changes Layers at key frames.
    fn forward(&mut self, now: Duration, leg: usize, picture: Picture) {
        let leg = &mut self.legs[leg];
        if leg.chosen != leg.current {
            match leg.chosen {
                None => leg.current = None,
                Some(layer) if picture.frames[layer].1 => leg.current = Some(layer),
                Some(layer) => self.camera.ask_key_frame(now, layer),
            }
        }
        let Some(layer) = leg.current else {
            return;
        };
        let (len, is_key) = picture.frames[layer];
        if is_key {
            // What waits of older pictures is not needed any more.
            let log = &mut leg.log;
            leg.downlink.discard(|packet| match packet {
                Packet::Audio => false,
                Packet::Video(left, _) => {
                    log.retain(|(_, media, _)| media.sequence != left.sequence);
                    true
                }
            });
        }
        let packets = u32::try_from(len.div_ceil(PACKET_LEN)).expect("a frame of few packets");
        let sequence_first = leg.sequence;
        for packet in 0..packets {
            let len = (len - u64::from(packet) * PACKET_LEN).min(PACKET_LEN) + 20;
            let media = Media {
                sequence: leg.sequence,
                sequence_first,
                frame: leg.frame,
                packets,
                is_key,
                layer,
            };
            leg.sequence += 1;
            leg.log.push_back((now, media, len));
            let waits = Packet::Video(media, len);
            // Refused packets are lost, as the queue's limit has it.
            let _ = leg.downlink.push(
                self.start + now,
                Class::Video,
                u16::try_from(len).expect("shorter than a datagram"),
                waits,
            );
        }
        leg.frame += 1;
        while leg
            .log
            .front()
            .is_some_and(|(at, ..)| now - *at > Duration::from_secs(2))
        {
            leg.log.pop_front();
        }
    }

    fn tick(&mut self, now: Duration, index: usize) {
        let leg = &mut self.legs[index];
        let round_trip = leg.link.way.delay * 2 + Duration::from_millis(30);
        let asked = leg.receiver.ask(self.start, now, round_trip);
        if leg.tells == Tells::Nothing {
            return;
        }
        if leg.tells == Tells::Estimate && now >= leg.estimated_at + ESTIMATE_INTERVAL {
            leg.estimate(self.start, now);
        }
        if let Some(at) = leg.link.back(now, &mut self.rng) {
            self.queue.push(at, Event::Told(index, asked));
        }
    }

    fn handle_asked(&mut self, now: Duration, leg: usize, asked: Asked) {
        let leg = &mut self.legs[leg];
        if let Some(statuses) = asked.statuses {
            leg.downlink
                .handle_twcc(self.start + now, statuses.into_iter());
        }
        for sequence in asked.missing {
            if let Some(&(_, media, len)) = leg
                .log
                .iter()
                .find(|(_, media, _)| media.sequence == sequence)
            {
                let packet = Packet::Video(media, len);
                let _ = leg.downlink.push(
                    self.start + now,
                    Class::Retransmission,
                    u16::try_from(len).expect("shorter than a datagram"),
                    packet,
                );
            }
        }
        if asked.key_frame
            && let Some(layer) = leg.current
        {
            self.camera.ask_key_frame(now, layer);
        }
    }

    /// Chooses the Layer and writes down what is.
    fn sample(&mut self, now: Duration, index: usize) {
        let leg = &mut self.legs[index];
        leg.downlink.handle_timeout(self.start + now);
        let estimate = leg.downlink.estimate();
        let wishes = [Wish {
            layers: &LAYERS,
            height: None,
            priority: 0,
            pinned: false,
            screen: false,
        }];
        let cost = layers::cost(&wishes, &[leg.chosen]) + AUDIO;
        let budget = leg.budget.update(self.start + now, estimate, cost);
        leg.chosen = layers::allocate(&wishes, AUDIO, budget, None)[0];

        let capacity = leg.link.way.rate(now);
        leg.samples.push(Sample {
            at: now,
            capacity,
            estimate,
            sent: Bitrate::of(std::mem::take(&mut leg.sent), SAMPLE),
            queue: capacity.time_for(leg.link.queued()),
            layer: leg.chosen,
        });
    }

    /// Sends all that may leave now.
    fn send(&mut self, now: Duration, index: usize) {
        let leg = &mut self.legs[index];
        leg.downlink.handle_timeout(self.start + now);
        while let Some(departure) = leg.downlink.poll_send(self.start + now) {
            let (len, media) = match departure.what {
                What::Packet(Packet::Audio) => (u64::from(AUDIO_LEN), None),
                What::Packet(Packet::Video(media, len)) => (len, Some(media)),
                What::Padding(len) => (u64::from(len), None),
            };
            let len = len + WIRE_OVERHEAD;
            leg.sent += len;
            let packet = OnWire {
                transport: departure.sequence,
                len,
                media,
            };
            if let Some(at) = leg.link.send(now, packet, len) {
                self.queue.push(at, Event::Served(index));
            }
        }
        // Between events of this world, wake up as the downlink asks for it.
        if let Some(at) = leg.downlink.poll_timeout(self.start + now) {
            let at = at - self.start;
            assert!(at > now, "called again at once for nothing");
            if leg
                .woken_at
                .is_none_or(|woken_at| woken_at <= now || at < woken_at)
            {
                leg.woken_at = Some(at);
                self.queue.push(at, Event::Wake);
            }
        }
    }
}
