//! What clients are told over RTCP: sender and receiver reports once a second, NACKs and requests for key frames at once.

use std::time::{Duration, Instant};

use sfu_rtp::BufferTooSmall;
use sfu_rtp::rtcp::{Builder, COUNT_MAX, ReportBlock, SenderInfo};

use super::Room;
use crate::clock::ticks_between;
use crate::keys::{ParticipantKey, SlotKey};
use crate::participant::NACKS_MAX;
use crate::quality::Uplink;

/// How often a Participant gets reports.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How many report blocks one packet has at most: with them a sender report still fits into any datagram.
const BLOCKS_MAX: usize = if COUNT_MAX < 24 { COUNT_MAX } else { 24 };

impl Room {
    /// Writes what is to be told to one Participant over RTCP into `buffer`, and gives whom and the length. To be called until it
    /// gives `None`; a buffer of 1200 bytes, less what SRTCP adds, is right.
    pub fn poll_rtcp(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
    ) -> Option<(ParticipantKey, usize)> {
        while let Some(key) = self.ready.pop_front() {
            let mut builder = Builder::new(buffer);
            // What doesn't fit comes with the next call.
            let is_full = self.write_rtcp(now, key, &mut builder).is_err();
            let len = builder.len();

            let Some(participant) = self.participants.get_mut(key) else {
                continue;
            };
            if is_full && len > 0 && participant.has_rtcp() {
                self.ready.push_front(key);
            } else {
                participant.is_ready = false;
            }
            if len > 0 {
                return Some((key, len));
            }
        }
        None
    }

    /// Notes who gets reports now, and about what.
    pub(super) fn schedule_reports(&mut self, now: Instant) {
        let mut ready = Vec::new();

        for (key, participant) in self.participants.iter_mut() {
            participant.nacks_left = NACKS_MAX;
            if participant.report_at > now {
                continue;
            }
            participant.report_at = now + REPORT_INTERVAL;

            participant.sender_reports.clear();
            for slot in &participant.slots {
                if let Some(slot) = self.slots.get_mut(*slot)
                    && std::mem::take(&mut slot.was_written)
                {
                    participant.sender_reports.push(slot.key);
                }
            }
            participant.receiver_reports.clear();
            for stream in participant.streams.iter().filter(|stream| !stream.is_rtx) {
                let is_active = self
                    .tracks
                    .get(stream.track)
                    .and_then(|track| track.encodings.get(usize::from(stream.encoding)))
                    .is_some_and(|encoding| encoding.is_active);
                if is_active {
                    participant
                        .receiver_reports
                        .push((stream.track, stream.encoding));
                }
            }
            participant.uplink_next = Uplink::default();
            if participant.receiver_reports.is_empty() {
                participant.uplink = Uplink::default();
            }
            if participant.has_rtcp() {
                ready.push(key);
            }
        }
        for key in ready {
            self.make_ready(key);
        }
    }

    fn write_rtcp(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        builder: &mut Builder<'_>,
    ) -> Result<(), BufferTooSmall> {
        self.write_reports(now, key, builder)?;
        self.write_requests(key, builder)
    }

    fn write_reports(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        builder: &mut Builder<'_>,
    ) -> Result<(), BufferTooSmall> {
        let Some(participant) = self.participants.get_mut(key) else {
            return Ok(());
        };
        let has_reports =
            !(participant.sender_reports.is_empty() && participant.receiver_reports.is_empty());
        let ssrc = participant.config.ssrc;
        if !has_reports {
            // A compound begins with a report, unless both sides can do without (RFC 5506).
            if participant.has_rtcp() && !participant.config.reduced_size_rtcp {
                builder.receiver_report(ssrc, &[])?;
                builder.source_description(ssrc, &participant.config.cname)?;
            }
            return Ok(());
        }

        self.blocks.clear();
        while self.blocks.len() < BLOCKS_MAX
            && let Some((track, number)) = participant.receiver_reports.pop()
        {
            let Some(track) = self.tracks.get_mut(track) else {
                continue;
            };
            let is_sound = track.is_audio();
            let clock_rate = track.formats.first().filter(|_| is_sound);
            let clock_rate = clock_rate.map(|format| format.clock_rate);
            if let Some(encoding) = track.encodings.get_mut(usize::from(number))
                && let Some(of) = encoding.ssrc
                && let Some(block) = encoding.receiver.report(now, of)
            {
                self.blocks.push(block);
                participant
                    .uplink_next
                    .add(encoding.receiver.uplink(clock_rate));
            }
        }
        if !self.blocks.is_empty() && participant.receiver_reports.is_empty() {
            participant.uplink = participant.uplink_next;
        }
        if participant.sender_reports.is_empty() {
            builder.receiver_report(ssrc, &self.blocks)?;
        }
        let mut blocks = std::mem::take(&mut self.blocks);
        let result = self.write_sender_reports(now, key, &blocks, builder);
        blocks.clear();
        self.blocks = blocks;
        result?;

        let Some(participant) = self.participants.get(key) else {
            return Ok(());
        };
        builder.source_description(ssrc, &participant.config.cname)
    }

