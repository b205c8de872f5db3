//! Clients that are slow, silent, greedy or garbled: they lose their place, others don't notice.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::support::{TestServer, until_closed};

fn impatient() -> impl FnOnce(&mut offhook::config::Config) {
    |config| {
        config.limits.handshake_seconds = 1;
        config.limits.request_head_seconds = 1;
    }
}

#[tokio::test]
async fn a_silent_client_is_hung_up_on() {
    let t = TestServer::with_tls(impatient()).await;
    // Nothing at all; less than tells a protocol; a TLS handshake that stops.
    for opening in [&b""[..], b"GET", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]] {
        let mut stream = t.connect().await;
        stream.write_all(opening).await.unwrap();
        let began = Instant::now();
        until_closed(&mut stream).await;
        assert!(began.elapsed() < Duration::from_secs(8), "{opening:?}"); // Without the settings: 10.
    }
    t.server.stop().await;
}

#[tokio::test]
async fn dripping_gains_no_time() {
    let t = TestServer::configured(impatient()).await;
    for opening in [
        &b"GET / HT"[..],
        b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        let stream = t.connect().await;
        let (mut read, mut write) = stream.into_split();
        let drip = tokio::spawn(async move {
            for byte in opening {
                if write.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        let began = Instant::now();
        until_closed(&mut read).await;
        assert!(began.elapsed() < Duration::from_secs(8), "{opening:?}");
        drip.abort();
    }
    t.server.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_kept_for_nothing_is_closed() {
    let t = TestServer::configured(impatient()).await;
    let mut stream = t.connect().await;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let began = Instant::now();
    let said = until_closed(&mut stream).await;
    assert!(said.starts_with(b"HTTP/1.1 200 "));
    assert!(began.elapsed() < Duration::from_secs(8));
    t.server.stop().await;
}

#[tokio::test]
async fn the_port_for_figures_is_as_strict() {
    let t = TestServer::configured(|config| {
        impatient()(config);
        config.metrics.listen = Some(crate::support::loopback(0));
    })
    .await;
    let address = t.server.metrics_address().unwrap();
    for opening in [&b""[..], b"GET /metrics HTTP/1.1\r\nHost: a"] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(opening).await.unwrap();
        until_closed(&mut stream).await;
    }
    t.server.stop().await;
}

#[tokio::test]
async fn what_is_no_protocol_of_ours_gets_no_answer() {
    let t = TestServer::local().await;
    let openings: [&[u8]; 5] = [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 64],
        &[0xFF; 64],
        &[
            0, 20, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ], // ICE-TCP
    ];
    for opening in openings {
        let mut stream = t.connect().await;
        stream.write_all(opening).await.unwrap();
        assert_eq!(until_closed(&mut stream).await, b"", "{opening:02x?}");
    }
    t.server.stop().await;
}

#[tokio::test]
async fn newcomers_compete_only_with_one_another() {
    let t = TestServer::configured(|config| config.limits.newcomers_per_address_max = 2).await;
    let mut settled = t.connect().await;
    settled
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        .await
        .unwrap();

    // Two that say nothing; the third is refused, the one that spoke before goes on.
    let silent = (t.connect().await, t.connect().await);
    let mut third = t.connect().await;
    assert_eq!(until_closed(&mut third).await, b"");
    settled
        .write_all(b"Connection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(
        until_closed(&mut settled)
            .await
            .starts_with(b"HTTP/1.1 200 ")
    );

    drop(silent);
    t.server.stop().await;
}

#[tokio::test]
async fn a_head_or_a_body_that_is_too_large_is_refused() {
    let t = TestServer::local().await;
    let long = "a".repeat(64 * 1024);
    let mut stream = t.connect().await;
    // The server may hang up before it has read all of it.
    let _ = stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n").as_bytes())
        .await;
    let answer = until_closed(&mut stream).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    let length = 1024 * 1024;
    let mut stream = t.connect().await;
    let head = format!(
        "POST /demo/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all("\"a".repeat(length / 2).as_bytes()).await;
    let answer = until_closed(&mut stream).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    t.server.stop().await;
}
