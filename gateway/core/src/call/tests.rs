use super::*;
use gateway_sip::negotiate::{Agreed, Codec, Keys};
use gateway_sip::sdp::Direction;

struct Story {
    call: Call,
    now: Instant,
    /// What was to be done since the last look, a line each.
    done: Vec<String>,
}

impl Story {
    fn new(groups: &[&[u32]]) -> Self {
        Self::begin(groups, Call::new)
    }

    /// One that is led.
    fn led(groups: &[&[u32]]) -> Self {
        Self::begin(groups, Call::led)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can't be made from a number; only differences to it are seen"
    )]
    fn begin(groups: &[&[u32]], begin: fn(Instant, Vec<Group>) -> (Call, Vec<Action>)) -> Self {
        let now = Instant::now();
        let (call, actions) = begin(now, plan(groups));
        let mut story = Self {
            call,
            now,
            done: Vec::new(),
        };
        story.note(actions);
        story
    }

    fn talking() -> Self {
        let mut story = Self::new(&[&[7]]);
        story.told(1, Told::Answered);
        story.done.clear();
        story
    }

    fn step(&mut self, event: Event) -> &mut Self {
        let actions = self.call.step(self.now, event);
        self.note(actions);
        self
    }

    fn told(&mut self, leg: u32, told: Told) -> &mut Self {
        self.step(Event::Told {
            leg: LegKey(leg),
            told,
        })
    }

    fn ended(&mut self, leg: u32, code: u16) -> &mut Self {
        let code = StatusCode::new(code).expect("a code");
        self.told(
            leg,
            Told::Ended(Ended {
                code,
                cause: None,
                why: Why::Remote,
            }),
        )
    }

    fn refer(&mut self, leg: u32) -> &mut Self {
        let target = Box::new(Uri::parse("tel:+1555").expect("a URI"));
        self.told(
            leg,
            Told::Refer {
                target,
                replaces: None,
            },
        )
    }

    /// A Leg from outside takes the place of `leg`; which one it is then.
    fn replace(&mut self, leg: u32) -> Option<u32> {
        let (new, actions) = self.call.replace(LegKey(leg))?;
        self.note(actions);
        Some(new.0)
    }

    fn wait(&mut self) -> &mut Self {
        self.now = self.call.poll_timeout().expect("something is waited for");
        self.step(Event::Timeout)
    }

    fn note(&mut self, actions: Vec<Action>) {
        let line = |action| match action {
            Action::Order {
                leg,
                order: Order::End { code, .. },
            } => format!("{} ends {code}", leg.0),
            Action::Order {
                leg,
                order: Order::ReferProgress(code),
            } => format!("{} hears {code}", leg.0),
            Action::Order { leg, order } => format!("{} {order:?}", leg.0),
            Action::Call { leg, target } => format!("{} calls {target}", leg.0),
            Action::Bridge(a, b) => format!("{} with {}", a.0, b.0),
            Action::Ringback(leg) => format!("{} ringback", leg.0),
            Action::Music { leg, on } => format!("{} music {on}", leg.0),
            Action::Transfer { by, target, .. } => format!("{} wants {target}", by.0),
            Action::Key { leg, key } => format!("{} key {key}", leg.0),
            Action::Lead(ended) => format!("lead {}", ended.code),
            Action::Over(ended) => format!("over {}", ended.code),
        };
        self.done.extend(actions.into_iter().map(line));
    }

    /// What was done since the last look.
    fn done(&mut self) -> String {
        std::mem::take(&mut self.done).join(", ")
    }
}

fn plan(groups: &[&[u32]]) -> Vec<Group> {
    let group = |targets: &&[u32]| Group {
        targets: targets.to_vec(),
        ring: Duration::from_secs(20),
    };
    groups.iter().map(group).collect()
}

fn media(direction: Direction) -> Told {
    let remote = "192.0.2.1:4000".parse().expect("an address");
    Told::Media(Box::new(Agreed {
        remote,
        remote_rtcp: remote,
        codec: Codec::Pcma,
        payload_type: 8,
        receiving: vec![(8, Codec::Pcma)],
        dtmf: None,
        comfort_noise: false,
        direction,
        packet_ms: 20,
        keys: Keys::None,
    }))
}

const RINGING: Told = Told::Progress(StatusCode::RINGING);

#[test]
fn the_first_to_answer_is_it_and_the_others_stop_ringing() {
    let mut t = Story::new(&[&[7, 8, 9]]);
    assert_eq!(t.done(), "1 calls 7, 2 calls 8, 3 calls 9");
    t.told(1, RINGING).told(2, RINGING);
    assert_eq!(t.done(), "0 Ring");
    t.told(2, Told::Answered);
    assert_eq!(t.done(), "1 ends 487, 3 ends 487, 0 Answer, 0 with 2");
    // What comes of the others is of no interest any more.
    t.ended(1, 487).told(3, Told::Answered);
    assert_eq!(t.done(), "");
    t.told(0, Told::Key('5'));
    assert_eq!(t.done(), "2 key 5");
    t.ended(2, 200);
    assert_eq!(t.done(), "0 ends 480, over 200");
    t.ended(0, 200);
    assert_eq!(t.done(), "");
}

