//! Certificates by ACME (RFC 8555): ordered, kept in the data directory, and renewed for as long as the server runs.
//!
//! ```text
//! is it due? ─ no ─▶ wait ──────────────────────────────┐
//!     │ yes                                             │
//!     ▼                                                 │
//! lock ─▶ account ─▶ order ─▶ challenge ─▶ certificate ─┤ served by every listener
//!     └── failed: longer and longer pauses ◀────────────┘
//! ```
//!
//! What is served is never taken away: until the first certificate comes it is a self-signed one, and afterwards the last that came.

mod challenges;
mod folder;
mod http;
mod order;
mod renewal;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use instant_acme::{Account, CertificateIdentifier, ChallengeType};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::folder::{Folder, Issued};
use super::{Files, Watched, store};
use crate::config::Acme;
use crate::state;

pub(crate) use challenges::Challenges;

/// What an authority speaks inside TLS to see that a domain is ours (RFC 8737 §4).
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// Where an authority asks over plain HTTP (RFC 8555 §8.3).
pub const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// How long an order may take in all.
const ORDER_MAX: Duration = Duration::from_secs(10 * 60);

/// How long to wait while another process orders.
const LOCKED_PAUSE: Duration = Duration::from_secs(5);

/// The shortest and the longest pause before it is looked again whether a certificate is due.
const LOOK_MIN: Duration = Duration::from_secs(60);
const LOOK_MAX: Duration = Duration::from_secs(6 * 3_600);

/// The shortest pause after a certificate came, whatever it or the authority says of its life.
const RENEWED_PAUSE: Duration = Duration::from_secs(3_600);

/// Keeps a certificate for as long as the server runs.
pub(crate) struct Keeper {
    data: PathBuf,
    /// Where authorities reach us.
    listen: Vec<SocketAddr>,
    watched: Arc<Watched>,
    settings: watch::Receiver<Acme>,
    /// Spreads servers out.
    luck: u8,
    suggestion: Option<Suggestion>,
    /// Orders that failed one after the other.
    failures: u32,
}

/// What a turn came to.
enum Turn {
    /// There is a certificate, and it is not looked at again for so long.
    Kept(Duration),
    /// Another process orders. That says nothing about how the authority will take ours.
    Locked,
}

/// When an authority wants a certificate renewed (RFC 9773 §4.2).
struct Suggestion {
    leaf: Vec<u8>,
    window: Option<(i64, i64)>,
    ask_again_at: Instant,
}

/// Where the certificate of `settings` is, in the data directory at `data`, once there is one.
pub fn files(data: &Path, settings: &Acme) -> Files {
    Folder::of(data, &settings.directory).files()
}

/// Why the last order failed; `None` where it didn't.
pub fn failure(data: &Path, settings: &Acme) -> Option<String> {
    Folder::of(data, &settings.directory).failure()
}

/// The answers to challenges that are kept in the data directory at `data`.
pub(crate) fn challenges_in(data: &Path) -> Challenges {
    Challenges::new(&folder::challenges_in(data))
}

/// Answers authorities that ask over HTTP.
pub(crate) fn router(challenges: Challenges) -> Router {
    Router::new()
        .route(&format!("{CHALLENGE_PATH}{{token}}"), get(answer))
        .with_state(challenges)
}

