//! The body of a PATCH: an SDP fragment with ICE credentials and candidates (RFC 8840 §9).

/// The longest fragment, in bytes.
pub const FRAGMENT_LEN_MAX: usize = 16 * 1024;
/// The most candidates of one fragment.
pub const CANDIDATES_MAX: usize = 64;

/// How long credentials may be (RFC 8839 §5.4).
const CREDENTIAL_LEN_MAX: usize = 256;
const UFRAG_LEN_MIN: usize = 4;
const PASSWORD_LEN_MIN: usize = 22;

/// `ice-ufrag` and `ice-pwd` within the limits of RFC 8839 §5.4.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    ufrag: String,
    password: String,
}

impl IceCredentials {
    /// `None` when one is too short or too long, or has other characters than letters, digits, `+` and `/`.
    pub fn new(ufrag: &str, password: &str) -> Option<Self> {
        let is_plain = |text: &str, len_min: usize| {
            let is_ice_char = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
            (len_min..=CREDENTIAL_LEN_MAX).contains(&text.len()) && text.bytes().all(is_ice_char)
        };
        let is_valid = is_plain(ufrag, UFRAG_LEN_MIN) && is_plain(password, PASSWORD_LEN_MIN);
        is_valid.then(|| Self {
            ufrag: ufrag.to_owned(),
            password: password.to_owned(),
        })
    }

    /// Whose media it is.
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// The secret.
    pub fn password(&self) -> &str {
        &self.password
    }
}

/// Without the secret.
impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials")
            .field("ufrag", &self.ufrag)
            .finish_non_exhaustive()
    }
}

/// What an SDP fragment says. Candidates are counted: a lite agent checks none (RFC 8445 §2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Those of the ICE session it is about, or of the one it begins.
    pub credentials: Option<IceCredentials>,
    /// How many candidates there are.
    pub candidates: usize,
    /// Whether no more will come.
    pub is_complete: bool,
}

/// Why a fragment is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// More than [`FRAGMENT_LEN_MAX`] bytes.
    #[error("the fragment is longer than {FRAGMENT_LEN_MAX} bytes")]
    TooLong,
    /// More than [`CANDIDATES_MAX`] candidates.
    #[error("the fragment has more than {CANDIDATES_MAX} candidates")]
    TooManyCandidates,
    /// A line is no `type=value`.
    #[error("a line is no SDP")]
    NotSdp,
    /// It says nothing about ICE.
    #[error("the fragment has neither ICE credentials nor candidates")]
    Empty,
    /// One of `ice-ufrag` and `ice-pwd` is missing, differs between sections, or breaks RFC 8839 §5.4.
    #[error("ice-ufrag and ice-pwd are not one valid pair")]
    BadCredentials,
}

impl Fragment {
    /// Reads a fragment. Lines that have nothing to do with ICE are passed over.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, FragmentError> {
        if text.len() > FRAGMENT_LEN_MAX {
            return Err(FragmentError::TooLong);
        }

        let (mut ufrag, mut password) = (None, None);
        let (mut candidates, mut is_complete) = (0, false);
        let lines = text.lines().map(str::trim_end);
        for line in lines.filter(|line| !line.is_empty()) {
            let is_sdp = line.len() > 2 && line.is_char_boundary(2) && line.as_bytes()[1] == b'=';
            if !is_sdp {
                return Err(FragmentError::NotSdp);
            }
            if let Some(value) = line.strip_prefix("a=ice-ufrag:") {
                hold(&mut ufrag, value)?;
            } else if let Some(value) = line.strip_prefix("a=ice-pwd:") {
                hold(&mut password, value)?;
            } else if line.starts_with("a=candidate:") {
                candidates += 1;
            } else if line == "a=end-of-candidates" {
                is_complete = true;
            }
        }

        let credentials = match (ufrag, password) {
            (None, None) => None,
            (Some(ufrag), Some(password)) => {
                Some(IceCredentials::new(ufrag, password).ok_or(FragmentError::BadCredentials)?)
            }
            _ => return Err(FragmentError::BadCredentials),
        };
        if candidates > CANDIDATES_MAX {
            return Err(FragmentError::TooManyCandidates);
        }
        if credentials.is_none() && candidates == 0 && !is_complete {
            return Err(FragmentError::Empty);
        }
        Ok(Self {
            credentials,
            candidates,
            is_complete,
        })
    }
}

/// Takes a value that may stand in every section, the same each time.
fn hold<'a>(held: &mut Option<&'a str>, value: &'a str) -> Result<(), FragmentError> {
    if *held.get_or_insert(value) == value {
        Ok(())
    } else {
        Err(FragmentError::BadCredentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UFRAG: &str = "a=ice-ufrag:EsAw";
    const PASSWORD: &str = "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1";
    const CANDIDATE: &str =
        "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw";

    /// `ufrag candidates complete`, with `-` where there is no ufrag.
    fn check(lines: &[&str], expected: Result<&str, FragmentError>) {
        let read = Fragment::read(&lines.join("\r\n")).map(|fragment| {
            let credentials = fragment.credentials;
            let ufrag = credentials.map_or("-".to_owned(), |both| both.ufrag);
            format!("{ufrag} {} {}", fragment.candidates, fragment.is_complete)
        });
        assert_eq!(read.as_deref(), expected.as_ref().copied(), "{lines:?}");
    }

    #[test]
    fn the_example_of_rfc_9725_is_read() {
        let head = ["a=group:BUNDLE 0 1", "m=audio 9 UDP/TLS/RTP/SAVPF 111"];
        let all = [
            &head[..],
            &["a=mid:0", UFRAG, PASSWORD, CANDIDATE, CANDIDATE],
            &["a=end-of-candidates", ""],
        ];
        check(&all.concat(), Ok("EsAw 2 true"));
        check(
            &[UFRAG, PASSWORD, "m=video 9 RTP/AVP 0", CANDIDATE],
            Ok("EsAw 1 false"),
        );
        check(&[CANDIDATE], Ok("- 1 false"));
        check(&["a=end-of-candidates"], Ok("- 0 true"));
        check(
            &[UFRAG, PASSWORD, "m=a", UFRAG, PASSWORD],
            Ok("EsAw 0 false"),
        );
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let bad = Err(FragmentError::BadCredentials);
        check(&[UFRAG], bad);
        check(&[PASSWORD, CANDIDATE], bad);
        check(&[UFRAG, PASSWORD, "a=ice-ufrag:other"], bad);
        check(&["a=ice-ufrag:abc", PASSWORD], bad);
        check(&[UFRAG, "a=ice-pwd:tooshort"], bad);
        check(&["a=ice-ufrag:a b c d", PASSWORD], bad);
        check(&[], Err(FragmentError::Empty));
        check(&["a=group:BUNDLE 0"], Err(FragmentError::Empty));
        check(&["hello"], Err(FragmentError::NotSdp));
        check(&["{\"candidate\":\"a\"}"], Err(FragmentError::NotSdp));
        check(&["a="], Err(FragmentError::NotSdp));
        check(&["é="], Err(FragmentError::NotSdp));
        let many = [CANDIDATE; CANDIDATES_MAX + 1];
        check(&many, Err(FragmentError::TooManyCandidates));
        let long = "a=".repeat(FRAGMENT_LEN_MAX);
        check(&[&long], Err(FragmentError::TooLong));
    }

    #[test]
    fn the_password_is_not_printed() {
        let credentials = IceCredentials::new("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1").unwrap();
        assert!(!format!("{credentials:?}").contains("P2uY"));
    }
}
