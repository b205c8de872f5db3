//! Headers: the bearer token, the precondition of a PATCH, and the ICE servers of an answer.

use crate::server::IceServer;

/// The most entity-tags of one `If-Match`.
const TAGS_MAX: usize = 16;

/// The access token of an `Authorization` header (RFC 6750 §2.1); `None` for another scheme or none.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What `If-Match` asks for (RFC 9110 §13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever there is: how an ICE restart is asked for.
    Any,
    /// One of these entity-tags, quotes included. Weak ones never match.
    Tags(Vec<String>),
}

/// An `If-Match` that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("If-Match is neither * nor a list of entity-tags")]
pub struct PreconditionError;

impl Precondition {
    /// Reads an `If-Match`. The examples of RFC 9725 put `*` in quotes; that is taken for one, too.
    ///
    /// # Errors
    ///
    /// Neither `*` nor up to 16 quoted tags.
    pub fn read(value: &str) -> Result<Self, PreconditionError> {
        let value = value.trim();
        if value == "*" || value == "\"*\"" {
            return Ok(Self::Any);
        }

        let mut tags = Vec::new();
        let mut rest = value;
        loop {
            let start = usize::from(rest.starts_with("W/")) * 2;
            let opaque = rest[start..].strip_prefix('"').ok_or(PreconditionError)?;
            let len = opaque.find('"').ok_or(PreconditionError)?;
            let end = start + 1 + len + 1;
            if tags.len() == TAGS_MAX {
                return Err(PreconditionError);
            }
            tags.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
            if rest.is_empty() {
                return Ok(Self::Tags(tags));
            }
            rest = rest
                .strip_prefix(',')
                .ok_or(PreconditionError)?
                .trim_start();
        }
    }

    /// Whether it holds for what has this strong entity-tag, quotes included.
    pub fn holds_for(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.iter().any(|known| known == tag),
        }
    }
}

/// The values of `Link` that tell a client of `server`, one for each address (RFC 9725 §4.6).
pub fn ice_links(server: &IceServer) -> Vec<String> {
    let link = |url: &String| {
        let mut link = format!("<{url}>; rel=\"ice-server\"");
        if let (Some(username), Some(credential)) = (&server.username, &server.credential) {
            link.push_str("; username=");
            push_quoted(&mut link, username);
            link.push_str("; credential=");
            push_quoted(&mut link, credential);
            link.push_str("; credential-type=\"password\"");
        }
        link
    };
    server.urls.iter().map(link).collect()
}

/// A quoted-string (RFC 9110 §5.6.4).
fn push_quoted(text: &mut String, value: &str) {
    text.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_in_whichever_case() {
        assert_eq!(bearer("Bearer abc.def"), Some("abc.def"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("Bearer "), None);
        assert_eq!(bearer("Bearer"), None);
        assert_eq!(bearer(""), None);
    }

    #[test]
    fn if_match_names_tags_or_anything() {
        let check = |value: &str, matching: &str, expected: Result<bool, PreconditionError>| {
            let read = Precondition::read(value);
            assert_eq!(
                read.map(|read| read.holds_for(matching)),
                expected,
                "{value}"
            );
        };

        check("*", "\"1\"", Ok(true));
        check(" \"*\" ", "\"1\"", Ok(true));
        check("\"1\"", "\"1\"", Ok(true));
        check("\"1\"", "\"2\"", Ok(false));
        check("\"a\", \"b\",\"1\"", "\"1\"", Ok(true));
        check("\"a,b\"", "\"b\"", Ok(false));
        check("W/\"1\"", "\"1\"", Ok(false));
        check("\"\"", "\"1\"", Ok(false));

        let wrong = Err(PreconditionError);
        check("", "\"1\"", wrong);
        check("1", "\"1\"", wrong);
        check("\"1", "\"1\"", wrong);
        check("\"1\" \"2\"", "\"1\"", wrong);
        check("\"1\",", "\"1\"", wrong);
        check("W/", "\"1\"", wrong);
        check(&"\"1\",".repeat(40), "\"1\"", wrong);
    }

    #[test]
    fn ice_servers_become_links() {
        let stun = IceServer {
            urls: vec!["stun:stun.example.net".into()],
            username: None,
            credential: None,
        };
        assert_eq!(
            ice_links(&stun),
            ["<stun:stun.example.net>; rel=\"ice-server\""]
        );

        let turn = IceServer {
            urls: vec![
                "turn:a?transport=udp".into(),
                "turns:a?transport=tcp".into(),
            ],
            username: Some("1:a:b\"c".into()),
            credential: Some("p\\w".into()),
        };
        let expected = |url: &str| {
            format!(
                "<{url}>; rel=\"ice-server\"; username=\"1:a:b\\\"c\"; credential=\"p\\\\w\"; credential-type=\"password\""
            )
        };
        assert_eq!(
            ice_links(&turn),
            [
                expected("turn:a?transport=udp"),
                expected("turns:a?transport=tcp")
            ]
        );
    }
}
