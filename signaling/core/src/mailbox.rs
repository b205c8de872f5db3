//! Mailboxes, and how a User wants to be called by phone: what of it is in the records is asked there.

use model::phone::LeftVoicemail;
use model::record::VoicemailEntry;
use model::{AccountId, MessageId, RecordChange, UserId, VoicemailId};
use signaling_wire::{ErrorCode, PhoneSettings, ServerFrame, VoicemailList, VoicemailNews};

use crate::bus::Parcel;
use crate::calls::Refusal;
use crate::history::{PAGE_LEN, Pending, Waiting};
use crate::io::{Output, Question};
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

impl Signaling {
    pub(crate) fn on_voicemail_list(
        &mut self,
        key: SessionKey,
        command: MessageId,
        list: VoicemailList,
    ) {
        let (account, user) = self.whose(key);
        let question = Question::Voicemails {
            account,
            user,
            before: list.before,
            limit: list.limit.unwrap_or(PAGE_LEN),
        };
        self.ask_for(key, command, question, Waiting::Page);
    }

    pub(crate) fn on_voicemail_heard(
        &mut self,
        key: SessionKey,
        command: MessageId,
        voicemail: VoicemailId,
    ) {
        let (account, user) = self.whose(key);
        let question = Question::HearVoicemail {
            account,
            user,
            voicemail,
            at: self.now,
        };
        let waiting = Waiting::Mailbox {
            account,
            deleted: None,
        };
        self.ask_for(key, command, question, waiting);
    }

    pub(crate) fn on_voicemail_delete(
        &mut self,
        key: SessionKey,
        command: MessageId,
        voicemail: VoicemailId,
    ) {
        let (account, user) = self.whose(key);
        let question = Question::DeleteVoicemail {
            account,
            user,
            voicemail,
        };
        let waiting = Waiting::Mailbox {
            account,
            deleted: Some(voicemail),
        };
        self.ask_for(key, command, question, waiting);
    }

    pub(crate) fn on_phone_settings(&mut self, key: SessionKey, command: MessageId) {
        let (account, user) = self.whose(key);
        let question = Question::PhoneSettings { account, user };
        self.ask_for(key, command, question, Waiting::Page);
    }

    /// Each change is written to the disk, and a forward makes calls in the User's name: it takes what an invite of a phone takes.
    pub(crate) fn on_phone_set(
        &mut self,
        key: SessionKey,
        command: MessageId,
        settings: PhoneSettings,
    ) -> Result<(), Refusal> {
        let grants = self.sessions.get(key).grants;
        if !grants.dial || !grants.phone {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the access token has no grant phone",
            ));
        }
        let (account, user) = self.whose(key);
        let now = self.now;
        let per_second = self.limits.invites_per_user_per_second;
        let burst = self.limits.invites_per_user_burst;
        let entry = self.user_entry(account, &user);
        if !entry.invites.take(now, per_second, burst) {
            return Err(Refusal::new(
                ErrorCode::RateLimited,
                "too many changes of the settings",
            ));
        }

        let question = Question::SetPhone {
            account,
            user,
            settings: Box::new(settings),
        };
        self.ask_for(key, command, question, Waiting::Page);
        Ok(())
    }

    /// A message was left in a mailbox.
    pub(crate) fn on_voicemail_left(&mut self, account: AccountId, left: LeftVoicemail) {
        let LeftVoicemail { message, users } = left;
        let entry = VoicemailEntry::from(&message);
        self.output(Output::Record(RecordChange::VoicemailLeft(Box::new(
            message,
        ))));
        self.tell_mailbox(account, users, Some(&entry), None);
    }

    /// Tells those whose mailbox it is, as far as they are here, of a message.
    pub(crate) fn tell_mailbox(
        &mut self,
        account: AccountId,
        users: Vec<UserId>,
        entry: Option<&VoicemailEntry>,
        deleted: Option<VoicemailId>,
    ) {
        for user in users {
            if self.user(account, &user).is_none() {
                continue; // nobody to tell
            }
            let question = Question::Unheard {
                account,
                user: user.clone(),
            };
            let news = Box::new(VoicemailNews {
                entry: entry.cloned(),
                deleted,
                unheard: 0,
            });
            let waiting = Waiting::VoicemailNews {
                account,
                user,
                news,
            };
            let pending = Pending {
                session: None,
                command: None,
                waiting,
            };
            self.ask(question, pending);
        }
    }

    pub(crate) fn send_voicemail(
        &mut self,
        account: AccountId,
        user: &UserId,
        news: VoicemailNews,
    ) {
        let frame = ServerFrame::Voicemail(Box::new(news));
        let (kind, data) = (frame.kind(), frame.data());
        let parcel = Parcel {
            user,
            device: None,
            except: None,
            kind,
            data: &data,
            call: None,
        };
        self.deliver(account, &parcel);
    }

    fn whose(&self, key: SessionKey) -> (AccountId, UserId) {
        let session = self.sessions.get(key);
        (session.account, session.user.clone())
    }

    fn ask_for(
        &mut self,
        key: SessionKey,
        command: MessageId,
        question: Question,
        waiting: Waiting,
    ) {
        let pending = Pending {
            session: Some(self.sessions.get(key).id),
            command: Some(command),
            waiting,
        };
        self.ask(question, pending);
    }
}
