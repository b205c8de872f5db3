//! `offhook token` and `offhook account`: what a backend needs, straight from the records; and `offhook reload`.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use backing::records::{ApiKey, Records};
use jiff::Timestamp;
use model::{AccountId, ApiKeyId, Grants, RoomGrants};
use nix::sys::signal::{Signal, kill};
use signaling_service::tokens::{self, Claims};

use crate::cli::{AccountCommand, KeyCommand, TokenOptions};
use crate::config::Config;
use crate::state::DataDir;

/// Mints an access token with an API key of the Account; returns it with a line break.
///
/// Fails when there is no such Account or no key of it that holds, or when several Accounts leave a choice.
pub async fn token(config: &Config, options: &TokenOptions) -> anyhow::Result<String> {
    let records = records(&DataDir::open_existing(&config.data_dir)?).await?;
    let account = account_of(&records, options.account.as_deref()).await?;
    let key = key_of(&records, account).await?;
    let now = Timestamp::now().as_second();
    let expires = now.saturating_add_unsigned(options.ttl.as_secs());
    let claims = Claims {
        sub: options
            .user
            .parse()
            .with_context(|| format!("`{}`", options.user))?,
        nbf: None,
        exp: u64::try_from(expires).context("the clock is before 1970")?,
        name: options.name.clone(),
        call: Grants {
            dial: !options.no_dial,
            answer: !options.no_answer,
            transfer: !options.no_transfer,
            directory: !options.no_directory,
            phone: options.phone,
            max_concurrent: options.max_concurrent,
        },
        room: RoomGrants {
            create: !options.no_room_create,
            join: !options.no_room_join,
            role: options.room_role.map(Into::into),
            names: (!options.room.is_empty()).then(|| options.room.clone()),
            guest: options.guest,
        },
    };
    let token = tokens::mint(key.id, &key.secret, &claims)?;
    Ok(format!("{token}\n"))
}

/// Makes or lists Accounts; returns the words for standard output.
pub async fn account(config: &Config, command: &AccountCommand) -> anyhow::Result<String> {
    match command {
        AccountCommand::Create { name } => {
            let records = records(&DataDir::open(&config.data_dir)?).await?;
            let account = records.create_account(name).await?;
            new_key(&records, account.account).await
        }
        AccountCommand::List => {
            let records = records(&DataDir::open_existing(&config.data_dir)?).await?;
            let mut out = String::new();
            for account in records.accounts().await? {
                writeln!(out, "{}  {}", account.account, account.name)?;
            }
            if out.is_empty() {
                out.push_str("There is no Account yet; `offhook account create NAME` makes one.\n");
            }
            Ok(out)
        }
        AccountCommand::Key(command) => {
            let records = records(&DataDir::open_existing(&config.data_dir)?).await?;
            key(&records, command).await
        }
    }
}

/// Makes, lists or revokes API keys; returns the words for standard output.
async fn key(records: &Records, command: &KeyCommand) -> anyhow::Result<String> {
    match command {
        KeyCommand::Create { account } => {
            let account = account_of(records, account.as_deref()).await?;
            new_key(records, account).await
        }
        KeyCommand::List { account } => {
            let account = account_of(records, account.as_deref()).await?;
            let mut out = String::new();
            for key in records.api_keys(account).await? {
                let made = moment(key.created_at)?;
                match key.revoked_at {
                    None => writeln!(out, "{}  made {made}", key.id)?,
                    Some(at) => writeln!(out, "{}  made {made}, revoked {}", key.id, moment(at)?)?,
                }
            }
            if out.is_empty() {
                out.push_str(
                    "The Account has no API key; `offhook account key create` makes one.\n",
                );
            }
            Ok(out)
        }
        KeyCommand::Revoke { key } => {
            let id: ApiKeyId = key
                .parse()
                .with_context(|| format!("`{key}` is no API key"))?;
            if !records.revoke_api_key(id).await? {
                bail!("there is no API key {id}; `offhook account key list` shows them");
            }
            Ok(format!("{id} is revoked.\n"))
        }
    }
}

async fn new_key(records: &Records, account: AccountId) -> anyhow::Result<String> {
    let key = records.create_api_key(account).await?;
    Ok(format!(
        "account  {account}\nkey      {}\nsecret   {}\n\n\
         Your backend signs access tokens (JWT, HS256) with the secret and names the key in `iss`.\n",
        key.id, key.secret
    ))
}

/// To the second, in UTC.
fn moment(at: model::Timestamp) -> anyhow::Result<Timestamp> {
    let millis = i64::try_from(at.as_millis())?;
    Ok(Timestamp::from_second(millis / 1_000)?)
}

/// Has the server on this data directory read everything again; returns the words for standard output.
///
/// Fails when there is no such server, or it belongs to another user.
pub fn reload(config: &Config) -> anyhow::Result<String> {
    let server = DataDir::server(&config.data_dir)?;
    kill(server, Signal::SIGHUP).with_context(|| format!("can't tell process {server}"))?;
    Ok(format!(
        "Told process {server}; its log says what holds now and what needs a restart.\n"
    ))
}

async fn records(data: &DataDir) -> anyhow::Result<Records> {
    Records::open(&data.prepare_database()?).await
}

/// The Account that was named, or the only one.
async fn account_of(records: &Records, named: Option<&str>) -> anyhow::Result<AccountId> {
    if let Some(named) = named {
        return named
            .parse()
            .with_context(|| format!("`{named}` is no Account"));
    }
    match records.accounts().await?.as_slice() {
        [] => bail!("there is no Account yet; `offhook account create NAME` makes one"),
        [only] => Ok(only.account),
        [first, ..] => bail!(
            "there are several Accounts; choose one with --account, such as {}",
            first.account
        ),
    }
}

async fn key_of(records: &Records, account: AccountId) -> anyhow::Result<ApiKey> {
    let keys = records.api_keys(account).await?;
    let newest = keys.into_iter().rev().find(|key| key.revoked_at.is_none());
    newest.with_context(|| format!("Account {account} has no API key that holds"))
}
