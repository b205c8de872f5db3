//! The test vectors of RFC 5769.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use relay_stun::{
    AttributeType, Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method,
    PasswordAlgorithm,
};

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

#[test]
fn the_sample_request_verifies() {
    let bytes = hex(
        "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e20746573\
         7420636c69656e74002400046e0001ff80290008932ff9b151263b3600060009\
         6576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249\
         c1b571a280280004e57a3bcf",
    );
    let message = Message::parse(&bytes).unwrap();

    assert_eq!(
        (message.class(), message.method()),
        (Class::Request, Method::BINDING)
    );
    assert_eq!(message.text(AttributeType::USERNAME), Some("evtj:h6vY"));
    assert_eq!(
        message.text(AttributeType::SOFTWARE),
        Some("STUN test client")
    );
    assert_eq!(message.u32(AttributeType::PRIORITY), Some(0x6e00_01ff));
    assert!(message.verify_integrity(&IntegrityKey::short_term(PASSWORD)));
    assert_eq!(message.verify_fingerprint(), Some(true));
}

#[test]
fn the_sample_responses_verify() {
    for (text, mapped) in [
        (
            "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563\
             746f7220002000080001a147e112a643000800142b91f599fd9e90c38c7489f9\
             2af9ba53f06be7d780280004c07d4c96",
            "192.0.2.1:32853",
        ),
        (
            "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563\
             746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014\
             a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c",
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ),
    ] {
        let bytes = hex(text);
        let message = Message::parse(&bytes).unwrap();

        assert_eq!(message.class(), Class::Success);
        assert_eq!(
            message.xor_address(AttributeType::XOR_MAPPED_ADDRESS),
            Some(mapped.parse().unwrap())
        );
        assert!(message.verify_integrity(&IntegrityKey::short_term(PASSWORD)));
        assert_eq!(message.verify_fingerprint(), Some(true));
    }
}

#[test]
fn the_sample_with_long_term_credentials_verifies() {
    let bytes = hex(
        "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383\
         aae38383e382afe382b900000015001c662f2f3439396b39353464364f4c3334\
         6f4c394653547679363473410014000b6578616d706c652e6f72670000080014\
         f67024656dd64a3e02b8e0712e85c9a28ca89666",
    );
    let message = Message::parse(&bytes).unwrap();
    let key = IntegrityKey::long_term(
        PasswordAlgorithm::Md5,
        "マトリックス",
        "example.org",
        "TheMatrIX",
    );

    assert_eq!(message.text(AttributeType::USERNAME), Some("マトリックス"));
    assert_eq!(
        message.text(AttributeType::NONCE),
        Some("f//499k954d6OL34oL9FSTvy64sA")
    );
    assert!(message.verify_integrity(&key));
}

#[test]
fn what_we_write_is_the_sample_byte_for_byte() {
    // The other samples pad with spaces where we pad with zeros.
    let expected = hex(
        "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383\
         aae38383e382afe382b900000015001c662f2f3439396b39353464364f4c3334\
         6f4c394653547679363473410014000b6578616d706c652e6f72670000080014\
         f67024656dd64a3e02b8e0712e85c9a28ca89666",
    );
    let id = expected[8..20].try_into().unwrap();
    let key = IntegrityKey::long_term(
        PasswordAlgorithm::Md5,
        "マトリックス",
        "example.org",
        "TheMatrIX",
    );
    let mut buffer = [0; 200];
    let written = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, id)
        .attribute(AttributeType::USERNAME, "マトリックス".as_bytes())
        .attribute(AttributeType::NONCE, b"f//499k954d6OL34oL9FSTvy64sA")
        .attribute(AttributeType::REALM, b"example.org")
        .integrity(IntegrityKind::Sha1, &key)
        .finish()
        .unwrap();

    assert_eq!(written, expected);
}

#[test]
fn one_flipped_bit_anywhere_is_noticed() {
    let bytes = hex(
        "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563\
         746f7220002000080001a147e112a643000800142b91f599fd9e90c38c7489f9\
         2af9ba53f06be7d780280004c07d4c96",
    );
    let key = IntegrityKey::short_term(PASSWORD);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let passes = Message::parse(&flipped)
            .is_ok_and(|m| m.verify_integrity(&key) && m.verify_fingerprint() == Some(true));
        assert!(!passes, "bit {bit}");
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|digit| u8::try_from((digit as char).to_digit(16).unwrap()).unwrap())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
