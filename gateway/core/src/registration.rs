//! Being registered at a provider: REGISTER, its renewal, and what to do when that fails (RFC 3261 §10.2).

use std::time::{Duration, Instant};

use gateway_sip::digest::{self, Answering};
use gateway_sip::sanity::IncomingResponse;
use gateway_sip::{
    HeaderName, MAX_FORWARDS_DEFAULT, Method, NameAddr, Request, Response, StatusCode, Uri,
};

use crate::Tokens;
use crate::leg::Credential;

/// How long to wait after a first failure, at most (RFC 5626 §4.5).
pub const RETRY_BASE: Duration = Duration::from_secs(30);
/// And after many.
pub const RETRY_MAX: Duration = Duration::from_secs(1_800);
/// How long before its end a registration is renewed, when it is long enough.
const MARGIN: Duration = Duration::from_secs(32);
/// The shortest registration that is taken at its word.
const EXPIRES_MIN: u32 = 20;
/// How many requests one attempt may take: challenges, and other times.
const TRIES_MAX: u8 = 4;

/// What is registered, and where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The Request-URI: the provider.
    pub registrar: Uri,
    /// Who we are there.
    pub address: NameAddr,
    /// Where calls for us go.
    pub contact: NameAddr,
    /// Whom we are for challenges.
    pub credential: Option<Credential>,
    /// For how long we ask, in seconds.
    pub expires: u32,
    /// For User-Agent.
    pub agent: String,
}

/// What a registration is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// Begin, or try again at once.
    Start,
    /// Take the registration back.
    Stop,
    /// A response to the last request came.
    Response(Box<IncomingResponse>),
    /// No response comes: as good as this one.
    NoResponse(StatusCode),
    /// [`Registration::poll_timeout`] has come.
    Timeout,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send this request to the registrar; responses to those before are of no interest any more.
    Request(Box<Request>),
    /// This is news.
    Tell(Told),
}

/// What a registration tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// We are registered for so long, and requests go by these proxies first (RFC 3608).
    Registered {
        /// For how long.
        expires: Duration,
        /// Service-Route.
        routes: Vec<NameAddr>,
    },
    /// We are not, and try again after a while.
    Failed {
        /// The response.
        code: StatusCode,
        /// When.
        retry: Duration,
    },
    /// We are not any more, as was wanted.
    Stopped,
}

/// One registration.
#[derive(Debug)]
pub struct Registration {
    settings: Settings,
    call_id: String,
    tag: String,
    number: u32,
    state: State,
    answering: Option<Answering>,
    /// Requests of this attempt.
    tries: u8,
    /// Attempts that failed, one after the other.
    failures: u32,
    /// For how long a registrar with a least time wants it.
    expires: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// A request is under way.
    Asking,
    /// So is one that takes all back.
    Leaving,
    /// Something is to be done then.
    Waiting(Instant),
}

impl Registration {
    /// A registration that [`Event::Start`] begins.
    #[must_use]
    pub fn new(settings: Settings, tokens: &mut dyn Tokens) -> Self {
        Self {
            expires: settings.expires,
            settings,
            call_id: tokens.word(),
            tag: tokens.word(),
            number: 0,
            state: State::Idle,
            answering: None,
            tries: 0,
            failures: 0,
        }
    }

