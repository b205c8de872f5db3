//! What a client sends: Tracks and their Layers.

use std::sync::Arc;

use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::RTCPeerConnection;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpRtxParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

use super::abilities::{opus, vp8};
use super::film::Film;
use super::media::{Camera, FRAME_PACKETS, VIDEO_PACKET_LEN};

/// Bytes of a packet of video besides its payload: header, extensions.
const VIDEO_HEADER_LEN: usize = 24;

/// What a client sends, and how much it can receive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Role {
    /// Its own Tracks, in this order in the offer.
    pub(crate) sends: Vec<Kind>,
    /// Sections that only receive, behind them.
    pub(crate) audio_slots: usize,
    pub(crate) video_slots: usize,
    /// What a camera of [`Kind::Film`] shows.
    pub(crate) film: Option<Arc<Film>>,
    /// What microphones hear when somebody speaks; without it, what no encoder made.
    pub(crate) sound: Option<Arc<Film>>,
}

/// A Track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Microphone,
    /// 1.2 Mbit/s.
    Camera,
    /// 150 kbit/s, for many at once.
    Thumbnail,
    /// Three Layers: 240, 480 and 1200 kbit/s.
    Simulcast,
    /// What [`Role::film`] has.
    Film,
}

impl Kind {
    pub(crate) fn is_audio(self) -> bool {
        self == Kind::Microphone
    }

    /// Names, sizes and packets a frame of its Layers, the smallest first.
    fn layers(self) -> &'static [(&'static str, (u16, u16), usize)] {
        match self {
            Kind::Microphone => &[("", (0, 0), 1)],
            Kind::Camera => &[("", (1280, 720), FRAME_PACKETS)],
            Kind::Thumbnail => &[("", (320, 180), 1)],
            Kind::Film => &[("", (0, 0), 0)],
            Kind::Simulcast => &[
                ("q", (320, 180), 1),
                ("h", (640, 360), 2),
                ("f", (1280, 720), FRAME_PACKETS),
            ],
        }
    }

    /// Bytes of a packet's payload.
    fn payload_len(self) -> usize {
        match self {
            Kind::Thumbnail => 150_000 / 8 / 25 - VIDEO_HEADER_LEN,
            _ => VIDEO_PACKET_LEN - VIDEO_HEADER_LEN,
        }
    }
}

/// A Track of one's own, once it is negotiated.
pub(super) struct Sent {
    pub(super) kind: Kind,
    pub(super) mid: String,
    pub(super) track_id: String,
    pub(super) layers: Vec<SentLayer>,
    /// Numbers of header extensions.
    pub(super) mid_id: Option<u8>,
    pub(super) rid_id: Option<u8>,
    pub(super) level_id: Option<u8>,
    pub(super) packets: u64,
    /// What a microphone hears.
    pub(super) sound: Option<Arc<Film>>,
}

pub(super) struct SentLayer {
    pub(super) rid: &'static str,
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    pub(super) camera: Camera,
    /// Nobody receives it, so it isn't sent.
    pub(super) is_paused: bool,
}

/// The media clock after so many steps.
pub(super) fn timestamp(steps: u64, step: u64) -> u32 {
    (steps.wrapping_mul(step) & 0xFFFF_FFFF) as u32
}

pub(super) fn add_track(
    connection: &mut RTCPeerConnection,
    number: usize,
    kind: Kind,
    role: &Role,
) -> anyhow::Result<Sent> {
    let codec_kind = if kind.is_audio() {
        RtpCodecKind::Audio
    } else {
        RtpCodecKind::Video
    };
    let mut codings = Vec::new();
    let mut layers = Vec::new();
    for (rid, size, packets) in kind.layers() {
        let ssrc = random_ssrc();
        codings.push(RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                rid: (*rid).to_owned(),
                ssrc: Some(ssrc),
                rtx: (!kind.is_audio()).then(|| RTCRtpRtxParameters {
                    ssrc: random_ssrc(),
                }),
                ..RTCRtpCodingParameters::default()
            },
            active: true,
            codec: if kind.is_audio() { opus() } else { vp8() },
            ..RTCRtpEncodingParameters::default()
        });
        layers.push(SentLayer {
            rid,
            ssrc,
            sequence: 1000,
            camera: match &role.film {
                Some(film) if kind == Kind::Film => Camera::film(film.clone(), kind.payload_len()),
                _ => Camera::small(*size, *packets, kind.payload_len()),
            },
            is_paused: false,
        });
    }
    let track_id = format!("track{number}");
    let track = MediaStreamTrack::new(
        "stream".to_owned(),
        track_id.clone(),
        track_id.clone(),
        codec_kind,
        codings.clone(),
    );
    let init = RTCRtpTransceiverInit {
        direction: RTCRtpTransceiverDirection::Sendonly,
        streams: Vec::new(),
        send_encodings: codings,
    };
    connection.add_transceiver_from_track(track, Some(init))?;
    Ok(Sent {
        kind,
        mid: String::new(),
        track_id,
        layers,
        mid_id: None,
        rid_id: None,
        level_id: None,
        packets: 0,
        sound: role.sound.clone(),
    })
}

/// A number no other stream has.
fn random_ssrc() -> u32 {
    let ulid = ulid::Ulid::generate().random();
    ((ulid & 0xFFFF_FFFF) as u32).max(1)
}
