//! Access granted by a third party (RFC 7635): whoever shares a key with this relay seals tokens
//! for it, and neither has to ask the other.
//!
//! A token names no User. The key it was sealed with belongs to an Account, whose limits bound all
//! that its tokens allocate, and which all of them act for.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use relay_stun::{IntegrityKey, Message, PasswordAlgorithm, TokenKey};

use crate::authentication::Authenticated;
use crate::credentials::Identity;
use crate::relay::Relay;
use crate::{REALM_LEN_MAX, Refusal};

/// How far the clock of whoever grants access may be from ours (Delta in RFC 7635 §9).
pub const TOKEN_CLOCK_SKEW: Duration = Duration::from_secs(5);

/// The longest name a server of this realm may have, in bytes; both stand in every answer to a
/// stranger, which has a bound of its own. Zero: there is no room for any.
#[must_use]
pub fn server_name_len_max(realm: &str) -> usize {
    const ATTRIBUTE_HEADER_LEN: usize = 4;
    let taken = realm.len().next_multiple_of(4) + ATTRIBUTE_HEADER_LEN;
    REALM_LEN_MAX.saturating_sub(taken)
}

/// Who grants access, by the keys shared with them.
#[derive(Debug, Clone)]
pub struct ThirdParty {
    server_name: Box<str>,
    keys: HashMap<Box<str>, Key>,
}

#[derive(Debug, Clone)]
struct Key {
    account: Box<str>,
    key: TokenKey,
}

impl ThirdParty {
    /// Nobody yet, for a server that tokens know as `server_name`, at most
    /// [`server_name_len_max`] bytes.
    #[must_use]
    pub fn new(server_name: &str) -> ThirdParty {
        ThirdParty {
            server_name: server_name.into(),
            keys: HashMap::new(),
        }
    }

    /// The same with one more key: clients give its name, `kid`, as their user name, and what they
    /// allocate counts as the Account's. While a key is changed, both are there under two names.
    #[must_use]
    pub fn with_key(mut self, kid: &str, account: &str, key: TokenKey) -> ThirdParty {
        let account = account.into();
        self.keys.insert(kid.into(), Key { account, key });
        self
    }

    /// The name tokens are sealed for.
    pub(crate) fn server_name(&self) -> &str {
        &self.server_name
    }

    /// Opens a token that lives at `unix_now`, since 1970: the Account, the key of the client's
    /// messages, and for how long both count.
    fn open(
        &self,
        kid: &str,
        token: &[u8],
        unix_now: Duration,
    ) -> Result<(&str, IntegrityKey, Duration), Refusal> {
        let Key { account, key } = self.keys.get(kid).ok_or(Refusal::UnknownTokenKey)?;
        let token = key
            .open(&self.server_name, token)
            .map_err(|_| Refusal::BadToken)?;
        let lifetime = Duration::from_secs(token.lifetime.into()) + TOKEN_CLOCK_SKEW;
        let age = unix_now.abs_diff(token.issued());
        let remaining = lifetime
            .checked_sub(age)
            .filter(|remaining| !remaining.is_zero())
            .ok_or(Refusal::TokenExpired)?;
        Ok((account, IntegrityKey::raw(&token.mac_key), remaining))
    }
}

impl Relay {
    /// Finds out whom a token in a request speaks for (RFC 7635 §9). `None`: there is no token, or
    /// nobody whose tokens would count.
    pub(crate) fn authenticate_token(
        &self,
        now: Instant,
        request: &Message<'_>,
        kid: Option<&str>,
    ) -> Option<Result<Authenticated, Refusal>> {
        let third_party = self.credentials.third_party()?;
        let token = request.attribute(relay_stun::AttributeType::ACCESS_TOKEN)?;
        let integrity = request.integrity_kind()?;
        let kid = kid.unwrap_or_default();
        let opened = third_party.open(kid, token, self.unix_time(now));
        Some(opened.and_then(|(account, key, remaining)| {
            if !request.verify_integrity(&key) {
                return Err(Refusal::WrongIntegrity);
            }
            Ok(Authenticated {
                identity: Identity::of_token(kid, account, now + remaining),
                algorithm: PasswordAlgorithm::default(),
                key,
                integrity,
            })
        }))
    }
}
