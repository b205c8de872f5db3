//! What is offered to the library, and what an answer of it means.

use sfu_core::{Acks, Codec, EncodingConfig, Format};
use sfu_rtp::extension::{ExtensionKind, ExtensionMap};
use str0m::config::DtlsVersion;
use str0m::format::PayloadParams;
use str0m::media::{Media, Mid};
use str0m::rtp::{
    Extension, ExtensionMap as LibraryExtensions, ExtensionSerializer, ExtensionValues,
};
use str0m::{Rtc, RtcConfig};

use super::{Identity, REPORTS_INTERVAL};
use crate::data::{MESSAGE_LEN_MAX, WAITING_BYTES_MAX};
use crate::sdp::{Kind, Offer, Section};

/// What offer and answer agree on.
#[derive(Debug)]
pub(crate) struct Agreed {
    /// The answer.
    pub(crate) answer: String,
    /// What the peer's STUN requests begin their USERNAME with.
    pub(crate) ufrag: String,
    /// What they are signed with.
    pub(crate) password: String,
    /// The header extensions of all sections.
    pub(crate) extensions: ExtensionMap,
    /// Feedback may go without a report, both ways (RFC 5506).
    pub(crate) reduces_rtcp: bool,
    /// What the peer is told about what it sends.
    pub(crate) up: Feedback,
    /// What it tells about what it receives.
    pub(crate) down: Feedback,
    /// In the order of the offer; sections of data channels, and those that are over, are left out.
    pub(crate) sections: Vec<AgreedSection>,
}

impl Agreed {
    /// The number of the transport-wide sequence number in what the peer sends, where it is told of arrivals.
    pub(crate) fn sequence_id(&self) -> Option<u8> {
        let id = self.extensions.id(ExtensionKind::TransportSequenceNumber);
        id.filter(|_| self.up == Feedback::Transport)
    }
}

/// How one side tells the other what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feedback {
    /// When each packet did, by transport-wide sequence numbers.
    Transport,
    /// How much may be sent (REMB).
    Estimate,
    /// By receiver reports alone.
    None,
}

impl From<Feedback> for Acks {
    fn from(feedback: Feedback) -> Self {
        match feedback {
            Feedback::Transport => Acks::Twcc,
            Feedback::Estimate => Acks::Remb,
            Feedback::None => Acks::Reports,
        }
    }
}

/// A media description both sides agree on.
#[derive(Debug)]
pub(crate) struct AgreedSection {
    pub(crate) mid: String,
    pub(crate) is_audio: bool,
    /// The peer sends.
    pub(crate) sends: bool,
    /// The most wanted first.
    pub(crate) formats: Vec<Format>,
    /// Lost packets are asked for again.
    pub(crate) nack: bool,
    /// What the peer sends, in the order of its offer; one without a rid where there is no simulcast.
    pub(crate) encodings: Vec<EncodingConfig>,
    /// What we send as, where the peer receives: SSRC and that of RTX.
    pub(crate) ssrc: Option<(u32, Option<u32>)>,
}

/// The codecs, by how an offer calls them; first the [`ENCRYPTED`] ones that can be.
pub(super) const CODECS: [(&str, Codec); 5] = [
    ("opus/48000/2", Codec::Opus),
    ("vp8/90000", Codec::Vp8),
    ("vp9/90000", Codec::Vp9),
    ("h264/90000", Codec::H264),
    ("av1/90000", Codec::Av1),
];

/// How many of [`CODECS`] can be forwarded while they are encrypted from end to end.
pub(super) const ENCRYPTED: usize = 2;

/// What we call redundant audio (RFC 2198).
const RED: &str = "red/48000/2";

pub(super) fn has_codec(section: &Section<'_>, codecs: &[(&str, Codec)]) -> bool {
    let is_known = |name: &String| codecs.iter().any(|(known, _)| known == name);
    section.kind == Kind::Application || section.is_rejected || section.codecs.iter().any(is_known)
}

