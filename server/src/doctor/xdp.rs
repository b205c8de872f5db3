//! Channels in the network driver: what this machine lacks, and whether the running server does it.

use relay_service::Xdp;

use super::Patient;
use super::network::figures;
use super::report::{Finding, Report};

const CHECK: &str = "XDP";

/// What helps against most of what can be missing.
const FIX: &str = "mend that (the server takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON for it, see deploy/offhook.service), or set `xdp` in [relay] to \"auto\" or \"off\"";

pub(super) async fn check(report: &mut Report, patient: &Patient) {
    let relay = &patient.config.relay;
    if relay.xdp == Xdp::Off {
        return;
    }
    let interfaces = relay.xdp_interfaces.join(", ");
    let figures = match patient.config.listen.first() {
        Some(listen) => figures(patient.config.metrics.listen.unwrap_or(*listen)).await,
        None => None,
    };
    let says = |value: u8| {
        let line = format!("\nrelay_xdp_active {value}\n");
        figures
            .as_ref()
            .is_some_and(|figures| figures.contains(&line))
    };
    // The server's own account counts most: it may have other rights than this command.
    if says(1) {
        report.add(Finding::good(
            CHECK,
            format!("Channels are relayed in the driver of {interfaces}"),
        ));
        return;
    }
    report.add(match relay.probe_xdp() {
        Err(error) if relay.xdp == Xdp::On => Finding::bad(CHECK, format!("not here: {error:#}"), FIX),
        Err(error) => Finding::note(CHECK, format!("userspace relays every Channel: {error:#}")),
        Ok(()) if says(0) => Finding::bad(
            CHECK,
            format!("this machine can, and the server does not relay in the driver of {interfaces}"),
            "its log says why at its start: fewer rights than this command has, or another program on the interface (`ip link` shows it as `prog/xdp`)",
        ),
        Ok(()) => Finding::note(
            CHECK,
            format!("this machine can relay in the driver of {interfaces}; the server shows no figures that tell whether it does"),
        ),
    });
}
