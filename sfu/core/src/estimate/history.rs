//! What was sent and not yet told of: a ring of 16-byte records by transport-wide sequence number.

use std::time::{Duration, Instant};

/// Records held at first, and at most: 2 kB grow to 128 kB only where a fast and long way needs it.
const RECORDS_MIN: usize = 128;
const RECORDS_MAX: usize = 8192;

/// A record older than this is given up: its feedback has been lost.
const AGE_MAX: Duration = Duration::from_secs(4);

/// And so is one that left so long before another that was told of: feedback tells of all since the last one.
const TOLD_AGE_MAX: Duration = Duration::from_millis(500);

/// The most packets one feedback is believed to tell of.
const STATUSES_MAX: usize = RECORDS_MAX;

/// Arrival times wrap where their 24 bits of 64 ms do (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
const ARRIVAL_CYCLE_US: i64 = (1 << 24) * 64_000;

/// One sent packet.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// Microseconds since the history's start.
    sent_us: u64,
    len: u16,
    /// The probe cluster it belongs to, 0 for none.
    cluster: u16,
    state: State,
}

const _: () = assert!(size_of::<Record>() == 16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Empty,
    InFlight,
    Lost,
    Acknowledged,
}

/// A packet whose arrival was reported for the first time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Acknowledged {
    /// When it left, in microseconds since the history's start.
    pub(super) sent_us: u64,
    /// When it arrived, in microseconds of the receiver's clock.
    pub(super) arrived_us: i64,
    pub(super) len: u16,
    pub(super) cluster: u16,
}

/// What one feedback said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Summary {
    /// Packets reported as lost for the first time.
    pub(super) lost: u32,
    /// Their bytes.
    pub(super) lost_bytes: u64,
    /// Of those that arrived, so many had been reported as lost before.
    pub(super) found: u32,
    /// The youngest acknowledged packet left so long ago.
    pub(super) round_trip: Option<Duration>,
    /// Statuses of packets that were never sent: the feedback of a liar, or of another transport.
    pub(super) unknown: u32,
}

/// The ring.
#[derive(Debug)]
pub(super) struct History {
    start: Instant,
    records: Vec<Record>,
    /// The unwrapped number of the next packet.
    next: u64,
    /// What is in flight, in bytes.
    in_flight: u64,
    /// The youngest packet that was told of left then.
    told_us: u64,
    /// The last arrival, unwrapped, in microseconds of the receiver's clock.
    arrival_last: Option<i64>,
    /// What the last feedback acknowledged, by arrival.
    acknowledged: Vec<Acknowledged>,
}

