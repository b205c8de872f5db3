//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::RoomName;

use crate::config::{PublicUrl, Role};

/// Calls for any product: signaling, a STUN/TURN relay and a page, in one process.
#[derive(Debug, Parser)]
#[command(name = "offhook", version, args_conflicts_with_subcommands = false)]
pub struct Cli {
    /// The settings; `offhook config --example` prints them all.
    #[arg(long, global = true, value_name = "FILE", env = "OFFHOOK_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where state is kept (instead of `data_dir` in the configuration, ./offhook-data by default).
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What to run when no command is given: `serve`.
    #[command(flatten)]
    pub serve: ServeOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What offhook can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve calls (the default). Without a configuration: on this machine only, with an open demo sign-in.
    Serve(ServeOptions),
    /// Explain the settings, or check them.
    Config(ConfigOptions),
    /// Mint an access token for a User: what your backend gives to whoever is signed in.
    Token(TokenOptions),
    /// Accounts and the API keys of their backends.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Bring an Account's telephony (Trunks, Numbers, Queues, phones) to what a file says, after showing what that changes.
    Apply(ApplyOptions),
    /// Have the running server read settings, secrets and certificate again, without an end to anything.
    Reload,
    /// What the relay carried for each Account, day by day (UTC).
    Usage(UsageOptions),
    /// Check what operators get wrong, and say what to do.
    Doctor(DoctorOptions),
}

/// How to serve.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeOptions {
    /// Serve the local network: HTTPS and TURN over TLS on 8443 with a development certificate, and an open demo sign-in.
    #[arg(long)]
    pub lan: bool,
    /// What this process does.
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    pub roles: Option<Vec<Role>>,
    /// Serve the page from this folder (it holds `app` and `client`) instead of the files in the binary.
    #[arg(long, value_name = "DIR")]
    pub web: Option<PathBuf>,
}

/// What about the settings.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ConfigOptions {
    /// Print a file with every setting, its default and what it means.
    #[arg(long)]
    pub example: bool,
    /// Read the settings as `serve` would and say what is wrong with them.
    #[arg(long)]
    pub check: bool,
}

/// Whom a token is for and what it grants.
#[derive(Debug, Args)]
pub struct TokenOptions {
    /// The User's id, as your product knows it.
    #[arg(long)]
    pub user: String,
    /// The name others see.
    #[arg(long)]
    pub name: Option<String>,
    /// The Account; needed when there are several.
    #[arg(long)]
    pub account: Option<String>,
    /// How long the token is good for: 90s, 15m, 1h, 30d.
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    pub ttl: std::time::Duration,
    /// The User may not start Calls.
    #[arg(long)]
    pub no_dial: bool,
    /// The User may not answer Calls.
    #[arg(long)]
    pub no_answer: bool,
    /// The User may not transfer Calls.
    #[arg(long)]
    pub no_transfer: bool,
    /// The User may not see who else there is.
    #[arg(long)]
    pub no_directory: bool,
    /// The User may call numbers of the phone network, as far as the Account's rules allow.
    #[arg(long)]
    pub phone: bool,
    /// How many Calls the User may have at once.
    #[arg(long, value_name = "N")]
    pub max_concurrent: Option<u16>,
    /// The only Room the User may join; several may be named.
    #[arg(long, value_name = "NAME")]
    pub room: Vec<RoomName>,
    /// The role the User joins Rooms in, instead of the one a Room gives.
    #[arg(long, value_name = "ROLE")]
    pub room_role: Option<RoomRole>,
    /// The User may not begin Rooms.
    #[arg(long)]
    pub no_room_create: bool,
    /// The User may not join Rooms.
    #[arg(long)]
    pub no_room_join: bool,
    /// The User comes from outside: waits in the lobby of Rooms that have one.
    #[arg(long)]
    pub guest: bool,
}

/// A role in a Room, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoomRole {
    /// Sees and hears.
    Listener,
    /// Speaks, shows and shares, too.
    Speaker,
    /// Moderates, too.
    Moderator,
}

impl From<RoomRole> for model::Role {
    fn from(role: RoomRole) -> Self {
        match role {
            RoomRole::Listener => Self::Listener,
            RoomRole::Speaker => Self::Speaker,
            RoomRole::Moderator => Self::Moderator,
        }
    }
}

