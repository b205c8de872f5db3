//! What is in the network driver: Channels, the buckets they draw from, and who pays for what they
//! relay.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use relay_core::{FiveTuple, Meter, PeerPolicy, Rates, Route, Tally, Traffic, Transport};
use relay_xdp::{Binding, Installed, Lifetimes, Quota, QuotaId, Usage};

use super::{Channel, Held, View, family};

/// A Channel in the driver.
pub(super) struct Live {
    installed: Installed,
    bill: Bill,
}

/// Who pays for a Channel, and what is paid.
struct Bill {
    charged: Usage,
    /// Those that bound it: its User's, its Account's.
    meters: [Option<Arc<Meter>>; 2],
    tally: Tally,
}

/// What was relayed in the driver, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offloaded {
    pub(crate) from_clients: Traffic,
    pub(crate) to_clients: Traffic,
}

/// The program at work, and what belongs to it.
pub(super) struct Driver {
    pub(super) xdp: relay_xdp::Offload,
    /// The own addresses behind relayed ones: IPv4, IPv6.
    bind: [Option<IpAddr>; 2],
    /// By the meter's place in memory, which is its own as long as it is held.
    buckets: HashMap<usize, Bucket>,
    settled_at: Instant,
    pub(super) offloaded: Offloaded,
    /// Channels left to userspace. Its keys are the causes in the code.
    pub(super) left: HashMap<&'static str, u64>,
}

/// A meter's bucket in the driver.
struct Bucket {
    meter: Arc<Meter>,
    quota: QuotaId,
    /// How many Channels draw from it.
    channels: usize,
}

impl Driver {
    pub(super) fn start(
        settings: relay_xdp::Settings,
        bind: [Option<IpAddr>; 2],
        now: Instant,
    ) -> Result<Driver, relay_xdp::StartError> {
        Ok(Driver {
            xdp: relay_xdp::Offload::start(settings)?,
            bind,
            buckets: HashMap::new(),
            settled_at: now,
            offloaded: Offloaded::default(),
            left: HashMap::new(),
        })
    }

    pub(super) fn install_all(&mut self, view: &View<'_>, allocation: usize, held: &mut Held) {
        for at in 0..held.channels.len() {
            self.install(view, allocation, held, at);
        }
    }

    pub(super) fn remove_all(&mut self, now: Instant, channels: &mut [Channel]) {
        for channel in channels {
            self.remove(now, channel);
        }
    }

    /// Installs the Channel at `at`, or counts why userspace keeps it.
    pub(super) fn install(
        &mut self,
        view: &View<'_>,
        allocation: usize,
        held: &mut Held,
        at: usize,
    ) {
        let ends = (view.expires)(allocation);
        match self.try_install(view, ends, held, &held.channels[at]) {
            Ok(live) => held.channels[at].live = Some(live),
            Err(cause) => {
                tracing::debug!(cause, "Channel left to userspace");
                *self.left.entry(cause).or_default() += 1;
            }
        }
    }

