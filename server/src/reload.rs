//! Other settings while the server runs: what can change does, and nothing ends.

use std::sync::atomic::Ordering;

use anyhow::Context;

use crate::config::Config;
use crate::config::reload::{Changes, merge};
use crate::plan::Plan;
use crate::run::{Running, Server};
use crate::signaling;
use crate::state::DataDir;
use crate::telemetry;
use crate::tls::Files;

impl Server {
    /// Puts the settings that were `read`, those of the secrets' file and the certificate in force, as far as that takes no restart.
    /// No Allocation, Session or connection ends. Returns which settings are other than before; the certificate's own outcome is
    /// logged and counted.
    ///
    /// Fails when something is wrong with them, with the error in `read` where they couldn't be; then what is in use stays.
    pub async fn reload(&self, read: anyhow::Result<Plan>) -> anyhow::Result<Changes> {
        let outcome = match read {
            Ok(plan) => self.reconfigure(plan).await,
            Err(error) => Err(error),
        };
        let word = if outcome.is_ok() { "taken" } else { "refused" };
        metrics::counter!("server_reloads_total", "outcome" => word).increment(1);
        outcome
    }

    async fn reconfigure(&self, plan: Plan) -> anyhow::Result<Changes> {
        let mut running = self.running.lock().await;
        let (config, mut changes) = merge(&running.config, plan.config);
        let secrets = DataDir::read_secrets(&config.data_dir)?;
        if secrets.turn != running.secrets.turn
            || secrets.turn_before != running.secrets.turn_before
        {
            changes.live.push("secrets.toml: turn");
        }
        if secrets.seal != running.secrets.seal {
            changes.restart.push("secrets.toml: seal");
        }

        // What can fail comes first, and each of these fails without a change.
        config.relay.check().context("[relay]")?;
        telemetry::set_filter(&config.log.filter)?;
        if let Some(signaling) = &self.signaling {
            signaling.set_allowed_origins(&config.allowed_origins)?;
        }
        if let Some(relay) = &self.relay {
            let applied = relay.reconfigure(&config.relay, secrets.credentials());
            applied.await.context("[relay]")?;
        }
        if let Some(signaling) = &self.signaling {
            let tls = self.certificate.is_some();
            let ice = signaling::ice_now(&config, self.relay.as_ref(), &self.addresses, tls);
            signaling.set_ice(ice, &secrets.turn);
        }
        self.ports.reconfigure(&config);
        self.keep_history_days
            .store(config.records.keep_history_days, Ordering::Relaxed);
        self.keep_usage_days
            .store(config.records.keep_usage_days, Ordering::Relaxed);
        self.reload_certificate(&config);
        *running = Running {
            config,
            // Sealed states of clients are read with the secret that this process began with.
            secrets: crate::state::Secrets {
                seal: running.secrets.seal,
                seal_before: running.secrets.seal_before.clone(),
                ..secrets
            },
        };
        Ok(changes)
    }

    fn reload_certificate(&self, config: &Config) {
        if let Some(acme) = &self.acme {
            // Even the same settings have it try again what failed.
            acme.send_replace(config.tls.acme.clone());
        }
        let Some(certificate) = self.certificate.as_ref().filter(|_| self.acme.is_none()) else {
            return;
        };
        if let (Some(certificate_file), Some(key_file)) =
            (&config.tls.certificate_file, &config.tls.key_file)
        {
            certificate.follow(Files {
                certificate: certificate_file.clone(),
                key: key_file.clone(),
            });
        }
        certificate.take();
    }
}
