//! What we look at ourselves in an offer, before the library reads it: its limits, what each section is, and what it must not see.
//!
//! An offer comes from a stranger and may be made to hurt: a thousand sections, each with its candidates and streams. What is too
//! large is refused here, by cause; what only costs (candidates, which a lite agent never checks, and SSRCs, which we keep ourselves)
//! is left out of what the library gets. Nothing here fails on any text but with a [`MediaRefusal`].

use model::media::{MID_LEN_MAX, MediaRefusal};

/// The longest offer, in bytes: all sections of [`SECTIONS_MAX`] as browsers write them, with the codecs we have in common.
pub const OFFER_LEN_MAX: usize = 256 * 1024;

/// The longest line, in bytes.
const LINE_LEN_MAX: usize = 4096;

/// The most media descriptions of an offer: a gallery of 49, their sound, and own Tracks.
pub const SECTIONS_MAX: usize = 128;

/// The most payload types of a section.
const FORMATS_MAX: usize = 64;

/// The most encodings of a simulcast Track.
const ENCODINGS_MAX: usize = 3;

/// What the fingerprint is made with that DTLS is checked by: the one hash that all implementations have.
const FINGERPRINT_HASH: &str = "sha-256";

/// What others may be made with. They say the same of the same certificate, and are left out.
const FINGERPRINT_HASHES: [&str; 3] = [FINGERPRINT_HASH, "sha-384", "sha-512"];

/// The most SSRCs of a section: three encodings, each with RTX.
const SSRCS_MAX: usize = 16;

/// What a section carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Video,
    /// Data channels.
    Application,
}

/// Who sends in a section, as the one who offers it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Direction {
    pub(crate) sends: bool,
    pub(crate) receives: bool,
}

/// A media description of an offer.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub(crate) kind: Kind,
    pub(crate) mid: &'a str,
    pub(crate) direction: Direction,
    /// What the sender calls its streams, the repairing one behind the one it repairs; empty where it names none.
    pub(crate) ssrcs: Vec<(u32, Option<u32>)>,
    /// The encodings the sender has, in its order.
    pub(crate) rids: Vec<&'a str>,
    /// The codecs in the sender's order, as `name/clock rate` in lower case.
    pub(crate) codecs: Vec<String>,
    lines: Vec<&'a str>,
}

/// An offer that keeps its limits.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    session: Vec<&'a str>,
    pub(crate) sections: Vec<Section<'a>>,
}

impl<'a> Offer<'a> {
    /// Reads an offer.
    ///
    /// # Errors
    ///
    /// `TooManySections`; `WeakFingerprint` where one is weaker than SHA-256 or none is SHA-256 (RFC 8122 §5), which alone is checked
    /// then; `BadSdp` for any other limit, for a `mid` that is missing, repeated or can't be a header extension, and for what is not SDP.
    pub(crate) fn read(sdp: &'a str) -> Result<Self, MediaRefusal> {
        if sdp.len() > OFFER_LEN_MAX {
            return Err(match sdp.matches("\nm=").nth(SECTIONS_MAX) {
                Some(_) => MediaRefusal::TooManySections,
                None => MediaRefusal::BadSdp,
            });
        }
        let mut session = Vec::new();
        let mut sections: Vec<Section<'a>> = Vec::new();
        let mut fingerprints = 0;
        for line in sdp.split('\n').map(|line| line.trim_end_matches('\r')) {
            if line.is_empty() {
                continue;
            }
            if line.len() > LINE_LEN_MAX {
                return Err(MediaRefusal::BadSdp);
            }
            if let Some(hash) = line.strip_prefix("a=fingerprint:") {
                let hash = hash.split(' ').next().unwrap_or_default();
                if !FINGERPRINT_HASHES
                    .iter()
                    .any(|known| hash.eq_ignore_ascii_case(known))
                {
                    return Err(MediaRefusal::WeakFingerprint);
                }
                fingerprints += usize::from(hash.eq_ignore_ascii_case(FINGERPRINT_HASH));
            }
            if let Some(media) = line.strip_prefix("m=") {
                if sections.len() == SECTIONS_MAX {
                    return Err(MediaRefusal::TooManySections);
                }
                sections.push(Section::begin(media, line)?);
            } else if let Some(section) = sections.last_mut() {
                section.add(line)?;
            } else {
                session.push(line);
            }
        }
        if sections.is_empty() {
            return Err(MediaRefusal::BadSdp);
        }
        if fingerprints == 0 {
            return Err(MediaRefusal::WeakFingerprint);
        }
        for (at, section) in sections.iter().enumerate() {
            let is_repeated = sections[..at].iter().any(|other| other.mid == section.mid);
            if section.mid.is_empty() || is_repeated {
                return Err(MediaRefusal::BadSdp);
            }
        }
        Ok(Self { session, sections })
    }

