//! A camera with three Layers, and the packets that an SFU would make of one.

use std::time::Duration;

use sfu_core::Bitrate;
use sfu_core::layers::LayerCost;
use sim::Rng;

pub(crate) const LAYERS: [LayerCost; 3] = [layer(60, 180), layer(450, 360), layer(1500, 720)];

/// Frames per second.
pub(crate) const FRAMES: u32 = 30;

/// A key frame is so many times as large as a mean frame; the frames behind it are smaller until that is made good.
const KEY_FRAME: u64 = 5;

/// How long a request takes to the publisher and the key frame back.
pub(crate) const KEY_FRAME_DELAY: Duration = Duration::from_millis(70);

/// Payload of a packet, in bytes.
pub(crate) const PACKET_LEN: u64 = 1150;

/// The picture of one moment in every Layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Picture {
    /// Its length in bytes and whether it is a key frame, by Layer.
    pub(crate) frames: [(u64, bool); 3],
}

#[derive(Debug)]
pub(crate) struct Camera {
    /// When a key frame of each Layer was asked for.
    asked: [Option<Duration>; 3],
    /// What key frames took beyond a mean frame.
    debt: [u64; 3],
    started: bool,
}

impl Camera {
    pub(crate) fn new() -> Self {
        Self {
            asked: [None; 3],
            debt: [0; 3],
            started: false,
        }
    }

    pub(crate) fn ask_key_frame(&mut self, now: Duration, layer: usize) {
        self.asked[layer].get_or_insert(now);
    }

    pub(crate) fn picture(&mut self, now: Duration, rng: &mut Rng) -> Picture {
        let is_first = !std::mem::replace(&mut self.started, true);
        let frames = std::array::from_fn(|layer| {
            let mean = LAYERS[layer].bitrate.bytes_in(Duration::from_secs(1)) / u64::from(FRAMES);
            let is_key =
                is_first || self.asked[layer].is_some_and(|at| now >= at + KEY_FRAME_DELAY);
            if is_key {
                self.asked[layer] = None;
                self.debt[layer] += mean * (KEY_FRAME - 1);
                return (mean * KEY_FRAME, true);
            }
            let drawn = mean * rng.within(75..=125) / 100;
            let saved = self.debt[layer].min(drawn / 4);
            self.debt[layer] -= saved;
            (drawn - saved, false)
        });
        Picture { frames }
    }
}

const fn layer(kbps: u64, height: u16) -> LayerCost {
    LayerCost {
        bitrate: Bitrate::kbps(kbps),
        height,
    }
}
