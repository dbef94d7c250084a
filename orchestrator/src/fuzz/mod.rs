//! What nobody would think of sending: kept inputs, and endless variations of them, for everything that reads what others wrote.
//!
//! A *target* is a test that hands bytes to one reader and says what must hold whatever they are. It first reads every file of its corpus
//! (`corpus/NAME/`, and what it makes itself), then variations of these for [`STANDING`], from a seed that is printed. An input that
//! breaks something is made smaller, shown, and written to a file: mend the fault, and keep the file in the corpus.
//!
//! `AVTOMATIKA_FUZZ_SECONDS` makes a run longer, `AVTOMATIKA_FUZZ_SEED` repeats one: see docs/testing.md. It needs no tool but cargo, and
//! sees nothing of how the reader works; the corpus is what leads it to the deeper places.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use rustix::time::{ClockId, clock_gettime};

mod blueprint;
mod json;

/// How long a target varies its inputs when nobody says.
const STANDING: Duration = Duration::from_secs(2);

/// Processor time that any one input may take, not optimised.
const INPUT_TIME_MAX: Duration = Duration::from_secs(2);

/// Variations of one input that are made at a time, each from a seed of its own.
const BATCH: u32 = 500;

/// Largest input that comes of a variation. Larger ones meet the limits of sizes, which have tests of their own.
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// One step from an input to another.
#[derive(Debug, Clone)]
enum Edit {
    Insert {
        at: Index,
        bytes: Vec<u8>,
    },
    Word {
        at: Index,
        word: Index,
    },
    Remove {
        at: Index,
        len: usize,
    },
    Replace {
        at: Index,
        byte: u8,
    },
    Flip {
        at: Index,
        bit: u8,
    },
    /// A part of another input of the corpus.
    Graft {
        at: Index,
        other: Index,
        from: Index,
        len: usize,
    },
    /// A part of this one, again and again.
    Repeat {
        at: Index,
        len: usize,
        times: usize,
    },
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    let len = || prop_oneof![4 => 1..8_usize, 2 => 8..64_usize, 1 => 64..1024_usize];
    prop_oneof![
        4 => (at(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Edit::Insert { at, bytes }),
        8 => (at(), at()).prop_map(|(at, word)| Edit::Word { at, word }),
        6 => (at(), len()).prop_map(|(at, len)| Edit::Remove { at, len }),
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace { at, byte }),
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip { at, bit }),
        6 => (at(), at(), at(), len()).prop_map(|(at, other, from, len)| Edit::Graft { at, other, from, len }),
        1 => (at(), len(), 2..100_usize).prop_map(|(at, len, times)| Edit::Repeat { at, len, times }),
    ]
}

/// The part of some bytes that begins there.
fn part<'b>(bytes: &'b [u8], from: &Index, len: usize) -> &'b [u8] {
    let from = from.index(bytes.len() + 1);
    &bytes[from..(from + len).min(bytes.len())]
}

