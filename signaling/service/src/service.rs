//! The service as the server sees it: started once, drained once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use backing::bus::Bus;
use backing::records::Records;
use model::NodeId;
use signaling_core::{SealSecret, Signaling};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::addresses::Addresses;
use crate::clock::Clock;
use crate::config::{Config, IceConfig, Secrets};
use crate::demo::Demo;
use crate::figures::Figures;
use crate::http::{self, Declined, origin::Origins};
use crate::ice::IceServers;
use crate::media::{self, Media};
use crate::phone::Phone;
use crate::shard::{Input, Shards, Surroundings};
use crate::telephony::{Telephones, VOICEMAILS_AT_ONCE_MAX};
use crate::tokens::{self, Verifier};
use crate::whip::Agents;

/// How much of a drain is left for closing sockets and writing records, at most.
const CLOSING: Duration = Duration::from_secs(5);
/// How often a drain looks whether everybody has left.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// Signaling of this node. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

/// What the parts of the service share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) clock: Arc<Clock>,
    pub(crate) figures: Arc<Figures>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) origins: RwLock<Origins>,
    pub(crate) tokens: Verifier,
    pub(crate) ice_servers: Arc<IceServers>,
    pub(crate) shards: Shards,
    pub(crate) agents: Arc<Agents>,
    pub(crate) sockets: TaskTracker,
    /// Cancelled when sockets without a Session are to go.
    pub(crate) closing: CancellationToken,
    /// Cancelled when a shard has ended.
    broken: CancellationToken,
    pub(crate) demo: Option<Demo>,
    pub(crate) records: Records,
    pub(crate) telephones: Arc<OnceLock<Telephones>>,
    /// Messages that are being sent over HTTP, each with all its bytes in memory.
    pub(crate) voicemails: Arc<Semaphore>,
    bus: Arc<dyn Bus>,
    node: NodeId,
    ready: AtomicBool,
}

impl Inner {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Fails when a page of a foreign origin asks; see [`Origins::check`].
    pub(crate) fn check_origin(&self, headers: &HeaderMap, host: &str) -> Result<(), Declined> {
        let origins = self.origins.read().unwrap_or_else(PoisonError::into_inner);
        origins.check(headers, host)
    }
}

