//! One order, from an account to a certificate (RFC 8555 §7.1).
//!
//! Its key is kept before the authority is asked for the certificate: one that was issued and did not arrive is fetched
//! later by the same order, for authorities count what they issue.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenges::{Challenges, Offer};
use super::folder::{Folder, Issued, SavedAccount, SavedOrder};
use super::http::Client;
use crate::config::Acme;

/// How long an authority may take over its checks, and again over the certificate.
const READY_MAX: Duration = Duration::from_secs(120);

/// What the account of RFC 8555 §6.7 is refused with that the authority does not know.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// What is no answer to what was asked (RFC 8555 §6.7).
const PASSING: [&str; 3] = [
    "urn:ietf:params:acme:error:badNonce",
    "urn:ietf:params:acme:error:rateLimited",
    "urn:ietf:params:acme:error:serverInternal",
];

/// How long an order is worth going on with, in seconds: authorities keep them for about a week.
const ORDER_SECONDS_MAX: i64 = 7 * 86_400;

/// A certificate and its key, in PEM.
pub(super) struct Brought {
    pub(super) key: String,
    pub(super) chain: String,
}

/// Opens the account that is kept in `folder`, or a new one.
pub(super) async fn account(folder: &Folder, settings: &Acme) -> anyhow::Result<Account> {
    let client = Client::new(settings.authority_file.as_deref())?;
    let builder = Account::builder_with_http(Box::new(client));
    let contact: Vec<_> = settings
        .contact
        .iter()
        .map(|address| format!("mailto:{address}"))
        .collect();
    let contacts: Vec<_> = contact.iter().map(String::as_str).collect();
    let Some(saved) = folder.account()? else {
        let new = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: settings.terms_agreed,
            only_return_existing: false,
        };
        let made = builder.create(&new, settings.directory.clone(), None).await;
        let (account, credentials) = made.context("no account")?;
        folder.keep_account(&SavedAccount {
            contact: contact.clone(),
            credentials,
        })?;
        tracing::info!(
            account = account.id(),
            "Opened an account with the authority"
        );
        return Ok(account);
    };
    let told = saved.contact == contact;
    let credentials = serde_json::to_value(&saved.credentials)?;
    let account = builder.from_credentials(saved.credentials).await?;
    if !told {
        account.update_contacts(&contacts).await?;
        folder.keep_account(&SavedAccount {
            contact,
            credentials: serde_json::from_value(credentials)?,
        })?;
    }
    Ok(account)
}

/// Whether `error` says that the authority has no such account, as after it was set up anew.
pub(super) fn is_unknown_account(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT)
        )
    })
}

/// Brings a certificate for the domains of `settings`, in place of `before`: that of the order in `folder`, or of a new one, which
/// stays there until its certificate has come. `kinds` are the challenges that can be met here, the best first.
pub(super) async fn obtain(
    account: &Account,
    folder: &Folder,
    settings: &Acme,
    before: Option<&Issued>,
    kinds: &[ChallengeType],
    challenges: &Challenges,
) -> anyhow::Result<Brought> {
    let names = settings.domains.iter().map(|name| name.to_lowercase());
    let domains: Vec<_> = names.collect();
    let (mut order, key) = match resume(account, folder, &domains).await? {
        Some(resumed) => resumed,
        None => {
            let order = prove(account, &domains, before, kinds, challenges).await?;
            let key = KeyPair::generate()?;
            folder.keep_order(&SavedOrder {
                url: order.url().to_owned(),
                domains: domains.clone(),
                since: Timestamp::now().as_second(),
                key: key.serialize_pem(),
            })?;
            (order, key)
        }
    };
    if order.state().status == OrderStatus::Ready {
        let mut params = CertificateParams::new(domains)?;
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?;
        order.finalize_csr(csr.der()).await?;
    }
    let chain = order.poll_certificate(&patience()).await?;
    let key = key.serialize_pem();
    Ok(Brought { key, chain })
}

fn patience() -> RetryPolicy {
    RetryPolicy::new().timeout(READY_MAX)
}

