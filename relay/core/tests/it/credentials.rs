//! Who may allocate, and until when.

use std::time::Duration;

use relay_core::{NONCE_LIFETIME, Transport};
use relay_stun::client::{Event, Request};
use relay_stun::{AttributeType, Class, ErrorCode, Message, MessageWriter, Method};

use crate::world::{PEER, Phone, UNIX_START, World};

#[test]
fn both_live_secrets_count_and_no_third() {
    let mut world = World::new();
    let expiry = world.unix_now() + Duration::from_secs(60);
    for (secret, expected) in [
        ("new", Ok(())),
        ("old", Ok(())),
        ("older", Err(ErrorCode::UNAUTHORIZED)),
    ] {
        let credentials = relay_core::Credentials::new([relay_core::Secret::new(secret)]);
        let (username, password) = credentials.issue(expiry, "acme", secret).unwrap();
        let port = 1000 + u16::try_from(secret.len()).unwrap();
        let mut phone = Phone::new(&username, &password, port, Transport::Udp);
        phone
            .at
            .client
            .set_port(u16::from(secret.as_bytes()[0]) * 10 + port);
        assert_eq!(world.allocate(&mut phone), expected, "{secret}");
    }
}

#[test]
fn an_expired_name_makes_no_allocation() {
    let mut world = World::new();
    let (username, password) = world
        .credentials
        .issue(UNIX_START + Duration::from_secs(10), "acme", "alice")
        .unwrap();
    let mut phone = Phone::new(&username, &password, 1000, Transport::Udp);
    world.advance(Duration::from_secs(10));
    assert_eq!(world.allocate(&mut phone), Err(ErrorCode::UNAUTHORIZED));
    assert_eq!(world.refusals("credentials_expired"), 1);
}

#[test]
fn a_call_outlasts_the_credentials_it_began_with() {
    let mut world = World::new();
    let (username, password) = world
        .credentials
        .issue(UNIX_START + Duration::from_secs(10), "acme", "alice")
        .unwrap();
    let mut phone = Phone::new(&username, &password, 1000, Transport::Udp);
    world.allocate(&mut phone).unwrap();
    world.advance(Duration::from_secs(500));
    assert_eq!(world.refresh(&mut phone, 600), Ok(600));
    assert_eq!(world.permit(&mut phone, PEER), Ok(()));

    world.refresh(&mut phone, 0).unwrap();
    assert_eq!(world.allocate(&mut phone), Err(ErrorCode::UNAUTHORIZED));
}

#[test]
fn a_renewed_name_of_the_same_user_goes_on_with_the_allocation() {
    let mut world = World::new();
    let alice = world.allocated("alice", 1000);
    world.advance(Duration::from_secs(60));
    let mut renewed = world.phone("alice", 1000, Transport::Udp);
    renewed.relayed = alice.relayed;
    assert_eq!(world.refresh(&mut renewed, 600), Ok(600));
}

#[test]
fn another_user_on_the_same_five_tuple_has_wrong_credentials() {
    let mut world = World::new();
    let alice = world.allocated("alice", 1000);
    let mut mallory = world.phone("mallory", 1000, Transport::Udp);
    assert_eq!(mallory.at, alice.at);
    assert_eq!(
        world.refresh(&mut mallory, 0),
        Err(ErrorCode::WRONG_CREDENTIALS)
    );
    assert_eq!(
        world.permit(&mut mallory, PEER),
        Err(ErrorCode::WRONG_CREDENTIALS)
    );
    assert_eq!(
        world.bind(&mut mallory, 0x4000, PEER),
        Err(ErrorCode::WRONG_CREDENTIALS)
    );
    assert_eq!(
        world.allocate(&mut mallory),
        Err(ErrorCode::ALLOCATION_MISMATCH)
    );
    assert_eq!(world.relay.stats().allocations, 1);
}

#[test]
fn a_wrong_password_is_401_before_and_after_the_allocation() {
    let mut world = World::new();
    let expiry = world.unix_now() + Duration::from_secs(60);
    let (username, password) = world.credentials.issue(expiry, "acme", "alice").unwrap();
    let mut guessing = Phone::new(&username, "guessed", 1000, Transport::Udp);
    assert_eq!(world.allocate(&mut guessing), Err(ErrorCode::UNAUTHORIZED));
    let mut alice = Phone::new(&username, &password, 1000, Transport::Udp);
    world.allocate(&mut alice).unwrap();
    assert_eq!(
        world.refresh(&mut guessing, 0),
        Err(ErrorCode::UNAUTHORIZED)
    );
    assert_eq!(world.refusals("wrong_integrity"), 3);
    assert_eq!(world.relay.stats().allocations, 1);
}

#[test]
fn sha256_protects_as_well_as_sha1() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp).with_sha256();
    world.allocate(&mut alice).unwrap();
    assert_eq!(world.refresh(&mut alice, 600), Ok(600));
}

#[test]
fn a_nonce_becomes_stale_and_is_replaced() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    world.refresh(&mut alice, 3600).unwrap();
    world.advance(NONCE_LIFETIME);

    let request = alice
        .conversation
        .request(Request::Refresh { lifetime: 600 });
    let answer = world.exchange(&alice, &request).unwrap();
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.error_code(), Some(ErrorCode::STALE_NONCE));
    let Event::Retry(retry) = alice.conversation.handle(&answer) else {
        panic!("not challenged again");
    };
    let answer = world.exchange(&alice, &retry).unwrap();
    assert_eq!(Message::parse(&answer).unwrap().class(), Class::Success);
}

#[test]
fn a_nonce_is_of_no_use_from_another_address() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    let recorded = alice.conversation.request(Request::Refresh { lifetime: 0 });
    let elsewhere = Phone::new("", "", 1001, Transport::Udp);
    let answer = world.exchange(&elsewhere, &recorded).unwrap();
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.error_code(), Some(ErrorCode::STALE_NONCE));
    assert_eq!(world.relay.stats().allocations, 1);
}

#[test]
fn integrity_without_the_other_attributes_is_400() {
    let mut world = World::new();
    let key = relay_stun::IntegrityKey::short_term("x");
    let mut buffer = [0; 200];
    let bytes = MessageWriter::new(&mut buffer, Class::Request, Method::REFRESH, [1; 12])
        .attribute(AttributeType::USERNAME, b"alice")
        .integrity(relay_stun::IntegrityKind::Sha1, &key)
        .finish()
        .unwrap();
    let phone = Phone::new("", "", 1000, Transport::Udp);
    let answer = world.exchange(&phone, bytes).unwrap();
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.error_code(), Some(ErrorCode::BAD_REQUEST));
    assert_eq!(message.attribute(AttributeType::NONCE), None);
}

#[test]
fn a_clock_that_was_set_anew_counts() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    let next_week = UNIX_START + Duration::from_secs(7 * 86_400);
    world.relay.handle_wall_clock(world.now, next_week);
    assert_eq!(world.allocate(&mut alice), Err(ErrorCode::UNAUTHORIZED));
    world.relay.handle_wall_clock(world.now, UNIX_START);
    assert_eq!(world.allocate(&mut alice), Ok(()));
}
