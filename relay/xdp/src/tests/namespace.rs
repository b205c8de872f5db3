//! Network namespaces without names: the kernel takes them down with the test.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

/// A network namespace.
pub(super) struct Namespace(File);

impl Namespace {
    /// A new one, which the calling thread is in from now on.
    pub(super) fn new() -> Namespace {
        // SAFETY: the call takes no pointer; only this thread changes its namespace.
        let made = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(made, 0, "no namespace: {}", io::Error::last_os_error());
        let namespace = Namespace(File::open("/proc/thread-self/ns/net").unwrap());
        ip("link set lo up");
        for family in ["ipv4", "ipv6"] {
            fs::write(format!("/proc/sys/net/{family}/conf/lo/forwarding"), "1").unwrap();
        }
        // Addresses are to be used at once.
        fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
        namespace
    }

    /// Moves the calling thread, and what it starts from now on, into the namespace.
    pub(super) fn enter(&self) {
        // SAFETY: the descriptor is open, and the call takes no pointer.
        let entered = unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "not entered: {}", io::Error::last_os_error());
    }

    /// What `ip` knows the namespace by.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Runs `ip` in the namespace the calling thread is in.
pub(super) fn ip(arguments: &str) {
    let ran = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "ip {arguments}: {said}");
}

/// Runs `ethtool` likewise.
pub(super) fn ethtool(arguments: &str) {
    let ran = Command::new("ethtool")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "ethtool {arguments}: {said}");
}

/// Runs `test` on a thread of its own, whose namespace it may change; where these tests can't run
/// it says so instead.
pub(super) fn alone(test: impl FnOnce() + Send + 'static) {
    // SAFETY: the call takes nothing and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("!!! SKIPPED: network namespaces and BPF need root");
        return;
    }
    for program in ["ip", "ethtool"] {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("!!! SKIPPED: there is no {program}");
            return;
        }
    }
    if let Err(panic) = thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}
