//! Makes the revocation of an API key felt, whichever process it was told to: its tokens are refused, its Sessions let go.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::Duration;

use model::{ApiKeyId, Timestamp};

use crate::service::Inner;
use crate::shard::Input;

/// How often one looks: so long a revoked key may go on.
const LOOK: Duration = Duration::from_secs(5);
/// How far back one looks. Each key is seen several times: a `hello` may have been verified just before the first time, and the
/// clock of who revoked it may be behind.
const REACH_MS: u64 = 60_000;
/// How many keys are looked at.
const REVOKED_MAX: u32 = 10_000;

/// Looks until the service is gone.
pub(crate) async fn watch(service: Weak<Inner>) {
    let mut looks = tokio::time::interval(LOOK);
    let mut known = HashSet::new();
    let mut looked_at = None;

    loop {
        looks.tick().await;
        let Some(inner) = service.upgrade() else {
            return;
        };
        let now = inner.clock.now();
        // A look that failed, or a clock that was set, leaves no gap.
        let since = looked_at.unwrap_or(now).min(now);
        match look(&inner, since, &known).await {
            Ok(revoked) => {
                known = revoked;
                looked_at = Some(now);
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "Revoked API keys can't be looked up"
                );
                looked_at = Some(since);
            }
        }
    }
}

/// Tells of every key that was revoked after `since`, or shortly before; returns them. `known` are those of the look before.
async fn look(
    inner: &Inner,
    since: Timestamp,
    known: &HashSet<ApiKeyId>,
) -> anyhow::Result<HashSet<ApiKeyId>> {
    let since = Timestamp::from_millis(since.as_millis().saturating_sub(REACH_MS));
    let revoked = inner
        .records
        .api_keys_revoked_since(since, REVOKED_MAX)
        .await?;

    for (api_key, account) in &revoked {
        if !known.contains(api_key) {
            tracing::info!(%api_key, %account, "API key revoked");
        }
        inner.tokens.forget(*api_key);
        let input = Input::KeyRevoked {
            account: *account,
            api_key: *api_key,
        };
        let _ = inner.shards.of(*account).send(input).await; // A shard ends with the process only.
    }
    Ok(revoked.into_iter().map(|(api_key, _)| api_key).collect())
}
