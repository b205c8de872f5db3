//! The site as a browser reaches it: name, TLS, HTTP and a WebSocket, through whatever proxy stands in front.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::{self, Message};

use super::Patient;
use super::network::reachable;
use super::report::{Finding, Report};
use crate::addresses::{self, Reach};
use crate::config::{CertificateSource, Network, PublicUrl, Role};

/// How long the site may take for anything.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How far two clocks may be apart, in seconds, before tokens and TURN credentials begin to fail.
const CLOCK_SKEW_MAX: i64 = 30;

/// The largest answer read, in bytes.
const ANSWER_LEN_MAX: u64 = 64 * 1024;

/// The id of a Device that does not exist.
const NOBODY: &str = "00000000000000000000000000";

/// A stream to the site.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) async fn check(report: &mut Report, patient: &Patient) {
    let Some(url) = site(patient) else {
        report.add(Finding::note(
            "site",
            "set `public_url`, or give --url, and I'll look at the site as a browser does",
        ));
        return;
    };
    if let Some(public) = &patient.url {
        report.add(name(public, patient).await);
    }
    match get(patient, &url, "/healthz").await {
        Ok(answer) if answer.status == 200 && answer.body == "ok\n" => {
            report.add(Finding::good("site", format!("{} answers", url.as_str())));
            clock(report, &answer);
        }
        Ok(answer) => report.add(Finding::bad(
            "site",
            format!(
                "{} answers {}, but not as offhook does",
                url.as_str(),
                answer.status
            ),
            "something else is in front: point the proxy, or the name, at this server",
        )),
        Err(error) => {
            report.add(Finding::bad(
                "site",
                format!("{}: {error:#}", url.as_str()),
                advice(&error),
            ));
            return;
        }
    }
    if patient.config.roles.contains(&Role::Signaling) {
        report.add(websocket(patient, &url).await);
    }
    exposure(report, patient, &url).await;
}

/// What people type, or else this server by its own address.
fn site(patient: &Patient) -> Option<PublicUrl> {
    if let Some(url) = &patient.url {
        return Some(url.clone());
    }
    if patient.config.tls.source() != CertificateSource::None {
        return None; // Nobody said for which name.
    }
    let address = reachable(*patient.config.listen.first()?);
    PublicUrl::new(&format!("http://{address}")).ok()
}

async fn name(url: &PublicUrl, patient: &Patient) -> Finding {
    let host = url.host();
    let found: Vec<IpAddr> = match timeout(ANSWER_MAX, lookup_host((host, url.port()))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(error)) => {
            return Finding::bad(
                "name",
                format!("{host} leads nowhere: {error}"),
                "make an A (and AAAA) record for it, or correct `public_url`",
            );
        }
        Err(_) => {
            return Finding::bad(
                "name",
                format!("nobody says where {host} is"),
                "check this machine's DNS resolver",
            );
        }
    };
    let list = found
        .iter()
        .map(IpAddr::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let here = addresses::of_this_machine().unwrap_or_default();
    let is_here = found
        .iter()
        .any(|ip| here.contains(ip) || patient.config.relay.public_ips.contains(ip));
    if is_here {
        Finding::good("name", format!("{host} is {list}, which is this machine"))
    } else {
        Finding::note(
            "name",
            format!(
                "{host} is {list}, no address of this machine: a proxy, a balancer or a NAT has to pass it on"
            ),
        )
    }
}

fn clock(report: &mut Report, answer: &Answer) {
    let Some(theirs) = answer
        .headers
        .get("date")
        .and_then(|date| rfc2822::parse(date).ok())
    else {
        return;
    };
    let skew = theirs.timestamp().as_second() - Timestamp::now().as_second();
    report.add(if skew.abs() <= CLOCK_SKEW_MAX {
        Finding::good("clock", "this machine and the site agree")
    } else {
        Finding::bad(
            "clock",
            format!(
                "this machine is {} s {} the site",
                skew.abs(),
                if skew > 0 { "behind" } else { "ahead of" }
            ),
            "set both clocks (`timedatectl set-ntp true`): tokens and TURN credentials carry times",
        )
    });
}

/// Opens calls.v1 with a token that can't be right: the refusal shows that frames pass in both directions, and leaves no trace.
async fn websocket(patient: &Patient, url: &PublicUrl) -> Finding {
    match timeout(ANSWER_MAX, refused_hello(patient, url)).await {
        Ok(Ok(code)) if code == "unauthorized" || code == "token_expired" => {
            Finding::good("websocket", "calls.v1 passes, both ways")
        }
        Ok(Ok(code)) if code == "origin_refused" => Finding::bad(
            "websocket",
            format!("a page of {} may not open calls.v1", url.as_str()),
            "let the proxy pass on the Host header (nginx: `proxy_set_header Host $host`), or list the origin in `allowed_origins`",
        ),
        Ok(Ok(code)) => Finding::bad(
            "websocket",
            format!("answers `{code}`"),
            "read the server's log",
        ),
        Ok(Err(error)) => Finding::bad(
            "websocket",
            format!("does not open: {error:#}"),
            "let the proxy pass on Upgrade and Connection, as deploy/nginx.conf does",
        ),
        Err(_) => Finding::bad(
            "websocket",
            "opens, but no frame comes back",
            "switch buffering off in the proxy (nginx: `proxy_buffering off`) and look at its time limits",
        ),
    }
}

