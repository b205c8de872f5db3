//! Where desk phones are: the registrar (RFC 3261 §10.3, with RFC 3327's Path and the instances of RFC 5626).
//!
//! ```text
//! REGISTER ─▶ Registrar::authenticate ─▶ Registrar::register ─▶ 200 with all bindings, Change
//!                  └─▶ 401, and why            └─▶ 400, 403, 423, 500, 503
//! a call for a phone ─▶ Registrar::bindings ─▶ Contact, Path and the Flow it came by
//! ```
//!
//! A phone that shows an instance (`+sip.instance`) keeps one binding however often its address changes; one that shows none has a binding
//! for each Contact. Calls go by the flow that a binding came by and nowhere else: behind a NAT there is no other way, and nobody has us
//! send to addresses of their choice. Neither GRUUs nor `Require: outbound` are given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use gateway_sip::digest::{Algorithm, Authenticator, Credentials, Denied, Ha1};
use gateway_sip::sanity::IncomingRequest;
use gateway_sip::{HeaderName, NameAddr, Request, Response, StatusCode, Uri};

use crate::Tokens;
use crate::dialog::ROUTES_MAX;
use crate::transaction::Flow;

/// The most bindings of all phones.
pub const BINDINGS_MAX: usize = 100_000;
/// The most Contacts of one REGISTER.
pub const CONTACTS_MAX: usize = 16;
/// The longest instance id that is kept, in bytes; a URN of a UUID has 45.
const INSTANCE_LEN_MAX: usize = 256;
/// The longest name of a phone's program that is kept, in bytes.
const AGENT_LEN_MAX: usize = 128;

/// How long bindings hold, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// The least that may be asked for (423).
    pub min: u32,
    /// The most that is granted.
    pub max: u32,
    /// What is granted where nothing is asked for.
    pub usual: u32,
}

impl Default for Expiry {
    fn default() -> Self {
        Self {
            min: 60,
            max: 3_600,
            usual: 600,
        }
    }
}

/// A phone there may be.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What its password is known by.
    pub md5: Ha1,
    /// The same by SHA-256; not there where only a hash was brought along.
    pub sha256: Option<Ha1>,
    /// How many bindings it may have: another one takes the place of the oldest.
    pub contacts_max: usize,
}

/// Who may register.
pub trait Phones {
    /// The phone with this user, if it may come from there.
    fn phone(&self, user: &str, from: IpAddr) -> Option<Entry>;
}

/// A request that does not show who it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Challenged {
    /// The 401 to answer with, the same for users there are and users there are not; 400 for credentials against the grammar.
    pub response: Box<Response>,
    /// Why.
    pub why: Unproven,
}

/// Why a request does not show who it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unproven {
    /// It has no credentials for us yet: what every first request is like.
    Missing,
    /// Its credentials were right, but their nonce is used up.
    Stale,
    /// Its credentials are against the grammar.
    Malformed,
    /// They are for something else, or their nonce is not ours.
    OtherUse,
    /// No such user, a wrong password, or a place that the phone may not come from.
    Wrong,
}

impl Unproven {
    /// A word for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Malformed => "malformed",
            Self::OtherUse => "other_use",
            Self::Wrong => "wrong",
        }
    }

    /// Whether it counts as an attempt to guess.
    #[must_use]
    pub fn is_guess(self) -> bool {
        matches!(self, Self::OtherUse | Self::Wrong)
    }
}

/// Where a phone is.
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// The Request-URI of calls for it.
    pub contact: Uri,
    /// By which proxies, before it (RFC 3327).
    pub path: Vec<NameAddr>,
    /// The way it came by: the way back.
    pub flow: Flow,
    /// What stays when its address changes.
    pub instance: Option<String>,
    /// Its program, for people.
    pub agent: Option<String>,
    /// Its Via names another address than it came from: a NAT is between, which forgets ways that are not used.
    pub behind_nat: bool,
    /// When it ends.
    pub expires: Instant,
    /// Which of several is wanted first, in thousandths.
    pub preference: u16,
    call_id: String,
    number: u32,
    /// Larger for bindings that are newer.
    order: u64,
}

/// People and places stay out of logs.
impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Binding({}, {})",
            self.flow.transport.as_str(),
            self.flow.socket
        )
    }
}

/// What became of a phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has its first binding: calls reach it from now on.
    Came {
        /// The user.
        user: String,
    },
    /// Its last one ended.
    Went {
        /// The user.
        user: String,
    },
}

/// What a REGISTER is answered with, and what it changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// The answer.
    pub response: Box<Response>,
    /// What changed, if anything.
    pub change: Option<Change>,
}

