//! Allocations that move with their client to another address (RFC 8016), of whatever transport.
//!
//! ```text
//! client at A ── Refresh, ticket, from B ──▶ announced: data goes to A, and is taken from A and B
//!             ── anything else from B ─────▶ arrived: A is a stranger's
//! ```
//!
//! A ticket is sealed by the relay, so that it says nothing and can't be made; it names one
//! Allocation and one stay of it, and is of use to the Allocation's own User alone.

use std::time::{Duration, Instant};

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use relay_stun::Message;

use crate::Refusal;
use crate::authentication::Authenticated;
use crate::path::PathUpdate;
use crate::relay::{FiveTuple, Output, Relay, RelayPort, Transport};
use crate::tcp::is_byte_stream;

/// How long a mobile Allocation outlives the stream of its client, which may be on its way to
/// another network.
pub(crate) const STREAM_GRACE: Duration = Duration::from_secs(60);

/// How long an announced client may take to send something else: its Refresh is sent again for
/// 39.5 s (RFC 8489 §6.2.1), and who hears the answer keeps alive every 15 s (RFC 8445 §11).
/// Afterwards the address may be another client's.
pub(crate) const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

const TAG_LEN: usize = 12;

/// Number (8) and stay (4).
const CLAIM_LEN: usize = 12;

/// The length of a ticket, in bytes: its text in base64, since coturn's client takes a ticket for a
/// C string, and has room for no more than 32.
pub(crate) const TICKET_LEN: usize = (CLAIM_LEN + TAG_LEN) / 3 * 4;

/// Where a client said it will be, and has sent nothing else from yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) five_tuple: FiveTuple,
    /// When it is not expected there any more.
    pub(crate) until: Instant,
}

/// What a ticket names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    /// The Allocation's number, which is never used again.
    number: u64,
    /// How often it had moved when the ticket was made.
    stay: u32,
}

/// Seals tickets and opens them: the claim, hidden, and a tag of it, which is also what hides it
/// (as RFC 5297 §2.6 does). One claim makes one ticket, so nothing needs to be random.
#[derive(Debug)]
pub(crate) struct Tickets {
    tag_key: hmac::Key,
    mask_key: hmac::Key,
}

impl Tickets {
    pub(crate) fn new(secret: &[u8; 16]) -> Tickets {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derive = |purpose: &[u8]| {
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, purpose).as_ref())
        };
        Tickets {
            tag_key: derive(b"tag"),
            mask_key: derive(b"mask"),
        }
    }

    fn seal(&self, claim: Claim) -> [u8; TICKET_LEN] {
        let mut sealed = [0; CLAIM_LEN + TAG_LEN];
        let (hidden, tag) = sealed.split_at_mut(CLAIM_LEN);
        hidden[..8].copy_from_slice(&claim.number.to_be_bytes());
        hidden[8..].copy_from_slice(&claim.stay.to_be_bytes());
        tag.copy_from_slice(&hmac::sign(&self.tag_key, hidden).as_ref()[..TAG_LEN]);
        self.mask(hidden, tag);
        let mut ticket = [0; TICKET_LEN];
        URL_SAFE_NO_PAD
            .encode_slice(sealed, &mut ticket)
            .expect("three bytes make four characters");
        ticket
    }

    fn open(&self, ticket: &[u8]) -> Option<Claim> {
        let ticket: &[u8; TICKET_LEN] = ticket.try_into().ok()?;
        let mut sealed = [0; CLAIM_LEN + TAG_LEN];
        URL_SAFE_NO_PAD.decode_slice(ticket, &mut sealed).ok()?;
        let (claim, tag) = sealed.split_at_mut(CLAIM_LEN);
        self.mask(claim, tag);
        let expected = hmac::sign(&self.tag_key, claim);
        constant_time::verify_slices_are_equal(&expected.as_ref()[..TAG_LEN], tag).ok()?;
        let (number, stay) = claim.split_at(8);
        Some(Claim {
            number: u64::from_be_bytes(number.try_into().ok()?),
            stay: u32::from_be_bytes(stay.try_into().ok()?),
        })
    }

    /// Hides a claim, and shows a hidden one.
    fn mask(&self, claim: &mut [u8], tag: &[u8]) {
        let mask = hmac::sign(&self.mask_key, tag);
        for (byte, mask) in claim.iter_mut().zip(mask.as_ref()) {
            *byte ^= mask;
        }
    }
}

impl Relay {
    /// A ticket for the present stay of an Allocation; `None` where it asked for none.
    pub(crate) fn ticket_of(&self, index: usize) -> Option<[u8; TICKET_LEN]> {
        let held = &self.allocations[index];
        let claim = Claim {
            number: held.number,
            stay: held.stay?,
        };
        Some(self.tickets.seal(claim))
    }

    /// The Allocation a ticket names, if it has not moved since.
    pub(crate) fn index_of_ticket(&self, ticket: &[u8]) -> Option<usize> {
        let claim = self.tickets.open(ticket)?;
        let index = *self.allocation_by_number.get(&claim.number)?;
        let held = &self.allocations[index];
        (held.opening.is_none() && held.stay == Some(claim.stay)).then_some(index)
    }

    /// Whether Allocations may move.
    pub(crate) fn ensure_mobile(&self) -> Result<(), Refusal> {
        match self.config.mobility {
            true => Ok(()),
            false => Err(Refusal::MobilityForbidden),
        }
    }