    /// When [`Event::Timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) => Some(at),
            _ => None,
        }
    }

    /// Something happens.
    pub fn step(&mut self, now: Instant, event: Event, tokens: &mut dyn Tokens) -> Vec<Action> {
        match (event, self.state) {
            (Event::Start, State::Idle | State::Waiting(_)) => self.begin(State::Asking, tokens),
            (Event::Timeout, State::Waiting(at)) if at <= now => self.begin(State::Asking, tokens),
            (Event::Stop, State::Asking | State::Waiting(_)) => self.begin(State::Leaving, tokens),
            (Event::Response(incoming), State::Asking | State::Leaving) => {
                self.on_response(now, &incoming, tokens)
            }
            (Event::NoResponse(code), State::Asking) => self.fail(now, code, None, tokens),
            (Event::NoResponse(_), State::Leaving) => self.stopped(),
            _ => Vec::new(),
        }
    }

    fn begin(&mut self, state: State, tokens: &mut dyn Tokens) -> Vec<Action> {
        self.state = state;
        self.tries = 0;
        vec![self.ask(tokens)]
    }

    fn ask(&mut self, tokens: &mut dyn Tokens) -> Action {
        self.tries += 1;
        self.number += 1;
        let expires = if self.state == State::Leaving {
            0
        } else {
            self.expires
        };
        let mut request = Request::new(Method::Register, &self.settings.registrar);
        let headers = &mut request.headers;
        headers.push(HeaderName::MaxForwards, MAX_FORWARDS_DEFAULT);
        headers.push(
            HeaderName::From,
            self.settings.address.clone().with_tag(&self.tag),
        );
        headers.push(HeaderName::To, &self.settings.address);
        headers.push(HeaderName::CallId, &self.call_id);
        headers.push(HeaderName::CSeq, format_args!("{} REGISTER", self.number));
        headers.push(HeaderName::Contact, &self.settings.contact);
        headers.push(HeaderName::Expires, expires);
        headers.push(HeaderName::Supported, "path");
        headers.push(HeaderName::UserAgent, &self.settings.agent);
        if let Some(answering) = &mut self.answering {
            answering.authorize(&mut request, tokens.next());
        }
        Action::Request(Box::new(request))
    }

    fn on_response(
        &mut self,
        now: Instant,
        incoming: &IncomingResponse,
        tokens: &mut dyn Tokens,
    ) -> Vec<Action> {
        let response = &incoming.response;
        if incoming.envelope.cseq.number != self.number || response.code.is_provisional() {
            return Vec::new();
        }
        if self.tries < TRIES_MAX && self.adapt(response) {
            return vec![self.ask(tokens)];
        }
        match (response.code.is_success(), self.state) {
            (_, State::Leaving) => self.stopped(),
            (true, _) => self.succeed(now, response),
            (false, _) => {
                let after = response.headers.number(&HeaderName::RetryAfter);
                self.fail(now, response.code, after, tokens)
            }
        }
    }

    /// Takes what the response asks for; `false` when it is nothing that we have, or have tried.
    fn adapt(&mut self, response: &Response) -> bool {
        match response.code {
            StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let challenge = self
                    .settings
                    .credential
                    .as_ref()
                    .zip(digest::choose(response).ok());
                let Some((credential, challenge)) = challenge else {
                    return false;
                };
                // The same password, to the same realm, in this attempt: it is wrong, unless just the nonce was old.
                if self.tries > 1 && self.answering.is_some() && !challenge.stale {
                    return false;
                }
                self.answering = Some(Answering::new(
                    challenge,
                    &credential.username,
                    &credential.password,
                ));
                true
            }
            StatusCode::INTERVAL_TOO_BRIEF => {
                let min = response
                    .headers
                    .number(&HeaderName::MinExpires)
                    .filter(|min| *min > self.expires);
                self.expires = min.unwrap_or(self.expires);
                min.is_some()
            }
            _ => false,
        }
    }

    fn succeed(&mut self, now: Instant, response: &Response) -> Vec<Action> {
        self.failures = 0;
        let granted = granted(response, &self.settings.contact.uri)
            .unwrap_or(self.expires)
            .max(EXPIRES_MIN);
        let expires = Duration::from_secs(granted.into());
        // Before the end, by as much as a request may take; of a short one, half.
        let renew = if expires > MARGIN * 2 {
            expires - MARGIN
        } else {
            expires / 2
        };
        self.state = State::Waiting(now + renew);
        let routes = response
            .headers
            .addresses(&HeaderName::ServiceRoute)
            .unwrap_or_default();
        vec![Action::Tell(Told::Registered { expires, routes })]
    }

    /// Waits longer after each failure, and not as long as all others that failed at the same time (RFC 5626 §4.5).
    fn fail(
        &mut self,
        now: Instant,
        code: StatusCode,
        after: Option<u32>,
        tokens: &mut dyn Tokens,
    ) -> Vec<Action> {
        let most = RETRY_BASE
            .saturating_mul(1 << self.failures.min(10))
            .min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        // A wrong password does not become right by guessing on: banned are those who try.
        let refused = matches!(
            code,
            StatusCode::UNAUTHORIZED
                | StatusCode::PROXY_AUTHENTICATION_REQUIRED
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND
        );
        let most = if refused { RETRY_MAX } else { most };
        let share = u32::try_from(tokens.next() % 1_000).unwrap_or(0);
        let wait = most / 2 + most / 2 * share / 1_000;
        let wait = wait.max(Duration::from_secs(after.unwrap_or(0).into()).min(RETRY_MAX));
        self.answering = None;
        self.state = State::Waiting(now + wait);
        vec![Action::Tell(Told::Failed { code, retry: wait })]
    }

    fn stopped(&mut self) -> Vec<Action> {
        self.state = State::Idle;
        vec![Action::Tell(Told::Stopped)]
    }
}

