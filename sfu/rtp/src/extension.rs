//! Header extensions: the two forms of a block, and which kind an id means on one leg (RFC 8285).

mod values;

pub use values::{
    AbsCaptureTime, AbsSendTime, AudioLevel, PlayoutDelay, read_identifier,
    read_transport_sequence_number,
};

use crate::DecodeError;

/// What a block in the one-byte form begins with (RFC 8285 §4.2).
pub const ONE_BYTE_PROFILE: u16 = 0xBEDE;

/// What a block in the two-byte form begins with; the last four bits are the application's (RFC 8285 §4.3).
pub const TWO_BYTE_PROFILE: u16 = 0x1000;

/// The highest id in the one-byte form (RFC 8285 §4.2).
pub const ONE_BYTE_ID_MAX: u8 = 14;

/// The longest value in the one-byte form, in bytes (RFC 8285 §4.2).
pub const ONE_BYTE_LEN_MAX: usize = 16;

/// The extensions of a block in their order, each as its id and its value.
///
/// Ends at the first one that runs over the end of the block; what came before stands.
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    block: &'a [u8],
    at: usize,
    two_byte: bool,
}

impl<'a> Extensions<'a> {
    /// The extensions of `block`, the content behind the four bytes that tell `profile` and length. A profile that
    /// RFC 8285 does not know has none.
    #[must_use]
    pub fn new(profile: u16, block: &'a [u8]) -> Extensions<'a> {
        let two_byte = profile & 0xFFF0 == TWO_BYTE_PROFILE;
        let known = two_byte || profile == ONE_BYTE_PROFILE;
        Extensions {
            block: if known { block } else { &[] },
            at: 0,
            two_byte,
        }
    }

    /// Where in the block the extension last returned ends.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Goes to the end of the block: what is left is not to be read.
    fn end(&mut self) -> Option<(u8, &'a [u8])> {
        self.at = self.block.len();
        None
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let first = *self.block.get(self.at)?;
            let (id, len, start) = if self.two_byte {
                if first == 0 {
                    self.at += 1;
                    continue; // Padding (RFC 8285 §4.3).
                }
                let Some(len) = self.block.get(self.at + 1) else {
                    return self.end();
                };
                (first, usize::from(*len), self.at + 2)
            } else {
                match first >> 4 {
                    0 => {
                        self.at += 1;
                        continue; // Padding (RFC 8285 §4.2).
                    }
                    15 => return self.end(), // Reserved: nothing behind it is read (RFC 8285 §4.2).
                    id => (id, usize::from(first & 0x0F) + 1, self.at + 1),
                }
            };
            let Some(value) = self.block.get(start..start + len) else {
                return self.end();
            };
            self.at = start + len;
            return Some((id, value));
        }
    }
}

