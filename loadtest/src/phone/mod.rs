//! Phone calls: what 20 ms of a call take of the gateway's processor time, how much later they are heard, and how they sound.
//!
//! ```text
//! phones ─ RTP over UDP ─▶ media::Engine, one thread ─ Opus in rings ─▶ Rooms
//!        ◀──────────────── (what is measured)        ◀───────────────
//! ```
//!
//! | row | calls | the floor |
//! | --- | --- | --- |
//! | pcmu | a phone's PCMU to and from the Opus of a Room | the coders alone |
//! | g722 | G.722, likewise | the coders alone |
//! | opus | a phone's Opus goes on as it is, both ways; it is read for its loudness alone | a bare forwarder of datagrams |
//! | joined | two phones with PCMU, which goes on as it is | a bare forwarder of datagrams |
//!
//! Phones and Rooms are played by threads of this process; processor time is that of the thread that carries the calls alone. Delays are from the
//! packet a sound is sent in to its place in one that arrives, what coders look ahead included. How calls sound is measured in simulated time.

mod codecs;
mod engine;
mod floor;
mod quality;
mod speech;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use gateway_sip::negotiate::Codec;

use self::engine::{Calls, Carrier, Outcome};
use self::quality::Way;
use crate::pinned;
use crate::report::{Report, Target};
use crate::table::{self, Details, Measure, Row, median, row};

/// How long a frame is.
const FRAME: Duration = Duration::from_millis(20);

/// What the design asks for: calls between PCMU and Opus on a core, one way through the gateway, a tone above all else.
const CALLS_PER_CORE: f64 = 150.0;
const DELAY_MS_MAX: f64 = 40.0;
const SNR_DB_MIN: f64 = 35.0;

/// What two phones that are joined may cost, to a bare forwarder.
const TO_FORWARDER_MAX: f64 = 1.5;

/// How many calls are listened to for delays: few, so that who listens is never late.
const LISTENED_TO: u16 = 8;

#[derive(Args)]
pub(crate) struct PhoneArguments {
    /// How many calls at once.
    #[arg(long, default_value_t = 100)]
    calls: u16,
    /// Writes the figures as JSON, and a drawing of them beside it.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Few and short rounds: shows that everything works, and roughly how well.
    #[arg(long)]
    quick: bool,
    /// Measures these rows alone.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Instead: sends the speech of this folder through calls in simulated time, and writes what is heard beside it. Samples are 16 bits,
    /// little-endian, mono: `speech-8000.raw`, `speech-16000.raw` and `speech-48000.raw` become `pcmu-in.raw`, `pcmu-out.raw`,
    /// `pcmu-alone.raw` and so on.
    #[arg(long)]
    speech: Option<PathBuf>,
}

/// Which calls a row is about.
struct Plan {
    name: &'static str,
    calls: Calls,
    /// Calls on a core that the design asks for.
    target: Option<f64>,
}

const PLANS: [Plan; 4] = [
    Plan {
        name: "pcmu",
        calls: Calls::Room(Codec::Pcmu),
        target: Some(CALLS_PER_CORE),
    },
    Plan {
        name: "g722",
        calls: Calls::Room(Codec::G722),
        target: None,
    },
    Plan {
        name: "opus",
        calls: Calls::Room(Codec::Opus),
        target: None,
    },
    Plan {
        name: "joined",
        calls: Calls::Joined(Codec::Pcmu),
        target: None,
    },
];

/// Measures, prints the table and writes the files asked for.
pub(crate) fn run(arguments: &PhoneArguments) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.speech {
        return quality::carry_speech(folder);
    }
    pinned::raise_files()?;
    pinned::raise_share();
    let bench = Bench::new(arguments);
    let mut report = Report::new("Phone calls");
    report.condition("calls at once", &arguments.calls);
    let wanted =
        |name: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|row| row == name);
    let mut rows = Vec::new();
    for plan in PLANS.iter().filter(|plan| wanted(plan.name)) {
        let measured = bench.measure(plan, &mut report);
        rows.push(measured.with_context(|| format!("row {}", plan.name))?);
    }
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus] {
        for way in Way::BOTH {
            let name = format!("a tone {way} in {}", name(codec));
            let snr = quality::snr(codec, way)?;
            report.figure(name, snr, "dB", Some(Target::AtLeast(SNR_DB_MIN)));
        }
    }
    table::figures(&mut report, &rows);
    table::publish(&report, &rows, arguments.json.as_deref())
}

