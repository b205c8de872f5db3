//! Who comes just after a key frame begins with it, and nobody is asked for another one.

use std::time::Duration;

use sfu_core::{BEGINNING_AGE_MAX, BEGINNING_BYTES_MAX, ParticipantKey, SlotKey, TrackKey};

use crate::stage::{Out, SLOT_SSRC, Stage, Vp8};

/// Between two pictures.
const TICK: Duration = Duration::from_millis(33);

/// A camera that Carol sees, and Bob, who comes.
struct Scene {
    stage: Stage,
    alice: ParticipantKey,
    bob: ParticipantKey,
    track: TrackKey,
    slot: SlotKey,
}

impl Scene {
    fn new() -> Self {
        let mut stage = Stage::new();
        let (alice, bob, carol) = (stage.join(), stage.join(), stage.join());
        let track = stage.publish_camera(alice);
        let slot = stage.slot(bob, false);
        let of_carol = stage.slot(carol, false);
        stage.subscribe(of_carol, track).unwrap();

        Self {
            stage,
            alice,
            bob,
            track,
            slot,
        }
    }

    /// A picture; what Bob gets for it, and then some time.
    fn send(&mut self, picture: Vp8) -> Vec<Out> {
        let slot = self.slot;
        let mut out = self.stage.send(self.alice, &picture.packet());
        out.retain(|out| out.slot == slot);
        self.stage.advance(TICK);
        out
    }

    /// A key frame and so many pictures behind it.
    fn begin(&mut self, pictures: u16) {
        for n in 1..=pictures + 1 {
            assert!(self.send(Vp8::picture(n, n == 1)).is_empty());
        }
    }

    fn subscribe(&mut self) {
        self.stage.subscribe(self.slot, self.track).unwrap();
    }

    fn asked(&self) -> u64 {
        self.stage.room.stats().key_frames_asked
    }
}

/// Numbers and timestamps, and which pictures they are.
fn read(out: &[Out]) -> Vec<(u16, u32, u8)> {
    out.iter()
        .map(|out| {
            let fill = out.payload.last().copied().unwrap_or(0);
            (out.sequence(), out.fixed.timestamp, fill)
        })
        .collect()
}

#[test]
fn with_the_next_packet_comes_all_since_the_key_frame_and_then_what_is_new() {
    let mut scene = Scene::new();
    scene.begin(2);
    scene.subscribe();

    // All pictures at once, so their time is as good as over; from then on it passes as at the publisher.
    let out = scene.send(Vp8::picture(4, false));
    let all = [
        (1000, 5000, 1),
        (1001, 5090, 2),
        (1002, 5180, 3),
        (1003, 5270, 4),
    ];
    assert_eq!(read(&out), all);
    let ids: Vec<_> = out.iter().map(Out::vp8).collect();
    assert_eq!(ids, [(30, 0), (31, 1), (32, 2), (33, 3)]);
    assert_eq!(read(&scene.send(Vp8::picture(5, false))), [(1004, 8270, 5)]);
    assert_eq!(scene.asked(), 0);

    // What is lost of it is sent again.
    let again = scene.stage.nack(scene.bob, SLOT_SSRC, &[1001]);
    assert_eq!(again.len(), 1);
    assert_eq!(
        (again[0].fixed.timestamp, again[0].payload.last()),
        (5090, Some(&2))
    );
}

#[test]
fn of_a_picture_that_is_on_its_way_the_rest_follows() {
    let mut scene = Scene::new();
    let part = |n: u16, first: bool| Vp8 {
        sequence: n,
        first,
        last: !first,
        fill: (n & 0xff) as u8,
        ..Vp8::picture(1, true)
    };
    assert!(scene.send(part(1, true)).is_empty());
    scene.subscribe();

    let key_frame = [(1000, 5000, 1), (1001, 5000, 2)];
    assert_eq!(read(&scene.send(part(2, false))), key_frame);
    let next = Vp8 {
        sequence: 3,
        ..Vp8::picture(2, false)
    };
    assert_eq!(read(&scene.send(next)), [(1002, 8000, 2)]);
}

