//! Calls that go elsewhere by the word of a phone: REFER, blind and attended (RFC 3515, 5589), and INVITEs that take the place of a Leg
//! (RFC 3891).
//!
//! A desk phone may transfer to whatever its User may call, a Trunk what its row's `transfers` lets it. What a transfer leads to are calls
//! as all others: the same policy, the same limits, one hop less. Nothing is sent to those who stay: the gateway is between the two, and
//! has them hear somebody else.

use std::time::{Duration, Instant};

use gateway_core::call::{self, LegKey};
use gateway_core::dialog::DialogId;
use gateway_core::endpoint::Replaces;
use gateway_core::leg::{Order, Quirks};
use gateway_core::outbound::{self, Caller, Plan};
use gateway_core::routing::{Facts, Way};
use gateway_core::transaction::{Flow, ServerId};
use gateway_sip::sanity::IncomingRequest;
use gateway_sip::{StatusCode, Uri};
use model::phone::rows::{E164, LegDirection, Telephony};
use model::{AccountId, CallId, UserId};

use super::incoming::{Begin, Refusal};
use super::legs::{SipLeg, Sticky};
use super::people::Invitation;
use super::records::{Parties, kept};
use super::strangers::Shown;
use super::trunks::TrunkId;
use super::ways::{Lead, Leading};
use super::words::{capabilities, capabilities_of};
use super::{Exchange, Side, Target};
use crate::sound::LegId;

/// It is not for this one to say where calls go.
const NOT_ALLOWED: Refusal = Refusal::new("not_allowed", StatusCode::FORBIDDEN);
/// The other call is not there, not theirs, or nobody talks in it.
const NO_SUCH_CALL: Refusal = Refusal::new("no_such_call", StatusCode::NO_SUCH_CALL);
/// What the transfer names is no number of ours.
const ELSEWHERE: Refusal = Refusal::new("elsewhere", StatusCode::NOT_FOUND);
/// It went on too often (RFC 3261 §8.1.1.6).
const LOOP: Refusal = Refusal::new("loop", StatusCode::TOO_MANY_HOPS);
/// Two people in browsers are connected by signaling, or not at all.
const BROWSERS: Refusal = Refusal::new("browsers", StatusCode::DECLINE);

/// Who asks for a transfer.
struct Asker {
    account: AccountId,
    rows: std::sync::Arc<Telephony>,
    /// Whose desk phone it is; nobody's for a Trunk.
    user: Option<UserId>,
}

/// Whose Leg takes the place of another.
enum Heir {
    Desk(model::phone::rows::SipUser),
    Trunk(TrunkId),
}

impl Exchange {
    /// A Leg wants the one it talks with to be connected elsewhere.
    pub(super) fn on_transfer(
        &mut self,
        now: Instant,
        id: CallId,
        by: LegKey,
        target: &Uri,
        replaces: Option<&DialogId>,
    ) {
        let done = match replaces {
            Some(dialog) => self.join(now, id, by, dialog),
            None => self.send_elsewhere(now, id, by, target),
        };
        match done {
            Ok(()) => self.figures.transfers += 1,
            Err(refusal) => {
                self.refuse_transfer(id, refusal);
                self.tell_call(id, call::Event::RefuseTransfer(refusal.code()));
            }
        }
    }

    fn refuse_transfer(&mut self, id: CallId, refusal: Refusal) {
        self.figures.transfer_refused(refusal.word());
        let code = refusal.code().get();
        tracing::info!(call = %id, why = refusal.word(), code, "Transfer refused");
    }

