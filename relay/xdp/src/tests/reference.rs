//! What the program is to do, written as plainly as it goes: every checksum over all it covers, every
//! header from its parts.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use crate::layout::{Cause, Dscp, FlowKey};
use crate::testbed::frame::{pseudo_header, sum};

/// How a destination is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    pub(super) mac: [u8; 6],
    pub(super) own_mac: [u8; 6],
    pub(super) tag: Option<u16>,
    pub(super) mtu: usize,
}

/// What becomes of the packets found by one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// The Channel whose header goes in front.
    pub(super) channel: Option<u16>,
    pub(super) expired: bool,
    pub(super) dscp: Dscp,
    /// The first word of an IPv6 header without its traffic class.
    pub(super) version_and_label: u32,
    pub(super) hop: Result<Hop, Cause>,
}

/// All the program knows.
#[derive(Debug)]
pub(super) struct World {
    pub(super) relay_ports: RangeInclusive<u16>,
    pub(super) ways: HashMap<FlowKey, Way>,
}

/// A frame on its way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) cause: Cause,
    pub(super) frame: Vec<u8>,
}

/// An IP header, read.
struct Ip<'a> {
    source: IpAddr,
    destination: IpAddr,
    class: u8,
    ttl: u8,
    id: u16,
    dont_fragment: bool,
    udp: &'a [u8],
    /// What follows the IP packet.
    trailer: &'a [u8],
}

impl World {
    /// Relays `frame`, or tells why the kernel gets it.
    pub(super) fn relay(&self, frame: &[u8]) -> Result<Sent, Cause> {
        let ip = parse_ip(frame)?;
        let port = |at: usize| u16::from_be_bytes([ip.udp[at], ip.udp[at + 1]]);
        let source = SocketAddr::new(ip.source, port(0));
        let destination = SocketAddr::new(ip.destination, port(2));
        let udp_len = port(4);
        if usize::from(udp_len) != ip.udp.len() || udp_len < 8 {
            return Err(Cause::Length);
        }
        let data = &ip.udp[8..];

        let (channel, payload) = match self.relay_ports.contains(&destination.port()) {
            true => (0, data),
            false => parse_channel_data(data)?,
        };
        let key = FlowKey {
            remote: source,
            local: destination,
            channel,
        };
        let way = self.ways.get(&key).ok_or(Cause::NoFlow)?;
        if way.expired {
            return Err(Cause::Expired);
        }
        let hop = way.hop?;
        let is_v4 = way.source.is_ipv4();
        let checksum = port(6);

        let mut udp = Vec::new();
        let header_len = if way.channel.is_some() { 4 } else { 0 };
        let new_len = (8 + header_len + payload.len()) as u16;
        udp.extend(way.source.port().to_be_bytes());
        udp.extend(way.destination.port().to_be_bytes());
        udp.extend(new_len.to_be_bytes());
        udp.extend([0, 0]);
        if let Some(channel) = way.channel {
            udp.extend(channel.to_be_bytes());
            udp.extend((payload.len() as u16).to_be_bytes());
        }
        udp.extend(payload);

        if checksum == 0 && !is_v4 {
            return Err(Cause::NoChecksum);
        }
        if udp.len() + if is_v4 { 20 } else { 40 } > hop.mtu {
            return Err(Cause::Mtu);
        }
        if checksum != 0 {
            // Whatever the sum lacked before, it lacks afterwards; a right one lacks nothing.
            let before = pseudo_header(ip.source, ip.destination, udp_len);
            let lacked = !sum(&[&before, ip.udp]);
            let after = pseudo_header(way.source.ip(), way.destination.ip(), new_len);
            let new = sum(&[&after, &udp]);
            let new = match !sum(&[&new.to_be_bytes(), &lacked.to_be_bytes()]) {
                0 => 0xffff,
                new => new,
            };
            udp[6..8].copy_from_slice(&new.to_be_bytes());
        }

        let class = match way.dscp {
            Dscp::Keep => ip.class,
            Dscp::Set(dscp) => dscp << 2 | ip.class & 3,
        };
        let mut sent = [hop.mac, hop.own_mac].concat();
        if let Some(tag) = hop.tag {
            sent.extend([0x81, 0]);
            sent.extend(tag.to_be_bytes());
        }
        match (way.source.ip(), way.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                sent.extend([0x08, 0]);
                let mut header = vec![0x45, class];
                header.extend((20 + new_len).to_be_bytes());
                header.extend(ip.id.to_be_bytes());
                header.extend([if ip.dont_fragment { 0x40 } else { 0 }, 0]);
                header.extend([ip.ttl - 1, 17, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let checksum = !sum(&[&header]);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                sent.extend(header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                sent.extend([0x86, 0xdd]);
                let word = way.version_and_label | u32::from(class) << 20;
                sent.extend(word.to_be_bytes());
                sent.extend(new_len.to_be_bytes());
                sent.extend([17, ip.ttl - 1]);
                sent.extend(source.octets());
                sent.extend(destination.octets());
            }
            _ => panic!("two families"),
        }
        sent.extend(udp);
        // Padding of ChannelData stays behind the packet, where no one looks.
        sent.extend(&data[data.len() - padding_len(channel, data, payload)..]);
        sent.extend(ip.trailer);
        let cause = match channel {
            0 => Cause::ToClient,
            _ => Cause::ToPeer,
        };
        Ok(Sent { cause, frame: sent })
    }
}

/// How many bytes follow the payload inside the UDP packet.
fn padding_len(channel: u16, data: &[u8], payload: &[u8]) -> usize {
    let header_len = if channel == 0 { 0 } else { 4 };
    data.len() - header_len - payload.len()
}

fn parse_ip(frame: &[u8]) -> Result<Ip<'_>, Cause> {
    if frame.len() < 14 + 28 {
        return Err(Cause::NotUdp);
    }
    if frame[0] & 1 == 1 {
        return Err(Cause::Group);
    }
    let (kind, bytes) = match &frame[12..14] {
        [0x81, 0] => (&frame[16..18], &frame[18..]),
        kind => (kind, &frame[14..]),
    };
    if bytes.len() < 28 {
        return Err(Cause::NotUdp);
    }
    match kind {
        [0x08, 0] => parse_ipv4(bytes),
        [0x86, 0xdd] => parse_ipv6(bytes),
        _ => Err(Cause::NotUdp),
    }
}

fn parse_ipv4(bytes: &[u8]) -> Result<Ip<'_>, Cause> {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let address = |at: usize| -> [u8; 4] { bytes[at..at + 4].try_into().unwrap() };
    if bytes[9] != 17 {
        return Err(Cause::NotUdp);
    }
    if bytes[0] != 0x45 {
        return Err(Cause::Options);
    }
    if word(6) & 0xbfff != 0 {
        return Err(Cause::Fragment);
    }
    if bytes[8] <= 1 {
        return Err(Cause::Ttl);
    }
    if sum(&[&bytes[..20]]) != 0xffff {
        return Err(Cause::IpChecksum);
    }
    let len = usize::from(word(2));
    if len > bytes.len() || len < 28 {
        return Err(Cause::Length);
    }
    Ok(Ip {
        source: Ipv4Addr::from(address(12)).into(),
        destination: Ipv4Addr::from(address(16)).into(),
        class: bytes[1],
        ttl: bytes[8],
        id: word(4),
        dont_fragment: word(6) == 0x4000,
        udp: &bytes[20..len],
        trailer: &bytes[len..],
    })
}

