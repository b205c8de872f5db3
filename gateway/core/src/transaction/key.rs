//! How messages find their transaction (RFC 3261 §17.1.3, §17.2.3).

use gateway_sip::sanity::IncomingRequest;
use gateway_sip::{Envelope, Method};

/// Which transaction of ours a response answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientKey {
    branch: String,
    method: String,
}

impl ClientKey {
    pub(super) fn new(branch: &str, method: &Method) -> Self {
        Self {
            branch: branch.to_ascii_lowercase(),
            method: method.to_string(),
        }
    }

    /// That of the CANCEL of the same request.
    pub(super) fn for_cancel(&self) -> Self {
        Self {
            branch: self.branch.clone(),
            method: Method::Cancel.to_string(),
        }
    }

    pub(super) fn of(envelope: &Envelope) -> Option<Self> {
        Some(Self::new(envelope.via.branch()?, &envelope.cseq.method))
    }
}

/// Which transaction of somebody else a request belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServerKey {
    id: Id,
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    Branch {
        branch: String,
        sent_by: String,
    },
    /// As before RFC 3261, without the To tag, which ACK has and INVITE has not. The method is compared beside it.
    Fields {
        uri: String,
        call_id: String,
        from_tag: Option<String>,
        number: u32,
        via: String,
    },
}

impl ServerKey {
    /// The transaction of `request`, or, with `method`, that of the request of which it is the ACK or CANCEL.
    pub(super) fn of(incoming: &IncomingRequest, method: &Method) -> Self {
        let Envelope {
            via,
            from,
            call_id,
            cseq,
            ..
        } = &incoming.envelope;
        let id = match via.branch().filter(|_| via.has_unique_branch()) {
            Some(branch) => Id::Branch {
                branch: branch.to_ascii_lowercase(),
                sent_by: format!("{}:{}", via.host, via.port.unwrap_or(5060)).to_ascii_lowercase(),
            },
            None => Id::Fields {
                uri: incoming.uri.to_string(),
                call_id: call_id.clone(),
                from_tag: from.tag().map(str::to_owned),
                number: cseq.number,
                via: format!(
                    "{} {}:{:?} {:?}",
                    via.transport,
                    via.host,
                    via.port,
                    via.branch()
                ),
            },
        };
        Self {
            id,
            method: method.to_string(),
        }
    }
}

/// What is the same in two copies of a request that came by two ways (RFC 3261 §8.2.2.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MergeKey {
    call_id: String,
    from_tag: String,
    number: u32,
    method: String,
}

impl MergeKey {
    /// `None` for requests within dialogs.
    pub(super) fn of(envelope: &Envelope) -> Option<Self> {
        envelope.to.tag().is_none().then_some(())?;
        Some(Self {
            call_id: envelope.call_id.clone(),
            from_tag: envelope.from.tag()?.to_owned(),
            number: envelope.cseq.number,
            method: envelope.cseq.method.to_string(),
        })
    }
}
