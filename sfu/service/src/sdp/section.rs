//! A media description of an offer.

use model::media::{MID_LEN_MAX, SdpFault};
use sfu_rtp::extension::ExtensionKind;

/// The most payload types of a section.
const FORMATS_MAX: usize = 64;

/// The most encodings of a simulcast Track.
const ENCODINGS_MAX: usize = 3;

/// The most SSRCs of a section: three encodings, each with RTX.
const SSRCS_MAX: usize = 16;

/// What is forwarded, or helps to.
const CODECS: [&str; 7] = [
    "opus/48000/2",
    "red/48000/2",
    "vp8/90000",
    "vp9/90000",
    "h264/90000",
    "av1/90000",
    "rtx/90000",
];

/// The parameters of them that anybody reads.
const PARAMETERS: [&str; 16] = [
    "apt",
    "cbr",
    "level-asymmetry-allowed",
    "level-idx",
    "maxaveragebitrate",
    "maxplaybackrate",
    "minptime",
    "packetization-mode",
    "profile",
    "profile-id",
    "profile-level-id",
    "sprop-stereo",
    "stereo",
    "tier",
    "usedtx",
    "useinbandfec",
];

/// What a section carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Video,
    /// Data channels.
    Application,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Audio => "audio",
            Kind::Video => "video",
            Kind::Application => "application",
        }
    }
}

/// Who sends in a section, as the one who offers it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Direction {
    pub(crate) sends: bool,
    pub(crate) receives: bool,
}

impl Direction {
    const BOTH: Self = Self {
        sends: true,
        receives: true,
    };

    const fn line(self) -> &'static str {
        match (self.sends, self.receives) {
            (true, true) => "a=sendrecv\r\n",
            (true, false) => "a=sendonly\r\n",
            (false, true) => "a=recvonly\r\n",
            (false, false) => "a=inactive\r\n",
        }
    }
}

pub(super) fn direction(line: &str) -> Option<Direction> {
    let (sends, receives) = match line {
        "a=sendrecv" => (true, true),
        "a=sendonly" => (true, false),
        "a=recvonly" => (false, true),
        "a=inactive" => (false, false),
        _ => return None,
    };
    Some(Direction { sends, receives })
}

/// A line that goes on to the library.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// As it is.
    Plain(&'a str),
    /// About a payload type: only if that is of a codec we know.
    Format(u8, &'a str),
    /// Its parameters, written anew: only if it is of a codec we know.
    Parameters(u8, String),
}

/// A media description of an offer.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub(crate) kind: Kind,
    /// Empty only where it is rejected.
    pub(crate) mid: &'a str,
    /// What the library calls it: a name of letters, digits and `_`, the same for the same `mid`.
    pub(crate) alias: String,
    /// It is over, or never began: port 0 outside of the bundle (RFC 8829 §5.2.2, RFC 9143 §6).
    pub(crate) is_rejected: bool,
    pub(crate) direction: Direction,
    /// What the sender calls its streams, the repairing one behind the one it repairs; empty where it names none.
    pub(crate) ssrcs: Vec<(u32, Option<u32>)>,
    /// The encodings the sender has, in its order.
    pub(crate) rids: Vec<&'a str>,
    /// The codecs in the sender's order, as `name/clock rate` in lower case.
    pub(crate) codecs: Vec<String>,
    /// Feedback may come without a report (RFC 5506).
    pub(super) reduces_rtcp: bool,
    has_simulcast: bool,
    has_port: bool,
    payload_types: Vec<u8>,
    /// By payload type.
    names: Vec<(u8, String)>,
    /// What of their parameters makes them other codecs, by payload type.
    variants: Vec<(u8, String)>,
    /// Payload types of codecs we know, a bit for each.
    ours: u128,
    lines: Vec<Line<'a>>,
}

