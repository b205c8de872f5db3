//! Calls to outside: whether one may be made, by which Trunks in which order, how the number is written there, and who calls as whom.
//!
//! ```text
//! what is dialled, by whom ─▶ plan ─▶ Plan: inside, or Trunks in their order; or Denied
//! a Trunk and the caller   ─▶ identity ─▶ From, P-Asserted-Identity, Privacy, Diversion …
//! how a try ended          ─▶ goes_on ─▶ whether the next address or Trunk is tried
//! ```
//!
//! Pure functions over rows. Nothing may be called unless a row allows it, and numbers for help have a table of their own.

use std::cmp::Reverse;

use gateway_sip::{HeaderName, Headers, Host, NameAddr, SipUri, StatusCode};
use model::UserId;
use model::phone::rows::{
    self, Diversion, E164, Line, NumberFormat, Peering, Privacy, Quirk, RowName, ShortNumber,
    Telephony, Trunk,
};

use crate::leg::{Ended, Quirks, Why};
use crate::routing::Diverted;

/// What a dialled text comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// A Number or an extension of the Account: it stays inside.
    Inside(Line),
    /// It goes out.
    Outside(Outside),
}

/// A call that goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// The number.
    pub number: Dialled,
    /// The Trunks to try, one at least.
    pub trunks: Vec<RowName>,
    /// A call for help: no limit holds for it.
    pub help: bool,
    /// The number to show instead of the caller's own: that of a route for help.
    pub shown: Option<E164>,
}

/// A number outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialled {
    /// A number of the world, written as each Trunk wants it.
    World(E164),
    /// A number that is dialled as it is.
    AsIs(String),
}

/// Why a call is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// It is for help, and the Account has no route for it: these words are heard, or built-in ones.
    Help(Option<RowName>),
    /// What was dialled is no number.
    NoNumber,
    /// The User may not call there.
    User,
    /// No Trunk may call there.
    Destination,
    /// There is no Trunk that is in use and can be called by.
    NoTrunk,
}

impl Denied {
    /// A word for a metric's label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Help(_) => "help",
            Self::NoNumber => "no_number",
            Self::User => "user",
            Self::Destination => "destination",
            Self::NoTrunk => "no_trunk",
        }
    }
}

/// What becomes of `dialled` when `user` dials it, or when it is where a call is forwarded on their behalf; `None` for a forward of the
/// Account's own rows.
///
/// Numbers for help come first, then extensions and Numbers of the Account, which stay inside, then Trunks: the one that the shown number
/// is of, then those with the longest beginning that allows it, then by name.
///
/// # Errors
///
/// [`Denied`].
pub fn plan(rows: &Telephony, user: Option<&UserId>, dialled: &str) -> Result<Plan, Denied> {
    let bare: String = dialled.chars().filter(|c| !" ./-()".contains(*c)).collect();
    let short = bare.parse::<ShortNumber>().ok();
    if let Some(short) = &short
        && rows.emergency.covers(short)
    {
        return help(rows, short).map(Plan::Outside);
    }
    if let Ok(extension) = bare.parse() {
        let line = Line::Extension(extension);
        if rows.numbers.contains_key(&line) {
            return Ok(Plan::Inside(line));
        }
    }
    let settings = user.and_then(|user| rows.users.get(user));
    let theirs = settings.and_then(|settings| settings.destinations.as_ref());
    let usable = |trunk: &Trunk| trunk.enabled && !trunk.targets.is_empty();
    if let Some(short) = short {
        let may = |(_, trunk): &(&RowName, &Trunk)| {
            usable(trunk) && trunk.destinations.allows_short(&short)
        };
        let trunks: Vec<_> = rows.trunks.iter().filter(may).map(name_of).collect();
        if !trunks.is_empty() {
            if theirs.is_some_and(|theirs| !theirs.allows_short(&short)) {
                return Err(Denied::User);
            }
            return Ok(Plan::Outside(Outside {
                number: Dialled::AsIs(short.to_string()),
                trunks,
                help: false,
                shown: None,
            }));
        }
    }
    let number = match &rows.dialling {
        Some(dialling) => dialling.number(&bare),
        None => bare.parse().ok(),
    };
    let number = number.ok_or(Denied::NoNumber)?;
    let line = Line::Number(number.clone());
    if rows.numbers.contains_key(&line) {
        return Ok(Plan::Inside(line));
    }
    if theirs.is_some_and(|theirs| !theirs.allows(&number)) {
        return Err(Denied::User);
    }
    if !rows.trunks.values().any(usable) {
        return Err(Denied::NoTrunk);
    }
    let own = settings
        .and_then(|settings| settings.number.clone())
        .and_then(|number| rows.numbers.get(&Line::Number(number))?.trunk.clone());
    let may = |(_, trunk): &(&RowName, &Trunk)| usable(trunk) && trunk.destinations.allows(&number);
    let mut trunks: Vec<_> = rows.trunks.iter().filter(may).collect();
    trunks.sort_by_key(|(name, trunk)| {
        let covering = trunk.destinations.allow.iter();
        let covering = covering.filter(|prefix| prefix.covers(&number));
        let longest = covering.map(|prefix| prefix.as_str().len()).max();
        (own.as_ref() != Some(*name), Reverse(longest))
    });
    if trunks.is_empty() {
        return Err(Denied::Destination);
    }
    Ok(Plan::Outside(Outside {
        number: Dialled::World(number),
        trunks: trunks.into_iter().map(name_of).collect(),
        help: false,
        shown: None,
    }))
}

