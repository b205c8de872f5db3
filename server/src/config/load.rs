//! From a file and the environment to a [`Config`], or to an error that says where and what instead.
//!
//! In: the text of `offhook.toml` and the variables that begin with `OFFHOOK_`. Out: one valid [`Config`]. The environment wins.
//!
//! A variable is named after its setting: `OFFHOOK_` and the path in capitals, with `__` between table and key, so
//! `OFFHOOK_RELAY__PUBLIC_IPS=203.0.113.7` is `public_ips` in `[relay]`. Its value is written as in the file; quotes around a
//! lone string may be left out, and so may the brackets of a list of strings.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use toml::{Table, Value};

use super::Config;

/// What every variable begins with.
const PREFIX: &str = "OFFHOOK_";

/// Variables that begin like ours and aren't settings: the file itself, the binary our tests run, and what Kubernetes gives every
/// container when there is a Service named `offhook`.
const NOT_SETTINGS: [&str; 4] = ["CONFIG", "BINARY", "PORT", "SERVICE"];

/// A configuration, and whether anybody wrote one.
#[derive(Debug)]
pub struct Loaded {
    /// The settings that hold.
    pub config: Config,
    /// Whether there is a configuration file.
    pub from_file: bool,
}

/// Reads the configuration at `path` (none: the defaults) and lays the process's environment over it.
pub fn load(path: Option<&Path>) -> anyhow::Result<Loaded> {
    let text = match path {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("can't read {}", path.display()))?,
        None => String::new(),
    };
    let name = path.map_or_else(String::new, |path| path.display().to_string());
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(Loaded {
        config: parse(&name, &text, variables)?,
        from_file: path.is_some(),
    })
}

/// Parses the file's `text` and lays `variables` over it.
///
/// `name` is what errors call the file. Errors name the file and line, or the variable, show what was wrong, and suggest the
/// setting that was probably meant.
pub fn parse(
    name: &str,
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> anyhow::Result<Config> {
    // The file alone first: only its own text can give line numbers.
    let mut config: Config =
        toml::from_str(text).map_err(|error| anyhow::anyhow!(explain(name, text, &error)))?;
    let mut table: Table = toml::from_str(text)?;

    let mut variables: Vec<_> = variables.into_iter().collect();
    variables.sort();
    for (variable, value) in variables {
        let Some(path) = setting_of(&variable) else {
            continue;
        };
        (table, config) = lay_over(&table, &path, &value).map_err(|error| {
            let message = error.message();
            anyhow::anyhow!(
                "environment variable {variable}: {}{}",
                plain(message),
                suggestion(message)
            )
        })?;
    }
    config.validate().with_context(|| {
        if name.is_empty() {
            "configuration".into()
        } else {
            name.to_owned()
        }
    })?;
    Ok(config)
}

/// The path of the setting a variable means; `None` when it means none.
fn setting_of(variable: &str) -> Option<Vec<String>> {
    let rest = variable.strip_prefix(PREFIX)?;
    if NOT_SETTINGS.iter().any(|name| {
        rest == *name
            || rest
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('_'))
    }) {
        return None;
    }
    Some(rest.split("__").map(str::to_lowercase).collect())
}

/// Sets `path` in a copy of `table`: to `value` as TOML, or else as a string, or else as a list of strings between commas.
fn lay_over(
    table: &Table,
    path: &[String],
    value: &str,
) -> Result<(Table, Config), toml::de::Error> {
    let as_toml = toml::from_str::<Table>(&format!("value = {value}"));
    let as_toml = as_toml.ok().and_then(|mut table| table.remove("value"));
    let as_text = Value::String(value.to_owned());
    let as_list = Value::Array(value.split(',').map(|entry| entry.trim().into()).collect());

    let attempt = |value: Value| {
        let mut table = table.clone();
        set(&mut table, path, value);
        Config::deserialize(Value::Table(table.clone())).map(|config| (table, config))
    };
    let outcome = match as_toml {
        Some(value) => attempt(value).or_else(|error| attempt(as_text.clone()).map_err(|_| error)),
        None => attempt(as_text),
    };
    match outcome {
        // Only where a list is meant: serde would take one for a table, too, and fill its first fields.
        Err(error) if is_list(path) => attempt(as_list).map_err(|_| error),
        outcome => outcome,
    }
}

/// Whether the setting at `path` is a list.
fn is_list(path: &[String]) -> bool {
    let defaults = Table::try_from(Config::default()).map(Value::Table);
    let mut value = defaults.as_ref().ok();
    for key in path {
        value = value.and_then(|value| value.get(key));
    }
    value.is_some_and(Value::is_array)
}

