//! What the program and userspace share: the maps, and what stands where in them.
//!
//! Numbers are in the machine's order unless a name or comment says "wire", which is the order of
//! the network. Addresses and ports are always in wire order.

use std::net::{IpAddr, SocketAddr};

use crate::asm::MapRef;
use crate::checksum::Sum;

/// Flow numbers by [`key_v4`]: one hash.
pub(crate) const MAP_KEYS_V4: MapRef = MapRef(0);
/// Flow numbers by [`key_v6`]: another.
pub(crate) const MAP_KEYS_V6: MapRef = MapRef(1);
/// [`Flow`]s by number: an array that userspace maps into its memory.
pub(crate) const MAP_FLOWS: MapRef = MapRef(2);
/// Token buckets by number: an array that userspace maps into its memory. Number 0 is no bucket.
pub(crate) const MAP_BUCKETS: MapRef = MapRef(3);
/// How a packet leaves, by the interface a route names: a hash.
pub(crate) const MAP_EGRESS: MapRef = MapRef(4);
/// The interfaces packets may be handed to, by their number: a hash of devices.
pub(crate) const MAP_DEVICES: MapRef = MapRef(5);
/// One element for each CPU: how often each [`Cause`] was met, as 64-bit numbers.
pub(crate) const MAP_CAUSES: MapRef = MapRef(6);

/// The length of a key of [`MAP_KEYS_V4`], in bytes.
pub(crate) const KEY_V4_LEN: usize = 16;
/// The length of a key of [`MAP_KEYS_V6`], in bytes.
pub(crate) const KEY_V6_LEN: usize = 40;
/// The length of a flow, in bytes: two cache lines.
pub(crate) const FLOW_LEN: usize = 128;
/// The length of a token bucket, in bytes.
pub(crate) const BUCKET_LEN: usize = 32;
/// The length of a value of [`MAP_EGRESS`], in bytes.
pub(crate) const EGRESS_LEN: usize = 8;

/// How many token buckets one flow draws from: its User's and its Account's.
pub(crate) const BUCKETS_PER_FLOW: usize = 2;

/// Where the fields of a flow stand, in bytes.
pub(crate) mod flow {
    /// When the flow ends, in nanoseconds of the monotonic clock. Userspace moves it.
    pub(crate) const EXPIRES: i16 = 0;
    /// How many packets were relayed. The program counts.
    pub(crate) const PACKETS: i16 = 8;
    /// How many bytes of application data were relayed. The program counts.
    pub(crate) const BYTES: i16 = 16;
    /// Until when the next hop below holds. This and what follows up to `MACS` are the program's.
    pub(crate) const NEXT_HOP_EXPIRES: i16 = 24;
    /// When a packet should go the kernel's way, so that it confirms the neighbour.
    pub(crate) const CONFIRM: i16 = 32;
    /// The interface packets leave through: 32 bits.
    pub(crate) const EGRESS: i16 = 40;
    /// The longest IP packet the route takes: 16 bits.
    pub(crate) const MTU: i16 = 44;
    /// The VLAN tag to put in, wire order; 0 for none.
    pub(crate) const TAG: i16 = 46;
    /// The destination's and our own MAC address, as they stand in a frame.
    pub(crate) const MACS: i16 = 48;
    /// The channel number to put in front of the payload, wire order; 0 for none.
    pub(crate) const CHANNEL: i16 = 60;
    /// The family packets leave with: 4 or 6, 8 bits.
    pub(crate) const FAMILY: i16 = 62;
    /// The addresses packets leave with; IPv4 ones take the first four bytes of their sixteen.
    pub(crate) const SOURCE: i16 = 64;
    pub(crate) const DESTINATION: i16 = 80;
    /// The ports packets leave with: source, destination.
    pub(crate) const PORTS: i16 = 96;
    /// What the UDP checksum's sum gains by the new addresses and ports: 32 bits.
    pub(crate) const UDP_SUM: i16 = 100;
    /// The sum of the parts of an IPv4 header that never change: 32 bits.
    pub(crate) const IP_SUM: i16 = 104;
    /// The numbers of the token buckets: 32 bits each.
    pub(crate) const BUCKETS: i16 = 108;
    /// Version 6 and the flow label as the first word of an IPv6 header, wire order.
    pub(crate) const VERSION_AND_LABEL: i16 = 116;
    /// The DSCP rule: the bits of the received traffic class that stay, and those set: 8 bits each.
    pub(crate) const CLASS_KEPT: i16 = 120;
    pub(crate) const CLASS_SET: i16 = 121;
}

