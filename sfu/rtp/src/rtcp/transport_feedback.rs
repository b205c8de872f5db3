//! When packets of a transport arrived (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
//!
//! A feedback packet has a status for each sequence number from a base on: not received, or received with a delta of one
//! or two bytes in units of 250 µs. Statuses are packed into chunks of 16 bits: a run of one status, or a vector of 14 of
//! one bit or 7 of two bits. Then come the deltas.

use crate::bytes::{low_u8, low_u16, low_u24, low_u32, u16_at};
use crate::rtcp::word;
use crate::{BufferTooSmall, DecodeError};

/// The length of what comes before the chunks, behind the header of RTCP, in bytes.
pub(super) const PREFIX_LEN: usize = 16;

/// The unit of deltas, in µs.
const TICK_MICROS: i64 = 250;

/// The unit of the reference time, in ticks: 64 ms.
const REFERENCE_TICKS: i64 = 256;

/// How many statuses a run can have: 13 bits.
const RUN_MAX: u16 = 0x1FFF;

/// How many statuses a vector of two bits has.
const TWO_BIT_LEN: u16 = 7;

/// How many statuses a vector of one bit has.
const ONE_BIT_LEN: u16 = 14;

/// What is known of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketStatus {
    /// Its transport-wide sequence number.
    pub sequence_number: u16,
    /// When it arrived, in µs of a clock of the receiver, whose beginning is unknown and which wraps after 12 days; `None`
    /// where it did not.
    pub arrival_micros: Option<i64>,
}

/// When packets of a transport arrived.
#[derive(Debug, Clone, Copy)]
pub struct TransportFeedback<'a> {
    /// Who received.
    pub sender_ssrc: u32,
    /// One of the sources received, of no consequence.
    pub media_ssrc: u32,
    /// The first sequence number that has a status.
    pub base_sequence_number: u16,
    /// How many sequence numbers have a status.
    pub status_count: u16,
    /// The reference time in units of 64 ms, 24 bits with a sign.
    pub reference_time: i32,
    /// The number of this feedback: one more than that of the one before.
    pub feedback_count: u8,
    chunks: &'a [[u8; 2]],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    /// Reads a packet and walks its statuses, so that [`Self::statuses`] has a delta for each that needs one.
    pub(super) fn parse(body: &'a [u8]) -> Result<TransportFeedback<'a>, DecodeError> {
        let truncated = |needed| DecodeError::Truncated {
            needed,
            got: body.len(),
        };
        let base_and_count = word(body, 8)?;
        let time_and_count = word(body, 12)?;
        let status_count = low_u16(u64::from(base_and_count));

        let mut chunks_end = PREFIX_LEN;
        let mut deltas_len = 0;
        let mut missing = status_count;
        while missing > 0 {
            let bits = u16_at(body, chunks_end).ok_or_else(|| truncated(chunks_end + 2))?;
            let chunk = Chunk(bits);
            let len = chunk.len().min(missing);
            deltas_len += chunk.deltas_len(len)?;
            missing -= len;
            chunks_end += 2;
        }

        let (chunks, _) = body[PREFIX_LEN..chunks_end].as_chunks();
        let deltas_end = chunks_end + deltas_len;
        Ok(TransportFeedback {
            sender_ssrc: word(body, 0)?,
            media_ssrc: word(body, 4)?,
            base_sequence_number: low_u16(u64::from(base_and_count >> 16)),
            status_count,
            reference_time: time_and_count.cast_signed() >> 8,
            feedback_count: low_u8(u64::from(time_and_count)),
            chunks,
            deltas: body
                .get(chunks_end..deltas_end)
                .ok_or_else(|| truncated(deltas_end))?,
        })
    }

    /// The statuses, one for each sequence number from the base on.
    pub fn statuses(&self) -> impl Iterator<Item = PacketStatus> + use<'a> {
        let mut deltas = self.deltas;
        let mut ticks = i64::from(self.reference_time) * REFERENCE_TICKS;
        let base = self.base_sequence_number;
        self.chunks
            .iter()
            .flat_map(|chunk| {
                let chunk = Chunk(u16::from_be_bytes(*chunk));
                (0..chunk.len()).map(move |at| chunk.symbol(at))
            })
            .zip(0..self.status_count)
            .map(move |(symbol, offset)| {
                let delta = match symbol {
                    SMALL => deltas.split_off_first().map(|delta| i64::from(*delta)),
                    LARGE => deltas
                        .split_off(..2)
                        .and_then(|delta| Some(i64::from(u16_at(delta, 0)?.cast_signed()))),
                    _ => None,
                };
                ticks += delta.unwrap_or_default();
                PacketStatus {
                    sequence_number: base.wrapping_add(offset),
                    arrival_micros: delta.map(|_| ticks * TICK_MICROS),
                }
            })
    }
}

