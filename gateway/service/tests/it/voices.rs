//! What callers hear and say where nobody has answered them yet, over real RTP: Menus, PINs, mailboxes, Queues.

use std::f64::consts::TAU;

use backing::objects::{Objects, prompt_key, voicemail_key};
use gateway_core::transaction::Transport;
use gateway_media::files;
use gateway_sip::StatusCode;
use model::phone::rows::{Destination, Mailbox, Prompt, Secret, Sha256Hex, SoundFormat, Telephony};
use model::phone::{PhoneCommandKind, PhoneEventKind, Unanswered};

use crate::peer::Peer;
use crate::phone::{FRAME, Phone, SECOND, amplitude, snr};
use crate::world::{NUMBER, World, account, telephony, trunk, user};

const TARGET: &str = "sip:+4930123456@127.0.0.1";

/// Rows whose Number leads to `to`, and a provider.
async fn rows(to: &str) -> (Peer, Telephony) {
    let peer = Peer::udp("127.0.0.1").await;
    let target = format!("sip:{}", peer.address);
    let mut rows = telephony([("provider", trunk(&[target]))]);
    let to: Destination = toml::from_str::<toml::Table>(&format!("to = {to}")).unwrap()["to"]
        .clone()
        .try_into()
        .unwrap();
    for number in rows.numbers.values_mut() {
        number.to = to.clone();
    }
    (peer, rows)
}

fn tone(hertz: f64, seconds: usize) -> Vec<i16> {
    let at = |at: usize| 8_000.0 * (TAU * hertz * at as f64 / SECOND as f64).sin();
    #[expect(clippy::cast_possible_truncation, reason = "it fits")]
    let samples = (0..seconds * SECOND).map(|it| at(it).round() as i16);
    samples.collect()
}

/// Puts a tone into the object store as the prompt of this name.
async fn put_prompt(t: &mut World, rows: &mut Telephony, name: &str, hertz: f64, seconds: usize) {
    let sha256: Sha256Hex = format!("{:064x}", name.len() * 1_000 + seconds)
        .parse()
        .unwrap();
    let key = prompt_key(account(), &sha256, SoundFormat::Wav);
    let objects = Objects::in_folder(t.folder.path()).unwrap();
    let file = files::write_wav(8_000, 1, &tone(hertz, seconds));
    objects.put(&key, file).await.unwrap();
    let prompt = Prompt {
        label: None,
        sha256,
        format: SoundFormat::Wav,
        millis: u32::try_from(seconds * 1_000).unwrap(),
    };
    rows.prompts.insert(name.parse().unwrap(), prompt);
}

async fn call(t: &World, peer: Peer) -> Phone {
    let peer = peer.toward(t.address(Transport::Udp));
    Phone::call(peer, TARGET, StatusCode::OK).await
}

fn menu(rows: &mut Telephony) {
    let row = "prompt = 'welcome'\nextensions = true\notherwise = 'busy'\ntimes = 1\nwait_seconds = 1\n\
        choices = { 1 = { user = 'alice' }, 2 = { user = 'bob' } }";
    rows.menus
        .insert("main".parse().unwrap(), toml::from_str(row).unwrap());
    let desk = rows.numbers[&NUMBER.parse().unwrap()].clone();
    let mut desk = model::phone::rows::Number { ..desk };
    desk.to = Destination::User("carol".parse().unwrap());
    rows.numbers.insert("4711".parse().unwrap(), desk);
}

#[tokio::test]
async fn a_key_cuts_the_prompt_off_and_rings_whom_it_stands_for() {
    for (keys, rung) in [("2", "bob"), ("4711", "carol")] {
        let (peer, mut rows) = rows("{ menu = 'main' }").await;
        menu(&mut rows);
        let mut t = World::real("", rows.clone()).await;
        put_prompt(&mut t, &mut rows, "welcome", 700.0, 60).await;
        t.set_rows(rows).await;
        let mut phone = call(&t, peer).await;
        phone.until_tone(700.0).await;
        let heard = phone.listen(500).await;
        assert!(snr(&heard, 700.0) > 35.0, "the file is heard as it is");
        phone.press(keys);
        let rings = async {
            loop {
                phone.hear().await;
            }
        };
        let (call, event) = tokio::select! {
            event = t.event() => event,
            () = rings => unreachable!(),
        };
        let PhoneEventKind::Ring(ring) = event else {
            panic!("{event:?}");
        };
        assert_eq!(ring.users, [rung.parse().unwrap()]);
        t.tell(call, PhoneCommandKind::Ringing).await;
        // Its phone is up already: what it hears of the ringing is ours, and nothing clicks on the way there.
        let heard = phone.listen(1_000).await;
        assert!(amplitude(&heard[SECOND / 2..], 700.0) < 10.0);
        let step = heard.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max();
        assert!(step < Some(6_000), "{step:?}");
        phone.until_tone(425.0).await;
        phone.hang_up().await;
    }
}

