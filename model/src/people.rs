//! What a User may do and how reachable they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
            max_concurrent: None,
        }
    }
}