/// Where the fields of a token bucket stand, in bytes. Each of its two bounds is a virtual schedule
/// (the generic cell rate algorithm), so that all its state is one word.
pub(crate) mod bucket {
    /// When the packets let through so far would have left at their rate, in nanoseconds of the
    /// monotonic clock.
    pub(crate) const PACKETS_SCHEDULE: i16 = 0;
    /// What a packet costs, in 65536ths of a nanosecond; 0 where packets have no bound.
    pub(crate) const PER_PACKET: i16 = 8;
    /// As above, for the bytes of application data.
    pub(crate) const BYTES_SCHEDULE: i16 = 16;
    /// What a byte costs, in the same unit; 0 where bytes have no bound.
    pub(crate) const PER_BYTE: i16 = 24;
}

/// What became of a packet. All but [`ToPeer`](Cause::ToPeer), [`ToClient`](Cause::ToClient) and
/// the drops say why it went on to the kernel as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Relayed from a client to a peer.
    ToPeer,
    /// Relayed from a peer to a client.
    ToClient,
    /// Dropped: a quota was used up.
    Quota,
    /// Dropped: the frame changed under the program, which no driver should do.
    Inconsistent,
    /// Not UDP in IPv4 or IPv6, at most one VLAN tag deep.
    NotUdp,
    /// The destination MAC is a group's.
    Group,
    /// An IPv4 header with options.
    Options,
    /// A fragment.
    Fragment,
    /// The IPv4 header's checksum is wrong.
    IpChecksum,
    /// The lengths in the frame contradict one another.
    Length,
    /// The TTL or hop limit is used up.
    Ttl,
    /// No UDP checksum, where the other side needs one.
    NoChecksum,
    /// At a listening port and not ChannelData: STUN and TURN messages.
    NotChannelData,
    /// Padding that is not at most three zero bytes.
    Padding,
    /// No Channel is installed for it.
    NoFlow,
    /// Its Channel, Permission or Allocation has ended.
    Expired,
    /// No route, or one that is not simply to a neighbour.
    NoRoute,
    /// The kernel forwards nothing on behalf of the loopback interface.
    ForwardingDisabled,
    /// The neighbour's MAC address is not known yet.
    NoNeighbour,
    /// The route leaves through an interface that takes no part.
    OtherInterface,
    /// Longer than the route's MTU.
    Mtu,
    /// Sent the kernel's way so that it confirms the neighbour.
    Confirm,
    /// The driver leaves no room in front of the frame.
    Headroom,
}

impl Cause {
    /// How many there are.
    pub const COUNT: usize = Cause::ALL.len();

    /// All, in the order of [`index`](Self::index).
    pub const ALL: [Cause; 23] = [
        Cause::ToPeer,
        Cause::ToClient,
        Cause::Quota,
        Cause::Inconsistent,
        Cause::NotUdp,
        Cause::Group,
        Cause::Options,
        Cause::Fragment,
        Cause::IpChecksum,
        Cause::Length,
        Cause::Ttl,
        Cause::NoChecksum,
        Cause::NotChannelData,
        Cause::Padding,
        Cause::NoFlow,
        Cause::Expired,
        Cause::NoRoute,
        Cause::ForwardingDisabled,
        Cause::NoNeighbour,
        Cause::OtherInterface,
        Cause::Mtu,
        Cause::Confirm,
        Cause::Headroom,
    ];

