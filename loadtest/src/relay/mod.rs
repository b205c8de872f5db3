//! The relay beside another server and beside a floor: processor time for each packet, and memory for each Allocation.
//!
//! All servers run at the same time on one core and take turns under load, round by round, so that what else the
//! machine does falls on all of them; medians of the rounds are compared. Processor time is the scheduler's account of
//! the server's threads. A *pass* is one message into the server and one out of it.
//!
//! | row | load |
//! | --- | --- |
//! | saturated | 160 bytes to peers and back, single messages, as many as come back |
//! | light | the same at 20,000 passes a second; what naps add to a pass is told, too |
//! | burst | bursts of 8 in one call |
//! | pair | the same between two clients of the server |
//! | xdp | packets of a Channel through the program in the network driver, on live frames |
//! | memory | 10,000 idle Allocations with a Permission and a Channel each |

pub(crate) mod floor;
mod flows;
mod generator;
pub(crate) mod rival;
mod socket;
mod xdp;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use self::generator::{End, Generator, Load};
use self::rival::{Kind, Rival, Running};
use crate::report::{Report, Target};

/// How many flows share the load.
const FLOWS: usize = 100;

/// Bytes of a payload, as of speech.
const SIZE: usize = 160;

/// Messages under way at once: as many as the smallest socket buffer holds.
const WINDOW: usize = 128;

/// The columns, in their order.
const NAMES: [&str; 3] = ["ours", THEIRS, "floor"];
const THEIRS: &str = "theirs";

/// Makes the flows of a row.
type SetUp = fn(&Running, usize, bool) -> anyhow::Result<Vec<[End; 2]>>;

/// What comes before each measurement, so that caches are warm.
const WARM_UP: Duration = Duration::from_millis(150);

#[derive(Args)]
pub(crate) struct RelayArguments {
    /// The server to compare with, found in PATH.
    #[arg(long, value_enum, default_value = "coturn")]
    against: Rival,
    /// Writes the figures as JSON, and a drawing of them beside it.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Few and short rounds: shows that everything works, and roughly how well.
    #[arg(long)]
    quick: bool,
    /// Our program. Without it, `offhook` beside this program, built first when Cargo started this run.
    #[arg(long)]
    server: Option<PathBuf>,
    /// Measures these rows alone.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
}

/// A line of the table. Processor time is in seconds per million passes, memory in kB per Allocation.
#[derive(Debug, Clone, Serialize)]
struct Row {
    name: &'static str,
    ours: Option<f64>,
    theirs: Option<f64>,
    floor: Option<f64>,
    /// Ours to theirs, or to the floor where there is no other: the median over the rounds.
    ratio: Option<f64>,
    rounds: usize,
    #[serde(skip)]
    details: Details,
}

/// What people read and programs don't.
#[derive(Debug, Clone, Default)]
struct Details {
    unit: &'static str,
    /// Smallest and largest of ours, theirs and the floor.
    spread: Vec<(f64, f64)>,
    /// Ours to the floor: the median over the rounds.
    to_floor: Option<f64>,
    target: Option<(Measure, f64)>,
    /// What a pass takes longer than through the floor, and may, in ms.
    added: Option<(f64, f64)>,
    /// Passes a second, round trips and losses of each server.
    remarks: Vec<String>,
}

/// What a target speaks of.
#[derive(Debug, Clone, Copy)]
enum Measure {
    ToTheirs,
    ToFloor,
    Itself,
}

#[derive(Serialize)]
struct Table<'r> {
    rows: &'r [Row],
}

/// How a row of the table is made.
struct Plan {
    name: &'static str,
    load: Load,
    pairs: bool,
    floor: Kind,
    target: (Measure, f64),
    /// How much longer a pass may take than through the floor, in ms.
    added_max: Option<f64>,
}

