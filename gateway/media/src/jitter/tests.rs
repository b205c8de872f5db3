use super::*;

const FRAME: Duration = Duration::from_millis(20);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// A stream of frames with their number as payload: each comes when `arrival` says, in ms after it was made, or never.
struct Line {
    buffer: JitterBuffer,
    start: Instant,
    /// What was heard at each tick: a number, or `None` for what is made up or silent.
    heard: Vec<Option<u32>>,
    silent: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            buffer: JitterBuffer::new(8_000, FRAME),
            start: start(),
            heard: Vec::new(),
            silent: 0,
        }
    }

    /// Sends `count` frames; the phone's clock runs faster than ours by `drift` parts of a million.
    fn run(
        &mut self,
        count: u32,
        drift: i64,
        mut arrival: impl FnMut(u32) -> Option<u64>,
    ) -> &mut Self {
        let made = |number: u32| {
            Duration::from_micros(
                u64::from(number) * u64::try_from(20_000 - drift / 50).expect("small"),
            )
        };
        let mut packets: Vec<(Duration, u32)> = (0..count)
            .filter_map(|number| Some((made(number) + MS(arrival(number)?), number)))
            .collect();
        packets.sort();
        let mut packets = packets.into_iter().peekable();
        let mut out = [0; PAYLOAD_LEN_MAX];
        for tick in 0..count + 30 {
            let now = FRAME * tick + MS(7);
            while let Some((at, number)) = packets.next_if(|(at, _)| *at <= now) {
                let sequence =
                    low_half(usize::try_from(number).expect("small") & 0xffff).wrapping_add(65_500);
                let timestamp = number.wrapping_mul(160).wrapping_sub(1_000);
                self.buffer
                    .push(self.start + at, sequence, timestamp, &number.to_be_bytes());
            }
            match self.buffer.pull(self.start + now, &mut out) {
                Pulled::Frame { len, timestamp } => {
                    let number = u32::from_be_bytes(out[..len].try_into().expect("4 bytes"));
                    assert_eq!(timestamp, number.wrapping_mul(160).wrapping_sub(1_000));
                    self.heard.push(Some(number));
                }
                Pulled::Lost => self.heard.push(None),
                Pulled::Nothing => {
                    self.heard.push(None);
                    self.silent += 1;
                }
            }
        }
        self
    }

    fn numbers(&self) -> Vec<u32> {
        self.heard.iter().flatten().copied().collect()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can't be made from a number; only differences to it are seen"
)]
fn start() -> Instant {
    Instant::now()
}

/// Evenly spread, the same in each run.
fn spread(number: u32, max: u64) -> u64 {
    u64::from(number.wrapping_mul(2_654_435_761) >> 8) % (max + 1)
}

#[test]
fn a_quiet_line_is_heard_whole_and_early() {
    let mut line = Line::new();
    line.run(500, 0, |_| Some(5));
    assert_eq!(line.numbers(), (0..500).collect::<Vec<_>>());
    assert_eq!(
        line.buffer.stats().lost,
        10,
        "the end of the stream, until it is taken for a pause"
    );
    assert_eq!(line.buffer.delay(), DELAY_MIN);
    assert!(line.silent <= 30, "{}", line.silent);
}

#[test]
fn jitter_is_evened_out_once_it_is_known() {
    let mut line = Line::new();
    line.run(3_000, 0, |number| Some(spread(number, 60)));
    let numbers = line.numbers();
    assert!(numbers.is_sorted());
    // After the first second nothing is missing.
    let later: Vec<_> = numbers
        .iter()
        .filter(|number| **number > 50)
        .copied()
        .collect();
    let missed = 2_949 - later.len();
    assert!(missed <= 3, "{missed} {:?}", line.buffer.stats());
    assert!(
        (MS(45)..MS(70)).contains(&line.buffer.delay()),
        "{:?}",
        line.buffer.delay()
    );
}

#[test]
fn what_is_lost_is_told_in_its_place() {
    let mut line = Line::new();
    line.run(300, 0, |number| (number % 10 != 4).then_some(5));
    let numbers = line.numbers();
    assert_eq!(numbers.len(), 270);
    let at = line
        .heard
        .iter()
        .position(|heard| *heard == Some(103))
        .expect("it was heard");
    assert_eq!(line.heard[at..at + 3], [Some(103), None, Some(105)]);
}

