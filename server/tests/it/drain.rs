//! A server that is asked to end lets what lives live on for a while.

use std::time::Duration;

use offhook::config::Config;
use relay_service::client::ClientError;
use relay_stun::ErrorCode;
use tokio::time::{Instant, timeout};

use crate::support::{PATIENCE, TestServer, echo, echo_peer};

fn open_to_loopback(config: &mut Config) {
    config.relay.peers_allow = vec!["127.0.0.0/8".to_owned()];
}

#[tokio::test]
async fn allocations_live_on_while_new_ones_are_sent_away() {
    let peer = echo_peer().await;
    let alternate = "192.0.2.9:3478".parse().unwrap();
    for (alternates, expected) in [
        (vec![], ErrorCode::INSUFFICIENT_CAPACITY),
        (vec![alternate], ErrorCode::TRY_ALTERNATE),
    ] {
        let t = TestServer::configured(|config| {
            open_to_loopback(config);
            config.drain_seconds = 60;
            config.relay.alternate_servers = alternates;
        })
        .await;
        let mut udp = t.turn_udp().await;
        let mut tcp = t.turn(t.connect().await);
        for client in [&mut udp, &mut tcp] {
            client.allocate(None).await.unwrap();
            client.channel_bind(0x4000, peer).await.unwrap();
        }
        let mut late = t.turn_udp().await;
        let mut late_on_tcp = t.turn(t.connect().await);
        let (address, config) = (t.address, t.config.clone());
        let stopping = tokio::spawn(t.server.stop());

        let ready = async || {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = "GET /readyz HTTP/1.1\r\nHost: a\r\n";
            crate::support::exchange(stream, request).await
        };
        while ready().await.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for client in [&mut late, &mut late_on_tcp] {
            // The relay hears of it a moment after everybody else.
            let refused = loop {
                match client.allocate(None).await {
                    Ok(_) => client.refresh(0).await.unwrap(),
                    Err(ClientError::Refused(code)) => break code,
                    Err(error) => panic!("{error}"),
                };
            };
            assert_eq!(refused, expected);
        }
        for client in [&mut udp, &mut tcp] {
            echo(client, b"still here").await;
            client.refresh(600).await.unwrap();
        }
        assert!(!stopping.is_finished());

        udp.refresh(0).await.unwrap();
        drop(tcp);
        timeout(PATIENCE, stopping).await.unwrap().unwrap();
        assert!(config.drain_seconds > PATIENCE.as_secs());
    }
}

#[tokio::test]
async fn what_does_not_end_in_time_is_ended() {
    let t = TestServer::configured(|config| config.drain_seconds = 1).await;
    let mut client = t.turn_udp().await;
    client.allocate(None).await.unwrap();
    let began = Instant::now();
    timeout(PATIENCE, t.server.stop()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_with_nothing_living_ends_at_once() {
    let t = TestServer::configured(|config| config.drain_seconds = 3_600).await;
    let mut client = t.turn_udp().await;
    client.allocate(None).await.unwrap();
    client.refresh(0).await.unwrap();
    timeout(PATIENCE, t.server.stop()).await.unwrap();
}
