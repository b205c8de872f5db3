//! Requests: Binding, Allocate, Refresh, CreatePermission, ChannelBind. Each handler keeps the
//! order of the RFC's checks.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt;
use relay_stun::client::TRANSPORT_UDP;
use relay_stun::{
    AddressFamily, AttributeType, CHANNEL_MAX, CHANNEL_MIN, Class, ErrorCode, IntegrityKey,
    IntegrityKind, Message, Method, PasswordAlgorithm, SecurityFeatures, userhash,
};

use crate::allocation::{Allocation, Channels, Opening, Permissions};
use crate::credentials::Identity;
use crate::path::PathUpdate;
use crate::peer_address::Denial;
use crate::relay::{FiveTuple, Forward, Output, Relay, RelayPort, Transport};
use crate::responses::Head;
use crate::{Refusal, Route};

/// How many ports the driver may fail to bind before an Allocate is refused.
const PORT_FAILURES_MAX: u32 = 8;

/// How many ports are drawn at random before the range is walked.
const PORT_DRAWS_MAX: u32 = 16;

/// A user whose message is authentic.
pub(crate) struct Authenticated {
    pub(crate) identity: Identity,
    pub(crate) algorithm: PasswordAlgorithm,
    pub(crate) key: IntegrityKey,
    pub(crate) integrity: IntegrityKind,
}

