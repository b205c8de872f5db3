//! What ICMP says about datagrams to peers, told to the client (RFC 8656 §11.5).

use std::net::SocketAddr;
use std::time::Instant;

use relay_stun::{AttributeType, Class, Icmp, MessageWriter, Method};

use crate::Refusal;
use crate::relay::{Output, Relay, RelayPort};

/// Header, XOR-PEER-ADDRESS of IPv6 and ICMP, in bytes.
const INDICATION_LEN_MAX: usize = 20 + 24 + 12;

impl Relay {
    pub(crate) fn on_icmp(
        &mut self,
        now: Instant,
        port: RelayPort,
        peer: SocketAddr,
        icmp: Icmp,
    ) -> Result<(), Refusal> {
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
        let held = self
            .allocations
            .get(port.allocation())
            .filter(|held| held.holds(port.address))
            .ok_or(Refusal::NoAllocation)?;
        if !held.permissions.permits(now, peer.ip()) {
            return Err(Refusal::NoPermission);
        }
        let too_big = matches!(
            (peer.is_ipv4(), icmp.kind, icmp.code),
            (true, 3, 4) | (false, 2, _)
        );
        let icmp = Icmp {
            data: if too_big { icmp.data } else { 0 },
            ..icmp
        };

        let to = held.five_tuple;
        let id = self.new_transaction_id();
        let mut buffer = [0; INDICATION_LEN_MAX];
        let written = MessageWriter::new(&mut buffer, Class::Indication, Method::DATA, id)
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
            .attribute(AttributeType::ICMP, &icmp.value())
            .finish();
        let bytes = written
            .expect("INDICATION_LEN_MAX has room for both attributes")
            .to_vec();
        self.stats.icmp_indications += 1;
        self.outputs.push_back(Output::Send { to, bytes });
        Ok(())
    }
}
