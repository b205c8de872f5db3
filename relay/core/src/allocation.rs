//! One Allocation with its Permissions and Channels (RFC 8656 §3).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use relay_stun::{
    AddressFamily, ErrorCode, IntegrityKey, IntegrityKind, PasswordAlgorithm, TransactionId,
};

use crate::credentials::Identity;
use crate::icmp::Pace;
use crate::meter::Budget;
use crate::mobility::Announced;
use crate::relay::FiveTuple;
use crate::reservation::Token;
use crate::tcp::ConnectionId;
use crate::{CHANNEL_LIFETIME, Limits, PERMISSION_LIFETIME, Refusal, Tally};

/// What a client holds: a relayed address, and whom it may talk to through it.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) five_tuple: FiveTuple,
    /// The client's stream has ended, and it has not come back over another.
    pub(crate) is_gone: bool,
    /// The move that is under way.
    pub(crate) announced: Option<Announced>,
    /// The Refresh that announced the last move, to know its retransmission by.
    pub(crate) moved_by: Option<TransactionId>,
    /// The relayed addresses as clients and peers see them, by [`family_index`].
    pub(crate) relayed: [Option<SocketAddr>; 2],
    /// Its peers are reached over TCP (RFC 6062).
    pub(crate) tcp: bool,
    /// The connections to them.
    pub(crate) connections: Vec<ConnectionId>,
    /// Why one of two wanted families is missing.
    pub(crate) missing: Option<(AddressFamily, ErrorCode)>,
    /// Never used again, as the place in the table is.
    pub(crate) number: u64,
    /// How many moves were announced; `None` where it does not move.
    pub(crate) stay: Option<u32>,
    /// What the port above the relayed one is kept under.
    pub(crate) reservation: Option<Token>,
    pub(crate) budget: Budget,
    /// What it has relayed.
    pub(crate) tally: Tally,
    /// Who last authenticated here, and the key: a call longer than the credentials' life goes on
    /// under them.
    pub(crate) identity: Identity,
    pub(crate) algorithm: PasswordAlgorithm,
    pub(crate) key: IntegrityKey,
    pub(crate) expires: Instant,
    /// The Allocate request, to know its retransmission by.
    pub(crate) transaction_id: TransactionId,
    /// What is still to be answered while the driver binds the port.
    pub(crate) opening: Option<Opening>,
    pub(crate) permissions: Permissions,
    pub(crate) channels: Channels,
    pub(crate) icmp_pace: Pace,
}

/// Where an address stands in a table by family: 0 for IPv4, 1 for IPv6.
pub(crate) fn family_index(ip: IpAddr) -> usize {
    usize::from(ip.is_ipv6())
}

impl Allocation {
    /// Where the client said it will be.
    pub(crate) fn announced_at(&self) -> Option<FiveTuple> {
        Some(self.announced?.five_tuple)
    }

    /// The relayed address that reaches `peer`.
    pub(crate) fn relayed_toward(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.relayed[family_index(peer.ip())]
    }

    /// Whether `address` is one of its relayed addresses.
    pub(crate) fn holds(&self, address: SocketAddr) -> bool {
        self.relayed_toward(address) == Some(address)
    }

    /// Its relayed addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        self.relayed.into_iter().flatten()
    }
}

/// An Allocate request that waits for its ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) integrity: IntegrityKind,
    pub(crate) fingerprint: bool,
    pub(crate) even_port: EvenPort,
    /// It asks for a port that was kept, and no other will do.
    pub(crate) is_kept: bool,
    /// Which ports the driver has not bound yet, by [`family_index`].
    pub(crate) awaited: [bool; 2],
    /// Ports the driver could not bind so far.
    pub(crate) failures: u32,
}

/// What EVEN-PORT asks for (RFC 8656 §18.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EvenPort {
    /// Any port will do.
    Any,
    /// An even one.
    Even,
    /// An even one, and the next is kept for later.
    EvenAndNext,
}

/// The peers' addresses an Allocation exchanges data with (RFC 8656 §9).
#[derive(Debug, Default)]
pub(crate) struct Permissions(Vec<Permission>);

#[derive(Debug)]
struct Permission {
    ip: IpAddr,
    expires: Instant,
}

impl Permissions {
    /// Whether `ip` has a Permission at `now`.
    pub(crate) fn permits(&self, now: Instant, ip: IpAddr) -> bool {
        self.0
            .iter()
            .any(|permission| permission.ip == ip && now < permission.expires)
    }