    /// The Allocation that a Refresh with a ticket is about (RFC 8016 §3.2.2), and whether its client
    /// moves with it.
    pub(crate) fn of_ticket(
        &mut self,
        from: FiveTuple,
        request: &Message<'_>,
        ticket: &[u8],
        authenticated: &Authenticated,
    ) -> Result<(usize, bool), Refusal> {
        self.ensure_mobile()?;
        if self.index_of(&from).is_some() {
            // The answer was lost, and is made again; who has not moved has no use for a ticket.
            let index = self.held_by(from, authenticated)?;
            let held = &self.allocations[index];
            return match held.announced_at() == Some(from)
                || held.moved_by == Some(request.transaction_id())
            {
                true => Ok((index, false)),
                false => Err(Refusal::BadTicket),
            };
        }
        let index = self.index_of_ticket(ticket).ok_or(Refusal::BadTicket)?;
        let held = &self.allocations[index];
        if held.identity.user() != authenticated.identity.user() {
            return Err(Refusal::WrongCredentials);
        }
        if held.tcp && !is_byte_stream(from.transport) {
            return Err(Refusal::BadRequest); // As for its Allocate (RFC 6062 §5.1).
        }
        Ok((index, true))
    }

    /// Notes that the client moves to `from`, as its `request` says.
    pub(crate) fn announce(
        &mut self,
        now: Instant,
        index: usize,
        from: FiveTuple,
        request: &Message<'_>,
    ) {
        let held = &mut self.allocations[index];
        held.stay = held.stay.map(|stay| stay.wrapping_add(1));
        held.moved_by = Some(request.transaction_id());
        self.retract(index);
        let announced = Announced {
            five_tuple: from,
            until: now + ARRIVAL_TIMEOUT,
        };
        self.arrivals.insert((announced.until, index));
        self.allocations[index].announced = Some(announced);
        self.allocation_by_five_tuple.insert(from, index);
        if from.transport == Transport::Udp {
            self.outputs.push_back(Output::Path(PathUpdate::Announce {
                allocation: index,
                five_tuple: from,
            }));
        }
        if self.allocations[index].is_gone {
            self.arrive(index, from);
        }
    }

    /// Gives up the address a client announced and has not come to.
    pub(crate) fn retract(&mut self, index: usize) {
        let Some(Announced { five_tuple, until }) = self.allocations[index].announced.take() else {
            return;
        };
        self.arrivals.remove(&(until, index));
        self.allocation_by_five_tuple.remove(&five_tuple);
        if five_tuple.transport == Transport::Udp {
            self.outputs.push_back(Output::Path(PathUpdate::Retract {
                allocation: index,
                five_tuple,
            }));
        }
    }

    /// Notes that the client has sent something from `from`, and not only a Refresh with a ticket:
    /// up to here, what was for it went to where it was before, and it could send from there too
    /// (RFC 8016 §3.2.2).
    pub(crate) fn arrive(&mut self, index: usize, from: FiveTuple) {
        let held = &mut self.allocations[index];
        let expected = held
            .announced
            .take_if(|announced| announced.five_tuple == from);
        let Some(Announced { until, .. }) = expected else {
            return;
        };
        self.arrivals.remove(&(until, index));
        held.is_gone = false;
        let before = std::mem::replace(&mut held.five_tuple, from);
        if before != from {
            self.forget_five_tuple(index, before);
        }
        self.stats.allocations_moved += 1;

        let held = &self.allocations[index];
        let ports = held.addresses();
        let permitted = held.permissions.iter();
        let permitted = permitted.map(|(ip, expires)| PathUpdate::Permit {
            allocation: index,
            ip,
            expires,
        });
        let bound = held.channels.iter();
        let bound = bound.map(|(number, peer, expires)| PathUpdate::Bind {
            allocation: index,
            number,
            peer,
            expires,
        });
        let held_still: Vec<PathUpdate> = bound.chain(permitted).collect();
        for address in ports {
            let port = RelayPort::new(index, address);
            self.outputs.push_back(Output::MovePort { port, to: from });
        }
        self.tell_path_opened(index);
        for update in held_still {
            self.tell_path(update);
        }
    }

    /// Gives up every move whose client did not come in time: it is where it was, and may announce
    /// itself again.
    pub(crate) fn expire_arrivals(&mut self, now: Instant) {
        while let Some(&(until, index)) = self.arrivals.first()
            && until <= now
        {
            self.retract(index);
        }
    }

    /// Forgets that an Allocation's client is at `five_tuple`, unless another one's is by now.
    pub(crate) fn forget_five_tuple(&mut self, index: usize, five_tuple: FiveTuple) {
        if self.index_of(&five_tuple) == Some(index) {
            self.allocation_by_five_tuple.remove(&five_tuple);
        }
    }

    /// Takes the end of a client's stream.
    pub(crate) fn on_stream_closed(&mut self, now: Instant, five_tuple: FiveTuple) {
        let Some(index) = self.index_of(&five_tuple) else {
            return;
        };
        let held = &self.allocations[index];
        match (held.announced_at(), held.stay) {
            // It never came.
            (Some(announced), _) if announced == five_tuple => self.retract(index),
            // It is gone from where it was, so it is where it said.
            (Some(announced), _) => self.arrive(index, announced),
            (None, None) => self.remove(index),
            (None, Some(_)) => {
                let expires = held.expires.min(now + STREAM_GRACE);
                self.allocations[index].is_gone = true;
                // Whoever gets the address next has nothing to do with it.
                self.forget_five_tuple(index, five_tuple);
                self.set_expiry(index, expires);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_reads_back_and_no_changed_one_does() {
        let tickets = Tickets::new(&[7; 16]);
        let claim = Claim { number: 5, stay: 2 };
        let ticket = tickets.seal(claim);
        assert_eq!(tickets.open(&ticket), Some(claim));
        assert_eq!(Tickets::new(&[8; 16]).open(&ticket), None);
        let next = tickets.seal(Claim { number: 5, stay: 3 });
        let same = ticket.iter().zip(next).filter(|(one, other)| *one == other);
        assert!(same.count() < 8, "one claim says nothing of the next");
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
