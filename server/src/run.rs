//! The life of the process: everything is opened in order, serves, and is closed in the opposite order.
//!
//! ```text
//! data directory → records → certificate → relay → signaling → listeners → ready
//! not ready → goaway, Sessions drain → relay → connections → records on disk
//! ```

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use backing::records::Records;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::addresses;
use crate::config::{Config, Role};
use crate::history;
use crate::http::health::{self, Readiness};
use crate::http::{Http, Redirect, metrics};
use crate::listener::limits::{Counter, Limits};
use crate::listener::{self, Front};
use crate::plan::{Mode, Plan};
use crate::state::{DataDir, Lock, Secrets};
use crate::tls::{self, CertificateStore, development};
use crate::web;

/// How long connections may take to end once Sessions are gone.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// How long the last records may take to reach the disk.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// How many connections the port for figures takes: a few scrapers and probes.
const METRICS_CONNECTIONS_MAX: usize = 64;

/// The name of the Account that a configured server starts with.
const FIRST_ACCOUNT: &str = "default";

/// A running server.
pub struct Server {
    addresses: Vec<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    readiness: Readiness,
    certificate: Option<Certificate>,
    signaling: Option<signaling_service::Service>,
    relay: Option<relay_service::Handle>,
    records: Records,
    drain_max: Duration,
    closing: CancellationToken,
    tasks: TaskTracker,
    _lock: Option<Lock>,
}

/// A certificate and where it came from.
struct Certificate {
    store: Arc<CertificateStore>,
    files: development::Files,
}

impl Server {
    /// Opens everything `plan` asks for; when this returns, clients are served.
    ///
    /// Fails, with what was wrong and where, when anything can't be opened: half a server helps nobody.
    pub async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let config = &plan.config;
        config.relay.check().context("[relay]")?;
        if let Some(folder) = &config.web_dir
            && plan.has(Role::Web)
            && !folder.join("app/index.html").is_file()
        {
            let shown = folder.display();
            bail!("no page in {shown}: `web_dir` has to hold the folders `app` and `client`");
        }
        let data = DataDir::open(&config.data_dir)?;
        let lock = match plan.has(Role::Signaling) {
            true => Some(data.lock()?),
            false => None,
        };
        let secrets = data.load_secrets()?;
        let recorder = metrics::recorder()?;
        let records = open_records(&data, plan).await?;
        let certificate = certificate(&data, plan)?;
        let tls = match &certificate {
            Some(certificate) => Some(Arc::new(tls::server_config(certificate.store.clone())?)),
            None => None,
        };

        // Bound before the roles start: the port of an address may be chosen by the system, and clients are told of it.
        let listeners = bind_all(&config.listen)?;
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<Vec<_>, _>>()?;
        let relay = if plan.has(Role::Relay) {
            let store = certificate.as_ref().map(|held| held.store.clone());
            Some(start_relay(config, &secrets, tls.clone(), store)?)
        } else {
            None
        };
        let signaling = if plan.has(Role::Signaling) {
            Some(
                crate::signaling::start(plan, &records, &secrets, relay.as_ref(), &addresses)
                    .await?,
            )
        } else {
            None
        };