    /// A dense number, for tables.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// A stable word for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cause::ToPeer => "to_peer",
            Cause::ToClient => "to_client",
            Cause::Quota => "quota",
            Cause::Inconsistent => "inconsistent",
            Cause::NotUdp => "not_udp",
            Cause::Group => "group",
            Cause::Options => "options",
            Cause::Fragment => "fragment",
            Cause::IpChecksum => "ip_checksum",
            Cause::Length => "length",
            Cause::Ttl => "ttl",
            Cause::NoChecksum => "no_checksum",
            Cause::NotChannelData => "not_channel_data",
            Cause::Padding => "padding",
            Cause::NoFlow => "no_flow",
            Cause::Expired => "expired",
            Cause::NoRoute => "no_route",
            Cause::ForwardingDisabled => "forwarding_disabled",
            Cause::NoNeighbour => "no_neighbour",
            Cause::OtherInterface => "other_interface",
            Cause::Mtu => "mtu",
            Cause::Confirm => "confirm",
            Cause::Headroom => "headroom",
        }
    }
}

/// What an arriving packet is found by: who sent it, to which of our addresses, and in which
/// Channel (0 where it comes from a peer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) channel: u16,
}

impl FlowKey {
    /// The key in its map; `None` where the two addresses are not of one family.
    pub(crate) fn to_map(self) -> Option<(MapRef, Vec<u8>)> {
        let (map, mut bytes) = match (self.remote.ip(), self.local.ip()) {
            (IpAddr::V4(remote), IpAddr::V4(local)) => {
                let bytes = [remote.octets(), local.octets()].concat();
                (MAP_KEYS_V4, bytes)
            }
            (IpAddr::V6(remote), IpAddr::V6(local)) => {
                let bytes = [remote.octets(), local.octets()].concat();
                (MAP_KEYS_V6, bytes)
            }
            _ => return None,
        };
        bytes.extend(self.remote.port().to_be_bytes());
        bytes.extend(self.local.port().to_be_bytes());
        bytes.extend(self.channel.to_be_bytes());
        bytes.extend([0; 2]);
        Some((map, bytes))
    }
}

/// What is done with the DSCP of relayed packets (RFC 8656 §14); ECN bits always stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dscp {
    /// Packets leave with the DSCP they came with, the preferred behaviour.
    #[default]
    Keep,
    /// All packets leave with this one, 0 to 63.
    Set(u8),
}

impl Dscp {
    /// The bits of the traffic class that stay, and those set.
    fn rule(self) -> (u8, u8) {
        match self {
            Dscp::Keep => (0xff, 0),
            Dscp::Set(dscp) => (0x03, dscp << 2),
        }
    }
}

/// One direction of a Channel: what the packets found by `key` become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// The Channel whose header goes in front; 0 where one is taken off.
    pub(crate) channel: u16,
    pub(crate) buckets: [u32; BUCKETS_PER_FLOW],
    pub(crate) dscp: Dscp,
    /// Monotonic nanoseconds.
    pub(crate) expires: u64,
    /// Monotonic nanoseconds.
    pub(crate) confirm: u64,
}

impl Flow {
    /// The flow as the program reads it. Source and destination are of one family.
    pub(crate) fn to_bytes(self) -> [u8; FLOW_LEN] {
        let mut bytes = [0; FLOW_LEN];
        let mut put = |at: i16, field: &[u8]| {
            let at = usize::from(at.unsigned_abs());
            bytes[at..at + field.len()].copy_from_slice(field);
        };
        let ends = (octets(self.source.ip()), octets(self.destination.ip()));
        let (kept, set) = self.dscp.rule();

        put(flow::EXPIRES, &self.expires.to_ne_bytes());
        put(flow::CONFIRM, &self.confirm.to_ne_bytes());
        put(flow::CHANNEL, &self.channel.to_be_bytes());
        put(flow::FAMILY, &[if self.source.is_ipv4() { 4 } else { 6 }]);
        put(flow::SOURCE, &ends.0);
        put(flow::DESTINATION, &ends.1);
        put(flow::PORTS, &self.source.port().to_be_bytes());
        put(flow::PORTS + 2, &self.destination.port().to_be_bytes());
        put(flow::UDP_SUM, &self.udp_sum().to_ne_bytes());
        put(flow::IP_SUM, &self.ip_sum().to_ne_bytes());
        for (at, bucket) in (flow::BUCKETS..).step_by(4).zip(self.buckets) {
            put(at, &bucket.to_ne_bytes());
        }
        put(flow::VERSION_AND_LABEL, &self.version_and_label());
        put(flow::CLASS_KEPT, &[kept]);
        put(flow::CLASS_SET, &[set]);
        bytes
    }

