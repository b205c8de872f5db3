//! The sound of a phone call: what comes to the ports of a Leg, between ticks of its clock and descriptions.

use std::net::SocketAddr;
use std::task::Waker;
use std::time::{Duration, Instant};

use gateway_media::leg::{Leg, Start, To};
use gateway_sip::negotiate::{Agreed, Codec, Keys};
use gateway_sip::sdp::Direction;
use model::TrackId;
use model::plain::{self, PAYLOAD_LEN_MAX, Packet};
use sfu_rtp::rtcp::NtpTime;

const CODECS: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];

/// Bounds the work of one input.
const STEPS_MAX: usize = 200;

/// A script: the first byte of each step says what happens, the next how many bytes follow and belong to it. What leaves never falls back in its
/// numbers, and nothing panics.
pub(crate) fn rtp_leg(data: &[u8]) {
    let mut now = Instant::now();
    let start = Start {
        wall: NtpTime(1 << 60),
        ssrc: 1,
        sequence: 0,
        timestamp: u32::MAX - 100,
        cname: "a name".to_owned(),
        silent_after: Duration::from_secs(1),
    };
    let mut leg = Leg::new(now, start);
    let (mut room, end) = plain::pair(Waker::noop().clone());
    leg.connect(To::Room(end, TrackId::from_u128(1)));
    let mut rest = data;
    let mut sent = Vec::new();
    for _ in 0..STEPS_MAX {
        let [what, len, tail @ ..] = rest else {
            break;
        };
        let (bytes, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let from = address(what >> 6);
        match what & 7 {
            0 | 1 => leg.handle_rtp(now, from, &mut bytes.to_vec()),
            2 => leg.handle_rtcp(now, from, &mut bytes.to_vec()),
            3 => {
                let agreed = agreed(bytes.first().copied().unwrap_or(0));
                assert_eq!(leg.agree(now, &agreed), Ok(()));
            }
            4 => {
                let packet = Packet {
                    slot: what >> 6,
                    track: TrackId::from_u128(u128::from(*len)),
                    sequence: u16::from(*len),
                    timestamp: u32::from(*len) * 960,
                    marker: false,
                    level: None,
                };
                // What finds no room is dropped, as for anybody.
                room.send(&packet, bytes).ok();
            }
            _ => {
                leg.tick(now, |_, _, bytes| {
                    if let [0x80, kind, high, low, ..] = bytes
                        && !(200..=207).contains(kind)
                    {
                        sent.push(u16::from_be_bytes([*high, *low]));
                    }
                });
                now += Duration::from_millis(20);
                let mut payload = [0; PAYLOAD_LEN_MAX];
                while room.receive(&mut payload).is_some() {}
            }
        }
        while leg.poll_event().is_some() {}
    }
    // What was lost before it was passed on is missing in what is sent; no number comes again, and none falls back.
    assert!(
        sent.windows(2)
            .all(|pair| (1..0x8000).contains(&pair[1].wrapping_sub(pair[0])))
    );
    let figures = leg.figures();
    assert!((0.0..=4.6).contains(&figures.mos));
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 4_000))
}

fn agreed(byte: u8) -> Agreed {
    let codec = CODECS[usize::from(byte & 3)];
    Agreed {
        remote: address(byte >> 6),
        remote_rtcp: address(byte >> 6),
        codec,
        payload_type: codec.payload_type(),
        receiving: CODECS.map(|codec| (codec.payload_type(), codec)).to_vec(),
        dtmf: Some((101, 101)),
        comfort_noise: byte & 4 != 0,
        direction: Direction::new(byte & 8 == 0, byte & 16 == 0),
        packet_ms: 20,
        keys: Keys::None,
    }
}
