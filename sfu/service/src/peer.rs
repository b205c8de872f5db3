//! A Participant's side of the library: SDP, ICE, DTLS and SCTP, and nothing of RTP.
//!
//! ```text
//! offer ──▶ [`Peer::accept`] ──▶ answer, and what it means ([`Agreed`])
//! STUN, DTLS ──▶ [`Peer::handle_datagram`], [`Peer::poll`] ──▶ what to send, keys, data channels
//! ```
//!
//! The library is large and reads what strangers send. Every call of it is fenced: where it panics the [`Peer`] is broken, and
//! nobody else is.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::media::{MediaRefusal, SdpFault};
use sfu_core::{Acks, Codec, EncodingConfig, Format};
use sfu_rtp::extension::{ExtensionKind, ExtensionMap};
use sfu_rtp::srtp::{Inbound, Outbound};
use str0m::change::SdpOffer;
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::format::PayloadParams;
use str0m::media::{Media, Mid};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::{
    Extension, ExtensionMap as LibraryExtensions, ExtensionSerializer, ExtensionValues,
};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::data::{Lane, MESSAGE_LEN_MAX, WAITING_BYTES_MAX};
use crate::keys::{self, KeySlot};
use crate::sdp::{Kind, Offer, Section};

/// How often the library would report on streams it never sees.
const REPORTS_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The most things the library says in one go; whoever makes it say more is broken.
const OUTPUTS_MAX: usize = 1024;

/// The identity of this process toward all Participants, and the cryptography behind it.
#[derive(Clone)]
pub(crate) struct Identity {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
}

impl Identity {
    /// Makes a key and a certificate of its own, which peers know by the fingerprint in the answer.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let crypto = keys::crypto();
        let certificate = crypto.dtls_provider.generate_certificate();
        let certificate = certificate.ok_or_else(|| anyhow::anyhow!("no certificate for DTLS"))?;
        Ok(Self {
            crypto: Arc::new(crypto),
            certificate,
        })
    }
}

/// Why a Peer can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The library panicked.
    Panicked,
    /// DTLS failed.
    Dtls,
}

/// What came out of the library.
#[derive(Debug, Default)]
pub(crate) struct Polled {
    /// When it wants to be called again.
    pub(crate) deadline: Option<Instant>,
    /// DTLS is up.
    pub(crate) connected: bool,
    /// The peer has closed DTLS.
    pub(crate) closed: bool,
    /// Data channels that opened.
    pub(crate) opened: Vec<ChannelId>,
    /// What came over data channels; whether it is binary.
    pub(crate) messages: Vec<(ChannelId, bool, Vec<u8>)>,
}

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

/// The library's instance for a Participant.
pub(crate) struct Peer {
    /// Ten kilobytes that no packet of media touches: apart from what one does.
    rtc: Box<Rtc>,
    keys: KeySlot,
    codecs: &'static [(&'static str, Codec)],
    is_encrypted: bool,
    /// Of each [`Lane`], once a section of data channels was offered.
    channels: Option<[ChannelId; 2]>,
    /// Of the last offer: kind, name, and whether it was over.
    sections: Vec<(Kind, Mid, bool)>,
    is_broken: bool,
}

impl Peer {
    /// A Peer that can be reached at `addresses`, with the codecs of `offer` in its order, then with those a later offer may bring;
    /// where media is `encrypted` from end to end, with those alone of which enough stays in clear.
    pub(crate) fn new(
        now: Instant,
        identity: &Identity,
        addresses: &[(Protocol, SocketAddr)],
        offer: &Offer<'_>,
        encrypted: bool,
    ) -> Result<Self, Broken> {
        let keys = KeySlot::default();
        let codecs = match encrypted {
            true => &CODECS[..ENCRYPTED],
            false => &CODECS[..],
        };
        // Redundant audio has headers of its own inside of what is encrypted.
        let with_red = !encrypted;
        let rtc = fenced(|| {
            let config = configuration(identity, offer, codecs, with_red);
            let mut rtc = keys::with_slot(&keys, || config.build(now));
            for (protocol, address) in addresses {
                if let Some(candidate) = candidate(*protocol, *address) {
                    rtc.add_local_candidate(candidate);
                }
            }
            rtc
        })?;
        Ok(Self {
            rtc: Box::new(rtc),
            keys,
            codecs,
            is_encrypted: encrypted,
            channels: None,
            sections: Vec::new(),
            is_broken: false,
        })
    }