async fn answer(
    State(challenges): State<Challenges>,
    extract::Path(token): extract::Path<String>,
) -> Response {
    match challenges.answer_http(&token) {
        Some(answer) => answer.into_response(),
        None => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}

/// What is served until the first certificate comes, as PEM with its key: those who look see that it is none to trust.
pub(crate) fn self_signed(settings: &Acme) -> anyhow::Result<String> {
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(settings.domains.clone())?;
    let certificate = params.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

/// The challenges that can be met, the best first. Authorities ask at 443 or 80; where neither is listened on, something in front
/// passes them on.
fn kinds(listen: &[SocketAddr], failures: u32) -> Vec<ChallengeType> {
    let listens = |port: u16| listen.iter().any(|address| address.port() == port);
    let mut kinds = match (listens(443), listens(80)) {
        (true, false) => vec![ChallengeType::TlsAlpn01],
        (false, true) => vec![ChallengeType::Http01],
        _ => vec![ChallengeType::TlsAlpn01, ChallengeType::Http01],
    };
    // A firewall or a CDN may let one through and not the other.
    let first = failures as usize % kinds.len();
    kinds.rotate_left(first);
    kinds
}

impl Keeper {
    /// Keeps what `settings` say in the data directory at `data`, which `watched` serves. Other settings that come there hold at
    /// once, and the same again have a failed order tried again.
    pub(crate) fn new(
        data: &Path,
        listen: &[SocketAddr],
        watched: Arc<Watched>,
        settings: watch::Receiver<Acme>,
    ) -> anyhow::Result<Self> {
        let [luck] = state::random::<1>()?;
        Ok(Self {
            data: data.to_owned(),
            listen: listen.to_owned(),
            watched,
            settings,
            luck,
            suggestion: None,
            failures: 0,
        })
    }

    /// Goes on until the server has ended.
    pub(crate) async fn keep(mut self) {
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let wait = self.turn_and_count(&settings).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = self.settings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.failures = 0;
                }
            }
        }
    }

    /// Does a turn and keeps account of those that failed; returns how long to wait until the next one.
    async fn turn_and_count(&mut self, settings: &Acme) -> Duration {
        match self.turn(settings).await {
            Ok(Turn::Kept(wait)) => {
                self.failures = 0;
                wait
            }
            Ok(Turn::Locked) => LOCKED_PAUSE,
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.tell_failure(settings, &error);
                let wait = renewal::retry_in(self.failures, self.luck);
                tracing::error!(
                    error = format!("{error:#}"),
                    retry_in_seconds = wait.as_secs(),
                    "No certificate by ACME, keeping what is served"
                );
                wait
            }
        }
    }

    /// Renews the certificate if that is due.
    async fn turn(&mut self, settings: &Acme) -> anyhow::Result<Turn> {
        let folder = Folder::of(&self.data, &settings.directory);
        folder.make()?;
        if let Some(wait) = self.not_due(&folder, settings).await {
            return self.serve(&folder, wait);
        }
        let Some(lock) = folder.lock()? else {
            return Ok(Turn::Locked);
        };
        // Another process may have renewed it meanwhile.
        if let Some(wait) = self.not_due(&folder, settings).await {
            return self.serve(&folder, wait);
        }

        let ordered = timeout(ORDER_MAX, self.order(&folder, settings)).await;
        ordered.context("the authority took too long")??;
        drop(lock);
        metrics::counter!("server_acme_orders_total", "outcome" => "obtained").increment(1);
        tracing::info!(
            domains = settings.domains.join(", "),
            "A certificate came by ACME"
        );
        self.serve(&folder, RENEWED_PAUSE)
    }

    /// How long to wait until the certificate may be due; `None` when it is.
    async fn not_due(&mut self, folder: &Folder, settings: &Acme) -> Option<Duration> {
        let issued = folder.issued()?;
        if !issued.is_for(&settings.domains) {
            return None;
        }
        let window = self.window(folder, settings, &issued).await;
        let renew_at = renewal::renew_at(issued.validity, window, self.luck);
        let left = renew_at - Timestamp::now().as_second();
        let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
        Some(Duration::from_secs(left).clamp(LOOK_MIN, LOOK_MAX))
    }

    /// When the authority wants `issued` renewed, where it has an opinion.
    async fn window(
        &mut self,
        folder: &Folder,
        settings: &Acme,
        issued: &Issued,
    ) -> Option<(i64, i64)> {
        if let Some(held) = &self.suggestion
            && held.leaf == *issued.leaf
            && Instant::now() < held.ask_again_at
        {
            return held.window;
        }
        let asked = async {
            // An account is only opened to order.
            folder.account()?.context("no account yet")?;
            let account: Account = order::account(folder, settings).await?;
            let id = CertificateIdentifier::try_from(&issued.leaf).map_err(anyhow::Error::msg)?;
            let (info, ask_again_in) = account.renewal_info(&id).await?;
            let window = info.suggested_window;
            let window = (window.start.unix_timestamp(), window.end.unix_timestamp());
            anyhow::Ok((window, ask_again_in))
        };
        let (window, ask_again_in) = match timeout(ORDER_MAX, asked).await {
            Ok(Ok((window, ask_again_in))) => (Some(window), ask_again_in),
            Ok(Err(error)) => {
                tracing::debug!(error = format!("{error:#}"), "No word on when to renew");
                (None, LOOK_MAX)
            }
            Err(_) => (None, LOOK_MAX),
        };
        self.suggestion = Some(Suggestion {
            leaf: issued.leaf.to_vec(),
            window,
            ask_again_at: Instant::now() + ask_again_in.clamp(LOOK_MIN, LOOK_MAX),
        });
        window
    }

    async fn order(&self, folder: &Folder, settings: &Acme) -> anyhow::Result<()> {
        let ordered = async {
            let account = order::account(folder, settings).await?;
            let before = folder.issued();
            let kinds = kinds(&self.listen, self.failures);
            let challenges = challenges_in(&self.data);
            order::obtain(
                &account,
                folder,
                settings,
                before.as_ref(),
                &kinds,
                &challenges,
            )
            .await
        };
        let brought = match ordered.await {
            Err(error) if order::is_unknown_account(&error) => {
                folder.forget_account()?;
                return Err(error.context("the authority has forgotten the account"));
            }
            brought => brought?,
        };
        let kept = keep_brought(folder, settings, &(brought.key + &brought.chain));
        // Whatever it came to, the same order brings nothing else.
        folder.forget_order()?;
        kept
    }

    /// Has what is in the folder served, now or as soon as it is good, and looks again in `wait`.
    fn serve(&self, folder: &Folder, wait: Duration) -> anyhow::Result<Turn> {
        folder.set_failure(None)?;
        self.watched.follow(folder.files());
        self.watched.look();
        Ok(Turn::Kept(wait))
    }

    fn tell_failure(&self, settings: &Acme, error: &anyhow::Error) {
        metrics::counter!("server_acme_orders_total", "outcome" => "failed").increment(1);
        let folder = Folder::of(&self.data, &settings.directory);
        let words = format!("{}: {error:#}\n", Timestamp::now());
        if let Err(error) = folder.set_failure(Some(&words)) {
            tracing::warn!(
                error = format!("{error:#}"),
                "The failure is not kept for doctor"
            );
        }
    }
}

