//! REST-secret credentials (draft-uberti-behave-turn-rest-00): a user name that carries its own
//! expiry, and a password derived from it under a secret shared with the signaling role.

use std::fmt;
use std::time::Duration;

use relay_stun::{IntegrityKey, rest_password};

use crate::Refusal;

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

/// Who may allocate: whoever holds a password made with one of the live secrets.
#[derive(Debug, Clone)]
pub struct Credentials {
    secrets: Vec<Secret>,
}

impl Credentials {
    /// Credentials under `secrets`, newest first, of which the first [`SECRETS_MAX`] count.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Credentials {
        Credentials {
            secrets: secrets.into_iter().take(SECRETS_MAX).collect(),
        }
    }

    /// The user name and password a client is given: `expiry:account:user`, where `expiry` is in
    /// seconds since 1970. `None` where no secret is set.
    #[must_use]
    pub fn issue(&self, expiry: Duration, account: &str, user: &str) -> Option<(String, String)> {
        let username = format!("{}:{account}:{user}", expiry.as_secs());
        let password = rest_password(&self.secrets.first()?.0, &username);
        Some((username, password))
    }

    /// The User in `username`, once it is well-formed and lives at `unix_now` (since 1970).
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownUser`] or [`Refusal::CredentialsExpired`].
    pub(crate) fn user<'u>(
        &self,
        username: &'u str,
        unix_now: Duration,
    ) -> Result<&'u str, Refusal> {
        let (expiry, user) = split(username).ok_or(Refusal::UnknownUser)?;
        if unix_now >= expiry {
            return Err(Refusal::CredentialsExpired);
        }
        Ok(user)
    }

    /// The keys a message of `username` may be protected with, one for each live secret.
    pub(crate) fn keys(&self, username: &str, realm: &str) -> impl Iterator<Item = IntegrityKey> {
        self.secrets.iter().map(move |secret| {
            IntegrityKey::long_term(username, realm, &rest_password(&secret.0, username))
        })
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
        let credentials = Credentials::new([Secret::new("s")]);
        let check = |username: &str, expected: Result<&str, Refusal>| {
            assert_eq!(
                credentials.user(username, Duration::from_secs(100)),
                expected,
                "{username}"
            );
        };

        check("101:acme:alice", Ok("acme:alice"));
        check("101:alice", Ok("alice"));
        check("100:acme:alice", Err(Refusal::CredentialsExpired));
        check("0:acme:alice", Err(Refusal::CredentialsExpired));
        check("acme:alice", Err(Refusal::UnknownUser));
        check("+101:acme:alice", Err(Refusal::UnknownUser));
        check("-1:acme:alice", Err(Refusal::UnknownUser));
        check("99999999999999999999:acme:alice", Err(Refusal::UnknownUser));
        check("101:", Err(Refusal::UnknownUser));
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
