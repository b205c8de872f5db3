//! What all shards of the SFU know of one another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

/// What all shards count together.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) rooms: AtomicUsize,
    pub(crate) participants: AtomicUsize,
    pub(crate) is_draining: AtomicBool,
    /// Which shard a Participant is on, by what their STUN requests begin with. No packet asks here: it leads streams to shards.
    shards: Mutex<HashMap<String, usize, RandomState>>,
    /// Where streams come in.
    tcp_addresses: Mutex<Vec<SocketAddr>>,
}

impl Shared {
    /// The shard of whom STUN calls so.
    pub(crate) fn shard_of(&self, ufrag: &str) -> Option<usize> {
        self.shards().get(ufrag).copied()
    }

    pub(crate) fn set_tcp_addresses(&self, addresses: Vec<SocketAddr>) {
        *self.tcp() = addresses;
    }

    pub(crate) fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.tcp().clone()
    }

    fn tcp(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.tcp_addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, ufrag: &str, shard: usize) {
        self.shards().insert(ufrag.to_owned(), shard);
    }

    pub(crate) fn leave(&self, ufrag: &str) {
        self.shards().remove(ufrag);
    }

    fn shards(&self) -> MutexGuard<'_, HashMap<String, usize, RandomState>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one of `max` places.
    pub(crate) fn take(places: &AtomicUsize, max: usize) -> bool {
        let add = |taken: usize| (taken < max).then_some(taken + 1);
        places
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }
}
