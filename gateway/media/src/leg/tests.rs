mod played;

use std::task::Waker;

use gateway_sip::negotiate::Codec;
use gateway_sip::sdes::Suite;
use model::plain::{self, Level, PAYLOAD_LEN_MAX, Packet as PlainPacket};
use sfu_rtp::packet::{FixedHeader, HeaderWriter};

use super::*;
use crate::codec::{CODED_LEN_MAX, Decoder, Encoder, frame_len};
use crate::dtmf;
use crate::opus::{self, Decode, Encode, Opus, OpusCodec};
use crate::tone::{amplitude, snr, tone};

const HERE: &str = "192.0.2.10:20000";
const PHONE: &str = "198.51.100.7:4000";
const STRANGER: &str = "203.0.113.66:5555";
const ROOM_TRACK: TrackId = TrackId::from_u128(5);
const OWN_TRACK: TrackId = TrackId::from_u128(6);

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "any time will do to begin with")]
fn beginning() -> Instant {
    Instant::now()
}

fn agreed(codec: Codec) -> Agreed {
    let payload_type = codec.payload_type();
    Agreed {
        remote: at(PHONE),
        remote_rtcp: at(PHONE),
        codec,
        payload_type,
        receiving: vec![(payload_type, codec)],
        dtmf: Some((101, 102)),
        comfort_noise: codec.clock_rate() == 8_000,
        direction: Direction::SendRecv,
        packet_ms: 20,
        keys: Keys::None,
    }
}

fn leg(now: Instant, ssrc: u32) -> Leg {
    Leg::new(
        now,
        Start {
            wall: NtpTime(1 << 60),
            ssrc,
            sequence: 30_000,
            timestamp: 4_294_000_000,
            cname: "a name".to_owned(),
            silent_after: Duration::from_secs(30),
        },
    )
}

/// The other end of a Leg's ring: somebody in the Room.
struct Person {
    end: End,
    encoder: <Opus as OpusCodec>::Encoder,
    decoder: <Opus as OpusCodec>::Decoder,
    sequence: u16,
    /// What was heard, and how loud it was said to be.
    heard: Vec<i16>,
    packets: Vec<PlainPacket>,
}

impl Person {
    fn new(end: End, rate: u32) -> Self {
        Self {
            end,
            encoder: Encode::new(rate).unwrap(),
            decoder: Decode::new(rate).unwrap(),
            sequence: 9,
            heard: Vec::new(),
            packets: Vec::new(),
        }
    }

    fn say(&mut self, slot: u8, frame: &[i16]) {
        let mut coded = [0; opus::PACKET_LEN_MAX];
        let len = self.encoder.encode(frame, &mut coded).unwrap();
        let packet = PlainPacket {
            slot,
            track: ROOM_TRACK,
            sequence: self.sequence,
            timestamp: u32::from(self.sequence) * 960,
            marker: false,
            level: Some(Level {
                below_full: 20,
                voice: true,
            }),
        };
        self.sequence += 1;
        self.end.send(&packet, &coded[..len]).unwrap();
    }

    fn listen(&mut self) {
        let mut payload = [0; PAYLOAD_LEN_MAX];
        while let Some((packet, len)) = self.end.receive(&mut payload) {
            let mut out = [0; opus::SAMPLES_MAX];
            let made = self.decoder.decode(&payload[..len], &mut out).unwrap();
            self.heard.extend_from_slice(&out[..made]);
            self.packets.push(packet);
        }
    }
}

/// A phone that speaks one codec over RTP.
struct Phone {
    encoder: Encoder,
    decoder: Decoder,
    codec: Codec,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    heard: Vec<i16>,
    headers: Vec<FixedHeader>,
}

impl Phone {
    fn new(codec: Codec) -> Self {
        Self {
            encoder: Encoder::new(codec).unwrap(),
            decoder: Decoder::new(codec).unwrap(),
            codec,
            sequence: 65_530,
            timestamp: 100,
            ssrc: 77,
            heard: Vec::new(),
            headers: Vec::new(),
        }
    }

