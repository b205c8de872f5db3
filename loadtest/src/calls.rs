//! Calls from invite to hang-up: how many a core carries, and how long the set-up takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::JoinSet;
use ulid::Ulid;

use crate::PairsArguments;
use crate::client::Session;
use crate::frame;
use crate::report::Report;
use crate::server::Server;
use crate::sign_in::sign_in;

/// How long the load runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// Two Users, each with a Session.
pub(crate) struct Pair {
    /// Who rings.
    pub(crate) caller: Session,
    /// Who answers.
    pub(crate) callee: Session,
    callee_user: String,
}

/// Signs Users in and connects them, two by two.
pub(crate) async fn connect_pairs(server: &Server, count: usize) -> anyhow::Result<Vec<Pair>> {
    let users = sign_in(&server.target, count * 2).await?;
    let mut pairs = Vec::with_capacity(count);
    for (index, two) in users.chunks_exact(2).enumerate() {
        let caller = server.target.open(&two[0].token, index * 2).await?;
        let callee = server.target.open(&two[1].token, index * 2 + 1).await?;
        pairs.push(Pair {
            caller,
            callee,
            callee_user: two[1].id.clone(),
        });
    }
    Ok(pairs)
}

/// Brings a Call of the pair to `active`; returns its id.
pub(crate) async fn set_up(pair: &mut Pair) -> anyhow::Result<String> {
    let call = Ulid::generate().to_string();
    let data = format!(
        r#"{{"call":"{call}","to":"{}","media":{{"audio":true,"video":true}},"commitment":null}}"#,
        pair.callee_user
    );
    pair.caller.command("call.invite", &data).await?;
    pair.caller.flush().await?;

    let incoming = frame::on_call(&pair.callee.wait_for("call.incoming").await?)?;
    ensure!(incoming.state.call == call, "another Call rings");
    pair.callee
        .command("call.ringing", &format!(r#"{{"call":"{call}"}}"#))
        .await?;
    pair.callee.flush().await?;
    let rev = frame::on_call(&pair.callee.wait_for("ok").await?)?
        .state
        .rev;
    pair.callee
        .command(
            "call.accept",
            &format!(r#"{{"call":"{call}","rev":{rev}}}"#),
        )
        .await?;
    pair.callee.flush().await?;
    let accepted = frame::on_call(&pair.callee.wait_for("ok").await?)?;
    ensure!(
        accepted.state.phase == "active",
        "the Call is {}",
        accepted.state.phase
    );

    wait_for_event(&mut pair.caller, "answered").await?;
    Ok(call)
}

/// Ends the Call and waits until both sides know.
async fn hang_up(pair: &mut Pair, call: &str) -> anyhow::Result<()> {
    pair.caller
        .command("call.hangup", &format!(r#"{{"call":"{call}"}}"#))
        .await?;
    pair.caller.flush().await?;
    pair.caller.wait_for("ok").await?;
    wait_for_event(&mut pair.callee, "ended").await
}

async fn wait_for_event(session: &mut Session, event: &str) -> anyhow::Result<()> {
    loop {
        let update = frame::on_call(&session.wait_for("call.update").await?)?;
        if update.event.as_deref() == Some(event) {
            return Ok(());
        }
    }
}

/// Runs the measurement.
pub(crate) async fn run(server: &Server, arguments: &PairsArguments) -> anyhow::Result<Report> {
    let process = server.process()?;
    let measuring = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for pair in connect_pairs(server, arguments.pairs).await? {
        tasks.spawn(call_again_and_again(pair, measuring.clone(), stop.clone()));
    }

    tokio::time::sleep(WARM_UP).await;
    let (began, time) = (Instant::now(), process.processor_time()?);
    measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let (seconds, processor) = (
        began.elapsed().as_secs_f64(),
        process.processor_time()? - time,
    );
    let mut times = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        times.extend(outcome??);
    }
    times.sort_unstable();
    ensure!(!times.is_empty(), "no Call was set up");

    let calls = times.len() as f64;
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    let mut report = Report::new("Calls: invite, ringing, accept, hang-up");
    report.condition("pairs", &arguments.pairs);
    report.condition("TLS", &server.target.tls.is_some());
    report.condition("measured for", &format!("{} s", arguments.seconds));
    report.figure(
        "Calls per second and core",
        calls / processor.as_secs_f64(),
        "Calls/s",
        None,
    );
    report.figure("Calls on this machine", calls / seconds, "Calls/s", None);
    report.figure(
        "processor time per Call",
        processor.as_micros() as f64 / calls,
        "µs",
        None,
    );
    report.figure("set-up, median", at(50), "ms", None);
    report.figure("set-up, 99 of 100 within", at(99), "ms", None);
    Ok(report)
}

/// Calls until told to stop; returns how long each set-up took while it was measured.
async fn call_again_and_again(
    mut pair: Pair,
    measuring: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let call = set_up(&mut pair).await?;
        let took = began.elapsed();
        hang_up(&mut pair, &call).await?;
        if measuring.load(Ordering::Relaxed) {
            times.push(took);
        }
    }
    pair.caller.bye().await?;
    pair.callee.bye().await?;
    Ok(times)
}
