//! Telephony in the records: whole Accounts, their secrets, and what is kept of phone calls.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use backing::records::{LegFilter, Records, SecretKeys, TelephonyError};
use model::phone::rows::{
    Destination, Ha1s, LegBy, LegDirection, LegRecord, LegSide, LegSound, Mailbox, Phone, RowName,
    Secret, SoundFormat, Telephony, Voicemail,
};
use model::phone::{PhoneEnd, PhoneReason};
use model::{AccountId, CallId, LegId, RecordChange, Timestamp, VoicemailId};
use tempfile::TempDir;

struct Kept {
    _dir: TempDir,
    path: std::path::PathBuf,
    records: Records,
    account: AccountId,
    keys: SecretKeys,
}

impl Kept {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let records = Records::open(&path).await.unwrap();
        let account = records.create_account("Acme").await.unwrap().account;
        Self {
            _dir: dir,
            path,
            records,
            account,
            keys: SecretKeys::new([1; 32], &[]),
        }
    }

    async fn put(&self, telephony: &Telephony) -> Result<u64, TelephonyError> {
        let version = self.get().await.1;
        self.records
            .replace_telephony(self.account, version, telephony, &self.keys)
            .await
    }

    async fn get(&self) -> (Telephony, u64) {
        let stored = self.records.telephony(self.account, &self.keys).await;
        let stored = stored.unwrap();
        assert_eq!(stored.unreadable, []);
        (stored.telephony, stored.version)
    }

    /// What a thief of the database has.
    fn bytes(&self) -> Vec<u8> {
        let mut log = self.path.as_os_str().to_owned();
        log.push("-wal");
        let files = [self.path.clone(), log.into()];
        files
            .into_iter()
            .filter_map(|path| std::fs::read(path).ok())
            .flatten()
            .collect()
    }
}

fn name(text: &str) -> RowName {
    text.parse().unwrap()
}

fn telephony(json: serde_json::Value) -> Telephony {
    serde_json::from_value(json).unwrap()
}

/// A Trunk with a password, a phone and a Number.
fn office() -> Telephony {
    let mut office = telephony(serde_json::json!({
        "dialling": { "country": "49" },
        "trunks": {
            "carrier": { "peering": { "registration": { "user": "4930" } }, "targets": ["sip:carrier.example"] },
        },
        "phones": { "alice-desk": { "user": "alice" } },
        "numbers": { "+4930123456": { "to": { "user": "alice" } } },
    }));
    office.trunks.get_mut(&name("carrier")).unwrap().password =
        Some(Secret::new("a-rather-long-password").unwrap());
    office
        .phones
        .get_mut(&"alice-desk".parse().unwrap())
        .unwrap()
        .ha1 = Some(Ha1s::new(&"ab".repeat(16), Some(&"cd".repeat(32))).unwrap());
    office
}

#[tokio::test]
async fn what_was_put_is_read_and_putting_it_again_changes_nothing() {
    let kept = Kept::new().await;
    assert_eq!(kept.get().await, (Telephony::default(), 0));

    let office = office();
    assert_eq!(kept.put(&office).await.unwrap(), 1);
    assert_eq!(kept.get().await, (office.clone(), 1));
    assert_eq!(kept.put(&office).await.unwrap(), 1);

    let mut other = office.clone();
    other.trunks.get_mut(&name("carrier")).unwrap().password =
        Some(Secret::new("another").unwrap());
    assert_eq!(kept.put(&other).await.unwrap(), 2, "a secret is a change");
    assert_eq!(kept.get().await.0, other);

    assert_eq!(kept.put(&Telephony::default()).await.unwrap(), 3);
    assert_eq!(kept.get().await, (Telephony::default(), 3));
}

#[tokio::test]
async fn a_stolen_database_holds_no_secret() {
    let kept = Kept::new().await;
    kept.put(&office()).await.unwrap();
    let bytes = kept.bytes();
    let has = |text: &str| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(has("carrier.example"), "the rows themselves are in clear");
    for secret in ["a-rather-long-password", &"ab".repeat(16), &"cd".repeat(32)] {
        assert!(!has(secret), "{secret}");
    }
}