impl Service {
    /// Starts the shards. Must be called within a tokio runtime, and after the recorder of the metrics was installed.
    ///
    /// With `demo`, everybody may sign in with a name. `allowed_origins` are the web pages that may connect besides this
    /// server's own, such as `https://app.example.com`; `*` means all. Fails when one of them is no origin, or when the
    /// demo's Account can't be made.
    pub async fn start(
        config: Config,
        demo: bool,
        allowed_origins: Vec<String>,
        records: Records,
        bus: Arc<dyn Bus>,
        secrets: Secrets,
        ice: IceConfig,
    ) -> anyhow::Result<Self> {
        let clock = Arc::new(Clock::new());
        let figures = Arc::new(Figures::new());
        let ice_servers = Arc::new(IceServers::new(ice, &secrets.turn));
        let node = NodeId::from_parts(clock.now(), rand::random());
        let demo = if demo {
            Some(Demo::open(&records).await?)
        } else {
            None
        };

        let telephones = Arc::new(OnceLock::new());
        let seal = SealSecret::new(secrets.seal);
        let core = |_| Signaling::new(config.limits.clone(), node, &seal, rand::random());
        let cores = (0..shards(&config)).map(core).collect();
        let surroundings = Surroundings {
            node,
            clock: Arc::clone(&clock),
            figures: Arc::clone(&figures),
            ice_servers: Arc::clone(&ice_servers),
            records: records.clone(),
            bus: Arc::clone(&bus),
            telephones: Arc::clone(&telephones),
        };

        let broken = CancellationToken::new();
        let inner = Inner {
            clock,
            figures,
            addresses: Arc::new(Addresses::new(config.connections_per_address_max)),
            origins: RwLock::new(Origins::new(&allowed_origins)?),
            tokens: Verifier::new(records.clone()),
            ice_servers,
            shards: Shards::start(cores, &surroundings, &broken),
            agents: Arc::default(),
            sockets: TaskTracker::new(),
            closing: CancellationToken::new(),
            broken,
            demo,
            records,
            telephones,
            voicemails: Arc::new(Semaphore::new(VOICEMAILS_AT_ONCE_MAX)),
            bus,
            node,
            ready: AtomicBool::new(true),
            config,
        };

        let inner = Arc::new(inner);
        tokio::spawn(tokens::watch(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// `/v1/calls`, `/v1/whip/…`, `/v1/whep/…`, `/v1/voicemail/…` and `/v1/schema/…`; in demo mode `/demo/…`, too. Every request needs a
    /// [`ClientInfo`](crate::ClientInfo) extension, and its connection must be served with upgrades.
    pub fn router(&self) -> Router {
        http::router(Arc::clone(&self.inner))
    }

    /// Gives Rooms an SFU; until then `room.join` is refused. When one of the channels closes, all Rooms end and it is refused
    /// again.
    pub async fn connect_media(&self, media: Media) {
        let shards = self.inner.shards.all().to_vec();
        for shard in &shards {
            let commands = media.commands.clone();
            let _ = shard.send(Input::MediaBegins { commands }).await; // A shard outlives us.
        }

        let place_of = self.inner.shards.place_of();
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            media::lead_events(media.events, shards, place_of).await;
            if inner.upgrade().is_some_and(|inner| inner.is_ready()) {
                tracing::error!("The SFU has ended, its Rooms too");
            }
        });
    }

    /// Gives Calls a phone gateway; until then numbers are refused with `phone_unavailable`. When one of the channels closes, all
    /// phone calls have ended and it is refused again.
    pub async fn connect_phone(&self, phone: Phone) {
        let shards = self.inner.shards.all().to_vec();
        for shard in &shards {
            let commands = phone.commands.clone();
            let _ = shard.send(Input::PhoneBegins { commands }).await; // A shard outlives us.
        }

        let place_of = self.inner.shards.place_of();
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            media::lead_events(phone.events, shards, place_of).await;
            if inner.upgrade().is_some_and(|inner| inner.is_ready()) {
                tracing::error!("The phone gateway has ended, its calls too");
            }
        });
    }

    /// Gives Users their mailboxes and settings of telephony; until then they have none. Once for the life of the service: what
    /// is told again is left.
    pub fn connect_telephony(&self, telephones: Telephones) {
        if self.inner.telephones.set(telephones).is_err() {
            tracing::error!("Telephony was connected twice; the first one stays");
        }
    }

    /// Other web pages may connect from now on, besides this server's own. Fails, and changes nothing, when one of them is no
    /// origin.
    pub fn set_allowed_origins(&self, allowed: &[String]) -> anyhow::Result<()> {
        let origins = Origins::new(allowed)?;
        *(self.inner.origins.write()).unwrap_or_else(PoisonError::into_inner) = origins;
        Ok(())
    }

    /// Clients are told of other STUN and TURN addresses from now on, with passwords made with `turn_secret`.
    pub fn set_ice(&self, ice: IceConfig, turn_secret: &str) {
        self.inner.ice_servers.set(ice, turn_secret);
    }

    /// How many WebSockets are open.
    pub fn sockets(&self) -> usize {
        self.inner.sockets.len()
    }

    /// Whether clients have no other node to go to.
    pub fn is_alone(&self) -> bool {
        self.inner.bus.is_alone(self.inner.node)
    }

    /// Whether new clients are taken: from the start until the drain.
    pub fn ready(&self) -> bool {
        self.inner.is_ready()
    }

    /// Waits until a shard has panicked: its Accounts can't be served any more, and only a new process brings them back.
    pub async fn broken(&self) {
        self.inner.broken.cancelled().await;
    }

    /// Takes leave of all clients and writes what is to be written, within `deadline`.
    ///
    /// When there are other nodes, clients are given most of the time to move there. When there are none, there is nowhere
    /// to go: sockets are closed at once and clients come back to the next process.
    pub async fn drain(&self, deadline: Duration) {
        let inner = &self.inner;
        let ends_at = Instant::now() + deadline;
        inner.ready.store(false, Ordering::Relaxed);
        inner.sockets.close();

        let leave_in = if self.is_alone() {
            Duration::ZERO
        } else {
            deadline.saturating_sub(CLOSING.min(deadline / 4))
        };
        let in_ms = u64::try_from(leave_in.as_millis()).unwrap_or(u64::MAX);
        for shard in inner.shards.all() {
            let _ = shard.send(Input::Drain { in_ms }).await; // A shard outlives us.
        }
        self.wait_until_left(Instant::now() + leave_in).await;

        let closed = tokio::time::timeout_at(ends_at, async {
            inner.closing.cancel();
            // Again and again: a `hello` may have been on its way to a shard while that was stopped.
            loop {
                self.stop_shards().await;
                if tokio::time::timeout(DRAIN_LOOK, inner.sockets.wait())
                    .await
                    .is_ok()
                {
                    break;
                }
            }
            // Once more: a socket that went by itself may have left something to write.
            self.stop_shards().await;
            inner.records.flush().await
        });
        match closed.await {
            Ok(Ok(())) => tracing::info!("Signaling has ended"),
            Ok(Err(error)) => tracing::error!(%error, "Records could not be written"),
            Err(_) => tracing::warn!(
                sockets = inner.sockets.len(),
                "Signaling did not end in time"
            ),
        }
    }

    async fn wait_until_left(&self, at_most_until: Instant) {
        while !self.inner.sockets.is_empty() && Instant::now() < at_most_until {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    async fn stop_shards(&self) {
        for shard in self.inner.shards.all() {
            let (done, stopped) = oneshot::channel();
            let _ = shard.send(Input::Stop { done }).await; // A shard outlives us.
            let _ = stopped.await;
        }
    }
}

fn shards(config: &Config) -> usize {
    match config.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        shards => shards,
    }
}
