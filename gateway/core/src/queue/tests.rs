use super::*;

struct Story {
    queue: Queue<u32>,
    all: Telephony,
    now: Instant,
    done: Vec<String>,
}

impl Story {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can't be made from a number; only differences to it are seen"
    )]
    fn new(row: &str) -> Self {
        let text = format!(
            r#"{{"queues": {{"q": {{"members": ["a", "b", "c"], "nobody_answers": "busy", {row}}}}},
                "users": {{"quiet": {{"do_not_disturb": true}}}}}}"#
        );
        Self {
            queue: Queue::default(),
            all: serde_json::from_str(&text).expect("rows"),
            now: Instant::now(),
            done: Vec::new(),
        }
    }

    fn row(&mut self) -> &mut rows::Queue {
        self.all.queues.values_mut().next().expect("it is there")
    }

    fn step(&mut self, event: Event<u32>) -> &mut Self {
        let row = self.all.queues.values().next().expect("it is there");
        for action in self.queue.step(self.now, &self.all, row, event) {
            let names = |users: &[UserId]| {
                let names: Vec<_> = users.iter().map(UserId::to_string).collect();
                names.join("")
            };
            self.done.push(match action {
                Action::Ring(caller, users) => format!("{caller} rings {}", names(&users)),
                Action::Stop(caller, users) => format!("{caller} stops {}", names(&users)),
                Action::Position(caller, position) => format!("{caller} is {position}"),
                Action::GiveUp(caller) => format!("{caller} gives up"),
            });
        }
        self
    }

    fn join(&mut self, caller: u32) -> &mut Self {
        self.step(Event::Join(caller))
    }

    fn answered(&mut self, name: &str) -> &mut Self {
        self.step(Event::Answered(user(name)))
    }

    fn declined(&mut self, name: &str) -> &mut Self {
        self.step(Event::Unanswered(user(name), Unanswered::Declined))
    }

    fn offline(&mut self, name: &str) -> &mut Self {
        self.step(Event::Unanswered(user(name), Unanswered::Offline))
    }

    fn free(&mut self, name: &str) -> &mut Self {
        self.step(Event::Free(user(name)))
    }

    fn wait(&mut self, seconds: u64) -> &mut Self {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.queue.poll_timeout().filter(|at| *at <= until) {
            assert!(at >= self.now, "what is due was done");
            self.now = at;
            self.step(Event::Timeout);
            assert!(self.queue.poll_timeout().is_none_or(|next| next > at));
        }
        self.now = until;
        self
    }

    fn done(&mut self) -> String {
        std::mem::take(&mut self.done).join(", ")
    }
}

fn user(name: &str) -> UserId {
    name.parse().expect("a user")
}

