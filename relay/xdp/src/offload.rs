//! The offload: loads and attaches the program, and keeps its flows.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::asm::MapRef;
use crate::binding::{
    Binding, InstallError, Installed, Lifetimes, Mode, QuotaId, Settings, StartError, Traffic,
    Usage,
};
use crate::interface;
use crate::layout::{
    BUCKET_LEN, Cause, EGRESS_LEN, FLOW_LEN, Flow, FlowKey, KEY_V4_LEN, KEY_V6_LEN, MAP_BUCKETS,
    MAP_CAUSES, MAP_DEVICES, MAP_EGRESS, MAP_FLOWS, MAP_KEYS_V4, MAP_KEYS_V6, Quota, bucket, flow,
};
use crate::program::{self, CONFIRM_INTERVAL_SECONDS, NANOS_PER_SECOND};
use crate::sys::{self, AttachFlags, Map, MapKind, MappedArray};

/// How long a flow's number rests before it is another's. A processor that found the old flow
/// just before it was removed has long sent its packet by then.
const REST_NANOS: u64 = NANOS_PER_SECOND.unsigned_abs() as u64;

/// How long what was relayed past the program may keep a quota used up.
const QUOTA_AHEAD_NANOS_MAX: u64 = 3600 * REST_NANOS;

/// How many interfaces may be named, VLANs on top of them included.
const INTERFACES_MAX: u32 = 256;

/// The maps, as `layout` names them.
#[derive(Debug)]
pub(crate) struct Maps {
    keys_v4: Map,
    keys_v6: Map,
    pub(crate) flows: MappedArray,
    buckets: MappedArray,
    pub(crate) egress: Map,
    devices: Map,
    causes: Map,
}

impl Maps {
    fn create(flows_max: u32, quotas_max: u32) -> io::Result<Maps> {
        let hash = |name, key_len, value_len, entries_max| {
            let lens = (key_len, value_len);
            Map::create(name, MapKind::Hash, lens, entries_max, sys::NO_PREALLOC)
        };
        Ok(Maps {
            keys_v4: hash("turn_keys_v4", KEY_V4_LEN, 4, flows_max)?,
            keys_v6: hash("turn_keys_v6", KEY_V6_LEN, 4, flows_max)?,
            flows: MappedArray::create("turn_flows", FLOW_LEN, flows_max)?,
            buckets: MappedArray::create("turn_buckets", BUCKET_LEN, quotas_max + 1)?,
            egress: hash("turn_egress", 4, EGRESS_LEN, INTERFACES_MAX)?,
            devices: Map::create(
                "turn_devices",
                MapKind::DeviceHash,
                (4, 4),
                INTERFACES_MAX,
                0,
            )?,
            causes: Map::create(
                "turn_causes",
                MapKind::PerCpuArray,
                (4, 8 * Cause::COUNT),
                1,
                0,
            )?,
        })
    }

    pub(crate) fn fd(&self, map: MapRef) -> i32 {
        let fd = match map {
            MAP_KEYS_V4 => self.keys_v4.fd(),
            MAP_KEYS_V6 => self.keys_v6.fd(),
            MAP_FLOWS => self.flows.fd(),
            MAP_BUCKETS => self.buckets.fd(),
            MAP_EGRESS => self.egress.fd(),
            MAP_DEVICES => self.devices.fd(),
            MAP_CAUSES => self.causes.fd(),
            MapRef(number) => unreachable!("the program names no map {number}"),
        };
        fd.as_raw_fd()
    }

    fn keys(&self, map: MapRef) -> &Map {
        match map {
            MAP_KEYS_V6 => &self.keys_v6,
            _ => &self.keys_v4,
        }
    }
}

/// Numbers that are free to take, each used again only after a rest.
#[derive(Debug)]
struct Numbers {
    /// The lowest that was never taken.
    fresh: u32,
    end: u32,
    /// Those given back, and when, in monotonic nanoseconds.
    resting: VecDeque<(u64, u32)>,
}

