//! Ids are types, never bare strings. All but a User's are ULIDs in their canonical text form: 26 upper case characters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use crate::phone::PhoneTarget;
use crate::time::Timestamp;

/// The longest id of a User, in bytes.
pub const USER_ID_LEN_MAX: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 26 characters of Crockford's base 32 in upper case.
    #[error("not a ULID of 26 upper case characters")]
    Ulid,
    /// Empty, longer than [`USER_ID_LEN_MAX`] bytes, or with control characters.
    #[error("not a user id of 1 to {USER_ID_LEN_MAX} bytes without control characters")]
    User,
}

macro_rules! ulid_id {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// Makes an id of the time it is made at and 80 random bits (the upper 48 of `random` are ignored).
            pub const fn from_parts(at: Timestamp, random: u128) -> Self {
                Self(Ulid::from_parts(at.as_millis(), random))
            }

            /// The id as a number; sorts as the text does.
            pub const fn as_u128(self) -> u128 {
                u128::from_be_bytes(self.0.to_bytes())
            }

            /// The id of a number; the inverse of `as_u128`.
            pub const fn from_u128(value: u128) -> Self {
                Self(Ulid::from_bytes(value.to_be_bytes()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = [0; ulid::ULID_LEN];
                f.write_str(self.0.array_to_str(&mut buffer))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                canonical_ulid(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut buffer = [0; ulid::ULID_LEN];
                serializer.serialize_str(self.0.array_to_str(&mut buffer))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor(PhantomId::<Self>::NEW))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let doc = concat!($($doc,)*).trim();
                json_schema!({ "type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$", "description": doc })
            }
        }
    )*};
}

ulid_id! {
    /// One organisation on this server.
    AccountId,
    /// One installed client of a User.
    DeviceId,
    /// A Device's presence on the server.
    SessionId,
    /// An invitation and what became of it.
    CallId,
    /// A frame, made by its sender; a command keeps it when it is sent again.
    MessageId,
    /// One process of the server.
    NodeId,
    /// What an Account's backend signs access tokens with: the `iss` of a token.
    ApiKeyId,
    /// Where media meets, from the first Participant to the last.
    RoomId,
    /// A Session, or a phone, present in a Room.
    ParticipantId,
    /// One microphone, camera or screen of a Participant.
    TrackId,
    /// One side of a bridged phone call.
    LegId,
    /// A message in a mailbox.
    VoicemailId,
}

/// A person in an Account: the `sub` of the access token, 1 to [`USER_ID_LEN_MAX`] bytes without control characters.
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The place of a User in a Call, taken by a phone.
    pub(crate) fn of_phone(target: &PhoneTarget) -> Self {
        Self(target.as_str().into()) // a target is as short, and has no control characters
    }

    /// Whether the id would name a phone: it begins with `tel:`, `sip:` or `sips:`. Nobody may sign in under it.
    pub fn is_of_phone(&self) -> bool {
        crate::phone::is_of_phone(&self.0)
    }
}

impl FromStr for UserId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=USER_ID_LEN_MAX).contains(&text.len());

        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::User)
        }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomId::<Self>::NEW))
    }
}

impl JsonSchema for UserId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "UserId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": USER_ID_LEN_MAX,
            "description": "A person in an Account: the `sub` of the access token.",
        })
    }
}

/// Only the canonical spelling is an id: what we echo must equal what we were told.
fn canonical_ulid(text: &str) -> Result<Ulid, IdError> {
    let ulid = Ulid::from_string(text).map_err(|_| IdError::Ulid)?;
    let mut buffer = [0; ulid::ULID_LEN];

    if ulid.array_to_str(&mut buffer) == text {
        Ok(ulid)
    } else {
        Err(IdError::Ulid)
    }
}

/// Reads an id from borrowed text, so that no string is allocated for it.
struct TextVisitor<T>(PhantomId<T>);

struct PhantomId<T>(std::marker::PhantomData<T>);

impl<T> PhantomId<T> {
    const NEW: Self = Self(std::marker::PhantomData);
}

impl<T: FromStr<Err = IdError>> serde::de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_of_a_ulid_is_an_id() {
        let check =
            |text: &str, valid: bool| assert_eq!(text.parse::<CallId>().is_ok(), valid, "{text}");

        check("01ARZ3NDEKTSV4RRFFQ69G5FAV", true);
        check("01arz3ndektsv4rrffq69g5fav", false);
        check("81ARZ3NDEKTSV4RRFFQ69G5FAV", false);
        check("01ARZ3NDEKTSV4RRFFQ69G5FA", false);
        check("01ARZ3NDEKTSV4RRFFQ69G5FAI", false);
        check("", false);
    }

    #[test]
    fn ids_are_plain_strings_in_json() {
        let call: CallId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let json = serde_json::to_string(&call).unwrap();

        assert_eq!(json, r#""01ARZ3NDEKTSV4RRFFQ69G5FAV""#);
        assert_eq!(serde_json::from_str::<CallId>(&json).unwrap(), call);
        assert_eq!(CallId::from_u128(call.as_u128()), call);
    }

    #[test]
    fn a_user_id_is_bounded_and_printable() {
        let check =
            |text: &str, valid: bool| assert_eq!(text.parse::<UserId>().is_ok(), valid, "{text}");

        check("alice", true);
        check("älice@example.com", true);
        check("", false);
        check("a\nb", false);
        check(&"a".repeat(USER_ID_LEN_MAX), true);
        check(&"a".repeat(USER_ID_LEN_MAX + 1), false);
    }
}
