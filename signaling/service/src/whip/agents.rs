//! The HTTP sessions of this node, by the secret end of their URLs, and the task of each.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{AccountId, DeviceId, RoomName, UserId};
use signaling_core::{ConnectionId, VerifiedHello};
use signaling_wire::DeviceInfo;
use signaling_wire::whip::{Fragment, Precondition, Purpose};
use tokio::sync::{mpsc, oneshot};

use super::agent::{Agent, Output, Patched};
use super::problem::Problem;
use crate::addresses::OpenSlot;
use crate::config::ClientInfo;
use crate::service::Inner;
use crate::shard::{Input, NewConnection};
use crate::socket::Outbox;
use crate::tokens::Verified;

/// How many requests may wait for one session.
const REQUESTS_LEN_MAX: usize = 4;

/// The end of a session's URL: 128 random bits, so that nobody finds another's (RFC 9725 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AgentId(pub(super) u128);

/// All sessions. There are as many as Sessions nobody attends, which the core limits.
#[derive(Default)]
pub(crate) struct Agents {
    by_id: Mutex<HashMap<AgentId, Entry>>,
}

/// Whose a session is, and the way to it.
struct Entry {
    account: AccountId,
    user: UserId,
    purpose: Purpose,
    room: RoomName,
    requests: mpsc::Sender<Request>,
}

/// A later request of a client.
pub(super) enum Request {
    Patch {
        condition: Option<Precondition>,
        fragment: Fragment,
        answer: oneshot::Sender<Result<Patched, Problem>>,
    },
    Leave {
        /// Told once the shard has it.
        done: oneshot::Sender<()>,
    },
}

/// A session that is in its Room.
pub(super) struct Opened {
    pub(super) id: AgentId,
    pub(super) answer: String,
    pub(super) tag: String,
}

