//! What we look at ourselves in an offer, before the library reads it: its limits, what each section is, and what it must not see.
//!
//! ```text
//! offer ──▶ [`Offer::read`] ──▶ [`Offer::text`] ──▶ library ──▶ [`Offer::restore`] ──▶ answer
//! ```
//!
//! An offer comes from a stranger and may be made to hurt: a thousand sections, each with its candidates and streams. What is too
//! large, or says two things at once, is refused here, by cause. What the library gets is written anew from the lines we know: no
//! candidates, which a lite agent never checks, no SSRCs, which we keep ourselves, no codecs nobody forwards, and nothing at all that
//! only costs its time. Nothing here fails on any text but with a [`MediaRefusal`].

mod section;

use model::media::{MediaRefusal, SdpFault};

use section::{Direction, direction};
pub(crate) use section::{Kind, Section};

/// The longest offer, in bytes: all sections of [`SECTIONS_MAX`] as browsers write them, with the codecs we have in common.
pub const OFFER_LEN_MAX: usize = 256 * 1024;

/// The longest line, in bytes.
const LINE_LEN_MAX: usize = 4096;

/// The most media descriptions of an offer: a gallery of 49, their sound, and own Tracks.
pub const SECTIONS_MAX: usize = 128;

/// How long the two credentials of ICE may be (RFC 8839 §5.4).
const UFRAG_LEN: std::ops::RangeInclusive<usize> = 4..=256;
const PASSWORD_LEN: std::ops::RangeInclusive<usize> = 22..=256;

/// An offer that keeps its limits.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    /// The lines before the first section that say something to us.
    session: Vec<&'a str>,
    pub(crate) sections: Vec<Section<'a>>,
}

impl<'a> Offer<'a> {
    /// Reads an offer.
    ///
    /// # Errors
    ///
    /// `TooManySections`; `WeakFingerprint` where one is weaker than SHA-256 (RFC 8122 §5), or none is of SHA-256, which is the one
    /// that is checked; `BadSdp` for any other limit, and for what contradicts itself.
    pub(crate) fn read(sdp: &'a str) -> Result<Self, MediaRefusal> {
        if sdp.len() > OFFER_LEN_MAX {
            return Err(match sdp.matches("\nm=").nth(SECTIONS_MAX) {
                Some(_) => MediaRefusal::TooManySections,
                None => bad(SdpFault::TooLong),
            });
        }
        let mut reader = Reader::default();
        for (number, line) in sdp.lines().enumerate() {
            if line.len() > LINE_LEN_MAX {
                return Err(bad(SdpFault::LineTooLong));
            }
            // What one reader takes for the end of a line another doesn't.
            if line.bytes().any(|byte| byte.is_ascii_control()) {
                return Err(bad(SdpFault::Unreadable));
            }
            if (number == 0) != (line == "v=0") {
                return Err(bad(SdpFault::NoSections));
            }
            reader.read(line)?;
        }
        reader.end()
    }

    /// The offer as the library gets it; sections for which `refuses` holds are `inactive`.
    pub(crate) fn text(&self, refuses: impl Fn(&Section<'_>) -> bool) -> String {
        let mut text = String::with_capacity(OFFER_LEN_MAX / 8);
        text.push_str("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE");
        for section in self.sections.iter().filter(|known| !known.is_rejected) {
            text.push(' ');
            text.push_str(&section.alias);
        }
        text.push_str("\r\n");
        for line in &self.session {
            text.push_str(line);
            text.push_str("\r\n");
        }
        for section in &self.sections {
            section.write(&mut text, refuses(section));
        }
        text
    }

    /// Whether feedback may come without a report (RFC 5506 §5): all sections that have RTCP offer it.
    pub(crate) fn reduces_rtcp(&self) -> bool {
        let has_rtcp = |known: &&Section<'_>| !known.is_rejected && known.kind != Kind::Application;
        let mut with_rtcp = self.sections.iter().filter(has_rtcp);
        with_rtcp.all(|section| section.reduces_rtcp)
    }

    /// The answer of the library with the names that the offer has, and with what is agreed on and the library knows nothing of.
    pub(crate) fn restore(&self, answer: String) -> String {
        let reduces_rtcp = self.reduces_rtcp();
        if !reduces_rtcp && self.sections.iter().all(|known| known.alias == known.mid) {
            return answer;
        }
        let name = |alias: &str| {
            let section = self.sections.iter().find(|known| known.alias == alias);
            section.map_or(String::new(), |section| section.mid.to_owned())
        };
        let mut restored = String::with_capacity(answer.len() + 16 * self.sections.len());
        for line in answer.lines() {
            if let Some(alias) = line.strip_prefix("a=mid:") {
                let mid = name(alias);
                if mid.is_empty() {
                    continue; // A section that is over needs no name (RFC 8829 §5.2.2).
                }
                restored.push_str("a=mid:");
                restored.push_str(&mid);
            } else if let Some(aliases) = line.strip_prefix("a=group:BUNDLE ") {
                restored.push_str("a=group:BUNDLE");
                for alias in aliases.split(' ') {
                    restored.push(' ');
                    restored.push_str(&name(alias));
                }
            } else {
                restored.push_str(line);
            }
            restored.push_str("\r\n");
            if reduces_rtcp && line == "a=rtcp-mux" {
                restored.push_str("a=rtcp-rsize\r\n");
            }
        }
        restored
    }
}

fn bad(fault: SdpFault) -> MediaRefusal {
    MediaRefusal::BadSdp(fault)
}

/// What was read so far.
#[derive(Default)]
struct Reader<'a> {
    session: Vec<&'a str>,
    sections: Vec<Section<'a>>,
    /// Of the session, which holds for sections that say nothing (RFC 8866 §6.7).
    direction: Option<Direction>,
    /// Whoever is in the first group of this kind.
    bundle: Option<Vec<&'a str>>,
    /// Of SHA-256.
    fingerprint: Option<&'a str>,
    has_ufrag: bool,
    has_password: bool,
}

