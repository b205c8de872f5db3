//! What userspace tells the offload, and what it hears back.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Instant;

use crate::layout::Dscp;

/// How the program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By the driver, before the kernel makes anything of a frame.
    Native,
    /// By the kernel, where a driver can't: correct, and hardly cheaper than userspace.
    Generic,
}

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The interfaces that clients and peers are reached through, VLANs by the name below them.
    pub interfaces: Vec<String>,
    /// How the program is attached to each.
    pub mode: Mode,
    /// Whether Channels may use IPv4.
    pub ipv4: bool,
    /// Whether Channels may use IPv6.
    pub ipv6: bool,
    /// The ports that relayed addresses are opened at. No listening port may be among them.
    pub relay_ports: RangeInclusive<u16>,
    /// What is done with the DSCP.
    pub dscp: Dscp,
    /// How many Channels may be installed at once, each two flows of 128 bytes.
    pub channels_max: u32,
    /// How many quotas there may be at once, each 32 bytes.
    pub quotas_max: u32,
}

/// Why there is no offload.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system has no XDP, or one of another byte order.
    #[error("XDP needs Linux on a little-endian machine")]
    Platform,
    /// No interface is named.
    #[error("no interface is named")]
    NoInterface,
    /// An interface is not there.
    #[error("interface {name}: {error}")]
    Interface {
        /// Its name.
        name: String,
        /// The kernel's word.
        error: io::Error,
    },
    /// An interface's driver has no XDP of its own.
    #[error("interface {name}: its driver has no native XDP")]
    Driver {
        /// Its name.
        name: String,
    },
    /// A setting of the kernel keeps the program from asking for routes.
    #[error(
        "the kernel tells a program no route unless {setting} is 1 (which forwards nothing but \
         what this machine sends to itself): sysctl -w {setting}=1"
    )]
    Forwarding {
        /// Its name for sysctl(8).
        setting: &'static str,
    },
    /// The process may not do it. CAP_PERFMON is what the kernel asks of programs that reckon with
    /// pointers, as this one does where it looks for the end of a packet.
    #[error("it takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or root")]
    Rights,
    /// The kernel makes no map: too old, or too little memory.
    #[error("the kernel makes no BPF map: {0}")]
    Map(io::Error),
    /// The kernel does not take the program.
    #[error("the kernel does not take the program: {error}{}{log}", if log.is_empty() { "" } else { "; its verifier says: " })]
    Load {
        /// The kernel's word.
        error: io::Error,
        /// The end of the verifier's log; empty where it never came to verifying.
        log: String,
    },
    /// Another program is attached to an interface, often another relay's.
    #[error(
        "another XDP program is attached to interface {name}, perhaps by another relay; an \
         interface takes one: `ip link show {name}` tells its number"
    )]
    Taken {
        /// The interface's name.
        name: String,
    },
    /// The program can't be attached to an interface; most often its MTU is too large.
    #[error(
        "interface {name} does not take the program: {error} (many drivers ask for an MTU that \
         fits a page, or for fewer queues)"
    )]
    Attach {
        /// Its name.
        name: String,
        /// The kernel's word.
        error: io::Error,
    },
}

impl StartError {
    /// A stable word for metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            StartError::Platform => "platform",
            StartError::NoInterface | StartError::Interface { .. } => "interface",
            StartError::Driver { .. } => "driver",
            StartError::Forwarding { .. } => "forwarding",
            StartError::Rights => "rights",
            StartError::Map(_) => "map",
            StartError::Load { .. } => "load",
            StartError::Taken { .. } => "taken",
            StartError::Attach { .. } => "attach",
        }
    }
}

/// A Channel as userspace has verified it: its peer passed the address check, and is no address of
/// this relay.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// The client's address, as the server sees it.
    pub client: SocketAddr,
    /// The server's address the client speaks to, over UDP; never a wildcard.
    pub server: SocketAddr,
    /// The relayed address, as this machine has it; behind a NAT that is not what peers see.
    pub relayed: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The channel number, 0x4000 to 0x7FFF.
    pub channel: u16,
    /// The quotas it draws from: its User's and its Account's.
    pub quotas: [Option<QuotaId>; 2],
}

/// Until when a Channel is relayed.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// From the client: until Channel or Allocation end.
    pub to_peer: Instant,
    /// To the client: until Channel, Allocation or Permission end (RFC 8656 §9).
    pub to_client: Instant,
}

/// Why a Channel is not installed; userspace relays it alone.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// `channels_max` are installed.
    #[error("no room for another channel")]
    Full,
    /// One end of the binding is of another family than the other.
    #[error("addresses of two families on one side")]
    Families,
    /// An own address is a wildcard.
    #[error("a wildcard among the own addresses")]
    Wildcard,
    /// The listening port lies among the relayed ports, or the relayed port does not.
    #[error("the listening port is among the relayed ports, or the relayed port is not")]
    Ports,
    /// The kernel refused: most often, a Channel with the same addresses is installed.
    #[error("not installed: {0}")]
    Kernel(#[from] io::Error),
}

impl InstallError {
    /// A stable word for metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            InstallError::Full => "full",
            InstallError::Families => "families",
            InstallError::Wildcard => "wildcard",
            InstallError::Ports => "ports",
            InstallError::Kernel(_) => "kernel",
        }
    }
}

/// A Channel that is installed; [`Offload::remove`](crate::Offload::remove) takes it back.
#[derive(Debug)]
#[must_use = "an installed Channel takes room until it is removed"]
pub struct Installed {
    pub(crate) binding: Binding,
    /// The flows' numbers: to the peer, to the client.
    pub(crate) flows: [u32; 2],
}

/// A quota's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaId(pub(crate) u32);

/// What was relayed in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of application data, without the ChannelData header and padding.
    pub bytes: u64,
}

/// What was relayed through a Channel here since it was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// From the client to the peer.
    pub to_peer: Traffic,
    /// From the peer to the client.
    pub to_client: Traffic,
}