#[test]
fn evenly_rings_whoever_has_waited_longest_for_a_call() {
    let mut t = Story::new(r#""strategy": "evenly""#);
    t.join(1).answered("a").join(2).answered("b");
    t.free("a").join(3);
    assert_eq!(t.done(), "1 rings a, 2 rings b, 3 rings c");
    t.answered("c").free("b").join(4);
    assert_eq!(t.done(), "4 rings a", "b's call came after a's");
    t.answered("a").join(5);
    assert_eq!(t.done(), "5 rings b");
    t.wait(20);
    assert_eq!(t.done(), "5 stops b", "a and c talk");
    t.wait(5);
    assert_eq!(t.done(), "5 rings b");
}

#[test]
fn in_order_begins_at_the_top_each_time() {
    let mut t = Story::new(r#""strategy": "in_order", "ring_seconds": 10"#);
    t.join(1).declined("a");
    assert_eq!(t.done(), "1 rings a, 1 rings b");
    t.wait(10).answered("c");
    assert_eq!(t.done(), "1 stops b, 1 rings c");
    t.join(2).answered("a").free("a").join(3);
    assert_eq!(t.done(), "2 rings a, 3 rings a");
}

#[test]
fn everybody_rings_at_once_for_one_caller_at_a_time() {
    let mut t = Story::new(r#""strategy": "everybody", "ring_seconds": 10"#);
    t.join(1).join(2);
    assert_eq!(t.done(), "1 rings abc");
    t.declined("b");
    assert_eq!(t.done(), "2 rings b");
    t.answered("c");
    assert_eq!(t.done(), "1 stops a");
    assert_eq!(t.queue.len(), 1);
    t.wait(10);
    assert_eq!(t.done(), "2 stops b, 2 rings a");
}

#[test]
fn who_has_waited_longest_is_served_first() {
    let mut t = Story::new(r#""strategy": "in_order", "wait_seconds": 600"#);
    for name in ["a", "b", "c"] {
        t.step(Event::Talks(user(name)));
    }
    t.join(1).join(2).join(3);
    assert_eq!(t.done(), "");
    t.step(Event::Leave(1)).free("b");
    assert_eq!(t.done(), "2 rings b");
    t.answered("b").free("c");
    assert_eq!(t.done(), "3 rings c");
    t.step(Event::Leave(3)).free("c");
    assert_eq!(t.done(), "3 stops c");
    assert!(t.queue.is_empty() && t.queue.poll_timeout().is_none());
}

#[test]
fn a_member_is_left_alone_after_a_call() {
    let mut t = Story::new(r#""rest_seconds": 30"#);
    t.row().members.truncate(1);
    t.join(1).answered("a").free("a").join(2);
    assert_eq!(t.done(), "1 rings a");
    t.wait(29);
    assert_eq!(t.done(), "");
    t.wait(1);
    assert_eq!(t.done(), "2 rings a");
}

#[test]
fn nobody_answers_in_time_or_nobody_is_there() {
    let mut t = Story::new(r#""wait_seconds": 60, "ring_seconds": 50"#);
    t.join(1).wait(60);
    assert_eq!(
        t.done(),
        "1 rings a, 1 stops a, 1 rings b, 1 stops b, 1 gives up"
    );
    // Nothing of anybody is there.
    let mut t = Story::new(r#""strategy": "everybody""#);
    t.join(1).offline("a").offline("b");
    assert_eq!(t.done(), "1 rings abc");
    t.offline("c").join(2);
    assert_eq!(t.done(), "1 gives up, 2 gives up");
    t.wait(30).join(3);
    assert_eq!(t.done(), "3 rings abc", "they may be back");
    // None wants to be disturbed.
    let mut t = Story::new(r#""wait_seconds": 60"#);
    t.row().members = vec![user("quiet")];
    t.join(1);
    assert_eq!(t.done(), "1 gives up");
}

#[test]
fn who_is_away_is_rung_where_the_row_says_so() {
    let mut t = Story::new(r#""strategy": "in_order""#);
    t.join(1).declined("a").step(Event::Leave(1));
    t.done();
    t.step(Event::Away(user("a"), true)).join(2);
    assert_eq!(t.done(), "2 rings b");
    t.row().ring_away = true;
    t.join(3);
    assert_eq!(t.done(), "3 rings a");
}

#[test]
fn callers_hear_their_place_and_a_crowd_has_a_bound() {
    let mut t = Story::new(r#""position_seconds": 15, "waiting_max": 2, "ring_seconds": 100"#);
    t.row().members.truncate(1);
    t.join(1).join(1).wait(5).join(2).join(3);
    assert_eq!(t.done(), "1 rings a, 3 gives up");
    t.wait(15);
    assert_eq!(t.done(), "1 is 1, 2 is 2");
    t.step(Event::Leave(1)).wait(15);
    assert_eq!(t.done(), "1 stops a, 2 rings a, 2 is 1");
}

#[test]
fn members_come_and_go_while_callers_wait() {
    let mut t = Story::new(r#""strategy": "in_order""#);
    t.join(1);
    t.row().members = vec![user("d")];
    t.declined("a");
    assert_eq!(t.done(), "1 rings a, 1 rings d");
    assert_eq!(t.queue.members.len(), 2);
    t.answered("d");
    assert_eq!(t.queue.members.len(), 1);
}

#[test]
fn whatever_happens_nobody_is_rung_twice_at_once_and_nobody_is_forgotten() {
    use sim::Rng;
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut below = move |end: u64| rng.bits() % end;
        let strategy =
            ["evenly", "in_order", "everybody"][usize::try_from(seed % 3).expect("three")];
        let mut t = Story::new(&format!(r#""strategy": "{strategy}", "rest_seconds": 3"#));
        let (mut joined, mut rung) = (0, BTreeMap::<String, u32>::new());
        let (mut waiting, mut talking) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            let names: Vec<_> = rung.keys().cloned().collect();
            let pick = |below: u64, len: usize| usize::try_from(below).expect("small") % len.max(1);
            match below(6) {
                0 | 1 => {
                    joined += 1;
                    waiting.push(joined);
                    t.join(joined);
                }
                2 if !names.is_empty() => {
                    let name = &names[pick(below(100), names.len())];
                    let caller = rung[name];
                    rung.remove(name);
                    rung.retain(|_, of| *of != caller);
                    waiting.retain(|of| *of != caller);
                    talking.push(name.clone());
                    // Those who stop are seen below, too: their names are gone by then.
                    t.answered(name);
                }
                3 if !names.is_empty() => {
                    let name = &names[pick(below(100), names.len())];
                    rung.remove(name);
                    t.declined(name);
                }
                4 if !talking.is_empty() => {
                    let name = talking.swap_remove(pick(below(100), talking.len()));
                    t.free(&name);
                }
                _ => {
                    let seconds = below(15);
                    t.wait(seconds);
                }
            }
            for line in std::mem::take(&mut t.done) {
                let words: Vec<_> = line.split(' ').collect();
                let caller: u32 = words[0].parse().expect("a caller");
                for name in words.get(2).copied().unwrap_or_default().chars() {
                    let name = name.to_string();
                    if words[1] == "rings" {
                        assert!(!talking.contains(&name), "seed {seed}: {line}");
                        assert_eq!(rung.insert(name, caller), None, "seed {seed}: {line}");
                    } else {
                        rung.remove(&name);
                    }
                }
                if line.ends_with("gives up") {
                    assert!(waiting.contains(&caller), "seed {seed}: {line}");
                    waiting.retain(|of| *of != caller);
                }
            }
            assert_eq!(t.queue.len(), waiting.len(), "seed {seed}");
        }
        t.wait(120);
        assert!(t.queue.is_empty(), "seed {seed}: all are led on in the end");
    }
}
