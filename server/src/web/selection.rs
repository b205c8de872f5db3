// What of the web folders is served. The build script includes this file too, so that both ways of serving show the same files.

/// What a browser can load.
const EXTENSIONS: [&str; 12] =
    ["html", "js", "css", "svg", "png", "webp", "ico", "webmanifest", "woff2", "mp3", "wav", "txt"];

/// Folders that belong to tests and tools.
const SKIPPED_FOLDERS: [&str; 5] = ["node_modules", "test", "tests", "types", "dist"];

/// Whether the file at `path` (with `/` between folders) is for browsers.
fn is_served(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let hidden = |part: &str| part.starts_with('.') || SKIPPED_FOLDERS.contains(&part);
    EXTENSIONS.contains(&extension)
        && !name.starts_with('.')
        && !name.contains(".test.")
        && !name.contains(".config.")
        && !folders.split('/').any(hidden)
}
