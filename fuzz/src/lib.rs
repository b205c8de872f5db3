//! Every parser and core that hears the network, as a function that may be fed any bytes.
//!
//! A target panics when the code under it breaks a promise, and does nothing otherwise. `cargo test` replays the
//! committed seeds of each target (`corpus/<target>/`) with a bounded number of mutations; `./check long` lets
//! libFuzzer search by the clock (`src/bin/libfuzzer.rs`).

mod phone;
mod phone_numbers;
mod relay;
mod rtp;
mod server;
mod sfu;
mod signaling;
mod signaling_core;
mod sip;
mod sound;
mod stun_differential;
mod whip;

/// Feeds `data` to the code under test.
pub type Target = fn(&[u8]);

/// All targets by name, which is also the name of the folder of their seeds. A new target is one line here.
pub const TARGETS: &[(&str, Target)] = &[
    ("access_token", relay::access_token),
    ("channel_data", relay::channel_data),
    ("client_frame", signaling::client_frame),
    ("core_frames", signaling_core::core_frames),
    ("demux", server::demux),
    ("payload_descriptors", rtp::payload_descriptors),
    ("phone_target", phone_numbers::phone_target),
    ("proxy_v2", server::proxy_v2),
    ("relay_core_input", relay::relay_core_input),
    ("rtcp", rtp::rtcp),
    ("rtp_leg", phone::rtp_leg),
    ("rtp_packet", rtp::rtp_packet),
    ("sdp_fingerprints", signaling::sdp_fingerprints),
    ("sdp_offer", sfu::sdp_offer),
    ("sip_message", sip::sip_message),
    ("sip_sdp", sip::sip_sdp),
    ("sip_stream", sip::sip_stream),
    ("sip_values", sip::sip_values),
    ("sound_file", sound::sound_file),
    ("srtp_inbound", rtp::srtp_inbound),
    ("stun_differential", stun_differential::stun_differential),
    ("stun_message", relay::stun_message),
    ("turn_stream", relay::turn_stream),
    ("whip_bodies", whip::whip_bodies),
];

/// The target called `name`.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, target)| *target)
}