    /// Accepts an offer; sections for which `refuses` holds become inactive.
    ///
    /// # Errors
    ///
    /// What is wrong with the offer, or `Err(Err(_))` where the Peer is broken by it.
    pub(crate) fn accept(
        &mut self,
        offer: &Offer<'_>,
        refuses: impl Fn(&Section<'_>) -> bool,
    ) -> Result<Agreed, Result<MediaRefusal, Broken>> {
        if offer
            .sections
            .iter()
            .any(|section| !has_codec(section, self.codecs))
        {
            return Err(Ok(MediaRefusal::NoCodec));
        }
        if !self.is_followed_by(offer) {
            return Err(Ok(MediaRefusal::BadSdp(SdpFault::Unreadable)));
        }
        let text = offer.text(refuses);
        let accepted = self.call(|rtc| {
            let offer_read = SdpOffer::from_sdp_string(&text).ok()?;
            let answer = rtc.sdp_api().accept_offer(offer_read);
            let answer = answer
                .inspect_err(|error| tracing::debug!(%error, "Offer not accepted"))
                .ok()?;
            Some(agreed(rtc, offer, answer.to_sdp_string()))
        });
        let has_channels = offer
            .sections
            .iter()
            .any(|section| section.kind == Kind::Application);
        match accepted {
            Ok(Some(Some(agreed))) => {
                let place = |section: &Section<'_>| {
                    let mid = Mid::from(section.alias.as_str());
                    (section.kind, mid, section.is_rejected)
                };
                self.sections = offer.sections.iter().map(place).collect();
                // What goes through here can be read here: there is no such way where all is encrypted.
                if has_channels && self.channels.is_none() && !self.is_encrypted {
                    self.channels = Some(self.call(open_lanes).map_err(Err)?);
                }
                Ok(agreed)
            }
            Ok(Some(None)) => Err(Ok(MediaRefusal::NoCodec)),
            Ok(None) => Err(Ok(MediaRefusal::BadSdp(SdpFault::Unreadable))),
            Err(broken) => Err(Err(broken)),
        }
    }

    /// Whether each section of the last offer is there, at its place; another may have that of one that was over (RFC 8829 §5.2.2).
    fn is_followed_by(&self, offer: &Offer<'_>) -> bool {
        let goes_on = |((kind, mid, is_over), section): (&(Kind, Mid, bool), &Section<'_>)| {
            *is_over || (*kind == section.kind && *mid == Mid::from(section.alias.as_str()))
        };
        offer.sections.len() >= self.sections.len()
            && self.sections.iter().zip(&offer.sections).all(goes_on)
    }

