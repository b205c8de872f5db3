//! Keys for the sound of a Leg by DTLS (RFC 5763, 5764).
//!
//! ```text
//!  Agreed, keys by DTLS ──▶ Handshake ◀─▶ the other side, over the port of RTP
//!                               └─ the certificate is the one that was told ─▶ Agreed, with its keys
//! ```
//!
//! An agreement waits in a [`Handshake`] until its keys are there; until then nothing is sent and nothing is heard. What proves whose the keys
//! are is the fingerprint in the other side's description, so only who can change what is signalled can be heard in its stead.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use dimpl::certificate::{
    calculate_fingerprint, format_fingerprint, generate_self_signed_certificate,
};
use dimpl::{Config, Dtls, DtlsCertificate, KeyingMaterial, Output, SrtpProfile};
use gateway_sip::negotiate::{Agreed, Keys};
use gateway_sip::sdes::{MasterKey, Suite};
use zeroize::Zeroizing;

/// How long a handshake may take, with all that is begun anew.
const HANDSHAKE_MAX: Duration = Duration::from_secs(20);

/// How often one is begun that broke down: what breaks it need not be from the other side.
const TRIES_MAX: u8 = 4;

/// What a handshake may send at once, in bytes.
const MTU: usize = 1_200;

/// Room for what the handshake sends.
const RECORD_LEN: usize = 2_048;

/// How much longer a key and salt of the longest are.
const KEY_LEN_MAX: usize = 48;

/// The certificate that this process shows, made when it began.
pub(super) struct Identity {
    certificate: DtlsCertificate,
    config: Arc<Config>,
}

impl Identity {
    /// A certificate of its own.
    ///
    /// # Errors
    ///
    /// The library makes none.
    pub(super) fn new() -> anyhow::Result<Self> {
        let certificate =
            generate_self_signed_certificate().context("no certificate for DTLS made")?;
        let config = Config::builder()
            .require_client_certificate(true)
            .mtu(MTU)
            .handshake_timeout(HANDSHAKE_MAX)
            .build();
        Ok(Self {
            certificate,
            config: Arc::new(config.context("DTLS can't be set up")?),
        })
    }

    /// As an SDP has it (RFC 8122 §5).
    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.certificate.certificate)
    }

    fn begin(&self, now: Instant, active: bool) -> Dtls {
        let mut dtls = Dtls::new_12(self.config.clone(), self.certificate.clone(), now);
        dtls.set_active(active);
        dtls
    }
}

fn fingerprint(certificate: &[u8]) -> String {
    let hash = calculate_fingerprint(certificate);
    format!("sha-256 {}", format_fingerprint(&hash))
}

/// What becomes of an agreement.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing yet.
    Wait,
    /// It holds from now on; its keys are there.
    Agree(Box<Agreed>),
    /// Its keys can't be had.
    Fail,
}

/// The keys of a Leg, and the agreement that waits for them.
#[derive(Default)]
pub(super) struct Handshake {
    session: Option<Box<Session>>,
    waits: Option<Box<Agreed>>,
}

impl Handshake {
    /// Takes an agreement. One that needs no keys of DTLS, or whose keys are there, comes back at once.
    pub(super) fn agree(
        &mut self,
        now: Instant,
        identity: &Arc<Identity>,
        agreed: Box<Agreed>,
        send: impl FnMut(SocketAddr, &[u8]),
    ) -> Next {
        let Keys::Dtls {
            fingerprint,
            active,
        } = &agreed.keys
        else {
            *self = Self::default();
            return Next::Agree(agreed);
        };
        match &mut self.session {
            // The same session, wherever it goes on (RFC 8842 §5.2).
            Some(session) if session.is(fingerprint, *active) => session.told = agreed.remote,
            session => {
                let new = Session::new(now, identity, fingerprint, *active, agreed.remote);
                *session = Some(Box::new(new));
            }
        }
        self.waits = Some(agreed);
        self.handle_timeout(now, send)
    }

