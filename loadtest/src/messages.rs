//! Relayed messages per second and core: pairs of Devices in an active Call that send each other ICE candidates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::PairsArguments;
use crate::calls::{connect_pairs, set_up};
use crate::client::Session;
use crate::frame;
use crate::report::{Report, Target};
use crate::server::Server;

/// How long a round runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// How the two Devices of a Call take turns.
#[derive(Clone, Copy)]
enum Turns {
    /// One message is under way at a time: a Device answers each with one of its own.
    Single,
    /// Each Device has so many commands unanswered, written at once.
    Batched(usize),
}

/// Runs both rounds.
pub(crate) async fn run(server: &Server, arguments: &PairsArguments) -> anyhow::Result<Report> {
    let mut report = Report::new("Relayed messages");
    report.condition("pairs", &arguments.pairs);
    report.condition("TLS", &server.target.tls.is_some());
    report.condition("measured for", &format!("{} s each", arguments.seconds));
    let single = round(server, arguments, Turns::Single).await?;
    single.tell(&mut report, "one in flight", 100_000.0);
    let batched = round(server, arguments, Turns::Batched(arguments.window)).await?;
    batched.tell(
        &mut report,
        &format!("{} in flight", arguments.window),
        800_000.0,
    );
    Ok(report)
}

struct Round {
    messages: u64,
    seconds: f64,
    processor: Duration,
}

impl Round {
    fn tell(&self, report: &mut Report, name: &str, target: f64) {
        let messages = self.messages as f64;
        let per_core = messages / self.processor.as_secs_f64();
        report.figure(
            format!("{name}: per second and core"),
            per_core,
            "messages/s",
            Some(Target::AtLeast(target)),
        );
        report.figure(
            format!("{name}: processor time each"),
            self.processor.as_micros() as f64 / messages,
            "µs",
            None,
        );
        report.figure(
            format!("{name}: on this machine"),
            messages / self.seconds,
            "messages/s",
            None,
        );
    }
}

async fn round(server: &Server, arguments: &PairsArguments, turns: Turns) -> anyhow::Result<Round> {
    let process = server.process()?;
    let messages = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for mut pair in connect_pairs(server, arguments.pairs).await? {
        let call = set_up(&mut pair).await?;
        for (first, session) in [(true, pair.caller), (false, pair.callee)] {
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
    let begin = (
        std::time::Instant::now(),
        messages.load(Ordering::Relaxed),
        process.processor_time()?,
    );
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let round = Round {
        messages: messages.load(Ordering::Relaxed) - begin.1,
        seconds: begin.0.elapsed().as_secs_f64(),
        processor: process.processor_time()? - begin.2,
    };
    stop.store(true, Ordering::Relaxed);
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    anyhow::ensure!(round.messages > 0, "nothing was relayed");
    Ok(round)
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
