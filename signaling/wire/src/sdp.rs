//! The DTLS fingerprints of a session description (RFC 8122 §5): what binds media to the certificate.

/// The most m-sections we read.
const SECTIONS_MAX: usize = 128;
/// The most `a=fingerprint` lines we read.
const FINGERPRINTS_MAX: usize = 256;

/// One `a=fingerprint` value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// `sha-256 aa:bb:…` in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The fingerprints of a description, each once, sorted: what the Device key signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprints(Vec<Fingerprint>);

/// Why a description is refused; all of them are `weak_fingerprint` to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// It does not begin with `v=0`.
    #[error("not a session description")]
    NotSdp,
    /// It describes no media.
    #[error("no m-section")]
    NoMedia,
    /// A live m-section is covered by no fingerprint.
    #[error("m-section {section} has no fingerprint")]
    Missing {
        /// Its place, from 0.
        section: usize,
    },
    /// A fingerprint is not SHA-256, SHA-384 or SHA-512 of the right length.
    #[error("a fingerprint is not sha-256, sha-384 or sha-512")]
    Weak,
    /// More m-sections or fingerprints than we read.
    #[error("too many m-sections or fingerprints")]
    TooMany,
}

impl Fingerprints {
    /// Reads the fingerprints of `sdp` and checks that strong ones cover every live m-section.
    ///
    /// A section is covered by its own fingerprint, by one of the session, or by that of the first section of its BUNDLE
    /// group, whose transport it uses (RFC 9143 §7.1.3); a rejected section (port 0 without `a=bundle-only`) needs none.
    /// A weak fingerprint is refused even beside a strong one, for the receiver chooses which to check.
    pub fn of(sdp: &str) -> Result<Self, SdpError> {
        let mut lines = sdp.lines().map(str::trim_end);
        if lines.next() != Some("v=0") {
            return Err(SdpError::NotSdp);
        }

        let mut session = Section::default();
        let mut sections: Vec<Section<'_>> = Vec::new();
        let mut bundles: Vec<&str> = Vec::new();
        let mut found = Vec::new();

        for line in lines {
            if let Some(media) = line.strip_prefix("m=") {
                ensure_room(sections.len(), SECTIONS_MAX)?;
                sections.push(Section {
                    port_zero: media.split(' ').nth(1) == Some("0"),
                    ..Section::default()
                });
                continue;
            }

            let section = sections.last_mut().unwrap_or(&mut session);
            if let Some(value) = strip_attribute(line, "fingerprint") {
                ensure_room(found.len(), FINGERPRINTS_MAX)?;
                found.push(strong(value)?);
                section.has_fingerprint = true;
            } else if let Some(mid) = strip_attribute(line, "mid") {
                section.mid = Some(mid);
            } else if let Some(group) = strip_attribute(line, "group") {
                ensure_room(bundles.len(), SECTIONS_MAX)?;
                bundles.extend(group.strip_prefix("BUNDLE "));
            } else if line == "a=bundle-only" {
                section.bundle_only = true;
            }
        }

        if sections.is_empty() {
            return Err(SdpError::NoMedia);
        }
        if !session.has_fingerprint {
            let uncovered = sections
                .iter()
                .position(|section| !section.is_covered(&sections, &bundles));
            if let Some(section) = uncovered {
                return Err(SdpError::Missing { section });
            }
        }
        if found.is_empty() {
            return Err(SdpError::Missing { section: 0 });
        }

        found.sort();
        found.dedup();
        Ok(Self(found))
    }

    /// The fingerprints, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Fingerprint> {
        self.0.iter()
    }

    /// Joined by commas, as they are signed.
    pub fn joined(&self) -> String {
        let texts: Vec<_> = self.0.iter().map(Fingerprint::as_str).collect();
        texts.join(",")
    }
}

#[derive(Default)]
struct Section<'a> {
    mid: Option<&'a str>,
    port_zero: bool,
    bundle_only: bool,
    has_fingerprint: bool,
}

impl Section<'_> {
    fn is_covered(&self, sections: &[Section<'_>], bundles: &[&str]) -> bool {
        let is_rejected = self.port_zero && !self.bundle_only;

        self.has_fingerprint || is_rejected || self.bundle_has_fingerprint(sections, bundles)
    }

    fn bundle_has_fingerprint(&self, sections: &[Section<'_>], bundles: &[&str]) -> bool {
        let Some(mid) = self.mid else { return false };
        let Some(bundle) = bundles
            .iter()
            .find(|bundle| bundle.split(' ').any(|member| member == mid))
        else {
            return false;
        };
        let first = bundle.split(' ').next();

        sections
            .iter()
            .any(|section| section.mid == first && section.has_fingerprint)
    }
}

fn strip_attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix("a=")?
        .strip_prefix(name)?
        .strip_prefix(':')
}

