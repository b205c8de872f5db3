//! Relayed messages per second and core: pairs of Devices in an active Call that send each other ICE candidates. Rounds of
//! the server and of a bare relay take turns, so that the ratio of the two outlives the machine it was measured on.

pub(crate) mod floor;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use ulid::Ulid;

use self::floor::Floor;
use crate::MessagesArguments;
use crate::calls::{connect_pairs, set_up};
use crate::client::Session;
use crate::frame;
use crate::process::Process;
use crate::report::{Report, Target};
use crate::server::Server;

/// How long a round runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// How the two Devices of a Call take turns.
#[derive(Clone, Copy)]
enum Turns {
    /// One message is under way at a time: a Device answers each with one of its own.
    Single,
    /// Each Device writes so many commands at once, and as many again when all of them are answered.
    Batched(usize),
}

/// Runs all rounds.
pub(crate) async fn run(server: &Server, arguments: &MessagesArguments) -> anyhow::Result<Report> {
    let MessagesArguments {
        pairs,
        seconds,
        rounds,
        window,
        ..
    } = *arguments;
    let tls = server.target.tls.is_some();
    let floor = Floor::start(tls).await?;

    let mut report = Report::new("Relayed messages");
    report.condition("pairs", &pairs);
    report.condition("TLS", &tls);
    report.condition(
        "measured for",
        &format!("{seconds} s a round, {rounds} rounds of each kind in turns; medians"),
    );
    report.condition(
        "a message",
        &format!(
            "ice.candidates of {} bytes in; `ok` to its sender and the message to the other Device out; `ack` for every 16",
            candidate(&Ulid::generate().to_string()).len()
        ),
    );
    report.condition(
        "one in flight",
        &"each Call has one message under way; a Device answers it with one of its own",
    );
    report.condition(
        "batched",
        &format!("each Device writes {window} messages at once, and the next {window} when all are answered"),
    );
    report.condition(
        "floor",
        &"a bare relay of WebSocket frames: the same frames both ways, no JSON, no Sessions, no Calls",
    );

    let kinds = [
        ("one in flight", Turns::Single, 100_000.0),
        ("batched", Turns::Batched(window), 800_000.0),
    ];
    let mut measured = kinds.map(|_| (Vec::new(), Vec::new()));
    for _ in 0..rounds {
        for ((_, turns, _), (ours, floors)) in kinds.iter().zip(&mut measured) {
            let talks = calls(server, pairs).await?;
            ours.push(round(server.process()?, talks, *turns, seconds).await?);
            let talks = bare(&floor, pairs).await?;
            floors.push(round(floor.process, talks, *turns, seconds).await?);
        }
    }
    for ((name, _, target), (ours, floors)) in kinds.into_iter().zip(measured) {
        tell(&mut report, name, target, ours, floors);
    }
    Ok(report)
}

/// What came of a round.
#[derive(Clone, Copy)]
struct Round {
    /// Processor time of each message, in microseconds.
    each: f64,
    /// Messages per second of the clock.
    per_second: f64,
}

fn tell(
    report: &mut Report,
    name: &str,
    target: f64,
    mut ours: Vec<Round>,
    mut floors: Vec<Round>,
) {
    let (our, floor) = (median(&mut ours), median(&mut floors));
    report.beside(
        format!("{name}: per second and core"),
        (1e6 / our.each, 1e6 / floor.each),
        "messages/s",
        Some(Target::AtLeast(target)),
    );
    report.beside(
        format!("{name}: processor time each"),
        (our.each, floor.each),
        "µs",
        None,
    );
    report.beside(
        format!("{name}: on this machine"),
        (our.per_second, floor.per_second),
        "messages/s",
        None,
    );
    for (whose, rounds) in [("server", &ours), ("floor", &floors)] {
        let each: Vec<_> = rounds
            .iter()
            .map(|round| format!("{:.2}", round.each))
            .collect();
        report.condition(
            &format!("{name}, each round of the {whose}"),
            &format!("{} µs", each.join(", ")),
        );
    }
}

