//! Requests from addresses that are nobody's we know: silence, unless they name a domain of ours, and then a password
//! (RFC 3261 §22, RFC 8760).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use gateway_core::endpoint::{Admission, Source};
use gateway_core::transaction::{Flow, TIMEOUT};
use gateway_sip::digest::{Algorithm, Authenticator, Credentials, Denied, Ha1};
use gateway_sip::sanity::IncomingRequest;
use gateway_sip::{HeaderName, Host, Method, Response, StatusCode, Uri, Via};
use model::phone::rows::{DIGEST_REALM, Peering};

use super::trunks::TrunkId;
use super::{AGENT, Exchange, Rows};
use crate::admission::Silence;
use crate::config::Config;

/// The most requests that were let in by a password and may come again.
const ADMITTED_MAX: usize = 10_000;

/// The hashes that are offered, the strongest first.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];

pub(super) struct Strangers {
    authenticator: Authenticator,
    /// What the times of nonces count from.
    start: Instant,
    domains: Vec<Host>,
    /// Whose each user is.
    users: BTreeMap<String, TrunkId>,
    /// Requests that were let in, by where they came from and their branch: what comes again of them is theirs, too, though its
    /// credentials are used up.
    admitted: HashMap<(IpAddr, String), (Instant, TrunkId), RandomState>,
}

impl Strangers {
    pub(super) fn new(now: Instant, config: &Config, secret: &[u8; 32]) -> Self {
        let domains = config.domains.iter();
        Self {
            authenticator: Authenticator::new(DIGEST_REALM, &ALGORITHMS, secret),
            start: now,
            domains: domains.filter_map(|domain| Host::parse(domain)).collect(),
            users: BTreeMap::new(),
            admitted: HashMap::default(),
        }
    }

    /// Takes in who may show a password.
    pub(super) fn set_rows(&mut self, rows: &Rows) {
        self.users.clear();
        for (account, telephony) in rows {
            for (name, trunk) in telephony.trunks.iter().filter(|(_, trunk)| trunk.enabled) {
                if let Peering::Inbound(inbound) = &trunk.peering {
                    let id = (*account, name.clone());
                    self.users.insert(inbound.user.as_str().to_owned(), id);
                }
            }
        }
    }

    /// The Trunk that showed a password for this request.
    pub(super) fn shown(&self, flow: Flow, via: &Via) -> Option<TrunkId> {
        let key = (flow.remote.ip(), via.branch()?.to_owned());
        self.admitted.get(&key).map(|(_, trunk)| trunk.clone())
    }

    /// Whether somebody may show a password at all.
    fn is_open(&self) -> bool {
        !self.domains.is_empty() && !self.users.is_empty()
    }

    /// Whether a request is for a domain of ours: those who scan addresses don't know its name.
    fn names_us(&self, incoming: &IncomingRequest) -> bool {
        let is_ours = |uri: &Uri| {
            let host = uri.sip().map(|uri| &uri.host);
            host.is_some_and(|host| self.domains.iter().any(|domain| domain.is_same(host)))
        };
        is_ours(&incoming.uri) || is_ours(&incoming.envelope.to.uri)
    }

    fn remember(&mut self, now: Instant, key: (IpAddr, String), trunk: TrunkId) {
        if self.admitted.len() >= ADMITTED_MAX {
            self.admitted
                .retain(|_, (at, _)| now.saturating_duration_since(*at) < TIMEOUT);
        }
        if self.admitted.len() < ADMITTED_MAX {
            self.admitted.insert(key, (now, trunk));
        }
    }
}

impl Exchange {
    /// Decides about a request of a stranger before anything is kept for it: whether it goes to the transactions. Who names one of our
    /// Legs knows its tag, and is let in.
    pub(super) fn admit_stranger(
        &mut self,
        now: Instant,
        flow: Flow,
        incoming: &IncomingRequest,
    ) -> bool {
        if self.endpoint.leg_of(incoming).is_some() {
            return true;
        }
        let branch = incoming.envelope.via.branch().unwrap_or_default();
        let key = (flow.remote.ip(), branch.to_owned());
        if self.strangers.admitted.contains_key(&key) {
            return true;
        }
        let silent = matches!(incoming.request.method, Method::Ack | Method::Cancel)
            || !self.strangers.is_open()
            || !self.strangers.names_us(incoming);
        if silent {
            self.figures.silence(Silence::Stranger);
            return false;
        }
        match self.endpoint.admit(Source::Stranger, incoming) {
            Admission::Take => true,
            Admission::Silence => {
                self.figures.silence(Silence::Stranger);
                false
            }
            Admission::Authenticate => self.authenticate(now, flow, incoming, key),
        }
    }

    fn authenticate(
        &mut self,
        now: Instant,
        flow: Flow,
        incoming: &IncomingRequest,
        key: (IpAddr, String),
    ) -> bool {
        let since = now.saturating_duration_since(self.strangers.start);
        let found = Credentials::find(&incoming.request, false, DIGEST_REALM);
        let Ok(Some(credentials)) = found else {
            self.challenge(since, flow, incoming, false);
            return false;
        };
        let trunk = self.strangers.users.get(&credentials.username).cloned();
        let ha1 = trunk.as_ref().and_then(|(account, name)| {
            let trunk = self.rows.get(account)?.trunks.get(name)?;
            let password = trunk.password.as_ref()?.reveal();
            let user = &credentials.username;
            Some(Ha1::new(
                credentials.algorithm,
                user,
                DIGEST_REALM,
                password,
            ))
        });
        let checked = self.strangers.authenticator.check(
            since,
            &incoming.request,
            &incoming.uri,
            &credentials,
            ha1.as_ref(),
        );
        match (checked, trunk) {
            (Ok(()), Some(trunk)) => {
                self.admission.on_success(flow.remote.ip());
                self.strangers.remember(now, key, trunk);
                true
            }
            (Err(Denied::Stale), _) => {
                self.challenge(since, flow, incoming, true);
                false
            }
            _ => {
                self.figures.password_wrong += 1;
                if self.admission.on_failure(now, flow.remote.ip()) {
                    self.figures.bans += 1;
                    tracing::warn!(
                        seconds = self.config.ban_seconds,
                        "Too many wrong passwords from one address, nothing is heard of it for a while"
                    );
                    tracing::debug!(from = %flow.remote, "Banned");
                }
                self.challenge(since, flow, incoming, false);
                false
            }
        }
    }

    /// The same answer whoever is meant: nobody learns which users there are.
    fn challenge(&mut self, since: Duration, flow: Flow, incoming: &IncomingRequest, stale: bool) {
        self.figures.challenges += 1;
        let (tag, number) = (self.word(), self.random());
        let mut response = Response::to(&incoming.request, StatusCode::UNAUTHORIZED, &tag);
        for challenge in self
            .strangers
            .authenticator
            .challenges(since, number, stale)
        {
            response
                .headers
                .push(HeaderName::WwwAuthenticate, challenge);
        }
        response.headers.push(HeaderName::Server, AGENT);
        self.transactions.respond_statelessly(flow, response);
    }
}
