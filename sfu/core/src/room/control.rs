//! What clients say over RTCP: reports, NACKs, requests for key frames; and the timers.

use std::time::{Duration, Instant};

use sfu_rtp::rtcp::{Packet, ReportBlock, SenderInfo};

use super::{NACK_ROUND, ROUND, Room};
use crate::clock::Anchor;
use crate::forward::Forward;
use crate::history::Refused;
use crate::key_frames::KeyFrames;
use crate::keys::{ParticipantKey, SlotKey, TrackKey};
use crate::receiver::ntp_middle;
use crate::slot::{Answer, Slot};
use crate::track::Track;

impl Room {
    /// Takes one packet of an RTCP compound of a Participant, authenticated and decrypted, and pushes what it asks for again to
    /// `forwards`. Feedback about bandwidth (transport-wide feedback, REMB) is not for the Room.
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        packet: &Packet<'_>,
        forwards: &mut Vec<Forward>,
    ) {
        match packet {
            Packet::SenderReport(report) => {
                self.on_sender_report(now, from, report.ssrc, &report.info);
                self.on_reports(now, from, report.blocks.iter());
            }
            Packet::ReceiverReport(report) => self.on_reports(now, from, report.blocks.iter()),
            Packet::Nack(nack) => self.on_nack(
                now,
                from,
                nack.media_ssrc,
                nack.sequence_numbers(),
                forwards,
            ),
            Packet::PictureLossIndication(indication) => {
                self.on_key_frame_request(now, from, indication.media_ssrc);
            }
            Packet::FullIntraRequest(request) => {
                for (ssrc, _) in request.requests() {
                    self.on_key_frame_request(now, from, ssrc);
                }
            }
            Packet::SourceDescription(_)
            | Packet::Goodbye(_)
            | Packet::TransportFeedback(_)
            | Packet::Remb(_)
            | Packet::ExtendedReport(_)
            | Packet::Other { .. } => {}
        }
    }

    /// When [`Self::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> Instant {
        [self.gaps_at, self.speakers.poll_timeout()]
            .into_iter()
            .flatten()
            .fold(self.round_at, Instant::min)
    }

    /// Does what is due: asks publishers for what is missing and for key frames, and reports.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.gaps_at.is_some_and(|at| at <= now) {
            self.look_at_gaps(now);
        }
        if self.round_at <= now {
            self.round_at = now + ROUND;
            self.follow_all_wishes(now);
            self.schedule_reports(now);
            self.look_at_layers(now);
        }
        self.judge_speakers(now);
        self.ask_for_key_frames(now);
    }

    /// Looks whether what a slot wants needs a key frame, or a Layer that is not being sent.
    pub(super) fn follow_wishes(&mut self, now: Instant, slot: SlotKey) {
        let Some(slot) = self.slots.get(slot) else {
            return;
        };
        let Some(key) = slot.track else {
            return;
        };
        let Some(track) = self.tracks.get(key) else {
            return;
        };

        if let Some(encoding) = slot.key_frame_needed(|encoding| track.top(encoding))
            && !catches_up(now, slot, track, encoding)
        {
            self.want_key_frame(key, encoding);
            self.ask_for_key_frames(now);
        }
        self.tell_wanted(now, key);
    }

    /// Notes that somebody can't go on without a key frame.
    pub(super) fn want_key_frame(&mut self, track: TrackKey, encoding: u8) {
        self.want_key_frame_by(track, encoding, KeyFrames::want);
    }

    fn want_key_frame_by(
        &mut self,
        track: TrackKey,
        encoding: u8,
        want: impl FnOnce(&mut KeyFrames),
    ) {
        let Some(wanted) = self
            .tracks
            .get_mut(track)
            .filter(|track| !track.muted && !track.is_audio())
            .and_then(|track| track.encodings.get_mut(usize::from(encoding)))
        else {
            return;
        };

        want(&mut wanted.key_frames);
        if !self.key_frames.contains(&(track, encoding)) {
            self.key_frames.push((track, encoding));
        }
    }

    /// Asks publishers for the key frames whose time has come.
    fn ask_for_key_frames(&mut self, now: Instant) {
        let mut index = 0;

        while let Some(&(key, number)) = self.key_frames.get(index) {
            let Some((publisher, encoding)) = self.tracks.get_mut(key).and_then(|track| {
                let encoding = track.encodings.get_mut(usize::from(number))?;
                Some((track.participant, encoding))
            }) else {
                self.key_frames.swap_remove(index);
                continue;
            };
            if !encoding.key_frames.is_wanted() {
                self.key_frames.swap_remove(index);
                continue;
            }

            index += 1;
            // A stream that has not begun begins with a key frame by itself.
            let has_begun = encoding.ssrc.is_some() && encoding.receiver.highest().is_some();
            if has_begun
                && encoding.key_frames.poll(now)
                && let Some(publisher) = self.participants.get_mut(publisher)
            {
                self.stats.key_frames_asked += 1;
                if !publisher.key_frames.contains(&(key, number)) {
                    publisher.key_frames.push((key, number));
                }
                let publisher = self.tracks.get(key).map(|track| track.participant);
                if let Some(publisher) = publisher {
                    self.make_ready(publisher);
                }
            }
        }
    }

    fn look_at_gaps(&mut self, now: Instant) {
        let mut index = 0;

        while let Some(&(key, number)) = self.gaps.get(index) {
            let Some(track) = self.tracks.get_mut(key) else {
                self.gaps.swap_remove(index);
                continue;
            };
            let publisher = track.participant;
            let is_wanted = !track.muted && !track.slots.is_empty();
            let (Some(encoding), Some(participant)) = (
                track.encodings.get_mut(usize::from(number)),
                self.participants.get_mut(publisher),
            ) else {
                self.gaps.swap_remove(index);
                continue;
            };

            if !is_wanted {
                encoding.missing.clear();
            }
            let given_up =
                encoding
                    .missing
                    .poll(now, participant.round_trip(), &mut encoding.asked);
            if !encoding.asked.is_empty() && !participant.nacks.contains(&(key, number)) {
                participant.nacks.push((key, number));
            }
            let is_done = encoding.missing.is_empty();
            let asks = !encoding.asked.is_empty();

            if asks {
                self.make_ready(publisher);
            }
            if given_up {
                self.want_key_frame(key, number);
            }
            if is_done {
                self.gaps.swap_remove(index);
            } else {
                index += 1;
            }
        }
        self.gaps_at = (!self.gaps.is_empty()).then(|| now + NACK_ROUND);
    }

    /// Asks again for key frames that somebody still needs. Encodings that aren't being sent begin with one by themselves.
    fn follow_all_wishes(&mut self, now: Instant) {
        let mut needed = std::mem::take(&mut self.needed);
        needed.extend(self.slots.iter().filter_map(|(_, slot)| {
            let key = slot.track?;
            let track = self.tracks.get(key)?;
            let number = slot.key_frame_needed(|encoding| track.top(encoding))?;
            let encoding = track.encodings.get(usize::from(number))?;

            let asks = encoding.is_active && !encoding.key_frames.is_wanted();
            (asks && !catches_up(now, slot, track, number)).then_some((key, number))
        }));

        for (key, number) in needed.drain(..) {
            self.want_key_frame(key, number);
        }
        self.needed = needed;
    }

    fn on_sender_report(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        ssrc: u32,
        info: &SenderInfo,
    ) {
        let Some(publisher) = self.participants.get_mut(from) else {
            return;
        };
        let Some(stream) = publisher.stream(ssrc).filter(|stream| !stream.is_rtx) else {
            self.stats.rtcp_unknown_ssrc += 1;
            return;
        };
        let Some(encoding) = self
            .tracks
            .get_mut(stream.track)
            .and_then(|track| track.encodings.get_mut(usize::from(stream.encoding)))
        else {
            return;
        };

        encoding.receiver.handle_sender_report(now, info.ntp);
        encoding.anchor = Some(Anchor {
            ntp: info.ntp,
            timestamp: info.rtp_timestamp,
        });
        publisher.clock.handle(self.wall.ntp(now), info.ntp);
    }

    fn on_reports(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        blocks: impl Iterator<Item = ReportBlock>,
    ) {
        let Some(subscriber) = self.participants.get_mut(from) else {
            return;
        };

        for block in blocks {
            let Some(slot) = subscriber
                .slot(block.ssrc)
                .and_then(|slot| self.slots.get_mut(slot))
            else {
                continue;
            };
            slot.knows_mid = true;
            subscriber.report_loss(block.fraction_lost);
            // RFC 3550 §6.4.1: A - LSR - DLSR, in 1/65536 s. Zero: no sender report has reached them yet.
            if block.last_sr != 0 {
                let elapsed = ntp_middle(self.wall.ntp(now))
                    .wrapping_sub(block.last_sr)
                    .wrapping_sub(block.delay_since_last_sr);
                let is_sane = elapsed.cast_signed() >= 0;
                if is_sane {
                    let micros = u64::from(elapsed) * 1_000_000 / 65_536;
                    subscriber.measure_round_trip(Duration::from_micros(micros));
                }
            }
        }
    }

    fn on_nack(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        ssrc: u32,
        numbers: impl Iterator<Item = u16>,
        forwards: &mut Vec<Forward>,
    ) {
        let Some(subscriber) = self.participants.get_mut(from) else {
            return;
        };
        let Some(slot) = subscriber
            .slot(ssrc)
            .and_then(|slot| self.slots.get_mut(slot))
        else {
            self.stats.rtcp_unknown_ssrc += 1;
            return;
        };
        let round = subscriber.round_trip();

        for number in numbers {
            if subscriber.nacks_left == 0 {
                self.stats.nacks_flooded += 1;
                return;
            }
            subscriber.nacks_left -= 1;
            match slot.resend(now, number, round) {
                Answer::Send(forward) => {
                    self.stats.resent += 1;
                    forwards.push(forward);
                }
                Answer::Refused(Refused::TooSoon) => self.stats.resends_too_soon += 1,
                Answer::Refused(Refused::TooOften) => self.stats.resends_too_often += 1,
                Answer::Refused(Refused::Share) => self.stats.resends_over_share += 1,
                Answer::Refused(Refused::Gone) => self.stats.resends_gone += 1,
                Answer::Nothing => {}
            }
        }
    }

    fn on_key_frame_request(&mut self, now: Instant, from: ParticipantKey, ssrc: u32) {
        let Some(subscriber) = self.participants.get(from) else {
            return;
        };
        let Some(slot) = subscriber
            .slot(ssrc)
            .and_then(|slot| self.slots.get_mut(slot))
        else {
            self.stats.rtcp_unknown_ssrc += 1;
            return;
        };

        self.stats.key_frames_wanted += 1;
        if !slot.may_ask_for_key_frame(now, subscriber.round_trip()) {
            return;
        }
        if let Some(track) = slot.track
            && let Some(encoding) = slot.current.or(slot.wanted.map(|layer| layer.encoding))
        {
            self.want_key_frame_by(track, encoding, KeyFrames::want_repair);
            self.ask_for_key_frames(now);
        }
    }

    /// Notes that a Participant has something to be told over RTCP.
    pub(super) fn make_ready(&mut self, participant: ParticipantKey) {
        if let Some(one) = self.participants.get_mut(participant)
            && !one.is_ready
        {
            one.is_ready = true;
            self.ready.push_back(participant);
        }
    }
}

/// Whether a slot begins with the newest key frame of an encoding as soon as its next packet comes.
fn catches_up(now: Instant, slot: &Slot, track: &Track, encoding: u8) -> bool {
    slot.may_catch_up(encoding) && track.beginning(now, encoding).is_some()
}
