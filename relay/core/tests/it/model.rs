//! The core against a naive model of RFC 8656, step by step under simulated time.
//!
//! `RELAY_MODEL_SEEDS` sets how many seeds are run, `RELAY_MODEL_SEED` runs one alone.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use relay_core::{CHANNEL_LIFETIME, PERMISSION_LIFETIME, Transport};
use relay_stun::client::{AllocateOptions, Request};
use relay_stun::{AddressFamily, ErrorCode};

use crate::world::{OTHER_PEER, PEER, PEER_V6, Phone, World, peer_reads};

const STEPS: usize = 300;
const PERMISSIONS_MAX: usize = 3;
const CHANNELS_MAX: usize = 2;
const ALLOCATIONS_MAX: usize = 3;

/// How long a client is expected where it said it moves.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Peers nobody may reach.
const FORBIDDEN_PEER: &str = "10.0.0.1:5000";
const LOW_PORT_PEER: &str = "8.8.8.8:53";

/// What one client holds, kept in the simplest way.
#[derive(Debug, Clone)]
struct Held {
    /// By family.
    relayed: [Option<String>; 2],
    expires: Instant,
    permissions: Vec<(String, Instant)>,
    channels: Vec<(u16, String, Instant)>,
    /// What it moves with next.
    ticket: Option<Vec<u8>>,
}

#[test]
fn the_core_does_what_the_model_says() {
    for_each_seed(run);
}

