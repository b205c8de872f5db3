//! What the doctor found, for people and for machines.

use std::fmt::Write as _;

use serde::Serialize;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Worth knowing; nothing to repair.
    Note,
    /// To be repaired.
    Bad,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was checked, in a word.
    pub check: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was seen.
    pub what: String,
    /// What to do; always there when the outcome is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    pub(super) fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            outcome: Outcome::Good,
            what: what.into(),
            fix: None,
        }
    }

    pub(super) fn note(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            outcome: Outcome::Note,
            what: what.into(),
            fix: None,
        }
    }

    pub(super) fn bad(
        check: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            check,
            outcome: Outcome::Bad,
            what: what.into(),
            fix: Some(fix.into()),
        }
    }
}

/// Everything the doctor found, in the order of the checks.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Every finding.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether nothing has to be repaired.
    pub fn is_healthy(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.outcome != Outcome::Bad)
    }

    /// A line for each finding, and its fix below it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let mark = match finding.outcome {
                Outcome::Good => "✓",
                Outcome::Note => "·",
                Outcome::Bad => "✗",
            };
            // Writing to a string can't fail.
            let _ = writeln!(out, "{mark} {:<12} {}", finding.check, finding.what);
            if let Some(fix) = &finding.fix {
                let _ = writeln!(out, "  {:<12} → {fix}", "");
            }
        }
        let bad = self
            .findings
            .iter()
            .filter(|finding| finding.outcome == Outcome::Bad)
            .count();
        let _ = match bad {
            0 => writeln!(out, "\nAll is well."),
            1 => writeln!(out, "\nOne thing to repair."),
            _ => writeln!(out, "\n{bad} things to repair."),
        };
        out
    }

    /// `{"healthy":…,"findings":[{"check","outcome","what","fix"?}]}` and a line break.
    pub fn json(&self) -> String {
        format!(
            "{}\n",
            serde_json::json!({ "healthy": self.is_healthy(), "findings": self.findings })
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_lines_with_a_fix_each() {
        let mut report = Report::default();
        report.add(Finding::good("settings", "fine"));
        assert!(report.is_healthy());
        report.add(Finding::bad("state", "open", "close it"));
        assert!(!report.is_healthy());
        assert_eq!(
            report.text(),
            "✓ settings     fine\n✗ state        open\n               → close it\n\nOne thing to repair.\n"
        );
        assert_eq!(
            report.json(),
            "{\"findings\":[{\"check\":\"settings\",\"outcome\":\"good\",\"what\":\"fine\"},{\"check\":\"state\",\"fix\":\"close it\",\"outcome\":\"bad\",\"what\":\"open\"}],\"healthy\":false}\n"
        );
    }
}
