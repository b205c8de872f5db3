//! Writes RTCP packets one after the other into a caller's buffer.

use crate::BufferTooSmall;
use crate::bytes::{low_u8, low_u16};
use crate::rtcp::feedback::{REMB_IDENTIFIER, remb_rate};
use crate::rtcp::report::{BLOCK_DLRR, BLOCK_RRTR, ITEM_CNAME, REPORT_BLOCK_LEN};
use crate::rtcp::transport_feedback;
use crate::rtcp::{
    COUNT_MAX, Dlrr, EXTENDED_REPORT, FORMAT_APPLICATION, FORMAT_FIR, FORMAT_NACK, FORMAT_PLI,
    FORMAT_TRANSPORT_WIDE, GOODBYE, HEADER_LEN, NtpTime, PAYLOAD_FEEDBACK, RECEIVER_REPORT,
    ReportBlock, SENDER_REPORT, SOURCE_DESCRIPTION, SenderInfo, TRANSPORT_FEEDBACK,
};

/// Writes a compound; what a failed call had to write is not there, all before it is, so a caller sends what there is and
/// tries again with the next buffer.
///
/// A buffer as long as one datagram is what bounds a compound. With SRTCP it has to leave room for
/// [`crate::srtp::OVERHEAD_MAX`] more bytes. All errors are [`BufferTooSmall`]: also where more items are given than the
/// packet can count ([`COUNT_MAX`] or 255).
#[derive(Debug)]
pub struct Builder<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> Builder<'b> {
    /// Begins an empty compound.
    #[must_use]
    pub fn new(buffer: &'b mut [u8]) -> Builder<'b> {
        Builder { buffer, len: 0 }
    }

    /// How many bytes are written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes are left.
    #[must_use]
    pub fn room(&self) -> usize {
        self.buffer.len() - self.len
    }

    /// What `ssrc` has sent, and how it receives: up to 31 blocks (RFC 3550 §6.4.1).
    pub fn sender_report(
        &mut self,
        ssrc: u32,
        info: &SenderInfo,
        blocks: &[ReportBlock],
    ) -> Result<(), BufferTooSmall> {
        let mut packet = self.packet(
            SENDER_REPORT,
            count(blocks.len())?,
            24 + blocks.len() * REPORT_BLOCK_LEN,
        )?;
        packet.put(&ssrc.to_be_bytes());
        packet.put(&info.ntp.0.to_be_bytes());
        packet.put(&info.rtp_timestamp.to_be_bytes());
        packet.put(&info.packets.to_be_bytes());
        packet.put(&info.octets.to_be_bytes());
        for block in blocks {
            packet.put(&block.to_bytes());
        }
        Ok(())
    }

    /// How `ssrc` receives: up to 31 blocks (RFC 3550 §6.4.2).
    pub fn receiver_report(
        &mut self,
        ssrc: u32,
        blocks: &[ReportBlock],
    ) -> Result<(), BufferTooSmall> {
        let len = 4 + blocks.len() * REPORT_BLOCK_LEN;
        let mut packet = self.packet(RECEIVER_REPORT, count(blocks.len())?, len)?;
        packet.put(&ssrc.to_be_bytes());
        for block in blocks {
            packet.put(&block.to_bytes());
        }
        Ok(())
    }

    /// That `ssrc` is called `cname`, up to 255 bytes (RFC 3550 §6.5.1).
    pub fn source_description(&mut self, ssrc: u32, cname: &str) -> Result<(), BufferTooSmall> {
        let len = short(cname.len())?;
        // A zero ends the items, and the chunk ends on a word (RFC 3550 §6.5).
        let padded = (2 + cname.len() + 1).next_multiple_of(4);
        let mut packet = self.packet(SOURCE_DESCRIPTION, 1, 4 + padded)?;
        packet.put(&ssrc.to_be_bytes());
        packet.put(&[ITEM_CNAME, len]);
        packet.put(cname.as_bytes());
        Ok(())
    }

    /// That up to 31 sources end (RFC 3550 §6.6).
    pub fn goodbye(&mut self, ssrcs: &[u32]) -> Result<(), BufferTooSmall> {
        let mut packet = self.packet(GOODBYE, count(ssrcs.len())?, 4 * ssrcs.len())?;
        for ssrc in ssrcs {
            packet.put(&ssrc.to_be_bytes());
        }
        Ok(())
    }

    /// That `sender` misses packets of `media`: `numbers` in ascending order, across the wrap too. None at all writes
    /// nothing (RFC 4585 §6.2.1).
    pub fn nack(&mut self, sender: u32, media: u32, numbers: &[u16]) -> Result<(), BufferTooSmall> {
        let pairs = nack_pairs(numbers).count();
        if pairs == 0 {
            return Ok(());
        }
        let mut packet = self.packet(TRANSPORT_FEEDBACK, FORMAT_NACK, 8 + 4 * pairs)?;
        packet.put(&sender.to_be_bytes());
        packet.put(&media.to_be_bytes());
        for (first, following) in nack_pairs(numbers) {
            packet.put(&first.to_be_bytes());
            packet.put(&following.to_be_bytes());
        }
        Ok(())
    }

    /// When packets of a transport arrived: `arrivals` are unwrapped transport-wide sequence numbers, ascending, each with
    /// its time in µs of any clock. Statuses begin with `base`, where those of the packet before ended, up to 32,767 before
    /// the first arrival: what lies between is missing. Returns how many it took from the front, at least one unless there
    /// are none: whoever has more left calls again with them, the next `feedback_count`, and the number behind the last one
    /// taken (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
    pub fn transport_feedback(
        &mut self,
        sender: u32,
        media: u32,
        feedback_count: u8,
        base: u64,
        arrivals: &[(u64, i64)],
    ) -> Result<usize, BufferTooSmall> {
        if arrivals.is_empty() {
            return Ok(0);
        }
        // The length is known only afterwards; whole words leave room for the padding.
        let start = self.len + HEADER_LEN;
        let end = self.len + self.room() / 4 * 4;
        let content = self.buffer.get_mut(start..end).unwrap_or_default();
        let (len, taken) =
            transport_feedback::write(content, [sender, media], feedback_count, base, arrivals)?;

        let padding = len.next_multiple_of(4) - len;
        let packet = &mut self.buffer[self.len..start + len + padding];
        write_header(packet, TRANSPORT_FEEDBACK, FORMAT_TRANSPORT_WIDE);
        let zeros = &mut packet[HEADER_LEN + len..];
        zeros.fill(0);
        if let Some(last) = zeros.last_mut() {
            *last = low_u8(padding as u64);
            packet[0] |= 0x20;
        }
        self.len = start + len + padding;
        Ok(taken)
    }

    /// That `sender` needs a key frame of `media`, since it lost something (RFC 4585 §6.3.1).
    pub fn pli(&mut self, sender: u32, media: u32) -> Result<(), BufferTooSmall> {
        let mut packet = self.packet(PAYLOAD_FEEDBACK, FORMAT_PLI, 8)?;
        packet.put(&sender.to_be_bytes());
        packet.put(&media.to_be_bytes());
        Ok(())
    }

    /// That `sender` needs a key frame of `media`; `number` counts requests, and stays when one is repeated (RFC 5104
    /// §4.3.1).
    pub fn fir(&mut self, sender: u32, media: u32, number: u8) -> Result<(), BufferTooSmall> {
        let mut packet = self.packet(PAYLOAD_FEEDBACK, FORMAT_FIR, 16)?;
        packet.put(&sender.to_be_bytes());
        packet.put(&[0; 4]);
        packet.put(&media.to_be_bytes());
        packet.put(&[number]);
        Ok(())
    }

    /// That `sender` believes it can receive `bits_per_second` of up to 255 `ssrcs` together, rounded down to 18
    /// significant bits (draft-alvestrand-rmcat-remb-03 §2.2).
    pub fn remb(
        &mut self,
        sender: u32,
        bits_per_second: u64,
        ssrcs: &[u32],
    ) -> Result<(), BufferTooSmall> {
        let count = short(ssrcs.len())?;
        let mut packet = self.packet(PAYLOAD_FEEDBACK, FORMAT_APPLICATION, 16 + 4 * ssrcs.len())?;
        packet.put(&sender.to_be_bytes());
        packet.put(&[0; 4]);
        packet.put(&REMB_IDENTIFIER);
        packet.put(&remb_rate(bits_per_second, count).to_be_bytes());
        for ssrc in ssrcs {
            packet.put(&ssrc.to_be_bytes());
        }
        Ok(())
    }

    /// The time at `ssrc`, which only receives (RFC 3611 §4.4).
    pub fn receiver_reference_time(
        &mut self,
        ssrc: u32,
        time: NtpTime,
    ) -> Result<(), BufferTooSmall> {
        let mut packet = self.packet(EXTENDED_REPORT, 0, 16)?;
        packet.put(&ssrc.to_be_bytes());
        packet.put(&[BLOCK_RRTR, 0, 0, 2]);
        packet.put(&time.0.to_be_bytes());
        Ok(())
    }

    /// How long ago such times came to `ssrc` (RFC 3611 §4.5).
    pub fn dlrr(&mut self, ssrc: u32, entries: &[Dlrr]) -> Result<(), BufferTooSmall> {
        let mut packet = self.packet(EXTENDED_REPORT, 0, 8 + 12 * entries.len())?;
        let [high, low] = low_u16(3 * entries.len() as u64).to_be_bytes(); // The buffer is shorter than 65,536 words.
        packet.put(&ssrc.to_be_bytes());
        packet.put(&[BLOCK_DLRR, 0, high, low]);
        for entry in entries {
            packet.put(&entry.ssrc.to_be_bytes());
            packet.put(&entry.last_rr.to_be_bytes());
            packet.put(&entry.delay_since_last_rr.to_be_bytes());
        }
        Ok(())
    }

    /// Begins a packet of `len` zeros behind its header.
    fn packet(
        &mut self,
        payload_type: u8,
        format: u8,
        len: usize,
    ) -> Result<Body<'_>, BufferTooSmall> {
        let needed = self.len + HEADER_LEN + len;
        let got = self
            .buffer
            .len()
            .min(self.len + HEADER_LEN + 4 * usize::from(u16::MAX));
        let packet = self
            .buffer
            .get_mut(self.len..needed)
            .filter(|_| needed <= got)
            .ok_or(BufferTooSmall { needed, got })?;
        self.len = needed;
        write_header(packet, payload_type, format);
        let body = &mut packet[HEADER_LEN..];
        body.fill(0);
        Ok(Body { rest: body })
    }
}

