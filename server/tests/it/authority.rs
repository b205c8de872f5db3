//! A stand-in for an ACME authority (RFC 8555): as strict as a real one about nonces, addresses and signatures, and it checks
//! challenges by asking the server under test. It listens on loopback, with TLS, and gives out certificates of its own.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// id-pe-acmeIdentifier (RFC 8737 §6.1).
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

/// What a test decides.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Where the domains lead.
    pub(crate) server: SocketAddr,
    /// Which challenges are offered.
    pub(crate) challenges: Vec<&'static str>,
    /// From how many days ago to in how many days a certificate is good.
    pub(crate) days: (i64, i64),
    /// No order gets anywhere.
    pub(crate) is_down: bool,
    /// Certificates are made, and nobody gets them.
    pub(crate) is_slow: bool,
    /// Certificates are to be renewed at once.
    pub(crate) renew_now: bool,
}

/// The authority, for as long as its runtime lives. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    address: SocketAddr,
    /// Its own certificate, in PEM: of its directory and of what it gives out.
    root: String,
    issuer: Issuer<'static, KeyPair>,
    rules: Mutex<Rules>,
    state: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    numbers: u64,
    nonces: HashSet<String>,
    /// Each account's key, as `(x, y)` in base64url.
    accounts: HashMap<String, (String, String)>,
    orders: Vec<Order>,
}

struct Order {
    domains: Vec<String>,
    /// By the place of the domain.
    authorizations: Vec<Authorization>,
    certificate: Option<String>,
    replaces: Option<Value>,
}

struct Authorization {
    token: String,
    status: &'static str,
    error: Option<String>,
}

