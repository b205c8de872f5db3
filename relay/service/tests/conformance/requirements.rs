//! What holds of a relay with nothing but its defaults.

use std::net::SocketAddr;

use relay_stun::{
    AddressFamily, AttributeType, ErrorCode, IntegrityKind, Method, PasswordAlgorithm,
    SecurityFeatures,
};

use crate::Requirement;
use crate::phone::{bare, tcp, udp};

pub(crate) const BY_DEFAULT: &[Requirement] = &[
    ("8489 §5", "a wrong cookie is no STUN", |rig| {
        let mut bytes = bare(Method::BINDING, &[]);
        bytes[4] ^= 1;
        rig.phone("alice").is_not_answered(&bytes);
    }),
    (
        "8489 §6.3.1",
        "what must be understood and is not is named",
        |rig| {
            let mut alice = rig.phone("alice");
            let unknown = vec![
                udp(),
                (AttributeType(0x7ABC), vec![1]),
                (AttributeType(0x7ABD), vec![]),
            ];
            let answer = alice.ask(Method::ALLOCATE, unknown);
            assert_eq!(answer.code(), ErrorCode::UNKNOWN_ATTRIBUTE);
            let named = answer.value(AttributeType::UNKNOWN_ATTRIBUTES);
            assert_eq!(named.unwrap(), [0x7A, 0xBC, 0x7A, 0xBD]);
        },
    ),
    ("8489 §6.3.1", "what may be ignored is", |rig| {
        let attributes = vec![udp(), (AttributeType(0xFABC), vec![1, 2, 3])];
        rig.phone("alice")
            .ask(Method::ALLOCATE, attributes)
            .succeeds();
    }),
    (
        "8489 §6.3.3",
        "Binding tells the client's address, without credentials",
        |rig| {
            let alice = rig.phone("alice");
            let answer = alice.exchange(&bare(Method::BINDING, &[])).unwrap();
            answer.succeeds();
            assert_eq!(answer.mapped(), Some(alice.wire.local()));
            assert_eq!(answer.value(AttributeType::REALM), None);
        },
    ),
    ("8489 §7.3", "a wrong FINGERPRINT is not answered", |rig| {
        let mut bytes = bare(Method::BINDING, &[(AttributeType::FINGERPRINT, vec![0; 4])]);
        rig.phone("alice").is_not_answered(&bytes);
        bytes = bare(Method::BINDING, &[]);
        assert!(rig.phone("alice").exchange(&bytes).is_some());
    }),
    (
        "8489 §9.2",
        "a nonce begins with what the server can",
        |rig| {
            let alice = rig.phone("alice");
            let features = SecurityFeatures::of_nonce(&alice.nonce).unwrap();
            assert!(features.password_algorithms && features.username_anonymity);
            assert_eq!(alice.offered, PasswordAlgorithm::BOTH);
        },
    ),
    (
        "8489 §9.2.4",
        "no integrity: 401 with REALM and NONCE",
        |rig| {
            let answer = rig
                .phone("alice")
                .exchange(&bare(Method::ALLOCATE, &[udp()]))
                .unwrap();
            assert_eq!(answer.code(), ErrorCode::UNAUTHORIZED);
            assert!(answer.value(AttributeType::REALM).is_some());
            assert!(answer.value(AttributeType::NONCE).is_some());
            assert!(answer.value(AttributeType::SOFTWARE).is_none());
        },
    ),
    (
        "8489 §9.2.4",
        "that 401 is at most three times the request, with IP and UDP",
        |rig| {
            let request = bare(Method::ALLOCATE, &[]);
            let answer = rig.phone("alice").exchange(&request).unwrap();
            assert!(
                answer.0.len() + 28 <= 3 * (request.len() + 28),
                "{}",
                answer.0.len()
            );
        },
    ),
    (
        "8489 §9.2.4",
        "integrity without NONCE or REALM: 400",
        |rig| {
            for missing in [
                AttributeType::NONCE,
                AttributeType::REALM,
                AttributeType::USERNAME,
            ] {
                let mut alice = rig.phone("alice");
                alice.without = Some(missing);
                alice.is_refused(Method::ALLOCATE, vec![udp()], ErrorCode::BAD_REQUEST);
            }
        },
    ),
    ("8489 §9.2.4", "a wrong password: 401", |rig| {
        let mut alice = rig.phone("alice");
        alice.password = "guessed".to_owned();
        alice.is_refused(Method::ALLOCATE, vec![udp()], ErrorCode::UNAUTHORIZED);
    }),
    (
        "8489 §9.2.4",
        "a nonce that is not ours: 438 with another, which holds",
        |rig| {
            let mut alice = rig.phone("alice");
            *alice.nonce.last_mut().unwrap() ^= 1;
            let answer = alice.ask(Method::ALLOCATE, vec![udp()]);
            assert_eq!(answer.code(), ErrorCode::STALE_NONCE);
            alice.nonce = answer.value(AttributeType::NONCE).unwrap().to_vec();
            alice.ask(Method::ALLOCATE, vec![udp()]).succeeds();
        },
    ),
    (
        "8489 §9.2.4",
        "a nonce is of no use to another address",
        |rig| {
            let mut alice = rig.phone("alice");
            alice.nonce = rig.phone("alice").nonce;
            alice.is_refused(Method::ALLOCATE, vec![udp()], ErrorCode::STALE_NONCE);
        },
    ),
    (
        "8489 §9.2.4",
        "a nonce whose bits somebody took away: 438",
        |rig| {
            let mut alice = rig.phone("alice");
            alice.nonce[9..13].copy_from_slice(b"AAAA");
            alice.legacy = true; // As it must take the server to be.
            alice.is_refused(Method::ALLOCATE, vec![udp()], ErrorCode::STALE_NONCE);
        },
    ),
    (
        "8489 §9.2.4",
        "a list of algorithms that somebody changed: 400",
        |rig| {
            for offered in [&[0, 1, 0, 0][..], &[0, 1, 0, 0, 0, 2, 0, 0], &[]] {
                let mut alice = rig.phone("alice");
                alice.offered = offered.to_vec();
                alice.is_refused(Method::ALLOCATE, vec![udp()], ErrorCode::BAD_REQUEST);
            }
        },
    ),
    (
        "8489 §9.2.4",
        "an algorithm that was not offered: 400",
        |rig| {
            let mut alice = rig.phone("alice");
            alice.chosen = vec![0, 9, 0, 0];
            alice.is_refused(Method::ALLOCATE, vec![udp()], ErrorCode::BAD_REQUEST);
        },
    ),
    (
        "8489 §9.2.4, §14.6",
        "SHA-256 throughout, and the answer is protected with it",
        |rig| {
            let mut alice = rig.phone("alice");
            let answer = alice.ask(Method::ALLOCATE, vec![udp()]);
            answer.succeeds();
            assert_eq!(
                answer.message().integrity_kind(),
                Some(IntegrityKind::Sha256)
            );
            assert!(answer.message().verify_integrity(&alice.key()));
        },
    ),
    (
        "8489 §9.2.4",
        "MD5 and SHA-1 for who knows no more",
        |rig| {
            let mut alice = rig.phone("alice");
            alice.legacy = true;
            let answer = alice.ask(Method::ALLOCATE, vec![udp()]);
            answer.succeeds();
            assert_eq!(answer.message().integrity_kind(), Some(IntegrityKind::Sha1));
            assert!(answer.message().verify_integrity(&alice.key()));
        },
    ),
    ("8489 §14.4", "USERHASH stands for the name", |rig| {
        let mut alice = rig.phone("alice");
        alice.anonymous = true;
        alice.ask(Method::ALLOCATE, vec![udp()]).succeeds();
        let mut nobody = rig.phone("nobody");
        nobody.anonymous = true;
        nobody.is_refused(Method::ALLOCATE, vec![udp()], ErrorCode::UNAUTHORIZED);
    }),
    (
        "8489 §14.5",
        "what stands behind the integrity does not count",
        |rig| {
            let mut alice = rig.phone("alice");
            alice.behind = vec![(AttributeType(0x7ABC), vec![1])];
            alice.ask(Method::ALLOCATE, vec![udp()]).succeeds();
        },
    ),
    (
        "8656 §7.2",
        "no REQUESTED-TRANSPORT: 400; TCP or SCTP toward a peer: 442",
        |rig| {
            let mut alice = rig.phone("alice");
            alice.is_refused(Method::ALLOCATE, vec![], ErrorCode::BAD_REQUEST);
            let sctp = (AttributeType::REQUESTED_TRANSPORT, vec![132, 0, 0, 0]);
            for transport in [tcp(), sctp] {
                let code = ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL;
                alice.is_refused(Method::ALLOCATE, vec![transport], code);
            }
        },
    ),
    (
        "8656 §7.2",
        "a success says where peers reach the client, where it is itself, and until when",
        |rig| {
            let mut alice = rig.phone("alice");
            let answer = alice.ask(Method::ALLOCATE, vec![udp()]);
            assert_eq!(answer.relayed().len(), 1);
            assert_eq!(answer.mapped(), Some(alice.wire.local()));
            assert_eq!(answer.lifetime(), Some(600));
        },
    ),
    (
        "8656 §7.2, §8.2",
        "a lifetime is granted within bounds",
        |rig| {
            let lifetime = |seconds: u32| (AttributeType::LIFETIME, seconds.to_be_bytes().to_vec());
            for (asked, granted) in [(1, 600), (601, 601), (u32::MAX, 3600)] {
                let mut alice = rig.phone("alice");
                let answer = alice.ask(Method::ALLOCATE, vec![udp(), lifetime(asked)]);
                assert_eq!(answer.lifetime(), Some(granted));
                let answer = alice.ask(Method::REFRESH, vec![lifetime(asked)]);
                assert_eq!(answer.lifetime(), Some(granted));
            }
        },
    ),
    (
        "8656 §7.2",
        "a retransmitted Allocate has the same answer, another is 437",
        |rig| {
            let mut alice = rig.phone("alice");
            let request = alice.signed(Method::ALLOCATE, vec![udp()]);
            let first = alice.exchange(&request).unwrap();
            first.succeeds();
            let again = alice.exchange(&request).unwrap();
            assert_eq!(first.relayed(), again.relayed());
            alice.is_refused(
                Method::ALLOCATE,
                vec![udp()],
                ErrorCode::ALLOCATION_MISMATCH,
            );
        },
    ),
    (
        "8656 §7.2",
        "an unknown family: 440, and one that is missing here",
        |rig| {
            for family in [0, 3] {
                let wanted = (
                    AttributeType::REQUESTED_ADDRESS_FAMILY,
                    vec![family, 0, 0, 0],
                );
                let code = ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED;
                rig.phone("alice")
                    .is_refused(Method::ALLOCATE, vec![udp(), wanted], code);
            }
        },
    ),
    (
        "8656 §7.2",
        "both families, or ADDRESS-ERROR-CODE for the one that is missing",
        |rig| {
            let both = (AttributeType::ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0]);
            let answer = rig.phone("alice").ask(Method::ALLOCATE, vec![udp(), both]);
            answer.succeeds();
            let missing = answer.message().address_error_code();
            if rig.has_ipv6 {
                assert_eq!((answer.relayed().len(), missing), (2, None));
            } else {
                let code = ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED;
                assert_eq!(
                    (answer.relayed().len(), missing),
                    (1, Some((AddressFamily::V6, code)))
                );
            }
        },
    ),
    ("8656 §7.2", "what contradicts itself: 400", |rig| {
        let family = (AttributeType::REQUESTED_ADDRESS_FAMILY, vec![1, 0, 0, 0]);
        let additional = (AttributeType::ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0]);
        let token = (AttributeType::RESERVATION_TOKEN, vec![7; 8]);
        let even = (AttributeType::EVEN_PORT, vec![0x80]);
        for contradiction in [
            vec![family.clone(), additional.clone()],
            vec![token.clone(), family],
            vec![token.clone(), even.clone()],
            vec![token, additional.clone()],
            vec![even, additional],
        ] {
            let asked = [vec![udp()], contradiction].concat();
            rig.phone("alice")
                .is_refused(Method::ALLOCATE, asked, ErrorCode::BAD_REQUEST);
        }
    }),
    (
        "8656 §7.2, §14.7",
        "the next port is kept for its User, and a thief gets nothing",
        |rig| {
            let even = (AttributeType::EVEN_PORT, vec![0x80]);
            let answer = rig.phone("alice").ask(Method::ALLOCATE, vec![udp(), even]);
            let port = answer.relayed()[0].port();
            assert_eq!(port % 2, 0);
            let token = answer
                .value(AttributeType::RESERVATION_TOKEN)
                .unwrap()
                .to_vec();
            let token = (AttributeType::RESERVATION_TOKEN, token);
            let asked = vec![udp(), token];
            let code = ErrorCode::INSUFFICIENT_CAPACITY;
            rig.phone("bob")
                .is_refused(Method::ALLOCATE, asked.clone(), code);
            let mut alice = rig.phone("alice");
            assert_eq!(
                alice.ask(Method::ALLOCATE, asked.clone()).relayed()[0].port(),
                port + 1
            );
            rig.phone("alice").is_refused(Method::ALLOCATE, asked, code);
        },
    ),
    (
        "8656 §8.2",
        "a Refresh without Allocation: 437; of another User: 441; wrong family: 443",
        |rig| {
            let mut alice = rig.phone("alice");
            alice.is_refused(Method::REFRESH, vec![], ErrorCode::ALLOCATION_MISMATCH);
            alice.ask(Method::ALLOCATE, vec![udp()]).succeeds();
            let family = (AttributeType::REQUESTED_ADDRESS_FAMILY, vec![2, 0, 0, 0]);
            alice.is_refused(
                Method::REFRESH,
                vec![family],
                ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH,
            );
            "acme:bob".clone_into(&mut alice.username);
            alice.is_refused(Method::REFRESH, vec![], ErrorCode::WRONG_CREDENTIALS);
            "acme:alice".clone_into(&mut alice.username);
            let end = (AttributeType::LIFETIME, vec![0; 4]);
            alice.ask(Method::REFRESH, vec![end]).succeeds();
            alice.is_refused(Method::REFRESH, vec![], ErrorCode::ALLOCATION_MISMATCH);
        },
    ),
    (
        "8656 §10.2",
        "CreatePermission without a peer: 400; for the other family: 443",
        |rig| {
            let mut alice = rig.allocated("alice");
            alice.is_refused(Method::CREATE_PERMISSION, vec![], ErrorCode::BAD_REQUEST);
            let code = ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH;
            let peer = "[2a00:1450::1]:5000".parse().unwrap();
            let (request, _) = alice.with_peer(Method::CREATE_PERMISSION, &[peer], vec![]);
            assert_eq!(alice.exchange(&request).unwrap().code(), code);
        },
    ),
    (
        "8656 §10.2",
        "of several peers one is forbidden: none is permitted",
        |rig| {
            let alice = rig.allocated("alice");
            let peers = ["8.8.8.8:5000", "10.0.0.1:5000"].map(|peer| peer.parse().unwrap());
            let (request, _) = alice.with_peer(Method::CREATE_PERMISSION, &peers, vec![]);
            assert_eq!(
                alice.exchange(&request).unwrap().code(),
                ErrorCode::FORBIDDEN
            );
        },
    ),
    (
        "8656 §12.2",
        "a Channel has a number of its range, one peer, and no port below 1024",
        |rig| {
            let mut alice = rig.allocated("alice");
            let peer: SocketAddr = "8.8.8.8:5000".parse().unwrap();
            for (number, peer, expected) in [
                (0x3FFF, peer, Some(ErrorCode::BAD_REQUEST)),
                (0x8000, peer, Some(ErrorCode::BAD_REQUEST)),
                (
                    0x4000,
                    "8.8.8.8:53".parse().unwrap(),
                    Some(ErrorCode::FORBIDDEN),
                ),
                (0x4000, peer, None),
                (0x4000, peer, None),
                (
                    0x4000,
                    "8.8.4.4:5000".parse().unwrap(),
                    Some(ErrorCode::BAD_REQUEST),
                ),
                (0x4001, peer, Some(ErrorCode::BAD_REQUEST)),
            ] {
                assert_eq!(alice.bind(number, peer), expected, "{number:#x} {peer}");
            }
        },
    ),
    (
        "8656 §11.2",
        "data without Permission goes nowhere, in silence",
        |rig| {
            let alice = rig.allocated("alice");
            let (_, send) = alice.with_peer(
                Method::SEND,
                &["8.8.8.8:5000".parse().unwrap()],
                vec![(AttributeType::DATA, vec![1])],
            );
            alice.wire.send(&send);
            let answer = alice.exchange(&bare(Method::BINDING, &[])).unwrap();
            assert_eq!(answer.message().method(), Method::BINDING);
        },
    ),
    (
        "8656 §21",
        "a denied peer is denied in every form its address can take",
        |rig| {
            let mut alice = rig.allocated("alice");
            let mut over_v6 = rig.phone("alice");
            if rig.has_ipv6 {
                let v6 = (AttributeType::REQUESTED_ADDRESS_FAMILY, vec![2, 0, 0, 0]);
                over_v6.ask(Method::ALLOCATE, vec![udp(), v6]).succeeds();
            }
            for ip in DENIED.iter().chain(LOOPBACK) {
                let peer = SocketAddr::new(ip.parse().unwrap(), 5000);
                let phone = match peer.is_ipv4() {
                    true => &mut alice,
                    false if rig.has_ipv6 => &mut over_v6,
                    false => continue,
                };
                assert_eq!(phone.bind(0x4000, peer), Some(ErrorCode::FORBIDDEN), "{ip}");
                // A Permission names no port, and on loopback Allocations live.
                if !LOOPBACK.contains(ip) {
                    assert_eq!(phone.permit(peer), Some(ErrorCode::FORBIDDEN), "{ip}");
                }
            }
        },
    ),
    (
        "8656 §21",
        "an own address without a live Allocation behind it: 403",
        |rig| {
            let mut alice = rig.allocated("alice");
            let mut bob = rig.phone("bob");
            let live = bob.ask(Method::ALLOCATE, vec![udp()]).relayed()[0];
            assert_eq!(alice.bind(0x4000, live), None);
            let end = (AttributeType::LIFETIME, vec![0; 4]);
            bob.ask(Method::REFRESH, vec![end]).succeeds();
            for own in [live, rig.server(), rig.relay.udp_addresses()[0]] {
                assert_eq!(alice.bind(0x4001, own), Some(ErrorCode::FORBIDDEN), "{own}");
            }
        },
    ),
];

/// Each is denied by default: by its own range, or as an IPv4 address in disguise.
const DENIED: &[&str] = &[
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::2",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd12::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::10.0.0.1",
    "::ffff:0:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::192.168.1.1",
    "2002:a00:1::1",
    "2001:0:a00:1::1",
];

/// The same for loopback.
const LOOPBACK: &[&str] = &[
    "127.0.0.1",
    "127.255.255.254",
    "::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::1",
];
