//! The server under load: one that runs already, or a child process of our own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::TargetArguments;
use crate::client::Target;
use crate::process::Process;
use crate::tls;

/// How long a fresh server may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end.
const END: Duration = Duration::from_secs(40);

/// What a server of our own may do more than the defaults allow: here few Users do the work of many, in one Account.
/// The limits of connections stay; the clients come from many loopback addresses.
pub(crate) const RAISED: [(&str, &str); 9] = [
    ("OFFHOOK_SIGNALING__LIMITS__COMMANDS_PER_SECOND", "1000000"),
    ("OFFHOOK_SIGNALING__LIMITS__COMMANDS_BURST", "1000000"),
    (
        "OFFHOOK_SIGNALING__LIMITS__COMMANDS_PER_ACCOUNT_PER_SECOND",
        "100000000",
    ),
    (
        "OFFHOOK_SIGNALING__LIMITS__COMMANDS_PER_ACCOUNT_BURST",
        "100000000",
    ),
    (
        "OFFHOOK_SIGNALING__LIMITS__INVITES_PER_USER_PER_SECOND",
        "100000",
    ),
    (
        "OFFHOOK_SIGNALING__LIMITS__INVITES_PER_USER_BURST",
        "100000",
    ),
    ("OFFHOOK_DRAIN_SECONDS", "1"),
    ("OFFHOOK_SFU__PORT", "0"),
    ("OFFHOOK_LOG__FILTER", "warn"),
];

/// The server, and how to see its process.
pub(crate) struct Server {
    /// Where to connect.
    pub(crate) target: Target,
    process: Option<Process>,
    child: Option<(Child, PathBuf)>,
}

impl Server {
    /// Finds the server of `--url`, or starts one.
    pub(crate) async fn reach(arguments: &TargetArguments) -> anyhow::Result<Self> {
        match &arguments.url {
            Some(url) => Self::running(url, arguments),
            None => Self::start(arguments).await,
        }
    }

    /// The process to measure.
    pub(crate) fn process(&self) -> anyhow::Result<Process> {
        self.process
            .context("with --url, figures of the server need --pid")
    }

    /// Ends the server if it is ours, and fails when it did not end well.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        let Some((mut child, folder)) = self.child.take() else {
            return Ok(());
        };
        if let Some(pid) = child.id() {
            // Asks as an operator would, so that every run also proves a clean end.
            let asked = Command::new("kill")
                .args(["-TERM", &pid.to_string()])
                .status()
                .await?;
            if !asked.success() {
                bail!("can't end the server");
            }
        }
        let status = tokio::time::timeout(END, child.wait())
            .await
            .context("the server does not end")??;
        if !status.success() {
            bail!("the server ended with {status}: {}", last_lines(&folder));
        }
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("can't remove {}", folder.display()))
    }

    /// What to say when a run fails.
    pub(crate) fn last_words(&self) -> String {
        format!("the run against {} failed", self.target.address)
    }

    fn running(url: &str, arguments: &TargetArguments) -> anyhow::Result<Self> {
        Ok(Self {
            target: Self::target_of(url, arguments.ca.as_deref())?,
            process: arguments.pid.map(Process),
            child: None,
        })
    }

    /// How to reach the server at `url`, whose certificate comes from the authority in the file `ca`.
    pub(crate) fn target_of(url: &str, ca: Option<&Path>) -> anyhow::Result<Target> {
        let (scheme, rest) = url.split_once("://").context("the URL has no scheme")?;
        let authority = rest.trim_end_matches('/');
        let address = std::net::ToSocketAddrs::to_socket_addrs(authority)
            .with_context(|| format!("`{authority}` is not host:port"))?
            .find(SocketAddr::is_ipv4)
            .context("no IPv4 address")?;
        let tls = match (scheme, ca) {
            ("http", _) => None,
            ("https", Some(ca)) => Some(tls::connector(&std::fs::read_to_string(ca)?)?),
            _ => bail!("`{url}` is neither http:// nor https:// with --ca"),
        };
        Ok(Target {
            address,
            authority: authority.into(),
            tls,
        })
    }

    async fn start(arguments: &TargetArguments) -> anyhow::Result<Self> {
        let program = match &arguments.server {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("offhook"),
        };
        let folder = std::env::temp_dir().join(format!("offhook-loadtest-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let log = std::fs::File::create(folder.join("log"))?;

        let mut command = Command::new(&program);
        command
            .arg("serve")
            .envs(RAISED)
            .env("OFFHOOK_LISTEN", format!("[\"{address}\"]"));
        command
            .env("OFFHOOK_DATA_DIR", folder.join("data"))
            .env("OFFHOOK_ROLES", "[\"signaling\", \"web\"]");
        let tls = if arguments.tls {
            let authority = tls::write_certificate(&folder)?;
            command.env(
                "OFFHOOK_TLS__CERTIFICATE_FILE",
                folder.join("certificate.pem"),
            );
            command.env("OFFHOOK_TLS__KEY_FILE", folder.join("key.pem"));
            Some(tls::connector(&authority)?)
        } else {
            None
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("can't start {}", program.display()))?;
        let pid = child.id().context("the server has no process id")?;
        wait_until_it_listens(&mut child, address, &folder).await?;

        let target = Target::on_localhost(address, tls);
        Ok(Self {
            target,
            process: Some(Process(pid)),
            child: Some((child, folder)),
        })
    }
}

async fn wait_until_it_listens(
    child: &mut Child,
    address: SocketAddr,
    folder: &Path,
) -> anyhow::Result<()> {
    let started = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("the server ended with {status}: {}", last_lines(folder));
        }
        if started.elapsed() > START {
            bail!(
                "the server does not listen on {address}: {}",
                last_lines(folder)
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn last_lines(folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// A port nobody listens on at the moment.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