fn plans() -> [Plan; 4] {
    let single = Load {
        size: SIZE,
        burst: 1,
        window: WINDOW,
        rate: None,
    };
    let light = Load {
        rate: Some(10_000.0),
        ..single
    };
    let burst = Load { burst: 8, ..single };
    let plain = Kind::Rival(Rival::Floor);
    let plan = |name, load, pairs, floor, target| Plan {
        name,
        load,
        pairs,
        floor,
        target,
        added_max: None,
    };
    [
        plan("saturated", single, false, plain, (Measure::ToFloor, 1.10)),
        Plan {
            added_max: Some(0.3),
            ..plan("light", light, false, plain, (Measure::ToTheirs, 0.5))
        },
        plan(
            "burst",
            burst,
            false,
            Kind::FloorBursts,
            (Measure::ToTheirs, 0.30),
        ),
        plan(
            "pair",
            burst,
            true,
            Kind::FloorBursts,
            (Measure::ToTheirs, 0.55),
        ),
    ]
}

/// Measures, prints the table and writes the files asked for.
pub(crate) fn run(arguments: &RelayArguments) -> anyhow::Result<()> {
    let bench = Bench::new(arguments)?;
    let wanted =
        |name: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|row| row == name);
    let mut rows = Vec::new();
    for plan in plans().into_iter().filter(|plan| wanted(plan.name)) {
        rows.push(
            bench
                .measure(&plan)
                .with_context(|| format!("row {}", plan.name))?,
        );
    }
    if wanted("xdp") {
        rows.push(xdp::measure(bench.rounds).context("row xdp")?);
    }
    if wanted("memory") {
        rows.push(bench.memory().context("row memory")?);
    }

    let report = report(&rows, arguments);
    print(&report, &rows);
    if let Some(path) = &arguments.json {
        let write = |path: PathBuf, text: String| {
            std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
        };
        write(
            path.clone(),
            serde_json::to_string_pretty(&Table { rows: &rows })?,
        )?;
        write(path.with_extension("svg"), report.to_svg())?;
    }
    Ok(())
}

struct Bench {
    against: Kind,
    program: PathBuf,
    rounds: usize,
    time: Duration,
    allocations: usize,
    /// The servers' core; none where the machine has only one.
    core: Option<usize>,
}

impl Bench {
    #[expect(clippy::print_stderr, reason = "what distorts the figures is said")]
    fn new(arguments: &RelayArguments) -> anyhow::Result<Bench> {
        let program = match &arguments.server {
            Some(program) => program.clone(),
            None => rival::program()?,
        };
        let cores = std::thread::available_parallelism()?.get();
        let core = (cores > 1).then_some(0);
        if core.is_some() {
            rival::pin(1)?;
            rival::raise_share();
        } else {
            eprintln!("ONE CORE ONLY: the generator and the servers share it, and its caches");
        }
        Ok(Bench {
            against: Kind::Rival(arguments.against),
            program,
            rounds: if arguments.quick { 3 } else { 9 },
            time: Duration::from_millis(if arguments.quick { 400 } else { 1500 }),
            allocations: if arguments.quick { 1_000 } else { 10_000 },
            core,
        })
    }

    /// The servers of a row: ours, theirs and the floor.
    fn start(&self, kind: Kind) -> anyhow::Result<Running> {
        Running::start(kind, self.core, &self.program).with_context(|| format!("{kind:?}"))
    }

