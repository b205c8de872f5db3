//! Downlinks in simulated networks: what reaches a subscriber, how the estimate follows the way, and how soon.
//!
//! The table of all scenarios is kept beside this file; `UPDATE=1 cargo test --release -p sfu-core --test network` writes it anew.

mod camera;
mod link;
mod receiver;
mod world;

use std::fmt::Write;
use std::time::Duration;

use sfu_core::{Bitrate, SILENT_RATE};

use crate::link::Way;
use crate::world::{Outcome, Sample, Subscriber, Tells, run};

const TABLE: &str = include_str!("table.txt");

#[test]
fn the_table_of_all_scenarios_is_as_committed() {
    let table = table();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/table.txt"),
            &table,
        )
        .unwrap();
        return;
    }
    assert_eq!(table, TABLE, "written anew with UPDATE=1");
}

#[test]
fn nothing_swings_on_a_steady_network() {
    for (name, way) in scenarios()
        .into_iter()
        .filter(|(_, way)| way.rates.len() == 1)
    {
        for seed in 1..=5 {
            let outcome = alone(seed, way.clone());
            let later: Vec<Sample> = outcome
                .samples
                .iter()
                .copied()
                .filter(|s| s.at >= SETTLED)
                .collect();
            assert!(
                changes(&later) <= 3,
                "{name}, seed {seed}: {} changes",
                changes(&later)
            );
        }
    }
}

#[test]
fn a_steady_network_is_used_and_not_overfilled() {
    for (name, way) in scenarios()
        .into_iter()
        .filter(|(_, way)| way.rates.len() == 1)
    {
        let is_lossy = way.loss_percent > 10;
        for seed in 1..=5 {
            let outcome = alone(seed, way.clone());
            let steady = steady(&outcome);
            let estimate = share(&steady, |s| s.estimate);
            assert!(
                is_lossy || estimate >= 0.8,
                "{name}, seed {seed}: {estimate:.2}"
            );
            let queue = percentile(&steady, 95);
            assert!(
                queue <= Duration::from_millis(120),
                "{name}, seed {seed}: {queue:?}"
            );
        }
    }
}

#[test]
fn after_a_fall_the_queue_drains_and_after_the_rise_the_picture_is_back_within_seconds() {
    for (name, way) in scenarios()
        .into_iter()
        .filter(|(name, _)| name.starts_with("the same") || name.starts_with("3 Mbit/s, 150"))
    {
        for seed in 1..=5 {
            let outcome = alone(seed, way.clone());
            // What the queue held when the capacity fell takes its time; besides that, no more than this.
            let held = Bitrate::kbps(150).time_for(way.queue_max) * 2 + Duration::from_secs(4);
            let drained = outcome
                .samples
                .iter()
                .filter(|s| {
                    s.at >= Duration::from_secs(20) + held && s.at < Duration::from_secs(40)
                })
                .all(|s| s.queue < Duration::from_millis(600));
            assert!(drained, "{name}, seed {seed}");
            let recovery = recovery(&outcome);
            assert!(
                recovery.is_some_and(|time| time <= Duration::from_secs(10)),
                "{name}, seed {seed}: {recovery:?}"
            );
        }
    }
}

/// A short cluster fits into the bucket of a shaper and gets through far faster than what comes behind it ever will.
#[test]
fn what_fits_into_the_bucket_of_a_shaper_is_not_taken_for_its_rate() {
    for bytes in [4096, 16_000, 32_000] {
        for (name, way) in [
            ("300 kbit/s", way(&[(0, 300)])),
            (
                "300 kbit/s, queue of 300 ms",
                queue(11_250, way(&[(0, 300)])),
            ),
        ] {
            for seed in 1..=5 {
                let outcome = alone(seed, bucket(bytes, way.clone()));
                let name = format!("{name}, bucket of {bytes}, seed {seed}");
                let longest = outcome.frozen_longest;
                assert!(longest <= Duration::from_secs(1), "{name}: {longest:?}");
                let larger = outcome.samples.iter().filter(|s| s.layer > Some(0));
                assert_eq!(larger.count(), 0, "{name}");
            }
        }
    }
}