/// What is left of a packet's body.
struct Body<'p> {
    rest: &'p mut [u8],
}

impl Body<'_> {
    /// Writes `bytes`, for which the packet has been given room.
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.rest.split_off_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }
}

/// Writes the header of the packet `packet`, which is whole words long (RFC 3550 §6.4.1).
fn write_header(packet: &mut [u8], payload_type: u8, format: u8) {
    let words = low_u16((packet.len() / 4 - 1) as u64); // At most 65,535: see `packet`.
    packet[..2].copy_from_slice(&[0x80 | format & 0x1F, payload_type]);
    packet[2..HEADER_LEN].copy_from_slice(&words.to_be_bytes());
}

/// A count of five bits.
fn count(items: usize) -> Result<u8, BufferTooSmall> {
    if items > COUNT_MAX {
        return Err(BufferTooSmall {
            needed: items,
            got: COUNT_MAX,
        });
    }
    Ok(low_u8(items as u64))
}

/// A count or length of eight bits.
fn short(items: usize) -> Result<u8, BufferTooSmall> {
    u8::try_from(items).map_err(|_| BufferTooSmall {
        needed: items,
        got: usize::from(u8::MAX),
    })
}

/// Each first number with a bit for each of the 16 that follow it.
fn nack_pairs(mut numbers: &[u16]) -> impl Iterator<Item = (u16, u16)> {
    std::iter::from_fn(move || {
        let first = *numbers.split_off_first()?;
        let mut following = 0;
        while let Some(next) = numbers.first() {
            match next.wrapping_sub(first) {
                0 => {}
                distance @ 1..=16 => following |= 1 << (distance - 1),
                _ => break,
            }
            numbers.split_off_first();
        }
        Some((first, following))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::bytes::tests::hex;
    use crate::rtcp::{Compound, ExtendedReportBlock, Packet};

    /// What `write` writes, and that the same fits into no shorter buffer.
    fn written(write: impl Fn(&mut Builder<'_>) -> Result<(), BufferTooSmall>) -> Vec<u8> {
        let mut buffer = [0xee; 2000];
        let mut builder = Builder::new(&mut buffer);
        write(&mut builder).unwrap();
        let len = builder.len();
        assert_eq!(len % 4, 0);

        let mut short = vec![0; len.saturating_sub(1)];
        let mut builder = Builder::new(&mut short);
        let refused = write(&mut builder).err();
        let too_small = BufferTooSmall {
            needed: len,
            got: len.saturating_sub(1),
        };
        assert_eq!(refused, (len > 0).then_some(too_small));
        assert!(builder.is_empty());
        buffer[..len].to_vec()
    }

    #[test]
    fn packets_are_written_as_their_documents_show_them() {
        let check = |write: &dyn Fn(&mut Builder<'_>) -> Result<(), BufferTooSmall>,
                     bytes: &str| {
            assert_eq!(written(write), hex(bytes));
        };
        let info = SenderInfo {
            ntp: NtpTime(0x2_0000_0003),
            rtp_timestamp: 4,
            packets: 5,
            octets: 6,
        };
        let block = ReportBlock {
            ssrc: 10,
            fraction_lost: 0x40,
            cumulative_lost: -1,
            highest_sequence: 11,
            jitter: 12,
            last_sr: 13,
            delay_since_last_sr: 14,
        };

        let report = "80c80006 00000001 0000000200000003 00000004 00000005 00000006";
        check(&|b| b.sender_report(1, &info, &[]), report);
        let report = "81c90007 00000001 0000000a 40ffffff 0000000b 0000000c 0000000d 0000000e";
        check(&|b| b.receiver_report(1, &[block]), report);
        check(
            &|b| b.source_description(1, "ab"),
            "81ca0003 00000001 01026162 00000000",
        );
        check(
            &|b| b.source_description(1, "a"),
            "81ca0002 00000001 01016100",
        );
        check(&|b| b.goodbye(&[1, 2]), "82cb0002 00000001 00000002");
        check(&|b| b.nack(1, 2, &[]), "");
        check(
            &|b| b.nack(1, 2, &[10, 11, 26, 27]),
            "81cd0004 00000001 00000002 000a8001 001b0000",
        );
        check(
            &|b| b.nack(1, 2, &[65_535, 0, 0, 2]),
            "81cd0003 00000001 00000002 ffff0005",
        );
        check(&|b| b.pli(1, 2), "81ce0002 00000001 00000002");
        check(
            &|b| b.fir(1, 2, 7),
            "84ce0004 00000001 00000000 00000002 07000000",
        );
        let remb = "8fce0005 00000001 00000000 52454d42 0112625a 00000009";
        check(&|b| b.remb(1, 2_500_000, &[9]), remb);
        let time = "80cf0004 00000001 04000002 0000000200000003";
        check(&|b| b.receiver_reference_time(1, info.ntp), time);
        let delay = Dlrr {
            ssrc: 2,
            last_rr: 3,
            delay_since_last_rr: 4,
        };
        let delays = "80cf0005 00000001 05000003 00000002 00000003 00000004";
        check(&|b| b.dlrr(1, &[delay]), delays);
    }

    #[test]
    fn what_a_packet_cannot_count_is_refused() {
        let mut buffer = [0; 70_000];
        let mut builder = Builder::new(&mut buffer);
        let blocks = [ReportBlock::default(); 32];
        assert!(
            builder
                .sender_report(1, &SenderInfo::default(), &blocks)
                .is_err()
        );
        assert!(builder.receiver_report(1, &blocks).is_err());
        assert!(builder.goodbye(&[0; 32]).is_err());
        assert!(builder.source_description(1, &"a".repeat(256)).is_err());
        assert!(builder.remb(1, 1, &[0; 256]).is_err());
        assert!(builder.is_empty());

        assert!(builder.receiver_report(1, &blocks[1..]).is_ok());
        assert!(builder.remb(1, 1, &[0; 255]).is_ok());
        assert_eq!(
            Compound::parse(&buffer[..2_000])
                .filter(Result::is_ok)
                .count(),
            2
        );
    }

    #[test]
    fn a_compound_is_read_as_it_was_written() {
        let mut buffer = [0xee; 1200];
        let mut builder = Builder::new(&mut buffer);
        let ntp = NtpTime::from_unix(Duration::from_secs(1_700_000_000));
        builder.receiver_report(1, &[]).unwrap();
        builder.source_description(1, "cname").unwrap();
        builder.receiver_reference_time(1, ntp).unwrap();
        builder.remb(1, 1_000_000, &[3, 4]).unwrap();
        assert_eq!(
            builder.transport_feedback(1, 2, 9, 69_999, &[(70_000, 12_345), (70_002, 13_000)]),
            Ok(2)
        );
        assert_eq!(builder.transport_feedback(1, 2, 9, 5, &[]), Ok(0));
        let len = builder.len();
        assert_eq!(builder.room(), 1200 - len);

        let packets: Vec<_> = Compound::parse(&buffer[..len])
            .map(Result::unwrap)
            .collect();
        let [
            Packet::ReceiverReport(_),
            Packet::SourceDescription(names),
            Packet::ExtendedReport(report),
            Packet::Remb(remb),
            Packet::TransportFeedback(feedback),
        ] = packets[..]
        else {
            panic!("other packets: {packets:?}");
        };
        assert_eq!(names.cnames().collect::<Vec<_>>(), [(1, &b"cname"[..])]);
        let time = ExtendedReportBlock::ReceiverReferenceTime(ntp);
        assert_eq!(report.blocks().collect::<Vec<_>>(), [time]);
        assert_eq!(
            (remb.bits_per_second, remb.ssrcs().collect::<Vec<_>>()),
            (1_000_000, vec![3, 4])
        );
        assert_eq!(feedback.base_sequence_number, 4_463);
        assert_eq!(feedback.feedback_count, 9);
        let arrivals: Vec<_> = feedback
            .statuses()
            .map(|status| status.arrival_micros)
            .collect();
        assert_eq!(arrivals, [None, Some(12_250), None, Some(13_000)]);
    }

    proptest! {
        /// Every number missed is asked for, and no other.
        #[test]
        fn nacks_ask_for_what_is_missed(first: u16, gaps in prop::collection::vec(1u16..40, 0..200)) {
            let mut numbers = vec![first];
            for gap in gaps {
                numbers.push(numbers[numbers.len() - 1].wrapping_add(gap));
            }
            let bytes = written(|builder| builder.nack(1, 2, &numbers));
            let Some(Ok(Packet::Nack(nack))) = Compound::parse(&bytes).next() else {
                panic!("a NACK");
            };
            prop_assert_eq!(nack.sequence_numbers().collect::<Vec<_>>(), numbers);
        }

        /// Arrivals are told to 250 µs, in as many packets as it takes, and gaps stay gaps.
        #[test]
        fn arrivals_are_told(
            first in 0u64..1 << 40,
            start in 0i64..1 << 40,
            steps in prop::collection::vec((1u64..20, -20_000i64..200_000), 1..300),
            room in 36usize..400,
            before in 0u64..32_768,
        ) {
            let mut arrivals = vec![(first, start)];
            for (number, micros) in steps {
                let (last, at) = arrivals[arrivals.len() - 1];
                arrivals.push((last + number, at + micros));
            }

            let mut left = &arrivals[..];
            let mut count = 0u8;
            let mut next = first.saturating_sub(before);
            while !left.is_empty() {
                let mut buffer = vec![0xee; room];
                let mut builder = Builder::new(&mut buffer);
                let taken = builder.transport_feedback(1, 2, count, next, left).unwrap();
                prop_assert!(taken > 0);
                let len = builder.len();
                prop_assert_eq!(len % 4, 0);

                let mut packets = Compound::parse(&buffer[..len]);
                let Some(Ok(Packet::TransportFeedback(feedback))) = packets.next() else {
                    panic!("a transport feedback");
                };
                prop_assert!(packets.next().is_none());
                prop_assert_eq!(feedback.feedback_count, count);
                let mut expected = left[..taken].iter();
                // The reference has 24 bits of 64 ms: compare by differences.
                let mut offset = None;
                for (number, status) in (next..).zip(feedback.statuses()) {
                    prop_assert_eq!(status.sequence_number, low_u16(number));
                    if let Some(micros) = status.arrival_micros {
                        let (taken, at) = *expected.next().unwrap();
                        prop_assert_eq!(taken, number);
                        let difference = at.div_euclid(250) * 250 - micros;
                        prop_assert_eq!(*offset.get_or_insert(difference), difference);
                        prop_assert_eq!(difference % (64_000 << 24), 0);
                    }
                }
                prop_assert!(expected.next().is_none());
                next = left[taken - 1].0 + 1;
                left = &left[taken..];
                count = count.wrapping_add(1);
            }
        }
    }
}
