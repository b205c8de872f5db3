//! What is answered without a WebSocket.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::abuse::status;
use crate::harness::TestService;

#[tokio::test]
async fn the_schema_served_is_the_one_of_the_types() {
    let t = TestService::start().await;

    let (code, body) = t.request("GET /v1/schema/calls.v1.json", "").await;
    assert_eq!(code, 200);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        signaling_wire::schema()
    );

    let (code, body) = t.request("GET /v1/schema/calls.v1.asyncapi.json", "").await;
    assert_eq!(code, 200);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        signaling_wire::asyncapi()
    );
}

#[tokio::test]
async fn foreign_pages_are_refused_with_the_reason() {
    let t = TestService::start().await;
    let own = format!("http://{}", t.address);

    for (origin, code) in [
        (own.as_str(), None),
        ("https://app.example.com", None),
        ("https://evil.example", Some(403)),
        ("null", Some(403)),
    ] {
        let origin = HeaderValue::from_str(origin).unwrap();
        let connected = t
            .try_connect(|headers| drop(headers.insert("origin", origin)))
            .await;
        assert_eq!(connected.is_ok(), code.is_none());
        if let Some(code) = code {
            assert_eq!(status(&connected), code);
        }
    }
}

#[tokio::test]
async fn the_subprotocol_is_required() {
    let t = TestService::start().await;

    let without = t
        .try_connect(|headers| drop(headers.remove("sec-websocket-protocol")))
        .await;
    assert_eq!(status(&without), 400);

    let among_others = HeaderValue::from_static("calls.v2, calls.v1");
    let with = t
        .try_connect(|headers| drop(headers.insert("sec-websocket-protocol", among_others)))
        .await;
    assert!(with.is_ok());

    assert_eq!(t.request("GET /v1/calls", "").await.0, 426);
}

#[tokio::test]
async fn the_demo_signs_in_whoever_gives_a_name() {
    let t = TestService::start().await;
    assert_eq!(
        t.request("GET /demo/config", "").await,
        (200, r#"{"demo":true}"#.to_owned())
    );

    let (code, body) = t
        .request("POST /demo/sign-in", r#"{"name":" Alice "}"#)
        .await;
    let signed_in: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (code, &signed_in["user"], &signed_in["name"]),
        (200, &json!("alice"), &json!("Alice"))
    );

    let mut client = t.connect().await;
    client
        .hello(signed_in["token"].as_str().unwrap(), None)
        .await;
    let welcome = client.next("welcome").await;
    assert_eq!(welcome["data"]["account"], signed_in["account"]);

    for wrong in ["", "{}", r#"{"name":""}"#, r#"{"name":7}"#] {
        let (code, body) = t.request("POST /demo/sign-in", wrong).await;
        assert_eq!(code, 400, "{wrong}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["message"].is_string());
    }
}

#[tokio::test]
async fn the_demo_has_a_limit_of_sign_ins() {
    let t = TestService::start().await;

    for attempt in 0.. {
        assert!(attempt < 500, "there is no limit");
        if t.request("POST /demo/sign-in", r#"{"name":"Alice"}"#)
            .await
            .0
            == 429
        {
            break;
        }
    }
}
