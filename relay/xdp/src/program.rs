//! The program that runs for every frame an interface receives.
//!
//! ```text
//! parse ─► find the flow ─► still alive? ─► next hop ─► fits? ─► quota ─► room ─► new headers ─► out
//!   └────────────┴──────────────┴─────────────┴──────────┘         │
//!          in any doubt the kernel gets the frame as it came      drop
//! ```
//!
//! Everything up to "fits?" only reads, so that the kernel and behind it userspace can take over
//! anywhere. Headers are written anew rather than patched: client and peer may be of different
//! families. Only the UDP checksum is carried over, by what changed under it (RFC 1624), so that a
//! packet damaged before still shows it.
//!
//! IP headers follow RFC 8656 §13 and §14: TTL and hop limit are one less, traffic class and Don't
//! Fragment stay, IPv4 from IPv6 is never to be fragmented, flow labels are drawn anew, and
//! options never come here.

use std::ops::RangeInclusive;

use crate::asm::{
    AssembleError, Assembler, Cond, Helper, Label, Operand, Program, R0, R1, R2, R3, R4, R5, R6,
    R7, R8, R9, R10, Reg, Width,
};
use crate::layout::{
    BUCKETS_PER_FLOW, Cause, MAP_BUCKETS, MAP_CAUSES, MAP_DEVICES, MAP_EGRESS, MAP_FLOWS,
    MAP_KEYS_V4, MAP_KEYS_V6, bucket, flow,
};

/// How long a next hop is used before the kernel is asked again, in nanoseconds: a route or
/// neighbour that changes is followed after this.
pub(crate) const NEXT_HOP_LIFETIME_NANOS: i32 = 250_000_000;

/// How often a flow sends one packet the kernel's way, in seconds. The kernel confirms a
/// neighbour only when it sends by itself; an entry used from here alone would never be checked.
pub(crate) const CONFIRM_INTERVAL_SECONDS: i32 = 30;

pub(crate) const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// How often two processors that draw from one bucket at the same time try again.
const BUCKET_TRIES: usize = 4;

/// How many causes there are, as the verifier must know wherever one is counted.
const CAUSES: i32 = Cause::Headroom as i32 + 1;

// Verdicts of linux/bpf.h.
pub(crate) const XDP_DROP: i32 = 1;
pub(crate) const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;

// Fields of struct xdp_md.
const CTX_DATA: i16 = 0;
const CTX_DATA_END: i16 = 4;
const CTX_INGRESS: i16 = 12;

// Lengths of headers.
const ETHERNET: i16 = 14;
const TAG: i16 = 4;
const IPV4: i16 = 20;
const IPV6: i16 = 40;
const UDP: i16 = 8;
const CHANNEL: i16 = 4;

// The stack. Each slot is 8 bytes where nothing else is said.
/// A key of either family; its 40 bytes end at the top.
const KEY: i16 = -40;
const NOW: i16 = -48;
/// What of the UDP checksum's sum is known before the flow is.
const SUM: i16 = -56;
const CLASS: i16 = -64;
/// One less than the packet came with.
const TTL: i16 = -72;
/// The second word of the IPv4 header, wire order.
const ID_AND_FRAGMENT: i16 = -80;
/// The length of the application data.
const PAYLOAD: i16 = -88;
/// How many bytes stand in front of it.
const FRONT: i16 = -96;
/// The checksum the packet came with, wire order.
const CHECKSUM: i16 = -104;
/// Which of [`Cause::ToPeer`] and [`Cause::ToClient`] it is, should all go well.
const DIRECTION: i16 = -112;
/// The UDP length the packet leaves with.
const UDP_LEN: i16 = -120;
/// A flow's or bucket's number: 32 bits.
const NUMBER: i16 = -124;
/// The key of [`MAP_CAUSES`], always 0: 32 bits.
const ZERO: i16 = -128;
/// struct bpf_fib_lookup, 64 bytes.
const FIB: i16 = -192;

// Fields of struct bpf_fib_lookup, from its start.
const FIB_FAMILY: i16 = FIB;
const FIB_PROTOCOL: i16 = FIB + 1;
const FIB_PORTS: i16 = FIB + 2;
const FIB_TOT_LEN: i16 = FIB + 6;
const FIB_IFINDEX: i16 = FIB + 8;
const FIB_SOURCE: i16 = FIB + 16;
const FIB_DESTINATION: i16 = FIB + 32;
const FIB_OWN_MAC: i16 = FIB + 52;
const FIB_MAC: i16 = FIB + 58;
const FIB_LEN: i32 = 64;

// Answers of bpf_fib_lookup.
const FIB_FORWARDING_DISABLED: i32 = 5;
const FIB_NO_NEIGHBOUR: i32 = 7;
const FIB_TOO_LONG: i32 = 8;

/// The loopback interface's number in every network namespace. A route asked for on its behalf is
/// the one the kernel would take for a packet of our own.
const LOOPBACK_IFINDEX: i32 = 1;

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const PROTOCOL_UDP: i32 = 17;

