//! Which Layer of each Track a Participant is sent: what fits their way, by what they want to see.

use std::time::{Duration, Instant};

use model::id::TrackId;
use model::room::Source;
use sfu_core::layers::{self, LayerCost, Wish};
use sfu_core::{Bitrate, Layer, LayerState, Room as Core};

use crate::participant::Participant;

/// How often Layers are chosen anew.
const INTERVAL: Duration = Duration::from_millis(100);

/// What sound in a slot takes, with redundancy and headers.
const AUDIO: Bitrate = Bitrate::kbps(60);

/// Headers of RTP and below add so much to what a Layer's payloads take.
const OVERHEAD: f64 = 1.06;

/// How long after the first picture there is to send nothing visible is paused: until the way is measured the estimate is a guess, on
/// the low side, and a Track of one Layer would not begin at all. Without pictures it is not measured, however long somebody waits.
const UNMEASURED: Duration = Duration::from_secs(8);

/// How long nothing visible is paused after all that is smallest no longer fits, unless far less than it does: the estimate errs, and a
/// picture that stops for its wave is worse than one that waits.
const SHORT_MAX: Duration = Duration::from_secs(4);
const FAR_SHORT: f64 = 0.5;
const FAR_SHORT_MAX: Duration = Duration::from_secs(1);

/// A picture in a slot, as it can be had.
struct Choice {
    /// The place of its section.
    section: usize,
    costs: Vec<LayerCost>,
    layers: Vec<Layer>,
    height: Option<u16>,
    priority: u8,
    is_pinned: bool,
    is_screen: bool,
}

impl Choice {
    fn wish(&self) -> Wish<'_> {
        Wish {
            layers: &self.costs,
            height: self.height,
            priority: self.priority,
            pinned: self.is_pinned,
            screen: self.is_screen,
        }
    }
}

/// Chooses the Layers of a Participant; returns the Tracks that are paused for lack of bandwidth from now on, or no longer.
pub(crate) fn choose(
    now: Instant,
    core: &mut Core,
    participant: &mut Participant,
) -> Vec<(TrackId, bool)> {
    let choices = choices(core, participant);
    if choices.is_empty() {
        participant.choose_due = None;
        participant.wished = Bitrate::ZERO;
        return Vec::new();
    }
    participant.choose_due = Some(now + INTERVAL);
    let seen_since = *participant.seen_since.get_or_insert(now);
    let is_heard = |section: &&crate::participant::Section| {
        section.is_audio
            && section
                .slot
                .as_ref()
                .is_some_and(|carrier| carrier.track.is_some())
    };
    let voices = participant.sections.iter().filter(is_heard).count();
    let audio = AUDIO.scaled(voices as f64);
    let wishes: Vec<Wish<'_>> = choices.iter().map(Choice::wish).collect();
    let held: Vec<Option<usize>> = choices
        .iter()
        .map(|choice| held(core, participant, choice))
        .collect();

    participant.wished = layers::cost_wished(&wishes, None) + audio;
    participant.downlink.set_wanted(now, participant.wished);
    let cost = layers::cost(&wishes, &held) + audio;
    let budget = participant
        .budget
        .update(now, participant.downlink.estimate(), cost);
    let chosen = layers::allocate(&wishes, audio, budget, None);

    let is_borne = bears(
        now,
        seen_since,
        participant,
        &choices,
        &wishes,
        &chosen,
        audio,
    );
    let mut news = Vec::new();
    for (choice, chosen) in choices.iter().zip(chosen) {
        let Some(carrier) = &mut participant.sections[choice.section].slot else {
            continue;
        };
        let chosen = chosen.or((is_borne && choice.height != Some(0)).then_some(0));
        let layer = chosen.map(|at| choice.layers[at]);
        core.set_layer(now, carrier.key, layer);
        let is_paused = layer.is_none() && choice.height != Some(0);
        if carrier.is_paused != is_paused {
            carrier.is_paused = is_paused;
            news.extend(carrier.track.map(|track| (track.id, is_paused)));
        }
    }
    news
}