/// Keeps what came, which stands in `pem` with its key, if it can be served.
fn keep_brought(folder: &Folder, settings: &Acme, pem: &str) -> anyhow::Result<()> {
    store::check(pem).context("what came can't be served")?;
    let issued = Issued::parse(pem).context("what came is no certificate")?;
    ensure!(
        issued.is_for(&settings.domains),
        "the certificate that came is for {:?}",
        issued.names
    );
    // First of all kept: where the clock is wrong, what was issued is good once it is right, and another order brings no better.
    folder.keep_certificate(pem)?;
    ensure!(
        Timestamp::now().as_second() < issued.validity.end,
        "what came has ended by the clock of this machine"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_those_that_can_reach_us_and_take_turns_after_failures() {
        let check = |ports: &[u16], failures| {
            let listen: Vec<_> = ports
                .iter()
                .map(|port| SocketAddr::from(([0, 0, 0, 0], *port)))
                .collect();
            kinds(&listen, failures)
        };
        use ChallengeType::{Http01, TlsAlpn01};

        assert_eq!(check(&[443], 0), [TlsAlpn01]);
        assert_eq!(check(&[443], 1), [TlsAlpn01]);
        assert_eq!(check(&[80], 0), [Http01]);
        assert_eq!(check(&[443, 80], 0), [TlsAlpn01, Http01]);
        assert_eq!(check(&[443, 80], 1), [Http01, TlsAlpn01]);
        assert_eq!(check(&[443, 80], 2), [TlsAlpn01, Http01]);
        assert_eq!(check(&[8443], 0), [TlsAlpn01, Http01]);
    }

    #[test]
    fn each_authority_has_a_folder_of_its_own() {
        let path = |directory: &str| {
            let files = Folder::of(Path::new("data"), directory).files();
            files.certificate.display().to_string()
        };
        assert_eq!(
            path("https://acme-v02.api.letsencrypt.org/directory"),
            "data/acme/acme-v02-api-letsencrypt-org-directory/certificate.pem"
        );
        assert_eq!(path("https://../../x"), "data/acme/------x/certificate.pem");
    }

    #[tokio::test]
    async fn the_lock_of_another_process_is_no_success() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Acme {
            domains: vec!["calls.test".to_owned()],
            // Nobody is there.
            directory: "https://127.0.0.1:1/directory".to_owned(),
            ..Acme::default()
        };
        let folder = Folder::of(dir.path(), &settings.directory);
        folder.make().unwrap();
        let stand_in = self_signed(&settings).unwrap();
        let challenges = challenges_in(dir.path());
        let watched = Watched::open_acme(folder.files(), true, &stand_in, challenges).unwrap();
        let (_sender, receiver) = watch::channel(settings.clone());
        let mut keeper = Keeper::new(dir.path(), &[], Arc::new(watched), receiver).unwrap();
        keeper.failures = 3;

        let of_another = folder.lock().unwrap();
        assert_eq!(keeper.turn_and_count(&settings).await, LOCKED_PAUSE);
        assert_eq!((keeper.failures, folder.failure()), (3, None));
        drop(of_another);
        let wait = keeper.turn_and_count(&settings).await;
        assert_eq!(wait, renewal::retry_in(4, keeper.luck));
        assert!(folder.failure().is_some());
    }
}
