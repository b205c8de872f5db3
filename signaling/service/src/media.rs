//! The way between the shards and the SFU: commands go from each shard, news go to the shard of their Account.

use std::collections::VecDeque;
use std::mem;

use model::media::{MediaCommand, MediaCommandKind, MediaEvent};
use model::{AccountId, ParticipantId, RoomId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::shard::Input;

/// How many commands may wait in a shard for room in the channel.
const UNSENT_MAX: usize = 10_000;
/// How long their offers may be together, in bytes.
const UNSENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The channels to an SFU; both bounded.
#[derive(Debug)]
pub struct Media {
    /// What it is told, in order.
    pub commands: mpsc::Sender<MediaCommand>,
    /// What it tells.
    pub events: mpsc::Receiver<MediaEvent>,
}

/// A shard's way to the SFU. It never waits: the SFU may be waiting for us.
#[derive(Default)]
pub(crate) struct ToMedia {
    commands: Option<mpsc::Sender<MediaCommand>>,
    unsent: VecDeque<MediaCommand>,
    unsent_bytes: usize,
    /// More was to be told than could wait. Until all that waits is told, that is ends of Rooms alone.
    is_overrun: bool,
}

/// What the SFU holds is not what we think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// There is none any more.
    #[error("the SFU has ended")]
    Ended,
    /// It is told of no Room but its end, until [`ToMedia::send_unsent`] says that it keeps up again.
    #[error("the SFU does not keep up with its commands")]
    Overrun,
}

/// What came of [`ToMedia::send_unsent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// One more was sent.
    One,
    /// All that waited since the SFU was overrun.
    KeepsUp,
}

impl ToMedia {
    pub(crate) fn open(&mut self, commands: mpsc::Sender<MediaCommand>) {
        *self = Self {
            commands: Some(commands),
            ..Self::default()
        };
    }

    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }

    /// Sends a command behind all before it, now or when there is room. Fails when that is hopeless; then what waited is given up.
    pub(crate) fn send(&mut self, command: MediaCommand) -> Result<(), Lost> {
        let Some(commands) = &self.commands else {
            return Ok(()); // the core was told and ends its Rooms
        };
        if self.is_overrun {
            if command.kind == MediaCommandKind::End {
                self.unsent.push_back(command); // one for each Room there was
            }
            return Ok(());
        }

        let unsent = if self.unsent.is_empty() {
            match commands.try_send(command) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(command)) => command,
                Err(TrySendError::Closed(_)) => return self.lose(),
            }
        } else {
            command
        };
        self.drop_overtaken(&unsent);
        self.unsent_bytes += len(&unsent);
        self.unsent.push_back(unsent);
        if self.unsent.len() > UNSENT_MAX || self.unsent_bytes > UNSENT_BYTES_MAX {
            self.unsent = VecDeque::new();
            (self.unsent_bytes, self.is_overrun) = (0, true);
            return Err(Lost::Overrun);
        }
        Ok(())
    }

    /// Sends what has waited the longest, once there is room; never ends while nothing waits. Can be given up.
    pub(crate) async fn send_unsent(&mut self) -> Result<Sent, Lost> {
        let commands = match &self.commands {
            Some(commands) if self.is_overrun || !self.unsent.is_empty() => commands,
            _ => return std::future::pending().await,
        };

        let Ok(room) = commands.reserve().await else {
            self.lose()?;
            return Ok(Sent::One);
        };
        if let Some(command) = self.unsent.pop_front() {
            self.unsent_bytes = self.unsent_bytes.saturating_sub(len(&command));
            room.send(command);
        }
        let keeps_up = self.unsent.is_empty() && mem::take(&mut self.is_overrun);
        Ok(if keeps_up { Sent::KeepsUp } else { Sent::One })
    }

    /// Of the wishes and of the offers of a Participant the last holds: an earlier one that still waits need not be told.
    fn drop_overtaken(&mut self, command: &MediaCommand) {
        let Some(theirs) = replaceable(command) else {
            return;
        };
        let is_it = |other: &MediaCommand| replaceable(other) == Some(theirs);
        if let Some(at) = self.unsent.iter().rposition(is_it)
            && let Some(overtaken) = self.unsent.remove(at)
        {
            self.unsent_bytes -= len(&overtaken);
        }
    }

    fn lose(&mut self) -> Result<(), Lost> {
        self.close();
        Err(Lost::Ended)
    }
}

/// What a later command of the same kind takes the place of.
fn replaceable(command: &MediaCommand) -> Option<(AccountId, RoomId, ParticipantId, bool)> {
    let (participant, is_offer) = match &command.kind {
        MediaCommandKind::Offer { participant, .. } => (*participant, true),
        MediaCommandKind::Want { participant, .. } => (*participant, false),
        _ => return None,
    };
    Some((command.account, command.room, participant, is_offer))
}

/// How long its offer is.
fn len(command: &MediaCommand) -> usize {
    match &command.kind {
        MediaCommandKind::Join { offer, .. } | MediaCommandKind::Offer { offer, .. } => {
            offer.sdp.len()
        }
        _ => 0,
    }
}

