//! What a single setting's own type can't tell.
//!
//! In: settings of the right types. Out: nothing, or the first that is [`Wrong`]: which one, and why.

use anyhow::bail;
use axum::http::uri::Authority;
use serde_json::Value;
use tracing_subscriber::EnvFilter;

use super::{Config, Tls};

/// The longest time that can be set, in seconds: a day. Anything longer is a slip of the pen, and the far end of `u64` is beyond
/// what clocks can add.
const SECONDS_MAX: u64 = 86_400;

/// Where 0 means something: at once, one per CPU, for ever.
const ZERO_IS_GOOD: [&str; 5] = [
    "drain_seconds",
    "signaling.shards",
    "records.keep_history_days",
    "records.keep_usage_days",
    "gateway.health_seconds",
];

/// A setting that is wrong.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Its path, such as `tls.key_file`.
    pub(super) setting: String,
    /// Why, and what it should be.
    pub(super) why: String,
}

impl Wrong {
    /// The setting itself, then those beside it that `why` names: any of them may have been changed last.
    pub(super) fn settings(&self) -> impl Iterator<Item = String> {
        let table = self.setting.rsplit_once('.').map(|(table, _)| table);
        let named = self.why.split('`').skip(1).step_by(2);
        let beside = named.map(move |name| match table {
            Some(table) => format!("{table}.{name}"),
            None => name.to_owned(),
        });
        std::iter::once(self.setting.clone()).chain(beside)
    }
}

fn wrong(setting: &str, why: impl Into<String>) -> Result<(), Wrong> {
    Err(Wrong {
        setting: setting.to_owned(),
        why: why.into(),
    })
}

pub(super) fn validate(config: &Config) -> Result<(), Wrong> {
    if config.listen.is_empty() {
        return wrong(
            "listen",
            "`listen` is empty: nothing could reach this server",
        );
    }
    if config.roles.is_empty() {
        return wrong("roles", "`roles` is empty: there would be nothing to do");
    }
    if let Some(url) = &config.public_url
        && let Err(error) = url.check()
    {
        return wrong("public_url", error.to_string());
    }
    for origin in &config.allowed_origins {
        if origin != "*" && !is_origin(origin) {
            let why = format!(
                "`allowed_origins` holds `{origin}`; an origin is `https://host` or `https://host:port`, without a path"
            );
            return wrong("allowed_origins", why);
        }
    }
    for (one, other, is_half) in [
        ("tls.certificate_file", "key_file", {
            config.tls.certificate_file.is_some() && config.tls.key_file.is_none()
        }),
        ("tls.key_file", "certificate_file", {
            config.tls.key_file.is_some() && config.tls.certificate_file.is_none()
        }),
    ] {
        if is_half {
            let why = format!(
                "[tls] needs both `certificate_file` and `key_file`, or neither; `{other}` is missing"
            );
            return wrong(one, why);
        }
    }
    acme(&config.tls)?;
    if let Err(error) = EnvFilter::try_new(&config.log.filter) {
        let why = format!("[log] `filter` is `{}`: {error}", config.log.filter);
        return wrong("log.filter", why);
    }
    if let Ok(value) = serde_json::to_value(config) {
        numbers(&value, "")?;
    }
    if let Err(error) = config.relay.check() {
        let why = format!("{error:#}");
        let setting = why.split('`').nth(1).unwrap_or_default();
        return wrong(&format!("relay.{setting}"), format!("[relay] {why}"));
    }
    if let Err(error) = config.sfu.validate() {
        let why = format!("{error:#}").replace("`sfu.", "`");
        let setting = why.split('`').nth(1).unwrap_or_default();
        return wrong(&format!("sfu.{setting}"), format!("[sfu] {why}"));
    }
    if let Err(error) = config.gateway.validate() {
        let why = format!("{error:#}").replace("`gateway.", "`");
        let setting = why.split('`').nth(1).unwrap_or_default();
        return wrong(&format!("gateway.{setting}"), format!("[gateway] {why}"));
    }
    if config.gateway.is_enabled() && !config.sfu.enabled {
        let why = "[gateway] listens and [sfu] `enabled` is false: phones are heard in Rooms, so that it takes the SFU";
        return wrong("sfu.enabled", why);
    }
    Ok(())
}

