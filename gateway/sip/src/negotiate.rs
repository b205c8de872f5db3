//! Offers and answers for the sound of a call (RFC 3264).
//!
//! ```text
//!  we call    offer() ─▶ INVITE,  200 ─▶ accept() ─▶ Agreed
//!  we're called          INVITE ─▶ answer() ─▶ 200, Agreed
//! ```
//!
//! One audio section is used, the first we can take; all other sections of an offer are refused by a port of zero. What both sides
//! send is an [`Agreed`]; there is no state in here.

use std::net::{IpAddr, SocketAddr};

use crate::Host;
use crate::sdes::{Crypto, MasterKey, Suite};
use crate::sdp::{Attributes, Direction, Media, Origin, Session};
use crate::text;

/// How sound is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 64 kbit/s.
    G722,
    /// Opus.
    Opus,
}

impl Codec {
    const ALL: [Self; 4] = [Self::Pcmu, Self::Pcma, Self::G722, Self::Opus];

    /// The payload type that is offered: the static one (RFC 3551 §6), or one of those free for use.
    #[must_use]
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
            Self::G722 => 9,
            Self::Opus => 111,
        }
    }

    /// The value of `rtpmap`. The clock of G.722 is 8000, an old mistake that stands (RFC 3551 §4.5.2).
    #[must_use]
    pub fn rtpmap(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU/8000",
            Self::Pcma => "PCMA/8000",
            Self::G722 => "G722/8000",
            Self::Opus => "opus/48000/2",
        }
    }

    /// Ticks of an RTP timestamp in a second.
    #[must_use]
    pub fn clock_rate(self) -> u32 {
        if self == Self::Opus { 48_000 } else { 8_000 }
    }

    /// Samples in a second of the sound it carries here.
    #[must_use]
    pub fn sample_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8_000,
            Self::G722 => 16_000,
            Self::Opus => 48_000,
        }
    }
}

/// How a Leg's SRTP is wanted. Keys by DTLS are taken wherever SRTP is, if [`Local`] has a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// Plain RTP is offered; SRTP is taken where it is offered to us.
    #[default]
    Accept,
    /// Nothing but SRTP; keys of SDES are offered.
    Require,
    /// Nothing but SRTP with keys by DTLS (RFC 5763).
    Dtls,
    /// Nothing but plain RTP.
    Off,
}

/// What we can do on a Leg, and what we like best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The codecs, the best first.
    pub codecs: Vec<Codec>,
    /// DTMF as events (RFC 4733).
    pub dtmf: bool,
    /// Comfort noise (RFC 3389), beside codecs of 8 kHz.
    pub comfort_noise: bool,
    /// SRTP.
    pub security: Security,
}

/// Our end of the media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The address to write down: the one the other side reaches.
    pub address: IpAddr,
    /// The port for RTP; RTCP is one above, or the same.
    pub port: u16,
    /// The number of our session; it stays for the life of a dialog.
    pub session: u64,
    /// One more with each description that differs (RFC 3264 §8).
    pub version: u64,
    /// Random bytes for SDES keys, at least [`KEY_BYTES_LEN`]; fresh for each description with other keys.
    pub key_bytes: MasterKeyBytes,
    /// `sha-256 AB:CD:…` of our certificate, where DTLS may give the keys.
    pub fingerprint: Option<String>,
    /// Whether we began the handshake of the DTLS session that there is, which later descriptions keep (RFC 5763 §6.6).
    pub active: Option<bool>,
}

/// How many random bytes SDES keys are made of.
pub const KEY_BYTES_LEN: usize = 44;

/// The bytes SDES keys are made of.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKeyBytes(pub zeroize::Zeroizing<[u8; KEY_BYTES_LEN]>);

impl std::fmt::Debug for MasterKeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKeyBytes")
    }
}

impl MasterKeyBytes {
    fn key(&self, suite: Suite) -> Option<MasterKey> {
        MasterKey::new(suite, &self.0[..suite.key_len()])
    }
}

/// What both sides do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Where our packets go.
    pub remote: SocketAddr,
    /// Where our RTCP goes; the same as `remote` where both share a port (RFC 5761).
    pub remote_rtcp: SocketAddr,
    /// The codec we send. The other side may send any of [`Agreed::receiving`].
    pub codec: Codec,
    /// The payload type we send it with.
    pub payload_type: u8,
    /// What may come, by payload type.
    pub receiving: Vec<(u8, Codec)>,
    /// DTMF events: the payload type we send with, and the one that comes.
    pub dtmf: Option<(u8, u8)>,
    /// Comfort noise may be sent and come, as payload type 13.
    pub comfort_noise: bool,
    /// Who sends, as we see it.
    pub direction: Direction,
    /// How much sound a packet of ours holds, in milliseconds: 10 to 60.
    pub packet_ms: u32,
    /// SRTP.
    pub keys: Keys,
}

