//! Opus in Ogg (RFC 3533, RFC 7845): the packets of one stream.

use super::Unplayable;

/// The head of a page, up to the table of its segments (RFC 3533 §6).
const HEAD_LEN: usize = 27;

/// Bits of a page's head: it goes on with a packet of the page before.
const CONTINUED: u8 = 1;

/// The longest packet: 48 frames of the longest length (RFC 6716 §3.2).
const PACKET_LEN_MAX: usize = 48 * 1_276;

/// The most packets that are read: more than an hour of the shortest.
const PACKETS_MAX: usize = 2_000_000;

/// A stream of Opus.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// How much of its beginning is not to be heard, in 1/48,000 s.
    pub(super) pre_skip: u16,
    /// How much louder it is to be, in 1/256 dB.
    pub(super) gain: i16,
    /// Where it ends, in 1/48,000 s with what is skipped, if it says so and begins at zero.
    pub(super) granules: Option<u64>,
    pub(super) packets: Vec<Vec<u8>>,
}

/// One page.
struct Page<'a> {
    flags: u8,
    granule: u64,
    serial: u32,
    segments: &'a [u8],
    body: &'a [u8],
}

impl Stream {
    /// Reads a file whose first stream is Opus; others in it are passed over.
    pub(super) fn parse(mut file: &[u8]) -> Result<Self, Unplayable> {
        let mut stream = Self::default();
        let mut serial = None;
        // The header, the comments, then sound.
        let mut count = 0;
        let mut packet = Vec::new();
        let mut goes_on = false;
        while !file.is_empty() {
            let (page, rest) = Page::parse(file)?;
            file = rest;
            if *serial.get_or_insert(page.serial) != page.serial {
                continue;
            }
            // What of a packet was begun and is not gone on with is lost.
            if page.flags & CONTINUED == 0 || !goes_on {
                packet.clear();
            }
            let mut lost = page.flags & CONTINUED != 0 && !goes_on;
            goes_on = false;
            let mut body = page.body;
            for len in page.segments {
                let (segment, rest) = body.split_at(usize::from(*len).min(body.len()));
                body = rest;
                if count != 1 && packet.len() + segment.len() > PACKET_LEN_MAX {
                    return Err(Unplayable::Damaged("a packet of it is too long"));
                }
                // Comments may hold a picture; they are not kept.
                if count != 1 {
                    packet.extend_from_slice(segment);
                }
                goes_on = *len == u8::MAX;
                if goes_on {
                    continue;
                }
                if !std::mem::take(&mut lost) {
                    stream.on_packet(&mut count, std::mem::take(&mut packet))?;
                }
                packet.clear();
            }
            // All ones: no packet ends on this page.
            if page.granule != u64::MAX && count > 2 {
                stream.granules = Some(page.granule);
            }
        }
        match count {
            0 => Err(Unplayable::NotOpus),
            _ => Ok(stream),
        }
    }

    fn on_packet(&mut self, count: &mut usize, packet: Vec<u8>) -> Result<(), Unplayable> {
        match *count {
            0 => self.on_head(&packet)?,
            1 => {}
            _ if self.packets.len() >= PACKETS_MAX => {
                return Err(Unplayable::Damaged("there are too many packets in it"));
            }
            _ => self.packets.push(packet),
        }
        *count += 1;
        Ok(())
    }

    /// RFC 7845 §5.1: version, channels, then the pre-skip, the rate it was made of, and the gain.
    fn on_head(&mut self, packet: &[u8]) -> Result<(), Unplayable> {
        let fields = packet
            .strip_prefix(b"OpusHead")
            .and_then(<[u8]>::first_chunk::<11>);
        let Some(
            [
                version,
                channels,
                skip_low,
                skip_high,
                _,
                _,
                _,
                _,
                gain_low,
                gain_high,
                family,
            ],
        ) = fields
        else {
            return Err(Unplayable::NotOpus);
        };
        // The upper half tells versions that can't be read.
        if version >> 4 != 0 {
            return Err(Unplayable::NotOpus);
        }
        if !(1..=2).contains(channels) || *family != 0 {
            return Err(Unplayable::Channels(u16::from(*channels)));
        }
        self.pre_skip = u16::from_le_bytes([*skip_low, *skip_high]);
        self.gain = i16::from_le_bytes([*gain_low, *gain_high]);
        Ok(())
    }
}

impl<'a> Page<'a> {
    /// The page that `file` begins with, and what follows it.
    fn parse(file: &'a [u8]) -> Result<(Self, &'a [u8]), Unplayable> {
        const CUT: Unplayable = Unplayable::Damaged("a page of it is cut off or damaged");

        let head = file.first_chunk::<HEAD_LEN>().ok_or(CUT)?;
        let &[
            b'O',
            b'g',
            b'g',
            b'S',
            0,
            flags,
            g0,
            g1,
            g2,
            g3,
            g4,
            g5,
            g6,
            g7,
            s0,
            s1,
            s2,
            s3,
            ..,
            count,
        ] = head
        else {
            return Err(CUT);
        };
        let body_at = HEAD_LEN + usize::from(count);
        let segments = file.get(HEAD_LEN..body_at).ok_or(CUT)?;
        let len: usize = segments.iter().map(|len| usize::from(*len)).sum();
        let body = file.get(body_at..body_at + len).ok_or(CUT)?;
        let page = Self {
            flags,
            granule: u64::from_le_bytes([g0, g1, g2, g3, g4, g5, g6, g7]),
            serial: u32::from_le_bytes([s0, s1, s2, s3]),
            segments,
            body,
        };
        Ok((page, &file[body_at + len..]))
    }
}