fn vary(corpus: &[Vec<u8>], words: &[&str], first: &Index, edits: &[Edit]) -> Vec<u8> {
    let mut input = first.get(corpus).clone();
    for edit in edits {
        let place = |at: &Index| at.index(input.len() + 1);
        match edit {
            Edit::Insert { at, bytes } => drop(input.splice(place(at)..place(at), bytes.iter().copied())),
            Edit::Word { at, word } if !words.is_empty() => {
                let word = word.get(words);
                drop(input.splice(place(at)..place(at), word.bytes()));
            }
            Edit::Word { .. } => {}
            Edit::Remove { at, len } => {
                let end = (place(at) + len).min(input.len());
                drop(input.drain(place(at)..end));
            }
            Edit::Replace { at, byte } => {
                let place = place(at);
                input.get_mut(place).into_iter().for_each(|old| *old = *byte);
            }
            Edit::Flip { at, bit } => {
                let place = place(at);
                input.get_mut(place).into_iter().for_each(|old| *old ^= 1 << bit);
            }
            Edit::Graft { at, other, from, len } => {
                let other: &Vec<u8> = other.get(corpus);
                let graft = part(other, from, *len).to_vec();
                drop(input.splice(place(at)..place(at), graft));
            }
            Edit::Repeat { at, len, times } => {
                let again = part(&input, at, *len).repeat(*times);
                drop(input.splice(place(at)..place(at), again));
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

/// Hands everything that is kept for a target to it, then variations of that. `made` is kept in code, `words` are what its inputs consist
/// of; `check` panics when something does not hold.
pub(crate) fn fuzz(target: &str, made: Vec<Vec<u8>>, words: &[&str], check: impl Fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuzz/corpus").join(target);
    let mut corpus = made;
    for file in files(&dir) {
        println!("{}", file.display());
        let bytes = fs::read(&file).unwrap();
        in_time(&check, &bytes);
        corpus.push(bytes);
    }
    corpus.iter().for_each(|bytes| in_time(&check, bytes));
    assert!(!corpus.is_empty(), "{target} has nothing to begin with");

    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let length = number("AVTOMATIKA_FUZZ_SECONDS").map_or(STANDING, Duration::from_secs);
    let seed = number("AVTOMATIKA_FUZZ_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    println!("AVTOMATIKA_FUZZ_SEED={seed}");
    let strategy = (any::<Index>(), vec(edit(), 0..10));
    let began = Instant::now();
    let mut batch = 0_u64;
    while began.elapsed() < length {
        let mut runner = TestRunner::new_with_rng(config(), rng(seed, batch));
        let ran = runner.run(&strategy, |(first, edits)| {
            in_time(&check, &vary(&corpus, words, &first, &edits));
            Ok(())
        });
        match ran {
            Ok(()) => batch += 1,
            Err(TestError::Fail(reason, (first, edits))) => {
                let input = vary(&corpus, words, &first, &edits);
                let file = keep(target, &input);
                let shown = String::from_utf8_lossy(&input);
                panic!(
                    "{reason}\n{target}, seed {seed}, batch {batch}: {shown:?}\nWhen it is mended, keep {} in {}",
                    file.display(),
                    dir.display()
                );
            }
            Err(TestError::Abort(reason)) => panic!("{reason}"),
        }
    }
    println!("{target}: {} variations of {} inputs", batch * u64::from(BATCH), corpus.len());
}

/// Runs the check, and holds it to its time: that of the processor, because others use the machine as well.
fn in_time(check: &impl Fn(&[u8]), input: &[u8]) {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let before = used();
    check(input);
    let took = used() - before;
    assert!(took < INPUT_TIME_MAX, "an input of {} bytes takes {took:?}", input.len());
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).map(|entries| entries.map(|entry| entry.unwrap().path()).collect());
    let mut files: Vec<PathBuf> = entries.unwrap_or_default();
    files.sort();
    files
}

fn config() -> Config {
    Config { cases: BATCH, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() }
}

fn rng(seed: u64, batch: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&batch.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Writes an input down, under a name that tells it from others.
fn keep(target: &str, input: &[u8]) -> PathBuf {
    let mut sum = DefaultHasher::new();
    input.hash(&mut sum);
    let file = env::temp_dir().join(format!("{target}-{:016x}", sum.finish()));
    fs::write(&file, input).unwrap();
    file
}

#[test]
fn variations_follow_from_their_seed_and_reach_far() {
    let corpus = [b"one".to_vec(), b"another".to_vec()];
    let made = |seed| {
        let found = std::cell::RefCell::new(Vec::new());
        let mut runner = TestRunner::new_with_rng(config(), rng(seed, 0));
        let strategy = (any::<Index>(), vec(edit(), 0..10));
        runner
            .run(&strategy, |(first, edits)| {
                found.borrow_mut().push(vary(&corpus, &["word"], &first, &edits));
                Ok(())
            })
            .unwrap();
        found.into_inner()
    };
    let first = made(1);
    assert_eq!(first, made(1));
    assert_ne!(first, made(2));
    let has = |what: &[u8]| first.iter().any(|input| input.windows(what.len()).any(|window| window == what));
    assert!(has(b"word") && has(b"one") && has(b"another") && has(b"anotherother"));
}
