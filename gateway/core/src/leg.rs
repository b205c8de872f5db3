//! A Leg: one side of a call, as SIP has it (RFC 3261 §13 to §15, 3262, 3311, 3515, 3891, 4028).
//!
//! ```text
//!  Calling ─▶ Early ─▶ Up ─▶ Over        what we begin
//!  Ringing ──────────▶ Up ─▶ Over        what comes in
//! ```
//!
//! [`Leg::step`] is a pure function of what the Leg is and an [`Event`]: it changes the Leg and returns [`Action`]s. Media is
//! agreed on within the Leg, by [`gateway_sip::negotiate`]: an offer of the other side is answered at once with what we can, and
//! nobody else waits for it. What a Leg tells the call is in [`Told`].

mod incoming;
mod outgoing;
mod session;
mod session_timer;

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Instant;

use gateway_sip::digest::Answering;
use gateway_sip::negotiate::{self, Agreed, Capabilities, Disagreement, Keys, Local, Security};
use gateway_sip::sanity::{IncomingRequest, IncomingResponse};
use gateway_sip::sdp::{Direction, Session};
use gateway_sip::{
    Content, HeaderName, Headers, Method, NameAddr, Request, Response, StatusCode, Uri,
};
use zeroize::Zeroizing;

use crate::Tokens;
use crate::dialog::{Dialog, DialogId};
use crate::transaction::ServerId;

pub(crate) use incoming::unsupported;
pub use outgoing::{FORKS_MAX, Outgoing};
pub use session_timer::{INTERVAL_MIN, SessionPolicy};

use session_timer::SessionTimer;

/// What we take part in.
pub(crate) const ALLOW: &str =
    "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY";
pub(crate) const SUPPORTED: &str = "100rel, timer, replaces";

/// A request of a Leg, by a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// What names a Leg from its first message on: our half of the names of all its dialogs. Our tag is random, so that nobody who was not
/// told can name it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegName {
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
}

/// Call-IDs may name hosts; a tag is enough to tell Legs apart in a log.
impl fmt::Debug for LegName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LegName({})", self.local_tag)
    }
}

/// How a Leg is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the other side reaches us.
    pub contact: NameAddr,
    /// What we are, for User-Agent and Server.
    pub agent: String,
    /// Whom we are for those who challenge us.
    pub credential: Option<Credential>,
    /// Whether reliable provisional responses are wanted.
    pub reliable: Reliable,
    /// Session timers.
    pub session: SessionPolicy,
    /// What we can.
    pub capabilities: Capabilities,
    /// Our end of the media.
    pub local: Local,
    /// What the other side does not bear.
    pub quirks: Quirks,
}

/// What is left out or done otherwise for another side that does not bear what the RFCs say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a quirk of its own, and any of them go together"
)]
pub struct Quirks {
    /// Session timers (RFC 4028) are neither offered nor taken.
    pub no_session_timers: bool,
    /// Reliable provisional responses (RFC 3262) are not offered.
    pub no_reliable: bool,
    /// Sessions are renewed by re-INVITE, and UPDATE (RFC 3311) is not offered.
    pub no_update: bool,
    /// REFER is neither sent nor taken: whoever is transferred stays with us.
    pub no_refer: bool,
    /// Who is held hears so by an address of zeros, as RFC 2543 had it.
    pub hold_by_zero_address: bool,
}

impl Quirks {
    fn allow(self) -> String {
        listed(ALLOW, |method| match method {
            "UPDATE" => !self.no_update,
            "REFER" => !self.no_refer,
            "PRACK" => !self.no_reliable,
            _ => true,
        })
    }

    fn supported(self) -> String {
        listed(SUPPORTED, |extension| match extension {
            "100rel" => !self.no_reliable,
            "timer" => !self.no_session_timers,
            _ => true,
        })
    }
}

/// What of a list is kept.
fn listed(list: &str, keep: impl Fn(&str) -> bool) -> String {
    let kept: Vec<_> = list.split(", ").filter(|word| keep(word)).collect();
    kept.join(", ")
}

/// A user's name and password.
#[derive(Clone)]
pub struct Credential {
    /// The name.
    pub username: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// Whether reliable provisional responses (RFC 3262) are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reliable {
    /// Where the other side requires them.
    #[default]
    Accept,
    /// Wherever it can do them.
    Prefer,
    /// Always: whoever can't is refused with 421.
    Require,
}