fn name_of((name, _): (&RowName, &Trunk)) -> RowName {
    name.clone()
}

/// Calls for help go by their table, or not at all.
fn help(rows: &Telephony, short: &ShortNumber) -> Result<Outside, Denied> {
    let denied = || Denied::Help(rows.emergency.refusal.clone());
    let route = rows.emergency.routes.get(short).ok_or_else(denied)?;
    let is_there = |name: &&RowName| {
        let trunk = rows.trunks.get(*name);
        trunk.is_some_and(|trunk| trunk.enabled && !trunk.targets.is_empty())
    };
    let trunks: Vec<_> = route.trunks.iter().filter(is_there).cloned().collect();
    if trunks.is_empty() {
        return Err(denied());
    }
    let dial = route.dial.as_deref().unwrap_or(short.as_str());
    Ok(Outside {
        number: Dialled::AsIs(dial.to_owned()),
        trunks,
        help: true,
        shown: route.number.clone(),
    })
}

/// Whether the next address, or the next Trunk, is tried after one that ended like this: it can't take calls now, it did not answer, and
/// nobody's phone rang yet (RFC 3263 §4.3). What is said about the number itself, another Trunk would say, too.
#[must_use]
pub fn goes_on(ended: &Ended, rang: bool) -> bool {
    let cant = match ended.why {
        Why::Vanished => true,
        Why::Remote => matches!(ended.code.get(), 408 | 500 | 502 | 503 | 504),
        _ => false,
    };
    cant && !rang
}

/// What a number looks like in requests to this Trunk.
#[must_use]
pub fn written(number: &Dialled, trunk: &Trunk, dialling: Option<&rows::Dialling>) -> String {
    let number = match number {
        Dialled::World(number) => number,
        Dialled::AsIs(text) => return text.clone(),
    };
    let prefix = dialling.map_or("00", |dialling| dialling.international_prefix.as_str());
    let abroad = || format!("{prefix}{}", number.digits());
    match trunk.number_format {
        NumberFormat::Plus => number.to_string(),
        NumberFormat::Digits => number.digits().to_owned(),
        NumberFormat::International => abroad(),
        NumberFormat::National => dialling
            .and_then(|dialling| dialling.national(number))
            .unwrap_or_else(abroad),
    }
}

/// Who calls, as far as we know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Their own number; that of the Trunk is shown where there is none.
    pub number: Option<E164>,
    /// Their name.
    pub name: Option<String>,
    /// Whether they withhold their number.
    pub withheld: bool,
    /// By whom the call was sent on, and why.
    pub diverted: Option<(E164, Diverted)>,
}

/// The number is withheld, and calls with such ones are refused by this Trunk's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the trunk takes no calls without a number")]
pub struct Withheld;

