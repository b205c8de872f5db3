//! The phone gateway: whether its ports are served, which address providers and phones are told, and whether Trunks can be called.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use super::Patient;
use super::network::reachable;
use super::report::{Finding, Report};
use super::site::get_at_most;
use crate::addresses::{self, Reach};
use crate::config::PublicUrl;

/// The most that is read of the server's figures, in bytes.
const FIGURES_LEN_MAX: u64 = 4 * 1024 * 1024;

pub(super) async fn check(report: &mut Report, patient: &Patient) {
    let settings = &patient.config.gateway;
    for address in &settings.listen_udp {
        let free = UdpSocket::bind(address).map(drop);
        report.add(holder("UDP", *address, free));
    }
    let streams = [("TCP", &settings.listen_tcp), ("TLS", &settings.listen_tls)];
    for (transport, list) in streams {
        for address in list {
            let free = TcpListener::bind(address).map(drop);
            report.add(holder(transport, *address, free));
        }
    }
    if !settings.listen_tls.is_empty() && !patient.speaks_tls() {
        report.add(Finding::bad(
            "phones",
            "`listen_tls` needs a certificate, and there is none",
            "set `certificate_file` and `key_file` in [tls], or [tls.acme]",
        ));
    }
    for told in told(settings) {
        report.add(reached(told, settings.public_ips.is_empty()));
    }
    report.add(trunks(patient).await);
}

/// Whether somebody has the port; `free` is what binding it came to.
fn holder(transport: &str, address: SocketAddr, free: io::Result<()>) -> Finding {
    match free {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Finding::good("phones", format!("{transport} {address} is served"))
        }
        Err(error) => Finding::bad(
            "phones",
            format!("{transport} {address} can't be listened on: {error}"),
            "name addresses of this machine in [gateway]",
        ),
        Ok(()) => Finding::bad(
            "phones",
            format!("{transport} {address} is free: no gateway is running"),
            "start `offhook serve`; [gateway] takes a restart",
        ),
    }
}

/// The addresses others are told, each once; a phone on this machine is told the one it uses.
fn told(settings: &gateway_service::Config) -> Vec<IpAddr> {
    let mut told = Vec::new();
    for (_, address) in settings.listen() {
        let local = address.ip();
        let outside = settings.public_ips.iter();
        let ip = outside
            .copied()
            .find(|ip| ip.is_ipv4() == local.is_ipv4())
            .unwrap_or(local);
        if !local.is_loopback() && !told.contains(&ip) {
            told.push(ip);
        }
    }
    told
}

fn reached(told: IpAddr, is_own: bool) -> Finding {
    let what = format!("providers and phones are told that SIP and sound are at {told}");
    match addresses::reach(told) {
        Reach::Internet => Finding::good("phones", what),
        Reach::Local if is_own => Finding::note(
            "phones",
            format!(
                "{what}: right where they are on that network; for others set `public_ips` in [gateway] to the address the internet \
                 sees, and pass its SIP ports and UDP of `rtp_port_min` to `rtp_port_max` on to this machine"
            ),
        ),
        _ => Finding::bad(
            "phones",
            format!("{what}: nobody else can reach that"),
            "set `public_ips` in [gateway] to the address they reach this machine at",
        ),
    }
}

/// Whether Trunks answer and are registered, as the running server counts them.
async fn trunks(patient: &Patient) -> Finding {
    let Some(url) = figures_at(patient) else {
        return Finding::note(
            "trunks",
            "set `listen` in [metrics], and I'll ask the server whether Trunks are registered",
        );
    };
    let answer = match get_at_most(patient, &url, "/metrics", FIGURES_LEN_MAX).await {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => {
            let what = format!(
                "not checked: {}/metrics answers {}",
                url.as_str(),
                answer.status
            );
            return Finding::note("trunks", what);
        }
        Err(error) => {
            let what = format!("not checked: {}/metrics: {error:#}", url.as_str());
            return Finding::note("trunks", what);
        }
    };
    let all = figure(&answer.body, "offhook_gateway_trunks");
    let up = figure(&answer.body, "offhook_gateway_trunks_up");
    match (all, up) {
        (Some(0), _) => Finding::note(
            "trunks",
            "there is none: nobody outside can be called; `offhook apply` makes Trunks (docs/telephony.md)",
        ),
        (Some(all), Some(up)) if all == up => Finding::good(
            "trunks",
            format!("{up} of {all} answer, and are registered where that is wanted"),
        ),
        (Some(all), Some(up)) => Finding::bad(
            "trunks",
            format!("{up} of {all} can be called"),
            "the server's log names each Trunk that does not answer or is not registered, and why",
        ),
        _ => Finding::note("trunks", "not checked: the server has no such figures"),
    }
}

/// Where the server's figures are: at a port of their own, or on the shared port where that speaks plain HTTP on this machine.
fn figures_at(patient: &Patient) -> Option<PublicUrl> {
    let config = &patient.config;
    let shared = || config.listen.first().filter(|_| !patient.speaks_tls());
    let address = reachable(*config.metrics.listen.as_ref().or_else(shared)?);
    PublicUrl::new(&format!("http://{address}")).ok()
}

/// A figure without labels, in what Prometheus reads.
fn figure(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| {
        let (found, value) = line.split_once(' ')?;
        (found == name).then(|| value.trim().parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let text = "# TYPE offhook_gateway_trunks gauge\n\
                    offhook_gateway_trunks_up 1\n\
                    offhook_gateway_trunks 2\n\
                    offhook_gateway_silent_total{cause=\"flood\"} 3\n";
        assert_eq!(figure(text, "offhook_gateway_trunks"), Some(2));
        assert_eq!(figure(text, "offhook_gateway_trunks_up"), Some(1));
        assert_eq!(figure(text, "offhook_gateway_silent_total"), None);
    }

    #[test]
    fn others_are_told_the_public_address_once() {
        let settings = |public: &[&str]| gateway_service::Config {
            listen_udp: vec![
                "10.0.0.5:5060".parse().unwrap(),
                "127.0.0.1:5060".parse().unwrap(),
            ],
            listen_tls: vec!["10.0.0.5:5061".parse().unwrap()],
            public_ips: public.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..gateway_service::Config::default()
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(told(&settings(&[])), [ip("10.0.0.5")]);
        assert_eq!(told(&settings(&["203.0.113.7"])), [ip("203.0.113.7")]);
        assert_eq!(told(&settings(&["2001:db8::1"])), [ip("10.0.0.5")]);
    }
}
