//! What a Room counts.

/// Why an incoming packet is not forwarded to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Dropped {
    /// Its sender is not in the Room.
    #[error("the sender is not in the room")]
    UnknownParticipant,
    /// No Track has its SSRC, and its extensions name none.
    #[error("unknown SSRC")]
    UnknownSsrc,
    /// The Track's encoding has changed its SSRC too often.
    #[error("too many SSRCs for one encoding")]
    TooManySsrcs,
    /// The Track has no such payload type, or another one than the SSRC stands for.
    #[error("payload type not negotiated for the SSRC")]
    PayloadType,
    /// It came before.
    #[error("duplicate")]
    Duplicate,
    /// Too old to tell whether it came before.
    #[error("too old")]
    TooOld,
    /// Its sequence number is far from all others.
    #[error("sequence number jumped")]
    Jump,
    /// Its payload descriptor can't be read.
    #[error("malformed payload descriptor")]
    Descriptor,
    /// It has no payload: probing of the publisher's.
    #[error("padding only")]
    Padding,
    /// The Track is muted.
    #[error("muted")]
    Muted,
    /// It is longer than what can be sent on.
    #[error("longer than {} bytes", crate::PAYLOAD_LEN_MAX)]
    TooLong,
}

impl Dropped {
    /// All causes.
    pub const ALL: [Self; 11] = [
        Self::UnknownParticipant,
        Self::UnknownSsrc,
        Self::TooManySsrcs,
        Self::PayloadType,
        Self::Duplicate,
        Self::TooOld,
        Self::Jump,
        Self::Descriptor,
        Self::Padding,
        Self::Muted,
        Self::TooLong,
    ];

    /// The cause as the label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownParticipant => "unknown_participant",
            Self::UnknownSsrc => "unknown_ssrc",
            Self::TooManySsrcs => "too_many_ssrcs",
            Self::PayloadType => "payload_type",
            Self::Duplicate => "duplicate",
            Self::TooOld => "too_old",
            Self::Jump => "jump",
            Self::Descriptor => "descriptor",
            Self::Padding => "padding",
            Self::Muted => "muted",
            Self::TooLong => "too_long",
        }
    }
}

/// What a Room has counted since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Packets that came and were new.
    pub received: u64,
    /// Of these, such as had been lost and were sent again.
    pub recovered: u64,
    /// Packets handed out for subscribers.
    pub forwarded: u64,
    /// Packets sent again for NACKs.
    pub resent: u64,
    /// NACKs for packets that were just sent again.
    pub resends_too_soon: u64,
    /// NACKs for packets that were sent again [`crate::RESENDS_MAX`] times.
    pub resends_too_often: u64,
    /// NACKs that were not read on since they asked for more than [`crate::NACKS_MAX`] packets.
    pub nacks_flooded: u64,
    /// NACKs beyond the share of resends.
    pub resends_over_share: u64,
    /// NACKs for packets of a Track that has left the slot.
    pub resends_gone: u64,
    /// Packets that were gone from the cache when their turn came.
    pub expired: u64,
    /// Key frames that subscribers asked for.
    pub key_frames_wanted: u64,
    /// Key frames that publishers were asked for.
    pub key_frames_asked: u64,
    /// Packets that publishers were asked to send again.
    pub nacks_sent: u64,
    /// RTCP packets about SSRCs that nobody has.
    pub rtcp_unknown_ssrc: u64,
    dropped: [u64; Dropped::ALL.len()],
}

impl Stats {
    /// How many packets were dropped for `cause`.
    pub const fn dropped(&self, cause: Dropped) -> u64 {
        self.dropped[cause as usize]
    }

    /// Adds what another Room has counted.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.recovered += other.recovered;
        self.forwarded += other.forwarded;
        self.resent += other.resent;
        self.resends_too_soon += other.resends_too_soon;
        self.resends_too_often += other.resends_too_often;
        self.nacks_flooded += other.nacks_flooded;
        self.resends_over_share += other.resends_over_share;
        self.resends_gone += other.resends_gone;
        self.expired += other.expired;
        self.key_frames_wanted += other.key_frames_wanted;
        self.key_frames_asked += other.key_frames_asked;
        self.nacks_sent += other.nacks_sent;
        self.rtcp_unknown_ssrc += other.rtcp_unknown_ssrc;
        for (sum, count) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += count;
        }
    }

    pub(crate) fn count(&mut self, cause: Dropped) {
        self.dropped[cause as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_figure_of_its_own() {
        let mut stats = Stats::default();

        for (times, cause) in (1..).zip(Dropped::ALL) {
            (0..times).for_each(|_| stats.count(cause));
        }
        let figures: Vec<_> = Dropped::ALL.map(|cause| stats.dropped(cause)).into();
        assert_eq!(figures, (1..=Dropped::ALL.len() as u64).collect::<Vec<_>>());

        let mut sum = stats;
        sum.add(&stats);
        assert_eq!(
            sum.dropped(Dropped::TooLong),
            2 * stats.dropped(Dropped::TooLong)
        );
    }
}
