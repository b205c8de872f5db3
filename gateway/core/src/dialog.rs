//! Dialogs: two sides that know one another, and the way between them (RFC 3261 §12).

use std::fmt;

use gateway_sip::{
    DecodeError, Envelope, HeaderName, Headers, MAX_FORWARDS_DEFAULT, Method, NameAddr, Request,
    Response, Uri,
};

/// The most entries of a route set.
pub const ROUTES_MAX: usize = 16;

/// What names a dialog at our side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogId {
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// Theirs.
    pub remote_tag: String,
}

impl DialogId {
    /// The dialog a request of theirs belongs to; `None` when it belongs to none (RFC 3261 §12.2.2). Whoever follows RFC 2543
    /// may have no tag: it counts as an empty one.
    #[must_use]
    pub fn of_request(envelope: &Envelope) -> Option<Self> {
        let local = envelope.to.tag()?;
        Some(Self::new(
            &envelope.call_id,
            local,
            envelope.from.tag().unwrap_or_default(),
        ))
    }

    /// The dialog a response to a request of ours belongs to, or makes.
    #[must_use]
    pub fn of_response(envelope: &Envelope) -> Option<Self> {
        let local = envelope.from.tag()?;
        Some(Self::new(
            &envelope.call_id,
            local,
            envelope.to.tag().unwrap_or_default(),
        ))
    }

    /// The dialog that a Replaces header names, as whoever gets that header sees it (RFC 3891 §6.1). `None` for a malformed one.
    #[must_use]
    pub fn parse_replaces(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(|part| part.trim_matches([' ', '\t']));
        let call_id = parts.next().filter(|call_id| !call_id.is_empty())?;
        let (mut to, mut from) = (None, None);
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let tag = match name {
                "to-tag" => &mut to,
                "from-tag" => &mut from,
                _ => continue,
            };
            if value.is_empty() || tag.replace(value).is_some() {
                return None;
            }
        }
        Some(Self::new(call_id, to?, from?))
    }

    /// A Refer-To that has whoever gets it call `target` in the place of this dialog, which is ours with them: the end of an attended
    /// transfer (RFC 3891 §4). Nothing of a `target` that is no SIP address but itself.
    #[must_use]
    pub fn refer_to(&self, target: &Uri) -> Uri {
        let Uri::Sip(target) = target else {
            return target.clone();
        };
        let value = format!(
            "{};to-tag={};from-tag={}",
            self.call_id, self.remote_tag, self.local_tag
        );
        let mut target = target.clone();
        target.set_header("Replaces", &value);
        target.into()
    }

    /// From its parts.
    #[must_use]
    pub fn new(call_id: &str, local_tag: &str, remote_tag: &str) -> Self {
        Self {
            call_id: call_id.to_owned(),
            local_tag: local_tag.to_owned(),
            remote_tag: remote_tag.to_owned(),
        }
    }
}

/// One dialog, early or confirmed.
#[derive(Clone, PartialEq, Eq)]
pub struct Dialog {
    /// Its name.
    pub id: DialogId,
    /// Us, with our tag.
    pub local: NameAddr,
    /// Them, with their tag.
    pub remote: NameAddr,
    /// Where their requests reach them: their Contact.
    pub target: Uri,
    /// By which proxies.
    routes: Vec<NameAddr>,
    local_cseq: u32,
    remote_cseq: Option<u32>,
}

/// A request of theirs whose CSeq is not above the last one's: answered with 500 (RFC 3261 §12.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("CSeq {got} after {last}")]
pub struct OutOfOrder {
    /// The number that came.
    pub got: u32,
    /// The last one.
    pub last: u32,
}

