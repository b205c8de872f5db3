//! Binding requests that find out how a NAT behaves (RFC 5780).

use relay_core::{Discovery, FiveTuple, Transport};
use relay_stun::{AttributeType, Class, ErrorCode, Message, MessageWriter, Method, decode_address};

use crate::world::{Phone, World};

const PRIMARY: &str = "7.7.7.7:3478";
const ALTERNATE: &str = "7.7.7.8:3479";

fn world() -> World {
    World::with(|config| {
        config.discovery = vec![Discovery {
            primary: PRIMARY.parse().unwrap(),
            alternate: ALTERNATE.parse().unwrap(),
        }];
    })
}

/// Asks at `server`; gives back where the answer went and what it is.
fn ask(
    world: &mut World,
    server: &str,
    transport: Transport,
    attributes: &[(AttributeType, &[u8])],
) -> (FiveTuple, Vec<u8>) {
    let mut phone = Phone::new("", "", 1000, transport);
    phone.at.server = server.parse().unwrap();
    let mut buffer = [0; 3000];
    let mut writer = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, [1; 12]);
    for (attribute, value) in attributes {
        writer = writer.attribute(*attribute, value);
    }
    let request = writer.finish().unwrap();
    assert_eq!(world.client_sends(&phone, request), None);
    world.sent.pop().unwrap()
}

#[test]
fn an_answer_comes_from_where_it_was_asked_to_come() {
    let check = |server: &str, flags: u8, origin: &str, other: &str| {
        let change = [0, 0, 0, flags];
        let attributes = [(AttributeType::CHANGE_REQUEST, &change[..])];
        let (to, bytes) = ask(&mut world(), server, Transport::Udp, &attributes);
        let message = Message::parse(&bytes).unwrap();
        let address = |attribute| {
            let value = message.attribute(attribute).and_then(decode_address);
            value.unwrap().to_string()
        };
        assert_eq!(to.server.to_string(), origin);
        assert_eq!(to.client.to_string(), "203.0.113.1:1000");
        assert_eq!(address(AttributeType::RESPONSE_ORIGIN), origin);
        assert_eq!(address(AttributeType::OTHER_ADDRESS), other);
        assert_eq!(address(AttributeType::MAPPED_ADDRESS), "203.0.113.1:1000");
        assert_eq!(
            message.xor_address(AttributeType::XOR_MAPPED_ADDRESS),
            Some(to.client)
        );
    };

    check(PRIMARY, 0, PRIMARY, ALTERNATE);
    check(PRIMARY, 2, "7.7.7.7:3479", ALTERNATE);
    check(PRIMARY, 4, "7.7.7.8:3478", ALTERNATE);
    check(PRIMARY, 6, ALTERNATE, ALTERNATE);
    check(ALTERNATE, 6, PRIMARY, PRIMARY);
    check("7.7.7.8:3478", 0, "7.7.7.8:3478", "7.7.7.7:3479");
    check("7.7.7.8:3478", 4, PRIMARY, "7.7.7.7:3479");
}

#[test]
fn an_answer_goes_to_another_port_of_the_same_client_only() {
    let attributes = [(AttributeType::RESPONSE_PORT, &[0x12, 0x34][..])];
    let (to, bytes) = ask(&mut world(), PRIMARY, Transport::Udp, &attributes);
    assert_eq!(to.client.to_string(), "203.0.113.1:4660");
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(
        message.xor_address(AttributeType::XOR_MAPPED_ADDRESS),
        Some("203.0.113.1:1000".parse().unwrap())
    );
}

#[test]
fn padding_is_answered_with_no_more_than_it_brought() {
    for len in [0, 1, 400, 1300, 2900] {
        let padding = vec![0; len];
        let attributes = [(AttributeType::PADDING, &padding[..])];
        let (_, bytes) = ask(&mut world(), PRIMARY, Transport::Udp, &attributes);
        let message = Message::parse(&bytes).unwrap();
        let answered = message.attribute(AttributeType::PADDING).unwrap().len();
        assert_eq!(answered, len.min(1344));
        assert!(bytes.len() <= 1472);
    }
}

#[test]
fn what_contradicts_itself_or_is_not_offered_is_refused() {
    let code = |world: &mut World, server: &str, transport, attributes: &[_]| {
        let (_, bytes) = ask(world, server, transport, attributes);
        Message::parse(&bytes).unwrap().error_code()
    };
    let change = (AttributeType::CHANGE_REQUEST, &[0, 0, 0, 6][..]);
    let port = (AttributeType::RESPONSE_PORT, &[1, 2][..]);
    let padding = (AttributeType::PADDING, &[0; 8][..]);
    let short = (AttributeType::CHANGE_REQUEST, &[0, 0][..]);
    let bad = Some(ErrorCode::BAD_REQUEST);
    let unknown = Some(ErrorCode::UNKNOWN_ATTRIBUTE);

    let udp = Transport::Udp;
    assert_eq!(code(&mut world(), PRIMARY, udp, &[port, padding]), bad);
    assert_eq!(code(&mut world(), PRIMARY, udp, &[short]), bad);
    assert_eq!(code(&mut world(), "7.7.7.7:443", udp, &[change]), unknown);
    assert_eq!(
        code(&mut world(), PRIMARY, Transport::Tcp, &[change]),
        unknown
    );
    for attribute in [change, port, padding] {
        assert_eq!(code(&mut World::new(), PRIMARY, udp, &[attribute]), unknown);
    }
}
