//! Access granted by a third party (RFC 7635).

use std::time::Duration;

use relay_core::{REALM_LEN_MAX, TOKEN_CLOCK_SKEW, ThirdParty, Transport, server_name_len_max};
use relay_stun::client::{AllocateOptions, Client, Request};
use relay_stun::{
    AccessToken, AttributeType, Class, ErrorCode, Message, MessageWriter, Method, TokenAlgorithm,
    TokenKey,
};

use crate::world::{PEER, Phone, UNIX_START, World};

const SERVER_NAME: &str = "turn.example.com";
const MAC_KEY: [u8; 20] = [5; 20];

/// A world in which `2026` and `2027` grant access for acme, and `other` for somebody else.
fn world(change: impl FnOnce(&mut relay_core::Config)) -> World {
    let mut world = World::with(change);
    let third_party = ThirdParty::new(SERVER_NAME)
        .with_key("2026", "acme", key(6))
        .with_key("2027", "acme", key(7))
        .with_key("other", "umbrella", key(8));
    let credentials = world.credentials.clone().with_third_party(third_party);
    world.relay.set_credentials(credentials);
    world
}

fn key(byte: u8) -> TokenKey {
    TokenKey::new(TokenAlgorithm::A256Gcm, &[byte; 32]).unwrap()
}

fn token(issued: Duration, lifetime: u32) -> AccessToken {
    AccessToken {
        mac_key: MAC_KEY.into(),
        timestamp: issued.as_secs() << 16,
        lifetime,
    }
}

/// A client with a token that `kid` makes now.
fn phone(world: &World, kid: &str, lifetime: u32, port: u16) -> Phone {
    let byte = match kid {
        "2026" => 6,
        "2027" => 7,
        _ => 8,
    };
    let token = token(world.unix_now(), lifetime);
    let sealed = key(byte).seal(SERVER_NAME, [1; 12], &token).unwrap();
    with_token(kid, &sealed, port)
}

fn with_token(kid: &str, sealed: &[u8], port: u16) -> Phone {
    let mut phone = Phone::new(kid, "", port, Transport::Tcp);
    phone.conversation = Client::third_party(kid, sealed, &MAC_KEY, port.into());
    phone
}

#[test]
fn a_token_allocates_and_its_key_goes_on() {
    let mut world = world(|_| {});
    let mut alice = phone(&world, "2026", 3600, 1000);
    world.allocate(&mut alice).unwrap();
    world.permit(&mut alice, PEER).unwrap();
    world.bind(&mut alice, 0x4000, PEER).unwrap();
    assert_eq!(world.refresh(&mut alice, 600), Ok(600));
    assert!(world.send_channel(&alice, 0x4000, "hello").is_some());

    // Passwords are as good as before.
    world.allocated("bob", 1001);
}

#[test]
fn a_new_token_prolongs_what_an_old_one_began() {
    let mut world = world(|_| {});
    let mut alice = phone(&world, "2026", 700, 1000);
    let lifetime = Some(3600);
    let asked = AllocateOptions {
        lifetime,
        ..AllocateOptions::default()
    };
    let granted = world.ask(&mut alice, Request::AllocateWith(asked));
    assert_eq!(granted, Ok(Some(705)), "no longer than the token lives");
    world.advance(Duration::from_secs(100));
    assert_eq!(world.refresh(&mut alice, 3600), Ok(605));

    // Of another key, too: keys change while calls last.
    world.advance(Duration::from_secs(500));
    let relayed = alice.relayed;
    alice = phone(&world, "2027", 7200, 1000);
    alice.relayed = relayed;
    assert_eq!(world.refresh(&mut alice, 3600), Ok(3600));
    world.advance(Duration::from_secs(200));
    assert_eq!(world.permit(&mut alice, PEER), Ok(()));

    // Nobody else's is.
    let mut mallory = phone(&world, "other", 3600, 1000);
    let taken = world.refresh(&mut mallory, 0);
    assert_eq!(taken, Err(ErrorCode::WRONG_CREDENTIALS));

    // Without one it ends with the last.
    let mut bob = phone(&world, "2026", 60, 1001);
    world.allocate(&mut bob).unwrap();
    world.advance(Duration::from_secs(65));
    let late = world.permit(&mut bob, PEER);
    assert_eq!(late, Err(ErrorCode::UNAUTHORIZED));
    assert_eq!(world.relay.stats().allocations, 1);
}

