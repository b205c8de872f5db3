//! Seals what we send (RFC 3711 §3.3, §3.4).

use std::fmt;

use crate::BufferTooSmall;
use crate::bytes::{low_u16, low_u32, u16_at, u32_at};
use crate::packet::HEADER_LEN_MIN;
use crate::srtp::cipher::{PacketNonce, Trailer};
use crate::srtp::inbound::{RTCP_CLEAR, RTCP_ENCRYPTED};
use crate::srtp::{Ciphers, KeyError, Profile};

/// Why a packet was not sealed. It is not to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Packet and tag do not fit into the buffer, or the packet is shorter than its header.
    #[error(transparent)]
    BufferTooSmall(#[from] BufferTooSmall),
    /// The index is not that of the packet's sequence number.
    #[error("index {index} on a packet numbered {sequence_number}")]
    WrongIndex {
        /// The index.
        index: u64,
        /// What stands in the packet.
        sequence_number: u16,
    },
    /// The key has sealed all packets it may: 2^48 of RTP for a source, 2^31 of RTCP (RFC 3711 §9.2).
    #[error("the key is used up")]
    KeyUsedUp,
}

/// Seals what we send.
pub struct Outbound {
    ciphers: Ciphers,
    /// The index of the next packet of RTCP, the same for all sources (RFC 3711 §3.4).
    rtcp_index: u32,
}

impl Outbound {
    /// An `Outbound` for our master `key` and `salt`.
    ///
    /// # Errors
    ///
    /// [`KeyError`] where they are not [`Profile::key_len`] and [`Profile::salt_len`] bytes long.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Outbound, KeyError> {
        Ok(Outbound::with(Ciphers::new(profile, key, salt)?))
    }

    pub(super) fn with(ciphers: Ciphers) -> Outbound {
        Outbound {
            ciphers,
            rtcp_index: 0,
        }
    }

    /// Seals the packet of RTP in the first `len` bytes of `buffer`, of which the first `header_len` are its header with
    /// CSRCs and extensions, and returns its new length, at most [`crate::srtp::OVERHEAD_MAX`] more.
    ///
    /// `index` is the packet's sequence number, unwrapped by whoever numbers the source's packets: below 2^16 for the first,
    /// and its low 16 bits in the packet. A pair of SSRC and index may be sealed once: see [`crate::srtp`].
    ///
    /// # Errors
    ///
    /// The [`SealError`] that says why not. Source: RFC 3711 §3.3, RFC 7714 §8.1.
    #[inline]
    pub fn seal_rtp(
        &self,
        buffer: &mut [u8],
        header_len: usize,
        len: usize,
        index: u64,
    ) -> Result<usize, SealError> {
        let cipher = &self.ciphers.rtp;
        let (packet, room) = split(
            buffer,
            header_len.max(HEADER_LEN_MIN),
            len,
            cipher.tag_len(),
        )?;
        let sequence_number = u16_at(packet, 2).unwrap_or_default(); // There is a header.
        if low_u16(index) != sequence_number {
            return Err(SealError::WrongIndex {
                index,
                sequence_number,
            });
        }
        if index >> 48 != 0 {
            return Err(SealError::KeyUsedUp);
        }

        let ssrc = u32_at(packet, 8).unwrap_or_default();
        let trailer = Trailer::Rollover(low_u32(index >> 16));
        let tag = cipher
            .seal(PacketNonce { ssrc, index }, packet, header_len, trailer)
            .map_err(|_| SealError::KeyUsedUp)?; // What is longer than one key stream.
        room.copy_from_slice(tag.as_ref());
        Ok(len + room.len())
    }

    /// Seals the compound of RTCP in the first `len` bytes of `buffer`, and returns its new length, at most
    /// [`crate::srtp::OVERHEAD_MAX`] more.
    ///
    /// # Errors
    ///
    /// The [`SealError`] that says why not. Source: RFC 3711 §3.4, RFC 7714 §9.1.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SealError> {
        let cipher = &self.ciphers.rtcp;
        let (packet, room) = split(buffer, RTCP_CLEAR, len, cipher.tag_len() + 4)?;
        let index = self.rtcp_index;
        if index & RTCP_ENCRYPTED != 0 {
            return Err(SealError::KeyUsedUp);
        }
        self.rtcp_index += 1;

        let ssrc = u32_at(packet, 4).unwrap_or_default(); // There are eight bytes.
        let word = index | RTCP_ENCRYPTED;
        let nonce = PacketNonce {
            ssrc,
            index: u64::from(index),
        };
        let tag = cipher
            .seal(nonce, packet, RTCP_CLEAR, Trailer::Index(word))
            .map_err(|_| SealError::KeyUsedUp)?;
        if cipher.index_before_tag() {
            room[..4].copy_from_slice(&word.to_be_bytes());
            room[4..].copy_from_slice(tag.as_ref());
        } else {
            let (tag_room, word_room) = room.split_at_mut(cipher.tag_len());
            tag_room.copy_from_slice(tag.as_ref());
            word_room.copy_from_slice(&word.to_be_bytes());
        }
        Ok(len + room.len())
    }

    /// Goes on with the RTCP index `index`.
    #[cfg(test)]
    pub(super) fn set_rtcp_index(&mut self, index: u32) {
        self.rtcp_index = index;
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("cipher", &self.ciphers.rtp)
            .finish_non_exhaustive()
    }
}

/// The packet and the room for `trailer` bytes behind it, when the packet has at least `clear` bytes.
fn split(
    buffer: &mut [u8],
    clear: usize,
    len: usize,
    trailer: usize,
) -> Result<(&mut [u8], &mut [u8]), BufferTooSmall> {
    if len < clear {
        return Err(BufferTooSmall {
            needed: clear,
            got: len,
        });
    }
    let needed = len + trailer;
    let got = buffer.len();
    let whole = buffer.get_mut(..needed);
    let whole = whole.ok_or(BufferTooSmall { needed, got })?;
    Ok(whole.split_at_mut(len))
}
