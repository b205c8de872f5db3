//! The life of the process: everything is opened in order, serves, and is closed in the opposite order.
//!
//! ```text
//! data directory → records → certificate → relay → signaling → SFU → gateway → listeners → ready
//! not ready → Allocations, Rooms and phone calls end → goaway, Sessions drain → gateway, SFU, relay → connections → records on disk
//! ```

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use backing::objects::Objects;
use backing::records::Records;
use signaling_service::Telephones;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::addresses;
use crate::config::{Acme, CertificateSource, Config, Role};
use crate::drain;
use crate::fronts::{self, Parts, Ports};
use crate::history::{self, Old};
use crate::http::health::{self, Readiness};
use crate::http::metrics;
use crate::listener::{self, limits::Counter};
use crate::plan::{Mode, Plan};
use crate::state::{DataDir, Lock, Secrets};
use crate::tls::acme::{self, Keeper};
use crate::tls::{self, CertificateStore, Files, Watched, development};
use crate::{gateway, sfu, telephony, usage, web};

/// How long connections may take to end once Sessions are gone.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// How long the last records may take to reach the disk.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// How often the relay's public address is asked for again, where it is one that was found.
const PUBLIC_IPS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The name of the Account that a configured server starts with.
const FIRST_ACCOUNT: &str = "default";

/// A running server.
pub struct Server {
    pub(crate) running: Mutex<Running>,
    pub(crate) ports: Ports,
    pub(crate) certificate: Option<Arc<Watched>>,
    /// Tells whoever orders certificates of other settings.
    pub(crate) acme: Option<watch::Sender<Acme>>,
    pub(crate) signaling: Option<signaling_service::Service>,
    pub(crate) relay: Option<relay_service::Handle>,
    sfu: Option<sfu_service::Handle>,
    gateway: Option<gateway_service::Handle>,
    pub(crate) keep_history_days: Arc<AtomicU32>,
    pub(crate) keep_usage_days: Arc<AtomicU32>,
    pub(crate) addresses: Vec<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    readiness: Readiness,
    usage: Option<usage::Keeper>,
    records: Records,
    /// Whether anybody may sign in by any name: such a server is tried out, not deployed.
    is_demo: bool,
    closing: CancellationToken,
    tasks: TaskTracker,
    _lock: Option<Lock>,
}

