//! What the ordinary tests keep of fuzzing: every committed seed, and a bounded walk around the seeds.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::TARGETS;

/// Mutated inputs per target: seconds, not minutes. The search by the clock is `./check long`.
const MUTATIONS: usize = 50_000;

/// Of those that make a WebRTC peer or coders of sound for each input.
const MUTATIONS_SLOW: usize = 5_000;

#[test]
fn every_seed_is_survived() {
    for (name, target) in TARGETS {
        for seed in seeds(name) {
            println!("{name}: {}", seed.path.display());
            target(&seed.bytes);
        }
    }
}

#[test]
fn mutated_seeds_are_survived() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);

        let mutations = match *name {
            "rtp_leg" | "sdp_offer" | "sound_file" => MUTATIONS_SLOW,
            _ => MUTATIONS,
        };
        for _ in 0..mutations {
            let mut bytes = seeds[random.below(seeds.len())].bytes.clone();
            let other = &seeds[random.below(seeds.len())].bytes;
            for _ in 0..=random.below(4) {
                random.mutate(&mut bytes, other);
            }

            let _shown = ShownOnPanic {
                name,
                bytes: &bytes,
            };
            target(&bytes);
        }
    }
}

#[test]
fn every_folder_of_seeds_belongs_to_a_target() {
    for entry in fs::read_dir(corpus()).expect("the corpus is committed") {
        let name = entry.expect("a readable entry").file_name();
        let name = name.to_str().expect("targets have plain names");
        assert!(fuzz::target(name).is_some(), "no target is called {name}");
    }
}

/// Prints the input that made a target panic: enough to commit it as a seed.
struct ShownOnPanic<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

#[expect(
    clippy::print_stdout,
    reason = "a failing test shows what it has printed"
)]
impl Drop for ShownOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{} broke on \"{}\"", self.name, self.bytes.escape_ascii());
        }
    }
}

struct Seed {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// The committed inputs of one target, in a fixed order, so that a run can be repeated.
fn seeds(target: &str) -> Vec<Seed> {
    let folder = corpus().join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target} has no seeds");

    paths
        .into_iter()
        .map(|path| Seed {
            bytes: fs::read(&path).expect("a readable seed"),
            path,
        })
        .collect()
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// xorshift64*: the walk must be the same on every machine and in every year.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    /// Changes `bytes` once, by one of the moves that find the most in parsers; `other` lends a tail.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        match self.below(8) {
            _ if bytes.is_empty() => bytes.push(self.byte()),
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.byte(),
            2 => bytes[at] = [0x00, 0x01, 0x7f, 0x80, 0xff][self.below(5)],
            3 => bytes.truncate(at),
            4 => bytes.insert(at, self.byte()),
            5 => drop(bytes.remove(at)),
            6 => {
                let end = at + self.below(bytes.len() - at);
                bytes.extend_from_within(at..end);
            }
            _ => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[self.below(other.len())..]);
            }
        }
    }
}