#[test]
fn early_media_is_heard_from_one_and_not_from_many() {
    let mut t = Story::new(&[&[7]]);
    t.told(1, media(Direction::SendRecv))
        .told(1, Told::Progress(StatusCode::SESSION_PROGRESS));
    t.told(1, Told::Answered);
    assert_eq!(t.done(), "1 calls 7, 0 Progress, 0 with 1, 0 Answer");

    let mut t = Story::new(&[&[7, 8]]);
    t.told(1, media(Direction::SendRecv))
        .told(1, Told::Progress(StatusCode::SESSION_PROGRESS));
    assert_eq!(t.done(), "1 calls 7, 2 calls 8, 0 Ring");
}

#[test]
fn nobody_there_rings_the_next_and_ends_with_the_best_answer() {
    let mut t = Story::new(&[&[7, 8], &[], &[9]]);
    t.done();
    t.ended(1, 486);
    assert_eq!(t.done(), "");
    t.wait();
    assert_eq!(t.done(), "2 ends 487, 3 calls 9");
    t.told(3, Told::Redirected(Vec::new()));
    assert_eq!(t.done(), "0 ends 486, over 486");

    let mut t = Story::new(&[]);
    assert_eq!(t.done(), "0 ends 480, over 480");
}

#[test]
fn one_who_declines_for_all_ends_it() {
    let mut t = Story::new(&[&[7, 8], &[9]]);
    t.done();
    t.ended(1, 603);
    assert_eq!(t.done(), "2 ends 487, 0 ends 603, over 603");
}

#[test]
fn a_caller_who_hangs_up_stops_the_ringing() {
    let mut t = Story::new(&[&[7, 8]]);
    t.done();
    t.ended(0, 487);
    assert_eq!(t.done(), "1 ends 487, 2 ends 487, over 487");
}

#[test]
fn who_is_held_hears_music() {
    let mut t = Story::talking();
    t.told(1, media(Direction::RecvOnly));
    assert_eq!(t.done(), "0 music false");
    t.told(1, media(Direction::Inactive))
        .told(1, media(Direction::SendRecv));
    assert_eq!(t.done(), "0 music true, 0 music false");
}

#[test]
fn a_transfer_connects_those_who_stay() {
    let mut t = Story::talking();
    t.refer(1);
    assert_eq!(t.done(), "1 wants tel:+1555");
    t.step(Event::Transfer(plan(&[&[9]])));
    t.told(2, RINGING).told(2, Told::Answered);
    assert_eq!(
        t.done(),
        "2 calls 9, 1 hears 180, 0 with 2, 1 hears 200, 1 ends 200"
    );
    t.ended(1, 200);
    assert_eq!(t.done(), "");
    t.ended(2, 200);
    assert_eq!(t.done(), "0 ends 480, over 200");
}

#[test]
fn a_transfer_by_the_caller_keeps_the_called() {
    let mut t = Story::talking();
    t.refer(0).step(Event::Transfer(plan(&[&[9]])));
    t.ended(0, 200);
    assert_eq!(t.done(), "0 wants tel:+1555, 2 calls 9, 1 ringback");
    t.told(2, Told::Answered);
    assert_eq!(t.done(), "1 with 2");
    t.ended(1, 200);
    assert_eq!(t.done(), "2 ends 480, over 200");
}

#[test]
fn a_transfer_that_fails_leaves_things_as_they_were() {
    let mut t = Story::talking();
    t.refer(1)
        .step(Event::Transfer(plan(&[&[9]])))
        .ended(2, 486);
    assert_eq!(t.done(), "1 wants tel:+1555, 2 calls 9, lead 486");
    t.step(Event::Lead(Vec::new()));
    assert_eq!(t.done(), "1 hears 486");
    t.refer(1)
        .step(Event::RefuseTransfer(StatusCode::FORBIDDEN));
    assert_eq!(t.done(), "1 wants tel:+1555, 1 hears 403");
    // Who asked is gone, and nobody answers: there is nobody left to talk to.
    t.refer(1)
        .step(Event::Transfer(plan(&[&[9]])))
        .ended(1, 200);
    t.wait().step(Event::Lead(Vec::new()));
    assert_eq!(
        t.done(),
        "1 wants tel:+1555, 3 calls 9, 0 ringback, 3 ends 487, lead 480, 0 ends 480, over 480"
    );
}

