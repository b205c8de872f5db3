//! Who hears of a Call's transitions, and in which words.

use model::bus::{CallRef, Origin};
use model::{DeviceId, UserId};
use serde::Serialize;
use signaling_wire::CallEvent;

use crate::bus::Parcel;
use crate::calls::CallKey;
use crate::signaling::Signaling;

/// Whom a frame about a Call is for.
pub(crate) struct Address<'a> {
    pub(crate) user: &'a UserId,
    /// One Device, or all of them.
    pub(crate) device: Option<DeviceId>,
    /// The Device that need not be told.
    pub(crate) except: Option<&'a Origin>,
}

/// What a `call.update` says beside the state.
#[derive(Serialize)]
struct Happened<'a> {
    event: CallEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceId>,
}

/// The `data` of a `call.update`.
pub(crate) fn update_data(
    told: &str,
    event: CallEvent,
    by: Option<&UserId>,
    device: Option<DeviceId>,
) -> String {
    // Plain fields, which cannot fail.
    let happened = serde_json::to_string(&Happened { event, by, device }).unwrap_or_default();
    format!("{{{told},{}", happened.trim_start_matches('{'))
}

impl Signaling {
    /// Tells everybody involved what a Device did; that Device has the state in its `ok`.
    pub(crate) fn announce(&mut self, key: CallKey, event: CallEvent, by: &Origin) {
        self.announce_except(key, event, Some(&by.user), Some(by));
    }

    /// Tells the two Devices, and all of the callee's while it was not clear which one takes part, but not the Device
    /// of `except`.
    pub(crate) fn announce_except(
        &mut self,
        key: CallKey,
        event: CallEvent,
        by: Option<&UserId>,
        except: Option<&Origin>,
    ) {
        let Some(call) = self.calls.get(&key) else {
            return;
        };

        let state = &call.state;
        let device = except
            .filter(|except| by == Some(&except.user))
            .map(|except| except.device);
        let data = update_data(&call.told, event, by, device);
        let rang_all = state.answered_at.is_none() || event == CallEvent::Answered;
        let sides = [
            Some((state.caller.user.clone(), state.caller.device)),
            (!state.never_rang()).then(|| {
                (
                    state.callee.user.clone(),
                    state.callee.device.filter(|_| !rang_all),
                )
            }),
        ];

        for (user, device) in sides.into_iter().flatten() {
            self.tell_call(
                key,
                &Address {
                    user: &user,
                    device,
                    except,
                },
                "call.update",
                &data,
            );
        }
    }

    /// Delivers a frame about a Call, with what the other node needs to find the Call's owner.
    pub(crate) fn tell_call(
        &mut self,
        key: CallKey,
        to: &Address<'_>,
        kind: &'static str,
        data: &str,
    ) -> bool {
        let Some(call) = self.calls.get(&key) else {
            return false;
        };

        let call = Some(CallRef {
            call: key.1,
            owner: self.node,
            phase: call.state.phase,
        });
        let except = to
            .except
            .filter(|except| except.user == *to.user)
            .map(|except| except.device);
        self.deliver(
            key.0,
            &Parcel {
                user: to.user,
                device: to.device,
                except,
                kind,
                data,
                call,
            },
        )
    }
}
