//! The servers that are measured: ours, Janus, or a floor; each a fresh child process on a core of its own.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::network::MEDIA_PREFIX;
use crate::pinned::free_port;
use crate::process::Process;

/// How long a fresh server may take until it answers.
const START: Duration = Duration::from_secs(20);

/// The most Participants of a run.
const PARTICIPANTS_MAX: &str = "5000";

/// Which other server ours is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rival {
    /// Janus' VideoRoom, as Debian packages it, with two event loops.
    Janus,
    /// None: ours and the floors alone.
    Nobody,
}

/// A kind of server to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    Janus,
    /// A call of the system for each packet and receiver, and nothing else.
    Floor,
    /// Sealing, and a call for each burst and receiver.
    FloorBursts,
}

/// A server that answers.
pub(super) struct Running {
    pub(super) kind: Kind,
    /// Where its signaling is; of a floor, where it takes media.
    pub(super) address: SocketAddr,
    pub(super) process: Process,
    child: Child,
    folder: TempDir,
}

impl Running {
    /// Starts a server whose media is at `ip`, and waits until it answers. `program` is ours.
    pub(super) fn start(
        kind: Kind,
        core: Option<usize>,
        program: &Path,
        ip: IpAddr,
    ) -> anyhow::Result<Running> {
        let folder = tempfile::tempdir()?;
        let itself = std::env::current_exe()?;
        let mut command = Command::new(&itself);
        command.arg("pinned");
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        command.arg("--");
        let signaling = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let address = match kind {
            Kind::Ours => {
                ours(&mut command, program, signaling, ip, folder.path())?;
                signaling
            }
            Kind::Janus => {
                let address = SocketAddr::new(ip, free_port()?);
                janus(&mut command, address, folder.path())?;
                address
            }
            Kind::Floor | Kind::FloorBursts => {
                let address = SocketAddr::new(ip, free_port()?);
                command.arg(itself);
                command.args(["sfu-floor", "--listen", &address.to_string()]);
                if kind == Kind::FloorBursts {
                    command.arg("--bursts");
                }
                address
            }
        };
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
            child,
            folder,
        };
        running.wait_until_it_answers()?;
        Ok(running)
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
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
            let answers = match self.kind {
                Kind::Ours | Kind::Janus => TcpStream::connect(self.address).is_ok(),
                Kind::Floor | Kind::FloorBursts => super::floor::answers(self.address)?,
            };
            if answers {
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

/// What a server of our own may do more than the defaults allow: here one machine is many people, and joins at once.
fn ours(
    command: &mut Command,
    program: &Path,
    address: SocketAddr,
    ip: IpAddr,
    folder: &Path,
) -> anyhow::Result<()> {
    let data = folder.join("data");
    std::fs::create_dir(&data)?;
    command
        .arg(program)
        .arg("serve")
        .envs(crate::server::RAISED)
        .env("OFFHOOK_DATA_DIR", data)
        .env("OFFHOOK_LISTEN", format!("[\"{address}\"]"))
        .env("OFFHOOK_ROLES", "[\"signaling\", \"web\"]")
        .env("OFFHOOK_SFU__LISTEN_IPS", format!("[\"{ip}\"]"))
        .env("OFFHOOK_SFU__THREADS", "1")
        .env("OFFHOOK_SFU__PARTICIPANTS_MAX", PARTICIPANTS_MAX)
        .env("OFFHOOK_SFU__PARTICIPANTS_PER_ROOM_MAX", PARTICIPANTS_MAX)
        .env(
            "OFFHOOK_SIGNALING__LIMITS__PARTICIPANTS_PER_ROOM_MAX",
            PARTICIPANTS_MAX,
        );
    Ok(())
}

/// Plugins and transports that have no part in this.
const JANUS_PLUGINS: &str = "libjanus_audiobridge.so,libjanus_duktape.so,libjanus_lua.so,libjanus_nosip.so,libjanus_recordplay.so,libjanus_sip.so,libjanus_textroom.so,libjanus_voicemail.so,libjanus_streaming.so";
const JANUS_TRANSPORTS: &str =
    "libjanus_rabbitmq.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_http.so";

/// The Room all clients of Janus meet in.
pub(super) const JANUS_ROOM: u64 = 1234;

fn janus(command: &mut Command, address: SocketAddr, folder: &Path) -> anyhow::Result<()> {
    let (ip, port) = (address.ip(), address.port());
    // Two event loops instead of a thread for each connection: a third cheaper.
    let main = format!(
        "general: {{\n log_to_stdout = true\n debug_level = 3\n admin_secret = \"x\"\n event_loops = 2\n session_timeout = 0\n}}\n\
         media: {{\n rtp_port_range = \"20000-40000\"\n dtls_mtu = 1200\n}}\n\
         nat: {{\n ice_lite = true\n ice_enforce_list = \"{MEDIA_PREFIX}\"\n nice_debug = false\n full_trickle = false\n}}\n\
         plugins: {{\n disable = \"{JANUS_PLUGINS}\"\n}}\n\
         transports: {{\n disable = \"{JANUS_TRANSPORTS}\"\n}}\n"
    );
    let sockets = format!(
        "general: {{\n json = \"compact\"\n ws = true\n ws_port = {port}\n ws_ip = \"{ip}\"\n wss = false\n}}\nadmin: {{\n admin_ws = false\n}}\n"
    );
    let rooms = format!(
        "general: {{\n}}\nroom-{JANUS_ROOM}: {{\n description = \"loadtest\"\n publishers = 200\n bitrate = 4000000\n fir_freq = 0\n \
         audiocodec = \"opus\"\n videocodec = \"vp8\"\n record = false\n notify_joining = false\n}}\n"
    );
    for (name, text) in [
        ("janus.jcfg", main),
        ("janus.transport.websockets.jcfg", sockets),
        ("janus.plugin.videoroom.jcfg", rooms),
    ] {
        std::fs::write(folder.join(name), text)?;
    }
    command
        .arg("janus")
        .arg("-F")
        .arg(folder)
        .arg("-C")
        .arg(folder.join("janus.jcfg"));
    Ok(())
}