#[test]
fn a_shaper_that_becomes_narrow_is_believed_and_used_again_when_it_is_wide() {
    for (name, way) in scenarios()
        .into_iter()
        .filter(|(name, _)| name.starts_with("shaped"))
    {
        for seed in 1..=5 {
            let outcome = alone(seed, way.clone());
            let settled =
                |s: &&Sample| s.at >= Duration::from_secs(25) && s.at < Duration::from_secs(40);
            let narrow: Vec<Sample> = outcome.samples.iter().filter(settled).copied().collect();
            assert!(
                narrow.iter().all(|s| s.layer == Some(0)) && changes(&narrow) == 0,
                "{name}, seed {seed}"
            );
            let recovery = recovery(&outcome);
            assert!(
                recovery.is_some_and(|time| time <= Duration::from_secs(10)),
                "{name}, seed {seed}: {recovery:?}"
            );
        }
    }
}

#[test]
fn a_slow_subscriber_takes_nothing_from_fast_ones() {
    let fast = way(&[(0, 3000)]);
    let slow = loss(5, delay(150, way(&[(0, 250)])));
    let subscriber = |way: &Way| Subscriber {
        way: way.clone(),
        tells: Tells::Arrivals,
    };
    let outcomes = run(
        1,
        &[subscriber(&fast), subscriber(&slow), subscriber(&fast)],
        MINUTE,
    );
    for outcome in [&outcomes[0], &outcomes[2]] {
        assert_eq!((outcome.freezes, changes(&outcome.samples)), (0, 1));
        assert!(outcome.samples.iter().skip(20).all(|s| s.layer == Some(2)));
    }
    assert!(outcomes[1].samples.iter().all(|s| s.layer <= Some(0)));
    assert!(outcomes[1].pictures > 1500, "{}", outcomes[1].pictures);
}

#[test]
fn who_acknowledges_nothing_gets_little() {
    let subscriber = Subscriber {
        way: way(&[(0, 3000)]),
        tells: Tells::Nothing,
    };
    let outcome = run(1, &[subscriber], MINUTE).remove(0);
    let later: Vec<&Sample> = outcome
        .samples
        .iter()
        .filter(|s| s.at > Duration::from_secs(5))
        .collect();
    assert!(
        later
            .iter()
            .all(|s| s.estimate == SILENT_RATE && s.layer.is_none())
    );
    assert!(later.iter().all(|s| s.sent <= SILENT_RATE));
}

