//! Access tokens: JWTs signed with HS256 by an Account's API key.

mod revocations;
mod verifier;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use model::{ApiKeyId, Grants, RoomGrants, UserId};
use serde::{Deserialize, Serialize};

pub(crate) use revocations::watch;
pub use verifier::TokenRefusal;
pub(crate) use verifier::{Verified, Verifier};

/// What an access token says, as far as Calls go. The claims that LiveKit has, too, mean what they mean there; others, such as its
/// `video` and `metadata`, may stand beside them and change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The User.
    pub sub: UserId,
    /// From when on it is valid: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Until when one can connect with it: seconds since 1970.
    pub exp: u64,
    /// The User's name, as others see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the User may do in Calls.
    #[serde(default)]
    pub call: Grants,
    /// What the User may do in Rooms.
    #[serde(default)]
    pub room: RoomGrants,
}

/// Makes an access token that says `claims`, signed by the API key `key` with its `secret`.
pub fn mint(key: ApiKeyId, secret: &str, claims: &Claims) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Signed<'a> {
        iss: String,
        #[serde(flatten)]
        claims: &'a Claims,
    }

    let signed = Signed {
        iss: key.to_string(),
        claims,
    };
    let header = Header::new(Algorithm::HS256);

    Ok(jsonwebtoken::encode(
        &header,
        &signed,
        &EncodingKey::from_secret(secret.as_bytes()),
    )?)
}
