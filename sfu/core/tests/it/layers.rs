//! Spatial and temporal layers inside one encoding: taken and left out by what packets say of them.

use std::time::Duration;

use sfu_core::{Layer, LayerState, ParticipantKey, SlotKey, TrackKey};
use sfu_rtp::dependency_descriptor::Reader;
use sfu_rtp::extension::ExtensionKind;
use sfu_rtp::packet::FixedHeader;

use crate::stage::{AV1, In, Out, SLOT_SSRC, Stage, VP9};

/// A key frame of AV1 in three spatial and three temporal layers, as a browser describes it.
const KEY_FRAME: &str = "c1017280081485214eafffaaaa863cf0430c10c302afc0aaa0063c00430010c002a000a80006000040001d9549\
    26e082b04a0941b820ac1282503157f974000ca864330e222222eca8655304224230eca877530077004200ef008601df010d";

/// A camera with layers in one stream, and who sees it.
struct Scene {
    stage: Stage,
    alice: ParticipantKey,
    track: TrackKey,
    slot: SlotKey,
    sequence: u16,
    picture: u16,
    frame: u16,
}

impl Scene {
    fn new() -> Self {
        let mut stage = Stage::new();
        let (alice, bob) = (stage.join(), stage.join());
        let track = stage.publish_camera(alice);
        let slot = stage.slot(bob, false);
        stage.subscribe(slot, track).unwrap();

        Self {
            stage,
            alice,
            track,
            slot,
            sequence: 0,
            picture: 0,
            frame: 0x172,
        }
    }

    fn want(&mut self, spatial: u8, temporal: u8) {
        let layer = Layer {
            encoding: 0,
            spatial,
            temporal,
        };

        self.stage
            .room
            .set_layer(self.stage.now, self.slot, Some(layer));
    }

    /// A picture of VP9 in three spatial layers, two packets each, of which each refers to the one below.
    fn vp9(&mut self, is_key: bool) -> Vec<Out> {
        self.vp9_in(is_key, true)
    }

    /// The same where only layers of key frames refer to each other (K-SVC).
    fn vp9_by_key_frames(&mut self, is_key: bool) -> Vec<Out> {
        self.vp9_in(is_key, is_key)
    }

    fn vp9_in(&mut self, is_key: bool, refers_below: bool) -> Vec<Out> {
        self.picture += 1;
        let picture = self.picture;

        let packets: Vec<(u8, u8, Vec<u8>)> = (0..3_u8)
            .flat_map(|spatial| (0..2_u8).map(move |part| (spatial, part)))
            .map(|(spatial, part)| {
                let begins = u8::from(part == 0) << 3;
                let ends = u8::from(part == 1) << 2;
                let predicted = u8::from(!is_key) << 6;
                let [high, low] = (picture | 0x8000).to_be_bytes();
                let below = u8::from(refers_below && spatial > 0);
                let unneeded = u8::from(!refers_below || spatial == 2);
                let payload = vec![
                    0xa0 | predicted | begins | ends | unneeded,
                    high,
                    low,
                    spatial << 1 | below,
                    0,
                    spatial,
                    part,
                ];
                (spatial, part, payload)
            })
            .collect();
        self.send(VP9, packets, |_| None)
    }

    /// A picture of AV1 in three spatial layers, one packet each.
    fn av1(&mut self, is_key: bool, temporal: u8) -> Vec<Out> {
        self.picture += 1;
        let key_frame = hex(KEY_FRAME);
        let mut reader = Reader::new();
        reader.read(&key_frame).unwrap();
        let first = self.frame;
        self.frame = self.frame.wrapping_add(3);

        let packets: Vec<_> = (0..3)
            .map(|spatial| {
                (
                    spatial,
                    1,
                    vec![
                        u8::from(is_key && spatial == 0) << 3 | 0x10,
                        spatial,
                        temporal,
                    ],
                )
            })
            .collect();
        self.send(AV1, packets, |spatial| {
            let frame = first.wrapping_add(u16::from(spatial)).to_be_bytes();
            if is_key && spatial == 0 {
                let mut bytes = key_frame.clone();
                bytes[1..3].copy_from_slice(&frame);
                return Some(bytes);
            }

            // Whichever template is of that layer.
            (0..64_u8)
                .map(|template| vec![0xc0 | template, frame[0], frame[1]])
                .rfind(|bytes| {
                    reader.clone().read(bytes).is_ok_and(|descriptor| {
                        (descriptor.spatial_layer, descriptor.temporal_layer) == (spatial, temporal)
                    })
                })
        })
    }

