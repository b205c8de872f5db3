//! Allocate requests, and the ports they wait for (RFC 8656 §7.2).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use relay_stun::client::{TRANSPORT_TCP, TRANSPORT_UDP};
use relay_stun::{AddressFamily, AttributeType, Class, ErrorCode, IntegrityKind, Message, Method};

use crate::allocation::{Allocation, Channels, EvenPort, Opening, Permissions};
use crate::authentication::Authenticated;
use crate::icmp::Pace;
use crate::path::PathUpdate;
use crate::relay::{FiveTuple, Output, Relay, RelayPort, Transport};
use crate::requests::seconds_of;
use crate::reservation::{Reservation, Token};
use crate::responses::{Head, has_fingerprint};
use crate::tcp::ensure_tcp_allocation;
use crate::{Refusal, Tally};

/// How many ports the driver may fail to bind before an Allocate is refused.
const PORT_FAILURES_MAX: u32 = 64;

/// How many ports are drawn at random before the range is walked.
const PORT_DRAWS_MAX: u32 = 16;

/// The relayed addresses a request asks for.
struct Wanted {
    /// Peers are to be reached over TCP.
    tcp: bool,
    families: Families,
    even_port: EvenPort,
    reservation: Option<Token>,
    /// It is to move with its client.
    mobile: bool,
}

enum Families {
    One(AddressFamily),
    /// IPv4 and IPv6, of which one may fail.
    Both,
}

impl Wanted {
    /// Reads what is asked for; the checks are 5 to 9 of RFC 8656 §7.2.
    fn of(request: &Message<'_>, tcp: bool) -> Result<Wanted, Refusal> {
        let even_port = match request.attribute(AttributeType::EVEN_PORT) {
            None => EvenPort::Any,
            Some([bits]) if bits & 0x80 == 0 => EvenPort::Even,
            Some([_]) => EvenPort::EvenAndNext,
            Some(_) => return Err(Refusal::BadRequest),
        };
        let requested = request.requested_address_family();
        let additional = request.additional_address_family();
        let reservation = match request.attribute(AttributeType::RESERVATION_TOKEN) {
            None => None,
            Some(token) => {
                // A port that is kept has its family and its parity.
                if even_port != EvenPort::Any || requested.is_some() || additional.is_some() {
                    return Err(Refusal::BadRequest);
                }
                Some(token.try_into().map_err(|_| Refusal::BadRequest)?)
            }
        };
        let families = match (requested, additional) {
            (None, None) => Families::One(AddressFamily::V4),
            (Some(family), None) => {
                Families::One(family.ok_or(Refusal::AddressFamilyNotSupported)?)
            }
            (None, Some(Some(AddressFamily::V6))) if even_port != EvenPort::EvenAndNext => {
                Families::Both
            }
            _ => return Err(Refusal::BadRequest),
        };
        Ok(Wanted {
            tcp,
            families,
            even_port,
            reservation,
            mobile: request.attribute(AttributeType::MOBILITY_TICKET).is_some(),
        })
    }

    /// How many places in the quota it takes.
    fn places(&self) -> usize {
        match (self.even_port, self.reservation) {
            (EvenPort::EvenAndNext, _) => 2,
            // The place was taken when the port was kept.
            (_, Some(_)) => 0,
            _ => 1,
        }
    }
}

/// What a relayed address was found for a request.
#[derive(Default)]
struct Found {
    relayed: [Option<SocketAddr>; 2],
    missing: Option<(AddressFamily, Refusal)>,
    /// The address above the relayed one, where it is to be kept.
    next: Option<SocketAddr>,
}

impl Relay {
    /// Answers an Allocate request; the checks are those of RFC 8656 §7.2, in its order.
    pub(crate) fn on_allocate(
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

        // 3: the transport toward peers. (4: every driver can do what DONT-FRAGMENT asks for.)
        let tcp = match request.requested_transport() {
            None => return Err(Refusal::BadRequest),
            Some(TRANSPORT_UDP) => false,
            Some(TRANSPORT_TCP) if self.config.tcp_allocations => {
                ensure_tcp_allocation(from, request)?;
                true
            }
            Some(_) => return Err(Refusal::UnsupportedTransportProtocol),
        };

        // 5 to 9: what is asked for, and whether it can be had.
        let wanted = Wanted::of(request, tcp)?;
        if wanted.mobile {
            self.ensure_mobile()?;
        }
        let user = authenticated.identity.user();
        if let Some(token) = &wanted.reservation {
            let kept = self.reservations.get(token);
            kept.filter(|kept| *kept.user == *user)
                .ok_or(Refusal::UnknownReservation)?;
        }
        if let Families::One(family) = wanted.families
            && wanted.reservation.is_none()
            && self.config.addresses.ip(family).is_none()
        {
            return Err(Refusal::AddressFamilyNotSupported);
        }

        // 12: quotas.
        let limits = &self.config.limits;
        self.quotas.ensure_fits(user, wanted.places(), limits)?;
        if self.allocations.len() + self.reservations.len() + wanted.places()
            > limits.allocations_max
        {
            return Err(Refusal::AllocationsExhausted);
        }

        // 13: another server.
        if self.draining {
            let alternates = &self.config.alternates.servers;
            let elsewhere = |server: &SocketAddr| server.is_ipv4() == from.client.is_ipv4();
            return Err(match alternates.iter().any(elsewhere) {
                true => Refusal::Redirected,
                false => Refusal::Draining,
            });
        }

        let found = self.find_addresses(now, &wanted)?;
        self.open_allocation(now, from, request, authenticated, &wanted, &found);
        Ok(())
    }

