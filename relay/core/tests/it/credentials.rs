//! Who may allocate, and until when.

use std::time::Duration;

use relay_core::{Credentials, NONCE_LIFETIME, REALM_LEN_MAX, Secret, Transport};
use relay_stun::client::{Event, Request};
use relay_stun::{
    AttributeType, Class, ErrorCode, IntegrityKey, IntegrityKind, Message, MessageWriter, Method,
    PasswordAlgorithm,
};

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
        let credentials = Credentials::new([Secret::new(secret)]);
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
fn a_client_from_before_rfc_8489_is_served() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp).legacy();
    world.allocate(&mut alice).unwrap();
    assert_eq!(world.refresh(&mut alice, 600), Ok(600));
}

#[test]
fn the_challenge_offers_sha256_first_and_the_answer_uses_it() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    let first = alice.conversation.request(ALLOCATE);
    let answer = world.exchange(&alice, &first).unwrap();
    let challenge = Message::parse(&answer).unwrap();
    assert_eq!(
        challenge.attribute(AttributeType::PASSWORD_ALGORITHMS),
        Some(&[0, 2, 0, 0, 0, 1, 0, 0][..])
    );
    let nonce = challenge.attribute(AttributeType::NONCE).unwrap();
    // Names under a secret can't be found by their hash, so no client is told to hide its own.
    assert!(nonce.starts_with(b"obMatJos2AAAB"));

    let Event::Retry(retry) = alice.conversation.handle(&answer) else {
        panic!("not challenged");
    };
    let answer = world.exchange(&alice, &retry).unwrap();
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.class(), Class::Success);
    assert_eq!(message.integrity_kind(), Some(IntegrityKind::Sha256));
}

#[test]
fn static_users_allocate_and_hide_their_names() {
    let users = [("acme:door".to_owned(), Secret::new("knock"))];
    let mut world = World::new();
    let mut door = Phone::new("acme:door", "knock", 1000, Transport::Udp);
    assert_eq!(world.allocate(&mut door), Err(ErrorCode::UNAUTHORIZED));

    // Without a secret every name is known, so the nonce asks for USERHASH.
    let only_users = Credentials::new([]).with_users(users.clone());
    world.relay.set_credentials(only_users);
    let mut door = Phone::new("acme:door", "knock", 1000, Transport::Udp);
    let first = door.conversation.request(ALLOCATE);
    let answer = world.exchange(&door, &first).unwrap();
    let nonce = Message::parse(&answer).unwrap();
    let nonce = nonce.attribute(AttributeType::NONCE).unwrap();
    assert!(nonce.starts_with(b"obMatJos2AAAD"));
    let Event::Retry(retry) = door.conversation.handle(&answer) else {
        panic!("not challenged");
    };
    let hidden = Message::parse(&retry).unwrap();
    assert_eq!(hidden.attribute(AttributeType::USERNAME), None);
    assert!(hidden.attribute(AttributeType::USERHASH).is_some());
    let answer = world.exchange(&door, &retry).unwrap();
    assert_eq!(Message::parse(&answer).unwrap().class(), Class::Success);
    assert_eq!(world.refresh(&mut door, 600), Ok(600));

    let mut window = Phone::new("acme:window", "knock", 1001, Transport::Udp);
    assert_eq!(world.allocate(&mut window), Err(ErrorCode::UNAUTHORIZED));
    let mut guessing = Phone::new("acme:door", "guessed", 1002, Transport::Udp);
    assert_eq!(world.allocate(&mut guessing), Err(ErrorCode::UNAUTHORIZED));

    // Both kinds of credentials live side by side; the Allocation that lives is still known.
    world
        .relay
        .set_credentials(world.credentials.clone().with_users(users));
    assert_eq!(world.refresh(&mut door, 600), Ok(600));
    world.allocated("alice", 1003);
    let mut legacy = Phone::new("acme:door", "knock", 1004, Transport::Udp).legacy();
    assert_eq!(world.allocate(&mut legacy), Ok(()));
}

