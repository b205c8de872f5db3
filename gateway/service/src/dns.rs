//! Questions to the domain name system that the system's own resolver has no call for: SRV (RFC 1035, 2782).
//!
//! Messages are read here and nothing is decided; a server that answers may be anybody who guessed the number and the port, so all that
//! comes is bounded, and read by functions that are total.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// The most records of an answer that are used.
pub(crate) const RECORDS_MAX: usize = 16;

/// How long a server is waited for, and how often all of them are asked.
const PATIENCE: Duration = Duration::from_millis(1_500);
const ROUNDS: usize = 2;

/// The most servers that are asked.
const SERVERS_MAX: usize = 3;

/// The longest name, in bytes (RFC 1035 §2.3.4).
const NAME_LEN_MAX: usize = 255;
/// The longest label.
const LABEL_LEN_MAX: usize = 63;
/// How many pointers of one name are followed.
const POINTERS_MAX: usize = 16;
/// How many aliases of one name are followed.
const ALIASES_MAX: usize = 8;
/// The most records of a message that are looked at.
const LOOKED_AT_MAX: usize = 64;
/// The longest answer over UDP without extensions, with room for those who send more.
const DATAGRAM_LEN_MAX: usize = 4_096;
/// The longest answer over TCP that is read.
const ANSWER_LEN_MAX: usize = 16_384;

const HEADER_LEN: usize = 12;
const CLASS_INTERNET: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_SRV: u16 = 33;

/// Where a service is (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// The lowest comes first.
    pub(crate) priority: u16,
    /// How much of what comes to its priority it takes.
    pub(crate) weight: u16,
    pub(crate) port: u16,
    /// The host, without the dot at the end; empty: there is no such service.
    pub(crate) host: String,
    pub(crate) ttl: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// What was asked for is no name.
    #[error("no name of a host")]
    Name,
    /// No server answered in a way that can be used.
    #[error("no name server answers")]
    Silence,
}

/// The records of `name`, an underscored one; none when there are none. `servers` are asked one after the other.
///
/// # Errors
///
/// [`Failure`].
pub(crate) async fn services(servers: &[SocketAddr], name: &str) -> Result<Vec<Service>, Failure> {
    for _ in 0..ROUNDS {
        for server in servers.iter().take(SERVERS_MAX) {
            let id = rand::random();
            let question = question(id, name).ok_or(Failure::Name)?;
            match timeout(PATIENCE, ask(*server, &question)).await {
                Ok(Ok(Answer::Services(services))) => return Ok(services),
                Ok(Ok(Answer::Cut | Answer::Failed)) => {}
                Ok(Err(error)) => tracing::debug!(%server, %error, "Name server not asked"),
                Err(_) => tracing::debug!(%server, "Name server does not answer"),
            }
        }
    }
    Err(Failure::Silence)
}

/// The servers that this machine asks, by `resolv.conf`.
pub(crate) fn system_servers() -> Vec<SocketAddr> {
    match std::fs::read_to_string("/etc/resolv.conf") {
        Ok(text) => servers_in(&text),
        Err(error) => {
            tracing::debug!(%error, "No /etc/resolv.conf: Trunks are found by their addresses alone");
            Vec::new()
        }
    }
}

fn servers_in(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let rest = line.trim_start().strip_prefix("nameserver")?;
        Some(SocketAddr::new(rest.trim().parse().ok()?, 53))
    };
    text.lines().filter_map(server).take(SERVERS_MAX).collect()
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// These, or that there are none.
    Services(Vec<Service>),
    /// More than a datagram holds.
    Cut,
    /// It can't.
    Failed,
}

async fn ask(server: SocketAddr, question: &[u8]) -> std::io::Result<Answer> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM_LEN_MAX];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // What answers something else was sent by somebody else.
        match read(&buffer[..len], question) {
            Some(Answer::Cut) => break,
            Some(answer) => return Ok(answer),
            None => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream
        .write_all(&[&len.to_be_bytes(), question].concat())
        .await?;
    let len = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; len.min(ANSWER_LEN_MAX)];
    stream.read_exact(&mut answer).await?;
    Ok(read(&answer, question).unwrap_or(Answer::Failed))
}

/// A question for the SRV of `name`, with recursion; `None` for what is no name.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + name.len() + 6);
    bytes.extend(id.to_be_bytes());
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > LABEL_LEN_MAX {
            return None;
        }
        bytes.push(len);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    if bytes.len() - HEADER_LEN > NAME_LEN_MAX {
        return None;
    }
    bytes.extend(TYPE_SRV.to_be_bytes());
    bytes.extend(CLASS_INTERNET.to_be_bytes());
    Some(bytes)
}

