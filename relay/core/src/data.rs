//! The way of a payload: from a client to a peer, from a peer to a client, and from one
//! Allocation straight to another (RFC 8656 §11, §12).

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use relay_stun::{
    AttributeType, CHANNEL_DATA_HEADER_LEN, ChannelData, DATA_INDICATION_PREFIX_MAX, Message,
    TransactionId, padding_len, write_data_indication,
};

use crate::relay::{FiveTuple, Forward, Prefix, Relay, RelayPort};
use crate::requests::understood;
use crate::{Refusal, Route};

impl Relay {
    /// Relays ChannelData to the peer its Channel is bound to (RFC 8656 §12.6).
    ///
    /// The binding itself allows the sending; a Permission is asked for only on the way back
    /// (RFC 8656 §9).
    pub(crate) fn on_channel_data(
        &mut self,
        now: Instant,
        from: FiveTuple,
        packet: &[u8],
    ) -> Result<Forward, Refusal> {
        let data = ChannelData::parse(packet).map_err(|_| Refusal::Malformed)?;
        let index = self.index_of(&from).ok_or(Refusal::NoAllocation)?;
        let peer = self.allocations[index]
            .channels
            .peer(now, data.channel)
            .ok_or(Refusal::NoChannel)?;
        let payload = CHANNEL_DATA_HEADER_LEN..CHANNEL_DATA_HEADER_LEN + data.payload.len();
        self.arrive(index, from);

        self.relay_to_peer(now, index, peer, payload, false)
    }

    /// Relays a Send indication (RFC 8656 §11.2); what it refuses is dropped in silence.
    pub(crate) fn on_send(
        &mut self,
        now: Instant,
        from: FiveTuple,
        message: &Message<'_>,
    ) -> Result<Forward, Refusal> {
        let Sent {
            peer,
            payload,
            dont_fragment,
        } = Sent::of(message)?;
        let index = self.index_of(&from).ok_or(Refusal::NoAllocation)?;
        if self.allocations[index].tcp {
            return Err(Refusal::WrongAllocationTransport);
        }
        if !self.allocations[index].permissions.permits(now, peer.ip()) {
            return Err(Refusal::NoPermission);
        }
        self.arrive(index, from);

        self.relay_to_peer(now, index, peer, payload, dont_fragment)
    }

    /// Relays what a peer sent to a relayed port (RFC 8656 §11.3, §12.7).
    pub(crate) fn on_peer_datagram(
        &mut self,
        now: Instant,
        port: RelayPort,
        from: SocketAddr,
        len: usize,
    ) -> Result<Forward, Refusal> {
        let held = self
            .allocations
            .get(port.allocation())
            .ok_or(Refusal::NoAllocation)?;
        if !held.holds(port.address) {
            return Err(Refusal::NoAllocation);
        }
        // A Permission of an own address is for what is handed over in memory. From the network
        // it would let any process on this machine in.
        self.config
            .peers
            .check_arrival(from)
            .map_err(Refusal::Forbidden)?;

        self.relay_to_client(now, port.allocation(), from, 0..len)
    }

    fn relay_to_peer(
        &mut self,
        now: Instant,
        index: usize,
        peer: SocketAddr,
        payload: Range<usize>,
        dont_fragment: bool,
    ) -> Result<Forward, Refusal> {
        let held = &self.allocations[index];
        let transport = held.five_tuple.transport;
        let relayed = held.relayed_toward(peer).ok_or(Refusal::NoAllocation)?;
        held.budget.admit(now, payload.len())?;
        let mut own = None;
        let route = self
            .config
            .peers
            .check(peer, |address| {
                own = self.live_relayed(address);
                own.is_some()
            })
            .map_err(Refusal::Forbidden)?;
        held.tally.count_to_peers(1, payload.len() as u64);
        self.stats.from_clients[transport.index()].count(payload.len());

        match (route, own) {
            (Route::Own, Some(own)) => {
                let len = payload.len();
                let forward = self.relay_to_client(now, own, relayed, payload)?;
                self.stats.handed_over.count(len);
                Ok(forward)
            }
            // In memory nobody takes it apart.
            (Route::Media(thread), _) => {
                self.stats.to_media.count(payload.len());
                Ok(Forward::ToMedia {
                    thread,
                    from: relayed,
                    to: peer,
                    payload,
                })
            }
            _ => Ok(Forward::ToPeer {
                port: RelayPort::new(index, relayed),
                to: peer,
                payload,
                dont_fragment,
            }),
        }
    }