impl History {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            records: vec![Record::default(); RECORDS_MIN],
            next: 1,
            in_flight: 0,
            told_us: 0,
            arrival_last: None,
            acknowledged: Vec::new(),
        }
    }

    /// Writes down a packet that leaves now; returns the number it carries.
    pub(super) fn send(&mut self, now: Instant, len: u16, cluster: u16) -> u16 {
        let sent_us = self.micros(now);
        let sequence = self.next;
        self.next += 1;

        if self.is_young(sequence, sent_us) && self.records.len() < RECORDS_MAX {
            self.grow(sequence);
        }
        let slot = self.slot(sequence);
        self.settle(slot, State::Empty);
        self.records[slot] = Record {
            sent_us,
            len,
            cluster,
            state: State::InFlight,
        };
        self.in_flight += u64::from(len);
        low_bits(sequence)
    }

    /// Takes the statuses of a feedback: the number of each packet and, if it arrived, when, in microseconds of the
    /// receiver's clock (which wraps). Returns what is new, by arrival.
    pub(super) fn handle_feedback(
        &mut self,
        now: Instant,
        statuses: impl Iterator<Item = (u16, Option<i64>)>,
    ) -> (Summary, &[Acknowledged]) {
        self.acknowledged.clear();
        let mut summary = Summary::default();
        let mut sent_last = None;

        for (sequence, arrival) in statuses.take(STATUSES_MAX) {
            // Numbers count back from the next one; what lies further back than the ring is long told of.
            let age = low_bits(self.next).wrapping_sub(sequence);
            if age == 0 || age >= 1 << 15 || u64::from(age) >= self.next {
                summary.unknown += 1;
                continue;
            }
            if usize::from(age) > self.records.len() {
                continue;
            }
            let slot = self.slot(self.next - u64::from(age));
            let record = self.records[slot];
            let is_told = matches!(record.state, State::Empty | State::Acknowledged);
            match arrival {
                _ if is_told => {}
                None if record.state == State::InFlight => {
                    self.settle(slot, State::Lost);
                    summary.lost += 1;
                    summary.lost_bytes += u64::from(record.len);
                }
                None => {}
                Some(arrival) => {
                    summary.found += u32::from(record.state == State::Lost);
                    self.settle(slot, State::Acknowledged);
                    sent_last = sent_last.max(Some(record.sent_us));
                    self.told_us = self.told_us.max(record.sent_us);
                    let arrived_us = self.unwrap_arrival(arrival);
                    self.acknowledged.push(Acknowledged {
                        sent_us: record.sent_us,
                        arrived_us,
                        len: record.len,
                        cluster: record.cluster,
                    });
                }
            }
        }

        let now_us = self.micros(now);
        summary.round_trip =
            sent_last.map(|sent_us| Duration::from_micros(now_us.saturating_sub(sent_us)));
        // By arrival and, within the resolution of the clock, as they were sent.
        self.acknowledged
            .sort_unstable_by_key(|packet| (packet.arrived_us, packet.sent_us));
        (summary, &self.acknowledged)
    }

    /// The packet sent last came out with another length, or, with 0, not at all: then its number is used again. Anything but
    /// the last packet is left alone. Returns the cluster it belongs to and the length it was to have.
    pub(super) fn amend(&mut self, sequence: u16, len: u16) -> Option<(u16, u16)> {
        if low_bits(self.next).wrapping_sub(sequence) != 1 {
            return None;
        }
        let slot = self.slot(self.next - 1);
        let Record {
            cluster,
            len: asked,
            ..
        } = self.records[slot];
        self.settle(slot, State::Empty);
        if len == 0 {
            self.next -= 1;
        } else {
            self.records[slot].len = len;
            self.records[slot].state = State::InFlight;
            self.in_flight += u64::from(len);
        }
        Some((cluster, asked))
    }

    /// What is in flight, in bytes: sent and neither acknowledged nor lost nor out of the ring.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Microseconds since the start.
    pub(super) fn micros(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_micros();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    /// Whether the record that `sequence` would take the place of may still be told of.
    fn is_young(&self, sequence: u64, now_us: u64) -> bool {
        let record = self.records[self.slot(sequence)];
        let age = Duration::from_micros(now_us.saturating_sub(record.sent_us));
        let told_age = Duration::from_micros(self.told_us.saturating_sub(record.sent_us));
        record.state == State::InFlight && age < AGE_MAX && told_age < TOLD_AGE_MAX
    }

    /// Doubles the ring, of which `next` is the first number that is not in it.
    fn grow(&mut self, next: u64) {
        let old = std::mem::take(&mut self.records);
        let len = old.len();
        self.records = vec![Record::default(); len * 2];
        for back in 1..=len as u64 {
            let Some(sequence) = next.checked_sub(back) else {
                break;
            };
            let slot = self.slot(sequence);
            self.records[slot] = old[slot & (len - 1)];
        }
    }

    fn settle(&mut self, slot: usize, state: State) {
        let record = &mut self.records[slot];
        if record.state == State::InFlight {
            self.in_flight -= u64::from(record.len);
        }
        record.state = state;
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the bits below the ring's length are kept"
    )]
    fn slot(&self, sequence: u64) -> usize {
        sequence as usize & (self.records.len() - 1)
    }

    /// The arrival nearest to the last one.
    fn unwrap_arrival(&mut self, arrival: i64) -> i64 {
        let arrival = arrival.rem_euclid(ARRIVAL_CYCLE_US);
        let last = self.arrival_last.unwrap_or(arrival);
        let step = arrival.wrapping_sub(last).rem_euclid(ARRIVAL_CYCLE_US);
        let step = if step > ARRIVAL_CYCLE_US / 2 {
            step - ARRIVAL_CYCLE_US
        } else {
            step
        };
        let arrived = last.saturating_add(step);
        self.arrival_last = Some(arrived);
        arrived
    }
}

