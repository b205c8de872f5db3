//! Why the relay declines, with the code of the RFC where it answers at all.

use relay_stun::ErrorCode;

use crate::peer_address::Denial;

/// A request declined, or a packet dropped in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is malformed, or contradicts what is set up.
    #[error("bad request")]
    BadRequest,
    /// No credentials: the ordinary first step of every client.
    #[error("credentials wanted")]
    CredentialsMissing,
    /// The user name is not one of ours.
    #[error("unknown user")]
    UnknownUser,
    /// The user name's expiry has passed.
    #[error("credentials expired")]
    CredentialsExpired,
    /// The message was made with another key.
    #[error("wrong message integrity")]
    WrongIntegrity,
    /// No key for tokens has this name.
    #[error("unknown token key")]
    UnknownTokenKey,
    /// A token that does not open with its key, or holds something else.
    #[error("bad token")]
    BadToken,
    /// The token's time is over, or is yet to come.
    #[error("token expired")]
    TokenExpired,
    /// The nonce is not ours, not this client's, or too old.
    #[error("stale nonce")]
    StaleNonce,
    /// An attribute that must be understood is not.
    #[error("unknown attribute")]
    UnknownAttribute,
    /// The 5-tuple has an Allocation already, or has none.
    #[error("allocation mismatch")]
    AllocationMismatch,
    /// The Allocation is another User's.
    #[error("wrong credentials")]
    WrongCredentials,
    /// A transport other than UDP toward the peer.
    #[error("unsupported transport protocol")]
    UnsupportedTransportProtocol,
    /// A request for peers over UDP on an Allocation for peers over TCP, or the reverse.
    #[error("not for this allocation's transport")]
    WrongAllocationTransport,
    /// No relayed address of that family here.
    #[error("address family not supported")]
    AddressFamilyNotSupported,
    /// The peer's family is not the relayed address's.
    #[error("peer address family mismatch")]
    PeerAddressFamilyMismatch,
    /// The one address check says no.
    #[error("peer forbidden: {0}")]
    Forbidden(Denial),
    /// The User holds as many Allocations as allowed.
    #[error("allocation quota reached")]
    AllocationQuotaReached,
    /// The Account holds as many Allocations as allowed.
    #[error("account quota reached")]
    AccountQuotaReached,
    /// The relay holds as many Allocations as allowed.
    #[error("allocations exhausted")]
    AllocationsExhausted,
    /// Allocations don't move here.
    #[error("mobility forbidden")]
    MobilityForbidden,
    /// A mobility ticket that is not ours, or of an Allocation that ended or moved since.
    #[error("unknown mobility ticket")]
    BadTicket,
    /// No port is kept under this token for this User.
    #[error("unknown reservation")]
    UnknownReservation,
    /// No relayed port could be had.
    #[error("ports exhausted")]
    PortsExhausted,
    /// The Allocation holds as many Permissions as allowed.
    #[error("permissions exhausted")]
    PermissionsExhausted,
    /// The Allocation holds as many Channels as allowed.
    #[error("channels exhausted")]
    ChannelsExhausted,
    /// The Allocation has a connection to this peer.
    #[error("connection exists")]
    ConnectionExists,
    /// The peer could not be connected to, or not in time.
    #[error("connection failed")]
    ConnectionFailed,
    /// The Allocation, or the relay, holds as many connections as allowed.
    #[error("connections exhausted")]
    ConnectionsExhausted,
    /// The User holds as many connections as allowed.
    #[error("connection quota reached")]
    ConnectionQuotaReached,
    /// The Account holds as many connections as allowed.
    #[error("account connection quota reached")]
    AccountConnectionQuotaReached,
    /// No connection waits under this CONNECTION-ID.
    #[error("unknown connection")]
    UnknownConnection,
    /// A peer was connected and the client did not want it in time.
    #[error("connection not bound")]
    ConnectionUnbound,
    /// A connection carried nothing for too long.
    #[error("connection idle")]
    ConnectionIdle,
    /// The relay drains, and another takes its clients.
    #[error("redirected")]
    Redirected,
    /// The relay drains, and no other takes its clients.
    #[error("draining")]
    Draining,
    /// The stranger's network has had its share of answers.
    #[error("rate limited")]
    RateLimited,
    /// Neither STUN nor ChannelData.
    #[error("malformed packet")]
    Malformed,
    /// FINGERPRINT does not fit the message.
    #[error("wrong fingerprint")]
    WrongFingerprint,
    /// A response, an unknown method, or an indication we do not take.
    #[error("unexpected message")]
    Unexpected,
    /// Data on a 5-tuple without Allocation, or for a relayed port without one.
    #[error("no allocation")]
    NoAllocation,
    /// Data to or from a peer without Permission.
    #[error("no permission")]
    NoPermission,
    /// ChannelData on a Channel that is not bound.
    #[error("no channel")]
    NoChannel,
    /// The User has relayed as much as allowed.
    #[error("user rate reached")]
    UserRate,
    /// The Account has relayed as much as allowed.
    #[error("account rate reached")]
    AccountRate,
    /// The client is told as much of ICMP as allowed.
    #[error("icmp rate reached")]
    IcmpRate,
    /// A payload that does not fit one message.
    #[error("payload too long")]
    TooLong,
}