    fn packet(&mut self, payload_type: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let header = FixedHeader {
            marker: false,
            payload_type,
            sequence_number: self.sequence,
            timestamp,
            ssrc: self.ssrc,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = vec![0; 12];
        let writer = HeaderWriter::new(&mut bytes, &header, &[]).unwrap();
        writer.finish().unwrap();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn say(&mut self, frame: &[i16]) -> Vec<u8> {
        let mut coded = [0; CODED_LEN_MAX];
        let len = self.encoder.encode(frame, &mut coded);
        let timestamp = self.timestamp;
        self.timestamp += self.codec.clock_rate() / 50;
        self.packet(self.codec.payload_type(), timestamp, &coded[..len])
    }

    fn listen(&mut self, bytes: &[u8]) {
        let packet = Packet::parse(bytes).unwrap();
        self.headers.push(packet.header().fixed());
        if packet.header().payload_type() == self.codec.payload_type() {
            let mut out = [0; opus::SAMPLES_MAX];
            let made = self.decoder.decode(packet.payload(), &mut out);
            self.heard.extend_from_slice(&out[..made]);
        }
    }
}

/// One call: a phone, its Leg, and somebody in the Room.
struct Call {
    now: Instant,
    leg: Leg,
    phone: Phone,
    person: Person,
    /// What left besides RTP.
    reports: Vec<Vec<u8>>,
    targets: Vec<SocketAddr>,
    events: Vec<Event>,
}

impl Call {
    fn new(codec: Codec) -> Self {
        Self::with(&agreed(codec))
    }

    fn with(agreed: &Agreed) -> Self {
        let now = beginning();
        let mut leg = leg(now, 1);
        leg.agree(now, agreed).unwrap();
        let (near, far) = plain::pair(Waker::noop().clone());
        leg.connect(To::Room(far, OWN_TRACK));
        Self {
            now,
            leg,
            phone: Phone::new(agreed.codec),
            person: Person::new(near, agreed.codec.sample_rate()),
            reports: Vec::new(),
            targets: Vec::new(),
            events: Vec::new(),
        }
    }

    fn hear(&mut self, from: &str, mut bytes: Vec<u8>) {
        self.leg.handle_rtp(self.now, at(from), &mut bytes);
    }

    /// 20 ms pass.
    fn tick(&mut self) {
        let (phone, reports, targets) = (&mut self.phone, &mut self.reports, &mut self.targets);
        self.leg.tick(self.now, |_, to, bytes| {
            if classify(bytes) == Some(DatagramKind::Rtp) {
                phone.listen(bytes);
                targets.push(to);
            } else {
                reports.push(bytes.to_vec());
            }
        });
        self.person.listen();
        self.events
            .extend(std::iter::from_fn(|| self.leg.poll_event()));
        self.now += FRAME;
    }
}

#[test]
fn tones_come_through_both_ways_in_every_codec() {
    let hertz = 1_000.0;
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus] {
        let rate = codec.sample_rate();
        let len = frame_len(rate);
        let mut call = Call::new(codec);
        let sound = tone(rate, hertz, 8_000.0, len * 150);
        for frame in sound.chunks(len) {
            let bytes = call.phone.say(frame);
            call.hear(PHONE, bytes);
            call.person.say(0, frame);
            call.tick();
        }
        for (way, heard) in [("in", &call.person.heard), ("out", &call.phone.heard)] {
            assert!(heard.len() >= len * 140, "{codec:?} {way}: {}", heard.len());
            let settled = &heard[len * 50..len * 140];
            let peak = amplitude(settled, rate, hertz);
            assert!(
                (7_200.0..8_500.0).contains(&peak),
                "{codec:?} {way}: {peak}"
            );
            let got = snr(settled, rate, hertz);
            assert!(got >= 35.0, "{codec:?} {way}: {got} dB");
        }
        let figures = call.leg.figures();
        assert_eq!((figures.received, figures.lost), (150, 0));
        assert_eq!((figures.sent, figures.concealed), (150, 0));
        assert!(figures.mos > 4.2, "{}", figures.mos);
        assert_eq!(call.leg.drops(), Drops::default());
        assert!(
            call.person
                .packets
                .iter()
                .all(|packet| packet.track == OWN_TRACK)
        );
    }
}

#[test]
fn several_voices_are_heard_at_once() {
    let mut call = Call::new(Codec::Pcma);
    let mut other = <Opus as OpusCodec>::Encoder::new(8_000).unwrap();
    let (low, high) = (
        tone(8_000, 500.0, 5_000.0, 160 * 100),
        tone(8_000, 1_500.0, 5_000.0, 160 * 100),
    );
    for (number, (low, high)) in (0..).zip(low.chunks(160).zip(high.chunks(160))) {
        call.person.say(0, low);
        let mut coded = [0; opus::PACKET_LEN_MAX];
        let len = other.encode(high, &mut coded).unwrap();
        let packet = PlainPacket {
            slot: 3,
            track: TrackId::from_u128(9),
            sequence: number,
            timestamp: u32::from(number) * 960,
            marker: false,
            level: None,
        };
        call.person.end.send(&packet, &coded[..len]).unwrap();
        call.tick();
    }
    let settled = &call.phone.heard[160 * 30..160 * 90];
    for hertz in [500.0, 1_500.0] {
        let peak = amplitude(settled, 8_000, hertz);
        assert!((4_500.0..5_500.0).contains(&peak), "{hertz}: {peak}");
    }
}

#[test]
fn keys_are_heard_once_and_sent_as_events() {
    let mut call = Call::new(Codec::Pcmu);
    let silence = [0; 160];
    for (press, key) in (0..).zip("15*".chars()) {
        let begin = call.phone.timestamp;
        let mut sender = dtmf::Sender::new(Key::from_char(key).unwrap(), begin, 160, 800);
        // The phone sets no marker, and one packet of each press is lost.
        for number in 0.. {
            let Some(event) = sender.next_packet() else {
                break;
            };
            let bytes = call.phone.packet(102, event.timestamp, &event.payload);
            if number != press {
                call.hear(PHONE, bytes);
            }
            call.phone.timestamp += 160;
            call.tick();
        }
        for _ in 0..5 {
            let bytes = call.phone.say(&silence);
            call.hear(PHONE, bytes);
            call.tick();
        }
    }
    assert_eq!(call.events, ['1', '5', '*'].map(Event::Key));

    call.phone.headers.clear();
    for key in "0#".chars() {
        assert!(call.leg.press(Key::from_char(key).unwrap()));
    }
    for _ in 0..40 {
        call.tick();
    }
    let events = call.phone.headers.iter();
    let events: Vec<_> = events.filter(|header| header.payload_type == 101).collect();
    assert_eq!(
        events.len(),
        2 * 7,
        "five frames, the last told three times"
    );
    assert_eq!(events.iter().filter(|header| header.marker).count(), 2);
    let numbers: Vec<u16> = call
        .phone
        .headers
        .iter()
        .map(|header| header.sequence_number)
        .collect();
    assert!(
        numbers
            .windows(2)
            .all(|pair| pair[1].wrapping_sub(pair[0]) == 1)
    );
    for _ in 0..crate::sending::KEYS_MAX {
        assert!(call.leg.press(Key::from_char('1').unwrap()));
    }
    assert!(
        !call.leg.press(Key::from_char('1').unwrap()),
        "too many wait"
    );
}

#[test]
fn holds_other_codecs_and_silences_keep_numbers_and_time() {
    let mut call = Call::new(Codec::Pcmu);
    let ticks = |call: &mut Call, count: usize| (0..count).for_each(|_| call.tick());
    ticks(&mut call, 10);
    for direction in [
        Direction::Inactive,
        Direction::SendRecv,
        Direction::RecvOnly,
    ] {
        let held = Agreed {
            direction,
            ..agreed(Codec::Pcmu)
        };
        call.leg.agree(call.now, &held).unwrap();
        ticks(&mut call, 100);
    }
    let other = Agreed {
        comfort_noise: false,
        ..agreed(Codec::G722)
    };
    call.leg.agree(call.now, &other).unwrap();
    ticks(&mut call, 10);
    let headers = &call.phone.headers;
    assert!(headers.len() > 25, "{}", headers.len());
    for pair in headers.windows(2) {
        assert_eq!(
            pair[1]
                .sequence_number
                .wrapping_sub(pair[0].sequence_number),
            1
        );
        assert_eq!(pair[0].ssrc, pair[1].ssrc);
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!(
            step.is_multiple_of(160) && (1..=160 * 140).contains(&step),
            "{step}"
        );
        // After a pause a talkspurt begins (RFC 3551 §4.1), unless it is a silence that is told.
        if step > 160 && pair[1].payload_type != COMFORT_NOISE {
            assert!(pair[1].marker);
        }
    }
    let passed = headers[headers.len() - 1]
        .timestamp
        .wrapping_sub(headers[0].timestamp);
    assert_eq!(passed, 319 * 160);
    assert!(
        headers
            .iter()
            .any(|header| header.payload_type == COMFORT_NOISE)
    );
}

const COMFORT_NOISE: u8 = crate::COMFORT_NOISE_PAYLOAD_TYPE;

#[test]
fn comfort_noise_is_heard_between_words() {
    let mut call = Call::new(Codec::Pcmu);
    let sound = tone(8_000, 400.0, 8_000.0, 160 * 20);
    for frame in sound.chunks(160) {
        let bytes = call.phone.say(frame);
        call.hear(PHONE, bytes);
        call.tick();
    }
    let timestamp = call.phone.timestamp;
    let bytes = call.phone.packet(COMFORT_NOISE, timestamp, &[50]);
    call.hear(PHONE, bytes);
    let before = call.person.heard.len();
    for _ in 0..100 {
        call.tick();
    }
    let noise = &call.person.heard[before + 160 * 40..];
    assert!(noise.len() > 160 * 50);
    let level = crate::level(noise);
    assert!((44..58).contains(&level), "{level}");
}

#[test]
fn packets_may_hold_more_or_less_than_20_ms() {
    for millis in [10, 30, 40, 60] {
        let mut call = Call::with(&Agreed {
            packet_ms: millis,
            comfort_noise: false,
            ..agreed(Codec::Pcma)
        });
        let len = usize::try_from(millis).unwrap() * 8;
        let sound = tone(8_000, 600.0, 8_000.0, len * 100);
        let mut packets = sound.chunks(len);
        let mut next = call.now;
        while packets.len() > 0 {
            while next <= call.now
                && let Some(samples) = packets.next()
            {
                let mut coded = vec![0; len];
                crate::g711::Law::A.encode(samples, &mut coded);
                let timestamp = call.phone.timestamp;
                call.phone.timestamp += millis * 8;
                let bytes = call.phone.packet(8, timestamp, &coded);
                call.hear(PHONE, bytes);
                next += Duration::from_millis(millis.into());
            }
            call.tick();
        }
        let heard = &call.person.heard;
        assert!(heard.len() > len * 80, "{millis}: {}", heard.len());
        let settled = &heard[len * 30..len * 80];
        assert!(
            snr(settled, 8_000, 600.0) > 25.0,
            "{millis}: {}",
            snr(settled, 8_000, 600.0)
        );
        let steps = call.phone.headers.windows(2);
        for pair in steps {
            let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
            assert_eq!(step, millis * 8);
        }
    }
}

#[test]
fn a_stranger_who_injects_is_not_heard() {
    let mut call = Call::new(Codec::Pcmu);
    let mut stranger = Phone::new(Codec::Pcmu);
    let silence = [0; 160];
    let shout = tone(8_000, 1_000.0, 20_000.0, 160);
    for _ in 0..100 {
        let bytes = call.phone.say(&silence);
        call.hear(PHONE, bytes);
        let bytes = stranger.say(&shout);
        call.hear(STRANGER, bytes);
        call.tick();
    }
    assert!(amplitude(&call.person.heard, 8_000, 1_000.0) < 10.0);
    assert_eq!(call.leg.drops()[Drop::Stranger as usize], 100);
    assert!(call.targets.iter().all(|to| *to == at(PHONE)));
}

#[test]
fn silence_and_the_end_of_the_room_are_told_once() {
    let mut call = Call::new(Codec::Pcmu);
    for _ in 0..50 * 31 {
        call.tick();
    }
    assert_eq!(call.events, [Event::Silent]);
    let bytes = call.phone.say(&[0; 160]);
    call.hear(PHONE, bytes);
    for _ in 0..50 * 31 {
        call.tick();
    }
    assert_eq!(call.events, [Event::Silent; 2]);
    // Nobody is silent who is not to be heard.
    let held = Agreed {
        direction: Direction::SendOnly,
        ..agreed(Codec::Pcmu)
    };
    call.leg.agree(call.now, &held).unwrap();
    for _ in 0..50 * 61 {
        call.tick();
    }
    assert_eq!(call.events.len(), 2);

    let (near, _) = plain::pair(Waker::noop().clone());
    let before = std::mem::replace(&mut call.person.end, near);
    drop(before);
    call.tick();
    call.tick();
    assert_eq!(call.events[2..], [Event::Left]);
    call.leg.connect(To::Ringback);
    call.phone.heard.clear();
    for _ in 0..25 {
        call.tick();
    }
    assert!(amplitude(&call.phone.heard[800..], 8_000, 425.0) > 2_000.0);
}

/// Two phones whose Legs are joined.
struct Joined {
    now: Instant,
    legs: [Leg; 2],
    phones: [Phone; 2],
    /// What each phone was sent, as it came.
    payloads: [Vec<Vec<u8>>; 2],
}

impl Joined {
    fn new(codecs: [Codec; 2]) -> Self {
        let now = beginning();
        let mut legs = [leg(now, 1), leg(now, 2)];
        let ends: [End; 2] = plain::pair(Waker::noop().clone()).into();
        for (leg, (end, codec)) in legs.iter_mut().zip(ends.into_iter().zip(codecs)) {
            leg.agree(now, &agreed(codec)).unwrap();
            leg.connect(To::Leg(end, OWN_TRACK));
        }
        Self {
            now,
            legs,
            phones: codecs.map(Phone::new),
            payloads: [Vec::new(), Vec::new()],
        }
    }