impl Agents {
    /// The way to a session, for whom it belongs to: who shows another token learns no more than that of none.
    pub(super) fn find(
        &self,
        id: AgentId,
        purpose: Purpose,
        room: &str,
        verified: &Verified,
    ) -> Option<mpsc::Sender<Request>> {
        let sessions = self.lock();
        let entry = sessions.get(&id)?;
        let is_theirs = entry.account == verified.account
            && entry.user == verified.claims.sub
            && entry.purpose == purpose
            && entry.room.as_str() == room;
        is_theirs.then(|| entry.requests.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Entry>> {
        // Nothing panics while it is held.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who opens a session, and from where.
pub(super) struct Opener<'a> {
    pub(super) verified: Verified,
    pub(super) client: &'a ClientInfo,
    pub(super) slot: OpenSlot,
}

/// Begins a Session nobody attends, has `agent` join its Room, and waits for what comes of it.
pub(super) async fn open(
    inner: &Arc<Inner>,
    opener: Opener<'_>,
    purpose: Purpose,
    room: RoomName,
    agent: Agent,
) -> Result<Opened, Problem> {
    let Opener {
        verified,
        client,
        slot,
    } = opener;
    let Verified {
        api_key,
        account,
        claims,
        expired,
    } = verified;
    let (requests, received) = mpsc::channel(REQUESTS_LEN_MAX);
    let (joined, answer) = oneshot::channel();
    let id = AgentId(rand::random());
    let mut room_grants = claims.room;
    // A viewer waits for others to begin a Room.
    room_grants.create &= purpose == Purpose::Publish;

    let now = inner.clock.now();
    let hello = VerifiedHello {
        id: None,
        api_key,
        account,
        user: claims.sub.clone(),
        name: claims.name,
        grants: claims.call,
        room_grants,
        expired,
        attended: false,
        device: DeviceInfo {
            id: DeviceId::from_parts(now, rand::random()),
            name: None,
            key: String::new(),
        },
        resume: None,
        address: Some(inner.addresses.hash(client.ip)),
        ice_servers: Vec::new(),
    };
    let connection = inner.shards.new_connection();
    let shard = inner.shards.of(account).clone();
    let outbox = Arc::new(Outbox::default());
    let new = NewConnection {
        connection,
        hello,
        outbox: Arc::clone(&outbox),
        host: client.host.as_str().into(),
    };
    if shard.send(Input::Hello(Box::new(new))).await.is_err() {
        return Err(Problem::draining());
    }

    let entry = Entry {
        account,
        user: claims.sub,
        purpose,
        room,
        requests,
    };
    let task = Task {
        connection,
        outbox,
        shard,
        joined: Some(joined),
        patched: None,
        registered: Registered {
            agents: Arc::clone(&inner.agents),
            id,
        },
        agent,
        _slot: slot,
    };
    inner.agents.lock().insert(id, entry);
    inner.sockets.spawn(task.run(received));
    // The task ends with an answer but for a fault of ours.
    let (answer, tag) = answer.await.map_err(|_| Problem::draining())??;
    Ok(Opened { id, answer, tag })
}

/// What serves one session until it ends.
struct Task {
    connection: ConnectionId,
    outbox: Arc<Outbox>,
    shard: mpsc::Sender<Input>,
    /// Who waits for the answer to POST.
    joined: Option<oneshot::Sender<Result<(String, String), Problem>>>,
    /// Who waits for that to PATCH.
    patched: Option<oneshot::Sender<Result<Patched, Problem>>>,
    registered: Registered,
    agent: Agent,
    /// Its place among the connections of its address.
    _slot: OpenSlot,
}

/// A session's place in [`Agents`], until it is dropped.
struct Registered {
    agents: Arc<Agents>,
    id: AgentId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.agents.lock().remove(&self.id);
    }
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut left = None;
        while self.carry_out().await.is_ok() {
            tokio::select! {
                batch = poll_fn(|context| self.outbox.poll_take(context)) => {
                    let texts = batch.frames.iter();
                    let texts = texts.filter_map(|frame| str::from_utf8(frame).ok());
                    self.agent.handle_frames(texts);
                    if batch.end.is_some() {
                        self.agent.handle_closed();
                    }
                }
                Some(request) = requests.recv(), if !self.agent.is_busy() => match request {
                    Request::Patch { condition, fragment, answer } => {
                        self.patched = Some(answer);
                        self.agent.handle_patch(condition.as_ref(), &fragment);
                    }
                    Request::Leave { done } => {
                        left = Some(done);
                        self.agent.handle_leave();
                    }
                },
            }
        }

        // Found no more before the client hears of it.
        drop(self.registered);
        let connection = self.connection;
        let _ = self.shard.send(Input::Gone { connection }).await; // It ends when the service does.
        if let Some(done) = left {
            let _ = done.send(()); // The client may not wait for it.
        }
    }

    /// Does what the agent says; fails when it is over.
    async fn carry_out(&mut self) -> Result<(), Ended> {
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Say(text) => {
                    let input = Input::Frames {
                        connection: self.connection,
                        texts: vec![text.into()],
                    };
                    self.shard.send(input).await.map_err(|_| Ended)?;
                }
                Output::Joined { answer, tag } => {
                    let told = self
                        .joined
                        .take()
                        .map(|joined| joined.send(Ok((answer, tag))));
                    if matches!(told, Some(Err(_))) {
                        // Who asked is gone, and does not know how to leave.
                        self.agent.handle_leave();
                    }
                }
                Output::Refused(problem) => {
                    if let Some(joined) = self.joined.take() {
                        let _ = joined.send(Err(problem)); // Who asked may be gone.
                    }
                    return Err(Ended);
                }
                Output::Patched(answer) => {
                    if let Some(patched) = self.patched.take() {
                        let _ = patched.send(answer); // Who asked may be gone.
                    }
                }
                Output::Over => return Err(Ended),
            }
        }
        Ok(())
    }
}

/// Nothing is left to be done.
struct Ended;
