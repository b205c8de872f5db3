//! How the client's NAT behaves: Binding requests that ask for an answer from another address or
//! to another port (RFC 5780).
//!
//! An answer goes to the client's own address always, and is never longer than the request it
//! answers by more than the addresses it names; strangers' answers are bounded besides.

use std::net::SocketAddr;

use relay_stun::{AttributeType, Class, Message};

use crate::Refusal;
use crate::relay::{FiveTuple, Relay, Transport};
use crate::responses::{Head, RESPONSE_LEN_MAX, has_fingerprint};

/// The flag in CHANGE-REQUEST that asks for the other address (RFC 5780 §7.2).
const CHANGE_IP: u32 = 0x04;

/// The flag in CHANGE-REQUEST that asks for the other port.
const CHANGE_PORT: u32 = 0x02;

/// Two addresses with two ports each, of which the driver listens on all four over UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discovery {
    /// One of the four.
    pub primary: SocketAddr,
    /// The one that differs in both parts.
    pub alternate: SocketAddr,
}

impl Discovery {
    /// The four addresses.
    #[must_use]
    pub fn addresses(&self) -> [SocketAddr; 4] {
        let (primary, alternate) = (self.primary, self.alternate);
        [
            primary,
            SocketAddr::new(primary.ip(), alternate.port()),
            SocketAddr::new(alternate.ip(), primary.port()),
            alternate,
        ]
    }

    /// The address that differs from `asked`, one of the four, in the parts that are named.
    fn other(&self, asked: SocketAddr, ip: bool, port: bool) -> SocketAddr {
        let differs = |one: SocketAddr| {
            (one.ip() != asked.ip()) == ip && (one.port() != asked.port()) == port
        };
        self.addresses()
            .into_iter()
            .find(|one| differs(*one))
            .unwrap_or(asked)
    }
}

/// Whether an attribute belongs to RFC 5780 and must be understood.
pub(crate) fn is_of_discovery(attribute: AttributeType) -> bool {
    matches!(
        attribute,
        AttributeType::CHANGE_REQUEST | AttributeType::RESPONSE_PORT | AttributeType::PADDING
    )
}

impl Relay {
    /// The four addresses `from.server` is one of.
    pub(crate) fn discovery_at(&self, from: FiveTuple) -> Option<Discovery> {
        let holds = |discovery: &&Discovery| {
            from.transport == Transport::Udp && discovery.addresses().contains(&from.server)
        };
        self.config.discovery.iter().find(holds).copied()
    }

    /// Answers a Binding request that came to one of the four addresses (RFC 5780 §6.1).
    pub(crate) fn on_discovery(
        &mut self,
        from: FiveTuple,
        request: &Message<'_>,
        discovery: Discovery,
    ) -> Result<(), Refusal> {
        let change = match request.attribute(AttributeType::CHANGE_REQUEST) {
            None => 0,
            Some(_) => request
                .u32(AttributeType::CHANGE_REQUEST)
                .ok_or(Refusal::BadRequest)?,
        };
        let response_port = match request.attribute(AttributeType::RESPONSE_PORT) {
            None => None,
            // Two bytes of port; some clients send the two of padding along.
            Some([high, low] | [high, low, _, _]) => Some(u16::from_be_bytes([*high, *low])),
            Some(_) => return Err(Refusal::BadRequest),
        };
        let padding = request.attribute(AttributeType::PADDING);
        // A long answer to a port somebody else chose would be a gift to whoever forges packets.
        if padding.is_some() && response_port.is_some() {
            return Err(Refusal::BadRequest);
        }

        let origin = discovery.other(
            from.server,
            change & CHANGE_IP != 0,
            change & CHANGE_PORT != 0,
        );
        let mut to = FiveTuple {
            server: origin,
            ..from
        };
        if let Some(port) = response_port {
            to.client.set_port(port);
        }
        let other = discovery.other(from.server, true, true);
        let head = Head {
            id: request.transaction_id(),
            method: request.method(),
            fingerprint: has_fingerprint(request),
        };
        self.stats.bindings += 1;
        self.write(to, head, Class::Success, None, |mut writer| {
            writer = writer
                .xor_address(AttributeType::XOR_MAPPED_ADDRESS, from.client)
                .address(AttributeType::MAPPED_ADDRESS, from.client)
                .address(AttributeType::RESPONSE_ORIGIN, origin)
                .address(AttributeType::OTHER_ADDRESS, other);
            match padding {
                Some(padding) => {
                    let len = padding.len().min(PADDING_LEN_MAX);
                    writer.attribute(AttributeType::PADDING, &[0; PADDING_LEN_MAX][..len])
                }
                None => writer,
            }
        });
        Ok(())
    }
}

/// As much as fits beside four addresses of IPv6 and a FINGERPRINT, in bytes.
const PADDING_LEN_MAX: usize = RESPONSE_LEN_MAX - 20 - 4 * 24 - 4 - 8;
