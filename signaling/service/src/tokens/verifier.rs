//! Decides whether an access token is right.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backing::records::Records;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use model::{AccountId, ApiKeyId, Timestamp};
use serde::Deserialize;

use super::Claims;

/// How far the clock of whoever made the token may be from ours, in seconds.
const LEEWAY_SECS: u64 = 30;
/// How long a key may be used after it was read: so long after a revocation its tokens are still taken.
const KEY_CACHED: Duration = Duration::from_secs(15);
/// How many keys are kept. Only real ones are, so it takes as many Accounts to fill it.
const KEYS_CACHED_MAX: usize = 10_000;

/// Why an access token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Not three parts of base64url with JSON in them, or claims are missing.
    #[error("the token is not a JWT with the claims iss, sub and exp")]
    Malformed,
    /// Signed in another way than HS256.
    #[error("the token's alg is not HS256")]
    Algorithm,
    /// No such API key, or it was revoked.
    #[error("the token's iss is no API key in force")]
    Key,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// `nbf` is in the future.
    #[error("the token's nbf is in the future")]
    NotYet,
    /// The records can't be asked.
    #[error("the API key can't be looked up at the moment")]
    Unavailable,
}

/// What a right token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The API key that signed it.
    pub(crate) api_key: ApiKeyId,
    /// The Account of the API key.
    pub(crate) account: AccountId,
    pub(crate) claims: Claims,
    /// Whether `exp` has passed.
    pub(crate) expired: bool,
}

/// Verifies tokens; keeps the keys it has seen for a moment.
pub(crate) struct Verifier {
    records: Records,
    cache: Mutex<HashMap<ApiKeyId, Cached>>,
}

#[derive(Clone)]
struct Cached {
    account: AccountId,
    key: Arc<DecodingKey>,
    read_at: Instant,
}

impl Verifier {
    pub(crate) fn new(records: Records) -> Self {
        Self {
            records,
            cache: Mutex::default(),
        }
    }

    pub(crate) async fn verify(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Verified, TokenRefusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
            // An algorithm the library has not heard of, such as `none`.
            jsonwebtoken::errors::ErrorKind::Json(_) => TokenRefusal::Algorithm,
            _ => TokenRefusal::Malformed,
        })?;
        if header.alg != Algorithm::HS256 {
            return Err(TokenRefusal::Algorithm);
        }

        let api_key = issuer(token)?;
        let key = self.key(api_key).await?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &validation())
            .map_err(|error| refusal(&error))?
            .claims;

        let now_secs = now.as_millis() / 1_000;
        if claims.nbf.is_some_and(|nbf| nbf > now_secs + LEEWAY_SECS) {
            return Err(TokenRefusal::NotYet);
        }

        Ok(Verified {
            api_key,
            account: key.account,
            expired: claims.exp.saturating_add(LEEWAY_SECS) <= now_secs,
            claims,
        })
    }

    /// Reads a key anew when it is next named.
    pub(super) fn forget(&self, id: ApiKeyId) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.remove(&id);
    }

    async fn key(&self, id: ApiKeyId) -> Result<Cached, TokenRefusal> {
        if let Some(cached) = self.cached(id) {
            return Ok(cached);
        }

        let key = self.records.api_key(id).await.map_err(|error| {
            tracing::error!(%error, api_key = %id, "API key can't be looked up");
            TokenRefusal::Unavailable
        })?;
        let key = key
            .filter(|key| key.revoked_at.is_none())
            .ok_or(TokenRefusal::Key)?;

        let cached = Cached {
            account: key.account,
            key: Arc::new(DecodingKey::from_secret(key.secret.as_bytes())),
            read_at: Instant::now(),
        };
        self.keep(id, cached.clone());
        Ok(cached)
    }

    fn cached(&self, id: ApiKeyId) -> Option<Cached> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);

        cache
            .get(&id)
            .filter(|cached| cached.read_at.elapsed() < KEY_CACHED)
            .cloned()
    }

    fn keep(&self, id: ApiKeyId, cached: Cached) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);

        if cache.len() >= KEYS_CACHED_MAX {
            cache.retain(|_, cached| cached.read_at.elapsed() < KEY_CACHED);
        }
        if cache.len() < KEYS_CACHED_MAX {
            cache.insert(id, cached);
        }
    }
}

/// Whose key is claimed to have signed; nothing else is believed before the signature is.
fn issuer(token: &str) -> Result<ApiKeyId, TokenRefusal> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }

    let issued = jsonwebtoken::dangerous::insecure_decode::<Issued>(token)
        .map_err(|_| TokenRefusal::Malformed)?;
    issued.claims.iss.parse().map_err(|_| TokenRefusal::Key)
}