/// What about Accounts.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an Account and an API key for its backend; the secret is shown this once.
    Create {
        /// What people call the organisation.
        name: String,
    },
    /// List all Accounts.
    List,
    /// The API keys of an Account: two hold at a time while a backend changes from one to the other.
    #[command(subcommand)]
    Key(KeyCommand),
}

/// What about API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make another API key; the secret is shown this once.
    Create {
        /// The Account; needed when there are several.
        #[arg(long)]
        account: Option<String>,
    },
    /// List the keys of an Account, without their secrets.
    List {
        /// The Account; needed when there are several.
        #[arg(long)]
        account: Option<String>,
    },
    /// Revoke a key: within seconds its tokens are refused, and who is connected with one must show one of another key.
    Revoke {
        /// The key's id.
        key: String,
    },
}

/// What to apply, and how. Ends with 0 where it was applied or nothing was to be changed, 1 where something is wrong, 2 where
/// something would change and was only shown.
#[derive(Debug, Args)]
pub struct ApplyOptions {
    /// The file, in TOML. A section that is in it is the whole of it; one that isn't stays as it is.
    pub file: PathBuf,
    /// The Account, by its id or its name, instead of the one the file names; needed when there are several.
    #[arg(long)]
    pub account: Option<String>,
    /// Show what would change, and change nothing.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Change it without asking.
    #[arg(long)]
    pub yes: bool,
}

/// Whose usage, and since when.
#[derive(Debug, Args)]
pub struct UsageOptions {
    /// One Account alone: its id, or what stands before the colon in the name of a user of `[relay] users`.
    #[arg(long)]
    pub account: Option<String>,
    /// The first day, such as 2026-11-01; 30 days ago by default.
    #[arg(long, value_name = "DATE")]
    pub since: Option<jiff::civil::Date>,
    /// Print JSON for machines.
    #[arg(long)]
    pub json: bool,
}

/// What to check.
#[derive(Debug, Default, Args)]
pub struct DoctorOptions {
    /// What people type to get to the server (instead of `public_url` in the configuration).
    #[arg(long, value_parser = |text: &str| PublicUrl::new(text).map_err(|error| error.to_string()))]
    pub url: Option<PublicUrl>,
    /// Print JSON for machines.
    #[arg(long, global = true)]
    pub json: bool,
    /// One question instead of all checks.
    #[command(subcommand)]
    pub question: Option<DoctorQuestion>,
}

/// What the doctor is asked.
#[derive(Debug, Subcommand)]
pub enum DoctorQuestion {
    /// What the relay decides about a client and a peer, by which rule, and how to change it. Ends with 0 where the peer may be
    /// reached, 1 where the relay refuses, 2 where nobody can tell.
    Relay {
        /// The client: an address in any form, with a port or without, or a name.
        client: String,
        /// The peer it wants to reach, in the same forms.
        peer: String,
    },
}

/// A number and a unit of `s`, `m`, `h` or `d`.
fn parse_ttl(text: &str) -> Result<std::time::Duration, String> {
    let refusal = || format!("`{text}` is no time; write 90s, 15m, 1h or 30d");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(refusal)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(refusal()),
    };
    let number: u64 = number.parse().map_err(|_| refusal())?;
    number
        .checked_mul(seconds)
        .filter(|ttl| *ttl > 0)
        .map(std::time::Duration::from_secs)
        .ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        let bare = Cli::try_parse_from(["offhook", "--lan", "--roles", "relay,web", "--data", "d"])
            .unwrap();
        assert!(bare.serve.lan && bare.command.is_none());
        assert_eq!(bare.serve.roles, Some(vec![Role::Relay, Role::Web]));

        let spelt = Cli::try_parse_from(["offhook", "serve", "--lan", "--data", "d"]).unwrap();
        assert!(matches!(
            spelt.command,
            Some(Command::Serve(ServeOptions { lan: true, .. }))
        ));
        assert_eq!(spelt.data, Some("d".into()));
    }

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        let rows = [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("1h", Some(3600)),
            ("30d", Some(2_592_000)),
            ("0s", None),
            ("1", None),
            ("h", None),
            ("", None),
            ("1ü", None),
            ("99999999999999999999d", None),
        ];
        for (text, expected) in rows {
            assert_eq!(
                parse_ttl(text).ok().map(|ttl| ttl.as_secs()),
                expected,
                "{text}"
            );
        }
    }
}
