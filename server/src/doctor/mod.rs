//! `offhook doctor`: checks what operators get wrong, and says what to do.
//!
//! In: the settings (or why they can't be read) and a URL. Out: a [`Report`]. It asks the running server as its clients do, over real
//! sockets, and needs to run where the data directory is, for the secret that makes TURN credentials.

mod certificate;
mod gateway;
mod network;
pub mod pair;
mod relay;
pub mod report;
mod sfu;
mod site;
mod xdp;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::addresses::{self, Reach};
use crate::cli::DoctorOptions;
use crate::config::load::Loaded;
use crate::config::{CertificateSource, Config, PublicUrl, Role, secrecy};
use crate::state::{DataDir, Secrets};
use crate::tls::{self, development};

use report::Finding;
pub use report::Report;

/// What the checks are about.
struct Patient {
    config: Config,
    /// What people type; `None` when nobody said.
    url: Option<PublicUrl>,
    /// `None` when they can't be read; a finding said so.
    secrets: Option<Secrets>,
    /// Trusts what this machine trusts, and the development authority.
    tls: Arc<ClientConfig>,
    /// Whether anybody wrote settings.
    from_file: bool,
}

impl Patient {
    /// Whether people come from the internet.
    fn is_public(&self) -> bool {
        let url = self.url.as_ref();
        url.is_some_and(|url| match url.host().parse() {
            Ok(ip) => addresses::reach(ip) == Reach::Internet,
            Err(_) => url.host() != "localhost",
        })
    }

    /// Whether the server speaks TLS itself: with a certificate of its own, or started with `--lan` in this data directory.
    fn speaks_tls(&self) -> bool {
        let development = development::files(&self.config.data_dir).certificate;
        self.config.tls.source() != CertificateSource::None
            || (!self.from_file && development.exists())
    }
}

/// Runs every check; a check that can't be made says why.
/// `file` is that of the settings, where there is one.
pub async fn examine(
    loaded: anyhow::Result<Loaded>,
    file: Option<&Path>,
    options: &DoctorOptions,
) -> Report {
    let mut report = Report::default();
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            report.add(Finding::bad(
                "settings",
                format!("{error:#}"),
                "correct it; `offhook config --example` explains every setting",
            ));
            return report;
        }
    };
    let Loaded {
        mut config,
        from_file,
    } = loaded;
    report.add(Finding::good(
        "settings",
        if from_file {
            "the file can be read"
        } else {
            "no file: the defaults, for this machine only"
        },
    ));
    if let Some(file) = file.filter(|file| secrecy::is_exposed(file)) {
        report.add(Finding::bad(
            "settings",
            format!(
                "{} holds secrets, and everybody on this machine can read it",
                file.display()
            ),
            format!(
                "change its group to that of the server, then chmod 640 {}",
                file.display()
            ),
        ));
    }
    if config.roles.contains(&Role::Relay) {
        find_public_ips(&mut report, &mut config.relay).await;
    }
    let secrets = state(&mut report, &config);
    let url = options.url.clone().or_else(|| config.public_url.clone());
    let tls = match trust(&mut report, &config) {
        Ok(tls) => tls,
        Err(error) => {
            report.add(Finding::bad(
                "TLS",
                format!("{error:#}"),
                "this build of offhook is broken, get another one",
            ));
            return report;
        }
    };
    let patient = Patient {
        config,
        url,
        secrets,
        tls,
        from_file,
    };

    network::check(&mut report, &patient).await;
    certificate::check(&mut report, &patient);
    site::check(&mut report, &patient).await;
    if patient.config.roles.contains(&Role::Relay) {
        relay::check(&mut report, &patient).await;
        xdp::check(&mut report, &patient).await;
    }
    if patient.config.roles.contains(&Role::Signaling) && patient.config.sfu.enabled {
        sfu::check(&mut report, &patient);
    }
    if patient.config.roles.contains(&Role::Signaling) && patient.config.gateway.is_enabled() {
        gateway::check(&mut report, &patient).await;
    }
    report
}

/// Asks for the addresses that peers see as the relay does when it starts.
async fn find_public_ips(report: &mut Report, relay: &mut relay_service::Config) {
    if relay.find_public_ips_by.is_empty() {
        return;
    }
    match relay_service::find_public_ips(relay).await {
        Ok(found) => {
            let words: Vec<_> = found.iter().map(IpAddr::to_string).collect();
            report.add(Finding::good(
                "address",
                format!("`find_public_ips_by` finds {}", words.join(", ")),
            ));
            relay.public_ips = found;
            relay.find_public_ips_by.clear();
        }
        Err(error) => report.add(Finding::bad(
            "address",
            format!("{error:#}. What follows takes `relay_ips` for what peers see"),
            "open UDP toward that server in the firewall, or set `public_ips` in [relay]",
        )),
    }
}

fn state(report: &mut Report, config: &Config) -> Option<Secrets> {
    let path = &config.data_dir;
    let exists = path.try_exists();
    if let Err(error) = &exists {
        report.add(Finding::bad(
            "state",
            format!("can't look at {}: {error}", path.display()),
            "run doctor as the server's user",
        ));
        return None;
    }
    if !exists.is_ok_and(|exists| exists) {
        report.add(Finding::bad(
            "state",
            format!("{} does not exist", path.display()),
            "start `offhook serve` once, or name the server's data directory with --data",
        ));
        return None;
    }
    let loose = DataDir::loose(path);
    if loose.is_empty() {
        report.add(Finding::good(
            "state",
            format!("{} is for its owner's eyes only", path.display()),
        ));
    } else {
        let names: Vec<_> = loose
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        report.add(Finding::bad(
            "state",
            format!("others can read {}", names.join(", ")),
            format!("chmod -R go-rwx {}", path.display()),
        ));
    }
    match DataDir::read_secrets(path) {
        Ok(secrets) => Some(secrets),
        Err(error) => {
            report.add(Finding::bad(
                "secrets",
                format!("{error:#}"),
                "run doctor as the server's user, with the server's --data",
            ));
            None
        }
    }
}

/// Whom to trust: this machine's authorities, and the development one where there is one.
fn trust(report: &mut Report, config: &Config) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = tls::authorities();
    let files = development::files(&config.data_dir);
    if let Ok(chain) = tls::read_chain(&files.authority) {
        roots.add_parsable_certificates(chain);
    }
    if roots.is_empty() {
        report.add(Finding::note(
            "authorities",
            "this machine trusts nobody, so no certificate can be checked: install ca-certificates",
        ));
    }
    Ok(Arc::new(tls::client_config(roots)?))
}
