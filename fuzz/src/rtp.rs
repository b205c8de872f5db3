//! What those who send and receive media can send to the forwarder.

use std::collections::{BTreeMap, BTreeSet};

use sfu_rtp::dependency_descriptor::{Indication, Reader, has_structure};
use sfu_rtp::extension::{
    AbsCaptureTime, AbsSendTime, AudioLevel, ExtensionKind, ExtensionMap, PlayoutDelay,
    read_identifier, read_transport_sequence_number,
};
use sfu_rtp::packet::{Header, HeaderMut, HeaderWriter, Packet, pad};
use sfu_rtp::payload::{av1, h264, opus, red, rtx, vp8, vp9};
use sfu_rtp::rtcp::{self, Builder, Compound, ExtendedReportBlock, TransportFeedback};
use sfu_rtp::srtp::{
    DtlsRole, Inbound, OVERHEAD_MAX, OpenError, Outbound, Profile, REPLAY_WINDOW, SSRCS_MAX,
    sessions,
};
use sfu_rtp::{DatagramKind, classify};

/// A packet of RTP: what it says lies inside of it, and written again it says the same.
pub(crate) fn rtp_packet(data: &[u8]) {
    std::hint::black_box(classify(data));
    let Ok(packet) = Packet::parse(data) else {
        return;
    };
    assert!(matches!(
        classify(data),
        Some(DatagramKind::Rtp | DatagramKind::Rtcp)
    ));
    let header = packet.header();
    assert_eq!(
        packet.payload_range().end + packet.padding_len(),
        data.len()
    );
    assert_eq!(packet.payload_range().start, header.len());

    let extensions: Vec<_> = header.extensions().collect();
    for (id, value) in &extensions {
        let first = header.extension_range(*id).expect("it was met");
        assert_eq!(header.extension(*id), Some(&data[first]));
        std::hint::black_box((
            read_identifier(value),
            read_transport_sequence_number(value),
            AudioLevel::from_bytes(value).map(AudioLevel::to_bytes),
            PlayoutDelay::from_bytes(value).map(PlayoutDelay::to_bytes),
            AbsCaptureTime::from_bytes(value).map(AbsCaptureTime::to_bytes),
        ));
        if let Some(time) = AbsSendTime::from_bytes(value) {
            assert_eq!(time.to_bytes(), value[..3]);
            assert_eq!(time.micros_since(time), 0);
        }
        let mut map = ExtensionMap::new();
        if map.set(ExtensionKind::Mid, *id).is_ok() {
            assert_eq!(map.kind(*id), Some(ExtensionKind::Mid));
        }
    }

    let mut buffer = vec![0; data.len() + 300];
    let mut writer =
        HeaderWriter::new(&mut buffer, &header.fixed(), header.csrcs()).expect("there is room");
    for (id, value) in &extensions {
        writer
            .extension(*id, value)
            .expect("what was read can be written");
    }
    let header_len = writer.finish().expect("there is room");
    let len = header_len + packet.payload().len();
    buffer[header_len..len].copy_from_slice(packet.payload());
    let padding = u8::try_from(packet.padding_len()).expect("a byte counts it");
    let len = pad(&mut buffer, len, padding).expect("there is room");
    let again = Packet::parse(&buffer[..len]).expect("what we write, we read");
    assert_eq!(again.header().fixed(), header.fixed());
    assert_eq!(again.header().csrcs(), header.csrcs());
    assert!(again.header().extensions().eq(extensions));
    assert_eq!(
        (again.payload(), again.padding_len()),
        (packet.payload(), packet.padding_len())
    );

    let mut changed = data.to_vec();
    let mut change = HeaderMut::parse(&mut changed).expect("it was read");
    change.set_sequence_number(0x1234);
    change.set_timestamp(0x0506_0708);
    change.set_ssrc(0x090a_0b0c);
    change.set_payload_type(0x7f);
    change.set_marker(true);
    let changed = Header::parse(&changed).expect("it was read");
    assert_eq!(changed.len(), header.len());
    assert_eq!(
        (
            changed.sequence_number(),
            changed.timestamp(),
            changed.ssrc()
        ),
        (0x1234, 0x0506_0708, 0x090a_0b0c)
    );
    assert!(changed.extensions().eq(header.extensions()));
}

