//! Media that no encoder made: valid in all a server looks at, and stamped with the moment it was sent.
//!
//! ```text
//! video   VP8 descriptor │ frame header (first packet) │ filling │ magic, nanoseconds
//! audio   table of contents of Opus                    │ filling │ magic, nanoseconds
//! ```
//!
//! A camera that shows a [`Film`] sends its frames instead; only the last packet of each has a stamp, which no decoder reads.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::film::Film;

/// How long a key frame is followed by others, unless one is asked for.
const KEY_FRAME_EVERY: Duration = Duration::from_secs(4);

/// Packets of a frame.
pub(crate) const FRAME_PACKETS: usize = 5;

/// How often a camera makes a frame: with [`VIDEO_PACKET_LEN`] it comes to 1.2 Mbit/s.
pub(crate) const FRAME_INTERVAL: Duration = Duration::from_millis(40);

/// Bytes of a packet of video: RTP with its header, before it is sealed.
pub(crate) const VIDEO_PACKET_LEN: usize = 1200;

/// How often a microphone sends.
pub(crate) const AUDIO_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of a payload of Opus: about 32 kbit/s.
const AUDIO_PAYLOAD_LEN: usize = 80;

/// A full band packet of 20 ms, mono (RFC 6716 §3.1).
const OPUS_TOC: u8 = 0x78;

/// Behind these bytes a packet tells when it was sent.
const MAGIC: [u8; 8] = *b"offhook\0";

const STAMP_LEN: usize = MAGIC.len() + 8;

/// Bytes of the descriptor before each payload.
const DESCRIPTOR_LEN: usize = 6;

/// The level of a microphone into which somebody speaks has this bit (RFC 6464 §3).
pub(crate) const VOICE: u8 = 0x80;

