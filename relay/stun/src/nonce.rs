//! What a nonce says about its server (RFC 8489 §9.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What a nonce begins with when security feature bits follow (RFC 8489 §9.2).
pub const NONCE_COOKIE: &[u8; 9] = b"obMatJos2";

/// The length of the cookie with the encoded bits, in bytes.
pub const NONCE_PREFIX_LEN: usize = NONCE_COOKIE.len() + 4;

/// The security feature bits in a nonce, which a client must find confirmed by the attributes
/// beside it: nobody on the way can take a feature out without breaking the nonce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SecurityFeatures {
    /// The server offers PASSWORD-ALGORITHMS: bit 0, which is the rightmost (RFC 8489 §18.1 as
    /// corrected by erratum 6290).
    pub password_algorithms: bool,
    /// The server takes USERHASH in place of every USERNAME (bit 1).
    pub username_anonymity: bool,
}

impl SecurityFeatures {
    /// The features `nonce` names; `None` where it does not begin with the cookie and four
    /// characters of base64. Bits nobody has assigned are ignored. Source: RFC 8489 §9.2.
    #[must_use]
    pub fn of_nonce(nonce: &[u8]) -> Option<SecurityFeatures> {
        let encoded = nonce.strip_prefix(NONCE_COOKIE)?.get(..4)?;
        let mut bits = [0; 3];
        STANDARD
            .decode_slice(encoded, &mut bits)
            .ok()
            .filter(|len| *len == 3)?;
        Some(SecurityFeatures {
            password_algorithms: bits[2] & 0x01 != 0,
            username_anonymity: bits[2] & 0x02 != 0,
        })
    }

    /// The first [`NONCE_PREFIX_LEN`] bytes of a nonce that names these features.
    #[must_use]
    pub fn nonce_prefix(self) -> [u8; NONCE_PREFIX_LEN] {
        let bits = u8::from(self.password_algorithms) | u8::from(self.username_anonymity) << 1;
        let mut prefix = [0; NONCE_PREFIX_LEN];
        let (cookie, encoded) = prefix.split_at_mut(NONCE_COOKIE.len());
        cookie.copy_from_slice(NONCE_COOKIE);
        STANDARD
            .encode_slice([0, 0, bits], encoded)
            .expect("three bytes are four characters");
        prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_read_back() {
        let check = |text: &str, expected: Option<(bool, bool)>| {
            let got = SecurityFeatures::of_nonce(text.as_bytes());
            let got =
                got.map(|features| (features.password_algorithms, features.username_anonymity));
            assert_eq!(got, expected, "{text}");
        };

        check("obMatJos2AAAA", Some((false, false)));
        check("obMatJos2AAABxyz", Some((true, false)));
        check("obMatJos2AAAC", Some((false, true)));
        check("obMatJos2AAAD", Some((true, true)));
        check("obMatJos2wAAA", Some((false, false))); // As it was before the erratum.
        check("obMatJos2____", None);
        check("obMatJos2AA==", None);
        check("obMatJos2AAA", None);
        check("f//499k954d6OL34oL9FSTvy64sA", None);
        check("", None);

        for (password_algorithms, username_anonymity) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let features = SecurityFeatures {
                password_algorithms,
                username_anonymity,
            };
            assert_eq!(
                SecurityFeatures::of_nonce(&features.nonce_prefix()),
                Some(features)
            );
        }
    }
}
