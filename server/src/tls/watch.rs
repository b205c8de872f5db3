//! Certificate files that change: somebody renews them, and a running server takes the new ones.
//!
//! What they hold is compared, not when they were written: Kubernetes changes a symbolic link two folders up, and `cp -p` an old
//! date. Two small files once a minute cost nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::acme::Challenges;
use super::store::{Contents, Current};
use super::{CertificateStore, Files};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

const SECONDS_PER_DAY: f64 = 86_400.0;

/// A store and the files it follows.
#[derive(Debug)]
pub struct Watched {
    store: Arc<CertificateStore>,
    /// Whether DTLS is spoken, which takes an ECDSA key.
    dtls: bool,
    seen: Mutex<Seen>,
}

struct Seen {
    files: Files,
    /// What they held when it was taken.
    served: Arc<Contents>,
    /// What was judged last, good or bad, or why nothing could be read: nobody wants to hear the same each minute.
    judged: Result<Arc<Contents>, String>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Watched {
    /// Reads the files for the first time; `dtls` is whether the relay speaks DTLS.
    ///
    /// Fails when they can't be served. One that has ended is served with an error in the log: clients that don't look are better
    /// off than with no server.
    pub fn open(files: Files, dtls: bool) -> anyhow::Result<Self> {
        let contents = Arc::new(Contents::read(&files)?);
        let judged = Ok(contents.clone());
        Self::new(files, dtls, contents, judged, None)
    }

    /// Reads a file that ACME writes, or serves `stand_in`, a PEM with both, until it can be read. Authorities are shown
    /// `challenges`.
    ///
    /// Fails when the stand-in can't be served.
    pub(crate) fn open_acme(
        files: Files,
        dtls: bool,
        stand_in: &str,
        challenges: Challenges,
    ) -> anyhow::Result<Self> {
        let readable = Contents::read(&files).and_then(|contents| {
            Current::parse(&files, &contents)?;
            Ok(Arc::new(contents))
        });
        let (contents, judged) = match readable {
            Ok(contents) => (contents.clone(), Ok(contents)),
            Err(error) => {
                tracing::warn!("Serving a self-signed certificate until one comes by ACME");
                let words = format!("{error:#}");
                (Arc::new(Contents::of(stand_in)), Err(words))
            }
        };
        Self::new(files, dtls, contents, judged, Some(challenges))
    }

    fn new(
        files: Files,
        dtls: bool,
        contents: Arc<Contents>,
        judged: Result<Arc<Contents>, String>,
        challenges: Option<Challenges>,
    ) -> anyhow::Result<Self> {
        let current = Current::parse(&files, &contents)?;
        if let Err(error) = current.ensure_good(Timestamp::now().as_second()) {
            tracing::error!(
                error = format!("{error:#}"),
                "Clients will refuse this server"
            );
        }
        let watched = Self {
            store: Arc::new(CertificateStore::new(current, challenges)),
            dtls,
            seen: Mutex::new(Seen {
                files,
                served: contents,
                judged,
            }),
        };
        watched.tell_days();
        Ok(watched)
    }

    /// What is served.
    pub fn store(&self) -> &Arc<CertificateStore> {
        &self.store
    }

    /// Follows other files from now on, if what is in them can be served.
    ///
    /// Fails as [`read`](Self::read) does; then it goes on with the files before.
    pub fn follow(&self, files: Files) -> anyhow::Result<()> {
        let mut seen = self.seen();
        if seen.files != files {
            let judged = Contents::read(&files)
                .and_then(|contents| self.judge(&files, &contents).map(|()| contents));
            let contents = Arc::new(count(judged)?);
            *seen = Seen {
                files,
                served: contents.clone(),
                judged: Ok(contents),
            };
        }
        Ok(())
    }

    /// Reads the files now. Returns whether there is a new certificate in them, which is served from then on.
    ///
    /// Fails when it can't be served: a file can't be read or is no PEM, the key is another certificate's, the certificate has
    /// ended, or DTLS can't be spoken with it. Then the one before is kept.
    pub fn read(&self) -> anyhow::Result<bool> {
        let mut seen = self.seen();
        let contents = match Contents::read(&seen.files) {
            Ok(contents) => Arc::new(contents),
            Err(error) => {
                seen.judged = Err(format!("{error:#}"));
                return count(Err(error));
            }
        };
        seen.judged = Ok(contents.clone());
        if contents == seen.served {
            return Ok(false);
        }
        count(self.judge(&seen.files, &contents))?;
        seen.served = contents;
        Ok(true)
    }

    /// Looks at the files every minute, for ever.
    pub async fn watch(self: Arc<Self>) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            let watched = self.clone();
            // A file may be on a disk far away.
            if let Err(error) = tokio::task::spawn_blocking(move || watched.look()).await {
                tracing::error!(%error, "Certificate files not looked at");
            }
        }
    }

    /// Takes what has changed, and logs it.
    fn look(&self) {
        self.tell_days();
        if self.seen().has_news() {
            match self.read() {
                Ok(true) => tracing::info!("Serving the new certificate"),
                Ok(false) => {}
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "Keeping the certificate in use"
                ),
            }
        }
    }

    /// Serves what is in `contents`, or says why not.
    fn judge(&self, files: &Files, contents: &Contents) -> anyhow::Result<()> {
        let current = Current::parse(files, contents)?;
        current.ensure_good(Timestamp::now().as_second())?;
        if self.dtls {
            current.ensure_fits_dtls()?;
        }
        self.store.set(current);
        self.tell_days();
        Ok(())
    }

    fn tell_days(&self) {
        let left = self.store.ends_at() - Timestamp::now().as_second();
        metrics::gauge!("server_certificate_days_left").set(left as f64 / SECONDS_PER_DAY);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Whether the files hold something else than what was judged, or can't be read for another reason.
    fn has_news(&self) -> bool {
        match (Contents::read(&self.files), &self.judged) {
            (Ok(contents), Ok(judged)) => contents != **judged,
            (Err(error), Err(judged)) => format!("{error:#}") != *judged,
            _ => true,
        }
    }
}

