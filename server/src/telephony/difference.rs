//! What applying a file changes, for whoever has to say yes to it.
//!
//! ```text
//! + trunks.carrier                        added
//!     targets = ["sip:carrier.example"]
//! ~ queues.sales                          changed
//!     ring_seconds: 20 → 30
//! - menus.old                             removed
//! ```
//!
//! Secrets are told apart and never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::phone::rows::{Kind, Telephony};
use serde_json::{Map, Value};

/// The longest value that is shown whole, in characters.
const SHOWN_MAX: usize = 200;

/// A difference between the telephony of an Account before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    changes: Vec<RowChange>,
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RowChange {
    row: String,
    what: What,
    lines: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Added,
    Changed,
    Removed,
}

/// A row as it is compared: its fields down to plain values and lists, by their path.
type Fields = BTreeMap<String, Value>;

impl Difference {
    /// Compares two states of an Account. Fails only where rows can't be JSON, which they always can.
    pub fn between(before: &Telephony, after: &Telephony) -> anyhow::Result<Self> {
        let (old, new) = (rows(before)?, rows(after)?);
        let (old_secrets, new_secrets) = (before.secrets(), after.secrets());
        let mut changes = Vec::new();
        for row in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            let mut lines = fields_that_differ(old.get(row), new.get(row));
            let of_row = |of: &&model::phone::rows::SecretOf| {
                (of.kind, of.name.as_str()) == (row.0, row.1.as_str())
            };
            let secrets: BTreeSet<_> = old_secrets
                .keys()
                .chain(new_secrets.keys())
                .filter(of_row)
                .collect();
            for of in secrets {
                let field = of.field.as_str();
                match (old_secrets.get(of), new_secrets.get(of)) {
                    (None, Some(_)) => lines.push(format!("{field} = (secret)")),
                    (Some(_), None) => lines.push(format!("{field}: (secret) → nothing")),
                    (Some(old), Some(new)) if old != new => {
                        lines.push(format!("{field}: (secret) → (another secret)"));
                    }
                    _ => {}
                }
            }
            let what = match (old.contains_key(row), new.contains_key(row)) {
                (false, _) => What::Added,
                (_, false) => What::Removed,
                _ if lines.is_empty() => continue,
                _ => What::Changed,
            };
            if what == What::Removed {
                lines.clear();
            }
            changes.push(RowChange {
                row: match row.1.as_str() {
                    "" => row.0.to_string(),
                    name => format!("{}.{name}", row.0),
                },
                what,
                lines,
            });
        }
        Ok(Self { changes })
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |what| self.changes.iter().filter(|it| it.what == what).count();
        for change in &self.changes {
            let sign = match change.what {
                What::Added => '+',
                What::Changed => '~',
                What::Removed => '-',
            };
            writeln!(f, "{sign} {}", change.row)?;
            for line in &change.lines {
                writeln!(f, "    {line}")?;
            }
        }
        writeln!(
            f,
            "{} added, {} changed, {} removed.",
            count(What::Added),
            count(What::Changed),
            count(What::Removed)
        )
    }
}

/// The rows of an Account, by kind and name; what it has one of and is as always is none.
fn rows(telephony: &Telephony) -> anyhow::Result<BTreeMap<(Kind, String), Fields>> {
    let usual = serde_json::to_value(Telephony::default())?;
    let all = serde_json::to_value(telephony)?;
    let mut rows = BTreeMap::new();
    for kind in Kind::ALL {
        let Some(section) = all.get(kind.section()) else {
            continue;
        };
        if kind.is_single() {
            if Some(section) != usual.get(kind.section()) {
                rows.insert((kind, String::new()), fields(section));
            }
        } else if let Value::Object(section) = section {
            for (name, row) in section {
                rows.insert((kind, name.clone()), fields(row));
            }
        }
    }
    Ok(rows)
}

fn fields(row: &Value) -> Fields {
    let mut fields = Fields::new();
    collect(row, String::new(), &mut fields);
    fields
}

fn collect(value: &Value, path: String, fields: &mut Fields) {
    let nothing = Map::new();
    let inner = match value {
        Value::Object(inner) => inner,
        Value::Null => &nothing,
        Value::Array(list) if list.is_empty() => &nothing,
        _ => {
            fields.insert(path, value.clone());
            return;
        }
    };
    for (key, value) in inner {
        let path = match path.as_str() {
            "" => key.clone(),
            above => format!("{above}.{key}"),
        };
        collect(value, path, fields);
    }
}

fn fields_that_differ(old: Option<&Fields>, new: Option<&Fields>) -> Vec<String> {
    let nothing = Fields::new();
    let is_new = old.is_none();
    let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    paths
        .into_iter()
        .filter_map(|path| {
            let path_shown = if path.is_empty() { "value" } else { path };
            match (old.get(path), new.get(path)) {
                (old, new) if old == new => None,
                (None, Some(new)) if is_new => Some(format!("{path_shown} = {}", shown(new))),
                (None, Some(new)) => Some(format!("{path_shown}: nothing → {}", shown(new))),
                (Some(old), None) => Some(format!("{path_shown}: {} → nothing", shown(old))),
                (Some(old), Some(new)) => {
                    Some(format!("{path_shown}: {} → {}", shown(old), shown(new)))
                }
                (None, None) => None,
            }
        })
        .collect()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use model::phone::rows::Secret;

    use super::*;

    fn telephony(json: Value, password: &str) -> Telephony {
        let mut telephony: Telephony = serde_json::from_value(json).unwrap();
        for trunk in telephony.trunks.values_mut() {
            trunk.password = Some(Secret::new(password).unwrap());
        }
        telephony
    }

    #[test]
    fn a_difference_says_what_comes_goes_and_changes_and_no_secret() {
        let before = telephony(
            serde_json::json!({
                "trunks": { "a": { "targets": ["sip:a.example"] } },
                "pins": { "old": { "room": "old" } },
                "queues": { "same": { "members": ["x"], "nobody_answers": "busy" } },
            }),
            "hush",
        );
        let after = telephony(
            serde_json::json!({
                "dialling": { "country": "49" },
                "trunks": { "a": { "targets": ["sip:b.example"], "health_seconds": null, "limits": { "calls": 2 } } },
                "pins": { "new": { "room": "new" } },
                "queues": { "same": { "members": ["x"], "nobody_answers": "busy" } },
            }),
            "shush",
        );
        let difference = Difference::between(&before, &after).unwrap().to_string();
        assert_eq!(
            difference,
            "+ dialling\n    country = \"49\"\n    international_prefix = \"00\"\n    national_prefix = \"0\"\n\
             ~ trunks.a\n    health_seconds: 30 → nothing\n    limits.calls: 30 → 2\n    targets: [\"sip:a.example\"] → [\"sip:b.example\"]\n    \
             password: (secret) → (another secret)\n\
             + pins.new\n    lobby = false\n    may_begin = false\n    role = \"speaker\"\n    room = \"new\"\n\
             - pins.old\n\
             2 added, 1 changed, 1 removed.\n"
        );
        assert!(
            Difference::between(&after, &after.clone())
                .unwrap()
                .is_empty()
        );
    }
}