/// How packets are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// Not at all.
    None,
    /// By keys from the descriptions (RFC 4568).
    Sdes {
        /// The suite.
        suite: Suite,
        /// For what we send.
        local: MasterKey,
        /// For what comes.
        remote: MasterKey,
    },
    /// By keys from a DTLS handshake (RFC 5764).
    Dtls {
        /// `sha-256 AB:CD:…` of their certificate.
        fingerprint: String,
        /// Whether we begin the handshake.
        active: bool,
    },
}

/// Why two sides can't agree. A request with such an offer is answered with 488 (RFC 3261 §21.4.26).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Disagreement {
    /// No section of sound, or only refused ones.
    #[error("no audio")]
    NoAudio,
    /// No codec in common.
    #[error("no codec in common")]
    NoCodec,
    /// One wants SRTP and the other can't, or no suite or fingerprint fits.
    #[error("no common way to protect the media")]
    Security,
    /// The media goes to no address that packets can be sent to: a name, a group, nothing.
    #[error("no address for the media")]
    Address,
    /// An answer that does not fit its offer.
    #[error("the answer does not fit the offer")]
    Mismatch,
}

const DTMF_PAYLOAD_TYPE: u8 = 101;
/// For Opus, whose clock events share (RFC 4733 §2.1, RFC 7587 §7).
const DTMF_48K_PAYLOAD_TYPE: u8 = 110;
const COMFORT_NOISE_PAYLOAD_TYPE: u8 = 13;
const PACKET_MS: u32 = 20;

/// An offer with all we can. `direction` is ours: `SendOnly` or `Inactive` holds.
#[must_use]
pub fn offer(capabilities: &Capabilities, local: &Local, direction: Direction) -> Session {
    let mut audio = Section::new(local.port);
    for codec in &capabilities.codecs {
        audio.codec(codec.payload_type(), *codec);
    }
    let clocks = |rate| {
        capabilities
            .codecs
            .iter()
            .any(|codec| codec.clock_rate() == rate)
    };
    if capabilities.comfort_noise && clocks(8_000) {
        audio.format(COMFORT_NOISE_PAYLOAD_TYPE, "CN/8000");
    }
    if capabilities.dtmf {
        for (rate, payload_type) in [(8_000, DTMF_PAYLOAD_TYPE), (48_000, DTMF_48K_PAYLOAD_TYPE)] {
            if clocks(rate) {
                audio.dtmf(payload_type, rate);
            }
        }
    }
    let protocol = match (capabilities.security, &local.fingerprint) {
        (Security::Dtls, fingerprint) => {
            if let Some(fingerprint) = fingerprint {
                audio.push("fingerprint", fingerprint);
            }
            audio.push("setup", "actpass");
            "UDP/TLS/RTP/SAVP"
        }
        (Security::Require, _) => {
            for (tag, suite) in (1..).zip(Suite::ALL.into_iter().rev()) {
                if let Some(key) = local.key_bytes.key(suite) {
                    audio.push("crypto", &Crypto { tag, suite, key }.to_value());
                }
            }
            "RTP/SAVP"
        }
        _ => "RTP/AVP",
    };
    audio.attributes.push("rtcp-mux", None);
    describe(local, vec![audio.finish(protocol, direction)])
}

/// Answers an offer. `direction` is the most we want; what comes out is the most that both do.
///
/// # Errors
///
/// [`Disagreement`]: 488.
pub fn answer(
    offer: &Session,
    capabilities: &Capabilities,
    local: &Local,
    direction: Direction,
) -> Result<(Session, Agreed), Disagreement> {
    let mut failure = Disagreement::NoAudio;
    let taken = offer
        .media
        .iter()
        .enumerate()
        .filter(|(_, media)| media.kind == "audio" && media.port != 0)
        .find_map(|(at, media)| {
            match answer_section(offer, media, capabilities, local, direction) {
                Ok(answered) => Some((at, answered)),
                Err(error) => {
                    failure = error;
                    None
                }
            }
        });
    let (at, (section, agreed)) = taken.ok_or(failure)?;
    let mut media: Vec<Media> = offer.media.iter().map(refused).collect();
    media[at] = section;
    Ok((describe(local, media), agreed))
}

