//! Relayed ports that other programs hold, so that a small range is not tried at the same place
//! again and again.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a port that could not be bound is left alone.
const BUSY_LIFETIME: Duration = Duration::from_secs(30);

/// How many such ports are remembered; those before them are tried again.
const BUSY_MAX: usize = 4_096;

/// Ports that could not be bound, for a while.
#[derive(Debug, Default)]
pub(crate) struct BusyPorts {
    until: HashMap<SocketAddr, Instant>,
    /// In the order of their time.
    order: VecDeque<(Instant, SocketAddr)>,
}

impl BusyPorts {
    /// Whether `address` is to be left alone at `now`.
    pub(crate) fn holds(&self, now: Instant, address: &SocketAddr) -> bool {
        self.until.get(address).is_some_and(|until| now < *until)
    }

    /// Leaves `address` alone for a while.
    pub(crate) fn add(&mut self, now: Instant, address: SocketAddr) {
        while let Some((until, first)) = self.order.front().copied()
            && (until <= now || self.order.len() >= BUSY_MAX)
        {
            self.order.pop_front();
            // It may have been added again since.
            if self.until.get(&first) == Some(&until) {
                self.until.remove(&first);
            }
        }
        let until = now + BUSY_LIFETIME;
        self.until.insert(address, until);
        self.order.push_back((until, address));
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the one real instant simulated time is counted from"
)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_left_alone_for_a_while_and_their_number_is_bounded() {
        let start = Instant::now();
        let mut busy = BusyPorts::default();
        let address = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        busy.add(start, address(1));
        let late = start + BUSY_LIFETIME;
        assert!(busy.holds(late - Duration::from_nanos(1), &address(1)));
        assert!(!busy.holds(late, &address(1)));
        busy.add(late, address(1));
        assert!(busy.holds(late, &address(1)), "added again");

        for port in 0..10_000 {
            busy.add(late, address(port));
        }
        assert_eq!((busy.until.len(), busy.order.len()), (BUSY_MAX, BUSY_MAX));
        assert!(!busy.holds(late, &address(1)));
        assert!(busy.holds(late, &address(9_999)));
    }
}
