//! Where the packets of a Leg come from and go to.
//!
//! What a phone's description says of its address is often not what its packets have: it sits behind a NAT. So they are answered to where they
//! come from (symmetric RTP, RFC 4961), and whoever could make us believe that would hear the call. What keeps them from it:
//!
//! - another address is only learnt in the first seconds after a description, from a few packets in a row of one source;
//! - the described address, once it has spoken, is never left for another;
//! - what was learnt holds until the next description; all else is dropped and counted;
//! - packets that are authentic (SRTP) prove whose they are, and are followed wherever they come from.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// For how long after the first packet another address may be learnt.
pub const LEARN: Duration = Duration::from_secs(4);

/// How many packets in a row it takes.
pub const PACKETS_NEEDED: u8 = 3;

/// How far apart the sequence numbers of two of them are at most.
const GAP_MAX: u16 = 3;

/// What of a packet tells who may have sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    /// Where it came from.
    pub from: SocketAddr,
    /// Its SSRC.
    pub ssrc: u32,
    /// Its sequence number.
    pub sequence: u16,
    /// Whether it was authenticated.
    pub is_authentic: bool,
}

/// The other side's address, as far as it is known.
#[derive(Debug, Clone)]
pub struct Latch {
    told: SocketAddr,
    /// Where packets came from.
    known: Option<SocketAddr>,
    /// Something else may be learnt until then; begins with the first packet.
    until: Option<Instant>,
    is_open: bool,
    candidate: Option<(Sign, u8)>,
}

impl Latch {
    /// Knows what a description said.
    #[must_use]
    pub fn new(told: SocketAddr) -> Self {
        Self {
            told,
            known: None,
            until: None,
            is_open: true,
            candidate: None,
        }
    }

    /// Another description came: what it says holds, and something else may be learnt again. Where it names the same address, packets go
    /// where they went until then.
    pub fn renew(&mut self, told: SocketAddr) {
        let known = self.known.filter(|_| self.told == told);
        *self = Self {
            known,
            ..Self::new(told)
        };
    }

    /// Where packets go.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        self.known.unwrap_or(self.told)
    }

    /// Whether a packet is the other side's.
    pub fn takes(&mut self, now: Instant, sign: Sign) -> bool {
        if sign.is_authentic {
            self.known = Some(sign.from);
            return true;
        }
        if self.is_open {
            let until = *self.until.get_or_insert(now + LEARN);
            self.is_open = now < until;
        }
        if self.is_open && sign.from == self.told {
            // It has spoken: no other is learnt any more.
            self.known = Some(self.told);
            self.is_open = false;
            return true;
        }
        if self.is_open && self.known != Some(sign.from) && self.is_proven(sign) {
            self.known = Some(sign.from);
            // One is enough.
            self.is_open = false;
        }
        self.known == Some(sign.from)
    }

    /// Whether a packet may be the other side's where packets tell less about who sent them: RTCP, which has another port.
    #[must_use]
    pub fn is_near(&self, from: SocketAddr) -> bool {
        self.target().ip() == from.ip()
    }

    /// Counts packets in a row.
    fn is_proven(&mut self, sign: Sign) -> bool {
        let follows = |before: &Sign| {
            let ahead = sign.sequence.wrapping_sub(before.sequence);
            (before.from, before.ssrc) == (sign.from, sign.ssrc) && (1..=GAP_MAX).contains(&ahead)
        };
        let count = match &self.candidate {
            Some((before, count)) if follows(before) => count + 1,
            _ => 1,
        };
        self.candidate = Some((sign, count));
        count >= PACKETS_NEEDED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "192.0.2.1:4000";
    const NAT: &str = "198.51.100.7:31000";
    const STRANGER: &str = "203.0.113.66:5555";

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    /// Packets of one source from `from`; how many were taken.
    fn packets(latch: &mut Latch, now: Instant, from: &str, ssrc: u32, first: u16) -> usize {
        let sign = |sequence| Sign {
            from: at(from),
            ssrc,
            sequence,
            is_authentic: false,
        };
        let numbers = (0..10).map(|number| first.wrapping_add(number));
        numbers
            .filter(|sequence| latch.takes(now, sign(*sequence)))
            .count()
    }

    #[expect(clippy::disallowed_methods, reason = "any time will do to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_phone_behind_a_nat_is_answered_where_it_is() {
        let mut latch = Latch::new(at(TOLD));
        assert_eq!(latch.target(), at(TOLD));
        assert_eq!(packets(&mut latch, start(), NAT, 1, 65_530), 8);
        assert_eq!(latch.target(), at(NAT));
        // It begins a new stream: it is still there.
        assert_eq!(packets(&mut latch, start(), NAT, 2, 7), 10);
    }

    #[test]
    fn a_stranger_is_never_believed_once_the_phone_has_spoken() {
        let now = start();
        for phone in [TOLD, NAT] {
            let mut latch = Latch::new(at(TOLD));
            assert!(packets(&mut latch, now, phone, 1, 100) >= 8);
            for later in [0, 1, 60] {
                let now = now + Duration::from_secs(later);
                assert_eq!(packets(&mut latch, now, STRANGER, 1, 110), 0);
                assert_eq!(packets(&mut latch, now, STRANGER, 9, 5), 0);
            }
            assert_eq!(latch.target(), at(phone));
        }
    }

    #[test]
    fn a_stranger_who_guesses_is_not_believed() {
        let mut latch = Latch::new(at(TOLD));
        let now = start();
        for sequence in (0..60_000).step_by(500) {
            let sign = Sign {
                from: at(STRANGER),
                ssrc: 1,
                sequence,
                is_authentic: false,
            };
            assert!(!latch.takes(now, sign));
        }
        // Nor is one who comes late.
        let mut latch = Latch::new(at(TOLD));
        let sign = Sign {
            from: at(STRANGER),
            ssrc: 1,
            sequence: 1,
            is_authentic: false,
        };
        assert!(!latch.takes(now, sign));
        assert_eq!(packets(&mut latch, now + LEARN, STRANGER, 1, 2), 0);
        assert_eq!(latch.target(), at(TOLD));
    }

    #[test]
    fn another_description_lets_it_be_learnt_again() {
        let now = start();
        let mut latch = Latch::new(at(TOLD));
        assert_eq!(packets(&mut latch, now, NAT, 1, 0), 8);
        latch.renew(at(TOLD));
        assert_eq!(latch.target(), at(NAT), "until something else is learnt");
        assert_eq!(packets(&mut latch, now, NAT, 1, 10), 10);
        latch.renew(at("192.0.2.9:9000"));
        assert_eq!(latch.target(), at("192.0.2.9:9000"));
        assert_eq!(packets(&mut latch, now, "192.0.2.9:9000", 1, 0), 10);
    }

    #[test]
    fn authentic_packets_are_followed() {
        let mut latch = Latch::new(at(TOLD));
        let now = start();
        for (from, later) in [(TOLD, 0), (NAT, 60), (STRANGER, 61)] {
            let sign = Sign {
                from: at(from),
                ssrc: 1,
                sequence: 1,
                is_authentic: true,
            };
            assert!(latch.takes(now + Duration::from_secs(later), sign));
            assert_eq!(latch.target(), at(from));
        }
        assert!(latch.is_near(at("203.0.113.66:1")));
        assert!(!latch.is_near(at(NAT)));
    }
}