    /// A blind transfer: the target is called for the one who stays.
    fn send_elsewhere(
        &mut self,
        now: Instant,
        id: CallId,
        by: LegKey,
        target: &Uri,
    ) -> Result<(), Refusal> {
        let asker = self.asker(id, by)?;
        let Asker {
            account,
            rows,
            user,
        } = &asker;
        let dialled = self.number_in(&asker, target).ok_or(ELSEWHERE)?;
        let plan = outbound::plan(rows, user.as_ref(), &dialled);
        let plan = plan.map_err(|denied| Refusal::denied(&denied))?;
        let call = self.calls.get(&id).ok_or(NO_SUCH_CALL)?;
        let hops = call.hops.checked_sub(1).filter(|hops| *hops > 0);
        let hops = hops.ok_or(LOOP)?;
        let stays = call.call.holder();
        let is_browser = matches!(call.sides.get(&stays), Some(Side::User(_)));
        let mut invitation = call.ring.clone().unwrap_or_else(Invitation::nobody);
        if stays != call::CALLER {
            invitation.from = invitation.to.take();
            invitation.name = None;
        }
        invitation.to = format!("tel:{dialled}").parse().ok();
        let (leading, mut lead) = match plan {
            Plan::Outside(outside) => {
                // Who sends the call on answers for it, and is shown.
                let settings = user.as_ref().and_then(|user| rows.users.get(user));
                let own = settings.and_then(|settings| settings.number.clone());
                let withheld = settings.is_some_and(|settings| settings.withhold_number);
                let caller = Caller {
                    number: outside.shown.clone().or(own),
                    withheld: withheld && !outside.help,
                    ..Caller::default()
                };
                let lead = self.lead_out(*account, user.as_ref(), outside, caller, hops)?;
                (None, lead)
            }
            Plan::Inside(line) => {
                let shown = invitation.from.as_ref().and_then(|from| from.number());
                let number: Option<E164> = shown.and_then(|number| number.parse().ok());
                let talks = |user: &UserId| self.is_talking(*account, user);
                let wall = self.wall(now);
                let facts = Facts {
                    at: wall,
                    is_talking: &talks,
                };
                let (way, step) = Way::begin(rows, facts, &line, None, number.as_ref());
                let caller = Caller {
                    withheld: invitation.from.is_none(),
                    number,
                    name: invitation.name.clone(),
                    diverted: None,
                };
                let mut leading = Leading::new(way, caller, hops);
                let lead = self.lead(wall, *account, rows, &mut leading, step)?;
                (Some(leading), lead)
            }
        };
        if is_browser {
            keep_phones(&mut lead)?;
        }
        if let Some(call) = self.calls.get_mut(&id) {
            // A browser's call goes to one place, and on to no other.
            call.leading = leading.filter(|_| !is_browser);
            call.hops = hops;
            call.taken_up = false;
            call.ring = Some(invitation);
            // Where it goes follows.
            call.call.step(now, call::Event::Transfer(Vec::new()));
        }
        self.follow(now, id, lead);
        Ok(())
    }

    /// An attended transfer: whom the asker talks with in one call and in another talk with each other from now on.
    fn join(
        &mut self,
        now: Instant,
        id: CallId,
        by: LegKey,
        dialog: &DialogId,
    ) -> Result<(), Refusal> {
        self.asker(id, by)?;
        let here = self.calls.get(&id).ok_or(NO_SUCH_CALL)?;
        let asks = match here.sides.get(&by) {
            Some(Side::Sip(leg)) => self.legs.get(leg),
            _ => None,
        };
        let named = self.endpoint.find(dialog);
        let named = named.and_then(|leg| self.legs.get(leg));
        let (asks, named) = asks.zip(named).ok_or(NO_SUCH_CALL)?;
        let there = self.calls.get(&named.call).ok_or(NO_SUCH_CALL)?;
        let is_theirs = (&named.desk, &named.trunk) == (&asks.desk, &asks.trunk)
            && there.account == here.account
            && named.call != id;
        if !is_theirs {
            return Err(NO_SUCH_CALL);
        }
        let may = named.leg.may_be_replaced(dialog, false);
        may.map_err(|code| Refusal::new("no_such_call", code))?;
        let near = here.call.partner(by).ok_or(NO_SUCH_CALL)?;
        let far = there.call.partner(named.key).ok_or(NO_SUCH_CALL)?;
        let is_browser =
            |call: &super::PhoneCall, key| matches!(call.sides.get(&key), Some(Side::User(_)));
        // Signaling knows the call of somebody in a browser: that one goes on.
        let (other, key) = (named.call, named.key);
        match (is_browser(here, near), is_browser(there, far)) {
            (true, true) => Err(BROWSERS),
            (false, true) => self.merge(now, (other, key), (id, near)),
            (_, false) => self.merge(now, (id, by), (other, far)),
        }
    }

