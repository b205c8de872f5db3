//! The first frame of a WebSocket: who is there, with which token.

use std::sync::Arc;

use bytes::Bytes;
use model::MessageId;
use signaling_core::{ConnectionId, VerifiedHello};
use signaling_wire::{
    ClientFrame, CloseCode, DecodeError, ErrorCode, ErrorData, Frame, Head, Hello, ServerFrame,
    decode, encode,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::outbox::{End, Outbox};
use super::stream::{Over, TextSocket, Violation};
use super::{Client, HELLO_EXPECTED, STOPPED};
use crate::service::Inner;
use crate::shard::{Input, NewConnection};
use crate::tokens::{TokenRefusal, Verified};

/// What came of `hello`.
pub(super) enum Greeted {
    /// The shard has it; the answer is its.
    Session {
        connection: ConnectionId,
        outbox: Arc<Outbox>,
        shard: mpsc::Sender<Input>,
        /// What came right behind `hello`.
        ahead: Vec<Utf8Bytes>,
    },
    /// The client was told why not.
    Refused(End),
    /// There is nobody.
    Gone,
}

/// Waits for `hello` until `deadline`, verifies its token and hands it to the shard of its Account.
pub(super) async fn greet(
    inner: &Arc<Inner>,
    socket: &mut TextSocket,
    client: &Client,
    deadline: Instant,
) -> Greeted {
    let received = tokio::select! {
        received = timeout_at(deadline, socket.receive()) => {
            received.unwrap_or(Err(Over::Violation(HELLO_EXPECTED)))
        }
        () = inner.closing.cancelled() => return Greeted::Refused(STOPPED),
    };

    let refusal = match received {
        Err(Over::Gone) => return Greeted::Gone,
        Err(Over::Violation(violation)) => Refusal::of(None, violation),
        // At least one.
        Ok(mut texts) => match read_hello(&texts.remove(0)) {
            Ok((id, hello)) => match inner.tokens.verify(&hello.token, inner.clock.now()).await {
                Ok(verified) => return hand_over(inner, client, id, hello, verified, texts).await,
                Err(refusal) => {
                    if refusal != TokenRefusal::Unavailable {
                        inner.addresses.note_refusal(client.ip);
                    }
                    Refusal::of_token(id, refusal)
                }
            },
            Err(refusal) => refusal,
        },
    };

    inner.figures.hello_refused(refusal.code);
    // Without the message: it may quote what the client sent, and that may be a token.
    tracing::debug!(code = refusal.code.as_str(), "Hello refused");
    let frame = error_frame(refusal.id, refusal.code, &refusal.message);
    // A client that can't be told is closed all the same.
    let _ = timeout_at(
        deadline,
        socket.send(vec![frame], &Outbox::default(), STALL),
    )
    .await;

    Greeted::Refused(refusal.end)
}

/// Longer than any deadline for `hello`, which counts here.
const STALL: std::time::Duration = std::time::Duration::from_secs(60);

async fn hand_over(
    inner: &Arc<Inner>,
    client: &Client,
    id: Option<MessageId>,
    hello: Hello,
    verified: Verified,
    ahead: Vec<Utf8Bytes>,
) -> Greeted {
    let Verified {
        api_key,
        account,
        claims,
        expired,
    } = verified;
    let ice_servers =
        inner
            .ice_servers
            .for_user(inner.clock.now(), account, &claims.sub, &client.host);

    let hello = VerifiedHello {
        id,
        api_key,
        account,
        user: claims.sub,
        name: claims.name,
        grants: claims.call,
        room_grants: claims.room,
        expired,
        attended: true,
        device: hello.device,
        resume: hello.resume,
        address: Some(inner.addresses.hash(client.ip)),
        ice_servers,
    };
    let connection = inner.shards.new_connection();
    let outbox = Arc::new(Outbox::default());
    let shard = inner.shards.of(account).clone();

    let input = Input::Hello(Box::new(NewConnection {
        connection,
        hello,
        outbox: Arc::clone(&outbox),
        host: client.host.clone(),
    }));
    if shard.send(input).await.is_err() {
        return Greeted::Refused(STOPPED);
    }

    Greeted::Session {
        connection,
        outbox,
        shard,
        ahead,
    }
}

fn read_hello(text: &str) -> Result<(Option<MessageId>, Hello), Refusal> {
    match decode(text) {
        Ok(Frame {
            head,
            content: ClientFrame::Hello(hello),
        }) => Ok((head.id, hello)),
        Ok(Frame { head, .. }) => Err(Refusal::of(head.id, HELLO_EXPECTED)),
        Err(DecodeError {
            code,
            message,
            head,
        }) => Err(Refusal {
            id: head.id,
            code,
            message: message.into(),
            end: End {
                code: CloseCode::BadFrame,
                reason: code.as_str(),
            },
        }),
    }
}

/// Why there is no Session, and how it is told.
struct Refusal {
    id: Option<MessageId>,
    code: ErrorCode,
    message: String,
    end: End,
}

impl Refusal {
    fn of(id: Option<MessageId>, violation: Violation) -> Self {
        let Violation { code, end } = violation;

        Self {
            id,
            code,
            message: end.reason.to_owned(),
            end,
        }
    }

    fn of_token(id: Option<MessageId>, refusal: TokenRefusal) -> Self {
        let (code, close) = match refusal {
            TokenRefusal::Unavailable => (ErrorCode::Internal, CloseCode::Goaway),
            _ => (ErrorCode::Unauthorized, CloseCode::Unauthorized),
        };

        Self {
            id,
            code,
            message: refusal.to_string(),
            end: End {
                code: close,
                reason: code.as_str(),
            },
        }
    }
}

/// An `error` that answers no reliable frame.
pub(super) fn error_frame(reply_to: Option<MessageId>, code: ErrorCode, message: &str) -> Bytes {
    let frame = ServerFrame::Error(ErrorData::new(code, message));
    let head = Head {
        reply_to,
        ..Head::default()
    };

    encode(frame.kind(), &head, &frame.data()).into()
}
