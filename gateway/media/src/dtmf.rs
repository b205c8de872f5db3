//! Keys pressed during a call, as events in RTP (RFC 4733).
//!
//! An event is a run of packets with one timestamp and growing durations; its end is told three times. Any of them may be lost, the marker
//! bit may be missing, and the end may never come: a press is told once, whatever arrives of it.

/// The length of a payload, in bytes.
pub const PAYLOAD_LEN: usize = 4;

/// How often the end of an event is told (RFC 4733 §2.5.1.4).
const ENDS: u8 = 3;

/// The loudness that is told, in dB below full scale.
const VOLUME: u8 = 10;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u8);

impl Key {
    const CHARS: &'static [u8; 16] = b"0123456789*#ABCD";

    /// The key of a character: a digit, `*`, `#` or `A` to `D`.
    #[must_use]
    pub fn from_char(char: char) -> Option<Self> {
        let upper = char.to_ascii_uppercase();
        let at = Self::CHARS
            .iter()
            .position(|known| char::from(*known) == upper)?;
        u8::try_from(at).ok().map(Self)
    }

    /// The key of an event's number; events beyond the keys (fax tones and their like) are none.
    #[must_use]
    pub fn from_event(event: u8) -> Option<Self> {
        (usize::from(event) < Self::CHARS.len()).then_some(Self(event))
    }

    /// The character.
    #[must_use]
    pub fn char(self) -> char {
        char::from(Self::CHARS[usize::from(self.0)])
    }

    /// The number of the event.
    #[must_use]
    pub fn event(self) -> u8 {
        self.0
    }
}

/// What a payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The number of the event.
    pub event: u8,
    /// The event is over.
    pub end: bool,
    /// In dB below full scale.
    pub volume: u8,
    /// For how long it lasts by now, in ticks of the RTP clock.
    pub duration: u16,
}

impl Event {
    /// Reads a payload; `None` for one that is too short. What follows the first event is left out.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let [event, flags, high, low, ..] = *payload else {
            return None;
        };
        Some(Self {
            event,
            end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration: u16::from_be_bytes([high, low]),
        })
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> [u8; PAYLOAD_LEN] {
        let [high, low] = self.duration.to_be_bytes();
        [
            self.event,
            u8::from(self.end) << 7 | (self.volume & 0x3f),
            high,
            low,
        ]
    }
}

/// Hears presses.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    /// The timestamp of the last event that was told.
    last: Option<u32>,
}

impl Receiver {
    /// A packet came; returns a key when it is the first of its press. Packets of a press that come late, again or without a
    /// marker tell nothing new, and neither do those of events that are no keys.
    pub fn handle(&mut self, timestamp: u32, payload: &[u8]) -> Option<Key> {
        let event = Event::parse(payload)?;
        let key = Key::from_event(event.event)?;
        // What is not after the last one, in the circle of 32 bits, is late.
        let is_new = self.last.is_none_or(|last| {
            let ahead = timestamp.wrapping_sub(last);
            ahead != 0 && ahead < 1 << 31
        });
        if is_new {
            self.last = Some(timestamp);
        }
        is_new.then_some(key)
    }

    /// Another stream begins: its timestamps have nothing to do with those before.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

/// A packet of an event that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The marker bit: the first of its event.
    pub marker: bool,
    /// The timestamp: that of the beginning, for all packets of an event.
    pub timestamp: u32,
    /// The payload.
    pub payload: [u8; PAYLOAD_LEN],
}

/// Sends one press: a packet for each frame, in place of sound.
#[derive(Debug, Clone)]
pub struct Sender {
    key: Key,
    timestamp: u32,
    /// In ticks, of one frame and of the press.
    frame: u16,
    duration: u16,
    sent: u16,
    ends: u8,
    first: bool,
}

impl Sender {
    /// A press of `duration` ticks that begins at `timestamp`; `frame` is the ticks between two packets. It lasts at least one
    /// frame.
    #[must_use]
    pub fn new(key: Key, timestamp: u32, frame: u16, duration: u16) -> Self {
        let frame = frame.max(1);
        Self {
            key,
            timestamp,
            frame,
            duration: duration.max(frame),
            sent: 0,
            ends: 0,
            first: true,
        }
    }

    /// The packet of the next frame; `None` when the end was told often enough.
    pub fn next_packet(&mut self) -> Option<Packet> {
        if self.ends == ENDS {
            return None;
        }
        self.sent = self.sent.saturating_add(self.frame).min(self.duration);
        let end = self.sent == self.duration;
        self.ends += u8::from(end);
        let event = Event {
            event: self.key.event(),
            end,
            volume: VOLUME,
            duration: self.sent,
        };
        let marker = std::mem::take(&mut self.first);
        Some(Packet {
            marker,
            timestamp: self.timestamp,
            payload: event.payload(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(char: char, timestamp: u32) -> Vec<Packet> {
        let key = Key::from_char(char).expect("a key");
        let mut sender = Sender::new(key, timestamp, 160, 800);
        std::iter::from_fn(|| sender.next_packet()).collect()
    }

    fn heard<'a>(packets: impl IntoIterator<Item = &'a Packet>) -> String {
        let mut receiver = Receiver::default();
        packets
            .into_iter()
            .filter_map(|packet| receiver.handle(packet.timestamp, &packet.payload))
            .map(Key::char)
            .collect()
    }

    #[test]
    fn a_press_is_sent_frame_by_frame_and_its_end_three_times() {
        let packets = press('5', 1_000);
        let read = |packet: &Packet| {
            let event = Event::parse(&packet.payload).expect("4 bytes");
            (
                packet.marker,
                packet.timestamp,
                event.event,
                event.duration,
                event.end,
            )
        };
        let got: Vec<_> = packets.iter().map(read).collect();
        let expected = [
            (true, 1_000, 5, 160, false),
            (false, 1_000, 5, 320, false),
            (false, 1_000, 5, 480, false),
            (false, 1_000, 5, 640, false),
            (false, 1_000, 5, 800, true),
            (false, 1_000, 5, 800, true),
            (false, 1_000, 5, 800, true),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn presses_are_heard_once_whatever_is_lost_of_them() {
        let keys = "0123456789*#ABCD";
        let presses: Vec<_> = keys
            .chars()
            .zip(0..)
            .map(|(key, at)| press(key, (at * 1_600_u32).wrapping_sub(5_000)))
            .collect();
        assert_eq!(heard(presses.iter().flatten()), keys);
        for kept in 0..7 {
            assert_eq!(
                heard(presses.iter().map(|press| &press[kept])),
                keys,
                "only packet {kept} of each"
            );
        }
        // The same key twice is two presses; late packets of the first are none.
        let twice = [press('7', 0), press('7', 1_600), press('7', 0)].concat();
        assert_eq!(heard(&twice), "77");
    }

    #[test]
    fn what_is_no_key_is_not_heard() {
        let mut receiver = Receiver::default();
        for payload in [&[][..], &[5, 0, 0], &[16, 0, 0, 0], &[255, 0x80, 1, 1]] {
            assert_eq!(receiver.handle(1, payload), None);
        }
        assert_eq!(
            receiver.handle(1, &[11, 0, 0, 0, 9, 9]),
            Key::from_char('#')
        );
        receiver.reset();
        assert_eq!(receiver.handle(0, &[12, 0, 0, 0]), Key::from_char('a'));
        assert_eq!(Key::from_char('E'), None);
    }
}