/// Takes the answer to `offer`, which [`offer`] made with the same `capabilities`.
///
/// # Errors
///
/// [`Disagreement`]: the call can't go on.
pub fn accept(
    offer: &Session,
    answer: &Session,
    capabilities: &Capabilities,
) -> Result<Agreed, Disagreement> {
    let (ours, theirs) = offer
        .media
        .first()
        .zip(answer.media.first())
        .ok_or(Disagreement::Mismatch)?;
    if theirs.kind != ours.kind || answer.media.len() != offer.media.len() {
        return Err(Disagreement::Mismatch);
    }
    if theirs.port == 0 {
        return Err(Disagreement::NoAudio);
    }
    if is_secure(theirs) != is_secure(ours) {
        return Err(Disagreement::Security);
    }
    let formats = Formats::read(theirs, capabilities);
    let (payload_type, codec) = formats.first_codec().ok_or(Disagreement::NoCodec)?;
    let keys = accepted_keys(ours, theirs, answer)?;
    let receiving = capabilities
        .codecs
        .iter()
        .map(|codec| (codec.payload_type(), *codec))
        .collect();
    let our_dtmf = if codec.clock_rate() == 8_000 {
        DTMF_PAYLOAD_TYPE
    } else {
        DTMF_48K_PAYLOAD_TYPE
    };
    let direction = offer
        .direction_of(ours)
        .and(answer.direction_of(theirs).reversed());
    Agreed::new(
        answer,
        theirs,
        (payload_type, codec),
        receiving,
        &formats,
        our_dtmf,
        direction,
        keys,
    )
}

fn answer_section(
    offer: &Session,
    media: &Media,
    capabilities: &Capabilities,
    local: &Local,
    direction: Direction,
) -> Result<(Media, Agreed), Disagreement> {
    let formats = Formats::read(media, capabilities);
    // The offerer lists what it likes best first; ours decides, for we pay for the transcoding.
    let best = capabilities
        .codecs
        .iter()
        .find_map(|wanted| formats.codecs.iter().find(|(_, codec)| codec == wanted));
    let &(payload_type, codec) = best.ok_or(Disagreement::NoCodec)?;

    let mut section = Section::new(local.port);
    section.codec(payload_type, codec);
    if formats.comfort_noise && codec.clock_rate() == 8_000 {
        section.format(COMFORT_NOISE_PAYLOAD_TYPE, "CN/8000");
    }
    let dtmf = formats.dtmf_for(codec);
    if let Some(dtmf) = dtmf {
        section.dtmf(dtmf, codec.clock_rate());
    }
    let keys = answered_keys(offer, media, capabilities, local, &mut section)?;
    if media.attributes.get("rtcp-mux").is_some() {
        section.attributes.push("rtcp-mux", None);
    }
    let direction = direction.and(offer.direction_of(media).reversed());
    let receiving = vec![(payload_type, codec)];
    let agreed = Agreed::new(
        offer,
        media,
        (payload_type, codec),
        receiving,
        &formats,
        dtmf.unwrap_or(DTMF_PAYLOAD_TYPE),
        direction,
        keys,
    )?;
    Ok((section.finish(&media.protocol, direction), agreed))
}

impl Agreed {
    #[expect(
        clippy::too_many_arguments,
        reason = "called twice, with what is known by then"
    )]
    fn new(
        session: &Session,
        theirs: &Media,
        (payload_type, codec): (u8, Codec),
        receiving: Vec<(u8, Codec)>,
        formats: &Formats,
        our_dtmf: u8,
        direction: Direction,
        keys: Keys,
    ) -> Result<Self, Disagreement> {
        let address = session
            .connection_of(theirs)
            .and_then(Host::ip)
            .ok_or(Disagreement::Address)?;
        // Zeros hold: nothing is sent there.
        if address.is_multicast() || (address.is_unspecified() && direction.sends()) {
            return Err(Disagreement::Address);
        }
        let remote = SocketAddr::new(address, theirs.port);
        let rtcp_port = theirs.attributes.get("rtcp").and_then(|value| {
            let port = value.split(' ').next().unwrap_or_default();
            text::decimal(port, 65_535).and_then(|port| u16::try_from(port).ok())
        });
        let muxed = theirs.attributes.get("rtcp-mux").is_some();
        let rtcp_port = if muxed {
            theirs.port
        } else {
            rtcp_port.unwrap_or(theirs.port.saturating_add(1))
        };
        let packet_ms = theirs
            .attributes
            .get("ptime")
            .and_then(|ms| text::decimal(text::trim(ms), 1_000));
        let packet_ms = packet_ms
            .and_then(|ms| u32::try_from(ms).ok())
            .filter(|ms| (10..=60).contains(ms) && ms % 10 == 0);
        Ok(Self {
            remote,
            remote_rtcp: SocketAddr::new(address, rtcp_port),
            codec,
            payload_type,
            receiving,
            dtmf: formats.dtmf_for(codec).map(|theirs| (theirs, our_dtmf)),
            comfort_noise: formats.comfort_noise && codec.clock_rate() == 8_000,
            direction,
            packet_ms: packet_ms.unwrap_or(PACKET_MS),
            keys,
        })
    }
}

