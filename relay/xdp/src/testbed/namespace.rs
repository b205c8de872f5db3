//! Network namespaces without names: the kernel takes them down with the last thread and descriptor
//! in them, however a test ends.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::thread;

use crate::asm::{Assembler, R0};
use crate::program::XDP_PASS;
use crate::sys::{self, AttachFlags};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new one, which the calling thread is in from now on. Programs in it may ask for routes, and
    /// IPv6 addresses can be used at once.
    ///
    /// # Errors
    ///
    /// The kernel makes none, or its settings can't be written.
    pub fn new() -> io::Result<Namespace> {
        // SAFETY: the call takes no pointer; only this thread changes its namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let namespace = Namespace(File::open("/proc/thread-self/ns/net")?);
        ip("link set lo up")?;
        for family in ["ipv4", "ipv6"] {
            fs::write(format!("/proc/sys/net/{family}/conf/lo/forwarding"), "1")?;
        }
        fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")?;
        Ok(namespace)
    }

    /// Moves the calling thread, and what it starts from now on, into the namespace.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open, and the call takes no pointer.
        match unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What `ip` knows the namespace by.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// A relay between a client and a peer, each in a namespace of its own, joined by virtual cables:
/// the relay has `c0` toward the client's `c1`, and `p0` toward the peer's `p1`. Their addresses are
/// 198.18.1.1 and .2, 198.18.2.1 and .2, and the same as 2001:2:0:1::1 to 2001:2:0:2::2.
#[derive(Debug)]
pub struct Cables {
    /// The relay's.
    pub relay: Namespace,
    /// The client's.
    pub client: Namespace,
    /// The peer's.
    pub peer: Namespace,
    _programs: [OwnedFd; 2],
}

impl Cables {
    /// Lays the cables. The calling thread is in the relay's namespace afterwards.
    ///
    /// # Errors
    ///
    /// The kernel's, or those of `ip` and `ethtool`.
    pub fn new() -> io::Result<Cables> {
        let relay = Namespace::new()?;
        let other = |name: &str, net: u8| {
            let other = Namespace::new()?;
            relay.enter()?;
            let path = other.path();
            ip(&format!(
                "link add {name}0 type veth peer name {name}1 netns {path}"
            ))?;
            for (end, host) in [(0, 1), (1, 2)] {
                if end == 1 {
                    other.enter()?;
                }
                ip(&format!("link set {name}{end} up"))?;
                ip(&format!("addr add 198.18.{net}.{host}/24 dev {name}{end}"))?;
                ip(&format!(
                    "addr add 2001:2:0:{net}::{host}/64 dev {name}{end} nodad"
                ))?;
            }
            // The far end of a virtual cable takes a program's frames only where one runs there
            // too, and its checksums must be made by itself, as they are on a wire.
            ethtool(&format!("-K {name}1 tx off"))?;
            let ends = end_of_cable(&format!("{name}1"), XDP_PASS)?;
            Ok::<_, io::Error>((other, ends))
        };
        let ((client, of_client), (peer, of_peer)) = (other("c", 1)?, other("p", 2)?);
        relay.enter()?;
        Ok(Cables {
            relay,
            client,
            peer,
            _programs: [of_client, of_peer],
        })
    }
}

/// Attaches a program to `interface` that gives every frame this verdict.
pub(super) fn end_of_cable(interface: &str, verdict: i32) -> io::Result<OwnedFd> {
    let mut a = Assembler::new();
    a.mov(R0, verdict);
    a.exit();
    let program = a.finish().map_err(io::Error::other)?;
    let program = sys::load("end_of_cable", &program, |_| -1).map_err(io::Error::other)?;
    sys::attach(&program, sys::ifindex(interface)?, AttachFlags::Driver)
}

/// Runs `ip` in the namespace the calling thread is in.
///
/// # Errors
///
/// What it said.
pub fn ip(arguments: &str) -> io::Result<()> {
    run("ip", arguments)
}

/// Runs `ethtool` likewise.
///
/// # Errors
///
/// What it said.
pub fn ethtool(arguments: &str) -> io::Result<()> {
    run("ethtool", arguments)
}

fn run(program: &str, arguments: &str) -> io::Result<()> {
    let ran = Command::new(program)
        .args(arguments.split_whitespace())
        .output()?;
    let said = String::from_utf8_lossy(&ran.stderr);
    match ran.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{program} {arguments}: {said}"))),
    }
}

/// What this machine lacks to make namespaces and run programs; `None` where it has all.
#[must_use]
pub fn missing() -> Option<String> {
    // SAFETY: the call takes nothing and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return Some("network namespaces and BPF need root".to_owned());
    }
    ["ip", "ethtool"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_err())
        .map(|program| format!("there is no {program}"))
}

/// Runs `work` on a thread of its own, whose namespace it may change; where that can't be it says
/// so instead. A panic goes on in the caller.
#[expect(clippy::print_stderr, reason = "what is skipped is said")]
pub fn alone(work: impl FnOnce() + Send + 'static) {
    if let Some(missing) = missing() {
        eprintln!("!!! SKIPPED: {missing}");
        return;
    }
    if let Err(panic) = thread::spawn(work).join() {
        std::panic::resume_unwind(panic);
    }
}
