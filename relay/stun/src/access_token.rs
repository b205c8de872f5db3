//! Tokens of a third party (RFC 7635 §6.2): sealed by whoever grants access, opened by the server.
//!
//! ```text
//!  nonce length (2) │ nonce (12) │ sealed: key length (2) │ MAC key │ timestamp (8) │ lifetime (4) │ tag (16)
//! ```
//!
//! The server's name is sealed along, so a token is of no use to another server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::attribute::u16_at;

/// The shortest MAC key, in bytes: that of HMAC-SHA1.
const MAC_KEY_LEN_MIN: usize = 20;

/// The longest MAC key, in bytes: that of HMAC-SHA512.
const MAC_KEY_LEN_MAX: usize = 64;

const LEN_LEN: usize = 2;
const TIMESTAMP_LEN: usize = 8;
const LIFETIME_LEN: usize = 4;
const TAG_LEN: usize = 16;
const PLAIN_LEN_MAX: usize = LEN_LEN + MAC_KEY_LEN_MAX + TIMESTAMP_LEN + LIFETIME_LEN;

/// The longest token, in bytes.
pub const ACCESS_TOKEN_LEN_MAX: usize = LEN_LEN + NONCE_LEN + PLAIN_LEN_MAX + TAG_LEN;

/// How tokens are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// AES-128-GCM, with a key of 16 bytes.
    A128Gcm,
    /// AES-256-GCM, with a key of 32 bytes.
    A256Gcm,
}

impl TokenAlgorithm {
    /// The length of its key, in bytes.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            TokenAlgorithm::A128Gcm => 16,
            TokenAlgorithm::A256Gcm => 32,
        }
    }
}

/// Why a token is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token is as short or as long.
    #[error("a token of {got} bytes")]
    WrongLength {
        /// Its length.
        got: usize,
    },
    /// The nonce is not as long as the algorithm's.
    #[error("a nonce of {got} bytes")]
    WrongNonceLength {
        /// Its length.
        got: usize,
    },
    /// It was sealed with another key, for another server, or changed since.
    #[error("the token does not open")]
    Forged,
    /// What was sealed is no token.
    #[error("the token opens and holds something else")]
    Malformed,
}

/// What a token grants.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The key of MESSAGE-INTEGRITY, 20 to 64 bytes. Never printed.
    pub mac_key: Box<[u8]>,
    /// When it was made: seconds since 1970 in the upper 48 bits, 1/64000 seconds in the lower 16.
    pub timestamp: u64,
    /// For how many seconds from then on it counts.
    pub lifetime: u32,
}

impl AccessToken {
    /// Reads what was sealed.
    ///
    /// # Errors
    ///
    /// [`TokenError::Malformed`].
    pub fn parse(plain: &[u8]) -> Result<AccessToken, TokenError> {
        let key_len = u16_at(plain, 0).map(usize::from);
        let key_len = key_len.filter(|len| (MAC_KEY_LEN_MIN..=MAC_KEY_LEN_MAX).contains(len));
        let (mac_key, rest) = key_len
            .and_then(|len| plain[LEN_LEN..].split_at_checked(len))
            .ok_or(TokenError::Malformed)?;
        let (timestamp, lifetime) = rest
            .split_first_chunk::<TIMESTAMP_LEN>()
            .ok_or(TokenError::Malformed)?;
        let lifetime = lifetime.try_into().map_err(|_| TokenError::Malformed)?;
        Ok(AccessToken {
            mac_key: mac_key.into(),
            timestamp: u64::from_be_bytes(*timestamp),
            lifetime: u32::from_be_bytes(lifetime),
        })
    }