/// What a Leg is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// The call wants something.
    Order(Order),
    /// A response to a request of ours came.
    Response {
        /// The request.
        of: RequestId,
        /// The response.
        incoming: Box<IncomingResponse>,
    },
    /// No response comes: as good as this one.
    NoResponse {
        /// The request.
        of: RequestId,
        /// 408 when nobody answered, 503 when nothing could be sent.
        code: StatusCode,
    },
    /// A request within the dialog came; a PRACK before it is up, too.
    Request {
        /// Its transaction.
        id: ServerId,
        /// The request.
        incoming: Box<IncomingRequest>,
    },
    /// The ACK of a 2xx came.
    Ack(Box<IncomingRequest>),
    /// The INVITE was taken back.
    Cancelled,
    /// The 2xx of this INVITE was never acknowledged.
    Unacknowledged(ServerId),
    /// The reliable provisional response got no PRACK.
    NoPrack,
    /// [`Leg::poll_timeout`] has come.
    Timeout,
}

/// What the call wants of a Leg. What does not fit its state is left undone.
#[derive(Debug, Clone)]
pub enum Order {
    /// Answer with 180: somebody's phone rings.
    Ring,
    /// Answer with 183 and media: an announcement or ringback of ours.
    Progress,
    /// Answer with 200.
    Answer,
    /// Refuse, or take back, or end: whatever ends the Leg now.
    End {
        /// The answer to an INVITE that still waits for one.
        code: StatusCode,
        /// Why, for a Reason header: a cause of Q.850.
        cause: Option<u8>,
    },
    /// Hold (we send no more than music), or resume.
    Hold(bool),
    /// Ask the other side to call somebody else (RFC 3515).
    Refer(Uri),
    /// Tell whoever asked us to call somebody else what became of it.
    ReferProgress(StatusCode),
    /// Send a key by INFO, `0` to `9`, `*`, `#`, `A` to `D`, each when the last one was answered. Those that media carries are not this
    /// Leg's matter.
    Key(char),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send a request in a transaction of its own; `hop` says where to.
    Request {
        /// Its number.
        id: RequestId,
        /// The first proxy, or the other side.
        hop: Uri,
        /// The request, without Via.
        request: Request,
    },
    /// Take this INVITE back.
    Cancel(RequestId),
    /// Answer.
    Respond {
        /// Whom.
        id: ServerId,
        /// The answer.
        response: Response,
        /// Until its PRACK.
        reliable: bool,
    },
    /// The ACK of this INVITE's 2xx came.
    Acknowledged(ServerId),
    /// The PRACK of this INVITE's provisional response came.
    Proven(ServerId),
    /// This is news to the call.
    Tell(Told),
}

/// What a Leg tells the call.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// The other side's phone rings (180), is being looked for (181, 182), or the network says something (183).
    Progress(StatusCode),
    /// Media was agreed on, for the first time or anew. Before [`Told::Answered`] it is early media.
    Media(Box<Agreed>),
    /// The call is up.
    Answered,
    /// Try there instead (3xx). The Leg is over.
    Redirected(Vec<Uri>),
    /// The other side wants us to call somebody else; the answer is [`Order::ReferProgress`].
    Refer {
        /// Whom.
        target: Box<Uri>,
        /// Which call of theirs the new one takes the place of (RFC 3891).
        replaces: Option<DialogId>,
    },
    /// What became of our [`Order::Refer`].
    Referred(StatusCode),
    /// A key was pressed (INFO).
    Key(char),
    /// The Leg is over; nothing follows.
    Ended(Ended),
}

/// How a Leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The final response of an INVITE that failed; 200 for a call that was up.
    pub code: StatusCode,
    /// The cause of Q.850, where the other side gave one.
    pub cause: Option<u8>,
    /// Why.
    pub why: Why,
}

/// Why a Leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// They hung up, refused or took it back.
    Remote,
    /// We did.
    Local,
    /// Nobody answered a request or acknowledged an answer.
    Vanished,
    /// The session was not renewed.
    Expired,
    /// No media could be agreed on.
    Media,
    /// What they sent can't be.
    Protocol,
}

/// One Leg.
#[derive(Debug)]
pub struct Leg {
    name: LegName,
    settings: Settings,
    state: State,
    /// The Call-ID is ours.
    began: bool,
    /// The dialog once it is confirmed, or while the only one is early.
    dialog: Option<Dialog>,
    /// Where media stands.
    media: Media,
    timer: Option<SessionTimer>,
    answering: Option<Answering>,
    /// What the last INVITE was authorized with: its ACK carries the same (RFC 3261 §22.1).
    invite_credentials: Option<(HeaderName, String)>,
    last_request: u64,
    /// What an incoming Leg waits for.
    incoming: incoming::Waiting,
    outgoing: outgoing::Waiting,
    session: session::Waiting,
    actions: Vec<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Our INVITE waits for its final answer.
    Calling,
    /// Theirs does.
    Ringing,
    Up,
    Over,
}

#[derive(Debug)]
struct Media {
    /// Who of us may send.
    wish: Direction,
    /// What we offered and have no answer to.
    offered: Option<Session>,
    agreed: Option<Agreed>,
    version: u64,
}

