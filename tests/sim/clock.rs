//! Virtual time: it passes when the world says so, and the wall clock may be set at any moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use avtomatika_orchestrator::time::{Hands, Timestamp};

/// When the world begins, by its wall clock: 2026-01-01.
const BEGIN: i64 = 1_767_225_600_000_000;

/// Both hands of the one clock in the world. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorldClock(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    passed: AtomicI64,
    /// How far the wall clock is set off.
    set_off: AtomicI64,
    furthest: AtomicI64,
}

impl WorldClock {
    pub fn new() -> Self {
        Self(Arc::new(Shown {
            passed: AtomicI64::new(0),
            set_off: AtomicI64::new(0),
            furthest: AtomicI64::new(0),
        }))
    }

    /// So many microseconds have passed since the beginning.
    pub fn pass_to(&self, micros: i64) {
        self.0.passed.store(micros, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock, by so many microseconds.
    pub fn set(&self, by: i64) {
        let set_off = self.0.set_off.fetch_add(by, Ordering::Relaxed) + by;
        self.0.furthest.fetch_max(set_off, Ordering::Relaxed);
    }

    /// The latest that the wall clock can have shown.
    pub fn latest(&self) -> Timestamp {
        let (passed, furthest) = (&self.0.passed, &self.0.furthest);
        Timestamp::from_micros(BEGIN + passed.load(Ordering::Relaxed) + furthest.load(Ordering::Relaxed))
    }

    /// Somebody sets the wall clock right, which is as late as it ever was: no timer waits for the errors of before.
    pub fn set_right(&self) {
        self.0.set_off.store(self.0.furthest.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Hands for WorldClock {
    fn wall(&self) -> Timestamp {
        let passed = self.0.passed.load(Ordering::Relaxed);
        Timestamp::from_micros(BEGIN + passed + self.0.set_off.load(Ordering::Relaxed))
    }

    fn passed(&self) -> Duration {
        Duration::from_micros(self.0.passed.load(Ordering::Relaxed) as u64)
    }
}
