//! What several servers came to in the same run, round by round: a line for each load.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::report::{Report, Target};

/// The columns, in their order.
pub(crate) const NAMES: [&str; 3] = ["ours", THEIRS, "floor"];
pub(crate) const THEIRS: &str = "theirs";

/// A line of the table, in the unit of its details.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: Option<f64>,
    pub(crate) theirs: Option<f64>,
    pub(crate) floor: Option<f64>,
    /// Ours to theirs, or to the floor where there is no other: the median over the rounds.
    pub(crate) ratio: Option<f64>,
    pub(crate) rounds: usize,
    #[serde(skip)]
    pub(crate) details: Details,
}

/// What people read and programs don't.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    pub(crate) unit: &'static str,
    /// Smallest and largest of ours, theirs and the floor.
    pub(crate) spread: Vec<(f64, f64)>,
    /// Ours to the floor: the median over the rounds.
    pub(crate) to_floor: Option<f64>,
    pub(crate) targets: Vec<(Measure, Target)>,
    /// What a pass takes longer than through the floor, and may, in ms.
    pub(crate) added: Option<(f64, f64)>,
    /// Passes a second, round trips and losses of each server.
    pub(crate) remarks: Vec<String>,
}

/// What a target speaks of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Measure {
    ToTheirs,
    ToFloor,
    Itself,
}

#[derive(Serialize)]
struct Table<'r> {
    rows: &'r [Row],
}

/// Brings together the samples of ours, theirs and the floor, one of each for every round.
pub(crate) fn row(name: impl Into<String>, samples: &[Vec<f64>], mut details: Details) -> Row {
    let ratio = |other: usize| {
        let ratios: Vec<_> = samples[0]
            .iter()
            .zip(&samples[other])
            .map(|(ours, other)| ours / other)
            .collect();
        Some(median(&ratios)).filter(|ratio| ratio.is_finite())
    };
    let middle = |at: usize| Some(median(&samples[at])).filter(|middle| middle.is_finite());
    let bounds = |samples: &Vec<f64>| {
        let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
        (low, samples.iter().copied().fold(0.0, f64::max))
    };
    details.spread = samples.iter().map(bounds).collect();
    details.to_floor = ratio(2);
    Row {
        name: name.into(),
        ours: middle(0),
        theirs: middle(1),
        floor: middle(2),
        ratio: ratio(1),
        rounds: samples[0].len(),
        details,
    }
}

pub(crate) fn not_measured(name: impl Into<String>, why: &str) -> Row {
    let details = Details {
        remarks: vec![format!("NOT MEASURED: {why}")],
        ..Details::default()
    };
    Row {
        name: name.into(),
        ours: None,
        theirs: None,
        floor: None,
        ratio: None,
        rounds: 0,
        details,
    }
}

/// The middle of `samples`; not a number where there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.len().is_multiple_of(2)) {
        (Some(middle), false) => *middle,
        (Some(middle), true) => (middle + sorted[sorted.len() / 2 - 1]) / 2.0,
        (None, _) => f64::NAN,
    }
}

/// Adds the figures that have a target to a report.
pub(crate) fn figures(report: &mut Report, rows: &[Row]) {
    for row in rows {
        for &(measure, target) in &row.details.targets {
            let (name, got, unit) = match measure {
                Measure::ToTheirs => ("ours to theirs", row.ratio, "x"),
                Measure::ToFloor => ("ours to the floor", row.details.to_floor, "x"),
                Measure::Itself => ("ours", row.ours, row.details.unit),
            };
            if let Some(got) = got {
                report.figure(format!("{}: {name}", row.name), got, unit, Some(target));
            }
        }
        if let Some((added, max)) = row.details.added {
            let name = format!("{}: ours above the floor, a pass", row.name);
            report.figure(name, added, "ms", Some(Target::AtMost(max)));
        }
    }
}

/// Prints the table and the report, and writes both where asked for: JSON, and a drawing beside it.
#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
pub(crate) fn publish(report: &Report, rows: &[Row], json: Option<&Path>) -> anyhow::Result<()> {
    println!(
        "{:<12} {:>22} {:>22} {:>22} {:>7} {:>9}",
        "row", "ours", "theirs", "floor", "ratio", "to floor"
    );
    for row in rows {
        println!("{}", line(row));
        for remark in &row.details.remarks {
            println!("             {remark}");
        }
    }
    println!("\n{report}");

    let Some(path) = json else { return Ok(()) };
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    };
    write(path, serde_json::to_string_pretty(&Table { rows })?)?;
    write(&path.with_extension("svg"), report.to_svg())
}

fn line(row: &Row) -> String {
    let cell = |value: Option<f64>, at: usize| match (value, row.details.spread.get(at)) {
        (Some(value), Some((low, high))) => format!("{value:.2} [{low:.2}-{high:.2}]"),
        _ => "-".to_owned(),
    };
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    format!(
        "{:<12} {:>22} {:>22} {:>22} {:>7} {:>9}  {}, {} rounds",
        row.name,
        cell(row.ours, 0),
        cell(row.theirs, 1),
        cell(row.floor, 2),
        ratio(row.ratio),
        ratio(row.details.to_floor),
        row.details.unit,
        row.rounds,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_samples() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_row_has_the_fields_that_are_promised() {
        let samples = [vec![2.0, 3.0], vec![4.0, 4.0], vec![2.0, 2.0]];
        let row = row("light", &samples, Details::default());
        let json = serde_json::to_string(&Table {
            rows: &[row, not_measured("xdp", "no")],
        })
        .unwrap();
        let expected = concat!(
            r#"{"rows":[{"name":"light","ours":2.5,"theirs":4.0,"floor":2.0,"ratio":0.625,"rounds":2},"#,
            r#"{"name":"xdp","ours":null,"theirs":null,"floor":null,"ratio":null,"rounds":0}]}"#
        );
        assert_eq!(json, expected);
    }
}
