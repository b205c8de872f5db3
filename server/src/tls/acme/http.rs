//! HTTPS to an authority: one connection for each request, since an order takes a dozen of them in months.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// The longest answer, in bytes: a chain of certificates has a few thousand.
const ANSWER_LEN_MAX: usize = 256 * 1024;

type Body = BodyWrapper<axum::body::Bytes>;

/// Speaks to whom this machine trusts.
#[derive(Debug, Clone)]
pub(super) struct Client {
    tls: Arc<ClientConfig>,
}

impl Client {
    /// Trusts the authorities of this machine and those in `also`, a PEM file.
    pub(super) fn new(also: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = tls::authorities();
        if let Some(path) = also {
            roots.add_parsable_certificates(tls::read_chain(path)?);
        }
        if roots.is_empty() {
            bail!("this machine trusts no authority: install ca-certificates");
        }
        Ok(Self {
            tls: Arc::new(tls::client_config(roots)?),
        })
    }

    async fn exchange(&self, request: Request<Body>) -> anyhow::Result<BytesResponse> {
        let (mut parts, body) = request.into_parts();
        // RFC 8555 §6.1: nothing of ACME goes without TLS.
        if parts.uri.scheme_str() != Some("https") {
            bail!("{} is no https address", parts.uri);
        }
        let authority = parts.uri.authority().context("an address without a host")?;
        let (host, port) = (authority.host(), authority.port_u16().unwrap_or(443));
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((name, port))
            .await
            .with_context(|| format!("can't reach {authority}"))?;
        let server = ServerName::try_from(name.to_owned())?;
        let connector = TlsConnector::from(self.tls.clone());
        let stream = connector
            .connect(server, stream)
            .await
            .with_context(|| format!("TLS with {authority}"))?;

        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "Connection to the authority ended");
            }
        };
        parts
            .headers
            .insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = path.parse::<Uri>()?;
        let request = sender.send_request(Request::from_parts(parts, body));
        let answer = async {
            let (parts, body) = request.await?.into_parts();
            let body = Limited::new(body, ANSWER_LEN_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        };
        // The connection's own work goes on beside it, and ends with it.
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            () = &mut connection => answer.await,
        }
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<Body>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let answer = tokio::time::timeout(REQUEST_MAX, client.exchange(request)).await;
            let answer = answer.unwrap_or_else(|_| bail!("no answer in time"));
            answer.map_err(|error| Error::Other(format!("{error:#}").into()))
        })
    }
}
