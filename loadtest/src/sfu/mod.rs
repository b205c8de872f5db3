//! The SFU beside another server and beside floors: processor time for each forwarded packet, how many subscribers a core carries,
//! memory, delay and joins.
//!
//! All servers of a row run at the same time on one core and take turns under load, round by round, so that what else the machine
//! does falls on all of them; medians of the rounds are compared. Clients are real ones (see [`peer`]) on another core; those of a
//! floor are plain sockets. Processor time is the scheduler's account of the server's threads. A round counts where less than 0.5 %
//! was lost and 99 of 100 packets took less than 50 ms: a starved machine makes servers look cheap. A row whose rounds fail says so
//! instead of giving a number.
//!
//! | row | load |
//! | --- | --- |
//! | rewrite, path | the path of a packet alone, in this process: see [`path`] |
//! | video-N | one camera of 1.2 Mbit/s to N subscribers |
//! | audio-N | one microphone to N subscribers |
//! | thumbnails-N | N cameras of 150 kbit/s to each other |
//! | capacity | subscribers of 1.2 Mbit/s on one core, in Rooms of 200, more and more until a round fails |
//! | memory | what each of 200 subscribers of video takes in a fresh process |
//! | delay | how long a packet is under way while the server is busy for half of the time |
//! | joins | clients that join as fast as they can, until media arrives |

mod abilities;
pub(crate) mod bots;
mod clients;
mod contender;
mod film;
mod fleet;
pub(crate) mod floor;
mod janus;
mod media;
mod network;
mod path;
mod peer;
mod requests;
mod rival;
mod seat;
pub(crate) mod soak;
mod tally;
mod tracks;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;

use self::contender::{Contender, Round, Show};
use self::rival::{Kind, Rival};
use crate::pinned;
use crate::report::{Report, Target};
use crate::table::{self, Details, Measure, NAMES, Row, THEIRS, median, not_measured, row};

/// What may be lost in a round that counts, of 1.
const LOSS_MAX: f64 = 0.005;

/// What 99 of 100 packets may take in a round that counts, in ms.
const DELAY_MAX: f64 = 50.0;

/// Subscribers of a Room in the row "capacity".
const ROOM_SUBSCRIBERS: usize = 200;

/// Rows that are measured where none is named.
const ROWS: [&str; 9] = [
    "path",
    "video-200",
    "video-300",
    "audio-500",
    "thumbnails-50",
    "memory",
    "delay",
    "joins",
    "capacity",
];

