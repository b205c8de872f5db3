//! Frames as they stand on the wire, built field by field.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths on the wire are short, and callers know theirs"
)]

use std::net::{IpAddr, SocketAddr};

/// The Internet checksum's sum over `parts`, written one behind another; each but the last has an
/// even length.
#[must_use]
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// The pseudo-header of UDP: of IPv4 (RFC 768) or of IPv6 (RFC 8200 §8.1).
///
/// # Panics
///
/// The addresses are of two families.
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, udp_len: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend([0, 17]);
            bytes.extend(udp_len.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend(u32::from(udp_len).to_be_bytes());
            bytes.extend([0, 0, 0, 17]);
        }
        _ => panic!("two families"),
    }
    bytes
}

/// A UDP packet in its frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The destination's MAC address.
    pub destination_mac: [u8; 6],
    /// The source's MAC address.
    pub source_mac: [u8; 6],
    /// A VLAN tag.
    pub tag: Option<u16>,
    /// The traffic class: DSCP and ECN.
    pub class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Identification, and Don't Fragment; of IPv4 alone.
    pub id: u16,
    /// Of IPv4 alone.
    pub dont_fragment: bool,
    /// Of IPv6 alone.
    pub flow_label: u32,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// What UDP carries.
    pub payload: Vec<u8>,
    /// What stands in the place of the right UDP checksum.
    pub checksum: Option<u16>,
    /// What follows the IP packet.
    pub trailer: Vec<u8>,
}

impl Frame {
    /// An ordinary frame without a tag. The addresses are of one family.
    #[must_use]
    pub fn new(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Frame {
        Frame {
            destination_mac: [2, 0, 0, 0, 0, 1],
            source_mac: [2, 0, 0, 0, 0, 2],
            tag: None,
            class: 0,
            ttl: 64,
            id: 0,
            dont_fragment: true,
            flow_label: 0,
            source,
            destination,
            payload: payload.to_vec(),
            checksum: None,
            trailer: Vec::new(),
        }
    }

    /// The frame's bytes, with right lengths and checksums.
    ///
    /// # Panics
    ///
    /// The addresses are of two families.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let udp_len = 8 + self.payload.len() as u16;
        let mut udp = Vec::new();
        udp.extend(self.source.port().to_be_bytes());
        udp.extend(self.destination.port().to_be_bytes());
        udp.extend(udp_len.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let pseudo = pseudo_header(self.source.ip(), self.destination.ip(), udp_len);
        let right = match !sum(&[&pseudo, &udp]) {
            0 => 0xffff,
            right => right,
        };
        udp[6..8].copy_from_slice(&self.checksum.unwrap_or(right).to_be_bytes());

        let mut bytes = [self.destination_mac, self.source_mac].concat();
        if let Some(tag) = self.tag {
            bytes.extend([0x81, 0]);
            bytes.extend(tag.to_be_bytes());
        }
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([0x08, 0]);
                let mut ip = vec![0x45, self.class];
                ip.extend((20 + udp_len).to_be_bytes());
                ip.extend(self.id.to_be_bytes());
                ip.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
                ip.extend([self.ttl, 17, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                let checksum = !sum(&[&ip]);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                bytes.extend(ip);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd]);
                let word = 6 << 28 | u32::from(self.class) << 20 | self.flow_label;
                bytes.extend(word.to_be_bytes());
                bytes.extend(udp_len.to_be_bytes());
                bytes.extend([17, self.ttl]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            _ => panic!("two families"),
        }
        bytes.extend(udp);
        bytes.extend(&self.trailer);
        bytes
    }
}

/// ChannelData with `padding` behind it.
#[must_use]
pub fn channel_data(channel: u16, payload: &[u8], padding: &[u8]) -> Vec<u8> {
    let mut bytes = channel.to_be_bytes().to_vec();
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    bytes.extend(padding);
    bytes
}
