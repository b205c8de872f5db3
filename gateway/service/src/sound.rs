//! What the exchange wants of the media: ports, and who hears whom. [`Sound`] is implemented by the media engine.

use std::net::IpAddr;

use gateway_media::player::Playlist;
use gateway_media::recorder::Tape;
use gateway_sip::negotiate::Agreed;
use model::TrackId;
use model::plain::End;

/// A Leg, by a number of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u64);

/// There is no port for the media of another Leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("every port of `gateway.rtp_port_min` to `rtp_port_max` is taken")]
pub struct NoPort;

/// Whom a Leg hears, and who hears it.
pub enum To {
    /// Nobody; it hears silence.
    Nobody,
    /// A Room, in which it sends this Track.
    Room(Box<End>, TrackId),
    /// Another Leg; to be said for both.
    Leg(LegId),
    /// It hears that a phone rings.
    Ringback,
    /// It hears music, and nobody hears it.
    Music,
    /// It hears this, once or for ever; [`EventKind::Played`] tells of its end by the number.
    Play(Playlist, u32),
}

/// News of a Leg's media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub leg: LegId,
    /// What.
    pub kind: EventKind,
}

/// What happened to a Leg's media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A key was pressed: `0` to `9`, `*`, `#`, `A` to `D`.
    Key(char),
    /// Nothing has come from the other side for too long, though it should send.
    Silent,
    /// No keys could be had by DTLS: nobody answered, or somebody with another certificate than was told.
    NoKeys,
    /// The place in the Room is gone.
    RoomLost,
    /// What was played has come to its end; the number is that of [`To::Play`]. What was cut off before has no end.
    Played(u32),
    /// A tape comes back: it is full, nobody speaks any more, it was asked for, or the Leg is over.
    Recorded(Box<Tape>),
    /// The last figures of a Leg that was closed. Nothing follows.
    Closed(Box<MediaFigures>),
}

/// How a Leg sounded: what came from the other side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MediaFigures {
    /// Packets that came.
    pub packets_received: u64,
    /// Packets that should have come and didn't.
    pub packets_lost: u64,
    /// Packets that were sent.
    pub packets_sent: u64,
    /// The jitter of arrival at the end, in microseconds (RFC 3550 §6.4.1).
    pub jitter_micros: u32,
    /// The way there and back at the end, in microseconds, where RTCP told.
    pub round_trip_micros: Option<u32>,
    /// An estimate of the mean opinion score, in hundredths: 100 to 500 (ITU-T G.107).
    pub mos_hundredths: u16,
}

/// The media of all Legs. No call of it waits for anything.
pub trait Sound: Send {
    /// `sha-256 AB:CD:…` of the certificate that DTLS is spoken with (RFC 8122); `None` where it is not.
    fn fingerprint(&self) -> Option<String>;

    /// Opens the ports of a Leg at this address of ours: RTP at the one that comes back, RTCP at the next.
    ///
    /// # Errors
    ///
    /// [`NoPort`].
    fn open(&mut self, leg: LegId, local: IpAddr) -> Result<u16, NoPort>;

    /// Both sides agree on this, for the first time or anew: the other side may be elsewhere now.
    fn agree(&mut self, leg: LegId, agreed: &Agreed);

    /// Says whom the Leg hears from now on.
    fn connect(&mut self, leg: LegId, to: To);

    /// What `from` is in its Room, `to` is from now on; it takes nothing with it but the place.
    fn hand_over(&mut self, from: LegId, to: LegId);

    /// Presses a key, after those before it.
    fn key(&mut self, leg: LegId, key: char);

    /// Keeps what the Leg says from now on; [`EventKind::Recorded`] follows once.
    fn record(&mut self, leg: LegId, tape: Box<Tape>);

    /// Ends what [`Sound::record`] began.
    fn stop_recording(&mut self, leg: LegId);

    /// The Leg is over: its ports are free. [`EventKind::Closed`] follows.
    fn close(&mut self, leg: LegId);
}
