//! Events on their way to signaling, which a shard never waits for.
//!
//! What doesn't fit the channel waits here, in order. News that make earlier ones of the same kind pointless take their place, so
//! what waits is bounded by what lives: per Participant one of each kind, per Track one, and one answer per command with what came behind
//! it.

use std::collections::VecDeque;

use model::id::{AccountId, RoomId};
use model::media::{MediaEvent, MediaEventKind};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Events that wait for room in the channel.
pub(crate) struct Outbox {
    channel: mpsc::Sender<MediaEvent>,
    waiting: VecDeque<MediaEvent>,
}

impl Outbox {
    pub(crate) fn new(channel: mpsc::Sender<MediaEvent>) -> Self {
        Self {
            channel,
            waiting: VecDeque::new(),
        }
    }

    /// Tells signaling, now or as soon as it can hear.
    pub(crate) fn push(&mut self, account: AccountId, room: RoomId, kind: MediaEventKind) {
        let event = MediaEvent {
            account,
            room,
            kind,
        };
        let is_merged = self
            .waiting
            .iter_mut()
            .rev()
            .take_while(|waiting| !begins_anew(waiting, &event))
            .any(|waiting| merge(waiting, &event).is_some());
        if !is_merged {
            self.waiting.push_back(event);
        }
        self.flush();
    }

    /// Sends what has room; whether all is sent. What nobody hears any more is let go.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(event) = self.waiting.pop_front() {
            match self.channel.try_send(event) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    return false;
                }
            }
        }
        true
    }
}

/// Whether `waiting` says all that there is of a Participant at its time, so that what `new` says of them has to be heard behind it.
fn begins_anew(waiting: &MediaEvent, new: &MediaEvent) -> bool {
    use MediaEventKind::{Answered, Gone, Layers, Paused, Quality, Refused, Slots};

    let (Answered { participant, .. } | Refused { participant, .. } | Gone { participant, .. }) =
        &waiting.kind
    else {
        return false;
    };
    let (Slots {
        participant: of, ..
    }
    | Paused {
        participant: of, ..
    }
    | Layers {
        participant: of, ..
    }
    | Quality {
        participant: of, ..
    }) = &new.kind
    else {
        return false;
    };
    participant == of && (waiting.account, waiting.room) == (new.account, new.room)
}

/// Puts what `new` says in place of what `waiting` said, where nobody needs to hear the latter any more.
fn merge(waiting: &mut MediaEvent, new: &MediaEvent) -> Option<()> {
    use MediaEventKind::{Layers, Paused, Quality, Slots, Speakers};

    if (waiting.account, waiting.room) != (new.account, new.room) {
        return None;
    }
    match (&mut waiting.kind, &new.kind) {
        (Speakers { speakers }, Speakers { speakers: now }) => speakers.clone_from(now),
        (
            Quality {
                participant,
                quality,
            },
            Quality {
                participant: of,
                quality: now,
            },
        ) if participant == of => *quality = *now,
        (
            Paused {
                participant,
                track,
                paused,
            },
            Paused {
                participant: of,
                track: on,
                paused: now,
            },
        ) if (&*participant, &*track) == (of, on) => *paused = *now,
        (
            Layers {
                participant,
                track,
                wanted,
            },
            Layers {
                participant: of,
                track: on,
                wanted: now,
            },
        ) if (&*participant, &*track) == (of, on) => wanted.clone_from(now),
        (
            Slots {
                participant,
                slots,
                audio_wanted,
                video_wanted,
            },
            Slots {
                participant: of,
                slots: now,
                audio_wanted: audio_now,
                video_wanted: video_now,
            },
        ) if participant == of => {
            for slot in now {
                match slots.iter_mut().find(|known| known.mid == slot.mid) {
                    Some(known) => known.track = slot.track,
                    None => slots.push(slot.clone()),
                }
            }
            (*audio_wanted, *video_wanted) = (*audio_now, *video_now);
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::{ParticipantId, TrackId};
    use model::media::Slot;

    fn slot(mid: &str, track: u128) -> Slot {
        Slot {
            mid: mid.to_owned(),
            track: Some(TrackId::from_u128(track)),
        }
    }

    fn slots(participant: u128, slots: Vec<Slot>) -> MediaEventKind {
        MediaEventKind::Slots {
            participant: ParticipantId::from_u128(participant),
            slots,
            audio_wanted: 4,
            video_wanted: 8,
        }
    }

    #[test]
    fn news_wait_in_order_and_state_is_told_once() {
        let (account, room) = (AccountId::from_u128(1), RoomId::from_u128(2));
        let (sender, mut receiver) = mpsc::channel(1);
        let mut outbox = Outbox::new(sender);
        let connected = |participant| MediaEventKind::Connected {
            participant: ParticipantId::from_u128(participant),
        };

        outbox.push(account, room, connected(1)); // Fills the channel.
        outbox.push(account, room, slots(1, vec![slot("4", 10)]));
        outbox.push(account, room, slots(2, vec![slot("4", 10)]));
        outbox.push(account, room, connected(2));
        outbox.push(account, room, slots(1, vec![slot("4", 11), slot("5", 12)]));
        assert!(!outbox.flush());

        let mut heard = Vec::new();
        while let Ok(event) = receiver.try_recv() {
            heard.push(event.kind);
            outbox.flush();
        }
        let expected = [
            connected(1),
            slots(1, vec![slot("4", 11), slot("5", 12)]),
            slots(2, vec![slot("4", 10)]),
            connected(2),
        ];
        assert_eq!(heard, expected);
        assert!(outbox.flush());
    }

    #[test]
    fn nothing_is_told_before_the_answer_it_comes_after() {
        let (account, room) = (AccountId::from_u128(1), RoomId::from_u128(2));
        let (sender, mut receiver) = mpsc::channel(1);
        let mut outbox = Outbox::new(sender);
        let answered = |participant, track| MediaEventKind::Answered {
            participant: ParticipantId::from_u128(participant),
            generation: 2,
            sdp: String::new(),
            slots: vec![slot("4", track)],
        };

        outbox.push(account, room, answered(9, 1)); // Fills the channel.
        outbox.push(account, room, slots(1, vec![slot("4", 10)]));
        outbox.push(account, room, slots(2, vec![slot("4", 10)]));
        outbox.push(account, room, answered(1, 10));
        outbox.push(account, room, slots(1, vec![slot("4", 11)]));
        outbox.push(account, room, slots(1, vec![slot("4", 12)]));
        // The answer to one is nothing to others.
        outbox.push(account, room, slots(2, vec![slot("4", 11)]));

        let mut heard = Vec::new();
        while let Ok(event) = receiver.try_recv() {
            heard.push(event.kind);
            outbox.flush();
        }
        let expected = [
            answered(9, 1),
            slots(1, vec![slot("4", 10)]),
            slots(2, vec![slot("4", 11)]),
            answered(1, 10),
            slots(1, vec![slot("4", 12)]),
        ];
        assert_eq!(heard, expected);
    }

    #[test]
    fn what_nobody_hears_is_let_go() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let mut outbox = Outbox::new(sender);
        outbox.push(
            AccountId::from_u128(1),
            RoomId::from_u128(2),
            slots(1, Vec::new()),
        );
        assert!(outbox.flush());
    }
}
