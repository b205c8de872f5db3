//! Session descriptions (RFC 8866), as far as calls need them.
//!
//! Read are origin, connection, direction, media lines and their attributes; times, bandwidths and titles are passed over, for a
//! description of ours is written anew.

use std::fmt;
use std::net::IpAddr;

use crate::text;
use crate::{DecodeError, Host};

/// The longest description that is read, in bytes.
pub const SDP_LEN_MAX: usize = 16_384;
/// The most media sections of one description.
pub const MEDIA_MAX: usize = 16;
/// The most formats of one section.
pub const FORMATS_MAX: usize = 64;
/// The most attributes of one section, or of the session.
pub const ATTRIBUTES_MAX: usize = 128;

/// A description of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// `o=`.
    pub origin: Origin,
    /// `c=` of the session.
    pub connection: Option<Host>,
    /// `a=` of the session.
    pub attributes: Attributes,
    /// The sections.
    pub media: Vec<Media>,
}

/// `o=`: whose description, and the which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The number of the session, as it is written.
    pub session: String,
    /// The version; it rises with each change.
    pub version: u64,
    /// The address of its maker.
    pub address: Host,
}

/// One `m=` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `image` or another.
    pub kind: String,
    /// The port; 0 refuses or ends the section.
    pub port: u16,
    /// `RTP/AVP` or another.
    pub protocol: String,
    /// The formats: payload types of RTP.
    pub formats: Vec<String>,
    /// `c=` of the section.
    pub connection: Option<Host>,
    /// `a=` of the section.
    pub attributes: Attributes,
}

/// `a=` lines in their order: a name and a value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(String, Option<String>)>);

/// Who sends, as the describer of a section sees it (RFC 8866 §6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Both.
    #[default]
    SendRecv,
    /// The describer only.
    SendOnly,
    /// The other only.
    RecvOnly,
    /// Nobody.
    Inactive,
}

impl Direction {
    const ALL: [(Self, &'static str); 4] = [
        (Self::SendRecv, "sendrecv"),
        (Self::SendOnly, "sendonly"),
        (Self::RecvOnly, "recvonly"),
        (Self::Inactive, "inactive"),
    ];

    /// From whether the describer sends and whether it receives.
    #[must_use]
    pub fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether the describer sends.
    #[must_use]
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the describer receives.
    #[must_use]
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same, as the other side would describe it.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// The most that both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(
            self.sends() && other.sends(),
            self.receives() && other.receives(),
        )
    }

    /// The name of the attribute.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == self)
            .map_or("", |(_, name)| name)
    }
}

impl Session {
    /// Reads a description. Lines may end with LF alone, as many write them.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for what is no description of version 0, or is over one of this module's limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > SDP_LEN_MAX {
            return Err(DecodeError::TooLong {
                what: "SDP",
                max: SDP_LEN_MAX,
            });
        }
        let text = str::from_utf8(bytes).map_err(|_| DecodeError::malformed("SDP"))?;
        let mut lines = text.lines().filter(|line| !line.is_empty());
        if lines.next() != Some("v=0") {
            return Err(DecodeError::malformed("v="));
        }
        let origin = lines
            .next()
            .and_then(|line| line.strip_prefix("o="))
            .and_then(parse_origin);
        let mut session = Self {
            origin: origin.ok_or(DecodeError::malformed("o="))?,
            connection: None,
            attributes: Attributes::default(),
            media: Vec::new(),
        };
        for line in lines {
            let (kind, value) = line.split_once('=').ok_or(DecodeError::malformed("SDP"))?;
            session.parse_line(kind, value)?;
        }
        Ok(session)
    }

    fn parse_line(&mut self, kind: &str, value: &str) -> Result<(), DecodeError> {
        match kind {
            "m" if self.media.len() == MEDIA_MAX => {
                return Err(DecodeError::TooMany {
                    what: "media sections",
                    max: MEDIA_MAX,
                });
            }
            "m" => self.media.push(parse_media(value)?),
            "c" => {
                let connection = parse_connection(value).ok_or(DecodeError::malformed("c="))?;
                match self.media.last_mut() {
                    Some(media) => media.connection = Some(connection),
                    None => self.connection = Some(connection),
                }
            }
            "a" => {
                let attributes = match self.media.last_mut() {
                    Some(media) => &mut media.attributes,
                    None => &mut self.attributes,
                };
                if attributes.0.len() == ATTRIBUTES_MAX {
                    return Err(DecodeError::TooMany {
                        what: "attributes",
                        max: ATTRIBUTES_MAX,
                    });
                }
                let (name, value) = match value.split_once(':') {
                    Some((name, value)) => (name, Some(value)),
                    None => (value, None),
                };
                attributes.push(name, value);
            }
            _ if kind.len() == 1 && kind.as_bytes()[0].is_ascii_lowercase() => {}
            _ => return Err(DecodeError::malformed("SDP")),
        }
        Ok(())
    }

    /// Where the media of a section goes: its own connection or that of the session.
    #[must_use]
    pub fn connection_of<'a>(&'a self, media: &'a Media) -> Option<&'a Host> {
        media.connection.as_ref().or(self.connection.as_ref())
    }

    /// The direction of a section: its own, or that of the session. An address of zeros is how phones held a call before there
    /// were directions (RFC 2543 §B.5): whoever gives it receives nothing.
    #[must_use]
    pub fn direction_of(&self, media: &Media) -> Direction {
        let said = media
            .attributes
            .direction()
            .or_else(|| self.attributes.direction())
            .unwrap_or_default();
        let address = self.connection_of(media).and_then(Host::ip);
        if address.is_some_and(|address| address.is_unspecified()) {
            Direction::new(said.sends(), false)
        } else {
            said
        }
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin {
            session,
            version,
            address,
        } = &self.origin;
        write!(
            f,
            "v=0\r\no=- {session} {version} {}\r\ns=-\r\n",
            Address(address)
        )?;
        if let Some(connection) = &self.connection {
            write!(f, "c={}\r\n", Address(connection))?;
        }
        write!(f, "t=0 0\r\n{}", self.attributes)?;
        for media in &self.media {
            write!(
                f,
                "m={} {} {} {}\r\n",
                media.kind,
                media.port,
                media.protocol,
                media.formats.join(" ")
            )?;
            if let Some(connection) = &media.connection {
                write!(f, "c={}\r\n", Address(connection))?;
            }
            media.attributes.fmt(f)?;
        }
        Ok(())
    }
}