/// A refusal as RFC 8555 §6.7 writes it.
struct Problem(StatusCode, &'static str, String);

impl Problem {
    fn bad(kind: &'static str, detail: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, kind, detail.into())
    }

    fn malformed(detail: impl Into<String>) -> Self {
        Self::bad("malformed", detail)
    }
}

impl Authority {
    pub(crate) async fn start(rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let own_key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let own = own.signed_by(&own_key, &issuer).unwrap();
        let private = PrivateKeyDer::try_from(own_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(offhook::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], private)
            .unwrap();

        let authority = Self {
            inner: Arc::new(Inner {
                address: listener.local_addr().unwrap(),
                root,
                issuer,
                rules: Mutex::new(rules),
                state: Mutex::default(),
            }),
        };
        let router = Router::new()
            .route("/directory", get(Self::directory))
            .route("/nonce", any(|| async { StatusCode::OK }))
            .route("/renewal/{id}", get(Self::renewal))
            .route("/{kind}", post(Self::handle))
            .route("/{kind}/{order}/{place}", post(Self::handle))
            .with_state(authority.clone());
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let nonces = authority.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, nonces) = (acceptor.clone(), nonces.clone());
                let with_nonce = axum::middleware::map_response(move |mut response: Response| {
                    let nonce = nonces.new_nonce();
                    let name = HeaderName::from_static("replay-nonce");
                    response.headers_mut().insert(name, nonce.parse().unwrap());
                    async move { response }
                });
                let router = router.clone().layer(with_nonce);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = TowerToHyperService::new(router);
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    served.await.ok(); // Its client has hung up.
                });
            }
        });
        authority
    }

    pub(crate) fn directory_url(&self) -> String {
        self.url("directory")
    }

    /// The certificate to trust, in PEM.
    pub(crate) fn root(&self) -> &str {
        &self.inner.root
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.inner.rules.lock().unwrap());
    }

    /// How many orders there were, how many certificates came of them, and how many orders told what they replace.
    pub(crate) fn orders(&self) -> (usize, usize, usize) {
        let state = self.inner.state.lock().unwrap();
        let count = |which: fn(&&Order) -> bool| state.orders.iter().filter(which).count();
        (
            state.orders.len(),
            count(|order| order.certificate.is_some()),
            count(|order| order.replaces.is_some()),
        )
    }

    pub(crate) fn accounts(&self) -> usize {
        self.inner.state.lock().unwrap().accounts.len()
    }

    pub(crate) fn forget_accounts(&self) {
        self.inner.state.lock().unwrap().accounts.clear();
    }

    pub(crate) fn forget_orders(&self) {
        self.inner.state.lock().unwrap().orders.clear();
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.inner.address.port())
    }

    fn rules(&self) -> Rules {
        self.inner.rules.lock().unwrap().clone()
    }

    fn new_nonce(&self) -> String {
        let mut state = self.inner.state.lock().unwrap();
        let nonce = state.number();
        state.nonces.insert(nonce.clone());
        nonce
    }

    async fn directory(State(authority): State<Self>) -> Response {
        let body = json!({
            "newNonce": authority.url("nonce"),
            "newAccount": authority.url("account"),
            "newOrder": authority.url("order"),
            "renewalInfo": authority.url("renewal"),
        });
        axum::Json(body).into_response()
    }

    /// RFC 9773 §4.2: a window that has begun, or none that will for a long time.
    async fn renewal(State(authority): State<Self>, Path(_): Path<String>) -> Response {
        let (start, end) = match authority.rules().renew_now {
            true => ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"),
            false => ("2090-01-01T00:00:00Z", "2090-01-02T00:00:00Z"),
        };
        let body = json!({ "suggestedWindow": { "start": start, "end": end } });
        ([("retry-after", "21600")], axum::Json(body)).into_response()
    }

    async fn handle(
        State(authority): State<Self>,
        path: Path<Vec<(String, String)>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response {
        let path: Vec<_> = path.0.into_iter().map(|(_, part)| part).collect();
        match authority.answer(&path, &headers, &body).await {
            Ok(response) => response,
            Err(Problem(status, kind, detail)) => {
                let kind = format!("urn:ietf:params:acme:error:{kind}");
                let body = json!({ "type": kind, "detail": detail }).to_string();
                (status, [("content-type", "application/problem+json")], body).into_response()
            }
        }
    }

    async fn answer(
        &self,
        path: &[String],
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Response, Problem> {
        if headers["content-type"] != "application/jose+json" {
            return Err(Problem::malformed("not application/jose+json"));
        }
        let (account, payload) = self.verify(&path.join("/"), body)?;
        let at = |place: usize| path.get(place).and_then(|part| part.parse::<usize>().ok());
        let place = at(1).zip(at(2));
        match (path[0].as_str(), place) {
            ("account", None) => {
                if payload["termsOfServiceAgreed"] != true {
                    return Err(Problem::malformed("terms not agreed to"));
                }
                let location = [("location", account)];
                let body = axum::Json(json!({ "status": "valid" }));
                Ok((StatusCode::CREATED, location, body).into_response())
            }
            ("order", None) => self.new_order(&payload),
            ("order", Some((order, _))) => Ok(self.order(order)?.into_response()),
            ("authorization", Some((order, place))) => self.authorization(order, place),
            ("challenge", Some((order, place))) => {
                self.challenge(&account, order, place).await?;
                let state = self.inner.state.lock().unwrap();
                let of = &state.orders[order].authorizations[place];
                let body = json!({ "type": "tls-alpn-01", "url": "", "status": "processing", "token": of.token });
                Ok(axum::Json(body).into_response())
            }
            ("finalize", Some((order, _))) => {
                self.finalize(order, &payload)?;
                Ok(self.order(order)?.into_response())
            }
            ("certificate", Some(_)) if self.rules().is_slow => Err(Problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "serverInternal",
                "it is being printed".to_owned(),
            )),
            ("certificate", Some((order, _))) => {
                let state = self.inner.state.lock().unwrap();
                let chain = state.orders[order].certificate.clone();
                Ok(chain.unwrap_or_default().into_response())
            }
            _ => Err(Problem::malformed("nothing here")),
        }
    }

    /// Checks a request as RFC 8555 §6.2 to 6.5 want it; returns the account's address and the payload.
    fn verify(&self, path: &str, body: &[u8]) -> Result<(String, Value), Problem> {
        let mut state = self.inner.state.lock().unwrap();
        let parse = |bytes: &[u8]| {
            serde_json::from_slice::<Value>(bytes).map_err(|_| Problem::malformed("no JSON"))
        };
        let decode = |text: &Value| {
            let text = text.as_str().unwrap_or_default();
            BASE64
                .decode(text)
                .map_err(|_| Problem::malformed("no base64url"))
        };
        let jws = parse(body)?;
        let header = parse(&decode(&jws["protected"])?)?;
        if header["alg"] != "ES256" {
            return Err(Problem::bad("badSignatureAlgorithm", "only ES256"));
        }
        if header["url"] != self.url(path) {
            return Err(Problem(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                format!("{} is not {}", header["url"], self.url(path)),
            ));
        }
        let nonce = header["nonce"].as_str().unwrap_or_default();
        if !state.nonces.remove(nonce) {
            return Err(Problem::bad("badNonce", nonce));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (account, key) = match (&header["jwk"], &header["kid"]) {
            (jwk, Value::Null) if path == "account" => {
                let key = (text(&jwk["x"]), text(&jwk["y"]));
                let known = state.accounts.iter().find(|(_, held)| **held == key);
                let account = known.map(|(account, _)| account.clone());
                let number = state.accounts.len();
                let account = account.unwrap_or_else(|| self.url(&format!("account/{number}")));
                (account, key)
            }
            (Value::Null, kid) if path != "account" => {
                let account = text(kid);
                let key = state.accounts.get(&account).cloned();
                let unknown = || Problem::bad("accountDoesNotExist", account.clone());
                let key = key.ok_or_else(unknown)?;
                (account, key)
            }
            _ => {
                return Err(Problem::malformed(
                    "`jwk` opens an account, `kid` does the rest",
                ));
            }
        };
        let coordinates = [decode(&json!(key.0))?, decode(&json!(key.1))?];
        let point = [&[4][..], &coordinates[0], &coordinates[1]].concat();
        let signed = format!("{}.{}", text(&jws["protected"]), text(&jws["payload"]));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &decode(&jws["signature"])?)
            .map_err(|_| Problem::malformed("the signature is wrong"))?;
        state.accounts.insert(account.clone(), key);
        let payload = decode(&jws["payload"])?;
        let payload = match payload.is_empty() {
            true => Value::Null, // POST-as-GET (RFC 8555 §6.3).
            false => parse(&payload)?,
        };
        Ok((account, payload))
    }

    fn new_order(&self, payload: &Value) -> Result<Response, Problem> {
        if self.rules().is_down {
            let detail = "come back later".to_owned();
            return Err(Problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "serverInternal",
                detail,
            ));
        }
        let mut state = self.inner.state.lock().unwrap();
        let identifiers = payload["identifiers"].as_array().cloned();
        let domains: Vec<_> = identifiers
            .unwrap_or_default()
            .iter()
            .filter(|identifier| identifier["type"] == "dns")
            .filter_map(|identifier| identifier["value"].as_str().map(str::to_owned))
            .collect();
        let authorizations = domains.iter().map(|_| Authorization {
            token: format!("token_{}-{}", state.orders.len(), BASE64.encode([7; 16])),
            status: "pending",
            error: None,
        });
        let order = Order {
            authorizations: authorizations.collect(),
            domains,
            certificate: None,
            replaces: payload.get("replaces").cloned(),
        };
        let number = state.orders.len();
        state.orders.push(order);
        drop(state);
        let location = [("location", self.url(&format!("order/{number}/0")))];
        Ok((StatusCode::CREATED, location, self.order(number)?).into_response())
    }

    fn order(&self, number: usize) -> Result<axum::Json<Value>, Problem> {
        let state = self.inner.state.lock().unwrap();
        let nothing = || Problem::malformed("no such order");
        let order = state.orders.get(number).ok_or_else(nothing)?;
        let all = |status: &str| {
            order
                .authorizations
                .iter()
                .all(|held| held.status == status)
        };
        let any = |status: &str| {
            order
                .authorizations
                .iter()
                .any(|held| held.status == status)
        };
        let status = match &order.certificate {
            Some(_) => "valid",
            None if all("valid") => "ready",
            None if any("invalid") => "invalid",
            None => "pending",
        };
        let url = |kind: &str, place: usize| self.url(&format!("{kind}/{number}/{place}"));
        let places = 0..order.domains.len();
        let mut body = json!({
            "status": status,
            "identifiers": identifiers(&order.domains),
            "authorizations": places.map(|place| url("authorization", place)).collect::<Vec<_>>(),
            "finalize": url("finalize", 0),
        });
        if order.certificate.is_some() {
            body["certificate"] = json!(url("certificate", 0));
        }
        if let Some(replaces) = &order.replaces {
            body["replaces"] = replaces.clone();
        }
        Ok(axum::Json(body))
    }

    fn authorization(&self, number: usize, place: usize) -> Result<Response, Problem> {
        let rules = self.rules();
        let state = self.inner.state.lock().unwrap();
        let order = &state.orders[number];
        let held = &order.authorizations[place];
        let challenge = |kind: &&str| {
            let mut challenge = json!({
                "type": kind,
                "url": self.url(&format!("challenge/{number}/{place}")),
                "token": held.token,
                "status": held.status,
            });
            if let Some(error) = &held.error {
                challenge["error"] =
                    json!({ "type": "urn:ietf:params:acme:error:connection", "detail": error });
            }
            challenge
        };
        let challenges: Vec<_> = rules.challenges.iter().map(challenge).collect();
        let body = json!({
            "identifier": identifiers(&order.domains)[place],
            "status": held.status,
            "challenges": challenges,
        });
        Ok(axum::Json(body).into_response())
    }

    /// Asks the server whether the domain is its own, as the first challenge that is offered wants it.
    async fn challenge(&self, account: &str, number: usize, place: usize) -> Result<(), Problem> {
        let rules = self.rules();
        let (domain, token, key) = {
            let state = self.inner.state.lock().unwrap();
            let order = &state.orders[number];
            let token = order.authorizations[place].token.clone();
            let key = state.accounts[account].clone();
            (order.domains[place].clone(), token, key)
        };
        // RFC 7638 §3.1: the members in this order, without spaces.
        let jwk = format!(
            r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
            key.0, key.1
        );
        let thumbprint = BASE64.encode(digest(&SHA256, jwk.as_bytes()));
        let authorization = format!("{token}.{thumbprint}");
        let seen = match rules.challenges[0] {
            "http-01" => ask_http(rules.server, &domain, &token, &authorization).await,
            _ => ask_tls(rules.server, &domain, &authorization).await,
        };
        let mut state = self.inner.state.lock().unwrap();
        let held = &mut state.orders[number].authorizations[place];
        (held.status, held.error) = match seen {
            Ok(()) => ("valid", None),
            Err(error) => ("invalid", Some(error)),
        };
        Ok(())
    }

    fn finalize(&self, number: usize, payload: &Value) -> Result<(), Problem> {
        let rules = self.rules();
        let mut state = self.inner.state.lock().unwrap();
        let order = &mut state.orders[number];
        if order
            .authorizations
            .iter()
            .any(|held| held.status != "valid")
        {
            return Err(Problem(
                StatusCode::FORBIDDEN,
                "orderNotReady",
                String::new(),
            ));
        }
        let csr = BASE64.decode(payload["csr"].as_str().unwrap_or_default());
        let bad = || Problem::bad("badCSR", "can't be read");
        let csr = csr.map_err(|_| bad())?;
        let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).map_err(|_| bad())?;
        let names: Vec<_> = csr.params.subject_alt_names.iter().map(name).collect();
        if names != order.domains {
            return Err(Problem::bad("badCSR", format!("{names:?}")));
        }
        let day = |days: i64| {
            let span = std::time::Duration::from_secs(days.unsigned_abs() * 86_400);
            let now = std::time::SystemTime::now();
            match days < 0 {
                true => (now - span).into(),
                false => (now + span).into(),
            }
        };
        csr.params.not_before = day(-rules.days.0);
        csr.params.not_after = day(rules.days.1);
        csr.params.use_authority_key_identifier_extension = true;
        let certificate = csr.signed_by(&self.inner.issuer).map_err(|_| bad())?;
        order.certificate = Some(certificate.pem() + &self.inner.root);
        Ok(())
    }
}