#[test]
fn who_estimates_alone_is_probed_and_believed() {
    for (kbps, layer) in [(3000, 2), (1000, 1), (300, 0)] {
        let subscriber = Subscriber {
            way: way(&[(0, kbps)]),
            tells: Tells::Estimate,
        };
        let outcome = run(1, &[subscriber], MINUTE).remove(0);
        let later: Vec<Sample> = outcome
            .samples
            .iter()
            .copied()
            .filter(|s| s.at >= SETTLED)
            .collect();
        let held = later.iter().filter(|s| s.layer == Some(layer)).count();
        assert!(held * 10 >= later.len() * 9, "{kbps}: {held}");
        assert!(changes(&later) <= 4, "{kbps}: {}", changes(&later));
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// How long a network is given until it counts as settled.
const SETTLED: Duration = Duration::from_secs(10);

/// Every scenario with one subscriber, by name.
fn scenarios() -> Vec<(&'static str, Way)> {
    let fall = vec![(0, 3000), (20, 150), (40, 3000)];
    let shaped = vec![(0, 3000), (20, 300), (40, 3000)];
    vec![
        ("3 Mbit/s", way(&[(0, 3000)])),
        ("1 Mbit/s", way(&[(0, 1000)])),
        ("300 kbit/s", way(&[(0, 300)])),
        ("150 kbit/s", way(&[(0, 150)])),
        ("3 Mbit/s, 300 ms round trip", delay(150, way(&[(0, 3000)]))),
        ("1 Mbit/s, 600 ms round trip", delay(300, way(&[(0, 1000)]))),
        ("1 Mbit/s, jitter 30 ms", jitter(30, way(&[(0, 1000)]))),
        ("3 Mbit/s, jitter 60 ms", jitter(60, way(&[(0, 3000)]))),
        ("1 Mbit/s, queue of 20 ms", queue(2500, way(&[(0, 1000)]))),
        ("1 Mbit/s, queue of 1 s", queue(125_000, way(&[(0, 1000)]))),
        ("3 Mbit/s, 1 % lost", loss(1, way(&[(0, 3000)]))),
        ("3 Mbit/s, 5 % lost", loss(5, way(&[(0, 3000)]))),
        ("3 Mbit/s, 10 % lost", loss(10, way(&[(0, 3000)]))),
        ("3 Mbit/s, 20 % lost", loss(20, way(&[(0, 3000)]))),
        (
            "1 Mbit/s, 5 % lost, 200 ms",
            loss(5, delay(100, way(&[(0, 1000)]))),
        ),
        ("3 Mbit/s, 150 kbit/s, 3 Mbit/s", way(&fall)),
        ("the same, 300 ms round trip", delay(150, way(&fall))),
        ("the same, 5 % lost", loss(5, way(&fall))),
        ("the same, queue of 100 kB", queue(100_000, way(&fall))),
        ("nothing for 5 s", way(&[(0, 2000), (20, 0), (25, 2000)])),
        ("300 kbit/s, bucket of 4 kB", bucket(4096, way(&[(0, 300)]))),
        (
            "300 kbit/s, bucket of 16 kB",
            bucket(16_000, way(&[(0, 300)])),
        ),
        (
            "300 kbit/s, bucket of 32 kB",
            bucket(32_000, way(&[(0, 300)])),
        ),
        (
            "1 Mbit/s, bucket of 32 kB",
            bucket(32_000, way(&[(0, 1000)])),
        ),
        (
            "3 Mbit/s, bucket of 32 kB",
            bucket(32_000, way(&[(0, 3000)])),
        ),
        ("shaped: 3, 0.3 and 3 Mbit/s", bucket(4096, way(&shaped))),
        ("shaped, bucket of 16 kB", bucket(16_000, way(&shaped))),
        ("shaped, bucket of 32 kB", bucket(32_000, way(&shaped))),
        (
            "800 and 1200 kbit/s in turns",
            way(&[
                (0, 1200),
                (10, 800),
                (15, 1200),
                (20, 800),
                (25, 1200),
                (30, 800),
                (35, 1200),
                (40, 800),
                (45, 1200),
                (50, 800),
            ]),
        ),
    ]
}

fn table() -> String {
    let mut text = String::from(
        "60 s each; Layers of 60, 450 and 1500 kbit/s besides 50 kbit/s of audio; steady: from 10 s after a change on\n\n",
    );
    writeln!(
        text,
        "{:<32} {:>6} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "network",
        "Layer",
        "changes",
        "freezes",
        "frozen",
        "estimate",
        "sent",
        "queue 95",
        "queue max",
        "recovery"
    )
    .expect("a String takes all");
    for (name, way) in scenarios() {
        let outcome = alone(1, way);
        let steady = steady(&outcome);
        let recovery =
            recovery(&outcome).map_or("-".into(), |time| format!("{:.1} s", time.as_secs_f64()));
        writeln!(
            text,
            "{:<32} {:>6.2} {:>8} {:>8} {:>6.1} s {:>7.0} % {:>7.0} % {:>6} ms {:>6} ms {:>9}",
            name,
            mean(
                outcome
                    .samples
                    .iter()
                    .map(|s| s.layer.map_or(0.0, |layer| layer as f64 + 1.0))
            ),
            changes(&outcome.samples),
            outcome.freezes,
            outcome.frozen.as_secs_f64(),
            100.0 * share(&steady, |s| s.estimate),
            100.0 * share(&steady, |s| s.sent),
            percentile(&steady, 95).as_millis(),
            percentile(&outcome.samples.iter().collect::<Vec<_>>(), 100).as_millis(),
            recovery,
        )
        .expect("a String takes all");
    }
    text
}

fn alone(seed: u64, way: Way) -> Outcome {
    let subscriber = Subscriber {
        way,
        tells: Tells::Arrivals,
    };
    run(seed, &[subscriber], MINUTE).remove(0)
}

/// The samples from 10 s after each change of the capacity on.
fn steady(outcome: &Outcome) -> Vec<&Sample> {
    let mut changed_at = Duration::ZERO;
    let mut capacity = Bitrate::ZERO;
    let mut steady = Vec::new();
    for sample in &outcome.samples {
        if sample.capacity != capacity {
            capacity = sample.capacity;
            changed_at = sample.at;
        }
        if sample.at - changed_at >= SETTLED && capacity > Bitrate::ZERO {
            steady.push(sample);
        }
    }
    steady
}

/// How long after the last rise of the capacity the Layer was as large as before the fall.
fn recovery(outcome: &Outcome) -> Option<Duration> {
    let pairs: Vec<_> = outcome.samples.windows(2).collect();
    let rise = pairs
        .iter()
        .rposition(|pair| pair[1].capacity > pair[0].capacity)?;
    let fall = pairs
        .iter()
        .position(|pair| pair[1].capacity < pair[0].capacity)?;
    let before = outcome.samples[fall].layer;
    let since = outcome.samples[rise + 1].at;
    let back = outcome.samples[rise + 1..]
        .iter()
        .find(|s| s.layer >= before)?;
    Some(back.at - since)
}

fn changes(samples: &[Sample]) -> usize {
    samples
        .windows(2)
        .filter(|pair| pair[0].layer != pair[1].layer)
        .count()
}

fn share(samples: &[&Sample], rate: impl Fn(&Sample) -> Bitrate) -> f64 {
    let sum = |rate: &dyn Fn(&Sample) -> Bitrate| {
        samples.iter().map(|s| rate(s).as_bps() as f64).sum::<f64>()
    };
    sum(&rate) / sum(&|s| s.capacity)
}

fn percentile(samples: &[&Sample], percent: usize) -> Duration {
    let mut queues: Vec<Duration> = samples
        .iter()
        .map(|s| s.queue)
        .filter(|queue| *queue < Duration::MAX)
        .collect();
    queues.sort_unstable();
    let at = (queues.len() * percent / 100).min(queues.len().saturating_sub(1));
    queues.get(at).copied().unwrap_or_default()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

/// From each second on so many kbit/s; 50 ms round trip and a queue of 40 kB.
fn way(rates: &[(u64, u64)]) -> Way {
    Way {
        rates: rates
            .iter()
            .map(|&(at, kbps)| (Duration::from_secs(at), Bitrate::kbps(kbps)))
            .collect(),
        bucket: 0,
        queue_max: 40_000,
        loss_percent: 0,
        delay: Duration::from_millis(25),
        jitter: Duration::ZERO,
    }
}

fn delay(millis: u64, way: Way) -> Way {
    Way {
        delay: Duration::from_millis(millis),
        ..way
    }
}

fn jitter(millis: u64, way: Way) -> Way {
    Way {
        jitter: Duration::from_millis(millis),
        ..way
    }
}

fn queue(queue_max: u64, way: Way) -> Way {
    Way { queue_max, ..way }
}

fn bucket(bucket: u64, way: Way) -> Way {
    Way { bucket, ..way }
}

fn loss(loss_percent: u64, way: Way) -> Way {
    Way {
        loss_percent,
        ..way
    }
}
