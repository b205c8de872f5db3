//! Figures for Prometheus. Every label has a fixed set of values.

use metrics::{counter, gauge};
use relay_core::{Stats, Traffic, Transport};
use relay_xdp::Cause;

use crate::shard::Shard;
use crate::xdp::Outcome;

/// Publishes the counters of `shard` and its workers. They count in plain integers, so a packet pays
/// for nothing but an addition. Returns those of the core.
pub(crate) async fn publish(shard: &Shard) -> Stats {
    let figures = shard.figures().await;
    publish_stats(&figures.stats);
    gauge!("relay_streams").set(shard.streams() as f64);
    let (queued, longest) = shard.queued();
    gauge!("relay_stream_queue_bytes").set(queued as f64);
    gauge!("relay_stream_queue_bytes_longest").set(longest as f64);
    gauge!("relay_requests_waiting").set(figures.requests_waiting as f64);
    gauge!("relay_dtls_newcomers").set(shard.dtls_newcomers.get() as f64);
    counter!("relay_dtls_newcomers_gave_way_total").absolute(shard.dropped.newcomers.get());
    counter!("relay_dropped_total", "cause" => "socket_full")
        .absolute(shard.dropped.udp.get() + figures.socket_full);
    counter!("relay_dropped_total", "cause" => "handed_over_full")
        .absolute(figures.handed_over_full);
    counter!("relay_dropped_total", "cause" => "media_full")
        .absolute(shard.dropped.media_full.get() + figures.media_full);
    counter!("relay_dropped_total", "cause" => "requests_full").absolute(figures.requests_full);
    counter!("relay_dropped_total", "cause" => "queue_full")
        .absolute(shard.dropped.queue_full.get());
    counter!("relay_dropped_total", "cause" => "too_long")
        .absolute(shard.dropped.too_long.get() + figures.too_long);
    counter!("relay_streams_refused_total").absolute(shard.dropped.streams.get());
    publish_offload(&shard.offload(), &figures.stats);
    figures.stats
}

/// What the network driver relays; nothing where nobody asked for it.
fn publish_offload(offload: &Outcome, stats: &Stats) {
    let offload = match offload {
        Outcome::Off => return,
        Outcome::Refused(cause) => {
            gauge!("relay_xdp_active").set(0);
            gauge!("relay_xdp_refused", "cause" => *cause).set(1);
            return;
        }
        Outcome::Active(offload) => offload,
    };
    gauge!("relay_xdp_active").set(1);
    gauge!("relay_xdp_channels").set(offload.channels() as f64);
    for (direction, Traffic { packets, bytes }) in [
        ("from_client", stats.offloaded_from_clients),
        ("to_client", stats.offloaded_to_clients),
    ] {
        counter!("relay_xdp_packets_total", "direction" => direction).absolute(packets);
        counter!("relay_xdp_bytes_total", "direction" => direction).absolute(bytes);
    }
    for (cause, count) in offload.left() {
        counter!("relay_xdp_channels_left_total", "cause" => *cause).absolute(*count);
    }
    match offload.causes() {
        Ok(counts) => {
            let relayed = |cause: &Cause| matches!(cause, Cause::ToPeer | Cause::ToClient);
            for cause in Cause::ALL.into_iter().filter(|cause| !relayed(cause)) {
                counter!("relay_xdp_packets_left_total", "cause" => cause.name())
                    .absolute(counts[cause.index()]);
            }
        }
        Err(error) => tracing::warn!(%error, "The XDP program's counters can't be read"),
    }
}

fn publish_stats(stats: &Stats) {
    for transport in Transport::ALL {
        let held = stats.allocations_by_transport[transport.index()];
        gauge!("relay_allocations", "transport" => transport.name()).set(held as f64);
    }
    gauge!("relay_tcp_connections").set(stats.connections as f64);
    counter!("relay_tcp_connections_total").absolute(stats.connections_bound);
    counter!("relay_allocations_total").absolute(stats.allocations_granted);
    counter!("relay_allocations_moved_total").absolute(stats.allocations_moved);
    counter!("relay_bindings_total").absolute(stats.bindings);
    for transport in Transport::ALL {
        let directions = [
            ("from_client", stats.from_clients[transport.index()]),
            ("to_client", stats.to_clients[transport.index()]),
        ];
        for (direction, Traffic { packets, bytes }) in directions {
            let transport = transport.name();
            counter!("relay_packets_total", "transport" => transport, "direction" => direction)
                .absolute(packets);
            counter!("relay_bytes_total", "transport" => transport, "direction" => direction)
                .absolute(bytes);
        }
    }
    counter!("relay_handed_over_packets_total").absolute(stats.handed_over.packets);
    counter!("relay_handed_over_bytes_total").absolute(stats.handed_over.bytes);
    for (direction, Traffic { packets, bytes }) in
        [("to_sfu", stats.to_media), ("from_sfu", stats.from_media)]
    {
        counter!("relay_media_packets_total", "direction" => direction).absolute(packets);
        counter!("relay_media_bytes_total", "direction" => direction).absolute(bytes);
    }
    counter!("relay_icmp_indications_total").absolute(stats.icmp_indications);
    for ((cause, code), count) in &stats.refusals {
        counter!("relay_refusals_total", "cause" => *cause, "code" => code_name(*code))
            .absolute(*count);
    }
}

/// The code of an answer as a label.
fn code_name(code: u16) -> String {
    match code {
        0 => "none".to_owned(), // Silence.
        code => code.to_string(),
    }
}
