//! A gateway with rows, and the test in the place of signaling.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use backing::objects::Objects;
use gateway_core::transaction::Transport;
use gateway_media::recorder::Tape;
use gateway_service::media::{Engine, Settings};
use gateway_service::{
    Config, Event, EventKind, Gateway, Handle, LegId, NoPort, Rows, Sound, Start, Tls, To,
};
use gateway_sip::negotiate::Agreed;
use model::id::{AccountId, CallId, ParticipantId, RoomId, TrackId};
use model::phone::rows::{
    CallLimits, Destination, Destinations, LegRecord, Line, Number, Telephony, Trunk,
};
use model::phone::{Dial, PhoneCommand, PhoneCommandKind, PhoneEvent, PhoneEventKind, PhonePlace};
use model::plain;
use model::time::Millis;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const NUMBER: &str = "+4930123456";
/// Limits that no test comes to.
pub(crate) const PLENTY: CallLimits = CallLimits {
    calls: 1_000,
    calls_per_second: 1_000,
    minutes_per_day: 1_000,
};

pub(crate) const ALICE: &str = "alice";

/// What the exchange wanted of the media.
#[derive(Debug, PartialEq)]
pub(crate) enum Wanted {
    Open(LegId),
    Agree(LegId, SocketAddr),
    Connect(LegId, &'static str),
    HandOver(LegId, LegId),
    Key(LegId, char),
    Record(LegId),
    Close(LegId),
}

/// Media that is written down.
struct Written {
    wanted: mpsc::UnboundedSender<Wanted>,
    events: mpsc::Sender<Event>,
    port: u16,
    tape: Option<Box<Tape>>,
}

impl Sound for Written {
    fn fingerprint(&self) -> Option<String> {
        None
    }

    fn open(&mut self, leg: LegId, _: IpAddr) -> Result<u16, NoPort> {
        self.port += 2;
        self.wanted.send(Wanted::Open(leg)).ok();
        Ok(self.port)
    }

    fn agree(&mut self, leg: LegId, agreed: &Agreed) {
        self.wanted.send(Wanted::Agree(leg, agreed.remote)).ok();
    }

    fn connect(&mut self, leg: LegId, to: To) {
        let to = match to {
            To::Nobody => "nobody",
            To::Room(..) => "room",
            To::Leg(_) => "leg",
            To::Ringback => "ringback",
            To::Music => "music",
            To::Play(..) => "play",
        };
        self.wanted.send(Wanted::Connect(leg, to)).ok();
    }

    fn hand_over(&mut self, from: LegId, to: LegId) {
        self.wanted.send(Wanted::HandOver(from, to)).ok();
    }

    fn key(&mut self, leg: LegId, key: char) {
        self.wanted.send(Wanted::Key(leg, key)).ok();
    }

    fn record(&mut self, leg: LegId, tape: Box<Tape>) {
        self.wanted.send(Wanted::Record(leg)).ok();
        self.tape = Some(tape);
    }

    fn stop_recording(&mut self, leg: LegId) {
        if let Some(tape) = self.tape.take() {
            let kind = EventKind::Recorded(tape);
            self.events.try_send(Event { leg, kind }).ok();
        }
    }