    /// The offer as the library gets it: without candidates and SSRCs, and with sections `inactive` for which `refuses` holds.
    pub(crate) fn text(&self, refuses: impl Fn(&Section<'_>) -> bool) -> String {
        let mut text = String::with_capacity(OFFER_LEN_MAX / 8);
        let mut push = |line: &str| {
            text.push_str(line);
            text.push_str("\r\n");
        };
        for line in &self.session {
            if !is_left_out(line) {
                push(line);
            }
        }
        for section in &self.sections {
            let refused = refuses(section);
            for line in &section.lines {
                if is_left_out(line) {
                    continue;
                }
                match refused && direction(line).is_some() {
                    true => push("a=inactive"),
                    false => push(line),
                }
            }
            // `sendrecv` where nothing is said (RFC 8866 §6.7).
            if refused && !section.lines.iter().any(|line| direction(line).is_some()) {
                push("a=inactive");
            }
        }
        text
    }
}

impl<'a> Section<'a> {
    /// A section by its first line; `media` is what stands behind `m=`.
    fn begin(media: &'a str, line: &'a str) -> Result<Self, MediaRefusal> {
        let mut words = media.split(' ');
        let kind = match words.next() {
            Some("audio") => Kind::Audio,
            Some("video") => Kind::Video,
            Some("application") => Kind::Application,
            _ => return Err(MediaRefusal::BadSdp),
        };
        // Port and protocol stand before the formats.
        if words.skip(2).count() > FORMATS_MAX {
            return Err(MediaRefusal::BadSdp);
        }
        Ok(Self {
            kind,
            mid: "",
            direction: Direction {
                sends: true,
                receives: true,
            },
            ssrcs: Vec::new(),
            rids: Vec::new(),
            codecs: Vec::new(),
            lines: vec![line],
        })
    }

    fn add(&mut self, line: &'a str) -> Result<(), MediaRefusal> {
        self.lines.push(line);
        if let Some(direction) = direction(line) {
            self.direction = direction;
        } else if let Some(mid) = line.strip_prefix("a=mid:") {
            // The library keeps nothing but these, and the answer must have the same.
            let is_plain = mid
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !is_plain || !(1..=MID_LEN_MAX).contains(&mid.len()) || !self.mid.is_empty() {
                return Err(MediaRefusal::BadSdp);
            }
            self.mid = mid;
        } else if let Some(rid) = line.strip_prefix("a=rid:") {
            let mut words = rid.split(' ');
            let (id, direction) = (words.next().unwrap_or_default(), words.next());
            if direction == Some("send") {
                let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if self.rids.len() == ENCODINGS_MAX
                    || id.is_empty()
                    || id.len() > MID_LEN_MAX
                    || !is_plain
                {
                    return Err(MediaRefusal::BadSdp);
                }
                self.rids.push(id);
            }
        } else if let Some(codec) = line.strip_prefix("a=rtpmap:") {
            if self.codecs.len() == FORMATS_MAX {
                return Err(MediaRefusal::BadSdp);
            }
            let name = codec.split(' ').nth(1).unwrap_or_default();
            self.codecs.push(name.to_ascii_lowercase());
        } else if let Some(group) = line.strip_prefix("a=ssrc-group:FID ") {
            let mut numbers = group.split(' ').map(str::parse::<u32>);
            if let (Some(Ok(ssrc)), Some(Ok(repair))) = (numbers.next(), numbers.next()) {
                self.ssrcs
                    .retain(|(known, _)| *known != ssrc && *known != repair);
                self.push_ssrc(ssrc, Some(repair))?;
            }
        } else if let Some(source) = line.strip_prefix("a=ssrc:")
            && let Some(Ok(ssrc)) = source.split(' ').next().map(str::parse::<u32>)
        {
            let is_known =
                |(known, repair): &(u32, Option<u32>)| *known == ssrc || *repair == Some(ssrc);
            if !self.ssrcs.iter().any(is_known) {
                self.push_ssrc(ssrc, None)?;
            }
        }
        Ok(())
    }