    /// Writes a sender report for each slot that has sent; the first of them has the report blocks.
    fn write_sender_reports(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        blocks: &[ReportBlock],
        builder: &mut Builder<'_>,
    ) -> Result<(), BufferTooSmall> {
        let mut blocks = blocks;

        while let Some(slot) = self
            .participants
            .get_mut(key)
            .and_then(|participant| participant.sender_reports.pop())
        {
            let Some((ssrc, info)) = self.sender_info(now, slot) else {
                continue;
            };
            if let Err(full) = builder.sender_report(ssrc, &info, blocks) {
                if let Some(participant) = self.participants.get_mut(key) {
                    participant.sender_reports.push(slot);
                }
                return Err(full);
            }
            blocks = &[];
        }
        // The slots that had something to report are gone.
        if !blocks.is_empty()
            && builder.is_empty()
            && let Some(participant) = self.participants.get(key)
        {
            builder.receiver_report(participant.config.ssrc, blocks)?;
        }
        Ok(())
    }

    /// What a slot has sent, and its timestamp now by the clock of the publisher.
    fn sender_info(&self, now: Instant, slot: SlotKey) -> Option<(u32, SenderInfo)> {
        let slot = self.slots.get(slot)?;
        let ntp = self.wall.ntp(now);
        let by_publisher = || {
            let track = self.tracks.get(slot.track?)?;
            let encoding = track.encodings.get(usize::from(slot.current?))?;
            let theirs = self
                .participants
                .get(track.participant)?
                .clock
                .theirs(ntp)?;
            let timestamp = encoding
                .anchor?
                .timestamp_at(theirs, slot.rewriter.clock_rate());

            Some(timestamp.wrapping_add(slot.rewriter.timestamp_offset()))
        };
        // Before the publisher has reported, the newest packet tells best.
        let by_packets = || {
            let (timestamp, at) = slot.rewriter.newest_timestamp()?;

            Some(timestamp.wrapping_add(ticks_between(at, now, slot.rewriter.clock_rate())))
        };

        let info = SenderInfo {
            ntp,
            rtp_timestamp: by_publisher().or_else(by_packets)?,
            packets: slot.packets,
            octets: slot.octets,
        };
        Some((slot.ssrc, info))
    }

    fn write_requests(
        &mut self,
        key: ParticipantKey,
        builder: &mut Builder<'_>,
    ) -> Result<(), BufferTooSmall> {
        let Some(participant) = self.participants.get_mut(key) else {
            return Ok(());
        };
        let own = participant.config.ssrc;

        while let Some(&(track, number)) = participant.key_frames.last() {
            let ssrc = self
                .tracks
                .get(track)
                .and_then(|track| track.encodings.get(usize::from(number))?.ssrc);
            if let Some(ssrc) = ssrc {
                builder.pli(own, ssrc)?;
            }
            participant.key_frames.pop();
        }
        while let Some(&(track, number)) = participant.nacks.last() {
            let encoding = self
                .tracks
                .get_mut(track)
                .and_then(|track| track.encodings.get_mut(usize::from(number)));
            if let Some(encoding) = encoding
                && let Some(ssrc) = encoding.ssrc
            {
                builder.nack(own, ssrc, &encoding.asked)?;
                self.stats.nacks_sent += encoding.asked.len() as u64;
                encoding.asked.clear();
            }
            participant.nacks.pop();
        }
        Ok(())
    }
}