impl<'a> Reader<'a> {
    fn read(&mut self, line: &'a str) -> Result<(), MediaRefusal> {
        if let Some(media) = line.strip_prefix("m=") {
            if self.sections.len() == SECTIONS_MAX {
                return Err(MediaRefusal::TooManySections);
            }
            let begun = Section::begin(media, self.direction).map_err(bad)?;
            self.sections.push(begun);
            return Ok(());
        }
        let is_kept = match line.split_once(':').unwrap_or((line, "")) {
            ("a=fingerprint", value) => self.take_fingerprint(value)?,
            ("a=ice-ufrag", value) => {
                self.has_ufrag = true;
                is_credential(value, UFRAG_LEN)?
            }
            ("a=ice-pwd", value) => {
                self.has_password = true;
                is_credential(value, PASSWORD_LEN)?
            }
            ("a=ice-options" | "a=ice-lite" | "a=setup", _) => true,
            _ => false,
        };
        match self.sections.last_mut() {
            Some(section) => section.add(line, is_kept).map_err(bad)?,
            None if is_kept => self.session.push(line),
            None => {
                self.direction = direction(line).or(self.direction);
                if let Some(mids) = line.strip_prefix("a=group:BUNDLE ") {
                    let mids = mids.split_ascii_whitespace().collect();
                    self.bundle.get_or_insert(mids);
                }
            }
        }
        Ok(())
    }

    /// Whether a fingerprint is one for the library, which knows SHA-256 alone.
    fn take_fingerprint(&mut self, value: &'a str) -> Result<bool, MediaRefusal> {
        let (hash, digest) = value.split_once(' ').unwrap_or((value, ""));
        let is = |name: &str| hash.eq_ignore_ascii_case(name);
        if is("sha-384") || is("sha-512") {
            return Ok(false);
        }
        if !is("sha-256") {
            return Err(MediaRefusal::WeakFingerprint);
        }
        let is_byte = |byte: &str| byte.len() == 2 && byte.bytes().all(|it| it.is_ascii_hexdigit());
        let is_whole = digest.split(':').count() == 32 && digest.split(':').all(is_byte);
        let known = *self.fingerprint.get_or_insert(digest);
        match is_whole && known.eq_ignore_ascii_case(digest) {
            true => Ok(true),
            false => Err(bad(SdpFault::Fingerprints)),
        }
    }

    fn end(mut self) -> Result<Offer<'a>, MediaRefusal> {
        if self.sections.is_empty() {
            return Err(bad(SdpFault::NoSections));
        }
        if self.fingerprint.is_none() {
            return Err(MediaRefusal::WeakFingerprint);
        }
        if !(self.has_ufrag && self.has_password) {
            return Err(bad(SdpFault::Ice));
        }
        let bundle = self.bundle.take().unwrap_or_default();
        for (at, section) in self.sections.iter_mut().enumerate() {
            let is_bundled = bundle.contains(&section.mid);
            section.end(at, is_bundled).map_err(bad)?;
        }
        self.ensure_distinct().map_err(bad)?;
        Ok(Offer {
            session: self.session,
            sections: self.sections,
        })
    }
}

impl Reader<'_> {
    /// What may be there once in all sections together: names, and what packets are told apart by.
    fn ensure_distinct(&self) -> Result<(), SdpFault> {
        let alive = || self.sections.iter().filter(|known| !known.is_rejected);
        let mut ssrcs = Vec::new();
        let mut codecs: [Option<(&str, &str)>; 128] = [None; 128];
        let mut channels = 0;
        for (at, section) in self.sections.iter().enumerate() {
            let is_same = |other: &Section<'_>| other.alias == section.alias;
            if self.sections[..at].iter().any(is_same) {
                return Err(SdpFault::RepeatedMid);
            }
        }
        for section in alive() {
            channels += usize::from(section.kind == Kind::Application);
            for (payload_type, name) in section.codecs_by_payload_type() {
                let known = codecs[usize::from(payload_type)].get_or_insert(name);
                if *known != name {
                    return Err(SdpFault::RepeatedFormat);
                }
            }
        }
        if channels > 1 {
            return Err(SdpFault::Media);
        }
        for section in alive().filter(|section| section.direction.sends) {
            for (ssrc, repair) in &section.ssrcs {
                ssrcs.push(*ssrc);
                ssrcs.extend(*repair);
            }
        }
        ssrcs.sort_unstable();
        match ssrcs.windows(2).any(|pair| pair[0] == pair[1]) {
            true => Err(SdpFault::RepeatedSsrc),
            false => Ok(()),
        }
    }
}

fn is_credential(value: &str, len: std::ops::RangeInclusive<usize>) -> Result<bool, MediaRefusal> {
    let is_fit = len.contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
    is_fit.then_some(true).ok_or(bad(SdpFault::Ice))
}

#[cfg(test)]
mod tests;
