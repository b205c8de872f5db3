//! Questions to the records, and what is done with the answers.

use model::record::HistoryEntry;
use model::{AccountId, CallRecord, MessageId, RecordChange, SessionId, UserId, VoicemailId};
use signaling_wire::{
    Empty, ErrorCode, ErrorData, HistoryList, HistoryNews, OkData, ServerFrame, VoicemailNews,
};

use crate::bus::Parcel;
use crate::calls::CallKey;
use crate::io::{Answer, Output, QueryId, Question};
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// How many entries a page has unless told.
pub(crate) const PAGE_LEN: u16 = 100;

/// Who waits for an answer.
pub(crate) struct Pending {
    pub(crate) session: Option<SessionId>,
    pub(crate) command: Option<MessageId>,
    pub(crate) waiting: Waiting,
}

/// What is done with an answer.
pub(crate) enum Waiting {
    /// `ok` with the page, the servers or the settings.
    Page,
    /// `ok` with the status of these Users.
    Directory {
        account: AccountId,
        users: Option<Vec<UserId>>,
    },
    /// `history` to all of the User's Devices.
    News {
        account: AccountId,
        user: UserId,
        entry: HistoryEntry,
    },
    /// `ok`, and `voicemail` to those whose mailbox it is.
    Mailbox {
        account: AccountId,
        deleted: Option<VoicemailId>,
    },
    /// `voicemail` to all of the User's Devices, once it is known how many are unheard.
    VoicemailNews {
        account: AccountId,
        user: UserId,
        news: Box<VoicemailNews>,
    },
    /// Those that are not here any more are closed.
    OpenCalls,
}

impl Signaling {
    pub(crate) fn ask(&mut self, question: Question, pending: Pending) {
        self.queries += 1;
        let query = QueryId(self.queries);
        self.pending.insert(query, pending);
        self.output(Output::Query { query, question });
    }

    pub(crate) fn on_answer(&mut self, query: QueryId, answer: Answer) {
        let Some(Pending {
            session,
            command,
            waiting,
        }) = self.pending.remove(&query)
        else {
            return;
        };

        let frame = match (waiting, answer) {
            (
                Waiting::News {
                    account,
                    user,
                    entry,
                },
                Answer::Missed(missed),
            ) => {
                let entry = Some(entry);
                return self.send_news(account, &user, HistoryNews { entry, missed });
            }
            (Waiting::News { .. }, _) => return, // the client finds it in its history later
            (
                Waiting::VoicemailNews {
                    account,
                    user,
                    news,
                },
                Answer::Unheard(unheard),
            ) => {
                let news = VoicemailNews { unheard, ..*news };
                return self.send_voicemail(account, &user, news);
            }
            (Waiting::VoicemailNews { .. }, _) => return, // the client finds it in its list later
            (Waiting::Mailbox { account, deleted }, Answer::Mailbox { users, entry }) => {
                let entry = deleted.is_none().then_some(&*entry);
                self.tell_mailbox(account, users, entry, deleted);
                ServerFrame::Ok(OkData::Empty(Empty {}))
            }
            (Waiting::OpenCalls, Answer::OpenCalls { rows, next }) => {
                return self.on_open_calls(rows, next);
            }
            (Waiting::OpenCalls, _) => return self.on_open_calls_failed(),
            (Waiting::Directory { account, users }, Answer::Directory(recorded)) => {
                ServerFrame::Ok(self.directory(account, users, recorded))
            }
            (
                Waiting::Page,
                Answer::History {
                    entries,
                    next,
                    missed,
                },
            ) => ServerFrame::Ok(OkData::History {
                entries,
                next,
                missed,
            }),
            (Waiting::Page, Answer::IceServers(ice_servers)) => {
                ServerFrame::Ok(OkData::IceServers { ice_servers })
            }
            (
                Waiting::Page,
                Answer::Voicemails {
                    entries,
                    next,
                    unheard,
                },
            ) => ServerFrame::Ok(OkData::Voicemails {
                voicemails: entries,
                next,
                unheard,
            }),
            (Waiting::Page, Answer::PhoneSettings(settings)) => {
                ServerFrame::Ok(OkData::PhoneSettings(settings))
            }
            (_, Answer::Refused { code, message }) => {
                ServerFrame::Error(ErrorData::new(code, message))
            }
            _ => ServerFrame::Error(ErrorData::new(
                ErrorCode::Internal,
                "the records do not answer",
            )),
        };

        let key = session.and_then(|session| self.sessions.of_id(session));
        if let Some(key) = key {
            self.send(key, frame.kind(), command, &frame.data());
        }
    }

    pub(crate) fn on_history_list(
        &mut self,
        key: SessionKey,
        command: MessageId,
        list: HistoryList,
    ) {
        let session = self.sessions.get(key);
        let (account, user, id) = (session.account, session.user.clone(), session.id);
        let limit = list.limit.unwrap_or(PAGE_LEN);

        let question = Question::History {
            account,
            user,
            before: list.before,
            limit,
        };
        self.ask(
            question,
            Pending {
                session: Some(id),
                command: Some(command),
                waiting: Waiting::Page,
            },
        );
    }

    pub(crate) fn on_turn_refresh(&mut self, key: SessionKey, command: MessageId) {
        let session = self.sessions.get(key);
        let (account, user, id) = (session.account, session.user.clone(), session.id);

        let question = Question::IceServers { account, user };
        self.ask(
            question,
            Pending {
                session: Some(id),
                command: Some(command),
                waiting: Waiting::Page,
            },
        );
    }

    pub(crate) fn on_history_seen(&mut self, key: SessionKey, command: MessageId) {
        let session = self.sessions.get(key);
        let (account, user) = (session.account, session.user.clone());

        self.output(Output::Record(RecordChange::HistorySeen {
            account,
            user: user.clone(),
            at: self.now,
        }));
        let ok = ServerFrame::Ok(OkData::Empty(Empty {}));
        self.send(key, ok.kind(), Some(command), &ok.data());
        self.send_news(
            account,
            &user,
            HistoryNews {
                entry: None,
                missed: 0,
            },
        );
    }

    /// Tells both Users of a Call that it is in their history now.
    pub(crate) fn tell_history(&mut self, key: CallKey) {
        let Some(call) = self.calls.get(&key) else {
            return;
        };

        let record = call.record(key.0);
        self.tell_history_of(&record);
    }

    pub(crate) fn tell_history_of(&mut self, record: &CallRecord) {
        let account = record.account;
        for user in [&record.caller.user, &record.callee.user] {
            if self.user(account, user).is_none() {
                continue; // nobody to tell
            }
            let entry = record.entry_for(user);
            let question = Question::Missed {
                account,
                user: user.clone(),
            };
            let waiting = Waiting::News {
                account,
                user: user.clone(),
                entry,
            };
            self.ask(
                question,
                Pending {
                    session: None,
                    command: None,
                    waiting,
                },
            );
        }
    }

    fn send_news(&mut self, account: AccountId, user: &UserId, news: HistoryNews) {
        let frame = ServerFrame::History(news);
        let (kind, data) = (frame.kind(), frame.data());
        self.deliver(
            account,
            &Parcel {
                user,
                device: None,
                except: None,
                kind,
                data: &data,
                call: None,
            },
        );
    }
}
