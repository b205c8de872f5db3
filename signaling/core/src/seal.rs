//! What the server hands out and gets back: sealed Calls and the keys that resume a Session.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{AccountId, CallId, DeviceId, MessageId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use model::CallState;

/// The first byte of a sealed state, for later forms.
const VERSION: u8 = 1;
/// How much of the HMAC a resume key shows.
const RESUME_TAG_LEN: usize = 24;

/// The installation's secret: 32 bytes, the same on every node and after every restart.
#[derive(Clone)]
pub struct SealSecret([u8; 32]);

impl SealSecret {
    /// Takes 32 random bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for SealSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealSecret(…)")
    }
}

/// A Call as it is sealed: its state and what idempotence and ringing need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) state: CallState,
    /// The epoch of its last transition.
    pub(crate) changed_in: u32,
    pub(crate) ring_until: Timestamp,
    pub(crate) applied: Vec<MessageId>,
    /// The callee's Devices that were rung: any of them may have answered or heard of an answer.
    pub(crate) rung: Vec<DeviceId>,
    /// The Call that takes over, or would: who holds this one can bring that one back too, should a crash come before
    /// its own Devices have heard of it. It has no successor itself.
    pub(crate) successor: Option<Box<Snapshot>>,
}

/// Seals and opens, and makes resume keys, with keys derived from the installation's secret.
pub(crate) struct Sealer {
    /// GCM-SIV, because a nonce that repeats after a restart must not give the key away.
    aead: LessSafeKey,
    resume: hmac::Key,
}

impl Sealer {
    pub(crate) fn new(secret: &SealSecret) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
        let derive = |label: &[u8]| hmac::sign(&root, label);
        let seal = derive(b"offhook call.seal v1");
        let resume = derive(b"offhook session.resume v1");

        let unbound = UnboundKey::new(&AES_256_GCM_SIV, seal.as_ref())
            .expect("HMAC-SHA-256 gives the 32 bytes of the key");

        Self {
            aead: LessSafeKey::new(unbound),
            resume: hmac::Key::new(hmac::HMAC_SHA256, resume.as_ref()),
        }
    }

    /// Seals `snapshot` for `account`; `random` chooses the nonce.
    pub(crate) fn seal(&self, account: AccountId, snapshot: &Snapshot, random: u128) -> String {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&random.to_be_bytes()[..NONCE_LEN]);

        let mut text =
            serde_json::to_vec(snapshot).expect("a snapshot is plain fields with string keys");
        let tag = self
            .aead
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated(account, snapshot.state.call)),
                &mut text,
            )
            .expect("a snapshot is far shorter than the cipher's limit");

        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + text.len() + tag.as_ref().len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// Opens what [`Sealer::seal`] made for this Account and Call; `None` for anything else.
    pub(crate) fn open(&self, account: AccountId, call: CallId, sealed: &str) -> Option<Snapshot> {
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (version, rest) = bytes.split_first_mut()?;
        let (nonce, text) = rest.split_at_mut_checked(NONCE_LEN)?;
        if *version != VERSION {
            return None;
        }

        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self
            .aead
            .open_in_place(nonce, Aad::from(associated(account, call)), text)
            .ok()?;
        let snapshot: Snapshot = serde_json::from_slice(text).ok()?;

        (snapshot.state.call == call).then_some(snapshot)
    }

    /// The `generation`th key of a Session.
    pub(crate) fn resume_key(&self, session: SessionId, generation: u32) -> String {
        let mut key = [0; 4 + RESUME_TAG_LEN];
        key[..4].copy_from_slice(&generation.to_be_bytes());
        key[4..].copy_from_slice(&self.resume_tag(session, generation));
        URL_SAFE_NO_PAD.encode(key)
    }

    /// Which generation's key of the Session this is; `None` for a key we did not make.
    pub(crate) fn resume_generation(&self, session: SessionId, key: &str) -> Option<u32> {
        let bytes = URL_SAFE_NO_PAD.decode(key).ok()?;
        let (generation, tag) = bytes.split_first_chunk::<4>()?;
        let generation = u32::from_be_bytes(*generation);
        let expected = self.resume_tag(session, generation);

        constant_time::verify_slices_are_equal(tag, &expected)
            .ok()
            .map(|()| generation)
    }

    fn resume_tag(&self, session: SessionId, generation: u32) -> [u8; RESUME_TAG_LEN] {
        let mut message = [0; 20];
        message[..16].copy_from_slice(&session.as_u128().to_be_bytes());
        message[16..].copy_from_slice(&generation.to_be_bytes());

        let full = hmac::sign(&self.resume, &message);
        let mut tag = [0; RESUME_TAG_LEN];
        tag.copy_from_slice(&full.as_ref()[..RESUME_TAG_LEN]);
        tag
    }
}

/// What a sealed state is bound to.
fn associated(account: AccountId, call: CallId) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&account.as_u128().to_be_bytes());
    bytes[16..].copy_from_slice(&call.as_u128().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Media, Party, Phase};

    #[test]
    fn a_seal_opens_for_its_account_and_call_alone() {
        let sealer = Sealer::new(&SealSecret::new([7; 32]));
        let stranger = Sealer::new(&SealSecret::new([8; 32]));
        let (account, call) = (AccountId::from_u128(1), CallId::from_u128(2));
        let snapshot = snapshot(call);
        let sealed = sealer.seal(account, &snapshot, 3);

        assert_eq!(sealer.open(account, call, &sealed), Some(snapshot));
        assert_eq!(sealer.open(AccountId::from_u128(9), call, &sealed), None);
        assert_eq!(sealer.open(account, CallId::from_u128(9), &sealed), None);
        assert_eq!(stranger.open(account, call, &sealed), None);

        for at in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(sealer.open(account, call, &forged), None);
        }
        for end in 0..sealed.len() {
            assert_eq!(sealer.open(account, call, &sealed[..end]), None);
        }
    }

    #[test]
    fn a_resume_key_tells_its_generation_and_fits_one_session() {
        let sealer = Sealer::new(&SealSecret::new([7; 32]));
        let (session, other) = (SessionId::from_u128(1), SessionId::from_u128(2));
        let key = sealer.resume_key(session, 5);

        assert_eq!(sealer.resume_generation(session, &key), Some(5));
        assert_eq!(sealer.resume_generation(other, &key), None);
        assert_eq!(sealer.resume_generation(session, "AAAABQ"), None);
        assert_eq!(sealer.resume_generation(session, ""), None);
        assert_eq!(sealer.resume_generation(session, "%"), None);
    }

    fn snapshot(call: CallId) -> Snapshot {
        let party = |user: &str| Party {
            user: user.parse().unwrap(),
            name: None,
            device: None,
            key: None,
            phone: None,
        };

        Snapshot {
            state: CallState {
                call,
                rev: 1,
                epoch: 1,
                phase: Phase::Ringing,
                media: Media {
                    audio: true,
                    video: false,
                },
                caller: party("alice"),
                callee: party("bob"),
                ringing: Vec::new(),
                held_by: Vec::new(),
                created_at: Timestamp::from_millis(1),
                answered_at: None,
                ended_at: None,
                commitment: None,
                transfer: None,
                replaces: None,
                from_room: None,
                room: None,
                end: None,
            },
            changed_in: 1,
            ring_until: Timestamp::from_millis(2),
            applied: vec![MessageId::from_u128(3)],
            rung: Vec::new(),
            successor: None,
        }
    }
}
