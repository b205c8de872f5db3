//! What ICMP says about datagrams to peers, told to the client (RFC 8656 §11.5).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use relay_stun::{AttributeType, Class, Icmp, MessageWriter, Method, TransactionId};

use crate::Refusal;
use crate::allocation::Permissions;
use crate::relay::{FiveTuple, Forward, Prefix, Relay, RelayPort};

/// Header, XOR-PEER-ADDRESS of IPv6 and ICMP, in bytes.
pub(crate) const INDICATION_LEN_MAX: usize = 20 + 24 + 12;

/// One indication may follow another of the same Allocation after this time on average: whoever can
/// make peers' routers answer must not have the relay send as much.
const INTERVAL: Duration = Duration::from_millis(125);

/// How many may go at once: one each for some peers that went away together.
const BURST_MAX: u32 = 8;

/// How often one Allocation's client is told something.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When what was told so far is paid for.
    paid_at: Option<Instant>,
}

impl Pace {
    fn admit(&mut self, now: Instant) -> Result<(), Refusal> {
        let paid_at = self.paid_at.map_or(now, |paid_at| paid_at.max(now)) + INTERVAL;
        if paid_at > now + INTERVAL * BURST_MAX {
            return Err(Refusal::IcmpRate);
        }
        self.paid_at = Some(paid_at);
        Ok(())
    }
}

/// The indication that tells the client `to` what ICMP said about a datagram to `peer`; the checks
/// are those of RFC 8656 §11.5, in its order.
pub(crate) fn tell(
    now: Instant,
    to: FiveTuple,
    permissions: &Permissions,
    pace: &mut Pace,
    (peer, icmp): (SocketAddr, Icmp),
    new_id: impl FnOnce() -> TransactionId,
) -> Result<Forward, Refusal> {
    let relevant = match (peer.is_ipv4(), icmp.kind) {
        // Destination unreachable, time exceeded.
        (true, 3 | 11) => true,
        // Destination unreachable, packet too big, time exceeded.
        (false, 1..=3) => true,
        _ => false,
    };
    if !relevant {
        return Err(Refusal::Unexpected);
    }
    if !permissions.permits(now, peer.ip()) {
        return Err(Refusal::NoPermission);
    }
    pace.admit(now)?;
    let too_big = matches!(
        (peer.is_ipv4(), icmp.kind, icmp.code),
        (true, 3, 4) | (false, 2, _)
    );
    let icmp = Icmp {
        data: if too_big { icmp.data } else { 0 },
        ..icmp
    };

    let mut bytes = [0; Prefix::LEN_MAX];
    let written = MessageWriter::new(&mut bytes, Class::Indication, Method::DATA, new_id())
        .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
        .attribute(AttributeType::ICMP, &icmp.value())
        .finish();
    let len = written
        .expect("INDICATION_LEN_MAX has room for both attributes")
        .len();
    Ok(Forward::ToClient {
        to,
        prefix: Prefix { bytes, len },
        payload: 0..0,
        padding: 0,
    })
}

impl Relay {
    pub(crate) fn on_icmp(
        &mut self,
        now: Instant,
        port: RelayPort,
        peer: SocketAddr,
        icmp: Icmp,
    ) -> Result<Forward, Refusal> {
        let id = self.new_transaction_id();
        let held = self
            .allocations
            .get_mut(port.allocation())
            .filter(|held| held.holds(port.address) && !held.is_gone)
            .ok_or(Refusal::NoAllocation)?;
        let (to, permissions, pace) = (held.five_tuple, &held.permissions, &mut held.icmp_pace);
        let forward = tell(now, to, permissions, pace, (peer, icmp), || id)?;
        self.stats.icmp_indications += 1;
        Ok(forward)
    }
}
