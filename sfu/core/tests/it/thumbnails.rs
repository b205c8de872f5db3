//! A Room of fifty as one of them sees it: 49 small pictures through a way that breaks down and comes back, with all there is between a
//! publisher and the wire.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu_core::downlink::{Downlink, What};
use sfu_core::layers::{self, Budget, LayerCost, Wish};
use sfu_core::{
    Acks, Bitrate, Forward, LayerState, Output, PACKET_LEN_MAX, ParticipantKey, SlotKey, Stamps,
    TrackKey,
};
use sfu_rtp::rtcp::{Compound, Packet};

use crate::stage::{Stage, Vp8};

const THUMBNAILS: usize = 49;

/// All of them together take 2.4 Mbit/s: 20 pictures a second, each in one packet, which is as long as what probes are made of on the
/// narrow way.
const PICTURE_LEN: usize = 300;
const PICTURE_EVERY: u32 = 10;

/// Simulated time goes by in such steps.
const STEP: Duration = Duration::from_millis(5);
const CHOOSE_EVERY: u32 = 20;
const FEEDBACK_EVERY: u32 = 10;

/// The way there takes as long as that back, and what waits before it is lost from so much on.
const DELAY: Duration = Duration::from_millis(25);
const QUEUE_MAX: Duration = Duration::from_millis(200);

const WIDE: Bitrate = Bitrate::kbps(12_000);
const NARROW: Bitrate = Bitrate::kbps(300);

struct Camera {
    publisher: ParticipantKey,
    track: TrackKey,
    slot: SlotKey,
    next: u16,
    wants_key: bool,
    /// Somebody wants it.
    is_wanted: bool,
}

/// What came, and when in microseconds, by number.
type Statuses = Vec<(u16, Option<i64>)>;

/// A bottleneck, and what its other end tells of what came through.
struct Way {
    rate: Bitrate,
    free_at: Instant,
    /// What was sent, in order: its number and when it arrives, if it does.
    sent: VecDeque<(u16, Option<Instant>)>,
    told: VecDeque<(Instant, Statuses)>,
}

impl Way {
    fn send(&mut self, now: Instant, number: u16, len: u16) {
        let begins = self.free_at.max(now);
        if begins - now > QUEUE_MAX {
            self.sent.push_back((number, None));
            return;
        }
        self.free_at = begins + self.rate.time_for(u64::from(len) + 44);
        self.sent.push_back((number, Some(self.free_at + DELAY)));
    }

    /// What came until now is told, with what was lost before it.
    fn tell(&mut self, now: Instant, start: Instant) {
        let came = |(_, at): &(u16, Option<Instant>)| at.is_some_and(|at| at <= now);
        let Some(last) = self.sent.iter().rposition(came) else {
            return;
        };
        let micros = |at: Instant| i64::try_from((at - start).as_micros()).unwrap();
        let statuses = self.sent.drain(..=last);
        let statuses = statuses.map(|(number, at)| (number, at.map(micros)));
        self.told.push_back((now + DELAY, statuses.collect()));
    }
}

struct House {
    stage: Stage,
    subscriber: ParticipantKey,
    cameras: Vec<Camera>,
    downlink: Downlink<Forward>,
    budget: Budget,
    chosen: Vec<Option<usize>>,
    way: Way,
    steps: u32,
    /// Probes that came to nothing, for there was nothing to pad them with.
    aborted: u32,
    /// Pictures that left for the subscriber, by camera.
    seen: Vec<u32>,
}

impl House {
    fn new() -> Self {
        let mut stage = Stage::new();
        let subscriber = stage.join();
        let cameras: Vec<Camera> = (0..THUMBNAILS)
            .map(|_| {
                let publisher = stage.join();
                let track = stage.publish_camera(publisher);
                let slot = stage.slot(subscriber, false);
                stage.subscribe(slot, track).unwrap();
                Camera {
                    publisher,
                    track,
                    slot,
                    next: 0,
                    wants_key: true,
                    is_wanted: true,
                }
            })
            .collect();
        let now = stage.now;
        let mut downlink = Downlink::new(now, Acks::Twcc);
        downlink.set_wanted(now, WIDE);

        Self {
            stage,
            subscriber,
            cameras,
            downlink,
            budget: Budget::new(),
            chosen: vec![None; THUMBNAILS],
            way: Way {
                rate: WIDE,
                free_at: now,
                sent: VecDeque::new(),
                told: VecDeque::new(),
            },
            steps: 0,
            aborted: 0,
            seen: vec![0; THUMBNAILS],
        }
    }