impl Dialog {
    /// The dialog that `response` makes of our `request` (RFC 3261 §12.1.2).
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when there is no Contact to send to, or the routes are malformed or too many.
    pub fn ours(envelope: &Envelope, response: &Response) -> Result<Self, DecodeError> {
        let id =
            DialogId::of_response(envelope).ok_or(DecodeError::Truncated { what: "From tag" })?;
        let mut routes = routes(&response.headers)?;
        routes.reverse();
        Ok(Self {
            id,
            local: envelope.from.clone(),
            remote: envelope.to.clone(),
            target: contact(&response.headers)?
                .ok_or(DecodeError::Truncated { what: "Contact" })?,
            routes,
            local_cseq: envelope.cseq.number,
            remote_cseq: None,
        })
    }

    /// The dialog that our answer with `tag` makes of their `request` (RFC 3261 §12.1.1).
    ///
    /// # Errors
    ///
    /// As [`Dialog::ours`]: 400.
    pub fn theirs(envelope: &Envelope, request: &Request, tag: &str) -> Result<Self, DecodeError> {
        let remote_tag = envelope.from.tag().unwrap_or_default();
        Ok(Self {
            id: DialogId::new(&envelope.call_id, tag, remote_tag),
            local: envelope.to.clone().with_tag(tag),
            remote: envelope.from.clone(),
            target: contact(&request.headers)?.ok_or(DecodeError::Truncated { what: "Contact" })?,
            routes: routes(&request.headers)?,
            local_cseq: 0,
            remote_cseq: Some(envelope.cseq.number),
        })
    }

    /// A request within the dialog, with its own CSeq. `contact` goes into those that may change where we are.
    pub fn request(&mut self, method: &Method, contact: &NameAddr) -> Request {
        self.local_cseq += 1;
        self.numbered(method, self.local_cseq, contact)
    }

    /// The number of our last request.
    #[must_use]
    pub fn last_number(&self) -> u32 {
        self.local_cseq
    }

    /// The ACK of the 2xx to the INVITE with this number (RFC 3261 §13.2.2.4).
    #[must_use]
    pub fn ack(&self, number: u32, contact: &NameAddr) -> Request {
        self.numbered(&Method::Ack, number, contact)
    }

    fn numbered(&self, method: &Method, number: u32, contact: &NameAddr) -> Request {
        // A first proxy of before RFC 3261 wants itself in the Request-URI, and the target at the end (§12.2.1.1).
        let strict = self
            .routes
            .first()
            .filter(|route| !route.uri.sip().is_some_and(|uri| uri.params.has("lr")));
        let mut routes: Vec<String> = self.routes.iter().map(NameAddr::to_string).collect();
        let mut uri = &self.target;
        if let Some(first) = strict {
            routes.remove(0);
            routes.push(format!("<{}>", self.target));
            uri = &first.uri;
        }
        let mut request = Request::new(method.clone(), uri);
        let headers = &mut request.headers;
        headers.push(HeaderName::MaxForwards, MAX_FORWARDS_DEFAULT);
        for route in routes {
            headers.push(HeaderName::Route, route);
        }
        headers.push(HeaderName::From, &self.local);
        headers.push(HeaderName::To, &self.remote);
        headers.push(HeaderName::CallId, &self.id.call_id);
        headers.push(HeaderName::CSeq, format_args!("{number} {method}"));
        if matches!(
            method,
            Method::Invite | Method::Update | Method::Refer | Method::Subscribe | Method::Notify
        ) {
            headers.push(HeaderName::Contact, contact);
        }
        request
    }

    /// The same dialog, confirmed, with requests numbered on from those that were sent while it was early.
    #[must_use]
    pub fn numbered_as(mut self, early: &Self) -> Self {
        self.local_cseq = self.local_cseq.max(early.local_cseq);
        self.remote_cseq = self.remote_cseq.max(early.remote_cseq);
        self
    }

    /// Where a request of the dialog goes next: the first proxy, or the other side.
    #[must_use]
    pub fn next_hop(&self) -> &Uri {
        self.routes.first().map_or(&self.target, |route| &route.uri)
    }

