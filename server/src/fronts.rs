//! What the TCP ports serve, made from the settings that hold at the moment.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::http::{Http, Redirect};
use crate::listener::limits::{Counter, Limits};
use crate::listener::{Front, Fronts};

/// How many connections the port for figures takes: a few scrapers and probes.
const METRICS_CONNECTIONS_MAX: usize = 64;

/// The shared port, and that of `[metrics]` where there is one.
pub(crate) struct Ports {
    pub(crate) shared: Arc<Fronts>,
    pub(crate) metrics: Option<Arc<Fronts>>,
    parts: Parts,
}

/// What stays the same while settings change.
pub(crate) struct Parts {
    pub(crate) router: Router,
    pub(crate) metrics_router: Option<Router>,
    pub(crate) relay: Option<relay_service::Handle>,
    pub(crate) sfu: Option<sfu_service::Handle>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// The addresses of the shared port, in use.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) only_this_machine: bool,
    pub(crate) counter: Arc<Counter>,
    pub(crate) closing: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Ports {
    /// What `config` wants served.
    pub(crate) fn new(parts: Parts, config: &Config) -> Self {
        Self {
            shared: Fronts::new(parts.shared(config)),
            metrics: parts.metrics(config).map(Fronts::new),
            parts,
        }
    }

    /// Serves whoever comes from now on as `config` wants it.
    pub(crate) fn reconfigure(&self, config: &Config) {
        self.parts.counter.set_limits(limits(config));
        self.shared.set(self.parts.shared(config));
        if let (Some(fronts), Some(front)) = (&self.metrics, self.parts.metrics(config)) {
            fronts.set(front);
        }
    }
}

impl Parts {
    fn shared(&self, config: &Config) -> Front {
        Front {
            http: Http {
                router: self.router.clone(),
                trusted_proxies: config.trusted_proxies.clone().into(),
                forwarded_header: config.forwarded_header,
                redirect: self.redirect(config),
                only_this_machine: self.only_this_machine,
            },
            relay: self.relay.clone(),
            sfu: self.sfu.clone(),
            tls: self.tls.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            counter: self.counter.clone(),
            limits: config.limits.clone(),
            closing: self.closing.clone(),
            tasks: self.tasks.clone(),
        }
    }

    /// What serves figures on a port of their own: as patient as the public one, and so small that it takes nothing from it.
    fn metrics(&self, config: &Config) -> Option<Front> {
        let router = self.metrics_router.clone()?;
        Some(Front {
            http: Http {
                router,
                trusted_proxies: Arc::new([]),
                forwarded_header: config.forwarded_header,
                redirect: None,
                only_this_machine: false,
            },
            relay: None,
            sfu: None,
            tls: None,
            trusted_proxies: Vec::new(),
            counter: Counter::new(Limits {
                connections_max: METRICS_CONNECTIONS_MAX,
                per_address_max: METRICS_CONNECTIONS_MAX,
                newcomers_max: METRICS_CONNECTIONS_MAX,
                newcomers_per_address_max: METRICS_CONNECTIONS_MAX,
            }),
            limits: config.limits.clone(),
            closing: self.closing.clone(),
            tasks: self.tasks.clone(),
        })
    }

    /// Where there is TLS, plain HTTP is sent to it.
    fn redirect(&self, config: &Config) -> Option<Redirect> {
        self.tls.as_ref()?;
        let authority = config
            .public_url
            .as_ref()
            .filter(|url| url.is_secure())
            .map(|url| url.authority().to_owned());
        Some(Redirect {
            authority,
            port: self.addresses.first().map_or(443, SocketAddr::port),
        })
    }
}

/// How many connections there may be.
pub(crate) fn limits(config: &Config) -> Limits {
    let of = &config.limits;
    Limits {
        connections_max: of.connections_max,
        per_address_max: of.connections_per_address_max,
        newcomers_max: of.newcomers_max,
        newcomers_per_address_max: of.newcomers_per_address_max,
    }
}
