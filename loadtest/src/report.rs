//! Figures as a table for people, JSON for machines and a drawing for the documentation.

use std::fmt;
use std::fmt::Write as _;

use serde::Serialize;

/// The figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What was measured.
    pub(crate) title: String,
    /// How: counts, TLS, machine.
    pub(crate) conditions: Vec<(String, String)>,
    /// In the order in which they should be read.
    pub(crate) figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What it tells.
    pub(crate) name: String,
    /// Its value in `unit`.
    pub(crate) value: f64,
    /// Such as `kB` or `messages/s`.
    pub(crate) unit: &'static str,
    /// What the design asks for.
    pub(crate) target: Option<Target>,
    /// The same of the floor, where there is one.
    #[serde(flatten)]
    pub(crate) beside: Option<Beside>,
}

/// What the least that could do the same work reaches.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Beside {
    /// Its value, in the figure's unit.
    pub(crate) floor: f64,
    /// The figure's value by the floor's.
    pub(crate) ratio: f64,
}

/// What the design asks of a figure.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Target {
    fn value(self) -> f64 {
        match self {
            Self::AtMost(value) | Self::AtLeast(value) => value,
        }
    }

    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl Report {
    /// A report without figures yet.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            conditions: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Adds how it was measured.
    pub(crate) fn condition(&mut self, name: &str, value: &dyn fmt::Display) {
        self.conditions.push((name.into(), format!("{value}")));
    }

    /// Adds a figure.
    pub(crate) fn figure(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
    ) {
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit,
            target,
            beside: None,
        });
    }

    /// Adds a figure, ours and the floor's.
    pub(crate) fn beside(
        &mut self,
        name: impl Into<String>,
        (value, floor): (f64, f64),
        unit: &'static str,
        target: Option<Target>,
    ) {
        let ratio = value / floor;
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit,
            target,
            beside: Some(Beside { floor, ratio }),
        });
    }

    /// The figures that are not what the design asks for, by name.
    pub(crate) fn missed(&self) -> String {
        let is_missed = |figure: &&Figure| {
            figure
                .target
                .is_some_and(|target| !target.is_met_by(figure.value))
        };
        let missed = self.figures.iter().filter(is_missed);
        let names: Vec<_> = missed.map(|figure| figure.name.as_str()).collect();
        names.join("; ")
    }

    /// The report as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// The figures that have a target as bars, each drawn so that all targets stand on one line; a floor is a thin grey bar
    /// below.
    pub(crate) fn to_svg(&self) -> String {
        const ROW: usize = 34;
        const LABEL: f64 = 330.0;
        const TARGET_AT: f64 = 200.0;
        const BAR_MAX: f64 = 400.0;

        let rows: Vec<_> = self
            .figures
            .iter()
            .filter_map(|figure| Some((figure, figure.target?)))
            .collect();
        let height = 50 + rows.len() * ROW;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1100 {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"1100\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"12\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{}</text>\n",
            escaped(&self.title)
        );
        for (row, (figure, target)) in rows.iter().enumerate() {
            let y = 40 + row * ROW;
            let width = (figure.value / target.value() * TARGET_AT).clamp(1.0, BAR_MAX);
            let color = if target.is_met_by(figure.value) {
                "#2a9d4a"
            } else {
                "#d1495b"
            };
            let name = escaped(&figure.name);
            let mut value = format!("{} {}", number(figure.value), figure.unit);
            if let Some(Beside { floor, ratio }) = figure.beside {
                let width = (floor / target.value() * TARGET_AT).clamp(1.0, BAR_MAX);
                // Writing to a string cannot fail.
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LABEL}\" y=\"{}\" width=\"{width:.0}\" height=\"5\" fill=\"#888\"/>",
                    y + 24
                );
                let _ = write!(value, " (floor {}, ratio {ratio:.2})", number(floor));
            }
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<text x=\"12\" y=\"{text}\">{name}</text>\n\
                 <rect x=\"{LABEL}\" y=\"{y}\" width=\"{width:.0}\" height=\"22\" rx=\"3\" fill=\"{color}\"/>\n\
                 <text x=\"{value_at:.0}\" y=\"{text}\">{value}</text>",
                text = y + 16,
                value_at = LABEL + width + 8.0,
            );
        }
        let line = LABEL + TARGET_AT;
        let _ = writeln!(
            svg,
            "<line x1=\"{line}\" x2=\"{line}\" y1=\"36\" y2=\"{}\" stroke=\"#222\" stroke-dasharray=\"4 3\"/>\n\
             <text x=\"{line}\" y=\"30\" text-anchor=\"middle\" font-size=\"11\">target</text>\n</svg>",
            height - 8
        );
        svg
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for (name, value) in &self.conditions {
            writeln!(f, "  {name}: {value}")?;
        }
        let width = self
            .figures
            .iter()
            .map(|figure| figure.name.chars().count())
            .max()
            .unwrap_or(0);
        for Figure {
            name,
            value,
            unit,
            target,
            beside,
        } in &self.figures
        {
            let beside = beside.map_or(String::new(), |Beside { floor, ratio }| {
                format!("   floor {}, ratio {ratio:.2}", number(floor))
            });
            let target = target.map_or(String::new(), |target| {
                let sign = if matches!(target, Target::AtMost(_)) {
                    '≤'
                } else {
                    '≥'
                };
                let verdict = if target.is_met_by(*value) {
                    "met"
                } else {
                    "MISSED"
                };
                format!("   target {sign} {}: {verdict}", number(target.value()))
            });
            writeln!(
                f,
                "  {name:width$}  {:>11} {unit}{beside}{target}",
                number(*value)
            )?;
        }
        Ok(())
    }
}

/// Three digits that mean something, thousands apart.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut report = Report::new("idle Sessions <1>");
        report.condition("connections", &10_000);
        report.figure("memory", 8.5, "kB", Some(Target::AtMost(12.0)));
        report.beside(
            "messages",
            (90_000.0, 120_000.0),
            "messages/s",
            Some(Target::AtLeast(100_000.0)),
        );
        report
    }

    #[test]
    fn the_table_says_which_targets_are_met() {
        let expected = "idle Sessions <1>\n  connections: 10000\n\
            \x20 memory           8.50 kB   target ≤ 12.00: met\n\
            \x20 messages       90 000 messages/s   floor 120 000, ratio 0.75   target ≥ 100 000: MISSED\n";
        assert_eq!(sample().to_string(), expected);
    }

    #[test]
    fn the_drawing_has_a_bar_for_each_target() {
        let svg = sample().to_svg();
        assert_eq!(svg.matches("rx=").count(), 2);
        assert_eq!(svg.matches("#888").count(), 1);
        assert!(svg.contains("idle Sessions &lt;1>"));
    }
}
