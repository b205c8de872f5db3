//! One run of one seed: the people, the Devices, the network, the server and its crashes.

use std::time::Duration;

use sim::{Cut, Event, Ladder, Link, Network, NodeId, Rng};

use crate::behaviour;
use crate::device::{Device, Io, Wire};
use crate::mode::Mode;
use crate::oracle::Oracle;
use crate::rooms;
use crate::system::System;
use crate::text::{Trace, device_key, ulid};
use crate::view::Phase;

/// How long people do things and things break.
const LIVELY: Duration = Duration::from_secs(60);
/// How long all is quiet then: longer than any Call rings and any Session waits.
const QUIET: Duration = Duration::from_secs(150);

const TICK: u64 = 0;
const RESTART: u64 = 1;
const FAULT: u64 = 2;
const STOP: u64 = 3;
/// Added to a Device's index: it comes back.
const COME_BACK: u64 = 100;

pub struct World {
    mode: Mode,
    net: Network<Wire>,
    rng: Rng,
    trace: Trace,
    pub oracle: Oracle,
    pub system: System,
    devices: Vec<Device>,
    users: Vec<String>,
    server: NodeId,
    /// A node without a place in the network, for timers of the world itself.
    fate: NodeId,
    quiet: bool,
    armed: Vec<Option<Duration>>,
}

impl World {
    pub fn new(mode: Mode, seed: u64, with_ladder: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mut net = Network::new(rng.bits());
        net.set_link_default(Link {
            latency: rng.millis(1..=40),
            jitter: rng.millis(0..=60),
            loss_per_mille: 0,
        });
        let server = net.add_node("server");
        let fate = net.add_node("fate");
        let mut trace = Trace::new(with_ladder);
        let mut oracle = Oracle::new(mode);

        let names = ["alice", "bob", "carol", "dave"];
        let user_count = if mode.race { 2 } else { rng.within(2..=4) };
        let users: Vec<String> = names
            .iter()
            .take(user_count as usize)
            .map(|&name| name.to_owned())
            .collect();
        let mut devices = Vec::new();
        for (index, user) in users.iter().enumerate() {
            let count = if mode.race {
                1 + 2 * index as u64
            } else {
                rng.within(1..=3)
            };
            for number in 1..=count {
                let name = format!("{user}{number}");
                let id = ulid(net.clock().unix(), &mut rng);
                trace.name_device(&id, &name);
                oracle.add_device(&name, &id, user);
                let node = net.add_node(&name);
                devices.push(Device::new(&name, user, node, id, device_key(&mut rng)));
            }
        }

        let system = System::new(seed, server, devices.len(), mode.long_absences_over_crashes);
        let armed = vec![None; devices.len() + 2];
        Self {
            mode,
            net,
            rng,
            trace,
            oracle,
            system,
            devices,
            users,
            server,
            fate,
            quiet: false,
            armed,
        }
    }

    /// Runs the seed to its end. What was wrong is then in [`Oracle::failures`].
    pub fn run(&mut self) {
        self.system.start(&mut self.net, &mut self.oracle);
        for index in 0..self.devices.len() {
            let at = self.rng.millis(0..=300);
            self.net.set_timer(self.fate, at, COME_BACK + index as u64);
        }
        self.net.set_timer(self.fate, Duration::from_secs(1), TICK);
        self.net.set_timer(self.fate, Duration::from_secs(2), FAULT);
        self.run_until(LIVELY);

        self.become_quiet();
        self.run_until(LIVELY + QUIET);
        self.each_device(behaviour::ask_state);
        self.run_for(Duration::from_secs(5));
        self.oracle.check_quiet();
        self.oracle
            .failures
            .extend(rooms::check_quiet(&self.devices));
        self.check_waiting();
        if !self.oracle.failures.is_empty() {
            return;
        }

        // A Device may take part in several Calls, and a transfer may have begun meanwhile.
        self.each_device(behaviour::hang_up_all);
        self.each_device(rooms::leave_all);
        self.run_for(Duration::from_secs(90));
        self.oracle.check_quiet();
        self.check_waiting();
        self.check_history();
        self.check_counts();
    }

    pub fn ladder(&self) -> Option<&Ladder> {
        self.trace.ladder.as_ref()
    }

    /// Puts readable names in place of ids.
    pub fn named(&self, text: &str) -> String {
        self.trace.named(text)
    }