impl<'a> Section<'a> {
    /// A section by what stands behind `m=` in its first line.
    pub(super) fn begin(media: &'a str, direction: Option<Direction>) -> Result<Self, SdpFault> {
        let mut words = media.split(' ');
        let kind = match words.next() {
            Some("audio") => Kind::Audio,
            Some("video") => Kind::Video,
            Some("application") => Kind::Application,
            _ => return Err(SdpFault::Media),
        };
        let port = words.next().and_then(|port| port.parse::<u16>().ok());
        let port = port.ok_or(SdpFault::Unreadable)?;
        let is_ours = match (kind, words.next()) {
            (Kind::Application, protocol) => protocol == Some("UDP/DTLS/SCTP"),
            (_, protocol) => protocol == Some("UDP/TLS/RTP/SAVPF"),
        };
        if !is_ours {
            return Err(SdpFault::Protocol);
        }
        let mut payload_types = Vec::new();
        if kind != Kind::Application {
            for word in words.filter(|word| !word.is_empty()) {
                if payload_types.len() == FORMATS_MAX {
                    return Err(SdpFault::TooManyFormats);
                }
                let payload_type = payload_type(word).ok_or(SdpFault::Unreadable)?;
                if payload_types.contains(&payload_type) {
                    return Err(SdpFault::RepeatedFormat);
                }
                payload_types.push(payload_type);
            }
        }
        Ok(Self {
            kind,
            mid: "",
            alias: String::new(),
            is_rejected: false,
            direction: direction.unwrap_or(Direction::BOTH),
            ssrcs: Vec::new(),
            rids: Vec::new(),
            codecs: Vec::new(),
            reduces_rtcp: false,
            has_simulcast: false,
            has_port: port != 0,
            payload_types,
            names: Vec::new(),
            variants: Vec::new(),
            ours: 0,
            lines: Vec::new(),
        })
    }

