//! Requests from addresses that are nobody's we know: silence, unless they name a domain of ours, and then a password
//! (RFC 3261 §22, RFC 8760). Who shows one is a Trunk, or a desk phone.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use foldhash::fast::RandomState;
use gateway_core::endpoint::{Admission, Source};
use gateway_core::registrar::{Challenged, Entry, Phones};
use gateway_core::transaction::{Flow, TIMEOUT};
use gateway_sip::digest::{Algorithm, Ha1};
use gateway_sip::sanity::IncomingRequest;
use gateway_sip::{Host, Method, Uri, Via};
use model::phone::rows::{DIGEST_REALM, Peering, SipUser};
use model::{AccountId, Network};

use super::trunks::TrunkId;
use super::{Exchange, Rows};
use crate::admission::Silence;
use crate::config::Config;

/// The most requests that were let in by a password and may come again.
const ADMITTED_MAX: usize = 10_000;

/// Who showed a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// A Trunk.
    Trunk(TrunkId),
    /// A desk phone.
    Phone(AccountId, SipUser),
}

pub(super) struct Strangers {
    domains: Vec<Host>,
    /// Whose each user is.
    pub(super) users: BTreeMap<String, Shown>,
    /// Requests that were let in, by where they came from and their branch: what comes again of them is theirs, too, though its
    /// credentials are used up.
    admitted: HashMap<(IpAddr, String), (Instant, Shown), RandomState>,
}

impl Strangers {
    pub(super) fn new(config: &Config) -> Self {
        let domains = config.domains.iter();
        Self {
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
                    let user = inbound.user.as_str().to_owned();
                    self.users.insert(user, Shown::Trunk(id));
                }
            }
            for name in telephony.phones.keys() {
                let shown = Shown::Phone(*account, name.clone());
                self.users.insert(name.as_str().to_owned(), shown);
            }
        }
    }

    /// Who showed a password for this request.
    pub(super) fn shown(&self, flow: Flow, via: &Via) -> Option<Shown> {
        let key = (flow.remote.ip(), via.branch()?.to_owned());
        self.admitted.get(&key).map(|(_, shown)| shown.clone())
    }

    /// The first name we are known by, for addresses of ours.
    pub(super) fn domain(&self) -> Option<&Host> {
        self.domains.first()
    }

    /// Whether this is a name of ours.
    pub(super) fn is_domain(&self, host: &Host) -> bool {
        self.domains.iter().any(|domain| domain.is_same(host))
    }

    /// Whether somebody may show a password at all.
    fn is_open(&self) -> bool {
        !self.domains.is_empty() && !self.users.is_empty()
    }

    /// Whether a request is for a domain of ours: those who scan addresses don't know its name.
    fn names_us(&self, incoming: &IncomingRequest) -> bool {
        let is_ours = |uri: &Uri| uri.sip().is_some_and(|uri| self.is_domain(&uri.host));
        is_ours(&incoming.uri) || is_ours(&incoming.envelope.to.uri)
    }

    fn remember(&mut self, now: Instant, key: (IpAddr, String), shown: Shown) {
        if self.admitted.len() >= ADMITTED_MAX {
            self.admitted
                .retain(|_, (at, _)| now.saturating_duration_since(*at) < TIMEOUT);
        }
        if self.admitted.len() < ADMITTED_MAX {
            self.admitted.insert(key, (now, shown));
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
        let source = flow.remote.ip();
        let users = Users {
            rows: &self.rows,
            by_name: &self.strangers.users,
        };
        let rng = &mut self.rng;
        let mut tokens = || rand::Rng::next_u64(rng);
        let shown = self
            .registrar
            .authenticate(now, source, incoming, &users, &mut tokens);
        match shown {
            Ok((user, _)) => {
                let Some(shown) = self.strangers.users.get(&user).cloned() else {
                    return false;
                };
                self.admission.on_success(source);
                self.strangers.remember(now, key, shown);
                true
            }
            Err(Challenged { response, why }) => {
                self.figures.challenges += 1;
                if why.is_guess() {
                    self.on_guess(now, source);
                }
                self.transactions.respond_statelessly(flow, *response);
                false
            }
        }
    }

    fn on_guess(&mut self, now: Instant, source: IpAddr) {
        self.figures.password_wrong += 1;
        if self.admission.on_failure(now, source) {
            self.figures.bans += 1;
            tracing::warn!(
                seconds = self.config.ban_seconds,
                "Too many wrong passwords from one address, nothing is heard of it for a while"
            );
            tracing::debug!(from = %source, "Banned");
        }
    }
}

/// Who may show a password, as the registrar asks for them.
pub(super) struct Users<'a> {
    pub(super) rows: &'a Rows,
    pub(super) by_name: &'a BTreeMap<String, Shown>,
}

impl Phones for Users<'_> {
    fn phone(&self, user: &str, from: IpAddr) -> Option<Entry> {
        match self.by_name.get(user)? {
            Shown::Trunk((account, name)) => {
                let trunk = self.rows.get(account)?.trunks.get(name)?;
                let password = trunk.password.as_ref()?.reveal();
                let ha1 = |algorithm| Ha1::new(algorithm, user, DIGEST_REALM, password);
                Some(Entry {
                    md5: ha1(Algorithm::Md5),
                    sha256: Some(ha1(Algorithm::Sha256)),
                    contacts_max: 0, // It is reached by its targets.
                })
            }
            Shown::Phone(account, name) => {
                let phone = self.rows.get(account)?.phones.get(name)?;
                let is_from = |network: &Network| network.contains(from);
                if !phone.networks.is_empty() && !phone.networks.iter().any(is_from) {
                    return None;
                }
                let hashes = phone.ha1.as_ref()?;
                let by_sha256 = hashes.sha256.as_ref();
                Some(Entry {
                    md5: Ha1::from_hex(Algorithm::Md5, hashes.md5.reveal())?,
                    sha256: by_sha256
                        .and_then(|hash| Ha1::from_hex(Algorithm::Sha256, hash.reveal())),
                    contacts_max: phone.contacts_max.into(),
                })
            }
        }
    }
}