        let readiness = Readiness::default();
        let mut router = Router::new()
            .merge(health::router(readiness.clone()))
            .merge(metrics::router(recorder.clone()));
        if let Some(signaling) = &signaling {
            router = router.merge(signaling.router());
        }
        if plan.has(Role::Web) {
            router = router.merge(web::router(config.web_dir.clone()));
        }
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let front = Arc::new(Front {
            http: Http {
                router,
                trusted_proxies: config.trusted_proxies.clone().into(),
                forwarded_header: config.forwarded_header,
                redirect: redirect(config, &addresses, tls.is_some()),
                only_this_machine: plan.mode == Mode::Local,
            },
            relay: relay.clone(),
            tls,
            trusted_proxies: config.trusted_proxies.clone(),
            counter: Counter::new(limits(config)),
            limits: config.limits.clone(),
            closing: closing.clone(),
            tasks: tasks.clone(),
        });
        for listener in listeners {
            tasks.spawn(listener::run(listener, front.clone()));
        }
        let metrics_address = match config.metrics.listen {
            Some(address) => {
                let listener = listener::bind(address).context("[metrics]")?;
                let address = listener.local_addr()?;
                let router =
                    metrics::open_router(recorder.clone()).merge(health::router(readiness.clone()));
                let front = Arc::new(front_of_metrics(config, router, &closing, &tasks));
                tasks.spawn(listener::run(listener, front));
                Some(address)
            }
            None => None,
        };
        spawn_until(
            &tasks,
            &closing,
            metrics::keep_up(recorder, records.clone()),
        );
        let days = config.records.keep_history_days;
        if days > 0 && plan.has(Role::Signaling) {
            spawn_until(&tasks, &closing, history::forget_old(records.clone(), days));
        }
        readiness.set(true);

        let drain_max = Duration::from_secs(config.drain_seconds);
        Ok(Self {
            addresses,
            metrics_address,
            readiness,
            certificate,
            signaling,
            relay,
            records,
            drain_max,
            closing,
            tasks,
            _lock: lock,
        })
    }

    /// The TCP addresses in use, in the order of `listen`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The address of `[metrics] listen`, in use.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The relay's UDP addresses in use.
    pub fn relay_addresses(&self) -> &[SocketAddr] {
        self.relay
            .as_ref()
            .map_or(&[], |relay| relay.udp_addresses())
    }

    /// Reads the certificate's files again; new connections see the new one. Fails, and changes nothing, when it can't be used.
    pub fn reload(&self) -> anyhow::Result<()> {
        match &self.certificate {
            Some(certificate) => certificate
                .store
                .reload(&certificate.files.certificate, &certificate.files.key),
            None => Ok(()),
        }
    }

    /// Waits until a part has ended by itself, and returns its name: a mistake of ours, after which half a server would go on.
    pub async fn broken(&self) -> &'static str {
        let relay = async {
            match &self.relay {
                Some(relay) => relay.stopped().await,
                None => pending().await,
            }
        };
        let signaling = async {
            match &self.signaling {
                Some(signaling) => signaling.broken().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = relay => "relay",
            () = signaling => "signaling",
            () = self.records.broken() => "records",
        }
    }

    /// Ends politely: says "not ready", asks clients to go, waits for them within the drain's deadline, and closes what is left.
    pub async fn stop(self) {
        self.readiness.set(false);
        if let Some(signaling) = &self.signaling {
            signaling.drain(self.drain_max).await;
        }
        if let Some(relay) = &self.relay {
            relay.shutdown().await;
        }
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(CLOSE_MAX, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::info!(
                connections = self.tasks.len(),
                "Closing connections that did not end by themselves"
            );
        }
        match tokio::time::timeout(FLUSH_MAX, self.records.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(
                error = format!("{error:#}"),
                "The last records were not written"
            ),
            Err(_) => tracing::error!("The last records were not written in time"),
        }
    }
}

async fn open_records(data: &DataDir, plan: &Plan) -> anyhow::Result<Records> {
    let records = Records::open(&data.prepare_database()?).await?;
    // So that `offhook token` works at once; the demo has an Account of its own.
    if !plan.is_demo() && plan.has(Role::Signaling) && records.accounts().await?.is_empty() {
        let account = records.create_account(FIRST_ACCOUNT).await?.account;
        records.create_api_key(account).await?;
        tracing::info!(%account, "Made the first Account");
    }
    Ok(records)
}

fn certificate(data: &DataDir, plan: &Plan) -> anyhow::Result<Option<Certificate>> {
    let files = match (
        &plan.config.tls.certificate_file,
        &plan.config.tls.key_file,
        &plan.mode,
    ) {
        (Some(certificate), Some(key), _) => development::Files {
            certificate: certificate.clone(),
            key: key.clone(),
            authority: certificate.clone(),
        },
        (_, _, Mode::Lan { addresses }) => development::ensure(data, addresses)?,
        _ => return Ok(None),
    };
    let store = Arc::new(CertificateStore::load(&files.certificate, &files.key)?);
    Ok(Some(Certificate { store, files }))
}

