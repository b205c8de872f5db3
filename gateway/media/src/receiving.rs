//! What a Leg hears: packets become frames of 20 ms.
//!
//! ```text
//! packet ─▶ jitter ─▶ Decoder ─▶ Fifo ─▶ frame
//!    │         └ lost ─▶ concealment ┘
//!    └ keys ─▶ told at once             └ silence ─▶ comfort noise
//! ```

use std::time::{Duration, Instant};

use gateway_sip::negotiate::{Agreed, Codec};
use sfu_rtp::packet::Packet;
use sfu_rtp::rtcp::{NtpTime, ReportBlock};

use crate::codec::{self, Decoder, frame_len};
use crate::comfort_noise::{Description, Generator};
use crate::dtmf::{self, Key};
use crate::fifo::Fifo;
use crate::jitter::{JitterBuffer, PAYLOAD_LEN_MAX, Pulled, Pushed, Stats};
use crate::reception::Reception;
use crate::{COMFORT_NOISE_PAYLOAD_TYPE, FRAME};

/// How often the length of packets may change until another description comes: each time what waits is lost.
const LENGTHS_MAX: u32 = 16;

/// How many packets of another length in a row it takes.
const LENGTHS_NEEDED: u32 = 3;

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sound(Codec),
    Key,
    Noise,
}

/// What there is to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A frame of so many samples a second.
    Frame(u32),
    /// Nothing.
    Nothing,
}

/// What came of one side, as it is agreed on.
#[derive(Debug)]
pub(crate) struct Receiving {
    receiving: Vec<(u8, Codec)>,
    dtmf: Option<u8>,
    comfort_noise: bool,
    clock_rate: u32,
    began: Instant,
    ssrc: Option<u32>,
    /// Number and timestamp of the last packet of sound.
    last: Option<(u16, u32)>,
    jitter: JitterBuffer,
    /// How long the sound of a packet is, in 1/8,000 s; how many packets in a row had another length; and how often it changed.
    length: usize,
    other_lengths: u32,
    lengths: u32,
    decoder: Option<(Codec, Decoder)>,
    fifo: Fifo,
    noise: Generator,
    is_noise: bool,
    keys: dtmf::Receiver,
    reception: Reception,
    /// What was counted by buffers that were let go.
    stats: Stats,
}

impl Receiving {
    pub(crate) fn new(now: Instant, seed: u64) -> Self {
        Self {
            receiving: Vec::new(),
            dtmf: None,
            comfort_noise: false,
            clock_rate: 8_000,
            began: now,
            ssrc: None,
            last: None,
            jitter: JitterBuffer::new(8_000, FRAME),
            length: 160,
            other_lengths: 0,
            lengths: 0,
            decoder: None,
            fifo: Fifo::new(0),
            noise: Generator::new(seed),
            is_noise: false,
            keys: dtmf::Receiver::default(),
            reception: Reception::new(8_000),
            stats: Stats::default(),
        }
    }

    pub(crate) fn agree(&mut self, agreed: &Agreed) {
        let clock_rate = agreed.codec.clock_rate();
        if self.clock_rate != clock_rate {
            self.clock_rate = clock_rate;
            self.reception = Reception::new(clock_rate);
            self.renew_jitter();
        }
        self.receiving.clone_from(&agreed.receiving);
        self.dtmf = agreed.dtmf.map(|(_, theirs)| theirs);
        self.comfort_noise = agreed.comfort_noise;
        self.lengths = 0;
    }

    /// What a payload type stands for; `None` for one that was not agreed on.
    pub(crate) fn kind(&self, payload_type: u8) -> Option<Kind> {
        if Some(payload_type) == self.dtmf {
            return Some(Kind::Key);
        }
        if payload_type == COMFORT_NOISE_PAYLOAD_TYPE && self.comfort_noise {
            return Some(Kind::Noise);
        }
        let codec = self.receiving.iter().find(|(own, _)| *own == payload_type);
        codec.map(|(_, codec)| Kind::Sound(*codec))
    }

    pub(crate) fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// Nothing that waits is to be heard.
    pub(crate) fn restart(&mut self) {
        self.jitter.restart();
        self.fifo.clear();
        self.is_noise = false;
    }