    /// Finds the relayed addresses a request asks for; of two families one is enough.
    fn find_addresses(&mut self, now: Instant, wanted: &Wanted) -> Result<Found, Refusal> {
        let mut found = Found::default();
        if let Some(token) = &wanted.reservation {
            let kept = self.reservations.take(token);
            let kept = kept.ok_or(Refusal::UnknownReservation)?;
            self.quotas.release(&kept.user);
            found.relayed[AddressFamily::of(kept.address.ip()) as usize] = Some(kept.address);
            return Ok(found);
        }
        let families = match wanted.families {
            Families::One(family) => vec![family],
            Families::Both => vec![AddressFamily::V4, AddressFamily::V6],
        };
        for family in families {
            let ip = self.config.addresses.ip(family);
            let address = match ip {
                None => Err(Refusal::AddressFamilyNotSupported),
                Some(ip) => self
                    .free_address(now, ip, wanted.even_port)
                    .ok_or(Refusal::PortsExhausted),
            };
            match address {
                Ok(address) => found.relayed[family as usize] = Some(address),
                Err(refusal) => found.missing = Some((family, refusal)),
            }
        }
        let first = found.relayed.iter().flatten().next();
        match (first, found.missing) {
            (None, Some((_, refusal))) => Err(refusal),
            (first, _) => {
                found.next = first
                    .filter(|_| wanted.even_port == EvenPort::EvenAndNext)
                    .map(|address| next_port(*address));
                Ok(found)
            }
        }
    }

    /// Makes the Allocation, which is granted once its ports are bound.
    fn open_allocation(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
        authenticated: &Authenticated,
        wanted: &Wanted,
        found: &Found,
    ) {
        let user = authenticated.identity.user();
        let expires = now + self.lifetime(now, request, authenticated);
        let opening = Opening {
            integrity: authenticated.integrity,
            fingerprint: has_fingerprint(request),
            even_port: wanted.even_port,
            is_kept: wanted.reservation.is_some(),
            awaited: found.relayed.map(|address| address.is_some()),
            failures: 0,
        };
        let budget = self.quotas.hold(user, &self.config.limits);
        let reservation = found.next.map(|address| self.keep_port(now, user, address));
        let missing = found
            .missing
            .and_then(|(family, refusal)| Some((family, refusal.code()?)));
        let index = self.allocations.insert(Allocation {
            five_tuple: from,
            is_gone: false,
            announced: None,
            moved_by: None,
            relayed: found.relayed,
            tcp: wanted.tcp,
            connections: Vec::new(),
            missing,
            reservation,
            budget,
            tally: Tally::default(),
            number: self.next_number,
            stay: wanted.mobile.then_some(0),
            identity: authenticated.identity.clone(),
            algorithm: authenticated.algorithm,
            key: authenticated.key.clone(),
            expires,
            transaction_id: request.transaction_id(),
            opening: Some(opening),
            permissions: Permissions::default(),
            channels: Channels::default(),
            icmp_pace: Pace::default(),
        });
        if wanted.mobile {
            self.allocation_by_number.insert(self.next_number, index);
        }
        self.next_number += 1;
        self.allocation_by_five_tuple.insert(from, index);
        self.deadlines.insert((expires, index));
        for address in found.relayed.into_iter().flatten() {
            self.open_port(index, address);
        }
    }

    fn open_port(&mut self, index: usize, address: SocketAddr) {
        self.allocation_by_relayed.insert(address, index);
        let port = RelayPort::new(index, address);
        self.outputs.push_back(match self.allocations[index].tcp {
            true => Output::Listen(port),
            false => Output::OpenPort(port),
        });
    }

    /// Keeps a port for the next Allocation of `user`.
    fn keep_port(&mut self, now: Instant, user: &str, address: SocketAddr) -> Token {
        let mut token = Token::default();
        self.rng.fill_bytes(&mut token);
        self.quotas.hold(user, &self.config.limits);
        let reservation = Reservation {
            address,
            user: user.into(),
        };
        self.reservations.keep(now, token, reservation);
        token
    }

    fn drop_reservation(&mut self, token: Token) {
        if let Some(kept) = self.reservations.take(&token) {
            self.quotas.release(&kept.user);
        }
    }

    pub(crate) fn on_port_opened(&mut self, now: Instant, port: RelayPort) {
        let index = port.allocation();
        if let Some(opening) = &mut self.allocations[index].opening {
            opening.awaited[port.index % 2] = false;
            self.finish_opening(now, index);
        }
    }