#[tokio::test]
async fn who_presses_nothing_hears_a_sign_and_the_end() {
    let (peer, mut rows) = rows("{ menu = 'main' }").await;
    menu(&mut rows);
    let t = World::real("", rows).await;
    // There is no file of the prompt: the sign for it is heard.
    let mut phone = call(&t, peer).await;
    phone.until_tone(880.0).await;
    // Nothing is pressed for a second, and `busy` it is: who was answered hears that.
    phone.until_tone(950.0).await;
    phone.until_tone(1_800.0).await;
    phone.is_hung_up().await;
    t.until(|figures| figures.calls == 0).await;
}

#[tokio::test]
async fn a_message_is_kept_as_it_was_said() {
    let (peer, rows) = rows("{ voicemail = { user = 'alice' } }").await;
    let mut t = World::real("", rows).await;
    let mut phone = call(&t, peer).await;
    phone.until_tone(1_400.0).await;
    while amplitude(&phone.hear().await, 1_400.0) > 100.0 {}
    phone.listen(500).await;
    phone.says = Some(1_000.0);
    phone.listen(2_000).await;
    phone.press("#");
    // Three notes downwards: it is kept.
    phone.until_tone(523.3).await;
    phone.is_hung_up().await;
    let (_, PhoneEventKind::Voicemail(left)) = t.event().await else {
        panic!("no message was left");
    };
    assert_eq!(left.users, [user()]);
    let message = left.message;
    assert_eq!(message.mailbox, Mailbox::User(user()));
    assert_eq!(message.from.as_deref(), Some("tel:+4989555"));
    assert_eq!(message.name.as_deref(), Some("Front desk"));
    let objects = Objects::in_folder(t.folder.path()).unwrap();
    let key = voicemail_key(account(), message.id, message.format);
    let file = objects.get(&key).await.unwrap().unwrap();
    let (_, clip) = files::read(&file, 60).unwrap();
    assert_eq!(u64::from(message.millis), clip.millis());
    assert!((2_200..4_000).contains(&clip.millis()), "{clip:?}");
    let loud = clip.samples().iter().position(|it| *it > 4_000).unwrap();
    let said = &clip.samples()[loud + FRAME..loud + FRAME + SECOND * 3 / 2];
    assert!(snr(said, 1_000.0) >= 35.0, "{} dB", snr(said, 1_000.0));
}

#[tokio::test]
async fn a_message_is_kept_when_its_caller_hangs_up_and_none_of_who_says_nothing() {
    let (peer, mut rows) = rows("{ user = 'alice' }").await;
    rows.users.insert(user(), toml::from_str("").unwrap());
    let mut t = World::real("", rows).await;
    let mut peer = peer.toward(t.address(Transport::Udp));
    for says in [None, Some(700.0)] {
        let sound = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut invite = peer.invite(TARGET);
        crate::phone::offer(&mut invite, sound.local_addr().unwrap().port());
        peer.send(&invite.to_bytes()).await;
        let (call, _) = t.event().await;
        let why = Unanswered::Missed;
        t.tell(call, PhoneCommandKind::Unanswered { user: user(), why })
            .await;
        let mut phone = Phone::answered(peer, invite, sound, StatusCode::OK).await;
        phone.until_tone(1_400.0).await;
        while amplitude(&phone.hear().await, 1_400.0) > 100.0 {}
        phone.says = says;
        phone.listen(1_500).await;
        phone.hang_up().await;
        let mut event = t.event().await.1;
        if matches!(event, PhoneEventKind::Ended(_)) && says.is_some() {
            event = t.event().await.1;
        }
        let is_message = matches!(event, PhoneEventKind::Voicemail(_));
        assert_eq!(is_message, says.is_some(), "{event:?}");
        t.until(|figures| figures.messages == u64::from(says.is_some()))
            .await;
        peer = phone.peer;
    }
}