    fn send(
        &mut self,
        payload_type: u8,
        packets: Vec<(u8, u8, Vec<u8>)>,
        descriptor: impl Fn(u8) -> Option<Vec<u8>>,
    ) -> Vec<Out> {
        let mut out = Vec::new();

        for (spatial, part, payload) in packets {
            self.sequence += 1;
            let mut packet = In {
                fixed: FixedHeader {
                    marker: spatial == 2 && part == 1,
                    payload_type,
                    sequence_number: self.sequence,
                    timestamp: u32::from(self.picture) * 3000,
                    ssrc: 100,
                },
                payload,
                ..In::default()
            };
            if let Some(bytes) = descriptor(spatial) {
                packet = packet.with(ExtensionKind::DependencyDescriptor, &bytes);
            }
            out.extend(self.stage.send(self.alice, &packet));
        }
        self.stage.advance(Duration::from_millis(33));
        out
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

fn markers(out: &[Out]) -> Vec<bool> {
    out.iter().map(|out| out.fixed.marker).collect()
}

fn assert_one_stream(out: &[Out]) {
    for pair in out.windows(2) {
        assert_eq!(pair[1].index, pair[0].index + 1);
    }
}

#[test]
fn spatial_layers_of_vp9_are_left_out_at_once_and_taken_up_at_a_key_frame() {
    let mut scene = Scene::new();
    let mut all = scene.vp9(true);
    for _ in 0..30 {
        all.extend(scene.vp9(false));
    }
    assert_eq!(all.len(), 31 * 6);

    scene.want(1, 0);
    let out = scene.vp9(false);
    assert_eq!(
        markers(&out),
        [false, false, false, true],
        "the last packet that goes out ends the picture"
    );
    assert_eq!(out[3].payload[5], 1);
    all.extend(out);

    scene.want(2, 0);
    let out = scene.vp9(false);
    assert_eq!(out.len(), 4, "what it refers to was left out");
    all.extend(out);
    assert_eq!(scene.stage.room.stats().key_frames_asked, 1);
    let out = scene.vp9(true);
    assert_eq!(markers(&out), [false, false, false, false, false, true]);
    all.extend(out);

    assert_one_stream(&all);
    let first = &all[0].payload;
    assert_eq!(
        (first[1], first[2]),
        (0x80, 30),
        "picture ids begin where the slot's begin"
    );
}

#[test]
fn lower_layers_that_no_upper_one_refers_to_are_left_out() {
    let mut scene = Scene::new();
    let mut all = scene.vp9_by_key_frames(true);
    assert_eq!(all.len(), 6);
    // Until it is known which layers there are nothing is left out.
    for _ in 0..40 {
        all.extend(scene.vp9_by_key_frames(false));
    }
    let out = scene.vp9_by_key_frames(false);
    assert_eq!(markers(&out), [false, true]);
    assert!(out.iter().all(|out| out.payload[5] == 2));
    all.extend(out);
    let costs: Vec<_> = scene.stage.room.layers(scene.track).collect();
    assert!(
        costs[2].bitrate < costs[0].bitrate * 2,
        "what is not sent costs nothing: {costs:?}"
    );

    // Of a lower one the pictures before were left out: it begins with a key frame.
    let asked = scene.stage.room.stats().key_frames_asked;
    scene.want(1, 0);
    assert_eq!(scene.stage.room.stats().key_frames_asked, asked + 1);
    let out = scene.vp9_by_key_frames(false);
    assert!(out.len() == 2 && out[0].payload[5] == 2);
    all.extend(out);
    let out = scene.vp9_by_key_frames(true);
    assert_eq!(markers(&out), [false, false, false, true]);
    all.extend(out);
    let out = scene.vp9_by_key_frames(false);
    assert_eq!(markers(&out), [false, true]);
    assert!(out.iter().all(|out| out.payload[5] == 1));
    all.extend(out);
    assert_one_stream(&all);
}

#[test]
fn layers_are_told_with_what_they_cost() {
    let mut scene = Scene::new();
    scene.vp9(true);
    for _ in 0..60 {
        scene.vp9(false);
    }

    let layers: Vec<_> = scene.stage.room.layers(scene.track).collect();
    let spatial: Vec<_> = layers.iter().map(|info| info.layer.spatial).collect();
    assert_eq!(spatial, [0, 1, 2]);
    assert!(layers.iter().all(|info| info.state == LayerState::Sent));
    // 14 bytes a layer, 30 times a second.
    assert!(
        (3_000..4_000).contains(&layers[0].bitrate),
        "{}",
        layers[0].bitrate
    );
    assert!(layers[2].bitrate > layers[1].bitrate && layers[1].bitrate > layers[0].bitrate);

    scene.stage.advance(Duration::from_secs(3));
    let states: Vec<_> = scene
        .stage
        .room
        .layers(scene.track)
        .map(|info| info.state)
        .collect();
    assert_eq!(states, [LayerState::Stopped; 3]);
}

#[test]
fn layers_of_av1_follow_the_dependency_descriptor() {
    let mut scene = Scene::new();
    let mut all = scene.av1(true, 0);
    assert_eq!(all.len(), 3);
    for n in 0..32 {
        all.extend(scene.av1(false, [2, 1, 2, 0][n % 4]));
    }
    assert_eq!(all.len(), 99);

    scene.want(1, 0);
    let out: Vec<_> = [2, 1, 2, 0]
        .into_iter()
        .flat_map(|temporal| scene.av1(false, temporal))
        .collect();
    let layers: Vec<_> = out
        .iter()
        .map(|out| (out.payload[1], out.payload[2]))
        .collect();
    assert_eq!(layers, [(0, 0), (1, 0)]);
    assert_eq!(markers(&out), [false, true]);
    all.extend(out);

    // More temporal layers are taken up where a frame lets them begin, more spatial ones at a key frame.
    scene.want(2, 2);
    let mut out = scene.av1(false, 0);
    out.extend(scene.av1(false, 2));
    let layers: Vec<_> = out
        .iter()
        .map(|out| (out.payload[1], out.payload[2]))
        .collect();
    assert_eq!(layers, [(0, 0), (1, 0), (0, 2), (1, 2)]);
    all.extend(out);
    let out = scene.av1(true, 0);
    assert_eq!(out.len(), 3);
    all.extend(out);
    assert_one_stream(&all);

    // Frame numbers are those of the publisher, less the first one.
    let numbers: Vec<u16> = all
        .iter()
        .map(|out| {
            let (_, bytes) = out.extensions.iter().find(|(id, _)| *id == 7).unwrap();
            u16::from_be_bytes([bytes[1], bytes[2]])
        })
        .collect();
    assert_eq!(numbers[..4], [0, 1, 2, 3]);
    assert!(numbers.windows(2).all(|pair| pair[1] > pair[0]));
}

#[test]
fn a_key_frame_says_which_decode_targets_come() {
    let mut scene = Scene::new();
    scene.av1(true, 0);
    scene.want(1, 1);
    let out = scene.av1(true, 0);

    let (_, bytes) = out[0].extensions.iter().find(|(id, _)| *id == 7).unwrap();
    let mut reader = Reader::new();
    let descriptor = reader.read(bytes).unwrap();
    assert_eq!(
        descriptor.active_decode_targets,
        Some(0b011_011),
        "of nine: 0 to 2 by temporal layer, then the next spatial one"
    );
    let sizes: Vec<_> = scene
        .stage
        .room
        .layers(scene.track)
        .map(|info| info.size)
        .collect();
    assert_eq!(sizes[0], Some((120, 67)));
    assert_eq!(out[0].fixed.ssrc, SLOT_SSRC);
}
