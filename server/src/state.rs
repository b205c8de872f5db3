//! The data directory: made once, for its owner's eyes only.
//!
//! ```text
//! offhook-data/            0700
//! ├── lock                 0600   held by the process whose signaling role serves from here, whose number is in it
//! ├── secrets.toml         0600   what signs and seals; made once, from the operating system's randomness
//! ├── offhook.sqlite       0600   records
//! ├── objects/             0700   prompts, messages in mailboxes, recordings
//! ├── acme/                0700   accounts with authorities that bring certificates, what they brought, and its key
//! └── development/         0700   with --lan only: an own certificate authority and the certificate it issued
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use backing::records::SecretKeys;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The mode of every folder in the data directory, and of itself.
const DIR_MODE: u32 = 0o700;

/// The mode of every file in the data directory.
pub(crate) const FILE_MODE: u32 = 0o600;

/// The name of the file of the secrets.
const SECRETS: &str = "secrets.toml";

/// The name of the file of the records.
const DATABASE: &str = "offhook.sqlite";

/// The name of the file that is locked while the directory is served from.
const LOCK: &str = "lock";

/// What a new file system has in its root, and is nobody's.
const LOST_AND_FOUND: &str = "lost+found";

/// How many random bytes the secret of the TURN credentials is made of.
const TURN_SECRET_LEN: usize = 32;

/// The data directory of one installation.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

/// Held by whoever serves from a data directory; dropping it, or the end of the process, lets go.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// What only this installation knows.
#[derive(Clone)]
pub struct Secrets {
    /// Seals the states of Calls that clients hand back after a crash, and the secrets in the records.
    pub seal: [u8; 32],
    /// Those before: what they sealed in the records is still read.
    pub seal_before: Vec<[u8; 32]>,
    /// Makes and checks the TURN credentials of `welcome`.
    pub turn: String,
    /// The one before, which checks those that are still out after a change.
    pub turn_before: Option<String>,
}

impl Secrets {
    /// Who may use the relay.
    pub fn credentials(&self) -> relay_service::Credentials {
        let secrets = std::iter::once(&self.turn).chain(&self.turn_before);
        relay_service::Credentials::new(secrets.map(relay_service::Secret::new))
    }

    /// What secrets in the records are encrypted with.
    pub fn keys(&self) -> SecretKeys {
        SecretKeys::new(self.seal, &self.seal_before)
    }
}

/// `secrets.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretsFile {
    seal: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    seal_before: Vec<String>,
    turn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn_before: Option<String>,
}

impl DataDir {
    /// Opens the directory at `path`, making it when it is missing and taking away the rights of others when they have any.
    ///
    /// Fails when it can't be made, belongs to another user, is no directory, or holds other people's files.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        refuse_foreign(path)?;
        ensure_dir(path)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Opens the directory of an installation that has served before; makes nothing.
    ///
    /// Fails as [`open`](Self::open) does, and when there are no records in it.
    pub fn open_existing(path: &Path) -> anyhow::Result<Self> {
        if !path.join(DATABASE).exists() {
            bail!(
                "there are no records in {}; name the server's data directory with --data, or make an Account with `offhook account create NAME`",
                path.display()
            );
        }
        Self::open(path)
    }

