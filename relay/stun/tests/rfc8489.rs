//! The test vector of RFC 8489, appendix B.1, as corrected by erratum 6268.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use relay_stun::{
    AttributeType, IntegrityKey, IntegrityKind, Message, PasswordAlgorithm, SecurityFeatures,
    userhash,
};

#[test]
fn the_sample_with_sha256_and_a_userhash_verifies() {
    let bytes = hex(
        "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bd\
         a952c6780417da0f24819415569e60b205c46e41407f1704001500296f624d61\
         744a6f733241414143662f2f3439396b39353464364f4c33346f4c394653547679\
         363473410000000014000b6578616d706c652e6f726700001d00040002000000\
         1c0020b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6\
         518e65",
    );
    let message = Message::parse(&bytes).unwrap();
    let (username, realm) = ("マトリックス", "example.org");
    let key = IntegrityKey::long_term(PasswordAlgorithm::Sha256, username, realm, "TheMatrIX");

    assert_eq!(
        message.attribute(AttributeType::USERHASH),
        Some(&userhash(username, realm)[..])
    );
    assert_eq!(message.text(AttributeType::REALM), Some(realm));
    assert_eq!(
        SecurityFeatures::of_nonce(message.attribute(AttributeType::NONCE).unwrap()),
        Some(SecurityFeatures {
            password_algorithms: false,
            username_anonymity: true
        })
    );
    assert_eq!(
        message
            .attribute(AttributeType::PASSWORD_ALGORITHM)
            .and_then(PasswordAlgorithm::from_value),
        Some(PasswordAlgorithm::Sha256)
    );
    assert_eq!(message.integrity_kind(), Some(IntegrityKind::Sha256));
    assert!(message.verify_integrity(&key));
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
