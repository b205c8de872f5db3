//! What a packet costs: no allocation, and its time; what a transport's keys hold.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the tests may unwrap as the tests do"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use sfu_rtp::dependency_descriptor::Reader;
use sfu_rtp::extension::AudioLevel;
use sfu_rtp::packet::{FixedHeader, HeaderWriter, Packet};
use sfu_rtp::payload::vp8;
use sfu_rtp::rtcp::{Builder, Compound, ReportBlock, SenderInfo};
use sfu_rtp::srtp::{DtlsRole, Inbound, OVERHEAD_MAX, Outbound, Profile, sessions};

/// The most the keys of a transport may hold, in bytes, with a source of each protocol. AES-CM holds both directions of each
/// AES key schedule.
const SESSION_BYTES_MAX: usize = 9_000;

/// The most it may take to write, copy and seal a packet of video by AES-GCM, in ns: several times what it takes, and less
/// than building the key schedules anew for each.
const SEAL_NANOS_MAX: u128 = 1_000;

/// A packet of video without header and extensions, in bytes.
const PAYLOAD_LEN: usize = 1180;

#[test]
fn no_packet_allocates() {
    for profile in Profile::ALL {
        let (mut inbound, mut outbound) = transport(profile);
        let mut buffer = [0; 1500];
        let payload = [0x90, 0x80, 0x11, 0x01];
        let descriptors = [&[0xc0, 0, 1][..], &[0x80, 0, 2]];
        let mut reader = Reader::new();
        // What comes for the first time may.
        forward(&mut inbound, &outbound, &mut buffer, 1, &payload);
        report(&mut inbound, &mut outbound, &mut buffer);

        let before = ALLOCATIONS.get();
        for index in 2..100_000 {
            forward(&mut inbound, &outbound, &mut buffer, index, &payload);
        }
        for _ in 0..100 {
            report(&mut inbound, &mut outbound, &mut buffer);
            for descriptor in descriptors {
                assert!(reader.read(descriptor).is_err());
            }
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{profile:?}");
    }
}

#[test]
fn the_keys_of_a_transport_are_small() {
    for profile in Profile::ALL {
        let before = HELD.get();
        let mut session = Box::new(transport(profile));
        let mut buffer = [0; 1500];
        forward(&mut session.0, &session.1, &mut buffer, 1, &[]);
        report(&mut session.0, &mut session.1, &mut buffer);
        let held = HELD.get() - before;

        println!("{profile:?}: {held} bytes, without what the C library holds");
        assert!(held < SESSION_BYTES_MAX, "{profile:?}: {held} bytes");
    }
}

#[test]
fn a_packet_is_written_and_sealed_in_no_time() {
    const PACKETS: u64 = 2_000;
    for profile in Profile::ALL {
        let (_, outbound) = transport(profile);
        let mut buffer = [0; 1500];
        let payload = [7; PAYLOAD_LEN];
        let rounds = (0..25).map(|round| {
            let began = Instant::now();
            for index in round * PACKETS..(round + 1) * PACKETS {
                std::hint::black_box(sealed(&outbound, &mut buffer, index, &payload));
            }
            began.elapsed().as_nanos() / u128::from(PACKETS)
        });
        let least = rounds.min().unwrap();

        println!("{profile:?}: {least} ns to write, copy and seal {PAYLOAD_LEN} bytes");
        if profile != Profile::Aes128CmSha1_80 {
            assert!(least < SEAL_NANOS_MAX, "{profile:?}: {least} ns");
        }
    }
}

/// The other side's receiving end, and our sending one.
fn transport(profile: Profile) -> (Inbound, Outbound) {
    let exporter = [0x5a; 88];
    let exporter = &exporter[..profile.keying_material_len()];
    let (_, outbound) = sessions(profile, DtlsRole::Server, exporter).unwrap();
    let (inbound, _) = sessions(profile, DtlsRole::Client, exporter).unwrap();
    (inbound, outbound)
}

/// The length of a packet, written with two extensions and sealed in `buffer`.
fn sealed(outbound: &Outbound, buffer: &mut [u8], index: u64, payload: &[u8]) -> usize {
    let [.., a, b] = index.to_be_bytes();
    let fixed = FixedHeader {
        marker: true,
        payload_type: 96,
        sequence_number: u16::from_be_bytes([a, b]),
        timestamp: 90_000,
        ssrc: 7,
    };
    let level = AudioLevel {
        voice: true,
        level: 30,
    };
    let mut writer = HeaderWriter::new(buffer, &fixed, &[]).unwrap();
    writer.extension(1, &level.to_bytes()).unwrap();
    writer.extension(3, &[a, b]).unwrap();
    let header_len = writer.finish().unwrap();
    let len = header_len + payload.len();
    buffer[header_len..len].copy_from_slice(payload);
    outbound.seal_rtp(buffer, header_len, len, index).unwrap()
}

/// Seals a packet, opens it and looks at it.
fn forward(
    inbound: &mut Inbound,
    outbound: &Outbound,
    buffer: &mut [u8],
    index: u64,
    payload: &[u8],
) {
    let len = sealed(outbound, buffer, index, payload);
    let opened = inbound.open_rtp(&mut buffer[..len]).unwrap();
    assert_eq!(opened.index, index);
    let packet = Packet::parse(&buffer[..opened.len]).unwrap();
    assert_eq!(packet.header().extensions().count(), 2);
    let range = packet.payload_range();
    if let Ok(descriptor) = vp8::Descriptor::parse(packet.payload()) {
        descriptor.rewrite(&mut buffer[range], 5, 6);
    }
}

/// Writes a compound, seals it, opens it and walks it.
fn report(inbound: &mut Inbound, outbound: &mut Outbound, buffer: &mut [u8]) {
    let room = buffer.len() - OVERHEAD_MAX;
    let mut builder = Builder::new(&mut buffer[..room]);
    let info = SenderInfo::default();
    builder
        .sender_report(7, &info, &[ReportBlock::default()])
        .unwrap();
    builder.source_description(7, "name").unwrap();
    builder.nack(7, 8, &[1, 2, 40]).unwrap();
    builder.pli(7, 8).unwrap();
    builder
        .transport_feedback(7, 8, 1, 5, &[(5, 0), (9, 400), (10, 90_000)])
        .unwrap();
    let len = builder.len();
    let len = outbound.seal_rtcp(buffer, len).unwrap();
    let len = inbound.open_rtcp(&mut buffer[..len]).unwrap();
    assert_eq!(
        Compound::parse(&buffer[..len])
            .filter(Result::is_ok)
            .count(),
        5
    );
}

/// Counts what each thread allocates and holds: a test's own thread, that is, whatever runs beside it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; counting touches no memory it manages.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get().wrapping_add(1));
        HELD.set(HELD.get().wrapping_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
