//! The SRTP keys of a Participant, read where DTLS exports them (RFC 5764 §4.2).
//!
//! The library's DTLS is wrapped: what the handshake exports goes on to the library, and a copy to us. From then on we alone seal;
//! what the library would send itself as SRTP and SRTCP has to be dropped ([`is_media`]), for two senders under one key would use
//! one counter twice, which gives a GCM key away.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sfu_rtp::srtp::{self, DtlsRole, Inbound, Outbound, Profile};
use sfu_rtp::{DatagramKind, classify};
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
    SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider, from_feature_flags};

/// What a handshake exported.
struct Exported {
    profile: Profile,
    role: DtlsRole,
    material: Vec<u8>,
}

/// Where the keys of one Participant arrive.
#[derive(Clone, Default)]
pub(crate) struct KeySlot(Arc<Mutex<Option<Exported>>>);

impl fmt::Debug for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySlot")
    }
}

impl KeySlot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Exported>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The two directions of SRTP, once after the handshake; `None` before, after, and where the keys don't fit the profile.
    pub(crate) fn take(&self) -> Option<(Inbound, Outbound)> {
        let exported = self.lock().take()?;
        let sessions = srtp::sessions(exported.profile, exported.role, &exported.material);
        sessions
            .inspect_err(|error| tracing::warn!(%error, "SRTP keys can't be used"))
            .ok()
    }
}

thread_local! {
    /// For the library's instance that is being made: it says nothing about whom it is for.
    static NEXT: RefCell<Option<KeySlot>> = const { RefCell::new(None) };
}

/// The library's cryptography with our DTLS in place of its own.
pub(crate) fn crypto() -> CryptoProvider {
    static TAP: Tap = Tap;
    CryptoProvider {
        dtls_provider: &TAP,
        ..from_feature_flags()
    }
}

/// Makes something of the library whose keys go to `slot`.
pub(crate) fn with_slot<T>(slot: &KeySlot, make: impl FnOnce() -> T) -> T {
    NEXT.set(Some(slot.clone()));
    let made = make();
    NEXT.take();
    made
}

/// Whether the library sends this as media, which is ours to send.
pub(crate) fn is_media(datagram: &[u8]) -> bool {
    matches!(
        classify(datagram),
        Some(DatagramKind::Rtp | DatagramKind::Rtcp)
    )
}

#[derive(Debug)]
struct Tap;

impl DtlsProvider for Tap {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        dtls_version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let provider = from_feature_flags().dtls_provider;
        let inner = provider.new_dtls(cert, now, dtls_version, mtu)?;
        let slot = NEXT.take().unwrap_or_default();
        Ok(Box::new(Tapped { inner, slot }))
    }
}

/// A DTLS endpoint whose exported keys are copied.
#[derive(Debug)]
struct Tapped {
    inner: Box<dyn DtlsInstance>,
    slot: KeySlot,
}

impl DtlsInstance for Tapped {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let is_active = self.inner.is_active();
        let output = self.inner.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output
            && let Some(profile) = known(*profile)
        {
            let role = match is_active {
                true => DtlsRole::Client,
                false => DtlsRole::Server,
            };
            *self.slot.lock() = Some(Exported {
                profile,
                role,
                material: material.to_vec(),
            });
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}

fn known(profile: SrtpProfile) -> Option<Profile> {
    match profile {
        SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
        SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
        SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmSha1_80),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_of_the_library_is_told_from_what_it_has_to_send() {
        let rtp = [0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        let rtcp = [0x80, 200, 0, 1, 0, 0, 0, 1];
        assert!(is_media(&rtp) && is_media(&rtcp));

        let stun = [
            0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let dtls = [22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(!is_media(&stun) && !is_media(&dtls) && !is_media(&[]));
    }
}
