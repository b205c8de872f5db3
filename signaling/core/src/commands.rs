//! A client's frame: its place in the order, its limits, and whom it concerns.

use model::bus::{Action, Command, Origin, Relay, RelayKind};
use model::{CallId, MessageId, Millis};
use serde::Serialize;
use signaling_wire::{
    ClientFrame, CloseCode, DeclineReason, DecodeError, Decoded, Empty, ErrorCode, ErrorData,
    Fingerprints, Head, PlainCandidates, Sdp, ServerFrame, decode_to_pass_on,
};

use crate::calls::Refusal;
use crate::session::Arrival;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// How long a Call rings unless told.
const RING: Millis = Millis::from_secs(45);
/// How many commands in a row may be refused for their rate before the socket is closed.
const REFUSED_IN_A_ROW_MAX: u32 = 500;

impl Signaling {
    pub(crate) fn on_frame(&mut self, connection: crate::ConnectionId, text: &str) {
        let Some(key) = self.sessions.of_connection(connection) else {
            return;
        };

        let now = self.now;
        let session = self.sessions.get_mut(key);
        session.heard_at = now;
        session.pings_unanswered = 0;
        session.key_confirmed = session.key_latest; // it has read `welcome`

        match decode_to_pass_on(text) {
            Ok(Decoded::Whole(frame)) => self.on_decoded(key, frame.head, frame.content),
            Ok(Decoded::Plain(head, candidates)) => self.on_reliable(key, head, |core, id| {
                core.on_plain_candidates(key, id, &candidates)
            }),
            Err(error) => self.on_unreadable(key, error),
        }
    }

    fn on_unreadable(&mut self, key: SessionKey, error: DecodeError) {
        let DecodeError {
            code,
            message,
            head,
        } = error;
        let close = match code {
            ErrorCode::TooLarge => Some(CloseCode::FrameTooLarge),
            ErrorCode::BadFrame => Some(CloseCode::BadFrame),
            _ => None,
        };
        let frame = ServerFrame::Error(ErrorData::new(code, message));

        match (close, head.seq, head.id) {
            (Some(close), ..) => {
                self.send_unnumbered_reply(key, head.id, &frame);
                self.close(key, close, code.as_str());
            }
            (None, Some(_), id) => {
                if self.take_in_order(key, *head) && self.take_token(key, id) {
                    self.send(key, frame.kind(), id, &frame.data());
                }
                self.owe_ack(key);
            }
            (None, None, id) => self.send_unnumbered_reply(key, id, &frame),
        }
    }

    fn on_decoded(&mut self, key: SessionKey, head: Head, content: ClientFrame) {
        if !content.is_reliable() {
            if self.take_ack(key, head.ack) {
                self.on_unnumbered(key, &content);
            }
            return;
        }

        self.on_reliable(key, head, |core, id| core.on_content(key, id, content));
    }

    /// Does what a reliable frame asks for, if it is the next one and within the limits.
    fn on_reliable(
        &mut self,
        key: SessionKey,
        head: Head,
        work: impl FnOnce(&mut Self, MessageId) -> Result<(), Refusal>,
    ) {
        let (Some(id), Some(_)) = (head.id, head.seq) else {
            self.send_error_unnumbered(key, ErrorCode::BadFrame, "a command needs an id and a seq");
            return self.close(key, CloseCode::BadFrame, "bad_frame");
        };
        if self.take_in_order(key, head)
            && self.take_token(key, Some(id))
            && let Err(refusal) = work(self, id)
        {
            self.send(key, "error", Some(id), &refusal.data());
        }
        self.owe_ack(key);
    }

    fn on_unnumbered(&mut self, key: SessionKey, content: &ClientFrame) {
        match content {
            ClientFrame::Ping(_) => self.send_unnumbered(key, &ServerFrame::Pong(Empty {})),
            ClientFrame::Bye(_) => {
                self.close(key, CloseCode::Bye, "bye");
                self.end_session(key, Millis::default());
            }
            ClientFrame::Hello(_) => {
                self.send_error_unnumbered(key, ErrorCode::BadFrame, "hello was said already");
                self.close(key, CloseCode::BadFrame, "bad_frame");
            }
            _ => {} // `ack` and `pong` have said all with their envelope
        }
    }

    /// Whether the frame is the next one; one that came before is dropped, and a gap closes the socket.
    fn take_in_order(&mut self, key: SessionKey, head: Head) -> bool {
        if !self.take_ack(key, head.ack) {
            return false;
        }

        let now = self.now;
        match self
            .sessions
            .get_mut(key)
            .inbox
            .receive(now, head.seq.unwrap_or_default())
        {
            Arrival::Next => true,
            Arrival::Again => false,
            Arrival::Gap => {
                self.wrong_sequence(key, "a seq is missing");
                false
            }
        }
    }

