//! What shows an authority that a domain is ours: TLS-ALPN-01 (RFC 8737) and HTTP-01 (RFC 8555 §8.3).
//!
//! Answers stand in files of the data directory, so that whichever process of this installation is asked can give them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::state::write_private;
use crate::tls::provider;

/// The longest token that is looked for, in bytes; those of authorities have 43 (RFC 8555 §8.1 wants 128 bits at least).
const TOKEN_LEN_MAX: usize = 128;

/// Where answers are kept.
#[derive(Debug, Clone)]
pub(crate) struct Challenges {
    folder: PathBuf,
}

/// An answer that is given for as long as this lives.
#[derive(Debug)]
pub(super) struct Offer(PathBuf);

impl Drop for Offer {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, "Answer to a challenge not removed");
        }
    }
}

impl Challenges {
    /// Those in `folder`, which has to be there before one is offered.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Answers TLS-ALPN-01 for `domain` with a certificate that holds `digest`, the key authorization's SHA-256 (RFC 8737 §3).
    pub(super) fn offer_tls(&self, domain: &str, digest: &[u8]) -> anyhow::Result<Offer> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![domain.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let certificate = params.self_signed(&key)?;
        self.offer(
            self.of_domain(domain),
            &(key.serialize_pem() + &certificate.pem()),
        )
    }

    /// Answers HTTP-01 for `token`.
    pub(super) fn offer_http(&self, token: &str, authorization: &str) -> anyhow::Result<Offer> {
        let path = self.of_token(token).context("the token is none")?;
        self.offer(path, authorization)
    }

    fn offer(&self, path: PathBuf, text: &str) -> anyhow::Result<Offer> {
        write_private(&path, text.as_bytes())?;
        Ok(Offer(path))
    }

    /// What a client that asks about `domain` by TLS-ALPN-01 is shown.
    pub(crate) fn answer_tls(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        let pem = std::fs::read(self.of_domain(domain)).ok()?;
        let certificate = CertificateDer::from_pem_slice(&pem).ok()?;
        let key = PrivateKeyDer::from_pem_slice(&pem).ok()?;
        // Not compared with one another: the library stumbles over the critical extension that is the point of the certificate.
        let key = provider().key_provider.load_private_key(key).ok()?;
        Some(Arc::new(CertifiedKey::new(vec![certificate], key)))
    }

    /// What a client that asks about `token` by HTTP-01 gets.
    pub(super) fn answer_http(&self, token: &str) -> Option<String> {
        std::fs::read_to_string(self.of_token(token)?).ok()
    }

    fn of_domain(&self, domain: &str) -> PathBuf {
        // A name of TLS has no slash, and this one begins with no dot.
        self.folder
            .join(format!("tls-{}.pem", domain.to_ascii_lowercase()))
    }

    fn of_token(&self, token: &str) -> Option<PathBuf> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_token =
            !token.is_empty() && token.len() <= TOKEN_LEN_MAX && token.bytes().all(legal);
        is_token.then(|| self.folder.join(format!("http-{token}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_while_it_is_offered_and_nothing_else_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let challenges = Challenges::new(dir.path());
        std::fs::write(dir.path().join("secret"), "hush").unwrap();

        let offer = challenges.offer_http("to-ken_1", "to-ken_1.thumb").unwrap();
        assert_eq!(
            challenges.answer_http("to-ken_1").as_deref(),
            Some("to-ken_1.thumb")
        );
        for token in [
            "",
            "../secret",
            "x/../../secret",
            ".",
            "a b",
            &"a".repeat(200),
        ] {
            assert_eq!(challenges.answer_http(token), None, "{token}");
        }
        drop(offer);
        assert_eq!(challenges.answer_http("to-ken_1"), None);

        let offer = challenges.offer_tls("a.example", &[7; 32]).unwrap();
        assert!(challenges.answer_tls("A.example").is_some());
        assert!(challenges.answer_tls("b.example").is_none());
        drop(offer);
        assert!(challenges.answer_tls("a.example").is_none());
    }
}