    fn measure(&self, plan: &Plan) -> anyhow::Result<Row> {
        let set_up: SetUp = if plan.pairs {
            flows::between_clients
        } else {
            flows::toward_peers
        };
        let mut details = Details {
            unit: "s per million passes",
            target: Some(plan.target),
            ..Details::default()
        };
        let mut contenders = Vec::new();
        for (name, kind) in NAMES
            .into_iter()
            .zip([Kind::Ours, self.against, plan.floor])
        {
            match self.contender(kind, set_up) {
                Ok(contender) => contenders.push((name, contender)),
                // Some servers can't do what a row asks for, and the others can all the same.
                Err(error) if name == THEIRS => {
                    details
                        .remarks
                        .push(format!("THEIRS IS NOT MEASURED: {error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        for _ in 0..self.rounds {
            for (_, contender) in &mut contenders {
                contender.round(plan.load, self.time)?;
            }
        }
        let slower_way = |name| {
            let known = contenders.iter().find(|(known, _)| *known == name);
            known.map_or(f64::NAN, |(_, contender)| contender.remarks.slower_way())
        };
        let added = (slower_way(NAMES[0]) - slower_way(NAMES[2])) / 1000.0;
        details.added = plan.added_max.map(|max| (added, max));
        let mut samples = vec![Vec::new(); NAMES.len()];
        for (name, contender) in contenders {
            details
                .remarks
                .push(format!("{name}: {}", contender.remarks));
            if let Some(at) = NAMES.iter().position(|known| *known == name) {
                samples[at] = contender.samples;
            }
        }
        Ok(row(plan.name, &samples, details))
    }

    fn contender(&self, kind: Kind, set_up: SetUp) -> anyhow::Result<Contender> {
        let server = self.start(kind)?;
        let generator = Generator::new(set_up(&server, FLOWS, true)?)?;
        Ok(Contender {
            server,
            generator,
            samples: Vec::new(),
            remarks: Remarks::default(),
        })
    }

    fn memory(&self) -> anyhow::Result<Row> {
        let kinds = [Kind::Ours, self.against, Kind::Rival(Rival::Floor)];
        let mut samples = vec![Vec::new(); kinds.len()];
        let mut descriptors = vec![0.0; kinds.len()];
        for _ in 0..self.rounds {
            for (at, kind) in kinds.into_iter().enumerate() {
                let server = self.start(kind)?;
                let (before, files) = (server.process.memory()?, server.process.descriptors()?);
                flows::leave_idle(&server, self.allocations)?;
                let grown = server
                    .process
                    .memory()?
                    .resident
                    .saturating_sub(before.resident);
                let files = server.process.descriptors()?.saturating_sub(files);
                samples[at].push(grown as f64 / 1000.0 / self.allocations as f64);
                descriptors[at] = files as f64 / self.allocations as f64;
            }
        }
        let mut details = Details {
            unit: "kB per Allocation",
            target: Some((Measure::Itself, 4.0)),
            ..Details::default()
        };
        for (name, descriptors) in NAMES.into_iter().zip(&descriptors) {
            details.remarks.push(format!(
                "{name}: {descriptors:.2} descriptors per Allocation"
            ));
        }
        Ok(row("memory", &samples, details))
    }
}

/// A server under load, and what its rounds came to.
struct Contender {
    server: Running,
    generator: Generator,
    /// Processor time of a pass, in microseconds.
    samples: Vec<f64>,
    remarks: Remarks,
}

impl Contender {
    fn round(&mut self, load: Load, time: Duration) -> anyhow::Result<()> {
        self.generator.run(load, WARM_UP)?;
        let before = self.server.process.run_time()?;
        let outcome = self.generator.run(load, time)?;
        let spent = self.server.process.run_time()? - before;
        anyhow::ensure!(
            outcome.passes > 0,
            "nothing passed: {}",
            self.server.last_words()
        );
        self.samples
            .push(spent.as_secs_f64() * 1e6 / outcome.passes as f64);
        self.remarks.add(&outcome, time);
        Ok(())
    }
}

/// What else the rounds of one server told.
#[derive(Default)]
struct Remarks {
    passes_per_second: Vec<f64>,
    round_trips: Vec<f64>,
    /// Medians of the rounds: to the far end, and back.
    ways: [Vec<f64>; 2],
    lost: u64,
    held_back: u64,
}

impl Remarks {
    fn add(&mut self, outcome: &generator::Outcome, time: Duration) {
        self.passes_per_second
            .push(outcome.passes as f64 / time.as_secs_f64());
        let middle = |sorted: &[Duration]| {
            let middle = sorted.get(sorted.len() / 2);
            middle.map(|median| median.as_secs_f64() * 1e6)
        };
        self.round_trips.extend(middle(&outcome.round_trips));
        for (all, way) in self.ways.iter_mut().zip(&outcome.ways) {
            all.extend(middle(way));
        }
        self.lost += outcome.lost;
        self.held_back += outcome.held_back;
    }

    /// How long a pass took, in microseconds: to the far end or back, whichever was slower.
    fn slower_way(&self) -> f64 {
        median(&self.ways[0]).max(median(&self.ways[1]))
    }
}

impl std::fmt::Display for Remarks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.0} passes a second, round trip {:.0} µs ({:.0} there, {:.0} back), {} lost, {} held back",
            median(&self.passes_per_second),
            median(&self.round_trips),
            median(&self.ways[0]),
            median(&self.ways[1]),
            self.lost,
            self.held_back
        )
    }
}

