//! The measurement, in short: it relays every frame, whatever it costs on a busy machine.

use crate::testbed::{alone, cost};

#[test]
fn every_live_frame_is_relayed_and_what_it_costs_is_told() {
    alone(|| {
        for cost in cost::measure(3, 50_000).unwrap() {
            let [redirect, bare, ours] = cost.medians();
            println!(
                "{}: {ours:.0} ns, {:.2} times a bare relay ({bare:.0} ns), {:.2} times a redirect \
                 that reads nothing ({redirect:.0} ns)",
                cost.name,
                ours / bare,
                ours / redirect
            );
        }
    });
}
