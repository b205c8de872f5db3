//! str0m in RTP mode, as an SFU would use it: a connection for each subscriber, and a call of the system for each packet.
//!
//! Each is connected to another of its kind in memory, so that everything is negotiated; what isn't media goes there, outside of
//! the time that is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, SeqNo};
use str0m::{Candidate, Input, Output, Rtc, RtcConfig};

use super::{Source, processor_time};
use crate::socket::Socket;

/// How long a connection may take to come about, in steps of a millisecond of simulated time.
const CONNECT_STEPS_MAX: u32 = 5_000;

pub(super) struct Theirs {
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    near: Rtc,
    far: Rtc,
    addresses: [SocketAddr; 2],
    mid: Mid,
    payload_type: str0m::media::Pt,
    to: SocketAddr,
    /// What the near end said besides media.
    control: Vec<Vec<u8>>,
}

impl Theirs {
    pub(super) fn new(now: Instant, to: &[SocketAddr]) -> anyhow::Result<Self> {
        let connect = |to: &SocketAddr| Subscriber::connect(now, *to);
        let subscribers = to.iter().map(connect).collect::<anyhow::Result<_>>()?;
        Ok(Self { subscribers })
    }

    /// A burst to everybody; the time it took and the packets it came to.
    pub(super) fn send(
        &mut self,
        source: &mut Source,
        socket: &Socket,
    ) -> anyhow::Result<(Duration, u64)> {
        let (now, packets) = source.burst();
        let packets: Vec<_> = packets
            .into_iter()
            .map(|plain| {
                let payload: Arc<[u8]> = plain.payload.into();
                (
                    SeqNo::from(plain.sequence),
                    plain.timestamp,
                    plain.marker,
                    payload,
                )
            })
            .collect();
        let mut count = 0;
        let before = processor_time()?;
        for subscriber in &mut self.subscribers {
            for (sequence, timestamp, marker, payload) in &packets {
                let write = RtpWrite::new(
                    subscriber.payload_type,
                    *sequence,
                    *timestamp,
                    now,
                    payload.clone(),
                );
                let write = write.marker(*marker).nackable(true);
                let mut direct = subscriber.near.direct_api();
                let stream = direct.stream_tx_by_mid(subscriber.mid, None);
                stream.context("no stream")?.write_rtp(write);
            }
            // Once for all of them, which is the cheapest way.
            subscriber.near.handle_input(Input::Timeout(now))?;
            count += subscriber.flush(socket)?;
        }
        let spent = processor_time()? - before;
        for subscriber in &mut self.subscribers {
            subscriber.converse(now)?;
        }
        Ok((spent, count))
    }
}

impl Subscriber {
    fn connect(now: Instant, to: SocketAddr) -> anyhow::Result<Self> {
        let [near_at, far_at] = [([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into()];
        let end = |address: SocketAddr| {
            let mut rtc = RtcConfig::new().set_rtp_mode(true).build(now);
            rtc.add_local_candidate(Candidate::host(address, "udp")?);
            anyhow::Ok(rtc)
        };
        let (mut near, mut far) = (end(near_at)?, end(far_at)?);
        let mut changes = near.sdp_api();
        let mid = changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        let (offer, pending) = changes.apply().context("nothing to negotiate")?;
        let answer = far.sdp_api().accept_offer(offer)?;
        near.sdp_api().accept_answer(pending, answer)?;
        let vp8 = |params: &str0m::format::PayloadParams| {
            params.spec().codec == str0m::format::Codec::Vp8
        };
        let payload_type = near.codec_config().find(vp8).context("no VP8")?.pt();

        let mut subscriber = Self {
            near,
            far,
            addresses: [near_at, far_at],
            mid,
            payload_type,
            to,
            control: Vec::new(),
        };
        let mut at = now;
        for _ in 0..CONNECT_STEPS_MAX {
            subscriber.converse(at)?;
            if subscriber.near.is_connected() && subscriber.far.is_connected() {
                return Ok(subscriber);
            }
            at += Duration::from_millis(1);
        }
        anyhow::bail!("no connection")
    }

    /// Sends what waits at the near end: media to the socket.
    fn flush(&mut self, socket: &Socket) -> anyhow::Result<u64> {
        let mut count = 0;
        loop {
            match self.near.poll_output()? {
                Output::Timeout(_) => return Ok(count),
                Output::Event(_) => {}
                Output::Transmit(transmit) if is_rtp(&transmit.contents) => {
                    socket.plain().send_to(&transmit.contents, self.to)?;
                    count += 1;
                }
                Output::Transmit(transmit) => self.control.push(transmit.contents.to_vec()),
            }
        }
    }

    /// Lets both ends say what isn't media, until nobody has anything to say.
    fn converse(&mut self, now: Instant) -> anyhow::Result<()> {
        let [near_at, far_at] = self.addresses;
        self.near.handle_input(Input::Timeout(now))?;
        self.far.handle_input(Input::Timeout(now))?;
        loop {
            let mut to_far = std::mem::take(&mut self.control);
            drain(&mut self.near, &mut to_far)?;
            let mut to_near = Vec::new();
            drain(&mut self.far, &mut to_near)?;
            if to_far.is_empty() && to_near.is_empty() {
                return Ok(());
            }
            for bytes in to_far {
                self.far
                    .handle_input(receive(now, near_at, far_at, &bytes)?)?;
            }
            for bytes in to_near {
                ensure!(!is_rtp(&bytes), "media from a subscriber");
                self.near
                    .handle_input(receive(now, far_at, near_at, &bytes)?)?;
            }
        }
    }
}

fn drain(rtc: &mut Rtc, said: &mut Vec<Vec<u8>>) -> anyhow::Result<()> {
    loop {
        match rtc.poll_output()? {
            Output::Timeout(_) => return Ok(()),
            Output::Event(_) => {}
            Output::Transmit(transmit) => said.push(transmit.contents.to_vec()),
        }
    }
}

fn receive(
    now: Instant,
    from: SocketAddr,
    to: SocketAddr,
    bytes: &[u8],
) -> anyhow::Result<Input<'_>> {
    Ok(Input::Receive(
        now,
        Receive::new(Protocol::Udp, from, to, bytes)?,
    ))
}

/// Whether a datagram is media (RFC 7983, RFC 5761).
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(
        sfu_rtp::classify(datagram),
        Some(sfu_rtp::DatagramKind::Rtp)
    )
}