    fn run(&mut self, seconds: u32) {
        for _ in 0..seconds * 200 {
            self.step();
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        for (to, bytes) in self.stage.advance(STEP) {
            self.obey(to, &bytes);
        }
        let is_due = |of: u32| self.steps % PICTURE_EVERY == of % PICTURE_EVERY;
        let due: Vec<usize> = (0_u32..)
            .zip(0..THUMBNAILS)
            .filter(|(of, _)| is_due(*of))
            .map(|(_, at)| at)
            .collect();
        for at in due {
            self.film(at);
        }
        let now = self.stage.now;
        if self.steps.is_multiple_of(CHOOSE_EVERY) {
            self.choose(now);
        }
        self.send(now);
        if self.steps.is_multiple_of(FEEDBACK_EVERY) {
            self.way.tell(now, self.stage.start);
        }
        while self.way.told.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, statuses)) = self.way.told.pop_front() {
                self.downlink.handle_twcc(now, statuses.into_iter());
            }
        }
    }

    /// Publishers send key frames when asked, and nothing while nobody wants it.
    fn obey(&mut self, to: ParticipantKey, bytes: &[u8]) {
        let asks = Compound::parse(bytes)
            .any(|packet| matches!(packet, Ok(Packet::PictureLossIndication(_))));
        let camera = self
            .cameras
            .iter_mut()
            .find(|camera| camera.publisher == to);
        if let Some(camera) = camera {
            camera.wants_key |= asks;
        }
        while let Some(output) = self.stage.room.poll_output() {
            let Output::LayersWanted { track, wanted, .. } = output else {
                continue;
            };
            for camera in self.cameras.iter_mut().filter(|one| one.track == track) {
                camera.wants_key |= !camera.is_wanted;
                camera.is_wanted = wanted != 0;
            }
        }
    }

    fn film(&mut self, at: usize) {
        let camera = &mut self.cameras[at];
        if !camera.is_wanted {
            return;
        }
        camera.next += 1;
        let is_key = std::mem::take(&mut camera.wants_key);
        let mut packet = Vp8::picture(camera.next, is_key).packet();
        packet.fixed.timestamp = self.steps * 450; // 90 kHz
        packet.payload.resize(PICTURE_LEN, 0);
        let (publisher, now) = (camera.publisher, self.stage.now);
        for forward in self.stage.forward(publisher, &packet) {
            // What has no room is lost.
            let _ = self
                .downlink
                .push(now, forward.class(), forward.wire_len(), forward);
        }
    }

    fn send(&mut self, now: Instant) {
        self.downlink.handle_timeout(now);
        while let Some(departure) = self.downlink.poll_send(now) {
            let (forward, asked) = match departure.what {
                What::Packet(forward) => (Some(forward), forward.wire_len()),
                What::Padding(len) => (self.stage.room.pad(self.subscriber, len), len),
            };
            let stamps = Stamps {
                transport_sequence: Some(departure.sequence),
                abs_send_time: None,
            };
            let mut buffer = [0; PACKET_LEN_MAX];
            let written = forward.and_then(|forward| {
                let written = self.stage.room.write(&forward, &mut buffer, stamps)?;
                Some((forward, written))
            });
            let len = written.map_or(0, |(_, written)| u16::try_from(written.len).unwrap());
            if len != asked {
                self.downlink.amend(now, &departure, len);
            }
            match (departure.what, written) {
                (What::Padding(_), None) => self.aborted += 1,
                (What::Packet(_), Some((forward, _))) => {
                    let at = self
                        .cameras
                        .iter()
                        .position(|one| one.slot == forward.slot());
                    self.seen[at.unwrap()] += 1;
                }
                _ => {}
            }
            if len > 0 {
                self.way.send(now, departure.sequence, len);
            }
        }
    }

    /// As many of the pictures as fit.
    fn choose(&mut self, now: Instant) {
        let costs: Vec<Vec<LayerCost>> = self
            .cameras
            .iter()
            .map(|camera| {
                let layers = self.stage.room.layers(camera.track);
                layers
                    .filter(|layer| layer.state == LayerState::Sent || layer.bitrate > 0)
                    .map(|layer| LayerCost {
                        bitrate: Bitrate::bps(layer.bitrate),
                        height: 90,
                    })
                    .collect()
            })
            .collect();
        let wishes: Vec<Wish<'_>> = costs
            .iter()
            .map(|layers| Wish {
                layers,
                height: Some(90),
                priority: 0,
                pinned: false,
                screen: false,
            })
            .collect();
        self.downlink
            .set_wanted(now, layers::cost_wished(&wishes, None));
        let cost = layers::cost(&wishes, &self.chosen);
        let budget = self.budget.update(now, self.downlink.estimate(), cost);
        let chosen = layers::allocate(&wishes, Bitrate::ZERO, budget, None);
        for (camera, chosen) in self.cameras.iter().zip(&chosen) {
            match chosen {
                Some(_) => self.stage.want(camera.slot, 0),
                None => self.stage.room.set_layer(now, camera.slot, None),
            }
        }
        self.chosen = chosen;
    }

    fn shown(&self) -> usize {
        self.chosen.iter().flatten().count()
    }

    /// Pictures of each camera within so many seconds.
    fn seen_within(&mut self, seconds: u32) -> Vec<u32> {
        let before = self.seen.clone();
        self.run(seconds);
        let both = self.seen.iter().zip(before);
        both.map(|(now, before)| now - before).collect()
    }
}

#[test]
fn forty_nine_thumbnails_come_back_with_the_way_they_go() {
    let mut house = House::new();
    house.run(15);
    assert_eq!(house.shown(), THUMBNAILS);

    // Long enough that nothing of the paused ones is kept any more.
    house.way.rate = NARROW;
    house.run(15);
    assert!(house.shown() < THUMBNAILS / 4, "{} shown", house.shown());

    house.way.rate = WIDE;
    house.run(20);
    assert_eq!(
        house.shown(),
        THUMBNAILS,
        "estimate {}",
        house.downlink.estimate()
    );
    let seen = house.seen_within(5);
    assert!(
        seen.iter().all(|pictures| *pictures >= 95),
        "of 100: {seen:?}"
    );
    assert_eq!(house.aborted, 0, "there is always something to probe with");
}
