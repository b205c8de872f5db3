//! What a shard counts, in plain integers, and how an operator reads it.

use metrics::{counter, gauge};
use model::media::{GoneReason, MediaRefusal, SdpFault};
use sfu_core::{Dropped, Stats};

macro_rules! causes {
    ($(#[doc = $what:literal])* $cause:ident { $($(#[doc = $doc:literal])* $name:ident = $label:literal,)* }) => {
        $(#[doc = $what])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $cause {
            $($(#[doc = $doc])* $name,)*
        }

        impl $cause {
            /// All causes.
            pub const ALL: [$cause; [$($label),*].len()] = [$($cause::$name),*];

            /// The cause as a label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($cause::$name => $label,)*
                }
            }
        }
    };
}

causes! {
    /// Why a packet went no further.
    Drop {
    /// Neither STUN, DTLS, RTP nor RTCP.
    Unreadable = "unreadable",
    /// From an address that no Participant has proved to have.
    Stranger = "stranger",
    /// STUN that is no Binding request, or can't be read.
    Stun = "stun",
    /// STUN with a user name or a password we never gave.
    StunPassword = "stun_password",
    /// More signed STUN than a Participant may send, or from more addresses.
    StunFull = "stun_full",
    /// SRTP or SRTCP before there are keys.
    Early = "early",
    /// SRTP or SRTCP that is forged, replayed, or of one SSRC too many.
    Srtp = "srtp",
    /// RTP or RTCP that can't be read.
    Rtp = "rtp",
    /// What the Room has no use for: a stream nobody announced, or one that is muted.
    NotForwarded = "not_forwarded",
    /// More than a Participant may send.
    IntakeFull = "intake_full",
    /// More than a Participant can receive.
    DownlinkFull = "downlink_full",
    /// It had left the cache before its turn came, or could not be sealed.
    Late = "late",
    /// A plain Participant takes in less than it is sent, or sends a Track that is not its own.
    Plain = "plain",
    /// A socket had no room.
    SocketFull = "socket_full",
    /// The relay of this process had no room.
    RelayFull = "relay_full",
    /// Its receiver was a client of the relay of this process, whose Allocation is no more.
    RelayGone = "relay_gone",
    }
}

causes! {
    /// Why a message of a data channel went no further.
    DataDrop {
    /// It can't be read.
    Malformed = "malformed",
    /// It came over a channel that is none of ours.
    Channel = "channel",
    /// Its sender may not send any.
    NotPermitted = "not_permitted",
    /// Its sender has sent too many, or too much.
    RateLimited = "rate_limited",
    /// More than may be passed on in a Room.
    RoomFull = "room_full",
    /// Its receiver takes in less than it is told.
    Slow = "slow",
    /// Its receiver is not there, or has no data channels.
    Nobody = "nobody",
    /// The reliable channel is closed.
    Closed = "closed",
    }
}

/// Counters and levels of a shard, or of all.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    /// Rooms now.
    pub rooms: usize,
    /// Participants now.
    pub participants: usize,
    /// Participants who are connected now.
    pub connected: usize,
    /// Participants without a network of their own now, who are among those above.
    pub plain: usize,
    /// Packets that came from them.
    pub plain_in: u64,
    /// Packets that were given to them.
    pub plain_out: u64,
    /// Datagrams that came in.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams that left.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Calls of the system it took to send them.
    pub calls_out: u64,
    /// Of those that came in, the ones the relay of this process handed over.
    pub relayed_in: u64,
    /// Of those that left, the ones handed to it.
    pub relayed_out: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Microseconds the loop was at work.
    pub busy_micros: u64,
    /// Calls of the library that panicked.
    pub panics: u64,
    /// Bits per second that Participants can receive now, all of them together.
    pub estimates_bps: u64,
    /// How many Participants can receive now less than 150 kbit/s, less than 500, less than 1500, and more.
    pub estimates: [usize; 4],
    /// Messages of data channels that came in.
    pub messages_in: u64,
    /// Messages of data channels that were given to a receiver's channel.
    pub messages_out: u64,
    /// What the Rooms counted, those that have ended included.
    pub rooms_counted: Stats,
    dropped: [u64; Drop::ALL.len()],
    messages_dropped: [u64; DataDrop::ALL.len()],
    refused: [u64; REFUSALS.len()],
    bad_sdps: [u64; SdpFault::ALL.len()],
    gone: [u64; GONE.len()],
}