    fn push_ssrc(&mut self, ssrc: u32, repair: Option<u32>) -> Result<(), MediaRefusal> {
        if self.ssrcs.len() == SSRCS_MAX {
            return Err(MediaRefusal::BadSdp);
        }
        self.ssrcs.push((ssrc, repair));
        Ok(())
    }
}

fn direction(line: &str) -> Option<Direction> {
    let (sends, receives) = match line {
        "a=sendrecv" => (true, true),
        "a=sendonly" => (true, false),
        "a=recvonly" => (false, true),
        "a=inactive" => (false, false),
        _ => return None,
    };
    Some(Direction { sends, receives })
}

/// Candidates are for agents that check them, whoever sends as which SSRC is ours to know, and one fingerprint is enough.
fn is_left_out(line: &str) -> bool {
    const PREFIXES: [&str; 4] = [
        "a=candidate:",
        "a=end-of-candidates",
        "a=ssrc:",
        "a=ssrc-group:",
    ];
    let is_other_fingerprint = |rest: &str| {
        let hash = rest.split(' ').next().unwrap_or_default();
        !hash.eq_ignore_ascii_case(FINGERPRINT_HASH)
    };
    PREFIXES.iter().any(|prefix| line.starts_with(prefix))
        || line
            .strip_prefix("a=fingerprint:")
            .is_some_and(is_other_fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=fingerprint:sha-256 AB\r\n";

    fn section(mid: &str, rest: &str) -> String {
        format!("m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:{mid}\r\na=sendonly\r\n{rest}")
    }

    fn refusal(sdp: &str) -> Option<MediaRefusal> {
        Offer::read(sdp).err()
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let sections = |count: usize| -> String {
            let each: String = (0..count).map(|at| section(&at.to_string(), "")).collect();
            format!("{HEAD}{each}")
        };
        assert_eq!(refusal(&sections(SECTIONS_MAX)), None);
        assert_eq!(
            refusal(&sections(1000)),
            Some(MediaRefusal::TooManySections)
        );

        let bad = Some(MediaRefusal::BadSdp);
        assert_eq!(
            refusal(&format!("{HEAD}{}", "a".repeat(OFFER_LEN_MAX))),
            bad
        );
        assert_eq!(refusal(HEAD), bad, "no section");
        assert_eq!(refusal(""), bad);
        assert_eq!(refusal(&format!("{HEAD}m=text 9 RTP/AVP 98\r\n")), bad);

        let repeated =
            |line: fn(usize) -> String, count| -> String { (0..count).map(line).collect() };
        let rids = |count| repeated(|at| format!("a=rid:r{at} send\r\n"), count);
        assert_eq!(refusal(&format!("{HEAD}{}", section("0", &rids(3)))), None);
        assert_eq!(refusal(&format!("{HEAD}{}", section("0", &rids(4)))), bad);
        let ssrcs = |count| repeated(|at| format!("a=ssrc:{at} cname:a\r\n"), count);
        assert_eq!(
            refusal(&format!("{HEAD}{}", section("0", &ssrcs(16)))),
            None
        );
        assert_eq!(refusal(&format!("{HEAD}{}", section("0", &ssrcs(17)))), bad);
    }

    #[test]
    fn a_mid_is_there_once_and_fits_a_header_extension() {
        let bad = Some(MediaRefusal::BadSdp);
        let check = |mids: &[&str], expected: Option<MediaRefusal>| {
            let each: String = mids.iter().map(|mid| section(mid, "")).collect();
            assert_eq!(refusal(&format!("{HEAD}{each}")), expected, "{mids:?}");
        };
        check(&["0", "audio_1"], None);
        check(&["0", "0"], bad);
        check(&[""], bad);
        check(&["a-b"], bad);
        check(&["12345678901234567"], bad);
    }

    #[test]
    fn a_weak_fingerprint_or_none_is_refused() {
        let weak = Some(MediaRefusal::WeakFingerprint);
        let none = HEAD.replace("a=fingerprint:sha-256 AB\r\n", "");
        assert_eq!(refusal(&format!("{none}{}", section("0", ""))), weak);
        let sha1 = HEAD.replace("sha-256", "sha-1");
        assert_eq!(refusal(&format!("{sha1}{}", section("0", ""))), weak);
        let both = section("0", "a=fingerprint:sha-1 AB\r\n");
        assert_eq!(refusal(&format!("{HEAD}{both}")), weak);
        let stronger = HEAD.replace("sha-256", "sha-512");
        assert_eq!(refusal(&format!("{stronger}{}", section("0", ""))), weak);
    }

    #[test]
    fn of_several_fingerprints_the_one_that_is_checked_is_passed_on() {
        let several = section(
            "0",
            "a=fingerprint:sha-384 CD\r\na=fingerprint:SHA-512 EF\r\n",
        );
        let sdp = format!("{HEAD}{several}");
        let text = Offer::read(&sdp).unwrap().text(|_| false);
        assert!(text.contains("sha-256 AB"), "{text}");
        assert!(!text.contains("384") && !text.contains("512"), "{text}");
    }

    #[test]
    fn streams_are_read_and_left_out() {
        let rest = "a=ssrc:5 cname:a\r\na=ssrc:6 cname:a\r\na=ssrc-group:FID 5 6\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
                    a=rid:q send\r\na=rid:f send\r\na=rtpmap:96 VP8/90000\r\n";
        let sdp = format!("{HEAD}{}", section("0", rest));
        let offer = Offer::read(&sdp).unwrap();
        let section = &offer.sections[0];
        assert_eq!(section.ssrcs, [(5, Some(6))]);
        assert_eq!(section.rids, ["q", "f"]);
        assert_eq!(section.codecs, ["vp8/90000"]);

        let text = offer.text(|_| false);
        assert!(
            !text.contains("ssrc") && !text.contains("candidate"),
            "{text}"
        );
        assert!(text.contains("a=rid:q send\r\n") && text.contains("a=sendonly\r\n"));
        let refused = offer.text(|_| true);
        assert!(refused.contains("a=inactive\r\n") && !refused.contains("a=sendonly"));
    }
}
