//! `offhook apply`, as a person and a script run it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A data directory with one Account, and a folder of files.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let made = site.offhook(&["account", "create", "Acme"]);
        assert!(made.status.success(), "{}", words(&made));
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn offhook(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_offhook"))
            .args(arguments)
            .arg("--data")
            .arg(self.path("data"))
            .current_dir(self.dir.path())
            .env_clear()
            .env("BRANCH_PASSWORD", "branch hush")
            .output()
            .unwrap()
    }

    /// Applies `file` with `--yes`; returns the exit code and everything that was said.
    fn apply(&self, file: &str) -> (Option<i32>, String) {
        let out = self.offhook(&["apply", file, "--yes"]);
        (out.status.code(), words(&out))
    }

    fn look(&self, file: &str) -> (Option<i32>, String) {
        let out = self.offhook(&["apply", file, "--dry-run"]);
        (out.status.code(), words(&out))
    }
}

fn words(out: &Output) -> String {
    [&out.stdout, &out.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes))
        .concat()
}

/// A WAV file with some sound of 8 kHz in it.
fn wav() -> Vec<u8> {
    let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(1_600_u32.to_le_bytes());
    wav.extend([7; 1_600]);
    wav
}

/// The example of the manual.
fn example() -> String {
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/telephony.md");
    let manual = fs::read_to_string(Path::new(manual)).unwrap();
    let example = manual.split("```toml\n").nth(1).unwrap();
    example.split("```").next().unwrap().to_owned()
}

fn with_example() -> Site {
    let site = Site::new();
    site.write("acme.toml", example());
    site.write("welcome.wav", wav());
    site.write("waiting.wav", wav());
    site.write("carrier.password", "carrier hush\n");
    site.write("alice-desk.password", "alice hush\n");
    site.write("weekly.pin", "271828\n");
    site
}

#[test]
fn the_example_of_the_manual_is_applied_as_it_stands_and_again_without_a_change() {
    let site = with_example();
    let (code, said) = site.look("acme.toml");
    assert_eq!(code, Some(2), "{said}");
    for line in [
        "(Acme)\n",
        "+ trunks.carrier\n",
        "+ menus.main\n",
        " password = (secret)\n",
    ] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
    assert!(!said.contains("hush") && !said.contains("271828"), "{said}");
    assert!(!said.contains("Warning"), "{said}");

    let (code, said) = site.apply("acme.toml");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" 0 changed, 0 removed.\nApplied."), "{said}");

    for (code, said) in [site.look("acme.toml"), site.apply("acme.toml")] {
        assert_eq!(code, Some(0), "{said}");
        assert!(said.ends_with("Nothing to change.\n"), "{said}");
    }
    // Both prompts are one file.
    let prompts: Vec<_> = fs::read_dir(site.path("data/objects"))
        .unwrap()
        .map(|account| account.unwrap().path().join("prompts"))
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .collect();
    assert_eq!(prompts.len(), 1);
}

#[test]
fn a_section_is_whole_and_another_stays() {
    let site = with_example();
    assert_eq!(site.apply("acme.toml").0, Some(0));
    site.write(
        "some.toml",
        "[hours.office]\nzone = 'UTC'\nweekly.monday = ['09:00-10:00']\n[users]\n",
    );
    let (code, said) = site.apply("some.toml");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("~ hours.office\n"), "{said}");
    assert!(
        said.contains("    zone: \"Europe/Berlin\" → \"UTC\"\n"),
        "{said}"
    );
    assert!(
        said.contains("- users.alice\n0 added, 1 changed, 1 removed.\n"),
        "{said}"
    );

    // What others refer to can't go alone.
    site.write("wrong.toml", "queues = {}\n");
    let (code, said) = site.apply("wrong.toml");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("menus.main.choices.1: there is no `sales` in `queues`"),
        "{said}"
    );
    let (code, said) = site.look("some.toml");
    assert_eq!(
        (code, said.ends_with("Nothing to change.\n")),
        (Some(0), true),
        "{said}"
    );
}

