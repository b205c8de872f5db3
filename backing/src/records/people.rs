//! Accounts and their API keys.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use model::{AccountId, ApiKeyId, Timestamp};

/// How many random bytes a secret has: as many as HMAC-SHA256 can use (RFC 7518 §3.2).
const SECRET_LEN: usize = 32;

/// One organisation on this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub account: AccountId,
    /// For people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What an Account's backend signs access tokens with.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id, which may be known.
    pub id: ApiKeyId,
    /// Whose it is.
    pub account: AccountId,
    /// The secret, base64url; the bytes of this text are the HMAC key.
    pub secret: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on its tokens are refused.
    pub revoked_at: Option<Timestamp>,
}

impl ApiKey {
    pub(crate) fn generate(account: AccountId, now: Timestamp) -> Self {
        let secret: [u8; SECRET_LEN] = rand::random();

        Self {
            id: ApiKeyId::from_parts(now, rand::random()),
            account,
            secret: BASE64_URL_SAFE_NO_PAD.encode(secret),
            created_at: now,
            revoked_at: None,
        }
    }
}

/// Without the secret: keys find their way into logs by their `Debug`.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("id", &self.id)
            .field("account", &self.account)
            .field("created_at", &self.created_at)
            .field("revoked_at", &self.revoked_at)
            .finish_non_exhaustive()
    }
}
