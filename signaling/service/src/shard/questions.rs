//! Finds out what the core asks, off its task.

use backing::records::HistoryCursor;
use futures_util::{StreamExt, stream};
use model::AccountId;
use signaling_core::{Answer, QueryId, Question};
use tokio::sync::mpsc;

use super::{SIDE_LEN_MAX, Surroundings};
use crate::telephony;

/// How many questions of a shard are asked at the same time.
const AT_ONCE: usize = 4;

/// The way to ask, and the answers.
type Desk = (
    mpsc::Sender<(QueryId, Question)>,
    mpsc::Receiver<(QueryId, Answer)>,
);

/// Starts a task that answers until nobody can ask. `is_ours` tells the Accounts of the shard.
pub(super) fn start(
    around: &Surroundings,
    is_ours: impl Fn(AccountId) -> bool + Copy + Send + 'static,
) -> Desk {
    let (questions, asked) = mpsc::channel(SIDE_LEN_MAX);
    let (answer, answers) = mpsc::channel(SIDE_LEN_MAX);
    let around = around.clone();

    let asked = stream::unfold(asked, |mut asked: mpsc::Receiver<_>| async {
        asked.recv().await.map(|question| (question, asked))
    });
    tokio::spawn(
        asked.for_each_concurrent(AT_ONCE, move |(query, question)| {
            let (around, answer) = (around.clone(), answer.clone());
            async move {
                let found = find_out(&around, question, is_ours)
                    .await
                    .unwrap_or_else(|error| {
                        tracing::error!(%error, "The records do not answer");
                        Answer::Failed
                    });
                // The shard is gone when nobody wants to know.
                let _ = answer.send((query, found)).await;
            }
        }),
    );

    (questions, answers)
}

async fn find_out(
    around: &Surroundings,
    question: Question,
    is_ours: impl Fn(AccountId) -> bool,
) -> anyhow::Result<Answer> {
    let records = &around.records;
    let telephones = around.telephones.get();
    Ok(match question {
        Question::History {
            account,
            user,
            before,
            limit,
        } => {
            let before: Option<HistoryCursor> = match before.map(|text| text.parse()).transpose() {
                Ok(before) => before,
                // Nothing comes after a place that does not exist.
                Err(_) => {
                    let missed = records.missed(account, &user).await?;
                    return Ok(Answer::History {
                        entries: Vec::new(),
                        next: None,
                        missed,
                    });
                }
            };

            let page = records
                .history(account, &user, before, limit.into())
                .await?;
            Answer::History {
                entries: page.entries,
                next: page.next.map(|next| next.to_string()),
                missed: page.missed,
            }
        }
        Question::Missed { account, user } => Answer::Missed(records.missed(account, &user).await?),
        Question::Directory {
            account,
            users: Some(users),
            limit,
        } => {
            let users = &users[..users.len().min(limit)];
            Answer::Directory(records.named(account, users).await?)
        }
        Question::Directory {
            account,
            users: None,
            limit,
        } => {
            let limit = u32::try_from(limit).unwrap_or(u32::MAX);
            Answer::Directory(records.users(account, limit).await?)
        }
        Question::OpenCalls {
            before,
            after,
            limit,
        } => {
            let (mut rows, next) = records.open_calls(before, after, limit.into()).await?;
            rows.retain(|row| is_ours(row.account));
            Answer::OpenCalls { rows, next }
        }
        Question::Voicemails {
            account,
            user,
            before,
            limit,
        } => telephony::page(records, telephones, (account, &user), before, limit).await?,
        Question::Unheard { account, user } => {
            Answer::Unheard(telephony::unheard(records, telephones, account, &user).await?)
        }
        Question::HearVoicemail {
            account,
            user,
            voicemail,
            at,
        } => telephony::hear(records, telephones, (account, &user), voicemail, at).await?,
        Question::DeleteVoicemail {
            account,
            user,
            voicemail,
        } => telephony::delete(records, telephones, (account, &user), voicemail).await?,
        Question::PhoneSettings { account, user } => {
            telephony::settings(telephones, account, &user)
        }
        Question::SetPhone {
            account,
            user,
            settings,
        } => telephony::set(records, telephones, (account, &user), *settings).await?,
        // The shard answers it itself.
        Question::IceServers { .. } => Answer::Failed,
    })
}
