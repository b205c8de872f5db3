//! The sign-in of the demo: a name is enough. It exists in demo mode alone.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::Context;
use aws_lc_rs::digest;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use backing::records::{ApiKey, Records};
use model::{AccountId, Grants, RoomGrants, RoomName, UserId};
use serde::{Deserialize, Serialize};
use signaling_wire::ErrorCode;

use crate::config::ClientInfo;
use crate::http::Declined;
use crate::service::Inner;
use crate::tokens::{self, Claims};

/// The Account of everybody who signs in.
const ACCOUNT_NAME: &str = "Demo";
/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 40;
/// The longest readable part of a User's id, in bytes.
const SLUG_LEN_MAX: usize = 80;
/// How long a token can be used to connect, in seconds: a long day.
const TOKEN_SECS: u64 = 12 * 3_600;
/// The longest request, in bytes.
const BODY_LEN_MAX: usize = 1_024;

/// Who signs the tokens of the demo.
pub(crate) struct Demo {
    key: ApiKey,
}

impl Demo {
    /// Finds the demo's Account and a key of it, or makes them.
    pub(crate) async fn open(records: &Records) -> anyhow::Result<Self> {
        let accounts = records.accounts().await?;
        let account = match accounts
            .into_iter()
            .find(|account| account.name == ACCOUNT_NAME)
        {
            Some(account) => account,
            None => records.create_account(ACCOUNT_NAME).await?,
        };

        let keys = records.api_keys(account.account).await?;
        let key = match keys.into_iter().find(|key| key.revoked_at.is_none()) {
            Some(key) => key,
            None => records.create_api_key(account.account).await?,
        };

        Ok(Self { key })
    }
}

pub(crate) fn router() -> Router<Arc<Inner>> {
    Router::new()
        .route(
            "/demo/config",
            get(async || Json(DemoConfig { demo: true })),
        )
        .route("/demo/sign-in", post(sign_in))
        .route("/demo/guest", post(sign_in_as_guest))
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
}

#[derive(Serialize)]
struct DemoConfig {
    demo: bool,
}

#[derive(Deserialize)]
struct SignIn {
    name: String,
}

/// Somebody with the link of a Room.
#[derive(Deserialize)]
struct Guest {
    name: String,
    room: RoomName,
}

#[derive(Serialize)]
struct SignedIn {
    token: String,
    user: UserId,
    name: String,
    account: AccountId,
}

async fn sign_in(
    State(inner): State<Arc<Inner>>,
    Extension(client): Extension<ClientInfo>,
    headers: HeaderMap,
    body: Result<Json<SignIn>, JsonRejection>,
) -> Result<Json<SignedIn>, Declined> {
    ensure_may_sign_in(&inner, &client, &headers)?;
    let Json(SignIn { name }) = body.map_err(|error| bad_data(error.body_text()))?;
    let name = visible_name(&name).map_err(bad_data)?;

    let user = user_of(name);
    issue(
        &inner,
        &user,
        name,
        Grants::default(),
        RoomGrants::default(),
    )
}

/// Signs somebody in for one Room alone, as a guest: a new User each time.
async fn sign_in_as_guest(
    State(inner): State<Arc<Inner>>,
    Extension(client): Extension<ClientInfo>,
    headers: HeaderMap,
    body: Result<Json<Guest>, JsonRejection>,
) -> Result<Json<SignedIn>, Declined> {
    ensure_may_sign_in(&inner, &client, &headers)?;
    let Json(Guest { name, room }) = body.map_err(|error| bad_data(error.body_text()))?;
    let name = visible_name(&name).map_err(bad_data)?;

    let user = format!("guest-{:016x}", rand::random::<u64>());
    let calls = Grants {
        dial: false,
        answer: false,
        transfer: false,
        directory: false,
        phone: false,
        max_concurrent: Some(0),
    };
    let rooms = RoomGrants {
        create: false,
        names: Some(vec![room]),
        guest: true,
        ..RoomGrants::default()
    };
    issue(&inner, &user, name, calls, rooms)
}

fn ensure_may_sign_in(
    inner: &Inner,
    client: &ClientInfo,
    headers: &HeaderMap,
) -> Result<(), Declined> {
    inner.check_origin(headers, &client.host)?;
    if inner.addresses.may_sign_in(client.ip) {
        return Ok(());
    }
    Err(Declined::new(
        StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::RateLimited,
        "too many sign-ins from this address; wait a moment",
    ))
}