    /// Takes a packet, or but notes one that goes on as it is; returns a key that was pressed.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        kind: Kind,
        packet: &Packet<'_>,
        goes_on: bool,
    ) -> Option<Key> {
        let header = packet.header();
        let (sequence, timestamp) = (header.sequence_number(), header.timestamp());
        if self.ssrc.replace(header.ssrc()) != Some(header.ssrc()) {
            self.keys.reset();
            self.reception = Reception::new(self.clock_rate);
            self.last = None;
            self.jitter.restart();
        }
        let since = now.saturating_duration_since(self.began);
        let payload = packet.payload();
        if payload.len() >= PAYLOAD_LEN_MAX {
            return None;
        }
        let mut key = None;
        let made_at = match kind {
            Kind::Sound(codec) => {
                if !goes_on {
                    self.measure(codec, payload);
                }
                self.last = Some((sequence, timestamp));
                timestamp
            }
            Kind::Noise => timestamp,
            Kind::Key => {
                key = self.keys.handle(timestamp, payload);
                // All packets of a press have the timestamp of its beginning; when each was made tell those around it.
                self.last.map_or(timestamp, |(number, at)| {
                    let frames = u32::from(sequence.wrapping_sub(number));
                    at.wrapping_add(frames.wrapping_mul(self.clock_rate / 50))
                })
            }
        };
        self.reception.note(since, sequence, made_at);
        if goes_on {
            return key;
        }
        let mut stored = [0; PAYLOAD_LEN_MAX];
        let len = 1 + payload.len();
        stored[0] = header.payload_type();
        stored[1..len].copy_from_slice(payload);
        if self.jitter.push(now, sequence, made_at, &stored[..len]) == Pushed::Restarted {
            self.keys.reset();
        }
        key
    }

    pub(crate) fn handle_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.reception.handle_sender_report(now, ntp);
    }

    pub(crate) fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        self.reception.report(now, self.ssrc?)
    }

    /// How many packets came, how many were lost on their way, and how evenly they came.
    pub(crate) fn sums(&self) -> (u64, u64, Duration) {
        self.reception.sums()
    }

    /// What became of the frames.
    pub(crate) fn stats(&self) -> Stats {
        let now = self.jitter.stats();
        Stats {
            heard: self.stats.heard + now.heard,
            lost: self.stats.lost + now.lost,
            late: self.stats.late + now.late,
            left_out: self.stats.left_out + now.left_out,
        }
    }

    /// The frame of the next 20 ms, in the beginning of `out`.
    pub(crate) fn pull(&mut self, now: Instant, out: &mut [i16; crate::FRAME_LEN_MAX]) -> Heard {
        let mut payload = [0; PAYLOAD_LEN_MAX];
        // A packet may be as short as 5 ms.
        for _ in 0..4 {
            if self.fifo.len() >= self.frame() {
                break;
            }
            match self.jitter.pull(now, &mut payload) {
                Pulled::Frame { len, .. } => self.play(&payload[..len]),
                Pulled::Lost => self.make_up(),
                Pulled::Nothing => break,
            }
        }
        let Some((codec, _)) = &self.decoder else {
            return Heard::Nothing;
        };
        let rate = codec.sample_rate();
        let frame = &mut out[..frame_len(rate)];
        if self.fifo.take(frame) {
            return Heard::Frame(rate);
        }
        if self.is_noise {
            self.noise.fill(frame);
            return Heard::Frame(rate);
        }
        // The end of what was said, without a click in the middle of it.
        let left = self.fifo.len();
        if left > 0 {
            self.fifo.take(&mut frame[..left]);
            frame[left..].fill(0);
            return Heard::Frame(rate);
        }
        Heard::Nothing
    }

    fn frame(&self) -> usize {
        self.decoder
            .as_ref()
            .map_or(1, |(codec, _)| frame_len(codec.sample_rate()))
    }

    fn play(&mut self, stored: &[u8]) {
        let Some((payload_type, payload)) = stored.split_first() else {
            return;
        };
        match self.kind(*payload_type) {
            Some(Kind::Sound(codec)) => {
                self.is_noise = false;
                self.use_decoder(codec);
                if let Some((_, decoder)) = &mut self.decoder {
                    self.fifo.push_with(|room| decoder.decode(payload, room));
                }
            }
            Some(Kind::Noise) => {
                if let Some(description) = Description::parse(payload) {
                    self.noise.describe(description);
                    self.is_noise = true;
                }
            }
            // What is heard of a key is not for people.
            Some(Kind::Key) => {
                let len = self.length_of_packet();
                self.fifo.push_with(|room| {
                    let len = len.min(room.len());
                    room[..len].fill(0);
                    len
                });
            }
            // Agreed on no longer.
            None => self.make_up(),
        }
    }

    fn make_up(&mut self) {
        if self.is_noise {
            return;
        }
        let len = self.length_of_packet();
        if let Some((_, decoder)) = &mut self.decoder {
            self.fifo.push_with(|room| {
                let len = len.min(room.len());
                decoder.conceal(&mut room[..len]);
                len
            });
        }
    }

    /// In samples.
    fn length_of_packet(&self) -> usize {
        let rate = self.decoder.as_ref().map(|(codec, _)| codec.sample_rate());
        let times = rate.map_or(1, |rate| rate / 8_000);
        self.length * usize::try_from(times).unwrap_or(1)
    }

    fn use_decoder(&mut self, codec: Codec) {
        if self.decoder.as_ref().is_some_and(|(own, _)| *own == codec) {
            return;
        }
        self.decoder = Decoder::new(codec).map(|decoder| (codec, decoder));
        // 120 ms, the longest packet, and a frame that was not taken whole.
        self.fifo = Fifo::new(frame_len(codec.sample_rate()) * 7);
    }

    /// Finds out how long packets are: the buffer holds back so many of them.
    fn measure(&mut self, codec: Codec, payload: &[u8]) {
        let Some(length) = codec::duration(codec, payload).filter(|len| *len <= 960) else {
            return;
        };
        if length == self.length {
            self.other_lengths = 0;
            return;
        }
        self.other_lengths += 1;
        let begins = self.last.is_none();
        if (begins || self.other_lengths >= LENGTHS_NEEDED) && self.lengths < LENGTHS_MAX {
            self.lengths += 1;
            self.other_lengths = 0;
            self.length = length;
            self.renew_jitter();
        }
    }

    fn renew_jitter(&mut self) {
        self.stats = self.stats();
        let micros = u64::try_from(self.length).unwrap_or(160) * 125;
        let frame = Duration::from_micros(micros).max(Duration::from_millis(10));
        self.jitter = JitterBuffer::new(self.clock_rate, frame);
    }
}
