//! Who sent a request (RFC 8489 §9.2), and whether a stranger gets an answer.

use std::time::Instant;

use relay_stun::{
    AttributeType, IntegrityKey, IntegrityKind, Message, PasswordAlgorithm, SecurityFeatures,
    userhash,
};

use crate::Refusal;
use crate::credentials::Identity;
use crate::relay::{FiveTuple, Relay};

/// A user whose message is authentic.
pub(crate) struct Authenticated {
    pub(crate) identity: Identity,
    pub(crate) algorithm: PasswordAlgorithm,
    pub(crate) key: IntegrityKey,
    pub(crate) integrity: IntegrityKind,
}

impl Relay {
    /// Whether who has not authenticated gets an answer: over UDP, where an address can be forged,
    /// each network within its bound; on a stream, and where an Allocation lives, always.
    pub(crate) fn ensure_answer_due(
        &mut self,
        now: Instant,
        from: FiveTuple,
    ) -> Result<(), Refusal> {
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
    pub(crate) fn authenticate(
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
        let ticket = request.attribute(AttributeType::MOBILITY_TICKET);
        let moving = || ticket.and_then(|ticket| self.index_of_ticket(ticket));
        let binding = || self.index_of_connection(request);
        let held = self.index_of(&from).or_else(moving).or_else(binding);
        let held = held.map(|index| &self.allocations[index]);
        let held = held.filter(|held| {
            // The key of a token is not made from a password.
            (held.algorithm == algorithm || held.identity.until().is_some())
                && name.is(&held.identity.username, &self.config.realm)
        });
        let by_token = self.authenticate_token(now, request, name.plain());
        let authenticated = match (by_token, held) {
            (Some(by_token), _) => by_token?,
            // A client that allocated with this name is known, even after the name has expired: a
            // call is not cut because it lasts.
            (None, Some(held)) if request.verify_integrity(&held.key) => Authenticated {
                identity: held.identity.clone(),
                algorithm,
                key: held.key.clone(),
                integrity,
            },
            (None, Some(_)) => return Err(Refusal::WrongIntegrity),
            (None, None) => {
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

    fn plain(&self) -> Option<&'m str> {
        match self {
            Name::Plain(name) => Some(name),
            Name::Hash(_) => None,
        }
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