    /// Whether [`Handshake::handle_timeout`] has something to do.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.due <= now)
    }

    /// A datagram of DTLS came.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        send: impl FnMut(SocketAddr, &[u8]),
    ) -> Next {
        let Some(session) = &mut self.session else {
            return Next::Wait;
        };
        if !session.takes(from) {
            return Next::Wait;
        }
        let fed = |dtls: &mut Dtls| {
            dtls.handle_timeout(now)?; // Its clock comes first.
            dtls.handle_packet(bytes)
        };
        let goes_on = session.step(now, fed, send);
        self.next(goes_on)
    }

    /// Time has passed.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        send: impl FnMut(SocketAddr, &[u8]),
    ) -> Next {
        match &mut self.session {
            Some(session) if session.due <= now => {
                let goes_on = session.step(now, |dtls| dtls.handle_timeout(now), send);
                self.next(goes_on)
            }
            _ => self.next(true),
        }
    }

    fn next(&mut self, goes_on: bool) -> Next {
        if !goes_on {
            *self = Self::default();
            return Next::Fail;
        }
        let keys = self
            .session
            .as_ref()
            .and_then(|session| session.keys.clone());
        match (keys, self.waits.take()) {
            (Some(keys), Some(agreed)) => Next::Agree(Box::new(Agreed { keys, ..*agreed })),
            (_, waits) => {
                self.waits = waits;
                Next::Wait
            }
        }
    }
}

/// One session of DTLS.
struct Session {
    identity: Arc<Identity>,
    dtls: Dtls,
    /// What the other side's certificate has to be.
    fingerprint: String,
    active: bool,
    /// Where the other side says that it is.
    told: SocketAddr,
    /// Where it is, and whether that is at the host it tells.
    peer: SocketAddr,
    is_settled: bool,
    tries: u8,
    until: Instant,
    due: Instant,
    /// The certificate was the right one.
    is_proven: bool,
    material: Option<(KeyingMaterial, SrtpProfile)>,
    is_connected: bool,
    keys: Option<Keys>,
    records: Vec<u8>,
}

impl Session {
    fn new(
        now: Instant,
        identity: &Arc<Identity>,
        fingerprint: &str,
        active: bool,
        told: SocketAddr,
    ) -> Self {
        Self {
            identity: identity.clone(),
            dtls: identity.begin(now, active),
            fingerprint: fingerprint.to_owned(),
            active,
            told,
            peer: told,
            is_settled: false,
            tries: 1,
            until: now + HANDSHAKE_MAX,
            due: now,
            is_proven: false,
            material: None,
            is_connected: false,
            keys: None,
            records: vec![0; RECORD_LEN],
        }
    }

    fn is(&self, fingerprint: &str, active: bool) -> bool {
        self.active == active && self.fingerprint.eq_ignore_ascii_case(fingerprint)
    }

    /// Whether a datagram may be the other side's: from the host that it tells, or, until that was heard, from anywhere, for it may sit
    /// behind a NAT. Once the keys are there, only from where they were made.
    fn takes(&mut self, from: SocketAddr) -> bool {
        if self.is_connected {
            return from == self.peer;
        }
        let is_there = from.ip() == self.told.ip();
        if self.is_settled && !is_there {
            return false;
        }
        self.is_settled |= is_there;
        self.peer = from;
        true
    }