    /// In the call `stays`, the Leg `mover` of the call `goes` takes the place of `old`; the rest of `goes` ends.
    fn merge(
        &mut self,
        now: Instant,
        (stays, old): (CallId, LegKey),
        (goes, mover): (CallId, LegKey),
    ) -> Result<(), Refusal> {
        let ending = self.calls.get_mut(&goes).ok_or(NO_SUCH_CALL)?;
        let Some(Side::Sip(leg)) = ending.sides.get(&mover).cloned() else {
            return Err(NO_SUCH_CALL);
        };
        let left = ending.call.release(mover).ok_or(NO_SUCH_CALL)?;
        ending.sides.remove(&mover);
        let user = ending.users.remove(&mover);
        if let Some(user) = &user
            && let Some(at) = ending.talks.iter().position(|talks| talks == user)
        {
            ending.talks.remove(at);
        }
        // Who was called is still paid for.
        let outside = std::mem::take(&mut ending.outside);
        let joined = self
            .calls
            .get_mut(&stays)
            .and_then(|call| call.call.replace(old));
        if let (Some((key, _)), Some(call)) = (&joined, self.calls.get_mut(&stays)) {
            call.sides.insert(*key, Side::Sip(leg));
            call.outside.extend(outside);
            call.talks.extend(user.clone());
            call.users.extend(user.map(|user| (*key, user)));
            if let Some(leg) = self.legs.get_mut(&leg) {
                (leg.call, leg.key) = (stays, *key);
            }
        }
        let actions = joined.map(|(_, actions)| actions).unwrap_or_default();
        self.act_for_call(now, stays, actions);
        self.act_for_call(now, goes, left);
        self.look_at_minutes(now, stays);
        Ok(())
    }

    /// An INVITE that takes the place of one of our Legs.
    pub(super) fn on_replaces(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        incoming: &IncomingRequest,
        replaces: &Replaces<LegId>,
    ) {
        match self.take_place(now, server, flow, incoming, replaces) {
            Ok(()) => self.figures.legs_in += 1,
            Err(refusal) => {
                let call = self.legs.get(&replaces.leg).map(|leg| leg.call);
                self.refuse_transfer(call.unwrap_or(CallId::from_u128(0)), refusal);
                self.refuse(now, server, &incoming.request, refusal.code());
            }
        }
    }

