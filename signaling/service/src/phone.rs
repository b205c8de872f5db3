//! The way between the shards and the phone gateway: commands go from each shard, news go to the shard of their Account.

use std::collections::VecDeque;

use model::AccountId;
use model::phone::{PhoneCommand, PhoneEvent};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::media::News;
use crate::shard::Input;

/// How many commands may wait in a shard for room in the channel.
const UNSENT_MAX: usize = 10_000;

/// The channels to a phone gateway; both bounded.
#[derive(Debug)]
pub struct Phone {
    /// What it is told, in order.
    pub commands: mpsc::Sender<PhoneCommand>,
    /// What it tells.
    pub events: mpsc::Receiver<PhoneEvent>,
}

/// A shard's way to the gateway. It never waits: the gateway may be waiting for us.
#[derive(Default)]
pub(crate) struct ToPhone {
    commands: Option<mpsc::Sender<PhoneCommand>>,
    unsent: VecDeque<PhoneCommand>,
}

/// The gateway can't be told any more; what it holds is not what we think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PhoneLost {
    #[error("the gateway has ended")]
    Ended,
    #[error("the gateway takes no commands")]
    Stuck,
}

impl ToPhone {
    pub(crate) fn open(&mut self, commands: mpsc::Sender<PhoneCommand>) {
        self.commands = Some(commands);
        self.unsent.clear();
    }

    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }

    /// Sends a command behind all before it, now or when there is room. Fails when that is hopeless; then everything is
    /// given up.
    pub(crate) fn send(&mut self, command: PhoneCommand) -> Result<(), PhoneLost> {
        let Some(commands) = &self.commands else {
            return Ok(()); // the core was told and has ended its phone calls
        };

        let unsent = if self.unsent.is_empty() {
            match commands.try_send(command) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(command)) => command,
                Err(TrySendError::Closed(_)) => return self.lose(PhoneLost::Ended),
            }
        } else {
            command
        };
        if self.unsent.len() >= UNSENT_MAX {
            return self.lose(PhoneLost::Stuck);
        }
        self.unsent.push_back(unsent);
        Ok(())
    }

    /// Sends what has waited the longest, once there is room; never ends while nothing waits. Can be given up.
    pub(crate) async fn send_unsent(&mut self) -> Result<(), PhoneLost> {
        let (Some(commands), false) = (&self.commands, self.unsent.is_empty()) else {
            return std::future::pending().await;
        };

        if let Ok(room) = commands.reserve().await {
            if let Some(command) = self.unsent.pop_front() {
                room.send(command);
            }
            return Ok(());
        }
        self.lose(PhoneLost::Ended)
    }

    fn lose(&mut self, lost: PhoneLost) -> Result<(), PhoneLost> {
        self.close();
        Err(lost)
    }
}

impl News for PhoneEvent {
    fn account(&self) -> AccountId {
        self.account
    }

    fn input(self) -> Input {
        Input::Phone(Box::new(self))
    }

    fn ended() -> Input {
        Input::PhoneEnded
    }
}

#[cfg(test)]
mod tests {
    use model::CallId;
    use model::phone::PhoneCommandKind;

    use super::*;

    fn command(number: u128) -> PhoneCommand {
        PhoneCommand {
            account: AccountId::from_u128(1),
            call: CallId::from_u128(number),
            kind: PhoneCommandKind::HangUp { cause: 16 },
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_and_keeps_its_place() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut phone = ToPhone::default();
        phone.open(sender);
        for number in 0..3 {
            phone.send(command(number)).unwrap();
        }

        for number in 0..3 {
            assert_eq!(receiver.recv().await, Some(command(number)));
            if number < 2 {
                phone.send_unsent().await.unwrap();
            }
        }
        assert!(receiver.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_gateway_that_takes_nothing_or_is_gone_is_given_up() {
        let (sender, receiver) = mpsc::channel(1);
        let mut phone = ToPhone::default();
        phone.open(sender.clone());
        for number in 0..=UNSENT_MAX as u128 {
            phone.send(command(number)).unwrap();
        }
        assert_eq!(phone.send(command(0)), Err(PhoneLost::Stuck));
        assert_eq!(phone.send(command(0)), Ok(()), "it was told once");

        drop(receiver);
        phone.open(sender);
        assert_eq!(phone.send(command(0)), Err(PhoneLost::Ended));
    }
}
