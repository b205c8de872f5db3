//! What a body is: a description of media, alone or among other parts (RFC 2046 §5.1, RFC 5621).

use crate::{HeaderName, Headers, Params};

/// The most parts of a body that are looked at.
const PARTS_MAX: usize = 16;
/// The longest boundary (RFC 2046 §5.1.1), in bytes.
const BOUNDARY_LEN_MAX: usize = 70;

/// What a body has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// There is none.
    None,
    /// SDP; of several parts, the first one that is.
    Description(&'a [u8]),
    /// Something else: what only allows SDP answers with 415.
    Other,
}

impl<'a> Content<'a> {
    /// Looks at `body` of a message with these headers. Parts that are no SDP, as providers add them, are passed over.
    #[must_use]
    pub fn of(headers: &Headers, body: &'a [u8]) -> Self {
        if body.is_empty() {
            return Self::None;
        }
        let encoded = headers
            .get(&HeaderName::ContentEncoding)
            .is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"));
        let kind = headers.get(&HeaderName::ContentType).unwrap_or_default();
        let (kind, params) = kind.split_once(';').unwrap_or((kind, ""));
        let kind = kind.trim();
        if encoded {
            Self::Other
        } else if kind.eq_ignore_ascii_case("application/sdp") {
            Self::Description(body)
        } else if kind
            .get(..10)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
        {
            let params = Params::parse_header(params, "Content-Type").unwrap_or_default();
            let boundary = params.get_unquoted("boundary").unwrap_or_default();
            find_description(body, &boundary).map_or(Self::Other, Self::Description)
        } else {
            Self::Other
        }
    }
}

fn find_description<'a>(body: &'a [u8], boundary: &str) -> Option<&'a [u8]> {
    if boundary.is_empty() || boundary.len() > BOUNDARY_LEN_MAX {
        return None;
    }
    let delimiter = format!("--{boundary}");
    // The line end in front of a delimiter is its own (RFC 2046 §5.1.1); the first one needs none.
    let mut rest = match body.strip_prefix(delimiter.as_bytes()) {
        Some(rest) => rest,
        None => cut(body, format!("\r\n{delimiter}").as_bytes())?.1,
    };
    let delimiter = format!("\r\n{delimiter}");
    for _ in 0..PARTS_MAX {
        // Two hyphens end it all; blanks may follow the boundary.
        let (padding, after) = cut(rest, b"\r\n")?;
        if padding.iter().any(|byte| !b" \t".contains(byte)) {
            return None;
        }
        let (part, next) = cut(after, delimiter.as_bytes())?;
        // A part without headers begins with an empty line.
        let (head, content) = match part.strip_prefix(b"\r\n") {
            Some(content) => (&part[..0], content),
            None => cut(part, b"\r\n\r\n").unwrap_or((part, &part[..0])),
        };
        if is_description(head) {
            return Some(content);
        }
        rest = next;
    }
    None
}

/// Whether the headers of a part say SDP, as it is.
fn is_description(head: &[u8]) -> bool {
    let Ok(head) = str::from_utf8(head) else {
        return false;
    };
    let value = |name: &str| {
        head.split("\r\n").find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known
                .trim()
                .eq_ignore_ascii_case(name)
                .then(|| value.split(';').next().unwrap_or_default().trim())
        })
    };
    value("Content-Type").is_some_and(|kind| kind.eq_ignore_ascii_case("application/sdp"))
        && value("Content-Transfer-Encoding").is_none_or(|encoding| {
            ["binary", "8bit", "7bit"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(encoding))
        })
}

fn cut<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..start], &bytes[start + at.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, body: &str, expected: Content<'_>) {
        let mut headers = Headers::new();
        headers.push(HeaderName::ContentType, kind);
        let body = body.replace('\n', "\r\n");
        assert_eq!(Content::of(&headers, body.as_bytes()), expected, "{kind}");
    }

    #[test]
    fn a_description_is_found_alone_and_among_others() {
        let sdp = Content::Description(b"v=0");
        check("application/SDP", "v=0", sdp);
        check("application/sdp;charset=utf-8", "v=0", sdp);
        check("text/plain", "v=0", Content::Other);
        check("", "v=0", Content::Other);
        check("application/sdp", "", Content::None);
        let parts = "before\n--b-1\nContent-Type: application/isup\n\n\u{1}\u{2}\n--b-1 \ncontent-type : application/sdp\n\
            Content-Disposition: session\n\nv=0\n--b-1--\n";
        for kind in [
            "multipart/mixed;boundary=b-1",
            "Multipart/Mixed; charset=x; boundary=\"b-1\"",
        ] {
            check(kind, parts, sdp);
        }
        check("multipart/mixed", parts, Content::Other);
        check("multipart/mixed;boundary=b", parts, Content::Other);
        check("multipart/mixed;boundary=other", parts, Content::Other);
        let open = "--b\nContent-Type: application/sdp\n\nv=0";
        check("multipart/mixed;boundary=b", open, Content::Other);
        let encoded =
            "--b\nContent-Type: application/sdp\nContent-Transfer-Encoding: base64\n\ndj0w\n--b--";
        check("multipart/mixed;boundary=b", encoded, Content::Other);
        let bare = "--b\n\ntext\n--b\nContent-Type: application/sdp\n\nv=0\n--b--";
        check("multipart/mixed;boundary=b", bare, sdp);
        let many = "--b\n\nx\n".repeat(PARTS_MAX) + open + "\n--b--";
        check("multipart/mixed;boundary=b", &many, Content::Other);
    }

    #[test]
    fn a_body_that_is_packed_is_left_alone() {
        let mut headers = Headers::new();
        headers.push(HeaderName::ContentType, "application/sdp");
        headers.push(HeaderName::ContentEncoding, "gzip");
        assert_eq!(Content::of(&headers, b"v=0"), Content::Other);
        headers.set(HeaderName::ContentEncoding, "identity");
        assert_eq!(Content::of(&headers, b"v=0"), Content::Description(b"v=0"));
    }
}
