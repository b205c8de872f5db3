//! Secrets in the database, encrypted: a copy of it without the installation's key gives none of them away.
//!
//! In: a secret and where it belongs. Out: bytes that open for that place alone, and the id of the key. Keys come from the secrets of
//! the installation, the newest first: it seals, and all of them open.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use model::AccountId;
use model::phone::rows::{Secret, SecretOf};

/// How many bytes of a hash make the id of a key.
const KEY_ID_LEN: usize = 8;

/// The keys that secrets in the records are encrypted with. Cheap to clone.
#[derive(Clone)]
pub struct SecretKeys {
    keys: Arc<[Key]>,
}

struct Key {
    id: String,
    /// GCM-SIV: a nonce that comes twice gives nothing away but that two secrets are the same.
    aead: LessSafeKey,
}

/// An encrypted secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Which key opens it.
    pub(super) key_id: String,
    /// The nonce, the ciphertext and the tag.
    pub(super) bytes: Vec<u8>,
}

/// Why a secret does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    #[error(
        "it is encrypted with key {0}, which this installation does not have: bring back the `seal` of its secrets.toml as an entry of `seal_before`, or apply the secret anew"
    )]
    UnknownKey(String),
    #[error("it does not open: the database is damaged, or the row was copied from another place")]
    Damaged,
}

impl SecretKeys {
    /// Derives a key from each secret of the installation, 32 random bytes; the first one seals, all of them open.
    pub fn new(seal: [u8; 32], before: &[[u8; 32]]) -> Self {
        let secrets = std::iter::once(&seal).chain(before);
        Self {
            keys: secrets.map(Key::derive).collect(),
        }
    }

    /// The id of the key that seals.
    pub(super) fn newest(&self) -> &str {
        &self.keys[0].id
    }

    /// Encrypts a secret for its place in an Account.
    pub(super) fn seal(&self, account: AccountId, of: &SecretOf, secret: &Secret) -> Sealed {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let key = &self.keys[0];
        let mut text = secret.reveal().as_bytes().to_vec();
        let tag = key
            .aead
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(account, of)),
                &mut text,
            )
            .expect("a secret is far shorter than what one nonce may encrypt");
        Sealed {
            key_id: key.id.clone(),
            bytes: [&nonce[..], &text, tag.as_ref()].concat(),
        }
    }

    /// Decrypts a secret, if it was encrypted for this place.
    pub(super) fn open(
        &self,
        account: AccountId,
        of: &SecretOf,
        sealed: &Sealed,
    ) -> Result<Secret, OpenError> {
        let key = self.keys.iter().find(|key| key.id == sealed.key_id);
        let key = key.ok_or_else(|| OpenError::UnknownKey(sealed.key_id.clone()))?;
        let (nonce, rest) = sealed
            .bytes
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(OpenError::Damaged)?;
        let mut text = rest.to_vec();
        let opened = key
            .aead
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(place(account, of)),
                &mut text,
            )
            .map_err(|_| OpenError::Damaged)?;
        std::str::from_utf8(opened)
            .ok()
            .and_then(|text| Secret::new(text).ok())
            .ok_or(OpenError::Damaged)
    }
}

impl Key {
    fn derive(secret: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = hmac::sign(&root, b"offhook records.secret v1");
        let id = hmac::sign(&root, b"offhook records.secret id v1");
        let unbound = UnboundKey::new(&AES_256_GCM_SIV, key.as_ref())
            .expect("HMAC-SHA-256 gives the 32 bytes of the key");
        let id: String = id.as_ref()[..KEY_ID_LEN]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            id,
            aead: LessSafeKey::new(unbound),
        }
    }
}

/// What a secret is bound to: a ciphertext that is moved to another row or Account opens nowhere.
fn place(account: AccountId, of: &SecretOf) -> Vec<u8> {
    let parts = [
        account.to_string(),
        of.kind.section().to_owned(),
        of.name.clone(),
        of.field.as_str().to_owned(),
    ];
    // No part but the name can hold a line break, and it is followed by one part alone.
    parts.join("\n").into_bytes()
}

/// The ids of the keys, never the keys.
impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| &key.id);
        f.debug_list().entries(ids).finish()
    }
}

#[cfg(test)]
mod tests {
    use model::phone::rows::{Kind, SecretField};

    use super::*;

    const ACCOUNT: AccountId = AccountId::from_u128(1);

    fn of(name: &str) -> SecretOf {
        SecretOf {
            kind: Kind::Trunks,
            name: name.to_owned(),
            field: SecretField::Password,
        }
    }

    #[test]
    fn a_secret_opens_at_its_place_alone() {
        let keys = SecretKeys::new([1; 32], &[]);
        let secret = Secret::new("hush").unwrap();
        let sealed = keys.seal(ACCOUNT, &of("carrier"), &secret);

        assert_eq!(keys.open(ACCOUNT, &of("carrier"), &sealed), Ok(secret));
        assert_eq!(
            keys.open(ACCOUNT, &of("pbx"), &sealed),
            Err(OpenError::Damaged)
        );
        assert_eq!(
            keys.open(AccountId::from_u128(2), &of("carrier"), &sealed),
            Err(OpenError::Damaged)
        );
        let pin = SecretOf {
            field: SecretField::Pin,
            ..of("carrier")
        };
        assert_eq!(keys.open(ACCOUNT, &pin, &sealed), Err(OpenError::Damaged));
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert_eq!(
                keys.open(ACCOUNT, &of("carrier"), &changed),
                Err(OpenError::Damaged)
            );
            changed.bytes.truncate(at);
            assert_eq!(
                keys.open(ACCOUNT, &of("carrier"), &changed),
                Err(OpenError::Damaged)
            );
        }
    }

    #[test]
    fn what_an_older_key_sealed_is_read_and_an_unknown_one_is_told() {
        let secret = Secret::new("hush").unwrap();
        let old = SecretKeys::new([1; 32], &[]);
        let sealed = old.seal(ACCOUNT, &of("carrier"), &secret);

        let rotated = SecretKeys::new([2; 32], &[[1; 32]]);
        assert_ne!(rotated.newest(), old.newest());
        assert_eq!(rotated.open(ACCOUNT, &of("carrier"), &sealed), Ok(secret));

        let stranger = SecretKeys::new([3; 32], &[]);
        assert_eq!(
            stranger.open(ACCOUNT, &of("carrier"), &sealed),
            Err(OpenError::UnknownKey(old.newest().to_owned()))
        );
        assert!(!format!("{rotated:?}").contains("[2, 2"));
    }
}
