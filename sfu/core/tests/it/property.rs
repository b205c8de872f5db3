//! Any order of loss, duplicates, reordering, Layer switches and pauses: what a subscriber gets is one stream.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use model::room::Source;
use proptest::prelude::*;
use sfu_core::{FREE_MAX, Layer, Output, ParticipantKey, SlotKey, TrackKey};
use sfu_rtp::rtcp::{Compound, NtpTime, Packet, SenderInfo};

use crate::stage::{In, Out, SLOT_SSRC, Stage, VP8_RTX, Vp8, WALL, encoding};

/// 30 pictures a second.
const TICK: Duration = Duration::from_millis(33);

/// The same in units of timestamps.
const TICK_STEP: u32 = 2970;

/// What is done to the Room between two pictures.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Nothing,
    Want {
        encoding: u8,
        temporal: u8,
    },
    Pause,
    Mute(bool),
    /// Puts one Track or the other into the slot.
    Subscribe(bool),
    Unsubscribe,
    /// The encoding sends a key frame by itself.
    KeyFrame(u8),
    /// The encoding sends padding.
    Padding(u8),
    /// The encoding sends nothing but padding, numbered in such steps.
    Stride {
        encoding: u8,
        packets: u8,
        step: u16,
    },
    /// The encoding begins anew, with other numbers.
    Restart(u8),
    Report,
}

/// What the network does to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    ArrivesTwice,
    /// After so many pictures.
    Late(u8),
    Lost,
}

#[derive(Clone)]
struct Tick {
    deed: Deed,
    fates: [Fate; 9],
}

/// `Want { encoding: 2, temporal: 1 } .2..x...3`: as short as a failing input has to be to be read.
impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.deed)?;
        self.fates.iter().try_for_each(|fate| match fate {
            Fate::Arrives => f.write_str("."),
            Fate::ArrivesTwice => f.write_str(":"),
            Fate::Late(by) => write!(f, "{by}"),
            Fate::Lost => f.write_str("x"),
        })
    }
}

fn deeds() -> impl Strategy<Value = Deed> + Clone {
    prop_oneof![
        12 => Just(Deed::Nothing),
        6 => (0_u8..4, 0_u8..4).prop_map(|(encoding, temporal)| Deed::Want { encoding, temporal }),
        1 => Just(Deed::Pause),
        1 => any::<bool>().prop_map(Deed::Mute),
        1 => any::<bool>().prop_map(Deed::Subscribe),
        1 => Just(Deed::Unsubscribe),
        2 => (0_u8..3).prop_map(Deed::KeyFrame),
        2 => (0_u8..3).prop_map(Deed::Padding),
        1 => (0_u8..3).prop_map(Deed::Restart),
        2 => Just(Deed::Report),
    ]
}

/// What a publisher does who means harm.
fn strides() -> impl Strategy<Value = Deed> + Clone {
    (0_u8..3, 1_u8..25, 1_u16..=3000).prop_map(|(encoding, packets, step)| Deed::Stride {
        encoding,
        packets,
        step,
    })
}

fn ticks(
    deed: impl Strategy<Value = Deed> + Clone + 'static,
    fate: impl Strategy<Value = Fate> + Clone + 'static,
) -> impl Strategy<Value = Vec<Tick>> {
    let tick =
        (deed, proptest::array::uniform9(fate)).prop_map(|(deed, fates)| Tick { deed, fates });

    proptest::collection::vec(tick, 20..150)
}

/// One encoding of a camera: three temporal layers, pictures of up to three packets.
struct Encoder {
    track: u8,
    number: u8,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    picture: u16,
    tl0: u8,
    /// Pictures since the last key frame.
    since_key: u32,
    wants_key: bool,
    rtx_sequence: u16,
}

/// What a picture is made of, by its number in the test.
#[derive(Debug, Clone, Copy)]
struct Made {
    /// Counts all pictures of a camera's encoding; the tick it is of.
    tick: u32,
    is_key: bool,
    /// The ticks of the pictures it refers to.
    refers_to: Option<u32>,
}