/// The packet has not arrived.
const MISSING: u8 = 0;
/// The packet arrived, and its delta is a byte without a sign.
const SMALL: u8 = 1;
/// The packet arrived, and its delta has two bytes with a sign.
const LARGE: u8 = 2;

/// Some statuses in 16 bits (§3.1.3, §3.1.4).
#[derive(Debug, Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    /// How many statuses it has; those behind the last announced one mean nothing.
    fn len(self) -> u16 {
        match self.0 >> 14 {
            0 | 1 => self.0 & RUN_MAX,
            2 => ONE_BIT_LEN,
            _ => TWO_BIT_LEN,
        }
    }

    fn symbol(self, at: u16) -> u8 {
        let bits = match self.0 >> 14 {
            0 | 1 => self.0 >> 13 & 3,
            2 => self.0 >> (ONE_BIT_LEN - 1).saturating_sub(at) & 1,
            _ => self.0 >> (2 * (TWO_BIT_LEN - 1).saturating_sub(at)) & 3,
        };
        low_u8(u64::from(bits))
    }

    /// How many bytes of deltas the first `len` statuses have. The fourth symbol is reserved (§3.1.1).
    fn deltas_len(self, len: u16) -> Result<usize, DecodeError> {
        let delta_len = |symbol| match symbol {
            MISSING..=LARGE => Ok(usize::from(symbol)),
            reserved => Err(DecodeError::WrongValue {
                field: "packet status",
                got: u32::from(reserved),
            }),
        };
        if self.0 >> 15 == 0 {
            return Ok(usize::from(len) * delta_len(self.symbol(0))?);
        }
        (0..len).map(|at| delta_len(self.symbol(at))).sum()
    }
}

/// From how far before the first arrival statuses may begin: half a cycle of sequence numbers.
const BEFORE_MAX: u64 = 1 << 15;

/// Writes what follows the header of RTCP for as many of `arrivals` as fit, and returns its length, no multiple of four,
/// and how many arrivals it took. `arrivals` are unwrapped sequence numbers, ascending, and times in µs; statuses begin with
/// `base`, or with the first arrival where that is far behind or before it.
///
/// At least one is taken, and more until the buffer or the statuses end, the numbers do not ascend, or one came more than
/// 8 s before or after the one before.
pub(super) fn write(
    buffer: &mut [u8],
    ssrcs: [u32; 2],
    feedback_count: u8,
    base: u64,
    arrivals: &[(u64, i64)],
) -> Result<(usize, usize), BufferTooSmall> {
    let Some((first, first_micros)) = arrivals.first().copied() else {
        return Ok((0, 0));
    };
    let base = if first.saturating_sub(base) < BEFORE_MAX {
        base.min(first)
    } else {
        first
    };
    let reference = first_micros
        .div_euclid(TICK_MICROS)
        .div_euclid(REFERENCE_TICKS);

    let got = buffer.len();
    let too_small = |needed| BufferTooSmall { needed, got };
    let (prefix, content) = buffer
        .split_first_chunk_mut::<PREFIX_LEN>()
        .ok_or(too_small(PREFIX_LEN))?;

    let mut encoder = Encoder::default();
    let mut ticks = reference * REFERENCE_TICKS;
    let mut next = base;
    let mut deltas_len = 0;
    let mut taken = 0;
    for (number, micros) in arrivals {
        let arrived = micros.div_euclid(TICK_MICROS);
        let Some((symbol, delta_len)) = status_of(arrived - ticks) else {
            break;
        };
        let Some(gap) = number.checked_sub(next) else {
            break;
        };
        if number - base >= u64::from(u16::MAX) {
            break;
        }
        let mut longer = encoder;
        let fits = longer.add(content, MISSING, low_u16(gap)) && longer.add(content, symbol, 1);
        if !fits || longer.len_in_all() + deltas_len + delta_len > content.len() {
            break;
        }
        encoder = longer;
        deltas_len += delta_len;
        ticks = arrived;
        next = number.saturating_add(1);
        taken += 1;
    }
    if taken == 0 {
        return Err(too_small(PREFIX_LEN + 2 + 1));
    }

    let chunks_len = encoder.finish(content);
    let mut deltas = &mut content[chunks_len..chunks_len + deltas_len];
    let mut ticks = reference * REFERENCE_TICKS;
    for (_, micros) in &arrivals[..taken] {
        let arrived = micros.div_euclid(TICK_MICROS);
        let delta = low_u16((arrived - ticks).cast_unsigned()).to_be_bytes();
        let delta = match status_of(arrived - ticks) {
            Some((SMALL, _)) => &delta[1..],
            _ => &delta[..],
        };
        if let Some(room) = deltas.split_off_mut(..delta.len()) {
            room.copy_from_slice(delta);
        }
        ticks = arrived;
    }

    prefix[..4].copy_from_slice(&ssrcs[0].to_be_bytes());
    prefix[4..8].copy_from_slice(&ssrcs[1].to_be_bytes());
    prefix[8..10].copy_from_slice(&low_u16(base).to_be_bytes());
    prefix[10..12].copy_from_slice(&low_u16(next - base).to_be_bytes());
    prefix[12..15].copy_from_slice(&low_u24(low_u32(reference.cast_unsigned())));
    prefix[15] = feedback_count;
    Ok((PREFIX_LEN + chunks_len + deltas_len, taken))
}

