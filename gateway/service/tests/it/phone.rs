//! The sound of a caller: an RTP socket that speaks A-law, with the gateway's packets as its clock.

use std::f64::consts::TAU;
use std::time::Duration;

use gateway_media::g711::Law;
use gateway_sip::{Method, Request, Response, StatusCode};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::peer::Peer;

const PATIENCE: Duration = Duration::from_secs(20);

/// Samples in 20 ms, and in a second.
pub(crate) const FRAME: usize = 160;
pub(crate) const SECOND: usize = 8_000;

/// The payload types that are offered.
const PCMA: u8 = 8;
const EVENT: u8 = 101;

/// How many packets a press has, and how many of those say that it is over.
const PRESS: u8 = 6;
const PRESS_ENDS: u8 = 3;

/// A caller who has been answered.
pub(crate) struct Phone {
    pub(crate) peer: Peer,
    pub(crate) invite: Request,
    /// What the gateway answered.
    pub(crate) answer: Response,
    sound: UdpSocket,
    /// What is said: a tone of so many Hz, or silence.
    pub(crate) says: Option<f64>,
    sequence: u16,
    timestamp: u32,
    /// Keys that are to be pressed, and the packet of the present press.
    keys: Vec<u8>,
    press: u8,
    pressed_at: u32,
}

impl Phone {
    /// Calls `target` and is answered with a final code, or by early media.
    pub(crate) async fn call(mut peer: Peer, target: &str, code: StatusCode) -> Self {
        let sound = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = sound.local_addr().unwrap().port();
        let mut invite = peer.invite(target);
        offer(&mut invite, port);
        peer.send(&invite.to_bytes()).await;
        Self::answered(peer, invite, sound, code).await
    }

    /// The same where the INVITE was sent already.
    pub(crate) async fn answered(
        mut peer: Peer,
        invite: Request,
        sound: UdpSocket,
        code: StatusCode,
    ) -> Self {
        let answer = peer.code(&Method::Invite, code).await;
        if code.is_success() {
            let ack = peer.inside(&Method::Ack, 1, &invite, &answer);
            peer.send(&ack.to_bytes()).await;
        }
        Self {
            peer,
            invite,
            answer,
            sound,
            says: None,
            sequence: 0,
            timestamp: 0,
            keys: Vec::new(),
            press: 0,
            pressed_at: 0,
        }
    }

    /// Presses these keys, one after the other, while something is heard.
    pub(crate) fn press(&mut self, keys: &str) {
        let event = |key: char| match key {
            '*' => 10,
            '#' => 11,
            digit => u8::try_from(digit.to_digit(10).unwrap()).unwrap(),
        };
        self.keys.extend(keys.chars().rev().map(event));
    }

    /// Hears 20 ms, and says as much. RTCP goes to another port.
    pub(crate) async fn hear(&mut self) -> [i16; FRAME] {
        let mut packet = [0; 1_500];
        let received = timeout(PATIENCE, self.sound.recv_from(&mut packet)).await;
        let (len, from) = received.expect("something has to be heard").unwrap();
        let mut heard = [0; FRAME];
        if packet[1] & 0x7f == PCMA {
            Law::A.decode(&packet[12..len], &mut heard);
        }
        let said = self.packet();
        self.sound.send_to(&said, from).await.unwrap();
        heard
    }

    /// Hears so many milliseconds.
    pub(crate) async fn listen(&mut self, millis: usize) -> Vec<i16> {
        let mut all = Vec::new();
        while all.len() < millis * SECOND / 1_000 {
            all.extend(self.hear().await);
        }
        all
    }

    /// Hears until a tone is the most of what is heard.
    pub(crate) async fn until_tone(&mut self, hertz: f64) {
        for _ in 0..1_000 {
            let heard = self.hear().await;
            let all: f64 = heard.iter().map(|it| f64::from(*it).powi(2)).sum();
            let tone = amplitude(&heard, hertz).powi(2) * FRAME as f64 / 2.0;
            if all > 1e6 && tone > all * 0.8 {
                return;
            }
        }
        panic!("{hertz} Hz is never heard");
    }

    /// Hangs up.
    pub(crate) async fn hang_up(&mut self) {
        let bye = self
            .peer
            .inside(&Method::Bye, 2, &self.invite, &self.answer);
        self.peer.send(&bye.to_bytes()).await;
        self.peer.code(&Method::Bye, StatusCode::OK).await;
    }

    /// Is hung up on, while it goes on hearing.
    pub(crate) async fn is_hung_up(&mut self) {
        let bye = self.peer.request(&Method::Bye).await;
        self.peer.answer(&bye, StatusCode::OK, |_| {}).await;
    }

    fn packet(&mut self) -> Vec<u8> {
        let now = self.timestamp;
        self.timestamp += 160;
        if self.press == 0 && !self.keys.is_empty() {
            self.press = PRESS + 2;
            self.pressed_at = now;
        }
        if self.press > 2 {
            self.press -= 1;
            let left = self.press - 1;
            let key = *self.keys.last().unwrap();
            let ends = if left <= PRESS_ENDS { 0x80 } else { 0 };
            let duration = u16::try_from(now - self.pressed_at).unwrap() + 160;
            let [high, low] = duration.to_be_bytes();
            if self.press == 2 {
                self.keys.pop();
            }
            return self.rtp(EVENT, self.pressed_at, &[key, ends | 10, high, low]);
        }
        self.press = self.press.saturating_sub(1);
        let mut said = [0; FRAME];
        if let Some(hertz) = self.says {
            for (sample, at) in said.iter_mut().zip(now..) {
                let angle = TAU * hertz * f64::from(at) / SECOND as f64;
                #[expect(clippy::cast_possible_truncation, reason = "it fits")]
                let value = (8_000.0 * angle.sin()).round() as i16;
                *sample = value;
            }
        }
        let mut coded = [0; FRAME];
        Law::A.encode(&said, &mut coded);
        self.rtp(PCMA, now, &coded)
    }

    fn rtp(&mut self, payload_type: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0, 0, 0, 9]);
        packet.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }
}

/// Puts a description into an INVITE that names this port.
pub(crate) fn offer(invite: &mut Request, port: u16) {
    let sdp = String::from_utf8(std::mem::take(&mut invite.body)).unwrap();
    invite.body = sdp.replace(" 40000 ", &format!(" {port} ")).into_bytes();
}

/// The peak of the tone of `hertz` in what has 8,000 samples a second.
pub(crate) fn amplitude(samples: &[i16], hertz: f64) -> f64 {
    let (sine, cosine) = fit(samples, hertz);
    sine.hypot(cosine)
}

/// How much louder the tone of `hertz` is than all else, in dB.
pub(crate) fn snr(samples: &[i16], hertz: f64) -> f64 {
    let (sine, cosine) = fit(samples, hertz);
    let (mut signal, mut noise) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        let angle = TAU * hertz * at as f64 / SECOND as f64;
        let ideal = sine * angle.sin() + cosine * angle.cos();
        signal += ideal * ideal;
        noise += (f64::from(*sample) - ideal).powi(2);
    }
    10.0 * (signal / noise).log10()
}

fn fit(samples: &[i16], hertz: f64) -> (f64, f64) {
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        let angle = TAU * hertz * at as f64 / SECOND as f64;
        sine += f64::from(*sample) * angle.sin();
        cosine += f64::from(*sample) * angle.cos();
    }
    let scale = 2.0 / samples.len() as f64;
    (sine * scale, cosine * scale)
}
