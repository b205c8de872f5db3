//! What we write is read by a stack that is not ours, and the other way round: RTP, RTCP and SRTP of the `rtc` crates.

use proptest::prelude::*;
use rtc_rtcp::extended_report::{
    DLRRReportBlock, ExtendedReport, ReceiverReferenceTimeReportBlock,
};
use rtc_rtcp::goodbye::Goodbye;
use rtc_rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc_rtcp::sender_report::SenderReport;
use rtc_rtcp::source_description::SourceDescription;
use rtc_rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
};
use rtc_rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc_shared::marshal::{Marshal, Unmarshal};
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use sfu_rtp::packet::{FixedHeader, Header, HeaderWriter};
use sfu_rtp::rtcp::{Builder, Compound, Dlrr, NtpTime, Packet, ReportBlock, SenderInfo};
use sfu_rtp::srtp::{Inbound, OVERHEAD_MAX, Outbound, Profile};

/// What the other stack reads where we have written `write`.
fn read_by_the_other<T: 'static + Clone>(write: impl FnOnce(&mut Builder<'_>)) -> T {
    let mut buffer = [0xee; 1200];
    let mut builder = Builder::new(&mut buffer);
    write(&mut builder);
    let len = builder.len();
    let packets =
        rtc_rtcp::packet::unmarshal(&mut &buffer[..len]).expect("the other stack reads it");
    assert_eq!(packets.len(), 1);
    packets[0]
        .as_any()
        .downcast_ref::<T>()
        .expect("it is of the kind we wrote")
        .clone()
}

#[test]
fn compounds_mean_the_same_to_the_other_stack() {
    let info = SenderInfo {
        ntp: NtpTime(0x1234_5678_9abc_def0),
        rtp_timestamp: 4,
        packets: 5,
        octets: 6,
    };
    let block = ReportBlock {
        ssrc: 10,
        fraction_lost: 0x40,
        cumulative_lost: 77,
        highest_sequence: 11,
        jitter: 12,
        last_sr: 13,
        delay_since_last_sr: 14,
    };
    let report: SenderReport = read_by_the_other(|b| b.sender_report(1, &info, &[block]).unwrap());
    assert_eq!(
        (report.ssrc, report.ntp_time, report.rtp_time),
        (1, info.ntp.0, 4)
    );
    assert_eq!((report.packet_count, report.octet_count), (5, 6));
    let read = &report.reports[0];
    assert_eq!(
        (read.ssrc, read.fraction_lost, read.total_lost),
        (10, 0x40, 77)
    );
    assert_eq!((read.last_sequence_number, read.jitter), (11, 12));
    assert_eq!((read.last_sender_report, read.delay), (13, 14));

    let names: SourceDescription =
        read_by_the_other(|b| b.source_description(1, "somebody").unwrap());
    assert_eq!(names.chunks[0].source, 1);
    assert_eq!(names.chunks[0].items[0].text, "somebody");
    let goodbye: Goodbye = read_by_the_other(|b| b.goodbye(&[1, 2]).unwrap());
    assert_eq!(goodbye.sources, [1, 2]);

    let numbers = [10, 11, 26, 27, 65_535, 3];
    let nack: TransportLayerNack = read_by_the_other(|b| b.nack(1, 2, &numbers).unwrap());
    let missed: Vec<u16> = nack.nacks.into_iter().flatten().collect();
    assert_eq!(missed, numbers);
    let pli: PictureLossIndication = read_by_the_other(|b| b.pli(1, 2).unwrap());
    assert_eq!((pli.sender_ssrc, pli.media_ssrc), (1, 2));
    let request: FullIntraRequest = read_by_the_other(|b| b.fir(1, 2, 7).unwrap());
    assert_eq!(
        (request.fir[0].ssrc, request.fir[0].sequence_number),
        (2, 7)
    );
    let remb: ReceiverEstimatedMaximumBitrate =
        read_by_the_other(|b| b.remb(1, 2_500_000, &[9]).unwrap());
    assert_eq!(
        (remb.bitrate.to_bits(), remb.ssrcs),
        (2_500_000f32.to_bits(), vec![9])
    );

    let report: ExtendedReport =
        read_by_the_other(|b| b.receiver_reference_time(1, info.ntp).unwrap());
    let time = report.reports[0]
        .as_any()
        .downcast_ref::<ReceiverReferenceTimeReportBlock>();
    assert_eq!(time.map(|time| time.ntp_timestamp), Some(info.ntp.0));
    let delay = Dlrr {
        ssrc: 2,
        last_rr: 3,
        delay_since_last_rr: 4,
    };
    let report: ExtendedReport = read_by_the_other(|b| b.dlrr(1, &[delay]).unwrap());
    let delays = report.reports[0]
        .as_any()
        .downcast_ref::<DLRRReportBlock>()
        .expect("a DLRR block");
    let read = &delays.reports[0];
    assert_eq!((read.ssrc, read.last_rr, read.dlrr), (2, 3, 4));
}

