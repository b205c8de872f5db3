//! What is kept between two orders: `acme/<authority>/` in the data directory, for its owner's eyes only.
//!
//! ```text
//! lock              held by the process that orders
//! account.json      the account's key and address
//! order.json        an order that is as good as done: where it is, and the key its certificate will be for
//! certificate.pem   the private key and the chain in one file, so that they can't come apart
//! failure.txt       why the last order failed; gone once one succeeds
//! challenges/       answers to challenges of an order under way
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use instant_acme::AccountCredentials;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::store::Validity;
use super::super::{Files, development};
use crate::state::{FILE_MODE, ensure_dir, write_private};

/// The folder of all authorities, in the data directory.
const FOLDER: &str = "acme";

/// The folder of one authority.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

/// An account with an authority, and what it was told of us.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedAccount {
    pub(super) contact: Vec<String>,
    pub(super) credentials: AccountCredentials,
}

/// An order that only lacks its certificate.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedOrder {
    pub(super) url: String,
    pub(super) domains: Vec<String>,
    /// Since when it lacks nothing else, in seconds since 1970.
    pub(super) since: i64,
    /// The private key of the certificate, in PEM.
    pub(super) key: String,
}

/// A certificate that was brought.
pub(super) struct Issued {
    pub(super) leaf: CertificateDer<'static>,
    pub(super) validity: Validity,
    pub(super) names: Vec<String>,
}

impl Issued {
    /// Reads the first certificate in `pem`.
    pub(super) fn parse(pem: &str) -> Option<Self> {
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, certificate) = X509Certificate::from_der(&leaf).ok()?;
        let validity = Validity::of(&certificate);
        let names = development::names_in(&certificate).into_iter().collect();
        Some(Self {
            leaf,
            validity,
            names,
        })
    }

    /// Whether it is for exactly `domains`.
    pub(super) fn is_for(&self, domains: &[String]) -> bool {
        let mut domains: Vec<_> = domains.iter().map(|name| name.to_lowercase()).collect();
        domains.sort();
        domains.dedup();
        domains == self.names
    }
}

impl Folder {
    /// That of the authority with `directory`, in the data directory at `data`, whether or not it was made yet.
    pub(super) fn of(data: &Path, directory: &str) -> Self {
        let bare = directory.trim_start_matches("https://");
        let name: String = bare
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        Self {
            path: data.join(FOLDER).join(name),
        }
    }

    /// Makes what is missing.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        ensure_dir(&self.path)?;
        ensure_dir(&challenges(self.path.parent().unwrap_or(&self.path)))
    }

    /// Where the certificate is, once there is one.
    pub(super) fn files(&self) -> Files {
        let path = self.path.join("certificate.pem");
        Files {
            certificate: path.clone(),
            key: path,
        }
    }

    /// The certificate that was brought last; `None` where there is none that can be read.
    pub(super) fn issued(&self) -> Option<Issued> {
        let pem = std::fs::read_to_string(self.files().certificate).ok()?;
        Issued::parse(&pem)
    }

    /// Keeps a certificate that stands in `pem` with its key.
    pub(super) fn keep_certificate(&self, pem: &str) -> anyhow::Result<()> {
        write_private(&self.files().certificate, pem.as_bytes())
    }

    /// The account; `None` where none was opened yet.
    pub(super) fn account(&self) -> anyhow::Result<Option<SavedAccount>> {
        let path = self.path.join("account.json");
        match std::fs::read(&path) {
            // The parser's message would quote what it read, and that is a key.
            Ok(json) => match serde_json::from_slice(&json) {
                Ok(account) => Ok(Some(account)),
                Err(_) => anyhow::bail!(
                    "{} is damaged; restore it from a backup, or delete it to open another account",
                    path.display()
                ),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    pub(super) fn keep_account(&self, account: &SavedAccount) -> anyhow::Result<()> {
        write_private(
            &self.path.join("account.json"),
            &serde_json::to_vec(account)?,
        )
    }

    pub(super) fn forget_account(&self) -> anyhow::Result<()> {
        self.remove("account.json")
    }

    /// The order whose certificate has not come; `None` where there is none that can be read.
    pub(super) fn order(&self) -> Option<SavedOrder> {
        let json = std::fs::read(self.path.join("order.json")).ok()?;
        serde_json::from_slice(&json).ok()
    }

    pub(super) fn keep_order(&self, order: &SavedOrder) -> anyhow::Result<()> {
        write_private(&self.path.join("order.json"), &serde_json::to_vec(order)?)
    }

    pub(super) fn forget_order(&self) -> anyhow::Result<()> {
        self.remove("order.json")
    }

    /// Why the last order failed; `None` where it didn't.
    pub(super) fn failure(&self) -> Option<String> {
        std::fs::read_to_string(self.path.join("failure.txt")).ok()
    }

    pub(super) fn set_failure(&self, failure: Option<&str>) -> anyhow::Result<()> {
        match failure {
            Some(failure) => write_private(&self.path.join("failure.txt"), failure.as_bytes()),
            None => self.remove("failure.txt"),
        }
    }

    /// Removes a file, if it is there.
    fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("can't remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Takes the right to order for this process; `None` while another one has it. It ends with the file.
    pub(super) fn lock(&self) -> anyhow::Result<Option<File>> {
        let path = self.path.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .with_context(|| format!("can't open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("can't lock {}", path.display()))
            }
        }
    }
}

/// Where answers to challenges are, in the folder of all authorities: a token is never used twice.
fn challenges(folder: &Path) -> PathBuf {
    folder.join("challenges")
}

/// Where answers to challenges are, in the data directory at `data`.
pub(super) fn challenges_in(data: &Path) -> PathBuf {
    challenges(&data.join(FOLDER))
}
