//! Keys that callers press: Menus with choices and extensions, and PINs of Rooms.
//!
//! ```text
//! keys, the end of what is played, time ─▶ Menu::step ─▶ Play, Hush, Go
//!                                          PinEntry::step ─▶ Ask, Again, Enter, GiveUp
//! ```

use std::time::{Duration, Instant};

use model::phone::rows::{self, Destination, EXTENSION_LEN_MAX, Line, MenuKey, RowName, Telephony};

/// The most digits of a PIN that are kept.
pub const PIN_LEN_MAX: usize = 12;
/// How often a caller may try a PIN.
pub const PIN_TRIES_MAX: u8 = 3;
/// How long a caller has for the first digit of a PIN, and how long for each after it.
const PIN_WAIT: Duration = Duration::from_secs(15);
const PIN_KEY_WAIT: Duration = Duration::from_secs(5);

/// What happens to one who hears a Menu or is asked for a PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A key was pressed: `0` to `9`, `*`, `#`, `A` to `D`.
    Key(char),
    /// What was played has come to its end.
    Played,
    /// The time of `poll_timeout` has come.
    Timeout,
}

/// What a Menu wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Play these prompts, one after the other; then [`Event::Played`].
    Play(Vec<RowName>),
    /// Stop playing: a key was pressed.
    Hush,
    /// The caller goes there. Nothing follows.
    Go(Destination),
}

/// One caller in a Menu.
#[derive(Debug)]
pub struct Menu {
    keys: String,
    /// How often the prompt was begun.
    times: u16,
    playing: bool,
    until: Option<Instant>,
    over: bool,
}

impl Menu {
    /// A caller comes, and hears the prompt.
    #[must_use]
    pub fn new(row: &rows::Menu) -> (Self, Vec<Action>) {
        let menu = Self {
            keys: String::new(),
            times: 1,
            playing: true,
            until: None,
            over: false,
        };
        (menu, vec![Action::Play(vec![row.prompt.clone()])])
    }

    /// When [`Event::Timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Something happens. `row` is the Menu, `all` what it is part of.
    pub fn step(
        &mut self,
        now: Instant,
        all: &Telephony,
        row: &rows::Menu,
        event: Event,
    ) -> Vec<Action> {
        if self.over {
            return Vec::new();
        }
        match event {
            Event::Key(key) => {
                let mut actions = Vec::new();
                if std::mem::take(&mut self.playing) {
                    actions.push(Action::Hush);
                }
                actions.extend(self.on_key(now, all, row, key));
                actions
            }
            Event::Played => {
                self.playing = false;
                let wait = Duration::from_secs(row.wait_seconds.into());
                self.until = self.keys.is_empty().then(|| now + wait).or(self.until);
                Vec::new()
            }
            Event::Timeout if self.until.is_some_and(|until| until <= now) => {
                self.until = None;
                vec![self.conclude(all, row)]
            }
            Event::Timeout => Vec::new(),
        }
    }

    fn on_key(
        &mut self,
        now: Instant,
        all: &Telephony,
        row: &rows::Menu,
        key: char,
    ) -> Option<Action> {
        // It ends an extension, where it is nothing else.
        if key == '#' && !self.keys.is_empty() {
            return Some(self.conclude(all, row));
        }
        self.keys.push(key);
        let may_go_on = row.extensions
            && self.keys.len() < EXTENSION_LEN_MAX
            && all.numbers.keys().any(|line| match line {
                Line::Extension(extension) => {
                    let text = extension.as_str();
                    text.len() > self.keys.len() && text.starts_with(&self.keys)
                }
                Line::Number(_) => false,
            });
        if may_go_on {
            self.until = Some(now + Duration::from_secs(row.key_seconds.into()));
            return None;
        }
        Some(self.conclude(all, row))
    }

    /// Goes where the keys lead; else the prompt again, while there are times left.
    fn conclude(&mut self, all: &Telephony, row: &rows::Menu) -> Action {
        self.until = None;
        let keys = std::mem::take(&mut self.keys);
        if let Some(to) = chosen(all, row, &keys) {
            return self.go(to);
        }
        if self.times >= row.times {
            return self.go(row.otherwise.clone());
        }
        self.times += 1;
        self.playing = true;
        let wrong = row.wrong_key.clone().filter(|_| !keys.is_empty());
        Action::Play(wrong.into_iter().chain([row.prompt.clone()]).collect())
    }

    fn go(&mut self, to: Destination) -> Action {
        self.over = true;
        Action::Go(to)
    }
}

