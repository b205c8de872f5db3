//! The way of a packet out: its bytes, written once for each subscriber into the buffer it is sealed and sent in.

use sfu_rtp::dependency_descriptor;
use sfu_rtp::extension::{AbsSendTime, ExtensionKind, ExtensionMap};
use sfu_rtp::packet::{FixedHeader, HeaderWriter, WriteError, pad};
use sfu_rtp::payload::{red, vp8, vp9};

use super::Room;
use crate::cache::Cached;
use crate::forward::{Forward, Payload};
use crate::keys::ParticipantKey;
use crate::passed;
use crate::picture::Detail;
use crate::receiver::low;
use crate::slot::Slot;
use crate::track::Codec;

/// How far numbers may go on while nothing is written under them: a receiver told nothing for 1 << 15 of them would never find their
/// cycle again (RFC 3711 §3.3.1).
const UNWRITTEN_MAX: u64 = 1 << 12;

/// What a packet says about when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamps {
    /// The transport-wide sequence number.
    pub transport_sequence: Option<u16>,
    /// The time of sending.
    pub abs_send_time: Option<AbsSendTime>,
}

/// A packet in the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its length in bytes.
    pub len: usize,
    /// The length of its header, which SRTP leaves in clear.
    pub header_len: usize,
    /// Its SSRC.
    pub ssrc: u32,
    /// The SRTP index: its sequence number with the rollovers. No two packets of an SSRC have the same.
    pub index: u64,
}

impl Room {
    /// Writes a packet to `buffer`, which should have room for [`crate::PACKET_LEN_MAX`] bytes.
    ///
    /// `None` if it can't go out any more: its payload is no longer in the cache, its Track is muted or has left the slot. It counts as
    /// lost then. Where very many were lost so, one after the other, an empty packet is written in its place, or the receiver would lose
    /// count. To be called once for each [`Forward`].
    pub fn write(
        &mut self,
        forward: &Forward,
        buffer: &mut [u8],
        stamps: Stamps,
    ) -> Option<Written> {
        let written = self.write_packet(forward, buffer, stamps);
        if written.is_some() {
            return written;
        }

        self.stats.expired += 1;
        let slot = self.slots.get(forward.slot)?;
        let is_behind = forward.index.saturating_sub(slot.newest_written) > UNWRITTEN_MAX;
        let empty = Forward {
            payload: Payload::Empty,
            ..*forward
        };
        (forward.is_original() && is_behind)
            .then(|| self.write_packet(&empty, buffer, stamps))
            .flatten()
    }

    /// A packet for a Participant that carries nothing new and is about `wire_len` bytes long, to probe for bandwidth: a recent one
    /// again, or nothing but padding. `None` without a Track in a slot that has RTX.
    pub fn pad(&mut self, participant: ParticipantKey, wire_len: u16) -> Option<Forward> {
        let subscriber = self.participants.get_mut(participant)?;
        let count = subscriber.slots.len();

        // Each time another slot comes first, or one would carry all.
        for _ in 0..count {
            subscriber.slots.rotate_left(1);
            let Some(slot) = self.slots.get_mut(*subscriber.slots.last()?) else {
                continue;
            };
            let track = slot.track.and_then(|track| self.tracks.get(track));
            let track = track.filter(|track| !track.muted);
            // What a paused Track sent last is soon gone.
            let is_kept = |encoding: u8, position| {
                track
                    .and_then(|track| track.encodings.get(usize::from(encoding)))
                    .is_some_and(|encoding| encoding.cache.get(position).is_some())
            };
            if let Some(forward) = slot.pad(wire_len, is_kept) {
                return Some(forward);
            }
        }
        None
    }

