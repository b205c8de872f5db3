//! Answering challenges.

use super::fields::{CredentialSession, Fields, credentials_header};
use super::{Algorithm, Credentials, Ha1, Session, a2};
use crate::{DecodeError, HeaderName, Request, Response, StatusCode};

/// A challenge we can answer (RFC 7616 §3.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Whose password is asked for.
    pub realm: String,
    nonce: String,
    opaque: Option<String>,
    /// The hash.
    pub algorithm: Algorithm,
    qop: Option<Qop>,
    /// The credentials were right, but their nonce is used up.
    pub stale: bool,
    /// Asked by a proxy: answered in Proxy-Authorization.
    pub proxy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qop {
    Auth,
    /// The hash covers the body.
    AuthInt,
}

/// Why a challenge can't be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// There is no Digest challenge whose hash and `qop` we know.
    #[error("no challenge we know an answer to")]
    Unknown,
    /// A challenge is against the grammar.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Challenge {
    /// Reads the value of a WWW-Authenticate header, or of Proxy-Authenticate when `proxy`; `None` for another scheme, hash
    /// or `qop` than ours.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for what is against the grammar, or lacks realm or nonce.
    pub fn parse(value: &str, proxy: bool) -> Result<Option<Self>, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::malformed("WWW-Authenticate");
        let Some((mut fields, algorithm)) = Fields::parse(value, "WWW-Authenticate")? else {
            return Ok(None);
        };
        let qop = match fields.get("qop") {
            None => None,
            Some(offered) => {
                let has = |name: &str| {
                    offered
                        .split(',')
                        .any(|word| word.trim().eq_ignore_ascii_case(name))
                };
                match (has("auth"), has("auth-int")) {
                    (true, _) => Some(Qop::Auth),
                    (false, true) => Some(Qop::AuthInt),
                    (false, false) => return Ok(None),
                }
            }
        };
        Ok(Some(Self {
            realm: fields.take("realm").ok_or(MALFORMED)?,
            nonce: fields.take("nonce").ok_or(MALFORMED)?,
            opaque: fields.take("opaque"),
            algorithm,
            qop,
            stale: fields
                .get("stale")
                .is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
            proxy,
        }))
    }
}

impl Challenge {
    /// Where it is answered.
    #[must_use]
    pub fn header(&self) -> HeaderName {
        credentials_header(self.proxy)
    }
}

/// The nonce stays out of logs.
impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Challenge({}, stale: {})",
            self.algorithm.as_str(),
            self.stale
        )
    }
}

/// The challenge of a 401 or 407 to answer: the first we can, since the server lists what it likes best first
/// (RFC 8760 §2.4).
///
/// # Errors
///
/// [`Unanswerable`].
pub fn choose(response: &Response) -> Result<Challenge, Unanswerable> {
    let proxy = response.code == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    let name = if proxy {
        HeaderName::ProxyAuthenticate
    } else {
        HeaderName::WwwAuthenticate
    };
    for line in response.headers.lines(&name) {
        if let Some(challenge) = Challenge::parse(line, proxy)? {
            return Ok(challenge);
        }
    }
    Err(Unanswerable::Unknown)
}

/// A challenge being answered, request after request: the nonce serves until the server wants another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answering {
    challenge: Challenge,
    username: String,
    ha1: Ha1,
    count: u32,
}

impl Answering {
    /// Answers `challenge` as `username`.
    #[must_use]
    pub fn new(challenge: Challenge, username: &str, password: &str) -> Self {
        let ha1 = Ha1::new(challenge.algorithm, username, &challenge.realm, password);
        Self {
            challenge,
            username: username.to_owned(),
            ha1,
            count: 0,
        }
    }

    /// The challenge.
    #[must_use]
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// Puts credentials into `request`, in place of others for the same header. `cnonce` must be random.
    pub fn authorize(&mut self, request: &mut Request, cnonce: u64) {
        self.count += 1;
        let Challenge {
            realm,
            nonce,
            opaque,
            algorithm,
            qop,
            proxy,
            ..
        } = &self.challenge;
        let cnonce = format!("{cnonce:016x}");
        let nc = format!("{:08x}", self.count);
        let (session, body) = match qop {
            None => (None, None),
            Some(Qop::Auth) => (Some("auth"), None),
            Some(Qop::AuthInt) => (Some("auth-int"), Some(request.body.as_slice())),
        };
        let a2 = a2(*algorithm, request.method.as_str(), &request.target, body);
        let hashed = session.map(|qop| Session {
            nc: &nc,
            cnonce: &cnonce,
            qop,
        });
        let response = self.ha1.response(nonce, hashed.as_ref(), &a2);
        let credentials = Credentials {
            username: self.username.clone(),
            realm: realm.clone(),
            nonce: nonce.clone(),
            uri: request.target.clone(),
            response,
            algorithm: *algorithm,
            session: session.map(|qop| CredentialSession {
                qop: qop.to_owned(),
                nc,
                cnonce,
            }),
            opaque: opaque.clone(),
        };
        request
            .headers
            .set(credentials_header(*proxy), credentials.to_value());
    }
}
