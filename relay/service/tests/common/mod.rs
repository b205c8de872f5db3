//! What several tests of the relay share.

#![allow(dead_code, reason = "no test needs all of it")]

use std::sync::Arc;

use relay_service::{Certificate, Certificates};
use rustls::pki_types::PrivateKeyDer;

pub(crate) mod dtls;

/// A certificate of its own for `localhost`, as each side of TLS and DTLS wants it.
pub(crate) struct Localhost {
    pub(crate) server: Arc<rustls::ServerConfig>,
    /// Trusts that certificate alone.
    pub(crate) client: Arc<rustls::ClientConfig>,
    pub(crate) certificate: Certificate,
}

impl Localhost {
    pub(crate) fn new() -> Localhost {
        let certificate = self_signed();
        let der = certificate.certificate.clone().into();
        let key = PrivateKeyDer::try_from(certificate.private_key.clone()).unwrap();
        let server = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![der], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.certificate.clone().into()).unwrap();
        let client = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Localhost {
            server: Arc::new(server),
            client: Arc::new(client),
            certificate,
        }
    }

    /// The certificate as the relay asks for it at each handshake of DTLS.
    pub(crate) fn certificates(&self) -> Certificates {
        let certificate = self.certificate.clone();
        Arc::new(move || Some(certificate.clone()))
    }
}

/// A certificate for `localhost` and its key.
pub(crate) fn self_signed() -> Certificate {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Certificate {
        certificate: cert.der().to_vec(),
        private_key: signing_key.serialize_der(),
    }
}