/// A compound of RTCP: each packet that is read says the same after it was written again.
pub(crate) fn rtcp(data: &[u8]) {
    let mut buffer = vec![0; 8 * data.len() + 8_192];
    for packet in Compound::parse(data) {
        let Ok(packet) = packet else {
            return;
        };
        let mut builder = Builder::new(&mut buffer);
        match packet {
            rtcp::Packet::SenderReport(report) => {
                let blocks: Vec<_> = report.blocks.iter().collect();
                builder
                    .sender_report(report.ssrc, &report.info, &blocks)
                    .expect("there is room");
                let len = builder.len();
                let Some(Ok(rtcp::Packet::SenderReport(again))) =
                    Compound::parse(&buffer[..len]).next()
                else {
                    panic!("an SR became something else");
                };
                assert_eq!((again.ssrc, again.info), (report.ssrc, report.info));
                assert!(again.blocks.iter().eq(blocks));
            }
            rtcp::Packet::ReceiverReport(report) => {
                let blocks: Vec<_> = report.blocks.iter().collect();
                builder
                    .receiver_report(report.ssrc, &blocks)
                    .expect("there is room");
                let len = builder.len();
                let Some(Ok(rtcp::Packet::ReceiverReport(again))) =
                    Compound::parse(&buffer[..len]).next()
                else {
                    panic!("an RR became something else");
                };
                assert!(again.blocks.iter().eq(blocks));
            }
            rtcp::Packet::SourceDescription(description) => {
                assert!(description.cnames().count() <= rtcp::COUNT_MAX);
            }
            rtcp::Packet::Goodbye(goodbye) => {
                let ssrcs: Vec<_> = goodbye.ssrcs().collect();
                builder.goodbye(&ssrcs).expect("there is room");
            }
            rtcp::Packet::Nack(nack) => {
                let numbers: Vec<_> = nack.sequence_numbers().collect();
                builder.nack(1, 2, &numbers).expect("there is room");
                let len = builder.len();
                let again: BTreeSet<u16> = match Compound::parse(&buffer[..len]).next() {
                    Some(Ok(rtcp::Packet::Nack(again))) => again.sequence_numbers().collect(),
                    None => BTreeSet::new(),
                    other => panic!("a NACK became {other:?}"),
                };
                assert_eq!(again, numbers.into_iter().collect());
            }
            rtcp::Packet::TransportFeedback(feedback) => transport_feedback(&feedback, &mut buffer),
            rtcp::Packet::PictureLossIndication(pli) => {
                builder
                    .pli(pli.sender_ssrc, pli.media_ssrc)
                    .expect("there is room");
            }
            rtcp::Packet::FullIntraRequest(request) => {
                for (ssrc, number) in request.requests() {
                    builder
                        .fir(request.sender_ssrc, ssrc, number)
                        .expect("there is room");
                }
            }
            rtcp::Packet::Remb(remb) => {
                let ssrcs: Vec<_> = remb.ssrcs().collect();
                builder
                    .remb(remb.sender_ssrc, remb.bits_per_second, &ssrcs)
                    .expect("there is room");
                let len = builder.len();
                let Some(Ok(rtcp::Packet::Remb(again))) = Compound::parse(&buffer[..len]).next()
                else {
                    panic!("a REMB became something else");
                };
                // u64::MAX stands for what has more bits, and is rounded down itself.
                if remb.bits_per_second != u64::MAX {
                    assert_eq!(again.bits_per_second, remb.bits_per_second);
                }
                assert!(again.ssrcs().eq(ssrcs));
            }
            rtcp::Packet::ExtendedReport(report) => {
                for block in report.blocks() {
                    match block {
                        ExtendedReportBlock::ReceiverReferenceTime(time) => {
                            builder
                                .receiver_reference_time(report.ssrc, time)
                                .expect("there is room");
                        }
                        ExtendedReportBlock::Dlrr(delay) => {
                            builder.dlrr(report.ssrc, &[delay]).expect("there is room");
                        }
                    }
                }
            }
            rtcp::Packet::Other { .. } => {}
        }
    }
}

