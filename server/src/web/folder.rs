//! Files from a folder, read at every request, for work on the page.

use std::path::{Component, Path, PathBuf};

use axum::body::Bytes;

use super::{File, Version, short_hash};

include!("selection.rs");

/// The folder that holds `app` and `client`.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads `app/…` or `client/…`; `None` when there is no such file or `path` tries to leave the folder.
    pub(super) async fn get(&self, path: &str) -> Option<File> {
        let relative = Path::new(path);
        let mut parts = relative.components();
        let Some(Component::Normal(first)) = parts.next() else {
            return None;
        };
        if (first != "app" && first != "client")
            || !parts.all(|part| matches!(part, Component::Normal(_)))
        {
            return None;
        }
        if !is_served(path) {
            return None;
        }
        let plain: Bytes = tokio::fs::read(self.path.join(relative)).await.ok()?.into();
        Some(File {
            etag: format!("\"{}\"", short_hash([&plain[..]])),
            plain,
            gzip: None,
        })
    }

    /// Hashes the names, sizes and times of all files: that changes whenever one is saved.
    pub(super) async fn version(&self) -> Version {
        let (mut seen, mut files) = (Vec::new(), Vec::new());
        let mut folders = vec!["app".to_owned(), "client".to_owned()];
        while let Some(folder) = folders.pop() {
            let Ok(mut entries) = tokio::fs::read_dir(self.path.join(&folder)).await else {
                continue;
            };
            while let Ok(Some(entry)) = entries.next_entry().await {
                let Ok(metadata) = entry.metadata().await else {
                    continue;
                };
                let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
                if metadata.is_dir()
                    && !SKIPPED_FOLDERS.contains(&&*entry.file_name().to_string_lossy())
                {
                    folders.push(path);
                } else if metadata.is_file() && is_served(&path) {
                    seen.push(format!(
                        "{path} {} {:?}",
                        metadata.len(),
                        metadata.modified().ok()
                    ));
                    files.push(format!("/{path}"));
                }
            }
        }
        seen.sort();
        files.sort();
        Version {
            version: short_hash(seen.iter().map(String::as_bytes)),
            files,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_outside_the_folder_is_served() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        std::fs::write(dir.path().join("app/a.js"), "1").unwrap();
        std::fs::write(dir.path().join("secret"), "2").unwrap();
        let folder = Folder::new(dir.path().to_owned());

        assert_eq!(folder.get("app/a.js").await.unwrap().plain, "1");
        for path in [
            "secret",
            "app/../secret",
            "../x",
            "/etc/passwd",
            "app",
            "app/",
            "app/none",
            ".",
            "",
        ] {
            assert!(folder.get(path).await.is_none(), "{path}");
        }
    }
}