    /// Drops what the client has received; false when it claims more than was sent.
    fn take_ack(&mut self, key: SessionKey, ack: Option<u64>) -> bool {
        let is_sane = ack.is_none_or(|ack| self.sessions.get_mut(key).outbox.acknowledge(ack));
        if !is_sane {
            self.wrong_sequence(key, "an ack of what was not sent");
        }
        is_sane
    }

    fn wrong_sequence(&mut self, key: SessionKey, message: &'static str) {
        self.send_error_unnumbered(key, ErrorCode::WrongSequence, message);
        self.close(key, CloseCode::WrongSequence, "wrong_sequence");
    }

    /// Whether the Session and its Account may send another command now; otherwise the command is refused.
    fn take_token(&mut self, key: SessionKey, id: Option<MessageId>) -> bool {
        let (now, limits) = (self.now, &self.limits);
        let session = self.sessions.get_mut(key);
        let of_session =
            session
                .commands
                .take(now, limits.commands_per_second, limits.commands_burst);
        let of_account = of_session
            && self
                .accounts
                .get_mut(&session.account)
                .is_none_or(|account| {
                    let (per_second, burst) = (
                        limits.commands_per_account_per_second,
                        limits.commands_per_account_burst,
                    );
                    account.commands.take(now, per_second, burst)
                });

        session.refused_in_a_row = if of_account {
            0
        } else {
            session.refused_in_a_row + 1
        };
        if session.refused_in_a_row > REFUSED_IN_A_ROW_MAX {
            self.close(key, CloseCode::RateLimited, "rate_limited");
        } else if !of_account {
            let refusal = Refusal::new(ErrorCode::RateLimited, "too many commands");
            self.send(key, "error", id, &refusal.data());
        }
        of_account
    }

    /// Sees to it that the client hears soon what has arrived.
    fn owe_ack(&mut self, key: SessionKey) {
        if self.sessions.get(key).inbox.is_ack_owed_now() {
            self.send_unnumbered(key, &ServerFrame::Ack(Empty {}));
        }
        self.arm_session(key);
    }

    fn on_content(
        &mut self,
        key: SessionKey,
        id: MessageId,
        content: ClientFrame,
    ) -> Result<(), Refusal> {
        match content {
            ClientFrame::PresenceSubscribe(wanted) => self.on_presence_subscribe(key, id, wanted),
            ClientFrame::PresenceSet(set) => {
                let ok = ServerFrame::Ok(self.on_presence_set(key, set));
                self.send(key, ok.kind(), Some(id), &ok.data());
                Ok(())
            }
            ClientFrame::TurnRefresh(_) => {
                self.on_turn_refresh(key, id);
                Ok(())
            }
            ClientFrame::HistoryList(list) => {
                self.on_history_list(key, id, list);
                Ok(())
            }
            ClientFrame::HistorySeen(_) => {
                self.on_history_seen(key, id);
                Ok(())
            }
            ClientFrame::VoicemailList(list) => {
                self.on_voicemail_list(key, id, list);
                Ok(())
            }
            ClientFrame::VoicemailHeard(on) => {
                self.on_voicemail_heard(key, id, on.voicemail);
                Ok(())
            }
            ClientFrame::VoicemailDelete(on) => {
                self.on_voicemail_delete(key, id, on.voicemail);
                Ok(())
            }
            ClientFrame::PhoneSettings(_) => {
                self.on_phone_settings(key, id);
                Ok(())
            }
            ClientFrame::PhoneSet(settings) => self.on_phone_set(key, id, settings),
            content if content.kind().starts_with("room.") => {
                self.on_room_command(key, id, content)
            }
            content => {
                let (call, action) = self.action_of(key, content)?;
                self.on_call_command(key, id, call, action)
            }
        }
    }

    fn on_plain_candidates(
        &mut self,
        key: SessionKey,
        id: MessageId,
        found: &PlainCandidates<'_>,
    ) -> Result<(), Refusal> {
        self.ensure_few(found.count)?;
        let relay = Relay {
            kind: RelayKind::Candidates(found.generation),
            data: found.with_sender(self.sessions.get(key).device).into(),
        };
        self.on_call_command(key, id, found.call, Action::Relay(relay))
    }

    /// Takes a command about a Call to where it is done.
    fn on_call_command(
        &mut self,
        key: SessionKey,
        id: MessageId,
        call: CallId,
        action: Action,
    ) -> Result<(), Refusal> {
        if let Action::Relay(relay) = &action
            && let Some(done) = self.relay_at_once(key, id, call, relay)
        {
            return done;
        }
        let command = Command {
            origin: self.origin(key),
            id,
            call,
            action,
        };
        self.route(self.sessions.get(key).account, command);
        Ok(())
    }