#[test]
fn what_is_wrong_with_a_token_is_401_and_counted() {
    let check = |kid: &str, sealed: &[u8], expected: Option<&str>| {
        let mut world = world(|_| {});
        let mut alice = with_token(kid, sealed, 1000);
        let allocated = world.allocate(&mut alice);
        match expected {
            None => assert_eq!(allocated, Ok(())),
            Some(cause) => {
                assert_eq!(allocated, Err(ErrorCode::UNAUTHORIZED), "{cause}");
                assert_eq!(world.refusals(cause), 1, "{cause}");
            }
        }
    };
    let seal = |issued: Duration, lifetime: u32| {
        let token = token(issued, lifetime);
        key(6).seal(SERVER_NAME, [1; 12], &token).unwrap()
    };
    let now = UNIX_START;
    let second = Duration::from_secs(1);
    let good = seal(now, 3600);

    check("2026", &good, None);
    check("2028", &good, Some("unknown_token_key"));
    check("", &good, Some("unknown_token_key"));
    check("2027", &good, Some("bad_token"));
    check("2026", &good[..good.len() - 1], Some("bad_token"));
    check("2026", &[], Some("bad_token"));
    check("2026", &[0xFF; 600], Some("bad_token"));
    let elsewhere = key(6).seal("elsewhere", [1; 12], &token(now, 3600));
    check("2026", &elsewhere.unwrap(), Some("bad_token"));
    // The clocks may differ a little.
    let lifetime = 60 * second;
    check("2026", &seal(now - lifetime - 4 * second, 60), None);
    let over = now - lifetime - TOKEN_CLOCK_SKEW;
    check("2026", &seal(over, 60), Some("token_expired"));
    check("2026", &seal(Duration::ZERO, 60), Some("token_expired"));
    check("2026", &seal(now + 3 * second, 60), None);
    let to_come = now + lifetime + TOKEN_CLOCK_SKEW;
    check("2026", &seal(to_come, 60), Some("token_expired"));
    let never = Duration::from_secs((1 << 48) - 1);
    check("2026", &seal(never, u32::MAX), Some("token_expired"));
    let mut other_mac_key = token(now, 3600);
    other_mac_key.mac_key = [6; 32].into();
    let sealed = key(6).seal(SERVER_NAME, [1; 12], &other_mac_key).unwrap();
    check("2026", &sealed, Some("wrong_integrity"));
}

#[test]
fn without_a_third_party_a_token_is_nothing() {
    let mut world = World::new();
    let mut alice = phone(&world, "2026", 3600, 1000);
    assert_eq!(world.allocate(&mut alice), Err(ErrorCode::UNAUTHORIZED));
    assert_eq!(world.refusals("unknown_user"), 1);
}

#[test]
fn the_limits_of_the_account_bound_all_its_tokens() {
    let mut world = world(|config| {
        config.limits.allocations_per_user_max = 1;
        config.limits.allocations_per_account_max = 3;
    });
    let quota = Err(ErrorCode::ALLOCATION_QUOTA_REACHED);
    let mut bob = world.phone("bob", 2000, Transport::Udp);
    assert_eq!(world.allocate(&mut bob), Ok(()));
    for (kid, port, expected) in [
        ("2026", 1000, Ok(())),
        ("2027", 1001, Ok(())),
        ("2026", 1002, quota),
        ("other", 1003, Ok(())),
    ] {
        let mut phone = phone(&world, kid, 3600, port);
        assert_eq!(world.allocate(&mut phone), expected, "{port}");
    }
}

#[test]
fn the_challenge_names_the_server_and_stays_small() {
    const IP_AND_UDP_LEN: usize = 28;
    for realm_len in 1..=REALM_LEN_MAX {
        let realm = "r".repeat(realm_len);
        let name = "n".repeat(server_name_len_max(&realm));
        if name.is_empty() {
            assert!(realm_len > REALM_LEN_MAX - 8);
            continue;
        }
        let mut world = World::with(|config| config.realm = realm);
        let third_party = ThirdParty::new(&name);
        let credentials = world.credentials.clone().with_third_party(third_party);
        world.relay.set_credentials(credentials);
        let mut buffer = [0; 20];
        let bare = MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, [1; 12])
            .finish()
            .unwrap();
        let stranger = Phone::new("", "", 1000, Transport::Udp);
        let answer = world.exchange(&stranger, bare).unwrap();
        assert!(answer.len() + IP_AND_UDP_LEN <= 3 * (bare.len() + IP_AND_UDP_LEN));
        let message = Message::parse(&answer).unwrap();
        let named = message.text(AttributeType::THIRD_PARTY_AUTHORIZATION);
        assert_eq!(named, Some(&*name));
    }
}
