//! Transactions: a request and what answers it, whatever the network loses or doubles (RFC 3261 §17, RFC 6026).
//!
//! ```text
//!            handle_incoming                          poll_output
//!  message ───────────────────▶ ┌──────────────┐ ──▶ Request, Cancelled, Ack      ─▶ the user of this layer
//!            request, cancel    │ Transactions │ ──▶ Response, TimedOut, Failed
//!  user    ───────────────────▶ │              │ ──▶ Unacknowledged
//!            respond            └──────────────┘ ──▶ Send                          ─▶ socket
//!  clock   ── handle_timeout ──▶        └── poll_timeout ─▶ clock
//! ```
//!
//! Everything that is sent again is sent again from here: requests and final responses as §17 has it, and beside them what
//! belongs to the user of the layer but needs the same clock: 2xx until their ACK (§13.3.1.4) and reliable provisional
//! responses until their PRACK (RFC 3262 §3). CANCEL is answered here, a request that came twice by two ways with 482
//! (§8.2.2.2), and an INVITE that nobody answers within 200 ms with 100.

mod client;
mod key;
mod layer;
mod server;

use std::net::SocketAddr;
use std::time::Duration;

use gateway_sip::sanity::{IncomingRequest, IncomingResponse};

pub use layer::{CLIENTS_MAX, Counters, Full, SERVERS_MAX, Transactions};

/// An estimate of the round trip: what all other times are made of (RFC 3261 §17.1.1.1).
pub const T1: Duration = Duration::from_millis(500);
/// The longest pause between two requests or responses that are the same.
pub const T2: Duration = Duration::from_secs(4);
/// For how long a message may stay in the network.
pub const T4: Duration = Duration::from_secs(5);
/// When a transaction is given up: timers B, F, H, L, M.
pub const TIMEOUT: Duration = Duration::from_millis(64 * 500);
/// Timer D over UDP.
const TIMER_D: Duration = Duration::from_secs(32);
/// When an INVITE is answered with 100, unless its user said something by then (RFC 3261 §17.2.1).
const TRYING_DELAY: Duration = Duration::from_millis(200);

/// What carries messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams, which are lost.
    Udp,
    /// A stream.
    Tcp,
    /// A stream in TLS.
    Tls,
}

impl Transport {
    /// As Via has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Whether nothing is lost on it, so that nothing has to be sent again.
    #[must_use]
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }
}

/// A way to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// What carries messages on it.
    pub transport: Transport,
    /// The other end.
    pub remote: SocketAddr,
    /// Which socket or connection of the service, by its own number.
    pub socket: u64,
}

/// A transaction that we began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

/// A transaction that somebody else began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(u64);

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes.
    Send {
        /// The way.
        flow: Flow,
        /// One message.
        bytes: Vec<u8>,
    },
    /// A new request, to be answered by [`Transactions::respond`].
    Request {
        /// Its transaction.
        id: ServerId,
        /// The way it came.
        flow: Flow,
        /// What it says; its topmost Via tells where it came from.
        incoming: Box<IncomingRequest>,
    },
    /// An ACK for a 2xx, which is a transaction of its own that nobody answers.
    Ack {
        /// The way it came.
        flow: Flow,
        /// What it says.
        incoming: Box<IncomingRequest>,
    },
    /// Whoever sent this INVITE takes it back; answer it with 487. The CANCEL has its answer.
    Cancelled {
        /// The INVITE.
        id: ServerId,
        /// The CANCEL, for its Reason.
        cancel: Box<IncomingRequest>,
    },
    /// A response: any number of provisional ones, then a final one; of an INVITE, 2xx may come several times and from
    /// several phones, and each wants its ACK each time (RFC 3261 §13.2.2.4).
    Response {
        /// The transaction of the request.
        id: ClientId,
        /// The way it came.
        flow: Flow,
        /// What it says.
        incoming: Box<IncomingResponse>,
    },
    /// Nobody answered: as good as a 408 (RFC 3261 §8.1.3.1). Nothing follows.
    TimedOut(ClientId),
    /// The request can't be sent: as good as a 503. Nothing follows.
    Failed(ClientId),
    /// The 2xx was not acknowledged within 32 s: end the dialog with a BYE (RFC 3261 §13.3.1.4).
    Unacknowledged(ServerId),
    /// A reliable provisional response got no PRACK within 32 s: refuse the INVITE with 504 (RFC 3262 §3).
    NoPrack(ServerId),
}