    /// Lets the session do something, and then what it wants done. `false` when no keys will come of it.
    fn step(
        &mut self,
        now: Instant,
        work: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>,
        send: impl FnMut(SocketAddr, &[u8]),
    ) -> bool {
        if self.keys.is_none() && now >= self.until {
            tracing::info!("DTLS with a phone was not done in time, call ended");
            return false;
        }
        if let Err(error) = work(&mut self.dtls) {
            if self.is_connected {
                // The keys hold; what came was none of it.
                self.due = now + HANDSHAKE_MAX;
                return true;
            }
            tracing::debug!(%error, "DTLS with a phone broke down");
            if self.tries >= TRIES_MAX {
                tracing::info!(%error, "DTLS with a phone failed, call ended");
                return false;
            }
            self.tries += 1;
            self.dtls = self.identity.begin(now, self.active);
            (self.is_proven, self.material) = (false, None);
            if self.dtls.handle_timeout(now).is_err() {
                return false;
            }
        }
        self.follow(send);
        if self.is_connected && self.keys.is_none() {
            if !self.is_proven {
                tracing::warn!(
                    "A phone shows another certificate than its description names, call ended"
                );
                return false;
            }
            self.keys = self
                .material
                .take()
                .and_then(|(material, profile)| keys(&material, profile, self.active));
            if self.keys.is_none() {
                tracing::warn!("A phone agreed on no SRTP by DTLS, call ended");
                return false;
            }
        }
        // Nobody answering is noticed in time, too.
        if self.keys.is_none() {
            self.due = self.due.min(self.until);
        }
        true
    }

    fn follow(&mut self, mut send: impl FnMut(SocketAddr, &[u8])) {
        loop {
            match self.dtls.poll_output(&mut self.records) {
                Output::Packet(packet) => send(self.peer, packet),
                Output::BufferTooSmall { needed } => self.records.resize(needed, 0),
                Output::PeerCert(certificate) => {
                    let theirs = fingerprint(certificate);
                    self.is_proven = theirs.eq_ignore_ascii_case(&self.fingerprint);
                }
                Output::KeyingMaterial(material, profile) => {
                    self.material = Some((material, profile));
                }
                Output::Connected => self.is_connected = true,
                Output::Timeout(at) => {
                    self.due = at;
                    return;
                }
                // There is nothing else in such a session, and its end is the call's.
                _ => {}
            }
        }
    }
}