/// Arrivals are the same after they were written again; times within the 24 bits of the reference.
fn transport_feedback(feedback: &TransportFeedback<'_>, buffer: &mut [u8]) {
    const CYCLE: i64 = 64_000 << 24;
    assert_eq!(
        feedback.statuses().take(70_000).count(),
        usize::from(feedback.status_count)
    );
    // Longer ones take long, and say nothing new.
    if feedback.status_count > 2_000 {
        return;
    }
    let base = 1 << 16 | u64::from(feedback.base_sequence_number);
    let arrivals: Vec<_> = (base..)
        .zip(feedback.statuses())
        .filter_map(|(number, status)| Some((number, status.arrival_micros?)))
        .collect();
    let mut builder = Builder::new(buffer);
    let taken = builder
        .transport_feedback(1, 2, feedback.feedback_count, base, &arrivals)
        .expect("there is room");
    assert_eq!(taken, arrivals.len());
    let len = builder.len();
    let Some(packet) = Compound::parse(&buffer[..len]).next() else {
        assert!(arrivals.is_empty());
        return;
    };
    let Ok(rtcp::Packet::TransportFeedback(again)) = packet else {
        panic!("a transport feedback became {packet:?}");
    };
    assert_eq!(again.base_sequence_number, feedback.base_sequence_number);
    let times = |feedback: &TransportFeedback<'_>| -> Vec<_> {
        let known = feedback
            .statuses()
            .filter(|status| status.arrival_micros.is_some());
        known
            .map(|status| {
                (
                    status.sequence_number,
                    status.arrival_micros.map(|micros| micros.rem_euclid(CYCLE)),
                )
            })
            .collect()
    };
    assert_eq!(times(&again), times(feedback));
}

/// The first byte chooses what the rest is taken for; the dependency descriptor takes several, each behind its length.
pub(crate) fn payload_descriptors(data: &[u8]) {
    let Some((kind, payload)) = data.split_first() else {
        return;
    };
    match kind % 7 {
        0 => vp8_descriptor(payload),
        1 => vp9_descriptor(payload),
        2 => {
            let units = h264::units(payload);
            assert_eq!(
                h264::is_key_frame(payload),
                units.idr || units.parameter_sets
            );
        }
        3 => assert_eq!(
            av1::AggregationHeader::parse(payload).is_none(),
            payload.is_empty()
        ),
        4 => {
            if let Ok(blocks) = red::Blocks::parse(payload) {
                let (mut headers, mut content) = (0, 0);
                for block in blocks.clone() {
                    headers += 4;
                    content += block.payload.len();
                    assert!(block.payload_type < 128);
                }
                assert_eq!(headers - 3 + content, payload.len());
                assert_eq!(blocks.clone().last(), blocks.newest());
            }
        }
        5 => {
            std::hint::black_box((opus::is_dtx(payload), rtx::original(payload)));
            if let Some(toc) = opus::Toc::parse(payload) {
                assert!(toc.duration().as_micros() <= 48 * 60_000);
            }
        }
        _ => dependency_descriptors(payload),
    }
}

fn vp8_descriptor(payload: &[u8]) {
    let Ok(descriptor) = vp8::Descriptor::parse(payload) else {
        return;
    };
    assert!(descriptor.len <= payload.len());
    assert!(vp8::dimensions(payload).is_none() || descriptor.is_key_frame);
    let mut changed = payload.to_vec();
    descriptor.rewrite(&mut changed, 0x0123, 0x45);
    let again = vp8::Descriptor::parse(&changed).expect("it keeps its form");
    assert_eq!(
        again.picture_id.map(|id| id.value),
        descriptor
            .picture_id
            .map(|id| if id.long { 0x123 } else { 0x23 })
    );
    assert_eq!(
        again.tl0_picture_index,
        descriptor.tl0_picture_index.map(|_| 0x45)
    );
    let (picture_id, tl0_picture_index) = (descriptor.picture_id, descriptor.tl0_picture_index);
    assert_eq!(
        vp8::Descriptor {
            picture_id,
            tl0_picture_index,
            ..again
        },
        descriptor
    );
    assert_eq!(changed[descriptor.len..], payload[descriptor.len..]);
}

