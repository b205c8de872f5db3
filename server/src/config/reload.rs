//! What of a changed configuration comes into force while the server runs, and what needs a restart.
//!
//! In: the settings that hold and those just read. Out: those to hold from now on, and which settings are other than before. Every
//! setting stands in one of the three lists below, or a test fails.

use super::Config;

/// Which settings are other than before, by their paths, such as `relay.peers_deny`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// These hold from now on.
    pub live: Vec<&'static str>,
    /// These keep their value until a restart.
    pub restart: Vec<&'static str>,
}

/// One setting.
struct Key {
    path: &'static str,
    is_same: fn(&Config, &Config) -> bool,
    /// Gives the second configuration the value of the first.
    copy: fn(&Config, &mut Config),
}

macro_rules! keys {
    ($($first:ident $(.$rest:ident)*),+ $(,)?) => {
        &[$(Key {
            path: concat!(stringify!($first) $(, ".", stringify!($rest))*),
            is_same: |one, other| one.$first$(.$rest)* == other.$first$(.$rest)*,
            copy: |from, to| to.$first$(.$rest)*.clone_from(&from.$first$(.$rest)*),
        }),+]
    };
}

/// These hold at once, for what is open or for what comes next; nothing ends.
const LIVE: &[Key] = keys![
    public_url,
    allowed_origins,
    trusted_proxies,
    forwarded_header,
    drain_seconds,
    log.filter,
    records.keep_history_days,
    records.keep_usage_days,
    limits.connections_max,
    limits.connections_per_address_max,
    limits.newcomers_max,
    limits.newcomers_per_address_max,
    limits.handshake_seconds,
    limits.request_head_seconds,
    limits.request_seconds,
    limits.request_head_bytes_max,
    limits.request_body_bytes_max,
    limits.write_stall_seconds,
    relay.public_host,
    relay.users,
    relay.alternate_servers,
    relay.alternate_domain,
    relay.mobility,
    relay.nat_discovery,
    relay.tcp_allocations,
    relay.tcp_connections_max,
    relay.tcp_connections_per_allocation_max,
    relay.tcp_connections_unbound_per_allocation_max,
    relay.tcp_connections_per_user_max,
    relay.tcp_connections_per_account_max,
    relay.tcp_connection_idle_seconds,
    relay.third_party.server_name,
    relay.third_party.keys,
    relay.peers_allow,
    relay.peers_deny,
    relay.allocations_max,
    relay.allocations_per_user_max,
    relay.allocations_per_account_max,
    relay.bits_per_second_per_user_max,
    relay.packets_per_second_per_user_max,
    relay.bits_per_second_per_account_max,
    relay.packets_per_second_per_account_max,
    relay.permissions_per_allocation_max,
    relay.channels_per_allocation_max,
    relay.stranger_answers_per_second_max,
    relay.lifetime_seconds_max,
    relay.streams_max,
    relay.streams_per_address_max,
    relay.stream_idle_seconds,
    relay.stream_message_seconds,
    relay.stream_queue_bytes_max,
];

/// These hold at once while the certificate comes from where it came from; beginning or ending with TLS takes a restart.
const CERTIFICATE: &[Key] = keys![
    tls.certificate_file,
    tls.key_file,
    tls.acme.domains,
    tls.acme.contact,
    tls.acme.terms_agreed,
    tls.acme.directory,
    tls.acme.authority_file,
];

/// Sockets, threads, what is open on disk, and what is in the keys of clients.
const RESTART: &[Key] = keys![
    relay.find_public_ips_by,
    listen,
    roles,
    data_dir,
    web_dir,
    log.format,
    metrics.listen,
    signaling.shards,
    signaling.connections_per_address_max,
    signaling.hello_ms,
    signaling.stall_ms,
    signaling.limits.sessions_per_user_max,
    signaling.limits.sessions_per_account_max,
    signaling.limits.unattended_per_account_max,
    signaling.limits.phone_calls_per_account_max,
    signaling.limits.calls_per_user_max,
    signaling.limits.commands_per_second,
    signaling.limits.commands_burst,
    signaling.limits.invites_per_user_per_second,
    signaling.limits.invites_per_user_burst,
    signaling.limits.commands_per_account_per_second,
    signaling.limits.commands_per_account_burst,
    signaling.limits.hellos_per_address_per_second,
    signaling.limits.hellos_per_address_burst,
    signaling.limits.sdp_bytes_max,
    signaling.limits.candidates_max,
    signaling.limits.rooms_per_account_max,
    signaling.limits.rooms_per_session_max,
    signaling.limits.participants_per_room_max,
    signaling.limits.waiting_per_room_max,
    signaling.limits.room_events_per_second,
    signaling.limits.room_events_burst,
    signaling.limits.room_bytes_per_second,
    signaling.limits.room_bytes_burst,
    signaling.limits.room_offers_per_second,
    signaling.limits.room_offers_burst,
    signaling.limits.room_sdp_bytes_max,
    signaling.limits.resume_ms,
    signaling.limits.ping_ms,
    relay.listen_udp,
    relay.threads,
    relay.listen_tcp,
    relay.listen_tls,
    relay.listen_dtls,
    relay.relay_ips,
    relay.public_ips,
    relay.xdp,
    relay.xdp_interfaces,
    relay.xdp_channels_max,
    relay.port_min,
    relay.port_max,
    relay.realm,
    sfu.enabled,
    sfu.listen_ips,
    sfu.public_ips,
    sfu.port,
    sfu.threads,
    sfu.tcp,
    sfu.rooms_max,
    sfu.participants_max,
    sfu.participants_per_room_max,
    sfu.bitrate_out_max_kbps,
    sfu.bitrate_in_max_kbps,
    gateway.listen_udp,
    gateway.listen_tcp,
    gateway.listen_tls,
    gateway.public_ips,
    gateway.domains,
    gateway.sha256,
    gateway.dns_servers,
    gateway.rtp_port_min,
    gateway.rtp_port_max,
    gateway.calls_max,
    gateway.allow,
    gateway.deny,
    gateway.stranger_messages_per_second,
    gateway.failures_max,
    gateway.ban_seconds,
    gateway.connections_max,
    gateway.connections_per_address_max,
    gateway.connection_idle_seconds,
    gateway.health_seconds,
    gateway.session_seconds,
];

