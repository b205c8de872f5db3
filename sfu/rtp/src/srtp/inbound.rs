//! Opens what the other side has sealed (RFC 3711 §3.3, §3.4).

use std::fmt;

use crate::DecodeError;
use crate::bytes::{low_u16, low_u32, u32_at};
use crate::packet::Header;
use crate::sequence::diff_u16;
use crate::srtp::cipher::{PacketNonce, Trailer};
use crate::srtp::replay::{NotNew, ReplayWindow};
use crate::srtp::{Ciphers, KeyError, Profile};

/// From how many sources one transport may bring packets, each of RTP and RTCP. Sixteen simulcast cameras with RTX have 96.
pub const SSRCS_MAX: usize = 128;

/// What SRTCP leaves in clear: the first packet's header and SSRC (RFC 3711 §3.4).
pub(super) const RTCP_CLEAR: usize = 8;

/// The bit beside the index of SRTCP that says that the packet is encrypted (RFC 3711 §3.4).
pub(super) const RTCP_ENCRYPTED: u32 = 1 << 31;

/// Why a packet was not opened. It is to be dropped; what stands in its bytes then is anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The header can't be read.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The packet has come before.
    #[error("packet {index} has come before")]
    Replayed {
        /// Its index.
        index: u64,
    },
    /// The packet is older than what is remembered: [`crate::srtp::REPLAY_WINDOW`].
    #[error("packet {index} is too old to be known")]
    TooOld {
        /// Its index.
        index: u64,
    },
    /// The tag is not that of the packet under this key.
    #[error("not authentic")]
    NotAuthentic,
    /// The packet is SRTCP that is authenticated and not encrypted, which WebRTC does not have (RFC 8827 §6.5).
    #[error("not encrypted")]
    NotEncrypted,
    /// The source is new, and there are [`SSRCS_MAX`] already.
    #[error("more than {SSRCS_MAX} sources")]
    TooManySources,
}

/// A packet of RTP, opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// How many bytes at the front are the packet.
    pub len: usize,
    /// The index: the rollover counter above the sequence number, so a sequence number of 48 bits that never wraps. What a
    /// source sends first has a counter of zero.
    pub index: u64,
}

/// Opens what the other side has sealed.
pub struct Inbound {
    ciphers: Ciphers,
    rtp: Sources,
    rtcp: Sources,
}

impl Inbound {
    /// An `Inbound` for the other side's master `key` and `salt`.
    ///
    /// # Errors
    ///
    /// [`KeyError`] where they are not [`Profile::key_len`] and [`Profile::salt_len`] bytes long.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Inbound, KeyError> {
        Ok(Inbound::with(Ciphers::new(profile, key, salt)?))
    }

    pub(super) fn with(ciphers: Ciphers) -> Inbound {
        Inbound {
            ciphers,
            rtp: Sources::default(),
            rtcp: Sources::default(),
        }
    }

    /// Opens one datagram of SRTP in place. Nothing is remembered of what is not authentic.
    ///
    /// # Errors
    ///
    /// The [`OpenError`] that says why not. Source: RFC 3711 §3.3, in its order, RFC 7714 §8.2.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<Opened, OpenError> {
        let cipher = &self.ciphers.rtp;
        let header = Header::parse(packet)?;
        let (ssrc, clear, sequence_number) =
            (header.ssrc(), header.len(), header.sequence_number());
        let len = split_tag(packet.len(), clear, cipher.tag_len())?;

        let source = self.rtp.find(ssrc)?;
        let index = self.rtp.index_of(source, sequence_number)?;
        self.rtp.check(source, index)?;

        let (packet, tag) = packet.split_at_mut(len);
        let trailer = Trailer::Rollover(low_u32(index >> 16));
        cipher
            .open(PacketNonce { ssrc, index }, packet, clear, trailer, tag)
            .map_err(|_| OpenError::NotAuthentic)?;
        self.rtp.accept(source, ssrc, index);
        Ok(Opened { len, index })
    }

    /// Opens one datagram of SRTCP in place, and returns the length of the compound. Nothing is remembered of what is not
    /// authentic.
    ///
    /// # Errors
    ///
    /// The [`OpenError`] that says why not. Source: RFC 3711 §3.4, RFC 7714 §9.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, OpenError> {
        let cipher = &self.ciphers.rtcp;
        let got = packet.len();
        let first = *packet.first().unwrap_or(&0);
        let len = split_tag(got, RTCP_CLEAR, cipher.tag_len() + 4)?;
        if first >> 6 != 2 {
            return Err(DecodeError::WrongVersion { got: first >> 6 }.into());
        }
        let (packet, trailer) = packet.split_at_mut(len);
        let (word, tag) = if cipher.index_before_tag() {
            trailer.split_at(4)
        } else {
            let (tag, word) = trailer.split_at(cipher.tag_len());
            (word, tag)
        };
        let word = u32_at(word, 0).unwrap_or_default(); // Four bytes: see above.
        if word & RTCP_ENCRYPTED == 0 {
            return Err(OpenError::NotEncrypted);
        }

        let ssrc = u32_at(packet, 4).unwrap_or_default();
        let index = u64::from(word & !RTCP_ENCRYPTED);
        let source = self.rtcp.find(ssrc)?;
        self.rtcp.check(source, index)?;
        cipher
            .open(
                PacketNonce { ssrc, index },
                packet,
                RTCP_CLEAR,
                Trailer::Index(word),
                tag,
            )
            .map_err(|_| OpenError::NotAuthentic)?;
        self.rtcp.accept(source, ssrc, index);
        Ok(len)
    }

    /// Makes room for another source in place of `ssrc`, which must never come again: its old packets would be taken for
    /// those of a new source, and new ones not be opened once its rollover counter is above zero. A section that is paused
    /// goes on with the SSRC it had, so only what a later offer has given up for good is forgotten.
    pub fn forget(&mut self, ssrc: u32) {
        self.rtp.forget(ssrc);
        self.rtcp.forget(ssrc);
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("cipher", &self.ciphers.rtp)
            .field("sources", &self.rtp.ssrcs)
            .finish_non_exhaustive()
    }
}