/// `value` as a load finds it in a packet.
fn wire(value: u16) -> i32 {
    i32::from(value.to_be())
}

/// Writes the program for a relay whose relayed ports are `relay_ports`: what arrives at one of
/// them comes from a peer, everything else from a client.
///
/// # Errors
///
/// None that a test would not have met: the program's shape does not depend on the ports.
pub(crate) fn program(relay_ports: &RangeInclusive<u16>) -> Result<Program, AssembleError> {
    append(Assembler::new(), relay_ports)
}

/// As [`program`], behind what is there already, which leaves the context in R1.
pub(crate) fn append(
    before: Assembler,
    relay_ports: &RangeInclusive<u16>,
) -> Result<Program, AssembleError> {
    let mut writer = Writer::new(before);
    writer.parse(relay_ports);
    writer.find_flow();
    writer.ensure_next_hop();
    writer.ensure_fits();
    for place in (flow::BUCKETS..).step_by(4).take(BUCKETS_PER_FLOW) {
        writer.draw_from_bucket(place);
    }
    writer.make_room();
    writer.count_in_flow();
    writer.write_headers();
    writer.send();
    writer.finish()
}

/// The assembler, and where a packet can go besides onwards.
///
/// Registers: R6 is the context all along. While parsing, R5 is the frame's end, R7 its start, R8
/// the IP and then the UDP header. Afterwards R9 is the flow, and R7 and R8 serve each step anew.
struct Writer {
    a: Assembler,
    /// For each [`Cause`] that ends the way of a packet early.
    exits: Vec<(Cause, Label)>,
}

impl Writer {
    fn new(mut a: Assembler) -> Writer {
        let mut exit = |cause| (cause, a.label());
        let early = |cause: &Cause| !matches!(cause, Cause::ToPeer | Cause::ToClient);
        let exits = Cause::ALL
            .into_iter()
            .filter(early)
            .map(&mut exit)
            .collect();
        Writer { a, exits }
    }

    fn exit(&self, cause: Cause) -> Label {
        let found = self.exits.iter().find(|(held, _)| *held == cause);
        found.expect("every cause but success has its exit").1
    }

    fn leave_if(&mut self, cause: Cause, left: Reg, cond: Cond, right: impl Into<Operand>) {
        let exit = self.exit(cause);
        self.a.jump_if(left, cond, right, exit);
    }

    /// Leaves unless `len` bytes from `base` on are in the frame, which the verifier remembers.
    fn ensure_room(&mut self, cause: Cause, base: Reg, len: i16) {
        self.a.mov(R1, base);
        self.a.add(R1, i32::from(len));
        self.leave_if(cause, R1, Cond::Gt, R5);
    }

    /// Leaves what is known of the packet on the stack, and its key in `KEY`, up to the channel.
    fn parse(&mut self, relay_ports: &RangeInclusive<u16>) {
        self.a.mov(R6, R1);
        self.a.load(Width::U32, R7, R6, CTX_DATA);
        self.a.load(Width::U32, R5, R6, CTX_DATA_END);

        self.ensure_room(Cause::NotUdp, R7, ETHERNET + IPV4 + UDP);
        self.a.load(Width::U8, R1, R7, 0);
        self.leave_if(Cause::Group, R1, Cond::AnyBit, 1);
        self.a.load(Width::U16, R1, R7, 12);
        self.a.mov(R8, R7);
        self.a.add(R8, i32::from(ETHERNET));
        self.a.mov(R4, i32::from(ETHERNET));

        let untagged = self.a.label();
        self.a.jump_if(R1, Cond::Ne, wire(0x8100), untagged);
        self.ensure_room(Cause::NotUdp, R8, TAG + IPV4 + UDP);
        self.a.load(Width::U16, R1, R8, 2);
        self.a.add(R8, i32::from(TAG));
        self.a.add(R4, i32::from(TAG));
        self.a.bind(untagged);

        let (ipv6, parsed) = (self.a.label(), self.a.label());
        self.a.jump_if(R1, Cond::Eq, wire(0x86dd), ipv6);
        self.leave_if(Cause::NotUdp, R1, Cond::Ne, wire(0x0800));
        self.parse_ipv4();
        self.parse_udp(relay_ports, KEY, 8);
        self.a.mov(R2, R10);
        self.a.add(R2, i32::from(KEY));
        // A call of its own for each map lets the kernel put the hash's own code in place of both.
        self.a.load_map(R1, MAP_KEYS_V4);
        self.a.call(Helper::MapLookup);
        self.a.jump(parsed);

        self.a.bind(ipv6);
        self.parse_ipv6();
        self.parse_udp(relay_ports, KEY, 32);
        self.a.mov(R2, R10);
        self.a.add(R2, i32::from(KEY));
        self.a.load_map(R1, MAP_KEYS_V6);
        self.a.call(Helper::MapLookup);
        self.a.bind(parsed);
    }

