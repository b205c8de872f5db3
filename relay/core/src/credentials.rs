//! Who may allocate.
//!
//! REST-secret credentials (draft-uberti-behave-turn-rest-00): a user name that carries its own
//! expiry, and a password derived from it under a secret shared with the signaling role. Static
//! ones: names and passwords the operator wrote down, for devices that can't ask for others.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use relay_stun::{IntegrityKey, PasswordAlgorithm, rest_password, userhash};

use crate::quota::is_nobody;
use crate::{Refusal, ThirdParty};

/// How many secrets may be live at once: the current one, and the one before while user names made
/// with it live on.
pub const SECRETS_MAX: usize = 2;

/// The longest USERNAME, in bytes (RFC 8489 §14.3).
const USERNAME_LEN_MAX: usize = 508;

/// A shared secret. Its bytes are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// A secret from its bytes.
    #[must_use]
    pub fn new(bytes: impl AsRef<[u8]>) -> Secret {
        Secret(bytes.as_ref().into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Who may allocate: whoever holds a password made with one of the live secrets, the static
/// users, and whoever holds a third party's token.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    secrets: Vec<Secret>,
    /// Passwords by user name.
    users: HashMap<Box<str>, Secret>,
    third_party: Option<ThirdParty>,
    /// Static user names by USERHASH, under the realm of [`for_realm`](Self::for_realm).
    users_by_hash: HashMap<[u8; 32], Box<str>>,
}

/// Whom a user name names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The whole user name, as it goes into the key.
    pub(crate) username: Box<str>,
    whose: Whose,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    /// Where the User, `account:user`, begins in the user name.
    UserAt(usize),
    /// A third party's token, which speaks for an Account and for none of its Users in particular.
    Token {
        /// `account:`.
        user: Box<str>,
        /// When the token ends, and with it what was allocated by it.
        until: Instant,
    },
}

impl Identity {
    /// Who holds a token that was sealed with an Account's key of the name `kid`.
    pub(crate) fn of_token(kid: &str, account: &str, until: Instant) -> Identity {
        let user = format!("{account}:").into();
        Identity {
            username: kid.into(),
            whose: Whose::Token { user, until },
        }
    }

    /// `account:user`, or `account:` where it names no User.
    pub(crate) fn user(&self) -> &str {
        match &self.whose {
            Whose::UserAt(at) => &self.username[*at..],
            Whose::Token { user, .. } => user,
        }
    }

    /// When all that was allocated has to end, unless a new token comes; `None` where it does not.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self.whose {
            Whose::UserAt(_) => None,
            Whose::Token { until, .. } => Some(until),
        }
    }
}

