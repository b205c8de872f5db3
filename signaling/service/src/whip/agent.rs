//! A client of calls.v1 on behalf of one that speaks HTTP: sans-IO, like the cores.
//!
//! ```text
//! frames of the shard ─▶ handle_frame ─┐            ┌─▶ Say: a frame for the shard
//! PATCH ───────────────▶ handle_patch ─┼─▶ Agent ───┼─▶ Joined, Refused: the answer to POST
//! DELETE ──────────────▶ handle_leave ─┘            └─▶ Patched: that to PATCH;  Over
//! ```

use std::collections::VecDeque;

use model::room::ParticipantState;
use model::{MessageId, ParticipantId, RoomId, RoomName, Source};
use serde::Deserialize;
use signaling_wire::room::{
    RoomEnded, RoomJoin, RoomJoined, RoomLeft, RoomList, RoomOffer, RoomOffered, RoomParticipant,
    RoomSpeakers, RoomWant, TrackSent,
};
use signaling_wire::whip::{
    Fragment, Offer, Precondition, Purpose, answer_with_exclusive_mux, restart_fragment,
};
use signaling_wire::{ErrorData, Head, encode};

use super::problem::Problem;
use super::scene::Scene;

/// What the HTTP session is for.
#[derive(Debug)]
pub(crate) enum Errand {
    /// To send. The sections are a microphone and a camera, or a shared screen with its sound.
    Publish {
        /// Which of both.
        is_screen: bool,
    },
    /// To receive.
    View(Scene),
}

impl Errand {
    pub(crate) const fn purpose(&self) -> Purpose {
        match self {
            Self::Publish { .. } => Purpose::Publish,
            Self::View(_) => Purpose::View,
        }
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Hand a frame to the shard.
    Say(String),
    /// It is in the Room: answer the POST.
    Joined {
        /// The SDP.
        answer: String,
        /// The entity-tag of the ICE session, quotes included.
        tag: String,
    },
    /// It is not; nothing more comes.
    Refused(Problem),
    /// Answer the PATCH.
    Patched(Result<Patched, Problem>),
    /// It has left, or had to; nothing more comes.
    Over,
}

/// What a PATCH did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Patched {
    /// Candidates were taken note of.
    Noted,
    /// There is another ICE session.
    Restarted {
        /// Its credentials and candidates, as an SDP fragment.
        fragment: String,
        /// Its entity-tag, quotes included.
        tag: String,
    },
}

/// An encoder or a viewer.
#[derive(Debug)]
pub(crate) struct Agent {
    room: RoomName,
    errand: Errand,
    /// The newest that was answered, or is the first.
    offer: Offer,
    /// Of the newest offer that was made.
    generation: u32,
    /// Of the newest ICE session.
    tag: String,
    stage: Stage,
    restart: Option<Restart>,
    /// How many commands were sent.
    seq: u64,
    /// The newest reliable frame that came.
    received: u64,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// `welcome` has not come.
    Outside,
    /// The command is not answered.
    Joining(MessageId),
    Inside(RoomId),
    Over,
}

/// An ICE restart that is not answered.
#[derive(Debug)]
struct Restart {
    command: MessageId,
    offer: Offer,
}