    pub(crate) fn on_port_failed(&mut self, now: Instant, port: RelayPort) {
        let index = port.allocation();
        let family = port.index % 2;
        let held = &mut self.allocations[index];
        let Some(opening) = &mut held.opening else {
            return;
        };
        opening.failures += 1;
        let (failures, even_port) = (opening.failures, opening.even_port);
        let is_final = opening.is_kept || failures >= PORT_FAILURES_MAX;
        let kept = held.reservation.take();
        held.relayed[family] = None;
        self.allocation_by_relayed.remove(&port.address);
        self.busy_ports.add(now, port.address);
        if let Some(token) = kept {
            self.drop_reservation(token);
        }

        let free = match is_final {
            true => None,
            false => self.free_address(now, port.address.ip(), even_port),
        };
        let Some(address) = free else {
            let held = &mut self.allocations[index];
            if let Some(opening) = &mut held.opening {
                opening.awaited[family] = false;
            }
            let family = AddressFamily::of(port.address.ip());
            held.missing = Some((family, ErrorCode::INSUFFICIENT_CAPACITY));
            return self.finish_opening(now, index);
        };
        if even_port == EvenPort::EvenAndNext {
            let user = self.allocations[index].identity.user().to_owned();
            let token = self.keep_port(now, &user, next_port(address));
            self.allocations[index].reservation = Some(token);
        }
        self.allocations[index].relayed[family] = Some(address);
        self.open_port(index, address);
    }

    /// Answers the Allocate request once no port is awaited any more.
    fn finish_opening(&mut self, now: Instant, index: usize) {
        let held = &mut self.allocations[index];
        let Some(opening) = held
            .opening
            .take_if(|opening| opening.awaited == [false; 2])
        else {
            return;
        };
        if held.addresses().next().is_some() {
            self.usages.grant(held.identity.user());
            self.tell_path_opened(index);
            self.stats.allocations_granted += 1;
            self.send_allocated(now, index, opening.integrity, opening.fingerprint);
            return;
        }

        let head = Head {
            id: held.transaction_id,
            method: Method::ALLOCATE,
            fingerprint: opening.fingerprint,
        };
        let (to, key) = (held.five_tuple, held.key.clone());
        self.remove(index);
        self.stats.refuse(Refusal::PortsExhausted);
        self.write(
            to,
            head,
            Class::Error,
            Some((opening.integrity, &key)),
            |writer| writer.error_code(ErrorCode::INSUFFICIENT_CAPACITY),
        );
    }

    /// Tells the Path of a client what the Allocation is.
    pub(crate) fn tell_path_opened(&mut self, index: usize) {
        let held = &self.allocations[index];
        let (five_tuple, budget, tally) =
            (held.five_tuple, held.budget.clone(), held.tally.clone());
        for address in held.addresses() {
            self.tell_path(PathUpdate::Open {
                allocation: index,
                five_tuple,
                port: RelayPort::new(index, address),
                budget: budget.clone(),
                tally: tally.clone(),
            });
        }
    }

    /// Tells the Path of a client that has one; streams are served by the Relay itself.
    pub(crate) fn tell_path(&mut self, update: PathUpdate) {
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
        let ticket = self.ticket_of(index);
        let held = &self.allocations[index];
        let (to, key) = (held.five_tuple, held.key.clone());
        let (addresses, missing, reservation) = (held.addresses(), held.missing, held.reservation);
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
            |mut writer| {
                for relayed in addresses {
                    writer = writer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, relayed);
                }
                if let Some((family, code)) = missing {
                    writer = writer.address_error_code(family, code);
                }
                if let Some(token) = &reservation {
                    writer = writer.attribute(AttributeType::RESERVATION_TOKEN, token);
                }
                if let Some(ticket) = &ticket {
                    writer = writer.attribute(AttributeType::MOBILITY_TICKET, ticket);
                }
                writer
                    .u32(AttributeType::LIFETIME, lifetime)
                    .xor_address(AttributeType::XOR_MAPPED_ADDRESS, to.client)
            },
        );
    }

    /// A relayed address nobody holds, unguessable while most of the range is free.
    fn free_address(
        &mut self,
        now: Instant,
        ip: IpAddr,
        even_port: EvenPort,
    ) -> Option<SocketAddr> {
        let ports = self.config.addresses.ports.clone();
        // A port is bound once, whatever address it is seen at.
        let is_held = |ip: IpAddr, port: u16| {
            let address = SocketAddr::new(ip, port);
            self.allocation_by_relayed.contains_key(&address) || self.reservations.holds(&address)
        };
        let is_free = |port: u16| {
            let mut former = self.former_ips.iter();
            !is_held(ip, port)
                && !former.any(|former| former.is_ipv4() == ip.is_ipv4() && is_held(*former, port))
                && !self.busy_ports.holds(now, &SocketAddr::new(ip, port))
        };
        let usable = |port: u16| {
            let fits = match even_port {
                EvenPort::Any => true,
                EvenPort::Even => port.is_multiple_of(2),
                EvenPort::EvenAndNext => {
                    port.is_multiple_of(2) && port < *ports.end() && is_free(port + 1)
                }
            };
            (fits && is_free(port)).then(|| SocketAddr::new(ip, port))
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
}

/// The address one port higher; the port is even, so there is one.
fn next_port(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() | 1)
}