/// The round in the middle, by processor time.
fn median(rounds: &mut [Round]) -> Round {
    rounds.sort_unstable_by(|left, right| left.each.total_cmp(&right.each));
    rounds[rounds.len() / 2]
}

/// Two Sessions whose frames reach each other, and the Call they say it in.
type Talk = (Session, Session, String);

/// Users in active Calls.
async fn calls(server: &Server, pairs: usize) -> anyhow::Result<Vec<Talk>> {
    let mut talks = Vec::with_capacity(pairs);
    for mut pair in connect_pairs(server, pairs).await? {
        let call = set_up(&mut pair).await?;
        talks.push((pair.caller, pair.callee, call));
    }
    Ok(talks)
}

/// Pairs of connections to the bare relay.
async fn bare(floor: &Floor, pairs: usize) -> anyhow::Result<Vec<Talk>> {
    let mut talks = Vec::with_capacity(pairs);
    for index in 0..pairs {
        let token = Ulid::generate().to_string();
        let first = floor.target.open(&token, index * 2).await?;
        let second = floor.target.open(&token, index * 2 + 1).await?;
        talks.push((first, second, token));
    }
    Ok(talks)
}

async fn round(
    process: Process,
    talks: Vec<Talk>,
    turns: Turns,
    seconds: u64,
) -> anyhow::Result<Round> {
    let messages = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for (caller, callee, call) in talks {
        for (first, session) in [(true, caller), (false, callee)] {
            tasks.spawn(talk(
                session,
                call.clone(),
                first,
                turns,
                messages.clone(),
                stop.clone(),
            ));
        }
    }

    tokio::time::sleep(WARM_UP).await;
    let (began, before, time) = (
        Instant::now(),
        messages.load(Ordering::Relaxed),
        process.processor_time()?,
    );
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let relayed = (messages.load(Ordering::Relaxed) - before) as f64;
    let (took, processor) = (
        began.elapsed().as_secs_f64(),
        process.processor_time()? - time,
    );
    stop.store(true, Ordering::Relaxed);
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    anyhow::ensure!(relayed > 0.0, "nothing was relayed");

    Ok(Round {
        each: processor.as_micros() as f64 / relayed,
        per_second: relayed / took,
    })
}

/// One Device's part of the conversation, until told to stop; counts what arrives.
async fn talk(
    mut session: Session,
    call: String,
    first: bool,
    turns: Turns,
    messages: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let data = candidate(&call);
    let mut unanswered = 0;
    match turns {
        Turns::Single if !first => {}
        Turns::Single => send(&mut session, &data, 1).await?,
        Turns::Batched(window) => {
            unanswered = window;
            send(&mut session, &data, window).await?;
        }
    }

    while !stop.load(Ordering::Relaxed) {
        let text = session.next().await?;
        match (frame::head(&text)?.kind, turns) {
            ("ice.candidates", turns) => {
                messages.fetch_add(1, Ordering::Relaxed);
                if let Turns::Single = turns {
                    send(&mut session, &data, 1).await?;
                }
            }
            ("ok", Turns::Batched(window)) => {
                unanswered -= 1;
                if unanswered == 0 {
                    unanswered = window;
                    send(&mut session, &data, window).await?;
                }
            }
            ("error", _) => anyhow::bail!("{text}"),
            _ => {}
        }
    }
    session.bye().await
}

async fn send(session: &mut Session, data: &str, count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        session.command("ice.candidates", data).await?;
    }
    session.flush().await
}

/// One candidate as browsers make them; the frame is about 330 bytes.
fn candidate(call: &str) -> String {
    format!(
        r#"{{"call":"{call}","generation":1,"candidates":[{{"candidate":"candidate:842163049 1 udp 1677729535 192.0.2.7 46154 typ srflx raddr 0.0.0.0 rport 0 generation 0 ufrag EsAw network-cost 999","sdp_mid":"0","sdp_m_line_index":0,"username_fragment":"EsAw"}}]}}"#
    )
}