    /// From R8 on; R4 is the length in front of it. R8 moves on to UDP, R4 with it, and R3 becomes
    /// the UDP length by the IP header.
    fn parse_ipv4(&mut self) {
        self.a.load(Width::U8, R1, R8, 9);
        self.leave_if(Cause::NotUdp, R1, Cond::Ne, PROTOCOL_UDP);
        self.a.load(Width::U8, R1, R8, 0);
        self.leave_if(Cause::Options, R1, Cond::Ne, 0x45);
        // All but Don't Fragment.
        self.a.load(Width::U16, R1, R8, 6);
        self.leave_if(Cause::Fragment, R1, Cond::AnyBit, wire(0xbfff));
        self.a.load(Width::U8, R1, R8, 8);
        self.leave_if(Cause::Ttl, R1, Cond::Le, 1);
        self.a.sub(R1, 1);
        self.a.store(Width::U64, R10, TTL, R1);

        self.a.load(Width::U32, R1, R8, 0);
        for word in 1..5 {
            self.a.load(Width::U32, R2, R8, 4 * word);
            self.a.add(R1, R2);
            if word == 1 {
                self.a.store(Width::U64, R10, ID_AND_FRAGMENT, R2);
            }
        }
        self.fold(R1, R2, 3);
        self.leave_if(Cause::IpChecksum, R1, Cond::Ne, 0xffff);

        self.a.load(Width::U16, R3, R8, 2);
        self.a.swap16(R3);
        self.a.mov(R1, R8);
        self.a.add(R1, R3);
        self.leave_if(Cause::Length, R1, Cond::Gt, R5);
        self.a.sub(R3, i32::from(IPV4));
        self.a.load(Width::U8, R1, R8, 1);
        self.a.store(Width::U64, R10, CLASS, R1);

        self.a.load(Width::U64, R1, R8, 12);
        self.a.store(Width::U64, R10, KEY, R1);
        self.a.add(R8, i32::from(IPV4));
        self.a.add(R4, i32::from(IPV4));
    }

    /// As [`parse_ipv4`](Self::parse_ipv4).
    fn parse_ipv6(&mut self) {
        self.ensure_room(Cause::NotUdp, R8, IPV6 + UDP);
        self.a.load(Width::U8, R1, R8, 6);
        self.leave_if(Cause::NotUdp, R1, Cond::Ne, PROTOCOL_UDP);
        self.a.load(Width::U8, R1, R8, 7);
        self.leave_if(Cause::Ttl, R1, Cond::Le, 1);
        self.a.sub(R1, 1);
        self.a.store(Width::U64, R10, TTL, R1);
        self.a.load(Width::U16, R1, R8, 0);
        self.a.swap16(R1);
        self.a.mov(R2, R1);
        self.a.shr(R2, 12);
        self.leave_if(Cause::NotUdp, R2, Cond::Ne, 6);
        self.a.shr(R1, 4);
        self.a.and(R1, 0xff);
        self.a.store(Width::U64, R10, CLASS, R1);
        // No identification, Don't Fragment: what IPv6 brought whole stays whole.
        self.a
            .store(Width::U64, R10, ID_AND_FRAGMENT, wire(0x4000) << 16);

        self.a.load(Width::U16, R3, R8, 4);
        self.a.swap16(R3);
        self.a.mov(R1, R8);
        self.a.add(R1, i32::from(IPV6));
        self.a.add(R1, R3);
        self.leave_if(Cause::Length, R1, Cond::Gt, R5);
        for word in 0..4 {
            self.a.load(Width::U64, R1, R8, 8 + 8 * word);
            self.a.store(Width::U64, R10, KEY + 8 * word, R1);
        }
        self.a.load(Width::U16, R1, R8, IPV6 + 6);
        self.leave_if(Cause::NoChecksum, R1, Cond::Eq, 0);
        self.a.add(R8, i32::from(IPV6));
        self.a.add(R4, i32::from(IPV6));
    }