#[test]
fn every_mistake_is_told_with_its_line_and_nothing_changes() {
    let site = Site::new();
    let rows = [
        (
            "[trunks.a]\ntargets = ['a.example']",
            "a.toml:2: `a.example` is no SIP target",
        ),
        ("[trunks.A]\n", "a.toml:1: `A` is no name"),
        (
            "[trunks.a]\ntarget = []",
            "a.toml:2: unknown setting `target`; did you mean `targets`?",
        ),
        (
            "[trunk.a]\n",
            "a.toml:1: unknown setting `trunk`; did you mean `trunks`?",
        ),
        (
            "[trunks.a]\n\nsrtp = 'of'",
            "a.toml:3: unknown variant `of`, expected",
        ),
        (
            "[trunks.a]\ntargets = ['sip:a']\n[trunks.a]\n",
            "a.toml:3: ",
        ),
        (
            "[trunks.a]\npeering.registration = { user = 'a' }\ntargets = ['sip:a']",
            "a.toml:1: trunks.a.password: ",
        ),
        (
            "[trunks.a]\ntargets = ['sip:a']\npassword_file = 'gone'",
            "a.toml:3: `password_file`: can't read ",
        ),
        (
            "[trunks.a]\ntargets = ['sip:a']\npassword_env = 'GONE'",
            "a.toml:3: `password_env`: there is no variable GONE",
        ),
        (
            "[trunks.a]\npassword = 'hush'\npassword_env = 'BRANCH_PASSWORD'",
            "a.toml:3: `password_env` says again",
        ),
        (
            "[trunks.a]\npassword = 12345",
            "a.toml:2: `password` is not in quotes",
        ),
        (
            "[trunks.a]\ntargets = ['sip:a']\nlimits = { calls = 0 }",
            "a.toml:3: trunks.a.limits.calls: 0 is not 1 to",
        ),
        (
            "[phones.a]\nuser = 'a'\npassword = 'hush'\nha1 = 'hush'",
            "a.toml:4: this is no hash of 32",
        ),
        (
            "[phones.a]\nuser = 'a'\npassword = 'hush'\nha1 = '0123456789abcdef0123456789abcdef'",
            "a.toml:4: a phone has a password or its hash",
        ),
        (
            "[phones.a]\nuser = 'a'",
            "a.toml:1: phones.a.password: a phone needs one",
        ),
        (
            "[pins.a]\nroom = 'a'\npin = 'hush'",
            "a.toml:3: pins.a.pin: it is not 4 to 12 digits",
        ),
        ("[prompts.a]\nfile = 'a.toml'", "a.toml:2: "),
        ("[prompts.a]\nfile = 'gone.wav'", "a.toml:2: can't read "),
        (
            "[numbers.112]\nto = 'busy'",
            "a.toml:1: `112` is an emergency number",
        ),
        (
            "[numbers.20]\nto = { queue = 'a' }",
            "a.toml:2: numbers.20.to: there is no `a` in `queues`",
        ),
        ("[numbers.20]\nto = 'nowhere'", "a.toml:2: "),
        (
            "[hours.a]\nzone = 'Mars'",
            "a.toml:2: `Mars` is no time zone",
        ),
        (
            "[hours.a]\nzone = 'UTC'\nweekly.monday = ['9-5']",
            "a.toml:3: `9-5` is no span",
        ),
        ("account = 7", "a.toml:1: `account` is the id or the name"),
        ("account = 'Globex'", "there is no Account `Globex`"),
        ("[trunks.a\n", "a.toml:1: "),
    ];
    for (text, expected) in rows {
        site.write("a.toml", text);
        let (code, said) = site.apply("a.toml");
        assert_eq!(code, Some(1), "{text}\n{said}");
        assert!(
            said.contains(expected),
            "{text}\n  got      {said}\n  expected {expected}"
        );
        assert!(
            !said.contains("hush") && !said.contains("12345"),
            "{text}\n{said}"
        );
    }
    // Several at once.
    site.write(
        "a.toml",
        "[numbers.20]\nto = { queue = 'a' }\n[numbers.21]\nto = { menu = 'b' }",
    );
    let (_, said) = site.apply("a.toml");
    assert!(
        said.contains("a.toml:2: ") && said.contains("a.toml:4: "),
        "{said}"
    );
    site.write("a.toml", "");
    assert!(site.look("a.toml").1.ends_with("Nothing to change.\n"));
}

#[test]
fn what_a_script_does_not_agree_to_does_not_happen() {
    let site = Site::new();
    site.write(
        "a.toml",
        "[trunks.pbx]\ntargets = ['sip:192.0.2.1']\npassword = 'hush'\n",
    );
    let out = site.offhook(&["apply", "a.toml"]);
    assert_eq!(out.status.code(), Some(1));
    let said = words(&out);
    assert!(said.contains("agree with --yes"), "{said}");
    assert!(
        said.contains("Warning: there is a Trunk, and nobody has said"),
        "{said}"
    );
    assert_eq!(site.look("a.toml").0, Some(2), "nothing was changed");

    // A secret in a file that all can read is told of.
    fs::set_permissions(site.path("a.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = site.apply("a.toml");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("a.toml holds a secret, and everybody"),
        "{said}"
    );

    // The same secret from elsewhere is the same.
    site.write(
        "a.toml",
        "[trunks.pbx]\ntargets = ['sip:192.0.2.1']\npassword_file = 'p'\n",
    );
    site.write("p", "hush\n");
    assert_eq!(site.look("a.toml").0, Some(0));
    site.write("p", "another\n");
    let (code, said) = site.look("a.toml");
    assert_eq!(code, Some(2));
    assert!(
        said.contains("password: (secret) → (another secret)"),
        "{said}"
    );
}