#[derive(Args, Clone)]
pub(crate) struct SfuArguments {
    /// The server to compare with, found in PATH.
    #[arg(long, value_enum, default_value = "janus")]
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

/// Measures, prints the table and writes the files asked for.
pub(crate) fn run(arguments: &SfuArguments) -> anyhow::Result<()> {
    let arguments = arguments.clone();
    // A thread of its own, for it moves to another network namespace and starts others there.
    std::thread::spawn(move || measure(&arguments))
        .join()
        .map_err(|_| anyhow!("the measurement panicked"))?
}

fn measure(arguments: &SfuArguments) -> anyhow::Result<()> {
    pinned::raise_files()?;
    let mut names = arguments.rows.clone();
    if names.is_empty() {
        names = ROWS.map(str::to_owned).to_vec();
    }
    let bench = Bench::new(arguments, names.iter().any(|name| name != "path"))?;
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for name in &names {
        match bench.row(name) {
            Ok(measured) => rows.extend(measured),
            // What the others came to is told all the same.
            Err(error) => {
                rows.push(not_measured(name, &format!("{error:#}")));
                failed.push(name.as_str());
            }
        }
    }
    let mut report = Report::new("The SFU");
    report.condition("theirs", &format!("{:?}", bench.against));
    report.condition("sealed with", &"AES-128-GCM; path: AES-256-GCM");
    report.condition(
        "a round counts",
        &"below 0.5 % loss, with 99 of 100 packets within 50 ms",
    );
    table::figures(&mut report, &rows);
    table::publish(&report, &rows, arguments.json.as_deref())?;
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

struct Bench {
    /// The other server; none where it can't run here.
    against: Option<Kind>,
    program: PathBuf,
    quick: bool,
    rounds: usize,
    time: Duration,
    /// The servers' core; none where the machine has only one.
    core: Option<usize>,
    /// Where media comes in and leaves from.
    ip: IpAddr,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    #[expect(clippy::print_stderr, reason = "what distorts the figures is said")]
    fn new(arguments: &SfuArguments, needs_servers: bool) -> anyhow::Result<Self> {
        let program = match (&arguments.server, needs_servers) {
            (Some(program), _) => program.clone(),
            (None, true) => pinned::program()?,
            (None, false) => PathBuf::new(),
        };
        let cores = std::thread::available_parallelism()?.get();
        let core = (cores > 1).then_some(0);
        if core.is_some() {
            pinned::pin(1)?;
            pinned::raise_share();
        } else {
            eprintln!("ONE CORE ONLY: the clients and the servers share it, and its caches");
        }
        let mut against = (arguments.against == Rival::Janus).then_some(Kind::Janus);
        let mut ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        if against.is_some() && needs_servers {
            match network::enter() {
                Ok(entered) => ip = entered,
                Err(error) => {
                    eprintln!("!!! SKIPPED: Janus: it needs a network namespace: {error:#}");
                    against = None;
                }
            }
        }
        // Behind the namespace and the core, so that its threads are in both.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            against,
            program,
            quick: arguments.quick,
            rounds: if arguments.quick { 3 } else { 9 },
            time: Duration::from_millis(if arguments.quick { 1500 } else { 5000 }),
            core,
            ip,
            runtime,
        })
    }

    fn row(&self, name: &str) -> anyhow::Result<Vec<Row>> {
        let number = |prefix: &str| {
            name.strip_prefix(prefix)
                .and_then(|rest| rest.parse::<usize>().ok())
        };
        if let Some(count) = number("video-") {
            return Ok(vec![self.cost(name, Show::video(count))?]);
        }
        if let Some(count) = number("audio-") {
            return Ok(vec![self.cost(name, Show::audio(count))?]);
        }
        if let Some(count) = number("thumbnails-") {
            return Ok(vec![self.cost(name, Show::thumbnails(count))?]);
        }
        match name {
            "path" => {
                let (rounds, bursts) = if self.quick { (3, 50) } else { (9, 500) };
                Ok(path::measure(rounds, bursts)?.into())
            }
            "capacity" => Ok(vec![self.capacity()?]),
            "memory" => Ok(vec![self.memory()?]),
            "delay" => Ok(vec![self.delay()?]),
            "joins" => Ok(vec![self.joins()?]),
            _ => bail!("no such row; there are {}", ROWS.join(", ")),
        }
    }

