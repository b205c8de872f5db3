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

    loop {
        looks.tick().await;
        let Some(inner) = service.upgrade() else {
            return;
        };
        known = look(&inner, &known).await;
    }
}

/// Tells of every key that was revoked lately; returns them. `known` are those of the look before.
async fn look(inner: &Inner, known: &HashSet<ApiKeyId>) -> HashSet<ApiKeyId> {
    let now = inner.clock.now().as_millis();
    let since = Timestamp::from_millis(now.saturating_sub(REACH_MS));
    let revoked = match inner
        .records
        .api_keys_revoked_since(since, REVOKED_MAX)
        .await
    {
        Ok(revoked) => revoked,
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "Revoked API keys can't be looked up"
            );
            return known.clone();
        }
    };

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
    revoked.into_iter().map(|(api_key, _)| api_key).collect()
}