/// From, and the headers that say who calls (RFC 3261 §20.20, RFC 3323, 3325, 5806, 7044). `own` is our host, where the row names none.
///
/// A number that is withheld stands nowhere but in P-Asserted-Identity, which the other side keeps to itself, and there only by
/// [`Privacy::Header`].
///
/// # Errors
///
/// [`Withheld`].
pub fn identity(
    trunk: &Trunk,
    caller: &Caller,
    own: &Host,
) -> Result<(NameAddr, Headers), Withheld> {
    let row = &trunk.caller;
    let registered = match &trunk.peering {
        Peering::Registration(registration) => Some(registration),
        Peering::Address | Peering::Inbound(_) => None,
    };
    let domain = row.from_domain.as_ref().or_else(|| {
        let first = trunk.targets.first().map(|target| &target.host);
        registered.and_then(|registered| registered.domain.as_ref().or(first))
    });
    let domain = domain.map_or_else(|| own.clone(), host);
    let number = caller.number.as_ref().or(row.number.as_ref());
    let user = number
        .map(E164::as_str)
        .or(registered.map(|registered| registered.user.as_str()));
    let name = row
        .name
        .as_ref()
        .map(|name| name.as_str().to_owned())
        .or(caller.name.clone());
    let mut who = NameAddr::new(SipUri::new(user, domain.clone(), None));
    who.display = name;

    let mut headers = Headers::new();
    let asserts = row.asserted && number.is_some();
    let privacy = caller.withheld.then_some(row.privacy);
    let from = match privacy {
        None => who.clone(),
        Some(Privacy::Refused) => return Err(Withheld),
        Some(Privacy::Header | Privacy::Anonymous) => {
            let nowhere = Host::Name("anonymous.invalid".to_owned());
            let mut from = NameAddr::new(SipUri::new(Some("anonymous"), nowhere, None));
            from.display = Some("Anonymous".to_owned());
            from
        }
    };
    if asserts && privacy != Some(Privacy::Anonymous) {
        headers.push(HeaderName::PAssertedIdentity, &who);
    }
    if trunk.quirks.contains(&Quirk::RemotePartyId) && privacy != Some(Privacy::Anonymous) {
        let hides = if caller.withheld { "full" } else { "off" };
        headers.push(
            HeaderName::RemotePartyId,
            format_args!("{who};party=calling;screen=yes;privacy={hides}"),
        );
    }
    if privacy == Some(Privacy::Header) {
        headers.push(HeaderName::Privacy, "id");
    }
    if let Some((by, why)) = &caller.diverted {
        let by = NameAddr::new(SipUri::new(Some(by.as_str()), domain, None));
        match row.diversion {
            Diversion::Diversion => headers.push(
                HeaderName::Diversion,
                format_args!("{by};reason={};counter=1", why.as_str()),
            ),
            // Who was dialled first, and that the call went on from there for a reason.
            Diversion::HistoryInfo => headers.push(
                HeaderName::HistoryInfo,
                format_args!("<{}?Reason=SIP%3Bcause%3D{}>;index=1", by.uri, why.code()),
            ),
            Diversion::Off => {}
        }
    }
    Ok((from, headers))
}

/// What a Leg to this Trunk leaves out.
#[must_use]
pub fn quirks(trunk: &Trunk) -> Quirks {
    let has = |quirk| trunk.quirks.contains(&quirk);
    Quirks {
        no_session_timers: has(Quirk::NoSessionTimers),
        no_reliable: has(Quirk::NoReliable),
        no_update: has(Quirk::NoUpdate),
        no_refer: has(Quirk::NoRefer),
        hold_by_zero_address: has(Quirk::HoldByZeroAddress),
    }
}

/// What a try that went nowhere is answered with where something of ours waits for it.
#[must_use]
pub fn code_of(denied: &Denied) -> StatusCode {
    match denied {
        Denied::Help(_) | Denied::User | Denied::Destination => StatusCode::FORBIDDEN,
        Denied::NoNumber => StatusCode::NOT_FOUND,
        Denied::NoTrunk => StatusCode::TEMPORARILY_UNAVAILABLE,
    }
}

fn host(row: &rows::Host) -> Host {
    match row.ip() {
        Some(ip) => Host::Ip(ip),
        None => Host::Name(row.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests;
