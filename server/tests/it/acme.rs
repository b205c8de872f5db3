//! Certificates by ACME, from an authority that is as strict as a real one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use offhook::config::Config;
use offhook::config::load::Loaded;
use offhook::plan::Plan;
use offhook::run::Server;
use offhook::tls::development;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::authority::{Authority, Rules};
use crate::support::{PATIENCE, TestServer, echo, echo_peer, free_port, loopback};

const DOMAINS: [&str; 2] = ["calls.test", "turn.test"];

/// A server that gets its certificate from `authority`, and its data directory.
struct Installation {
    authority: Authority,
    config: Config,
    _dir: TempDir,
}

impl Installation {
    /// With a domain that leads to the server, and `change` to what the authority does.
    async fn new(change: impl FnOnce(&mut Rules)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = loopback(free_port());
        let mut rules = Rules {
            server,
            challenges: vec!["tls-alpn-01", "http-01"],
            days: (1, 90),
            is_down: false,
            is_slow: false,
            renew_now: false,
        };
        change(&mut rules);
        let authority = Authority::start(rules).await;
        let root = dir.path().join("root.pem");
        std::fs::write(&root, authority.root()).unwrap();
        let mut config = Config {
            listen: vec![server],
            data_dir: dir.path().join("data"),
            drain_seconds: 1,
            ..Config::default()
        };
        config.relay.listen_udp = vec![loopback(free_port())];
        config.relay.listen_tcp = Vec::new();
        config.sfu.port = 0;
        config.relay.listen_tls = vec![loopback(free_port())];
        config.relay.listen_dtls = vec![loopback(free_port())];
        config.relay.peers_allow = vec!["127.0.0.0/8".to_owned()];
        config.tls.acme.domains = DOMAINS.map(str::to_owned).into();
        config.tls.acme.contact = vec!["operator@calls.test".to_owned()];
        config.tls.acme.terms_agreed = true;
        config.tls.acme.directory = authority.directory_url();
        config.tls.acme.authority_file = Some(root);
        Self {
            authority,
            config,
            _dir: dir,
        }
    }

    fn plan(&self) -> Plan {
        let loaded = Loaded {
            config: self.config.clone(),
            from_file: true,
        };
        Plan::new(loaded, &offhook::cli::ServeOptions::default()).unwrap()
    }

    async fn start(&self) -> Server {
        Server::start(&self.plan()).await.unwrap()
    }

