//! A Participant's side of the library: SDP, ICE, DTLS and SCTP, and nothing of RTP.
//!
//! ```text
//! offer ──▶ [`Peer::accept`] ──▶ answer, and what it means ([`Agreed`])
//! STUN, DTLS ──▶ [`Peer::handle_datagram`], [`Peer::poll`] ──▶ what to send, keys, data channels
//! ```
//!
//! The library is large and reads what strangers send. Every call of it is fenced: where it panics the [`Peer`] is broken, and
//! nobody else is.

mod agreement;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::media::{MediaRefusal, SdpFault};
use sfu_core::Codec;
use sfu_rtp::srtp::{Inbound, Outbound};
use str0m::change::SdpOffer;
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::media::Mid;
use str0m::net::{Protocol, Receive, Transmit};
use str0m::{Candidate, Event, Input, Output, Rtc};

pub(crate) use self::agreement::{Agreed, AgreedSection, Feedback};
use self::agreement::{CODECS, ENCRYPTED, agreed, configuration, has_codec};
use crate::data::{Lane, WAITING_BYTES_MAX};
use crate::keys::{self, KeySlot};
use crate::sdp::{Kind, Offer, Section};

/// How often the library would report on streams it never sees.
const REPORTS_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The most things the library says in one go; whoever makes it say more is broken.
const OUTPUTS_MAX: usize = 1024;

/// The identity of this process toward all Participants, and the cryptography behind it.
#[derive(Clone)]
pub(crate) struct Identity {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
}

impl Identity {
    /// Makes a key and a certificate of its own, which peers know by the fingerprint in the answer.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let crypto = keys::crypto();
        let certificate = crypto.dtls_provider.generate_certificate();
        let certificate = certificate.ok_or_else(|| anyhow::anyhow!("no certificate for DTLS"))?;
        Ok(Self {
            crypto: Arc::new(crypto),
            certificate,
        })
    }
}

/// Why a Peer can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The library panicked.
    Panicked,
    /// DTLS failed.
    Dtls,
}

/// What came out of the library.
#[derive(Debug, Default)]
pub(crate) struct Polled {
    /// When it wants to be called again.
    pub(crate) deadline: Option<Instant>,
    /// DTLS is up.
    pub(crate) connected: bool,
    /// The peer has closed DTLS.
    pub(crate) closed: bool,
    /// Data channels that opened.
    pub(crate) opened: Vec<ChannelId>,
    /// What came over data channels; whether it is binary.
    pub(crate) messages: Vec<(ChannelId, bool, Vec<u8>)>,
}

/// The library's instance for a Participant.
pub(crate) struct Peer {
    /// Ten kilobytes that no packet of media touches: apart from what one does.
    rtc: Box<Rtc>,
    keys: KeySlot,
    codecs: &'static [(&'static str, Codec)],
    is_encrypted: bool,
    /// Of each [`Lane`], once a section of data channels was offered.
    channels: Option<[ChannelId; 2]>,
    /// Of the last offer: kind, name, and whether it was over.
    sections: Vec<(Kind, Mid, bool)>,
    is_broken: bool,
}

impl Peer {
    /// A Peer that can be reached at `addresses`, with the codecs of `offer` in its order, then with those a later offer may bring;
    /// where media is `encrypted` from end to end, with those alone of which enough stays in clear.
    pub(crate) fn new(
        now: Instant,
        identity: &Identity,
        addresses: &[(Protocol, SocketAddr)],
        offer: &Offer<'_>,
        encrypted: bool,
    ) -> Result<Self, Broken> {
        let keys = KeySlot::default();
        let codecs = match encrypted {
            true => &CODECS[..ENCRYPTED],
            false => &CODECS[..],
        };
        // Redundant audio has headers of its own inside of what is encrypted.
        let with_red = !encrypted;
        let rtc = fenced(|| {
            let config = configuration(identity, offer, codecs, with_red);
            let mut rtc = keys::with_slot(&keys, || config.build(now));
            for (protocol, address) in addresses {
                if let Some(candidate) = candidate(*protocol, *address) {
                    rtc.add_local_candidate(candidate);
                }
            }
            rtc
        })?;
        Ok(Self {
            rtc: Box::new(rtc),
            keys,
            codecs,
            is_encrypted: encrypted,
            channels: None,
            sections: Vec::new(),
            is_broken: false,
        })
    }