struct Bench {
    calls: u16,
    rounds: usize,
    time: Duration,
}

impl Bench {
    fn new(arguments: &PhoneArguments) -> Self {
        Self {
            calls: arguments.calls,
            rounds: if arguments.quick { 1 } else { 5 },
            time: Duration::from_secs(if arguments.quick { 2 } else { 4 }),
        }
    }

    fn measure(&self, plan: &Plan, report: &mut Report) -> anyhow::Result<Row> {
        let passes_on = !matches!(plan.calls, Calls::Room(Codec::Pcmu | Codec::G722));
        let mut samples = vec![Vec::new(); table::NAMES.len()];
        let mut late = Vec::new();
        for _ in 0..self.rounds {
            let ours = self.round(plan.calls, Carrier::Gateway)?;
            samples[0].push(ours.per_frame * 1e6);
            late.push(ours.late);
            samples[2].push(match plan.calls {
                Calls::Room(codec) if !passes_on => codecs::coders(codec)? * 1e6,
                // Two sockets for each call, whatever is in the packets.
                _ => {
                    self.round(Calls::Joined(Codec::Pcmu), Carrier::Floor)?
                        .per_frame
                        * 1e6
                }
            });
        }
        let mut details = Details {
            unit: "µs for 20 ms of a call",
            ..Details::default()
        };
        if matches!(plan.calls, Calls::Joined(_)) {
            let target = Target::AtMost(TO_FORWARDER_MAX);
            details.targets.push((Measure::ToFloor, target));
        }
        let per_core = |micros: &[f64]| FRAME.as_secs_f64() * 1e6 / median(micros);
        report.beside(
            format!("{}: calls on a core", plan.name),
            (per_core(&samples[0]), per_core(&samples[2])),
            "calls",
            plan.target.map(Target::AtLeast),
        );
        details.remarks.push(format!(
            "ours without sockets: {:.1} µs; {:.2} % of the frames heard late or never",
            codecs::legs(plan.calls)? * 1e6,
            median(&late) * 100.0
        ));
        for (way, mut delays) in plan.calls.ways().into_iter().zip(self.delays(plan.calls)?) {
            delays.sort_unstable();
            let at = |share: usize| {
                let delay = delays.get((delays.len() - 1) * share / 100);
                delay.map_or(f64::NAN, |delay| delay.as_secs_f64() * 1e3)
            };
            let name = format!("{}: one way, {way}, 95 of 100 within", plan.name);
            report.figure(name, at(95), "ms", Some(Target::AtMost(DELAY_MS_MAX)));
            details.remarks.push(format!(
                "one way, {way}: median {:.1} ms, longest {:.1} ms, of {}",
                at(50),
                at(100),
                delays.len()
            ));
        }
        Ok(row(plan.name, &samples, details))
    }

    fn round(&self, calls: Calls, carrier: Carrier) -> anyhow::Result<Outcome> {
        let outcome = engine::load(calls, carrier, self.calls, self.time)?;
        // Who is late does less: such a figure would be no figure.
        ensure!(
            outcome.late < 0.05,
            "{:.1} % of the frames were never heard: fewer calls, or a quieter machine",
            outcome.late * 100.0
        );
        Ok(outcome)
    }

    fn delays(&self, calls: Calls) -> anyhow::Result<[Vec<Duration>; 2]> {
        let delays = engine::delays(calls, LISTENED_TO, self.time * 2)?;
        ensure!(
            delays.iter().all(|way| !way.is_empty()),
            "nothing was heard"
        );
        Ok(delays)
    }
}

/// A codec's name in files and figures.
fn name(codec: Codec) -> &'static str {
    match codec {
        Codec::Pcmu => "pcmu",
        Codec::Pcma => "pcma",
        Codec::G722 => "g722",
        Codec::Opus => "opus",
    }
}
