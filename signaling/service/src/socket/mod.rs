//! The task of one WebSocket: `hello` first, then frames both ways until either side ends it.

mod hello;
mod outbox;
mod stream;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use signaling_core::ConnectionId;
use signaling_wire::{CloseCode, ErrorCode};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::addresses::OpenSlot;
use crate::service::Inner;
use crate::shard::Input;
use hello::{Greeted, error_frame};
use stream::{Event, Over, TextSocket, Violation, next_event};

pub(crate) use outbox::{End, Outbox, SOON, Tell};

/// Who is at the other end.
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    /// The host the client reached us by.
    pub(crate) host: Box<str>,
    /// Its place among the sockets of its address.
    pub(crate) slot: OpenSlot,
}

/// Serves a WebSocket from its upgrade to its end.
pub(crate) async fn run(inner: Arc<Inner>, upgrade: OnUpgrade, client: Client) {
    let figures = Arc::clone(&inner.figures);
    let _counted = figures.connected();
    let deadline = tokio::time::Instant::now() + Duration::from_millis(inner.config.hello_ms);

    let Ok(Ok(upgraded)) = tokio::time::timeout_at(deadline, upgrade).await else {
        return;
    };
    let mut socket = TextSocket::new(upgraded);

    // Boxed, so that what is needed once does not take room for as long as the socket lives.
    let greeted = Box::pin(hello::greet(&inner, &mut socket, &client, deadline)).await;
    let _slot = client.slot;

    let end = match greeted {
        Greeted::Session {
            connection,
            outbox,
            shard,
            ahead,
        } => {
            let stall = Duration::from_millis(inner.config.stall_ms);
            drop(inner); // A socket may outlive the service; it needs no more of it.
            socket.allow_long_frames();
            let end = match hand_on(&shard, connection, ahead).await {
                Ok(()) => relay(&mut socket, connection, &outbox, &shard, stall).await,
                Err(end) => Some(end),
            };
            // The shard ends when the service does.
            let _ = shard.send(Input::Gone { connection }).await;
            end
        }
        Greeted::Refused(end) => Some(end),
        Greeted::Gone => None,
    };

    if let Some(end) = end {
        figures.closed(end.code);
        Box::pin(socket.close(end)).await;
    }
}

/// Moves frames until the end; `None` when there is nobody left to tell it.
async fn relay(
    socket: &mut TextSocket,
    connection: ConnectionId,
    outbox: &Outbox,
    shard: &mpsc::Sender<Input>,
    stall: Duration,
) -> Option<End> {
    loop {
        match next_event(socket, outbox).await {
            Event::Write(batch) => {
                if let Err(end) = socket.send(batch.frames, outbox, stall).await {
                    return end;
                }
                if batch.end.is_some() {
                    return batch.end;
                }
            }
            Event::Received(Ok(texts)) => {
                if let Err(end) = hand_on(shard, connection, texts).await {
                    return Some(end);
                }
            }
            Event::Received(Err(Over::Violation(violation))) => {
                return Some(tell(socket, outbox, violation, stall).await);
            }
            Event::Received(Err(Over::Gone)) => return None,
        }
    }
}

/// Hands frames to the shard; waits while it has too many.
async fn hand_on(
    shard: &mpsc::Sender<Input>,
    connection: ConnectionId,
    texts: Vec<Utf8Bytes>,
) -> Result<(), End> {
    if texts.is_empty() {
        return Ok(());
    }
    let input = Input::Frames { connection, texts };
    shard.send(input).await.map_err(|_| STOPPED)
}

/// Tells a client which rule it broke.
async fn tell(
    socket: &mut TextSocket,
    outbox: &Outbox,
    violation: Violation,
    stall: Duration,
) -> End {
    let Violation { code, end } = violation;
    let frame = error_frame(None, code, end.reason);

    // A client that can't be told is closed all the same.
    let _ = socket.send(vec![frame], outbox, stall).await;
    end
}

/// The shard is gone, so the process is about to be.
const STOPPED: End = End {
    code: CloseCode::Goaway,
    reason: "goaway",
};

/// What a client is told when its `hello` is missing.
const HELLO_EXPECTED: Violation = Violation {
    code: ErrorCode::HelloExpected,
    end: End {
        code: CloseCode::HelloExpected,
        reason: "hello expected",
    },
};