/// The order in `folder` and its key, if it is for `domains` and can still bring a certificate.
async fn resume(
    account: &Account,
    folder: &Folder,
    domains: &[String],
) -> anyhow::Result<Option<(Order, KeyPair)>> {
    let now = Timestamp::now().as_second();
    let is_good = |saved: &SavedOrder| {
        saved.domains == domains && (0..ORDER_SECONDS_MAX).contains(&(now - saved.since))
    };
    let Some(saved) = folder.order().filter(is_good) else {
        return Ok(None);
    };
    let Ok(key) = KeyPair::from_pem(&saved.key) else {
        return Ok(None);
    };
    let mut order = match account.order(saved.url).await {
        // The authority has no such order any more, or it is another account's.
        Err(Error::Api(problem)) if !is_passing(&problem) => return Ok(None),
        order => order.context("no word of the order whose certificate has not come")?,
    };
    Ok(match order.state().status {
        OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid => {
            tracing::info!(order = order.url(), "Going on with an order");
            Some((order, key))
        }
        _ => None,
    })
}

/// Whether a problem says nothing of the order itself (RFC 8555 §6.7).
fn is_passing(problem: &Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind == NO_ACCOUNT || PASSING.contains(&kind)
}

/// Makes an order for `domains` and shows that they are ours, after which it is ready for its certificate.
async fn prove(
    account: &Account,
    domains: &[String],
    before: Option<&Issued>,
    kinds: &[ChallengeType],
    challenges: &Challenges,
) -> anyhow::Result<Order> {
    let names = domains.iter().cloned();
    let identifiers: Vec<_> = names.map(Identifier::Dns).collect();
    let mut new = NewOrder::new(&identifiers);
    // Told what it replaces, an authority may count it less (RFC 9773 §5).
    let replaced = before.and_then(|issued| CertificateIdentifier::try_from(&issued.leaf).ok());
    if let Some(replaced) = replaced {
        new = new.replaces(replaced);
    }
    let mut order = match account.new_order(&new).await {
        // It does not know of replacing, or knows that this one was replaced already.
        Err(error) if before.is_some() => {
            tracing::debug!(%error, "Ordering without a word of the certificate before");
            account.new_order(&NewOrder::new(&identifiers)).await?
        }
        order => order?,
    };

    let offers = offer(&mut order, kinds, challenges).await?;
    let ready = order.poll_ready(&patience()).await;
    match ready {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => bail!(
            "the authority's check failed: {}",
            refusal(&mut order).await
        ),
        Err(error) => {
            let why = refusal(&mut order).await;
            return Err(
                anyhow::Error::new(error).context(format!("the authority's check failed: {why}"))
            );
        }
    }
    drop(offers);
    Ok(order)
}

/// Meets a challenge of each authorization; its answers are given for as long as the result lives.
async fn offer(
    order: &mut Order,
    kinds: &[ChallengeType],
    challenges: &Challenges,
) -> anyhow::Result<Vec<Offer>> {
    let mut offers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            status => bail!("an authorization is {status:?}"),
        }
        let offered: Vec<_> = authorization
            .challenges
            .iter()
            .map(|challenge| challenge.r#type.clone())
            .collect();
        let kind = kinds.iter().find(|kind| offered.contains(kind));
        let kind = kind.with_context(|| {
            format!("the authority offers {offered:?}, and only {kinds:?} can be met here")
        })?;
        let mut challenge = authorization
            .challenge(kind.clone())
            .context("no challenge")?;
        let authorization = challenge.key_authorization();
        offers.push(match kind {
            ChallengeType::Http01 => {
                challenges.offer_http(&challenge.token, authorization.as_str())?
            }
            _ => {
                let domain = challenge.identifier().to_string();
                challenges.offer_tls(&domain, authorization.digest().as_ref())?
            }
        });
        challenge.set_ready().await?;
    }
    ensure!(
        !order.state().authorizations.is_empty(),
        "an order of nothing"
    );
    Ok(offers)
}

/// What the authority says of each challenge that failed.
async fn refusal(order: &mut Order) -> String {
    let mut words = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let domain = state.identifier().to_string();
        for challenge in &state.challenges {
            if let Some(error) = &challenge.error {
                words.push(format!("{domain}: {error}"));
            }
        }
    }
    match words.is_empty() {
        true => "it does not say why".to_owned(),
        false => words.join("; "),
    }
}