impl Ledger {
    fn number(&mut self) -> String {
        self.numbers += 1;
        format!("nonce-{}", self.numbers)
    }
}

fn identifiers(domains: &[String]) -> Vec<Value> {
    let identifier = |domain: &String| json!({ "type": "dns", "value": domain });
    domains.iter().map(identifier).collect()
}

fn name(name: &rcgen::SanType) -> String {
    match name {
        rcgen::SanType::DnsName(name) => name.to_string(),
        other => format!("{other:?}"),
    }
}

/// HTTP-01 (RFC 8555 §8.3).
async fn ask_http(
    server: SocketAddr,
    domain: &str,
    token: &str,
    expected: &str,
) -> Result<(), String> {
    let mut stream = TcpStream::connect(server)
        .await
        .map_err(|error| error.to_string())?;
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n"
    );
    let mut answer = String::new();
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_string(&mut answer).await
    };
    asked.await.map_err(|error| error.to_string())?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    match answer.starts_with("HTTP/1.1 200 ") && body == Some(expected) {
        true => Ok(()),
        false => Err(format!("the answer is {answer}")),
    }
}

/// TLS-ALPN-01 (RFC 8737 §3).
async fn ask_tls(server: SocketAddr, domain: &str, authorization: &str) -> Result<(), String> {
    let mut config = rustls::ClientConfig::builder_with_provider(offhook::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let stream = TcpStream::connect(server)
        .await
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(domain.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let (_, connection) = stream.get_ref();
    if connection.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("acme-tls/1 was not chosen".to_owned());
    }
    let Some([certificate]) = connection.peer_certificates() else {
        return Err("not one certificate".to_owned());
    };
    let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    if names.value.general_names != [GeneralName::DNSName(domain)] {
        return Err(format!("it is for {:?}", names.value.general_names));
    }
    let extension = certificate
        .extensions()
        .iter()
        .find(|extension| extension.oid.to_id_string() == ACME_IDENTIFIER)
        .ok_or("no acmeIdentifier")?;
    let digest = digest(&SHA256, authorization.as_bytes());
    // An OCTET STRING of 32 bytes.
    let expected = [&[4, 32][..], digest.as_ref()].concat();
    match extension.critical && extension.value == expected {
        true => Ok(()),
        false => Err("another key authorization".to_owned()),
    }
}

/// Believes whatever certificate it is shown: the challenge is in it.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = offhook::tls::provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