pub(super) fn configuration(
    identity: &Identity,
    offer: &Offer<'_>,
    codecs: &[(&str, Codec)],
    with_red: bool,
) -> RtcConfig {
    let mut config = RtcConfig::new()
        .set_crypto_provider(identity.crypto.clone())
        .set_dtls_cert(identity.certificate.clone())
        // 1.3 lets the client choose the profile, and Chromium chooses AES-CM, four times the work of GCM per packet; with 1.2 the
        // choice is ours.
        .set_dtls_version(DtlsVersion::Dtls12)
        .set_ice_lite(true)
        .set_rtp_mode(true)
        .set_rtcp_report_interval_audio(REPORTS_INTERVAL)
        .set_rtcp_report_interval_video(REPORTS_INTERVAL)
        // It keeps no media.
        .set_send_buffer_audio(1)
        .set_send_buffer_video(1)
        .set_sctp_max_message_size(u32::try_from(MESSAGE_LEN_MAX).unwrap_or(u32::MAX))
        .set_sctp_max_buffered_amount(WAITING_BYTES_MAX)
        .set_extension_map(extensions())
        .clear_codecs();
    // The answer has the order in which they are enabled, and whoever offers knows what it likes best.
    let names: Vec<&str> = offer
        .sections
        .iter()
        .flat_map(|section| &section.codecs)
        .map(String::as_str)
        .collect();
    // Who comes with sound alone may add a picture later.
    let place = |name| names.iter().position(|offered| *offered == name);
    let mut known: Vec<(usize, Codec)> = codecs
        .iter()
        .map(|(name, codec)| (place(*name).unwrap_or(usize::MAX), *codec))
        .collect();
    known.sort_by_key(|(at, _)| *at);
    let has_sound = offer
        .sections
        .iter()
        .any(|section| section.kind == Kind::Audio);
    let with_red = with_red && (names.contains(&RED) || !has_sound);
    for (_, codec) in known {
        config = match codec {
            Codec::Opus => config.enable_opus(true, with_red),
            Codec::Vp8 => config.enable_vp8(true),
            Codec::Vp9 => config.enable_vp9(true),
            Codec::H264 => config.enable_h264(true),
            Codec::Av1 => config.enable_av1(true),
            Codec::Other => config,
        };
    }
    config
}

/// The header extensions we understand or pass on. The offer gives them their numbers.
fn extensions() -> LibraryExtensions {
    let known = [
        Extension::AudioLevel,
        Extension::AbsoluteSendTime,
        Extension::TransportSequenceNumber,
        Extension::RtpMid,
        Extension::RtpStreamId,
        Extension::RepairedRtpStreamId,
        Extension::VideoOrientation,
        Extension::PlayoutDelay,
        Extension::VideoContentType,
        Extension::AbsoluteCaptureTime,
        Extension::ColorSpace,
        Extension::with_serializer(ExtensionKind::DependencyDescriptor.uri(), Opaque),
    ];
    let mut map = LibraryExtensions::empty();
    for (id, extension) in (1..).zip(known) {
        map.set(id, extension);
    }
    map
}

/// A header extension that the library only negotiates.
#[derive(Debug)]
struct Opaque;

impl ExtensionSerializer for Opaque {
    fn write_to(&self, _: &mut [u8], _: &ExtensionValues) -> usize {
        0
    }

    fn parse_value(&self, _: &[u8], _: &mut ExtensionValues) -> bool {
        false
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }
}

/// What the library has agreed on; `None` where a section has no codec in common.
pub(super) fn agreed(rtc: &mut Rtc, offer: &Offer<'_>, answer: String) -> Option<Agreed> {
    let params: Vec<PayloadParams> = rtc.codec_config().params().to_vec();
    let mut extensions = ExtensionMap::new();
    let (mut up, mut down) = (Offers::default(), Offers::default());
    let mut sections = Vec::new();
    for section in &offer.sections {
        if section.kind == Kind::Application || section.is_rejected {
            continue;
        }
        let mid = Mid::from(section.alias.as_str());
        let media = rtc.media(mid)?;
        let (used, formats) = formats(media, &params);
        if formats.is_empty() {
            return None;
        }
        let direction = media.direction();
        let (sends, receives) = (direction.is_receiving(), direction.is_sending());
        for (id, extension) in media.remote_extmap().iter() {
            if let Some(kind) = ExtensionKind::from_uri(extension.as_uri()) {
                extensions.set(kind, id).ok(); // One number for two of them is the offer's fault.
            }
        }
        for (offers, is_used) in [(&mut up, sends), (&mut down, receives)] {
            offers.transport |= is_used && used.iter().any(|params| params.fb_transport_cc());
            offers.estimate |= is_used && used.iter().any(|params| params.fb_remb());
        }
        let ssrc = receives.then(|| {
            let mut direct = rtc.direct_api();
            let stream = direct.stream_tx_by_mid(mid, None)?;
            Some((*stream.ssrc(), stream.rtx().map(|ssrc| *ssrc)))
        });
        sections.push(AgreedSection {
            mid: section.mid.to_owned(),
            is_audio: section.kind == Kind::Audio,
            sends,
            nack: used.iter().any(|params| params.fb_nack()),
            formats,
            encodings: encodings(section),
            ssrc: ssrc.flatten(),
        });
    }
    let has_sequence = extensions
        .id(ExtensionKind::TransportSequenceNumber)
        .is_some();
    let credentials = rtc.direct_api().local_ice_credentials();
    Some(Agreed {
        answer: offer.restore(answer),
        ufrag: credentials.ufrag,
        password: credentials.pass,
        extensions,
        reduces_rtcp: offer.reduces_rtcp(),
        up: up.best(has_sequence),
        down: down.best(has_sequence),
        sections,
    })
}