#[tokio::test]
async fn who_decided_on_an_older_state_is_refused() {
    let kept = Kept::new().await;
    kept.put(&office()).await.unwrap();
    let refused = kept
        .records
        .replace_telephony(kept.account, 0, &Telephony::default(), &kept.keys)
        .await;
    assert!(matches!(
        refused,
        Err(TelephonyError::Changed {
            expected: 0,
            now: 1
        })
    ));
    assert_eq!(kept.get().await, (office(), 1));
}

#[tokio::test]
async fn what_is_wrong_is_not_written() {
    let kept = Kept::new().await;
    let mut wrong = office();
    let number = "+4930123456".parse().unwrap();
    wrong.numbers.get_mut(&number).unwrap().to = Destination::Queue(name("gone"));
    let refused = kept.put(&wrong).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "numbers.+4930123456.to: there is no `gone` in `queues`"
    );
    assert_eq!(kept.get().await.1, 0);
}

#[tokio::test]
async fn a_sip_user_belongs_to_one_account_and_passes_on_within_it() {
    let kept = Kept::new().await;
    kept.put(&office()).await.unwrap();
    let other = kept.records.create_account("Other").await.unwrap().account;
    let refused = kept
        .records
        .replace_telephony(other, 0, &office(), &kept.keys)
        .await;
    assert!(
        matches!(&refused, Err(TelephonyError::Taken { user, .. }) if user == "alice-desk"),
        "{refused:?}"
    );
    let theirs = kept.records.telephony(other, &kept.keys).await.unwrap();
    assert_eq!(theirs.telephony, Telephony::default(), "nothing of it");

    // Of the same Account, a Trunk takes it over from the phone.
    let mut changed = telephony(serde_json::json!({
        "trunks": { "pbx": { "peering": { "inbound": { "user": "alice-desk" } } } },
    }));
    changed.trunks.get_mut(&name("pbx")).unwrap().password = Some(Secret::new("hush").unwrap());
    assert_eq!(kept.put(&changed).await.unwrap(), 2);
    assert_eq!(kept.get().await.0, changed);
}

#[tokio::test]
async fn changes_of_all_accounts_are_found_by_their_moment() {
    let kept = Kept::new().await;
    let never = kept.records.create_account("Never").await.unwrap().account;
    kept.put(&office()).await.unwrap();
    kept.put(&Telephony::default()).await.unwrap();
    let since = |millis| {
        kept.records
            .telephony_changed_since(Timestamp::from_millis(millis), 10)
    };
    let changed = since(0).await.unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].account, changed[0].version), (kept.account, 2));
    assert_ne!(changed[0].account, never);
    let after = changed[0].changed_at.as_millis() + 1;
    assert_eq!(since(after).await.unwrap(), []);
}

#[tokio::test]
async fn secrets_outlive_a_change_of_keys() {
    let mut kept = Kept::new().await;
    kept.put(&office()).await.unwrap();

    let rotated = SecretKeys::new([2; 32], &[[1; 32]]);
    let stored = kept
        .records
        .telephony(kept.account, &rotated)
        .await
        .unwrap();
    assert_eq!(stored.telephony, office());
    assert_eq!(kept.records.reseal_telephony(&rotated).await.unwrap(), 3);
    assert_eq!(kept.records.reseal_telephony(&rotated).await.unwrap(), 0);

    // The old key can go, and nothing has changed for those who read.
    kept.keys = SecretKeys::new([2; 32], &[]);
    assert_eq!(kept.get().await, (office(), 1));

    let stranger = SecretKeys::new([3; 32], &[]);
    let stored = kept
        .records
        .telephony(kept.account, &stranger)
        .await
        .unwrap();
    assert_eq!(stored.unreadable.len(), 3);
    assert!(stored.unreadable[0].1.contains("seal_before"));
    // Applied anew, they open.
    kept.keys = stranger;
    let applied = kept
        .records
        .replace_telephony(kept.account, 1, &office(), &kept.keys)
        .await;
    assert_eq!(applied.unwrap(), 2);
    assert_eq!(kept.get().await.0, office());
}

