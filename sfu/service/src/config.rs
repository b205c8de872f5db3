//! What an operator decides about the SFU.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::ensure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most threads that forward media.
const THREADS_MAX: usize = 256;

/// The most Participants of one process.
const PARTICIPANTS_MAX: usize = 100_000;

/// The `[sfu]` table of `offhook.toml`: the server through which Rooms see and hear each other.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this process forwards the media of Rooms.
    pub enabled: bool,
    /// The own addresses media comes in at and leaves from, each a real one instead of a wildcard: answers leave from the address
    /// they were asked at.
    pub listen_ips: Vec<IpAddr>,
    /// The same addresses as the internet sees them, where a NAT stands in front (one for each family). Without it they are those
    /// of `listen_ips`.
    #[schemars(extend("examples" = [["203.0.113.7"]]))]
    pub public_ips: Vec<IpAddr>,
    /// The UDP port of the first thread; each further one has the next. 0 takes any free ports, which no firewall can know.
    pub port: u16,
    /// How many threads forward media; 0 means one for each core this process may use, bound to it. A Room is served by one of
    /// them.
    pub threads: usize,
    /// Whether clients that can't send UDP may reach the SFU over the TCP ports the server shares.
    pub tcp: bool,
    /// How many Rooms there may be at once.
    pub rooms_max: usize,
    /// How many Participants there may be at once, in all Rooms.
    pub participants_max: usize,
    /// How many Participants one Room may have.
    pub participants_per_room_max: usize,
    /// How much one Participant is sent at most, in kbit/s.
    pub bitrate_out_max_kbps: u32,
    /// How much one Participant may send, in kbit/s; what is beyond is dropped.
    pub bitrate_in_max_kbps: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            listen_ips: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            public_ips: Vec::new(),
            port: 10_000,
            threads: 0,
            tcp: true,
            rooms_max: 10_000,
            participants_max: 10_000,
            participants_per_room_max: 500,
            bitrate_out_max_kbps: 20_000,
            bitrate_in_max_kbps: 20_000,
        }
    }
}

impl Config {
    /// Whether all settings fit together.
    ///
    /// # Errors
    ///
    /// The first that doesn't, by name.
    pub fn validate(&self) -> anyhow::Result<()> {
        ensure!(
            !self.listen_ips.is_empty(),
            "`sfu.listen_ips` names no address"
        );
        for ip in self.listen_ips.iter().chain(&self.public_ips) {
            let is_host = !ip.is_unspecified() && !ip.is_multicast();
            ensure!(
                is_host,
                "`sfu.listen_ips` or `sfu.public_ips` has {ip}, which is no address of a host"
            );
        }
        for public in &self.public_ips {
            let is_family = |ip: &&IpAddr| ip.is_ipv4() == public.is_ipv4();
            ensure!(
                self.public_ips.iter().filter(is_family).count() == 1,
                "`sfu.public_ips` has more than one address of the family of {public}"
            );
            ensure!(
                self.listen_ips.iter().filter(is_family).count() == 1,
                "`sfu.public_ips` has {public}, and `sfu.listen_ips` not one address of its family"
            );
        }
        ensure!(
            self.threads <= THREADS_MAX,
            "`sfu.threads` is {}, more than {THREADS_MAX}",
            self.threads
        );
        ensure!(
            (1..=PARTICIPANTS_MAX).contains(&self.participants_max),
            "`sfu.participants_max` is {}, not 1 to {PARTICIPANTS_MAX}",
            self.participants_max
        );
        ensure!(self.rooms_max > 0, "`sfu.rooms_max` is 0");
        ensure!(
            self.participants_per_room_max > 0,
            "`sfu.participants_per_room_max` is 0"
        );
        let lowest = self.bitrate_in_max_kbps.min(self.bitrate_out_max_kbps);
        ensure!(
            lowest >= 100,
            "`sfu.bitrate_in_max_kbps` or `sfu.bitrate_out_max_kbps` is {lowest}, less than 100"
        );
        Ok(())
    }

    /// The address clients are told for a local one.
    pub(crate) fn public(&self, local: SocketAddr) -> SocketAddr {
        let is_family = |ip: &&IpAddr| ip.is_ipv4() == local.is_ipv4();
        let public = self.public_ips.iter().find(is_family);
        SocketAddr::new(public.copied().unwrap_or(local.ip()), local.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str, expected: Result<(), &str>) {
        let config: Config = toml::from_str(toml).unwrap();
        match (config.validate(), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error} has no {part}");
            }
            (got, expected) => panic!("{toml}: {got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        check("", Ok(()));
        check("public_ips = ['203.0.113.7']", Ok(()));
        check("listen_ips = []", Err("listen_ips"));
        check("listen_ips = ['0.0.0.0']", Err("0.0.0.0"));
        check(
            "public_ips = ['203.0.113.7', '203.0.113.8']",
            Err("more than one"),
        );
        check(
            "listen_ips = ['192.0.2.1']\npublic_ips = ['2001:db8::1']",
            Err("not one address of its family"),
        );
        check("threads = 1000", Err("threads"));
        check("participants_max = 0", Err("participants_max"));
        check("bitrate_out_max_kbps = 1", Err("bitrate_out_max_kbps"));
    }

    #[test]
    fn clients_are_told_the_public_address_of_the_same_family() {
        let config = Config {
            public_ips: vec!["203.0.113.7".parse().unwrap()],
            ..Config::default()
        };
        let check = |local: &str, public: &str| {
            assert_eq!(
                config.public(local.parse().unwrap()),
                public.parse().unwrap()
            );
        };
        check("10.0.0.1:10000", "203.0.113.7:10000");
        check("[2001:db8::1]:10000", "[2001:db8::1]:10000");
    }
}