/// Runs as many seeds as are asked for, and tells which one fails.
pub(crate) fn for_each_seed(run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(seed) = number("RELAY_MODEL_SEED") {
        return run(seed);
    }
    for seed in 0..number("RELAY_MODEL_SEEDS").unwrap_or(300) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("the model and the core differ: RELAY_MODEL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::seeded(seed, |config| {
        config.limits.permissions_per_allocation_max = PERMISSIONS_MAX;
        config.limits.channels_per_allocation_max = CHANNELS_MAX;
        config.limits.allocations_max = ALLOCATIONS_MAX;
    });
    let mut phones: Vec<Phone> = [
        Transport::Udp,
        Transport::Tcp,
        Transport::Udp,
        Transport::Tls,
    ]
    .into_iter()
    .zip(1000..)
    .map(|(transport, port)| world.phone(&format!("user{port}"), port, transport))
    .collect();
    let mut held: Vec<Option<Held>> = vec![None; phones.len()];
    // Where each client has announced that it moves, and until when it is expected there.
    let mut announced: Vec<Option<(Phone, Instant)>> = phones.iter().map(|_| None).collect();
    let mut addresses = 2000..;
    let mut relayed_once: Vec<String> = vec!["7.7.7.7:3478".to_owned()];
    let mut tickets: Vec<Vec<u8>> = Vec::new();

    for step in 0..STEPS {
        let at = rng.random_range(0..phones.len());
        let peer = match rng.random_range(0..9) {
            0..=1 => PEER.to_owned(),
            2 => OTHER_PEER.to_owned(),
            3 => FORBIDDEN_PEER.to_owned(),
            4 => LOW_PORT_PEER.to_owned(),
            5 => PEER_V6.to_owned(),
            _ => relayed_once[rng.random_range(0..relayed_once.len())].clone(),
        };
        let channel = 0x4000 + rng.random_range(0..3);
        let now = world.now;
        let live = held.iter().flatten().count();
        let live_relayed =
            |held: &[Option<Held>]| held.iter().flatten().any(|held| held.holds(&peer));
        let context = format!("seed {seed}, step {step}, client {at}, peer {peer}");

        if held[at].is_none() {
            announced[at] = None;
        } else if rng.random_range(0..4) == 0
            && let Some((there, _)) = announced[at].take()
        {
            let mut here = std::mem::replace(&mut phones[at], there);
            assert_eq!(world.refresh(&mut phones[at], 600), Ok(600), "{context}");
            held[at].as_mut().unwrap().expires = now + Duration::from_secs(600);
            let late = world.refresh(&mut here, 600);
            assert_eq!(late, Err(ErrorCode::ALLOCATION_MISMATCH), "{context}: late");
        }

        match rng.random_range(0..13) {
            0..=1 => {
                let expected = match &held[at] {
                    Some(_) => Err(ErrorCode::ALLOCATION_MISMATCH),
                    None if live >= ALLOCATIONS_MAX => Err(ErrorCode::INSUFFICIENT_CAPACITY),
                    None => Ok(()),
                };
                let (family, additional) = match rng.random_range(0..3) {
                    0 => (None, true),
                    1 => (Some(AddressFamily::V6), false),
                    _ => (None, false),
                };
                let options = AllocateOptions {
                    family,
                    additional,
                    mobile: rng.random(),
                    ..AllocateOptions::default()
                };
                phones[at].ticket = None;
                let got = world.allocate_with(&mut phones[at], options);
                assert_eq!(got, expected, "{context}: allocate");
                if expected.is_ok() {
                    tickets.extend(phones[at].ticket.clone());
                    let mut relayed = [None, None];
                    let addresses = [phones[at].relayed, phones[at].relayed_v6];
                    for address in addresses.into_iter().flatten() {
                        relayed[usize::from(address.is_ipv6())] = Some(address.to_string());
                        relayed_once.push(address.to_string());
                    }
                    let wanted = [family.is_none(), family.is_some() || additional];
                    let got = [relayed[0].is_some(), relayed[1].is_some()];
                    assert_eq!(got, wanted, "{context}: families");
                    held[at] = Some(Held {
                        relayed,
                        expires: now + Duration::from_secs(600),
                        permissions: Vec::new(),
                        channels: Vec::new(),
                        ticket: phones[at].ticket.clone(),
                    });
                }
            }
            2 if rng.random_range(0..4) == 0 => {
                let family = [AddressFamily::V4, AddressFamily::V6][rng.random_range(0..2)];
                let slot = usize::from(family == AddressFamily::V6);
                let request = Request::RefreshFamily {
                    family,
                    lifetime: 0,
                };
                let expected = match &held[at] {
                    None => Err(ErrorCode::ALLOCATION_MISMATCH),
                    Some(held) if held.relayed[slot].is_none() => {
                        Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)
                    }
                    Some(_) => Ok(Some(0)),
                };
                let got = world.ask(&mut phones[at], request);
                assert_eq!(got, expected, "{context}: end {family:?}");
                if expected.is_ok() {
                    held[at] = held[at].take().and_then(|held| held.without(slot));
                }
            }
            2 => {
                let asked = [0, 1, 600, 2000, 9999][rng.random_range(0..5)];
                let granted = if asked == 0 {
                    0
                } else {
                    asked.clamp(600, 3600)
                };
                let expected = held[at].as_ref().map(|_| granted);
                let got = world.refresh(&mut phones[at], asked);
                assert_eq!(
                    got,
                    expected.ok_or(ErrorCode::ALLOCATION_MISMATCH),
                    "{context}"
                );
                if granted == 0 {
                    held[at] = None;
                } else if let Some(held) = &mut held[at] {
                    held.expires = now + Duration::from_secs(granted.into());
                }
            }
            3..=4 => {
                let expected = match &mut held[at] {
                    None => Err(ErrorCode::ALLOCATION_MISMATCH),
                    Some(held) if held.toward(&peer).is_none() => {
                        Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)
                    }
                    Some(_) if peer == FORBIDDEN_PEER => Err(ErrorCode::FORBIDDEN),
                    Some(held) => held.permit(now, &peer),
                };
                assert_eq!(
                    world.permit(&mut phones[at], &peer),
                    expected,
                    "{context}: permit"
                );
            }
            5..=6 => {
                let reachable = is_public(&peer) || live_relayed(&held);
                let expected = match &mut held[at] {
                    None => Err(ErrorCode::ALLOCATION_MISMATCH),
                    Some(held) if held.toward(&peer).is_none() => {
                        Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)
                    }
                    Some(_) if !reachable => Err(ErrorCode::FORBIDDEN),
                    Some(held) => held.bind(now, channel, &peer),
                };
                assert_eq!(
                    world.bind(&mut phones[at], channel, &peer),
                    expected,
                    "{context}: bind"
                );
            }
            7..=9 => {
                let by_channel = rng.random();
                let to = match &held[at] {
                    None => None,
                    Some(held) if by_channel => held.peer_of(now, channel),
                    Some(held) => held.permits(now, &peer).then(|| peer.clone()),
                };
                let got = match by_channel {
                    true => world.send_channel(&phones[at], channel, "x"),
                    false => world.send(&mut phones[at], &peer, "x"),
                };
                let Some(to) = to else {
                    assert_eq!(got, None, "{context}: send");
                    continue;
                };
                let from = held[at].as_ref().and_then(|held| held.toward(&to));
                let from = from.expect("a Permission is of a family that is there");
                let other = held
                    .iter()
                    .position(|h| h.as_ref().is_some_and(|h| h.holds(&to)));
                match other {
                    Some(other) => {
                        let expected = held[other].as_ref().unwrap().reads(now, &from);
                        assert_eq!(phones[other].reads(got), expected, "{context}: hand-over");
                    }
                    None if is_public(&to) => {
                        let expected = Some(format!("{from} → {to} x"));
                        assert_eq!(peer_reads(got), expected, "{context}: send");
                    }
                    None => assert_eq!(got, None, "{context}: send to nobody"),
                }
            }
            10 => {
                // An address that was given back may be somebody else's by now.
                let Some(receiver) = held[at].as_ref().filter(|h| h.toward(&peer).is_some()) else {
                    continue;
                };
                let expected = match is_public(&peer) {
                    true => receiver.reads(now, &peer),
                    false => None,
                };
                let got = world.peer_sends(&peer, &phones[at], "x");
                let got = phones[at].reads(got);
                assert_eq!(got, expected, "{context}: receive");
            }
            11 => {
                // The newest ticket there is, or any that was ever seen.
                let newest = held[at].as_ref().and_then(|held| held.ticket.clone());
                let any = tickets.get(rng.random_range(0..=tickets.len())).cloned();
                let Some(ticket) = newest.clone().filter(|_| rng.random()).or(any) else {
                    continue;
                };
                let port = addresses.next().unwrap();
                let transport = Transport::ALL[rng.random_range(0..Transport::COUNT)];
                let mut there = world.phone(&format!("user{}", 1000 + at), port, transport);
                (there.relayed, there.relayed_v6) = (phones[at].relayed, phones[at].relayed_v6);
                let request = Request::Move {
                    ticket: ticket.clone(),
                    lifetime: 600,
                };
                let owner = |held: &Option<Held>| {
                    let held = held.as_ref()?;
                    (held.ticket.as_ref() == Some(&ticket)).then_some(())
                };
                let expected = match held.iter().position(|held| owner(held).is_some()) {
                    Some(owner) if owner == at => Ok(Some(600)),
                    Some(_) => Err(ErrorCode::WRONG_CREDENTIALS),
                    None => Err(ErrorCode::BAD_REQUEST),
                };
                let got = world.ask(&mut there, request);
                assert_eq!(got, expected, "{context}: move");
                if expected.is_ok() {
                    let held = held[at].as_mut().unwrap();
                    held.expires = now + Duration::from_secs(600);
                    held.ticket = there.ticket.clone();
                    tickets.extend(there.ticket.clone());
                    announced[at] = Some((there, now + ARRIVAL_TIMEOUT));
                }
            }
            _ => {
                let seconds = [1, 59, 60, 299, 300, 301, 599, 600][rng.random_range(0..8)];
                world.advance(Duration::from_secs(seconds));
                for held in &mut held {
                    held.take_if(|held| held.expires <= world.now);
                }
                for announced in &mut announced {
                    announced.take_if(|(_, until)| *until <= world.now);
                }
            }
        }

        let live = held.iter().flatten().count();
        assert_eq!(world.relay.stats().allocations, live, "{context}");
        let relayed = held.iter().flatten().flat_map(|held| &held.relayed);
        let open = relayed.flatten().count();
        assert_eq!(world.ports.iter().flatten().count(), open, "{context}");
        let ends = held.iter().flatten().map(|held| held.expires);
        let arrivals = held.iter().zip(&announced);
        let arrivals = arrivals.filter_map(|(held, announced)| {
            let (_, until) = announced.as_ref()?;
            held.is_some().then_some(*until)
        });
        let next = ends.chain(arrivals).min();
        assert_eq!(world.relay.poll_timeout(), next, "{context}");
        assert_eq!(world.sent, vec![], "{context}: nothing is sent unasked");
    }
}

