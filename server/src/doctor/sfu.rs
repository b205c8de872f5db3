//! The SFU: which address and ports people in Rooms have to reach.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::Patient;
use super::network::reachable;
use super::report::{Finding, Report};
use crate::addresses::{self, Reach};
use crate::config::Config;
use crate::sfu;

pub(super) fn check(report: &mut Report, patient: &Patient) {
    let config = &patient.config;
    let settings = match sfu::settings(config, &config.relay.public_ips) {
        Ok(settings) => settings,
        Err(error) => {
            report.add(Finding::note("rooms", format!("not checked: {error:#}")));
            return;
        }
    };

    let has_ipv6 = addresses::of_this_machine().is_ok_and(|all| all.iter().any(IpAddr::is_ipv6));
    let here = |ip: &&IpAddr| has_ipv6 || ip.is_ipv4();
    if settings.port != 0 && patient.from_file {
        for ip in settings.listen_ips.iter().filter(here) {
            report.add(holder(SocketAddr::new(*ip, settings.port)));
        }
    }
    report.add(reached(config, &settings, patient.is_public()));
}

/// Whether somebody has the port of the first thread.
fn holder(address: SocketAddr) -> Finding {
    match UdpSocket::bind(reachable(address)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Finding::good("rooms", format!("UDP {address} is served"))
        }
        Err(error) => Finding::bad(
            "rooms",
            format!("UDP {address} can't be listened on: {error}"),
            "name addresses of this machine in [sfu] `listen_ips`",
        ),
        Ok(_) => Finding::bad(
            "rooms",
            format!("UDP {address} is free: no SFU is running"),
            "start `offhook serve`",
        ),
    }
}

/// What clients are told, and whether it can be right.
fn reached(config: &Config, settings: &sfu_service::Config, is_public: bool) -> Finding {
    let told = match settings.public_ips.is_empty() {
        true => &settings.listen_ips,
        false => &settings.public_ips,
    };
    let list: Vec<_> = told.iter().map(ToString::to_string).collect();
    let ports = match (settings.port, settings.threads) {
        (0, _) => "any free UDP ports".to_owned(),
        (first, 1) => format!("UDP {first}"),
        (first, 0) => format!("UDP {first} and one more for each further core"),
        (first, threads) => format!("UDP {first} to {}", usize::from(first) + threads - 1),
    };
    let what = format!(
        "people in Rooms reach the SFU at {}, {ports}",
        list.join(" and ")
    );

    let reaches = told.iter().map(|ip| addresses::reach(*ip));
    let finds = !config.relay.find_public_ips_by.is_empty();
    match reaches.min_by_key(|reach| distance(*reach)) {
        Some(Reach::Internet) => Finding::good("rooms", what),
        _ if finds => Finding::note(
            "rooms",
            format!("{what}, or rather at the public address that the relay finds"),
        ),
        Some(Reach::Local) if is_public => Finding::bad(
            "rooms",
            format!("{what}: the internet can't reach that"),
            "set `public_ips` in [relay] or [sfu] to the address the internet sees, and pass those UDP ports on to this machine",
        ),
        _ if is_public => Finding::bad(
            "rooms",
            format!("{what}: nobody outside this machine can reach that"),
            "set `relay_ips` in [relay] or `listen_ips` in [sfu] to this machine's address, and `public_ips` to the one the internet sees",
        ),
        _ => Finding::note(
            "rooms",
            format!("{what}: good for those who can reach that"),
        ),
    }
}

/// Less is farther out.
const fn distance(reach: Reach) -> u8 {
    match reach {
        Reach::Internet => 0,
        Reach::Local => 1,
        Reach::Machine => 2,
        Reach::Nowhere => 3,
    }
}