impl Leg {
    fn new(settings: Settings, state: State, name: LegName) -> Self {
        Self {
            name,
            media: Media {
                wish: Direction::SendRecv,
                offered: None,
                agreed: None,
                version: settings.local.version,
            },
            settings,
            state,
            began: state == State::Calling,
            dialog: None,
            timer: None,
            answering: None,
            invite_credentials: None,
            last_request: 0,
            incoming: incoming::Waiting::default(),
            outgoing: outgoing::Waiting::default(),
            session: session::Waiting::default(),
            actions: Vec::new(),
        }
    }

    /// Something happens. Actions are to be done in their order. A Leg that is over still acknowledges what comes late: keep it for
    /// [`crate::transaction::TIMEOUT`].
    pub fn step(&mut self, now: Instant, event: Event, tokens: &mut dyn Tokens) -> Vec<Action> {
        match event {
            Event::Timeout => self.on_timeout(now, tokens),
            Event::Order(order) => match self.state {
                State::Calling => self.order_outgoing(&order),
                State::Ringing => self.order_incoming(now, &order),
                State::Up => self.order_up(order, tokens),
                State::Over => {}
            },
            Event::Response { of, incoming } => self.on_response(now, of, &incoming, tokens),
            Event::NoResponse { of, code } => self.on_no_response(of, code, tokens),
            Event::Request { id, incoming } => self.on_request(now, id, &incoming, tokens),
            Event::Ack(incoming) => self.on_ack(&incoming, tokens),
            Event::Cancelled => self.on_cancelled(),
            Event::Unacknowledged(id) => self.on_unacknowledged(id, tokens),
            Event::NoPrack => self.on_no_prack(),
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.state != State::Up {
            return None;
        }
        let timer = self.timer.as_ref();
        let renew = timer
            .and_then(SessionTimer::renew_at)
            .filter(|_| !self.session.is_renewing());
        [
            renew,
            timer.map(SessionTimer::ends_at),
            self.session.retry_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What names it.
    #[must_use]
    pub fn name(&self) -> &LegName {
        &self.name
    }

    /// Whether a new INVITE may take the place of this Leg (RFC 3891 §3). `id` is what its Replaces names, with `early_only` or not.
    ///
    /// # Errors
    ///
    /// The answer to that INVITE: 481 when it is no dialog of this Leg, or one that somebody else began and that nobody answered yet;
    /// 486 when only an early one is meant and this one is up; 603 when the Leg is over.
    pub fn may_be_replaced(&self, id: &DialogId, early_only: bool) -> Result<(), StatusCode> {
        let is = |known: &DialogId| known == id;
        match self.state {
            State::Over => Err(StatusCode::DECLINE),
            State::Up if !self.dialog().is_some_and(is) => Err(StatusCode::NO_SUCH_CALL),
            State::Up if early_only => Err(StatusCode::BUSY_HERE),
            State::Up => Ok(()),
            State::Calling if self.has_fork(id) => Ok(()),
            State::Calling | State::Ringing => Err(StatusCode::NO_SUCH_CALL),
        }
    }

    /// The dialog once it is there, for transfers: ours of an incoming Leg, that of the 2xx of an outgoing one.
    #[must_use]
    pub fn dialog(&self) -> Option<&DialogId> {
        self.dialog.as_ref().map(|dialog| &dialog.id)
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// What is agreed on.
    #[must_use]
    pub fn agreed(&self) -> Option<&Agreed> {
        self.media.agreed.as_ref()
    }

    /// Nothing is told after the end.
    fn tell(&mut self, told: Told) {
        if self.state != State::Over {
            self.actions.push(Action::Tell(told));
        }
    }

    fn respond(&mut self, id: ServerId, response: Response) {
        self.actions.push(Action::Respond {
            id,
            response,
            reliable: false,
        });
    }

    fn end(&mut self, code: StatusCode, cause: Option<u8>, why: Why) {
        if self.state != State::Over {
            self.tell(Told::Ended(Ended { code, cause, why }));
            self.state = State::Over;
        }
    }

    fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// Sends a request of the dialog, with credentials where they are asked for.
    fn send(&mut self, mut request: Request, hop: Uri, tokens: &mut dyn Tokens) -> RequestId {
        request
            .headers
            .set(HeaderName::UserAgent, &self.settings.agent);
        if request.method == Method::Ack {
            if let Some((name, value)) = &self.invite_credentials {
                request.headers.set(name.clone(), value);
            }
        } else if let Some(answering) = &mut self.answering {
            answering.authorize(&mut request, tokens.next());
            if request.method == Method::Invite {
                let name = answering.challenge().header();
                let value = request.headers.get(&name).unwrap_or_default().to_owned();
                self.invite_credentials = Some((name, value));
            }
        }
        let id = self.next_request();
        self.actions.push(Action::Request { id, hop, request });
        id
    }

    /// An answer with what all of ours have.
    fn answer(&self, request: &Request, code: StatusCode) -> Response {
        let tag = self
            .dialog
            .as_ref()
            .map_or("", |dialog| &dialog.id.local_tag);
        let mut response = Response::to(request, code, tag);
        response
            .headers
            .push(HeaderName::Server, &self.settings.agent);
        let refreshes = matches!(
            request.method,
            Method::Invite | Method::Update | Method::Refer
        );
        if refreshes && code.is_provisional() | code.is_success() {
            response
                .headers
                .push(HeaderName::Contact, &self.settings.contact);
        }
        if matches!(
            request.method,
            Method::Invite | Method::Update | Method::Options
        ) && code.is_success()
        {
            let quirks = self.settings.quirks;
            response.headers.push(HeaderName::Allow, quirks.allow());
            response
                .headers
                .push(HeaderName::Supported, quirks.supported());
        }
        response
    }

    /// A description of ours, with a version above those before.
    fn local(&mut self) -> Local {
        let active = self.agreed().and_then(|agreed| match agreed.keys {
            Keys::Dtls { active, .. } => Some(active),
            Keys::None | Keys::Sdes { .. } => None,
        });
        let local = Local {
            version: self.media.version,
            active,
            ..self.settings.local.clone()
        };
        self.media.version += 1;
        local
    }

    /// Makes an offer, and remembers it until its answer.
    fn offer(&mut self) -> Session {
        let mut local = self.local();
        let holds = !matches!(self.media.wish, Direction::SendRecv | Direction::RecvOnly);
        if holds && self.settings.quirks.hold_by_zero_address {
            local.address = Ipv4Addr::UNSPECIFIED.into();
        }
        let mut capabilities = self.settings.capabilities.clone();
        // What is encrypted stays so, although plain RTP would be offered first.
        if capabilities.security == Security::Accept {
            capabilities.security = match self.agreed().map(|agreed| &agreed.keys) {
                Some(Keys::Sdes { .. }) => Security::Require,
                Some(Keys::Dtls { .. }) => Security::Dtls,
                Some(Keys::None) | None => Security::Accept,
            };
        }
        let offer = negotiate::offer(&capabilities, &local, self.media.wish);
        self.media.offered = Some(offer.clone());
        offer
    }

    /// Answers an offer; what was agreed on before stays when that fails.
    fn answer_offer(&mut self, offer: &Session) -> Result<Session, Disagreement> {
        let local = self.local();
        let (answer, agreed) =
            negotiate::answer(offer, &self.settings.capabilities, &local, self.media.wish)?;
        self.media.offered = None;
        self.agree(agreed);
        Ok(answer)
    }

    /// Takes the answer to our offer. Without an offer it says nothing new: the same answer comes in 183 and 200.
    fn take_answer(&mut self, answer: &Session) -> Result<(), Disagreement> {
        let Some(offer) = self.media.offered.take() else {
            return Ok(());
        };
        let agreed = negotiate::accept(&offer, answer, &self.settings.capabilities)?;
        self.agree(agreed);
        Ok(())
    }

    fn agree(&mut self, agreed: Agreed) {
        if self.media.agreed.as_ref() != Some(&agreed) {
            self.media.agreed = Some(agreed.clone());
            self.tell(Told::Media(Box::new(agreed)));
        }
    }
}

/// What a body says of media.
#[derive(Debug, PartialEq)]
enum Body {
    None,
    Description(Session),
    /// No SDP, or none that can be read.
    Other,
}

impl Body {
    fn read(headers: &Headers, body: &[u8]) -> Self {
        match Content::of(headers, body) {
            Content::None => Self::None,
            Content::Description(body) => {
                Session::parse(body).map_or(Self::Other, Self::Description)
            }
            Content::Other => Self::Other,
        }
    }
}

fn describe(headers: &mut Headers, body: &mut Vec<u8>, session: &Session) {
    headers.set(HeaderName::ContentType, "application/sdp");
    *body = session.to_string().into_bytes();
}

/// The cause of Q.850 in a Reason header (RFC 3326).
fn cause(headers: &Headers) -> Option<u8> {
    let reasons = headers.list(&HeaderName::Reason).ok()?;
    reasons.into_iter().find_map(|reason| {
        let (protocol, params) = reason.split_once(';')?;
        let cause = params
            .split(';')
            .find_map(|param| param.trim().strip_prefix("cause="))?;
        protocol
            .trim()
            .eq_ignore_ascii_case("Q.850")
            .then(|| cause.trim().parse().ok())?
    })
}

fn give_cause(headers: &mut Headers, cause: Option<u8>) {
    if let Some(cause) = cause {
        headers.push(HeaderName::Reason, format_args!("Q.850;cause={cause}"));
    }
}