fn bad_data(message: impl Into<String>) -> Declined {
    Declined::new(StatusCode::BAD_REQUEST, ErrorCode::BadData, message)
}

fn issue(
    inner: &Inner,
    user: &str,
    name: &str,
    call: Grants,
    room: RoomGrants,
) -> Result<Json<SignedIn>, Declined> {
    let issued = try_issue(inner, user, name, call, room);
    issued.map(Json).map_err(|error| {
        tracing::error!(%error, "No token for the demo");
        Declined::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Internal,
            "no token could be made",
        )
    })
}

fn try_issue(
    inner: &Inner,
    user: &str,
    name: &str,
    call: Grants,
    room: RoomGrants,
) -> anyhow::Result<SignedIn> {
    let key = &inner.demo.as_ref().context("demo mode is off")?.key;
    let user = user.parse::<UserId>()?;
    let claims = Claims {
        sub: user.clone(),
        nbf: None,
        exp: inner.clock.now().as_millis() / 1_000 + TOKEN_SECS,
        name: Some(name.to_owned()),
        call,
        room,
    };

    Ok(SignedIn {
        token: tokens::mint(key.id, &key.secret, &claims)?,
        user,
        name: name.to_owned(),
        account: key.account,
    })
}

/// A name without space around it; fails with what is wrong, for people.
fn visible_name(name: &str) -> Result<&str, &'static str> {
    let name = name.trim();

    if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
        Err("a name has 1 to 40 characters")
    } else if name.chars().any(is_invisible) {
        Err("a name has visible characters only")
    } else {
        Ok(name)
    }
}

/// Characters that change how others are shown, or show nothing. The joiner U+200D stays: emoji are made with it.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{feff}'
            | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}')
}

/// The User of a name: always the same, and readable. What makes no difference to the ear makes none here either; what
/// can't be told from the readable part is told by a hash.
fn user_of(name: &str) -> String {
    let lower = name.to_lowercase();
    let words: Vec<String> = lower
        .split_whitespace()
        .map(|word| {
            word.chars()
                .filter(|character| character.is_alphanumeric())
                .collect()
        })
        .collect();
    let mut slug = words.join("-");

    let is_readable = words.iter().all(|word| !word.is_empty())
        && words.iter().map(String::len).sum::<usize>()
            == lower.split_whitespace().map(str::len).sum::<usize>()
        && slug.len() <= SLUG_LEN_MAX;
    if is_readable {
        return slug;
    }

    slug.truncate(slug.floor_char_boundary(SLUG_LEN_MAX));
    if slug.trim_matches('-').is_empty() {
        slug = "user".to_owned();
    }
    let hash = digest::digest(&digest::SHA256, lower.as_bytes());
    slug.push('-');
    for byte in &hash.as_ref()[..4] {
        // Writing to a String cannot fail.
        let _ = write!(slug, "{byte:02x}");
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_makes_a_readable_id() {
        let check = |name, user| assert_eq!(user_of(name), user, "{name}");

        check("Alice", "alice");
        check("alice", "alice");
        check("Anna Maria", "anna-maria");
        check("Zoë", "zoë");
        check("李雷", "李雷");
        check("Agent 007", "agent-007");
    }

    #[test]
    fn names_that_differ_by_what_is_not_readable_are_different_users() {
        let check = |left: &str, right: &str| {
            assert_ne!(user_of(left), user_of(right), "{left} {right}");
            assert_eq!(user_of(left), user_of(left));
        };

        check("Alice", "Alice!");
        check("🦊", "🐻");
        check("Anna-Maria", "Anna Maria");
        check("a.b", "ab");

        let long = "李".repeat(NAME_CHARS_MAX);
        check(&long, &long.replacen('李', "雷", 1));
        assert!(user_of(&long).parse::<UserId>().is_ok());
        assert!(user_of("🦊").starts_with("user-"));
    }

    #[test]
    fn only_visible_names_are_taken() {
        let check = |name: &str, taken: Option<&str>| {
            assert_eq!(visible_name(name).ok(), taken, "{name:?}");
        };

        check("  Alice ", Some("Alice"));
        check("👩‍🚀", Some("👩‍🚀"));
        check(&"x".repeat(40), Some(&"x".repeat(40)));
        check(&"x".repeat(41), None);
        check("", None);
        check("   ", None);
        check("a\u{202e}b", None);
        check("\u{200b}", None);
        check("a\nb", None);
    }
}