    /// From R8 on; writes the rest of the key behind its addresses, which take `addresses_len`.
    fn parse_udp(&mut self, relay_ports: &RangeInclusive<u16>, key: i16, addresses_len: i16) {
        self.a.load(Width::U16, R1, R8, 4);
        self.a.mov(R2, R1);
        self.a.swap16(R2);
        self.leave_if(Cause::Length, R2, Cond::Ne, R3);
        self.leave_if(Cause::Length, R2, Cond::Lt, i32::from(UDP));
        self.a.sub(R2, i32::from(UDP));

        // The old length leaves the sum twice: in the header, and in the pseudo-header.
        self.a.xor(R1, 0xffff);
        self.a.mov(R3, R1);
        self.a.add(R3, R1);
        self.a.load(Width::U16, R1, R8, 6);
        self.a.store(Width::U64, R10, CHECKSUM, R1);
        self.a.xor(R1, 0xffff);
        self.a.add(R3, R1);

        let (from_client, parsed) = (self.a.label(), self.a.label());
        // Written as one word, since the hash reads it as one: a processor waits for narrower
        // stores to settle. R7 is free until the frame's start is loaded again.
        let ports_and_channel = key + addresses_len;
        self.a.load(Width::U32, R7, R8, 0);
        self.a.load(Width::U16, R1, R8, 2);
        self.a.swap16(R1);
        self.a
            .jump_if(R1, Cond::Lt, i32::from(*relay_ports.start()), from_client);
        self.a
            .jump_if(R1, Cond::Gt, i32::from(*relay_ports.end()), from_client);
        self.a.store(Width::U64, R10, ports_and_channel, R7);
        self.a
            .store(Width::U64, R10, DIRECTION, Cause::ToClient as i32);
        self.a.add(R4, i32::from(UDP));
        self.a.jump(parsed);

        self.a.bind(from_client);
        self.ensure_room(Cause::NotChannelData, R8, UDP + CHANNEL);
        self.leave_if(Cause::NotChannelData, R2, Cond::Lt, i32::from(CHANNEL));
        self.a.load(Width::U8, R1, R8, UDP);
        self.a.and(R1, 0xc0);
        self.leave_if(Cause::NotChannelData, R1, Cond::Ne, 0x40);
        self.a.load(Width::U16, R1, R8, UDP);
        self.a.mov(R0, R1);
        self.a.shl(R0, 32);
        self.a.or(R0, R7);
        self.a.store(Width::U64, R10, ports_and_channel, R0);
        self.a.xor(R1, 0xffff);
        self.a.add(R3, R1);
        self.a.load(Width::U16, R1, R8, UDP + 2);
        self.a.mov(R0, R1);
        self.a.swap16(R0);
        self.a.xor(R1, 0xffff);
        self.a.add(R3, R1);
        self.ensure_padding_is_zero();
        self.a
            .store(Width::U64, R10, DIRECTION, Cause::ToPeer as i32);
        self.a.add(R4, i32::from(UDP + CHANNEL));

        self.a.bind(parsed);
        self.a.store(Width::U64, R10, SUM, R3);
        self.a.store(Width::U64, R10, PAYLOAD, R2);
        self.a.store(Width::U64, R10, FRONT, R4);
    }

    /// Compares the length in the ChannelData header (R0) with that of UDP (R2, which becomes the
    /// shorter). Padding of zeros can be left out without a trace in the checksum.
    fn ensure_padding_is_zero(&mut self) {
        let padded = self.a.label();
        self.a.sub(R2, i32::from(CHANNEL));
        self.leave_if(Cause::Length, R0, Cond::Gt, R2);
        self.a.jump_if(R0, Cond::Eq, R2, padded);
        self.a.sub(R2, R0);
        self.leave_if(Cause::Padding, R2, Cond::Gt, 3);

        // No frame is as long. The verifier follows a pointer through 65535 bytes, headers included.
        self.leave_if(Cause::Length, R0, Cond::Gt, 0x7fff);
        self.a.mov(R1, R8);
        self.a.add(R1, i32::from(UDP + CHANNEL));
        self.a.add(R1, R0);
        for _ in 0..3 {
            self.a.jump_if(R2, Cond::Eq, 0, padded);
            self.a.mov(R7, R1);
            self.a.add(R7, 1);
            self.leave_if(Cause::Padding, R7, Cond::Gt, R5);
            self.a.load(Width::U8, R7, R1, 0);
            self.leave_if(Cause::Padding, R7, Cond::Ne, 0);
            self.a.add(R1, 1);
            self.a.sub(R2, 1);
        }
        self.a.bind(padded);
        self.a.mov(R2, R0);
    }

    /// R0 is where the flow's number stands; R9 becomes the flow.
    fn find_flow(&mut self) {
        self.leave_if(Cause::NoFlow, R0, Cond::Eq, 0);
        self.a.load(Width::U32, R1, R0, 0);
        self.a.store(Width::U32, R10, NUMBER, R1);
        self.a.load_map(R1, MAP_FLOWS);
        self.look_up(NUMBER);
        self.leave_if(Cause::NoFlow, R0, Cond::Eq, 0);
        self.a.mov(R9, R0);

        self.a.call(Helper::KtimeGetCoarseNs);
        self.a.store(Width::U64, R10, NOW, R0);
        self.a.load(Width::U64, R1, R9, flow::EXPIRES);
        self.leave_if(Cause::Expired, R0, Cond::Ge, R1);
    }

    /// Looks up what stands at `key` of the stack in the map in R1.
    fn look_up(&mut self, key: i16) {
        self.a.mov(R2, R10);
        self.a.add(R2, i32::from(key));
        self.a.call(Helper::MapLookup);
    }

