//! Relayed ports: their sockets, and who receives at each.
//!
//! A port is served by the worker its client's packets reach, or by the control thread for a stream.
//! When the client moves, its ports move along: the next to serve them has all it needs before the
//! one before lets go, and the socket keeps what it holds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use relay_core::{FiveTuple, Owners, PathUpdate, RelayPort};
use tokio::task::JoinHandle;

use crate::worker::{Command, Remote};

/// A relayed port that is open.
struct OpenPort {
    /// Shared with the worker that serves it.
    socket: Arc<UdpSocket>,
    server: Server,
}

/// Who receives at a relayed port.
pub(crate) enum Server {
    /// A worker, by its number, once the core has granted the port.
    Worker(usize),
    /// The control thread, by a task.
    Task(JoinHandle<()>),
}

impl Server {
    fn worker(&self) -> Option<usize> {
        match self {
            Server::Worker(worker) => Some(*worker),
            Server::Task(_) => None,
        }
    }
}

/// What the workers are to be told of one event: each hears all of it at once.
#[derive(Default)]
pub(crate) struct News {
    by_worker: Vec<(usize, Vec<Command>)>,
    /// Whom relayed addresses belong to, once those have heard.
    owned: Vec<(SocketAddr, usize)>,
    /// Who lets go of a port, after that.
    left: Vec<(usize, RelayPort)>,
    /// What clients are answered, after all it promises.
    answers: Vec<(usize, Command)>,
}

impl News {
    pub(crate) fn tell(&mut self, worker: usize, command: Command) {
        match self.by_worker.iter_mut().find(|(held, _)| *held == worker) {
            Some((_, commands)) => commands.push(command),
            None => self.by_worker.push((worker, vec![command])),
        }
    }

    /// Has a worker answer a client, behind all else.
    pub(crate) fn answer(&mut self, worker: usize, to: FiveTuple, bytes: Vec<u8>) {
        self.answers.push((worker, Command::Send(to, bytes)));
    }

    /// Tells them.
    pub(crate) fn spread(mut self, workers: &[Remote], owners: &Owners) {
        if self.left.is_empty() {
            for (worker, answer) in std::mem::take(&mut self.answers) {
                self.tell(worker, answer);
            }
        }
        for (worker, commands) in self.by_worker {
            workers[worker].tell(commands);
            workers[worker].wake();
        }
        for (address, owner) in self.owned {
            owners.set(address, Some(owner));
        }
        for (worker, port) in self.left {
            workers[worker].tell(vec![Command::Leave(port)]);
            workers[worker].wake();
        }
        for (worker, answer) in self.answers {
            workers[worker].tell(vec![answer]);
            workers[worker].wake();
        }
    }
}

/// All relayed ports of UDP.
pub(crate) struct Ports {
    /// By [`RelayPort::index`].
    open: RefCell<Vec<Option<OpenPort>>>,
    /// The worker that a client's packets will reach who has announced a move, by where to.
    worker_by_announced: RefCell<HashMap<FiveTuple, usize>>,
    owners: Arc<Owners>,
    /// The number of the control thread among the owners.
    control: usize,
}

impl Ports {
    pub(crate) fn new(owners: Arc<Owners>, control: usize) -> Ports {
        Ports {
            open: RefCell::default(),
            worker_by_announced: RefCell::default(),
            owners,
            control,
        }
    }

    /// Takes a port that was bound.
    pub(crate) fn add(&self, port: RelayPort, socket: Arc<UdpSocket>, server: Server) {
        let owner = server.worker().unwrap_or(self.control);
        let mut open = self.open.borrow_mut();
        if open.len() <= port.index {
            open.resize_with(port.index + 1, || None);
        }
        open[port.index] = Some(OpenPort { socket, server });
        self.owners.set(port.address, Some(owner));
    }

