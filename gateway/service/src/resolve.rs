//! From the name of a host to addresses (RFC 3263 §4).

use std::net::SocketAddr;
use std::time::Duration;

use gateway_core::transaction::Transport;
use gateway_sip::{Host, SipUri};

/// The most addresses of one name that are used.
pub(crate) const ADDRESSES_MAX: usize = 8;

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

/// The addresses of a host, in the order they are to be tried; none when the name leads nowhere.
pub(crate) async fn resolve(hop: &Hop) -> Vec<SocketAddr> {
    let name = match &hop.host {
        Name::Ip(ip) => return vec![SocketAddr::new(*ip, hop.port())],
        Name::Name(name) => name,
    };
    let found = tokio::time::timeout(
        PATIENCE,
        tokio::net::lookup_host((name.as_str(), hop.port())),
    );
    match found.await {
        Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect(),
        Ok(Err(error)) => {
            tracing::debug!(host = name, %error, "Host not found");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!(host = name, "Nobody says where the host is");
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
