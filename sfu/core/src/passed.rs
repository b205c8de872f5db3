//! Header extensions that go from publisher to subscriber, each under the number the subscriber negotiated (RFC 8285).
//!
//! In the packet cache they lie packed: one byte for which, one for the length, then the value.

use sfu_rtp::extension::{ExtensionKind, ExtensionMap};
use sfu_rtp::packet::Header;

/// What is passed on. All else is between one client and us (transport-wide numbers, send times, mid, rid), or is about the
/// publisher's own clock or sending.
pub(crate) const PASSED: [ExtensionKind; 5] = [
    ExtensionKind::AudioLevel,
    ExtensionKind::VideoOrientation,
    ExtensionKind::ContentType,
    ExtensionKind::ColorSpace,
    ExtensionKind::DependencyDescriptor,
];

/// The most bytes they are packed into: values are at most 255 bytes long.
pub(crate) const PACKED_LEN_MAX: usize = PASSED.len() * (2 + 255);

/// The mandatory fields of a dependency descriptor, in bytes (the AV1 RTP specification, §A.8.2).
const DESCRIPTOR_LEN_MIN: u8 = 3;

/// Packs what is passed on of a header into `packed`, which is cleared first.
pub(crate) fn pack(header: &Header<'_>, extensions: &ExtensionMap, packed: &mut Vec<u8>) {
    packed.clear();

    for (id, value) in header.extensions() {
        let index = extensions
            .kind(id)
            .and_then(|kind| PASSED.iter().position(|passed| *passed == kind));
        let (Some(index), Ok(len)) = (index.map(u8::try_from), u8::try_from(value.len())) else {
            continue;
        };
        // Shorter than its mandatory fields it is no dependency descriptor.
        if len < DESCRIPTOR_LEN_MIN
            && extensions.kind(id) == Some(ExtensionKind::DependencyDescriptor)
        {
            continue;
        }
        // A header that repeats an extension must not fill more than one of each can.
        if let Ok(index) = index
            && packed.len() + 2 + value.len() <= PACKED_LEN_MAX
        {
            packed.extend_from_slice(&[index, len]);
            packed.extend_from_slice(value);
        }
    }
}

/// What was packed.
pub(crate) fn unpack(mut packed: &[u8]) -> impl Iterator<Item = (ExtensionKind, &[u8])> {
    std::iter::from_fn(move || {
        let (&[index, len], rest) = packed.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(len))?;

        packed = rest;
        Some((*PASSED.get(usize::from(index))?, value))
    })
}