/// The signature only: time is judged by our own clock, and an expired token may still resume.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn refusal(error: &jsonwebtoken::errors::Error) -> TokenRefusal {
    match error.kind() {
        jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenRefusal::Signature,
        jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => TokenRefusal::Algorithm,
        _ => TokenRefusal::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use backing::records::ApiKey;
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header};
    use model::{Grants, RoomGrants};
    use serde_json::{Value, json};

    use super::*;
    use crate::tokens::mint;

    const NOW_SECS: u64 = 1_790_000_000;

    #[tokio::test]
    async fn a_minted_token_is_right_until_it_expires() {
        let t = Keys::new().await;
        let token = t.mint(None, NOW_SECS + 60);

        let verified = t.verify(&token).await.unwrap();
        assert_eq!(verified.account, t.key.account);
        assert_eq!(verified.claims.sub.as_str(), "alice");
        assert!(!verified.expired);

        assert!(
            !t.verify(&t.mint(None, NOW_SECS - 10))
                .await
                .unwrap()
                .expired
        );
        assert!(
            t.verify(&t.mint(None, NOW_SECS - 60))
                .await
                .unwrap()
                .expired
        );
    }

    #[tokio::test]
    async fn what_is_wrong_is_told() {
        let t = Keys::new().await;
        let good = json!({"iss": t.key.id.to_string(), "sub": "alice", "exp": NOW_SECS + 60});
        let without = |claim: &str| {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(claim);
            claims
        };
        let secret = t.key.secret.as_str();

        let cases = [
            (String::new(), TokenRefusal::Malformed),
            ("a.b".into(), TokenRefusal::Malformed),
            ("a.b.c.d".into(), TokenRefusal::Malformed),
            (
                t.mint(Some(NOW_SECS + 60), NOW_SECS + 120),
                TokenRefusal::NotYet,
            ),
            (
                sign(Algorithm::HS256, &good, "guessed"),
                TokenRefusal::Signature,
            ),
            (
                sign(Algorithm::HS512, &good, secret),
                TokenRefusal::Algorithm,
            ),
            (unsigned(&good), TokenRefusal::Algorithm),
            (
                sign(Algorithm::HS256, &without("iss"), secret),
                TokenRefusal::Malformed,
            ),
            (
                sign(Algorithm::HS256, &without("sub"), secret),
                TokenRefusal::Malformed,
            ),
            (
                sign(Algorithm::HS256, &without("exp"), secret),
                TokenRefusal::Malformed,
            ),
            (
                sign(
                    Algorithm::HS256,
                    &json!({"iss": "me", "sub": "a", "exp": 1}),
                    secret,
                ),
                TokenRefusal::Key,
            ),
            (
                sign(
                    Algorithm::HS256,
                    &json!({"iss": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "sub": "a", "exp": 1}),
                    secret,
                ),
                TokenRefusal::Key,
            ),
        ];
        for (token, refusal) in cases {
            assert_eq!(t.verify(&token).await, Err(refusal), "{token}");
        }
    }

    #[tokio::test]
    async fn claims_of_others_change_nothing() {
        let t = Keys::new().await;
        let claims = json!({
            "iss": t.key.id.to_string(), "sub": "alice", "exp": NOW_SECS + 60, "name": "Alice", "jti": "1", "iat": NOW_SECS,
            "video": {"room": "daily", "roomJoin": true}, "metadata": "{}", "attributes": {"team": "a"},
            "call": {"dial": false, "record": true},
        });

        let token = sign(Algorithm::HS256, &claims, &t.key.secret);
        let verified = t.verify(&token).await.unwrap().claims;
        assert_eq!(verified.name.as_deref(), Some("Alice"));
        let grants = Grants {
            dial: false,
            ..Grants::default()
        };
        assert_eq!(verified.call, grants);
    }

    #[tokio::test]
    async fn a_token_changed_after_signing_is_refused() {
        let t = Keys::new().await;
        let token = t.mint(None, NOW_SECS + 60);
        let (head, signature) = token.rsplit_once('.').unwrap();
        let claims = json!({"iss": t.key.id.to_string(), "sub": "mallory", "exp": NOW_SECS + 60});
        let header = head.split_once('.').unwrap().0;

        let forged = format!("{header}.{}.{signature}", encoded(&claims));
        assert_eq!(t.verify(&forged).await, Err(TokenRefusal::Signature));
    }

    #[tokio::test]
    async fn another_accounts_key_signs_for_its_own_account_only() {
        let t = Keys::new().await;
        let other = t.records.create_account("Other").await.unwrap();
        let key = t.records.create_api_key(other.account).await.unwrap();

        let theirs = mint(key.id, &key.secret, &claims(None, NOW_SECS + 60)).unwrap();
        assert_eq!(t.verify(&theirs).await.unwrap().account, other.account);

        let crossed = mint(t.key.id, &key.secret, &claims(None, NOW_SECS + 60)).unwrap();
        assert_eq!(t.verify(&crossed).await, Err(TokenRefusal::Signature));
    }

    #[tokio::test]
    async fn a_revoked_key_signs_nothing() {
        let t = Keys::new().await;
        t.records.revoke_api_key(t.key.id).await.unwrap();

        let token = t.mint(None, NOW_SECS + 60);
        assert_eq!(t.verify(&token).await, Err(TokenRefusal::Key));
    }

    struct Keys {
        records: Records,
        verifier: Verifier,
        key: ApiKey,
        _directory: tempfile::TempDir,
    }

    impl Keys {
        async fn new() -> Self {
            let directory = tempfile::TempDir::new().unwrap();
            let records = Records::open(&directory.path().join("records.db"))
                .await
                .unwrap();
            let account = records.create_account("Test").await.unwrap();
            let key = records.create_api_key(account.account).await.unwrap();

            Self {
                verifier: Verifier::new(records.clone()),
                records,
                key,
                _directory: directory,
            }
        }

        fn mint(&self, nbf: Option<u64>, exp: u64) -> String {
            mint(self.key.id, &self.key.secret, &claims(nbf, exp)).unwrap()
        }

        async fn verify(&self, token: &str) -> Result<Verified, TokenRefusal> {
            let now = Timestamp::from_millis(NOW_SECS * 1_000);
            self.verifier.verify(token, now).await
        }
    }

    fn claims(nbf: Option<u64>, exp: u64) -> Claims {
        Claims {
            sub: "alice".parse().unwrap(),
            nbf,
            exp,
            name: None,
            call: Grants::default(),
            room: RoomGrants::default(),
        }
    }

    fn sign(algorithm: Algorithm, claims: &Value, secret: &str) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn unsigned(claims: &Value) -> String {
        format!("{}.{}.", encoded(&json!({"alg": "none"})), encoded(claims))
    }

    fn encoded(value: &Value) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
    }
}