/// The checks of RFC 8489 §9.2.4: each row changes one thing in a request that is right.
#[test]
fn the_checks_of_authentication_have_their_codes() {
    let check = |change: &dyn Fn(&mut Signed), expected: Option<u16>| {
        let mut world = World::new();
        let mut signed = Signed::new(&mut world);
        change(&mut signed);
        let request = signed.build();
        let phone = Phone::new("", "", 1000, Transport::Udp);
        let answer = world.exchange(&phone, &request).unwrap();
        let message = Message::parse(&answer).unwrap();
        let code = message.error_code();
        assert_eq!(code, expected.map(ErrorCode));
        let challenged = matches!(expected, Some(401 | 438));
        for attribute in [
            AttributeType::REALM,
            AttributeType::NONCE,
            AttributeType::PASSWORD_ALGORITHMS,
        ] {
            assert_eq!(message.attribute(attribute).is_some(), challenged);
        }
        assert_eq!(message.integrity_kind().is_some(), expected.is_none());
    };

    check(&|_| {}, None);
    check(&|s| s.integrity = Some(IntegrityKind::Sha1), None);
    check(&|s| s.integrity = None, Some(401));
    check(&|s| s.remove(AttributeType::USERNAME), Some(400));
    check(&|s| s.remove(AttributeType::REALM), Some(400));
    check(&|s| s.remove(AttributeType::NONCE), Some(400));
    check(
        &|s| {
            s.remove(AttributeType::USERNAME);
            s.set(AttributeType::USERHASH, &[7; 32]);
        },
        Some(401),
    );
    // Algorithms: both attributes or none, the list as it was sent, the choice one of it.
    check(&|s| s.remove(AttributeType::PASSWORD_ALGORITHMS), Some(400));
    check(&|s| s.remove(AttributeType::PASSWORD_ALGORITHM), Some(400));
    check(
        &|s| s.set(AttributeType::PASSWORD_ALGORITHMS, &[0, 1, 0, 0]),
        Some(400),
    );
    check(
        &|s| {
            s.set(
                AttributeType::PASSWORD_ALGORITHMS,
                &[0, 1, 0, 0, 0, 2, 0, 0],
            );
        },
        Some(400),
    );
    check(
        &|s| s.set(AttributeType::PASSWORD_ALGORITHM, &[0, 9, 0, 0]),
        Some(400),
    );
    check(
        &|s| s.set(AttributeType::PASSWORD_ALGORITHM, &[0, 2, 0]),
        Some(400),
    );
    // Another algorithm than the key was made with.
    check(
        &|s| s.set(AttributeType::PASSWORD_ALGORITHM, &[0, 1, 0, 0]),
        Some(401),
    );
    check(
        &|s| {
            s.set(AttributeType::PASSWORD_ALGORITHM, &[0, 1, 0, 0]);
            s.algorithm = PasswordAlgorithm::Md5;
        },
        None,
    );
    check(
        &|s| {
            s.remove(AttributeType::PASSWORD_ALGORITHMS);
            s.remove(AttributeType::PASSWORD_ALGORITHM);
            s.algorithm = PasswordAlgorithm::Md5;
        },
        None,
    );
    check(&|s| s.set(AttributeType::USERNAME, b"alice"), Some(401));
    check(&|s| s.password = "guessed".to_owned(), Some(401));
    // The nonce comes last: whoever holds no password learns nothing about it.
    check(&|s| s.nonce_byte(20), Some(438));
    check(
        &|s| {
            s.nonce_byte(20);
            s.password = "guessed".to_owned();
        },
        Some(401),
    );
    // The feature bits taken out on the way: what is left counts as MD5, and the nonce is broken.
    check(&|s| s.nonce_byte(12), Some(401));
    check(
        &|s| {
            s.nonce_byte(12);
            s.remove(AttributeType::PASSWORD_ALGORITHMS);
            s.remove(AttributeType::PASSWORD_ALGORITHM);
            s.algorithm = PasswordAlgorithm::Md5;
        },
        Some(438),
    );
}

#[test]
fn a_client_ignores_a_challenge_that_somebody_weakened() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    let first = alice.conversation.request(ALLOCATE);
    let answer = world.exchange(&alice, &first).unwrap();
    let challenge = Message::parse(&answer).unwrap();
    let mut buffer = [0; 200];
    let mut writer = MessageWriter::new(
        &mut buffer,
        Class::Error,
        Method::ALLOCATE,
        challenge.transaction_id(),
    );
    for (attribute, value) in challenge.attributes() {
        if attribute != AttributeType::PASSWORD_ALGORITHMS {
            writer = writer.attribute(attribute, value);
        }
    }
    let weakened = writer.finish().unwrap();
    assert_eq!(alice.conversation.handle(weakened), Event::Ignored);
    assert!(matches!(
        alice.conversation.handle(&answer),
        Event::Retry(_)
    ));
}

#[test]
fn the_answer_to_the_barest_stranger_is_at_most_three_times_as_long() {
    const IP_AND_UDP_LEN: usize = 28;
    for realm in ["a", "offhook", "x".repeat(REALM_LEN_MAX).as_str()] {
        let mut world = World::with(|config| config.realm = realm.to_owned());
        for method in [Method::ALLOCATE, Method::REFRESH, Method::BINDING] {
            let mut buffer = [0; 20];
            let bare = MessageWriter::new(&mut buffer, Class::Request, method, [1; 12])
                .finish()
                .unwrap();
            let stranger = Phone::new("", "", 1000, Transport::Udp);
            let answer = world.exchange(&stranger, bare).unwrap();
            let bound = 3 * (bare.len() + IP_AND_UDP_LEN);
            assert!(
                answer.len() + IP_AND_UDP_LEN <= bound,
                "{method:?}: {}",
                answer.len()
            );
            let message = Message::parse(&answer).unwrap();
            assert_eq!(message.attribute(AttributeType::SOFTWARE), None);
        }
    }
}

