//! Ports kept for the next Allocation of the same User (RFC 8656 §7.2, EVEN-PORT with its R bit).

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a port is kept (RFC 8656 §7.2: at least 30 s).
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// How many tokens that are gone may stay in the order of time beside as many as live.
const ORDER_SLACK: usize = 64;

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
    /// The tokens that were made, oldest first; some are gone already, never more than about half.
    order: VecDeque<(Instant, Token)>,
}

impl Reservations {
    pub(crate) fn len(&self) -> usize {
        self.by_token.len()
    }

    pub(crate) fn holds(&self, address: &SocketAddr) -> bool {
        self.addresses.contains(address)
    }

    /// Whether a port at `ip` is kept.
    pub(crate) fn is_at(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.ip() == ip)
    }

    pub(crate) fn keep(&mut self, now: Instant, token: Token, reservation: Reservation) {
        self.addresses.insert(reservation.address);
        self.by_token.insert(token, reservation);
        self.order.push_back((now + RESERVATION_LIFETIME, token));
        if self.order.len() > 2 * self.by_token.len() + ORDER_SLACK {
            self.order
                .retain(|(_, token)| self.by_token.contains_key(token));
        }
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

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the one real instant simulated time is counted from"
)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_leaves_nothing_behind() {
        let mut reservations = Reservations::default();
        let now = Instant::now();
        let address = SocketAddr::from(([192, 0, 2, 1], 50_001));
        let keep = |reservations: &mut Reservations, number: u64| {
            let user = "acme:alice".into();
            let token = number.to_be_bytes();
            reservations.keep(now, token, Reservation { address, user });
            token
        };
        for number in 0..10_000 {
            let token = keep(&mut reservations, number);
            assert!(reservations.take(&token).is_some());
        }
        assert!(reservations.order.len() <= ORDER_SLACK + 2);

        keep(&mut reservations, 10_000);
        assert!(reservations.take_expired(now).is_none());
        let expired = reservations.take_expired(now + RESERVATION_LIFETIME);
        assert_eq!(expired.map(|kept| kept.address), Some(address));
        assert_eq!(reservations.len(), 0);
    }
}