    /// Asks the kernel for the next hop where the flow has none, or an old one. R0 is the time.
    ///
    /// Two processors may do so at once, and one may read what the other is writing: where a route
    /// changes in that moment a packet can be lost, as it could be in a router.
    fn ensure_next_hop(&mut self) {
        let known = self.a.label();
        self.a.load(Width::U64, R1, R9, flow::NEXT_HOP_EXPIRES);
        self.a.jump_if(R0, Cond::Lt, R1, known);

        let confirmed = self.a.label();
        self.a.load(Width::U64, R1, R9, flow::CONFIRM);
        self.a.jump_if(R0, Cond::Lt, R1, confirmed);
        self.a.mov(R1, CONFIRM_INTERVAL_SECONDS);
        self.a.mul(R1, NANOS_PER_SECOND);
        self.a.add(R1, R0);
        self.a.store(Width::U64, R9, flow::CONFIRM, R1);
        let confirm = self.exit(Cause::Confirm);
        self.a.jump(confirm);
        self.a.bind(confirmed);

        self.ask_for_next_hop();
        let (no_neighbour, too_long, disabled) = (
            self.exit(Cause::NoNeighbour),
            self.exit(Cause::Mtu),
            self.exit(Cause::ForwardingDisabled),
        );
        self.a.jump_if(R0, Cond::Eq, FIB_NO_NEIGHBOUR, no_neighbour);
        self.a.jump_if(R0, Cond::Eq, FIB_TOO_LONG, too_long);
        self.a
            .jump_if(R0, Cond::Eq, FIB_FORWARDING_DISABLED, disabled);
        self.leave_if(Cause::NoRoute, R0, Cond::Ne, 0);

        self.a.load_map(R1, MAP_EGRESS);
        self.look_up(FIB_IFINDEX);
        self.leave_if(Cause::OtherInterface, R0, Cond::Eq, 0);
        self.a.load(Width::U32, R1, R0, 0);
        self.a.store(Width::U32, R9, flow::EGRESS, R1);
        self.a.load(Width::U16, R1, R0, 4);
        self.a.store(Width::U16, R9, flow::TAG, R1);
        self.a.load(Width::U16, R1, R10, FIB_TOT_LEN);
        self.a.store(Width::U16, R9, flow::MTU, R1);
        for half in [0, 2, 4] {
            self.a.load(Width::U16, R1, R10, FIB_MAC + half);
            self.a.store(Width::U16, R9, flow::MACS + half, R1);
            self.a.load(Width::U16, R1, R10, FIB_OWN_MAC + half);
            self.a.store(Width::U16, R9, flow::MACS + 6 + half, R1);
        }
        self.a.load(Width::U64, R1, R10, NOW);
        self.a.add(R1, NEXT_HOP_LIFETIME_NANOS);
        self.a.store(Width::U64, R9, flow::NEXT_HOP_EXPIRES, R1);
        self.a.bind(known);
    }

    fn ask_for_next_hop(&mut self) {
        for word in 0..8 {
            self.a.store(Width::U64, R10, FIB + 8 * word, 0);
        }
        let (ipv6, filled) = (self.a.label(), self.a.label());
        self.a.load(Width::U8, R1, R9, flow::FAMILY);
        self.a.jump_if(R1, Cond::Eq, 6, ipv6);
        self.a.store(Width::U8, R10, FIB_FAMILY, AF_INET);
        for (field, place) in [
            (FIB_SOURCE, flow::SOURCE),
            (FIB_DESTINATION, flow::DESTINATION),
        ] {
            self.a.load(Width::U32, R1, R9, place);
            self.a.store(Width::U32, R10, field, R1);
        }
        self.a.jump(filled);
        self.a.bind(ipv6);
        self.a.store(Width::U8, R10, FIB_FAMILY, AF_INET6);
        for (field, place) in [
            (FIB_SOURCE, flow::SOURCE),
            (FIB_DESTINATION, flow::DESTINATION),
        ] {
            for word in [0, 8] {
                self.a.load(Width::U64, R1, R9, place + word);
                self.a.store(Width::U64, R10, field + word, R1);
            }
        }
        self.a.bind(filled);
        self.a.store(Width::U8, R10, FIB_PROTOCOL, PROTOCOL_UDP);
        for half in [0, 2] {
            self.a.load(Width::U16, R1, R9, flow::PORTS + half);
            self.a.store(Width::U16, R10, FIB_PORTS + half, R1);
        }
        // The length is asked about at every packet, below; any makes the kernel tell the MTU.
        self.a.store(Width::U16, R10, FIB_TOT_LEN, 1);
        self.a.store(Width::U32, R10, FIB_IFINDEX, LOOPBACK_IFINDEX);

        self.a.mov(R1, R6);
        self.a.mov(R2, R10);
        self.a.add(R2, i32::from(FIB));
        self.a.mov(R3, FIB_LEN);
        self.a.mov(R4, 0);
        self.a.call(Helper::FibLookup);
    }

