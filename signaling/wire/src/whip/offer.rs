//! The offer of an encoder or a viewer: one direction, at most one audio and one video section (RFC 9725 §4.2, §4.4.2).

use super::fragment::IceCredentials;

/// The longest offer, in bytes: browsers need some 10 kB for one audio and one video section with all their codecs.
pub const OFFER_LEN_MAX: usize = 64 * 1024;

/// Which way the media of an HTTP session goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The client sends (WHIP).
    Publish,
    /// The client receives (WHEP).
    View,
}

impl Purpose {
    /// The direction its sections have.
    const fn direction(self) -> &'static str {
        match self {
            Self::Publish => "a=sendonly",
            Self::View => "a=recvonly",
        }
    }

    const fn opposite(self) -> &'static str {
        match self {
            Self::Publish => "a=recvonly",
            Self::View => "a=sendonly",
        }
    }
}

/// A section of an [`Offer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedSection {
    /// Its `mid`; not empty, and no other section's.
    pub mid: String,
    /// Audio or else video.
    pub is_audio: bool,
}

/// An offer in which every section has the direction of its [`Purpose`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    text: String,
    sections: Vec<OfferedSection>,
    credentials: IceCredentials,
}

/// Why an offer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// More than [`OFFER_LEN_MAX`] bytes.
    #[error("the offer is longer than {OFFER_LEN_MAX} bytes")]
    TooLong,
    /// It does not begin with `v=0`.
    #[error("not a session description")]
    NotSdp,
    /// It describes no media.
    #[error("the offer has no m= section")]
    NoMedia,
    /// A section is neither audio nor video.
    #[error("an m= section is neither audio nor video")]
    OtherMedia,
    /// More than one section of a kind.
    #[error("more than one audio or video m= section")]
    TooManySections,
    /// A section has no `mid`, or that of another.
    #[error("an m= section has no mid, or that of another one")]
    NoMid,
    /// A section goes the other way, or neither.
    #[error("an m= section is inactive or has the wrong direction")]
    WrongDirection,
    /// There are no ICE credentials, or they break RFC 8839 §5.4.
    #[error("the offer has no valid ice-ufrag and ice-pwd")]
    NoCredentials,
}

impl OfferError {
    /// Whether it is an offer we understand and do not serve, rather than a malformed one.
    pub const fn is_unsupported(self) -> bool {
        matches!(
            self,
            Self::OtherMedia | Self::TooManySections | Self::WrongDirection
        )
    }
}

impl Offer {
    /// Reads an offer. `sendrecv`, which RFC 9725 §4.2 allows, becomes the direction of `purpose`: the answer has its counterpart.
    ///
    /// # Errors
    ///
    /// What is wrong with it. Codecs, fingerprints and limits of single lines are looked at by who answers.
    pub fn read(sdp: &str, purpose: Purpose) -> Result<Self, OfferError> {
        if sdp.len() > OFFER_LEN_MAX {
            return Err(OfferError::TooLong);
        }
        let mut lines = sdp.lines().map(str::trim_end);
        if lines.next() != Some("v=0") {
            return Err(OfferError::NotSdp);
        }

        let mut text = String::with_capacity(sdp.len() + 64);
        let mut sections: Vec<OfferedSection> = Vec::with_capacity(2);
        let mut says_direction = true;
        let (mut ufrag, mut password) = (None, None);
        push(&mut text, "v=0");
        for line in lines.filter(|line| !line.is_empty()) {
            if let Some(media) = line.strip_prefix("m=") {
                if !says_direction {
                    push(&mut text, purpose.direction());
                }
                says_direction = false;
                begin_section(&mut sections, media)?;
            } else if let Some(mid) = line.strip_prefix("a=mid:") {
                name_section(&mut sections, mid)?;
            } else if let Some(value) = line.strip_prefix("a=ice-ufrag:") {
                ufrag.get_or_insert(value);
            } else if let Some(value) = line.strip_prefix("a=ice-pwd:") {
                password.get_or_insert(value);
            } else if is_direction(line) {
                if line == "a=inactive" || line == purpose.opposite() {
                    return Err(OfferError::WrongDirection);
                }
                // One that stands before all sections counts for those that say nothing (RFC 8866 §6.7), which all get the same.
                if !std::mem::replace(&mut says_direction, true) {
                    push(&mut text, purpose.direction());
                }
                continue;
            }
            push(&mut text, line);
        }
        if !says_direction {
            push(&mut text, purpose.direction());
        }

        if sections.is_empty() {
            return Err(OfferError::NoMedia);
        }
        if sections.iter().any(|section| section.mid.is_empty()) {
            return Err(OfferError::NoMid);
        }
        let credentials = ufrag
            .zip(password)
            .and_then(|(ufrag, password)| IceCredentials::new(ufrag, password))
            .ok_or(OfferError::NoCredentials)?;
        Ok(Self {
            text,
            sections,
            credentials,
        })
    }

    /// The SDP.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// One or two, in the order of the offer.
    pub fn sections(&self) -> &[OfferedSection] {
        &self.sections
    }

    /// What the client's STUN requests are signed with at its end.
    pub const fn credentials(&self) -> &IceCredentials {
        &self.credentials
    }

    /// The same offer with other ICE credentials: an ICE restart changes nothing else (RFC 9725 §4.3.3).
    #[must_use]
    pub fn restarted(&self, credentials: IceCredentials) -> Self {
        let mut text = String::with_capacity(self.text.len() + 512);
        for line in self.text.lines() {
            if line.starts_with("a=ice-ufrag:") {
                push(&mut text, &format!("a=ice-ufrag:{}", credentials.ufrag()));
            } else if line.starts_with("a=ice-pwd:") {
                push(&mut text, &format!("a=ice-pwd:{}", credentials.password()));
            } else if !line.starts_with("a=candidate:") && line != "a=end-of-candidates" {
                push(&mut text, line);
            }
        }
        Self {
            text,
            sections: self.sections.clone(),
            credentials,
        }
    }
}

