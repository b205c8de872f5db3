//! Layer choice: what of all that a Participant wants to see fits through their downlink.
//!
//! ```text
//!  estimate ──▶ Budget ──▶ allocate(wishes, audio, budget) ──▶ a Layer per Track, or paused
//!            (hysteresis)        │  caps Layers by visible size, orders, last-N
//!                                └──▶ choose_layers(bitrates, budget)
//! ```
//!
//! [`choose_layers`] and [`allocate`] are pure functions of plain values; time is in [`Budget`] alone.

mod budget;

pub use budget::{Budget, HOLD_MAX, HOLD_MIN};

use std::cmp::Reverse;

use crate::bitrate::Bitrate;

/// Chooses which Layer of each video Track to forward within `budget`.
///
/// `tracks` is ordered most wanted first; each entry holds that Track's Layer bitrates, smallest
/// first. Returns one index per Track, in the same order, or `None` where the Track is paused.
/// Every Track gets its smallest Layer before any Track gets a larger one; larger ones are given
/// round by round, in order, to whoever still fits. The chosen bitrates together stay within
/// `budget`. A Layer that costs no more than a smaller one is taken with it. Never fails.
/// Source: ARCHITECTURE.md, "Layer choice".
pub fn choose_layers(tracks: &[&[Bitrate]], budget: Bitrate) -> Vec<Option<usize>> {
    let mut chosen: Vec<Option<usize>> = vec![None; tracks.len()];
    let mut left = budget;
    let rounds = tracks.iter().map(|layers| layers.len()).max().unwrap_or(0);

    for round in 0..rounds {
        for (layers, chosen) in tracks.iter().zip(&mut chosen) {
            let Some(&bitrate) = layers.get(round) else {
                continue;
            };
            let held = chosen.map_or(Bitrate::ZERO, |layer| layers[layer]);
            // Who is paused stays so: a larger Layer would not fit where the smallest did not.
            if (round == 0 || chosen.is_some()) && bitrate <= held + left {
                *chosen = Some(round);
                left = (held + left) - bitrate;
            }
        }
    }
    chosen
}

/// A Layer as Layer choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerCost {
    /// What it takes to send, as measured, with the Layers it depends on.
    pub bitrate: Bitrate,
    /// How high its picture is, in pixels; 0 while nobody knows.
    pub height: u16,
}

/// What a Participant wants of one video Track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish<'a> {
    /// The Layers that arrive from the publisher, smallest first. None: nothing to forward.
    pub layers: &'a [LayerCost],
    /// How high the picture is shown, in pixels of the screen; 0 means not visible now.
    /// `None`: unknown, as large as there is.
    pub height: Option<u16>,
    /// Higher comes first.
    pub priority: u8,
    /// Whether it comes before all cameras that are not pinned.
    pub pinned: bool,
    /// Whether it is a shared screen: these come before everything.
    pub screen: bool,
}

/// How much higher than its tile a picture may be before the next smaller Layer would do: a tile
/// of 200 pixels takes a picture of 180, for which nobody would send four times as much.
const SCALE_UP_PERCENT: u32 = 125;

/// The most Tracks one Participant is sent at once, whatever they ask for.
pub const TRACKS_MAX: usize = 256;

