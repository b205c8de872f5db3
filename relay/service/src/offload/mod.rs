//! Channels of UDP clients in the network driver: what the core tells the [`Path`](relay_core::Path)s
//! is told to [`relay_xdp`] as well, and what was relayed there is counted.
//!
//! ```text
//! Relay ── PathUpdate ──┬──▶ Path of the client's thread
//!                       └──▶ Offload ── Channels, ends, quotas ──▶ driver
//!                               ▲            counts ◀───────────────┘
//!                               └─ settle, once a second
//! ```
//!
//! All of it happens on the control thread, never for a packet. A Channel is installed when it is
//! bound, for as long as Channel, Permission and Allocation live, and only towards a peer that the
//! one address check lets out to the network. It is taken away when it expires, when its Allocation
//! ends or moves, and when its peer is denied; whatever is not here userspace relays.
//!
//! A rate is kept in both places: each [`Meter`] that bounds a Channel here has a bucket in the
//! driver, which all its Channels share. Once a second the meter is charged for what the driver
//! relayed, and the bucket hears of what userspace did, so what somebody sends both ways at once is
//! more than their due for a second at most, and is paid for in the next.

mod driver;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use relay_core::{Budget, FiveTuple, PathUpdate, PeerPolicy, RelayPort, Tally};
use relay_xdp::Cause;

pub(crate) use self::driver::Offloaded;
use self::driver::{Driver, Live, leads_to_network};

/// What of the core a decision here needs.
pub(crate) struct View<'a> {
    pub(crate) now: Instant,
    pub(crate) peers: &'a PeerPolicy,
    /// When an Allocation ends; `None` where it has ended.
    pub(crate) expires: &'a dyn Fn(usize) -> Option<Instant>,
}

