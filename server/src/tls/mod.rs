//! The certificate of HTTPS, WSS and TURN over TLS and DTLS.

pub mod development;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, bail};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// What is spoken inside TLS. A TURN client need not offer any of them; one that does offers `stun.turn` (RFC 7443).
const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"stun.turn"];

/// The one certificate of this server, the same for every listener; it can be replaced while the server runs.
#[derive(Debug)]
pub struct CertificateStore {
    current: RwLock<Current>,
}

/// A certificate in use, and its key once more as DTLS needs it.
#[derive(Debug)]
struct Current {
    certified: Arc<CertifiedKey>,
    private: PrivateKeyDer<'static>,
}

impl CertificateStore {
    /// Reads a chain and its key from PEM files.
    ///
    /// Fails when a file can't be read, holds no certificate or key, or the key is another certificate's.
    pub fn load(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            current: RwLock::new(read(certificate, key)?),
        })
    }

    /// Reads the files again; fails as [`Self::load`] does, and keeps the certificate it has then.
    pub fn reload(&self, certificate: &Path, key: &Path) -> anyhow::Result<()> {
        let read = read(certificate, key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// What DTLS clients of the relay are shown: the certificate without its chain, which DTLS has no room for.
    pub fn for_dtls(&self) -> Option<relay_service::Certificate> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(relay_service::Certificate {
            certificate: current.certified.cert.first()?.to_vec(),
            private_key: current.private.secret_der().to_vec(),
        })
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.current
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .certified
                .clone(),
        )
    }
}

/// How this server speaks TLS: versions 1.2 and 1.3, tickets instead of a memory of clients.
pub fn server_config(store: Arc<CertificateStore>) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().context("TLS tickets")?;
    Ok(config)
}

/// How to speak TLS to somebody whom one of `roots` vouches for.
pub fn client_config(roots: RootCertStore) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("TLS versions")?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The cryptography behind every TLS connection of this process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Reads the certificates in a PEM file, the server's own first.
pub fn read_chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .with_context(|| format!("can't read {shown}"))?
        .collect::<Result<_, _>>()
        .with_context(|| format!("{shown} is not PEM"))?;
    if chain.is_empty() {
        bail!("{shown} holds no certificate");
    }
    Ok(chain)
}

fn read(certificate: &Path, key: &Path) -> anyhow::Result<Current> {
    let chain = read_chain(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{} holds no private key in PEM", key.display()))?;
    let certified = CertifiedKey::from_der(chain, private.clone_key(), &provider());
    let certified = certified.with_context(|| {
        format!(
            "the key in {} does not belong to the certificate in {}",
            key.display(),
            certificate.display()
        )
    })?;
    Ok(Current {
        certified: Arc::new(certified),
        private,
    })
}