/// What holds at the moment.
pub(crate) struct Running {
    pub(crate) config: Config,
    pub(crate) secrets: Secrets,
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
            Some(certificate) => {
                let store = certificate.store().clone();
                Some(Arc::new(tls::server_config(store)?))
            }
            None => None,
        };

        // Bound before the roles start: the port of an address may be chosen by the system, and clients are told of it.
        let listeners = bind_all(&config.listen)?;
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<Vec<_>, _>>()?;
        let relay = if plan.has(Role::Relay) {
            let store = certificate.as_ref().map(|held| held.store().clone());
            Some(start_relay(config, &secrets, tls.clone(), store).await?)
        } else {
            None
        };
        let (relay, public_ips) = relay.unzip();
        let signaling = if plan.has(Role::Signaling) {
            Some(
                crate::signaling::start(plan, &records, &secrets, relay.as_ref(), &addresses)
                    .await?,
            )
        } else {
            None
        };
        let sfu = match &signaling {
            Some(signaling) if config.sfu.enabled => {
                let of_relay = public_ips.as_ref().unwrap_or(&config.relay.public_ips);
                let settings = sfu::settings(config, of_relay)?;
                let tcp = sfu::tcp_addresses(config, &settings, &addresses, plan.speaks_tls());
                let sfu = sfu::start(&settings, tcp, signaling).await?;
                if let Some(relay) = &relay {
                    sfu::connect_relay(&sfu, relay).await;
                }
                Some(sfu)
            }
            _ => None,
        };
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let telephony = match plan.has(Role::Signaling) {
            true => Some(telephony::Keeper::start(records.clone(), secrets.keys()).await?),
            false => None,
        };
        if let (Some(signaling), Some(telephony)) = (&signaling, &telephony) {
            let objects = data.folder(telephony::apply::OBJECTS)?;
            signaling.connect_telephony(Telephones {
                directory: telephony.directory(),
                keys: secrets.keys(),
                objects: Objects::in_folder(&objects)?,
            });
        }
        let gateway = match (&signaling, &sfu, &telephony) {
            (Some(signaling), Some(sfu), Some(telephony)) if config.gateway.is_enabled() => {
                let store = certificate.as_ref().map(|held| held.store().clone());
                let mut rows = telephony.directory();
                let settings = &config.gateway;
                let (keep, writing) = gateway::keeper(records.clone());
                // It ends with the gateway, before the last records are written.
                tasks.spawn(writing);
                let objects = data.folder(telephony::apply::OBJECTS)?;
                let objects = Objects::in_folder(&objects)?;
                let started =
                    gateway::start(settings, store, sfu, signaling, &mut rows, keep, objects);
                let gateway = started.await?;
                Some((gateway, rows))
            }
            _ => None,
        };

        let readiness = Readiness::default();
        let mut router = Router::new()
            .merge(health::router(readiness.clone()))
            .merge(metrics::router(recorder.clone()));
        if let Some(signaling) = &signaling {
            router = router.merge(signaling.router());
        }
        if config.tls.source() == CertificateSource::Acme {
            router = router.merge(acme::router(acme::challenges_in(data.path())));
        }
        if plan.has(Role::Web) {
            router = router.merge(web::router(config.web_dir.clone()));
        }
        let metrics_listener = config.metrics.listen.map(listener::bind).transpose();
        let metrics_listener = metrics_listener.context("[metrics]")?;
        let parts = Parts {
            router,
            metrics_router: metrics_listener.is_some().then(|| {
                metrics::open_router(recorder.clone()).merge(health::router(readiness.clone()))
            }),
            relay: relay.clone(),
            sfu: sfu.clone(),
            tls,
            addresses: addresses.clone(),
            only_this_machine: plan.mode == Mode::Local,
            counter: Counter::new(fronts::limits(config)),
            closing: closing.clone(),
            tasks: tasks.clone(),
        };
        let ports = Ports::new(parts, config);
        for listener in listeners {
            tasks.spawn(listener::run(listener, ports.shared.clone()));
        }
        let mut metrics_address = None;
        if let (Some(listener), Some(fronts)) = (metrics_listener, &ports.metrics) {
            metrics_address = Some(listener.local_addr()?);
            tasks.spawn(listener::run(listener, fronts.clone()));
        }
        spawn_until(
            &tasks,
            &closing,
            metrics::keep_up(recorder, records.clone()),
        );
        let keep_history_days = Arc::new(AtomicU32::new(config.records.keep_history_days));
        if plan.has(Role::Signaling) {
            for old in [Old::History, Old::Legs] {
                let forget = history::forget_old(old, records.clone(), keep_history_days.clone());
                spawn_until(&tasks, &closing, forget);
            }
        }
        let mut acme = None;
        if let Some(certificate) = &certificate {
            spawn_until(&tasks, &closing, certificate.clone().watch());
            if config.tls.source() == CertificateSource::Acme {
                let (sender, settings) = watch::channel(config.tls.acme.clone());
                let served = certificate.clone();
                let keeper = Keeper::new(data.path(), &addresses, served, settings)?;
                spawn_until(&tasks, &closing, keeper.keep());
                acme = Some(sender);
            }
        }
        if let Some((gateway, rows)) = &gateway {
            let follow = gateway::follow(gateway.clone(), rows.clone());
            spawn_until(&tasks, &closing, follow);
        }
        if let Some(telephony) = telephony {
            spawn_until(&tasks, &closing, telephony.keep());
        }
        let keep_usage_days = Arc::new(AtomicU32::new(config.records.keep_usage_days));
        if plan.has(Role::Relay) {
            let forget = history::forget_old(Old::Usage, records.clone(), keep_usage_days.clone());
            spawn_until(&tasks, &closing, forget);
        }
        if let (Some(relay), Some(found)) = (relay.clone(), public_ips)
            && !config.relay.find_public_ips_by.is_empty()
        {
            let settings = config.relay.clone();
            spawn_until(&tasks, &closing, async move {
                let every = PUBLIC_IPS_INTERVAL;
                relay_service::follow_public_ips(&relay, &settings, found, every).await;
            });
        }
        let usage = relay.clone();
        let usage = usage.map(|relay| usage::Keeper::start(relay, records.clone()));
        readiness.set(true);

        Ok(Self {
            running: Mutex::new(Running {
                config: config.clone(),
                secrets,
            }),
            ports,
            certificate,
            acme,
            signaling,
            relay,
            sfu,
            gateway: gateway.map(|(gateway, _)| gateway),
            usage,
            keep_history_days,
            keep_usage_days,
            addresses,
            metrics_address,
            readiness,
            records,
            is_demo: plan.is_demo(),
            closing,
            tasks,
            _lock: lock,
        })
    }

    /// The TCP addresses in use, in the order of `listen`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What DTLS clients are shown at the moment; `None` without TLS.
    pub fn certificate_for_dtls(&self) -> Option<relay_service::Certificate> {
        self.certificate.as_ref()?.store().for_dtls()
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

    /// The SFU's UDP addresses in use.
    pub fn sfu_addresses(&self) -> &[SocketAddr] {
        self.sfu.as_ref().map_or(&[], |sfu| sfu.udp_addresses())
    }

    /// The gateway's addresses in use, and what it speaks there.
    pub fn gateway_addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let all = self.gateway.iter().flat_map(|gateway| gateway.addresses());
        all.map(|(transport, address)| (transport.as_str(), *address))
            .collect()
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
        let sfu = async {
            match &self.sfu {
                Some(sfu) => sfu.stopped().await,
                None => pending().await,
            }
        };
        let gateway = async {
            match &self.gateway {
                Some(gateway) => gateway.stopped().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = relay => "relay",
            () = signaling => "signaling",
            () = sfu => "SFU",
            () = gateway => "gateway",
            () = self.records.broken() => "records",
        }
    }

    /// Ends politely: says "not ready", lets what lives end within the drain's deadline, asks clients to go, and closes what is
    /// left.
    ///
    /// Where clients have another node to go to, they are asked at once. Where they have none, signaling serves on for as long as
    /// Allocations and Rooms live: those who talk through them can hang up, and nobody is locked out for longer than a restart takes.
    pub async fn stop(self) {
        self.readiness.set(false);
        let drain_max = Duration::from_secs(self.running.lock().await.config.drain_seconds);
        let ends_at = Instant::now() + drain_max;
        let left = || (ends_at - Instant::now().min(ends_at)).max(CLOSE_MAX.min(drain_max));
        let relay = async {
            match &self.relay {
                // Nobody depends on it, and whoever tries it out wants it to end.
                Some(relay) if !self.is_demo => drain::relay(relay, drain_max).await,
                _ => {}
            }
        };
        let rooms = async {
            match &self.sfu {
                Some(sfu) if !self.is_demo => drain::rooms(sfu, drain_max).await,
                _ => {}
            }
        };
        let phones = async {
            match &self.gateway {
                Some(gateway) if !self.is_demo => drain::phones(gateway, drain_max).await,
                _ => {}
            }
        };
        match &self.signaling {
            Some(signaling) if signaling.is_alone() => {
                tokio::join!(relay, rooms, phones);
                signaling.drain(left()).await;
            }
            Some(signaling) => {
                tokio::join!(relay, rooms, phones, signaling.drain(drain_max));
            }
            None => relay.await,
        }
        // Before the Rooms end: the other sides of calls hear of it, and providers that nobody is here any more.
        if let Some(gateway) = &self.gateway {
            gateway.shutdown().await;
        }
        if let Some(sfu) = &self.sfu {
            sfu.shutdown().await;
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
        let write_all = async {
            if let Some(usage) = self.usage {
                usage.finish().await;
            }
            self.records.flush().await
        };
        match tokio::time::timeout(FLUSH_MAX, write_all).await {
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

fn certificate(data: &DataDir, plan: &Plan) -> anyhow::Result<Option<Arc<Watched>>> {
    let dtls = plan.has(Role::Relay) && !plan.config.relay.listen_dtls.is_empty();
    if plan.config.tls.source() == CertificateSource::Acme {
        let settings = &plan.config.tls.acme;
        let files = acme::files(data.path(), settings);
        let challenges = acme::challenges_in(data.path());
        let stand_in = acme::self_signed(settings)?;
        let watched = Watched::open_acme(files, dtls, &stand_in, challenges)?;
        return Ok(Some(Arc::new(watched)));
    }
    let files = match (
        &plan.config.tls.certificate_file,
        &plan.config.tls.key_file,
        &plan.mode,
    ) {
        (Some(certificate), Some(key), _) => Files {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        (_, _, Mode::Lan { addresses }) => development::ensure(data, addresses)?.served(),
        _ => return Ok(None),
    };
    Ok(Some(Arc::new(Watched::open(files, dtls)?)))
}

/// Starts the relay; returns it with its public addresses, as they were written or found.
async fn start_relay(
    config: &Config,
    secrets: &Secrets,
    tls: Option<Arc<rustls::ServerConfig>>,
    store: Option<Arc<CertificateStore>>,
) -> anyhow::Result<(relay_service::Handle, Vec<IpAddr>)> {
    let dtls = store.map(|store| Arc::new(move || store.for_dtls()) as relay_service::Certificates);
    let mut relay = config.relay.clone();
    relay.public_ips = relay_service::find_public_ips(&relay)
        .await
        .context("[relay]")?;
    if !relay.find_public_ips_by.is_empty() {
        tracing::info!(public_ips = ?relay.public_ips, "Found the relay's public address");
        relay.find_public_ips_by.clear();
    }
    let started = relay_service::Relay::start(&relay, secrets.credentials(), tls, dtls);
    let started = started.map_err(|error| {
        let of_system = error.chain().find_map(|cause| cause.downcast_ref());
        let advice = of_system.map_or("", listener::advice);
        error.context(format!("[relay]{advice}"))
    })?;
    Ok((started, relay.public_ips))
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
        config.sfu.port = 0;
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
