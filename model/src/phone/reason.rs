//! How a phone call ended, in words that say who should do what about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a phone call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct PhoneEnd {
    /// Why.
    pub reason: PhoneReason,
    /// The status of the SIP response that ended it, 300 to 699; `null` when none did.
    pub sip: Option<u16>,
    /// The number of ITU-T Q.850, as the other side told it (RFC 3326), or as RFC 3398 §8.2 has it for the status.
    pub cause: u8,
}

macro_rules! phone_reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $label:literal, $cause:literal, $text:literal;)*) => {
        /// Why a phone call ended, or was never made; the text is for people.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, thiserror::Error,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum PhoneReason {
            $($(#[doc = $doc])* #[error($text)] $name,)*
        }

        impl PhoneReason {
            /// All reasons.
            pub const ALL: [PhoneReason; [$($label),*].len()] = [$(PhoneReason::$name),*];

            /// The reason as the label of a metric; the same as in JSON.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(PhoneReason::$name => $label,)*
                }
            }

            /// The number of Q.850 where the other side has told none.
            #[must_use]
            pub const fn cause(self) -> u8 {
                match self {
                    $(PhoneReason::$name => $cause,)*
                }
            }

            /// What it means, and what to do about it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(PhoneReason::$name => $text,)*
                }
            }
        }
    };
}

phone_reasons! {
    /// One side hung up after they had talked.
    Hangup = "hangup", 16, "one side hung up";
    /// The caller gave up before an answer.
    Cancelled = "cancelled", 16, "the caller gave up";
    /// 486, 600.
    Busy = "busy", 17, "the number is busy";
    /// 408 after it rang, 480, or our own time was over.
    NoAnswer = "no_answer", 19, "nobody answered";
    /// 603, 607, 608.
    Declined = "declined", 21, "the call was declined";
    /// 404, 410, 484, 604.
    NoSuchNumber = "no_such_number", 1, "there is no such number";
    /// 403, 401 and 407 although we have answered the challenge.
    Refused = "refused", 21, "the provider refused the call: see what the trunk may call, and its credentials";
    /// 488, 606, 415: no codec or no encryption in common.
    NoCodec = "no_codec", 65, "no codec in common: see the trunk's codecs and whether it encrypts";
    /// 482, 483, or we have called ourselves.
    Loop = "loop", 25, "the call came back to where it began: see the routes";
    /// 503, 500, 502, 504, 513 of all Trunks that were tried.
    Congested = "congested", 42, "the provider takes no calls now";
    /// No response, or no address to send to.
    Unreachable = "unreachable", 38, "the provider does not answer: see the trunk's address";
    /// Nothing was heard of the other side for too long, or its session timer ran out (RFC 4028).
    TimedOut = "timed_out", 102, "the other side is gone";
    /// All else the other side says.
    Failed = "failed", 41, "the call failed";
    /// No gateway runs.
    Unavailable = "unavailable", 38, "this server has no phone gateway";
    /// The gateway was restarted, or does not know the call.
    Lost = "lost", 27, "the gateway has lost the call";
    /// No Trunk takes the number.
    NoRoute = "no_route", 3, "no trunk takes calls to this number: see the account's routes";
    /// The access token has no grant for it, or the Account's rules forbid the number.
    Forbidden = "forbidden", 57, "calls to this number are not allowed";
    /// An emergency number without a route of its own.
    Emergency = "emergency", 57, "emergency calls are not set up here: use another phone";
    /// A limit on calls, minutes or money.
    LimitReached = "limit_reached", 34, "too many calls, or too many minutes";
    /// No port, thread or memory for another call.
    Full = "full", 34, "the gateway is full";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_json_says_and_a_cause_is_one_of_q_850() {
        for reason in PhoneReason::ALL {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.label()));
            assert!((1..=127).contains(&reason.cause()), "{reason:?}");
            assert_eq!(reason.to_string(), reason.text());
        }
    }
}