/// A few numbers that come from a seed, for choices that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Some state of an Account.
fn some_state(dice: &mut Dice) -> Telephony {
    let mut state = Telephony::default();
    for n in 0..4 {
        if dice.below(2) == 0 {
            let mut trunk = office().trunks[&name("carrier")].clone();
            trunk.enabled = dice.below(2) == 0;
            trunk.password = Some(Secret::new(&format!("password{}", dice.below(3))).unwrap());
            state.trunks.insert(name(&format!("trunk{n}")), trunk);
        }
        if dice.below(2) == 0 {
            let user = format!("user{}", dice.below(2));
            let hash = format!("{:032x}", dice.below(2));
            let phone = Phone {
                user: user.parse().unwrap(),
                ha1: Some(Ha1s::new(&hash, None).unwrap()),
                ..office().phones[&"alice-desk".parse().unwrap()].clone()
            };
            state
                .phones
                .insert(format!("phone{n}").parse().unwrap(), phone);
        }
    }
    if dice.below(2) == 0 {
        state.limits.0.calls = 1 + u32::try_from(dice.below(3)).unwrap();
    }
    state
}

#[tokio::test]
async fn any_state_leads_to_any_other() {
    let kept = Kept::new().await;
    let mut dice = Dice(20_261_123);
    let mut before = (Telephony::default(), 0);
    for step in 0..60 {
        let after = some_state(&mut dice);
        let version = kept.put(&after).await.unwrap();
        let expected = before.1 + u64::from(before.0 != after);
        assert_eq!(version, expected, "step {step}");
        before = kept.get().await;
        assert_eq!(before, (after, version), "step {step}");
    }
}

fn leg(account: AccountId, n: u64, trunk: &str, user: &str) -> LegRecord {
    LegRecord {
        account,
        leg: LegId::from_u128(n.into()),
        call: CallId::from_u128((n / 2).into()),
        direction: LegDirection::In,
        by: LegBy::Trunk(name(trunk)),
        user: Some(user.parse().unwrap()),
        from: Some("+4930999999".to_owned()),
        to: Some("+4930123456".to_owned()),
        name: None,
        number: Some("+4930123456".parse().unwrap()),
        queue: Some(name("sales")),
        created_at: Timestamp::from_millis(n),
        ringing_at: None,
        answered_at: None,
        ended_at: None,
        end: None,
        ended_by: None,
        sound: None,
        recording: None,
    }
}

