//! What an operator decides about XDP, and whether this machine can do it.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{bail, ensure};
use relay_xdp::{Dscp, Mode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::offload::Offload;

/// The most Channels that may be in the driver; their flows take half a gigabyte then.
const CHANNELS_MAX: u32 = 1 << 21;

/// Where Channels of UDP clients are relayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Xdp {
    /// By this process alone.
    #[default]
    Off,
    /// In the network driver, where this machine can.
    Auto,
    /// In the network driver; without it the relay does not start.
    On,
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub(crate) struct XdpSettings {
    is_required: bool,
    driver: relay_xdp::Settings,
    /// Where relayed ports are bound: IPv4, IPv6.
    bind: [Option<IpAddr>; 2],
}

/// What came of the settings.
pub(crate) enum Outcome {
    /// Nobody asked for it.
    Off,
    /// This machine can't, for a cause that [`StartError::cause`](relay_xdp::StartError::cause)
    /// names; userspace relays everything.
    Refused(&'static str),
    /// The program is attached.
    Active(Box<Offload>),
}

impl Config {
    /// Whether this machine can relay in the network driver as the settings ask, by trying all of it
    /// but to attach the program; so it may be called beside a running relay, with the same rights.
    /// Nothing is tried where `xdp` is off.
    ///
    /// # Errors
    ///
    /// Says what is missing.
    pub fn probe_xdp(&self) -> anyhow::Result<()> {
        match self.settings()?.xdp {
            Some(settings) => Ok(relay_xdp::Offload::probe(settings.driver)?),
            None => Ok(()),
        }
    }

    pub(crate) fn xdp_settings(&self) -> anyhow::Result<Option<XdpSettings>> {
        if self.xdp == Xdp::Off {
            return Ok(None);
        }
        ensure!(
            !self.xdp_interfaces.is_empty(),
            "`xdp_interfaces` is empty; name the interfaces that clients and peers are reached through"
        );
        ensure!(
            (1..=CHANNELS_MAX).contains(&self.xdp_channels_max),
            "`xdp_channels_max` is {}; it must be 1 to {CHANNELS_MAX}",
            self.xdp_channels_max
        );
        let relay_ports = self.port_min..=self.port_max;
        for address in &self.listen_udp {
            if address.ip().is_unspecified() {
                bail!(
                    "`listen_udp` has {address}; XDP has to know the address packets come to, so name each"
                );
            }
            if relay_ports.contains(&address.port()) {
                bail!(
                    "`listen_udp` has {address}, a port from `port_min` to `port_max`; XDP tells clients \
                     from peers by the port"
                );
            }
        }
        let bound = |is_v4: bool| {
            let mut ips = self.relay_ips.iter().copied();
            ips.find(|ip| ip.is_ipv4() == is_v4)
        };
        let bind = [bound(true), bound(false)];
        if let Some(ip) = bind.iter().flatten().find(|ip| ip.is_unspecified()) {
            bail!(
                "`relay_ips` has {ip}; XDP has to know the address packets leave from, so name it"
            );
        }
        let listened = self.listen_udp.iter().map(|address| address.ip());
        let own: Vec<_> = listened.chain(bind.into_iter().flatten()).collect();
        let outside = |is_v4: bool| {
            let is_outside = |ip: &IpAddr| ip.is_ipv4() == is_v4 && !ip.is_loopback();
            own.iter().any(is_outside)
        };
        Ok(Some(XdpSettings {
            is_required: self.xdp == Xdp::On,
            driver: relay_xdp::Settings {
                interfaces: self.xdp_interfaces.clone(),
                mode: Mode::Native,
                ipv4: outside(true),
                ipv6: outside(false),
                relay_ports,
                dscp: Dscp::Keep,
                channels_max: self.xdp_channels_max,
                quotas_max: self.xdp_channels_max,
            },
            bind,
        }))
    }
}

/// Attaches the program, or says why not: in the log, and where XDP is required as an error.
pub(crate) fn start(settings: Option<&XdpSettings>, now: Instant) -> anyhow::Result<Outcome> {
    let Some(XdpSettings {
        is_required,
        driver,
        bind,
    }) = settings
    else {
        return Ok(Outcome::Off);
    };
    let interfaces = driver.interfaces.join(" ");
    match Offload::start(driver.clone(), *bind, now) {
        Ok(offload) => {
            tracing::info!(interfaces, "Channels are relayed in the network driver");
            Ok(Outcome::Active(Box::new(offload)))
        }
        Err(error) if *is_required => {
            bail!("`xdp` is \"on\", and this machine can't: {error}; \"auto\" would go on without")
        }
        Err(error) => {
            tracing::warn!(%error, interfaces, "No XDP here, userspace relays every Channel");
            Ok(Outcome::Refused(error.cause()))
        }
    }
}