/// The statuses of a feedback as the other stack has read it: ticks of 250 µs since its reference.
fn arrivals_of(feedback: &TransportLayerCc) -> Vec<Option<i64>> {
    let symbols = feedback.packet_chunks.iter().flat_map(|chunk| match chunk {
        PacketStatusChunk::RunLengthChunk(run) => {
            vec![run.packet_status_symbol; usize::from(run.run_length)]
        }
        PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
    });
    let mut deltas = feedback.recv_deltas.iter();
    let mut ticks = 0;
    symbols
        .take(usize::from(feedback.packet_status_count))
        .map(|symbol| {
            if symbol == SymbolTypeTcc::PacketNotReceived {
                return None;
            }
            ticks += deltas.next()?.delta / 250;
            Some(ticks)
        })
        .collect()
}

proptest! {
    /// Times of arrival mean the same to both.
    #[test]
    fn arrivals_mean_the_same_to_the_other_stack(
        first in 0u64..1 << 20,
        before in 0u64..60,
        start in 0i64..1 << 36,
        steps in prop::collection::vec((1u64..30, -20_000i64..200_000), 0..100),
    ) {
        let mut arrivals = vec![(first, start)];
        for (number, micros) in steps {
            let (last, at) = arrivals[arrivals.len() - 1];
            arrivals.push((last + number, at + micros));
        }
        let base = first.saturating_sub(before);
        let feedback: TransportLayerCc = read_by_the_other(|builder| {
            let taken = builder.transport_feedback(1, 2, 9, base, &arrivals).unwrap();
            assert_eq!(taken, arrivals.len());
        });

        prop_assert_eq!((feedback.sender_ssrc, feedback.media_ssrc, feedback.fb_pkt_count), (1, 2, 9));
        prop_assert_eq!(u64::from(feedback.base_sequence_number), base % 65_536);
        let reference = i64::from(feedback.reference_time) * 256;
        let read: Vec<_> = (base..)
            .zip(arrivals_of(&feedback))
            .filter_map(|(number, ticks)| Some((number, ticks? + reference)))
            .collect();
        let cycle = 256i64 << 24;
        let expected: Vec<_> = arrivals
            .iter()
            .map(|(number, micros)| (*number, micros.div_euclid(250)))
            .collect();
        let shift = expected[0].1 - read[0].1;
        prop_assert_eq!(shift % cycle, 0);
        let read: Vec<_> = read.into_iter().map(|(number, ticks)| (number, ticks + shift)).collect();
        prop_assert_eq!(read, expected);
    }

    /// A header means the same to both, whoever writes it.
    #[test]
    fn headers_mean_the_same_to_the_other_stack(
        marker: bool,
        payload_type in 0u8..128,
        sequence_number: u16,
        timestamp: u32,
        ssrc: u32,
        csrcs in prop::collection::vec(any::<[u8; 4]>(), 0..=15),
        extensions in prop::collection::btree_map(1u8..=14, prop::collection::vec(any::<u8>(), 1..=20), 0..6),
    ) {
        let fixed = FixedHeader { marker, payload_type, sequence_number, timestamp, ssrc };
        let mut buffer = [0xee; 600];
        let mut writer = HeaderWriter::new(&mut buffer, &fixed, &csrcs).unwrap();
        for (id, value) in &extensions {
            writer.extension(*id, value).unwrap();
        }
        let len = writer.finish().unwrap();

        let theirs = rtc_rtp::Header::unmarshal(&mut &buffer[..len]).expect("the other stack reads it");
        let read = FixedHeader {
            marker: theirs.marker,
            payload_type: theirs.payload_type,
            sequence_number: theirs.sequence_number,
            timestamp: theirs.timestamp,
            ssrc: theirs.ssrc,
        };
        prop_assert_eq!(read, fixed);
        let contributing: Vec<_> = csrcs.iter().map(|csrc| u32::from_be_bytes(*csrc)).collect();
        prop_assert_eq!(&theirs.csrc, &contributing);
        let values: Vec<_> = theirs.extensions.iter().map(|it| (it.id, it.payload.to_vec())).collect();
        prop_assert_eq!(&values, &extensions.clone().into_iter().collect::<Vec<_>>());

        let written = theirs.marshal().expect("the other stack writes what it read");
        let ours = Header::parse(&written).expect("we read it");
        prop_assert_eq!(ours.fixed(), fixed);
        prop_assert_eq!(ours.csrcs(), &csrcs[..]);
        prop_assert!(ours.extensions().map(|(id, value)| (id, value.to_vec())).eq(values));
    }

    /// Under the same keys both seal to the same bytes, across rollovers, and each opens the other's.
    #[test]
    fn packets_are_sealed_to_the_same_bytes(
        (profile, theirs) in prop::sample::select(vec![
            (Profile::Aes128CmSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
            (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
            (Profile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm),
        ]),
        key: [u8; 32],
        salt: [u8; 14],
        ssrc: u32,
        first in 60_000u64..65_536,
        steps in prop::collection::vec(1u64..9_000, 1..20),
        payload in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let (key, salt) = (&key[..profile.key_len()], &salt[..profile.salt_len()]);
        let crypto = rtc_srtp::crypto::default_provider().expect("a provider is built in");
        let context = || Context::new(key, salt, theirs, None, None, crypto.crypto()).expect("keys of the right length");
        let (mut their_outbound, mut their_inbound) = (context(), context());
        let mut outbound = Outbound::new(profile, key, salt).unwrap();
        let mut inbound = Inbound::new(profile, key, salt).unwrap();

        let mut index = first;
        for step in std::iter::once(0).chain(steps) {
            index += step;
            let [.., a, b] = index.to_be_bytes();
            let sequence_number = u16::from_be_bytes([a, b]);
            let fixed = FixedHeader { sequence_number, ssrc, ..FixedHeader::default() };
            let mut buffer = [0; 700];
            let mut writer = HeaderWriter::new(&mut buffer, &fixed, &[]).unwrap();
            writer.extension(5, &[a, b]).unwrap();
            let header_len = writer.finish().unwrap();
            let len = header_len + payload.len();
            buffer[header_len..len].copy_from_slice(&payload);
            let plain = buffer[..len].to_vec();

            let len = outbound.seal_rtp(&mut buffer, header_len, len, index).unwrap();
            let expected = their_outbound.encrypt_rtp(&plain).expect("the other stack seals it");
            prop_assert_eq!(&buffer[..len], &expected[..]);
            let opened = their_inbound.decrypt_rtp(&buffer[..len]).expect("the other stack opens it");
            prop_assert_eq!(&opened[..], &plain[..]);
            let opened = inbound.open_rtp(&mut buffer[..len]).unwrap();
            prop_assert_eq!((opened.index, &buffer[..opened.len]), (index, &plain[..]));

            let mut builder = Builder::new(&mut buffer);
            builder.receiver_report(ssrc, &[]).unwrap();
            builder.source_description(ssrc, "name").unwrap();
            let len = builder.len();
            let plain = buffer[..len].to_vec();
            prop_assert!(len + OVERHEAD_MAX <= buffer.len());
            let len = outbound.seal_rtcp(&mut buffer, len).unwrap();
            let opened = their_inbound.decrypt_rtcp(&buffer[..len]).expect("the other stack opens it");
            prop_assert_eq!(&opened[..], &plain[..]);
            let mut sealed = their_outbound.encrypt_rtcp(&plain).expect("the other stack seals it").to_vec();
            let len = inbound.open_rtcp(&mut sealed).unwrap();
            prop_assert_eq!(&sealed[..len], &plain[..]);
            let read = Compound::parse(&plain).next();
            prop_assert!(matches!(read, Some(Ok(Packet::ReceiverReport(_)))));
        }
    }
}