    fn write_packet(
        &mut self,
        forward: &Forward,
        buffer: &mut [u8],
        stamps: Stamps,
    ) -> Option<Written> {
        let slot = self.slots.get_mut(forward.slot)?;
        let track = self.tracks.get(forward.track);
        let extensions = &self
            .participants
            .get(forward.participant)?
            .config
            .extensions;
        let find = |encoding: u8, position: u32| {
            let encodings = &track?.encodings;
            encodings.get(usize::from(encoding))?.cache.get(position)
        };
        let cached = match forward.payload {
            Payload::Cached { encoding, position }
            | Payload::Resent {
                encoding, position, ..
            } => Some(find(encoding, position)?),
            Payload::Primary { position } => Some(find(0, position)?),
            Payload::Empty | Payload::ResentEmpty { .. } | Payload::Padding(_) => None,
        };
        // What waited for its turn while its Track was muted or taken out of the slot is not for the subscriber any more.
        let is_gone = || track.is_none_or(|track| track.muted) || slot.track != Some(forward.track);
        if cached.is_some() && is_gone() {
            return None;
        }
        let ssrc = match forward.is_original() {
            true => slot.ssrc,
            false => slot.rtx_ssrc?,
        };

        let fixed = FixedHeader {
            marker: forward.marker,
            payload_type: forward.payload_type,
            sequence_number: low(forward.index),
            timestamp: forward.timestamp,
            ssrc,
        };
        let header_len = write_header(
            &fixed,
            forward,
            slot,
            extensions,
            stamps,
            cached.as_ref(),
            buffer,
        )
        .ok()?;
        // Inside RED there is the codec's payload type, too, unless it is encrypted.
        let blocks = cached
            .as_ref()
            .filter(|cached| cached.record.red)
            .and_then(|_| {
                let track = track.filter(|track| !track.encrypted)?;
                let theirs = track.formats.iter().find(|format| format.red.is_some())?;
                Some((theirs.payload_type, slot.format?.payload_type))
            });
        let len = write_payload(forward, cached.as_ref(), blocks, buffer, header_len)?;

        if ssrc == slot.ssrc {
            slot.packets = slot.packets.wrapping_add(1);
            let octets = u32::try_from(len - header_len).unwrap_or(0);
            slot.octets = slot.octets.wrapping_add(octets);
            slot.was_written = true;
            slot.newest_written = slot.newest_written.max(forward.index);
        }
        Some(Written {
            len,
            header_len,
            ssrc,
            index: forward.index,
        })
    }
}

fn write_header(
    fixed: &FixedHeader,
    forward: &Forward,
    slot: &Slot,
    extensions: &ExtensionMap,
    stamps: Stamps,
    cached: Option<&Cached<'_>>,
    buffer: &mut [u8],
) -> Result<usize, WriteError> {
    let mut header = HeaderWriter::new(buffer, fixed, &[])?;

    if let Some(number) = stamps.transport_sequence
        && let Some(id) = extensions.id(ExtensionKind::TransportSequenceNumber)
    {
        header.extension(id, &number.to_be_bytes())?;
    }
    if let Some(time) = stamps.abs_send_time
        && let Some(id) = extensions.id(ExtensionKind::AbsSendTime)
    {
        header.extension(id, &time.to_bytes())?;
    }
    if let Some(id) = extensions
        .id(ExtensionKind::Mid)
        .filter(|_| !slot.knows_mid)
    {
        header.extension(id, &slot.mid)?;
    }
    for (kind, value) in cached
        .into_iter()
        .flat_map(|cached| passed::unpack(cached.extensions))
    {
        let Some(id) = extensions.id(kind) else {
            continue;
        };
        if kind == ExtensionKind::DependencyDescriptor {
            write_descriptor(&mut header, id, value, forward.frame_number, slot.detail)?;
        } else {
            header.extension(id, value)?;
        }
    }
    Ok(header.finish()?)
}

/// Writes a dependency descriptor with the frame number of this leg; where it brings a structure, also with the decode targets
/// that are within `detail`, so that the receiver doesn't wait for more.
fn write_descriptor(
    header: &mut HeaderWriter<'_>,
    id: u8,
    value: &[u8],
    frame_number: u16,
    detail: Detail,
) -> Result<(), WriteError> {
    let mut bytes = [0; 255];
    let mut len = 0;

    if dependency_descriptor::has_structure(value) {
        let mut reader = dependency_descriptor::Reader::new();
        if let Ok(descriptor) = reader.read(value)
            && let Some(structure) = reader.structure()
        {
            let active = active_targets(structure, detail);
            len = descriptor
                .write_with_active_decode_targets(value, active, &mut bytes)
                .unwrap_or(0);
        }
    }
    if len == 0 {
        len = value.len();
        bytes
            .get_mut(..len)
            .unwrap_or_default()
            .copy_from_slice(value);
    }
    bytes[1..3].copy_from_slice(&frame_number.to_be_bytes());
    header.extension(id, &bytes[..len])
}

