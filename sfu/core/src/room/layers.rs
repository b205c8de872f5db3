//! Which Layers there are, and which of them anybody wants.

use std::time::{Duration, Instant};

use super::{Output, Room};
use crate::keys::TrackKey;
use crate::picture::Detail;
use crate::track::{Layer, LayerInfo, LayerState, Track, all_of, idle_max};

/// How long an encoding is unwanted before its publisher is told to stop it: who scrolls back should not wait.
pub const PAUSE_DELAY: Duration = Duration::from_secs(3);

impl Room {
    /// The Layers of a Track, by encoding, spatial and temporal layer, the smallest first.
    pub fn layers(&self, track: TrackKey) -> impl Iterator<Item = LayerInfo> {
        self.tracks.get(track).into_iter().flat_map(layers_of)
    }

    /// Tells the publisher which encodings are wanted, if that is news: more at once, fewer after [`PAUSE_DELAY`].
    pub(super) fn tell_wanted(&mut self, now: Instant, key: TrackKey) {
        let Some(track) = self.tracks.get_mut(key).filter(|track| !track.is_audio()) else {
            return;
        };
        let wanted = track
            .slots
            .iter()
            .filter_map(|slot| self.slots.get(*slot))
            .flat_map(|slot| [slot.wanted.map(|layer| layer.encoding), slot.current])
            .flatten()
            .fold(0_u8, |bits, encoding| {
                bits | 1_u8.checked_shl(u32::from(encoding)).unwrap_or(0)
            })
            & all_of(track.encodings.len());

        let is_more = wanted & !track.told != 0;
        let is_fewer = track.told & !wanted != 0;
        let told = if is_fewer {
            let since = *track.fewer_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= PAUSE_DELAY {
                wanted
            } else {
                track.told | wanted
            }
        } else {
            wanted
        };
        if !is_fewer || told == wanted {
            track.fewer_since = None;
        }
        debug_assert!(!is_more || told != track.told);

        if told != track.told {
            track.told = told;
            self.outputs.push_back(Output::LayersWanted {
                participant: track.participant,
                track: key,
                wanted: told,
            });
        }
    }

    /// Measures what is being sent, and what of it is wanted.
    pub(super) fn look_at_layers(&mut self, now: Instant) {
        let keys: Vec<TrackKey> = self.tracks.iter().map(|(key, _)| key).collect();

        for key in keys {
            let Some(track) = self.tracks.get_mut(key) else {
                continue;
            };
            let idle_max = idle_max(track.source);
            let mut has_changed = false;

            for encoding in &mut track.encodings {
                let is_active = encoding
                    .arrived_at
                    .is_some_and(|at| now.saturating_duration_since(at) < idle_max);
                has_changed |= std::mem::replace(&mut encoding.is_active, is_active) != is_active;
                // What an encoding cost is remembered while it pauses.
                if is_active {
                    encoding.rates.update(now);
                } else {
                    encoding.rates.pause();
                    encoding.cache.clear();
                }
            }
            if has_changed && !track.is_audio() {
                self.outputs
                    .push_back(Output::EncodingsChanged { track: key });
            }
            self.tell_wanted(now, key);
        }
    }
}

fn layers_of(track: &Track) -> impl Iterator<Item = LayerInfo> {
    track
        .encodings
        .iter()
        .zip(0_u8..)
        .flat_map(|(encoding, index)| {
            let top = encoding.rates.top();
            let state = if encoding.is_active {
                LayerState::Sent
            } else if track.told & (1 << index) == 0 {
                LayerState::Paused
            } else {
                LayerState::Stopped
            };

            (0..=top.spatial).flat_map(move |spatial| {
                (0..=top.temporal).map(move |temporal| LayerInfo {
                    layer: Layer {
                        encoding: index,
                        spatial,
                        temporal,
                    },
                    bitrate: encoding.rates.up_to(Detail { spatial, temporal }),
                    size: encoding.sizes.get(usize::from(spatial)).copied().flatten(),
                    state,
                })
            })
        })
}
