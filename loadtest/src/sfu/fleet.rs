//! Many clients on few threads: each thread waits for the sockets of its clients, does what their clocks ask for, and sends media.
//!
//! All of a fleet send or are silent, so that servers, with a fleet each, take turns under load.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::media::{AUDIO_INTERVAL, FRAME_INTERVAL, next_beat};
use super::peer::{Peer, State};
use super::tally::{Counts, Delays};

/// How many sockets one call tells about.
const EVENTS_MAX: usize = 512;

/// The longest datagram there is.
const DATAGRAM_LEN_MAX: usize = 65_535;

/// How often a client does what its clock asks for, while it connects and after.
const TICK_CONNECTING: Duration = Duration::from_millis(5);
const TICK: Duration = Duration::from_millis(20);

/// Names a client: its thread, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BotId {
    thread: usize,
    place: usize,
}

impl BotId {
    /// By what to sort clients, so that those of two lists stand beside each other.
    pub(crate) fn order(self) -> (usize, usize) {
        (self.thread, self.place)
    }
}

/// What a fleet came to so far.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) bots: Vec<BotTally>,
    /// How long packets took since the last tally.
    pub(crate) delays: Delays,
    /// Media packets sent by all.
    pub(crate) sent: u64,
}

/// What one client came to so far.
#[derive(Debug, Clone)]
pub(crate) struct BotTally {
    pub(crate) id: BotId,
    pub(crate) state: State,
    pub(crate) streams: Vec<StreamTally>,
    pub(crate) sent: u64,
    /// From its making until it was connected, and until media arrived.
    pub(crate) connected: Option<Duration>,
    pub(crate) first_media: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(crate) struct StreamTally {
    pub(crate) is_audio: bool,
    pub(crate) key_frames: u64,
    pub(crate) counts: Counts,
}

impl Tally {
    /// Everything that came in, of sound or of pictures or both.
    pub(crate) fn counts(&self) -> Counts {
        let mut all = Counts::default();
        let streams = self.bots.iter().flat_map(|bot| &bot.streams);
        streams.for_each(|stream| all.add(stream.counts));
        all
    }
}

enum Command {
    Add(usize, Box<Peer>),
    Remove(usize),
    Publish(bool),
    Layers(usize, String, Vec<(String, bool)>),
    Tally(Sender<Tally>),
    States(Sender<Vec<(State, Option<String>)>>),
}

struct Worker {
    commands: Sender<Command>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// The threads.
pub(crate) struct Fleet {
    threads: Vec<Worker>,
    /// Of each thread.
    places: Mutex<Vec<Places>>,
}

/// Which places of a thread are taken.
#[derive(Clone, Default)]
struct Places {
    count: usize,
    free: Vec<usize>,
}

impl Places {
    fn taken(&self) -> usize {
        self.count - self.free.len()
    }

    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        })
    }
}

impl Fleet {
    pub(crate) fn start(threads: usize) -> anyhow::Result<Self> {
        let mut started = Vec::new();
        for number in 0..threads {
            let (commands, receiver) = mpsc::channel();
            let thread = std::thread::Builder::new()
                .name(format!("bots-{number}"))
                .spawn(move || Thread::new(number, receiver)?.run())?;
            started.push(Worker { commands, thread });
        }
        let places = Mutex::new(vec![Places::default(); threads]);
        Ok(Self {
            threads: started,
            places,
        })
    }

    /// Takes a client that has described itself and the other side; it connects from now on.
    pub(crate) fn add(&self, peer: Peer) -> anyhow::Result<BotId> {
        let mut places = self.places()?;
        let emptiest = (0..places.len()).min_by_key(|thread| places[*thread].taken());
        let thread = emptiest.context("no thread")?;
        let place = places[thread].take();
        // Under the lock, so that who leaves a place does so before the next comes.
        self.tell(thread, Command::Add(place, Box::new(peer)))?;
        Ok(BotId { thread, place })
    }

    /// Lets a client go without a word: its socket is gone from now on.
    pub(crate) fn remove(&self, id: BotId) -> anyhow::Result<()> {
        let mut places = self.places()?;
        self.tell(id.thread, Command::Remove(id.place))?;
        places[id.thread].free.push(id.place);
        Ok(())
    }

