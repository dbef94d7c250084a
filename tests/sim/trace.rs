//! What has happened in a run: a number that stands for all of it, so that two runs can be compared, and the last of it, for
//! people.
//!
//! A line is put into words only when somebody will read it.

use std::{collections::VecDeque, fmt};

/// Lines that are kept for a failing seed.
const KEPT: usize = 60;

/// How much of the run is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The number only.
    Sum,
    /// The last lines too.
    Last,
    /// Every line, as it happens.
    Print,
}

/// The record of a run.
#[derive(Debug)]
pub struct Trace {
    sum: u64,
    detail: Detail,
    lines: VecDeque<String>,
}

impl Trace {
    pub fn new(detail: Detail) -> Self {
        Self { sum: 0xcbf2_9ce4_8422_2325, detail, lines: VecDeque::new() }
    }

    /// This has happened.
    pub fn add(&mut self, number: u64) {
        self.sum = (self.sum ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// These bytes are part of it.
    pub fn add_bytes(&mut self, bytes: &[u8; 16]) {
        let (high, low) = bytes.split_at(8);
        let number = |half: &[u8]| u64::from_le_bytes(half.try_into().unwrap());
        self.add(number(high));
        self.add(number(low));
    }

    /// The same in words.
    pub fn say(&mut self, now: i64, line: impl FnOnce() -> String) {
        if self.detail == Detail::Sum {
            return;
        }
        let line = format!("{:>12.6} s  {}", now as f64 / 1e6, line());
        if self.detail == Detail::Print {
            println!("{line}");
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The number that stands for everything that has happened.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
