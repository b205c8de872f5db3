//! What the relay carries is in the records once the server has ended, to the byte.

use offhook::cli::UsageOptions;
use offhook::usage::report::usage;
use relay_service::client::Client;
use serde_json::{Value, json};

use crate::support::TestServer;

#[tokio::test]
async fn usage_is_on_record_after_a_clean_end() {
    const PACKETS: u64 = 200;
    let t = TestServer::local().await;
    let (username, password) = t.turn_credentials();
    let udp = t.config.relay.listen_udp[0];
    let mut alice = Client::udp(udp, &username, &password).await.unwrap();
    let mut bob = t.turn(t.connect().await);
    let from = alice.allocate(None).await.unwrap().relayed.unwrap();
    let to = bob.allocate(None).await.unwrap().relayed.unwrap();
    alice.channel_bind(0x4001, to).await.unwrap();
    bob.create_permission(from).await.unwrap();

    // One after the other, so that none is lost in between.
    for _ in 0..PACKETS {
        alice.send_channel(0x4001, &[7; 100]).await.unwrap();
        bob.receive().await.unwrap();
    }
    bob.send_to(from, b"answer").await.unwrap();
    alice.receive().await.unwrap();
    bob.refresh(0).await.unwrap();
    // Alice's Allocation lives until the end of the server.
    t.server.stop().await;

    let read = async |account: Option<&str>| -> Value {
        let options = UsageOptions {
            account: account.map(str::to_owned),
            since: None,
            json: true,
        };
        let text = usage(&t.config, &options).await.unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let mut all = read(None).await;
    let days = all["usage"].as_array_mut().unwrap();
    assert!((1..=2).contains(&days.len()), "{days:?}"); // Midnight may have passed.
    let sum = |field: &str| {
        days.iter()
            .filter_map(|day| day[field].as_u64())
            .sum::<u64>()
    };
    assert!(days.iter().all(|day| day["account"] == "account"));
    assert_eq!(sum("allocations"), 2);
    // Each packet comes from one client of the Account and goes to another.
    for direction in ["to_peers", "to_clients"] {
        assert_eq!(sum(&format!("packets_{direction}")), PACKETS + 1);
        assert_eq!(sum(&format!("bytes_{direction}")), PACKETS * 100 + 6);
    }
    assert_eq!(read(Some("another")).await, json!({ "usage": [] }));
    assert_eq!(read(Some("account")).await, all);
}
