//! `calls.v1`: the frames between a Device and the server, their limits and their schema.
//!
//! Text goes in and [`Frame`]s come out, or a [`DecodeError`] that says which `error` to answer; server frames go the
//! other way as JSON text. The contract for people is `docs/calls.v1.md`; the one for machines is generated from these
//! types by [`schema()`] and [`asyncapi()`].

mod client;
mod error;
mod frame;
mod phone;
mod plain;
pub mod room;
mod schema;
mod sdp;
mod server;
pub mod whip;

pub use client::{
    Accept, CallDtmf, Candidate, Candidates, ClientFrame, Decline, DeclineReason, DeviceInfo,
    Empty, Hangup, Hello, HistoryList, Hold, IceRestart, Invite, MediaSent, Moved, OnCall, Picture,
    PresenceSet, PresenceSubscribe, Resume, Sdp, Shown, Sync, TransferRequest, Verify,
};
pub use error::{CloseCode, DecodeError, ErrorCode};
pub use frame::{
    Decoded, FRAME_LEN_MAX, Frame, HELLO_LEN_MAX, Head, decode, decode_to_pass_on, encode, open,
};
pub use phone::{
    OnVoicemail, PhoneForward, PhoneForwards, PhoneSettings, VoicemailList, VoicemailNews,
};
pub use plain::PlainCandidates;
pub use schema::{asyncapi, schema};
pub use sdp::{Fingerprint, Fingerprints, SdpError};
pub use server::{
    CallEvent, CallProgress, ErrorData, Goaway, HistoryNews, IceServer, Incoming, OkData,
    PresenceNews, ProgressKind, ServerFrame, ServerLimits, Update, Upgraded, UserPresence, Welcome,
};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "calls.v1";
