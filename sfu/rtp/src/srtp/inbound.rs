//! Opens what the other side has sealed (RFC 3711 §3.3, §3.4).

use std::collections::VecDeque;
use std::fmt;

use crate::DecodeError;
use crate::bytes::{low_u16, low_u32, u32_at};
use crate::packet::Header;
use crate::sequence::diff_u16;
use crate::srtp::cipher::{PacketNonce, Trailer};
use crate::srtp::replay::{NotNew, ReplayWindow};
use crate::srtp::{Ciphers, KeyError, Profile};

/// How many sources of a transport are known in full, each of RTP and RTCP: sixteen simulcast cameras with RTX have 96. Another takes
/// the place of the one that was silent for longest.
pub const SSRCS_MAX: usize = 128;

/// Of how many more the highest index is remembered, so that they can go on and nothing old of them comes twice. A client that offers
/// its camera anew takes up to six of them.
pub const SSRCS_SILENT_MAX: usize = 1024;

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

        let source = self.rtp.find(ssrc);
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
        let source = self.rtcp.find(ssrc);
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
    /// When each of `ssrcs` was heard last, in packets.
    heard: Vec<u64>,
    packets: u64,
    /// Those that gave their place to others, and the highest index of each; the longest silent first.
    silent: VecDeque<(u32, u64)>,
}

/// What is known of a source.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Nothing.
    New,
    /// All, at this place.
    Known(usize),
    /// Its highest index.
    Silent(u64),
}

impl Sources {
    fn find(&self, ssrc: u32) -> Source {
        if let Some(place) = self.ssrcs.iter().position(|other| *other == ssrc) {
            return Source::Known(place);
        }
        let silent = self.silent.iter().find(|(other, _)| *other == ssrc);
        silent.map_or(Source::New, |(_, highest)| Source::Silent(*highest))
    }

    /// The index that `sequence_number` stands for: the nearest to the highest so far, and not below zero (RFC 3711 §3.3.1).
    fn index_of(&self, source: Source, sequence_number: u16) -> Result<u64, OpenError> {
        let highest = match source {
            Source::New => return Ok(u64::from(sequence_number)),
            Source::Known(place) => self.windows[place].highest(),
            Source::Silent(highest) => highest,
        };
        let diff = i64::from(diff_u16(sequence_number, low_u16(highest)));
        match highest.checked_add_signed(diff) {
            Some(index) if index >> 48 == 0 => Ok(index),
            // Before the first packet there is, or behind the last one.
            _ => Err(OpenError::TooOld {
                index: u64::from(sequence_number),
            }),
        }
    }

    fn check(&self, source: Source, index: u64) -> Result<(), OpenError> {
        let checked = match source {
            Source::New => Ok(()),
            Source::Known(place) => self.windows[place].check(index),
            Source::Silent(highest) if index > highest => Ok(()),
            Source::Silent(_) => Err(NotNew::TooOld),
        };
        checked.map_err(|not_new| match not_new {
            NotNew::Seen => OpenError::Replayed { index },
            NotNew::TooOld => OpenError::TooOld { index },
        })
    }

    fn accept(&mut self, source: Source, ssrc: u32, index: u64) {
        self.packets += 1;
        match source {
            Source::Known(place) => {
                self.windows[place].accept(index);
                self.heard[place] = self.packets;
            }
            Source::New => self.insert(ssrc, ReplayWindow::new(index)),
            Source::Silent(highest) => {
                self.silent.retain(|(other, _)| *other != ssrc);
                let mut window = ReplayWindow::until(highest);
                window.accept(index);
                self.insert(ssrc, window);
            }
        }
    }

    fn insert(&mut self, ssrc: u32, window: ReplayWindow) {
        if self.ssrcs.len() >= SSRCS_MAX
            && let Some(place) = (0..self.ssrcs.len()).min_by_key(|place| self.heard[*place])
        {
            if self.silent.len() >= SSRCS_SILENT_MAX {
                self.silent.pop_front();
            }
            self.heard.swap_remove(place);
            let silent = self.ssrcs.swap_remove(place);
            let window = self.windows.swap_remove(place);
            self.silent.push_back((silent, window.highest()));
        }
        self.ssrcs.push(ssrc);
        self.windows.push(window);
        self.heard.push(self.packets);
    }
}
