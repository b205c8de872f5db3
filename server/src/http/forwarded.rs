//! Who is really asking, when proxies stand in between.
//!
//! In: the peer of the TCP connection, the request's headers, and which proxies are trusted. Out: the client's address, the host
//! it asked for and whether it came over TLS. Only a trusted proxy is believed, and of its list the right-most address that is
//! not itself a trusted proxy: everything left of that was written by the client.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, header};

use crate::config::{ForwardedHeader, Network};

/// The headers by which a request shows that it passed through a proxy.
const PROXY_HEADERS: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// How much of a header's list is read, in hops from the right.
const HOPS_MAX: usize = 16;

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The client's address.
    pub ip: IpAddr,
    /// The host (and port) the client asked for, as it wrote it; empty when it named none.
    pub host: String,
    /// Whether the client's connection is encrypted.
    pub secure: bool,
}

/// Finds out who is asking.
///
/// `peer` is the other end of the TCP connection (or what a PROXY header said of it) and `tls` whether this server decrypted it.
/// Never fails: what can't be read is not believed, and the nearest address that is certain holds.
pub fn asker(
    peer: IpAddr,
    tls: bool,
    headers: &HeaderMap,
    trusted: &[Network],
    header: ForwardedHeader,
) -> Asker {
    let peer = peer.to_canonical();
    let mut asker = Asker {
        ip: peer,
        host: text(headers, &header::HOST).unwrap_or_default().to_owned(),
        secure: tls,
    };
    if !is_trusted(peer, trusted) {
        return asker;
    }
    match header {
        ForwardedHeader::XForwarded => x_forwarded(&mut asker, headers, trusted),
        ForwardedHeader::Forwarded => forwarded(&mut asker, headers, trusted),
    }
    asker
}

/// Whether a request shows signs of a proxy in front.
pub fn passed_a_proxy(headers: &HeaderMap) -> bool {
    PROXY_HEADERS.iter().any(|name| headers.contains_key(*name))
}

fn x_forwarded(asker: &mut Asker, headers: &HeaderMap, trusted: &[Network]) {
    for entry in from_the_right(headers, "x-forwarded-for", ',') {
        let Some(ip) = node(&entry) else { break };
        asker.ip = ip;
        if !is_trusted(ip, trusted) {
            break;
        }
    }
    if let Some(scheme) = from_the_right(headers, "x-forwarded-proto", ',').next() {
        asker.secure = is_secure(&scheme);
    }
    if let Some(host) = from_the_right(headers, "x-forwarded-host", ',').next() {
        asker.host = host;
    }
}

/// Each element tells how its hop was reached (RFC 7239 §4), so scheme and host are those of the element that names the client.
fn forwarded(asker: &mut Asker, headers: &HeaderMap, trusted: &[Network]) {
    for element in from_the_right(headers, "forwarded", ',') {
        let mut ip = None;
        for pair in split_quoted(&element, ';') {
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            let value = unquote(value.trim());
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => ip = node(&value),
                "proto" => asker.secure = is_secure(&value),
                "host" => asker.host = value,
                _ => {}
            }
        }
        let Some(ip) = ip else { break };
        asker.ip = ip;
        if !is_trusted(ip, trusted) {
            break;
        }
    }
}

fn is_trusted(ip: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(ip))
}

fn is_secure(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The entries of a list header, which may be spread over several lines, the last one first.
fn from_the_right(
    headers: &HeaderMap,
    name: &str,
    separator: char,
) -> impl Iterator<Item = String> {
    let lines: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().unwrap_or_default())
        .collect();
    let mut entries: Vec<String> = lines
        .iter()
        .flat_map(|line| split_quoted(line, separator))
        .collect();
    entries.reverse();
    entries.truncate(HOPS_MAX);
    entries.into_iter()
}

