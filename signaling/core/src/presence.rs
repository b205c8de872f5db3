//! What Users say about themselves, and who follows it: `presence.*` and the directory.

use std::collections::BTreeMap;

use model::record::Named;
use model::{AccountId, MessageId, Status, UserId};
use signaling_wire::{
    ErrorCode, OkData, PresenceSet, PresenceSubscribe, ServerFrame, UserPresence,
};

use crate::calls::Refusal;
use crate::history::{Pending, Waiting};
use crate::io::Question;
use crate::people::User;
use crate::session::Follows;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// The most Users one `presence.subscribe` answers with.
const DIRECTORY_MAX: usize = 1_000;

impl Signaling {
    /// Takes what the User says about themselves, and tells what holds now.
    pub(crate) fn on_presence_set(&mut self, key: SessionKey, set: PresenceSet) -> OkData {
        let session = self.sessions.get(key);
        let (account, user, now) = (session.account, session.user.clone(), self.now);

        let entry = self.user_entry(account, &user);
        if set.status.is_some() || set.call_waiting.is_some() {
            entry.wish(now, set.status, set.call_waiting);
        }
        let (status, call_waiting) = entry.wishes();
        let chosen = entry.has_wished();
        self.refresh_user(account, &user);
        OkData::Reachable {
            status,
            call_waiting,
            chosen,
        }
    }

    pub(crate) fn on_presence_subscribe(
        &mut self,
        key: SessionKey,
        command: MessageId,
        wanted: PresenceSubscribe,
    ) -> Result<(), Refusal> {
        let session = self.sessions.get(key);
        let (account, id) = (session.account, session.id);
        if wanted.users.is_none() && !session.grants.directory {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the access token has no grant directory",
            ));
        }

        let follows = match &wanted.users {
            None => Follows::Account,
            Some(users) => Follows::Users(users.as_slice().into()),
        };
        self.follow(key, account, follows);

        let question = Question::Directory {
            account,
            users: wanted.users.clone(),
            limit: DIRECTORY_MAX,
        };
        let waiting = Waiting::Directory {
            account,
            users: wanted.users,
        };
        self.ask(
            question,
            Pending {
                session: Some(id),
                command: Some(command),
                waiting,
            },
        );
        Ok(())
    }

    /// The status of `users`, or of everybody who is here or in the records.
    pub(crate) fn directory(
        &self,
        account: AccountId,
        users: Option<Vec<UserId>>,
        recorded: Vec<Named>,
    ) -> OkData {
        let mut names: BTreeMap<UserId, Option<String>> = recorded
            .into_iter()
            .map(|named| (named.user, named.name))
            .collect();
        let online = self.accounts.get(&account).map(|account| &account.users);

        match users {
            Some(users) => {
                let mut wanted: BTreeMap<_, _> =
                    users.into_iter().map(|user| (user, None)).collect();
                for (user, name) in names {
                    wanted.entry(user).and_modify(|known| *known = name);
                }
                names = wanted;
            }
            None => {
                for (user, _) in online
                    .into_iter()
                    .flatten()
                    .filter(|(_, user)| user.status() != Status::Offline)
                {
                    names.entry(user.clone()).or_default();
                }
            }
        }

        let users = names
            .into_iter()
            .take(DIRECTORY_MAX)
            .map(|(user, recorded)| {
                let entry = online.and_then(|users| users.get(&user));
                let name = entry
                    .and_then(|entry| entry.name().map(str::to_owned))
                    .or(recorded);
                let status = entry.map_or(Status::Offline, User::status);
                UserPresence { user, name, status }
            });
        OkData::Presence {
            users: users.collect(),
        }
    }

    fn follow(&mut self, key: SessionKey, account: AccountId, follows: Follows) {
        let before = std::mem::replace(&mut self.sessions.get_mut(key).follows, follows.clone());
        self.unfollow(key, account, &before);

        let Some(account) = self.accounts.get_mut(&account) else {
            return;
        };
        match follows {
            Follows::Nobody => {}
            Follows::Account => {
                account.followers.insert(key);
            }
            Follows::Users(users) => {
                for user in users {
                    account
                        .followers_by_user
                        .entry(user)
                        .or_default()
                        .insert(key);
                }
            }
        }
    }

    pub(crate) fn unfollow(&mut self, key: SessionKey, account: AccountId, follows: &Follows) {
        let Some(account) = self.accounts.get_mut(&account) else {
            return;
        };

        account.followers.remove(&key);
        if let Follows::Users(users) = follows {
            for user in users {
                if let Some(followers) = account.followers_by_user.get_mut(user) {
                    followers.remove(&key);
                    if followers.is_empty() {
                        account.followers_by_user.remove(user);
                    }
                }
            }
        }
    }

    pub(crate) fn tell_followers(&mut self, account: AccountId, news: UserPresence) {
        let Some(entry) = self.accounts.get(&account) else {
            return;
        };

        let of_user = entry.followers_by_user.get(&news.user);
        let followers: Vec<SessionKey> = entry
            .followers
            .iter()
            .chain(of_user.into_iter().flatten())
            .copied()
            .collect();
        if followers.is_empty() {
            return;
        }

        let frame = ServerFrame::Presence(news);
        let data = frame.data();
        for key in followers {
            self.send(key, frame.kind(), None, &data);
        }
    }
}
