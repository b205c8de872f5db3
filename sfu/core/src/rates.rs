//! What each Layer of an encoding costs, measured.

use std::time::{Duration, Instant};

use crate::picture::{Detail, Picture, SPATIAL_LAYERS_MAX, TEMPORAL_LAYERS_MAX};

/// How often rates are computed, and how soon for the first time: until then nobody knows what to make room for.
const WINDOW: Duration = Duration::from_millis(500);
const WINDOW_FIRST: Duration = Duration::from_millis(200);

/// A layer of which nothing came for so many windows is not there any more.
const SILENT_MAX: u8 = 2;

/// Bits per second by spatial and temporal layer.
#[derive(Debug)]
pub(crate) struct Rates {
    since: Option<Instant>,
    /// Of the frames that those need who get a spatial layer.
    bytes: [[u32; TEMPORAL_LAYERS_MAX]; SPATIAL_LAYERS_MAX],
    rates: [[u64; TEMPORAL_LAYERS_MAX]; SPATIAL_LAYERS_MAX],
    /// Which layers anything came of, since `since`, and for how many windows nothing has.
    comes: [[bool; TEMPORAL_LAYERS_MAX]; SPATIAL_LAYERS_MAX],
    silent: [[u8; TEMPORAL_LAYERS_MAX]; SPATIAL_LAYERS_MAX],
    /// Whether `rates` holds a measurement, to which the next ones are averaged.
    is_measured: bool,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            since: None,
            bytes: Default::default(),
            rates: Default::default(),
            comes: Default::default(),
            silent: [[SILENT_MAX; TEMPORAL_LAYERS_MAX]; SPATIAL_LAYERS_MAX],
            is_measured: false,
        }
    }
}

impl Rates {
    /// Counts a packet of `len` bytes.
    #[inline]
    pub(crate) fn count(&mut self, picture: &Picture, len: usize) {
        let spatial = usize::from(picture.spatial).min(SPATIAL_LAYERS_MAX - 1);
        let temporal = usize::from(picture.temporal).min(TEMPORAL_LAYERS_MAX - 1);
        let len = u32::try_from(len).unwrap_or(u32::MAX);

        self.comes[spatial][temporal] = true;
        for (layer, bytes) in (0_u8..).zip(&mut self.bytes).skip(spatial) {
            if !picture.is_unneeded_by(layer) {
                bytes[temporal] = bytes[temporal].saturating_add(len);
            }
        }
    }

    /// Nothing comes for a while: rates stay what they were, for the pause says nothing about them.
    pub(crate) fn pause(&mut self) {
        self.since = None;
    }

    /// Computes the rates when a window is over; to be called a few times a second.
    pub(crate) fn update(&mut self, now: Instant) {
        let Some(since) = self.since else {
            // What came before belongs to no window.
            self.bytes = Default::default();
            self.since = Some(now);
            return;
        };
        let elapsed = now.saturating_duration_since(since);
        let window = if self.is_measured {
            WINDOW
        } else {
            WINDOW_FIRST
        };
        if elapsed < window {
            return;
        }

        let nanos = elapsed.as_nanos().max(1);
        for (rate, bytes) in self
            .rates
            .iter_mut()
            .flatten()
            .zip(self.bytes.iter_mut().flatten())
        {
            let sample = u128::from(std::mem::take(bytes)) * 8 * 1_000_000_000 / nanos;
            let sample = u64::try_from(sample).unwrap_or(u64::MAX);
            *rate = if self.is_measured {
                (*rate + sample) / 2
            } else {
                sample
            };
        }
        let comes = std::mem::take(&mut self.comes);
        // A window in which nothing came at all says nothing about layers.
        if comes.as_flattened().contains(&true) {
            let silent = self.silent.as_flattened_mut().iter_mut();
            for (silent, comes) in silent.zip(comes.as_flattened()) {
                *silent = if *comes { 0 } else { silent.saturating_add(1) };
            }
        }
        self.since = Some(now);
        self.is_measured = true;
    }

    /// What all layers up to `detail` cost together, in bit/s.
    pub(crate) fn up_to(&self, detail: Detail) -> u64 {
        let spatial = usize::from(detail.spatial).min(SPATIAL_LAYERS_MAX - 1);
        let temporal = usize::from(detail.temporal).min(TEMPORAL_LAYERS_MAX - 1);

        self.rates[spatial][..=temporal].iter().sum()
    }

    /// The highest spatial layer and the highest temporal layer of which anything comes.
    pub(crate) fn top(&self) -> Detail {
        let comes = |silent: &u8| *silent < SILENT_MAX;
        let spatial = (0..SPATIAL_LAYERS_MAX)
            .rev()
            .find(|&spatial| self.silent[spatial].iter().any(comes));
        let temporal = (0..TEMPORAL_LAYERS_MAX)
            .rev()
            .find(|&temporal| self.silent.iter().any(|row| comes(&row[temporal])));
        let to_u8 =
            |index: Option<usize>| index.map_or(0, |index| u8::try_from(index).unwrap_or(0));

        Detail {
            spatial: to_u8(spatial),
            temporal: to_u8(temporal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_costs_what_it_and_those_below_it_cost() {
        let mut rates = Rates::default();
        let start = crate::test::start();
        let picture = |spatial, temporal| Picture {
            spatial,
            temporal,
            ..Picture::default()
        };
        rates.update(start);

        for _ in 0..2 {
            rates.count(&picture(0, 0), 1000);
            rates.count(&picture(0, 1), 500);
            rates.count(&picture(1, 0), 3000);
        }
        rates.update(start + Duration::from_millis(150));
        assert_eq!(
            rates.up_to(Detail {
                spatial: 9,
                temporal: 9
            }),
            0,
            "too soon"
        );
        rates.update(start + Duration::from_millis(250));

        let up_to = |spatial, temporal| rates.up_to(Detail { spatial, temporal });
        assert_eq!((up_to(0, 0), up_to(0, 1)), (64_000, 96_000));
        assert_eq!((up_to(1, 0), up_to(3, 3)), (256_000, 288_000));
        assert_eq!(
            rates.top(),
            Detail {
                spatial: 1,
                temporal: 1
            }
        );
    }

    #[test]
    fn a_pause_changes_no_rate() {
        let mut rates = Rates::default();
        let start = crate::test::start();
        let at = |millis| start + Duration::from_millis(millis);
        let rate = |rates: &Rates| rates.up_to(Detail::BASE);
        rates.update(start);
        let send = |rates: &mut Rates, from: u64, until: u64| {
            for millis in (from..until).step_by(40) {
                rates.count(&Picture::default(), 5000);
                rates.update(at(millis));
            }
        };
        send(&mut rates, 0, 2000);
        let before = rate(&rates);
        assert!((900_000..1_100_000).contains(&before), "{before}");

        rates.pause();
        send(&mut rates, 20_000, 20_400);
        assert_eq!(rate(&rates), before);
        send(&mut rates, 20_400, 22_000);
        let after = rate(&rates);
        assert!((900_000..1_100_000).contains(&after), "{after}");
    }
}