impl Attributes {
    /// Adds one at the end. Line ends in `value` become blanks.
    pub fn push(&mut self, name: &str, value: Option<&str>) {
        let line = |text: &str| text.replace(['\r', '\n'], " ");
        self.0.push((line(name), value.map(line)));
    }

    /// All values of a name; an attribute without a value has an empty one.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_deref().unwrap_or_default())
    }

    /// The first value of a name.
    #[must_use]
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// The direction, when one is said.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        let of = |name: &str| {
            Direction::ALL
                .iter()
                .find(|(_, known)| *known == name)
                .map(|(direction, _)| *direction)
        };
        self.0
            .iter()
            .find_map(|(name, value)| of(name).filter(|_| value.is_none()))
    }

    /// The value of an attribute that speaks of one format, as `rtpmap` and `fmtp` do: what follows the format.
    #[must_use]
    pub fn of_format(&self, name: &str, format: &str) -> Option<&str> {
        self.0
            .iter()
            .filter(|(known, _)| known == name)
            .find_map(|(_, value)| {
                let (of, rest) = value.as_deref()?.split_once(' ')?;
                (of == format).then(|| text::trim(rest))
            })
    }
}

/// Values stay out of logs: keys are among them.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| match value {
            Some(value) => write!(f, "a={name}:{value}\r\n"),
            None => write!(f, "a={name}\r\n"),
        })
    }
}

struct Address<'a>(&'a Host);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Host::Ip(IpAddr::V6(address)) => write!(f, "IN IP6 {address}"),
            Host::Ip(IpAddr::V4(address)) => write!(f, "IN IP4 {address}"),
            Host::Name(name) => write!(f, "IN IP4 {name}"),
        }
    }
}

fn parse_origin(value: &str) -> Option<Origin> {
    let mut words = value.split(' ');
    let (_user, session, version) = (words.next()?, words.next()?, words.next()?);
    let address = parse_connection(&words.collect::<Vec<_>>().join(" "))?;
    let is_number = !session.is_empty() && session.bytes().all(|byte| byte.is_ascii_digit());
    // Some count the version in more than 64 bits' worth of clock; only its change matters.
    let version = text::decimal(version, u64::MAX)?;
    is_number.then(|| Origin {
        session: session.to_owned(),
        version,
        address,
    })
}

/// `IN IP4 192.0.2.1`. Groups of multicast, with their TTL and count, are no place for a call.
fn parse_connection(value: &str) -> Option<Host> {
    let mut words = value.split(' ').filter(|word| !word.is_empty());
    let (network, family, address) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || network != "IN" {
        return None;
    }
    match (family, address.parse::<IpAddr>()) {
        ("IP4", Ok(ip)) if ip.is_ipv4() => Some(Host::Ip(ip)),
        ("IP6", Ok(ip)) if ip.is_ipv6() => Some(Host::Ip(ip)),
        ("IP4" | "IP6", Err(_)) => Host::parse(address).filter(|host| host.ip().is_none()),
        _ => None,
    }
}

