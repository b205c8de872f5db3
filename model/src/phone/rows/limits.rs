//! How much may be called, and where: what isn't allowed is refused.

use serde::{Deserialize, Deserializer, Serialize};

use super::text::{E164, Prefix, ShortNumber};

/// The most beginnings of numbers in one list.
pub const PREFIXES_MAX: usize = 1_000;

/// The most calls at once that can be allowed.
const CALLS_MAX: u32 = 100_000;

/// The most minutes in a day that can be allowed.
const MINUTES_PER_DAY_MAX: u32 = 100_000_000;

/// How many calls to and from outside there may be. A day is one of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CallLimits {
    /// Calls at once, in both directions.
    pub calls: u32,
    /// Calls begun in a second, in both directions.
    pub calls_per_second: u32,
    /// Minutes of answered calls to outside in a day; a call that reaches the end of them is ended.
    pub minutes_per_day: u32,
}

/// What a Trunk bears that nobody has thought about.
impl Default for CallLimits {
    fn default() -> Self {
        Self {
            calls: 30,
            calls_per_second: 5,
            minutes_per_day: 3_000,
        }
    }
}

/// Those of a Trunk.
impl<'de> Deserialize<'de> for CallLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::told(deserializer, Self::default())
    }
}

impl CallLimits {
    /// What one person may do who nobody has thought about.
    pub const OF_USER: Self = Self {
        calls: 4,
        calls_per_second: 1,
        minutes_per_day: 600,
    };

    /// What all Trunks of an Account bear together that nobody has thought about.
    pub const OF_ACCOUNT: Self = Self {
        calls: 100,
        calls_per_second: 10,
        minutes_per_day: 10_000,
    };

    /// Reads limits; those that aren't told are the usual ones of whom they are for.
    pub(super) fn told<'de, D: Deserializer<'de>>(
        deserializer: D,
        usual: Self,
    ) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Told {
            calls: Option<u32>,
            calls_per_second: Option<u32>,
            minutes_per_day: Option<u32>,
        }

        let told = Told::deserialize(deserializer)?;
        Ok(Self {
            calls: told.calls.unwrap_or(usual.calls),
            calls_per_second: told.calls_per_second.unwrap_or(usual.calls_per_second),
            minutes_per_day: told.minutes_per_day.unwrap_or(usual.minutes_per_day),
        })
    }

    /// Reads those of a User.
    pub(super) fn of_user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::told(deserializer, Self::OF_USER)
    }

    /// The field that is out of its range, and why.
    pub(super) fn wrong(&self) -> Option<(&'static str, String)> {
        let check = |field: &'static str, value: u32, max: u32| {
            let why = format!("{value} is not 1 to {max}");
            (!(1..=max).contains(&value)).then_some((field, why))
        };
        // No minute at all is a Trunk for incoming calls.
        let minutes = self.minutes_per_day.max(1);
        check("calls", self.calls, CALLS_MAX)
            .or_else(|| check("calls_per_second", self.calls_per_second, CALLS_MAX))
            .or_else(|| check("minutes_per_day", minutes, MINUTES_PER_DAY_MAX))
    }
}

/// Where may be called: nowhere, unless told. Of beginnings that both cover a number the longer one decides, and a denial where both
/// are the same. Emergency numbers have a table of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Destinations {
    /// Numbers that begin like this may be called.
    pub allow: Vec<Prefix>,
    /// Numbers that begin like this may not, such as `+1900` where `+1` may.
    pub deny: Vec<Prefix>,
    /// Numbers without a country code that may be called as they are dialled, such as `116117`.
    pub short: Vec<ShortNumber>,
}

impl Destinations {
    /// Whether `number` may be called.
    pub fn allows(&self, number: &E164) -> bool {
        let longest = |list: &[Prefix]| {
            let covering = list.iter().filter(|prefix| prefix.covers(number));
            covering.map(|prefix| prefix.as_str().len()).max()
        };
        match (longest(&self.allow), longest(&self.deny)) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (allowed, _) => allowed.is_some(),
        }
    }

    /// Whether `number` may be called as it is dialled.
    pub fn allows_short(&self, number: &ShortNumber) -> bool {
        self.short.contains(number)
    }

    /// The field that is wrong, and why.
    pub(super) fn wrong(&self) -> Option<(&'static str, String)> {
        for (field, len) in [
            ("allow", self.allow.len()),
            ("deny", self.deny.len()),
            ("short", self.short.len()),
        ] {
            if len > PREFIXES_MAX {
                return Some((field, format!("{len} entries are more than {PREFIXES_MAX}")));
            }
        }
        let emergency = self.short.iter().find(|number| number.is_emergency());
        emergency.map(|number| {
            let why = format!("`{number}` is an emergency number: name it in `emergency` instead");
            ("short", why)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn where_nobody_said_so_nobody_calls() {
        let check = |allow: &[&str], deny: &[&str], number: &str, expected: bool| {
            let destinations = Destinations {
                allow: prefixes(allow),
                deny: prefixes(deny),
                short: Vec::new(),
            };
            let number = number.parse().unwrap();
            assert_eq!(
                destinations.allows(&number),
                expected,
                "{allow:?} {deny:?} {number}"
            );
        };
        check(&[], &[], "+4930123456", false);
        check(&["+49"], &[], "+4930123456", true);
        check(&["+49"], &[], "+4330123456", false);
        check(&["+49"], &["+49900"], "+49900123456", false);
        check(&["+49", "+4990012"], &["+49900"], "+49900123456", true);
        check(&["+49900"], &["+49900"], "+49900123456", false);
        check(&["+"], &["+49"], "+12125550100", true);
        check(&[], &["+49"], "+12125550100", false);
    }

    #[test]
    fn help_is_not_dialled_past_its_table() {
        let destinations = Destinations {
            short: vec!["116117".parse().unwrap()],
            ..Destinations::default()
        };
        assert_eq!(destinations.wrong(), None);
        assert!(destinations.allows_short(&"116117".parse().unwrap()));
        let destinations = Destinations {
            short: vec!["112".parse().unwrap()],
            ..Destinations::default()
        };
        assert_eq!(destinations.wrong().unwrap().0, "short");
    }

    #[test]
    fn limits_are_never_none() {
        let of = |calls, calls_per_second, minutes_per_day| {
            let limits = CallLimits {
                calls,
                calls_per_second,
                minutes_per_day,
            };
            limits.wrong().map(|(field, _)| field)
        };
        assert_eq!(of(1, 1, 0), None);
        assert_eq!(of(0, 1, 1), Some("calls"));
        assert_eq!(of(1, 0, 1), Some("calls_per_second"));
        assert_eq!(of(1, 1, u32::MAX), Some("minutes_per_day"));
        assert_eq!(CallLimits::OF_USER.wrong(), None);
        assert_eq!(CallLimits::OF_ACCOUNT.wrong(), None);
    }
}