    fn take_place(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        incoming: &IncomingRequest,
        replaces: &Replaces<LegId>,
    ) -> Result<(), Refusal> {
        let old = self.legs.get(&replaces.leg).ok_or(NO_SUCH_CALL)?;
        let (id, key) = (old.call, old.key);
        let may = old
            .leg
            .may_be_replaced(&replaces.dialog, replaces.early_only);
        may.map_err(|code| Refusal::new("no_such_call", code))?;
        let call = self.calls.get(&id).ok_or(NO_SUCH_CALL)?;
        if !call.call.is_replaceable(key) {
            return Err(NO_SUCH_CALL);
        }
        let account = call.account;
        let rows = self.rows.get(&account).cloned().ok_or(NOT_ALLOWED)?;
        let heir = self.heir(flow, incoming, old, account).ok_or(NOT_ALLOWED)?;
        let parties = Parties {
            from: kept(call.ring.as_ref().and_then(|ring| ring.from.as_ref())),
            to: kept(call.ring.as_ref().and_then(|ring| ring.to.as_ref())),
            ..Parties::default()
        };
        let (begin, user) = match &heir {
            Heir::Desk(name) => {
                let phone = rows.phones.get(name).ok_or(NOT_ALLOWED)?;
                let begin = Begin {
                    credential: None,
                    capabilities: capabilities(&phone.codecs, true, phone.srtp),
                    quirks: Quirks::default(),
                };
                (begin, Some(phone.user.clone()))
            }
            Heir::Trunk(trunk) => {
                let row = rows.trunks.get(&trunk.1).ok_or(NOT_ALLOWED)?;
                let begin = Begin {
                    credential: super::outgoing::credential(row),
                    capabilities: capabilities_of(row),
                    quirks: outbound::quirks(row),
                };
                let full = self.trunks.on_call(now, trunk);
                full.map_err(|code| Refusal::new("trunk_limit", code))?;
                (begin, None)
            }
        };
        let Some((leg_id, leg)) = self.begin_incoming(now, server, flow, incoming, begin) else {
            if let Heir::Trunk(trunk) = &heir {
                self.trunks.on_call_over(trunk);
            }
            return Ok(()); // It has its answer.
        };
        let call = self.calls.get_mut(&id);
        let Some((new, actions)) = call.and_then(|call| call.call.replace(key)) else {
            self.sound.close(leg_id);
            return Err(NO_SUCH_CALL);
        };
        let mut sip = SipLeg::new(id, new, leg);
        match heir {
            Heir::Desk(name) => sip.desk = Some(name),
            Heir::Trunk(trunk) => sip.trunk = Some(trunk),
        }
        sip.way = Some(Sticky { flow, name: None });
        self.endpoint.insert(sip.leg.name().clone(), leg_id);
        self.legs.insert(leg_id, sip);
        self.invites.insert(server, leg_id);
        if let Some(call) = self.calls.get_mut(&id) {
            call.sides.insert(new, Side::Sip(leg_id));
            call.users.extend(user.clone().map(|user| (new, user)));
        }
        self.begin_record(now, leg_id, LegDirection::In, Parties { user, ..parties });
        self.order(now, id, new, Order::Answer);
        self.on_phone_answered(now, id, new);
        self.act_for_call(now, id, actions);
        Ok(())
    }

    /// Who sends an INVITE that takes the place of `old`, if it is of the same kind: a desk phone of the Account for a desk phone, a Trunk
    /// that may transfer for itself.
    fn heir(
        &self,
        flow: Flow,
        incoming: &IncomingRequest,
        old: &SipLeg,
        account: AccountId,
    ) -> Option<Heir> {
        let shown = self.strangers.shown(flow, &incoming.envelope.via);
        match (shown, &old.desk, &old.trunk) {
            (Some(Shown::Phone(of, name)), Some(_), _) if of == account => Some(Heir::Desk(name)),
            (Some(Shown::Trunk(shown)), None, Some(trunk)) if shown == *trunk => {
                self.may_transfer(trunk).then_some(Heir::Trunk(shown))
            }
            (None, None, Some(trunk)) => {
                let sends = self.trunks.of_source(flow.remote.ip()).contains(trunk);
                (sends && self.may_transfer(trunk)).then(|| Heir::Trunk(trunk.clone()))
            }
            _ => None,
        }
    }

    fn may_transfer(&self, trunk: &TrunkId) -> bool {
        let state = self.trunks.get(trunk);
        state.is_some_and(|state| state.row.transfers)
    }

    /// Whoever asks for a transfer, if they may.
    fn asker(&self, id: CallId, by: LegKey) -> Result<Asker, Refusal> {
        let call = self.calls.get(&id).ok_or(NO_SUCH_CALL)?;
        let leg = match call.sides.get(&by) {
            Some(Side::Sip(leg)) => self.legs.get(leg).ok_or(NO_SUCH_CALL)?,
            _ => return Err(NOT_ALLOWED),
        };
        let account = call.account;
        let rows = self.rows.get(&account).cloned().ok_or(NOT_ALLOWED)?;
        let user = match (&leg.desk, &leg.trunk) {
            (Some(name), _) => {
                let phone = rows.phones.get(name).ok_or(NOT_ALLOWED)?;
                Some(phone.user.clone())
            }
            (None, Some(trunk)) if self.may_transfer(trunk) => None,
            _ => return Err(NOT_ALLOWED),
        };
        Ok(Asker {
            account,
            rows,
            user,
        })
    }

