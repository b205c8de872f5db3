//! Nonces nobody has to remember: each carries its expiry and an HMAC over it and the client's
//! address, so a stranger's packet costs no memory (RFC 8489 §9.2).

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What every nonce begins with: it says that security feature bits follow (RFC 8489 §9.2).
const NONCE_COOKIE: &[u8] = b"obMatJos2";

/// The 24 security feature bits in base64: neither password algorithms nor user name anonymity
/// (RFC 8489 §18.1).
const SECURITY_FEATURES: &[u8] = b"AAAA";

/// The bytes behind the features: expiry (4) and a truncated HMAC-SHA256 (8). A guess succeeds
/// once in 2^64 tries, and a success only spares the guesser a fresh nonce.
const PAYLOAD_LEN: usize = 12;

const EXPIRY_LEN: usize = 4;

/// The length of a nonce, in bytes; short, since it stands in every answer to a stranger.
pub(crate) const NONCE_LEN: usize =
    NONCE_COOKIE.len() + SECURITY_FEATURES.len() + PAYLOAD_LEN / 3 * 4;

/// Issues and recognises nonces.
#[derive(Debug)]
pub(crate) struct Nonces {
    key: hmac::Key,
}

impl Nonces {
    pub(crate) fn new(secret: &[u8; 32]) -> Nonces {
        Nonces {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// A nonce for `client` that ends at `expiry`, in seconds of the relay's own time.
    pub(crate) fn issue(&self, expiry: u32, client: SocketAddr) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        let (cookie, rest) = nonce.split_at_mut(NONCE_COOKIE.len());
        let (features, text) = rest.split_at_mut(SECURITY_FEATURES.len());
        cookie.copy_from_slice(NONCE_COOKIE);
        features.copy_from_slice(SECURITY_FEATURES);
        STANDARD
            .encode_slice(self.payload(expiry, client), text)
            .expect("NONCE_LEN leaves room for the encoded payload");
        nonce
    }

    /// Whether `nonce` is one of ours, for `client`, and lives at `now`.
    pub(crate) fn is_valid(&self, nonce: &[u8], now: u32, client: SocketAddr) -> bool {
        let Some(text) = nonce
            .strip_prefix(NONCE_COOKIE)
            .and_then(|rest| rest.strip_prefix(SECURITY_FEATURES))
            .filter(|text| text.len() == PAYLOAD_LEN / 3 * 4)
        else {
            return false;
        };
        let mut payload = [0; PAYLOAD_LEN];
        if STANDARD.decode_slice(text, &mut payload) != Ok(PAYLOAD_LEN) {
            return false;
        }
        let [e0, e1, e2, e3, ..] = payload;
        let expiry = u32::from_be_bytes([e0, e1, e2, e3]);
        let expected = self.payload(expiry, client);
        constant_time::verify_slices_are_equal(&expected, &payload).is_ok() && now < expiry
    }

    fn payload(&self, expiry: u32, client: SocketAddr) -> [u8; PAYLOAD_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&expiry.to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&client.port().to_be_bytes());

        let mut payload = [0; PAYLOAD_LEN];
        payload[..EXPIRY_LEN].copy_from_slice(&expiry.to_be_bytes());
        payload[EXPIRY_LEN..].copy_from_slice(&context.sign().as_ref()[..PAYLOAD_LEN - EXPIRY_LEN]);
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_belongs_to_its_client_and_its_time() {
        let nonces = Nonces::new(&[7; 32]);
        let alice: SocketAddr = "192.0.2.1:1000".parse().unwrap();
        let moved: SocketAddr = "192.0.2.1:1001".parse().unwrap();
        let nonce = nonces.issue(600, alice);

        assert!(nonces.is_valid(&nonce, 599, alice));
        assert!(!nonces.is_valid(&nonce, 600, alice));
        assert!(!nonces.is_valid(&nonce, 599, moved));
        assert!(!Nonces::new(&[8; 32]).is_valid(&nonce, 599, alice));
    }

    #[test]
    fn a_changed_nonce_is_not_ours() {
        let nonces = Nonces::new(&[7; 32]);
        let alice: SocketAddr = "[2001:db8::1]:1000".parse().unwrap();
        let nonce = nonces.issue(600, alice);
        for at in 0..nonce.len() {
            let mut changed = nonce;
            changed[at] ^= 1;
            assert!(!nonces.is_valid(&changed, 0, alice), "byte {at}");
        }
        for len in 0..nonce.len() {
            assert!(!nonces.is_valid(&nonce[..len], 0, alice), "{len} bytes");
        }
    }

    #[test]
    fn a_nonce_says_that_it_has_security_feature_bits() {
        let nonce = Nonces::new(&[7; 32]).issue(600, "192.0.2.1:1000".parse().unwrap());
        assert!(nonce.starts_with(b"obMatJos2AAAA"));
        assert_eq!(nonce.len(), 29);
    }
}
