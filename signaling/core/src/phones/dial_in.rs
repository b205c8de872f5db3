//! Phones that come into a Room by its PIN. The gateway has looked at the PIN; the Room decides about the rest.

use std::collections::BTreeSet;

use model::phone::{Enter, PhoneCommandKind, PhoneEnd, PhoneReason, PhoneTarget};

use super::{Phone, Stage, shown_name};
use crate::calls::CallKey;
use crate::rooms::DialIn;
use crate::signaling::Signaling;

impl Signaling {
    /// A phone has shown the PIN of a Room: it is in from now on, or hangs up.
    pub(super) fn on_phone_enters(&mut self, key: CallKey, enter: Enter) {
        let known = self.phones.by_key.get(&key);
        if known.is_some_and(|phone| phone.place.is_some()) {
            return; // It came twice.
        }
        let is_new = known.is_none();
        let from = enter.from.unwrap_or_else(PhoneTarget::anonymous);
        let user = from.user_id();
        let most = self.limits.phone_calls_per_account_max as usize;
        let room = match is_new && self.phones.of_account(key.0) >= most {
            true => None,
            false => self.room_for_dial_in(
                key.0,
                &enter.room,
                &DialIn {
                    user: &user,
                    lobby: enter.lobby,
                    may_begin: enter.may_begin,
                },
            ),
        };
        let Some(room) = room else {
            self.phones.by_key.remove(&key);
            let cause = PhoneEnd::of(PhoneReason::Refused).cause;
            return self.command_phone(key, PhoneCommandKind::HangUp { cause });
        };

        let phone = Phone {
            user,
            name: shown_name(enter.name),
            to: enter.to,
            stage: Stage::Talks,
            place: None,
            calls: BTreeSet::new(),
            stays: true,
        };
        self.phones.by_key.insert(key, phone);
        if let Some(place) = self.place_phone_as(key, room, enter.role) {
            self.command_phone(key, PhoneCommandKind::Move { place });
        }
    }
}
