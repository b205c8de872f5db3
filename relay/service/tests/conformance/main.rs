//! What the RFCs demand and no other program's client asks for, over real sockets and every
//! transport: one row for each requirement.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table is shown, and what is skipped is said"
)]

use std::net::{Ipv6Addr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};

use relay_core::Transport;
use relay_stun::{AttributeType, ErrorCode, Method};

use crate::options::{WHERE_ALL_IS_ON, WITH_TCP_PEERS};
use crate::phone::{Rig, udp};
use crate::requirements::BY_DEFAULT;

#[path = "../common/mod.rs"]
mod common;
mod options;
mod phone;
mod requirements;
mod wire;

/// Section, what it demands, and how that is seen.
type Requirement = (&'static str, &'static str, fn(&Rig));

#[test]
fn what_the_rfcs_demand_holds_over_every_transport() {
    let mut unmet = Vec::new();
    for v6_wanted in [true, false] {
        let has_ipv6 = v6_wanted && UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        if v6_wanted && !has_ipv6 {
            eprintln!("SKIPPED with both families: no ::1 on this machine");
            continue;
        }
        for transport in Transport::ALL {
            let rig = Rig::start(has_ipv6, transport, |_| {});
            unmet.extend(unmet_by(&rig, BY_DEFAULT));
            let rig = Rig::start(has_ipv6, transport, |config| {
                config.tcp_allocations = true;
                config.peers_allow = vec!["127.0.0.0/8".to_owned(), "::1".to_owned()];
            });
            unmet.extend(unmet_by(&rig, WHERE_ALL_IS_ON));
            if rig.is_byte_stream() {
                unmet.extend(unmet_by(&rig, WITH_TCP_PEERS));
            }
        }
    }
    assert!(unmet.is_empty(), "{unmet:#?}");
}

/// Shows the table as it holds here; returns the rows that don't.
fn unmet_by(rig: &Rig, requirements: &[Requirement]) -> Vec<String> {
    let families = if rig.has_ipv6 { "IPv4, IPv6" } else { "IPv4" };
    let transport = rig.transport.name();
    let mut unmet = Vec::new();
    for (section, demand, check) in requirements {
        let verdict = match catch_unwind(AssertUnwindSafe(|| check(rig))) {
            Ok(()) => "ok",
            Err(_) => "NO",
        };
        let row = format!("{verdict}  RFC {section:20} {transport:4} {families:10}  {demand}");
        println!("{row}");
        unmet.extend((verdict != "ok").then_some(row));
    }
    unmet
}

#[test]
fn what_runs_out_has_its_code() {
    for transport in Transport::ALL {
        let rig = Rig::start(false, transport, |config| {
            config.allocations_per_user_max = 2;
        });
        let (_one, _two) = (rig.allocated("alice"), rig.allocated("alice"));
        let quota = ErrorCode::ALLOCATION_QUOTA_REACHED;
        rig.phone("alice")
            .is_refused(Method::ALLOCATE, vec![udp()], quota);
        rig.allocated("bob");

        // Two ports that no relay before had.
        let first = 45_990 + 2 * transport as u16;
        let rig = Rig::start(false, transport, |config| {
            config.port_min = first;
            config.port_max = first + 1;
        });
        let (_one, _two) = (rig.allocated("alice"), rig.allocated("bob"));
        let full = ErrorCode::INSUFFICIENT_CAPACITY;
        rig.phone("alice")
            .is_refused(Method::ALLOCATE, vec![udp()], full);
    }
}

/// RFC 8016 §3.1.2.
#[test]
fn where_mobility_is_off_it_is_forbidden() {
    for transport in Transport::ALL {
        let rig = Rig::start(false, transport, |config| config.mobility = false);
        let ticket = (AttributeType::MOBILITY_TICKET, vec![]);
        rig.phone("alice").is_refused(
            Method::ALLOCATE,
            vec![udp(), ticket],
            ErrorCode::MOBILITY_FORBIDDEN,
        );
    }
}

/// RFC 8489 §10.
#[test]
fn a_relay_that_drains_names_another() {
    for transport in Transport::ALL {
        let rig = Rig::start(false, transport, |config| {
            config.alternate_servers = vec!["203.0.113.8:3478".parse().unwrap()];
            config.alternate_domain = Some("turn.example.com".to_owned());
        });
        let mut held = rig.allocated("alice");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(rig.relay.set_draining(true));

        let mut late = rig.phone("bob");
        let answer = late.ask(Method::ALLOCATE, vec![udp()]);
        assert_eq!(answer.code(), ErrorCode::TRY_ALTERNATE);
        let server = answer.value(AttributeType::ALTERNATE_SERVER).unwrap();
        assert_eq!(
            relay_stun::decode_address(server),
            Some("203.0.113.8:3478".parse().unwrap())
        );
        let domain = answer.value(AttributeType::ALTERNATE_DOMAIN);
        assert_eq!(domain.unwrap(), b"turn.example.com");
        assert!(answer.message().verify_integrity(&late.key()));
        held.ask(Method::REFRESH, vec![]).succeeds();
    }
}
