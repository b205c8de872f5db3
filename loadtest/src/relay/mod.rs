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
mod xdp;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use self::generator::{End, Generator, Load};
use self::rival::{Kind, Rival, Running};
use crate::pinned;
use crate::report::{Report, Target};
use crate::table::{self, Details, Measure, NAMES, Row, THEIRS, median, row};

/// How many flows share the load.
const FLOWS: usize = 100;

/// Bytes of a payload, as of speech.
const SIZE: usize = 160;

/// Messages under way at once: as many as the smallest socket buffer holds.
const WINDOW: usize = 128;

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

    let mut report = Report::new("The relay");
    report.condition("theirs", &format!("{:?}", arguments.against));
    report.condition(
        "payload",
        &format!("{SIZE} bytes, {FLOWS} flows, {WINDOW} messages under way"),
    );
    table::figures(&mut report, &rows);
    table::publish(&report, &rows, arguments.json.as_deref())
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
            None => pinned::program()?,
        };
        let cores = std::thread::available_parallelism()?.get();
        let core = (cores > 1).then_some(0);
        if core.is_some() {
            pinned::pin(1)?;
            pinned::raise_share();
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
            targets: vec![(plan.target.0, Target::AtMost(plan.target.1))],
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
            targets: vec![(Measure::Itself, Target::AtMost(4.0))],
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