    /// Whether all of `ips` fit; what has expired makes room.
    pub(crate) fn ensure_fit(
        &mut self,
        now: Instant,
        ips: &[IpAddr],
        limits: &Limits,
    ) -> Result<(), Refusal> {
        self.0.retain(|permission| now < permission.expires);
        let is_new = |(at, ip): &(usize, &IpAddr)| {
            !ips[..*at].contains(ip) && self.0.iter().all(|held| held.ip != **ip)
        };
        let new = ips.iter().enumerate().filter(is_new).count();
        if self.0.len() + new > limits.permissions_per_allocation_max {
            return Err(Refusal::PermissionsExhausted);
        }
        Ok(())
    }

    /// Each address with the end of its Permission.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, Instant)> {
        self.0.iter().map(|held| (held.ip, held.expires))
    }

    /// Forgets all peers of one family.
    pub(crate) fn forget(&mut self, family: AddressFamily) {
        self.0.retain(|held| AddressFamily::of(held.ip) != family);
    }

    /// Installs or refreshes the Permission of `ip`, for which [`ensure_fit`](Self::ensure_fit)
    /// found room; returns when it ends.
    pub(crate) fn permit(&mut self, now: Instant, ip: IpAddr) -> Instant {
        let expires = now + PERMISSION_LIFETIME;
        self.install(now, ip, expires);
        expires
    }

    /// Installs or refreshes the Permission of `ip` until `expires`; what has expired makes room.
    pub(crate) fn install(&mut self, now: Instant, ip: IpAddr, expires: Instant) {
        self.0.retain(|permission| now < permission.expires);
        match self.0.iter_mut().find(|permission| permission.ip == ip) {
            Some(permission) => permission.expires = expires,
            None => self.0.push(Permission { ip, expires }),
        }
    }
}

/// The Channels of an Allocation, sorted by number (RFC 8656 §12).
#[derive(Debug, Default)]
pub(crate) struct Channels(Vec<Channel>);

#[derive(Debug)]
struct Channel {
    number: u16,
    peer: SocketAddr,
    expires: Instant,
}

impl Channels {
    /// The peer Channel `number` leads to at `now`.
    pub(crate) fn peer(&self, now: Instant, number: u16) -> Option<SocketAddr> {
        let at = self
            .0
            .binary_search_by_key(&number, |channel| channel.number)
            .ok()?;
        let channel = &self.0[at];
        (now < channel.expires).then_some(channel.peer)
    }

    /// The number of the Channel that leads to `peer` at `now`.
    pub(crate) fn number(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        let leads = |channel: &&Channel| channel.peer == peer && now < channel.expires;
        self.0.iter().find(leads).map(|channel| channel.number)
    }

    /// Whether Channel `number` may lead to `peer`: both are free, or bound to each other
    /// (RFC 8656 §12.2). What has expired makes room.
    pub(crate) fn ensure_fits(
        &mut self,
        now: Instant,
        number: u16,
        peer: SocketAddr,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        self.0.retain(|channel| now < channel.expires);
        match (self.peer(now, number), self.number(now, peer)) {
            (Some(bound), _) if bound != peer => Err(Refusal::BadRequest),
            (_, Some(bound)) if bound != number => Err(Refusal::BadRequest),
            (None, None) if self.0.len() >= limits.channels_per_allocation_max => {
                Err(Refusal::ChannelsExhausted)
            }
            _ => Ok(()),
        }
    }

    /// Each number with its peer and its end.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, SocketAddr, Instant)> {
        let each = self.0.iter();
        each.map(|held| (held.number, held.peer, held.expires))
    }

    /// Forgets all Channels to peers of one family.
    pub(crate) fn forget(&mut self, family: AddressFamily) {
        self.0
            .retain(|held| AddressFamily::of(held.peer.ip()) != family);
    }

    /// Binds or refreshes Channel `number`, which [`ensure_fits`](Self::ensure_fits) found free;
    /// returns when it ends.
    pub(crate) fn bind(&mut self, now: Instant, number: u16, peer: SocketAddr) -> Instant {
        let expires = now + CHANNEL_LIFETIME;
        self.install(now, number, peer, expires);
        expires
    }

    /// Binds or refreshes Channel `number` until `expires`; what has expired makes room.
    pub(crate) fn install(
        &mut self,
        now: Instant,
        number: u16,
        peer: SocketAddr,
        expires: Instant,
    ) {
        // What has expired elsewhere may hold for a moment longer here.
        self.0.retain(|channel| {
            now < channel.expires && (channel.number == number) == (channel.peer == peer)
        });
        match self
            .0
            .binary_search_by_key(&number, |channel| channel.number)
        {
            Ok(at) => self.0[at].expires = expires,
            Err(at) => self.0.insert(
                at,
                Channel {
                    number,
                    peer,
                    expires,
                },
            ),
        }
    }
}