    /// What is to be sealed; `None` where the key is too short or too long.
    #[must_use]
    pub fn plain(&self) -> Option<Vec<u8>> {
        let key_len = self.mac_key.len();
        if !(MAC_KEY_LEN_MIN..=MAC_KEY_LEN_MAX).contains(&key_len) {
            return None;
        }
        let mut plain = u16::try_from(key_len).ok()?.to_be_bytes().to_vec();
        plain.extend_from_slice(&self.mac_key);
        plain.extend_from_slice(&self.timestamp.to_be_bytes());
        plain.extend_from_slice(&self.lifetime.to_be_bytes());
        Some(plain)
    }

    /// When it was made, since 1970.
    #[must_use]
    pub fn issued(&self) -> Duration {
        /// One part in 64,000 of a second.
        const FRACTION: Duration = Duration::from_nanos(1_000_000_000 / 64_000);
        let fraction = FRACTION * (self.timestamp & 0xFFFF) as u32;
        Duration::from_secs(self.timestamp >> 16) + fraction
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("timestamp", &self.timestamp)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// A key that a server shares with whoever grants access to it. Its bytes are never printed.
#[derive(Debug, Clone)]
pub struct TokenKey(Arc<LessSafeKey>);

impl TokenKey {
    /// The key of these bytes; `None` where they are not as many as `algorithm` takes.
    #[must_use]
    pub fn new(algorithm: TokenAlgorithm, bytes: &[u8]) -> Option<TokenKey> {
        let cipher = match algorithm {
            TokenAlgorithm::A128Gcm => &AES_128_GCM,
            TokenAlgorithm::A256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(cipher, bytes).ok()?;
        Some(TokenKey(Arc::new(LessSafeKey::new(key))))
    }

    /// Opens the value of an ACCESS-TOKEN attribute that was sealed for the server of this name.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub fn open(&self, server_name: &str, token: &[u8]) -> Result<AccessToken, TokenError> {
        let wrong_len = TokenError::WrongLength { got: token.len() };
        let nonce_len = usize::from(u16_at(token, 0).ok_or(wrong_len)?);
        if nonce_len != NONCE_LEN {
            return Err(TokenError::WrongNonceLength { got: nonce_len });
        }
        let (nonce, sealed) = token[LEN_LEN..]
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(wrong_len)?;
        let mut buffer = [0; PLAIN_LEN_MAX + TAG_LEN];
        let buffer = buffer.get_mut(..sealed.len()).ok_or(wrong_len)?;
        buffer.copy_from_slice(sealed);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(server_name), buffer)
            .map_err(|_| TokenError::Forged)?;
        AccessToken::parse(plain)
    }

    /// Seals a token for the server of this name, as whoever grants access does. `nonce` must not
    /// have been used with this key. `None` where the token's key is too short or too long.
    #[must_use]
    pub fn seal(&self, server_name: &str, nonce: [u8; 12], token: &AccessToken) -> Option<Vec<u8>> {
        let mut sealed = token.plain()?;
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(unique, Aad::from(server_name), &mut sealed)
            .ok()?;
        let mut value = vec![0, 12];
        value.extend_from_slice(&nonce);
        value.append(&mut sealed);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    const NAME: &str = "turn.example.com";

    fn token(mac_key_len: usize) -> AccessToken {
        AccessToken {
            mac_key: vec![5; mac_key_len].into(),
            timestamp: (1_800_000_000 << 16) | 32_000,
            lifetime: 3600,
        }
    }

    #[test]
    fn a_token_reads_back_and_no_changed_one_does() {
        for algorithm in [TokenAlgorithm::A128Gcm, TokenAlgorithm::A256Gcm] {
            let key = TokenKey::new(algorithm, &vec![7; algorithm.key_len()]).unwrap();
            assert!(TokenKey::new(algorithm, &[7; 33]).is_none());
            let sealed = key.seal(NAME, [9; 12], &token(20)).unwrap();
            assert_eq!(key.open(NAME, &sealed), Ok(token(20)));
            assert_eq!(key.open("other", &sealed), Err(TokenError::Forged));
            let other = TokenKey::new(algorithm, &vec![8; algorithm.key_len()]).unwrap();
            assert_eq!(other.open(NAME, &sealed), Err(TokenError::Forged));
            for bit in 0..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(key.open(NAME, &changed).is_err(), "bit {bit}");
            }
            for len in 0..sealed.len() {
                assert!(key.open(NAME, &sealed[..len]).is_err(), "{len} bytes");
            }
        }
    }

    #[test]
    fn what_a_token_grants_is_read_or_refused() {
        let check = |plain: &[u8], good: bool| {
            let got = AccessToken::parse(plain);
            assert_eq!(got.is_ok(), good, "{plain:?}");
            if let Ok(token) = got {
                assert_eq!(token.plain().as_deref(), Some(plain));
            }
        };
        for key_len in [20, 32, 64] {
            let plain = token(key_len).plain().unwrap();
            check(&plain, true);
            check(&plain[..plain.len() - 1], false);
            check(&[&plain[..], &[0]].concat(), false);
        }
        for key_len in [0, 1, 19, 65, 300] {
            assert_eq!(token(key_len).plain(), None);
            let mut plain = u16::try_from(key_len).unwrap().to_be_bytes().to_vec();
            plain.resize(2 + key_len + 12, 0);
            check(&plain, false);
        }
        check(&[0xFF, 0xFF], false);
        check(&[0], false);
        check(&[], false);
    }

    /// What `turnutils_oauth` seals.
    #[test]
    fn tokens_of_coturn_open() {
        let check = |algorithm, key: &[u8], sealed: &str, mac_key: &[u8], millis| {
            let key = TokenKey::new(algorithm, key).unwrap();
            let sealed = base64::engine::general_purpose::STANDARD.decode(sealed);
            let token = key.open(NAME, &sealed.unwrap()).unwrap();
            assert_eq!(&*token.mac_key, mac_key);
            assert_eq!(token.issued(), Duration::from_millis(millis));
            assert_eq!(token.lifetime, 3600);
        };

        check(
            TokenAlgorithm::A128Gcm,
            b"1234567890123456",
            "AAwxMjM0NTY3ODkwMTKxZV6Z6qJgPZHGI4xmAGh3wktOM0f6rIgC40fNOD6P3Rgk3wJ3MuXJtzxONrUDeEhOgw==",
            b"01234567890123456789",
            1_800_000_000_000,
        );
        check(
            TokenAlgorithm::A256Gcm,
            b"01234567890123456789012345678901",
            "AAwxMjM0NTY3ODkwMTIi0k4R3YFW/A3qtula0KmZJnaxWbys7LJghqySKTcBtTK6mxJoPLDZRTXT16qFhX3fDwPO/MQCKldrC8XyAw==",
            b"01234567890123456789012345678901",
            1_800_000_000_500,
        );
    }

    #[test]
    fn its_length_is_bounded() {
        let key = TokenKey::new(TokenAlgorithm::A128Gcm, &[7; 16]).unwrap();
        let longest = key.seal(NAME, [9; 12], &token(64)).unwrap();
        assert_eq!(longest.len(), ACCESS_TOKEN_LEN_MAX);
        assert_eq!(key.open(NAME, &longest), Ok(token(64)));
        for got in [0, 1, ACCESS_TOKEN_LEN_MAX + 1, 65_535] {
            let mut value = vec![0; got];
            if let Some(len) = value.get_mut(..2) {
                len.copy_from_slice(&[0, 12]);
            }
            let expected = Err(TokenError::WrongLength { got });
            assert_eq!(key.open(NAME, &value), expected);
        }
        let got = 0xFFFF;
        let expected = Err(TokenError::WrongNonceLength { got });
        assert_eq!(key.open(NAME, &[0xFF; 60]), expected);
    }

    #[test]
    fn a_token_prints_no_key() {
        let printed = format!("{:?}", token(20));
        assert!(!printed.contains('5'), "{printed}");
        assert_eq!(token(20).issued(), Duration::from_millis(1_800_000_000_500));
    }
}
