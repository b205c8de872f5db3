//! What 20 ms of a call take without sockets: the coders alone, and Legs with all there is around them.

use std::net::SocketAddr;
use std::task::Waker;
use std::time::{Duration, Instant};

use anyhow::Context;
use gateway_media::codec::{CODED_LEN_MAX, Decoder, Encoder, frame_len};
use gateway_media::leg::{Leg, Start, To};
use gateway_media::opus::{Decode, Encode, Opus, OpusCodec, SAMPLES_MAX};
use gateway_sip::negotiate::{Agreed, Codec, Keys};
use gateway_sip::sdp::Direction;
use model::TrackId;
use model::plain::{self, PAYLOAD_LEN_MAX};
use nix::time::{ClockId, clock_gettime};
use sfu_rtp::rtcp::NtpTime;

use super::engine::Calls;
use super::{FRAME, speech};

/// How many frames are measured: the clock of a thread is exact enough for a tenth of that.
const FRAMES: u64 = 5_000;

/// A codec to Opus and Opus to the codec, 20 ms each, in seconds.
pub(super) fn coders(codec: Codec) -> anyhow::Result<f64> {
    let rate = codec.sample_rate();
    let (coded, opus) = (speech::packets(codec)?, speech::opus(rate)?);
    let mut to_opus = <Opus as OpusCodec>::Encoder::new(rate).context("no Opus")?;
    let mut of_opus = <Opus as OpusCodec>::Decoder::new(rate).context("no Opus")?;
    let mut of_phone = Decoder::new(codec).context("no such codec")?;
    let mut to_phone = Encoder::new(codec).context("no such codec")?;
    measure(|number| {
        let mut samples = [0; SAMPLES_MAX];
        let mut bytes = [0; CODED_LEN_MAX];
        of_phone.decode(speech::at(&coded, number), &mut samples);
        std::hint::black_box(to_opus.encode(&samples[..frame_len(rate)], &mut bytes));

        let made = of_opus.decode(speech::at(&opus, number), &mut samples);
        to_phone.encode(&samples[..made.unwrap_or(0)], &mut bytes);
        std::hint::black_box(&bytes);
    })
}

/// The same through the Legs of a call and their rings.
pub(super) fn legs(calls: Calls) -> anyhow::Result<f64> {
    match calls {
        Calls::Room(codec) => leg(codec),
        Calls::Joined(codec) => joined(codec),
    }
}

fn leg(codec: Codec) -> anyhow::Result<f64> {
    let (coded, opus) = (speech::packets(codec)?, speech::opus(48_000)?);
    let remote = SocketAddr::from(([192, 0, 2, 1], 4_000));
    let mut now = Instant::now();
    let mut leg = new_leg(now, codec, remote)?;
    let (mut room, end) = plain::pair(Waker::noop().clone());
    leg.connect(To::Room(end, TrackId::from_u128(1)));
    measure(|number| {
        let mut packet = speech::packet(codec, 1, number, speech::at(&coded, number));
        leg.handle_rtp(now, remote, &mut packet);
        // A ring that is full is seen by nobody here; it is not.
        room.send(&speech::header(number), speech::at(&opus, number))
            .ok();
        leg.tick(now, |_, _, bytes| {
            std::hint::black_box(bytes);
        });
        let mut payload = [0; PAYLOAD_LEN_MAX];
        while room.receive(&mut payload).is_some() {}
        now += FRAME;
    })
}

fn joined(codec: Codec) -> anyhow::Result<f64> {
    let coded = speech::packets(codec)?;
    let remote = SocketAddr::from(([192, 0, 2, 1], 4_000));
    let mut now = Instant::now();
    let mut legs = [new_leg(now, codec, remote)?, new_leg(now, codec, remote)?];
    let ends: [_; 2] = plain::pair(Waker::noop().clone()).into();
    for (leg, end) in legs.iter_mut().zip(ends) {
        leg.connect(To::Leg(end, TrackId::from_u128(1)));
    }
    measure(|number| {
        for leg in &mut legs {
            let mut packet = speech::packet(codec, 1, number, speech::at(&coded, number));
            leg.handle_rtp(now, remote, &mut packet);
        }
        for leg in &mut legs {
            leg.tick(now, |_, _, bytes| {
                std::hint::black_box(bytes);
            });
        }
        now += FRAME;
    })
}

/// A Leg that has agreed on a codec.
pub(super) fn new_leg(now: Instant, codec: Codec, remote: SocketAddr) -> anyhow::Result<Leg> {
    let start = Start {
        wall: NtpTime(0),
        ssrc: 1,
        sequence: 1,
        timestamp: 1,
        cname: "a name".to_owned(),
        silent_after: Duration::from_secs(60),
    };
    let mut leg = Leg::new(now, start);
    leg.agree(now, &agreed(codec, remote))?;
    Ok(leg)
}

/// Plain RTP both ways.
pub(super) fn agreed(codec: Codec, remote: SocketAddr) -> Agreed {
    Agreed {
        remote,
        remote_rtcp: remote,
        codec,
        payload_type: codec.payload_type(),
        receiving: vec![(codec.payload_type(), codec)],
        dtmf: Some((101, 101)),
        comfort_noise: false,
        direction: Direction::SendRecv,
        packet_ms: 20,
        keys: Keys::None,
    }
}

/// The processor time of one call of `work`, in seconds.
fn measure(mut work: impl FnMut(u64)) -> anyhow::Result<f64> {
    for number in 0..FRAMES / 10 {
        work(number);
    }
    let before = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    for number in 0..FRAMES {
        work(FRAMES / 10 + number);
    }
    let spent = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)? - before;
    Ok(Duration::from(spent).as_secs_f64() / FRAMES as f64)
}