    /// Takes a further line in, of which the transport has need or not.
    pub(super) fn add(&mut self, line: &'a str, is_kept: bool) -> Result<(), SdpFault> {
        if let Some(direction) = direction(line) {
            self.direction = direction;
            return Ok(());
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name {
            "a=mid" => {
                if !is_token(value) || value.len() > MID_LEN_MAX || !self.mid.is_empty() {
                    return Err(SdpFault::Mid);
                }
                self.mid = value;
            }
            "a=rid" => self.add_rid(value)?,
            "a=simulcast" => self.has_simulcast = true,
            "a=rtcp-rsize" => self.reduces_rtcp = true,
            "a=rtpmap" => self.add_name(value, line)?,
            "a=fmtp" | "a=rtcp-fb" => {
                let word = value.split(' ').next().unwrap_or_default();
                // `*` is for all payload types, which browsers never say and the library can't read.
                match payload_type(word) {
                    Some(payload_type) if name == "a=fmtp" => {
                        let (_, told) = value.split_once(' ').unwrap_or_default();
                        let parameters = parameters(told);
                        self.add_variant(payload_type, &parameters);
                        self.lines.push(Line::Parameters(payload_type, parameters));
                    }
                    Some(payload_type) => self.lines.push(Line::Format(payload_type, line)),
                    None => {}
                }
            }
            "a=extmap" if is_known_extension(value) => self.lines.push(Line::Plain(line)),
            "a=ssrc-group" => {
                let mut words = value.split(' ');
                let is_repair = words.next() == Some("FID");
                let mut numbers = words.map(str::parse::<u32>);
                if is_repair
                    && let (Some(Ok(ssrc)), Some(Ok(repair))) = (numbers.next(), numbers.next())
                {
                    self.add_pair(ssrc, repair)?;
                }
            }
            "a=ssrc" => {
                if let Some(Ok(ssrc)) = value.split(' ').next().map(str::parse::<u32>) {
                    self.add_ssrc(ssrc)?;
                }
            }
            "a=msid" | "a=rtcp-mux" | "a=sctp-port" | "a=max-message-size" => {
                self.lines.push(Line::Plain(line));
            }
            _ if is_kept => self.lines.push(Line::Plain(line)),
            _ => {}
        }
        Ok(())
    }

    /// All of it was read; it is the one at place `at`.
    pub(super) fn end(&mut self, at: usize, is_bundled: bool) -> Result<(), SdpFault> {
        self.is_rejected = !self.has_port && !is_bundled;
        if self.is_rejected {
            self.direction = Direction {
                sends: false,
                receives: false,
            };
        } else if self.mid.is_empty() {
            return Err(SdpFault::Mid);
        } else if !is_bundled {
            return Err(SdpFault::NotBundled);
        }
        self.alias = match self.mid {
            "" => format!("_rejected{at}"),
            mid => alias(mid),
        };
        for payload_type in &self.payload_types {
            let mut names = self.names.iter();
            if let Some((_, name)) = names.find(|(known, _)| known == payload_type) {
                self.codecs.push(name.clone());
                self.ours |= u128::from(CODECS.contains(&name.as_str())) << payload_type;
            }
        }
        Ok(())
    }

    /// What each payload type of ours stands for: the codec, and what makes it another one.
    pub(super) fn codecs_by_payload_type(&self) -> impl Iterator<Item = (u8, (&str, &str))> {
        let ours = self.names.iter().filter(|(it, _)| self.is_ours(*it));
        ours.map(|(payload_type, name)| {
            let mut variants = self.variants.iter();
            let variant = variants.find(|(known, _)| known == payload_type);
            let variant = variant.map_or("", |(_, variant)| variant.as_str());
            (*payload_type, (name.as_str(), variant))
        })
    }

    /// Writes the section for the library.
    pub(super) fn write(&self, text: &mut String, is_refused: bool) {
        let mut push = |parts: &[&str]| parts.iter().for_each(|part| text.push_str(part));
        let kind = self.kind.name();
        if self.kind == Kind::Application {
            let port = if self.is_rejected { "0" } else { "9" };
            push(&[
                "m=",
                kind,
                " ",
                port,
                " UDP/DTLS/SCTP webrtc-datachannel\r\n",
            ]);
        } else if self.is_rejected {
            push(&["m=", kind, " 0 UDP/TLS/RTP/SAVPF 0\r\n"]);
        } else {
            push(&["m=", kind, " 9 UDP/TLS/RTP/SAVPF"]);
            for payload_type in self.payload_types.iter().filter(|it| self.is_ours(**it)) {
                push(&[" ", &payload_type.to_string()]);
            }
            push(&["\r\n"]);
        }
        push(&["c=IN IP4 0.0.0.0\r\na=mid:", &self.alias, "\r\n"]);
        if self.kind != Kind::Application {
            push(&[match is_refused {
                true => "a=inactive\r\n",
                false => self.direction.line(),
            }]);
        }
        if self.is_rejected {
            return;
        }
        for line in &self.lines {
            match line {
                Line::Plain(line) => push(&[line, "\r\n"]),
                Line::Format(payload_type, line) if self.is_ours(*payload_type) => {
                    push(&[line, "\r\n"]);
                }
                Line::Parameters(payload_type, parameters)
                    if self.is_ours(*payload_type) && !parameters.is_empty() =>
                {
                    let payload_type = payload_type.to_string();
                    push(&["a=fmtp:", &payload_type, " ", parameters, "\r\n"]);
                }
                Line::Format(..) | Line::Parameters(..) => {}
            }
        }
        for rid in &self.rids {
            push(&["a=rid:", rid, " send\r\n"]);
        }
        if self.has_simulcast && !self.rids.is_empty() {
            push(&["a=simulcast:send ", &self.rids.join(";"), "\r\n"]);
        }
    }

    fn is_ours(&self, payload_type: u8) -> bool {
        self.ours >> payload_type & 1 == 1
    }

    fn add_rid(&mut self, value: &'a str) -> Result<(), SdpFault> {
        let mut words = value.split(' ');
        let (id, direction) = (words.next().unwrap_or_default(), words.next());
        if direction != Some("send") {
            return Ok(()); // Nobody is sent several encodings.
        }
        let is_fit = (1..=MID_LEN_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_fit || self.rids.contains(&id) {
            return Err(SdpFault::Rid);
        }
        if self.rids.len() == ENCODINGS_MAX {
            return Err(SdpFault::TooManyEncodings);
        }
        self.rids.push(id);
        Ok(())
    }

    fn add_name(&mut self, value: &str, line: &'a str) -> Result<(), SdpFault> {
        let (word, name) = value.split_once(' ').unwrap_or((value, ""));
        let Some(payload_type) = payload_type(word) else {
            return Err(SdpFault::Unreadable);
        };
        if self.names.iter().any(|(known, _)| *known == payload_type) {
            return Err(SdpFault::RepeatedFormat);
        }
        if self.names.len() == FORMATS_MAX {
            return Err(SdpFault::TooManyFormats);
        }
        self.names.push((payload_type, name.to_ascii_lowercase()));
        self.lines.push(Line::Format(payload_type, line));
        Ok(())
    }

    /// Takes in parameters that two ends have to agree on (RFC 6184 §8.2.2, RFC 9628 §6, RFC 4588 §8.1): level and the like may differ from
    /// section to section. What is left out is what it means to leave it out; what is there twice, or is no profile, is told as it is, since
    /// one reader makes something else of it than another.
    fn add_variant(&mut self, payload_type: u8, parameters: &str) {
        const TOLD: [(&str, &str); 5] = [
            ("packetization-mode", "0"),
            ("profile-level-id", ""),
            ("profile-id", "0"),
            ("profile", "0"),
            ("apt", ""),
        ];
        let mut variant = String::new();
        for (name, default) in TOLD {
            let told = parameters.split(';').filter_map(|parameter| {
                let (known, value) = parameter.split_once('=')?;
                (known == name).then_some(value)
            });
            for told in told.filter(|told| *told != default) {
                let is_level = |told: &str| {
                    name == "profile-level-id"
                        && told.len() == 6
                        && told.bytes().all(|byte| byte.is_ascii_hexdigit())
                };
                let len = if is_level(told) { 4 } else { told.len() };
                variant.extend([name, "=", &told[..len].to_ascii_lowercase(), ";"]);
            }
        }
        let mut known = self.variants.iter_mut();
        if let Some((_, known)) = known.find(|(known, _)| *known == payload_type) {
            known.push_str(&variant);
        } else if !variant.is_empty() && self.variants.len() < FORMATS_MAX {
            self.variants.push((payload_type, variant));
        }
    }

    fn add_pair(&mut self, ssrc: u32, repair: u32) -> Result<(), SdpFault> {
        let pair = (ssrc, Some(repair));
        let is_other = |known: &(u32, Option<u32>)| {
            let has = |number: u32| known.0 == number || known.1 == Some(number);
            known.1.is_some() && *known != pair && (has(ssrc) || has(repair))
        };
        if ssrc == repair || self.ssrcs.iter().any(is_other) {
            return Err(SdpFault::RepeatedSsrc);
        }
        let is_in = |known: u32| known == ssrc || known == repair;
        self.ssrcs.retain(|(known, _)| !is_in(*known));
        self.push_ssrc(pair)
    }

    fn add_ssrc(&mut self, ssrc: u32) -> Result<(), SdpFault> {
        let is_it = |known: &(u32, Option<u32>)| known.0 == ssrc || known.1 == Some(ssrc);
        match self.ssrcs.iter().any(is_it) {
            true => Ok(()),
            false => self.push_ssrc((ssrc, None)),
        }
    }

    fn push_ssrc(&mut self, ssrc: (u32, Option<u32>)) -> Result<(), SdpFault> {
        if self.ssrcs.len() == SSRCS_MAX {
            return Err(SdpFault::TooManySsrcs);
        }
        self.ssrcs.push(ssrc);
        Ok(())
    }
}

fn payload_type(word: &str) -> Option<u8> {
    word.parse().ok().filter(|number| *number < 128)
}

/// The parameters of a format that are known, as the library reads them: one it can't read, and it reads none of the line, and takes
/// the format for another one than we do.
fn parameters(told: &str) -> String {
    let is_of_red = |byte: u8| byte.is_ascii_digit() || byte == b'/';
    if told.bytes().all(is_of_red) {
        return told.to_owned(); // The formats of redundant audio (RFC 2198 §5).
    }
    let known = told.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let is_fit = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
        (is_fit && PARAMETERS.contains(&name.as_str())).then(|| format!("{name}={value}"))
    });
    known.collect::<Vec<String>>().join(";")
}

/// `<number>["/"<direction>] <URI>` (RFC 8285 §8), of one we know.
fn is_known_extension(value: &str) -> bool {
    let mut words = value.split(' ');
    let number = words.next().and_then(|word| word.split('/').next());
    let is_number = number.is_some_and(|number| number.parse::<u8>().is_ok_and(|it| it > 0));
    let uri = words.next().unwrap_or_default();
    is_number && ExtensionKind::from_uri(uri).is_some()
}

/// The `token` of RFC 8866 §9.
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// A name for a `mid`: itself where the library keeps it as it is, else a hash (FNV-1a). Two that meet are refused as one `mid` that is
/// there twice.
fn alias(mid: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if mid.bytes().all(is_plain) {
        return mid.to_owned();
    }
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
    for byte in mid.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    // As long as a `mid` may be.
    format!("_{:015x}", hash >> 4)
}