/// For how long the registrar registered this contact: what it says of it, or of all.
fn granted(response: &Response, contact: &Uri) -> Option<u32> {
    let contacts = response
        .headers
        .addresses(&HeaderName::Contact)
        .unwrap_or_default();
    let ours = contacts.iter().find(|known| known.uri.is_same(contact));
    let of_ours = ours
        .and_then(|known| known.params.get("expires"))
        .and_then(|text| text.parse().ok());
    of_ours.or_else(|| response.headers.number(&HeaderName::Expires))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_sip::HeaderName as H;
    use gateway_sip::sanity::{Framing, Incoming, check};

    struct Provider {
        registration: Registration,
        now: Instant,
        sent: Vec<Request>,
        told: Vec<Told>,
        last_token: u64,
    }

    impl Provider {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant can't be made from a number; only differences to it are seen"
        )]
        fn new() -> Self {
            let uri = |text: &str| Uri::parse(text).expect("a URI");
            let settings = Settings {
                registrar: uri("sip:provider.test"),
                address: NameAddr::new(uri("sip:1001@provider.test")),
                contact: NameAddr::new(uri("sip:1001@192.0.2.1:5060")),
                credential: Some(Credential {
                    username: "1001".into(),
                    password: "secret".to_owned().into(),
                }),
                expires: 600,
                agent: "offhook".into(),
            };
            let registration = Registration::new(settings, &mut || 7);
            Self {
                registration,
                now: Instant::now(),
                sent: Vec::new(),
                told: Vec::new(),
                last_token: 0,
            }
        }

        fn step(&mut self, event: Event) {
            self.last_token += 333;
            let token = self.last_token;
            for action in self.registration.step(self.now, event, &mut || token) {
                match action {
                    Action::Request(request) => self.sent.push(*request),
                    Action::Tell(told) => self.told.push(told),
                }
            }
        }

        /// Answers the last request.
        fn answer(&mut self, code: StatusCode, headers: &[(H, &str)]) {
            let mut request = self.sent.last().expect("something was asked").clone();
            request
                .headers
                .push_front(H::Via, "SIP/2.0/UDP h;branch=z9hG4bK1");
            let mut response = Response::to(&request, code, "p");
            for (name, value) in headers {
                response.headers.push(name.clone(), value);
            }
            let Ok(Incoming::Response(incoming)) =
                check(&response.to_bytes(), Framing::Datagram, "")
            else {
                panic!("a response");
            };
            self.step(Event::Response(incoming));
        }

        fn wait(&mut self) -> Duration {
            let at = self
                .registration
                .poll_timeout()
                .expect("something is to be done");
            let waited = at - self.now;
            self.now = at;
            self.step(Event::Timeout);
            waited
        }
    }

    const CHALLENGE: (H, &str) = (
        H::WwwAuthenticate,
        "Digest realm=\"p\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256",
    );
    const STALE: (H, &str) = (
        H::WwwAuthenticate,
        "Digest realm=\"p\", nonce=\"m\", qop=\"auth\", algorithm=SHA-256, stale=true",
    );
    const GRANTED: (H, &str) = (
        H::Contact,
        "<sip:2@h>;expires=20, <sip:1001@192.0.2.1:5060>;expires=300",
    );

    #[test]
    fn a_registration_is_made_and_renewed_with_one_nonce() {
        let mut t = Provider::new();
        t.step(Event::Start);
        assert!(t.sent[0].headers.get(&H::Authorization).is_none());
        t.answer(StatusCode::UNAUTHORIZED, &[CHALLENGE]);
        t.answer(
            StatusCode::OK,
            &[GRANTED, (H::ServiceRoute, "<sip:edge;lr>")],
        );
        let Told::Registered { expires, routes } = &t.told[0] else {
            panic!("{:?}", t.told)
        };
        assert_eq!((*expires, routes.len()), (Duration::from_secs(300), 1));
        assert_eq!(t.wait(), Duration::from_secs(268));
        assert!(
            t.sent[2]
                .headers
                .get(&H::Authorization)
                .is_some_and(|value| value.contains("nc=00000002"))
        );
        t.answer(StatusCode::UNAUTHORIZED, &[STALE]);
        assert!(
            t.sent[3]
                .headers
                .get(&H::Authorization)
                .is_some_and(|value| value.contains("nonce=\"m\""))
        );
        t.answer(StatusCode::OK, &[GRANTED]);
        assert_eq!(t.told.len(), 2);
        let numbers: Vec<_> = t
            .sent
            .iter()
            .filter_map(|request| request.headers.get(&H::CSeq))
            .collect();
        assert_eq!(
            numbers,
            ["1 REGISTER", "2 REGISTER", "3 REGISTER", "4 REGISTER"]
        );
    }

    #[test]
    fn a_longer_time_is_taken_when_it_is_asked_for() {
        let mut t = Provider::new();
        t.step(Event::Start);
        t.answer(StatusCode::INTERVAL_TOO_BRIEF, &[(H::MinExpires, "3600")]);
        assert_eq!(t.sent[1].headers.get(&H::Expires), Some("3600"));
        t.answer(StatusCode::OK, &[(H::Expires, "3600")]);
        assert_eq!(t.wait(), Duration::from_secs(3_568));
        // The same again would go on for ever.
        t.answer(StatusCode::INTERVAL_TOO_BRIEF, &[(H::MinExpires, "3600")]);
        assert!(matches!(
            t.told.last(),
            Some(Told::Failed {
                code: StatusCode::INTERVAL_TOO_BRIEF,
                ..
            })
        ));
    }

    #[test]
    fn failures_wait_longer_each_time_and_a_refusal_longest() {
        let mut t = Provider::new();
        t.step(Event::Start);
        let mut waits = Vec::new();
        for _ in 0..10 {
            t.step(Event::NoResponse(StatusCode::REQUEST_TIMEOUT));
            waits.push(t.wait());
        }
        for (at, wait) in waits.iter().enumerate() {
            let most = (RETRY_BASE * 2_u32.pow(u32::try_from(at).expect("small"))).min(RETRY_MAX);
            assert!((most / 2..=most).contains(wait), "{waits:?}");
        }
        t.answer(StatusCode::OK, &[GRANTED]);
        t.wait();
        t.answer(StatusCode::SERVICE_UNAVAILABLE, &[(H::RetryAfter, "120")]);
        assert_eq!(t.wait(), Duration::from_secs(120));
        t.answer(StatusCode::UNAUTHORIZED, &[CHALLENGE]);
        t.answer(StatusCode::UNAUTHORIZED, &[CHALLENGE]);
        assert!(t.wait() >= RETRY_MAX / 2, "a wrong password");
    }

    #[test]
    fn a_registration_is_taken_back() {
        let mut t = Provider::new();
        t.step(Event::Start);
        t.answer(StatusCode::OK, &[GRANTED]);
        t.step(Event::Stop);
        assert_eq!(t.sent[1].headers.get(&H::Expires), Some("0"));
        t.answer(StatusCode::OK, &[]);
        assert_eq!(
            (t.told.last(), t.registration.poll_timeout()),
            (Some(&Told::Stopped), None)
        );
        t.step(Event::Stop);
        assert_eq!(t.sent.len(), 2, "there is nothing to take back");
    }
}