/// Whether what is visible goes out though it does not fit: soon after the first picture, and for a while after it last did.
fn bears(
    now: Instant,
    seen_since: Instant,
    participant: &mut Participant,
    choices: &[Choice],
    wishes: &[Wish<'_>],
    chosen: &[Option<usize>],
    audio: Bitrate,
) -> bool {
    let is_visible = |choice: &&Choice| choice.height != Some(0);
    let is_short = choices
        .iter()
        .zip(chosen)
        .any(|(choice, chosen)| is_visible(&choice) && chosen.is_none());
    if !is_short {
        participant.short_since = None;
        return true;
    }
    if now.saturating_duration_since(seen_since) < UNMEASURED {
        return true;
    }
    // What was given up once comes back when it fits.
    let is_given_up = |choice: &Choice| {
        let slot = participant.sections[choice.section].slot.as_ref();
        slot.is_some_and(|carrier| carrier.is_paused)
    };
    if choices.iter().any(is_given_up) {
        return false;
    }
    let smallest: Vec<_> = choices
        .iter()
        .map(|choice| is_visible(&choice).then_some(0))
        .collect();
    let needed = layers::cost(wishes, &smallest) + audio;
    let is_far = participant.downlink.estimate() < needed.scaled(FAR_SHORT);
    let since = *participant.short_since.get_or_insert(now);
    let patience = if is_far { FAR_SHORT_MAX } else { SHORT_MAX };
    now.saturating_duration_since(since) < patience
}

/// The pictures in the slots of a Participant of which anything comes.
fn choices(core: &Core, participant: &Participant) -> Vec<Choice> {
    let sections = participant.sections.iter().enumerate();
    let of_section = |(at, section): (usize, &crate::participant::Section)| {
        let track = section.slot.as_ref()?.track?;
        if section.is_audio {
            return None;
        }
        let mut choice = Choice {
            section: at,
            costs: Vec::new(),
            layers: Vec::new(),
            height: None,
            priority: 0,
            is_pinned: false,
            is_screen: track.source == Source::Screen,
        };
        if let Some(wish) = participant.wants.wish(track.id) {
            choice.height = wish.height;
            choice.priority = wish.priority;
            choice.is_pinned = wish.pinned;
        }
        // What its publisher has stopped can't be had; what we have paused can, as far as we know what it takes.
        let had = |layer: &sfu_core::LayerInfo| match layer.state {
            LayerState::Sent => true,
            LayerState::Paused => layer.bitrate > 0,
            LayerState::Stopped => false,
        };
        let layers: Vec<_> = core.layers(track.key).filter(had).collect();
        let known: Vec<_> = layers.iter().map(|layer| layer.layer).collect();
        for layer in layers.iter().filter(|layer| !is_jerky(&known, layer.layer)) {
            choice.costs.push(LayerCost {
                bitrate: Bitrate::bps(layer.bitrate).scaled(OVERHEAD),
                height: layer.size.map_or(0, |(_, height)| height),
            });
            choice.layers.push(layer.layer);
        }
        (!choice.layers.is_empty()).then_some(choice)
    };
    sections.filter_map(of_section).collect()
}

/// Whether a Layer is a larger picture at a quarter of its frame rate, the lowest of three: it costs hardly more than the smaller picture at
/// its full one and looks worse, and on a way that bears the one and now and then the other the picture would go to and fro.
/// `layers` are all of its Track, the smallest first.
fn is_jerky(layers: &[Layer], layer: Layer) -> bool {
    let picture = |layer: &Layer| (layer.encoding, layer.spatial);
    let is_same = |other: &&Layer| picture(other) == picture(&layer);
    let is_smallest = layers.first().is_some_and(|first| is_same(&first));
    let rates = layers.iter().filter(is_same).map(|other| other.temporal);
    layer.temporal == 0 && !is_smallest && rates.max() >= Some(2)
}

/// Which Layer of a picture goes out now.
fn held(core: &Core, participant: &Participant, choice: &Choice) -> Option<usize> {
    let carrier = participant.sections[choice.section].slot.as_ref()?;
    let (_, layer) = core.carried(carrier.key)?;
    let layer = layer?;
    // What goes out may be named beyond what there is.
    let is_within = |known: &Layer| {
        known.encoding == layer.encoding
            && known.spatial <= layer.spatial
            && known.temporal <= layer.temporal
    };
    choice.layers.iter().rposition(is_within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_frame_rate_is_no_step_between_two_sizes() {
        let layer = |encoding, spatial, temporal| Layer {
            encoding,
            spatial,
            temporal,
        };
        let jerky = |layers: &[Layer]| -> Vec<Layer> {
            let found = layers.iter().filter(|one| is_jerky(layers, **one));
            found.copied().collect()
        };

        let rates = |encoding, spatial| (0..3).map(move |rate| layer(encoding, spatial, rate));
        let simulcast: Vec<_> = rates(0, 0).chain(rates(1, 0)).chain(rates(2, 0)).collect();
        assert_eq!(jerky(&simulcast), [layer(1, 0, 0), layer(2, 0, 0)]);
        let svc: Vec<_> = rates(0, 0).chain(rates(0, 1)).collect();
        assert_eq!(jerky(&svc), [layer(0, 1, 0)]);
        // Half of the frame rate is, and so is what has one alone.
        assert_eq!(jerky(&[layer(0, 0, 0), layer(1, 0, 0), layer(1, 0, 1)]), []);
        assert_eq!(jerky(&[layer(0, 0, 0), layer(1, 0, 0)]), []);
        // Of a publisher who sends the larger one alone it is all there is to come down to.
        let large: Vec<_> = rates(1, 0).collect();
        assert_eq!(jerky(&large), []);
    }
}
