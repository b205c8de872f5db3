//! From the name of a host to addresses (RFC 3263 §4).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateway_core::transaction::Transport;
use gateway_sip::{Host, SipUri};

use crate::dns::{self, Service, system_servers};

/// The most addresses of one name that are used.
pub(crate) const ADDRESSES_MAX: usize = 8;

/// The most places of one host that are used.
const PLACES_MAX: usize = 16;

/// The most names that are known at once.
const CACHE_MAX: usize = 1_024;

/// How long what is found holds: within these bounds what its records say, and that much where they say nothing.
const TTL_MIN: Duration = Duration::from_secs(10);
const TTL_MAX: Duration = Duration::from_secs(3_600);
const TTL_UNTOLD: Duration = Duration::from_secs(60);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody to be found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hop {
    pub(crate) transport: Transport,
    pub(crate) host: Name,
    pub(crate) port: Option<u16>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// That is to be looked up.
    Name(String),
    /// That is known.
    Ip(std::net::IpAddr),
}

impl Hop {
    /// Where a URI leads (RFC 3263 §4.1): by the transport it names, by TLS where it is secure, else by UDP.
    pub(crate) fn of(uri: &SipUri) -> Option<Self> {
        let transport = match uri.transport().as_deref() {
            _ if uri.secure => Transport::Tls,
            None | Some("udp") => Transport::Udp,
            Some("tcp") => Transport::Tcp,
            Some("tls") => Transport::Tls,
            Some(_) => return None,
        };
        // `maddr` would let whoever wrote the URI choose where our requests go; nobody needs it.
        let host = match &uri.host {
            Host::Name(name) => Name::Name(name.clone()),
            Host::Ip(ip) => Name::Ip(*ip),
        };
        Some(Self {
            transport,
            host,
            port: uri.port,
        })
    }

    /// The port where none is told (RFC 3261 §19.1.2).
    pub(crate) fn port(&self) -> u16 {
        let standard = match self.transport {
            Transport::Udp | Transport::Tcp => 5_060,
            Transport::Tls => 5_061,
        };
        self.port.unwrap_or(standard)
    }

    /// The address, where nothing has to be looked up.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self.host {
            Name::Ip(ip) => Some(SocketAddr::new(ip, self.port())),
            Name::Name(_) => None,
        }
    }
}

/// Where a host is, one of its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    /// The lowest is tried first.
    pub(crate) priority: u16,
    /// How much of what comes to its priority it takes.
    pub(crate) weight: u16,
}

/// Where a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// By their priority, then by their weight; none when the name leads nowhere.
    pub(crate) places: Vec<Place>,
    /// How long that holds.
    pub(crate) ttl: Duration,
}

impl Found {
    /// At this address, and no other.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self::all(0, 0, [address], TTL_MAX)
    }

    fn all(
        priority: u16,
        weight: u16,
        addresses: impl IntoIterator<Item = SocketAddr>,
        ttl: Duration,
    ) -> Self {
        let place = |address| Place {
            address,
            priority,
            weight,
        };
        Self {
            places: addresses.into_iter().map(place).collect(),
            ttl,
        }
    }
}

/// Finds hosts: by SRV where neither a port nor an address is told, else by the system (RFC 3263 §4.2). The transport is the one that is
/// told.
#[derive(Debug)]
pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
    /// What name servers said, and until when it holds.
    cache: Mutex<BTreeMap<String, (Instant, Vec<Service>)>>,
}

