//! The offload where there is no XDP: it never starts.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use crate::binding::{
    Binding, InstallError, Installed, Lifetimes, QuotaId, Settings, StartError, Usage,
};
use crate::layout::{Cause, Quota};

/// The program at work, which this system can't have.
#[derive(Debug)]
pub struct Offload(Infallible);

#[expect(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "the signatures, described where they do something"
)]
impl Offload {
    pub fn start(_settings: Settings) -> Result<Offload, StartError> {
        Err(StartError::Platform)
    }

    pub fn probe(_settings: Settings) -> Result<(), StartError> {
        Err(StartError::Platform)
    }

    pub fn install(
        &mut self,
        _binding: Binding,
        _lifetimes: Lifetimes,
    ) -> Result<Installed, InstallError> {
        match self.0 {}
    }

    pub fn refresh(&self, _installed: &Installed, _lifetimes: Lifetimes) {
        match self.0 {}
    }

    #[must_use]
    pub fn usage(&self, _installed: &Installed) -> Usage {
        match self.0 {}
    }

    pub fn remove(&mut self, _installed: Installed) -> Usage {
        match self.0 {}
    }

    pub fn add_quota(&mut self, _quota: Quota) -> Option<QuotaId> {
        match self.0 {}
    }

    pub fn level_quota(&self, _quota: QuotaId, _ahead: [Duration; 2]) {
        match self.0 {}
    }

    pub fn remove_quota(&mut self, _quota: QuotaId) {
        match self.0 {}
    }

    pub fn causes(&self) -> io::Result<[u64; Cause::COUNT]> {
        match self.0 {}
    }

    #[must_use]
    pub fn channels(&self) -> usize {
        match self.0 {}
    }
}