macro_rules! extension_kinds {
    ($($(#[$doc:meta])* $name:ident = $uri:literal;)*) => {
        /// A kind of extension we know, whatever id it has on a leg.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ExtensionKind {
            $($(#[$doc])* $name,)*
        }

        impl ExtensionKind {
            /// All kinds.
            pub const ALL: &[ExtensionKind] = &[$(ExtensionKind::$name,)*];

            /// How an SDP names the kind (RFC 8285 §5).
            #[must_use]
            pub fn uri(self) -> &'static str {
                match self {
                    $(ExtensionKind::$name => $uri,)*
                }
            }

            /// The kind an SDP names.
            #[must_use]
            pub fn from_uri(uri: &str) -> Option<ExtensionKind> {
                match uri {
                    $($uri => Some(ExtensionKind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

extension_kinds! {
    /// How loud an audio packet is (RFC 6464).
    AudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
    /// A number across all packets of a transport (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportSequenceNumber = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    /// When the packet was sent, in 24 bits.
    AbsSendTime = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
    /// The m-section the packet belongs to (RFC 8843 §15).
    Mid = "urn:ietf:params:rtp-hdrext:sdes:mid";
    /// The Layer of a simulcast the packet belongs to (RFC 8852 §3.1).
    Rid = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
    /// The Layer a retransmission belongs to (RFC 8852 §3.2).
    RepairedRid = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
    /// How the camera is turned (3GPP TS 26.114 §7.4.5).
    VideoOrientation = "urn:3gpp:video-orientation";
    /// How long the receiver should wait before it plays.
    PlayoutDelay = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
    /// Whether the picture is a screen.
    ContentType = "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type";
    /// When a frame passed the stations of its sender.
    VideoTiming = "http://www.webrtc.org/experiments/rtp-hdrext/video-timing";
    /// Colour space and HDR metadata.
    ColorSpace = "http://www.webrtc.org/experiments/rtp-hdrext/color-space";
    /// What a frame depends on (the AV1 RTP specification, appendix A).
    DependencyDescriptor =
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
    /// When the frame was captured, by the clock of its source.
    AbsCaptureTime = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
    /// Bitrates and resolutions of all Layers a sender sends.
    VideoLayersAllocation = "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00";
    /// The offset from the timestamp to the time of sending (RFC 5450).
    TransmissionOffset = "urn:ietf:params:rtp-hdrext:toffset";
}

/// Which id each kind has on one leg: what a media section negotiated (RFC 8285 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionMap {
    /// By kind; zero means that the kind was not negotiated.
    ids: [u8; ExtensionKind::ALL.len()],
}

impl ExtensionMap {
    /// A map without any kind.
    #[must_use]
    pub fn new() -> ExtensionMap {
        ExtensionMap::default()
    }

    /// Gives `kind` the id `id`, in place of the id it had, and of the kind that had `id`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::WrongValue`] for the ids 0 and 15, which mean something else in the one-byte form (RFC 8285 §4.2).
    pub fn set(&mut self, kind: ExtensionKind, id: u8) -> Result<(), DecodeError> {
        if id == 0 || id == 15 {
            return Err(DecodeError::WrongValue {
                field: "extension id",
                got: u32::from(id),
            });
        }
        for other in &mut self.ids {
            if *other == id {
                *other = 0;
            }
        }
        self.ids[kind as usize] = id;
        Ok(())
    }

    /// The id of `kind`.
    #[must_use]
    pub fn id(&self, kind: ExtensionKind) -> Option<u8> {
        let id = self.ids[kind as usize];
        (id != 0).then_some(id)
    }

    /// The kind that `id` means.
    #[must_use]
    pub fn kind(&self, id: u8) -> Option<ExtensionKind> {
        let at = self.ids.iter().position(|other| *other == id && id != 0)?;
        ExtensionKind::ALL.get(at).copied()
    }

    /// The kinds that have an id.
    pub fn iter(&self) -> impl Iterator<Item = (ExtensionKind, u8)> {
        ExtensionKind::ALL
            .iter()
            .filter_map(|kind| Some((*kind, self.id(*kind)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;

    #[test]
    fn blocks_are_read_to_their_end_or_to_what_breaks_them() {
        let check = |profile, block: &str, expected: &[(u8, &[u8])]| {
            let block = hex(block);
            let read: Vec<_> = Extensions::new(profile, &block).collect();
            assert_eq!(read, expected, "{profile:#06x} {block:02x?}");
        };

        check(0xBEDE, "", &[]);
        check(0xBEDE, "10aa", &[(1, &[0xaa])]);
        check(
            0xBEDE,
            "10aa 0000 21bbcc",
            &[(1, &[0xaa]), (2, &[0xbb, 0xcc])],
        );
        check(0xBEDE, "10aa f0bb 20cc", &[(1, &[0xaa])]);
        check(0xBEDE, "0f 10aa", &[(1, &[0xaa])]);
        check(0xBEDE, "10aa 22bbcc", &[(1, &[0xaa])]);
        check(0xBEDE, "10", &[]);
        check(0x1000, "", &[]);
        check(0x1000, "0100", &[(1, &[])]);
        check(
            0x100F,
            "0101aa 00 1002bbcc",
            &[(1, &[0xaa]), (16, &[0xbb, 0xcc])],
        );
        check(0x1000, "0101aa 02", &[(1, &[0xaa])]);
        check(0x1000, "0101aa 0202bb", &[(1, &[0xaa])]);
        check(0x1000, "0f01aa", &[(15, &[0xaa])]);
        check(0x1010, "0101aa", &[]);
        check(0xBEDF, "10aa", &[]);
        check(0x0000, "10aa", &[]);
    }

    #[test]
    fn every_kind_is_found_by_its_uri() {
        for kind in ExtensionKind::ALL {
            assert_eq!(ExtensionKind::from_uri(kind.uri()), Some(*kind));
        }
        assert_eq!(
            ExtensionKind::from_uri("urn:ietf:params:rtp-hdrext:sdes"),
            None
        );
    }

    #[test]
    fn a_map_goes_both_ways() {
        let mut map = ExtensionMap::new();
        assert_eq!(map.kind(0), None);
        for id in [0, 15] {
            assert!(map.set(ExtensionKind::Mid, id).is_err());
        }

        map.set(ExtensionKind::AudioLevel, 1).unwrap();
        map.set(ExtensionKind::TransmissionOffset, 200).unwrap();
        map.set(ExtensionKind::Mid, 4).unwrap();
        assert_eq!(map.id(ExtensionKind::AudioLevel), Some(1));
        assert_eq!(map.kind(200), Some(ExtensionKind::TransmissionOffset));
        assert_eq!(map.kind(2), None);
        assert_eq!(map.iter().count(), 3);

        map.set(ExtensionKind::Rid, 4).unwrap();
        assert_eq!(map.id(ExtensionKind::Mid), None);
        assert_eq!(map.kind(4), Some(ExtensionKind::Rid));
        map.set(ExtensionKind::Rid, 5).unwrap();
        assert_eq!(map.kind(4), None);
    }
}
