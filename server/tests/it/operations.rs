//! What an operator's tools ask: figures and health.

use offhook::config::Config;
use offhook::run::Server;

use crate::support::{TestServer, exchange, loopback};

#[tokio::test]
async fn figures_are_for_this_machine_and_never_through_a_proxy() {
    let t = TestServer::local().await;
    let status = async |headers: &str| {
        let answer = t.ask(&format!("GET /metrics HTTP/1.1\r\n{headers}")).await;
        answer[9..12].to_owned()
    };
    assert_eq!(status("Host: localhost\r\n").await, "200");
    assert_eq!(status("Host: 127.0.0.1:8080\r\n").await, "200");
    assert_eq!(
        status("Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n").await,
        "404"
    );
    assert_eq!(
        status("Host: localhost\r\nForwarded: for=127.0.0.1\r\n").await,
        "404"
    );
    assert_eq!(status("Host: calls.example.com\r\n").await, "421");
    t.server.stop().await;
}

#[tokio::test]
async fn without_settings_only_names_of_this_machine_are_answered() {
    let t = TestServer::local().await;
    // A site whose name was made to lead here, or a tunnel that would open the sign-in to everybody.
    let answer = t.ask("GET / HTTP/1.1\r\nHost: evil.example\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    t.server.stop().await;
}

#[tokio::test]
async fn figures_have_a_port_of_their_own_where_one_is_set() {
    let t = TestServer::configured(|config: &mut Config| config.metrics.listen = Some(loopback(0)))
        .await;
    t.ask("GET / HTTP/1.1\r\nHost: a\r\n").await;

    let address = t.server.metrics_address().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let answer = exchange(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: metrics.internal\r\nX-Forwarded-For: 10.0.0.9\r\n",
    )
    .await;
    assert!(
        answer.contains("server_tcp_connections_total{protocol=\"http\"}"),
        "{answer}"
    );
    t.server.stop().await;
}

#[tokio::test]
async fn no_figure_has_a_label_that_people_or_the_network_choose() {
    /// What labels are called; each has a fixed set of values.
    const LABELS: [&str; 15] = [
        "below_kbps",
        "cause",
        "code",
        "direction",
        "fault",
        "le",
        "limit",
        "outcome",
        "protocol",
        "quantile",
        "reason",
        "result",
        "shard",
        "state",
        "transport",
    ];

    let t = TestServer::configured(|config: &mut Config| config.metrics.listen = Some(loopback(0)))
        .await;
    t.ask("GET /nowhere HTTP/1.1\r\nHost: mallory.example\r\n")
        .await;
    let address = t.server.metrics_address().unwrap();
    // Figures of the relay are told once a second.
    let figures = loop {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let answer = exchange(stream, "GET /metrics HTTP/1.1\r\nHost: a\r\n").await;
        if answer.contains("relay_stream_queue_bytes ") {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };

    let (_, figures) = figures.split_once("\r\n\r\n").unwrap();
    let series = figures.lines().filter(|line| !line.starts_with('#'));
    for labels in series.filter_map(|line| Some(line.split_once('{')?.1.split_once('}')?.0)) {
        for label in labels.split(',') {
            let (name, value) = label.split_once('=').unwrap();
            assert!(LABELS.contains(&name), "{name} in {labels}");
            let is_fixed =
                |c: char| c.is_ascii_lowercase() || "_.".contains(c) || c.is_ascii_digit();
            let value = value.trim_matches('"');
            assert!(value.len() <= 40 && value.chars().all(is_fixed), "{labels}");
        }
    }
    let has = |series: &str| figures.lines().any(|line| line.starts_with(series));
    for transport in ["udp", "tcp", "tls", "dtls"] {
        assert!(
            has(&format!("relay_allocations{{transport=\"{transport}\"}} ")),
            "{figures}"
        );
    }
    for depth in [
        "relay_stream_queue_bytes ",
        "relay_requests_waiting ",
        "relay_dtls_newcomers ",
    ] {
        assert!(has(depth), "{figures}");
    }
    t.server.stop().await;
}

#[tokio::test]
async fn half_a_server_does_not_start() {
    let t = TestServer::local().await;
    let mut config = t.config.clone();
    config.data_dir = t.dir.as_ref().unwrap().path().join("other");
    let plan = offhook::plan::Plan {
        config,
        mode: offhook::plan::Mode::Local,
    };
    let error = format!("{:#}", Server::start(&plan).await.err().unwrap());
    assert!(
        error.contains(&format!(
            "can't listen on TCP {} (another program has this port",
            t.address
        )),
        "{error}"
    );
    t.server.stop().await;
}

#[tokio::test]
async fn a_role_that_is_off_is_not_there() {
    use offhook::config::Role;

    let t = TestServer::configured(|config| config.roles = vec![Role::Relay]).await;
    assert!(
        t.ask("GET / HTTP/1.1\r\nHost: a\r\n")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(t.turn(t.connect().await).allocate(None).await.is_ok());
    t.server.stop().await;

    let t = TestServer::configured(|config| config.roles = vec![Role::Web]).await;
    assert!(
        t.ask("GET / HTTP/1.1\r\nHost: a\r\n")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert!(t.turn(t.connect().await).allocate(None).await.is_err());
    t.server.stop().await;
}
