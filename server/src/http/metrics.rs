//! `/metrics`: figures for Prometheus.
//!
//! On the public port only to clients on this machine that no proxy stands in front of: figures tell how much a company calls.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::is_this_machine;
use anyhow::Context;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, http::HeaderValue};
use backing::records::Records;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// How often histograms are folded, so that they stay small when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// How a request got here.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// The TCP connection comes from this machine.
    pub locally: bool,
    /// There are signs of a proxy in front.
    pub through_proxy: bool,
}

/// Starts collecting; every later call gives the same collection, for it is one per process.
pub fn recorder() -> anyhow::Result<PrometheusHandle> {
    static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*recorder {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .context("metrics recorder")?;
    Ok(recorder.insert(handle).clone())
}

/// Folds histograms, and tells how the writing of records goes and how many tasks there are, for ever.
pub async fn keep_up(handle: PrometheusHandle, records: Records) {
    let (failing, waiting, lost) = (
        metrics::gauge!("records_failing"),
        metrics::gauge!("records_waiting"),
        metrics::counter!("records_lost_total"),
    );
    let tasks = metrics::gauge!("runtime_tasks");
    let runtime = tokio::runtime::Handle::current().metrics();
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
        let health = records.health();
        failing.set(if health.failing { 1.0 } else { 0.0 });
        waiting.set(f64::from(u32::try_from(health.waiting).unwrap_or(u32::MAX)));
        lost.absolute(health.lost);
        tasks.set(runtime.num_alive_tasks() as f64);
    }
}

/// `/metrics` for the public port.
pub fn router(handle: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(local))
        .with_state(handle)
}

/// `/metrics` for a port of its own.
pub fn open_router(handle: PrometheusHandle) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(|State(handle): State<PrometheusHandle>| async move { render(&handle) }),
        )
        .with_state(handle)
}

async fn local(
    State(handle): State<PrometheusHandle>,
    Extension(reached): Extension<Reached>,
    headers: HeaderMap,
) -> Response {
    // A page of some web site could make a browser on this machine ask; it can't choose a host that is ours.
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    if !reached.locally || reached.through_proxy || !is_this_machine(host) {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    }
    render(&handle)
}

fn render(handle: &PrometheusHandle) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], handle.render()).into_response()
}