fn count<T>(judged: anyhow::Result<T>) -> anyhow::Result<T> {
    let outcome = if judged.is_ok() { "taken" } else { "refused" };
    metrics::counter!("server_certificate_changes_total", "outcome" => outcome).increment(1);
    judged
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// Writes a certificate for `name` that is good until `year`, with its key, into `folder`.
    fn issue(folder: &Path, name: &str, year: i32) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    }

    fn files(folder: &Path) -> Files {
        Files {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        }
    }

    fn served(watched: &Watched) -> String {
        let der = watched.store().for_dtls().unwrap().certificate;
        let names = crate::tls::development::names_in_der(&der.into());
        names.into_iter().collect()
    }

    #[test]
    fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        issue(dir.path(), "one", 2100);
        let watched = Watched::open(files(dir.path()), true).unwrap();
        assert!(!watched.read().unwrap(), "nothing is new");

        issue(dir.path(), "two", 2100);
        watched.look();
        assert_eq!(served(&watched), "two");

        let refused = |expected: &str| {
            watched.look();
            assert!(!watched.seen().has_news(), "said once");
            let error = format!("{:#}", watched.read().unwrap_err());
            assert!(error.contains(expected), "{error}");
            assert_eq!(served(&watched), "two");
        };
        issue(dir.path(), "three", 2001);
        refused("the certificate ended 2001-01-01");
        std::fs::write(dir.path().join("tls.crt"), "nonsense").unwrap();
        refused("holds no certificate");
        issue(dir.path(), "four", 2100);
        let other = dir.path().join("other");
        issue(&other, "other", 2100);
        std::fs::copy(other.join("tls.key"), dir.path().join("tls.key")).unwrap();
        refused("does not belong to the certificate");
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = rcgen::CertificateParams::new(vec!["five".to_owned()]).unwrap();
        let certificate = params.self_signed(&ed25519).unwrap();
        std::fs::write(dir.path().join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(dir.path().join("tls.key"), ed25519.serialize_pem()).unwrap();
        refused("no ECDSA key");
        std::fs::remove_file(dir.path().join("tls.key")).unwrap();
        refused("can't read");

        issue(dir.path(), "six", 2100);
        watched.look();
        assert_eq!(served(&watched), "six");
    }

    #[test]
    fn the_swap_of_a_folder_behind_symbolic_links_is_seen() {
        // As Kubernetes mounts a Secret: tls.crt → ..data/tls.crt, ..data → ..1, and `..data` is renamed over.
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        issue(&path("..1"), "one", 2100);
        issue(&path("..2"), "two", 2100);
        symlink("..1", path("..data")).unwrap();
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), path(name)).unwrap();
        }
        let watched = Watched::open(files(dir.path()), false).unwrap();
        assert_eq!(served(&watched), "one");

        symlink("..2", path("..data_tmp")).unwrap();
        std::fs::rename(path("..data_tmp"), path("..data")).unwrap();
        watched.look();
        assert_eq!(served(&watched), "two");
    }

    #[test]
    fn other_files_are_followed_only_where_they_can_be_served() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        issue(&one, "one", 2100);
        let watched = Watched::open(files(&one), false).unwrap();
        assert!(watched.follow(files(&two)).is_err());
        issue(&one, "one again", 2100);
        assert!(watched.read().unwrap(), "still following the first");

        issue(&two, "two", 2100);
        watched.follow(files(&two)).unwrap();
        assert_eq!(served(&watched), "two");
    }
}