    fn places(&self) -> anyhow::Result<MutexGuard<'_, Vec<Places>>> {
        self.places
            .lock()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))
    }

    /// Whether all send media.
    pub(crate) fn publish(&self, on: bool) -> anyhow::Result<()> {
        (0..self.threads.len()).try_for_each(|thread| self.tell(thread, Command::Publish(on)))
    }

    /// Which Layers of a client's Track are wanted.
    pub(crate) fn set_layers(
        &self,
        id: BotId,
        mid: &str,
        wanted: Vec<(String, bool)>,
    ) -> anyhow::Result<()> {
        self.tell(id.thread, Command::Layers(id.place, mid.to_owned(), wanted))
    }

    /// What all came to.
    pub(crate) fn tally(&self) -> anyhow::Result<Tally> {
        let mut all = Tally {
            bots: Vec::new(),
            delays: Delays::new(),
            sent: 0,
        };
        for thread in 0..self.threads.len() {
            let (answer, receiver) = mpsc::channel();
            self.tell(thread, Command::Tally(answer))?;
            let tally = receiver.recv().context("a thread of bots has ended")?;
            all.bots.extend(tally.bots);
            all.delays.merge(&tally.delays);
            all.sent += tally.sent;
        }
        Ok(all)
    }

    /// How far the clients are, and what went wrong with each.
    pub(crate) fn states(&self) -> anyhow::Result<Vec<(State, Option<String>)>> {
        let mut all = Vec::new();
        for thread in 0..self.threads.len() {
            let (answer, receiver) = mpsc::channel();
            self.tell(thread, Command::States(answer))?;
            all.extend(receiver.recv().context("a thread of bots has ended")?);
        }
        Ok(all)
    }

    /// Ends the threads; fails where one failed.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        for Worker { commands, thread } in self.threads {
            // Without commands to come a thread ends.
            drop(commands);
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread of bots panicked"))??;
        }
        Ok(())
    }

    fn tell(&self, thread: usize, command: Command) -> anyhow::Result<()> {
        self.threads[thread]
            .commands
            .send(command)
            .map_err(|_| anyhow::anyhow!("a thread of bots has ended"))
    }
}

struct Bot {
    peer: Peer,
    tick_at: Instant,
    video_at: Instant,
    audio_at: Instant,
}

impl Bot {
    fn take_in(&mut self, delays: &mut Delays, buffer: &mut [u8]) {
        if let Err(error) = self.peer.handle_readable(Instant::now(), buffer) {
            self.peer.fail(&error);
        }
        for delay in self.peer.delays.drain(..) {
            delays.add(delay);
        }
    }

    fn tick(&mut self, now: Instant, number: usize, publishes: bool) -> anyhow::Result<()> {
        if self.peer.fault.is_some() {
            return Ok(());
        }
        if self.tick_at <= now {
            self.peer.handle_tick(now)?;
            let pause = match self.peer.state {
                State::Connected => TICK,
                State::Connecting | State::Failed => TICK_CONNECTING,
            };
            self.tick_at = now + pause;
        }
        if self.peer.state != State::Connected || !publishes {
            return Ok(());
        }
        if self.video_at <= now {
            self.peer.send_video(now)?;
            self.video_at = next_beat(self.video_at, FRAME_INTERVAL, now);
        }
        if self.audio_at <= now {
            self.peer.send_audio(now, number)?;
            self.audio_at = next_beat(self.audio_at, AUDIO_INTERVAL, now);
        }
        Ok(())
    }
}

struct Thread {
    number: usize,
    commands: Receiver<Command>,
    epoll: Epoll,
    /// By their places.
    bots: Vec<Option<Bot>>,
    publishes: bool,
    /// Since the last tally.
    delays: Delays,
}

impl Thread {
    fn new(number: usize, commands: Receiver<Command>) -> anyhow::Result<Self> {
        Ok(Self {
            number,
            commands,
            epoll: Epoll::new(EpollCreateFlags::empty())?,
            bots: Vec::new(),
            publishes: false,
            delays: Delays::new(),
        })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let mut events = vec![EpollEvent::empty(); EVENTS_MAX];
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        loop {
            loop {
                match self.commands.try_recv() {
                    Err(TryRecvError::Disconnected) => return Ok(()),
                    Ok(command) => self.obey(command)?,
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.tick(Instant::now());
            let ready = match self.epoll.wait(&mut events, EpollTimeout::from(1u8)) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..ready] {
                let bot = usize::try_from(event.data())
                    .ok()
                    .and_then(|at| self.bots.get_mut(at));
                if let Some(Some(bot)) = bot {
                    bot.take_in(&mut self.delays, &mut buffer);
                }
            }
        }
    }

    fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Add(place, peer) => {
                self.epoll
                    .add(&*peer, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
                let now = Instant::now();
                // So that they don't all send in the same moment.
                let later = FRAME_INTERVAL * u32::try_from(place * 7 % 40).unwrap_or(0) / 40;
                if self.bots.len() <= place {
                    self.bots.resize_with(place + 1, || None);
                }
                self.bots[place] = Some(Bot {
                    peer: *peer,
                    tick_at: now,
                    video_at: now + later,
                    audio_at: now + later / 2,
                });
            }
            // Its descriptor leaves the epoll as it is closed.
            Command::Remove(place) => {
                if let Some(bot) = self.bots.get_mut(place) {
                    *bot = None;
                }
            }
            Command::Publish(on) => self.publishes = on,
            Command::Layers(place, mid, wanted) => {
                if let Some(Some(bot)) = self.bots.get_mut(place) {
                    bot.peer.set_layers(&mid, &wanted);
                }
            }
            Command::Tally(answer) => {
                // Who asked may have given up.
                answer.send(self.tally()).ok();
            }
            Command::States(answer) => {
                let bots = self.bots.iter().flatten();
                let states = bots.map(|bot| (bot.peer.state, bot.peer.fault.clone()));
                answer.send(states.collect()).ok();
            }
        }
        Ok(())
    }

