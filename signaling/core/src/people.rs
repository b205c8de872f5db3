//! Users, their Devices on all nodes, and how reachable they are.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use model::bus::{Body, Target, UserOnNode};
use model::{
    AccountId, Availability, CallId, DeviceId, Millis, NodeId, Phase, Status, Timestamp, UserId,
};
use signaling_wire::UserPresence;

use crate::bucket::Bucket;
use crate::session::Session;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// An Account with something going on.
pub(crate) struct Account {
    pub(crate) users: BTreeMap<UserId, User>,
    /// How many Sessions there are, attended or not.
    pub(crate) sessions: u32,
    /// Sessions nobody attends; those of people are with their Users.
    pub(crate) unattended: BTreeSet<SessionKey>,
    pub(crate) commands: Bucket,
    /// Sessions that follow everybody.
    pub(crate) followers: BTreeSet<SessionKey>,
    /// Sessions that follow single Users.
    pub(crate) followers_by_user: BTreeMap<UserId, BTreeSet<SessionKey>>,
}

/// A User with a Session or a Call.
pub(crate) struct User {
    pub(crate) name: Option<Box<str>>,
    pub(crate) sessions: Vec<SessionKey>,
    /// Whether this is somebody from outside: the directory does not show them.
    is_guest: bool,
    /// The Calls this node knows the User in, ended ones included while they are kept.
    pub(crate) calls: Vec<UserCall>,
    pub(crate) invites: Bucket,
    availability: Availability,
    call_waiting: bool,
    /// When the User said so.
    set_at: Timestamp,
    /// What other nodes know.
    elsewhere: Vec<(NodeId, UserOnNode)>,
    /// What followers were told last.
    told: Status,
    /// A hash of what other nodes were told last.
    published: u64,
}

/// A User's part in a Call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserCall {
    pub(crate) call: CallId,
    pub(crate) owner: NodeId,
    pub(crate) phase: Phase,
    /// Whether a Device of the User takes part; only known at the owner.
    pub(crate) takes_part: bool,
}

/// What an inviter needs to know about a User.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Whether a Device can ring.
    pub(crate) can_ring: bool,
    pub(crate) do_not_disturb: bool,
    pub(crate) call_waiting: bool,
    /// How many Calls have not ended.
    pub(crate) calls: usize,
}

impl User {
    fn new(now: Timestamp, invites_burst: u32) -> Self {
        Self {
            name: None,
            sessions: Vec::new(),
            is_guest: false,
            calls: Vec::new(),
            invites: Bucket::full(now, invites_burst),
            availability: Availability::default(),
            call_waiting: true,
            set_at: Timestamp::default(),
            elsewhere: Vec::new(),
            told: Status::Offline,
            published: 0,
        }
    }

    fn is_unneeded(&self) -> bool {
        self.sessions.is_empty() && self.calls.is_empty() && self.elsewhere.is_empty()
    }

    fn is_online_elsewhere(&self) -> bool {
        self.elsewhere
            .iter()
            .any(|(_, known)| !known.devices.is_empty())
    }

    /// Whether the User is available and takes a second Call, as said last on any node.
    pub(crate) fn wishes(&self) -> (Availability, bool) {
        let elsewhere = self
            .elsewhere
            .iter()
            .map(|(_, known)| (known.set_at, known.availability, known.call_waiting));
        let here = (self.set_at, self.availability, self.call_waiting);

        let newest = elsewhere.fold(
            here,
            |newest, other| if other.0 > newest.0 { other } else { newest },
        );
        (newest.1, newest.2)
    }

    /// Whether the User has said anything about themselves, on any node.
    pub(crate) fn has_wished(&self) -> bool {
        let elsewhere = self.elsewhere.iter().map(|(_, known)| known.set_at);
        elsewhere
            .chain([self.set_at])
            .any(|at| at > Timestamp::default())
    }

    /// Takes what the User says about themselves; what is not said stays.
    pub(crate) fn wish(
        &mut self,
        now: Timestamp,
        status: Option<Availability>,
        call_waiting: Option<bool>,
    ) {
        let before = self.wishes();
        self.availability = status.unwrap_or(before.0);
        self.call_waiting = call_waiting.unwrap_or(before.1);
        self.set_at = now;
    }

