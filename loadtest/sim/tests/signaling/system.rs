//! The system under test (stub until the core is there).
use sim::{Event, Network, NodeId};

use crate::device::Wire;
use crate::oracle::Oracle;
use crate::store::Store;
use crate::text::Trace;

pub struct System {
    pub store: Store,
    pub frames: u64,
}
impl System {
    pub fn new(_seed: u64, _server: NodeId) -> Self {
        Self {
            store: Store::default(),
            frames: 0,
        }
    }
    pub fn start(&mut self, _net: &mut Network<Wire>) {}
    pub fn on_event(
        &mut self,
        _event: Event<Wire>,
        _net: &mut Network<Wire>,
        _trace: &mut Trace,
        _oracle: &mut Oracle,
    ) -> bool {
        false
    }
    pub fn forget(&mut self) {}
    pub fn crash_after(&mut self, _outputs: u64) {}
    pub fn never_crash(&mut self) {}
}