/// What a section lists of that which we can.
struct Formats {
    /// In the order of the section.
    codecs: Vec<(u8, Codec)>,
    /// The payload types of DTMF, with their clocks.
    dtmf: Vec<(u8, u32)>,
    comfort_noise: bool,
}

impl Formats {
    fn read(media: &Media, capabilities: &Capabilities) -> Self {
        let mut formats = Self {
            codecs: Vec::new(),
            dtmf: Vec::new(),
            comfort_noise: false,
        };
        for format in &media.formats {
            let Some(payload_type) =
                text::decimal(format, 127).and_then(|number| u8::try_from(number).ok())
            else {
                continue;
            };
            let mapped = media
                .attributes
                .of_format("rtpmap", format)
                .map(str::to_ascii_lowercase);
            match mapped.as_deref() {
                Some("telephone-event/8000") if capabilities.dtmf => {
                    formats.dtmf.push((payload_type, 8_000));
                }
                Some("telephone-event/48000") if capabilities.dtmf => {
                    formats.dtmf.push((payload_type, 48_000));
                }
                Some("cn/8000") => formats.comfort_noise |= capabilities.comfort_noise,
                None if payload_type == COMFORT_NOISE_PAYLOAD_TYPE => {
                    formats.comfort_noise |= capabilities.comfort_noise;
                }
                mapped => {
                    let is_named = |codec: &Codec| match mapped {
                        Some(name) => name
                            .strip_suffix("/1")
                            .unwrap_or(name)
                            .eq_ignore_ascii_case(codec.rtpmap()),
                        None => *codec != Codec::Opus && codec.payload_type() == payload_type,
                    };
                    let codec = Codec::ALL.into_iter().find(is_named);
                    let codec = codec.filter(|codec| capabilities.codecs.contains(codec));
                    formats
                        .codecs
                        .extend(codec.map(|codec| (payload_type, codec)));
                }
            }
        }
        formats
    }

    fn first_codec(&self) -> Option<(u8, Codec)> {
        self.codecs.first().copied()
    }

    /// Events have the clock of the sound they stand in for (RFC 4733 §2.1).
    fn dtmf_for(&self, codec: Codec) -> Option<u8> {
        let fits = |(_, rate): &&(u8, u32)| *rate == codec.clock_rate();
        self.dtmf
            .iter()
            .find(fits)
            .map(|(payload_type, _)| *payload_type)
    }
}

/// The keys of an answer we make; its attributes go into `section`.
fn answered_keys(
    offer: &Session,
    media: &Media,
    capabilities: &Capabilities,
    local: &Local,
    section: &mut Section,
) -> Result<Keys, Disagreement> {
    let secure = is_secure(media);
    match (capabilities.security, secure) {
        (Security::Off, true) | (Security::Require | Security::Dtls, false) => {
            return Err(Disagreement::Security);
        }
        (_, false) if !is_plain(media) => return Err(Disagreement::NoAudio),
        (_, false) => return Ok(Keys::None),
        (_, true) => {}
    }
    if media.protocol.starts_with("UDP/TLS/") {
        let ours = local.fingerprint.as_deref().ok_or(Disagreement::Security)?;
        let fingerprint = fingerprint_of(offer, media)?;
        // The offerer who leaves it open is answered actively: the handshake begins at once (RFC 5763 §5).
        let active = match media
            .attributes
            .get("setup")
            .or_else(|| offer.attributes.get("setup"))
        {
            Some("actpass") => local.active.unwrap_or(true),
            Some("passive") => true,
            Some("active") => false,
            _ => return Err(Disagreement::Security),
        };
        section.push("fingerprint", ours);
        section.push("setup", if active { "active" } else { "passive" });
        return Ok(Keys::Dtls {
            fingerprint,
            active,
        });
    }
    if capabilities.security == Security::Dtls {
        return Err(Disagreement::Security);
    }
    let taken = media
        .attributes
        .values("crypto")
        .find_map(Crypto::parse)
        .ok_or(Disagreement::Security)?;
    let key = local
        .key_bytes
        .key(taken.suite)
        .ok_or(Disagreement::Security)?;
    section.push(
        "crypto",
        &Crypto {
            tag: taken.tag,
            suite: taken.suite,
            key: key.clone(),
        }
        .to_value(),
    );
    Ok(Keys::Sdes {
        suite: taken.suite,
        local: key,
        remote: taken.key,
    })
}

