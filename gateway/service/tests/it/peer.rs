//! A provider, a PBX or a stranger: a socket and what is said on it, message by message.

use std::net::SocketAddr;
use std::time::Duration;

use gateway_sip::digest::{Answering, Challenge};
use gateway_sip::stream::{Frame, Framer};
use gateway_sip::{HeaderName, Message, Method, NameAddr, Request, Response, StatusCode, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long something may take that has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a peer offers and answers.
pub(crate) const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
    m=audio 40000 RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";

enum Way {
    Udp(UdpSocket),
    Tcp(TcpStream, Framer),
}

/// One end that speaks SIP.
pub(crate) struct Peer {
    way: Way,
    pub(crate) address: SocketAddr,
    /// Where what begins here goes.
    gateway: SocketAddr,
    numbers: u32,
}

impl Peer {
    /// A peer on UDP at `ip`.
    pub(crate) async fn udp(ip: &str) -> Self {
        Self::at(SocketAddr::new(ip.parse().unwrap(), 0)).await
    }

    /// A peer on UDP at this address.
    pub(crate) async fn at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        Self {
            way: Way::Udp(socket),
            address,
            gateway: address,
            numbers: 0,
        }
    }

    /// The connection that the gateway makes.
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (stream, gateway) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        Self {
            address: stream.local_addr().unwrap(),
            way: Way::Tcp(stream, Framer::new()),
            gateway,
            numbers: 0,
        }
    }

    /// A connection to the gateway.
    pub(crate) async fn connect(gateway: SocketAddr) -> Self {
        let stream = TcpStream::connect(gateway).await.unwrap();
        Self {
            address: stream.local_addr().unwrap(),
            way: Way::Tcp(stream, Framer::new()),
            gateway,
            numbers: 0,
        }
    }

    pub(crate) fn toward(mut self, gateway: SocketAddr) -> Self {
        self.gateway = gateway;
        self
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        match &mut self.way {
            Way::Udp(socket) => drop(socket.send_to(bytes, self.gateway).await.unwrap()),
            Way::Tcp(stream, _) => stream.write_all(bytes).await.unwrap(),
        }
    }

    async fn receive(&mut self) -> Message {
        let bytes = match &mut self.way {
            Way::Udp(socket) => {
                let mut buffer = vec![0; 65_535];
                let received = timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
                let (len, from) = received.expect("something has to come").unwrap();
                self.gateway = from;
                buffer.truncate(len);
                buffer
            }
            Way::Tcp(stream, framer) => loop {
                if let Some(Frame::Message(bytes)) = framer.poll().unwrap() {
                    break bytes;
                }
                let mut buffer = [0; 4_096];
                let read = timeout(PATIENCE, stream.read(&mut buffer)).await;
                let len = read.expect("something has to come").unwrap();
                assert_ne!(len, 0, "the connection has ended");
                framer.push(&buffer[..len]);
            },
        };
        Message::parse(&bytes).expect("the gateway speaks SIP")
    }

    /// Sends a request, and once more with the credentials it is asked for.
    pub(crate) async fn prove(&mut self, request: &mut Request, user: &str, password: &str) {
        self.send(&request.to_bytes()).await;
        let method = request.method.clone();
        let challenged = self.code(&method, StatusCode::UNAUTHORIZED).await;
        let value = challenged.headers.get(&HeaderName::WwwAuthenticate);
        let challenge = Challenge::parse(value.unwrap(), false).unwrap().unwrap();
        let via = request.headers.get(&HeaderName::Via).unwrap();
        let via = via.replace(";branch=z9hG4bK", ";branch=z9hG4bKproven");
        request.headers.set(HeaderName::Via, via);
        request
            .headers
            .set(HeaderName::CSeq, format_args!("2 {method}"));
        Answering::new(challenge, user, password).authorize(request, 5);
        self.send(&request.to_bytes()).await;
    }

    /// The next request with this method; what came again of others is passed over, OPTIONS are answered.
    pub(crate) async fn request(&mut self, method: &Method) -> Request {
        loop {
            match self.receive().await {
                Message::Request(request) if request.method == *method => return request,
                Message::Request(request) if request.method == Method::Options => {
                    self.answer(&request, StatusCode::OK, |_| {}).await;
                }
                Message::Request(_) | Message::Response(_) => {}
            }
        }
    }

    /// The next response to a request with this method; 100 and what came again is passed over.
    pub(crate) async fn response(&mut self, method: &Method) -> Response {
        let of = format!(" {method}");
        loop {
            if let Message::Response(response) = self.receive().await
                && response.code != StatusCode::TRYING
                && response
                    .headers
                    .get(&HeaderName::CSeq)
                    .unwrap()
                    .ends_with(&of)
            {
                return response;
            }
        }
    }

    /// Waits for a response with this code to such a request.
    pub(crate) async fn code(&mut self, method: &Method, code: StatusCode) -> Response {
        loop {
            let response = self.response(method).await;
            if response.code == code {
                return response;
            }
            assert!(
                response.code.is_provisional(),
                "{response:?} instead of {code:?}"
            );
        }
    }

    pub(crate) async fn answer(
        &mut self,
        request: &Request,
        code: StatusCode,
        more: impl FnOnce(&mut Response),
    ) {
        let mut response = Response::to(request, code, "peer");
        if matches!(request.method, Method::Invite | Method::Update) && code.is_success() {
            let contact = self.contact();
            response.headers.push(HeaderName::Contact, contact);
        }
        more(&mut response);
        self.send(&response.to_bytes()).await;
    }

    /// Answers an INVITE with 200 and a description, and waits for its ACK.
    pub(crate) async fn pick_up(&mut self, invite: &Request) {
        self.answer(invite, StatusCode::OK, |response| {
            response
                .headers
                .push(HeaderName::ContentType, "application/sdp");
            response.body = SDP.as_bytes().to_vec();
        })
        .await;
        self.request(&Method::Ack).await;
    }

    pub(crate) fn contact(&self) -> NameAddr {
        let transport = match self.way {
            Way::Udp(_) => "udp",
            Way::Tcp(..) => "tcp",
        };
        let text = format!("<sip:peer@{};transport={transport}>", self.address);
        NameAddr::parse(&text, "Contact").unwrap()
    }

    /// A request out of any dialog.
    pub(crate) fn outside(&mut self, method: &Method, target: &str) -> Request {
        self.numbers += 1;
        let number = self.numbers;
        let mut request = Request::new(method.clone(), &Uri::parse(target).unwrap());
        let (address, contact) = (self.address, self.contact());
        let transport = match self.way {
            Way::Udp(_) => "UDP",
            Way::Tcp(..) => "TCP",
        };
        let headers = &mut request.headers;
        let branch = format!("z9hG4bKpeer{}{number}", address.port());
        headers.push(
            HeaderName::Via,
            format_args!("SIP/2.0/{transport} {address};branch={branch};rport"),
        );
        headers.push(HeaderName::MaxForwards, 70);
        headers.push(
            HeaderName::From,
            format_args!("\"Front desk\" <sip:+4989555@{address}>;tag=peer{number}"),
        );
        headers.push(HeaderName::To, format_args!("<{target}>"));
        headers.push(
            HeaderName::CallId,
            format_args!("peer{}-{number}", address.port()),
        );
        headers.push(HeaderName::CSeq, format_args!("1 {method}"));
        headers.push(HeaderName::Contact, contact);
        request
    }

    /// An INVITE with a description.
    pub(crate) fn invite(&mut self, target: &str) -> Request {
        let mut invite = self.outside(&Method::Invite, target);
        invite
            .headers
            .push(HeaderName::ContentType, "application/sdp");
        invite.body = SDP.as_bytes().to_vec();
        invite
    }

    /// A request of the dialog that `invite` and its `answer` made.
    pub(crate) fn inside(
        &mut self,
        method: &Method,
        number: u32,
        invite: &Request,
        answer: &Response,
    ) -> Request {
        let contact = answer.headers.addresses(&HeaderName::Contact).unwrap();
        let target = contact
            .first()
            .expect("a dialog has a Contact")
            .uri
            .to_string();
        let mut request = self.outside(method, &target);
        let keep = |name: &HeaderName| invite.headers.get(name).unwrap().to_owned();
        let (from, call_id) = (keep(&HeaderName::From), keep(&HeaderName::CallId));
        let to = answer.headers.get(&HeaderName::To).unwrap().to_owned();
        let headers = &mut request.headers;
        headers.set(HeaderName::From, from);
        headers.set(HeaderName::CallId, call_id);
        headers.set(HeaderName::To, to);
        headers.set(HeaderName::CSeq, format_args!("{number} {method}"));
        request
    }

    /// A request of the dialog that our answer to `invite` made.
    pub(crate) fn inside_of(&mut self, method: &Method, number: u32, invite: &Request) -> Request {
        let contact = invite.headers.addresses(&HeaderName::Contact).unwrap();
        let mut request = self.outside(method, &contact[0].uri.to_string());
        let keep = |name: &HeaderName| invite.headers.get(name).unwrap().to_owned();
        let headers = &mut request.headers;
        let own = format!("{};tag=peer", keep(&HeaderName::To));
        headers.set(HeaderName::From, own);
        headers.set(HeaderName::To, keep(&HeaderName::From));
        headers.set(HeaderName::CallId, keep(&HeaderName::CallId));
        headers.set(HeaderName::CSeq, format_args!("{number} {method}"));
        request
    }

    /// Waits until a transfer has come to this, by its NOTIFY; those before are answered, too.
    pub(crate) async fn notified(&mut self, code: u16) {
        loop {
            let notify = self.request(&Method::Notify).await;
            self.answer(&notify, StatusCode::OK, |_| {}).await;
            let event = notify.headers.get(&HeaderName::Event);
            assert_eq!(event, Some("refer"));
            let body = String::from_utf8_lossy(&notify.body).into_owned();
            if body.starts_with(&format!("SIP/2.0 {code} ")) {
                return;
            }
            assert!(body.starts_with("SIP/2.0 1"), "{body} instead of {code}");
        }
    }

    /// The next request with this method, or the next final code for one of ours.
    pub(crate) async fn first(&mut self, method: &Method) -> Result<Request, StatusCode> {
        loop {
            match self.receive().await {
                Message::Request(request) if request.method == *method => return Ok(request),
                Message::Response(response) if response.code.is_final() => {
                    return Err(response.code);
                }
                Message::Request(_) | Message::Response(_) => {}
            }
        }
    }

    /// Waits until the other side has closed the connection.
    pub(crate) async fn ended(&mut self) {
        let Way::Tcp(stream, _) = &mut self.way else {
            panic!("a datagram has no connection")
        };
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        // Closed with something unread, or without.
        drop(end.expect("it has to end"));
    }

    /// What has come by now with `request`, which is answered last: the codes of all responses to other requests.
    pub(crate) async fn codes_before(&mut self, request: &Request) -> Vec<u16> {
        self.send(&request.to_bytes()).await;
        let call_id = request.headers.get(&HeaderName::CallId);
        let mut codes = Vec::new();
        loop {
            if let Message::Response(response) = self.receive().await {
                if response.headers.get(&HeaderName::CallId) == call_id {
                    return codes;
                }
                codes.push(response.code.get());
            }
        }
    }

    /// Whether anything has come that was not looked at.
    pub(crate) fn hears_nothing(&self) -> bool {
        match &self.way {
            Way::Udp(socket) => socket.try_recv(&mut [0; 1]).is_err(),
            Way::Tcp(stream, _) => stream.try_read(&mut [0; 1]).is_err(),
        }
    }
}