fn begin_section(sections: &mut Vec<OfferedSection>, media: &str) -> Result<(), OfferError> {
    let is_audio = match media.split(' ').next() {
        Some("audio") => true,
        Some("video") => false,
        _ => return Err(OfferError::OtherMedia),
    };
    if sections.iter().any(|known| known.is_audio == is_audio) {
        return Err(OfferError::TooManySections);
    }
    sections.push(OfferedSection {
        mid: String::new(),
        is_audio,
    });
    Ok(())
}

fn name_section(sections: &mut [OfferedSection], mid: &str) -> Result<(), OfferError> {
    let is_taken = sections.iter().any(|section| section.mid == mid);
    match sections.last_mut() {
        Some(section) if section.mid.is_empty() && !mid.is_empty() && !is_taken => {
            section.mid = mid.to_owned();
            Ok(())
        }
        _ => Err(OfferError::NoMid),
    }
}

fn is_direction(line: &str) -> bool {
    matches!(
        line,
        "a=sendrecv" | "a=sendonly" | "a=recvonly" | "a=inactive"
    )
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const ICE: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:bP+XJMM09aR8AiX1jdukzR6Y";

    fn offer(lines: &[&str]) -> String {
        format!("v=0\r\n{}\r\n", lines.join("\r\n"))
    }

    #[test]
    fn one_audio_and_one_video_section_of_one_direction_are_taken() {
        let check = |purpose: Purpose, lines: &[&str], expected: Result<usize, OfferError>| {
            let sdp = offer(lines);
            let read = Offer::read(&sdp, purpose);
            assert_eq!(read.map(|offer| offer.sections.len()), expected, "{sdp}");
        };
        let (audio, video) = ("m=audio 9 x 111\r\na=mid:0", "m=video 9 x 96\r\na=mid:1");
        let (send, receive) = ("a=sendonly", "a=recvonly");
        let (publish, view) = (Purpose::Publish, Purpose::View);

        check(publish, &[audio, ICE, send, video, send], Ok(2));
        check(publish, &[ICE, video, "a=sendrecv"], Ok(1));
        check(view, &[ICE, video, audio], Ok(2));
        check(view, &[ICE, receive, video, audio, receive], Ok(2));

        let wrong = Err(OfferError::WrongDirection);
        check(publish, &[ICE, audio, receive], wrong);
        check(view, &[ICE, audio, send], wrong);
        check(publish, &[ICE, audio, "a=inactive"], wrong);
        check(publish, &[ICE, "a=inactive", audio, send], wrong);
        let many = Err(OfferError::TooManySections);
        check(publish, &[ICE, audio, "m=audio 9 x 111", "a=mid:2"], many);
        let other = Err(OfferError::OtherMedia);
        check(view, &[ICE, audio, "m=application 9 x y"], other);
        check(view, &[ICE, "m=text 9 x 98"], other);

        check(view, &[ICE], Err(OfferError::NoMedia));
        check(view, &[ICE, "m=audio 9 x 111"], Err(OfferError::NoMid));
        check(view, &[ICE, "a=mid:0", audio], Err(OfferError::NoMid));
        check(
            view,
            &[ICE, audio, "m=video 9 x", "a=mid:0"],
            Err(OfferError::NoMid),
        );
        check(view, &[audio], Err(OfferError::NoCredentials));
        check(
            view,
            &[audio, "a=ice-ufrag:a", "a=ice-pwd:b"],
            Err(OfferError::NoCredentials),
        );
    }

    #[test]
    fn what_is_no_offer_is_refused() {
        let check = |sdp: &str, error| {
            assert_eq!(Offer::read(sdp, Purpose::View), Err(error));
        };
        check("", OfferError::NotSdp);
        check("{}", OfferError::NotSdp);
        check("v=1\r\n", OfferError::NotSdp);
        check(&"v=0\r\n".repeat(OFFER_LEN_MAX), OfferError::TooLong);
    }

    #[test]
    fn both_directions_become_the_one_that_is_meant() {
        let sdp = offer(&[
            "m=audio 9 x 111",
            "a=mid:0",
            ICE,
            "m=video 9 x 96",
            "a=sendrecv",
            "a=mid:1",
        ]);
        let read = Offer::read(&sdp, Purpose::Publish).unwrap();
        assert_eq!(read.text().matches("a=sendonly\r\n").count(), 2);
        assert!(!read.text().contains("sendrecv"));
        let again = Offer::read(read.text(), Purpose::Publish).unwrap();
        assert_eq!(again, read);
    }

    #[test]
    fn an_ice_restart_changes_the_credentials_alone() {
        let candidate = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host";
        let sdp = offer(&["m=audio 9 x 111", "a=mid:0", ICE, candidate, "a=sendonly"]);
        let read = Offer::read(&sdp, Purpose::Publish).unwrap();
        let credentials = IceCredentials::new("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k").unwrap();

        let restarted = read.restarted(credentials.clone());
        assert_eq!(restarted.credentials(), &credentials);
        let expected = read
            .text()
            .replace("EsAw", "ysXw")
            .replace("bP+XJMM09aR8AiX1jdukzR6Y", "vw5LmwG4y/e6dPP/zAP9Gp5k")
            .replace(&format!("{candidate}\r\n"), "");
        assert_eq!(restarted.text(), expected);
    }
}
