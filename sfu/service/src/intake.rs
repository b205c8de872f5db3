//! What an offer is answered with, without a Room and without a network: for tests and fuzzing of everything that reads an SDP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use model::media::MediaRefusal;
use str0m::net::Protocol;

use crate::peer::{Identity, Peer};
use crate::sdp::Offer;

/// What came of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intake {
    /// The answer.
    Answered(String),
    /// It is refused; what was agreed on before goes on.
    Refused(MediaRefusal),
    /// The library has panicked: a fault, though it would end one Participant alone.
    Panicked,
}

/// One client, who makes one offer after the other.
pub struct Negotiation {
    identity: Identity,
    peer: Option<Peer>,
}

impl Negotiation {
    /// A client who has said nothing yet.
    ///
    /// # Errors
    ///
    /// No certificate can be made.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            identity: Identity::new()?,
            peer: None,
        })
    }

    /// Answers an offer as a shard does; nothing that it says is not permitted. After a panic it begins anew.
    pub fn offer(&mut self, now: Instant, sdp: &str) -> Intake {
        let offer = match Offer::read(sdp) {
            Ok(offer) => offer,
            Err(refusal) => return Intake::Refused(refusal),
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000));
        let peer = match self.peer.take() {
            Some(peer) => Ok(peer),
            None => Peer::new(
                now,
                &self.identity,
                &[(Protocol::Udp, address)],
                &offer,
                false,
            ),
        };
        let Ok(mut peer) = peer else {
            return Intake::Panicked;
        };
        let agreed = peer.accept(&offer, |_| false);
        match agreed {
            Ok(agreed) => {
                self.peer = Some(peer);
                Intake::Answered(agreed.answer)
            }
            Err(Ok(refusal)) => {
                self.peer = Some(peer);
                Intake::Refused(refusal)
            }
            Err(Err(_)) => Intake::Panicked,
        }
    }

    /// Forgets what was agreed on: another client comes.
    pub fn begin_anew(&mut self) {
        self.peer = None;
    }
}
