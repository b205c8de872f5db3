//! An SFU, its clients, and signaling's part between them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use model::id::{AccountId, ParticipantId, RoomId};
use model::media::{MediaCommand, MediaCommandKind, MediaEvent, MediaEventKind, MediaOffer};
use model::room::{Permissions, Role, Source};
use sfu_service::{Config, Figures, Handle, Sfu, Start};
use str0m::media::{Direction, Mid};
use tokio::sync::mpsc;

use crate::client::{Client, PATIENCE};

pub(crate) const ACCOUNT: AccountId = AccountId::from_u128(1);
/// Where streams are said to come in.
pub(crate) const TCP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

pub(crate) const ROOM: RoomId = RoomId::from_u128(2);

/// A Room beside it, whom nothing that happens there may harm.
pub(crate) const OTHER_ROOM: RoomId = RoomId::from_u128(3);

/// Where it all plays.
pub(crate) struct Stage {
    pub(crate) handle: Handle,
    /// Where commands are for.
    pub(crate) room: RoomId,
    commands: mpsc::Sender<MediaCommand>,
    events: mpsc::Receiver<MediaEvent>,
    pub(crate) heard: Vec<MediaEventKind>,
    pub(crate) clients: Vec<Client>,
    /// Whether the Room is encrypted from end to end.
    pub(crate) is_encrypted: bool,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        Self::with(Config::default())
    }

    /// An SFU with these settings on one thread, at any free ports of IPv4.
    pub(crate) fn with(config: Config) -> Stage {
        let config = Config {
            listen_ips: vec!["127.0.0.1".parse().unwrap()],
            port: 0,
            threads: 1,
            ..config
        };
        let (commands, commands_in) = mpsc::channel(64);
        let (events_out, events) = mpsc::channel(64);
        let start = Start {
            commands: commands_in,
            events: events_out,
        };
        let handle = Sfu::start(&config, start).unwrap();
        handle.set_tcp_addresses(vec![TCP]);
        Stage {
            handle,
            room: ROOM,
            commands,
            events,
            heard: Vec::new(),
            clients: Vec::new(),
            is_encrypted: false,
        }
    }

    pub(crate) fn command(&self, kind: MediaCommandKind) {
        let command = MediaCommand {
            account: ACCOUNT,
            room: self.room,
            kind,
        };
        self.commands.blocking_send(command).unwrap();
    }

    /// Has a client join with these Tracks and slots, and waits until it is connected. Returns its place.
    pub(crate) fn join(
        &mut self,
        sources: &[Source],
        audio_slots: usize,
        video_slots: usize,
    ) -> usize {
        self.join_as(sources, audio_slots, video_slots, |_| {})
    }

    /// The same, of a client that is made ready first.
    pub(crate) fn join_as(
        &mut self,
        sources: &[Source],
        audio_slots: usize,
        video_slots: usize,
        ready: impl FnOnce(&mut Client),
    ) -> usize {
        let place = self.clients.len();
        let mut client = Client::new(place as u128 + 10);
        ready(&mut client);
        let offer = client.offer(sources, audio_slots, video_slots);
        self.clients.push(client);
        self.command(MediaCommandKind::Join {
            participant: self.clients[place].id,
            permissions: Role::Speaker.permissions(),
            encrypted: self.is_encrypted,
            offer,
        });
        self.answered(place);
        self.run("connected", |stage| stage.clients[place].is_connected);
        place
    }

    /// Joins with an offer of one's own; returns what came of it.
    pub(crate) fn join_raw(
        &mut self,
        number: u128,
        permissions: Permissions,
        offer: MediaOffer,
    ) -> MediaEventKind {
        let participant = ParticipantId::from_u128(number);
        self.command(MediaCommandKind::Join {
            participant,
            permissions,
            encrypted: self.is_encrypted,
            offer,
        });
        self.next(|event| match event {
            MediaEventKind::Answered {
                participant: of, ..
            }
            | MediaEventKind::Refused {
                participant: of, ..
            } => *of == participant,
            _ => false,
        })
    }

    /// Makes a later offer, and waits for the answer.
    pub(crate) fn offer(
        &mut self,
        place: usize,
        sources: &[Source],
        audio_slots: usize,
        video_slots: usize,
    ) {
        let offer = self.clients[place].offer(sources, audio_slots, video_slots);
        self.command(MediaCommandKind::Offer {
            participant: self.clients[place].id,
            offer,
        });
        self.answered(place);
    }

    /// Restarts the ICE of a client, and waits for the answer.
    pub(crate) fn restart(&mut self, place: usize) {
        let offer = self.clients[place].offer_restart();
        self.command(MediaCommandKind::Offer {
            participant: self.clients[place].id,
            offer,
        });
        self.answered(place);
    }

    /// Changes who sends in a section of a client.
    pub(crate) fn turn_section(&mut self, place: usize, mid: Mid, direction: Direction) {
        let offer = self.clients[place].offer_direction(mid, direction);
        self.command(MediaCommandKind::Offer {
            participant: self.clients[place].id,
            offer,
        });
        self.answered(place);
    }

    fn answered(&mut self, place: usize) {
        let (id, expected) = (self.clients[place].id, self.clients[place].generation);
        let answer = self.next(|event| {
            matches!(event, MediaEventKind::Answered { participant, generation, .. } if (*participant, *generation) == (id, expected))
        });
        let MediaEventKind::Answered { sdp, .. } = answer else {
            panic!("not answered: {answer:?}");
        };
        self.clients[place].accept(&sdp);
    }

    /// Runs until an event is heard for which `is_it` holds, and takes it out.
    pub(crate) fn next(&mut self, is_it: impl Fn(&MediaEventKind) -> bool) -> MediaEventKind {
        self.run("event", |stage| stage.heard.iter().any(&is_it));
        let at = self.heard.iter().position(&is_it).unwrap();
        self.heard.remove(at)
    }

    /// Lets everybody go on until `is_done`.
    #[track_caller]
    pub(crate) fn run(&mut self, what: &str, mut is_done: impl FnMut(&mut Stage) -> bool) {
        let start = Instant::now();
        loop {
            self.turn();
            if is_done(self) {
                return;
            }
            if start.elapsed() > PATIENCE {
                let figures = self.figures();
                panic!(
                    "nothing came of {what:?}; heard {:?}; {figures:?}",
                    self.heard
                );
            }
        }
    }

    /// Waits until the SFU has carried out what it was told so far, and what it sent for that has come: commands are in turn, and of one
    /// for a stranger is said that it can't be.
    pub(crate) fn settle(&mut self) {
        let stranger = ParticipantId::from_u128(u128::MAX);
        let offer = MediaOffer {
            generation: 0,
            sdp: String::new(),
            tracks: Vec::new(),
        };
        self.command(MediaCommandKind::Offer {
            participant: stranger,
            offer,
        });
        self.next(|event| {
            matches!(event, MediaEventKind::Refused { participant, .. } if *participant == stranger)
        });
        self.turn();
    }

    /// Lets everybody go on for a while.
    pub(crate) fn rest(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let now = Instant::now();
        for client in &mut self.clients {
            client.turn(now);
        }
        self.hear();
        std::thread::sleep(Duration::from_micros(500));
    }

    /// Takes in what the SFU has said.
    pub(crate) fn hear(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            assert_eq!(event.account, ACCOUNT);
            assert!([ROOM, OTHER_ROOM].contains(&event.room), "{event:?}");
            self.heard.push(event.kind);
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(self.handle.figures())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(self.handle.shutdown());
    }
}
