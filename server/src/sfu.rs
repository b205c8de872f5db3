//! Starts the SFU of Rooms, where the relay's addresses tell how it is reached unless something else is written.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use signaling_service::{Media, Service};
use sockets::handover;
use tokio::sync::mpsc;

use crate::addresses;
use crate::config::{Config, PublicUrl};
use crate::plan;

/// How many commands, and how much news, may wait between signaling and the SFU.
const CHANNEL_LEN: usize = 1_024;

/// Starts the SFU with these settings and gives it to `signaling`. Clients are told of `tcp_addresses`, too.
///
/// Fails when its settings don't fit together, or a port can't be bound.
pub(crate) async fn start(
    settings: &sfu_service::Config,
    tcp_addresses: Vec<SocketAddr>,
    signaling: &Service,
) -> anyhow::Result<sfu_service::Handle> {
    let (commands, to_sfu) = mpsc::channel(CHANNEL_LEN);
    let (to_signaling, events) = mpsc::channel(CHANNEL_LEN);
    let channels = sfu_service::Start {
        commands: to_sfu,
        events: to_signaling,
    };
    let handle = sfu_service::Sfu::start(settings, channels).context("[sfu]")?;
    handle.set_tcp_addresses(tcp_addresses);
    signaling.connect_media(Media { commands, events }).await;
    Ok(handle)
}

/// Lets clients of the relay reach the SFU's ports, as they are told them, and has the two hand datagrams over in memory.
pub(crate) async fn connect_relay(sfu: &sfu_service::Handle, relay: &relay_service::Handle) {
    let (of_relay, of_sfu) = handover::connect(relay.wakers(), &sfu.wakers());
    sfu.connect_relay(of_sfu, &relay.owner_of());
    relay.connect_media(of_relay, sfu.media_ports()).await;
}

/// The settings that hold: what `[sfu]` does not say about addresses is as for the relay. `public_ips` are the relay's, as they
/// were written or found.
///
/// Fails when this machine's addresses can't be listed.
pub fn settings(config: &Config, public_ips: &[IpAddr]) -> anyhow::Result<sfu_service::Config> {
    let mut settings = config.sfu.clone();
    let (own, relays) = (Config::default().sfu, Config::default().relay);
    let says_nothing = settings.listen_ips == own.listen_ips && settings.public_ips.is_empty();

    if says_nothing && config.relay.relay_ips != relays.relay_ips {
        settings.listen_ips = real(&config.relay.relay_ips)?;
        let is_served = |public: &&IpAddr| {
            let mut listen = settings.listen_ips.iter();
            listen.any(|ip| ip.is_ipv4() == public.is_ipv4())
        };
        settings.public_ips = public_ips.iter().filter(is_served).copied().collect();
    }
    Ok(settings)
}

/// Where clients that can't send UDP reach the SFU: the shared port, at the SFU's addresses. `shared` are its addresses in use, and
/// `tls` is whether this process speaks TLS itself: where it does not, a proxy that does passes nothing but HTTP on.
pub(crate) fn tcp_addresses(
    config: &Config,
    settings: &sfu_service::Config,
    shared: &[SocketAddr],
    tls: bool,
) -> Vec<SocketAddr> {
    let site = config.public_url.as_ref();
    if site.is_some_and(|url| url.is_secure() && !tls) {
        return Vec::new();
    }

    let is_mapped = !settings.public_ips.is_empty();
    let told = match is_mapped {
        true => &settings.public_ips,
        false => &settings.listen_ips,
    };
    let port_at = |ip: &IpAddr| {
        let serves = |address: &&SocketAddr| {
            let here = address.ip();
            let is_outside = is_mapped && !here.is_loopback();
            here.is_ipv4() == ip.is_ipv4() && (here == *ip || here.is_unspecified() || is_outside)
        };
        let address = shared.iter().find(serves)?;
        Some(site.map_or(address.port(), PublicUrl::port))
    };
    let addresses = told
        .iter()
        .filter_map(|ip| Some(SocketAddr::new(*ip, port_at(ip)?)));
    addresses.collect()
}

/// The same addresses with a real one for each wildcard: media leaves from the address it came to.
fn real(ips: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    if !ips.iter().any(IpAddr::is_unspecified) {
        return Ok(ips.to_vec());
    }

    let here = plan::relay_ips(&addresses::of_this_machine()?)?;
    let of_wildcard = |ip: &IpAddr| {
        let found = here.iter().find(|real| real.is_ipv4() == ip.is_ipv4());
        if ip.is_unspecified() {
            found.copied()
        } else {
            Some(*ip)
        }
    };
    Ok(ips.iter().filter_map(of_wildcard).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Config), listen: &[&str], public: &[&str]) {
        let mut config = Config::default();
        change(&mut config);
        let settings = settings(&config, &config.relay.public_ips.clone()).unwrap();
        let ips = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(settings.listen_ips, ips(listen));
        assert_eq!(settings.public_ips, ips(public));
        settings.validate().unwrap();
    }

    #[test]
    fn the_sfu_is_where_the_relay_is_unless_told() {
        check(|_| {}, &["127.0.0.1", "::1"], &[]);
        check(
            |config| {
                config.relay.relay_ips = vec!["10.0.0.5".parse().unwrap()];
                config.relay.public_ips = vec!["203.0.113.7".parse().unwrap()];
            },
            &["10.0.0.5"],
            &["203.0.113.7"],
        );
        check(
            |config| {
                config.relay.relay_ips = vec!["10.0.0.5".parse().unwrap()];
                config.relay.public_ips = vec!["203.0.113.7".parse().unwrap()];
                config.sfu.listen_ips = vec!["10.0.0.6".parse().unwrap()];
            },
            &["10.0.0.6"],
            &[],
        );
    }

    #[test]
    fn clients_on_tcp_are_told_the_shared_port_where_it_takes_them() {
        let tcp = |url: Option<&str>, tls: bool, public: &[&str], shared: &[&str]| {
            let config = Config {
                public_url: url.map(|url| PublicUrl::new(url).unwrap()),
                ..Config::default()
            };
            let settings = sfu_service::Config {
                listen_ips: vec!["10.0.0.5".parse().unwrap()],
                public_ips: public.iter().map(|ip| ip.parse().unwrap()).collect(),
                ..sfu_service::Config::default()
            };
            let shared: Vec<_> = shared.iter().map(|one| one.parse().unwrap()).collect();
            let told = tcp_addresses(&config, &settings, &shared, tls);
            let told: Vec<_> = told.iter().map(ToString::to_string).collect();
            told.join(" ")
        };
        let site = Some("https://a.example");

        assert_eq!(tcp(None, false, &[], &["0.0.0.0:8080"]), "10.0.0.5:8080");
        assert_eq!(tcp(None, false, &[], &["127.0.0.1:8080"]), "");
        assert_eq!(tcp(None, false, &[], &["[::]:8080"]), "");
        assert_eq!(
            tcp(site, true, &["203.0.113.7"], &["10.0.0.5:8443"]),
            "203.0.113.7:443"
        );
        assert_eq!(tcp(site, false, &["203.0.113.7"], &["10.0.0.5:8080"]), "");
        assert_eq!(tcp(site, true, &["203.0.113.7"], &["127.0.0.1:8080"]), "");
    }

    #[test]
    fn a_wildcard_becomes_an_address_of_this_machine() {
        let real = real(&["0.0.0.0".parse().unwrap(), "10.0.0.5".parse().unwrap()]).unwrap();
        assert!(real.iter().all(|ip| !ip.is_unspecified()));
        assert_eq!(real.last(), Some(&"10.0.0.5".parse().unwrap()));
    }
}