    /// Leaves where the new packet is longer than the route takes, or would need a checksum it
    /// does not have. R7 becomes the length of the new IP header.
    fn ensure_fits(&mut self) {
        self.a.load(Width::U64, R2, R10, PAYLOAD);
        self.a.add(R2, i32::from(UDP));
        let stripped = self.a.label();
        self.a.load(Width::U16, R1, R9, flow::CHANNEL);
        self.a.jump_if(R1, Cond::Eq, 0, stripped);
        self.a.add(R2, i32::from(CHANNEL));
        self.a.bind(stripped);
        self.a.store(Width::U64, R10, UDP_LEN, R2);

        let ipv4 = self.a.label();
        self.a.mov(R7, i32::from(IPV4));
        self.a.load(Width::U8, R1, R9, flow::FAMILY);
        self.a.jump_if(R1, Cond::Eq, 4, ipv4);
        self.a.mov(R7, i32::from(IPV6));
        self.a.load(Width::U64, R1, R10, CHECKSUM);
        self.leave_if(Cause::NoChecksum, R1, Cond::Eq, 0);
        self.a.bind(ipv4);

        self.a.add(R2, R7);
        self.a.load(Width::U16, R1, R9, flow::MTU);
        self.leave_if(Cause::Mtu, R2, Cond::Gt, R1);
    }

    /// Takes the packet's cost from both bounds of the bucket whose number stands at `place` of the
    /// flow.
    fn draw_from_bucket(&mut self, place: i16) {
        let drawn = self.a.label();
        self.a.load(Width::U32, R1, R9, place);
        self.a.jump_if(R1, Cond::Eq, 0, drawn);
        self.a.store(Width::U32, R10, NUMBER, R1);
        self.a.load_map(R1, MAP_BUCKETS);
        self.look_up(NUMBER);
        self.a.jump_if(R0, Cond::Eq, 0, drawn);
        self.a.mov(R8, R0);

        self.draw(bucket::PACKETS_SCHEDULE, bucket::PER_PACKET, None);
        self.draw(bucket::BYTES_SCHEDULE, bucket::PER_BYTE, Some(PAYLOAD));
        self.a.bind(drawn);
    }

    /// Moves one schedule of the bucket in R8 on by what the packet costs: as often what stands at
    /// `cost` as the slot `times` says, and one second's worth at most, so that a packet longer
    /// than that passes where nothing else did.
    fn draw(&mut self, schedule: i16, cost: i16, times: Option<i16>) {
        let (drawn, short) = (self.a.label(), self.a.label());
        // R1: what the packet costs. R3: now. R4: how far the schedule may go.
        self.a.load(Width::U64, R1, R8, cost);
        self.a.jump_if(R1, Cond::Eq, 0, drawn);
        if let Some(times) = times {
            self.a.load(Width::U64, R2, R10, times);
            self.a.mul(R1, R2);
        }
        self.a.shr(R1, 16);
        self.a.jump_if(R1, Cond::Le, NANOS_PER_SECOND, short);
        self.a.mov(R1, NANOS_PER_SECOND);
        self.a.bind(short);
        self.a.load(Width::U64, R3, R10, NOW);
        self.a.mov(R4, R3);
        self.a.add(R4, NANOS_PER_SECOND);
        for _ in 0..BUCKET_TRIES {
            let behind = self.a.label();
            self.a.load(Width::U64, R0, R8, schedule);
            self.a.mov(R5, R0);
            self.a.mov(R2, R0);
            self.a.jump_if(R2, Cond::Ge, R3, behind);
            self.a.mov(R2, R3);
            self.a.bind(behind);
            self.a.add(R2, R1);
            self.leave_if(Cause::Quota, R2, Cond::Gt, R4);
            self.a.atomic_compare_exchange(R8, schedule, R2);
            self.a.jump_if(R0, Cond::Eq, R5, drawn);
        }
        // Others were faster every time: the packet goes, and they wait longer for it.
        self.a.atomic_add(R8, schedule, R1);
        self.a.bind(drawn);
    }

    fn count_in_flow(&mut self) {
        self.a.mov(R1, 1);
        self.a.atomic_add(R9, flow::PACKETS, R1);
        self.a.load(Width::U64, R1, R10, PAYLOAD);
        self.a.atomic_add(R9, flow::BYTES, R1);
    }

    /// Moves the frame's start so that the new headers end where the payload begins. R7 is the
    /// length of the new IP header, and stays it.
    fn make_room(&mut self) {
        self.a.load(Width::U64, R2, R10, FRONT);
        self.a.sub(R2, R7);
        self.a.sub(R2, i32::from(ETHERNET + UDP));
        let (untagged, stripped) = (self.a.label(), self.a.label());
        self.a.load(Width::U16, R1, R9, flow::TAG);
        self.a.jump_if(R1, Cond::Eq, 0, untagged);
        self.a.sub(R2, i32::from(TAG));
        self.a.bind(untagged);
        self.a.load(Width::U16, R1, R9, flow::CHANNEL);
        self.a.jump_if(R1, Cond::Eq, 0, stripped);
        self.a.sub(R2, i32::from(CHANNEL));
        self.a.bind(stripped);
        self.a.mov(R1, R6);
        self.a.call(Helper::XdpAdjustHead);
        self.leave_if(Cause::Headroom, R0, Cond::Ne, 0);
    }