impl Encoder {
    fn new(track: u8, number: u8) -> Self {
        let salt = u16::from(track) * 3 + u16::from(number);

        Self {
            track,
            number,
            ssrc: 1000 * (u32::from(track) + 1) + 10 * u32::from(number),
            sequence: 65_500_u16.wrapping_add(salt * 11),
            timestamp: 4_294_900_000_u32.wrapping_add(u32::from(salt) * 77_777),
            picture: 32_750 + salt,
            tl0: 250,
            since_key: 0,
            wants_key: true,
            rtx_sequence: 60_000,
        }
    }

    fn restart(&mut self) {
        self.sequence = self.sequence.wrapping_add(20_000);
        self.timestamp = self.timestamp.wrapping_add(1_000_000_000);
        self.picture = self.picture.wrapping_add(9_999) & 0x7fff;
        self.wants_key = true;
    }

    /// The packets of the next picture; each says what it is of.
    fn encode(&mut self, tick: u32) -> (Vec<In>, Made) {
        let is_key = std::mem::take(&mut self.wants_key);
        if is_key {
            self.since_key = 0;
        }
        // T0 T2 T1 T2: each refers to the nearest one of a lower layer.
        let (temporal, sync, back) = match (is_key, self.since_key % 4) {
            (_, 0) => (0, false, 4),
            (_, 1) => (2, true, 1),
            (_, 2) => (1, true, 2),
            _ => (2, false, 1),
        };
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        self.picture = (self.picture + 1) & 0x7fff;
        self.since_key += 1;

        let count = 1 + tick % 3;
        let packets = (0..count)
            .map(|part| {
                let mut packet = Vp8 {
                    ssrc: self.ssrc,
                    sequence: self.sequence,
                    timestamp: self.timestamp.wrapping_add(tick * TICK_STEP),
                    picture: self.picture,
                    tl0: self.tl0,
                    temporal,
                    sync,
                    key: is_key,
                    first: part == 0,
                    last: part + 1 == count,
                    fill: 0,
                }
                .packet();
                self.sequence = self.sequence.wrapping_add(1);
                packet.payload.extend_from_slice(&[self.track, self.number]);
                packet.payload.extend_from_slice(&tick.to_be_bytes());
                packet.payload.push(part.try_into().unwrap());
                packet
            })
            .collect();
        let made = Made {
            tick,
            is_key,
            refers_to: (!is_key).then(|| tick - back),
        };
        (packets, made)
    }

