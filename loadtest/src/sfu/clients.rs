//! The clients of a contender, by what its signaling asks of them.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::bots::wait_until_connected;
use super::fleet::Fleet;
use super::janus::Janus;
use super::seat::{Meeting, Seat};
use super::tracks::{Kind as Media, Role};
use crate::client::Target;
use crate::sign_in::{User, sign_in_behind};

/// How long clients may take to connect.
pub(super) const CONNECT: Duration = Duration::from_secs(60);

/// How many join at a time.
const JOINS_AT_ONCE: usize = 16;

/// Clients of our server.
pub(super) struct Ours {
    pub(super) fleet: Arc<Fleet>,
    meeting: Meeting,
    seats: Vec<Seat>,
    pub(super) receivers: usize,
    pub(super) rooms: usize,
    /// Who has signed in and not yet joined.
    users: VecDeque<User>,
    signed_in: usize,
    /// Connections so far.
    connections: usize,
    /// Says to the Sessions that it is over.
    _leave: watch::Sender<bool>,
}

/// Clients of Janus.
pub(super) struct OfJanus {
    pub(super) fleet: Arc<Fleet>,
    sessions: Vec<Janus>,
    feeds: Vec<u64>,
    pub(super) receivers: usize,
}

impl Ours {
    /// Nobody yet, for the server whose signaling is at `address`.
    pub(super) fn new(address: SocketAddr, ip: IpAddr) -> anyhow::Result<Self> {
        let fleet = Arc::new(Fleet::start(1)?);
        let (leave, leaving) = watch::channel(false);
        let meeting = Meeting {
            target: Target::on_localhost(address, None),
            ip,
            fleet: fleet.clone(),
            height: None,
            leaving,
        };
        Ok(Self {
            fleet,
            meeting,
            seats: Vec::new(),
            receivers: 0,
            rooms: 0,
            users: VecDeque::new(),
            signed_in: 0,
            connections: 0,
            _leave: leave,
        })
    }

    /// Lets more join until there are so many receivers, at most `per_room` in each Room.
    pub(super) async fn grow_to(
        &mut self,
        media: Media,
        receivers: usize,
        per_room: usize,
    ) -> anyhow::Result<()> {
        while self.receivers < receivers {
            let room = self.receivers / per_room;
            if room == self.rooms {
                let role = Role {
                    sends: vec![media],
                    ..Role::default()
                };
                self.rooms += 1;
                self.join(room, &role, 1).await?;
            }
            let free = per_room.saturating_mul(room + 1) - self.receivers;
            let count = free.min(receivers - self.receivers);
            let role = Role {
                sends: Vec::new(),
                audio_slots: usize::from(media.is_audio()),
                video_slots: usize::from(!media.is_audio()),
                ..Role::default()
            };
            self.join(room, &role, count).await?;
            self.receivers += count;
        }
        Ok(())
    }

    /// A Room in which everybody sees everybody.
    pub(super) async fn open_room(&mut self, media: Media, count: usize) -> anyhow::Result<()> {
        let role = Role {
            sends: vec![media],
            audio_slots: 0,
            video_slots: count - 1,
            ..Role::default()
        };
        self.rooms = 1;
        self.join(0, &role, count).await
    }

    /// Has so many Users ready to join.
    pub(super) async fn sign_in(&mut self, count: usize) -> anyhow::Result<()> {
        let missing = count.saturating_sub(self.users.len());
        let more = sign_in_behind(&self.meeting.target, self.signed_in, missing).await?;
        self.signed_in += more.len();
        self.users.extend(more);
        Ok(())
    }

    async fn join(&mut self, room: usize, role: &Role, count: usize) -> anyhow::Result<()> {
        self.sign_in(count).await?;
        let users: Vec<_> = self.users.drain(..count).collect();
        let name = format!("load{room}");
        let mut joining: JoinSet<anyhow::Result<Seat>> = JoinSet::new();
        for user in users {
            if joining.len() >= JOINS_AT_ONCE {
                self.seat(&mut joining).await?;
            }
            let index = self.connections;
            self.connections += 1;
            let (meeting, name, role) = (self.meeting.clone(), name.clone(), role.clone());
            joining.spawn(async move { join_one(&meeting, &name, &user, index, &role).await });
        }
        while !joining.is_empty() {
            self.seat(&mut joining).await?;
        }
        Ok(())
    }

