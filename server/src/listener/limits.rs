//! How many connections may be open: in total, per address, and before anybody knows what they want.
//!
//! A [`Place`] is taken when a connection is accepted and given back when its stream is dropped; a [`Newcomer`] is held until
//! the stream is classified (and its TLS handshake done), so that half-open sockets compete only with one another. What comes
//! through a trusted balancer counts as the client's as soon as the balancer has named it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections in total.
    pub connections_max: usize,
    /// Connections of one address (one /64 for IPv6).
    pub per_address_max: usize,
    /// Connections in total that have not yet shown what they are.
    pub newcomers_max: usize,
    /// Connections of one address that have not yet shown what they are.
    pub newcomers_per_address_max: usize,
}

/// Counts connections against [`Limits`].
#[derive(Debug)]
pub struct Counter {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    limits: Limits,
    total: usize,
    newcomers: usize,
    by_address: HashMap<IpAddr, PerAddress>,
}

#[derive(Debug, Default)]
struct PerAddress {
    total: usize,
    newcomers: usize,
}

/// One connection's place; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    counter: Arc<Counter>,
    /// `None` for a trusted proxy that named nobody: its many connections belong to many people.
    address: Option<IpAddr>,
}

/// One connection that is not yet classified; dropping it ends that state.
#[derive(Debug)]
pub struct Newcomer {
    counter: Arc<Counter>,
    address: Option<IpAddr>,
}