/// The symbol and the length of a delta in ticks; `None` where no delta can say it.
fn status_of(delta: i64) -> Option<(u8, usize)> {
    if (0..=255).contains(&delta) {
        Some((SMALL, 1))
    } else {
        i16::try_from(delta).ok().map(|_| (LARGE, 2))
    }
}

/// Packs symbols into chunks: those that are written, and the last one, still open.
#[derive(Debug, Clone, Copy, Default)]
struct Encoder {
    /// The length of the chunks that are written, in bytes.
    written: usize,
    /// The symbols of the open chunk; of a run longer than this the first says all.
    symbols: [u8; ONE_BIT_LEN as usize],
    /// How many symbols the open chunk has.
    len: u16,
}

impl Encoder {
    /// Adds `count` times `symbol`. `false` where the chunks have no room in `content`.
    fn add(&mut self, content: &mut [u8], symbol: u8, mut count: u16) -> bool {
        while count > 0 {
            if self.is_run() && (self.len == 0 || self.symbols[0] == symbol) && self.len < RUN_MAX {
                let more = count.min(RUN_MAX - self.len);
                let end = usize::from(self.len + more).min(self.symbols.len());
                self.symbols[usize::from(self.len).min(end)..end].fill(symbol);
                self.len += more;
                count -= more;
            } else if self.takes(symbol) {
                self.symbols[usize::from(self.len)] = symbol;
                self.len += 1;
                count -= 1;
            } else if !self.close(content, false) {
                return false;
            }
        }
        true
    }

    /// The length of the chunks once the open one is closed, in bytes.
    fn len_in_all(&self) -> usize {
        self.written + if self.len > 0 { 2 } else { 0 }
    }

    /// Closes the open chunk, which then holds all that is left, and returns the length of all, in bytes.
    fn finish(&mut self, content: &mut [u8]) -> usize {
        if self.len > 0 {
            self.close(content, true);
        }
        self.written
    }

    /// Whether a vector has room for one symbol more.
    fn takes(&self, symbol: u8) -> bool {
        let one_bit = symbol != LARGE && !self.open().contains(&LARGE);
        self.len < if one_bit { ONE_BIT_LEN } else { TWO_BIT_LEN }
    }

    fn open(&self) -> &[u8] {
        &self.symbols[..usize::from(self.len).min(self.symbols.len())]
    }

    fn is_run(&self) -> bool {
        self.open().iter().all(|symbol| *symbol == self.symbols[0])
    }