impl Numbers {
    fn take(&mut self, now: u64) -> Option<u32> {
        if let Some(&(since, number)) = self.resting.front()
            && since + REST_NANOS <= now
        {
            self.resting.pop_front();
            return Some(number);
        }
        let number = (self.fresh < self.end).then_some(self.fresh)?;
        self.fresh += 1;
        Some(number)
    }

    fn give_back(&mut self, now: u64, number: u32) {
        self.resting.push_back((now, number));
    }
}

/// The program at work. Dropped, it is detached and all its Channels are userspace's again.
#[derive(Debug)]
pub struct Offload {
    settings: Settings,
    pub(crate) program: OwnedFd,
    pub(crate) maps: Maps,
    cpus: usize,
    flows: Numbers,
    buckets: Numbers,
    /// Each keeps the program attached to one interface.
    _links: Vec<OwnedFd>,
}

impl Offload {
    /// Loads the program and attaches it to every interface. Takes CAP_BPF, CAP_NET_ADMIN and
    /// CAP_PERFMON, or root, and Linux 5.12 or newer.
    ///
    /// # Errors
    ///
    /// Says what the machine lacks; nothing is attached then.
    pub fn start(settings: Settings) -> Result<Offload, StartError> {
        let mut offload = Offload::load(settings)?;
        let flags = match offload.settings.mode {
            Mode::Native => AttachFlags::Driver,
            Mode::Generic => AttachFlags::Generic,
        };
        for name in &offload.settings.interfaces {
            let attached = sys::attach(&offload.program, interface::index(name)?, flags);
            let link = attached.map_err(|error| match error.raw_os_error() {
                Some(libc::EPERM) => StartError::Rights,
                Some(libc::EBUSY | libc::EEXIST) => StartError::Taken { name: name.clone() },
                Some(libc::EOPNOTSUPP) => StartError::Driver { name: name.clone() },
                _ => StartError::Attach {
                    name: name.clone(),
                    error,
                },
            })?;
            offload._links.push(link);
        }
        Ok(offload)
    }

    /// Asks for all that [`start`](Self::start) needs and attaches nothing, so that it may be
    /// called beside a running relay.
    ///
    /// # Errors
    ///
    /// Says what the machine lacks.
    pub fn probe(settings: Settings) -> Result<(), StartError> {
        Offload::load(settings).map(drop)
    }

    pub(crate) fn load(settings: Settings) -> Result<Offload, StartError> {
        if settings.interfaces.is_empty() {
            return Err(StartError::NoInterface);
        }
        interface::ensure_forwarding(settings.ipv4, settings.ipv6)?;
        let cpus = interface::possible_cpus().map_err(StartError::Map)?;
        let flows_max = settings.channels_max.saturating_mul(2);
        let maps = Maps::create(flows_max, settings.quotas_max).map_err(without_map)?;

        for name in &settings.interfaces {
            let ifindex = interface::index(name)?;
            let number = ifindex.to_ne_bytes();
            maps.devices
                .insert(&number, &number)
                .map_err(StartError::Map)?;
            for (route, egress) in interface::egresses(name, ifindex) {
                maps.egress
                    .insert(&route.to_ne_bytes(), &egress.to_bytes())
                    .map_err(StartError::Map)?;
            }
        }
        let program = program::program(&settings.relay_ports)
            .expect("the program's shape does not depend on the settings");
        let program = sys::load("turn_channels", &program, |map| maps.fd(map)).map_err(
            |sys::LoadError { error, log }| match error.raw_os_error() {
                Some(libc::EPERM) => StartError::Rights,
                // So the verifier speaks of those without CAP_PERFMON.
                Some(libc::EACCES) if log.contains("!root") => StartError::Rights,
                _ => StartError::Load { error, log },
            },
        )?;
        Ok(Offload {
            program,
            maps,
            cpus,
            flows: Numbers {
                fresh: 0,
                end: flows_max,
                resting: VecDeque::new(),
            },
            buckets: Numbers {
                fresh: 1, // 0 is none.
                end: settings.quotas_max + 1,
                resting: VecDeque::new(),
            },
            settings,
            _links: Vec::new(),
        })
    }