fn parse_ipv6(bytes: &[u8]) -> Result<Ip<'_>, Cause> {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let address = |at: usize| -> [u8; 16] { bytes[at..at + 16].try_into().unwrap() };
    if bytes.len() < 48 || bytes[6] != 17 {
        return Err(Cause::NotUdp);
    }
    if bytes[7] <= 1 {
        return Err(Cause::Ttl);
    }
    if bytes[0] >> 4 != 6 {
        return Err(Cause::NotUdp);
    }
    let len = 40 + usize::from(word(4));
    if len > bytes.len() {
        return Err(Cause::Length);
    }
    if word(46) == 0 {
        return Err(Cause::NoChecksum);
    }
    if len < 48 {
        return Err(Cause::Length);
    }
    Ok(Ip {
        source: Ipv6Addr::from(address(8)).into(),
        destination: Ipv6Addr::from(address(24)).into(),
        class: (word(0) >> 4) as u8,
        ttl: bytes[7],
        id: 0,
        dont_fragment: true,
        udp: &bytes[40..len],
        trailer: &bytes[len..],
    })
}

fn parse_channel_data(data: &[u8]) -> Result<(u16, &[u8]), Cause> {
    if data.len() < 4 || !(0x40..0x80).contains(&data[0]) {
        return Err(Cause::NotChannelData);
    }
    let channel = u16::from_be_bytes([data[0], data[1]]);
    let len = usize::from(u16::from_be_bytes([data[2], data[3]]));
    let rest = &data[4..];
    if len > rest.len() {
        return Err(Cause::Length);
    }
    let padding = &rest[len..];
    if padding.len() > 3 || padding.iter().any(|byte| *byte != 0) {
        return Err(Cause::Padding);
    }
    Ok((channel, &rest[..len]))
}