impl Refusal {
    /// The code of the error response; `None` where silence is the answer.
    #[must_use]
    pub fn code(self) -> Option<ErrorCode> {
        Some(match self {
            Refusal::Redirected => ErrorCode::TRY_ALTERNATE,
            Refusal::BadRequest | Refusal::BadTicket | Refusal::UnknownConnection => {
                ErrorCode::BAD_REQUEST
            }
            Refusal::MobilityForbidden => ErrorCode::MOBILITY_FORBIDDEN,
            Refusal::CredentialsMissing
            | Refusal::UnknownUser
            | Refusal::CredentialsExpired
            | Refusal::WrongIntegrity
            | Refusal::UnknownTokenKey
            | Refusal::BadToken
            | Refusal::TokenExpired => ErrorCode::UNAUTHORIZED,
            Refusal::StaleNonce => ErrorCode::STALE_NONCE,
            Refusal::UnknownAttribute => ErrorCode::UNKNOWN_ATTRIBUTE,
            Refusal::AllocationMismatch => ErrorCode::ALLOCATION_MISMATCH,
            Refusal::WrongCredentials => ErrorCode::WRONG_CREDENTIALS,
            Refusal::UnsupportedTransportProtocol => ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL,
            Refusal::AddressFamilyNotSupported => ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED,
            Refusal::PeerAddressFamilyMismatch => ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH,
            Refusal::Forbidden(_) | Refusal::WrongAllocationTransport => ErrorCode::FORBIDDEN,
            Refusal::ConnectionExists => ErrorCode::CONNECTION_ALREADY_EXISTS,
            Refusal::ConnectionFailed => ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE,
            Refusal::AllocationQuotaReached
            | Refusal::AccountQuotaReached
            | Refusal::ConnectionQuotaReached
            | Refusal::AccountConnectionQuotaReached => ErrorCode::ALLOCATION_QUOTA_REACHED,
            Refusal::AllocationsExhausted
            | Refusal::PortsExhausted
            | Refusal::PermissionsExhausted
            | Refusal::ChannelsExhausted
            | Refusal::ConnectionsExhausted
            | Refusal::UnknownReservation
            | Refusal::Draining => ErrorCode::INSUFFICIENT_CAPACITY,
            Refusal::RateLimited
            | Refusal::Malformed
            | Refusal::WrongFingerprint
            | Refusal::Unexpected
            | Refusal::NoAllocation
            | Refusal::NoPermission
            | Refusal::NoChannel
            | Refusal::UserRate
            | Refusal::AccountRate
            | Refusal::IcmpRate
            | Refusal::ConnectionUnbound
            | Refusal::ConnectionIdle
            | Refusal::TooLong => return None,
        })
    }

    /// A stable word for metrics; the set of words is fixed.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Refusal::BadRequest => "bad_request",
            Refusal::CredentialsMissing => "credentials_missing",
            Refusal::UnknownUser => "unknown_user",
            Refusal::CredentialsExpired => "credentials_expired",
            Refusal::WrongIntegrity => "wrong_integrity",
            Refusal::UnknownTokenKey => "unknown_token_key",
            Refusal::BadToken => "bad_token",
            Refusal::TokenExpired => "token_expired",
            Refusal::StaleNonce => "stale_nonce",
            Refusal::UnknownAttribute => "unknown_attribute",
            Refusal::AllocationMismatch => "allocation_mismatch",
            Refusal::WrongCredentials => "wrong_credentials",
            Refusal::UnsupportedTransportProtocol => "unsupported_transport_protocol",
            Refusal::WrongAllocationTransport => "wrong_allocation_transport",
            Refusal::AddressFamilyNotSupported => "address_family_not_supported",
            Refusal::PeerAddressFamilyMismatch => "peer_address_family_mismatch",
            Refusal::Forbidden(denial) => denial.cause(),
            Refusal::AllocationQuotaReached => "allocation_quota_reached",
            Refusal::AccountQuotaReached => "account_quota_reached",
            Refusal::MobilityForbidden => "mobility_forbidden",
            Refusal::BadTicket => "unknown_mobility_ticket",
            Refusal::UnknownReservation => "unknown_reservation",
            Refusal::UserRate => "user_rate",
            Refusal::AccountRate => "account_rate",
            Refusal::IcmpRate => "icmp_rate",
            Refusal::AllocationsExhausted => "allocations_exhausted",
            Refusal::PortsExhausted => "ports_exhausted",
            Refusal::PermissionsExhausted => "permissions_exhausted",
            Refusal::ChannelsExhausted => "channels_exhausted",
            Refusal::ConnectionExists => "connection_exists",
            Refusal::ConnectionFailed => "connection_failed",
            Refusal::ConnectionsExhausted => "connections_exhausted",
            Refusal::ConnectionQuotaReached => "connection_quota_reached",
            Refusal::AccountConnectionQuotaReached => "account_connection_quota_reached",
            Refusal::UnknownConnection => "unknown_connection",
            Refusal::ConnectionUnbound => "connection_unbound",
            Refusal::ConnectionIdle => "connection_idle",
            Refusal::Redirected => "redirected",
            Refusal::Draining => "draining",
            Refusal::RateLimited => "rate_limited",
            Refusal::Malformed => "malformed",
            Refusal::WrongFingerprint => "wrong_fingerprint",
            Refusal::Unexpected => "unexpected",
            Refusal::NoAllocation => "no_allocation",
            Refusal::NoPermission => "no_permission",
            Refusal::NoChannel => "no_channel",
            Refusal::TooLong => "too_long",
        }
    }
}