    /// How reachable the User is: the most telling of `in_call`, what the User said, and `offline`.
    pub(crate) fn status(&self) -> Status {
        let takes_part = self
            .calls
            .iter()
            .any(|call| call.takes_part && call.phase != Phase::Ended)
            || self.elsewhere.iter().any(|(_, known)| known.in_call);

        if (self.sessions.is_empty() && !self.is_online_elsewhere()) || self.is_guest {
            Status::Offline
        } else if takes_part {
            Status::InCall
        } else {
            match self.wishes().0 {
                Availability::Available => Status::Available,
                Availability::Away => Status::Away,
                Availability::DoNotDisturb => Status::DoNotDisturb,
            }
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        let elsewhere = || {
            self.elsewhere
                .iter()
                .find_map(|(_, known)| known.name.as_deref())
        };
        self.name.as_deref().or_else(elsewhere)
    }

    /// The Calls that have not ended, on any node.
    pub(crate) fn open_calls(&self) -> BTreeSet<CallId> {
        let here = self
            .calls
            .iter()
            .filter(|call| call.phase != Phase::Ended)
            .map(|call| call.call);
        let elsewhere = self
            .elsewhere
            .iter()
            .flat_map(|(_, known)| known.calls.iter().copied());
        here.chain(elsewhere).collect()
    }

    pub(crate) fn find_call(&self, call: CallId) -> Option<&UserCall> {
        self.calls.iter().find(|known| known.call == call)
    }

    /// Remembers a Call, or what became of it.
    pub(crate) fn note_call(&mut self, noted: UserCall) {
        match self.calls.iter_mut().find(|known| known.call == noted.call) {
            Some(known) => *known = noted,
            None => self.calls.push(noted),
        }
    }

    /// The other nodes where the User has a Session.
    pub(crate) fn nodes_elsewhere(&self) -> impl Iterator<Item = NodeId> {
        self.elsewhere
            .iter()
            .filter(|(_, known)| !known.devices.is_empty())
            .map(|(node, _)| *node)
    }

    /// Whether `device` has a Session on another node.
    pub(crate) fn has_device_elsewhere(&self, device: DeviceId) -> bool {
        self.elsewhere
            .iter()
            .any(|(_, known)| known.devices.contains(&device))
    }
}

/// Tells whether other nodes know it already; zero for what they need not be told.
fn hash_of(known: &UserOnNode) -> u64 {
    if known.is_nothing() {
        return 0;
    }

    let mut hasher = DefaultHasher::new();
    known.hash(&mut hasher);
    hasher.finish().max(1)
}

impl Signaling {
    pub(crate) fn user(&self, account: AccountId, user: &UserId) -> Option<&User> {
        self.accounts.get(&account)?.users.get(user)
    }

    /// The User, remembered from now on.
    pub(crate) fn user_entry(&mut self, account: AccountId, user: &UserId) -> &mut User {
        let (now, burst) = (self.now, self.limits.invites_per_user_burst);

        self.account_entry(account)
            .users
            .entry(user.clone())
            .or_insert_with(|| User::new(now, burst))
    }

    /// The Account, remembered from now on.
    fn account_entry(&mut self, account: AccountId) -> &mut Account {
        let (now, limits) = (self.now, &self.limits);
        self.accounts.entry(account).or_insert_with(|| Account {
            users: BTreeMap::new(),
            sessions: 0,
            unattended: BTreeSet::new(),
            commands: Bucket::full(now, limits.commands_per_account_burst),
            followers: BTreeSet::new(),
            followers_by_user: BTreeMap::new(),
        })
    }

    /// The Devices of a User with a Session anywhere.
    pub(crate) fn devices_of(&self, account: AccountId, user: &UserId) -> Vec<DeviceId> {
        let Some(entry) = self.user(account, user) else {
            return Vec::new();
        };

        let here = entry
            .sessions
            .iter()
            .map(|key| self.sessions.get(*key).device);
        let elsewhere = entry
            .elsewhere
            .iter()
            .flat_map(|(_, known)| known.devices.iter().copied());
        here.chain(elsewhere).collect()
    }

    pub(crate) fn reach(&self, account: AccountId, user: &UserId) -> Reach {
        let Some(entry) = self.user(account, user) else {
            return Reach {
                can_ring: false,
                do_not_disturb: false,
                call_waiting: true,
                calls: 0,
            };
        };

        let may_answer = |key: &SessionKey| self.sessions.get(*key).grants.answer;
        let (availability, call_waiting) = entry.wishes();
        Reach {
            can_ring: entry.sessions.iter().any(may_answer)
                || entry.elsewhere.iter().any(|(_, known)| known.may_answer),
            do_not_disturb: availability == Availability::DoNotDisturb,
            call_waiting,
            calls: entry.open_calls().len(),
        }
    }

    /// A new Session begins.
    pub(crate) fn person_arrives(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        let (account, user, device) = (session.account, session.user.clone(), session.device);
        let name = session.name.clone();
        let grants = session.room_grants.as_deref();
        let is_guest = grants.is_some_and(|grants| grants.guest);
        let is_attended = session.is_attended;

        if self
            .accounts
            .get(&account)
            .is_none_or(|account| account.sessions == 0)
        {
            self.publish(account, Target::Account, Body::Hello);
        }

        if !is_attended {
            let account = self.account_entry(account);
            account.sessions += 1;
            account.unattended.insert(key);
            return;
        }
        let entry = self.user_entry(account, &user);
        entry.sessions.push(key);
        entry.name = name;
        entry.is_guest = is_guest;
        if let Some(account) = self.accounts.get_mut(&account) {
            account.sessions += 1;
        }

        self.refresh_user(account, &user);
        self.ring_late(account, &user, device);
    }

