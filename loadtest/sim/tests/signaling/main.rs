//! Signaling under trouble: model clients that follow docs/calls.v1.md against the real core, over a simulated network.
//!
//! ```text
//!  behaviour ─▶ Device ◀─▶ Network ◀─▶ System (signaling_core::Signaling, Store)
//!                 │                        ▲
//!                 └─ what it saw ─▶ Oracle  └─ crash, restart ─ World       (Reference: the naive state machine beside it)
//! ```
//!
//! Every test is one kind of trouble ([`mode`]) and runs `SEEDS` seeds (150 unless told) from `SEED` (0) on. A failing
//! seed prints what was wrong and the ladder of the Calls it is about; `LADDER=all` prints the whole ladder.
//!
//! ```text
//! SEEDS=2000 cargo test --release -p sim --test signaling
//! SEED=17 SEEDS=1 LADDER=all cargo test --release -p sim --test signaling crash
//! ```

// A simulated world is small and its numbers are its own; what does not fit fails the test, as it should.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::print_stdout
)]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a test has no callers to document for"
)]

mod behaviour;
mod device;
mod mode;
mod oracle;
mod reference;
mod rooms;
mod store;
mod system;
mod text;
mod view;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mode::Mode;
use world::World;

#[test]
fn over_reconnects_no_message_is_lost_or_doubled() {
    run_seeds(mode::RECONNECT);
}

#[test]
fn of_many_devices_in_a_race_one_wins() {
    run_seeds(mode::RACE);
}

#[test]
fn of_many_devices_in_a_race_one_wins_over_a_crash() {
    run_seeds(mode::RACE_CRASH);
}

#[test]
fn over_a_crash_no_answered_command_is_lost_or_applied_twice() {
    run_seeds(mode::CRASH);
}

#[test]
fn who_leaves_takes_no_call_along_for_ever() {
    run_seeds(mode::LEAVE);
}

#[test]
fn in_a_storm_all_agree_in_the_end() {
    run_seeds(mode::STORM);
}

#[test]
fn all_who_are_in_a_room_agree_on_it_in_the_end() {
    run_seeds(mode::ROOMS);
}

#[test]
fn all_who_are_in_a_room_agree_on_it_over_a_crash() {
    run_seeds(mode::ROOMS_CRASH);
}

/// The seeds of one kind of trouble, over all processors.
fn run_seeds(mode: Mode) {
    let first = number_from("SEED", 0);
    let count = number_from("SEEDS", 150);
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let total = Mutex::new((0, BTreeMap::<String, u32>::new()));

    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let (world, failures) = run_seed(mode, seed, false);
                    if !failures.is_empty() {
                        failed.lock().unwrap().push((seed, failures));
                    }
                    let mut total = total.lock().unwrap();
                    total.0 += world.frames();
                    for (what, times) in &world.oracle.tally {
                        *total.1.entry(what.clone()).or_default() += times;
                    }
                }
            });
        }
    });

    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let (frames, tally) = total.into_inner().unwrap();
    println!(
        "{}: seeds {first} to {}, {frames} frames at the server\n{tally:#?}",
        mode.name,
        first + count - 1
    );
    if let Some((seed, _)) = failed.first() {
        let list: Vec<_> = failed
            .iter()
            .map(|(seed, failures)| format!("  {seed}: {}", failures[0]))
            .collect();
        let (story, name, list) = (story(mode, *seed), mode.name, list.join("\n"));
        panic!(
            "{story}\n\n{} of {count} {name} seeds failed:\n{list}",
            failed.len()
        );
    }
}

fn run_seed(mode: Mode, seed: u64, with_ladder: bool) -> (World, Vec<String>) {
    let mut world = World::new(mode, seed, with_ladder);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let mut failures = world.oracle.failures.clone();
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("?");
        failures.push(format!("panic: {text}"));
    }
    (world, failures)
}

/// What went wrong with `seed`, and how it came to it.
fn story(mode: Mode, seed: u64) -> String {
    let (world, failures) = run_seed(mode, seed, true);
    let failures: Vec<_> = failures
        .iter()
        .take(8)
        .map(|text| world.named(text))
        .collect();
    let failures = failures.join("\n");
    let Some(ladder) = world.ladder() else {
        return failures;
    };

    // The Calls that the failures name; without any, everything.
    let words = failures.split(|c: char| !c.is_ascii_alphanumeric());
    let calls: Vec<_> = words
        .filter(|w| w.len() > 1 && w.starts_with('c') && w[1..].bytes().all(|b| b.is_ascii_digit()))
        .collect();
    let whole = calls.is_empty() || std::env::var("LADDER").is_ok_and(|which| which == "all");
    let ladder = ladder.filtered(|_, to, text| {
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        whole || to.is_none() || words.any(|word| calls.contains(&word))
    });
    format!("{ladder}\n{} seed {seed}:\n{failures}", mode.name)
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