/// The kinds of feedback that were agreed on for a direction.
#[derive(Default)]
struct Offers {
    transport: bool,
    estimate: bool,
}

impl Offers {
    fn best(&self, has_sequence: bool) -> Feedback {
        match self {
            Self {
                transport: true, ..
            } if has_sequence => Feedback::Transport,
            Self { estimate: true, .. } => Feedback::Estimate,
            _ => Feedback::None,
        }
    }
}

/// The formats of a section, in the order of the answer.
fn formats<'p>(
    media: &Media,
    params: &'p [PayloadParams],
) -> (Vec<&'p PayloadParams>, Vec<Format>) {
    let is_used = |params: &&PayloadParams| media.remote_pts().contains(&params.pt());
    let used: Vec<&PayloadParams> = params.iter().filter(is_used).collect();
    let formats = used.iter().filter_map(|params| format(params)).collect();
    (used, formats)
}

fn format(params: &PayloadParams) -> Option<Format> {
    use str0m::format::Codec as Library;

    let spec = params.spec();
    let (codec, variant) = match spec.codec {
        Library::Opus => (Codec::Opus, 0),
        Library::Vp8 => (Codec::Vp8, 0),
        Library::Vp9 => (Codec::Vp9, spec.format.profile_id.unwrap_or(0)),
        Library::Av1 => (Codec::Av1, spec.format.profile.unwrap_or(0).into()),
        Library::H264 => (
            Codec::H264,
            h264_variant(spec.format.profile_level_id, spec.format.packetization_mode),
        ),
        _ => return None,
    };
    Some(Format {
        codec,
        variant: u8::try_from(variant).ok()?,
        payload_type: *params.pt(),
        rtx: params.resend().map(|pt| *pt),
        red: params.red().map(|pt| *pt),
        clock_rate: spec.clock_rate.get(),
    })
}

/// A number for what of H264's parameters has to be equal at both ends (RFC 6184 §8.2.2): profile and packetization mode. The
/// constrained baseline profile has two names.
fn h264_variant(profile_level_id: Option<u32>, packetization_mode: Option<u8>) -> u32 {
    let id = profile_level_id.unwrap_or(0x42_00_0A);
    let profile = match (id >> 16, (id >> 8) & 0xFF) {
        (0x42, constraints) if constraints & 0x40 != 0 => 0,
        (0x42, _) => 1,
        (0x4D, _) => 2,
        (0x64, _) => 3,
        _ => 4,
    };
    profile * 2 + u32::from(packetization_mode.unwrap_or(0) == 1)
}

fn encodings(section: &Section<'_>) -> Vec<EncodingConfig> {
    if section.rids.is_empty() {
        let (ssrc, rtx_ssrc) = section
            .ssrcs
            .first()
            .map_or((None, None), |(ssrc, rtx)| (Some(*ssrc), *rtx));
        return vec![EncodingConfig {
            rid: None,
            ssrc,
            rtx_ssrc,
        }];
    }
    // Firefox names SSRCs too, in an order of its own: who sends what is seen in the packets.
    let of_rid = |rid: &&str| EncodingConfig {
        rid: Some((*rid).to_owned()),
        ssrc: None,
        rtx_ssrc: None,
    };
    section.rids.iter().map(of_rid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h264_formats_are_equal_where_a_decoder_takes_both() {
        let check = |one: (u32, u8), other: (u32, u8), is_equal: bool| {
            let variant = |(profile, mode)| h264_variant(Some(profile), Some(mode));
            assert_eq!(
                variant(one) == variant(other),
                is_equal,
                "{one:x?} {other:x?}"
            );
        };
        check((0x42_E0_1F, 1), (0x42_E0_34, 1), true); // The level alone.
        check((0x42_E0_1F, 1), (0x42_E0_1F, 0), false);
        check((0x42_E0_1F, 1), (0x42_00_1F, 1), false);
        check((0x4D_00_1F, 1), (0x64_00_1F, 1), false);
    }
}