impl Credentials {
    /// Credentials under `secrets`, newest first, of which the first [`SECRETS_MAX`] count.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Credentials {
        Credentials {
            secrets: secrets.into_iter().take(SECRETS_MAX).collect(),
            ..Credentials::default()
        }
    }

    /// The same with static users besides: pairs of a name, `account:user`, and its password.
    /// Both are taken as they are; the caller has applied OpaqueString (RFC 8265).
    #[must_use]
    pub fn with_users(mut self, users: impl IntoIterator<Item = (String, Secret)>) -> Credentials {
        self.users.extend(
            users
                .into_iter()
                .map(|(name, password)| (name.into(), password)),
        );
        self
    }

    /// The same with a third party besides, whose tokens grant access.
    #[must_use]
    pub fn with_third_party(mut self, third_party: ThirdParty) -> Credentials {
        self.third_party = Some(third_party);
        self
    }

    pub(crate) fn third_party(&self) -> Option<&ThirdParty> {
        self.third_party.as_ref()
    }

    /// The same, ready to find static users by their USERHASH (RFC 8489 §14.4).
    pub(crate) fn for_realm(mut self, realm: &str) -> Credentials {
        let names = self.users.keys();
        self.users_by_hash = names
            .map(|name| (userhash(name, realm), name.clone()))
            .collect();
        self
    }

    /// Whether every name that could allocate is found by its USERHASH. Names under a secret are
    /// not: nobody knows them before they are used.
    pub(crate) fn resolves_every_hash(&self) -> bool {
        self.secrets.is_empty() && !self.users.is_empty() && self.third_party.is_none()
    }

    /// The name behind a USERHASH.
    pub(crate) fn name_of(&self, hash: &[u8]) -> Option<&str> {
        let hash: &[u8; 32] = hash.try_into().ok()?;
        self.users_by_hash.get(hash).map(|name| &**name)
    }

    /// The user name and password a client is given: `expiry:account:user`, where `expiry` is in
    /// seconds since 1970. `None` where no secret is set.
    #[must_use]
    pub fn issue(&self, expiry: Duration, account: &str, user: &str) -> Option<(String, String)> {
        let username = format!("{}:{account}:{user}", expiry.as_secs());
        let password = rest_password(&self.secrets.first()?.0, &username);
        Some((username, password))
    }

    /// Whom `username` names, once it is well-formed and lives at `unix_now` (since 1970). It must
    /// name a User: a token alone speaks for an Account without one, and what bounds Users bounds
    /// everybody else.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownUser`] or [`Refusal::CredentialsExpired`].
    pub(crate) fn identify(&self, username: &str, unix_now: Duration) -> Result<Identity, Refusal> {
        let user_at = if self.users.contains_key(username) {
            0
        } else {
            let (expiry, user) = split(username).ok_or(Refusal::UnknownUser)?;
            if unix_now >= expiry {
                return Err(Refusal::CredentialsExpired);
            }
            username.len() - user.len()
        };
        if is_nobody(&username[user_at..]) {
            return Err(Refusal::UnknownUser);
        }
        Ok(Identity {
            username: username.into(),
            whose: Whose::UserAt(user_at),
        })
    }

    /// The keys a message of `username` may be protected with: its static password's, or one for
    /// each live secret.
    pub(crate) fn keys(
        &self,
        algorithm: PasswordAlgorithm,
        username: &str,
        realm: &str,
    ) -> impl Iterator<Item = IntegrityKey> {
        let fixed = self.users.get(username);
        let fixed_key = fixed.map(move |password| {
            let password = String::from_utf8_lossy(&password.0);
            IntegrityKey::long_term(algorithm, username, realm, &password)
        });
        let derived = self.secrets.iter().filter(move |_| fixed.is_none());
        fixed_key.into_iter().chain(derived.map(move |secret| {
            let password = rest_password(&secret.0, username);
            IntegrityKey::long_term(algorithm, username, realm, &password)
        }))
    }
}

/// Splits `expiry:user`; the User keeps its `account:` in front.
fn split(username: &str) -> Option<(Duration, &str)> {
    let (expiry, user) = username.split_once(':')?;
    let digits = expiry.bytes().all(|byte| byte.is_ascii_digit());
    let expiry = Duration::from_secs(expiry.parse().ok()?);
    (digits && !user.is_empty() && username.len() <= USERNAME_LEN_MAX).then_some((expiry, user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_read_or_refused() {
        let users = ["acme:door", "acme:door:", "acme:"];
        let users = users.map(|name| (name.to_owned(), Secret::new("p")));
        let credentials = Credentials::new([Secret::new("s")]).with_users(users);
        let check = |username: &str, expected: Result<&str, Refusal>| {
            let got = credentials.identify(username, Duration::from_secs(100));
            let got = got.as_ref().map(Identity::user).map_err(|refusal| *refusal);
            assert_eq!(got, expected, "{username}");
        };

        check("101:acme:alice", Ok("acme:alice"));
        check("101:alice", Ok("alice"));
        check("acme:door", Ok("acme:door"));
        check("100:acme:alice", Err(Refusal::CredentialsExpired));
        check("0:acme:alice", Err(Refusal::CredentialsExpired));
        check("acme:alice", Err(Refusal::UnknownUser));
        check("+101:acme:alice", Err(Refusal::UnknownUser));
        check("-1:acme:alice", Err(Refusal::UnknownUser));
        check("99999999999999999999:acme:alice", Err(Refusal::UnknownUser));
        check("101:", Err(Refusal::UnknownUser));
        check("101:acme:", Err(Refusal::UnknownUser));
        check("101::", Err(Refusal::UnknownUser));
        check("101:acme:alice:", Ok("acme:alice:"));
        check("acme:", Err(Refusal::UnknownUser));
        check("acme:door:", Ok("acme:door:"));
        check("101", Err(Refusal::UnknownUser));
        check(":", Err(Refusal::UnknownUser));
        check("", Err(Refusal::UnknownUser));
        check(
            &format!("101:{}", "a".repeat(600)),
            Err(Refusal::UnknownUser),
        );
    }

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", Secret::new("hidden")), "Secret");
    }
}
