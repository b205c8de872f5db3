//! Trunks that are found by SRV, by a name server of the test.

use std::net::SocketAddr;

use gateway_core::transaction::Transport;
use gateway_sip::{Method, StatusCode};
use model::phone::PhoneEventKind;
use model::phone::rows::UserSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::peer::Peer;
use crate::world::{PLENTY, World, telephony, trunk, user};

/// A name server that knows `_sip._udp.trunk.test`: these ports of this machine, by their priority. It says so over TCP; a datagram would be
/// too short, it pretends.
async fn name_server(services: Vec<(u16, u16)>) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let answer = |question: &[u8], flags: [u8; 2], services: &[(u16, u16)]| {
        let mut answer = question.to_vec();
        answer[2..4].copy_from_slice(&flags);
        answer[7] = u8::try_from(services.len()).unwrap();
        for (priority, port) in services {
            // The name of the question, SRV, IN, 60 s, 17 bytes.
            answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 17]);
            answer.extend(priority.to_be_bytes());
            answer.extend([0, 0]);
            answer.extend(port.to_be_bytes());
            answer.extend(b"\x09localhost\0");
        }
        answer
    };
    tokio::spawn(async move {
        let mut question = [0; 512];
        loop {
            let (len, from) = udp.recv_from(&mut question).await.unwrap();
            let cut = answer(&question[..len], [0x83, 0x80], &[]);
            udp.send_to(&cut, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let len = stream.read_u16().await.unwrap();
            let mut question = vec![0; len.into()];
            stream.read_exact(&mut question).await.unwrap();
            assert!(question[12..].starts_with(b"\x04_sip\x04_udp\x05trunk\x04test\0"));
            let whole = answer(&question, [0x81, 0x80], &services);
            let len = u16::try_from(whole.len()).unwrap();
            stream.write_u16(len).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_trunk_is_found_by_its_services_and_who_takes_no_call_is_left_alone_for_a_while() {
    let mut first = Peer::udp("127.0.0.1").await;
    let mut second = Peer::udp("127.0.0.1").await;
    // The one that is to be tried first stands last.
    let services = vec![(20, second.address.port()), (10, first.address.port())];
    let settings = format!("dns_servers = ['{}']", name_server(services).await);
    let trunks = [("provider", trunk(&["sip:trunk.test".to_owned()]))];
    let mut rows = telephony(trunks);
    let alice = UserSettings {
        limits: PLENTY,
        ..UserSettings::default()
    };
    rows.users.insert(user(), alice);
    let mut t = World::new(&settings, rows).await;
    t.until(|figures| figures.trunks_up == 1).await;
    let here = t.address(Transport::Udp);
    (first, second) = (first.toward(here), second.toward(here));

    let call = t.dial("tel:+49891234567").await;
    let invite = first.request(&Method::Invite).await;
    assert!(invite.target.starts_with("sip:+49891234567@trunk.test"));
    first
        .answer(&invite, StatusCode::SERVICE_UNAVAILABLE, |_| {})
        .await;
    let invite = second.request(&Method::Invite).await;
    second.pick_up(&invite).await;
    while t.event().await != (call, PhoneEventKind::Answered) {}

    t.dial("tel:+49891234568").await;
    let invite = second.request(&Method::Invite).await;
    assert!(invite.target.starts_with("sip:+49891234568@trunk.test"));
    first.request(&Method::Ack).await;
    assert!(first.hears_nothing());
}
