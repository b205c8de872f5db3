//! How a call went, in figures.

use std::time::Duration;

/// What a Leg counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Packets sent.
    pub sent: u64,
    /// Packets that came.
    pub received: u64,
    /// Packets that did not.
    pub lost: u64,
    /// Packets that came after their time.
    pub late: u64,
    /// Frames that were made up.
    pub concealed: u64,
    /// How unevenly packets came (RFC 3550 §6.4.1).
    pub jitter: Duration,
    /// The round trip, where the other side reports.
    pub round_trip: Option<Duration>,
    /// How many of our packets did not arrive, where it reports.
    pub lost_there: Option<u64>,
    /// What people would say of it, from 1 to 4.5: see [`mos`].
    pub mos: f32,
}

/// What the network itself can't make better (ITU-T G.107, table 3): R without any impairment, and how much loss G.711 with concealment
/// bears (G.113, appendix I).
const R_MAX: f32 = 93.2;
const LOSS_ROBUSTNESS: f32 = 25.1;

/// The mean opinion people would have of what was heard, from 1 (bad) to 4.5, estimated from losses and delay. Source: ITU-T G.107, the E-model
/// with its defaults. 0 where nothing came.
#[must_use]
pub fn mos(figures: &Figures) -> f32 {
    let expected = figures.received + figures.lost;
    if expected == 0 {
        return 0.0;
    }
    let missed = (figures.lost + figures.late).min(expected);
    let percent = 100.0 * missed as f32 / expected as f32;
    let impairment = 95.0 * percent / (percent + LOSS_ROBUSTNESS);
    // One way, with what is held back for jitter and twice a packet's length.
    let network = figures.round_trip.unwrap_or_default() / 2;
    let delay = network + figures.jitter * 2 + Duration::from_millis(60);
    let delay = delay.as_secs_f32() * 1_000.0;
    let late = (delay - 177.3).max(0.0);
    let r = R_MAX - 0.024 * delay - 0.11 * late - impairment;
    match r {
        ..=0.0 => 1.0,
        100.0.. => 4.5,
        r => 1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_delays_are_heard() {
        let call = |lost, round_trip_ms| {
            mos(&Figures {
                received: 1_000 - lost,
                lost,
                round_trip: Some(Duration::from_millis(round_trip_ms)),
                ..Figures::default()
            })
        };
        let table = [
            (0, 20, 4.3..4.5),
            (10, 20, 4.2..4.4),
            (50, 20, 3.5..4.0),
            (200, 20, 1.9..2.6),
            (0, 600, 3.3..3.9),
            (1_000, 20, 1.0..1.5),
        ];
        for (lost, round_trip, expected) in table {
            let got = call(lost, round_trip);
            assert!(expected.contains(&got), "{lost} {round_trip}: {got}");
        }
        assert!(mos(&Figures::default()) == 0.0);
    }
}
