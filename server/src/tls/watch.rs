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
        if let Err(error) = current.ensure_good(now()) {
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

    /// Follows other files from now on. The next look takes what is in them, and until that can be served, what is served stays.
    pub fn follow(&self, files: Files) {
        self.seen().files = files;
    }

    /// Reads the files now and takes what is in them; the log tells what came of it, even if that is the same as before.
    pub fn take(&self) {
        match self.read(now()) {
            Ok(true) => tracing::info!("Serving the new certificate"),
            Ok(false) => {}
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "Keeping the certificate in use"
            ),
        }
    }

    /// Takes what has changed, and logs it once.
    pub fn look(&self) {
        self.tell_days();
        if self.has_news(now()) {
            self.take();
        }
    }

    /// Reads the files at `now`, in seconds since 1970. Returns whether there is a new certificate in them, which is served from
    /// then on.
    ///
    /// Fails when it can't be served: a file can't be read or is no PEM, the key is another certificate's, the certificate has
    /// ended or is not good yet, or DTLS can't be spoken with it. Then the one before is kept.
    fn read(&self, now: i64) -> anyhow::Result<bool> {
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
        self.store
            .set(count(self.judge(&seen.files, &contents, now))?);
        seen.served = contents;
        self.tell_days();
        Ok(true)
    }

    /// Whether the files hold something else at `now` than what was judged, can't be read for another reason, or hold what was
    /// refused and has become good since.
    fn has_news(&self, now: i64) -> bool {
        let seen = self.seen();
        match (Contents::read(&seen.files), &seen.judged) {
            (Ok(contents), Ok(judged)) if contents == **judged => {
                contents != *seen.served && self.judge(&seen.files, &contents, now).is_ok()
            }
            (Err(error), Err(judged)) => format!("{error:#}") != *judged,
            _ => true,
        }
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

    /// What is in `contents`, or why it can't be served at `now`.
    fn judge(&self, files: &Files, contents: &Contents, now: i64) -> anyhow::Result<Current> {
        let current = Current::parse(files, contents)?;
        current.ensure_good(now)?;
        if self.dtls {
            current.ensure_fits_dtls()?;
        }
        Ok(current)
    }

    fn tell_days(&self) {
        let left = self.store.ends_at() - now();
        metrics::gauge!("server_certificate_days_left").set(left as f64 / SECONDS_PER_DAY);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> i64 {
    Timestamp::now().as_second()
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
        issue_from(folder, name, 0, year);
    }

    /// The same, not good before `start`, in seconds since 1970.
    fn issue_from(folder: &Path, name: &str, start: i64, year: i32) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let start = Duration::from_secs(start.try_into().unwrap());
        params.not_before = (std::time::SystemTime::UNIX_EPOCH + start).into();
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
        assert!(!watched.read(now()).unwrap(), "nothing is new");

        issue(dir.path(), "two", 2100);
        watched.look();
        assert_eq!(served(&watched), "two");

        let refused = |expected: &str| {
            watched.look();
            assert!(!watched.has_news(now()), "said once");
            let error = format!("{:#}", watched.read(now()).unwrap_err());
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
    fn other_files_are_followed_and_taken_once_they_can_be_served() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        issue(&one, "one", 2100);
        let watched = Watched::open(files(&one), false).unwrap();
        watched.follow(files(&two));
        assert!(watched.read(now()).is_err());
        assert!(!watched.has_news(now()), "said once");
        issue(&one, "one again", 2100);
        watched.look();
        assert_eq!(served(&watched), "one", "nobody looks there any more");

        issue(&two, "two", 2001);
        watched.look();
        assert_eq!(served(&watched), "one");
        issue(&two, "two", 2100);
        watched.look();
        assert_eq!(served(&watched), "two");
    }

    #[test]
    fn a_certificate_that_came_too_early_is_taken_once_it_is_good() {
        let dir = tempfile::tempdir().unwrap();
        issue(dir.path(), "now", 2100);
        let watched = Watched::open(files(dir.path()), true).unwrap();
        let start = now() + 86_400;
        issue_from(dir.path(), "tomorrow", start, 2100);
        watched.look();
        let error = format!("{:#}", watched.read(start - 1).unwrap_err());
        assert!(error.contains("is not good before"), "{error}");
        assert!(!watched.has_news(start - 1), "said once");
        assert_eq!(served(&watched), "now");

        assert!(watched.has_news(start));
        assert!(watched.read(start).unwrap());
        assert_eq!(served(&watched), "tomorrow");
        assert!(!watched.has_news(start));
    }
}