/// Splits at `separator` outside double quotes and trims each part.
fn split_quoted(line: &str, separator: char) -> Vec<String> {
    let (mut parts, mut part, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        if c == separator && !quoted {
            parts.push(std::mem::take(&mut part));
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        part.push(c);
    }
    parts.push(part);
    parts
        .iter()
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

fn unquote(value: &str) -> String {
    match value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
    {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.to_owned(),
    }
}

/// The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; `None` for `unknown` and the like.
fn node(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if text.matches(':').count() == 1 => text.split(':').next()?,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";
    const CLIENT: &str = "203.0.113.9";

    /// Peer, headers, and what comes out.
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

    fn check(peer: &str, header: ForwardedHeader, headers: &[(&str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        let trusted = [
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8:a::/48".parse().unwrap(),
        ];
        let asker = asker(peer.parse().unwrap(), false, &map, &trusted, header);
        format!(
            "{} {} {}",
            asker.ip,
            if asker.host.is_empty() {
                "-"
            } else {
                &asker.host
            },
            asker.secure
        )
    }

    #[test]
    fn x_forwarded_is_believed_from_the_right_and_from_proxies_only() {
        let rows: &[Row<'_>] = &[
            (CLIENT, &[("host", "a:1")], "203.0.113.9 a:1 false"),
            (
                CLIENT,
                &[
                    ("x-forwarded-for", "1.1.1.1"),
                    ("x-forwarded-proto", "https"),
                ],
                "203.0.113.9 - false",
            ),
            (PROXY, &[("host", "a")], "10.0.0.1 a false"),
            (PROXY, &[("x-forwarded-for", CLIENT)], "203.0.113.9 - false"),
            // What the client wrote itself stands on the left.
            (
                PROXY,
                &[("x-forwarded-for", "1.1.1.1, 203.0.113.9")],
                "203.0.113.9 - false",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.2.2.2")],
                "203.0.113.9 - false",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", CLIENT)],
                "203.0.113.9 - false",
            ),
            // All of it trusted: the left-most one is as far as we can see.
            (
                PROXY,
                &[("x-forwarded-for", "10.3.3.3, 10.2.2.2")],
                "10.3.3.3 - false",
            ),
            // Something unreadable ends the walk at the last certain address.
            (
                PROXY,
                &[("x-forwarded-for", "1.1.1.1, unknown, 10.2.2.2")],
                "10.2.2.2 - false",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "nonsense")],
                "10.0.0.1 - false",
            ),
            (PROXY, &[("x-forwarded-for", ", ,")], "10.0.0.1 - false"),
            (
                PROXY,
                &[("x-forwarded-for", "203.0.113.9:4711")],
                "203.0.113.9 - false",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "[2001:db8::7]:4711")],
                "2001:db8::7 - false",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "2001:db8::7")],
                "2001:db8::7 - false",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "::ffff:203.0.113.9")],
                "203.0.113.9 - false",
            ),
            (
                "::ffff:10.0.0.1",
                &[("x-forwarded-for", CLIENT)],
                "203.0.113.9 - false",
            ),
            (
                "2001:db8:a::1",
                &[("x-forwarded-for", CLIENT)],
                "203.0.113.9 - false",
            ),
            (
                PROXY,
                &[
                    ("host", "inner"),
                    ("x-forwarded-host", "calls.example.com"),
                    ("x-forwarded-proto", "https"),
                ],
                "10.0.0.1 calls.example.com true",
            ),
            (
                PROXY,
                &[("x-forwarded-proto", "https, http")],
                "10.0.0.1 - false",
            ),
            // The other dialect is not read.
            (
                PROXY,
                &[("forwarded", "for=1.1.1.1;proto=https")],
                "10.0.0.1 - false",
            ),
        ];
        for (peer, headers, expected) in rows {
            assert_eq!(
                &check(peer, ForwardedHeader::XForwarded, headers),
                expected,
                "{peer} {headers:?}"
            );
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_says() {
        let rows: &[(&str, &str)] = &[
            (
                "for=203.0.113.9;proto=https;host=calls.example.com",
                "203.0.113.9 calls.example.com true",
            ),
            (
                "For=\"[2001:db8::7]:4711\";Proto=HTTPS",
                "2001:db8::7 - true",
            ),
            (
                "for=1.1.1.1;host=evil, for=203.0.113.9;host=good",
                "203.0.113.9 good false",
            ),
            (
                "for=203.0.113.9;proto=https, for=10.2.2.2;proto=http",
                "203.0.113.9 - true",
            ),
            ("for=_hidden, for=10.2.2.2", "10.2.2.2 - false"),
            ("for=unknown", "10.0.0.1 - false"),
            ("for=203.0.113.9;by=\"a,b;c=\\\"d\"", "203.0.113.9 - false"),
            ("nonsense", "10.0.0.1 - false"),
            ("", "10.0.0.1 - false"),
        ];
        for (value, expected) in rows {
            let headers = [("forwarded", *value), ("x-forwarded-for", "1.1.1.1")];
            assert_eq!(
                &check(PROXY, ForwardedHeader::Forwarded, &headers),
                expected,
                "{value}"
            );
        }
    }
}