    fn close(&mut self, leg: LegId) {
        self.stop_recording(leg);
        self.wanted.send(Wanted::Close(leg)).ok();
        let kind = EventKind::Closed(Box::default());
        self.events.try_send(Event { leg, kind }).ok();
    }
}

/// A running gateway.
pub(crate) struct World {
    pub(crate) handle: Handle,
    commands: mpsc::Sender<PhoneCommand>,
    events: mpsc::Receiver<PhoneEvent>,
    pub(crate) wanted: mpsc::UnboundedReceiver<Wanted>,
    pub(crate) sound: mpsc::Sender<Event>,
    records: mpsc::Receiver<LegRecord>,
    ids: u128,
    seats: mpsc::UnboundedReceiver<plain::End>,
    /// Where objects lie.
    pub(crate) folder: TempDir,
}

pub(crate) fn account() -> AccountId {
    AccountId::from_u128(7)
}

/// A Trunk by its address that may call everywhere.
pub(crate) fn trunk(targets: &[String]) -> Trunk {
    Trunk {
        targets: targets
            .iter()
            .map(|target| target.parse().unwrap())
            .collect(),
        destinations: Destinations {
            allow: vec!["+".parse().unwrap()],
            ..Destinations::default()
        },
        health_seconds: None,
        ..Trunk::default()
    }
}

/// An Account whose Number rings Alice.
pub(crate) fn telephony(trunks: impl IntoIterator<Item = (&'static str, Trunk)>) -> Telephony {
    let number = Number {
        label: None,
        to: Destination::User(user()),
        trunk: None,
        callers: Vec::new(),
        hours: None,
        closed: None,
        record: false,
    };
    Telephony {
        trunks: trunks
            .into_iter()
            .map(|(name, trunk)| (name.parse().unwrap(), trunk))
            .collect(),
        // Who does not answer is not there for anybody.
        users: BTreeMap::from([(user(), toml::from_str("voicemail = false").unwrap())]),
        numbers: BTreeMap::from([(Line::Number(NUMBER.parse().unwrap()), number)]),
        ..Telephony::default()
    }
}

pub(crate) fn user() -> model::UserId {
    ALICE.parse().unwrap()
}

impl World {
    /// A gateway on UDP and TCP of this machine with the settings of `toml`, whose media is written down.
    pub(crate) async fn new(toml: &str, telephony: Telephony) -> Self {
        Self::start(toml, telephony, false).await
    }

    /// The same with media on real ports.
    pub(crate) async fn real(toml: &str, telephony: Telephony) -> Self {
        Self::start(toml, telephony, true).await
    }

    /// Other rows hold from now on.
    pub(crate) async fn set_rows(&self, telephony: Telephony) {
        let rows: Rows = BTreeMap::from([(account(), Arc::new(telephony))]);
        self.handle.set_rows(Arc::new(rows)).await;
    }

    /// The Room's end of the place that a phone was given.
    pub(crate) async fn seated(&mut self) -> plain::End {
        let end = timeout(PATIENCE, self.seats.recv()).await;
        end.expect("a phone has to come").unwrap()
    }

    async fn start(toml: &str, telephony: Telephony, is_real: bool) -> Self {
        let mut config: Config = toml::from_str(toml).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        config.listen_udp = vec![any];
        config.listen_tcp = vec![any];
        let (commands, from_signaling) = mpsc::channel(64);
        let (to_signaling, events) = mpsc::channel(64);
        let (to_records, records) = mpsc::channel(64);
        let (wanted_sender, wanted) = mpsc::unbounded_channel();
        let (sound, sound_events) = mpsc::channel(64);
        let folder = tempfile::tempdir().unwrap();
        let media: Box<dyn Sound> = match is_real {
            true => Box::new(Engine::start(settings(), &sound).unwrap()),
            false => Box::new(Written {
                wanted: wanted_sender,
                events: sound.clone(),
                port: 30_000,
                tape: None,
            }),
        };
        let (seated, seats) = mpsc::unbounded_channel();
        let start = Start {
            commands: from_signaling,
            events: to_signaling,
            sound: media,
            sound_events,
            attach: Arc::new(move |_| {
                let (near, far) = plain::pair(std::task::Waker::noop().clone());
                seated.send(near).ok();
                Box::pin(async { Ok(far) })
            }),
            tls: tls(),
            records: to_records,
            objects: Objects::in_folder(folder.path()).unwrap(),
        };
        let handle = Gateway::start(&config, start).unwrap();
        let t = Self {
            handle,
            seats,
            commands,
            events,
            wanted,
            sound,
            records,
            ids: 0,
            folder,
        };
        t.set_rows(telephony).await;
        t
    }

    pub(crate) fn address(&self, transport: Transport) -> SocketAddr {
        let mut all = self.handle.addresses().iter();
        all.find(|(by, _)| *by == transport).unwrap().1
    }

    pub(crate) fn place(&mut self) -> PhonePlace {
        self.ids += 1;
        PhonePlace {
            room: RoomId::from_u128(self.ids),
            participant: ParticipantId::from_u128(self.ids),
            track: TrackId::from_u128(self.ids),
        }
    }

    pub(crate) async fn tell(&self, call: CallId, kind: PhoneCommandKind) {
        let command = PhoneCommand {
            account: account(),
            call,
            kind,
        };
        self.commands.send(command).await.unwrap();
    }

    /// Alice dials.
    pub(crate) async fn dial(&mut self, to: &str) -> CallId {
        let place = self.place();
        let call = CallId::from_u128(self.ids);
        let dial = Dial {
            user: user(),
            name: Some("Alice".to_owned()),
            to: to.parse().unwrap(),
            place,
            ring: Millis::new(60_000),
        };
        self.tell(call, PhoneCommandKind::Dial(Box::new(dial)))
            .await;
        call
    }

    pub(crate) async fn event(&mut self) -> (CallId, PhoneEventKind) {
        let event = timeout(PATIENCE, self.events.recv()).await;
        let event = event.expect("news has to come").unwrap();
        assert_eq!(event.account, account());
        (event.call, event.kind)
    }

    /// The last that is kept of a Leg: how it sounded is told at its very end.
    pub(crate) async fn kept(&mut self) -> LegRecord {
        loop {
            let record = timeout(PATIENCE, self.records.recv()).await;
            let record = record.expect("a record has to come").unwrap();
            if record.sound.is_some() {
                return record;
            }
        }
    }

    pub(crate) async fn wants(&mut self) -> Wanted {
        let wanted = timeout(PATIENCE, self.wanted.recv()).await;
        wanted.expect("media has to be wanted").unwrap()
    }

    /// Waits until the figures are as `is` wants them.
    pub(crate) async fn until(&self, is: impl Fn(&gateway_service::Figures) -> bool) {
        let wait = async {
            while !is(&self.handle.figures().await) {
                tokio::task::yield_now().await;
            }
        };
        let figures = || self.handle.figures();
        if timeout(PATIENCE, wait).await.is_err() {
            panic!("{:?}", figures().await);
        }
    }
}

fn settings() -> Settings {
    Settings {
        port_min: 40_000,
        port_max: 49_999,
        threads: 1,
        silent_after: Duration::from_secs(30),
    }
}

fn tls() -> Tls {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Tls {
        server: None,
        client: Arc::new(client),
    }
}