    /// Writes one chunk: a run, or as many symbols as a vector of the fitting width takes. Only the last one may have room
    /// left, for what stands there would count. `false` where the chunks have no room in `content`.
    fn close(&mut self, content: &mut [u8], last: bool) -> bool {
        let pack = |symbols: &[u8], width: u16, len: u16| {
            let mut bits = 0;
            for at in 0..len {
                let symbol = symbols.get(usize::from(at)).copied().unwrap_or(MISSING);
                bits = bits << width | u16::from(symbol);
            }
            bits
        };
        let (bits, closed) = if self.is_run() {
            (u16::from(self.symbols[0]) << 13 | self.len, self.len)
        } else if self.len <= TWO_BIT_LEN || self.len < ONE_BIT_LEN && !last {
            let closed = self.len.min(TWO_BIT_LEN);
            (3 << 14 | pack(self.open(), 2, TWO_BIT_LEN), closed)
        } else {
            (1 << 15 | pack(self.open(), 1, ONE_BIT_LEN), self.len)
        };

        let Some(room) = content.get_mut(self.written..self.written + 2) else {
            return false;
        };
        room.copy_from_slice(&bits.to_be_bytes());
        self.written += 2;
        let from = usize::from(closed).min(self.symbols.len());
        self.symbols.copy_within(from.., 0);
        self.len -= closed;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;

    fn statuses(body: &[u8]) -> Vec<(u16, Option<i64>)> {
        TransportFeedback::parse(body)
            .unwrap()
            .statuses()
            .map(|status| (status.sequence_number, status.arrival_micros))
            .collect()
    }

    #[test]
    fn all_kinds_of_chunks_are_read() {
        // A run of two small deltas; one bit for each of 14 packets; two bits for each of 7, of which 2 count.
        let body =
            hex("00000001 00000002 fffe 0012 000003 07  2002 a001 c800  01 02 03 04 8000 ff");
        let feedback = TransportFeedback::parse(&body).unwrap();
        assert_eq!((feedback.sender_ssrc, feedback.media_ssrc), (1, 2));
        assert_eq!(feedback.base_sequence_number, 65_534);
        assert_eq!(feedback.status_count, 18);
        assert_eq!((feedback.reference_time, feedback.feedback_count), (3, 7));

        let start = 3 * 64_000;
        let mut expected = vec![
            (65_534, Some(start + 250)),
            (65_535, Some(start + 750)),
            (0, Some(start + 1_500)),
        ];
        expected.extend((1..13).map(|number| (number, None)));
        expected.extend([
            (13, Some(start + 2_500)),
            (14, None),
            (15, Some(start + 2_500 - 8_192_000)),
        ]);
        assert_eq!(statuses(&body), expected);
    }

    #[test]
    fn times_before_zero_have_a_sign() {
        let body = hex("00000001 00000002 0000 0001 ffffff 00  2001 01");
        assert_eq!(statuses(&body), [(0, Some(-63_750))]);
    }

    #[test]
    fn what_lacks_chunks_or_deltas_is_refused() {
        let check = |rest: &str, error| {
            let body = hex(&format!("00000001 00000002 {rest}"));
            assert_eq!(TransportFeedback::parse(&body).err(), error, "{rest}");
        };
        let truncated = |needed, got| Some(DecodeError::Truncated { needed, got });
        let reserved = Some(DecodeError::WrongValue {
            field: "packet status",
            got: 3,
        });

        check("0000 0000", truncated(16, 12));
        check("0000 0000 000000 00", None);
        check("0000 0001 000000 00", truncated(18, 16));
        check("0000 0001 000000 00 20", truncated(18, 17));
        check("0000 0001 000000 00 2001", truncated(19, 18));
        check("0000 0001 000000 00 2001 00", None);
        check("0000 0002 000000 00 4002 000000", truncated(22, 21));
        check("0000 ffff 000000 00 1fff", truncated(20, 18));
        check("0000 0001 000000 00 0000", truncated(20, 18));
        check("0000 0001 000000 00 6001", reserved);
        check("0000 0001 000000 00 f000", reserved);
        check("0000 0001 000000 00 c003", None);
    }

    #[test]
    fn statuses_are_packed_tightly() {
        let check = |numbers: &[u64], micros_apart: i64, chunks: &str| {
            let arrivals: Vec<_> = numbers
                .iter()
                .zip(0..)
                .map(|(number, at)| (*number, at * micros_apart))
                .collect();
            let mut buffer = [0; 1500];
            let (_, taken) = write(&mut buffer, [1, 2], 0, arrivals[0].0, &arrivals).unwrap();
            assert_eq!(taken, arrivals.len());
            let chunks = hex(chunks);
            assert_eq!(
                buffer[PREFIX_LEN..PREFIX_LEN + chunks.len()],
                chunks,
                "{numbers:?}"
            );
            let read = statuses(&buffer)
                .into_iter()
                .filter_map(|(number, at)| Some((u64::from(number), at?)));
            assert_eq!(read.collect::<Vec<_>>(), arrivals);
        };

        check(&[0], 0, "2001");
        check(&(0..100).collect::<Vec<_>>(), 250, "2064");
        check(&(0..1_000).collect::<Vec<_>>(), 250, "23e8");
        check(&[0, 2], 250, "d100");
        check(&[0, 2, 4, 6, 8, 10, 12, 14], 250, "aaaa 2001");
        check(&[0, 1, 2, 3, 4, 5, 6, 7, 100], 250, "bfc0 0056 2001");
        check(&[0, 2, 3], 100_000, "d280");
        check(&[0, 20_000], 250, "a000 1fff 1fff 0e14 2001");
    }

    #[test]
    fn a_vector_of_one_bit_gives_way_to_a_large_delta() {
        let mut arrivals: Vec<_> = (0..5).map(|number| (2 * number, 0)).collect();
        arrivals.push((9, 100_000));
        let mut buffer = [0; 64];
        let (len, taken) = write(&mut buffer, [1, 2], 0, arrivals[0].0, &arrivals).unwrap();
        assert_eq!(taken, 6);
        assert_eq!(
            buffer[PREFIX_LEN..len],
            hex("d111 c600  00 00 00 00 00 0190")
        );
    }

    #[test]
    fn statuses_begin_where_the_last_ones_ended() {
        let check = |base, expected: &[(u16, Option<i64>)], count| {
            let mut buffer = [0; 64];
            let (len, taken) = write(&mut buffer, [1, 2], 0, base, &[(40_000, 0)]).unwrap();
            assert_eq!(taken, 1);
            let read = statuses(&buffer[..len]);
            assert_eq!(
                (read.first(), read.last(), read.len()),
                (expected.first(), expected.last(), count)
            );
        };

        let arrived = (40_000, Some(0));
        check(40_000, &[arrived], 1);
        check(39_999, &[(39_999, None), arrived], 2);
        check(7_233, &[(7_233, None), arrived], 32_768);
        check(7_232, &[arrived], 1);
        check(40_001, &[arrived], 1);
    }

    #[test]
    fn what_does_not_fit_is_left() {
        let taken = |room: usize, arrivals: &[(u64, i64)]| {
            write(&mut vec![0; room], [1, 2], 0, arrivals[0].0, arrivals).map(|(_, taken)| taken)
        };
        let steady: Vec<_> = (0..10).map(|number| (number, 0)).collect();

        let too_small = |needed, got| Err(BufferTooSmall { needed, got });
        assert_eq!(taken(15, &steady), too_small(16, 15));
        assert_eq!(taken(18, &steady), too_small(19, 18));
        assert_eq!(taken(19, &steady), Ok(1));
        assert_eq!(taken(28, &steady), Ok(10));
        assert_eq!(taken(27, &steady), Ok(9));
        // Too far apart in time, not ascending, too far apart in numbers.
        assert_eq!(
            taken(100, &[(0, 0), (1, 8_191_750), (2, 0), (3, 8_192_000)]),
            Ok(3)
        );
        assert_eq!(taken(100, &[(5, 0), (6, 0), (6, 0)]), Ok(2));
        assert_eq!(taken(100, &[(5, 0), (4, 0)]), Ok(1));
        assert_eq!(taken(100, &[(5, 0), (5 + 65_534, 0)]), Ok(2));
        assert_eq!(taken(100, &[(5, 0), (5 + 65_535, 0)]), Ok(1));
    }
}
