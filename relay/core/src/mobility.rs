//! Allocations that move with their client to another address (RFC 8016).
//!
//! A ticket is sealed by the relay, so that it says nothing and can't be made; it names one
//! Allocation and one stay of it, and is of use to the Allocation's own User alone.

use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::Refusal;
use crate::authentication::Authenticated;
use crate::relay::{FiveTuple, Relay};

/// How long a mobile Allocation outlives the stream of its client, which may be on its way to
/// another network.
pub(crate) const STREAM_GRACE: Duration = Duration::from_secs(60);

const TAG_LEN: usize = 16;

/// Number (8) and stay (4).
const PLAIN_LEN: usize = 12;

/// The length of a ticket, in bytes.
pub(crate) const TICKET_LEN: usize = NONCE_LEN + PLAIN_LEN + TAG_LEN;

/// What a ticket names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    /// The Allocation's number, which is never used again.
    number: u64,
    /// How often it had moved when the ticket was made.
    stay: u32,
}

/// Seals tickets and opens them.
#[derive(Debug)]
pub(crate) struct Tickets {
    key: LessSafeKey,
}

impl Tickets {
    pub(crate) fn new(secret: &[u8; 16]) -> Tickets {
        let key = UnboundKey::new(&AES_128_GCM, secret).expect("the key has 16 bytes");
        Tickets {
            key: LessSafeKey::new(key),
        }
    }

    /// `nonce` must be random: one key makes few tickets, so 96 bits never meet again.
    fn seal(&self, nonce: [u8; NONCE_LEN], claim: Claim) -> [u8; TICKET_LEN] {
        let mut ticket = [0; TICKET_LEN];
        let (head, rest) = ticket.split_at_mut(NONCE_LEN);
        let (plain, tag_room) = rest.split_at_mut(PLAIN_LEN);
        head.copy_from_slice(&nonce);
        plain[..8].copy_from_slice(&claim.number.to_be_bytes());
        plain[8..].copy_from_slice(&claim.stay.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), plain)
            .expect("a ticket is far below the cipher's limit");
        tag_room.copy_from_slice(tag.as_ref());
        ticket
    }

    fn open(&self, ticket: &[u8]) -> Option<Claim> {
        let mut ticket: [u8; TICKET_LEN] = ticket.try_into().ok()?;
        let (nonce, sealed) = ticket.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::empty(), sealed).ok()?;
        let (number, stay) = plain.split_at(8);
        Some(Claim {
            number: u64::from_be_bytes(number.try_into().ok()?),
            stay: u32::from_be_bytes(stay.try_into().ok()?),
        })
    }
}

impl Relay {
    /// A ticket for the present stay of an Allocation; `None` where it asked for none.
    pub(crate) fn ticket_of(&mut self, index: usize) -> Option<[u8; TICKET_LEN]> {
        let held = &self.allocations[index];
        let claim = Claim {
            number: held.number,
            stay: held.stay?,
        };
        let mut nonce = [0; NONCE_LEN];
        rand::Rng::fill_bytes(&mut self.rng, &mut nonce);
        Some(self.tickets.seal(nonce, claim))
    }

    /// The Allocation a ticket names, if it has not moved since.
    pub(crate) fn index_of_ticket(&self, ticket: &[u8]) -> Option<usize> {
        let claim = self.tickets.open(ticket)?;
        let index = *self.allocation_by_number.get(&claim.number)?;
        let held = &self.allocations[index];
        (held.opening.is_none() && held.stay == Some(claim.stay)).then_some(index)
    }

    /// Whether Allocations of this client, or to this address, may move.
    pub(crate) fn ensure_mobile(&self, client: FiveTuple) -> Result<(), Refusal> {
        match self.config.mobility && client.transport.is_stream() {
            true => Ok(()),
            false => Err(Refusal::MobilityForbidden),
        }
    }

    /// Moves the Allocation a ticket names to the client's new address (RFC 8016 §3.2).
    pub(crate) fn on_move(
        &mut self,
        from: FiveTuple,
        ticket: &[u8],
        authenticated: &Authenticated,
    ) -> Result<usize, Refusal> {
        self.ensure_mobile(from)?;
        let index = self.index_of_ticket(ticket).ok_or(Refusal::BadTicket)?;
        let held = &mut self.allocations[index];
        if held.identity.user() != authenticated.identity.user() {
            return Err(Refusal::WrongCredentials);
        }
        let before = std::mem::replace(&mut held.five_tuple, from);
        held.stay = held.stay.map(|stay| stay.wrapping_add(1));
        self.allocation_by_five_tuple.remove(&before);
        self.allocation_by_five_tuple.insert(from, index);
        self.stats.allocations_moved += 1;
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_reads_back_and_no_changed_one_does() {
        let tickets = Tickets::new(&[7; 16]);
        let claim = Claim { number: 5, stay: 2 };
        let ticket = tickets.seal([9; NONCE_LEN], claim);
        assert_eq!(tickets.open(&ticket), Some(claim));
        assert_eq!(Tickets::new(&[8; 16]).open(&ticket), None);
        for bit in 0..TICKET_LEN * 8 {
            let mut changed = ticket;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tickets.open(&changed), None, "bit {bit}");
        }
        for len in 0..TICKET_LEN {
            assert_eq!(tickets.open(&ticket[..len]), None, "{len} bytes");
        }
    }
}