    fn start(&self, kind: Kind, show: Show) -> anyhow::Result<Contender<'_>> {
        let server = rival::Running::start(kind, self.core, &self.program, self.ip)
            .with_context(|| format!("{kind:?}"))?;
        Contender::new(server, show, self.ip, &self.runtime)
    }

    /// Ours, theirs and the floors, by column; what can't run is said in the remarks.
    fn contenders(
        &self,
        show: Show,
        remarks: &mut Vec<String>,
    ) -> anyhow::Result<Vec<(&'static str, Contender<'_>)>> {
        let kinds = [
            ("ours", Some(Kind::Ours)),
            (THEIRS, self.against),
            ("floor", Some(Kind::Floor)),
            ("bursts", Some(Kind::FloorBursts)),
        ];
        let mut contenders = Vec::new();
        for (name, kind) in kinds {
            let Some(kind) = kind else {
                remarks.push(format!("{} IS NOT MEASURED", name.to_uppercase()));
                continue;
            };
            let mut contender = match self.start(kind, show) {
                Ok(contender) => contender,
                Err(error) if name == THEIRS => {
                    remarks.push(format!("THEIRS IS NOT MEASURED: {error:#}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            match contender.fill() {
                Ok(()) => contenders.push((name, contender)),
                Err(error) if name == THEIRS => {
                    remarks.push(format!("THEIRS IS NOT MEASURED: {error:#}"));
                }
                Err(error) => return Err(error.context(contender.last_words())),
            }
        }
        Ok(contenders)
    }

    /// Processor time of a forwarded packet.
    fn cost(&self, name: &str, show: Show) -> anyhow::Result<Row> {
        let targets = match name {
            "video-200" => vec![
                (Measure::ToTheirs, Target::AtMost(0.25)),
                (Measure::ToFloor, Target::AtMost(1.8)),
            ],
            _ => Vec::new(),
        };
        let mut details = Details {
            unit: "s per million packets",
            targets,
            ..Details::default()
        };
        let mut contenders = self.contenders(show, &mut details.remarks)?;
        let mut rounds = vec![Vec::new(); contenders.len()];
        for _ in 0..self.rounds {
            for ((_, contender), rounds) in contenders.iter_mut().zip(&mut rounds) {
                rounds.push(contender.round(self.time)?);
            }
        }
        drop_failed(&contenders, &mut rounds, &mut details.remarks);

        let mut samples = vec![Vec::new(); NAMES.len()];
        for ((name, _), rounds) in contenders.iter().zip(&rounds) {
            let costs: Vec<_> = rounds.iter().map(|round| round.cost()).collect();
            if let Some(summary) = summary(rounds) {
                details.remarks.push(format!("{name}: {summary}"));
            }
            match NAMES.iter().position(|known| known == name) {
                Some(at) => samples[at] = costs,
                None => details.remarks.push(format!(
                    "floor with bursts and sealing: {:.2}",
                    median(&costs)
                )),
            }
        }
        Ok(row(name, &samples, details))
    }

    /// How many subscribers a core carries.
    fn capacity(&self) -> anyhow::Result<Row> {
        let (step, most) = if self.quick { (100, 200) } else { (100, 3_000) };
        let mut details = Details {
            unit: "subscribers a core",
            targets: vec![(Measure::Itself, Target::AtLeast(1_000.0))],
            ..Details::default()
        };
        let mut samples = vec![Vec::new(); NAMES.len()];
        for (at, kind) in [Some(Kind::Ours), self.against].into_iter().enumerate() {
            let Some(kind) = kind else { continue };
            let mut contender = self.start(kind, Show::video(0))?;
            let mut held = None;
            for count in (step..=most).step_by(step) {
                contender
                    .grow_to(count, ROOM_SUBSCRIBERS)
                    .with_context(|| contender.last_words())?;
                let round = contender.round(self.time)?;
                let is_held = round.passes();
                details
                    .remarks
                    .push(format!("{}: {count}: {round}", NAMES[at]));
                if !is_held {
                    break;
                }
                held = Some(count as f64);
            }
            if held == Some(most as f64) {
                details
                    .remarks
                    .push(format!("{}: more than {most} were not tried", NAMES[at]));
            }
            samples[at].extend(held);
        }
        if samples[0].is_empty() {
            return Ok(not_measured(
                "capacity",
                "not even the smallest number was held",
            ));
        }
        Ok(row("capacity", &samples, details))
    }

    /// Memory of each subscriber, in a fresh process.
    fn memory(&self) -> anyhow::Result<Row> {
        let subscribers = if self.quick { 50 } else { 200 };
        let rounds = if self.quick { 1 } else { 3 };
        let mut details = Details {
            unit: "kB per subscriber",
            targets: vec![(Measure::Itself, Target::AtMost(90.0))],
            ..Details::default()
        };
        let mut samples = vec![Vec::new(); NAMES.len()];
        for _ in 0..rounds {
            for (at, kind) in [Some(Kind::Ours), self.against].into_iter().enumerate() {
                let Some(kind) = kind else { continue };
                // One is there already: what every Room has counts for none of them.
                let mut contender = self.start(kind, Show::video(1))?;
                contender.fill().with_context(|| contender.last_words())?;
                contender.round(self.time)?;
                let before = contender.process().memory()?.resident;
                contender
                    .grow_to(1 + subscribers, usize::MAX)
                    .with_context(|| contender.last_words())?;
                let round = contender.round(self.time)?;
                if !round.passes() {
                    details
                        .remarks
                        .push(format!("{}: FAILS ITS GATE: {round}", NAMES[at]));
                    continue;
                }
                let grown = contender
                    .process()
                    .memory()?
                    .resident
                    .saturating_sub(before);
                samples[at].push(grown as f64 / 1000.0 / subscribers as f64);
            }
        }
        Ok(row("memory", &samples, details))
    }

    /// Delay at half load.
    fn delay(&self) -> anyhow::Result<Row> {
        let mut details = Details {
            unit: "ms, 99 of 100 packets",
            ..Details::default()
        };
        // What half load is, in subscribers, is found at a smaller one.
        let trial: u32 = 100;
        let mut contender = self.start(Kind::Ours, Show::video(trial as usize))?;
        contender.fill().with_context(|| contender.last_words())?;
        let round = contender.round(self.time)?;
        drop(contender);
        if !round.passes() {
            return Ok(not_measured(
                "delay",
                &format!("the trial with {trial} subscribers fails its gate: {round}"),
            ));
        }
        // In percent, so that the numbers stay whole.
        let busy = (1..1_000).find(|percent| f64::from(*percent) >= round.busy() * 100.0);
        let half = (trial * 50 / busy.unwrap_or(1_000)).clamp(10, 1_500) as usize;
        details.remarks.push(format!("{half} subscribers"));

        let mut contenders = self.contenders(Show::video(half), &mut details.remarks)?;
        contenders.retain(|(name, _)| *name != "bursts");
        let mut rounds = vec![Vec::new(); contenders.len()];
        for _ in 0..self.rounds {
            for ((_, contender), rounds) in contenders.iter_mut().zip(&mut rounds) {
                rounds.push(contender.round(self.time)?);
            }
        }
        drop_failed(&contenders, &mut rounds, &mut details.remarks);
        let mut samples = vec![Vec::new(); NAMES.len()];
        for ((name, _), rounds) in contenders.iter().zip(&rounds) {
            if let Some(summary) = summary(rounds) {
                details.remarks.push(format!("{name}: {summary}"));
            }
            if let Some(at) = NAMES.iter().position(|known| known == name) {
                samples[at] = rounds.iter().map(|round| round.delay_p99).collect();
            }
        }
        let added = median(&samples[0]) - median(&samples[2]);
        details.added = added.is_finite().then_some((added, 2.0));
        Ok(row("delay", &samples, details))
    }

    /// Clients that join as fast as they can.
    fn joins(&self) -> anyhow::Result<Row> {
        let count = if self.quick { 50 } else { 200 };
        let rounds = if self.quick { 1 } else { 5 };
        let mut details = Details {
            unit: "joins a second",
            ..Details::default()
        };
        let mut samples = vec![Vec::new(); NAMES.len()];
        for _ in 0..rounds {
            for (at, kind) in [Some(Kind::Ours), self.against].into_iter().enumerate() {
                let Some(kind) = kind else { continue };
                let mut contender = self.start(kind, Show::video(1))?;
                contender.fill().with_context(|| contender.last_words())?;
                let joined = contender
                    .join_at_once(count)
                    .with_context(|| contender.last_words())?;
                ensure!(!joined.first_media.is_empty(), "nobody got any media");
                samples[at].push(joined.per_second);
                let percentile = |percent: usize| {
                    joined.first_media[(joined.first_media.len() - 1) * percent / 100]
                };
                details.remarks.push(format!(
                    "{}: from its offer to the first media {:.0} ms, 99 of 100 within {:.0} ms; {:.2} ms of the server for each",
                    NAMES[at],
                    percentile(50).as_secs_f64() * 1000.0,
                    percentile(99).as_secs_f64() * 1000.0,
                    joined.spent.as_secs_f64() * 1000.0 / count as f64,
                ));
            }
        }
        Ok(row("joins", &samples, details))
    }
}

/// Takes out who fails most rounds, with a remark instead of a number, and then each round that anyone else fails.
fn drop_failed(
    contenders: &[(&'static str, Contender<'_>)],
    rounds: &mut [Vec<Round>],
    remarks: &mut Vec<String>,
) {
    let names: Vec<_> = contenders.iter().map(|(name, _)| *name).collect();
    remarks.extend(keep_passed(&names, rounds));
}

fn keep_passed(names: &[&str], rounds: &mut [Vec<Round>]) -> Vec<String> {
    let mut remarks = Vec::new();
    for (name, rounds) in names.iter().zip(rounds.iter_mut()) {
        let failed = rounds.iter().filter(|round| !round.passes()).count();
        if failed * 2 > rounds.len() {
            let worst = rounds
                .iter()
                .max_by(|one, other| one.loss().total_cmp(&other.loss()));
            let worst = worst.map_or(String::new(), |round| format!(", the worst: {round}"));
            remarks.push(format!(
                "{name} FAILS ITS GATE in {failed} of {} rounds{worst}",
                rounds.len()
            ));
            rounds.clear();
        }
    }
    let count = rounds.iter().map(Vec::len).max().unwrap_or(0);
    let is_clean = |at: &usize| {
        rounds
            .iter()
            .all(|rounds| rounds.get(*at).is_none_or(Round::passes))
    };
    let clean: Vec<_> = (0..count).filter(is_clean).collect();
    if clean.len() < count {
        remarks.push(format!(
            "{} of {count} rounds do not count: somebody failed the gate",
            count - clean.len()
        ));
    }
    for rounds in rounds {
        *rounds = clean
            .iter()
            .filter_map(|at| rounds.get(*at).copied())
            .collect();
    }
    remarks
}

/// What the rounds of one server were like.
fn summary(rounds: &[Round]) -> Option<String> {
    let middle = |value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    rounds.first()?;
    let delay = match middle(|round| round.delay_p99) {
        p99 if p99.is_nan() => String::new(),
        p99 => format!(
            ", delay {:.2} ms, 99 of 100 within {p99:.2} ms",
            middle(|round| round.delay_p50)
        ),
    };
    Some(format!(
        "{:.0} packets a second, {:.2} of a core, its clients {:.2} of theirs{delay}, {:.3} % lost",
        middle(Round::rate),
        middle(Round::busy),
        middle(Round::busy_clients),
        middle(Round::loss) * 100.0
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(lost: f64, delay_p99: f64) -> Round {
        Round {
            received: 1000.0 - lost,
            expected: 1000.0,
            spent: Duration::from_millis(10),
            spent_by_clients: Duration::from_millis(20),
            time: Duration::from_secs(1),
            delay_p50: 1.0,
            delay_p99,
        }
    }

    #[test]
    fn rounds_count_only_where_everybody_passes() {
        let good = || round(0.0, 2.0);
        let mut rounds = [
            vec![good(), round(9.0, 2.0), good()],
            vec![good(), good(), round(0.0, 60.0)],
        ];
        let remarks = keep_passed(&["ours", "theirs"], &mut rounds);
        assert_eq!((rounds[0].len(), rounds[1].len()), (1, 1));
        assert_eq!(
            remarks,
            ["2 of 3 rounds do not count: somebody failed the gate"]
        );
    }

    #[test]
    fn who_fails_most_rounds_gets_no_number() {
        let mut rounds = [
            vec![round(0.0, 2.0); 3],
            vec![round(9.0, 2.0), round(50.0, 2.0), round(0.0, 2.0)],
        ];
        let remarks = keep_passed(&["ours", "theirs"], &mut rounds);
        assert_eq!((rounds[0].len(), rounds[1].len()), (3, 0));
        assert_eq!(remarks.len(), 1);
        assert!(
            remarks[0]
                .starts_with("theirs FAILS ITS GATE in 2 of 3 rounds, the worst: 5.000 % lost"),
            "{remarks:?}"
        );
    }
}