impl Agent {
    /// One that joins once the shard says `welcome`.
    pub(crate) fn new(room: RoomName, errand: Errand, offer: Offer) -> Self {
        Self {
            room,
            errand,
            offer,
            generation: 1,
            tag: String::new(),
            stage: Stage::Outside,
            restart: None,
            seq: 0,
            received: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Whether a PATCH is being carried out; the next one has to wait.
    pub(crate) const fn is_busy(&self) -> bool {
        self.restart.is_some()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes frames of the shard that came together.
    pub(crate) fn handle_frames<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        let before = self.received;
        for text in texts {
            // The shard is ours: what can't be read was never written.
            if let Ok((kind, head, data)) = signaling_wire::open(text) {
                self.received = head.seq.unwrap_or(self.received);
                self.on_frame(&kind, head.reply_to, data);
            }
        }
        if let Errand::View(scene) = &mut self.errand
            && let Stage::Inside(room) = self.stage
            && let Some(wanted) = scene.poll_wanted()
        {
            let want = RoomWant {
                room,
                automatic: wanted.automatic,
                wishes: wanted.wishes,
            };
            self.command("room.want", &want);
        }
        if self.received != before && self.stage != Stage::Over {
            self.say("ack", &Head::default(), "{}");
        }
    }

    /// Takes the end of the way to the shard: the Session is not served any more.
    pub(crate) fn handle_closed(&mut self) {
        let gone = Problem::draining();
        self.end(gone);
    }

    /// Takes a PATCH; the answer is [`Output::Patched`]. What `If-Match` says counts before anything else (RFC 9110 §13.2.1).
    pub(crate) fn handle_patch(&mut self, condition: Option<&Precondition>, fragment: &Fragment) {
        let answer = match (condition, &fragment.credentials) {
            (None, _) => Err(Problem::precondition_required()),
            (Some(condition), _) if !condition.holds_for(&self.tag) => {
                Err(Problem::precondition_failed())
            }
            (Some(_), Some(credentials)) if credentials != self.offer.credentials() => {
                return self.restart(self.offer.restarted(credentials.clone()));
            }
            // A lite agent checks no candidates: it answers to whoever signs with the right password.
            (Some(_), _) => Ok(Patched::Noted),
        };
        self.outputs.push_back(Output::Patched(answer));
    }

    /// Leaves.
    pub(crate) fn handle_leave(&mut self) {
        self.end(Problem::unknown_session());
    }

    fn on_frame(&mut self, kind: &str, reply_to: Option<MessageId>, data: &str) {
        match (self.stage, kind) {
            (Stage::Over, _) => {}
            (_, "ping") => self.say("pong", &Head::default(), "{}"),
            (Stage::Outside, "welcome") => self.join(),
            (Stage::Outside, "error") => self.refuse(data),
            (Stage::Joining(command), "ok") if reply_to == Some(command) => self.on_joined(data),
            // One that answers no command says that a frame of ours is too much.
            (Stage::Joining(command), "error") if reply_to.is_none_or(|id| id == command) => {
                self.refuse(data);
            }
            (Stage::Inside(room), kind) => self.on_news(room, kind, reply_to, data),
            _ => {}
        }
    }

    fn on_news(&mut self, room: RoomId, kind: &str, reply_to: Option<MessageId>, data: &str) {
        if let Some(restart) = self.restart.take_if(|one| Some(one.command) == reply_to) {
            let answer = self.on_restarted(kind, restart, data);
            return self.outputs.push_back(Output::Patched(answer));
        }
        if kind == "room.ended" {
            let is_meant = read::<RoomEnded>(data).is_some_and(|ended| ended.room == room);
            if is_meant {
                self.end(Problem::unknown_session());
            }
            return;
        }

        let Errand::View(scene) = &mut self.errand else {
            return;
        };
        match kind {
            "room.participant" => {
                if let Some(news) = read::<RoomParticipant>(data) {
                    scene.change(news.participant);
                }
            }
            "room.left" => {
                if let Some(news) = read::<RoomLeft>(data) {
                    scene.leave(news.participant);
                }
            }
            "room.speakers" => {
                if let Some(news) = read::<RoomSpeakers>(data) {
                    scene.speak(news.speakers);
                }
            }
            "ok" => {
                if let Some(page) = read::<Page>(data) {
                    self.on_page(room, page);
                }
            }
            _ => {}
        }
    }

    fn join(&mut self) {
        let join = RoomJoin {
            room: self.room.clone(),
            generation: self.generation,
            sdp: self.offer.text().to_owned(),
            tracks: self.tracks(),
            encrypted: false,
            settings: None,
            metadata: None,
        };
        let command = self.command("room.join", &join);
        self.stage = Stage::Joining(command);
    }

    /// What the sections that send are.
    fn tracks(&self) -> Vec<TrackSent> {
        let Errand::Publish { is_screen } = self.errand else {
            return Vec::new();
        };
        let sections = self.offer.sections().iter();
        let tracks = sections.map(|section| TrackSent {
            mid: section.mid.clone(),
            source: match (section.is_audio, is_screen) {
                (true, false) => Source::Microphone,
                (false, false) => Source::Camera,
                (true, true) => Source::ScreenAudio,
                (false, true) => Source::Screen,
            },
            muted: false,
        });
        tracks.collect()
    }

    fn on_joined(&mut self, data: &str) {
        let Some(joined) = read::<RoomJoined>(data) else {
            return self.end(Problem::internal("the room's answer can't be read"));
        };
        if joined.tracks.len() < self.tracks().len() {
            return self.end(Problem::not_permitted());
        }

        let room = joined.state.room;
        self.stage = Stage::Inside(room);
        self.tag = tag(joined.generation);
        let answer = answer_with_exclusive_mux(&joined.sdp, self.offer.text());
        self.outputs.push_back(Output::Joined {
            answer,
            tag: self.tag.clone(),
        });
        if let Errand::View(scene) = &mut self.errand {
            scene.speak(joined.speakers);
            let page = Page {
                participants: joined.state.participants,
                next: joined.next,
            };
            self.on_page(room, page);
        }
    }

    /// Takes some of the people in the Room, and asks for the next.
    fn on_page(&mut self, room: RoomId, page: Page) {
        if let Errand::View(scene) = &mut self.errand {
            page.participants
                .into_iter()
                .for_each(|state| scene.change(state));
        }
        if let Some(after) = page.next {
            self.command("room.list", &RoomList { room, after });
        }
    }

    fn restart(&mut self, offer: Offer) {
        let Stage::Inside(room) = self.stage else {
            let unknown = Output::Patched(Err(Problem::unknown_session()));
            return self.outputs.push_back(unknown);
        };
        self.generation += 1;
        let again = RoomOffer {
            room,
            generation: self.generation,
            sdp: offer.text().to_owned(),
            tracks: self.tracks(),
        };
        let command = self.command("room.offer", &again);
        self.restart = Some(Restart { command, offer });
    }

    fn on_restarted(
        &mut self,
        kind: &str,
        restart: Restart,
        data: &str,
    ) -> Result<Patched, Problem> {
        let unreadable = || Problem::internal("the room's answer can't be read");
        if kind != "ok" {
            let error = read::<ErrorData>(data).ok_or_else(unreadable)?;
            return Err(Problem::of_error(&error, self.errand.purpose()));
        }

        let offered = read::<RoomOffered>(data).ok_or_else(unreadable)?;
        let fragment = restart_fragment(&offered.sdp).ok_or_else(unreadable)?;
        self.offer = restart.offer;
        self.tag = tag(offered.generation);
        Ok(Patched::Restarted {
            fragment,
            tag: self.tag.clone(),
        })
    }

    fn refuse(&mut self, data: &str) {
        let problem = match read::<ErrorData>(data) {
            Some(error) => Problem::of_error(&error, self.errand.purpose()),
            None => Problem::internal("the room's answer can't be read"),
        };
        self.end(problem);
    }

    /// Ends the Session; who waits for an answer gets `problem`.
    fn end(&mut self, problem: Problem) {
        if self.stage == Stage::Over {
            return;
        }
        let was_inside = matches!(self.stage, Stage::Inside(_));
        self.say("bye", &Head::default(), "{}");
        self.stage = Stage::Over;
        if self.restart.take().is_some() {
            let unknown = Output::Patched(Err(problem.clone()));
            self.outputs.push_back(unknown);
        }
        self.outputs.push_back(match was_inside {
            true => Output::Over,
            false => Output::Refused(problem),
        });
    }

    /// Sends a command; returns its id, which is one of this Session alone.
    fn command<T: serde::Serialize>(&mut self, kind: &str, data: &T) -> MessageId {
        self.seq += 1;
        let id = MessageId::from_u128(self.seq.into());
        let head = Head {
            id: Some(id),
            seq: Some(self.seq),
            ..Head::default()
        };
        // Wire types are plain fields, which cannot fail.
        let data = serde_json::to_string(data).unwrap_or_default();
        self.say(kind, &head, &data);
        id
    }

    fn say(&mut self, kind: &str, head: &Head, data: &str) {
        let head = Head {
            ack: Some(self.received),
            ..*head
        };
        self.outputs
            .push_back(Output::Say(encode(kind, &head, data)));
    }
}

/// The answer to `room.list`.
#[derive(Deserialize)]
struct Page {
    participants: Vec<ParticipantState>,
    next: Option<ParticipantId>,
}

/// The entity-tag of an ICE session: unique within its HTTP session, and strong (RFC 9725 §4.3.1).
fn tag(generation: u32) -> String {
    format!("\"{generation}\"")
}

fn read<'a, T: Deserialize<'a>>(data: &'a str) -> Option<T> {
    serde_json::from_str(data).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::{Value, json};

    use super::*;

    const PASSWORD: &str = "P2uYro0UCOQ4zxjKXaWCBui1";
    const ANSWER: &str = "v=0\r\na=ice-lite\r\nm=audio 9 x 111\r\na=mid:0\r\na=ice-ufrag:ours\r\na=ice-pwd:\
        2e13dde17c1cb009202f627fab90\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";

    /// An Agent and the shard it speaks to, which the test plays.
    struct Stage {
        agent: Agent,
        seq: u64,
        said: Vec<Value>,
        other: Vec<Output>,
    }

    impl Stage {
        fn new(errand: Errand) -> Self {
            let sdp = format!(
                "v=0\r\nm=audio 9 x 111\r\na=mid:0\r\na=ice-ufrag:EsAw\r\na=ice-pwd:{PASSWORD}\r\n"
            );
            let offer = Offer::read(&sdp, errand.purpose()).unwrap();
            Self {
                agent: Agent::new("weekly".parse().unwrap(), errand, offer),
                seq: 0,
                said: Vec::new(),
                other: Vec::new(),
            }
        }

        fn publisher() -> Self {
            Self::new(Errand::Publish { is_screen: false })
        }

        /// One that is inside.
        fn joined(errand: Errand) -> Self {
            let mut t = Self::new(errand);
            t.tell("welcome", &json!({}));
            t.reply("room.join", "ok", &joined(&["0"]));
            assert!(matches!(t.other.pop(), Some(Output::Joined { .. })));
            t
        }

        fn tell(&mut self, kind: &str, data: &Value) {
            self.tell_reply(kind, &Value::Null, data);
        }

        fn tell_reply(&mut self, kind: &str, reply_to: &Value, data: &Value) {
            self.seq += 1;
            let frame = json!({"type": kind, "seq": self.seq, "reply_to": reply_to, "data": data});
            self.agent.handle_frames([frame.to_string().as_str()]);
            self.take();
        }

        /// Answers the newest command of this type.
        fn reply(&mut self, command: &str, kind: &str, data: &Value) {
            let id = self.last(command)["id"].clone();
            self.tell_reply(kind, &id, data);
        }

        fn patch(&mut self, condition: Option<&str>, ufrag: &str) {
            let condition = condition.map(|value| Precondition::read(value).unwrap());
            let text = format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{PASSWORD}\r\n");
            let fragment = Fragment::read(&text).unwrap();
            self.agent.handle_patch(condition.as_ref(), &fragment);
            self.take();
        }

        fn take(&mut self) {
            while let Some(output) = self.agent.poll_output() {
                match output {
                    Output::Say(text) => self.said.push(serde_json::from_str(&text).unwrap()),
                    other => self.other.push(other),
                }
            }
        }

        fn last(&self, kind: &str) -> &Value {
            let mut said = self.said.iter().rev();
            said.find(|frame| frame["type"] == kind)
                .unwrap_or_else(|| panic!("no {kind} in {:?}", self.said))
        }

        /// The status of the refusal that came last.
        fn refused(&mut self) -> StatusCode {
            match self.other.pop() {
                Some(Output::Refused(problem) | Output::Patched(Err(problem))) => problem.status,
                other => panic!("{other:?}"),
            }
        }
    }

    fn joined(mids: &[&str]) -> Value {
        let id = |number: u32| format!("{number:026}");
        let tracks = mids.iter().map(|mid| json!({"mid": mid, "track": id(9)}));
        json!({
            "participant": id(1), "role": "speaker",
            "permissions": {"speak": true, "video": true, "share": true, "moderate": false},
            "state": {
                "room": id(2), "name": "weekly", "created_at": 1, "participants": [],
                "settings": {"locked": false, "lobby": false, "role": "speaker", "metadata": null},
            },
            "tracks": tracks.collect::<Vec<_>>(), "generation": 1, "sdp": ANSWER, "slots": [],
            "audio_wanted": 0, "video_wanted": 0, "speakers": [], "chat": [],
        })
    }

    #[test]
    fn an_encoder_joins_with_what_it_offers_and_is_answered() {
        let mut t = Stage::publisher();
        t.tell("welcome", &json!({}));
        let join = &t.last("room.join")["data"];
        assert_eq!(
            join["tracks"],
            json!([{"mid": "0", "source": "microphone", "muted": false}])
        );
        assert_eq!(
            (&join["room"], &join["encrypted"]),
            (&json!("weekly"), &json!(false))
        );

        t.reply("room.join", "ok", &joined(&["0"]));
        let expected = Output::Joined {
            answer: ANSWER.to_owned(),
            tag: "\"1\"".to_owned(),
        };
        assert_eq!(t.other, [expected]);
        assert_eq!(t.last("ack")["ack"], 2);
    }

    #[test]
    fn a_screen_is_sent_as_one() {
        let mut t = Stage::new(Errand::Publish { is_screen: true });
        t.tell("welcome", &json!({}));
        assert_eq!(
            t.last("room.join")["data"]["tracks"][0]["source"],
            "screen_audio"
        );
    }

    #[test]
    fn whoever_may_not_send_all_of_it_is_refused() {
        let mut t = Stage::publisher();
        t.tell("welcome", &json!({}));
        t.reply("room.join", "ok", &joined(&[]));
        assert_eq!(t.refused(), StatusCode::FORBIDDEN);
        t.last("bye");
    }

    #[test]
    fn an_error_is_the_answer_and_the_end() {
        let mut t = Stage::publisher();
        t.tell(
            "error",
            &json!({"code": "token_expired", "message": "over"}),
        );
        assert_eq!(t.refused(), StatusCode::UNAUTHORIZED);

        let mut t = Stage::publisher();
        t.tell("welcome", &json!({}));
        let error = json!({"code": "room_encrypted", "message": "it is"});
        t.reply("room.join", "error", &error);
        assert_eq!(t.refused(), StatusCode::FORBIDDEN);
        t.last("bye");

        let mut t = Stage::publisher();
        t.tell("welcome", &json!({}));
        t.tell("error", &json!({"code": "too_large", "message": "a frame"}));
        assert_eq!(t.refused(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn a_precondition_names_the_ice_session() {
        let mut t = Stage::joined(Errand::Publish { is_screen: false });
        t.patch(Some("\"1\""), "EsAw");
        assert_eq!(t.other.pop(), Some(Output::Patched(Ok(Patched::Noted))));
        t.patch(Some("*"), "EsAw");
        assert_eq!(t.other.pop(), Some(Output::Patched(Ok(Patched::Noted))));
        t.patch(Some("\"2\""), "EsAw");
        assert_eq!(t.refused(), StatusCode::PRECONDITION_FAILED);
        t.patch(None, "EsAw");
        assert_eq!(t.refused(), StatusCode::PRECONDITION_REQUIRED);
        assert!(!t.agent.is_busy());
    }

    #[test]
    fn other_credentials_restart_ice() {
        let mut t = Stage::joined(Errand::Publish { is_screen: false });
        t.patch(Some("*"), "ysXw");
        assert!(t.agent.is_busy());
        let offer = &t.last("room.offer")["data"];
        assert_eq!(offer["generation"], 2);
        assert!(offer["sdp"].as_str().unwrap().contains("a=ice-ufrag:ysXw"));
        assert_eq!(offer["tracks"][0]["mid"], "0");

        let answer = json!({"generation": 2, "sdp": ANSWER, "tracks": [], "slots": []});
        t.reply("room.offer", "ok", &answer);
        let Some(Output::Patched(Ok(Patched::Restarted { fragment, tag }))) = t.other.pop() else {
            panic!("{:?}", t.other);
        };
        assert_eq!(tag, "\"2\"");
        assert!(fragment.contains("a=ice-ufrag:ours") && fragment.contains("a=candidate:1"));

        // The old ICE session is over, the new one goes on.
        t.patch(Some("\"1\""), "ysXw");
        assert_eq!(t.refused(), StatusCode::PRECONDITION_FAILED);
        t.patch(Some("\"2\""), "ysXw");
        assert_eq!(t.other.pop(), Some(Output::Patched(Ok(Patched::Noted))));
    }

    #[test]
    fn a_restart_that_fails_leaves_everything_as_it_was() {
        let mut t = Stage::joined(Errand::Publish { is_screen: false });
        t.patch(Some("*"), "ysXw");
        let error = json!({"code": "rate_limited", "message": "too many offers"});
        t.reply("room.offer", "error", &error);
        assert_eq!(t.refused(), StatusCode::TOO_MANY_REQUESTS);

        t.patch(Some("\"1\""), "EsAw");
        assert_eq!(t.other.pop(), Some(Output::Patched(Ok(Patched::Noted))));
    }

    #[test]
    fn who_is_removed_or_leaves_says_bye_once() {
        let room = format!("{:026}", 2);
        let mut t = Stage::joined(Errand::Publish { is_screen: false });
        t.tell(
            "room.ended",
            &json!({"room": format!("{:026}", 3), "reason": "removed"}),
        );
        assert!(t.other.is_empty(), "another room");
        t.tell("room.ended", &json!({"room": room, "reason": "removed"}));
        assert_eq!(t.other, [Output::Over]);
        t.agent.handle_leave();
        t.take();
        assert_eq!(t.other.len(), 1);
        assert_eq!(
            t.said.iter().filter(|frame| frame["type"] == "bye").count(),
            1
        );

        let mut t = Stage::joined(Errand::Publish { is_screen: false });
        t.patch(Some("*"), "ysXw");
        t.agent.handle_leave();
        t.take();
        assert_eq!(t.other.pop(), Some(Output::Over));
        assert_eq!(t.refused(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_viewer_asks_for_the_picture_that_matters_and_for_all_people() {
        let mut t = Stage::new(Errand::View(Scene::new(None)));
        t.tell("welcome", &json!({}));
        assert_eq!(t.last("room.join")["data"]["tracks"], json!([]));
        let mut first = joined(&[]);
        first["next"] = json!(format!("{:026}", 5));
        t.reply("room.join", "ok", &first);
        assert_eq!(t.last("room.list")["data"]["after"], format!("{:026}", 5));
        assert_eq!(t.last("room.want")["data"]["wishes"], json!([]));

        let person = json!({
            "participant": format!("{:026}", 6), "user": "bob", "name": null, "role": "speaker",
            "permissions": {"speak": true, "video": true, "share": true, "moderate": false},
            "hand_at": null, "joined_at": 1, "metadata": null,
            "tracks": [{"track": format!("{:026}", 7), "source": "camera", "muted": false}],
        });
        t.reply(
            "room.list",
            "ok",
            &json!({"participants": [person], "next": null}),
        );
        let want = &t.last("room.want")["data"];
        assert_eq!(want["automatic"], true);
        assert_eq!(want["wishes"][0]["track"], format!("{:026}", 7));
        assert_eq!(want["wishes"][0]["pinned"], true);
    }

    #[test]
    fn a_ping_is_answered() {
        let mut t = Stage::joined(Errand::Publish { is_screen: false });
        t.tell("ping", &json!({}));
        t.last("pong");
        t.agent.handle_closed();
        t.take();
        assert_eq!(t.other.pop(), Some(Output::Over));
    }
}
