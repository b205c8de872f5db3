//! `offhook doctor` on servers that are well, and on those that aren't.

use std::net::Ipv4Addr;

use offhook::cli::DoctorOptions;
use offhook::config::load::Loaded;
use offhook::config::{Config, PublicUrl};
use offhook::doctor::pair::explain;
use offhook::doctor::{Report, examine};

use tokio::net::UdpSocket;

use crate::support::{TestServer, binding_answer, free_port, loopback};

async fn report_on(config: &Config) -> Report {
    let options = DoctorOptions {
        url: None,
        json: false,
        question: None,
    };
    examine(
        Ok(Loaded {
            config: config.clone(),
            from_file: true,
        }),
        None,
        &options,
    )
    .await
}

/// The report has a bad finding about `check` that says `what` and gives a fix.
fn assert_bad(report: &Report, check: &str, what: &str) {
    let text = report.text();
    let found = report.findings().iter().any(|finding| {
        finding.check == check && finding.what.contains(what) && finding.fix.is_some()
    });
    assert!(
        found && !report.is_healthy(),
        "no `{check}: {what}` in\n{text}"
    );
}

#[tokio::test]
async fn a_server_without_settings_is_well() {
    let t = TestServer::local().await;
    let report = report_on(&t.config).await;
    assert!(report.is_healthy(), "{}", report.text());
    assert!(
        report
            .text()
            .contains("a packet went through two Allocations"),
        "{}",
        report.text()
    );
    t.server.stop().await;
}

#[tokio::test]
async fn what_keeps_channels_out_of_the_driver_is_told() {
    let t = TestServer::configured(|config| {
        config.relay.xdp = relay_service::Xdp::Auto;
        config.relay.xdp_interfaces = vec!["none0".to_owned()];
    })
    .await;
    let report = report_on(&t.config).await;
    assert!(report.is_healthy(), "{}", report.text());
    assert!(
        report.text().contains("userspace relays every Channel: "),
        "{}",
        report.text()
    );

    let mut config = t.config.clone();
    config.relay.xdp = relay_service::Xdp::On;
    assert_bad(&report_on(&config).await, "XDP", "not here: ");
    t.server.stop().await;
}

#[tokio::test]
async fn a_server_with_a_certificate_is_well() {
    let t = TestServer::with_tls(|config| {
        config.public_url = Some(
            PublicUrl::new(&format!("https://localhost:{}", config.listen[0].port())).unwrap(),
        );
        config.relay.listen_dtls = vec![loopback(free_port())];
    })
    .await;
    let report = report_on(&t.config).await;
    assert!(report.is_healthy(), "{}", report.text());
    for check in [
        "TURN UDP",
        "TURN TCP",
        "TURN TLS",
        "TURN DTLS",
        "records",
        "websocket",
        "certificate",
        "name",
        "chain",
        "clock",
    ] {
        assert!(
            report
                .findings()
                .iter()
                .any(|finding| finding.check == check),
            "no {check} in\n{}",
            report.text()
        );
    }
    t.server.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_running_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: vec![loopback(free_port())],
        data_dir: dir.path().join("none"),
        ..Config::default()
    };
    let report = report_on(&config).await;
    assert_bad(&report, "state", "does not exist");
    assert_bad(&report, "port", "is free: the server is not running");
    assert_bad(&report, "site", "");
}

#[tokio::test]
async fn a_port_that_another_program_holds_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind(loopback(0)).unwrap();
    std::thread::spawn({
        let other = other.try_clone().unwrap();
        move || while other.accept().is_ok() {}
    });
    let config = Config {
        listen: vec![other.local_addr().unwrap()],
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    assert_bad(
        &report_on(&config).await,
        "port",
        "is held by another program",
    );
}

#[tokio::test]
async fn a_certificate_for_another_name_is_noticed() {
    let t = TestServer::with_tls(|_| {}).await;
    let mut config = t.config.clone();
    // A name of this machine that the certificate does not have.
    config.public_url =
        Some(PublicUrl::new(&format!("https://127.0.0.2:{}", t.address.port())).unwrap());
    assert_bad(&report_on(&config).await, "name", "not for 127.0.0.2");
    t.server.stop().await;
}

#[tokio::test]
async fn credentials_of_another_data_directory_are_noticed() {
    let t = TestServer::local().await;
    let other = tempfile::tempdir().unwrap();
    offhook::state::DataDir::open(other.path())
        .unwrap()
        .load_secrets()
        .unwrap();
    let config = Config {
        data_dir: other.path().to_owned(),
        ..t.config.clone()
    };
    assert_bad(&report_on(&config).await, "TURN UDP", "refused with 401");
    t.server.stop().await;
}

#[tokio::test]
async fn modes_that_are_too_open_are_noticed() {
    use std::os::unix::fs::PermissionsExt;

    let t = TestServer::local().await;
    let secrets = t.config.data_dir.join("secrets.toml");
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_bad(&report_on(&t.config).await, "state", "secrets.toml");
    t.server.stop().await;

    let t = TestServer::with_tls(|_| {}).await;
    let key = t.config.tls.key_file.as_ref().unwrap();
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_bad(
        &report_on(&t.config).await,
        "key",
        "everybody on this machine",
    );
    t.server.stop().await;
}

#[tokio::test]
async fn a_relayed_address_that_nobody_outside_reaches_is_noticed() {
    let t = TestServer::configured(|config| {
        config.public_url = Some(PublicUrl::new("http://calls.invalid").unwrap());
    })
    .await;
    let report = report_on(&t.config).await;
    assert_bad(
        &report,
        "address",
        "nobody outside this machine can use them",
    );
    assert_bad(&report, "name", "leads nowhere");
    t.server.stop().await;
}