/// All phones that are registered.
#[derive(Debug)]
pub struct Registrar {
    authenticator: Authenticator,
    expiry: Expiry,
    agent: String,
    /// What the authenticator counts its time from.
    began: Instant,
    bindings_by_user: BTreeMap<String, Vec<Binding>>,
    users_by_flow: BTreeMap<Flow, BTreeSet<String>>,
    timeouts: BTreeSet<(Instant, String)>,
    bindings: usize,
    bindings_max: usize,
    last_order: u64,
}

impl Registrar {
    /// A registrar of `realm`, which asks for passwords by `algorithms`, the best first. `secret` must be random and for this alone; `agent` is
    /// what we are, for Server.
    #[must_use]
    pub fn new(
        now: Instant,
        (realm, algorithms): (&str, &[Algorithm]),
        secret: &[u8; 32],
        expiry: Expiry,
        agent: &str,
    ) -> Self {
        Self {
            authenticator: Authenticator::new(realm, algorithms, secret),
            expiry,
            agent: agent.to_owned(),
            began: now,
            bindings_by_user: BTreeMap::new(),
            users_by_flow: BTreeMap::new(),
            timeouts: BTreeSet::new(),
            bindings: 0,
            bindings_max: BINDINGS_MAX,
            last_order: 0,
        }
    }

    /// The same with another limit than [`BINDINGS_MAX`].
    #[must_use]
    pub fn with_limit(mut self, bindings_max: usize) -> Self {
        self.bindings_max = bindings_max;
        self
    }

    /// Who sent a REGISTER or a new INVITE that came from `from`: the user its digest proves.
    ///
    /// # Errors
    ///
    /// [`Challenged`]: the answer, and why.
    pub fn authenticate(
        &mut self,
        now: Instant,
        from: IpAddr,
        incoming: &IncomingRequest,
        phones: &impl Phones,
        tokens: &mut dyn Tokens,
    ) -> Result<(String, Entry), Challenged> {
        let request = &incoming.request;
        let realm = self.authenticator.realm().to_owned();
        let time = now.saturating_duration_since(self.began);
        let (why, algorithm) = match Credentials::find(request, false, &realm) {
            Err(_) => {
                return Err(Challenged {
                    response: Box::new(self.answer(request, StatusCode::BAD_REQUEST, tokens)),
                    why: Unproven::Malformed,
                });
            }
            Ok(None) => (Unproven::Missing, None),
            Ok(Some(credentials)) => {
                let entry = phones.phone(&credentials.username, from);
                let ha1 = entry
                    .as_ref()
                    .and_then(|entry| match credentials.algorithm {
                        Algorithm::Md5 => Some(&entry.md5),
                        Algorithm::Sha256 => entry.sha256.as_ref(),
                        Algorithm::Sha512_256 => None,
                    });
                let denied =
                    self.authenticator
                        .check(time, request, &incoming.uri, &credentials, ha1);
                let why = match (denied, entry) {
                    (Ok(()), Some(entry)) => return Ok((credentials.username, entry)),
                    (Err(Denied::Stale), _) => Unproven::Stale,
                    (Err(Denied::ForeignNonce | Denied::OtherUse), _) => Unproven::OtherUse,
                    (Ok(()) | Err(Denied::Wrong), _) => Unproven::Wrong,
                };
                (why, Some(credentials.algorithm))
            }
        };
        let mut response = self.answer(request, StatusCode::UNAUTHORIZED, tokens);
        let number = tokens.next();
        let stale = why == Unproven::Stale;
        // Of some phones only a hash by MD5 is known, and which ones must not show: whoever fails by SHA-256 is asked for MD5 alone.
        let only_md5 = why == Unproven::Wrong && algorithm == Some(Algorithm::Sha256);
        for challenge in self.authenticator.challenges(time, number, stale) {
            if !only_md5 || !challenge.contains("algorithm=SHA-256") {
                response
                    .headers
                    .push(HeaderName::WwwAuthenticate, challenge);
            }
        }
        Err(Challenged {
            response: Box::new(response),
            why,
        })
    }