#[test]
fn of_temporal_layers_the_lowest_comes_and_the_others_from_where_they_may() {
    let mut scene = Scene::new();
    // T0 T2 T1 T2: the first of each higher layer behind a T0 may be begun with.
    let picture = |n: u16| Vp8 {
        temporal: [0, 2, 1, 2][usize::from((n - 1) % 4)],
        sync: matches!((n - 1) % 4, 1 | 2),
        tl0: u8::try_from((n - 1) / 4).unwrap(),
        ..Vp8::picture(n, n == 1)
    };
    // So that it is known how many layers there are.
    for n in 1..=40 {
        assert!(scene.send(picture(n)).is_empty());
    }
    let key = Vp8 {
        key: true,
        ..picture(41)
    };
    assert!(scene.send(key).is_empty());
    for n in 42..=46 {
        assert!(scene.send(picture(n)).is_empty());
    }
    scene.subscribe();

    let first: Vec<_> = scene
        .send(picture(47))
        .iter()
        .map(|out| out.payload[9 + 49])
        .collect();
    assert_eq!(first, [41, 45]);
    let later: Vec<_> = (48..=54)
        .flat_map(|n| scene.send(picture(n)))
        .map(|out| out.payload.last().copied().unwrap_or(0))
        .collect();
    assert_eq!(later, [49, 50, 51, 52, 53, 54]);
    assert_eq!(scene.asked(), 0);
}

#[test]
fn what_is_not_whole_too_long_ago_or_too_much_is_no_beginning() {
    // A packet is missing.
    let mut scene = Scene::new();
    scene.begin(2);
    scene.send(Vp8::picture(5, false));
    scene.subscribe();
    assert_eq!(
        (scene.send(Vp8::picture(6, false)).len(), scene.asked()),
        (0, 1)
    );

    // It was long ago.
    let mut scene = Scene::new();
    scene.begin(0);
    let count = u16::try_from(BEGINNING_AGE_MAX.as_millis() / TICK.as_millis()).unwrap();
    for n in 2..=count + 2 {
        scene.send(Vp8::picture(n, false));
    }
    scene.subscribe();
    assert_eq!(
        (
            scene.send(Vp8::picture(count + 3, false)).len(),
            scene.asked()
        ),
        (0, 1)
    );

    // It is more than another key frame would be.
    let mut scene = Scene::new();
    scene.begin(0);
    for n in 2..16 {
        let mut large = Vp8::picture(n, false).packet();
        large.payload.resize(BEGINNING_BYTES_MAX / 13, 0);
        scene.stage.send(scene.alice, &large);
    }
    scene.subscribe();
    assert_eq!(
        (scene.send(Vp8::picture(16, false)).len(), scene.asked()),
        (0, 1)
    );
}

#[test]
fn who_is_left_waiting_asks_after_all() {
    let mut scene = Scene::new();
    scene.begin(2);
    scene.subscribe();
    assert_eq!(scene.asked(), 0);

    scene.stage.advance(Duration::from_millis(400));
    assert_eq!(scene.asked(), 1);
    assert_eq!(read(&scene.send(Vp8::picture(4, true))), [(1000, 5000, 4)]);
}

#[test]
fn what_was_shown_before_a_mute_nobody_sees_who_comes_after_it() {
    let mut scene = Scene::new();
    scene.begin(2);
    scene.stage.room.set_muted(scene.track, true);
    scene.subscribe();
    scene.stage.room.set_muted(scene.track, false);

    assert!(scene.send(Vp8::picture(4, false)).is_empty());
    assert_eq!(read(&scene.send(Vp8::picture(5, true))), [(1000, 5000, 5)]);
}

#[test]
fn a_pause_ends_with_a_key_frame_of_its_own() {
    let mut scene = Scene::new();
    scene.subscribe();
    assert_eq!(scene.send(Vp8::picture(1, true)).len(), 1);
    scene
        .stage
        .room
        .set_layer(scene.stage.now, scene.slot, None);
    assert!(scene.send(Vp8::picture(2, false)).is_empty());
    scene.stage.want(scene.slot, 0);

    assert!(scene.send(Vp8::picture(3, false)).is_empty());
    assert_eq!(scene.send(Vp8::picture(4, true)).len(), 1);
}