    /// The certificate that a client who trusts the authority alone is shown on `port`; `None` when it refuses it.
    async fn shown(&self, port: u16) -> Option<CertificateDer<'static>> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.root().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let tcp = TcpStream::connect(loopback(port)).await.unwrap();
        let tls = TestServer::handshake_trusting(roots, DOMAINS[0], tcp)
            .await
            .ok()?;
        let chain = tls.get_ref().1.peer_certificates()?;
        Some(chain[0].clone().into_owned())
    }

    /// Waits until another certificate than `before` is shown, on the shared port and on the relay's own.
    async fn brought(&self, before: Option<&CertificateDer<'_>>) -> CertificateDer<'static> {
        let brought = async {
            loop {
                let shown = self.shown(self.config.listen[0].port()).await;
                if let Some(shown) = shown.filter(|shown| Some(shown) != before) {
                    let own = self.config.relay.listen_tls[0].port();
                    assert_eq!(self.shown(own).await.as_ref(), Some(&shown));
                    return shown;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, brought).await.expect("a certificate")
    }

    async fn until_failed(&self) -> String {
        let failed = async {
            loop {
                let acme = &self.config.tls.acme;
                if let Some(failure) = offhook::tls::acme::failure(&self.config.data_dir, acme) {
                    return failure;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, failed).await.expect("a failure")
    }
}

fn all_private(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        if entry.file_type().unwrap().is_dir() {
            assert_eq!(mode, 0o700, "{}", entry.path().display());
            all_private(&entry.path());
        } else {
            assert_eq!(mode, 0o600, "{}", entry.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_comes_by_itself_and_is_kept() {
    for challenges in [vec!["tls-alpn-01", "http-01"], vec!["http-01"]] {
        let t = Installation::new(|rules| rules.challenges = challenges).await;
        let server = t.start().await;
        let first = t.brought(None).await;
        let names: Vec<_> = development::names_in_der(&first).into_iter().collect();
        assert_eq!(names, DOMAINS);
        assert_eq!(
            (t.authority.orders(), t.authority.accounts()),
            ((1, 1, 0), 1)
        );
        all_private(&t.config.data_dir.join("acme"));
        let challenges = t.config.data_dir.join("acme/challenges");
        assert_eq!(std::fs::read_dir(challenges).unwrap().count(), 0);
        let dtls = server.certificate_for_dtls().unwrap();
        assert_eq!(dtls.certificate, first.to_vec());
        server.stop().await;

        let server = t.start().await;
        assert_eq!(t.brought(None).await, first);
        sleep(Duration::from_millis(300)).await;
        assert_eq!(
            t.authority.orders().0,
            1,
            "what is good is not ordered again"
        );
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_issued_and_did_not_come_is_fetched_by_the_same_order() {
    let t = Installation::new(|rules| rules.is_slow = true).await;
    let server = t.start().await;
    let failure = t.until_failed().await;
    assert!(failure.contains("it is being printed"), "{failure}");
    assert_eq!(t.authority.orders(), (1, 1, 0));
    let order = failure_file(&t).with_file_name("order.json");
    assert!(order.exists());
    all_private(&t.config.data_dir.join("acme"));
    server.stop().await;

    t.authority.change(|rules| rules.is_slow = false);
    let server = t.start().await;
    t.brought(None).await;
    assert_eq!(t.authority.orders(), (1, 1, 0));
    assert!(!order.exists());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_authority_has_forgotten_or_that_is_for_other_domains_is_made_anew() {
    for forget in [true, false] {
        let mut t = Installation::new(|rules| rules.is_slow = true).await;
        let server = t.start().await;
        t.until_failed().await;
        server.stop().await;

        t.authority.change(|rules| rules.is_slow = false);
        match forget {
            true => t.authority.forget_orders(),
            false => t.config.tls.acme.domains.truncate(1),
        }
        let server = t.start().await;
        let names = development::names_in_der(&t.brought(None).await);
        assert_eq!(names.len(), t.config.tls.acme.domains.len());
        let made = if forget { 1 } else { 2 };
        assert_eq!(t.authority.orders(), (made, made, 0));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_ends_no_call_and_a_failure_keeps_what_is_served() {
    // Two thirds of its life are over once it comes.
    let t = Installation::new(|rules| rules.days = (80, 10)).await;
    let server = t.start().await;
    let first = t.brought(None).await;
    server.stop().await;

    t.authority.change(|rules| rules.is_down = true);
    let server = t.start().await;
    let failure = t.until_failed().await;
    assert!(failure.contains("come back later"), "{failure}");
    assert_eq!(t.brought(None).await, first);

    let peer = echo_peer().await;
    let support = TestServer::around(server, t.config.clone());
    let mut client = support.turn_udp().await;
    client.allocate(None).await.unwrap();
    client.channel_bind(0x4000, peer).await.unwrap();
    t.authority.change(|rules| {
        rules.is_down = false;
        rules.days = (1, 90);
    });
    // An account that the authority has forgotten is opened anew.
    t.authority.forget_accounts();
    std::fs::remove_file(failure_file(&t)).unwrap();
    support.server.reload(Ok(t.plan())).await.unwrap();
    let failure = t.until_failed().await;
    assert!(failure.contains("forgotten the account"), "{failure}");
    support.server.reload(Ok(t.plan())).await.unwrap();
    t.brought(Some(&first)).await;
    echo(&mut client, b"still here").await;
    assert_eq!(
        t.authority.orders(),
        (2, 2, 1),
        "the second told what it replaces"
    );
    assert!(!failure_file(&t).exists());
    client.refresh(0).await.unwrap();
    support.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_s_wish_and_other_domains_bring_another_certificate() {
    let mut t = Installation::new(|_| {}).await;
    let server = t.start().await;
    let first = t.brought(None).await;
    server.stop().await;

    t.authority.change(|rules| rules.renew_now = true);
    let server = t.start().await;
    let second = t.brought(Some(&first)).await;

    t.config.tls.acme.domains.pop();
    let changes = server.reload(Ok(t.plan())).await.unwrap();
    assert_eq!(changes.live, ["tls.acme.domains"]);
    let third = t.brought(Some(&second)).await;
    let names: Vec<_> = development::names_in_der(&third).into_iter().collect();
    assert_eq!(names, [DOMAINS[0]]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_good_yet_by_a_slow_clock_is_kept_and_not_ordered_again() {
    let t = Installation::new(|rules| rules.days = (-1, 90)).await;
    let server = t.start().await;
    let files = offhook::tls::acme::files(&t.config.data_dir, &t.config.tls.acme);
    let kept = async {
        while !files.certificate.exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, kept).await.expect("a certificate");
    sleep(Duration::from_millis(300)).await;
    let stand_in = server.certificate_for_dtls().unwrap().certificate;
    let first = CertificateDer::from_pem_file(&files.certificate).unwrap();
    assert_ne!(stand_in, first.to_vec(), "not served yet");

    server.reload(Ok(t.plan())).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    server.stop().await;
    let server = t.start().await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(t.authority.orders().0, 1);
    assert!(!failure_file(&t).exists());
    assert_eq!(
        CertificateDer::from_pem_file(&files.certificate).unwrap(),
        first
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_by_a_fast_clock_is_kept_and_waited_out_as_a_failure() {
    let t = Installation::new(|rules| rules.days = (90, -1)).await;
    let server = t.start().await;
    let failure = t.until_failed().await;
    assert!(
        failure.contains("has ended by the clock of this machine"),
        "{failure}"
    );
    let files = offhook::tls::acme::files(&t.config.data_dir, &t.config.tls.acme);
    assert!(files.certificate.exists());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_authority_could_not_see_is_told() {
    let nobody = loopback(free_port());
    let t = Installation::new(|rules| rules.server = nobody).await;
    let server = t.start().await;
    let failure = t.until_failed().await;
    assert!(
        failure.contains("the authority's check failed: calls.test: ")
            && failure.contains("refused"),
        "{failure}"
    );
    // A self-signed certificate is served meanwhile, and TURN and HTTP without TLS as ever.
    assert_eq!(t.shown(t.config.listen[0].port()).await, None);
    let support = TestServer::around(server, t.config.clone());
    let ready = support.ask("GET /readyz HTTP/1.1\r\nHost: a\r\n").await;
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    support.turn_udp().await.allocate(None).await.unwrap();

    let report = offhook::doctor::examine(
        Ok(Loaded {
            config: t.config.clone(),
            from_file: true,
        }),
        None,
        &offhook::cli::DoctorOptions::default(),
    )
    .await;
    let text = report.text();
    assert!(text.contains("the last order failed: "), "{text}");
    support.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_share_a_data_directory_order_once() {
    let t = Installation::new(|_| {}).await;
    // The domains lead to the first one, whichever of them orders.
    let mut other = t.config.clone();
    other.roles = vec![offhook::config::Role::Web];
    other.listen = vec![loopback(free_port())];
    let loaded = Loaded {
        config: other.clone(),
        from_file: true,
    };
    let plan = Plan::new(loaded, &offhook::cli::ServeOptions::default()).unwrap();
    let own = t.plan();
    let one = Server::start(&own).await.unwrap();
    let two = Server::start(&plan).await.unwrap();
    let brought = t.brought(None).await;
    let same = async {
        while t.shown(other.listen[0].port()).await.as_ref() != Some(&brought) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, same)
        .await
        .expect("the other one takes it, too");
    assert_eq!(t.authority.orders(), (1, 1, 0));
    two.stop().await;
    one.stop().await;
}

fn failure_file(t: &Installation) -> std::path::PathBuf {
    let files = offhook::tls::acme::files(&t.config.data_dir, &t.config.tls.acme);
    files.certificate.with_file_name("failure.txt")
}
