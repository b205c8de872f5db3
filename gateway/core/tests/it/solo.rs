//! One Leg alone, with everything the other side may say written by hand, and what the Leg does printed as lines.

use std::time::{Duration, Instant};

use gateway_core::leg::{Action, Event, Leg, Order, Outgoing, RequestId, Settings, Told};
use gateway_core::transaction::{Flow, Output, Transactions, Transport};
use gateway_sip::negotiate;
use gateway_sip::sanity::{Framing, Incoming, check};
use gateway_sip::sdp::{Direction, Session};
use gateway_sip::{HeaderName, Headers, Method, Request, Response, StatusCode, Uri};

use crate::phones::{address, settings};

pub(crate) struct Solo {
    pub(crate) leg: Leg,
    pub(crate) now: Instant,
    /// What was sent, by number.
    pub(crate) sent: Vec<(RequestId, Request)>,
    /// What was answered.
    pub(crate) answered: Vec<Response>,
    done: Vec<String>,
    transactions: Transactions,
    last_token: u64,
    last_number: u32,
}

/// A body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sdp {
    None,
    /// An answer to the last offer of the Leg.
    Answer,
    Offer,
}

impl Solo {
    /// A Leg that has sent its INVITE.
    pub(crate) fn calling() -> Self {
        Self::calling_with(|_| {})
    }

    pub(crate) fn calling_with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(1);
        change(&mut settings);
        let outgoing = Outgoing {
            from: address("sip:a@192.0.2.1"),
            to: address("sip:b@192.0.2.2"),
            target: Uri::parse("sip:b@192.0.2.2").expect("a URI"),
            routes: Vec::new(),
            headers: Headers::new(),
            max_forwards: 70,
        };
        let mut last_token = 0;
        let mut tokens = || {
            last_token += 1;
            last_token
        };
        let (leg, actions) = Leg::call(settings, &outgoing, &mut tokens);
        let mut solo = Self::new(leg, last_token);
        solo.note(actions);
        solo
    }

    /// A Leg that has got this INVITE; `None` when it was refused, with the answer noted.
    pub(crate) fn called(
        extra: &str,
        sdp: Sdp,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Self, Box<Response>> {
        let mut settings = settings(2);
        change(&mut settings);
        let mut transactions = Transactions::default();
        let text = format!(
            "INVITE sip:b@192.0.2.2 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKi1\nFrom: <sip:a@h>;tag=theirs\n\
             To: <sip:b@h>\nCall-ID: c\nCSeq: 1 INVITE\nContact: <sip:a@192.0.2.1>\n{extra}\n"
        );
        let request = with_sdp(&text, sdp, None);
        let now = start();
        transactions.handle_incoming(now, flow(), read(&request));
        let Some(Output::Request { id, incoming, .. }) = transactions.poll_output() else {
            panic!("a request")
        };
        let mut last_token = 0;
        let mut tokens = || {
            last_token += 1;
            last_token
        };
        let leg = Leg::receive(settings, id, &incoming, &mut tokens)?;
        let mut solo = Self::new(leg, last_token);
        solo.transactions = transactions;
        solo.now = now;
        solo.last_number = 1;
        Ok(solo)
    }

    fn new(leg: Leg, last_token: u64) -> Self {
        Self {
            leg,
            now: start(),
            sent: Vec::new(),
            answered: Vec::new(),
            done: Vec::new(),
            transactions: Transactions::default(),
            last_token,
            last_number: 0,
        }
    }

    /// The Leg gets a response to its last request of this method, from the phone with this tag.
    pub(crate) fn hear(&mut self, method: &Method, code: u16, tag: &str, extra: &str, sdp: Sdp) {
        let (of, mut request) = self
            .sent
            .iter()
            .rev()
            .find(|(_, request)| request.method == *method)
            .expect("it was sent")
            .clone();
        request
            .headers
            .push_front(HeaderName::Via, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx");
        let code = StatusCode::new(code).expect("a code");
        let response = Response::to(&request, code, tag);
        let offer = request.body.clone();
        let text = String::from_utf8(response.to_bytes()).expect("text");
        let head = text
            .split("Content-Length")
            .next()
            .expect("there is a head")
            .replace("\r\n", "\n");
        let contact = format!("Contact: <sip:{tag}@192.0.2.2>\n");
        let bytes = with_sdp(&format!("{head}{contact}{extra}\n"), sdp, Some(&offer));
        let Incoming::Response(incoming) = read(&bytes) else {
            panic!("a response")
        };
        self.step(Event::Response { of, incoming });
    }

    /// The Leg gets a request of the dialog of the phone with this tag.
    pub(crate) fn ask(&mut self, method: &Method, tag: &str, extra: &str, sdp: Sdp) {
        self.last_number += 1;
        let number = self.last_number;
        let name = self.leg.name().clone();
        let cseq = format!("{number} {method}");
        let text = format!(
            "{method} sip:us@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKr{number}\nFrom: <sip:b@h>;tag={tag}\n\
             To: <sip:a@h>;tag={}\nCall-ID: {}\nCSeq: {cseq}\nContact: <sip:{tag}@192.0.2.2>\n{extra}\n",
            name.local_tag, name.call_id
        );
        let last_offer = self.answered.last().map(|response| response.body.clone());
        let bytes = with_sdp(&text, sdp, last_offer.as_deref());
        self.transactions
            .handle_incoming(self.now, flow(), read(&bytes));
        while let Some(output) = self.transactions.poll_output() {
            match output {
                Output::Request { id, incoming, .. } => {
                    self.step(Event::Request { id, incoming });
                }
                Output::Ack { incoming, .. } => self.step(Event::Ack(incoming)),
                _ => {}
            }
        }
    }

    /// The ACK of the 2xx to the INVITE with this number.
    pub(crate) fn ack(&mut self, number: u32, tag: &str, sdp: Sdp) {
        self.last_number = number - 1;
        self.ask(&Method::Ack, tag, "", sdp);
    }

    pub(crate) fn order(&mut self, order: Order) {
        self.step(Event::Order(order));
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.leg.poll_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.step(Event::Timeout);
        }
        self.now = until;
    }

    pub(crate) fn step(&mut self, event: Event) {
        let last_token = &mut self.last_token;
        let mut tokens = || {
            *last_token += 1;
            *last_token
        };
        let actions = self.leg.step(self.now, event, &mut tokens);
        self.note(actions);
    }

    fn note(&mut self, actions: Vec<Action>) {
        for action in actions {
            let line = match action {
                Action::Request { id, request, .. } => {
                    let cseq = request.headers.get(&HeaderName::CSeq).unwrap_or_default();
                    let number = cseq.split(' ').next().unwrap_or_default();
                    let to = request.headers.get(&HeaderName::To).unwrap_or_default();
                    let tag = to.split_once("tag=").map_or("", |(_, tag)| tag);
                    let line = format!("{} {number} {tag}", request.method);
                    self.sent.push((id, request));
                    line
                }
                Action::Respond {
                    response, reliable, ..
                } => {
                    let line = format!(
                        "{}{}",
                        response.code,
                        if reliable { " reliably" } else { "" }
                    );
                    self.answered.push(response);
                    line
                }
                Action::Cancel(_) => "CANCEL".into(),
                Action::Acknowledged(_) => "acknowledged".into(),
                Action::Proven(_) => "proven".into(),
                Action::Tell(Told::Media(agreed)) => format!("media {:?}", agreed.direction),
                Action::Tell(Told::Ended(ended)) => format!("ended {} {:?}", ended.code, ended.why),
                Action::Tell(told) => format!("{told:?}"),
            };
            self.done.push(line.trim_end().to_owned());
        }
    }

    /// What was done since the last look.
    pub(crate) fn done(&mut self) -> String {
        std::mem::take(&mut self.done).join(", ")
    }

    pub(crate) fn last_sent(&self) -> &Request {
        &self.sent.last().expect("something was sent").1
    }
}