    /// Accepts an offer; sections for which `refuses` holds become inactive.
    ///
    /// # Errors
    ///
    /// What is wrong with the offer, or `Err(Err(_))` where the Peer is broken by it.
    pub(crate) fn accept(
        &mut self,
        offer: &Offer<'_>,
        refuses: impl Fn(&Section<'_>) -> bool,
    ) -> Result<Agreed, Result<MediaRefusal, Broken>> {
        if offer
            .sections
            .iter()
            .any(|section| !has_codec(section, self.codecs))
        {
            return Err(Ok(MediaRefusal::NoCodec));
        }
        if !self.is_followed_by(offer) {
            return Err(Ok(MediaRefusal::BadSdp(SdpFault::Unreadable)));
        }
        let text = offer.text(refuses);
        let accepted = self.call(|rtc| {
            let offer_read = SdpOffer::from_sdp_string(&text).ok()?;
            let answer = rtc.sdp_api().accept_offer(offer_read);
            let answer = answer
                .inspect_err(|error| tracing::debug!(%error, "Offer not accepted"))
                .ok()?;
            Some(agreed(rtc, offer, answer.to_sdp_string()))
        });
        let has_channels = offer
            .sections
            .iter()
            .any(|section| section.kind == Kind::Application);
        match accepted {
            Ok(Some(Some(agreed))) => {
                let place = |section: &Section<'_>| {
                    let mid = Mid::from(section.alias.as_str());
                    (section.kind, mid, section.is_rejected)
                };
                self.sections = offer.sections.iter().map(place).collect();
                // What goes through here can be read here: there is no such way where all is encrypted.
                if has_channels && self.channels.is_none() && !self.is_encrypted {
                    self.channels = Some(self.call(open_lanes).map_err(Err)?);
                }
                Ok(agreed)
            }
            Ok(Some(None)) => Err(Ok(MediaRefusal::NoCodec)),
            Ok(None) => Err(Ok(MediaRefusal::BadSdp(SdpFault::Unreadable))),
            Err(broken) => Err(Err(broken)),
        }
    }

    /// Whether each section of the last offer is there, at its place; another may have that of one that was over (RFC 8829 §5.2.2).
    fn is_followed_by(&self, offer: &Offer<'_>) -> bool {
        let goes_on = |((kind, mid, is_over), section): (&(Kind, Mid, bool), &Section<'_>)| {
            *is_over || (*kind == section.kind && *mid == Mid::from(section.alias.as_str()))
        };
        offer.sections.len() >= self.sections.len()
            && self.sections.iter().zip(&offer.sections).all(goes_on)
    }