fn vp9_descriptor(payload: &[u8]) {
    let Ok(descriptor) = vp9::Descriptor::parse(payload) else {
        return;
    };
    assert!(descriptor.len <= payload.len());
    let mut changed = payload.to_vec();
    descriptor.rewrite(&mut changed, 0x0123, 0x45);
    let again = vp9::Descriptor::parse(&changed).expect("it keeps its form");
    assert_eq!(
        again.picture_id.map(|id| id.value),
        descriptor
            .picture_id
            .map(|id| if id.long { 0x123 } else { 0x23 })
    );
    assert_eq!(
        again.tl0_picture_index,
        descriptor.tl0_picture_index.map(|_| 0x45)
    );
    let (picture_id, tl0_picture_index) = (descriptor.picture_id, descriptor.tl0_picture_index);
    assert_eq!(
        vp9::Descriptor {
            picture_id,
            tl0_picture_index,
            ..again
        },
        descriptor
    );
    assert_eq!(changed[descriptor.len..], payload[descriptor.len..]);
}

fn dependency_descriptors(mut data: &[u8]) {
    let mut reader = Reader::new();
    while let Some((len, rest)) = data.split_first() {
        let (bytes, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        data = rest;
        let Ok(descriptor) = reader.read(bytes) else {
            continue;
        };
        assert_eq!(descriptor.has_structure, has_structure(bytes));
        let structure = reader.structure().expect("without one nothing is read");
        let targets = structure.decode_targets();
        assert_eq!(descriptor.indication(targets), Indication::NotPresent);
        assert!(descriptor.spatial_layer < structure.spatial_layers());
        assert!(descriptor.temporal_layer < structure.temporal_layers());
        assert!(
            descriptor
                .frame_diffs()
                .iter()
                .all(|diff| (1..=4096).contains(diff))
        );
        assert_eq!(descriptor.chain_diffs().len(), structure.chains());
        for target in 0..targets {
            let chain = structure.protected_by(target);
            assert_eq!(chain.is_some(), structure.chains() > 0);
            assert!(chain.is_none_or(|chain| chain < structure.chains()));
            let (spatial, temporal) = structure.layers(target).expect("each has layers");
            assert!(
                structure
                    .decode_target(spatial, temporal)
                    .is_some_and(|first| first <= target)
            );
        }

        let mut buffer = vec![0; bytes.len() + 5];
        let len = descriptor
            .write_with_active_decode_targets(bytes, 1, &mut buffer)
            .expect("it grows by up to five bytes");
        let again = reader.read(&buffer[..len]).expect("what we write, we read");
        assert_eq!(again.active_decode_targets, Some(1));
        assert_eq!(again.frame_number, descriptor.frame_number);
        assert_eq!(
            (again.frame_diffs(), again.chain_diffs()),
            (descriptor.frame_diffs(), descriptor.chain_diffs())
        );
        for target in 0..targets {
            assert_eq!(again.indication(target), descriptor.indication(target));
        }
    }
}

/// SRTP: the input as it is, which nobody has sealed, and then packets that it describes, some of them changed on the way.
/// What is opened is what was sealed, each once.
pub(crate) fn srtp_inbound(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    let profile = Profile::ALL[usize::from(*kind) % Profile::ALL.len()];
    let exporter = [0x5a; 88];
    let exporter = &exporter[..profile.keying_material_len()];
    let (_, mut outbound) =
        sessions(profile, DtlsRole::Client, exporter).expect("the right length");
    let (mut inbound, _) = sessions(profile, DtlsRole::Server, exporter).expect("the right length");

    assert!(inbound.open_rtp(&mut data.to_vec()).is_err());
    assert!(inbound.open_rtcp(&mut data.to_vec()).is_err());

    let mut seen = Sources::default();
    for step in data.chunks_exact(4).take(300) {
        let [ssrc, forward, far, change] = *step else {
            continue;
        };
        if ssrc == 0xff {
            rtcp_step(&mut outbound, &mut inbound, forward, change);
        } else {
            rtp_step(
                &outbound,
                &mut inbound,
                &mut seen,
                [ssrc, forward, far, change],
            );
        }
    }
}

/// What came of each source, and when it came last.
#[derive(Default)]
struct Sources {
    by_ssrc: BTreeMap<u8, Seen>,
    packets: u64,
}

#[derive(Default)]
struct Seen {
    indices: BTreeSet<u64>,
    at: u64,
    /// Others took its place: of what came there is nothing but the highest.
    is_silent: bool,
    /// That before it came again.
    floor: Option<u64>,
}

impl Sources {
    fn accept(&mut self, ssrc: u8, index: u64) {
        self.packets += 1;
        let is_there = |seen: &Seen| !seen.is_silent;
        let is_known = self.by_ssrc.get(&ssrc).is_some_and(is_there);
        let mut known = self.by_ssrc.values_mut().filter(|seen| !seen.is_silent);
        if !is_known && known.by_ref().count() >= SSRCS_MAX {
            let known = self.by_ssrc.values_mut().filter(|seen| !seen.is_silent);
            if let Some(oldest) = known.min_by_key(|seen| seen.at) {
                oldest.is_silent = true;
                oldest.floor = oldest.indices.last().copied();
            }
        }
        let seen = self.by_ssrc.entry(ssrc).or_default();
        seen.is_silent = false;
        seen.at = self.packets;
        seen.indices.insert(index);
    }
}

/// Seals a packet whose index is some way from the highest of its source, changes it if so told, and opens it.
fn rtp_step(
    outbound: &Outbound,
    inbound: &mut Inbound,
    sources: &mut Sources,
    [ssrc, forward, far, change]: [u8; 4],
) {
    let known = sources.by_ssrc.get(&ssrc);
    let highest = known.and_then(|seen| seen.indices.last().copied());
    let way = i64::from(forward.cast_signed()) * i64::from(far) / 2;
    let index = highest
        .unwrap_or(30_000)
        .saturating_add_signed(way)
        .min(60_000.max(highest.unwrap_or(0) + 20_000));
    let [.., a, b] = index.to_be_bytes();
    let plain = [0x80, 96, a, b, 0, 0, 0, 0, 0, 0, 0, ssrc, forward, far];
    let mut packet = [0; 14 + OVERHEAD_MAX];
    packet[..14].copy_from_slice(&plain);
    let len = outbound
        .seal_rtp(&mut packet, 12, 14, index)
        .expect("there is room");
    let packet = &mut packet[..len];
    // The first two bits are the version, which is looked at before.
    let at = usize::from(change) % len;
    if change > 127 {
        packet[at] ^= 1;
    }

    let opened = inbound.open_rtp(packet);
    if change > 127 {
        assert!(opened.is_err(), "{opened:?}");
        return;
    }
    let is_old = index + REPLAY_WINDOW <= highest.unwrap_or(0);
    let expected = match known {
        Some(_) if is_old => Err(OpenError::TooOld { index }),
        Some(seen) if seen.is_silent && seen.floor.is_some_and(|floor| index <= floor) => {
            Err(OpenError::TooOld { index })
        }
        Some(seen)
            if seen.indices.contains(&index) || seen.floor.is_some_and(|floor| index <= floor) =>
        {
            Err(OpenError::Replayed { index })
        }
        _ => Ok(index),
    };
    assert_eq!(opened.map(|opened| opened.index), expected);
    if let Ok(opened) = opened {
        assert_eq!(packet[..opened.len], plain);
        sources.accept(ssrc, index);
    }
}

/// Seals a compound, changes it if so told, and opens it, twice.
fn rtcp_step(outbound: &mut Outbound, inbound: &mut Inbound, ssrc: u8, change: u8) {
    let plain = [0x80, 201, 0, 1, 0, 0, 0, ssrc & 0x3f];
    let mut packet = [0; 8 + OVERHEAD_MAX];
    packet[..8].copy_from_slice(&plain);
    let len = outbound.seal_rtcp(&mut packet, 8).expect("there is room");
    let packet = &mut packet[..len];
    if change > 127 {
        packet[usize::from(change) % len] ^= 1;
        assert!(inbound.open_rtcp(packet).is_err());
        return;
    }
    let mut again = packet.to_vec();
    assert_eq!(inbound.open_rtcp(packet), Ok(8));
    assert_eq!(packet[..8], plain);
    assert!(matches!(
        inbound.open_rtcp(&mut again),
        Err(OpenError::Replayed { .. })
    ));
}
