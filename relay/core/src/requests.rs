//! Requests: Binding, Refresh, CreatePermission, ChannelBind, and the way to all others. Each handler keeps the
//! order of the RFC's checks.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use relay_stun::{AddressFamily, AttributeType, CHANNEL_MAX, CHANNEL_MIN, Class, Message, Method};

use crate::authentication::Authenticated;
use crate::discovery::is_of_discovery;
use crate::path::PathUpdate;
use crate::peer_address::Denial;
use crate::relay::{FiveTuple, Forward, Relay};
use crate::tcp::is_of;
use crate::{Refusal, Route};

/// Whether the relay understands an attribute that must be understood.
pub(crate) fn understood(attribute: AttributeType) -> bool {
    matches!(
        attribute,
        AttributeType::USERNAME
            | AttributeType::USERHASH
            | AttributeType::PASSWORD_ALGORITHM
            | AttributeType::REALM
            | AttributeType::NONCE
            | AttributeType::CHANNEL_NUMBER
            | AttributeType::LIFETIME
            | AttributeType::XOR_PEER_ADDRESS
            | AttributeType::DATA
            | AttributeType::REQUESTED_ADDRESS_FAMILY
            | AttributeType::EVEN_PORT
            | AttributeType::REQUESTED_TRANSPORT
            | AttributeType::DONT_FRAGMENT
            | AttributeType::RESERVATION_TOKEN
            | AttributeType::PRIORITY
            | AttributeType::USE_CANDIDATE
            | AttributeType::CONNECTION_ID
    )
}

impl Relay {
    pub(crate) fn on_message(
        &mut self,
        now: Instant,
        from: FiveTuple,
        packet: &[u8],
    ) -> Result<Option<Forward>, Refusal> {
        let message = Message::parse(packet).map_err(|_| Refusal::Malformed)?;
        match (message.class(), message.method()) {
            (Class::Indication, Method::SEND) => self.on_send(now, from, &message).map(Some),
            // Keeps a NAT's binding open (RFC 8489 §2): nothing to do, nothing to count.
            (Class::Indication, Method::BINDING) => Ok(None),
            (Class::Request, method) => {
                if message.verify_fingerprint() == Some(false) {
                    return Err(Refusal::WrongFingerprint);
                }
                match method {
                    Method::BINDING => self.on_binding(now, from, &message)?,
                    Method::ALLOCATE
                    | Method::REFRESH
                    | Method::CREATE_PERMISSION
                    | Method::CHANNEL_BIND
                    | Method::CONNECT
                    | Method::CONNECTION_BIND => {
                        self.on_authenticated_request(now, from, &message)?;
                    }
                    _ => return Err(Refusal::Unexpected),
                }
                Ok(None)
            }
            _ => Err(Refusal::Unexpected),
        }
    }

    /// Answers a Binding request; it needs no credentials (RFC 8489 §3).
    fn on_binding(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
    ) -> Result<(), Refusal> {
        self.ensure_answer_due(now, from)?;
        let discovery = self.discovery_at(from);
        let unknown = |attribute| discovery.is_none() || !is_of_discovery(attribute);
        let handled = match (self.not_understood(request).any(unknown), discovery) {
            (true, _) => Err(Refusal::UnknownAttribute),
            (false, Some(discovery)) => self.on_discovery(from, request, discovery),
            (false, None) => {
                self.send_binding(from, request);
                Ok(())
            }
        };
        if let Err(refusal) = handled {
            self.send_refusal(from, request, refusal, None);
        }
        handled
    }