    /// Takes in STUN that is signed, or DTLS.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
    ) -> Result<(), Broken> {
        let handled = self.call(|rtc| {
            let Some(read) = datagram.read() else {
                return Ok(()); // Not what its first byte says.
            };
            rtc.handle_input(Input::Receive(now, read))
        })?;
        handled.map_err(|error| {
            tracing::debug!(%error, "Datagram broke a peer");
            Broken::Dtls
        })
    }

    /// Lets its time pass.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), Broken> {
        let handled = self.call(|rtc| rtc.handle_input(Input::Timeout(now)))?;
        handled.map_err(|error| {
            tracing::debug!(%error, "Time broke a peer");
            Broken::Dtls
        })
    }

    /// Takes out all there is; `send` gets what is to be sent, which is never media.
    pub(crate) fn poll(&mut self, mut send: impl FnMut(&Transmit)) -> Result<Polled, Broken> {
        let mut polled = Polled::default();
        for _ in 0..OUTPUTS_MAX {
            match self.call(Rtc::poll_output)? {
                Ok(Output::Timeout(deadline)) => {
                    polled.deadline = Some(deadline);
                    return Ok(polled);
                }
                Ok(Output::Transmit(transmit)) => {
                    if !keys::is_media(&transmit.contents) {
                        send(&transmit);
                    }
                }
                Ok(Output::Event(Event::Connected)) => polled.connected = true,
                Ok(Output::Event(Event::Closed)) => polled.closed = true,
                Ok(Output::Event(Event::ChannelOpen(id, _))) => polled.opened.push(id),
                Ok(Output::Event(Event::ChannelData(data))) => {
                    polled.messages.push((data.id, data.binary, data.data));
                }
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "Peer is broken");
                    return Err(Broken::Dtls);
                }
            }
        }
        tracing::warn!("The library says ever more, peer given up");
        Err(Broken::Panicked)
    }

    /// Which lane a data channel is; `None` of one that is none of ours.
    pub(crate) fn lane(&self, channel: ChannelId) -> Option<Lane> {
        let channels = self.channels?;
        let of_lane = |(_, id): &(Lane, ChannelId)| *id == channel;
        let (lane, _) = Lane::ALL.into_iter().zip(channels).find(of_lane)?;
        Some(lane)
    }

    /// Puts a message into the queue of a lane, if it has room; what is to be sent for it comes by [`poll`](Self::poll).
    pub(crate) fn write(&mut self, lane: Lane, bytes: &[u8]) -> Result<Written, Broken> {
        self.write_within(lane, bytes, lane.waiting_bytes_max())
    }

    /// The same on the reliable lane, also behind what fills it.
    pub(crate) fn write_last(&mut self, bytes: &[u8]) -> Result<Written, Broken> {
        self.write_within(Lane::Reliable, bytes, WAITING_BYTES_MAX)
    }

    fn write_within(
        &mut self,
        lane: Lane,
        bytes: &[u8],
        waiting_max: usize,
    ) -> Result<Written, Broken> {
        let Some(channels) = self.channels else {
            return Ok(Written::Absent);
        };
        let id = channels[usize::from(lane.stream())];
        self.call(|rtc| {
            let Some(mut channel) = rtc.channel(id) else {
                return Written::Absent;
            };
            if channel.buffered_amount() + bytes.len() > waiting_max {
                return Written::Full;
            }
            match channel.write(true, bytes) {
                Ok(true) => Written::Taken,
                Ok(false) => Written::Full,
                Err(error) => {
                    tracing::debug!(%error, "Message not taken");
                    Written::Absent
                }
            }
        })
    }

    /// Closes a data channel that is none of ours.
    pub(crate) fn close_channel(&mut self, channel: ChannelId) -> Result<(), Broken> {
        self.call(|rtc| rtc.direct_api().close_data_channel(channel))
    }

    /// The keys, once after DTLS is up.
    pub(crate) fn take_keys(&self) -> Option<(Inbound, Outbound)> {
        self.keys.take()
    }

    /// Ends DTLS; what is to be sent for it comes by [`poll`](Self::poll).
    pub(crate) fn close(&mut self) -> Result<(), Broken> {
        self.call(|rtc| rtc.close().ok()).map(|_| ())
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Rtc) -> T) -> Result<T, Broken> {
        if self.is_broken {
            return Err(Broken::Panicked); // Its state may be anything.
        }
        let rtc = &mut self.rtc;
        let called = fenced(|| call(rtc));
        self.is_broken = called.is_err();
        called
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It waits to be sent.
    Taken,
    /// Too much waits already.
    Full,
    /// There is no such channel, or not yet.
    Absent,
}

/// The two lanes, which both sides know without a word.
fn open_lanes(rtc: &mut Rtc) -> [ChannelId; 2] {
    Lane::ALL.map(|lane| {
        let reliability = match lane {
            Lane::Reliable => Reliability::Reliable,
            Lane::Lossy => Reliability::MaxRetransmits { retransmits: 0 },
        };
        rtc.direct_api().create_data_channel(ChannelConfig {
            label: lane.label().to_owned(),
            ordered: lane == Lane::Reliable,
            reliability,
            negotiated: Some(lane.stream()),
            protocol: String::new(),
        })
    })
}

/// A datagram, and the two ends of its way; `to` is one of the Peer's addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Datagram<'a> {
    fn read(&self) -> Option<Receive<'a>> {
        Receive::new(self.protocol, self.from, self.to, self.bytes).ok()
    }
}

