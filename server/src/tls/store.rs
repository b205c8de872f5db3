//! The one certificate of this server, for every listener: it can be replaced while the server runs.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::acme::{ACME_TLS_ALPN, Challenges};
use super::{Files, chain_in, provider};

/// What new connections are shown; those that are open keep what they began with. Asked once for each handshake.
#[derive(Debug)]
pub struct CertificateStore {
    current: RwLock<Current>,
    /// What authorities are shown that want to see that a domain is ours.
    challenges: Option<Challenges>,
}

/// From when to when a certificate is good, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Validity {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            start: validity.not_before.timestamp(),
            end: validity.not_after.timestamp(),
        }
    }
}

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub(super) struct Current {
    certified: Arc<CertifiedKey>,
    /// The key once more, as DTLS needs it.
    private: Arc<PrivateKeyDer<'static>>,
    validity: Validity,
}

impl CertificateStore {
    /// Reads a chain and its key from PEM files.
    ///
    /// Fails when a file can't be read, holds no certificate or key, or the key is another certificate's.
    pub fn load(files: &Files) -> anyhow::Result<Self> {
        let contents = Contents::read(files)?;
        Ok(Self::new(Current::parse(files, &contents)?, None))
    }

    pub(super) fn new(current: Current, challenges: Option<Challenges>) -> Self {
        Self {
            current: RwLock::new(current),
            challenges,
        }
    }

    pub(super) fn set(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }

    /// What DTLS clients of the relay are shown: the certificate without its chain, which DTLS has no room for.
    pub fn for_dtls(&self) -> Option<relay_service::Certificate> {
        self.get().for_dtls()
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn ends_at(&self) -> i64 {
        self.get().validity.end
    }

    fn get(&self) -> Current {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(mut protocols) = hello.alpn()
            && protocols.next() == Some(ACME_TLS_ALPN)
        {
            return self.challenges.as_ref()?.answer_tls(hello.server_name()?);
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.certified.clone())
    }
}

impl Current {
    /// Reads a certificate that is to be served.
    ///
    /// Fails when there is no certificate or key in `contents`, or the key is another certificate's.
    pub(super) fn parse(files: &Files, contents: &Contents) -> anyhow::Result<Self> {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let chain = chain_in(&contents.certificate, &files.certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&contents.key)
            .with_context(|| format!("{key} holds no private key in PEM"))?;
        let leaf = chain.first().context("no certificate")?;
        let (_, leaf) = X509Certificate::from_der(leaf)
            .with_context(|| format!("{certificate} holds a certificate that can't be read"))?;
        let validity = Validity::of(&leaf);
        let certified = CertifiedKey::from_der(chain, private.clone_key(), &provider())
            .with_context(|| {
                format!("the key in {key} does not belong to the certificate in {certificate}")
            })?;
        Ok(Self {
            certified: Arc::new(certified),
            private: Arc::new(private),
            validity,
        })
    }

    /// Fails unless the certificate is good at `now`, in seconds since 1970.
    pub(super) fn ensure_good(&self, now: i64) -> anyhow::Result<()> {
        let Validity { start, end } = self.validity;
        if now < start {
            bail!("the certificate is not good before {}", date(start));
        }
        ensure!(now < end, "the certificate ended {}", date(end));
        Ok(())
    }

    /// Fails unless DTLS clients can be shown it.
    pub(super) fn ensure_fits_dtls(&self) -> anyhow::Result<()> {
        let certificate = self.for_dtls().context("there is no certificate")?;
        certificate.check().context("`relay.listen_dtls`")
    }

    fn for_dtls(&self) -> Option<relay_service::Certificate> {
        Some(relay_service::Certificate {
            certificate: self.certified.cert.first()?.to_vec(),
            private_key: self.private.secret_der().to_vec(),
        })
    }
}

/// Fails unless there are a certificate and its key in `pem`. Whether it is good by this machine's clock is not asked: the clock may
/// be wrong.
pub(super) fn check(pem: &str) -> anyhow::Result<()> {
    let nowhere = std::path::PathBuf::from("the answer");
    let files = Files {
        certificate: nowhere.clone(),
        key: nowhere,
    };
    Current::parse(&files, &Contents::of(pem)).map(drop)
}

fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// What two files hold at one moment. Never printed: one of them is a key.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    /// What one file with both would hold.
    pub(super) fn of(pem: &str) -> Self {
        Self {
            certificate: pem.into(),
            key: pem.into(),
        }
    }

    /// Reads both; fails with the one that can't be read.
    pub(super) fn read(files: &Files) -> anyhow::Result<Self> {
        let read = |path: &std::path::Path| {
            std::fs::read(path).with_context(|| format!("can't read {}", path.display()))
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
        })
    }
}