    /// Takes in STUN that is signed, or DTLS.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
    ) -> Result<(), Broken> {
        let handled = self.call(|rtc| {
            let Some(read) = datagram.read() else {
                return Ok(()); // Not what its first byte says.
            };
            rtc.handle_input(Input::Receive(now, read))
        })?;
        handled.map_err(|error| {
            tracing::debug!(%error, "Datagram broke a peer");
            Broken::Dtls
        })
    }

    /// Lets its time pass.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), Broken> {
        let handled = self.call(|rtc| rtc.handle_input(Input::Timeout(now)))?;
        handled.map_err(|error| {
            tracing::debug!(%error, "Time broke a peer");
            Broken::Dtls
        })
    }

    /// Takes out all there is; `send` gets what is to be sent, which is never media.
    pub(crate) fn poll(&mut self, mut send: impl FnMut(&Transmit)) -> Result<Polled, Broken> {
        let mut polled = Polled::default();
        for _ in 0..OUTPUTS_MAX {
            match self.call(Rtc::poll_output)? {
                Ok(Output::Timeout(deadline)) => {
                    polled.deadline = Some(deadline);
                    return Ok(polled);
                }
                Ok(Output::Transmit(transmit)) => {
                    if !keys::is_media(&transmit.contents) {
                        send(&transmit);
                    }
                }
                Ok(Output::Event(Event::Connected)) => polled.connected = true,
                Ok(Output::Event(Event::Closed)) => polled.closed = true,
                Ok(Output::Event(Event::ChannelOpen(id, _))) => polled.opened.push(id),
                Ok(Output::Event(Event::ChannelData(data))) => {
                    polled.messages.push((data.id, data.binary, data.data));
                }
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "Peer is broken");
                    return Err(Broken::Dtls);
                }
            }
        }
        tracing::warn!("The library says ever more, peer given up");
        Err(Broken::Panicked)
    }

    /// Which lane a data channel is; `None` of one that is none of ours.
    pub(crate) fn lane(&self, channel: ChannelId) -> Option<Lane> {
        let channels = self.channels?;
        let of_lane = |(_, id): &(Lane, ChannelId)| *id == channel;
        let (lane, _) = Lane::ALL.into_iter().zip(channels).find(of_lane)?;
        Some(lane)
    }

    /// Puts a message into the queue of a lane, if it has room; what is to be sent for it comes by [`poll`](Self::poll).
    pub(crate) fn write(&mut self, lane: Lane, bytes: &[u8]) -> Result<Written, Broken> {
        self.write_within(lane, bytes, lane.waiting_bytes_max())
    }

    /// The same on the reliable lane, also behind what fills it.
    pub(crate) fn write_last(&mut self, bytes: &[u8]) -> Result<Written, Broken> {
        self.write_within(Lane::Reliable, bytes, WAITING_BYTES_MAX)
    }

    fn write_within(
        &mut self,
        lane: Lane,
        bytes: &[u8],
        waiting_max: usize,
    ) -> Result<Written, Broken> {
        let Some(channels) = self.channels else {
            return Ok(Written::Absent);
        };
        let id = channels[usize::from(lane.stream())];
        self.call(|rtc| {
            let Some(mut channel) = rtc.channel(id) else {
                return Written::Absent;
            };
            if channel.buffered_amount() + bytes.len() > waiting_max {
                return Written::Full;
            }
            match channel.write(true, bytes) {
                Ok(true) => Written::Taken,
                Ok(false) => Written::Full,
                Err(error) => {
                    tracing::debug!(%error, "Message not taken");
                    Written::Absent
                }
            }
        })
    }

    /// Closes a data channel that is none of ours.
    pub(crate) fn close_channel(&mut self, channel: ChannelId) -> Result<(), Broken> {
        self.call(|rtc| rtc.direct_api().close_data_channel(channel))
    }

    /// The keys, once after DTLS is up.
    pub(crate) fn take_keys(&self) -> Option<(Inbound, Outbound)> {
        self.keys.take()
    }

    /// Ends DTLS; what is to be sent for it comes by [`poll`](Self::poll).
    pub(crate) fn close(&mut self) -> Result<(), Broken> {
        self.call(|rtc| rtc.close().ok()).map(|_| ())
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Rtc) -> T) -> Result<T, Broken> {
        if self.is_broken {
            return Err(Broken::Panicked); // Its state may be anything.
        }
        let rtc = &mut self.rtc;
        let called = fenced(|| call(rtc));
        self.is_broken = called.is_err();
        called
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It waits to be sent.
    Taken,
    /// Too much waits already.
    Full,
    /// There is no such channel, or not yet.
    Absent,
}

/// The two lanes, which both sides know without a word.
fn open_lanes(rtc: &mut Rtc) -> [ChannelId; 2] {
    Lane::ALL.map(|lane| {
        let reliability = match lane {
            Lane::Reliable => Reliability::Reliable,
            Lane::Lossy => Reliability::MaxRetransmits { retransmits: 0 },
        };
        rtc.direct_api().create_data_channel(ChannelConfig {
            label: lane.label().to_owned(),
            ordered: lane == Lane::Reliable,
            reliability,
            negotiated: Some(lane.stream()),
            protocol: String::new(),
        })
    })
}

/// A datagram, and the two ends of its way; `to` is one of the Peer's addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Datagram<'a> {
    fn read(&self) -> Option<Receive<'a>> {
        Receive::new(self.protocol, self.from, self.to, self.bytes).ok()
    }
}

fn fenced<T>(call: impl FnOnce() -> T) -> Result<T, Broken> {
    // Whatever the call leaves half done belongs to the Peer, which is never used again.
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Broken::Panicked)
}

fn candidate(protocol: Protocol, address: SocketAddr) -> Option<Candidate> {
    let built = match protocol {
        Protocol::Udp => Candidate::builder().udp().host(address).build(),
        _ => Candidate::builder()
            .tcp()
            .host(address)
            .tcptype(str0m::net::TcpType::Passive)
            .build(),
    };
    built
        .inspect_err(|error| tracing::debug!(%error, %address, "No candidate"))
        .ok()
}
