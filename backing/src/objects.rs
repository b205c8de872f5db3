//! Objects: prompts, messages and recordings, as files in a folder.
//!
//! An object is put whole and read whole, under a key that begins with its Account, so that an Account's objects can be counted,
//! moved or deleted together. Another store comes in beside the folder, behind the same type.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use model::phone::rows::{Sha256Hex, SoundFormat};
use model::{AccountId, LegId, VoicemailId};

/// Where an object is: parts of plain characters between slashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new(account: AccountId, folder: &str, name: &str, format: SoundFormat) -> Self {
        Self(format!("{account}/{folder}/{name}.{}", format.extension()))
    }
}

/// The key of a prompt or of music: by what it is, so that the same file is there once.
pub fn prompt_key(account: AccountId, sha256: &Sha256Hex, format: SoundFormat) -> ObjectKey {
    ObjectKey::new(account, "prompts", sha256.as_str(), format)
}

/// The key of a message in a mailbox.
pub fn voicemail_key(account: AccountId, id: VoicemailId, format: SoundFormat) -> ObjectKey {
    ObjectKey::new(account, "voicemail", &id.to_string(), format)
}

/// The key of what was said in a Leg.
pub fn recording_key(account: AccountId, leg: LegId, format: SoundFormat) -> ObjectKey {
    ObjectKey::new(account, "recordings", &leg.to_string(), format)
}

/// A store of objects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    folder: PathBuf,
}

impl Objects {
    /// The store in `folder`, which is there.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        ensure!(folder.is_dir(), "{} is no folder", folder.display());
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Puts an object; one that is there is replaced. Whoever reads meanwhile has all of the old one or all of the new one, and after
    /// this it outlasts a power cut.
    pub async fn put(&self, key: &ObjectKey, bytes: Vec<u8>) -> anyhow::Result<()> {
        let path = self.path(key);
        blocking(move || write(&path, &bytes))
            .await
            .with_context(|| format!("can't keep the object {}", key.as_str()))
    }

    /// Reads an object; `None` where there is none.
    pub async fn get(&self, key: &ObjectKey) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.path(key);
        let read = blocking(move || match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        read.await
            .with_context(|| format!("can't read the object {}", key.as_str()))
    }

    /// Whether there is such an object.
    pub async fn has(&self, key: &ObjectKey) -> anyhow::Result<bool> {
        let path = self.path(key);
        blocking(move || path.try_exists())
            .await
            .with_context(|| format!("can't look for the object {}", key.as_str()))
    }

    /// Deletes an object; one that isn't there is as good as deleted.
    pub async fn delete(&self, key: &ObjectKey) -> anyhow::Result<()> {
        let path = self.path(key);
        let removed = blocking(move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        removed
            .await
            .with_context(|| format!("can't delete the object {}", key.as_str()))
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.folder.join(key.as_str())
    }
}

/// Files keep whoever waits for them; that is not for the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// Writes beside the place, then moves it there.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;

    let folder = path.parent().unwrap_or(Path::new("."));
    make_private_folder(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}.new", rand::random::<u64>()));
    let temporary = PathBuf::from(temporary);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(folder)?.sync_all()
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary); // The first error is the one to tell.
    }
    written
}

fn make_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_u128(1);

    #[tokio::test]
    async fn an_object_is_there_whole_until_it_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::in_folder(dir.path()).unwrap();
        let key = voicemail_key(ACCOUNT, VoicemailId::from_u128(7), SoundFormat::Wav);
        assert_eq!(objects.get(&key).await.unwrap(), None);
        assert!(!objects.has(&key).await.unwrap());

        objects.put(&key, vec![1; 100_000]).await.unwrap();
        objects.put(&key, vec![2; 3]).await.unwrap();
        assert_eq!(objects.get(&key).await.unwrap(), Some(vec![2; 3]));
        assert!(objects.has(&key).await.unwrap());
        let folder = dir.path().join(key.as_str());
        let beside = std::fs::read_dir(folder.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "nothing is left behind");

        objects.delete(&key).await.unwrap();
        objects.delete(&key).await.unwrap();
        assert_eq!(objects.get(&key).await.unwrap(), None);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_reads_an_object() {
        use std::os::unix::fs::MetadataExt;

        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::in_folder(dir.path()).unwrap();
        let key = recording_key(ACCOUNT, LegId::from_u128(7), SoundFormat::OggOpus);
        objects.put(&key, vec![1]).await.unwrap();
        let path = dir.path().join(key.as_str());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let folder = std::fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(folder.mode() & 0o777, 0o700);
    }
}
