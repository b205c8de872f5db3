//! Who told whom what, and when.

use std::fmt;
use std::time::Duration;

/// A record of a run, printed as arrows; tests compare it as text, failing seeds show it.
///
/// ```text
///   0ms  alice  → server  invite bob
///  20ms  server → bob     incoming c1
///  35ms  bob    ✕         socket cut
/// ```
#[derive(Debug, Clone, Default)]
pub struct Ladder {
    rungs: Vec<Rung>,
}

#[derive(Debug, Clone)]
struct Rung {
    at: Duration,
    from: String,
    /// `None` for what happens to one node alone.
    to: Option<String>,
    text: String,
}

impl Ladder {
    /// An empty ladder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `from` told `to` this.
    pub fn arrow(&mut self, at: Duration, from: &str, to: &str, text: impl Into<String>) {
        self.rungs.push(Rung {
            at,
            from: from.into(),
            to: Some(to.into()),
            text: text.into(),
        });
    }

    /// Notes that something happened at `node`: a crash, a cut, a decision.
    pub fn mark(&mut self, at: Duration, node: &str, text: impl Into<String>) {
        self.rungs.push(Rung {
            at,
            from: node.into(),
            to: None,
            text: text.into(),
        });
    }

    /// How many rungs there are.
    pub fn len(&self) -> usize {
        self.rungs.len()
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.rungs.is_empty()
    }

    /// The rungs whose text, sender or receiver `wanted` picks, for a look at one Call of many.
    pub fn filtered(&self, wanted: impl Fn(&str, Option<&str>, &str) -> bool) -> Self {
        let keep = |rung: &&Rung| wanted(&rung.from, rung.to.as_deref(), &rung.text);
        Self {
            rungs: self.rungs.iter().filter(keep).cloned().collect(),
        }
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: &str| text.chars().count();
        let from_width = self.rungs.iter().map(|r| width(&r.from)).max().unwrap_or(0);
        let to_width = self
            .rungs
            .iter()
            .filter_map(|r| r.to.as_deref())
            .map(width)
            .max()
            .unwrap_or(0);
        let time_width = self
            .rungs
            .iter()
            .map(|r| width(&r.at.as_millis().to_string()))
            .max()
            .unwrap_or(1);

        for Rung { at, from, to, text } in &self.rungs {
            let (arrow, to) = to.as_deref().map_or(("✕", ""), |to| ("→", to));
            writeln!(
                f,
                "{:>time_width$}ms  {from:from_width$} {arrow} {to:to_width$}  {text}",
                at.as_millis()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Ladder {
        let ms = Duration::from_millis;
        let mut ladder = Ladder::new();
        ladder.arrow(ms(0), "alice", "server", "invite bob");
        ladder.arrow(ms(20), "server", "bob", "incoming c1");
        ladder.mark(ms(135), "bob", "socket cut");
        ladder
    }

    #[test]
    fn a_run_prints_as_arrows_in_columns() {
        let expected = "  0ms  alice  → server  invite bob\n 20ms  server → bob     incoming c1\n135ms  bob    ✕         socket cut\n";
        assert_eq!(sample().to_string(), expected);
    }

    #[test]
    fn a_ladder_can_be_narrowed_to_what_matters() {
        let bobs = sample().filtered(|from, to, _| from == "bob" || to == Some("bob"));
        assert_eq!(bobs.len(), 2);
        assert!(Ladder::new().is_empty());
    }
}
