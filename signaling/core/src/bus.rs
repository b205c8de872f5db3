//! What crosses nodes: commands to a Call's owner, and what Devices are told.

use model::bus::{Body, CallRef, Command, Deliver, Message, Target};
use model::{AccountId, CallId, DeviceId, MessageId, NodeId, Phase, SessionId, UserId};

use crate::io::Output;
use crate::people::UserCall;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// A frame on its way to Devices of a User.
pub(crate) struct Parcel<'a> {
    pub(crate) user: &'a UserId,
    /// One Device, or all of them.
    pub(crate) device: Option<DeviceId>,
    /// A Device that need not be told.
    pub(crate) except: Option<DeviceId>,
    pub(crate) kind: &'a str,
    pub(crate) data: &'a str,
    /// The Call it is about, for the User's node to find its owner.
    pub(crate) call: Option<CallRef>,
}

impl Signaling {
    pub(crate) fn publish(&mut self, account: AccountId, to: Target, body: Body) {
        let message = Message {
            account,
            from: self.node,
            body,
        };
        self.output(Output::Publish { to, message });
    }

    pub(crate) fn on_bus(&mut self, message: Message) {
        let Message {
            account,
            from,
            body,
        } = message;
        if from == self.node {
            return;
        }

        match body {
            Body::Command(command) => self.on_command(from, account, *command),
            Body::Reply {
                session,
                command,
                done,
                data,
            } => {
                self.on_reply(account, session, command, done, &data);
            }
            Body::Deliver(deliver) => self.on_deliver(account, &deliver),
            Body::Leave(leave) => self.on_leave(account, &leave),
            Body::Presence { user, known } => self.on_presence(account, from, &user, known),
            Body::Hello => self.on_node_hello(account, from),
            Body::NodeGone => self.on_node_gone(account, from),
        }
    }

    /// Takes a command to the Call's owner: here, unless we know of another node.
    pub(crate) fn route(&mut self, account: AccountId, command: Command) {
        let owner = self.owner_of(account, &command.origin.user, command.call);

        if owner == self.node {
            self.on_command(self.node, account, command);
        } else {
            self.publish(
                account,
                Target::Node(owner),
                Body::Command(Box::new(command)),
            );
        }
    }

    /// The node that owns a Call, as far as is known from one of its Users.
    pub(crate) fn owner_of(&self, account: AccountId, user: &UserId, call: CallId) -> NodeId {
        self.user(account, user)
            .and_then(|user| user.find_call(call))
            .map_or(self.node, |known| known.owner)
    }

    /// Answers a command whose Session is at `node`.
    pub(crate) fn reply(
        &mut self,
        node: NodeId,
        account: AccountId,
        session: SessionId,
        command: MessageId,
        done: bool,
        data: &str,
    ) {
        if node == self.node {
            self.on_reply(account, session, command, done, data);
        } else {
            let body = Body::Reply {
                session,
                command,
                done,
                data: data.into(),
            };
            self.publish(account, Target::Node(node), body);
        }
    }

    fn on_reply(
        &mut self,
        account: AccountId,
        session: SessionId,
        command: MessageId,
        done: bool,
        data: &str,
    ) {
        let Some(key) = self.sessions.of_id(session) else {
            return;
        };

        if self.sessions.get(key).account == account {
            let kind = if done { "ok" } else { "error" };
            self.send(key, kind, Some(command), data);
        }
    }

    /// Sends a frame to Devices wherever they are; false when there is none.
    pub(crate) fn deliver(&mut self, account: AccountId, parcel: &Parcel<'_>) -> bool {
        let mut reached = self.deliver_here(account, parcel);

        let Some(user) = self.user(account, parcel.user) else {
            return reached;
        };
        if reached && parcel.device.is_some() {
            return true;
        }
        reached |= match parcel.device {
            None => user.nodes_elsewhere().next().is_some(),
            Some(device) => user.has_device_elsewhere(device),
        };

        let nodes: Vec<NodeId> = user.nodes_elsewhere().collect();
        for node in nodes {
            let deliver = Deliver {
                user: parcel.user.clone(),
                device: parcel.device,
                except: parcel.except,
                kind: parcel.kind.into(),
                data: parcel.data.into(),
                call: parcel.call,
            };
            self.publish(
                account,
                Target::Node(node),
                Body::Deliver(Box::new(deliver)),
            );
        }
        reached
    }

    fn on_deliver(&mut self, account: AccountId, deliver: &Deliver) {
        if let Some(call) = deliver.call
            && self.user(account, &deliver.user).is_some()
        {
            let entry = self.user_entry(account, &deliver.user);
            let CallRef { call, owner, phase } = call;
            if phase == Phase::Ended {
                entry.calls.retain(|known| known.call != call);
            } else {
                entry.note_call(UserCall {
                    call,
                    owner,
                    phase,
                    takes_part: false,
                });
            }
        }

        let Deliver {
            user,
            device,
            except,
            kind,
            data,
            call,
        } = deliver;
        let parcel = Parcel {
            user,
            device: *device,
            except: *except,
            kind,
            data,
            call: *call,
        };
        self.deliver_here(account, &parcel);
    }

    fn deliver_here(&mut self, account: AccountId, parcel: &Parcel<'_>) -> bool {
        let Some(entry) = self.user(account, parcel.user) else {
            return false;
        };

        let must_answer = parcel.kind == "call.incoming";
        let is_meant = |key: &SessionKey| {
            let session = self.sessions.get(*key);
            parcel.device.is_none_or(|device| session.device == device)
                && parcel.except != Some(session.device)
                && (session.grants.answer || !must_answer)
        };
        let mut meant = entry.sessions.iter().copied().filter(is_meant);
        if parcel.device.is_some() {
            // A Device has one Session.
            let found = meant.next();
            if let Some(key) = found {
                self.send(key, parcel.kind, None, parcel.data);
            }
            return found.is_some();
        }
        let keys: Vec<SessionKey> = meant.collect();

        for key in &keys {
            self.send(*key, parcel.kind, None, parcel.data);
        }
        !keys.is_empty()
    }
}
