//! The certificate of HTTPS, WSS and TURN over TLS and DTLS.

pub mod acme;
pub mod development;
mod store;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub use store::CertificateStore;
pub use watch::Watched;

/// What is spoken inside TLS. A TURN client need not offer any of them; one that does offers `stun.turn` (RFC 7443).
const PROTOCOLS: [&[u8]; 3] = [b"http/1.1", b"stun.turn", acme::ACME_TLS_ALPN];

/// Where a certificate and its key are; one file may hold both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate and those that lead to a root, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// How this server speaks TLS at its shared port: versions 1.2 and 1.3, tickets instead of a memory of clients.
pub fn server_config(store: Arc<CertificateStore>) -> anyhow::Result<ServerConfig> {
    let mut config = sip_server_config(store)?;
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The same for SIP, which has no name inside TLS: where none is asked for, whatever a phone offers does no harm (RFC 7301 §3.2).
pub fn sip_server_config(store: Arc<CertificateStore>) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(store);
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

/// Whom this machine trusts.
pub fn authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// The cryptography behind every TLS connection of this process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Reads the certificates in a PEM file, the server's own first.
pub fn read_chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let pem = std::fs::read(path).with_context(|| format!("can't read {shown}"))?;
    chain_in(&pem, path)
}

/// The certificates in `pem`, which was read from `path`.
fn chain_in(pem: &[u8], path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{shown} is not PEM"))?;
    if chain.is_empty() {
        bail!("{shown} holds no certificate");
    }
    Ok(chain)
}