#[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
fn low_bits(sequence: u64) -> u16 {
    sequence as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test::start;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_acknowledged_packet_is_told_once_with_its_times() {
        let now = start();
        let mut history = History::new(now);
        let first = history.send(now + 10 * MS, 1200, 0);
        let second = history.send(now + 11 * MS, 800, 7);
        assert_eq!((second.wrapping_sub(first), history.in_flight()), (1, 2000));

        let statuses = [(first, Some(500_000)), (second, Some(501_000))];
        let (summary, packets) = history.handle_feedback(now + 60 * MS, statuses.into_iter());
        assert_eq!(summary.round_trip, Some(49 * MS));
        assert_eq!(packets.len(), 2);
        assert_eq!(
            packets[1],
            Acknowledged {
                sent_us: 11_000,
                arrived_us: 501_000,
                len: 800,
                cluster: 7
            }
        );
        let (summary, packets) = history.handle_feedback(now + 61 * MS, statuses.into_iter());
        assert_eq!((summary, packets.len()), (Summary::default(), 0));
        assert_eq!(history.in_flight(), 0);
    }

    #[test]
    fn a_packet_that_was_late_and_not_lost_is_found() {
        let now = start();
        let mut history = History::new(now);
        let sent = history.send(now, 1200, 0);
        let (summary, _) = history.handle_feedback(now, [(sent, None)].into_iter());
        assert_eq!((summary.lost, summary.found), (1, 0));
        let (summary, _) = history.handle_feedback(now, [(sent, None)].into_iter());
        assert_eq!(summary.lost, 0);
        let (summary, packets) = history.handle_feedback(now, [(sent, Some(5))].into_iter());
        assert_eq!((summary.found, packets.len()), (1, 1));
    }

    #[test]
    fn what_was_never_sent_is_not_believed() {
        let now = start();
        let mut history = History::new(now);
        let sent = history.send(now, 1200, 0);
        let lies = [
            sent.wrapping_add(1),
            sent.wrapping_add(2),
            40_000,
            sent.wrapping_sub(1),
            60_000,
        ];
        let (summary, packets) =
            history.handle_feedback(now, lies.into_iter().map(|lie| (lie, Some(0))));
        assert_eq!((summary.unknown, packets.len()), (5, 0));
        assert_eq!(history.in_flight(), 1200);
    }

    #[test]
    fn the_ring_grows_while_all_of_it_is_in_flight_and_no_further_than_its_limit() {
        let now = start();
        let mut history = History::new(now);
        let first = history.send(now, 100, 0);
        for _ in 0..1000 {
            history.send(now, 100, 0);
        }
        let (_, packets) = history.handle_feedback(now, [(first, Some(0))].into_iter());
        assert_eq!(packets.len(), 1, "still known");
        for _ in 0..100_000 {
            history.send(now, 100, 0);
        }
        assert_eq!(history.records.len(), RECORDS_MAX);
        assert_eq!(history.in_flight(), 100 * RECORDS_MAX as u64);
    }

    #[test]
    fn the_last_packet_may_come_out_shorter_or_not_at_all() {
        let now = start();
        let mut history = History::new(now);
        let first = history.send(now, 1200, 0);
        let second = history.send(now, 1200, 0);
        history.amend(first, 0);
        assert_eq!(history.in_flight(), 2400, "not the last");
        history.amend(second, 300);
        assert_eq!(history.in_flight(), 1500);
        history.amend(second, 0);
        assert_eq!(history.in_flight(), 1200);
        assert_eq!(history.send(now, 100, 0), second);
    }

    #[test]
    fn arrival_times_wrap() {
        let now = start();
        let mut history = History::new(now);
        let sent: Vec<u16> = (0..3).map(|_| history.send(now, 1, 0)).collect();
        let arrivals = [ARRIVAL_CYCLE_US - 1000, 500, ARRIVAL_CYCLE_US - 400];
        let statuses = sent.into_iter().zip(arrivals.map(Some));
        let (_, packets) = history.handle_feedback(now, statuses);
        let at: Vec<i64> = packets
            .iter()
            .map(|p| p.arrived_us - packets[0].arrived_us)
            .collect();
        assert_eq!(at, [0, 600, 1500]);
    }

    proptest! {
        #[test]
        fn no_feedback_breaks_the_count_of_what_is_in_flight(
            steps in prop::collection::vec((0_u16..400, any::<u16>(), prop::option::of(any::<i64>()), 0_u64..100), 1..100),
        ) {
            let mut now = start();
            let mut history = History::new(now);
            for (sends, base, arrival, millis) in steps {
                now += MS * u32::try_from(millis).unwrap();
                for _ in 0..sends {
                    history.send(now, 1000, 0);
                }
                let near = low_bits(history.next).wrapping_sub(base % 600);
                let statuses = (0..50).map(|k| (near.wrapping_add(k), arrival.map(|at| at.saturating_add(i64::from(k)))));
                history.handle_feedback(now, statuses);
                let held = history.records.iter().filter(|r| r.state == State::InFlight).count();
                prop_assert_eq!(history.in_flight(), held as u64 * 1000);
            }
        }
    }
}