fn ensure_room(len: usize, len_max: usize) -> Result<(), SdpError> {
    if len < len_max {
        Ok(())
    } else {
        Err(SdpError::TooMany)
    }
}

/// `value` in lower case if it is a whole SHA-256, SHA-384 or SHA-512.
fn strong(value: &str) -> Result<Fingerprint, SdpError> {
    let value = value.trim().to_ascii_lowercase();
    let (hash, digest) = value.split_once(' ').ok_or(SdpError::Weak)?;

    let bytes = match hash {
        "sha-256" => 32,
        "sha-384" => 48,
        "sha-512" => 64,
        _ => return Err(SdpError::Weak),
    };

    let is_byte =
        |pair: &str| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
    let is_whole = digest.split(':').count() == bytes && digest.split(':').all(is_byte);

    if is_whole {
        Ok(Fingerprint(value))
    } else {
        Err(SdpError::Weak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_live_section_needs_a_strong_fingerprint() {
        let sha256 = fingerprint("sha-256", 32);
        let sha1 = fingerprint("sha-1", 20);
        let short = fingerprint("sha-256", 20);

        let check = |parts: &[&str], expected: Result<usize, SdpError>| {
            let sdp = format!(
                "v=0\r\n{}",
                parts
                    .iter()
                    .map(|part| format!("{part}\r\n"))
                    .collect::<String>()
            );
            assert_eq!(
                Fingerprints::of(&sdp).map(|found| found.0.len()),
                expected,
                "{sdp}"
            );
        };

        let (audio, video) = (
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
            "m=video 9 UDP/TLS/RTP/SAVPF 96",
        );
        let rejected = "m=video 0 UDP/TLS/RTP/SAVPF 96";

        check(&[&sha256, audio, video], Ok(1));
        check(&[audio, &sha256, video, &sha256], Ok(1));
        check(&[audio, &sha256, video, &fingerprint("SHA-512", 64)], Ok(2));
        check(
            &[audio, &sha256, video],
            Err(SdpError::Missing { section: 1 }),
        );
        check(
            &[audio, video, &sha256],
            Err(SdpError::Missing { section: 0 }),
        );
        check(&[audio], Err(SdpError::Missing { section: 0 }));
        check(&[audio, &sha1], Err(SdpError::Weak));
        check(&[&sha256, audio, &sha1], Err(SdpError::Weak));
        check(&[audio, &short], Err(SdpError::Weak));
        check(&[audio, "a=fingerprint:sha-256"], Err(SdpError::Weak));
        check(&[&sha256], Err(SdpError::NoMedia));
        check(&[audio, &sha256, rejected], Ok(1));
        check(&[rejected], Err(SdpError::Missing { section: 0 }));

        let bundle = "a=group:BUNDLE 0 1";
        check(
            &[bundle, audio, "a=mid:0", &sha256, video, "a=mid:1"],
            Ok(1),
        );
        check(
            &[
                bundle,
                audio,
                "a=mid:0",
                &sha256,
                rejected,
                "a=bundle-only",
                "a=mid:1",
            ],
            Ok(1),
        );
        check(
            &[bundle, audio, "a=mid:0", video, "a=mid:1", &sha256],
            Err(SdpError::Missing { section: 0 }),
        );
        check(
            &[bundle, audio, "a=mid:0", &sha256, video, "a=mid:2"],
            Err(SdpError::Missing { section: 1 }),
        );
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(Fingerprints::of(""), Err(SdpError::NotSdp));
        assert_eq!(Fingerprints::of("hello"), Err(SdpError::NotSdp));

        let many = format!("v=0\n{}", "m=audio 9 x 0\n".repeat(SECTIONS_MAX + 1));
        assert_eq!(Fingerprints::of(&many), Err(SdpError::TooMany));
        let many = format!(
            "v=0\n{}",
            format!("{}\n", fingerprint("sha-256", 32)).repeat(FINGERPRINTS_MAX + 1)
        );
        assert_eq!(Fingerprints::of(&many), Err(SdpError::TooMany));
    }

    #[test]
    fn what_is_signed_is_sorted_lower_case_and_each_once() {
        let sdp = format!(
            "v=0\nm=audio 9 x 0\n{0}\n{1}\nm=video 9 x 0\n{0}\n",
            fingerprint("sha-512", 64),
            fingerprint("SHA-256", 32)
        );
        let joined = Fingerprints::of(&sdp).unwrap().joined();

        assert!(joined.starts_with("sha-256 ab:ab:"));
        assert_eq!(joined.matches(',').count(), 1);
    }

    fn fingerprint(hash: &str, bytes: usize) -> String {
        format!("a=fingerprint:{hash} {}", vec!["AB"; bytes].join(":"))
    }
}
