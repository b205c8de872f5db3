//! What a person sees who starts the server: where it is, what it keeps where, what to do next.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::config::Role;
use crate::plan::{LAN_PORT, Mode, Plan};
use crate::run::Server;

/// The words for standard output.
pub fn text(plan: &Plan, server: &Server) -> String {
    let mut out = format!("\n  Offhook {} is ready.\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |title: &str, text: &str| {
        // Writing to a string can't fail.
        let _ = writeln!(out, "  {title:<10} {text}");
    };
    let port = server.addresses().first().map_or(0, SocketAddr::port);
    let serves_calls = plan.has(Role::Signaling) && plan.has(Role::Web);
    match &plan.mode {
        Mode::Local if serves_calls => {
            line(
                "Open",
                &format!("http://localhost:{port} in two windows, pick two names, call"),
            );
        }
        Mode::Lan { addresses } if serves_calls => {
            let mut title = "Open";
            for ip in addresses.iter().filter(|ip| !ip.is_loopback()) {
                line(title, &format!("https://{}", host_and_port(*ip, port)));
                title = "";
            }
            line(title, &format!("https://localhost:{port} on this machine"));
            line(
                "",
                "The browser warns once per device: the certificate is for development, made here. Go on anyway.",
            );
        }
        _ => {
            let listening = plan
                .config
                .public_url
                .as_ref()
                .map_or_else(|| list(server.addresses()), |url| url.as_str().to_owned());
            line("Serving", &listening);
        }
    }
    line(
        "TCP",
        &format!("{} for {}", list(server.addresses()), spoken(plan)),
    );
    if plan.has(Role::Relay) {
        line(
            "UDP",
            &format!("{} for STUN and TURN", list(server.relay_addresses())),
        );
    }
    if !server.sfu_addresses().is_empty() {
        line(
            "",
            &format!("{} for the media of Rooms", list(server.sfu_addresses())),
        );
    }
    let phones = server.gateway_addresses();
    if !phones.is_empty() {
        let shown: Vec<_> = phones
            .iter()
            .map(|(transport, address)| format!("{transport} {address}"))
            .collect();
        line("SIP", &format!("{} for phones", shown.join(", ")));
    }
    let data =
        std::path::absolute(&plan.config.data_dir).unwrap_or_else(|_| plan.config.data_dir.clone());
    line("State", &data.display().to_string());
    match &plan.mode {
        _ if !plan.has(Role::Signaling) => {}
        Mode::Local => {
            line(
                "Sign-in",
                "open: whoever uses this machine may take any name",
            );
            line(
                "Next",
                &format!(
                    "--lan              serves your local network over HTTPS on {LAN_PORT}, for a phone"
                ),
            );
            line(
                "",
                "config --example   prints every setting, for a server of your own",
            );
        }
        Mode::Lan { .. } => line(
            "Sign-in",
            "open: whoever is on your network may take any name",
        ),
        Mode::Configured => line(
            "Sign-in",
            "with tokens: `offhook token --user alice` mints one",
        ),
    }
    out.push('\n');
    out
}

/// What the shared port is for.
fn spoken(plan: &Plan) -> String {
    let mut spoken = vec!["HTTP"];
    if plan.has(Role::Signaling) {
        spoken.push("WebSocket");
    }
    if plan.has(Role::Relay) {
        spoken.push("TURN");
    }
    match spoken.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses
        .iter()
        .map(SocketAddr::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn host_and_port(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}