    fn ensure_few(&self, candidates: usize) -> Result<(), Refusal> {
        if candidates > self.limits.candidates_max as usize {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                "more than candidates_max",
            ));
        }
        Ok(())
    }

    /// A frame about a Call as a command for its owner.
    fn action_of(
        &self,
        key: SessionKey,
        content: ClientFrame,
    ) -> Result<(CallId, Action), Refusal> {
        let device = self.sessions.get(key).device;

        Ok(match content {
            ClientFrame::CallInvite(invite) => {
                let ttl = invite.ttl_ms.map_or(RING, Millis::new);
                let (to, media, commitment) = (invite.to, invite.media, invite.commitment);
                (
                    invite.call,
                    Action::Invite {
                        to,
                        media,
                        commitment,
                        ttl,
                    },
                )
            }
            ClientFrame::CallRinging(on) => (on.call, Action::Ringing),
            ClientFrame::CallAccept(at) => (at.call, Action::Accept { rev: at.rev }),
            ClientFrame::CallDecline(decline) => {
                let busy = decline.reason == DeclineReason::Busy;
                (
                    decline.call,
                    Action::Decline {
                        rev: decline.rev,
                        busy,
                    },
                )
            }
            ClientFrame::CallCancel(at) => (at.call, Action::Cancel { rev: at.rev }),
            ClientFrame::CallHangup(hangup) => (
                hangup.call,
                Action::Hangup {
                    cause: hangup.cause,
                },
            ),
            ClientFrame::CallHold(hold) => (hold.call, Action::Hold { on: hold.on }),
            ClientFrame::CallDtmf(pressed) => (pressed.call, Action::Keys { keys: pressed.keys }),
            ClientFrame::CallTransfer(transfer) => {
                let action = match (transfer.to, transfer.with) {
                    (Some(to), _) => Action::TransferTo { to },
                    (None, Some(with)) => Action::TransferWith { with },
                    (None, None) => {
                        return Err(Refusal::new(ErrorCode::BadData, "neither to nor with"));
                    }
                };
                (transfer.call, action)
            }
            ClientFrame::CallSync(sync) => (
                sync.call,
                Action::Sync {
                    sealed: sync.sealed.into(),
                },
            ),
            ClientFrame::CallUpgrade(on) => {
                self.ensure_may_upgrade(key, on.call)?;
                (on.call, Action::Upgrade)
            }
            ClientFrame::CallMoved(moved) => (moved.call, Action::Moved { to: moved.to }),
            ClientFrame::CallState(on) => (on.call, Action::State),
            ClientFrame::CallVerify(mut verify) => {
                verify.from = Some(device);
                (verify.call, relay(RelayKind::Verify, &verify))
            }
            ClientFrame::CallMedia(mut sent) => {
                sent.from = Some(device);
                (sent.call, relay(RelayKind::Media, &sent))
            }
            ClientFrame::SdpOffer(mut sdp) => {
                self.ensure_sound(&sdp)?;
                sdp.from = Some(device);
                (sdp.call, relay(RelayKind::Offer(sdp.generation), &sdp))
            }
            ClientFrame::SdpAnswer(mut sdp) => {
                self.ensure_sound(&sdp)?;
                sdp.from = Some(device);
                (sdp.call, relay(RelayKind::Answer(sdp.generation), &sdp))
            }
            ClientFrame::IceCandidates(mut found) => {
                self.ensure_few(found.candidates.len())?;
                found.from = Some(device);
                (
                    found.call,
                    relay(RelayKind::Candidates(found.generation), &found),
                )
            }
            ClientFrame::IceRestart(mut restart) => {
                restart.from = Some(device);
                (restart.call, relay(RelayKind::Restart, &restart))
            }
            _ => {
                return Err(Refusal::new(
                    ErrorCode::UnknownType,
                    "not a command about a call",
                ));
            }
        })
    }

    /// An SDP within its limits that binds its media to a certificate.
    fn ensure_sound(&self, sdp: &Sdp) -> Result<(), Refusal> {
        if sdp.sdp.len() > self.limits.sdp_bytes_max as usize {
            return Err(Refusal::new(ErrorCode::TooLarge, "more than sdp_bytes_max"));
        }
        match Fingerprints::of(&sdp.sdp) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::new(
                ErrorCode::WeakFingerprint,
                "each m-section needs a fingerprint of sha-256 or stronger, and no weaker one",
            )),
        }
    }

    fn origin(&self, key: SessionKey) -> Origin {
        let session = self.sessions.get(key);
        Origin {
            session: session.id,
            user: session.user.clone(),
            name: session.name.as_deref().map(str::to_owned),
            device: session.device,
            key: session.device_key.as_ref().to_owned(),
            grants: session.grants,
        }
    }
}

fn relay(kind: RelayKind, data: &impl Serialize) -> Action {
    // Wire types are plain fields, which cannot fail.
    let data = serde_json::to_string(data).unwrap_or_default().into();
    Action::Relay(Relay { kind, data })
}
