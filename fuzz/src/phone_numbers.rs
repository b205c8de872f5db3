//! Whom a client, a provider or a desk phone says it wants to call.

use model::phone::{Keys, PHONE_TARGET_LEN_MAX, PhoneTarget};

/// A target, and keys. What is taken has one spelling, which fits where the id of a User does and has nothing in it that could
/// end a line of SIP.
pub(crate) fn phone_target(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(keys) = text.parse::<Keys>() {
        assert_eq!(keys.to_string(), text);
    }
    let Ok(target) = text.parse::<PhoneTarget>() else {
        return;
    };

    let spelt = target.as_str();
    assert!(spelt.len() <= PHONE_TARGET_LEN_MAX);
    assert!(
        spelt.bytes().all(|byte| byte.is_ascii_graphic()),
        "{spelt:?}"
    );
    assert!(!spelt.contains(['<', '>', '"', '?', '%']));
    assert_eq!(spelt.parse().as_ref(), Ok(&target));
    let user = target.user_id();
    assert!(user.is_of_phone());
    assert_eq!(user.as_str().parse(), Ok(user.clone()));
    assert_eq!(PhoneTarget::of_user(&user).as_ref(), Some(&target));
    assert_eq!(target.global_number().is_some(), spelt.starts_with("tel:+"));
}
