//! What a client says it can do: codecs, header extensions, feedback, and the certificate it does it with.

use std::sync::OnceLock;
use std::time::Duration;

use rtc::crypto;
use rtc::interceptor::{
    NackGeneratorBuilder, NackResponderBuilder, ReceiverReportBuilder, Registry,
    SenderReportBuilder, Slot, TwccReceiverBuilder, TwccSenderBuilder,
};
use rtc::peer_connection::certificate::RTCCertificate;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_OPUS, MIME_TYPE_RTX, MIME_TYPE_VP8, MediaEngine,
};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use sfu_rtp::extension::ExtensionKind;

use super::requests::PictureRequests;

/// Payload types, as Chromium has them.
pub(super) const OPUS: u8 = 111;
pub(super) const VP8: u8 = 96;
const VP8_RTX: u8 = 97;

/// How often a lost packet is asked for: about as often as browsers do.
const NACK_INTERVAL: Duration = Duration::from_millis(20);

/// Codecs, header extensions and feedback, as a browser offers them.
pub(super) fn abilities() -> anyhow::Result<(MediaEngine, Registry)> {
    let mut engine = MediaEngine::default();
    let codec = |rtp_codec, payload_type| RTCRtpCodecParameters {
        rtp_codec,
        payload_type,
    };
    engine.register_codec(codec(opus(), OPUS), RtpCodecKind::Audio)?;
    engine.register_codec(codec(vp8(), VP8), RtpCodecKind::Video)?;
    let rtx = RTCRtpCodec {
        mime_type: MIME_TYPE_RTX.to_owned(),
        sdp_fmtp_line: format!("apt={VP8}"),
        rtcp_feedback: Vec::new(),
        ..vp8()
    };
    engine.register_codec(codec(rtx, VP8_RTX), RtpCodecKind::Video)?;

    let both = [ExtensionKind::Mid, ExtensionKind::TransportSequenceNumber];
    let audio = [ExtensionKind::AudioLevel];
    let video = [ExtensionKind::Rid, ExtensionKind::RepairedRid];
    for (kind, extensions) in [
        (RtpCodecKind::Audio, &both[..]),
        (RtpCodecKind::Audio, &audio),
        (RtpCodecKind::Video, &both),
        (RtpCodecKind::Video, &video),
    ] {
        for extension in extensions {
            let capability = RTCRtpHeaderExtensionCapability {
                uri: extension.uri().to_owned(),
            };
            engine.register_header_extension(capability, kind, None)?;
        }
    }
    let registry = Registry::new()
        .with(Slot::NackResponder, NackResponderBuilder::new().build())
        .with(
            Slot::NackGenerator,
            NackGeneratorBuilder::new()
                .with_interval(NACK_INTERVAL)
                .build(),
        )
        .with(Slot::TwccSender, TwccSenderBuilder::new().build())
        .with(Slot::TwccReceiver, TwccReceiverBuilder::new().build())
        .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build())
        .with(Slot::SenderReport, SenderReportBuilder::new().build())
        .with(Slot::Custom(usize::MAX), PictureRequests::default());
    Ok((engine, registry))
}

pub(super) fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: vec![feedback("transport-cc", "")],
    }
}

pub(super) fn vp8() -> RTCRtpCodec {
    let feedbacks = [
        ("transport-cc", ""),
        ("ccm", "fir"),
        ("nack", ""),
        ("nack", "pli"),
    ];
    RTCRtpCodec {
        mime_type: MIME_TYPE_VP8.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: feedbacks
            .iter()
            .map(|(typ, parameter)| feedback(typ, parameter))
            .collect(),
    }
}

fn feedback(typ: &str, parameter: &str) -> RTCPFeedback {
    RTCPFeedback {
        typ: typ.to_owned(),
        parameter: parameter.to_owned(),
    }
}

/// One certificate for all clients of this process: making one costs more than the rest of a handshake.
pub(super) fn certificate() -> anyhow::Result<RTCCertificate> {
    static ONE: OnceLock<RTCCertificate> = OnceLock::new();
    if let Some(certificate) = ONE.get() {
        return Ok(certificate.clone());
    }
    let provider = crypto::default_provider()?;
    let made = RTCCertificate::generate(
        provider.crypto(),
        crypto::SignatureScheme::EcdsaP256Sha256,
        rcgen::CertificateParams::default(),
    )?;
    Ok(ONE.get_or_init(|| made).clone())
}