/// What these keys lead to: a choice before an extension.
fn chosen(all: &Telephony, row: &rows::Menu, keys: &str) -> Option<Destination> {
    let choice = keys.parse::<MenuKey>().ok();
    if let Some(to) = choice.and_then(|key| row.choices.get(&key)) {
        return Some(to.clone());
    }
    let extension = keys.parse().ok().filter(|_| row.extensions)?;
    let line = Line::Extension(extension);
    match line {
        Line::Extension(ref extension) if all.numbers.contains_key(&line) => {
            Some(Destination::Extension(extension.clone()))
        }
        _ => None,
    }
}

/// What is wanted of one who is asked for a PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinAction {
    /// Ask for it; then [`Event::Played`].
    Ask,
    /// Say that it was wrong, and ask again; then [`Event::Played`].
    Again,
    /// Stop playing: a key was pressed.
    Hush,
    /// The caller joins the Room of this row. Nothing follows.
    Enter(RowName),
    /// There were too many tries. Nothing follows.
    GiveUp,
}

/// One caller who is asked for a PIN. It is looked at when `#` is pressed, when no key follows for a while, or when it is as long as
/// PINs get: how long it has to be does not show.
#[derive(Debug)]
pub struct PinEntry {
    /// The row that is meant; any where not told.
    of: Option<RowName>,
    keys: zeroize::Zeroizing<String>,
    tries: u8,
    playing: bool,
    until: Option<Instant>,
    over: bool,
}

impl PinEntry {
    /// A caller comes, and is asked.
    #[must_use]
    pub fn new(of: Option<RowName>) -> (Self, Vec<PinAction>) {
        let entry = Self {
            of,
            keys: String::with_capacity(PIN_LEN_MAX).into(),
            tries: 0,
            playing: true,
            until: None,
            over: false,
        };
        (entry, vec![PinAction::Ask])
    }

    /// When [`Event::Timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Something happens.
    pub fn step(&mut self, now: Instant, all: &Telephony, event: Event) -> Vec<PinAction> {
        if self.over {
            return Vec::new();
        }
        let mut actions = Vec::new();
        let conclude = match event {
            Event::Key(key) => {
                if std::mem::take(&mut self.playing) {
                    actions.push(PinAction::Hush);
                }
                self.until = Some(now + PIN_KEY_WAIT);
                if key != '#' {
                    self.keys.push(key);
                }
                key == '#' || self.keys.len() >= PIN_LEN_MAX
            }
            Event::Played => {
                self.playing = false;
                self.until = self.until.or(Some(now + PIN_WAIT));
                false
            }
            Event::Timeout => self.until.is_some_and(|until| until <= now),
        };
        if conclude {
            actions.push(self.conclude(all));
        }
        actions
    }

    fn conclude(&mut self, all: &Telephony) -> PinAction {
        self.until = None;
        let keys = std::mem::take(&mut *self.keys);
        let keys = zeroize::Zeroizing::new(keys);
        self.keys.reserve(PIN_LEN_MAX);
        // All are looked at, whichever it is.
        let mut found = None;
        for (name, row) in &all.pins {
            let wanted = self.of.as_ref().is_none_or(|of| of == name);
            let is = row
                .pin
                .as_ref()
                .is_some_and(|pin| is_same(pin.reveal(), &keys));
            if wanted && is {
                found = Some(name.clone());
            }
        }
        if let Some(name) = found {
            self.over = true;
            return PinAction::Enter(name);
        }
        self.tries += 1;
        if self.tries >= PIN_TRIES_MAX {
            self.over = true;
            return PinAction::GiveUp;
        }
        self.playing = true;
        PinAction::Again
    }
}