/// The moment from which stamps count.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the first call in this process, by the monotonic clock.
pub(crate) fn clock() -> u64 {
    u64::try_from(BEGINNING.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// How long ago a payload was stamped; `None` where it has no stamp.
pub(crate) fn age(payload: &[u8], now: u64) -> Option<Duration> {
    let (magic, time) = payload.last_chunk::<STAMP_LEN>()?.split_at(MAGIC.len());
    let time = u64::from_be_bytes(time.try_into().ok()?);
    (magic == MAGIC).then(|| Duration::from_nanos(now.saturating_sub(time)))
}

fn stamp(payload: &mut [u8], now: u64) {
    if let Some(end) = payload.last_chunk_mut::<STAMP_LEN>() {
        end[..MAGIC.len()].copy_from_slice(&MAGIC);
        end[MAGIC.len()..].copy_from_slice(&now.to_be_bytes());
    }
}

/// What one encoding of a camera sends, frame by frame.
#[derive(Debug, Clone)]
pub(crate) struct Camera {
    size: (u16, u16),
    /// Packets of a frame.
    packets: usize,
    payload_len: usize,
    picture_id: u16,
    is_key_frame: bool,
    key_frame_at: Option<Instant>,
    is_asked: bool,
    film: Option<Shown>,
}

/// A film, and where it is.
#[derive(Debug, Clone)]
struct Shown {
    film: Arc<Film>,
    frame: usize,
    /// Since the last frame.
    beats: usize,
}

impl Camera {
    /// One that sends 1.2 Mbit/s of pictures of 1280 by 720, in packets whose payload has `payload_len` bytes.
    pub(crate) fn new(payload_len: usize) -> Self {
        Self::small((1280, 720), FRAME_PACKETS, payload_len)
    }

    /// One of another size, and so many packets a frame.
    pub(crate) fn small(size: (u16, u16), packets: usize, payload_len: usize) -> Self {
        Self {
            size,
            packets,
            payload_len,
            picture_id: 0,
            is_key_frame: false,
            key_frame_at: None,
            is_asked: false,
            film: None,
        }
    }

    /// One that shows a film, in packets whose payload has at most `payload_len` bytes.
    pub(crate) fn film(film: Arc<Film>, payload_len: usize) -> Self {
        // Its first frame is the one behind the last, and due at once.
        let shown = Shown {
            frame: film.len() - 1,
            beats: film.beats(),
            film,
        };
        Self {
            film: Some(shown),
            ..Self::small((0, 0), 0, payload_len)
        }
    }

    /// Somebody needs a key frame.
    pub(crate) fn ask_for_key_frame(&mut self) {
        self.is_asked = true;
    }

    /// Begins the next frame and returns how many packets it has; of a film that stands still, none.
    pub(crate) fn next_frame(&mut self, now: Instant) -> usize {
        if let Some(shown) = &mut self.film {
            shown.beats += 1;
            if shown.beats <= shown.film.beats() {
                return 0;
            }
            shown.beats = 1;
            shown.frame = match self.is_asked {
                true => 0, // The one key frame there is.
                false => (shown.frame + 1) % shown.film.len(),
            };
            self.is_asked = false;
            self.picture_id = (self.picture_id + 1) & 0x7FFF;
            let len = shown.film.frame(shown.frame).len();
            return len.div_ceil(self.payload_len - DESCRIPTOR_LEN);
        }
        self.picture_id = (self.picture_id + 1) & 0x7FFF;
        self.is_key_frame = self.is_asked || self.key_frame_at.is_none_or(|at| at <= now);
        if self.is_key_frame {
            self.key_frame_at = Some(now + KEY_FRAME_EVERY);
            self.is_asked = false;
        }
        self.packets
    }

    /// The payload of a packet of the frame (RFC 7741 §4.2), with a long picture id and one temporal layer, as browsers have
    /// them, and for the first packet the header of the frame (RFC 6386 §9.1).
    pub(crate) fn payload(&self, packet: usize) -> Vec<u8> {
        let is_first = packet == 0;
        let [id_high, id_low] = (self.picture_id | 0x8000).to_be_bytes();
        let mut payload = Vec::with_capacity(self.payload_len);
        payload.extend([0x80 | u8::from(is_first) << 4, 0xE0, id_high, id_low]);
        payload.extend([id_low, 0x20]);
        if let Some(shown) = &self.film {
            let room = self.payload_len - DESCRIPTOR_LEN;
            let frame = shown.film.frame(shown.frame);
            let rest = frame.get(packet * room..).unwrap_or_default();
            payload.extend(rest.iter().take(room));
            // Behind a frame's end, where there is room.
            if rest.len() + STAMP_LEN <= room {
                payload.resize(payload.len() + STAMP_LEN, 0);
                stamp(&mut payload, clock());
            }
            return payload;
        }
        let [w0, w1] = self.size.0.to_le_bytes();
        let [h0, h1] = self.size.1.to_le_bytes();
        match (is_first, self.is_key_frame) {
            (true, true) => payload.extend([0x10, 2, 0, 0x9D, 1, 0x2A, w0, w1, h0, h1]),
            (true, false) => payload.extend([0x11, 2, 0]),
            (false, _) => {}
        }
        payload.resize(self.payload_len, 0xAA);
        stamp(&mut payload, clock());
        payload
    }
}

/// A payload of speech.
pub(crate) fn speech() -> Vec<u8> {
    let mut payload = vec![0x55; AUDIO_PAYLOAD_LEN];
    payload[0] = OPUS_TOC;
    stamp(&mut payload, clock());
    payload
}

/// How loud the microphone with this number is at its packet number `packet`, as the header extension has it (RFC 6464): people
/// speak for two seconds in twenty, one after the other, and the room is never quite still.
pub(crate) fn level(number: usize, packet: u64) -> u8 {
    const TURN: u64 = 100;
    const TURNS: u64 = 10;

    let turn = packet / TURN + number as u64;
    let flutter = u8::try_from(packet % 7).unwrap_or(0);
    match turn % TURNS {
        0 => VOICE | (20 + flutter),
        _ => 100 + flutter,
    }
}

/// The next moment of a beat behind `now`. What was missed is not made up for, for that would come as a burst, and who beats apart
/// from others stays so.
pub(crate) fn next_beat(due: Instant, interval: Duration, now: Instant) -> Instant {
    let missed = now.saturating_duration_since(due).as_nanos() / interval.as_nanos();
    due + interval * u32::try_from(missed + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use sfu_rtp::payload::{opus, vp8};

    use super::*;

    #[test]
    fn a_frame_is_what_a_server_takes_for_vp8() {
        let mut camera = Camera::new(1000);
        let start = Instant::now();
        assert_eq!(camera.next_frame(start), FRAME_PACKETS);
        let first = camera.payload(0);
        let descriptor = vp8::Descriptor::parse(&first).unwrap();
        assert!(descriptor.is_key_frame && descriptor.is_start_of_picture());
        assert_eq!(vp8::dimensions(&first), Some((1280, 720)));
        assert_eq!(descriptor.picture_id.map(|id| id.value), Some(1));
        let second = camera.payload(1);
        assert_eq!((first.len(), second.len()), (1000, 1000));
        assert!(
            !vp8::Descriptor::parse(&second)
                .unwrap()
                .is_start_of_picture()
        );

        let is_key_frame = |camera: &mut Camera, after: u64| {
            camera.next_frame(start + Duration::from_secs(after));
            vp8::Descriptor::parse(&camera.payload(0))
                .unwrap()
                .is_key_frame
        };
        assert!(!is_key_frame(&mut camera, 1));
        camera.ask_for_key_frame();
        assert!(is_key_frame(&mut camera, 2));
        assert!(
            !is_key_frame(&mut camera, 5),
            "four seconds from the last one on"
        );
        assert!(is_key_frame(&mut camera, 6));
    }

    #[test]
    fn a_film_is_cut_into_packets_and_begins_anew_for_who_asks() {
        let frames: [&[u8]; 2] = [&[0x10; 250], &[0x11; 90]];
        let film = Film::of_pictures(2, &frames.map(<[u8]>::to_vec));
        let mut camera = Camera::film(Arc::new(film), 100 + DESCRIPTOR_LEN);
        let now = Instant::now();
        let show = |camera: &mut Camera| -> Vec<Vec<u8>> {
            let count = camera.next_frame(now);
            (0..count).map(|packet| camera.payload(packet)).collect()
        };

        let first = show(&mut camera);
        let lens: Vec<usize> = first.iter().map(Vec::len).collect();
        assert_eq!(lens, [106, 106, 50 + DESCRIPTOR_LEN + STAMP_LEN]);
        let whole: Vec<u8> = first
            .iter()
            .flat_map(|payload| &payload[6..])
            .copied()
            .collect();
        assert_eq!(whole[..250], [0x10; 250]);
        assert!(age(&first[2], clock()).is_some() && age(&first[1], clock()).is_none());
        let descriptor = vp8::Descriptor::parse(&first[0]).unwrap();
        assert!(descriptor.is_key_frame && descriptor.is_start_of_picture());

        assert!(show(&mut camera).is_empty(), "it stands for two beats");
        let second = show(&mut camera);
        assert_eq!(second.len(), 1, "no room for a stamp");
        assert_eq!(second[0].len(), 90 + DESCRIPTOR_LEN);
        camera.ask_for_key_frame();
        assert!(show(&mut camera).is_empty());
        assert_eq!(show(&mut camera).len(), 3);
    }

    #[test]
    fn a_payload_tells_when_it_was_sent() {
        let before = clock();
        let payload = speech();
        assert!(opus::Toc::parse(&payload).is_some());
        assert!(age(&payload, before + 5_000_000_000).unwrap() <= Duration::from_secs(5));
        assert!(age(&payload, clock()).unwrap() < Duration::from_secs(60));
        assert_eq!(age(&payload[..40], clock()), None);
        assert_eq!(age(b"short", clock()), None);
    }

    #[test]
    fn a_beat_that_was_missed_is_left_out() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let next = |now| next_beat(start, FRAME_INTERVAL, at(now));
        assert_eq!(
            [next(0), next(39), next(40), next(95)],
            [at(40), at(40), at(80), at(120)]
        );
    }

    #[test]
    fn somebody_speaks_at_any_time_and_nobody_for_ever() {
        let speaks = |number, packet| level(number, packet) & 0x80 != 0;
        for packet in (0..2000).step_by(50) {
            assert_eq!((0..10).filter(|number| speaks(*number, packet)).count(), 1);
        }
        assert_eq!((0..1000).filter(|packet| speaks(3, *packet)).count(), 100);
    }
}