/// News of a role, for the shard of its Account.
pub(crate) trait News {
    fn account(&self) -> AccountId;
    fn input(self) -> Input;
    /// What the shards are told when no more will come.
    fn ended() -> Input;
}

impl News for MediaEvent {
    fn account(&self) -> AccountId {
        self.account
    }

    fn input(self) -> Input {
        Input::Media(Box::new(self))
    }

    fn ended() -> Input {
        Input::MediaEnded
    }
}

/// Leads news to the shards until there is no more, then tells them so.
pub(crate) async fn lead_events<N: News>(
    mut events: mpsc::Receiver<N>,
    shards: Vec<mpsc::Sender<Input>>,
    place_of: impl Fn(AccountId) -> usize,
) {
    while let Some(event) = events.recv().await {
        let shard = &shards[place_of(event.account())];
        if shard.send(event.input()).await.is_err() {
            return; // signaling has ended
        }
    }

    for shard in shards {
        let _ = shard.send(N::ended()).await; // It may have ended, too.
    }
}

#[cfg(test)]
mod tests {
    use model::media::MediaOffer;

    use super::*;

    fn end(room: u128) -> MediaCommand {
        MediaCommand {
            account: AccountId::from_u128(1),
            room: RoomId::from_u128(room),
            kind: MediaCommandKind::End,
        }
    }

    fn offer(participant: u128, generation: u32, len: usize) -> MediaCommand {
        let kind = MediaCommandKind::Offer {
            participant: ParticipantId::from_u128(participant),
            offer: MediaOffer {
                generation,
                sdp: "a".repeat(len),
                tracks: Vec::new(),
            },
        };
        MediaCommand { kind, ..end(1) }
    }

    fn open(places: usize) -> (ToMedia, mpsc::Receiver<MediaCommand>) {
        let (sender, receiver) = mpsc::channel(places);
        let mut media = ToMedia::default();
        media.open(sender);
        (media, receiver)
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_and_keeps_its_place() {
        let (mut media, mut receiver) = open(1);
        for number in 0..3 {
            media.send(end(number)).unwrap();
        }

        for number in 0..3 {
            assert_eq!(receiver.recv().await, Some(end(number)));
            if number < 2 {
                assert_eq!(media.send_unsent().await, Ok(Sent::One));
            }
        }
        assert!(receiver.try_recv().is_err());
    }

    #[tokio::test]
    async fn of_the_offers_of_one_that_wait_the_last_is_told() {
        let (mut media, mut receiver) = open(1);
        media.send(end(1)).unwrap();
        for generation in 1..1_000 {
            media.send(offer(1, generation, 240_000)).unwrap();
            media.send(offer(2, generation, 240_000)).unwrap();
        }

        assert_eq!(media.unsent_bytes, 2 * 240_000);
        assert_eq!(receiver.recv().await, Some(end(1)));
        for participant in [1, 2] {
            assert_eq!(media.send_unsent().await, Ok(Sent::One));
            let told = receiver.recv().await;
            assert_eq!(told, Some(offer(participant, 999, 240_000)));
        }
        assert_eq!(media.unsent_bytes, 0);
    }

    #[tokio::test]
    async fn an_sfu_that_was_overrun_is_told_which_rooms_end_and_takes_new_ones() {
        let (mut media, mut receiver) = open(1);
        let too_long = UNSENT_BYTES_MAX / 240_000 + 1;
        for participant in 0..too_long as u128 {
            media.send(offer(participant, 1, 240_000)).unwrap();
        }
        let one_more = offer(u128::MAX, 1, 240_000);
        assert_eq!(media.send(one_more.clone()), Err(Lost::Overrun));
        assert_eq!(media.send(one_more), Ok(()), "it was told once");
        media.send(end(1)).unwrap();
        media.send(end(2)).unwrap();

        assert_eq!(receiver.recv().await, Some(offer(0, 1, 240_000)));
        assert_eq!(media.send_unsent().await, Ok(Sent::One));
        assert_eq!(receiver.recv().await, Some(end(1)));
        assert_eq!(media.send_unsent().await, Ok(Sent::KeepsUp));
        assert_eq!(receiver.recv().await, Some(end(2)));
        media.send(offer(3, 1, 1)).unwrap();
        assert_eq!(receiver.recv().await, Some(offer(3, 1, 1)));
    }

    #[tokio::test]
    async fn more_commands_than_may_wait_are_too_many_and_an_sfu_that_is_gone_is_given_up() {
        let (mut media, receiver) = open(1);
        for number in 0..=UNSENT_MAX as u128 {
            media.send(end(number)).unwrap();
        }
        assert_eq!(media.send(end(0)), Err(Lost::Overrun));

        drop(receiver);
        assert_eq!(media.send_unsent().await, Err(Lost::Ended));
        let (mut media, receiver) = open(1);
        drop(receiver);
        assert_eq!(media.send(end(0)), Err(Lost::Ended));
    }
}
