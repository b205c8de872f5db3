//! The way a request came (RFC 3261 §20.42, RFC 3581).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::text;
use crate::{DecodeError, Host, Params};

/// How a branch begins that is unique for its transaction (RFC 3261 §8.1.1.7).
pub const BRANCH_COOKIE: &str = "z9hG4bK";

/// One value of a Via header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// The transport in upper case: `UDP`, `TCP`, `TLS` or any other.
    pub transport: String,
    /// The host its sender gave.
    pub host: Host,
    /// The port its sender gave.
    pub port: Option<u16>,
    /// The parameters.
    pub params: Params,
}

impl Via {
    /// Reads one value.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Malformed`] for what is against the grammar.
    pub fn parse(value: &str) -> Result<Self, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::malformed("Via");
        let (head, params) = match value.split_once(';') {
            Some((head, params)) => (head, Params::parse_header(params, "Via")?),
            None => (value, Params::new()),
        };
        let mut parts = head.splitn(3, '/').map(text::trim);
        let mut next = || parts.next().ok_or(MALFORMED);
        let (name, version, rest) = (next()?, next()?, next()?);
        let (transport, sent_by) = rest.split_once([' ', '\t']).ok_or(MALFORMED)?;
        if !name.eq_ignore_ascii_case("SIP") || version != "2.0" || !text::is_token(transport) {
            return Err(MALFORMED);
        }
        let (host, port) = Host::parse_with_port(text::trim(sent_by)).ok_or(MALFORMED)?;
        let via = Self {
            transport: transport.to_ascii_uppercase(),
            host,
            port,
            params,
        };
        let is_good = via
            .params
            .get("ttl")
            .is_none_or(|ttl| text::decimal(ttl, 255).is_some())
            && via
                .params
                .get("rport")
                .is_none_or(|port| text::decimal(port, 65_535).is_some())
            && via
                .params
                .get("received")
                .is_none_or(|text| parse_received(text).is_some())
            && via
                .params
                .get("maddr")
                .is_none_or(|text| Host::parse(text).is_some());
        is_good.then_some(via).ok_or(MALFORMED)
    }

    /// The branch, without which a request is of before RFC 3261.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch")
    }

    /// Whether the branch says that it is unique for its transaction: the cookie and something behind it.
    #[must_use]
    pub fn has_unique_branch(&self) -> bool {
        let unique = self
            .branch()
            .and_then(|branch| branch.get(BRANCH_COOKIE.len()..));
        // The cookie is compared in any case (RFC 3261 §7.3.1: parameters are).
        let cookie = self
            .branch()
            .and_then(|branch| branch.get(..BRANCH_COOKIE.len()));
        cookie.is_some_and(|cookie| cookie.eq_ignore_ascii_case(BRANCH_COOKIE))
            && unique.is_some_and(|unique| !unique.is_empty())
    }

    /// Where the one who added `received` saw the request come from.
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        parse_received(self.params.get("received")?)
    }

    /// Notes where a request came from, as RFC 3261 §18.2.1 and RFC 3581 §4 have it. `received` and `rport` that the
    /// sender wrote itself are not believed.
    pub fn note_source(&mut self, source: SocketAddr) {
        let ip = source.ip().to_canonical();
        let asked = self.params.has("rport");
        if asked {
            self.params.set("rport", Some(&source.port().to_string()));
        }
        if asked || self.host.ip() != Some(ip) {
            // Without the brackets, as most write it; readers are told to take both (RFC 5118 §4.5).
            self.params.set("received", Some(&ip.to_string()));
        } else {
            self.params.remove("received");
        }
    }

    /// The port to answer to over UDP: that of `rport`, the sender's, or 5060 (RFC 3581 §4, RFC 3261 §18.2.2).
    #[must_use]
    pub fn response_port(&self) -> u16 {
        let rport = self.params.get("rport").and_then(|port| port.parse().ok());
        rport.or(self.port).unwrap_or(5060)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        self.params.fmt(f)
    }
}

/// An address, an IPv6 one with or without brackets.
fn parse_received(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| Host::parse(text)?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(text: &str) -> Via {
        Via::parse(text).expect("the test has a Via")
    }

    #[test]
    fn vias_are_read_with_blanks_anywhere() {
        let value = "SIP  / 2.0  / tcp     spindle.example.com   ;  branch  =   z9hG4bK9ikj8";
        assert_eq!(
            via(value).to_string(),
            "SIP/2.0/TCP spindle.example.com;branch=z9hG4bK9ikj8"
        );
        assert!(via(value).has_unique_branch());
        assert!(!via("SIP/2.0/UDP h;branch=z9hG4bK").has_unique_branch());
        assert!(!via("SIP/2.0/UDP h;branch=390skdjuw").has_unique_branch());
        for wrong in [
            "",
            "SIP/2.0/UDP",
            "SIP/3.0/UDP h",
            "HTTP/2.0/UDP h",
            "SIP/2.0/U P h",
            "SIP/2.0/UDP h;;",
            "SIP/2.0/UDP h;ttl=256",
            "SIP/2.0/UDP h;rport=70000",
            "SIP/2.0/UDP h;received=name",
            "SIP/2.0/UDP 2001:db8::9",
        ] {
            assert!(Via::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_source_is_noted_where_it_differs_or_is_asked_for() {
        let noted = |text: &str, source: &str| {
            let mut via = via(text);
            via.note_source(source.parse().expect("an address"));
            (via.params.to_string(), via.response_port())
        };
        let same = noted("SIP/2.0/UDP 192.0.2.1;received=10.0.0.1", "192.0.2.1:5070");
        assert_eq!(same, (String::new(), 5060));
        let other = noted("SIP/2.0/UDP 192.0.2.1:5062", "198.51.100.7:1234");
        assert_eq!(other, (";received=198.51.100.7".into(), 5062));
        let asked = noted("SIP/2.0/UDP 192.0.2.1;rport", "192.0.2.1:1234");
        assert_eq!(asked, (";rport=1234;received=192.0.2.1".into(), 1234));
        let lied = noted(
            "SIP/2.0/UDP h;rport=9;received=10.0.0.1",
            "[2001:db8::9]:77",
        );
        assert_eq!(lied, (";rport=77;received=2001:db8::9".into(), 77));
    }

    #[test]
    fn received_is_read_with_brackets_and_without() {
        let expected = "2001:db8::9:255".parse().ok();
        assert_eq!(
            via("SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255]").received(),
            expected
        );
        assert_eq!(
            via("SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255").received(),
            expected
        );
    }
}