    /// Closes a port.
    pub(crate) fn close(&self, port: RelayPort, news: &mut News) {
        self.owners.set(port.address, None);
        news.owned.retain(|(address, _)| *address != port.address);
        let open = self
            .open
            .borrow_mut()
            .get_mut(port.index)
            .and_then(Option::take);
        // The last who lets go of the socket closes it, so this comes first.
        match open.map(|open| open.server) {
            Some(Server::Worker(worker)) => news.tell(worker, Command::Close(port)),
            Some(Server::Task(task)) => task.abort(),
            None => {}
        }
    }

    /// The socket of a port.
    pub(crate) fn socket(&self, port: RelayPort) -> Option<Arc<UdpSocket>> {
        let open = self.open.borrow();
        Some(open.get(port.index)?.as_ref()?.socket.clone())
    }

    /// Hands a port to the worker that the packets of `to` reach.
    pub(crate) fn move_to_worker(&self, port: RelayPort, to: FiveTuple, news: &mut News) {
        let worker = self.worker_by_announced.borrow().get(&to).copied();
        let mut open = self.open.borrow_mut();
        let open = open.get_mut(port.index).and_then(Option::as_mut);
        let (Some(worker), Some(open)) = (worker, open) else {
            return tracing::error!("A relayed port stays where it was: its client is nowhere");
        };
        match std::mem::replace(&mut open.server, Server::Worker(worker)) {
            Server::Task(task) => task.abort(),
            // It is opened there again, by what follows.
            Server::Worker(before) if before == worker => news.tell(worker, Command::Leave(port)),
            Server::Worker(before) => news.left.push((before, port)),
        }
    }

    /// Hands a port to the control thread, where `receive` makes a task that receives at a socket.
    ///
    /// # Errors
    ///
    /// There are too many descriptors; then nothing receives at the port any more.
    pub(crate) fn move_to_control(
        &self,
        port: RelayPort,
        news: &mut News,
        receive: impl FnOnce(Arc<UdpSocket>) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<()> {
        let mut open = self.open.borrow_mut();
        let Some(open) = open.get_mut(port.index).and_then(Option::as_mut) else {
            return Ok(());
        };
        let Server::Worker(before) = open.server else {
            return Ok(()); // From one stream to another.
        };
        news.left.push((before, port));
        // A descriptor of its own: one that was here before may not be let go of yet.
        open.socket = Arc::new(open.socket.try_clone()?);
        open.server = Server::Task(receive(open.socket.clone())?);
        self.owners.set(port.address, Some(self.control));
        Ok(())
    }

    /// Tells the worker of an Allocation what changed; `serving` is the one whose packet changed it.
    pub(crate) fn update(&self, update: PathUpdate, serving: Option<usize>, news: &mut News) {
        let mut announced = self.worker_by_announced.borrow_mut();
        let worker = match &update {
            PathUpdate::Open {
                port, five_tuple, ..
            } => {
                announced.remove(five_tuple);
                let open = self.open.borrow();
                let open = open.get(port.index).and_then(Option::as_ref);
                if let Some(OpenPort { socket, server }) = open
                    && let Some(worker) = server.worker()
                {
                    news.owned.push((port.address, worker));
                    let (port, socket) = (*port, socket.clone());
                    news.tell(worker, Command::Open(update, port, socket));
                }
                return;
            }
            PathUpdate::Announce { five_tuple, .. } => {
                announced.extend(serving.map(|worker| (*five_tuple, worker)));
                serving
            }
            PathUpdate::Retract { five_tuple, .. } => announced.remove(five_tuple),
            update => self.worker_of(update.allocation()),
        };
        if let Some(worker) = worker {
            news.tell(worker, Command::Update(update));
        }
    }

    /// The worker that serves an Allocation, by either of its ports.
    fn worker_of(&self, allocation: usize) -> Option<usize> {
        let open = self.open.borrow();
        let both = [2 * allocation, 2 * allocation + 1];
        let mut held = both.iter().filter_map(|index| open.get(*index)?.as_ref());
        held.find_map(|open| open.server.worker())
    }
}
