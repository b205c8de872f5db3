//! Business hours: when a Number is open, by the clock of a place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Weekday as Day};
use serde::{Deserialize, Serialize};

use super::Found;
use super::text::{Unfit, Zone, shown};
use crate::time::Timestamp;

/// The most spans of one day.
const SPANS_PER_DAY_MAX: usize = 12;

/// The most holidays and other days of their own.
const DAYS_MAX: usize = 1_000;

/// The minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;

/// When something is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// Whose clock.
    pub zone: Zone,
    /// The spans of each day of the week; a day that isn't there is closed.
    #[serde(default)]
    pub weekly: BTreeMap<Weekday, Vec<Span>>,
    /// Days on which it is closed all day: once (`2026-12-24`), or every year (`12-25`).
    #[serde(default)]
    pub holidays: BTreeSet<Holiday>,
    /// Days that have spans of their own instead of the week's; they come before the holidays.
    #[serde(default)]
    pub days: BTreeMap<Holiday, Vec<Span>>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the days of the week say what they are")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// Part of a day, `09:00-17:30`: from its beginning to before its end. `24:00` is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    /// Minutes since midnight.
    from: u16,
    /// Minutes since midnight, more than `from`.
    to: u16,
}

/// A date of one year, `2026-12-24`, or of every year, `12-25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Holiday {
    /// Of one year.
    Once {
        /// The year.
        year: i16,
        /// 1 to 12.
        month: i8,
        /// 1 to 31.
        day: i8,
    },
    /// Of every year that has it.
    Yearly {
        /// 1 to 12.
        month: i8,
        /// 1 to 31.
        day: i8,
    },
}

impl Hours {
    /// Whether it is open at this moment: by the clock on the wall of its place, so that an hour that is left out in spring is not
    /// there, and one that comes twice in autumn is open twice.
    pub fn is_open(&self, at: Timestamp) -> bool {
        let moment = i64::try_from(at.as_millis())
            .ok()
            .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        let Some(moment) = moment else {
            return false; // Beyond the year 9999.
        };
        let local = moment.to_zoned(self.zone.time_zone());
        let minute = u16::try_from(local.hour())
            .unwrap_or_default()
            .saturating_mul(60)
            .saturating_add(u16::try_from(local.minute()).unwrap_or_default());
        self.spans_of(local.date())
            .iter()
            .any(|span| (span.from..span.to).contains(&minute))
    }

    fn spans_of(&self, date: Date) -> &[Span] {
        let once = Holiday::Once {
            year: date.year(),
            month: date.month(),
            day: date.day(),
        };
        let yearly = Holiday::Yearly {
            month: date.month(),
            day: date.day(),
        };
        for day in [once, yearly] {
            if let Some(spans) = self.days.get(&day) {
                return spans;
            }
            if self.holidays.contains(&day) {
                return &[];
            }
        }
        self.weekly
            .get(&Weekday::of(date.weekday()))
            .map_or(&[], Vec::as_slice)
    }

    pub(super) fn check(&self, found: &mut Found<'_>) {
        for (day, spans) in &self.weekly {
            found.within("weekly", |found| check_spans(day.as_str(), spans, found));
        }
        for (day, spans) in &self.days {
            found.within("days", |found| {
                check_spans(&day.to_string(), spans, found);
            });
            if self.holidays.contains(day) {
                found.wrong(
                    "holidays",
                    format!("{day} stands in `days`, too: keep one of them"),
                );
            }
        }
        if self.holidays.len() + self.days.len() > DAYS_MAX {
            found.wrong("holidays", format!("more than {DAYS_MAX} days"));
        }
        if self.weekly.values().all(Vec::is_empty) && self.days.values().all(Vec::is_empty) {
            found.wrong("weekly", "never open: name the hours of a day at least");
        }
    }
}

fn check_spans(day: &str, spans: &[Span], found: &mut Found<'_>) {
    if spans.len() > SPANS_PER_DAY_MAX {
        found.wrong(
            day,
            format!("{} spans are more than {SPANS_PER_DAY_MAX}", spans.len()),
        );
    }
    let mut sorted = spans.to_vec();
    sorted.sort();
    for pair in sorted.windows(2) {
        if pair[1].from < pair[0].to {
            found.wrong(day, format!("{} and {} overlap", pair[0], pair[1]));
        }
    }
}

impl Weekday {
    /// The name, as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monday => "monday",
            Self::Tuesday => "tuesday",
            Self::Wednesday => "wednesday",
            Self::Thursday => "thursday",
            Self::Friday => "friday",
            Self::Saturday => "saturday",
            Self::Sunday => "sunday",
        }
    }

    fn of(day: Day) -> Self {
        match day {
            Day::Monday => Self::Monday,
            Day::Tuesday => Self::Tuesday,
            Day::Wednesday => Self::Wednesday,
            Day::Thursday => Self::Thursday,
            Day::Friday => Self::Friday,
            Day::Saturday => Self::Saturday,
            Day::Sunday => Self::Sunday,
        }
    }
}