    /// R8 walks over the frame; R5 is its end, as while parsing.
    fn write_headers(&mut self) {
        self.a.load(Width::U32, R8, R6, CTX_DATA);
        self.a.load(Width::U32, R5, R6, CTX_DATA_END);
        self.ensure_room(Cause::Inconsistent, R8, ETHERNET);
        self.a.load(Width::U64, R1, R9, flow::MACS);
        self.a.store(Width::U64, R8, 0, R1);
        self.a.load(Width::U32, R1, R9, flow::MACS + 8);
        self.a.store(Width::U32, R8, 8, R1);

        let untagged = self.a.label();
        self.a.load(Width::U16, R2, R9, flow::TAG);
        self.a.jump_if(R2, Cond::Eq, 0, untagged);
        self.ensure_room(Cause::Inconsistent, R8, ETHERNET + TAG);
        self.a.store(Width::U16, R8, 12, wire(0x8100));
        self.a.store(Width::U16, R8, 14, R2);
        self.a.add(R8, i32::from(TAG));
        self.a.bind(untagged);

        // R4: the traffic class, by the DSCP rule. R3: the UDP length.
        self.a.load(Width::U64, R4, R10, CLASS);
        self.a.load(Width::U8, R1, R9, flow::CLASS_KEPT);
        self.a.and(R4, R1);
        self.a.load(Width::U8, R1, R9, flow::CLASS_SET);
        self.a.or(R4, R1);
        self.a.load(Width::U64, R3, R10, UDP_LEN);

        let (ipv6, written) = (self.a.label(), self.a.label());
        self.a.jump_if(R7, Cond::Eq, i32::from(IPV6), ipv6);
        self.ensure_room(Cause::Inconsistent, R8, ETHERNET + IPV4 + UDP);
        self.a.store(Width::U16, R8, 12, wire(0x0800));
        self.a.add(R8, i32::from(ETHERNET));
        self.write_ipv4();
        self.a.add(R8, i32::from(IPV4));
        self.a.jump(written);

        self.a.bind(ipv6);
        self.ensure_room(Cause::Inconsistent, R8, ETHERNET + IPV6 + UDP);
        self.a.store(Width::U16, R8, 12, wire(0x86dd));
        self.a.add(R8, i32::from(ETHERNET));
        self.write_ipv6();
        self.a.add(R8, i32::from(IPV6));
        self.a.bind(written);
        self.write_udp();
    }

    /// The header checksum is the complement of the sum of all the other words.
    fn write_ipv4(&mut self) {
        self.a.load(Width::U32, R2, R9, flow::IP_SUM);
        // Version and length, traffic class.
        self.a.store(Width::U8, R8, 0, 0x45);
        self.a.store(Width::U8, R8, 1, R4);
        self.a.or(R4, 0x4500);
        self.a.swap16(R4);
        self.a.add(R2, R4);
        // The whole length.
        self.a.mov(R1, R3);
        self.a.add(R1, i32::from(IPV4));
        self.a.swap16(R1);
        self.a.store(Width::U16, R8, 2, R1);
        self.a.add(R2, R1);
        // Identification and fragment, two words at once.
        self.a.load(Width::U64, R1, R10, ID_AND_FRAGMENT);
        self.a.store(Width::U32, R8, 4, R1);
        self.a.add(R2, R1);
        // TTL and protocol.
        self.a.load(Width::U64, R1, R10, TTL);
        self.a.shl(R1, 8);
        self.a.or(R1, PROTOCOL_UDP);
        self.a.swap16(R1);
        self.a.store(Width::U16, R8, 8, R1);
        self.a.add(R2, R1);

        self.fold(R2, R1, 3);
        self.a.xor(R2, 0xffff);
        self.a.store(Width::U16, R8, 10, R2);
        self.a.load(Width::U32, R1, R9, flow::SOURCE);
        self.a.store(Width::U32, R8, 12, R1);
        self.a.load(Width::U32, R1, R9, flow::DESTINATION);
        self.a.store(Width::U32, R8, 16, R1);
    }

    fn write_ipv6(&mut self) {
        // The traffic class stands across the first two bytes.
        self.a.shl(R4, 4);
        self.a.swap16(R4);
        self.a.load(Width::U32, R1, R9, flow::VERSION_AND_LABEL);
        self.a.or(R1, R4);
        self.a.store(Width::U32, R8, 0, R1);
        self.a.mov(R1, R3);
        self.a.swap16(R1);
        self.a.store(Width::U16, R8, 4, R1);
        self.a.store(Width::U8, R8, 6, PROTOCOL_UDP);
        self.a.load(Width::U64, R1, R10, TTL);
        self.a.store(Width::U8, R8, 7, R1);
        for word in 0..4 {
            self.a.load(Width::U64, R1, R9, flow::SOURCE + 8 * word);
            self.a.store(Width::U64, R8, 8 + 8 * word, R1);
        }
    }

