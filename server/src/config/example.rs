//! `offhook config --example`: the whole file, commented, from the doc comments and defaults of the types themselves.
//!
//! In: the JSON Schema of [`Config`] (its descriptions) and `Config::default()` (its values and their order). Out: TOML in which every
//! setting stands behind a `#`, so that the file as printed means the defaults, and every line can be made to count alone.

use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::Config;

/// How wide the comments are.
const WIDTH: usize = 110;

const HEADER: &str = "# Offhook's settings. Each one stands here with its default; take away the # in front to change it.
# The environment wins over this file: OFFHOOK_RELAY__PUBLIC_IPS=203.0.113.7 sets `public_ips` in [relay].
# Check the file with `offhook config --check --config FILE`, and the running server with `offhook doctor --config FILE`.
";

/// The commented file. Fails only if a setting has a default that TOML can't express.
pub fn text() -> anyhow::Result<String> {
    let schema = serde_json::to_value(schemars::schema_for!(Config))?;
    // Through text, for a `Value` would forget the order of the fields.
    let defaults: Fields = serde_json::from_str(&serde_json::to_string(&Config::default())?)?;
    let mut out = HEADER.to_owned();
    write_table(&mut out, &schema, &schema, &defaults, "")?;
    Ok(out)
}

/// A struct as its fields in order.
struct Fields(Vec<(String, Node)>);

enum Node {
    Table(Fields),
    Value(Value),
}

/// Plain settings first: in TOML, whatever follows a table's header belongs to that table.
fn write_table(
    out: &mut String,
    root: &Value,
    schema: &Value,
    fields: &Fields,
    path: &str,
) -> anyhow::Result<()> {
    for (name, node) in &fields.0 {
        let Node::Value(default) = node else { continue };
        let property = property(root, schema, name);
        out.push('\n');
        write_comment(out, description(root, property));
        let (value, note) = match default {
            Value::Null => (
                property.pointer("/examples/0").cloned().unwrap_or_default(),
                "  # an example; not set by default",
            ),
            value => (value.clone(), ""),
        };
        match value {
            Value::Null => writeln!(out, "# (`{name}` is not set by default)")?,
            value => writeln!(out, "#{name} = {}{note}", toml::Value::try_from(value)?)?,
        }
    }
    for (name, node) in &fields.0 {
        let Node::Table(inner) = node else { continue };
        let property = property(root, schema, name);
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        out.push_str("\n\n");
        write_comment(
            out,
            property
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        );
        writeln!(out, "[{path}]")?;
        write_table(out, root, resolve(root, property), inner, &path)?;
    }
    Ok(())
}

fn property<'a>(root: &'a Value, schema: &'a Value, name: &str) -> &'a Value {
    resolve(root, schema)
        .pointer(&format!("/properties/{name}"))
        .unwrap_or(&Value::Null)
}

/// Follows a `$ref` to the definition it names.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix('#'));
    reference
        .and_then(|pointer| root.pointer(pointer))
        .unwrap_or(schema)
}

/// The words at the setting itself, or else those at its type.
fn description<'a>(root: &'a Value, property: &'a Value) -> &'a str {
    let own = property.get("description");
    own.or_else(|| resolve(root, property).get("description"))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Writes `text` as comment lines of at most [`WIDTH`]; its own line breaks are only those of the source.
fn write_comment(out: &mut String, text: &str) {
    for paragraph in text
        .split("\n\n")
        .filter(|paragraph| !paragraph.trim().is_empty())
    {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH {
                out.push_str(&line);
                out.push('\n');
                line.truncate(1);
            }
            line.push(' ');
            line.push_str(word);
        }
        out.push_str(&line);
        out.push('\n');
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key()? {
                    let raw: Box<serde_json::value::RawValue> = map.next_value()?;
                    let node = match serde_json::from_str(raw.get()) {
                        Ok(table) => Node::Table(table),
                        Err(_) => Node::Value(
                            serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?,
                        ),
                    };
                    fields.push((name, node));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse;

    #[test]
    fn the_example_means_the_defaults() {
        let config = parse("example", &text().unwrap(), []).unwrap();
        assert_eq!(
            serde_json::to_value(config).unwrap(),
            serde_json::to_value(Config::default()).unwrap()
        );
    }

    #[test]
    fn every_line_can_be_made_to_count() {
        let all: String = text()
            .unwrap()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => {
                    format!("{setting}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        parse("example", &all, []).unwrap();
        assert!(
            all.lines()
                .filter(|line| line.contains(" = ") && !line.starts_with('#'))
                .count()
                > 20,
            "{all}"
        );
    }

    #[test]
    fn every_setting_is_explained() {
        let text = text().unwrap();
        let lines: Vec<_> = text.lines().collect();
        for pair in lines.windows(2) {
            let is_setting =
                pair[1].starts_with('#') && !pair[1].starts_with("# ") && pair[1] != "#";
            assert!(
                !is_setting || pair[0].starts_with("# "),
                "nothing explains {}",
                pair[1]
            );
        }
    }
}