impl FromStr for Span {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        let unfit = |why: &str| Unfit::new(format!("{} {why}", shown(text)));
        let (from, to) = text
            .split_once('-')
            .and_then(|(from, to)| Some((minute(from.trim())?, minute(to.trim())?)))
            .ok_or_else(|| unfit("is no span of a day, such as 09:00-17:30"))?;
        if from < to {
            Ok(Self { from, to })
        } else {
            Err(unfit(
                "ends before it begins: a night is two spans, such as 22:00-24:00 and, the day after, 00:00-06:00",
            ))
        }
    }
}

/// The minutes since midnight of `hh:mm`.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [self.from, self.to].map(|at| (at / 60, at % 60));
        write!(f, "{:02}:{:02}-{:02}:{:02}", from.0, from.1, to.0, to.1)
    }
}

impl FromStr for Holiday {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        let unfit = || {
            Unfit::new(format!(
                "{} is no date of one year, such as 2026-12-24, nor of every year, such as 12-25",
                shown(text)
            ))
        };
        if text.len() == "12-25".len() {
            // 29 February is a date in some years.
            let date: Date = format!("2024-{text}").parse().map_err(|_| unfit())?;
            return Ok(Self::Yearly {
                month: date.month(),
                day: date.day(),
            });
        }
        if text.len() != "2026-12-24".len() {
            return Err(unfit());
        }
        let date: Date = text.parse().map_err(|_| unfit())?;
        Ok(Self::Once {
            year: date.year(),
            month: date.month(),
            day: date.day(),
        })
    }
}

impl fmt::Display for Holiday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once { year, month, day } => write!(f, "{year:04}-{month:02}-{day:02}"),
            Self::Yearly { month, day } => write!(f, "{month:02}-{day:02}"),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = Unfit;

    fn try_from(text: String) -> Result<Self, Unfit> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl TryFrom<String> for Holiday {
    type Error = Unfit;

    fn try_from(text: String) -> Result<Self, Unfit> {
        text.parse()
    }
}

impl From<Holiday> for String {
    fn from(day: Holiday) -> Self {
        day.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let moment: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_millis(u64::try_from(moment.as_millisecond()).unwrap())
    }

    fn spans(texts: &[&str]) -> Vec<Span> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn office() -> Hours {
        let day = |text: &str| text.parse::<Holiday>().unwrap();
        Hours {
            zone: "Europe/Berlin".parse().unwrap(),
            weekly: [
                (Weekday::Monday, spans(&["09:00-12:00", "13:00-17:30"])),
                (Weekday::Sunday, spans(&["00:00-24:00"])),
            ]
            .into(),
            holidays: [day("12-25"), day("2026-11-30")].into(),
            days: [(day("2026-12-24"), spans(&["09:00-12:00"]))].into(),
        }
    }

    #[test]
    fn it_is_open_by_the_clock_of_its_place() {
        let check = |moment: &str, expected: bool| {
            assert_eq!(office().is_open(at(moment)), expected, "{moment}");
        };
        // A Monday; Berlin is an hour ahead.
        check("2026-11-23T07:59:59Z", false);
        check("2026-11-23T08:00:00Z", true);
        check("2026-11-23T10:59:59Z", true);
        check("2026-11-23T11:00:00Z", false);
        check("2026-11-23T16:29:59Z", true);
        check("2026-11-23T16:30:00Z", false);
        check("2026-11-24T10:00:00Z", false);
        // A holiday of one year, one of every year, and a day of its own.
        check("2026-11-30T10:00:00Z", false);
        check("2023-12-25T10:00:00Z", false);
        check("2026-12-24T10:00:00Z", true);
        check("2026-12-24T12:00:00Z", false);
        // In summer it is two hours ahead.
        check("2026-07-06T07:00:00Z", true);
        check("2026-07-06T06:59:00Z", false);
        // A Sunday with 25 hours is open all of them.
        check("2026-10-24T21:59:59Z", false);
        check("2026-10-24T22:00:00Z", true);
        check("2026-10-25T22:59:59Z", true);
        check("2026-10-25T23:00:00Z", false);
    }

    #[test]
    fn spans_and_dates_have_one_spelling() {
        let rows = [
            ("09:00-17:30", Some("09:00-17:30")),
            ("09:00 - 17:30", Some("09:00-17:30")),
            ("00:00-24:00", Some("00:00-24:00")),
            ("22:00-06:00", None),
            ("09:00-09:00", None),
            ("9:00-17:00", None),
            ("09:00-24:01", None),
            ("09:60-10:00", None),
            ("09:00", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let read = text.parse::<Span>().map(|span| span.to_string());
            assert_eq!(read.ok().as_deref(), expected, "{text}");
        }
        let rows = [
            ("2026-12-24", true),
            ("12-25", true),
            ("02-29", true),
            ("2026-02-29", false),
            ("13-01", false),
            ("+0026-1-1", false),
            ("2026", false),
            ("", false),
        ];
        for (text, good) in rows {
            let read = text.parse::<Holiday>();
            assert_eq!(read.is_ok(), good, "{text}");
            assert!(read.is_err() || read.unwrap().to_string() == text);
        }
    }
}