    /// Takes the number of a request of theirs.
    ///
    /// # Errors
    ///
    /// [`OutOfOrder`].
    pub fn accept(&mut self, envelope: &Envelope) -> Result<(), OutOfOrder> {
        let got = envelope.cseq.number;
        match self.remote_cseq {
            Some(last) if got <= last => Err(OutOfOrder { got, last }),
            _ => {
                self.remote_cseq = Some(got);
                Ok(())
            }
        }
    }

    /// Follows them where a request or response says they are now (RFC 3261 §12.2). A malformed Contact changes nothing.
    pub fn refresh(&mut self, headers: &Headers) {
        if let Ok(Some(target)) = contact(headers) {
            self.target = target;
        }
    }
}

/// People and places stay out of logs.
impl fmt::Debug for Dialog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialog({})", self.id.local_tag)
    }
}

fn contact(headers: &Headers) -> Result<Option<Uri>, DecodeError> {
    Ok(headers
        .addresses(&HeaderName::Contact)?
        .into_iter()
        .next()
        .map(|contact| contact.uri))
}

fn routes(headers: &Headers) -> Result<Vec<NameAddr>, DecodeError> {
    let routes = headers.addresses(&HeaderName::RecordRoute)?;
    if routes.len() > ROUTES_MAX {
        return Err(DecodeError::TooMany {
            what: "routes",
            max: ROUTES_MAX,
        });
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_sip::sanity::{Framing, Incoming, check};

    const COMMON: &str = "Via: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:a@h>;tag=a\nCall-ID: c\nCSeq: 7 INVITE\n\
        Record-Route: <sip:p2;lr>, <sip:p1;lr>\n";

    fn whole(text: &str) -> Incoming {
        check(
            text.replace('\n', "\r\n").as_bytes(),
            Framing::Datagram,
            "t",
        )
        .expect("it is whole")
    }

    fn theirs(extra: &str) -> Dialog {
        let text = format!("INVITE sip:b@h SIP/2.0\n{COMMON}To: <sip:b@h>\n{extra}\n");
        let Incoming::Request(incoming) = whole(&text) else {
            panic!("a request")
        };
        Dialog::theirs(&incoming.envelope, &incoming.request, "b").expect("it has a Contact")
    }

    fn ours(extra: &str) -> Dialog {
        let text = format!("SIP/2.0 200 OK\n{COMMON}To: <sip:b@h>;tag=b\n{extra}\n");
        let Incoming::Response(incoming) = whole(&text) else {
            panic!("a response")
        };
        Dialog::ours(&incoming.envelope, &incoming.response).expect("it has a Contact")
    }

    fn us() -> NameAddr {
        NameAddr::parse("<sip:us@h>", "Contact").expect("an address")
    }

    fn routes_of(request: &Request) -> Vec<&str> {
        request.headers.lines(&HeaderName::Route).collect()
    }

    #[test]
    fn both_sides_name_the_same_dialog_and_go_the_same_way_back() {
        let (mut a, mut b) = (
            ours("Contact: <sip:b@10.0.0.2>\n"),
            theirs("Contact: <sip:a@10.0.0.1>\n"),
        );
        assert_eq!(a.id, DialogId::new("c", "a", "b"));
        assert_eq!(b.id, DialogId::new("c", "b", "a"));
        let bye = a.request(&Method::Bye, &us());
        assert_eq!(bye.target, "sip:b@10.0.0.2");
        assert_eq!(routes_of(&bye), ["<sip:p1;lr>", "<sip:p2;lr>"]);
        assert_eq!(bye.headers.get(&HeaderName::CSeq), Some("8 BYE"));
        let info = b.request(&Method::Info, &us());
        assert_eq!(info.target, "sip:a@10.0.0.1");
        assert_eq!(routes_of(&info), ["<sip:p2;lr>", "<sip:p1;lr>"]);
        assert_eq!(info.headers.get(&HeaderName::CSeq), Some("1 INFO"));
        assert_eq!(info.headers.get(&HeaderName::To), Some("<sip:a@h>;tag=a"));
        assert_eq!(b.next_hop().to_string(), "sip:p2;lr");
        assert_eq!(
            a.ack(7, &us()).headers.get(&HeaderName::CSeq),
            Some("7 ACK")
        );
    }

    #[test]
    fn a_strict_router_finds_itself_in_the_request_uri() {
        let mut dialog = theirs("Contact: <sip:a@10.0.0.1>\n");
        dialog.routes[0] = NameAddr::parse("<sip:old>", "Route").expect("an address");
        let bye = dialog.request(&Method::Bye, &us());
        assert_eq!(bye.target, "sip:old");
        assert_eq!(routes_of(&bye), ["<sip:p1;lr>", "<sip:a@10.0.0.1>"]);
    }

    #[test]
    fn numbers_rise_and_targets_move() {
        let mut dialog = theirs("Contact: <sip:a@10.0.0.1>\n");
        let next = |number: u32| {
            let text = format!(
                "INVITE sip:b@h SIP/2.0\n{}To: <sip:b@h>;tag=b\nContact: <sip:a@moved>\n\n",
                COMMON.replace('7', &number.to_string())
            );
            let Incoming::Request(incoming) = whole(&text) else {
                panic!("a request")
            };
            incoming
        };
        assert_eq!(
            dialog.accept(&next(7).envelope),
            Err(OutOfOrder { got: 7, last: 7 })
        );
        assert_eq!(dialog.accept(&next(9).envelope), Ok(()));
        assert_eq!(
            dialog.accept(&next(8).envelope),
            Err(OutOfOrder { got: 8, last: 9 })
        );
        dialog.refresh(&next(10).request.headers);
        assert_eq!(dialog.target.to_string(), "sip:a@moved");
    }

    #[test]
    fn replaces_names_a_dialog() {
        let read = DialogId::parse_replaces;
        assert_eq!(
            read("c@h ;from-tag=f; to-tag=t;early-only"),
            Some(DialogId::new("c@h", "t", "f"))
        );
        for wrong in [
            "",
            ";to-tag=t;from-tag=f",
            "c;to-tag=t",
            "c;to-tag=t;to-tag=u;from-tag=f",
            "c;to-tag=;from-tag=f",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_attended_transfer_names_the_dialog_as_the_other_side_sees_it() {
        let ours = DialogId::new("c@h", "f", "t");
        let target = Uri::parse("sip:b@h;transport=tcp?Subject=x").expect("a URI");
        let refer_to = ours.refer_to(&target);
        assert_eq!(
            refer_to.to_string(),
            "sip:b@h;transport=tcp?Replaces=c%40h%3Bto-tag%3Dt%3Bfrom-tag%3Df"
        );
        let header = refer_to.sip().and_then(|uri| uri.header("Replaces"));
        let theirs = DialogId::parse_replaces(&header.expect("it is there"));
        assert_eq!(theirs, Some(DialogId::new("c@h", "t", "f")));
        let number = Uri::parse("tel:+4930123456").expect("a URI");
        assert_eq!(ours.refer_to(&number), number);
    }

    #[test]
    fn a_dialog_needs_a_contact_and_few_routes() {
        let text = format!("INVITE sip:b@h SIP/2.0\n{COMMON}To: <sip:b@h>\n\n");
        let Incoming::Request(incoming) = whole(&text) else {
            panic!("a request")
        };
        assert!(Dialog::theirs(&incoming.envelope, &incoming.request, "b").is_err());
        let many = format!(
            "INVITE sip:b@h SIP/2.0\n{COMMON}To: <sip:b@h>\nContact: <sip:a@h>\n{}\n",
            "Record-Route: <sip:p;lr>\n".repeat(ROUTES_MAX)
        );
        let Incoming::Request(incoming) = whole(&many) else {
            panic!("a request")
        };
        assert!(Dialog::theirs(&incoming.envelope, &incoming.request, "b").is_err());
    }
}