/// Refusals but for those of an SDP, which have a cause for each [`SdpFault`].
const REFUSALS: [(MediaRefusal, &str); 7] = [
    (MediaRefusal::TooManySections, "too_many_sections"),
    (MediaRefusal::WeakFingerprint, "weak_fingerprint"),
    (MediaRefusal::NoCodec, "no_codec"),
    (MediaRefusal::StaleGeneration, "stale_generation"),
    (MediaRefusal::Full, "full"),
    (MediaRefusal::UnknownParticipant, "unknown_participant"),
    (MediaRefusal::Encrypted, "encrypted"),
];

const GONE: [(GoneReason, &str); 3] = [
    (GoneReason::Unreachable, "unreachable"),
    (GoneReason::DtlsFailed, "dtls_failed"),
    (GoneReason::Failed, "failed"),
];

impl Figures {
    /// How many packets went no further, by cause.
    #[must_use]
    pub fn dropped(&self, cause: Drop) -> u64 {
        self.dropped[cause as usize]
    }

    /// How many messages of data channels went no further, by cause.
    #[must_use]
    pub fn messages_dropped(&self, cause: DataDrop) -> u64 {
        self.messages_dropped[cause as usize]
    }

    /// How many offers were refused, by cause.
    #[must_use]
    pub fn refused(&self, refusal: MediaRefusal) -> u64 {
        match refusal {
            MediaRefusal::BadSdp(fault) => self.bad_sdps[fault as usize],
            _ => place(&REFUSALS, refusal).map_or(0, |at| self.refused[at]),
        }
    }

    /// How many Participants were given up, by reason.
    #[must_use]
    pub fn gone(&self, reason: GoneReason) -> u64 {
        place(&GONE, reason).map_or(0, |at| self.gone[at])
    }

    pub(crate) fn drop_packet(&mut self, cause: Drop) {
        self.dropped[cause as usize] += 1;
    }

    pub(crate) fn drop_message(&mut self, cause: DataDrop) {
        self.messages_dropped[cause as usize] += 1;
    }

    /// Puts `count` in place of what was counted.
    pub(crate) fn set_dropped(&mut self, cause: Drop, count: u64) {
        self.dropped[cause as usize] = count;
    }

    pub(crate) fn refuse(&mut self, refusal: MediaRefusal) {
        if let MediaRefusal::BadSdp(fault) = refusal {
            self.bad_sdps[fault as usize] += 1;
        } else if let Some(at) = place(&REFUSALS, refusal) {
            self.refused[at] += 1;
        }
    }

