//! Responses: challenges, refusals and successes, written into the output queue.

use std::net::SocketAddr;
use std::time::Instant;

use rand::RngExt;
use relay_stun::{
    AttributeType, Class, ErrorCode, IntegrityKey, IntegrityKind, Message, MessageWriter, Method,
    PasswordAlgorithm, SecurityFeatures, TransactionId,
};

use crate::authentication::Authenticated;
use crate::relay::{FiveTuple, Output, Relay};
use crate::requests::seconds_of;
use crate::{NONCE_LIFETIME, Refusal};

/// The longest response we write, in bytes: a datagram of 1,500 with its headers. Only PADDING
/// makes one so long.
pub(crate) const RESPONSE_LEN_MAX: usize = 1472;

/// What a response takes over from its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) id: TransactionId,
    pub(crate) method: Method,
    /// Whether the client uses FINGERPRINT, so that the answer carries one too.
    pub(crate) fingerprint: bool,
}

impl Relay {
    /// Refuses a request whose sender is not known: no integrity, as small as it can be, and for
    /// 401 and 438 with what the client needs to try again (RFC 8489 §9.2.4).
    pub(crate) fn send_challenge(
        &mut self,
        now: Instant,
        to: FiveTuple,
        request: &Message<'_>,
        refusal: Refusal,
    ) {
        let Some(code) = refusal.code() else {
            return;
        };
        let features = SecurityFeatures {
            password_algorithms: true,
            username_anonymity: self.credentials.resolves_every_hash(),
        };
        let expiry = self.seconds(now).saturating_add(seconds_of(NONCE_LIFETIME));
        let nonce = self.nonces.issue(features, expiry, to.client);
        let realm = self.config.realm.clone();
        let third_party = self.credentials.third_party();
        let server_name = third_party.map(|held| held.server_name().to_owned());
        let challenge = code != ErrorCode::BAD_REQUEST;
        self.send(to, request, Class::Error, None, |mut writer| {
            writer = writer.bare_error_code(code);
            if challenge {
                writer = writer
                    .attribute(AttributeType::REALM, realm.as_bytes())
                    .attribute(AttributeType::NONCE, &nonce)
                    .attribute(AttributeType::PASSWORD_ALGORITHMS, &PasswordAlgorithm::BOTH);
                if let Some(name) = server_name {
                    let attribute = AttributeType::THIRD_PARTY_AUTHORIZATION;
                    writer = writer.attribute(attribute, name.as_bytes());
                }
            }
            writer
        });
    }

    pub(crate) fn send_refusal(
        &mut self,
        to: FiveTuple,
        request: &Message<'_>,
        refusal: Refusal,
        protection: Option<(IntegrityKind, &IntegrityKey)>,
    ) {
        let Some(code) = refusal.code() else {
            return;
        };
        let alternate = match code {
            ErrorCode::TRY_ALTERNATE => self.alternate_for(to),
            _ => None,
        };
        let domain = self.config.alternates.domain.clone();
        let unknown = self.not_understood(request);
        self.send(to, request, Class::Error, protection, |mut writer| {
            writer = writer.error_code(code);
            if let Some(alternate) = alternate {
                writer = writer.address(AttributeType::ALTERNATE_SERVER, alternate);
                if let Some(domain) = domain {
                    writer = writer.attribute(AttributeType::ALTERNATE_DOMAIN, domain.as_bytes());
                }
            }
            if code == ErrorCode::UNKNOWN_ATTRIBUTE {
                writer = writer.unknown_attributes(unknown);
            }
            writer
        });
    }

    /// One of the servers a client may be sent to, in its own family, each as likely as another
    /// (RFC 8489 §10).
    fn alternate_for(&mut self, client: FiveTuple) -> Option<SocketAddr> {
        let servers = &self.config.alternates.servers;
        let fits = |server: &&SocketAddr| server.is_ipv4() == client.client.is_ipv4();
        let count = servers.iter().filter(fits).count();
        let chosen = self.rng.random_range(0..count.max(1));
        servers.iter().filter(fits).nth(chosen).copied()
    }

    pub(crate) fn send_success(
        &mut self,
        to: FiveTuple,
        request: &Message<'_>,
        authenticated: &Authenticated,
        build: impl FnOnce(MessageWriter<'_>) -> MessageWriter<'_>,
    ) {
        let protection = Some((authenticated.integrity, &authenticated.key));
        self.send(to, request, Class::Success, protection, build);
    }

    pub(crate) fn send(
        &mut self,
        to: FiveTuple,
        request: &Message<'_>,
        class: Class,
        protection: Option<(IntegrityKind, &IntegrityKey)>,
        build: impl FnOnce(MessageWriter<'_>) -> MessageWriter<'_>,
    ) {
        let head = Head {
            id: request.transaction_id(),
            method: request.method(),
            fingerprint: has_fingerprint(request),
        };
        self.write(to, head, class, protection, build);
    }

    pub(crate) fn write(
        &mut self,
        to: FiveTuple,
        head: Head,
        class: Class,
        protection: Option<(IntegrityKind, &IntegrityKey)>,
        build: impl FnOnce(MessageWriter<'_>) -> MessageWriter<'_>,
    ) {
        let mut buffer = [0; RESPONSE_LEN_MAX];
        let mut writer = build(MessageWriter::new(&mut buffer, class, head.method, head.id));
        if let Some((integrity, key)) = protection {
            writer = writer.integrity(integrity, key);
        }
        if head.fingerprint {
            writer = writer.fingerprint();
        }
        // Only a realm of a kilobyte would not fit; the service refuses one at start.
        if let Ok(bytes) = writer.finish() {
            self.outputs.push_back(Output::Send {
                to,
                bytes: bytes.to_vec(),
            });
        }
    }
}

pub(crate) fn has_fingerprint(request: &Message<'_>) -> bool {
    request.verify_fingerprint().is_some()
}