fn parse_media(value: &str) -> Result<Media, DecodeError> {
    const MALFORMED: DecodeError = DecodeError::malformed("m=");
    let mut words = value.split(' ').filter(|word| !word.is_empty());
    let mut next = || words.next().ok_or(MALFORMED);
    let (kind, port, protocol) = (next()?, next()?, next()?);
    // `port/count`: the first port is what we use.
    let port = port.split_once('/').map_or(port, |(port, _)| port);
    let port = text::decimal(port, 65_535)
        .and_then(|port| u16::try_from(port).ok())
        .ok_or(MALFORMED)?;
    let formats: Vec<_> = words.take(FORMATS_MAX + 1).map(str::to_owned).collect();
    if formats.len() > FORMATS_MAX {
        return Err(DecodeError::TooMany {
            what: "formats",
            max: FORMATS_MAX,
        });
    }
    if formats.is_empty() || !text::is_token(kind) {
        return Err(MALFORMED);
    }
    Ok(Media {
        kind: kind.to_owned(),
        port,
        protocol: protocol.to_owned(),
        formats,
        connection: None,
        attributes: Attributes::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: &str = "v=0\r\no=- 123 4 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\na=x\r\n\
        m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendonly\r\n\
        m=video 0 RTP/AVP 31\r\nc=IN IP6 2001:db8::1\r\n";

    #[test]
    fn a_description_is_written_as_it_was_read() {
        let session = Session::parse(PHONE.as_bytes()).expect("it is right");
        assert_eq!(session.to_string(), PHONE);
        let audio = &session.media[0];
        assert_eq!(audio.attributes.of_format("fmtp", "101"), Some("0-15"));
        assert_eq!(audio.attributes.of_format("fmtp", "10"), None);
        assert_eq!(session.direction_of(audio), Direction::SendOnly);
        assert_eq!(
            session.connection_of(&session.media[1]),
            Some(&Host::Ip("2001:db8::1".parse().expect("an address")))
        );
        let bare = PHONE.replace("\r\n", "\n");
        assert_eq!(Session::parse(bare.as_bytes()), Ok(session));
    }

    #[test]
    fn what_is_no_description_or_a_bomb_is_refused() {
        let with = |line: &str| format!("{PHONE}{line}\r\n");
        for wrong in [
            String::new(),
            "v=1\r\n".into(),
            "v=0\r\ns=-\r\n".into(),
            PHONE.replace("o=- 123 4", "o=- x 4"),
            PHONE.replace("IN IP4 192.0.2.1", "IN IP4 2001:db8::1"),
            PHONE.replace("c=IN IP4 192.0.2.1", "c=IN IP4 224.2.1.1/127"),
            PHONE.replace("audio 4000", "audio 65536"),
            PHONE.replace("audio 4000", "audio -1"),
            PHONE.replace("RTP/AVP 0 101", "RTP/AVP"),
            with("no equals sign"),
            with("longer=x"),
            with(&"m=audio 1 RTP/AVP 0\r\n".repeat(MEDIA_MAX)),
            with(&"a=x\r\n".repeat(ATTRIBUTES_MAX + 1)),
            with(&format!(
                "m=audio 1 RTP/AVP{}",
                " 0".repeat(FORMATS_MAX + 1)
            )),
            with(&format!("i={}", "x".repeat(SDP_LEN_MAX))),
        ] {
            assert!(
                Session::parse(wrong.as_bytes()).is_err(),
                "{}",
                &wrong[..wrong.len().min(200)]
            );
        }
        assert!(Session::parse(b"v=0\r\no=- 1 1 IN IP4 h\r\ns=\xff\r\n").is_err());
    }

    #[test]
    fn an_address_of_zeros_holds() {
        let held = PHONE
            .replace("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0")
            .replace("a=sendonly\r\n", "");
        let session = Session::parse(held.as_bytes()).expect("it is right");
        assert_eq!(session.direction_of(&session.media[0]), Direction::SendOnly);
    }

    #[test]
    fn directions() {
        assert_eq!(Direction::SendOnly.reversed(), Direction::RecvOnly);
        assert_eq!(
            Direction::SendRecv.and(Direction::RecvOnly),
            Direction::RecvOnly
        );
        assert_eq!(
            Direction::SendOnly.and(Direction::RecvOnly),
            Direction::Inactive
        );
    }
}