#[tokio::test]
async fn a_pin_leads_into_its_room_and_guessing_does_not() {
    let (peer, mut rows) = rows("'conference'").await;
    let mut pin: model::phone::rows::Pin = toml::from_str("room = 'weekly'").unwrap();
    pin.pin = Some(Secret::new("8642").unwrap());
    rows.pins.insert("weekly".parse().unwrap(), pin);
    let mut t = World::real("", rows).await;
    let mut phone = call(&t, peer).await;
    phone.until_tone(988.0).await;
    phone.press("1111#");
    phone.until_tone(311.1).await;
    phone.until_tone(988.0).await;
    phone.press("8642#");
    let hears = async {
        loop {
            phone.hear().await;
        }
    };
    let (call, event) = tokio::select! {
        event = t.event() => event,
        () = hears => unreachable!(),
    };
    let PhoneEventKind::Enter(enter) = event else {
        panic!("{event:?}");
    };
    assert_eq!(enter.room.as_str(), "weekly");
    assert_eq!(enter.from.unwrap().number(), Some("+4989555"));
    let place = t.place();
    t.tell(call, PhoneCommandKind::Move { place }).await;
    // The Room hears the phone.
    let mut end = t.seated().await;
    phone.says = Some(1_000.0);
    let mut payload = [0; model::plain::PAYLOAD_LEN_MAX];
    let mut loud = 0;
    while loud < 20 {
        phone.hear().await;
        while let Some((packet, _)) = end.receive(&mut payload) {
            loud += usize::from(packet.level.is_some_and(|level| level.below_full < 30));
        }
    }
    t.tell(call, PhoneCommandKind::HangUp { cause: 16 }).await;
    phone.is_hung_up().await;
    assert_eq!(t.handle.figures().await.pins_wrong, 1);
}

#[tokio::test]
async fn who_guesses_a_pin_three_times_is_let_go_and_no_room_is_asked_for() {
    let (peer, mut rows) = rows("'conference'").await;
    let mut pin: model::phone::rows::Pin = toml::from_str("room = 'weekly'").unwrap();
    pin.pin = Some(Secret::new("8642").unwrap());
    rows.pins.insert("weekly".parse().unwrap(), pin);
    let t = World::real("", rows).await;
    let mut phone = call(&t, peer).await;
    for _ in 0..3 {
        phone.until_tone(988.0).await;
        phone.press("1111#");
    }
    phone.until_tone(523.3).await;
    phone.is_hung_up().await;
    let figures = t.handle.figures().await;
    assert_eq!((figures.pins_wrong, figures.entered), (3, 0));
}

#[tokio::test]
async fn who_waits_hears_the_greeting_then_music_and_their_place() {
    let (peer, mut rows) = rows("{ queue = 'sales' }").await;
    let queue = "members = ['alice']\ngreeting = 'hello'\nmusic = 'waiting'\nposition_seconds = 2\nnobody_answers = 'busy'";
    rows.queues
        .insert("sales".parse().unwrap(), toml::from_str(queue).unwrap());
    let mut t = World::real("", rows.clone()).await;
    put_prompt(&mut t, &mut rows, "hello", 500.0, 1).await;
    put_prompt(&mut t, &mut rows, "waiting", 1_200.0, 1).await;
    t.set_rows(rows).await;
    let mut phone = call(&t, peer).await;
    phone.until_tone(500.0).await;
    phone.until_tone(1_200.0).await;
    phone.until_tone(784.0).await;
    phone.until_tone(1_200.0).await;
    // The music is a second long and goes on.
    let heard = phone.listen(1_300).await;
    for piece in heard.chunks(SECOND / 4) {
        assert!(amplitude(piece, 1_200.0) > 6_000.0);
    }
    phone.hang_up().await;
    t.until(|figures| figures.waiting == 0).await;
}

#[tokio::test]
async fn an_announcement_is_heard_and_that_was_it() {
    let (peer, mut rows) = rows("{ announcement = 'closed' }").await;
    let mut t = World::real("", rows.clone()).await;
    put_prompt(&mut t, &mut rows, "closed", 600.0, 1).await;
    t.set_rows(rows).await;
    let mut phone = call(&t, peer).await;
    phone.until_tone(600.0).await;
    let heard = phone.listen(700).await;
    assert!(snr(&heard, 600.0) > 35.0);
    phone.is_hung_up().await;
    t.until(|figures| figures.calls == 0).await;
}