#[test]
fn a_flood_of_strangers_gets_silence_and_harms_nobody_else() {
    let mut world = World::with(|config| config.limits.stranger_answers_per_second_max = 5);
    let mut alice = world.allocated("alice", 1000);
    let mut answered = 0;
    for port in 2000..3000 {
        let mut stranger = Phone::new("", "", port, Transport::Udp);
        let request = stranger.conversation.request(match port % 2 {
            0 => Request::Binding,
            _ => ALLOCATE,
        });
        answered += u32::from(world.exchange(&stranger, &request).is_some());
    }
    // Four seconds' worth, of which Alice's own challenge took one.
    assert_eq!(answered, 19);
    assert_eq!(world.refusals("rate_limited"), 1000 - 19);

    // Whoever has an Allocation, is on a stream or in another network is heard.
    assert_eq!(world.refresh(&mut alice, 600), Ok(600));
    let mut carol = world.phone("carol", 1001, Transport::Tcp);
    assert_eq!(world.allocate(&mut carol), Ok(()));
    let mut dave = world.phone("dave", 1002, Transport::Udp);
    dave.at.client.set_ip("203.0.114.1".parse().unwrap());
    assert_eq!(world.allocate(&mut dave), Ok(()));

    world.advance(Duration::from_secs(2));
    let mut late = world.phone("late", 1003, Transport::Udp);
    assert_eq!(world.allocate(&mut late), Ok(()));
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
    let key = IntegrityKey::short_term("x");
    let mut buffer = [0; 200];
    let bytes = MessageWriter::new(&mut buffer, Class::Request, Method::REFRESH, [1; 12])
        .attribute(AttributeType::USERNAME, b"alice")
        .integrity(IntegrityKind::Sha1, &key)
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

const ALLOCATE: Request = Request::Allocate {
    family: None,
    lifetime: None,
};

/// A Refresh request that is right until something in it is changed.
struct Signed {
    attributes: Vec<(AttributeType, Vec<u8>)>,
    username: String,
    password: String,
    algorithm: PasswordAlgorithm,
    integrity: Option<IntegrityKind>,
}

impl Signed {
    /// A request of Alice, who has an Allocation at port 1000 under another name: what is asked
    /// about here is her password.
    fn new(world: &mut World) -> Signed {
        world.allocated("alice", 1000);
        let expiry = world.unix_now() + Duration::from_secs(60);
        let (username, password) = world.credentials.issue(expiry, "acme", "alice").unwrap();
        let mut phone = Phone::new("", "", 1000, Transport::Udp);
        let request = phone
            .conversation
            .request(Request::Refresh { lifetime: 600 });
        let answer = world.exchange(&phone, &request).unwrap();
        let challenge = Message::parse(&answer).unwrap();
        let attributes = [
            (AttributeType::USERNAME, username.as_bytes()),
            (AttributeType::REALM, b"offhook"),
            (
                AttributeType::NONCE,
                challenge.attribute(AttributeType::NONCE).unwrap(),
            ),
            (AttributeType::PASSWORD_ALGORITHMS, &PasswordAlgorithm::BOTH),
            (AttributeType::PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
        ];
        Signed {
            attributes: attributes.map(|(a, value)| (a, value.to_vec())).into(),
            username,
            password,
            algorithm: PasswordAlgorithm::Sha256,
            integrity: Some(IntegrityKind::Sha256),
        }
    }

    fn remove(&mut self, attribute: AttributeType) {
        self.attributes.retain(|(held, _)| *held != attribute);
    }

    fn set(&mut self, attribute: AttributeType, value: &[u8]) {
        self.remove(attribute);
        self.attributes.push((attribute, value.to_vec()));
    }

    /// Changes one byte of the nonce to another of base64.
    fn nonce_byte(&mut self, at: usize) {
        for (attribute, value) in &mut self.attributes {
            if *attribute == AttributeType::NONCE {
                value[at] = if value[at] == b'A' { b'B' } else { b'A' };
            }
        }
    }

    fn build(&self) -> Vec<u8> {
        let mut buffer = [0; 1000];
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, Method::REFRESH, [3; 12]);
        for (attribute, value) in &self.attributes {
            writer = writer.attribute(*attribute, value);
        }
        if let Some(integrity) = self.integrity {
            let (name, password) = (&self.username, &self.password);
            let key = IntegrityKey::long_term(self.algorithm, name, "offhook", password);
            writer = writer.integrity(integrity, &key);
        }
        writer.finish().unwrap().to_vec()
    }
}
