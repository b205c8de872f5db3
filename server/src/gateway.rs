//! Starts the phone gateway where `[gateway]` listens somewhere, between signaling, the SFU and the telephony in the records.
//!
//! ```text
//! signaling ◀─ PhoneCommand, PhoneEvent ─▶ gateway ◀─ places in Rooms ─ SFU
//!                              telephony::Keeper ─ rows ─┘   └─▶ media::Engine: RTP
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use backing::objects::Objects;
use backing::records::Records;
use gateway_service::media::{Engine, Settings};
use gateway_service::{Gateway, Handle, Start, Tls};
use model::RecordChange;
use model::phone::rows::LegRecord;
use signaling_service::{Phone, Service};
use tokio::sync::{mpsc, watch};

use crate::listener;
use crate::telephony::Directory;
use crate::tls::{self, CertificateStore};

/// How many commands, and how much news, may wait between signaling and the gateway.
const CHANNEL_LEN: usize = 1_024;

/// How much news of media may wait for the gateway; its threads wait then.
const SOUND_EVENTS_MAX: usize = 1_024;

/// How many call records may wait for the records; beyond it they are given up, and counted.
const LEG_RECORDS_MAX: usize = 10_000;

/// How long a phone that should send may be silent before its call is ended: longer than the pauses of any comfort noise, shorter than
/// anybody wants to pay for.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// Starts the gateway with these settings and gives it to `signaling`. When this returns, it knows all rows there are in `directory`.
///
/// `store` is the certificate that phones and providers are shown; the names of Trunks are looked up and registered with from now on.
///
/// Fails when its settings don't fit together, a port can't be bound, or the system gives no thread for media.
pub(crate) async fn start(
    settings: &gateway_service::Config,
    store: Option<Arc<CertificateStore>>,
    sfu: &sfu_service::Handle,
    signaling: &Service,
    directory: &mut watch::Receiver<Directory>,
    keep: mpsc::Sender<LegRecord>,
    objects: Objects,
) -> anyhow::Result<Handle> {
    settings.validate().context("[gateway]")?;
    let server = store.map(tls::sip_server_config).transpose()?.map(Arc::new);
    let client = Arc::new(tls::client_config(tls::authorities())?);
    let (commands, to_gateway) = mpsc::channel(CHANNEL_LEN);
    let (to_signaling, events) = mpsc::channel(CHANNEL_LEN);
    let (to_exchange, sound_events) = mpsc::channel(SOUND_EVENTS_MAX);
    let engine = Engine::start(media(settings), &to_exchange).context("[gateway]")?;
    let started = Gateway::start(
        settings,
        Start {
            commands: to_gateway,
            events: to_signaling,
            sound: Box::new(engine),
            sound_events,
            attach: sfu.attacher(),
            tls: Tls { server, client },
            records: keep,
            objects,
        },
    );
    let handle = started.map_err(|error| {
        let of_system = error.chain().find_map(|cause| cause.downcast_ref());
        let advice = of_system.map_or("", listener::advice);
        error.context(format!("[gateway]{advice}"))
    })?;
    let rows = directory.borrow_and_update().clone();
    handle.set_rows(rows).await;
    signaling.connect_phone(Phone { commands, events }).await;
    Ok(handle)
}

/// A way for call records into the records: the sender, and what has to run until the gateway has ended.
pub(crate) fn keeper(records: Records) -> (mpsc::Sender<LegRecord>, impl Future<Output = ()>) {
    let (keep, mut kept) = mpsc::channel(LEG_RECORDS_MAX);
    let writing = async move {
        while let Some(record) = kept.recv().await {
            let change = RecordChange::Leg(Box::new(record));
            if let Err(error) = records.record(change).await {
                tracing::error!(error = format!("{error:#}"), "Call record not kept");
            }
        }
    };
    (keep, writing)
}

/// Gives the gateway every change of rows, for as long as somebody looks for changes.
pub(crate) async fn follow(gateway: Handle, mut directory: watch::Receiver<Directory>) {
    while directory.changed().await.is_ok() {
        let rows = directory.borrow_and_update().clone();
        gateway.set_rows(rows).await;
    }
}

fn media(settings: &gateway_service::Config) -> Settings {
    Settings {
        port_min: settings.rtp_port_min,
        port_max: settings.rtp_port_max,
        threads: 0,
        silent_after: SILENT_AFTER,
    }
}
