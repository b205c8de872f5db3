//! What a User may do and how reachable they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::room::{Role, RoomName};

/// How reachable a User is, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A Device of the User is in a Call.
    InCall,
    /// Does not want to be called: an invite is answered with busy.
    DoNotDisturb,
    /// Reachable.
    Available,
    /// Reachable, but not at the desk.
    Away,
    /// No Session.
    Offline,
}

/// What a User may say about themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// Reachable.
    #[default]
    Available,
    /// Reachable, but not at the desk.
    Away,
    /// Does not want to be called: an invite is answered with busy.
    DoNotDisturb,
}

/// What an access token allows in calls; its `call` claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Grants {
    /// May invite.
    pub dial: bool,
    /// May answer; without it the Device is not rung.
    pub answer: bool,
    /// May transfer.
    pub transfer: bool,
    /// May see the whole Account's presence.
    pub directory: bool,
    /// May call numbers and addresses of the phone network, as far as the Account's rules allow; false unless told, for such calls
    /// cost money.
    pub phone: bool,
    /// How many Calls at once, up to the server's own limit.
    pub max_concurrent: Option<u16>,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            dial: true,
            answer: true,
            transfer: true,
            directory: true,
            phone: false,
            max_concurrent: None,
        }
    }
}

/// What an access token allows in Rooms; its `room` claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RoomGrants {
    /// May begin a Room that is not there; whoever does moderates it.
    pub create: bool,
    /// May join one that is.
    pub join: bool,
    /// The role to join in; that of the Room's settings unless told.
    pub role: Option<Role>,
    /// The Rooms this is about; all unless told.
    pub names: Option<Vec<RoomName>>,
    /// Whether this is somebody from outside, who came by a link: a guest waits in the lobby where there is one, and never
    /// comes to moderate by staying the longest.
    pub guest: bool,
}

impl Default for RoomGrants {
    fn default() -> Self {
        Self {
            create: true,
            join: true,
            role: None,
            names: None,
            guest: false,
        }
    }
}

impl RoomGrants {
    /// Whether the Room of this name may be joined.
    pub fn may_join(&self, name: &RoomName) -> bool {
        self.join && self.names.as_ref().is_none_or(|names| names.contains(name))
    }

    /// Whether a Room of this name may be begun.
    pub fn may_create(&self, name: &RoomName) -> bool {
        self.create && self.may_join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_names_rooms_is_about_no_other() {
        let claim = r#"{"create":false,"role":"listener","names":["weekly"],"guest":true}"#;
        let grants: RoomGrants = serde_json::from_str(claim).unwrap();
        let (weekly, other) = ("weekly".parse().unwrap(), "other".parse().unwrap());

        assert!(grants.may_join(&weekly) && !grants.may_create(&weekly));
        assert!(!grants.may_join(&other));
        assert_eq!(grants.role, Some(Role::Listener));
        assert!(RoomGrants::default().may_create(&other));
        assert_eq!(
            serde_json::from_str::<RoomGrants>("{}").unwrap(),
            RoomGrants::default()
        );
    }
}