    /// Takes the directory for this process alone.
    ///
    /// Two processes with the signaling role would each hold half of an Account's Sessions, and neither would know. Fails
    /// when another process has it.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        let path = self.path.join(LOCK);
        let shown = path.display();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .with_context(|| format!("can't open {shown}"))?;
        match file.try_lock() {
            Ok(()) => {
                write_holder(&file).with_context(|| format!("can't write {shown}"))?;
                Ok(Lock { _file: file })
            }
            Err(TryLockError::WouldBlock) => bail!(
                "another offhook serves from {}: stop it, or give this one a data directory of its own with --data",
                self.path.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("can't lock {shown}"))
            }
        }
    }

    /// The process that serves from the data directory at `path` with the signaling role.
    ///
    /// Fails when there is none, or it is one that can't be seen from here, as in another container.
    pub fn server(path: &Path) -> anyhow::Result<Pid> {
        let none = || {
            format!(
                "no process with the signaling role serves from {} on this machine; \
                 another one is told by `systemctl reload` or `kill -HUP`",
                path.display()
            )
        };
        let pid = fs::read_to_string(path.join(LOCK)).with_context(none)?;
        let pid: i32 = pid.trim().parse().ok().with_context(none)?;
        // Its number may have gone to another program meanwhile.
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).with_context(none)?;
        ensure!(name.trim() == env!("CARGO_PKG_NAME"), none());
        Ok(Pid::from_raw(pid))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where records are.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where secrets are.
    pub fn secrets(&self) -> PathBuf {
        self.path.join(SECRETS)
    }

    /// A folder in it, made when missing.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        ensure_dir(&path)?;
        Ok(path)
    }

    /// What in the data directory at `path` others have rights to; changes nothing.
    pub fn loose(path: &Path) -> Vec<PathBuf> {
        let mut candidates = vec![path.to_owned()];
        candidates.extend(
            fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path()),
        );
        let open =
            |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
        candidates.into_iter().filter(open).collect()
    }

    /// Makes an empty, private database file when there is none, so that it is never readable by others, not even for a moment.
    pub fn prepare_database(&self) -> anyhow::Result<PathBuf> {
        let path = self.database();
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path);
        match made {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => close_to_others(&path)?,
            Err(error) => {
                return Err(error).with_context(|| format!("can't make {}", path.display()));
            }
        }
        Ok(path)
    }

    /// Reads the secrets, or makes them the first time.
    ///
    /// Two processes that start at once end up with the same secrets: whoever links the file first has made them.
    pub fn load_secrets(&self) -> anyhow::Result<Secrets> {
        let path = self.secrets();
        if !path.try_exists()? {
            let file = SecretsFile {
                seal: BASE64_STANDARD.encode(random::<32>()?),
                seal_before: Vec::new(),
                turn: BASE64_STANDARD.encode(random::<TURN_SECRET_LEN>()?),
                turn_before: None,
            };
            let text = format!(
                "# Made by offhook on its first start. Whoever reads this can forge Calls and use the relay. Keep it private.\n\
                 # To change `turn`, keep the old one as `turn_before` for an hour; `offhook reload` has the server read both.\n\
                 # To change `seal`, keep the old one in `seal_before = [\"...\"]` and restart: secrets in the records are read with it, and\n\
                 # encrypted anew. Without either, passwords of Trunks and phones and PINs have to be applied again.\n{}",
                toml::to_string(&file)?
            );
            write_new(&path, text.as_bytes())?;
        }
        close_to_others(&path)?;
        Self::read_secrets(&self.path)
    }

    /// Reads the secrets in the data directory at `path`; changes nothing.
    ///
    /// Fails when there are none, or they are damaged.
    pub fn read_secrets(path: &Path) -> anyhow::Result<Secrets> {
        let path = path.join(SECRETS);
        let text =
            fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        // The parser's message would quote the line, and the line is a secret.
        let Ok(file) = toml::from_str::<SecretsFile>(&text) else {
            bail!(
                "{} is damaged; restore it from a backup, or delete it to make new secrets (Calls in progress will end, and passwords of Trunks and phones have to be applied again)",
                path.display()
            );
        };
        let bytes = |text: &String| {
            let bytes = BASE64_STANDARD.decode(text).ok();
            bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        };
        let before = file.seal_before.iter().map(bytes).collect::<Option<_>>();
        let seals = bytes(&file.seal).zip(before);
        let Some((seal, seal_before)) = seals.filter(|_| !file.turn.is_empty()) else {
            bail!(
                "{}: `seal`, and each of `seal_before`, has to be 32 bytes in base64 and `turn` not empty",
                path.display()
            );
        };
        Ok(Secrets {
            seal,
            seal_before,
            turn: file.turn,
            turn_before: file.turn_before,
        })
    }
}

/// Tells whoever reads the lock who holds it.
fn write_holder(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    write!(file, "{}", std::process::id())
}

/// Writes a private file in one step: readers see nothing or all of it. An existing file is replaced.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = write_temporary(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    finish(path, &temporary, written)
}

/// Like [`write_private`], but leaves an existing file as it is.
fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = temporary_beside(path)?;
    let written =
        write_temporary(&temporary, bytes).and_then(|()| match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    let removed = fs::remove_file(&temporary);
    finish(path, &temporary, written.and(removed))
}

fn finish(path: &Path, temporary: &Path, outcome: io::Result<()>) -> anyhow::Result<()> {
    if outcome.is_err() {
        let _ = fs::remove_file(temporary); // The first error is the one to tell.
    }
    outcome.with_context(|| format!("can't write {}", path.display()))?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)?
        .sync_all()
        .with_context(|| format!("can't sync {}", parent.display()))
}