fn fenced<T>(call: impl FnOnce() -> T) -> Result<T, Broken> {
    // Whatever the call leaves half done belongs to the Peer, which is never used again.
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Broken::Panicked)
}

fn candidate(protocol: Protocol, address: SocketAddr) -> Option<Candidate> {
    let built = match protocol {
        Protocol::Udp => Candidate::builder().udp().host(address).build(),
        _ => Candidate::builder()
            .tcp()
            .host(address)
            .tcptype(str0m::net::TcpType::Passive)
            .build(),
    };
    built
        .inspect_err(|error| tracing::debug!(%error, %address, "No candidate"))
        .ok()
}

/// The codecs, by how an offer calls them; first the [`ENCRYPTED`] ones that can be.
const CODECS: [(&str, Codec); 5] = [
    ("opus/48000/2", Codec::Opus),
    ("vp8/90000", Codec::Vp8),
    ("vp9/90000", Codec::Vp9),
    ("h264/90000", Codec::H264),
    ("av1/90000", Codec::Av1),
];

/// How many of [`CODECS`] can be forwarded while they are encrypted from end to end.
const ENCRYPTED: usize = 2;

/// What we call redundant audio (RFC 2198).
const RED: &str = "red/48000/2";

fn has_codec(section: &Section<'_>, codecs: &[(&str, Codec)]) -> bool {
    let is_known = |name: &String| codecs.iter().any(|(known, _)| known == name);
    section.kind == Kind::Application || section.is_rejected || section.codecs.iter().any(is_known)
}

