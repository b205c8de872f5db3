//! The ports: who holds them, and whether the server answers there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Patient;
use super::report::{Finding, Report};
use crate::addresses;
use crate::listener;

/// How long a server on this machine may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The largest answer read, in bytes: figures are the longest.
const ANSWER_LEN_MAX: u64 = 256 * 1024;

/// Who holds a TCP port.
enum Holder {
    Offhook {
        ready: bool,
    },
    Another,
    Nobody,
    /// Nobody may, or can.
    Refused(io::Error),
}

pub(super) async fn check(report: &mut Report, patient: &Patient) {
    let has_ipv6 = addresses::of_this_machine().is_ok_and(|all| all.iter().any(IpAddr::is_ipv6));
    let mut asked_figures = false;
    for address in &patient.config.listen {
        if address.is_ipv6() && !has_ipv6 {
            report.add(Finding::note(
                "port",
                format!("TCP {address}: this machine has no IPv6"),
            ));
            continue;
        }
        let holder = holder(*address).await;
        let is_offhook = matches!(holder, Holder::Offhook { .. });
        report.add(describe(*address, holder));
        if is_offhook && !asked_figures {
            asked_figures = true;
            report.add(records(patient.config.metrics.listen.unwrap_or(*address)).await);
        }
    }
}

/// Whether the server can write, by its own account.
async fn records(address: SocketAddr) -> Finding {
    match figures(address).await {
        Some(figures) if figures.contains("\nrecords_failing 1\n") => Finding::bad(
            "records",
            "the server can't write its records: history is being lost",
            "make room on the disk of the data directory, or make it writable; the server's log tells the reason",
        ),
        Some(figures) if figures.contains("\nrecords_failing 0\n") => {
            Finding::good("records", "the server writes its records")
        }
        _ => Finding::note(
            "records",
            format!("not checked: the server shows no figures on {address} to this machine"),
        ),
    }
}

/// The running server's figures, where it shows them to this machine.
pub(super) async fn figures(address: SocketAddr) -> Option<String> {
    timeout(ANSWER_MAX, ask(reachable(address), "/metrics"))
        .await
        .ok()?
        .ok()
}

fn describe(address: SocketAddr, holder: Holder) -> Finding {
    match holder {
        Holder::Offhook { ready: true } => Finding::good(
            "port",
            format!("TCP {address}: offhook answers and is ready"),
        ),
        Holder::Offhook { ready: false } => Finding::bad(
            "port",
            format!("TCP {address}: offhook answers, but is not ready for Sessions"),
            "it is starting or ending; if it stays so, read its log",
        ),
        Holder::Another => Finding::bad(
            "port",
            format!("TCP {address} is held by another program"),
            format!(
                "stop that program (`ss -ltnp 'sport = :{}'` names it), or change `listen`",
                address.port()
            ),
        ),
        Holder::Nobody => Finding::bad(
            "port",
            format!("TCP {address} is free: the server is not running"),
            "start `offhook serve`",
        ),
        Holder::Refused(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::bad(
            "port",
            format!("TCP {address}: this user may not listen there"),
            "give the process CAP_NET_BIND_SERVICE, as deploy/offhook.service does, or choose a port from 1024 on",
        ),
        Holder::Refused(error) => Finding::bad(
            "port",
            format!("TCP {address} can't be listened on: {error}"),
            "name an address of this machine in `listen`",
        ),
    }
}

async fn holder(address: SocketAddr) -> Holder {
    match timeout(ANSWER_MAX, ask(reachable(address), "/readyz")).await {
        Ok(Ok(answer)) if answer.ends_with("not ready\n") => Holder::Offhook { ready: false },
        Ok(Ok(answer)) if answer.ends_with("ready\n") => Holder::Offhook { ready: true },
        Ok(Ok(_)) | Err(_) => Holder::Another,
        Ok(Err(_)) => match listener::try_bind(address) {
            Ok(_) => Holder::Nobody,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Holder::Another,
            Err(error) => Holder::Refused(error),
        },
    }
}

/// Over plain HTTP, which `/readyz` and `/metrics` are served on even where everything else is redirected.
async fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LEN_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Where to connect to reach what listens at `address` from this machine.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