/// Chooses a Layer for each of `wishes` within `budget`, from which `audio` is taken first.
///
/// Shared screens come first, then what is pinned, then by priority, then in the order given.
/// Everybody's smallest Layer comes before anyone's larger one; after that a screen or a pinned
/// Track gets all it can use before the next rank gets more, and equals share round by round. No
/// Track gets a Layer larger than it is shown. What is not visible is paused, and so is every
/// camera beyond the first `last_n`, if given: screens and pinned Tracks don't count.
///
/// Returns one index into [`Wish::layers`] per wish, in the same order, or `None` where the Track
/// is paused. The chosen bitrates and `audio` together stay within `budget`, or all is paused.
pub fn allocate(
    wishes: &[Wish<'_>],
    audio: Bitrate,
    budget: Bitrate,
    last_n: Option<usize>,
) -> Vec<Option<usize>> {
    let order = order(wishes, last_n);
    let bitrates: Vec<Vec<Bitrate>> = order
        .iter()
        .map(|&index| useful(&wishes[index]).map(|layer| layer.bitrate).collect())
        .collect();
    let tracks: Vec<&[Bitrate]> = bitrates.iter().map(Vec::as_slice).collect();
    let smallest: Vec<&[Bitrate]> = tracks.iter().map(|layers| &layers[..1]).collect();

    let budget = budget - audio;
    let first = choose_layers(&smallest, budget);
    let spent = first
        .iter()
        .zip(&smallest)
        .filter(|(chosen, _)| chosen.is_some())
        .map(|(_, layers)| layers[0])
        .sum();
    let mut spare = budget - spent;

    let mut chosen = vec![None; wishes.len()];
    let running: Vec<usize> = (0..order.len()).filter(|&at| first[at].is_some()).collect();
    for rank in running.chunk_by(|&a, &b| rank(&wishes[order[a]]) == rank(&wishes[order[b]])) {
        let tracks: Vec<&[Bitrate]> = rank.iter().map(|&at| tracks[at]).collect();
        let floor: Bitrate = tracks.iter().map(|layers| layers[0]).sum();
        let layers = choose_layers(&tracks, floor + spare);

        let used: Bitrate = layers
            .iter()
            .zip(&tracks)
            .filter_map(|(layer, track)| layer.map(|layer| track[layer]))
            .sum();
        spare = (floor + spare) - used;
        for (&at, layer) in rank.iter().zip(layers) {
            chosen[order[at]] = layer;
        }
    }
    chosen
}

/// What a choice costs: the bitrates of the Layers chosen from `wishes`, together.
pub fn cost(wishes: &[Wish<'_>], chosen: &[Option<usize>]) -> Bitrate {
    wishes
        .iter()
        .zip(chosen)
        .filter_map(|(wish, layer)| wish.layers.get((*layer)?))
        .map(|layer| layer.bitrate)
        .sum()
}

/// What `wishes` would cost if everything fitted: where probing aims at.
pub fn cost_wished(wishes: &[Wish<'_>], last_n: Option<usize>) -> Bitrate {
    order(wishes, last_n)
        .into_iter()
        .filter_map(|index| useful(&wishes[index]).last())
        .map(|layer| layer.bitrate)
        .sum()
}

/// The visible wishes, most wanted first, without the cameras beyond `last_n`.
fn order(wishes: &[Wish<'_>], last_n: Option<usize>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wishes.len())
        .filter(|&index| wishes[index].height != Some(0) && !wishes[index].layers.is_empty())
        .collect();
    order.sort_by_key(|&index| (rank(&wishes[index]), Reverse(wishes[index].priority)));

    let mut cameras = 0;
    order.retain(|&index| {
        let is_counted = !wishes[index].screen && !wishes[index].pinned;
        cameras += usize::from(is_counted);
        !is_counted || last_n.is_none_or(|last_n| cameras <= last_n)
    });
    order.truncate(TRACKS_MAX);
    order
}

/// Ranks are served one after the other, the lowest first; equals share.
fn rank(wish: &Wish<'_>) -> u8 {
    match (wish.screen, wish.pinned) {
        (true, true) => 0,
        (true, false) => 1,
        (false, true) => 2,
        (false, false) => 3,
    }
}

/// The Layers of `wish` that are worth sending: up to the height that fills the tile, with all its frame rates. At least one.
fn useful<'a>(wish: &Wish<'a>) -> impl Iterator<Item = &'a LayerCost> {
    let shown = u32::from(wish.height.unwrap_or(u16::MAX));
    let fills = |layer: &&LayerCost| {
        layer.height > 0 && u32::from(layer.height) * SCALE_UP_PERCENT >= shown * 100
    };
    let height = wish.layers.iter().find(fills).map(|layer| layer.height);
    let is_last = |layer: &LayerCost| Some(layer.height) == height;
    let last = wish.layers.iter().rposition(is_last);
    let count = last.map_or(wish.layers.len(), |last| last + 1);
    wish.layers.iter().take(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `tracks` and `budget` in kbit/s; `chosen` names a Layer per Track, `-` where it is paused.
    #[track_caller]
    fn check(tracks: &[&[u64]], budget: u64, chosen: &str) {
        let tracks: Vec<Vec<Bitrate>> = tracks
            .iter()
            .map(|layers| layers.iter().copied().map(Bitrate::kbps).collect())
            .collect();
        let tracks: Vec<&[Bitrate]> = tracks.iter().map(Vec::as_slice).collect();
        assert_eq!(text(&choose_layers(&tracks, Bitrate::kbps(budget))), chosen);
    }

    #[test]
    fn everybody_is_seen_before_anybody_is_seen_better() {
        let camera: &[u64] = &[100, 300, 900];

        check(&[], 1000, "");
        check(&[camera], 0, "-");
        check(&[camera], 99, "-");
        check(&[camera], 100, "0");
        check(&[camera], 5000, "2");
        check(&[camera, camera], 150, "0 -");
        check(&[camera, camera], 399, "0 0");
        check(&[camera, camera], 450, "1 0");
        check(&[camera, camera], 600, "1 1");
        check(&[camera, camera], 1200, "2 1");
        check(&[camera, camera], 1800, "2 2");
    }

    #[test]
    fn who_fits_is_served_where_somebody_before_them_does_not_fit() {
        check(&[&[500], &[100]], 200, "- 0");
        check(&[&[100, 900], &[100, 200]], 300, "0 1");
        check(&[&[100, 900, 950], &[100, 200]], 300, "0 1");
        check(&[&[], &[100]], 300, "- 0");
    }

    #[test]
    fn a_layer_that_costs_no_more_than_a_smaller_one_is_taken() {
        check(&[&[300, 200, 900]], 300, "1");
        check(&[&[300, 400, 350]], 350, "2");
    }

    const CAMERA: &[LayerCost] = &[cost_of(100, 180), cost_of(300, 360), cost_of(900, 720)];
    const SCREEN: &[LayerCost] = &[cost_of(200, 540), cost_of(1500, 1080)];

    #[test]
    fn screens_come_first_then_pinned_tracks_then_priority() {
        let camera = wish(CAMERA);
        let screen = Wish {
            screen: true,
            ..wish(SCREEN)
        };
        let pinned = Wish {
            pinned: true,
            ..camera
        };
        let urgent = Wish {
            priority: 9,
            ..camera
        };

        share(&[camera, screen], 1600, "0 1");
        share(&[camera, screen], 300, "0 0");
        share(&[camera, screen], 250, "- 0");
        share(&[camera, pinned, camera], 1100, "0 2 0");
        share(&[camera, pinned, screen], 1700, "0 0 1");
        share(&[camera, camera, urgent], 500, "0 0 1");
        share(&[camera, camera, urgent], 100, "- - 0");
    }

    #[test]
    fn nothing_is_sent_larger_than_it_is_shown() {
        let shown = |height| Wish {
            height: Some(height),
            ..wish(CAMERA)
        };
        share(&[shown(0)], 9000, "-");
        share(&[shown(1)], 9000, "0");
        share(&[shown(180)], 9000, "0");
        share(&[shown(225)], 9000, "0");
        share(&[shown(226)], 9000, "1");
        share(&[shown(720)], 9000, "2");
        share(&[shown(4000)], 9000, "2");
        // A height comes with all of its frame rates.
        const TEMPORAL: &[LayerCost] = &[
            cost_of(60, 180),
            cost_of(100, 180),
            cost_of(200, 360),
            cost_of(300, 360),
            cost_of(900, 720),
        ];
        let temporal = |height| Wish {
            height: Some(height),
            ..wish(TEMPORAL)
        };
        share(&[temporal(90)], 9000, "1");
        share(&[temporal(300)], 9000, "3");
        share(&[temporal(300)], 250, "2");
        // While nobody knows how large a Layer is, it may be taken.
        const UNKNOWN: &[LayerCost] = &[cost_of(100, 0), cost_of(300, 0)];
        let unknown = Wish {
            height: Some(90),
            ..wish(UNKNOWN)
        };
        share(&[unknown], 9000, "1");
    }

    #[test]
    fn the_last_n_cameras_are_those_most_wanted_and_screens_are_not_counted() {
        let camera = wish(CAMERA);
        let urgent = Wish {
            priority: 1,
            ..camera
        };
        let screen = Wish {
            screen: true,
            ..wish(SCREEN)
        };
        let chosen = allocate(
            &[camera, screen, camera, urgent],
            Bitrate::ZERO,
            Bitrate::MAX,
            Some(2),
        );
        assert_eq!(text(&chosen), "2 1 - 2");
        assert_eq!(
            cost_wished(&[camera, screen, camera, urgent], Some(2)),
            Bitrate::kbps(3300)
        );
    }

    #[test]
    fn audio_is_served_before_any_picture() {
        let chosen = allocate(&[wish(CAMERA)], Bitrate::kbps(60), Bitrate::kbps(120), None);
        assert_eq!(text(&chosen), "-");
    }

    proptest! {
        #[test]
        fn the_choice_keeps_its_promises(
            tracks in prop::collection::vec(layers(), 0..20),
            budget in 0_u64..20_000,
        ) {
            let tracks: Vec<&[Bitrate]> = tracks.iter().map(Vec::as_slice).collect();
            let budget = Bitrate::kbps(budget);
            let chosen = choose_layers(&tracks, budget);

            prop_assert_eq!(chosen.len(), tracks.len());
            let spent = spent(&tracks, &chosen);
            prop_assert!(spent <= budget);
            let left = budget - spent;
            for (layers, chosen) in tracks.iter().zip(&chosen) {
                match chosen {
                    None => prop_assert!(layers.first().is_none_or(|&smallest| smallest > left)),
                    Some(layer) => if let Some(&larger) = layers.get(layer + 1) {
                        prop_assert!(larger - layers[*layer] > left, "money is left over");
                    }
                }
            }
            if chosen.iter().flatten().any(|&layer| layer > 0) {
                let smallest: Vec<&[Bitrate]> = tracks.iter().map(|l| &l[..l.len().min(1)]).collect();
                let only = choose_layers(&smallest, budget);
                prop_assert!(only.iter().zip(&chosen).all(|(a, b)| a.is_some() == b.is_some()));
            }
        }

        #[test]
        fn what_was_chosen_is_chosen_again_for_just_what_it_costs(
            tracks in prop::collection::vec(layers(), 0..20),
            budget in 0_u64..20_000,
        ) {
            let tracks: Vec<&[Bitrate]> = tracks.iter().map(Vec::as_slice).collect();
            let chosen = choose_layers(&tracks, Bitrate::kbps(budget));
            prop_assert_eq!(&choose_layers(&tracks, spent(&tracks, &chosen)), &chosen);
        }

        #[test]
        fn an_allocation_never_costs_more_than_its_budget(
            cameras in prop::collection::vec((layers(), 0_u16..1200, 0_u8..3, any::<bool>(), any::<bool>()), 0..12),
            budget in 0_u64..20_000,
            last_n in prop::option::of(0_usize..8),
        ) {
            let layers: Vec<Vec<LayerCost>> = cameras
                .iter()
                .map(|(layers, ..)| layers.iter().zip([180, 360, 720]).map(|(&bitrate, height)| LayerCost { bitrate, height }).collect())
                .collect();
            let wishes: Vec<Wish<'_>> = cameras
                .iter()
                .zip(&layers)
                .map(|(&(_, height, priority, pinned, screen), layers)| Wish { layers, height: Some(height), priority, pinned, screen })
                .collect();
            let audio = Bitrate::kbps(50);
            let chosen = allocate(&wishes, audio, Bitrate::kbps(budget), last_n);

            prop_assert_eq!(chosen.len(), wishes.len());
            prop_assert!(cost(&wishes, &chosen) <= Bitrate::kbps(budget) - audio);
            prop_assert!(cost(&wishes, &chosen) <= cost_wished(&wishes, last_n));
            let shown = wishes.iter().zip(&chosen).filter(|(w, c)| c.is_some() && !w.screen && !w.pinned).count();
            prop_assert!(last_n.is_none_or(|last_n| shown <= last_n));
        }
    }

    /// Bitrates of up to three Layers, growing.
    fn layers() -> impl Strategy<Value = Vec<Bitrate>> {
        prop::collection::vec(1_u64..1500, 0..=3).prop_map(|mut kbps| {
            kbps.sort_unstable();
            kbps.into_iter().map(Bitrate::kbps).collect()
        })
    }

    fn spent(tracks: &[&[Bitrate]], chosen: &[Option<usize>]) -> Bitrate {
        let chosen = tracks.iter().zip(chosen);
        chosen
            .filter_map(|(layers, layer)| Some(layers[(*layer)?]))
            .sum()
    }

    #[track_caller]
    fn share(wishes: &[Wish<'_>], budget: u64, chosen: &str) {
        let budget = Bitrate::kbps(budget);
        assert_eq!(text(&allocate(wishes, Bitrate::ZERO, budget, None)), chosen);
    }

    fn wish(layers: &[LayerCost]) -> Wish<'_> {
        Wish {
            layers,
            height: None,
            priority: 0,
            pinned: false,
            screen: false,
        }
    }

    const fn cost_of(kbps: u64, height: u16) -> LayerCost {
        LayerCost {
            bitrate: Bitrate::kbps(kbps),
            height,
        }
    }

    fn text(chosen: &[Option<usize>]) -> String {
        let name = |layer: &Option<usize>| layer.map_or("-".into(), |layer| layer.to_string());
        chosen.iter().map(name).collect::<Vec<_>>().join(" ")
    }
}