    /// Relays a Channel here from now on, in both directions.
    ///
    /// # Errors
    ///
    /// Says why it is left to userspace.
    pub fn install(
        &mut self,
        binding: Binding,
        lifetimes: Lifetimes,
    ) -> Result<Installed, InstallError> {
        let Binding {
            client,
            server,
            relayed,
            peer,
            channel,
            quotas,
        } = binding;
        if server.ip().is_unspecified() || relayed.ip().is_unspecified() {
            return Err(InstallError::Wildcard);
        }
        let relay_ports = &self.settings.relay_ports;
        if relay_ports.contains(&server.port()) || !relay_ports.contains(&relayed.port()) {
            return Err(InstallError::Ports);
        }
        let now = sys::monotonic_nanos();
        let buckets = quotas.map(|quota| quota.map_or(0, |QuotaId(number)| number));
        let confirm = now + u64::from(CONFIRM_INTERVAL_SECONDS.unsigned_abs()) * REST_NANOS;
        let flow = |key, source, destination, channel, until| Flow {
            key,
            source,
            destination,
            channel,
            buckets,
            dscp: self.settings.dscp,
            expires: nanos_at(now, until),
            confirm,
        };
        let [to_peer, to_client] = keys(&binding);
        let to_peer = flow(to_peer, relayed, peer, 0, lifetimes.to_peer);
        let to_client = flow(to_client, server, client, channel, lifetimes.to_client);

        let to_peer = self.add_flow(now, to_peer)?;
        match self.add_flow(now, to_client) {
            Ok(to_client) => Ok(Installed {
                binding,
                flows: [to_peer, to_client],
            }),
            Err(error) => {
                self.remove_flow(now, keys(&binding)[0], to_peer);
                Err(error)
            }
        }
    }

    /// Moves the ends of an installed Channel; they may be in the past.
    pub fn refresh(&self, installed: &Installed, lifetimes: Lifetimes) {
        let now = sys::monotonic_nanos();
        let ends = [lifetimes.to_peer, lifetimes.to_client];
        for (number, until) in installed.flows.into_iter().zip(ends) {
            self.word(number, flow::EXPIRES)
                .store(nanos_at(now, until), Ordering::Relaxed);
        }
    }

    /// What an installed Channel relayed so far.
    #[must_use]
    pub fn usage(&self, installed: &Installed) -> Usage {
        let [to_peer, to_client] = installed.flows.map(|number| self.traffic(number));
        Usage { to_peer, to_client }
    }

    /// Leaves a Channel to userspace, and tells what it relayed here.
    #[expect(clippy::needless_pass_by_value, reason = "what was removed is no more")]
    pub fn remove(&mut self, installed: Installed) -> Usage {
        let now = sys::monotonic_nanos();
        for (key, number) in keys(&installed.binding).into_iter().zip(installed.flows) {
            self.remove_flow(now, key, number);
        }
        self.usage(&installed)
    }

    /// A quota that Channels can draw from, full; `None` where `quotas_max` are there.
    pub fn add_quota(&mut self, quota: Quota) -> Option<QuotaId> {
        let number = self.buckets.take(sys::monotonic_nanos())?;
        self.maps.buckets.write(number, &quota.to_bytes());
        Some(QuotaId(number))
    }

