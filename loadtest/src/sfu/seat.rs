//! A client in one of our Rooms: a Session that says what calls.v1 wants said, beside the [`Peer`] that does the media.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::fleet::{BotId, Fleet};
use super::peer::Peer;
use super::tracks::{Kind, Role};
use crate::client::{Session, Target};
use crate::sign_in::User;

/// Where clients meet, and how they take part.
#[derive(Clone)]
pub(crate) struct Meeting {
    pub(crate) target: Target,
    /// The address of the clients' media.
    pub(crate) ip: IpAddr,
    pub(crate) fleet: Arc<Fleet>,
    /// The height in pixels at which they show each picture; without it they take what comes.
    pub(crate) height: Option<u16>,
    /// Whether they should leave.
    pub(crate) leaving: watch::Receiver<bool>,
}

/// A client that has joined.
pub(crate) struct Seat {
    pub(crate) bot: BotId,
    pub(crate) participant: String,
    /// What it should do.
    pub(crate) orders: mpsc::Sender<Order>,
    /// Its Session goes on here; the outcome tells what was in its slots.
    pub(crate) session: JoinHandle<anyhow::Result<Slots>>,
}

/// What a client in a Room can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Show all pictures at this height from now on, in pixels; 0: out of sight.
    Show(u16),
    /// Write this into the Room's chat.
    Say(String),
    /// Lose the socket and resume the Session on another, which is connection number so and so.
    Reconnect(usize),
    /// Leave, as people do.
    Leave,
    /// Be gone without a word.
    Vanish,
}

/// How long a frame waits for its acknowledgement, as in the browser's client: until then the server keeps it.
const ACK_DELAY: Duration = Duration::from_secs(1);

/// How many orders may wait.
const ORDERS_MAX: usize = 8;

/// Which Track is in which slot, by `mid`.
pub(crate) type Slots = BTreeMap<String, Option<String>>;

#[derive(Deserialize)]
struct Frame<T> {
    data: T,
}

/// The answer to `room.join`.
#[derive(Deserialize)]
struct Joined {
    participant: String,
    sdp: String,
    tracks: Vec<TrackOfSection>,
    slots: Vec<Slot>,
    state: RoomState,
}

#[derive(Deserialize)]
struct TrackOfSection {
    mid: String,
    track: String,
}

#[derive(Deserialize)]
struct Slot {
    mid: String,
    track: Option<String>,
}

#[derive(Deserialize)]
struct RoomState {
    room: String,
    participants: Vec<Participant>,
}

#[derive(Deserialize)]
struct Participant {
    participant: String,
    tracks: Vec<Track>,
}

#[derive(Deserialize)]
struct Track {
    track: String,
    source: String,
}

#[derive(Deserialize)]
struct OfParticipant {
    participant: Participant,
}

#[derive(Deserialize)]
struct OfWhoLeft {
    participant: String,
}

#[derive(Deserialize)]
struct OfSlots {
    slots: Vec<Slot>,
}

#[derive(Deserialize)]
struct OfLayers {
    track: String,
    wanted: Vec<WantedLayer>,
}

#[derive(Deserialize)]
struct WantedLayer {
    rid: Option<String>,
    wanted: bool,
}

impl Meeting {
    /// Joins the Room called `room` over connection number `index`.
    pub(crate) async fn join(
        &self,
        room: &str,
        user: &User,
        index: usize,
        role: &Role,
    ) -> anyhow::Result<Seat> {
        let mut session = self.target.open(&user.token, index).await?;
        let mut peer = Peer::new(self.ip, role)?;
        let sdp = peer.offer()?;
        let tracks: Vec<_> = peer
            .tracks()
            .map(|(mid, kind)| json!({ "mid": mid, "source": source(kind), "muted": false }))
            .collect();
        let join =
            json!({ "room": room, "generation": peer.generation(), "sdp": sdp, "tracks": tracks });
        session.command("room.join", &join.to_string()).await?;
        session.flush().await?;
        let text = session.wait_for("ok").await?;
        let joined: Frame<Joined> =
            serde_json::from_str(&text).with_context(|| format!("no place in the Room: {text}"))?;
        let joined = joined.data;
        ensure!(
            joined.tracks.len() == role.sends.len(),
            "the Room takes not all Tracks: {text}"
        );
        peer.accept(joined.sdp)?;
        let bot = self.fleet.add(peer)?;

        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let mut attendance = Attendance {
            meeting: self.clone(),
            token: user.token.clone(),
            orders: received,
            height: self.height,
            bot,
            room: joined.state.room,
            mids: joined
                .tracks
                .into_iter()
                .map(|track| (track.track, track.mid))
                .collect(),
            slots: joined
                .slots
                .into_iter()
                .map(|slot| (slot.mid, slot.track))
                .collect(),
            pictures: BTreeMap::new(),
        };
        let others = joined.state.participants.into_iter();
        for other in others.filter(|other| other.participant != joined.participant) {
            attendance.note(other);
        }
        attendance.tell_wishes(&mut session).await?;
        Ok(Seat {
            bot,
            participant: joined.participant,
            orders,
            session: tokio::spawn(attendance.run(session)),
        })
    }
}

/// A Session in a Room.
struct Attendance {
    meeting: Meeting,
    token: String,
    orders: mpsc::Receiver<Order>,
    height: Option<u16>,
    bot: BotId,
    room: String,
    /// Own sections by Track.
    mids: BTreeMap<String, String>,
    slots: Slots,
    /// Tracks of video by Participant.
    pictures: BTreeMap<String, Vec<String>>,
}

/// What a Session waits for.
enum Heard {
    Frame(Utf8Bytes),
    Order(Order),
    /// For so long that what came before is acknowledged.
    Nothing,
}