    fn udp_sum(self) -> u32 {
        let ends = |a: SocketAddr, b: SocketAddr| {
            let mut sum = Sum::default();
            for end in [a, b] {
                sum.add(&octets(end.ip()));
                sum.add(&end.port().to_be_bytes());
            }
            sum.folded()
        };
        let new = ends(self.source, self.destination);
        let old = ends(self.key.remote, self.key.local);
        // The complement of a sum takes it away.
        u32::from(new) + u32::from(!old)
    }

    fn ip_sum(self) -> u32 {
        let mut sum = Sum::default();
        sum.add(&octets(self.source.ip()));
        sum.add(&octets(self.destination.ip()));
        u32::from(sum.folded())
    }

    /// The flow label is drawn from addresses and ports (RFC 6437 §3), so that paths of equal cost
    /// share the load.
    fn version_and_label(self) -> [u8; 4] {
        const FNV_OFFSET: u32 = 0x811c_9dc5;
        const FNV_PRIME: u32 = 0x0100_0193;
        let mut hash = FNV_OFFSET;
        for end in [self.source, self.destination] {
            for byte in octets(end.ip()).into_iter().chain(end.port().to_be_bytes()) {
                hash = (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME);
            }
        }
        (0x6000_0000 | (hash ^ hash >> 20) & 0x000f_ffff).to_be_bytes()
    }
}

/// The address, with zeros behind an IPv4 one.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// How packets leave whose route names some interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Egress {
    /// The interface that sends them: the route's own, or the one below a VLAN.
    pub(crate) ifindex: u32,
    /// The VLAN tag they get; 0 for none.
    pub(crate) tag: u16,
}

impl Egress {
    pub(crate) fn to_bytes(self) -> [u8; EGRESS_LEN] {
        let [i0, i1, i2, i3] = self.ifindex.to_ne_bytes();
        let [t0, t1] = self.tag.to_be_bytes();
        [i0, i1, i2, i3, t0, t1, 0, 0]
    }
}

/// What the packets of one User or Account may come to together in each second, both directions
/// counted; a second's worth may go at once, and a packet longer than that goes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bits of application data. Zero: no bound.
    pub bits_per_second: u64,
    /// Packets. Zero: no bound.
    pub packets_per_second: u64,
}

impl Quota {
    /// The bucket as the program reads it, full.
    pub(crate) fn to_bytes(self) -> [u8; BUCKET_LEN] {
        const NANOS_Q16: u128 = 1_000_000_000 << 16;
        // What 2^16 of them cost must stay within 64 bits.
        let cost = |amount: u128, per_second: u64| match per_second {
            0 => 0,
            per_second => u64::try_from(amount * NANOS_Q16 / u128::from(per_second))
                .unwrap_or(u64::MAX)
                .clamp(1, 1 << 47),
        };
        let mut bytes = [0; BUCKET_LEN];
        for (at, cost) in [
            (bucket::PER_PACKET, cost(1, self.packets_per_second)),
            (bucket::PER_BYTE, cost(8, self.bits_per_second)),
        ] {
            let at = usize::from(at.unsigned_abs());
            bytes[at..at + 8].copy_from_slice(&cost.to_ne_bytes());
        }
        bytes
    }
}