/// Brings together the samples of ours, theirs and the floor, one of each for every round.
fn row(name: &'static str, samples: &[Vec<f64>], mut details: Details) -> Row {
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
        name,
        ours: middle(0),
        theirs: middle(1),
        floor: middle(2),
        ratio: ratio(1),
        rounds: samples[0].len(),
        details,
    }
}

fn not_measured(name: &'static str, why: &str) -> Row {
    let details = Details {
        remarks: vec![format!("NOT MEASURED: {why}")],
        ..Details::default()
    };
    Row {
        name,
        ours: None,
        theirs: None,
        floor: None,
        ratio: None,
        rounds: 0,
        details,
    }
}

/// The middle of `samples`; not a number where there are none.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.len().is_multiple_of(2)) {
        (Some(middle), false) => *middle,
        (Some(middle), true) => (middle + sorted[sorted.len() / 2 - 1]) / 2.0,
        (None, _) => f64::NAN,
    }
}

fn report(rows: &[Row], arguments: &RelayArguments) -> Report {
    let mut report = Report::new("The relay");
    report.condition("theirs", &format!("{:?}", arguments.against));
    report.condition(
        "payload",
        &format!("{SIZE} bytes, {FLOWS} flows, {WINDOW} messages under way"),
    );
    for row in rows {
        let Some((measure, value)) = row.details.target else {
            continue;
        };
        let (name, got, unit) = match measure {
            Measure::ToTheirs => ("ours to theirs", row.ratio, "x"),
            Measure::ToFloor => ("ours to the floor", row.details.to_floor, "x"),
            Measure::Itself => ("ours", row.ours, row.details.unit),
        };
        if let Some(got) = got {
            report.figure(
                format!("{}: {name}", row.name),
                got,
                unit,
                Some(Target::AtMost(value)),
            );
        }
        if let Some((added, max)) = row.details.added {
            let name = format!("{}: ours above the floor, a pass", row.name);
            report.figure(name, added, "ms", Some(Target::AtMost(max)));
        }
    }
    report
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn print(report: &Report, rows: &[Row]) {
    let cell = |value: Option<f64>, spread: Option<&(f64, f64)>| match (value, spread) {
        (Some(value), Some((low, high))) => format!("{value:.2} [{low:.2}-{high:.2}]"),
        _ => "-".to_owned(),
    };
    println!(
        "{:<10} {:>22} {:>22} {:>22} {:>7} {:>9}",
        "row", "ours", "theirs", "floor", "ratio", "to floor"
    );
    for row in rows {
        let spread = |at| row.details.spread.get(at);
        let ratio =
            |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "{:<10} {:>22} {:>22} {:>22} {:>7} {:>9}  {}, {} rounds",
            row.name,
            cell(row.ours, spread(0)),
            cell(row.theirs, spread(1)),
            cell(row.floor, spread(2)),
            ratio(row.ratio),
            ratio(row.details.to_floor),
            row.details.unit,
            row.rounds,
        );
        for remark in &row.details.remarks {
            println!("           {remark}");
        }
    }
    println!("\n{report}");
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
    fn a_pass_is_told_by_its_slower_way_and_what_was_not_sent_is_not_lost() {
        let ms = Duration::from_millis;
        let mut remarks = Remarks::default();
        let outcome = generator::Outcome {
            passes: 4,
            held_back: 3,
            round_trips: vec![ms(3), ms(4)],
            ways: [vec![ms(1), ms(1)], vec![ms(2), ms(3)]],
            ..generator::Outcome::default()
        };
        remarks.add(&outcome, ms(1000));
        assert_eq!(remarks.slower_way(), 3000.0);
        let expected =
            "4 passes a second, round trip 4000 µs (1000 there, 3000 back), 0 lost, 3 held back";
        assert_eq!(remarks.to_string(), expected);
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
