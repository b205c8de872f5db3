//! Nonces nobody has to remember: each carries its expiry and an HMAC over it and the client's
//! address, so a stranger's packet costs no memory (RFC 8489 §9.2).

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use relay_stun::{NONCE_PREFIX_LEN, SecurityFeatures};

/// The bytes behind the features: expiry (4) and a truncated HMAC-SHA256 (8). A guess succeeds
/// once in 2^64 tries, and a success only spares the guesser a fresh nonce.
const PAYLOAD_LEN: usize = 12;

const EXPIRY_LEN: usize = 4;

/// The length of a nonce, in bytes; short, since it stands in every answer to a stranger.
pub(crate) const NONCE_LEN: usize = NONCE_PREFIX_LEN + PAYLOAD_LEN / 3 * 4;

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

    /// A nonce for `client` that ends at `expiry`, in seconds of the relay's own time, and tells
    /// of `features`.
    pub(crate) fn issue(
        &self,
        features: SecurityFeatures,
        expiry: u32,
        client: SocketAddr,
    ) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        let (prefix, text) = nonce.split_at_mut(NONCE_PREFIX_LEN);
        prefix.copy_from_slice(&features.nonce_prefix());
        STANDARD
            .encode_slice(self.payload(prefix, expiry, client), text)
            .expect("NONCE_LEN leaves room for the encoded payload");
        nonce
    }

    /// Whether `nonce` is one of ours, for `client`, and lives at `now`. The features are under
    /// the HMAC too: who took a bit out on the way has made a nonce that is not ours.
    pub(crate) fn is_valid(&self, nonce: &[u8], now: u32, client: SocketAddr) -> bool {
        if nonce.len() != NONCE_LEN {
            return false;
        }
        let (prefix, text) = nonce.split_at(NONCE_PREFIX_LEN);
        let mut payload = [0; PAYLOAD_LEN];
        if STANDARD.decode_slice(text, &mut payload) != Ok(PAYLOAD_LEN) {
            return false;
        }
        let [e0, e1, e2, e3, ..] = payload;
        let expiry = u32::from_be_bytes([e0, e1, e2, e3]);
        let expected = self.payload(prefix, expiry, client);
        constant_time::verify_slices_are_equal(&expected, &payload).is_ok() && now < expiry
    }

    fn payload(&self, prefix: &[u8], expiry: u32, client: SocketAddr) -> [u8; PAYLOAD_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(prefix);
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

    const FEATURES: SecurityFeatures = SecurityFeatures {
        password_algorithms: true,
        username_anonymity: false,
    };

    #[test]
    fn a_nonce_belongs_to_its_client_and_its_time() {
        let nonces = Nonces::new(&[7; 32]);
        let alice: SocketAddr = "192.0.2.1:1000".parse().unwrap();
        let moved: SocketAddr = "192.0.2.1:1001".parse().unwrap();
        let nonce = nonces.issue(FEATURES, 600, alice);

        assert!(nonces.is_valid(&nonce, 599, alice));
        assert!(!nonces.is_valid(&nonce, 600, alice));
        assert!(!nonces.is_valid(&nonce, 599, moved));
        assert!(!Nonces::new(&[8; 32]).is_valid(&nonce, 599, alice));
    }

    #[test]
    fn a_changed_nonce_is_not_ours() {
        let nonces = Nonces::new(&[7; 32]);
        let alice: SocketAddr = "[2001:db8::1]:1000".parse().unwrap();
        let nonce = nonces.issue(FEATURES, 600, alice);
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
        let alice = "192.0.2.1:1000".parse().unwrap();
        let nonce = Nonces::new(&[7; 32]).issue(FEATURES, 600, alice);
        assert_eq!(SecurityFeatures::of_nonce(&nonce), Some(FEATURES));
        assert_eq!(nonce.len(), 29);
    }
}
