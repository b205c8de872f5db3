//! SIP and SDP as phones and providers speak them: messages, URIs, headers, digest, offers and answers
//! (RFC 3261, 3264, 3581, 4566, 4568, 8760, 8866).
//!
//! ```text
//! TCP bytes ─▶ stream::Framer ─┐
//! datagram ────────────────────┴▶ Message::parse ─▶ sanity::check ─▶ Incoming (message and Envelope)
//!                                                        └─▶ Unfit: a cause to count, an answer or silence
//! Request, Response ─▶ to_bytes ─▶ wire
//! body ─▶ sdp::Session ─▶ negotiate ─▶ what both sides send
//! ```
//!
//! Every parser here is total: any bytes give a value or an error, in time linear in their number, and whatever
//! is collected has a named limit. A [`Message`] keeps its headers as text, without their folds; what a header
//! means is read where it is asked for, and an [`Envelope`] holds what every request and response must have. There
//! is no clock, socket or randomness in here.
//!
//! Stricter than RFC 3261 asks, since liberal readers are how filters are passed by: lines end with CRLF, and
//! what the grammar forbids is refused rather than repaired.

mod body;
pub mod digest;
mod envelope;
mod header;
mod host;
mod message;
mod method;
mod name_addr;
pub mod negotiate;
mod params;
pub mod sanity;
pub mod sdes;
pub mod sdp;
mod status;
pub mod stream;
mod text;
mod uri;
mod via;

pub use body::Content;
pub use envelope::{CSeq, Envelope, MAX_FORWARDS_DEFAULT, RAck, Refresher, SessionExpires};
pub use header::{HEADERS_MAX, HeaderName, Headers, VALUE_LEN_MAX, VALUES_MAX};
pub use host::Host;
pub use message::{MESSAGE_LEN_MAX, Message, Request, Response};
pub use method::Method;
pub use name_addr::NameAddr;
pub use params::{PARAMS_MAX, Params};
pub use status::StatusCode;
pub use uri::{SipUri, TelUri, Uri};
pub use via::{BRANCH_COOKIE, Via};

/// Bytes that are not what they should be. Values are left out: they may name people or be secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of something.
    #[error("{what} is cut off")]
    Truncated {
        /// What is cut off.
        what: &'static str,
    },
    /// Against the grammar.
    #[error("{what} is malformed")]
    Malformed {
        /// What is: a header by its name, or a part of the message.
        what: &'static str,
    },
    /// Longer than we read.
    #[error("{what} is longer than {max} bytes")]
    TooLong {
        /// What is.
        what: &'static str,
        /// The limit, in bytes.
        max: usize,
    },
    /// More of something than we read.
    #[error("more than {max} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

impl DecodeError {
    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::Malformed { what }
    }
}