    fn send_binding(&mut self, from: FiveTuple, request: &Message<'_>) {
        self.stats.bindings += 1;
        self.send(from, request, Class::Success, None, |writer| {
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, from.client)
        });
    }

    fn on_authenticated_request(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
    ) -> Result<(), Refusal> {
        let authenticated = match self.authenticate(now, from, request) {
            Ok(authenticated) => authenticated,
            Err(refusal) => {
                self.ensure_answer_due(now, from)?;
                self.send_challenge(now, from, request, refusal);
                return Err(refusal);
            }
        };
        let handled = self
            .ensure_understood(request)
            .and_then(|()| match request.method() {
                Method::ALLOCATE => self.on_allocate(now, from, request, &authenticated),
                Method::REFRESH => self.on_refresh(now, from, request, &authenticated),
                Method::CREATE_PERMISSION => {
                    self.on_create_permission(now, from, request, &authenticated)
                }
                Method::CONNECT => self.on_connect(now, from, request, &authenticated),
                Method::CONNECTION_BIND => {
                    self.on_connection_bind(now, from, request, &authenticated)
                }
                _ => self.on_channel_bind(now, from, request, &authenticated),
            });
        if let Err(refusal) = handled {
            let protection = Some((authenticated.integrity, &authenticated.key));
            self.send_refusal(from, request, refusal, protection);
        }
        handled
    }

    /// Answers a Refresh request (RFC 8656 §8.2).
    fn on_refresh(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Result<(), Refusal> {
        let ticket = request.attribute(AttributeType::MOBILITY_TICKET);
        let (index, moves) = match ticket {
            Some(ticket) => self.of_ticket(from, request, ticket, authenticated)?,
            None => (self.own_allocation(from, authenticated)?, false),
        };
        let family = match request.requested_address_family() {
            None => None,
            Some(family) => {
                let held = &self.allocations[index];
                let address = family.and_then(|family| held.relayed[family as usize]);
                Some(address.ok_or(Refusal::PeerAddressFamilyMismatch)?)
            }
        };
        if moves {
            self.announce(now, index, from, request);
        }

        let lifetime = match request.u32(AttributeType::LIFETIME) {
            Some(0) => Duration::ZERO,
            _ => self.lifetime(now, request, authenticated),
        };
        let held = &mut self.allocations[index];
        match family {
            // One of two families ends alone, with all that leads to it.
            Some(address) if lifetime.is_zero() && held.addresses().count() > 1 => {
                let family = AddressFamily::of(address.ip());
                held.relayed[family as usize] = None;
                held.permissions.forget(family);
                held.channels.forget(family);
                self.end_connections(index, is_of(family));
                self.close_port(index, address);
            }
            _ if lifetime.is_zero() => self.remove(index),
            _ => self.set_expiry(index, now + lifetime),
        }
        // The next move needs a ticket of this stay.
        let ticket = ticket
            .filter(|_| !lifetime.is_zero())
            .and_then(|_| self.ticket_of(index));
        self.send_success(from, request, authenticated, |mut writer| {
            if let Some(ticket) = &ticket {
                writer = writer.attribute(AttributeType::MOBILITY_TICKET, ticket);
            }
            writer.u32(AttributeType::LIFETIME, seconds_of(lifetime))
        });
        Ok(())
    }

    /// Answers a CreatePermission request (RFC 8656 §10.2): all peers are permitted, or none.
    fn on_create_permission(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Result<(), Refusal> {
        let index = self.own_allocation(from, authenticated)?;
        let mut ips: Vec<IpAddr> = Vec::new();
        for (_, value) in request
            .attributes()
            .filter(|(attribute, _)| *attribute == AttributeType::XOR_PEER_ADDRESS)
        {
            let peer = relay_stun::decode_xor_address(value, &request.transaction_id())
                .ok_or(Refusal::BadRequest)?;
            self.ensure_reachable_family(index, peer)?;
            self.config
                .peers
                .check_ip(peer.ip())
                .map_err(Refusal::Forbidden)?;
            ips.push(peer.ip());
        }
        if ips.is_empty() {
            return Err(Refusal::BadRequest);
        }
        let held = &mut self.allocations[index];
        held.permissions
            .ensure_fit(now, &ips, &self.config.limits)?;

        let mut permitted = Vec::new();
        for ip in ips {
            permitted.push(PathUpdate::Permit {
                allocation: index,
                ip,
                expires: held.permissions.permit(now, ip),
            });
        }
        for update in permitted {
            self.tell_path(update);
        }
        self.send_success(from, request, authenticated, |writer| writer);
        Ok(())
    }

    /// Answers a ChannelBind request; the checks are those of RFC 8656 §12.2, in its order.
    fn on_channel_bind(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Result<(), Refusal> {
        let index = self.own_allocation(from, authenticated)?;
        // Nothing of TCP comes in messages (RFC 6062 §3).
        if self.allocations[index].tcp {
            return Err(Refusal::WrongAllocationTransport);
        }
        let (Some(number), Some(peer)) = (
            request.channel_number(),
            request.xor_address(AttributeType::XOR_PEER_ADDRESS),
        ) else {
            return Err(Refusal::BadRequest);
        };
        if !(CHANNEL_MIN..=CHANNEL_MAX).contains(&number) {
            return Err(Refusal::BadRequest);
        }
        self.ensure_reachable_family(index, peer)?;
        self.check_peer(peer).map_err(Refusal::Forbidden)?;

        let held = &mut self.allocations[index];
        held.channels
            .ensure_fits(now, number, peer, &self.config.limits)?;
        held.permissions
            .ensure_fit(now, &[peer.ip()], &self.config.limits)?;
        let bound = PathUpdate::Bind {
            allocation: index,
            number,
            peer,
            expires: held.channels.bind(now, number, peer),
        };
        let permitted = PathUpdate::Permit {
            allocation: index,
            ip: peer.ip(),
            expires: held.permissions.permit(now, peer.ip()),
        };
        self.tell_path(bound);
        self.tell_path(permitted);
        self.send_success(from, request, authenticated, |writer| writer);
        Ok(())
    }

    /// The Allocation a request is about: 437 where there is none, 441 where it is another User's.
    ///
    /// User names differ in their expiry as signaling renews them, so the User decides, and the
    /// newest name becomes the Allocation's.
    pub(crate) fn held_by(
        &mut self,
        from: FiveTuple,
        authenticated: &Authenticated,
    ) -> Result<usize, Refusal> {
        let index = self
            .index_of(&from)
            .filter(|&index| self.allocations[index].opening.is_none())
            .ok_or(Refusal::AllocationMismatch)?;
        let held = &mut self.allocations[index];
        if held.identity.user() != authenticated.identity.user() {
            return Err(Refusal::WrongCredentials);
        }
        if held.identity != authenticated.identity || held.algorithm != authenticated.algorithm {
            held.identity = authenticated.identity.clone();
            held.algorithm = authenticated.algorithm;
            held.key = authenticated.key.clone();
        }
        Ok(index)
    }

    /// The same, with the client where it sends from.
    pub(crate) fn own_allocation(
        &mut self,
        from: FiveTuple,
        authenticated: &Authenticated,
    ) -> Result<usize, Refusal> {
        let index = self.held_by(from, authenticated)?;
        self.arrive(index, from);
        Ok(index)
    }

    fn ensure_reachable_family(&self, index: usize, peer: SocketAddr) -> Result<(), Refusal> {
        match self.allocations[index].relayed_toward(peer) {
            Some(_) => Ok(()),
            None => Err(Refusal::PeerAddressFamilyMismatch),
        }
    }

    fn check_peer(&self, peer: SocketAddr) -> Result<Route, Denial> {
        self.config
            .peers
            .check(peer, |address| self.live_relayed(address).is_some())
    }

    /// The lifetime a request is granted (RFC 8656 §7.2): what it asks for, within our bounds and
    /// those of a third party's token (RFC 7635 §9).
    pub(crate) fn lifetime(
        &self,
        now: Instant,
        request: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Duration {
        let until = authenticated.identity.until();
        let remaining = until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
        let wanted = request.u32(AttributeType::LIFETIME).unwrap_or(0);
        Duration::from_secs(u64::from(wanted))
            .min(self.config.lifetime_max)
            .max(self.config.lifetime_default)
            .min(remaining)
    }

    fn ensure_understood(&self, request: &Message<'_>) -> Result<(), Refusal> {
        match self.not_understood(request).next() {
            None => Ok(()),
            Some(_) => Err(Refusal::UnknownAttribute),
        }
    }

    /// The attributes of a request that must be understood and are not.
    pub(crate) fn not_understood<'m>(
        &self,
        request: &Message<'m>,
    ) -> impl Iterator<Item = AttributeType> + use<'m> {
        let tokens = self.credentials.third_party().is_some();
        request
            .attributes()
            .map(|(attribute, _)| attribute)
            .filter(|attribute| attribute.comprehension_required() && !understood(*attribute))
            .filter(move |attribute| !(tokens && *attribute == AttributeType::ACCESS_TOKEN))
    }

    /// The relay's own time, in whole seconds.
    pub(crate) fn seconds(&self, now: Instant) -> u32 {
        seconds_of(now.saturating_duration_since(self.epoch))
    }

    pub(crate) fn unix_time(&self, now: Instant) -> Duration {
        let (then, unix_then) = self.wall_clock;
        unix_then + now.saturating_duration_since(then)
    }
}

pub(crate) fn seconds_of(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