/// A name nobody has used, not even an earlier process with the same id: what it left behind must not stop us.
fn temporary_beside(path: &Path) -> anyhow::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}.new", u64::from_ne_bytes(random()?)));
    Ok(name.into())
}

fn write_temporary(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Refuses a directory that others can read and that holds something else: closing somebody's home, or `/`, to everybody but us
/// would be the end of more than calls.
fn refuse_foreign(path: &Path) -> anyhow::Result<()> {
    // What is not there, or no directory, is told by whoever opens it.
    let Ok(mut entries) = fs::read_dir(path) else {
        return Ok(());
    };
    let is_ours = [SECRETS, DATABASE, LOCK]
        .iter()
        .any(|name| path.join(name).exists());
    let is_open = fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
    let holds_something =
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOST_AND_FOUND));
    if is_open && holds_something && !is_ours {
        bail!(
            "{} holds other files and is open to others; name a directory for offhook alone as `data_dir` or with --data",
            path.display()
        );
    }
    Ok(())
}

/// Makes a private folder, with those above it that are missing, or takes away the rights of others to it.
pub(crate) fn ensure_dir(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    if !path
        .try_exists()
        .with_context(|| format!("can't look at {shown}"))?
    {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(path);
        made.with_context(|| format!("can't make the data directory {shown}"))?;
    }
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        bail!("{shown} is not a directory");
    }
    close_to_others(path)
}

/// Takes the rights of group and others away from something of ours.
fn close_to_others(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let metadata = fs::metadata(path).with_context(|| format!("can't look at {shown}"))?;
    let me = nix::unistd::geteuid().as_raw();
    if metadata.uid() != me {
        bail!(
            "{shown} belongs to user {}, this process runs as {me}: run it as that user or change the owner",
            metadata.uid()
        );
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        tracing::warn!(path = %shown, mode = format!("{mode:o}"), "Others could read this, closing it to them");
        fs::set_permissions(path, Permissions::from_mode(mode & 0o700))
            .with_context(|| format!("can't change the mode of {shown}"))?;
    }
    Ok(())
}

pub(crate) fn random<const LEN: usize>() -> anyhow::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the operating system gave no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn secrets_are_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let data = DataDir::open(&path).unwrap();
        let first = data.load_secrets().unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&data.secrets()), 0o600);
        assert!(first.turn.len() >= 40);

        let again = DataDir::open(&path).unwrap().load_secrets().unwrap();
        assert_eq!((again.seal, again.turn), (first.seal, first.turn));
        let left_behind: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left_behind, ["secrets.toml"]);
    }

    #[test]
    fn modes_that_are_too_open_are_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        data.load_secrets().unwrap();
        data.prepare_database().unwrap();
        for path in [data.path().to_owned(), data.secrets(), data.database()] {
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }

        let data = DataDir::open(dir.path()).unwrap();
        data.load_secrets().unwrap();
        data.prepare_database().unwrap();
        assert_eq!(
            (
                mode(data.path()),
                mode(&data.secrets()),
                mode(&data.database())
            ),
            (0o700, 0o700, 0o700)
        );
    }

    #[test]
    fn damaged_secrets_are_refused_without_showing_them() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        for text in [
            "seal = 'hush",
            "seal = 'hush'\nturn = 'hush'",
            "seal = 'hush'",
            "seal = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='\nturn = 'x'\nseal_before = ['hush']",
            "hush = 1",
        ] {
            write_private(&data.secrets(), text.as_bytes()).unwrap();
            let error = format!("{:#}", data.load_secrets().err().unwrap());
            assert!(
                error.contains("secrets.toml") && !error.contains("hush"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_directory_of_somebody_else_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open.clone()).unwrap();
        fs::create_dir(dir.path().join(LOST_AND_FOUND)).unwrap();
        DataDir::open(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o700, "a new volume is as good as empty");

        fs::set_permissions(dir.path(), open).unwrap();
        fs::write(dir.path().join("letters"), "").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("holds other files"), "{error}");
        assert_eq!(mode(dir.path()), 0o755);
    }

    #[test]
    fn one_process_at_a_time_serves_from_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let lock = data.lock().unwrap();
        let error = data.lock().unwrap_err().to_string();
        assert!(error.contains("another offhook serves from"), "{error}");
        drop(lock);
        data.lock().unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(
            DataDir::open(&path)
                .unwrap_err()
                .to_string()
                .contains("is not a directory")
        );
    }
}