#[test]
fn a_transfer_goes_where_it_is_led_and_is_done_where_nobody_has_to_answer() {
    let mut t = Story::talking();
    t.refer(1).step(Event::Transfer(plan(&[&[9]])));
    t.ended(2, 480).step(Event::Lead(plan(&[&[10]])));
    t.told(3, RINGING)
        .step(Event::Refuse(StatusCode::FORBIDDEN));
    assert_eq!(
        t.done(),
        "1 wants tel:+1555, 2 calls 9, lead 480, 3 calls 10, 1 hears 180, 3 ends 487, 1 hears 403"
    );
    t.refer(1)
        .step(Event::Transfer(Vec::new()))
        .step(Event::TakeUp);
    assert_eq!(
        t.done(),
        "1 wants tel:+1555, lead 480, 1 hears 200, 1 ends 200"
    );
    t.ended(1, 200);
    t.step(Event::Lead(plan(&[&[11]]))).told(4, Told::Answered);
    assert_eq!(t.done(), "4 calls 11, 0 with 4");
}

#[test]
fn a_leg_takes_the_place_of_one_that_talks_or_rings() {
    let mut t = Story::talking();
    assert_eq!(t.call.partner(LegKey(1)), Some(CALLER));
    assert_eq!(t.replace(1), Some(2));
    assert_eq!(t.done(), "0 with 2, 1 ends 200");
    assert_eq!(t.replace(0), Some(3));
    assert_eq!(t.done(), "2 with 3, 0 ends 200");
    assert_eq!(t.replace(1), None, "it is gone");
    t.ended(1, 200).ended(0, 200);
    assert_eq!(t.done(), "");
    t.refer(3);
    assert_eq!(t.replace(3), Some(4));
    assert_eq!(
        t.done(),
        "3 wants tel:+1555, 2 with 4, 3 hears 200, 3 ends 200"
    );
    t.ended(4, 200);
    assert_eq!(t.done(), "2 ends 480, over 200");
    assert_eq!(t.replace(2), None, "it is over");

    let mut t = Story::new(&[&[7, 8]]);
    t.told(1, media(Direction::SendRecv)).done();
    assert_eq!(t.replace(0), None, "it waits");
    assert_eq!(t.replace(2), Some(3));
    assert_eq!(t.done(), "2 ends 487, 1 ends 487, 0 Answer, 0 with 3");
    t.told(1, Told::Answered);
    assert_eq!(t.done(), "", "it was too late");
}

#[test]
fn a_leg_that_leaves_for_another_call_ends_this_one() {
    let mut t = Story::talking();
    t.refer(1).done();
    let actions = t.call.release(CALLER).expect("it talks");
    t.note(actions);
    assert_eq!(t.done(), "1 hears 200, 1 ends 200, over 200");
    assert!(t.call.release(CALLER).is_none(), "it is over");

    let mut t = Story::new(&[&[7]]);
    assert!(t.call.release(CALLER).is_none(), "nobody has answered");
}

#[test]
fn a_crowd_has_a_bound() {
    let many: Vec<u32> = (0..100).collect();
    let mut t = Story::new(&[&many]);
    assert_eq!(t.done().matches("calls").count(), RINGING_MAX);
}

#[test]
fn a_call_that_is_led_asks_where_it_goes_on() {
    let mut story = Story::led(&[&[7]]);
    assert_eq!(story.done(), "1 calls 7");
    assert_eq!(story.ended(1, 486).done(), "lead 486");
    story.step(Event::Lead(plan(&[&[8]])));
    assert_eq!(story.done(), "2 calls 8");
    story.told(2, RINGING);
    assert_eq!(story.done(), "0 Ring");
    assert_eq!(story.wait().done(), "2 ends 487, lead 486");
    story.step(Event::Lead(Vec::new()));
    assert_eq!(story.done(), "0 ends 486, over 486");

    let mut story = Story::led(&[&[7]]);
    story.ended(1, 480).done();
    story.step(Event::Refuse(StatusCode::BUSY_HERE));
    assert_eq!(story.done(), "0 ends 486, over 486");
}

#[test]
fn who_waits_in_a_queue_is_answered_first_and_hangs_up_at_any_time() {
    let mut story = Story::led(&[]);
    assert_eq!(story.done(), "lead 480");
    assert_eq!(story.step(Event::TakeUp).done(), "0 Answer");
    // The next is asked for while the last still rings.
    story.step(Event::Lead(plan(&[&[7]])));
    story.step(Event::Lead(plan(&[&[8]])));
    assert_eq!(story.done(), "1 calls 7");
    assert_eq!(story.ended(1, 480).done(), "2 calls 8");
    assert_eq!(story.told(2, Told::Answered).done(), "0 with 2");

    let mut story = Story::led(&[]);
    story.step(Event::TakeUp).done();
    assert_eq!(story.ended(0, 200).done(), "over 200");
}