    fn tick(&mut self, now: Instant) {
        let bots = self.bots.iter_mut().enumerate();
        for (number, bot) in bots.filter_map(|(number, bot)| Some((number, bot.as_mut()?))) {
            if let Err(error) = bot.tick(now, number, self.publishes) {
                bot.peer.fail(&error);
            }
        }
    }

    fn tally(&mut self) -> Tally {
        let mut tally = Tally {
            bots: Vec::new(),
            delays: std::mem::replace(&mut self.delays, Delays::new()),
            sent: 0,
        };
        let bots = self.bots.iter().enumerate();
        for (place, bot) in bots.filter_map(|(place, bot)| Some((place, bot.as_ref()?))) {
            let peer = &bot.peer;
            let stream = |stream: &super::tally::Stream| StreamTally {
                is_audio: stream.is_audio,
                key_frames: stream.key_frames,
                counts: stream.counts(),
            };
            tally.sent += peer.sent_packets;
            let id = BotId {
                thread: self.number,
                place,
            };
            tally.bots.push(BotTally {
                id,
                state: peer.state,
                streams: peer.streams.iter().map(stream).collect(),
                sent: peer.sent_packets,
                connected: peer.connected.map(|at| at - peer.began),
                first_media: peer.first_media.map(|at| at - peer.began),
            });
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::tracks::{Kind, Role};
    use super::*;

    /// Waits until `is_so` of what the fleet came to.
    fn wait(fleet: &Fleet, is_so: impl Fn(&Tally) -> bool) -> Tally {
        let began = Instant::now();
        loop {
            let tally = fleet.tally().unwrap();
            if is_so(&tally) {
                return tally;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{:?}",
                tally.bots
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn peer(sends: &[Kind]) -> Peer {
        let role = Role {
            sends: sends.to_vec(),
            ..Role::default()
        };
        Peer::new(Ipv4Addr::LOCALHOST.into(), &role).unwrap()
    }

    #[test]
    fn what_one_client_sends_another_receives_whole_and_in_time() {
        let (mut sender, mut receiver) = (peer(&[Kind::Microphone, Kind::Camera]), peer(&[]));
        let answer = receiver.answer(sender.offer().unwrap()).unwrap();
        sender.accept(answer).unwrap();
        assert_eq!(sender.tracks().count(), 2);
        assert!(sender.tracks().all(|(mid, _)| !mid.is_empty()));
        let fleet = Fleet::start(2).unwrap();
        let sender = fleet.add(sender).unwrap();
        let receiver = fleet.add(receiver).unwrap();
        assert_ne!(sender.order(), receiver.order());

        wait(&fleet, |tally| {
            tally.bots.iter().all(|bot| bot.state == State::Connected)
        });
        assert_eq!(
            fleet.tally().unwrap().sent,
            0,
            "nothing is sent before it is asked for"
        );
        fleet.publish(true).unwrap();
        let arrived = |tally: &Tally| tally.counts().packets > 300;
        let tally = wait(&fleet, arrived);
        fleet.publish(false).unwrap();

        let mut streams: Vec<_> = tally.bots.iter().flat_map(|bot| &bot.streams).collect();
        streams.sort_by_key(|stream| !stream.is_audio);
        let [audio, video] = streams[..] else {
            panic!("{streams:?}")
        };
        assert!(audio.is_audio && audio.counts.packets > 50, "{audio:?}");
        assert!(
            video.key_frames >= 1 && video.counts.packets > 150,
            "{video:?}"
        );
        assert_eq!(tally.counts().copies, 0);
        let receiver = tally.bots.iter().find(|bot| bot.sent == 0).unwrap();
        assert!(receiver.first_media.unwrap() >= receiver.connected.unwrap());
        fleet.end().unwrap();
    }
}