    /// The number that a URI names: at a host of ours for a desk phone, which would dial it there.
    fn number_in(&self, asker: &Asker, target: &Uri) -> Option<String> {
        let is_ours = match target.sip() {
            Some(uri) => {
                let ours = self.strangers.is_domain(&uri.host);
                let here = uri.host.ip();
                ours || asker.user.is_none()
                    || here.is_some_and(|ip| self.doors.0.iter().any(|it| it.public.ip() == ip))
            }
            None => true,
        };
        let user = target.user().filter(|_| is_ours)?;
        Some(user.into_owned())
    }

    /// The User of a desk phone that was left out of a call that goes on talks no more.
    pub(super) fn on_desk_left(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get(&id).filter(|leg| leg.is_answered()) else {
            return;
        };
        let (Some(name), Some(call)) = (&leg.desk, self.calls.get_mut(&leg.call)) else {
            return;
        };
        let account = call.account;
        let rows = self.rows.get(&account);
        let phone = rows.and_then(|rows| rows.phones.get(name));
        let Some(user) = phone.map(|phone| phone.user.clone()) else {
            return;
        };
        if let Some(at) = call.talks.iter().position(|talks| *talks == user) {
            let (call, user) = (leg.call, call.talks.remove(at));
            self.leave_queues(now, call, account, None, vec![user]);
        }
    }

    /// Whether a Leg that is over keeps its place in the Room of a User whom it has transferred, until somebody takes it.
    pub(super) fn keeps_place(&self, leg: &SipLeg) -> bool {
        let call = self.calls.get(&leg.call);
        leg.seat.is_some() && call.is_some_and(|call| call.call.has_asked(leg.key))
    }

    /// The Leg of a call that is heard in this place, if there is one.
    pub(super) fn heard_in(
        &self,
        id: CallId,
        place: model::phone::PhonePlace,
        except: LegId,
    ) -> Option<LegId> {
        let sides = self.calls.get(&id)?.sides.values();
        let mut phones = sides.filter_map(|side| match side {
            Side::Sip(leg) => Some(*leg),
            Side::User(_) => None,
        });
        phones.find(|leg| {
            let is_here = |leg: &SipLeg| leg.has_sound && leg.seat == Some(place);
            *leg != except && self.legs.get(leg).is_some_and(is_here)
        })
    }

    /// Gives the place of a Leg to another.
    pub(super) fn hand_over(&mut self, from: LegId, to: LegId) {
        self.sound.hand_over(from, to);
        let Some(old) = self.legs.get_mut(&from) else {
            return;
        };
        old.heir = Some(to);
        let seat = old.seat.take();
        if old.leg.is_over() {
            self.close_sound(from);
        }
        if let Some(leg) = self.legs.get_mut(&to) {
            leg.seat = seat;
        }
    }

    /// Closes the media of a Leg, if it is open.
    pub(super) fn close_sound(&mut self, id: LegId) {
        let leg = self.legs.get_mut(&id);
        if leg.is_some_and(|leg| std::mem::take(&mut leg.has_sound)) {
            self.sound.close(id);
        }
    }

    /// Closes what was kept open for somebody who never came.
    pub(super) fn close_kept(&mut self, sides: impl IntoIterator<Item = Side>) {
        for side in sides {
            if let Side::Sip(id) = side
                && self.legs.get(&id).is_some_and(|leg| leg.leg.is_over())
            {
                self.close_sound(id);
            }
        }
    }
}

/// Leaves of those who are rung the desk phones: two people in browsers are signaling's to connect.
fn keep_phones(lead: &mut Lead) -> Result<(), Refusal> {
    let has_phones = match lead {
        Lead::Ring(targets, _) => {
            targets.retain(|target| !matches!(target, Target::User(_)));
            !targets.is_empty()
        }
        _ => matches!(lead, Lead::Out(..)),
    };
    has_phones.then_some(()).ok_or(BROWSERS)
}

impl Invitation {
    /// Of a call that nobody was invited to.
    fn nobody() -> Self {
        Self {
            from: None,
            name: None,
            to: None,
            ring: Duration::ZERO,
        }
    }
}
