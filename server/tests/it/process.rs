//! The process itself: how it starts, what it prints, how it ends.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{PATIENCE, free_port};

struct Process {
    child: Child,
    port: u16,
}

fn offhook(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.current_dir(folder);
    for (name, _) in std::env::vars() {
        if name.starts_with("OFFHOOK_") {
            command.env_remove(name);
        }
    }
    command
}

/// Starts `offhook` in `folder` without a configuration, on free ports, and waits until it says that it is ready.
fn start(folder: &Path) -> Process {
    let (port, relay_port) = (free_port(), free_port());
    let mut child = offhook(folder)
        .env("OFFHOOK_LISTEN", format!("['127.0.0.1:{port}']"))
        .env(
            "OFFHOOK_RELAY__LISTEN_UDP",
            format!("['127.0.0.1:{relay_port}']"),
        )
        .env("OFFHOOK_RELAY__LISTEN_TCP", "[]")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("is ready")),
        "it ended: {:?}",
        child.wait()
    );
    Process { child, port }
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended, as it should.
        let _ = self.child.wait();
    }
}

fn run(folder: &Path, args: &[&str]) -> Output {
    offhook(folder).args(args).output().unwrap()
}

#[test]
fn sigterm_ends_it_cleanly_and_the_next_start_keeps_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = start(dir.path());
    let idle = std::net::TcpStream::connect(("127.0.0.1", first.port)).unwrap();
    let secrets = std::fs::read(dir.path().join("offhook-data/secrets.toml")).unwrap();
    first.signal(Signal::SIGTERM);
    assert_eq!(first.exit_code(), Some(0));
    let mut log = String::new();
    first
        .child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(
        !log.contains("ERROR") && !log.contains("WARN") && !log.contains("panic"),
        "{log}"
    );
    drop(idle);

    let mut second = start(dir.path());
    assert_eq!(
        std::fs::read(dir.path().join("offhook-data/secrets.toml")).unwrap(),
        secrets
    );
    second.signal(Signal::SIGINT);
    assert_eq!(second.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    use std::io::Write;

    let dir = tempfile::tempdir().unwrap();
    let mut process = start(dir.path());
    // A request that never ends holds the first one up.
    let mut slow = std::net::TcpStream::connect(("127.0.0.1", process.port)).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        .unwrap();
    let mut err = BufReader::new(process.child.stderr.take().unwrap());
    process.signal(Signal::SIGTERM);
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert!(line.contains("a second signal ends at once"), "{line}");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code(), Some(130));
}

#[test]
fn a_second_process_on_the_same_data_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = start(dir.path());
    let second = offhook(dir.path())
        .env("OFFHOOK_LISTEN", format!("127.0.0.1:{}", free_port()))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(
        second.status.code() == Some(1) && error.contains("another offhook serves from"),
        "{error}"
    );
}

#[test]
fn a_misspelt_setting_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("offhook.toml"),
        "# mine\n[relay]\nport_mim = 50000\n",
    )
    .unwrap();
    for args in [
        &["config", "--check", "--config", "offhook.toml"][..],
        &["--config", "offhook.toml"],
    ] {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            error,
            "offhook: offhook.toml:3: unknown setting `port_mim`; did you mean `port_min`?\n"
        );
    }
    assert!(
        !dir.path().join("offhook-data").exists(),
        "a wrong file changes nothing on disk"
    );
}

#[test]
fn the_example_is_a_good_file() {
    let dir = tempfile::tempdir().unwrap();
    let example = run(dir.path(), &["config", "--example"]).stdout;
    std::fs::write(dir.path().join("offhook.toml"), example).unwrap();
    let output = run(
        dir.path(),
        &["config", "--check", "--config", "offhook.toml"],
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_account_has_a_key_and_its_users_get_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let none = run(dir.path(), &["token", "--user", "alice"]);
    assert!(
        String::from_utf8_lossy(&none.stderr).contains("offhook account create"),
        "{none:?}"
    );
    assert!(
        !dir.path().join("offhook-data").exists(),
        "a token from the wrong folder leaves nothing there"
    );

    let made = run(dir.path(), &["account", "create", "Acme"]);
    let made = String::from_utf8_lossy(&made.stdout).into_owned();
    let account = made
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap();
    let list = run(dir.path(), &["account", "list"]);
    assert_eq!(
        String::from_utf8_lossy(&list.stdout),
        format!("{account}  Acme\n")
    );

    let token = run(
        dir.path(),
        &[
            "token", "--user", "alice", "--name", "Alice", "--ttl", "15m",
        ],
    );
    assert_eq!(
        String::from_utf8_lossy(&token.stdout)
            .trim()
            .split('.')
            .count(),
        3,
        "{token:?}"
    );
}

#[test]
fn a_backend_changes_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let says = |args: &[&str]| {
        let output = run(dir.path(), args);
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).unwrap()
    };
    let key_of = |made: &str| {
        let line = made.lines().find(|line| line.starts_with("key"));
        line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    let old = key_of(&says(&["account", "create", "Acme"]));
    let new = key_of(&says(&["account", "key", "create"]));

    assert_eq!(
        says(&["account", "key", "revoke", &old]),
        format!("{old} is revoked.\n")
    );
    let list = says(&["account", "key", "list"]);
    let [first, second] = list.lines().collect::<Vec<_>>()[..] else {
        panic!("{list}");
    };
    assert!(
        first.starts_with(&old) && first.contains("revoked"),
        "{list}"
    );
    assert!(
        second.starts_with(&new) && !second.contains("revoked"),
        "{list}"
    );

    let unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    assert!(says(&["account", "key", "revoke", unknown]).contains("there is no API key"));
    assert!(says(&["account", "key", "revoke", "nonsense"]).contains("`nonsense` is no API key"));
}

#[test]
fn a_running_server_learns_of_what_is_applied_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(dir.path());
    let log = BufReader::new(server.child.stderr.take().unwrap());
    let (lines, said) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let _ = lines.send(line); // Nobody may listen any more.
        }
    });

    let file = dir.path().join("a.toml");
    std::fs::write(&file, "[trunks.pbx]\ntargets = ['sip:192.0.2.1']\n").unwrap();
    let applied = run(dir.path(), &["apply", "a.toml", "--yes"]);
    assert!(applied.status.success(), "{applied:?}");

    let warning = "nobody has said what becomes of calls for help";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match said.recv_timeout(left) {
            Ok(line) if line.contains(warning) => break,
            Ok(_) => {}
            Err(error) => panic!("the server says nothing of it: {error}"),
        }
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    reader.join().unwrap();
}
