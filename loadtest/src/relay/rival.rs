//! The servers that are measured: ours, another one, or the floor; each a child process on a core of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use relay_core::{Credentials, Secret};
use tempfile::TempDir;

use crate::pinned::free_port;
use crate::process::Process;

/// How long a fresh server may take until it answers.
const START: Duration = Duration::from_secs(20);

/// How long the credentials live: longer than any run.
const CREDENTIALS_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rival {
    /// coturn's `turnserver`, as Debian packages it.
    Coturn,
    /// turn-rs' `turn-server`.
    TurnServer,
    /// The bare forwarder of this program.
    Floor,
}

/// A kind of server to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    Rival(Rival),
    /// The floor, with bursts in one call.
    FloorBursts,
}

impl Kind {
    pub(super) fn is_floor(self) -> bool {
        matches!(self, Kind::FloorBursts | Kind::Rival(Rival::Floor))
    }
}

/// A server that answers.
pub(super) struct Running {
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    pub(super) process: Process,
    /// User name and password.
    pub(super) credentials: (String, String),
    child: Child,
    folder: TempDir,
}

impl Running {
    /// Starts a server on loopback and waits until it answers. `program` is ours.
    pub(super) fn start(
        kind: Kind,
        core: Option<usize>,
        program: &Path,
    ) -> anyhow::Result<Running> {
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let secret = ulid::Ulid::generate().to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let credentials = Credentials::new([Secret::new(&secret)])
            .issue(now + CREDENTIALS_LIFETIME, "load", "test")
            .context("no credentials")?;

        let itself = std::env::current_exe()?;
        let mut command = Command::new(&itself);
        command.arg("pinned");
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        command.arg("--");
        match kind {
            Kind::Ours => ours(&mut command, program, address, &secret, folder.path())?,
            Kind::Rival(Rival::Coturn) => coturn(&mut command, address, &secret, folder.path()),
            Kind::Rival(Rival::TurnServer) => {
                turn_server(&mut command, address, &secret, folder.path())?;
            }
            Kind::Rival(Rival::Floor) => {
                command
                    .arg(itself)
                    .args(["relay-floor", "--listen", &address.to_string()]);
            }
            Kind::FloorBursts => {
                command.arg(itself);
                command.args(["relay-floor", "--bursts", "--listen", &address.to_string()]);
            }
        }
        let log = File::create(folder.path().join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start a server")?;
        let process = Process(child.id());
        let mut running = Running {
            kind,
            address,
            process,
            credentials,
            child,
            folder,
        };
        running.wait_until_it_answers()?;
        Ok(running)
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.connect(self.address)?;
        let question = match self.kind.is_floor() {
            true => b"\0hello 0 0".to_vec(),
            false => relay_stun::client::Client::new("", "", 0)
                .request(relay_stun::client::Request::Binding),
        };
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}: {}", self.last_words());
            }
            ensure!(
                started.elapsed() < START,
                "the server does not answer: {}",
                self.last_words()
            );
            // A port that is not yet open refuses.
            if socket.send(&question).is_ok() && socket.recv(&mut [0; 2048]).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of what the server said.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn ours(
    command: &mut Command,
    program: &Path,
    address: SocketAddr,
    secret: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let data = folder.join("data");
    std::fs::create_dir(&data)?;
    let seal = BASE64_STANDARD.encode([0; 32]);
    std::fs::write(
        data.join("secrets.toml"),
        format!("seal = '{seal}'\nturn = '{secret}'\n"),
    )?;
    command
        .arg(program)
        .args(["serve", "--roles", "relay"])
        .env("OFFHOOK_DATA_DIR", data)
        .env(
            "OFFHOOK_LISTEN",
            format!("[\"127.0.0.1:{}\"]", free_port()?),
        )
        .env("OFFHOOK_LOG__FILTER", "warn")
        .env("OFFHOOK_RELAY__LISTEN_UDP", format!("[\"{address}\"]"))
        .env("OFFHOOK_RELAY__LISTEN_TCP", "[]")
        .env("OFFHOOK_RELAY__PORT_MIN", "20000")
        .env("OFFHOOK_RELAY__PEERS_ALLOW", "[\"127.0.0.0/8\"]")
        .env("OFFHOOK_RELAY__ALLOCATIONS_MAX", "20000")
        .env("OFFHOOK_RELAY__STRANGER_ANSWERS_PER_SECOND_MAX", "1000000")
        .env("OFFHOOK_RELAY__ALLOCATIONS_PER_USER_MAX", "20000")
        .env("OFFHOOK_RELAY__ALLOCATIONS_PER_ACCOUNT_MAX", "20000");
    Ok(())
}

fn coturn(command: &mut Command, address: SocketAddr, secret: &str, folder: &Path) {
    command
        .args([
            "turnserver",
            "-n",
            "-m",
            "1",
            "-r",
            "loadtest",
            "-L",
            "127.0.0.1",
            "-E",
            "127.0.0.1",
        ])
        .args(["-p", &address.port().to_string(), "--min-port", "20000"])
        .args(["--use-auth-secret", "--static-auth-secret", secret])
        .args([
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--allow-loopback-peers",
            "--no-rfc5780",
        ])
        .args(["--no-stdout-log", "--log-file"])
        .arg(folder.join("coturn.log"))
        .arg("--pidfile")
        .arg(folder.join("coturn.pid"));
}

fn turn_server(
    command: &mut Command,
    address: SocketAddr,
    secret: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let path = folder.join("turn-server.toml");
    let text = format!(
        "[server]\nrealm = \"loadtest\"\nmax-threads = 1\n\n\
         [[server.interfaces]]\ntransport = \"udp\"\nlisten = \"{address}\"\nexternal = \"{address}\"\n\n\
         [auth]\nstatic-auth-secret = \"{secret}\"\n"
    );
    std::fs::write(&path, text)?;
    command.args(["turn-server", "--config"]).arg(path);
    Ok(())
}