async fn refused_hello(patient: &Patient, url: &PublicUrl) -> anyhow::Result<String> {
    let scheme = if url.is_secure() { "wss" } else { "ws" };
    let mut request = format!("{scheme}://{}/v1/calls", url.authority()).into_client_request()?;
    request.headers_mut().insert(
        "sec-websocket-protocol",
        HeaderValue::from_static("calls.v1"),
    );
    request
        .headers_mut()
        .insert("origin", HeaderValue::from_str(url.as_str())?);
    let stream = connect(patient, url).await?;
    let (mut socket, _) = match tokio_tungstenite::client_async(request, stream).await {
        Ok(opened) => opened,
        Err(tungstenite::Error::Http(answer)) if answer.status() == StatusCode::FORBIDDEN => {
            return Ok("origin_refused".to_owned());
        }
        Err(error) => return Err(error.into()),
    };
    let hello = json!({
        "type": "hello",
        "id": NOBODY,
        "data": { "token": "none", "device": { "id": NOBODY, "name": "offhook doctor", "key": format!("BA{}", "A".repeat(85)) } },
    });
    socket.send(Message::text(hello.to_string())).await?;
    loop {
        match socket
            .next()
            .await
            .context("it was closed without a word")??
        {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text)?;
                return Ok(frame["data"]["code"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned());
            }
            Message::Close(Some(close)) => return Ok(format!("close {}", close.code)),
            _ => {}
        }
    }
}

/// What must not be seen from outside, and what a proxy in front makes necessary.
async fn exposure(report: &mut Report, patient: &Patient, url: &PublicUrl) {
    let is_public = url.host().parse().map_or(url.host() != "localhost", |ip| {
        addresses::reach(ip) != Reach::Machine
    });
    if !is_public {
        return;
    }
    if get(patient, url, "/metrics")
        .await
        .is_ok_and(|answer| answer.status == 200)
    {
        report.add(Finding::bad(
            "metrics",
            format!("{}/metrics shows your figures to everybody", url.as_str()),
            "let the proxy send X-Forwarded-For, or refuse /metrics there",
        ));
    }
    if patient
        .config
        .trusted_proxies
        .iter()
        .any(Network::is_everybody)
    {
        report.add(Finding::note(
            "proxies",
            "`trusted_proxies` believes everybody: whoever reaches this server without its proxy can claim any address",
        ));
    }
    if url.is_secure() && !patient.speaks_tls() && patient.config.trusted_proxies.is_empty() {
        report.add(Finding::bad(
            "proxies",
            "a proxy speaks TLS for this server, and `trusted_proxies` is empty: everybody seems to come from the proxy",
            "name the proxy's address in `trusted_proxies`",
        ));
    }
}

/// An HTTP answer.
pub(super) struct Answer {
    pub(super) status: u16,
    /// By name in lower case.
    headers: HashMap<String, String>,
    pub(super) body: String,
}

async fn get(patient: &Patient, url: &PublicUrl, path: &str) -> anyhow::Result<Answer> {
    get_at_most(patient, url, path, ANSWER_LEN_MAX).await
}

/// The answer to a GET, cut off after `len_max` bytes.
pub(super) async fn get_at_most(
    patient: &Patient,
    url: &PublicUrl,
    path: &str,
    len_max: u64,
) -> anyhow::Result<Answer> {
    let exchange = async {
        let mut stream = connect(patient, url).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: offhook-doctor\r\nConnection: close\r\n\r\n",
            url.authority()
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // A TLS peer that just hangs up has said all it wanted to.
        if let Err(error) = stream.take(len_max).read_to_end(&mut answer).await
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            return Err(error.into());
        }
        parse(&String::from_utf8_lossy(&answer))
    };
    timeout(ANSWER_MAX, exchange)
        .await
        .context("no answer in time")?
}

fn parse(text: &str) -> anyhow::Result<Answer> {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("no HTTP answer")
    };
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .context("no HTTP status")?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Answer {
        status,
        headers,
        body: body.to_owned(),
    })
}

/// Connects as a browser would: by name, with TLS where the URL says so.
async fn connect(patient: &Patient, url: &PublicUrl) -> anyhow::Result<Box<dyn Stream>> {
    let server = (url.host(), url.port());
    if url.is_secure() {
        Ok(Box::new(open_tls(patient, server, url.host()).await?))
    } else {
        Ok(Box::new(TcpStream::connect(server).await?))
    }
}

/// Connects to `server` and speaks TLS to it, if its certificate is for `name`.
pub(super) async fn open_tls(
    patient: &Patient,
    server: impl ToSocketAddrs,
    name: &str,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(server).await?;
    let name = ServerName::try_from(name.to_owned())?;
    let connector = TlsConnector::from(patient.tls.clone());
    Ok(connector.connect(name, tcp).await?)
}

/// What to do about a site that can't be reached.
fn advice(error: &anyhow::Error) -> &'static str {
    let Some(error) = error.downcast_ref::<io::Error>() else {
        return "look at the firewall and the proxy between here and there";
    };
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)), _) => {
            "the chain is incomplete (use `fullchain.pem`) or of an authority that browsers don't know"
        }
        (Some(rustls::Error::InvalidCertificate(_)), _) => {
            "give the site a certificate for this name that is good today"
        }
        (Some(_), _) => {
            "something there speaks TLS badly, or not at all: look at [tls] and at the proxy"
        }
        (None, io::ErrorKind::ConnectionRefused) => {
            "nobody listens there: start the server or the proxy, or correct `public_url`"
        }
        _ => "open the port in the firewall, and pass it on where a NAT stands in front",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer =
            parse("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nok\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
        assert_eq!(
            rfc2822::parse(&answer.headers["date"])
                .unwrap()
                .timestamp()
                .as_second(),
            784_111_777
        );
        for text in ["", "HTTP/1.1", "nonsense\r\n\r\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