/// The keys of an answer to our offer.
fn accepted_keys(ours: &Media, theirs: &Media, answer: &Session) -> Result<Keys, Disagreement> {
    if !is_secure(ours) {
        return if is_plain(theirs) {
            Ok(Keys::None)
        } else {
            Err(Disagreement::Mismatch)
        };
    }
    if ours.protocol.starts_with("UDP/TLS/") {
        let fingerprint = fingerprint_of(answer, theirs)?;
        let active = match theirs
            .attributes
            .get("setup")
            .or_else(|| answer.attributes.get("setup"))
        {
            Some("passive") => true,
            Some("active") => false,
            _ => return Err(Disagreement::Security),
        };
        return Ok(Keys::Dtls {
            fingerprint,
            active,
        });
    }
    let theirs = theirs
        .attributes
        .values("crypto")
        .find_map(Crypto::parse)
        .ok_or(Disagreement::Security)?;
    let ours = ours.attributes.values("crypto").filter_map(Crypto::parse);
    let ours = ours
        .into_iter()
        .find(|crypto| crypto.tag == theirs.tag && crypto.suite == theirs.suite);
    let ours = ours.ok_or(Disagreement::Security)?;
    Ok(Keys::Sdes {
        suite: ours.suite,
        local: ours.key,
        remote: theirs.key,
    })
}

/// A fingerprint of SHA-256; weaker ones are none.
fn fingerprint_of(session: &Session, media: &Media) -> Result<String, Disagreement> {
    let all = media
        .attributes
        .values("fingerprint")
        .chain(session.attributes.values("fingerprint"));
    let is_strong = |value: &&str| {
        value
            .get(..8)
            .is_some_and(|hash| hash.eq_ignore_ascii_case("sha-256 "))
            && value.len() == 8 + 32 * 3 - 1
    };
    all.into_iter()
        .find(is_strong)
        .map(str::to_owned)
        .ok_or(Disagreement::Security)
}

fn is_secure(media: &Media) -> bool {
    matches!(
        media.protocol.as_str(),
        "RTP/SAVP" | "RTP/SAVPF" | "UDP/TLS/RTP/SAVP" | "UDP/TLS/RTP/SAVPF"
    )
}

fn is_plain(media: &Media) -> bool {
    matches!(media.protocol.as_str(), "RTP/AVP" | "RTP/AVPF")
}

/// A section of an offer, refused (RFC 3264 §6).
fn refused(media: &Media) -> Media {
    Media {
        port: 0,
        connection: None,
        attributes: Attributes::default(),
        ..media.clone()
    }
}

fn describe(local: &Local, media: Vec<Media>) -> Session {
    let address = Host::Ip(local.address);
    Session {
        origin: Origin {
            session: local.session.to_string(),
            version: local.version,
            address: address.clone(),
        },
        connection: Some(address),
        attributes: Attributes::default(),
        media,
    }
}

/// A section being written.
struct Section {
    port: u16,
    formats: Vec<String>,
    attributes: Attributes,
}

impl Section {
    fn new(port: u16) -> Self {
        Self {
            port,
            formats: Vec::new(),
            attributes: Attributes::default(),
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        self.attributes.push(name, Some(value));
    }

    fn format(&mut self, payload_type: u8, rtpmap: &str) {
        self.formats.push(payload_type.to_string());
        self.push("rtpmap", &format!("{payload_type} {rtpmap}"));
    }

    fn codec(&mut self, payload_type: u8, codec: Codec) {
        self.format(payload_type, codec.rtpmap());
        if codec == Codec::Opus {
            self.push("fmtp", &format!("{payload_type} useinbandfec=1"));
        }
    }

    fn dtmf(&mut self, payload_type: u8, rate: u32) {
        self.format(payload_type, &format!("telephone-event/{rate}"));
        self.push("fmtp", &format!("{payload_type} 0-15"));
    }

    fn finish(mut self, protocol: &str, direction: Direction) -> Media {
        self.push("ptime", &PACKET_MS.to_string());
        self.attributes.push(direction.as_str(), None);
        Media {
            kind: "audio".to_owned(),
            port: self.port,
            protocol: protocol.to_owned(),
            formats: self.formats,
            connection: None,
            attributes: self.attributes,
        }
    }
}

#[cfg(test)]
mod tests;