fn configuration(
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
fn agreed(rtc: &mut Rtc, offer: &Offer<'_>, answer: String) -> Option<Agreed> {
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

    const OFFER: &str = include_str!("../tests/chromium.sdp");

    fn peer(now: Instant, offer: &Offer<'_>) -> Peer {
        peer_of(now, offer, false)
    }

    fn peer_of(now: Instant, offer: &Offer<'_>, encrypted: bool) -> Peer {
        let address = "192.0.2.1:10000".parse().unwrap();
        Peer::new(
            now,
            &Identity::new().unwrap(),
            &[(Protocol::Udp, address)],
            offer,
            encrypted,
        )
        .unwrap()
    }

    #[test]
    fn a_panic_of_the_library_breaks_one_peer() {
        let now = Instant::now();
        let offer = Offer::read(OFFER).unwrap();
        let mut broken = peer(now, &offer);
        let mut other = peer(now, &offer);
        let panicked = broken.call(|_| -> () { panic!("on purpose") });
        assert_eq!(panicked, Err(Broken::Panicked));
        assert_eq!(
            broken.handle_timeout(now),
            Err(Broken::Panicked),
            "never used again"
        );
        assert_eq!(other.handle_timeout(now), Ok(()));
    }

    #[test]
    fn a_browser_is_answered_with_all_it_needs() {
        let offer = Offer::read(OFFER).unwrap();
        let agreed = peer(Instant::now(), &offer)
            .accept(&offer, |_| false)
            .unwrap();
        let sections: Vec<&str> = agreed.answer.split("\r\nm=").collect();
        assert!(sections[0].contains("a=ice-lite"), "{}", sections[0]);
        assert!(agreed.answer.contains("192.0.2.1 10000 typ host"));
        let camera = sections
            .iter()
            .find(|section| section.contains("a=mid:1\r\n"))
            .unwrap();
        for line in [
            "a=recvonly",
            "a=simulcast:recv q;h;f",
            "a=rid:q recv",
            "a=rid:f recv",
            "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            "transport-wide-cc-extensions-01",
            "dependency-descriptor",
            "nack pli",
        ] {
            assert!(camera.contains(line), "{line} is missing in {camera}");
        }
        assert_eq!(
            (agreed.up, agreed.down),
            (Feedback::Transport, Feedback::Transport)
        );
        let camera = &agreed.sections[1];
        assert!(camera.sends && camera.ssrc.is_none() && camera.nack);
        let rids: Vec<Option<&str>> = camera
            .encodings
            .iter()
            .map(|encoding| encoding.rid.as_deref())
            .collect();
        assert_eq!(rids, [Some("q"), Some("h"), Some("f")]);
        let codecs: Vec<Codec> = camera.formats.iter().map(|format| format.codec).collect();
        assert_eq!(codecs[0], Codec::Vp8, "in the order of the offer");
        assert!(camera.formats.iter().all(|format| format.rtx.is_some()));
        let slots: Vec<&AgreedSection> = agreed
            .sections
            .iter()
            .filter(|section| section.ssrc.is_some())
            .collect();
        assert_eq!(slots.len(), 2);
        assert!(slots.iter().all(|slot| !slot.sends));
    }

    #[test]
    fn who_came_with_sound_or_pictures_alone_may_add_the_other() {
        let parts: Vec<&str> = OFFER.split("m=").collect();
        let (session, sections) = parts.split_first().unwrap();
        let of = |kind: &str| {
            let chosen = sections.iter().filter(|section| section.starts_with(kind));
            chosen.copied().collect::<Vec<_>>()
        };
        let text = |sections: &[&str]| {
            let mids: Vec<&str> = sections
                .iter()
                .filter_map(|section| section.split("a=mid:").nth(1)?.lines().next())
                .collect();
            let session = session.replace("BUNDLE 0 1 2 3", &format!("BUNDLE {}", mids.join(" ")));
            format!("{session}m={}", sections.join("m="))
        };
        let (sound, pictures) = (of("audio"), of("video"));
        for (first, later) in [(&sound, &pictures), (&pictures, &sound)] {
            let whole = [first.as_slice(), later].concat();
            let (first, whole) = (text(first), text(&whole));
            let first = Offer::read(&first).unwrap();
            let mut peer = peer(Instant::now(), &first);
            peer.accept(&first, |_| false).unwrap();
            let agreed = peer
                .accept(&Offer::read(&whole).unwrap(), |_| false)
                .unwrap();
            assert_eq!(agreed.sections.len(), 4);
            for section in &agreed.sections {
                let payload_types = section.formats.iter().map(|format| format.payload_type);
                let offered: &[u8] = match section.is_audio {
                    true => &[111],
                    false => &[96, 98, 102, 108, 116, 41, 45],
                };
                assert!(
                    payload_types.clone().all(|one| offered.contains(&one)),
                    "{:?}",
                    section.formats
                );
                let red = section.formats[0].red;
                assert_eq!(red, section.is_audio.then_some(63));
            }
            let camera = agreed.sections.iter().find(|section| section.mid == "1");
            assert_eq!(camera.unwrap().formats[0].codec, Codec::Vp8);
        }
    }

    #[test]
    fn where_media_is_encrypted_only_vp8_and_opus_are_agreed_on() {
        let offer = Offer::read(OFFER).unwrap();
        let agreed = peer_of(Instant::now(), &offer, true)
            .accept(&offer, |_| false)
            .unwrap();
        assert!(OFFER.contains("red/48000/2") && OFFER.contains("VP9/90000"));
        let name = |line: &'_ str| line.split(' ').nth(1).map(str::to_owned);
        let codecs: std::collections::BTreeSet<String> = agreed
            .answer
            .lines()
            .filter(|line| line.starts_with("a=rtpmap:"))
            .filter_map(name)
            .collect();
        assert_eq!(
            codecs.iter().map(String::as_str).collect::<Vec<_>>(),
            ["VP8/90000", "opus/48000/2", "rtx/90000"]
        );
        let formats = agreed.sections.iter().flat_map(|section| &section.formats);
        for format in formats {
            assert!(format.red.is_none(), "{format:?}");
            assert!(
                matches!(format.codec, Codec::Opus | Codec::Vp8),
                "{format:?}"
            );
        }

        // Nothing else is taken, not even where it comes alone.
        let vp9 = OFFER.replace("VP8/90000", "VP7/90000");
        let offer = Offer::read(&vp9).unwrap();
        let refused = peer_of(Instant::now(), &offer, true).accept(&offer, |_| false);
        assert_eq!(refused.err(), Some(Ok(MediaRefusal::NoCodec)));
    }

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