/// Whether the relay understands an attribute that must be understood. DONT-FRAGMENT and
/// RESERVATION-TOKEN are not among them: 420 tells a client to do without (RFC 8489 §6.3.1).
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
            | AttributeType::PRIORITY
            | AttributeType::USE_CANDIDATE
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
                    | Method::CHANNEL_BIND => self.on_authenticated_request(now, from, &message)?,
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
        if let Err(refusal) = ensure_understood(request) {
            self.send_refusal(from, request, refusal, None);
            return Err(refusal);
        }
        self.stats.bindings += 1;
        self.send(from, request, Class::Success, None, |writer| {
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, from.client)
        });
        Ok(())
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
        let handled = ensure_understood(request).and_then(|()| match request.method() {
            Method::ALLOCATE => self.on_allocate(now, from, request, &authenticated),
            Method::REFRESH => self.on_refresh(now, from, request, &authenticated),
            Method::CREATE_PERMISSION => {
                self.on_create_permission(now, from, request, &authenticated)
            }
            _ => self.on_channel_bind(now, from, request, &authenticated),
        });
        if let Err(refusal) = handled {
            let protection = Some((authenticated.integrity, &authenticated.key));
            self.send_refusal(from, request, refusal, protection);
        }
        handled
    }

    /// Whether who has not authenticated gets an answer: over UDP, where an address can be forged,
    /// each network within its bound; on a stream, and where an Allocation lives, always.
    fn ensure_answer_due(&mut self, now: Instant, from: FiveTuple) -> Result<(), Refusal> {
        let since_epoch = now.saturating_duration_since(self.epoch);
        if from.transport.is_stream()
            || self.has_allocation(&from)
            || self.strangers.admit(since_epoch, from.client.ip())
        {
            return Ok(());
        }
        Err(Refusal::RateLimited)
    }

    /// Finds out who sent a request; the checks are those of RFC 8489 §9.2.4, in its order.
    fn authenticate(
        &self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
    ) -> Result<Authenticated, Refusal> {
        // Neither MESSAGE-INTEGRITY nor MESSAGE-INTEGRITY-SHA256: 401.
        let integrity = request
            .integrity_kind()
            .ok_or(Refusal::CredentialsMissing)?;

        // USERNAME or USERHASH, REALM or NONCE missing: 400.
        let name = Name::of(request).ok_or(Refusal::BadRequest)?;
        let (Some(_), Some(nonce)) = (
            request.text(AttributeType::REALM),
            request.attribute(AttributeType::NONCE),
        ) else {
            return Err(Refusal::BadRequest);
        };

        // Algorithms that are not those we sent with a nonce that promised some: 400.
        let algorithm = password_algorithm(request, nonce)?;

        // The user name is not valid: 401.
        let held = self.index_of(&from).map(|index| &self.allocations[index]);
        let authenticated = match held.filter(|held| {
            held.algorithm == algorithm && name.is(&held.identity.username, &self.config.realm)
        }) {
            // A client that allocated with this name is known, even after the name has expired: a
            // call is not cut because it lasts.
            Some(held) if request.verify_integrity(&held.key) => Authenticated {
                identity: held.identity.clone(),
                algorithm,
                key: held.key.clone(),
                integrity,
            },
            Some(_) => return Err(Refusal::WrongIntegrity),
            None => {
                let username = match name {
                    Name::Plain(username) => username,
                    Name::Hash(hash) => {
                        self.credentials.name_of(hash).ok_or(Refusal::UnknownUser)?
                    }
                };
                let identity = self.credentials.identify(username, self.unix_time(now))?;

                // The integrity is wrong: 401.
                let key = self
                    .credentials
                    .keys(algorithm, username, &self.config.realm)
                    .find(|key| request.verify_integrity(key))
                    .ok_or(Refusal::WrongIntegrity)?;
                Authenticated {
                    identity,
                    algorithm,
                    key,
                    integrity,
                }
            }
        };

        // The nonce is no longer valid, or never was ours: 438.
        if !self.nonces.is_valid(nonce, self.seconds(now), from.client) {
            return Err(Refusal::StaleNonce);
        }
        Ok(authenticated)
    }

    /// Answers an Allocate request; the checks are those of RFC 8656 §7.2, in its order.
    fn on_allocate(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Result<(), Refusal> {
        // 2: the 5-tuple is in use; a retransmission gets the same answer again.
        if let Some(index) = self.index_of(&from) {
            let held = &self.allocations[index];
            if held.transaction_id != request.transaction_id()
                || held.identity.user() != authenticated.identity.user()
            {
                return Err(Refusal::AllocationMismatch);
            }
            if held.opening.is_none() {
                self.send_allocated(
                    now,
                    index,
                    authenticated.integrity,
                    has_fingerprint(request),
                );
            }
            return Ok(());
        }

        if self.draining {
            let alternates = &self.config.alternates.servers;
            let elsewhere = |server: &SocketAddr| server.is_ipv4() == from.client.is_ipv4();
            return Err(match alternates.iter().any(elsewhere) {
                true => Refusal::Redirected,
                false => Refusal::Draining,
            });
        }

        // 3: the transport toward peers.
        match request.requested_transport() {
            None => return Err(Refusal::BadRequest),
            Some(TRANSPORT_UDP) => {}
            Some(_) => return Err(Refusal::UnsupportedTransportProtocol),
        }

        // 6: the family of the relayed address.
        let family = match request.requested_address_family() {
            None => AddressFamily::V4,
            Some(family) => family.ok_or(Refusal::AddressFamilyNotSupported)?,
        };
        let ip = self
            .config
            .addresses
            .ip(family)
            .ok_or(Refusal::AddressFamilyNotSupported)?;

        // 7: an even port; keeping the next one for later is not offered (R bit).
        let even_port = match request.attribute(AttributeType::EVEN_PORT) {
            None => false,
            Some([bits]) if bits & 0x80 == 0 => true,
            Some([_]) => return Err(Refusal::PortsExhausted),
            Some(_) => return Err(Refusal::BadRequest),
        };

        // 8: quotas.
        let limits = &self.config.limits;
        let held_by_user = self
            .allocations_by_user
            .get(authenticated.identity.user())
            .copied()
            .unwrap_or(0);
        if held_by_user >= limits.allocations_per_user_max {
            return Err(Refusal::AllocationQuotaReached);
        }
        if self.allocations.len() >= limits.allocations_max {
            return Err(Refusal::AllocationsExhausted);
        }

        let relayed = self
            .free_address(ip, even_port)
            .ok_or(Refusal::PortsExhausted)?;
        let expires = now + self.lifetime(request);
        let opening = Opening {
            integrity: authenticated.integrity,
            fingerprint: has_fingerprint(request),
            even_port,
            failures: 0,
        };
        let index = self.allocations.insert(Allocation {
            five_tuple: from,
            relayed,
            identity: authenticated.identity.clone(),
            algorithm: authenticated.algorithm,
            key: authenticated.key.clone(),
            expires,
            transaction_id: request.transaction_id(),
            opening: Some(opening),
            permissions: Permissions::default(),
            channels: Channels::default(),
        });
        self.allocation_by_five_tuple.insert(from, index);
        self.allocation_by_relayed.insert(relayed, index);
        *self
            .allocations_by_user
            .entry(authenticated.identity.user().into())
            .or_default() += 1;
        self.deadlines.insert((expires, index));
        self.outputs.push_back(Output::OpenPort(RelayPort {
            index,
            address: relayed,
        }));
        Ok(())
    }

    pub(crate) fn on_port_opened(&mut self, now: Instant, port: RelayPort) {
        if let Some(opening) = self.allocations[port.index].opening.take() {
            self.stats.allocations_granted += 1;
            self.tell_path(PathUpdate::Open {
                allocation: port.index,
                five_tuple: self.allocations[port.index].five_tuple,
                port,
            });
            self.send_allocated(now, port.index, opening.integrity, opening.fingerprint);
        }
    }

    pub(crate) fn on_port_failed(&mut self, port: RelayPort) {
        let index = port.index;
        let Some(mut opening) = self.allocations[index].opening else {
            return;
        };
        opening.failures += 1;
        let free = match opening.failures < PORT_FAILURES_MAX {
            true => self.free_address(port.address.ip(), opening.even_port),
            false => None,
        };
        if let Some(relayed) = free {
            self.allocation_by_relayed.remove(&port.address);
            self.allocation_by_relayed.insert(relayed, index);
            self.allocations[index].relayed = relayed;
            self.allocations[index].opening = Some(opening);
            self.outputs.push_back(Output::OpenPort(RelayPort {
                index,
                address: relayed,
            }));
            return;
        }

        let held = &self.allocations[index];
        let (to, id, key) = (held.five_tuple, held.transaction_id, held.key.clone());
        self.remove(index);
        self.stats.refuse(Refusal::PortsExhausted);
        let head = Head {
            id,
            method: Method::ALLOCATE,
            fingerprint: opening.fingerprint,
        };
        self.write(
            to,
            head,
            Class::Error,
            Some((opening.integrity, &key)),
            |writer| writer.error_code(ErrorCode::INSUFFICIENT_CAPACITY),
        );
    }

    /// Tells the Path of a client that has one; streams are served by the Relay itself.
    fn tell_path(&mut self, update: PathUpdate) {
        let held = &self.allocations[update.allocation()];
        if held.five_tuple.transport == Transport::Udp {
            self.outputs.push_back(Output::Path(update));
        }
    }

    fn send_allocated(
        &mut self,
        now: Instant,
        index: usize,
        integrity: IntegrityKind,
        fingerprint: bool,
    ) {
        let held = &self.allocations[index];
        let (to, relayed, key) = (held.five_tuple, held.relayed, held.key.clone());
        // Binding the port took a moment, which is no reason to say 599.
        let remaining = held.expires.saturating_duration_since(now);
        let lifetime = seconds_of(remaining + Duration::from_millis(999));
        let head = Head {
            id: held.transaction_id,
            method: Method::ALLOCATE,
            fingerprint,
        };
        self.write(
            to,
            head,
            Class::Success,
            Some((integrity, &key)),
            |writer| {
                writer
                    .xor_address(AttributeType::XOR_RELAYED_ADDRESS, relayed)
                    .u32(AttributeType::LIFETIME, lifetime)
                    .xor_address(AttributeType::XOR_MAPPED_ADDRESS, to.client)
            },
        );
    }

    /// Answers a Refresh request (RFC 8656 §8.2).
    fn on_refresh(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Result<(), Refusal> {
        let index = self.own_allocation(from, authenticated)?;
        if let Some(family) = request.requested_address_family()
            && family != Some(AddressFamily::of(self.allocations[index].relayed.ip()))
        {
            return Err(Refusal::PeerAddressFamilyMismatch);
        }

        let lifetime = match request.u32(AttributeType::LIFETIME) {
            Some(0) => Duration::ZERO,
            _ => self.lifetime(request),
        };
        if lifetime.is_zero() {
            self.remove(index);
        } else {
            let held = &mut self.allocations[index];
            self.deadlines.remove(&(held.expires, index));
            held.expires = now + lifetime;
            self.deadlines.insert((held.expires, index));
        }
        self.send_success(from, request, authenticated, |writer| {
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
        let relayed = self.allocations[index].relayed;
        let mut ips: Vec<IpAddr> = Vec::new();
        for (_, value) in request
            .attributes()
            .filter(|(attribute, _)| *attribute == AttributeType::XOR_PEER_ADDRESS)
        {
            let peer = relay_stun::decode_xor_address(value, &request.transaction_id())
                .ok_or(Refusal::BadRequest)?;
            ensure_same_family(relayed, peer)?;
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
        let (Some(number), Some(peer)) = (
            request.channel_number(),
            request.xor_address(AttributeType::XOR_PEER_ADDRESS),
        ) else {
            return Err(Refusal::BadRequest);
        };
        if !(CHANNEL_MIN..=CHANNEL_MAX).contains(&number) {
            return Err(Refusal::BadRequest);
        }
        ensure_same_family(self.allocations[index].relayed, peer)?;
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
    fn own_allocation(
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

    fn check_peer(&self, peer: SocketAddr) -> Result<Route, Denial> {
        self.config
            .peers
            .check(peer, |address| self.live_relayed(address).is_some())
    }

    /// A relayed address nobody holds, unguessable while most of the range is free.
    fn free_address(&mut self, ip: IpAddr, even: bool) -> Option<SocketAddr> {
        let ports = self.config.addresses.ports.clone();
        let usable = |port: u16| {
            let address = SocketAddr::new(ip, port);
            let fits = !even || port.is_multiple_of(2);
            (fits && !self.allocation_by_relayed.contains_key(&address)).then_some(address)
        };
        for _ in 0..PORT_DRAWS_MAX {
            if let Some(address) = usable(self.rng.random_range(ports.clone())) {
                return Some(address);
            }
        }
        let from = self.rng.random_range(ports.clone());
        (from..=*ports.end())
            .chain(*ports.start()..from)
            .find_map(usable)
    }

    /// The lifetime a request is granted (RFC 8656 §7.2): what it asks for, within our bounds.
    fn lifetime(&self, request: &Message<'_>) -> Duration {
        let wanted = request.u32(AttributeType::LIFETIME).unwrap_or(0);
        Duration::from_secs(u64::from(wanted))
            .min(self.config.lifetime_max)
            .max(self.config.lifetime_default)
    }

    /// The relay's own time, in whole seconds.
    pub(crate) fn seconds(&self, now: Instant) -> u32 {
        seconds_of(now.saturating_duration_since(self.epoch))
    }

    fn unix_time(&self, now: Instant) -> Duration {
        let (then, unix_then) = self.wall_clock;
        unix_then + now.saturating_duration_since(then)
    }
}

/// The name in a request, as it stands there.
enum Name<'m> {
    Plain(&'m str),
    /// USERHASH.
    Hash(&'m [u8]),
}

impl<'m> Name<'m> {
    fn of(request: &Message<'m>) -> Option<Name<'m>> {
        let plain = request.text(AttributeType::USERNAME).map(Name::Plain);
        plain.or_else(|| request.attribute(AttributeType::USERHASH).map(Name::Hash))
    }

    fn is(&self, username: &str, realm: &str) -> bool {
        match self {
            Name::Plain(name) => *name == username,
            Name::Hash(hash) => **hash == userhash(username, realm),
        }
    }
}

/// The algorithm of a request's key; the checks are those of RFC 8489 §9.2.4, in its order. Our
/// answer to every challenge offers the same list, so what a client echoes must be that list:
/// another means that somebody changed it on the way.
fn password_algorithm(request: &Message<'_>, nonce: &[u8]) -> Result<PasswordAlgorithm, Refusal> {
    let promised = SecurityFeatures::of_nonce(nonce).unwrap_or_default();
    let offered = request.attribute(AttributeType::PASSWORD_ALGORITHMS);
    let chosen = request.attribute(AttributeType::PASSWORD_ALGORITHM);
    match (offered, chosen) {
        _ if !promised.password_algorithms => Ok(PasswordAlgorithm::Md5),
        (None, None) => Ok(PasswordAlgorithm::Md5),
        (Some(offered), Some(chosen)) if offered == PasswordAlgorithm::BOTH => {
            PasswordAlgorithm::from_value(chosen).ok_or(Refusal::BadRequest)
        }
        _ => Err(Refusal::BadRequest),
    }
}

pub(crate) fn has_fingerprint(request: &Message<'_>) -> bool {
    request.verify_fingerprint().is_some()
}

fn ensure_understood(request: &Message<'_>) -> Result<(), Refusal> {
    match not_understood(request).next() {
        None => Ok(()),
        Some(_) => Err(Refusal::UnknownAttribute),
    }
}

pub(crate) fn not_understood(request: &Message<'_>) -> impl Iterator<Item = AttributeType> {
    request
        .attributes()
        .map(|(attribute, _)| attribute)
        .filter(|attribute| attribute.comprehension_required() && !understood(*attribute))
}

fn ensure_same_family(relayed: SocketAddr, peer: SocketAddr) -> Result<(), Refusal> {
    match relayed.is_ipv4() == peer.is_ipv4() {
        true => Ok(()),
        false => Err(Refusal::PeerAddressFamilyMismatch),
    }
}

pub(crate) fn seconds_of(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