/// What the exporter gives: the client's key, the server's, the client's salt, the server's (RFC 5764 §4.2).
fn keys(material: &[u8], profile: SrtpProfile, active: bool) -> Option<Keys> {
    let (suite, key_len, salt_len) = match profile {
        SrtpProfile::AES128_CM_SHA1_80 => (Suite::Aes128CmSha1_80, 16, 14),
        SrtpProfile::AEAD_AES_128_GCM => (Suite::AeadAes128Gcm, 16, 12),
        SrtpProfile::AEAD_AES_256_GCM => (Suite::AeadAes256Gcm, 32, 12),
        _ => return None,
    };
    if material.len() != 2 * (key_len + salt_len) {
        return None;
    }
    let (keys, salts) = material.split_at(2 * key_len);
    let master = |at: usize| {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN_MAX));
        bytes.extend_from_slice(&keys[at * key_len..][..key_len]);
        bytes.extend_from_slice(&salts[at * salt_len..][..salt_len]);
        MasterKey::new(suite, &bytes)
    };
    let (client, server) = (master(0)?, master(1)?);
    let (local, remote) = match active {
        true => (client, server),
        false => (server, client),
    };
    Some(Keys::Sdes {
        suite,
        local,
        remote,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::UdpSocket;
    use std::process::{Command, Stdio};

    use base64::Engine;
    use gateway_sip::negotiate::Codec;
    use gateway_sip::sdp::Direction;

    use super::*;

    const HERE: &str = "192.0.2.1:4000";
    const THERE: &str = "192.0.2.2:5000";

    type Sent = Vec<(SocketAddr, Vec<u8>)>;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    fn agreed(remote: &str, fingerprint: String, active: bool) -> Box<Agreed> {
        Box::new(Agreed {
            remote: at(remote),
            remote_rtcp: at(remote),
            codec: Codec::Pcma,
            payload_type: 8,
            receiving: vec![(8, Codec::Pcma)],
            dtmf: None,
            comfort_noise: false,
            direction: Direction::SendRecv,
            packet_ms: 20,
            keys: Keys::Dtls {
                fingerprint,
                active,
            },
        })
    }

    /// Two sides, the first of which begins.
    struct World {
        now: Instant,
        sides: [Handshake; 2],
        identities: [Arc<Identity>; 2],
        agreed: [Option<Agreed>; 2],
        failed: [bool; 2],
        /// What is on its way to each.
        sent: [Sent; 2],
        /// How many datagrams are lost.
        lose: usize,
    }

    impl World {
        fn new() -> Self {
            Self {
                now: Instant::now(),
                sides: Default::default(),
                identities: [(); 2].map(|()| Arc::new(Identity::new().unwrap())),
                agreed: [None, None],
                failed: [false, false],
                sent: Default::default(),
                lose: 0,
            }
        }

        fn begin(&mut self, fingerprints: [String; 2]) {
            let [here, there] = fingerprints;
            self.agree(0, agreed(THERE, there, true));
            self.agree(1, agreed(HERE, here, false));
        }

        fn own(&self) -> [String; 2] {
            [0, 1].map(|side: usize| self.identities[side].fingerprint())
        }

        fn agree(&mut self, side: usize, agreed: Box<Agreed>) {
            let (sent, identity) = (&mut self.sent[1 - side], &self.identities[side]);
            let send = |to, bytes: &[u8]| sent.push((to, bytes.to_vec()));
            let next = self.sides[side].agree(self.now, identity, agreed, send);
            self.note(side, next);
        }

        fn note(&mut self, side: usize, next: Next) {
            match next {
                Next::Wait => {}
                Next::Agree(agreed) => self.agreed[side] = Some(*agreed),
                Next::Fail => self.failed[side] = true,
            }
        }

        fn run(&mut self, steps: usize) {
            for _ in 0..steps {
                for side in [0, 1] {
                    let from = at([THERE, HERE][side]);
                    for (to, bytes) in std::mem::take(&mut self.sent[side]) {
                        assert_eq!(to, at([HERE, THERE][side]));
                        if self.lose > 0 {
                            self.lose -= 1;
                            continue;
                        }
                        let sent = &mut self.sent[1 - side];
                        let send = |to, bytes: &[u8]| sent.push((to, bytes.to_vec()));
                        let next = self.sides[side].handle(self.now, from, &bytes, send);
                        self.note(side, next);
                    }
                    let sent = &mut self.sent[1 - side];
                    let send = |to, bytes: &[u8]| sent.push((to, bytes.to_vec()));
                    let next = self.sides[side].handle_timeout(self.now, send);
                    self.note(side, next);
                }
                self.now += Duration::from_millis(20);
            }
        }
    }

    #[test]
    fn both_sides_have_the_same_keys_though_datagrams_are_lost() {
        for lose in [0, 1, 3] {
            let mut t = World::new();
            t.lose = lose;
            t.begin(t.own());
            t.run(900);
            let [Some(here), Some(there)] = &t.agreed else {
                panic!("no keys after {lose} losses");
            };
            let (
                Keys::Sdes { local, remote, .. },
                Keys::Sdes {
                    local: theirs,
                    remote: ours,
                    ..
                },
            ) = (&here.keys, &there.keys)
            else {
                panic!("no keys");
            };
            assert_eq!((local, remote), (ours, theirs));
            assert_ne!(local, remote);
            // It is agreed on anew, and the session stays.
            let keys = here.keys.clone();
            let anew = agreed(THERE, t.own()[1].to_ascii_lowercase(), true);
            t.agreed = [None, None];
            t.agree(0, anew);
            assert_eq!(t.agreed[0].as_ref().map(|agreed| &agreed.keys), Some(&keys));
        }
    }

    #[test]
    fn another_certificate_than_was_told_gives_no_keys() {
        let mut t = World::new();
        let [here, _] = t.own();
        t.begin([here.clone(), here]);
        t.run(100);
        assert!(t.failed[0] && t.agreed[0].is_none());

        let mut t = World::new();
        let [_, there] = t.own();
        t.begin([there.clone(), there]);
        t.run(100);
        assert!(t.failed[1] && t.agreed[1].is_none());
    }

    #[test]
    fn nobody_who_answers_gives_no_keys() {
        let mut t = World::new();
        t.lose = usize::MAX;
        t.begin(t.own());
        t.run(999);
        assert_eq!(t.failed, [false, false]);
        t.run(2);
        assert_eq!(t.failed, [true, true]);
    }

    #[test]
    fn a_stranger_is_not_heard_once_the_other_side_was() {
        let mut t = World::new();
        t.begin(t.own());
        let hello = t.sent[1][0].1.clone();
        t.run(1);
        let mut answers = Vec::new();
        let stranger = at("203.0.113.66:6666");
        for _ in 0..8 {
            let send = |to, _: &[u8]| answers.push(to);
            let next = t.sides[1].handle(t.now, stranger, &hello, send);
            assert!(matches!(next, Next::Wait));
        }
        assert_eq!(answers, []);
        t.run(400);
        assert!(t.agreed.iter().all(Option::is_some));
    }

    /// Another library makes the same keys with us.
    #[test]
    fn openssl_makes_the_same_keys() {
        let identity = Arc::new(Identity::new().unwrap());
        let theirs = Identity::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pem = |name: &str, bytes: &[u8]| {
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            let lines: Vec<&str> = (0..text.len())
                .step_by(64)
                .map(|at| &text[at..text.len().min(at + 64)])
                .collect();
            format!(
                "-----BEGIN {name}-----\n{}\n-----END {name}-----\n",
                lines.join("\n")
            )
        };
        let files = [
            ("cert", pem("CERTIFICATE", &theirs.certificate.certificate)),
            ("key", pem("PRIVATE KEY", &theirs.certificate.private_key)),
        ];
        for (name, text) in &files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let started = Command::new("openssl")
            .args(["s_client", "-dtls1_2", "-connect"])
            .arg(socket.local_addr().unwrap().to_string())
            .args(["-cert", "cert", "-key", "key"])
            .args(["-use_srtp", "SRTP_AES128_CM_SHA1_80"])
            .args(["-keymatexport", "EXTRACTOR-dtls_srtp"])
            .args(["-keymatexportlen", "60"])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut openssl) = started else {
            eprintln!("SKIPPED: there is no openssl to speak DTLS with");
            return;
        };
        let send = |to: SocketAddr, bytes: &[u8]| {
            socket.send_to(bytes, to).unwrap();
        };
        let mut handshake = Handshake::default();
        // Where it is, its first datagram tells.
        let told = agreed("127.0.0.1:9", theirs.fingerprint(), false);
        let mut next = handshake.agree(Instant::now(), &identity, told, send);
        let mut buffer = [0; 2_048];
        let keys = loop {
            next = match next {
                Next::Wait => match socket.recv_from(&mut buffer) {
                    Ok((len, from)) => handshake.handle(Instant::now(), from, &buffer[..len], send),
                    Err(_) => handshake.handle_timeout(Instant::now(), send),
                },
                Next::Agree(agreed) => break agreed.keys,
                Next::Fail => panic!("no keys with OpenSSL"),
            };
        };
        let Keys::Sdes { local, remote, .. } = keys else {
            panic!("no keys");
        };
        let output = BufReader::new(openssl.stdout.take().unwrap());
        let material = output.lines().find_map(|line| {
            let line = line.unwrap();
            Some(line.trim().strip_prefix("Keying material: ")?.to_owned())
        });
        // The client's key, the server's, the client's salt, the server's; it is the client.
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|it| format!("{it:02X}")).collect() };
        let split = |key: &MasterKey| {
            let (key, salt) = key.bytes().split_at(16);
            (hex(key), hex(salt))
        };
        let (ours, theirs) = (split(&local), split(&remote));
        let expected = format!("{}{}{}{}", theirs.0, ours.0, theirs.1, ours.1);
        assert_eq!(material, Some(expected));
        drop(openssl.stdin.take());
        openssl.kill().unwrap();
        openssl.wait().unwrap();
    }
}
