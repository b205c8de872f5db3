//! Phone calls over real sockets, with a gateway and an SFU that are played by the test.

use model::Millis;
use model::media::MediaCommand;
use model::phone::{
    PhoneCommand, PhoneCommandKind, PhoneEnd, PhoneEvent, PhoneEventKind, PhoneReason, Progress,
    Ring,
};
use serde_json::{Value, json};
use signaling_service::{Media, Phone};
use tokio::sync::mpsc;

use crate::harness::{Client, TestService, new_id};

const NUMBER: &str = "tel:+4930123456";

/// What a gateway has at its ends, and an SFU that takes whatever it is told.
struct Gateway {
    commands: mpsc::Receiver<PhoneCommand>,
    events: mpsc::Sender<PhoneEvent>,
    _sfu: (
        mpsc::Receiver<MediaCommand>,
        mpsc::Sender<model::media::MediaEvent>,
    ),
}

impl Gateway {
    /// One with room for a single command and event, so that both sides have to wait.
    async fn connect(t: &TestService) -> Self {
        let (commands, media) = mpsc::channel(100);
        let (news, events) = mpsc::channel(1);
        t.service.connect_media(Media { commands, events }).await;
        let _sfu = (media, news);

        let (commands, taken) = mpsc::channel(1);
        let (events, news) = mpsc::channel(1);
        let phone = Phone {
            commands,
            events: news,
        };
        t.service.connect_phone(phone).await;
        Self {
            commands: taken,
            events,
            _sfu,
        }
    }

    async fn take(&mut self) -> PhoneCommand {
        self.commands.recv().await.unwrap()
    }

    async fn tell(&self, about: &PhoneCommand, kind: PhoneEventKind) {
        let event = PhoneEvent {
            account: about.account,
            call: about.call,
            kind,
        };
        self.events.send(event).await.unwrap();
    }
}

fn invite() -> Value {
    json!({ "call": new_id(), "to": "tel:+49 30 123456", "media": { "audio": true, "video": false } })
}

/// A Device whose token allows phones.
async fn caller(t: &TestService, user: &str) -> Client {
    let mut client = t.connect().await;
    client.hello(&t.token_for_phones(user), None).await;
    client
}

#[tokio::test]
async fn a_number_is_called_and_hangs_up() {
    let t = TestService::start().await;
    let mut gateway = Gateway::connect(&t).await;
    let mut alice = caller(&t, "alice").await;
    assert_eq!(alice.next("welcome").await["data"]["phone"], true);

    let data = invite();
    let state = alice.ask("call.invite", data.clone()).await["state"].clone();
    assert_eq!(state["callee"]["user"], NUMBER);
    let command = gateway.take().await;
    let PhoneCommandKind::Dial(dial) = &command.kind else {
        panic!("{command:?}");
    };
    assert_eq!(dial.to.as_str(), NUMBER);
    assert_eq!(command.call.to_string(), data["call"].as_str().unwrap());

    let ringing = PhoneEventKind::Progress(Progress::Ringing);
    gateway.tell(&command, ringing).await;
    let progress = alice.next("call.progress").await;
    assert_eq!(progress["data"]["progress"], "ringing");
    gateway.tell(&command, PhoneEventKind::Answered).await;
    alice.update("answered").await;
    let keys = json!({ "call": data["call"], "keys": "12#" });
    alice.ask("call.dtmf", keys).await;
    let keys = gateway.take().await.kind;
    assert_eq!(keys, PhoneCommandKind::Keys("12#".parse().unwrap()));

    let busy = PhoneEnd {
        sip: Some(486),
        ..PhoneEnd::of(PhoneReason::Busy)
    };
    gateway.tell(&command, PhoneEventKind::Ended(busy)).await;
    let ended = alice.update("ended").await;
    let told = &ended["end"]["phone"];
    assert_eq!(*told, json!({ "reason": "busy", "sip": 486, "cause": 17 }));
}

#[tokio::test]
async fn where_no_gateway_runs_a_number_is_refused_at_once() {
    let t = TestService::start().await;
    let mut alice = caller(&t, "alice").await;
    assert_eq!(alice.next("welcome").await["data"]["phone"], false);
    let refusal = alice.refusal("call.invite", invite()).await;
    assert_eq!(refusal, "phone_unavailable");

    let gateway = Gateway::connect(&t).await;
    let mut bob = t.join("bob").await;
    let refusal = bob.refusal("call.invite", invite()).await;
    assert_eq!(refusal, "forbidden", "the token says nothing of phones");
    alice.ask("call.invite", invite()).await;
    drop(gateway);
    let ended = alice.update("ended").await;
    assert_eq!(ended["end"]["phone"]["reason"], "lost");
    let refusal = alice.refusal("call.invite", invite()).await;
    assert_eq!(refusal, "phone_unavailable");
}

#[tokio::test]
async fn a_phone_rings_those_it_is_for() {
    let t = TestService::start().await;
    let mut gateway = Gateway::connect(&t).await;
    let mut alice = caller(&t, "alice").await;
    let mut bob = caller(&t, "bob").await;
    let account = alice.next("welcome").await["data"]["account"].clone();
    bob.next("welcome").await;

    let users = ["alice", "bob"].map(|user| user.parse().unwrap());
    let ring = Ring {
        users: users.to_vec(),
        from: "tel:+15550100".parse().ok(),
        name: None,
        to: None,
        ring: Millis::from_secs(30),
    };
    let event = PhoneEvent {
        account: account.as_str().unwrap().parse().unwrap(),
        call: "01JD0000000000000000000007".parse().unwrap(),
        kind: PhoneEventKind::Ring(Box::new(ring)),
    };
    gateway.events.send(event).await.unwrap();
    let rung = alice.next("call.incoming").await["data"]["state"].clone();
    assert_eq!(rung["caller"]["user"], "tel:+15550100");
    bob.next("call.incoming").await;

    let accept = json!({ "call": rung["call"], "rev": rung["rev"] });
    let state = alice.ask("call.accept", accept).await["state"].clone();
    assert!(state["room"].is_string(), "{state}");
    let PhoneCommandKind::Answer { user, .. } = gateway.take().await.kind else {
        panic!("not an answer");
    };
    assert_eq!(user.as_str(), "alice");
    let ended = bob.update("ended").await;
    let reason = &ended["end"]["reason"];
    assert_eq!(*reason, "answered_elsewhere");
}