    /// From R8 on; R3 is the UDP length.
    fn write_udp(&mut self) {
        self.a.load(Width::U32, R1, R9, flow::PORTS);
        self.a.store(Width::U32, R8, 0, R1);
        self.a.swap16(R3);
        self.a.store(Width::U16, R8, 4, R3);

        // R2: the sum of what the checksum covers, as far as it is new.
        self.a.load(Width::U64, R2, R10, SUM);
        self.a.add(R2, R3);
        self.a.add(R2, R3);
        self.a.load(Width::U32, R1, R9, flow::UDP_SUM);
        self.a.add(R2, R1);

        let stripped = self.a.label();
        self.a.load(Width::U16, R1, R9, flow::CHANNEL);
        self.a.jump_if(R1, Cond::Eq, 0, stripped);
        self.ensure_room(Cause::Inconsistent, R8, UDP + CHANNEL);
        self.a.load(Width::U16, R1, R9, flow::CHANNEL);
        self.a.store(Width::U16, R8, UDP, R1);
        self.a.add(R2, R1);
        self.a.load(Width::U64, R1, R10, PAYLOAD);
        self.a.swap16(R1);
        self.a.store(Width::U16, R8, UDP + 2, R1);
        self.a.add(R2, R1);
        self.a.bind(stripped);

        let written = self.a.label();
        self.a.load(Width::U64, R1, R10, CHECKSUM);
        self.a.store(Width::U16, R8, 6, R1);
        // None came: over IPv4 none needs to leave. Where IPv6 needs one this is not reached.
        self.a.jump_if(R1, Cond::Eq, 0, written);
        self.fold(R2, R1, 2);
        self.a.xor(R2, 0xffff);
        let not_zero = self.a.label();
        self.a.jump_if(R2, Cond::Ne, 0, not_zero);
        self.a.mov(R2, 0xffff);
        self.a.bind(not_zero);
        self.a.store(Width::U16, R8, 6, R2);
        self.a.bind(written);
    }

    /// Sends the frame, back where it came from or through another interface.
    fn send(&mut self) {
        self.count(|writer| writer.a.load(Width::U64, R1, R10, DIRECTION));
        let other = self.a.label();
        self.a.load(Width::U32, R2, R9, flow::EGRESS);
        self.a.load(Width::U32, R1, R6, CTX_INGRESS);
        self.a.jump_if(R1, Cond::Ne, R2, other);
        self.a.mov(R0, XDP_TX);
        self.a.exit();

        self.a.bind(other);
        self.a.load_map(R1, MAP_DEVICES);
        self.a.mov(R3, XDP_DROP);
        self.a.call(Helper::RedirectMap);
        self.a.exit();
    }

    /// Writes the exits: each counts its cause and gives its verdict.
    fn finish(mut self) -> Result<Program, AssembleError> {
        let (pass, drop) = (self.a.label(), self.a.label());
        for (cause, label) in self.exits.clone() {
            self.a.bind(label);
            self.a.mov(R7, cause as i32);
            let verdict = match cause {
                Cause::Quota | Cause::Inconsistent => drop,
                _ => pass,
            };
            self.a.jump(verdict);
        }
        for (label, verdict) in [(pass, XDP_PASS), (drop, XDP_DROP)] {
            self.a.bind(label);
            self.count(|writer| writer.a.mov(R1, R7));
            self.a.mov(R0, verdict);
            self.a.exit();
        }
        self.a.finish()
    }

    /// Counts the cause whose number `load` puts into R1.
    fn count(&mut self, load: impl FnOnce(&mut Writer)) {
        let counted = self.a.label();
        self.a.store(Width::U32, R10, ZERO, 0);
        self.a.load_map(R1, MAP_CAUSES);
        self.look_up(ZERO);
        self.a.jump_if(R0, Cond::Eq, 0, counted);
        load(self);
        self.a.jump_if(R1, Cond::Ge, CAUSES, counted);
        self.a.shl(R1, 3);
        self.a.add(R0, R1);
        // No other processor counts here, and none of ours interrupts itself.
        self.a.load(Width::U64, R1, R0, 0);
        self.a.add(R1, 1);
        self.a.store(Width::U64, R0, 0, R1);
        self.a.bind(counted);
    }

    /// Folds the sum in `sum` to 16 bits: two times where it has at most 20, three where 36.
    fn fold(&mut self, sum: Reg, scratch: Reg, times: usize) {
        for _ in 0..times {
            self.a.mov(scratch, sum);
            self.a.shr(scratch, 16);
            self.a.and(sum, 0xffff);
            self.a.add(sum, scratch);
        }
    }
}