impl Resolver {
    /// Asks these name servers; those of the system, where there are none.
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        Self {
            servers: match servers {
                [] => system_servers(),
                servers => servers.to_vec(),
            },
            cache: Mutex::default(),
        }
    }

    /// The places of a host.
    pub(crate) async fn find(&self, hop: &Hop) -> Found {
        let name = match &hop.host {
            Name::Ip(ip) => return Found::at(SocketAddr::new(*ip, hop.port())),
            Name::Name(name) => name,
        };
        // A name without a dot is one of this network, or of this machine.
        let services = match hop.port {
            None if name.contains('.') => self.services(hop.transport, name).await,
            _ => Vec::new(),
        };
        if services.is_empty() {
            let addresses = look_up(name, hop.port()).await;
            return Found::all(0, 0, addresses, TTL_UNTOLD);
        }
        let mut found = Found {
            places: Vec::new(),
            ttl: TTL_MAX,
        };
        for service in &services {
            found.ttl = found.ttl.min(service.ttl).max(TTL_MIN);
            // A dot alone says that there is no such service (RFC 2782).
            if service.host.is_empty() || found.places.len() >= PLACES_MAX {
                continue;
            }
            let addresses = look_up(&service.host, service.port).await;
            let (priority, weight) = (service.priority, service.weight);
            let places = Found::all(priority, weight, addresses, service.ttl).places;
            found.places.extend(places);
        }
        found.places.truncate(PLACES_MAX);
        found
    }

    /// The SRV records of a name, by their priority, then by their weight.
    async fn services(&self, transport: Transport, name: &str) -> Vec<Service> {
        let asked = match transport {
            Transport::Udp => format!("_sip._udp.{name}"),
            Transport::Tcp => format!("_sip._tcp.{name}"),
            Transport::Tls => format!("_sips._tcp.{name}"),
        };
        let now = Instant::now();
        {
            let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((until, services)) = cache.get(&asked)
                && now < *until
            {
                return services.clone();
            }
        }
        let mut services = match dns::services(&self.servers, &asked).await {
            Ok(services) => services,
            Err(error) => {
                tracing::debug!(host = name, %error, "No SRV found");
                return Vec::new();
            }
        };
        services.sort_by_key(|service| (service.priority, Reverse(service.weight)));
        let ttl = services.iter().map(|service| service.ttl).min();
        let ttl = ttl.unwrap_or(TTL_UNTOLD).clamp(TTL_MIN, TTL_MAX);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_MAX {
            cache.retain(|_, (until, _)| now < *until);
        }
        if cache.len() < CACHE_MAX {
            cache.insert(asked, (now + ttl, services.clone()));
        }
        services
    }
}

/// The addresses of a host by the system, in the order they are to be tried; none when the name leads nowhere.
async fn look_up(host: &str, port: u16) -> Vec<SocketAddr> {
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port)));
    match found.await {
        Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect(),
        Ok(Err(error)) => {
            tracing::debug!(host, %error, "Host not found");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!(host, "Nobody says where the host is");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_sip::Uri;

    use super::*;

    fn hop(uri: &str) -> Option<String> {
        let uri = Uri::parse(uri).unwrap();
        let hop = Hop::of(uri.sip().unwrap())?;
        let address = hop.address().map(|address| address.to_string());
        Some(format!(
            "{} {}",
            hop.transport.as_str(),
            address.unwrap_or_else(|| format!("? port {}", hop.port()))
        ))
    }

    #[test]
    fn a_uri_says_by_what_and_where() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(hop("sip:192.0.2.1"), some("UDP 192.0.2.1:5060"));
        assert_eq!(
            hop("sip:192.0.2.1:5080;transport=TCP"),
            some("TCP 192.0.2.1:5080")
        );
        assert_eq!(
            hop("sip:192.0.2.1;transport=tls"),
            some("TLS 192.0.2.1:5061")
        );
        assert_eq!(hop("sips:[2001:db8::1]"), some("TLS [2001:db8::1]:5061"));
        assert_eq!(hop("sip:a.example"), some("UDP ? port 5060"));
        assert_eq!(hop("sip:a.example;transport=ws"), None);
        assert_eq!(
            hop("sip:192.0.2.1;maddr=198.51.100.1"),
            some("UDP 192.0.2.1:5060")
        );
    }
}
