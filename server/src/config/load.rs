//! From a file and the environment to a [`Config`], or to an error that says where and what instead.
//!
//! In: the text of `offhook.toml` and the variables that begin with `OFFHOOK_`. Out: one valid [`Config`]. The environment wins.
//!
//! A variable is named after its setting: `OFFHOOK_` and the path in capitals, with `__` between table and key, so
//! `OFFHOOK_RELAY__PUBLIC_IPS=203.0.113.7` is `public_ips` in `[relay]`. Its value is written as in the file; quotes around a
//! lone string may be left out, and so may the brackets of a list of strings.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use toml::de::DeTable;
use toml::{Table, Value};

use super::Config;
use super::validate::validate;

/// What every variable begins with.
const PREFIX: &str = "OFFHOOK_";

/// Variables that begin like ours and aren't settings: the file itself, and the binary our tests run.
const NOT_SETTINGS: [&str; 2] = ["CONFIG", "BINARY"];

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
    let mut variables = Vec::new();
    for (variable, value) in std::env::vars_os() {
        let Some(variable) = variable.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        match value.into_string() {
            Ok(value) => variables.push((variable.to_owned(), value)),
            Err(value) => bail!("environment variable {variable}: {value:?} is not UTF-8"),
        }
    }
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
    let mut variables_by_setting = HashMap::new();
    for (variable, value) in variables {
        let Some(path) = setting_of(&variable) else {
            continue;
        };
        (table, config) = lay_over(&table, &path, &value).map_err(|error| {
            let what = words(error.message(), &value, &format!("{variable} {value}"));
            anyhow::anyhow!("environment variable {variable}: {what}")
        })?;
        variables_by_setting.insert(path.join("."), variable);
    }
    validate(&config).map_err(|wrong| {
        let place = match wrong
            .settings()
            .find_map(|it| variables_by_setting.get(&it))
        {
            Some(variable) => format!("environment variable {variable}"),
            None => place(name, wrong.settings().find_map(|it| line_of(text, &it))),
        };
        anyhow::anyhow!("{place}: {}", wrong.why)
    })?;
    Ok(config)
}

/// The path of the setting a variable means; `None` when it means none.
fn setting_of(variable: &str) -> Option<Vec<String>> {
    let rest = variable.strip_prefix(PREFIX)?;
    if NOT_SETTINGS.contains(&rest) || is_of_kubernetes(rest) {
        return None;
    }
    Some(rest.split("__").map(str::to_lowercase).collect())
}

