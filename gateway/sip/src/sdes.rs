//! SRTP keys in SDP: `a=crypto` (RFC 4568, 6188, 7714).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

use crate::text;

/// How SRTP protects packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// `AES_CM_128_HMAC_SHA1_80`: what every phone has.
    Aes128CmSha1_80,
    /// `AEAD_AES_128_GCM`.
    AeadAes128Gcm,
    /// `AEAD_AES_256_GCM`.
    AeadAes256Gcm,
}

impl Suite {
    /// All suites, the strongest first. A tag of 32 bits, which a guesser hits too soon, is none of them.
    pub const ALL: [Self; 3] = [
        Self::AeadAes256Gcm,
        Self::AeadAes128Gcm,
        Self::Aes128CmSha1_80,
    ];

    /// The name in SDP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aes128CmSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// The length of master key and salt together, in bytes (RFC 4568 §6.2, RFC 7714 §14.2).
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 => 16 + 14,
            Self::AeadAes128Gcm => 16 + 12,
            Self::AeadAes256Gcm => 32 + 12,
        }
    }
}

/// A master key and its salt, one behind the other.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(Zeroizing<Vec<u8>>);

impl MasterKey {
    /// Takes the bytes when they are as many as `suite` needs.
    #[must_use]
    pub fn new(suite: Suite, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == suite.key_len()).then(|| Self(Zeroizing::new(bytes.to_vec())))
    }

    /// Key and salt.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// One `a=crypto` attribute: its sender's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Ties the answer to the line of the offer it takes.
    pub tag: u32,
    /// The suite.
    pub suite: Suite,
    /// The key.
    pub key: MasterKey,
}

impl Crypto {
    /// Reads the value of an attribute. `None` for a line that can't be taken: another suite, a key that is too short, several
    /// keys, a key that goes with an MKI, or a session parameter that changes what packets look like. What can't be taken is
    /// passed over (RFC 4568 §6.1.2); the offer may have another.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split([' ', '\t']).filter(|word| !word.is_empty());
        let tag = words
            .next()
            .and_then(|tag| text::decimal(tag, 999_999_999))?;
        let name = words.next()?;
        let suite = Suite::ALL
            .into_iter()
            .find(|suite| suite.as_str() == name)?;
        let inline = words.next()?.strip_prefix("inline:")?;
        // Session parameters: a hint for the window of replays alone changes nothing on the wire.
        if !words.all(|word| word.starts_with("WSH=")) {
            return None;
        }
        let mut fields = inline.split('|');
        let key = fields.next()?;
        let lifetime = fields.next();
        if fields.next().is_some()
            || lifetime.is_some_and(|field| field.contains(':'))
            || key.contains(';')
        {
            return None;
        }
        let key = Zeroizing::new(
            STANDARD
                .decode(key)
                .or_else(|_| STANDARD_NO_PAD.decode(key))
                .ok()?,
        );
        Some(Self {
            tag: u32::try_from(tag).ok()?,
            suite,
            key: MasterKey::new(suite, &key)?,
        })
    }

    /// The value of an attribute.
    #[must_use]
    pub fn to_value(&self) -> String {
        format!(
            "{} {} inline:{}",
            self.tag,
            self.suite.as_str(),
            STANDARD.encode(self.key.bytes())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        for suite in Suite::ALL {
            let key =
                MasterKey::new(suite, &vec![0xa5; suite.key_len()]).expect("as long as it must be");
            let crypto = Crypto { tag: 7, suite, key };
            assert_eq!(Crypto::parse(&crypto.to_value()), Some(crypto));
        }
    }

    #[test]
    fn the_example_of_rfc_4568() {
        let line = "1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20";
        let crypto = Crypto::parse(line).expect("it is right");
        assert_eq!(crypto.key.bytes(), b"YS___semctl () {\t220;}\n}\nunles");
        assert_eq!(
            format!("{crypto:?}"),
            "Crypto { tag: 1, suite: Aes128CmSha1_80, key: MasterKey }"
        );
    }

    #[test]
    fn what_we_can_t_do_is_passed_over() {
        const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
        for wrong in [
            String::new(),
            format!("x AES_CM_128_HMAC_SHA1_80 inline:{KEY}"),
            format!("1 AES_CM_128_HMAC_SHA1_32 inline:{KEY}"),
            format!("1 AEAD_AES_128_GCM inline:{KEY}"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY};inline:{KEY}"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTP"),
            "1 AES_CM_128_HMAC_SHA1_80 inline:****".to_owned(),
            "1 AES_CM_128_HMAC_SHA1_80".to_owned(),
        ] {
            assert_eq!(Crypto::parse(&wrong), None, "{wrong}");
        }
    }
}