    /// 20 ms pass, in which each phone says a packet of its own, or nothing.
    fn tick(&mut self, said: [Option<Vec<u8>>; 2]) {
        for (leg, bytes) in self.legs.iter_mut().zip(said) {
            if let Some(mut bytes) = bytes {
                leg.handle_rtp(self.now, at(PHONE), &mut bytes);
            }
        }
        for ((leg, phone), payloads) in self
            .legs
            .iter_mut()
            .zip(&mut self.phones)
            .zip(&mut self.payloads)
        {
            leg.tick(self.now, |_, _, bytes| {
                if classify(bytes) == Some(DatagramKind::Rtp) {
                    phone.listen(bytes);
                    payloads.push(Packet::parse(bytes).unwrap().payload().to_vec());
                }
            });
        }
        self.now += FRAME;
    }
}

#[test]
fn what_both_phones_speak_goes_on_as_it_is() {
    for codec in [Codec::Pcmu, Codec::G722, Codec::Opus] {
        let mut call = Joined::new([codec; 2]);
        let len = frame_len(codec.sample_rate());
        let sound = tone(codec.sample_rate(), 713.0, 8_000.0, len * 100);
        let mut sent = Vec::new();
        for frame in sound.chunks(len) {
            let bytes = call.phones[0].say(frame);
            sent.push(Packet::parse(&bytes).unwrap().payload().to_vec());
            call.tick([Some(bytes), None]);
        }
        let got = &call.payloads[1];
        let begin = got.iter().position(|payload| *payload == sent[2]).unwrap();
        assert!(begin < 5, "{codec:?}: {begin}");
        assert!(got[begin..] == sent[2..], "{codec:?}");
        let steps = call.phones[1].headers.windows(2);
        for pair in steps {
            let numbers = [pair[0].sequence_number, pair[1].sequence_number];
            assert_eq!(numbers[1].wrapping_sub(numbers[0]), 1, "{codec:?}");
            let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
            assert_eq!(step, codec.clock_rate() / 50, "{codec:?}");
        }
    }
}

#[test]
fn a_leg_whose_other_one_was_led_elsewhere_waits_for_it() {
    let mut call = Joined::new([Codec::Pcmu; 2]);
    let say = |call: &mut Joined| {
        let said = [0, 1].map(|side: usize| Some(call.phones[side].say(&[1_000; 160])));
        call.tick(said);
    };
    for _ in 0..10 {
        say(&mut call);
    }
    // The other side is held: it hears music, and its end of the line is gone.
    call.legs[1].connect(To::Music);
    for _ in 0..50 {
        say(&mut call);
    }
    let told = |leg: &mut Leg| std::iter::from_fn(|| leg.poll_event()).collect::<Vec<_>>();
    assert_eq!(call.legs.each_mut().map(told), [vec![], vec![]]);

    let ends: [End; 2] = plain::pair(Waker::noop().clone()).into();
    for (leg, end) in call.legs.iter_mut().zip(ends) {
        leg.connect(To::Leg(end, OWN_TRACK));
    }
    let before = call.payloads.each_ref().map(Vec::len);
    for _ in 0..50 {
        say(&mut call);
    }
    for (payloads, before) in call.payloads.iter().zip(before) {
        assert!(payloads.len() >= before + 45, "{} {before}", payloads.len());
    }
    assert_eq!(call.legs.each_mut().map(told), [vec![], vec![]]);
}

#[test]
fn phones_of_two_codecs_hear_each_other() {
    for (codecs, least) in [
        ([Codec::Pcmu, Codec::Pcma], 33.0),
        ([Codec::Pcma, Codec::G722], 33.0),
        ([Codec::Opus, Codec::Pcmu], 33.0),
    ] {
        let mut call = Joined::new(codecs);
        let lens = codecs.map(|codec| frame_len(codec.sample_rate()));
        let sounds = [0, 1].map(|side: usize| {
            let hertz = [600.0, 900.0][side];
            tone(codecs[side].sample_rate(), hertz, 8_000.0, lens[side] * 150)
        });
        for (a, b) in sounds[0].chunks(lens[0]).zip(sounds[1].chunks(lens[1])) {
            let said = [call.phones[0].say(a), call.phones[1].say(b)];
            call.tick(said.map(Some));
        }
        for (side, hertz) in [(1, 600.0), (0, 900.0)] {
            let heard = &call.phones[side].heard;
            let rate = codecs[side].sample_rate();
            assert!(heard.len() > lens[side] * 140, "{codecs:?}");
            let settled = &heard[lens[side] * 60..lens[side] * 140];
            let got = snr(settled, rate, hertz);
            assert!(got >= least, "{codecs:?} at {side}: {got} dB");
        }
    }
}

#[test]
fn losses_order_keys_and_holds_are_what_they_were_when_packets_go_on() {
    let mut call = Joined::new([Codec::Pcmu; 2]);
    let loud = tone(8_000, 700.0, 8_000.0, 160);
    let say = |call: &mut Joined| call.phones[0].say(&loud);
    for number in 0..50 {
        let bytes = say(&mut call);
        // One is lost on its way to us.
        call.tick([Some(bytes).filter(|_| number != 30), None]);
    }
    // Two change places.
    let (first, second) = (say(&mut call), say(&mut call));
    call.tick([Some(second), None]);
    call.tick([Some(first), None]);
    let numbers = |call: &Joined| -> Vec<u16> {
        let headers = call.phones[1].headers.iter();
        headers.map(|header| header.sequence_number).collect()
    };
    let steps = |numbers: &[u16]| -> Vec<u16> {
        let pairs = numbers.windows(2);
        pairs.map(|pair| pair[1].wrapping_sub(pair[0])).collect()
    };
    let before = steps(&numbers(&call));
    assert_eq!(before.iter().filter(|step| **step == 2).count(), 2);
    assert_eq!(before[before.len() - 1], u16::MAX, "the order is told");
    assert!(
        before[..before.len() - 1]
            .iter()
            .all(|step| (1..=2).contains(step))
    );

    // A key of the one phone is pressed for the other by whoever hears of it; its packets leave no gap.
    let begun = call.phones[1].headers.len();
    let mut key = dtmf::Sender::new(
        Key::from_char('5').unwrap(),
        call.phones[0].timestamp,
        160,
        800,
    );
    while let Some(event) = key.next_packet() {
        let bytes = call.phones[0].packet(102, event.timestamp, &event.payload);
        call.phones[0].timestamp += 160;
        call.tick([Some(bytes), None]);
    }
    assert_eq!(call.legs[0].poll_event(), Some(Event::Key('5')));
    assert!(call.legs[1].press(Key::from_char('5').unwrap()));
    for _ in 0..30 {
        let bytes = say(&mut call);
        call.tick([Some(bytes), None]);
    }
    let after = &call.phones[1].headers[begun - 2..];
    assert_eq!(
        after
            .iter()
            .filter(|header| header.payload_type == 101)
            .count(),
        7
    );
    let after: Vec<u16> = after.iter().map(|header| header.sequence_number).collect();
    assert!(
        steps(&after[2..]).iter().all(|step| *step == 1),
        "{after:?}"
    );

    // Who is held is sent nothing, and goes on later with a clock that never stopped.
    let held = Agreed {
        direction: Direction::Inactive,
        ..agreed(Codec::Pcmu)
    };
    call.legs[1].agree(call.now, &held).unwrap();
    let heard = call.phones[1].headers.len();
    for _ in 0..100 {
        let bytes = say(&mut call);
        call.tick([Some(bytes), None]);
    }
    assert_eq!(call.phones[1].headers.len(), heard);
    call.legs[1].agree(call.now, &agreed(Codec::Pcmu)).unwrap();
    for _ in 0..10 {
        let bytes = say(&mut call);
        call.tick([Some(bytes), None]);
    }
    let headers = &call.phones[1].headers[heard - 1..];
    assert!(headers.len() >= 10);
    let pause = headers[1].timestamp.wrapping_sub(headers[0].timestamp);
    assert!((100 * 160..104 * 160).contains(&pause), "{pause}");
    assert!(headers[1].marker);
    let step = headers[1]
        .sequence_number
        .wrapping_sub(headers[0].sequence_number);
    assert_eq!(step, 1);
}

#[test]
fn a_phone_that_speaks_opus_hears_one_voice_as_it_is_and_several_as_their_sum() {
    let mut call = Call::new(Codec::Opus);
    let (low, high) = (
        tone(48_000, 500.0, 5_000.0, 960 * 300),
        tone(48_000, 1_500.0, 5_000.0, 960 * 300),
    );
    let mut other: <Opus as OpusCodec>::Encoder = Encode::new(48_000).unwrap();
    for (number, (low, high)) in (0..).zip(low.chunks(960).zip(high.chunks(960))) {
        call.person.say(0, low);
        if (60..120).contains(&number) {
            let mut coded = [0; opus::PACKET_LEN_MAX];
            let len = other.encode(high, &mut coded).unwrap();
            let packet = PlainPacket {
                slot: 1,
                track: TrackId::from_u128(9),
                sequence: number,
                timestamp: u32::from(number) * 960,
                marker: false,
                level: None,
            };
            call.person.end.send(&packet, &coded[..len]).unwrap();
        }
        call.tick();
    }
    let heard = |frames: std::ops::Range<usize>, hertz| {
        let samples = &call.phone.heard[frames.start * 960..frames.end * 960];
        amplitude(samples, 48_000, hertz)
    };
    for (frames, both) in [(20..55, false), (80..115, true), (240..290, false)] {
        let (low, high) = (heard(frames.clone(), 500.0), heard(frames.clone(), 1_500.0));
        assert!((4_300.0..5_700.0).contains(&low), "{frames:?}: {low}");
        assert_eq!(
            (4_300.0..5_700.0).contains(&high),
            both,
            "{frames:?}: {high}"
        );
    }
    let numbers = call.phone.headers.windows(2);
    assert!(numbers.into_iter().all(|pair| {
        pair[1]
            .sequence_number
            .wrapping_sub(pair[0].sequence_number)
            == 1
    }));
    // What the phone says is told how loud it is, though nobody coded it.
    let said = tone(48_000, 700.0, 10_000.0, 960 * 20);
    for frame in said.chunks(960) {
        let bytes = call.phone.say(frame);
        call.hear(PHONE, bytes);
        call.tick();
    }
    let levels: Vec<_> = call
        .person
        .packets
        .iter()
        .filter_map(|packet| packet.level)
        .collect();
    assert_eq!(levels.len(), 20);
    assert!(
        levels[5..]
            .iter()
            .all(|level| level.voice && (10..17).contains(&level.below_full))
    );
}

/// Two Legs that call each other.
struct Pair {
    now: Instant,
    legs: [Leg; 2],
    sequence: u64,
}

impl Pair {
    fn new(suite: Option<Suite>, is_muxed: bool) -> Self {
        let now = beginning();
        let mut legs = [leg(now, 1), leg(now, 2)];
        for (number, leg) in legs.iter_mut().enumerate() {
            leg.agree(now, &terms(number, suite, is_muxed, 0)).unwrap();
        }
        Self {
            now,
            legs,
            sequence: 0,
        }
    }