impl Counter {
    /// Starts at zero.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::new(Counts {
                limits,
                total: 0,
                newcomers: 0,
                by_address: HashMap::new(),
            }),
        })
    }

    /// Holds whoever comes from now on to other limits; who is there stays.
    pub fn set_limits(&self, limits: Limits) {
        self.lock().limits = limits;
    }

    /// Takes a place for a connection from `ip`, or says which limit it would break.
    ///
    /// `proxy` is true for a trusted proxy: it is not held to the limits per address.
    pub fn admit(
        self: &Arc<Self>,
        ip: IpAddr,
        proxy: bool,
    ) -> Result<(Place, Newcomer), &'static str> {
        let address = (!proxy).then(|| bucket(ip));
        let mut counts = self.lock();
        if counts.total >= counts.limits.connections_max {
            return Err("connections_max");
        }
        if counts.newcomers >= counts.limits.newcomers_max {
            return Err("newcomers_max");
        }
        if let Some(address) = address {
            counts.admit(address)?;
        }
        counts.total += 1;
        counts.newcomers += 1;
        drop(counts);
        Ok((
            Place {
                counter: self.clone(),
                address,
            },
            Newcomer {
                counter: self.clone(),
                address,
            },
        ))
    }

    /// Counts a connection, which its trusted proxy said is from `ip`, as one of that address; or says which limit it would
    /// break.
    pub fn name(
        &self,
        place: &mut Place,
        newcomer: &mut Newcomer,
        ip: IpAddr,
    ) -> Result<(), &'static str> {
        let address = bucket(ip);
        if place.address.is_none() && newcomer.address.is_none() {
            self.lock().admit(address)?;
            (place.address, newcomer.address) = (Some(address), Some(address));
        }
        Ok(())
    }

    /// How many connections are open.
    pub fn total(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        // The counts stay right even if a holder panicked: every change below is a single step.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn admit(&mut self, address: IpAddr) -> Result<(), &'static str> {
        let (total, newcomers) = self
            .by_address
            .get(&address)
            .map_or((0, 0), |held| (held.total, held.newcomers));
        if total >= self.limits.per_address_max {
            return Err("connections_per_address_max");
        }
        if newcomers >= self.limits.newcomers_per_address_max {
            return Err("newcomers_per_address_max");
        }
        let of_address = self.by_address.entry(address).or_default();
        of_address.total += 1;
        of_address.newcomers += 1;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counter.lock();
        counts.total -= 1;
        let Some(address) = self.address else { return };
        if let Some(of_address) = counts.by_address.get_mut(&address) {
            of_address.total -= 1;
            if of_address.total == 0 && of_address.newcomers == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let mut counts = self.counter.lock();
        counts.newcomers -= 1;
        let Some(address) = self.address else { return };
        if let Some(of_address) = counts.by_address.get_mut(&address) {
            of_address.newcomers -= 1;
            if of_address.total == 0 && of_address.newcomers == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

/// Whom an address is counted as: one subscriber of IPv6 usually has a whole /64.
fn bucket(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter() -> Arc<Counter> {
        Counter::new(Limits {
            connections_max: 4,
            per_address_max: 3,
            newcomers_max: 3,
            newcomers_per_address_max: 2,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_can_not_crowd_out_the_others() {
        let counter = counter();
        let (first, newcomer) = counter.admit(ip("192.0.2.1"), false).unwrap();
        let second = counter.admit(ip("192.0.2.1"), false).unwrap();
        assert_eq!(
            counter.admit(ip("192.0.2.1"), false).unwrap_err(),
            "newcomers_per_address_max"
        );

        drop(newcomer);
        let third = counter.admit(ip("192.0.2.1"), false).unwrap();
        assert_eq!(
            counter.admit(ip("192.0.2.1"), false).unwrap_err(),
            "connections_per_address_max"
        );
        assert!(counter.admit(ip("192.0.2.2"), false).is_ok());

        drop((first, second, third));
        assert_eq!(counter.total(), 0);
        assert!(
            counter.lock().by_address.is_empty(),
            "nothing is kept for an address without connections"
        );
    }

    #[test]
    fn other_limits_hold_for_whoever_comes_next() {
        let counter = counter();
        let held = counter.admit(ip("192.0.2.1"), false).unwrap();
        let limits = |connections_max| Limits {
            connections_max,
            per_address_max: 9,
            newcomers_max: 9,
            newcomers_per_address_max: 9,
        };
        counter.set_limits(limits(1));
        assert_eq!(
            counter.admit(ip("192.0.2.2"), false).unwrap_err(),
            "connections_max"
        );
        counter.set_limits(limits(2));
        assert!(counter.admit(ip("192.0.2.2"), false).is_ok());
        drop(held);
        assert_eq!(counter.total(), 0);
    }

    #[test]
    fn a_refused_address_leaves_no_trace() {
        let counter = Counter::new(Limits {
            connections_max: 9,
            per_address_max: 0,
            newcomers_max: 9,
            newcomers_per_address_max: 9,
        });
        assert!(counter.admit(ip("192.0.2.1"), false).is_err());
        assert!(counter.lock().by_address.is_empty());
    }

    #[test]
    fn one_slash_64_is_one_address_and_mapped_ipv4_is_ipv4() {
        assert_eq!(bucket(ip("2001:db8::1")), bucket(ip("2001:db8::ffff:1")));
        assert_ne!(bucket(ip("2001:db8::1")), bucket(ip("2001:db8:0:1::1")));
        assert_eq!(bucket(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn a_proxy_is_held_to_the_totals_only() {
        let counter = counter();
        let places: Vec<_> = (0..3)
            .map(|_| counter.admit(ip("10.0.0.1"), true).unwrap())
            .collect();
        assert_eq!(
            counter.admit(ip("10.0.0.1"), true).unwrap_err(),
            "newcomers_max"
        );
        drop(places);
    }

    #[test]
    fn whom_a_proxy_names_is_held_to_the_limits_of_an_address() {
        let counter = counter();
        let named = |ip: &str| {
            let (mut place, mut newcomer) = counter.admit("10.0.0.1".parse().unwrap(), true)?;
            let ip = ip.parse().unwrap();
            let named = counter.name(&mut place, &mut newcomer, ip);
            named.map(|()| (place, newcomer))
        };
        let held = (named("192.0.2.1").unwrap(), named("192.0.2.1").unwrap());
        assert_eq!(named("192.0.2.1").unwrap_err(), "newcomers_per_address_max");
        assert!(named("192.0.2.2").is_ok());

        drop(held);
        assert_eq!(counter.total(), 0);
        assert!(counter.lock().by_address.is_empty());
    }
}
