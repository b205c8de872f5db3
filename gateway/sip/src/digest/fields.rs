//! The fields of challenges and credentials.

use std::fmt::Write;

use super::Algorithm;
use crate::text;
use crate::{DecodeError, HeaderName, Request};

/// The most fields of one header that are read.
const FIELDS_MAX: usize = 32;

/// `Digest name=value, name="value"`: the fields of a challenge or of credentials.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// With the hash they are about; `None` for another scheme than Digest, or another hash than ours.
    pub(super) fn parse(
        value: &str,
        what: &'static str,
    ) -> Result<Option<(Self, Algorithm)>, DecodeError> {
        let (scheme, rest) = value.split_once([' ', '\t']).unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Ok(None);
        }
        let malformed = DecodeError::malformed(what);
        let mut fields = Self(Vec::new());
        for part in text::split(rest, b',', FIELDS_MAX, what)? {
            let (name, value) = part.split_once('=').ok_or(malformed)?;
            let (name, value) = (text::trim(name).to_ascii_lowercase(), text::trim(value));
            let value =
                text::unquote(value).or_else(|| text::is_token(value).then(|| value.to_owned()));
            if !text::is_token(&name) || fields.get(&name).is_some() {
                return Err(malformed);
            }
            fields.0.push((name, value.ok_or(malformed)?));
        }
        let algorithm = fields
            .get("algorithm")
            .map_or(Some(Algorithm::Md5), Algorithm::parse);
        Ok(algorithm.map(|algorithm| (fields, algorithm)))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let field = self.0.iter_mut().find(|(known, _)| known == name);
        field.map(|(_, value)| std::mem::take(value))
    }
}

/// What somebody sends to be known (RFC 7616 §3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The realm of the challenge.
    pub realm: String,
    /// The nonce of the challenge.
    pub nonce: String,
    /// The URI the hash was made for.
    pub uri: String,
    /// The hash, in hexadecimal.
    pub response: String,
    /// Which hash.
    pub algorithm: Algorithm,
    /// `qop`, `nc` and `cnonce`, where the challenge asked for them.
    pub session: Option<CredentialSession>,
    /// `opaque` of the challenge.
    pub opaque: Option<String>,
}

/// The fields that go with `qop`.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialSession {
    /// `auth` or `auth-int`.
    pub qop: String,
    /// How often the nonce was used: eight hexadecimal digits.
    pub nc: String,
    /// The sender's own nonce.
    pub cnonce: String,
}

impl Credentials {
    /// The credentials of a request for `realm`: those in Authorization, or in Proxy-Authorization when `proxy`.
    /// `None` where there are none for this realm that we can read: other schemes and hashes are others' business.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for Digest credentials against the grammar.
    pub fn find(request: &Request, proxy: bool, realm: &str) -> Result<Option<Self>, DecodeError> {
        for line in request.headers.lines(&credentials_header(proxy)) {
            if let Some(credentials) =
                Self::parse(line)?.filter(|credentials| credentials.realm == realm)
            {
                return Ok(Some(credentials));
            }
        }
        Ok(None)
    }

    /// Reads the value of an Authorization header; `None` for another scheme or hash.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for what is against the grammar, or lacks a field that must be there.
    pub fn parse(value: &str) -> Result<Option<Self>, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::malformed("Authorization");
        let Some((mut fields, algorithm)) = Fields::parse(value, "Authorization")? else {
            return Ok(None);
        };
        let session = match fields.take("qop") {
            None => None,
            Some(qop) => Some(CredentialSession {
                qop: Some(qop)
                    .filter(|qop| text::is_token(qop))
                    .ok_or(MALFORMED)?,
                nc: fields
                    .take("nc")
                    .filter(|nc| parse_nc(nc).is_some())
                    .ok_or(MALFORMED)?,
                cnonce: fields.take("cnonce").ok_or(MALFORMED)?,
            }),
        };
        let mut take = |name| fields.take(name).ok_or(MALFORMED);
        Ok(Some(Self {
            username: take("username")?,
            realm: take("realm")?,
            nonce: take("nonce")?,
            uri: take("uri")?,
            response: take("response")?,
            algorithm,
            session,
            opaque: fields.take("opaque"),
        }))
    }

    /// How often the nonce was used with this request; `None` without `qop`.
    #[must_use]
    pub fn count(&self) -> Option<u32> {
        self.session
            .as_ref()
            .and_then(|session| parse_nc(&session.nc))
    }

    /// The value of an Authorization header.
    #[must_use]
    pub fn to_value(&self) -> String {
        let mut out = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response={}, algorithm={}",
            text::quote(&self.username),
            text::quote(&self.realm),
            text::quote(&self.nonce),
            text::quote(&self.uri),
            text::quote(&self.response),
            self.algorithm.as_str()
        );
        if let Some(CredentialSession { qop, nc, cnonce }) = &self.session {
            let _ = write!(out, ", qop={qop}, nc={nc}, cnonce={}", text::quote(cnonce));
        }
        if let Some(opaque) = &self.opaque {
            let _ = write!(out, ", opaque={}", text::quote(opaque));
        }
        out
    }
}

/// The hash and the nonces stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.algorithm.as_str())
    }
}

/// Where credentials stand.
pub(super) fn credentials_header(proxy: bool) -> HeaderName {
    if proxy {
        HeaderName::ProxyAuthorization
    } else {
        HeaderName::Authorization
    }
}

fn parse_nc(text: &str) -> Option<u32> {
    let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}
