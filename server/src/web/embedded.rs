//! The files in the binary, hashed once when the server starts.

use std::collections::HashMap;

use axum::body::Bytes;

use super::{File, Version, short_hash};

/// One file as the build script found it.
pub(super) struct EmbeddedFile {
    path: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/web_files.rs"));

/// All files by path.
#[derive(Debug)]
pub(super) struct Files {
    files_by_path: HashMap<&'static str, File>,
}

impl Files {
    pub(super) fn load() -> Self {
        let files_by_path = FILES.iter().map(|file| (file.path, ready(file))).collect();
        Self { files_by_path }
    }

    pub(super) fn get(&self, path: &str) -> Option<File> {
        self.files_by_path.get(path).cloned()
    }

    pub(super) fn version(&self) -> Version {
        let parts = FILES
            .iter()
            .flat_map(|file| [file.path.as_bytes(), b"\0", file.plain]);
        Version {
            version: short_hash(parts),
            files: FILES.iter().map(|file| format!("/{}", file.path)).collect(),
        }
    }
}

fn ready(file: &EmbeddedFile) -> File {
    File {
        plain: Bytes::from_static(file.plain),
        gzip: file.gzip.map(Bytes::from_static),
        etag: format!("\"{}\"", short_hash([file.plain])),
    }
}