fn acme(tls: &Tls) -> Result<(), Wrong> {
    let of = &tls.acme;
    if of.domains.is_empty() {
        return Ok(());
    }
    if tls.certificate_file.is_some() {
        let why = "[tls.acme] `domains` and [tls] `certificate_file` both bring a certificate: keep one of them";
        return wrong("tls.acme.domains", why);
    }
    for domain in &of.domains {
        let is_name = check_authority(domain).is_ok() && !domain.contains([':', '[']);
        if !is_name || domain.parse::<std::net::IpAddr>().is_ok() {
            let why = format!(
                "[tls.acme] `domains` holds `{domain}`; write a name such as `calls.example.com` (`*` takes a check by DNS, which is not made here)"
            );
            return wrong("tls.acme.domains", why);
        }
    }
    for address in &of.contact {
        if !address.contains('@') || address.contains([':', '?', ',', ' ']) {
            let why = format!("[tls.acme] `contact` holds `{address}`; write a mail address");
            return wrong("tls.acme.contact", why);
        }
    }
    let authority = of.directory.strip_prefix("https://");
    let authority = authority.map(|rest| rest.split('/').next().unwrap_or_default());
    if authority.is_none_or(|authority| check_authority(authority).is_err()) {
        let why = format!(
            "[tls.acme] `directory` is `{}`; it must be an https address",
            of.directory
        );
        return wrong("tls.acme.directory", why);
    }
    if !of.terms_agreed {
        let why = format!(
            "[tls.acme] `terms_agreed` is false; read the terms that {} names, and set it to true",
            of.directory
        );
        return wrong("tls.acme.terms_agreed", why);
    }
    Ok(())
}

/// A limit of nothing would serve nobody, and a time without end is one that clocks can't add. What 0 means to the relay and to
/// the SFU, they decide themselves.
fn numbers(value: &Value, path: &str) -> Result<(), Wrong> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let path = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            numbers(value, &path)
        }),
        Value::Number(number) => {
            let number = number.as_u64().unwrap_or(u64::MAX);
            let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
            let setting = match table {
                "" => format!("`{name}`"),
                table => format!("[{table}] `{name}`"),
            };
            let longest = match name {
                name if name.contains("_seconds") => SECONDS_MAX,
                name if name.ends_with("_ms") => SECONDS_MAX * 1_000,
                _ => u64::MAX,
            };
            if number == 0 && !matches!(table, "relay" | "sfu") && !ZERO_IS_GOOD.contains(&path) {
                return wrong(path, format!("{setting} is 0; it must be at least 1"));
            }
            if number > longest {
                let why = format!("{setting} is {number}; it can be {longest}, a day, at most");
                return wrong(path, why);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether this is a scheme of the web, a host and perhaps a port, and nothing else.
fn is_origin(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|authority| check_authority(authority).is_ok())
}

/// Fails unless `text` is a host, or a host and a port from 1 to 65535.
pub(super) fn check_authority(text: &str) -> anyhow::Result<()> {
    let read: Authority = text.parse()?;
    let host = read.host();
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_host = match host.strip_prefix('[') {
        Some(v6) => v6
            .strip_suffix(']')
            .is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.chars().all(legal),
    };
    let port = text.strip_prefix(host).unwrap_or(text);
    let is_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if !is_host || !is_port {
        bail!("`{text}` is not a host with or without a port");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let rows = [
            ("calls.example.com", true),
            ("calls.example.com:8443", true),
            ("192.0.2.1:443", true),
            ("[2001:db8::1]", true),
            ("[2001:db8::1]:443", true),
            ("", false),
            (":443", false),
            ("calls.example.com:", false),
            ("calls.example.com:0", false),
            ("calls.example.com:99999", false),
            ("calls.example.com:x", false),
            ("calls.example.com/path", false),
            ("user@calls.example.com", false),
            ("2001:db8::1", false),
            ("[2001:db8::1", false),
            ("[nonsense]", false),
            ("a b", false),
        ];
        for (text, expected) in rows {
            assert_eq!(check_authority(text).is_ok(), expected, "{text}");
        }
    }
}
