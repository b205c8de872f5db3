//! Messages in mailboxes, and how people want to be called by phone.

use model::phone::rows::{Mailbox, SoundFormat, Voicemail};
use model::phone::{LeftVoicemail, PhoneEventKind};
use model::record::VoicemailEntry;
use model::{AccountId, RecordChange, Timestamp, VoicemailId};
use serde_json::{Value, json};
use signaling_core::{Answer, Question};
use signaling_wire::{ErrorCode, PhoneForwards, PhoneSettings};

use crate::harness::TestSignaling;

const MESSAGE: VoicemailId = VoicemailId::from_u128(7);

/// Records in which the mailbox of sales, that of alice and bob, has one message.
pub(crate) fn answer(question: Question) -> Answer {
    match question {
        Question::Voicemails { before: None, .. } => Answer::Voicemails {
            entries: vec![VoicemailEntry::from(&message())],
            next: Some("1-01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned()),
            unheard: 1,
        },
        Question::Voicemails { .. } => Answer::Voicemails {
            entries: Vec::new(),
            next: None,
            unheard: 1,
        },
        Question::Unheard { .. } => Answer::Unheard(2),
        Question::HearVoicemail { voicemail, at, .. } if voicemail == MESSAGE => {
            let heard_at = Some(at);
            let message = Voicemail {
                heard_at,
                ..message()
            };
            Answer::Mailbox {
                users: vec!["alice".parse().unwrap(), "bob".parse().unwrap()],
                entry: Box::new(VoicemailEntry::from(&message)),
            }
        }
        Question::DeleteVoicemail { voicemail, .. } if voicemail == MESSAGE => Answer::Mailbox {
            users: vec!["alice".parse().unwrap(), "bob".parse().unwrap()],
            entry: Box::new(VoicemailEntry::from(&message())),
        },
        Question::HearVoicemail { .. } | Question::DeleteVoicemail { .. } => Answer::Refused {
            code: ErrorCode::UnknownVoicemail,
            message: "no such message".to_owned(),
        },
        Question::PhoneSettings { .. } => Answer::PhoneSettings(Box::new(settings())),
        Question::SetPhone { settings, .. } => Answer::PhoneSettings(settings),
        _ => Answer::Failed,
    }
}

fn settings() -> PhoneSettings {
    PhoneSettings {
        do_not_disturb: false,
        call_waiting: true,
        ring_seconds: 30,
        voicemail: true,
        forward: PhoneForwards::default(),
    }
}

fn message() -> Voicemail {
    Voicemail {
        account: AccountId::from_u128(1),
        id: MESSAGE,
        mailbox: Mailbox::Queue("sales".parse().unwrap()),
        call: None,
        from: Some("tel:+15550100".to_owned()),
        name: Some("Erika".to_owned()),
        left_at: Timestamp::from_millis(1_790_000_000_000),
        millis: 4_000,
        format: SoundFormat::Wav,
        heard_at: None,
    }
}

fn left(message: Voicemail) -> PhoneEventKind {
    let users = ["alice", "bob", "carol"].map(|user| user.parse().unwrap());
    PhoneEventKind::Voicemail(Box::new(LeftVoicemail {
        message,
        users: users.to_vec(),
    }))
}

fn of(id: VoicemailId) -> Value {
    json!({ "voicemail": id.to_string() })
}

#[test]
fn a_message_that_is_left_is_kept_and_told_to_all_whose_mailbox_it_is() {
    let mut t = TestSignaling::new();
    for device in ["alice", "alice2", "bob", "dave"] {
        t.connect(device);
    }
    t.hush();
    t.phone_says("01JD0000000000000000000007", left(message()));

    let kept = RecordChange::VoicemailLeft(Box::new(message()));
    assert!(t.records.contains(&kept));
    for device in ["alice", "alice2", "bob"] {
        let news = t.take(device, "voicemail").unwrap()["data"].clone();
        assert_eq!(news["unheard"], 2);
        let entry = &news["entry"];
        assert_eq!(entry["voicemail"], MESSAGE.to_string());
        assert_eq!(
            entry["peer"],
            json!({ "user": "tel:+15550100", "name": "Erika" })
        );
        assert_eq!(
            (&entry["queue"], &entry["heard"]),
            (&json!("sales"), &json!(false))
        );
    }
    assert_eq!(t.take("dave", "voicemail"), None);
}

#[test]
fn who_keeps_their_number_to_themselves_is_nobody_to_call_back() {
    let mut t = TestSignaling::new();
    t.connect("alice");
    for from in [None, Some("\u{7}".to_owned())] {
        let message = Voicemail { from, ..message() };
        t.phone_says("01JD0000000000000000000007", left(message));
        let news = t.take("alice", "voicemail").unwrap();
        let user = &news["data"]["entry"]["peer"]["user"];
        assert_eq!(*user, "sip:anonymous@anonymous.invalid");
    }
}

#[test]
fn who_hears_or_deletes_a_message_tells_the_others() {
    let mut t = TestSignaling::new();
    t.connect("alice");
    t.connect("bob");
    let page = t.ok("alice", "voicemail.list", json!({}));
    assert_eq!(
        (&page["unheard"], &page["voicemails"][0]["millis"]),
        (&json!(1), &json!(4_000))
    );
    let next = t.ok("alice", "voicemail.list", json!({ "before": page["next"] }));
    assert_eq!(next["voicemails"], json!([]));
    t.hush();

    t.ok("alice", "voicemail.heard", of(MESSAGE));
    for device in ["alice", "bob"] {
        let news = t.take(device, "voicemail").unwrap()["data"].clone();
        assert_eq!(news["entry"]["heard"], true);
    }
    t.ok("bob", "voicemail.delete", of(MESSAGE));
    for device in ["alice", "bob"] {
        let news = t.take(device, "voicemail").unwrap()["data"].clone();
        let told = json!({ "deleted": MESSAGE.to_string(), "unheard": 2 });
        assert_eq!(news, told);
    }

    let other = VoicemailId::from_u128(8);
    for command in ["voicemail.heard", "voicemail.delete"] {
        assert_eq!(t.refused("alice", command, of(other)), "unknown_voicemail");
    }
    assert_eq!(t.take("bob", "voicemail"), None);
}

#[test]
fn settings_take_the_grant_and_not_too_many_changes() {
    let mut t = TestSignaling::new();
    t.connect("alice");
    let held = t.ok("alice", "phone.settings", json!({}));
    assert_eq!(held, json!(settings()));
    assert_eq!(t.refused("alice", "phone.set", held), "forbidden");

    t.device("bob").grants.phone = true;
    t.connect("bob");
    let wanted = json!(PhoneSettings {
        do_not_disturb: true,
        ..settings()
    });
    for _ in 0..t.limits.invites_per_user_burst {
        assert_eq!(t.ok("bob", "phone.set", wanted.clone()), wanted);
    }
    assert_eq!(t.refused("bob", "phone.set", wanted), "rate_limited");
}