    fn padding(&mut self, tick: u32) -> In {
        let mut packet = Vp8::picture(0, false).packet();
        packet.fixed.ssrc = self.ssrc;
        packet.fixed.sequence_number = self.sequence;
        packet.fixed.timestamp = self.timestamp.wrapping_add(tick * TICK_STEP);
        packet.payload.clear();
        packet.padding = 100;
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    fn report(&self, stage: &Stage, tick: u32) -> SenderInfo {
        let since = stage.now.duration_since(stage.start);
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;

        SenderInfo {
            ntp: NtpTime(((WALL + since.as_secs()) << 32) + fraction),
            rtp_timestamp: self.timestamp.wrapping_add(tick * TICK_STEP),
            packets: 0,
            octets: 0,
        }
    }
}

/// A packet of the subscriber's stream.
#[derive(Debug, Clone)]
struct Got {
    out: Out,
    /// Which camera, encoding, tick and part the payload is of; `None` for an empty one.
    of: Option<(u8, u8, u32, u8)>,
}

struct Run {
    got: BTreeMap<u64, Got>,
    made: BTreeMap<(u8, u8, u32), Made>,
    lost: usize,
    late: usize,
    /// Numbers that the publishers left out.
    left_out: usize,
    /// How often they did: to everybody else packets were lost there.
    strides: usize,
    /// Pictures of which a packet came late; where their source ended before that, it was lost.
    disturbed: BTreeSet<(u8, u8, u32)>,
}

fn run(ticks: &[Tick]) -> Run {
    let mut stage = Stage::new();
    let subscriber = stage.join();
    let slot = stage.slot(subscriber, false);
    let publishers = [stage.join(), stage.join()];
    let mut encoders: Vec<Vec<Encoder>> = (0..2)
        .map(|track| (0..3).map(|number| Encoder::new(track, number)).collect())
        .collect();
    let tracks: Vec<TrackKey> = publishers
        .iter()
        .zip(&encoders)
        .map(|(publisher, encoders)| {
            let encodings: Vec<_> = encoders
                .iter()
                .zip(["q", "h", "f"])
                .map(|(encoder, rid)| encoding(Some(rid), encoder.ssrc))
                .collect();
            stage.publish(*publisher, Source::Camera, &encodings)
        })
        .collect();
    stage.subscribe(slot, tracks[0]).unwrap();

    let mut run = Run {
        got: BTreeMap::new(),
        made: BTreeMap::new(),
        lost: 0,
        late: 0,
        left_out: 0,
        strides: 0,
        disturbed: BTreeSet::new(),
    };
    let mut late: Vec<(u32, usize, In)> = Vec::new();
    let mut carried = Some(0);

    for (tick, now) in ticks.iter().zip(8_u32..) {
        act(
            &mut stage,
            tick.deed,
            slot,
            &tracks,
            &mut encoders,
            &mut carried,
        );
        if matches!(tick.deed, Deed::Report) {
            for encoder in encoders.iter().flatten() {
                let info = encoder.report(&stage, now);
                stage.send_rtcp(publishers[usize::from(encoder.track)], |builder| {
                    builder.sender_report(encoder.ssrc, &info, &[]).unwrap();
                });
            }
        }
        let mut fates = tick.fates.into_iter();
        let mut deliveries: Vec<(usize, In)> = Vec::new();

        // What comes after numbers have gone around is another packet to everybody.
        let is_stride = |ssrc: u32| matches!(tick.deed, Deed::Stride { encoding, .. } if ssrc / 10 % 100 == u32::from(encoding));
        late.retain(|(due, publisher, packet)| {
            if is_stride(packet.fixed.ssrc) {
                run.lost += 1;
                return false;
            }
            let is_due = *due <= now;
            if is_due {
                deliveries.push((*publisher, packet.clone()));
            }
            !is_due
        });
        for encoder in encoders.iter_mut().flatten() {
            let publisher = usize::from(encoder.track);
            let (mut packets, made) = encoder.encode(now);
            let place = (encoder.track, encoder.number, now);
            run.made.insert(place, made);
            if let Deed::Padding(number) = tick.deed
                && number == encoder.number
            {
                packets.push(encoder.padding(now));
            }
            for packet in packets {
                if matches!(fates.as_slice().first(), Some(Fate::Late(_))) {
                    run.late += 1;
                    run.disturbed.insert(place);
                }
                match fates.next().unwrap_or(Fate::Arrives) {
                    Fate::Late(_) if is_stride(packet.fixed.ssrc) => run.lost += 1,
                    Fate::Arrives => deliveries.push((publisher, packet)),
                    Fate::ArrivesTwice => {
                        deliveries.push((publisher, packet.clone()));
                        deliveries.push((publisher, packet));
                    }
                    // Every second one comes back over RTX.
                    Fate::Late(by) if by % 2 == 0 || packet.payload.is_empty() => {
                        late.push((now + u32::from(by), publisher, packet));
                    }
                    Fate::Late(by) => {
                        encoder.rtx_sequence = encoder.rtx_sequence.wrapping_add(1);
                        let resent = packet.resent(encoder.rtx_sequence);
                        late.push((now + u32::from(by), publisher, resent));
                    }
                    Fate::Lost => run.lost += 1,
                }
            }
            // Behind what was sent before: from there numbers may have gone around.
            if let Deed::Stride {
                encoding,
                packets,
                step,
            } = tick.deed
                && encoding == encoder.number
            {
                for _ in 0..packets {
                    encoder.sequence = encoder.sequence.wrapping_add(step - 1);
                    run.left_out += usize::from(step - 1);
                    run.strides += 1;
                    deliveries.push((publisher, encoder.padding(now)));
                }
            }
        }

        for (publisher, packet) in deliveries {
            for out in stage.send(publishers[publisher], &packet) {
                take(&mut run, out, carried);
            }
        }
        if now % 8 == 0 {
            ask(&mut stage, subscriber, &mut run, carried);
        }
        for (to, bytes) in stage.advance(TICK) {
            obey(&to, &bytes, &publishers, &mut encoders);
        }
    }
    for (_, publisher, packet) in late {
        for out in stage.send(publishers[publisher], &packet) {
            take(&mut run, out, carried);
        }
    }

    stage.subscribe(slot, tracks[0]).unwrap();
    for _ in 0..2 {
        ask(&mut stage, subscriber, &mut run, carried);
        stage.advance(Duration::from_millis(300));
    }
    run
}

/// The subscriber asks for what they miss.
fn ask(stage: &mut Stage, subscriber: ParticipantKey, run: &mut Run, carried: Option<u8>) {
    let missing = gaps(run);

    for out in stage.nack(subscriber, SLOT_SSRC, &missing) {
        if out.fixed.payload_type == VP8_RTX {
            let number = u16::from_be_bytes([out.payload[0], out.payload[1]]);
            assert!(
                !missing.contains(&number),
                "what was never sent can't be sent again"
            );
        } else {
            take(run, out, carried);
        }
    }
}

fn act(
    stage: &mut Stage,
    deed: Deed,
    slot: SlotKey,
    tracks: &[TrackKey],
    encoders: &mut [Vec<Encoder>],
    carried: &mut Option<u8>,
) {
    match deed {
        Deed::Nothing | Deed::Padding(_) | Deed::Stride { .. } | Deed::Report => {}
        Deed::Want { encoding, temporal } => {
            let layer = Layer {
                encoding: encoding.min(2),
                spatial: 0,
                temporal,
            };
            stage.room.set_layer(stage.now, slot, Some(layer));
        }
        Deed::Pause => stage.room.set_layer(stage.now, slot, None),
        Deed::Mute(muted) => stage.room.set_muted(tracks[0], muted),
        Deed::Subscribe(other) => {
            *carried = Some(u8::from(other));
            stage.subscribe(slot, tracks[usize::from(other)]).unwrap();
        }
        Deed::Unsubscribe => {
            *carried = None;
            stage.room.unsubscribe(slot);
        }
        Deed::KeyFrame(number) => {
            for encoders in encoders {
                encoders[usize::from(number)].wants_key = true;
            }
        }
        Deed::Restart(number) => encoders[0][usize::from(number)].restart(),
    }
    while let Some(output) = stage.room.poll_output() {
        assert!(
            !matches!(output, Output::SlotChanged { .. }),
            "nothing here is automatic"
        );
    }
}

/// Publishers send key frames when asked.
fn obey(
    to: &ParticipantKey,
    bytes: &[u8],
    publishers: &[ParticipantKey],
    encoders: &mut [Vec<Encoder>],
) {
    for packet in Compound::parse(bytes) {
        if let Packet::PictureLossIndication(indication) = packet.unwrap() {
            let index = publishers
                .iter()
                .position(|publisher| publisher == to)
                .unwrap();
            let encoder = encoders[index]
                .iter_mut()
                .find(|encoder| encoder.ssrc == indication.media_ssrc);
            encoder.unwrap().wants_key = true;
        }
    }
}

fn take(run: &mut Run, out: Out, carried: Option<u8>) {
    assert_eq!(out.fixed.ssrc, SLOT_SSRC);
    let of = (!out.payload.is_empty()).then(|| {
        let tail: [u8; 7] = out.payload[out.payload.len() - 7..].try_into().unwrap();
        let tick = u32::from_be_bytes([tail[2], tail[3], tail[4], tail[5]]);

        (tail[0], tail[1], tick, tail[6])
    });
    if let Some((track, ..)) = of {
        assert_eq!(
            Some(track),
            carried,
            "a payload of a Track that is not subscribed to"
        );
    }

    let index = out.index;
    let before = run.got.insert(index, Got { out, of });
    assert!(
        before.is_none(),
        "two packets under one SRTP index: {before:?}"
    );
}

fn gaps(run: &Run) -> Vec<u16> {
    let (Some(first), Some(last)) = (run.got.keys().next(), run.got.keys().next_back()) else {
        return Vec::new();
    };

    (*first..*last)
        .filter(|index| !run.got.contains_key(index))
        .map(|index| u16::try_from(index & 0xffff).unwrap())
        .collect()
}

/// What holds whatever the network and the publishers did.
fn check(run: &Run) -> Result<(), TestCaseError> {
    // Numbers go on no faster than twice as fast as packets leave.
    if let (Some(first), Some(last)) = (run.got.keys().next(), run.got.keys().next_back()) {
        let left_free = last - first + 1 - run.got.len() as u64;
        prop_assert!(
            left_free <= FREE_MAX + run.got.len() as u64,
            "{left_free} numbers left free"
        );
    }
    let mut media = run.got.values().filter_map(|got| Some((&got.out, got.of?)));
    let Some((first, of)) = media.next() else {
        return Ok(());
    };
    let mut before = (first, of);

    for (out, of) in media {
        let (out_before, of_before) = before;
        let step = out.fixed.timestamp.wrapping_sub(out_before.fixed.timestamp);
        let ids = out.vp8().0.wrapping_sub(out_before.vp8().0) & 0x7fff;
        // With its first packet a picture may begin again, for who goes away and comes back.
        let is_same_picture =
            (of.0, of.1, of.2) == (of_before.0, of_before.1, of_before.2) && of.3 > 0;

        if is_same_picture {
            prop_assert_eq!((step, ids), (0, 0), "one picture: {:?} {:?}", of_before, of);
            prop_assert!(of.3 > of_before.3);
        } else {
            prop_assert!(
                step > 0 && step < 1 << 30,
                "timestamps grow: {} {:?} {:?}",
                step,
                of_before,
                of
            );
            let missing = usize::from(ids) - usize::from(ids > 0);
            // A picture that comes late has its id kept free; it may turn out not to be wanted, or its source to have ended. Where
            // thousands of numbers were left out nobody can tell what is missing from what began anew.
            let missing_max = match run.strides {
                0 => run.lost + run.late,
                _ => usize::from(u16::MAX),
            };
            prop_assert!(
                ids > 0 && missing <= missing_max,
                "ids: {} {:?} {:?}",
                ids,
                of_before,
                of
            );
            let steps = usize::from(out.vp8().1.wrapping_sub(out_before.vp8().1));
            prop_assert!(
                steps <= 1 + missing_max,
                "TL0PICIDX: {} {:?} {:?}",
                steps,
                of_before,
                of
            );
        }
        before = (out, of);
    }
    Ok(())
}

proptest! {
    #[test]
    fn where_nothing_is_lost_no_number_is_missing_and_every_picture_can_be_decoded(
        ticks in ticks(deeds(), prop_oneof![
            12 => Just(Fate::Arrives),
            1 => Just(Fate::ArrivesTwice),
            1 => (1_u8..5).prop_map(Fate::Late),
        ]),
    ) {
        let run = run(&ticks);

        check(&run)?;
        let missing = gaps(&run);
        prop_assert!(missing.is_empty(), "{:?} of {:?}", missing, run.got.iter().map(|(index, got)| (index, got.of)).collect::<Vec<_>>());

        // Picture by picture, in the order of the stream.
        let mut decoded = BTreeSet::new();
        let mut source = None;
        for (track, number, tick) in run.got.values().filter_map(|got| got.of).map(|of| (of.0, of.1, of.2)) {
            let made = run.made[&(track, number, tick)];
            if made.is_key || source != Some((track, number)) {
                prop_assert!(made.is_key, "{:?} goes over to {:?} without a key frame", source, (track, number, tick));
                decoded.clear();
                source = Some((track, number));
            }
            if let Some(needed) = made.refers_to {
                let is_there = decoded.contains(&needed) || run.disturbed.contains(&(track, number, needed));
                prop_assert!(is_there, "{} needs {}", tick, needed);
            }
            decoded.insert(made.tick);
        }
    }

    #[test]
    fn whatever_is_lost_the_stream_is_one(
        ticks in ticks(deeds(), prop_oneof![
            8 => Just(Fate::Arrives),
            1 => Just(Fate::ArrivesTwice),
            2 => (1_u8..5).prop_map(Fate::Late),
            2 => Just(Fate::Lost),
        ]),
    ) {
        let run = run(&ticks);

        check(&run)?;
        prop_assert!(gaps(&run).len() <= run.lost, "{:?}", gaps(&run));
    }

    #[test]
    fn whatever_numbers_are_left_out_the_stream_is_one(
        ticks in ticks(prop_oneof![12 => deeds(), 1 => strides()], prop_oneof![
            8 => Just(Fate::Arrives),
            1 => Just(Fate::ArrivesTwice),
            2 => (1_u8..5).prop_map(Fate::Late),
            2 => Just(Fate::Lost),
        ]),
    ) {
        let run = run(&ticks);

        check(&run)?;
        prop_assert!(gaps(&run).len() <= run.lost + run.left_out, "{:?}", gaps(&run));
    }
}