    /// Takes a REGISTER of the phone `user`, which [`Registrar::authenticate`] has proven, in the order of RFC 3261 §10.3. All of it is
    /// done or nothing: 403 for the address of somebody else, 400 for a Contact or a `*` that can't be, 423 for too short a time, 500 for one
    /// that was overtaken, 503 where there is no room.
    pub fn register(
        &mut self,
        now: Instant,
        flow: Flow,
        incoming: &IncomingRequest,
        (user, entry): (&str, &Entry),
        tokens: &mut dyn Tokens,
    ) -> Registered {
        let request = &incoming.request;
        let before = self.bindings_by_user.contains_key(user);
        let done = self.update(now, flow, incoming, user, entry);
        let after = self.bindings_by_user.contains_key(user);
        let user_of = || user.to_owned();
        let change = match (before, after) {
            (false, true) => Some(Change::Came { user: user_of() }),
            (true, false) => Some(Change::Went { user: user_of() }),
            _ => None,
        };
        let mut response = match done {
            Ok(()) => self.answer(request, StatusCode::OK, tokens),
            Err(code) => self.answer(request, code, tokens),
        };
        match done {
            Ok(()) => self.describe(now, user, request, &mut response),
            Err(StatusCode::INTERVAL_TOO_BRIEF) => {
                response
                    .headers
                    .push(HeaderName::MinExpires, self.expiry.min);
            }
            Err(StatusCode::SERVICE_UNAVAILABLE) => {
                response.headers.push(HeaderName::RetryAfter, 60);
            }
            Err(_) => {}
        }
        Registered {
            response: Box::new(response),
            change,
        }
    }

    /// Where a phone is: the most wanted first, the newest among equals.
    pub fn bindings(&self, user: &str) -> impl Iterator<Item = &Binding> {
        self.bindings_by_user.get(user).into_iter().flatten()
    }

    /// Whether a phone is registered by this flow. Nobody is known by that alone: datagrams may lie about where they are from.
    #[must_use]
    pub fn is_known(&self, flow: &Flow) -> bool {
        self.users_by_flow.contains_key(flow)
    }

