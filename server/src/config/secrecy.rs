//! Whether the file of the settings keeps the secrets in it.

use std::fs::{File, metadata};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Config;

/// The largest file that is looked at, in bytes.
const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;

/// What others on this machine may do with a file that they read.
const READ_BY_OTHERS: u32 = 0o004;

/// Whether everybody on this machine can read a secret in `file`: a password of `[relay] users`, or a key of a third party.
///
/// A file that can't be read or is no file of settings tells nothing; whoever loads it says so.
pub fn is_exposed(file: &Path) -> bool {
    let Ok(metadata) = metadata(file) else {
        return false;
    };
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(FILE_LEN_MAX).read_to_string(&mut text));
    // The file alone: the environment is the process's own.
    metadata.permissions().mode() & READ_BY_OTHERS != 0
        && read.is_ok()
        && toml::from_str::<Config>(&text).is_ok_and(|config| config.relay.holds_secrets())
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    #[test]
    fn a_file_with_a_password_is_for_few_eyes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("offhook.toml");
        let check = |text: &str, mode: u32, expected: bool| {
            write(&file, text).unwrap();
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_exposed(&file), expected, "{text} {mode:o}");
        };
        let users = "[relay]\nusers = [{ name = 'acme:door', password = 'x' }]";
        check(users, 0o644, true);
        check(users, 0o640, false);
        check(users, 0o600, false);
        check("[relay]\nrealm = 'x'", 0o644, false);
        check("nonsense", 0o644, false);
        assert!(!is_exposed(&dir.path().join("none")));
    }
}
