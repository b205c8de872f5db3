//! Where a key frame of H.264 begins (RFC 6184 §5).

use crate::bytes::u16_at;

/// An IDR picture's slice (ITU-T H.264, table 7-1).
const UNIT_IDR: u8 = 5;
/// A sequence parameter set.
const UNIT_SPS: u8 = 7;
/// Several units in one packet (RFC 6184 §5.7.1).
const UNIT_STAP_A: u8 = 24;
/// A part of a unit (RFC 6184 §5.8).
const UNIT_FU_A: u8 = 28;

/// What begins in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units {
    /// A sequence parameter set: in WebRTC a key frame comes behind it, with the same timestamp.
    pub parameter_sets: bool,
    /// A slice of an IDR picture.
    pub idr: bool,
}

/// Which units begin in `payload`: alone, several in one packet, or the first part of one. Never fails; of a broken packet it
/// tells what stands before the break. Source: RFC 6184 §5.6 to §5.8.
#[must_use]
pub fn units(payload: &[u8]) -> Units {
    let mut units = Units::default();
    match payload.first().map(|first| first & 0x1F) {
        Some(UNIT_STAP_A) => {
            let mut at = 1;
            while let Some(len) = u16_at(payload, at) {
                let unit = payload.get(at + 2).filter(|_| len > 0);
                units.begin(unit);
                at += 2 + usize::from(len);
            }
        }
        Some(UNIT_FU_A) => units.begin(payload.get(1).filter(|header| **header & 0x80 != 0)),
        _ => units.begin(payload.first()),
    }
    units
}

/// Whether a key frame begins in `payload`, or the parameter sets in front of one.
#[must_use]
pub fn is_key_frame(payload: &[u8]) -> bool {
    let units = units(payload);
    units.parameter_sets || units.idr
}

impl Units {
    fn begin(&mut self, header: Option<&u8>) {
        match header.map(|header| header & 0x1F) {
            Some(UNIT_IDR) => self.idr = true,
            Some(UNIT_SPS) => self.parameter_sets = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;

    #[test]
    fn units_are_found() {
        let check = |payload: &str, parameter_sets, idr| {
            let payload = hex(payload);
            assert_eq!(
                units(&payload),
                Units {
                    parameter_sets,
                    idr
                },
                "{payload:02x?}"
            );
            assert_eq!(is_key_frame(&payload), parameter_sets || idr);
        };

        check("", false, false);
        check("65 88", false, true);
        check("67 42", true, false);
        check("68 ce", false, false);
        check("41 9a", false, false);
        check("78 0002 6742 0002 68ce", true, false);
        check("78 0002 6742 0002 68ce 0002 6588", true, true);
        check("78 0002 4142 0001 65", false, true);
        check("78 0000 6742", false, false);
        check("78 0009 6742", true, false);
        check("78 00", false, false);
        check("7c 85", false, true);
        check("7c 05", false, false);
        check("7c 45", false, false);
        check("7c 87", true, false);
        check("7c", false, false);
    }
}
