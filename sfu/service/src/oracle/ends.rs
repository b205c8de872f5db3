//! Two of the library's connections back to back in memory, in simulated time: a client, and what a server has for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu_rtp::srtp::{Inbound, Outbound};
use sfu_rtp::{DatagramKind, classify};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::keys::{self, KeySlot};

/// How many steps of a millisecond a connection may take to come about.
const CONNECT_STEPS_MAX: u32 = 5_000;

/// How long ago a packet may have been sent to be sent again.
const RESEND_AGE_MAX: Duration = Duration::from_secs(10);

/// Which end sends media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
}

/// One end, and what it has said and heard of media since somebody took it.
pub(super) struct End {
    pub(super) rtc: Rtc,
    address: SocketAddr,
    /// STUN and DTLS it wants to send.
    control: Vec<Vec<u8>>,
    /// SRTP and SRTCP it wants to send.
    pub(super) media: Vec<Vec<u8>>,
    pub(super) received: Vec<RtpPacket>,
}

/// Both ends of a connection. The library does what isn't media; media goes from one to the other only where a test has it go.
pub(super) struct Ends {
    pub(super) client: End,
    pub(super) server: End,
    keys: KeySlot,
    pub(super) mids: Vec<Mid>,
    pub(super) payload_type: Pt,
    pub(super) rtx_payload_type: Pt,
}

impl End {
    fn new(now: Instant, address: &str, make: impl FnOnce(RtcConfig) -> Rtc) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let day = Duration::from_secs(24 * 3600);
        let config = RtcConfig::new()
            .set_rtp_mode(true)
            .set_crypto_provider(Arc::new(keys::crypto()))
            // Sender reports would shift timestamps where encodings change.
            .set_rtcp_report_interval_video(day);
        let mut rtc = make(config);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        rtc.handle_input(Input::Timeout(now)).unwrap();

        Self {
            rtc,
            address,
            control: Vec::new(),
            media: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Takes a datagram of the other end.
    pub(super) fn take(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let receive = Receive::new(Protocol::Udp, from, self.address, datagram).unwrap();
        self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
        self.poll();
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, now: Instant) {
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.poll();
    }

    fn poll(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(transmit) => {
                    let is_media = keys::is_media(&transmit.contents);
                    let said = if is_media {
                        &mut self.media
                    } else {
                        &mut self.control
                    };
                    said.push(transmit.contents.to_vec());
                }
                Output::Event(Event::RtpPacket(packet)) => self.received.push(packet),
                Output::Event(_) => {}
            }
        }
    }
}

impl Ends {
    /// A connection on which one end sends so many streams of VP8.
    pub(super) fn connect(now: Instant, sender: Sender, streams: usize) -> (Self, Instant) {
        let keys = KeySlot::default();
        let mut client = End::new(now, "192.0.2.1:1000", |config| config.build(now));
        let mut server = End::new(now, "192.0.2.2:2000", |config| {
            keys::with_slot(&keys, || config.build(now))
        });

        let (from, to) = match sender {
            Sender::Client => (&mut client.rtc, &mut server.rtc),
            Sender::Server => (&mut server.rtc, &mut client.rtc),
        };
        let mut changes = from.sdp_api();
        let mids = (0..streams)
            .map(|_| changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None))
            .collect();
        let (offer, pending) = changes.apply().unwrap();
        let answer = to.sdp_api().accept_offer(offer).unwrap();
        from.sdp_api().accept_answer(pending, answer).unwrap();
        let vp8 = from
            .codec_config()
            .find(|params| params.spec().codec == Codec::Vp8)
            .unwrap();
        let (payload_type, rtx_payload_type) = (vp8.pt(), vp8.resend().unwrap());

        let mut ends = Self {
            client,
            server,
            keys,
            mids,
            payload_type,
            rtx_payload_type,
        };
        let mut now = now;
        for _ in 0..CONNECT_STEPS_MAX {
            if ends.client.rtc.is_connected() && ends.server.rtc.is_connected() {
                ends.client.media.clear();
                ends.server.media.clear();
                return (ends, now);
            }
            now += Duration::from_millis(1);
            ends.pass(now);
        }
        panic!("no connection");
    }

    /// The server's keys, as a shard has them.
    pub(super) fn server_keys(&self) -> (Inbound, Outbound) {
        self.keys.take().unwrap()
    }

    /// Lets time pass for both ends, and has them say to each other what isn't media.
    pub(super) fn pass(&mut self, now: Instant) {
        self.client.pass(now);
        self.server.pass(now);
        loop {
            let to_server = std::mem::take(&mut self.client.control);
            let to_client = std::mem::take(&mut self.server.control);
            if to_server.is_empty() && to_client.is_empty() {
                return;
            }
            for datagram in to_server {
                self.server.take(now, self.client.address, &datagram);
            }
            for datagram in to_client {
                self.client.take(now, self.server.address, &datagram);
            }
        }
    }

    /// Media of the client reaches the server's end of the library.
    pub(super) fn server_hears(&mut self, now: Instant, datagram: &[u8]) {
        self.server.take(now, self.client.address, datagram);
    }

    /// Media of the server, whoever has sealed it, reaches the client.
    pub(super) fn client_hears(&mut self, now: Instant, datagram: &[u8]) {
        self.client.take(now, self.server.address, datagram);
    }

    /// SSRCs of the server's stream: media and resends.
    pub(super) fn server_ssrcs(&mut self) -> (u32, u32) {
        let mut direct = self.server.rtc.direct_api();
        let stream = direct.stream_tx_by_mid(self.mids[0], None).unwrap();
        // Whatever is asked for is sent again.
        stream.set_rtx_cache(1024, RESEND_AGE_MAX, None);
        (*stream.ssrc(), *stream.rtx().unwrap())
    }
}

/// The SSRC of a sealed packet of media; `None` of anything else (RFC 3550 §5.1).
pub(super) fn ssrc(datagram: &[u8]) -> Option<u32> {
    let is_rtp = classify(datagram) == Some(DatagramKind::Rtp);
    let bytes = datagram.get(8..12).filter(|_| is_rtp)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Whether a sealed packet of media ends with padding (RFC 3550 §5.1).
pub(super) fn has_padding(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0x20 != 0)
}
