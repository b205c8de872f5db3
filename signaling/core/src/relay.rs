//! What the two Devices of an active Call say to each other through us.

use model::bus::{Relay, RelayKind};
use model::{CallId, DeviceId, MessageId, UserId};
use signaling_wire::ErrorCode;

use crate::calls::{CallKey, Outcome, Refusal};
use crate::sessions::SessionKey;
use crate::signaling::Signaling;
use crate::tell::Address;

/// The `type` a relayed frame has on both sides.
const fn kind_of(kind: RelayKind) -> &'static str {
    match kind {
        RelayKind::Verify => "call.verify",
        RelayKind::Offer(_) => "sdp.offer",
        RelayKind::Answer(_) => "sdp.answer",
        RelayKind::Candidates(_) => "ice.candidates",
        RelayKind::Restart => "ice.restart",
        RelayKind::Media => "call.media",
    }
}

/// The newest offers after a frame of one side; `None` when the frame is stale.
///
/// `own` and `other` are the newest generations the sender and the other side have offered. Both sides may offer the
/// same generation at once, for neither has seen the other's yet: perfect negotiation settles that at the ends.
fn newest_offer(kind: RelayKind, own: u64, other: u64) -> Option<u64> {
    let is_fresh = match kind {
        RelayKind::Offer(generation) => generation > own && generation >= other,
        RelayKind::Answer(generation) => generation == other,
        RelayKind::Candidates(generation) => generation >= own.max(other),
        RelayKind::Verify | RelayKind::Restart | RelayKind::Media => true,
    };

    is_fresh.then_some(match kind {
        RelayKind::Offer(generation) => generation,
        _ => own,
    })
}

impl Signaling {
    /// Passes a frame on at once where nothing is in its way: the Call is here and not settling. Otherwise it must go the
    /// way of all commands, and `None` is returned.
    pub(crate) fn relay_at_once(
        &mut self,
        from: SessionKey,
        id: MessageId,
        call: CallId,
        relay: &Relay,
    ) -> Option<Result<(), Refusal>> {
        let session = self.sessions.get(from);
        let (key, user, device) = (
            (session.account, call),
            session.user.clone(),
            session.device,
        );
        let held = self.calls.get(&key)?;
        let is_free = held.settling.is_none()
            && held.state.is_party(&user)
            && !held.applied.contains(&id)
            && self.owner_of(key.0, &user, call) == self.node;

        is_free.then(|| {
            self.on_relay(key, &user, device, relay)?;
            self.send_plain_ok(from, id);
            Ok(())
        })
    }

    pub(crate) fn on_relay(
        &mut self,
        key: CallKey,
        user: &UserId,
        device: DeviceId,
        relay: &Relay,
    ) -> Result<Outcome, Refusal> {
        let call = self.calls.get_mut(&key).ok_or_else(Refusal::unknown_call)?;
        call.ensure_active(user, device)?;

        let side = usize::from(call.state.callee.user == *user);
        let stale = Refusal::new(
            ErrorCode::StaleGeneration,
            "older than the configuration in force",
        );
        let offer =
            newest_offer(relay.kind, call.offers[side], call.offers[1 - side]).ok_or(stale)?;
        call.offers[side] = offer;

        let other = call.state.other_party(user);
        let (user, device) = (other.user.clone(), other.device);
        let to = Address {
            user: &user,
            device,
            except: None,
        };
        if self.tell_call(key, &to, kind_of(relay.kind), &relay.data) {
            Ok(Outcome::Empty)
        } else {
            Err(Refusal::new(
                ErrorCode::PeerGone,
                "the other device has no session",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_the_newest_offers_is_fresh() {
        use RelayKind::{Answer, Candidates, Offer, Verify};
        let check = |kind, own, other, newest| {
            assert_eq!(newest_offer(kind, own, other), newest, "{kind:?}");
        };

        check(Offer(1), 0, 0, Some(1));
        check(Offer(1), 0, 1, Some(1)); // glare
        check(Offer(1), 1, 0, None);
        check(Offer(1), 0, 2, None);
        check(Offer(9), 3, 4, Some(9));
        check(Answer(4), 3, 4, Some(3));
        check(Answer(3), 3, 4, None);
        check(Candidates(4), 3, 4, Some(3));
        check(Candidates(3), 3, 4, None);
        check(Candidates(5), 3, 4, Some(3)); // found before its offer is sent
        check(Verify, 3, 4, Some(3));
    }
}