/// Peers everybody may reach.
fn is_public(peer: &str) -> bool {
    [PEER, OTHER_PEER, PEER_V6].contains(&peer)
}

impl Held {
    fn holds(&self, address: &str) -> bool {
        self.relayed.iter().flatten().any(|held| held == address)
    }

    /// The relayed address that reaches `peer`.
    fn toward(&self, peer: &str) -> Option<String> {
        self.relayed[usize::from(peer.starts_with('['))].clone()
    }

    /// What is left when one family has ended.
    fn without(mut self, slot: usize) -> Option<Held> {
        self.relayed[slot] = None;
        let gone = |peer: &str| usize::from(peer.starts_with('[')) == slot;
        self.permissions.retain(|(ip, _)| !gone(ip));
        self.channels.retain(|(_, peer, _)| !gone(peer));
        self.relayed.iter().any(Option::is_some).then_some(self)
    }

    fn permits(&self, now: Instant, peer: &str) -> bool {
        self.permissions
            .iter()
            .any(|(ip, expires)| ip == ip_of(peer) && now < *expires)
    }

    fn permit(&mut self, now: Instant, peer: &str) -> Result<(), ErrorCode> {
        self.permissions.retain(|(_, expires)| now < *expires);
        let ip = ip_of(peer);
        if self.permissions.iter().all(|(held, _)| held != ip)
            && self.permissions.len() == PERMISSIONS_MAX
        {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        self.permissions.retain(|(held, _)| held != ip);
        self.permissions
            .push((ip.to_owned(), now + PERMISSION_LIFETIME));
        Ok(())
    }

    fn bind(&mut self, now: Instant, channel: u16, peer: &str) -> Result<(), ErrorCode> {
        self.channels.retain(|(_, _, expires)| now < *expires);
        let same =
            |(number, bound, _): &(u16, String, Instant)| *number == channel && bound == peer;
        let clash =
            |(number, bound, _): &(u16, String, Instant)| (*number == channel) != (bound == peer);
        if self.channels.iter().any(clash) {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if !self.channels.iter().any(same) && self.channels.len() == CHANNELS_MAX {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        self.permit(now, peer)?;
        self.channels.retain(|channel| !same(channel));
        self.channels
            .push((channel, peer.to_owned(), now + CHANNEL_LIFETIME));
        Ok(())
    }

    fn peer_of(&self, now: Instant, channel: u16) -> Option<String> {
        let found = self
            .channels
            .iter()
            .find(|(held, _, end)| *held == channel && now < *end);
        found.map(|(_, peer, _)| peer.clone())
    }

    /// What this client reads when `peer` sends "x".
    fn reads(&self, now: Instant, peer: &str) -> Option<String> {
        if !self.permits(now, peer) {
            return None;
        }
        let found = self
            .channels
            .iter()
            .find(|(_, held, end)| held == peer && now < *end);
        Some(match found {
            Some((channel, ..)) => format!("{channel:#x} x"),
            None => format!("{peer} x"),
        })
    }
}

fn ip_of(peer: &str) -> &str {
    peer.rsplit_once(':').unwrap().0
}
