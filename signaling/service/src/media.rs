//! The way between the shards and the SFU: commands go from each shard, news go to the shard of their Account.

use std::collections::VecDeque;

use model::media::{MediaCommand, MediaEvent};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::shard::Input;

/// How many commands may wait in a shard for room in the channel.
const UNSENT_MAX: usize = 10_000;

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
}

/// The SFU can't be told any more; what it holds is not what we think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    #[error("the SFU has ended")]
    Ended,
    #[error("the SFU takes no commands")]
    Stuck,
}

impl ToMedia {
    pub(crate) fn open(&mut self, commands: mpsc::Sender<MediaCommand>) {
        self.commands = Some(commands);
        self.unsent.clear();
    }

    pub(crate) fn close(&mut self) {
        self.commands = None;
        self.unsent.clear();
    }

    /// Sends a command behind all before it, now or when there is room. Fails when that is hopeless; then everything is
    /// given up.
    pub(crate) fn send(&mut self, command: MediaCommand) -> Result<(), Lost> {
        let Some(commands) = &self.commands else {
            return Ok(()); // the core was told and ends its Rooms
        };

        let unsent = if self.unsent.is_empty() {
            match commands.try_send(command) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(command)) => command,
                Err(TrySendError::Closed(_)) => return self.lose(Lost::Ended),
            }
        } else {
            command
        };
        if self.unsent.len() >= UNSENT_MAX {
            return self.lose(Lost::Stuck);
        }
        self.unsent.push_back(unsent);
        Ok(())
    }

    /// Sends what has waited the longest, once there is room; never ends while nothing waits. Can be given up.
    pub(crate) async fn send_unsent(&mut self) -> Result<(), Lost> {
        let (Some(commands), false) = (&self.commands, self.unsent.is_empty()) else {
            return std::future::pending().await;
        };

        if let Ok(room) = commands.reserve().await {
            if let Some(command) = self.unsent.pop_front() {
                room.send(command);
            }
            return Ok(());
        }
        self.lose(Lost::Ended)
    }

    fn lose(&mut self, lost: Lost) -> Result<(), Lost> {
        self.close();
        Err(lost)
    }
}

/// Leads news to the shards until the SFU ends, then tells them so.
pub(crate) async fn lead_events(
    mut events: mpsc::Receiver<MediaEvent>,
    shards: Vec<mpsc::Sender<Input>>,
    place_of: impl Fn(&MediaEvent) -> usize,
) {
    while let Some(event) = events.recv().await {
        let shard = &shards[place_of(&event)];
        if shard.send(Input::Media(Box::new(event))).await.is_err() {
            return; // signaling has ended
        }
    }

    for shard in shards {
        let _ = shard.send(Input::MediaEnded).await; // It may have ended, too.
    }
}

#[cfg(test)]
mod tests {
    use model::media::MediaCommandKind;
    use model::{AccountId, RoomId};

    use super::*;

    fn command(number: u128) -> MediaCommand {
        MediaCommand {
            account: AccountId::from_u128(1),
            room: RoomId::from_u128(number),
            kind: MediaCommandKind::End,
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_and_keeps_its_place() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut media = ToMedia::default();
        media.open(sender);
        for number in 0..3 {
            media.send(command(number)).unwrap();
        }

        for number in 0..3 {
            assert_eq!(receiver.recv().await, Some(command(number)));
            if number < 2 {
                media.send_unsent().await.unwrap();
            }
        }
        assert!(receiver.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_sfu_that_takes_nothing_or_is_gone_is_given_up() {
        let (sender, receiver) = mpsc::channel(1);
        let mut media = ToMedia::default();
        media.open(sender.clone());
        for number in 0..=UNSENT_MAX as u128 {
            media.send(command(number)).unwrap();
        }
        assert_eq!(media.send(command(0)), Err(Lost::Stuck));
        assert_eq!(media.send(command(0)), Ok(()), "it was told once");

        drop(receiver);
        media.open(sender);
        assert_eq!(media.send(command(0)), Err(Lost::Ended));
    }
}