    fn relay_to_client(
        &mut self,
        now: Instant,
        index: usize,
        from: SocketAddr,
        payload: Range<usize>,
    ) -> Result<Forward, Refusal> {
        let held = &self.allocations[index];
        if held.is_gone {
            return Err(Refusal::NoAllocation); // Nobody is there for the moment.
        }
        if !held.permissions.permits(now, from.ip()) {
            return Err(Refusal::NoPermission);
        }
        held.budget.admit(now, payload.len())?;
        let (to, channel) = (held.five_tuple, held.channels.number(now, from));
        let len = payload.len();
        let forward = payload_to_client(to, channel, from, payload, || self.new_transaction_id())?;
        self.allocations[index]
            .tally
            .count_to_clients(1, len as u64);
        self.stats.to_clients[to.transport.index()].count(len);
        Ok(forward)
    }

    /// Relays what was handed over in memory: a payload of the Allocation at `from`, or of the media port there, for the Allocation
    /// at `to`.
    pub(crate) fn on_handed_over(
        &mut self,
        now: Instant,
        to: SocketAddr,
        from: SocketAddr,
        len: usize,
    ) -> Result<Forward, Refusal> {
        let index = self.live_relayed(to).ok_or(Refusal::NoAllocation)?;
        let forward = self.relay_to_client(now, index, from, 0..len)?;
        let is_media = self.config.peers.media.contains_key(&from);
        self.stats.handed_over_from(is_media).count(len);
        Ok(forward)
    }

    /// The Allocation behind a relayed address that takes datagrams, once its port is open.
    pub(crate) fn live_relayed(&self, address: SocketAddr) -> Option<usize> {
        let index = *self.allocation_by_relayed.get(&address)?;
        let held = &self.allocations[index];
        (!held.tcp && held.opening.is_none()).then_some(index)
    }
}

/// What a Send indication asks for (RFC 8656 §11.2).
pub(crate) struct Sent {
    pub(crate) peer: SocketAddr,
    /// The payload's place in the message.
    pub(crate) payload: Range<usize>,
    pub(crate) dont_fragment: bool,
}

impl Sent {
    /// # Errors
    ///
    /// [`Refusal::Malformed`].
    pub(crate) fn of(message: &Message<'_>) -> Result<Sent, Refusal> {
        // Attributes that must be understood and are not make us drop the whole indication.
        if message
            .attributes()
            .any(|(a, _)| a.comprehension_required() && !understood(a))
        {
            return Err(Refusal::Malformed);
        }
        let (Some(peer), Some(data)) = (
            message.xor_address(AttributeType::XOR_PEER_ADDRESS),
            message.attribute(AttributeType::DATA),
        ) else {
            return Err(Refusal::Malformed);
        };
        let start = data.as_ptr() as usize - message.bytes().as_ptr() as usize;
        Ok(Sent {
            peer,
            payload: start..start + data.len(),
            dont_fragment: message.attribute(AttributeType::DONT_FRAGMENT).is_some(),
        })
    }
}

/// Wraps what came from `from` for a client: as ChannelData where a Channel leads back, else as a
/// Data indication (RFC 8656 §11.3, §12.7).
///
/// # Errors
///
/// [`Refusal::TooLong`].
pub(crate) fn payload_to_client(
    to: FiveTuple,
    channel: Option<u16>,
    from: SocketAddr,
    payload: Range<usize>,
    new_id: impl FnOnce() -> TransactionId,
) -> Result<Forward, Refusal> {
    let len = u16::try_from(payload.len()).map_err(|_| Refusal::TooLong)?;
    let mut bytes = [0; Prefix::LEN_MAX];

    let (prefix_len, padding) = match channel {
        Some(channel) => {
            bytes[..CHANNEL_DATA_HEADER_LEN].copy_from_slice(&ChannelData::header(channel, len));
            let padding = match to.transport.is_stream() {
                true => padding_len(payload.len()),
                false => 0,
            };
            (CHANNEL_DATA_HEADER_LEN, padding)
        }
        None => {
            let head = bytes
                .first_chunk_mut::<DATA_INDICATION_PREFIX_MAX>()
                .expect("no prefix is longer than LEN_MAX");
            let prefix_len = write_data_indication(head, new_id(), from, len);
            (
                prefix_len.ok_or(Refusal::TooLong)?,
                padding_len(payload.len()),
            )
        }
    };
    Ok(Forward::ToClient {
        to,
        prefix: Prefix {
            bytes,
            len: prefix_len,
        },
        payload,
        padding,
    })
}