    /// Tells a quota what is relayed past the program: each bound's schedule, packets and bits, is
    /// at least so far ahead of now as given.
    pub fn level_quota(&self, quota: QuotaId, ahead: [Duration; 2]) {
        let now = sys::monotonic_nanos();
        let bucket = self.maps.buckets.element(quota.0);
        let places = [bucket::PACKETS_SCHEDULE, bucket::BYTES_SCHEDULE];
        for (place, ahead) in places.into_iter().zip(ahead) {
            // The program's clock is a few milliseconds late, so that "now" would cost something.
            if ahead.is_zero() {
                continue;
            }
            let ahead = u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX);
            // Below the range's middle the program's sums never wrap.
            let schedule = now.saturating_add(ahead.min(QUOTA_AHEAD_NANOS_MAX));
            bucket[usize::from(place.unsigned_abs()) / 8].fetch_max(schedule, Ordering::Relaxed);
        }
    }

    /// Takes a quota back, from which no installed Channel draws any more.
    pub fn remove_quota(&mut self, quota: QuotaId) {
        self.buckets.give_back(sys::monotonic_nanos(), quota.0);
    }

    /// How often each [`Cause`] was met since the start, by its [`index`](Cause::index).
    ///
    /// # Errors
    ///
    /// The kernel's, which there is no known reason for.
    pub fn causes(&self) -> io::Result<[u64; Cause::COUNT]> {
        let values = self.maps.causes.get_per_cpu(&[0; 4], self.cpus)?;
        let mut causes = [0; Cause::COUNT];
        for of_cpu in values.as_chunks::<{ 8 * Cause::COUNT }>().0 {
            for (count, bytes) in causes.iter_mut().zip(of_cpu.as_chunks().0) {
                *count += u64::from_ne_bytes(*bytes);
            }
        }
        Ok(causes)
    }

    /// How many Channels are installed.
    #[must_use]
    pub fn channels(&self) -> usize {
        (self.flows.fresh as usize - self.flows.resting.len()) / 2
    }

    fn add_flow(&mut self, now: u64, flow: Flow) -> Result<u32, InstallError> {
        let (map, key) = flow.key.to_map().ok_or(InstallError::Families)?;
        if flow.source.is_ipv4() != flow.destination.is_ipv4() {
            return Err(InstallError::Families);
        }
        let number = self.flows.take(now).ok_or(InstallError::Full)?;
        self.maps.flows.write(number, &flow.to_bytes());
        if let Err(error) = self.maps.keys(map).insert(&key, &number.to_ne_bytes()) {
            self.flows.give_back(now, number);
            // With E2BIG the hash says that it is full.
            return Err(error.into());
        }
        Ok(number)
    }

    fn remove_flow(&mut self, now: u64, key: FlowKey, number: u32) {
        if let Some((map, key)) = key.to_map() {
            // The key was put there by `add_flow`, and only here is it taken away.
            self.maps.keys(map).remove(&key).ok();
        }
        self.word(number, flow::EXPIRES).store(0, Ordering::Relaxed);
        self.flows.give_back(now, number);
    }

    fn traffic(&self, number: u32) -> Traffic {
        Traffic {
            packets: self.word(number, flow::PACKETS).load(Ordering::Relaxed),
            bytes: self.word(number, flow::BYTES).load(Ordering::Relaxed),
        }
    }

    pub(crate) fn word(&self, number: u32, field: i16) -> &AtomicU64 {
        &self.maps.flows.element(number)[usize::from(field.unsigned_abs()) / 8]
    }
}

fn without_map(error: io::Error) -> StartError {
    match error.raw_os_error() {
        Some(libc::EPERM) => StartError::Rights,
        _ => StartError::Map(error),
    }
}

/// What the packets of a Channel are found by: those to the peer, those to the client.
fn keys(binding: &Binding) -> [FlowKey; 2] {
    let key = |remote: SocketAddr, local: SocketAddr, channel| FlowKey {
        remote,
        local,
        channel,
    };
    [
        key(binding.client, binding.server, binding.channel),
        key(binding.peer, binding.relayed, 0),
    ]
}

/// `until` on the program's clock, which shows `now`.
fn nanos_at(now: u64, until: Instant) -> u64 {
    // The program's clock is a few milliseconds late; what has ended already ends at once.
    let left = until.saturating_duration_since(Instant::now());
    match u64::try_from(left.as_nanos()) {
        Ok(0) => 0,
        Ok(left) => now.saturating_add(left),
        Err(_) => u64::MAX,
    }
}