    fn try_install(
        &mut self,
        view: &View<'_>,
        ends: Option<Instant>,
        held: &Held,
        channel: &Channel,
    ) -> Result<Live, &'static str> {
        let FiveTuple {
            client,
            server,
            transport,
        } = held.five_tuple;
        if transport != Transport::Udp {
            return Err("transport");
        }
        // What lives on this relay is handed over in memory.
        if !leads_to_network(view.peers, channel.peer) {
            return Err("peer");
        }
        let family = family(channel.peer);
        let (Some(port), Some(ip)) = (held.ports[family], self.bind[family]) else {
            return Err("families");
        };
        let meters = held.budget.meters().map(|meters| meters.each_ref());
        let meters = meters.map_or([None, None], |meters| {
            meters.map(|meter| is_bounded(meter).then(|| meter.clone()))
        });
        let quotas = self.draw(view.now, &meters)?;
        let binding = Binding {
            client,
            server,
            relayed: SocketAddr::new(ip, port.address.port()),
            peer: channel.peer,
            channel: channel.number,
            quotas,
        };
        match self
            .xdp
            .install(binding, lifetimes(view.now, ends, channel))
        {
            Ok(installed) => Ok(Live {
                installed,
                bill: Bill {
                    charged: Usage::default(),
                    meters,
                    tally: held.tally.clone(),
                },
            }),
            Err(error) => {
                self.give_back(&meters);
                Err(error.cause())
            }
        }
    }

    /// The buckets of `meters`, each held once more.
    fn draw(
        &mut self,
        now: Instant,
        meters: &[Option<Arc<Meter>>; 2],
    ) -> Result<[Option<QuotaId>; 2], &'static str> {
        let mut quotas = [None; 2];
        for at in 0..meters.len() {
            let Some(meter) = &meters[at] else { continue };
            if !self.buckets.contains_key(&place(meter)) {
                let Some(quota) = self.xdp.add_quota(quota_of(meter)) else {
                    self.give_back(&meters[..at]);
                    return Err("quotas_full");
                };
                self.xdp.level_quota(quota, meter.ahead(now));
                let bucket = Bucket {
                    meter: meter.clone(),
                    quota,
                    channels: 0,
                };
                self.buckets.insert(place(meter), bucket);
            }
            if let Some(bucket) = self.buckets.get_mut(&place(meter)) {
                bucket.channels += 1;
                quotas[at] = Some(bucket.quota);
            }
        }
        Ok(quotas)
    }

    /// Takes back what [`draw`](Self::draw) held.
    fn give_back(&mut self, meters: &[Option<Arc<Meter>>]) {
        for meter in meters.iter().flatten() {
            let Some(bucket) = self.buckets.get_mut(&place(meter)) else {
                continue;
            };
            bucket.channels -= 1;
            if bucket.channels == 0 {
                self.xdp.remove_quota(bucket.quota);
                self.buckets.remove(&place(meter));
            }
        }
    }

    /// Moves the ends of a Channel, where it is in the driver.
    pub(super) fn refresh(&self, now: Instant, ends: Option<Instant>, channel: &Channel) {
        if let Some(live) = &channel.live {
            let lifetimes = lifetimes(now, ends, channel);
            self.xdp.refresh(&live.installed, lifetimes);
        }
    }

    /// Leaves a Channel to userspace, and counts the last of what it relayed.
    pub(super) fn remove(&mut self, now: Instant, channel: &mut Channel) {
        let Some(Live {
            installed,
            mut bill,
        }) = channel.live.take()
        else {
            return;
        };
        let usage = self.xdp.remove(installed);
        self.charge(usage, &mut bill);
        for meter in bill.meters.iter().flatten() {
            if let Some(bucket) = self.buckets.get(&place(meter)) {
                self.xdp.level_quota(bucket.quota, meter.ahead(now));
            }
        }
        self.give_back(&bill.meters);
    }

    /// Counts what a Channel relayed since it was counted last.
    pub(super) fn count(&mut self, channel: &mut Channel) {
        if let Some(live) = &mut channel.live {
            let usage = self.xdp.usage(&live.installed);
            self.charge(usage, &mut live.bill);
        }
    }

    /// Has every bucket hear of what userspace relayed, behind a round of [`count`](Self::count).
    pub(super) fn level_all(&mut self, now: Instant) {
        self.settled_at = now;
        for bucket in self.buckets.values() {
            self.xdp.level_quota(bucket.quota, bucket.meter.ahead(now));
        }
    }

    fn charge(&mut self, usage: Usage, bill: &mut Bill) {
        let since = |now: relay_xdp::Traffic, before: relay_xdp::Traffic| Traffic {
            packets: now.packets - before.packets,
            bytes: now.bytes - before.bytes,
        };
        let from_client = since(usage.to_peer, bill.charged.to_peer);
        let to_client = since(usage.to_client, bill.charged.to_client);
        bill.charged = usage;
        let mut both = from_client;
        both += to_client;
        if both == Traffic::default() {
            return;
        }
        self.offloaded.from_clients += from_client;
        self.offloaded.to_clients += to_client;
        bill.tally
            .count_to_peers(from_client.packets, from_client.bytes);
        bill.tally
            .count_to_clients(to_client.packets, to_client.bytes);
        for meter in bill.meters.iter().flatten() {
            meter.charge(self.settled_at, both);
        }
    }
}

/// The one address check; an own address is a live one's at most, and never on the network.
pub(super) fn leads_to_network(peers: &PeerPolicy, peer: SocketAddr) -> bool {
    peers.check(peer, |_| false) == Ok(Route::Network)
}

/// Until when a Channel is relayed each way: to the peer as long as Channel and Allocation live, to
/// the client as long as the Permission does, too (RFC 8656 §9, §12).
fn lifetimes(now: Instant, ends: Option<Instant>, channel: &Channel) -> Lifetimes {
    let to_peer = channel.expires.min(ends.unwrap_or(now));
    Lifetimes {
        to_peer,
        to_client: to_peer.min(channel.permitted_until),
    }
}

fn is_bounded(meter: &Meter) -> bool {
    meter.rates() != Rates::default()
}

fn quota_of(meter: &Meter) -> Quota {
    let rates = meter.rates();
    Quota {
        bits_per_second: rates.bits_per_second_max,
        packets_per_second: rates.packets_per_second_max,
    }
}

fn place(meter: &Arc<Meter>) -> usize {
    Arc::as_ptr(meter).addr()
}
