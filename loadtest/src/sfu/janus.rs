//! Clients of Janus: its VideoRoom plugin over WebSocket, a connection for each role, as its own page does it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use ulid::Ulid;

use super::peer::Peer;
use super::rival::JANUS_ROOM;
use super::tracks::Role;

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait for a feed that isn't known yet.
const FEED_LATER: Duration = Duration::from_millis(50);

/// One session of Janus, which may have any number of handles.
pub(super) struct Janus {
    socket: WebSocketStream<TcpStream>,
    session: u64,
    ip: IpAddr,
}

impl Janus {
    /// A session with the Janus at `address`, for clients at `ip`.
    pub(super) async fn open(address: SocketAddr, ip: IpAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let uri = format!("ws://{address}/")
            .parse()
            .context("not an address")?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol("janus-protocol");
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let mut janus = Self {
            socket,
            session: 0,
            ip,
        };
        let created = janus.ask(json!({ "janus": "create" })).await?;
        janus.session = created["data"]["id"].as_u64().context("no session")?;
        Ok(janus)
    }

    /// A client that sends; returns what others subscribe to.
    pub(super) async fn publish(&mut self, role: &Role) -> anyhow::Result<(Peer, u64)> {
        let handle = self.attach().await?;
        let join = json!({ "request": "join", "ptype": "publisher", "room": JANUS_ROOM });
        let joined = self.message(handle, join, None).await?;
        let feed = joined["plugindata"]["data"]["id"]
            .as_u64()
            .context("no feed")?;
        let mut peer = Peer::new(self.ip, role)?;
        let offer = json!({ "type": "offer", "sdp": peer.offer()? });
        let answered = self
            .message(handle, json!({ "request": "publish" }), Some(offer))
            .await?;
        peer.accept(sdp(&answered)?)?;
        Ok((peer, feed))
    }

    /// A client that receives all of these.
    pub(super) async fn subscribe(&mut self, feeds: &[u64]) -> anyhow::Result<Peer> {
        let handle = self.attach().await?;
        let streams: Vec<_> = feeds.iter().map(|feed| json!({ "feed": feed })).collect();
        let join = json!({ "request": "join", "ptype": "subscriber", "room": JANUS_ROOM, "streams": streams });
        let began = Instant::now();
        let offered = loop {
            match self.message(handle, join.clone(), None).await {
                Ok(offered) => break offered,
                // Janus finds a feed a moment after its client is connected.
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
                Err(_) => tokio::time::sleep(FEED_LATER).await,
            }
        };
        let mut peer = Peer::new(self.ip, &Role::default())?;
        let answer = json!({ "type": "answer", "sdp": peer.answer(sdp(&offered)?)? });
        self.message(handle, json!({ "request": "start" }), Some(answer))
            .await?;
        Ok(peer)
    }

    async fn attach(&mut self) -> anyhow::Result<u64> {
        let request = json!({ "janus": "attach", "plugin": "janus.plugin.videoroom", "session_id": self.session });
        let attached = self.ask(request).await?;
        attached["data"]["id"].as_u64().context("no handle")
    }

    async fn message(
        &mut self,
        handle: u64,
        body: Value,
        jsep: Option<Value>,
    ) -> anyhow::Result<Value> {
        let mut request = json!({ "janus": "message", "session_id": self.session, "handle_id": handle, "body": body });
        if let Some(jsep) = jsep {
            request["jsep"] = jsep;
        }
        let answer = self.ask(request).await?;
        match answer["plugindata"]["data"].get("error") {
            Some(error) => bail!("Janus refuses: {error}"),
            None => Ok(answer),
        }
    }

    /// Asks and waits for what it leads to.
    async fn ask(&mut self, mut request: Value) -> anyhow::Result<Value> {
        let transaction = Ulid::generate().to_string();
        request["transaction"] = json!(transaction);
        self.socket
            .send(Message::Text(request.to_string().into()))
            .await?;
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next())
                .await
                .context("no answer of Janus in time")?;
            let Message::Text(text) = message.context("Janus went away")?? else {
                continue;
            };
            let answer: Value = serde_json::from_str(&text)?;
            match answer["janus"].as_str() {
                _ if answer["transaction"] != json!(transaction) => {}
                Some("ack") => {}
                Some("error") => bail!("Janus refuses: {text}"),
                _ => return Ok(answer),
            }
        }
    }
}

fn sdp(answer: &Value) -> anyhow::Result<String> {
    let sdp = answer["jsep"]["sdp"].as_str();
    Ok(sdp
        .with_context(|| format!("no description in {answer}"))?
        .to_owned())
}