fn start_relay(
    config: &Config,
    secrets: &Secrets,
    tls: Option<Arc<rustls::ServerConfig>>,
    store: Option<Arc<CertificateStore>>,
) -> anyhow::Result<relay_service::Handle> {
    let credentials = relay_service::Credentials::new([relay_service::Secret::new(&secrets.turn)]);
    let dtls = store.map(|store| Arc::new(move || store.for_dtls()) as relay_service::Certificates);
    relay_service::Relay::start(&config.relay, credentials, tls, dtls).map_err(|error| {
        let of_system = error.chain().find_map(|cause| cause.downcast_ref());
        let advice = of_system.map_or("", listener::advice);
        error.context(format!("[relay]{advice}"))
    })
}

/// Binds every address; IPv6 loopback is left out where this machine has none, as in many containers.
fn bind_all(addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let here = addresses::of_this_machine()?;
    let has_ipv6 = here.iter().any(IpAddr::is_ipv6);
    let wanted = addresses
        .iter()
        .filter(|address| has_ipv6 || !address.is_ipv6() || !address.ip().is_loopback());
    wanted.map(|address| listener::bind(*address)).collect()
}

/// Where there is TLS, plain HTTP is sent to it.
fn redirect(config: &Config, addresses: &[SocketAddr], tls: bool) -> Option<Redirect> {
    if !tls {
        return None;
    }
    let authority = config
        .public_url
        .as_ref()
        .filter(|url| url.is_secure())
        .map(|url| url.authority().to_owned());
    Some(Redirect {
        authority,
        port: addresses.first().map_or(443, SocketAddr::port),
    })
}

/// What serves figures on a port of their own: as patient as the public one, and so small that it takes nothing from it.
fn front_of_metrics(
    config: &Config,
    router: Router,
    closing: &CancellationToken,
    tasks: &TaskTracker,
) -> Front {
    Front {
        http: Http {
            router,
            trusted_proxies: Arc::new([]),
            forwarded_header: config.forwarded_header,
            redirect: None,
            only_this_machine: false,
        },
        relay: None,
        tls: None,
        trusted_proxies: Vec::new(),
        counter: Counter::new(Limits {
            connections_max: METRICS_CONNECTIONS_MAX,
            per_address_max: METRICS_CONNECTIONS_MAX,
            newcomers_max: METRICS_CONNECTIONS_MAX,
            newcomers_per_address_max: METRICS_CONNECTIONS_MAX,
        }),
        limits: config.limits.clone(),
        closing: closing.clone(),
        tasks: tasks.clone(),
    }
}

fn limits(config: &Config) -> Limits {
    let of = &config.limits;
    Limits {
        connections_max: of.connections_max,
        per_address_max: of.connections_per_address_max,
        newcomers_max: of.newcomers_max,
        newcomers_per_address_max: of.newcomers_per_address_max,
    }
}

fn spawn_until(
    tasks: &TaskTracker,
    closing: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let closed = closing.clone().cancelled_owned();
    tasks.spawn(async move {
        tokio::select! {
            () = work => {}
            () = closed => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ServeOptions;
    use crate::config::load::Loaded;

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut config = Config {
            listen: vec![any],
            data_dir: dir.path().join("data"),
            ..Config::default()
        };
        config.relay.listen_udp = vec![any];
        config.relay.listen_tcp = Vec::new();
        let loaded = Loaded {
            config,
            from_file: true,
        };
        let plan = Plan::new(loaded, &ServeOptions::default()).unwrap();
        let server = Server::start(&plan).await.unwrap();
        let moment = Duration::from_millis(50);
        assert!(
            tokio::time::timeout(moment, server.broken()).await.is_err(),
            "all of it runs"
        );

        server.relay.as_ref().unwrap().shutdown().await;
        assert_eq!(server.broken().await, "relay");
        server.stop().await;
    }
}