    pub fn frames(&self) -> u64 {
        self.system.frames
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.net.now() + time);
    }

    fn run_until(&mut self, until: Duration) {
        while let Some(event) = self.net.next_event_until(until) {
            let node = event.node();
            if let Event::Message { stream, .. } = event {
                self.maybe_cut(stream);
            }
            if node == self.fate {
                if let Event::Timer { token, .. } = event {
                    self.on_fate(token);
                }
            } else if node == self.server {
                self.on_server(event);
            } else {
                self.on_device(event);
            }
        }
    }

    fn on_server(&mut self, event: Event<Wire>) {
        let crashed = self.system.on_event(event, &mut self.net, &mut self.oracle);
        if crashed {
            self.crash();
        }
    }

    fn on_device(&mut self, event: Event<Wire>) {
        let node = event.node();
        let Some(index) = self.devices.iter().position(|device| device.node == node) else {
            return;
        };
        let device = &mut self.devices[index];
        let mut io = Io {
            net: &mut self.net,
            rng: &mut self.rng,
            trace: &mut self.trace,
            oracle: &mut self.oracle,
            server: self.server,
        };
        match event {
            Event::Connected { stream, .. } => device.on_connected(stream, &mut io),
            Event::Message {
                stream, message, ..
            } => device.on_wire(stream, message, &mut io),
            Event::Closed { stream, .. } => device.on_closed(stream, &mut io),
            Event::Timer { .. } => {
                self.armed[index] = None;
                device.on_timer(&mut io);
                for plan in device.due_plans(io.now()) {
                    behaviour::carry_out(device, &plan, &mut io);
                }
            }
            Event::Accepted { .. } | Event::Datagram { .. } => {}
        }
        self.arm(index);
    }

    /// Sets the node's timer to what the Device waits for next, unless it goes off before that anyway.
    fn arm(&mut self, index: usize) {
        let device = &self.devices[index];
        if let Some(at) = device.poll_timeout()
            && self.armed[index].is_none_or(|armed| at < armed)
        {
            self.armed[index] = Some(at);
            self.net.set_timer(device.node, at, 0);
        }
    }

    fn with_device(
        &mut self,
        index: usize,
        what: impl FnOnce(&mut Device, &[String], &mut Io<'_>),
    ) {
        let mut io = Io {
            net: &mut self.net,
            rng: &mut self.rng,
            trace: &mut self.trace,
            oracle: &mut self.oracle,
            server: self.server,
        };
        what(&mut self.devices[index], &self.users, &mut io);
        self.arm(index);
    }

    fn each_device(&mut self, what: impl Fn(&mut Device, &mut Io<'_>)) {
        for index in 0..self.devices.len() {
            self.with_device(index, |device, _, io| what(device, io));
        }
    }

    // Fate.

    fn on_fate(&mut self, token: u64) {
        match token {
            TICK => self.on_tick(),
            FAULT => self.on_fault(),
            STOP if self.net.is_up(self.server) => {
                self.trace.mark(self.net.now(), "server", || "stops".into());
                self.system.stop(&mut self.net, &mut self.oracle);
                self.go_down(true);
            }
            STOP => {}
            RESTART => {
                self.net.restart(self.server);
                self.trace
                    .mark(self.net.now(), "server", || "starts again".into());
                self.system.start(&mut self.net, &mut self.oracle);
            }
            token => {
                let index = (token - COME_BACK) as usize;
                self.with_device(index, |device, _, io| device.go_online(io));
            }
        }
    }

    /// Somebody does something.
    fn on_tick(&mut self) {
        if self.quiet {
            return;
        }
        if self.mode.race {
            // The caller rings again and again; the three Devices of the callee answer by themselves.
            self.with_device(0, |device, users, io| {
                if device
                    .calls
                    .values()
                    .all(|held| held.view.phase == Phase::Ended)
                {
                    behaviour::invite_user(device, &users[1], io);
                } else if io.rng.percent(30) {
                    behaviour::hang_up_all(device, io);
                }
            });
        } else {
            let index = self.random_device();
            let meets = self.mode.rooms && self.rng.percent(85);
            self.with_device(index, |device, users, io| {
                if meets {
                    rooms::act(device, io);
                } else {
                    behaviour::act(device, users, io);
                }
            });
        }
        let pause = self.rng.millis(10..=900);
        self.net.set_timer(self.fate, self.net.now() + pause, TICK);
    }

    /// Something breaks.
    fn on_fault(&mut self) {
        if self.quiet {
            return;
        }
        let index = self.random_device();
        let roll = self.rng.within(0..=99);
        if self.mode.crashes && roll < 35 {
            // Not here, but between two outputs of whatever the server does next.
            self.system.crash_after(self.rng.within(0..=12));
        } else if self.mode.crashes && roll < 42 && self.net.is_up(self.server) {
            let in_ms = self.rng.within(0..=1_000);
            self.system.drain(in_ms, &mut self.net, &mut self.oracle);
            let at = self.net.now() + Duration::from_millis(in_ms);
            self.net.set_timer(self.fate, at, STOP);
        } else if self.mode.leaves && roll < 50 {
            self.with_device(index, |device, _, io| device.reload(io));
        } else if self.mode.leaves && roll < 60 {
            self.with_device(index, |device, _, io| device.bye(io));
            self.come_back(index, 100..=30_000);
        } else if self.mode.leaves && roll < 80 {
            self.with_device(index, |device, _, io| device.vanish(io));
            self.come_back(index, 1_000..=90_000);
        } else if self.mode.cut_per_mille > 0 && roll < 90 {
            self.with_device(index, |device, _, io| device.vanish(io));
            self.come_back(index, 50..=15_000);
        } else if self.mode.cut_per_mille > 0 {
            let until = self.net.now() + self.rng.millis(100..=20_000);
            let node = self.devices[index].node;
            self.trace
                .mark(self.net.now(), &self.devices[index].name, || {
                    format!("cannot reach the server until {}ms", until.as_millis())
                });
            self.net.partition(node, self.server, until);
        }
        let pause = self.rng.millis(1_000..=12_000);
        self.net.set_timer(self.fate, self.net.now() + pause, FAULT);
    }

    fn come_back(&mut self, index: usize, after_ms: std::ops::RangeInclusive<u64>) {
        let at = self.net.now() + self.rng.millis(after_ms);
        self.net.set_timer(self.fate, at, COME_BACK + index as u64);
    }

    fn maybe_cut(&mut self, stream: sim::StreamId) {
        if self.quiet || self.rng.within(0..=999) >= self.mode.cut_per_mille {
            return;
        }
        let Some(device) = self
            .devices
            .iter()
            .find(|device| device.stream() == Some(stream))
        else {
            return;
        };
        let cut = match self.rng.within(0..=9) {
            0..=4 => Cut::Noticed,
            5..=7 => Cut::NoticedBy(device.node),
            _ => Cut::NoticedBy(self.server),
        };
        self.trace.mark(self.net.now(), &device.name, || {
            format!("socket cut, {cut:?}")
        });
        self.net.cut(stream, cut);
    }

    fn crash(&mut self) {
        let noticed = !self.mode.leaves || self.rng.percent(70);
        self.trace
            .mark(self.net.now(), "server", || "crashes".into());
        self.go_down(noticed);
    }

    fn go_down(&mut self, noticed: bool) {
        self.system.forget();
        self.net.crash(self.server, noticed);
        let down = self.rng.millis(10..=1_500);
        self.net
            .set_timer(self.fate, self.net.now() + down, RESTART);
    }

    fn random_device(&mut self) -> usize {
        self.rng.within(0..=self.devices.len() as u64 - 1) as usize
    }

    /// Ends all trouble and brings everybody back.
    fn become_quiet(&mut self) {
        self.trace.mark(self.net.now(), "fate", || {
            "all is quiet from here on".into()
        });
        self.quiet = true;
        self.system.never_crash();
        for index in 0..self.devices.len() {
            let at = self.net.now() + self.rng.millis(0..=300);
            self.net.set_timer(self.fate, at, COME_BACK + index as u64);
        }
    }

    // What the world checks beside the oracle.

    /// Every command has been answered.
    fn check_waiting(&mut self) {
        for device in &self.devices {
            for command in &device.waiting {
                self.oracle.failures.push(format!(
                    "{}: never answered: {} {} {}",
                    device.name, command.kind, command.id, command.data
                ));
            }
            if !device.is_live() {
                self.oracle
                    .failures
                    .push(format!("{} is not connected", device.name));
            }
        }
    }

    /// One row for each Call anybody took part in, with the end that everybody saw.
    fn check_history(&mut self) {
        let mut problems = Vec::new();
        for ((device, call), view) in &self.oracle.last {
            let row = call
                .parse()
                .ok()
                .and_then(|call| self.system.store.rows.get(&call));
            let (Some(row), Some(end)) = (row, &view.end) else {
                problems.push(format!("{device}: no row or no end of {view:?}: {row:?}"));
                continue;
            };
            let reason = row.reason.map(|reason| serde_json::json!(reason));
            let winner = row.callee.device.map(|device| device.to_string());
            let same = reason == Some(serde_json::json!(end.reason))
                && row.into.map(|call| call.to_string()) == end.into
                && row.ended_by.as_ref().map(ToString::to_string) == end.by
                && winner == view.winner
                && row.caller.user.as_str() == view.caller
                && row.callee.user.as_str() == view.callee;
            if !same {
                problems.push(format!(
                    "{device}: the row differs from the end of {view:?}: {row:?}"
                ));
            }
        }
        let open = self
            .system
            .store
            .rows
            .values()
            .filter(|row| row.ended_at.is_none());
        for row in open {
            problems.push(format!("a row that never ended: {row:?}"));
        }
        for ((device, call), count) in &self.oracle.history {
            if *count > 1 && !self.mode.crashes {
                problems.push(format!(
                    "{device} was told {count} times of the history of {call}"
                ));
            }
        }
        self.oracle.failures.extend(problems);
    }

    /// The server holds what it must and nothing more.
    fn check_counts(&mut self) {
        let counts = self.system.counts();
        let right = counts.sessions_connected == self.devices.len()
            && counts.sessions_detached == 0
            && counts.rooms + counts.participants + counts.waiting == 0
            && counts.calls_ringing == 0
            && counts.calls_active == 0;
        if !right {
            self.oracle.fail(format!(
                "the server holds more or less than it should: {counts:?}"
            ));
        }
    }
}
