//! Where we are: the sockets we listen on, as others are told them.

use std::net::{IpAddr, SocketAddr};

use gateway_core::transaction::Transport;
use gateway_sip::{Host, NameAddr, SipUri};

/// One address we listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Door {
    /// By what.
    pub(crate) transport: Transport,
    /// The address here.
    pub(crate) local: SocketAddr,
    /// The address as others see it.
    pub(crate) public: SocketAddr,
    /// For UDP, the number of the socket.
    pub(crate) socket: u64,
}

/// All of them, at least one.
#[derive(Debug, Clone)]
pub(crate) struct Doors(pub(crate) Vec<Door>);

impl Doors {
    /// The door toward `remote` for this transport: of its family, and a loopback one for loopback alone.
    pub(crate) fn toward(&self, transport: Transport, remote: IpAddr) -> Option<&Door> {
        let fits = |door: &&Door| {
            door.transport == transport && door.local.is_ipv4() == remote.to_canonical().is_ipv4()
        };
        let mut fitting = self.0.iter().filter(fits);
        let same_reach = |door: &&Door| door.local.ip().is_loopback() == remote.is_loopback();
        fitting.clone().find(same_reach).or_else(|| fitting.next())
    }

    /// Where somebody who is spoken with by `transport` reaches us: by the same, or else by whatever we listen on in their family.
    pub(crate) fn reached_by(&self, transport: Transport, remote: IpAddr) -> Option<&Door> {
        let others = [Transport::Udp, Transport::Tcp, Transport::Tls];
        self.toward(transport, remote).or_else(|| {
            others
                .into_iter()
                .find_map(|other| self.toward(other, remote))
        })
    }

    /// Whether this is one of our own addresses, here or as others see it: a request that goes there would come back.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        self.0
            .iter()
            .any(|door| door.local == address || door.public == address)
    }
}

impl Door {
    /// The Contact for those who use this door.
    pub(crate) fn contact(&self, user: Option<&str>) -> NameAddr {
        let mut uri = SipUri::new(user, Host::Ip(self.public.ip()), Some(self.public.port()));
        if self.transport != Transport::Udp {
            let transport = self.transport.as_str().to_ascii_lowercase();
            uri.params.set("transport", Some(&transport));
        }
        NameAddr::new(uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(transport: Transport, local: &str, public: &str, socket: u64) -> Door {
        Door {
            transport,
            local: local.parse().unwrap(),
            public: public.parse().unwrap(),
            socket,
        }
    }

    #[test]
    fn the_door_is_of_the_family_and_the_transport() {
        let doors = Doors(vec![
            door(Transport::Udp, "127.0.0.1:5060", "127.0.0.1:5060", 0),
            door(Transport::Udp, "10.0.0.1:5060", "203.0.113.7:5060", 1),
            door(
                Transport::Udp,
                "[2001:db8::1]:5060",
                "[2001:db8::1]:5060",
                2,
            ),
            door(Transport::Tls, "10.0.0.1:5061", "203.0.113.7:5061", 0),
        ]);
        let toward = |transport, remote: &str| {
            let door = doors.toward(transport, remote.parse().unwrap());
            door.map(|door| door.public.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            toward(Transport::Udp, "198.51.100.1"),
            some("203.0.113.7:5060")
        );
        assert_eq!(toward(Transport::Udp, "127.0.0.9"), some("127.0.0.1:5060"));
        assert_eq!(
            toward(Transport::Udp, "2001:db8::9"),
            some("[2001:db8::1]:5060")
        );
        assert_eq!(toward(Transport::Tcp, "198.51.100.1"), None);
        let by = doors.reached_by(Transport::Tcp, "198.51.100.1".parse().unwrap());
        assert_eq!(by.map(|door| door.transport), Some(Transport::Udp));
        assert!(doors.is_own("203.0.113.7:5061".parse().unwrap()));
        assert!(!doors.is_own("203.0.113.7:5062".parse().unwrap()));
    }

    #[test]
    fn a_contact_names_the_transport() {
        let tls = door(Transport::Tls, "10.0.0.1:5061", "203.0.113.7:5061", 0);
        assert_eq!(
            tls.contact(Some("+4930")).to_string(),
            "<sip:+4930@203.0.113.7:5061;transport=tls>"
        );
        let udp = door(Transport::Udp, "10.0.0.1:5060", "203.0.113.7:5060", 0);
        assert_eq!(udp.contact(None).to_string(), "<sip:203.0.113.7:5060>");
    }
}
