//! Puts the web files into the binary: lists `web-demo/app` and `web-demo/client`, compresses what shrinks, and writes a table of
//! `include_bytes!` for `src/web/embedded.rs`. Calls no tool: the files are plain ES modules and need no build step.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The folders that are served, by the first part of their URL.
const FOLDERS: [&str; 2] = ["app", "client"];

include!("src/web/selection.rs");

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let web = fs::canonicalize(Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../web-demo"))
        .unwrap_or_default();

    let mut files = Vec::new();
    for folder in FOLDERS {
        let path = web.join(folder);
        println!("cargo::rerun-if-changed={}", path.display());
        if path.is_dir() {
            collect(&path, folder, &mut files)?;
        }
    }
    files.sort();

    let mut table = String::from("pub(super) static FILES: &[EmbeddedFile] = &[\n");
    for (number, (url, path)) in files.iter().enumerate() {
        let plain = fs::read(path)?;
        let packed = gzip(&plain)?;
        // A picture or a font is compressed already.
        let gzip = if packed.len() < plain.len() * 9 / 10 {
            let file = out.join(format!("{number}.gz"));
            fs::write(&file, packed)?;
            format!("Some(include_bytes!({:?}))", file.display().to_string())
        } else {
            "None".to_owned()
        };
        let plain = path.display().to_string();
        writeln!(
            table,
            "    EmbeddedFile {{ path: {url:?}, plain: include_bytes!({plain:?}), gzip: {gzip} }},"
        )?;
    }
    table.push_str("];\n");
    fs::write(out.join("web_files.rs"), table)?;
    Ok(())
}

/// Gathers `(path in the URL, file)` below `folder`, without what belongs to tests and tools.
fn collect(
    folder: &Path,
    url: &str,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (path, url) = (entry.path(), format!("{url}/{name}"));
        if entry.file_type()?.is_dir() {
            if !SKIPPED_FOLDERS.contains(&name.as_str()) {
                collect(&path, &url, files)?;
            }
        } else if is_served(&url) {
            files.push((url, path));
        }
    }
    Ok(())
}

fn gzip(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain)?;
    encoder.finish()
}