    async fn seat(&mut self, joining: &mut JoinSet<anyhow::Result<Seat>>) -> anyhow::Result<()> {
        if let Some(seat) = joining.join_next().await {
            self.seats.push(seat??);
        }
        // A Session that ended by itself says why.
        if let Some(at) = self
            .seats
            .iter()
            .position(|seat| seat.session.is_finished())
        {
            self.seats.swap_remove(at).session.await??;
        }
        Ok(())
    }
}

async fn join_one(
    meeting: &Meeting,
    room: &str,
    user: &User,
    index: usize,
    role: &Role,
) -> anyhow::Result<Seat> {
    let joined = meeting.join(room, user, index, role).await;
    joined.with_context(|| format!("client {index} can't join"))
}

impl OfJanus {
    /// Nobody yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            fleet: Arc::new(Fleet::start(1)?),
            sessions: Vec::new(),
            feeds: Vec::new(),
            receivers: 0,
        })
    }

    /// Lets more join until there are so many receivers of one feed.
    pub(super) async fn grow_to(
        &mut self,
        server: SocketAddr,
        ip: IpAddr,
        media: Media,
        receivers: usize,
    ) -> anyhow::Result<()> {
        self.connect(server, ip).await?;
        if self.feeds.is_empty() {
            self.publish(media, 0).await?;
        }
        let feeds = self.feeds.clone();
        let missing = receivers.saturating_sub(self.receivers);
        // Each session asks for one after the other, as many at a time as there are sessions.
        let mut joining: JoinSet<anyhow::Result<Janus>> = JoinSet::new();
        let sessions = std::mem::take(&mut self.sessions);
        let count = sessions.len();
        let fleet = self.fleet.clone();
        for (number, mut session) in sessions.into_iter().enumerate() {
            let share = missing / count + usize::from(number < missing % count);
            let (feeds, fleet) = (feeds.clone(), fleet.clone());
            joining.spawn(async move {
                for _ in 0..share {
                    let peer = session.subscribe(&feeds).await?;
                    fleet.add(peer)?;
                }
                Ok(session)
            });
        }
        while let Some(joined) = joining.join_next().await {
            self.sessions.push(joined??);
        }
        self.receivers = self.receivers.max(receivers);
        Ok(())
    }

    /// Everybody sends, and receives all others.
    pub(super) async fn mesh(
        &mut self,
        server: SocketAddr,
        ip: IpAddr,
        media: Media,
        count: usize,
    ) -> anyhow::Result<()> {
        self.connect(server, ip).await?;
        for number in 0..count {
            self.publish(media, number).await?;
        }
        for number in 0..count {
            let mut others = self.feeds.clone();
            others.remove(number);
            let at = number % self.sessions.len();
            let peer = self.sessions[at].subscribe(&others).await?;
            self.fleet.add(peer)?;
        }
        Ok(())
    }

    async fn connect(&mut self, server: SocketAddr, ip: IpAddr) -> anyhow::Result<()> {
        while self.sessions.len() < JOINS_AT_ONCE {
            self.sessions.push(Janus::open(server, ip).await?);
        }
        Ok(())
    }

    async fn publish(&mut self, media: Media, number: usize) -> anyhow::Result<()> {
        let role = Role {
            sends: vec![media],
            ..Role::default()
        };
        let at = number % self.sessions.len();
        let (peer, feed) = self.sessions[at].publish(&role).await?;
        self.fleet.add(peer)?;
        self.feeds.push(feed);
        // Only a feed whose media flows can be subscribed to.
        wait_until_connected(&self.fleet, CONNECT).await
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // The Sessions end with their server; until then they would hold the threads of the clients.
        self.seats.iter().for_each(|seat| seat.session.abort());
    }
}
