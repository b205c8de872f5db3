//! What a request asks for.

use std::fmt;

use crate::text;

/// A method: those we know, or any other token. Methods differ by case (RFC 3261 §7.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Register,
    Prack,
    Update,
    Info,
    Refer,
    Notify,
    Subscribe,
    Message,
    Publish,
    /// An extension's.
    Other(Box<str>),
}

const KNOWN: [(Method, &str); 14] = [
    (Method::Invite, "INVITE"),
    (Method::Ack, "ACK"),
    (Method::Bye, "BYE"),
    (Method::Cancel, "CANCEL"),
    (Method::Options, "OPTIONS"),
    (Method::Register, "REGISTER"),
    (Method::Prack, "PRACK"),
    (Method::Update, "UPDATE"),
    (Method::Info, "INFO"),
    (Method::Refer, "REFER"),
    (Method::Notify, "NOTIFY"),
    (Method::Subscribe, "SUBSCRIBE"),
    (Method::Message, "MESSAGE"),
    (Method::Publish, "PUBLISH"),
];

impl Method {
    /// Reads a method; `None` for what is no token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let known = KNOWN.iter().find(|(_, name)| *name == text);
        match known {
            Some((method, _)) => Some(method.clone()),
            None => text::is_token(text).then(|| Self::Other(text.into())),
        }
    }

    /// The method as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => KNOWN
                .iter()
                .find(|(method, _)| method == known)
                .map_or("", |(_, name)| name),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_reads_as_it_is_written() {
        for (method, name) in KNOWN {
            assert_eq!(Method::parse(name), Some(method.clone()));
            assert_eq!(method.to_string(), name);
        }
        let odd = "!interesting-Method0123456789_*+`.%indeed'~";
        assert_eq!(
            Method::parse(odd).map(|m| m.to_string()).as_deref(),
            Some(odd)
        );
        assert_eq!(
            Method::parse("invite"),
            Some(Method::Other("invite".into()))
        );
        assert_eq!(Method::parse("IN VITE"), None);
        assert_eq!(Method::parse(""), None);
    }
}