#[tokio::test]
async fn a_call_record_grows_until_its_end_and_is_found() {
    let kept = Kept::new().await;
    let begun = leg(kept.account, 7, "carrier", "alice");
    let ended = LegRecord {
        ringing_at: Some(Timestamp::from_millis(8)),
        answered_at: Some(Timestamp::from_millis(9)),
        ended_at: Some(Timestamp::from_millis(10)),
        end: Some(PhoneEnd {
            reason: PhoneReason::Busy,
            sip: Some(486),
            cause: 17,
        }),
        ended_by: Some(LegSide::Theirs),
        sound: Some(LegSound {
            codec: "pcma".to_owned(),
            encrypted: true,
            packets_received: 5_000,
            packets_lost: 3,
            packets_sent: 4_999,
            jitter_micros: 700,
            round_trip_micros: None,
            mos_hundredths: 431,
        }),
        recording: Some("a/b.wav".to_owned()),
        ..begun.clone()
    };
    let phone = LegRecord {
        by: LegBy::Phone("alice-desk".parse().unwrap()),
        direction: LegDirection::Out,
        ..leg(kept.account, 6, "carrier", "alice")
    };
    let other = leg(kept.account, 20, "pbx", "bob");
    // Late news of a Leg that has ended is old news.
    for change in [&begun, &ended, &begun, &phone, &other] {
        let change = RecordChange::Leg(Box::new(change.clone()));
        kept.records.record(change).await.unwrap();
    }

    let of = async |filter: LegFilter| {
        let page = kept.records.legs(kept.account, &filter, None, 10).await;
        page.unwrap().entries
    };
    assert_eq!(
        of(LegFilter::default()).await,
        [other.clone(), ended.clone(), phone.clone()]
    );
    let alice = LegFilter {
        user: Some("alice".parse().unwrap()),
        ..LegFilter::default()
    };
    assert_eq!(of(alice.clone()).await, [ended.clone(), phone.clone()]);
    let trunk = LegFilter {
        trunk: Some(name("carrier")),
        ..alice
    };
    assert_eq!(of(trunk).await, std::slice::from_ref(&ended));
    let call = LegFilter {
        call: Some(ended.call),
        user: Some("alice".parse().unwrap()),
        ..LegFilter::default()
    };
    assert_eq!(of(call).await, [ended.clone(), phone.clone()]);
    let since = LegFilter {
        since: Some(Timestamp::from_millis(7)),
        ..LegFilter::default()
    };
    assert_eq!(of(since).await, [other.clone(), ended.clone()]);

    let all = LegFilter::default();
    let first = kept
        .records
        .legs(kept.account, &all, None, 2)
        .await
        .unwrap();
    assert_eq!(first.entries, [other, ended]);
    let rest = kept
        .records
        .legs(kept.account, &all, first.next, 2)
        .await
        .unwrap();
    assert_eq!((rest.entries, rest.next), (vec![phone], None));

    let before = Timestamp::from_millis(8);
    assert_eq!(kept.records.forget_legs(before, 100).await.unwrap(), 2);
    assert_eq!(of(LegFilter::default()).await.len(), 1);
}

#[tokio::test]
async fn a_message_waits_in_its_mailbox() {
    let kept = Kept::new().await;
    let alice = Mailbox::User("alice".parse().unwrap());
    let sales = Mailbox::Queue(name("sales"));
    let message = |n: u64, mailbox: &Mailbox| Voicemail {
        account: kept.account,
        id: VoicemailId::from_u128(n.into()),
        mailbox: mailbox.clone(),
        call: Some(CallId::from_u128(n.into())),
        from: None,
        name: Some("Grandmother".to_owned()),
        left_at: Timestamp::from_millis(n),
        millis: 4_000,
        format: SoundFormat::OggOpus,
        heard_at: None,
    };
    for message in [message(1, &alice), message(2, &alice), message(3, &sales)] {
        let change = RecordChange::VoicemailLeft(Box::new(message));
        kept.records.record(change).await.unwrap();
    }
    let new = |mailbox| kept.records.voicemails_new(kept.account, mailbox);
    assert_eq!(
        (new(&alice).await.unwrap(), new(&sales).await.unwrap()),
        (2, 1)
    );

    let id = VoicemailId::from_u128(1);
    for at in [100, 200] {
        let heard = RecordChange::VoicemailHeard {
            account: kept.account,
            id,
            at: Timestamp::from_millis(at),
        };
        kept.records.record(heard).await.unwrap();
    }
    assert_eq!(new(&alice).await.unwrap(), 1);
    let heard = Voicemail {
        heard_at: Some(Timestamp::from_millis(100)),
        ..message(1, &alice)
    };
    let page = kept
        .records
        .voicemails(kept.account, &alice, None, 10)
        .await;
    assert_eq!(page.unwrap().entries, [message(2, &alice), heard.clone()]);
    assert_eq!(
        kept.records.voicemail(kept.account, id).await.unwrap(),
        Some(heard)
    );

    assert!(
        kept.records
            .delete_voicemail(kept.account, id)
            .await
            .unwrap()
    );
    assert!(
        !kept
            .records
            .delete_voicemail(kept.account, id)
            .await
            .unwrap()
    );
    assert_eq!(
        kept.records.voicemail(kept.account, id).await.unwrap(),
        None
    );
}