/// Where the packet ends in front of `trailer` bytes, when there are at least `clear`.
fn split_tag(got: usize, clear: usize, trailer: usize) -> Result<usize, DecodeError> {
    let needed = clear + trailer;
    if got < needed {
        return Err(DecodeError::Truncated { needed, got });
    }
    Ok(got - trailer)
}

/// The sources heard so far, found by a walk over neighbouring words: there are few.
#[derive(Default)]
struct Sources {
    ssrcs: Vec<u32>,
    /// One for each of `ssrcs`.
    windows: Vec<ReplayWindow>,
}

impl Sources {
    /// Where `ssrc` stands, `None` for a new one.
    fn find(&self, ssrc: u32) -> Result<Option<usize>, OpenError> {
        let place = self.ssrcs.iter().position(|other| *other == ssrc);
        if place.is_none() && self.ssrcs.len() >= SSRCS_MAX {
            return Err(OpenError::TooManySources);
        }
        Ok(place)
    }

    /// The index that `sequence_number` stands for: the nearest to the highest so far, and not below zero (RFC 3711 §3.3.1).
    fn index_of(&self, source: Option<usize>, sequence_number: u16) -> Result<u64, OpenError> {
        let Some(window) = source.and_then(|place| self.windows.get(place)) else {
            return Ok(u64::from(sequence_number));
        };
        let highest = window.highest();
        let diff = i64::from(diff_u16(sequence_number, low_u16(highest)));
        match highest.checked_add_signed(diff) {
            Some(index) if index >> 48 == 0 => Ok(index),
            // Before the first packet there is, or behind the last one.
            _ => Err(OpenError::TooOld {
                index: u64::from(sequence_number),
            }),
        }
    }

    fn check(&self, source: Option<usize>, index: u64) -> Result<(), OpenError> {
        let Some(window) = source.and_then(|place| self.windows.get(place)) else {
            return Ok(());
        };
        window.check(index).map_err(|not_new| match not_new {
            NotNew::Seen => OpenError::Replayed { index },
            NotNew::TooOld => OpenError::TooOld { index },
        })
    }

    fn accept(&mut self, source: Option<usize>, ssrc: u32, index: u64) {
        match source.and_then(|place| self.windows.get_mut(place)) {
            Some(window) => window.accept(index),
            None => {
                self.ssrcs.push(ssrc);
                self.windows.push(ReplayWindow::new(index));
            }
        }
    }

    fn forget(&mut self, ssrc: u32) {
        if let Some(place) = self.ssrcs.iter().position(|other| *other == ssrc) {
            self.ssrcs.swap_remove(place);
            self.windows.swap_remove(place);
        }
    }
}