#[test]
fn what_comes_twice_or_out_of_order_is_heard_once_and_in_order() {
    let mut buffer = JitterBuffer::new(8_000, FRAME);
    let now = start();
    for sequence in [2, 1, 3, 3, 1] {
        let pushed = buffer.push(
            now,
            sequence,
            u32::from(sequence) * 160,
            &[sequence.to_be_bytes()[1]],
        );
        assert!(matches!(pushed, Pushed::Held | Pushed::Again));
    }
    let mut out = [0; PAYLOAD_LEN_MAX];
    let mut heard = Vec::new();
    for tick in 0..3 {
        if let Pulled::Frame { .. } = buffer.pull(now + FRAME * tick, &mut out) {
            heard.push(out[0]);
        }
    }
    assert_eq!(heard, [1, 2, 3]);
    assert_eq!(buffer.push(now, 2, 320, &[2]), Pushed::Late);
    assert_eq!(buffer.push(now, 9_000, 0, &[9]), Pushed::Restarted);
    assert_eq!(
        buffer.push(now, 9_001, 160, &[0; PAYLOAD_LEN_MAX + 1]),
        Pushed::TooLong
    );
}

#[test]
fn a_line_that_becomes_quiet_is_heard_sooner_again() {
    let mut line = Line::new();
    line.run(3_000, 0, |number| {
        Some(if number < 200 { spread(number, 120) } else { 5 })
    });
    assert_eq!(line.buffer.delay(), DELAY_MIN);
    let stats = line.buffer.stats();
    assert!((2..=8).contains(&stats.left_out), "{stats:?}");
    assert!(line.numbers().is_sorted());
}

#[test]
fn a_pause_of_the_network_ends_in_sound_and_not_in_a_second_of_delay() {
    let mut line = Line::new();
    // All frames of one second come at its end.
    line.run(1_500, 0, |number| {
        Some(if (200..250).contains(&number) {
            u64::from(250 - number) * 20
        } else {
            5
        })
    });
    let numbers = line.numbers();
    assert!(
        numbers.contains(&250) && numbers.contains(&1_499),
        "{:?}",
        line.buffer.stats()
    );
    let heard_at = |number: u32| {
        line.heard
            .iter()
            .position(|heard| *heard == Some(number))
            .expect("it was heard")
    };
    let span = heard_at(1_400) - heard_at(100);
    assert!(span.abs_diff(1_300) <= 14, "{span}");
}

#[test]
fn a_clock_that_runs_fast_or_slow_is_followed_for_hours() {
    for drift in [-300, 300] {
        let mut line = Line::new();
        let count = 100_000;
        line.run(count, drift, |number| Some(spread(number, 10)));
        let stats = line.buffer.stats();
        let heard = u64::try_from(line.numbers().len()).expect("small");
        // 300 parts of a million of 100,000 frames are 30.
        assert!(heard >= u64::from(count) - 60, "{drift}: {stats:?}");
        assert!(
            line.buffer.delay() <= MS(60),
            "{drift}: {:?}",
            line.buffer.delay()
        );
    }
}

#[test]
fn any_packets_in_any_order_are_survived() {
    let mut buffer = JitterBuffer::new(8_000, FRAME);
    let start = start();
    let mut out = [0; PAYLOAD_LEN_MAX];
    let mut random = 1_u64;
    for step in 0..200_000_u32 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let [a, b, c, d, e, ..] = random.to_be_bytes();
        let near = u16::from(a) + low_half(usize::try_from(step / 8).expect("small") & 0xffff);
        let sequence = if e < 4 {
            u16::from_be_bytes([b, c])
        } else {
            near
        };
        let now = start + MS(u64::from(step) * 2);
        buffer.push(
            now,
            sequence,
            u32::from_be_bytes([a, b, c, d]),
            &[d; 9][..usize::from(d % 9)],
        );
        if step % 10 == 0 {
            buffer.pull(now, &mut out);
        }
        let held = buffer
            .slots
            .iter()
            .filter(|slot| slot.sequence.is_some())
            .count();
        assert_eq!(held, buffer.held);
        assert!(buffer.delay() <= DELAY_MAX);
    }
}
