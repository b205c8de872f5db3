//! One TCP port for HTTP, WebSocket and TURN, with and without TLS.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{TestServer, exchange};

/// Opens calls.v1 with a token nobody signed; returns the code of the refusal.
async fn refused_hello(stream: impl AsyncRead + AsyncWrite + Unpin, url: &str) -> String {
    let mut request = url.into_client_request().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", "calls.v1".parse().unwrap());
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "calls.v1");

    let key = format!("BA{}", "A".repeat(85));
    let ulid = "01JDZZZZZZZZZZZZZZZZZZZZZZ";
    let hello = format!(
        r#"{{"type":"hello","id":"{ulid}","data":{{"token":"none","device":{{"id":"{ulid}","name":"t","key":"{key}"}}}}}}"#
    );
    socket.send(Message::text(hello)).await.unwrap();
    let frame = socket.next().await.unwrap().unwrap().into_text().unwrap();
    let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
    frame["data"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn http_websocket_and_turn_share_one_port() {
    let t = TestServer::local().await;

    let page = t.ask("GET / HTTP/1.1\r\nHost: localhost\r\n").await;
    assert!(
        page.starts_with("HTTP/1.1 200 OK") && page.contains("<!doctype html>"),
        "{page}"
    );
    let url = format!("ws://{}/v1/calls", t.address);
    assert_eq!(refused_hello(t.connect().await, &url).await, "unauthorized");
    let mut turn = t.turn(t.connect().await);
    assert!(turn.allocate(None).await.unwrap().relayed.is_some());
    t.server.stop().await;
}

#[tokio::test]
async fn the_same_in_tls_on_the_same_port() {
    let t = TestServer::with_tls(|_| {}).await;

    let page = exchange(
        t.connect_tls().await,
        "GET / HTTP/1.1\r\nHost: localhost\r\n",
    )
    .await;
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    let url = format!("wss://localhost:{}/v1/calls", t.address.port());
    assert_eq!(
        refused_hello(t.connect_tls().await, &url).await,
        "unauthorized"
    );
    let mut turn = t.turn(t.connect_tls().await);
    assert!(turn.allocate(None).await.unwrap().relayed.is_some());
    // A firewall that breaks TLS open can still be got past without it.
    let mut turn = t.turn(t.connect().await);
    assert!(turn.allocate(None).await.unwrap().relayed.is_some());
    t.server.stop().await;
}

#[tokio::test]
async fn plain_http_is_sent_to_tls_but_for_probes() {
    let t = TestServer::with_tls(|_| {}).await;
    let port = t.address.port();

    let answer = t
        .ask("GET /app/main.js?x=1 HTTP/1.1\r\nHost: localhost:80\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(
        answer.contains(&format!(
            "location: https://localhost:{port}/app/main.js?x=1\r\n"
        )),
        "{answer}"
    );
    assert!(
        t.ask("GET /readyz HTTP/1.1\r\nHost: localhost\r\n")
            .await
            .ends_with("\r\n\r\nready\n")
    );
    t.server.stop().await;
}

#[tokio::test]
async fn the_page_is_compressed_cached_by_its_hash_and_safe() {
    let t = TestServer::local().await;

    let first = t
        .ask("GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n")
        .await;
    assert!(first.contains("content-encoding: gzip\r\n"), "{first}");
    for header in [
        "content-security-policy: default-src 'self'",
        "x-content-type-options: nosniff",
        "permissions-policy: camera=(self)",
    ] {
        assert!(first.contains(header), "{header}");
    }
    let etag = first
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .unwrap();
    let again = t
        .ask(&format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {etag}\r\n"
        ))
        .await;
    assert!(again.starts_with("HTTP/1.1 304 "), "{again}");

    let version = t
        .ask("GET /version.json HTTP/1.1\r\nHost: localhost\r\n")
        .await;
    let json: serde_json::Value =
        serde_json::from_str(version.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let files: Vec<_> = json["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file.as_str().unwrap())
        .collect();
    assert!(
        files.contains(&"/app/main.js") && files.contains(&"/client/index.js"),
        "{files:?}"
    );
    for file in &files {
        assert!(
            !file.contains("node_modules") && !file.contains(".test.") && !file.contains("package"),
            "{file}"
        );
        let answer = t
            .ask(&format!("HEAD {file} HTTP/1.1\r\nHost: localhost\r\n"))
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && !answer.contains("octet-stream"),
            "{file}: {answer}"
        );
    }
    assert!(
        t.ask("GET /app/none.js HTTP/1.1\r\nHost: localhost\r\n")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        t.ask("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n")
            .await
            .starts_with("HTTP/1.1 405 ")
    );
    t.server.stop().await;
}