#[tokio::test]
async fn the_relay_is_asked_where_clients_are_told() {
    let port = free_port();
    let t = TestServer::with_tls(|config| {
        config.relay.listen_tls = vec![loopback(port)];
        config.relay.public_host = Some("localhost".to_owned());
        config.public_url = Some(
            PublicUrl::new(&format!("https://127.0.0.1:{}", config.listen[0].port())).unwrap(),
        );
    })
    .await;
    let report = report_on(&t.config).await;
    assert!(report.is_healthy(), "{}", report.text());
    for seen in [
        &format!("127.0.0.1:{port}: an Allocation"),
        "localhost port",
        "as clients are told",
    ] {
        assert!(report.text().contains(seen), "{}", report.text());
    }

    let mut config = t.config.clone();
    config.relay.public_host = Some("turn.invalid".to_owned());
    let report = report_on(&config).await;
    assert_bad(&report, "TURN UDP", "turn.invalid port");
    assert_bad(&report, "TURN TCP", "turn.invalid port");
    assert_bad(&report, "name", "not for turn.invalid");
    t.server.stop().await;
}

#[tokio::test]
async fn settings_that_can_not_be_read_are_all_there_is_to_say() {
    let options = DoctorOptions {
        url: None,
        json: false,
        question: None,
    };
    let report = examine(
        Err(anyhow::anyhow!("offhook.toml:3: unknown setting `lisen`")),
        None,
        &options,
    )
    .await;
    assert_bad(&report, "settings", "offhook.toml:3");
    assert_eq!(report.findings().len(), 1);
}

#[tokio::test]
async fn a_pair_of_addresses_is_explained_and_tried() {
    let t = TestServer::configured(|_| {}).await;
    let verdict = async |peer: &str| {
        let loaded = Loaded {
            config: t.config.clone(),
            from_file: true,
        };
        explain(loaded, "192.0.2.1:5000", peer).await.unwrap()
    };
    let allowed = verdict("8.8.8.8:5000").await;
    assert!(allowed.is_healthy(), "{}", allowed.text());
    assert!(
        allowed.text().contains("the running server allows it"),
        "{}",
        allowed.text()
    );
    let denied = verdict("10.0.0.1:5000").await;
    assert_bad(&denied, "channel", "(cause `forbidden_private`)");
    assert_bad(
        &denied,
        "server",
        "the running server refuses it with 403 Forbidden",
    );
    // An own relayed port with nobody behind it, which only the server knows.
    let own = verdict("127.0.0.1:50000").await;
    assert_bad(&own, "server", "403 Forbidden");

    // Other settings than the server's: it decides otherwise, and that is told.
    let mut config = t.config.clone();
    config.relay.peers_allow = vec!["10.0.0.0/8".to_owned()];
    let loaded = Loaded {
        config,
        from_file: true,
    };
    let other = explain(loaded, "::1", "10.0.0.1:5000").await;
    assert_bad(&other.unwrap(), "server", "it has other settings");
    t.server.stop().await;
}

/// A STUN server that sees everybody at `ip`.
async fn stun_server(ip: Ipv4Addr) -> String {
    let stun = UdpSocket::bind(loopback(0)).await.unwrap();
    let address = stun.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut request = [0; 1_500];
        while let Ok((_, from)) = stun.recv_from(&mut request).await {
            let answer = binding_answer(&request, (ip, 4711));
            stun.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_name_that_leads_to_the_public_address_that_stun_finds_leads_here() {
    let mut config = Config {
        listen: vec![loopback(free_port())],
        public_url: Some(PublicUrl::new("http://127.0.0.9:1").unwrap()),
        ..Config::default()
    };
    let what = "127.0.0.9, which is this machine";
    let report = report_on(&config).await;
    assert!(!report.text().contains(what), "{}", report.text());
    config.relay.find_public_ips_by = vec![stun_server(Ipv4Addr::new(127, 0, 0, 9)).await];
    let report = report_on(&config).await;
    assert!(report.text().contains(what), "{}", report.text());
}

#[tokio::test]
async fn a_pair_is_explained_by_the_public_address_that_stun_finds() {
    let asked = stun_server(Ipv4Addr::new(203, 0, 113, 7)).await;
    let dir = tempfile::tempdir().unwrap();
    let verdict = async |server: &str, peer: &str| {
        let mut config = Config {
            data_dir: dir.path().join("none"),
            ..Config::default()
        };
        config.relay.find_public_ips_by = vec![server.to_owned()];
        let loaded = Loaded {
            config,
            from_file: true,
        };
        explain(loaded, "192.0.2.1:5000", peer).await.unwrap()
    };
    let public = verdict(&asked, "8.8.8.8:5000").await;
    for seen in ["finds 203.0.113.7", "reaches it, from 203.0.113.7"] {
        assert!(public.text().contains(seen), "{}", public.text());
    }
    let own = verdict(&asked, "203.0.113.7:50000").await;
    let what = "an own relayed address";
    assert!(own.text().contains(what), "{}", own.text());

    let unknown = verdict("nowhere.invalid:3478", "8.8.8.8:5000").await;
    assert_bad(&unknown, "address", "was not found");
}

#[tokio::test]
async fn settings_with_secrets_that_everybody_can_read_are_noticed() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("offhook.toml");
    std::fs::write(
        &file,
        "[relay]\nusers = [{ name = 'acme:door', password = 'x' }]",
    )
    .unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let options = DoctorOptions {
        url: None,
        json: false,
        question: None,
    };
    let config = Config {
        data_dir: dir.path().join("none"),
        ..Config::default()
    };
    let loaded = Loaded {
        config,
        from_file: true,
    };
    let report = examine(Ok(loaded), Some(&file), &options).await;
    assert_bad(&report, "settings", "everybody on this machine can read it");
}