/// Compares without telling by its time where two texts of one length differ.
fn is_same(one: &str, other: &str) -> bool {
    let differ = one
        .bytes()
        .zip(other.bytes())
        .fold(0, |differ, (one, other)| differ | (one ^ other));
    one.len() == other.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::phone::rows::Secret;

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can't be made from a number; only differences to it are seen"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn all() -> Telephony {
        let text = r##"{
            "menus": {
                "main": {"prompt": "welcome", "wrong_key": "sorry", "extensions": true, "times": 2, "choices":
                    {"1": {"queue": "sales"}, "4": {"user": "anna"}, "#": "conference", "*": "busy"}, "otherwise": "hang_up"},
                "plain": {"prompt": "welcome", "choices": {"1": "busy"}, "otherwise": "hang_up"}
            },
            "numbers": {"42": {"to": "busy"}, "4242": {"to": "busy"}, "7": {"to": "busy"}, "+4942123456": {"to": "busy"}},
            "pins": {"a": {"room": "a"}, "b": {"room": "b"}}
        }"##;
        let mut all: Telephony = serde_json::from_str(text).expect("rows");
        for (name, pin) in [("a", "1234"), ("b", "123456789012")] {
            let row = all.pins.get_mut(&name.parse().expect("a name"));
            row.expect("it is there").pin = Some(Secret::new(pin).expect("a secret"));
        }
        all
    }

    /// What a Menu does when `script` happens: keys, `.` for the end of what is played, `~` for waiting as long as it wants.
    fn play(name: &str, script: &str) -> String {
        let (all, mut now) = (all(), start());
        let row = &all.menus[&name.parse().expect("a name")];
        let (mut menu, mut actions) = Menu::new(row);
        for next in script.chars() {
            let event = match next {
                '.' => Event::Played,
                '~' => {
                    now = menu.poll_timeout().expect("something is waited for");
                    Event::Timeout
                }
                key => Event::Key(key),
            };
            actions.extend(menu.step(now, &all, row, event));
        }
        let line = |action: &Action| match action {
            Action::Play(prompts) => {
                let names: Vec<_> = prompts.iter().map(RowName::as_str).collect();
                names.join("+")
            }
            Action::Hush => "hush".into(),
            Action::Go(to) => format!("{to:?}"),
        };
        let lines: Vec<_> = actions.iter().map(line).collect();
        lines.join(", ")
    }

    #[test]
    fn keys_lead_to_choices_and_extensions() {
        for (script, expected) in [
            (".1", "welcome, Queue(\"sales\")"),
            ("1", "welcome, hush, Queue(\"sales\")"),
            ("7", "welcome, hush, Extension(\"7\")"),
            // 4 is a choice, and begins 42 and 4242.
            (".4~", "welcome, User(\"anna\")"),
            (".4#", "welcome, User(\"anna\")"),
            (".42~", "welcome, Extension(\"42\")"),
            (".42#", "welcome, Extension(\"42\")"),
            (".4242", "welcome, Extension(\"4242\")"),
            ("4.2~", "welcome, hush, Extension(\"42\")"),
            (".#", "welcome, Conference"),
            (".*", "welcome, Busy"),
            // What leads nowhere is said, and the prompt comes again, as often as the row says.
            (".9", "welcome, sorry+welcome"),
            (".43", "welcome, sorry+welcome"),
            (".424~", "welcome, sorry+welcome"),
            (".A", "welcome, sorry+welcome"),
            (".~", "welcome, welcome"),
            (".~.~", "welcome, welcome, HangUp"),
            (".9.91", "welcome, sorry+welcome, HangUp"),
            (".9.1", "welcome, sorry+welcome, Queue(\"sales\")"),
        ] {
            assert_eq!(play("main", script), expected, "{script}");
        }
        assert_eq!(
            play("plain", ".7"),
            "welcome, welcome",
            "no extensions there"
        );
    }

    fn enter(of: Option<&str>, script: &str) -> String {
        let (all, mut now) = (all(), start());
        let (mut entry, mut actions) = PinEntry::new(of.map(|of| of.parse().expect("a name")));
        for next in script.chars() {
            let event = match next {
                '.' => Event::Played,
                '~' => {
                    now = entry.poll_timeout().expect("something is waited for");
                    Event::Timeout
                }
                key => Event::Key(key),
            };
            actions.extend(entry.step(now, &all, event));
        }
        let lines: Vec<_> = actions.iter().map(|action| format!("{action:?}")).collect();
        lines.join(", ")
    }

    #[test]
    fn a_pin_opens_its_room_and_guessing_ends() {
        for (of, script, expected) in [
            (None, ".1234#", "Ask, Enter(\"a\")"),
            (None, ".1234~", "Ask, Enter(\"a\")"),
            (None, "1234#", "Ask, Hush, Enter(\"a\")"),
            (None, ".123456789012", "Ask, Enter(\"b\")"),
            (Some("b"), ".1234#", "Ask, Again"),
            (Some("b"), ".1234#.123456789012", "Ask, Again, Enter(\"b\")"),
            (None, ".12#.#.~1234#", "Ask, Again, Again, GiveUp"),
            (None, ".~.~.~", "Ask, Again, Again, GiveUp"),
        ] {
            assert_eq!(enter(of, script), expected, "{script}");
        }
    }
}
