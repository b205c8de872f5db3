//! `offhook apply FILE`: brings an Account's telephony to what a file says, after showing what that changes.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use anyhow::{Context, bail};
use backing::objects::Objects;
use backing::records::{Account, Records, SecretKeys, TelephonyError};

use super::difference::Difference;
use super::document::Document;
use crate::cli::ApplyOptions;
use crate::config::Config;
use crate::state::DataDir;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// There was nothing to change.
    Same,
    /// It was changed.
    Changed,
    /// It would be changed: `--dry-run`, or somebody said no.
    Shown,
}

/// Applies the file; what is to be read goes to `say` as it comes.
///
/// Everything is checked before anything changes, and what changes does so at once or not at all. Fails with what is wrong, line by
/// line.
pub async fn apply(
    config: &Config,
    options: &ApplyOptions,
    say: &mut impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Applied> {
    let document = Document::open(&options.file)?;
    for path in &document.exposed {
        say(&format!(
            "Warning: {} holds a secret, and everybody on this machine can read it: chmod 640, or 600.\n",
            path.display()
        ))?;
    }
    let data = DataDir::open_existing(&config.data_dir)?;
    let records = Records::open(&data.prepare_database()?).await?;
    let keys = data.load_secrets()?.keys();
    let named = options.account.as_deref().or(document.account.as_deref());
    let account = account_of(&records, named).await?;
    let stored = records.telephony(account.account, &keys).await?;
    for (of, why) in &stored.unreadable {
        say(&format!(
            "Warning: `{}` of {}.{} can't be read: {why}.\n",
            of.field.as_str(),
            of.kind,
            of.name
        ))?;
    }
    let after = document.over(&stored.telephony);
    document.refuse_wrong(&after)?;
    let difference = Difference::between(&stored.telephony, &after)?;
    let mut out = format!("Account {} ({})\n", account.account, account.name);
    if difference.is_empty() {
        out.push_str("Nothing to change.\n");
    } else {
        write!(out, "{difference}")?;
    }
    if after.lacks_emergency() {
        out.push_str(WARNING_EMERGENCY);
    }
    say(&out)?;

    if options.dry_run {
        return Ok(match difference.is_empty() {
            true => Applied::Same,
            false => Applied::Shown,
        });
    }
    if !difference.is_empty() && !options.yes && !is_agreed_to()? {
        say("Nothing was changed.\n")?;
        return Ok(Applied::Shown);
    }
    // Also where no row changes: a file that is missing comes back.
    let objects = Objects::in_folder(&data.folder(OBJECTS)?)?;
    for prompt in &document.prompts {
        prompt.store(account.account, &objects).await?;
    }
    if difference.is_empty() {
        return Ok(Applied::Same);
    }
    match write(&records, &account, stored.version, &after, &keys).await {
        Ok(()) => {
            say("Applied. A running server has it within seconds.\n")?;
            Ok(Applied::Changed)
        }
        Err(error @ TelephonyError::Changed { .. }) => {
            Err(error).context("somebody else has applied something at the same time: try again")
        }
        Err(error) => Err(error.into()),
    }
}

/// The folder of objects in the data directory.
pub const OBJECTS: &str = "objects";

/// What is said until somebody has decided about calls for help.
pub const WARNING_EMERGENCY: &str = "Warning: there is a Trunk, and nobody has said what becomes of calls for help (112, 911, …): they are refused with \
     spoken words. Name them in [emergency], in `routes` or in `refused`.\n";

async fn write(
    records: &Records,
    account: &Account,
    version: u64,
    after: &model::phone::rows::Telephony,
    keys: &SecretKeys,
) -> Result<(), TelephonyError> {
    records
        .replace_telephony(account.account, version, after, keys)
        .await
        .map(drop)
}

/// The Account of this id or name, or the only one.
async fn account_of(records: &Records, named: Option<&str>) -> anyhow::Result<Account> {
    let mut accounts = records.accounts().await?;
    let Some(named) = named else {
        return match accounts.len() {
            0 => bail!("there is no Account yet; `offhook account create NAME` makes one"),
            1 => Ok(accounts.remove(0)),
            _ => bail!(
                "there are several Accounts: name one by --account, or by `account = \"…\"` at the top of the file"
            ),
        };
    };
    let is_named =
        |account: &Account| account.account.to_string() == named || account.name == named;
    let mut found = accounts.into_iter().filter(is_named);
    match (found.next(), found.next()) {
        (Some(account), None) => Ok(account),
        (Some(_), Some(_)) => bail!("several Accounts are called `{named}`: name one by its id"),
        (None, _) => bail!("there is no Account `{named}`; `offhook account list` shows them"),
    }
}

/// Asks on the terminal. Fails where there is nobody to ask.
fn is_agreed_to() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("nobody can be asked here: agree with --yes, or look with --dry-run");
    }
    let mut err = io::stderr().lock();
    err.write_all(b"Change it? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