    pub(crate) fn give_up(&mut self, reason: GoneReason) {
        if let Some(at) = place(&GONE, reason) {
            self.gone[at] += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Figures) {
        let add = |sums: &mut [u64], counts: &[u64]| {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        };
        add(&mut self.dropped, &other.dropped);
        add(&mut self.messages_dropped, &other.messages_dropped);
        add(&mut self.refused, &other.refused);
        add(&mut self.bad_sdps, &other.bad_sdps);
        self.rooms_counted.add(&other.rooms_counted);
        add(&mut self.gone, &other.gone);
        self.rooms += other.rooms;
        self.participants += other.participants;
        self.connected += other.connected;
        self.plain += other.plain;
        self.plain_in += other.plain_in;
        self.plain_out += other.plain_out;
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
        self.calls_out += other.calls_out;
        self.relayed_in += other.relayed_in;
        self.relayed_out += other.relayed_out;
        self.turns += other.turns;
        self.busy_micros += other.busy_micros;
        self.panics += other.panics;
        self.messages_in += other.messages_in;
        self.messages_out += other.messages_out;
        self.estimates_bps += other.estimates_bps;
        for (sum, count) in self.estimates.iter_mut().zip(other.estimates) {
            *sum += count;
        }
    }

    /// Publishes what all shards have counted. Every label has a fixed set of values.
    pub(crate) fn publish(&self) {
        gauge!("sfu_rooms").set(self.rooms as f64);
        gauge!("sfu_participants").set(self.participants as f64);
        gauge!("sfu_participants_connected").set(self.connected as f64);
        gauge!("sfu_participants_plain").set(self.plain as f64);
        for (direction, packets) in [("in", self.plain_in), ("out", self.plain_out)] {
            counter!("sfu_plain_packets_total", "direction" => direction).absolute(packets);
        }
        gauge!("sfu_estimates_bits_per_second").set(self.estimates_bps as f64);
        for (below, count) in ["150", "500", "1500", "inf"]
            .into_iter()
            .zip(self.estimates)
        {
            gauge!("sfu_estimates", "below_kbps" => below).set(count as f64);
        }
        for (direction, packets, bytes) in [
            ("in", self.packets_in, self.bytes_in),
            ("out", self.packets_out, self.bytes_out),
        ] {
            counter!("sfu_packets_total", "direction" => direction).absolute(packets);
            counter!("sfu_bytes_total", "direction" => direction).absolute(bytes);
        }
        for (direction, packets) in [("in", self.relayed_in), ("out", self.relayed_out)] {
            counter!("sfu_relayed_packets_total", "direction" => direction).absolute(packets);
        }
        counter!("sfu_send_calls_total").absolute(self.calls_out);
        counter!("sfu_turns_total").absolute(self.turns);
        counter!("sfu_busy_microseconds_total").absolute(self.busy_micros);
        counter!("sfu_library_panics_total").absolute(self.panics);
        for cause in Drop::ALL {
            counter!("sfu_dropped_total", "cause" => cause.name()).absolute(self.dropped(cause));
        }
        for (direction, messages) in [("in", self.messages_in), ("out", self.messages_out)] {
            counter!("sfu_messages_total", "direction" => direction).absolute(messages);
        }
        for cause in DataDrop::ALL {
            let count = self.messages_dropped(cause);
            counter!("sfu_messages_dropped_total", "cause" => cause.name()).absolute(count);
        }
        let rooms = &self.rooms_counted;
        for cause in Dropped::ALL {
            counter!("sfu_not_forwarded_total", "cause" => cause.label())
                .absolute(rooms.dropped(cause));
        }
        for (cause, count) in [
            ("too_soon", rooms.resends_too_soon),
            ("too_often", rooms.resends_too_often),
            ("flood", rooms.nacks_flooded),
            ("over_share", rooms.resends_over_share),
            ("gone", rooms.resends_gone),
        ] {
            counter!("sfu_resends_refused_total", "cause" => cause).absolute(count);
        }
        counter!("sfu_resends_total").absolute(rooms.resent);
        counter!("sfu_nacks_sent_total").absolute(rooms.nacks_sent);
        counter!("sfu_key_frames_wanted_total").absolute(rooms.key_frames_wanted);
        counter!("sfu_key_frames_asked_total").absolute(rooms.key_frames_asked);
        counter!("sfu_rtcp_unknown_ssrc_total").absolute(rooms.rtcp_unknown_ssrc);
        for ((_, cause), count) in REFUSALS.iter().zip(self.refused) {
            counter!("sfu_offers_refused_total", "cause" => *cause).absolute(count);
        }
        for (fault, count) in SdpFault::ALL.iter().zip(self.bad_sdps) {
            counter!("sfu_offers_refused_total", "cause" => "bad_sdp", "fault" => fault.label())
                .absolute(count);
        }
        for ((_, reason), count) in GONE.iter().zip(self.gone) {
            counter!("sfu_participants_gone_total", "reason" => *reason).absolute(count);
        }
    }
}

fn place<T: Copy + PartialEq>(known: &[(T, &str)], wanted: T) -> Option<usize> {
    known.iter().position(|(value, _)| *value == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up_by_cause() {
        let mut one = Figures::default();
        one.drop_packet(Drop::Srtp);
        one.drop_message(DataDrop::Slow);
        one.refuse(MediaRefusal::Full);
        one.refuse(MediaRefusal::BadSdp(SdpFault::Mid));
        one.give_up(GoneReason::Failed);
        let mut all = Figures::default();
        all.add(&one);
        all.add(&one);
        let counts = [
            all.dropped(Drop::Srtp),
            all.messages_dropped(DataDrop::Slow),
            all.refused(MediaRefusal::Full),
            all.refused(MediaRefusal::BadSdp(SdpFault::Mid)),
            all.gone(GoneReason::Failed),
        ];
        assert_eq!(counts, [2; 5]);
        assert_eq!(
            (
                all.dropped(Drop::Rtp),
                all.refused(MediaRefusal::BadSdp(SdpFault::Rid))
            ),
            (0, 0)
        );
    }
}