/// Decides what holds once `read` was read where `running` held so far.
pub fn merge(running: &Config, mut read: Config) -> (Config, Changes) {
    let mut changes = Changes::default();
    let stays = running.tls.source() == read.tls.source();
    let (live, restart): (&[_], &[_]) = match stays {
        true => (&[LIVE, CERTIFICATE], &[RESTART]),
        false => (&[LIVE], &[RESTART, CERTIFICATE]),
    };
    let is_other = |key: &&Key, read: &Config| !(key.is_same)(running, read);
    for key in live.iter().copied().flatten() {
        if is_other(&key, &read) {
            changes.live.push(key.path);
        }
    }
    for key in restart.iter().copied().flatten() {
        if is_other(&key, &read) {
            changes.restart.push(key.path);
            (key.copy)(running, &mut read);
        }
    }
    (read, changes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// The paths of all settings; a value that is no table is one.
    fn paths(value: &Value, path: &str, paths_out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = match path {
                        "" => name.clone(),
                        path => format!("{path}.{name}"),
                    };
                    paths(value, &path, paths_out);
                }
            }
            _ => paths_out.push(path.to_owned()),
        }
    }

    #[test]
    fn every_setting_is_known_to_be_live_or_to_need_a_restart() {
        let mut all = Vec::new();
        paths(
            &serde_json::to_value(Config::default()).unwrap(),
            "",
            &mut all,
        );
        let listed: Vec<_> = [LIVE, CERTIFICATE, RESTART]
            .into_iter()
            .flatten()
            .map(|key| key.path.to_owned())
            .collect();
        let once: BTreeSet<_> = listed.iter().cloned().collect();
        assert_eq!(once.len(), listed.len(), "a setting stands in one list");
        let all: BTreeSet<_> = all.into_iter().collect();
        let missing: Vec<_> = all.symmetric_difference(&once).collect();
        assert!(
            missing.is_empty(),
            "add to a list in config/reload.rs, or take out: {missing:?}"
        );
    }

    #[test]
    fn what_needs_a_restart_stays_as_it_was() {
        let read = |text: &str| toml::from_str::<Config>(text).unwrap();
        let running = read(
            "listen = ['127.0.0.1:1']\n[tls]\ncertificate_file = 'a'\nkey_file = 'b'\n\
             [relay]\nusers = [{ name = 'a', password = 'old' }]",
        );
        let (config, changes) = merge(
            &running,
            read(
                "listen = ['127.0.0.1:2']\n[tls]\ncertificate_file = 'c'\nkey_file = 'b'\n\
                 [relay]\nusers = [{ name = 'a', password = 'new' }]\nport_min = 60000\npeers_deny = ['192.0.2.1']",
            ),
        );
        assert_eq!(
            changes.live,
            ["relay.users", "relay.peers_deny", "tls.certificate_file"]
        );
        assert_eq!(changes.restart, ["listen", "relay.port_min"]);
        assert_eq!(config.listen, running.listen);
        assert_eq!(config.relay.port_min, running.relay.port_min);
        assert_eq!(config.relay.peers_deny, ["192.0.2.1"]);

        let (config, changes) = merge(&running, read("listen = ['127.0.0.1:1']"));
        assert_eq!(
            changes.restart,
            ["tls.certificate_file", "tls.key_file"],
            "an end of TLS"
        );
        assert!(config.tls.certificate_file.is_some());
        assert_eq!(merge(&running, running.clone()).1, Changes::default());
    }
}