fn set(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let inner = table
                .entry(key.clone())
                .or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

/// `file:line: what is wrong; did you mean …?`
fn explain(name: &str, text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let place = match error.span() {
        Some(span) => format!(
            "{name}:{}",
            1 + text[..span.start.min(text.len())].matches('\n').count()
        ),
        None => name.to_owned(),
    };
    format!("{place}: {}{}", plain(message), suggestion(message))
}

/// serde's words for a wrong key or value, in the words of this product and without its long list of alternatives.
fn plain(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    match first.strip_prefix("unknown field ") {
        Some(rest) => format!(
            "unknown setting {}",
            rest.split(", expected").next().unwrap_or(rest)
        ),
        None => first.to_owned(),
    }
}

/// `; did you mean …?` when one of the expected names is close to the one given.
///
/// Reads serde's message: the first name in backquotes is the wrong one, the others are those expected.
fn suggestion(message: &str) -> String {
    if !message.starts_with("unknown ") {
        return String::new();
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let Some(wrong) = names.next() else {
        return String::new();
    };
    names
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

impl Config {
    /// Fails on what a single setting's own type can't tell.
    fn validate(&self) -> anyhow::Result<()> {
        if self.listen.is_empty() {
            bail!("`listen` is empty: nothing could reach this server");
        }
        if self.roles.is_empty() {
            bail!("`roles` is empty: there would be nothing to do");
        }
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            bail!("[tls] needs both `certificate_file` and `key_file`, or neither");
        }
        if let Some(url) = &self.public_url {
            url.check()?;
        }
        for origin in &self.allowed_origins {
            let rest = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            if origin != "*" && rest.is_none_or(|host| host.is_empty() || host.contains('/')) {
                bail!(
                    "`allowed_origins` holds `{origin}`; an origin is `https://host` or `https://host:port`, without a path"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        parse("offhook.toml", text, variables).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_wrong_setting_is_refused_with_its_line_and_a_suggestion() {
        let rows = [
            (
                "\n\nlisen = []",
                "offhook.toml:3: unknown setting `lisen`; did you mean `listen`?",
            ),
            (
                "[tls]\ncertificat_file = 'a'",
                "offhook.toml:2: unknown setting `certificat_file`; did you mean `certificate_file`?",
            ),
            (
                "[rely]\n",
                "offhook.toml:1: unknown setting `rely`; did you mean `relay`?",
            ),
            (
                "[log]\n\nformat = 'jsn'",
                "offhook.toml:3: unknown variant `jsn`, expected `text` or `json`; did you mean `json`?",
            ),
            ("zebra = 1", "offhook.toml:1: unknown setting `zebra`"),
            (
                "# ü\nlisten = ['localhost']",
                "offhook.toml:2: invalid socket address syntax",
            ),
            (
                "trusted_proxies = ['10.0.0.0/40']",
                "offhook.toml:1: `10.0.0.0/40` has a prefix length that is not 0 to 32",
            ),
            ("listen = [", "offhook.toml:1: "),
            (
                "listen = []",
                "offhook.toml: `listen` is empty: nothing could reach this server",
            ),
            (
                "[tls]\nkey_file = 'a'",
                "offhook.toml: [tls] needs both `certificate_file` and `key_file`, or neither",
            ),
            (
                "public_url = 'calls.example.com'",
                "offhook.toml: `public_url` is `calls.example.com`; write `https://host` or `https://host:port`",
            ),
            (
                "allowed_origins = ['example.com']",
                "offhook.toml: `allowed_origins` holds `example.com`; ",
            ),
        ];
        for (text, expected) in rows {
            let error = check(text, &[]).unwrap_err();
            assert!(
                error.starts_with(expected),
                "{text:?}\n  got      {error}\n  expected {expected}"
            );
        }
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let text = "listen = ['127.0.0.1:1']\n[log]\nformat = 'json'";
        let config = check(
            text,
            &[
                ("OFFHOOK_LISTEN", "['127.0.0.1:2']"),
                ("OFFHOOK_TLS__KEY_FILE", "k"),
                ("OFFHOOK_TLS__CERTIFICATE_FILE", "\"c\""),
            ],
        )
        .unwrap();
        assert_eq!(config.listen, ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!(config.tls.key_file.as_deref(), Some(Path::new("k")));
        assert_eq!(config.tls.certificate_file.as_deref(), Some(Path::new("c")));
        assert_eq!(config.log.format, crate::config::LogFormat::Json);
    }

    #[test]
    fn a_string_may_look_like_a_number() {
        let config = check("", &[("OFFHOOK_LOG__FILTER", "17")]).unwrap();
        assert_eq!(config.log.filter, "17");
    }

    #[test]
    fn a_list_may_come_without_brackets() {
        let config = check(
            "",
            &[
                ("OFFHOOK_LISTEN", "127.0.0.1:1, [::1]:1"),
                ("OFFHOOK_RELAY__PUBLIC_IPS", "203.0.113.7"),
            ],
        )
        .unwrap();
        assert_eq!(
            config.listen,
            ["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()]
        );
        assert_eq!(
            config.relay.public_ips,
            ["203.0.113.7".parse::<std::net::IpAddr>().unwrap()]
        );
    }

    #[test]
    fn a_wrong_variable_is_refused_with_its_name() {
        let rows = [
            (
                ("OFFHOOK_LISEN", "[]"),
                "environment variable OFFHOOK_LISEN: unknown setting `lisen`; did you mean `listen`?",
            ),
            (
                ("OFFHOOK_DRAIN_SECONDS", "soon"),
                "environment variable OFFHOOK_DRAIN_SECONDS: invalid type",
            ),
            (
                ("OFFHOOK_LOG", "debug"),
                "environment variable OFFHOOK_LOG: invalid type",
            ),
        ];
        for (variable, expected) in rows {
            let error = check("", &[variable]).unwrap_err();
            assert!(
                error.starts_with(expected),
                "{variable:?}\n  got      {error}\n  expected {expected}"
            );
        }
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_is_not_a_setting() {
        let variables = [
            ("OFFHOOK_PORT", "tcp://10.0.0.1:443"),
            ("OFFHOOK_PORT_443_TCP_ADDR", "10.0.0.1"),
            ("OFFHOOK_SERVICE_HOST", "10.0.0.1"),
            ("OFFHOOK_CONFIG", "a.toml"),
        ];
        assert!(check("", &variables).is_ok());
    }
}
