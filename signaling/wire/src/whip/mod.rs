//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): what encoders and viewers say over HTTP, as text that comes from strangers.
//!
//! ```text
//! POST  application/sdp                      ──▶ Offer     ──▶ room.join
//! PATCH application/trickle-ice-sdpfrag      ──▶ Fragment  ──▶ nothing, or an ICE restart
//! If-Match, Authorization                    ──▶ Precondition, bearer
//! the answer, its ICE credentials, ICE servers ──▶ text and Link headers
//! ```
//!
//! Nothing here fails on any text but with an error that says what is wrong.

mod answer;
mod fragment;
mod headers;
mod offer;

pub use answer::{answer_with_exclusive_mux, restart_fragment};
pub use fragment::{CANDIDATES_MAX, FRAGMENT_LEN_MAX, Fragment, FragmentError, IceCredentials};
pub use headers::{Precondition, PreconditionError, bearer, ice_links};
pub use offer::{OFFER_LEN_MAX, Offer, OfferError, OfferedSection, Purpose};