/// Reads an answer to `question`; `None` for what is none.
fn read(bytes: &[u8], question: &[u8]) -> Option<Answer> {
    let asked = question.get(HEADER_LEN..)?;
    let number = |at| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let flags = number(2)?;
    let is_answer = flags & 0x8000 != 0 && bytes.get(..2)? == question.get(..2)?;
    let is_same = number(4)? == 1
        && bytes
            .get(HEADER_LEN..HEADER_LEN + asked.len())?
            .eq_ignore_ascii_case(asked);
    if !is_answer || !is_same {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Cut);
    }
    match flags & 0x000f {
        0 => {}
        3 => return Some(Answer::Services(Vec::new())), // There is no such name.
        _ => return Some(Answer::Failed),
    }
    let count = usize::from(number(6)?);
    let (mut wanted, _) = name_at(bytes, HEADER_LEN)?;
    let mut at = HEADER_LEN + asked.len();
    let (mut aliases, mut found) = (Vec::new(), Vec::new());
    for _ in 0..count.min(LOOKED_AT_MAX) {
        let record = record_at(bytes, at)?;
        at = record.end;
        match record.kind {
            TYPE_CNAME => aliases.push((record.name, name_at(bytes, record.data)?.0, record.ttl)),
            TYPE_SRV => {
                let fixed: &[u8; 6] = bytes.get(record.data..record.end)?.first_chunk()?;
                let [p0, p1, w0, w1, port0, port1] = *fixed;
                let service = Service {
                    priority: u16::from_be_bytes([p0, p1]),
                    weight: u16::from_be_bytes([w0, w1]),
                    port: u16::from_be_bytes([port0, port1]),
                    host: name_at(bytes, record.data + 6)?.0,
                    ttl: record.ttl,
                };
                found.push((record.name, service));
            }
            _ => {}
        }
    }
    let mut ttl_max = Duration::MAX;
    for _ in 0..ALIASES_MAX {
        let alias = aliases.iter().find(|(name, ..)| *name == wanted);
        let Some((_, to, ttl)) = alias else { break };
        ttl_max = ttl_max.min(*ttl);
        wanted.clone_from(to);
    }
    let services = found.into_iter().filter(|(name, _)| *name == wanted);
    let services = services.map(|(_, service)| Service {
        ttl: service.ttl.min(ttl_max),
        ..service
    });
    Some(Answer::Services(services.take(RECORDS_MAX).collect()))
}

struct Record {
    name: String,
    kind: u16,
    ttl: Duration,
    /// Where its data begins and ends.
    data: usize,
    end: usize,
}

fn record_at(bytes: &[u8], at: usize) -> Option<Record> {
    let (name, at) = name_at(bytes, at)?;
    let fixed: &[u8; 10] = bytes.get(at..)?.first_chunk()?;
    let [t0, t1, _, _, s0, s1, s2, s3, l0, l1] = *fixed;
    let seconds = u32::from_be_bytes([s0, s1, s2, s3]);
    let data = at + fixed.len();
    let end = data + usize::from(u16::from_be_bytes([l0, l1]));
    bytes.get(data..end)?;
    Some(Record {
        name,
        kind: u16::from_be_bytes([t0, t1]),
        // With the first bit it counts as none (RFC 2181 §8).
        ttl: Duration::from_secs(if seconds >> 31 == 0 {
            seconds.into()
        } else {
            0
        }),
        data,
        end,
    })
}