fn flow() -> Flow {
    Flow {
        transport: Transport::Udp,
        remote: "192.0.2.2:5060".parse().expect("an address"),
        socket: 0,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can't be made from a number; only differences to it are seen"
)]
fn start() -> Instant {
    Instant::now()
}

fn read(bytes: &[u8]) -> Incoming {
    check(bytes, Framing::Datagram, "t").unwrap_or_else(|unfit| {
        panic!("{unfit:?}: {}", String::from_utf8_lossy(bytes));
    })
}

/// The message with a body of the other side's; `head` ends with an empty line.
fn with_sdp(head: &str, sdp: Sdp, offer: Option<&[u8]>) -> Vec<u8> {
    let them = settings(9);
    let body = match sdp {
        Sdp::None => None,
        Sdp::Offer => Some(negotiate::offer(
            &them.capabilities,
            &them.local,
            Direction::SendRecv,
        )),
        Sdp::Answer => {
            let offer = Session::parse(offer.expect("there is an offer")).expect("it is SDP");
            let answer =
                negotiate::answer(&offer, &them.capabilities, &them.local, Direction::SendRecv);
            Some(answer.expect("we agree").0)
        }
    };
    let head = head.replace('\n', "\r\n");
    let Some(body) = body else {
        return head.into_bytes();
    };
    let head = head.strip_suffix("\r\n").expect("an empty line");
    format!("{head}Content-Type: application/sdp\r\n\r\n{body}").into_bytes()
}