/// What a [`View`] shows of the Relay.
pub(crate) fn view<T>(
    now: Instant,
    relay: &relay_core::Relay,
    look: impl FnOnce(&View<'_>) -> T,
) -> T {
    look(&View {
        now,
        peers: relay.peers(),
        expires: &|allocation| relay.expires(allocation),
    })
}

/// The Channels of all Allocations that have a Path, some of them in the driver.
pub(crate) struct Offload {
    driver: Driver,
    /// By [`PathUpdate::allocation`].
    allocations: Vec<Option<Box<Held>>>,
}

/// One Allocation.
struct Held {
    five_tuple: FiveTuple,
    /// The relayed ports, IPv4 first, then IPv6.
    ports: [Option<RelayPort>; 2],
    budget: Budget,
    tally: Tally,
    channels: Vec<Channel>,
}

struct Channel {
    number: u16,
    peer: SocketAddr,
    expires: Instant,
    /// When the Permission of its peer ends.
    permitted_until: Instant,
    live: Option<Live>,
}

impl Offload {
    /// Loads the program and attaches it.
    pub(crate) fn start(
        settings: relay_xdp::Settings,
        bind: [Option<IpAddr>; 2],
        now: Instant,
    ) -> Result<Offload, relay_xdp::StartError> {
        Ok(Offload {
            driver: Driver::start(settings, bind, now)?,
            allocations: Vec::new(),
        })
    }

    /// Takes what the core told a Path.
    pub(crate) fn update(&mut self, view: &View<'_>, update: &PathUpdate) {
        let allocation = update.allocation();
        match update {
            PathUpdate::Open {
                five_tuple,
                port,
                budget,
                tally,
                ..
            } => self.open(*five_tuple, *port, budget, tally),
            PathUpdate::Permit { ip, expires, .. } => {
                let Some(held) = held(&mut self.allocations, allocation) else {
                    return;
                };
                let ends = (view.expires)(allocation);
                for channel in &mut held.channels {
                    if channel.peer.ip() == *ip {
                        channel.permitted_until = *expires;
                        self.driver.refresh(view.now, ends, channel);
                    }
                }
            }
            PathUpdate::Bind {
                number,
                peer,
                expires,
                ..
            } => self.bind(view, allocation, *number, *peer, *expires),
            PathUpdate::Charge { budget, .. } => {
                let Some(held) = held(&mut self.allocations, allocation) else {
                    return;
                };
                self.driver.remove_all(view.now, &mut held.channels);
                held.budget = budget.clone();
                self.driver.install_all(view, allocation, held);
            }
            // What comes from there is for the core to judge until the client has moved.
            PathUpdate::Announce { .. } | PathUpdate::Retract { .. } => {}
        }
    }

    /// A client that moves has its ports closed first.
    fn open(&mut self, five_tuple: FiveTuple, port: RelayPort, budget: &Budget, tally: &Tally) {
        let allocation = port.allocation();
        if self.allocations.len() <= allocation {
            self.allocations.resize_with(allocation + 1, || None);
        }
        let held = self.allocations[allocation].get_or_insert_with(|| {
            Box::new(Held {
                five_tuple,
                ports: [None; 2],
                budget: budget.clone(),
                tally: tally.clone(),
                channels: Vec::new(),
            })
        });
        held.ports[family(port.address)] = Some(port);
    }

    fn bind(
        &mut self,
        view: &View<'_>,
        allocation: usize,
        number: u16,
        peer: SocketAddr,
        expires: Instant,
    ) {
        let Some(held) = held(&mut self.allocations, allocation) else {
            return;
        };
        // What the core lets be bound anew has expired, though nobody may have looked since.
        held.channels.retain_mut(|channel| {
            let is_other = (channel.number == number) != (channel.peer == peer);
            if is_other {
                self.driver.remove(view.now, channel);
            }
            !is_other
        });
        let known = held
            .channels
            .iter()
            .position(|channel| channel.number == number);
        let at = known.unwrap_or_else(|| {
            held.channels.push(Channel {
                number,
                peer,
                expires,
                // The core permits the peer right behind.
                permitted_until: view.now,
                live: None,
            });
            held.channels.len() - 1
        });
        held.channels[at].expires = expires;
        if held.channels[at].live.is_some() {
            let ends = (view.expires)(allocation);
            self.driver.refresh(view.now, ends, &held.channels[at]);
        } else {
            self.driver.install(view, allocation, held, at);
        }
    }

    /// Forgets a relayed port, with all that leads through it.
    pub(crate) fn close_port(&mut self, now: Instant, port: RelayPort) {
        let Some(held) = held(&mut self.allocations, port.allocation()) else {
            return;
        };
        let closed = family(port.address);
        held.ports[closed] = None;
        held.channels.retain_mut(|channel| {
            let leads_there = family(channel.peer) == closed;
            if leads_there {
                self.driver.remove(now, channel);
            }
            !leads_there
        });
        if held.ports == [None; 2] {
            self.allocations[port.allocation()] = None;
        }
    }

    /// Takes away what leads to peers that are denied now.
    pub(crate) fn check_peers(&mut self, view: &View<'_>) {
        for held in self.allocations.iter_mut().flatten() {
            for channel in &mut held.channels {
                if !leads_to_network(view.peers, channel.peer) {
                    self.driver.remove(view.now, channel);
                }
            }
        }
    }

    /// Counts what was relayed, takes away what has expired and moves the ends that moved; to be
    /// called once a second.
    pub(crate) fn settle(&mut self, view: &View<'_>) {
        for (allocation, held) in self.allocations.iter_mut().enumerate() {
            let Some(held) = held else { continue };
            let ends = (view.expires)(allocation);
            held.channels.retain_mut(|channel| {
                if channel.expires <= view.now {
                    self.driver.remove(view.now, channel);
                    return false;
                }
                self.driver.count(channel);
                self.driver.refresh(view.now, ends, channel);
                true
            });
        }
        self.driver.level_all(view.now);
    }

    /// What was relayed in the driver, as far as it is settled.
    pub(crate) fn offloaded(&self) -> Offloaded {
        self.driver.offloaded
    }

    /// How many Channels are in the driver.
    pub(crate) fn channels(&self) -> usize {
        self.driver.xdp.channels()
    }

    /// How often the program met each cause.
    pub(crate) fn causes(&self) -> io::Result<[u64; Cause::COUNT]> {
        self.driver.xdp.causes()
    }

    /// How many Channels were left to userspace, by cause.
    pub(crate) fn left(&self) -> &HashMap<&'static str, u64> {
        &self.driver.left
    }
}

fn held(allocations: &mut [Option<Box<Held>>], allocation: usize) -> Option<&mut Held> {
    allocations.get_mut(allocation)?.as_deref_mut()
}

/// 0 for IPv4, 1 for IPv6.
fn family(address: SocketAddr) -> usize {
    usize::from(address.is_ipv6())
}