    /// How many bindings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bindings
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bindings == 0
    }

    /// When [`Registrar::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeouts.first().map(|(at, _)| *at)
    }

    /// Ends what was not renewed.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some((at, user)) = self.timeouts.first().cloned() {
            if at > now {
                break;
            }
            changes.extend(self.retain(&user, |binding| binding.expires > now));
        }
        changes
    }

    /// A connection is gone, and with it the way to those who came by it.
    pub fn handle_broken(&mut self, flow: &Flow) -> Vec<Change> {
        let users = self.users_by_flow.get(flow).cloned().unwrap_or_default();
        let gone = |user: &String| self.retain(user, |binding| binding.flow != *flow);
        users.iter().filter_map(gone).collect()
    }

    /// The phone is no more, or has another password: it has to begin anew.
    pub fn forget(&mut self, user: &str) -> Option<Change> {
        self.retain(user, |_| false)
    }

    fn update(
        &mut self,
        now: Instant,
        flow: Flow,
        incoming: &IncomingRequest,
        user: &str,
        entry: &Entry,
    ) -> Result<(), StatusCode> {
        let request = &incoming.request;
        let envelope = &incoming.envelope;
        // Nobody registers for somebody else.
        if envelope.to.uri.user().as_deref() != Some(user) {
            return Err(StatusCode::FORBIDDEN);
        }
        let known = self.bindings_by_user.get(user).cloned().unwrap_or_default();
        let is_overtaken = |binding: &Binding| {
            binding.call_id == envelope.call_id && binding.number >= envelope.cseq.number
        };
        let expires = request.headers.number(&HeaderName::Expires);
        if request
            .headers
            .lines(&HeaderName::Contact)
            .any(|line| line == "*")
        {
            let alone = request.headers.lines(&HeaderName::Contact).count() == 1;
            if !alone || expires != Some(0) {
                return Err(StatusCode::BAD_REQUEST);
            }
            if known.iter().any(is_overtaken) {
                return Err(StatusCode::SERVER_INTERNAL_ERROR);
            }
            self.retain(user, |_| false);
            return Ok(());
        }
        let bad = |_| StatusCode::BAD_REQUEST;
        let contacts = request
            .headers
            .addresses(&HeaderName::Contact)
            .map_err(bad)?;
        if contacts.is_empty() {
            return Ok(());
        }
        let path = request.headers.addresses(&HeaderName::Path).map_err(bad)?;
        if path.len() > ROUTES_MAX || contacts.len() > CONTACTS_MAX {
            return Err(StatusCode::BAD_REQUEST);
        }
        let mut bindings = known;
        for contact in contacts {
            let seconds = self.seconds(&contact, expires)?;
            if contact.uri.sip().is_none() {
                return Err(StatusCode::BAD_REQUEST);
            }
            let instance = instance(&contact);
            let is_same = |binding: &Binding| match (&binding.instance, &instance) {
                (Some(one), Some(other)) => one == other,
                _ => binding.contact.is_same(&contact.uri),
            };
            if bindings
                .iter()
                .any(|binding| is_same(binding) && is_overtaken(binding))
            {
                return Err(StatusCode::SERVER_INTERNAL_ERROR);
            }
            bindings.retain(|binding| !is_same(binding));
            if seconds == 0 {
                continue;
            }
            self.last_order += 1;
            let agent = request.headers.get(&HeaderName::UserAgent);
            bindings.push(Binding {
                preference: preference(&contact),
                contact: contact.uri,
                path: path.clone(),
                flow,
                instance,
                agent: agent.map(|agent| agent.chars().take(AGENT_LEN_MAX).collect()),
                behind_nat: envelope.via.host.ip() != Some(flow.remote.ip()),
                expires: now + Duration::from_secs(seconds.into()),
                call_id: envelope.call_id.clone(),
                number: envelope.cseq.number,
                order: self.last_order,
            });
        }
        bindings.sort_by_key(|binding| std::cmp::Reverse(binding.order));
        bindings.truncate(entry.contacts_max);
        bindings.sort_by_key(|binding| std::cmp::Reverse((binding.preference, binding.order)));
        let others = self.bindings - self.bindings_by_user.get(user).map_or(0, Vec::len);
        if others + bindings.len() > self.bindings_max {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        self.set(user, bindings);
        Ok(())
    }

    /// For how long this Contact is wanted: its own word, that of all, or what is usual.
    fn seconds(&self, contact: &NameAddr, expires: Option<u32>) -> Result<u32, StatusCode> {
        let own = contact.params.get("expires");
        let asked = own.and_then(|text| text.parse().ok()).or(expires);
        match asked.unwrap_or(self.expiry.usual) {
            0 => Ok(0),
            asked if asked < self.expiry.min => Err(StatusCode::INTERVAL_TOO_BRIEF),
            asked => Ok(asked.min(self.expiry.max)),
        }
    }

    /// All bindings of the user, each with the time it has left.
    fn describe(&self, now: Instant, user: &str, request: &Request, response: &mut Response) {
        for binding in self.bindings(user) {
            let mut contact = NameAddr::new(binding.contact.clone());
            let left = binding.expires.saturating_duration_since(now).as_secs();
            contact.params.set("expires", Some(&left.to_string()));
            let mut value = contact.to_string();
            if let Some(instance) = &binding.instance {
                value.push_str(&format!(";+sip.instance=\"{instance}\""));
            }
            response.headers.push(HeaderName::Contact, value);
        }
        for path in request.headers.lines(&HeaderName::Path) {
            response.headers.push(HeaderName::Path, path);
        }
    }

    fn retain(&mut self, user: &str, keep: impl Fn(&Binding) -> bool) -> Option<Change> {
        let mut bindings = self.bindings_by_user.get(user)?.clone();
        bindings.retain(keep);
        let went = bindings.is_empty();
        self.set(user, bindings);
        went.then(|| Change::Went {
            user: user.to_owned(),
        })
    }

    /// Puts all bindings of a user in the place of those before.
    fn set(&mut self, user: &str, bindings: Vec<Binding>) {
        let first = |bindings: &[Binding]| bindings.iter().map(|binding| binding.expires).min();
        for binding in self.bindings_by_user.remove(user).unwrap_or_default() {
            self.bindings -= 1;
            self.timeouts.remove(&(binding.expires, user.to_owned()));
            if let Some(users) = self.users_by_flow.get_mut(&binding.flow) {
                users.remove(user);
                if users.is_empty() {
                    self.users_by_flow.remove(&binding.flow);
                }
            }
        }
        if let Some(at) = first(&bindings) {
            self.timeouts.insert((at, user.to_owned()));
            for binding in &bindings {
                let users = self.users_by_flow.entry(binding.flow).or_default();
                users.insert(user.to_owned());
            }
            self.bindings += bindings.len();
            self.bindings_by_user.insert(user.to_owned(), bindings);
        }
    }

    fn answer(&self, request: &Request, code: StatusCode, tokens: &mut dyn Tokens) -> Response {
        let mut response = Response::to(request, code, &tokens.word());
        response.headers.push(HeaderName::Server, &self.agent);
        response
    }
}

/// What stays when a phone's address changes (RFC 5626 §4.1).
fn instance(contact: &NameAddr) -> Option<String> {
    let instance = contact.params.get_unquoted("+sip.instance")?;
    let fits = (1..=INSTANCE_LEN_MAX).contains(&instance.len())
        && instance
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    fits.then_some(instance)
}

/// The `q` of a Contact in thousandths (RFC 3261 §20.10); 1 where there is none.
fn preference(contact: &NameAddr) -> u16 {
    let value = contact.params.get("q").unwrap_or("1");
    let (whole, rest) = value.split_once('.').unwrap_or((value, ""));
    let digits: String = rest.chars().chain("000".chars()).take(3).collect();
    match (whole, digits.parse::<u16>()) {
        ("0", Ok(thousandths)) => thousandths,
        _ => 1_000,
    }
}

#[cfg(test)]
mod tests;
