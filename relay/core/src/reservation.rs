//! Ports kept for the next Allocation of the same User (RFC 8656 §7.2, EVEN-PORT with its R bit).

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a port is kept (RFC 8656 §7.2: at least 30 s).
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// What a port is kept under.
pub(crate) type Token = [u8; 8];

/// A port nobody has been granted yet.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) address: SocketAddr,
    /// `account:user`; a token is of no use to anybody else.
    pub(crate) user: Box<str>,
}

/// All ports that are kept. Each counts in its User's quota, which bounds them.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    by_token: HashMap<Token, Reservation>,
    addresses: HashSet<SocketAddr>,
    /// Every token made, oldest first; some are gone already.
    order: VecDeque<(Instant, Token)>,
}

impl Reservations {
    pub(crate) fn len(&self) -> usize {
        self.by_token.len()
    }

    pub(crate) fn holds(&self, address: &SocketAddr) -> bool {
        self.addresses.contains(address)
    }

    pub(crate) fn keep(&mut self, now: Instant, token: Token, reservation: Reservation) {
        self.addresses.insert(reservation.address);
        self.by_token.insert(token, reservation);
        self.order.push_back((now + RESERVATION_LIFETIME, token));
    }

    pub(crate) fn get(&self, token: &Token) -> Option<&Reservation> {
        self.by_token.get(token)
    }

    /// Gives up what is kept under `token`.
    pub(crate) fn take(&mut self, token: &Token) -> Option<Reservation> {
        let reservation = self.by_token.remove(token)?;
        self.addresses.remove(&reservation.address);
        Some(reservation)
    }

    /// The next one whose time is over at `now`.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Reservation> {
        while let Some((expires, token)) = self.order.front().copied()
            && expires <= now
        {
            self.order.pop_front();
            if let Some(reservation) = self.take(&token) {
                return Some(reservation);
            }
        }
        None
    }
}
