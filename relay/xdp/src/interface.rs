//! What the kernel tells about network interfaces.

use std::fs;
use std::io;

use crate::binding::StartError;
use crate::layout::Egress;
use crate::sys;

/// The setting that lets a program ask for IPv4 routes, and where it stands.
const FORWARDING_V4: (&str, &str) = (
    "net.ipv4.conf.lo.forwarding",
    "/proc/sys/net/ipv4/conf/lo/forwarding",
);

/// The same for IPv6.
const FORWARDING_V6: (&str, &str) = (
    "net.ipv6.conf.lo.forwarding",
    "/proc/sys/net/ipv6/conf/lo/forwarding",
);

/// The number of the interface called `name`.
pub(crate) fn index(name: &str) -> Result<u32, StartError> {
    sys::ifindex(name).map_err(|error| StartError::Interface {
        name: name.to_owned(),
        error,
    })
}

/// Ensures that routes can be asked for on behalf of the loopback interface: the kernel answers
/// such a question only for interfaces it forwards for.
pub(crate) fn ensure_forwarding(ipv4: bool, ipv6: bool) -> Result<(), StartError> {
    for ((setting, path), used) in [(FORWARDING_V4, ipv4), (FORWARDING_V6, ipv6)] {
        let on = || fs::read_to_string(path).is_ok_and(|value| value.trim() != "0");
        if used && !on() {
            return Err(StartError::Forwarding { setting });
        }
    }
    Ok(())
}

/// How packets leave whose route names the interface called `name`, or a VLAN on top of it: by the
/// number of the interface in the route.
pub(crate) fn egresses(name: &str, ifindex: u32) -> Vec<(u32, Egress)> {
    let own = (ifindex, Egress { ifindex, tag: 0 });
    // The file is there once the first VLAN is.
    let vlans = match fs::read_to_string("/proc/thread-self/net/vlan/config") {
        Ok(config) => vlans(&config, name),
        Err(_) => Vec::new(),
    };
    let tagged = vlans.into_iter().filter_map(|(vlan, tag)| {
        let egress = Egress { ifindex, tag };
        sys::ifindex(&vlan).ok().map(|vlan| (vlan, egress))
    });
    std::iter::once(own).chain(tagged).collect()
}

/// The VLANs on top of the interface `below`, as names and tags, in the kernel's table
/// `NAME | TAG | BELOW`.
fn vlans(config: &str, below: &str) -> Vec<(String, u16)> {
    let vlan = |line: &str| {
        let mut fields = line.split('|').map(str::trim);
        let (name, tag, on) = (fields.next()?, fields.next()?, fields.next()?);
        let tag = tag.parse().ok()?;
        (on == below).then(|| (name.to_owned(), tag))
    };
    config.lines().filter_map(vlan).collect()
}

/// How many processors there may ever be, for which the kernel keeps values apart.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    let list = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    highest_cpu(&list)
        .map(|highest| highest + 1)
        .ok_or_else(|| io::Error::other(format!("no list of processors: {list:?}")))
}

/// The last number of a list such as `0-3,8-11`.
fn highest_cpu(list: &str) -> Option<usize> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_read_from_the_kernels_table() {
        let config = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                      eth0.100       | 100  | eth0\nmedia          | 7  | eth0\neth1.100 | 100 | eth1\n";
        assert_eq!(
            vlans(config, "eth0"),
            [("eth0.100".to_owned(), 100), ("media".to_owned(), 7)]
        );
        assert_eq!(vlans(config, "eth2"), []);
        assert_eq!(vlans("", "eth0"), []);
    }

    #[test]
    fn processors_are_counted_by_their_highest_number() {
        let check = |list: &str, expected| assert_eq!(highest_cpu(list), expected, "{list:?}");

        check("0\n", Some(0));
        check("0-1\n", Some(1));
        check("0-3,8-11\n", Some(11));
        check("\n", None);
    }
}
