//! Knowing others by their credentials.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::{Algorithm, Credentials, Ha1, Session, a2};
use crate::text;
use crate::{Request, Uri};

/// For how long a nonce is good. One that is older is answered with `stale=true`, and the phone asks nobody for a password.
pub const NONCE_LIFETIME: Duration = Duration::from_secs(300);

/// The most nonces whose use is remembered. Only credentials that were right take a place.
pub const NONCES_MAX: usize = 100_000;

const NONCE_HEAD_LEN: usize = 16;
const NONCE_TAG_LEN: usize = 16;

/// Challenges, and checks the answers. A nonce is its time, a number and their HMAC: none is kept until it was used rightly, and
/// then only how often, so that nothing is taken twice.
#[derive(Debug)]
pub struct Authenticator {
    realm: String,
    algorithms: Vec<Algorithm>,
    key: hmac::Key,
    /// How often each nonce was used, by when it was made and its number.
    counts: BTreeMap<(u64, u64), u32>,
}

/// Why credentials are not taken. To the one who sent them all but [`Denied::Stale`] look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The nonce was ours and is too old, or this use of it was taken before: challenge again, with `stale`.
    #[error("the nonce is used up")]
    Stale,
    /// The nonce was never ours.
    #[error("the nonce is not ours")]
    ForeignNonce,
    /// Made for another realm, for another URI, without `qop`, or with a hash we did not ask for.
    #[error("the credentials are for something else")]
    OtherUse,
    /// The user is unknown or the password wrong; which of them nobody learns, neither from the answer nor from its time.
    #[error("unknown user or wrong password")]
    Wrong,
}

impl Authenticator {
    /// An authenticator for `realm`. `algorithms` are offered in their order; `secret` must be random, and only for this.
    #[must_use]
    pub fn new(realm: &str, algorithms: &[Algorithm], secret: &[u8; 32]) -> Self {
        Self {
            realm: realm.to_owned(),
            algorithms: algorithms.to_vec(),
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            counts: BTreeMap::new(),
        }
    }

    /// The realm.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The values of the WWW-Authenticate headers of a challenge, one for each hash. `now` is the time since any moment that
    /// stays; `number` must be random.
    #[must_use]
    pub fn challenges(&self, now: Duration, number: u64, stale: bool) -> Vec<String> {
        let nonce = self.nonce(now.as_secs(), number);
        let challenge = |algorithm: &Algorithm| {
            format!(
                "Digest realm={}, nonce=\"{nonce}\", qop=\"auth\", algorithm={}{}",
                text::quote(&self.realm),
                algorithm.as_str(),
                if stale { ", stale=true" } else { "" }
            )
        };
        self.algorithms.iter().map(challenge).collect()
    }