/// The decode targets within `detail`, one bit each.
fn active_targets(structure: &dependency_descriptor::Structure, detail: Detail) -> u32 {
    (0..structure.decode_targets())
        .filter(|target| {
            structure
                .layers(*target)
                .is_some_and(|(spatial, temporal)| {
                    spatial <= detail.spatial && temporal <= detail.temporal
                })
        })
        .fold(0, |bits, target| bits | 1 << target)
}

/// Writes what follows the header and gives the packet's length. `blocks` are the payload types of RED's blocks: theirs and ours.
fn write_payload(
    forward: &Forward,
    cached: Option<&Cached<'_>>,
    blocks: Option<(u8, u8)>,
    buffer: &mut [u8],
    header_len: usize,
) -> Option<usize> {
    let original = match forward.payload {
        Payload::Resent { sequence, .. } | Payload::ResentEmpty { sequence } => Some(sequence),
        _ => None,
    };
    let mut len = header_len;
    if let Some(sequence) = original {
        buffer
            .get_mut(len..len + 2)?
            .copy_from_slice(&sequence.to_be_bytes());
        len += 2;
    }

    match (forward.payload, cached) {
        (Payload::Padding(padding), _) => return pad(buffer, len, padding).ok(),
        // A packet must not end with its header: one byte of padding.
        (Payload::Empty, _) => return pad(buffer, len, 1).ok(),
        (Payload::ResentEmpty { .. }, _) | (_, None) => return Some(len),
        (Payload::Primary { .. }, Some(cached)) => {
            let primary = red::Blocks::parse(cached.payload).ok()?.newest()?.payload;
            buffer
                .get_mut(len..len + primary.len())?
                .copy_from_slice(primary);
            len += primary.len();
        }
        (_, Some(cached)) => {
            let payload = buffer.get_mut(len..len + cached.payload.len())?;
            payload.copy_from_slice(cached.payload);
            rewrite_descriptor(forward, cached, payload);
            if let Some((theirs, ours)) = blocks {
                rewrite_blocks(payload, theirs, ours);
            }
            len += payload.len();
        }
    }
    Some(len)
}

/// Writes the numbers of this leg into the payload descriptor.
fn rewrite_descriptor(forward: &Forward, cached: &Cached<'_>, payload: &mut [u8]) {
    let picture = &cached.record.incoming.picture;
    if picture.id.is_none() && picture.tl0_picture_index.is_none() {
        return;
    }

    let (id, tl0) = (forward.picture_id, forward.tl0_picture_index);
    match cached.record.codec {
        Codec::Vp8 => {
            if let Ok(descriptor) = vp8::Descriptor::parse(cached.payload) {
                descriptor.rewrite(payload, id, tl0);
            }
        }
        Codec::Vp9 => {
            if let Ok(descriptor) = vp9::Descriptor::parse(cached.payload) {
                descriptor.rewrite(payload, id, tl0);
            }
        }
        Codec::Opus | Codec::H264 | Codec::Av1 | Codec::Other => {}
    }
}

/// Writes our payload type into the blocks of a RED payload that have theirs (RFC 2198 §3).
fn rewrite_blocks(payload: &mut [u8], theirs: u8, ours: u8) {
    let mut header = 0;

    while let Some(byte) = payload.get_mut(header) {
        let is_last = *byte & 0x80 == 0;
        if *byte & 0x7f == theirs {
            *byte = *byte & 0x80 | ours & 0x7f;
        }
        if is_last {
            return;
        }
        header += 4;
    }
}