/// Whether Kubernetes made this variable: it gives every container `<NAME>_SERVICE_HOST`, `<NAME>_SERVICE_PORT…`, `<NAME>_PORT` and
/// `<NAME>_PORT_<number>_<protocol>…` for each Service, and the names of ours may well begin with `offhook`.
fn is_of_kubernetes(rest: &str) -> bool {
    let rest = format!("_{rest}");
    let numbered = |(_, behind): (&str, &str)| {
        let number = behind.split('_').next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    !rest.contains("__")
        && (rest.ends_with("_SERVICE_HOST")
            || rest.contains("_SERVICE_PORT")
            || rest.ends_with("_PORT")
            || rest.split_once("_PORT_").is_some_and(numbered))
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
pub(crate) fn explain(name: &str, text: &str, error: &toml::de::Error) -> String {
    let span = error.span();
    let line = span.as_ref().map(|span| line_at(text, span.start));
    let whole = line.and_then(|line| text.lines().nth(line - 1));
    let found = span.and_then(|span| text.get(span)).unwrap_or_default();
    format!(
        "{}: {}",
        place(name, line),
        words(error.message(), found, whole.unwrap_or_default())
    )
}

/// What is wrong with `value`, which stands in `around`: shown, unless it may be a secret.
fn words(message: &str, value: &str, around: &str) -> String {
    let around = around.to_lowercase();
    let secret = ["password", "users", "keys", "kid"];
    if message.starts_with("invalid ") && secret.iter().any(|word| around.contains(word)) {
        return "this does not fit; it is not shown here, for it may hold a password".to_owned();
    }
    format!(
        "{}{}{}",
        plain(message),
        shown(message, value),
        suggestion(message)
    )
}

/// Where a setting stands: the file and, as far as it is known, the line.
pub(crate) fn place(name: &str, line: Option<usize>) -> String {
    match (name, line) {
        ("", _) => "configuration".to_owned(),
        (name, Some(line)) => format!("{name}:{line}"),
        (name, None) => name.to_owned(),
    }
}

/// The line of `setting`, a path such as `tls.key_file`; `None` where the file does not set it.
fn line_of(text: &str, setting: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut keys = setting.split('.').peekable();
    while let Some(key) = keys.next() {
        let (name, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
        if keys.peek().is_none() {
            return Some(line_at(text, name.span().start));
        }
        table = value.get_ref().as_table()?;
    }
    None
}

pub(crate) fn line_at(text: &str, position: usize) -> usize {
    let before = &text.as_bytes()[..position.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// `: value`, where the message says what is wrong without showing it.
fn shown(message: &str, value: &str) -> String {
    let bare = value.trim_matches(['\'', '"']);
    let is_short = !bare.is_empty() && bare.len() <= 80 && !bare.contains('\n');
    if message.ends_with(" syntax") && is_short && !message.contains(bare) {
        format!(": `{bare}`")
    } else {
        String::new()
    }
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
                "offhook.toml:2: invalid socket address syntax: `localhost`",
            ),
            (
                "trusted_proxies = ['10.0.0.0/40']",
                "offhook.toml:1: `10.0.0.0/40` has a prefix length that is not 0 to 32",
            ),
            ("listen = [", "offhook.toml:1: "),
            (
                "listen = []",
                "offhook.toml:1: `listen` is empty: nothing could reach this server",
            ),
            (
                "[tls]\nkey_file = 'a'",
                "offhook.toml:2: [tls] needs both `certificate_file` and `key_file`, or neither; `certificate_file` is missing",
            ),
            (
                "[tls.acme]\ndomains = ['*.example.com']",
                "offhook.toml:2: [tls.acme] `domains` holds `*.example.com`; ",
            ),
            (
                "[tls.acme]\ndomains = ['192.0.2.1']",
                "offhook.toml:2: [tls.acme] `domains` holds `192.0.2.1`; ",
            ),
            (
                "[tls.acme]\ndomains = ['a.example']",
                "offhook.toml: [tls.acme] `terms_agreed` is false; read the terms",
            ),
            (
                "[tls.acme]\ndomains = ['a.example']\ndirectory = 'http://b.example/'",
                "offhook.toml:3: [tls.acme] `directory` is `http://b.example/`; ",
            ),
            (
                "[tls.acme]\ndomains = ['a.example']\ncontact = ['mailto:a@b.example']",
                "offhook.toml:3: [tls.acme] `contact` holds `mailto:a@b.example`; ",
            ),
            (
                "[tls]\ncertificate_file = 'a'\nkey_file = 'b'\n[tls.acme]\ndomains = ['a.example']",
                "offhook.toml:5: [tls.acme] `domains` and [tls] `certificate_file` both bring",
            ),
            (
                "public_url = 'calls.example.com'",
                "offhook.toml:1: `public_url` is `calls.example.com`; write `https://host` or `https://host:port`",
            ),
            (
                "roles = []",
                "offhook.toml:1: `roles` is empty: there would be nothing to do",
            ),
            (
                "\nallowed_origins = ['example.com']",
                "offhook.toml:2: `allowed_origins` holds `example.com`; ",
            ),
            (
                "allowed_origins = ['https://a.b:99999']",
                "offhook.toml:1: `allowed_origins` holds `https://a.b:99999`; ",
            ),
            (
                "[log]\nfilter = 'offhook=loud'",
                "offhook.toml:2: [log] `filter` is `offhook=loud`: error parsing level filter",
            ),
            (
                "# The relay\nrelay.port_min = 80",
                "offhook.toml:2: [relay] `port_min` is 80; it must be at least 1024",
            ),
            (
                "[relay]\n\nrelay_ips = ['10.0.0.5', '10.0.0.6']",
                "offhook.toml:3: [relay] `relay_ips` has both 10.0.0.5 and 10.0.0.6",
            ),
            (
                "[limits]\nhandshake_seconds = 0",
                "offhook.toml:2: [limits] `handshake_seconds` is 0; it must be at least 1",
            ),
            (
                "[limits]\nwrite_stall_seconds = 9223372036854775807",
                "offhook.toml:2: [limits] `write_stall_seconds` is 9223372036854775807; it can be 86400, a day, at most",
            ),
            (
                "drain_seconds = 90000",
                "offhook.toml:1: `drain_seconds` is 90000; it can be 86400, a day, at most",
            ),
            (
                "[relay]\nusers = [{ name = 'a:door', password = 12345 }]",
                "offhook.toml:2: this does not fit; it is not shown here, for it may hold a password",
            ),
            (
                "[relay.third_party]\nkeys = [{ kid = 'a', key = 12345 }]",
                "offhook.toml:2: this does not fit; it is not shown here, for it may hold a password",
            ),
            (
                "[signaling.limits]\nping_ms = 0",
                "offhook.toml:2: [signaling.limits] `ping_ms` is 0; it must be at least 1",
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
            (
                ("OFFHOOK_RELAY__USERS", "a:door=hush"),
                "environment variable OFFHOOK_RELAY__USERS: this does not fit; it is not shown here",
            ),
            (
                ("OFFHOOK_METRICS__LISTEN", "9090"),
                "environment variable OFFHOOK_METRICS__LISTEN: invalid ",
            ),
            (
                ("OFFHOOK_PUBLIC_URL", "calls.example.com"),
                "environment variable OFFHOOK_PUBLIC_URL: `public_url` is `calls.example.com`; ",
            ),
            (
                ("OFFHOOK_RELAY__PORT_MAX", "1"),
                "environment variable OFFHOOK_RELAY__PORT_MAX: [relay] `port_min` is 49152 and above `port_max`, 1",
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
            ("OFFHOOK_SERVICE_PORT_HTTPS", "443"),
            ("OFFHOOK_WEB_PORT", "tcp://10.0.0.1:443"),
            ("OFFHOOK_WEB_PORT_443_TCP", "tcp://10.0.0.1:443"),
            ("OFFHOOK_WEB_SERVICE_HOST", "10.0.0.1"),
            ("OFFHOOK_CONFIG", "a.toml"),
        ];
        assert!(check("", &variables).is_ok());
        assert!(check("", &[("OFFHOOK_RELAY__PORT_MIM", "1")]).is_err());
    }
}