    /// A Session has ended.
    pub(crate) fn person_leaves(&mut self, key: SessionKey, session: &Session, grace: Millis) {
        self.unfollow(key, session.account, &session.follows);
        if let Some(account) = self.accounts.get_mut(&session.account) {
            account.sessions -= 1;
            account.unattended.remove(&key);
        }
        if !session.is_attended {
            return self.forget_account_if_idle(session.account);
        }

        let entry = self.user_entry(session.account, &session.user);
        entry.sessions.retain(|other| *other != key);
        let calls: Vec<UserCall> = entry
            .calls
            .iter()
            .copied()
            .filter(|call| call.phase != Phase::Ended)
            .collect();

        for call in calls {
            self.device_leaves(session, call, grace);
        }
        self.refresh_user(session.account, &session.user);
    }

    /// Tells followers and other nodes what has changed about a User, and forgets one who is nowhere.
    pub(crate) fn refresh_user(&mut self, account: AccountId, user: &UserId) {
        let Some(entry) = self.user(account, user) else {
            return;
        };

        let status = entry.status();
        let known = self.known_here(entry);
        let hash = hash_of(&known);

        let is_news = status != entry.told;
        let is_unpublished = hash != entry.published;
        let name = entry.name().map(str::to_owned);
        let is_unneeded = entry.is_unneeded();

        let entry = self.user_entry(account, user);
        entry.told = status;
        entry.published = hash;
        if is_news {
            self.tell_followers(
                account,
                UserPresence {
                    user: user.clone(),
                    name,
                    status,
                },
            );
        }
        if is_unpublished {
            self.publish(
                account,
                Target::Account,
                Body::Presence {
                    user: user.clone(),
                    known,
                },
            );
        }
        if is_unneeded {
            self.forget_user(account, user);
        }
        self.forget_account_if_idle(account);
    }

    fn forget_user(&mut self, account: AccountId, user: &UserId) {
        if let Some(entry) = self.accounts.get_mut(&account) {
            entry.users.remove(user);
        }
    }

    /// Forgets an Account without Sessions and Calls here, whatever other nodes have told about it.
    fn forget_account_if_idle(&mut self, account: AccountId) {
        let Some(entry) = self.accounts.get(&account) else {
            return;
        };

        if entry.sessions == 0 && entry.users.values().all(|user| user.calls.is_empty()) {
            self.accounts.remove(&account);
        }
    }

    /// What this node tells the others about a User.
    fn known_here(&self, entry: &User) -> UserOnNode {
        let own = entry
            .calls
            .iter()
            .filter(|call| call.owner == self.node && call.phase != Phase::Ended);
        let sessions = || entry.sessions.iter().map(|key| self.sessions.get(*key));

        UserOnNode {
            name: entry.name.as_deref().map(str::to_owned),
            devices: sessions().map(|session| session.device).collect(),
            may_answer: sessions().any(|session| session.grants.answer),
            availability: entry.availability,
            call_waiting: entry.call_waiting,
            set_at: entry.set_at,
            calls: own.clone().map(|call| call.call).collect(),
            in_call: own.clone().any(|call| call.takes_part),
        }
    }

    /// Another node tells what it knows about a User.
    pub(crate) fn on_presence(
        &mut self,
        account: AccountId,
        from: NodeId,
        user: &UserId,
        known: UserOnNode,
    ) {
        if known.is_nothing() && self.user(account, user).is_none() {
            return;
        }

        let entry = self.user_entry(account, user);
        let before = entry.elsewhere.iter().position(|(node, _)| *node == from);
        let old = before
            .map(|at| entry.elsewhere.swap_remove(at).1)
            .unwrap_or_default();
        let new_devices: Vec<_> = known
            .devices
            .iter()
            .copied()
            .filter(|device| !old.devices.contains(device))
            .collect();

        if !known.is_nothing() {
            entry.elsewhere.push((from, known));
            entry.elsewhere.sort_by_key(|(node, _)| *node);
        }

        self.refresh_user(account, user);
        for device in new_devices {
            self.ring_late(account, user, device);
        }
    }

    /// Another node begins to serve the Account: tell it what we know.
    pub(crate) fn on_node_hello(&mut self, account: AccountId, from: NodeId) {
        let Some(entry) = self.accounts.get(&account) else {
            return;
        };

        let known: Vec<_> = entry
            .users
            .iter()
            .map(|(user, entry)| (user.clone(), self.known_here(entry)))
            .collect();
        for (user, known) in known {
            if !known.is_nothing() {
                self.publish(account, Target::Node(from), Body::Presence { user, known });
            }
        }
    }

    /// Another node is gone, and its Sessions and Calls with it.
    pub(crate) fn on_node_gone(&mut self, account: AccountId, gone: NodeId) {
        let Some(entry) = self.accounts.get_mut(&account) else {
            return;
        };

        let mut touched = Vec::new();
        for (user, entry) in &mut entry.users {
            entry.elsewhere.retain(|(node, _)| *node != gone);
            entry.calls.retain(|call| call.owner != gone);
            touched.push(user.clone());
        }
        for user in touched {
            self.refresh_user(account, &user);
        }
    }
}
