//! Row "xdp": a packet of a Channel relayed in the network driver, on live frames
//! (`BPF_F_TEST_XDP_LIVE_FRAMES`): the kernel's own receive path without a wire, on one thread.
//!
//! The floor is the bare live-frame redirect of a relay: find the packet's addresses in a map, move
//! the frame's start, write headers known beforehand, redirect; it checks and counts nothing. A
//! redirect that never reads the packet is told in the remarks. They take turns with our program,
//! round by round, both directions in each.

use std::thread;

use anyhow::{Context, anyhow};
use relay_xdp::testbed::{cost, missing};

use crate::report::Target;
use crate::table::{Details, Measure, Row, median, not_measured, row};

/// Frames of one kind in one round.
const FRAMES: u32 = 200_000;

/// The row's packets: 160 bytes to the peer, and to the client, over IPv4.
const ROW: usize = 2;

/// Measures the row, or says loudly what this machine lacks.
#[expect(clippy::print_stderr, reason = "what is skipped is said")]
pub(super) fn measure(rounds: usize) -> anyhow::Result<Row> {
    if let Some(missing) = missing() {
        eprintln!("!!! SKIPPED: row xdp: {missing}");
        return Ok(not_measured("xdp", &missing));
    }
    // A thread of its own, for it moves to another network namespace.
    let costs = thread::spawn(move || cost::measure(rounds, FRAMES))
        .join()
        .map_err(|_| anyhow!("the measurement panicked"))?
        .context("live frames can't be measured")?;

    let mut details = Details {
        unit: "s per million packets",
        targets: vec![(Measure::ToFloor, Target::AtMost(1.4))],
        ..Details::default()
    };
    for cost in &costs {
        let [redirect, bare, ours] = cost.medians();
        details.remarks.push(format!(
            "{}: {ours:.0} ns, {:.2} times a bare relay, {:.2} times a redirect that reads nothing ({redirect:.0} ns)",
            cost.name,
            ours / bare,
            ours / redirect
        ));
    }
    // Both directions of a round together, in microseconds.
    let both = |column: fn(&cost::Cost) -> &Vec<f64>| -> Vec<f64> {
        let of_round = |round: usize| {
            let kinds = costs.iter().take(ROW);
            kinds.map(|cost| column(cost)[round]).sum::<f64>() / ROW as f64 / 1000.0
        };
        (0..rounds).map(of_round).collect()
    };
    let (ours, floor) = (both(|cost| &cost.ours), both(|cost| &cost.bare));
    let to_floor: Vec<_> = ours
        .iter()
        .zip(&floor)
        .map(|(ours, floor)| ours / floor)
        .collect();
    // Nobody else relays in the driver, so what ours is compared with is the floor.
    Ok(Row {
        ratio: Some(median(&to_floor)),
        ..row("xdp", &[ours, Vec::new(), floor], details)
    })
}
