//! Digest authentication, of us by others and of others by us (RFC 3261 §22, RFC 7616, RFC 8760).
//!
//! ```text
//! we ask      Authenticator::challenges ─▶ 401 ─▶ Credentials::parse ─▶ Authenticator::check
//! we're asked Challenge::parse ─▶ choose ─▶ Answering::authorize ─▶ Authorization
//! ```
//!
//! Passwords are held as HA1, the hash of user, realm and password; see [`Ha1`].

mod authenticator;
mod client;
mod fields;

use std::fmt;

use aws_lc_rs::digest::{SHA256, SHA512_256, digest};
use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

pub use authenticator::{Authenticator, Denied, NONCE_LIFETIME, NONCES_MAX};
pub use client::{Answering, Challenge, Unanswerable, choose};
pub use fields::Credentials;

/// A hash, by its name in RFC 8760 §2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `MD5`, what is meant where none is named.
    Md5,
    /// `SHA-256`.
    Sha256,
    /// `SHA-512-256`.
    Sha512_256,
}

impl Algorithm {
    /// Reads a name in any case; `None` for others, also for those that end with `-sess`, which nobody sends.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Md5, Self::Sha256, Self::Sha512_256]
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(name))
    }

    /// The name as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512_256 => "SHA-512-256",
        }
    }

    /// The hash of `parts` with colons between them, in hexadecimal.
    fn hash(self, parts: &[&[u8]]) -> String {
        let joined = Zeroizing::new(parts.join(&b':'));
        match self {
            Self::Md5 => hex(&Md5::digest(&*joined)),
            Self::Sha256 => hex(digest(&SHA256, &joined).as_ref()),
            Self::Sha512_256 => hex(digest(&SHA512_256, &joined).as_ref()),
        }
    }
}

/// The hash of `user:realm:password`: enough to answer and to check, and as secret as the password within its realm.
#[derive(Clone, PartialEq, Eq)]
pub struct Ha1 {
    algorithm: Algorithm,
    hex: Zeroizing<String>,
}

impl Ha1 {
    /// Makes it from a password.
    #[must_use]
    pub fn new(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> Self {
        let hash = algorithm.hash(&[user.as_bytes(), realm.as_bytes(), password.as_bytes()]);
        Self {
            algorithm,
            hex: Zeroizing::new(hash),
        }
    }

    /// One that was made elsewhere, in hexadecimal of any case; `None` where it is not as long as this hash.
    #[must_use]
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> Option<Self> {
        let len = if algorithm == Algorithm::Md5 { 32 } else { 64 };
        let fits = hex.len() == len && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| Self {
            algorithm,
            hex: Zeroizing::new(hex.to_ascii_lowercase()),
        })
    }

    /// The hash in hexadecimal, for whoever keeps it: it is a secret.
    #[must_use]
    pub fn reveal_hex(&self) -> &str {
        &self.hex
    }

    /// Which hash it is.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The `response` of a request (RFC 7616 §3.4.1). `session` is what goes with `qop`, unless the challenge had none.
    fn response(&self, nonce: &str, session: Option<&Session<'_>>, a2: &str) -> String {
        let Some(Session { nc, cnonce, qop }) = session else {
            return self
                .algorithm
                .hash(&[self.hex.as_bytes(), nonce.as_bytes(), a2.as_bytes()]);
        };
        let parts = [&self.hex, nonce, nc, cnonce, qop, a2].map(str::as_bytes);
        self.algorithm.hash(&parts)
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ha1({})", self.algorithm.as_str())
    }
}

struct Session<'a> {
    nc: &'a str,
    cnonce: &'a str,
    qop: &'a str,
}

/// The hash of what is asked for: `auth-int` covers the body, too.
fn a2(algorithm: Algorithm, method: &str, uri: &str, body: Option<&[u8]>) -> String {
    let parts = [method.as_bytes(), uri.as_bytes()];
    match body {
        None => algorithm.hash(&parts),
        Some(body) => algorithm.hash(&[parts[0], parts[1], algorithm.hash(&[body]).as_bytes()]),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(algorithm: Algorithm, nonce: &str, cnonce: &str) -> String {
        let ha1 = Ha1::new(
            algorithm,
            "Mufasa",
            "http-auth@example.org",
            "Circle of Life",
        );
        let session = Session {
            nc: "00000001",
            cnonce,
            qop: "auth",
        };
        ha1.response(
            nonce,
            Some(&session),
            &a2(algorithm, "GET", "/dir/index.html", None),
        )
    }

    #[test]
    fn the_examples_of_rfc_7616() {
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        assert_eq!(
            response(Algorithm::Md5, nonce, cnonce),
            "8ca523f5e9506fed4657c9700eebdbec"
        );
        assert_eq!(
            response(Algorithm::Sha256, nonce, cnonce),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
    }

    #[test]
    fn the_example_of_rfc_2617_and_one_without_qop() {
        let ha1 = Ha1::new(
            Algorithm::Md5,
            "Mufasa",
            "testrealm@host.com",
            "Circle Of Life",
        );
        let a2 = a2(Algorithm::Md5, "GET", "/dir/index.html", None);
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let session = Session {
            nc: "00000001",
            cnonce: "0a4f113b",
            qop: "auth",
        };
        assert_eq!(
            ha1.response(nonce, Some(&session), &a2),
            "6629fae49393a05397450978507c4ef1"
        );
        assert_eq!(
            ha1.response(nonce, None, &a2),
            "670fd8c2df070c60b045671b8b24ff02"
        );
    }

    #[test]
    fn hashes_are_read_by_their_length() {
        for (algorithm, digits) in [
            (Algorithm::Md5, 32),
            (Algorithm::Sha256, 64),
            (Algorithm::Sha512_256, 64),
        ] {
            let made = Ha1::new(algorithm, "u", "r", "p");
            let read = Ha1::from_hex(algorithm, &made.hex.to_uppercase());
            assert_eq!(read.as_ref(), Some(&made));
            assert_eq!(Ha1::from_hex(algorithm, &"0".repeat(digits - 1)), None);
            assert_eq!(Ha1::from_hex(algorithm, &"g".repeat(digits)), None);
        }
    }

    #[test]
    fn hashes_don_t_show_in_logs() {
        assert_eq!(
            format!("{:?}", Ha1::new(Algorithm::Sha256, "u", "r", "p")),
            "Ha1(SHA-256)"
        );
    }
}