    /// Checks `credentials` of `request`, whose Request-URI is `uri`. `ha1` is that of the user they name for their
    /// algorithm; `None` for a user there is not.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn check(
        &mut self,
        now: Duration,
        request: &Request,
        uri: &Uri,
        credentials: &Credentials,
        ha1: Option<&Ha1>,
    ) -> Result<(), Denied> {
        let (time, number) = self
            .read_nonce(&credentials.nonce)
            .ok_or(Denied::ForeignNonce)?;
        let session = credentials
            .session
            .as_ref()
            .filter(|session| session.qop.eq_ignore_ascii_case("auth"));
        let (session, count) = session.zip(credentials.count()).ok_or(Denied::OtherUse)?;
        let same_uri = Uri::parse(&credentials.uri).is_ok_and(|theirs| theirs.is_same(uri));
        if credentials.realm != self.realm
            || !self.algorithms.contains(&credentials.algorithm)
            || !same_uri
        {
            return Err(Denied::OtherUse);
        }

        let nobody = Ha1::new(
            credentials.algorithm,
            &credentials.username,
            &self.realm,
            "",
        );
        let known = ha1.filter(|ha1| ha1.algorithm() == credentials.algorithm);
        let a2 = a2(
            credentials.algorithm,
            request.method.as_str(),
            &credentials.uri,
            None,
        );
        let session = Session {
            nc: &session.nc,
            cnonce: &session.cnonce,
            qop: &session.qop,
        };
        let expected = known
            .unwrap_or(&nobody)
            .response(&credentials.nonce, Some(&session), &a2);
        let given = credentials.response.to_ascii_lowercase();
        let equal = verify_slices_are_equal(expected.as_bytes(), given.as_bytes()).is_ok();
        if !equal || known.is_none() {
            return Err(Denied::Wrong);
        }

        // Only who knows the password hears that a nonce is old.
        let age = now.as_secs().saturating_sub(time);
        if age >= NONCE_LIFETIME.as_secs() {
            return Err(Denied::Stale);
        }
        self.count(now, (time, number), count)
    }

    /// Takes one use of a nonce: counts only rise. A full memory is answered like an old nonce.
    fn count(&mut self, now: Duration, nonce: (u64, u64), count: u32) -> Result<(), Denied> {
        let oldest = now.as_secs().saturating_sub(NONCE_LIFETIME.as_secs() - 1);
        self.counts = self.counts.split_off(&(oldest, 0));
        let full = self.counts.len() >= NONCES_MAX && !self.counts.contains_key(&nonce);
        let last = self.counts.get(&nonce).copied().unwrap_or(0);
        if full || count <= last {
            return Err(Denied::Stale);
        }
        self.counts.insert(nonce, count);
        Ok(())
    }

    fn nonce(&self, time: u64, number: u64) -> String {
        let mut bytes = Vec::with_capacity(NONCE_HEAD_LEN + NONCE_TAG_LEN);
        bytes.extend(time.to_be_bytes());
        bytes.extend(number.to_be_bytes());
        let tag = hmac::sign(&self.key, &bytes);
        bytes.extend_from_slice(&tag.as_ref()[..NONCE_TAG_LEN]);
        BASE64.encode(bytes)
    }

    fn read_nonce(&self, nonce: &str) -> Option<(u64, u64)> {
        let bytes = BASE64.decode(nonce).ok()?;
        let (head, tag) = bytes.split_at_checked(NONCE_HEAD_LEN)?;
        let expected = hmac::sign(&self.key, head);
        verify_slices_are_equal(&expected.as_ref()[..NONCE_TAG_LEN], tag).ok()?;
        let (time, number) = head.split_at(8);
        Some((
            u64::from_be_bytes(time.try_into().ok()?),
            u64::from_be_bytes(number.try_into().ok()?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Answering, Challenge};
    use super::*;
    use crate::{HeaderName, Method};

    const NOW: Duration = Duration::from_secs(1_000_000);
    const USER: &str = "1001";
    const ALL: [Algorithm; 3] = [Algorithm::Sha512_256, Algorithm::Sha256, Algorithm::Md5];

    struct Setting {
        server: Authenticator,
        uri: Uri,
        request: Request,
    }

    impl Setting {
        fn new() -> Self {
            let uri = Uri::parse("sip:example.com;transport=tcp").expect("a URI");
            let request = Request::new(Method::Register, &uri);
            Self {
                server: Authenticator::new("calls \"here\"", &ALL, &[7; 32]),
                uri,
                request,
            }
        }

        /// A phone that answers the challenge of the given hash.
        fn phone(&self, algorithm: Algorithm, password: &str) -> Answering {
            let lines = self.server.challenges(NOW, 9, false);
            let mut all = lines
                .iter()
                .filter_map(|line| Challenge::parse(line, false).ok().flatten());
            let challenge = all.find(|challenge| challenge.algorithm == algorithm);
            Answering::new(challenge.expect("all are offered"), USER, password)
        }

        fn send(&mut self, phone: &mut Answering) -> Credentials {
            phone.authorize(&mut self.request, 0xfeed);
            let credentials = Credentials::find(&self.request, false, "calls \"here\"");
            credentials
                .expect("what we write, we read")
                .expect("they are there")
        }

        fn check(&mut self, now: Duration, credentials: &Credentials) -> Result<(), Denied> {
            let ha1 = Ha1::new(credentials.algorithm, USER, "calls \"here\"", "secret");
            let ha1 = (credentials.username == USER).then_some(&ha1);
            self.server
                .check(now, &self.request, &self.uri, credentials, ha1)
        }
    }

    #[test]
    fn the_right_password_is_taken_with_every_hash_and_each_use_once() {
        for algorithm in ALL {
            let mut t = Setting::new();
            let mut phone = t.phone(algorithm, "secret");
            let first = t.send(&mut phone);
            assert_eq!(t.check(NOW, &first), Ok(()));
            assert_eq!(t.check(NOW, &first), Err(Denied::Stale), "replayed");
            let second = t.send(&mut phone);
            let third = t.send(&mut phone);
            assert_eq!(t.check(NOW, &third), Ok(()));
            assert_eq!(t.check(NOW, &second), Err(Denied::Stale), "overtaken");
        }
    }

    #[test]
    fn an_old_nonce_is_stale_to_those_who_know_the_password_alone() {
        let mut t = Setting::new();
        let mut phone = t.phone(Algorithm::Sha256, "secret");
        let credentials = t.send(&mut phone);
        assert_eq!(
            t.check(NOW + NONCE_LIFETIME, &credentials),
            Err(Denied::Stale)
        );
        let mut stranger = t.phone(Algorithm::Sha256, "guess");
        let credentials = t.send(&mut stranger);
        assert_eq!(
            t.check(NOW + NONCE_LIFETIME, &credentials),
            Err(Denied::Wrong)
        );
        assert!(t.server.counts.is_empty(), "nothing is kept for strangers");
    }

    #[test]
    fn credentials_for_something_else_are_not_taken() {
        let mut t = Setting::new();
        let mut phone = t.phone(Algorithm::Md5, "secret");
        let good = t.send(&mut phone);
        let with = |change: &dyn Fn(&mut Credentials)| {
            let mut credentials = good.clone();
            change(&mut credentials);
            credentials
        };
        let table: [(Credentials, Denied); 8] = [
            (with(&|c| c.username = "1002".into()), Denied::Wrong),
            (with(&|c| c.response = "0".repeat(32)), Denied::Wrong),
            (with(&|c| c.response.clear()), Denied::Wrong),
            (
                with(&|c| c.uri = "sip:elsewhere.com".into()),
                Denied::OtherUse,
            ),
            (with(&|c| c.realm = "elsewhere".into()), Denied::OtherUse),
            (with(&|c| c.session = None), Denied::OtherUse),
            (with(&|c| c.nonce = "AAAA".into()), Denied::ForeignNonce),
            (
                with(&|c| c.nonce.replace_range(..1, "Z")),
                Denied::ForeignNonce,
            ),
        ];
        for (credentials, expected) in table {
            assert_eq!(
                t.check(NOW, &credentials),
                Err(expected),
                "{}",
                credentials.to_value()
            );
        }
        t.request.method = Method::Invite;
        assert_eq!(
            t.check(NOW, &good),
            Err(Denied::Wrong),
            "for another method"
        );
        t.request.method = Method::Register;
        assert_eq!(t.check(NOW, &good), Ok(()));
    }

    #[test]
    fn what_was_used_is_forgotten_with_its_nonce() {
        let mut t = Setting::new();
        let mut phone = t.phone(Algorithm::Md5, "secret");
        let credentials = t.send(&mut phone);
        assert_eq!(t.check(NOW, &credentials), Ok(()));
        assert_eq!(
            t.server
                .count(NOW + NONCE_LIFETIME * 2, (NOW.as_secs() + 500, 1), 1),
            Ok(())
        );
        assert_eq!(t.server.counts.len(), 1);
    }

    #[test]
    fn headers_of_others_are_left_to_them() {
        let mut t = Setting::new();
        let mut phone = t.phone(Algorithm::Md5, "secret");
        t.send(&mut phone);
        let ours = t
            .request
            .headers
            .get(&HeaderName::Authorization)
            .expect("just written")
            .to_owned();
        t.request
            .headers
            .set(HeaderName::Authorization, "NewScheme opaque-data=here");
        assert_eq!(
            Credentials::find(&t.request, false, "calls \"here\""),
            Ok(None)
        );
        t.request.headers.push(HeaderName::Authorization, &ours);
        assert!(
            Credentials::find(&t.request, false, "calls \"here\"")
                .is_ok_and(|found| found.is_some())
        );
        assert_eq!(Credentials::find(&t.request, false, "another"), Ok(None));
        t.request
            .headers
            .set(HeaderName::Authorization, ours.replace("nc=", "nc=x"));
        assert!(Credentials::find(&t.request, false, "calls \"here\"").is_err());
    }
}