/// The name at a place, in lower case and without the dot at the end, and where what follows it begins.
fn name_at(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let (mut end, mut pointers) = (None, 0);
    loop {
        let len = *bytes.get(at)?;
        match len >> 6 {
            0 if len == 0 => return Some((name, end.unwrap_or(at + 1))),
            0 => {
                let label = bytes.get(at + 1..=at + usize::from(len))?;
                if !label
                    .iter()
                    .all(|byte| byte.is_ascii_graphic() && *byte != b'.')
                {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(str::from_utf8(label).ok()?);
                name.make_ascii_lowercase();
                at += 1 + usize::from(len);
            }
            3 => {
                end.get_or_insert(at + 2);
                pointers += 1;
                let to = usize::from(len & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                // Names point back, or they could go round.
                if to >= at || pointers > POINTERS_MAX {
                    return None;
                }
                at = to;
            }
            _ => return None,
        }
        if name.len() > NAME_LEN_MAX {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(data.len()).unwrap();
        [
            name,
            &kind.to_be_bytes(),
            &[0, 1],
            &ttl.to_be_bytes(),
            &len.to_be_bytes(),
            data,
        ]
        .concat()
    }

    fn answered(question: &[u8], flags: [u8; 2], records: &[Vec<u8>]) -> Vec<u8> {
        let count = u8::try_from(records.len()).unwrap();
        let mut bytes = question.to_vec();
        bytes[2..4].copy_from_slice(&flags);
        bytes[7] = count;
        bytes.extend(records.concat());
        bytes
    }

    fn named(labels: &[&str]) -> Vec<u8> {
        let label = |label: &&str| {
            let len = u8::try_from(label.len()).unwrap();
            [&[len], label.as_bytes()].concat()
        };
        let mut name: Vec<u8> = labels.iter().flat_map(label).collect();
        name.push(0);
        name
    }

    /// The name in the question.
    const ASKED: [u8; 2] = [0xc0, 12];

    #[test]
    fn services_are_read_by_aliases_and_pointers() {
        let asked = question(7, "_sip._udp.P.example").unwrap();
        let srv = |priority: u8, port: u16, host: &[u8]| {
            [&[0, priority, 0, 9], &port.to_be_bytes()[..], host].concat()
        };
        let other = named(&["_sip", "_udp", "q", "example"]);
        // "p.example" stands in the question behind its header and two labels.
        let pointed = [&[1, b'a'][..], &[0xc0, 12 + 5 + 5]].concat();
        let answer = answered(
            &asked,
            [0x81, 0x80],
            &[
                record(&ASKED, TYPE_CNAME, 30, &other),
                record(&other, TYPE_SRV, 600, &srv(1, 5_060, &pointed)),
                record(
                    &other,
                    TYPE_SRV,
                    20,
                    &srv(2, 5_070, &named(&["B", "example"])),
                ),
                record(&named(&["else", "where"]), TYPE_SRV, 20, &srv(0, 1, &[0])),
            ],
        );
        let service = |priority, port, host: &str, seconds| Service {
            priority,
            weight: 9,
            port,
            host: host.to_owned(),
            ttl: Duration::from_secs(seconds),
        };
        assert_eq!(
            read(&answer, &asked),
            Some(Answer::Services(vec![
                service(1, 5_060, "a.p.example", 30),
                service(2, 5_070, "b.example", 20),
            ]))
        );
        // However it is cut or changed, reading it ends.
        for len in 0..answer.len() {
            read(&answer[..len], &asked);
            for byte in [0, 0x3f, 0xc0, 0xff] {
                let mut wrong = answer.clone();
                wrong[len] = byte;
                read(&wrong, &asked);
            }
        }
    }

    #[test]
    fn what_answers_nothing_of_ours_is_none() {
        let asked = question(7, "_sip._udp.p.example").unwrap();
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: Option<Answer>| {
            let mut answer = answered(&asked, [0x81, 0x80], &[]);
            change(&mut answer);
            assert_eq!(read(&answer, &asked), expected);
        };
        check(&|_| {}, Some(Answer::Services(Vec::new())));
        check(&|bytes| bytes[1] = 8, None);
        check(&|bytes| bytes[2] = 1, None);
        check(&|bytes| bytes[20] = b'x', None);
        check(&|bytes| bytes[3] = 0x83, Some(Answer::Services(Vec::new())));
        check(&|bytes| bytes[3] = 0x82, Some(Answer::Failed));
        check(&|bytes| bytes[2] = 0x83, Some(Answer::Cut));
        // A name that points to itself.
        check(
            &|bytes| {
                bytes[7] = 1;
                let here = u8::try_from(bytes.len()).unwrap();
                bytes.extend([0xc0, here, 0, 33, 0, 1]);
            },
            None,
        );
    }

    #[test]
    fn names_and_servers_have_their_form() {
        assert!(question(1, &"a".repeat(63)).is_some());
        assert!(question(1, &"a".repeat(64)).is_none());
        assert!(question(1, "a..b").is_none());
        assert!(question(1, &"abcdefg.".repeat(40)).is_none());
        let text = "# none\nnameserver 192.0.2.1\n nameserver 2001:db8::1\nnameserver x\noptions y";
        let servers = ["192.0.2.1:53", "[2001:db8::1]:53"].map(|text| text.parse().unwrap());
        assert_eq!(servers_in(text), servers);
    }
}
