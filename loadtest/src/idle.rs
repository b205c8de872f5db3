//! Sessions that do nothing: what each costs in memory, and what it cost to open.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::IdleArguments;
use crate::client::Session;
use crate::report::{Report, Target};
use crate::server::Server;
use crate::sign_in::{User, sign_in};

/// How many connections are opened at the same time; more only fills the server's queue of newcomers.
const AT_ONCE: usize = 64;

/// Sessions opened and closed again before the first reading, so that what a server sets up once is not counted.
const WARM_UP: usize = 200;

/// How often a client says that it is there (calls.v1.md).
const PING: Duration = Duration::from_secs(25);

/// Runs the measurement.
pub(crate) async fn run(server: &Server, arguments: &IdleArguments) -> anyhow::Result<Report> {
    let process = server.process()?;
    let count = arguments.connections;
    let users = sign_in(&server.target, count.max(WARM_UP)).await?;

    let warm = open(server, &users[..WARM_UP]).await?;
    close(warm).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (before, descriptors) = (process.memory()?, process.descriptors()?);
    let time = process.processor_time()?;
    let idle = open(server, &users[..count]).await?;
    let opening = process.processor_time()? - time;
    tokio::time::sleep(Duration::from_secs(arguments.settle)).await;

    let after = process.memory()?;
    let descriptors = process.descriptors()? - descriptors;
    let time = process.processor_time()?;
    tokio::time::sleep(PING).await;
    let idling = process.processor_time()? - time;
    anyhow::ensure!(
        descriptors >= count,
        "only {descriptors} of {count} connections are open"
    );
    close(idle).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let end = process.memory()?;

    let tls = server.target.tls.is_some();
    let each = |bytes: u64| bytes as f64 / count as f64;
    let target = Target::AtMost(if tls { 30.0 } else { 12.0 });
    let mut report = Report::new(format!(
        "Idle Sessions, {}",
        if tls { "TLS" } else { "plain" }
    ));
    report.condition("connections", &count);
    report.condition("settled for", &format!("{} s", arguments.settle));
    let grown = after.anonymous.saturating_sub(before.anonymous);
    report.figure(
        "memory per connection (anonymous)",
        each(grown) / 1000.0,
        "kB",
        Some(target),
    );
    let resident = after.resident.saturating_sub(before.resident);
    report.figure(
        "memory per connection (resident)",
        each(resident) / 1000.0,
        "kB",
        None,
    );
    report.figure("memory before", before.resident as f64 / 1e6, "MB", None);
    report.figure("memory after", after.resident as f64 / 1e6, "MB", None);
    report.figure(
        "memory once all had left",
        end.resident as f64 / 1e6,
        "MB",
        None,
    );
    report.figure(
        "processor time per Session opened",
        opening.as_micros() as f64 / count as f64,
        "µs",
        None,
    );
    report.figure(
        "processor use while idle",
        idling.as_secs_f64() / PING.as_secs_f64() * 100.0,
        "% of a core",
        None,
    );
    Ok(report)
}

/// Sessions that answer pings until they are told to end.
struct Idle {
    tasks: JoinSet<anyhow::Result<()>>,
    end: watch::Sender<bool>,
}

async fn open(server: &Server, users: &[User]) -> anyhow::Result<Idle> {
    let gate = std::sync::Arc::new(Semaphore::new(AT_ONCE));
    let (end, ended) = watch::channel(false);
    let (opened, mut openings) = tokio::sync::mpsc::channel(AT_ONCE);
    let mut tasks = JoinSet::new();
    for (index, user) in users.iter().enumerate() {
        let permit = gate.clone().acquire_owned().await?;
        let (target, token, ended, opened) = (
            server.target.clone(),
            user.token.clone(),
            ended.clone(),
            opened.clone(),
        );
        tasks.spawn(async move {
            let session = target
                .open(&token, index)
                .await
                .with_context(|| format!("connection {index}"))?;
            drop(permit);
            opened.send(()).await?;
            drop(opened);
            idle(session, ended).await
        });
        while openings.try_recv().is_ok() {}
        if let Some(Ok(Err(error))) = tasks.try_join_next() {
            return Err(error);
        }
    }
    drop(opened);
    // Ends when every task has dropped its sender: all are open, or have failed.
    while openings.recv().await.is_some() {}
    if let Some(Ok(Err(error))) = tasks.try_join_next() {
        return Err(error);
    }
    Ok(Idle { tasks, end })
}

async fn idle(mut session: Session, mut ended: watch::Receiver<bool>) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            _ = ended.changed() => return session.bye().await,
            () = tokio::time::sleep(PING) => session.control("ping").await?,
            frame = session.next() => drop(frame?),
        }
    }
}

async fn close(mut idle: Idle) -> anyhow::Result<()> {
    idle.end.send(true)?;
    while let Some(outcome) = idle.tasks.join_next().await {
        outcome??;
    }
    Ok(())
}