    /// 20 ms pass; every `lose`-th packet of RTP is lost. Returns how many arrived.
    fn tick(&mut self, lose: u64) -> usize {
        let mut arrived = 0;
        for from in 0..2 {
            let mut sent: Vec<(Port, Vec<u8>)> = Vec::new();
            self.legs[from].tick(self.now, |port, _, bytes| sent.push((port, bytes.to_vec())));
            let address = at([HERE, PHONE][from]);
            for (port, mut bytes) in sent {
                self.sequence += 1;
                let other = &mut self.legs[1 - from];
                if port == Port::Rtcp {
                    other.handle_rtcp(self.now, address, &mut bytes);
                } else if lose == 0 || !self.sequence.is_multiple_of(lose) {
                    other.handle_rtp(self.now, address, &mut bytes);
                    arrived += 1;
                }
            }
        }
        self.now += FRAME;
        arrived
    }
}

fn terms(number: usize, suite: Option<Suite>, is_muxed: bool, salt: u8) -> Agreed {
    let key = |suite: Suite, of: usize| {
        let bytes = vec![salt + u8::try_from(of).unwrap(); suite.key_len()];
        MasterKey::new(suite, &bytes).unwrap()
    };
    let remote = at([PHONE, HERE][number]);
    Agreed {
        remote,
        remote_rtcp: match is_muxed {
            true => remote,
            false => SocketAddr::new(remote.ip(), remote.port() + 1),
        },
        keys: suite.map_or(Keys::None, |suite| Keys::Sdes {
            suite,
            local: key(suite, number),
            remote: key(suite, 1 - number),
        }),
        comfort_noise: false,
        // Each sends what the other expects.
        dtmf: Some((101, 101)),
        ..agreed(Codec::Pcmu)
    }
}

#[test]
fn srtp_goes_on_through_rollovers_and_descriptions_and_takes_new_keys() {
    for suite in Suite::ALL {
        let mut pair = Pair::new(Some(suite), true);
        // Past a rollover in one of them, which costs the same in all.
        let ticks = match suite {
            Suite::AeadAes128Gcm => 36_000,
            _ => 1_000,
        };
        for _ in 0..ticks {
            pair.tick(0);
        }
        for (number, leg) in pair.legs.iter_mut().enumerate() {
            leg.agree(pair.now, &terms(number, Some(suite), true, 0))
                .unwrap();
        }
        for _ in 0..100 {
            pair.tick(0);
        }
        for (number, leg) in pair.legs.iter_mut().enumerate() {
            leg.agree(pair.now, &terms(number, Some(suite), true, 9))
                .unwrap();
        }
        for _ in 0..100 {
            pair.tick(0);
        }
        for leg in &mut pair.legs {
            assert_eq!(leg.drops(), Drops::default(), "{suite:?}");
            let figures = leg.figures();
            assert_eq!(
                (figures.received, figures.lost),
                (ticks + 200, 0),
                "{suite:?}"
            );
        }
        // Nobody without the key is heard.
        let mut bytes = Phone::new(Codec::Pcmu).say(&[0; 160]);
        pair.legs[0].handle_rtp(pair.now, at(PHONE), &mut bytes);
        assert_eq!(pair.legs[0].drops()[Drop::Srtp as usize], 1);
    }
}

#[test]
fn reports_tell_losses_and_the_round_trip_on_either_port() {
    for (suite, is_muxed) in [
        (None, true),
        (None, false),
        (Some(Suite::AeadAes128Gcm), false),
    ] {
        let mut pair = Pair::new(suite, is_muxed);
        for _ in 0..50 * 16 {
            pair.tick(11);
        }
        for leg in &pair.legs {
            let figures = leg.figures();
            assert!((50..100).contains(&figures.lost), "{figures:?}");
            let there = figures.lost_there.unwrap();
            assert!((40..100).contains(&there), "{figures:?}");
            assert!(figures.round_trip.unwrap() <= FRAME, "{figures:?}");
            assert!(figures.mos < 3.5, "{figures:?}");
        }
    }
    // Goodbye is said.
    let mut pair = Pair::new(None, false);
    pair.tick(0);
    let mut said = Vec::new();
    pair.legs[0].close(|port, to, bytes| said.push((port, to, bytes.to_vec())));
    let [(Port::Rtcp, to, bytes)] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(to.port(), at(PHONE).port() + 1);
    let goodbye =
        Compound::parse(bytes).any(|packet| matches!(packet, Ok(rtcp::Packet::Goodbye(_))));
    assert!(goodbye);
}

#[test]
fn keys_by_dtls_are_refused_and_nothing_flows_before_an_agreement() {
    let mut leg = leg(beginning(), 1);
    leg.handle_rtp(beginning(), at(PHONE), &mut [0x80; 40]);
    assert_eq!(leg.drops()[Drop::Early as usize], 1);
    leg.tick(beginning(), |_, _, _| panic!("nobody is there"));
    let dtls = Agreed {
        keys: Keys::Dtls {
            fingerprint: String::new(),
            active: true,
        },
        ..agreed(Codec::Pcmu)
    };
    assert_eq!(leg.agree(beginning(), &dtls), Err(Unable::Dtls));
    assert!(!leg.press(Key::from_char('1').unwrap()));
}

#[test]
fn any_datagrams_do_no_harm() {
    let mut random = 7_u64;
    let mut byte = move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        random.to_be_bytes()[0]
    };
    for codec in [Codec::Pcmu, Codec::G722, Codec::Opus] {
        let mut call = Call::new(codec);
        for round in 0..4_000_u32 {
            let len = usize::from(byte()) + usize::from(byte());
            let mut bytes: Vec<u8> = (0..len).map(|_| byte()).collect();
            if let [first, second, ..] = &mut bytes[..] {
                *first = 0x80 | (*first & 0x1f);
                let types = [codec.payload_type(), 102, 13, 72, 200, 201];
                *second = types[usize::from(*second) % types.len()];
            }
            if round.is_multiple_of(2) {
                call.leg.handle_rtp(call.now, at(PHONE), &mut bytes);
            } else {
                call.leg.handle_rtcp(call.now, at(PHONE), &mut bytes);
            }
            if round.is_multiple_of(3) {
                call.tick();
            }
        }
    }
}