impl Attendance {
    /// Answers what the server says until it is time to leave.
    async fn run(mut self, mut session: Session) -> anyhow::Result<Slots> {
        let mut leaving = self.meeting.leaving.clone();
        loop {
            let leaves = async {
                // Whoever could say so is gone: that means leaving, too.
                leaving.wait_for(|leaving| *leaving).await.ok();
            };
            let owes_ack = session.owes_ack();
            let heard = tokio::select! {
                text = session.next() => Heard::Frame(text?),
                () = tokio::time::sleep(ACK_DELAY), if owes_ack => Heard::Nothing,
                () = leaves => Heard::Order(Order::Leave),
                Some(order) = self.orders.recv() => Heard::Order(order),
            };
            let order = match heard {
                Heard::Frame(text) => {
                    self.on_frame(&text, &mut session).await?;
                    continue;
                }
                Heard::Nothing => {
                    session.control("ack").await?;
                    continue;
                }
                Heard::Order(order) => order,
            };
            match order {
                Order::Show(height) => {
                    self.height = Some(height);
                    self.tell_wishes(&mut session).await?;
                }
                Order::Say(text) => {
                    let chat = json!({ "room": self.room, "text": text });
                    session.command("room.chat", &chat.to_string()).await?;
                    session.flush().await?;
                }
                Order::Reconnect(index) => {
                    let target = &self.meeting.target;
                    target.resume(&mut session, &self.token, index).await?;
                }
                Order::Leave => break,
                Order::Vanish => {
                    self.meeting.fleet.remove(self.bot)?;
                    return Ok(self.slots);
                }
            }
        }
        session
            .command("room.leave", &json!({ "room": self.room }).to_string())
            .await?;
        session.bye().await?;
        Ok(self.slots)
    }

    async fn on_frame(&mut self, text: &str, session: &mut Session) -> anyhow::Result<()> {
        match crate::frame::head(text)?.kind {
            "room.slots" => {
                let frame: Frame<OfSlots> = serde_json::from_str(text)?;
                let slots = frame.data.slots.into_iter();
                self.slots.extend(slots.map(|slot| (slot.mid, slot.track)));
            }
            "room.layers" => {
                let frame: Frame<OfLayers> = serde_json::from_str(text)?;
                let wanted = frame.data.wanted.into_iter();
                let wanted = wanted.map(|layer| (layer.rid.unwrap_or_default(), layer.wanted));
                if let Some(mid) = self.mids.get(&frame.data.track) {
                    self.meeting
                        .fleet
                        .set_layers(self.bot, mid, wanted.collect())?;
                }
            }
            "room.participant" if self.height.is_some() => {
                let frame: Frame<OfParticipant> = serde_json::from_str(text)?;
                if self.note(frame.data.participant) {
                    self.tell_wishes(session).await?;
                }
            }
            "room.left" => {
                let frame: Frame<OfWhoLeft> = serde_json::from_str(text)?;
                self.pictures.remove(&frame.data.participant);
            }
            "room.ended" => anyhow::bail!("the Room has ended for a client: {text}"),
            _ => {}
        }
        Ok(())
    }

    /// Whether somebody's pictures are news.
    fn note(&mut self, other: Participant) -> bool {
        let tracks = other.tracks.into_iter();
        let pictures = tracks.filter(|track| matches!(track.source.as_str(), "camera" | "screen"));
        let pictures: Vec<_> = pictures.map(|track| track.track).collect();
        let before = self.pictures.insert(other.participant, pictures.clone());
        before.is_none_or(|before| before != pictures)
    }

    async fn tell_wishes(&self, session: &mut Session) -> anyhow::Result<()> {
        let Some(height) = self.height else {
            return Ok(());
        };
        let pictures = self.pictures.values().flatten();
        let wishes: Vec<Value> = pictures
            .map(|track| json!({ "track": track, "wanted": true, "height": height }))
            .collect();
        let want = json!({ "room": self.room, "automatic": true, "wishes": wishes });
        session.command("room.want", &want.to_string()).await?;
        session.flush().await
    }
}

fn source(kind: Kind) -> &'static str {
    match kind {
        Kind::Microphone => "microphone",
        Kind::Camera | Kind::Thumbnail | Kind::Simulcast | Kind::Film => "camera",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_answer_to_a_join_what_is_needed_is_read() {
        let text = r#"{"type":"ok","id":"1","seq":2,"ack":1,"reply_to":"0","data":{"participant":"P","role":"moderator",
            "permissions":{"speak":true},"state":{"room":"R","name":"weekly","participants":[
            {"participant":"Q","user":"q","tracks":[{"track":"T","source":"camera","muted":false}]}]},
            "tracks":[{"mid":"0","track":"M"}],"generation":1,"sdp":"v=0","slots":[{"mid":"1","track":"T"},{"mid":"2","track":null}],
            "audio_wanted":0,"video_wanted":0,"speakers":[],"chat":[]}}"#;
        let Frame { data: joined } = serde_json::from_str::<Frame<Joined>>(text).unwrap();
        assert_eq!(
            (joined.participant.as_str(), joined.sdp.as_str()),
            ("P", "v=0")
        );
        assert_eq!(joined.state.room, "R");
        assert_eq!(joined.state.participants[0].tracks[0].track, "T");
        let slots: Vec<_> = joined.slots.into_iter().map(|slot| slot.track).collect();
        assert_eq!(slots, [Some("T".to_owned()), None]);

        let waiting = r#"{"data":{"waiting":true,"room":"R"}}"#;
        assert!(serde_json::from_str::<Frame<Joined>>(waiting).is_err());
    }
}
